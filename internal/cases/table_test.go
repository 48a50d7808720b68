package cases

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/counterseal/counterseal/internal/access"
)

var update = flag.Bool("update", false, "write testdata/covers.txt anew")

// situations are what there is when somebody asks, in case C-7.
var situations = []struct {
	name string
	who  string
	set  func(h *house)
}{
	{"nothing", "ines", func(h *house) {}},
	{"requested", "ines", func(h *house) { h.request("ines", draft(person(1), "srv-1")) }},
	{"refused", "ines", func(h *house) { h.must(h.decide("olga", h.request("ines", draft(person(1), "srv-1")), false)) }},
	{"approved", "ines", func(h *house) { h.authorised("ines", draft(person(1), "srv-1"), "olga") }},
	{"approved, for another", "rita", func(h *house) { h.authorised("ines", draft(person(1), "srv-1"), "olga") }},
	{"approved, as a reader", "rita", func(h *house) {
		a := draft(person(1), "srv-1")
		a.Readers = []string{"Rita"}
		h.authorised("ines", a, "olga")
	}},
	{"approved, other case", "ines", func(h *house) {
		a := draft(person(1), "srv-1")
		a.Case = "C-8"
		h.authorised("ines", a, "olga")
	}},
	{"approved, ended", "ines", func(h *house) {
		h.must(h.End(h.t.Context(), h.as("ines"), h.authorised("ines", draft(person(1), "srv-1"), "olga"), Done))
	}},
	{"approved, expired", "ines", func(h *house) {
		h.authorised("ines", draft(person(1), "srv-1"), "olga")
		h.clock = noon.AddDate(0, 0, 30)
	}},
	{"approved, office lost", "ines", func(h *house) {
		h.authorised("ines", draft(person(1), "srv-1"), "olga")
		h.offices.Offices[1].Holder = ""
	}},
	{"approved, role lost", "ines", func(h *house) {
		h.authorised("ines", draft(person(1), "srv-1"), "olga")
		h.offices.Offices[1].Roles = []string{"compliance"}
	}},
	{"reverse", "ines", func(h *house) {
		a := draft(person(1), "srv-1")
		a.Scope.Reverse = true
		h.authorised("ines", a, "olga")
	}},
	{"25, one decision", "ines", func(h *house) { h.authorised("ines", draft(people(25)...), "olga") }},
	{"25, with counsel", "ines", func(h *house) { h.authorised("ines", draft(people(25)...), "olga", "pia") }},
	{"101, with counsel", "ines", func(h *house) { h.authorised("ines", draft(people(101)...), "olga", "pia") }},
	{"101, with outside", "ines", func(h *house) { h.authorised("ines", draft(people(101)...), "pia", "ludo") }},
	{"glass", "rita", func(h *house) { h.glass("rita", "C-7", person(1), "srv-1") }},
	{"glass of another", "remo", func(h *house) { h.glass("rita", "C-7", person(1), "srv-1") }},
	{"glass, other case", "rita", func(h *house) { h.glass("rita", "C-8", person(1), "srv-1") }},
	{"glass, 4 hours later", "rita", func(h *house) {
		h.glass("rita", "C-7", person(1), "srv-1")
		h.clock = h.clock.Add(Glass)
	}},
	{"glass, justified", "rita", func(h *house) {
		h.must(h.Review(h.t.Context(), h.as("olga"), h.glass("rita", "C-7", person(1), "srv-1"), Justified))
	}},
	{"glass, misuse", "rita", func(h *house) {
		h.must(h.Review(h.t.Context(), h.as("olga"), h.glass("rita", "C-7", person(1), "srv-1"), Misuse))
	}},
	{"finding", "rita", func(h *house) { h.rule(); h.finding(nil) }},
	{"finding, analyst", "anna", func(h *house) { h.rule(); h.finding(nil) }},
	{"finding, untrained", "rita", func(h *house) { h.rule(); h.finding(nil); h.offices.Offices[3].Trained = noon.AddDate(0, 0, -1) }},
	{"finding, critical", "rita", func(h *house) { h.rule(); h.finding(func(f *GrantFinding) { f.Level = "critical" }) }},
	{"finding, medium", "rita", func(h *house) { h.rule(); h.finding(func(f *GrantFinding) { f.Level = "medium" }) }},
	{"finding, rule unknown", "rita", func(h *house) { h.finding(nil) }},
	{"finding, rule after", "rita", func(h *house) {
		h.clock = noon.Add(-90 * time.Minute)
		h.approve(ruleSet(1, RuleOrigin{Digest: ruleOne}))
		h.clock = noon
		h.finding(nil)
	}},
	{"finding, own fresh rule", "remo", func(h *house) {
		h.clock = noon.AddDate(0, 0, -29)
		h.approve(ruleSet(1, RuleOrigin{Digest: ruleOne}))
		h.clock = noon
		h.finding(nil)
	}},
	{"finding, own old rule", "remo", func(h *house) { h.rule(); h.finding(nil) }},
	{"finding, from the future", "rita", func(h *house) {
		h.rule()
		h.finding(func(f *GrantFinding) { f.To = h.clock.Add(Skew + time.Second) })
	}},
	{"finding, 72 hours old", "rita", func(h *house) {
		h.rule()
		h.finding(func(f *GrantFinding) { f.From, f.To = h.clock.Add(-Around-time.Hour), h.clock.Add(-Around) })
	}},
	{"finding, only failed", "rita", func(h *house) {
		h.rule()
		h.finding(func(f *GrantFinding) { f.Subjects = subjects([]string{"srv-1"}, []string{person(1)}) })
	}},
	{"finding, misuse", "rita", func(h *house) {
		h.rule()
		h.finding(nil)
		h.ask("rita", "C-7", about(person(1)))
		h.must(h.Review(h.t.Context(), h.as("olga"), h.review(0).ID, Misuse))
	}},
}

