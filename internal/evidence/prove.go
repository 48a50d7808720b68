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
	"io/fs"
	"os"
	"path/filepath"
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
	_, path, size, root, err := provePath(rd.f, st.Size(), ref.Ordinal)
	if err != nil {
		return nil, err
	}
	if rd.key == nil { // sealed to officers, or destroyed: also where a block is still at hand
		return nil, rd.noKey
	}
	// Whoever proves many records asks for those of one block after another.
	i := blockOf(blocks.table, ref.Ordinal)
	k := blockKey{segment: seg.id, compartment: ref.Compartment, block: i}
	b, ok := s.blocks.get(k)
	if !ok {
		if b, err = s.openBlock(rd, &blocks, i, new(scratch)); err != nil {
			return nil, err
		}
		s.blocks.put(k, b)
	}
	rest, rec := b.raw, []byte(nil)
	for n := b.first; n <= ref.Ordinal; n++ {
		if rec, rest, err = nextRecord(rest); err != nil {
			return nil, err
		}
	}
	p := &Proof{Stream: stream, Compartment: ref.Compartment, Segment: ref.Segment, Index: ref.Ordinal, Size: size, Record: bytes.Clone(rec), Root: root}
	p.fill(path, rd.key.salt)
	return p, p.Check()
}

// fill sets path and salt.
func (p *Proof) fill(path []hash, salt []byte) {
	for _, h := range path {
		p.Path = append(p.Path, h)
	}
	mac := hmac.New(sha256.New, salt)
	mac.Write(binary.BigEndian.AppendUint64(nil, p.Index))
	mac.Sum(p.Salt[:0])
}

// Prove gives the proof of one record of a closed segment that was read here.
func (r *SegmentReader) Prove(ordinal uint64, rec []byte) (*Proof, error) {
	st, err := r.rd.f.Stat()
	if err != nil {
		return nil, err
	}
	_, path, size, root, err := provePath(r.rd.f, st.Size(), ordinal)
	if err != nil {
		return nil, fmt.Errorf("proving record %d of segment %s: %w", ordinal, r.rd.head.id, err)
	}
	p := &Proof{Stream: r.rd.head.stream, Compartment: r.rd.head.Compartment, Segment: r.rd.head.id, Index: ordinal, Size: size, Record: bytes.Clone(rec), Root: root}
	p.fill(path, r.rd.key.salt)
	return p, p.Check()
}

// LeafProof is a Proof without the record: the path from its leaf hash. It says that
// one record stands at this place and not what is in it.
type LeafProof struct {
	Stream      Stream
	Compartment string
	Segment     uuid.UUID
	Index       uint64
	Size        uint64
	Leaf        [32]byte
	Path        [][32]byte
	Root        [32]byte
}

// ErrNotClosed: a proof needs a closed segment.
var ErrNotClosed = errors.New("its segment is not closed yet")

// ProveLeaf reads the path of one record out of a closed segment file. It needs no
// key and no lock, and works beside a running server. It trusts nothing that it reads
// but compares the path with the root in the footer; whether that root is the right
// one, the statement about the segment says.
func ProveLeaf(dataDir string, stream Stream, ref event.Ref) (*LeafProof, error) {
	fail := func(err error) (*LeafProof, error) { return nil, fmt.Errorf("proving %s: %w", ref, err) }
	name := filepath.Join(dataDir, "evidence", stream.String(), ref.Compartment, ref.Segment.String())
	f, err := os.Open(name + extClosed)
	if errors.Is(err, fs.ErrNotExist) {
		switch {
		case exists(name + extOpen):
			return fail(ErrNotClosed)
		case exists(name + extDamaged):
			return fail(errors.New("its segment was set aside as damaged"))
		}
		return fail(ErrPosition)
	}
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fail(err)
	}
	p, err := leafProof(f, st.Size(), ref.Ordinal)
	if err != nil {
		return fail(err)
	}
	p.Stream, p.Compartment, p.Segment = stream, ref.Compartment, ref.Segment
	return p, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// leafProof is ProveLeaf over any bytes.
