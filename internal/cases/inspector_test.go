package cases

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/policy"
)

// inspected is a house with an inspector's office of three people, and one of another court.
func inspected(t testing.TB) *house {
	h := newHouse(t)
	for _, o := range [][3]string{{"inspection", "nils", "court"}, {"inspection-two", "nora", "court"}, {"inspection-three", "nico", "court"}, {"audit", "abel", "senate"}, {"audit-two", "ava", "senate"}} {
		h.offices.Offices = append(h.offices.Offices, policy.Office{ID: o[0], Holder: o[1], Authority: o[2], Outside: true, Inspector: true, Standing: "confirmed",
			Since: noon.AddDate(-1, 0, 0), Roles: []string{"investigator"}, Trained: noon.AddDate(1, 0, 0)})
	}
	return h
}

// inspection is a request of an inspector's office that is in order. What is in it is found
// again wherever it leaks.
func inspection() Authorisation {
	return Authorisation{Case: "IG-4711", Predicate: "allegation-of-inspector", Basis: "inspector-law-9", Ends: noon.AddDate(0, 0, 30), Readers: []string{"nico"},
		Scope: Scope{Subjects: []string{person(77)}, Sources: []string{"mail-gateway"}, From: noon.AddDate(0, -1, -3), To: noon.AddDate(0, 0, 7)}}
}

var telltales = []string{"IG-4711", "allegation-of-inspector", "inspector-law-9", person(77), "mail-gateway", "2026-10-22", "2026-12-02", "nils", "nico"}

// seesNothing fails where text tells what the office asked for.
func seesNothing(t testing.TB, where, text string) {
	t.Helper()
	for _, s := range telltales {
		if strings.Contains(text, s) {
			t.Errorf("%s tells %q: %s", where, s, text)
		}
	}
}

func (h *house) seen(who, id string) Authorisation {
	h.t.Helper()
	a, err := h.AuthorisationFor(h.t.Context(), h.as(who), id)
	if err != nil {
		h.t.Fatal(err)
	}
	return a
}

func (h *house) decideSeen(who, id string, yes bool) error {
	h.t.Helper()
	return h.Decide(h.t.Context(), h.as(who), true, id, h.seen("nora", id).Digest, yes)
}

// TestInside: who holds an inspector's office is of it whatever else they hold, and in
// whatever order the record has it; acting for the other office they are not.
func TestInside(t *testing.T) {
	h := inspected(t)
	o := h.offices
	o.Offices = append([]policy.Office{{ID: "lectures", Holder: "nils", Authority: "works", Standing: "confirmed", Since: noon.AddDate(-1, 0, 0)}}, o.Offices...)
	by, _ := o.Person("inspection")
	other, _ := o.Person("lectures")
	of := by
	of.ID = "abel" // of another court
	for _, c := range []struct {
		name      string
		by        policy.Person
		authority string
		want      bool
	}{
		{"of the office", by, "court", true}, {"of another authority", by, "senate", false},
		{"acting for the other office", other, "court", false}, {"another's account", of, "court", false},
	} {
		if got := Inside(o, c.by, c.authority); got != c.want {
			t.Errorf("%s: inside is %v", c.name, got)
		}
	}
}

