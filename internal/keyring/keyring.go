// Package keyring holds the keys of the server at rest: a master secret for each
// epoch in keys/keyring, and a key for each purpose derived from it. It also makes
// and opens the two things that lie outside of it: seals to people (HPKE, two layers
// for two offices) and files under a passphrase. docs/formats/keycard.md has the bytes.
//
// It promises that no key is ever printed, that purposes cannot be exchanged for
// one another, that a box opens only with the purpose and the additional data that
// it was made with, and a seal only with the private key, the layer and the info of
// its making. Until a passphrase protects the file, whoever reads the data directory
// has every key in it: THREAT_MODEL.md says so.
//
// Who is an officer is internal/officer's business; the cards of segments are made
// by internal/evidence from boxes and seals of this package.
package keyring

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/durable"
)

// ErrWrongKey is wrapped by Unwrap when a box was not made by this keyring for
// this purpose and this additional data, or was changed.
var ErrWrongKey = errors.New("the box does not open with this keyring, purpose and binding")

const (
	secretLen  = 32
	boxVersion = 1 // of the first epoch
	boxEpoch   = 2 // names its epoch
)

// Keyring derives and uses keys. It is safe for concurrent use.
type Keyring struct {
	id     uuid.UUID
	epochs []epoch // in order; at least one

	mu    sync.Mutex // guards boxes
	boxes map[boxKey]cipher.AEAD
}

// epoch is one master secret. New boxes are made by the newest; older ones open what
// they made.
type epoch struct {
	n         int
	made      time.Time // zero in the first one of a file of format 1
	master    [secretLen]byte
	destroyed time.Time // zero: master is there
}

type boxKey struct {
	epoch   int
	purpose string
}

// Holder is what a PKCS#11 module or a key service offers to stand in the place of
// a Keyring: keys are used where they lie. Only MACKey, for the token maker in the
// same process, is not in it.
type Holder interface {
	ID() uuid.UUID
	// Wrap seals under the newest key of a purpose, bound to aad.
	Wrap(purpose string, plaintext, aad []byte) ([]byte, error)
	// Unwrap opens what Wrap gave, under whichever key made it.
	Unwrap(purpose string, box, aad []byte) ([]byte, error)
	// MAC is HMAC-SHA256 under the lasting key of a purpose.
	MAC(purpose string, msg []byte) []byte
	// Signer is the Ed25519 key of a purpose in an epoch.
	Signer(purpose string, epoch int) (crypto.Signer, error)
}

var _ Holder = (*Keyring)(nil)

// file is the stored form, docs/formats/keycard.md: in clear, of format 1 with one
// master or of format 2 with epochs. A sealed file holds the one of format 2.
type file struct {
	V      int         `json:"v"`
	ID     string      `json:"id"`
	Master string      `json:"master,omitempty"`
	Epochs []fileEpoch `json:"epochs,omitempty"`
}

type fileEpoch struct {
	Epoch     int    `json:"epoch"`
	Made      string `json:"made,omitempty"`
	Master    string `json:"master,omitempty"`
	Destroyed string `json:"destroyed,omitempty"` // when; then there is no master
}

const (
	kindKeyring = "keyring"
	timeForm    = "2006-01-02T15:04:05Z"
	maxEpochs   = 1000
)

func keyringPath(dataDir string) string { return filepath.Join(dataDir, "keys", "keyring") }

// Open reads keys/keyring under the data directory where it is not sealed, and makes
// it on the first call; it refuses to make one where segments already have key cards.
// The caller holds the lock of the data directory.
func Open(dataDir string) (*Keyring, error) { return OpenSealed(dataDir, nil) }

// OpenSealed is Open for a file that may be sealed by a passphrase; it asks for the
// passphrase only then.
func OpenSealed(dataDir string, pass Passphrase) (*Keyring, error) {
	dir, path := filepath.Join(dataDir, "keys"), keyringPath(dataDir)
	k, err := Load(path, pass)
	if errors.Is(err, fs.ErrNotExist) {
		return create(dir, path)
	}
	return k, err
}

