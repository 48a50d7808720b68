package sigma

import (
	"encoding/base64"
	"errors"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Bounds on what one value may grow to.
const (
	maxWindash  = 5     // dashes of a value: each has five forms
	maxVariants = 10000 // forms of a value after windash, base64offset and expand
	// maxForms bounds what all values of a rule grow to: each further form counts
	// as one and as one more for each formText bytes. A regular expression costs as
	// much as regexForms plain values, and one more for each stepsForm steps.
	maxForms   = 100000
	formText   = 256
	regexForms = 50
	stepsForm  = 20
	// maxExpression bounds the steps that a regular expression may take for one
	// character of a value. The time for a value is the product of both.
	maxExpression = 5000
)

type testKind uint8

const (
	testExact testKind = iota
	testPrefix
	testSuffix
	testContains
	testGlob
	testPresent // a lone *
	testNull
	testRegex
	testCIDR
	testCompare
	testTime
	testRef
)

// test is one value of an item, ready to be asked.
type test struct {
	kind   testKind
	cased  bool
	lit    []byte // folded unless cased
	atoms  []atom // folded unless cased
	re     *regexp.Regexp
	sieve  *sieve // of re, in a set
	prefix netip.Prefix
	op     string // lt, lte, gt, gte
	num    number
	part   timePart
	want   int
	ref    string // the other field
	refID  int32
	how    testKind // testRef: testExact, testPrefix, testSuffix or testContains
	memo   int32    // where an event's answer is kept, 0 for a test that is cheap
}

// fieldTest is an item ready to be asked: groups of alternatives, one group for
// each value as written, of which one must hold, or with all every one.
type fieldTest struct {
	field  string // empty: any value of the event
	id     int32
	exists bool // presence only; want says which
	want   bool
	groups [][]test
	all    bool
	negate bool  // neq
	refs   bool  // reads a second field
	memo   int32 // where an event's answer is kept
	cost   int   // of asking all of it
}

type valueKind uint8

const (
	valText valueKind = iota
	valNull
	valRegex
	valCIDR
	valCompare
	valTime
	valRef
)

// value is a value on its way through the modifiers.
type value struct {
	kind          valueKind
	parts         []part
	raw           string // as written
	cased         bool
	before, after bool   // regex and fieldref: more text may stand there
	placed        bool   // startswith, endswith or contains was given
	flags         string // of a regex
	op            string
	num           number
	prefix        netip.Prefix
	part          timePart
	want          int
}

// translate applies the modifiers of an item in their order. With check set,
// placeholders without a value are let through: their values come with Compile.
// What the item grows to is taken from the budget of its rule.
func translate(it *item, placeholders map[string][]string, check bool, budget *int) (*fieldTest, *fault) {
	name := it.field
	for _, m := range it.mods {
		name += "|" + m
	}
	fail := func(format string, args ...any) (*fieldTest, *fault) {
		f := faultf(it.line, format, args...)
		if name != "" {
			f.reason = strconv.Quote(name) + ": " + f.reason
		}
		return nil, f
	}
	ft := &fieldTest{field: it.field}
	if slices.Contains(it.mods, "exists") {
		if len(it.mods) != 1 || it.list || it.field == "" || it.values[0].kind != scalarBool {
			return fail("exists takes a field, the value true or false, and no other modifier")
		}
		ft.exists, ft.want = true, it.values[0].text == "true"
		return ft, nil
	}
	expand := slices.Contains(it.mods, "expand")
	groups := make([][]value, len(it.values))
	for i, s := range it.values {
		v := value{kind: valText, raw: s.text}
		switch s.kind {
		case scalarText:
			v.parts = parsePattern(s.text, expand)
		case scalarNull:
			v.kind = valNull
			for _, m := range it.mods {
				if m != "neq" {
					return fail("null takes no modifier but neq")
				}
			}
			if it.field == "" {
				return fail("null cannot be a keyword")
			}
		default:
			v.parts = []part{{partText, s.text}}
		}
		groups[i] = []value{v}
	}
	changed := false // a modifier has changed the values
	for at, m := range it.mods {
		var step func(value) ([]value, error)
		switch m {
		case "all":
			if len(it.values) < 2 {
				return fail("all needs a list of at least two values")
			}
			ft.all = true
			continue
		case "neq":
			ft.negate = true
			continue
		case "re", "cidr", "lt", "lte", "gt", "gte", "minute", "hour", "day", "week", "month", "year", "fieldref":
			if changed {
				return fail("%s must come before the modifiers that change a value", m)
			}
			if it.field == "" && m != "re" {
				return fail("%s needs a field", m)
			}
			step = typeModifier(m, it.values)
		case "i", "m", "s":
			if at == 0 {
				return fail("the modifier %s must follow re", m)
			}
			step = func(v value) ([]value, error) {
				if v.kind != valRegex || v.placed {
					return nil, errors.New("the modifier " + m + " must follow re")
				}
				if !strings.Contains(v.flags, m) {
					v.flags += m
				}
				return []value{v}, nil
			}
		case "expand":
			step = func(v value) ([]value, error) { return expandValue(v, placeholders, check) }
		default:
			step = textModifier(m)
			if step == nil {
				return fail("the modifier %q is not known", m)
			}
		}
		changed = true
		for i, g := range groups {
			var next []value
			for _, v := range g {
				vs, err := step(v)
				if err != nil {
					return fail("%v", err)
				}
				next = append(next, vs...)
				if len(next) > maxVariants {
					return fail("a value has more than %d forms", maxVariants)
				}
			}
			if *budget -= len(next) - len(g) + max(0, textOf(next)-textOf(g))/formText; *budget < 0 {
				return fail("the rule's values have more than %d forms, or very long ones", maxForms)
			}
			groups[i] = next
		}
	}
	for _, g := range groups {
		tests := make([]test, 0, len(g))
		for _, v := range g {
			if *budget--; v.kind == valRegex {
				*budget -= regexForms + steps(v.raw)/stepsForm
			}
			if *budget < 0 {
				return fail("the rule's values have more than %d forms, or very long ones", maxForms)
			}
			t, err := v.finish(it.field == "")
			if err != nil {
				return fail("%v", err)
			}
			tests = append(tests, t)
		}
		ft.groups = append(ft.groups, tests)
	}
	return ft, nil
}

// textOf returns the bytes of values.
func textOf(vs []value) int {
	n := 0
	for _, v := range vs {
		for _, p := range v.parts {
			n += len(p.text)
		}
	}
	return n
}

// steps returns about how many states a regular expression has: what it may cost
// for each character of a value. It is 0 for what is no expression.
func steps(expr string) int {
	const long = 16 * maxExpression // bytes: not worth a look
	if len(expr) > long {
		return long
	}
	re, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return 0
	}
	return stepsOf(re)
}

