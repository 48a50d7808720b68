package pia

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/counterseal/counterseal/internal/event"
)

// Rule is a compiled source of one PIA: everything that the way of a record needs
// to know. It is read-only and safe for use by many goroutines.
type Rule struct {
	Source, Dataset, Collector string // the selector; empty: any

	PIA     string // id
	Version int
	Digest  [32]byte

	Compartment  string
	Retention    int // days from sealing
	OriginalDays int // days for the bytes as received; 0 keeps none
	Zone         string
	Lateness     time.Duration
	Purposes     []string
	MaxPerDay    int64 // 0: no limit; more is a finding, not a loss
	Disposition  string

	names []string // PIA.Name of every assessment that speaks here
	trees []*tree  // more than one where several PIAs claim the selector
}

// FieldRule is the compiled line of one path.
type FieldRule struct {
	Path       string
	Action     Action
	Arg        int // truncate
	Category   string
	Unlinkable bool
	Wild       bool // the path has a *, so a source chooses part of the name
}

// Names gives id, version and digest of each PIA behind the rule, as a batch card
// keeps them.
func (r *Rule) Names() []string { return r.names }

// KeepsOriginal reports whether the bytes as received are kept for two officers.
func (r *Rule) KeepsOriginal() bool { return r.OriginalDays > 0 }

// tree holds the paths of one source by segment.
type tree struct {
	next map[string]*tree
	any  *tree
	rule *FieldRule
}

func (t *tree) add(f *FieldRule) {
	for s := range strings.SplitSeq(f.Path, ".") {
		if s == "*" {
			if t.any == nil {
				t.any = &tree{}
			}
			t = t.any
			continue
		}
		if t.next == nil {
			t.next = map[string]*tree{}
		}
		n := t.next[s]
		if n == nil {
			n = &tree{}
			t.next[s] = n
		}
		t = n
	}
	t.rule = f
}

// find gives the longest match: a path is matched whole, a segment written out
// before a *, from the left. A pattern is a tree of at most maxSegments levels and
// each of its nodes is visited once at most, so the walk is bounded by the PIA and
// not by the name.
func (t *tree) find(path string) *FieldRule {
	head, rest, more := strings.Cut(path, ".")
	if n := t.next[head]; n != nil {
		if !more {
			if n.rule != nil {
				return n.rule
			}
		} else if f := n.find(rest); f != nil {
			return f
		}
	}
	if t.any == nil {
		return nil
	}
	if !more {
		return t.any.rule
	}
	return t.any.find(rest)
}

// Field gives the line that decides about a path, or nil where no line names it: it
// is dropped. It does not allocate.
func (r *Rule) Field(path string) *FieldRule {
	var strict *FieldRule
	for i, t := range r.trees {
		f := t.find(path)
		if f == nil {
			return nil // one assessment drops it
		}
		if i == 0 || stricter(f, strict) {
			strict = f
		}
	}
	return strict
}

// Action is Field in three values; a path that no line names is dropped.
func (r *Rule) Action(path string) (a Action, arg int, category string) {
	f := r.Field(path)
	if f == nil {
		return Drop, 0, ""
	}
	return f.Action, f.Arg, f.Category
}

// stricter orders drop, truncate, hash-keyed, detect-only, tokenise, allow.
func stricter(a, b *FieldRule) bool {
	if a.Action != b.Action {
		return a.Action < b.Action
	}
	if a.Action == Truncate {
		return a.Arg < b.Arg
	}
	return a.Unlinkable && !b.Unlinkable
}

func newRule(p *PIA, s *Source) *Rule {
	r := &Rule{
		Source: s.Selector.Source, Dataset: s.Selector.Dataset, Collector: s.Selector.Collector,
		PIA: p.ID, Version: p.Version, Digest: p.digest,
		Compartment: s.Compartment, Retention: s.RetentionDays, OriginalDays: min(defaultDays, s.RetentionDays),
		Zone: s.TimeZone, Lateness: 10 * time.Minute, Purposes: s.Purposes, MaxPerDay: s.MaxEventsPerDay, Disposition: s.Disposition,
		names: []string{p.Name()},
	}
	if s.OriginalDays != nil {
		r.OriginalDays = *s.OriginalDays
	}
	if r.Zone == "" {
		r.Zone = "UTC"
	}
	if s.LatenessMinutes != nil {
		r.Lateness = time.Duration(*s.LatenessMinutes) * time.Minute
	}
	t := &tree{}
	for i := range s.Fields {
		f := &s.Fields[i]
		a, _ := parseAction(f.Action)
		arg, _ := intArg(f.Arg)
		t.add(&FieldRule{Path: f.Path, Action: a, Arg: arg, Category: f.Category, Unlinkable: f.Unlinkable, Wild: strings.Contains("."+f.Path+".", ".*.")})
	}
	r.trees = []*tree{t}
	return r
}

