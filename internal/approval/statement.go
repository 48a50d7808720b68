package approval

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
)

// Bounds of a statement.
const (
	MaxLife   = 24 * time.Hour     // from its making to its expiry
	MaxGrant  = 7 * 24 * time.Hour // how long what it grants lasts, from its use
	maxBytes  = 32 << 10
	maxText   = 500
	maxObject = 64
	nonceLen  = 32
	timeForm  = "2006-01-02T15:04:05Z"
	version   = 1
)

// Statement says what is asked for. Its bytes are canonical JSON (RFC 8785); they
// are what people sign and what goes into the ledger. Times are UTC, to the second.
type Statement struct {
	Action    string   `json:"action"`    // such as evidence.unlock
	Case      string   `json:"case"`      // number of the case
	Expires   string   `json:"expires"`   // after it nobody decides and nothing is done
	ID        string   `json:"id"`        // UUID
	Made      string   `json:"made"`      //
	Minutes   int      `json:"minutes"`   // how long what is granted lasts, from its use
	Nonce     string   `json:"nonce"`     // 32 random bytes, unpadded base64url
	Objects   []string `json:"objects"`   // what it is about
	Org       string   `json:"org"`       // UUID of the data directory
	Purpose   string   `json:"purpose"`   // why
	Requester string   `json:"requester"` // who asks
	V         int      `json:"v"`
}

// Ask is what a person decides about a new statement.
type Ask struct {
	Action, Case, Purpose, Requester string
	Objects                          []string
	Org                              uuid.UUID
	Life                             time.Duration // zero: MaxLife
	Grant                            time.Duration
}

// New makes a statement with a fresh id and nonce. What it gives is checked as
// Parse checks.
func New(a Ask, now time.Time) (*Statement, []byte, error) {
	if a.Life == 0 {
		a.Life = MaxLife
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, nil, fmt.Errorf("making a statement: %w", err)
	}
	nonce := make([]byte, nonceLen)
	rand.Read(nonce)
	now = now.UTC().Truncate(time.Second)
	s := &Statement{
		Action: a.Action, Case: a.Case, Expires: now.Add(a.Life).Format(timeForm), ID: id.String(), Made: now.Format(timeForm),
		Minutes: int(a.Grant / time.Minute), Nonce: base64.RawURLEncoding.EncodeToString(nonce), Objects: a.Objects, Org: a.Org.String(),
		Purpose: a.Purpose, Requester: a.Requester, V: version,
	}
	b, err := Canonical(s)
	if err != nil {
		return nil, nil, fmt.Errorf("making a statement: %w", err)
	}
	s, err = Parse(b)
	return s, b, err
}

// Parse reads the bytes of a statement and refuses everything but their canonical
// form. Its errors name members and quote nothing.
func Parse(b []byte) (*Statement, error) {
	s := &Statement{}
	if err := Decode(b, s); err != nil {
		return nil, fmt.Errorf("statement: %w", err)
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("statement: %w", err)
	}
	return s, nil
}

func (s *Statement) check() error {
	if s.V != version {
		return errors.New("unknown version")
	}
	if id, err := uuid.Parse(s.ID); err != nil || id.String() != s.ID {
		return errors.New("id is not a UUID")
	}
	if id, err := uuid.Parse(s.Org); err != nil || id.String() != s.Org {
		return errors.New("org is not a UUID")
	}
	if n, err := base64.RawURLEncoding.Strict().DecodeString(s.Nonce); err != nil || len(n) != nonceLen {
		return errors.New("nonce is not 32 bytes")
	}
	made, err := parseTime(s.Made)
	if err != nil {
		return errors.New("made is not a time")
	}
	expires, err := parseTime(s.Expires)
	if err != nil {
		return errors.New("expires is not a time")
	}
	if life := expires.Sub(made); life <= 0 || life > MaxLife {
		return errors.New("it must expire within 24 hours")
	}
	if s.Minutes < 1 || time.Duration(s.Minutes) > MaxGrant/time.Minute {
		return errors.New("minutes are 1 to 7 days of them")
	}
	for _, t := range []struct{ name, text string }{{"action", s.Action}, {"case", s.Case}, {"purpose", s.Purpose}, {"requester", s.Requester}} {
		if err := checkText(t.text); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	if len(s.Objects) == 0 || len(s.Objects) > maxObject {
		return fmt.Errorf("objects are 1 to %d", maxObject)
	}
	for i, o := range s.Objects {
		if err := checkText(o); err != nil {
			return fmt.Errorf("objects[%d]: %w", i, err)
		}
	}
	return nil
}

// checkText takes what a person can read as it stands: no control characters and
// none that are invisible or turn the direction of writing.
func checkText(t string) error {
	if t == "" || len(t) > maxText || !utf8.ValidString(t) || strings.TrimSpace(t) != t {
		return fmt.Errorf("1 to %d bytes of text, without space at its ends", maxText)
	}
	for _, r := range t {
		if !unicode.IsGraphic(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Co, r) || r == 0xfffd {
			return errors.New("a character that cannot be seen")
		}
	}
	return nil
}

func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(timeForm, s)
	if err == nil && t.Format(timeForm) != s {
		err = errors.New("not in canonical form")
	}
	return t, err
}