func stepsOf(re *syntax.Regexp) int {
	n := 1
	switch re.Op {
	case syntax.OpLiteral:
		n = len(re.Rune)
	case syntax.OpCharClass:
		n += len(re.Rune) / 8
	}
	for _, sub := range re.Sub {
		n += stepsOf(sub)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Max, re.Min+1)
	}
	return min(n, 1<<30)
}

// typeModifier gives the modifiers that say what a value is. They read it as
// written, without wildcards and escapes.
func typeModifier(m string, written []scalar) func(value) ([]value, error) {
	i := -1
	return func(v value) ([]value, error) {
		i++
		if v.kind != valText {
			return nil, errors.New(m + " cannot be combined with the modifier before it")
		}
		kind := written[i].kind
		switch m {
		case "re":
			v.kind, v.before, v.after = valRegex, true, true
			if v.raw == "" {
				return nil, errors.New("the regular expression is empty: it would match every value")
			}
		case "fieldref":
			v.kind, v.raw = valRef, stripSpaces(v.raw)
			if kind != scalarText || v.raw == "" {
				return nil, errors.New("fieldref needs the name of a field")
			}
		case "cidr":
			p, err := parsePrefix(v.raw)
			if err != nil {
				return nil, errors.New(strconv.Quote(v.raw) + " is not a network in CIDR notation")
			}
			v.kind, v.prefix = valCIDR, p
		case "lt", "lte", "gt", "gte":
			n, ok := parseNumber([]byte(v.raw))
			if !ok || kind != scalarInt && kind != scalarFloat {
				return nil, errors.New(m + " needs a number")
			}
			v.kind, v.op, v.num = valCompare, m, n
		default:
			var err error
			v.kind = valTime
			v.part, v.want, err = readTimePart(m, v.raw, kind)
			if err != nil {
				return nil, err
			}
		}
		return []value{v}, nil
	}
}

func parsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return netip.Prefix{}, err
		}
		a = a.Unmap().WithZone("")
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	return unmapPrefix(p), nil
}

func readTimePart(m, raw string, kind scalarKind) (timePart, int, error) {
	bounds := map[string]struct {
		part        timePart
		least, most int
	}{
		"minute": {partMinute, 0, 59}, "hour": {partHour, 0, 23}, "day": {partDay, 1, 31},
		"week": {partWeek, 1, 53}, "month": {partMonth, 1, 12}, "year": {partYear, 1, 9999},
	}[m]
	n, err := strconv.Atoi(raw)
	if err != nil || kind != scalarInt || n < bounds.least || n > bounds.most {
		return 0, 0, errors.New(m + " needs a whole number from " + strconv.Itoa(bounds.least) + " to " + strconv.Itoa(bounds.most))
	}
	return bounds.part, n, nil
}

// textModifier gives the modifiers that change a text, or nil for an unknown one.
func textModifier(m string) func(value) ([]value, error) {
	switch m {
	case "contains", "startswith", "endswith":
		before, after := m != "startswith", m != "endswith"
		return func(v value) ([]value, error) {
			switch v.kind {
			case valText:
				v.parts = slices.Clone(v.parts)
				if before {
					v.parts = prependAny(v.parts)
				}
				if after {
					v.parts = appendAny(v.parts)
				}
			case valRegex, valRef:
				if v.placed {
					return nil, errors.New("only one of startswith, endswith and contains can follow")
				}
				v.before, v.after = before, after
			default:
				return nil, errors.New(m + " needs a text")
			}
			v.placed = true
			return []value{v}, nil
		}
	case "cased":
		return func(v value) ([]value, error) {
			if v.kind == valRegex {
				return nil, errors.New("a regular expression is case-sensitive already: leave cased out")
			}
			if v.kind != valText && v.kind != valRef {
				return nil, errors.New("cased needs a text")
			}
			v.cased = true
			return []value{v}, nil
		}
	case "windash":
		return onText(m, func(v value) ([]value, error) { return windash(v) })
	case "base64", "base64offset":
		return onText(m, func(v value) ([]value, error) {
			s, ok := plain(v.parts)
			if !ok {
				return nil, errors.New(m + " takes no wildcards and no placeholders")
			}
			if s == "" {
				return nil, errors.New(m + " needs a text that is not empty")
			}
			v.cased = true
			if m == "base64" {
				v.parts = []part{{partText, base64.StdEncoding.EncodeToString([]byte(s))}}
				return []value{v}, nil
			}
			return base64offset(v, s)
		})
	case "utf16le", "wide":
		return onText(m, func(v value) ([]value, error) { return toUTF16(v, false, false), nil })
	case "utf16be":
		return onText(m, func(v value) ([]value, error) { return toUTF16(v, true, false), nil })
	case "utf16":
		return onText(m, func(v value) ([]value, error) { return toUTF16(v, false, true), nil })
	}
	return nil
}

func onText(m string, f func(value) ([]value, error)) func(value) ([]value, error) {
	return func(v value) ([]value, error) {
		if v.kind != valText {
			return nil, errors.New(m + " needs a text")
		}
		return f(v)
	}
}

