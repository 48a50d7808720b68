package sigma_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/sigma"
)

// TestBadRules: what the issue names as bad input costs its own document, little
// time and bounded memory, and nothing else of the set.
func TestBadRules(t *testing.T) {
	good := "title: good\nid: good\nlogsource: {product: p}\ndetection: {s: {A: 1}, condition: s}\n---\n"
	rule := func(items string) string {
		return "title: bad\nlogsource: {product: p}\ndetection: {s: {" + items + "}, condition: s}\n"
	}
	correlation := func(name string, feeds ...string) string {
		return fmt.Sprintf("---\ntitle: %[1]s\nid: id_%[1]s\nname: %[1]s\ncorrelation: {type: temporal, rules: [%s], group-by: [u], timespan: 1m}\n", name, strings.Join(feeds, ", "))
	}
	megabyte := strings.Repeat("a", 1<<20)
	circle := ""
	for i := range 1000 {
		circle += correlation(fmt.Sprintf("c%d", i), fmt.Sprintf("c%d", (i+1)%1000), "good")
	}
	for _, c := range []struct {
		name, text string
		refused    int
		reason     string // of the first
	}{
		{"a correlation of itself", correlation("a", "a", "good"), 1, "leads back to itself"},
		{"two correlations of each other", correlation("a", "b", "good") + correlation("b", "a", "good"), 2, "leads back to itself"},
		{"a correlation of a circle", correlation("a", "b", "good") + correlation("b", "c", "good") + correlation("c", "b", "good"), 3, "leads back to itself"},
		{"a circle of a thousand", circle, 1000, "leads back to itself"},
		{"an expression that repeats repeats", rule(`A|re: '((a{1,100}){1,100}){1,100}'`), 1, "not understood"},
		{"an expression that repeats", rule(`A|re: '((a{1,100}b?){1,10}c?){1,10}'`), 1, "not understood"},
		{"an expression that repeats much", rule(`A|re: '((ab|cd|ef|gh|ij){1,30}|k){1,30}'`), 1, "steps"},
		{"an expression that is long", rule(`A|re: '` + megabyte + `'`), 1, "steps"},
		{"an expression with many choices", rule(`A|re: '(` + strings.Repeat("(a|b)?", 2000) + `)c'`), 1, "steps"},
		{"an expression of another engine", rule(`A|re: '(?=a)b\1'`), 1, "not understood"},
		{"many expressions", rule(`A|re: [` + strings.Repeat(`'(ab){500}x',`, 1900) + `]`), 1, "forms"},
		{"a rule of ten megabytes", rule("A: [" + strings.Repeat("'"+strings.Repeat("x", 90)+"',", 100000) + "]"), 0, ""},
		{"one value of nine megabytes", rule("A|contains: '" + strings.Repeat(megabyte, 9) + "'"), 0, ""},
		{"more than ten megabytes", strings.Repeat("# "+megabyte+"\n", 11), 0, ""}, // the file is refused whole, see below
		{"a long value with dashes", rule("A|windash: ' -a -b -c -d -e" + megabyte + "'"), 1, "too long for its dashes"},
		{"a long value widened again and again", rule("A|" + strings.Repeat("utf16be|", 30) + "contains: 'a'"), 1, "forms"},
		{"a value encoded again and again", rule("A|" + strings.Repeat("base64offset|", 12) + "contains: 'foobar'"), 1, "forms"},
		{"aliases of a long value", "title: bad\nd: &x '" + megabyte + "'\nlogsource: {product: p}\ndetection: {s: {A: [" + strings.Repeat("*x,", 1000) + "]}, condition: s}\n", 1, "aliases"},
		{"aliases of a map with a long value", "title: bad\nd: &x {k: [" + megabyte + "]}\ne: [" + strings.Repeat("*x,", 1000) + "]\n", 1, "aliases"},
		{"a field that nothing has", rule("NoSuchField|contains: x"), 0, ""},
		{"a key of the author's own", "surprise: [1]\n" + rule("A: 1"), 0, ""},
		{"an unknown modifier", rule("A|nonsense: 1"), 1, "not known"},
		{"an unknown key of a correlation", strings.Replace(correlation("a", "good", "good2"), "timespan", "span: 1, timespan", 1), 1, "does not define"},
		{"an id twice", "id: good\n" + rule("A: 2"), 1, "used by"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			rules, refused := sigma.Parse("a.yml", []byte(good))
			bad, more := sigma.Parse("r.yml", []byte(c.text))
			rules, refused = append(rules, bad...), append(refused, more...)
			if c.name == "more than ten megabytes" {
				if len(bad) > 0 || len(refused) != 1 || !strings.Contains(refused[0].Reason, "larger than") {
					t.Fatalf("%d rules, %v", len(rules), refused)
				}
				return
			}
			set, late := sigma.Compile(rules, sigma.Options{})
			refused = append(refused, late...)
			warnings := append(sigma.CheckSchema("r.yml", []byte(c.text)), set.Lint()...)
			d := time.Since(start)
			runtime.ReadMemStats(&after)
			taken := (after.TotalAlloc - before.TotalAlloc) >> 20
			t.Logf("%v, %d MiB, %d warnings", d.Round(time.Millisecond), taken, len(warnings))
			if d > 20*time.Second || taken > 2000 {
				t.Errorf("%v and %d MiB", d, taken)
			}
			if len(refused) != c.refused || c.refused > 0 && !strings.Contains(refused[0].Reason, c.reason) {
				t.Errorf("refused %d: %.300v", len(refused), refused)
			}
			ev := &sigma.Event{Source: sigma.LogSource{Product: "p"}, Fields: []sigma.Field{{Name: "A", Value: []byte("1")}}}
			found := false
			set.Match(ev, func(m sigma.Match) { found = found || m.Rule.Title == "good" })
			if !found {
				t.Error("the good rule beside it does not match any more")
			}
		})
	}
}

// TestExpressionsTakeLinearTime: what makes other engines go back and forth without
// end costs time in proportion to the value.
func TestExpressionsTakeLinearTime(t *testing.T) {
	for _, expr := range []string{`(a+)+$`, `(x+x+)+y`, `(a|aa)+$`, `^(a|a?)+$`, `(.*a){12}$`, `^(([a-z])+.)+[A-Z]([a-z])+$`} {
		rules, refused := sigma.Parse("r.yml", []byte("title: t\nlogsource: {product: p}\ndetection: {s: {A|re: '"+expr+"'}, condition: s}\n"))
		if len(refused) > 0 {
			t.Fatal(refused)
		}
		set, _ := sigma.Compile(rules, sigma.Options{})
		ev := &sigma.Event{Source: sigma.LogSource{Product: "p"}, Fields: []sigma.Field{{Name: "A", Value: []byte(strings.Repeat("a", 1<<18) + "!")}}}
		start := time.Now()
		set.Match(ev, func(sigma.Match) { t.Errorf("%s matches", expr) })
		if d := time.Since(start); d > 10*time.Second {
			t.Errorf("%s takes %v for 256 KiB", expr, d)
		}
	}
}
