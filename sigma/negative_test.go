package sigma_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/counterseal/counterseal/internal/packs"
	"github.com/counterseal/counterseal/sigma"
)

// TestOneChangedLiteral makes a negative of each rule's first matching event: in
// one field, one character of the literals that the rule looks for there is
// changed. The match must vanish.
func TestOneChangedLiteral(t *testing.T) {
	rules, _ := packRules(t)
	set, _ := sigma.Compile(rules, sigma.Options{})
	native := map[string]string{"Image": "NewProcessName", "ParentImage": "ParentProcessName", "Signature": "ThreatName", "Filename": "Path"}
	done := make(map[*sigma.Rule]bool)
	for _, pack := range []string{"evtx-core", "sigma-regression-open"} {
		err := filepath.WalkDir(packs.Dir(t, pack), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".evtx") {
				return err
			}
			windowsEvents(t, path, func(ev *sigma.Event) {
				set.Match(ev, func(m sigma.Match) {
					if done[m.Rule] {
						return
					}
					for _, must := range sigma.MustHolds(set, m.Rule) {
						if must.Field == "Channel" || must.Field == "EventID" {
							continue // that would change the log source as well
						}
						changed, ok := spoil(ev, must, must.Field)
						if !ok {
							changed, ok = spoil(ev, must, native[must.Field])
						}
						if !ok {
							continue
						}
						done[m.Rule] = true
						if ruleVerdict(set, changed, m.Rule) != sigma.No {
							t.Errorf("%s: rule %s matches without its literal in %s", filepath.Base(path), m.Rule.ID, must.Field)
						}
						if ruleVerdict(set, ev, m.Rule) != sigma.Yes {
							t.Errorf("%s: rule %s: the event is not as it was", filepath.Base(path), m.Rule.ID)
						}
					}
				})
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(done) < 200 {
		t.Errorf("%d rules have a negative, want 200", len(done))
	}
	t.Logf("%d rules", len(done))
}

// spoil changes a character of each literal in each value of the field.
func spoil(ev *sigma.Event, must sigma.MustHold, field string) (*sigma.Event, bool) {
	out := &sigma.Event{Source: ev.Source}
	hit := false
	for _, f := range ev.Fields {
		if f.Name == field {
			value := strings.ToLower(string(f.Value))
			for _, lit := range must.Literals {
				for strings.Contains(value, lit) {
					i := strings.Index(value, lit) + len(lit)/2
					value = value[:i] + "\x7f" + value[i+1:]
					hit = true
				}
			}
			f.Value = []byte(value)
		}
		out.Fields = append(out.Fields, f)
	}
	return out, hit
}

func ruleVerdict(set *sigma.Set, ev *sigma.Event, rule *sigma.Rule) sigma.Verdict {
	v := sigma.No
	set.Match(ev, func(m sigma.Match) {
		if m.Rule == rule {
			v = m.Verdict
		}
	})
	return v
}
