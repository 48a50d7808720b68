package evtx

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
)

// ChunkState says what is wrong with a chunk; 0 is a good one. Bits combine.
type ChunkState uint8

// The states of a chunk.
const (
	ChunkHeaderCRC ChunkState = 1 << iota // the chunk header does not match its checksum
	ChunkRecordCRC                        // the record area does not match its checksum
	ChunkEmpty                            // all bytes are zero: a place not yet used
	ChunkForeign                          // bytes without a chunk header
	ChunkTruncated                        // the file ends inside the chunk
)

var chunkStateNames = [...]string{"header-crc", "record-crc", "empty", "not-a-chunk", "truncated"}

// OK reports whether nothing is wrong.
func (s ChunkState) OK() bool { return s == 0 }

// Damaged reports whether something is wrong that an unused place does not explain.
func (s ChunkState) Damaged() bool { return s&ChunkEmpty == 0 && s != 0 }

func (s ChunkState) String() string { return bitNames(uint8(s), chunkStateNames[:]) }

func bitNames(bits uint8, names []string) string {
	if bits == 0 {
		return "ok"
	}
	var out []string
	for i, n := range names {
		if bits&(1<<i) != 0 {
			out = append(out, n)
		}
	}
	return strings.Join(out, ",")
}

// Chunk is one 64 KiB block of records with its own names and templates.
type Chunk struct {
	Index  int   // number of the chunk place in the file
	Offset int64 // of the chunk in the file
	State  ChunkState

	// As the chunk header has them.
	FirstRecordNumber, LastRecordNumber uint64
	FirstRecordID, LastRecordID         uint64

	buf     []byte
	size    int  // bytes present
	filled  int  // bytes of buf that may be other than zero
	free    int  // end of the live records
	guessed bool // free is a guess: stop where the record ids break

	cache *Cache
	names map[uint32]nameEntry // by offset
	refs  int                  // references to names that compiling met in this chunk
	defs  map[uint32]*definition
	near  [32]struct { // the last uses of defs
		off uint32
		d   *definition
	}
	defAt   int       // the definition that is being compiled, or 0
	defRefs []nameRef // its names so far
	intern  map[string]string
	scratch []byte

	ops       []op // of this chunk's own definitions, while they are compiled
	lit       []byte
	sharedOps int // operations and literal text of definitions out of the cache
	sharedLit int
	plain     []op

	quick   []instance // the record's template instances, where the quick form holds
	isQuick bool
	toked   bool // toks hold the record
	end     int  // of the record's BinXML

	values  []value
	toks    []token
	out     []byte
	steps   int
	spent   int
	rec     Record
	tail    int // bytes between the end of the BinXML and the size copy of the last record
	fields  []Field
	systems int
	next    []int
	last    [256]uint8
}

// extent says how many of the n bytes of a chunk are needed, of which the first
// part up to recordsStart is there: behind the live records nothing is ever read,
// if the header can be trusted about where that is.
func (c *Chunk) extent(n int) int {
	if n < recordsStart || string(c.buf[:8]) != chunkMagic || headerCRC(c.buf) != binary.LittleEndian.Uint32(c.buf[124:]) {
		return n
	}
	if free := binary.LittleEndian.Uint32(c.buf[48:]); free >= recordsStart && int64(free) <= int64(n) {
		return int(free)
	}
	return n
}

// fill takes note that the first n bytes of the chunk are there, and clears what
// an earlier chunk left behind them.
func (c *Chunk) fill(n int) {
	if n < c.filled {
		clear(c.buf[n:c.filled])
	}
	c.filled = n
}

func headerCRC(b []byte) uint32 {
	return crc32.Update(crc32.ChecksumIEEE(b[:120]), crc32.IEEETable, b[128:recordsStart])
}

func (c *Chunk) reset(index int, off int64, size int) {
	c.Index, c.Offset, c.State, c.size = index, off, 0, size
	c.FirstRecordNumber, c.LastRecordNumber, c.FirstRecordID, c.LastRecordID = 0, 0, 0, 0
	c.free, c.guessed = recordsStart, false
	if c.names == nil {
		c.names = make(map[uint32]nameEntry)
		c.defs = make(map[uint32]*definition)
		c.intern = make(map[string]string)
	}
	clear(c.names)
	c.refs = 0
	clear(c.defs)
	clear(c.near[:])
	c.ops, c.lit, c.sharedOps, c.sharedLit = c.ops[:0], c.lit[:0], 0, 0
	if size < ChunkSize {
		c.State |= ChunkTruncated
	}
	if allZero(c.buf) {
		c.State |= ChunkEmpty
		return
	}
	if string(c.buf[:8]) != chunkMagic {
		// Zeros over a chunk header have been seen; offsets inside still hold.
		c.State |= ChunkForeign
		c.free, c.guessed = size, true
		return
	}
	le := binary.LittleEndian
	c.FirstRecordNumber, c.LastRecordNumber = le.Uint64(c.buf[8:]), le.Uint64(c.buf[16:])
	c.FirstRecordID, c.LastRecordID = le.Uint64(c.buf[24:]), le.Uint64(c.buf[32:])
	if headerCRC(c.buf) != le.Uint32(c.buf[124:]) {
		c.State |= ChunkHeaderCRC
	}
	free := le.Uint32(c.buf[48:])
	if free < recordsStart || free > ChunkSize {
		c.State |= ChunkRecordCRC
		c.free, c.guessed = size, true
		return
	}
	if crc32.ChecksumIEEE(c.buf[recordsStart:free]) != le.Uint32(c.buf[52:]) {
		c.State |= ChunkRecordCRC
	}
	c.free = min(int(free), size)
	// With a header that cannot be trusted the offset may reach into old records.
	c.guessed = c.State&ChunkHeaderCRC != 0
}

