package query

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Parse reads a question. Its errors are of type *Error. An empty text asks for
// every row.
func Parse(text string) (*Query, error) {
	if len(text) > MaxText {
		return nil, &Error{Col: 1, Want: fmt.Sprintf("at most %d bytes", MaxText)}
	}
	p := &parser{s: text}
	for i, r := range text {
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(text[i:]); n == 1 {
				p.i = i
				return nil, p.fail(`valid UTF-8; write other bytes as e"\xff"`)
			}
		}
	}
	q, err := p.query()
	if err != nil {
		return nil, err
	}
	return q, nil
}

type parser struct {
	s     string
	i     int
	depth int
	terms int
}

func (p *parser) failAt(pos int, want string) *Error {
	got := "the end"
	if pos < len(p.s) {
		r, _ := utf8.DecodeRuneInString(p.s[pos:])
		switch {
		case strings.ContainsRune("()[],|=<>:!\"'*?", r):
			got = strconv.QuoteRune(r)
		case unicode.IsSpace(r):
			got = "a space"
		default:
			got = "a word"
		}
	}
	return &Error{Pos: pos, Col: utf8.RuneCountInString(p.s[:pos]) + 1, Want: want, Got: got}
}

func (p *parser) fail(want string) *Error { return p.failAt(p.i, want) }

func (p *parser) space() {
	for p.i < len(p.s) {
		r, n := utf8.DecodeRuneInString(p.s[p.i:])
		if !unicode.IsSpace(r) {
			return
		}
		p.i += n
	}
}

func (p *parser) peek() byte {
	if p.i < len(p.s) {
		return p.s[p.i]
	}
	return 0
}

func (p *parser) has(lit string) bool { return strings.HasPrefix(p.s[p.i:], lit) }

// take skips space and then the literal, if it is next.
func (p *parser) take(lit string) bool {
	p.space()
	if !p.has(lit) {
		return false
	}
	p.i += len(lit)
	return true
}

// bare returns the unquoted word that is next, without moving.
func (p *parser) bare() string {
	p.space()
	i := p.i
	for i < len(p.s) {
		r, n := utf8.DecodeRuneInString(p.s[i:])
		if unicode.IsSpace(r) || strings.ContainsRune(nameStops, r) || r == '"' || r == '\'' {
			break
		}
		i += n
	}
	return p.s[p.i:i]
}

// keyword takes a word of the language.
func (p *parser) keyword(k string) bool {
	w := p.bare()
	if !strings.EqualFold(w, k) || p.quoteAt(p.i+len(w)) {
		return false
	}
	p.i += len(w)
	return true
}

func (p *parser) quoteAt(i int) bool { return i < len(p.s) && (p.s[i] == '"' || p.s[i] == '\'') }

const (
	valueStops = "(),|[]"
	nameStops  = valueStops + "=<>:"
)

// word is what stands between spaces and punctuation: bare and quoted pieces side
// by side.
type word struct {
	Pattern
	pos    int
	end    int
	quoted bool // some piece was quoted
}

// plain returns the text of a word that has no quotes and no wildcards.
func (w word) plain() string {
	if w.quoted {
		return ""
	}
	s, _ := w.Text()
	return s
}

// word reads one word. It may be empty: then nothing was there.
func (p *parser) word(stops string) (word, *Error) {
	p.space()
	w := word{pos: p.i}
	for p.i < len(p.s) {
		c := p.s[p.i]
		r, n := utf8.DecodeRuneInString(p.s[p.i:])
		switch {
		case unicode.IsSpace(r), strings.ContainsRune(stops, r):
			w.end = p.i
			return w, nil
		case c == '!' && stops == nameStops && p.has("!="):
			w.end = p.i
			return w, nil
		case c == '"':
			if err := p.doubleQuoted(&w); err != nil {
				return w, err
			}
		case c == '\'':
			end := strings.IndexByte(p.s[p.i+1:], '\'')
			if end < 0 {
				return w, p.fail("a closing '")
			}
			w.literal(p.s[p.i+1 : p.i+1+end])
			w.quoted = true
			p.i += end + 2
		case c == 'e' && p.has(`e"`) && (p.i == w.pos || p.pieceEnded(w)):
			q, err := strconv.QuotedPrefix(p.s[p.i+1:])
			if err != nil {
				return w, p.fail(`a closing " and escapes as in Go`)
			}
			t, err := strconv.Unquote(q)
			if err != nil {
				return w, p.fail("escapes as in Go")
			}
			w.literal(t)
			w.quoted = true
			p.i += 1 + len(q)
		case c == '\\' && p.i+1 < len(p.s) && strings.IndexByte(`\*?`, p.s[p.i+1]) >= 0:
			w.literal(p.s[p.i+1 : p.i+2])
			p.i += 2
		case c == '*' || c == '?':
			w.wild(c)
			p.i++
		default:
			w.literal(p.s[p.i : p.i+n])
			p.i += n
		}
	}
	w.end = p.i
	return w, nil
}

