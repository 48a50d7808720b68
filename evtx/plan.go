package evtx

import (
	"bytes"
	"strings"
)

// A plan is a definition turned into the two lists that nearly every record
// needs: its fields in order, and its XML as literal pieces and gaps. A plan is
// made only for definitions in which nothing but the values decides what comes
// out, and a record takes the quick way (quick.go) only if its values are such as
// the plan foresees. All else, damage first of all, takes the way by tokens
// (binxml.go), which gives the same answers and knows every error.
type plan struct {
	ok      bool
	system  []slot // fields of System
	fields  []slot // all others
	xml     []piece
	uses    []uint8 // for each argument
	bits    uint64  // the names in system, one bit for each name's mark
	created int     // argument of TimeCreated/SystemTime, -1 if not known
	steps   int     // operations, as the way by tokens counts them
	spent   int     // bytes of names and literal text, likewise
	most    int     // uses of the most used argument
}

// What an argument may be.
const (
	useArray  uint8 = 1 << iota // an array: it repeats its element
	useNested                   // BinXML, a section, or NULL; nothing else
	useInner                    // BinXML inside of UserData, or any value
)

// Where a definition stands.
const (
	atRoot    = iota // at the top of a record
	atSection        // as a section below the root of another
	atInner          // as the one element inside of UserData
	places
)

type slotKind uint8

const (
	slotText   slotKind = iota // literal text
	slotValue                  // an argument
	slotEmpty                  // an empty value if all of args are NULL
	slotNested                 // the fields of a BinXML argument
	slotSkip                   // leave out the next ones, up to jump, if the argument is NULL
)

type slot struct {
	kind slotKind
	arg  uint16
	jump int32
	name string
	in   string // the section
	bit  uint64
	lit  []byte
	args []uint16
}

type pieceKind uint8

const (
	pieceText   pieceKind = iota // literal, escaped already
	pieceValue                   // an argument in an attribute
	pieceBody                    // an argument as content, with the end of its element
	pieceRepeat                  // up to jump: an element that an array repeats
	pieceSkip                    // go to jump if the argument is NULL
	pieceOpen                    // close the start tag; if all args are NULL, the element too, and go to jump
	pieceNested                  // the XML of a BinXML argument
)

type piece struct {
	kind pieceKind
	arg  uint16
	jump int32
	lit  []byte
	args []uint16
}

// plan returns the plan of the definition for a place. It is made on first use;
// two goroutines may make it twice, the same.
func (d *definition) plan(place int) *plan {
	p := d.plans[place].Load()
	if p == nil {
		p = makePlan(d.ops, place)
		d.plans[place].Store(p)
	}
	return p
}

type planner struct {
	plan
	ops     []op
	place   int
	section string // the element below the root
	gap     bool   // a BinXML argument came already
	timed   bool   // a TimeCreated/SystemTime came already
	counts  []int
	literal int // where the last literal piece that may grow stands, or -1
}

func makePlan(ops []op, place int) *plan {
	b := planner{ops: ops, place: place, literal: -1}
	b.created = -1
	if place == atInner {
		b.section = userData
	}
	if len(ops) == 0 || ops[0].kind != opElement || int(ops[0].end) != len(ops) || !b.size(maxSteps/8, maxSpent/8) {
		return new(plan)
	}
	if place == atInner && ops[0].flags&flagOmittable != 0 {
		return new(plan) // UserData may then be empty
	}
	if !b.element(0, 1+place) || place == atSection && b.section == "System" {
		return new(plan)
	}
	b.ok = true
	return &b.plan
}

const userData = "UserData"

// size counts what the operations cost and how often they use each argument.
func (b *planner) size(steps, spent int) bool {
	args := 0
	for i := range b.ops {
		o := &b.ops[i]
		b.spent += 2*len(o.name) + len(o.lit)
		if o.kind == opSubstitute {
			args = max(args, int(o.arg)+1)
		}
	}
	b.steps = 2 * len(b.ops)
	if b.steps > steps || b.spent > spent || args > maxArguments {
		return false
	}
	b.uses, b.counts = make([]uint8, args), make([]int, args)
	for i := range b.ops {
		if o := &b.ops[i]; o.kind == opSubstitute {
			b.uses[o.arg] = useArray
			b.counts[o.arg]++
			b.most = max(b.most, b.counts[o.arg])
		}
	}
	return true
}

