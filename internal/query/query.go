// Package query is the search language: text that a person types, the tree it
// means, and the two texts that the tree prints: the same question again, and
// LogsQL for the index.
//
// It promises three things. Parse, print, parse again gives the same tree. What a
// person typed reaches the index only as quoted literals printed from the tree,
// never as pasted text. And a value stays the value: no value is ever turned into
// a token here or later.
//
// It evaluates nothing and decides nothing about access; Fields and Walk are for
// the code that does.
//
// # The language
//
//	user.uid = p1_abcd… and process.file.path : *\cmd.exe | top 5 by device.hostname
//
// A field is an OCSF attribute by its own name. Fields of the producer stand under
// `native.`; the row itself has ref, time, sealed, compartment, source, dataset,
// kind and truncated; findings have finding.* and rule.*.
//
//	field = value          exactly, upper and lower case differ; * and ? are wildcards
//	field != value         has the field, and no value of it equals
//	field : "two words"    whole words in this order, case ignored
//	field : *\cmd.exe      whole value with wildcards, case ignored
//	field < 5  <= > >=     numbers; times for time and sealed
//	field in (a, b)        equals one of them
//	field in [1, 5]        number or time from … to, both included
//	field in 10.0.0.0/8    IPv4 network
//	field exists           has a value; also field = *
//	"two words"  word      words anywhere in the row's text, case ignored; mimi* begins a word
//	last 2h                time >= now-2h and time <= now
//	and  or  not  ( )      terms side by side mean and
//
// Empty and null values are not stored: field = "" means that the row has none.
// A field with several values equals each of them; ordering, networks, statistics
// and sorting see its first. Equality is of texts: 60 and 60.0 differ; ordering and
// statistics take both for one number.
//
// A value is written bare, or in quotes where it holds spaces or punctuation, or
// both side by side ('C:\Program Files\'*). Bare text follows Sigma: \* \? and \\
// stand for the character itself, any other backslash is a backslash. "…" knows \"
// and \\ only, '…' knows nothing, e"…" knows the escapes of Go (e"\xff\n"). There
// are no wildcards inside quotes.
//
// Pipes, in this order, each at most once:
//
//	| stats count(), count_uniq(x) as u by y, bin(1h)     or   | top 5 by x, y
//	| sort by count desc, y
//	| limit 10
//	| fields a, b
//
// stats knows count, count_uniq, sum, avg, min and max. A column without a name of
// its own is called by its function, or by function(field) where there is a field.
package query

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of a question.
const (
	MaxText   = 64 << 10 // bytes
	MaxDepth  = 64       // parentheses and not
	MaxTerms  = 2000     // tests, list members included
	MaxName   = 128      // bytes of a field name
	MaxFields = 50       // names in one pipe
	MaxLimit  = 1_000_000
)

// Query is one parsed question.
type Query struct {
	Where  Expr // nil: every row
	Stats  *Stats
	Top    *Top
	Sort   []Key
	Limit  int      // 0: none given
	Fields []string // nil: all
}

// Expr is a condition: And, Or, Not or one of the tests.
type Expr interface{ expr() }

// And holds when all hold. It has at least two members, none of them an And.
type And struct{ Of []Expr }

// Or holds when one holds. It has at least two members, none of them an Or.
type Or struct{ Of []Expr }

// Not holds when its condition does not.
type Not struct{ Of Expr }

// Equal holds when a value of the field matches the whole pattern. Fold ignores
// case.
type Equal struct {
	Field   string
	Pattern Pattern
	Fold    bool
	Differs bool // the field is there and no value matches
}

// Phrase holds when the words stand in the field, case ignored. An empty Field is
// the text of the whole row. Prefix lets the last word go on.
type Phrase struct {
	Field  string
	Text   string
	Prefix bool
}

// Exists holds when the field has a value.
type Exists struct{ Field string }

// OneOf holds when Equal holds for one of the patterns.
type OneOf struct {
	Field string
	Of    []Pattern
}

// Op orders a field against a bound.
type Op string

// The orders.
const (
	Less      Op = "<"
	AtMost    Op = "<="
	Greater   Op = ">"
	AtLeast   Op = ">="
	equalTime Op = "="
)

