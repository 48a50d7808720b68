// Package ledger is the second of the two truths: what people and the system did.
// It owns statements, the transparency log that they stand in, the witnesses of its
// checkpoints, and the proofs made from it; docs/formats/ledger.md has every byte.
//
// It promises: a statement that Add acknowledged is durable and never leaves the
// log; statements of a node have numbers without a gap and an id that no other has;
// what AddWitnessed acknowledged stands under a checkpoint whose cosignatures this
// package has verified; a leaf holds words, ids and digests only. VerifyDir and
// VerifyProof trust the keys that they are given and nothing else.
//
// Who may do what, and whether an act must wait for witnesses, is the caller's.
// Keys come from the caller; an act takes effect after its statement, not before.
package ledger

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/counterseal/counterseal/internal/durable"
)

var (
	// ErrUnknown is wrapped by Add when it cannot say whether the statement stands
	// in the log. It may still come to stand there, so do not add it again under
	// another id, and do not act on it.
	ErrUnknown = errors.New("not known to be in the ledger")
	// ErrReused is wrapped by Add for an id that was added with other content.
	ErrReused = errors.New("the id of the statement is taken")
	// ErrRolledBack is wrapped by Open when the directory holds less than a
	// checkpoint in it, or another log. Going on would sign a fork.
	ErrRolledBack = errors.New("the ledger is older than its own checkpoint")
	// ErrUncovered is wrapped by Prove for a statement that is newer than the newest
	// checkpoint. It will be under the next one.
	ErrUncovered = errors.New("not under a checkpoint yet")
	// ErrClosed is wrapped after Close.
	ErrClosed = errors.New("the ledger is closed")
)

// Options say where a ledger is and who signs and witnesses it.
type Options struct {
	Dir    string          // of this ledger alone; one process at a time
	Origin string          // names the log for ever: one origin, one history
	Key    crypto.Signer   // an Ed25519 key that signs checkpoints; it may live in a token or a service
	Others []crypto.Signer // sign beside it while one takes over from another
	Node   string          // the writing node, in every statement

	Witnesses []Witness
	Threshold int // independent witnesses that a checkpoint needs; 0: all

	// Deadline bounds Add, and AddWitnessed for the part before witnesses are
	// asked. 0: 10 s.
	Deadline time.Duration
	// WitnessDeadline bounds the wait of AddWitnessed for cosignatures. 0: 10 s.
	WitnessDeadline time.Duration
	// WitnessTimeout bounds one question to one witness. 0: 2 s.
	WitnessTimeout time.Duration
	// Heartbeat is how often an idle log asks for fresh cosignatures. 0: 1 min.
	Heartbeat time.Duration

	OnAlarm func(Alarm)      // called from the ledger's own goroutines; must not block
	Now     func() time.Time // nil: time.Now
	Client  *http.Client     // asks witnesses; nil: one of our own
	FS      durable.FS       // the disk, for what is ours beside the log
	Log     *slog.Logger
}

// appender is what the log library does for us.
type appender struct {
	// add begins to add a leaf. The function that it returns waits, without a
	// context, until the leaf is durable in the tree.
	add      func(ctx context.Context, leaf []byte) func() (uint64, error)
	shutdown func(ctx context.Context) error
}

// Bounds of one round of the writer, and of what it remembers.
const (
	groupCount = 256
	groupBytes = 2 << 20
	recentIDs  = 4096
)

// Ledger is an open ledger. It is safe for concurrent use.
type Ledger struct {
	o      Options
	log    *slog.Logger
	files  files
	trust  *trust
	kinds  map[string]Kind
	lock   *durable.Locked
	app    *appender
	outbox outbox // the writer's
	in     chan *adding

	stop   context.CancelFunc // ends the goroutines below and the library
	quit   chan struct{}      // closed by Close: nothing new comes in
	writer sync.WaitGroup     // the writer
	rest   sync.WaitGroup     // the witness loop and its questions
	adders sync.RWMutex       // held for reading while something is put into in
	closed bool               // guarded by adders

	mu        sync.Mutex // guards all below
	size      int64      // statements that are durable in the log
	seq       uint64     // of the last statement of this node
	recent    map[uuid.UUID]placed
	order     []uuid.UUID // of recent, oldest first
	changed   chan struct{}
	waiting   int // AddWitnessed calls
	witnessed opened
	covered   sinceCache
	alarms    []Alarm
	raised    map[string]time.Time

	clients []*witnessClient
	wake    chan struct{}
}

