package report

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/keyring"
)

// The container of docs/formats/package.md: body (head and chunks), what the ledger
// says of it, and an end that says how long that is.
const (
	headMagic    = "CSEALPK1"
	endMagic     = "CSEALPKE"
	packageType  = "counterseal/package/v1"
	sealPurpose  = "package"
	chunkSize    = 1 << 20
	chunkHeadLen = 1 + 4
	chunkTagLen  = 12 + 16
	maxHead      = 1 << 20
	maxMade      = 128 << 10
	endLen       = 4 + 8

	// MaxRecipients bounds to how many one package is sealed.
	MaxRecipients = 64
)

// Names by which a checker calls the parts of a file that is still sealed.
const (
	PartContainer = "container"        // head and chunks
	PartMade      = "package-made.txt" // the statement about the package and its proof
)

// headForm is the head of a container, members in the order of RFC 8785.
type headForm struct {
	Type  string    `json:"_type"`
	Boxes []boxForm `json:"boxes"`
	Chunk int       `json:"chunk"`
	ID    string    `json:"id"`
	Org   string    `json:"org"`
}

// boxForm is the content key, sealed to one recipient.
type boxForm struct {
	Box string `json:"box"`
	Key string `json:"key"` // SHA-256 of the recipient's public key
}

func (h *headForm) info() (keyring.SealInfo, error) {
	org, err := uuid.Parse(h.Org)
	if err != nil || org.String() != h.Org {
		return keyring.SealInfo{}, errors.New("org is no UUID")
	}
	id, err := uuid.Parse(h.ID)
	if err != nil || id.String() != h.ID || id.Version() != 7 {
		return keyring.SealInfo{}, errors.New("id is no UUIDv7")
	}
	return keyring.SealInfo{Purpose: sealPurpose, Org: org, Epoch: 1, Subject: h.ID}, nil
}

// sealer writes the body of a container.
type sealer struct {
	w    io.Writer
	sum  hash.Hash // of all that was written
	aead cipher.AEAD
	head [32]byte // SHA-256 of the head
	buf  []byte
	n    uint64 // chunks written
	err  error
}

// newSealer draws a key, seals it to the recipients and writes the head.
func newSealer(w io.Writer, id, org uuid.UUID, to []*Recipient) (*sealer, error) {
	if len(to) == 0 || len(to) > MaxRecipients {
		return nil, fmt.Errorf("a package is sealed to 1 to %d recipients", MaxRecipients)
	}
	key := make([]byte, 32)
	rand.Read(key)
	defer clear(key)
	h := headForm{Type: packageType, Chunk: chunkSize, ID: id.String(), Org: org.String()}
	info, err := h.info()
	if err != nil {
		return nil, err
	}
	for i, r := range to {
		if slices.ContainsFunc(to[:i], func(o *Recipient) bool { return o.Seal.ID() == r.Seal.ID() }) {
			return nil, errors.New("two recipients have one key")
		}
		box, err := keyring.SealTo(r.Seal, info, keyring.RoleOnly, key)
		if err != nil {
			return nil, err
		}
		h.Boxes = append(h.Boxes, boxForm{Box: b64(box), Key: r.Seal.ID().String()})
	}
	js, err := approval.Canonical(h)
	if err != nil {
		return nil, err
	}
	b := binary.BigEndian.AppendUint32([]byte(headMagic), uint32(len(js)))
	b = append(b, js...)
	s := &sealer{w: w, sum: sha256.New(), head: sha256.Sum256(b), buf: make([]byte, 0, chunkSize)}
	if s.aead, err = chunkCipher(key); err != nil {
		return nil, err
	}
	return s, s.put(b)
}

