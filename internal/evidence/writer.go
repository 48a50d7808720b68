package evidence

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/event"
)

// States of a request.
const (
	queued    = 0
	taken     = 1 // it has a position, or is about to get one
	cancelled = 2
)

// request is one call that waits for the writer.
type request struct {
	n       int
	size    int // of records with their lengths; 0 before build ran
	records [][]byte
	build   func(event.Ref) ([][]byte, error)
	reason  string // a control request: close the open segment
	state   atomic.Int32
	first   event.Ref
	done    chan error // capacity 1
}

// weight is the size, or a guess before build ran.
func (r *request) weight() int {
	if r.build != nil {
		return 256 * r.n
	}
	return r.size
}

// log is one compartment of one stream: its segments and its writer.
type log struct {
	s           *Store
	stream      Stream
	compartment string
	dir         string

	mu      sync.Mutex // guards the fields down to stopped
	segs    []*segment // in order
	loaded  []*segment // those closed ones with an open reader, last used last
	changed chan struct{}
	queue   []*request
	waiting int // bytes in queue, as far as known
	running bool
	closed  bool

	wake    chan struct{} // capacity 1
	stopped chan struct{}

	// Owned by the writer goroutine, or by recover before it runs.
	w        *openSegment
	last     prevLink
	inflight chan error // nil: no block is being written
	carry    *request   // has its position, did not fit the block before
	leftover uuid.UUID  // a segment that could not be opened and not be removed
	timer    *time.Timer
	frames   [2][]byte
	raw      []byte
	comp     []byte
}

// prevLink is what the next segment says about the one before.
type prevLink struct {
	seq   uint64
	id    uuid.UUID
	state string
	hash  hash
}

// openSegment is the segment being written, with blocks counted as they are
// encoded, before they are durable.
type openSegment struct {
	f      *durable.File
	seg    *segment
	head   *head
	key    *segmentKey
	sums   sums
	opened time.Time
	told   bool  // Opened was asked and agreed
	err    error // it failed: nothing more is written to it
}

func newLog(s *Store, stream Stream, compartment string) *log {
	return &log{
		s: s, stream: stream, compartment: compartment,
		dir:     filepath.Join(s.o.Dir, "evidence", stream.String(), compartment),
		changed: make(chan struct{}), wake: make(chan struct{}, 1), stopped: make(chan struct{}),
	}
}

func (l *log) path(id uuid.UUID, ext string) string {
	return filepath.Join(l.dir, id.String()+ext)
}

// enqueue hands a request to the writer and starts it at the first one. The writer
// ends in close, which waits for it.
func (l *log) enqueue(r *request) error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	l.queue = append(l.queue, r)
	l.waiting += r.weight()
	if !l.running {
		l.running = true
		go l.run()
	}
	l.mu.Unlock()
	l.poke()
	return nil
}

func (l *log) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// control closes the open segment, after everything queued before.
func (l *log) control(reason string) error {
	l.mu.Lock()
	running := l.running
	l.mu.Unlock()
	if !running {
		return nil
	}
	r := &request{reason: reason, done: make(chan error, 1)}
	if err := l.enqueue(r); err != nil {
		return err
	}
	return <-r.done
}

func (l *log) close() error {
	last := &request{reason: reasonStop, done: make(chan error, 1)}
	l.mu.Lock()
	l.closed = true
	running := l.running
	if running {
		l.queue = append(l.queue, last)
	}
	l.mu.Unlock()
	var err error
	if running {
		l.poke()
		err = <-last.done
		<-l.stopped
	}
	l.mu.Lock()
	for _, seg := range l.segs {
		l.unload(seg)
	}
	l.loaded = nil
	l.broadcast()
	l.mu.Unlock()
	return err
}

// run is the writer. It encodes a block while the one before is synced, but only
// when a full block waits: a small one is better filled up meanwhile.
func (l *log) run() {
	defer close(l.stopped)
	l.timer = time.NewTimer(l.s.o.MaxSegmentAge)
	defer l.timer.Stop()
	for {
		l.mu.Lock()
		have := len(l.queue) > 0 || l.carry != nil
		full := l.waiting >= l.s.o.BlockBytes
		closed := l.closed
		l.mu.Unlock()
		if l.inflight != nil && !full {
			select {
			case err := <-l.inflight:
				l.landed(err)
			case <-l.wake:
			}
			continue
		}
		if !have {
			if closed {
				return
			}
			select {
			case <-l.wake:
			case <-l.timer.C:
				if l.w != nil && l.aged() {
					_ = l.finish(reasonAge) // a failure is met again by the next request, or by Close
				}
				l.timer.Reset(l.s.o.MaxSegmentAge)
			}
			continue
		}
		l.gather()
		l.step()
	}
}