// placed is where a statement went.
type placed struct {
	index int64
	leaf  []byte
}

// adding is a statement on its way.
type adding struct {
	s    Statement
	done chan added // one answer
}

type added struct {
	index int64
	err   error
}

// Open opens or makes a ledger and brings in what an earlier process had written
// down and not added. It refuses a directory that another process, or another
// Ledger of this one, has open, and one that is older than its own checkpoint.
func Open(ctx context.Context, o Options) (l *Ledger, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		p    *time.Duration
		with time.Duration
	}{{&o.Deadline, 10 * time.Second}, {&o.WitnessDeadline, 10 * time.Second}, {&o.WitnessTimeout, 2 * time.Second}, {&o.Heartbeat, time.Minute}} {
		if *d.p <= 0 {
			*d.p = d.with
		}
	}
	if !IsWord(o.Node) {
		return nil, errors.New("opening the ledger: the node has no name, or one with more than a word")
	}
	l = &Ledger{
		o: o, log: o.Log, kinds: kindTable(),
		files:  files{root: filepath.Join(o.Dir, logDir)},
		in:     make(chan *adding, groupCount),
		quit:   make(chan struct{}),
		recent: map[uuid.UUID]placed{}, raised: map[string]time.Time{},
		changed: make(chan struct{}), wake: make(chan struct{}, 1),
		outbox: outbox{fs: o.FS, path: filepath.Join(o.Dir, outboxName), broken: errors.New("the outbox is not open")},
	}
	sign, v, err := signer(o.Origin, o.Key)
	if err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	var others []note.Signer
	vkeys := []string{}
	for _, k := range append([]crypto.Signer{o.Key}, o.Others...) {
		s, lv, err := signer(o.Origin, k)
		if err != nil {
			return nil, fmt.Errorf("opening the ledger: %w", err)
		}
		vkey, err := VKey(o.Origin, k.Public())
		if err != nil {
			return nil, fmt.Errorf("opening the ledger: %w", err)
		}
		vkeys = append(vkeys, vkey)
		if lv.KeyHash() != v.KeyHash() {
			others = append(others, s)
		}
	}
	l.trust, err = Verifiers{Log: vkeys, Witnesses: o.Witnesses}.parse()
	if err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	groups := map[string]bool{}
	for _, w := range l.trust.witnesses {
		groups[w.group] = true
	}
	if l.trust.threshold = o.Threshold; o.Threshold == 0 {
		l.trust.threshold = len(groups)
	}
	if l.trust.threshold < 0 || l.trust.threshold > len(groups) {
		return nil, fmt.Errorf("opening the ledger: the threshold is %d and there are %d independent witnesses", o.Threshold, len(groups))
	}
	if l.clients, err = newWitnessClients(o, l.trust); err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	if err := o.FS.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	if l.lock, err = durable.Lock(o.Dir); err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	// The library's own context: the caller's may end before Close has resolved
	// what was added, and then futures would never resolve.
	bg, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	made := l // a return of nil, err has cleared l by then
	defer func() {
		if err != nil {
			stop()
			made.outbox.close()
			made.lock.Release()
		}
	}()
	if err := l.checkOwn(); err != nil {
		return nil, err
	}
	// A first start makes the tree before the first checkpoint, so one that was
	// cut short between them has a tree and no checkpoint; the library then
	// publishes at its next turn.
	if l.app, err = newAppender(bg, l.files.root, sign, others); err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	st, err := l.files.state()
	if err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	l.size = st.size
	if err := l.reconcile(ctx); err != nil {
		return nil, err
	}
	l.writer.Go(l.write)
	l.rest.Go(func() { l.witnessLoop(bg) })
	return l, nil
}

