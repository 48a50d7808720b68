package keyholder

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/pseudonym"
)

// Bounds of the protocol, docs/formats/keyholder.md.
const (
	maxFrame   = 9 << 20 // what follows the length: a batch, or one name of event.MaxFrame
	maxBatch   = 256     // names in one frame
	maxName    = event.MaxFrame
	chunkSize  = 256 << 10 // bytes of the directory file in one frame
	frameHead  = 9         // op and request id
	wireNumber = 1
)

var magic = [4]byte{'C', 'S', 'K', 'H'}

// op names what a frame is. Answers have the high bit.
type op byte

const (
	opHello     op = 0x01
	opToken     op = 0x02
	opDirectory op = 0x03
	opStats     op = 0x04
	opAsk       op = 0x05
	opFetch     op = 0x06
	opList      op = 0x07

	opHelloOK op = 0x81
	opTokens  op = 0x82
	opChunk   op = 0x83
	opCounts  op = 0x84
	opAsked   op = 0x85
	opChanged op = 0x86 // no answer: the digest of the directory file is another one
	opFetched op = 0x87

	opListHead op = 0x88
	opListPart op = 0x89

	opNo op = 0xff
)

// face says which interface a connection speaks.
type face byte

const (
	faceIngest   face = 1
	faceQuestion face = 2
)

// frame is one message: what it is, whose answer it is, the rest.
type frame struct {
	op   op
	id   uint64
	body []byte
}

var errFrame = errors.New("a frame that is none of this protocol")

// readFrame reads one. It takes memory for what has arrived, not for what a length
// announces.
func readFrame(r *bufio.Reader) (frame, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < frameHead || n > maxFrame {
		return frame{}, fmt.Errorf("%w: its length", errFrame)
	}
	var b []byte
	for len(b) < int(n) {
		have := len(b)
		b = append(b, make([]byte, min(int(n)-have, 64<<10))...)
		if _, err := io.ReadFull(r, b[have:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return frame{}, err
		}
	}
	return frame{op: op(b[0]), id: binary.BigEndian.Uint64(b[1:]), body: b[frameHead:]}, nil
}

func appendFrame(b []byte, f frame) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(frameHead+len(f.body)))
	b = append(b, byte(f.op))
	b = binary.BigEndian.AppendUint64(b, f.id)
	return append(b, f.body...)
}

// cursor takes a body apart. Once something is short or left over, bad is set.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if c.bad || n < 0 || n > len(c.b) {
		c.bad = true
		return nil
	}
	out := c.b[:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) uint(n int) uint64 {
	var v uint64
	for _, x := range c.take(n) {
		v = v<<8 | uint64(x)
	}
	return v
}

func (c *cursor) done() error {
	if c.bad || len(c.b) > 0 {
		return fmt.Errorf("%w: its body", errFrame)
	}
	return nil
}

// hello is the first frame of a client.
type hello struct {
	face  face
	epoch int // of tokens; 0: the newest
}

func (h hello) encode() []byte {
	b := append(magic[:], wireNumber, byte(h.face))
	return binary.BigEndian.AppendUint32(b, uint32(h.epoch))
}

func parseHello(b []byte) (hello, error) {
	c := cursor{b: b}
	m, v := c.take(4), c.uint(1)
	h := hello{face: face(c.uint(1)), epoch: int(c.uint(4))}
	if err := c.done(); err != nil {
		return hello{}, err
	}
	if [4]byte(m) != magic || v != wireNumber || h.face != faceIngest && h.face != faceQuestion || h.epoch > maxEpoch {
		return hello{}, fmt.Errorf("%w: its hello", errFrame)
	}
	return h, nil
}

// Identity says whose keys a holder has.
type Identity struct {
	Org   uuid.UUID
	Epoch int
	Check [16]byte // by which the key of the epoch is known again
}

// welcome is the answer to hello.
type welcome struct {
	Identity
	directory [32]byte // digest of the directory file; zero: none
}

