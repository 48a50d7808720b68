package broker

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/ledger"
)

// OrderForm names the form of an order: docs/formats/broker.md.
const OrderForm = "broker.order/v1"

// Bounds.
const (
	MaxOrder  = 4 << 10             // bytes of an order
	MaxUntil  = 14 * 24 * time.Hour // how long an act may hold
	Fresh     = 15 * time.Minute    // how old the statement of an order may be
	maxHost   = 253
	nonceSize = 16
)

// The acts.
const (
	Contact  = "contact"         // tell the person to call; nothing to undo
	Disable  = "disable-account" // they cannot log in any more
	Sessions = "revoke-sessions" // what is open is closed; nothing to undo
	Isolate  = "isolate-host"    // the machine reaches nothing but us
	Notify   = "notify"          // tell the person that they were looked at; nothing to undo
)

// Acts are all of them.
func Acts() []string { return []string{Contact, Disable, Sessions, Isolate, Notify} }

// lasts reports an act that goes on until it is undone.
func lasts(act string) bool { return act == Disable || act == Isolate }

// Order is one act about one person or machine. It holds no name: the broker alone finds
// out who it is.
type Order struct {
	Act    string `json:"act"`
	Case   string `json:"case"`
	Form   string `json:"form"`
	ID     string `json:"id"`     // UUID
	Nonce  string `json:"nonce"`  // 16 random bytes, unpadded base64url: the digest of an order confirms no guess
	Org    string `json:"org"`    // UUID of the data directory
	Target string `json:"target"` // token, or for isolate-host a host in small letters
	Undoes string `json:"undoes"` // id of the order that this one takes back, or empty
	Until  string `json:"until"`  // when the broker undoes it by itself; empty for what does not last
}

// Bytes is the canonical form.
func (o *Order) Bytes() ([]byte, error) { return approval.Canonical(o) }

// DigestOf names an order: what its statement in the ledger holds.
func DigestOf(order []byte) string {
	sum := sha256.Sum256(order)
	return hex.EncodeToString(sum[:])
}

// ParseOrder reads the canonical form and nothing else. Its errors quote nothing.
func ParseOrder(b []byte) (*Order, error) {
	var o Order
	if err := approval.DecodeUpTo(MaxOrder, b, &o); err != nil {
		return nil, fmt.Errorf("order: %w", err)
	}
	id, err := uuid.Parse(o.ID)
	org, oerr := uuid.Parse(o.Org)
	nonce, nerr := base64.RawURLEncoding.DecodeString(o.Nonce)
	switch {
	case o.Form != OrderForm:
		return nil, errors.New("order: form is another one")
	case err != nil || id.String() != o.ID:
		return nil, errors.New("order: id is not a UUID")
	case oerr != nil || org.String() != o.Org:
		return nil, errors.New("order: org is not a UUID")
	case nerr != nil || len(nonce) != nonceSize || base64.RawURLEncoding.EncodeToString(nonce) != o.Nonce:
		return nil, errors.New("order: nonce is not 16 bytes")
	case !slices.Contains(Acts(), o.Act):
		return nil, errors.New("order: act is none that a broker knows")
	case o.Case == "" || len(o.Case) > 64 || !ledger.IsWord(o.Case):
		return nil, errors.New("order: case is not a number of a case")
	case event.IsToken([]byte(o.Target)):
	case o.Act != Isolate || !isHost(o.Target):
		return nil, errors.New("order: target is neither a token nor, to isolate it, a host")
	}
	if o.Undoes != "" {
		undoes, err := uuid.Parse(o.Undoes)
		if err != nil || undoes.String() != o.Undoes || o.Undoes == o.ID || !lasts(o.Act) || o.Until != "" {
			return nil, errors.New("order: undoes is not the id of another order of an act that lasts")
		}
		return &o, nil
	}
	if lasts(o.Act) == (o.Until == "") {
		return nil, errors.New("order: until belongs to what lasts, and to nothing else")
	}
	if o.Until != "" {
		if _, err := o.until(); err != nil {
			return nil, err
		}
	}
	return &o, nil
}

