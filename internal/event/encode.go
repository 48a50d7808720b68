package event

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// The stored form of a record, docs/formats/record.md:
//
//	u8 format = 1 | u8 type
//	event: uvarint length of receipt | receipt | content
//
// content is what equality looks at. All texts are uvarint length and bytes.
const formatVersion = 1

// ErrRecord is wrapped by every error of Decode.
var ErrRecord = errors.New("not a record of format 1")

// AppendContent appends the canonical content of an event: the bytes under its
// digest.
func AppendContent(b []byte, e *Event) []byte {
	b = appendText(b, e.Source)
	b = appendText(b, e.Dataset)
	b = appendText(b, e.Format)
	b = append(b, byte(e.Kind))
	b = appendText(b, e.Group)
	b = appendText(b, e.Zone)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Time))
	b = binary.AppendUvarint(b, uint64(len(e.Fields)))
	for i := range e.Fields {
		f := &e.Fields[i]
		b = appendText(b, f.Name)
		b = append(b, byte(f.Kind), byte(f.Addr))
		b = binary.AppendUvarint(b, uint64(len(f.Value)))
		b = append(b, f.Value...)
	}
	return b
}

// Content is the SHA-256 of the canonical event without receipt data.
func (e *Event) Content() [32]byte { return sha256.Sum256(AppendContent(nil, e)) }

// AppendEncode appends the stored form of an event. Values that are detect-only
// are not part of it.
func AppendEncode(b []byte, e *Event) []byte {
	b = append(b, formatVersion, byte(TypeEvent))
	r := appendReceipt(make([]byte, 0, 192), e)
	b = binary.AppendUvarint(b, uint64(len(r)))
	b = append(b, r...)
	return AppendContent(b, e)
}

func appendReceipt(b []byte, e *Event) []byte {
	b = appendText(b, e.Way)
	b = appendText(b, e.Peer)
	b = appendText(b, e.Conn)
	b = binary.AppendUvarint(b, e.Seq)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Received))
	if e.Original.IsZero() {
		b = append(b, 0)
	} else {
		b = append(b, 1)
		b = appendText(b, e.Original.Compartment)
		b = append(b, e.Original.Segment[:]...)
		b = binary.AppendUvarint(b, e.Original.Ordinal)
	}
	if e.Origin == nil {
		b = append(b, 0)
	} else {
		b = append(b, 1)
		b = append(b, e.Origin.File[:]...)
		b = binary.AppendVarint(b, e.Origin.Chunk)
		b = binary.AppendUvarint(b, e.Origin.Record)
	}
	if e.RuleSet == ([32]byte{}) {
		return append(b, 0)
	}
	b = append(b, 1)
	b = append(b, e.RuleSet[:]...)
	b = binary.AppendUvarint(b, uint64(len(e.Verdicts)))
	for i := range e.Verdicts {
		b = append(b, e.Verdicts[i].Rule[:]...)
	}
	return b
}

// Decode reads a record of the event stream. Its values point into b.
func Decode(b []byte) (Entry, error) {
	if len(b) < 2 || b[0] != formatVersion {
		return Entry{}, fmt.Errorf("%w: version", ErrRecord)
	}
	en := Entry{Type: Type(b[1])}
	body := b[2:]
	switch en.Type {
	case TypeEvent:
		e, err := decodeEvent(body)
		if err != nil {
			return Entry{}, err
		}
		en.Event = e
		return en, nil
	case TypeCard:
		en.Card = new(Card)
		return en, decodeControl(body, en.Card)
	case TypeContext:
		en.Context = new(Context)
		return en, decodeControl(body, en.Context)
	case TypeWatermark:
		en.Watermark = new(Watermark)
		return en, decodeControl(body, en.Watermark)
	}
	return Entry{}, fmt.Errorf("%w: type %d", ErrRecord, b[1])
}

func decodeControl(b []byte, v any) error {
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: control record: %v", ErrRecord, err)
	}
	return nil
}

func decodeEvent(b []byte) (*Event, error) {
	d := decoder{b: b}
	n := d.uvarint()
	if d.bad || n > uint64(len(d.b)) {
		return nil, fmt.Errorf("%w: receipt length", ErrRecord)
	}
	e := new(Event)
	r := decoder{b: d.b[:n]}
	d.b = d.b[n:]
	e.Way, e.Peer, e.Conn = r.text(), r.text(), r.text()
	e.Seq = r.uvarint()
	e.Received = int64(r.uint64())
	if r.byte() == 1 {
		e.Original.Compartment = r.text()
		copy(e.Original.Segment[:], r.take(uint64(len(uuid.UUID{}))))
		e.Original.Ordinal = r.uvarint()
	}
	if r.byte() == 1 {
		e.Origin = new(Origin)
		copy(e.Origin.File[:], r.take(32))
		e.Origin.Chunk = r.varint()
		e.Origin.Record = r.uvarint()
	}
	if r.byte() == 1 {
		copy(e.RuleSet[:], r.take(32))
		m := r.uvarint()
		if m > uint64(len(r.b))/32 {
			return nil, fmt.Errorf("%w: verdicts", ErrRecord)
		}
		e.Verdicts = make([]Verdict, m)
		for i := range e.Verdicts {
			copy(e.Verdicts[i].Rule[:], r.take(32))
		}
	}
	if r.bad || len(r.b) != 0 {
		return nil, fmt.Errorf("%w: receipt", ErrRecord)
	}

	e.Source, e.Dataset, e.Format = d.text(), d.text(), d.text()
	e.Kind = RecordKind(d.byte())
	e.Group, e.Zone = d.text(), d.text()
	e.Time = int64(d.uint64())
	m := d.uvarint()
	if d.bad || m > uint64(len(d.b))/4 {
		return nil, fmt.Errorf("%w: field count", ErrRecord)
	}
	e.Fields = make([]Field, m)
	for i := range e.Fields {
		f := &e.Fields[i]
		f.Name = d.text()
		f.Kind = Kind(d.byte())
		f.Addr = AddrClass(d.byte())
		f.Value = d.take(d.uvarint())
	}
	if d.bad || len(d.b) != 0 {
		return nil, fmt.Errorf("%w: fields", ErrRecord)
	}
	return e, nil
}

func appendText(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// decoder reads from b and remembers that it ran out.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n uint64) []byte {
	if d.bad || n > uint64(len(d.b)) {
		d.bad = true
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) byte() byte {
	v := d.take(1)
	if d.bad {
		return 0
	}
	return v[0]
}

func (d *decoder) uint64() uint64 {
	v := d.take(8)
	if d.bad {
		return 0
	}
	return binary.BigEndian.Uint64(v)
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || n > 1 && d.b[n-1] == 0 { // one number has one form
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	v := int64(u >> 1)
	if u&1 != 0 {
		v = ^v
	}
	return v
}

func (d *decoder) text() string { return string(d.take(d.uvarint())) }
