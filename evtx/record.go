package evtx

import (
	"encoding/binary"
	"io"
	"strings"
)

// RecordState says what is wrong with a record; 0 is a good one. Bits combine.
type RecordState uint8

// The states of a record.
const (
	RecordSizeCopy   RecordState = 1 << iota // the second copy of the size differs
	RecordBinXML                             // the content is damaged; fields and XML hold what stands before the damage
	RecordUnreadable                         // bytes inside the record area that hold no record
)

var recordStateNames = [...]string{"size-copy", "binxml", "unreadable"}

// OK reports whether nothing is wrong.
func (s RecordState) OK() bool { return s == 0 }

func (s RecordState) String() string { return bitNames(uint8(s), recordStateNames[:]) }

// Record is one event. Everything in it is valid until the function that got it
// returns.
type Record struct {
	// ID is the record id of the record header. Exported logs renumber it: the
	// number inside the event is the field EventRecordID.
	ID uint64
	// Written is the time of the record header. The event's own time is
	// [Record.Created]; either can be the earlier one.
	Written FileTime
	Chunk   int   // number of the chunk place
	Offset  int64 // in the file, in bytes
	State   RecordState
	Raw     []byte // the whole record, or the bytes that hold none

	chunk     *Chunk
	err       *DamageError
	collected bool
}

// Err is the damage behind a State other than 0, naming chunk, record and
// offset; nil for a good record.
func (r *Record) Err() error {
	if r.err == nil {
		return nil
	}
	return r.err
}

func (c *Chunk) begin(p, end int) *Record {
	c.rec = Record{Chunk: c.Index, Offset: c.Offset + int64(p), Raw: c.buf[p:end:end], chunk: c}
	c.toks, c.out, c.values, c.plain = c.toks[:0], c.out[:0], c.values[:0], c.plain[:0]
	c.steps, c.spent, c.tail = 0, 0, 0
	c.isQuick, c.toked = false, true
	return &c.rec
}

func (c *Chunk) unreadable(p, end int) {
	r := c.begin(p, end)
	r.State = RecordUnreadable
	r.err = &DamageError{c.Index, 0, r.Offset, "no record here"}
	if len(r.Raw) >= 24 && binary.LittleEndian.Uint32(r.Raw) == recordMagic {
		r.ID = binary.LittleEndian.Uint64(r.Raw[8:])
		r.err.Record, r.err.What = r.ID, "record with an impossible size"
	}
}

func (c *Chunk) decode(p, size int) {
	r := c.begin(p, p+size)
	le := binary.LittleEndian
	r.ID, r.Written = le.Uint64(r.Raw[8:]), FileTime(le.Uint64(r.Raw[16:]))
	end := p + size - 4
	if le.Uint32(c.buf[end:]) != uint32(size) {
		r.State |= RecordSizeCopy
		r.err = &DamageError{c.Index, r.ID, c.Offset + int64(end), "the second copy of the size differs"}
	}
	c.end = end
	if next, ok := c.quickly(p+24, end); ok {
		c.isQuick, c.toked, c.tail = true, false, end-next
		return
	}
	c.values = c.values[:0]
	next, err := c.fragment(p+24, end, 0)
	if err == nil {
		c.tail = end - next
		return
	}
	r.State |= RecordBinXML
	at, what := p, err.Error()
	if f, ok := err.(*fault); ok && f.pos > recordsStart {
		at = f.pos
	}
	r.err = &DamageError{c.Index, r.ID, c.Offset + int64(at), what}
}

// tokens makes sure that the record has its tokens. One that took the quick way
// has no error.
func (c *Chunk) tokens() []token {
	if !c.toked {
		c.toked = true
		_, _ = c.fragment(int(c.rec.Offset-c.Offset)+24, c.end, 0)
	}
	return c.toks
}

// Kind is the form of a value, for those who do not care for its exact type.
type Kind uint8

// The kinds of a field. A NULL value is no field at all, an empty string is a
// field of kind String and length 0.
const (
	String Kind = iota + 1
	Number      // decimal; hexadecimal types are strings, as Windows shows them
	Bool        // true or false
	Binary      // upper-case hexadecimal digits
)

