package evtx

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync/atomic"
	"unicode/utf8"
)

// Bounds on one record. Each is far above what a 64 KiB chunk can honestly need;
// the last three stop definitions that multiply their values.
const (
	maxDepth     = 16      // elements inside elements, over all templates
	maxArguments = 4096    // values of one template instance
	maxSteps     = 1 << 18 // operations
	maxSpent     = 2 << 20 // bytes of text, names included
	maxOps       = 1 << 16 // operations compiled in one chunk
	maxLiteral   = 1 << 19 // bytes of literal text in one chunk
	maxIntern    = 1 << 13 // distinct names remembered over chunks

	recordOverhead   = 28 // header of 24 bytes and the size copy
	definitionHeader = 24
)

// fault is a decoding error at a position in the chunk.
type fault struct {
	pos  int
	what string
}

func (f *fault) Error() string { return f.what }

func bad(pos int, what string) error { return &fault{pos, what} }

type opKind uint8

const (
	opElement opKind = iota + 1
	opAttribute
	opText
	opSubstitute
	opPI
)

const (
	flagOptional   uint8 = 1 << iota // substitution: NULL removes what encloses it
	flagOmittable                    // nothing but optional substitutions inside
	flagOne                          // exactly one substitution inside
	flagOnlyValues                   // nothing but substitutions inside
)

// op is one step of compiled BinXML. Elements and attributes hold the range of
// their content; an element's attributes stand between itself and its body.
type op struct {
	kind      opKind
	flags     uint8
	arg       uint16
	body, end int32
	name      string
	lit       []byte
}

// definition is a compiled template definition. One without an error is never
// changed again and may be shared by many chunks.
type definition struct {
	id    uint32
	size  int
	ops   []op
	lits  int // bytes of literal text
	err   error
	raw   []byte    // the definition as it stood in the chunk that it was compiled in
	names []nameRef // the names that it refers to, in order
	plans [places]atomic.Pointer[plan]
}

type nameEntry struct {
	name string
	size int
}

// value is a substitution value in the chunk.
type value struct {
	off, n uint32
	nested uint32 // quick form of a BinXML value: its place in Chunk.quick
	typ    ValueType
}

type tokenKind uint8

const (
	tokStart tokenKind = iota + 1
	tokAttr
	tokText
	tokNull
	tokEnd
	tokPI
)

// token is one piece of the expanded record; its text lies in Chunk.out.
type token struct {
	kind   tokenKind
	typ    ValueType
	lossy  bool
	null   bool
	name   string
	off, n int
}

func nameHash(utf16le []byte) uint16 {
	var h uint32
	for i := 0; i+1 < len(utf16le); i += 2 {
		h = h*65599 + uint32(binary.LittleEndian.Uint16(utf16le[i:]))
	}
	return uint16(h)
}

// remember returns the one string for b.
func (c *Chunk) remember(b []byte) string {
	if s, ok := c.intern[string(b)]; ok {
		return s
	}
	if len(c.intern) >= maxIntern {
		clear(c.intern)
	}
	s := string(b)
	c.intern[s] = s
	return s
}

func (c *Chunk) compose(a, sep, b string) string {
	c.scratch = append(append(append(c.scratch[:0], a...), sep...), b...)
	return c.remember(c.scratch)
}

func (c *Chunk) u16(p, end int) (uint16, int, error) {
	if p+2 > end {
		return 0, p, bad(p, "ends early")
	}
	return binary.LittleEndian.Uint16(c.buf[p:]), p + 2, nil
}

func (c *Chunk) u32(p, end int) (uint32, int, error) {
	if p+4 > end {
		return 0, p, bad(p, "ends early")
	}
	return binary.LittleEndian.Uint32(c.buf[p:]), p + 4, nil
}

// name reads the name reference at p: an offset that points back to a name, or
// to the very next byte, where the name then stands.
func (c *Chunk) name(p, end int) (string, int, error) {
	c.refs++
	off, q, err := c.u32(p, end)
	if err != nil {
		return "", p, err
	}
	at := int64(off)
	if at > int64(q) {
		return "", p, bad(p, "name offset points forward")
	}
	if at < recordsStart {
		return "", p, bad(p, "name offset points into the chunk header")
	}
	e, ok := c.names[off]
	if !ok {
		if e, err = c.readName(int(off)); err != nil {
			return "", p, err
		}
		c.names[off] = e
	}
	inline := int(off) == q
	if c.defAt != 0 {
		c.defRefs = append(c.defRefs, nameRef{pos: q - 4 - c.defAt, inline: inline, bytes: c.buf[off+4 : int(off)+e.size]})
	}
	if inline {
		if q += e.size; q > end {
			return "", p, bad(p, "name reaches beyond its element")
		}
	}
	return e.name, q, nil
}