// Number compares a field with a number.
type Number struct {
	Field string
	Op    Op
	Value float64
}

// Between holds for numbers from Low to High, both included.
type Between struct {
	Field     string
	Low, High float64
}

// Network holds for IPv4 addresses of a network.
type Network struct {
	Field  string
	Prefix netip.Prefix
}

// Time compares time or sealed with a moment.
type Time struct {
	Field string
	Op    Op
	Value Moment
}

// During holds for times from From to To, both included.
type During struct {
	Field    string
	From, To Moment
}

// Last holds for the time between now less D and now.
type Last struct{ D time.Duration }

func (And) expr()     {}
func (Or) expr()      {}
func (Not) expr()     {}
func (Equal) expr()   {}
func (Phrase) expr()  {}
func (Exists) expr()  {}
func (OneOf) expr()   {}
func (Number) expr()  {}
func (Between) expr() {}
func (Network) expr() {}
func (Time) expr()    {}
func (During) expr()  {}
func (Last) expr()    {}

// Moment is a point in time, or a distance from now.
type Moment struct {
	Relative bool
	Offset   time.Duration // with Relative
	Unix     int64         // nanoseconds, without Relative
}

// At gives the point in time for one now.
func (m Moment) At(now time.Time) int64 {
	if !m.Relative {
		return m.Unix
	}
	return now.Add(m.Offset).UnixNano()
}

// Pattern is a text with wildcards in it. Its parts alternate freely; two literal
// parts are never neighbours, so that equal patterns have equal parts.
type Pattern struct{ Parts []Part }

// Part is a literal text, or one wildcard.
type Part struct {
	Wild byte   // 0 for a literal, '*' for any text, '?' for one character
	Text string // with Wild 0
}

// Literal makes a pattern of one text.
func Literal(s string) Pattern {
	if s == "" {
		return Pattern{}
	}
	return Pattern{Parts: []Part{{Text: s}}}
}

// Text returns the text of a pattern without wildcards.
func (p Pattern) Text() (string, bool) {
	switch {
	case len(p.Parts) == 0:
		return "", true
	case len(p.Parts) == 1 && p.Parts[0].Wild == 0:
		return p.Parts[0].Text, true
	}
	return "", false
}

// prefix returns the text before a single star at the end.
func (p Pattern) prefix() (string, bool) {
	if len(p.Parts) == 2 && p.Parts[0].Wild == 0 && p.Parts[1].Wild == '*' {
		return p.Parts[0].Text, true
	}
	return "", false
}

func (p Pattern) star() bool { return len(p.Parts) == 1 && p.Parts[0].Wild == '*' }

func (p *Pattern) literal(s string) {
	if s == "" {
		return
	}
	if n := len(p.Parts); n > 0 && p.Parts[n-1].Wild == 0 {
		p.Parts[n-1].Text += s
		return
	}
	p.Parts = append(p.Parts, Part{Text: s})
}

func (p *Pattern) wild(c byte) {
	if n := len(p.Parts); c == '*' && n > 0 && p.Parts[n-1].Wild == '*' {
		return
	}
	p.Parts = append(p.Parts, Part{Wild: c})
}

// Stats groups rows and computes.
type Stats struct {
	Funcs []Func
	By    []string
	Bin   time.Duration // 0: time is no group; else the column `time`
}

// Func is one computed column.
type Func struct {
	Name  string // count, count_uniq, sum, avg, min, max
	Field string // empty for count
	As    string // column name; never empty after Parse
}

func (f Func) defaultName() string {
	if f.Field == "" {
		return f.Name
	}
	return f.Name + "(" + f.Field + ")"
}

// Top counts the most frequent values; its count is in the column `count`.
type Top struct {
	N  int
	By []string
}

// Key is one column to sort by.
type Key struct {
	Field string
	Desc  bool
}

// IsTable reports whether the answer is a table of columns and not events.
func (q *Query) IsTable() bool { return q.Stats != nil || q.Top != nil }

