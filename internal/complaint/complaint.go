// Package complaint is how somebody complains to the overseers past those who run the
// server. It owns the forms complaint/v1 and complaint.answer/v1
// (docs/formats/complaint.md) and the code that the complainant keeps.
//
// It promises: a complaint opens with a key of the overseers' office alone, its answer with
// the code alone; both have one length, whatever they say; nothing of a complaint names who
// made it; the id of a complaint tells nothing of its code.
//
// It leaves to others where complaints lie, who may close them, and how many are taken.
package complaint

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/keyring"
)

const (
	form       = "complaint/v1"
	answerForm = "complaint.answer/v1"

	// MaxText bounds a complaint and its answer, in bytes of UTF-8.
	MaxText = 16 << 10
	// MaxFile bounds the file of either.
	MaxFile = 128 << 10

	purpose       = "complaint"
	answerPurpose = "complaint/answer"
	label         = "counterseal/complaint/v1/"

	codeLen   = 20 // bytes of a code
	codeGroup = 4  // characters between two hyphens
	idLen     = 16 // bytes

	plainLen  = keyring.PublicKeyLen + MaxText
	answerLen = keyring.SealOverhead + MaxText
)

// The outcomes of a complaint.
const (
	Upheld    = "upheld"
	Partly    = "partly"
	Unfounded = "unfounded"
	Elsewhere = "elsewhere" // another office is competent, and has it or is named in the answer
)

// Outcomes are what a complaint may be closed with.
func Outcomes() []string { return []string{Upheld, Partly, Unfounded, Elsewhere} }

// IsOutcome reports whether a word is one of them.
func IsOutcome(s string) bool {
	switch s {
	case Upheld, Partly, Unfounded, Elsewhere:
		return true
	}
	return false
}

// Code is what the complainant keeps, shown once: it finds the complaint again and opens the
// answer. It is never printed by fmt.
type Code struct{ raw [codeLen]byte }

var codeText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewCode makes a code of 160 random bits.
func NewCode() Code {
	var c Code
	rand.Read(c.raw[:]) // never fails
	return c
}

// ParseCode reads what Text gave; spaces, hyphens and capitals do not matter. Its error
// quotes nothing.
func ParseCode(text string) (Code, error) {
	var c Code
	bad := errors.New("a code is 32 letters and digits from 2 to 7, in groups of four")
	if len(text) > 200 {
		return c, bad
	}
	text = strings.NewReplacer("-", "", " ", "", "\t", "", "\r", "", "\n", "").Replace(strings.ToLower(text))
	raw, err := codeText.DecodeString(text)
	if err != nil || len(raw) != codeLen || codeText.EncodeToString(raw) != text {
		return c, bad
	}
	copy(c.raw[:], raw)
	return c, nil
}

// Text is the code for the eyes of the complainant.
func (c Code) Text() string {
	text, groups := codeText.EncodeToString(c.raw[:]), []string{}
	for ; len(text) > codeGroup; text = text[codeGroup:] {
		groups = append(groups, text[:codeGroup])
	}
	return strings.Join(append(groups, text), "-")
}

// Format prints nothing of it, whatever verb is used.
func (c Code) Format(s fmt.State, _ rune) { fmt.Fprint(s, "code of a complaint") }

// LogValue is what slog prints.
func (c Code) LogValue() slog.Value { return slog.StringValue("code of a complaint") }

func (c Code) derive(use string, n int) ([]byte, error) {
	return hkdf.Key(sha256.New, c.raw[:], nil, label+use, n)
}

// ID names the complaint of a code: 32 hex digits.
func (c Code) ID() (string, error) {
	b, err := c.derive("id", idLen)
	return hex.EncodeToString(b), err
}

// key is what opens the answer.
func (c Code) key() (*keyring.PrivateKey, error) {
	b, err := c.derive("answer", 32)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	return keyring.ParsePrivateKey(b)
}

// IsID reports whether a text is the id of a complaint.
func IsID(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == idLen && hex.EncodeToString(b) == s
}