func (c *Chunk) readName(off int) (nameEntry, error) {
	if off+8 > c.size {
		return nameEntry{}, bad(off, "name reaches beyond the chunk")
	}
	le := binary.LittleEndian
	n := 2 * int(le.Uint16(c.buf[off+6:]))
	if off+8+n+2 > c.size {
		return nameEntry{}, bad(off, "name reaches beyond the chunk")
	}
	chars := c.buf[off+8 : off+8+n]
	if nameHash(chars) != le.Uint16(c.buf[off+4:]) {
		return nameEntry{}, bad(off, "name hash differs")
	}
	if le.Uint16(c.buf[off+8+n:]) != 0 {
		return nameEntry{}, bad(off, "name without its end mark")
	}
	var lossy bool
	c.scratch, lossy = appendUTF16(c.scratch[:0], chars)
	if lossy || !xmlName(c.scratch) {
		return nameEntry{}, bad(off, "not an XML name")
	}
	return nameEntry{c.remember(c.scratch), 8 + n + 2}, nil
}

// xmlName accepts what XML 1.0 calls a Name, with at most one colon inside.
func xmlName(b []byte) bool {
	colons := 0
	for i, w := 0, 0; i < len(b); i += w {
		var r rune
		r, w = utf8.DecodeRune(b[i:])
		switch {
		case r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_':
		case r >= 0xc0 && r != 0xd7 && r != 0xf7 && r <= 0x2ff, r >= 0x370 && r <= 0x1fff && r != 0x37e,
			r >= 0x2070 && r <= 0x218f, r >= 0x2c00 && r <= 0x2fef, r >= 0x3001 && r <= 0xd7ff,
			r >= 0xf900 && r <= 0xfdcf, r >= 0xfdf0 && r <= 0xfffc, r >= 0x10000 && r <= 0xeffff:
		case i == 0:
			return false
		case r == ':':
			if colons++; colons > 1 || i == len(b)-1 {
				return false
			}
		case r >= '0' && r <= '9' || r == '-' || r == '.' || r == 0xb7 || r >= 0x300 && r <= 0x36f || r == 0x203f || r == 0x2040:
			if b[i-1] == ':' {
				return false
			}
		default:
			return false
		}
	}
	return len(b) > 0
}

// template returns the definition at off, looked up or compiled once for each
// chunk. p is the position behind the reference.
func (c *Chunk) template(id, off uint32, p, end int) (*definition, int, error) {
	if int64(off) > int64(p) {
		return nil, p, bad(p-4, "template offset points forward")
	}
	at := int(off)
	if at < recordsStart {
		return nil, p, bad(p-4, "template offset points into the chunk header")
	}
	near := &c.near[off>>3%uint32(len(c.near))]
	d := near.d
	if d == nil || near.off != off {
		if d = c.defs[off]; d == nil {
			d = c.obtain(at)
			c.defs[off] = d
		}
		near.off, near.d = off, d
	}
	if d.err != nil {
		return nil, p, d.err
	}
	if d.id != id {
		return nil, p, bad(p-8, "template id is not the start of its GUID")
	}
	if at == p {
		if p += definitionHeader + d.size; p > end {
			return nil, p, bad(at, "template reaches beyond its record")
		}
	}
	return d, p, nil
}

// obtain finds the definition at a position in the cache or compiles it. What
// the chunk is allowed counts alike both ways, so that the answer for a record
// never depends on what the cache happens to hold.
func (c *Chunk) obtain(at int) *definition {
	if c.cache == nil {
		c.cache = new(Cache)
	}
	key, ok := c.key(at)
	if ok {
		d := c.cache.find(key, c.buf[:c.size], at)
		if d != nil && len(c.ops)+c.sharedOps+len(d.ops) <= maxOps && len(c.lit)+c.sharedLit+d.lits <= maxLiteral {
			c.sharedOps += len(d.ops)
			c.sharedLit += d.lits
			return d
		}
	}
	d := new(definition)
	c.defAt, c.defRefs = at, c.defRefs[:0]
	d.err = c.define(d, at)
	c.defAt = 0
	if d.err == nil {
		c.detach(d, at)
		c.cache.add(key, d)
	}
	return d
}