const dashes = "-/\u2013\u2014\u2015"

// windash finds each dash that follows no word character and precedes one, and
// writes it in all its forms.
func windash(v value) ([]value, error) {
	type place struct{ part, start, end int }
	var places []place
	word := func(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }
	for pi, p := range v.parts {
		if p.kind != partText {
			continue
		}
		prev := ' '
		for i, r := range p.text {
			if strings.ContainsRune(dashes, r) && !word(prev) {
				end := i + utf8.RuneLen(r)
				if next, _ := utf8.DecodeRuneInString(p.text[end:]); end < len(p.text) && word(next) {
					places = append(places, place{pi, i, end})
				}
			}
			prev = r
		}
	}
	if len(places) > maxWindash {
		return nil, errors.New("windash: the value has more than " + strconv.Itoa(maxWindash) + " dashes")
	}
	forms := 1
	for range places {
		forms *= utf8.RuneCountInString(dashes)
	}
	if forms*textOf([]value{v}) > maxForms*formText {
		return nil, errors.New("windash: the value is too long for its dashes")
	}
	out := []value{v}
	// From the last to the first, so that earlier positions stay true.
	for _, at := range slices.Backward(places) {
		var next []value
		for _, v := range out {
			for _, d := range dashes {
				c := v
				c.parts = slices.Clone(v.parts)
				s := c.parts[at.part].text
				c.parts[at.part].text = s[:at.start] + string(d) + s[at.end:]
				next = append(next, c)
			}
		}
		out = next
	}
	return out, nil
}

// base64offset encodes the value at each of its three places in a longer text
// and cuts off the characters that its neighbours would change.
func base64offset(v value, s string) ([]value, error) {
	start, end := [3]int{0, 2, 3}, [3]int{0, 3, 2}
	out := make([]value, 0, 3)
	for i := range 3 {
		enc := base64.StdEncoding.EncodeToString([]byte(strings.Repeat(" ", i) + s))
		last := len(enc) - end[(len(s)+i)%3]
		if last <= start[i] {
			return nil, errors.New("base64offset: the value is too short to leave a trace at each offset")
		}
		c := v
		c.parts = []part{{partText, enc[start[i]:last]}}
		out = append(out, c)
	}
	return out, nil
}

func toUTF16(v value, bigEndian, mark bool) []value {
	parts := make([]part, 0, len(v.parts)+1)
	if mark {
		parts = append(parts, part{partText, "\xff\xfe"})
	}
	for _, p := range v.parts {
		if p.kind == partText {
			var b []byte
			for _, u := range utf16.Encode([]rune(p.text)) {
				if bigEndian {
					b = append(b, byte(u>>8), byte(u))
				} else {
					b = append(b, byte(u), byte(u>>8))
				}
			}
			p.text = string(b)
		}
		parts = append(parts, p)
	}
	v.parts = parts
	return []value{v}
}

// expandValue puts the values of placeholders in their places.
func expandValue(v value, placeholders map[string][]string, check bool) ([]value, error) {
	if v.kind == valNull || v.kind != valText {
		return nil, errors.New("expand needs a text")
	}
	if check {
		return []value{v}, nil
	}
	out := [][]part{nil}
	for _, p := range v.parts {
		forms := [][]part{{p}}
		if p.kind == partPlaceholder {
			if len(placeholders[p.text]) == 0 {
				return nil, errors.New("the placeholder %" + p.text + "% has no value here")
			}
			forms = nil
			for _, s := range placeholders[p.text] {
				forms = append(forms, parsePattern(s, false))
			}
		}
		if len(out)*len(forms) > maxVariants || len(out)*len(forms)*len(v.parts) > 10*maxForms {
			return nil, errors.New("a value has more than " + strconv.Itoa(maxVariants) + " forms")
		}
		next := make([][]part, 0, len(out)*len(forms))
		for _, head := range out {
			for _, tail := range forms {
				next = append(next, append(slices.Clone(head), tail...))
			}
		}
		out = next
	}
	vs := make([]value, len(out))
	for i, parts := range out {
		vs[i] = v
		vs[i].parts = parts
	}
	return vs, nil
}

