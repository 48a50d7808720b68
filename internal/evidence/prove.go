package evidence

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/event"
)

// Proof shows that a record is in a closed segment, without any other record.
// Whoever has the records root from a source that they trust needs nothing else.
type Proof struct {
	Stream      Stream
	Compartment string
	Segment     uuid.UUID
	Index       uint64 // number of the record
	Size        uint64 // records of the segment
	Record      []byte
	Salt        [32]byte
	Path        [][32]byte // siblings from the leaf up
	Root        [32]byte   // records root of the footer
}

// Check recomputes the root from the record.
func (p *Proof) Check() error {
	path := make([]hash, len(p.Path))
	for i := range path {
		path[i] = p.Path[i]
	}
	if err := checkPath(leafHash(p.Salt[:], p.Record), p.Index, p.Size, path, p.Root); err != nil {
		return fmt.Errorf("proof of %s/%s/%d: %w", p.Compartment, p.Segment, p.Index, err)
	}
	return nil
}

// Prove gives the proof of one record. The segment must be closed.
func (s *Store) Prove(ctx context.Context, stream Stream, ref event.Ref) (*Proof, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, err := s.prove(stream, ref)
	if err != nil {
		return nil, fmt.Errorf("proving %s: %w", ref, err)
	}
	return p, nil
}

func (s *Store) prove(stream Stream, ref event.Ref) (*Proof, error) {
	l := s.log(stream, ref.Compartment)
	if l == nil {
		return nil, ErrPosition
	}
	seg := l.find(ref.Segment)
	if seg == nil {
		return nil, ErrPosition
	}
	l.mu.Lock()
	state := seg.state
	l.mu.Unlock()
	if state != segClosed {
		return nil, fmt.Errorf("its segment is %s; a proof needs a closed one", state)
	}
	rd, blocks, release, err := l.acquire(seg)
	if err != nil {
		return nil, err
	}
	defer release()
	if ref.Ordinal >= blocks.records {
		return nil, ErrPosition
	}
	st, err := rd.f.Stat()
	if err != nil {
		return nil, err
	}
	path, size, root, err := provePath(rd.f, st.Size(), ref.Ordinal)
	if err != nil {
		return nil, err
	}
	b, err := s.openBlock(rd, &blocks, blockOf(blocks.table, ref.Ordinal), new(scratch))
	if err != nil {
		return nil, err
	}
	rest, rec := b.raw, []byte(nil)
	for n := b.first; n <= ref.Ordinal; n++ {
		if rec, rest, err = nextRecord(rest); err != nil {
			return nil, err
		}
	}
	p := &Proof{Stream: stream, Compartment: ref.Compartment, Segment: ref.Segment, Index: ref.Ordinal, Size: size, Record: bytes.Clone(rec), Root: root}
	for _, h := range path {
		p.Path = append(p.Path, h)
	}
	mac := hmac.New(sha256.New, rd.key.salt)
	mac.Write(binary.BigEndian.AppendUint64(nil, ref.Ordinal))
	mac.Sum(p.Salt[:0])
	return p, p.Check()
}

// provePath reads what one path needs: the ends of the footer, the tiles that the
// path crosses, and the leaves of one tile. It trusts none of it: the path leads to
// the root or it does not.
func provePath(r io.ReaderAt, fileSize int64, index uint64) (path []hash, size uint64, root hash, err error) {
	t := make([]byte, trailerLen)
	if _, err := r.ReadAt(t, max(0, fileSize-trailerLen)); err != nil {
		return nil, 0, root, cutShort(err)
	}
	off, length, err := parseTrailer(t, fileSize)
	if err != nil {
		return nil, 0, root, err
	}
	b := make([]byte, frameHeadLen+4)
	if _, err := r.ReadAt(b, off); err != nil {
		return nil, 0, root, cutShort(err)
	}
	h, err := parseFrameHead(b)
	if err != nil || h.typ != frameFooter {
		return nil, 0, root, errors.New("no footer")
	}
	size = h.first
	js := int64(binary.BigEndian.Uint32(b[frameHeadLen:]))
	table := off + frameHeadLen + 4 + js
	tiles := table + tableEntry*int64(h.block)
	if js > maxHeader || h.block > maxBlocks || size > maxFrame*uint64(maxBlocks) ||
		tiles+32*int64(tileCount(size))+4 != off+int64(length) || index >= size || h.block == 0 {
		return nil, 0, root, errors.New("the footer does not fit")
	}
	// Blocks that hold the leaves of the tile.
	entry := func(i int) (blockAt, error) {
		if i == int(h.block) {
			return blockAt{first: size}, nil
		}
		var e [tableEntry]byte
		if _, err := r.ReadAt(e[:], table+tableEntry*int64(i)); err != nil {
			return blockAt{}, cutShort(err)
		}
		return blockAt{off: int64(binary.BigEndian.Uint64(e[:])), first: binary.BigEndian.Uint64(e[8:])}, nil
	}
	from := index / tileSize * tileSize
	to := min(from+tileSize, size)
	var failed error
	i := sort.Search(int(h.block), func(i int) bool {
		e, err := entry(i)
		if err != nil {
			failed = err
		}
		return e.first > from
	}) - 1
	var leaves []hash
	for at := from; at < to && failed == nil; i++ {
		e, err := entry(max(i, 0))
		if err != nil {
			return nil, 0, root, err
		}
		next, err := entry(max(i, 0) + 1)
		if err != nil {
			return nil, 0, root, err
		}
		if at < e.first || next.first <= at || e.off >= off {
			return nil, 0, root, errors.New("block table")
		}
		n := min(next.first, to) - at
		leaves, failed = readHashes(r, leaves, e.off+frameHeadLen+32*int64(at-e.first), n)
		at += n
	}
	if failed != nil {
		return nil, 0, root, failed
	}
	path, root = pathIn(leaves, int(index-from))
	node := index / tileSize
	for _, n := range tileLevels(size) {
		if n == 1 {
			break
		}
		from := node / tileSize * tileSize
		tile, err := readHashes(r, nil, tiles+32*int64(from), min(from+tileSize, n)-from)
		if err != nil {
			return nil, 0, root, err
		}
		var up []hash
		up, root = pathIn(tile, int(node-from))
		path = append(path, up...)
		node /= tileSize
		tiles += 32 * int64(n)
	}
	return path, size, root, nil
}

func readHashes(r io.ReaderAt, to []hash, off int64, n uint64) ([]hash, error) {
	b := make([]byte, 32*n)
	if _, err := r.ReadAt(b, off); err != nil {
		return nil, cutShort(err)
	}
	for ; len(b) > 0; b = b[32:] {
		to = append(to, hash(b))
	}
	return to, nil
}