// Load reads one file of a keyring, such as a backup. It never makes one.
func Load(path string, pass Passphrase) (*Keyring, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the keyring: %w", err)
	}
	defer clear(b)
	if err := private0600(path, "the keyring"); err != nil {
		return nil, err
	}
	k, sealed, err := parse(path, b)
	if err != nil || sealed == nil {
		return k, err
	}
	var secret []byte
	if pass != nil {
		if secret, err = pass(); err != nil {
			return nil, err
		}
		defer clear(secret)
	}
	if len(secret) == 0 {
		return nil, fmt.Errorf("the keyring %s is sealed: %w", path, ErrNoPassphrase)
	}
	inside, err := sealed.Open(kindKeyring, secret)
	if err != nil {
		return nil, fmt.Errorf("the keyring %s: %w", path, err)
	}
	defer clear(inside)
	if k, err = parseClear(path, inside); err != nil {
		return nil, err
	}
	if string(sealed.Public) != publicOf(k.id) {
		return nil, fmt.Errorf("the keyring %s is not the one that its file names", path)
	}
	return k, nil
}

// IsSealed tells whether the keyring of a data directory is under a passphrase.
func IsSealed(dataDir string) (bool, error) {
	b, err := os.ReadFile(keyringPath(dataDir))
	if err != nil {
		return false, fmt.Errorf("reading the keyring: %w", err)
	}
	defer clear(b)
	_, sealed, err := parse(keyringPath(dataDir), b)
	return sealed != nil, err
}

func private0600(path, what string) error {
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("reading %s: %w", what, err)
	}
	if runtime.GOOS != "windows" && st.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s %s can be read by others: run chmod 600 on it, and treat what it holds as known", what, path)
	}
	return nil
}

// parse reads a file: a keyring in clear, or a sealed one that must be opened.
func parse(path string, b []byte) (*Keyring, *SealedFile, error) {
	// The causes of the decoders are left out: they could quote the file.
	var probe struct {
		KDF string `json:"kdf"`
	}
	if len(b) <= maxSealedFile && json.Unmarshal(b, &probe) == nil && probe.KDF != "" {
		f, err := ParseSealed(b)
		if err != nil {
			return nil, nil, fmt.Errorf("the keyring %s: %w", path, err)
		}
		return nil, f, nil
	}
	k, err := parseClear(path, b)
	return k, nil, err
}

func parseClear(path string, b []byte) (*Keyring, error) {
	unreadable := fmt.Errorf("the keyring %s is not readable: restore it from the backup of the keys", path)
	var f file
	if len(b) > maxSealedFile || json.Unmarshal(b, &f) != nil {
		return nil, unreadable
	}
	if f.V != 1 && f.V != 2 {
		return nil, fmt.Errorf("the keyring %s has format %d and this program knows 1 and 2", path, f.V)
	}
	id, err := uuid.Parse(f.ID)
	if err != nil {
		return nil, unreadable
	}
	if f.V == 1 {
		f.Epochs = []fileEpoch{{Epoch: 1, Master: f.Master}}
	} else if f.Master != "" {
		return nil, unreadable
	}
	if len(f.Epochs) == 0 || len(f.Epochs) > maxEpochs {
		return nil, unreadable
	}
	k := &Keyring{id: id, boxes: map[boxKey]cipher.AEAD{}}
	for i, fe := range f.Epochs {
		e := epoch{n: fe.Epoch}
		master, err := base64.RawURLEncoding.DecodeString(fe.Master)
		if err != nil || e.n != i+1 {
			return nil, unreadable
		}
		if fe.Destroyed != "" {
			e.destroyed, err = time.Parse(timeForm, fe.Destroyed)
			if err != nil || len(master) != 0 || f.V != 2 || i == len(f.Epochs)-1 { // the newest makes what comes
				return nil, unreadable
			}
		} else if len(master) != secretLen {
			return nil, unreadable
		}
		copy(e.master[:], master)
		clear(master)
		if fe.Made != "" {
			if e.made, err = time.Parse(timeForm, fe.Made); err != nil {
				return nil, unreadable
			}
		}
		k.epochs = append(k.epochs, e)
	}
	return k, nil
}

