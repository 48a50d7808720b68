package access_test

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/query"
)

var cellNow = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

type event = map[string]string

// answer counts events as the index does: groups, count, count_uniq of what is not
// empty; sort by counts; limit; fields.
func answer(t testing.TB, q *query.Query, events []event) [][]string {
	t.Helper()
	s := q.Stats
	if q.Top != nil {
		s = &query.Stats{By: q.Top.By, Funcs: []query.Func{{Name: "count", As: "count"}}}
	}
	type group struct {
		key    []string
		events []event
	}
	groups := map[string]*group{}
	var order []string
	if len(s.By) == 0 && s.Bin == 0 {
		order, groups[""] = []string{""}, &group{}
	}
	for _, e := range events {
		if !matchesWords(t, q.Where, e) {
			continue
		}
		var key []string
		for _, f := range s.By {
			key = append(key, e[f])
		}
		if s.Bin > 0 {
			key = append(key, e["day"])
		}
		k := strings.Join(key, "\x01")
		if groups[k] == nil {
			groups[k] = &group{key: key}
			order = append(order, k)
		}
		groups[k].events = append(groups[k].events, e)
	}
	slices.Sort(order)
	var columns []map[string]string
	for _, k := range order {
		g := groups[k]
		row := map[string]string{}
		for i, f := range s.By {
			row[f] = g.key[i]
		}
		if s.Bin > 0 {
			row["time"] = g.key[len(s.By)]
		}
		for _, f := range s.Funcs {
			n := len(g.events)
			if f.Name == "count_uniq" {
				seen := map[string]bool{}
				for _, e := range g.events {
					if e[f.Field] != "" {
						seen[e[f.Field]] = true
					}
				}
				n = len(seen)
			}
			row[f.As] = strconv.Itoa(n)
		}
		columns = append(columns, row)
	}
	keys := q.Sort
	if q.Top != nil {
		keys = []query.Key{{Field: "count", Desc: true}}
	}
	for _, k := range slices.Backward(keys) {
		slices.SortStableFunc(columns, func(a, b map[string]string) int {
			x, _ := strconv.Atoi(a[k.Field])
			y, _ := strconv.Atoi(b[k.Field])
			if k.Desc {
				x, y = y, x
			}
			return cmp.Compare(x, y)
		})
	}
	limit := q.Limit
	if q.Top != nil && (limit == 0 || q.Top.N < limit) {
		limit = q.Top.N
	}
	if limit > 0 && len(columns) > limit {
		columns = columns[:limit]
	}
	var out [][]string
	for _, c := range columns {
		var row []string
		for _, name := range q.Columns() {
			row = append(row, c[name])
		}
		out = append(out, row)
	}
	return out
}

// matchesWords evaluates and, or, not, equal, one of and prefixes; time matches always.
func matchesWords(t testing.TB, e query.Expr, row event) bool {
	switch x := e.(type) {
	case query.Last, query.Time, query.During:
		return true
	case query.Number:
		n, _ := strconv.ParseFloat(row[x.Field], 64)
		return x.Op == query.AtLeast && n >= x.Value
	case query.And:
		return !slices.ContainsFunc(x.Of, func(x query.Expr) bool { return !matchesWords(t, x, row) })
	case query.Or:
		return slices.ContainsFunc(x.Of, func(x query.Expr) bool { return matchesWords(t, x, row) })
	case query.Not:
		return !matchesWords(t, x.Of, row)
	}
	return matches(t, e, row, false)
}

// visits gives events: n people who visit a place once, from one department.
func visits(place, dept string, first, n int) []event {
	var out []event
	for i := range n {
		out = append(out, event{"class_uid": "4003", "query.hostname": place, "native.dept": dept, "group.name": dept, "query.type": "A", "day": "d" + strconv.Itoa(i%2), "actor.user.uid": token("p", first+i), "src_endpoint.ip": "10.0.0." + strconv.Itoa(first+i)})
	}
	return out
}

func ask(t testing.TB, m *access.Memory, now time.Time, events []event, text string) ([][]string, int) {
	t.Helper()
	c, _ := access.Cell(parseQuery(t, text))
	return m.Show(now, "asker", c, answer(t, c.Query, events))
}

