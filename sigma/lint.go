package sigma

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Lint says what authors probably did not mean: what Warnings says, and what a
// closer look at the rules of the set finds. It takes less than a millisecond for
// most rules, and changes nothing. The warnings come in the order of their places.
//
// What it says of impossible, contradicting and needless parts is proved: from the
// condition, and from what is known of two tests of one field (equal texts, one
// text inside the other, different beginnings, apart numbers and networks). Where
// the proof is too long, and of what it cannot compare, it says nothing. A text of
// a rule in which Options.Opaque finds a token is not compared.
//
// What CheckSchema says is left to it.
func (s *Set) Lint() []Warning {
	var out []Warning
	for _, w := range s.warnings {
		if w.Class != ClassSchema {
			out = append(out, w)
		}
	}
	for _, r := range slices.Concat(s.filters, s.rules) {
		l := newLint(s, r)
		l.searches()
		l.condition()
		out = append(out, l.out...)
	}
	out = append(out, s.lintCost()...)
	out = append(out, s.lintDuplicates()...)
	slices.SortStableFunc(out, func(a, b Warning) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Class, b.Class))
	})
	return out
}

// lint looks at the logic of one rule. Each search identifier is a free variable,
// tied to what it stands for only where that is assumed: so a question about the
// condition alone and one about the whole rule are asked of the same clauses.
type lint struct {
	*logic
	rule  *Rule
	roots []*node // of the search identifiers, untouched by sharing
	free  []lit
	ties  []lit
	mean  []lit // what each search identifier stands for
	said  []bool
	out   []Warning
}

func newLint(s *Set, r *Rule) *lint {
	l := &lint{logic: newLogic(s), rule: r, said: make([]bool, len(r.searches))}
	language := &Set{fields: make(map[string]int32)}
	budget := maxForms
	for i := range r.searches {
		root, f := language.compileBlock(&r.searches[i].block, s.placeholders, &budget)
		if f != nil {
			return &lint{logic: newLogic(s), rule: &Rule{}} // the set would not hold the rule
		}
		l.roots = append(l.roots, root)
		mean, free, tie := l.ofNode(root), l.variable(), l.variable()
		l.add(tie.not(), free.not(), mean)
		l.add(tie.not(), free, mean.not())
		l.mean, l.free, l.ties = append(l.mean, mean), append(l.free, free), append(l.ties, tie)
	}
	l.compare()
	return l
}

func (l *lint) say(class Class, line, col int, format string, args ...any) {
	l.out = append(l.out, l.rule.warning(class, line, col, format, args...))
}

// searches asks of each search identifier alone, and of each of its alternatives,
// whether it can be true and whether it can be false.
func (l *lint) searches() {
	for i := range l.rule.searches {
		s := &l.rule.searches[i]
		what := "the search identifier " + quoted(s.name)
		if l.said[i] = l.alone(l.mean[i], s.line, s.col, what); !l.said[i] {
			l.alternatives(&s.block, l.roots[i], "an alternative of "+what)
		}
	}
}

// alone reports whether it said something of a part of a rule.
func (l *lint) alone(part lit, line, col int, what string) bool {
	if l.contradicts(part) {
		l.say(ClassImpossible, line, col, "no event can satisfy %s", what)
	} else if fields, ok := l.repeated(part); ok {
		l.say(ClassContradiction, line, col, "no event can satisfy %s, unless %s more than once in it", what, occurs(fields))
	} else if l.contradicts(part.not()) {
		l.say(ClassAlways, line, col, "every event satisfies %s", what)
	} else {
		return false
	}
	return true
}

// repeated reports whether the assumptions contradict each other where no field
// occurs more than once, and which fields that is about.
func (l *lint) repeated(assumptions ...lit) ([]string, bool) {
	once := make([]lit, len(l.names))
	for i, name := range l.names {
		once[i] = l.once[name]
	}
	once, ok := l.fewest(once, assumptions)
	if !ok {
		return nil, false
	}
	return slices.DeleteFunc(slices.Clone(l.names), func(name string) bool { return !slices.Contains(once, l.once[name]) }), true
}

func occurs(fields []string) string {
	if len(fields) == 1 {
		return "the field " + fields[0] + " occurs"
	}
	return "one of the fields " + listed(fields) + " occurs"
}

// maxParts is the number of fields and of search identifiers up to which each is
// looked at one by one.
const maxParts = 100

