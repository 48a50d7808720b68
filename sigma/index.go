package sigma

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
)

// index finds, among a fixed list of rules, those with a witness in an event.
type index struct {
	rules    []int32       // numbers of rules, ascending
	always   []int32       // positions in rules of those without a witness
	byField  []*fieldIndex // by field id, nil for a field without witnesses
	fields   []*fieldIndex
	keywords *fieldIndex // nil where no rule has keywords
	literals int
}

// fieldIndex holds the witnesses that are looked for in one field.
type fieldIndex struct {
	id       int32
	all      []int32 // positions of all rules with a witness here
	presence []int32 // of those for which any value will do
	exact    map[string]int32
	longest  int // of the exact literals
	literals []literal
	first    int // number of the first literal, among those of the index
	grams    gramTable
	pairs    gramTable // for literals that are shorter than a gram
}

// literal is a witness and the rules that it is for.
type literal struct {
	text  []byte // folded
	kind  testKind
	at    int32 // where in text the gram stands under which it is found
	rules []int32
}

// gramTable finds places of a text where a literal may stand: a few bytes of each
// literal, those that fewest others have, are looked up at every place. Reading a
// text costs about the same for ten literals and for ten thousand.
//
// A gram is little-endian with the bit of ASCII case set in each byte, so that
// text in any case has the grams of its folded form.
type gramTable struct {
	bits  []uint64 // one bit for a hash of a gram; empty without literals
	shift uint8
	slots []slot // by hash, open addressing; a power of two
	list  []int32
}

type slot struct {
	gram       uint32
	start, end int32 // into list; an empty slot has none
}

const (
	gramSize = 4
	gramCase = 0x20202020
	pairCase = 0x2020
	gramMul  = 0x9E3779B1
)

// indexFor returns the index over rules; those over the same rules are one. The
// caller holds s.mu.
func (s *Set) indexFor(rules []int32) *index {
	key := make([]byte, 0, 4*len(rules))
	for _, r := range rules {
		key = binary.LittleEndian.AppendUint32(key, uint32(r))
	}
	if ix := s.indexes[string(key)]; ix != nil {
		return ix
	}
	ix := s.buildIndex(rules)
	if len(s.indexes) < maxBuckets {
		s.indexes[string(key)] = ix
	}
	return ix
}

func (s *Set) buildIndex(rules []int32) *index {
	ix := &index{rules: rules, byField: make([]*fieldIndex, len(s.names))}
	numbers := make(map[witness]int32) // of literals, in their field
	for c, r := range rules {
		c := int32(c)
		n := s.compiled[r].need
		if n == nil {
			ix.always = append(ix.always, c)
			continue
		}
		for _, w := range n.any {
			f := ix.field(w.field)
			f.all = appendOnce(f.all, c)
			if w.kind == testPresent {
				f.presence = appendOnce(f.presence, c)
				continue
			}
			at, ok := numbers[w]
			if !ok {
				at = int32(len(f.literals))
				numbers[w] = at
				f.literals = append(f.literals, literal{text: []byte(w.lit), kind: w.kind})
				if w.kind == testExact {
					if f.exact == nil {
						f.exact = make(map[string]int32)
					}
					f.exact[w.lit] = at
					f.longest = max(f.longest, len(w.lit))
				}
			}
			f.literals[at].rules = appendOnce(f.literals[at].rules, c)
		}
	}
	all := ix.fields
	if ix.keywords != nil {
		all = append(slices.Clone(all), ix.keywords)
	}
	for _, f := range all {
		f.first = ix.literals
		ix.literals += len(f.literals)
		f.build()
	}
	return ix
}

// appendOnce appends to an ascending list.
func appendOnce(list []int32, c int32) []int32 {
	if n := len(list); n > 0 && list[n-1] == c {
		return list
	}
	return append(list, c)
}

