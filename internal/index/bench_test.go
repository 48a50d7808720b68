package index

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// fill adds n rows of a common shape over a day, 200 people.
func fill(tb testing.TB, x *Index, n int) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for start := 0; start < n; start += 5000 {
		rows := make([]Row, min(5000, n-start))
		for i := range rows {
			r := row(start + i)
			r.Time = day0.Add(time.Duration(start+i) * 800 * time.Millisecond).UnixNano()
			uid := fmt.Sprintf("p1_%026d", rnd.IntN(200))
			path := fmt.Sprintf(`C:\Program Files\App%d\bin\tool%d.exe`, rnd.IntN(50), rnd.IntN(20))
			r.OCSF = []Attr{{"class_uid", "1007"}, {"user.uid", uid}, {"device.hostname", fmt.Sprintf("HOST%02d", rnd.IntN(40))}, {"process.file.path", path}, {"severity_id", "1"}}
			r.Native = []Attr{{"EventID", "4688"}, {"NewProcessName", path}, {"SubjectUserSid", uid}, {"ProcessId", fmt.Sprintf("0x%x", rnd.IntN(1<<16))}, {"CommandLine", fmt.Sprintf("tool.exe --job %x --run", rnd.Uint64())}}
			rows[i] = r
		}
		if _, err := x.Append(tb.Context(), rows); err != nil {
			tb.Fatal(err)
		}
	}
	if err := x.Flush(); err != nil {
		tb.Fatal(err)
	}
}

// A token among 100,000 rows is found in less than 50 ms: first rows and all rows.
func TestSearchLatency(t *testing.T) {
	x := open(t, Options{})
	fill(t, x, 100_000)
	needle := row(77_777)
	needle.OCSF = []Attr{{"user.uid", "p1_needleneedleneedleneedle"}}
	add(t, x, needle)
	for name, c := range map[string]struct {
		q    string
		rows int
	}{
		"one row":    {"user.uid = p1_needleneedleneedleneedle", 1},
		"first rows": {"user.uid = p1_00000000000000000000000017 | limit 50", 50},
	} {
		var took []time.Duration
		for range 9 {
			start := time.Now()
			if got := find(t, x, c.q, Scope{}, 0); len(got) != c.rows {
				t.Fatalf("%s: %d rows", name, len(got))
			}
			took = append(took, time.Since(start))
		}
		slices.Sort(took)
		t.Logf("%s: median %v, slowest %v", name, took[4], took[8])
		// The best of several: other work on the machine is not our latency.
		if took[0] > 50*time.Millisecond && !raceEnabled {
			t.Errorf("%s: %v at best", name, took[0])
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	for b.Loop() {
		x, err := Open(Options{Dir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		fill(b, x, 20_000)
		b.StopTimer()
		x.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(20_000*b.N)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkSearch(b *testing.B) {
	x, err := Open(Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer x.Close()
	fill(b, x, 200_000)
	for _, q := range []string{"user.uid = p1_00000000000000000000000017 | limit 50", "user.uid = p1_nobody", `"tool7.exe" | limit 50`, `process.file.path : *\\tool7.exe | limit 50`} {
		b.Run(q, func(b *testing.B) {
			pq := ask(b, q)
			for b.Loop() {
				if err := x.Query(b.Context(), pq, Scope{}, 0, func(Row) bool { return true }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	for _, q := range []string{"* | stats count(), count_uniq(user.uid) as people by device.hostname, bin(1h)", "* | top 10 by process.file.path"} {
		b.Run(q, func(b *testing.B) {
			pq := ask(b, q)
			for b.Loop() {
				if _, err := x.Stats(b.Context(), pq, Scope{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
