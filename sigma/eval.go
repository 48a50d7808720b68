package sigma

import (
	"bytes"
	"net/netip"
	"slices"
)

// scratch is the working memory for one event. Nothing in it is cleared between
// events: an answer counts when it carries the current turn.
type scratch struct {
	set *Set
	ev  *Event

	// turn grows with each event and, within one, with each change of what a
	// field means. base is the turn in which the event began: a field is there
	// when turns[id] is at least base, and answers about it hold while its turn
	// stays the same.
	turn, base  uint32
	turns       []uint32
	first, last []int32 // the first and last value of a field
	next        []int32 // for each value, the next one of its field
	ids         []int32 // by place, the fields of the event before
	present     []int32 // the fields that are there

	memo  []uint32 // answers, as turn<<2 | verdict
	group *group   // the one whose aliases are in force
	alias []aliased

	marks  []uint32 // rules of an index that are candidates, by turn
	struck []uint32 // literals of an index that were found, by turn
	found  []int32  // the candidates
	hits   []hit
	elems  []int32 // the values that made a rule true

	cells []cell
	arena []byte // bytes of folded values
	spans []span
	key   []byte
}

// aliased is a field that is there under another name.
type aliased struct{ name, first int32 }

// cell holds the forms of a field's value, made when first asked for.
type cell struct {
	raw, fold       text
	regex           []byte
	addr            netip.Addr
	rawOK, foldOK   bool
	regexOK, addrOK bool
	opaque          bool // the whole value is one token
}

const (
	// maxArena is the working memory that a scratch keeps between events.
	maxArena = 1 << 20
	// maxIDs bounds the places that are remembered.
	maxIDs = 256
	// maxTurn leaves two bits for a verdict.
	maxTurn = 1<<30 - 1<<20
)

func (sc *scratch) begin(s *Set, ev *Event) {
	sc.set, sc.ev = s, ev
	if sc.turns == nil || sc.turn >= maxTurn {
		sc.turn = 0
		sc.turns = make([]uint32, len(s.names))
		sc.first = make([]int32, len(s.names))
		sc.last = make([]int32, len(s.names))
		sc.memo = make([]uint32, s.shared.memos+1)
		clear(sc.marks)
		clear(sc.struck)
	}
	sc.turn++
	sc.base = sc.turn
	n := len(ev.Fields)
	sc.next = slices.Grow(sc.next[:0], n)[:n]
	sc.cells = slices.Grow(sc.cells[:0], n)[:n]
	clear(sc.cells)
	sc.present, sc.hits, sc.group = sc.present[:0], sc.hits[:0], nil
	sc.arena, sc.spans = sc.arena[:0], sc.spans[:0]
	for i := range ev.Fields {
		sc.next[i] = -1
		// Events come in kinds: the field is often the one that stood in this place
		// of the event before.
		name := ev.Fields[i].Name
		var id int32 = -1
		if i < len(sc.ids) {
			id = sc.ids[i]
		} else if i < maxIDs {
			sc.ids = append(sc.ids, -1)
		}
		if id < 0 || s.names[id] != name {
			if id = sc.lookup(name); i < len(sc.ids) {
				sc.ids[i] = id
			}
		}
		if id < 0 {
			continue
		}
		if sc.turns[id] != sc.turn {
			sc.turns[id] = sc.turn
			sc.first[id] = int32(i)
			sc.present = append(sc.present, id)
		} else {
			sc.next[sc.last[id]] = int32(i)
		}
		sc.last[id] = int32(i)
	}
}

// lookup returns the id of a field's name, spaces aside, or -1.
func (sc *scratch) lookup(name string) int32 {
	for i := 0; i < len(name); i++ {
		if name[i] == ' ' {
			k := sc.key[:0]
			for j := 0; j < len(name); j++ {
				if name[j] != ' ' {
					k = append(k, name[j])
				}
			}
			sc.key = k
			if id, ok := sc.set.fields[string(k)]; ok {
				return id
			}
			return -1
		}
	}
	if id, ok := sc.set.fields[name]; ok {
		return id
	}
	return -1
}

// end lets go of the event and of memory that a large one needed.
func (sc *scratch) end() {
	clear(sc.cells)
	clear(sc.hits)
	sc.ev, sc.group = nil, nil
	if cap(sc.arena) > maxArena {
		sc.arena = nil
	}
	if cap(sc.spans) > maxArena/16 {
		sc.spans = nil
	}
	if cap(sc.cells) > maxArena/256 {
		sc.cells, sc.next = nil, nil
	}
	if cap(sc.key) > maxArena/256 {
		sc.key = nil
	}
}