// CheckText refuses what cannot be sealed.
func CheckText(text string) error {
	switch {
	case strings.TrimSpace(text) == "":
		return errors.New("the text is empty")
	case len(text) > MaxText:
		return fmt.Errorf("the text is longer than %d bytes", MaxText)
	case !utf8.ValidString(text) || strings.ContainsRune(text, 0):
		return errors.New("the text is not UTF-8 without zero bytes")
	}
	return nil
}

// pad brings a text to MaxText bytes, so that a length tells nothing.
func pad(text string) []byte { return append(make([]byte, 0, MaxText), text...)[:MaxText] }

// unpad gives the text.
func unpad(b []byte) (string, error) {
	text := strings.TrimRight(string(b), "\x00")
	return text, CheckText(text)
}

// Sealed is a complaint as it lies on the server.
type Sealed struct {
	ID    string
	Org   uuid.UUID
	Epoch int             // of the officers
	Keys  []keyring.KeyID // who can open it, each alone

	boxes []keyring.Box
	bytes []byte
}

type sealedForm struct {
	Boxes []keyring.Box `json:"boxes"`
	Epoch int           `json:"epoch"`
	Form  string        `json:"form"`
	ID    string        `json:"id"`
	Org   string        `json:"org"`
}

func (s *Sealed) info() keyring.SealInfo {
	return keyring.SealInfo{Purpose: purpose, Org: s.Org, Epoch: s.Epoch, Subject: s.ID}
}

// Seal seals a complaint to each of the keys. epoch is that of the officers.
func Seal(c Code, text string, org uuid.UUID, epoch int, to []keyring.PublicKey) (*Sealed, error) {
	if err := CheckText(text); err != nil {
		return nil, err
	}
	id, err := c.ID()
	if err != nil {
		return nil, err
	}
	answer, err := c.key()
	if err != nil {
		return nil, err
	}
	s := &Sealed{ID: id, Org: org, Epoch: epoch}
	plain := append(answer.Public().Bytes(), pad(text)...)
	defer clear(plain)
	f := sealedForm{Epoch: epoch, Form: form, ID: id, Org: org.String()}
	if f.Boxes, err = keyring.SealEach(to, s.info(), plain); err != nil {
		return nil, fmt.Errorf("complaint: %w", err)
	}
	b, err := approval.Canonical(&f)
	if err != nil {
		return nil, err
	}
	return Parse(b)
}

// Parse reads complaint/v1 and refuses everything but its canonical form; one end of line at
// the end is let pass. Its errors quote nothing.
func Parse(b []byte) (*Sealed, error) {
	var f sealedForm
	if err := decode(b, &f); err != nil {
		return nil, fmt.Errorf("complaint: %w", err)
	}
	org, err := uuid.Parse(f.Org)
	switch {
	case f.Form != form:
		return nil, errors.New("complaint: form is not " + form)
	case !IsID(f.ID):
		return nil, errors.New("complaint: id is not 32 hex digits")
	case err != nil || org.String() != f.Org:
		return nil, errors.New("complaint: org is not a UUID")
	case f.Epoch < 1:
		return nil, errors.New("complaint: epoch is a number from 1")
	}
	s := &Sealed{ID: f.ID, Org: org, Epoch: f.Epoch, boxes: f.Boxes, bytes: trim(b)}
	if s.Keys, err = keyring.ParseEach(f.Boxes, plainLen); err != nil {
		return nil, fmt.Errorf("complaint: %w", err)
	}
	return s, nil
}

func trim(b []byte) []byte {
	b = append([]byte{}, b...)
	if n := len(b); n > 0 && b[n-1] == '\n' {
		b = b[:n-1]
	}
	return b
}

func decode(b []byte, v any) error { return approval.DecodeUpTo(MaxFile, trim(b), v) }

// Bytes is the canonical form, without an end of line.
func (s *Sealed) Bytes() []byte { return append([]byte{}, s.bytes...) }

// Digest is the SHA-256 of Bytes in hex: what the ledger has of a complaint.
func (s *Sealed) Digest() string { return digest(s.bytes) }

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Opened is a complaint in the hands of the overseer.
type Opened struct {
	Text string

	of     *Sealed
	answer keyring.PublicKey
}

