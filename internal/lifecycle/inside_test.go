package lifecycle

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/pia"
)

var (
	nils     = Insider{Person: "nils", Office: "inspection", Authority: "court"}
	nora     = Insider{Person: "nora", Office: "inspection-two", Authority: "court"}
	abel     = Insider{Person: "abel", Office: "audit", Authority: "senate"}
	errNever = errors.New("not by this person")
)

// mayUnless is the policies of the test: not their own request.
func mayUnless(person string) func(string) error {
	return func(asked string) error {
		if asked == person {
			return errNever
		}
		return nil
	}
}

// TestInspectorsHold: the retention keeps what it covers, others see that it is there, two
// people of the office lift it, and nobody else.
func TestInspectorsHold(t *testing.T) {
	s := newSite(t)
	o := newOfficers(t)
	s.roll = o.roster
	s.reopen()
	ctx := context.Background()
	a := s.seal(evidence.Events, "hr", 1)
	s.rules = append(s.rules, &pia.Rule{Source: "fw", Compartment: "net", Retention: 30})
	other := s.seal(evidence.Events, "net", 1)
	s.at = monday.Add(50 * day)
	s.pass()
	review := s.at.Add(90 * day)
	order := []byte("order of the court about somebody")
	for name, scope := range map[string]Scope{"a case": {Case: "IG-1"}, "a source": {Source: "idp"}, "a token": {Token: "p1_" + strings.Repeat("a", 26)}, "nothing": {}} {
		if _, _, err := s.l.PlaceInside(ctx, nils, scope, order, review); !Mistake(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := s.l.PlaceInside(ctx, nils, Scope{Compartment: "hr"}, nil, review); !Mistake(err) {
		t.Errorf("without an order: %v", err)
	}
	h, nonce, err := s.l.PlaceInside(ctx, nils, Scope{Compartment: "hr"}, order, review)
	if err != nil || len(nonce) != 32 || h.Scope.Compartment != "hr" || !h.Review.Equal(review) || h.Unread {
		t.Fatalf("%+v %v", h, err)
	}
	s.after(s.grace)
	if r := s.pass(); !s.opens(a) || s.opens(other) || r.Destroyed != 1 || r.Held != 1 {
		t.Fatalf("%+v", r)
	}
	s.reopen()
	if s.pass(); !s.opens(a) {
		t.Fatal("after a restart it keeps nothing")
	}
	lines, _, err := s.l.Plan(ctx, 0)
	if err != nil || len(lines) != 1 || lines[0].State != Held || len(lines[0].Holds) != 0 {
		t.Fatalf("%+v %v", lines, err)
	}

	// What is told to others, and what lies there.
	fact, _, err := s.book.Fact(ctx, "hold.placed", h.ID)
	if err != nil {
		t.Fatal(err)
	}
	told := string(fact.Detail) + fact.Actor
	for _, p := range s.book.payloads {
		told += string(p)
	}
	for _, secret := range []string{`"hr"`, "order of the court", "nils", review.Format("2006-01")} {
		if strings.Contains(told, secret) {
			t.Errorf("%q is told: %s", secret, told)
		}
	}
	if h, err = s.l.hold(ctx, h.ID); err != nil {
		t.Fatal(err)
	}
	want := Hold{ID: h.ID, Placed: h.Placed, By: "office:inspection", Statement: h.Statement, Inspector: true, Office: "inspection"}
	if diff := cmp.Diff(want, h.Veiled(), cmpopts.IgnoreUnexported(Hold{}, Scope{})); diff != "" {
		t.Error(diff)
	}
	s.at = review.Add(day)
	checks, err := s.l.Doctor(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range checks {
		if strings.Contains(c.Text, h.ID) || strings.Contains(c.Text, "review") || strings.Contains(c.Text, "1 holds") || strings.Contains(c.Text, "keep 1") {
			t.Errorf("the doctor tells: %+v", c)
		}
	}

	// Nobody else lifts it.
	if _, err := s.l.Ask(ctx, "os:1000", h.ID, "C-1", "why", "A. Analyst"); !errors.Is(err, ErrInside) {
		t.Errorf("officers are asked: %v", err)
	}
	if _, err := s.l.Release(ctx, "os:1000", h.ID, []byte("{}"), nil); !errors.Is(err, ErrInside) {
		t.Errorf("officers release it: %v", err)
	}
	for name, err := range map[string]error{
		"another office asks":   s.l.AskInside(ctx, abel, h.ID),
		"nobody asks":           s.l.AskInside(ctx, Insider{Authority: "court"}, h.ID),
		"no such hold is asked": s.l.AskInside(ctx, nils, "x"),
	} {
		if !Mistake(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	release := func(by Insider) error {
		_, err := s.l.ReleaseInside(ctx, by, h.ID, mayUnless(by.Person))
		return err
	}
	if err := release(nora); !Mistake(err) {
		t.Errorf("without a request: %v", err)
	}
	if err := s.l.AskInside(ctx, nils, h.ID); err != nil {
		t.Fatal(err)
	}
	if err := release(nils); !errors.Is(err, errNever) {
		t.Errorf("alone: %v", err)
	}
	if err := release(abel); !Mistake(err) {
		t.Errorf("another office: %v", err)
	}
	s.after(25 * time.Hour)
	if err := release(nora); !Mistake(err) {
		t.Errorf("a day later: %v", err)
	}
	if err := s.l.AskInside(ctx, nils, h.ID); err != nil {
		t.Fatal(err)
	}
	if err := release(nora); err != nil {
		t.Fatal(err)
	}
	if err := release(nora); !Mistake(err) {
		t.Errorf("twice: %v", err)
	}
	if h, err = s.l.hold(ctx, h.ID); err != nil || h.InForce() {
		t.Fatalf("%+v %v", h, err)
	}
	s.pass()
	s.after(s.grace)
	if s.pass(); s.opens(a) {
		t.Error("it is kept after its release")
	}
}

// TestInspectorsHoldUnread: what cannot be opened keeps everything, and the office can
// release it still.
func TestInspectorsHoldUnread(t *testing.T) {
	s := newSite(t)
	ctx := context.Background()
	net := s.seal(evidence.Events, "net", 1)
	s.rules = append(s.rules, &pia.Rule{Source: "fw", Compartment: "net", Retention: 30})
	h, _, err := s.l.PlaceInside(ctx, nils, Scope{Compartment: "hr"}, []byte("order"), s.at.Add(90*day))
	if err != nil {
		t.Fatal(err)
	}
	s.l.o.Unwrap = func([]byte, []byte) ([]byte, error) { return nil, errors.New("another keyring") }
	s.at = monday.Add(60 * day)
	s.pass()
	s.after(s.grace)
	if s.pass(); !s.opens(net) {
		t.Error("a hold that cannot be opened keeps nothing")
	}
	if got, err := s.l.hold(ctx, h.ID); err != nil || !got.Unread {
		t.Errorf("%+v %v", got, err)
	}
	if err := s.l.AskInside(ctx, nils, h.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.l.ReleaseInside(ctx, nora, h.ID, mayUnless("nora")); err != nil {
		t.Error(err)
	}
}
