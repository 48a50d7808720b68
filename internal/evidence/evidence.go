// Package evidence keeps what machines said: append-only segments in two streams,
// each divided into compartments. It implements docs/formats/segment.md and
// docs/formats/keycard.md.
//
// It promises: records of one Append lie in one block, with consecutive numbers,
// and are durable when Append returns nil; an order that is never changed; a cut
// only where a torn write ends a file, reported and with the cut bytes kept
// beside; anything else that does not fit is damage, set aside read-only and never
// shortened; and that Verify finds a changed byte with no key and no lock.
//
// One process writes: the caller holds the lock of the data directory. What is in
// a record is internal/event's business; destroying key cards is left to
// retention; that a whole newest segment was taken away only the ledger can show.
package evidence

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/klauspost/compress/zstd"

	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/keyring"
)

// Stream is one of the two kinds of evidence.
type Stream uint8

// The streams. Events are tokenised and read by the server; Originals are bytes as
// received.
const (
	Events    Stream = 1
	Originals Stream = 2
)

func (s Stream) String() string {
	switch s {
	case Events:
		return "events"
	case Originals:
		return "originals"
	}
	return fmt.Sprintf("stream-%d", uint8(s))
}

// ParseStream reads what String prints.
func ParseStream(s string) (Stream, error) {
	switch s {
	case "events":
		return Events, nil
	case "originals":
		return Originals, nil
	}
	return 0, errors.New("a stream is events or originals")
}

var streams = []Stream{Events, Originals}

var (
	// ErrTooLarge: the records of one call do not fit a block. Nothing was stored.
	ErrTooLarge = errors.New("the records of one call do not fit a block of 24 MiB, or one is over 16 MiB")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("the evidence store is closed")
	// ErrPosition: a position or reference names what evidence does not hold. A view
	// that is ahead of evidence must be rebuilt.
	ErrPosition = errors.New("evidence holds nothing at this position")
	// ErrNoKey: the key card of a segment is gone. Its proofs stay valid, its records
	// cannot be read.
	ErrNoKey = errors.New("the key card is gone")
	// ErrSealed is the ErrNoKey of an original segment whose key only two officers
	// can open. This server never can.
	ErrSealed = fmt.Errorf("its key is sealed to two officers, see counterseal evidence unlock: %w", errNotHere)
	// ErrStop, returned by the function given to Read, ends it without an error. The
	// record at hand counts as read.
	ErrStop = errors.New("stop reading")
)

// errNotHere is an ErrNoKey that says nothing about a card.
var errNotHere = noKey{}

type noKey struct{}

func (noKey) Error() string        { return "the server has no key for it" }
func (noKey) Is(target error) bool { return target == ErrNoKey }

// DamageError says which records of a segment cannot be read. Next is where reading
// can go on, behind everything there is where the damage is at the end.
type DamageError struct {
	Stream      Stream
	Compartment string
	Segment     uuid.UUID
	Block       int // -1: not one block only
	Next        Position
	Records     uint64 // of a segment whose key card is gone: how many are passed over
	Err         error
}

// Destroyed reports that nothing was altered: the key card is gone, so that nobody
// reads these records again. Whether a statement says why the ledger knows.
func (e *DamageError) Destroyed() bool { return errors.Is(e.Err, ErrNoKey) }

func (e *DamageError) Error() string {
	at := fmt.Sprintf("segment %s/%s/%s", e.Stream, e.Compartment, e.Segment)
	if e.Destroyed() {
		return at + " cannot be read: the key card is gone"
	}
	if e.Block >= 0 {
		at = fmt.Sprintf("block %d of %s", e.Block, at)
	}
	return fmt.Sprintf("%s is damaged: %v; run counterseal verify", at, e.Err)
}

func (e *DamageError) Unwrap() error { return e.Err }

// Options say where and how. Zero limits take the defaults.
type Options struct {
	Dir  string         // data directory: evidence/ and keys/segments/ below it
	Keys keyring.Holder // wraps the keys of segments that the service can open
	// Escrow, if set, are the officers to whom the key of every new original segment
	// is sealed. The keyring then has no wrap of it, and once the segment is closed
	// nobody has it but they. nil: the keyring wraps both streams.
	Escrow *keyring.Escrow
	Now    func() time.Time // nil: the clock

	MaxSegmentBytes   int64         // 128 MiB
	MaxSegmentRecords int64         // 1,048,576
	MaxSegmentAge     time.Duration // 1 h; bounds the life of one key
	BlockBytes        int           // 1 MiB of records before compression

	// Opened, if set, is asked about each new segment once its card and its header are
	// durable, and before the first record is accepted. While it refuses, so does
	// Append; the next call asks again about the same segment. It is called on the
	// goroutine that writes this compartment.
	Opened func(SegmentInfo) error
	// Settled, if set, is told of each segment that was closed or set aside. It must
	// not block.
	Settled func(stream Stream, compartment string, segment uuid.UUID)

	FS durable.FS
}