// at returns the first value of a field, or -1.
func (sc *scratch) at(id int32) int32 {
	if sc.turns[id] >= sc.base {
		return sc.first[id]
	}
	return -1
}

// enter puts the aliases of a group in force: a field that is absent under its
// own name is read under the native one, in a turn of its own.
func (sc *scratch) enter(g *group) {
	sc.group = g
	sc.alias = sc.alias[:0]
	for _, a := range g.aliases {
		if sc.at(a.name) >= 0 || slices.ContainsFunc(sc.alias, func(have aliased) bool { return have.name == a.name }) {
			continue
		}
		if at := sc.at(a.native); at >= 0 {
			sc.alias = append(sc.alias, aliased{a.name, at})
		}
	}
	for _, a := range sc.alias { // only now, so that an alias never reads another
		sc.turn++
		sc.turns[a.name], sc.first[a.name] = sc.turn, a.first
	}
}

func (sc *scratch) leave(g *group) {
	for _, a := range sc.alias {
		sc.turns[a.name] = 0
	}
	sc.group = nil
	sc.alias = sc.alias[:0]
}

func (sc *scratch) blindName(id int32) bool {
	return sc.ev.Blind != nil && sc.ev.Blind(sc.set.names[id])
}

// blind reports whether an absent field may have been there.
func (sc *scratch) blind(id int32) bool {
	if sc.ev.Blind == nil {
		return false
	}
	if sc.blindName(id) {
		return true
	}
	if sc.group != nil {
		for _, a := range sc.group.aliases {
			if a.name == id && sc.blindName(a.native) {
				return true
			}
		}
	}
	return false
}

// eval answers a condition, asking no more than it needs.
func (sc *scratch) eval(n *node) Verdict {
	switch n.op {
	case nodeTest:
		return sc.item(n.test)
	case nodeNot:
		return sc.eval(n.kids[0]).not()
	case nodeAnd:
		v := Yes
		for _, k := range n.kids {
			if v = min(v, sc.eval(k)); v == No {
				break
			}
		}
		return v
	case nodeOr:
		v := No
		for _, k := range n.kids {
			if v = max(v, sc.eval(k)); v == Yes {
				break
			}
		}
		return v
	}
	yes, open := 0, 0
	for i, k := range n.kids {
		switch sc.eval(k) {
		case Yes:
			yes++
		case CannotTell:
			open++
		}
		if yes >= n.n {
			return Yes
		}
		if yes+open+len(n.kids)-i-1 < n.n {
			return No
		}
	}
	return CannotTell
}

// item answers one item of a search, from memory where it was asked before.
func (sc *scratch) item(ft *fieldTest) Verdict {
	turn, at := sc.base, int32(-1)
	if ft.field != "" {
		turn = sc.turns[ft.id]
		if turn < sc.base {
			return sc.absent(ft)
		}
		at = sc.first[ft.id]
	}
	if m := sc.memo[ft.memo]; m>>2 == turn {
		return Verdict(m & 3)
	}
	var v Verdict
	switch {
	case ft.exists:
		v = verdict(ft.want)
	case ft.field == "":
		v = sc.keywords(ft)
	default:
		v = sc.values(ft, at)
	}
	if ft.negate {
		v = v.not()
	}
	if !ft.refs {
		sc.memo[ft.memo] = turn<<2 | uint32(v)
	}
	return v
}

// absent answers an item whose field is not there.
func (sc *scratch) absent(ft *fieldTest) Verdict {
	var v Verdict
	switch {
	case sc.blind(ft.id):
		return CannotTell // and so is its negation
	case ft.exists:
		v = verdict(!ft.want)
	default:
		v = verdict(ft.groups[0][0].kind == testNull) // null stands alone
	}
	if ft.negate {
		v = v.not()
	}
	return v
}

// values answers an item, without its neq, on the values of its field.
func (sc *scratch) values(ft *fieldTest, at int32) Verdict {
	v := verdict(ft.all)
	for _, g := range ft.groups {
		one := No
		for i := range g {
			if one = max(one, sc.test(&g[i], ft.id, at)); one == Yes {
				break
			}
		}
		if ft.all {
			if v = min(v, one); v == No {
				break
			}
		} else if v = max(v, one); v == Yes {
			break
		}
	}
	return v
}

