package keyring

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrPassphrase is wrapped when a file does not open with a passphrase.
var ErrPassphrase = errors.New("the passphrase is wrong, or the file was changed")

// ErrNoPassphrase: a file is sealed and no passphrase was given.
var ErrNoPassphrase = errors.New("a passphrase is needed: --passphrase-file, the systemd credential " + credential + ", or " + passphraseEnv)

const (
	kdfName   = "PBKDF2-HMAC-SHA256"
	minRounds = 600_000
	maxRounds = 50_000_000
	saltLen   = 32
	// MinPassphrase is the least number of bytes of a new passphrase.
	MinPassphrase = 16

	maxSealedFile = 64 << 10
	credential    = "counterseal-passphrase"
	passphraseEnv = "COUNTERSEAL_PASSPHRASE"
)

// SealedFile is a secret under a passphrase, one line of canonical JSON. Kind and
// Public are readable and bound: nobody can exchange them.
type SealedFile struct {
	Kind   string // such as keyring or officer
	Public []byte // JSON object in canonical form; nil: none

	salt, box []byte
	rounds    int
}

// sealedForm is the stored form, its members in the order of RFC 8785.
type sealedForm struct {
	Box    string          `json:"box,omitempty"`
	KDF    string          `json:"kdf"`
	Kind   string          `json:"kind"`
	Public json.RawMessage `json:"public,omitempty"`
	Rounds int             `json:"rounds"`
	Salt   string          `json:"salt"`
	V      int             `json:"v"`
}

const sealedVersion = 2

// SealFile seals a secret under a passphrase.
func SealFile(kind string, public, passphrase, secret []byte) ([]byte, error) {
	return sealFile(kind, public, passphrase, secret, minRounds)
}

func sealFile(kind string, public, passphrase, secret []byte, rounds int) ([]byte, error) {
	if len(passphrase) < MinPassphrase {
		return nil, fmt.Errorf("a passphrase has at least %d bytes: take some words at random", MinPassphrase)
	}
	f := SealedFile{Kind: kind, Public: public, rounds: rounds, salt: make([]byte, saltLen)}
	rand.Read(f.salt)
	form := f.form()
	aad, err := compact(form)
	if err != nil {
		return nil, fmt.Errorf("sealing a file: %w", err)
	}
	aead, err := passCipher(passphrase, f.salt, f.rounds)
	if err != nil {
		return nil, fmt.Errorf("sealing a file: %w", err)
	}
	form.Box = b64(aead.Seal(nil, nil, secret, aad))
	b, err := compact(form)
	if err != nil {
		return nil, fmt.Errorf("sealing a file: %w", err)
	}
	b = append(b, '\n')
	if _, err := ParseSealed(b); err != nil {
		return nil, fmt.Errorf("sealing a file: %w", err)
	}
	return b, nil
}

func (f *SealedFile) form() sealedForm {
	return sealedForm{KDF: kdfName, Kind: f.Kind, Public: f.Public, Rounds: f.rounds, Salt: b64(f.salt), V: sealedVersion}
}

// compact encodes without the escapes that RFC 8785 does not have.
func compact(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// ParseSealed reads a sealed file without opening it. Its errors quote nothing.
func ParseSealed(b []byte) (*SealedFile, error) {
	bad := errors.New("not a sealed file in canonical form")
	if len(b) < 2 || len(b) > maxSealedFile || b[len(b)-1] != '\n' {
		return nil, bad
	}
	var form sealedForm
	if json.Unmarshal(b[:len(b)-1], &form) != nil {
		return nil, bad
	}
	again, err := compact(form)
	if err != nil || !bytes.Equal(again, b[:len(b)-1]) {
		return nil, bad
	}
	if form.V != sealedVersion || form.KDF != kdfName {
		return nil, errors.New("a sealed file of an unknown version")
	}
	if form.Rounds < minRounds || form.Rounds > maxRounds {
		return nil, errors.New("a sealed file with too few or too many rounds")
	}
	f := &SealedFile{Kind: form.Kind, Public: form.Public, rounds: form.Rounds}
	if f.salt, err = base64.RawURLEncoding.Strict().DecodeString(form.Salt); err != nil || len(f.salt) != saltLen {
		return nil, bad
	}
	if f.box, err = base64.RawURLEncoding.Strict().DecodeString(form.Box); err != nil || len(f.box) < 12+16 {
		return nil, bad
	}
	return f, nil
}

// Open gives the secret. kind is what the caller expects. Its error wraps
// ErrPassphrase where the passphrase is wrong.
func (f *SealedFile) Open(kind string, passphrase []byte) ([]byte, error) {
	if f.Kind != kind {
		return nil, fmt.Errorf("this file holds no %s", kind)
	}
	aad, err := compact(f.form())
	if err != nil {
		return nil, fmt.Errorf("opening a sealed %s: %w", kind, err)
	}
	aead, err := passCipher(passphrase, f.salt, f.rounds)
	if err != nil {
		return nil, fmt.Errorf("opening a sealed %s: %w", kind, err)
	}
	secret, err := aead.Open(nil, nil, f.box, aad)
	if err != nil {
		return nil, fmt.Errorf("opening a sealed %s: %w", kind, ErrPassphrase)
	}
	return secret, nil
}

func passCipher(passphrase, salt []byte, rounds int) (cipher.AEAD, error) {
	key, err := pbkdf2.Key(sha256.New, string(passphrase), salt, rounds, 32)
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

// Passphrase gives the passphrase of a file. nil, or an empty answer, is none.
type Passphrase func() ([]byte, error)

// PassphraseFrom looks for a passphrase in order: the file named, the systemd
// credential counterseal-passphrase, the variable COUNTERSEAL_PASSPHRASE. One end of
// line at the end is not part of it. A file that others can read is refused.
func PassphraseFrom(file string) Passphrase {
	return func() ([]byte, error) {
		if file != "" {
			return passphraseFile(file, true)
		}
		if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
			b, err := passphraseFile(filepath.Join(dir, credential), false) // systemd guards its own
			if !errors.Is(err, fs.ErrNotExist) {
				return b, err
			}
		}
		return []byte(os.Getenv(passphraseEnv)), nil
	}
}

func passphraseFile(path string, guarded bool) ([]byte, error) {
	if guarded {
		if err := private0600(path, "the passphrase file"); err != nil {
			return nil, err
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if len(b) > 1024 {
		return nil, fmt.Errorf("the passphrase file %s is longer than 1,024 bytes", path)
	}
	return b, nil
}