// encode is the file of format 2 in clear.
func (k *Keyring) encode() ([]byte, error) {
	f := file{V: 2, ID: k.id.String()}
	for _, e := range k.epochs {
		fe := fileEpoch{Epoch: e.n}
		if e.destroyed.IsZero() {
			fe.Master = b64(e.master[:])
		} else {
			fe.Destroyed = e.destroyed.UTC().Format(timeForm)
		}
		if !e.made.IsZero() {
			fe.Made = e.made.UTC().Format(timeForm)
		}
		f.Epochs = append(f.Epochs, fe)
	}
	return json.Marshal(f)
}

func publicOf(id uuid.UUID) string { return `{"id":"` + id.String() + `"}` }

// sealed is the file of format 2 under a passphrase.
func (k *Keyring) sealed(passphrase []byte) ([]byte, error) {
	inside, err := k.encode()
	if err != nil {
		return nil, err
	}
	defer clear(inside)
	return SealFile(kindKeyring, []byte(publicOf(k.id)), passphrase, inside)
}

// Seal puts the file of a data directory under a passphrase, or under another one.
// The old file is replaced at once and whole; what the disk or a backup kept of it is
// not erased. The caller holds the lock of the data directory.
func (k *Keyring) Seal(dataDir string, passphrase []byte) error {
	b, err := k.sealed(passphrase)
	if err != nil {
		return fmt.Errorf("sealing the keyring: %w", err)
	}
	var d durable.FS
	if err := d.WriteFile(keyringPath(dataDir), b, 0o600); err != nil {
		return fmt.Errorf("sealing the keyring: %w", err)
	}
	return nil
}

// Backup writes the keyring, sealed by a passphrase, to a file that is not there yet.
// Copied to keys/keyring it is the keyring again.
func (k *Keyring) Backup(path string, passphrase []byte) error {
	b, err := k.sealed(passphrase)
	if err != nil {
		return fmt.Errorf("backing the keyring up: %w", err)
	}
	var d durable.FS
	if err := d.WriteNew(path, b, 0o600); err != nil {
		return fmt.Errorf("backing the keyring up: %w", err)
	}
	return nil
}

// Rotate adds an epoch with a new master secret. Boxes made from now on need it, so
// a backup of before does not open them. A sealed keyring needs its passphrase. The
// caller holds the lock of the data directory.
func (k *Keyring) Rotate(dataDir string, now time.Time, pass Passphrase) (int, error) {
	if len(k.epochs) >= maxEpochs {
		return 0, errors.New("rotating the keyring: too many epochs")
	}
	sealed, err := IsSealed(dataDir)
	if err != nil {
		return 0, fmt.Errorf("rotating the keyring: %w", err)
	}
	e := epoch{n: len(k.epochs) + 1, made: now.UTC().Truncate(time.Second)}
	rand.Read(e.master[:])
	next := &Keyring{id: k.id, epochs: append(append([]epoch(nil), k.epochs...), e)}
	if err := k.replace(dataDir, next, sealed, pass); err != nil {
		return 0, fmt.Errorf("rotating the keyring: %w", err)
	}
	return e.n, nil
}

// Destroy destroys the master secret of an epoch before the newest: nothing that was made
// with it is made or opened again, so the caller knows that nothing needs it, a lasting key
// of the first epoch neither. It returns when that is durable, and has then overwritten the
// file that held the secret, as far as the disk does what it is told: an SSD, a journal and a
// backup may remember. Done twice it does nothing more. The caller holds the lock of the
// directory.
func (k *Keyring) Destroy(dataDir string, n int, now time.Time, pass Passphrase) error {
	fail := func(err error) error { return fmt.Errorf("destroying epoch %d of the keyring: %w", n, err) }
	if n < 1 || n >= k.Epoch() {
		return fail(errors.New("it is not one before the newest"))
	}
	if !k.Epochs()[n-1].Destroyed.IsZero() {
		return nil
	}
	sealed, err := IsSealed(dataDir)
	if err != nil {
		return fail(err)
	}
	next := &Keyring{id: k.id, epochs: append([]epoch(nil), k.epochs...)}
	next.epochs[n-1].master = [secretLen]byte{}
	next.epochs[n-1].destroyed = now.UTC().Truncate(time.Second)
	wipe := func() error { return nil }
	if runtime.GOOS != "windows" { // where a file that is open keeps its name
		var d durable.FS
		old, err := d.OpenFile(keyringPath(dataDir))
		if err != nil {
			return fail(err)
		}
		defer old.Close()
		size, err := old.Size()
		if err != nil {
			return fail(err)
		}
		wipe = func() error {
			if _, err := old.Write(make([]byte, size)); err != nil {
				return err
			}
			return old.Sync()
		}
	}
	if err := k.replace(dataDir, next, sealed, pass); err != nil {
		return fail(err)
	}
	k.mu.Lock()
	k.boxes = map[boxKey]cipher.AEAD{}
	k.mu.Unlock()
	if err := wipe(); err != nil {
		return fail(err)
	}
	return nil
}