// gather lets senders that were just answered queue their next request, so that
// they share a block.
func (l *log) gather() {
	before := -1
	for range 4 {
		l.mu.Lock()
		n, full := len(l.queue), l.waiting >= l.s.o.BlockBytes
		l.mu.Unlock()
		if n == before || full {
			return
		}
		before = n
		runtime.Gosched()
	}
}

// landed takes the result of the block in flight.
func (l *log) landed(err error) {
	l.inflight = nil
	if err != nil {
		l.w.err = err
		return
	}
	l.mu.Lock()
	l.w.seg.chain, l.w.seg.chained = l.w.sums.last, l.w.sums.records
	l.mu.Unlock()
}

// land waits for the block in flight.
func (l *log) land() {
	if l.inflight != nil {
		l.landed(<-l.inflight)
	}
}

// aged tells that the open segment has reached its age, or the end of its ISO week
// in UTC: segment, key and index week are destroyed together.
func (l *log) aged() bool {
	now := l.s.o.Now()
	age := now.Sub(l.w.opened)
	year, week := now.UTC().ISOWeek()
	ofYear, ofWeek := l.w.opened.UTC().ISOWeek()
	return age >= l.s.o.MaxSegmentAge || age < -time.Minute || // the clock went back
		year != ofYear || week != ofWeek
}

// pop takes the first request that was not cancelled, if more(r) wants it.
func (l *log) pop(more func(*request) bool) *request {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queue) > 0 {
		r := l.queue[0]
		if r.state.Load() != cancelled && !more(r) {
			return nil
		}
		l.queue[0] = nil
		l.queue = l.queue[1:]
		l.waiting -= r.weight()
		if len(l.queue) == 0 {
			l.queue = nil
		}
		if r.state.CompareAndSwap(queued, taken) {
			return r
		}
	}
	return nil
}

// step makes one block, or does what a control request asks.
func (l *log) step() {
	if l.carry == nil {
		if r := l.pop(func(r *request) bool { return r.reason != "" }); r != nil {
			l.land()
			r.done <- l.finish(r.reason)
			return
		}
		if err := l.ready(); err != nil {
			// Whoever waits gets the error; the next request tries again.
			if r := l.pop(func(*request) bool { return true }); r != nil {
				r.done <- err
			}
			return
		}
	}
	b := l.fill()
	if b == nil {
		return
	}
	frame, h := l.encode(b)
	l.land()
	if err := l.w.err; err != nil {
		b.answer(err)
		return
	}
	done := make(chan error, 1)
	l.inflight = done
	w := l.w
	go func() { done <- l.commit(w, b, frame) }() // ends by itself; land waits for it
	w.sums.add(h, frame)                          // hashing while the disk works
}

// ready makes sure that an open segment has room for the first request.
func (l *log) ready() error {
	if l.w != nil {
		reason := ""
		n := 0
		l.mu.Lock()
		for _, r := range l.queue {
			if r.state.Load() != cancelled {
				n = r.n
				break
			}
		}
		l.mu.Unlock()
		switch s := &l.w.sums; {
		case l.w.err != nil:
			reason = reasonRecovered
		case s.records == 0:
		case s.end >= l.s.o.MaxSegmentBytes:
			reason = reasonBytes
		case int64(s.records)+int64(n) > l.s.o.MaxSegmentRecords || len(s.table) >= maxBlocks:
			reason = reasonRecords
		case l.aged():
			reason = reasonAge
		}
		if reason != "" {
			l.land()
			if err := l.finish(reason); err != nil {
				return err
			}
		}
	}
	if l.w == nil {
		if err := l.open(); err != nil {
			return err
		}
	}
	if !l.w.told {
		if err := l.s.o.Opened(l.describeOpen(l.w.seg)); err != nil {
			return fmt.Errorf("stating that segment %s is open: %w", l.w.head.id, err)
		}
		l.w.told = true
	}
	return nil
}

