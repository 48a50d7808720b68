package sigma

import "slices"

// A Test is what a rule asks of one field, as its author wrote it.
type Test struct {
	Field     string   // empty: anywhere in the event
	Modifiers []string // in their order
	Values    []string // with wildcards and escapes; null is the empty text
}

// Tests lists what the rule asks of events, in the order of its document, for those
// who must know what a rule looks for without an event at hand. Search identifiers
// that the condition does not use are listed too. A correlation asks nothing itself.
func (r *Rule) Tests() []Test {
	var out []Test
	var visit func(b *block)
	visit = func(b *block) {
		for i := range b.items {
			t := Test{Field: b.items[i].field, Modifiers: slices.Clone(b.items[i].mods)}
			for _, v := range b.items[i].values {
				t.Values = append(t.Values, v.text)
			}
			out = append(out, t)
		}
		for i := range b.any {
			visit(&b.any[i])
		}
	}
	for i := range r.searches {
		visit(&r.searches[i].block)
	}
	return out
}
