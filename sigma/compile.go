package sigma

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Options tell Compile how to read events and what placeholders stand for.
type Options struct {
	// Mapping ties log sources to events; nil means DefaultMapping.
	Mapping *Mapping
	// Placeholders give the values of %name% under the modifier expand. They may
	// hold wildcards. A rule with a placeholder that has no value is refused.
	Placeholders map[string][]string
	// Opaque returns the first opaque token in b, or -1, -1. It must be safe for
	// concurrent use. Nil means that values hold none.
	//
	// A token counts as one character. Only the wildcards ? and * and, in a
	// regular expression, a dot or a negated class take it. A literal of a rule
	// matches a token as a whole or not at all, so equality and fieldref compare
	// the real text. cidr on a value that is a token answers by Field.Addr. A token
	// is not a number and not a time.
	Opaque func(b []byte) (start, end int)
}

// Set is a compiled set of rules. It is immutable and safe for concurrent use.
type Set struct {
	rules    []*Rule // by id
	filters  []*Rule
	warnings []Warning
	digest   [32]byte
	mapping  *Mapping
	opaque   func(b []byte) (start, end int)

	placeholders map[string][]string

	compiled []compiled // parallel to rules
	index    map[*Rule]int
	gates    map[LogSource]*gate
	shared   sharing
	ungated  bool             // set by tests: every rule is asked of every event
	fields   map[string]int32 // name to id, for every name that a rule reads
	names    []string         // id to name

	channelID, eventIDID int32

	channels map[string]string // folded channel to the mapping's spelling
	eventIDs map[string]bool   // ids that the mapping names

	mu      sync.Mutex                         // serialises additions to buckets and indexes
	buckets atomic.Pointer[map[string]*bucket] // by origin; replaced, never changed
	indexes map[string]*index                  // by the rules that they are for
	pool    sync.Pool                          // of *scratch

	correlations correlations
}

// compiled is a rule ready to be asked.
type compiled struct {
	root *node
	gate *gate
	need *need // nil when the rule has no witness
}

type nodeOp uint8

const (
	nodeTest nodeOp = iota
	nodeAnd
	nodeOr
	nodeNot
	nodeCount // at least n of its kids
)

// node is a compiled condition. A search identifier that the condition names
// twice is one node with two parents.
type node struct {
	op   nodeOp
	n    int
	test *fieldTest
	kids []*node
}