func TestInspectorsAuthorisation(t *testing.T) {
	h := inspected(t)
	id := h.request("nils", inspection())
	everybody := []string{"", "sven", "otto", "pia", "olga", "hugo", "ines", "rita", "ludo", "abel"}
	for _, who := range everybody {
		if got := code(t, h.decideSeen(who, id, true)); got != NotPermitted {
			t.Errorf("%q decides: %q", who, got)
		}
		if got := code(t, h.Unlock(t.Context(), h.as(who), id, h.seen("nora", id).Code)); got != Unknown {
			t.Errorf("%q unlocks: %q", who, got)
		}
		if got := code(t, h.End(t.Context(), h.as(who), id, Revoked)); got != NotPermitted {
			t.Errorf("%q ends it: %q", who, got)
		}
	}
	if got := code(t, h.decideSeen("nils", id, true)); got != NotPermitted {
		t.Errorf("who asked decides: %q", got)
	}
	if got := code(t, h.decideSeen("nico", id, true)); got != NotPermitted {
		t.Errorf("a reader decides: %q", got)
	}
	q := about(person(77))
	if c := h.ask("nils", "IG-4711", q); c.Code != Undecided {
		t.Errorf("before the decision: %q", c.Code)
	}
	if err := h.decideSeen("nora", id, true); err != nil {
		t.Fatal(err)
	}
	for who, want := range map[string]string{"nils": "", "nico": "", "nora": Uncovered, "ines": Uncovered, "abel": Uncovered, "rita": Uncovered} {
		if c := h.ask(who, "IG-4711", q); c.Code != want {
			t.Errorf("%s asks: %q, want %q", who, c.Code, want)
		}
	}
	if c := h.ask("nils", "IG-4711", about(person(78))); c.Code != Subjects {
		t.Errorf("somebody else is asked about: %q", c.Code)
	}
	if c, err := h.Standing(t.Context(), id, q); err != nil || c.Code != Unknown {
		t.Errorf("a rule of the configuration stands on it: %q, %v", c.Code, err)
	}

	// Whoever is outside of the office sees that it is there.
	want := Authorisation{ID: id, Ends: noon.AddDate(0, 0, 30), State: Approved, Asked: noon, Inspector: true, Office: "inspection"}
	for _, who := range everybody {
		got, err := h.AuthorisationsFor(t.Context(), h.as(who))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]Authorisation{want}, got); diff != "" {
			t.Errorf("%q sees: %s", who, diff)
		}
	}
	if got, err := h.Authorisation(t.Context(), id); err != nil || !cmp.Equal(want, got) {
		t.Errorf("nobody in particular sees %+v, %v", got, err)
	}
	if a := h.seen("nora", id); a.Case != "IG-4711" || !slices.Equal(a.Scope.Subjects, []string{person(77)}) || a.Requester != "nils" || a.Code == "" {
		t.Errorf("the office sees %+v", a)
	}
	seesNothing(t, "the ledger", strings.Join(h.s.leaves, "\n"))
	for _, p := range h.s.payloads {
		seesNothing(t, "a payload", string(p))
	}
	if closed, err := h.Closed(t.Context()); err != nil || len(closed) != 0 {
		t.Errorf("closed: %v, %v", closed, err)
	}
}

// TestInspectorsCode: after a restart it covers nothing until the office tells the code.
func TestInspectorsCode(t *testing.T) {
	h := inspected(t)
	id := h.request("nils", inspection())
	if err := h.decideSeen("nora", id, true); err != nil {
		t.Fatal(err)
	}
	key := h.seen("nils", id).Code
	other := h.request("nora", inspection())
	wrong := h.seen("nora", other).Code
	h.open()
	q := about(person(77))
	if c := h.ask("nils", "IG-4711", q); c.Code != Locked {
		t.Errorf("after a restart: %q", c.Code)
	}
	if a := h.seen("nora", id); !a.Locked || a.Case != "" || a.Code != "" || a.State != Approved {
		t.Errorf("the office sees %+v", a)
	}
	if got := code(t, h.Decide(t.Context(), h.as("nora"), true, other, h.seen("nils", other).Digest, true)); got != Locked {
		t.Errorf("it is decided on while it is locked: %q", got)
	}
	for _, bad := range []string{"", wrong, key + "A", strings.ToLower(key), "AAAA"} {
		if got := code(t, h.Unlock(t.Context(), h.as("nora"), id, bad)); got != BadInput {
			t.Errorf("the code %q: %q", bad, got)
		}
	}
	if err := h.Unlock(t.Context(), h.as("nora"), id, key); err != nil {
		t.Fatal(err)
	}
	if c := h.ask("nils", "IG-4711", q); c.Code != "" {
		t.Errorf("after the code: %q", c.Code)
	}
	h.stale = true // the ledger is read again: the code is known
	if c := h.ask("nils", "IG-4711", q); c.Code != "" {
		t.Errorf("after reading the ledger again: %q", c.Code)
	}
	if err := h.End(t.Context(), h.as("nora"), id, Done); err != nil {
		t.Fatal(err)
	}
	if c := h.ask("nils", "IG-4711", q); c.Code != Over {
		t.Errorf("after its end: %q", c.Code)
	}
	h.open()
	if err := h.End(t.Context(), h.as("nora"), other, Withdrawn); err != nil {
		t.Errorf("a locked one is not ended: %v", err)
	}
}

