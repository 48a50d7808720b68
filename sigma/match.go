package sigma

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Match is a rule that an event satisfies, or one that cannot be decided
// because fields were withheld. It refers to the event: whoever keeps it longer
// than the call copies the values.
type Match struct {
	Rule    *Rule
	Verdict Verdict // Yes or CannotTell
	// Matched are the fields that made a test true outside of any negation, in
	// event order. It is empty for CannotTell.
	Matched []MatchedField
}

// MatchedField is a field of the event under its native name.
type MatchedField struct {
	Name  string
	Value []byte
}

// maxBuckets bounds the memory for origins of events; further ones are worked
// out each time. The mapping's own channels and ids need a few hundred.
const maxBuckets = 4096

// bucket holds the rules that events of one origin can reach.
type bucket struct{ groups []group }

// group holds the rules of a bucket that read events in one way: the mapping
// asks the same further fields for them and gives them the same aliases.
type group struct {
	where   []where
	aliases []alias
	index   *index  // finds the rules that may match
	ways    []int32 // for each rule of the index, which of its ways this one is
}

type where struct {
	field  int32
	values [][]byte // folded
}

type alias struct{ name, native int32 }

// hit is a rule that does not say no.
type hit struct {
	rule, way int32
	verdict   Verdict
	group     *group
}

// Match calls fn, in the order of rule ids, for each rule that the event
// satisfies and for each that cannot be decided. It may run on many goroutines.
// It allocates for matches, and for an origin that it meets for the first time.
func (s *Set) Match(ev *Event, fn func(Match)) {
	sc := s.pool.Get().(*scratch)
	defer s.pool.Put(sc)
	sc.begin(s, ev)
	b := sc.bucket()
	for i := range b.groups {
		g := &b.groups[i]
		limit := sc.where(g.where)
		if limit == No {
			continue
		}
		sc.enter(g)
		for _, c := range sc.candidates(g.index) {
			rule := g.index.rules[c]
			if v := min(limit, sc.eval(s.compiled[rule].root)); v != No {
				sc.hits = append(sc.hits, hit{rule, g.ways[c], v, g})
			}
		}
		sc.leave(g)
	}
	if len(sc.hits) > 0 {
		sc.report(fn)
	}
	sc.end()
}

// report hands over the hits, each rule once: a yes counts more than a
// cannot-tell, an earlier way more than a later one.
func (sc *scratch) report(fn func(Match)) {
	slices.SortFunc(sc.hits, func(a, b hit) int {
		return cmp.Or(cmp.Compare(a.rule, b.rule), cmp.Compare(b.verdict, a.verdict), cmp.Compare(a.way, b.way))
	})
	for i := range sc.hits {
		h := &sc.hits[i]
		if i > 0 && sc.hits[i-1].rule == h.rule {
			continue
		}
		m := Match{Rule: sc.set.rules[h.rule], Verdict: h.verdict}
		if h.verdict == Yes {
			sc.enter(h.group)
			m.Matched = sc.matched(sc.set.compiled[h.rule].root)
			sc.leave(h.group)
		}
		fn(m)
	}
}

// Reaches reports whether the event passes the log source of a rule, whatever
// the rule's detection says of it.
func (s *Set) Reaches(r *Rule, ev *Event) bool {
	i, ok := s.index[r]
	if !ok {
		return false
	}
	sc := s.pool.Get().(*scratch)
	defer s.pool.Put(sc)
	sc.begin(s, ev)
	defer sc.end()
	for _, g := range sc.bucket().groups {
		if _, ok := slices.BinarySearch(g.index.rules, int32(i)); ok && sc.where(g.where) != No {
			return true
		}
	}
	return false
}

// bucket returns the rules for the event's origin.
func (sc *scratch) bucket() *bucket {
	s, src := sc.set, sc.ev.Source
	if s.ungated {
		if b := (*s.buckets.Load())[""]; b != nil {
			return b
		}
		return s.newBucket("")
	}
	k := sc.key[:0]
	for _, attr := range [...]string{src.Product, src.Category, src.Service} {
		for i := 0; i < len(attr); i++ {
			c := attr[i]
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			k = append(k, c)
		}
		k = append(k, 0)
	}
	// An unknown channel or event id is "?" so that hostile events cannot fill
	// the table; an absent one is nothing.
	if i := sc.at(s.channelID); i >= 0 {
		at := len(k)
		k = appendLower(k, sc.ev.Fields[i].Value)
		if _, ok := s.channels[string(k[at:])]; !ok {
			k = append(k[:at], '?')
		}
	}
	k = append(k, 0)
	if i := sc.at(s.eventIDID); i >= 0 {
		if id := sc.ev.Fields[i].Value; s.eventIDs[string(id)] {
			k = append(k, id...)
		} else {
			k = append(k, '?')
		}
	}
	sc.key = k
	if b := (*s.buckets.Load())[string(k)]; b != nil {
		return b
	}
	return s.newBucket(string(k))
}

