package query

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// Each line is what a person types, what is printed back, and the LogsQL.
var printed = []struct{ in, out, logsql string }{
	{``, `*`, `*`},
	{`*`, `*`, `*`},
	{`user.uid=p1_abc`, `user.uid = p1_abc`, `("user.uid":="p1_abc" or "multi.user.uid":"\np1_abc\n")`},
	{`ref = a/b/1`, `ref = a/b/1`, `"ref":="a/b/1"`},
	{`a != b`, `a != b`, `("a":* and !(("a":="b" or "multi.a":"\nb\n")))`},
	{`not a = b`, `not a = b`, `!(("a":="b" or "multi.a":"\nb\n"))`},
	{`process.file.path : *\\cmd.exe`, `process.file.path : *\cmd.exe`, `("process.file.path":~"(?si)^.*\\\\cmd\\.exe$" or "multi.process.file.path":~"(?i-s)\n.*\\\\cmd\\.exe\n")`},
	{`p = C:\Windows\*`, `p = "C:\\Windows*"`, ``},
	{`p = C:\Windows\\*`, `p = C:\Windows\\*`, `("p":="C:\\Windows\\"* or "multi.p":"\nC:\\Windows\\"*)`},
	{`p = 'C:\Program Files\'*`, `p = "C:\\Program Files\\"*`, `("p":="C:\\Program Files\\"* or "multi.p":"\nC:\\Program Files\\"*)`},
	{`a : "some phrase"`, `a : "some phrase"`, `("a":i("some phrase") or "multi.a":i("some phrase"))`},
	{`"failed login"`, `"failed login"`, `"_msg":i("failed login")`},
	{`mimi*`, `"mimi"*`, `"_msg":i("mimi"*)`},
	{`failed login`, `"failed" and "login"`, `("_msg":i("failed") and "_msg":i("login"))`},
	{`a exists or b = *`, `a exists or b exists`, `("a":* or "b":*)`},
	{`a = ""`, `not a exists`, `!("a":*)`},
	{`a in (x, "*", y z)`, ``, ``},
	{`kind in (x, "*", "y z")`, `kind in (x, "*", "y z")`, `("kind":in("x", "y z") or "kind":="*")`},
	{`a in [1,5]`, `a in [1, 5]`, `("a":>="1" and "a":<="5")`},
	{`port >= 1 and port < 1024`, `port >= 1 and port < 1024`, `("port":>="1" and "port":<"1024")`},
	{`ip in 10.1.2.3/8`, `ip in 10.0.0.0/8`, `"ip":ipv4_range("10.0.0.0/8")`},
	{`(a=1 or b=2) c=3`, `(a = 1 or b = 2) and c = 3`, ``},
	{`not (a=1 or not b=2)`, `not (a = 1 or not b = 2)`, ``},
	{`a not in (b)`, `not a in (b)`, ``},
	{`"odd \"name" = 1`, `"odd \"name" = 1`, `(("odd \"name":="1" and !"multi.odd \"name":*) or "multi.odd \"name":"\n1\n")`},
	{`"in" = "and"`, `"in" = "and"`, ``},
	{`a = e"\xff\x00"`, `a = e"\xff\x00"`, `("a":="\xff\x00" or "multi.a":"\n\xff\x00\n")`},
	{`time >= 2026-01-01T00:00:00Z`, `time >= 2026-01-01T00:00:00Z`, `_time:>=2026-01-01T00:00:00.000000000Z`},
	{`time < 2026-01-02`, `time < 2026-01-02T00:00:00Z`, `_time:<2026-01-02T00:00:00.000000000Z`},
	{`last 2h`, `last 2h`, `(_time:>=2026-03-01T10:00:00.000000000Z and _time:<=2026-03-01T12:00:00.000000000Z)`},
	{`last 90m`, `last 90m`, ``},
	{`time > now-1d`, `time > now-1d`, `_time:>2026-02-28T12:00:00.000000000Z`},
	{`sealed >= 2026-01-01`, `sealed >= 2026-01-01T00:00:00Z`, `"sealed":string_range("2026-01-01T00:00:00.000000000Z", "\xff")`},
	{`x | stats count(), count_uniq(x) as u by y, bin(1h) | sort by count desc | limit 10`,
		`"x" | stats count(), count_uniq(x) as u by y, bin(1h) | sort by count desc | limit 10`,
		`"_msg":i("x") | stats by (_time:3600s, "y") count() as "count", count_uniq("x") as "u" | sort by ("count" desc) | limit 10`},
	{`* | stats max(time) by a | sort by max(time)`, `* | stats max(time) by a | sort by "max(time)"`, `* | stats by ("a") max("_time") as "max(time)" | sort by ("max(time)")`},
	{`| top 5 by x`, `* | top 5 by x`, `* | top 5 by ("x") hits as "count"`},
	{`| top by x, y | fields count`, `* | top 10 by x, y | fields count`, ``},
	{`| fields a, b`, `* | fields a, b`, `* | fields "a", "b"`},
}

