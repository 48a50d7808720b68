// Package approval is the state machine behind every act that needs two people:
// request, decide, expire, use once. It owns the form of statements and of signed
// decisions, docs/formats/officer.md.
//
// It promises: nothing is approved without two valid signatures over the exact bytes
// of the statement, by two people of two offices; a refusal is final; nothing is
// decided or used after its expiry; an approval is used once, and an id and a nonce
// never come twice in the life of a Book.
//
// It is pure: no file, no clock, no network. Who the officers are is told by the
// caller (internal/officer); what happens is written down by the caller, who can make
// a Book again from what was written by the same calls.
package approval

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Errors that callers tell apart.
var (
	ErrUnknown   = errors.New("no such request")
	ErrRepeated  = errors.New("its id or nonce was there before")
	ErrExpired   = errors.New("it has expired")
	ErrTime      = errors.New("it is from the future")
	ErrDecided   = errors.New("it was decided")
	ErrOffice    = errors.New("another person of another office must decide")
	ErrSignature = errors.New("the signature is not that of this officer over this statement")
	ErrPending   = errors.New("it is not approved")
	ErrUsed      = errors.New("it was used")
)

// skew is how far the clock of who made a statement may be ahead.
const skew = 5 * time.Minute

// State is where a request stands.
type State string

// The states. Refused, Expired and Used are final.
const (
	Requested State = "requested"
	Approved  State = "approved"
	Refused   State = "refused"
	Expired   State = "expired"
	Used      State = "used"
)

// Officer is who may decide, as the roster says.
type Officer struct {
	Key    string // id of the card
	Person string // in one spelling: two officers with it are one person
	Office string
	House  string // whose offices they are: those of one house alone decide together
	Public ed25519.PublicKey
}

// Book holds requests. The zero Book is empty. It is not safe for concurrent use.
type Book struct {
	requests map[string]*request
	nonces   map[string]bool
}

type request struct {
	bytes []byte
	s     *Statement
	state State
	by    []Officer // who approved
}

// Request takes a statement in.
func (b *Book) Request(statement []byte, now time.Time) (*Statement, error) {
	s, err := Parse(statement)
	if err != nil {
		return nil, err
	}
	if b.requests[s.ID] != nil || b.nonces[s.Nonce] {
		return nil, fmt.Errorf("request %s: %w", s.ID, ErrRepeated)
	}
	if s.MadeAt().After(now.Add(skew)) {
		return nil, fmt.Errorf("request %s: %w", s.ID, ErrTime)
	}
	if !now.Before(s.ExpiresAt()) {
		return nil, fmt.Errorf("request %s: %w", s.ID, ErrExpired)
	}
	if b.requests == nil {
		b.requests, b.nonces = map[string]*request{}, map[string]bool{}
	}
	b.requests[s.ID] = &request{bytes: slices.Clone(statement), s: s, state: Requested}
	b.nonces[s.Nonce] = true
	return s, nil
}

// Decide takes the decision of an officer in. A refusal by either office ends the
// request; two approvals approve it.
func (b *Book) Decide(id string, d Signed, by Officer, now time.Time) (State, error) {
	r, err := b.live(id, now)
	if err != nil {
		return b.State(id), err
	}
	if r.state != Requested {
		return r.state, fmt.Errorf("request %s: %w", id, ErrDecided)
	}
	if err := d.check(); err != nil {
		return r.state, fmt.Errorf("request %s: %w", id, err)
	}
	if d.Key != by.Key || !d.Verify(r.bytes, by.Public) {
		return r.state, fmt.Errorf("request %s: %w", id, ErrSignature)
	}
	if by.Person == "" || by.Office == "" {
		return r.state, fmt.Errorf("request %s: %w", id, ErrOffice)
	}
	for _, o := range r.by {
		if o.House != by.House || o.Person == by.Person || o.Office == by.Office || o.Key == by.Key || o.Public.Equal(by.Public) {
			return r.state, fmt.Errorf("request %s: %w", id, ErrOffice)
		}
	}
	if d.Decision == Refuse {
		r.state = Refused
		return r.state, nil
	}
	if r.by = append(r.by, by); len(r.by) == 2 {
		r.state = Approved
	}
	return r.state, nil
}

// Use consumes an approval. It answers without an error once.
func (b *Book) Use(id string, now time.Time) (*Statement, error) {
	r, err := b.live(id, now)
	if err != nil {
		return nil, err
	}
	switch r.state {
	case Approved:
		r.state = Used
		return r.s, nil
	case Used:
		return nil, fmt.Errorf("request %s: %w", id, ErrUsed)
	}
	return nil, fmt.Errorf("request %s: %w", id, ErrPending)
}

// Expire gives the requests that ended because their time did, in the order of
// their ids. Each is given once.
func (b *Book) Expire(now time.Time) []string {
	var out []string
	for id, r := range b.requests {
		if (r.state == Requested || r.state == Approved) && !now.Before(r.s.ExpiresAt()) {
			r.state = Expired
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// State tells where a request stands, "" where there is none. Time alone does not
// change it: Expire does, and every call that it would matter to looks at the clock.
func (b *Book) State(id string) State {
	if r := b.requests[id]; r != nil {
		return r.state
	}
	return ""
}

// live finds a request that its time has not ended. A final state stays what it is.
func (b *Book) live(id string, now time.Time) (*request, error) {
	r := b.requests[id]
	if r == nil {
		return nil, fmt.Errorf("request %s: %w", id, ErrUnknown)
	}
	if r.state == Expired || (r.state == Requested || r.state == Approved) && !now.Before(r.s.ExpiresAt()) {
		return nil, fmt.Errorf("request %s: %w", id, ErrExpired)
	}
	return r, nil
}
