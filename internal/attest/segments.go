package attest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/evidence"
)

// ProgressEvery is how often the heads of open segments are stated, where something
// was written: what can be cut off unseen while a segment is open is no longer than
// that.
const ProgressEvery = 10 * time.Second

// closed is the detail of segment.closed.
type closed struct {
	Blocks      string `json:"blocks"` // root of the blocks
	Bytes       int64  `json:"bytes"`
	Compartment string `json:"compartment"`
	Footer      string `json:"footer"`
	Header      string `json:"header"`
	Reason      string `json:"reason"`
	Records     int64  `json:"records"`
	Root        string `json:"root"` // of the records
	Stream      string `json:"stream"`
}

// head is how far one segment is, in the detail of segment.progress.
type head struct {
	Chain   string `json:"chain"`
	Records int64  `json:"records"`
}

type progress struct {
	Segments map[string]head `json:"segments"`
}

// Segments makes the statements about the segments of a store. Opened and Settled go
// into the options of the store; Run states what is on the way until its context ends.
type Segments struct {
	r *Recorder

	one sync.Mutex // one states at a time: Run, and whoever asks Flush

	mu      sync.Mutex
	settled []settled // closed or set aside, not stated yet
	wake    chan struct{}
	stated  map[uuid.UUID]uint64 // records of an open segment at its last progress
}

type settled struct {
	stream      evidence.Stream
	compartment string
	id          uuid.UUID
}

// Segments begins the statements about a store.
func (r *Recorder) Segments() *Segments {
	return &Segments{r: r, wake: make(chan struct{}, 1), stated: make(map[uuid.UUID]uint64)}
}

// Opened states that a segment is about to take records.
func (s *Segments) Opened(in evidence.SegmentInfo) error {
	// The writer of a compartment has no context: its senders wait, and the ledger
	// bounds each addition by itself.
	_, err := s.r.Record(context.Background(), Act{
		Kind: "segment.opened", Actor: System, Subject: []string{in.Segment.String()},
		Detail: map[string]any{"compartment": in.Compartment, "stream": in.Stream.String(), "header": in.HeaderHash, "escrow": in.Escrow},
	})
	return err
}

// Settled remembers that a segment was closed.
func (s *Segments) Settled(stream evidence.Stream, compartment string, id uuid.UUID) {
	s.mu.Lock()
	s.settled = append(s.settled, settled{stream, compartment, id})
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Reconcile states what no statement of the current log says yet of the segments that
// are there: those that were closed when the process died, all of a data directory from
// before there was a ledger, and all when one log has succeeded another, so that they
// are proven by keys and witnesses of today.
func (s *Segments) Reconcile(ctx context.Context, store *evidence.Store) error {
	known := map[string]bool{}
	for _, kind := range []string{"segment.closed", "segment.damaged"} {
		facts, err := s.r.Facts(ctx, kind)
		if err != nil {
			return err
		}
		for _, f := range facts {
			if _, current := s.r.Own(f.Index); current {
				known[f.Key] = true
			}
		}
	}
	var todo []settled
	for _, stream := range []evidence.Stream{evidence.Events, evidence.Originals} {
		for _, c := range store.Compartments(stream) {
			for id, st := range store.States(stream, c) {
				if st != "open" && !known[id.String()] {
					todo = append(todo, settled{stream, c, id})
				}
			}
		}
	}
	slices.SortFunc(todo, func(a, b settled) int { return strings.Compare(a.id.String(), b.id.String()) })
	for _, t := range todo {
		if err := s.state(ctx, store, t); err != nil {
			return err
		}
	}
	return nil
}

// state makes the statement about one segment that is complete.
func (s *Segments) state(ctx context.Context, store *evidence.Store, t settled) error {
	in, ok, err := store.Segment(t.stream, t.compartment, t.id)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("stating segment %s: it is not there", t.id)
	}
	act := Act{Kind: "segment.closed", Actor: System, Subject: []string{t.id.String()}}
	if in.State == "damaged" || in.RecordsRoot == "" {
		act.Kind = "segment.damaged"
		act.Detail = map[string]any{"compartment": in.Compartment, "stream": in.Stream.String(), "reason": "does-not-verify", "header": in.HeaderHash, "records": int64(in.Records)}
	} else {
		act.Detail = closed{
			Blocks: in.BlocksRoot, Bytes: in.Bytes, Compartment: in.Compartment, Footer: in.FooterHash, Header: in.HeaderHash,
			Reason: in.Reason, Records: int64(in.Records), Root: in.RecordsRoot, Stream: in.Stream.String(),
		}
	}
	if _, err := s.r.Record(context.WithoutCancel(ctx), act); err != nil { // once begun it is waited for, or it would be made twice
		return err
	}
	s.mu.Lock()
	delete(s.stated, t.id)
	s.mu.Unlock()
	return nil
}

// Flush states all segments that are complete, and the heads of the open ones that
// have grown.
func (s *Segments) Flush(ctx context.Context, store *evidence.Store) error {
	if err := s.complete(ctx, store); err != nil {
		return err
	}
	return s.progress(ctx, store)
}

func (s *Segments) complete(ctx context.Context, store *evidence.Store) error {
	s.one.Lock()
	defer s.one.Unlock()
	for {
		s.mu.Lock()
		if len(s.settled) == 0 {
			s.mu.Unlock()
			return nil
		}
		t := s.settled[0]
		s.mu.Unlock()
		if err := s.state(ctx, store, t); err != nil {
			return err
		}
		s.mu.Lock()
		s.settled = s.settled[1:]
		s.mu.Unlock()
	}
}

func (s *Segments) progress(ctx context.Context, store *evidence.Store) error {
	s.one.Lock()
	defer s.one.Unlock()
	heads := store.Heads()
	for part := range slices.Chunk(heads, maxHeads) {
		p := progress{Segments: map[string]head{}}
		var ids []string
		s.mu.Lock()
		for _, h := range part {
			if h.Records > s.stated[h.Segment] {
				p.Segments[h.Segment.String()] = head{Chain: h.Chain, Records: int64(h.Records)}
				ids = append(ids, h.Segment.String())
			}
		}
		s.mu.Unlock()
		if len(ids) == 0 {
			continue
		}
		if _, err := s.r.Record(context.WithoutCancel(ctx), Act{Kind: "segment.progress", Actor: System, Subject: ids, Detail: p}); err != nil {
			return err
		}
		s.mu.Lock()
		for _, h := range part {
			if h.Records > s.stated[h.Segment] {
				s.stated[h.Segment] = h.Records
			}
		}
		s.mu.Unlock()
	}
	return nil
}

// maxHeads bounds the segments of one statement, whose leaf has a bound.
const maxHeads = 100

// Run states complete segments at once and heads every ProgressEvery, until the
// context ends. What fails is tried again.
func (s *Segments) Run(ctx context.Context, store *evidence.Store) {
	tick := time.NewTicker(ProgressEvery)
	defer tick.Stop()
	for {
		todo := s.complete
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-tick.C:
			todo = s.Flush
		}
		if err := todo(ctx, store); err != nil && ctx.Err() == nil {
			s.r.log.Error("segments could not be stated; tried again", "err", err)
		}
	}
}
