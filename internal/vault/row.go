package vault

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/keyring"
)

const (
	rowVersion = 1
	purpose    = "vault/identity"
	padTo      = 64       // bytes of a plaintext, and multiples of it
	maxName    = 64 << 10 // a longer identity is no name, and stays without a seal
	maxRow     = 512 << 10
	boxes      = 2 // the officers in office, and their spares
	maxBoxes   = 4 // and those of an inspector's office, and of a duty host
)

// Identity is what a token stands for: the text of which it is made.
type Identity struct {
	Kind      event.TokenKind
	Canonical []byte
}

// identityForm is the stored form, canonical JSON. Text is UTF-8; what is not is bytes.
type identityForm struct {
	Bytes    string `json:"bytes,omitempty"`
	Identity string `json:"identity,omitempty"`
	Kind     string `json:"kind"`
	V        int    `json:"v"`
}

// Plaintext is what is sealed: canonical JSON and spaces up to a multiple of 64 bytes, so
// that the length of a box does not tell the length of the name.
func (id Identity) Plaintext() ([]byte, error) {
	if len(id.Canonical) == 0 || len(id.Canonical) > maxName {
		return nil, fmt.Errorf("an identity of no bytes, or of more than %d", maxName)
	}
	f := identityForm{Kind: string(rune(id.Kind)), V: rowVersion}
	if utf8.Valid(id.Canonical) {
		f.Identity = string(id.Canonical)
	} else {
		f.Bytes = base64.RawURLEncoding.EncodeToString(id.Canonical)
	}
	b, err := approval.Canonical(f)
	if err != nil {
		return nil, errors.New("an identity cannot be written down")
	}
	for len(b)%padTo != 0 {
		b = append(b, ' ')
	}
	return b, nil
}

// ParseIdentity reads what was sealed. Its errors quote nothing.
func ParseIdentity(plaintext []byte) (Identity, error) {
	bad := errors.New("what was sealed is no identity")
	var f identityForm
	trimmed := bytes.TrimRight(plaintext, " ")
	if len(plaintext)%padTo != 0 || len(plaintext)-len(trimmed) >= padTo || approval.DecodeUpTo(8*maxName, trimmed, &f) != nil || f.V != rowVersion || len(f.Kind) != 1 {
		return Identity{}, bad
	}
	id := Identity{Kind: event.TokenKind(f.Kind[0]), Canonical: []byte(f.Identity)}
	switch id.Kind {
	case event.Person, event.Mail, event.Device, event.Address:
	default:
		return Identity{}, bad
	}
	if f.Bytes != "" {
		b, err := base64.RawURLEncoding.Strict().DecodeString(f.Bytes)
		if err != nil || f.Identity != "" || utf8.Valid(b) {
			return Identity{}, bad
		}
		id.Canonical = b
	}
	if len(id.Canonical) == 0 || len(id.Canonical) > maxName {
		return Identity{}, bad
	}
	return id, nil
}

// Format prints the kind only, whatever verb is used.
func (id Identity) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "identity of kind %c", id.Kind) }

// MarshalJSON refuses: an identity is in no document.
func (id Identity) MarshalJSON() ([]byte, error) {
	return nil, errors.New("an identity is never written into a document")
}

// Row is one sealed identity: the exact bytes that the vault keeps, and what is in them.
type Row struct {
	Bytes []byte // canonical JSON; the commitment is over them
	Org   uuid.UUID
	Token event.Token
	boxes []keyring.Sealed
}

type rowForm struct {
	Boxes []boxForm `json:"boxes"`
	Org   string    `json:"org"`
	Token string    `json:"token"`
	V     int       `json:"v"`
}

type boxForm struct {
	Box   string `json:"box"`   // unpadded base64url
	Epoch int    `json:"epoch"` // of the officers
	Inner string `json:"inner"` // id of the key of investigation, hex
	Outer string `json:"outer"` // of oversight
	Suite string `json:"suite"`
}

// Seal makes the row of an identity. It needs the public halves of the officers alone.
func Seal(e *keyring.Escrow, org uuid.UUID, token event.Token, id Identity) (*Row, error) {
	plain, err := id.Plaintext()
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	sealed, err := e.SealName(info(org, token), plain)
	if err != nil {
		return nil, err
	}
	f := rowForm{Org: org.String(), Token: string(token), V: rowVersion}
	for _, s := range sealed {
		f.Boxes = append(f.Boxes, boxForm{Box: base64.RawURLEncoding.EncodeToString(s.Box), Epoch: s.Epoch, Inner: s.Inner.String(), Outer: s.Outer.String(), Suite: s.SuiteName})
	}
	b, err := approval.Canonical(f)
	if err != nil {
		return nil, err
	}
	return &Row{Bytes: b, Org: org, Token: token, boxes: sealed}, nil
}

// ParseRow reads a row and refuses everything but its canonical form.
func ParseRow(b []byte) (*Row, error) {
	bad := errors.New("not a sealed identity in canonical form")
	var f rowForm
	if approval.DecodeUpTo(maxRow, b, &f) != nil || len(f.Boxes) < boxes || len(f.Boxes) > maxBoxes || !event.IsToken([]byte(f.Token)) {
		return nil, bad
	}
	if f.V != rowVersion {
		return nil, errors.New("a sealed identity of an unknown version")
	}
	org, err := uuid.Parse(f.Org)
	if err != nil || org.String() != f.Org {
		return nil, bad
	}
	r := &Row{Bytes: bytes.Clone(b), Org: org, Token: event.Token(f.Token)}
	for _, x := range f.Boxes {
		box, berr := base64.RawURLEncoding.Strict().DecodeString(x.Box)
		inner, ierr := keyID(x.Inner)
		outer, oerr := keyID(x.Outer)
		if errors.Join(berr, ierr, oerr) != nil || x.Epoch < 1 || x.Epoch != f.Boxes[0].Epoch {
			return nil, bad
		}
		if x.Suite != keyring.SuiteSeal {
			return nil, errors.New("an identity sealed with an unknown suite")
		}
		r.boxes = append(r.boxes, keyring.Sealed{Box: box, Epoch: x.Epoch, Inner: inner, Outer: outer, SuiteName: x.Suite})
	}
	return r, nil
}

func keyID(text string) (id keyring.KeyID, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(id) || hex.EncodeToString(b) != text {
		return id, errors.New("not the id of a key")
	}
	return keyring.KeyID(b), nil
}

// Commitment is the SHA-256 of the row: what the ledger has of it, by way of its window.
func (r *Row) Commitment() [32]byte { return sha256.Sum256(r.Bytes) }

// Boxes are the seals: to the officers, and to their spares.
func (r *Row) Boxes() []keyring.Sealed { return r.boxes }

// Epoch is that of the officers.
func (r *Row) Epoch() int { return r.boxes[0].Epoch }

// Info is what the seals are bound to; opening adds role, key and epoch.
func (r *Row) Info() keyring.SealInfo { return info(r.Org, r.Token) }

func info(org uuid.UUID, token event.Token) keyring.SealInfo {
	return keyring.SealInfo{Purpose: purpose, Org: org, Subject: string(token)}
}
