package sigma

import (
	"bytes"
	"slices"
	"unicode"
	"unicode/utf8"
)

// lit is a variable of a formula, or its negation when the lowest bit is set.
type lit int32

func (l lit) not() lit { return l ^ 1 }

// Bounds of the search for a contradiction. Past one of them nothing is said.
const (
	maxConflicts = 2000    // of one question
	maxWork      = 3 << 24 // steps of all questions about a rule
	maxLogic     = 10000   // variables; what goes beyond may be true or false
	maxAtoms     = 400     // tests of one field that are compared with each other
)

// solver decides whether clauses can all hold. It is the usual search: decide,
// propagate units, learn a clause from each conflict (the first unique implication
// point), go back as far as that clause allows.
type solver struct {
	clauses  [][]lit
	watches  [][]int32 // by literal: the clauses that look at it, to visit when it becomes false
	value    []int8    // by variable: 1, -1, or 0 while open
	level    []int32
	reason   []int32 // the clause that forced a variable, or -1
	activity []float64
	weight   float64
	learned  bool
	trail    []lit
	limits   []int // length of the trail at each decision
	head     int
	work     int
	broken   bool // the clauses alone contradict each other
	seen     []bool
}

func (s *solver) variable() lit {
	s.work++
	v := lit(len(s.value))
	s.value = append(s.value, 0)
	s.level = append(s.level, 0)
	s.reason = append(s.reason, -1)
	s.activity = append(s.activity, 0)
	s.seen = append(s.seen, false)
	s.watches = append(s.watches, nil, nil)
	return v << 1
}

// of returns 1 for a literal that holds, -1 for one that does not, else 0.
func (s *solver) of(l lit) int8 {
	if v := s.value[l>>1]; l&1 == 0 {
		return v
	} else {
		return -v
	}
}

// add adds a clause: at least one of the literals holds.
func (s *solver) add(lits ...lit) {
	s.back(0)
	var clause []lit
	for _, l := range lits {
		switch {
		case s.of(l) > 0 || slices.Contains(clause, l.not()):
			return // holds anyway
		case s.of(l) < 0 || slices.Contains(clause, l):
		default:
			clause = append(clause, l)
		}
	}
	switch len(clause) {
	case 0:
		s.broken = true
	case 1:
		s.set(clause[0], -1)
		if s.propagate() >= 0 {
			s.broken = true
		}
	default:
		s.watch(clause)
	}
}

func (s *solver) watch(clause []lit) int32 {
	at := int32(len(s.clauses))
	s.clauses = append(s.clauses, clause)
	s.watches[clause[0]] = append(s.watches[clause[0]], at)
	s.watches[clause[1]] = append(s.watches[clause[1]], at)
	return at
}

func (s *solver) set(l lit, reason int32) {
	v := l >> 1
	s.value[v] = 1 - 2*int8(l&1)
	s.level[v], s.reason[v] = int32(len(s.limits)), reason
	s.trail = append(s.trail, l)
}

// propagate draws the conclusions and returns a clause that cannot hold, or -1.
func (s *solver) propagate() int32 {
	for ; s.head < len(s.trail); s.head++ {
		gone := s.trail[s.head].not()
		list := s.watches[gone]
		keep := list[:0]
		s.work += len(list) + 1
		for i, at := range list {
			c := s.clauses[at]
			if c[0] == gone {
				c[0], c[1] = c[1], c[0]
			}
			if s.of(c[0]) > 0 {
				keep = append(keep, at)
				continue
			}
			moved := false
			for k := 2; k < len(c) && !moved; k++ {
				if s.of(c[k]) >= 0 {
					c[1], c[k] = c[k], c[1]
					s.watches[c[1]] = append(s.watches[c[1]], at)
					moved = true
				}
			}
			if moved {
				continue
			}
			keep = append(keep, at)
			if s.of(c[0]) < 0 {
				s.watches[gone] = append(keep, list[i+1:]...)
				return at
			}
			s.set(c[0], at)
		}
		s.watches[gone] = keep
	}
	return -1
}