// checkOwn compares what the directory holds with the checkpoints in it: the
// integrated tree must contain the published one and the witnessed one.
func (l *Ledger) checkOwn() error {
	// A tree that the library lost next to a checkpoint that it kept would be
	// begun anew at entry 0, so a missing state counts as an empty tree here.
	st, err := l.files.state()
	if errors.Is(err, fs.ErrNotExist) {
		st, err = tree{}, nil
	}
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	for _, name := range []string{"../" + witnessedName, "checkpoint"} {
		raw, err := l.files.read(name, maxCheckpoint)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("opening the log: %w", err)
		}
		file := filepath.Base(name)
		o, err := l.trust.open(raw)
		if err != nil {
			return fmt.Errorf("opening the log: %s: %w", file, err)
		}
		if o.size > st.size {
			return fmt.Errorf("%w: %s has %d statements, the log %d", ErrRolledBack, file, o.size, st.size)
		}
		if o.size > 0 {
			p, err := tlog.ProveTree(st.size, o.size, l.files.hashes(st))
			if err != nil {
				return fmt.Errorf("opening the log: %w", err)
			}
			if tlog.CheckTree(p, st.size, st.root, o.size, o.root) != nil {
				return fmt.Errorf("%w: %s is of another history", ErrRolledBack, file)
			}
		}
		if file == witnessedName && l.trust.witnessed(o) {
			l.witnessed = o
		}
	}
	return nil
}