// Compile builds a set. Of rules with one id the first by path and digest is
// kept and the others are refused, so the result does not depend on their order.
// A rule whose log source is not mapped stays in the set; see Set.Unmapped.
func Compile(rules []*Rule, opt Options) (*Set, []*Refusal) {
	s := &Set{
		mapping: opt.Mapping,
		opaque:  opt.Opaque,

		placeholders: opt.Placeholders,

		index:    make(map[*Rule]int),
		gates:    make(map[LogSource]*gate),
		indexes:  make(map[string]*index),
		fields:   make(map[string]int32),
		channels: make(map[string]string),
		eventIDs: make(map[string]bool),
	}
	if s.mapping == nil {
		s.mapping = DefaultMapping()
	}
	s.buckets.Store(&map[string]*bucket{})
	s.pool.New = func() any { return &scratch{} }
	for _, e := range s.mapping.Entries {
		for _, c := range e.Channels {
			s.channels[strings.ToLower(c)] = c
		}
		for _, id := range e.EventIDs {
			s.eventIDs[id] = true
		}
		for _, w := range e.Where {
			s.fieldID(w.Field)
		}
	}
	s.channelID, s.eventIDID = s.fieldID("Channel"), s.fieldID("EventID")

	sorted := slices.Clone(rules)
	slices.SortStableFunc(sorted, func(a, b *Rule) int {
		return cmp.Or(cmp.Compare(a.Key(), b.Key()), cmp.Compare(a.Path, b.Path), bytes.Compare(a.Digest[:], b.Digest[:]))
	})
	var refused []*Refusal
	refuse := func(r *Rule, line int, format string, args ...any) {
		refused = append(refused, &Refusal{r.Path, line, r.ID, r.Title, fmt.Sprintf(format, args...)})
	}
	seen := make(map[string]*Rule, len(sorted))
	unique := sorted[:0]
	for _, r := range sorted {
		key := strings.ToLower(r.Key())
		if first := seen[key]; first != nil {
			refuse(r, r.Line, "the id is used by %s too", first.Path)
			continue
		}
		seen[key] = r
		unique = append(unique, r)
	}

	filters := make(map[*Rule]*node)
	for _, r := range unique {
		if !r.Filter {
			continue
		}
		root, f := s.compileRule(r, opt.Placeholders)
		if f != nil {
			refuse(r, f.line, "%s", f.reason)
			continue
		}
		filters[r] = root
		s.filters = append(s.filters, r)
		s.warnings = append(s.warnings, r.Warnings...)
	}
	used := make(map[*Rule]bool)
	for _, r := range unique {
		if r.Filter || r.Correlation != nil {
			continue
		}
		root, f := s.compileRule(r, opt.Placeholders)
		if f != nil {
			refuse(r, f.line, "%s", f.reason)
			continue
		}
		for _, filter := range s.filters {
			if filter.filters(r) {
				used[filter] = true
				root = &node{op: nodeAnd, kids: []*node{root, filters[filter]}}
			}
		}
		s.share(root)
		s.index[r] = len(s.rules)
		s.rules = append(s.rules, r)
		s.compiled = append(s.compiled, compiled{root: root, gate: s.gateOf(r.LogSource)})
		s.warnings = append(s.warnings, r.Warnings...)
	}
	for _, filter := range s.filters {
		if !used[filter] {
			s.warnings = append(s.warnings, filter.warning(ClassFilter, filter.Line, 0, "the filter applies to no rule of the set"))
		}
	}
	s.shared = sharing{memos: s.shared.memos} // the rest is needed no more
	w := newWitnesses(s)
	for i := range s.compiled {
		s.compiled[i].need = w.of(s.compiled[i].root)
	}
	s.correlate(unique, refuse)
	s.digest = s.sum(opt.Placeholders)
	return s, refused
}

// gateOf returns the gate of a log source; rules of one log source share it.
func (s *Set) gateOf(ls LogSource) *gate {
	g := s.gates[ls]
	if g == nil {
		g = &gate{ls, s.mapping.entriesFor(ls)}
		for _, e := range g.entries {
			for _, a := range e.Aliases {
				s.fieldID(a.Name)
				s.fieldID(a.Native)
			}
		}
		s.gates[ls] = g
	}
	return g
}

// filters reports whether the filter r is for the rule: each attribute of the
// filter's log source is equal in the rule, and the rule is among the targets.
func (r *Rule) filters(rule *Rule) bool {
	a, b := r.LogSource, rule.LogSource
	if a.Product != "" && a.Product != b.Product || a.Category != "" && a.Category != b.Category || a.Service != "" && a.Service != b.Service {
		return false
	}
	if len(r.targets) == 0 {
		return true
	}
	return slices.ContainsFunc(r.targets, func(t string) bool {
		return rule.ID != "" && strings.EqualFold(t, rule.ID) || rule.Name != "" && t == rule.Name
	})
}

func (s *Set) fieldID(name string) int32 {
	id, ok := s.fields[name]
	if !ok {
		id = int32(len(s.names))
		s.fields[name] = id
		s.names = append(s.names, name)
	}
	return id
}

func (s *Set) compileRule(r *Rule, placeholders map[string][]string) (*node, *fault) {
	searches := make(map[string]*node, len(r.searches))
	budget := maxForms
	for i := range r.searches {
		n, f := s.compileBlock(&r.searches[i].block, placeholders, &budget)
		if f != nil {
			return nil, f
		}
		searches[r.searches[i].name] = n
	}
	return r.compileCond(r.condition, searches), nil
}