func (s *solver) back(level int) {
	if len(s.limits) <= level {
		return
	}
	n := s.limits[level]
	for _, l := range s.trail[n:] {
		s.value[l>>1] = 0
	}
	s.trail, s.limits, s.head = s.trail[:n], s.limits[:level], n
}

// learn turns a conflict into a clause and says how far to go back. The first
// literal of the clause is the one that then holds.
func (s *solver) learn(conflict int32) ([]lit, int) {
	clause := []lit{0}
	open, at := 0, len(s.trail)-1
	var uip lit
	for c := conflict; ; {
		for _, l := range s.clauses[c] {
			v := l >> 1
			if c != conflict && l == uip || s.seen[v] || s.level[v] == 0 {
				continue
			}
			s.seen[v] = true
			s.activity[v] += s.weight
			if int(s.level[v]) == len(s.limits) {
				open++
			} else {
				clause = append(clause, l)
			}
		}
		for !s.seen[s.trail[at]>>1] {
			at--
		}
		uip = s.trail[at]
		s.seen[uip>>1] = false
		if open--; open == 0 {
			break
		}
		c = s.reason[uip>>1]
		at--
	}
	clause[0] = uip.not()
	back := 0
	for i, l := range clause[1:] {
		s.seen[l>>1] = false
		if n := int(s.level[l>>1]); n > back {
			back = n
			clause[1], clause[i+1] = clause[i+1], clause[1]
		}
	}
	if s.weight *= 1.05; s.weight > 1e100 {
		for v := range s.activity {
			s.activity[v] *= 1e-100
		}
		s.weight *= 1e-100
	}
	return clause, back
}

// contradicts reports whether the clauses and the assumptions cannot all hold. It
// says false too when it gave up.
func (s *solver) contradicts(assumptions ...lit) bool {
	s.back(0)
	if s.broken {
		return true
	}
	defer s.back(0)
	from := 0
	for conflicts := 0; s.work < maxWork; {
		if c := s.propagate(); c >= 0 {
			if len(s.limits) == 0 {
				s.broken = true
				return true
			}
			if conflicts++; conflicts > maxConflicts {
				return false
			}
			clause, level := s.learn(c)
			s.back(level)
			s.learned, from = true, 0
			if len(clause) == 1 {
				s.set(clause[0], -1)
			} else {
				s.set(clause[0], s.watch(clause))
			}
			continue
		}
		var next lit = -1
		if n := len(s.limits); n < len(assumptions) {
			next = assumptions[n]
			switch s.of(next) {
			case -1:
				return true
			case 1:
				s.limits = append(s.limits, len(s.trail))
				continue
			}
		} else if !s.learned {
			for ; from < len(s.value) && next < 0; from++ {
				if s.value[from] == 0 {
					next = lit(from)<<1 | 1
				}
			}
		} else {
			best := -1
			s.work += len(s.value)
			for v := range s.value {
				if s.value[v] == 0 && (best < 0 || s.activity[v] > s.activity[best]) {
					best = v
				}
			}
			if best >= 0 {
				next = lit(best)<<1 | 1
			}
		}
		if next < 0 {
			return false // everything is decided: it can hold
		}
		s.work++
		s.limits = append(s.limits, len(s.trail))
		s.set(next, -1)
	}
	return false
}

// logic turns conditions into clauses. Its atoms are tests: "some value of the
// field satisfies the test". What is known of two tests of one field becomes a
// clause as well.
type logic struct {
	solver
	set   *Set
	yes   lit
	atoms map[string]*atomOf
	order []*atomOf
	nodes map[*node]lit
	there map[string]lit // a field is there
	null  map[string]lit // a field is absent or null
	once  map[string]lit // a field occurs no more than once: assumed, or not
	names []string       // of the fields, in the order of the rule
}

// atomOf is a test on a field.
type atomOf struct {
	field string
	test  *test
	lit   lit
	item  *fieldTest // the one that it stands in, where it is one of alternatives; nil for several
	text  pattern
	done  bool // compared with all others that are done
}

