package sigma_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/evtx"
	"github.com/counterseal/counterseal/internal/packs"
	"github.com/counterseal/counterseal/sigma"
)

// windowsEvents hands each event of a log to fn as the matcher's view of it.
func windowsEvents(t testing.TB, path string, fn func(*sigma.Event)) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := evtx.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	ev := sigma.Event{Source: sigma.LogSource{Product: "windows"}}
	err = r.Records(func(rec *evtx.Record) error {
		ev.Fields = ev.Fields[:0]
		for _, f := range rec.Fields() {
			ev.Fields = append(ev.Fields, sigma.Field{Name: f.Name, Value: f.Value})
		}
		fn(&ev)
		return nil
	})
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func table(t testing.TB, name string) [][]string {
	t.Helper()
	data, err := os.ReadFile(packs.File(t, name))
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n")[1:] {
		rows = append(rows, strings.Split(line, "\t"))
	}
	return rows
}

// TestRegressionCases runs the public collection's own cases: a rule, an event
// log and the number of its matches.
func TestRegressionCases(t *testing.T) {
	rules, _ := packRules(t)
	set, _ := sigma.Compile(rules, sigma.Options{})
	root := packs.Dir(t, "sigma-regression-open")
	cases := table(t, "regression-open.tsv")
	if len(cases) != 146 {
		t.Fatalf("%d cases, want 146", len(cases))
	}
	for _, c := range cases {
		want := 1
		if n, err := strconv.Atoi(c[3]); err == nil {
			want = n
		}
		got := 0
		windowsEvents(t, filepath.Join(root, c[2]), func(ev *sigma.Event) {
			set.Match(ev, func(m sigma.Match) {
				if m.Rule.ID == c[0] && m.Verdict == sigma.Yes {
					got++
				}
			})
		})
		if got < want {
			t.Errorf("%s: %d matches, want at least %d", c[1], got, want)
		}
	}
}

// TestKnownMatches compares all rules on both packs with the matches that a
// reference evaluator found. It logs the rate too: this evaluator is the
// yardstick of faster ones.
func TestKnownMatches(t *testing.T) {
	if testing.Short() {
		t.Skip("reads 17,000 events")
	}
	rules, _ := packRules(t)
	set, _ := sigma.Compile(rules, sigma.Options{})
	want := make(map[string]map[string]int)
	for _, row := range table(t, "matches-gated.tsv") {
		if n, _ := strconv.Atoi(row[2]); n > 0 {
			if want[row[0]] == nil {
				want[row[0]] = make(map[string]int)
			}
			want[row[0]][row[1]] = n
		}
	}
	events, matches := 0, 0
	var spent time.Duration
	for pack, under := range map[string]string{"evtx-core": "", "sigma-regression-open": ""} {
		root := packs.Dir(t, pack)
		name := map[string]string{"evtx-core": "evtx-core/", "sigma-regression-open": "regression-open/"}[pack]
		err := filepath.WalkDir(filepath.Join(root, under), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".evtx") {
				return err
			}
			rel, _ := filepath.Rel(root, path)
			got := make(map[string]int)
			antivirus := make(map[string]int)
			windowsEvents(t, path, func(ev *sigma.Event) {
				start := time.Now()
				set.Match(ev, func(m sigma.Match) {
					if m.Verdict != sigma.Yes {
						t.Errorf("%s: rule %s cannot tell and nothing was withheld", rel, m.Rule.ID)
					}
					if m.Rule.LogSource.Product == "windows" {
						got[m.Rule.ID]++
						matches++
					} else {
						antivirus[m.Rule.ID]++
					}
				})
				spent += time.Since(start)
				events++
			})
			key := name + filepath.ToSlash(rel)
			for id, n := range want[key] {
				if got[id] != n {
					t.Errorf("%s: rule %s: %d matches, want %d", key, id, got[id], n)
				}
			}
			for id, n := range got {
				if want[key][id] == 0 {
					t.Errorf("%s: rule %s: %d matches, want none", key, id, n)
				}
			}
			// The table knows rules for Windows alone; those for any antivirus
			// meet Defender too.
			if len(antivirus) > 0 && !strings.Contains(rel, "WinDefender") {
				t.Errorf("%s: rules for other products match: %v", key, antivirus)
			}
			delete(want, key)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for file := range want {
		t.Errorf("%s is in the table and not in the packs", file)
	}
	t.Logf("%d events, %d matches, %.0f events/s gated", events, matches, float64(events)/spent.Seconds())
}
