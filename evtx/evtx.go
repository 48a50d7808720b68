package evtx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

const (
	fileMagic   = "ElfFile\x00"
	chunkMagic  = "ElfChnk\x00"
	recordMagic = 0x00002a2a

	fileHeaderBytes = 128
	firstChunk      = 4096
	// ChunkSize is the fixed size of a chunk in bytes.
	ChunkSize    = 65536
	recordsStart = 512
)

// ErrNotEVTX is returned by [NewReader] for input that is no Windows event log:
// there is neither a file header nor a chunk where the first one belongs.
var ErrNotEVTX = errors.New("evtx: not a Windows event log")

// ErrVersion is returned by [NewReader] for a format version outside 3.0 to 3.2
// in a header whose checksum is right.
var ErrVersion = errors.New("evtx: unknown format version")

// FileHeader is the header of a file as it stands there. Its counters are hints:
// a log that was not closed has stale ones.
type FileHeader struct {
	FirstChunk, LastChunk uint64
	NextRecordID          uint64
	Major, Minor          uint16
	ChunkCount            uint16 // as stored; Reader.NumChunks counts by file size
	Dirty                 bool   // the log was not closed
	Full                  bool   // the log had reached its maximum size
	CRCWrong              bool   // the header does not match its checksum
	ChunksAt              int64  // where the first chunk starts; known also without a good header
}

// Reader reads one file. It holds no position: several goroutines may read
// different chunks of it, each into a [Chunk] of its own, if the io.ReaderAt
// allows it, as a file does.
type Reader struct {
	r      io.ReaderAt
	size   int64
	first  int64
	header FileHeader
	cache  *Cache
}

// NewReader reads the file header. It fails where there is none and the first
// chunk does not follow either; a header with a wrong checksum is reported in
// [FileHeader.CRCWrong] and read on.
func NewReader(r io.ReaderAt, size int64) (*Reader, error) {
	var b [fileHeaderBytes]byte
	if size < fileHeaderBytes {
		return nil, fmt.Errorf("%w: %d bytes", ErrNotEVTX, size)
	}
	if n, err := r.ReadAt(b[:], 0); n < len(b) {
		return nil, fmt.Errorf("evtx: reading the file header: %w", err)
	}
	f := &Reader{r: r, size: size, first: firstChunk, header: FileHeader{ChunksAt: firstChunk}}
	if string(b[:8]) != fileMagic {
		// A destroyed header does not destroy the chunks behind it.
		var m [8]byte
		if size < firstChunk+ChunkSize {
			return nil, ErrNotEVTX
		}
		if _, err := r.ReadAt(m[:], firstChunk); err != nil {
			return nil, fmt.Errorf("evtx: reading the first chunk: %w", err)
		}
		if string(m[:]) != chunkMagic {
			return nil, ErrNotEVTX
		}
		f.header.CRCWrong = true
		return f, nil
	}
	le := binary.LittleEndian
	flags := le.Uint32(b[120:])
	f.header = FileHeader{
		ChunksAt:     firstChunk,
		FirstChunk:   le.Uint64(b[8:]),
		LastChunk:    le.Uint64(b[16:]),
		NextRecordID: le.Uint64(b[24:]),
		Minor:        le.Uint16(b[36:]),
		Major:        le.Uint16(b[38:]),
		ChunkCount:   le.Uint16(b[42:]),
		Dirty:        flags&1 != 0,
		Full:         flags&2 != 0,
		CRCWrong:     crc32.ChecksumIEEE(b[:120]) != le.Uint32(b[124:]),
	}
	if f.header.CRCWrong {
		return f, nil
	}
	if f.header.Major != 3 || f.header.Minor > 2 {
		return nil, fmt.Errorf("%w %d.%d", ErrVersion, f.header.Major, f.header.Minor)
	}
	if at := int64(le.Uint16(b[40:])); at >= fileHeaderBytes {
		f.first, f.header.ChunksAt = at, at
	}
	return f, nil
}

// Header returns the file header.
func (r *Reader) Header() FileHeader { return r.header }

// NumChunks is the number of chunk places in the file, counted by its size and
// not by its header. The last may be cut short.
func (r *Reader) NumChunks() int {
	if r.size <= r.first {
		return 0
	}
	return int((r.size - r.first + ChunkSize - 1) / ChunkSize)
}

// Chunks reads the chunks in file order and hands each to fn, also the empty and
// the damaged ones. The chunk is reused: it and its records are valid until fn
// returns. An error of fn, or of reading the file, ends the walk.
func (r *Reader) Chunks(fn func(*Chunk) error) error {
	var c Chunk
	for i := range r.NumChunks() {
		if err := r.ReadChunk(i, &c); err != nil {
			return err
		}
		if err := fn(&c); err != nil {
			return err
		}
	}
	return nil
}

// Records reads all records in file order. The record is valid until fn returns.
func (r *Reader) Records(fn func(*Record) error) error {
	return r.Chunks(func(c *Chunk) error { return c.Records(fn) })
}

// ReadChunk reads chunk place i, counted from 0, into c, reusing the memory of c.
// It fails only where the file cannot be read; what is wrong with the bytes is in
// c.State. Of a sound chunk only what is in use is read.
func (r *Reader) ReadChunk(i int, c *Chunk) error {
	if i < 0 || i >= r.NumChunks() {
		return fmt.Errorf("evtx: chunk %d of %d", i, r.NumChunks())
	}
	off := r.first + int64(i)*ChunkSize
	n := int(min(int64(ChunkSize), r.size-off))
	if c.buf == nil {
		c.buf = make([]byte, ChunkSize)
	}
	have := 0
	for _, want := range [2]int{min(n, recordsStart), n} {
		if have > 0 {
			want = c.extent(n)
		}
		got, err := r.r.ReadAt(c.buf[have:want], off+int64(have))
		c.filled = max(c.filled, want)
		if have+got < want {
			if err == nil {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("evtx: reading chunk %d at offset %d: %w", i, off, err)
		}
		have = want
	}
	c.fill(have)
	if r.cache != nil {
		c.cache = r.cache
	}
	c.reset(i, off, n)
	return nil
}

// Load takes b, at most ChunkSize bytes that stand at offset off of a file, as
// chunk place i: for callers that read a stream and not a file. b is copied; less
// than ChunkSize bytes are a chunk that the end of the file cut.
func (c *Chunk) Load(i int, off int64, b []byte) {
	if c.buf == nil {
		c.buf = make([]byte, ChunkSize)
	}
	n := min(len(b), ChunkSize)
	have := copy(c.buf, b[:min(n, recordsStart)])
	have += copy(c.buf[have:], b[have:max(have, c.extent(n))])
	c.fill(have)
	c.reset(i, off, n)
}

// DamageError says what is wrong with a record and where. It names no value.
type DamageError struct {
	Chunk  int    // number of the chunk place
	Record uint64 // record id of the header, 0 if unknown
	Offset int64  // in the file, of the byte at which decoding stopped
	What   string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("evtx: chunk %d, record %d, offset %d: %s", e.Chunk, e.Record, e.Offset, e.What)
}
