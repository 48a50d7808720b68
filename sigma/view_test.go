package sigma

import (
	"fmt"
	"slices"
	"testing"
)

// TestAliasesDoNotMix: one event is read in three ways, one for each group of
// rules, and no answer of one way is taken for another.
func TestAliasesDoNotMix(t *testing.T) {
	m := &Mapping{}
	from := []LogSource{{Product: "p"}}
	m.add(Entry{Category: "c1", From: from, Aliases: []Alias{{"Image", "N1"}}})
	m.add(Entry{Category: "c2", From: from, Aliases: []Alias{{"Image", "N2"}}})
	m.add(Entry{Category: "c3", From: from})
	var rules []*Rule
	for _, c := range []string{"c1", "c2", "c3"} {
		for name, item := range map[string]string{"has": "Image|contains: one", "ref": "A|fieldref: Image", "null": "Image: null", "not": "Image|contains|neq: one"} {
			id := c + "-" + name
			some, refused := Parse("f", fmt.Appendf(nil, "title: x\nid: %s\nlogsource: {category: %s}\ndetection: {s: {%s}, condition: s}\n", id, c, item))
			if len(refused) > 0 {
				t.Fatal(refused[0])
			}
			rules = append(rules, some...)
		}
	}
	opt := Options{Mapping: m}
	set, _ := Compile(rules, opt)
	ev := &Event{Source: LogSource{Product: "p"}, Fields: []Field{
		{Name: "A", Value: []byte("one")}, {Name: "N1", Value: []byte("One")}, {Name: "N2", Value: []byte("two")},
	}}
	for range 2 {
		var got []string
		set.Match(ev, func(m Match) { got = append(got, m.Rule.ID) })
		// The item of a field that is not there says no, and its neq yes.
		if want := []string{"c1-has", "c1-ref", "c2-not", "c3-not", "c3-null"}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		sameAnswers(t, set, opt, false, ev)
	}
}
