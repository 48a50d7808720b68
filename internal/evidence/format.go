package evidence

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/keyring"
)

// The bytes of docs/formats/segment.md. Everything is big-endian.
const (
	preludeMagic = "CSEALSG1"
	frameMagic   = "CSBK"
	trailerMagic = "CSEALEND"

	formatNumber = 1
	preludeLen   = 8 + 2 + 2 + 4
	frameHeadLen = 72
	nonceLen     = 12
	tagLen       = 16
	trailerLen   = 8 + 4 + 4 + 8
	tableEntry   = 16

	maxHeader = 16 << 10
	maxFrame  = 24 << 20 // data frames and footers
	maxRecord = 16 << 20
	maxBlocks = 1 << 18 // of one segment, so that its footer fits a frame

	frameData   = 1
	frameFooter = 0xF0
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func crcOf(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// header is the JSON of a segment, its members in the order of RFC 8785. It is
// ASCII and holds no character that encoding/json escapes, so json.Marshal gives
// the canonical form; parseHeader refuses every other.
type header struct {
	CardCommit  string       `json:"card_commit"`
	Compartment string       `json:"compartment"`
	Escrow      string       `json:"escrow"`
	Limits      headerLimits `json:"limits"`
	Opened      string       `json:"opened"`
	Org         string       `json:"org,omitempty"` // with seals only
	Prev        *headerPrev  `json:"prev,omitempty"`
	Seals       []headerSeal `json:"seals,omitempty"`
	Segment     string       `json:"segment"`
	Seq         string       `json:"seq"`
	Stream      string       `json:"stream"`
	Suite       headerSuite  `json:"suite"`
	V           int          `json:"v"`
}

type headerLimits struct {
	Frame   int64 `json:"frame"`
	Record  int64 `json:"record"`
	Records int64 `json:"records"`
	Seconds int64 `json:"seconds"`
	Segment int64 `json:"segment"`
}

// headerSeal fixes one box of the key card and says who opens it.
type headerSeal struct {
	Epoch  int    `json:"epoch"`
	Inner  string `json:"inner"` // id of the key of investigation
	Outer  string `json:"outer"` // id of the key of oversight
	SHA256 string `json:"sha256"`
	Suite  string `json:"suite"`
}

type headerPrev struct {
	Hash    string `json:"hash"`
	Segment string `json:"segment"`
	State   string `json:"state"`
}

type headerSuite struct {
	AEAD string `json:"aead"`
	Comp string `json:"comp"`
	Hash string `json:"hash"`
	KDF  string `json:"kdf"`
	Leaf string `json:"leaf"`
}

var suite = headerSuite{AEAD: "AES-256-GCM", Comp: "zstd", Hash: "SHA-256", KDF: "HKDF-SHA256", Leaf: "HMAC-SHA256-salt"}

// States of the segment before, as its successor names them.
const (
	prevClosed  = "closed"  // hash of the footer frame
	prevDamaged = "damaged" // hash of the whole file as it was set aside
)

// Escrow of the key of a segment.
const (
	escrowService  = "service"  // event stream: the keyring of the server
	escrowNoneYet  = "none-yet" // original stream: same wrap, no officer holds it
	escrowOfficers = "officers" // original stream: sealed to two officers; the server cannot open it
)

const timeForm = "2006-01-02T15:04:05.000000Z"

// encodeHead gives prelude, header and checksum.
func encodeHead(h *header) ([]byte, error) {
	js, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	if len(js) > maxHeader {
		return nil, errors.New("the header is too long")
	}
	b := make([]byte, 0, preludeLen+len(js)+4)
	b = append(b, preludeMagic...)
	b = binary.BigEndian.AppendUint16(b, formatNumber)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(js)))
	b = append(b, js...)
	return binary.BigEndian.AppendUint32(b, crcOf(b)), nil
}

// parsePrelude gives the length of the whole head.
func parsePrelude(b []byte) (int, error) {
	if len(b) < preludeLen || string(b[:8]) != preludeMagic {
		return 0, errors.New("not a segment")
	}
	if v := binary.BigEndian.Uint16(b[8:]); v != formatNumber {
		return 0, fmt.Errorf("format %d, this program knows %d", v, formatNumber)
	}
	if binary.BigEndian.Uint16(b[10:]) != 0 {
		return 0, errors.New("unknown flags")
	}
	n := binary.BigEndian.Uint32(b[12:])
	if n > maxHeader {
		return 0, errors.New("the header is too long")
	}
	return preludeLen + int(n) + 4, nil
}

