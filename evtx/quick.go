package evtx

import (
	"encoding/binary"
	"slices"
	"unicode/utf8"
)

// maxItems bounds the items of arrays in a record that takes the quick way.
const maxItems = 256

// instance is a template instance of a record that takes the quick way.
type instance struct {
	plan *plan
	base int // of its values in Chunk.values
	n    int
}

// quickly reads the record's BinXML the quick way: every check is made, nothing
// is rendered. It reports false where something is not as plans foresee, which
// may be damage; the way by tokens then has the word.
func (c *Chunk) quickly(start, end int) (next int, ok bool) {
	b := c.buf
	if start+5 > end || b[start] != 0x0f || b[start+1] != 1 || b[start+2] != 1 || b[start+4]&^0x40 != 0x0c {
		return 0, false
	}
	c.quick = c.quick[:0]
	items := 0
	p, ok := c.quickInstance(start+4, end, atRoot, &items)
	if !ok || p >= end || b[p]&^0x40 != 0 {
		return 0, false
	}
	for k := 0; k < len(c.quick); k++ { // it grows; the plan of a value inside UserData foresees no other
		x := c.quick[k]
		for i := range min(x.n, len(x.plan.uses)) {
			use := x.plan.uses[i]
			if use&(useNested|useInner) == 0 || c.values[x.base+i].typ != TypeBinXML {
				continue
			}
			place := atSection
			if use&useInner != 0 {
				place = atInner
			}
			if !c.quickNested(&c.values[x.base+i], place, &items) {
				return 0, false
			}
		}
	}
	// The bounds of the way by tokens, from above. A value gives at most four
	// bytes of text for one of its own, and less than 64 more.
	steps, spent := 0, 0
	for i := range c.quick {
		x := &c.quick[i]
		steps += (1+items)*x.plan.steps + 8
		spent += (1+items)*x.plan.spent + x.plan.most*(4*(end-start)+64*x.n)
	}
	if items > maxItems || steps > maxSteps || spent > maxSpent {
		return 0, false
	}
	return p + 1, true
}

// quickNested reads a BinXML value. The value is changed before c.values grows.
func (c *Chunk) quickNested(v *value, place int, items *int) bool {
	p, end := int(v.off), int(v.off+v.n)
	v.nested = uint32(len(c.quick))
	if p+4 <= end && c.buf[p] == 0x0f {
		if c.buf[p+1] != 1 || c.buf[p+2] != 1 {
			return false
		}
		p += 4
	}
	if p >= end || c.buf[p]&^0x40 != 0x0c {
		return false
	}
	p, ok := c.quickInstance(p, end, place, items)
	return ok && (p >= end || c.buf[p]&^0x40 == 0)
}

// quickInstance reads the template instance at p and checks each of its values.
func (c *Chunk) quickInstance(p, end, place int, items *int) (next int, ok bool) {
	le := binary.LittleEndian
	if p+10 > end || c.buf[p+1] != 1 {
		return 0, false
	}
	d, p, err := c.template(le.Uint32(c.buf[p+2:]), le.Uint32(c.buf[p+6:]), p+10, end)
	if err != nil || p+4 > end {
		return 0, false
	}
	pl := d.plan(place)
	count := le.Uint32(c.buf[p:])
	p += 4
	if !pl.ok || count > maxArguments || int64(p)+4*int64(count) > int64(end) || int(count) < len(pl.uses) {
		return 0, false
	}
	n := int(count)
	base, off := len(c.values), p+4*n
	for i := range n {
		desc := le.Uint32(c.buf[p:])
		p += 4
		size, t := int(desc&0xffff), ValueType(desc>>16)
		if off+size > end {
			return 0, false
		}
		var use uint8
		if i < len(pl.uses) {
			use = pl.uses[i]
		}
		if use&useNested != 0 {
			if t != TypeNull && (t != TypeBinXML || size == 0) {
				return 0, false
			}
		} else if t == TypeString {
			if size%2 != 0 {
				return 0, false
			}
		} else if t == TypeBinXML {
			if use&useInner == 0 || size == 0 {
				return 0, false
			}
		} else if t != TypeNull && !plausible(t, c.buf[off:off+size], use, items) {
			return 0, false
		}
		c.values = append(c.values, value{off: uint32(off), n: uint32(size), typ: t})
		off += size
	}
	c.quick = append(c.quick, instance{pl, base, n})
	return off, true
}