func newLogic(s *Set) *logic {
	l := &logic{
		set: s, atoms: make(map[string]*atomOf), nodes: make(map[*node]lit),
		there: make(map[string]lit), null: make(map[string]lit), once: make(map[string]lit),
	}
	l.weight = 1
	l.yes = l.variable()
	l.add(l.yes)
	return l
}

func (l *logic) and(kids ...lit) lit {
	switch len(kids) {
	case 0:
		return l.yes
	case 1:
		return kids[0]
	}
	out := l.variable()
	if len(l.value) > maxLogic {
		return out // it may be anything, so nothing follows from it
	}
	all := []lit{out}
	for _, k := range kids {
		l.add(out.not(), k)
		all = append(all, k.not())
	}
	l.add(all...)
	return out
}

func (l *logic) or(kids ...lit) lit {
	no := make([]lit, len(kids))
	for i, k := range kids {
		no[i] = k.not()
	}
	return l.and(no...).not()
}

func (l *logic) differ(a, b lit) lit { return l.or(l.and(a, b.not()), l.and(a.not(), b)) }

// atLeast says that n of the literals hold.
func (l *logic) atLeast(n int, kids []lit) lit {
	if n*len(kids) > maxLogic {
		return l.variable()
	}
	row := make([]lit, n+1) // row[i]: i of the literals so far hold
	for i := range row {
		row[i] = l.yes.not()
	}
	row[0] = l.yes
	for _, k := range kids {
		for i := n; i > 0; i-- {
			row[i] = l.or(row[i], l.and(row[i-1], k))
		}
	}
	return row[n]
}

// ofNode returns a condition of tests.
func (l *logic) ofNode(n *node) lit {
	if have, ok := l.nodes[n]; ok {
		return have
	}
	var out lit
	if n.op == nodeTest {
		out = l.ofItem(n.test)
	} else {
		kids := make([]lit, len(n.kids))
		for i, k := range n.kids {
			kids[i] = l.ofNode(k)
		}
		switch n.op {
		case nodeNot:
			out = kids[0].not()
		case nodeAnd:
			out = l.and(kids...)
		case nodeOr:
			out = l.or(kids...)
		default:
			out = l.atLeast(n.n, kids)
		}
	}
	l.nodes[n] = out
	return out
}

func (l *logic) ofItem(ft *fieldTest) lit {
	var out lit
	if ft.exists {
		if out = l.present(ft.field); !ft.want {
			out = out.not()
		}
	} else {
		groups := make([]lit, len(ft.groups))
		for i, g := range ft.groups {
			one := make([]lit, len(g))
			for k := range g {
				one[k] = l.ofTest(ft, &g[k])
			}
			groups[i] = l.or(one...)
		}
		if ft.all {
			out = l.and(groups...)
		} else {
			out = l.or(groups...)
		}
	}
	if ft.negate {
		out = out.not()
	}
	return out
}

func (l *logic) present(field string) lit {
	if _, ok := l.there[field]; !ok {
		l.there[field], l.null[field], l.once[field] = l.variable(), l.variable(), l.variable()
		l.names = append(l.names, field)
		l.add(l.there[field], l.null[field])
	}
	return l.there[field]
}

func (l *logic) ofTest(ft *fieldTest, t *test) lit {
	if ft.field != "" {
		there := l.present(ft.field)
		switch t.kind {
		case testPresent:
			return there
		case testNull:
			return l.null[ft.field]
		}
	}
	key := string(t.appendKey(appendText(nil, ft.field)))
	a := l.atoms[key]
	if a == nil {
		a = &atomOf{field: ft.field, test: t, lit: l.variable(), item: ft}
		a.text = l.pattern(t)
		l.atoms[key] = a
		l.order = append(l.order, a)
		if ft.field != "" {
			l.add(a.lit.not(), l.there[ft.field])
			l.add(l.once[ft.field].not(), a.lit.not(), l.null[ft.field].not())
		}
	}
	if a.item != ft || ft.all {
		a.item = nil
	}
	return a.lit
}

