package keyring

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/google/uuid"
)

// ErrNotForKey is wrapped when a seal does not open: another key, another layer,
// another purpose or subject, or changed bytes. Which of these it was cannot be told.
var ErrNotForKey = errors.New("the seal does not open with this key for this purpose")

// SuiteSeal names how seals are made. Each seal also carries the numbers of it.
const SuiteSeal = "HPKE(MLKEM768-P256,HKDF-SHA256,export-only)+AES-256-GCM"

// Roles of a layer. They are bound into it, so layers cannot be exchanged.
const (
	RoleInner = "inner" // investigation: opens last, alone sees what was sealed
	RoleOuter = "outer" // oversight: opens first, never sees it
	RoleOnly  = "only"  // a seal of one layer
)

const (
	sealVersion  = 1
	sealHeadLen  = 1 + 2 + 2
	sealEncLen   = 1153
	sealPublic   = 1249
	sealPrivate  = 32
	exportLabel  = "counterseal/seal/v1/key"
	maxSealPlain = 1 << 20
)

// SealOverhead is by how many bytes a seal of one layer is longer than what it holds.
const SealOverhead = sealHeadLen + sealEncLen + 12 + 16

// PublicKeyLen is the length of PublicKey.Bytes.
const PublicKeyLen = sealPublic

// SealInfo is what a seal is bound to. Seal and Open add the role of the layer and
// the id of the key. Its texts are 1 to 200 of a-z A-Z 0-9 and " ._:/@+-".
type SealInfo struct {
	Purpose string    // such as segment/originals
	Org     uuid.UUID // of the data directory
	Epoch   int       // of the officers, from 1
	Subject string    // what the sealed thing belongs to, such as a segment
}

// sealBinding is SealInfo as it is bound, its members in the order of RFC 8785.
type sealBinding struct {
	Epoch   int    `json:"epoch"`
	Key     string `json:"key"`
	Org     string `json:"org"`
	Purpose string `json:"purpose"`
	Role    string `json:"role"`
	Subject string `json:"subject"`
	V       int    `json:"v"`
}

func (i SealInfo) bind(role string, key KeyID) ([]byte, error) {
	for _, s := range []string{i.Purpose, i.Subject, role} {
		if !plain(s) {
			return nil, errors.New("sealing: purpose and subject are 1 to 200 plain characters")
		}
	}
	if i.Epoch < 1 {
		return nil, errors.New("sealing: an epoch begins at 1")
	}
	return json.Marshal(sealBinding{Epoch: i.Epoch, Key: key.String(), Org: i.Org.String(), Purpose: i.Purpose, Role: role, Subject: i.Subject, V: sealVersion})
}

// plain texts are the same in every JSON encoder.
func plain(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == ' ', c == '.', c == '_', c == ':', c == '/', c == '@', c == '+', c == '-':
		default:
			return false
		}
	}
	return len(s) > 0 && len(s) <= 200
}

// KeyID is the SHA-256 of a public key.
type KeyID [32]byte

func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// PublicKey seals to somebody.
type PublicKey struct {
	k  hpke.PublicKey
	id KeyID
}

// ParsePublicKey reads what Bytes gave.
func ParsePublicKey(b []byte) (PublicKey, error) {
	if len(b) != sealPublic {
		return PublicKey{}, fmt.Errorf("a sealing key has %d bytes", sealPublic)
	}
	k, err := hpke.MLKEM768P256().NewPublicKey(b)
	if err != nil {
		return PublicKey{}, errors.New("not a sealing key")
	}
	return PublicKey{k: k, id: sha256.Sum256(b)}, nil
}

// Bytes is the stored form.
func (p PublicKey) Bytes() []byte {
	if p.k == nil {
		return nil
	}
	return p.k.Bytes()
}

// ID names the key. It is zero for the zero PublicKey.
func (p PublicKey) ID() KeyID { return p.id }

// PrivateKey opens seals. It is never printed.
type PrivateKey struct {
	k   hpke.PrivateKey
	pub PublicKey
}

// NewPrivateKey makes a key pair.
func NewPrivateKey() (*PrivateKey, error) {
	k, err := hpke.MLKEM768P256().GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("making a sealing key: %w", err)
	}
	return private(k), nil
}