func chunkCipher(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// chunkBinding ties a chunk to its head, its number and whether it is the last one.
func chunkBinding(head [32]byte, n uint64, last byte) []byte {
	b := binary.BigEndian.AppendUint64(append(make([]byte, 0, 41), head[:]...), n)
	return append(b, last)
}

func (s *sealer) put(b []byte) error {
	if s.err == nil {
		s.sum.Write(b)
		_, s.err = s.w.Write(b)
	}
	return s.err
}

func (s *sealer) chunk(last byte) error {
	b := append(make([]byte, 0, chunkHeadLen+len(s.buf)+chunkTagLen), last)
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.buf)+chunkTagLen))
	b = s.aead.Seal(b, nil, s.buf, chunkBinding(s.head, s.n, last))
	s.n++
	s.buf = s.buf[:0]
	return s.put(b)
}

// Write seals. A full chunk waits until it is known whether another one follows.
func (s *sealer) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if len(s.buf) == chunkSize {
			if err := s.chunk(0); err != nil {
				return 0, err
			}
		}
		k := min(len(p), chunkSize-len(s.buf))
		s.buf = append(s.buf, p[:k]...)
		p = p[k:]
	}
	return n, s.err
}

// end writes the last chunk and gives the digest of the body.
func (s *sealer) end() (digest [32]byte, err error) {
	if err := s.chunk(1); err != nil {
		return digest, err
	}
	clear(s.buf[:cap(s.buf)])
	s.sum.Sum(digest[:0])
	return digest, nil
}

// madeForm is what the ledger says of a package: the exact bytes of its statement and
// the proof of it.
type madeForm struct {
	Proof     string `json:"proof"`
	Statement string `json:"statement"`
}

// encodeMade gives two lines, the second the SHA-256 of the first with its end.
func encodeMade(statement, proof []byte) ([]byte, error) {
	b, err := approval.Canonical(madeForm{Proof: string(proof), Statement: string(statement)})
	if err != nil {
		return nil, err
	}
	b = append(b, '\n')
	sum := sha256.Sum256(b)
	b = append(hex.AppendEncode(b, sum[:]), '\n')
	if len(b) > maxMade {
		return nil, fmt.Errorf("the statement about a package and its proof are longer than %d bytes", maxMade)
	}
	return b, nil
}

func parseMade(b []byte) (*madeForm, error) {
	if len(b) > maxMade {
		return nil, fmt.Errorf("longer than %d bytes", maxMade)
	}
	line, rest, ok := bytes.Cut(b, []byte("\n"))
	if !ok {
		return nil, errors.New("cut short")
	}
	sum := sha256.Sum256(append(bytes.Clone(line), '\n'))
	if string(rest) != hex.EncodeToString(sum[:])+"\n" {
		return nil, errors.New("the digest in its last line is of other bytes")
	}
	m := new(madeForm)
	return m, decode(line, maxMade, m)
}

// encodeEnd is what follows the made part.
func encodeEnd(made int) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(made)), endMagic...)
}

// container is an open file that is sealed.
type container struct {
	r    io.ReaderAt
	body int64 // its length
	made []byte
	head *headForm
	sum  [32]byte // of the head
	at   int64    // where the chunks begin
}

// splitContainer finds the made part from the end.
func splitContainer(r io.ReaderAt, size int64) (*container, error) {
	end := make([]byte, endLen)
	if size < endLen {
		return nil, errors.New("cut short")
	}
	if _, err := r.ReadAt(end, size-endLen); err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(end))
	if string(end[4:]) != endMagic || n > maxMade || n > size-endLen {
		return nil, errors.New("the end of the file is not that of a package")
	}
	c := &container{r: r, body: size - endLen - n, made: make([]byte, n)}
	if _, err := r.ReadAt(c.made, c.body); err != nil {
		return nil, err
	}
	return c, nil
}

