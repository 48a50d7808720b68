package keyholder

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/pseudonym"
	"github.com/counterseal/counterseal/internal/strict"
)

// The files of the folder, beside keys/keyring.
const (
	fileConfig    = "keyholder.yaml"
	fileDirectory = "directory.yaml"
	fileOfficers  = "officers.yaml"

	configVersion = "keyholder/v1"
	maxConfig     = 64 << 10
	maxDirectory  = 256 << 20
	maxEpoch      = pseudonym.MaxEpoch
	keyPurpose    = "keyholder/token/1"
)

// folder is keyholder.yaml.
type folder struct {
	APIVersion string `yaml:"apiVersion"`
	// Org is the data directory whose names are asked.
	Org string `yaml:"org"`
	// FirstEpoch is the token epoch of the first key.
	FirstEpoch int `yaml:"first_epoch"`
	// Quota bounds new identities.
	Quota Quota `yaml:"quota"`
	// Ledger has the keys by which an approval is known to stand in the ledger.
	Ledger Witnesses `yaml:"ledger,omitempty"`

	org uuid.UUID
}

// Witnesses are the holder's own copies of the keys of the ledger and of its witnesses, as
// they print them, and how many of the witnesses must have cosigned; 0 is all.
type Witnesses struct {
	Log       string   `yaml:"log"`
	Witnesses []string `yaml:"witnesses"`
	Threshold int      `yaml:"threshold,omitempty"`
}

func (w *Witnesses) check(where string) error {
	switch {
	case w.Log == "" && len(w.Witnesses) == 0 && w.Threshold == 0:
		return nil
	case w.Log == "":
		return fmt.Errorf("%s.log: the key of the ledger is missing", where)
	case len(w.Witnesses) == 0 || len(w.Witnesses) > 64:
		return fmt.Errorf("%s.witnesses: 1 to 64 keys of witnesses", where)
	case w.Threshold < 0 || w.Threshold > len(w.Witnesses):
		return fmt.Errorf("%s.threshold: at most the number of witnesses", where)
	}
	return nil
}

var goField = regexp.MustCompile(`Go struct field \w+\.(\w+)`)

func parseFolder(name string, data []byte) (*folder, error) {
	if len(data) > maxConfig {
		return nil, fmt.Errorf("%s: longer than %d bytes", name, maxConfig)
	}
	f := &folder{FirstEpoch: 1, Quota: DefaultQuota()}
	if err := strict.NewDecoder(data).Decode(f); err != nil {
		text := strings.TrimSpace(yaml.FormatError(err, false, false))
		return nil, fmt.Errorf("%s: %s", name, goField.ReplaceAllStringFunc(text, func(s string) string { return strings.ToLower(s[strings.LastIndexByte(s, '.')+1:]) }))
	}
	if f.APIVersion != configVersion {
		return nil, fmt.Errorf("%s: apiVersion is not %s", name, configVersion)
	}
	var err error
	if f.org, err = uuid.Parse(f.Org); err != nil || f.org.String() != f.Org {
		return nil, fmt.Errorf("%s: org is not a UUID", name)
	}
	if f.FirstEpoch < 1 || f.FirstEpoch > maxEpoch {
		return nil, fmt.Errorf("%s: first_epoch is not from 1 to %d", name, maxEpoch)
	}
	if f.Quota.Questions < 0 || f.Quota.Questions > maxAsked {
		return nil, fmt.Errorf("%s: quota.questions is not from 0 to %d", name, maxAsked)
	}
	if f.Quota.Lists < 0 || f.Quota.Lists > maxLists {
		return nil, fmt.Errorf("%s: quota.lists is not from 0 to %d", name, maxLists)
	}
	return f, errors.Join(f.Quota.Names.check(name+": quota.names"), f.Quota.Addresses.check(name+": quota.addresses"), f.Ledger.check(name+": ledger"))
}

// Setup is what a new folder is made of.
type Setup struct {
	Org        uuid.UUID // the data directory: the id of its keyring
	FirstEpoch int       // 0: 1
	Directory  []byte    // the directory file; nil: none
	Officers   []byte    // officers/v1; nil: none, and no question is answered
	Passphrase []byte    // of the keyring; nil: none
	Secret     *[32]byte // of a demonstration; nil: a fresh one
	Quota      *Quota    // nil: DefaultQuota
	Ledger     Witnesses // zero: none, and no question is answered
}