// Blinds tells which of the native fields that a detection rule reads are not there
// (dropped) or not as the source wrote them (altered: truncated, hashed). A field
// that is tokenised or detect-only can still be asked.
func Blinds(fields []string, r *Rule) (dropped, altered []string) {
	for _, name := range fields {
		switch a, _, _ := r.Action(name); a {
		case Drop:
			dropped = append(dropped, name)
		case Truncate, HashKeyed:
			altered = append(altered, name)
		}
	}
	return dropped, altered
}

// Set is the assessments in force. It is safe for use by many goroutines.
type Set struct {
	byID    map[string][]*PIA // versions ascending
	entries map[string][]entry

	mu     sync.Mutex // guards merged
	merged map[string]*Rule
}

type entry struct {
	pia  *PIA
	rule *Rule // nil never: invalid documents have no entries
}

// NewSet takes assessments in the order in which they came. Of one id a higher
// version replaces a lower one from the day it is in effect, for ever: when it
// expires, the lower one does not come back. A version that is not higher than one
// before it is refused. Documents with errors take no part. What was refused, and
// every conflict of two assessments at now, is in the problems.
func NewSet(pias []*PIA, now time.Time) (*Set, []Problem) {
	s := &Set{byID: map[string][]*PIA{}, entries: map[string][]entry{}, merged: map[string]*Rule{}}
	var problems []Problem
	for _, p := range pias {
		if p == nil {
			continue
		}
		if have := s.byID[p.ID]; len(have) > 0 && have[len(have)-1].Version >= p.Version && p.Valid() {
			problems = append(problems, Problem{Code: "version_not_higher", File: p.path, Path: "version",
				Message: fmt.Sprintf("%s is here in version %d, and version %d is not higher: raise the version", p.ID, have[len(have)-1].Version, p.Version)})
			continue
		}
		if !p.Valid() {
			problems = append(problems, Problem{Code: "invalid", File: p.path, Message: "has errors and takes no part: run counterseal pia check " + p.path})
			continue
		}
		problems = append(problems, p.Dates(now)...)
		s.byID[p.ID] = append(s.byID[p.ID], p)
		for _, r := range p.rules {
			s.entries[r.Source] = append(s.entries[r.Source], entry{p, r})
		}
	}
	for _, list := range s.entries {
		for i, a := range list {
			for _, b := range list[i+1:] {
				if a.rule.Dataset != b.rule.Dataset || a.rule.Collector != b.rule.Collector || !s.speaks(a.pia, now) || !s.speaks(b.pia, now) {
					continue
				}
				problems = append(problems, Problem{Code: "selector_conflict", Level: Warning, File: b.pia.path,
					Message: fmt.Sprintf("%s and %s claim the same selector of source %s: the stricter rule applies, field by field", a.pia.ID, b.pia.ID, a.rule.Source)})
			}
		}
	}
	slices.SortStableFunc(problems, func(a, b Problem) int { return cmp.Compare(a.File, b.File) })
	return s, problems
}

// PIAs gives the documents that take part, by id and version.
func (s *Set) PIAs() []*PIA {
	var all []*PIA
	for _, list := range s.byID {
		all = append(all, list...)
	}
	slices.SortFunc(all, func(a, b *PIA) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Version, b.Version))
	})
	return all
}

// Rules gives the rules that open the gate at a moment, one for each selector, in
// order of source, dataset and collector.
func (s *Set) Rules(at time.Time) []*Rule {
	seen := map[[3]string]bool{}
	var all []*Rule
	for source, list := range s.entries {
		for _, e := range list {
			key := [3]string{source, e.rule.Dataset, e.rule.Collector}
			if seen[key] {
				continue
			}
			seen[key] = true
			if r, no := s.Find(source, e.rule.Dataset, e.rule.Collector, at); no == nil {
				all = append(all, r)
			}
		}
	}
	slices.SortFunc(all, func(a, b *Rule) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Dataset, b.Dataset), cmp.Compare(a.Collector, b.Collector))
	})
	return slices.Compact(all)
}

