package evidence

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/klauspost/compress/zstd"

	"github.com/counterseal/counterseal/internal/event"
)

// Position is the next record to read: a segment and a number in it. The zero
// Position is the very beginning.
type Position struct {
	Segment uuid.UUID
	Ordinal uint64
}

// After is the position behind a record.
func After(r event.Ref) Position { return Position{Segment: r.Segment, Ordinal: r.Ordinal + 1} }

// segment is one file of a compartment. Its fields are guarded by log.mu; id never
// changes.
type segment struct {
	id      uuid.UUID
	state   segState
	head    *head     // open segments only
	table   []blockAt // open segments only: durable blocks, append-only
	records uint64    // durable ones; of a closed segment only once its footer was read
	end     int64     // behind the last durable block; 0: not known
	chain   hash      // open segments only: of the frame that ends after chained records
	chained uint64
	rd      *reader // nil: not loaded

	destroyed bool // DestroyCard was here
}

// counted tells whether records is known. The caller holds log.mu.
func (s *segment) counted() bool { return s.end > 0 || s.state == segDamaged }

// reader is an open file with its key and its blocks. It is shared and counted.
type reader struct {
	f       *os.File
	head    *head
	key     *segmentKey // nil: noKey says why
	noKey   error       // ErrSealed, or ErrNoKey where the card is gone
	table   []blockAt
	records uint64
	end     int64
	damage  error // what ended the walk over a file without a good footer

	refs    int  // guarded by log.mu
	evicted bool // likewise
	forget  bool // likewise: its key was destroyed
}

// maxLoaded bounds the closed segments of a compartment that stay open.
const maxLoaded = 4

func (l *log) find(id uuid.UUID) *segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := l.index(id); i >= 0 {
		return l.segs[i]
	}
	return nil
}

// index finds a segment. The caller holds mu.
func (l *log) index(id uuid.UUID) int {
	i := sort.Search(len(l.segs), func(i int) bool { return bytes.Compare(l.segs[i].id[:], id[:]) >= 0 })
	if i < len(l.segs) && l.segs[i].id == id {
		return i
	}
	return -1
}