// detach gives a definition memory of its own.
func (c *Chunk) detach(d *definition, at int) {
	d.ops = slices.Clone(d.ops)
	lits := make([]byte, 0, d.lits)
	for i := range d.ops {
		if o := &d.ops[i]; o.lit != nil {
			n := len(lits)
			lits = append(lits, o.lit...)
			o.lit = lits[n:len(lits):len(lits)]
		}
	}
	d.raw = bytes.Clone(c.buf[at : at+definitionHeader+d.size])
	d.names = slices.Clone(c.defRefs)
	for i := range d.names {
		d.names[i].bytes = bytes.Clone(d.names[i].bytes)
	}
}

func (c *Chunk) define(d *definition, at int) error {
	if at+definitionHeader > c.size {
		return bad(at, "template reaches beyond the chunk")
	}
	le := binary.LittleEndian
	d.id = le.Uint32(c.buf[at+4:])
	size := le.Uint32(c.buf[at+20:])
	if int64(at)+definitionHeader+int64(size) > int64(c.size) {
		return bad(at+20, "template is larger than the chunk")
	}
	d.size = int(size)
	p := at + definitionHeader
	end := p + d.size
	p, err := c.fragmentHeader(p, end, true)
	if err != nil {
		return err
	}
	lits := len(c.lit)
	k := compiler{c: c, ops: c.ops, base: len(c.ops), template: true}
	for {
		if p >= end {
			return bad(p, "template without an end")
		}
		if c.buf[p] == 0 {
			break
		}
		if p, err = k.content(p, end, 0, nil); err != nil {
			c.ops = k.ops
			return err
		}
	}
	c.ops = k.ops
	d.ops = k.ops[k.base:]
	d.lits = len(c.lit) - lits
	return nil
}

func (c *Chunk) fragmentHeader(p, end int, required bool) (int, error) {
	if p >= end || c.buf[p] != 0x0f {
		if required {
			return p, bad(p, "no fragment header")
		}
		return p, nil
	}
	if p+4 > end {
		return p, bad(p, "ends early")
	}
	if c.buf[p+1] != 1 || c.buf[p+2] != 1 {
		return p, bad(p, "unknown BinXML version")
	}
	return p + 4, nil
}

// compiler turns BinXML into operations. Inside a template definition elements
// carry a dependency id and substitutions are legal; elsewhere neither is.
type compiler struct {
	c        *Chunk
	ops      []op
	base     int
	template bool
}

// inside tells about the content that a parent has so far.
type inside struct{ parts, values, optional int }

func (i *inside) flags() (f uint8) {
	if i.parts == 0 || i.parts != i.values {
		return 0
	}
	f = flagOnlyValues
	if i.optional == i.parts {
		f |= flagOmittable
	}
	if i.parts == 1 {
		f |= flagOne
	}
	return f
}

func (k *compiler) add(o op, p int) (int, error) {
	used := len(k.ops) + len(k.c.plain)
	if k.template {
		used += k.c.sharedOps
	}
	if used >= maxOps {
		return 0, bad(p, "too much BinXML for one chunk")
	}
	k.ops = append(k.ops, o)
	return len(k.ops) - 1, nil
}

// text adds literal text.
func (k *compiler) text(b []byte, p int, in *inside) error {
	c := k.c
	if len(c.lit)+c.sharedLit > maxLiteral {
		return bad(p, "too much literal text for one chunk")
	}
	_, err := k.add(op{kind: opText, lit: b}, p)
	if in != nil {
		in.parts++
	}
	return err
}

// content compiles the one item at p.
func (k *compiler) content(p, end, depth int, in *inside) (int, error) {
	c := k.c
	switch tok := c.buf[p]; tok &^ 0x40 {
	case 0x01:
		if in != nil {
			in.parts++
		}
		return k.element(p, end, depth)
	case 0x0a:
		return k.pi(p, end)
	default:
		if in == nil {
			if tok == 0x0c {
				return p, bad(p, "template instance inside a template")
			}
			return p, bad(p, "no element")
		}
		return k.part(p, end, in)
	}
}