// open starts a new segment: card, then file, both durable before a record is
// accepted.
func (l *log) open() error {
	if err := l.abandon(); err != nil {
		return err
	}
	o := &l.s.o
	now := o.Now()
	id := nextID(l.last.id, now)
	secret := newSecret()
	defer clear(secret)
	h := header{
		CardCommit: cardCommit(id, secret).String(), Compartment: l.compartment, Escrow: escrowService,
		Limits: headerLimits{Frame: maxFrame, Record: maxRecord, Records: o.MaxSegmentRecords, Seconds: int64(o.MaxSegmentAge / time.Second), Segment: o.MaxSegmentBytes},
		Opened: now.UTC().Format(timeForm), Segment: id.String(), Seq: strconv.FormatUint(l.last.seq+1, 10),
		Stream: l.stream.String(), Suite: suite, V: 1,
	}
	var boxes [][]byte
	switch {
	case l.stream == Originals && o.Escrow != nil:
		var err error
		if boxes, err = sealKey(&h, o, id, secret); err != nil {
			return fmt.Errorf("sealing the key of segment %s: %w", id, err)
		}
	case l.stream == Originals:
		h.Escrow = escrowNoneYet
	}
	if l.last.seq > 0 {
		h.Prev = &headerPrev{Hash: l.last.hash.String(), Segment: l.last.id.String(), State: l.last.state}
	}
	b, err := encodeHead(&h)
	if err != nil {
		return fmt.Errorf("opening segment %s: %w", id, err)
	}
	hd, err := parseHead(b)
	if err != nil {
		return fmt.Errorf("opening segment %s: %w", id, err)
	}
	if boxes != nil {
		err = writeSealedCard(o.FS, o.Dir, l.stream, id, boxes)
	} else {
		err = writeCard(o.FS, o.Keys, o.Dir, l.stream, id, hd.hash, secret)
	}
	if err != nil {
		return fmt.Errorf("writing the key card of segment %s: %w", id, err)
	}
	if err := o.FS.MkdirAll(l.dir, 0o700); err != nil {
		return fmt.Errorf("opening segment %s: %w", id, err)
	}
	path := l.path(id, extOpen)
	f, err := o.FS.Create(path, 0o600)
	if err == nil {
		if _, err = f.Write(b); err == nil {
			err = f.Sync()
		}
		if err == nil {
			err = o.FS.SyncDir(l.dir)
		}
		if err != nil {
			f.Close()
		}
	}
	if err != nil {
		// No record was accepted, so the file goes and its number is given again. Two
		// segments with one number must never be: nothing is opened before it is gone.
		l.leftover = id
		_ = l.abandon() // tried again by the next open, which then says why
		return fmt.Errorf("opening segment %s: %w", id, err)
	}
	w := &openSegment{f: f, head: hd, key: deriveKey(id, secret), sums: newSums(hd), opened: now, told: o.Opened == nil}
	w.seg = &segment{id: id, state: segOpen, head: hd, end: hd.size, chain: hd.hash}
	l.w = w
	l.timer.Reset(o.MaxSegmentAge)
	l.mu.Lock()
	l.segs = append(l.segs, w.seg)
	l.mu.Unlock()
	l.s.stats[l.stream].segments.Add(1)
	return nil
}

// abandon removes what a failed open left.
func (l *log) abandon() error {
	if l.leftover == (uuid.UUID{}) {
		return nil
	}
	for _, path := range []string{l.path(l.leftover, extOpen), cardPath(l.s.o.Dir, l.leftover)} {
		if err := l.s.o.FS.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing a segment that was never used: %w", err)
		}
	}
	l.leftover = uuid.UUID{}
	return nil
}

// nextID is a UUIDv7 behind last even if the clock went back, so that the order of
// names is the order of segments.
func nextID(last uuid.UUID, now time.Time) uuid.UUID {
	var id uuid.UUID
	copy(id[:], newSecret()[:16])
	ms := uint64(max(now.UnixMilli(), 0))
	if last != (uuid.UUID{}) {
		ms = max(ms, (binary.BigEndian.Uint64(last[:8])>>16)+1)
	}
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], ms<<16)
	copy(id[:6], b[:6])
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id
}

