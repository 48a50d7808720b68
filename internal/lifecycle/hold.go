package lifecycle

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/state"
)

// Scope says what a hold keeps. Every member that is set narrows it, where a segment
// can be told to lie outside: by compartment and by time of sealing. A source, a token
// or a case cannot be told from outside of a segment, so such a scope keeps every
// segment of the compartments and times that it names, or of all.
type Scope struct {
	Case        string `json:"case,omitempty"`
	Compartment string `json:"compartment,omitempty"`
	From        string `json:"from,omitempty"` // RFC 3339, of sealing
	Source      string `json:"source,omitempty"`
	To          string `json:"to,omitempty"`
	Token       string `json:"token,omitempty"`

	from, to time.Time
}

// check reads the times and refuses a scope that says nothing or holds what a ledger
// must not.
func (s *Scope) check() error {
	if *s == (Scope{}) {
		return errors.New("a hold names a case, a source, a compartment, a time or a token")
	}
	for _, m := range []struct{ name, text string }{{"case", s.Case}, {"source", s.Source}} {
		if m.text != "" && !word(m.text) {
			return fmt.Errorf("%s: 1 to 200 letters, digits and . _ : / - can stand in the ledger", m.name)
		}
	}
	if s.Compartment != "" {
		if err := event.CheckCompartment(s.Compartment); err != nil {
			return err
		}
	}
	if s.Token != "" && !event.IsToken([]byte(s.Token)) {
		return errors.New("token: it is none; search shows them, such as p1_…")
	}
	var err error
	for _, m := range []struct {
		name, text string
		to         *time.Time
	}{{"from", s.From, &s.from}, {"to", s.To, &s.to}} {
		if m.text == "" {
			continue
		}
		if *m.to, err = time.Parse(time.RFC3339, m.text); err != nil {
			return fmt.Errorf("%s: a time such as 2026-03-01T00:00:00Z", m.name)
		}
	}
	if !s.from.IsZero() && !s.to.IsZero() && s.to.Before(s.from) {
		return errors.New("from lies behind to")
	}
	return nil
}

func word(s string) bool {
	return len(s) <= 200 && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._:/-", r))
	})
}

// covers says whether a segment may hold something of the scope.
func (s *Scope) covers(seg *segment) bool {
	switch {
	case s.Compartment != "" && s.Compartment != seg.Compartment:
		return false
	case !s.from.IsZero() && seg.last.Before(s.from):
		return false
	case !s.to.IsZero() && seg.first.After(s.to):
		return false
	}
	return true
}

// Hold is a legal hold, in force or released.
type Hold struct {
	ID        string        `json:"id"`
	Scope     Scope         `json:"scope"`
	Authority ledger.Digest `json:"authority"` // of the order's text, a payload of the ledger
	Review    time.Time     `json:"review"`
	Placed    time.Time     `json:"placed"`
	By        string        `json:"by"`
	Statement uint64        `json:"statement"` // its index in the ledger
	Released  *time.Time    `json:"released,omitempty"`
	Pending   bool          `json:"pending,omitempty"` // released, and no witness has seen it: it stands
	Unread    bool          `json:"unread,omitempty"`  // its scope cannot be read: it keeps everything

	// Of an inspector's office: Office, appointed by Appointed. What it keeps and its review
	// are for that office; others get it Veiled.
	Inspector bool   `json:"inspector,omitempty"`
	Office    string `json:"office,omitempty"`
	Appointed string `json:"-"`

	changed uint64 // index of the newest statement about it
}

// InForce reports whether it keeps anything.
func (h *Hold) InForce() bool { return h.Released == nil }

func (h *Hold) covers(seg *segment) bool { return h.Unread || h.Scope.covers(seg) }

type holdDetail struct {
	Authority ledger.Digest `json:"authority"`
	Review    string        `json:"review"`
	Scope     Scope         `json:"scope"`
}

// Holds lists every hold, the newest last. A release that no witness has seen yet
// does not count: the hold stands until one has.
func (l *Lifecycle) Holds(ctx context.Context) ([]Hold, error) {
	placed, err := l.o.Statements.Facts(ctx, "hold.placed")
	if err != nil {
		return nil, err
	}
	released, err := l.o.Statements.Facts(ctx, "hold.released")
	if err != nil {
		return nil, err
	}
	ended := make(map[string]state.Fact)
	for _, f := range released {
		ended[f.Key] = f
	}
	seen, _ := l.o.Ledger.Witnessed()
	holds := make([]Hold, 0, len(placed))
	for _, f := range placed {
		h := Hold{ID: f.Key, Placed: f.Time, By: f.Actor, Statement: f.Index, changed: f.Index}
		var d holdDetail
		if l.inside(&h, f) {
		} else if err := strict(f.Detail, &d); err == nil {
			err = d.Scope.check()
			h.Scope, h.Authority, h.Unread = d.Scope, d.Authority, err != nil
			h.Review, _ = time.Parse(time.RFC3339, d.Review)
		} else {
			h.Unread = true // of a later version, say: keep too much rather than too little
		}
		if r, ok := ended[f.Key]; ok && r.Index > f.Index {
			if r.Index < seen {
				h.Released, h.changed = &r.Time, r.Index
			} else {
				h.Pending = true
			}
		}
		holds = append(holds, h)
	}
	slices.SortFunc(holds, func(a, b Hold) int { return cmp.Compare(a.Statement, b.Statement) })
	return holds, nil
}