// head is a parsed header and what goes with it.
type head struct {
	header
	id     uuid.UUID
	stream Stream
	seq    uint64
	opened time.Time
	hash   hash // SHA-256 of prelude, header and checksum
	size   int64
}

// parseHead reads exactly one head.
func parseHead(b []byte) (*head, error) {
	n, err := parsePrelude(b)
	if err != nil {
		return nil, err
	}
	if len(b) != n {
		return nil, errors.New("the header is cut short")
	}
	if binary.BigEndian.Uint32(b[n-4:]) != crcOf(b[:n-4]) {
		return nil, errors.New("checksum of the header")
	}
	js := b[preludeLen : n-4]
	hd := &head{size: int64(n), hash: sum(b)}
	if err := strictJSON(js, &hd.header); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if hd.V != 1 || hd.Suite != suite {
		return nil, errors.New("header: unknown version or suite")
	}
	if hd.id, err = uuid.Parse(hd.Segment); err != nil || hd.id.String() != hd.Segment {
		return nil, errors.New("header: segment is not a UUID")
	}
	if err := event.CheckCompartment(hd.Compartment); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if hd.stream, err = ParseStream(hd.Stream); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if hd.seq, err = strconv.ParseUint(hd.Seq, 10, 63); err != nil || hd.seq == 0 || strconv.FormatUint(hd.seq, 10) != hd.Seq {
		return nil, errors.New("header: seq")
	}
	if hd.opened, err = time.Parse(timeForm, hd.Opened); err != nil {
		return nil, errors.New("header: opened")
	}
	if _, err := parseHash(hd.CardCommit); err != nil {
		return nil, fmt.Errorf("header: card_commit: %w", err)
	}
	if err := hd.checkEscrow(); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if p := hd.Prev; p != nil {
		if _, err := parseHash(p.Hash); err != nil {
			return nil, fmt.Errorf("header: prev: %w", err)
		}
		if id, err := uuid.Parse(p.Segment); err != nil || id.String() != p.Segment {
			return nil, errors.New("header: prev: segment is not a UUID")
		}
		if p.State != prevClosed && p.State != prevDamaged {
			return nil, errors.New("header: prev: state")
		}
	}
	if (hd.Prev == nil) != (hd.seq == 1) {
		return nil, errors.New("header: prev and seq do not fit")
	}
	return hd, nil
}

// maxSeals bounds the boxes of one key: a pair of officers and a spare one, and room.
const maxSeals = 8

func (hd *head) checkEscrow() error {
	switch hd.Escrow {
	case escrowService, escrowNoneYet:
		if hd.Org != "" || hd.Seals != nil {
			return errors.New("seals without an escrow to officers")
		}
		return nil
	case escrowOfficers:
	default:
		return errors.New("escrow")
	}
	if id, err := uuid.Parse(hd.Org); err != nil || id.String() != hd.Org {
		return errors.New("org is not a UUID")
	}
	if len(hd.Seals) == 0 || len(hd.Seals) > maxSeals || hd.stream != Originals {
		return errors.New("seals")
	}
	for _, s := range hd.Seals {
		if s.Epoch < 1 || s.Suite != keyring.SuiteSeal {
			return errors.New("seals: unknown epoch or suite")
		}
		for _, h := range []string{s.Inner, s.Outer, s.SHA256} {
			if _, err := parseHash(h); err != nil {
				return fmt.Errorf("seals: %w", err)
			}
		}
	}
	return nil
}

// strictJSON decodes b and refuses everything but the canonical form of what it
// understood: unknown, repeated and reordered members, spaces, trailing bytes.
func strictJSON(b []byte, v any) error {
	if err := json.Unmarshal(b, v); err != nil {
		return errors.New("not the JSON expected")
	}
	again, err := json.Marshal(v)
	if err != nil || !bytes.Equal(again, b) {
		return errors.New("not in canonical form")
	}
	return nil
}

// frameHead is the fixed part of a frame. A footer has the same one: its block and
// first are the totals of the segment, its n and rawLen are zero.
type frameHead struct {
	typ    byte
	length uint32 // of the whole frame
	block  uint32
	first  uint64
	n      uint32
	rawLen uint32
	ms     uint64
	prev   hash
}

