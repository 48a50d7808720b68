package sigma

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"
)

const correlationBase = `
title: A
name: a
logsource: {product: p}
detection: {s: {A: a}, condition: s}
---
title: B
name: b
logsource: {product: p}
detection: {s: {A: b}, condition: s}
---
title: C
name: c
logsource: {product: p}
detection: {s: {A: c}, condition: s}
`

// correlationSet compiles correlations, each written as its section, over the
// rules a, b and c. They are called x0, x1 and so on.
func correlationSet(t testing.TB, sections ...string) *Set {
	t.Helper()
	text := correlationBase
	for i, s := range sections {
		text += fmt.Sprintf("---\ntitle: X%d\nname: x%d\ncorrelation: %s\n", i, i, s)
	}
	rules, refused := Parse("c.yml", []byte(text))
	set, more := Compile(rules, Options{})
	for _, r := range append(refused, more...) {
		t.Fatal(r)
	}
	return set
}

// happening is an event of a test.
type happening struct {
	kind string // a, b, c or several of them
	at   int64  // seconds
	user string
	n    string
	twin string
	id   int
}

func (h *happening) content() [32]byte { return sha256.Sum256(fmt.Append(nil, "event ", h.id)) }

func (h *happening) observe(c *Correlator, fn func(Correlated)) {
	ev := &Event{Source: LogSource{Product: "p"}}
	for _, k := range h.kind {
		ev.Fields = append(ev.Fields, Field{Name: "A", Value: []byte(string(k))})
	}
	ev.Fields = append(ev.Fields, Field{Name: "user", Value: []byte(h.user)})
	if h.n != "" {
		ev.Fields = append(ev.Fields, Field{Name: "n", Value: []byte(h.n)})
	}
	c.set.Match(ev, func(m Match) {
		c.Observe(m, ev, Observation{time.Unix(1e9+h.at, 0), h.content(), h.twin}, fn)
	})
}

// ledger keeps the firings that stand and refuses what does not add up.
type ledger struct {
	t    testing.TB
	open map[string]float64
	told int
}

func newLedger(t testing.TB) *ledger { return &ledger{t: t, open: make(map[string]float64)} }

func (l *ledger) hear(x Correlated) {
	l.told++
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %d %d", x.Rule.Title, x.Group, x.From.Unix()-1e9, x.To.Unix()-1e9)
	if !slices.IsSortedFunc(x.Contents, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) }) {
		l.t.Fatal("contents are not sorted")
	}
	for _, c := range x.Contents {
		fmt.Fprintf(&b, " %x", c[:4])
	}
	v, there := l.open[b.String()]
	switch {
	case x.Withdrawn && !there:
		l.t.Fatalf("withdrawn and never found: %s", b.String())
	case !x.Withdrawn && there:
		l.t.Fatalf("found twice: %s", b.String())
	case x.Withdrawn && v != x.Value:
		l.t.Fatalf("found with %v, withdrawn with %v: %s", v, x.Value, b.String())
	case x.Withdrawn:
		delete(l.open, b.String())
	default:
		l.open[b.String()] = x.Value
	}
}

var propertySections = []string{
	`{type: event_count, rules: [a], group-by: [user], timespan: 10s, condition: {gte: 3}}`,
	`{type: event_count, rules: [a, b], timespan: 7s, condition: {gt: 4}}`,
	`{type: value_count, rules: [a, c], group-by: [user], timespan: 12s, condition: {field: n, gte: 3}}`,
	`{type: value_sum, rules: [b], group-by: [user], timespan: 10s, condition: {field: n, gte: 5}}`,
	`{type: temporal, rules: [a, b, c], group-by: [user], timespan: 6s}`,
	`{type: temporal_ordered, rules: [a, b, c], group-by: [user], timespan: 15s}`,
	`{type: temporal_ordered, rules: [c, b, a], timespan: 5s, condition: {gte: 2}}`,
	`{type: event_count, rules: [c], group-by: [user], timespan: 10s, condition: {lte: 3}}`,
	`{type: value_avg, rules: [a, b], group-by: [user], timespan: 10s, condition: {field: n, lt: 2}}`,
	`{type: value_percentile, rules: [a], timespan: 10s, condition: {field: n, percentile: 90, gt: 2}}`,
	`{type: temporal, rules: [a, b, c], group-by: [user], timespan: 8s, condition: {gt: 1, lt: 3}}`,
	`{type: temporal_ordered, rules: [a, b, c], group-by: [user], timespan: 8s, condition: {eq: 2}}`,
}

