package sigma

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"
)

// lintText compiles a file and says what Lint says of it, one "class line:column
// text" each.
func lintText(t testing.TB, text string) []string {
	t.Helper()
	rules, refused := Parse("r.yml", []byte(text))
	if len(refused) > 0 {
		t.Fatalf("%v\n%s", refused[0], text)
	}
	set, refused := Compile(rules, Options{})
	if len(refused) > 0 {
		t.Fatalf("%v\n%s", refused[0], text)
	}
	var out []string
	for _, w := range set.Lint() {
		out = append(out, fmt.Sprintf("%s %d:%d %s", w.Class, w.Line, w.Column, w.Text))
	}
	return out
}

// detect writes a rule around the lines of a detection.
func detect(lines ...string) string {
	return "title: t\nlogsource: {product: p, category: c}\ndetection:\n  " + strings.Join(lines, "\n  ") + "\n"
}

func TestLint(t *testing.T) {
	const (
		one   = `no event can satisfy the search identifier "s"`
		twice = `, unless the field A occurs more than once in it`
		never = `no event can satisfy the condition`
		every = `every event satisfies the condition`
		dead  = ` makes no difference to the rule`
	)
	for _, c := range []struct {
		name string
		text string
		want []string
	}{
		// Dead search identifiers.
		{"unused", detect("s: {A: 1}", "f: {B: 1}", "condition: s"), []string{`dead-selection 5:3 the condition does not use the search identifier "f"`}},
		{"used by a pattern", detect("s: {A: 1}", "f_1: {B: 1}", "condition: s and not 1 of f_*"), nil},
		{"hidden from them", detect("s: {A: 1}", "_f: {B: 1}", "condition: 1 of them"), []string{`dead-selection 5:3 the condition does not use the search identifier "_f"`}},
		{"absorbed", detect("s: {A: 1}", "f: {B: 1}", "condition: s or s and f"), []string{`dead-selection 5:3 the search identifier "f"` + dead + `, whatever it asks: the others decide`}},
		{"covered filter", detect("s: {A: 1}", "f: {B|startswith: abc}", "g: {B|contains: b}", "condition: s and not 1 of f and not g"),
			[]string{`dead-selection 5:3 the search identifier "f"` + dead + `: its answer follows from "g"`}},
		{"not covered filter", detect("s: {A: 1}", "f: {B|startswith: abc}", "g: {B|contains: d}", "condition: s and not f and not g"), nil},
		{"covered selection", detect("s: {A|contains|all: [xa, ya]}", "f: {A|contains: a}", "condition: s or f"),
			[]string{`dead-selection 4:3 the search identifier "s"` + dead + `: its answer follows from "f"`}},
		{"equal selections, one of them", detect("s: {A: 1}", "f: {A: '1'}", "condition: s or f"),
			[]string{`dead-selection 5:3 the search identifier "f"` + dead + `: its answer follows from "s"`}},
		{"filter of another value", detect("s: {A: 1}", "f: {A: 2}", "condition: s and not f"),
			[]string{`dead-selection 5:3 the search identifier "f"` + dead + `, unless the field A occurs more than once in an event: its answer follows from "s"`}},
		{"filter of the value in other case", detect("s: {A: [x, y]}", "f: {A: X}", "condition: s and not f"), nil},
		{"filter of null", detect("s: {A|contains: x}", "f: {A: null}", "condition: s and not f"),
			[]string{`dead-selection 5:3 the search identifier "f"` + dead + `, unless the field A occurs more than once in an event: its answer follows from "s"`}},
		{"filter of null in another field", detect("s: {A|contains: x}", "f: {B: null}", "condition: s and not f"), nil},

		// Conditions.
		{"never", detect("s: {A: 1}", "condition: s and not s"), []string{"impossible 5:3 " + never + ", whatever its search identifiers say"}},
		{"never by quantity", detect("a1: {A: 1}", "a2: {B: 1}", "condition: all of a* and not 1 of a*"), []string{"impossible 6:3 " + never + ", whatever its search identifiers say"}},
		{"never by number", detect("a1: {A: 1}", "a2: {B: 1}", "a3: {C: 1}", "condition: 2 of a* and not a1 and not a2"), []string{"impossible 7:3 " + never + ", whatever its search identifiers say"}},
		{"possible by number", detect("a1: {A: 1}", "a2: {B: 1}", "a3: {C: 1}", "condition: 2 of a* and not a1"), nil},
		{"never, of many", detect("s1: {A: x}", "s2: {A: x}", "s3: {A: x}", "s4: {A: x}", "s5: {A: x}", "s6: {A: x}", "s7: {A: x}", "s8: {A: x}", "s9: {A: x}",
			"condition: 1 of s* and not s1 and not s2 and not s3 and not s4 and not s5 and not s6 and not s7 and not s8 and not s9"), []string{"impossible 13:3 " + never + ", whatever its search identifiers say"}},
		{"always", detect("s: {A: 1}", "condition: s or not s"), []string{"always 5:3 " + every + ", whatever its search identifiers say"}},
		{"all but one", detect("a1: {A: 1}", "a2: {B: 1}", "condition: 1 of a* and not all of a*"), nil},
		{"filter of the same", detect("s: {A: x}", "f: {A|contains: X}", "condition: s and not f"), []string{`impossible 6:3 ` + never + `: what it asks of "s" and "f" together is impossible`}},
		{"filter of the whole selection", detect("s: [{A: x1}, {A|startswith: x2}]", "f: {A|startswith: x}", "condition: s and not f"), []string{`impossible 6:3 ` + never + `: what it asks of "s" and "f" together is impossible`}},
		{"filter of all but one alternative", detect("s: [{A: x1}, {A|startswith: y2}]", "f: {A|startswith: x}", "condition: s and not f"), nil},
		{"filter of more", detect("s: {A: x, B: y}", "f: {A: x, B: y, C: z}", "condition: s and not f"), nil},
		{"always by null", detect("s: {A: null}", "f: {A|exists: true}", "condition: s or f"), []string{"always 6:3 " + every + `, for what it asks of "s" and "f"`}},

		// Search identifiers.
		{"two values", detect("s: {A|all: [x, y]}", "condition: s"), []string{"contradiction 4:3 " + one + twice, "contradiction 5:3 " + never + twice + `: what it asks of "s" is impossible`}},
		{"two parts", detect("s: {A|contains|all: [x, y]}", "condition: s"), nil},
		{"one value twice", detect("s: {A|all: [x, X]}", "condition: s"), nil},
		{"too short", detect("s: {A: ab, A|endswith: cab}", "condition: s"), []string{"contradiction 4:3 " + one + twice, "contradiction 5:3 " + never + twice + `: what it asks of "s" is impossible`}},
		{"long enough", detect("s: {A: cab, A|endswith: ab}", "condition: s"), nil},
		{"two beginnings", detect("s: {A|startswith: 'C:\\a', A: 'D:*.exe'}", "condition: s"), []string{"contradiction 4:3 " + one + twice, "contradiction 5:3 " + never + twice + `: what it asks of "s" is impossible`}},
		{"two ends", detect("s: {A|endswith: '\\', A: 'C:*.exe'}", "condition: s"), []string{"contradiction 4:3 " + one + twice, "contradiction 5:3 " + never + twice + `: what it asks of "s" is impossible`}},
		{"one end inside the other", detect("s: {A|endswith: '.exe', A: 'C:*e'}", "condition: s"), nil},
		{"numbers apart", detect("s: {A|gt: 5, A|lt: 5}", "condition: s"), []string{"contradiction 4:3 " + one + twice, "contradiction 5:3 " + never + twice + `: what it asks of "s" is impossible`}},
		{"numbers touch", detect("s: {A|gte: 5, A|lte: 5}", "condition: s"), nil},
		{"networks apart", detect("s: {A|cidr: 10.0.0.0/8, A|cidr|all: [10.0.0.0/9, 11.0.0.0/8]}", "condition: s"), []string{"contradiction 4:3 " + one + twice, "contradiction 5:3 " + never + twice + `: what it asks of "s" is impossible`}},
		{"address in network", detect("s: {A: 10.1.2.3}", "f: {A|cidr: 10.0.0.0/8}", "condition: s and not f"), []string{`impossible 6:3 ` + never + `: what it asks of "s" and "f" together is impossible`}},
		{"network in network", detect("s: {A|cidr: 10.0.0.0/16}", "f: {A|cidr: 10.0.0.0/8}", "condition: s and not f"), []string{`impossible 6:3 ` + never + `: what it asks of "s" and "f" together is impossible`}},
		{"network around network", detect("s: {A|cidr: 10.0.0.0/8}", "f: {A|cidr: 10.0.0.0/16}", "condition: s and not f"), nil},
		{"expression", detect("s: {A|re: 'foo(bar|baz)'}", "f: {A|contains: foobar}", "condition: s and not f"), nil},
		{"expression with text", detect("s: {A|re: '(x|y)foobar+'}", "f: {A|contains: oba}", "condition: s and not f"), []string{`impossible 6:3 ` + never + `: what it asks of "s" and "f" together is impossible`}},
		{"cased is narrower", detect("s: {A|cased: Foo}", "f: {A: foo}", "condition: s and not f"), []string{`impossible 6:3 ` + never + `: what it asks of "s" and "f" together is impossible`}},
		{"cased and an expression", detect("s: {A|cased: AB}", "f: {A|re: '^AB$'}", "condition: s and not f"), []string{`impossible 6:3 ` + never + `: what it asks of "s" and "f" together is impossible`}},
		{"cased and an expression in other case", detect("s: {A|cased: AB}", "f: {A|re: '^ab$'}", "t: {B: abc}", "condition: s and not f and t"), []string{`dead-selection 5:3 the search identifier "f"` + dead + `, unless the field A occurs more than once in an event: its answer follows from "s"`}},
		{"uncased is wider", detect("s: {A: foo}", "f: {A|cased: Foo}", "condition: s and not f"), nil},
		{"there and not", detect("s: {A: foo, A|exists: false}", "condition: s"), []string{"impossible 4:3 " + one, "impossible 5:3 " + never + `: what it asks of "s" is impossible`}},
		{"neq", detect("s: {A: foo, A|neq: FOO}", "condition: s"), []string{"impossible 4:3 " + one, "impossible 5:3 " + never + `: what it asks of "s" is impossible`}},
		{"neq other", detect("s: {A|startswith: foo, A|neq: foo}", "condition: s"), nil},
		{"every event", detect("s: [{A: '*'}, {A: null}]", "t: {B: 1}", "condition: s and t"), []string{`always 4:3 every event satisfies the search identifier "s"`}},
		{"alternative", detect("s:", "  - A: x", "  - A: y", "    A|startswith: z", "condition: s"),
			[]string{`contradiction 6:7 no event can satisfy an alternative of the search identifier "s"` + twice}},
		{"question mark", detect("s: {A: 'a?c'}", "f: {A: 'a*c'}", "condition: s and not f"), []string{`impossible 6:3 ` + never + `: what it asks of "s" and "f" together is impossible`}},
		{"question mark the other way", detect("s: {A: 'a*c'}", "f: {A: 'a?c'}", "condition: s and not f"), nil},

		// Filters.
		{"filter document leaves nothing", detect("s: {A: x}", "condition: s") + "---\ntitle: f\nlogsource: {product: p}\nfilter:\n  rules: any\n  selection: {A: x}\n  condition: not selection\n",
			[]string{`impossible 12:3 the filter leaves nothing of the rule "t"`}},
		{"filter document", detect("s: {A: x}", "condition: s") + "---\ntitle: f\nlogsource: {product: p}\nfilter:\n  rules: any\n  selection: {B: x}\n  condition: not selection\n", nil},
		{"filter on the wrong side", detect("s: {A: x}", "condition: s") + "---\ntitle: f\nlogsource: {product: p}\nfilter:\n  rules: any\n  selection: {B: x}\n  condition: selection\n",
			[]string{`filter 12:3 the filter's condition holds no 'not': the filter keeps only the events that it describes`}},
		{"filter for nothing", detect("s: {A: x}", "condition: s") + "---\ntitle: f\nlogsource: {product: q}\nfilter:\n  rules: any\n  selection: {B: x}\n  condition: not selection\n",
			[]string{`filter 7:0 the filter applies to no rule of the set`}},

		// Duplicates.
		{"twins", "id: a\n" + detect("s: {A: x, B: y}", "condition: s") + "---\nid: b\n" + strings.Replace(detect("x: {B: y, A: X}", "condition: x"), "title: t", "title: u", 1),
			[]string{`duplicate 8:0 the rule finds what the rule "t" finds (r.yml:1)`}},
		{"siblings", "id: a\n" + detect("s: {A: x, B: y}", "condition: s") + "---\nid: b\n" + detect("s: {A: x, B: z}", "condition: s"), nil},
		{"twins of another source", "id: a\n" + detect("s: {A: x}", "condition: s") + "---\nid: b\n" + strings.Replace(detect("s: {A: x}", "condition: s"), "category: c", "category: d", 1), nil},
		{"names", "id: a\nname: n\n" + detect("s: {A: x}", "condition: s") + "---\nid: b\nname: n\n" + detect("s: {A: z}", "condition: s"),
			[]string{`duplicate 9:0 the name "n" is the name of r.yml:1 too: a correlation or a filter cannot tell them apart`}},

		// Costs.
		{"no literal", detect("s: {A|re: '[a-z]+[0-9]+'}", "condition: s"),
			[]string{`cost 5:3 is asked of every event of p c that has the field A, because it needs no text of 3 bytes or more; each time it may run a regular expression`}},
		{"literal in the expression", detect("s: {A|re: '[a-z]+abc[0-9]+'}", "condition: s"), nil},
		{"literal beside the expression", detect("s: {A|re: '[a-z]+[0-9]+', B: some}", "condition: s"), nil},
		{"two bytes", detect("s: {A|re: 'ab[0-9]+'}", "condition: s"),
			[]string{`cost 5:3 is asked of every event of p c that holds "ab" in A, because it needs no text of 3 bytes or more; each time it may run a regular expression`}},
		{"two bytes alone", detect("s: {A|endswith: '.a'}", "condition: s"), nil},
		{"large expression", detect("s: {A|re: 'abc.{1,500}def'}", "condition: s"), []string{`cost 5:3 runs a regular expression of about 1007 steps: a long value may cost that for each of its characters`}},
		{"two bytes that are rare", detect("s: {A|re: 'é[0-9]+'}", "condition: s"), nil},
		{"long values only", detect("s: {A|re: '[a-z]{60,}'}", "condition: s"), nil},
		{"not", detect("s: {A|re: 'abc'}", "condition: not s"),
			[]string{`cost 5:3 is asked of every event of p c, because it needs no text of 3 bytes or more; each time it may run a regular expression`}},
		{"cheap", detect("s: {A: abc}", "condition: not s"), nil},
		{"keywords in all of a product", strings.Replace(detect("k: [abcdef]", "condition: k"), ", category: c", "", 1),
			[]string{`cost 5:3 looks for its keywords in every value of every event of p: a category or a service in logsource would spare the others`}},
		{"keywords in a category", detect("k: [abcdef]", "condition: k"), nil},
		{"keywords in an event log", strings.Replace(detect("k: [abcdef]", "s: {A: b}", "condition: k or s"), "product: p, category: c", "product: windows, category: process_creation", 1),
			[]string{`cost 6:3 looks for its keywords in every value of every event of windows process_creation: the names of the fields that hold them would spare the others`}},
		{"keywords beside a field", strings.Replace(detect("k: [ab]", "s: {A: bcdefghi}", "condition: k and s"), "product: p, category: c", "product: windows, category: process_creation", 1), nil},
		{"many comparisons", detect("s: {A|contains: [a, b, c, d, e, f]}", "condition: not s"), nil},
		{"keywords without one", detect("k: ['a?c', abcd]", "condition: not k"),
			[]string{`cost 5:3 is asked of every event of p c, because it needs no text of 3 bytes or more; each time it reads every value of the event`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := lintText(t, c.text); !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s\nof\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"), c.text)
			}
		})
	}
}