// Columns names the columns of a table in order; nil where the answer is events.
func (q *Query) Columns() []string {
	var c []string
	switch {
	case q.Stats != nil:
		if q.Stats.Bin > 0 {
			c = append(c, "time")
		}
		c = append(c, q.Stats.By...)
		for _, f := range q.Stats.Funcs {
			c = append(c, f.As)
		}
	case q.Top != nil:
		c = append(append(c, q.Top.By...), "count")
	default:
		return nil
	}
	if q.Fields != nil {
		return slices.Clone(q.Fields)
	}
	return c
}

// Walk calls f for every condition, parents first.
func (q *Query) Walk(f func(Expr)) { walk(q.Where, f) }

func walk(e Expr, f func(Expr)) {
	if e == nil {
		return
	}
	f(e)
	switch e := e.(type) {
	case And:
		for _, x := range e.Of {
			walk(x, f)
		}
	case Or:
		for _, x := range e.Of {
			walk(x, f)
		}
	case Not:
		walk(e.Of, f)
	}
}

// Names lists every stored field that the question reads or shows, sorted, each
// once. The text of the whole row is the name "".
func (q *Query) Names() []string {
	var names []string
	q.Walk(func(e Expr) {
		switch e := e.(type) {
		case Equal:
			names = append(names, e.Field)
		case Phrase:
			names = append(names, e.Field)
		case Exists:
			names = append(names, e.Field)
		case OneOf:
			names = append(names, e.Field)
		case Number:
			names = append(names, e.Field)
		case Between:
			names = append(names, e.Field)
		case Network:
			names = append(names, e.Field)
		case Time:
			names = append(names, e.Field)
		case During:
			names = append(names, e.Field)
		case Last:
			names = append(names, "time")
		}
	})
	switch {
	case q.Stats != nil:
		names = append(names, q.Stats.By...)
		if q.Stats.Bin > 0 {
			names = append(names, "time")
		}
		for _, f := range q.Stats.Funcs {
			if f.Field != "" {
				names = append(names, f.Field)
			}
		}
	case q.Top != nil:
		names = append(names, q.Top.By...)
	default:
		for _, k := range q.Sort {
			names = append(names, k.Field)
		}
		names = append(names, q.Fields...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Range returns the bounds of time that every matching row keeps, both included.
// A bound that the question does not set is the earliest or latest time there is.
func (q *Query) Range(now time.Time) (from, to time.Time) {
	lo, hi := minTime, maxTime
	narrow := func(e Expr) {
		switch e := e.(type) {
		case Last:
			lo, hi = max(lo, now.Add(-e.D).UnixNano()), min(hi, now.UnixNano())
		case During:
			if e.Field == "time" {
				lo, hi = max(lo, e.From.At(now)), min(hi, e.To.At(now))
			}
		case Time:
			if e.Field != "time" {
				return
			}
			at := e.Value.At(now)
			switch e.Op {
			case Less:
				hi = min(hi, at-1)
			case AtMost:
				hi = min(hi, at)
			case Greater:
				lo = max(lo, at+1)
			case AtLeast:
				lo = max(lo, at)
			case equalTime:
				lo, hi = max(lo, at), min(hi, at)
			}
		}
	}
	if and, ok := q.Where.(And); ok {
		for _, e := range and.Of {
			narrow(e)
		}
	} else {
		narrow(q.Where)
	}
	return time.Unix(0, lo).UTC(), time.Unix(0, hi).UTC()
}

// Times that a question may name: 1970 to the end of 2261.
var (
	minTime = time.Unix(0, 0).UnixNano()
	maxTime = time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano() - 1
)

// single names the fields that the row owns: they have one value and are stored as
// it is.
func single(name string) bool {
	switch name {
	case "ref", "sealed", "compartment", "source", "dataset", "kind", "truncated", "time":
		return true
	}
	return false
}

func isTimeField(name string) bool { return name == "time" || name == "sealed" }

// Error says where a question stops making sense. It never repeats what was typed:
// a question may hold a name.
type Error struct {
	Pos  int // byte offset in the text
	Col  int // character, from 1
	Want string
	Got  string
}

func (e *Error) Error() string {
	s := "at character " + strconv.Itoa(e.Col) + ": expected " + e.Want
	if e.Got != "" {
		s += ", found " + e.Got
	}
	return s
}

var keywords = []string{"and", "or", "not", "in", "exists", "last"}

func isKeyword(s string) bool { return slices.Contains(keywords, strings.ToLower(s)) }