var chainedSections = []string{
	`{type: event_count, rules: [a], group-by: [user], timespan: 8s, condition: {gte: 3}}`,
	`{type: event_count, rules: [b], group-by: [user], timespan: 8s, condition: {eq: 2}, generate: true}`,
	`{type: temporal_ordered, rules: [x0, c], group-by: [n], timespan: 20s, generate: true}`,
	`{type: temporal, rules: [x1, x0], group-by: [user], timespan: 20s, generate: true}`,
	`{type: event_count, rules: [x2, x3], timespan: 30s, condition: {gte: 2}}`,
	`{type: value_count, rules: [x0], timespan: 15s, condition: {field: [user, n], gte: 3}, generate: true}`,
}

// randomHappenings gives n events, dense of them in a second.
func randomHappenings(r *rand.Rand, n, dense int) []happening {
	var out []happening
	for i := range n {
		h := happening{kind: []string{"a", "a", "b", "c", "ab", "abc"}[r.IntN(6)], at: int64(r.IntN(n / dense)), user: []string{"u", "v"}[r.IntN(2)], id: i}
		if r.IntN(5) > 0 {
			h.n = fmt.Sprint(r.IntN(8) - 2)
		}
		if r.IntN(6) < dense {
			h.twin = fmt.Sprint("t", r.IntN(4))
		}
		out = append(out, h)
	}
	return out
}

// play brings events in a random order that keeps the bound: an event may come
// when no advance has passed its time. It returns what stands at the end.
func play(t *testing.T, set *Set, events []happening, r *rand.Rand, bound int64, rough bool) map[string]float64 {
	c := NewCorrelator(set, CorrelatorOptions{})
	l := newLedger(t)
	order := slices.Clone(events)
	delay := make(map[int]int64)
	for _, h := range order {
		delay[h.id] = h.at
		if bound > 0 {
			delay[h.id] += r.Int64N(bound)
		}
	}
	r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	sort.SliceStable(order, func(i, j int) bool { return delay[order[i].id] < delay[order[j].id] })
	for i, h := range order {
		h.observe(c, l.hear)
		if rough && r.IntN(4) == 0 {
			order[r.IntN(i+1)].observe(c, l.hear) // again
		}
		if bound > 0 && r.IntN(5) == 0 {
			c.Advance(time.Unix(1e9+delay[h.id]-bound, 0), l.hear)
		}
		if rough && r.IntN(10) == 0 {
			state := c.AppendState(nil)
			c = NewCorrelator(set, CorrelatorOptions{})
			if err := c.LoadState(state); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(state, c.AppendState(nil)) {
				t.Fatal("the state changes by being loaded")
			}
		}
	}
	if !rough {
		for key, n := range c.Late() {
			t.Fatalf("%d late at %s", n, key)
		}
	}
	c.Advance(time.Unix(1e9+1e6, 0), l.hear)
	if groups, n := c.Size(); groups != 0 || n != 0 || c.total != 0 {
		t.Fatalf("%d groups, %d observations, weight %d kept at the end", groups, n, c.total)
	}
	if len(c.Evicted()) != 0 {
		t.Fatalf("evicted %v", c.Evicted())
	}
	return l.open
}

func diff(a, b map[string]float64) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(a)) {
		if v, ok := b[k]; !ok || v != a[k] {
			out = append(out, fmt.Sprintf("- %s = %v", k, a[k]))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(b)) {
		if v, ok := a[k]; !ok || v != b[k] {
			out = append(out, fmt.Sprintf("+ %s = %v", k, b[k]))
		}
	}
	return strings.Join(out, "\n")
}

