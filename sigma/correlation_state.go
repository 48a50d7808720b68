package sigma

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
)

// stateMagic starts a stored state; a change of its form changes the number.
const stateMagic = "sigma correlator 1\n"

// maxLeaves bounds the events of a firing in a stored state.
const maxLeaves = 4 * maxThreshold

// AppendState appends the state of the correlator to dst, for LoadState. Equal
// states give equal bytes.
func (c *Correlator) AppendState(dst []byte) []byte {
	dst = append(dst, stateMagic...)
	dst = append(dst, c.set.digest[:]...)
	dst = binary.AppendUvarint(dst, uint64(len(c.trackers)))
	for _, t := range c.trackers {
		for _, n := range []int64{t.mark, t.evicted, t.ungrouped, t.late, t.skipped} {
			dst = binary.AppendUvarint(dst, uint64(n))
		}
		dst = binary.AppendUvarint(dst, uint64(len(t.groups)))
		for _, key := range slices.Sorted(maps.Keys(t.groups)) {
			dst = t.groups[key].appendState(dst)
		}
	}
	return dst
}

func (g *cohort) appendState(b []byte) []byte {
	for _, v := range g.values {
		b = appendText(b, v)
	}
	// never is -1: one more makes all of them positive.
	for _, n := range []int64{g.base.time, g.base.last, g.next, g.floor} {
		b = binary.AppendUvarint(b, uint64(n+1))
	}
	b = append(b, flag(g.base.on))
	b = binary.AppendUvarint(b, uint64(len(g.entries)))
	for i := range g.entries {
		e := &g.entries[i]
		b = binary.AppendUvarint(b, uint64(e.time))
		b = append(b, e.content[:]...)
		b = binary.AppendUvarint(b, uint64(e.step))
		b = append(b, flag(e.on)|flag(e.fired)<<1|flag(e.hidden)<<2|flag(e.more != nil)<<3)
		b = binary.AppendUvarint(b, uint64(e.last+1))
		if e.more != nil {
			b = e.more.appendState(b)
		}
	}
	return b
}

func (x *more) appendState(b []byte) []byte {
	b = appendText(b, x.twin)
	b = appendTexts(b, x.keys)
	b = binary.AppendUvarint(b, uint64(len(x.nums)))
	for _, n := range x.nums {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(n))
	}
	for _, values := range x.carry {
		b = appendTexts(b, values)
	}
	b = binary.AppendUvarint(b, uint64(len(x.leaves)))
	for i := range x.leaves {
		b = append(b, x.leaves[i][:]...)
	}
	return b
}

func appendTexts(b []byte, texts []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(texts)))
	for _, s := range texts {
		b = appendText(b, s)
	}
	return b
}

// LoadState puts the correlator into a state that AppendState gave. It refuses
// the state of another set of rules and leaves the correlator as it was then.
func (c *Correlator) LoadState(b []byte) error {
	rest, ok := bytes.CutPrefix(b, []byte(stateMagic))
	if !ok {
		return errors.New("sigma: not a correlation state of this version")
	}
	if len(rest) < 32 || !bytes.Equal(rest[:32], c.set.digest[:]) {
		return errors.New("sigma: the correlation state belongs to another set of rules")
	}
	fresh := NewCorrelator(c.set, c.o)
	r := &stateReader{b: rest[32:], size: len(b)}
	if n := r.count(1); r.err == nil && n != len(fresh.trackers) {
		r.fail("the number of correlations")
	}
	for _, t := range fresh.trackers {
		if r.err != nil {
			break
		}
		for _, n := range []*int64{&t.mark, &t.evicted, &t.ungrouped, &t.late, &t.skipped} {
			*n = r.number(math.MaxInt64)
		}
		if t.mark > maxTime {
			r.fail("a time")
		}
		last := ""
		for i, n := 0, r.count(1); i < n && r.err == nil; i++ {
			g := fresh.loadGroup(t, r)
			if r.err == nil && i > 0 && g.key <= last {
				r.fail("the order of groups")
			}
			last = g.key
		}
	}
	if r.err == nil && len(r.b) > 0 {
		r.fail("bytes after the end")
	}
	if r.err != nil {
		return r.err
	}
	fresh.trim()
	*c = *fresh
	return nil
}