// ParsePrivateKey reads what Bytes gave.
func ParsePrivateKey(b []byte) (*PrivateKey, error) {
	if len(b) != sealPrivate {
		return nil, errors.New("not a private sealing key")
	}
	k, err := hpke.MLKEM768P256().NewPrivateKey(b)
	if err != nil {
		return nil, errors.New("not a private sealing key")
	}
	return private(k), nil
}

func private(k hpke.PrivateKey) *PrivateKey {
	b := k.PublicKey().Bytes()
	return &PrivateKey{k: k, pub: PublicKey{k: k.PublicKey(), id: sha256.Sum256(b)}}
}

// Bytes is the secret form, for a sealed file only.
func (p *PrivateKey) Bytes() ([]byte, error) { return p.k.Bytes() }

// Public is the half that others may have.
func (p *PrivateKey) Public() PublicKey { return p.pub }

// Format prints the id only, whatever verb is used.
func (p *PrivateKey) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "private key %s", p.pub.id) }

// LogValue is what slog prints.
func (p *PrivateKey) LogValue() slog.Value {
	return slog.StringValue("private key " + p.pub.id.String())
}

// MarshalJSON refuses: a private key is in no document.
func (p *PrivateKey) MarshalJSON() ([]byte, error) {
	return nil, errors.New("a private key is never written into a document")
}

// SealTo seals plaintext so that only the holder of the key opens it, for the same
// info and role. Everybody who has the public key can make a seal: it says nothing
// about who made it.
func SealTo(pub PublicKey, info SealInfo, role string, plaintext []byte) ([]byte, error) {
	if pub.k == nil || len(plaintext) > maxSealPlain {
		return nil, errors.New("sealing: no key, or more than 1 MiB")
	}
	bound, err := info.bind(role, pub.id)
	if err != nil {
		return nil, err
	}
	kem, kdf := pub.k.KEM(), hpke.HKDFSHA256()
	enc, s, err := hpke.NewSender(pub.k, kdf, hpke.ExportOnly(), bound)
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	aead, err := exported(s)
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	box := make([]byte, 0, sealHeadLen+len(enc)+12+len(plaintext)+16)
	box = append(box, sealVersion)
	box = binary.BigEndian.AppendUint16(box, kem.ID())
	box = binary.BigEndian.AppendUint16(box, kdf.ID())
	box = append(box, enc...)
	return aead.Seal(box, nil, plaintext, bound), nil
}

// OpenWith opens a seal of SealTo. Its error wraps ErrNotForKey.
func OpenWith(priv *PrivateKey, info SealInfo, role string, box []byte) ([]byte, error) {
	bound, err := info.bind(role, priv.pub.id)
	if err != nil {
		return nil, err
	}
	if len(box) < sealHeadLen+sealEncLen || box[0] != sealVersion ||
		binary.BigEndian.Uint16(box[1:]) != hpke.MLKEM768P256().ID() || binary.BigEndian.Uint16(box[3:]) != hpke.HKDFSHA256().ID() {
		return nil, fmt.Errorf("opening a seal: unknown suite or cut short: %w", ErrNotForKey)
	}
	enc, rest := box[sealHeadLen:sealHeadLen+sealEncLen], box[sealHeadLen+sealEncLen:]
	// A wrong key gives no error here: ML-KEM rejects in silence, and an export-only
	// context has nothing to check. The tag of the GCM decides.
	r, err := hpke.NewRecipient(enc, priv.k, hpke.HKDFSHA256(), hpke.ExportOnly(), bound)
	if err != nil {
		return nil, fmt.Errorf("opening a seal: %w", ErrNotForKey)
	}
	aead, err := exported(r)
	if err != nil {
		return nil, fmt.Errorf("opening a seal: %w", err)
	}
	pt, err := aead.Open(nil, nil, rest, bound)
	if err != nil {
		return nil, fmt.Errorf("opening a seal: %w", ErrNotForKey)
	}
	return pt, nil
}