// TestSolver: of small random clauses the solver says what trying all values says,
// again and again on the same clauses with other assumptions.
func TestSolver(t *testing.T) {
	rnd := rand.New(rand.NewSource(1))
	contradictions := 0
	for range 3000 {
		s := &solver{weight: 1}
		n := 3 + rnd.Intn(8)
		for range n {
			s.variable()
		}
		random := func() lit { return lit(rnd.Intn(2 * n)) }
		var clauses [][]lit
		for range n * 4 {
			c := []lit{random(), random(), random()}[:1+min(2, rnd.Intn(9))]
			clauses = append(clauses, c)
			s.add(c...)
			if rnd.Intn(3) > 0 {
				continue
			}
			var assumptions []lit
			for range rnd.Intn(4) {
				assumptions = append(assumptions, random())
			}
			can := false
			for values := range 1 << n {
				holds := func(l lit) bool { return values>>(l>>1)&1 != int(l&1) }
				can = can || !slices.ContainsFunc(assumptions, func(l lit) bool { return !holds(l) }) &&
					!slices.ContainsFunc(clauses, func(c []lit) bool { return !slices.ContainsFunc(c, holds) })
			}
			if got := s.contradicts(assumptions...); got == can {
				t.Fatalf("%v with %v: the solver says %v", clauses, assumptions, got)
			}
			if !can {
				contradictions++
			}
		}
	}
	if contradictions < 1000 {
		t.Errorf("%d contradictions", contradictions)
	}
}

