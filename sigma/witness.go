package sigma

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// A rule's witnesses are literals of which an event must hold at least one, each
// in its field, for the rule to say anything but no. The index looks for the
// witnesses of all rules at once; the rules without a witness in the event are
// not asked.
//
// A witness is a necessary condition and no more: it looks at folded text, not
// at case, and not at opaque tokens. A field that was withheld counts as one that
// holds all its witnesses, because then a rule may answer that it cannot tell.
type witness struct {
	field int32    // anyField for a keyword
	kind  testKind // testExact, testPrefix, testSuffix, testContains or testPresent
	lit   string   // folded; empty for testPresent: any value will do
}

const anyField = -1

// need is a set of witnesses of which one must be there. The cost guesses how
// often one will be there for nothing.
type need struct {
	any  []witness
	cost float64
}

// witnesses finds the needs of rules.
type witnesses struct {
	set   *Set
	items map[*fieldTest]*need
	// uses counts the items that name a literal: what many rules look for is
	// common in events too.
	uses map[witness]int
}

func newWitnesses(s *Set) *witnesses {
	w := &witnesses{set: s, items: make(map[*fieldTest]*need), uses: make(map[witness]int)}
	seen := make(map[*fieldTest]bool)
	var walk func(n *node)
	walk = func(n *node) {
		if ft := n.test; ft != nil && !seen[ft] {
			seen[ft] = true
			id := ft.id
			if ft.field == "" {
				id = anyField
			}
			for _, g := range ft.groups {
				for i := range g {
					if len(g[i].lit) > 0 {
						w.uses[witness{id, g[i].kind, string(g[i].lit)}]++
					}
				}
			}
		}
		for _, k := range n.kids {
			walk(k)
		}
	}
	for i := range s.compiled {
		walk(s.compiled[i].root)
	}
	return w
}

// of returns what a condition needs to be anything but no, or nil when there is
// no such thing.
func (w *witnesses) of(n *node) *need {
	switch n.op {
	case nodeTest:
		if have, ok := w.items[n.test]; ok {
			return have
		}
		out := w.item(n.test)
		w.items[n.test] = out
		return out
	case nodeNot:
		return nil
	}
	var kids []*need
	for _, k := range n.kids {
		if x := w.of(k); x != nil {
			kids = append(kids, x)
		}
	}
	slices.SortStableFunc(kids, func(a, b *need) int { return cmp.Compare(a.cost, b.cost) })
	take := 1 // And: one kid that says no is enough
	switch n.op {
	case nodeOr:
		take = len(n.kids)
	case nodeCount: // at most n-1 may hold outside of those taken
		take = max(1, len(n.kids)-n.n+1)
	}
	if len(kids) < take {
		return nil
	}
	return union(kids[:take])
}

func union(needs []*need) *need {
	if len(needs) == 1 {
		return needs[0]
	}
	out := &need{}
	for _, x := range needs {
		out.any = append(out.any, x.any...)
		out.cost += x.cost
	}
	return out
}

func (w *witnesses) item(ft *fieldTest) *need {
	id := ft.id
	if ft.field == "" {
		id = anyField
	}
	switch {
	case ft.negate || ft.exists && !ft.want:
		return nil
	case ft.exists:
		return w.presence(id)
	}
	var groups []*need
	for _, g := range ft.groups {
		one := make([]*need, len(g))
		for i := range g {
			one[i] = w.test(&g[i], id)
		}
		switch {
		case !slices.Contains(one, nil):
			groups = append(groups, union(one))
		case !ft.all: // null, or a keyword without a literal
			return nil
		}
	}
	if len(groups) == 0 {
		return nil
	}
	if ft.all {
		return slices.MinFunc(groups, func(a, b *need) int { return cmp.Compare(a.cost, b.cost) })
	}
	return union(groups)
}

// presence needs a field to be there, whatever it holds.
func (w *witnesses) presence(id int32) *need {
	if id == anyField {
		return nil
	}
	return &need{[]witness{{id, testPresent, ""}}, 1}
}

func (w *witnesses) test(t *test, id int32) *need {
	switch t.kind {
	case testNull:
		return nil
	case testExact, testPrefix, testSuffix, testContains:
		if t.cased {
			return w.casedLiteral(t, id)
		}
		return w.literal(id, t.kind, string(t.lit))
	case testGlob:
		longest := ""
		for _, a := range t.atoms {
			if lit := string(a.lit); a.kind == partText {
				if t.cased {
					lit = strings.ToLower(longestASCII(lit))
				}
				if len(lit) > len(longest) {
					longest = lit
				}
			}
		}
		return w.literal(id, testContains, longest)
	case testRegex:
		var needs []*need
		for _, lit := range t.sieve.best() {
			needs = append(needs, w.literal(id, testContains, lit))
		}
		if len(needs) == 0 || slices.Contains(needs, nil) {
			return w.presence(id)
		}
		return union(needs)
	}
	return w.presence(id)
}

// casedLiteral takes what is ASCII of a literal that is compared as it is: only
// that is sure to be found in folded text, whatever stands beside it.
func (w *witnesses) casedLiteral(t *test, id int32) *need {
	lit := string(t.lit)
	if ascii := longestASCII(lit); ascii != lit {
		return w.literal(id, testContains, strings.ToLower(ascii))
	}
	return w.literal(id, t.kind, strings.ToLower(lit))
}

func longestASCII(s string) string {
	longest := ""
	for _, run := range strings.FieldsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) {
		if len(run) > len(longest) {
			longest = run
		}
	}
	return longest
}

// minLiteral is the length from which the index can look for a literal inside
// of a value.
const minLiteral = 2

func (w *witnesses) literal(id int32, kind testKind, lit string) *need {
	if kind != testExact && len(lit) < minLiteral {
		return w.presence(id)
	}
	x := witness{id, kind, lit}
	return &need{[]witness{x}, w.cost(x)}
}

// common are the fields that name the kind of an event: their values say little.
var common = []string{"EventID", "Channel", "Provider_Name", "EventType", "type", "eventSource", "action", "Initiated", "LogonType"}

func (w *witnesses) cost(x witness) float64 {
	n := float64(len(x.lit))
	if x.kind == testExact {
		n += 3
	}
	cost := math.Pow(0.7, n)
	if x.field != anyField && slices.Contains(common, w.set.names[x.field]) {
		cost = max(cost, 0.2)
	}
	return cost + 0.0005*float64(w.uses[x])
}