// block is what one frame will hold.
type block struct {
	reqs  []*request
	n     int
	first uint64
	ends  []int // of each record in log.raw
	seg   uuid.UUID
	raw   int
}

func (b *block) answer(err error) {
	for _, r := range b.reqs {
		r.done <- err
	}
}

// fill gives positions to waiting requests and copies their records. nil: none of
// them had any.
func (l *log) fill() *block {
	b := &block{first: l.w.sums.records, seg: l.w.head.id}
	l.raw = l.raw[:0]
	if cap(l.raw) > 4*l.s.o.BlockBytes {
		l.raw = nil
	}
	if r := l.carry; r != nil {
		l.carry = nil
		l.take(b, r)
	}
	for len(l.raw) < l.s.o.BlockBytes {
		r := l.pop(func(r *request) bool {
			if r.reason != "" {
				return false
			}
			if b.n == 0 {
				return true
			}
			return int64(b.first)+int64(b.n+r.n) <= l.s.o.MaxSegmentRecords &&
				fitsFrame(b.n+r.n, len(l.raw)+max(r.size, 4*r.n)) &&
				(r.size == 0 || len(l.raw)+r.size <= l.s.o.BlockBytes+l.s.o.BlockBytes/8)
		})
		if r == nil {
			break
		}
		r.first = event.Ref{Compartment: l.compartment, Segment: b.seg, Ordinal: b.first + uint64(b.n)}
		if r.build != nil {
			if err := r.run(); err != nil {
				r.done <- err
				continue
			}
			if b.n > 0 && !fitsFrame(b.n+r.n, len(l.raw)+r.size) {
				l.carry = r // its numbers stay right: it begins the next block
				break
			}
		}
		l.take(b, r)
	}
	b.raw = len(l.raw)
	if b.n == 0 {
		return nil
	}
	return b
}

// run calls build and checks what it gave.
func (r *request) run() error {
	recs, err := r.build(r.first)
	if err != nil {
		return err
	}
	if len(recs) != r.n {
		return fmt.Errorf("%d records were announced and %d given", r.n, len(recs))
	}
	for _, rec := range recs {
		if len(rec) > maxRecord {
			return ErrTooLarge
		}
		r.size += 4 + len(rec)
	}
	if !fitsFrame(r.n, r.size) {
		return ErrTooLarge
	}
	r.records = recs
	return nil
}

func (l *log) take(b *block, r *request) {
	for _, rec := range r.records {
		l.raw = binary.BigEndian.AppendUint32(l.raw, uint32(len(rec)))
		l.raw = append(l.raw, rec...)
		b.ends = append(b.ends, len(l.raw))
	}
	r.records, r.build = nil, nil
	b.n += r.n
	b.reqs = append(b.reqs, r)
}

// encode makes the frame of a block. The bytes are valid until the call after the
// next one.
func (l *log) encode(b *block) ([]byte, *frameHead) {
	w := l.w
	at := frameHeadLen + 32*b.n
	buf := l.frames[0]
	l.frames[0], l.frames[1] = l.frames[1], nil
	// The hash of the header stands before the frame, so that the additional data
	// is one slice.
	if need := 32 + at + nonceLen + b.raw + b.raw>>8 + 1024; cap(buf) < need || cap(buf) > 4*need+8*l.s.o.BlockBytes {
		buf = make([]byte, 0, need)
	}
	buf = buf[:32+at]
	copy(buf, w.sums.headHash[:])

	leaves := buf[32+frameHeadLen:]
	if b.raw > 64<<10 {
		done := make(chan struct{})
		go func() { // joined below
			l.leaves(b, leaves)
			close(done)
		}()
		l.comp = l.s.enc.EncodeAll(l.raw, l.comp[:0])
		<-done
	} else {
		l.leaves(b, leaves)
		l.comp = l.s.enc.EncodeAll(l.raw, l.comp[:0])
	}
	h := frameHead{
		typ: frameData, length: uint32(at + nonceLen + len(l.comp) + tagLen + 4),
		block: uint32(len(w.sums.table)), first: b.first, n: uint32(b.n), rawLen: uint32(b.raw),
		ms: uint64(max(l.s.o.Now().UnixMilli(), 0)), prev: w.sums.last,
	}
	h.put(buf[32:])
	buf = w.key.aead.Seal(buf, nil, l.comp, buf[:32+at])
	buf = binary.BigEndian.AppendUint32(buf, crcOf(buf[32:]))
	if cap(l.comp) > 4*l.s.o.BlockBytes {
		l.comp = nil
	}
	l.frames[1] = buf
	return buf[32:], &h
}

