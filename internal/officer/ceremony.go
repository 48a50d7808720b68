package officer

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/keyring"
)

// ErrOtherOfficer: a seal is to other officers than the one at hand.
var ErrOtherOfficer = errors.New("none of its boxes is sealed to this officer")

// Opening is one opening of something sealed, as an officer's machine sees it.
type Opening struct {
	Roster    *Roster // the officer's own copy
	Action    string  // what the statement asks for; empty: evidence.unlock
	Statement []byte
	Signed    []approval.Signed
	// Objects are what is to be opened. The statement must name exactly these.
	Objects []string
	Org     string // UUID of the data directory of the thing, which the statement must name
	Now     time.Time
	// Record sees to it that the opening is recorded. It is called once, and no layer
	// is opened before it returned nil.
	Record func(statement []byte) error

	ok *approval.Statement // checked and recorded
}

// approved checks everything that must hold before a layer is opened, records the
// statement, and gives it.
func (o *Opening) approved() (*approval.Statement, error) {
	if o.ok != nil { // one opening of several things
		return o.ok, nil
	}
	var book approval.Book
	s, err := book.Request(o.Statement, o.Now)
	if err != nil {
		return nil, err
	}
	if s.Action != cmp.Or(o.Action, "evidence.unlock") || s.Org != o.Org || !slices.Equal(s.Objects, o.Objects) {
		return nil, errors.New("the statement is about something else")
	}
	for i, d := range o.Signed {
		by, err := o.Roster.VoterFor(d.Key, s.Action)
		if err != nil {
			return nil, fmt.Errorf("decision %d: %w", i+1, err)
		}
		if _, err := book.Decide(s.ID, d, by, o.Now); err != nil {
			return nil, fmt.Errorf("decision %d: %w", i+1, err)
		}
	}
	if _, err := book.Use(s.ID, o.Now); err != nil {
		return nil, err
	}
	if o.Record == nil {
		return nil, errors.New("nothing is opened that nobody records")
	}
	if err := o.Record(o.Statement); err != nil {
		return nil, fmt.Errorf("recording the statement: %w", err)
	}
	o.ok = s
	return s, nil
}

// elsewhere reports whether the officer of a key decides on no act of this kind: what an
// inspector's office approved is not for the officers of the organisation to open, though
// the same thing is sealed to them too, nor the other way round.
func (o *Opening) elsewhere(k *Key) bool {
	if o.Roster.Find(k.card.ID()) == nil {
		return false
	}
	_, err := o.Roster.VoterFor(k.card.ID(), cmp.Or(o.Action, "evidence.unlock"))
	return err != nil
}

// Handover is what oversight gives to investigation: the box without its outer layer,
// still sealed to one person.
type Handover struct {
	Box       string `json:"box"`       // unpadded base64url
	Epoch     int    `json:"epoch"`     // of the officers
	Inner     string `json:"inner"`     // id of the sealing key that opens it
	Statement string `json:"statement"` // SHA-256 of the statement that it was opened for
	V         int    `json:"v"`
}

// ParseHandover reads one in canonical form.
func ParseHandover(b []byte) (*Handover, error) {
	var h Handover
	if err := approval.Decode(b, &h); err != nil {
		return nil, fmt.Errorf("handover: %w", err)
	}
	if h.V != 1 || len(h.Inner) != 64 || len(h.Statement) != 64 || h.Epoch < 1 {
		return nil, errors.New("handover: unknown version, or not one")
	}
	return &h, nil
}

// OpenOuter is the part of oversight.
func (k *Key) OpenOuter(o *Opening, info keyring.SealInfo, boxes []keyring.Sealed) (*Handover, error) {
	i := slices.IndexFunc(boxes, func(b keyring.Sealed) bool { return b.Outer == k.card.Seal.ID() })
	if i < 0 || k.card.Office != Oversight || o.elsewhere(k) {
		return nil, ErrOtherOfficer
	}
	if _, err := o.approved(); err != nil {
		return nil, err
	}
	info.Epoch = boxes[i].Epoch
	inner, err := keyring.OpenOuter(k.seal, info, boxes[i].Box)
	if err != nil {
		return nil, err
	}
	return &Handover{Box: b64(inner), Epoch: boxes[i].Epoch, Inner: boxes[i].Inner.String(), Statement: approval.HexDigest(o.Statement), V: 1}, nil
}

// OpenInner is the part of investigation. It gives what was sealed and until when it
// may be used.
func (k *Key) OpenInner(o *Opening, info keyring.SealInfo, h *Handover) (secret []byte, until time.Time, err error) {
	if h.Inner != k.card.Seal.ID().String() || k.card.Office != Investigation || o.elsewhere(k) {
		return nil, until, ErrOtherOfficer
	}
	if h.Statement != approval.HexDigest(o.Statement) {
		return nil, until, errors.New("the handover was made for another statement")
	}
	box, err := base64.RawURLEncoding.DecodeString(h.Box)
	if err != nil {
		return nil, until, errors.New("the handover is not base64url")
	}
	s, err := o.approved()
	if err != nil {
		return nil, until, err
	}
	info.Epoch = h.Epoch
	if secret, err = keyring.OpenInner(k.seal, info, box); err != nil {
		return nil, until, err
	}
	return secret, o.Now.Add(s.Grant()), nil
}
