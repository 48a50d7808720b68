package sigma

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"
	"time"
)

// CorrelatorOptions bound the memory of a Correlator. Zero means the default.
type CorrelatorOptions struct {
	// MaxGroups is the number of groups of all correlations together, 100,000 by
	// default: one for each combination of group-by values that is being watched.
	MaxGroups int
	// MaxEntries is the number of observations that a group keeps, 10,000 by
	// default. A rule that counts further than half of it keeps twice its count.
	MaxEntries int
	// MaxTotal is the number of observations of all groups, 1,000,000 by default.
	// One takes about 90 bytes; one that carries values counts for each 64 bytes of
	// them as one more, and so do the values of a group.
	MaxTotal int
}

// An Observation is what a correlation must know of an event besides its fields.
type Observation struct {
	// Time is when it happened. Times before 1970 and after 2200 are moved there.
	Time time.Time
	// Content tells the event from others: the same content at the same time is
	// the same event, however often it arrives.
	Content [32]byte
	// Twin, unless empty, is equal for events of several sensors that saw the same
	// thing, such as the start of one process. Of events with one Twin that match
	// the same rule within a timespan the earliest counts.
	Twin string
}

// Correlated is a firing of a correlation, or its withdrawal. Rule, Contents,
// Group, From and To identify it: a withdrawal repeats them.
type Correlated struct {
	Rule *Rule
	// Withdrawn says that a firing told earlier is none after all, because events
	// that belong before it arrived since.
	Withdrawn bool
	// Contents are the events of the window, sorted. Where correlations feed the
	// rule they are the events of their windows.
	Contents [][32]byte
	// Group names the values that the events have in common: a canonical text such
	// as `User="alice"`, values folded, in the order of group-by; "" without one.
	Group string
	// From and To are the times of the first event and of the one that made the
	// condition true. For a window that is judged when it closes they are its
	// start, the first event, and its end, a timespan later.
	From, To time.Time
	// Value is what was compared: the count, the number of rules, or the sum,
	// average or percentile.
	Value float64
}

// Bounds of what a correlation reads of an event.
const (
	maxValue  = 1024                    // bytes of a value; a longer one is known by its digest
	maxValues = 64                      // values, or combinations of them, that one event gives
	maxTime   = int64(7258118400 * 1e9) // 2200-01-01
	never     = int64(-1)
)

// A Correlator follows the correlations of a set through a stream of matches. It
// has no clock: time is what observations and Advance say. It is not safe for
// concurrent use, and the functions that it calls must not use it.
//
// Which firings stand after Advance(t) depends on the set of observations alone
// and not on the order of their arrival, as long as none comes after an Advance
// beyond its time and nothing was evicted.
type Correlator struct {
	set      *Set
	o        CorrelatorOptions
	trackers []*tracker // parallel to the plans
	stale    queue      // all groups
	total    int
	key      []byte
}

// tracker is the state of one correlation.
type tracker struct {
	*plan
	c      *Correlation
	most   int   // entries of a group
	mark   int64 // nothing before it is awaited any more
	groups map[string]*cohort
	due    queue

	evicted, ungrouped, late, skipped int64
}

// cohort is the state of one combination of group-by values.
//
// Its entries stand in the order of time, content and step. Each carries what
// the condition was after it; so an entry that arrives late is inserted and the
// ones behind it are judged again, until one comes out as before.
type cohort struct {
	t       *tracker
	values  []string
	key     string
	entries []entry
	base    verdictAt // after the last entry that was let go
	next    int64     // of windows judged at their close: the end of the last one
	floor   int64     // entries were evicted: nothing up to here can be judged again
	weight  int

	// The window of the sliding types is entries[l:r]; tally sums it up. Between
	// calls r is the end.
	l, r  int
	tally tally
	twins map[string][]point

	newest, dueAt  int64 // as last told to the queues
	atStale, atDue int
}

// point is the place of an entry in the order of a group.
type point struct {
	time    int64
	content [32]byte
	step    int32
}