// TestCellColumns: the table of Cells has the columns of the question first, with the
// same values.
func TestCellColumns(t *testing.T) {
	events := slices.Concat(visits("union.example", "a", 0, 12), visits("union.example", "b", 8, 9), visits("clinic.example", "a", 0, 3))
	for _, c := range []struct {
		question string
		ok       bool
		columns  string
	}{
		{"query.hostname = union.example", true, "events people"},
		{"query.hostname = union.example | fields time, user.uid", true, "events people"},
		{"query.hostname = union.example | stats count()", true, "count"},
		{"class_uid = 4003 | top 2 by query.hostname", true, "query.hostname count"},
		{"class_uid = 4003 | top 5 by query.hostname | limit 1", true, "query.hostname count"},
		{"class_uid = 4003 | top 5 by query.hostname | fields count", true, "count"},
		{"class_uid = 4003 | stats count() as cell_1, count_uniq(actor.user.uid) as n by query.hostname, query.type | sort by n desc | limit 2", true, "query.hostname query.type cell_1 n"},
		{"class_uid = 4003 | stats count() by bin(1d) | fields count", true, "count"},
		{"class_uid = 4003 | stats count() by query.hostname, bin(1d)", true, "time query.hostname count"},
		{"class_uid = 4003 | top 5 by user.uid, query.hostname", false, "events people"},
		{"query.hostname = union.example | stats count() by device.hostname", false, "events people"},
		{"query.hostname = union.example | stats count() by process.file.path", false, "events people"},
		{"query.hostname = union.example | stats count() by native.unheard_of", false, "events people"},
		{"query.hostname = union.example | stats count() by ref", false, "events people"},
		{"query.hostname = union.example | stats max(query.hostname)", false, "events people"},
		{"query.hostname = union.example | stats min(time)", false, "events people"},
		{"query.hostname = union.example | stats sum(native.unheard_of)", false, "events people"},
		{"class_uid = 4003 | top 5 by query.hostname | sort by count | limit 1", false, "events people"},
	} {
		q := parseQuery(t, c.question)
		before := q.String()
		cells, ok := access.Cell(q)
		if ok != c.ok || strings.Join(cells.Columns, " ") != c.columns {
			t.Errorf("%s: %v, columns %v", c.question, ok, cells.Columns)
			continue
		}
		if q.String() != before {
			t.Errorf("%s: the question was changed", c.question)
		}
		if again, err := query.Parse(cells.Query.String()); err != nil || again.String() != cells.Query.String() {
			t.Errorf("%s: the table is no question: %v", c.question, err)
		}
		names := cells.Query.Columns()
		slices.Sort(names)
		if len(slices.Compact(names)) != len(cells.Query.Columns()) {
			t.Errorf("%s: two columns of one name", c.question)
		}
		if !ok || !q.IsTable() {
			continue
		}
		want, got := answer(t, q, events), answer(t, cells.Query, events)
		if len(want) != len(got) {
			t.Errorf("%s: %d rows, want %d", c.question, len(got), len(want))
			continue
		}
		for i := range want {
			if !slices.Equal(got[i][:len(want[i])], want[i]) {
				t.Errorf("%s: row %d is %v, want %v", c.question, i, got[i], want[i])
			}
		}
	}
}

// TestWideSearch: a newspaper, a union, a messenger and a clinic in one question give
// two numbers.
func TestWideSearch(t *testing.T) {
	const wide = "query.hostname in (herald.example, union.example, signal.example, clinic.example)"
	for _, text := range []string{wide, wide + " | fields time, user.uid", wide + " | stats count() by user.uid", wide + " | sort by user.uid"} {
		if v := access.Selects(access.Search{Query: parseQuery(t, text)}, options(t)); !v.Class.Has(access.Reverse) || !v.Cells {
			t.Errorf("%s: %v, cells %v", text, v.Class, v.Cells)
		}
		events := slices.Concat(visits("herald.example", "a", 0, 2), visits("union.example", "a", 1, 5), visits("clinic.example", "b", 2, 1), visits("signal.example", "b", 5, 6), visits("cdn.example", "b", 0, 30))
		shown, hidden := ask(t, &access.Memory{}, cellNow, events, text)
		if len(shown) != 1 || hidden != 0 || !slices.Equal(shown[0], []string{"14", "11"}) {
			t.Errorf("%s: %v, %d hidden", text, shown, hidden)
		}
	}
}

