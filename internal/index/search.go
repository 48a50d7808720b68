package index

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/VictoriaMetrics/lib/logstorage"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/query"
)

// Scope bounds a question besides its own text.
type Scope struct {
	From, To     time.Time // event time, both included; zero: the bounds of the question
	Compartments []string  // nil: all
}

// shown are the fields of a row that Query returns whatever the question shows.
var shown = []string{"time", "ref", "sealed", "compartment", "source", "dataset", "kind", "truncated"}

// Sizes of one step of a search, in rows.
const (
	firstStep = 500
	laterStep = 5000
)

// Query calls fn for rows that match, newest first or as the question sorts, until
// fn answers false or limit rows were given (0: the question's own limit, else
// all). It searches back from the newest day in growing windows, so first rows come
// early. fn may keep the row; it must not call the index.
func (x *Index) Query(ctx context.Context, q *query.Query, sc Scope, limit int, fn func(Row) bool) error {
	leave, err := x.enter()
	if err != nil {
		return err
	}
	defer leave()
	return x.query(ctx, q, sc, limit, fn)
}

func (x *Index) query(ctx context.Context, q *query.Query, sc Scope, limit int, fn func(Row) bool) error {
	if q.IsTable() {
		return ErrTable
	}
	if q.Limit > 0 && (limit <= 0 || q.Limit < limit) {
		limit = q.Limit
	}
	now := x.now()
	from, to := bounds(q, sc, now)
	set, lo, hi := x.candidates(sc.Compartments, from, to)
	if len(set) == 0 {
		return nil
	}
	filter := q.FilterLogsQL(now)
	if len(q.Sort) > 0 {
		rows, err := x.sorted(ctx, q, set, filter, lo, hi, limit)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if !fn(r) {
				return nil
			}
		}
		return nil
	}

	given := 0
	step, most := firstStep, laterStep
	span := int64(time.Hour)
	for hi >= lo {
		n := step
		if limit > 0 {
			n = min(n, limit-given)
		}
		low := max(lo, hi-span+1)
		rows, err := x.newest(ctx, q, set, filter, low, hi, n)
		for overMemory(err) && n > 1 { // wide rows: fewer at a time
			n = max(1, n/8)
			most = n
			rows, err = x.newest(ctx, q, set, filter, low, hi, n)
		}
		if err != nil {
			return err
		}
		full := len(rows) >= n
		next := low - 1
		if full && (limit <= 0 || given+n < limit) {
			// More may follow at the time of the last row: give what is surely whole.
			last := rows[len(rows)-1].Time
			whole := len(rows)
			for whole > 0 && rows[whole-1].Time == last {
				whole--
			}
			if whole > 0 {
				rows, next = rows[:whole], last
			} else if rows, err = x.newest(ctx, q, set, filter, last, last, 0); err != nil {
				return err
			} else {
				next = last - 1
			}
		}
		for _, r := range rows {
			if !fn(r) {
				return nil
			}
			if given++; limit > 0 && given == limit {
				return nil
			}
		}
		if full {
			span = max(2*(hi-next), int64(time.Millisecond))
		} else {
			span = min(4*span, int64(century))
		}
		hi = next
		if given > 0 {
			step = most
		}
	}
	return nil
}

// overMemory tells whether the library would not sort so many rows at once: their
// text is beyond its share of the memory budget.
func overMemory(err error) bool {
	return err != nil && strings.Contains(err.Error(), "since it requires more than") && strings.Contains(err.Error(), "of memory")
}