func (a point) compare(b point) int {
	return cmp.Or(cmp.Compare(a.time, b.time), bytes.Compare(a.content[:], b.content[:]), cmp.Compare(a.step, b.step))
}

// verdictAt is what the condition was at an entry.
type verdictAt struct {
	time int64
	on   bool  // it was true
	last int64 // time of the last firing, or never
}

type entry struct {
	point
	last   int64
	on     bool
	fired  bool
	hidden bool // a twin of an earlier entry: counts nowhere
	more   *more
}

// more is what few entries have.
type more struct {
	twin   string
	keys   []string   // of value_count
	nums   []float64  // of the other value types
	carry  [][]string // parallel to plan.carry
	leaves [][32]byte // of a firing: the events behind it
}

// weight is 1, and 1 more for each 64 bytes that the entry carries.
func (e *entry) weight() int {
	if e.more == nil {
		return 1
	}
	n := len(e.more.twin) + 8*len(e.more.nums) + 32*len(e.more.leaves)
	for _, k := range e.more.keys {
		n += 16 + len(k)
	}
	for _, c := range e.more.carry {
		for _, v := range c {
			n += 16 + len(v)
		}
	}
	return 1 + n/64
}

// NewCorrelator returns a correlator for the correlations of a set.
func NewCorrelator(s *Set, o CorrelatorOptions) *Correlator {
	o.MaxGroups = cmp.Or(max(o.MaxGroups, 0), 100_000)
	o.MaxEntries = cmp.Or(max(o.MaxEntries, 0), 10_000)
	o.MaxTotal = cmp.Or(max(o.MaxTotal, 0), 1_000_000)
	c := &Correlator{set: s, o: o}
	c.stale = queue{before: staler, at: func(g *cohort) *int { return &g.atStale }}
	for _, p := range s.correlations.plans {
		t := &tracker{plan: p, c: p.rule.Correlation, most: o.MaxEntries, groups: make(map[string]*cohort)}
		t.due = queue{before: dueBefore, at: func(g *cohort) *int { return &g.atDue }}
		if t.c.counts() {
			for _, x := range t.c.Condition {
				t.most = max(t.most, 2*int(x.Value)+2)
			}
		}
		c.trackers = append(c.trackers, t)
	}
	return c
}

// Observe takes a match of the set. It calls fn for each firing that the match
// brings about or takes back. Matches that cannot be decided are no
// observations. The event is read during the call.
func (c *Correlator) Observe(m Match, ev *Event, o Observation, fn func(Correlated)) {
	if m.Verdict != Yes {
		return
	}
	inputs := c.set.correlations.inputs[m.Rule]
	if len(inputs) > 0 && len(o.Twin) > maxValue {
		o.Twin = digestText([]byte(o.Twin))
	}
	for i := range inputs {
		in := &inputs[i]
		c.observe(in, point{clamp(o.Time), o.Content, int32(in.step)}, o.Twin, nil, func(f *from) []string {
			return c.set.values(ev, f.names)
		}, false, fn)
	}
	c.trim()
}

func clamp(t time.Time) int64 {
	switch s := t.Unix(); {
	case s < 0:
		return 0
	case s >= maxTime/1e9:
		return maxTime
	}
	return t.UnixNano()
}

// values reads a field of an event under the first of its names that is there.
// Values are folded, opaque tokens kept, and null is no value.
func (s *Set) values(ev *Event, names []string) []string {
	var out []string
	for _, name := range names {
		there := false
		for i := range ev.Fields {
			f := &ev.Fields[i]
			if stripSpaces(f.Name) != name {
				continue
			}
			there = true
			if f.Kind != KindNull && len(out) <= maxValues {
				out = append(out, s.canonical(f.Value))
			}
		}
		if there {
			break
		}
	}
	return out
}

// canonical is the text by which values are compared across events.
func (s *Set) canonical(b []byte) string {
	out := make([]byte, 0, len(b))
	for from := 0; from < len(b); {
		start, end := -1, -1
		if s.opaque != nil {
			start, end = s.opaque(b[from:])
		}
		if start < 0 || end <= start || from+end > len(b) {
			out = appendFold(out, b[from:])
			break
		}
		out = appendFold(out, b[from:from+start])
		out = append(out, b[from+start:from+end]...)
		from += end
	}
	if len(out) > maxValue {
		return digestText(out)
	}
	return string(out)
}