// replace writes the file of the epochs of next, and takes them.
func (k *Keyring) replace(dataDir string, next *Keyring, sealed bool, pass Passphrase) error {
	var b []byte
	var err error
	if sealed {
		var secret []byte
		if pass != nil {
			if secret, err = pass(); err != nil {
				return err
			}
			defer clear(secret)
		}
		// The passphrase must be the one of the file: a slip would lock everybody out.
		if _, err = Load(keyringPath(dataDir), func() ([]byte, error) { return bytes.Clone(secret), nil }); err != nil {
			return err
		}
		b, err = next.sealed(secret)
	} else if b, err = next.encode(); err == nil {
		b = append(b, '\n')
	}
	if err != nil {
		return err
	}
	defer clear(b)
	var d durable.FS
	if err := d.WriteFile(keyringPath(dataDir), b, 0o600); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.epochs = next.epochs
	return nil
}

// Epoch describes one master secret.
type Epoch struct {
	N         int
	Made      time.Time // zero: not recorded
	Destroyed time.Time // zero: its keys are there
}

// Epochs lists them, oldest first. The last one makes new boxes.
func (k *Keyring) Epochs() []Epoch {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []Epoch
	for _, e := range k.epochs {
		out = append(out, Epoch{N: e.n, Made: e.made, Destroyed: e.destroyed})
	}
	return out
}