func (h *frameHead) put(b []byte) {
	copy(b, frameMagic)
	b[4], b[5], b[6], b[7] = h.typ, 0, 0, 0
	binary.BigEndian.PutUint32(b[8:], h.length)
	binary.BigEndian.PutUint32(b[12:], h.block)
	binary.BigEndian.PutUint64(b[16:], h.first)
	binary.BigEndian.PutUint32(b[24:], h.n)
	binary.BigEndian.PutUint32(b[28:], h.rawLen)
	binary.BigEndian.PutUint64(b[32:], h.ms)
	copy(b[40:], h.prev[:])
}

// parseFrameHead reads the fixed part and checks what can be checked by itself.
func parseFrameHead(b []byte) (h frameHead, err error) {
	if len(b) < frameHeadLen || string(b[:4]) != frameMagic {
		return h, errors.New("no frame begins here")
	}
	h = frameHead{
		typ:    b[4],
		length: binary.BigEndian.Uint32(b[8:]),
		block:  binary.BigEndian.Uint32(b[12:]),
		first:  binary.BigEndian.Uint64(b[16:]),
		n:      binary.BigEndian.Uint32(b[24:]),
		rawLen: binary.BigEndian.Uint32(b[28:]),
		ms:     binary.BigEndian.Uint64(b[32:]),
	}
	copy(h.prev[:], b[40:])
	if b[5] != 0 || b[6] != 0 || b[7] != 0 {
		return h, errors.New("unknown flags")
	}
	if h.length > maxFrame {
		return h, errors.New("longer than a frame may be")
	}
	switch h.typ {
	case frameData:
		if h.n == 0 || uint64(h.length) < frameHeadLen+32*uint64(h.n)+nonceLen+tagLen+4 || uint64(h.rawLen) < 4*uint64(h.n) || h.rawLen > maxFrame {
			return h, errors.New("lengths do not fit")
		}
	case frameFooter:
		if h.n != 0 || h.rawLen != 0 || h.length < frameHeadLen+4+4 {
			return h, errors.New("lengths do not fit")
		}
	default:
		return h, errors.New("unknown type")
	}
	return h, nil
}

// checkFrame parses a whole frame and its checksum.
func checkFrame(b []byte) (h frameHead, err error) {
	if h, err = parseFrameHead(b); err != nil {
		return h, err
	}
	if int(h.length) != len(b) {
		return h, errors.New("cut short")
	}
	if binary.BigEndian.Uint32(b[len(b)-4:]) != crcOf(b[:len(b)-4]) {
		return h, errors.New("checksum")
	}
	return h, nil
}

// blockAt is a line of the block table.
type blockAt struct {
	off   int64
	first uint64
}

// footer is the JSON of the footer, its members in the order of RFC 8785.
type footer struct {
	Blocks      uint32 `json:"blocks"`
	BlocksRoot  string `json:"blocks_root"`
	Cut         int64  `json:"cut,omitempty"`        // bytes of a torn tail
	CutSHA256   string `json:"cut_sha256,omitempty"` // of those bytes
	FirstMS     uint64 `json:"first_ms"`
	HeaderHash  string `json:"header_hash"`
	LastMS      uint64 `json:"last_ms"`
	LastPrev    string `json:"last_prev"`
	RawBytes    uint64 `json:"raw_bytes"`
	Reason      string `json:"reason"`
	Records     uint64 `json:"records"`
	RecordsRoot string `json:"records_root"`
	V           int    `json:"v"`
}

// Reasons for which a segment ends.
const (
	reasonBytes     = "bytes"
	reasonRecords   = "records"
	reasonAge       = "age"
	reasonRotate    = "rotate"
	reasonStop      = "stop"
	reasonRecovered = "recovered"
)

func knownReason(r string) bool {
	switch r {
	case reasonBytes, reasonRecords, reasonAge, reasonRotate, reasonStop, reasonRecovered:
		return true
	}
	return false
}

// sums is all that a footer says about the frames before it.
type sums struct {
	headHash        hash
	last            hash // of the last frame, or headHash
	table           []blockAt
	chain           []hash // of each frame; as long as table while nothing is damaged
	records, raw    uint64
	firstMS, lastMS uint64
	recs, blocks    tree
	end             int64 // where the next frame begins
}

func newSums(hd *head) sums { return sums{headHash: hd.hash, last: hd.hash, end: hd.size} }