// strict decodes and refuses members that it does not know.
func strict(b json.RawMessage, v any) error {
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

// maxOrder bounds the text of an order.
const maxOrder = 1 << 20

// Place puts a hold in force. order is the text under which it is placed, such as an
// order of a court or of counsel: the ledger keeps it as a payload, and its salted
// digest in the statement.
func (l *Lifecycle) Place(ctx context.Context, actor string, scope Scope, order []byte, review time.Time) (Hold, error) {
	if err := scope.check(); err != nil {
		return Hold{}, badInput{err}
	}
	switch {
	case len(order) == 0:
		return Hold{}, badInput{errors.New("a hold needs the text of the order that it is placed under")}
	case len(order) > maxOrder:
		return Hold{}, badInput{fmt.Errorf("an order of more than %d bytes", maxOrder)}
	case !review.After(l.now()):
		return Hold{}, badInput{errors.New("review is a day to come, on which somebody asks whether the hold is still needed")}
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Hold{}, fmt.Errorf("placing a hold: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// What a crash destroyed and did not state is stated first, so that a card that is
	// gone under this hold is never explained by a destruction that came before it.
	if _, err := l.finish(ctx); err != nil {
		return Hold{}, fmt.Errorf("placing a hold: %w", err)
	}
	digest, err := l.o.Ledger.PutPayload(order)
	if err != nil {
		return Hold{}, fmt.Errorf("placing a hold: %w", err)
	}
	act := attest.Act{Kind: "hold.placed", Actor: actor, Purpose: scope.Case, Subject: []string{id.String()},
		Detail: holdDetail{Authority: digest, Review: review.UTC().Format(time.RFC3339), Scope: scope}}
	if _, err := l.o.Statements.Record(ctx, act); err != nil {
		return Hold{}, fmt.Errorf("placing a hold: %w", err)
	}
	return l.hold(ctx, id.String())
}

// badInput is a mistake of who asks.
type badInput struct{ error }

// Mistake says that an error is one of the request and not of the server.
func Mistake(err error) bool { return errors.As(err, new(badInput)) }

// ErrRefused is wrapped where officers have not approved what was asked.
var ErrRefused = errors.New("it is not released")

func (l *Lifecycle) hold(ctx context.Context, id string) (Hold, error) {
	holds, err := l.Holds(ctx)
	if err != nil {
		return Hold{}, err
	}
	for _, h := range holds {
		if h.ID == id {
			return h, nil
		}
	}
	return Hold{}, badInput{errors.New("there is no hold of this id")}
}

// actionRelease is the action of a statement about a release.
const actionRelease = "hold.release"

func objects(h *Hold) []string {
	if h.Authority.H == "" { // of a later version
		return []string{"hold/" + h.ID}
	}
	return []string{"hold/" + h.ID, "authority " + h.Authority.H}
}

// Ask makes the statement that two officers must sign to release a hold, and states
// that it was asked. It releases nothing.
func (l *Lifecycle) Ask(ctx context.Context, actor, id, number, purpose, requester string) ([]byte, error) {
	h, err := l.hold(ctx, id)
	if err != nil {
		return nil, err
	}
	if !h.InForce() {
		return nil, badInput{errors.New("this hold was released")}
	}
	if h.Inspector {
		return nil, ErrInside
	}
	s, b, err := approval.New(approval.Ask{Action: actionRelease, Case: number, Purpose: purpose, Requester: requester,
		Objects: objects(&h), Org: l.o.Org, Grant: time.Minute}, l.now())
	if err != nil {
		return nil, badInput{err}
	}
	payload, err := l.o.Ledger.PutPayload(b)
	if err != nil {
		return nil, err
	}
	_, err = l.o.Statements.Record(ctx, attest.Act{Kind: "approval.requested", Actor: actor, Subject: []string{s.ID},
		Detail: map[string]any{"act": actionRelease, "expires": s.Expires, "statement": approval.HexDigest(b), "payload": payload, "hold": id}})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Release ends a hold that two officers of two offices have approved to end. The
// release is witnessed before it counts.
func (l *Lifecycle) Release(ctx context.Context, actor, id string, statement []byte, signed []approval.Signed) (Hold, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h, err := l.hold(ctx, id)
	if err != nil {
		return Hold{}, err
	}
	if !h.InForce() {
		return Hold{}, badInput{errors.New("this hold was released")}
	}
	if h.Inspector {
		return Hold{}, ErrInside
	}
	all := struct {
		Statements
		Ledger
	}{l.o.Statements, l.o.Ledger}
	request, err := attest.Approve(ctx, all, attest.Approval{
		Statement: statement, Signed: signed, Action: actionRelease, Org: l.o.Org.String(), Objects: objects(&h), Roster: l.o.Roster, Actor: actor, Now: l.now(),
	})
	if errors.Is(err, attest.ErrNotApproved) {
		return Hold{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if err != nil {
		return Hold{}, fmt.Errorf("releasing hold %s: %w", id, err)
	}
	if _, err := l.o.Statements.Critical(ctx, attest.Act{Kind: "hold.released", Actor: actor, Purpose: h.Scope.Case, Subject: []string{id},
		Detail: map[string]any{"hold": id, "request": request.ID}}); err != nil {
		return Hold{}, fmt.Errorf("releasing hold %s, which stands until a witness has seen its release: %w", id, err)
	}
	if err := attest.Use(ctx, all, actor, request.ID); err != nil {
		return Hold{}, fmt.Errorf("hold %s was released: %w", id, err)
	}
	return l.hold(ctx, id)
}