// test answers one test on the values of a field.
func (sc *scratch) test(t *test, id, at int32) Verdict {
	turn := sc.turns[id]
	if t.memo != 0 {
		if m := sc.memo[t.memo]; m>>2 == turn {
			return Verdict(m & 3)
		}
	}
	v := No
	for ; at >= 0 && v != Yes; at = sc.next[at] {
		v = max(v, sc.ask(t, at))
	}
	if t.memo != 0 {
		sc.memo[t.memo] = turn<<2 | uint32(v)
	}
	return v
}

// keywords looks for the keywords of an item in all values.
func (sc *scratch) keywords(ft *fieldTest) Verdict {
	v := verdict(ft.all)
	for _, g := range ft.groups {
		one := No
		if sc.ev.AnyBlind {
			one = CannotTell
		}
		for i := range g {
			for e := 0; e < len(sc.ev.Fields) && one != Yes; e++ {
				if sc.ask(&g[i], int32(e)) == Yes {
					one = Yes
				}
			}
		}
		if ft.all {
			if v = min(v, one); v == No {
				break
			}
		} else if v = max(v, one); v == Yes {
			break
		}
	}
	return v
}

// ask answers one test on one value of the event.
func (sc *scratch) ask(t *test, e int32) Verdict {
	f := &sc.ev.Fields[e]
	if f.Kind == KindNull {
		return verdict(t.kind == testNull || t.kind == testPresent)
	}
	switch t.kind {
	case testNull:
		return No
	case testPresent:
		return Yes
	case testRegex:
		b := sc.forRegex(e)
		if n := t.sieve.line; n > 0 {
			return verdict(longLine(b, n))
		}
		return verdict(t.sieve.fits(len(b)) && t.sieve.passes(sc.folded(e).b) && t.re.Match(b))
	case testCIDR:
		addr := sc.address(e)
		if sc.cells[e].opaque {
			return f.Addr.In(t.prefix)
		}
		return verdict(t.prefix.Contains(addr)) // false for no address
	case testCompare:
		raw := sc.raw(e)
		n, ok := parseNumber(raw.b)
		if !ok || len(raw.spans) > 0 {
			return No
		}
		c := n.compare(t.num)
		switch t.op {
		case "lt":
			return verdict(c < 0)
		case "lte":
			return verdict(c <= 0)
		case "gt":
			return verdict(c > 0)
		}
		return verdict(c >= 0)
	case testTime:
		raw := sc.raw(e)
		when, ok := parseTime(raw.b)
		return verdict(ok && len(raw.spans) == 0 && t.part.of(when) == t.want)
	case testRef:
		return sc.reference(t, e)
	}
	value := sc.cased(t, e)
	if t.kind == testGlob {
		return verdict(value.glob(t.atoms))
	}
	return verdict(value.holds(t.kind, t.lit))
}

// holds compares a value with a literal.
func (t text) holds(how testKind, lit []byte) bool {
	switch how {
	case testExact:
		return bytes.Equal(t.b, lit)
	case testPrefix:
		return t.hasPrefix(lit)
	case testSuffix:
		return t.hasSuffix(lit)
	}
	return t.index(lit, 0) >= 0
}

// reference compares a value with each value of the other field.
func (sc *scratch) reference(t *test, e int32) Verdict {
	at := sc.at(t.refID)
	if at < 0 {
		if sc.blind(t.refID) {
			return CannotTell
		}
		return No
	}
	value := sc.cased(t, e)
	for ; at >= 0; at = sc.next[at] {
		if sc.ev.Fields[at].Kind != KindNull && value.holds(t.how, sc.cased(t, at).b) {
			return Yes
		}
	}
	return No
}

// address reads a value as an address; the zero Addr is none.
func (sc *scratch) address(e int32) netip.Addr {
	raw := sc.raw(e)
	c := &sc.cells[e]
	if !c.addrOK {
		c.addrOK = true
		if len(raw.b) <= 64 {
			c.addr = parseAddr(raw.b)
		}
	}
	return c.addr
}

// cased returns the form of a value that a test reads.
func (sc *scratch) cased(t *test, e int32) text {
	if t.cased {
		return sc.raw(e)
	}
	return sc.folded(e)
}