func (w welcome) encode() []byte {
	b := append([]byte{wireNumber}, w.Org[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(w.Epoch))
	b = append(b, w.Check[:]...)
	return append(b, w.directory[:]...)
}

func parseWelcome(b []byte) (welcome, error) {
	c := cursor{b: b}
	var w welcome
	v := c.uint(1)
	copy(w.Org[:], c.take(16))
	w.Epoch = int(c.uint(4))
	copy(w.Check[:], c.take(16))
	copy(w.directory[:], c.take(32))
	if err := c.done(); err != nil {
		return welcome{}, err
	}
	if v != wireNumber || w.Epoch < 1 || w.Epoch > maxEpoch {
		return welcome{}, fmt.Errorf("%w: its welcome", errFrame)
	}
	return w, nil
}

// Name is one identity in the form in which pseudonym asks.
type Name struct {
	Kind      event.TokenKind
	Canonical []byte
}

func known(k event.TokenKind) bool {
	return k == event.Person || k == event.Mail || k == event.Device || k == event.Address
}

func appendNames(b []byte, names []Name) ([]byte, error) {
	if len(names) == 0 || len(names) > maxBatch {
		return nil, fmt.Errorf("a batch is 1 to %d names", maxBatch)
	}
	start := len(b)
	b = binary.BigEndian.AppendUint16(b, uint16(len(names)))
	for _, n := range names {
		if !known(n.Kind) || len(n.Canonical) > maxName {
			return nil, errors.New("a name of no kind, or too long a name")
		}
		b = append(b, byte(n.Kind))
		b = binary.BigEndian.AppendUint32(b, uint32(len(n.Canonical)))
		b = append(b, n.Canonical...)
	}
	if len(b)-start > maxFrame-frameHead-(64<<10) {
		return nil, errors.New("a batch of too many bytes")
	}
	return b, nil
}

func parseNames(b []byte) ([]Name, error) {
	c := cursor{b: b}
	n := int(c.uint(2))
	if n == 0 || n > maxBatch {
		return nil, fmt.Errorf("%w: its count", errFrame)
	}
	var out []Name
	for range n {
		k := event.TokenKind(c.uint(1))
		size := c.uint(4)
		if size > maxName || !known(k) {
			c.bad = true
		}
		name := c.take(int(size))
		if c.bad {
			break
		}
		out = append(out, Name{Kind: k, Canonical: name})
	}
	return out, c.done()
}

func appendBits(b []byte, bits [][16]byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(bits)))
	for i := range bits {
		b = append(b, bits[i][:]...)
	}
	return b
}

// parseBits reads the answer to a batch of want names.
func parseBits(b []byte, want int) ([][16]byte, error) {
	c := cursor{b: b}
	if n := int(c.uint(2)); n != want {
		return nil, fmt.Errorf("%w: its count", errFrame)
	}
	out := make([][16]byte, want)
	for i := range out {
		copy(out[i][:], c.take(16))
	}
	return out, c.done()
}

// chunk is a part of the directory file.
type chunk struct {
	total  uint64
	digest [32]byte
	bytes  []byte
}

func (k chunk) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, k.total)
	b = append(b, k.digest[:]...)
	return append(b, k.bytes...)
}

func parseChunk(b []byte) (chunk, error) {
	c := cursor{b: b}
	k := chunk{total: c.uint(8)}
	copy(k.digest[:], c.take(32))
	if c.bad || k.total > maxDirectory || len(c.b) > chunkSize || uint64(len(c.b)) > k.total {
		return chunk{}, fmt.Errorf("%w: its chunk", errFrame)
	}
	k.bytes = c.b
	return k, nil
}

// ask is a question for the tokens of names, with what allows it.
type ask struct {
	capability []byte
	salt       []byte
	names      []Spoken
}

func (a ask) encode() ([]byte, error) {
	if len(a.capability) > maxCapability || len(a.salt) != SaltSize || len(a.names) < 1 || len(a.names) > MaxNames {
		return nil, fmt.Errorf("a question is a capability of at most %d bytes, a salt of %d, and 1 to %d names", maxCapability, SaltSize, MaxNames)
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(len(a.capability)))
	b = append(append(b, a.capability...), a.salt...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(a.names)))
	for i, n := range a.names {
		if len(n.Category) > 255 || len(n.Text) > pseudonym.MaxAsked {
			return nil, fmt.Errorf("name %d is longer than %d bytes", i+1, pseudonym.MaxAsked)
		}
		b = append(append(b, byte(len(n.Category))), n.Category...)
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(n.Text))), n.Text...)
	}
	return b, nil
}

