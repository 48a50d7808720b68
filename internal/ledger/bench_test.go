package ledger

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

func report(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1e3, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1e3, "p99-ms")
}

// BenchmarkWitnessed is the time from a statement to a checkpoint that a witness
// over HTTP has cosigned and we have verified. The goal is 300 ms.
func BenchmarkWitnessed(b *testing.B) {
	w, srv := testWitness(b, filepath.Join(b.TempDir(), "w"))
	l := testOpen(b, withWitness(b, b.TempDir(), Witness{VKey: w.VKey(), URL: srv.URL}))
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		if _, err := l.AddWitnessed(context.Background(), testStatement(b, "x")); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	report(b, took)
}

// BenchmarkAdd is a routine statement, from one writer and from many.
func BenchmarkAdd(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			l := testOpen(b, testOptions(b.TempDir()))
			took := make([][]time.Duration, writers)
			var wg sync.WaitGroup
			b.ResetTimer()
			for w := range writers {
				wg.Go(func() {
					for i := w; i < b.N; i += writers {
						start := time.Now()
						if _, err := l.Add(context.Background(), testStatement(b, "x")); err != nil {
							b.Error(err)
						}
						took[w] = append(took[w], time.Since(start))
					}
				})
			}
			wg.Wait()
			report(b, slices.Concat(took...))
		})
	}
}

// BenchmarkProve makes and verifies a proof.
func BenchmarkProve(b *testing.B) {
	l := testOpen(b, testOptions(b.TempDir()))
	var wg sync.WaitGroup
	for range 2000 {
		wg.Go(func() { testAdd(b, l, "x") })
	}
	wg.Wait()
	var o opened
	for o.size < 2000 {
		time.Sleep(20 * time.Millisecond)
		o, _ = l.published()
	}
	leaf, err := l.files.entry(2000, 777)
	if err != nil {
		b.Fatal(err)
	}
	v := Verifiers{Log: []string{testVKey(b, 1)}}
	b.ResetTimer()
	for b.Loop() {
		p, err := l.Prove(context.Background(), 777)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := VerifyProof(leaf, p, v); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerify is VerifyDir by bytes of statements.
func BenchmarkVerify(b *testing.B) {
	l := testOpen(b, testOptions(b.TempDir()))
	var wg sync.WaitGroup
	for range 5000 {
		wg.Go(func() { testAdd(b, l, "x") })
	}
	wg.Wait()
	l.Close()
	v := Verifiers{Log: []string{testVKey(b, 1)}}
	var bytes, n uint64
	for b.Loop() {
		r, err := VerifyDir(context.Background(), l.o.Dir, v)
		if err != nil || !r.OK() {
			b.Fatal(r, err)
		}
		bytes, n = uint64(r.Bytes), r.Size
	}
	b.SetBytes(int64(bytes))
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "statements/s")
}

var _ tlog.HashReader = (*history)(nil)