// appendLower appends s as bytes.ToLower has it.
func appendLower(dst, s []byte) []byte {
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			dst = append(dst, c)
			i++
			continue
		}
		r, n := utf8.DecodeRune(s[i:])
		dst = utf8.AppendRune(dst, unicode.ToLower(r))
		i += n
	}
	return dst
}

// newBucket works out which rules an origin can reach, and in which ways.
func (s *Set) newBucket(key string) *bucket {
	passes := make(map[*gate][]way, len(s.gates))
	if s.ungated {
		for _, g := range s.gates {
			passes[g] = []way{{}}
		}
	} else {
		o := s.origin(key)
		for _, g := range s.gates {
			passes[g] = g.pass(o)
		}
	}
	b := &bucket{}
	members := make(map[string]int) // a way's key to its group
	var rules [][]int32
	for i := range s.compiled {
		for w, way := range passes[s.compiled[i].gate] {
			where, aliases := s.compileWay(way)
			key := wayKey(where, aliases)
			at, ok := members[key]
			if !ok {
				at = len(b.groups)
				members[key] = at
				b.groups = append(b.groups, group{where: where, aliases: aliases})
				rules = append(rules, nil)
			}
			if n := len(rules[at]); n > 0 && rules[at][n-1] == int32(i) {
				continue // the same way twice
			}
			rules[at] = append(rules[at], int32(i))
			b.groups[at].ways = append(b.groups[at].ways, int32(w))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range b.groups {
		b.groups[i].index = s.indexFor(rules[i])
	}
	old := *s.buckets.Load()
	if len(old) < maxBuckets {
		fresh := maps.Clone(old)
		fresh[key] = b
		s.buckets.Store(&fresh)
	}
	return b
}

// origin reads the key of a bucket.
func (s *Set) origin(key string) origin {
	attr := strings.Split(key, "\x00")
	for len(attr) < 5 {
		attr = append(attr, "")
	}
	o := origin{source: LogSource{attr[0], attr[1], attr[2]}, eventID: attr[len(attr)-1]}
	channel := attr[len(attr)-2]
	switch {
	case channel == "?" && o.source.Product != windows:
		// Some other producer has a field of that name.
	case channel != "":
		o.channels = []string{channel}
		if o.source.Product == windows {
			o.source.Service = "" // the channel knows better than a setting
		}
	case o.source.Product != "" && o.source.Service != "":
		o.channels = s.mapping.channelsOf(o.source.Product, o.source.Service)
	}
	return o
}

// compileWay resolves names; Compile has given an id to each of them.
func (s *Set) compileWay(w way) ([]where, []alias) {
	var conds []where
	for _, cond := range w.where {
		c := where{field: s.fields[cond.Field]}
		for _, v := range cond.Values {
			c.values = append(c.values, appendFold(nil, []byte(v)))
		}
		conds = append(conds, c)
	}
	var aliases []alias
	for _, a := range w.aliases {
		aliases = append(aliases, alias{s.fields[a.Name], s.fields[a.Native]})
	}
	return conds, aliases
}

func wayKey(conds []where, aliases []alias) string {
	var b []byte
	for _, c := range conds {
		b = binary.AppendVarint(append(b, 'w'), int64(c.field))
		b = binary.AppendUvarint(b, uint64(len(c.values)))
		for _, v := range c.values {
			b = appendText(b, string(v))
		}
	}
	for _, a := range aliases {
		b = binary.AppendVarint(binary.AppendVarint(append(b, 'a'), int64(a.name)), int64(a.native))
	}
	return string(b)
}

// where asks the mapping's further fields.
func (sc *scratch) where(conds []where) Verdict {
	v := Yes
	for i := range conds {
		c := &conds[i]
		one := No
		at := sc.at(c.field)
		if at < 0 && sc.blindName(c.field) {
			one = CannotTell
		}
		for ; at >= 0; at = sc.next[at] {
			have := sc.folded(at).b
			if slices.ContainsFunc(c.values, func(want []byte) bool { return bytes.Equal(have, want) }) {
				one = Yes
			}
		}
		v = min(v, one)
	}
	return v
}
