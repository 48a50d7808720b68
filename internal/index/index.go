// Package index is the event store that people search: rows of events and findings
// in VictoriaLogs storages, one storage for each compartment and ISO week of
// sealing. It is the only importer of lib/logstorage.
//
// The index is a view. It promises that what it answers was appended and that
// values come back byte for byte. It does not promise durability: Append returns
// before anything is on disk, a crash loses rows of the last seconds and not as a
// clean tail. So the caller replays the event stream from Mark, asks Has, and adds
// what is missing. A storage that cannot be opened is moved aside and its mark is
// forgotten, so that the same replay fills it again.
//
// Limits of the library are tested before it sees a row, because it drops and logs
// what is beyond them: such a row keeps its OCSF part and says truncated. Null and
// empty values are not stored. A field with several values is stored as package
// query describes.
//
// Known gaps. The library exits the process when the disk fails under it; the
// reserve of Options makes a full disk an error of Append before that. It does not
// sync the directory of a new part, so a power cut can cost more than the window of
// Mark: rebuild the last day after one.
package index

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/VictoriaMetrics/lib/logstorage"
	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/event"
)

// Errors that a caller may ask for.
var (
	// ErrDiskLow says that less than the reserve is free: nothing was added. A search
	// answers it where a closed storage cannot be opened for want of any space.
	ErrDiskLow = errors.New("disk_low: the index adds nothing while less than its reserve is free")
	// ErrClosed says that the index was closed.
	ErrClosed = errors.New("the index is closed")
	// ErrDamaged says that a storage was damaged while we ran. It is moved aside at
	// the next Open.
	ErrDamaged = errors.New("a storage of the index is damaged")
	// ErrTable says that Query was asked a question whose answer is a table, or
	// Stats one whose answer is events.
	ErrTable = errors.New("this question is answered by the other method")
)

const (
	// flushInterval is the least that the library allows.
	flushInterval = time.Second
	// settle is the time after which a crash no longer loses an added row.
	settle = 2*flushInterval + time.Second
	// century stands for no retention: ours is decided by whole weeks, and a wrong
	// clock at opening must not delete.
	century = 100 * 366 * 24 * time.Hour

	// lockDir is no name of a compartment.
	lockDir = ".lock"

	defaultMemory = 256 << 20
	defaultOpen   = 16
)

// Options are what Open needs.
type Options struct {
	Dir          string // the directory of all storages
	Logger       *slog.Logger
	MemoryBytes  int   // for the library's caches; the first Open of a process decides; default 256 MiB
	ReserveBytes int64 // Append fails with ErrDiskLow while less is free
	OpenStorages int   // storages kept open while idle; default 16
	Now          func() time.Time
}

// Index is an open index. Its methods may be called at the same time.
type Index struct {
	dir     string
	log     *slog.Logger
	reserve int64
	keep    int
	now     func() time.Time

	life   sync.RWMutex // held for reading by every method, for writing by Close
	closed bool

	mu       sync.Mutex // guards the fields below
	storages map[week]*storage
	clock    int64 // counts uses, for the choice of the storage to close
	damaged  []Damage

	marks marks

	encoders sync.Pool // *encoder

	rows, truncated, timeMoved, reserved atomic.Int64

	locked *durable.Locked

	stop chan struct{}
	done sync.WaitGroup // the goroutine that ages marks
}

// setFlags prepares the library once in a process: unparsed flags make it panic,
// and at its usual level it writes values of dropped rows to its log.
var setFlags sync.Once

// Open opens the index of a directory and creates it where there is none. It moves
// damaged storages aside: see Damaged.
func Open(o Options) (*Index, error) {
	if o.Dir == "" {
		return nil, errors.New("opening the index: no directory")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MemoryBytes <= 0 {
		o.MemoryBytes = defaultMemory
	}
	if o.OpenStorages <= 0 {
		o.OpenStorages = defaultOpen
	}
	var ferr error
	setFlags.Do(func() {
		if !flag.CommandLine.Parsed() {
			ferr = flag.CommandLine.Parse(nil)
		}
		for name, v := range map[string]string{"loggerLevel": "ERROR", "memory.allowedBytes": strconv.Itoa(o.MemoryBytes)} {
			if err := flag.Set(name, v); err != nil && ferr == nil {
				ferr = err
			}
		}
	})
	if ferr != nil {
		return nil, fmt.Errorf("opening the index: setting up the library: %w", ferr)
	}
	if err := (durable.FS{}).MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("opening the index: %w", err)
	}
	// The library ends the process when a second one opens its directory.
	locked, err := durable.Lock(filepath.Join(o.Dir, lockDir))
	if err != nil {
		return nil, fmt.Errorf("opening the index: %w", err)
	}
	x := &Index{
		locked: locked,
		dir:    o.Dir, log: o.Logger, reserve: o.ReserveBytes, keep: o.OpenStorages, now: o.Now,
		storages: make(map[week]*storage),
		stop:     make(chan struct{}),
	}
	x.encoders.New = func() any { return newEncoder() }
	if err := x.scan(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the index: %w", err), locked.Release())
	}
	// One goroutine writes marks once their rows have settled. Close stops it and
	// waits.
	x.done.Add(1)
	go x.age()
	return x, nil
}