func (b *planner) text(parts ...string) {
	if b.literal < 0 {
		b.literal = len(b.xml)
		b.xml = append(b.xml, piece{kind: pieceText})
	}
	p := &b.xml[b.literal]
	for _, s := range parts {
		p.lit = append(p.lit, s...)
	}
}

func (b *planner) escaped(lit []byte) {
	b.text()
	p := &b.xml[b.literal]
	p.lit = appendXMLText(p.lit, lit)
}

func (b *planner) piece(p piece) int {
	b.literal = -1
	b.xml = append(b.xml, p)
	return len(b.xml) - 1
}

// land makes a piece jump to the end of what is there.
func (b *planner) land(i int) {
	b.literal = -1
	b.xml[i].jump = int32(len(b.xml))
}

func (b *planner) slot(system bool, s slot) int {
	s.in, s.bit = b.section, mark(s.name)
	list := &b.fields
	if system {
		list = &b.system
		if s.name != "" {
			b.bits |= s.bit
		}
	}
	*list = append(*list, s)
	return len(*list) - 1
}

// mark is a bit by which names that differ are told apart, mostly.
func mark(name string) uint64 {
	h := uint32(len(name))
	for i := range len(name) {
		h = h*31 + uint32(name[i])
	}
	return 1 << (h * 2654435769 >> 26)
}

// content is what stands between two operations.
type content struct {
	elements, texts, values int
	lit                     []byte
	arg                     uint16
	optional                bool
}

func (b *planner) content(from, to int32) (x content, ok bool) {
	for i := from; i < to; i++ {
		switch o := &b.ops[i]; o.kind {
		case opElement:
			x.elements++
			i = o.end - 1
		case opText:
			x.texts++
			x.lit = append(x.lit, o.lit...)
		case opSubstitute:
			x.values++
			x.arg, x.optional = o.arg, o.flags&flagOptional != 0
		default:
			return x, false
		}
	}
	return x, true
}