// part compiles one piece of text: literal, reference or substitution.
func (k *compiler) part(p, end int, in *inside) (int, error) {
	c := k.c
	tok := c.buf[p]
	start := len(c.lit)
	switch tok &^ 0x40 {
	case 0x05:
		if p+2 > end || c.buf[p+1] != byte(TypeString) {
			return p, bad(p, "literal that is no string")
		}
		q, err := c.literal(p+2, end)
		if err != nil {
			return p, err
		}
		return q, k.text(c.lit[start:], p, in)
	case 0x07:
		q, err := c.literal(p+1, end)
		if err != nil {
			return p, err
		}
		return q, k.text(c.lit[start:], p, in)
	case 0x08:
		u, q, err := c.u16(p+1, end)
		if err != nil {
			return p, err
		}
		c.lit = utf8.AppendRune(c.lit, rune(u))
		return q, k.text(c.lit[start:], p, in)
	case 0x09:
		name, q, err := c.name(p+1, end)
		if err != nil {
			return p, err
		}
		switch name {
		case "amp":
			c.lit = append(c.lit, '&')
		case "lt":
			c.lit = append(c.lit, '<')
		case "gt":
			c.lit = append(c.lit, '>')
		case "quot":
			c.lit = append(c.lit, '"')
		case "apos":
			c.lit = append(c.lit, '\'')
		default:
			return p, bad(p, "unknown entity")
		}
		return q, k.text(c.lit[start:], p, in)
	case 0x0d, 0x0e:
		if !k.template {
			return p, bad(p, "substitution outside a template")
		}
		if p+4 > end {
			return p, bad(p, "ends early")
		}
		o := op{kind: opSubstitute, arg: binary.LittleEndian.Uint16(c.buf[p+1:])}
		in.parts++
		in.values++
		if tok == 0x0e {
			o.flags = flagOptional
			in.optional++
		}
		_, err := k.add(o, p)
		return p + 4, err // the declared type at p+3 is often not the true one
	case 0x0c:
		return p, bad(p, "template instance inside an element")
	}
	return p, bad(p, "unknown token")
}

// literal appends the counted string at p to the literal text.
func (c *Chunk) literal(p, end int) (int, error) {
	n, p, err := c.u16(p, end)
	if err != nil {
		return p, err
	}
	q := p + 2*int(n)
	if q > end {
		return p, bad(p, "text reaches beyond its element")
	}
	c.lit, _ = appendUTF16(c.lit, c.buf[p:q])
	return q, nil
}

func (k *compiler) pi(p, end int) (int, error) {
	c := k.c
	target, q, err := c.name(p+1, end)
	if err != nil {
		return p, err
	}
	if len(target) == 3 && bytes.EqualFold([]byte(target), []byte("xml")) {
		return p, bad(p, "reserved processing instruction")
	}
	if q >= end || c.buf[q] != 0x0b {
		return p, bad(q, "processing instruction without data")
	}
	start := len(c.lit)
	if q, err = c.literal(q+1, end); err != nil {
		return p, err
	}
	if bytes.Contains(c.lit[start:], []byte("?>")) {
		return p, bad(p, "processing instruction that ends inside")
	}
	_, err = k.add(op{kind: opPI, name: target, lit: c.lit[start:]}, p)
	return q, err
}

