package access_test

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/query"
	"github.com/counterseal/counterseal/rules"
	"github.com/counterseal/counterseal/sigma"
)

// conditions are those of the table's questions.
func conditions(t testing.TB) []*query.Query {
	var out []*query.Query
	for _, r := range table(t) {
		switch r.form {
		case "search", "statistics", "saved", "export", "suppression", "hold":
			out = append(out, parseQuery(t, expand(r.question)))
		}
	}
	return out
}

func or(a, b query.Expr) query.Expr {
	var of []query.Expr
	for _, e := range []query.Expr{a, b} {
		if o, ok := e.(query.Or); ok {
			of = append(of, o.Of...)
		} else {
			of = append(of, e)
		}
	}
	return query.Or{Of: of}
}

// TestOrNeverMilder: whatever is asked, one more alternative loses no class, no
// person and no protected channel.
func TestOrNeverMilder(t *testing.T) {
	o := options(t)
	all := conditions(t)
	n := 0
	check := func(a, b query.Query, ask func(*query.Query) access.Question) {
		n++
		v, w := access.Selects(ask(&a), o), access.Selects(ask(&b), o)
		if !w.Class.Has(v.Class) || w.Persons < v.Persons || v.Many && !w.Many || v.Protected && !w.Protected || v.Veil && !w.Veil && !w.Class.Has(access.Reverse) {
			t.Fatalf("%v %d becomes %v %d\n%s\n%s", v.Class, v.Persons, w.Class, w.Persons, a.String(), b.String())
		}
	}
	search := func(q *query.Query) access.Question { return access.Search{Query: q} }
	export := func(q *query.Query) access.Question { return access.Export{Query: q} }
	rng := rand.New(rand.NewPCG(1, 2)) // a third of the pairs
	for _, a := range all {
		if a.Where == nil {
			continue
		}
		for _, b := range all {
			if b.Where == nil || rng.IntN(3) != 0 {
				continue
			}
			wide := *a
			wide.Where = or(a.Where, b.Where)
			check(*a, wide, search)
			if rng.IntN(8) == 0 {
				check(*a, wide, export)
				// Inside, beside a third condition.
				c := all[rng.IntN(len(all))]
				if c.Where != nil {
					x, y := *a, *a
					x.Where = query.And{Of: []query.Expr{c.Where, a.Where}}
					y.Where = query.And{Of: []query.Expr{c.Where, wide.Where}}
					check(x, y, search)
				}
			}
		}
	}
	t.Logf("%d pairs", n)
}

// turned reverses the members of every and, or and list.
func turned(e query.Expr) query.Expr {
	each := func(of []query.Expr) []query.Expr {
		out := make([]query.Expr, len(of))
		for i, x := range of {
			out[len(of)-1-i] = turned(x)
		}
		return out
	}
	switch e := e.(type) {
	case query.And:
		return query.And{Of: each(e.Of)}
	case query.Or:
		return query.Or{Of: each(e.Of)}
	case query.Not:
		return query.Not{Of: turned(e.Of)}
	case query.OneOf:
		e.Of = slices.Clone(e.Of)
		slices.Reverse(e.Of)
		return e
	}
	return e
}

// upper writes every literal in capitals, where the field is not a word of the row.
func upper(e query.Expr) query.Expr {
	each := func(of []query.Expr) []query.Expr {
		out := make([]query.Expr, len(of))
		for i, x := range of {
			out[i] = upper(x)
		}
		return out
	}
	pattern := func(p query.Pattern) query.Pattern {
		parts := slices.Clone(p.Parts)
		for i := range parts {
			parts[i].Text = strings.ToUpper(parts[i].Text)
		}
		return query.Pattern{Parts: parts}
	}
	switch e := e.(type) {
	case query.And:
		return query.And{Of: each(e.Of)}
	case query.Or:
		return query.Or{Of: each(e.Of)}
	case query.Not:
		return query.Not{Of: upper(e.Of)}
	case query.Equal:
		if e.Field != "kind" && e.Field != "finding.id" && e.Field != "rule.id" {
			e.Pattern = pattern(e.Pattern)
		}
		return e
	case query.Phrase:
		e.Text = strings.ToUpper(e.Text)
		return e
	case query.OneOf:
		e.Of = slices.Clone(e.Of)
		for i := range e.Of {
			e.Of[i] = pattern(e.Of[i])
		}
		return e
	}
	return e
}