// TestInspectorsForged: a decision of who asked, stated by a server that does not keep to
// the rules, counts for nothing once the code is told; a changed seal opens nothing.
func TestInspectorsForged(t *testing.T) {
	h := inspected(t)
	id := h.request("nils", inspection())
	key, digest := h.seen("nils", id).Code, h.seen("nils", id).Digest
	forge := func(by, office, authority string) {
		payload, _, err := h.put(&decisionForm{Authority: authority, By: by, Decision: approve, Digest: digest, Form: decisionName, ID: id, Office: office, Outside: true})
		if err != nil {
			t.Fatal(err)
		}
		n := h.s.count("authorisation.decided")
		if err := h.Book.state(t.Context(), h.as("nora"), "authorisation.decided", id+"/"+string(rune('1'+n)), "", decidedDetail{Authorisation: id, Decision: approve, Payload: payload, Inspector: true}); err != nil {
			t.Fatal(err)
		}
	}
	forge("pia", "privacy", "board")
	h.open()
	forge("nils", "inspection", "court")
	if err := h.Unlock(t.Context(), h.as("nora"), id, key); err != nil {
		t.Fatal(err)
	}
	if a := h.seen("nora", id); a.State != Requested || len(a.Approvers) != 0 {
		t.Errorf("forged decisions count: %+v", a)
	}

	s := *h.authorisations[id].sealed
	if _, err := s.open(key); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*sealedForm){
		"its office": func(s *sealedForm) { s.Office = "soc" }, "its end": func(s *sealedForm) { s.Ends = "2027-01-01T00:00:00Z" },
		"its authority": func(s *sealedForm) { s.Authority = "senate" }, "counsel": func(s *sealedForm) { s.Counsel = !s.Counsel },
		"its id":   func(s *sealedForm) { s.ID = "01900000-0000-7000-8000-000000000000" },
		"the box":  func(s *sealedForm) { s.Box = "A" + s.Box[1:] + "AAAA" },
		"the code": func(s *sealedForm) { s.Commit = strings.Repeat("0", 64) },
	} {
		changed := s
		change(&changed)
		if _, err := changed.open(key); err == nil {
			t.Errorf("%s is changed, and it opens", name)
		}
	}
}