// reconcile compares outbox and log and adds what is missing with the same bytes.
func (l *Ledger) reconcile(ctx context.Context) error {
	path := l.outbox.path
	c, err := readOutbox(path)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return fmt.Errorf("reading the outbox: %w", err)
	}
	if c.damage != "" {
		aside := path + ".damaged-" + l.o.Now().UTC().Format("20060102T150405.000000")
		if err := l.o.FS.Rename(path, aside); err != nil {
			return fmt.Errorf("setting a damaged outbox aside: %w", err)
		}
		l.alarm(Alarm{Kind: AlarmOutbox, What: "the outbox is damaged: " + c.damage + "; kept as " + filepath.Base(aside)})
	}
	if c.base > l.size {
		return fmt.Errorf("%w: the outbox was begun at %d statements, the log has %d", ErrRolledBack, c.base, l.size)
	}
	base, last := c.base, c.last
	if missing || strings.Contains(c.damage, "head") {
		// Without a base, the end of the log says which number was the last.
		if base, last, err = l.lastOf(ctx); err != nil {
			return err
		}
	}
	pending := map[uuid.UUID]*adding{}
	var todo []*adding
	for _, leaf := range c.leaves {
		s, err := Parse(leaf)
		if err != nil {
			l.alarm(Alarm{Kind: AlarmOutbox, What: "the outbox holds a line that is no statement"})
			continue
		}
		a := &adding{s: s}
		pending[s.ID] = a
		todo = append(todo, a)
	}
	in := map[uint64]bool{}
	_, err = l.Each(ctx, uint64(base), func(i uint64, s Statement, raw []byte) error {
		if a, ok := pending[s.ID]; ok {
			if own, _ := a.s.Canonical(); !bytes.Equal(own, raw) {
				l.alarm(Alarm{Kind: AlarmDouble, What: "the id of statement " + strconv.FormatUint(i, 10) + " is taken by other bytes in the outbox"})
			}
			delete(pending, s.ID)
		}
		l.remember(s.ID, placed{index: int64(i), leaf: raw})
		if s.Node == l.o.Node {
			in[s.Seq] = true
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading the log: %w", err)
	}
	todo = slices.DeleteFunc(todo, func(a *adding) bool { return pending[a.s.ID] != a })
	high := last
	for n := range in {
		high = max(high, n)
	}
	for _, a := range todo {
		if a.s.Node == l.o.Node {
			high = max(high, a.s.Seq)
			in[a.s.Seq] = true
		}
	}
	for n := last + 1; n <= high; n++ {
		if !in[n] {
			l.alarm(Alarm{Kind: AlarmGap, What: "statement " + strconv.FormatUint(n, 10) + " of this node is missing"})
			break
		}
	}
	l.seq = high
	if len(todo) > 0 {
		l.log.Info("adding statements that an earlier process had not", "count", len(todo))
		if err := l.place(ctx, todo); err != nil {
			return err
		}
	}
	return l.outbox.reset(l.size, l.seq)
}

// lastOf finds the last number of this node from the end of the log, and an index
// from which all later ones are.
func (l *Ledger) lastOf(ctx context.Context) (base int64, last uint64, err error) {
	for n := (l.size - 1) / tileWidth; n >= 0 && l.size > 0; n-- {
		if err := ctx.Err(); err != nil {
			return 0, 0, err
		}
		entries, err := l.files.bundle(n, widthAt(l.size, n))
		if err != nil {
			return 0, 0, fmt.Errorf("reading the log: %w", err)
		}
		for _, e := range entries {
			if s, err := Parse(e); err == nil && s.Node == l.o.Node {
				last = max(last, s.Seq)
			}
		}
		if last > 0 {
			break
		}
	}
	return l.size, last, nil
}

// Add appends a statement and returns its index when it is durable. Node and Seq
// are given here. The same statement added again, after an answer that got lost,
// has the same index for as long as its id is among the last few thousand.
func (l *Ledger) Add(ctx context.Context, s Statement) (index uint64, err error) {
	if s.Node != "" || s.Seq != 0 {
		return 0, fmt.Errorf("%w: node and seq are given by the ledger", ErrForm)
	}
	s.Node, s.Seq = l.o.Node, 1
	if err := checkKind(l.kinds, &s); err != nil {
		return 0, err
	}
	// With any number: the real one is at most 19 bytes longer.
	if c, err := s.Canonical(); err != nil {
		return 0, err
	} else if len(c) > MaxStatement-19 {
		return 0, fmt.Errorf("%w: %d bytes, more than %d", ErrForm, len(c), MaxStatement-19)
	}
	ctx, cancel := context.WithTimeout(ctx, l.o.Deadline)
	defer cancel()
	a := &adding{s: s, done: make(chan added, 1)}
	if err := l.put(ctx, a); err != nil {
		return 0, err
	}
	select {
	case r := <-a.done:
		return uint64(r.index), r.err
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
	}
}

func (l *Ledger) put(ctx context.Context, a *adding) error {
	l.adders.RLock()
	defer l.adders.RUnlock()
	if l.closed {
		return ErrClosed
	}
	select {
	case l.in <- a:
		return nil
	case <-l.quit:
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("adding a statement: %w", ctx.Err())
	}
}

// write is the one goroutine that numbers, writes down and adds statements. It
// ends when in is closed and everything in it has an answer.
func (l *Ledger) write() {
	for first := range l.in {
		group := []*adding{first}
		for bytes := MaxStatement; len(group) < groupCount && bytes < groupBytes; bytes += MaxStatement {
			select {
			case a, ok := <-l.in:
				if !ok {
					break
				}
				group = append(group, a)
				continue
			default:
			}
			break
		}
		l.writeGroup(group)
	}
}

func (l *Ledger) writeGroup(group []*adding) {
	fail := func(group []*adding, err error) {
		for _, a := range group {
			a.done <- added{err: err}
		}
	}
	if l.outbox.broken != nil {
		// Everything that was written down is in the log, or was refused.
		if err := l.outbox.reset(l.size64(), l.lastSeq()); err != nil {
			fail(group, err)
			return
		}
	}
	seq := l.lastSeq()
	var fresh []*adding
	var leaves [][]byte
	again := map[uuid.UUID]*adding{}
	var twins []*adding
	for _, a := range group {
		if p, ok := l.find(a.s.ID); ok {
			a.done <- sameOr(a, p)
			continue
		}
		if again[a.s.ID] != nil {
			twins = append(twins, a)
			continue
		}
		a.s.Seq = seq + 1
		leaf, err := a.s.Canonical()
		if err != nil {
			a.done <- added{err: err}
			continue
		}
		seq++
		again[a.s.ID] = a
		fresh = append(fresh, a)
		leaves = append(leaves, leaf)
	}
	if len(fresh) > 0 {
		if err := l.outbox.append(leaves); err != nil {
			fail(fresh, err)
			fail(twins, err)
			return
		}
		l.mu.Lock()
		l.seq = seq
		l.mu.Unlock()
		if err := l.place(context.Background(), fresh); err != nil {
			fail(twins, err)
			return
		}
	}
	for _, a := range twins {
		p, ok := l.find(a.s.ID)
		if !ok {
			p = placed{index: -1}
		}
		a.done <- sameOr(a, p)
	}
	if l.outbox.size > outboxFull {
		if err := l.outbox.reset(l.size64(), l.lastSeq()); err != nil {
			l.log.Warn("the outbox could not be made anew", "error", err)
		}
	}
}

// sameOr answers a statement whose id is in the log.
func sameOr(a *adding, p placed) added {
	if old, err := Parse(p.leaf); err == nil {
		s := a.s
		s.Seq = old.Seq
		if c, err := s.Canonical(); err == nil && bytes.Equal(c, p.leaf) {
			return added{index: p.index}
		}
	}
	return added{err: ErrReused}
}

// place adds statements that are in the outbox and answers each. An error of the
// library says nothing about what stands in the log, so place looks, and adds what
// is not there again with the same bytes, until all are there or the ledger closes.
func (l *Ledger) place(ctx context.Context, group []*adding) error {
	wait := 10 * time.Millisecond
	for try := 0; len(group) > 0; try++ {
		type flight struct {
			a    *adding
			leaf []byte
			wait func() (uint64, error)
		}
		var flights []flight
		for _, a := range group {
			leaf, err := a.s.Canonical()
			if err != nil {
				return err // it was canonical when it was written down
			}
			flights = append(flights, flight{a, leaf, l.app.add(ctx, leaf)})
		}
		size := l.size64()
		top := size
		var failed error
		var landed []func()
		for _, f := range flights {
			i, err := f.wait()
			if err != nil {
				failed = err
				continue
			}
			top = max(top, int64(i)+1)
			landed = append(landed, func() { l.landed(f.a, placed{int64(i), f.leaf}) })
		}
		if failed == nil {
			l.grow(top)
			for _, f := range landed {
				f()
			}
			return nil
		}
		l.log.Warn("the log did not say that it took statements; looking", "error", failed)
		l.alarm(Alarm{Kind: AlarmDisk, What: "the log cannot be written"})
		if err := l.look(&group, size); err != nil {
			l.log.Warn("the log cannot be read", "error", err)
		}
		if len(group) == 0 {
			return nil
		}
		select {
		case <-l.quit: // the outbox keeps them for the next start
			for _, a := range group {
				if a.done != nil {
					a.done <- added{err: fmt.Errorf("%w: %w", ErrUnknown, ErrClosed)}
				}
			}
			return fmt.Errorf("adding statements: %w", ErrClosed)
		case <-ctx.Done():
			return fmt.Errorf("adding statements: %w", ctx.Err())
		case <-time.After(wait):
		}
		wait = min(2*wait, time.Second)
	}
	return nil
}

// look finds which statements of a group stand in the log from an index on,
// answers them and leaves the others in the group.
func (l *Ledger) look(group *[]*adding, from int64) error {
	st, err := l.files.state()
	if err != nil {
		return err
	}
	byID := map[uuid.UUID]*adding{}
	for _, a := range *group {
		byID[a.s.ID] = a
	}
	at := map[uuid.UUID]placed{}
	_, err = l.each(context.Background(), from, st.size, func(i uint64, s Statement, raw []byte) error {
		if _, ok := at[s.ID]; !ok && byID[s.ID] != nil {
			at[s.ID] = placed{int64(i), raw}
		}
		return nil
	})
	if err != nil {
		return err
	}
	l.grow(st.size)
	*group = slices.DeleteFunc(*group, func(a *adding) bool {
		p, ok := at[a.s.ID]
		if ok {
			l.landed(a, p)
		}
		return ok
	})
	return nil
}

func (l *Ledger) landed(a *adding, p placed) {
	l.remember(a.s.ID, p)
	if a.done != nil {
		a.done <- added{index: p.index}
	}
}

// grow moves the size and wakes whoever waits for it.
func (l *Ledger) grow(size int64) {
	l.mu.Lock()
	if size > l.size {
		l.size = size
		l.broadcast()
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// broadcast wakes all waiters. The caller holds mu.
func (l *Ledger) broadcast() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *Ledger) find(id uuid.UUID) (placed, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, ok := l.recent[id]
	return p, ok
}

func (l *Ledger) remember(id uuid.UUID, p placed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.recent[id]; ok {
		return // the first index wins
	}
	l.recent[id] = p
	l.order = append(l.order, id)
	if len(l.order) > recentIDs {
		delete(l.recent, l.order[0])
		l.order = l.order[1:]
	}
}

// Size is how many statements are durable in the log.
func (l *Ledger) Size() uint64 { return uint64(l.size64()) }

// size64 is Size, signed.
func (l *Ledger) size64() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.size
}

func (l *Ledger) lastSeq() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seq
}