// leaves writes the salted hash of each record.
func (l *log) leaves(b *block, out []byte) {
	mac := hmac.New(sha256.New, l.w.key.salt)
	d := sha256.New()
	var index [8]byte
	pre := make([]byte, 1, 33)
	start := 0
	for i, end := range b.ends {
		binary.BigEndian.PutUint64(index[:], b.first+uint64(i))
		mac.Reset()
		mac.Write(index[:])
		d.Reset()
		d.Write(mac.Sum(pre[:1]))
		d.Write(l.raw[start+4 : end])
		d.Sum(out[32*i : 32*i : 32*i+32])
		start = end
	}
}

// commit is one write, one fsync, and the answer to everybody in the block.
func (l *log) commit(w *openSegment, b *block, frame []byte) error {
	_, err := w.f.Write(frame)
	if err == nil {
		err = w.f.Sync()
	}
	if err != nil {
		err = fmt.Errorf("writing to segment %s: %w", b.seg, err)
		b.answer(err)
		return err
	}
	c := &l.s.stats[l.stream]
	c.appends.Add(uint64(len(b.reqs)))
	c.records.Add(uint64(b.n))
	c.raw.Add(uint64(b.raw))
	c.stored.Add(uint64(len(frame)))
	c.blocks.Add(1)
	c.syncs.Add(1)
	l.mu.Lock()
	w.seg.table = append(w.seg.table, blockAt{off: w.seg.end, first: b.first})
	w.seg.end += int64(len(frame))
	w.seg.records += uint64(b.n)
	l.broadcast()
	l.mu.Unlock()
	b.answer(nil)
	return nil
}

// broadcast wakes those in Wait. The caller holds mu.
func (l *log) broadcast() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// finish closes the open segment: footer, trailer, sync, read-only, rename. A
// segment that failed is recovered from disk instead, down to what was
// acknowledged. An error leaves the segment failed; the next call tries again.
func (l *log) finish(reason string) error {
	w := l.w
	if w == nil {
		return nil
	}
	if w.err == nil {
		if err := l.seal(w, reason); err == nil {
			return nil
		} else {
			w.err = fmt.Errorf("closing segment %s: %w", w.head.id, err)
		}
	}
	if w.f != nil {
		w.f.Close() // what it reports says nothing that w.err does not
		w.f = nil
	}
	l.mu.Lock()
	limit := w.seg.end
	l.mu.Unlock()
	_, err := l.recoverFile(w.head.id, limit)
	if err != nil {
		return fmt.Errorf("recovering segment %s after %w: %w", w.head.id, w.err, err)
	}
	w.key.forget()
	l.w = nil
	return nil
}

func (l *log) seal(w *openSegment, reason string) error {
	frame, trailer, _ := w.sums.footer(reason, uint64(max(l.s.o.Now().UnixMilli(), 0)), 0, "")
	if _, err := w.f.Write(append(frame, trailer...)); err != nil {
		return err
	}
	if err := w.f.Chmod(0o440); err != nil {
		return err
	}
	if err := w.f.Sync(); err != nil {
		return err
	}
	if err := l.s.o.FS.Rename(l.path(w.head.id, extOpen), l.path(w.head.id, extClosed)); err != nil {
		return err
	}
	if err := w.f.Close(); err != nil {
		return err
	}
	l.last = prevLink{seq: w.head.seq, id: w.head.id, state: prevClosed, hash: leafHash(frame)}
	l.settle(w.seg, segClosed)
	w.key.forget()
	l.w = nil
	return nil
}

// settle gives a segment its final state.
func (l *log) settle(seg *segment, state segState) {
	l.mu.Lock()
	l.unload(seg)
	seg.state = state
	seg.table = nil
	l.broadcast()
	l.mu.Unlock()
	if l.s.o.Settled != nil {
		l.s.o.Settled(l.stream, l.compartment, seg.id)
	}
}
