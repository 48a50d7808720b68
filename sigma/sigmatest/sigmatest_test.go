package sigmatest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/counterseal/counterseal/sigma"
	"github.com/counterseal/counterseal/sigma/sigmatest"
)

const head = `# a comment
rule
    title: one
    logsource: {product: p}
    detection: {s: {A: 1}, condition: s}
source p - -
event first
    {"A": 1, "B": {"C": 2}}
`

const tale = `rule
    title: one
    name: one
    logsource: {product: p}
    detection: {s: {A: 1}, condition: s}
    ---
    title: two
    correlation: {type: event_count, rules: [one], group-by: [B], timespan: 1m, condition: {gte: 2}}
source p - -
event e1
    {"A": 1, "B": "b"}
at 1s
event e2
    {"A": 1, "B": "b"}
at 2s
`

// TestFailures: the runner must notice each thing that is not as wanted.
func TestFailures(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"good", head + "want yes: one\nmatched A\n", ""},
		{"no want", head, "no want"},
		{"wrong verdict", head + "want no: one\n", `says yes, want no`},
		{"unnamed match", head + "want none\n", "which no want names"},
		{"wrong fields", head + "want yes: one\nmatched B\n", `matched by "A", want "B"`},
		{"unknown rule", head + "want yes: two\n", "no rule has"},
		{"unreached", "rule\n  title: one\n  logsource: {product: q}\n  detection: {s: {A: 1}, condition: s}\nsource p - -\nevent x\n  {\"A\": 2}\nwant no: one\n", "does not reach"},
		{"bad rule", "rule\n  title: one\n", "refused: "},
		{"taken", "refused something\n  title: one\n  logsource: {product: p}\n  detection: {s: {A: 1}, condition: s}\n", "was taken"},
		{"other reason", "refused something\n  title: one\n", "another reason"},
		{"bad event", "event x\n  [1]\n", "not a JSON object"},
		{"cut event", "event x\n  {\"a\": [\n", "EOF"},
		{"early want", "want none\n", "before any event"},
		{"bad want", head + "want maybe: one\n", "want needs"},
		{"no rule in want", head + "want yes\n", "want needs"},
		{"matched alone", head + "matched A\n", "after no want yes"},
		{"unknown directive", "hello\n", "unknown directive"},
		{"body alone", "  body\n", "without a directive"},
		{"bad source", "source p\n", "source needs"},
		{"bad opaque", "opaque (\n", "opaque:"},
		{"bad placeholder", "placeholder x\n", "placeholder needs"},
		{"bad address", head + "addr A nonsense\n", "nonsense"},
		{"found", tale + "found two: e1 e2 | B=\"b\" | 2 | 1s 2s\n", ""},
		{"nothing said of times", tale, "no found says"},
		{"found too much", tale + "found none\n", `no directive says so: two: e1 e2 | B="b" | 2 | 1s 2s`},
		{"found too little", tale + "found two: e1 e2\nfound two: e2\n", ":17: in the order of the file: not found"},
		{"other group", tale + "found two: e1 e2 | B=\"c\"\n", "not found"},
		{"other window", tale + "found two: e1 e2 | B=\"b\" | 2 | 0s 2s\n", "not found"},
		{"late", tale + "advance 5m\nevent e3\n  {\"A\": 1, \"B\": \"b\"}\nat 3s\nfound two: e1 e2\n", "1 late, want 0"},
		{"not late", tale + "found two: e1 e2\nlate 1\n", "0 late, want 1"},
		{"twins", tale + "twin t\nevent e3\n  {\"A\": 1, \"B\": \"b\"}\nat 3s\ntwin t\nfound two: e1 e2\n", ""},
		{"twin of nothing", "twin t\n", "has no time"},
		{"at nothing", "at 1s\n", "an event above"},
		{"bad at", tale + "at 3s\n", "an event above"},
		{"nameless", "event\n  {}\nat 1s\n", "name of one word"},
		{"bad found", tale + "found two\n", "it needs RULE"},
		{"bad advance", tale + "advance soon\n", "invalid duration"},
		{"address of nothing", head + "addr X 10.0.0.1\n", "no field"},
	} {
		rep := sigmatest.Run("f", []byte(c.text), sigmatest.Options{})
		all := strings.Join(rep.Failures, "\n")
		if c.want == "" && all != "" || !strings.Contains(all, c.want) {
			t.Errorf("%s: failures %q, want %q", c.name, all, c.want)
		}
	}
}

func TestFields(t *testing.T) {
	got, err := sigmatest.Fields([]byte(`{"b": "x", "a": {"c": [1.50, true, null, []], "d": {}}, "b": [{"e": "y"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []sigma.Field{
		{Name: "b", Value: []byte("x")},
		{Name: "a.c", Kind: sigma.KindNumber, Value: []byte("1.50")},
		{Name: "a.c", Kind: sigma.KindBool, Value: []byte("true")},
		{Name: "a.c", Kind: sigma.KindNull},
		{Name: "b.e", Value: []byte("y")},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for _, bad := range []string{"", "1", "{} {}", `{"a":`, strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100)} {
		if _, err := sigmatest.Fields([]byte(bad)); err == nil {
			t.Errorf("%.20q is taken", bad)
		}
	}
}

// FuzzRun: whatever an analyst writes, the runner reports and does not panic,
// and a file without a failure holds at least one check or nothing.
func FuzzRun(f *testing.F) {
	files, err := filepath.Glob("../testdata/*.test")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds")
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data[:min(len(data), 2000)])
	}
	f.Add([]byte(head + "want yes: one\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		rep := sigmatest.Run("f", data, sigmatest.Options{})
		again := sigmatest.Run("f", data, sigmatest.Options{})
		if diff := cmp.Diff(rep, again); diff != "" {
			t.Fatalf("two runs differ\n%s", diff)
		}
	})
}
