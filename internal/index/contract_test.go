package index

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/query"
	"github.com/google/go-cmp/cmp"
)

// store is what every implementation of the index must do: the embedded one here,
// and one over the network.
type store interface {
	Append(context.Context, []Row) (Appended, error)
	Flush() error
	Query(context.Context, *query.Query, Scope, int, func(Row) bool) error
	Stats(context.Context, *query.Query, Scope) (Table, error)
	Has(context.Context, string, time.Time, time.Time, []string) (map[string]int, error)
	Counts(context.Context, Scope) ([]Count, error)
}

var (
	day0   = time.Date(2026, 2, 25, 10, 0, 0, 0, time.UTC) // a Wednesday, week 9
	testNo = "01890a5d-ac96-774b-bcce-b302099a8057"
)

func ref(comp string, n int) string { return fmt.Sprintf("%s/%s/%d", comp, testNo, n) }

func row(n int) Row {
	return Row{
		Ref: ref("servers", n), Time: day0.Add(time.Duration(n) * time.Second).UnixNano(), Sealed: day0,
		Compartment: "servers", Source: "windows", Dataset: "security", Kind: KindEvent,
	}
}

func ask(t testing.TB, s string) *query.Query {
	t.Helper()
	q, err := query.Parse(s)
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return q
}

func add(t *testing.T, s store, rows ...Row) Appended {
	t.Helper()
	a, err := s.Append(t.Context(), rows)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	return a
}

func find(t *testing.T, s store, q string, sc Scope, limit int) []Row {
	t.Helper()
	var rows []Row
	if err := s.Query(t.Context(), ask(t, q), sc, limit, func(r Row) bool { rows = append(rows, r); return true }); err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	return rows
}

func numbers(rows []Row) []int {
	var n []int
	for _, r := range rows {
		i, _ := strconv.Atoi(r.Ref[strings.LastIndexByte(r.Ref, '/')+1:])
		n = append(n, i)
	}
	return n
}

func wantRows(t *testing.T, s store, q string, want ...int) {
	t.Helper()
	got := numbers(find(t, s, q, Scope{}, 0))
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%s\n found %v, want %v", q, got, want)
	}
}

// nasty are values that break what is quoted, split, folded or taken for a number.
var nasty = []string{
	`plain`, `Plain`, `two words`, ` leading`, `trailing `, `"`, `'`, "`", `a"b`, `a'b`, "a`b", `\`, `\\`, `a\`, `C:\Windows\System32`, `\\server\share`,
	"\x00", "a\x00b", "\xff", "a\xff\xfeb", "\u202egpj.exe", "\u200f", "é", "É", "日本", "line\nline", "tab\t", "\x1f", "a\x1fb", "\x1e", "\x1e\x1d", "\x1e\x1f", "\n", "a\nb",
	`0`, `00`, `1`, `1.0`, `1e3`, `-5`, `18446744073709551615`, `9223372036854775808`, `0.1`, `.5`, `1_000`, `0x10`, `NaN`, `inf`,
	`10.0.0.1`, `10.0.0.01`, `10.0.0.0/8`, `2026-01-01T00:00:00Z`, `2026-01-01T00:00:00.000Z`, `5m`, `1KiB`, `true`, `null`,
	`*`, `**`, `?`, `a*`, `*a`, `in("*")`, `("*")`, `_time:5m`, `{a="b"}`, `and`, `or`, `not`, `!`, `-`, `=`, `!=`, `a:b`, `:`, `~`, `|`, `x | limit 1`, `(`, `)`, `[1, 2]`, `,`, `#`, `# c`,
	`i("x")`, `options(concurrency=1)`, `$1`, `.*`, `^a$`, `(?i)a`, `%s`, `<script>`, "\x1b[31m", "p1_abcdefghijklmnopqrstuvwxyz",
}

