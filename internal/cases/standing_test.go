package cases

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/policy"
)

// TestStanding: what goes on by itself is covered by the authorisation that it names, as
// long as that is in force, and by nothing else.
func TestStanding(t *testing.T) {
	about := func(values ...string) Question {
		return Question{Named: named(values...), Verdict: access.Verdict{Class: access.Person, Persons: len(values), Standing: true}}
	}
	lists := Question{Verdict: access.Verdict{Class: access.Reverse, Many: true, Cells: true, Standing: true}}
	one := about(person(1))
	ok := func(h *house) string { return h.authorised("ines", draft(person(1)), "olga") }
	for name, c := range map[string]struct {
		lay  func(h *house) string
		q    Question
		want string
	}{
		"covered":            {ok, one, ""},
		"nobody is selected": {func(*house) string { return "" }, Question{}, ""},
		"none is named":      {func(*house) string { return "" }, one, Unnamed},
		"none of this id":    {func(*house) string { return "01900000-0000-7000-8000-000000000000" }, one, Unknown},
		"of another person":  {ok, about(person(2)), Subjects},
		"of one more":        {ok, about(person(1), person(2)), Subjects},
		"somebody untold":    {ok, Question{Named: named(person(1)), Verdict: access.Verdict{Class: access.Person, Persons: 2, Standing: true}}, Subjects},
		"nobody told":        {ok, Question{Verdict: access.Verdict{Class: access.Person, Persons: 1, Standing: true}}, Subjects},
		"an unknown number":  {ok, Question{Named: named(person(1)), Verdict: access.Verdict{Class: access.Person, Persons: 1, Many: true, Standing: true}}, Lists},
		"lists people":       {ok, lists, Lists},
		"lists people, as agreed": {func(h *house) string {
			a := draft(person(1))
			a.Scope.Reverse = true
			return h.authorised("ines", a, "olga")
		}, lists, ""},
		"protected":            {ok, Question{Named: named(person(1)), Verdict: access.Verdict{Class: access.Person, Persons: 1, Protected: true, Standing: true}}, Aimed},
		"protected, of nobody": {ok, Question{Verdict: access.Verdict{Protected: true, Standing: true}}, Aimed},
		"not decided":          {func(h *house) string { return h.request("ines", draft(person(1))) }, one, Undecided},
		"refused": {func(h *house) string {
			id := h.request("ines", draft(person(1)))
			h.must(h.decide("olga", id, false))
			return id
		}, one, Settled},
		"ended": {func(h *house) string {
			id := ok(h)
			h.must(h.End(t.Context(), h.as("ines"), id, Done))
			return id
		}, one, Over},
		"over": {func(h *house) string { id := ok(h); h.clock = noon.AddDate(0, 0, 30); return id }, one, Over},
		"just before its end": {func(h *house) string {
			id := ok(h)
			h.clock = noon.AddDate(0, 0, 30).Add(-time.Second)
			return id
		}, one, ""},
		"agreed in the future": {func(h *house) string { h.clock = noon.Add(time.Hour); id := ok(h); h.clock = noon; return id }, one, Future},
		"not readable": {func(h *house) string {
			id := ok(h)
			clear(h.s.payloads)
			h.open()
			return id
		}, one, Altered},
		"no record of offices": {func(h *house) string { id := ok(h); h.offices = nil; return id }, one, NoOffices},
		"who asked has left": {func(h *house) string {
			id := ok(h)
			h.offices.Offices = slices.DeleteFunc(h.offices.Offices, func(f policy.Office) bool { return f.Holder == "ines" })
			return id
		}, one, NotPermitted},
		"nobody watches": {func(h *house) string {
			id := ok(h)
			h.o.Stopped = func(context.Context) (*Refusal, error) {
				return &Refusal{Code: "no_oversight", Reason: "nobody watches", Hint: "a heartbeat"}, nil
			}
			h.open()
			return id
		}, one, "no_oversight"},
		"a reader has stayed": {func(h *house) string {
			a := draft(person(1))
			a.Readers = []string{"rita"}
			id := h.authorised("ines", a, "olga")
			h.offices.Offices = slices.DeleteFunc(h.offices.Offices, func(f policy.Office) bool { return f.Holder == "ines" })
			return id
		}, one, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			id := c.lay(h)
			for range 2 { // also after a restart
				got, err := h.Standing(t.Context(), id, c.q)
				if err != nil || got.Code != c.want {
					t.Fatalf("got %q, want %q: %s, %v", got.Code, c.want, got.Reason, err)
				}
				if covers := got.Authorisation == Covers; covers != (c.want == "" && !c.q.Verdict.Free()) || covers && (got.ID != id || !got.Until.Equal(noon.AddDate(0, 0, 30))) {
					t.Errorf("got %+v", got)
				}
				if got.Code != "" && (got.Hint == "" || strings.Contains(got.Reason+got.Hint, person(1))) {
					t.Errorf("the refusal says %q, %q", got.Reason, got.Hint)
				}
				h.open()
			}
		})
	}
}

// TestClosed: a case is over when somebody said so and nothing of it is open.
func TestClosed(t *testing.T) {
	h := newHouse(t)
	over := func(want ...string) map[string]uint64 {
		t.Helper()
		got, err := h.Closed(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if have := slices.Sorted(maps.Keys(got)); !slices.Equal(have, want) {
			t.Fatalf("over are %v, want %v", have, want)
		}
		return got
	}
	one, two := h.authorised("ines", draft(person(1)), "olga"), h.request("ines", draft(person(2)))
	over()
	h.must(h.End(t.Context(), h.as("ines"), one, CaseClosed))
	over() // a request waits
	h.must(h.End(t.Context(), h.as("ines"), two, Withdrawn))
	first := over("C-7")
	three := h.request("ines", draft(person(1)))
	over()
	h.must(h.End(t.Context(), h.as("ines"), three, Done))
	if again := over("C-7"); again["C-7"] != first["C-7"] {
		t.Error("nobody has closed it again")
	}
	if _, err := h.BreakGlass(t.Context(), h.as("rita"), "C-7", named(person(1))); err != nil {
		t.Fatal(err)
	}
	over() // a glass is open
	h.clock = h.clock.Add(Glass + time.Minute)
	over("C-7")
	four := h.request("ines", draft(person(1)))
	h.must(h.End(t.Context(), h.as("ines"), four, CaseClosed))
	if again := over("C-7"); again["C-7"] <= first["C-7"] {
		t.Error("that it was closed again has no number of its own")
	}
	h.open()
	over("C-7")
	done := draft(person(1))
	done.Case = "C-8"
	h.must(h.End(t.Context(), h.as("ines"), h.request("ines", done), Done))
	over("C-7") // ended, and the case goes on
}
