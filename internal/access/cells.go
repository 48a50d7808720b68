package access

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/counterseal/counterseal/internal/query"
)

// Fields that hold people, who acts first: the first that has any value in a group
// counts. Where none has, the devices are counted, the asking end first, and of one
// end's fields the least: one laptop has eight addresses in a week.
//
// Known gap: an account of the system counts as a person, so a cell of 8 may be 7
// people and SYSTEM.
var (
	cellPeople  = [...]string{"actor.user.uid", "process.user.uid", "user.uid", "device.owner.uid"}
	cellDevices = [...][]string{{"src_endpoint.uid", "src_endpoint.mac", "src_endpoint.hostname", "src_endpoint.ip"}, {"device.uid", "device.hostname"}}
)

// Cells is a question whose answer may be shown in counts only, as a table with the
// columns that show how many people and events stand behind each row. Memory.Show
// takes them away again.
type Cells struct {
	Query *query.Query
	// Columns are those to show. They are the first of Query's, or events and people.
	Columns []string

	total  bool // one row: events and people
	at     map[string]int
	groups []int // columns that name the group
}

// Cell gives the table for a question whose answer may be shown in counts only. A
// question for rows becomes the one total, of events and of people. A table keeps its
// columns and its groups. ok is false for a table that itself groups by people, or by
// what may hold a name, or that shows the value of a single event (min, max), or that
// picks its rows by another order than it counts them in: it becomes the one total.
func Cell(q *query.Query) (c Cells, ok bool) {
	if q == nil {
		q = &query.Query{}
	}
	if !q.IsTable() {
		return totalOf(q.Where), true
	}
	t := *q
	switch {
	case q.Top != nil:
		if slices.ContainsFunc(q.Top.By, peopledField) || len(q.Sort) > 0 {
			return totalOf(q.Where), false
		}
		t.Top = nil
		t.Stats = &query.Stats{By: q.Top.By, Funcs: []query.Func{{Name: "count", As: "count"}}}
		t.Sort = []query.Key{{Field: "count", Desc: true}}
		if t.Limit = q.Top.N; q.Limit > 0 {
			t.Limit = min(q.Top.N, q.Limit)
		}
	default:
		single := func(f query.Func) bool {
			r := roleOf(f.Field)
			return f.Name == "min" || f.Name == "max" || (f.Name == "sum" || f.Name == "avg") && r != 0
		}
		if slices.ContainsFunc(q.Stats.By, peopledField) || slices.ContainsFunc(q.Stats.Funcs, single) {
			return totalOf(q.Where), false
		}
	}
	return counted(t), true
}

// CellValues gives the table for Values: the values of the field, of which Memory.Show
// leaves those that 8 people share. ok is false for a field of people or devices, and
// for one that may hold a name where the condition is about contents.
func CellValues(v Values, o Options, n int) (c Cells, ok bool) {
	var where query.Expr
	if v.Where != nil {
		where = v.Where.Where
	}
	j := judge{o: o}
	j.where(where, false, false)
	r := roleOf(v.Field)
	if r&(person|device|session) != 0 || r&peopled != 0 && (j.content || r&content != 0) {
		return totalOf(where), false
	}
	if v.Prefix != "" {
		begins := query.Equal{Field: v.Field, Pattern: query.Pattern{Parts: []query.Part{{Text: v.Prefix}, {Wild: '*'}}}, Fold: true}
		switch w := where.(type) {
		case nil:
			where = begins
		case query.And:
			where = query.And{Of: append(slices.Clone(w.Of), begins)}
		default:
			where = query.And{Of: []query.Expr{w, begins}}
		}
	}
	return counted(query.Query{
		Where: where,
		Stats: &query.Stats{By: []string{v.Field}, Funcs: []query.Func{{Name: "count", As: "count"}}},
		Sort:  []query.Key{{Field: "count", Desc: true}},
		Limit: n,
	}), true
}

func peopledField(f string) bool { return roleOf(f)&peopled != 0 }

// totalOf is the table of one row.
func totalOf(where query.Expr) Cells {
	c := counted(query.Query{Where: where, Stats: &query.Stats{}})
	c.total, c.Columns = true, []string{"events", "people"}
	return c
}