// fewest returns few of the parts with which the assumptions contradict each
// other, so that an author sees why.
func (l *lint) fewest(parts, assumptions []lit) ([]lit, bool) {
	if !l.contradicts(slices.Concat(parts, assumptions)...) {
		return nil, false
	}
	if len(parts) <= maxParts {
		for _, p := range slices.Clone(parts) {
			fewer := slices.DeleteFunc(slices.Clone(parts), func(x lit) bool { return x == p })
			if l.contradicts(slices.Concat(fewer, assumptions)...) {
				parts = fewer
			}
		}
	}
	return parts, true
}

// alternatives walks a block and what it was compiled to, see compileBlock.
func (l *lint) alternatives(b *block, n *node, what string) {
	if len(b.any) < 2 {
		return
	}
	if len(b.items) > 0 {
		n = n.kids[len(n.kids)-1]
	}
	for i := range b.any {
		alt := &b.any[i]
		if !l.alone(l.ofNode(n.kids[i]), alt.line, alt.col, what) {
			l.alternatives(alt, n.kids[i], what)
		}
	}
}

// whole returns the condition over search identifiers.
func (l *lint) whole(c *cond, of []lit) lit {
	switch c.op {
	case condName:
		for i := range l.rule.searches {
			if l.rule.searches[i].name == c.name {
				return of[i]
			}
		}
	case condOf:
		var kids []lit
		for i := range l.rule.searches {
			if selects(c.name, l.rule.searches[i].name) {
				kids = append(kids, of[i])
			}
		}
		switch c.n {
		case 0:
			return l.and(kids...)
		case 1:
			return l.or(kids...)
		}
		return l.atLeast(c.n, kids)
	}
	kids := make([]lit, len(c.kids))
	for i, k := range c.kids {
		kids[i] = l.whole(k, of)
	}
	switch c.op {
	case condNot:
		return kids[0].not()
	case condAnd:
		return l.and(kids...)
	}
	return l.or(kids...)
}

// condition asks whether the rule can be true and false, and which search
// identifiers make no difference to it.
func (l *lint) condition() {
	r := l.rule
	if r.condition == nil {
		return
	}
	holds := l.whole(r.condition, l.free)
	class, text := ClassImpossible, "no event can satisfy the condition"
	names, never := l.core(holds)
	if !never {
		var fields []string
		if fields, never = l.repeated(slices.Concat(l.ties, []lit{holds})...); never {
			class, text = ClassContradiction, text+", unless "+occurs(fields)+" more than once in it"
			names, never = l.core(l.onceOf(fields, holds)...)
		}
	}
	if never {
		switch len(names) {
		case 0:
			text += ", whatever its search identifiers say"
		case 1:
			text += ": what it asks of " + names[0] + " is impossible"
		default:
			text += ": what it asks of " + listed(names) + " together is impossible"
		}
		l.say(class, r.conditionLine, r.conditionCol, "%s", text)
		return
	}
	if names, ok := l.core(holds.not()); ok {
		text := "every event satisfies the condition"
		if len(names) == 0 {
			text += ", whatever its search identifiers say"
		} else {
			text += ", for what it asks of " + listed(names)
		}
		l.say(ClassAlways, r.conditionLine, r.conditionCol, "%s", text)
		return
	}
	l.needless(holds)
	l.filters(holds)
}

// onceOf adds to the assumptions that the fields do not repeat.
func (l *lint) onceOf(fields []string, assumptions ...lit) []lit {
	for _, name := range fields {
		assumptions = append(assumptions, l.once[name])
	}
	return assumptions
}

// core returns the search identifiers for which the assumptions contradict each
// other.
func (l *lint) core(assumptions ...lit) ([]string, bool) {
	ties, ok := l.fewest(l.ties, assumptions)
	if !ok {
		return nil, false
	}
	var names []string
	for i, t := range l.ties {
		if slices.Contains(ties, t) {
			names = append(names, quoted(l.rule.searches[i].name))
		}
	}
	return names, true
}