// TestInspectorsApart: what others want of an inspector's office, and it of them, and the
// brakes of the house.
func TestInspectorsApart(t *testing.T) {
	h := inspected(t)
	a := inspection()
	for name, c := range map[string]struct {
		who     string
		readers []string
	}{
		"a reader of the SOC":                    {"nils", []string{"rita"}},
		"a reader of another inspector's office": {"nils", []string{"abel"}},
		"an inspector as reader of the house":    {"ines", []string{"nora"}},
	} {
		a.Readers = c.readers
		if _, err := h.Request(t.Context(), h.as(c.who), a); code(t, err) != BadInput {
			t.Errorf("%s: %v", name, err)
		}
	}
	by := h.as("nils")
	by.Inspector = false // a login that does not know
	a.Readers = nil
	if _, err := h.Request(t.Context(), by, a); code(t, err) != NotPermitted {
		t.Errorf("a login that is not of the office: %v", err)
	}
	// An inspector decides on nothing of the house.
	id := h.request("ines", draft(person(1)))
	if got := code(t, h.decide("nora", id, true)); got != NotPermitted {
		t.Errorf("an inspector decides on a request of the house: %q", got)
	}

	// The brakes of the house do not stop who looks into it.
	stop := &Refusal{Code: "silent", Reason: "nobody watches", Hint: "wait"}
	brake := false
	on := func(r *Refusal) *Refusal {
		if brake {
			return r
		}
		return nil
	}
	h.o.Stopped = func(context.Context) (*Refusal, error) { return on(stop), nil }
	h.o.Waits = func(context.Context) (*Refusal, error) { return on(stop), nil }
	h.open()
	h.authorised("ines", Authorisation{Case: "C-8", Predicate: "p", Basis: "b", Ends: noon.AddDate(0, 0, 3), Scope: Scope{Subjects: []string{person(2)}, From: noon.AddDate(0, -1, 0), To: noon}}, "olga")
	brake = true
	mine := h.request("nils", inspection())
	if err := h.decideSeen("nora", mine, true); err != nil {
		t.Fatal(err)
	}
	if n, err := h.Unwatched(t.Context()); err != nil || n != 1 {
		t.Errorf("%d are ended, %v: want that of the house", n, err)
	}
	if c := h.ask("nils", "IG-4711", about(person(77))); c.Code != "" {
		t.Errorf("an inspector is stopped: %q", c.Code)
	}

	// What aims at a protected channel is told to overseers without what was asked.
	if err := h.Report(t.Context(), h.as("nils"), "IG-4711", "protected", "user.uid = "+person(77)); err != nil {
		t.Fatal(err)
	}
	all, err := h.Reports(t.Context())
	if err != nil || len(all) != 1 || all[0].Case != "" || all[0].Question != "" || len(all[0].Subjects) != 0 {
		t.Errorf("got %+v, %v", all, err)
	}
}

func TestInspectorsCrowd(t *testing.T) {
	h := inspected(t)
	a := inspection()
	a.Readers, a.Scope.Subjects = nil, people(30)
	id := h.request("nils", a)
	if err := h.decideSeen("nora", id, true); err != nil {
		t.Fatal(err)
	}
	if got := h.seen("nora", id).State; got != Requested {
		t.Errorf("one decision about 30 people: %s", got)
	}
	if err := h.decideSeen("nico", id, true); err != nil {
		t.Fatal(err)
	}
	if got := h.seen("nora", id).State; got != Approved {
		t.Errorf("two decisions about 30 people: %s", got)
	}
}

// FuzzSealed: what is read as sealed has one form, and opens with no code but its own.
func FuzzSealed(f *testing.F) {
	r := &requestForm{Basis: "b", Case: "c", Ends: "2027-01-01T00:00:00Z", Form: requestName, ID: "01900000-0000-7000-8000-000000000000", Predicate: "p", Readers: []owner{},
		Owner: owner{Authorities: []string{"court"}, Chain: []string{}, Person: "nils"},
		Scope: scopeForm{From: "2026-01-01T00:00:00Z", To: "2026-02-01T00:00:00Z", Sources: []string{}, Subjects: []string{person(1)}}}
	s, err := seal(r, policy.Office{ID: "inspection", Authority: "court"}, newCode())
	if err != nil {
		f.Fatal(err)
	}
	raw, err := approval.Canonical(s)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{}`))
	f.Add([]byte(strings.Replace(string(raw), "v1", "v2", 1)))
	f.Fuzz(func(t *testing.T, in []byte) {
		var s sealedForm
		if parse(in, &s) != nil {
			return
		}
		if again, err := approval.Canonical(&s); err != nil || string(again) != string(in) {
			t.Errorf("%q has another form: %q, %v", in, again, err)
		}
		if _, err := s.open(newCode()); err == nil {
			t.Error("it opens with another code")
		}
	})
}