// pieceEnded reports whether a quoted piece or a wildcard ended right here, so that
// an e before a quote begins an escaped piece and is no letter of a bare word.
func (p *parser) pieceEnded(w word) bool {
	if p.i == 0 {
		return true
	}
	switch p.s[p.i-1] {
	case '"', '\'', '*', '?':
		return true
	}
	return false
}

func (p *parser) doubleQuoted(w *word) *Error {
	start := p.i
	var b strings.Builder
	for i := p.i + 1; i < len(p.s); i++ {
		switch c := p.s[i]; {
		case c == '"':
			w.literal(b.String())
			w.quoted = true
			p.i = i + 1
			return nil
		case c == '\\' && i+1 < len(p.s) && (p.s[i+1] == '"' || p.s[i+1] == '\\'):
			i++
			b.WriteByte(p.s[i])
		default:
			b.WriteByte(c)
		}
	}
	return p.failAt(start, `a closing " (a backslash before it is written \\)`)
}

// query = [ or ] { "|" pipe }
func (p *parser) query() (*Query, *Error) {
	q := new(Query)
	p.space()
	if p.i < len(p.s) && p.peek() != '|' && !p.all() {
		e, err := p.or()
		if err != nil {
			return nil, err
		}
		q.Where = e
	}
	p.space()
	if p.i < len(p.s) && p.peek() != '|' {
		return nil, p.fail("and, or, | or the end")
	}
	stage := 0
	for p.take("|") {
		if err := p.pipe(q, &stage); err != nil {
			return nil, err
		}
	}
	p.space()
	if p.i < len(p.s) {
		return nil, p.fail("| or the end")
	}
	return q, q.check(p)
}

// all takes a lone star: every row.
func (p *parser) all() bool {
	i := p.i
	if p.take("*") {
		p.space()
		if p.i == len(p.s) || p.peek() == '|' {
			return true
		}
	}
	p.i = i
	return false
}

func (p *parser) or() (Expr, *Error) {
	var of []Expr
	for {
		e, err := p.and()
		if err != nil {
			return nil, err
		}
		if o, ok := e.(Or); ok {
			of = append(of, o.Of...)
		} else {
			of = append(of, e)
		}
		if !p.keyword("or") {
			break
		}
	}
	if len(of) == 1 {
		return of[0], nil
	}
	return Or{of}, nil
}

func (p *parser) and() (Expr, *Error) {
	var of []Expr
	for {
		e, err := p.not()
		if err != nil {
			return nil, err
		}
		if a, ok := e.(And); ok {
			of = append(of, a.Of...)
		} else {
			of = append(of, e)
		}
		if p.keyword("and") {
			continue
		}
		p.space()
		if p.i == len(p.s) || strings.IndexByte("|)", p.peek()) >= 0 || strings.EqualFold(p.bare(), "or") {
			break
		}
	}
	if len(of) == 1 {
		return of[0], nil
	}
	return And{of}, nil
}

func (p *parser) not() (Expr, *Error) {
	if p.depth++; p.depth > MaxDepth {
		return nil, p.fail(fmt.Sprintf("at most %d levels of ( and not", MaxDepth))
	}
	defer func() { p.depth-- }()
	if p.keyword("not") {
		e, err := p.not()
		if err != nil {
			return nil, err
		}
		if n, ok := e.(Not); ok {
			return n.Of, nil
		}
		return Not{e}, nil
	}
	if p.take("(") {
		e, err := p.or()
		if err != nil {
			return nil, err
		}
		if !p.take(")") {
			return nil, p.fail("and, or or )")
		}
		return e, nil
	}
	return p.term()
}

func (p *parser) count(pos int) *Error {
	if p.terms++; p.terms > MaxTerms {
		return p.failAt(pos, fmt.Sprintf("at most %d conditions", MaxTerms))
	}
	return nil
}

