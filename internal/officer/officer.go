// Package officer is what two offices need to hold keys that the server never has:
// key pairs on their own machines, the roster that the server knows, and the steps of
// a ceremony. docs/formats/officer.md has the files.
//
// It promises: a private key is written only under a passphrase; the server's side
// (Roster) holds public halves only; investigation and oversight are different people
// appointed by different authorities; no layer of a seal is opened unless two officers
// of the roster approved the exact statement, it names the thing at hand, its time is
// not over, and it was recorded first.
//
// What a statement is and when it is approved is internal/approval's business; seals
// are internal/keyring's; what was sealed belongs to whoever sealed it.
package officer

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/keyring"
)

// Office is one of the two.
type Office string

// The offices. Oversight takes the outer layer of a seal off and never sees what is
// inside; investigation opens the inner one.
const (
	Investigation Office = "investigation"
	Oversight     Office = "oversight"
)

// ParseOffice reads the name of an office.
func ParseOffice(s string) (Office, error) {
	switch o := Office(s); o {
	case Investigation, Oversight:
		return o, nil
	}
	return "", errors.New("an office is investigation or oversight")
}

const (
	kindOfficer = "officer"
	cardVersion = 1
	maxCard     = 4096
	maxName     = 200
)

// Card is the public half of an officer.
type Card struct {
	Name   string
	Office Office
	Spare  bool
	Sign   ed25519.PublicKey
	Seal   keyring.PublicKey

	bytes []byte
	id    string
}

// cardForm is the stored form.
type cardForm struct {
	Name   string `json:"name"`
	Office string `json:"office"`
	Seal   string `json:"seal"`
	Sign   string `json:"sign"`
	Spare  bool   `json:"spare"`
	Suite  string `json:"suite"`
	V      int    `json:"v"`
}

// Bytes is the canonical form, without an end of line.
func (c *Card) Bytes() []byte { return bytes.Clone(c.bytes) }

// ID is the SHA-256 of Bytes in hex. People compare it over another way than the one
// by which the card came.
func (c *Card) ID() string { return c.id }

// ParseCard reads a card and refuses everything but its canonical form; one end of
// line at the end is let pass. Its errors quote nothing.
func ParseCard(b []byte) (*Card, error) {
	b = bytes.TrimSuffix(b, []byte("\n"))
	if len(b) > maxCard {
		return nil, fmt.Errorf("card of an officer: longer than %d bytes", maxCard)
	}
	var f cardForm
	if err := approval.Decode(b, &f); err != nil {
		return nil, fmt.Errorf("card of an officer: %w", err)
	}
	if f.V != cardVersion || f.Suite != keyring.SuiteSeal {
		return nil, errors.New("card of an officer: unknown version or suite")
	}
	c := &Card{Name: f.Name, Spare: f.Spare, bytes: bytes.Clone(b)}
	var err error
	if c.Office, err = ParseOffice(f.Office); err != nil {
		return nil, fmt.Errorf("card of an officer: %w", err)
	}
	if err := checkName(f.Name); err != nil {
		return nil, fmt.Errorf("card of an officer: name: %w", err)
	}
	sign, err := base64.RawURLEncoding.Strict().DecodeString(f.Sign)
	if err != nil || len(sign) != ed25519.PublicKeySize {
		return nil, errors.New("card of an officer: sign is not an Ed25519 key")
	}
	c.Sign = sign
	seal, err := base64.RawURLEncoding.Strict().DecodeString(f.Seal)
	if err != nil {
		return nil, errors.New("card of an officer: seal is not base64url")
	}
	if c.Seal, err = keyring.ParsePublicKey(seal); err != nil {
		return nil, fmt.Errorf("card of an officer: seal: %w", err)
	}
	digest := sha256.Sum256(c.bytes)
	c.id = hex.EncodeToString(digest[:])
	return c, nil
}

func checkName(s string) error {
	if s == "" || len(s) > maxName || !utf8.ValidString(s) || strings.Join(strings.Fields(s), " ") != s {
		return fmt.Errorf("1 to %d bytes of text with single spaces", maxName)
	}
	for _, r := range s {
		if !unicode.IsGraphic(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Co, r) || r == utf8.RuneError {
			return errors.New("a character that cannot be seen")
		}
	}
	return nil
}

// Key is an officer's key pair, on the officer's own machine. It is never printed.
type Key struct {
	card *Card
	sign ed25519.PrivateKey
	seal *keyring.PrivateKey
}