func (s *Set) compileBlock(b *block, placeholders map[string][]string, budget *int) (*node, *fault) {
	and := &node{op: nodeAnd}
	for i := range b.items {
		ft, f := translate(&b.items[i], placeholders, false, budget)
		if f != nil {
			return nil, f
		}
		if ft.field != "" {
			ft.id = s.fieldID(ft.field)
		}
		for _, g := range ft.groups {
			for j := range g {
				if g[j].kind == testRef {
					g[j].refID = s.fieldID(g[j].ref)
				}
			}
		}
		and.kids = append(and.kids, &node{op: nodeTest, test: ft})
	}
	if len(b.any) > 0 {
		or := &node{op: nodeOr}
		for i := range b.any {
			n, f := s.compileBlock(&b.any[i], placeholders, budget)
			if f != nil {
				return nil, f
			}
			or.kids = append(or.kids, n)
		}
		and.kids = append(and.kids, or)
	}
	if len(and.kids) == 1 {
		return and.kids[0], nil
	}
	return and, nil
}

func (r *Rule) compileCond(c *cond, searches map[string]*node) *node {
	switch c.op {
	case condName:
		return searches[c.name]
	case condOf:
		n := &node{op: nodeCount, n: c.n}
		for _, s := range r.searches {
			if selects(c.name, s.name) {
				n.kids = append(n.kids, searches[s.name])
			}
		}
		switch {
		case c.n == 0 || c.n == len(n.kids):
			n.op = nodeAnd
		case c.n == 1:
			n.op = nodeOr
		}
		if len(n.kids) == 1 {
			return n.kids[0]
		}
		return n
	}
	n := &node{op: map[condOp]nodeOp{condNot: nodeNot, condAnd: nodeAnd, condOr: nodeOr}[c.op]}
	for _, k := range c.kids {
		n.kids = append(n.kids, r.compileCond(k, searches))
	}
	return n
}