func (p *parser) term() (Expr, *Error) {
	w, err := p.word(nameStops)
	if err != nil {
		return nil, err
	}
	if w.end == w.pos {
		return nil, p.failAt(w.pos, "a field, a word or (")
	}
	if err := p.count(w.pos); err != nil {
		return nil, err
	}
	op := p.operator()
	if op == "" {
		return p.textTerm(w)
	}
	name, err := p.name(w)
	if err != nil {
		return nil, err
	}
	negate := strings.HasPrefix(op, "not ")
	e, err := p.test(name, strings.TrimPrefix(op, "not "))
	if err != nil {
		return nil, err
	}
	if negate {
		return Not{e}, nil
	}
	return e, nil
}

// operator takes what stands between a field and its value; empty: nothing does.
func (p *parser) operator() string {
	p.space()
	for _, op := range []string{"!=", "<=", ">=", "<", ">", "=", ":"} {
		if p.take(op) {
			return op
		}
	}
	for _, k := range []string{"in", "exists"} {
		if p.keyword(k) {
			return k
		}
	}
	i := p.i
	if p.keyword("not") {
		for _, k := range []string{"in", "exists"} {
			if p.keyword(k) {
				return "not " + k
			}
		}
	}
	p.i = i
	return ""
}

func (p *parser) textTerm(w word) (Expr, *Error) {
	if k := w.plain(); isKeyword(k) {
		if strings.EqualFold(k, "last") {
			d, err := p.duration("a length of time such as 2h after last")
			if err != nil {
				return nil, err
			}
			return Last{d}, nil
		}
		return nil, p.failAt(w.pos, "a field, a word or ( (a word of the language is searched in quotes)")
	}
	if t, ok := w.Text(); ok && t != "" {
		return Phrase{Text: t}, nil
	}
	if t, ok := w.prefix(); ok {
		return Phrase{Text: t, Prefix: true}, nil
	}
	return nil, p.failAt(w.pos, "words, with * at their end only; name a field for other wildcards")
}

func (p *parser) name(w word) (string, *Error) {
	t, ok := w.Text()
	switch {
	case !ok:
		return "", p.failAt(w.pos, "a field name without wildcards")
	case t == "" || len(t) > MaxName:
		return "", p.failAt(w.pos, fmt.Sprintf("a field name of 1 to %d bytes", MaxName))
	case t[0] == '_':
		return "", p.failAt(w.pos, "a field name that does not begin with _ (time, not _time)")
	case strings.HasPrefix(t, multiPrefix):
		return "", p.failAt(w.pos, "a field name that does not begin with "+multiPrefix)
	case !w.quoted && isKeyword(t):
		return "", p.failAt(w.pos, "a field name (a word of the language is written in quotes)")
	}
	return t, nil
}

func (p *parser) test(name, op string) (Expr, *Error) {
	switch op {
	case "exists":
		return Exists{name}, nil
	case "in":
		return p.in(name)
	case "<", "<=", ">", ">=":
		if isTimeField(name) {
			m, err := p.moment()
			if err != nil {
				return nil, err
			}
			return Time{name, Op(op), m}, nil
		}
		v, err := p.number()
		if err != nil {
			return nil, err
		}
		return Number{name, Op(op), v}, nil
	}

	p.space()
	pos := p.i
	if isTimeField(name) {
		if p.take("*") {
			if op == "!=" {
				return Not{Exists{name}}, nil
			}
			return Exists{name}, nil
		}
		m, err := p.moment()
		if err != nil {
			return nil, err
		}
		if op == ":" {
			return nil, p.failAt(pos, "= < <= > >= or in after "+name)
		}
		if op == "!=" {
			return Not{Time{name, equalTime, m}}, nil
		}
		return Time{name, equalTime, m}, nil
	}
	v, err := p.value()
	if err != nil {
		return nil, err
	}
	t, literal := v.Text()
	switch {
	case v.star() && op == "!=":
		return Not{Exists{name}}, nil
	case v.star():
		return Exists{name}, nil
	case literal && t == "" && op == "=":
		return Not{Exists{name}}, nil
	case literal && t == "" && op == "!=":
		return Exists{name}, nil
	case literal && t == "":
		return nil, p.failAt(pos, "words after :")
	case op == ":" && literal:
		return Phrase{Field: name, Text: t}, nil
	}
	if err := p.matchable(v, pos); err != nil {
		return nil, err
	}
	return Equal{Field: name, Pattern: v.Pattern, Fold: op == ":", Differs: op == "!="}, nil
}

