package oversight

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/ledger"
)

var quarter = time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC)

func root() string { return base64.StdEncoding.EncodeToString(make([]byte, 32)) }

func (t *Tally) report(audience string) *Report {
	r := t.Report(audience)
	r.Origin, r.Root, r.Size = "ledger.example/test", root(), t.next
	return r
}

// TestNothingSmall tries every table of three and four values, as somebody would who knows
// the values, the rules and this code: no count from 1 to 7 is the only one that gives the
// report, neither of a row nor of what several rows are together.
func TestNothingSmall(t *testing.T) {
	for _, c := range []struct{ cells, most int }{{1, 40}, {2, 40}, {3, 24}, {4, 13}} {
		type seen struct{ low, high []int64 }
		groups := map[string]*seen{}
		sets := 1 << c.cells // of values: what they are together
		n := 1
		for range c.cells {
			n *= c.most + 1
		}
		sums := make([]int64, sets)
		for i := range n {
			f := family{dims: map[string]map[string]int64{"d": {}}}
			rest := i
			cells := make([]int64, c.cells)
			for k := range cells {
				cells[k] = int64(rest % (c.most + 1))
				rest /= c.most + 1
				if cells[k] > 0 {
					f.dims["d"][string(rune('a'+k))] = cells[k]
				}
				f.total += cells[k]
			}
			shown := f.shown("f", []string{"d"})
			out := (&Report{Families: []Family{shown}}).Format()
			g := groups[out]
			if g == nil {
				g = &seen{slices.Repeat([]int64{1 << 40}, sets), slices.Repeat([]int64{-1}, sets)}
				groups[out] = g
			}
			for set := range sets {
				sums[set] = 0
				for k := range cells {
					if set&(1<<k) != 0 {
						sums[set] += cells[k]
					}
				}
				g.low[set], g.high[set] = min(g.low[set], sums[set]), max(g.high[set], sums[set])
			}
		}
		for out, g := range groups {
			for set := range sets {
				if g.low[set] == g.high[set] && g.low[set] > 0 && g.low[set] < MinCount {
					t.Fatalf("%d values: %b is %d for sure:\n%s", c.cells, set, g.low[set], out)
				}
			}
		}
		t.Logf("%d values: %d tables, %d reports", c.cells, n, len(groups))
	}
}

// TestNothingSmallTogether: the divisions of one family tell no more together than each
// does. Somebody who moves one statement from one hidden value to another, or swaps two
// values, has the same report: so nobody knows which it was.
func TestNothingSmallTogether(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	tried := 0
	for range 3000 {
		dims := names[0].public
		f := family{total: int64(rng.IntN(60)), dims: map[string]map[string]int64{}}
		for _, d := range dims {
			f.dims[d] = map[string]int64{}
			for range f.total { // skewed, so that some are small
				f.dims[d][string(rune('a'+min(rng.IntN(6), rng.IntN(6), rng.IntN(6))))]++
			}
		}
		print := func() string {
			shown := f.shown("looks", dims)
			return (&Report{Families: []Family{shown}}).Format()
		}
		before := print()
		for _, d := range dims {
			for v, n := range f.dims[d] {
				if n == 0 || n >= MinCount || f.total < MinCount {
					continue
				}
				tried++
				other := false
				for w := range f.dims[d] {
					if w == v {
						continue
					}
					was := f.dims[d][w]
					for _, swap := range []int64{was, n - 1, n + 1} {
						f.dims[d][v], f.dims[d][w] = swap, was+n-swap
						other = other || swap != n && f.dims[d][w] >= 0 && print() == before
					}
					f.dims[d][v], f.dims[d][w] = n, was
				}
				if !other {
					t.Fatalf("%s %s is %d for sure: %v\n%s", d, v, n, f.dims[d], before)
				}
			}
		}
	}
	if tried < 1000 {
		t.Fatalf("%d counts were tried", tried)
	}
}

// statement makes one for a Tally.
func statement(t testing.TB, kind string, at time.Time, detail map[string]any, subject ...string) ledger.Statement {
	t.Helper()
	s, err := ledger.New(kind, "os:1", at, detail)
	if err != nil {
		t.Fatal(err)
	}
	s.Subject = subject
	return s
}

func looked(t testing.TB, at time.Time, office string) ledger.Statement {
	return statement(t, "request.served", at, map[string]any{"act": "search", "selects": "person", "office": office, "cover": "a", "covered_by": "authorisation", "look": People, "route": "r", "status": 200}, "l")
}