func (k *compiler) element(p, end, depth int) (int, error) {
	c := k.c
	if depth >= maxDepth {
		return p, bad(p, "elements too deep")
	}
	start := p
	more := c.buf[p]&0x40 != 0
	p++
	if k.template {
		p += 2
	}
	size, p, err := c.u32(p, end)
	if err != nil {
		return start, err
	}
	if int64(size) > int64(end-p) {
		return start, bad(start, "element is larger than what holds it")
	}
	end = p + int(size)
	name, p, err := c.name(p, end)
	if err != nil {
		return start, err
	}
	self, err := k.add(op{kind: opElement, name: name}, start)
	if err != nil {
		return start, err
	}
	if more {
		if p, err = k.attributes(p, end); err != nil {
			return start, err
		}
	}
	k.ops[self].body = int32(len(k.ops) - k.base)
	if p >= end {
		return start, bad(p, "ends early")
	}
	var in inside
	switch c.buf[p] {
	case 0x03:
		p++
	case 0x02:
		for p++; ; {
			if p >= end {
				return start, bad(p, "element without an end")
			}
			if c.buf[p] == 0x04 {
				p++
				break
			}
			if p, err = k.content(p, end, depth+1, &in); err != nil {
				return start, err
			}
		}
	default:
		return start, bad(p, "start tag without an end")
	}
	if p != end {
		return start, bad(p, "element does not fill its size")
	}
	o := &k.ops[self]
	o.flags, o.end = in.flags(), int32(len(k.ops)-k.base)
	return p, nil
}

func (k *compiler) attributes(p, end int) (int, error) {
	c := k.c
	size, p, err := c.u32(p, end)
	if err != nil {
		return p, err
	}
	if int64(size) > int64(end-p) {
		return p, bad(p, "attributes are larger than their element")
	}
	end = p + int(size)
	for p < end {
		if c.buf[p]&^0x40 != 0x06 {
			return p, bad(p, "no attribute")
		}
		name, q, err := c.name(p+1, end)
		if err != nil {
			return p, err
		}
		self, err := k.add(op{kind: opAttribute, name: name}, p)
		if err != nil {
			return p, err
		}
		k.ops[self].body = int32(len(k.ops) - k.base)
		var in inside
		for p = q; p < end && c.buf[p]&^0x40 != 0x06; {
			if p, err = k.part(p, end, &in); err != nil {
				return p, err
			}
		}
		o := &k.ops[self]
		o.flags, o.end = in.flags(), int32(len(k.ops)-k.base)
	}
	return p, nil
}

// fragment expands the BinXML at p into tokens: at the top of a record, or as
// the value of a substitution.
func (c *Chunk) fragment(p, end, depth int) (int, error) {
	p, err := c.fragmentHeader(p, end, depth == 0)
	if err != nil {
		return p, err
	}
	for p < end {
		if err := c.step(p, 0); err != nil {
			return p, err
		}
		switch c.buf[p] &^ 0x40 {
		case 0x00:
			return p + 1, nil
		case 0x0c:
			p, err = c.instance(p, end, depth)
		default:
			p, err = c.bare(p, end, depth)
		}
		if err != nil {
			return p, err
		}
	}
	if depth == 0 {
		return p, bad(p, "BinXML without an end")
	}
	return p, nil
}

// bare expands an element that stands without a template.
func (c *Chunk) bare(p, end, depth int) (int, error) {
	base := len(c.plain)
	k := compiler{c: c, ops: c.plain, base: base}
	q, err := k.content(p, end, depth, nil)
	c.plain = k.ops
	if err == nil {
		err = c.run(k.ops[base:], 0, len(k.ops)-base, nil, depth)
	}
	c.plain = c.plain[:base]
	return q, err
}

func (c *Chunk) instance(p, end, depth int) (int, error) {
	if p+10 > end {
		return p, bad(p, "ends early")
	}
	le := binary.LittleEndian
	if c.buf[p+1] != 1 {
		return p, bad(p, "unknown template instance")
	}
	d, p, err := c.template(le.Uint32(c.buf[p+2:]), le.Uint32(c.buf[p+6:]), p+10, end)
	if err != nil {
		return p, err
	}
	n, p, err := c.u32(p, end)
	if err != nil {
		return p, err
	}
	if n > maxArguments || int64(p)+4*int64(n) > int64(end) {
		return p, bad(p-4, "too many values")
	}
	base, off := len(c.values), p+4*int(n)
	for range int(n) {
		size := int(le.Uint16(c.buf[p:]))
		if off+size > end {
			return p, bad(p, "value reaches beyond its record")
		}
		c.values = append(c.values, value{off: uint32(off), n: uint32(size), typ: ValueType(c.buf[p+2])})
		off += size
		p += 4
	}
	err = c.run(d.ops, 0, len(d.ops), c.values[base:], depth)
	c.values = c.values[:base]
	return off, err
}

// step counts one operation and n bytes of text.
func (c *Chunk) step(pos, n int) error {
	c.steps++
	c.spent += n
	if c.steps > maxSteps || c.spent > maxSpent {
		return bad(pos, "expands beyond all measure")
	}
	return nil
}