// Exists reports whether a folder was made.
func Exists(dir string) (bool, error) {
	_, err := os.Stat(filepath.Join(dir, fileConfig))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Create makes the folder. One that was begun and not finished is finished; one that is
// there is an error.
func Create(dir string, s Setup) error {
	if s.FirstEpoch == 0 {
		s.FirstEpoch = 1
	}
	there, err := Exists(dir)
	if err != nil {
		return fmt.Errorf("making the folder of the key holder: %w", err)
	}
	if there {
		return fmt.Errorf("%s is the folder of a key holder already", dir)
	}
	if _, err := pseudonym.ParseDirectory(s.Directory); err != nil {
		return fmt.Errorf("reading the directory: %w", err)
	}
	var d durable.FS
	if err := d.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the folder of the key holder: %w", err)
	}
	if err := private(dir); err != nil {
		return err
	}
	ring := filepath.Join(dir, "keys", "keyring")
	if _, err := os.Stat(ring); errors.Is(err, fs.ErrNotExist) && s.Secret != nil {
		if err := keyring.CreateFrom(dir, *s.Secret); err != nil {
			return err
		}
	}
	pass := func() ([]byte, error) { return bytes.Clone(s.Passphrase), nil }
	keys, err := keyring.OpenSealed(dir, pass)
	if err != nil {
		return err
	}
	if len(s.Passphrase) > 0 {
		if err := keys.Seal(dir, s.Passphrase); err != nil {
			return err
		}
	}
	for name, data := range map[string][]byte{fileDirectory: s.Directory, fileOfficers: s.Officers} {
		if data == nil {
			continue
		}
		if err := d.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
	}
	f := folder{APIVersion: configVersion, Org: s.Org.String(), FirstEpoch: s.FirstEpoch, Quota: DefaultQuota(), Ledger: s.Ledger}
	if s.Quota != nil {
		f.Quota = *s.Quota
	}
	text, err := yaml.Marshal(f)
	if err != nil {
		return fmt.Errorf("writing %s: %w", fileConfig, err)
	}
	if _, err := parseFolder(fileConfig, text); err != nil {
		return err
	}
	if err := d.WriteNew(filepath.Join(dir, fileConfig), text, 0o600); err != nil { // last: the folder is made
		return fmt.Errorf("writing %s: %w", fileConfig, err)
	}
	return nil
}

// private refuses a folder that others can look into.
func private(dir string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("reading the folder of the key holder: %w", err)
	}
	if runtime.GOOS != "windows" && st.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("the folder %s can be read by others: run chmod 700 on it", dir)
	}
	return nil
}

// Apart refuses a folder inside the data directory, and a data directory inside the
// folder: a copy of one would be a copy of both.
func Apart(dir, data string) error {
	a, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	b, err := filepath.Abs(data)
	if err != nil {
		return err
	}
	for _, p := range []*string{&a, &b} {
		if real, err := filepath.EvalSymlinks(*p); err == nil {
			*p = real
		}
	}
	within := func(in, of string) bool {
		rel, err := filepath.Rel(of, in)
		return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
	}
	if within(a, b) || within(b, a) {
		return errors.New("the folder of the key holder and the data directory must lie apart: whoever copies one must not have the other")
	}
	return nil
}

// Rotate begins a new epoch, whose key has nothing to do with the ones before. The holder
// must not run. It answers with the epoch of tokens.
func Rotate(dir string, now time.Time, pass keyring.Passphrase) (int, error) {
	h, err := Open(dir, Options{Passphrase: pass})
	if err != nil {
		return 0, err
	}
	if h.newest >= maxEpoch {
		return 0, errors.Join(errors.New("beginning an epoch: there were too many"), h.Close())
	}
	keys, err := keyring.Load(filepath.Join(dir, "keys", "keyring"), pass)
	if err == nil {
		_, err = keys.Rotate(dir, now, pass)
	}
	return h.newest + 1, errors.Join(err, h.Close())
}
