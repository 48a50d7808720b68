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
	targets   []string // of a filter: ids and names; empty means every rule
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

func (r *Refusal) Error() string { return place(r.Path, r.Line, r.Title, r.Reason) }

// A Warning says what an author probably did not mean; the rule works.
type Warning struct {
	Path          string
	Line          int
	RuleID, Title string
	Text          string
}

func (w Warning) String() string { return place(w.Path, w.Line, w.Title, w.Text) }

func place(path string, line int, title, text string) string {
	var b strings.Builder
	b.WriteString(path)
	if line > 0 {
		fmt.Fprintf(&b, ":%d", line)
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