// readHead reads the head of the body.
func (c *container) readHead() error {
	b := make([]byte, len(headMagic)+4)
	if c.body < int64(len(b)) {
		return errors.New("cut short")
	}
	if _, err := c.r.ReadAt(b, 0); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(b[len(headMagic):])
	if string(b[:len(headMagic)]) != headMagic {
		return errors.New("not a package of this version")
	}
	if n > maxHead || int64(n) > c.body-int64(len(b)) {
		return errors.New("the head is too long")
	}
	js := make([]byte, n)
	if _, err := c.r.ReadAt(js, int64(len(b))); err != nil {
		return err
	}
	h := new(headForm)
	if err := decode(js, maxHead, h); err != nil {
		return fmt.Errorf("head: %w", err)
	}
	if h.Type != packageType || h.Chunk != chunkSize || len(h.Boxes) == 0 || len(h.Boxes) > MaxRecipients {
		return errors.New("head: unknown version or bounds")
	}
	if _, err := h.info(); err != nil {
		return fmt.Errorf("head: %w", err)
	}
	c.head, c.sum, c.at = h, sha256.Sum256(append(b, js...)), int64(len(b))+int64(n)
	return nil
}

// digest is the SHA-256 of the body.
func (c *container) digest() (d [32]byte, err error) {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(c.r, 0, c.body)); err != nil {
		return d, err
	}
	h.Sum(d[:0])
	return d, nil
}

// ErrNotForYou: a package was not sealed to this key.
var ErrNotForYou = errors.New("the package is not sealed to this key")

// open gives the archive inside. Its errors name the chunk.
func (c *container) open(k *RecipientKey) (io.Reader, error) {
	id := k.card.Seal.ID().String()
	i := slices.IndexFunc(c.head.Boxes, func(b boxForm) bool { return b.Key == id })
	if i < 0 {
		return nil, ErrNotForYou
	}
	info, err := c.head.info()
	if err != nil {
		return nil, err
	}
	box, err := base64.RawURLEncoding.Strict().DecodeString(c.head.Boxes[i].Box)
	if err != nil {
		return nil, errors.New("head: a box is not base64url")
	}
	key, err := keyring.OpenWith(k.seal, info, keyring.RoleOnly, box)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	if len(key) != 32 {
		return nil, errors.New("head: a box holds no key")
	}
	aead, err := chunkCipher(key)
	if err != nil {
		return nil, err
	}
	return &opener{c: c, aead: aead, at: c.at}, nil
}

// opener reads the chunks of a container in order.
type opener struct {
	c    *container
	aead cipher.AEAD
	at   int64
	n    uint64
	last bool
	left []byte
	buf  []byte
}

func (o *opener) Read(p []byte) (int, error) {
	for len(o.left) == 0 {
		if o.last {
			return 0, io.EOF
		}
		if err := o.next(); err != nil {
			return 0, fmt.Errorf("chunk %d: %w", o.n, err)
		}
	}
	n := copy(p, o.left)
	o.left = o.left[n:]
	return n, nil
}

func (o *opener) next() error {
	var h [chunkHeadLen]byte
	if o.c.body-o.at < chunkHeadLen {
		return errors.New("cut short")
	}
	if _, err := o.c.r.ReadAt(h[:], o.at); err != nil {
		return err
	}
	n := int64(binary.BigEndian.Uint32(h[1:]))
	o.at += chunkHeadLen
	if h[0] > 1 || n < chunkTagLen || n > chunkSize+chunkTagLen || n > o.c.body-o.at || h[0] == 0 && n != chunkSize+chunkTagLen {
		return errors.New("its length does not fit")
	}
	if o.buf == nil {
		o.buf = make([]byte, chunkSize+chunkTagLen)
	}
	b := o.buf[:n]
	if _, err := o.c.r.ReadAt(b, o.at); err != nil {
		return err
	}
	o.at += n
	var err error
	if o.left, err = o.aead.Open(nil, nil, b, chunkBinding(o.c.sum, o.n, h[0])); err != nil {
		return errors.New("it does not open")
	}
	o.n++
	if o.last = h[0] == 1; o.last && o.at != o.c.body {
		return errors.New("bytes behind the last chunk")
	}
	return nil
}
