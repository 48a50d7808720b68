// Package keyholder is the process that alone has the token keys, and the way to ask it.
// Ingest asks for the tokens of names, bounded by quotas and counted; a question about a
// name is answered on another interface, and only under a capability that two offices
// signed and the ledger knows. docs/formats/keyholder.md has the protocol and the folder.
//
// It promises: keys leave it in no answer; no name is written, logged or part of an
// error, here or in the client; whoever has the data directory and all that its keyring
// derives cannot test a name against a token; a capability of two officers answers once, for
// the very names that it commits to, within its time, for this organisation, by the
// holder's own copies of the roster and of the keys of the ledger; what it answers goes to
// the server alone, and never to who asked; counts survive a crash, and are then too high
// rather than too low. Data
// that was tokenised by one key is never continued with another: organisation, epoch and
// a check value are compared whenever a connection begins.
//
// Limits. The holder sees names, and so does whoever asks: a live server that is taken
// over can ask within the quota and copy what passes. The folder on the server's own
// machine is no safer than that machine. Who may reach the interfaces is decided by
// socket modes or client certificates, which the caller brings.
package keyholder

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/pseudonym"
)

// Options of a holder.
type Options struct {
	Passphrase keyring.Passphrase // of a sealed keyring; asked only then
	Log        *slog.Logger       // nil: none
	Now        func() time.Time   // nil: time.Now
	// Ledger makes of the keys of the ledger in keyholder.yaml what says whether witnesses
	// have seen that a question was approved, and its time is not over. nil, or no keys
	// there: no question is answered. The caller brings it: this package knows no ledger.
	Ledger func(Witnesses) (SeenBy, error)
}

// SeenBy says whether witnesses have seen the approval of a statement.
type SeenBy func(s *approval.Statement, statement []byte, seen Seen, now time.Time) error

// Holder has the keys of one folder.
type Holder struct {
	dir   string
	conf  *folder
	lock  *durable.Locked
	log   *slog.Logger
	now   func() time.Time
	began time.Time

	makers    map[int]*pseudonym.Maker // of the epochs whose keys are there
	newest    int
	destroyed []Destroyed

	quota     *quota
	questions *questions
	lists     *lists
	seen      SeenBy // nil: no question is answered

	mu        sync.Mutex
	said      time.Time // a refusal, in the log
	stamp     string    // of the two files
	directory []byte
	digest    [32]byte // zero: no file
	known     *pseudonym.Directory
	roster    *officer.Roster
	conns     map[net.Conn]*peer
}

// Open takes the folder for this process.
func Open(dir string, o Options) (*Holder, error) {
	h := &Holder{dir: dir, log: o.Log, now: o.Now, makers: map[int]*pseudonym.Maker{}, conns: map[net.Conn]*peer{}}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if h.now == nil {
		h.now = time.Now
	}
	if err := private(dir); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(dir, fileConfig))
	if err != nil {
		return nil, fmt.Errorf("reading the folder of the key holder: %w", err)
	}
	if h.conf, err = parseFolder(filepath.Join(dir, fileConfig), data); err != nil {
		return nil, err
	}
	if h.lock, err = durable.Lock(dir); err != nil {
		return nil, err
	}
	if err := h.open(o); err != nil {
		return nil, errors.Join(err, h.lock.Release())
	}
	return h, nil
}

func (h *Holder) open(o Options) error {
	keys, err := keyring.Load(filepath.Join(h.dir, "keys", "keyring"), o.Passphrase)
	if err != nil {
		return err
	}
	for _, e := range keys.Epochs() {
		if !e.Destroyed.IsZero() {
			h.destroyed = append(h.destroyed, Destroyed{h.conf.FirstEpoch + e.N - 1, e.Destroyed.UTC().Format(time.RFC3339)})
			continue
		}
		key, err := keys.MACKeyAt(e.N, keyPurpose)
		if err != nil {
			return err
		}
		epoch := h.conf.FirstEpoch + e.N - 1
		m, err := pseudonym.NewMaker(key, h.conf.org, epoch)
		clear(key)
		if err != nil {
			return err
		}
		h.makers[epoch], h.newest = m, epoch
	}
	h.began = h.now().UTC().Truncate(time.Second)
	if h.quota, err = openQuota(h.dir, h.conf.Quota, h.now); err != nil {
		return err
	}
	if h.questions, err = openQuestions(h.dir, h.conf.Quota.Questions, h.now); err != nil {
		return err
	}
	if h.lists, err = openLists(h.dir, h.conf.Quota.Lists, h.now); err != nil {
		return err
	}
	if o.Ledger != nil && h.conf.Ledger.Log != "" {
		if h.seen, err = o.Ledger(h.conf.Ledger); err != nil {
			return fmt.Errorf("%s: ledger: %w", fileConfig, err)
		}
	}
	return h.readFiles()
}