// current is the highest version of an id that is in effect or was.
func (s *Set) current(id string, at time.Time) *PIA {
	list := s.byID[id]
	for i := len(list) - 1; i >= 0; i-- {
		if !at.Before(list[i].from) {
			return list[i]
		}
	}
	return nil
}

func (s *Set) speaks(p *PIA, at time.Time) bool {
	return p.opens(at) && s.current(p.ID, at) == p
}

// Find gives the rule for records of a source, or the refusal to tell the sender.
// The selector with most members wins; of several assessments with equally many,
// the stricter word applies to each field. dataset and collector may be empty.
func (s *Set) Find(source, dataset, collector string, at time.Time) (*Rule, *event.Refusal) {
	var best [8]*Rule
	n, members := 0, -1
	for _, e := range s.entries[source] {
		m, ok := matches(e.rule, dataset, collector)
		if !ok || m < members || !s.speaks(e.pia, at) {
			continue
		}
		if m > members {
			n, members = 0, m
		}
		if n < len(best) {
			best[n] = e.rule
			n++
		}
	}
	switch n {
	case 0:
		return nil, s.refusal(source, dataset, collector, at)
	case 1:
		return best[0], nil
	case len(best):
		return nil, &event.Refusal{Code: "pia_missing", Reason: fmt.Sprintf("%d or more PIAs claim %s", n, name(source, dataset)), Hint: "leave one PIA for this selector"}
	}
	return s.merge(best[:n]), nil
}

func matches(r *Rule, dataset, collector string) (members int, ok bool) {
	if r.Dataset != "" {
		if r.Dataset != dataset {
			return 0, false
		}
		members++
	}
	if r.Collector != "" {
		if r.Collector != collector {
			return 0, false
		}
		members++
	}
	return members, true
}

func name(source, dataset string) string {
	if dataset == "" {
		return source
	}
	return source + "/" + dataset
}

func (s *Set) refusal(source, dataset, collector string, at time.Time) *event.Refusal {
	no := &event.Refusal{Code: "pia_missing"}
	for _, e := range s.entries[source] {
		if _, ok := matches(e.rule, dataset, collector); !ok {
			continue
		}
		why, hint := "", ""
		if now := s.current(e.pia.ID, at); now != nil && now != e.pia && now.Version > e.pia.Version {
			why, hint = fmt.Sprintf("version %d replaced it and does not cover this", now.Version), "cover it in a new version"
		} else if ok, w, h := e.pia.Opens(at); !ok {
			why, hint = w, h
		} else {
			continue
		}
		no.Reason = fmt.Sprintf("no PIA covers %s: %s version %d would, but %s", name(source, dataset), e.pia.ID, e.pia.Version, why)
		no.Hint = hint
	}
	if no.Reason != "" {
		return no
	}
	no.Reason = "no PIA covers " + name(source, dataset)
	no.Hint = fmt.Sprintf("draft one from a sample with counterseal pia draft --sample FILE, fill it in, publish it with a source entry for %s", name(source, dataset))
	return no
}

// merge joins rules of several assessments into the stricter of each word. The
// shortest retention names the compartment.
func (s *Set) merge(rules []*Rule) *Rule {
	rules = slices.Clone(rules)
	slices.SortFunc(rules, func(a, b *Rule) int {
		return cmp.Or(cmp.Compare(a.Retention, b.Retention), cmp.Compare(a.Compartment, b.Compartment), cmp.Compare(a.PIA, b.PIA))
	})
	var key strings.Builder
	for _, r := range rules {
		fmt.Fprintf(&key, "%s|%s|%s;", r.names[0], r.Dataset, r.Collector)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.merged[key.String()]; m != nil {
		return m
	}
	m := *rules[0]
	m.names, m.trees = nil, nil
	for _, r := range rules {
		m.names = append(m.names, r.names...)
		m.trees = append(m.trees, r.trees...)
		m.OriginalDays = min(m.OriginalDays, r.OriginalDays)
		m.Purposes = slices.DeleteFunc(slices.Clone(m.Purposes), func(p string) bool { return !slices.Contains(r.Purposes, p) })
		if r.MaxPerDay > 0 && (m.MaxPerDay == 0 || r.MaxPerDay < m.MaxPerDay) {
			m.MaxPerDay = r.MaxPerDay
		}
	}
	s.merged[key.String()] = &m
	return &m
}
