package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/counterseal/counterseal/internal/ledger"
)

const playedAt = "2026-03-05T17:00:00Z"

// counterseal runs one command line in this process and returns what it printed.
func counterseal(t *testing.T, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code := run(t.Context(), &environment{stdin: strings.NewReader(""), stdout: &out, stderr: &errs}, args)
	if code != want {
		t.Fatalf("counterseal %s: exit %d, want %d\n%s%s", strings.Join(args, " "), code, want, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

// apiPaths are the answers that show anything of what was collected.
var apiPaths = []string{
	"/api/v1/search?limit=1000000", "/api/v1/search?limit=1000000&q=" + "kind+%3D+finding", "/api/v1/findings?limit=1000000",
	"/api/v1/sources", "/api/v1/gaps", "/api/v1/rules", "/api/v1/doctor", "/api/v1/status", "/metrics", "/",
	"/?q=" + "source+exists", "/?q=" + "%2A+%7C+stats+count%28%29+by+user.uid%2C+device.hostname",
}

// operatorPaths are those of them for whoever runs the machine.
var operatorPaths = []string{"/api/v1/sources", "/api/v1/gaps", "/api/v1/rules", "/api/v1/doctor", "/api/v1/status", "/metrics", "/"}

// answers asks every one of apiPaths on the data directory of a demo that nobody serves:
// as the responder, then as the operator, whom the metrics are for.
func answers(t *testing.T, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	answersTo(t, root, "", slices.DeleteFunc(slices.Clone(apiPaths), func(p string) bool { return p == "/metrics" }), out)
	path := filepath.Join(root, configName)
	conf, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	alone := bytes.Replace(conf, []byte("\noffices: offices.yaml\n"), []byte("\n"), 1)
	if bytes.Equal(alone, conf) {
		t.Fatal("the demo has no record of offices")
	}
	if err := os.WriteFile(path, alone, 0o600); err != nil {
		t.Fatal(err)
	}
	answersTo(t, root, "operator ", operatorPaths, out)
	if err := os.WriteFile(path, conf, 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

func answersTo(t *testing.T, root, who string, paths []string, out map[string]string) {
	t.Helper()
	cfg, err := (&configFlags{data: root}).load()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	c, err := dial(t.Context(), &environment{stderr: &log}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		u, err := url.Parse(p)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.do(t.Context(), "GET", u.Path, u.Query(), nil)
		if err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil || len(b) == 0 {
			t.Fatalf("%s: %d bytes, %v", p, len(b), err)
		}
		out[who+p] = string(b)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	out[who+"log"] = log.String()
}

// nameIn says where text holds a name, both in small letters, or -1. A staff number may
// stand in an id of hexadecimal digits by chance.
func nameIn(text, name string) int {
	for from := 0; ; {
		i := strings.Index(text[from:], name)
		if i < 0 {
			return -1
		}
		i += from
		if i == 0 || !strings.HasPrefix(name, "e-1") || !strings.Contains("0123456789abcdef", text[i-1:i]) {
			return i
		}
		from = i + 1
	}
}

// TestNoNamesAnywhere plays the demo and looks for every name of its people in
// everything that the program wrote and said. The files of the operator (directory,
// assessments, logs to import) lie beside the data directory and hold names.
func TestNoNamesAnywhere(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "d")
	said := map[string]string{}
	said["demo"], said["demo, standard error"] = counterseal(t, 0, "demo", "--no-serve", "--scale", "0.05", "--data", root, "--seed", "5", "--at", playedAt)
	for _, args := range [][]string{
		{"timeline"}, {"timeline", "--jsonl", "-"}, {"search", "--limit", "100000", "--format", "csv"}, {"doctor"}, {"rules", "check"}, {"rules", "list"}, {"verify", "--format", "jsonl"},
	} {
		name := strings.Join(args, " ")
		said[name], said[name+", standard error"] = counterseal(t, 0, append(args, "--data", root)...)
	}
	for p, a := range answers(t, root) {
		said[p] = a
	}
	err := filepath.WalkDir(filepath.Join(root, "data"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		said[path] = path + "\n" + string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}

	directory, err := os.ReadFile(filepath.Join(root, "keyholder", "directory.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, line := range strings.Split(string(directory), "\n") {
		if strings.Contains(line, "end:") {
			continue
		}
		for _, q := range regexp.MustCompile(`"([^"]+)"`).FindAllStringSubmatch(line, -1) {
			names = append(names, strings.ToLower(q[1]), strings.TrimPrefix(q[1], "+"))
		}
	}
	if len(names) < 300 {
		t.Fatalf("only %d names to look for", len(names))
	}
	bytesSeen := 0
	for where, text := range said {
		bytesSeen += len(text)
		text = strings.ToLower(text)
		for _, n := range names {
			if i := nameIn(text, n); i >= 0 {
				t.Errorf("%s holds %q: …%q…", where, n, text[max(0, i-80):min(len(text), i+80)])
				break
			}
		}
	}
	// The look must be one that finds: the logs that were sent hold the names.
	sent := 0
	filepath.WalkDir(filepath.Join(root, "logs"), func(path string, d fs.DirEntry, err error) error {
		if b, rerr := os.ReadFile(path); rerr == nil {
			sent += len(b)
		}
		return err
	})
	for _, want := range []string{"person-", "device-", "address-"} {
		if !strings.Contains(said["/api/v1/search?limit=1000000"], want) {
			t.Errorf("no alias %s… in the answers: the test looks at nothing", want)
		}
	}
	if sent == 0 || bytesSeen < 1<<20 {
		t.Errorf("looked at %d bytes only", bytesSeen)
	}
}

// What differs between two runs and tells nothing: times of receipt, places.
var runMarks = []*regexp.Regexp{
	regexp.MustCompile(`"(sealed|at|first|last)":"[^"]*"`),
	regexp.MustCompile(`[a-z]+/[0-9a-f]{8}-[0-9a-f-]{27}/\d+`),
	regexp.MustCompile(`(?m)^(go|process|promhttp)_.*$`),
	regexp.MustCompile(`[0-9]+ MiB are free`),
	regexp.MustCompile(`[0-9]+ statements,`), // how often progress is stated is a matter of time
	regexp.MustCompile(`/\S*/TestNonInterference\S*/pias/`),
	regexp.MustCompile(`(?m)^data .*$`),
	regexp.MustCompile(`<td class="mono( t)?">2026-03-05T17:0[0-9:.]*Z</td>`),
	regexp.MustCompile(`2026-03-19T17:0[0-9:.]*Z`), // since when nobody watches: 14 days after the start
	regexp.MustCompile(`Played and answered in .*(?s:.*)`),
}

func unmarked(s string) string {
	for _, re := range runMarks {
		s = re.ReplaceAllString(s, "…")
	}
	lines := strings.Split(s, "\n")
	slices.Sort(lines) // records of one instant stand in the order of sealing
	return strings.Join(lines, "\n")
}

// TestNonInterference: with and without the contact with the hotline, every answer
// of the program is the same.
func TestNonInterference(t *testing.T) {
	t.Parallel()
	held := map[bool]map[string]string{}
	for _, hotline := range []bool{true, false} {
		root := filepath.Join(t.TempDir(), "d")
		args := []string{"demo", "--no-serve", "--scale", "0.05", "--data", root, "--seed", "3", "--at", playedAt}
		if !hotline {
			args = append(args, "--no-hotline")
		}
		out, _ := counterseal(t, 0, args...)
		a := answers(t, root)
		a["demo"] = out
		a["counts"] = evidenceCounts(t, root)
		a["ledger"] = ledgerTold(t, filepath.Join(root, "data"))
		for k, v := range a {
			a[k] = unmarked(v)
		}
		held[hotline] = a
	}
	if len(held[true]["/api/v1/search?limit=1000000"]) < 1<<20 {
		t.Fatal("nothing is held")
	}
	for k := range held[true] {
		if strings.HasSuffix(k, "log") {
			continue
		}
		a, b := strings.Split(held[true][k], "\n"), strings.Split(held[false][k], "\n")
		if !slices.Equal(a, b) {
			diff := cmp.Diff(a, b)
			t.Errorf("%s tells of the contact:\n%.3000s", k, diff)
		}
	}
}

// evidenceCounts says how many events of which compartment verify counts.
func evidenceCounts(t *testing.T, root string) string {
	t.Helper()
	out, _ := counterseal(t, 0, "search", "--data", root, "* | stats count() by compartment, kind | sort by compartment, kind", "--format", "csv")
	return out
}

// ledgerTold is what the ledger says but for times, ids and hashes of what lies under
// random keys. How often progress is stated is a matter of time.
func ledgerTold(t *testing.T, dir string) string {
	t.Helper()
	vkey, err := os.ReadFile(filepath.Join(dir, "ledger", "log.vkey"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	r, err := ledger.VerifyDir(t.Context(), filepath.Join(dir, "ledger"), ledger.Verifiers{Log: []string{strings.TrimSpace(string(vkey))}, Each: func(_ uint64, s ledger.Statement) {
		if s.Kind == "segment.progress" {
			return
		}
		var d map[string]any
		if err := json.Unmarshal(s.Detail, &d); err != nil {
			t.Error(err)
		}
		for _, name := range []string{"from", "to", "root", "blocks", "header", "footer", "bytes", "question", "payload", "rules", "request", "policy", "config"} {
			delete(d, name)
		}
		if s.Kind == "config.activated" {
			delete(d, "digest") // of a configuration with the folder of the test
		}
		if s.Kind == "segment.closed" && d["stream"] == "events" {
			delete(d, "records") // with control records, which come by the clock
		}
		text, err := json.Marshal(d)
		if err != nil {
			t.Error(err)
		}
		lines = append(lines, fmt.Sprintf("%s %s %d %s", s.Kind, s.Actor, len(s.Subject), text))
	}})
	if err != nil || !r.OK() || len(lines) < 10 {
		t.Fatal(len(lines), r.Findings, err)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestPageOfServe checks the handlers as serve mounts them: the address needs the
// secret, the socket does not.
func TestPageOfServe(t *testing.T) {
	dir := t.TempDir()
	if err := layAgency(dir, "http: 127.0.0.1:0\nreserve: 16MiB\nmemory: 64MiB\n"); err != nil {
		t.Fatal(err)
	}
	cfg, err := readConfig(filepath.Join(dir, configName))
	if err != nil {
		t.Fatal(err)
	}
	s, err := openServer(context.Background(), cfg, serverOptions{log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	if err := s.listen(); err != nil {
		t.Fatal(err)
	}
	stop := s.background(context.Background())
	w := httptest.NewRecorder()
	s.web.Loopback().ServeHTTP(w, httptest.NewRequest("GET", "http://localhost/api/v1/status", nil))
	if w.Code != 401 {
		t.Errorf("without a session: %d", w.Code)
	}
	st, err := os.Stat(filepath.Join(cfg.Data, "run", "api.sock"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", st, err)
	}
	for _, d := range []string{"keys", "run", "evidence", "state", "index"} {
		if st, err := os.Stat(filepath.Join(cfg.Data, d)); err == nil && st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is open to others: %v", d, st.Mode())
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