// Field is one field of the Sigma view.
type Field struct {
	Name  string
	Kind  Kind
	Type  ValueType
	Lossy bool   // the text holds a replacement or a guessed character
	Value []byte // the value as Windows writes it
}

// Fields returns the view that Sigma rules expect: the elements of System by
// name and their attributes as Element_Attribute, the named data of EventData,
// unnamed data under Data, the leaves of other sections by their local name.
// Spaces are taken out of names. An array gives the same name several times. A
// name that System already has is qualified by its section, as in
// EventData.Version. The slice and the values are valid as long as the record;
// the names stay valid.
func (r *Record) Fields() []Field {
	c := r.chunk
	if !r.collected {
		c.fields = c.fields[:0]
		if c.isQuick {
			c.quickFields()
		} else {
			c.collect(true)
			c.systems = len(c.fields)
			c.collect(false)
		}
		r.collected = true
	}
	return c.fields
}

// frame is an open element while fields are collected.
type frame struct {
	name, field             string
	text, null, child, attr bool
}

// collect appends the fields of System, or of all else.
func (c *Chunk) collect(system bool) {
	var stack [maxDepth + 1]frame
	depth, section := 0, ""
	c.tokens()
	for i := range c.toks {
		t := &c.toks[i]
		if t.kind == tokStart {
			name := local(t.name)
			if depth > 0 {
				stack[depth-1].child = true
			}
			if depth == 1 {
				section = name
			}
			stack[depth] = frame{name: name, field: name}
			depth++
			continue
		}
		if depth == 0 || (depth > 1 && section == "System") != system {
			if t.kind == tokEnd {
				depth--
			}
			continue
		}
		f := &stack[depth-1]
		switch t.kind {
		case tokAttr:
			if t.name == "xmlns" || strings.HasPrefix(t.name, "xmlns:") {
				continue
			}
			name := local(t.name)
			if depth == 3 && name == "Name" && f.name == "Data" && section == "EventData" {
				if s := c.stripped(c.out[t.off : t.off+t.n]); s != "" {
					f.field = s
				}
				continue
			}
			f.attr = true
			if !t.null {
				c.emit(c.compose(f.name, "_", name), section, t)
			}
		case tokText:
			f.text = true
			c.emit(f.field, section, t)
		case tokNull:
			f.null = true
		case tokEnd:
			if depth > 2 && !system && !f.text && !f.null && !f.child && !f.attr {
				c.emit(f.field, section, &token{typ: TypeString})
			}
			depth--
		}
	}
}

func (c *Chunk) emit(name, section string, t *token) {
	if section != "System" {
		for i := range c.fields[:min(c.systems, len(c.fields))] {
			if c.fields[i].Name == name {
				name = c.compose(section, ".", name)
				break
			}
		}
	}
	c.fields = append(c.fields, Field{
		Name: name, Kind: t.typ.kind(), Type: t.typ, Lossy: t.lossy,
		Value: c.out[t.off : t.off+t.n : t.off+t.n],
	})
}

func (c *Chunk) stripped(b []byte) string {
	c.scratch = c.scratch[:0]
	for _, x := range b {
		if x != ' ' {
			c.scratch = append(c.scratch, x)
		}
	}
	return c.remember(c.scratch)
}

func local(name string) string {
	if i := strings.IndexByte(name, ':'); i >= 0 {
		return name[i+1:]
	}
	return name
}

// Created is the event's own time, TimeCreated/SystemTime of System, exactly. It
// reports false where the event has none or holds it in a form that is no time.
func (r *Record) Created() (FileTime, bool) {
	c := r.chunk
	if c.isQuick {
		if x := &c.quick[0]; x.plan.created >= 0 {
			if v := &c.values[x.base+x.plan.created]; v.typ == TypeFileTime {
				if ft := FileTime(binary.LittleEndian.Uint64(c.buf[v.off:])); ft < 1<<63 {
					return ft, true
				}
			}
		}
	}
	element := ""
	c.tokens()
	for i := range c.toks {
		switch t := &c.toks[i]; t.kind {
		case tokStart:
			element = t.name
		case tokAttr:
			if element == "TimeCreated" && t.name == "SystemTime" {
				return ParseFileTime(c.out[t.off : t.off+t.n])
			}
		}
	}
	return 0, false
}

