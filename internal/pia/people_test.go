package pia

import "testing"

// TestInForce: what people are told of a field is what is done with it, also where another
// assessment is stricter; an assessment that opens no gate is not among them.
func TestInForce(t *testing.T) {
	one := mustParse(t, text())
	if len(one.Subjects) == 0 || one.Subjects[0].Category == "" || one.Notice.How == "" || one.Notice.Redress == "" {
		t.Errorf("subjects and notice are not read: %+v %+v", one.Subjects, one.Notice)
	}
	d := complete()
	d.ID = "PIA-TEST-2026-002"
	d.Sources[0].Fields[0].Action = "drop"
	stricter := mustParse(t, string(d.YAML()))
	becomes := func(at string, path string, pias ...*PIA) (all []Action) {
		set, _ := NewSet(pias, date(at))
		for _, a := range set.InForce(date(at)) {
			for _, c := range a.Collected {
				for _, f := range c.Fields {
					if f.Path == path {
						all = append(all, f.Action)
					}
				}
			}
		}
		return all
	}
	for _, c := range []struct {
		at, path string
		pias     []*PIA
		want     []Action
	}{
		{"2026-11-22", "time", []*PIA{one}, []Action{Allow}},
		{"2026-11-22", "user.name", []*PIA{one}, []Action{Tokenise}},
		{"2026-11-22", "time", []*PIA{one, stricter}, []Action{Drop, Drop}},
		{"2025-11-22", "time", []*PIA{one}, nil},
		{"2028-02-01", "time", []*PIA{one}, nil},
	} {
		got := becomes(c.at, c.path, c.pias...)
		if len(got) != len(c.want) {
			t.Errorf("%s at %s: %v, want %v", c.path, c.at, got, c.want)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%s at %s: %v, want %v", c.path, c.at, got, c.want)
			}
		}
	}
}