// Identity says whose keys these are, of an epoch; 0 is the newest.
func (h *Holder) Identity(epoch int) (Identity, error) {
	if epoch == 0 {
		epoch = h.newest
	}
	m := h.makers[epoch]
	if m == nil {
		return Identity{}, ErrEpoch
	}
	return Identity{Org: h.conf.org, Epoch: epoch, Check: m.Bits(0, []byte("check"))}, nil
}

// Close gives the folder back. Serve has returned.
func (h *Holder) Close() error { return errors.Join(h.quota.close(), h.lock.Release()) }

// readFiles reads directory and officers, where they changed. What cannot be read leaves
// the old one in force.
func (h *Holder) readFiles() error {
	var stamp string
	for _, name := range []string{fileDirectory, fileOfficers} {
		st, err := os.Stat(filepath.Join(h.dir, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			stamp += "-\n"
		case err != nil:
			return fmt.Errorf("reading %s: %w", name, err)
		default:
			stamp += fmt.Sprintf("%d %d\n", st.Size(), st.ModTime().UnixNano())
		}
	}
	h.mu.Lock()
	same := h.stamp == stamp
	h.stamp = stamp
	h.mu.Unlock()
	if same {
		return nil
	}
	directory, err := optional(filepath.Join(h.dir, fileDirectory), maxDirectory)
	if err != nil {
		return err
	}
	known, err := pseudonym.ParseDirectory(directory)
	if err != nil {
		return fmt.Errorf("reading the directory: %w", err)
	}
	var roster *officer.Roster
	officers, err := optional(filepath.Join(h.dir, fileOfficers), maxConfig)
	if err != nil {
		return err
	}
	if officers != nil {
		if roster, err = officer.ParseRoster(fileOfficers, officers); err != nil {
			return err
		}
	}
	var digest [32]byte
	if directory != nil {
		digest = sha256.Sum256(directory)
	}
	h.mu.Lock()
	changed := digest != h.digest
	h.directory, h.digest, h.known, h.roster = directory, digest, known, roster
	var told []*peer
	if changed {
		for _, p := range h.conns {
			if p.ingest {
				told = append(told, p)
			}
		}
	}
	h.mu.Unlock()
	for _, p := range told {
		p.push(frame{op: opChanged, body: digest[:]})
	}
	return nil
}

func optional(path string, limit int64) ([]byte, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", filepath.Base(path), err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s is longer than %d bytes", filepath.Base(path), limit)
	}
	return b, nil
}

// Stats counts since the holder started. No name is in it and no token.
type Stats struct {
	Since string `json:"since"` // RFC 3339, as all times here
	Now   string `json:"now"`
	Org   string `json:"org"`
	Epoch int    `json:"epoch"` // the newest

	Asked       int64    `json:"asked"`        // names that ingest asked for
	New         int64    `json:"new"`          // of these, new to the holder
	Refused     int64    `json:"refused"`      // names in batches beyond the quota
	LastRefused string   `json:"last_refused"` // empty: never
	Windows     []Window `json:"windows"`

	Destroyed []Destroyed `json:"destroyed,omitempty"` // epochs whose keys are gone

	Officers         bool  `json:"officers"`          // it knows whose capability counts, and the ledger
	Questions        int64 `json:"questions"`         // capabilities answered
	QuestionNames    int64 `json:"question_names"`    // names in them
	QuestionsRefused int64 `json:"questions_refused"` //

	Lists        int64 `json:"lists"`         // questions about lists of disclosers that were answered
	ListsRefused int64 `json:"lists_refused"` //
	ListsRecent  int64 `json:"lists_recent"`  // answered in the last ListWindow, also before the start
}

// Stats gives the counts.
func (h *Holder) Stats() Stats {
	h.mu.Lock()
	officers := h.roster != nil && h.seen != nil
	h.mu.Unlock()
	s := Stats{Epoch: h.newest, Destroyed: h.destroyed, Org: h.conf.Org, Officers: officers, Since: h.began.Format(time.RFC3339), Now: h.now().UTC().Format(time.RFC3339)}
	h.quota.mu.Lock()
	s.Asked, s.New, s.Refused = h.quota.asked, h.quota.fresh, h.quota.refused
	if !h.quota.lastRefused.IsZero() {
		s.LastRefused = h.quota.lastRefused.Format(time.RFC3339)
	}
	s.Windows = h.quota.windows()
	h.quota.mu.Unlock()
	h.questions.mu.Lock()
	s.Questions, s.QuestionNames, s.QuestionsRefused = h.questions.answered, h.questions.names, h.questions.refused
	h.questions.mu.Unlock()
	s.ListsRecent = h.lists.recent()
	h.lists.mu.Lock()
	s.Lists, s.ListsRefused = h.lists.answered, h.lists.refused
	h.lists.mu.Unlock()
	return s
}

func (h *Holder) stats() ([]byte, error) { return json.Marshal(h.Stats()) }

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