// needless finds the search identifiers without which the rule says the same. Of
// two that say the same only one is needless: so the rule must say the same
// without this one, and without this one and all that were found before, from the
// last to the first.
func (l *lint) needless(holds lit) {
	r := l.rule
	if len(r.searches) < 2 || len(r.searches) > maxParts {
		return
	}
	used := make(map[string]bool)
	if r.resolve(r.condition, 0, used) != nil {
		return
	}
	of := slices.Clone(l.free)
	for i := len(of) - 1; i >= 0; i-- {
		name := r.searches[i].name
		if !used[name] || l.said[i] || l.work > maxWork {
			continue
		}
		for _, fixed := range []lit{l.yes, l.yes.not()} {
			alone, without := slices.Clone(l.free), slices.Clone(of)
			alone[i], without[i] = fixed, fixed
			same := l.differ(holds, l.whole(r.condition, alone))
			text := "the search identifier " + quoted(name) + " makes no difference to the rule"
			names, ok := l.core(same)
			var fields []string
			if !ok {
				if fields, ok = l.repeated(slices.Concat(l.ties, []lit{same})...); !ok {
					continue
				}
				names, _ = l.core(l.onceOf(fields, same)...)
				text += ", unless " + occurs(fields) + " more than once in an event"
			}
			if _, ok := l.repeated(slices.Concat(l.ties, []lit{l.differ(holds, l.whole(r.condition, without))})...); !ok {
				continue
			}
			others := slices.DeleteFunc(names, func(n string) bool { return n == quoted(name) })
			switch {
			case len(others) > 0:
				text += ": its answer follows from " + listed(others)
			case len(names) == 0:
				text += ", whatever it asks: the others decide"
			}
			l.say(ClassDead, r.searches[i].line, r.searches[i].col, "%s", text)
			of = without
			break
		}
	}
}

// filters asks whether a filter leaves anything of the rule.
func (l *lint) filters(holds lit) {
	for _, f := range l.set.filters {
		if l.rule.Filter || !f.filters(l.rule) {
			continue
		}
		language := &Set{fields: make(map[string]int32)}
		root, fault := language.compileRule(f, l.set.placeholders)
		if fault != nil {
			continue
		}
		keeps := l.ofNode(root)
		l.compare()
		if l.contradicts(append(slices.Clone(l.ties), holds, keeps)...) {
			l.out = append(l.out, f.warning(ClassImpossible, f.conditionLine, f.conditionCol, "the filter leaves nothing of the rule %s", quoted(l.rule.Title)))
		}
	}
}

// lintDuplicates finds rules of one log source that look for the same, and names
// that two rules have.
func (s *Set) lintDuplicates() []Warning {
	var out []Warning
	first, names := make(map[string]*Rule), make(map[string]*Rule)
	for i, r := range s.rules {
		key := string(s.compiled[i].root.appendKey(appendText(appendText(appendText(nil, r.LogSource.Product), r.LogSource.Category), r.LogSource.Service)))
		if have := first[key]; have != nil {
			out = append(out, r.warning(ClassDuplicate, r.Line, 0, "the rule finds what the rule %s finds (%s:%d)", quoted(have.Title), have.Path, have.Line))
		} else {
			first[key] = r
		}
	}
	for _, r := range slices.Concat(s.rules, s.filters, s.correlations.rules) {
		if r.Name == "" {
			continue
		}
		if have := names[r.Name]; have != nil {
			out = append(out, r.warning(ClassDuplicate, r.Line, 0, "the name %s is the name of %s:%d too: a correlation or a filter cannot tell them apart", quoted(r.Name), have.Path, have.Line))
		} else {
			names[r.Name] = r
		}
	}
	return out
}

// appendKey appends what tells a condition from others. The order of what stands
// beside each other in an "and" or an "or" does not.
func (n *node) appendKey(b []byte) []byte {
	b = binary.AppendVarint(append(b, byte(n.op)), int64(n.n))
	if n.test != nil {
		return appendText(b, string(n.test.appendKey(nil)))
	}
	keys := make([]string, len(n.kids))
	for i, k := range n.kids {
		keys[i] = string(k.appendKey(nil))
	}
	if n.op != nodeNot {
		slices.Sort(keys)
	}
	for _, k := range keys {
		b = appendText(b, k)
	}
	return b
}

func quoted(s string) string { return `"` + s + `"` }