func allZero(b []byte) bool {
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}

// Records decodes the records of the chunk in order and hands each to fn, the
// damaged ones too. The record is reused: it, its fields and its bytes are valid
// until fn returns. An error of fn ends the walk and is returned.
func (c *Chunk) Records(fn func(*Record) error) error {
	last, have := uint64(0), false
	for p := recordsStart; p < c.free; {
		size, ok := c.recordAt(p)
		if !ok {
			next := c.scan(p + 8)
			if allZero(c.buf[p:next]) && next >= c.free && c.guessed {
				return nil // the unused end of a chunk whose extent nobody knows
			}
			c.unreadable(p, next)
			if err := fn(&c.rec); err != nil {
				return err
			}
			p = next
			continue
		}
		id := binary.LittleEndian.Uint64(c.buf[p+8:])
		if c.guessed && have && id != last+1 {
			return nil // what follows is left over from an earlier use of the chunk
		}
		last, have = id, true
		next := p + size
		c.decode(p, size)
		if c.rec.State&RecordSizeCopy != 0 && next != c.free {
			if _, ok := c.recordAt(next); !ok {
				next = c.scan(p + 24) // the size itself is wrong: do not swallow neighbours
			}
		}
		if err := fn(&c.rec); err != nil {
			return err
		}
		p = next
	}
	return nil
}

// recordAt reports whether a record header with a possible size stands at p.
func (c *Chunk) recordAt(p int) (size int, ok bool) {
	if p+recordOverhead > c.free || binary.LittleEndian.Uint32(c.buf[p:]) != recordMagic {
		return 0, false
	}
	n := binary.LittleEndian.Uint32(c.buf[p+4:])
	if n < recordOverhead || int64(n) > int64(c.free-p) {
		return 0, false
	}
	return int(n), true
}

// scan finds the next place from p on at which a record can start, or the end.
// Records are multiples of 8 bytes.
func (c *Chunk) scan(p int) int {
	for p = (p + 7) &^ 7; p < c.free; p += 8 {
		if _, ok := c.recordAt(p); ok {
			return p
		}
	}
	return c.free
}

// Tables is the count of entries in a chunk's own tables.
type Tables struct {
	Names     int // names reached through the 64 hash buckets
	Templates int // template definitions reached through the 32 chains
}

// CheckTables walks the name and template tables of the chunk header and checks
// each entry: offsets that only point back, the hash of every name and its
// bucket. Decoding does not need the tables; they are a second witness.
func (c *Chunk) CheckTables() (Tables, error) {
	var t Tables
	if c.State&(ChunkEmpty|ChunkForeign) != 0 {
		return t, nil
	}
	le := binary.LittleEndian
	for bucket := range 64 {
		prev := uint32(ChunkSize)
		for off := le.Uint32(c.buf[128+4*bucket:]); off != 0; {
			if off >= prev || off < recordsStart || int(off)+8 > c.size {
				return t, fmt.Errorf("evtx: chunk %d: name table entry %d: bad offset %d", c.Index, bucket, off)
			}
			if err := c.checkName(int(off)); err != nil {
				return t, fmt.Errorf("evtx: chunk %d: name at offset %d: %w", c.Index, off, err)
			}
			if int(le.Uint16(c.buf[off+4:]))%64 != bucket {
				return t, fmt.Errorf("evtx: chunk %d: name at offset %d stands in the wrong bucket", c.Index, off)
			}
			t.Names++
			prev, off = off, le.Uint32(c.buf[off:])
		}
	}
	for bucket := range 32 {
		prev := uint32(ChunkSize)
		for off := le.Uint32(c.buf[384+4*bucket:]); off != 0; {
			if off >= prev || off < recordsStart || int(off)+definitionHeader > c.size {
				return t, fmt.Errorf("evtx: chunk %d: template table entry %d: bad offset %d", c.Index, bucket, off)
			}
			if int64(off)+definitionHeader+int64(le.Uint32(c.buf[off+20:])) > int64(c.size) {
				return t, fmt.Errorf("evtx: chunk %d: template at offset %d is larger than the chunk", c.Index, off)
			}
			t.Templates++
			prev, off = off, le.Uint32(c.buf[off:])
		}
	}
	return t, nil
}

func (c *Chunk) checkName(off int) error {
	n := int(binary.LittleEndian.Uint16(c.buf[off+6:]))
	if off+8+2*n+2 > c.size {
		return errors.New("reaches beyond the chunk")
	}
	if nameHash(c.buf[off+8:off+8+2*n]) != binary.LittleEndian.Uint16(c.buf[off+4:]) {
		return errors.New("hash differs")
	}
	return nil
}