// finish turns a value into the test it stands for.
func (v value) finish(keyword bool) (test, error) {
	t := test{cased: v.cased}
	switch v.kind {
	case valNull:
		t.kind = testNull
	case valRegex:
		// The flags stand in front, so that \A and \z stay outside of a
		// multi-line text.
		expr := "(?:" + v.raw + ")"
		if v.flags != "" {
			expr = "(?" + v.flags + ":" + v.raw + ")"
		}
		if !v.before {
			expr = `\A` + expr
		}
		if !v.after {
			expr += `\z`
		}
		if steps(v.raw) > maxExpression {
			return t, errors.New("the regular expression takes more than " + strconv.Itoa(maxExpression) + " steps for a character: it repeats too much, or is too long")
		}
		// Alone first: wrapped, a stray parenthesis could find a partner.
		_, err := syntax.Parse(v.raw, syntax.Perl)
		var re *regexp.Regexp
		if err == nil {
			re, err = regexp.Compile(expr)
		}
		if err != nil {
			return t, errors.New("the regular expression is not understood: " + strings.TrimPrefix(err.Error(), "error parsing regexp: "))
		}
		t.kind, t.re = testRegex, re
	case valCIDR:
		t.kind, t.prefix = testCIDR, v.prefix
	case valCompare:
		t.kind, t.op, t.num = testCompare, v.op, v.num
	case valTime:
		t.kind, t.part, t.want = testTime, v.part, v.want
	case valRef:
		t.kind, t.ref = testRef, v.raw
		switch {
		case v.before && v.after:
			t.how = testContains
		case v.before:
			t.how = testSuffix
		case v.after:
			t.how = testPrefix
		}
	case valText:
		parts := v.parts
		if keyword && !v.placed {
			parts = appendAny(prependAny(parts))
		}
		if keyword && (len(parts) == 0 || len(parts) == 1 && parts[0].kind == partAny) {
			return t, errors.New("a keyword that is empty or a lone * matches every event")
		}
		t.place(parts)
	}
	return t, nil
}

// place picks the cheapest test for a text with wildcards.
func (t *test) place(parts []part) {
	for _, p := range parts {
		a := atom{kind: p.kind}
		if p.kind == partPlaceholder {
			a.kind = partText
		} else if p.kind == partText {
			if n := len(t.atoms); n > 0 && t.atoms[n-1].kind == partText {
				t.atoms[n-1].lit = append(t.atoms[n-1].lit, p.text...)
				continue
			}
			a.lit = []byte(p.text)
		}
		if p.kind == partAny && len(t.atoms) > 0 && t.atoms[len(t.atoms)-1].kind == partAny {
			continue
		}
		t.atoms = append(t.atoms, a)
	}
	if !t.cased {
		for i := range t.atoms {
			t.atoms[i].lit = appendFold(nil, t.atoms[i].lit)
		}
	}
	kinds := make([]partKind, len(t.atoms))
	for i, a := range t.atoms {
		kinds[i] = a.kind
	}
	switch {
	case len(kinds) == 0:
		t.kind, t.lit = testExact, []byte{}
	case slices.Equal(kinds, []partKind{partText}):
		t.kind, t.lit = testExact, t.atoms[0].lit
	case slices.Equal(kinds, []partKind{partAny}):
		t.kind = testPresent
	case slices.Equal(kinds, []partKind{partText, partAny}):
		t.kind, t.lit = testPrefix, t.atoms[0].lit
	case slices.Equal(kinds, []partKind{partAny, partText}):
		t.kind, t.lit = testSuffix, t.atoms[1].lit
	case slices.Equal(kinds, []partKind{partAny, partText, partAny}):
		t.kind, t.lit = testContains, t.atoms[1].lit
	default:
		t.kind = testGlob
		return
	}
	t.atoms = nil
}
