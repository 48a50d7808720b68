package index

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/counterseal/counterseal/internal/durable"
)

// markFile holds, for each compartment, the position up to which every row is on
// disk in all storages of the compartment.
const markFile = "mark"

// marks ages positions until their rows have settled. Ages are measured on the
// monotonic clock: a jump of the wall clock moves no mark.
type marks struct {
	mu sync.Mutex
	of map[string]*mark
}

type mark struct {
	path   string
	stored string // what the file says
	noted  []note // oldest first
}

type note struct {
	position string
	at       time.Time
}

func (m *marks) get(compartment, dir string) *mark {
	if m.of == nil {
		m.of = make(map[string]*mark)
	}
	k := m.of[compartment]
	if k == nil {
		k = &mark{path: filepath.Join(dir, markFile)}
		m.of[compartment] = k
	}
	return k
}

func (m *marks) load(compartment, dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, markFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.get(compartment, dir).stored = string(b)
	return nil
}

// Note says that every row up to a position of the compartment's event stream was
// appended. The position becomes the mark once its rows have settled. Positions are
// noted in order; the index does not read them.
func (x *Index) Note(compartment, position string) {
	x.marks.mu.Lock()
	defer x.marks.mu.Unlock()
	k := x.marks.get(compartment, filepath.Join(x.dir, compartment))
	now := time.Now()
	// A few notes a second are enough; the newest of a moment stands for it.
	if n := len(k.noted); n > 1 && now.Sub(k.noted[n-2].at) < flushInterval/4 {
		k.noted[n-1] = note{position, now}
		return
	}
	k.noted = append(k.noted, note{position, now})
}

// Mark returns the position up to which all rows of a compartment are on disk, as
// far as the library tells; empty where none is known, then the caller replays from
// the beginning. After an unclean end it replays from the mark less a margin and
// asks Has.
func (x *Index) Mark(compartment string) string {
	x.marks.mu.Lock()
	defer x.marks.mu.Unlock()
	if k := x.marks.of[compartment]; k != nil {
		return k.stored
	}
	return ""
}

// age writes marks whose rows have settled, until Close.
func (x *Index) age() {
	defer x.done.Done()
	t := time.NewTicker(flushInterval)
	defer t.Stop()
	for {
		select {
		case <-x.stop:
			return
		case now := <-t.C:
			if err := x.marks.settle(now.Add(-settle)); err != nil {
				// The mark stays where it was: a replay does more work and loses nothing.
				x.log.Error("index: writing a mark", "error", err)
			}
		}
	}
}

// settle writes the newest position of each compartment noted before a moment.
func (m *marks) settle(before time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var first error
	for _, k := range m.of {
		n := 0
		for n < len(k.noted) && !k.noted[n].at.After(before) {
			n++
		}
		if n == 0 {
			continue
		}
		position := k.noted[n-1].position
		if position != k.stored {
			if err := k.write(position); err != nil {
				if first == nil {
					first = err
				}
				continue
			}
		}
		k.noted = append(k.noted[:0], k.noted[n:]...)
	}
	return first
}

func (k *mark) write(position string) error {
	d := durable.FS{}
	if err := d.MkdirAll(filepath.Dir(k.path), 0o700); err != nil {
		return err
	}
	if err := d.WriteFile(k.path, []byte(position), 0o600); err != nil {
		return err
	}
	k.stored = position
	return nil
}

// settleAll is for a clean close: every storage has been closed, so every row is on
// disk.
func (m *marks) settleAll() error { return m.settle(time.Now().Add(time.Hour)) }