// TestFormDoesNotMatter: order, quotes and case of a question change nothing.
func TestFormDoesNotMatter(t *testing.T) {
	o := options(t)
	all := conditions(t)
	for _, q := range all {
		for _, other := range all[:40] {
			both := *q
			if q.Where != nil && other.Where != nil {
				both.Where = query.And{Of: []query.Expr{q.Where, other.Where}}
			}
			want := access.Selects(access.Search{Query: &both}, o)
			for name, e := range map[string]query.Expr{"order": turned(both.Where), "case": upper(both.Where)} {
				changed := both
				changed.Where = e
				if got := access.Selects(access.Search{Query: &changed}, o); !reflect.DeepEqual(got, want) {
					t.Fatalf("%s matters: %s\n%+v\n%+v", name, both.String(), got, want)
				}
			}
		}
		printed, err := query.Parse(q.String())
		if err != nil {
			t.Fatal(err)
		}
		want := access.Selects(access.Search{Query: q}, o)
		if got := access.Selects(access.Search{Query: printed}, o); !reflect.DeepEqual(got, want) {
			t.Errorf("print matters: %s", q.String())
		}
	}
}

// TestReasonsHoldNoValue: what was typed never comes back in a refusal.
func TestReasonsHoldNoValue(t *testing.T) {
	o := options(t)
	for _, r := range table(t) {
		v := access.Selects(build(t, r.form, r.question), o)
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if v.Class != access.Nobody && len(v.Reasons) == 0 {
			t.Errorf("line %d: no reason", r.line)
		}
		for _, planted := range []string{"alice", "cunningham", "qqqq", "union.example", "oig", "ws-17", "ws17", "10.1.2", "1104", "555"} {
			if strings.Contains(strings.ToLower(string(text)), planted) {
				t.Errorf("line %d: the verdict repeats %q: %s", r.line, planted, text)
			}
		}
	}
}

// TestOwnRules: the rules that we ship look for malice and select nobody.
func TestOwnRules(t *testing.T) {
	all, err := rules.All()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, r := range all {
		n++
		if v := access.Selects(access.Rule{Rule: r, Published: true}, options(t)); v.Class != access.Nobody {
			t.Errorf("%s selects %v: %s", r.Path, v.Class, why(v))
		}
	}
	if n < 20 {
		t.Errorf("%d rules", n)
	}
}

// TestCombine: two harmless halves are one question.
func TestCombine(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		a, b  string
		class string
	}{
		{"query.hostname = union.example | stats count() by bin(1m)", "class_uid = 4003 | fields time, user.uid", "reverse"},
		{"class_uid = 4003 | fields time, user.uid", "query.hostname = union.example | stats count() by bin(1m)", "reverse"},
		{"query.hostname = union.example | stats count()", "last 1h | stats count() by device.hostname", "reverse"},
		{"query.hostname = union.example last 1h | stats count()", "time < 2026-11-24 | stats count() by device.hostname", "nobody"},
		{"class_uid = 4003 and query.hostname = union.example | stats count()", "class_uid = 3002 | top 5 by user.uid", "nobody"},
		{"dataset = zeek-dns and query.hostname = union.example | stats count()", "dataset in (zeek-dns, okta) | top 5 by user.uid", "reverse"},
		{"class_uid = 3002 | top 5 by user.uid", "class_uid = 3002 | stats count() by device.hostname", "nobody"},
		{"class_uid = 4003 | fields time, query.hostname", "class_uid = 4003 | fields time, user.uid", "reverse"},
		{"class_uid = 4003 | stats count() by query.hostname, bin(1m)", "class_uid = 4003 | stats count() by user.uid, bin(1m)", "reverse"},
		{"class_uid = 4003 | top 5 by query.hostname", "class_uid = 4003 | top 5 by user.uid", "nobody"},
		{"class_uid = 4003 | fields time, query.hostname", "ref = x", "reverse"},
		{"kind = finding", "query.hostname = union.example | stats count()", "nobody"},
		{"user.uid = {p}", "query.hostname = union.example | stats count()", "person"},
	} {
		v := access.Combine(now, options(t), access.Search{Query: parseQuery(t, expand(c.a))}, access.Search{Query: parseQuery(t, expand(c.b))})
		if v.Class.String() != c.class {
			t.Errorf("%s + %s: %v, want %s (%s)", c.a, c.b, v.Class, c.class, why(v))
		}
	}
	// Twenty-one people, one at a time; the same one twice is one.
	var asked []access.Question
	for i := range 21 {
		asked = append(asked, access.Search{Query: parseQuery(t, "user.uid = "+token("p", i))})
	}
	v := access.Combine(now, options(t), append(asked, asked[0])...)
	if v.Persons != 21 || v.Crowd() != access.CrowdCounsel {
		t.Errorf("%d persons, %s", v.Persons, v.Crowd())
	}
}