// matchable refuses a pattern that the index cannot match exactly.
func (p *parser) matchable(w word, pos int) *Error {
	if _, ok := w.Text(); ok {
		return nil
	}
	for _, part := range w.Parts {
		if part.Wild == 0 && !utf8.ValidString(part.Text) {
			return p.failAt(pos, "valid UTF-8 beside a wildcard")
		}
	}
	return nil
}

func (p *parser) value() (word, *Error) {
	w, err := p.word(valueStops)
	if err != nil {
		return w, err
	}
	if w.end == w.pos || strings.IndexByte("=<>:", p.s[w.pos]) >= 0 {
		return w, p.failAt(w.pos, "a value (with spaces or punctuation in quotes)")
	}
	switch strings.ToLower(w.plain()) {
	case "and", "or", "not":
		return w, p.failAt(w.pos, "a value (a word of the language is written in quotes)")
	}
	return w, nil
}

func (p *parser) in(name string) (Expr, *Error) {
	switch {
	case p.take("("):
		var of []Pattern
		for {
			p.space()
			pos := p.i
			v, err := p.value()
			if err != nil {
				return nil, err
			}
			if t, ok := v.Text(); v.star() || ok && t == "" {
				return nil, p.failAt(pos, "a value that is neither empty nor a lone *")
			}
			if isTimeField(name) {
				return nil, p.failAt(pos, "a range [from, to] for "+name)
			}
			if err := p.matchable(v, pos); err != nil {
				return nil, err
			}
			if err := p.count(pos); err != nil {
				return nil, err
			}
			of = append(of, v.Pattern)
			if p.take(",") {
				continue
			}
			if !p.take(")") {
				return nil, p.fail(", or )")
			}
			return OneOf{name, of}, nil
		}
	case p.take("["):
		if isTimeField(name) {
			from, err := p.moment()
			if err != nil {
				return nil, err
			}
			if !p.take(",") {
				return nil, p.fail(",")
			}
			to, err := p.moment()
			if err != nil {
				return nil, err
			}
			if !p.take("]") {
				return nil, p.fail("]")
			}
			return During{name, from, to}, nil
		}
		low, err := p.number()
		if err != nil {
			return nil, err
		}
		if !p.take(",") {
			return nil, p.fail(",")
		}
		high, err := p.number()
		if err != nil {
			return nil, err
		}
		if !p.take("]") {
			return nil, p.fail("]")
		}
		return Between{name, low, high}, nil
	}
	w, err := p.word(valueStops)
	if err != nil {
		return nil, err
	}
	pre, perr := netip.ParsePrefix(w.plain())
	if perr != nil || !pre.Addr().Is4() {
		return nil, p.failAt(w.pos, "( a list ), [ a range ] or an IPv4 network such as 10.0.0.0/8")
	}
	return Network{name, pre.Masked()}, nil
}

func (p *parser) number() (float64, *Error) {
	w, err := p.word(valueStops)
	if err != nil {
		return 0, err
	}
	t, ok := w.Text()
	if !ok || t == "" || strings.Trim(t, "0123456789.eE+-") != "" {
		return 0, p.failAt(w.pos, "a number")
	}
	f, perr := strconv.ParseFloat(t, 64)
	if perr != nil || math.Abs(f) > 1e18 || f != 0 && math.Abs(f) < 1e-9 {
		return 0, p.failAt(w.pos, "a number up to 1e18")
	}
	if f == 0 {
		f = 0 // no negative zero: it prints differently
	}
	return f, nil
}

var momentForms = []string{time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02"}

func (p *parser) moment() (Moment, *Error) {
	const want = "a time such as 2026-01-31T08:00:00Z, 2026-01-31, now or now-2h"
	w, err := p.word(valueStops)
	if err != nil {
		return Moment{}, err
	}
	t, ok := w.Text()
	if !ok || t == "" {
		return Moment{}, p.failAt(w.pos, want)
	}
	if rest, ok := strings.CutPrefix(t, "now"); ok {
		if rest == "" {
			return Moment{Relative: true}, nil
		}
		d, ok := parseDuration(rest[1:])
		switch {
		case ok && rest[0] == '-':
			return Moment{Relative: true, Offset: -d}, nil
		case ok && rest[0] == '+':
			return Moment{Relative: true, Offset: d}, nil
		}
		return Moment{}, p.failAt(w.pos, want)
	}
	for _, form := range momentForms {
		at, err := time.Parse(form, t)
		if err != nil {
			continue
		}
		if y := at.UTC().Year(); y < 1970 || y > 2261 {
			return Moment{}, p.failAt(w.pos, "a time from 1970 to 2261")
		}
		return Moment{Unix: at.UnixNano()}, nil
	}
	return Moment{}, p.failAt(w.pos, want)
}

func (p *parser) duration(want string) (time.Duration, *Error) {
	w, err := p.word(valueStops)
	if err != nil {
		return 0, err
	}
	d, ok := parseDuration(w.plain())
	if !ok || d <= 0 {
		return 0, p.failAt(w.pos, want)
	}
	return d, nil
}

var units = []struct {
	name string
	d    time.Duration
}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}, {"us", time.Microsecond}, {"ns", 1}}

