package sigma

// MustHold is an item that a rule cannot match without: one of the literals must
// occur in the field.
type MustHold struct {
	Field    string
	Literals []string // folded
}

// MustHolds lists such items, read off the condition alone: those below "and"
// whose values are all literals.
func MustHolds(s *Set, r *Rule) []MustHold {
	var out []MustHold
	var walk func(n *node)
	walk = func(n *node) {
		if n.op == nodeAnd {
			for _, k := range n.kids {
				walk(k)
			}
		}
		ft := n.test
		if ft == nil || ft.negate || ft.exists || ft.field == "" || ft.all {
			return
		}
		x := MustHold{Field: ft.field}
		for _, g := range ft.groups {
			for _, t := range g {
				if len(t.lit) < 2 || t.cased || t.kind > testContains {
					return
				}
				x.Literals = append(x.Literals, string(t.lit))
			}
		}
		out = append(out, x)
	}
	walk(s.compiled[s.index[r]].root)
	return out
}