// TestAnyOrder brings the same events in random orders, some twice and with the
// state stored and loaded in between: the findings at the end are the same, and
// those that the definition gives.
func TestAnyOrder(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 4
	}
	for name, sections := range map[string][]string{"plain": propertySections, "chained": chainedSections} {
		t.Run(name, func(t *testing.T) {
			set := correlationSet(t, sections...)
			fired := make(map[string]bool)
			for round := range rounds {
				r := rand.New(rand.NewPCG(uint64(round), 7))
				events := randomHappenings(r, 60+20*(round%3), 1+round%4)
				want := play(t, set, events, r, 0, false)
				if name == "plain" {
					if d := diff(define(set, events), want); d != "" {
						t.Fatalf("round %d: -definition +correlator\n%s", round, d)
					}
				}
				for k := range want {
					fired[strings.Fields(k)[0]] = true
				}
				for i := range 100 {
					bound := []int64{0, 5, 25, 200}[i%4]
					if got := play(t, set, events, r, bound, i%2 == 1); diff(want, got) != "" {
						t.Fatalf("round %d, order %d, bound %d: -in order +shuffled\n%s", round, i, bound, diff(want, got))
					}
				}
			}
			for _, r := range set.Correlations() {
				if !fired[r.Title] && !set.Silent(r) {
					t.Errorf("%s never fires: it shows nothing", r.Title)
				}
			}
		})
	}
}

// define finds the firings by the definition, each window from nothing.
func define(set *Set, events []happening) map[string]float64 {
	out := make(map[string]float64)
	type seen struct {
		*happening
		step int
		id   [32]byte
	}
	for _, r := range set.Correlations() {
		c := r.Correlation
		span := int64(c.Timespan / time.Second)
		groups := make(map[string][]seen)
		for i := range events {
			h := &events[i]
			key := ""
			if len(c.GroupBy) > 0 {
				key = fmt.Sprintf("user=%q", h.user)
			}
			if len(c.Fields) > 0 && h.n == "" {
				continue
			}
			for step, name := range c.Rules {
				if strings.Contains(h.kind, name) {
					groups[key] = append(groups[key], seen{h, step, h.content()})
					if !c.temporal() {
						break
					}
				}
			}
		}
		for key, all := range groups {
			sort.Slice(all, func(i, j int) bool {
				a, b := all[i], all[j]
				if a.at != b.at {
					return a.at < b.at
				}
				if a.id != b.id {
					return bytes.Compare(a.id[:], b.id[:]) < 0
				}
				return a.step < b.step
			})
			// Twins: the first counts, and each a timespan after the last that counts.
			var entries []seen
			for _, e := range all {
				twin := slices.ContainsFunc(entries, func(o seen) bool {
					return e.twin != "" && o.twin == e.twin && (!c.temporal() || o.step == e.step) && e.at-o.at < span
				})
				if !twin {
					entries = append(entries, e)
				}
			}
			value := func(w []seen) float64 {
				var nums []int
				names, steps := make(map[string]bool), make(map[int]bool)
				for _, e := range w {
					var n int
					fmt.Sscan(e.n, &n)
					nums, names[e.n], steps[e.step] = append(nums, n), true, true
				}
				sum := 0
				for _, n := range nums {
					sum += n
				}
				switch c.Type {
				case "event_count":
					return float64(len(w))
				case "value_count":
					return float64(len(names))
				case "value_sum":
					return float64(sum)
				case "value_avg":
					return float64(sum) / float64(len(w))
				case "value_percentile":
					sort.Ints(nums)
					k := 1
					for float64(k)*100 < c.Percentile*float64(len(nums)) {
						k++
					}
					return float64(nums[k-1])
				case "temporal":
					return float64(len(steps))
				}
				// The longest row: every choice of steps, each as early as can be.
				best := 0
				var walk func(step, length int, time int64, last [32]byte)
				walk = func(step, length int, time int64, last [32]byte) {
					best = max(best, length)
					for s := step; s < len(c.Rules); s++ {
						for _, e := range w {
							if e.step == s && (length == 0 || e.at > time || e.at == time && e.id != last) {
								walk(s+1, length+1, e.at, e.id)
							}
						}
					}
				}
				walk(0, 0, 0, [32]byte{})
				return float64(best)
			}
			note := func(w []seen, from, to int64) {
				ids := make(map[[32]byte]bool)
				for _, e := range w {
					ids[e.id] = true
				}
				k := fmt.Sprintf("%s %s %d %d", r.Title, key, from, to)
				for _, id := range slices.SortedFunc(maps.Keys(ids), func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) }) {
					k += fmt.Sprintf(" %x", id[:4])
				}
				out[k] = value(w)
			}
			if c.atClose() {
				for len(entries) > 0 {
					end := entries[0].at + span
					n := 0
					for n < len(entries) && entries[n].at < end {
						n++
					}
					if c.holds(value(entries[:n])) {
						note(entries[:n], entries[0].at, end)
					}
					entries = entries[n:]
				}
				continue
			}
			on, last := false, int64(-1e9)
			for i, e := range entries {
				within := func(n int, after int64) (w []seen) {
					for _, o := range entries[:n] {
						if o.at > after {
							w = append(w, o)
						}
					}
					return w
				}
				// All times are whole seconds: just before e, what is a timespan old is
				// still there.
				if i > 0 && e.at > entries[i-1].at {
					w := within(i, e.at-span-1)
					on = on && len(w) > 0 && c.holds(value(w))
				}
				w := within(i+1, e.at-span)
				now := c.holds(value(w))
				if now && (!on || e.at-last >= span) {
					last = e.at
					note(w, w[0].at, e.at)
				}
				on = now
			}
		}
	}
	return out
}

