package sigma

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
)

// sharing finds the items and tests that rules have in common, so that an event
// is asked each of them once.
type sharing struct {
	items  map[string]*fieldTest
	tests  map[string]int32
	sieves map[string]*sieve // by regular expression
	memos  int32             // answers that an event may need to keep; 0 is none
}

// share replaces the items of a condition by equal ones of earlier rules, gives
// each a place for its answer, and puts first what is cheap to ask. It returns
// what asking all of the condition costs.
func (s *Set) share(n *node) int {
	if s.shared.items == nil {
		s.shared.items = make(map[string]*fieldTest)
		s.shared.tests = make(map[string]int32)
		s.shared.sieves = make(map[string]*sieve)
	}
	if n.op == nodeTest {
		key := string(n.test.appendKey(nil))
		if have := s.shared.items[key]; have != nil {
			n.test = have
			return have.cost
		}
		s.shared.items[key] = n.test
		s.shared.memos++
		n.test.memo = s.shared.memos
		s.shareTests(n.test)
		return n.test.cost
	}
	total := 0
	costs := make(map[*node]int, len(n.kids))
	for _, k := range n.kids {
		costs[k] = s.share(k)
		total += costs[k]
	}
	slices.SortStableFunc(n.kids, func(a, b *node) int { return cmp.Compare(costs[a], costs[b]) })
	return total
}

// costs of asking a test, in comparisons of a few bytes.
var costs = [...]int{
	testContains: 4, testGlob: 8, testRegex: 200, testCIDR: 8, testCompare: 8, testTime: 50, testRef: 8,
}

func (s *Set) shareTests(ft *fieldTest) {
	ft.cost = 1
	if ft.field == "" {
		ft.cost = 500 // reads the whole event
	}
	for _, g := range ft.groups {
		for i := range g {
			t := &g[i]
			ft.cost += 1 + costs[t.kind]
			if t.kind == testRegex {
				expr := t.re.String()
				if s.shared.sieves[expr] == nil {
					s.shared.sieves[expr] = newSieve(expr)
				}
				t.sieve = s.shared.sieves[expr]
			}
			switch t.kind {
			case testRef:
				ft.refs = true
				continue // depends on a second field
			case testContains, testGlob, testRegex, testCIDR, testCompare, testTime:
			default:
				continue // as cheap as looking the answer up
			}
			if ft.field == "" {
				continue // kept by its item, for all fields together
			}
			key := string(t.appendKey(appendText(nil, ft.field)))
			if s.shared.tests[key] == 0 {
				s.shared.memos++
				s.shared.tests[key] = s.shared.memos
			}
			t.memo = s.shared.tests[key]
		}
	}
}

// appendKey appends what tells an item from others: equal keys, equal answers.
func (ft *fieldTest) appendKey(b []byte) []byte {
	b = appendText(b, ft.field)
	b = append(b, flag(ft.exists), flag(ft.want), flag(ft.all), flag(ft.negate))
	b = binary.AppendUvarint(b, uint64(len(ft.groups)))
	for _, g := range ft.groups {
		b = binary.AppendUvarint(b, uint64(len(g)))
		for i := range g {
			b = g[i].appendKey(b)
		}
	}
	return b
}

func (t *test) appendKey(b []byte) []byte {
	b = append(b, byte(t.kind), flag(t.cased), byte(t.part), byte(t.how))
	b = appendText(b, string(t.lit))
	b = binary.AppendUvarint(b, uint64(len(t.atoms)))
	for _, a := range t.atoms {
		b = appendText(append(b, byte(a.kind)), string(a.lit))
	}
	if t.re != nil {
		b = appendText(b, t.re.String())
	}
	if t.prefix.IsValid() {
		b = appendText(b, t.prefix.String())
	}
	b = appendText(b, t.op)
	b = append(b, flag(t.num.whole), flag(t.num.neg))
	b = binary.AppendUvarint(b, t.num.mag)
	b = binary.AppendUvarint(b, math.Float64bits(t.num.f))
	b = binary.AppendVarint(b, int64(t.want))
	return appendText(b, t.ref)
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func flag(v bool) byte {
	if v {
		return 1
	}
	return 0
}
