package pipeline

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/counterseal/counterseal/internal/demo"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/ocsf"
)

// BenchmarkWholeWay takes the demo's two days, about 50,000 events of 22 datasets,
// from bytes to sealed evidence, index and findings, with four senders. It reports
//
//	events/s     wall clock
//	events/s/cpu a second of CPU time of the process
//	disk-B/event all of the data directory after a clean close
//	rss-MB       resident memory at the end
//
// and, from stages run apart on the same records, the share of CPU time of each.
func BenchmarkWholeWay(b *testing.B) {
	in := demo.Play(demo.Options{Seed: 1, At: at})
	var all []event.Batch
	raw, frames := 0, 0
	for _, st := range in.Streams {
		if st.Way == "file" {
			continue
		}
		for _, batch := range batches(st) {
			batch.Key = ""
			all = append(all, batch)
			for _, f := range batch.Frames {
				raw += len(f.Bytes)
				frames++
			}
		}
	}
	docs := documents(b, in)
	for b.Loop() {
		dir := b.TempDir()
		cpu := cpuTime()
		began := time.Now()
		s := start(b, Options{Dir: dir, Documents: docs, Memory: 256 << 20})
		send(b, s, all)
		if err := s.Settle(context.Background()); err != nil {
			b.Fatal(err)
		}
		took, used := time.Since(began), cpuTime()-cpu
		n := float64(s.Accepted())
		rss := residentMB()
		b.StopTimer()
		s.stop()
		b.ReportMetric(n/took.Seconds(), "events/s")
		b.ReportMetric(n/used.Seconds(), "events/s/cpu")
		b.ReportMetric(float64(size(b, dir))/n, "disk-B/event")
		b.ReportMetric(float64(size(b, filepath.Join(dir, "evidence", "events")))/n, "events-B/event")
		b.ReportMetric(float64(size(b, filepath.Join(dir, "evidence", "originals")))/n, "originals-B/event")
		b.ReportMetric(float64(size(b, filepath.Join(dir, "index")))/n, "index-B/event")
		b.ReportMetric(float64(raw)/float64(frames), "raw-B/event")
		b.ReportMetric(rss, "rss-MB")
		stages(b, dir, docs, all)
		b.StartTimer()
	}
}

func send(b testing.TB, s *system, all []event.Batch) {
	b.Helper()
	work := make(chan event.Batch)
	var group errgroup.Group
	for range 4 {
		group.Go(func() error {
			for batch := range work {
				if _, err := s.Accept(context.Background(), batch); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for _, batch := range all {
		work <- batch
	}
	close(work)
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
}

// stages runs the parts of the way alone and reports microseconds of CPU an event.
func stages(b *testing.B, dir string, docs Documents, all []event.Batch) {
	b.Helper()
	now := at
	p, err := Open(b.Context(), Options{Tokens: maker(b), Dir: b.TempDir(), Documents: docs, Now: func() time.Time { return now }})
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	measure := func(name string, fn func()) {
		runtime.GC()
		cpu := cpuTime()
		fn()
		b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(n), name+"-µs/event")
	}
	for _, batch := range all {
		n += len(batch.Frames)
	}
	var gated []*work
	measure("door", func() {
		for _, batch := range all {
			w, _, err := p.gate(p.policy, batch)
			if err != nil {
				b.Fatal(err)
			}
			gated = append(gated, w)
		}
	})
	measure("seal", func() {
		for _, w := range gated {
			if _, err := p.keep(b.Context(), p.policy, w, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	gated = nil
	var events []*event.Event
	measure("read", func() {
		for _, comp := range p.evidence.Compartments(evidence.Events) {
			_, err := p.evidence.Read(b.Context(), evidence.Events, comp, evidence.Position{}, func(_ event.Ref, rec []byte) error {
				en, err := event.Decode(append([]byte(nil), rec...))
				if en.Event != nil {
					events = append(events, en.Event)
				}
				return err
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	measure("ocsf", func() {
		for _, e := range events {
			ocsf.View(e)
		}
	})
	measure("detect", func() {
		for _, e := range events {
			p.policy.rules.Judge(e, event.Ref{}, p.policy.sight(e.Source, e.Dataset, now), nil)
		}
	})
	events = nil
	measure("follow", func() { // read, ocsf, detect and index together
		if err := p.Rebuild(b.Context(), nil); err != nil {
			b.Fatal(err)
		}
	})
	if err := p.Close(); err != nil {
		b.Fatal(err)
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func residentMB() float64 {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var total, resident float64
	if _, err := fmt.Sscan(string(data), &total, &resident); err != nil {
		return 0
	}
	return resident * float64(os.Getpagesize()) / (1 << 20)
}

func size(b *testing.B, dir string) int64 {
	b.Helper()
	var n int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return n
}