// compare adds what is known of the tests of each field. Alternatives of one
// item are not compared: that one of them covers another changes nothing.
func (l *logic) compare() {
	byField := make(map[string][]*atomOf)
	for _, a := range l.order {
		byField[a.field] = append(byField[a.field], a)
	}
	for _, field := range append(l.names, "") {
		atoms := byField[field]
		if len(atoms) > maxAtoms {
			continue
		}
		for i, a := range atoms {
			for _, b := range atoms[i+1:] {
				if a.done && b.done || a.item != nil && a.item == b.item {
					continue
				}
				if l.work += 1 + len(a.text.with) + len(b.text.with); l.work > maxWork {
					return
				}
				if a.implies(b) {
					l.add(a.lit.not(), b.lit)
				}
				if b.implies(a) {
					l.add(b.lit.not(), a.lit)
				}
				if field != "" && a.excludes(b) {
					l.add(l.once[field].not(), a.lit.not(), b.lit.not())
				}
			}
		}
	}
	for _, a := range l.order {
		a.done = true
	}
}

// pattern is what is known of the values that a test takes.
type pattern struct {
	known bool
	exact bool // one text, the folded or, with cased, the raw one
	// with holds the literals and a gap where any text may stand; folded is the
	// same without case.
	with, folded []byte
	head, tail   []byte     // folded; what each value begins and ends with
	sets         [][]string // of a regular expression: each value holds one of each set
}

// gap stands for any text in a pattern. It is no UTF-8, and a literal that holds
// it is not compared.
const gap = '\xff'

func (l *logic) pattern(t *test) (p pattern) {
	switch t.kind {
	case testRegex:
		p.sets = newSieve(t.re.String()).sets
		return p
	case testExact:
		p.exact, p.with = true, t.lit
	case testPrefix:
		p.with = append(slices.Clone(t.lit), gap)
	case testSuffix:
		p.with = append([]byte{gap}, t.lit...)
	case testContains:
		p.with = append(append([]byte{gap}, t.lit...), gap)
	case testGlob:
		for _, a := range t.atoms {
			if a.kind == partText {
				p.with = append(p.with, a.lit...)
			} else {
				p.with = append(p.with, gap)
			}
		}
	default:
		return p
	}
	gaps := 0
	for _, lit := range t.literals() {
		gaps += bytes.Count(lit, []byte{gap})
		if t.cased && !utf8.Valid(lit) {
			return pattern{} // folding may not respect its ends
		}
		if l.set.opaque != nil {
			if start, _ := l.set.opaque(lit); start >= 0 {
				return pattern{} // a token inside a literal is not looked into
			}
		}
	}
	if gaps > 0 {
		return pattern{}
	}
	p.known = true
	for i, part := range bytes.Split(p.with, []byte{gap}) {
		if i > 0 {
			p.folded = append(p.folded, gap)
		}
		p.folded = appendFold(p.folded, part)
	}
	p.head, p.tail = p.folded, p.folded
	if i := bytes.IndexByte(p.folded, gap); i >= 0 {
		p.head = p.folded[:i]
		p.tail = p.folded[bytes.LastIndexByte(p.folded, gap)+1:]
	}
	return p
}

// literals returns the texts of a test on texts.
func (t *test) literals() [][]byte {
	if t.kind != testGlob {
		return [][]byte{t.lit}
	}
	var out [][]byte
	for _, a := range t.atoms {
		if a.kind == partText {
			out = append(out, a.lit)
		}
	}
	return out
}

// takes reports whether a literal test takes a text, folded unless the test is
// cased.
func (t *test) takes(b []byte) bool {
	if t.kind == testGlob {
		return text{b: b}.glob(t.atoms)
	}
	return text{b: b}.holds(t.kind, t.lit)
}

// oneCharacter reports whether a test counts characters: a gap is not one.
func (t *test) oneCharacter() bool {
	return slices.ContainsFunc(t.atoms, func(a atom) bool { return a.kind == partOne })
}

// uncased reports whether a folded text has one form only.
func uncased(b []byte) bool {
	for _, r := range string(b) {
		if r == utf8.RuneError || unicode.SimpleFold(r) != r {
			return false
		}
	}
	return true
}