// AppendJSON appends the fields as one flat JSON object, in order. Numbers are
// written as they stand, so none is rounded; a name that occurs several times
// becomes an array at its first place. The result is valid JSON for any record,
// damaged ones included; text keeps its characters, with U+FFFD for what was no
// character (see [Field.Lossy]).
func (r *Record) AppendJSON(dst []byte) []byte {
	fields := r.Fields()
	dst = append(dst, '{')
	next := r.chunk.chains(fields)
	for i := range fields {
		if next[i] < 0 {
			continue // printed in the array of an earlier one
		}
		if dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = appendJSONString(dst, []byte(fields[i].Name))
		dst = append(dst, ':')
		if next[i] == 0 {
			dst = appendJSONValue(dst, &fields[i])
			continue
		}
		dst = append(dst, '[')
		for j := i; ; {
			dst = appendJSONValue(dst, &fields[j])
			k := next[j]
			if k < 0 {
				k = -k
			}
			if k == 0 || k == len(fields) {
				break
			}
			j = k
			dst = append(dst, ',')
		}
		dst = append(dst, ']')
	}
	return append(dst, '}')
}

// chains links the fields of one name: next[i] is the following one, or 0, for
// the first of its name; -following, or -len(fields), for the others.
func (c *Chunk) chains(fields []Field) []int {
	next := c.next[:0]
	for range fields {
		next = append(next, 0)
	}
	c.next = next
	if len(fields) > 128 {
		// A map is worth its memory for very many fields only.
		last := make(map[string]int, len(fields))
		for i := range fields {
			if j, ok := last[fields[i].Name]; ok {
				link(next, j, i)
			}
			last[fields[i].Name] = i
		}
		return next
	}
	// Fields of one mark form a chain backwards through seen.
	clear(c.last[:])
	var seen [128]uint8
	for i := range fields {
		name := fields[i].Name
		h := uint8(len(name))
		if n := len(name); n > 0 {
			h = h*31 + name[0]
			h = h*31 + name[n/2]
			h = h*31 + name[n-1]
		}
		for j := c.last[h]; j != 0; j = seen[j-1] {
			if fields[j-1].Name == name {
				link(next, int(j-1), i)
				break
			}
		}
		seen[i], c.last[h] = c.last[h], uint8(i+1)
	}
	return next
}

// link makes field i follow field j of the same name.
func link(next []int, j, i int) {
	next[i] = -len(next)
	if next[j] < 0 {
		next[j] = -i
	} else {
		next[j] = i
	}
}

func appendJSONValue(dst []byte, f *Field) []byte {
	if f.Kind == Bool || f.Kind == Number && f.Value[len(f.Value)-1] <= '9' {
		return append(dst, f.Value...)
	}
	return appendJSONString(dst, f.Value) // not-a-number and infinity too
}

// jsonPlain holds the bytes that stand for themselves in a JSON string.
var jsonPlain = func() (t [256]bool) {
	for i := range t {
		t[i] = i >= 0x20 && i != 0x7f && i != '"' && i != '\\'
	}
	return t
}()

func appendJSONString(dst, b []byte) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0
	for i, x := range b {
		if jsonPlain[x] {
			continue
		}
		dst = append(dst, b[from:i]...)
		from = i + 1
		switch x {
		case '"', '\\':
			dst = append(dst, '\\', x)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[x>>4], hex[x&15])
		}
	}
	return append(append(dst, b[from:]...), '"')
}

// XML writes what [Record.AppendXML] appends. Its error is that of w.
func (r *Record) XML(w io.Writer) error {
	_, err := w.Write(r.AppendXML(nil))
	return err
}
