package index

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/VictoriaMetrics/lib/logstorage"
	"github.com/counterseal/counterseal/internal/durable"
)

// week names a storage: a compartment and an ISO week of sealing.
type week struct {
	compartment string
	year, n     int
}

func weekOf(compartment string, sealed time.Time) week {
	y, n := sealed.UTC().ISOWeek()
	return week{compartment, y, n}
}

// name is the name of the directory, such as 2026-w09.
func (w week) name() string { return fmt.Sprintf("%04d-w%02d", w.year, w.n) }

// monday is the first moment of the week.
func (w week) monday() time.Time {
	jan4 := time.Date(w.year, 1, 4, 0, 0, 0, 0, time.UTC) // always in week 1
	back := (int(jan4.Weekday()) + 6) % 7
	return jan4.AddDate(0, 0, -back+7*(w.n-1))
}

func parseWeek(compartment, name string) (week, bool) {
	w := week{compartment: compartment}
	if _, err := fmt.Sscanf(name, "%04d-w%02d", &w.year, &w.n); err != nil {
		return week{}, false
	}
	return w, w.name() == name && weekOf(compartment, w.monday()) == w
}

// storage is one week, open or not. The fields are guarded by Index.mu, s besides
// by mu: whoever holds a pin may use s, whoever opens or closes holds mu.
type storage struct {
	week week
	dir  string

	pins int
	used int64

	mu sync.Mutex
	s  *logstorage.Storage
}

const (
	openingSuffix = ".opening"
	damagedSuffix = ".damaged-"
	droppedSuffix = ".dropped-"
	partitions    = "partitions"
)

// acquire pins a storage and opens it where needed. Without create an unknown week
// gives nil.
func (x *Index) acquire(w week, create bool) (*storage, error) {
	x.mu.Lock()
	st := x.storages[w]
	if st == nil {
		if !create {
			x.mu.Unlock()
			return nil, nil
		}
		st = &storage{week: w, dir: filepath.Join(x.dir, w.compartment, w.name())}
		x.storages[w] = st
	}
	x.pin(st)
	x.mu.Unlock()

	st.mu.Lock()
	opened := false
	var err error
	if st.s == nil {
		err = x.open(st)
		opened = err == nil
	}
	st.mu.Unlock()
	if err != nil {
		x.release(st)
		return nil, err
	}
	if opened {
		x.closeIdle()
	}
	return st, nil
}

func (x *Index) pin(st *storage) {
	x.clock++
	st.pins++
	st.used = x.clock
}

func (x *Index) release(st *storage) {
	x.mu.Lock()
	st.pins--
	x.mu.Unlock()
}

// open opens a storage under an opening mark: the library ends the process when it
// finds damage, and the mark tells the next start which storage did it.
func (x *Index) open(st *storage) error {
	d := durable.FS{}
	if err := d.MkdirAll(filepath.Dir(st.dir), 0o700); err != nil {
		return err
	}
	if reason := inspect(st.dir); reason != "" {
		return fmt.Errorf("%w: compartment %s, week %s: %s", ErrDamaged, st.week.compartment, st.week.name(), reason)
	}
	mark := st.dir + openingSuffix
	if err := d.WriteFile(mark, []byte("opening\n"), 0o600); err != nil {
		if durable.IsFull(err) { // the library would end the process
			return ErrDiskLow
		}
		return err
	}
	s := logstorage.MustOpenStorage(st.dir, &logstorage.StorageConfig{
		Retention:             century,
		FutureRetention:       century,
		FlushInterval:         flushInterval,
		MinFreeDiskSpaceBytes: x.reserve,
	})
	if err := d.Remove(mark); err != nil {
		s.MustClose()
		return err
	}
	st.s = s
	return nil
}