func leafProof(r io.ReaderAt, fileSize int64, index uint64) (*LeafProof, error) {
	leaf, path, size, root, err := provePath(r, fileSize, index)
	if err != nil {
		return nil, err
	}
	if err := checkPath(leaf, index, size, path, root); err != nil {
		return nil, err
	}
	p := &LeafProof{Index: index, Size: size, Leaf: leaf, Root: root}
	for _, h := range path {
		p.Path = append(p.Path, h)
	}
	return p, nil
}

// Check leads the path to the root.
func (p *LeafProof) Check() error { return CheckPath(p.Leaf, p.Index, p.Size, p.Path, p.Root) }

// CheckPath leads the path of leaf index in a tree of size to its root (RFC 9162,
// 2.1.3.2).
func CheckPath(leaf [32]byte, index, size uint64, path [][32]byte, root [32]byte) error {
	hs := make([]hash, len(path))
	for i := range path {
		hs[i] = path[i]
	}
	return checkPath(leaf, index, size, hs, root)
}

// RecordLeaf is the leaf of a record under its salt.
func RecordLeaf(salt [32]byte, record []byte) [32]byte { return leafHash(salt[:], record) }

// provePath reads what one path needs: the ends of the footer, the tiles that the
// path crosses, and the leaves of one tile. It trusts none of it: the path leads to
// the root or it does not.
func provePath(r io.ReaderAt, fileSize int64, index uint64) (leaf hash, path []hash, size uint64, root hash, err error) {
	t := make([]byte, trailerLen)
	if _, err := r.ReadAt(t, max(0, fileSize-trailerLen)); err != nil {
		return leaf, nil, 0, root, cutShort(err)
	}
	off, length, err := parseTrailer(t, fileSize)
	if err != nil {
		return leaf, nil, 0, root, err
	}
	b := make([]byte, frameHeadLen+4)
	if _, err := r.ReadAt(b, off); err != nil {
		return leaf, nil, 0, root, cutShort(err)
	}
	h, err := parseFrameHead(b)
	if err != nil || h.typ != frameFooter {
		return leaf, nil, 0, root, errors.New("no footer")
	}
	size = h.first
	js := int64(binary.BigEndian.Uint32(b[frameHeadLen:]))
	table := off + frameHeadLen + 4 + js
	tiles := table + tableEntry*int64(h.block)
	if js > maxHeader || h.block > maxBlocks || size > maxFrame*uint64(maxBlocks) ||
		tiles+32*int64(tileCount(size))+4 != off+int64(length) || index >= size || h.block == 0 {
		return leaf, nil, 0, root, errors.New("the footer does not fit")
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
			return leaf, nil, 0, root, err
		}
		next, err := entry(max(i, 0) + 1)
		if err != nil {
			return leaf, nil, 0, root, err
		}
		if at < e.first || next.first <= at || e.off >= off {
			return leaf, nil, 0, root, errors.New("block table")
		}
		n := min(next.first, to) - at
		leaves, failed = readHashes(r, leaves, e.off+frameHeadLen+32*int64(at-e.first), n)
		at += n
	}
	if failed != nil {
		return leaf, nil, 0, root, failed
	}
	leaf = leaves[index-from]
	path, root = pathIn(leaves, int(index-from))
	node := index / tileSize
	for _, n := range tileLevels(size) {
		if n == 1 {
			break
		}
		from := node / tileSize * tileSize
		tile, err := readHashes(r, nil, tiles+32*int64(from), min(from+tileSize, n)-from)
		if err != nil {
			return leaf, nil, 0, root, err
		}
		var up []hash
		up, root = pathIn(tile, int(node-from))
		path = append(path, up...)
		node /= tileSize
		tiles += 32 * int64(n)
	}
	return leaf, path, size, root, nil
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
