package evidence

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"github.com/klauspost/compress/zstd"

	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/keyring"
)

// sealedCard is the card of a segment whose key is sealed to officers, its members in
// the order of RFC 8785. The header says who opens which box and fixes each box.
type sealedCard struct {
	Boxes   []string `json:"boxes"`
	Segment string   `json:"segment"`
	Stream  string   `json:"stream"`
	V       int      `json:"v"`
}

const (
	sealedCardVersion = 2
	maxSealedCard     = 64 << 10
)

// sealKey seals the key of a new segment to the officers and says so in the header.
func sealKey(h *header, o *Options, id uuid.UUID, secret []byte) ([][]byte, error) {
	info := keyring.SealInfo{Purpose: cardPurpose(Originals), Org: o.Keys.ID(), Subject: id.String()}
	sealed, err := o.Escrow.Seal(info, secret)
	if err != nil {
		return nil, err
	}
	h.Escrow, h.Org = escrowOfficers, o.Keys.ID().String()
	var boxes [][]byte
	for _, s := range sealed {
		h.Seals = append(h.Seals, headerSeal{Epoch: s.Epoch, Inner: s.Inner.String(), Outer: s.Outer.String(), SHA256: sum(s.Box).String(), Suite: s.SuiteName})
		boxes = append(boxes, s.Box)
	}
	return boxes, nil
}

// writeSealedCard makes the card of a sealed segment durable. Nothing on it opens
// with a key of the server.
func writeSealedCard(d durable.FS, dataDir string, s Stream, id uuid.UUID, boxes [][]byte) error {
	c := sealedCard{Segment: id.String(), Stream: s.String(), V: sealedCardVersion}
	for _, b := range boxes {
		c.Boxes = append(c.Boxes, base64.RawURLEncoding.EncodeToString(b))
	}
	js, err := marshalLine(c)
	if err != nil {
		return err
	}
	if err := d.MkdirAll(filepath.Join(dataDir, "keys", "segments"), 0o700); err != nil {
		return err
	}
	return d.WriteNew(cardPath(dataDir, id), js, 0o600)
}

// parseSealedCard reads one. Its errors quote nothing.
func parseSealedCard(b []byte) (*sealedCard, error) {
	var c sealedCard
	if len(b) == 0 || len(b) > maxSealedCard || b[len(b)-1] != '\n' || strictJSON(b[:len(b)-1], &c) != nil || c.V != sealedCardVersion || len(c.Boxes) > maxSeals {
		return nil, errCard
	}
	return &c, nil
}

// SealedKey is the key of an original segment as two officers can open it. It holds
// no secret of its own: the head of a segment, and its card.
type SealedKey struct {
	Head []byte // the first bytes of the segment file
	Card []byte

	head  *head
	boxes []keyring.Sealed
}

// ParseSealedKey checks that a card belongs to a head.
func ParseSealedKey(headBytes, card []byte) (*SealedKey, error) {
	hd, err := parseHead(headBytes)
	if err != nil {
		return nil, fmt.Errorf("head of a segment: %w", err)
	}
	if hd.Escrow != escrowOfficers {
		return nil, fmt.Errorf("segment %s is not sealed to officers", hd.id)
	}
	c, err := parseSealedCard(card)
	if err != nil {
		return nil, fmt.Errorf("key card of segment %s: %w", hd.id, err)
	}
	if c.Segment != hd.Segment || c.Stream != hd.Stream || len(c.Boxes) != len(hd.Seals) {
		return nil, fmt.Errorf("key card of segment %s belongs to another segment", hd.id)
	}
	k := &SealedKey{Head: bytes.Clone(headBytes), Card: bytes.Clone(card), head: hd}
	for i, text := range c.Boxes {
		box, err := base64.RawURLEncoding.Strict().DecodeString(text)
		if err != nil || sum(box).String() != hd.Seals[i].SHA256 {
			return nil, fmt.Errorf("key card of segment %s: box %d is not the one that the header names", hd.id, i)
		}
		s := keyring.Sealed{Box: box, Epoch: hd.Seals[i].Epoch, SuiteName: hd.Seals[i].Suite}
		inner, ierr := parseHash(hd.Seals[i].Inner)
		outer, oerr := parseHash(hd.Seals[i].Outer)
		if err := errors.Join(ierr, oerr); err != nil {
			return nil, err
		}
		s.Inner, s.Outer = keyring.KeyID(inner), keyring.KeyID(outer)
		k.boxes = append(k.boxes, s)
	}
	return k, nil
}

