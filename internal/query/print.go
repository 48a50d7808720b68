package query

import (
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// String prints the question so that Parse reads the same tree again. Invisible
// and right-to-left characters come out as escapes.
func (q *Query) String() string {
	var b strings.Builder
	if q.Where == nil {
		b.WriteByte('*')
	} else {
		printExpr(&b, q.Where, false)
	}
	switch {
	case q.Stats != nil:
		b.WriteString(" | stats ")
		for i, f := range q.Stats.Funcs {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(f.Name)
			b.WriteByte('(')
			if f.Field != "" {
				b.WriteString(quoteName(f.Field))
			}
			b.WriteByte(')')
			if f.As != f.defaultName() {
				b.WriteString(" as ")
				b.WriteString(quoteName(f.As))
			}
		}
		sep := " by "
		for _, n := range q.Stats.By {
			b.WriteString(sep)
			b.WriteString(quoteName(n))
			sep = ", "
		}
		if q.Stats.Bin > 0 {
			b.WriteString(sep)
			b.WriteString("bin(" + printDuration(q.Stats.Bin) + ")")
		}
	case q.Top != nil:
		b.WriteString(" | top " + strconv.Itoa(q.Top.N) + " by " + quoteNames(q.Top.By))
	}
	for i, k := range q.Sort {
		if i == 0 {
			b.WriteString(" | sort by ")
		} else {
			b.WriteString(", ")
		}
		b.WriteString(quoteName(k.Field))
		if k.Desc {
			b.WriteString(" desc")
		}
	}
	if q.Limit > 0 {
		b.WriteString(" | limit " + strconv.Itoa(q.Limit))
	}
	if q.Fields != nil {
		b.WriteString(" | fields " + quoteNames(q.Fields))
	}
	return b.String()
}

func quoteNames(names []string) string {
	q := make([]string, len(names))
	for i, n := range names {
		q[i] = quoteName(n)
	}
	return strings.Join(q, ", ")
}

func printList(b *strings.Builder, of []Expr, sep string) {
	for i, e := range of {
		if i > 0 {
			b.WriteString(sep)
		}
		printExpr(b, e, true)
	}
}

func printExpr(b *strings.Builder, e Expr, inner bool) {
	switch e := e.(type) {
	case And, Or:
		if inner {
			b.WriteByte('(')
			defer b.WriteByte(')')
		}
		if a, ok := e.(And); ok {
			printList(b, a.Of, " and ")
		} else {
			printList(b, e.(Or).Of, " or ")
		}
	case Not:
		b.WriteString("not ")
		printExpr(b, e.Of, true)
	case Equal:
		op := " = "
		switch {
		case e.Differs:
			op = " != "
		case e.Fold:
			op = " : "
		}
		b.WriteString(quoteName(e.Field) + op + e.Pattern.String())
	case Phrase:
		if e.Field != "" {
			b.WriteString(quoteName(e.Field) + " : ")
		}
		b.WriteString(quoteText(e.Text))
		if e.Prefix {
			b.WriteByte('*')
		}
	case Exists:
		b.WriteString(quoteName(e.Field) + " exists")
	case OneOf:
		b.WriteString(quoteName(e.Field) + " in (")
		for i, v := range e.Of {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(v.String())
		}
		b.WriteByte(')')
	case Number:
		b.WriteString(quoteName(e.Field) + " " + string(e.Op) + " " + printNumber(e.Value))
	case Between:
		b.WriteString(quoteName(e.Field) + " in [" + printNumber(e.Low) + ", " + printNumber(e.High) + "]")
	case Network:
		b.WriteString(quoteName(e.Field) + " in " + e.Prefix.String())
	case Time:
		b.WriteString(quoteName(e.Field) + " " + string(e.Op) + " " + e.Value.String())
	case During:
		b.WriteString(quoteName(e.Field) + " in [" + e.From.String() + ", " + e.To.String() + "]")
	case Last:
		b.WriteString("last " + printDuration(e.D))
	}
}

// String prints a pattern as a value of the language.
func (p Pattern) String() string {
	if len(p.Parts) == 0 {
		return `""`
	}
	var b strings.Builder
	for _, part := range p.Parts {
		if part.Wild != 0 {
			b.WriteByte(part.Wild)
			continue
		}
		b.WriteString(quoteValue(part.Text))
	}
	return b.String()
}

// String prints a moment.
func (m Moment) String() string {
	switch {
	case !m.Relative:
		return time.Unix(0, m.Unix).UTC().Format(time.RFC3339Nano)
	case m.Offset < 0:
		return "now-" + printDuration(-m.Offset)
	case m.Offset > 0:
		return "now+" + printDuration(m.Offset)
	}
	return "now"
}

func printNumber(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// printDuration uses the largest unit that divides it.
func printDuration(d time.Duration) string {
	for _, u := range units {
		if d%u.d == 0 {
			return strconv.FormatInt(int64(d/u.d), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(d), 10) + "ns"
}

func wordRune(r rune) bool {
	return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("_-./@%#$+~^&;{}", r))
}

// quoteName prints a field name: bare where that is read back as it is.
func quoteName(s string) string {
	if s == "" || isKeyword(s) {
		return quoteText(s)
	}
	for _, r := range s {
		if !wordRune(r) {
			return quoteText(s)
		}
	}
	return s
}

// quoteValue prints a literal: bare where that is read back as it is.
func quoteValue(s string) string {
	if s == "" || isKeyword(s) || s[0] == ':' {
		return quoteText(s)
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == '\\':
			b.WriteByte('\\')
			if i+1 == len(s) || s[i+1] == '\\' {
				b.WriteByte('\\')
			}
		case wordRune(r) || r == ':':
			b.WriteRune(r)
		default:
			return quoteText(s)
		}
	}
	return b.String()
}

func quoteText(s string) string {
	plain := utf8.ValidString(s)
	for _, r := range s {
		plain = plain && strconv.IsPrint(r)
	}
	if !plain {
		return "e" + strconv.Quote(s)
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