// plausible reports whether a value, other than text and NULL, renders without an
// error and its argument may be of that type.
func plausible(t ValueType, b []byte, use uint8, items *int) bool {
	switch t {
	case TypeAnsiString, TypeBinary:
		return true
	case TypeSize:
		return len(b) == 4 || len(b) == 8
	case TypeSID:
		n, ok := sidSize(b)
		return ok && n == len(b)
	}
	if t&arrayBit == 0 {
		w := t.width()
		return w != 0 && len(b) == w
	}
	if use&useArray == 0 {
		return false
	}
	for len(b) > 0 {
		if *items++; *items > maxItems {
			return false
		}
		var err error
		if _, b, err = nextItem(t&^arrayBit, b); err != nil {
			return false
		}
	}
	return true
}

// allNull reports whether each of the arguments is NULL.
func allNull(values []value, args []uint16) bool {
	for _, a := range args {
		if values[a].typ != TypeNull {
			return false
		}
	}
	return true
}

// quickFields appends the fields of the record.
func (c *Chunk) quickFields() {
	root := c.quick[0]
	values := c.values[root.base : root.base+root.n]
	c.slots(root.plan.system, values, 0)
	c.systems = len(c.fields)
	c.slots(root.plan.fields, values, root.plan.bits)
}

// slots appends the fields of a list; taken marks the names of System.
func (c *Chunk) slots(list []slot, values []value, taken uint64) {
	for i := 0; i < len(list); i++ {
		s := &list[i]
		switch s.kind {
		case slotText:
			off := len(c.out)
			c.out = append(c.out, s.lit...)
			c.field(s, taken, TypeString, false, off)
		case slotValue:
			v := &values[s.arg]
			if v.typ == TypeNull {
				continue
			}
			if v.typ == TypeBinXML {
				c.nestedSlots(v, taken)
				continue
			}
			b := c.buf[v.off : v.off+v.n]
			if v.typ&arrayBit != 0 {
				c.arrayFields(s, taken, v.typ&^arrayBit, b)
				continue
			}
			off := len(c.out)
			var lossy bool
			c.out, lossy, _ = appendValue(c.out, v.typ, b)
			c.field(s, taken, v.typ, lossy, off)
		case slotEmpty:
			if allNull(values, s.args) {
				c.field(s, taken, TypeString, false, len(c.out))
			}
		case slotNested:
			if v := &values[s.arg]; v.typ != TypeNull {
				c.nestedSlots(v, taken)
			}
		case slotSkip:
			if values[s.arg].typ == TypeNull {
				i = int(s.jump) - 1
			}
		}
	}
}

func (c *Chunk) nestedSlots(v *value, taken uint64) {
	x := c.quick[v.nested]
	c.slots(x.plan.fields, c.values[x.base:x.base+x.n], taken)
}

func (c *Chunk) arrayFields(s *slot, taken uint64, t ValueType, b []byte) {
	if len(b) == 0 {
		c.field(s, taken, TypeString, false, len(c.out))
		return
	}
	for len(b) > 0 {
		var item []byte
		item, b, _ = nextItem(t, b)
		off := len(c.out)
		var lossy bool
		c.out, lossy, _ = appendValue(c.out, t, item)
		c.field(s, taken, t, lossy, off)
	}
}