// ReadSealedKey reads head and card of a segment from a data directory. It takes no
// lock and needs no key.
func ReadSealedKey(dataDir string, id uuid.UUID) (*SealedKey, error) {
	hd, err := headOf(dataDir, id)
	if err != nil {
		return nil, err
	}
	card, err := os.ReadFile(cardPath(dataDir, id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("segment %s: %w", id, ErrNoKey)
	}
	if err != nil {
		return nil, fmt.Errorf("key card of segment %s: %w", id, err)
	}
	return ParseSealedKey(hd, card)
}

// headOf gives the bytes of the head of a segment, wherever it lies.
func headOf(dataDir string, id uuid.UUID) ([]byte, error) {
	for range 3 { // it may be renamed meanwhile
		for _, ext := range []string{extOpen, extClosed, extDamaged} {
			found, err := filepath.Glob(filepath.Join(dataDir, "evidence", "*", "*", id.String()+ext))
			if err != nil {
				return nil, err
			}
			for _, path := range found {
				b, err := readHeadBytes(path)
				if !errors.Is(err, fs.ErrNotExist) {
					return b, err
				}
			}
		}
	}
	return nil, fmt.Errorf("segment %s: %w", id, fs.ErrNotExist)
}

func readHeadBytes(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	w := &window{r: f, size: st.Size()}
	hd, err := readHead(w)
	if err != nil {
		return nil, fmt.Errorf("header of %s: %w", filepath.Base(path), err)
	}
	b, err := w.at(0, int(hd.size))
	return bytes.Clone(b), err
}

// Segment is the id of the segment.
func (k *SealedKey) Segment() uuid.UUID { return k.head.id }

// Org is the data directory that it is of.
func (k *SealedKey) Org() string { return k.head.Org }

// Objects name what a statement about this key must name.
func (k *SealedKey) Objects() []string {
	return []string{k.head.Stream + "/" + k.head.Compartment + "/" + k.head.Segment, "header " + k.head.hash.String()}
}

// Info is what the boxes are bound to. Each box says its epoch.
func (k *SealedKey) Info() keyring.SealInfo {
	org, err := uuid.Parse(k.head.Org)
	if err != nil {
		panic("evidence: " + err.Error()) // the header was checked
	}
	return keyring.SealInfo{Purpose: cardPurpose(k.head.stream), Org: org, Subject: k.head.Segment}
}

// Boxes are the two ways to the key: of the officers, and of their spares.
func (k *SealedKey) Boxes() []keyring.Sealed { return k.boxes }

// keyFile is an unlocked key on the machine of the officers, its members in the order
// of RFC 8785.
type keyFile struct {
	Key       string `json:"key"`
	Segment   string `json:"segment"`
	Statement string `json:"statement"` // SHA-256 of the one that it was unlocked for
	Until     string `json:"until"`
	V         int    `json:"v"`
}

const untilForm = "2006-01-02T15:04:05Z"

// KeyFile makes the file of an unlocked key. It refuses a secret that is not the one
// of the header. The end of its time binds this program, not whoever copies the file.
func (k *SealedKey) KeyFile(secret []byte, until time.Time, statement [32]byte) ([]byte, error) {
	if cardCommit(k.head.id, secret).String() != k.head.CardCommit {
		return nil, fmt.Errorf("what the officers opened is not the key of segment %s", k.head.id)
	}
	return marshalLine(keyFile{
		Key: base64.RawURLEncoding.EncodeToString(secret), Segment: k.head.Segment, Statement: hex.EncodeToString(statement[:]),
		Until: until.UTC().Format(untilForm), V: 1,
	})
}

// UnlockedKey is the key of one segment for a time. It is never printed.
type UnlockedKey struct {
	Segment uuid.UUID
	Until   time.Time
	secret  []byte
}

// ErrOver: the time of an unlocked key is over.
var ErrOver = errors.New("the time of this key is over: it must be unlocked again")

// ParseKeyFile reads what KeyFile made, while its time lasts.
func ParseKeyFile(b []byte, now time.Time) (*UnlockedKey, error) {
	bad := errors.New("not the key file of a segment")
	var f keyFile
	if len(b) == 0 || len(b) > 4096 || b[len(b)-1] != '\n' || strictJSON(b[:len(b)-1], &f) != nil || f.V != 1 {
		return nil, bad
	}
	k := &UnlockedKey{}
	var err error
	if k.Segment, err = uuid.Parse(f.Segment); err != nil {
		return nil, bad
	}
	if k.Until, err = time.Parse(untilForm, f.Until); err != nil {
		return nil, bad
	}
	if k.secret, err = base64.RawURLEncoding.Strict().DecodeString(f.Key); err != nil || len(k.secret) != 32 {
		return nil, bad
	}
	if !now.Before(k.Until) {
		return nil, ErrOver
	}
	return k, nil
}

// Format prints the segment only, whatever verb is used.
func (k *UnlockedKey) Format(s fmt.State, _ rune) {
	fmt.Fprintf(s, "key of segment %s until %s", k.Segment, k.Until.Format(untilForm))
}

// SegmentReader reads one segment file with a key, away from any data directory.
type SegmentReader struct {
	rd  reader
	dec *zstd.Decoder
	now func() time.Time
	key *UnlockedKey
}

// OpenSegmentWithKey opens a segment file, in whatever place, with an unlocked key.
// It checks the chain of the file first, as Verify does. now is the clock that ends
// the time of the key.
func OpenSegmentWithKey(path string, key *UnlockedKey, now func() time.Time) (*SegmentReader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	r, err := readerOf(f, key, now)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	return r, nil
}

func readerOf(f *os.File, key *UnlockedKey, now func() time.Time) (*SegmentReader, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	sc, err := scanSegment(f, st.Size())
	if err != nil {
		return nil, err
	}
	if sc.head.id != key.Segment || cardCommit(sc.head.id, key.secret).String() != sc.head.CardCommit {
		return nil, errors.New("the key is of another segment")
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxFrame), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	r := &SegmentReader{dec: dec, now: now, key: key}
	r.rd = reader{f: f, head: sc.head, key: deriveKey(sc.head.id, key.secret), table: sc.table, records: sc.records, end: sc.end}
	if !sc.complete && sc.end < st.Size() {
		if r.rd.damage = sc.why; r.rd.damage == nil {
			r.rd.damage = errors.New("bytes after the footer")
		}
	}
	return r, nil
}

// Records is how many can be read.
func (r *SegmentReader) Records() uint64 { return r.rd.records }

// Compartment is where the segment belongs.
func (r *SegmentReader) Compartment() string { return r.rd.head.Compartment }

// Read gives every record in order, each compared with its leaf, so that what is read
// is what was sealed. rec is valid only inside fn. What cannot be read behind the
// last whole block is an error at the end; ErrStop ends without one.
func (r *SegmentReader) Read(ctx context.Context, fn func(ordinal uint64, rec []byte) error) error {
	var sc scratch
	mac := hmac.New(sha256.New, r.rd.key.salt)
	for i := range r.rd.table {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !r.now().Before(r.key.Until) {
			return ErrOver
		}
		b, err := openBlock(r.dec, &r.rd, &r.rd, i, &sc)
		if err != nil {
			return fmt.Errorf("block %d of segment %s: %w", i, r.rd.head.id, err)
		}
		leaves := sc.frame[32+frameHeadLen:]
		rest, rec := b.raw, []byte(nil)
		for n := range b.n {
			if rec, rest, err = nextRecord(rest); err != nil {
				return fmt.Errorf("block %d of segment %s: %w", i, r.rd.head.id, err)
			}
			mac.Reset()
			mac.Write(binary.BigEndian.AppendUint64(nil, b.first+uint64(n)))
			if leafHash(mac.Sum(nil), rec) != hash(leaves[32*n:32*n+32]) {
				return fmt.Errorf("record %d of segment %s is not the one of its leaf", b.first+uint64(n), r.rd.head.id)
			}
			if err := fn(b.first+uint64(n), rec); errors.Is(err, ErrStop) {
				return nil
			} else if err != nil {
				return err
			}
		}
	}
	if r.rd.damage != nil {
		return fmt.Errorf("segment %s behind record %d: %w", r.rd.head.id, r.rd.records, r.rd.damage)
	}
	return nil
}

// Close lets go of file and key.
func (r *SegmentReader) Close() error {
	r.rd.key.forget()
	r.dec.Close()
	return r.rd.f.Close()
}

// Cards counts the key cards of a data directory.
type Cards struct {
	ByEpoch map[int]int // wrapped by an epoch of the keyring
	Sealed  int         // sealed to officers
	Unknown int         // not readable
}

// CountCards reads all key cards. It needs no key and no lock.
func CountCards(dataDir string) (Cards, error) {
	c := Cards{ByEpoch: map[int]int{}}
	des, err := os.ReadDir(filepath.Join(dataDir, "keys", "segments"))
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("counting key cards: %w", err)
	}
	for _, de := range des {
		if filepath.Ext(de.Name()) != ".card" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dataDir, "keys", "segments", de.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return c, fmt.Errorf("counting key cards: %w", err)
		}
		var k card
		if parseCard(b, &k) == nil {
			box, err := base64.RawURLEncoding.DecodeString(k.Box)
			if n := keyring.BoxEpoch(box); err == nil && n > 0 {
				c.ByEpoch[n]++
				continue
			}
		} else if _, err := parseSealedCard(b); err == nil {
			c.Sealed++
			continue
		}
		c.Unknown++
	}
	return c, nil
}

// Opens proves that a keyring opens the key card of a segment: the card, its binding
// to the header, and the key that the header names. It writes nothing.
func Opens(dataDir string, keys keyring.Holder, id uuid.UUID) error {
	b, err := headOf(dataDir, id)
	if err != nil {
		return err
	}
	hd, err := parseHead(b)
	if err != nil {
		return err
	}
	k, err := readKey(keys, dataDir, hd)
	if err != nil {
		return err
	}
	k.forget()
	return nil
}