// raw returns a value as it is, with its tokens found.
func (sc *scratch) raw(e int32) text {
	c := &sc.cells[e]
	if c.rawOK {
		return c.raw
	}
	c.rawOK = true
	b := sc.ev.Fields[e].Value
	c.raw = text{b: b}
	if sc.set.opaque == nil {
		return c.raw
	}
	first := len(sc.spans)
	for from := 0; from < len(b); {
		start, end := sc.set.opaque(b[from:])
		if start < 0 || end <= start || end > len(b)-from {
			break // none left, or an answer that is not a span
		}
		sc.spans = append(sc.spans, span{from + start, from + end})
		from += end
	}
	if first < len(sc.spans) {
		c.raw.spans = sc.spans[first:len(sc.spans):len(sc.spans)]
		c.opaque = c.raw.spans[0] == span{0, len(b)}
	}
	return c.raw
}

// folded returns a value without case. Folding may change lengths, so tokens
// move.
func (sc *scratch) folded(e int32) text {
	c := &sc.cells[e]
	if c.foldOK {
		return c.fold
	}
	raw := sc.raw(e)
	c.foldOK = true
	if folded(raw.b) {
		c.fold = raw
		return raw
	}
	start, first, from := len(sc.arena), len(sc.spans), 0
	for _, s := range raw.spans {
		sc.arena = appendFold(sc.arena, raw.b[from:s.start])
		at := len(sc.arena) - start
		sc.arena = appendFold(sc.arena, raw.b[s.start:s.end])
		sc.spans = append(sc.spans, span{at, len(sc.arena) - start})
		from = s.end
	}
	sc.arena = appendFold(sc.arena, raw.b[from:])
	c.fold.b = sc.arena[start:len(sc.arena):len(sc.arena)]
	if first < len(sc.spans) {
		c.fold.spans = sc.spans[first:len(sc.spans):len(sc.spans)]
	}
	return c.fold
}

// forRegex returns a value as regular expressions read it: one rune in place of
// each token.
func (sc *scratch) forRegex(e int32) []byte {
	c := &sc.cells[e]
	if c.regexOK {
		return c.regex
	}
	raw := sc.raw(e)
	c.regexOK, c.regex = true, raw.b
	if len(raw.spans) == 0 {
		return c.regex
	}
	start, from := len(sc.arena), 0
	for _, s := range raw.spans {
		sc.arena = append(sc.arena, raw.b[from:s.start]...)
		sc.arena = append(sc.arena, string(opaqueRune)...)
		from = s.end
	}
	sc.arena = append(sc.arena, raw.b[from:]...)
	c.regex = sc.arena[start:len(sc.arena):len(sc.arena)]
	return c.regex
}

// matched lists the fields that made the rule true. It runs for matches alone,
// so it asks again instead of remembering which value it was.
func (sc *scratch) matched(root *node) []MatchedField {
	sc.elems = sc.elems[:0]
	sc.collect(root)
	slices.Sort(sc.elems)
	at := slices.Compact(sc.elems)
	out := make([]MatchedField, len(at))
	for i, e := range at {
		out[i] = MatchedField{sc.ev.Fields[e].Name, sc.ev.Fields[e].Value}
	}
	return out
}

func (sc *scratch) collect(n *node) {
	if n.op == nodeNot || sc.eval(n) != Yes {
		return // below a not that holds, nothing is true
	}
	if n.op == nodeTest {
		sc.elements(n.test)
	}
	for _, k := range n.kids {
		sc.collect(k)
	}
}

// elements collects the values of the event that satisfy an item.
func (sc *scratch) elements(ft *fieldTest) {
	if ft.negate || ft.exists && !ft.want {
		return
	}
	if ft.field == "" {
		for e := range sc.ev.Fields {
			if sc.satisfies(ft, int32(e)) {
				sc.elems = append(sc.elems, int32(e))
			}
		}
		return
	}
	for e := sc.at(ft.id); e >= 0; e = sc.next[e] {
		if ft.exists || sc.satisfies(ft, e) {
			sc.elems = append(sc.elems, e)
		}
	}
}

func (sc *scratch) satisfies(ft *fieldTest, e int32) bool {
	for _, g := range ft.groups {
		for i := range g {
			if sc.ask(&g[i], e) == Yes {
				return true
			}
		}
	}
	return false
}