// newest returns the n newest rows of a window, newest first (n = 0: all).
func (x *Index) newest(ctx context.Context, q *query.Query, set []candidate, filter string, lo, hi int64, n int) ([]Row, error) {
	text := timed(filter, lo, hi) + q.EventPipesLogsQL(n, shown...)
	var mu sync.Mutex
	var rows []Row
	for _, c := range set {
		if c.hi < lo || c.lo > hi {
			continue
		}
		err := x.run(ctx, c.week, text, func(db *logstorage.DataBlock) {
			some := decode(db)
			mu.Lock()
			rows = append(rows, some...)
			mu.Unlock()
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(rows, func(a, b Row) int {
		if c := cmp.Compare(b.Time, a.Time); c != 0 {
			return c
		}
		return strings.Compare(a.Ref, b.Ref)
	})
	if n > 0 && len(rows) > n {
		rows = rows[:n]
	}
	return rows, nil
}

// sorted answers a question with an order of its own: the library merges.
func (x *Index) sorted(ctx context.Context, q *query.Query, set []candidate, filter string, lo, hi int64, limit int) ([]Row, error) {
	if limit <= 0 {
		limit = query.MaxLimit
	}
	var mu sync.Mutex
	var rows []Row
	err := x.merge(ctx, set, timed(filter, lo, hi)+q.EventPipesLogsQL(limit, shown...), func(db *logstorage.DataBlock) {
		some := decode(db)
		mu.Lock()
		rows = append(rows, some...)
		mu.Unlock()
	})
	return rows, err
}

// Table is the answer to a question with stats or top. An absent value is empty.
type Table struct {
	Columns []string
	Rows    [][]string
}

// MaxTable bounds the rows of a table.
const MaxTable = 100_000

// Stats answers a question whose answer is a table.
func (x *Index) Stats(ctx context.Context, q *query.Query, sc Scope) (Table, error) {
	leave, err := x.enter()
	if err != nil {
		return Table{}, err
	}
	defer leave()
	return x.stats(ctx, q, sc)
}

func (x *Index) stats(ctx context.Context, q *query.Query, sc Scope) (Table, error) {
	if !q.IsTable() {
		return Table{}, ErrTable
	}
	now := x.now()
	from, to := bounds(q, sc, now)
	set, lo, hi := x.candidates(sc.Compartments, from, to)
	t := Table{Columns: q.Columns()}
	var mu sync.Mutex
	tooMany := false
	err := x.merge(ctx, set, timed(q.FilterLogsQL(now), lo, hi)+q.PipesLogsQL(), func(db *logstorage.DataBlock) {
		mu.Lock()
		defer mu.Unlock()
		at := make([]int, len(t.Columns))
		for i, name := range t.Columns {
			at[i] = slices.IndexFunc(db.Columns, func(c logstorage.BlockColumn) bool { return c.Name == query.StoredName(name) })
		}
		for r := range db.RowsCount() {
			if len(t.Rows) == MaxTable {
				tooMany = true
				return
			}
			row := make([]string, len(at))
			for i, c := range at {
				if c >= 0 {
					row[i] = strings.Clone(query.Written(db.Columns[c].Values[r]))
				}
			}
			t.Rows = append(t.Rows, row)
		}
	})
	if err != nil {
		return Table{}, err
	}
	if tooMany {
		return Table{}, fmt.Errorf("the answer has more than %d rows: narrow the question or add limit", MaxTable)
	}
	if len(q.Sort) == 0 && q.Top == nil {
		slices.SortFunc(t.Rows, slices.Compare[[]string])
	}
	return t, nil
}

// Has counts how often each reference is in a compartment, in storages whose week
// of sealing meets from … to. A reference that is not there is not in the answer. A
// count above one is a row added twice.
func (x *Index) Has(ctx context.Context, compartment string, from, to time.Time, refs []string) (map[string]int, error) {
	leave, err := x.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := event.CheckCompartment(compartment); err != nil {
		return nil, err
	}
	x.flush(compartment)
	found := make(map[string]int, len(refs))
	var mu sync.Mutex
	for _, w := range x.weeks([]string{compartment}) {
		if monday := w.monday(); monday.After(to) || !monday.AddDate(0, 0, 7).After(from) {
			continue
		}
		for batch := range slices.Chunk(refs, 1000) {
			var b strings.Builder
			b.WriteString(`"ref":in(`)
			n := 0
			for _, r := range batch {
				if r == "" || r == "*" { // a lone star would match every row
					continue
				}
				if n > 0 {
					b.WriteString(", ")
				}
				b.WriteString(strconv.Quote(r))
				n++
			}
			if n == 0 {
				continue
			}
			b.WriteString(`) | fields "ref"`)
			err := x.run(ctx, w, b.String(), func(db *logstorage.DataBlock) {
				mu.Lock()
				defer mu.Unlock()
				for i := range db.Columns {
					if db.Columns[i].Name != "ref" {
						continue
					}
					for _, v := range db.Columns[i].Values {
						found[strings.Clone(v)]++
					}
				}
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return found, nil
}

// Count is how many rows one source, dataset and kind have.
type Count struct {
	Source, Dataset, Kind string
	N                     uint64
}

// Counts counts the rows in a scope by source, dataset and kind.
func (x *Index) Counts(ctx context.Context, sc Scope) ([]Count, error) {
	leave, err := x.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	q := &query.Query{Stats: &query.Stats{By: []string{"source", "dataset", "kind"}, Funcs: []query.Func{{Name: "count", As: "count"}}}}
	t, err := x.stats(ctx, q, sc)
	if err != nil {
		return nil, err
	}
	counts := make([]Count, len(t.Rows))
	for i, r := range t.Rows {
		n, err := strconv.ParseUint(r[3], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("counting rows: the library's count is no number")
		}
		counts[i] = Count{r[0], r[1], r[2], n}
	}
	return counts, nil
}

func bounds(q *query.Query, sc Scope, now time.Time) (lo, hi int64) {
	from, to := q.Range(now)
	lo, hi = from.UnixNano(), to.UnixNano()
	if !sc.From.IsZero() && sc.From.After(from) {
		lo = sc.From.UnixNano()
	}
	if !sc.To.IsZero() && sc.To.Before(to) {
		hi = sc.To.UnixNano()
	}
	return lo, hi
}

// timed adds the bounds of time to a condition. All nine digits are written: with
// fewer LogsQL widens the upper bound.
func timed(filter string, lo, hi int64) string {
	at := func(ns int64) string { return time.Unix(0, ns).UTC().Format(query.SealedForm) }
	return "_time:>=" + at(lo) + " and _time:<=" + at(hi) + " and (" + filter + ")"
}

// candidate is a storage whose events may lie in the times asked for.
type candidate struct {
	week   week
	lo, hi int64
}

func (x *Index) weeks(compartments []string) []week {
	x.mu.Lock()
	all := slices.Collect(maps.Keys(x.storages))
	x.mu.Unlock()
	all = slices.DeleteFunc(all, func(w week) bool {
		return compartments != nil && !slices.Contains(compartments, w.compartment)
	})
	slices.SortFunc(all, func(a, b week) int { // newest first: its rows are asked for most
		return cmp.Or(cmp.Compare(b.year, a.year), cmp.Compare(b.n, a.n), strings.Compare(a.compartment, b.compartment))
	})
	return all
}

// candidates chooses storages by their days on disk, without opening any, and
// narrows the bounds to those days.
func (x *Index) candidates(compartments []string, from, to int64) (set []candidate, lo, hi int64) {
	lo, hi = to, from
	for _, w := range x.weeks(compartments) {
		x.mu.Lock()
		st := x.storages[w]
		x.mu.Unlock()
		first, last, any := st.days()
		if !any {
			continue
		}
		c := candidate{w, max(first.UnixNano(), from), min(last.AddDate(0, 0, 1).UnixNano()-1, to)}
		if c.lo > c.hi {
			continue
		}
		set = append(set, c)
		lo, hi = min(lo, c.lo), max(hi, c.hi)
	}
	return set, lo, hi
}

// run asks one storage. fn is called by several goroutines at a time.
func (x *Index) run(ctx context.Context, w week, text string, fn func(*logstorage.DataBlock)) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	st, err := x.acquire(w, false)
	if err != nil || st == nil {
		return err
	}
	defer x.release(st)
	defer recovered(&err)
	q, err := logstorage.ParseQuery(text)
	if err != nil {
		return errLibrary
	}
	if err := st.s.RunQuery(ctx, tenants, q, func(_ uint, db *logstorage.DataBlock) { fn(db) }); err != nil {
		return fmt.Errorf("searching the index: %w", err)
	}
	return ctx.Err()
}

// merge asks several storages and merges their answers as the library does for the
// nodes of its cluster: sums, distinct counts and orders hold over all of them.
func (x *Index) merge(ctx context.Context, set []candidate, text string, fn func(*logstorage.DataBlock)) (err error) {
	defer recovered(&err)
	q, err := logstorage.ParseQuery(text)
	if err != nil {
		return errLibrary
	}
	none := func(context.Context, []logstorage.TenantID, *logstorage.Query, logstorage.WriteDataBlockFunc) error {
		return errLibrary // for queries inside queries, which we never print
	}
	nr, err := logstorage.NewNetQueryRunner(ctx, tenants, q, none, func(_ uint, db *logstorage.DataBlock) { fn(db) })
	if err != nil {
		return errLibrary
	}
	err = nr.Run(ctx, max(len(set), 1), func(stop <-chan struct{}, remote *logstorage.Query, write logstorage.WriteDataBlockFunc) error {
		for i, c := range set {
			select {
			case <-stop:
				return nil
			default:
			}
			if err := x.node(ctx, c.week, remote, uint(i), write); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("searching the index: %w", err)
	}
	return ctx.Err()
}

// node asks one storage as one worker of the merge: the library keeps one state for
// each worker and group and takes a second one as its successor, not as its sum.
func (x *Index) node(ctx context.Context, w week, q *logstorage.Query, worker uint, write logstorage.WriteDataBlockFunc) error {
	st, err := x.acquire(w, false)
	if err != nil || st == nil {
		return err
	}
	defer x.release(st)
	var mu sync.Mutex
	return st.s.RunQuery(ctx, tenants, q, func(_ uint, db *logstorage.DataBlock) {
		mu.Lock()
		defer mu.Unlock()
		write(worker, db)
	})
}

var tenants = []logstorage.TenantID{tenant}

// errLibrary stands for an error whose text could repeat the question.
var errLibrary = fmt.Errorf("searching the index: the library does not take this question")

func recovered(err *error) {
	if recover() != nil { // its text could repeat the question
		*err = errLibrary
	}
}

// decode copies the rows of a block.
func decode(db *logstorage.DataBlock) []Row {
	rows := make([]Row, db.RowsCount())
	for i := range db.Columns {
		c := &db.Columns[i]
		name := strings.Clone(c.Name)
		for j, v := range c.Values {
			if v != "" {
				rows[j].setField(name, strings.Clone(v))
			}
		}
	}
	for i := range rows {
		rows[i].join()
	}
	return rows
}