// Epoch is the number of the newest one.
func (k *Keyring) Epoch() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.epochs)
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
	k := &Keyring{id: id, epochs: []epoch{{n: 1}}, boxes: map[boxKey]cipher.AEAD{}}
	rand.Read(k.epochs[0].master[:]) // never fails: crypto/rand ends the process instead
	if err := write(path, id, k.epochs[0].master[:]); err != nil {
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

// derive makes the key of a use and a purpose from the master of an epoch.
func (k *Keyring) derive(epoch int, use, purpose string) []byte {
	if purpose == "" {
		panic("keyring: a key without a purpose")
	}
	k.mu.Lock()
	master, destroyed := k.epochs[epoch-1].master, k.epochs[epoch-1].destroyed
	k.mu.Unlock()
	if !destroyed.IsZero() {
		panic("keyring: a key of an epoch that was destroyed")
	}
	defer clear(master[:])
	key, err := hkdf.Key(sha256.New, master[:], k.id[:], "counterseal/keyring/v1/"+use+"/"+purpose, 32)
	if err != nil {
		panic("keyring: " + err.Error()) // only for impossible lengths
	}
	return key
}

func (k *Keyring) box(epoch int, purpose string) cipher.AEAD {
	at := boxKey{epoch, purpose}
	k.mu.Lock()
	a := k.boxes[at]
	k.mu.Unlock()
	if a != nil {
		return a
	}
	key := k.derive(epoch, "wrap", purpose)
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("keyring: " + err.Error())
	}
	if a, err = cipher.NewGCMWithRandomNonce(block); err != nil {
		panic("keyring: " + err.Error())
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.boxes[at] = a
	return a
}

// Wrap seals plaintext under the newest key of a purpose, bound to aad. A keyring in
// memory gives no error; one behind a token or a service can.
func (k *Keyring) Wrap(purpose string, plaintext, aad []byte) ([]byte, error) {
	epoch := k.Epoch()
	if epoch == 1 {
		return k.box(1, purpose).Seal([]byte{boxVersion}, nil, plaintext, aad), nil
	}
	head := binary.BigEndian.AppendUint32([]byte{boxEpoch}, uint32(epoch))
	return k.box(epoch, purpose).Seal(head, nil, plaintext, aad), nil
}

// BoxEpoch tells which epoch made a box, 0 where it is none.
func BoxEpoch(box []byte) int {
	switch {
	case len(box) > 0 && box[0] == boxVersion:
		return 1
	case len(box) > 5 && box[0] == boxEpoch:
		return int(binary.BigEndian.Uint32(box[1:]))
	}
	return 0
}

// Unwrap opens a box of Wrap. Its error wraps ErrWrongKey.
func (k *Keyring) Unwrap(purpose string, box, aad []byte) ([]byte, error) {
	epoch := BoxEpoch(box)
	if epoch == 0 {
		return nil, fmt.Errorf("opening a box for %s: unknown version: %w", purpose, ErrWrongKey)
	}
	if epoch > k.Epoch() {
		return nil, fmt.Errorf("opening a box for %s: epoch %d is newer than this keyring: %w", purpose, epoch, ErrWrongKey)
	}
	sealed := box[1:]
	if box[0] == boxEpoch {
		if sealed = box[5:]; epoch == 1 { // written as the first version, and only so
			return nil, fmt.Errorf("opening a box for %s: unknown version: %w", purpose, ErrWrongKey)
		}
	}
	if k.isDestroyed(epoch) {
		return nil, fmt.Errorf("opening a box for %s: the key of epoch %d was destroyed: %w", purpose, epoch, ErrWrongKey)
	}
	pt, err := k.box(epoch, purpose).Open(nil, nil, sealed, aad)
	if err != nil {
		return nil, fmt.Errorf("opening a box for %s: %w", purpose, ErrWrongKey)
	}
	return pt, nil
}

// MACKey is the 32-byte HMAC-SHA256 key of a purpose, for a caller that makes
// many codes and keeps its own state. It comes from the first epoch and stays over
// every rotation, since codes are compared with older ones; what must rotate takes
// MACKeyAt. Whoever calls it must not store or print it.
func (k *Keyring) MACKey(purpose string) []byte { return k.derive(1, "mac", purpose) }

// MACKeyAt is the key of a purpose in an epoch of this keyring.
func (k *Keyring) MACKeyAt(epoch int, purpose string) ([]byte, error) {
	if epoch < 1 || epoch > k.Epoch() {
		return nil, fmt.Errorf("the keyring has no epoch %d", epoch)
	}
	if k.isDestroyed(epoch) {
		return nil, fmt.Errorf("the keys of epoch %d were destroyed", epoch)
	}
	return k.derive(epoch, "mac", purpose), nil
}

func (k *Keyring) isDestroyed(epoch int) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.epochs[epoch-1].destroyed.IsZero()
}

// MAC is HMAC-SHA256 of msg under MACKey(purpose).
func (k *Keyring) MAC(purpose string, msg []byte) []byte {
	key := k.MACKey(purpose)
	defer clear(key)
	m := hmac.New(sha256.New, key)
	m.Write(msg)
	return m.Sum(nil)
}

// Signer is the Ed25519 key of a purpose in an epoch. Its Sign takes the message
// itself and crypto.Hash(0). Each purpose puts its own words before what it signs.
func (k *Keyring) Signer(purpose string, epoch int) (crypto.Signer, error) {
	if epoch < 1 || epoch > k.Epoch() {
		return nil, fmt.Errorf("the keyring has no epoch %d", epoch)
	}
	if k.isDestroyed(epoch) {
		return nil, fmt.Errorf("the keys of epoch %d were destroyed", epoch)
	}
	seed := k.derive(epoch, "sign", purpose)
	defer clear(seed)
	return ed25519.NewKeyFromSeed(seed), nil
}

// Format prints the id only, whatever verb is used.
func (k *Keyring) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "keyring %s", k.id) }

// LogValue is what slog prints.
func (k *Keyring) LogValue() slog.Value { return slog.StringValue("keyring " + k.id.String()) }

// MarshalJSON refuses: a keyring is in no document.
func (k *Keyring) MarshalJSON() ([]byte, error) {
	return nil, errors.New("a keyring is never written into a document")
}
