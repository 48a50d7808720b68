package cases

import (
	"context"
	"testing"

	"github.com/counterseal/counterseal/internal/access"
)

// TestUnwatched: where nobody independent watches, authorisations end and glasses open
// nothing; a finding does. When somebody is back, what has ended is asked for again.
func TestUnwatched(t *testing.T) {
	h := newHouse(t)
	var stop, wait *Refusal
	h.o.Stopped = func(context.Context) (*Refusal, error) { return stop, nil }
	h.o.Waits = func(context.Context) (*Refusal, error) { return wait, nil }
	h.open()
	h.rule()
	h.finding(nil)
	id := h.authorised("rita", draft(person(2)), "olga")
	waits := h.request("rita", draft(person(3)))
	h.glass("rita", "C-7", person(4))
	for _, n := range []int{2, 4} {
		if c := h.ask("rita", "C-7", about(person(n))); c.Code != "" {
			t.Fatalf("before: %d is %s", n, c.Code)
		}
	}
	stop = &Refusal{Code: "no_oversight", Reason: "nobody watches", Hint: "wait"}
	wait = stop
	if c, err := h.Standing(t.Context(), id, about(person(2))); err != nil || c.Code != stop.Code {
		t.Errorf("a rule goes on: %+v, %v", c, err)
	}
	for _, n := range []int{2, 4} {
		if c := h.ask("rita", "C-7", about(person(n))); c.Code != stop.Code {
			t.Errorf("%d: got %+v", n, c)
		}
	}
	if c := h.ask("rita", "", about(person(1))); c.Grant != Covers {
		t.Errorf("a finding opens nothing: %+v", c)
	}
	if a, err := h.Authorisation(t.Context(), id); err != nil || a.State != Ended || a.Reason != "no_oversight" {
		t.Errorf("got %+v, %v", a, err)
	}
	if n, err := h.Unwatched(t.Context()); n != 0 || err != nil {
		t.Errorf("%d end twice, %v", n, err)
	}
	if _, err := h.BreakGlass(t.Context(), h.as("remo"), "C-7", named(person(4))); code(t, err) != stop.Code {
		t.Errorf("a glass breaks: %v", err)
	}
	if _, err := h.Request(t.Context(), h.as("rita"), draft(person(2))); code(t, err) != stop.Code {
		t.Errorf("a request is taken: %v", err)
	}
	if err := h.decide("olga", waits, true); code(t, err) != stop.Code {
		t.Errorf("a request is approved: %v", err)
	}
	if c := h.ask("rita", "C-7", Question{Named: named("hotline"), Verdict: access.Verdict{Class: access.Person, Persons: 1, Protected: true}}); c.Code != Aimed {
		t.Errorf("what is protected: %+v", c)
	}

	stop, wait = nil, nil
	h.open() // as after a restart
	if c := h.ask("rita", "C-7", about(person(2))); c.Code == "" {
		t.Errorf("what had ended covers again: %+v", c)
	}
	if c := h.ask("rita", "C-7", about(person(4))); c.Kind != KindGlass {
		t.Errorf("the glass, which has not closed: %+v", c)
	}
	h.must(h.decide("olga", waits, true))

	// Where looks pile up, new ones wait and running ones go on. A refusal needs no review.
	wait = &Refusal{Code: "paced", Reason: "looks pile up", Hint: "review them"}
	more := draft(person(5))
	if _, err := h.Request(t.Context(), h.as("rita"), more); code(t, err) != "paced" {
		t.Errorf("a request is taken: %v", err)
	}
	if c := h.ask("rita", "C-7", about(person(3))); c.Kind != KindAuthorisation {
		t.Errorf("what runs does not go on: %+v", c)
	}
	wait = nil
	last := h.request("rita", more)
	wait = &Refusal{Code: "paced", Reason: "looks pile up", Hint: "review them"}
	if err := h.decide("olga", last, true); code(t, err) != "paced" {
		t.Errorf("a request is approved: %v", err)
	}
	h.must(h.decide("olga", last, false))
}
