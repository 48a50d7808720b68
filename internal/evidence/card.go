package evidence

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/keyring"
)

// card is the stored form of a segment key, docs/formats/keycard.md, its members
// in the order of RFC 8785.
type card struct {
	Box     string `json:"box"`
	Keyring string `json:"keyring"`
	Segment string `json:"segment"`
	Stream  string `json:"stream"`
	V       int    `json:"v"`
}

const cardContext = "counterseal/card/v1\x00"

// segmentKey is what a segment's blocks are sealed and salted with.
type segmentKey struct {
	aead cipher.AEAD
	salt []byte
}

// forget lets go of a key that nobody needs again. Go does not promise that no copy
// of it stays in memory.
func (k *segmentKey) forget() {
	clear(k.salt)
	k.aead, k.salt = nil, nil
}

func sum(b []byte) hash { return sha256.Sum256(b) }

func cardDir(dataDir string) string { return filepath.Join(dataDir, "keys", "segments") }

func cardPath(dataDir string, id uuid.UUID) string {
	return filepath.Join(cardDir(dataDir), id.String()+".card")
}

func newSecret() []byte {
	k := make([]byte, 32)
	rand.Read(k)
	return k
}

// cardCommit is what the header says about the key: it fixes the key without
// giving it away.
func cardCommit(id uuid.UUID, secret []byte) hash {
	b := append([]byte(cardContext), id[:]...)
	b = append(b, secret...)
	defer clear(b)
	return sum(b)
}

func cardBinding(id uuid.UUID, headHash hash) []byte {
	b := append([]byte(cardContext), id[:]...)
	return append(b, headHash[:]...)
}

func cardPurpose(s Stream) string { return "segment/" + s.String() }

// writeCard makes the key card of a segment durable.
func writeCard(d durable.FS, keys keyring.Holder, dataDir string, s Stream, id uuid.UUID, headHash hash, secret []byte) error {
	box, err := keys.Wrap(cardPurpose(s), secret, cardBinding(id, headHash))
	if err != nil {
		return err
	}
	js, err := marshalLine(card{Box: base64.RawURLEncoding.EncodeToString(box), Keyring: keys.ID().String(), Segment: id.String(), Stream: s.String(), V: 1})
	if err != nil {
		return err
	}
	if err := d.MkdirAll(filepath.Join(dataDir, "keys", "segments"), 0o700); err != nil {
		return err
	}
	return d.WriteNew(cardPath(dataDir, id), js, 0o600)
}

// readKey opens the key card of a segment.
func readKey(keys keyring.Holder, dataDir string, hd *head) (*segmentKey, error) {
	b, err := os.ReadFile(cardPath(dataDir, hd.id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("segment %s: %w", hd.id, ErrNoKey)
	}
	if err != nil {
		return nil, fmt.Errorf("key card of segment %s: %w", hd.id, err)
	}
	if hd.Escrow == escrowOfficers {
		return nil, fmt.Errorf("segment %s: %w", hd.id, ErrSealed)
	}
	var c card
	if err := parseCard(b, &c); err != nil {
		return nil, fmt.Errorf("key card of segment %s: %w", hd.id, err)
	}
	if c.Segment != hd.Segment || c.Stream != hd.Stream {
		return nil, fmt.Errorf("key card of segment %s belongs to another segment", hd.id)
	}
	if c.Keyring != keys.ID().String() {
		return nil, fmt.Errorf("key card of segment %s was made by keyring %s, this one is %s", hd.id, c.Keyring, keys.ID())
	}
	box, err := base64.RawURLEncoding.DecodeString(c.Box)
	if err != nil {
		return nil, fmt.Errorf("key card of segment %s: the box is not base64url", hd.id)
	}
	secret, err := keys.Unwrap(cardPurpose(hd.stream), box, cardBinding(hd.id, hd.hash))
	if err != nil {
		return nil, fmt.Errorf("key card of segment %s: %w", hd.id, err)
	}
	defer clear(secret)
	if cardCommit(hd.id, secret).String() != hd.CardCommit {
		return nil, fmt.Errorf("key card of segment %s: not the key that the header names", hd.id)
	}
	return deriveKey(hd.id, secret), nil
}

func deriveKey(id uuid.UUID, secret []byte) *segmentKey {
	derive := func(info string) []byte {
		k, err := hkdf.Key(sha256.New, secret, id[:], info, 32)
		if err != nil {
			panic("evidence: " + err.Error()) // only for impossible lengths
		}
		return k
	}
	data := derive("counterseal/segment/v1/data")
	defer clear(data)
	block, err := aes.NewCipher(data)
	if err != nil {
		panic("evidence: " + err.Error())
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic("evidence: " + err.Error())
	}
	return &segmentKey{aead: aead, salt: derive("counterseal/segment/v1/salt")}
}

var errCard = errors.New("not a key card")

// marshalLine is canonical for what has only ASCII members without escapes.
func marshalLine(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	return append(b, '\n'), err
}

// parseCard reads a card. Its errors quote nothing.
func parseCard(b []byte, c *card) error {
	if len(b) == 0 || len(b) > 4096 || b[len(b)-1] != '\n' || strictJSON(b[:len(b)-1], c) != nil || c.V != 1 {
		return errCard
	}
	return nil
}

// checkCard tells, without a key, whether a card could hold the key of a segment.
func checkCard(dataDir string, hd *head) error {
	b, err := os.ReadFile(cardPath(dataDir, hd.id))
	if errors.Is(err, fs.ErrNotExist) { // destroyed meanwhile
		return nil
	}
	if err != nil {
		return err
	}
	if hd.Escrow == escrowOfficers {
		_, err := ReadSealedKey(dataDir, hd.id)
		return err
	}
	var c card
	if err := parseCard(b, &c); err != nil {
		return err
	}
	box, err := base64.RawURLEncoding.DecodeString(c.Box)
	switch {
	case c.Segment != hd.Segment || c.Stream != hd.Stream:
		return errors.New("it belongs to another segment")
	case err != nil || len(box) < 32+nonceLen+tagLen:
		return errors.New("it holds no key")
	}
	return nil
}
