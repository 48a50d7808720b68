package report

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
)

// bytesRead is what this process has read by system calls, where the system tells.
func bytesRead(b *testing.B) (int64, bool) {
	data, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0, false
	}
	_, rest, _ := bytes.Cut(data, []byte("rchar: "))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	n, err := strconv.ParseInt(string(line), 10, 64)
	return n, err == nil
}

// BenchmarkProve proves single records, from the leaf to the witnessed checkpoint, out
// of segments of 1,048,576 records each: one, or as many as COUNTERSEAL_BENCH_SEGMENTS
// says. Ten are ten million records; the goal is 10 ms and 150 KiB read.
func BenchmarkProve(b *testing.B) {
	segments := 1
	if s := os.Getenv("COUNTERSEAL_BENCH_SEGMENTS"); s != "" {
		var err error
		if segments, err = strconv.Atoi(s); err != nil {
			b.Fatal(err)
		}
	}
	h := newHouse(b)
	ctx := context.Background()
	const each = 1 << 20
	recs := make([][]byte, each/64)
	var firsts []event.Ref
	for range segments {
		for part := range 64 {
			for i := range recs {
				recs[i] = h.event("idp", h.now, event.Ref{}, "n", strconv.Itoa(part*len(recs)+i))
			}
			ref := h.put(b, "identity", recs...)
			if part == 0 {
				firsts = append(firsts, ref)
			} else if ref.Segment != firsts[len(firsts)-1].Segment {
				b.Fatal("a segment of fewer records")
			}
		}
		fatal(b, h.Settle(ctx))
		for range 300 { // of other statements between those about segments
			h.other(b)
		}
	}
	h.pack(b, func(r *Request) { r.Scope.Query, r.Scope.Refs = "n = 0", firsts[:1] }) // everything is witnessed
	rng := rand.New(rand.NewPCG(1, 1))
	var took []time.Duration
	before, told := bytesRead(b)
	b.ResetTimer()
	for range b.N {
		ref := firsts[rng.IntN(len(firsts))].Next(uint64(rng.IntN(each)))
		began := time.Now()
		p, _, err := h.Prove(ctx, evidence.Events, ref, false)
		took = append(took, time.Since(began))
		fatal(b, err)
		if len(p) == 0 {
			b.Fatal("no proof")
		}
	}
	b.StopTimer()
	if after, ok := bytesRead(b); ok && told {
		b.ReportMetric(float64(after-before)/float64(b.N)/1024, "KiB-read/op")
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(segments*each), "records")
}