// closeIdle closes storages that nobody uses until few enough are open.
func (x *Index) closeIdle() {
	for {
		x.mu.Lock()
		var victim *storage
		open := 0
		for _, st := range x.storages {
			// TryLock fails while somebody opens or closes it; then it is busy.
			if !st.mu.TryLock() {
				open++
				continue
			}
			if st.s != nil {
				open++
				if st.pins == 0 && (victim == nil || st.used < victim.used) {
					if victim != nil {
						victim.mu.Unlock()
					}
					victim = st
					continue
				}
			}
			st.mu.Unlock()
		}
		if victim != nil && open <= x.keep {
			victim.mu.Unlock()
			victim = nil
		}
		x.mu.Unlock()
		if victim == nil {
			return
		}
		// Whoever pins it now waits for mu and opens it again.
		s := victim.s
		victim.s = nil
		s.MustClose()
		victim.mu.Unlock()
	}
}

// pinOpen pins the open storages of one compartment, or of all.
func (x *Index) pinOpen(compartment string) []*storage {
	x.mu.Lock()
	defer x.mu.Unlock()
	var open []*storage
	for _, st := range x.storages {
		if compartment != "" && st.week.compartment != compartment {
			continue
		}
		if !st.mu.TryLock() {
			continue // being opened: nothing to flush yet; being closed: closing flushes
		}
		if st.s != nil {
			x.pin(st)
			open = append(open, st)
		}
		st.mu.Unlock()
	}
	return open
}

// days lists the first and last day of events in a storage, without opening it: the
// library keeps one directory for each UTC day.
func (st *storage) days() (first, last time.Time, any bool) {
	entries, err := os.ReadDir(filepath.Join(st.dir, partitions))
	if err != nil {
		return first, last, false
	}
	for _, e := range entries {
		day, err := time.Parse("20060102", e.Name())
		if err != nil {
			continue
		}
		if !any || day.Before(first) {
			first = day
		}
		if !any || day.After(last) {
			last = day
		}
		any = true
	}
	return first, last, any
}

// partFiles are in every part that version v1.121.0 writes.
var (
	dataFiles  = []string{"metadata.json", "metaindex.bin", "index.bin", "column_names.bin", "columns_header_index.bin", "columns_header.bin", "timestamps.bin", "message_values.bin", "message_bloom.bin"}
	indexFiles = []string{"metadata.json", "metaindex.bin", "index.bin", "items.bin", "lens.bin"}
)

// inspect finds the damage that would end the process at opening, as far as names
// and lists show it. It answers with a reason, or with nothing.
func inspect(dir string) string {
	days, err := os.ReadDir(filepath.Join(dir, partitions))
	if os.IsNotExist(err) {
		return ""
	}
	if err != nil {
		return "its days cannot be listed"
	}
	for _, day := range days {
		if _, err := time.Parse("20060102", day.Name()); err != nil {
			return "it holds a directory that is no day"
		}
		path := filepath.Join(dir, partitions, day.Name())
		_, ierr := os.Stat(filepath.Join(path, "indexdb"))
		_, derr := os.Stat(filepath.Join(path, "datadb"))
		if derr == nil && ierr != nil {
			return "day " + day.Name() + " has rows and no index of them"
		}
		if r := inspectParts(filepath.Join(path, "indexdb"), indexFiles); r != "" {
			return "day " + day.Name() + ": " + r
		}
		if r := inspectParts(filepath.Join(path, "datadb"), dataFiles); r != "" {
			return "day " + day.Name() + ": " + r
		}
	}
	return ""
}

func inspectParts(dir string, files []string) string {
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return ""
	}
	if err != nil {
		return "its parts cannot be listed"
	}
	list, err := os.ReadFile(filepath.Join(dir, "parts.json"))
	if os.IsNotExist(err) {
		for _, e := range entries {
			if e.IsDir() && !strings.Contains(e.Name(), "tmp") {
				return "it has parts and no list of them"
			}
		}
		return ""
	}
	var parts []string
	if err != nil || json.Unmarshal(list, &parts) != nil {
		return "its list of parts cannot be read"
	}
	for _, p := range parts {
		for _, f := range files {
			if _, err := os.Stat(filepath.Join(dir, p, f)); err != nil {
				return "a part that it lists is missing or not whole"
			}
		}
		meta, err := os.ReadFile(filepath.Join(dir, p, "metadata.json"))
		if err != nil || !json.Valid(meta) {
			return "the description of a part cannot be read"
		}
	}
	return ""
}
