package sigma

import (
	"bytes"
	"math"
	"math/big"
	"slices"
)

// tally sums a window up. Each entry that was added can be removed again without
// a trace, so the value depends on the entries in the window alone.
type tally struct {
	n     int
	keys  map[string]int // value_count: how often each key is there
	steps []int          // temporal types: entries of each step
	kinds int            // steps with an entry
	lists [][]point      // temporal_ordered: the entries of each step
	sum   *big.Int       // value_sum, value_avg: exact, in units of 2^-1074
	nums  []float64      // percentiles; nothing is removed of those
}

func (y *tally) add(c *Correlation, e *entry) {
	y.n++
	switch {
	case c.temporal():
		if y.steps == nil {
			y.steps = make([]int, len(c.Rules))
		}
		if y.steps[e.step]++; y.steps[e.step] == 1 {
			y.kinds++
		}
		if c.Type == "temporal_ordered" {
			if y.lists == nil {
				y.lists = make([][]point, len(c.Rules))
			}
			list := y.lists[e.step]
			at := len(list)
			if at > 0 && list[at-1].compare(e.point) > 0 {
				at, _ = slices.BinarySearchFunc(list, e.point, point.compare)
			}
			y.lists[e.step] = slices.Insert(list, at, e.point)
		}
	case c.Type == "value_count":
		if y.keys == nil {
			y.keys = make(map[string]int)
		}
		for _, k := range e.more.keys {
			y.keys[k]++
		}
	case c.Type == "event_count":
	default:
		for _, v := range e.more.nums {
			y.number(c, v, 1)
		}
	}
}

func (y *tally) remove(c *Correlation, e *entry) {
	y.n--
	switch {
	case c.temporal():
		if y.steps[e.step]--; y.steps[e.step] == 0 {
			y.kinds--
		}
		if c.Type == "temporal_ordered" {
			list := y.lists[e.step]
			if list[0] == e.point {
				y.lists[e.step] = list[1:]
			} else if at, ok := slices.BinarySearchFunc(list, e.point, point.compare); ok {
				y.lists[e.step] = slices.Delete(list, at, at+1)
			}
		}
	case c.Type == "value_count":
		for _, k := range e.more.keys {
			if y.keys[k]--; y.keys[k] == 0 {
				delete(y.keys, k)
			}
		}
	case c.Type == "event_count":
	default:
		for _, v := range e.more.nums {
			y.number(c, v, -1)
		}
	}
}

// number adds a number to the sum, or takes it away.
func (y *tally) number(c *Correlation, v float64, sign int) {
	if c.Type == "value_percentile" || c.Type == "value_median" {
		y.nums = append(y.nums, v)
		return
	}
	if c.Type == "value_avg" {
		y.nums = append(y.nums, v)
	}
	if y.sum == nil {
		y.sum = new(big.Int)
	}
	fraction, exponent := math.Frexp(v)
	whole := big.NewInt(int64(math.Ldexp(fraction, 53)))
	if shift := exponent - 53 + 1074; shift >= 0 {
		whole.Lsh(whole, uint(shift))
	} else {
		whole.Rsh(whole, uint(-shift)) // zeros alone: the smallest number is 2^-1074
	}
	if sign < 0 {
		y.sum.Sub(y.sum, whole)
	} else {
		y.sum.Add(y.sum, whole)
	}
}

// total returns the sum as the nearest number.
func (y *tally) total() float64 {
	if y.sum == nil {
		return 0
	}
	f := new(big.Float).SetInt(y.sum)
	v, _ := f.SetMantExp(f, -1074).Float64()
	return max(-math.MaxFloat64, min(v, math.MaxFloat64))
}

// value is what the condition compares.
func (y *tally) value(c *Correlation) float64 {
	switch c.Type {
	case "event_count":
		return float64(y.n)
	case "value_count":
		return float64(len(y.keys))
	case "temporal":
		return float64(y.kinds)
	case "temporal_ordered":
		return float64(y.chain())
	case "value_sum":
		return y.total()
	case "value_avg":
		return y.total() / float64(len(y.nums))
	}
	slices.Sort(y.nums)
	rank := int(math.Ceil(c.Percentile * float64(len(y.nums)) / 100))
	return y.nums[min(max(rank, 1), len(y.nums))-1]
}

// sum tallies a window on its own.
func (t *tracker) sum(window []*entry) float64 {
	var y tally
	for _, e := range window {
		y.add(t.c, e)
	}
	return y.value(t.c)
}

// chain returns how many steps occur in the order of the list: the length of the
// longest row of entries, one of each of some steps, none before the one that
// goes before it. Entries of one time may stand in either order, but one event is
// not before itself.
func (y *tally) chain() int {
	// ends[i] is the place in lists[i] of the earliest entry that ends a row of the
	// length in hand, or -1.
	k := len(y.lists)
	ends, further := make([]int, k), make([]int, k)
	length := 0
	for i := range ends {
		ends[i] = -1
		if len(y.lists[i]) > 0 {
			ends[i], length = 0, 1
		}
	}
	for length > 0 {
		any := false
		for i := range further {
			further[i] = -1
			for j := range i {
				if ends[j] < 0 {
					continue
				}
				if at := y.follow(i, j, ends[j]); at >= 0 && (further[i] < 0 || at < further[i]) {
					further[i], any = at, true
				}
			}
		}
		if !any {
			break
		}
		ends, further = further, ends
		length++
	}
	return length
}

// follow returns the first entry of step i that may stand behind entry at of step
// j, or -1.
func (y *tally) follow(i, j, at int) int {
	list, before := y.lists[i], y.lists[j][at]
	from := func(t int64) int {
		n, _ := slices.BinarySearchFunc(list, t, func(p point, t int64) int {
			if p.time >= t {
				return 1
			}
			return -1
		})
		return n
	}
	n := from(before.time)
	if n == len(list) {
		return -1
	}
	same := func(l []point, k int) bool { return k < len(l) && l[k].time == before.time }
	if list[n].time == before.time && bytes.Equal(list[n].content[:], before.content[:]) &&
		!same(list, n+1) && !same(y.lists[j], at+1) {
		n = from(before.time + 1)
	}
	if n == len(list) {
		return -1
	}
	return n
}