// field appends one field whose text is the end of c.out.
func (c *Chunk) field(s *slot, taken uint64, t ValueType, lossy bool, off int) {
	name := s.name
	if s.bit&taken != 0 {
		for i := range c.fields[:c.systems] {
			if c.fields[i].Name == name {
				name = c.compose(s.in, ".", name)
				break
			}
		}
	}
	n := len(c.fields)
	if n == cap(c.fields) {
		c.fields = slices.Grow(c.fields, 64)
	}
	c.fields = c.fields[:n+1]
	f := &c.fields[n] // set in place: building it elsewhere and copying costs as much as all else
	f.Name, f.Kind, f.Type, f.Lossy = name, t.kind(), t, lossy
	f.Value = c.out[off:len(c.out):len(c.out)]
}

// quickXML appends the XML of an instance, or of a part of its pieces.
func (c *Chunk) quickXML(dst []byte, x *instance, from, to int) []byte {
	values, list := c.values[x.base:x.base+x.n], x.plan.xml[:to]
	for i := from; i < len(list); i++ {
		s := &list[i]
		switch s.kind {
		case pieceText:
			dst = append(dst, s.lit...)
		case pieceValue:
			v := &values[s.arg]
			dst = c.xmlValue(dst, v.typ, c.buf[v.off:v.off+v.n])
		case pieceBody:
			v := &values[s.arg]
			if v.typ == TypeNull {
				dst = append(dst, '/', '>')
				continue
			}
			dst = append(dst, '>')
			if v.typ == TypeBinXML {
				dst = c.nestedXML(dst, v)
			} else {
				dst = c.xmlValue(dst, v.typ, c.buf[v.off:v.off+v.n])
			}
			dst = append(dst, s.lit...)
		case pieceRepeat:
			v := &values[s.arg]
			if v.typ&arrayBit == 0 {
				continue
			}
			t, b := v.typ&^arrayBit, c.buf[v.off:v.off+v.n]
			body := int(s.jump) - 1
			for first := true; first || len(b) > 0; first = false {
				dst = append(c.quickXML(dst, x, i+1, body), '>')
				if len(b) > 0 {
					var item []byte
					item, b, _ = nextItem(t, b)
					dst = c.xmlValue(dst, t, item)
				}
				dst = append(dst, list[body].lit...)
			}
			i = body
		case pieceSkip:
			if values[s.arg].typ == TypeNull {
				i = int(s.jump) - 1
			}
		case pieceOpen:
			if allNull(values, s.args) {
				dst = append(dst, '/', '>')
				i = int(s.jump) - 1
			} else {
				dst = append(dst, '>')
			}
		case pieceNested:
			if v := &values[s.arg]; v.typ != TypeNull {
				dst = c.nestedXML(dst, v)
			}
		}
	}
	return dst
}

func (c *Chunk) nestedXML(dst []byte, v *value) []byte {
	x := &c.quick[v.nested]
	return c.quickXML(dst, x, 0, len(x.plan.xml))
}

// xmlValue writes one value. Only text can hold what XML must escape.
func (c *Chunk) xmlValue(dst []byte, t ValueType, b []byte) []byte {
	switch t {
	case TypeNull:
		return dst
	case TypeString, TypeAnsiString:
		c.scratch, _, _ = appendValue(c.scratch[:0], t, b)
		return appendXMLText(dst, c.scratch)
	}
	dst, _, _ = appendValue(dst, t, b)
	return dst
}

// narrow appends UTF-16LE as long as it is ASCII, four characters at a time, and
// returns what is left.
func narrow(dst, b []byte) (out, rest []byte) {
	n := len(dst)
	dst = slices.Grow(dst, len(b)/2)
	to := dst[n : n+len(b)/2]
	for len(b) >= 8 {
		x := binary.LittleEndian.Uint64(b)
		if x&0xff80ff80ff80ff80 != 0 {
			break
		}
		x |= x >> 8
		binary.LittleEndian.PutUint32(to, uint32(x&0xffff|x>>16&0xffff0000))
		to, b = to[4:], b[8:]
	}
	for len(b) >= 2 && b[1] == 0 && b[0] < utf8.RuneSelf {
		to[0] = b[0]
		to, b = to[1:], b[2:]
	}
	return dst[:cap(dst)-cap(to)], b
}
