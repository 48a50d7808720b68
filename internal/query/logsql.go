package query

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A field with several values is stored twice: under its name the first value, so
// that ordering and statistics have one; under multiPrefix and its name all of
// them, each between separators. A separator inside a value is escaped, so a value
// cannot pretend to be two; the escapes hold no letters, so words stay words. The
// separator is the character that a dot of RE2 does not match: a class of all others
// costs the library 20 ms to parse, once for each wildcard.
const (
	multiPrefix = "multi."
	separator   = "\n"
)

var (
	escapeMulti   = strings.NewReplacer("\x1e", "\x1e\x1d", "\n", "\x1e\x1f")
	unescapeMulti = strings.NewReplacer("\x1e\x1d", "\x1e", "\x1e\x1f", "\n")
)

// MultiName is the stored name of all values of a field.
func MultiName(field string) string { return multiPrefix + field }

// FieldOfMulti undoes MultiName.
func FieldOfMulti(stored string) (string, bool) { return strings.CutPrefix(stored, multiPrefix) }

// JoinMulti makes the stored form of several values.
func JoinMulti(values []string) string {
	var b strings.Builder
	b.WriteString(separator)
	for _, v := range values {
		b.WriteString(escapeMulti.Replace(v))
		b.WriteString(separator)
	}
	return b.String()
}

// SplitMulti undoes JoinMulti.
func SplitMulti(stored string) []string {
	stored = strings.TrimSuffix(strings.TrimPrefix(stored, separator), separator)
	values := strings.Split(stored, separator)
	for i, v := range values {
		values[i] = unescapeMulti.Replace(v)
	}
	return values
}

// SealedForm is how the time of sealing is stored: all digits, so that its order as
// text is its order in time.
const SealedForm = "2006-01-02T15:04:05.000000000Z"

// StoredName is the name of a field in the index.
func StoredName(field string) string {
	if field == "time" {
		return "_time"
	}
	return field
}

// TextField is the stored field that holds the text of the whole row.
const TextField = "_msg"

// FilterLogsQL prints the condition alone. Relative times are taken from now.
func (q *Query) FilterLogsQL(now time.Time) string {
	if q.Where == nil {
		return "*"
	}
	l := logsql{now: now}
	l.expr(q.Where)
	return l.String()
}

// LogsQL prints the whole question. Relative times are taken from now.
func (q *Query) LogsQL(now time.Time) string { return q.FilterLogsQL(now) + q.PipesLogsQL() }

// PipesLogsQL prints what follows the condition, " | " included; empty where
// nothing does.
func (q *Query) PipesLogsQL() string {
	l := logsql{}
	switch {
	case q.Stats != nil:
		l.WriteString(" | stats ")
		if len(q.Stats.By) > 0 || q.Stats.Bin > 0 {
			l.WriteString("by (")
			sep := ""
			if q.Stats.Bin > 0 {
				l.WriteString("_time:" + strconv.FormatInt(int64(q.Stats.Bin/time.Second), 10) + "s")
				sep = ", "
			}
			for _, n := range q.Stats.By {
				l.WriteString(sep)
				l.name(n)
				sep = ", "
			}
			l.WriteString(") ")
		}
		for i, f := range q.Stats.Funcs {
			if i > 0 {
				l.WriteString(", ")
			}
			l.WriteString(f.Name + "(")
			if f.Field != "" {
				l.name(f.Field)
			}
			l.WriteString(") as " + strconv.Quote(f.As))
		}
	case q.Top != nil:
		l.WriteString(" | top " + strconv.Itoa(q.Top.N) + " by (")
		l.names(q.Top.By)
		l.WriteString(`) hits as "count"`)
	}
	if len(q.Sort) > 0 {
		l.WriteString(" | " + q.sortLogsQL())
	}
	if q.Limit > 0 {
		l.WriteString(" | limit " + strconv.Itoa(q.Limit))
	}
	if q.Fields != nil {
		l.WriteString(" | fields ")
		l.names(q.Fields)
	}
	return l.String()
}

// EventPipesLogsQL prints the pipes that answer with events: at most n rows (0: all)
// in the order that the question asks for, newest first by default, and where the
// question names fields, those and the ones in also.
func (q *Query) EventPipesLogsQL(n int, also ...string) string {
	l := logsql{}
	if len(q.Sort) > 0 {
		l.WriteString(" | " + q.sortLogsQL())
	} else {
		l.WriteString(" | sort by (_time desc, ref)")
	}
	if n > 0 {
		l.WriteString(" limit " + strconv.Itoa(n))
	}
	if q.Fields != nil {
		l.WriteString(" | fields ")
		l.names(append(append([]string(nil), also...), q.Fields...))
		for _, f := range q.Fields {
			if !single(f) {
				l.WriteString(", " + strconv.Quote(MultiName(f)))
			}
		}
	}
	return l.String()
}