// ExpiresAt is the end of the time in which it can be decided and used.
func (s *Statement) ExpiresAt() time.Time { t, _ := parseTime(s.Expires); return t }

// MadeAt is when it was made.
func (s *Statement) MadeAt() time.Time { t, _ := parseTime(s.Made); return t }

// Grant is how long what it grants lasts.
func (s *Statement) Grant() time.Duration { return time.Duration(s.Minutes) * time.Minute }

// Words says the statement to the person who is to sign it.
func (s *Statement) Words() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s asks for: %s\n", s.Requester, s.Action)
	for _, o := range s.Objects {
		fmt.Fprintf(&b, "  about      %s\n", o)
	}
	fmt.Fprintf(&b, "  case       %s\n  purpose    %s\n  asked      %s\n  expires    %s\n  lasts      %s from its use\n  data of    %s\n  statement  %s\n",
		s.Case, s.Purpose, s.Made, s.Expires, s.Grant(), s.Org, s.ID)
	return b.String()
}

// Digest names the bytes of a statement.
func Digest(statement []byte) [32]byte { return sha256.Sum256(statement) }

// HexDigest is Digest as ledgers and files write it.
func HexDigest(statement []byte) string {
	sum := Digest(statement)
	return hex.EncodeToString(sum[:])
}

// Decision is what an officer says.
type Decision string

// The decisions.
const (
	Approve Decision = "approve"
	Refuse  Decision = "refuse"
)

// Signed is the decision of one officer about one statement.
type Signed struct {
	Decision  Decision `json:"decision"`
	Key       string   `json:"key"`       // id of the officer's card
	Signature string   `json:"signature"` // Ed25519, unpadded base64url
	V         int      `json:"v"`
}

// SigningInput is what is signed: words that say what for, and the exact statement.
func SigningInput(d Decision, statement []byte) []byte {
	return append([]byte("counterseal/approval/v1/"+string(d)+"\x00"), statement...)
}

// Sign makes the decision of the holder of a key.
func Sign(d Decision, statement []byte, key string, private ed25519.PrivateKey) (Signed, error) {
	if d != Approve && d != Refuse {
		return Signed{}, errors.New("a decision is approve or refuse")
	}
	if _, err := Parse(statement); err != nil {
		return Signed{}, err
	}
	sig := ed25519.Sign(private, SigningInput(d, statement))
	return Signed{Decision: d, Key: key, Signature: base64.RawURLEncoding.EncodeToString(sig), V: version}, nil
}

// ParseSigned reads a decision in canonical form.
func ParseSigned(b []byte) (Signed, error) {
	var s Signed
	if err := Decode(b, &s); err != nil {
		return Signed{}, fmt.Errorf("decision: %w", err)
	}
	return s, s.check()
}

func (s Signed) check() error {
	sig, err := base64.RawURLEncoding.Strict().DecodeString(s.Signature)
	if s.V != version || s.Decision != Approve && s.Decision != Refuse || err != nil || len(sig) != ed25519.SignatureSize || len(s.Key) != 64 {
		return errors.New("decision: not one of an officer")
	}
	return nil
}

// Verify reports whether the signature is that of a key over this decision and statement. It
// asks neither whose key it is nor what was decided.
func (s Signed) Verify(statement []byte, public ed25519.PublicKey) bool {
	sig, err := base64.RawURLEncoding.Strict().DecodeString(s.Signature)
	return err == nil && len(public) == ed25519.PublicKeySize && ed25519.Verify(public, SigningInput(s.Decision, statement), sig)
}

// Canonical gives the bytes of RFC 8785. v must hold no number beyond 2⁵³.
func Canonical(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	c := jsontext.Value(b)
	if err := c.Canonicalize(); err != nil {
		return nil, err
	}
	return c, nil
}

// Decode reads canonical JSON into v and refuses every other form: unknown, repeated
// and reordered members, spaces, trailing bytes. Its errors quote nothing.
func Decode(b []byte, v any) error { return DecodeUpTo(maxBytes, b, v) }

// DecodeUpTo is Decode with another bound.
func DecodeUpTo(limit int, b []byte, v any) error {
	if len(b) > limit {
		return fmt.Errorf("longer than %d bytes", limit)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return errors.New("not the JSON expected")
	}
	again, err := Canonical(v)
	if err != nil || !bytes.Equal(again, b) {
		return errors.New("not in canonical form")
	}
	return nil
}