func TestPrinted(t *testing.T) {
	for _, c := range printed {
		q, err := Parse(c.in)
		if c.out == "" {
			if err == nil {
				t.Errorf("%s: accepted", c.in)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if got := q.String(); got != c.out {
			t.Errorf("%s\n printed %s\n want    %s", c.in, got, c.out)
		}
		if got := q.LogsQL(now); c.logsql != "" && got != c.logsql {
			t.Errorf("%s\n LogsQL %s\n want   %s", c.in, got, c.logsql)
		}
		checkStable(t, q)
	}
}

func checkStable(t *testing.T, q *Query) {
	t.Helper()
	s := q.String()
	if len(s) > MaxText { // escapes made it longer than a person may type
		return
	}
	again, err := Parse(s)
	if err != nil {
		t.Fatalf("printed text %q: %v", s, err)
	}
	if !reflect.DeepEqual(q, again) {
		t.Fatalf("%q\n%s", s, cmp.Diff(q, again))
	}
	if again.String() != s {
		t.Fatalf("%q printed again is %q", s, again.String())
	}
}

func TestErrorsNameThePlace(t *testing.T) {
	for _, c := range []struct {
		in   string
		col  int
		want string
	}{
		{`a = `, 5, "a value"},
		{`a = and`, 5, "a value"},
		{`a == b`, 4, "a value"},
		{`(a = b`, 7, ")"},
		{`a = b)`, 6, "|"},
		{`a < x`, 5, "number"},
		{`a < nan`, 5, "number"},
		{`time < x`, 8, "time"},
		{`time < 1969-01-01`, 8, "1970"},
		{`_time > 1`, 1, "_"},
		{`multi.a = 1`, 1, "multi."},
		{`a* = 1`, 1, "wildcards"},
		{`*x*`, 1, "end only"},
		{`a : ""`, 5, "words"},
		{`a in ("")`, 7, "empty"},
		{`a in (*)`, 7, "lone"},
		{`a in x`, 6, "network"},
		{`a in ::1/64`, 6, "IPv4"},
		{`"abc`, 1, "closing"},
		{`"C:\"`, 1, `\\`},
		{`'abc`, 1, "closing"},
		{`a = e"\q"`, 5, "Go"},
		{`a = e"\xff"*`, 5, "UTF-8"},
		{"a = \xff", 5, "UTF-8"},
		{`and`, 1, "a field"},
		{`last`, 5, "2h"},
		{`last 2x`, 6, "2h"},
		{`| limit 0`, 9, "whole number"},
		{`| limit 1 | limit 1`, 12, "at most once"},
		{`| fields a | stats count()`, 13, "at most once"},
		{`| stats count() | sort by x`, 28, "column"},
		{`| stats count(), count()`, 25, "different names"},
		{`| stats rate()`, 9, "count()"},
		{`| top 3`, 8, "by"},
		{`| frobnicate`, 3, "stats"},
		{`| fields a*`, 10, "wildcards"},
		{`| fields "a*"`, 10, "*"},
		{"é = (", 5, "a value"},
	} {
		_, err := Parse(c.in)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if e.Col != c.col || !strings.Contains(e.Error(), c.want) {
			t.Errorf("%s: %v; want character %d and %q", c.in, e, c.col, c.want)
		}
	}
}

// A question may hold a name; its error is written to logs.
func TestErrorsHoldNoText(t *testing.T) {
	for _, in := range []string{`user.name = "planted`, `a < planted`, `| stats planted(x)`, `a in planted`, `time > planted`, `planted = = x`} {
		if _, err := Parse(in); err == nil || strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestBounds(t *testing.T) {
	for name, in := range map[string]string{
		"bytes": strings.Repeat("a", MaxText+1),
		"depth": strings.Repeat("(", MaxDepth+1) + "a" + strings.Repeat(")", MaxDepth+1),
		"not":   strings.Repeat("not ", MaxDepth+1) + "a",
		"terms": strings.Repeat("a ", MaxTerms+1),
		"list":  "a in (" + strings.Repeat("b,", MaxTerms) + "b)",
		"name":  strings.Repeat("n", MaxName+1) + " = 1",
	} {
		if _, err := Parse(in); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	deep := strings.Repeat("(", MaxDepth-1) + "a" + strings.Repeat(")", MaxDepth-1)
	if _, err := Parse(deep); err != nil {
		t.Errorf("just inside the depth: %v", err)
	}
}

func TestRange(t *testing.T) {
	day := func(d int) time.Time { return time.Date(2026, 1, d, 0, 0, 0, 0, time.UTC) }
	first, last := time.Unix(0, minTime).UTC(), time.Unix(0, maxTime).UTC()
	for in, want := range map[string][2]time.Time{
		`x`:                                    {first, last},
		`time >= 2026-01-01`:                   {day(1), last},
		`time > 2026-01-01 time < 2026-01-02`:  {day(1).Add(1), day(2).Add(-1)},
		`time in [2026-01-01, 2026-01-02] x=1`: {day(1), day(2)},
		`time = 2026-01-01`:                    {day(1), day(1)},
		`last 2h`:                              {now.Add(-2 * time.Hour), now},
		`last 2h or x = 1`:                     {first, last},
		`not last 2h`:                          {first, last},
	} {
		q, err := Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		from, to := q.Range(now)
		if !from.Equal(want[0]) || !to.Equal(want[1]) {
			t.Errorf("%s: %v to %v", in, from, to)
		}
	}
}

func TestNames(t *testing.T) {
	q, err := Parse(`word and (b = 1 or not c exists) last 1h | stats count(), sum(d) by e, bin(1h)`)
	if err != nil {
		t.Fatal(err)
	}
	if got := q.Names(); !slices.Equal(got, []string{"", "b", "c", "d", "e", "time"}) {
		t.Fatalf("%q", got)
	}
	if got := q.Columns(); !slices.Equal(got, []string{"time", "e", "count", "sum(d)"}) {
		t.Fatalf("%q", got)
	}
}

func TestMulti(t *testing.T) {
	for _, v := range [][]string{{"a", "b"}, {""}, {"", ""}, {"\x1f", "\x1e", "\x1e\x1d", "\n", "a\nb\x1e", "\x1e\x1f"}} {
		if got := SplitMulti(JoinMulti(v)); !slices.Equal(got, v) {
			t.Errorf("%q came back as %q", v, got)
		}
	}
}

func TestStored(t *testing.T) {
	for v, want := range map[string]string{
		"": "", "abc": "abc", "10": "10", "007": "007", "-5": "-5", "1.2.3": "1.2.3", "60.0": "60", "1.50": "1.5", "0.5": "0.5", "1.2.3.4": "1.2.3.4",
		"1_0": "1_0\xff", "_4": "_4\xff", "-0": "-0\xff", "-0.0": "-0.0\xff", "1\xff": "1\xff\xff", "01.2.3.4": "01.2.3.4\xff", "0a.1.1.1": "0a.1.1.1\xff",
		"2026-02-28T10:00:00.000Z": "2026-02-28T10:00:00.000Z", "2026-02-30T10:00:00.000Z": "2026-02-30T10:00:00.000Z\xff", "2026-02-28 10:00:00.000Z": "2026-02-28 10:00:00.000Z\xff",
	} {
		got, exact := Stored(v)
		if got != want || exact != (got == v) {
			t.Errorf("%q is stored as %q (%v), want %q", v, got, exact, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range printed {
		f.Add(c.in)
	}
	for _, v := range []string{`a = e"a"`, `e"x"e"y"*`, `a = *e"\x01"?x`, `a = \*\?\\`, `a:b:c`, `"" = 1`, `a=b#c`, `a = "x"'y'z`, `time != 2026-01-01`, `sealed = *`} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q, err := Parse(s)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Pos < 0 || e.Pos > len(s) {
				t.Fatalf("%v", err)
			}
			return
		}
		checkStable(t, q)
		q.LogsQL(now)
		q.EventPipesLogsQL(10, "ref")
		q.Range(now)
		q.Names()
	})
}