func (ix *index) field(id int32) *fieldIndex {
	if id == anyField {
		if ix.keywords == nil {
			ix.keywords = &fieldIndex{id: id}
		}
		return ix.keywords
	}
	f := ix.byField[id]
	if f == nil {
		f = &fieldIndex{id: id}
		ix.byField[id] = f
		ix.fields = append(ix.fields, f)
	}
	return f
}

// build chooses the gram of each literal and fills the tables.
func (f *fieldIndex) build() {
	counts := make(map[uint32]int32)
	for i := range f.literals {
		l := &f.literals[i]
		for at := 0; l.kind != testExact && at+gramSize <= len(l.text); at++ {
			counts[gramAt(l.text, at)]++
		}
	}
	grams := make(map[uint32][]int32)
	pairs := make(map[uint32][]int32)
	for i := range f.literals {
		l := &f.literals[i]
		switch {
		case l.kind == testExact: // found by the map
		case len(l.text) < gramSize:
			pair := pairAt(l.text, 0)
			pairs[pair] = append(pairs[pair], int32(i))
		default:
			best := int32(-1)
			for at := 0; at+gramSize <= len(l.text); at++ {
				if n := counts[gramAt(l.text, at)]; best < 0 || n < best {
					best, l.at = n, int32(at)
				}
			}
			gram := gramAt(l.text, int(l.at))
			grams[gram] = append(grams[gram], int32(i))
		}
	}
	f.grams.fill(grams)
	f.pairs.fill(pairs)
}

func gramAt(b []byte, at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) | gramCase }

func pairAt(b []byte, at int) uint32 {
	return uint32(binary.LittleEndian.Uint16(b[at:])) | pairCase
}

// fill makes the tables so large that one bit in 32 is set at most, and half of
// the slots.
func (t *gramTable) fill(lists map[uint32][]int32) {
	if len(lists) == 0 {
		return
	}
	width := max(9, bits.Len(uint(32*len(lists)-1)))
	t.shift = uint8(32 - width)
	t.bits = make([]uint64, 1<<width/64)
	t.slots = make([]slot, 1<<bits.Len(uint(2*len(lists)-1)))
	grams := make([]uint32, 0, len(lists))
	for g := range lists {
		grams = append(grams, g)
	}
	slices.Sort(grams)
	for _, g := range grams {
		h := g * gramMul >> t.shift
		t.bits[h>>6] |= 1 << (h & 63)
		i := t.home(g)
		for t.slots[i].end > 0 {
			i = (i + 1) & uint32(len(t.slots)-1)
		}
		start := int32(len(t.list))
		t.list = append(t.list, lists[g]...)
		t.slots[i] = slot{g, start, int32(len(t.list))}
	}
}

func (t *gramTable) home(gram uint32) uint32 {
	gram ^= gram >> 15
	return gram * 0x85EBCA6B >> 7 & uint32(len(t.slots)-1)
}

// find returns the literals of a gram.
func (t *gramTable) find(gram uint32) []int32 {
	for i := t.home(gram); t.slots[i].end > 0; i = (i + 1) & uint32(len(t.slots)-1) {
		if s := &t.slots[i]; s.gram == gram {
			return t.list[s.start:s.end]
		}
	}
	return nil
}

// candidates returns the positions of the rules that may say yes or cannot tell,
// in ascending order. The result is valid until the next call.
func (sc *scratch) candidates(ix *index) []int32 {
	sc.turn++ // marks of this call
	if len(sc.marks) < len(ix.rules) {
		sc.marks = make([]uint32, len(ix.rules))
	}
	if len(sc.struck) < ix.literals {
		sc.struck = make([]uint32, ix.literals)
	}
	sc.found = append(sc.found[:0], ix.always...)
	for _, id := range sc.present {
		if f := ix.byField[id]; f != nil {
			sc.look(f, sc.first[id])
		}
	}
	for _, a := range sc.alias {
		if f := ix.byField[a.name]; f != nil {
			sc.look(f, a.first)
		}
	}
	if sc.ev.Blind != nil {
		for _, f := range ix.fields {
			if sc.at(f.id) < 0 && sc.blind(f.id) {
				sc.mark(f.all)
			}
		}
	}
	if f := ix.keywords; f != nil {
		if sc.ev.AnyBlind {
			sc.mark(f.all)
		} else {
			for e := range sc.ev.Fields {
				sc.lookIn(f, int32(e))
			}
		}
	}
	slices.Sort(sc.found)
	return sc.found
}