// scan finds the storages on disk and moves aside those that are damaged.
func (x *Index) scan() error {
	comps, err := os.ReadDir(x.dir)
	if err != nil {
		return err
	}
	for _, c := range comps {
		if !c.IsDir() || event.CheckCompartment(c.Name()) != nil {
			continue
		}
		dir := filepath.Join(x.dir, c.Name())
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if strings.Contains(e.Name(), droppedSuffix) { // Drop did not come to its end
				if err := os.RemoveAll(path); err != nil {
					return err
				}
			}
			w, ok := parseWeek(c.Name(), e.Name())
			if !ok || !e.IsDir() {
				continue
			}
			reason := inspect(path)
			if _, err := os.Stat(path + openingSuffix); err == nil {
				reason = "the process ended while this storage was being opened"
			}
			if reason != "" {
				if err := x.moveAside(w, path, reason); err != nil {
					return err
				}
				continue
			}
			x.storages[w] = &storage{week: w, dir: path}
		}
		if err := x.marks.load(c.Name(), dir); err != nil {
			return err
		}
	}
	return nil
}

// Damage is a storage that Open moved aside. Its compartment has no mark any more,
// so that a replay fills it again.
type Damage struct {
	Compartment string
	Week        string // such as 2026-w09: the week of sealing whose rows are gone
	MovedTo     string
	Reason      string
}

func (x *Index) moveAside(w week, path, reason string) error {
	d := durable.FS{}
	// The mark goes first: with a mark and without the storage nothing would be
	// replayed.
	if err := removeIfThere(filepath.Join(filepath.Dir(path), markFile)); err != nil {
		return err
	}
	to := path + damagedSuffix + strconv.FormatInt(x.now().UnixNano(), 10)
	if err := d.Rename(path, to); err != nil {
		return err
	}
	if err := removeIfThere(path + openingSuffix); err != nil {
		return err
	}
	x.damaged = append(x.damaged, Damage{Compartment: w.compartment, Week: w.name(), MovedTo: to, Reason: reason})
	x.log.Warn("index: a damaged storage was moved aside; its rows come back by replay", "compartment", w.compartment, "week", w.name(), "reason", reason)
	return nil
}

