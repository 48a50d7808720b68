package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/index"
)

// watchedHouse is a server of the real program with every way in, where whoever runs the
// test is the overseer.
func watchedHouse(t *testing.T, list string) (s *served, ways map[string]string) {
	t.Helper()
	s = &served{dir: t.TempDir(), http: freePort(t)}
	layCertificate(t, s.dir, 1)
	ways = map[string]string{"http": fmt.Sprintf("http://127.0.0.1:%d/api/v1/ingest/app", s.http)}
	more := fmt.Sprintf("http: 127.0.0.1:%d\nreserve: 16MiB\nmemory: 64MiB\nown_rules: false\noffices: offices.yaml\nprotected: protected.yaml\nlisteners:\n", s.http)
	for _, way := range []string{"udp", "tcp", "tls", "relp"} {
		port := freePort(t)
		certs, name := "", way
		if way != "relp" {
			name = "syslog-" + way
		}
		if way == "tls" {
			certs = ", cert: cert.pem, key: key.pem, client_ca: cert.pem"
		}
		more += fmt.Sprintf("  - {way: %s, address: \"127.0.0.1:%d\", source: linux%s}\n", name, port, certs)
		host := map[bool]string{true: "localhost", false: "127.0.0.1"}[way == "tls"]
		ways[way] = fmt.Sprintf("%s://%s:%d", way, host, port)
	}
	offices := "form: offices/v1\noffices:\n"
	for _, o := range [][3]string{{"inspector", owner(), "overseer"}, {"soc", "os-4713", "responder"}} {
		offices += fmt.Sprintf("  - {id: %s, authority: %s-board, holder: %s, standing: confirmed, since: 2020-01-01, roles: [%s]}\n", o[0], o[0], o[1], o[2])
	}
	for name, text := range map[string]string{"offices.yaml": offices, "protected.yaml": list} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := layAgency(s.dir, more); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.cmd != nil {
			s.kill()
		}
		if t.Failed() {
			t.Logf("the server said:\n%s", s.log.String())
		}
	})
	s.start(t)
	return s, ways
}

// plan writes a plan for every way; channelsOnly: with contact alone.
func (s *served) plan(t *testing.T, ways map[string]string, channelsOnly bool) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("apiVersion: canary/v1\nchannels: [hotline.oig.example]\nways:\n")
	for _, way := range []string{"http", "udp", "tcp", "tls", "relp"} {
		channel := `<38>1 {now} web-1 curl 1 - - GET https://{channel}/{mark}`
		person := `<38>1 {now} {kept} sshd 123 - - Accepted password for {mark} from 203.0.113.5 port 50000 ssh2`
		refused := `<13>1 {now} web-1 app {mark} - - kept {kept}`
		if way == "http" {
			channel = `{"time":"{now}","n":1,"text":"seen https://{channel}/{mark}"}`
			person = `{"time":"{now}","n":2,"who":"{mark}","text":"kept {kept}"}`
			refused = `{"time":"{now}","n":3,"text":"kept {kept}","secret":"{mark}"}`
		}
		fmt.Fprintf(&b, "  - name: %s\n    to: %s\n", way, ways[way])
		if way == "tls" {
			fmt.Fprintf(&b, "    ca: %[1]s/cert.pem\n    cert: %[1]s/cert.pem\n    key: %[1]s/key.pem\n", s.dir)
		}
		fmt.Fprintf(&b, "    lines:\n      channel: '%s'\n", channel)
		if !channelsOnly {
			fmt.Fprintf(&b, "      person: '%s'\n      refused: '%s'\n", person, refused)
		}
	}
	path := filepath.Join(t.TempDir(), "plan.yaml")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// checkCanaries plants and checks, and gives what the check said: again, where datagrams are
// still on their way.
func (s *served) checkCanaries(t *testing.T, plan string, want int) (out string, kept *canaryKept) {
	t.Helper()
	keep := filepath.Join(t.TempDir(), "kept")
	counterseal(t, 0, "channels", "canary", plan, "--keep", keep)
	b, err := os.ReadFile(keep)
	if err != nil {
		t.Fatal(err)
	}
	if kept, _, err = readCanaryKept(b); err != nil {
		t.Fatal(err)
	}
	code := -1
	for end := time.Now().Add(20 * time.Second); code != want && time.Now().Before(end); {
		var stdout, stderr bytes.Buffer
		code = run(t.Context(), &environment{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr},
			[]string{"channels", "canary", "check", keep, "--config", filepath.Join(s.dir, configName), "--files", filepath.Join(s.dir, "data")})
		out = stdout.String() + stderr.String()
	}
	if code != want {
		t.Fatalf("canary check: exit %d, want %d\n%s", code, want, out)
	}
	return out, kept
}

const hotlineList = "apiVersion: protected/v1\nchannels:\n  - name: hotline\n    domains: [oig.example]\n"