func (sc *scratch) mark(rules []int32) {
	for _, c := range rules {
		if sc.marks[c] != sc.turn {
			sc.marks[c] = sc.turn
			sc.found = append(sc.found, c)
		}
	}
}

// look searches the values of a field.
func (sc *scratch) look(f *fieldIndex, at int32) {
	sc.mark(f.presence)
	for ; at >= 0; at = sc.next[at] {
		sc.lookIn(f, at)
	}
}

// lookIn searches one value.
func (sc *scratch) lookIn(f *fieldIndex, e int32) {
	if len(f.literals) == 0 {
		return
	}
	b := sc.ev.Fields[e].Value
	if !ascii(b) {
		// Folding may change more than case. What is folded has the grams of its
		// own bytes.
		b = sc.folded(e).b
	}
	if len(b) <= f.longest && f.exact != nil {
		key := sc.key[:0]
		for _, c := range b {
			key = append(key, lower[c])
		}
		sc.key = key
		if n, ok := f.exact[string(key)]; ok {
			sc.mark(f.literals[n].rules)
		}
	}
	if t := &f.grams; len(t.bits) > 0 {
		for i := 0; i+gramSize <= len(b); i++ {
			gram := binary.LittleEndian.Uint32(b[i:]) | gramCase
			h := gram * gramMul >> t.shift
			if t.bits[h>>6]&(1<<(h&63)) != 0 {
				sc.strike(f, t.find(gram), b, i)
			}
		}
	}
	if t := &f.pairs; len(t.bits) > 0 {
		for i := 0; i+2 <= len(b); i++ {
			pair := uint32(binary.LittleEndian.Uint16(b[i:])) | pairCase
			h := pair * gramMul >> t.shift
			if t.bits[h>>6]&(1<<(h&63)) != 0 {
				sc.strike(f, t.find(pair), b, i)
			}
		}
	}
}

// strike compares literals with the text in whose place i their gram stands.
func (sc *scratch) strike(f *fieldIndex, numbers []int32, b []byte, i int) {
	for _, n := range numbers {
		if sc.struck[f.first+int(n)] == sc.turn {
			continue
		}
		l := &f.literals[n]
		start := i - int(l.at)
		end := start + len(l.text)
		if start < 0 || end > len(b) || l.kind == testPrefix && start > 0 || l.kind == testSuffix && end < len(b) {
			continue
		}
		if sameFolded(b[start:end], l.text) {
			sc.struck[f.first+int(n)] = sc.turn
			sc.mark(l.rules)
		}
	}
}

// sameFolded compares text that is ASCII or folded with folded text of the same
// length.
func sameFolded(b, folded []byte) bool {
	for i, c := range b {
		if lower[c] != folded[i] {
			return false
		}
	}
	return true
}

// lower folds ASCII and leaves other bytes.
var lower = func() (t [256]byte) {
	for i := range t {
		t[i] = byte(i)
	}
	copy(t['A':], bytes.ToLower([]byte("ABCDEFGHIJKLMNOPQRSTUVWXYZ")))
	return t
}()

func ascii(b []byte) bool {
	i := 0
	for ; i+8 <= len(b); i += 8 {
		if binary.LittleEndian.Uint64(b[i:])&0x8080808080808080 != 0 {
			return false
		}
	}
	for ; i < len(b); i++ {
		if b[i] >= 0x80 {
			return false
		}
	}
	return true
}
