package duty

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/durable"
)

const (
	journalName = "journal.ndjson"
	maxJournal  = 16 << 20
)

// Release is one name that was counted: that it was opened, too, is not known of the last
// one after a crash. It says nothing about whose name it was.
type Release struct {
	ID       string    // of the request
	At       time.Time // by the clock of the host
	Night    string
	Warrant  string
	Reviewed bool // the ledger has proved it
}

// Due is when its review must be stated.
func (r *Release) Due() time.Time { return Due(r.At) }

// line is a line of the journal, canonical JSON: a release, or that one was reviewed.
type line struct {
	At      string `json:"at,omitempty"`
	ID      string `json:"id"`
	Night   string `json:"night,omitempty"`
	Warrant string `json:"warrant,omitempty"`
}

// Journal is what a duty host has counted. It is safe for concurrent use.
type Journal struct {
	lock *durable.Locked
	mu   sync.Mutex // guards what follows
	f    *os.File
	all  []Release
	bad  bool // a line may stand in part: nothing is written behind it
}

// OpenJournal takes the folder for this process and reads what it has counted. A torn last
// line is cut off; any other line that is not of the form is an error that names it.
func OpenJournal(dir string) (opened *Journal, err error) {
	j := &Journal{}
	if j.lock, err = durable.Lock(dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, j.lock.Release())
		}
	}()
	var whole int
	if j.all, whole, err = read(dir); err != nil {
		return nil, err
	}
	if j.f, err = os.OpenFile(filepath.Join(dir, journalName), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return nil, err
	}
	var disk durable.FS
	if err := errors.Join(j.f.Truncate(int64(whole)), j.f.Sync(), disk.SyncDir(dir)); err != nil {
		return nil, errors.Join(err, j.f.Close())
	}
	return j, nil
}

// Releases reads what a host has counted, also while it runs.
func Releases(dir string) ([]Release, error) {
	all, _, err := read(dir)
	return all, err
}

// read gives the releases of a journal and how many of its bytes are whole lines.
func read(dir string) (all []Release, whole int, err error) {
	path := filepath.Join(dir, journalName)
	raw, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, 0, err
	}
	if len(raw) > maxJournal {
		return nil, 0, fmt.Errorf("%s: longer than %d bytes", journalName, maxJournal)
	}
	whole = bytes.LastIndexByte(raw, '\n') + 1
	all, err = parse(raw[:whole])
	return all, whole, err
}

// parse reads whole lines.
func parse(raw []byte) ([]Release, error) {
	var all []Release
	for n := 1; len(raw) > 0; n++ {
		text, rest, _ := bytes.Cut(raw, []byte("\n"))
		raw = rest
		bad := fmt.Errorf("%s: line %d is not one of a journal: restore the folder of the duty host", journalName, n)
		var l line
		if approval.Decode(text, &l) != nil || !isID(l.ID) {
			return nil, bad
		}
		i := slices.IndexFunc(all, func(r Release) bool { return r.ID == l.ID })
		if l.At == "" {
			if i < 0 || all[i].Reviewed || l.Night != "" || l.Warrant != "" {
				return nil, bad
			}
			all[i].Reviewed = true
			continue
		}
		at, err := time.Parse(timeForm, l.At)
		if _, derr := time.Parse(time.DateOnly, l.Night); err != nil || derr != nil || !isID(l.Warrant) || i >= 0 {
			return nil, bad
		}
		all = append(all, Release{ID: l.ID, At: at, Night: l.Night, Warrant: l.Warrant})
	}
	return all, nil
}

// Close gives the folder back.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return errors.Join(j.f.Close(), j.lock.Release())
}

// All gives what was counted, in order.
func (j *Journal) All() []Release {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.all)
}

// Take counts a release, durably, and gives which of its night it is. It refuses one that
// is there already, the one beyond most, and one from before the last.
func (j *Journal) Take(r Release, most int) (n int, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	r.At = r.At.UTC().Truncate(time.Second)
	for i := range j.all {
		switch have := &j.all[i]; {
		case have.ID == r.ID:
			return 0, &Refusal{"this request was brought before, and each is taken once", "ask again: counterseal duty ask"}
		case have.At.After(r.At.Add(Skew)):
			return 0, &Refusal{"the clock of the duty host went back", "who runs the host sets the clock right"}
		case have.Night == r.Night:
			n++
		}
	}
	if most = min(most, MaxNames); n >= most {
		return n, &Refusal{fmt.Sprintf("%d names were opened this night, and that is the most", n), "two officers open more: counterseal unmask request"}
	}
	if err := j.write(line{At: r.At.Format(timeForm), ID: r.ID, Night: r.Night, Warrant: r.Warrant}); err != nil {
		return n, err
	}
	r.Reviewed = false
	j.all = append(j.all, r)
	return n + 1, nil
}

// Review notes that the ledger has proved the review of a release.
func (j *Journal) Review(id string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	i := slices.IndexFunc(j.all, func(r Release) bool { return r.ID == id })
	if i < 0 || j.all[i].Reviewed {
		return nil
	}
	if err := j.write(line{ID: id}); err != nil {
		return err
	}
	j.all[i].Reviewed = true
	return nil
}

// write puts a line into the journal, durably. The caller holds mu.
func (j *Journal) write(l line) error {
	if j.bad {
		return errors.New("the journal could not be written before: the duty host must start anew")
	}
	b, err := approval.Canonical(l)
	if err != nil {
		return err
	}
	j.bad = true
	if _, err := j.f.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("%s: %w", journalName, err)
	}
	if err := j.f.Sync(); err != nil {
		return fmt.Errorf("%s: %w", journalName, err)
	}
	j.bad = false
	return nil
}