// add takes a checked data frame in.
func (s *sums) add(h *frameHead, frame []byte) {
	s.table = append(s.table, blockAt{off: s.end, first: s.records})
	for i := range int(h.n) {
		s.recs.add(hash(frame[frameHeadLen+32*i:]))
	}
	s.last = leafHash(frame)
	s.chain = append(s.chain, s.last)
	s.blocks.add(s.last)
	if len(s.table) == 1 || h.ms < s.firstMS {
		s.firstMS = h.ms
	}
	s.lastMS = max(s.lastMS, h.ms)
	s.records += uint64(h.n)
	s.raw += uint64(h.rawLen)
	s.end += int64(len(frame))
}

// follows checks that a data frame belongs at the end of s.
func (s *sums) follows(h *frameHead) error {
	switch {
	case h.prev != s.last:
		return errChain
	case h.block != uint32(len(s.table)):
		return errors.New("block number")
	case h.first != s.records:
		return errors.New("first record")
	}
	return nil
}

var errChain = errors.New("does not name the hash of the frame before it")

// footer gives footer frame and trailer.
func (s *sums) footer(reason string, ms uint64, cut int64, cutSHA string) (frame, trailer []byte, f footer) {
	f = footer{
		Blocks: uint32(len(s.table)), BlocksRoot: s.blocks.root().String(), Cut: cut, CutSHA256: cutSHA,
		FirstMS: s.firstMS, HeaderHash: s.headHash.String(), LastMS: s.lastMS, LastPrev: s.last.String(),
		RawBytes: s.raw, Reason: reason, Records: s.records, RecordsRoot: s.recs.root().String(), V: 1,
	}
	js, err := json.Marshal(f)
	if err != nil {
		panic("evidence: " + err.Error()) // a struct of numbers and text always marshals
	}
	tiles := s.recs.tiles()
	n := frameHeadLen + 4 + len(js) + tableEntry*len(s.table) + 32*len(tiles) + 4
	b := make([]byte, frameHeadLen, n+trailerLen)
	h := frameHead{typ: frameFooter, length: uint32(n), block: f.Blocks, first: s.records, ms: ms, prev: s.last}
	h.put(b)
	b = binary.BigEndian.AppendUint32(b, uint32(len(js)))
	b = append(b, js...)
	for _, e := range s.table {
		b = binary.BigEndian.AppendUint64(b, uint64(e.off))
		b = binary.BigEndian.AppendUint64(b, e.first)
	}
	for _, t := range tiles {
		b = append(b, t[:]...)
	}
	b = binary.BigEndian.AppendUint32(b, crcOf(b))
	return b, trailerFor(s.end, len(b)), f
}

func trailerFor(off int64, n int) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, trailerLen), uint64(off))
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	b = binary.BigEndian.AppendUint32(b, crcOf(b))
	return append(b, trailerMagic...)
}

// parseTrailer gives where the footer is.
func parseTrailer(b []byte, size int64) (off int64, n int, err error) {
	if len(b) != trailerLen || string(b[16:]) != trailerMagic {
		return 0, 0, errors.New("no trailer")
	}
	if binary.BigEndian.Uint32(b[12:]) != crcOf(b[:12]) {
		return 0, 0, errors.New("checksum of the trailer")
	}
	o, l := binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:])
	if o > uint64(size) || l > maxFrame || int64(o)+int64(l)+trailerLen != size {
		return 0, 0, errors.New("the trailer does not fit the file")
	}
	return int64(o), int(l), nil
}

// parsedFooter is a footer whose parts agree with each other.
type parsedFooter struct {
	footer
	head    frameHead
	table   []blockAt
	tiles   []byte
	hash    hash  // of the frame, what the next segment names
	tilesAt int   // offset of the tiles inside the frame
	end     int64 // where the frame stands in its file
}