// keyForm is the secret inside an officer's file.
type keyForm struct {
	Seal string `json:"seal"` // seed of the sealing key
	Sign string `json:"sign"` // Ed25519 seed
	V    int    `json:"v"`
}

// New makes a key pair.
func New(name string, office Office, spare bool) (*Key, error) {
	seal, err := keyring.NewPrivateKey()
	if err != nil {
		return nil, err
	}
	_, sign, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making an officer's key: %w", err)
	}
	return newKey(name, office, spare, sign, seal)
}

func newKey(name string, office Office, spare bool, sign ed25519.PrivateKey, seal *keyring.PrivateKey) (*Key, error) {
	b, err := approval.Canonical(cardForm{
		Name: name, Office: string(office), Seal: b64(seal.Public().Bytes()), Sign: b64(sign.Public().(ed25519.PublicKey)),
		Spare: spare, Suite: keyring.SuiteSeal, V: cardVersion,
	})
	if err != nil {
		return nil, fmt.Errorf("making an officer's card: %w", err)
	}
	card, err := ParseCard(b)
	if err != nil {
		return nil, err
	}
	return &Key{card: card, sign: sign, seal: seal}, nil
}

// Card is the public half.
func (k *Key) Card() *Card { return k.card }

// File is the key pair under a passphrase, with the card readable in it.
func (k *Key) File(passphrase []byte) ([]byte, error) {
	seal, err := k.seal.Bytes()
	if err != nil {
		return nil, fmt.Errorf("writing an officer's key: %w", err)
	}
	defer clear(seal)
	secret, err := approval.Canonical(keyForm{Seal: b64(seal), Sign: b64(k.sign.Seed()), V: cardVersion})
	if err != nil {
		return nil, fmt.Errorf("writing an officer's key: %w", err)
	}
	defer clear(secret)
	return keyring.SealFile(kindOfficer, k.card.bytes, passphrase, secret)
}

// CardOf reads the card in an officer's file, or a card by itself. It needs no
// passphrase.
func CardOf(b []byte) (*Card, error) {
	if f, err := keyring.ParseSealed(b); err == nil && f.Kind == kindOfficer {
		return ParseCard(f.Public)
	}
	return ParseCard(b)
}

// OpenKey opens an officer's file. Its error wraps keyring.ErrPassphrase where the
// passphrase is wrong.
func OpenKey(b, passphrase []byte) (*Key, error) {
	f, err := keyring.ParseSealed(b)
	if err != nil {
		return nil, fmt.Errorf("an officer's key: %w", err)
	}
	card, err := ParseCard(f.Public)
	if err != nil {
		return nil, fmt.Errorf("an officer's key: %w", err)
	}
	secret, err := f.Open(kindOfficer, passphrase)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	bad := errors.New("an officer's key: not readable inside its seal")
	var form keyForm
	if approval.Decode(secret, &form) != nil || form.V != cardVersion {
		return nil, bad
	}
	seed, serr := base64.RawURLEncoding.Strict().DecodeString(form.Sign)
	raw, rerr := base64.RawURLEncoding.Strict().DecodeString(form.Seal)
	defer clear(seed)
	defer clear(raw)
	if serr != nil || rerr != nil || len(seed) != ed25519.SeedSize {
		return nil, bad
	}
	seal, err := keyring.ParsePrivateKey(raw)
	if err != nil {
		return nil, bad
	}
	k, err := newKey(card.Name, card.Office, card.Spare, ed25519.NewKeyFromSeed(seed), seal)
	if err != nil {
		return nil, err
	}
	if k.card.id != card.id {
		return nil, errors.New("an officer's key: it is not the one of its card")
	}
	return k, nil
}

// Sign signs a decision about a statement. Whoever calls it has shown the statement
// in words.
func (k *Key) Sign(d approval.Decision, statement []byte) (approval.Signed, error) {
	return approval.Sign(d, statement, k.card.id, k.sign)
}

// Format prints the id only, whatever verb is used.
func (k *Key) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "officer %s", k.card.id) }

// LogValue is what slog prints.
func (k *Key) LogValue() slog.Value { return slog.StringValue("officer " + k.card.id) }

// MarshalJSON refuses: a key is in no document.
func (k *Key) MarshalJSON() ([]byte, error) {
	return nil, errors.New("an officer's key is never written into a document")
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
