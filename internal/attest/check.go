package attest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/state"
)

// Problem is a place where evidence, state and ledger disagree.
type Problem struct {
	Object string // a segment, as stream/compartment/id, or the state file
	Index  int64  // of the statement, or -1
	What   string
}

func (p Problem) String() string {
	if p.Index < 0 {
		return p.Object + ": " + p.What
	}
	return fmt.Sprintf("%s: %s (statement %d)", p.Object, p.What, p.Index)
}

// Known is how far each segment was by its last progress statement: for
// evidence.VerifyOptions. The ledger must be read before evidence, which only grows.
func (f *Folded) Known() (map[uuid.UUID]evidence.Head, []Problem) {
	known := map[uuid.UUID]evidence.Head{}
	var bad []Problem
	for key, fact := range f.Facts {
		if key[0] != "segment.progress" {
			continue
		}
		var p progress
		id, err := uuid.Parse(key[1])
		if err == nil {
			err = decode(fact, &p)
		}
		h, ok := p.Segments[key[1]]
		if err != nil || !ok || h.Records < 0 {
			bad = append(bad, Problem{key[1], int64(fact.Index), "the statement about its progress cannot be read"})
			continue
		}
		known[id] = evidence.Head{Segment: id, Records: uint64(h.Records), Chain: h.Chain}
	}
	return known, bad
}

// unknown tells whether there is a segment with records that no statement names.
func (f *Folded) unknown(segments []evidence.SegmentReport) bool {
	for i := range segments {
		id := segments[i].Segment.String()
		named := segments[i].Records == 0
		for _, kind := range []string{"segment.opened", "segment.closed", "segment.damaged"} {
			_, ok := f.Fact(kind, id)
			named = named || ok
		}
		if !named {
			return true
		}
	}
	return false
}

// Segments holds the segments of a verified data directory against the ledger: every
// segment that a statement names must be there as it is named, every one that is there
// must be named, and a key card may be gone only where its destruction was stated.
// since is a fold of later, which knows of segments begun meanwhile.
func (f *Folded) Segments(segments []evidence.SegmentReport, since *Folded) []Problem {
	var bad []Problem
	there := map[string]bool{}
	for i := range segments {
		s := &segments[i]
		id := s.Segment.String()
		there[id] = true
		object := fmt.Sprintf("%s/%s/%s", s.Stream, s.Compartment, id)
		opened, isOpened := f.Fact("segment.opened", id)
		done, isClosed := f.Fact("segment.closed", id)
		_, isDamaged := f.Fact("segment.damaged", id)
		if !isOpened && !isClosed && !isDamaged {
			if _, ok := since.Fact("segment.opened", id); ok || s.Records == 0 {
				continue
			}
			bad = append(bad, Problem{object, -1, "no statement knows this segment: it was put in"})
			continue
		}
		if isOpened {
			var d struct{ Compartment, Stream, Header string }
			switch err := decode(opened, &d); {
			case err != nil:
				bad = append(bad, Problem{object, int64(opened.Index), "the statement about its opening cannot be read"})
			case d.Compartment != s.Compartment || d.Stream != s.Stream.String():
				bad = append(bad, Problem{object, int64(opened.Index), "it was opened as " + d.Stream + "/" + d.Compartment})
			case s.HeaderHash != "" && d.Header != s.HeaderHash:
				bad = append(bad, Problem{object, int64(opened.Index), "it has another header than the one that was opened"})
			}
		}
		if isClosed {
			if what := compareClosed(done, s); what != "" {
				bad = append(bad, Problem{object, int64(done.Index), what})
			}
		}
		if gone, ok := f.Fact("destruction.done", id); ok {
			if hold := f.heldAt(gone.Index, s); hold != "" {
				bad = append(bad, Problem{object, int64(gone.Index), "it was destroyed while hold " + hold + " was in force"})
			}
		}
		if !s.HasKey && s.State != "" {
			_, gone := f.Fact("destruction.done", id)
			if !gone && !f.going(id) && (s.Records > 0 || isClosed) {
				bad = append(bad, Problem{object, -1, "its key card is gone and no statement says that it was destroyed"})
			}
		} else if s.HasKey {
			if gone, ok := f.Fact("destruction.done", id); ok {
				bad = append(bad, Problem{object, int64(gone.Index), "its key card is there again after it was destroyed"})
			}
		}
	}
	for _, kind := range []string{"segment.opened", "segment.closed", "segment.damaged"} {
		for key, fact := range f.Facts {
			if key[0] == kind && !there[key[1]] {
				there[key[1]] = true // said once
				var d struct{ Compartment, Stream string }
				object := key[1]
				if decode(fact, &d) == nil {
					object = d.Stream + "/" + d.Compartment + "/" + key[1]
				}
				bad = append(bad, Problem{object, int64(fact.Index), "the ledger knows this segment and it is not there: it was taken away"})
			}
		}
	}
	slices.SortFunc(bad, func(a, b Problem) int {
		if c := strings.Compare(a.Object, b.Object); c != 0 {
			return c
		}
		return strings.Compare(a.What, b.What)
	})
	return bad
}