func TestCellsHide(t *testing.T) {
	events := slices.Concat(visits("union.example", "a", 0, 12), visits("union.example", "b", 20, 30), visits("clinic.example", "a", 0, 3))
	for range 20 { // one person may visit a place many times
		events = append(events, visits("herald.example", "a", 0, 1)...)
	}
	for _, c := range []struct {
		question, want string
		hidden         int
	}{
		{"query.hostname = union.example", "42 42", 0},
		{"query.hostname = clinic.example", "", 1},
		{"query.hostname = herald.example", "", 1},
		{"query.hostname = nowhere.example", "", 1},
		// Clinic and herald have 4 people together: union would be the total less 4.
		{"class_uid = 4003 | top 5 by query.hostname", "", 3},
		{"query.hostname = union.example | stats count() by query.hostname", "union.example 42", 0},
		{"query.hostname = herald.example | stats count()", "", 1},
	} {
		shown, hidden := ask(t, &access.Memory{}, cellNow, events, c.question)
		var lines []string
		for _, row := range shown {
			lines = append(lines, strings.Join(row, " "))
		}
		if got := strings.Join(lines, "; "); got != c.want || hidden != c.hidden {
			t.Errorf("%s: %q, %d hidden, want %q, %d", c.question, got, hidden, c.want, c.hidden)
		}
	}
}

// TestGroupsStandSideBySide: groups of one table have no rows in common, so that close
// counts tell nothing; nor have times that do not meet.
func TestGroupsStandSideBySide(t *testing.T) {
	events := slices.Concat(visits("union.example", "a", 0, 30), visits("clinic.example", "b", 10, 28))
	if shown, hidden := ask(t, &access.Memory{}, cellNow, events, "query.hostname in (union.example, clinic.example) | top 5 by query.hostname"); len(shown) != 2 || hidden != 0 {
		t.Errorf("%v, %d hidden", shown, hidden)
	}
	m := &access.Memory{}
	for i, text := range []string{"query.hostname = union.example and time < 2026-11-01", "query.hostname = union.example and group.name = a and time >= 2026-11-01"} {
		if shown, _ := ask(t, m, cellNow, events[i:], text); len(shown) != 1 {
			t.Errorf("%s: %v", text, shown)
		}
	}
}

// TestPeopleOfACell: who acts first; devices where no people are known, and of one
// device's names the least.
func TestPeopleOfACell(t *testing.T) {
	c, _ := access.Cell(&query.Query{})
	for _, x := range []struct {
		name   string
		events []event
		want   int
	}{
		{"actors", []event{{"actor.user.uid": "a", "user.uid": "x"}, {"actor.user.uid": "a", "user.uid": "y"}}, 1},
		{"users", []event{{"user.uid": "x", "src_endpoint.ip": "1"}, {"user.uid": "y", "src_endpoint.ip": "1"}}, 2},
		{"one laptop, three addresses", []event{{"src_endpoint.mac": "m", "src_endpoint.ip": "1"}, {"src_endpoint.ip": "2"}, {"src_endpoint.ip": "3"}}, 1},
		{"the asking end first", []event{{"src_endpoint.ip": "1", "device.hostname": "a"}, {"device.hostname": "b"}}, 1},
		{"nobody known", []event{{"class_uid": "4003"}, {"class_uid": "4003"}}, 0},
	} {
		if got := c.People(answer(t, c.Query, x.events)[0]); got != x.want {
			t.Errorf("%s: %d", x.name, got)
		}
	}
}

