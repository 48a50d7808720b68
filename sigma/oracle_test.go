package sigma_test

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/packs"
	"github.com/counterseal/counterseal/internal/parse"
	"github.com/counterseal/counterseal/sigma"
)

// answer is a match in a form that can be compared.
type answer struct {
	Rule    string
	Verdict sigma.Verdict
	Matched []string
}

func answers(match func(*sigma.Event, func(sigma.Match)), ev *sigma.Event) []answer {
	var out []answer
	match(ev, func(m sigma.Match) {
		a := answer{m.Rule.Key(), m.Verdict, nil}
		for _, f := range m.Matched {
			a.Matched = append(a.Matched, f.Name+"="+string(f.Value))
		}
		out = append(out, a)
	})
	return out
}

// oracle compares a set with the plain evaluator of its rules.
type oracle struct {
	set           *sigma.Set
	naive         *sigma.Naive
	events        int
	yes, open     int
	fast, slow    time.Duration
	failures, max int
}

func newOracle(rules []*sigma.Rule, ungated bool) *oracle {
	opt := sigma.Options{Opaque: event.NextToken}
	set, _ := sigma.Compile(rules, opt)
	naive := sigma.NewNaive(set, opt, ungated)
	if ungated {
		sigma.Ungate(set)
	}
	return &oracle{set: set, naive: naive, max: 10}
}

func (o *oracle) check(t testing.TB, what string, ev *sigma.Event) {
	t.Helper()
	start := time.Now()
	got := answers(o.set.Match, ev)
	mid := time.Now()
	want := answers(o.naive.Match, ev)
	o.fast += mid.Sub(start)
	o.slow += time.Since(mid)
	o.events++
	for _, a := range want {
		if a.Verdict == sigma.Yes {
			o.yes++
		} else {
			o.open++
		}
	}
	if diff := cmp.Diff(want, got); diff != "" && o.failures < o.max {
		o.failures++
		t.Errorf("%s: -naive +matcher\n%s", what, diff)
	}
}

// corpus hands over the events of every pack and of our own samples.
func corpus(t testing.TB, fn func(what string, ev *sigma.Event)) {
	t.Helper()
	walk := func(root, ext string, fn func(path string)) {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && strings.HasSuffix(path, ext) {
				fn(path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, pack := range []string{"evtx-core", "sigma-regression-open"} {
		walk(packs.Dir(t, pack), ".evtx", func(path string) {
			windowsEvents(t, path, func(ev *sigma.Event) { fn(filepath.Base(path), ev) })
		})
	}
	walk(packs.Dir(t, "otrf-lateral"), ".zip", func(path string) {
		z, err := zip.OpenReader(path)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		for _, f := range z.File {
			r, err := f.Open()
			if err != nil {
				t.Fatal(err)
			}
			jsonEvents(t, path, r, fn)
			r.Close()
		}
	})
	walk(packs.Dir(t, "cloud-attacks"), ".json", func(path string) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		jsonEvents(t, path, bytes.NewReader(data), fn)
	})
	walk(packs.Dir(t, "parser-goldens"), ".log", func(path string) { logEvents(t, path, fn) })
	walk("../internal/parse/testdata", ".log", func(path string) { logEvents(t, path, fn) })
}

// jsonEvents reads a stream of records, of lists of them, and of objects that
// hold a list under Records.
func jsonEvents(t testing.TB, path string, r io.Reader, fn func(string, *sigma.Event)) {
	t.Helper()
	var take func(v json.RawMessage)
	take = func(v json.RawMessage) {
		var list []json.RawMessage
		var wrap struct{ Records []json.RawMessage }
		if json.Unmarshal(v, &list) != nil && json.Unmarshal(v, &wrap) == nil {
			list = wrap.Records
		}
		for _, v := range list {
			take(v)
		}
		if list == nil {
			var line bytes.Buffer
			if json.Compact(&line, v) == nil {
				frameEvent(filepath.Base(path), line.Bytes(), fn)
			}
		}
	}
	for dec := json.NewDecoder(r); ; {
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			if !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "invalid character") {
				t.Fatalf("%s: %v", path, err)
			}
			return
		}
		take(v)
	}
}

func logEvents(t testing.TB, path string, fn func(string, *sigma.Event)) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range bytes.Split(data, []byte("\n")) {
		frameEvent(filepath.Base(path), line, fn)
	}
}