// element plans the element at ops[i]; depth counts it and those around it. It
// reports false for what only the way by tokens can do.
func (b *planner) element(i, depth int) bool {
	o := &b.ops[i]
	if depth > maxDepth {
		return false
	}
	name := local(o.name)
	if depth == 2 {
		b.section = name
	}
	body, ok := b.content(o.body, o.end)
	if !ok || body.values > 0 && (body.texts > 0 || depth > 1 && (body.values > 1 || body.elements > 0)) || body.texts > 0 && body.elements > 0 {
		return false
	}
	if depth == 1 && (body.texts > 0 || body.elements == 0) {
		return false
	}
	single := depth > 1 && body.values == 1
	system := depth > 1 && b.section == "System"
	field := name

	// What is left out where its only value is NULL.
	skipXML, skipField := -1, -1
	attributes := false // some attribute gives a field
	if single && body.optional {
		skipXML = b.piece(piece{kind: pieceSkip, arg: body.arg})
		skipField = b.slot(system, slot{kind: slotSkip, arg: body.arg})
	}
	repeat := -1
	if single {
		repeat = b.piece(piece{kind: pieceRepeat, arg: body.arg})
	}

	// args decide whether there is anything in the element; certain: there is.
	var args []uint16
	certain := false
	b.text("<", o.name)
	for j := i + 1; j < int(o.body); {
		a := &b.ops[j]
		j = int(a.end)
		part, ok := b.content(a.body, a.end)
		if !ok || part.values > 1 || part.values == 1 && part.texts > 0 {
			return false
		}
		part.optional = part.optional && a.flags&flagOmittable != 0
		xmlns := a.name == "xmlns" || strings.HasPrefix(a.name, "xmlns:")
		if depth == 1 && !xmlns {
			return false
		}
		called := depth == 3 && name == "Data" && b.section == "EventData" && local(a.name) == "Name"
		if o.name == "TimeCreated" && a.name == "SystemTime" && !b.timed {
			b.timed = true
			if part.values == 1 && !b.gap && repeat < 0 && b.place == atRoot {
				b.created = int(part.arg)
			}
		}
		if part.values == 0 {
			b.text(" ", a.name, `="`)
			b.escaped(part.lit)
			b.text(`"`)
			switch {
			case called:
				if s := string(bytes.ReplaceAll(part.lit, []byte(" "), nil)); s != "" {
					field = s
				}
			case !xmlns:
				b.slot(system, slot{kind: slotText, name: name + "_" + local(a.name), lit: part.lit})
				certain, attributes = true, true
			}
			continue
		}
		if called {
			return false
		}
		b.uses[part.arg] &^= useArray
		skip := -1
		if part.optional {
			skip = b.piece(piece{kind: pieceSkip, arg: part.arg})
		}
		b.text(" ", a.name, `="`)
		b.piece(piece{kind: pieceValue, arg: part.arg})
		b.text(`"`)
		if skip >= 0 {
			b.land(skip)
		}
		if xmlns {
			continue
		}
		b.slot(system, slot{kind: slotValue, arg: part.arg, name: name + "_" + local(a.name)})
		attributes = true
		if part.optional {
			args = append(args, part.arg)
		} else {
			certain = true
		}
	}

	empty := func() {
		if !system && depth > 2 && !certain {
			b.slot(false, slot{kind: slotEmpty, name: field, args: args})
		}
	}
	switch {
	case single:
		b.piece(piece{kind: pieceBody, arg: body.arg, lit: []byte("</" + o.name + ">")})
		b.slot(system, slot{kind: slotValue, arg: body.arg, name: field})
		if attributes {
			b.uses[body.arg] &^= useArray // they would be repeated as well
		}
		if depth == 2 && name == userData && b.counts[body.arg] == 1 {
			b.gap = true
			b.uses[body.arg] |= useInner
		}
		b.land(repeat)
		if skipXML >= 0 {
			b.land(skipXML)
			if system {
				b.system[skipField].jump = int32(len(b.system))
			} else {
				b.fields[skipField].jump = int32(len(b.fields))
			}
		}
	case body.texts > 0:
		b.text(">")
		b.escaped(body.lit)
		b.text("</", o.name, ">")
		b.slot(system, slot{kind: slotText, name: field, lit: body.lit})
	case body.elements == 0:
		b.text("/>")
		empty()
	default:
		return b.children(o, depth, args, certain, empty, &args)
	}
	return true
}

// children plans an element that holds elements.
func (b *planner) children(o *op, depth int, attrs []uint16, certain bool, empty func(), args *[]uint16) bool {
	// Elements that a NULL leaves out may leave the parent empty.
	var inner []uint16
	sure := false
	for j := o.body; j < o.end; {
		child := &b.ops[j]
		switch {
		case child.kind != opElement:
			j++
			continue
		case child.flags&flagOmittable != 0:
			for k := child.body; k < child.end; k++ {
				inner = append(inner, b.ops[k].arg)
			}
		default:
			sure = true
		}
		j = child.end
	}
	if depth == 1 && !sure {
		return false
	}
	open := -1
	if sure {
		b.text(">")
	} else {
		open = b.piece(piece{kind: pieceOpen, args: inner})
	}
	for j := o.body; j < o.end; {
		child := &b.ops[j]
		if child.kind == opSubstitute {
			if b.counts[child.arg] != 1 {
				return false
			}
			b.gap = true
			b.uses[child.arg] = useNested
			b.piece(piece{kind: pieceNested, arg: child.arg})
			b.slot(false, slot{kind: slotNested, arg: child.arg})
			j++
			continue
		}
		if !b.element(int(j), depth+1) {
			return false
		}
		j = child.end
	}
	b.text("</", o.name, ">")
	if open >= 0 {
		b.land(open)
	}
	if !sure {
		*args = append(attrs[:len(attrs):len(attrs)], inner...)
		empty()
	}
	return true
}