func runContract(t *testing.T, open func(*testing.T) store) {
	t.Run("values", func(t *testing.T) {
		s := open(t)
		rows := make([]Row, len(nasty))
		for i, v := range nasty {
			r := row(i)
			r.OCSF = []Attr{{"attr", v}}
			r.Native = []Attr{{"Field", v}, {`odd name "*" :=`, v}, {"_time", v}, {"several", v}, {"several", "x" + v}}
			rows[i] = r
		}
		add(t, s, rows...)
		all := find(t, s, "", Scope{}, 0)
		if len(all) != len(rows) {
			t.Fatalf("%d rows came back of %d", len(all), len(rows))
		}
		slices.Reverse(all) // newest first
		for i, want := range rows {
			slices.SortStableFunc(want.Native, func(a, b Attr) int { return strings.Compare(a.Name, b.Name) })
			if d := cmp.Diff(want, all[i]); d != "" {
				t.Errorf("value %q: %s", nasty[i], d)
			}
		}
		for i, v := range nasty {
			literal := query.Literal(v).String()
			for _, field := range []string{"attr", "native.Field", `"native.odd name \"*\" :="`, "native._time", "native.several"} {
				q := field + " = " + literal
				if got := numbers(find(t, s, q, Scope{}, 0)); !slices.Equal(got, []int{i}) {
					t.Errorf("%s found %v, want %d (%q)", q, got, i, v)
				}
				q = field + " in (" + literal + ")"
				if got := numbers(find(t, s, q, Scope{}, 0)); !slices.Equal(got, []int{i}) {
					t.Errorf("%s found %v, want %d (%q)", q, got, i, v)
				}
				q = field + " in (" + literal + ", nothing)"
				if got := numbers(find(t, s, q, Scope{}, 0)); !slices.Equal(got, []int{i}) {
					t.Errorf("%s found %v, want %d (%q)", q, got, i, v)
				}
			}
			second := "native.several = " + query.Literal("x"+v).String()
			if got := numbers(find(t, s, second, Scope{}, 0)); !slices.Equal(got, []int{i}) {
				t.Errorf("%s found %v, want %d", second, got, i)
			}
			// The same through the merging path, and every other row by its opposite.
			tab, err := s.Stats(t.Context(), ask(t, "attr = "+literal+" | stats count()"), Scope{})
			if err != nil || len(tab.Rows) != 1 || tab.Rows[0][0] != "1" {
				t.Errorf("attr = %s | stats count(): %v, %v", literal, tab.Rows, err)
			}
			if got := find(t, s, "attr != "+literal, Scope{}, 0); len(got) != len(nasty)-1 {
				t.Errorf("attr != %s found %d rows", literal, len(got))
			}
			tab, err = s.Stats(t.Context(), ask(t, "attr = "+literal+` | stats count(), min(attr) as m by attr, "native.odd name \":=" | sort by count, attr`), Scope{})
			grouped, _ := query.Stored(v) // statistics see a number in its own form
			if err != nil || len(tab.Rows) != 1 || tab.Rows[0][0] != query.Written(grouped) {
				t.Errorf("by attr for %s: %q, %v", literal, tab.Rows, err)
			}
		}
	})

	t.Run("tests", func(t *testing.T) {
		s := open(t)
		mk := func(n int, attrs ...string) Row {
			r := row(n)
			for i := 0; i < len(attrs); i += 2 {
				name, native := strings.CutPrefix(attrs[i], "native.")
				if native {
					r.Native = append(r.Native, Attr{name, attrs[i+1]})
				} else {
					r.OCSF = append(r.OCSF, Attr{name, attrs[i+1]})
				}
			}
			return r
		}
		add(t, s,
			mk(1, "process.file.path", `C:\Windows\System32\CMD.EXE`, "port", "80", "native.Message", "Failed login for admin"),
			mk(2, "process.file.path", `C:\Windows\notepad.exe`, "port", "443", "native.Message", "login ok"),
			mk(3, "process.file.path", "/usr/bin/cmd.exe\nx", "port", "8080", "ip", "10.1.2.3", "native.Message", "failed\nlogin"),
			mk(4, "tags", "a", "tags", "b.c", "tags", `D\E.exe`, "tags", "one\ntwo", "ip", "192.168.1.1"),
			mk(6, "native.A", "left", "native.B", "right", "port", "1"),
			mk(5, "port", "x", "empty", "", "sealed", "ignored", "native.Message", "Wörter und ÄPFEL"),
		)
		for _, c := range []struct {
			q    string
			want []int
		}{
			{`process.file.path : *\\cmd.exe`, []int{1}},
			{`process.file.path = *\\cmd.exe`, nil},
			{`process.file.path = *\\CMD.EXE`, []int{1}},
			{`process.file.path = 'C:\Windows\'*`, []int{1, 2}},
			{`process.file.path = 'c:\windows\'*`, nil},
			{`process.file.path : 'c:\windows\'*`, []int{1, 2}},
			{`process.file.path = /usr*x`, []int{3}},
			{`process.file.path = /usr*cmd.exe`, nil},
			{`process.file.path : ?:\\windows\\notepad.???`, []int{2}},
			{`process.file.path : "system32"`, []int{1}},
			{`process.file.path : system3`, nil},
			{`native.Message : "failed login"`, []int{1}},
			{`"failed login"`, []int{1}},
			{`failed login`, []int{1, 3}},
			{`LOGIN not failed`, []int{2}},
			{`log*`, []int{1, 2, 3}},
			{`äpfel`, []int{5}},
			{`right and left`, []int{6}},
			{`"left right" or leftright`, nil},
			{`port >= 80 and port < 1024`, []int{1, 2}},
			{`port in [443, 8080]`, []int{2, 3}},
			{`port > 443`, []int{3}},
			{`port <= 80`, []int{1, 6}},
			{`port exists`, []int{1, 2, 3, 5, 6}},
			{`not port exists`, []int{4}},
			{`port = ""`, []int{4}},
			{`port != 80`, []int{2, 3, 5, 6}},
			{`not port = 80`, []int{2, 3, 4, 5, 6}},
			{`empty exists`, nil},
			{`port in (80, x)`, []int{1, 5}},
			{`port not in (80, x)`, []int{2, 3, 4, 6}},
			{`ip in 10.0.0.0/8`, []int{3}},
			{`tags = a`, []int{4}},
			{`tags = b.c`, []int{4}},
			{`tags = b`, nil},
			{`tags : b`, []int{4}},
			{`tags : *\\e.exe`, []int{4}},
			{`tags = D*`, []int{4}},
			{`tags : two`, []int{4}},
			{`tags = e"one\ntwo"`, []int{4}},
			{`tags : e"one\ntwo"`, []int{4}},
			{`tags : e"a\nb"`, nil},
			{`tags = one*two`, []int{4}},
			{`tags = *e"\n"two`, []int{4}},
			{`tags = two`, nil},
			{`tags = a*c`, nil},
			{`tags in (zzz, b.c)`, []int{4}},
			{`tags != a`, nil},
			{`tags != zzz`, []int{4}},
			{`kind = event and source = windows and dataset = security and compartment = servers`, []int{1, 2, 3, 4, 5, 6}},
			{`ref = ` + ref("servers", 2), []int{2}},
			{`time = 2026-02-25T10:00:03Z`, []int{3}},
			{`time > 2026-02-25T10:00:03Z`, []int{4, 5, 6}},
			{`time in [2026-02-25T10:00:02Z, 2026-02-25T10:00:03Z]`, []int{2, 3}},
			{`time <= 2026-02-25T10:00:02.999999999Z`, []int{1, 2}},
			{`sealed >= 2026-02-25T10:00:00Z`, []int{1, 2, 3, 4, 5, 6}},
			{`sealed > 2026-02-25T10:00:00Z`, nil},
			{`sealed = 2026-02-25T10:00:00Z`, []int{1, 2, 3, 4, 5, 6}},
			{`sealed < 2026-02-25T10:00:00Z`, nil},
			{`(port = 80 or ip = 10.1.2.3) and not "ok"`, []int{1, 3}},
		} {
			wantRows(t, s, c.q, c.want...)
		}
		got := find(t, s, "* | sort by process.file.path desc | limit 2 | fields port", Scope{}, 0)
		if !slices.Equal(numbers(got), []int{2, 1}) || !slices.Equal(got[0].OCSF, []Attr{{"port", "443"}}) || got[0].Native != nil || got[0].Time != row(2).Time {
			t.Errorf("sort, limit, fields: %+v", got)
		}
		if got := find(t, s, "tags exists | fields tags", Scope{}, 0); len(got) != 1 || len(got[0].OCSF) != 4 {
			t.Errorf("fields of several values: %+v", got)
		}
	})

	t.Run("order, scope and limits", func(t *testing.T) {
		s := open(t)
		// Two compartments, three weeks of sealing, equal times, and an import of old
		// events sealed today.
		var rows []Row
		for i := range 3000 {
			r := row(i)
			r.Time = day0.Add(-time.Duration(i/7) * time.Second).UnixNano() // seven rows a second
			r.Sealed = day0.AddDate(0, 0, 7*(i%3))
			r.Dataset = "d" + strconv.Itoa(i%2)
			if i%5 == 0 {
				r.Compartment = "phones"
				r.Ref = ref("phones", i)
			}
			rows = append(rows, r)
		}
		old := row(9000)
		old.Time = time.Date(1971, 1, 2, 3, 4, 5, 678901200, time.UTC).UnixNano()
		rows = append(rows, old)
		add(t, s, rows...)
		all := find(t, s, "", Scope{}, 0)
		if len(all) != len(rows) {
			t.Fatalf("%d rows of %d", len(all), len(rows))
		}
		if !slices.IsSortedFunc(all, func(a, b Row) int { return int(b.Time - a.Time) }) {
			t.Error("not newest first")
		}
		if last := all[len(all)-1]; last.Time != old.Time {
			t.Errorf("the oldest row has time %d, want %d", last.Time, old.Time)
		}
		seen := make(map[string]bool)
		for _, r := range all {
			seen[r.Ref] = true
		}
		if len(seen) != len(rows) {
			t.Errorf("%d different rows of %d", len(seen), len(rows))
		}
		for _, n := range []int{1, 6, 7, 8, 499, 500, 501, 1234} {
			got := find(t, s, "", Scope{}, n)
			if len(got) != n || got[n-1].Ref != all[n-1].Ref {
				t.Errorf("limit %d: %d rows, or not the first of all", n, len(got))
			}
		}
		if got := find(t, s, "* | limit 3", Scope{}, 10); len(got) != 3 {
			t.Errorf("limit in the question: %d rows", len(got))
		}
		if got := find(t, s, "", Scope{Compartments: []string{"phones"}}, 0); len(got) != 600 {
			t.Errorf("one compartment: %d rows", len(got))
		}
		if got := find(t, s, "", Scope{Compartments: []string{}}, 0); len(got) != 0 {
			t.Errorf("no compartment: %d rows", len(got))
		}
		from := day0.Add(-9 * time.Second)
		if got := find(t, s, "", Scope{From: from, To: day0.Add(-8 * time.Second)}, 0); len(got) != 14 {
			t.Errorf("a range: %d rows", len(got))
		}
		if got := find(t, s, "", Scope{From: from.Add(1), To: day0.Add(-8*time.Second - 1)}, 0); len(got) != 0 {
			t.Errorf("a range between seconds: %d rows", len(got))
		}
		calls := 0
		if err := s.Query(t.Context(), ask(t, ""), Scope{}, 0, func(Row) bool { calls++; return calls < 10 }); err != nil || calls != 10 {
			t.Errorf("stopped by the caller: %d calls, %v", calls, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		calls = 0
		if err := s.Query(ctx, ask(t, ""), Scope{}, 0, func(Row) bool { calls++; cancel(); return true }); err == nil {
			t.Errorf("cancelled: %d calls and no error", calls)
		}

		tab, err := s.Stats(t.Context(), ask(t, "time > 2000-01-01 | stats count(), count_uniq(ref) as refs, min(time) as first by dataset, bin(1d) | sort by count desc, dataset, time"), Scope{})
		want := Table{Columns: []string{"time", "dataset", "count", "refs", "first"}, Rows: [][]string{
			{"2026-02-25T00:00:00Z", "d0", "1500", "1500", "2026-02-25T09:52:52Z"},
			{"2026-02-25T00:00:00Z", "d1", "1500", "1500", "2026-02-25T09:52:52Z"},
		}}
		if d := cmp.Diff(want, tab); err != nil || d != "" {
			t.Errorf("stats over storages: %v %s", err, d)
		}
		tab, err = s.Stats(t.Context(), ask(t, "* | top 1 by compartment"), Scope{})
		if d := cmp.Diff(Table{Columns: []string{"compartment", "count"}, Rows: [][]string{{"servers", "2401"}}}, tab); err != nil || d != "" {
			t.Errorf("top: %v %s", err, d)
		}
		counts, err := s.Counts(t.Context(), Scope{})
		if d := cmp.Diff([]Count{{"windows", "d0", "event", 1500}, {"windows", "d1", "event", 1500}, {"windows", "security", "event", 1}}, counts); err != nil || d != "" {
			t.Errorf("counts: %v %s", err, d)
		}
		if err := s.Query(t.Context(), ask(t, "* | stats count()"), Scope{}, 0, nil); err == nil {
			t.Error("Query took a table")
		}
		if _, err := s.Stats(t.Context(), ask(t, "*"), Scope{}); err == nil {
			t.Error("Stats took events")
		}
	})

	t.Run("many at one time", func(t *testing.T) {
		s := open(t)
		var rows []Row
		for i := range 2000 {
			r := row(i)
			r.Time = day0.Add(-time.Duration(i/1500) * time.Nanosecond).UnixNano()
			rows = append(rows, r)
		}
		add(t, s, rows...)
		seen := make(map[string]bool)
		for _, r := range find(t, s, "", Scope{}, 0) {
			if seen[r.Ref] {
				t.Fatalf("%s came twice", r.Ref)
			}
			seen[r.Ref] = true
		}
		if len(seen) != 2000 {
			t.Errorf("%d rows of 2000", len(seen))
		}
		if got := find(t, s, "", Scope{}, 1501); len(got) != 1501 || got[1499].Time != day0.UnixNano() || got[1500].Time != day0.UnixNano()-1 {
			t.Errorf("%d rows, or not newest first", len(got))
		}
	})

	t.Run("has", func(t *testing.T) {
		s := open(t)
		var refs []string
		var rows []Row
		for i := range 2500 {
			refs = append(refs, ref("servers", i))
			if i%3 != 0 {
				r := row(i)
				if i%2 == 0 {
					r.Sealed = r.Sealed.AddDate(0, 0, 7)
				}
				rows = append(rows, r)
			}
		}
		rows = append(rows, row(1)) // twice
		if _, err := s.Append(t.Context(), rows); err != nil {
			t.Fatal(err)
		}
		got, err := s.Has(t.Context(), "servers", day0, day0.AddDate(0, 0, 7), append(refs, "*", "", `")`, "in(\"*\")"))
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range refs {
			want := 1
			switch {
			case i%3 == 0:
				want = 0
			case i == 1:
				want = 2
			}
			if got[r] != want {
				t.Fatalf("row %d counted %d times, want %d", i, got[r], want)
			}
		}
		if len(got) != 1666 {
			t.Errorf("%d references found", len(got))
		}
		got, err = s.Has(t.Context(), "servers", day0, day0, refs)
		if err != nil || got[ref("servers", 2)] != 0 || got[ref("servers", 1)] != 2 {
			t.Errorf("one week: %v", err)
		}
		if got, err := s.Has(t.Context(), "servers", day0, day0, []string{"*"}); err != nil || len(got) != 0 {
			t.Errorf("a star: %d found, %v", len(got), err)
		}
		if got, err := s.Has(t.Context(), "phones", day0, day0, refs); err != nil || len(got) != 0 {
			t.Errorf("another compartment: %d found, %v", len(got), err)
		}
	})
}