// load opens a segment by itself: header, key, and blocks from the footer, or from
// a walk where there is no good footer.
func (l *log) load(seg *segment) (*reader, error) {
	l.mu.Lock()
	state := seg.state
	l.mu.Unlock()
	var f *os.File
	// It may be renamed before its state says so, and only forward.
	for st := state; st <= segDamaged && f == nil; st++ {
		var err error
		if f, err = os.Open(l.path(seg.id, st.ext())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if f == nil {
		return nil, fmt.Errorf("segment %s: %w", seg.id, fs.ErrNotExist)
	}
	rd := &reader{f: f}
	if err := l.fillReader(seg, rd); err != nil {
		f.Close()
		return nil, err
	}
	return rd, nil
}

func (l *log) fillReader(seg *segment, rd *reader) error {
	st, err := rd.f.Stat()
	if err != nil {
		return err
	}
	l.mu.Lock()
	state, hd := seg.state, seg.head
	l.mu.Unlock()
	if hd == nil {
		if hd, err = readHead(&window{r: rd.f, size: st.Size()}); err != nil {
			return fmt.Errorf("header: %w", err)
		}
		if hd.id != seg.id || hd.stream != l.stream || hd.Compartment != l.compartment {
			return errors.New("the header names another segment")
		}
	}
	rd.head = hd
	if rd.key, err = readKey(l.s.o.Keys, l.s.o.Dir, hd); errors.Is(err, ErrNoKey) {
		rd.noKey = err // sealed, or destroyed: it can be counted, and not read
	} else if err != nil {
		return err
	}
	if state == segOpen {
		return nil // its blocks are in seg
	}
	if state == segClosed {
		foot, off, err := readFooter(rd.f, st.Size())
		if err == nil && foot.HeaderHash == hd.hash.String() {
			rd.table, rd.records, rd.end = foot.table, foot.Records, off
			return nil
		}
		if isDisk(err) {
			return err
		}
	}
	sc, err := scanSegment(rd.f, st.Size())
	if err != nil {
		return err
	}
	rd.table, rd.records, rd.end = sc.table, sc.records, sc.end
	if state == segClosed {
		rd.damage = errors.New("its footer cannot be read")
	}
	return nil
}

// acquire gives a reader of a segment and its blocks as they are now. release must
// be called once.
func (l *log) acquire(seg *segment) (rd *reader, blocks reader, release func(), err error) {
	l.mu.Lock()
	for seg.rd == nil {
		state := seg.state
		l.mu.Unlock()
		n, err := l.load(seg)
		if err != nil {
			return nil, reader{}, nil, err
		}
		l.mu.Lock()
		if seg.rd != nil || seg.state != state {
			n.f.Close()
			continue
		}
		if seg.destroyed && n.key != nil { // its card was read just before
			n.key.forget()
			n.key, n.noKey = nil, fmt.Errorf("segment %s: %w", seg.id, ErrNoKey)
		}
		seg.rd = n
		if state != segOpen {
			seg.records, seg.end = n.records, n.end
		}
	}
	defer l.mu.Unlock()
	rd = seg.rd
	rd.refs++
	blocks = reader{table: rd.table, records: rd.records, end: rd.end, damage: rd.damage}
	if seg.state == segOpen {
		blocks.table, blocks.records, blocks.end = seg.table, seg.records, seg.end
	} else {
		if i := slices.Index(l.loaded, seg); i >= 0 {
			l.loaded = slices.Delete(l.loaded, i, i+1)
		}
		l.loaded = append(l.loaded, seg)
		if len(l.loaded) > maxLoaded {
			l.unload(l.loaded[0])
			l.loaded = slices.Delete(l.loaded, 0, 1)
		}
	}
	return rd, blocks, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		rd.refs--
		if rd.refs == 0 && rd.evicted {
			rd.close()
		}
	}, nil
}

// unload lets go of the reader of a segment. The caller holds mu.
func (l *log) unload(seg *segment) {
	if rd := seg.rd; rd != nil {
		seg.rd = nil
		rd.evicted = true
		if rd.refs == 0 {
			rd.close()
		}
	}
}

// close ends a reader that nobody uses.
func (rd *reader) close() {
	rd.f.Close()
	if rd.forget && rd.key != nil {
		rd.key.forget()
	}
}

// opened is one block, decrypted.
type opened struct {
	first uint64
	raw   []byte
	n     int
}

// scratch is what opening blocks needs, reused from block to block.
type scratch struct{ frame, comp, raw []byte }

// openBlock reads block i of the table.
func (s *Store) openBlock(rd *reader, blocks *reader, i int, sc *scratch) (opened, error) {
	return openBlock(s.dec, rd, blocks, i, sc)
}

func openBlock(dec *zstd.Decoder, rd *reader, blocks *reader, i int, sc *scratch) (opened, error) {
	if rd.key == nil {
		return opened{}, rd.noKey
	}
	e := blocks.table[i]
	end, next := blocks.end, blocks.records
	if i+1 < len(blocks.table) {
		end, next = blocks.table[i+1].off, blocks.table[i+1].first
	}
	size := end - e.off
	if size < frameHeadLen || size > maxFrame {
		return opened{}, errors.New("length")
	}
	if cap(sc.frame) < 32+int(size) {
		sc.frame = make([]byte, 32+int(size)+int(size)/4)
	}
	buf := sc.frame[:32+int(size)]
	copy(buf, rd.head.hash[:])
	frame := buf[32:]
	if _, err := rd.f.ReadAt(frame, e.off); err != nil {
		return opened{}, cutShort(err)
	}
	h, err := checkFrame(frame)
	if err != nil {
		return opened{}, err
	}
	if h.typ != frameData || h.first != e.first || uint64(h.n) != next-e.first || h.block != uint32(i) {
		return opened{}, errors.New("it is not the block of the table")
	}
	at := frameHeadLen + 32*int(h.n)
	if sc.comp, err = rd.key.aead.Open(sc.comp[:0], nil, frame[at:len(frame)-4], buf[:32+at]); err != nil {
		return opened{}, errors.New("it does not decrypt")
	}
	if cap(sc.raw) < int(h.rawLen) {
		sc.raw = make([]byte, 0, int(h.rawLen))
	}
	if sc.raw, err = dec.DecodeAll(sc.comp, sc.raw[:0]); err != nil || len(sc.raw) != int(h.rawLen) {
		return opened{}, errors.New("it does not decompress to the length given")
	}
	b := opened{first: h.first, raw: sc.raw, n: int(h.n)}
	left := sc.raw
	for range b.n {
		if _, left, err = nextRecord(left); err != nil {
			return opened{}, err
		}
	}
	if len(left) != 0 {
		return opened{}, errors.New("bytes after the last record")
	}
	return b, nil
}

// nextRecord splits the first record off a block.
func nextRecord(b []byte) (rec, rest []byte, err error) {
	if len(b) < 4 {
		return nil, nil, errors.New("record cut short")
	}
	n := binary.BigEndian.Uint32(b)
	if uint64(n) > uint64(len(b)-4) {
		return nil, nil, errors.New("record cut short")
	}
	return b[4 : 4+n : 4+n], b[4+n:], nil
}

// blockOf is the block that holds a record, which must be below records.
func blockOf(table []blockAt, ordinal uint64) int {
	return sort.Search(len(table), func(i int) bool { return table[i].first > ordinal }) - 1
}

// Read gives every record from a position to the end that is durable when it is
// called, in order, over all segments. It returns the position of the next record:
// behind the last one given, or at the one whose fn returned an error. rec is
// valid only inside fn. Damage in a closed segment ends it with a DamageError, and so
// does a segment whose key card is gone (Destroyed tells); a segment set aside gives the records before its damage and no error, since
// Recovered names it.
func (s *Store) Read(ctx context.Context, stream Stream, compartment string, from Position, fn func(ref event.Ref, rec []byte) error) (Position, error) {
	l := s.log(stream, compartment)
	if l == nil {
		if from == (Position{}) {
			return from, nil
		}
		return from, fmt.Errorf("reading %s/%s: %w", stream, compartment, ErrPosition)
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return from, ErrClosed
	}
	segs := l.segs
	i := 0
	if from.Segment != (uuid.UUID{}) {
		i = l.index(from.Segment)
	}
	limit := uint64(0) // of the last segment, where it is open
	if len(segs) > 0 {
		limit = segs[len(segs)-1].records
	}
	l.mu.Unlock()
	if i < 0 || from.Segment == (uuid.UUID{}) && from.Ordinal != 0 {
		return from, fmt.Errorf("reading %s/%s: segment %s: %w", stream, compartment, from.Segment, ErrPosition)
	}
	pos := from
	var sc scratch
	for ; i < len(segs); i++ {
		if segs[i].id != pos.Segment {
			pos = Position{Segment: segs[i].id}
		}
		upTo := ^uint64(0)
		if i == len(segs)-1 && limit > 0 {
			upTo = limit
		}
		var next Position
		if i+1 < len(segs) {
			next = Position{Segment: segs[i+1].id}
		}
		var err error
		if pos, err = s.readSegment(ctx, l, segs[i], pos, next, upTo, &sc, fn); err != nil {
			if errors.Is(err, ErrStop) {
				return pos, nil
			}
			return pos, err
		}
	}
	return pos, nil
}

// Back is the position n records before one, over all segments, or the beginning.
// A segment that cannot be opened ends the walk behind it.
func (s *Store) Back(stream Stream, compartment string, from Position, n uint64) Position {
	l := s.log(stream, compartment)
	if l == nil {
		return from
	}
	l.mu.Lock()
	segs, i := l.segs, l.index(from.Segment)
	l.mu.Unlock()
	for i >= 0 && from.Ordinal < n {
		n -= from.Ordinal
		from.Ordinal = 0
		if i--; i < 0 {
			return from
		}
		_, blocks, release, err := l.acquire(segs[i])
		if err != nil {
			return from
		}
		release()
		from = Position{Segment: segs[i].id, Ordinal: blocks.records}
	}
	from.Ordinal -= min(from.Ordinal, n)
	return from
}

func (s *Store) readSegment(ctx context.Context, l *log, seg *segment, pos, next Position, upTo uint64, sc *scratch, fn func(event.Ref, []byte) error) (Position, error) {
	l.mu.Lock()
	read := seg.state != segOpen && seg.records > 0 && pos.Ordinal == seg.records
	end := Position{Segment: seg.id, Ordinal: max(pos.Ordinal, seg.records)}
	l.mu.Unlock()
	if read { // the usual place of a follower: nothing to open
		return pos, nil
	}
	damage := func(block int, next Position, err error) *DamageError {
		if next == (Position{}) { // nothing behind it yet
			next = end
		}
		return &DamageError{Stream: l.stream, Compartment: l.compartment, Segment: seg.id, Block: block, Next: next, Err: err}
	}
	rd, blocks, release, err := l.acquire(seg)
	if err != nil {
		if isDisk(err) {
			return pos, fmt.Errorf("reading %s/%s: %w", l.stream, l.compartment, err)
		}
		l.mu.Lock()
		aside := seg.state == segDamaged
		l.mu.Unlock()
		if aside { // not even its header: it was reported
			return pos, nil
		}
		return pos, damage(-1, next, err)
	}
	defer release()
	if pos.Ordinal > blocks.records {
		return pos, fmt.Errorf("reading %s/%s: record %d of segment %s: %w", l.stream, l.compartment, pos.Ordinal, seg.id, ErrPosition)
	}
	upTo = min(upTo, blocks.records)
	if rd.key == nil && pos.Ordinal < upTo {
		if errors.Is(rd.noKey, ErrSealed) {
			return pos, fmt.Errorf("reading %s/%s: segment %s: %w", l.stream, l.compartment, seg.id, ErrSealed)
		}
		if next == (Position{}) {
			next = Position{Segment: seg.id, Ordinal: upTo}
		}
		err := damage(-1, next, rd.noKey)
		err.Records = upTo - pos.Ordinal
		return pos, err
	}
	for pos.Ordinal < upTo {
		if err := ctx.Err(); err != nil {
			return pos, err
		}
		i := blockOf(blocks.table, pos.Ordinal)
		b, err := s.openBlock(rd, &blocks, i, sc)
		if err != nil {
			if isDisk(err) {
				return pos, fmt.Errorf("reading %s/%s: %w", l.stream, l.compartment, err)
			}
			after := next
			if i+1 < len(blocks.table) {
				after = Position{Segment: seg.id, Ordinal: blocks.table[i+1].first}
			}
			return pos, damage(i, after, err)
		}
		rest, rec := b.raw, []byte(nil)
		for n := b.first; n < b.first+uint64(b.n) && n < upTo; n++ {
			if rec, rest, err = nextRecord(rest); err != nil {
				return pos, damage(i, next, err)
			}
			if n < pos.Ordinal {
				continue
			}
			err = fn(event.Ref{Compartment: l.compartment, Segment: seg.id, Ordinal: n}, rec)
			if err == nil || errors.Is(err, ErrStop) {
				pos.Ordinal = n + 1
			}
			if err != nil {
				return pos, err
			}
		}
	}
	if blocks.damage != nil {
		return pos, damage(-1, next, blocks.damage)
	}
	return pos, nil
}

// Wait returns when something durable may lie at or behind a position, when the
// context ends, or with ErrClosed when the store closes.
func (s *Store) Wait(ctx context.Context, stream Stream, compartment string, pos Position) error {
	l, err := s.makeLog(stream, compartment)
	if err != nil {
		return fmt.Errorf("waiting for %s/%s: %w", stream, compartment, err)
	}
	for {
		l.mu.Lock()
		ready, closed, changed := l.has(pos), l.closed, l.changed
		l.mu.Unlock()
		if ready {
			return nil
		}
		if closed {
			return ErrClosed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// has tells whether something lies at or behind pos. A closed segment that nobody
// read yet counts as something. The caller holds mu.
func (l *log) has(pos Position) bool {
	i := 0
	if pos.Segment != (uuid.UUID{}) {
		if i = l.index(pos.Segment); i < 0 {
			return true // Read says what is wrong with it
		}
		if seg := l.segs[i]; !seg.counted() || seg.records > pos.Ordinal {
			return true
		}
		i++
	}
	for ; i < len(l.segs); i++ {
		if seg := l.segs[i]; !seg.counted() || seg.records > 0 {
			return true
		}
	}
	return false
}

// Get gives one record of the event stream. The caller owns it.
func (s *Store) Get(ctx context.Context, ref event.Ref) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l := s.log(Events, ref.Compartment)
	if l == nil {
		return nil, fmt.Errorf("%s: %w", ref, ErrPosition)
	}
	seg := l.find(ref.Segment)
	if seg == nil {
		return nil, fmt.Errorf("%s: %w", ref, ErrPosition)
	}
	rd, blocks, release, err := l.acquire(seg)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	defer release()
	if ref.Ordinal >= blocks.records {
		return nil, fmt.Errorf("%s: %w", ref, ErrPosition)
	}
	if rd.key == nil { // a block may still be in the cache
		return nil, fmt.Errorf("%s: %w", ref, rd.noKey)
	}
	i := blockOf(blocks.table, ref.Ordinal)
	k := blockKey{segment: seg.id, compartment: ref.Compartment, block: i}
	b, ok := s.blocks.get(k)
	if !ok {
		if b, err = s.openBlock(rd, &blocks, i, new(scratch)); err != nil {
			return nil, &DamageError{Stream: Events, Compartment: ref.Compartment, Segment: seg.id, Block: i, Err: err}
		}
		s.blocks.put(k, b)
		l.mu.Lock()
		destroyed := seg.destroyed
		l.mu.Unlock()
		if destroyed {
			s.blocks.drop(seg.id)
		}
	}
	rest, rec := b.raw, []byte(nil)
	for n := b.first; n <= ref.Ordinal; n++ {
		if rec, rest, err = nextRecord(rest); err != nil {
			return nil, fmt.Errorf("%s: %w", ref, err)
		}
	}
	return bytes.Clone(rec), nil
}

// blockCache keeps the blocks that Get opened last.
type blockCache struct {
	mu     sync.Mutex // guards the rest
	blocks []cached   // last used last
	bytes  int
}

type blockKey struct {
	compartment string
	segment     uuid.UUID
	block       int
}

type cached struct {
	key blockKey
	b   opened
}

const maxCached = 16 << 20

func (c *blockCache) get(k blockKey) (opened, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := len(c.blocks) - 1; i >= 0; i-- {
		if e := c.blocks[i]; e.key == k {
			c.blocks = append(slices.Delete(c.blocks, i, i+1), e)
			return e.b, true
		}
	}
	return opened{}, false
}

func (c *blockCache) put(k blockKey, b opened) {
	if len(b.raw) > maxCached/2 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.blocks = append(c.blocks, cached{k, b})
	c.bytes += len(b.raw)
	for c.bytes > maxCached || len(c.blocks) > 64 {
		c.bytes -= len(c.blocks[0].b.raw)
		c.blocks = slices.Delete(c.blocks, 0, 1)
	}
}

// drop forgets the blocks of a segment.
func (c *blockCache) drop(segment uuid.UUID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.blocks = slices.DeleteFunc(c.blocks, func(e cached) bool {
		if e.key.segment != segment {
			return false
		}
		c.bytes -= len(e.b.raw)
		return true
	})
}

// SegmentInfo describes one segment.
type SegmentInfo struct {
	Stream      Stream
	Compartment string
	Segment     uuid.UUID
	Seq         uint64
	State       string // open, closed, damaged
	Opened      time.Time
	First, Last time.Time // of blocks; zero: no block, or not a closed segment
	Records     uint64
	Blocks      int
	RawBytes    uint64 // closed segments only
	Bytes       int64  // of the file as far as it is durable
	Reason      string // for which it was closed
	Escrow      string // who can open it: service, none-yet, officers
	RecordsRoot string // hex, closed segments only
	BlocksRoot  string
	HeaderHash  string
	FooterHash  string
	HasKey      bool // its key card is there
}

// Sealed reports whether only officers open the segment.
func (in *SegmentInfo) Sealed() bool { return in.Escrow == escrowOfficers }

// Segments describes every segment of a compartment, in order.
func (s *Store) Segments(stream Stream, compartment string) ([]SegmentInfo, error) {
	l := s.log(stream, compartment)
	if l == nil {
		return nil, nil
	}
	l.mu.Lock()
	segs := slices.Clone(l.segs)
	l.mu.Unlock()
	infos := make([]SegmentInfo, 0, len(segs))
	for _, seg := range segs {
		in, err := l.describe(seg)
		if err != nil {
			return nil, err
		}
		infos = append(infos, in)
	}
	return infos, nil
}

// Segment describes one segment; ok is false where there is none of this id.
func (s *Store) Segment(stream Stream, compartment string, id uuid.UUID) (in SegmentInfo, ok bool, err error) {
	l := s.log(stream, compartment)
	if l == nil {
		return in, false, nil
	}
	seg := l.find(id)
	if seg == nil {
		return in, false, nil
	}
	in, err = l.describe(seg)
	return in, err == nil, err
}

// States gives the state of every segment of a compartment without reading a file.
func (s *Store) States(stream Stream, compartment string) map[uuid.UUID]string {
	l := s.log(stream, compartment)
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	states := make(map[uuid.UUID]string, len(l.segs))
	for _, seg := range l.segs {
		states[seg.id] = seg.state.String()
	}
	return states
}

// Head is how far an open segment is: Chain is the hash of the frame that ends
// after Records records, or of the header.
type Head struct {
	Stream      Stream
	Compartment string
	Segment     uuid.UUID
	Records     uint64
	Chain       string
}

// Heads gives the head of every open segment that records may go into.
func (s *Store) Heads() []Head {
	var heads []Head
	for _, l := range s.all() {
		l.mu.Lock()
		for _, seg := range l.segs {
			if seg.state == segOpen {
				heads = append(heads, Head{Stream: l.stream, Compartment: l.compartment, Segment: seg.id, Records: seg.chained, Chain: seg.chain.String()})
			}
		}
		l.mu.Unlock()
	}
	return heads
}

// describeOpen describes a segment that the caller, its writer, has just begun.
func (l *log) describeOpen(seg *segment) SegmentInfo {
	return SegmentInfo{
		Stream: l.stream, Compartment: l.compartment, Segment: seg.id, State: segOpen.String(),
		Seq: seg.head.seq, Opened: seg.head.opened, HeaderHash: seg.head.hash.String(), Escrow: seg.head.Escrow,
	}
}

func (l *log) describe(seg *segment) (SegmentInfo, error) {
	l.mu.Lock()
	in := SegmentInfo{Stream: l.stream, Compartment: l.compartment, Segment: seg.id, State: seg.state.String(), Records: seg.records, Blocks: len(seg.table), Bytes: seg.end}
	hd, state := seg.head, seg.state
	l.mu.Unlock()
	if state == segClosed {
		h, foot, err := readEnds(l.path(seg.id, extClosed))
		if err != nil && isDisk(err) {
			return in, fmt.Errorf("describing segment %s: %w", seg.id, err)
		}
		hd = h
		if foot != nil {
			in.Records, in.Blocks, in.RawBytes = foot.Records, int(foot.Blocks), foot.RawBytes
			in.Bytes = foot.end + int64(foot.head.length) + trailerLen
			in.Reason, in.RecordsRoot, in.BlocksRoot, in.FooterHash = foot.Reason, foot.RecordsRoot, foot.BlocksRoot, foot.hash.String()
			if foot.Blocks > 0 {
				in.First, in.Last = time.UnixMilli(int64(foot.FirstMS)).UTC(), time.UnixMilli(int64(foot.LastMS)).UTC()
			}
		}
	}
	if _, err := os.Lstat(cardPath(l.s.o.Dir, seg.id)); err == nil {
		in.HasKey = true
	} else if !errors.Is(err, fs.ErrNotExist) {
		return in, fmt.Errorf("describing segment %s: %w", seg.id, err)
	}
	if hd != nil {
		in.Seq, in.Opened, in.HeaderHash, in.Escrow = hd.seq, hd.opened, hd.hash.String(), hd.Escrow
	}
	return in, nil
}
