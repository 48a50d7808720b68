package scan

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/admit"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/parse"
	"github.com/counterseal/counterseal/internal/pia"
	"github.com/counterseal/counterseal/internal/pseudonym"
)

// mask turns hits into findings and, unless the names are asked for, identities
// into tokens. It is read-only and safe for use by many goroutines.
//
// A scan has no assessment that says what a field is. What package parse proposes
// for the usual fields of a dataset stands in for it: fields that name a person, a
// personal device or its address are tokenised, everything else is text in which
// names of known shape are looked for. A field that no dataset lists takes the
// proposal of another dataset for the same name.
type mask struct {
	tokens *pseudonym.Pseudonymiser // nil: names are printed
	marks  map[string]*tree         // by dataset
	usual  map[string]*pia.FieldRule
	open   *pia.FieldRule
}

// tree holds the proposals for one dataset. Paths with a * are few.
type tree struct {
	exact map[string]*pia.FieldRule
	wild  []*pia.FieldRule
}

// newMask makes the key of this run.
func newMask(clear bool) (*mask, error) {
	m := &mask{marks: map[string]*tree{}, usual: map[string]*pia.FieldRule{}, open: &pia.FieldRule{Action: pia.Allow}}
	if clear {
		return m, nil
	}
	var key, mac [pseudonym.KeySize]byte
	rand.Read(key[:]) // never fails
	rand.Read(mac[:])
	local, err := pseudonym.NewLocal(key[:], uuid.New(), 1)
	if err != nil {
		return nil, fmt.Errorf("making the key of the run: %w", err)
	}
	m.tokens = pseudonym.New(local, nil, func(b []byte) []byte {
		h := hmac.New(sha256.New, mac[:])
		h.Write(b)
		return h.Sum(nil)
	})
	for _, format := range parse.Formats() {
		for _, ds := range format.Datasets {
			t := m.marks[ds.Name]
			if t == nil {
				t = &tree{exact: map[string]*pia.FieldRule{}}
				m.marks[ds.Name] = t
			}
			for _, f := range ds.Fields {
				rule := &pia.FieldRule{Path: f.Path, Action: pia.Allow, Category: f.Category}
				if names(f) {
					rule.Action = pia.Tokenise
					if m.usual[f.Path] == nil {
						m.usual[f.Path] = rule
					}
				}
				if strings.Contains("."+f.Path+".", ".*.") {
					rule.Wild = true
					t.wild = append(t.wild, rule)
				} else {
					t.exact[f.Path] = rule
				}
			}
		}
	}
	return m, nil
}

// names reports whether a field is an identity as a whole. What an assessment would
// drop because it names somebody is one here.
func names(f parse.Field) bool {
	switch f.Category {
	case "person", "mail", "device", "address", "phone":
		return f.Action != "allow"
	}
	return false
}

// mark is what is done with a field.
func (m *mask) mark(dataset, name string) *pia.FieldRule {
	if t := m.marks[dataset]; t != nil {
		if r := t.exact[name]; r != nil {
			return r
		}
		for _, r := range t.wild {
			if pathMatches(r.Path, name) {
				return r
			}
		}
	}
	if r := m.usual[name]; r != nil {
		return r
	}
	return m.open
}

// pathMatches holds a path with * segments against a name.
func pathMatches(pattern, name string) bool {
	for {
		p, prest, pmore := strings.Cut(pattern, ".")
		n, nrest, nmore := strings.Cut(name, ".")
		if p != "*" && p != n || pmore != nmore {
			return false
		}
		if !pmore {
			return true
		}
		pattern, name = prest, nrest
	}
}

// note is the first line that is printed.
func (m *mask) note() string {
	if m.tokens == nil {
		return "names are shown as they stand in the files"
	}
	return "people, their devices and addresses are shown as tokens made with a key of this run alone; --clear shows the names"
}

// tokenises reports whether the mask hides a host that stands in this field.
func (m *mask) tokenises(dataset, field string) bool {
	return m.tokens != nil && field != "" && m.mark(dataset, field).Action == pia.Tokenise
}

// host is how a machine is printed that a record names in a field to be masked.
func (m *mask) host(name string) (string, error) {
	e, err := m.event(&event.Record{Envelope: event.Envelope{Dataset: "win-other", Way: way}, Fields: []event.Field{{Name: "Computer", Value: []byte(name)}}})
	if err != nil {
		return "", err
	}
	return string(e.Fields[0].Value), nil
}

// event makes tokens of the identities in r and takes over its fields.
func (m *mask) event(r *event.Record) (*event.Event, error) {
	marks := make([]*pia.FieldRule, len(r.Fields))
	for i := range r.Fields {
		marks[i] = m.mark(r.Dataset, r.Fields[i].Name)
	}
	e, err := m.tokens.Event(admit.Minimised{Envelope: r.Envelope, Fields: r.Fields, Marks: marks})
	if err != nil {
		return nil, fmt.Errorf("masking names: %w", err)
	}
	return e, nil
}

// findings makes one finding of each match of a hit. It takes over the hit's record.
func (m *mask) findings(h *hit) ([]Finding, error) {
	fields := h.record.Fields
	host := ""
	if m.tokens != nil {
		e, err := m.event(&h.record)
		if err != nil {
			return nil, err
		}
		fields = e.Fields
	}
	if h.host >= 0 {
		host = string(fields[h.host].Value)
	}
	out := make([]Finding, 0, len(h.matches))
	for _, x := range h.matches {
		f := Finding{Time: h.time, Host: host, Source: h.source, level: levelOf(x.rule.Level)}
		f.Rule = Rule{ID: x.rule.Key(), Title: x.rule.Title, Level: x.rule.Level, Author: x.rule.Author, Tags: slices.Concat([]string{}, x.rule.Tags), License: x.rule.License}
		f.Matched = make([]Pair, 0, len(x.fields))
		for _, i := range x.fields {
			f.Matched = append(f.Matched, Pair{fields[i].Name, string(fields[i].Value)})
		}
		out = append(out, f)
	}
	return out, nil
}