func removeIfThere(path string) error {
	err := (durable.FS{}).Remove(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Damaged lists the storages that Open moved aside.
func (x *Index) Damaged() []Damage {
	x.mu.Lock()
	defer x.mu.Unlock()
	return append([]Damage(nil), x.damaged...)
}

// enter begins a method; the caller defers the function it returns.
func (x *Index) enter() (leave func(), err error) {
	x.life.RLock()
	if x.closed {
		x.life.RUnlock()
		return nil, ErrClosed
	}
	return x.life.RUnlock, nil
}

// Appended counts what Append did.
type Appended struct {
	Rows      int
	Truncated int // beyond the library's limits: the OCSF part that fits was kept
	TimeMoved int // time outside 1970 … sealing + 48 h: stored under the time of sealing
	Reserved  int // OCSF attributes left out because the row itself owns their name
}

// Append adds rows. They can be searched after at most two seconds, or after Flush,
// and are not durable. Nothing is added when it returns an error other than
// ErrDamaged, which it may return with rows of other weeks added: the caller asks
// Has before it tries again.
func (x *Index) Append(ctx context.Context, rows []Row) (Appended, error) {
	leave, err := x.enter()
	if err != nil {
		return Appended{}, err
	}
	defer leave()
	if err := ctx.Err(); err != nil {
		return Appended{}, err
	}
	if len(rows) == 0 {
		return Appended{}, nil
	}
	free, err := durable.Free(x.dir)
	if err != nil {
		return Appended{}, fmt.Errorf("adding to the index: %w", err)
	}
	if free < x.reserve {
		return Appended{}, ErrDiskLow
	}
	late := x.now().Add(50 * 366 * 24 * time.Hour)
	for i := range rows {
		r := &rows[i]
		if err := event.CheckCompartment(r.Compartment); err != nil {
			return Appended{}, fmt.Errorf("adding to the index: row %d: %w", i, err)
		}
		if r.Ref == "" || r.Ref == "*" || r.Sealed.Year() < 1970 || r.Sealed.After(late) {
			return Appended{}, fmt.Errorf("adding to the index: row %d has no reference or no time of sealing", i)
		}
	}

	var sum Appended
	for start := 0; start < len(rows); {
		w := weekOf(rows[start].Compartment, rows[start].Sealed)
		end := start + 1
		for end < len(rows) && weekOf(rows[end].Compartment, rows[end].Sealed) == w {
			end++
		}
		if err := x.appendWeek(w, rows[start:end], &sum); err != nil {
			return sum, fmt.Errorf("adding to the index: %w", err)
		}
		start = end
	}
	x.rows.Add(int64(sum.Rows))
	x.truncated.Add(int64(sum.Truncated))
	x.timeMoved.Add(int64(sum.TimeMoved))
	x.reserved.Add(int64(sum.Reserved))
	return sum, nil
}

func (x *Index) appendWeek(w week, rows []Row, sum *Appended) error {
	st, err := x.acquire(w, true)
	if err != nil {
		return err
	}
	defer x.release(st)
	e := x.encoders.Get().(*encoder)
	defer x.encoders.Put(e)
	lr := logstorage.GetLogRows(streamFields, nil, nil, nil, "")
	defer logstorage.PutLogRows(lr)
	for i := range rows {
		at, fields := e.encode(&rows[i], sum)
		lr.MustAdd(tenant, at, fields, nil)
		if lr.NeedFlush() {
			st.s.MustAddRows(lr)
			lr.ResetKeepSettings()
		}
	}
	st.s.MustAddRows(lr)
	sum.Rows += len(rows)
	return nil
}

// tenant is the one tenant there is: compartments are storages, not tenants.
var tenant = logstorage.TenantID{}

// streamFields are few and stable. An identity or free text is never one of them.
var streamFields = []string{"source", "dataset"}

// Flush makes every appended row searchable. It makes none durable.
func (x *Index) Flush() error {
	leave, err := x.enter()
	if err != nil {
		return err
	}
	defer leave()
	x.flush("")
	return nil
}

// flush flushes the open storages of one compartment, or of all.
func (x *Index) flush(compartment string) {
	for _, st := range x.pinOpen(compartment) {
		st.s.DebugFlush()
		x.release(st)
	}
}

// Totals counts since Open.
type Totals struct {
	Rows, Truncated, TimeMoved, Reserved int64
	// Dropped counts rows that the library dropped; it is a defect unless zero.
	Dropped uint64
	// Storages known and open, and days of events in the open ones.
	Storages, Open int
	Days           uint64
}

// Totals tells what the index did and holds open.
func (x *Index) Totals() (Totals, error) {
	leave, err := x.enter()
	if err != nil {
		return Totals{}, err
	}
	defer leave()
	t := Totals{Rows: x.rows.Load(), Truncated: x.truncated.Load(), TimeMoved: x.timeMoved.Load(), Reserved: x.reserved.Load()}
	for _, st := range x.pinOpen("") {
		var s logstorage.StorageStats
		st.s.UpdateStats(&s)
		t.Dropped += s.RowsDroppedTooBigTimestamp + s.RowsDroppedTooSmallTimestamp
		t.Days += s.PartitionsCount
		t.Open++
		x.release(st)
	}
	x.mu.Lock()
	t.Storages = len(x.storages)
	x.mu.Unlock()
	return t, nil
}

// Week is one storage.
type Week struct {
	Compartment string
	Name        string    // such as 2026-w09
	From, To    time.Time // sealing: from, included, to, not included
}

// Weeks lists the storages, newest first.
func (x *Index) Weeks() []Week {
	var all []Week
	for _, w := range x.weeks(nil) {
		all = append(all, w.week())
	}
	return all
}

// WeekOf is the storage for rows of a compartment that were sealed at a moment,
// whether it is there or not.
func WeekOf(compartment string, sealed time.Time) Week { return weekOf(compartment, sealed).week() }

func (w week) week() Week {
	from := w.monday()
	return Week{w.compartment, w.name(), from, from.AddDate(0, 0, 7)}
}

// Drop deletes one storage, and what was moved aside of it. It waits for the
// searches and appends that are running. Dropping what is not there is no error.
func (x *Index) Drop(compartment, name string) error {
	w, ok := parseWeek(compartment, name)
	if err := event.CheckCompartment(compartment); err != nil || !ok {
		return errors.New("dropping from the index: no such week can be")
	}
	x.life.Lock()
	if x.closed {
		x.life.Unlock()
		return ErrClosed
	}
	path := filepath.Join(x.dir, compartment, name)
	if st := x.storages[w]; st != nil {
		if st.s != nil {
			st.s.MustClose()
			st.s = nil
		}
		delete(x.storages, w)
	}
	// The new name is what makes the drop final; the files may take their time.
	gone := path + droppedSuffix + strconv.FormatInt(x.now().UnixNano(), 10)
	err := (durable.FS{}).Rename(path, gone)
	x.life.Unlock()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("dropping from the index: %w", err)
	}
	leftovers, err := filepath.Glob(path + ".d*-*") // damaged and dropped
	if err != nil {
		return fmt.Errorf("dropping from the index: %w", err)
	}
	for _, p := range leftovers {
		if err := os.RemoveAll(p); err != nil {
			return fmt.Errorf("dropping from the index: %w", err)
		}
	}
	return nil
}

// Close makes everything durable, the marks after the rows, and closes the index.
func (x *Index) Close() error {
	x.life.Lock()
	defer x.life.Unlock()
	if x.closed {
		return nil
	}
	x.closed = true
	close(x.stop)
	x.done.Wait()
	for _, st := range x.storages {
		if st.s != nil {
			st.s.MustClose()
			st.s = nil
		}
	}
	return errors.Join(x.marks.settleAll(), x.locked.Release())
}