func listed(names []string) string {
	const most = 8
	if n := len(names); n > most {
		names = append(slices.Clone(names[:most-1]), strconv.Itoa(n-most+1)+" others")
	}
	if n := len(names); n > 1 {
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
	return strings.Join(names, "")
}

const (
	// spares is the length from which a text spares events: a shorter one is in
	// many of them.
	spares = 3
	// dearFrom is what asking a rule may cost without notice, in comparisons, see the
	// costs of tests: less than a regular expression.
	dearFrom = 150
	// dearSteps is the size of an expression, as steps counts it, that takes seconds
	// for a value of a megabyte.
	dearSteps = 1000
)

// lintCost finds the rules that cost far more than others. What a rule costs is
// decided by its witnesses: a rule with a text of which an event must hold one is
// asked of the few events that do, and costs next to nothing else.
func (s *Set) lintCost() []Warning {
	var out []Warning
	for i, r := range s.rules {
		say := func(format string, args ...any) {
			out = append(out, r.warning(ClassCost, r.conditionLine, r.conditionCol, format, args...))
		}
		c := &s.compiled[i]
		events := "every event"
		if parts := slices.DeleteFunc([]string{r.LogSource.Product, r.LogSource.Category, r.LogSource.Service}, func(p string) bool { return p == "" }); len(parts) > 0 {
			events += " of " + strings.Join(parts, " ")
		}
		w := weigh(c.root)
		if w.steps >= dearSteps {
			say("runs a regular expression of about %d steps: a long value may cost that for each of its characters", w.steps)
			continue
		}
		if w.keywords > 0 {
			if r.LogSource.Category == "" && r.LogSource.Service == "" {
				say("looks for its keywords in every value of %s: a category or a service in logsource would spare the others", events)
				continue
			}
			// One kind of event of an event log has a field for each thing. Elsewhere there
			// may be one text alone, and keywords are the way to look into it.
			kind := slices.ContainsFunc(c.gate.entries, func(e *Entry) bool { return len(e.Channels) > 0 && len(e.EventIDs) > 0 })
			if kind && (c.need == nil || slices.ContainsFunc(c.need.any, func(x witness) bool { return x.field == anyField })) {
				say("looks for its keywords in every value of %s: the names of the fields that hold them would spare the others", events)
				continue
			}
		}
		if w.cost < dearFrom {
			continue
		}
		var poor []string // what lets an event through
		if c.need != nil {
			for _, x := range c.need.any {
				name := "a value"
				if x.field != anyField {
					name = s.names[x.field]
				}
				switch {
				case x.kind == testPresent:
					poor = append(poor, "has the field "+name)
				case x.kind != testExact && len(x.lit) < spares && ascii([]byte(x.lit)):
					poor = append(poor, "holds "+strconv.Quote(x.lit)+" in "+name)
				}
			}
			if len(poor) == 0 {
				continue
			}
		}
		slices.Sort(poor)
		if poor = slices.Compact(poor); len(poor) > 3 {
			poor = append(poor[:2:2], "holds another text as short")
		}
		if len(poor) > 0 {
			events += " that " + strings.Join(poor, " or ")
		}
		say("is asked of %s, because it needs no text of %d bytes or more; each time it %s", events, spares, w)
	}
	return out
}

// least returns what a condition costs when it says no, as nearly always. The
// parts of an "and" are asked from the cheapest to the dearest, see share, and the
// first that says no decides: not a "not", nor one that a field is there.
func least(n *node) int {
	if n.test != nil {
		return n.test.least()
	}
	sum := 0
	for _, k := range n.kids {
		sum += least(k)
		if n.op == nodeAnd && k.decides() {
			break
		}
	}
	return sum
}

// longValue is a length that few values have: an expression for longer ones runs
// seldom.
const longValue = 48

// least returns the cost of an item without the expressions that ask for a long
// value, for which the length answers.
func (ft *fieldTest) least() int {
	cost := ft.cost
	for _, g := range ft.groups {
		for i := range g {
			if t := &g[i]; t.kind == testRegex && (t.sieve.line > 0 || t.sieve.least >= longValue) {
				cost -= costs[testRegex]
			}
		}
	}
	return cost
}

func (n *node) decides() bool {
	switch {
	case n.op == nodeNot:
		return false
	case n.test != nil:
		ft := n.test
		return !ft.negate && !ft.exists && ft.groups[0][0].kind != testPresent
	}
	return slices.ContainsFunc(n.kids, (*node).decides)
}

// weight is what makes a condition dear.
type weight struct{ cost, expressions, keywords, steps int }

func weigh(n *node) weight {
	w := weight{cost: least(n)}
	seen := make(map[*fieldTest]bool)
	var walk func(n *node)
	walk = func(n *node) {
		if ft := n.test; ft != nil && !seen[ft] {
			seen[ft] = true
			if ft.field == "" {
				w.keywords++
			}
			for _, g := range ft.groups {
				for i := range g {
					if t := &g[i]; t.kind == testRegex {
						w.expressions++
						if t.sieve.line == 0 {
							w.steps = max(w.steps, steps(t.re.String()))
						}
					}
				}
			}
		}
		for _, k := range n.kids {
			walk(k)
		}
	}
	walk(n)
	return w
}

func (w weight) String() string {
	var does []string
	if w.keywords > 0 {
		does = append(does, "reads every value of the event")
	}
	switch {
	case w.expressions == 1:
		does = append(does, "may run a regular expression")
	case w.expressions > 1:
		does = append(does, fmt.Sprintf("may run %d regular expressions", w.expressions))
	}
	if len(does) == 0 {
		return fmt.Sprintf("makes %d comparisons", w.cost)
	}
	return strings.Join(does, " and ")
}