func TestSmallCells(t *testing.T) {
	for n, want := range map[int]bool{0: true, 1: true, 7: true, 8: false, 1000: false} {
		if access.SmallCell(n) != want {
			t.Errorf("SmallCell(%d)", n)
		}
	}
	for _, c := range []struct {
		a, b int
		want bool
	}{{100, 50, false}, {100, 99, true}, {99, 100, true}, {100, 100, false}, {100, 7, true}, {16, 8, false}, {15, 8, true}} {
		if access.SmallStep(c.a, c.b) != c.want {
			t.Errorf("SmallStep(%d, %d)", c.a, c.b)
		}
	}
}

// FuzzSelects: no panic, one answer, the same for the printed question, and never
// milder with one more alternative.
func FuzzSelects(f *testing.F) {
	n := 0
	for _, r := range table(f) {
		f.Add(expand(r.question), expand(r.question))
		n++
	}
	if n == 0 {
		f.Fatal("no seeds")
	}
	o := options(f)
	f.Fuzz(func(t *testing.T, text, other string) {
		access.Selects(access.List{Values: []string{text, other}}, o)
		access.Selects(access.List{Field: text, Values: []string{other}}, o)
		access.Selects(access.Values{Field: text, Prefix: other}, o)
		access.Selects(access.PeerGroup{By: []string{text}, Members: []string{other}}, o)
		if rules, _ := sigma.Parse("f.yml", []byte("title: t\nlogsource: {product: p}\ndetection: {s: {"+text+"}, condition: s}\n")); len(rules) == 1 {
			access.Selects(access.Rule{Rule: rules[0]}, o)
		}
		q, err := query.Parse(text)
		if err != nil {
			return
		}
		want := access.Selects(access.Search{Query: q}, o)
		if got := access.Selects(access.Search{Query: q}, o); !reflect.DeepEqual(got, want) {
			t.Fatal("two answers")
		}
		access.Selects(access.Export{Query: q}, o)
		if p, err := query.Parse(q.String()); err == nil && !reflect.DeepEqual(access.Selects(access.Search{Query: p}, o), want) {
			t.Fatalf("the printed question selects another: %s", q.String())
		}
		more, err := query.Parse(other)
		if err != nil || more.Where == nil || q.Where == nil {
			return
		}
		wide := *q
		wide.Where = or(q.Where, more.Where)
		if v := access.Selects(access.Search{Query: &wide}, o); !v.Class.Has(want.Class) || want.Protected && !v.Protected {
			t.Fatalf("milder with an alternative: %v, %v", want.Class, v.Class)
		}
		access.Combine(time.Unix(0, 0), o, access.Search{Query: q}, access.Search{Query: more})
	})
}

func BenchmarkSelects(b *testing.B) {
	for _, c := range []struct{ name, text string }{
		{"nobody", `class_uid = 1007 and process.file.path : *\powershell.exe and status_id = 1 last 24h`},
		{"person", "user.uid = {p} and class_uid = 3002 last 24h"},
		{"reverse", "query.hostname in (herald.example, union.example, signal.org, clinic.example) last 7d"},
		{"tokens101", "user.uid in ({p*101})"},
	} {
		q := parseQuery(b, expand(c.text))
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				access.Selects(access.Search{Query: q}, access.Options{})
			}
		})
	}
}

// worst are questions as long as the language lets them be, n bytes each: many people,
// one long text of shapes, and conditions in conditions.
func worst(t testing.TB, n int) map[string]string {
	var people strings.Builder
	people.WriteString("user.uid in (alice")
	for i := 0; people.Len() < n-30 && i < query.MaxTerms-2; i++ {
		people.WriteString(", " + token("p", i))
	}
	inner := "user.uid = alice"
	for i := 0; len(inner) < n-4000 && i < query.MaxTerms-200; i++ {
		inner += " or user.uid = alice-with-a-long-name-" + strconv.Itoa(i)
	}
	deep := strings.Repeat("(user.uid = alice or (user.uid exists and ", query.MaxDepth/2-2) + "(" + inner + " or class_uid = 1)" + strings.Repeat("))", query.MaxDepth/2-2)
	shapes := ""
	for _, p := range []string{"a@b.example ", "/home/alice/ ", "s-1-5-21-1-2-3-1104 ", "device-k3x7qa ", "+49 30 1234567 ", "p1_abc "} {
		shapes += p
	}
	return map[string]string{
		"people": people.String() + ")",
		"deep":   deep,
		"shapes": `process.cmd_line = "` + strings.Repeat(shapes, (n-40)/len(shapes)) + `"`,
	}
}

func BenchmarkSelectsWorst(b *testing.B) {
	for _, n := range []int{query.MaxText / 4, query.MaxText} {
		for name, text := range worst(b, n) {
			q := parseQuery(b, text)
			b.Run(name+"/"+strconv.Itoa(n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					access.Selects(access.Search{Query: q}, access.Options{})
				}
			})
		}
	}
}