// Store is the open evidence of one data directory. It is safe for concurrent use.
type Store struct {
	o   Options
	enc *zstd.Encoder
	dec *zstd.Decoder

	recovered []Recovery // written by Open only
	stats     [streamSlots]counters
	blocks    blockCache

	mu     sync.Mutex // guards logs and closed
	logs   map[logKey]*log
	closed bool
}

// streamSlots is one more than the largest Stream, which indexes the counters.
const streamSlots = 3

type logKey struct {
	stream      Stream
	compartment string
}

type counters struct {
	appends, records, raw, stored, blocks, syncs, segments atomic.Uint64
}

// StreamStats counts what this process appended to one stream.
type StreamStats struct {
	Appends     uint64 // calls acknowledged
	Records     uint64
	RawBytes    uint64 // before compression
	StoredBytes uint64 // frames
	Blocks      uint64
	Syncs       uint64 // of blocks; Appends over Syncs is what group commit gains
	Segments    uint64 // opened
}

// Stats counts both streams.
type Stats struct{ Events, Originals StreamStats }

// Stats gives the counters of this process.
func (s *Store) Stats() Stats {
	of := func(c *counters) StreamStats {
		return StreamStats{
			Appends: c.appends.Load(), Records: c.records.Load(), RawBytes: c.raw.Load(), StoredBytes: c.stored.Load(),
			Blocks: c.blocks.Load(), Syncs: c.syncs.Load(), Segments: c.segments.Load(),
		}
	}
	return Stats{Events: of(&s.stats[Events]), Originals: of(&s.stats[Originals])}
}

// Open recovers what a crash left open and makes the store ready. What it found is
// in Recovered: damage does not stop it, since defence goes on; an error of the
// disk does.
func Open(o Options) (*Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MaxSegmentBytes <= 0 {
		o.MaxSegmentBytes = 128 << 20
	}
	if o.MaxSegmentRecords <= 0 {
		o.MaxSegmentRecords = 1 << 20
	}
	if o.MaxSegmentAge <= 0 {
		o.MaxSegmentAge = time.Hour
	}
	if o.BlockBytes <= 0 {
		o.BlockBytes = 1 << 20
	}
	o.BlockBytes = min(o.BlockBytes, maxFrame/2)
	if o.Escrow != nil {
		if err := o.Escrow.Check(); err != nil {
			return nil, fmt.Errorf("opening evidence: %w", err)
		}
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, fmt.Errorf("opening evidence: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxFrame), zstd.WithDecoderConcurrency(0))
	if err != nil {
		return nil, fmt.Errorf("opening evidence: %w", err)
	}
	s := &Store{o: o, enc: enc, dec: dec, logs: map[logKey]*log{}}
	for _, stream := range streams {
		dir := filepath.Join(o.Dir, "evidence", stream.String())
		if err := o.FS.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("opening evidence: %w", err)
		}
		des, err := os.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("opening evidence: %w", err)
		}
		for _, de := range des {
			if !de.IsDir() || event.CheckCompartment(de.Name()) != nil {
				continue // Verify names what does not belong
			}
			l := newLog(s, stream, de.Name())
			rec, err := l.recover()
			if err != nil {
				return nil, fmt.Errorf("opening evidence %s/%s: %w", stream, de.Name(), err)
			}
			s.recovered = append(s.recovered, rec...)
			s.logs[logKey{stream, de.Name()}] = l
		}
	}
	return s, nil
}

// Recovered is what Open found and did, and what earlier starts set aside.
func (s *Store) Recovered() []Recovery { return append([]Recovery(nil), s.recovered...) }

// log finds a compartment, nil where nothing was ever appended or waited for.
func (s *Store) log(stream Stream, compartment string) *log {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logs[logKey{stream, compartment}]
}

