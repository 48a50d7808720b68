package sigma_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/counterseal/counterseal/internal/packs"
	"github.com/counterseal/counterseal/sigma"
)

// packEvents reads the events of the Windows packs into memory, so that a
// benchmark measures the matcher alone.
func packEvents(b *testing.B) []*sigma.Event {
	b.Helper()
	var out []*sigma.Event
	for _, pack := range []string{"evtx-core", "sigma-regression-open"} {
		err := filepath.WalkDir(packs.Dir(b, pack), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".evtx") {
				return err
			}
			windowsEvents(b, path, func(ev *sigma.Event) {
				c := &sigma.Event{Source: ev.Source}
				for _, f := range ev.Fields {
					f.Value = append([]byte(nil), f.Value...)
					c.Fields = append(c.Fields, f)
				}
				out = append(out, c)
			})
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	return out
}

func benchmark(b *testing.B, rules []*sigma.Rule, ungated bool) {
	set, _ := sigma.Compile(rules, sigma.Options{})
	if ungated {
		sigma.Ungate(set)
	}
	events := packEvents(b)
	matches := 0
	count := func(sigma.Match) { matches++ }
	for _, ev := range events {
		set.Match(ev, count)
	}
	matches = 0
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		// A stride, so that a short run sees events of every kind.
		set.Match(events[i*7919%len(events)], count)
		i++
	}
	b.ReportMetric(float64(i)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(matches)/float64(i), "matches/event")
}

// BenchmarkPublicRules is the yardstick: every public rule, gated.
func BenchmarkPublicRules(b *testing.B) {
	rules, _ := packRules(b)
	benchmark(b, rules, false)
}

// BenchmarkUngated asks every rule of every event.
func BenchmarkUngated(b *testing.B) {
	rules, _ := packRules(b)
	benchmark(b, rules, true)
}

// BenchmarkFewRules is the size of a set that an organisation writes itself.
func BenchmarkFewRules(b *testing.B) {
	rules, _ := packRules(b)
	var few []*sigma.Rule
	for i := 0; i < len(rules); i += len(rules)/60 + 1 {
		few = append(few, rules[i])
	}
	benchmark(b, few, false)
}

// BenchmarkCompile is the time for all public rules.
func BenchmarkCompile(b *testing.B) {
	rules, _ := packRules(b)
	for b.Loop() {
		sigma.Compile(rules, sigma.Options{})
	}
	b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N)/float64(len(rules)), "µs/rule")
}
