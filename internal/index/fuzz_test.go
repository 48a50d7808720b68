package index

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/VictoriaMetrics/lib/logstorage"
	"github.com/counterseal/counterseal/internal/query"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// Every question of our language is one that the library takes, and takes again in
// the library's own print, which is how it sends it to several storages. The print
// is stable, so both mean one thing.
func FuzzLibraryTakesQuestion(f *testing.F) {
	for _, v := range nasty {
		l := query.Literal(v).String()
		f.Add("a = " + l + " or b in (" + l + ", *x) and c : " + l)
		f.Add(`"x" : ` + l + "*" + l + " | stats count(), max(a) as b by c, bin(1h) | sort by b desc | limit 5 | fields b")
	}
	for _, s := range []string{`time = 2026-01-01 sealed > now-1h`, `last 2h and a in [1, 5] and ip in 10.0.0.0/8`, `"in" exists | top 3 by "by", "stats"`, `"*" != "*" | sort by "limit" desc | fields "sort", "rank"`, `"_x" : y`, `"i" = "i(" or "=" : "!" or not "-" = "~"`, `"" : x`, `a >= -5e3`} {
		f.Add(s)
	}
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		q, err := query.Parse(s)
		if err != nil {
			return
		}
		texts := []string{timed(q.FilterLogsQL(now), 0, now.UnixNano()) + q.PipesLogsQL()}
		if !q.IsTable() {
			texts = append(texts, timed(q.FilterLogsQL(now), 0, now.UnixNano())+q.EventPipesLogsQL(7, shown...))
		}
		for _, text := range texts {
			one, err := logstorage.ParseQuery(text)
			if err != nil {
				t.Fatalf("%s\n%s\n%v", s, text, err)
			}
			two, err := logstorage.ParseQuery(one.String())
			if err != nil {
				t.Fatalf("%s\n%s\n%s\n%v", s, text, one, err)
			}
			if one.String() != two.String() {
				t.Fatalf("%s\n%s\n%s", s, one, two)
			}
			if lo, hi := one.GetFilterTimeRange(); lo < 0 || hi > now.UnixNano() {
				t.Fatalf("%s escapes its time: %d, %d", s, lo, hi)
			}
		}
	})
}

// Whatever names and values a source sends, the fields are within the library's
// limits, and without truncation they are the row again.
func FuzzRow(f *testing.F) {
	f.Add("a\x00b\x00c", "d\x00e", 1)
	f.Add("time\x00b\x00multi.x\x00c\x00_msg\x00d", "multi.\x00e\x00_time\x00f\x00\x00g\x00\x1f\x00\x1e", 1)
	f.Add("a\x00b\x00a\x00c\x00a\x00\n", "x\x001\x00x\x002\x00x\x001", 1)
	f.Add("o", "n\x00v", 2000)
	f.Add("o\x00v", "n\x00"+strings.Repeat("v", 1000), 1000)
	f.Add(strings.Repeat("o", 129)+"\x00v", strings.Repeat("n", 121)+"\x00v\x00"+strings.Repeat("n", 121)+"\x00w", 1)
	f.Fuzz(func(t *testing.T, ocsf, native string, times int) {
		attrs := func(s string) (out []Attr) {
			parts := strings.Split(s, "\x00")
			for i := 0; i+1 < len(parts); i += 2 {
				out = append(out, Attr{parts[i], parts[i+1]})
			}
			return out
		}
		r := row(1)
		r.OCSF = attrs(ocsf)
		one := attrs(native)
		for range min(max(times, 0), 3000) {
			r.Native = append(r.Native, one...)
			if len(r.Native) > 5000 {
				break
			}
		}
		e := newEncoder()
		var sum Appended
		at, fields := e.encode(&r, &sum)
		size := 0
		for _, f := range fields {
			size += len(f.Name) + len(f.Value) + 2
			if len(f.Name) > 128 || f.Name == "" || f.Value == "" && f.Name != "source" {
				t.Fatalf("name of %d bytes, value of %d", len(f.Name), len(f.Value))
			}
		}
		if len(fields) > 2000 || size > 2<<20-100 {
			t.Fatalf("%d fields, %d bytes", len(fields), size)
		}
		names := make(map[string]bool)
		var got Row
		got.Time = at
		for _, f := range fields {
			if names[f.Name] {
				t.Fatalf("the name %q twice", f.Name)
			}
			names[f.Name] = true
			got.setField(f.Name, f.Value)
		}
		got.join()
		if sum.Truncated > 0 {
			if !got.Truncated || got.Native != nil {
				t.Fatalf("%+v", got)
			}
			return
		}
		want := r
		keep := func(attrs []Attr, drop func(Attr) bool) (out []Attr) {
			for _, a := range attrs {
				if a.Value != "" && !drop(a) {
					out = append(out, a)
				}
			}
			slices.SortStableFunc(out, func(a, b Attr) int { return strings.Compare(a.Name, b.Name) })
			return out
		}
		want.OCSF = keep(r.OCSF, func(a Attr) bool {
			return a.Name == "" || a.Name[0] == '_' || slices.Contains(rowOwned, a.Name) || strings.HasPrefix(a.Name, "native.") || strings.HasPrefix(a.Name, "multi.")
		})
		want.Native = keep(r.Native, func(Attr) bool { return false })
		if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
	})
}