// Wait returns when the log has at least size statements.
func (l *Ledger) Wait(ctx context.Context, size uint64) error {
	return l.until(ctx, func() bool { return uint64(l.size) >= size })
}

// until waits for a condition on what mu guards.
func (l *Ledger) until(ctx context.Context, ok func() bool) error {
	for {
		l.mu.Lock()
		done, changed := ok(), l.changed
		l.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-l.quit:
			return ErrClosed
		}
	}
}

// Each calls fn for every durable statement from an index on, in order, and
// returns the index to go on from. raw is the leaf. It ends at the size that the
// log had when it began, or at the first error.
func (l *Ledger) Each(ctx context.Context, from uint64, fn func(index uint64, s Statement, raw []byte) error) (next uint64, err error) {
	n, err := l.each(ctx, int64(from), l.size64(), fn)
	return uint64(n), err
}

func (l *Ledger) each(ctx context.Context, from, size int64, fn func(index uint64, s Statement, raw []byte) error) (int64, error) {
	return eachIn(ctx, l.files, from, size, fn)
}

func eachIn(ctx context.Context, f files, from, size int64, fn func(index uint64, s Statement, raw []byte) error) (int64, error) {
	for from < size {
		if err := ctx.Err(); err != nil {
			return from, err
		}
		n := from / tileWidth
		entries, err := f.bundle(n, widthAt(size, n))
		if err != nil {
			return from, fmt.Errorf("reading the ledger: %w", err)
		}
		for _, raw := range entries[from%tileWidth:] {
			s, err := Parse(raw)
			if err != nil {
				return from, fmt.Errorf("statement %d of the ledger: %w", from, err)
			}
			if err := fn(uint64(from), s, raw); err != nil {
				return from, err
			}
			from++
		}
	}
	return from, nil
}