// TestHalves: a question cut into harmless parts shows no small cell by difference.
func TestHalves(t *testing.T) {
	events := slices.Concat(visits("union.example", "a", 0, 30), visits("union.example", "b", 40, 3), visits("clinic.example", "b", 0, 20))
	for _, c := range []struct {
		name  string
		asked []string
		shown []int // rows of each
	}{
		{"a part less", []string{"query.hostname = union.example", "query.hostname = union.example and group.name = a"}, []int{1, 0}},
		{"a part more", []string{"query.hostname = union.example and group.name = a", "query.hostname = union.example"}, []int{1, 0}},
		{"not a part", []string{"query.hostname = union.example", "query.hostname = union.example and not group.name = b"}, []int{1, 0}},
		{"the producer's name", []string{"query.hostname = union.example and group.name = a", "native.QueryName = union.example or query.hostname = union.example"}, []int{1, 0}},
		{"another spelling", []string{"query.hostname = union.example and group.name = a", "query.hostname = union.ex*"}, []int{1, 0}},
		{"time narrowed", []string{"query.hostname = union.example last 7d", "query.hostname = union.example and group.name = a last 6d"}, []int{1, 0}},
		{"another place", []string{"query.hostname = union.example", "query.hostname = clinic.example"}, []int{1, 1}},
		{"again", []string{"query.hostname = union.example", "query.hostname = union.example"}, []int{1, 1}},
		{"in a table", []string{"query.hostname = union.example", "query.hostname = union.example and group.name = a | stats count() by query.hostname"}, []int{1, 0}},
		{"facets", []string{"class_uid = 4003 and group.name = a | top 9 by query.hostname", "class_uid = 4003 | top 9 by query.hostname"}, []int{1, 1}},
		{"no test of contents", []string{"class_uid = 4003 | stats count_uniq(query.hostname)", "class_uid = 4003 and group.name = a | stats count_uniq(query.hostname)"}, []int{1, 0}},
		{"sorting", []string{"class_uid = 4003 | stats count() by query.hostname | sort by count | limit 1", "class_uid = 4003 and group.name = a | stats count() by query.hostname | sort by count desc | limit 1"}, []int{1, 1}},
	} {
		m := &access.Memory{}
		for i, text := range c.asked {
			if shown, _ := ask(t, m, cellNow, events, text); len(shown) != c.shown[i] {
				t.Errorf("%s: %s: %v", c.name, text, shown)
			}
		}
	}
	// The next day, and for somebody else, it is a first question.
	m := &access.Memory{}
	ask(t, m, cellNow, events, "query.hostname = union.example")
	half, _ := access.Cell(parseQuery(t, "query.hostname = union.example and group.name = a"))
	for _, x := range []struct {
		asker string
		after time.Duration
		want  int
	}{{"asker", 23 * time.Hour, 0}, {"other", time.Hour, 1}, {"asker", 24 * time.Hour, 1}} {
		if shown, _ := m.Show(cellNow.Add(x.after), x.asker, half, answer(t, half.Query, events)); len(shown) != x.want {
			t.Errorf("%s after %v: %v", x.asker, x.after, shown)
		}
	}
	// The same people, other events: the difference would be a few events of one.
	m = &access.Memory{}
	ask(t, m, cellNow, events, "query.hostname = union.example and group.name = a")
	if shown, _ := ask(t, m, cellNow, append(visits("union.example", "a", 0, 1), events...), "query.hostname = union.example and group.name = a"); len(shown) != 0 {
		t.Errorf("one event more: %v", shown)
	}
}

