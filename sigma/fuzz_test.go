package sigma

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// seedRules are the rules of the text files under testdata: whole documents.
func seedRules(f *testing.F) []string {
	f.Helper()
	files, err := filepath.Glob("testdata/*.test")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds")
	}
	var out []string
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		var doc strings.Builder
		flush := func() {
			if strings.Contains(doc.String(), "title:") {
				out = append(out, doc.String())
			}
			doc.Reset()
		}
		for _, line := range strings.Split(string(data), "\n") {
			if !strings.HasPrefix(line, "    ") || strings.TrimSpace(line) == "---" {
				flush()
				continue
			}
			doc.WriteString(line[4:] + "\n")
		}
		flush()
	}
	if len(out) < 100 {
		f.Fatalf("%d seeds", len(out))
	}
	return out
}

// FuzzParse: every document comes back as a rule or as a refusal with a reason,
// and what Parse takes Compile takes too, but for placeholders and ids.
func FuzzParse(f *testing.F) {
	for _, s := range seedRules(f) {
		f.Add([]byte(s))
	}
	f.Add([]byte("---\n---\n...\n--- x\n"))
	f.Add([]byte("title: &a [*a]\n"))
	f.Add([]byte("title: x\nlogsource: {product: p}\n? [a]\n: b\nx: !!set {a, b}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		rules, refused := Parse("f", data)
		again, refusedAgain := Parse("f", data)
		if !reflect.DeepEqual(rules, again) || !reflect.DeepEqual(refused, refusedAgain) {
			t.Fatal("two readings differ")
		}
		if len(rules)+len(refused) == 0 {
			t.Fatal("neither rule nor refusal")
		}
		for _, r := range refused {
			if r.Reason == "" {
				t.Fatal("a refusal without a reason")
			}
		}
		_, late := Compile(rules, Options{})
		for _, r := range late {
			if !strings.Contains(r.Reason, "placeholder") && !strings.Contains(r.Reason, "the id is used") && !strings.HasPrefix(r.Reason, "the correlation ") {
				t.Fatalf("Parse took what Compile refuses: %s", r.Reason)
			}
		}
	})
}

// FuzzCondition: a condition prints to one that parses to the same tree.
func FuzzCondition(f *testing.F) {
	for _, s := range []string{
		"a", "a and b or not c", "1 of sel* and not all of them", "(a or b) and (c or (d))", "ANY OF x_*", "2 of *",
		"not not (a)", "of of of", "a | count() > 1", "((a)", "1 of", "\u00e4 or \u2028",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, fault := parseCondition(s, 1)
		if fault != nil {
			if fault.reason == "" {
				t.Fatal("no reason")
			}
			return
		}
		again, fault := parseCondition(c.String(), 1)
		if fault != nil {
			if strings.Contains(fault.reason, "deep") || strings.Contains(fault.reason, "longer") {
				return // printing writes parentheses that the author left out
			}
			t.Fatalf("%q prints as %q, which is refused: %s", s, c, fault.reason)
		}
		if again.String() != c.String() {
			t.Fatalf("%q prints as %q and then as %q", s, c, again)
		}
	})
}

// sameAnswers compares the matcher with the plain evaluator on one event.
func sameAnswers(t *testing.T, set *Set, opt Options, ungated bool, ev *Event) {
	t.Helper()
	list := func(match func(*Event, func(Match))) (out []string) {
		match(ev, func(m Match) { out = append(out, fmt.Sprintf("%s %v %q", m.Rule.Key(), m.Verdict, m.Matched)) })
		return out
	}
	want, got := list(NewNaive(set, opt, ungated).Match), list(set.Match)
	if !reflect.DeepEqual(want, got) {
		t.Fatalf("the plain evaluator says\n%q\nand the matcher\n%q", want, got)
	}
}