// exported makes the cipher of one seal.
func exported(s interface {
	Export(context string, length int) ([]byte, error)
}) (cipher.AEAD, error) {
	key, err := s.Export(exportLabel, 32)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// Pair are the two offices of one seal.
type Pair struct {
	Investigation, Oversight PublicKey
}

// Seal is two layers: the inner one to investigation, the outer one to oversight.
func (p Pair) Seal(info SealInfo, secret []byte) ([]byte, error) {
	if p.Investigation.id == p.Oversight.id {
		return nil, errors.New("sealing: both offices have one key")
	}
	inner, err := SealTo(p.Investigation, info, RoleInner, secret)
	if err != nil {
		return nil, err
	}
	return SealTo(p.Oversight, info, RoleOuter, inner)
}

// OpenOuter takes the layer of oversight off. What it gives is still sealed.
func OpenOuter(oversight *PrivateKey, info SealInfo, box []byte) ([]byte, error) {
	return OpenWith(oversight, info, RoleOuter, box)
}

// OpenInner opens what OpenOuter gave.
func OpenInner(investigation *PrivateKey, info SealInfo, inner []byte) ([]byte, error) {
	return OpenWith(investigation, info, RoleInner, inner)
}

// Escrow are the officers to whom keys are sealed so that the server cannot open
// them again: a pair, a spare pair that can do the same without it, and where there is
// one, a pair of an inspector's office, which opens without the organisation, and one of a
// duty host, which opens names and nothing else.
type Escrow struct {
	Epoch       int // of the officers, from 1
	Main, Spare Pair
	Inspector   Pair // zero: there is none
	Duty        Pair // zero: there is none; for SealName alone
}

// known reports whether a pair has a key.
func (p Pair) known() bool { return p.Investigation.k != nil || p.Oversight.k != nil }

// Inspected reports whether an inspector's office has a pair.
func (e *Escrow) Inspected() bool { return e.Inspector.known() }

// pairs are those who open a seal, each without the others.
func (e *Escrow) pairs() []Pair {
	out := []Pair{e.Main, e.Spare}
	if e.Inspected() {
		out = append(out, e.Inspector)
	}
	return out
}

// named are those who open a sealed name.
func (e *Escrow) named() []Pair {
	out := e.pairs()
	if e.Duty.known() {
		out = append(out, e.Duty)
	}
	return out
}

// Sealed is one box of an escrow and who opens it.
type Sealed struct {
	Box       []byte
	Epoch     int
	Inner     KeyID // investigation
	Outer     KeyID // oversight
	SuiteName string
}

// Check refuses an escrow in which two of the keys are one.
func (e *Escrow) Check() error {
	if e.Epoch < 1 {
		return errors.New("escrow: an epoch begins at 1")
	}
	seen := map[KeyID]bool{}
	for _, p := range e.named() {
		for _, k := range []PublicKey{p.Investigation, p.Oversight} {
			if k.k == nil {
				return errors.New("escrow: investigation, oversight and a spare of each are needed, and two keys of an inspector's office and of a duty host, or none")
			}
			if seen[k.id] {
				return errors.New("escrow: two officers have one key")
			}
			seen[k.id] = true
		}
	}
	return nil
}

// Seal gives two boxes of the secret, the second one for the spare pair, and a third one
// where an inspector's office has a pair. The epoch of info is set here.
func (e *Escrow) Seal(info SealInfo, secret []byte) ([]Sealed, error) {
	return e.seal(e.pairs(), info, secret)
}

// SealName is Seal for a name: where there is a duty host, its pair has the last box.
func (e *Escrow) SealName(info SealInfo, secret []byte) ([]Sealed, error) {
	return e.seal(e.named(), info, secret)
}

func (e *Escrow) seal(to []Pair, info SealInfo, secret []byte) ([]Sealed, error) {
	if err := e.Check(); err != nil {
		return nil, err
	}
	info.Epoch = e.Epoch
	var out []Sealed
	for _, p := range to {
		box, err := p.Seal(info, secret)
		if err != nil {
			return nil, err
		}
		out = append(out, Sealed{Box: box, Epoch: e.Epoch, Inner: p.Investigation.id, Outer: p.Oversight.id, SuiteName: SuiteSeal})
	}
	return out, nil
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