func (q *Query) sortLogsQL() string {
	l := logsql{}
	l.WriteString("sort by (")
	for i, k := range q.Sort {
		if i > 0 {
			l.WriteString(", ")
		}
		l.name(k.Field)
		if k.Desc {
			l.WriteString(" desc")
		}
	}
	l.WriteString(")")
	return l.String()
}

// logsql writes LogsQL. Names and values reach it through strconv.Quote only.
type logsql struct {
	strings.Builder
	now time.Time
}

func (l *logsql) name(n string) { l.WriteString(strconv.Quote(StoredName(n))) }

func (l *logsql) names(names []string) {
	for i, n := range names {
		if i > 0 {
			l.WriteString(", ")
		}
		l.name(n)
	}
}

func (l *logsql) field(stored string) { l.WriteString(strconv.Quote(stored) + ":") }

func (l *logsql) list(of []Expr, sep string) {
	l.WriteString("(")
	for i, e := range of {
		if i > 0 {
			l.WriteString(sep)
		}
		l.expr(e)
	}
	l.WriteString(")")
}

// either writes the test on the field itself and, where the field may have several
// values, on all of them.
func (l *logsql) either(field string, one, all func(stored string)) {
	if field == "" {
		one(TextField)
		return
	}
	if single(field) {
		one(StoredName(field))
		return
	}
	l.WriteString("(")
	one(field)
	l.WriteString(" or ")
	all(MultiName(field))
	l.WriteString(")")
}

func (l *logsql) expr(e Expr) {
	switch e := e.(type) {
	case And:
		l.list(e.Of, " and ")
	case Or:
		l.list(e.Of, " or ")
	case Not:
		l.WriteString("!(")
		l.expr(e.Of)
		l.WriteString(")")
	case Equal:
		if e.Differs {
			l.WriteString("(")
			l.field(StoredName(e.Field))
			l.WriteString("* and !(")
			l.equal(e)
			l.WriteString("))")
			return
		}
		l.equal(e)
	case Phrase:
		write := func(stored, text string) {
			l.field(stored)
			l.WriteString("i(" + strconv.Quote(text))
			if e.Prefix {
				l.WriteString("*")
			}
			l.WriteString(")")
		}
		l.either(e.Field,
			func(n string) { write(n, e.Text) },
			func(n string) { write(n, escapeMulti.Replace(e.Text)) })
	case Exists:
		l.field(StoredName(e.Field))
		l.WriteString("*")
	case OneOf:
		l.oneOf(e)
	case Number:
		l.field(e.Field)
		l.WriteString(string(e.Op) + strconv.Quote(printNumber(e.Value)))
	case Between:
		l.WriteString("(")
		l.field(e.Field)
		l.WriteString(">=" + strconv.Quote(printNumber(e.Low)) + " and ")
		l.field(e.Field)
		l.WriteString("<=" + strconv.Quote(printNumber(e.High)) + ")")
	case Network:
		l.field(e.Field)
		l.WriteString("ipv4_range(" + strconv.Quote(network(e.Prefix)) + ")")
	case Time:
		l.moment(e.Field, e.Op, e.Value.At(l.now))
	case During:
		l.WriteString("(")
		l.moment(e.Field, AtLeast, e.From.At(l.now))
		l.WriteString(" and ")
		l.moment(e.Field, AtMost, e.To.At(l.now))
		l.WriteString(")")
	case Last:
		l.WriteString("(")
		l.moment("time", AtLeast, l.now.Add(-e.D).UnixNano())
		l.WriteString(" and ")
		l.moment("time", AtMost, l.now.UnixNano())
		l.WriteString(")")
	}
}

func network(p netip.Prefix) string { return p.Masked().String() }

