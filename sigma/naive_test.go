package sigma

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// Naive is the plain evaluator: it asks every rule of an event's log source, one
// after the other, and remembers nothing but the forms of a value. It is the
// oracle of the matcher and the yardstick of its speed, and lives in the tests:
// it compiles the rules for itself and shares the language with the matcher
// (parsing, modifiers, comparing one value with one literal, the gate of a log
// source) and none of the ways to ask fewer rules.
//
// This file imports nothing of testing, so that the benchmarks of the peers can
// lay it over the package; see docs/benchmarks.md.
type Naive struct {
	rules    []*Rule
	roots    []*node
	gates    []gate
	mapping  *Mapping
	opaque   func(b []byte) (start, end int)
	fields   map[string]int32
	names    []string
	channels map[string]bool
	eventIDs map[string]bool
	ungated  bool

	mu      sync.Mutex
	buckets map[string]*naiveBucket
	pool    sync.Pool
}

// NewNaive compiles the rules of a set anew. With ungated, every rule is asked
// of every event.
func NewNaive(s *Set, opt Options, ungated bool) *Naive {
	lang := &Set{fields: make(map[string]int32)}
	n := &Naive{
		rules: s.Rules(), mapping: opt.Mapping, opaque: opt.Opaque, ungated: ungated,
		channels: make(map[string]bool), eventIDs: make(map[string]bool), buckets: make(map[string]*naiveBucket),
	}
	if n.mapping == nil {
		n.mapping = DefaultMapping()
	}
	n.pool.New = func() any { return &naiveScratch{} }
	for _, e := range n.mapping.Entries {
		for _, c := range e.Channels {
			n.channels[strings.ToLower(c)] = true
		}
		for _, id := range e.EventIDs {
			n.eventIDs[id] = true
		}
		for _, w := range e.Where {
			lang.fieldID(w.Field)
		}
		for _, a := range e.Aliases {
			lang.fieldID(a.Name)
			lang.fieldID(a.Native)
		}
	}
	lang.fieldID("Channel")
	lang.fieldID("EventID")
	compile := func(r *Rule) *node {
		root, f := lang.compileRule(r, opt.Placeholders)
		if f != nil {
			panic("a rule of the set does not compile: " + f.reason)
		}
		return root
	}
	for _, r := range n.rules {
		root := compile(r)
		for _, filter := range s.Filters() {
			if filter.filters(r) {
				root = &node{op: nodeAnd, kids: []*node{root, compile(filter)}}
			}
		}
		n.roots = append(n.roots, root)
		n.gates = append(n.gates, gate{r.LogSource, n.mapping.entriesFor(r.LogSource)})
	}
	n.fields, n.names = lang.fields, lang.names
	return n
}

// Ungate makes a set ask every rule of every event, whatever its log source. It
// is for tests and benchmarks, before the first event.
func Ungate(s *Set) { s.ungated = true }

// naiveBucket holds the rules that events of one origin can reach.
type naiveBucket struct{ candidates []naiveCandidate }

type naiveCandidate struct {
	rule int
	ways []naiveCompiledWay
}

type naiveCompiledWay struct {
	where   []naiveCompiledWhere
	aliases []naiveCompiledAlias
}

type naiveCompiledWhere struct {
	field  int32
	values [][]byte // folded
}

type naiveCompiledAlias struct{ name, native int32 }

// naiveScratch is the working memory for one event.
type naiveScratch struct {
	set *Naive
	ev  *Event
	// first[id] is the first field of a name when stamp[id] is the current turn;
	// next chains further ones.
	first, last []int32
	stamp       []uint32
	turn        uint32
	next        []int32
	cells       []naiveCell
	arena       []byte // bytes of folded values
	spans       []span
	key         []byte
	aliases     []naiveCompiledAlias
}

// naiveCell holds the forms of a field's value, made when first asked for.
type naiveCell struct {
	raw, fold       text
	rawOK, foldOK   bool
	regex           []byte
	regexOK, opaque bool // opaque: the whole value is one token
}