func BenchmarkConfined(b *testing.B) {
	all := func(access.Identity) bool { return true }
	for name, text := range map[string]string{"pivot": expand("user.uid = {p} and class_uid = 3002 last 24h"), "worst": worst(b, query.MaxText)["deep"]} {
		q := parseQuery(b, text)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				access.Confined(q, access.Options{}, all)
			}
		})
	}
}

// TestPage: every example of docs/selects.md is answered as the page says.
func TestPage(t *testing.T) {
	data, err := os.ReadFile("../../docs/selects.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		c := strings.Split(strings.ReplaceAll(line, `\|`, "\x00"), "|")
		if len(c) != 6 || !strings.Contains(c[2], "`") {
			continue
		}
		n++
		form, want := strings.TrimSpace(c[1]), strings.TrimSpace(c[3])
		question := strings.ReplaceAll(strings.Trim(strings.TrimSpace(c[2]), "`"), "\x00", "|")
		if v := access.Selects(build(t, form, question), access.Options{}); v.Class.String() != want {
			t.Errorf("%s: %s: %v, the page says %s", form, question, v.Class, want)
		}
	}
	if n < 40 {
		t.Errorf("%d examples", n)
	}
	n = 0
	for line := range strings.Lines(string(data)) {
		c := strings.Split(line, "|")
		if len(c) != 5 || !strings.Contains(c[1], "`") {
			continue
		}
		n++
		question, want := strings.Trim(strings.TrimSpace(c[1]), "`"), strings.TrimSpace(c[2]) == "yes"
		if access.Confined(parseQuery(t, question), access.Options{}, coversAlice) != want {
			t.Errorf("%s is covered: %v", question, !want)
		}
	}
	if n < 6 {
		t.Errorf("%d examples of what is covered", n)
	}
}

// TestHostile: a question as long and as deep as the language lets it be is judged in
// milliseconds; a second is for a slow machine.
func TestHostile(t *testing.T) {
	o := options(t)
	within := func(what string, q access.Question) {
		start := time.Now()
		access.Selects(q, o)
		if d := time.Since(start); d > time.Second {
			t.Errorf("%q: %v", what, d)
		}
	}
	for _, p := range []string{"a@", "~a ", "/users/", "_", "p1_a", "s-1-5-21-1-", "person-", "+4", `\`, "1", "12 ", "a*", "é", "x.", "home/a*", "personal sharepoint "} {
		v := strings.Repeat(p, query.MaxText/len(p))
		within(p, access.List{Values: []string{v}})
		within(p, access.Search{Query: &query.Query{Where: query.Phrase{Text: v}}})
	}
	var e query.Expr = query.Exists{Field: "user.uid"}
	for i := range query.MaxDepth {
		var of []query.Expr
		for k := range query.MaxTerms / query.MaxDepth {
			of = append(of, query.Equal{Field: "native.user.f" + strconv.Itoa(i*100+k), Pattern: query.Literal("alice" + strconv.Itoa(k))})
		}
		if of = append(of, e); i%2 == 0 {
			e = query.And{Of: of}
		} else {
			e = query.Or{Of: of}
		}
	}
	within("depth", access.Search{Query: &query.Query{Where: e}})
}

// TestFilterAndCorrelation: a filter is judged by what it spares, a correlation by
// the rules that it names.
func TestFilterAndCorrelation(t *testing.T) {
	for _, c := range []struct{ name, text, class string }{
		{"filter that spares a person", "title: f\nlogsource: {product: windows}\nfilter: {rules: any, s: {User: alice}, condition: not s}\n", "person"},
		{"filter that spares a program", "title: f\nlogsource: {product: windows}\nfilter: {rules: any, s: {Image: x.exe}, condition: not s}\n", "nobody"},
		{"filter that spares a place", "title: f\nlogsource: {product: windows}\nfilter: {rules: any, s: {QueryName: cdn.example}, condition: not s}\n", "nobody"},
		{"correlation", "title: c\ncorrelation: {type: event_count, rules: [x], group-by: [User], timespan: 5m, condition: {gte: 10}}\n", "nobody"},
	} {
		rules, refused := sigma.Parse("t.yml", []byte(c.text))
		if len(rules) != 1 {
			t.Fatalf("%s: %v", c.name, refused)
		}
		if v := access.Selects(access.Rule{Rule: rules[0]}, options(t)); v.Class.String() != c.class || !v.Standing {
			t.Errorf("%s: %v, want %s", c.name, v.Class, c.class)
		}
	}
}

// TestUnknownForm: what this package does not know is not free.
func TestUnknownForm(t *testing.T) {
	if v := access.Selects(nil, options(t)); v.Free() || v.Crowd() != access.CrowdMany {
		t.Errorf("%+v", v)
	}
}
