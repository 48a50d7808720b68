package demo

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/detect"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/parse"
	"github.com/counterseal/counterseal/internal/pia"
)

// hit is one finding: the rule and where and when its record was sent.
type hit struct {
	title, source string
	at            time.Time
	line          string
}

// asked runs rules over streams with the eyes that the assessments leave them.
func asked(t *testing.T, streams []*Stream, set *pia.Set, rules *detect.RuleSet) []hit {
	t.Helper()
	var hits []hit
	for _, s := range streams {
		var header []byte
		for f := range s.Frames() {
			fr := &event.Frame{Bytes: f.Bytes}
			if s.Way == "file" {
				if f.Bytes[0] == '#' {
					header = append(append(header, f.Bytes...), '\n')
					continue
				}
				fr.Header, fr.Format = header, "zeek"
			}
			format, dataset, ok := parse.Identify(fr, s.Way)
			if !ok {
				t.Fatalf("%s: no format", s.Source)
			}
			r := &event.Record{Envelope: event.Envelope{Source: s.Source, Dataset: dataset, Received: at.UnixNano()}}
			if err := format.Parse(fr, parse.Context{Received: at}, r); err != nil {
				t.Fatal(err)
			}
			rule, refusal := set.Find(s.Source, r.Dataset, "", at)
			if refusal != nil {
				t.Fatal(refusal)
			}
			e := &event.Event{Envelope: r.Envelope}
			for _, fd := range r.Fields {
				if a, _, _ := rule.Action(fd.Name); a != pia.Drop {
					e.Fields = append(e.Fields, fd)
				}
			}
			sight := detect.Sight{Blind: func(name string) bool { a, _, _ := rule.Action(name); return a == pia.Drop }}
			for _, fi := range rules.Judge(e, event.Ref{}, sight) {
				hits = append(hits, hit{fi.Rule.Title, s.Source, f.At, string(f.Bytes)})
			}
		}
	}
	return hits
}

// TestRules asks our own rules: each step of the intruder is found by a rule that
// the truth expects, and the ordinary life of the agency stays quiet.
func TestRules(t *testing.T) {
	dir := "../../rules"
	if d := os.Getenv("COUNTERSEAL_DEMO_RULES"); d != "" {
		dir = d // to look at the demo with the eyes of another folder of rules
	}
	files, err := detect.ReadFiles(os.DirFS(dir), "rules")
	if err != nil {
		t.Fatal(err)
	}
	files = slices.DeleteFunc(files, func(f detect.File) bool { return strings.Contains(f.Path, "/testdata/") })
	if len(files) == 0 {
		t.Skip("skipped: the folder of rules is empty")
	}
	rules, err := detect.Compile(files)
	if err != nil {
		t.Fatal(err)
	}
	in := Play(Options{Seed: 7, At: at, Hotline: true})
	set := assess(t, in)
	quiet := newPlay(Options{Seed: 7, At: at, Scale: 1, Hotline: true})
	quiet.benign()
	for _, s := range quiet.streams {
		quiet.settle(s)
	}

	benign := asked(t, quiet.streams, set, rules)
	counts := map[string]int{}
	for _, h := range benign {
		if counts[h.title] == 0 && testing.Verbose() {
			t.Logf("in ordinary life: %s: %.700s", h.title, h.line)
		}
		counts[h.title]++
	}
	if len(benign) >= 30 {
		t.Errorf("%d findings in ordinary life", len(benign))
	}
	all := asked(t, in.Streams, set, rules)
	found := map[string]int{}
	for _, h := range all {
		found[h.title]++
	}
	var table []string
	for title, n := range found {
		table = append(table, fmt.Sprintf("%4d of them ordinary %3d  %s", n, counts[title], title))
	}
	slices.Sort(table)
	t.Logf("%d findings, %d in ordinary life\n%s", len(all), len(benign), strings.Join(table, "\n"))

	for _, s := range in.Truth.Steps {
		want := regexp.MustCompile(s.Rule)
		var near []string
		ok := false
		for _, h := range all {
			if h.source != s.Source || h.at.Before(s.Time.Add(-10*time.Second)) || h.at.After(s.Time.Add(12*time.Minute)) {
				continue
			}
			near = append(near, h.title)
			ok = ok || want.MatchString(h.title)
		}
		slices.Sort(near)
		near = slices.Compact(near)
		if !ok {
			t.Errorf("step %d (%s) is found by no rule like %s; near it: %s", s.N, s.Title, s.Rule, strings.Join(near, "; "))
		} else {
			t.Logf("step %2d %s: %s", s.N, s.Title, strings.Join(near, "; "))
		}
	}
}