// asked are the questions of the table.
var asked = []struct {
	name string
	q    func(h *house) Question
}{
	{"p1", func(h *house) Question { return about(person(1)) }},
	{"p2", func(h *house) Question { return about(person(2)) }},
	{"p1 p2", func(h *house) Question { return about(person(1), person(2)) }},
	{"p1 srv", func(h *house) Question { return about(person(1), "srv-1") }},
	{"21", func(h *house) Question { return about(people(21)...) }},
	{"101", func(h *house) Question { return about(people(101)...) }},
	{"p1 untold", func(h *house) Question {
		q := about(person(1))
		q.Verdict.Persons = 2
		return q
	}},
	{"p1 many", func(h *house) Question {
		q := about(person(1))
		q.Verdict.Many = true
		return q
	}},
	{"reverse", func(h *house) Question {
		return Question{Verdict: access.Verdict{Class: access.Reverse, Many: true, Cells: true}}
	}},
	{"p1 reverse", func(h *house) Question {
		q := about(person(1))
		q.Verdict.Class |= access.Reverse
		q.Verdict.Many = true
		return q
	}},
	{"p2 reverse", func(h *house) Question {
		q := about(person(2))
		q.Verdict.Class |= access.Reverse
		q.Verdict.Many = true
		return q
	}},
	{"p1 or free", func(h *house) Question {
		q := about(person(1))
		q.Confined = func(func(Named) bool) bool { return false }
		return q
	}},
	{"p1 and p2", func(h *house) Question {
		q := about(person(1), person(2))
		q.Confined = func(covered func(Named) bool) bool { return covered(q.Named[0]) || covered(q.Named[1]) }
		return q
	}},
	{"p1 last year", func(h *house) Question {
		q := about(person(1))
		q.From = noon.AddDate(-1, 0, 0)
		return q
	}},
	{"p1 to come", func(h *house) Question {
		q := about(person(1))
		q.To = noon.AddDate(1, 0, 0)
		return q
	}},
	{"p1 standing", func(h *house) Question {
		q := about(person(1))
		q.Verdict.Standing = true
		return q
	}},
	{"p1 protected", func(h *house) Question {
		q := about(person(1))
		q.Verdict.Protected = true
		return q
	}},
}

// TestCoversTable holds testdata/covers.txt: what each question gets in each situation.
func TestCoversTable(t *testing.T) {
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 4, 2, ' ', 0)
	fmt.Fprint(w, "situation\tasker")
	for _, a := range asked {
		fmt.Fprint(w, "\t"+a.name)
	}
	fmt.Fprintln(w)
	n, covered := 0, 0
	for _, s := range situations {
		fmt.Fprint(w, s.name+"\t"+s.who)
		for _, a := range asked {
			h := newHouse(t)
			asker := h.as(s.who) // as at the login, before anything was lost
			s.set(h)
			if s.name == "finding, untrained" {
				asker = h.as(s.who)
			}
			c, err := h.Covers(t.Context(), asker, "C-7", a.q(h))
			if err != nil {
				t.Fatalf("%s, %s: %v", s.name, a.name, err)
			}
			cell := c.Code
			if cell == "" {
				cell = strings.ToUpper(c.Kind)
				covered++
				if c.Until.Sub(h.clock) > MaxAuthorisation || !c.Until.After(h.clock) || c.ID == "" || c.Notice == "" {
					t.Errorf("%s, %s: until %s, id %q, notice %q", s.name, a.name, c.Until, c.ID, c.Notice)
				}
			} else if c.Authorisation == Covers || c.Grant == Covers || c.Reason == "" || c.Hint == "" {
				t.Errorf("%s, %s: %+v", s.name, a.name, c)
			}
			if got := h.s.count("question.reported"); (got == 1) != (c.Code == Planted) || c.Planted != (got == 1) {
				t.Errorf("%s, %s: %d reports", s.name, a.name, got)
			}
			if strings.HasPrefix(s.name, "finding") && s.name != "finding, misuse" {
				if got := h.s.count("grant.opened"); (got == 1) != (c.Kind == KindGrant) {
					t.Errorf("%s, %s: %d grants", s.name, a.name, got)
				}
			}
			fmt.Fprint(w, "\t"+cell)
			n++
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	fmt.Fprintf(&out, "\n%d cells, %d covered\n", n, covered)
	const file = "testdata/covers.txt"
	if *update {
		if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := out.Bytes(); !bytes.Equal(got, want) {
		t.Errorf("the table is another one; look at it and run with -update\n%s", got)
	}
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) glass(who, caseID string, values ...string) string {
	h.t.Helper()
	c, err := h.BreakGlass(h.t.Context(), h.as(who), caseID, named(values...))
	h.must(err)
	return c.ID
}

func (h *house) rule() {
	h.t.Helper()
	now := h.clock
	h.clock = now.AddDate(0, 0, -60)
	h.approve(ruleSet(1, RuleOrigin{Digest: ruleOne}))
	h.clock = now
}

func (h *house) review(i int) Review {
	h.t.Helper()
	all, err := h.Reviews(h.t.Context())
	h.must(err)
	if i >= len(all) {
		h.t.Fatalf("there are %d reviews", len(all))
	}
	return all[i]
}