// sum digests what the answers of the set depend on: documents, placeholders
// and mapping.
func (s *Set) sum(placeholders map[string][]string) [32]byte {
	digests := make([][32]byte, 0, len(s.rules)+len(s.filters))
	for _, r := range s.rules {
		digests = append(digests, r.Digest)
	}
	for _, r := range slices.Concat(s.filters, s.correlations.rules) {
		digests = append(digests, r.Digest)
	}
	slices.SortFunc(digests, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
	h := sha256.New()
	h.Write([]byte("sigma rule set 1\n"))
	for _, d := range digests {
		h.Write(d[:])
	}
	for _, name := range slices.Sorted(maps.Keys(placeholders)) {
		fmt.Fprintf(h, "\n%q=%q", name, placeholders[name])
	}
	fmt.Fprintf(h, "\n%s", s.mapping)
	return [32]byte(h.Sum(nil))
}

// Rules returns the rules in the order of their ids, without filters.
func (s *Set) Rules() []*Rule { return slices.Clone(s.rules) }

// Filters returns the filters that Compile took.
func (s *Set) Filters() []*Rule { return slices.Clone(s.filters) }

// Warnings returns what the authors of rules and filters probably did not mean, as
// far as reading them shows it. Lint looks closer.
func (s *Set) Warnings() []Warning { return slices.Clone(s.warnings) }

// Digest identifies the set: two sets with one digest give the same answers on
// events without opaque tokens. It does not depend on the order of the rules.
func (s *Set) Digest() [32]byte { return s.digest }

// Unmapped returns the rules for Windows whose log source no entry of the
// mapping answers. They match only an event whose Source names that log source.
func (s *Set) Unmapped() []*Rule {
	var out []*Rule
	for i, r := range s.rules {
		if s.compiled[i].gate.unmapped() {
			out = append(out, r)
		}
	}
	return out
}

// FieldsOf returns, sorted, every field that a rule may read: the fields of its
// tests and of filters on it, those that the mapping reads in their place, and
// those that the mapping needs to know the log source. Of a correlation they are
// those of its rules and the fields that it groups by or counts. A rule with
// keywords reads every field and has "*" in the list. It returns nil for a rule
// that is not in the set.
func (s *Set) FieldsOf(r *Rule) []string {
	if p := s.correlations.byRule[r]; p != nil {
		return s.fieldsOf(p)
	}
	i, ok := s.index[r]
	if !ok {
		return nil
	}
	names := s.tested(i)
	for _, e := range s.compiled[i].gate.entries {
		for _, a := range e.Aliases {
			if names[a.Name] {
				names[a.Native] = true
			}
		}
		e.needs(names)
	}
	return slices.Sorted(maps.Keys(names))
}

// FieldsOn returns, sorted, the fields that a rule reads in events of one
// source, under the names that they have there: where the mapping reads a native
// field in place of the rule's own, the native one. It returns nil for a source
// that cannot feed the rule. Who withholds one of these fields blinds the rule
// there, wholly or in part.
func (s *Set) FieldsOn(r *Rule, source LogSource) []string {
	if p := s.correlations.byRule[r]; p != nil {
		return s.fieldsOn(p, source)
	}
	i, ok := s.index[r]
	if !ok {
		return nil
	}
	source = lowerSource(source)
	entries, direct := s.feeds(s.compiled[i].gate, source)
	if len(entries) == 0 && !direct {
		return nil
	}
	all := make(map[string]bool)
	if direct && len(entries) == 0 {
		all = s.tested(i)
	}
	for _, e := range entries {
		names := s.tested(i)
		for _, a := range e.Aliases {
			if names[a.Name] {
				names[a.Native] = true
			}
		}
		for _, a := range e.Aliases {
			delete(names, a.Name)
		}
		e.needs(names)
		maps.Copy(all, names)
	}
	return slices.Sorted(maps.Keys(all))
}

// tested returns the fields that a rule names.
func (s *Set) tested(rule int) map[string]bool {
	names := make(map[string]bool)
	var walk func(n *node)
	walk = func(n *node) {
		if n.test != nil {
			if n.test.field == "" {
				names["*"] = true
			} else {
				names[n.test.field] = true
			}
			for _, g := range n.test.groups {
				for _, t := range g {
					if t.kind == testRef {
						names[t.ref] = true
					}
				}
			}
		}
		for _, k := range n.kids {
			walk(k)
		}
	}
	walk(s.compiled[rule].root)
	return names
}

// needs adds the fields that tell whether an event is the entry's.
func (e *Entry) needs(names map[string]bool) {
	if len(e.Channels) > 0 {
		names["Channel"] = true
	}
	if len(e.EventIDs) > 0 {
		names["EventID"] = true
	}
	for _, w := range e.Where {
		names[w.Field] = true
	}
}

// CouldFeed reports whether an event of one of the sources could reach a rule,
// whatever its fields hold.
func (s *Set) CouldFeed(r *Rule, sources []LogSource) bool {
	if p := s.correlations.byRule[r]; p != nil {
		return s.couldFeed(p, sources)
	}
	i, ok := s.index[r]
	return ok && slices.ContainsFunc(sources, func(src LogSource) bool {
		entries, direct := s.feeds(s.compiled[i].gate, lowerSource(src))
		return direct || len(entries) > 0
	})
}

// feeds returns the entries by which events of a source may pass a gate, and
// whether they pass by what the source says of itself.
func (s *Set) feeds(g *gate, src LogSource) (entries []*Entry, direct bool) {
	direct = len(g.pass(origin{source: src})) > 0
	if !compatible(g.ls.Product, src.Product) {
		return nil, direct
	}
	carried := s.mapping.channelsOf(src.Product, src.Service)
	for _, e := range g.entries {
		if !compatible(src.Product, e.Product) || src.Product == "" && e.Product != "" {
			continue
		}
		if e.from(src) || slices.ContainsFunc(e.Channels, func(c string) bool {
			return src.Service == "" || slices.ContainsFunc(carried, func(have string) bool { return strings.EqualFold(have, c) })
		}) {
			entries = append(entries, e)
		}
	}
	return entries, direct
}

func lowerSource(s LogSource) LogSource {
	return LogSource{strings.ToLower(s.Product), strings.ToLower(s.Category), strings.ToLower(s.Service)}
}