func digestText(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// number reads a canonical value. An opaque token is none, whatever its spelling.
func (s *Set) number(v string) (float64, bool) {
	if s.opaque != nil {
		if start, end := s.opaque([]byte(v)); start >= 0 && end > start {
			return 0, false
		}
	}
	n, ok := parseNumber([]byte(v))
	return n.f, ok
}

// observe brings one input to one correlation, or takes it away again.
func (c *Correlator) observe(in *input, at point, twin string, leaves [][32]byte, read func(*from) []string, remove bool, fn func(Correlated)) {
	t := c.trackers[in.to.index]
	lists := make([][]string, len(in.group))
	combinations := 1
	for i := range in.group {
		lists[i] = distinct(read(&in.group[i]))
		combinations *= len(lists[i])
		if combinations == 0 || combinations > maxValues {
			if !remove {
				t.ungrouped++
			}
			return
		}
	}
	e := entry{point: at, last: never, hidden: true}
	var x more
	if len(in.fields) > 0 && !x.read(c.set, t.c, in, read) {
		if !remove {
			t.skipped++
		}
		return
	}
	for i := range in.carry {
		x.carry = append(x.carry, first(distinct(read(&in.carry[i])), maxValues))
	}
	x.twin, x.leaves = twin, leaves
	if twin != "" || leaves != nil || len(in.fields) > 0 || len(in.carry) > 0 {
		e.more = &x
	}
	pick := make([]int, len(lists))
	for {
		c.key = c.key[:0]
		for i, p := range pick {
			c.key = appendGroup(c.key, t.c.GroupBy[i], lists[i][p])
		}
		g := t.groups[string(c.key)]
		switch {
		case remove:
			if g != nil {
				c.remove(g, at, fn)
				c.requeue(g)
			}
		case g != nil || at.time >= t.mark:
			if g == nil {
				g = t.add(string(c.key))
				c.total += g.weight
				for i, p := range pick {
					g.values = append(g.values, lists[i][p])
				}
				c.stale.push(g)
				t.due.push(g)
			}
			c.place(g, e, fn)
			c.requeue(g)
		default:
			t.late++
		}
		i := len(pick) - 1
		for ; i >= 0; i-- {
			if pick[i]++; pick[i] < len(lists[i]) {
				break
			}
			pick[i] = 0
		}
		if i < 0 {
			return
		}
	}
}

// read fills in what a value type reads and reports whether there is any.
func (x *more) read(s *Set, c *Correlation, in *input, read func(*from) []string) bool {
	if c.Type != "value_count" {
		for _, v := range read(&in.fields[0]) {
			if n, ok := s.number(v); ok && len(x.nums) < maxValues {
				x.nums = append(x.nums, n)
			}
		}
		slices.Sort(x.nums)
		return len(x.nums) > 0
	}
	x.keys = []string{""}
	for i := range in.fields {
		var longer []string
		for _, v := range distinct(read(&in.fields[i])) {
			for _, k := range x.keys {
				if len(longer) < maxValues {
					longer = append(longer, string(appendText([]byte(k), v)))
				}
			}
		}
		x.keys = longer
	}
	slices.Sort(x.keys)
	return len(x.keys) > 0
}

func distinct(values []string) []string {
	if len(values) > 1 {
		slices.Sort(values)
		values = slices.Compact(values)
	}
	return values
}

func first[E any](s []E, n int) []E { return s[:min(len(s), n)] }

func appendGroup(b []byte, name, value string) []byte {
	if len(b) > 0 {
		b = append(b, ' ')
	}
	return strconv.AppendQuote(append(append(b, name...), '='), value)
}

func (t *tracker) add(key string) *cohort {
	g := &cohort{t: t, key: key, base: verdictAt{never, false, never}, floor: never, atStale: -1, atDue: -1}
	g.weight = len(key) / 32 // it is kept as one text and as its values
	t.groups[key] = g
	return g
}

// index finds the place of a point among the entries.
func (g *cohort) index(p point) (int, bool) {
	n := len(g.entries)
	if n == 0 || g.entries[n-1].compare(p) < 0 {
		return n, false // the common case
	}
	return slices.BinarySearchFunc(g.entries, p, func(e entry, p point) int { return e.compare(p) })
}

// settled reports whether nothing at a time can change any more.
func (g *cohort) settled(time int64) bool { return time < g.t.mark || time <= g.floor }

// place adds an entry to its group, unless it is there already.
func (c *Correlator) place(g *cohort, e entry, fn func(Correlated)) {
	t := g.t
	i, found := g.index(e.point)
	if found {
		return
	}
	if !t.c.temporal() {
		// An event that two rules match is one event, with what the first of the
		// rules in the list reads of it.
		for _, j := range []int{i - 1, i} {
			if j < 0 || j >= len(g.entries) || g.entries[j].time != e.time || g.entries[j].content != e.content {
				continue
			}
			if g.entries[j].step < e.step || g.settled(e.time) {
				return
			}
			c.remove(g, g.entries[j].point, fn)
			i, _ = g.index(e.point)
			break
		}
	}
	switch {
	case e.time < t.mark:
		t.late++
		return
	case e.time <= g.floor:
		t.evicted++
		return
	}
	g.entries = slices.Insert(g.entries, i, e)
	if i < g.l {
		g.l++
	}
	g.r++
	g.weight += e.weight()
	c.total += e.weight()
	if e.more == nil || e.more.twin == "" {
		c.show(g, i, fn)
	} else {
		key := t.twinKey(&e)
		if g.twins == nil {
			g.twins = make(map[string][]point)
		}
		points := g.twins[key]
		at, _ := slices.BinarySearchFunc(points, e.point, point.compare)
		g.twins[key] = slices.Insert(points, at, e.point)
		c.retwin(g, key, fn)
	}
	if len(g.entries) > t.most {
		c.shorten(g)
	}
}

func (t *tracker) twinKey(e *entry) string {
	if t.c.temporal() {
		return strconv.Itoa(int(e.step)) + "/" + e.more.twin
	}
	return e.more.twin
}

// retwin decides anew which of the entries with one twin count: the first, and
// each that is a timespan after the last that counts.
func (c *Correlator) retwin(g *cohort, key string, fn func(Correlated)) {
	last := never
	var show []point
	points := slices.Clone(g.twins[key])
	for _, p := range points {
		i, _ := g.index(p)
		hidden := g.entries[i].hidden
		if !g.settled(p.time) {
			hidden = last != never && p.time-last < g.t.span
		}
		if !hidden {
			last = p.time
		}
		if hidden && !g.entries[i].hidden {
			c.hide(g, i, fn)
		} else if !hidden && g.entries[i].hidden {
			show = append(show, p)
		}
	}
	for _, p := range show {
		i, _ := g.index(p)
		c.show(g, i, fn)
	}
}

// remove takes an entry out again.
func (c *Correlator) remove(g *cohort, p point, fn func(Correlated)) {
	i, found := g.index(p)
	if !found || g.settled(p.time) {
		return
	}
	if !g.entries[i].hidden {
		c.hide(g, i, fn)
	}
	e := g.entries[i]
	g.entries = slices.Delete(g.entries, i, i+1)
	if i < g.l {
		g.l--
	}
	g.r--
	g.weight -= e.weight()
	c.total -= e.weight()
	if e.more != nil && e.more.twin != "" {
		key := g.t.twinKey(&e)
		g.dropTwin(key, p)
		c.retwin(g, key, fn)
	}
}

func (g *cohort) dropTwin(key string, p point) {
	points := g.twins[key]
	if at, ok := slices.BinarySearchFunc(points, p, point.compare); ok {
		points = slices.Delete(points, at, at+1)
	}
	if len(points) == 0 {
		delete(g.twins, key)
	} else {
		g.twins[key] = points
	}
}

// show lets a hidden entry count.
func (c *Correlator) show(g *cohort, i int, fn func(Correlated)) {
	if g.t.close {
		g.entries[i].hidden = false // judged when the window closes
		return
	}
	g.seek(i)
	g.entries[i].hidden = false
	c.judgeFrom(g, i, true, fn)
}

// hide lets an entry count no more.
func (c *Correlator) hide(g *cohort, i int, fn func(Correlated)) {
	if g.t.close {
		g.entries[i].hidden = true
		return
	}
	g.seek(i)
	g.entries[i].hidden = true
	c.judgeFrom(g, i, false, fn)
}

// judgeFrom judges the entries from i on, where entry x has just changed, and
// tells how the firings differ from those before.
func (c *Correlator) judgeFrom(g *cohort, x int, shown bool, fn func(Correlated)) {
	span, changed := g.t.span, g.entries[x].time
	before := g.after(x)
	var gone, come []*firing
	for j := x; j < len(g.entries); j++ {
		e := &g.entries[j]
		was := *e
		if j == x && shown {
			was.fired = false
		}
		now, fired, value := g.judge(j, before)
		e.on, e.last, e.fired = now.on, now.last, fired
		in := was.time-changed < span // the entry that changed is in this window
		if was.fired && (!fired || in) {
			window := g.window(j, x, !shown)
			gone = append(gone, c.firing(g, window, window[0].time, was.time, g.t.sum(window)))
		}
		if fired && (!was.fired || in) {
			window := g.window(j, -1, false)
			come = append(come, c.firing(g, window, window[0].time, e.time, value))
		}
		before = now
		if !in && e.on == was.on && e.last == was.last {
			break
		}
	}
	g.seek(len(g.entries))
	// A firing may only have moved to another entry of the same time.
	for _, f := range gone {
		if i := slices.IndexFunc(come, f.same); i >= 0 {
			come = slices.Delete(come, i, i+1)
			continue
		}
		f.Withdrawn = true
		c.tell(g, f, fn)
	}
	for _, f := range come {
		c.tell(g, f, fn)
	}
}

// after returns the verdict before entry i: that of the entry that counts and
// stands last before it.
func (g *cohort) after(i int) verdictAt {
	for i--; i >= 0; i-- {
		if e := &g.entries[i]; !e.hidden {
			return verdictAt{e.time, e.on, e.last}
		}
	}
	return g.base
}

// judge moves the window to entry j, which follows it, and says whether the
// condition fires there: when it becomes true, and again when a timespan has
// passed. It has become false in between when it was at the moment before j.
func (g *cohort) judge(j int, before verdictAt) (now verdictAt, fired bool, value float64) {
	e := &g.entries[j]
	if e.hidden {
		g.r = j + 1
		return before, false, 0
	}
	now = verdictAt{e.time, before.on, before.last}
	if now.on && e.time > before.time {
		g.drop(e.time - g.t.span - 1)
		// Of entries that were evicted only the verdict is known.
		if g.tally.n > 0 || before.time < e.time-g.t.span {
			_, now.on = g.holds()
		}
	}
	g.drop(e.time - g.t.span)
	g.add(j)
	g.r = j + 1
	value, ok := g.holds()
	if ok && (!now.on || now.last == never || e.time-now.last >= g.t.span) {
		fired, now.last = true, e.time
	}
	now.on = ok
	return now, fired, value
}

func (g *cohort) holds() (float64, bool) {
	if g.tally.n == 0 {
		return 0, false
	}
	if g.t.c.temporal() && !g.t.c.holds(float64(g.tally.kinds)) {
		return 0, false // the order cannot make it more
	}
	v := g.tally.value(g.t.c)
	return v, g.t.c.holds(v)
}

// drop moves the start of the window behind a time.
func (g *cohort) drop(until int64) {
	for g.l < g.r && g.entries[g.l].time <= until {
		g.take(g.l)
		g.l++
	}
}

func (g *cohort) add(i int) {
	if e := &g.entries[i]; !e.hidden {
		g.tally.add(g.t.c, e)
	}
}

func (g *cohort) take(i int) {
	if e := &g.entries[i]; !e.hidden {
		g.tally.remove(g.t.c, e)
	}
}

// seek moves the window to the one of the entry that counts before j.
func (g *cohort) seek(j int) {
	start := g.after(j).time - g.t.span
	for g.l > 0 && (g.l > j || g.entries[g.l-1].time > start) {
		g.l--
		g.add(g.l)
	}
	for g.r < j {
		g.add(g.r)
		g.r++
	}
	for g.r > j {
		g.r--
		g.take(g.r)
	}
	g.drop(start)
}

// window returns the entries that count in the window of entry j. Entry x counts
// or not as told, whatever it does now.
func (g *cohort) window(j, x int, counts bool) []*entry {
	start := g.entries[j].time - g.t.span
	l, _ := slices.BinarySearchFunc(g.entries[:j+1], start, func(e entry, start int64) int {
		if e.time > start {
			return 1
		}
		return -1
	})
	var out []*entry
	for i := l; i <= j; i++ {
		if e := &g.entries[i]; i != x && !e.hidden || i == x && counts {
			out = append(out, e)
		}
	}
	return out
}

// firing is what is told, and what outer correlations read of it.
type firing struct {
	Correlated
	carry [][]string // parallel to plan.carry
}

func (f *firing) same(o *firing) bool {
	return f.From.Equal(o.From) && f.To.Equal(o.To) && f.Value == o.Value && slices.Equal(f.Contents, o.Contents) &&
		slices.EqualFunc(f.carry, o.carry, func(a, b []string) bool { return slices.Equal(a, b) })
}

func (c *Correlator) firing(g *cohort, window []*entry, start, end int64, value float64) *firing {
	contents := make([][32]byte, 0, len(window))
	for _, e := range window {
		if e.more != nil && e.more.leaves != nil {
			contents = append(contents, e.more.leaves...)
		} else {
			contents = append(contents, e.content)
		}
	}
	slices.SortFunc(contents, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
	contents = first(slices.Compact(contents), max(c.o.MaxEntries, g.t.most))
	f := &firing{
		Correlated: Correlated{
			Rule: g.t.rule, Contents: contents, Group: g.key,
			From: time.Unix(0, start).UTC(), To: time.Unix(0, end).UTC(), Value: value,
		},
		carry: make([][]string, len(g.t.carry)),
	}
	for i := range f.carry {
		for _, e := range window {
			if e.more != nil && i < len(e.more.carry) {
				f.carry[i] = append(f.carry[i], e.more.carry[i]...)
			}
		}
		f.carry[i] = distinct(f.carry[i])
	}
	return f
}

// tell reports a firing and brings it to the correlations that it feeds.
func (c *Correlator) tell(g *cohort, f *firing, fn func(Correlated)) {
	if !g.t.silent {
		fn(f.Correlated)
	}
	inputs := c.set.correlations.inputs[g.t.rule]
	if len(inputs) == 0 {
		return
	}
	at := point{time: clamp(f.To), content: f.identity()}
	for i := range inputs {
		in := &inputs[i]
		at.step = int32(in.step)
		c.observe(in, at, "", f.Contents, func(src *from) []string {
			if src.grouped {
				return []string{g.values[src.at]}
			}
			if src.at < 0 {
				return nil // warned of by Compile
			}
			return slices.Clone(f.carry[src.at])
		}, f.Withdrawn, fn)
	}
}

// identity digests what tells one firing from others.
func (o *Correlated) identity() [32]byte {
	h := sha256.New()
	h.Write([]byte("sigma correlation 1\n"))
	h.Write(o.Rule.Digest[:])
	b := binary.AppendVarint(nil, o.From.UnixNano())
	b = binary.AppendVarint(b, o.To.UnixNano())
	h.Write(appendText(b, o.Group))
	for i := range o.Contents {
		h.Write(o.Contents[i][:])
	}
	return [32]byte(h.Sum(nil))
}

// Advance says that nothing older than until is awaited any more. It judges the
// windows that end by then, calls fn for those that fire, and forgets what no
// later window can hold. Observations before until are late from then on.
func (c *Correlator) Advance(until time.Time, fn func(Correlated)) {
	mark := clamp(until)
	for _, t := range c.trackers { // inner first: what they tell is not late for outer ones
		for len(t.due.groups) > 0 && t.due.groups[0].dueAt <= mark {
			g := t.due.groups[0]
			if t.close {
				c.closeWindows(g, mark, fn)
			}
			n := 0
			for n < len(g.entries) && g.entries[n].time+t.span < mark {
				n++
			}
			c.let(g, n)
			if len(g.entries) == 0 {
				c.forget(g)
			} else {
				c.requeue(g)
			}
		}
		t.mark = max(t.mark, mark)
	}
	c.trim()
}

// closeWindows judges the windows of a group that end by a time. The first window
// starts with the first event, each further one with the first event after the
// end of the one before.
func (c *Correlator) closeWindows(g *cohort, until int64, fn func(Correlated)) {
	for {
		i := g.opening()
		if i < 0 || g.entries[i].time+g.t.span > until {
			return
		}
		start := g.entries[i].time
		end := start + g.t.span
		var window []*entry
		for ; i < len(g.entries) && g.entries[i].time < end; i++ {
			if !g.entries[i].hidden {
				window = append(window, &g.entries[i])
			}
		}
		g.next = end
		if v := g.t.sum(window); g.t.c.holds(v) {
			c.tell(g, c.firing(g, window, start, end, v), fn)
		}
	}
}

// opening returns the entry that opens the next window, or -1.
func (g *cohort) opening() int {
	i, _ := slices.BinarySearchFunc(g.entries, g.next, func(e entry, t int64) int {
		if e.time >= t {
			return 1
		}
		return -1
	})
	for ; i < len(g.entries); i++ {
		if !g.entries[i].hidden {
			return i
		}
	}
	return -1
}

// let lets the first n entries go.
func (c *Correlator) let(g *cohort, n int) {
	if n == 0 {
		return
	}
	if !g.t.close {
		g.base = g.after(n)
		for g.l < n {
			if g.l < g.r {
				g.take(g.l)
			}
			g.l++
		}
		g.l, g.r = g.l-n, g.r-n
	}
	for i := range g.entries[:n] {
		e := &g.entries[i]
		g.weight -= e.weight()
		c.total -= e.weight()
		if e.more != nil && e.more.twin != "" {
			g.dropTwin(g.t.twinKey(e), e.point)
		}
		e.more = nil
	}
	g.entries = g.entries[n:]
	if g.t.close {
		g.r = len(g.entries)
	}
}

// shorten takes an eighth of a group that is full: the oldest entries, or the
// newest where a window waits for its close and must keep its start. Firings that
// stand on evicted entries stay.
func (c *Correlator) shorten(g *cohort) {
	n := len(g.entries)/8 + 1
	g.t.evicted += int64(n)
	if g.t.close {
		keep := len(g.entries) - n
		rest := slices.Clone(g.entries[keep:])
		g.entries = g.entries[:keep]
		for i := range rest {
			g.weight -= rest[i].weight()
			c.total -= rest[i].weight()
			if x := rest[i].more; x != nil && x.twin != "" {
				g.dropTwin(g.t.twinKey(&rest[i]), rest[i].point)
			}
		}
		clear(g.entries[keep : keep+n])
		g.r = keep
		return
	}
	last := g.entries[n-1].time
	for i := range g.entries {
		if e := &g.entries[i]; e.fired && e.time-last < g.t.span {
			g.floor = max(g.floor, e.time)
		}
	}
	g.floor = max(g.floor, last)
	c.let(g, n)
}

// trim keeps the whole within its bounds. The group goes first whose newest
// observation is the oldest.
func (c *Correlator) trim() {
	for len(c.stale.groups) > c.o.MaxGroups || c.total > c.o.MaxTotal {
		g := c.stale.groups[0]
		if newest := g.entries[len(g.entries)-1].time; newest != g.newest {
			g.newest = newest
			c.stale.fix(g)
			continue
		}
		g.t.evicted += int64(len(g.entries))
		c.forget(g)
	}
}

func (c *Correlator) forget(g *cohort) {
	c.total -= g.weight
	c.stale.remove(g)
	g.t.due.remove(g)
	delete(g.t.groups, g.key)
}

// requeue tells the queues of a group's entries. A group without any is
// forgotten.
func (c *Correlator) requeue(g *cohort) {
	n := len(g.entries)
	if n == 0 {
		c.forget(g)
		return
	}
	// A newer observation may wait: trim looks again before it takes a group.
	if newest := g.entries[n-1].time; newest < g.newest || g.newest == 0 {
		g.newest = newest
		c.stale.fix(g)
	}
	due := g.entries[0].time + g.t.span + 1
	if g.t.close {
		if i := g.opening(); i >= 0 {
			due = min(due, g.entries[i].time+g.t.span)
		}
	}
	if due != g.dueAt {
		g.dueAt = due
		g.t.due.fix(g)
	}
}

// Evicted counts, by the key of the correlation, the observations that were
// forgotten or refused to keep memory bounded.
func (c *Correlator) Evicted() map[string]int64 {
	return c.count(func(t *tracker) int64 { return t.evicted })
}

// Ungrouped counts, by the key of the correlation, the matches that joined no
// group: a field of group-by was absent, null or withheld, or had too many values.
func (c *Correlator) Ungrouped() map[string]int64 {
	return c.count(func(t *tracker) int64 { return t.ungrouped })
}

// Late counts, by the key of the correlation, the observations that came after
// an Advance beyond their time. They changed nothing.
func (c *Correlator) Late() map[string]int64 {
	return c.count(func(t *tracker) int64 { return t.late })
}

// Skipped counts, by the key of the correlation, the matches without the field
// that the condition reads, or without a number in it.
func (c *Correlator) Skipped() map[string]int64 {
	return c.count(func(t *tracker) int64 { return t.skipped })
}

func (c *Correlator) count(of func(*tracker) int64) map[string]int64 {
	out := make(map[string]int64)
	for _, t := range c.trackers {
		if n := of(t); n > 0 {
			out[t.rule.Key()] = n
		}
	}
	return out
}

// Size returns the number of groups and of observations that are kept.
func (c *Correlator) Size() (groups, observations int) {
	for _, t := range c.trackers {
		for _, g := range t.groups {
			observations += len(g.entries)
		}
	}
	return len(c.stale.groups), observations
}

// queue is a heap of groups in which each knows its place.
type queue struct {
	groups []*cohort
	before func(a, b *cohort) bool
	at     func(*cohort) *int
}

func staler(a, b *cohort) bool {
	return cmp.Or(cmp.Compare(a.newest, b.newest), cmp.Compare(a.t.index, b.t.index), cmp.Compare(a.key, b.key)) < 0
}

func dueBefore(a, b *cohort) bool {
	return cmp.Or(cmp.Compare(a.dueAt, b.dueAt), cmp.Compare(a.key, b.key)) < 0
}

func (q *queue) push(g *cohort) {
	*q.at(g) = len(q.groups)
	q.groups = append(q.groups, g)
	q.fix(g)
}

func (q *queue) remove(g *cohort) {
	i, n := *q.at(g), len(q.groups)-1
	if i < 0 {
		return
	}
	q.swap(i, n)
	q.groups[n] = nil
	q.groups = q.groups[:n]
	*q.at(g) = -1
	if i < n {
		q.fix(q.groups[i])
	}
}

func (q *queue) swap(i, j int) {
	q.groups[i], q.groups[j] = q.groups[j], q.groups[i]
	*q.at(q.groups[i]), *q.at(q.groups[j]) = i, j
}

func (q *queue) fix(g *cohort) {
	i := *q.at(g)
	for i > 0 && q.before(q.groups[i], q.groups[(i-1)/2]) {
		q.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
	for {
		least := i
		for k := 2*i + 1; k <= 2*i+2 && k < len(q.groups); k++ {
			if q.before(q.groups[k], q.groups[least]) {
				least = k
			}
		}
		if least == i {
			return
		}
		q.swap(i, least)
		i = least
	}
}