// raw returns the one value, as it is in the event, that a test takes.
func (a *atomOf) raw() ([]byte, bool) {
	if a.text.known && a.text.exact && (a.test.cased || uncased(a.text.folded)) {
		return a.text.with, true
	}
	return nil, false
}

// implies reports that each value which satisfies a satisfies b.
func (a *atomOf) implies(b *atomOf) bool {
	p := &a.text
	switch b.test.kind {
	case testExact, testPrefix, testSuffix, testContains, testGlob:
		if !b.text.known {
			return false
		}
		if a.test.kind == testRegex && b.test.kind == testContains && !b.test.cased {
			return slices.ContainsFunc(p.sets, func(set []string) bool {
				return !slices.ContainsFunc(set, func(s string) bool { return !bytes.Contains([]byte(s), b.test.lit) })
			})
		}
		if !p.known || !p.exact && b.test.oneCharacter() {
			return false
		}
		if !b.test.cased {
			return b.test.takes(p.folded)
		}
		raw, one := a.raw()
		return a.test.cased && b.test.takes(p.with) || one && b.test.takes(raw)
	case testRegex:
		raw, ok := a.raw()
		return ok && b.test.re.Match(raw)
	case testCIDR:
		if a.test.kind == testCIDR {
			return b.test.prefix.Bits() <= a.test.prefix.Bits() && b.test.prefix.Contains(a.test.prefix.Addr())
		}
		return p.known && p.exact && !bytes.Contains(p.folded, []byte("%")) && b.test.prefix.Contains(parseAddr(p.folded))
	case testCompare:
		if p.known && p.exact {
			n, ok := parseNumber(p.folded)
			return ok && b.test.compares(n)
		}
	}
	return false
}

// excludes reports that no value satisfies both a and b.
func (a *atomOf) excludes(b *atomOf) bool {
	if !a.text.exact && b.text.exact {
		a, b = b, a
	}
	p, q := &a.text, &b.text
	if p.known && p.exact {
		switch b.test.kind {
		case testExact, testPrefix, testSuffix, testContains, testGlob:
			if !q.known {
				return false
			}
			if !b.test.cased {
				return !b.test.takes(p.folded)
			}
			if raw, ok := a.raw(); ok {
				return !b.test.takes(raw)
			}
		case testRegex:
			raw, ok := a.raw()
			return ok && !b.test.re.Match(raw)
		case testCIDR:
			return !bytes.Contains(p.folded, []byte("%")) && !b.test.prefix.Contains(parseAddr(p.folded))
		case testCompare:
			n, ok := parseNumber(p.folded)
			return !ok || !b.test.compares(n)
		}
	}
	if p.known && q.known {
		heads := !bytes.HasPrefix(p.head, q.head) && !bytes.HasPrefix(q.head, p.head)
		tails := !bytes.HasSuffix(p.tail, q.tail) && !bytes.HasSuffix(q.tail, p.tail)
		return heads || tails
	}
	if a.test.kind != b.test.kind {
		return false
	}
	switch a.test.kind {
	case testCIDR:
		return !a.test.prefix.Overlaps(b.test.prefix)
	case testTime:
		return a.test.part == b.test.part && a.test.want != b.test.want
	case testCompare:
		return apart(a.test, b.test) || apart(b.test, a.test)
	}
	return false
}

func (t *test) compares(n number) bool {
	c := n.compare(t.num)
	switch t.op {
	case "lt":
		return c < 0
	case "lte":
		return c <= 0
	case "gt":
		return c > 0
	}
	return c >= 0
}

// apart reports that nothing is below what one test names and above what the
// other does. Numbers that a float cannot hold exactly are not compared.
func apart(below, above *test) bool {
	const exact = 1 << 53
	x, y := below.num.f, above.num.f
	if x <= -exact || x >= exact || y <= -exact || y >= exact || below.op[0] != 'l' || above.op[0] != 'g' {
		return false
	}
	return y > x || y == x && (below.op == "lt" || above.op == "gt")
}