// Match answers as Set.Match must.
func (s *Naive) Match(ev *Event, fn func(Match)) {
	sc := s.pool.Get().(*naiveScratch)
	defer s.pool.Put(sc)
	sc.begin(s, ev)
	b := sc.bucket()
	for i := range b.candidates {
		c := &b.candidates[i]
		v := No
		root := s.roots[c.rule]
		for j := range c.ways {
			w := &c.ways[j]
			sc.aliases = w.aliases
			v = max(v, min(sc.where(w), sc.eval(root)))
			if v == Yes {
				break
			}
		}
		if v == No {
			continue
		}
		m := Match{Rule: s.rules[c.rule], Verdict: v}
		if v == Yes {
			m.Matched = sc.matched(root)
		}
		fn(m)
	}
	sc.end()
}

func (sc *naiveScratch) begin(s *Naive, ev *Event) {
	sc.set, sc.ev = s, ev
	if len(sc.stamp) < len(s.names) {
		sc.first = make([]int32, len(s.names))
		sc.last = make([]int32, len(s.names))
		sc.stamp = make([]uint32, len(s.names))
		sc.turn = 0
	}
	sc.turn++
	if sc.turn == 0 { // wrapped: old stamps could look current
		clear(sc.stamp)
		sc.turn = 1
	}
	n := len(ev.Fields)
	sc.next = slices.Grow(sc.next[:0], n)[:n]
	sc.cells = slices.Grow(sc.cells[:0], n)[:n]
	clear(sc.cells)
	for i := range ev.Fields {
		sc.next[i] = -1
		id, ok := s.fields[stripSpaces(ev.Fields[i].Name)]
		if !ok {
			continue
		}
		if sc.stamp[id] != sc.turn {
			sc.stamp[id] = sc.turn
			sc.first[id] = int32(i)
		} else {
			sc.next[sc.last[id]] = int32(i)
		}
		sc.last[id] = int32(i)
	}
}

// end lets go of the event and of memory that a large one needed.
func (sc *naiveScratch) end() {
	clear(sc.cells)
	sc.ev, sc.aliases = nil, nil
	sc.arena, sc.spans = sc.arena[:0], sc.spans[:0]
	if cap(sc.arena) > 1<<20 {
		sc.arena = nil
	}
	if cap(sc.cells) > 1<<12 {
		sc.cells, sc.next = nil, nil
	}
}

// naiveBucket returns the rules for the event's origin.
func (sc *naiveScratch) bucket() *naiveBucket {
	s, src := sc.set, sc.ev.Source
	k := sc.key[:0]
	for _, attr := range [...]string{src.Product, src.Category, src.Service} {
		for i := 0; i < len(attr); i++ {
			c := attr[i]
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			k = append(k, c)
		}
		k = append(k, 0)
	}
	// An unknown channel or event id is "?" so that hostile events cannot fill
	// the table; an absent one is nothing.
	if i := sc.own("Channel"); i >= 0 {
		at := len(k)
		k = append(k, bytes.ToLower(sc.ev.Fields[i].Value)...)
		if !s.channels[string(k[at:])] {
			k = append(k[:at], '?')
		}
	}
	k = append(k, 0)
	if i := sc.own("EventID"); i >= 0 {
		if id := sc.ev.Fields[i].Value; s.eventIDs[string(id)] {
			k = append(k, id...)
		} else {
			k = append(k, '?')
		}
	}
	sc.key = k
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buckets[string(k)]
	if b == nil {
		b = s.newBucket(string(k))
		s.buckets[string(k)] = b
	}
	return b
}

// own returns the first field of a name that the set always knows.
func (sc *naiveScratch) own(name string) int32 { return sc.at(sc.set.fields[name]) }

func (sc *naiveScratch) at(id int32) int32 {
	if sc.stamp[id] == sc.turn {
		return sc.first[id]
	}
	return -1
}