// parseFooter checks a footer frame by itself. off is where it stands.
func parseFooter(b []byte, off int64) (*parsedFooter, error) {
	h, err := checkFrame(b)
	if err != nil {
		return nil, err
	}
	if h.typ != frameFooter {
		return nil, errors.New("not a footer")
	}
	p := &parsedFooter{head: h, hash: leafHash(b), end: off}
	body := b[frameHeadLen : len(b)-4]
	n := binary.BigEndian.Uint32(body)
	body = body[4:]
	if uint64(n) > uint64(len(body)) {
		return nil, errors.New("cut short")
	}
	if err := strictJSON(body[:n], &p.footer); err != nil {
		return nil, err
	}
	body = body[n:]
	if p.V != 1 || !knownReason(p.Reason) {
		return nil, errors.New("unknown version or reason")
	}
	if p.Blocks > maxBlocks || p.Records > maxFrame*uint64(maxBlocks) || h.block != p.Blocks || h.first != p.Records || h.prev.String() != p.LastPrev {
		return nil, errors.New("counts do not fit")
	}
	if p.Cut < 0 || (p.Cut > 0) != (p.CutSHA256 != "") || p.Cut > 0 && p.Reason != reasonRecovered {
		return nil, errors.New("cut does not fit")
	}
	tiles := tileCount(p.Records)
	if uint64(len(body)) != tableEntry*uint64(p.Blocks)+32*tiles {
		return nil, errors.New("length of table and tiles")
	}
	p.table = make([]blockAt, p.Blocks)
	for i := range p.table {
		e := blockAt{off: int64(binary.BigEndian.Uint64(body[tableEntry*i:])), first: binary.BigEndian.Uint64(body[tableEntry*i+8:])}
		if e.off < preludeLen || e.off >= off || e.first >= p.Records ||
			i == 0 && e.first != 0 || i > 0 && (e.off <= p.table[i-1].off || e.first <= p.table[i-1].first) {
			return nil, errors.New("block table")
		}
		p.table[i] = e
	}
	p.tiles = body[tableEntry*int(p.Blocks):]
	p.tilesAt = len(b) - 4 - len(p.tiles)
	if tiles > 0 && hash(p.tiles[len(p.tiles)-32:]).String() != p.RecordsRoot {
		return nil, errors.New("the last tile is not the root")
	}
	return p, nil
}

// window reads a file forward in large steps.
type window struct {
	r     io.ReaderAt
	size  int64
	buf   []byte
	start int64
}

const windowStep = 1 << 20

// at gives n bytes at off, valid until the next call.
func (w *window) at(off int64, n int) ([]byte, error) {
	if off < 0 || n < 0 || off+int64(n) > w.size {
		return nil, io.ErrUnexpectedEOF
	}
	if off >= w.start && off+int64(n) <= w.start+int64(len(w.buf)) {
		i := int(off - w.start)
		return w.buf[i : i+n], nil
	}
	want := int(min(int64(max(n, windowStep)), w.size-off))
	if cap(w.buf) < want {
		w.buf = make([]byte, want)
	}
	w.buf = w.buf[:want]
	w.start = off
	if m, err := w.r.ReadAt(w.buf, off); m < want {
		w.buf = w.buf[:0]
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return w.buf[:n], nil
}

// frameAt gives the checked frame at off.
func (w *window) frameAt(off int64) ([]byte, frameHead, error) {
	b, err := w.at(off, frameHeadLen)
	if err != nil {
		return nil, frameHead{}, cutShort(err)
	}
	h, err := parseFrameHead(b)
	if err != nil {
		return nil, h, err
	}
	if b, err = w.at(off, int(h.length)); err != nil {
		return nil, h, cutShort(err)
	}
	h, err = checkFrame(b)
	return b, h, err
}

func cutShort(err error) error {
	if err == io.ErrUnexpectedEOF {
		return errors.New("cut short")
	}
	return err
}

// readHead gives the head of a file of a size.
func readHead(w *window) (*head, error) {
	b, err := w.at(0, preludeLen)
	if err != nil {
		return nil, cutShort(err)
	}
	n, err := parsePrelude(b)
	if err != nil {
		return nil, err
	}
	if b, err = w.at(0, n); err != nil {
		return nil, cutShort(err)
	}
	return parseHead(b)
}

// readFooter gives the footer of a closed file by its trailer.
func readFooter(r io.ReaderAt, size int64) (*parsedFooter, int64, error) {
	if size < trailerLen {
		return nil, 0, errors.New("no trailer")
	}
	t := make([]byte, trailerLen)
	if _, err := r.ReadAt(t, size-trailerLen); err != nil {
		return nil, 0, err
	}
	off, n, err := parseTrailer(t, size)
	if err != nil {
		return nil, 0, err
	}
	b := make([]byte, n)
	if _, err := r.ReadAt(b, off); err != nil {
		return nil, 0, err
	}
	f, err := parseFooter(b, off)
	return f, off, err
}