func (o *Order) until() (time.Time, error) {
	at, err := time.Parse(time.RFC3339, o.Until)
	if err != nil || at.UTC().Format(time.RFC3339) != o.Until {
		return time.Time{}, errors.New("order: until is not a time in UTC")
	}
	return at, nil
}

// isHost reports the name or the address of a machine in small letters.
func isHost(s string) bool {
	if s == "" || len(s) > maxHost {
		return false
	}
	for i, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9':
		case (c == '.' || c == '-' || c == '_' || c == ':') && i > 0:
		default:
			return false
		}
	}
	return true
}

// Proven is a statement with its proof.
type Proven struct {
	Leaf  []byte `json:"leaf"`
	Proof []byte `json:"proof"` // tlog-proof
}

// Asked is what a server sends: the order, and the statements of the two people who stand
// for it, or of the one where an incident grant does, or who has somebody told that they
// were looked at.
type Asked struct {
	Order  []byte  `json:"order"`
	Asks   Proven  `json:"asks"`   // containment.ordered
	Agrees *Proven `json:"agrees"` // containment.agreed
}

// Detail of the statements.
type (
	Ordered struct {
		Act   string `json:"act"`
		Grant string `json:"grant,omitempty"` // id of the finding that opened the person to the asker
		Order string `json:"order"`           // DigestOf
	}
	Agreed struct {
		Order string `json:"order"`
	}
)

// The kinds of statements.
const (
	KindOrdered = "containment.ordered"
	KindAgreed  = "containment.agreed"
	KindDone    = "containment.done"
)

// errStands says that nobody stands for an order.
var errStands = errors.New("two people have to stand for it: the ledger has only one")

// stands checks who stands for an order, by what the ledger proves. It says when the
// later of the two did, and whether one person alone did, by a grant.
func (a *Asked) stands(o *Order, v ledger.Verifiers) (at time.Time, alone bool, err error) {
	digest := DigestOf(a.Order)
	first, err := proven(a.Asks, v, KindOrdered, o.ID)
	if err != nil {
		return time.Time{}, false, err
	}
	var ordered Ordered
	if err := json.Unmarshal(first.Detail, &ordered); err != nil || ordered.Order != digest || ordered.Act != o.Act {
		return time.Time{}, false, errors.New("its statement is about another order")
	}
	if a.Agrees == nil {
		if ordered.Grant == "" && o.Undoes == "" && o.Act != Notify {
			return time.Time{}, false, errStands
		}
		return first.Time, true, nil
	}
	second, err := proven(*a.Agrees, v, KindAgreed, o.ID)
	if err != nil {
		return time.Time{}, false, err
	}
	var agreed Agreed
	switch err := json.Unmarshal(second.Detail, &agreed); {
	case err != nil || agreed.Order != digest:
		return time.Time{}, false, errors.New("who agreed has read another order")
	case second.Actor == first.Actor:
		return time.Time{}, false, errors.New("one person stands for it twice")
	case second.Time.Before(first.Time):
		return time.Time{}, false, errors.New("the agreement is older than the order")
	}
	return second.Time, false, nil
}

// proven checks one statement: in the log, of a kind, about an order, by a person.
func proven(p Proven, v ledger.Verifiers, kind, id string) (ledger.Statement, error) {
	if _, err := ledger.VerifyProof(p.Leaf, p.Proof, v); err != nil {
		return ledger.Statement{}, err
	}
	s, err := ledger.Parse(p.Leaf)
	switch {
	case err != nil:
		return s, err
	case s.Kind != kind || !slices.Equal(s.Subject, []string{id}):
		return s, errors.New("its statement is another one")
	case s.Actor == "" || s.Actor == "system" || s.Actor == "nobody":
		return s, errors.New("no person stands for it")
	}
	return s, nil
}