func (c *Correlator) loadGroup(t *tracker, r *stateReader) *cohort {
	var key []byte
	var values []string
	for _, name := range t.c.GroupBy {
		v := r.text(maxValue)
		values = append(values, v)
		key = appendGroup(key, name, v)
	}
	if t.groups[string(key)] != nil {
		r.fail("a group that is there twice")
		return t.groups[string(key)]
	}
	g := t.add(string(key))
	g.values = values
	for _, n := range []*int64{&g.base.time, &g.base.last, &g.next, &g.floor} {
		*n = r.number(math.MaxInt64) - 1
	}
	if max(g.base.time, g.base.last, g.floor) > maxTime || g.next < 0 || g.next > maxTime+t.span {
		r.fail("a time")
	}
	g.base.on = r.flags(1) == 1
	n := r.count(36)
	if r.err == nil && n == 0 {
		r.fail("a group without entries")
	}
	for i := 0; i < n && r.err == nil; i++ {
		var e entry
		e.time = r.number(maxTime)
		copy(e.content[:], r.take(32))
		e.step = int32(r.number(int64(len(t.steps) - 1)))
		flags := r.flags(15)
		e.on, e.fired, e.hidden = flags&1 != 0, flags&2 != 0, flags&4 != 0
		e.last = r.number(maxTime+1) - 1
		if flags&8 != 0 {
			e.more = r.more(t)
		}
		switch {
		case r.err != nil:
			return g
		case i > 0 && g.entries[i-1].compare(e.point) >= 0:
			r.fail("the order of entries")
		case t.needs() && e.more == nil, t.close && (e.on || e.fired), e.hidden && e.fired:
			r.fail("an entry")
		}
		g.entries = append(g.entries, e)
		g.weight += e.weight()
		if e.more != nil && e.more.twin != "" {
			if g.twins == nil {
				g.twins = make(map[string][]point)
			}
			k := t.twinKey(&e)
			g.twins[k] = append(g.twins[k], e.point)
		} else if e.hidden {
			r.fail("an entry")
		}
	}
	if r.err != nil {
		return g
	}
	c.total += g.weight
	c.stale.push(g)
	t.due.push(g)
	if t.close {
		g.r = n
	} else {
		g.seek(n)
	}
	c.requeue(g)
	return g
}

// needs reports whether each entry has more than its place.
func (t *tracker) needs() bool { return len(t.c.Fields) > 0 || len(t.carry) > 0 }

// stateReader reads a stored state. After an error it gives zeros.
type stateReader struct {
	b    []byte
	size int
	err  error
}

func (r *stateReader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("sigma: damaged correlation state at byte %d: %s", r.size-len(r.b), what)
	}
	r.b = nil
}

func (r *stateReader) take(n int) []byte {
	if n > len(r.b) {
		r.fail("it is cut short")
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *stateReader) number(most int64) int64 {
	v, n := binary.Uvarint(r.b)
	switch {
	case r.err != nil:
		return 0
	case n <= 0 || n > 1 && r.b[n-1] == 0 || v > uint64(most):
		r.fail("a number")
		return 0
	}
	r.b = r.b[n:]
	return int64(v)
}

// count reads the number of things that take at least size bytes each.
func (r *stateReader) count(size int) int {
	return int(r.number(int64(len(r.b) / size)))
}

func (r *stateReader) flags(most byte) byte {
	b := r.take(1)
	if b == nil {
		return 0
	}
	if b[0] > most {
		r.fail("a flag")
		return 0
	}
	return b[0]
}

func (r *stateReader) text(most int) string {
	n := r.count(1)
	if n > most {
		r.fail("a long text")
		return ""
	}
	return string(r.take(n))
}

func (r *stateReader) texts(most int) []string {
	n := r.count(1)
	if n > most {
		r.fail("a long list")
		return nil
	}
	var out []string
	for i := 0; i < n && r.err == nil; i++ {
		s := r.text(maxGroupBy * (maxValue + 10))
		if i > 0 && s <= out[i-1] {
			r.fail("the order of values")
		}
		out = append(out, s)
	}
	return out
}

func (r *stateReader) more(t *tracker) *more {
	x := &more{twin: r.text(maxValue), keys: r.texts(maxValues)}
	n := r.count(8)
	if n > maxValues {
		r.fail("a long list")
		return x
	}
	for i := 0; i < n && r.err == nil; i++ {
		b := r.take(8)
		if b == nil {
			break
		}
		v := math.Float64frombits(binary.LittleEndian.Uint64(b))
		if math.IsNaN(v) || math.IsInf(v, 0) || i > 0 && v < x.nums[i-1] {
			r.fail("a value")
		}
		x.nums = append(x.nums, v)
	}
	for range t.carry {
		x.carry = append(x.carry, r.texts(maxValues))
	}
	n = r.count(32)
	if n > maxLeaves {
		r.fail("a long list")
		return x
	}
	for i := 0; i < n && r.err == nil; i++ {
		var leaf [32]byte
		copy(leaf[:], r.take(32))
		if i > 0 && bytes.Compare(leaf[:], x.leaves[i-1][:]) <= 0 {
			r.fail("the order of contents")
		}
		x.leaves = append(x.leaves, leaf)
	}
	counted := t.c.Type == "value_count"
	switch {
	case r.err != nil:
	case len(t.c.Fields) == 0 && (x.keys != nil || x.nums != nil),
		len(t.c.Fields) > 0 && (counted && (len(x.keys) == 0 || x.nums != nil) || !counted && (len(x.nums) == 0 || x.keys != nil)),
		!t.needs() && x.twin == "" && x.leaves == nil:
		r.fail("an entry")
	}
	return x
}