// TestReport: what a period had is counted, in it and by the time of the look, and what is
// said reads back to the same bytes.
func TestReport(t *testing.T) {
	tally := NewTally(quarter, quarter.AddDate(0, 3, 0))
	n := uint64(0)
	add := func(times int, s ledger.Statement) {
		for range times {
			tally.Add(n, s)
			n++
		}
	}
	day := quarter.AddDate(0, 1, 0)
	add(20, looked(t, day, "soc"))
	add(9, looked(t, day, "forensics"))
	add(50, looked(t, quarter.AddDate(0, -1, 0), "soc")) // before
	add(50, looked(t, quarter.AddDate(0, 3, 0), "soc"))  // after
	review := func(outcome string, at time.Time, look time.Time) ledger.Statement {
		return statement(t, "look.reviewed", at, map[string]any{"look": "l", "kind": People, "looked": stamp(look), "office": "i", "outcome": outcome}, "l")
	}
	add(17, review(Justified, day.AddDate(0, 0, 3), day))
	add(30, review(Misuse, day, quarter.AddDate(0, -1, 0))) // of a look before
	add(30, review(Misuse, quarter.AddDate(0, 4, 0), day))  // after the period
	ask := statement(t, "authorisation.requested", day, map[string]any{"case": "c", "ends": "e", "scope": "s"}, "a-1")
	add(8, ask)
	decide := func(after time.Duration, decision string) ledger.Statement {
		return statement(t, "authorisation.decided", day.Add(after), map[string]any{"authorisation": "a-1", "decision": decision}, "a-1/1")
	}
	add(10, decide(59*time.Second, "approve"))
	add(12, decide(time.Minute, "refuse"))
	add(3, statement(t, "glass.broken", day, map[string]any{"case": "c"}, "g"))
	add(8, statement(t, "request.refused", day, map[string]any{"rule": "people purpose", "route": "r", "office": "soc"}))
	add(1, statement(t, "oversight.silent", day, map[string]any{"reason": Vacant, "since": stamp(day)}, "x"))

	r := tally.report(Internal)
	text := r.Format()
	for _, want := range []string{
		"count looks 29\n", "count looks act search 29\n", "count looks office soc 20\ncount looks office forensics 9\n",
		"count looks review justified 17\ncount looks review waiting 12\n", "lag median 3 nine-in-ten 3\n", "count requests 8\n",
		"count decisions 22\ncount decisions decision refuse 12\ncount decisions decision approve 10\ncount decisions speed a-minute-or-more 12\ncount decisions speed under-60-seconds 10\n",
		"count glasses fewer-than-8\n", "count refused rule people 8\n", "count grants 0\n", "looking stopped vacant 2026-08-01T00:00:00Z\n", "draw by-the-rule\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report does not say %q", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
	for range 20 { // maps have no order, and the report has one
		if again := tally.report(Internal).Format(); again != text {
			t.Fatalf("the same counts give\n%s", again)
		}
	}
	back, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(r, back); d != "" {
		t.Error(d)
	}
	public := tally.report(Public).Format()
	if strings.Contains(public, "office") || strings.Contains(public, "rule people") {
		t.Errorf("the public report says\n%s", public)
	}
	for i, l := range strings.SplitAfter(text, "\n") {
		if words := strings.Fields(l); len(words) > 0 && len(words) < 5 && words[0] != "lag" {
			if _, err := Parse(strings.Replace(text, l, "", 1)); err == nil {
				t.Errorf("without line %d it is a report: %s", i, l)
			}
		}
	}
	for _, change := range [][2]string{{"glasses fewer-than-8", "glasses 3"}, {"office soc 20", "office soc 21"}, {"forensics 9", "forensics 09"}, {"audience internal", "audience public"}, {"audience internal", "audience all"}} {
		if _, err := Parse(strings.Replace(text, change[0], change[1], 1)); err == nil {
			t.Errorf("with %q it is a report", change[1])
		}
	}
}

// TestDraw: one wide look in ten is drawn, by its id alone, and a report tells of a server
// that draws otherwise.
func TestDraw(t *testing.T) {
	n := 0
	for range 20_000 {
		if Drawn(uuid.New()) {
			n++
		}
	}
	if n < 1800 || n > 2200 {
		t.Errorf("%d of 20000 are drawn", n)
	}
	if Drawn(uuid.MustParse("00000000-0000-7000-8000-000000000000")) || !Drawn(uuid.MustParse("00000000-0000-7000-8000-000000000012")) {
		t.Error("the draw is another one than docs/formats/oversight.md says")
	}
	for _, wrong := range []bool{false, true} {
		tally := NewTally(quarter, quarter.AddDate(0, 3, 0))
		for range 100 {
			s := statement(t, "request.served", quarter, map[string]any{"act": "search", "selects": "reverse", "look": Wide, "route": "r", "status": 200})
			if Drawn(s.ID) != wrong {
				s.Subject = []string{"x"}
			}
			tally.Add(0, s)
		}
		if r := tally.report(Public); r.DrawWrong != wrong || r.Family("wide").Total != 100 {
			t.Errorf("wrong %v: %+v", wrong, r)
		}
	}
}

func TestQuarter(t *testing.T) {
	for at, want := range map[string]string{"2026-01-01": "2025-10-01 2026-01-01", "2026-03-31": "2025-10-01 2026-01-01", "2026-04-01": "2026-01-01 2026-04-01", "2026-12-31": "2026-07-01 2026-10-01"} {
		now, _ := time.Parse(time.DateOnly, at)
		from, to := Quarter(now)
		if got := from.Format(time.DateOnly) + " " + to.Format(time.DateOnly); got != want {
			t.Errorf("%s: %s, want %s", at, got, want)
		}
	}
}

// TestVerify: a report verifies as it was signed, and with no other byte.
func TestVerify(t *testing.T) {
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	l, err := ledger.Open(context.Background(), ledger.Options{Dir: t.TempDir(), Origin: "ledger.example/test", Key: key, Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	vkey, err := ledger.VKey("ledger.example/test", key.Public())
	if err != nil {
		t.Fatal(err)
	}
	tally := NewTally(quarter, quarter.AddDate(0, 3, 0))
	raw, err := l.SignNote(Title, tally.report(Public).Format())
	if err != nil {
		t.Fatal(err)
	}
	if r, err := Verify(raw, []string{vkey}); err != nil || r.Audience != Public {
		t.Fatalf("%+v, %v", r, err)
	}
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 1
		if _, err := Verify(bad, []string{vkey}); err == nil {
			t.Fatalf("with another byte %d it verifies", i)
		}
	}
}

// FuzzParse: what is a report is written back byte for byte, and tells no small count.
func FuzzParse(f *testing.F) {
	tally := NewTally(quarter, quarter.AddDate(0, 3, 0))
	for i := range 30 {
		tally.Add(uint64(i), looked(f, quarter.Add(time.Hour), fmt.Sprintf("office-%d", i%3)))
	}
	tally.Add(30, statement(f, "channels.approved", quarter, map[string]any{"added": 0, "removed": 3, "removed_kinds": map[string]int{"union": 2}}, "c"))
	for _, a := range []string{Public, Internal} {
		text := tally.report(a).Format()
		if _, err := Parse(text); err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add("audience public\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Parse(text)
		if err != nil {
			return
		}
		if r.Format() != text {
			t.Errorf("%q is written as %q", text, r.Format())
		}
		for _, fam := range r.Families {
			if fam.Total > 0 && fam.Total < MinCount {
				t.Errorf("%s is told: %d", fam.Name, fam.Total)
			}
		}
	})
}

// BenchmarkTally counts a million statements of ten kinds.
func BenchmarkTally(b *testing.B) {
	kinds := []ledger.Statement{
		looked(b, quarter, "soc"), looked(b, quarter, "forensics"),
		statement(b, "request.served", quarter, map[string]any{"act": "search", "selects": "nobody", "office": "soc", "route": "r", "status": 200}),
		statement(b, "request.served", quarter, map[string]any{"act": "search", "selects": "reverse", "office": "soc", "look": Wide, "route": "r", "status": 200}),
		statement(b, "look.answered", quarter, map[string]any{"look": "l", "rows": 1, "people": 1}, "l"),
		statement(b, "look.reviewed", quarter, map[string]any{"look": "l", "kind": People, "looked": stamp(quarter), "office": "i", "outcome": Justified}, "l"),
		statement(b, "request.refused", quarter, map[string]any{"rule": "people", "route": "r"}),
		statement(b, "authorisation.requested", quarter, map[string]any{"case": "c"}, "a-1"),
		statement(b, "authorisation.decided", quarter, map[string]any{"authorisation": "a-1", "decision": "approve"}, "a-1/1"),
		statement(b, "segment.progress", quarter, map[string]any{"segments": []string{"x"}}, "s"),
	}
	const million = 1_000_000
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		tally := NewTally(quarter, quarter.AddDate(0, 3, 0))
		for i := range million {
			tally.Add(uint64(i), kinds[i%len(kinds)])
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/1024, "kept-KiB")
		if r := tally.report(Internal); r.Family("looks").Total != million/5 {
			b.Fatalf("%d looks", r.Family("looks").Total)
		}
	}
	b.ReportMetric(float64(million*b.N)/b.Elapsed().Seconds(), "statements/s")
}

func TestParseQuestion(t *testing.T) {
	raw, err := json.Marshal(map[string]any{"path": "/p", "query": "q=x", "look": About{Person: "Anna", Named: []string{"t"}}})
	if err != nil {
		t.Fatal(err)
	}
	path, query, a, err := ParseQuestion(raw)
	if err != nil || path != "/p" || query != "q=x" || a.Person != "anna" || len(a.Named) != 1 {
		t.Errorf("%s %s %+v %v", path, query, a, err)
	}
}

// FuzzParseQuestion: any payload is read or refused, within its bounds.
func FuzzParseQuestion(f *testing.F) {
	f.Add([]byte(`{"path":"/p","query":"q","look":{"person":"a","named":["t"]}}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, _, a, err := ParseQuestion(raw)
		if err == nil && len(a.Named) > MaxNamed {
			t.Error("it names too many")
		}
	})
}