// TestCanaries: an overseer sends canaries from outside through every way in, and learns that
// nothing of a protected channel or a refused field is there and that a person is a token;
// where the list is empty the same canaries are found. The words never reach the server but
// as those lines.
func TestCanaries(t *testing.T) {
	t.Parallel()
	s, ways := watchedHouse(t, hotlineList)
	plan := s.plan(t, ways, false)
	out, kept := s.checkCanaries(t, plan, 0)
	if len(kept.Lines) != 15 || strings.Count(out, "no trace") != 10 || strings.Count(out, "a token") != 5 || !strings.Contains(out, "nothing of 15 lines is there") {
		t.Errorf("%d lines were sent:\n%s", len(kept.Lines), out)
	}
	s.stop(t)
	if told := ledgerTold(t, filepath.Join(s.dir, "data")); !regexp.MustCompile(`canary\.checked os:\d+ 1 \{"found":0,"planted":25\}`).MatchString(told) {
		t.Errorf("the ledger does not tell of the check:\n%s", told)
	}
	// The check of the files looks at all of them, the questions kept beside the ledger too.
	found, files, err := wordsInFiles(t.Context(), filepath.Join(s.dir, "data"), kept)
	if err != nil || files < 10 || len(found) != 0 {
		t.Errorf("%d files, %v, %v", files, found, err)
	}

	open, ways := watchedHouse(t, "")
	out, kept = open.checkCanaries(t, open.plan(t, ways, true), exitFailed)
	if strings.Count(out, canaryFound) != len(kept.Lines) || len(kept.Lines) != 5 {
		t.Errorf("without a list:\n%s", out)
	}
}

