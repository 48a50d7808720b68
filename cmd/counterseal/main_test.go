package main

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/packs"
	"github.com/counterseal/counterseal/internal/parse"
	"github.com/counterseal/counterseal/internal/pia"
)

// TestMain lets the test binary be counterseal itself, for the scripts and for the
// tests that kill it.
func TestMain(m *testing.M) {
	ledger.RouteLibraryLog(slog.New(slog.DiscardHandler))
	as := func(counted func()) func() {
		return func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			code := run(ctx, &environment{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, counted: counted}, os.Args[1:])
			os.Exit(code)
		}
	}
	program := as(nil)
	if len(os.Args) > 1 && os.Args[1] == "keyholder" { // serve starts its own binary, which is this one
		program()
	}
	// Whole servers wait more than they work: more of them at once than there are cores.
	if err := flag.Set("test.parallel", strconv.Itoa(runtime.GOMAXPROCS(0)+1)); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){
		"counterseal":      program,
		"counterseal-dies": as(func() { signalTo(os.Getpid(), os.Kill); select {} }), // a duty host between count and answer
	})
}

// TestScript runs the command line as a person does: one script a behaviour.
// Standard error may begin with a line of the index library about the machine, so
// no script asks for an empty one.
func TestScript(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Condition: func(name string) (bool, error) {
			if name != "fips" {
				return false, fmt.Errorf("unknown condition %q", name)
			}
			return packs.Required("fips"), nil
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("GODEBUG", os.Getenv("GODEBUG")) // make fips: in the commands, too
			return layAgency(e.WorkDir, "reserve: 16MiB\nmemory: 64MiB\nhttp: 127.0.0.1:0\n")
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exitcode": cmdExitCode, "ready": cmdReady, "flip": cmdFlip, "generate": cmdGenerate, "rename-rules": cmdRenameRules, "capture": cmdCapture, "fill": cmdFill,
		},
	})
}

// The sources of the invented agency: what each may send.
var agency = []struct {
	source, dataset, compartment string
	fields                       []pia.DraftField
}{
	{"linux", "linux-sshd", "servers", nil},
	{"linux", "syslog", "servers", []pia.DraftField{
		{Path: "app_name", Action: "allow"}, {Path: "hostname", Action: "allow"},
		{Path: "msg", Action: "allow", Reason: "the numbered lines of a test"}}},
	{"app", "json", "apps", []pia.DraftField{
		{Path: "time", Action: "allow"}, {Path: "n", Action: "allow"}, {Path: "who", Action: "tokenise", Category: "person"},
		{Path: "text", Action: "allow", Reason: "what the program wrote"}, {Path: "deep.*", Action: "allow", Reason: "a test"}, {Path: "wide.*", Action: "allow", Reason: "a test"}}},
	{"idp", "signin", "identity", nil},
}

// agencyDraft is an assessment without a place to fill in, in force now.
func agencyDraft(now time.Time) pia.Draft {
	signed := now.AddDate(0, 0, -20).UTC().Format(time.RFC3339)
	d := pia.Draft{
		ID: "PIA-TEST-2026-001", Title: "test", Owner: "CISO", ATO: "ATO-1", SSP: "9cbd98f3-abcb-4948-ad06-14e0bcba742f",
		Authority: "law", Purpose: "detect", Notice: "banner", Redress: "office", Schedule: "item",
		Signers:     []pia.Signer{{Role: "SAOP", Name: "A", KeyID: "a", Sig: "x", SignedAt: signed}, {Role: "CISO", Name: "B", KeyID: "b", Sig: "y", SignedAt: signed}},
		Publication: pia.Publication{URL: "https://agency.example/p", Digest: "sha256:" + strings.Repeat("0", 64), PublishedAt: signed},
		Effective:   now.AddDate(0, 0, -10), Expires: now.AddDate(2, 0, 0), OriginalDays: -1,
	}
	for _, s := range agency {
		src := pia.DraftSource{Source: s.source, Dataset: s.dataset, Compartment: s.compartment, RetentionDays: 365, Fields: s.fields}
		for _, f := range parse.Formats() {
			for _, ds := range f.Datasets {
				for _, fl := range ds.Fields {
					if ds.Name == s.dataset && s.fields == nil {
						src.Fields = append(src.Fields, pia.DraftField{Path: fl.Path, Category: fl.Category, Action: fl.Action, Reason: fl.Reason})
					}
				}
			}
		}
		d.Sources = append(d.Sources, src)
	}
	return d
}

// layAgency writes a configuration and what it names into a folder.
func layAgency(dir, more string) error {
	if err := os.MkdirAll(filepath.Join(dir, "pias"), 0o700); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"pias/test.yaml": string(agencyDraft(time.Now()).YAML()),
		configName:       "data: data\npias: [pias]\n" + more,
	} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			continue // a script brings its own
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// cmdExitCode runs a command that must end with the code given.
func cmdExitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exitcode CODE PROGRAM ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var x *exec.ExitError
		if !errors.As(err, &x) {
			ts.Fatalf("%v", err)
		}
		code = x.ExitCode()
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