// TestCompletion: values come by completion only where 8 people share them, also one
// letter at a time, and not beside a total that gives them away.
func TestCompletion(t *testing.T) {
	events := slices.Concat(visits("union.example", "a", 0, 30), visits("unity.example", "b", 10, 20), visits("unique.example", "b", 50, 2))
	m := &access.Memory{}
	// unique has 2 people: where it is left out, one more is.
	for _, x := range [][2]string{{"uni", "union.example"}, {"unio", "union.example"}, {"uniq", ""}, {"unit", "unity.example"}} {
		prefix, want := x[0], x[1]
		c, ok := access.CellValues(access.Values{Field: "query.hostname", Prefix: prefix}, access.Options{}, 20)
		if !ok {
			t.Fatalf("%s: not ok", prefix)
		}
		shown, _ := m.Show(cellNow, "asker", c, answer(t, c.Query, events))
		var got []string
		for _, row := range shown {
			got = append(got, row[0])
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: %q, want %q", prefix, s, want)
		}
	}
	for field, where := range map[string]string{"user.uid": "", "device.hostname": "", "file.path": "", "process.file.name": "query.hostname = union.example", "native.unheard_of": "query.hostname = union.example"} {
		if _, ok := access.CellValues(access.Values{Field: field, Where: parseQuery(t, where)}, access.Options{}, 20); ok {
			t.Errorf("%s where %q is completed", field, where)
		}
	}
	if _, ok := access.CellValues(access.Values{Field: "process.file.name", Prefix: "pow"}, access.Options{}, 20); !ok {
		t.Error("programs are not completed")
	}
}

// TestNoSmallDifference: of all counts that one asker gets, two that are of nested sets
// of events differ by nobody or by 8 people or more.
func TestNoSmallDifference(t *testing.T) {
	places := []string{"union.example", "clinic.example", "herald.example"}
	depts := []string{"a", "b"}
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 3))
		var events []event
		for i := range 40 {
			for range 1 + r.IntN(3) {
				events = append(events, visits(places[r.IntN(3)], depts[min(1, r.IntN(8)/7)], i, 1)...)
			}
		}
		m := &access.Memory{}
		var seen []map[int]bool
		for range 40 {
			text := "query.hostname = " + places[r.IntN(3)]
			switch r.IntN(4) {
			case 0:
				text += " or query.hostname = " + places[r.IntN(3)]
			case 1:
				text = "query.hostname = *.example"
			}
			text = "(" + text + ")"
			switch r.IntN(4) {
			case 0:
				text += " and group.name = " + depts[r.IntN(2)]
			case 1:
				text += " and not group.name = " + depts[r.IntN(2)]
			}
			q := parseQuery(t, text)
			if shown, _ := ask(t, m, cellNow, events, text); len(shown) == 0 {
				continue
			}
			set := map[int]bool{}
			for i, e := range events {
				if matchesWords(t, q.Where, e) {
					set[i] = true
				}
			}
			for _, o := range seen {
				for _, pair := range [][2]map[int]bool{{set, o}, {o, set}} {
					nested, rest := true, map[string]bool{}
					for i := range pair[0] {
						nested = nested && pair[1][i]
					}
					for i := range pair[1] {
						if !pair[0][i] {
							rest[events[i]["actor.user.uid"]] = true
						}
					}
					if nested && len(rest) > 0 && len(rest) < access.MinCell {
						t.Fatalf("seed %d: %s leaves %d people by difference", seed, text, len(rest))
					}
				}
			}
			seen = append(seen, set)
		}
	}
}

// TestMemoryBounds: what cannot be remembered is not shown, and a day later there is
// room again.
func TestMemoryBounds(t *testing.T) {
	m := &access.Memory{}
	shown := 0
	for i := range 9000 {
		c, _ := access.Cell(parseQuery(t, "query.hostname = h"+strconv.Itoa(i)+".example"))
		row := make([]string, len(c.Query.Columns()))
		row[0], row[1] = "1000", "1000"
		rows, _ := m.Show(cellNow, "asker", c, [][]string{row})
		shown += len(rows)
	}
	if shown != 8192 {
		t.Errorf("%d shown", shown)
	}
	c, _ := access.Cell(&query.Query{Where: query.Equal{Field: "query.hostname", Pattern: query.Literal("x.example")}})
	row := make([]string, len(c.Query.Columns()))
	row[0], row[1] = "1000", "1000"
	for i := range 5000 {
		m.Show(cellNow, "asker "+strconv.Itoa(i), c, [][]string{row})
	}
	if rows, _ := m.Show(cellNow, "one more", c, [][]string{row}); len(rows) != 0 {
		t.Error("one asker too many")
	}
	if rows, _ := m.Show(cellNow.Add(24*time.Hour), "one more", c, [][]string{row}); len(rows) != 1 {
		t.Error("no room after a day")
	}
}