func TestListed(t *testing.T) {
	for want, n := range map[string]int{"": 0, "a": 1, "a and b": 2, "a, b, c, d, e, f, g and h": 8, "a, b, c, d, e, f, g and 3 others": 10} {
		if got := listed(strings.Split("abcdefghij", "")[:n]); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// lintHolds holds what Lint says of the logic of rules against events.
func lintHolds(t testing.TB, rules []*Rule, opt Options, events []*Event) (proved int) {
	t.Helper()
	set, _ := Compile(rules, opt)
	Ungate(set)
	constant := func(text string) block {
		r, refused := Parse("c", []byte(detect("s: "+text, "condition: s")))
		if len(refused) > 0 {
			t.Fatal(refused)
		}
		return r[0].searches[0].block
	}
	// ask answers a rule with another condition, or with a search identifier that
	// is always, or never, true.
	ask := func(r *Rule, condition *cond, name, constantText string) []Verdict {
		v := *r
		if condition != nil {
			v.condition = condition
		}
		if constantText != "" {
			v.searches = slices.Clone(r.searches)
			for i := range v.searches {
				if v.searches[i].name == name {
					v.searches[i].block = constant(constantText)
				}
			}
		}
		alone, refused := Compile([]*Rule{&v}, opt)
		if len(refused) > 0 {
			t.Fatal(refused)
		}
		Ungate(alone)
		out := make([]Verdict, len(events))
		for i, ev := range events {
			alone.Match(ev, func(m Match) { out[i] = m.Verdict })
		}
		return out
	}
	repeats := func(ev *Event, text string) bool { // a field that the text names
		seen := make(map[string]bool)
		for _, f := range ev.Fields {
			name := stripSpaces(f.Name)
			if seen[name] && strings.Contains(text, name) {
				return true
			}
			seen[name] = true
		}
		return false
	}
	for _, w := range set.Lint() {
		i := slices.IndexFunc(set.rules, func(r *Rule) bool {
			return r.Path == w.Path && r.Line <= w.Line && r.Key() == (&Rule{ID: w.RuleID, Digest: r.Digest}).Key()
		})
		if i < 0 || strings.Contains(w.Text, "alternative") {
			continue
		}
		r := set.rules[i]
		var condition *cond
		name := ""
		if _, rest, ok := strings.Cut(w.Text, `the search identifier "`); ok {
			for _, s := range r.searches {
				if strings.HasPrefix(rest, s.name+`"`) && len(s.name) >= len(name) {
					name = s.name
				}
			}
			condition = &cond{op: condName, name: name}
		}
		once := strings.Contains(w.Text, "more than once")
		switch w.Class {
		case ClassImpossible, ClassContradiction:
			proved++
			for k, v := range ask(r, condition, "", "") {
				if v == Yes && (!once || !repeats(events[k], w.Text)) {
					t.Fatalf("%s\nand yet %v matches %q", w, r, events[k].Fields)
				}
			}
		case ClassAlways:
			proved++
			for k, v := range ask(r, condition, "", "") {
				if v != Yes {
					t.Fatalf("%s\nand yet %v does not match %q", w, r, events[k].Fields)
				}
			}
		case ClassDead:
			proved++
			is := ask(r, nil, "", "")
			same := func(text string) bool {
				for k, v := range ask(r, nil, name, text) {
					if v != is[k] && (!once || !repeats(events[k], w.Text)) {
						return false
					}
				}
				return true
			}
			if !same("[{A|exists: true}, {A|exists: false}]") && !same("{A|exists: true, A|neq: '*'}") {
				t.Fatalf("%s\nand yet it makes a difference", w)
			}
		}
	}
	return proved
}

// TestLintIsSound: of random rules over few texts, what is said to be impossible
// matches none of many events, what is always true matches all, and what makes no
// difference makes none.
func TestLintIsSound(t *testing.T) {
	rnd := rand.New(rand.NewSource(3))
	pick := func(of ...string) string { return of[rnd.Intn(len(of))] }
	texts := []string{"a", "b", "ab", "ba", "aab", "A", "aB", "", "1", "2", "10", "é", "É", "K", "\u212a", "a*", "*b", "a?", "*a*b*", "\\*"}
	item := func() string {
		field := pick("A", "A", "B")
		value := func() string { return "'" + pick(texts...) + "'" }
		list := func() string {
			out := []string{value()}
			for rnd.Intn(2) > 0 {
				out = append(out, value())
			}
			return "[" + strings.Join(out, ", ") + "]"
		}
		switch rnd.Intn(12) {
		case 0:
			return field + ": null"
		case 1:
			return field + "|exists: " + pick("true", "false")
		case 2:
			return field + "|" + pick("lt", "lte", "gt", "gte") + ": " + pick("1", "2", "2.5", "10")
		case 3:
			return field + "|re" + pick("", "|i") + ": '" + pick("a", "ab", "^a", "b$", "^(a|b)$", "a.b", "[ab]+", "(aa|ab)b?", "^\\d+$", "k") + "'"
		case 4:
			return field + "|neq: " + value()
		case 5:
			return field + "|cased" + pick("", "|contains", "|startswith") + ": " + list()
		case 6:
			return field + "|contains|all: ['" + pick("a", "b", "ab") + "', " + value() + "]"
		case 7:
			return field + "|all: [" + value() + ", " + value() + "]"
		case 8:
			return field + "|" + pick("cidr: 10.0.0.0/8", "cidr: 10.1.0.0/16", "cidr: ::/0", "fieldref: B", "fieldref|contains: A", "minute: 3", "hour: 4")
		}
		return field + pick("", "|contains", "|startswith", "|endswith") + ": " + list()
	}
	block := func() string {
		m := func() string {
			a, b := item(), item()
			if rnd.Intn(2) > 0 || strings.Split(a, ":")[0] == strings.Split(b, ":")[0] {
				return "{" + a + "}"
			}
			return "{" + a + ", " + b + "}"
		}
		switch rnd.Intn(6) {
		case 0:
			return "[" + m() + ", " + m() + "]"
		case 1:
			return "['" + pick("a", "ab", "b", "1") + "', '" + pick("a", "ab", "b*a") + "']"
		}
		return m()
	}
	var condition func(depth int) string
	condition = func(depth int) string {
		if depth == 0 || rnd.Intn(4) == 0 {
			return pick("s1", "s2", "t1", "1 of s*", "all of s*", "2 of them", "1 of them")
		}
		switch rnd.Intn(3) {
		case 0:
			return "not (" + condition(depth-1) + ")"
		case 1:
			return "(" + condition(depth-1) + ") or (" + condition(depth-1) + ")"
		}
		return "(" + condition(depth-1) + ") and (" + condition(depth-1) + ")"
	}
	token := func(b []byte) (int, int) {
		if i := strings.Index(string(b), "p1_"); i >= 0 && i+7 <= len(b) {
			return i, i + 7
		}
		return -1, -1
	}
	opt := Options{Opaque: token}
	values := []string{"p1_aaaa", "ap1_abab", "ap1_bbbbb", "p1_b", "a", "b", "ab", "ba", "aab", "abb", "A", "AB", "", "1", "2", "2.5", "10", "10.1.2.3", "10.2.0.1", "::1", "\u00e9", "\u00c9", "k", "\u212a", "*", "2024-01-02T04:03:00Z", "xaxbx", "0x1", "\xff"}
	var events []*Event
	for range 400 {
		ev := &Event{Source: LogSource{Product: "p", Category: "c"}}
		for _, name := range []string{"A", "B"} {
			for rnd.Intn(5) < 3 {
				kind := KindString
				value := []byte(pick(values...))
				if rnd.Intn(8) == 0 {
					kind, value = KindNull, nil
				}
				ev.Fields = append(ev.Fields, Field{Name: name, Kind: kind, Value: value, Addr: AddrClass(rnd.Intn(int(addrClasses)))})
				if rnd.Intn(2) > 0 {
					break
				}
			}
		}
		events = append(events, ev)
	}
	classes, unproved := make(map[Class]int), 0
	for range 500 {
		text := detect("s1: "+block(), "s2: "+block(), "t1: "+block(), "condition: "+condition(2))
		rules, refused := Parse("r", []byte(text))
		if len(refused) > 0 {
			continue // all with equal values, a keyword that is a lone star, ...
		}
		set, _ := Compile(rules, opt)
		never := true
		for _, ev := range events {
			set.Match(ev, func(Match) { never = false })
		}
		for _, w := range set.Lint() {
			classes[w.Class]++
			if w.Class == ClassImpossible || w.Class == ClassContradiction {
				never = false
			}
		}
		if never {
			unproved++
		}
		lintHolds(t, rules, opt, events)
	}
	t.Logf("%v; %d rules match no event and Lint says nothing", classes, unproved)
	for _, c := range []Class{ClassImpossible, ClassContradiction, ClassAlways, ClassDead} {
		if classes[c] < 20 {
			t.Errorf("%d times %s: too few to say anything", classes[c], c)
		}
	}
}

// TestLintHostile: rules that are made to be hard cost a moment, and rules of which
// the proof is too long are left in peace.
func TestLintHostile(t *testing.T) {
	many := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	// No five pigeons of n sit in n-1 holes alone: short to say, and long to prove
	// step by step.
	pigeons := func(n int) string {
		var lines, cond []string
		for p := range n {
			var any []string
			for h := range n - 1 {
				lines = append(lines, fmt.Sprintf("p%dh%d: {F%d_%d: x}", p, h, p, h))
				any = append(any, fmt.Sprintf("p%dh%d", p, h))
				for q := range p {
					cond = append(cond, fmt.Sprintf("not (p%dh%d and p%dh%d)", p, h, q, h))
				}
			}
			cond = append(cond, "("+strings.Join(any, " or ")+")")
		}
		return detect(append(lines, "condition: "+strings.Join(cond, " and "))...)
	}
	for _, c := range []struct{ name, text string }{
		{"search identifiers", detect(many(20000, "s%d: {A: x}\n  ") + "condition: 1 of s*")},
		{"half of them", detect(many(3000, "s%d: {A: x}\n  ") + "condition: 1500 of s*")},
		{"long condition", detect(many(90, "s%d: {A|contains: 'x%[1]d'}\n  ") + "condition: s1" + strings.Repeat(" and not s2 or s3 and s4", 2500))},
		{"values", detect("s: {A: ["+many(40000, "x%d,")+"]}", "t: {A|contains: ["+many(40000, "%d,")+"]}", "condition: s and not t")},
		{"long values", detect("s: {A: ["+strings.Repeat(strings.Repeat("ab", 6000)+"x,", 390)+"b]}", "t: {A|re: ["+many(390, "'(a|b)*%d$',")+"]}", "condition: s and not t")},
		{"expressions", detect("s: {A|re: ["+many(1900, "'[a-z]+%d',")+"]}", "condition: s")},
		{"dashes", detect("s: {A|windash: ["+many(10, "-a -b -c -d -e%d,")+"]}", "t: {A|windash|contains: -b -c}", "condition: s and not t")},
		{"few pigeons", pigeons(4)},
		{"pigeons", pigeons(12)},
	} {
		start := time.Now()
		got := lintText(t, c.text)
		d := time.Since(start)
		t.Logf("%s: %d warnings after %v", c.name, len(got), d)
		if d > 30*time.Second {
			t.Errorf("%s: %v", c.name, d)
		}
		impossible := len(got) > 0 && strings.HasPrefix(got[len(got)-1], "impossible")
		if c.name == "few pigeons" && !impossible || c.name == "pigeons" && impossible {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// FuzzLint: Lint says something of whatever Parse takes, the same each time, and
// what it says holds for the event.
func FuzzLint(f *testing.F) {
	for i, s := range seedRules(f) {
		f.Add(s, fmt.Sprintf("A\x00p1_aaaaaaaa\x01B\x00user%d\x01A\x00\x01Image\x00C:\\x.exe", i))
	}
	f.Add(detect("s: {A: x}", "f: {A|contains: X}", "condition: s and not f"), "A\x00x")
	f.Add(detect("s: {A: null, B: ['*', '?']}", "f: {A|re: '^a|b$'}", "condition: s or not f"), "A\x00ab\x01B\x00")
	f.Add(detect("s: {A|all: [a, b]}", "f: {A|lt: 3, A|gt: 4}", "condition: 1 of them"), "A\x00a\x01A\x00b")
	f.Fuzz(func(t *testing.T, rule, event string) {
		rules, _ := Parse("f", []byte(rule))
		if len(rules) == 0 {
			return
		}
		opt := Options{
			Placeholders: map[string][]string{"admins": {"adm_*", "root"}, "host": {"srv1"}},
			Opaque: func(b []byte) (int, int) {
				if i := strings.Index(string(b), "p1_"); i >= 0 && i+11 <= len(b) {
					return i, i + 11
				}
				return -1, -1
			},
		}
		set, _ := Compile(rules, opt)
		first, second := set.Lint(), set.Lint()
		if !slices.Equal(first, second) {
			t.Fatalf("%v, and then %v", first, second)
		}
		for _, w := range first {
			if w.Class == "" || w.Text == "" || w.Line < 1 {
				t.Fatalf("%+v", w)
			}
		}
		if len(rules) > 1 {
			return // a filter, or a correlation, changes what a rule says
		}
		ev := &Event{Source: rules[0].LogSource}
		for i, pair := range strings.Split(event, "\x01") {
			name, value, _ := strings.Cut(pair, "\x00")
			ev.Fields = append(ev.Fields, Field{Name: name, Value: []byte(value), Kind: Kind(i % 4)})
		}
		lintHolds(t, rules, opt, []*Event{ev})
	})
}