// newBucket works out which rules an origin can reach.
func (s *Naive) newBucket(key string) *naiveBucket {
	attr := strings.Split(key, "\x00")
	for len(attr) < 5 {
		attr = append(attr, "")
	}
	o := origin{source: LogSource{attr[0], attr[1], attr[2]}, eventID: attr[len(attr)-1]}
	channel := attr[len(attr)-2]
	switch {
	case channel == "?" && o.source.Product != windows:
		// Some other producer has a field of that name.
	case channel != "":
		o.channels = []string{channel}
		if o.source.Product == windows {
			o.source.Service = "" // the channel knows better than a setting
		}
	case o.source.Product != "" && o.source.Service != "":
		o.channels = s.mapping.channelsOf(o.source.Product, o.source.Service)
	}
	b := &naiveBucket{}
	for i := range s.gates {
		ways := s.gates[i].pass(o)
		if s.ungated {
			ways = []way{{}}
		}
		if len(ways) == 0 {
			continue
		}
		c := naiveCandidate{rule: i}
		for _, w := range ways {
			c.ways = append(c.ways, s.compileWay(w))
		}
		b.candidates = append(b.candidates, c)
	}
	return b
}

// compileWay resolves names; Compile has given an id to each of them.
func (s *Naive) compileWay(w way) naiveCompiledWay {
	var out naiveCompiledWay
	for _, cond := range w.where {
		c := naiveCompiledWhere{field: s.fields[cond.Field]}
		for _, v := range cond.Values {
			c.values = append(c.values, appendFold(nil, []byte(v)))
		}
		out.where = append(out.where, c)
	}
	for _, a := range w.aliases {
		out.aliases = append(out.aliases, naiveCompiledAlias{s.fields[a.Name], s.fields[a.Native]})
	}
	return out
}

// where asks the mapping's further fields.
func (sc *naiveScratch) where(w *naiveCompiledWay) Verdict {
	v := Yes
	for i := range w.where {
		c := &w.where[i]
		one := No
		at := sc.at(c.field)
		if at < 0 && sc.blindName(c.field) {
			one = CannotTell
		}
		for ; at >= 0; at = sc.next[at] {
			have := sc.folded(at).b
			if slices.ContainsFunc(c.values, func(want []byte) bool { return bytes.Equal(have, want) }) {
				one = Yes
			}
		}
		v = min(v, one)
	}
	return v
}

func (sc *naiveScratch) eval(n *node) Verdict {
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
	for _, k := range n.kids {
		switch sc.eval(k) {
		case Yes:
			yes++
		case CannotTell:
			open++
		}
	}
	switch {
	case yes >= n.n:
		return Yes
	case yes+open >= n.n:
		return CannotTell
	}
	return No
}

// find returns the first value of a field, by its own name or by an alias.
func (sc *naiveScratch) find(id int32) int32 {
	if at := sc.at(id); at >= 0 {
		return at
	}
	for _, a := range sc.aliases {
		if a.name == id {
			if at := sc.at(a.native); at >= 0 {
				return at
			}
		}
	}
	return -1
}

func (sc *naiveScratch) blindName(id int32) bool {
	return sc.ev.Blind != nil && sc.ev.Blind(sc.set.names[id])
}

// blind reports whether an absent field may have been there.
func (sc *naiveScratch) blind(id int32) bool {
	if sc.ev.Blind == nil {
		return false
	}
	if sc.blindName(id) {
		return true
	}
	for _, a := range sc.aliases {
		if a.name == id && sc.blindName(a.native) {
			return true
		}
	}
	return false
}

func (sc *naiveScratch) item(ft *fieldTest) Verdict {
	v := sc.positive(ft)
	if ft.negate {
		return v.not()
	}
	return v
}