// counted adds the hidden columns to a table. Their names are none that the question
// writes, so that it cannot sort by them.
func counted(t query.Query) Cells {
	stats := *t.Stats
	c := Cells{at: map[string]int{}}
	c.Columns = t.Columns()
	taken := append(slices.Clone(c.Columns), stats.By...)
	for _, f := range stats.Funcs {
		taken = append(taken, f.As, f.Field)
	}
	for _, k := range t.Sort {
		taken = append(taken, k.Field)
	}
	n := len(c.Columns)
	hide := func(column string) int {
		if t.Fields != nil {
			t.Fields = append(slices.Clone(t.Fields), column)
		}
		n++
		return n - 1
	}
	add := func(f query.Func) int {
		f.As = "cell_1"
		for i := 2; slices.Contains(taken, f.As); i++ {
			f.As = "cell_" + strconv.Itoa(i)
		}
		taken = append(taken, f.As)
		stats.Funcs = append(slices.Clone(stats.Funcs), f)
		return hide(f.As)
	}
	groups := slices.Clone(stats.By)
	if stats.Bin > 0 {
		groups = append(groups, "time")
	}
	for _, g := range groups {
		i := slices.Index(c.Columns, g)
		if i < 0 {
			i = hide(g)
		}
		c.groups = append(c.groups, i)
	}
	c.at["events"] = add(query.Func{Name: "count"})
	for _, f := range cellPeople {
		c.at[f] = add(query.Func{Name: "count_uniq", Field: f})
	}
	for _, end := range cellDevices {
		for _, f := range end {
			c.at[f] = add(query.Func{Name: "count_uniq", Field: f})
		}
	}
	t.Stats = &stats
	c.Query = &t
	return c
}

// People gives how many different people stand behind a row of the table, at least.
func (c Cells) People(row []string) int {
	for _, f := range cellPeople {
		if n := c.count(row, f); n > 0 {
			return n
		}
	}
	for _, end := range cellDevices {
		least := 0
		for _, f := range end {
			if n := c.count(row, f); n > 0 && (least == 0 || n < least) {
				least = n
			}
		}
		if least > 0 {
			return least
		}
	}
	return 0
}

func (c Cells) count(row []string, column string) int {
	i, ok := c.at[column]
	if !ok || i >= len(row) {
		return 0
	}
	n, err := strconv.Atoi(row[i])
	if err != nil {
		return 0
	}
	return n
}

func (c Cells) shown(row []string) []string {
	if c.total {
		return []string{strconv.Itoa(c.count(row, "events")), strconv.Itoa(c.People(row))}
	}
	return slices.Clone(row[:min(len(c.Columns), len(row))])
}

// Bounds of what is remembered. What is beyond them is not shown.
const (
	maxSteps  = 8192
	maxAskers = 4096
	maxTests  = 16
	stepsFor  = 24 * time.Hour
)

// step is one count that was shown: digests, no text.
type step struct {
	at             time.Time
	from, to       time.Time
	by, group      uint64   // the columns of the group, and its values
	contents       []uint64 // sorted: texts that the condition tests contents for
	loose          bool     // a condition that may be about any contents
	people, events int
}

// Memory remembers for a day which counts each asker was shown, so that two of them
// together do not show a small one. It is safe for use by several goroutines.
type Memory struct {
	mu     sync.Mutex
	askers map[string][]step // guarded by mu
}

