package sigma

import "testing"

// TestWitnessOfAll: where all values must be there, one that can be looked for is
// enough, whatever the others are.
func TestWitnessOfAll(t *testing.T) {
	for keywords, want := range map[string]string{
		`{'|all': ['$', 'schema=Reset']}`: "schema=reset",
		`{'|all': ['$', '?']}`:            "",
		`['$', 'schema=Reset']`:           "",
	} {
		rules, refused := Parse("f", []byte("title: x\nlogsource: {product: p}\ndetection: {k: "+keywords+", condition: k}\n"))
		if len(refused) > 0 {
			t.Fatal(refused[0])
		}
		set, _ := Compile(rules, Options{})
		got := ""
		if n := set.compiled[0].need; n != nil {
			got = n.any[0].lit
		}
		if got != want {
			t.Errorf("%s: the witness is %q, want %q", keywords, got, want)
		}
	}
}
