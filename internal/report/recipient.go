package report

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/keyring"
)

const (
	kindRecipient = "recipient"
	cardVersion   = 1
	maxCard       = 4096
	maxName       = 200
)

// Recipient is the public half of somebody to whom packages are sealed: a court, a
// prosecutor, an inspector general. The card of an officer does not fit, since an
// officer is of one of two offices and recipients are of none.
type Recipient struct {
	Name string
	Seal keyring.PublicKey

	bytes []byte
	id    string
}

// recipientForm is the stored form of a card.
type recipientForm struct {
	Name  string `json:"name"`
	Seal  string `json:"seal"`
	Suite string `json:"suite"`
	V     int    `json:"v"`
}

// Bytes is the canonical form, without an end of line.
func (r *Recipient) Bytes() []byte { return bytes.Clone(r.bytes) }

// ID is the SHA-256 of Bytes in hex. People compare it over another way than the one
// by which the card came.
func (r *Recipient) ID() string { return r.id }

// ParseRecipient reads the card of a recipient, or the one in a key file. One end of
// line at the end is let pass. Its errors quote nothing.
func ParseRecipient(b []byte) (*Recipient, error) {
	if f, err := keyring.ParseSealed(b); err == nil && f.Kind == kindRecipient {
		b = f.Public
	}
	b = bytes.TrimSuffix(b, []byte("\n"))
	var f recipientForm
	if err := decode(b, maxCard, &f); err != nil {
		return nil, fmt.Errorf("card of a recipient: %w", err)
	}
	if f.V != cardVersion || f.Suite != keyring.SuiteSeal {
		return nil, errors.New("card of a recipient: unknown version or suite")
	}
	if err := checkText(f.Name, maxName); err != nil {
		return nil, fmt.Errorf("card of a recipient: name: %w", err)
	}
	seal, err := base64.RawURLEncoding.Strict().DecodeString(f.Seal)
	if err != nil {
		return nil, errors.New("card of a recipient: seal is not base64url")
	}
	r := &Recipient{Name: f.Name, bytes: bytes.Clone(b)}
	if r.Seal, err = keyring.ParsePublicKey(seal); err != nil {
		return nil, fmt.Errorf("card of a recipient: seal: %w", err)
	}
	sum := sha256.Sum256(r.bytes)
	r.id = hex.EncodeToString(sum[:])
	return r, nil
}

// RecipientKey is the key pair of a recipient, on the recipient's own machine. It is
// never printed.
type RecipientKey struct {
	card *Recipient
	seal *keyring.PrivateKey
}

// NewRecipientKey makes a pair.
func NewRecipientKey(name string) (*RecipientKey, error) {
	seal, err := keyring.NewPrivateKey()
	if err != nil {
		return nil, err
	}
	return recipientKey(name, seal)
}

func recipientKey(name string, seal *keyring.PrivateKey) (*RecipientKey, error) {
	if err := checkText(name, maxName); err != nil {
		return nil, fmt.Errorf("name of a recipient: %w", err)
	}
	b, err := approval.Canonical(recipientForm{Name: name, Seal: b64(seal.Public().Bytes()), Suite: keyring.SuiteSeal, V: cardVersion})
	if err != nil {
		return nil, fmt.Errorf("card of a recipient: %w", err)
	}
	card, err := ParseRecipient(b)
	if err != nil {
		return nil, err
	}
	return &RecipientKey{card: card, seal: seal}, nil
}

// Card is the public half.
func (k *RecipientKey) Card() *Recipient { return k.card }

// File is the pair under a passphrase, the card readable in it.
func (k *RecipientKey) File(passphrase []byte) ([]byte, error) {
	secret, err := k.seal.Bytes()
	if err != nil {
		return nil, fmt.Errorf("writing the key of a recipient: %w", err)
	}
	defer clear(secret)
	return keyring.SealFile(kindRecipient, k.card.bytes, passphrase, secret)
}

// OpenRecipientKey opens a key file. Its error wraps keyring.ErrPassphrase where the
// passphrase is wrong.
func OpenRecipientKey(b, passphrase []byte) (*RecipientKey, error) {
	f, err := keyring.ParseSealed(b)
	if err != nil {
		return nil, fmt.Errorf("the key of a recipient: %w", err)
	}
	card, err := ParseRecipient(f.Public)
	if err != nil {
		return nil, fmt.Errorf("the key of a recipient: %w", err)
	}
	secret, err := f.Open(kindRecipient, passphrase)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	seal, err := keyring.ParsePrivateKey(secret)
	if err != nil {
		return nil, errors.New("the key of a recipient: not readable inside its seal")
	}
	k, err := recipientKey(card.Name, seal)
	if err != nil {
		return nil, err
	}
	if k.card.id != card.id {
		return nil, errors.New("the key of a recipient: it is not the one of its card")
	}
	return k, nil
}

// Format prints the id only, whatever verb is used.
func (k *RecipientKey) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "recipient %s", k.card.id) }

// LogValue is what slog prints.
func (k *RecipientKey) LogValue() slog.Value { return slog.StringValue("recipient " + k.card.id) }

// MarshalJSON refuses: a key is in no document.
func (k *RecipientKey) MarshalJSON() ([]byte, error) {
	return nil, errors.New("the key of a recipient is never written into a document")
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