// going tells that the destruction of a segment was announced, left for its grace, and
// may have been cut off before it was stated. Placing a hold states first what was begun,
// so behind a statement about a hold an announcement excuses nothing.
func (f *Folded) going(id string) bool {
	fact, ok := f.Fact("destruction.intended", id)
	if !ok {
		return false
	}
	var d struct{ After time.Time }
	if decode(fact, &d) != nil || d.After.After(time.Now()) {
		return false
	}
	for key, hold := range f.Facts {
		if (key[0] == "hold.placed" || key[0] == "hold.released") && hold.Index > fact.Index {
			return false
		}
	}
	return true
}

// Destroyed is a segment whose key was destroyed, as the ledger has it.
type Destroyed struct {
	Object string // stream/compartment/id
	Rule   string
	At     time.Time
	Index  uint64 // of the statement
}

func (d Destroyed) String() string {
	return fmt.Sprintf("%s: destroyed under %s at %s (statement %d)", d.Object, d.Rule, d.At.UTC().Format(time.RFC3339), d.Index)
}

// Destroyed lists the segments that lie there without a key, by statement.
func (f *Folded) Destroyed(segments []evidence.SegmentReport) []Destroyed {
	var out []Destroyed
	for i := range segments {
		s := &segments[i]
		fact, ok := f.Fact("destruction.done", s.Segment.String())
		if !ok || s.HasKey {
			continue
		}
		var d struct{ Rule string }
		if decode(fact, &d) != nil {
			d.Rule = "a rule that cannot be read"
		}
		out = append(out, Destroyed{fmt.Sprintf("%s/%s/%s", s.Stream, s.Compartment, s.Segment), d.Rule, fact.Time, fact.Index})
	}
	return out
}

func compareClosed(fact state.Fact, s *evidence.SegmentReport) string {
	var d closed
	switch err := decode(fact, &d); {
	case err != nil:
		return "the statement about its end cannot be read"
	case s.State == "open":
		return "it was closed and is open again"
	case s.State == "damaged":
		return "it was closed and is damaged"
	case d.Compartment != s.Compartment || d.Stream != s.Stream.String():
		return "it was closed as " + d.Stream + "/" + d.Compartment
	case d.Header != s.HeaderHash:
		return "its header is not the one that was stated"
	case uint64(d.Records) != s.Records:
		return fmt.Sprintf("it holds %d records and %d were stated", s.Records, d.Records)
	case d.Root != s.RecordsRoot || d.Blocks != s.BlocksRoot:
		return "its records are not those that were stated"
	}
	return ""
}

// State compares what a state file says with the fold. told is up to where the file
// has read the ledger; a file that is behind is compared up to there.
func (f *Folded) State(told uint64, facts []state.Fact) []Problem {
	var bad []Problem
	for _, what := range f.compare(told, facts) {
		bad = append(bad, Problem{"state/state.db", -1, what})
	}
	return bad
}