// TestGroupFlood: a million group keys stay within the bounds, the stalest go
// first, and a group that is fed all the time survives.
func TestGroupFlood(t *testing.T) {
	set := correlationSet(t, `{type: event_count, rules: [a], group-by: [user], timespan: 1h, condition: {gte: 20}}`)
	c := NewCorrelator(set, CorrelatorOptions{MaxGroups: 10000})
	rule := set.Rules()[slices.IndexFunc(set.Rules(), func(r *Rule) bool { return r.Name == "a" })]
	l := newLedger(t)
	ev := &Event{Fields: []Field{{Name: "user"}}}
	keys := 1_000_000
	if testing.Short() {
		keys = 100_000
	}
	start := time.Unix(1e9, 0)
	var id uint64
	feed := func(user string, at time.Duration) {
		id++
		var content [32]byte
		binary.BigEndian.PutUint64(content[:], id)
		ev.Fields[0].Value = append(ev.Fields[0].Value[:0], user...)
		c.Observe(Match{Rule: rule, Verdict: Yes}, ev, Observation{Time: start.Add(at), Content: content}, l.hear)
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range keys {
		at := time.Duration(i) * time.Millisecond
		feed(fmt.Sprint("user", i), at)
		if i%5000 == 0 {
			feed("victim", at)
		}
		if groups := len(c.stale.groups); groups > 10000 {
			t.Fatalf("%d groups", groups)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 64<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	if got := c.Evicted()[set.Correlations()[0].Key()]; got != int64(keys-10000+1) {
		t.Errorf("%d evicted", got)
	}
	if len(l.open) == 0 {
		t.Error("the flood hides a group that is fed all the time")
	}
	c.Advance(start.Add(24*time.Hour), l.hear)
	if groups, n := c.Size(); groups+n != 0 {
		t.Errorf("%d groups and %d observations are left", groups, n)
	}
}

// TestOneGroupFlood: a group that is fed without end keeps within its bound,
// fires once in a timespan and takes nothing back.
func TestOneGroupFlood(t *testing.T) {
	set := correlationSet(t,
		`{type: event_count, rules: [a], timespan: 1h, condition: {gte: 5}}`,
		`{type: temporal_ordered, rules: [a, b], timespan: 1h}`,
		`{type: event_count, rules: [a], timespan: 1h, condition: {lt: 5}}`)
	r := rand.New(rand.NewPCG(1, 1))
	c := NewCorrelator(set, CorrelatorOptions{MaxEntries: 500})
	var open, withdrawn int
	for i := range 20000 {
		h := happening{kind: []string{"a", "b"}[i%2], at: int64(i/10) - int64(r.IntN(3)), id: i}
		h.observe(c, func(x Correlated) {
			if x.Withdrawn {
				open--
				if i > 2000 {
					withdrawn++
				}
			} else {
				open++
			}
		})
		if _, n := c.Size(); n > 3*501 {
			t.Fatalf("%d observations", n)
		}
	}
	if open != 2 || withdrawn != 0 {
		t.Errorf("%d firings, %d withdrawn while full", open, withdrawn)
	}
	if len(c.Evicted()) != 3 {
		t.Errorf("evicted %v", c.Evicted())
	}
}

// TestEvictionKeepsSilence: what the condition was is known when the entries that
// made it true are evicted.
func TestEvictionKeepsSilence(t *testing.T) {
	set := correlationSet(t, `{type: event_count, rules: [a], timespan: 1h, condition: {gte: 1}}`)
	c := NewCorrelator(set, CorrelatorOptions{MaxEntries: 16})
	l := newLedger(t)
	for i := range 17 {
		(&happening{kind: "a", at: int64(10 * i), id: i}).observe(c, l.hear)
	}
	(&happening{kind: "a", at: 25, id: 100}).observe(c, l.hear)
	(&happening{kind: "a", at: 15, id: 101}).observe(c, l.hear) // before what was evicted
	if _, n := c.Size(); len(l.open) != 1 || n != 15 {
		t.Errorf("%d firings, %d observations", len(l.open), n)
	}
	if got := c.Evicted()[set.Correlations()[0].Key()]; got != 4 {
		t.Errorf("%d evicted", got)
	}
}

// TestTotalBound: observations of all groups together are bounded too.
func TestTotalBound(t *testing.T) {
	set := correlationSet(t, `{type: event_count, rules: [a], group-by: [user], timespan: 1h, condition: {gte: 50}}`)
	c := NewCorrelator(set, CorrelatorOptions{MaxTotal: 100})
	for i := range 1000 {
		h := happening{kind: "a", at: int64(i), user: fmt.Sprint(i % 10), id: i}
		h.observe(c, func(Correlated) {})
		if c.total > 100 {
			t.Fatalf("weight %d", c.total)
		}
	}
	if _, n := c.Size(); n < 50 {
		t.Errorf("%d observations kept", n)
	}
}

// TestLongValues: what observations carry counts too.
func TestLongValues(t *testing.T) {
	set := correlationSet(t, `{type: value_count, rules: [a], group-by: [user], timespan: 1h, condition: {field: n, gte: 50}}`)
	c := NewCorrelator(set, CorrelatorOptions{MaxTotal: 1000})
	long := strings.Repeat("x", 1000)
	for i := range 1000 {
		h := happening{kind: "a", at: int64(i), user: fmt.Sprint(i%100, long), n: fmt.Sprint(i, long), id: i}
		h.observe(c, func(Correlated) {})
		if groups, n := c.Size(); c.total > 1000 || n > 60 || groups > 60 {
			t.Fatalf("weight %d, %d observations in %d groups", c.total, n, groups)
		}
	}
	h := happening{kind: "a", user: strings.Repeat("x", 1e6), id: -1, at: 1000}
	h.n = h.user
	h.observe(c, func(Correlated) {})
	if n := len(c.AppendState(nil)); n > 200000 {
		t.Errorf("a state of %d bytes", n)
	}
}

// TestManyCorrelations: hostile sets of correlations are read in time, and what
// an inner one cannot carry is told.
func TestManyCorrelations(t *testing.T) {
	text := correlationBase + "---\ntitle: Inner\nname: inner\ncorrelation: {type: event_count, rules: [a], timespan: 1m, condition: {gte: 1}}\n"
	for i := range 2000 {
		text += fmt.Sprintf("---\ntitle: Outer\ncorrelation: {type: event_count, rules: [inner], group-by: [f%d], timespan: 1m, condition: {gte: 1}}\n", i)
	}
	text += "---\ntitle: Aliases\ncorrelation:\n  type: temporal\n  rules: [a, b]\n  timespan: 1m\n  aliases:\n"
	for i := range 20000 {
		text += fmt.Sprintf("    a%d: {a: x}\n", i)
	}
	rules, refused := Parse("many.yml", []byte(text))
	if len(refused) != 1 || !strings.Contains(refused[0].Reason, "aliases") {
		t.Fatalf("refused %v", refused)
	}
	start := time.Now()
	set, more := Compile(rules, Options{})
	if len(more) > 0 || len(set.Correlations()) != 2001 {
		t.Fatal(more)
	}
	if spent := time.Since(start); spent > 5*time.Second {
		t.Errorf("compiled in %v", spent)
	}
	told := 0
	for _, w := range set.Warnings() {
		if strings.Contains(w.Text, "cannot carry") {
			told++
		}
	}
	if told != 2000-maxCarry {
		t.Errorf("%d warnings", told)
	}
	c := NewCorrelator(set, CorrelatorOptions{})
	(&happening{kind: "a"}).observe(c, func(Correlated) {})
	n := int64(0)
	for _, k := range c.Ungrouped() {
		n += k
	}
	if n != 2000 {
		t.Errorf("%d ungrouped", n)
	}
}

// TestHighCount: a rule that counts beyond the bound of a group is kept all the
// same.
func TestHighCount(t *testing.T) {
	set := correlationSet(t, `{type: event_count, rules: [a], timespan: 1d, condition: {gte: 300}}`)
	c := NewCorrelator(set, CorrelatorOptions{MaxEntries: 10})
	l := newLedger(t)
	for i := range 300 {
		h := happening{kind: "a", at: int64(i), id: i}
		h.observe(c, l.hear)
	}
	if len(l.open) != 1 {
		t.Errorf("%d firings", len(l.open))
	}
}

func TestObserveTakesYesAlone(t *testing.T) {
	set := correlationSet(t, `{type: event_count, rules: [a], timespan: 1d, condition: {gte: 1}}`)
	c := NewCorrelator(set, CorrelatorOptions{})
	for _, r := range set.Rules() {
		c.Observe(Match{Rule: r, Verdict: CannotTell}, &Event{}, Observation{}, func(Correlated) { t.Error("fired") })
	}
	if groups, _ := c.Size(); groups != 0 {
		t.Error("observed")
	}
}

func TestSilent(t *testing.T) {
	set := correlationSet(t,
		`{type: event_count, rules: [a], timespan: 1d, condition: {gte: 2}}`,
		`{type: event_count, rules: [a, b, x0], timespan: 1d, condition: {gte: 2}, generate: true}`,
		`{type: event_count, rules: [c, x1], timespan: 1d, condition: {gte: 2}}`)
	want := map[string]bool{"a": false, "b": false, "c": true, "x0": false, "x1": true, "x2": false}
	for _, r := range slices.Concat(set.Rules(), set.Correlations()) {
		if set.Silent(r) != want[r.Name] {
			t.Errorf("silent %s: %v", r.Name, set.Silent(r))
		}
	}
}

func TestCorrelationFields(t *testing.T) {
	rules, refused := Parse("c.yml", []byte(`
title: Start
name: start
logsource: {category: process_creation, product: windows}
detection: {s: {CommandLine: x}, condition: s}
---
title: Inner
name: inner
correlation: {type: event_count, rules: [start], group-by: [Image], timespan: 1m, condition: {gte: 2}}
---
title: Outer
name: outer
correlation:
  type: value_count
  rules: [inner]
  group-by: [who]
  timespan: 1h
  condition: {field: Image, gte: 2}
  aliases: {who: {inner: User}}
`))
	set, more := Compile(rules, Options{})
	if len(refused)+len(more) > 0 {
		t.Fatal(refused, more)
	}
	for _, r := range set.Correlations() {
		// The inner one carries User along for the outer one.
		if got, want := strings.Join(set.FieldsOf(r), " "), "Channel CommandLine EventID Image NewProcessName User"; got != want {
			t.Errorf("%s reads %s, want %s", r.Name, got, want)
		}
		source := LogSource{Product: "windows", Service: "security"}
		if got, want := strings.Join(set.FieldsOn(r, source), " "), "Channel CommandLine EventID NewProcessName User"; got != want {
			t.Errorf("%s reads on security %s, want %s", r.Name, got, want)
		}
		if set.FieldsOn(r, LogSource{Product: "linux"}) != nil || set.CouldFeed(r, []LogSource{{Product: "linux"}}) {
			t.Errorf("%s is fed by linux", r.Name)
		}
		if !set.CouldFeed(r, []LogSource{source}) {
			t.Errorf("%s is not fed by windows", r.Name)
		}
	}
}

// TestCouldFeedAll: a correlation that wants all its rules wants a source for each.
func TestCouldFeedAll(t *testing.T) {
	for typ, want := range map[string]bool{"temporal": false, "temporal_ordered": false, "event_count": true} {
		rules, _ := Parse("c.yml", []byte(fmt.Sprintf(`
title: One
name: one
logsource: {product: p}
detection: {s: {A: x}, condition: s}
---
title: Two
name: two
logsource: {product: q}
detection: {s: {A: x}, condition: s}
---
title: Both
correlation: {type: %s, rules: [one, two], timespan: 1h%s}
`, typ, map[bool]string{true: ", condition: {gte: 2}"}[typ == "event_count"])))
		set, refused := Compile(rules, Options{})
		if len(refused) > 0 {
			t.Fatal(refused)
		}
		both := set.Correlations()[0]
		if got := set.CouldFeed(both, []LogSource{{Product: "p"}}); got != want {
			t.Errorf("%s: %v by one of its sources", typ, got)
		}
		if !set.CouldFeed(both, []LogSource{{Product: "q"}, {Product: "p"}}) {
			t.Errorf("%s: not fed by both", typ)
		}
	}
}

func TestCorrelationWarnings(t *testing.T) {
	one, _ := Parse("one.yml", []byte(correlationBase))
	two, refused := Parse("two.yml", []byte(`
title: X
id: xid
correlation:
  type: event_count
  rules: [a, b]
  group-by: [who]
  timespan: 1h
  condition: {gte: 1}
  aliases: {who: {a: user}, other: {a: user, b: user}}
---
title: Y
correlation: {type: temporal, rules: [c], timespan: 1h, generate: true}
`))
	set, more := Compile(append(one, two...), Options{})
	if len(refused)+len(more) > 0 {
		t.Fatal(refused, more)
	}
	var got []string
	for _, w := range set.Warnings() {
		got = append(got, fmt.Sprintf("%s:%d %s", w.Path, w.Line, w.Text))
	}
	slices.Sort(got)
	want := []string{
		`two.yml:13 a correlation of type temporal with one rule says no more than the rule`,
		`two.yml:6 neither group-by nor the condition uses the alias "other"`,
		`two.yml:6 the alias "who" says nothing of the rule "b": a field of that name is read in its events`,
		`two.yml:6 the rule "A" of one.yml is no finding of its own any more: write generate: true to keep it`,
		`two.yml:6 the rule "B" of one.yml is no finding of its own any more: write generate: true to keep it`,
		`two.yml:9 every window satisfies the condition`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

// TestCorrelationDigest: the digest of a set tells correlations apart.
func TestCorrelationDigest(t *testing.T) {
	a := correlationSet(t, `{type: event_count, rules: [a], timespan: 1h, condition: {gte: 2}}`)
	b := correlationSet(t, `{type: event_count, rules: [a], timespan: 1h, condition: {gte: 3}}`)
	if a.Digest() == b.Digest() || a.Digest() == correlationSet(t).Digest() {
		t.Error("one digest for two sets")
	}
	c := NewCorrelator(a, CorrelatorOptions{})
	if err := NewCorrelator(b, CorrelatorOptions{}).LoadState(c.AppendState(nil)); err == nil || !strings.Contains(err.Error(), "another set") {
		t.Errorf("a state of another set: %v", err)
	}
}

// TestDeepChains: levels are bounded, and what names a refused rule is refused.
func TestDeepChains(t *testing.T) {
	text := correlationBase
	inner := "a"
	for i := range maxLevels + 3 {
		name := fmt.Sprintf("x%d", i)
		text += fmt.Sprintf("---\ntitle: %s\nname: %s\ncorrelation: {type: event_count, rules: [%s], timespan: 1m, condition: {gte: 1}}\n", name, name, inner)
		inner = name
	}
	rules, _ := Parse("deep.yml", []byte(text))
	set, refused := Compile(rules, Options{})
	if len(set.Correlations()) != maxLevels || len(refused) != 3 {
		t.Fatalf("%d taken, refused %v", len(set.Correlations()), refused)
	}
	if !strings.Contains(refused[0].Reason, "levels") || !strings.Contains(refused[1].Reason, "was refused") {
		t.Errorf("refused %v", refused)
	}
	l := newLedger(t)
	c := NewCorrelator(set, CorrelatorOptions{})
	(&happening{kind: "a"}).observe(c, l.hear)
	if len(l.open) != 1 {
		t.Errorf("%d firings of the outermost", len(l.open))
	}
}

// FuzzLoadState: a state that is taken is written again as it was, and what
// follows neither panics nor leaves the correlator out of balance.
func FuzzLoadState(f *testing.F) {
	sets := []*Set{correlationSet(f, propertySections...), correlationSet(f, chainedSections...)}
	for i, set := range sets {
		r := rand.New(rand.NewPCG(uint64(i), 3))
		c := NewCorrelator(set, CorrelatorOptions{})
		for j, h := range randomHappenings(r, 40, 1) {
			h.observe(c, func(Correlated) {})
			if j%13 == 0 {
				if j == 13 {
					c.Advance(time.Unix(1e9+5, 0), func(Correlated) {})
				}
				f.Add(uint8(i), c.AppendState(nil)[len(stateMagic)+32:])
			}
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		set := sets[int(which)%len(sets)]
		c := NewCorrelator(set, CorrelatorOptions{})
		state := append(append([]byte(stateMagic), set.digest[:]...), body...)
		if err := c.LoadState(state); err != nil {
			if groups, _ := c.Size(); groups != 0 {
				t.Fatal("a refused state leaves something behind")
			}
			return
		}
		if got := c.AppendState(nil); !bytes.Equal(got, state) {
			t.Fatalf("taken %x, written %x", state, got)
		}
		for _, h := range randomHappenings(rand.New(rand.NewPCG(1, 2)), 20, 2) {
			h.observe(c, func(Correlated) {})
		}
		c.Advance(time.Unix(2e9, 0), func(Correlated) {})
		weight := 0
		for _, tr := range c.trackers {
			for _, g := range tr.groups {
				if g.entries[len(g.entries)-1].time+tr.span < 2e18 {
					t.Fatal("an entry that no window can hold is kept")
				}
				weight += len(g.key) / 32
				for i := range g.entries {
					weight += g.entries[i].weight()
				}
			}
		}
		if weight != c.total {
			t.Fatalf("weight %d, counted as %d", weight, c.total)
		}
	})
}

func BenchmarkObserve(b *testing.B) {
	for _, bench := range []struct{ name, section string }{
		{"event_count", `{type: event_count, rules: [a], group-by: [user], timespan: 10m, condition: {gte: 1000}}`},
		{"value_count", `{type: value_count, rules: [a], group-by: [user], timespan: 10m, condition: {field: n, gte: 1000}}`},
		{"value_sum", `{type: value_sum, rules: [a], group-by: [user], timespan: 10m, condition: {field: n, gte: 1000000}}`},
		{"temporal_ordered", `{type: temporal_ordered, rules: [b, a], group-by: [user], timespan: 10m}`},
		{"at_close", `{type: event_count, rules: [a], group-by: [user], timespan: 10m, condition: {lt: 3}}`},
	} {
		for _, late := range []int{0, 60} {
			b.Run(fmt.Sprintf("%s/late=%ds", bench.name, late), func(b *testing.B) {
				set := correlationSet(b, bench.section)
				c := NewCorrelator(set, CorrelatorOptions{})
				byName := make(map[string]*Rule)
				for _, r := range set.Rules() {
					byName[r.Name] = r
				}
				ev := &Event{Fields: make([]Field, 20)}
				for i := range ev.Fields {
					ev.Fields[i] = Field{Name: fmt.Sprint("field", i), Value: []byte("value")}
				}
				users := make([][]byte, 1000)
				for i := range users {
					users[i] = fmt.Append(nil, "DOMAIN\\user", i)
				}
				ev.Fields[12].Name, ev.Fields[17].Name = "user", "n"
				r := rand.New(rand.NewPCG(1, 1))
				start := time.Unix(1e9, 0)
				quiet := func(Correlated) {}
				b.ReportAllocs()
				i := 0
				for b.Loop() { // 1,000 events a second, 1,000 users
					at := start.Add(time.Duration(i) * time.Millisecond)
					if late > 0 {
						at = at.Add(-time.Duration(r.IntN(late*1000)) * time.Millisecond)
					}
					var content [32]byte
					binary.BigEndian.PutUint64(content[:], r.Uint64())
					ev.Fields[12].Value = users[r.IntN(len(users))]
					ev.Fields[17].Value = users[r.IntN(len(users))][len("DOMAIN\\user"):]
					rule := byName["a"]
					if i%2 == 0 && bench.name == "temporal_ordered" {
						rule = byName["b"]
					}
					c.Observe(Match{Rule: rule, Verdict: Yes}, ev, Observation{Time: at, Content: content}, quiet)
					if i%1000 == 0 {
						c.Advance(start.Add(time.Duration(i)*time.Millisecond-time.Minute), quiet)
					}
					i++
				}
			})
		}
	}
}