// Checkpoint is the newest checkpoint that the log has published: with
// cosignatures where the witnesses have seen that size, else without.
func (l *Ledger) Checkpoint() ([]byte, error) {
	o, err := l.published()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.witnessed.raw != nil && l.witnessed.size >= o.size {
		return l.witnessed.raw, nil
	}
	return o.raw, nil
}

// published reads the checkpoint of the log.
func (l *Ledger) published() (opened, error) {
	raw, err := l.files.read("checkpoint", maxCheckpoint)
	if err != nil {
		return opened{}, fmt.Errorf("reading the checkpoint: %w", err)
	}
	o, err := l.trust.open(raw)
	if err != nil {
		return o, fmt.Errorf("reading the checkpoint: %w", err)
	}
	return o, nil
}

// Prove makes a tlog-proof for a statement: under the witnessed checkpoint where
// it covers the statement, else under the published one.
func (l *Ledger) Prove(_ context.Context, index uint64) ([]byte, error) {
	l.mu.Lock()
	o := l.witnessed
	l.mu.Unlock()
	if uint64(o.size) <= index {
		var err error
		if o, err = l.published(); err != nil {
			return nil, err
		}
	}
	return l.files.prove(int64(index), o)
}

// prove makes a tlog-proof from the tiles. Every hash is checked on the way.
func (f files) prove(index int64, o opened) ([]byte, error) {
	if index >= o.size {
		return nil, fmt.Errorf("statement %d: %w; it has %d", index, ErrUncovered, o.size)
	}
	p, err := tlog.ProveRecord(o.size, index, f.hashes(o.tree))
	if err != nil {
		return nil, fmt.Errorf("proving statement %d: %w", index, err)
	}
	return formatProof(index, p, o.raw), nil
}

// Close takes no more statements, answers those on their way, lets the log publish
// a checkpoint over them, asks the witnesses once more, and gives the directory
// back. The order matters: a future of the library never resolves after its
// context has ended.
func (l *Ledger) Close() error {
	l.adders.Lock()
	if l.closed {
		l.adders.Unlock()
		return nil
	}
	l.closed = true
	close(l.in)
	l.adders.Unlock()
	// The writer drains in. If the log cannot be written it gives up at quit.
	drained := make(chan struct{})
	go func() { l.writer.Wait(); close(drained) }()
	var errs []error
	select {
	case <-drained:
	case <-time.After(l.o.Deadline):
		errs = append(errs, errors.New("the log still cannot be written; the outbox keeps the rest"))
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.o.Deadline)
	defer cancel()
	if err := l.app.shutdown(ctx); err != nil {
		errs = append(errs, fmt.Errorf("waiting for the last checkpoint: %w", err))
	}
	if l.trust.threshold > 0 {
		last, done := context.WithTimeout(ctx, l.o.WitnessTimeout)
		size := l.size64()
		l.until(last, func() bool { return l.witnessed.size >= size }) // unwitnessed is no error: the next start asks again
		done()
	}
	close(l.quit)
	<-drained
	l.stop()
	l.rest.Wait()
	errs = append(errs, l.outbox.close(), l.lock.Release())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("closing the ledger: %w", err)
	}
	return nil
}
