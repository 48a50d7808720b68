package lifecycle

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/state"
)

// A hold of an inspector's office: the organisation keeps what it covers without being told
// what that is, and cannot lift it. The leaf of the ledger says that it is there.

// Insider is somebody of an inspector's office.
type Insider struct {
	Person    string
	Office    string
	Authority string // that appointed the office
}

func (by Insider) actor() string { return "office:" + by.Office }

// insideDetail is the detail of hold.placed. Its scope is a word, so that a version that
// does not know this form keeps everything, and an auditor takes it for no scope.
type insideDetail struct {
	Appointed string        `json:"appointed"`
	Authority ledger.Digest `json:"authority"` // of a commitment to the order
	Inspector bool          `json:"inspector"`
	Office    string        `json:"office"`
	Scope     string        `json:"scope"`
	Sealed    ledger.Digest `json:"sealed"`
}

const sealedScope = "sealed"

// insideForm is what such a hold keeps and when it is reviewed, under a key of the server.
type insideForm struct {
	Compartment string `json:"compartment"`
	From        string `json:"from"`
	Review      string `json:"review"`
	To          string `json:"to"`
	V           int    `json:"v"`
}

// ErrInside refuses officers of the organisation a hold that is not theirs.
var ErrInside = errors.New("an inspector's office placed it: two people of that office release it, and nobody else")

// inside reads a hold of an inspector's office, and reports whether it is one. What cannot
// be opened keeps everything.
func (l *Lifecycle) inside(h *Hold, f state.Fact) bool {
	var d insideDetail
	if strict(f.Detail, &d) != nil || !d.Inspector || d.Scope != sealedScope {
		return false
	}
	h.Inspector, h.Office, h.Appointed, h.Authority, h.Unread = true, d.Office, d.Appointed, d.Authority, true
	if l.o.Unwrap == nil {
		return true
	}
	box, err := l.o.Ledger.Payload(d.Sealed)
	if err != nil {
		return true
	}
	plain, err := l.o.Unwrap(box, []byte(f.Key))
	if err != nil {
		return true
	}
	var in insideForm
	if approval.Decode(plain, &in) != nil || in.V != 1 {
		return true
	}
	s := Scope{Compartment: in.Compartment, From: in.From, To: in.To}
	review, err := time.Parse(time.RFC3339, in.Review)
	if err != nil || s.check() != nil {
		return true
	}
	h.Scope, h.Review, h.Unread = s, review, false
	return true
}

// Veiled is what those outside of the office may know of a hold of an inspector's office,
// and the hold itself of every other.
func (h Hold) Veiled() Hold {
	if !h.Inspector {
		return h
	}
	return Hold{ID: h.ID, Placed: h.Placed, By: h.By, Statement: h.Statement, Released: h.Released, Pending: h.Pending, Inspector: true, Office: h.Office}
}

// PlaceInside puts a hold of an inspector's office in force. The order stays with that
// office: the ledger commits to it, and nonce, which the office keeps with it, shows later
// under what the hold was placed: SHA-256(nonce ‖ order).
func (l *Lifecycle) PlaceInside(ctx context.Context, by Insider, scope Scope, order []byte, review time.Time) (h Hold, nonce []byte, err error) {
	if err := scope.check(); err != nil {
		return Hold{}, nil, badInput{err}
	}
	switch {
	case scope.Case != "" || scope.Source != "" || scope.Token != "":
		return Hold{}, nil, badInput{errors.New("an inspector's hold names a compartment and times: they bound what it keeps, and the rest is not for this server to know")}
	case len(order) == 0 || len(order) > maxOrder:
		return Hold{}, nil, badInput{fmt.Errorf("a hold needs the text of the order that it is placed under, of at most %d bytes", maxOrder)}
	case !review.After(l.now()):
		return Hold{}, nil, badInput{errors.New("review is a day to come, on which somebody asks whether the hold is still needed")}
	case l.o.Wrap == nil:
		return Hold{}, nil, errors.New("placing a hold: no key to keep its scope under")
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Hold{}, nil, fmt.Errorf("placing a hold: %w", err)
	}
	plain, err := approval.Canonical(insideForm{Compartment: scope.Compartment, From: scope.From, Review: review.UTC().Format(time.RFC3339), To: scope.To, V: 1})
	if err != nil {
		return Hold{}, nil, err
	}
	box, err := l.o.Wrap(plain, []byte(id.String()))
	if err != nil {
		return Hold{}, nil, fmt.Errorf("placing a hold: %w", err)
	}
	nonce = make([]byte, 32)
	rand.Read(nonce) // never fails
	commit := sha256.Sum256(append(append([]byte{}, nonce...), order...))
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.finish(ctx); err != nil { // as Place does
		return Hold{}, nil, fmt.Errorf("placing a hold: %w", err)
	}
	d := insideDetail{Appointed: by.Authority, Inspector: true, Office: by.Office, Scope: sealedScope}
	if d.Sealed, err = l.o.Ledger.PutPayload(box); err != nil {
		return Hold{}, nil, fmt.Errorf("placing a hold: %w", err)
	}
	if d.Authority, err = l.o.Ledger.PutPayload([]byte("sha256 " + base64.RawURLEncoding.EncodeToString(commit[:]))); err != nil {
		return Hold{}, nil, fmt.Errorf("placing a hold: %w", err)
	}
	if _, err := l.o.Statements.Record(ctx, attest.Act{Kind: "hold.placed", Actor: by.actor(), Subject: []string{id.String()}, Detail: d}); err != nil {
		return Hold{}, nil, fmt.Errorf("placing a hold: %w", err)
	}
	h, err = l.hold(ctx, id.String())
	return h, nonce, err
}