// positive answers an item without its neq.
func (sc *naiveScratch) positive(ft *fieldTest) Verdict {
	if ft.field == "" {
		return sc.keywords(ft)
	}
	at := sc.find(ft.id)
	if ft.exists {
		v := verdict(at >= 0)
		if at < 0 && sc.blind(ft.id) {
			v = CannotTell
		}
		if !ft.want {
			v = v.not()
		}
		return v
	}
	if at < 0 {
		if sc.blind(ft.id) {
			return CannotTell
		}
		return verdict(ft.groups[0][0].kind == testNull) // null stands alone
	}
	v := verdict(ft.all)
	for _, g := range ft.groups {
		one := No
		for i := range g {
			for e := at; e >= 0 && one != Yes; e = sc.next[e] {
				one = max(one, sc.ask(&g[i], e))
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

func (sc *naiveScratch) keywords(ft *fieldTest) Verdict {
	v := verdict(ft.all)
	for _, g := range ft.groups {
		one := No
		if sc.ev.AnyBlind {
			one = CannotTell
		}
	search:
		for e := range sc.ev.Fields {
			for i := range g {
				if sc.ask(&g[i], int32(e)) == Yes {
					one = Yes
					break search
				}
			}
		}
		if ft.all {
			v = min(v, one)
		} else {
			v = max(v, one)
		}
	}
	return v
}

// ask answers one test on one value of the event.
func (sc *naiveScratch) ask(t *test, e int32) Verdict {
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
		return verdict(t.re.Match(sc.forRegex(e)))
	case testCIDR:
		raw := sc.raw(e)
		if sc.cells[e].opaque {
			return f.Addr.In(t.prefix)
		}
		if len(raw.b) > 64 {
			return No
		}
		a, err := netip.ParseAddr(string(raw.b))
		return verdict(err == nil && t.prefix.Contains(a.Unmap().WithZone("")))
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

// reference compares a value with each value of the other field.
func (sc *naiveScratch) reference(t *test, e int32) Verdict {
	at := sc.find(t.refID)
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

// cased returns the form of a value that a test reads.
func (sc *naiveScratch) cased(t *test, e int32) text {
	if t.cased {
		return sc.raw(e)
	}
	return sc.folded(e)
}

// raw returns a value as it is, with its tokens found.
func (sc *naiveScratch) raw(e int32) text {
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
func (sc *naiveScratch) folded(e int32) text {
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

// forRegex returns a value with one rune in place of each token.
func (sc *naiveScratch) forRegex(e int32) []byte {
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
// so it asks again instead of remembering.
func (sc *naiveScratch) matched(root *node) []MatchedField {
	var at []int32
	var walk func(n *node)
	walk = func(n *node) {
		if sc.eval(n) != Yes { // below a not that holds, nothing is true
			return
		}
		if n.op == nodeTest {
			at = sc.elements(n.test, at)
		}
		for _, k := range n.kids {
			walk(k)
		}
	}
	walk(root)
	slices.Sort(at)
	at = slices.Compact(at)
	out := make([]MatchedField, len(at))
	for i, e := range at {
		out[i] = MatchedField{sc.ev.Fields[e].Name, sc.ev.Fields[e].Value}
	}
	return out
}

// elements appends the values of the event that satisfy an item.
func (sc *naiveScratch) elements(ft *fieldTest, at []int32) []int32 {
	if ft.negate || ft.exists && !ft.want {
		return at
	}
	if ft.field == "" {
		for e := range sc.ev.Fields {
			if sc.satisfies(ft, int32(e)) {
				at = append(at, int32(e))
			}
		}
		return at
	}
	for e := sc.find(ft.id); e >= 0; e = sc.next[e] {
		if ft.exists || sc.satisfies(ft, e) {
			at = append(at, e)
		}
	}
	return at
}

func (sc *naiveScratch) satisfies(ft *fieldTest, e int32) bool {
	for _, g := range ft.groups {
		for i := range g {
			if sc.ask(&g[i], e) == Yes {
				return true
			}
		}
	}
	return false
}