// FuzzMatch: the matcher answers as the plain evaluator does, and a rule and its
// negation answer opposite, whatever the event; withholding the fields that are
// absent never turns a yes into a no.
func FuzzMatch(f *testing.F) {
	for i, s := range seedRules(f) {
		f.Add(s, fmt.Sprintf("A\x00p1_aaaaaaaa\x01B\x00user%d\x01A\x00\x01Image\x00C:\\x.exe", i))
	}
	for _, s := range []string{
		"A|re: '(?i)foo(bar|\u017ftand)?ba[rz]+x'", "A|re: '(ab|cd)(ef|)gh'", "A|re: '\\x{10FFFD}abc'", "A|re: 'a\ufffdbcd'", "A|re: '(abc|d.*efg|[hi]jk)'",
		"A|cased: 'K\u212Aelvin*x'", "A: '*\u212Aelvin?x*'", "A|contains: ['abcd', 'bc', 'd']", "A|endswith: 'bcd'", "A|base64offset|contains: 'foobar'",
		"A|wide|contains: 'foo'", "A|fieldref: B", "A|contains|all: [ab, bcde]", "A|cidr: 10.0.0.0/8", "A|exists: true", "A: ''",
		"A|re: '.{7,}'", "A|re: '^[a-z]{3}$'", "A|re: 'o+b(a|r)+.*z'", "A|re: '(?i)^\u212A?elvin$'",
	} {
		f.Add("title: x\nlogsource: {product: p}\ndetection: {s: {"+s+"}, condition: s}\n",
			"A\x00fooBar\u017ftandbazxp1_aaaaaaaaghabcdefgh\U0010FFFDabc\x01B\x00user1\x01A\x00Kkelvinyx\x01A\x0010.1.2.3\x01A\x00a\xffbcd\x01A\x00p1_aaaaaaaaabc")
	}
	f.Fuzz(func(t *testing.T, rule, event string) {
		rules, _ := Parse("f", []byte(rule))
		opt := Options{
			Placeholders: map[string][]string{"admins": {"adm_*", "root"}, "host": {"srv1"}},
			Opaque: func(b []byte) (int, int) {
				if i := strings.Index(string(b), "p1_"); i >= 0 && i+11 <= len(b) {
					return i, i + 11
				}
				return -1, -1
			},
		}
		events := func(ls LogSource) *Event {
			ev := &Event{Source: ls}
			for i, pair := range strings.Split(event, "\x01") {
				name, value, _ := strings.Cut(pair, "\x00")
				ev.Fields = append(ev.Fields, Field{Name: name, Value: []byte(value), Kind: Kind(i % 4), Addr: AddrClass(len(value) % int(addrClasses))})
			}
			return ev
		}
		blind := func(name string) bool { return len(name)%3 == 0 }
		all, _ := Compile(rules, opt)
		free, _ := Compile(rules, opt)
		Ungate(free)
		for _, r := range rules[:min(len(rules), 3)] {
			ev := events(r.LogSource)
			for range 2 {
				sameAnswers(t, all, opt, false, ev)
				sameAnswers(t, free, opt, true, ev)
				ev.Blind, ev.AnyBlind = blind, len(event)%2 == 0
			}
		}
		if len(rules) != 1 || rules[0].Filter {
			return
		}
		set, refused := Compile(rules, opt)
		if len(refused) > 0 {
			return
		}
		opposite := *rules[0]
		opposite.condition = &cond{op: condNot, kids: []*cond{rules[0].condition}}
		negated, refused := Compile([]*Rule{&opposite}, opt)
		if len(refused) > 0 {
			t.Fatal(refused)
		}
		ls := rules[0].LogSource
		ev := events(ls)
		ask := func(s *Set) Verdict {
			v := No
			s.Match(ev, func(m Match) { v = m.Verdict })
			return v
		}
		yes, no := ask(set), ask(negated)
		if no != yes.not() {
			t.Fatalf("the rule says %v and its negation %v", yes, no)
		}
		ev.Blind, ev.AnyBlind = func(string) bool { return true }, true
		if v := ask(set); v != yes && v != CannotTell {
			t.Fatalf("%v, and with fields withheld %v", yes, v)
		}
	})
}