// makeLog finds or makes a compartment.
func (s *Store) makeLog(stream Stream, compartment string) (*log, error) {
	if stream != Events && stream != Originals {
		return nil, fmt.Errorf("evidence has no %s", stream)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	k := logKey{stream, compartment}
	if l := s.logs[k]; l != nil {
		return l, nil
	}
	if err := event.CheckCompartment(compartment); err != nil {
		return nil, err
	}
	l := newLog(s, stream, compartment)
	s.logs[k] = l
	return l, nil
}

// all is every log, in a fixed order.
func (s *Store) all() []*log {
	s.mu.Lock()
	defer s.mu.Unlock()
	ls := make([]*log, 0, len(s.logs))
	for _, l := range s.logs {
		ls = append(ls, l)
	}
	sort.Slice(ls, func(i, j int) bool {
		if ls[i].stream != ls[j].stream {
			return ls[i].stream < ls[j].stream
		}
		return ls[i].compartment < ls[j].compartment
	})
	return ls
}

// Append stores records, all in one block with consecutive numbers, and returns
// the reference of the first one after an fsync. A context that ends takes the
// call back only while no position was given to it. After an error nothing was
// acknowledged; where the disk failed the records may or may not be found after
// a restart.
func (s *Store) Append(ctx context.Context, stream Stream, compartment string, records [][]byte) (event.Ref, error) {
	size := 0
	for _, r := range records {
		if len(r) > maxRecord {
			return event.Ref{}, fmt.Errorf("appending to %s/%s: %w", stream, compartment, ErrTooLarge)
		}
		size += 4 + len(r)
	}
	if !fitsFrame(len(records), size) {
		return event.Ref{}, fmt.Errorf("appending to %s/%s: %w", stream, compartment, ErrTooLarge)
	}
	return s.append(ctx, stream, compartment, &request{n: len(records), size: size, records: records})
}

// AppendFunc is Append for records that hold their own position: build is called
// once with the reference of the first record, on the goroutine that writes this
// compartment, so it must be quick and must not call the store. It returns exactly
// n records, which are copied at once. Its error is returned and nothing is stored.
func (s *Store) AppendFunc(ctx context.Context, stream Stream, compartment string, n int, build func(first event.Ref) ([][]byte, error)) (event.Ref, error) {
	return s.append(ctx, stream, compartment, &request{n: n, build: build})
}

func (s *Store) append(ctx context.Context, stream Stream, compartment string, r *request) (event.Ref, error) {
	if r.n <= 0 {
		return event.Ref{}, fmt.Errorf("appending to %s/%s: no records", stream, compartment)
	}
	if !fitsFrame(r.n, 4*r.n) {
		return event.Ref{}, fmt.Errorf("appending to %s/%s: %w", stream, compartment, ErrTooLarge)
	}
	if err := ctx.Err(); err != nil {
		return event.Ref{}, err
	}
	l, err := s.makeLog(stream, compartment)
	if err != nil {
		return event.Ref{}, fmt.Errorf("appending to %s/%s: %w", stream, compartment, err)
	}
	r.done = make(chan error, 1)
	if err := l.enqueue(r); err != nil {
		return event.Ref{}, fmt.Errorf("appending to %s/%s: %w", stream, compartment, err)
	}
	select {
	case err = <-r.done:
	case <-ctx.Done():
		if r.state.CompareAndSwap(queued, cancelled) {
			return event.Ref{}, ctx.Err()
		}
		err = <-r.done
	}
	if err != nil {
		return event.Ref{}, fmt.Errorf("appending to %s/%s: %w", stream, compartment, err)
	}
	return r.first, nil
}

// fitsFrame tells whether n records of size bytes, lengths included, fit a frame
// even when nothing can be compressed.
func fitsFrame(n, size int) bool {
	return frameHeadLen+32*n+nonceLen+tagLen+4+size+size>>8+1024 <= maxFrame
}

// Rotate closes every open segment that holds records. The next Append opens a
// new one.
func (s *Store) Rotate() error {
	var errs []error
	for _, l := range s.all() {
		errs = append(errs, l.control(reasonRotate))
	}
	return errors.Join(errs...)
}

// Close writes what was accepted, closes the segments in order and ends the
// writers. Later calls give ErrClosed.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	var errs []error
	for _, l := range s.all() {
		errs = append(errs, l.close())
	}
	return errors.Join(errs...)
}

// Compartments lists those that hold evidence, sorted.
func (s *Store) Compartments(stream Stream) []string {
	var names []string
	for _, l := range s.all() {
		l.mu.Lock()
		n := len(l.segs)
		l.mu.Unlock()
		if l.stream == stream && n > 0 {
			names = append(names, l.compartment)
		}
	}
	return names
}