// moment writes all nine digits: with fewer LogsQL widens the bound to the end of
// the last digit written.
func (l *logsql) moment(field string, op Op, ns int64) {
	ns = max(ns, minTime)
	ns = min(ns, maxTime)
	t := time.Unix(0, ns).UTC()
	if field == "time" {
		if op == equalTime {
			l.WriteString("(")
			l.moment(field, AtLeast, ns)
			l.WriteString(" and ")
			l.moment(field, AtMost, ns)
			l.WriteString(")")
			return
		}
		l.WriteString("_time:" + string(op) + t.Format(SealedForm))
		return
	}
	// sealed is text: string_range takes its lower bound in and its upper out.
	const end = "\xff"
	at := t.Format(SealedForm)
	low, high := "", end
	switch op {
	case Less:
		low, high = "0", at
	case AtMost:
		low, high = "0", at+"\x00"
	case Greater:
		low = at + "\x00"
	case AtLeast:
		low = at
	case equalTime:
		low, high = at, at+"\x00"
	}
	l.field(field)
	l.WriteString("string_range(" + strconv.Quote(low) + ", " + strconv.Quote(high) + ")")
}

func (l *logsql) equal(e Equal) {
	text, literal := e.Pattern.Text()
	prefix, isPrefix := e.Pattern.prefix()
	switch {
	case literal:
		_, exact := Stored(text)
		alone := text
		if !exact && !single(e.Field) {
			alone += textMark // nothing with a mark is without its written form beside it
		}
		one := func(n string) { l.field(n); l.WriteString("=" + strconv.Quote(alone)) }
		all := func(n string) { l.field(n); l.WriteString(strconv.Quote(JoinMulti([]string{text}))) }
		switch {
		case single(e.Field):
			one(StoredName(e.Field))
		case !exact || number(text):
			// It may stand under the field for a number written in another way; then
			// the written one stands among all values. The alternative stays even
			// where only all values can match: a test that stands alone beside others
			// loses texts with bytes that are not UTF-8 (the library asks for whole
			// words of a constant column and takes such a byte for a letter).
			l.either(e.Field,
				func(n string) {
					l.WriteString("(")
					one(n)
					l.WriteString(" and !")
					l.field(MultiName(n))
					l.WriteString("*)")
				}, all)
		default:
			l.either(e.Field, one, all)
		}
	case isPrefix && !e.Fold:
		l.either(e.Field,
			func(n string) { l.field(n); l.WriteString("=" + strconv.Quote(prefix) + "*") },
			func(n string) {
				l.field(n)
				l.WriteString(strconv.Quote(separator+escapeMulti.Replace(prefix)) + "*")
			})
	default:
		fold := ""
		if e.Fold {
			fold = "i"
		}
		l.either(e.Field,
			func(n string) {
				l.field(n)
				l.WriteString("~" + strconv.Quote("(?s"+fold+")^"+expression(e.Pattern, nil)+"$"))
			},
			func(n string) {
				l.field(n)
				flags := "(?-s)" // said, because the library's default is the other
				if fold != "" {
					flags = "(?i-s)"
				}
				l.WriteString("~" + strconv.Quote(flags+separator+expression(e.Pattern, escapeMulti)+separator))
			})
	}
}

// expression prints a pattern as RE2. Among several values the dot stops at the
// separator.
func expression(p Pattern, escape *strings.Replacer) string {
	var b strings.Builder
	for _, part := range p.Parts {
		switch part.Wild {
		case '*':
			b.WriteString(".*")
		case '?':
			b.WriteString(".")
		default:
			text := part.Text
			if escape != nil {
				text = escape.Replace(text)
			}
			b.WriteString(regexp.QuoteMeta(text))
		}
	}
	return b.String()
}

// oneOf uses in() for plain texts. A lone star in in() matches every row, so that,
// an empty text and numbers are written out.
func (l *logsql) oneOf(e OneOf) {
	var plain []string
	var rest []Pattern
	for _, p := range e.Of {
		t, ok := p.Text()
		_, exact := Stored(t)
		if ok && t != "*" && t != "" && (single(e.Field) || exact && !number(t)) {
			plain = append(plain, t)
		} else {
			rest = append(rest, p)
		}
	}
	l.WriteString("(")
	if len(plain) > 0 {
		quoted := make([]string, len(plain))
		for i, t := range plain {
			quoted[i] = strconv.Quote(t)
		}
		l.field(StoredName(e.Field))
		l.WriteString("in(" + strings.Join(quoted, ", ") + ")")
		if !single(e.Field) {
			for _, t := range plain {
				l.WriteString(" or ")
				l.field(MultiName(e.Field))
				l.WriteString(strconv.Quote(JoinMulti([]string{t})))
			}
		}
	}
	for i, p := range rest {
		if i > 0 || len(plain) > 0 {
			l.WriteString(" or ")
		}
		l.equal(Equal{Field: e.Field, Pattern: p})
	}
	l.WriteString(")")
}