// Show gives the rows of the table of Cells that the asker may see, without the hidden
// columns, and how many rows are left out. It leaves out
//   - each row with fewer than MinCell people;
//   - where the rows left out have fewer than MinCell people together, the smallest
//     other row too: the total would give them away;
//   - each row whose count differs by a small step from one that the asker saw within
//     a day and that may be about the same contents.
//
// Counts of different groups of one table and of times that do not meet have no common
// rows; they are not held against each other.
//
// Known gap: it compares two counts at a time. The total of a week less six of its days
// is not compared with the seventh.
func (m *Memory) Show(now time.Time, asker string, c Cells, rows [][]string) (shown [][]string, hidden int) {
	keep := make([]bool, len(rows))
	left := 0
	for i, row := range rows {
		n := c.People(row)
		if keep[i] = !SmallCell(n); !keep[i] {
			hidden++
			left += n
		}
	}
	for hidden > 0 && left < MinCell {
		least := -1
		for i, row := range rows {
			if keep[i] && (least < 0 || c.People(row) < c.People(rows[least])) {
				least = i
			}
		}
		if least < 0 {
			break
		}
		keep[least] = false
		hidden++
		left += c.People(rows[least])
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, row := range rows {
		if !keep[i] {
			continue
		}
		if !m.may(now, asker, c.step(now, row)) {
			hidden++
			continue
		}
		shown = append(shown, c.shown(row))
	}
	return shown, hidden
}

// may reports whether a count may be shown beside what the asker saw, and remembers it.
func (m *Memory) may(now time.Time, asker string, s step) bool {
	if m.askers == nil {
		m.askers = make(map[string][]step)
	}
	old := func(s step) bool { return now.Sub(s.at) >= stepsFor }
	if _, known := m.askers[asker]; !known && len(m.askers) >= maxAskers {
		for name, steps := range m.askers {
			if len(steps) == 0 || old(steps[len(steps)-1]) {
				delete(m.askers, name)
			}
		}
		if len(m.askers) >= maxAskers {
			return false
		}
	}
	steps := m.askers[asker]
	if len(steps) > 0 && old(steps[0]) {
		steps = slices.DeleteFunc(steps, old)
		m.askers[asker] = steps
	}
	again := false
	for i := range steps {
		b := &steps[i]
		same := s.people == b.people && s.events == b.events
		if !same && (s.people == b.people || SmallStep(b.people, s.people)) && related(&s, b) {
			return false // a small cell, or some events of one
		}
		again = again || same && s.by == b.by && s.group == b.group && s.loose == b.loose && slices.Equal(s.contents, b.contents) && s.from.Equal(b.from) && s.to.Equal(b.to)
	}
	if again {
		return true
	}
	if len(steps) >= maxSteps {
		return false
	}
	m.askers[asker] = append(steps, s)
	return true
}

// related reports whether one of two counts may hold people of the other, so that
// their difference says something.
func related(a, b *step) bool {
	if a.to.Before(b.from) || b.to.Before(a.from) {
		return false
	}
	if a.by == b.by && a.group != b.group {
		return false
	}
	return a.loose || b.loose || slices.ContainsFunc(a.contents, func(d uint64) bool {
		_, found := slices.BinarySearch(b.contents, d)
		return found
	})
}

func (c Cells) step(now time.Time, row []string) step {
	s := step{at: now, people: c.People(row), events: c.count(row, "events")}
	s.from, s.to = c.Query.Range(now)
	stats := c.Query.Stats
	s.by = digest(append([]string{stats.Bin.String()}, stats.By...)...)
	values := make([]string, len(c.groups))
	for i, at := range c.groups {
		if at < len(row) {
			values[i] = row[at]
		}
	}
	s.group = digest(values...)
	c.Query.Walk(s.test)
	for i, f := range stats.By {
		if roleOf(f)&(content|unknown) != 0 {
			s.text(values[i])
		}
	}
	slices.Sort(s.contents)
	s.contents = slices.Compact(s.contents)
	if len(s.contents) == 0 || len(s.contents) > maxTests {
		s.loose, s.contents = true, nil
	}
	return s
}

// test notes what a test asks contents for. The same text in another field, such as
// the producer's own, is the same contents.
func (s *step) test(e query.Expr) {
	switch e := e.(type) {
	case query.Equal:
		s.value(e.Field, text(e.Pattern))
	case query.OneOf:
		for _, p := range e.Of {
			s.value(e.Field, text(p))
		}
	case query.Phrase:
		s.value(e.Field, e.Text+string(gap))
	case query.Number:
		s.value(e.Field, string(gap))
	case query.Between:
		s.value(e.Field, string(gap))
	case query.Network:
		s.value(e.Field, string(gap))
	}
}

func (s *step) value(field, v string) {
	r := roleOf(field)
	if r&(content|unknown) != 0 || r&prose != 0 && privateWord(fold(v)) {
		s.text(v)
	}
}

// text notes one value. One with a wildcard, or with a path in it, may be about any.
func (s *step) text(v string) {
	if v = fold(v); strings.IndexByte(v, gap) >= 0 || strings.ContainsAny(v, `/\`) {
		s.loose = true
		return
	}
	s.contents = append(s.contents, digest(v))
}

func digest(parts ...string) uint64 {
	h := sha256.New()
	for _, p := range parts {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
	return binary.BigEndian.Uint64(h.Sum(nil))
}