// askedInside is the payload of a request to release such a hold.
type askedInside struct {
	Asked   string `json:"asked"` // who asked
	Expires string `json:"expires"`
	Form    string `json:"form"`
	Hold    string `json:"hold"`
	ID      string `json:"id"`
}

const (
	askedForm   = "hold.release/v1"
	askedFor    = 24 * time.Hour
	expiresForm = "2006-01-02T15:04:05Z"
)

// ofOffice gives a hold in force of the office of somebody.
func (l *Lifecycle) ofOffice(ctx context.Context, by Insider, id string) (Hold, error) {
	h, err := l.hold(ctx, id)
	switch {
	case err != nil:
		return Hold{}, err
	case !h.Inspector || h.Appointed != by.Authority || by.Person == "":
		return Hold{}, badInput{errors.New("your office placed no hold of this id")}
	case !h.InForce():
		return Hold{}, badInput{errors.New("this hold was released")}
	}
	return h, nil
}

// AskInside is the word of the first of two people of an inspector's office to release its
// hold. It counts for a day, and releases nothing.
func (l *Lifecycle) AskInside(ctx context.Context, by Insider, id string) error {
	if _, err := l.ofOffice(ctx, by, id); err != nil {
		return err
	}
	request, err := uuid.NewV7()
	if err != nil {
		return err
	}
	p := askedInside{Asked: by.Person, Expires: l.now().Add(askedFor).UTC().Format(expiresForm), Form: askedForm, Hold: id, ID: request.String()}
	b, err := approval.Canonical(p)
	if err != nil {
		return err
	}
	payload, err := l.o.Ledger.PutPayload(b)
	if err != nil {
		return err
	}
	_, err = l.o.Statements.Record(ctx, attest.Act{Kind: "approval.requested", Actor: by.actor(), Subject: []string{p.ID},
		Detail: map[string]any{"act": actionRelease, "expires": p.Expires, "payload": payload, "hold": id, "inspector": true}})
	return err
}

// ReleaseInside ends a hold of an inspector's office, by a second person of it. may asks
// the policies whether they decide on what another asked for. The release is witnessed
// before it counts.
func (l *Lifecycle) ReleaseInside(ctx context.Context, by Insider, id string, may func(asked string) error) (Hold, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.ofOffice(ctx, by, id); err != nil {
		return Hold{}, err
	}
	all, err := l.o.Statements.Facts(ctx, "approval.requested")
	if err != nil {
		return Hold{}, err
	}
	refused := error(badInput{errors.New("nobody of your office has asked to release it within a day: hold release HOLD --ask")})
	for _, f := range all {
		p, ok := l.askedInside(f, id)
		if !ok {
			continue
		}
		if _, used, err := l.o.Statements.Fact(ctx, "approval.used", p.ID); err != nil {
			return Hold{}, err
		} else if used {
			continue
		}
		if refused = may(p.Asked); refused != nil {
			continue
		}
		if _, err := l.o.Statements.Critical(ctx, attest.Act{Kind: "hold.released", Actor: by.actor(), Subject: []string{id},
			Detail: map[string]any{"hold": id, "inspector": true, "request": p.ID}}); err != nil {
			return Hold{}, fmt.Errorf("releasing hold %s, which stands until a witness has seen its release: %w", id, err)
		}
		if _, err := l.o.Statements.Record(ctx, attest.Act{Kind: "approval.used", Actor: by.actor(), Subject: []string{p.ID}, Detail: map[string]any{"request": p.ID}}); err != nil {
			return Hold{}, fmt.Errorf("hold %s was released: %w", id, err)
		}
		return l.hold(ctx, id)
	}
	return Hold{}, refused
}

// askedInside reads a request to release a hold that counts still.
func (l *Lifecycle) askedInside(f state.Fact, hold string) (askedInside, bool) {
	var p askedInside
	var d struct {
		Act       string        `json:"act"`
		Expires   string        `json:"expires"`
		Hold      string        `json:"hold"`
		Inspector bool          `json:"inspector"`
		Payload   ledger.Digest `json:"payload"`
	}
	if json.Unmarshal(f.Detail, &d) != nil || d.Act != actionRelease || !d.Inspector || d.Hold != hold {
		return p, false
	}
	b, err := l.o.Ledger.Payload(d.Payload)
	if err != nil || approval.Decode(b, &p) != nil || p.Form != askedForm || p.ID != f.Key || p.Hold != hold || p.Expires != d.Expires || p.Asked == "" {
		return p, false
	}
	until, err := time.Parse(expiresForm, p.Expires)
	return p, err == nil && l.now().Before(until) && !until.After(f.Time.Add(askedFor+time.Minute))
}
