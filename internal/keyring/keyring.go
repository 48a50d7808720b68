// Package keyring holds the keys of the server at rest: one master secret in
// keys/keyring, and a key for each purpose derived from it.
//
// It promises that no key is ever printed, that purposes cannot be exchanged for
// one another, and that a box opens only with the purpose and the additional data
// that it was made with. Until a passphrase or a hardware key protects the file,
// whoever reads the data directory has every key in it: THREAT_MODEL.md says so.
//
// Keys of officers are not here, nor the cards of segments (docs/formats/keycard.md),
// which are boxes made by this package.
package keyring

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/durable"
)

// ErrWrongKey is wrapped by Unwrap when a box was not made by this keyring for
// this purpose and this additional data, or was changed.
var ErrWrongKey = errors.New("the box does not open with this keyring, purpose and binding")

const (
	secretLen  = 32
	boxVersion = 1
)

// Keyring derives and uses keys. It is safe for concurrent use.
type Keyring struct {
	id     uuid.UUID
	master [secretLen]byte

	mu    sync.Mutex // guards boxes
	boxes map[string]cipher.AEAD
}

// file is the stored form, docs/formats/keycard.md.
type file struct {
	V      int    `json:"v"`
	ID     string `json:"id"`
	Master string `json:"master"`
}

// Open reads keys/keyring under the data directory, and makes it on the first
// call; it refuses to make one where segments already have key cards. The caller holds the lock of the data directory.
func Open(dataDir string) (*Keyring, error) {
	dir := filepath.Join(dataDir, "keys")
	path := filepath.Join(dir, "keyring")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return create(dir, path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the keyring: %w", err)
	}
	defer clear(b)
	if st, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("reading the keyring: %w", err)
	} else if runtime.GOOS != "windows" && st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the keyring %s can be read by others: run chmod 600 on it, and treat its keys as known", path)
	}
	return parse(path, b)
}

func parse(path string, b []byte) (*Keyring, error) {
	// The causes of the decoders are left out: they could quote the file.
	var f file
	if len(b) > 4096 || json.Unmarshal(b, &f) != nil {
		return nil, fmt.Errorf("the keyring %s is not readable: restore it from the backup of the keys", path)
	}
	if f.V != 1 {
		return nil, fmt.Errorf("the keyring %s has format %d and this program knows 1", path, f.V)
	}
	k := &Keyring{boxes: map[string]cipher.AEAD{}}
	id, err := uuid.Parse(f.ID)
	master, merr := base64.RawURLEncoding.DecodeString(f.Master)
	defer clear(master)
	if err != nil || merr != nil || len(master) != secretLen {
		return nil, fmt.Errorf("the keyring %s is not readable: restore it from the backup of the keys", path)
	}
	k.id = id
	copy(k.master[:], master)
	return k, nil
}

// CreateFrom makes the keyring of a demonstration from a secret that is not one:
// whoever knows the seed has the keys. The data directory must have no keyring yet.
func CreateFrom(dataDir string, secret [secretLen]byte) error {
	dir := filepath.Join(dataDir, "keys")
	var d durable.FS
	if err := d.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the keyring: %w", err)
	}
	id, err := uuid.FromBytes(secret[:16])
	if err != nil {
		return fmt.Errorf("making the keyring: %w", err)
	}
	return write(filepath.Join(dir, "keyring"), id, secret[:])
}

func create(dir, path string) (*Keyring, error) {
	// A new keyring beside old cards would open none of them and make other tokens.
	if cards, err := os.ReadDir(filepath.Join(dir, "segments")); len(cards) > 0 {
		return nil, fmt.Errorf("the keyring %s is gone and evidence needs it: restore it from the backup of the keys", path)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("making the keyring: %w", err)
	}
	d := durable.FS{}
	if err := d.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the keyring: %w", err)
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return nil, fmt.Errorf("making the keyring: %w", err)
	}
	k := &Keyring{id: id, boxes: map[string]cipher.AEAD{}}
	rand.Read(k.master[:]) // never fails: crypto/rand ends the process instead
	if err := write(path, id, k.master[:]); err != nil {
		return nil, err
	}
	return k, nil
}

func write(path string, id uuid.UUID, master []byte) error {
	b, err := json.Marshal(file{V: 1, ID: id.String(), Master: base64.RawURLEncoding.EncodeToString(master)})
	if err != nil {
		return fmt.Errorf("making the keyring: %w", err)
	}
	defer clear(b)
	var d durable.FS
	if err := d.WriteNew(path, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("making the keyring: %w", err)
	}
	return nil
}

// ID names the keyring, so that a box can say which one it needs. It is no secret.
func (k *Keyring) ID() uuid.UUID { return k.id }

func (k *Keyring) derive(use, purpose string) []byte {
	if purpose == "" {
		panic("keyring: a key without a purpose")
	}
	key, err := hkdf.Key(sha256.New, k.master[:], k.id[:], "counterseal/keyring/v1/"+use+"/"+purpose, 32)
	if err != nil {
		panic("keyring: " + err.Error()) // only for impossible lengths
	}
	return key
}

func (k *Keyring) box(purpose string) cipher.AEAD {
	k.mu.Lock()
	defer k.mu.Unlock()
	if a := k.boxes[purpose]; a != nil {
		return a
	}
	key := k.derive("wrap", purpose)
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("keyring: " + err.Error())
	}
	a, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic("keyring: " + err.Error())
	}
	k.boxes[purpose] = a
	return a
}

// Wrap seals plaintext under the key of a purpose, bound to aad.
func (k *Keyring) Wrap(purpose string, plaintext, aad []byte) []byte {
	return k.box(purpose).Seal([]byte{boxVersion}, nil, plaintext, aad)
}

// Unwrap opens a box of Wrap. Its error wraps ErrWrongKey.
func (k *Keyring) Unwrap(purpose string, box, aad []byte) ([]byte, error) {
	if len(box) == 0 || box[0] != boxVersion {
		return nil, fmt.Errorf("opening a box for %s: unknown version: %w", purpose, ErrWrongKey)
	}
	pt, err := k.box(purpose).Open(nil, nil, box[1:], aad)
	if err != nil {
		return nil, fmt.Errorf("opening a box for %s: %w", purpose, ErrWrongKey)
	}
	return pt, nil
}

// MACKey is the 32-byte HMAC-SHA256 key of a purpose, for a caller that makes
// many codes and keeps its own state. Whoever calls it must not store or print it.
func (k *Keyring) MACKey(purpose string) []byte { return k.derive("mac", purpose) }

// MAC is HMAC-SHA256 of msg under MACKey(purpose).
func (k *Keyring) MAC(purpose string, msg []byte) []byte {
	key := k.MACKey(purpose)
	defer clear(key)
	m := hmac.New(sha256.New, key)
	m.Write(msg)
	return m.Sum(nil)
}

// Format prints the id only, whatever verb is used.
func (k *Keyring) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "keyring %s", k.id) }

// LogValue is what slog prints.
func (k *Keyring) LogValue() slog.Value { return slog.StringValue("keyring " + k.id.String()) }

// MarshalJSON refuses: a keyring is in no document.
func (k *Keyring) MarshalJSON() ([]byte, error) {
	return nil, errors.New("a keyring is never written into a document")
}