// cmdCapture keeps what a part of a pattern finds in the last standard output.
func cmdCapture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: capture VARIABLE PATTERN")
	}
	m := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(m) != 2 {
		ts.Fatalf("nothing like %s", args[1])
	}
	ts.Setenv(args[0], m[1])
}

// cmdReady waits until a server answers on the socket of a data directory.
func cmdReady(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: ready DATA")
	}
	data := ts.MkAbs(args[0])
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if c, err := dialSocket(context.Background(), data); err == nil {
			c.Close()
			return
		}
	}
	ts.Fatalf("no server on %s", data)
}

// cmdFlip changes one bit in the middle of the only file that a pattern names.
func cmdFlip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: flip PATTERN")
	}
	files, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(files) != 1 {
		ts.Fatalf("%d files like %s", len(files), args[0])
	}
	b, err := os.ReadFile(files[0])
	ts.Check(err)
	b[len(b)/2] ^= 0x10
	ts.Check(os.WriteFile(files[0], b, 0o600))
}

// cmdGenerate writes inputs that no script file can hold.
func cmdGenerate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: generate KIND FILE")
	}
	var b strings.Builder
	good := func(n int) { fmt.Fprintf(&b, `{"time":"2026-01-02T03:04:05Z","n":%d,"text":"good line"}`+"\n", n) }
	good(1)
	switch args[0] {
	case "long": // a line of 10 MB
		b.WriteString(`{"n":2,"text":"` + strings.Repeat("x", 10<<20) + "\"}\n")
	case "deep":
		b.WriteString(strings.Repeat(`{"deep":`, 200_000) + "1" + strings.Repeat("}", 200_000) + "\n")
	case "nul":
		b.WriteString("{\"n\":2,\"text\":\"a\\u0000b\"}\n\x00\x00\x00\n{\"n\":3,\"text\":\"\xff\xfe\"}\n")
	case "escapes":
		b.WriteString(`{"time":"2026-01-02T03:04:06Z","n":2,"process":{},"text":"\u001b]0;owned\u0007\u001b[31mred \u202egnp.exe"}` + "\n")
	case "wide": // over the fields and the bytes of a row of the index
		b.WriteString(`{"time":"2026-01-02T03:04:06Z","n":2,"wide":{`)
		for i := range 1500 {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `"f%d":"planted-%d-%s"`, i, i, strings.Repeat("y", 3000))
		}
		b.WriteString("}}\n")
	case "many": // rows that together are beyond the memory of a sort
		noise := strings.Repeat("noise ", 500)
		for n := 2; n <= 6000; n++ {
			fmt.Fprintf(&b, `{"time":"2026-01-02T%02d:%02d:%02dZ","n":%d,"text":"%s"}`+"\n", n/3600, n/60%60, n%60, n, noise)
		}
		ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(b.String()), 0o600))
		return
	case "bomb":
		f, err := os.Create(ts.MkAbs(args[1]))
		ts.Check(err)
		z := zip.NewWriter(f)
		w, err := z.Create("inside.ndjson")
		ts.Check(err)
		_, err = io.WriteString(w, b.String())
		ts.Check(err)
		empty := append(bytes.Repeat([]byte(" "), 1<<20), '\n')
		for range 80 {
			_, err = w.Write(empty)
			ts.Check(err)
		}
		ts.Check(errors.Join(z.Close(), f.Close()))
		return
	default:
		ts.Fatalf("generate knows no %s", args[0])
	}
	good(4)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(b.String()), 0o600))
}

// cmdRenameRules moves the detection of a rule file elsewhere, as an operator who
// edits rules does.
func cmdRenameRules(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: rename-rules FILE OLD NEW")
	}
	b, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.ReplaceAll(string(b), args[1], args[2])), 0o600))
}

// cmdFill fills the marked places of a draft as an office would.
func cmdFill(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: fill DRAFT FILE")
	}
	now := time.Now().UTC()
	answers := map[string]string{
		"id": "PIA-FILLED-2026-001", "ssp_uuid": "9cbd98f3-abcb-4948-ad06-14e0bcba742f", "url": "https://agency.example/p",
		"digest": "sha256:" + strings.Repeat("0", 64), "published_at": now.AddDate(0, 0, -9).Format(time.RFC3339),
		"effective": now.AddDate(0, 0, -1).Format(time.DateOnly), "expires": now.AddDate(1, 0, 0).Format(time.DateOnly),
	}
	lines := strings.Split(ts.ReadFile(args[0]), "\n")
	for i, line := range lines {
		from, to := strings.Index(line, `"<`), strings.Index(line, `>"`)
		if from < 0 || to < from {
			continue
		}
		key := strings.TrimLeft(strings.TrimSpace(strings.SplitN(line, ":", 2)[0]), "- ")
		answer, ok := answers[key]
		if !ok {
			answer = "filled " + strconv.Itoa(i)
		}
		lines[i] = line[:from] + strconv.Quote(answer) + line[to+2:]
		if key == "sig" {
			lines[i] += "\n      signed_at: " + strconv.Quote(now.AddDate(0, 0, -9).Format(time.RFC3339))
		}
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(strings.Join(lines, "\n")), 0o600))
}

// freePort is a port that nobody uses now.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
