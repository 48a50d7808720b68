package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/policy"
)

func policyRoles(t testing.TB) []string {
	t.Helper()
	roles, err := rolesOf(&config{})
	if err != nil {
		t.Fatal(err)
	}
	return roles
}

// TestRoleSentences: each role that an office can have is explained, and each that people
// hold is asked about.
func TestRoleSentences(t *testing.T) {
	for _, role := range policyRoles(t) {
		if role == "founder" { // nobody's office
			continue
		}
		if roleSentences[role] == "" {
			t.Errorf("%s has no sentence", role)
		}
		for _, small := range []bool{false, true} {
			asked := slices.ContainsFunc(plannedOffices(small, time.Unix(0, 0)), func(p *planned) bool { return slices.Contains(p.roles, role) })
			if !asked && role != "collector" {
				t.Errorf("small %v: nobody is asked who is %s", small, role)
			}
		}
	}
}

// TestPlannedOffices: with a holder for each, neither plan has a warning but those that
// its size explains.
func TestPlannedOffices(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for _, small := range []bool{false, true} {
		offices := plannedOffices(small, now)
		for _, p := range offices {
			if err := p.set("holder", "u_"+p.id); err != nil {
				t.Fatal(err)
			}
		}
		o, err := policy.ParseOffices([]byte(officesText(small, offices)), policyRoles(t))
		if err != nil {
			t.Fatal(err)
		}
		if w := o.Warnings(now); len(w) > 0 {
			t.Errorf("small %v: got %v", small, w)
		}
	}
}

// FuzzOfficesAnswer: an answer that is taken is what the record says, and nothing else of
// the record changes with it.
func FuzzOfficesAnswer(f *testing.F) {
	for _, s := range []string{"u_ABC", "os-1000", "true", "null", "1e3", "2026-01-01", "a: b", "a\n  - id: x", "'", "a #", "-", "@x", "~"} {
		f.Add("holder", s)
		f.Add("authority", s)
	}
	roles := policyRoles(f)
	f.Fuzz(func(t *testing.T, key, value string) {
		offices := plannedOffices(false, time.Unix(0, 0))
		p := offices[5] // one that decides and is not above another
		before := *p
		if err := p.set(key, value); err != nil {
			if p.answer(key) != before.answer(key) {
				t.Errorf("refused, and changed: %q", value)
			}
			return
		}
		if p.holder == "" {
			p.holder = "u_x"
		}
		o, err := policy.ParseOffices([]byte(officesText(false, offices)), roles)
		if err != nil {
			if key == "under" || strings.Contains(err.Error(), "appointing authority") { // judged among the others
				return
			}
			t.Fatalf("%s=%q was taken: %v", key, value, err)
		}
		got := o.Offices[5]
		if len(o.Offices) != len(offices) || got.Holder != p.holder || got.Authority != p.authority || got.Under != p.under || got.Outside != p.outside {
			t.Errorf("%s=%q: got %+v", key, value, got)
		}
	})
}
