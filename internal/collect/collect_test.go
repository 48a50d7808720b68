package collect

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/event"
)

// evidence stands for the pipeline: it keeps batches, knows keys, and answers no
// where a test says so.
type evidence struct {
	mu      sync.Mutex
	batches []event.Batch
	keys    map[string][32]byte
	answers map[string]event.Result
	before  func(b *event.Batch) error // may block or refuse
	gaps    []event.Gap
	n       int
}

func (e *evidence) sink(ctx context.Context, b event.Batch) (event.Result, error) {
	if e.before != nil {
		if err := e.before(&b); err != nil {
			return event.Result{}, err
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	kept := b.Frames[:0:0]
	for _, f := range b.Frames { // as the pipeline does
		if f.Refused == nil {
			kept = append(kept, f)
			continue
		}
		b.Errors = append(b.Errors[:len(b.Errors):len(b.Errors)], event.LineError{Line: f.Line, Code: f.Refused.Code, Reason: f.Refused.Reason})
	}
	b.Frames = kept
	h := sha256.New()
	for _, f := range b.Frames {
		fmt.Fprintf(h, "%d:", len(f.Bytes))
		h.Write(f.Bytes)
	}
	body := [32]byte(h.Sum(nil))
	if b.Key != "" {
		key := b.Source + "\x00" + b.Key
		if have, ok := e.keys[key]; ok {
			if have != body {
				return event.Result{}, &event.Refusal{Code: "key_reused", Reason: "another body had this key"}
			}
			r := e.answers[key]
			r.Repeated = true
			return r, nil
		}
		if e.keys == nil {
			e.keys, e.answers = map[string][32]byte{}, map[string]event.Result{}
		}
		e.keys[key] = body
	}
	r := event.Result{Accepted: len(b.Frames), Errors: b.Errors}
	if len(b.Frames) > 0 {
		r.First, r.Last = fmt.Sprintf("c/s/%d", e.n), fmt.Sprintf("c/s/%d", e.n+len(b.Frames)-1)
	}
	e.n += len(b.Frames)
	if b.Key != "" {
		e.answers[b.Source+"\x00"+b.Key] = r
	}
	e.batches = append(e.batches, b)
	return r, nil
}

func (e *evidence) gap(g event.Gap) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.gaps = append(e.gaps, g)
}

func (e *evidence) gapsNow() []event.Gap {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]event.Gap(nil), e.gaps...)
}

// lines returns all frames kept, in order.
func (e *evidence) lines() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []string
	for _, b := range e.batches {
		for _, f := range b.Frames {
			out = append(out, string(f.Bytes))
		}
	}
	return out
}

func (e *evidence) errors() []event.LineError {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []event.LineError
	for _, b := range e.batches {
		out = append(out, b.Errors...)
	}
	return out
}

// until waits for a condition that another goroutine makes true.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never saw: %s", what)
}

// running runs a listener until the test ends and checks that it ends.
func running(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("Run: %v", err)
				}
			case <-time.After(10 * time.Second):
				t.Error("Run does not end")
			}
		})
	}
	t.Cleanup(stop)
	return stop
}