func (c *Chunk) run(ops []op, i, end int, values []value, depth int) error {
	for i < end {
		o := &ops[i]
		i++
		if err := c.step(recordsStart, len(o.lit)); err != nil {
			return err
		}
		switch o.kind {
		case opElement:
			if err := c.element(ops, i-1, values, depth); err != nil {
				return err
			}
			i = int(o.end)
		case opText:
			c.addText(TypeString, false, len(c.out))
			c.out = append(c.out, o.lit...)
			c.toks[len(c.toks)-1].n += len(o.lit)
		case opSubstitute:
			if int(o.arg) >= len(values) {
				return bad(recordsStart, "substitution without a value")
			}
			if err := c.substitute(o, values[o.arg], depth); err != nil {
				return err
			}
		case opPI:
			off := len(c.out)
			c.out = append(c.out, o.lit...)
			c.toks = append(c.toks, token{kind: tokPI, name: o.name, off: off, n: len(o.lit)})
		}
	}
	return nil
}

// addText opens a text token at off, or joins the one before it.
func (c *Chunk) addText(t ValueType, lossy bool, off int) {
	if n := len(c.toks); n > 0 && c.toks[n-1].kind == tokText {
		last := &c.toks[n-1]
		last.typ, last.lossy = TypeString, last.lossy || lossy
		return
	}
	c.toks = append(c.toks, token{kind: tokText, typ: t, lossy: lossy, off: off})
}

func (c *Chunk) element(ops []op, i int, values []value, depth int) error {
	o := &ops[i]
	if depth >= maxDepth {
		return bad(recordsStart, "elements too deep")
	}
	if o.flags&flagOmittable != 0 {
		omit := true
		for j := o.body; j < o.end; j++ {
			if a := int(ops[j].arg); a >= len(values) || values[a].typ != TypeNull {
				omit = false
				break
			}
		}
		if omit {
			return nil
		}
	}
	if o.flags&flagOne != 0 {
		if a := int(ops[o.body].arg); a < len(values) && values[a].typ&arrayBit != 0 {
			return c.repeat(ops, i, values, values[a])
		}
	}
	if err := c.open(ops, i, values); err != nil {
		return err
	}
	err := c.run(ops, int(o.body), int(o.end), values, depth+1)
	c.toks = append(c.toks, token{kind: tokEnd, name: o.name})
	return err
}

// open writes the start tag. On an error the element is closed again.
func (c *Chunk) open(ops []op, i int, values []value) error {
	o := &ops[i]
	if err := c.step(recordsStart, 2*len(o.name)); err != nil {
		return err
	}
	c.toks = append(c.toks, token{kind: tokStart, name: o.name})
	for j := i + 1; j < int(o.body); {
		a := &ops[j]
		if err := c.attribute(ops, a, values); err != nil {
			c.toks = append(c.toks, token{kind: tokEnd, name: o.name})
			return err
		}
		j = int(a.end)
	}
	return nil
}

// repeat writes the element once for each item of an array, and once, empty, for
// an array without items.
func (c *Chunk) repeat(ops []op, i int, values []value, v value) error {
	t := v.typ &^ arrayBit
	data := c.buf[v.off : v.off+v.n]
	for first := true; first || len(data) > 0; first = false {
		if err := c.open(ops, i, values); err != nil {
			return err
		}
		var err error
		if first && len(data) == 0 {
			c.addText(TypeString, false, len(c.out))
		} else {
			var item []byte
			if item, data, err = nextItem(t, data); err == nil {
				err = c.addValue(t, item, int(v.off))
			} else {
				err = bad(int(v.off), err.Error())
			}
		}
		c.toks = append(c.toks, token{kind: tokEnd, name: ops[i].name})
		if err != nil {
			return err
		}
	}
	return nil
}