const maxDuration = 100 * 366 * 24 * time.Hour

// parseDuration reads 2h, 7d or 1h30m.
func parseDuration(s string) (time.Duration, bool) {
	var sum time.Duration
	for s != "" {
		n := 0
		for n < len(s) && s[n] >= '0' && s[n] <= '9' {
			n++
		}
		v, err := strconv.ParseInt(s[:n], 10, 63)
		if err != nil {
			return 0, false
		}
		s = s[n:]
		n = 0
		for n < len(s) && s[n] >= 'a' && s[n] <= 'z' {
			n++
		}
		k := slices.IndexFunc(units, func(u struct {
			name string
			d    time.Duration
		}) bool {
			return u.name == s[:n]
		})
		if k < 0 || v > int64(maxDuration/units[k].d) {
			return 0, false
		}
		if sum += time.Duration(v) * units[k].d; sum > maxDuration {
			return 0, false
		}
		s = s[n:]
	}
	return sum, sum > 0
}

// pipe reads one stage. Stages keep their order, so that each means one thing.
func (p *parser) pipe(q *Query, stage *int) *Error {
	pos := p.i
	const want = "stats or top, then sort, limit, fields, each at most once"
	step := func(n int) *Error {
		if n <= *stage {
			return p.failAt(pos, want)
		}
		*stage = n
		return nil
	}
	switch {
	case p.keyword("stats"):
		if err := step(1); err != nil {
			return err
		}
		return p.stats(q)
	case p.keyword("top"):
		if err := step(1); err != nil {
			return err
		}
		n := 10
		if w := p.bare(); w != "" && w[0] >= '0' && w[0] <= '9' {
			var err *Error
			if n, err = p.limit(10_000); err != nil {
				return err
			}
		}
		if !p.keyword("by") {
			return p.fail("by and field names")
		}
		by, err := p.names()
		if err != nil {
			return err
		}
		if slices.Contains(by, "count") {
			return p.failAt(pos, "fields that are not called count, the name of top's own column")
		}
		q.Top = &Top{N: n, By: by}
		return nil
	case p.keyword("sort"):
		if err := step(2); err != nil {
			return err
		}
		return p.sort(q)
	case p.keyword("limit"):
		if err := step(3); err != nil {
			return err
		}
		n, err := p.limit(MaxLimit)
		q.Limit = n
		return err
	case p.keyword("fields"):
		if err := step(4); err != nil {
			return err
		}
		names, err := p.names()
		q.Fields = names
		return err
	}
	p.space()
	return p.fail("stats, top, sort, limit or fields")
}

func (p *parser) limit(most int) (int, *Error) {
	w, err := p.word(valueStops)
	if err != nil {
		return 0, err
	}
	n, perr := strconv.Atoi(w.plain())
	if perr != nil || n < 1 || n > most {
		return 0, p.failAt(w.pos, fmt.Sprintf("a whole number from 1 to %d", most))
	}
	return n, nil
}

// column reads a field name inside a pipe.
func (p *parser) column() (string, *Error) {
	w, err := p.word(nameStops)
	if err != nil {
		return "", err
	}
	if w.end == w.pos {
		return "", p.failAt(w.pos, "a field name")
	}
	name, err := p.name(w)
	if err == nil && strings.ContainsRune(name, '*') {
		return "", p.failAt(w.pos, "a field name without *")
	}
	return name, err
}