func parseAsk(b []byte) (ask, error) {
	c := cursor{b: b}
	var a ask
	n := c.uint(4)
	if n > maxCapability {
		return a, fmt.Errorf("%w: its capability", errFrame)
	}
	a.capability, a.salt = c.take(int(n)), c.take(SaltSize)
	count := c.uint(2)
	if count < 1 || count > MaxNames {
		return a, fmt.Errorf("%w: its names", errFrame)
	}
	for range count {
		category := c.take(int(c.uint(1)))
		size := c.uint(4)
		if size > pseudonym.MaxAsked {
			c.bad = true
			break
		}
		a.names = append(a.names, Spoken{string(category), string(c.take(int(size)))})
	}
	return a, c.done()
}

// appendAnswers writes, for each name, how many tokens and each of them as text.
func appendAnswers(b []byte, names []Answer) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(names)))
	for _, n := range names {
		b = binary.BigEndian.AppendUint16(b, uint16(len(n.Tokens)))
		for _, t := range n.Tokens {
			b = append(append(b, byte(len(t))), t...)
		}
	}
	return b
}

func parseAnswers(b []byte) ([]Answer, error) {
	c := cursor{b: b}
	count := c.uint(2)
	if count < 1 || count > MaxNames {
		return nil, fmt.Errorf("%w: its count", errFrame)
	}
	out := make([]Answer, count)
	for i := range out {
		n := c.uint(2)
		if n < 1 || n > maxEpoch {
			return nil, fmt.Errorf("%w: its epochs", errFrame)
		}
		for range n {
			t := c.take(int(c.uint(1)))
			if c.bad || !event.IsToken(t) {
				return nil, fmt.Errorf("%w: its tokens", errFrame)
			}
			out[i].Tokens = append(out[i].Tokens, event.Token(t))
		}
	}
	return out, c.done()
}

// code says why the answer is no.
type code byte

const (
	noFrame code = iota + 1
	noFace
	noEpoch
	noQuota
	noCapability
	noRoster
	noDisk
	noRoom
	noAnswer
	noName
	noDirectory
	noTurn
)

// The errors of a client. None holds anything of what was asked.
var (
	ErrAway       = errors.New("the key holder does not answer")
	ErrQuota      = errors.New("the key holder's quota of new identities is used up")
	ErrCapability = errors.New("the key holder refuses the capability")
	ErrRoster     = errors.New("the key holder knows no officers, or no keys of the ledger")
	ErrEpoch      = errors.New("the key holder has no key of this epoch")
	ErrNoAnswer   = errors.New("the key holder has no answer to this question: it was not asked, or ten minutes ago")
	ErrNoName     = errors.New("one of the names stands for nobody, or for more than one, in the directory of the key holder; nothing was used up")
	ErrDirectory  = errors.New("the key holder knows no directory, or one that is too large for a table")
	ErrBusy       = errors.New("the key holder is answering another list")
	ErrOther      = errors.New("this is another key holder than the one whose tokens the data has")

	errFace = errors.New("the key holder does not answer this on this interface")
	errDisk = errors.New("the key holder cannot write")
	errRoom = errors.New("the key holder has too many connections")
)

var errorOf = map[code]error{
	noFrame: errFrame, noFace: errFace, noEpoch: ErrEpoch, noQuota: ErrQuota, noCapability: ErrCapability,
	noRoster: ErrRoster, noDisk: errDisk, noRoom: errRoom, noAnswer: ErrNoAnswer, noName: ErrNoName, noDirectory: ErrDirectory, noTurn: ErrBusy,
}

// refusal is an answer of no.
type refusal struct {
	code  code
	after time.Duration // when to ask again; 0: nothing is known
}

func (r refusal) encode() []byte {
	return binary.BigEndian.AppendUint32([]byte{byte(r.code)}, uint32(min(max(r.after, 0), 45*24*time.Hour)/time.Millisecond))
}

// parseRefusal gives the error of an answer of no.
func parseRefusal(b []byte) error {
	c := cursor{b: b}
	k, after := code(c.uint(1)), time.Duration(c.uint(4))*time.Millisecond
	if err := c.done(); err != nil {
		return err
	}
	err := errorOf[k]
	if err == nil {
		return fmt.Errorf("%w: its refusal", errFrame)
	}
	if k == noQuota {
		return &QuotaError{After: after}
	}
	return err
}

// QuotaError wraps ErrQuota and says when the window ends.
type QuotaError struct{ After time.Duration }

// RetryAfter is for who waits without knowing this package.
func (e *QuotaError) RetryAfter() time.Duration { return e.After }

func (e *QuotaError) Error() string { return ErrQuota.Error() }
func (e *QuotaError) Unwrap() error { return ErrQuota }