// Open opens a complaint. Its error wraps keyring.ErrNotForKey where the key is another one.
func (s *Sealed) Open(k keyring.Opener) (*Opened, error) {
	plain, err := keyring.OpenEach(k, s.info(), s.boxes)
	if err != nil {
		return nil, fmt.Errorf("complaint: %w", err)
	}
	defer clear(plain)
	if len(plain) != plainLen {
		return nil, errors.New("complaint: what it holds has another length")
	}
	o := &Opened{of: s}
	if o.answer, err = keyring.ParsePublicKey(plain[:keyring.PublicKeyLen]); err != nil {
		return nil, fmt.Errorf("complaint: the key for the answer: %w", err)
	}
	if o.Text, err = unpad(plain[keyring.PublicKeyLen:]); err != nil {
		return nil, fmt.Errorf("complaint: %w", err)
	}
	return o, nil
}

// Answer is complaint.answer/v1.
type Answer struct {
	ID      string
	Outcome string
	Org     uuid.UUID
	Epoch   int // of the complaint

	box   []byte
	bytes []byte
}

type answerFormat struct {
	Box     string `json:"box"`
	Epoch   int    `json:"epoch"`
	Form    string `json:"form"`
	ID      string `json:"id"`
	Org     string `json:"org"`
	Outcome string `json:"outcome"`
}

func (a *Answer) info() keyring.SealInfo {
	return keyring.SealInfo{Purpose: answerPurpose, Org: a.Org, Epoch: a.Epoch, Subject: a.ID + " " + a.Outcome}
}

// Answer seals what the complainant is told to the code of the complaint.
func (o *Opened) Answer(outcome, text string) (*Answer, error) {
	if !IsOutcome(outcome) {
		return nil, errors.New("an outcome is one of " + strings.Join(Outcomes(), ", "))
	}
	if err := CheckText(text); err != nil {
		return nil, err
	}
	a := &Answer{ID: o.of.ID, Outcome: outcome, Org: o.of.Org, Epoch: o.of.Epoch}
	box, err := keyring.SealTo(o.answer, a.info(), keyring.RoleOnly, pad(text))
	if err != nil {
		return nil, err
	}
	b, err := approval.Canonical(&answerFormat{Box: base64.RawURLEncoding.EncodeToString(box), Epoch: a.Epoch, Form: answerForm, ID: a.ID, Org: a.Org.String(), Outcome: outcome})
	if err != nil {
		return nil, err
	}
	return ParseAnswer(b)
}

// ParseAnswer reads complaint.answer/v1 as Parse does.
func ParseAnswer(b []byte) (*Answer, error) {
	var f answerFormat
	if err := decode(b, &f); err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	org, err := uuid.Parse(f.Org)
	switch {
	case f.Form != answerForm:
		return nil, errors.New("answer: form is not " + answerForm)
	case !IsID(f.ID):
		return nil, errors.New("answer: id is not 32 hex digits")
	case err != nil || org.String() != f.Org:
		return nil, errors.New("answer: org is not a UUID")
	case f.Epoch < 1:
		return nil, errors.New("answer: epoch is a number from 1")
	case !IsOutcome(f.Outcome):
		return nil, errors.New("answer: outcome is one of " + strings.Join(Outcomes(), ", "))
	}
	box, err := base64.RawURLEncoding.Strict().DecodeString(f.Box)
	if err != nil || len(box) != answerLen {
		return nil, fmt.Errorf("answer: box is not a seal of %d bytes", answerLen)
	}
	return &Answer{ID: f.ID, Outcome: f.Outcome, Org: org, Epoch: f.Epoch, box: box, bytes: trim(b)}, nil
}

// Bytes is the canonical form, without an end of line.
func (a *Answer) Bytes() []byte { return append([]byte{}, a.bytes...) }

// Digest is the SHA-256 of Bytes in hex.
func (a *Answer) Digest() string { return digest(a.bytes) }

// Open gives the text to who has the code.
func (a *Answer) Open(c Code) (string, error) {
	k, err := c.key()
	if err != nil {
		return "", err
	}
	plain, err := keyring.OpenWith(k, a.info(), keyring.RoleOnly, a.box)
	if err != nil {
		return "", err
	}
	defer clear(plain)
	return unpad(plain)
}