func (p *parser) names() ([]string, *Error) {
	var names []string
	for {
		p.space()
		pos := p.i
		n, err := p.column()
		if err != nil {
			return nil, err
		}
		if slices.Contains(names, n) {
			return nil, p.failAt(pos, "each field once")
		}
		if names = append(names, n); len(names) > MaxFields {
			return nil, p.failAt(pos, fmt.Sprintf("at most %d fields", MaxFields))
		}
		if !p.take(",") {
			return names, nil
		}
	}
}

func (p *parser) stats(q *Query) *Error {
	st := new(Stats)
	q.Stats = st
	for {
		p.space()
		pos := p.i
		f := Func{Name: strings.ToLower(p.bare())}
		switch f.Name {
		case "count", "count_uniq", "sum", "avg", "min", "max":
		default:
			return p.fail("count(), count_uniq(), sum(), avg(), min() or max()")
		}
		p.i += len(f.Name)
		if !p.take("(") {
			return p.fail("(")
		}
		if f.Name != "count" {
			name, err := p.column()
			if err != nil {
				return err
			}
			f.Field = name
		}
		if !p.take(")") {
			return p.fail(")")
		}
		f.As = f.defaultName()
		if p.keyword("as") {
			name, err := p.column()
			if err != nil {
				return err
			}
			f.As = name
		}
		if len(f.As) > MaxName {
			return p.failAt(pos, fmt.Sprintf("a column name of at most %d bytes; name it with as", MaxName))
		}
		if st.Funcs = append(st.Funcs, f); len(st.Funcs) > MaxFields {
			return p.failAt(pos, fmt.Sprintf("at most %d columns", MaxFields))
		}
		if !p.take(",") {
			break
		}
	}
	if p.keyword("by") {
		for {
			p.space()
			pos := p.i
			if p.keyword("bin") && p.take("(") {
				d, err := p.duration("a length of time such as 1h")
				if err != nil {
					return err
				}
				if d%time.Second != 0 || st.Bin != 0 {
					return p.failAt(pos, "one bin of whole seconds")
				}
				st.Bin = d
				if !p.take(")") {
					return p.fail(")")
				}
			} else {
				p.i = pos
				name, err := p.column()
				if err != nil {
					return err
				}
				st.By = append(st.By, name)
				if len(st.By) > MaxFields {
					return p.failAt(pos, fmt.Sprintf("at most %d fields", MaxFields))
				}
			}
			if !p.take(",") {
				break
			}
		}
	}
	return nil
}

func (p *parser) sort(q *Query) *Error {
	p.keyword("by")
	for {
		p.space()
		pos := p.i
		name, err := p.sortColumn(q)
		if err != nil {
			return err
		}
		k := Key{Field: name}
		if p.keyword("desc") {
			k.Desc = true
		} else {
			p.keyword("asc")
		}
		if slices.ContainsFunc(q.Sort, func(o Key) bool { return o.Field == k.Field }) {
			return p.failAt(pos, "each field once")
		}
		if q.Sort = append(q.Sort, k); len(q.Sort) > MaxFields {
			return p.failAt(pos, fmt.Sprintf("at most %d fields", MaxFields))
		}
		if !p.take(",") {
			return nil
		}
	}
}

// sortColumn lets a computed column be named as it was computed: count() for count.
func (p *parser) sortColumn(q *Query) (string, *Error) {
	name, err := p.column()
	if err != nil {
		return "", err
	}
	if q.Stats == nil || p.peek() != '(' {
		return name, nil
	}
	f := Func{Name: strings.ToLower(name)}
	p.take("(")
	if !p.take(")") {
		if f.Field, err = p.column(); err != nil {
			return "", err
		}
		if !p.take(")") {
			return "", p.fail(")")
		}
	}
	for _, g := range q.Stats.Funcs {
		if g.Name == f.Name && g.Field == f.Field {
			return g.As, nil
		}
	}
	return "", p.fail("a column of stats")
}

// check refuses columns that a table does not have and columns that have one name.
func (q *Query) check(p *parser) *Error {
	if !q.IsTable() {
		return nil
	}
	fields := q.Fields
	q.Fields = nil
	cols := q.Columns()
	q.Fields = fields
	seen := make(map[string]bool, len(cols))
	for _, c := range cols {
		if seen[c] {
			return p.fail("columns with different names; name one with as")
		}
		seen[c] = true
	}
	for _, k := range q.Sort {
		if !seen[k.Field] {
			return p.fail("sort by a column of the table")
		}
	}
	for _, f := range q.Fields {
		if !seen[f] {
			return p.fail("fields that are columns of the table")
		}
	}
	return nil
}