// nextItem cuts one item off an array.
func nextItem(t ValueType, b []byte) (item, rest []byte, err error) {
	if w := t.width(); w != 0 {
		if len(b) < w {
			return nil, nil, errWidth
		}
		return b[:w], b[w:], nil
	}
	switch t {
	case TypeString:
		if len(b)%2 != 0 {
			return nil, nil, errWidth
		}
		for i := 0; i < len(b); i += 2 {
			if b[i] == 0 && b[i+1] == 0 {
				return b[:i], b[i+2:], nil
			}
		}
		return b, nil, nil
	case TypeAnsiString:
		if i := bytes.IndexByte(b, 0); i >= 0 {
			return b[:i], b[i+1:], nil
		}
		return b, nil, nil
	case TypeSID:
		n, ok := sidSize(b)
		if !ok {
			return nil, nil, errWidth
		}
		return b[:n], b[n:], nil
	}
	return nil, nil, errType
}

// addValue renders one value as text of the open element.
func (c *Chunk) addValue(t ValueType, b []byte, pos int) error {
	off := len(c.out)
	out, lossy, err := appendValue(c.out, t, b)
	if err != nil {
		return bad(pos, err.Error())
	}
	c.out = out
	c.addText(t, lossy, off)
	c.toks[len(c.toks)-1].n += len(out) - off
	return c.step(pos, len(out)-off)
}

// substitute writes a value into the content of an element.
func (c *Chunk) substitute(o *op, v value, depth int) error {
	switch {
	case v.typ == TypeNull:
		c.toks = append(c.toks, token{kind: tokNull})
		return nil
	case v.typ == TypeBinXML:
		if v.n == 0 {
			return nil
		}
		if depth >= maxDepth {
			return bad(int(v.off), "elements too deep")
		}
		_, err := c.fragment(int(v.off), int(v.off+v.n), depth)
		return err
	case v.typ&arrayBit != 0:
		off := len(c.out)
		lossy, err := c.joined(v)
		if err != nil {
			return err
		}
		n := len(c.out) - off
		c.addText(TypeString, lossy, off)
		c.toks[len(c.toks)-1].n += n
		return nil
	}
	return c.addValue(v.typ, c.buf[v.off:v.off+v.n], int(v.off))
}

// joined writes the items of an array that shares its place with other text.
func (c *Chunk) joined(v value) (lossy bool, err error) {
	t, data := v.typ&^arrayBit, c.buf[v.off:v.off+v.n]
	for first := true; len(data) > 0; first = false {
		var item []byte
		if item, data, err = nextItem(t, data); err != nil {
			return lossy, bad(int(v.off), err.Error())
		}
		off := len(c.out)
		if !first {
			c.out = append(c.out, ',', ' ')
		}
		var l bool
		if c.out, l, err = appendValue(c.out, t, item); err != nil {
			return lossy, bad(int(v.off), err.Error())
		}
		lossy = lossy || l
		if err := c.step(int(v.off), len(c.out)-off); err != nil {
			return lossy, err
		}
	}
	return lossy, nil
}

func (c *Chunk) attribute(ops []op, o *op, values []value) error {
	t := token{kind: tokAttr, name: o.name, off: len(c.out), typ: TypeString}
	if err := c.step(recordsStart, len(o.name)); err != nil {
		return err
	}
	t.null = o.flags&flagOnlyValues != 0
	for j := o.body; j < o.end; j++ {
		part := &ops[j]
		if err := c.step(recordsStart, len(part.lit)); err != nil {
			return err
		}
		if part.kind == opText {
			c.out = append(c.out, part.lit...)
			continue
		}
		if int(part.arg) >= len(values) {
			return bad(recordsStart, "substitution without a value")
		}
		v := values[part.arg]
		var lossy bool
		var err error
		switch {
		case v.typ == TypeNull:
			continue
		case v.typ == TypeBinXML:
			return bad(int(v.off), "BinXML inside an attribute")
		case v.typ&arrayBit != 0:
			lossy, err = c.joined(v)
		default:
			n := len(c.out)
			if c.out, lossy, err = appendValue(c.out, v.typ, c.buf[v.off:v.off+v.n]); err != nil {
				return bad(int(v.off), err.Error())
			}
			if o.flags&flagOne != 0 {
				t.typ = v.typ
			}
			err = c.step(int(v.off), len(c.out)-n)
		}
		if err != nil {
			return err
		}
		t.null, t.lossy = false, t.lossy || lossy
	}
	if t.null && o.flags&flagOmittable != 0 {
		return nil
	}
	t.n = len(c.out) - t.off
	c.toks = append(c.toks, t)
	return nil
}