// TestNonInterferenceOfEveryWay: a server that was sent contact with a protected channel
// through every way in tells, writes and counts the same as one that was sent nothing.
func TestNonInterferenceOfEveryWay(t *testing.T) {
	t.Parallel()
	told := map[bool]map[string]string{}
	for _, contact := range []bool{true, false} {
		s, ways := watchedHouse(t, hotlineList)
		resp, err := http.Post(ways["http"], "application/x-ndjson", strings.NewReader(`{"time":"2026-03-05T17:00:00Z","n":1,"text":"an ordinary line"}`+"\n"))
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		resp.Body.Close()
		if contact {
			keep := filepath.Join(t.TempDir(), "kept")
			counterseal(t, 0, "channels", "canary", s.plan(t, ways, true), "--keep", keep)
			b, err := os.ReadFile(keep)
			if err != nil {
				t.Fatal(err)
			}
			if k, _, err := readCanaryKept(b); err != nil || len(k.Lines) != 5 {
				t.Fatal(err)
			}
		}
		s.stop(t)
		if contact && strings.Contains(s.log.String(), "oig") {
			t.Error("the log tells of it")
		}
		all := map[string]string{"ledger": ledgerTold(t, filepath.Join(s.dir, "data"))}
		// As whoever runs the machine, and then as whoever reads events.
		path := filepath.Join(s.dir, configName)
		conf, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.Replace(conf, []byte("\noffices: offices.yaml\n"), []byte("\n"), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		paths := slices.DeleteFunc(slices.Clone(apiPaths), func(p string) bool { return strings.Contains(p, "finding") }) // there are none
		answersTo(t, s.dir, "operator ", operatorPaths, all)
		if err := os.WriteFile(path, conf, 0o600); err != nil {
			t.Fatal(err)
		}
		writeOffices(t, s.dir, office{"soc", "ciso", "", owner(), "analyst"}, inspector)
		answersTo(t, s.dir, "analyst ", slices.DeleteFunc(paths, func(p string) bool { return p == "/metrics" }), all)
		if !strings.Contains(all["analyst "+apiPaths[0]], "an ordinary line") {
			t.Fatal("the analyst is shown nothing")
		}
		for k, v := range all {
			all[k] = unmarkedCanary(v)
		}
		told[contact] = all
	}
	for k := range told[true] {
		if strings.HasSuffix(k, "log") {
			continue
		}
		a, b := strings.Split(told[true][k], "\n"), strings.Split(told[false][k], "\n")
		if !slices.Equal(a, b) {
			t.Errorf("%s tells of the contact:\n%.3000s", k, cmp.Diff(a, b))
		}
	}
}

// unmarkedCanary takes out what two servers have of their own: ports, ids and keys.
func unmarkedCanary(s string) string {
	for _, re := range []*regexp.Regexp{
		regexp.MustCompile(`(?m)^retention\.changed .*\n`), // stated after the start, one by one: a stop may come between
		regexp.MustCompile(`[0-9a-f]{64}`), regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}`), regexp.MustCompile(`/tmp/\S*`),
		regexp.MustCompile(`20\d\d-\d\d-\d\dT[0-9:.]*Z`), regexp.MustCompile(`127\.0\.0\.1:\d+`), regexp.MustCompile(`(?m)^.*(_seconds|_bytes|uptime).*$`),
	} {
		s = re.ReplaceAllString(s, "")
	}
	return unmarked(s)
}

// TestCanaryCheck: the act is the overseer's, knows a word by its digest alone, and tells
// nothing of any other word.
func TestCanaryCheck(t *testing.T) {
	b := openBureau(t, withProtected)
	now := b.now().Truncate(time.Second)
	word, other := randomMark(), randomMark()
	b.lines("app", fmt.Sprintf("{\"time\":%q,\"n\":1,\"who\":\"alice\",\"text\":\"x%sx and short\"}\n", now.Format(time.RFC3339), word))
	salt := bytes.Repeat([]byte{7}, canarySaltLen)
	digest := func(w string) string { sum := markDigest(salt, []byte(w)); return fmt.Sprintf("%x", sum) }
	ask := canaryAsk{Salt: fmt.Sprintf("%x", salt), From: now.Add(-time.Hour), To: now.Add(time.Hour), Marks: []canaryMark{
		{markChannel, digest(word)}, {markRefused, digest(other)}, {markPerson, digest("alice")}, {markKept, digest("short")},
	}}
	for _, user := range []int{0, colleague, privacyOfficer} {
		b.does(user, "canary.check", ask, nil, 403, "")
	}
	var a canaryAnswer
	b.does(overseer, "canary.check", ask, &a, 200, "")
	if diff := cmp.Diff([]canaryHits{{Events: 1, Tokens: 1}, {}, {}, {}}, a.Marks); diff != "" || a.Found != 1 || a.Planted != 4 {
		t.Error(a, diff)
	}
	for name, change := range map[string]func(*canaryAsk){
		"salt": func(q *canaryAsk) { q.Salt = "00" }, "none": func(q *canaryAsk) { q.Marks = nil }, "long": func(q *canaryAsk) { q.To = q.From.Add(72 * time.Hour) },
		"class": func(q *canaryAsk) { q.Marks = []canaryMark{{"x", digest(word)}} }, "digest": func(q *canaryAsk) { q.Marks = []canaryMark{{markKept, "ab"}} },
		"twice": func(q *canaryAsk) { q.Marks = append(q.Marks, q.Marks[0]) }, "future": func(q *canaryAsk) { q.From, q.To = now.Add(time.Hour), now.Add(2*time.Hour) },
	} {
		q := ask
		q.Marks = slices.Clone(ask.Marks)
		change(&q)
		code, text := b.as(overseer, "POST", "/api/v1/acts/canary.check", url.Values{}, q)
		if code != 400 {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}
}

func FuzzCanaryPlan(f *testing.F) {
	f.Add([]byte("apiVersion: canary/v1\nchannels: [a.example]\nways: [{name: a, to: 'udp://127.0.0.1:1', lines: {channel: '{channel} {mark}', person: '{mark} {kept}'}}]"))
	f.Add([]byte("apiVersion: canary/v1"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parseCanaryPlan(data)
		if err != nil {
			return
		}
		for i := range p.Ways {
			for _, l := range p.Ways[i].lines() {
				if l.text != "" && !strings.Contains(l.text, "{mark}") {
					t.Fatal("a line without a mark")
				}
			}
		}
	})
}

func FuzzCanaryKept(f *testing.F) {
	b, err := json.Marshal(canaryKept{Form: canaryKeptForm, Salt: strings.Repeat("00", canarySaltLen), Lines: []canaryRecord{{Way: "a", Class: markPerson, Word: randomMark(), Kept: randomMark()}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, salt, err := readCanaryKept(b)
		if err != nil {
			return
		}
		ask, lines := k.ask(salt)
		a := &canaryAnswer{Marks: make([]canaryHits, len(ask.Marks))}
		var r canaryResult
		r.judge(k, lines, a, map[string]int{})
		if r.Found != 0 || r.Planted != len(k.Lines) {
			t.Fatal(r)
		}
		_ = printCanaries(io.Discard, &r)
	})
}

// A token is no canary: who has one does not learn by it when somebody was seen.
func TestSeekerLeavesTokens(t *testing.T) {
	token := string(event.NewToken(event.Person, 1, [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}))
	body := token[len(token)-26:]
	salt := []byte("salt")
	for _, text := range []string{token, strings.ToUpper(token), "by " + token + ", from " + token, "x" + token} {
		for at := range 3 {
			k := &seeker{salt: salt, at: map[[32]byte]int{markDigest(salt, []byte(body[at:at+markLen])): 0}, hits: map[int]bool{}}
			k.row(&index.Row{OCSF: []index.Attr{{Name: "user.uid", Value: text}}})
			if k.hits[0] {
				t.Errorf("a part of a token was found in %q", text)
			}
		}
	}
}

// A word is found inside of a longer one and in capitals; a shorter one is none.
func TestSeeker(t *testing.T) {
	salt, word := []byte("salt"), randomMark()
	if len(word) != markLen {
		t.Fatal(len(word))
	}
	for text, want := range map[string]bool{
		word: true, strings.ToUpper(word): true, "abc" + word + "def": true, word[1:]: false, "https://x.example/" + word + "/": true, word[:12] + " " + word[12:]: false,
	} {
		k := &seeker{salt: salt, at: map[[32]byte]int{markDigest(salt, []byte(word)): 0}, hits: map[int]bool{}}
		k.row(&index.Row{Native: []index.Attr{{Name: "x", Value: text}}})
		if k.hits[0] != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}