var eventKinds = [...]sigma.Kind{event.String: sigma.KindString, event.Number: sigma.KindNumber, event.Bool: sigma.KindBool, event.Null: sigma.KindNull}

func frameEvent(what string, line []byte, fn func(string, *sigma.Event)) {
	f := event.Frame{Bytes: line}
	fm, dataset, ok := parse.Identify(&f, "test")
	if !ok {
		return
	}
	rec := event.Record{Envelope: event.Envelope{Dataset: dataset, Way: "test"}}
	if fm.Parse(&f, parse.Context{Received: time.Unix(1_750_000_000, 0)}, &rec) != nil {
		return
	}
	ev := &sigma.Event{}
	ev.Source.Product, ev.Source.Category, ev.Source.Service = parse.LogSource(rec.Dataset)
	for _, f := range rec.Fields {
		ev.Fields = append(ev.Fields, sigma.Field{Name: f.Name, Kind: eventKinds[f.Kind&3], Value: f.Value, Addr: sigma.AddrClass(f.Addr)})
	}
	fn(what+" "+rec.Dataset, ev)
}

// disturb takes fields away and puts tokens in the place of values, or of a part
// of one.
func disturb(rnd *rand.Rand, ev *sigma.Event) *sigma.Event {
	out := &sigma.Event{Source: ev.Source}
	gone := make(map[string]bool)
	share := rnd.IntN(4)
	for _, f := range ev.Fields {
		if f.Name != "Channel" && f.Name != "EventID" || rnd.IntN(20) == 0 {
			switch {
			case rnd.IntN(8) < share:
				gone[f.Name] = true
				continue
			case rnd.IntN(12) < share:
				token := event.NewToken(event.TokenKind("pmda"[rnd.IntN(4)]), 1, [16]byte{byte(rnd.Int()), byte(rnd.Int())})
				f.Addr = sigma.AddrClass(rnd.IntN(int(sigma.AddrPublic6) + 1))
				if n := len(f.Value); n > 0 && rnd.IntN(2) == 0 {
					from := rnd.IntN(n)
					to := from + rnd.IntN(n-from)
					f.Value = []byte(string(f.Value[:from]) + string(token) + string(f.Value[to:]))
				} else {
					f.Value = []byte(token)
				}
			case rnd.IntN(200) == 0:
				f.Kind, f.Value = sigma.KindNull, nil
			}
		}
		out.Fields = append(out.Fields, f)
	}
	if rnd.IntN(4) > 0 {
		out.AnyBlind = rnd.IntN(4) > 0
		out.Blind = func(name string) bool { return gone[name] || len(name)%17 == 0 }
	}
	return out
}

// TestMatcherEqualsNaive asks the matcher and the plain evaluator about every
// event that we have, with all public rules: as it is and disturbed, by log source
// and, for a sample, without regard to it. With COUNTERSEAL_FULL set, and a
// quarter of an hour, the sample is every event.
func TestMatcherEqualsNaive(t *testing.T) {
	if testing.Short() {
		t.Skip("asks a slow evaluator about all packs")
	}
	rules, _ := packRules(t)
	gated, ungated := newOracle(rules, false), newOracle(rules, true)
	sample := 100
	if os.Getenv("COUNTERSEAL_FULL") != "" {
		sample = 1
	}
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 0))
	n := 0
	corpus(t, func(what string, ev *sigma.Event) {
		n++
		gated.check(t, what, ev)
		gated.check(t, what+" disturbed", disturb(rnd, ev))
		if rnd.IntN(sample) == 0 {
			ungated.check(t, what+" ungated", ev)
			ungated.check(t, what+" ungated and disturbed", disturb(rnd, ev))
		}
	})
	for name, o := range map[string]*oracle{"gated": gated, "ungated": ungated} {
		t.Logf("%s: %d events, %d yes, %d cannot tell, naive/matcher %.1f", name, o.events, o.yes, o.open, o.slow.Seconds()/o.fast.Seconds())
		if o.yes == 0 || o.open == 0 {
			t.Errorf("%s: the events leave an answer untested", name)
		}
	}
	if n < 40000 {
		t.Errorf("%d events, want those of all packs", n)
	}
	if t.Failed() {
		t.Logf("seed %d", seed)
	}
}