// FuzzGlob compares the glob matcher with a recursive one that is too simple to
// be wrong.
func FuzzGlob(f *testing.F) {
	f.Add("a*b?c", "axxbyc")
	f.Add("*ab*ab", "ababab")
	f.Add("*?*", "")
	f.Add(`\*?é*`, "*xé")
	f.Fuzz(func(t *testing.T, pattern, value string) {
		if len(pattern) > 12 || len(value) > 24 || !utf8.ValidString(pattern) || !utf8.ValidString(value) {
			return
		}
		var tt test
		tt.place(parsePattern(pattern, false))
		atoms := tt.atoms
		if tt.kind != testGlob {
			return
		}
		b := appendFold(nil, []byte(value))
		if got, want := (text{b: b}).glob(atoms), slowGlob(atoms, string(b)); got != want {
			t.Fatalf("%q on %q: %v, want %v", pattern, value, got, want)
		}
	})
}

func slowGlob(atoms []atom, s string) bool {
	if len(atoms) == 0 {
		return s == ""
	}
	switch a := atoms[0]; a.kind {
	case partOne:
		_, n := utf8.DecodeRuneInString(s)
		return s != "" && slowGlob(atoms[1:], s[n:])
	case partAny:
		for i := range s {
			if slowGlob(atoms[1:], s[i:]) {
				return true
			}
		}
		return slowGlob(atoms[1:], "")
	default:
		return strings.HasPrefix(s, string(a.lit)) && slowGlob(atoms[1:], s[len(a.lit):])
	}
}

// FuzzAddr compares our reading of an address with that of net/netip.
func FuzzAddr(f *testing.F) {
	for _, s := range []string{
		"10.0.0.1", "010.0.0.1", "1.2.3", "1.2.3.4.", "1..2.3", "256.1.1.1", "::", ":::", "::1", "1::", "1::2::3", "fe80::1%eth0", "fe80::1%", "1.2.3.4%x",
		"::ffff:1.2.3.4", "1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:7:1.2.3.4", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::1:2:3:4:5:6:7:8", "12345::", "1:", ":1", "g::", "", "%",
		"::1.2.3.4", "1:2:3:4:5:6:7:8:9", "::1.2.3.4:5", "ABCD::eF", "00000::",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, err := netip.ParseAddr(s)
		if err == nil {
			want = want.Unmap().WithZone("")
		}
		if got := parseAddr([]byte(s)); got != want {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
	})
}

// FuzzSieve: what the sieve of an expression keeps back does not match.
func FuzzSieve(f *testing.F) {
	for _, expr := range []string{
		"(a|b)c.*(c|d)", "ab+c?d", "^[0-9]{2,4}$", "(?i)stra\u00dfe\\s+k", ".{3,}", "(?s).{3,}", "(?m)^a.{2}$", "a.*a.*a", "(ab|abc)(c|d)", "(x*|yz)w", "\\bfoo\\B", "[^a]b", "(?:a{2,3}){2}", "", "a||b", "(?U)a+b",
	} {
		f.Add(expr, "ac 12 aca xabcd STRASSE k foo\n")
		f.Add(expr, "")
	}
	f.Fuzz(func(t *testing.T, expr, value string) {
		re, err := regexp.Compile(expr)
		if err != nil || len(expr) > 200 {
			return
		}
		s := newSieve(expr)
		match, b := re.MatchString(value), []byte(value)
		if match && !(s.fits(len(b)) && s.passes(appendFold(nil, b))) {
			t.Errorf("%q matches %q and is kept back", expr, value)
		}
		if s.line > 0 && longLine(b, s.line) != match {
			t.Errorf("%q on %q: match %v", expr, value, match)
		}
	})
}
