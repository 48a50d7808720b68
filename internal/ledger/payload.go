package ledger

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// MaxPayload bounds one payload.
const MaxPayload = 16 << 20

const saltLen = 32

// DigestAlg names how a Digest is made.
const DigestAlg = "sha256-salted"

// Digest stands in the detail of a statement for a payload: SHA-256 over 32 random
// bytes and the payload. Without the salt it confirms no guess; when payload and
// salt are dropped, the leaf stays valid and says nothing.
type Digest struct {
	Alg string `json:"alg"`
	H   string `json:"h"` // lower-case hex
}

// ErrNoPayload is wrapped where a payload is not there, or was dropped.
var ErrNoPayload = errors.New("the payload is not kept")

func (d Digest) file() (string, error) {
	b, err := hex.DecodeString(d.H)
	if d.Alg != DigestAlg || err != nil || len(b) != sha256.Size || hex.EncodeToString(b) != d.H {
		return "", fmt.Errorf("%w: this is no digest of a payload", ErrNoPayload)
	}
	return d.H, nil
}

// PutPayload keeps a payload and returns the digest for the statement that is
// about it. It is durable before PutPayload returns. A payload whose statement was
// never added means nothing.
func (l *Ledger) PutPayload(payload []byte) (Digest, error) {
	if len(payload) > MaxPayload {
		return Digest{}, fmt.Errorf("a payload of %d bytes, more than %d", len(payload), MaxPayload)
	}
	dir := filepath.Join(l.o.Dir, payloadDir)
	if err := l.o.FS.MkdirAll(dir, 0o700); err != nil {
		return Digest{}, fmt.Errorf("keeping a payload: %w", err)
	}
	b := make([]byte, saltLen, saltLen+len(payload))
	rand.Read(b) // never fails
	b = append(b, payload...)
	sum := sha256.Sum256(b)
	d := Digest{Alg: DigestAlg, H: hex.EncodeToString(sum[:])}
	if err := l.o.FS.WriteNew(filepath.Join(dir, d.H), b, 0o600); err != nil {
		return Digest{}, fmt.Errorf("keeping a payload: %w", err)
	}
	return d, nil
}

// Payload reads a payload and checks it against its digest.
func (l *Ledger) Payload(d Digest) ([]byte, error) { return ReadPayload(l.o.Dir, d) }

// ReadPayload reads a payload from the directory of a ledger that need not be open.
func ReadPayload(dir string, d Digest) ([]byte, error) {
	b, err := readSalted(dir, d)
	if err != nil {
		return nil, err
	}
	return b[saltLen:], nil
}

// SaltedPayload reads a payload with the salt before it, for somebody who is to check it
// against its statement: Digest.Open.
func (l *Ledger) SaltedPayload(d Digest) ([]byte, error) { return readSalted(l.o.Dir, d) }

// Open gives the payload of a SaltedPayload, if it is the one of the digest.
func (d Digest) Open(salted []byte) ([]byte, error) {
	name, err := d.file()
	if err != nil {
		return nil, err
	}
	if !payloadHolds(name, salted) {
		return nil, errors.New("the payload is another one than that of its statement")
	}
	return salted[saltLen:], nil
}

func readSalted(dir string, d Digest) ([]byte, error) {
	name, err := d.file()
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(dir, payloadDir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoPayload
	}
	if err != nil {
		return nil, fmt.Errorf("reading a payload: %w", err)
	}
	if !payloadHolds(name, b) {
		return nil, fmt.Errorf("payload %s was changed", name)
	}
	return b, nil
}

// DropPayload destroys payload and salt. The statement stays. Dropping twice is no
// error.
func (l *Ledger) DropPayload(d Digest) error {
	name, err := d.file()
	if err != nil {
		return err
	}
	err = l.o.FS.Remove(filepath.Join(l.o.Dir, payloadDir, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("dropping a payload: %w", err)
	}
	return nil
}

func payloadHolds(name string, b []byte) bool {
	want, err := hex.DecodeString(name)
	sum := sha256.Sum256(b)
	return err == nil && len(b) >= saltLen && bytes.Equal(sum[:], want)
}
