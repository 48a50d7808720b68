package oversight

import (
	"context"
	"crypto/ed25519"
	"flag"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/counterseal/counterseal/internal/ledger"
)

var benchStatements = flag.Int("statements", 50_000, "size of the ledger of BenchmarkReport")

// BenchmarkReport counts a ledger on the disk, one look in three statements of which each
// has an id of its own.
func BenchmarkReport(b *testing.B) {
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	l, err := ledger.Open(context.Background(), ledger.Options{Dir: b.TempDir(), Origin: "ledger.example/bench", Key: key, Node: "n1"})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	n := *benchStatements
	var wg sync.WaitGroup
	const writers = 1024
	for w := range writers {
		wg.Go(func() {
			for i := w; i < n; i += writers {
				id := fmt.Sprintf("look-%d", i)
				s := looked(b, quarter, fmt.Sprintf("office-%d", i%7))
				switch i % 3 {
				case 1:
					s = statement(b, "look.answered", quarter, map[string]any{"look": id, "rows": 10, "people": 1})
				case 2:
					s = statement(b, "look.reviewed", quarter, map[string]any{"look": id, "kind": People, "looked": stamp(quarter), "office": "inspector", "outcome": Justified})
				}
				s.Subject = []string{id}
				if _, err := l.Add(context.Background(), s); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		tally := NewTally(quarter, quarter.AddDate(0, 3, 0))
		if _, err := l.Each(context.Background(), 0, func(i uint64, s ledger.Statement, _ []byte) error {
			tally.Add(i, s)
			return nil
		}); err != nil {
			b.Fatal(err)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/1024, "kept-KiB")
		if f := tally.report(Internal).Family("looks"); f.Total != int64((n+2)/3) {
			b.Fatalf("%d looks", f.Total)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "statements/s")
}
