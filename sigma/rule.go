package sigma

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// A Rule is one Sigma rule as its author wrote it, or one filter when Filter is
// true. It comes from Parse and is read-only.
type Rule struct {
	ID, Name, Title, Status, Level string
	Author, License, Description   string
	Date, Modified                 string
	Tags, References               []string
	FalsePositives, Fields, Scope  []string
	Related                        []Related
	LogSource                      LogSource
	// Digest is the SHA-256 of the document's bytes: the whole file, or from its
	// "---" line to the next one where a file holds several.
	Digest   [32]byte
	Path     string
	Line     int     // of the document's first key
	Extra    []Extra // top-level keys that Sigma does not define
	Warnings []Warning
	// Filter marks a filter document: Compile adds its condition to the rules
	// that it names, and Set.Rules does not list it.
	Filter bool
	// Correlation is what a correlation document looks for; nil in other rules.
	// Such a rule has no log source and stands in Set.Correlations.
	Correlation *Correlation

	searches  []search // search identifiers in source order
	condition *cond

	conditionLine, conditionCol int // of its key

	targets []string // of a filter: ids and names; empty means every rule
}

// Related is an entry of a rule's related list.
type Related struct{ ID, Type string }

// Extra is a top-level key that the specification leaves to the author.
type Extra struct {
	Key  string
	YAML string // its value as YAML text
}

// Key returns the rule's id, or its digest in hexadecimal when it has none.
func (r *Rule) Key() string {
	if r.ID != "" {
		return r.ID
	}
	return "sha256:" + hex.EncodeToString(r.Digest[:])
}

// A Refusal says why a document was not taken.
type Refusal struct {
	Path          string
	Line          int
	RuleID, Title string
	Reason        string
}

func (r *Refusal) Error() string { return place(r.Path, r.Line, 0, r.Title, r.Reason) }

// A Warning says what an author probably did not mean; the rule works.
type Warning struct {
	Path          string
	Line          int
	Column        int // characters, from 1; 0 where the warning is about the whole document
	RuleID, Title string
	Class         Class
	Text          string
}

// A Class is a kind of warning, a word that stays the same between versions.
type Class string

// The classes of warnings.
const (
	// ClassSchema: the document is not what the JSON schema of the specification
	// asks for.
	ClassSchema Class = "schema"
	// ClassDead: a search identifier never makes a difference to the rule.
	ClassDead Class = "dead-selection"
	// ClassImpossible: no event can satisfy the rule or a part of it.
	ClassImpossible Class = "impossible"
	// ClassContradiction: only an event that holds a field more than once can
	// satisfy the rule or a part of it.
	ClassContradiction Class = "contradiction"
	// ClassAlways: every event satisfies the rule or a part of it.
	ClassAlways Class = "always"
	// ClassCost: the rule costs far more to ask than others.
	ClassCost Class = "cost"
	// ClassDuplicate: two rules look for the same, or have the same name.
	ClassDuplicate Class = "duplicate"
	// ClassFilter: a filter does not do what filters are for.
	ClassFilter Class = "filter"
	// ClassCorrelation: a correlation probably does not relate what its author
	// wanted.
	ClassCorrelation Class = "correlation"
)

func (r *Rule) warning(class Class, line, col int, format string, args ...any) Warning {
	return Warning{r.Path, line, col, r.ID, r.Title, class, fmt.Sprintf(format, args...)}
}

func (w Warning) String() string { return place(w.Path, w.Line, w.Column, w.Title, w.Text) }

func place(path string, line, column int, title, text string) string {
	var b strings.Builder
	b.WriteString(path)
	if line > 0 {
		fmt.Fprintf(&b, ":%d", line)
	}
	if column > 0 {
		fmt.Fprintf(&b, ":%d", column)
	}
	if title != "" {
		fmt.Fprintf(&b, ": rule %q", title)
	}
	b.WriteString(": ")
	b.WriteString(text)
	return b.String()
}

// fault is an error at a line of a document.
type fault struct {
	line   int
	reason string
}

func (f *fault) Error() string { return f.reason }

func faultf(line int, format string, args ...any) *fault {
	return &fault{line, fmt.Sprintf(format, args...)}
}
