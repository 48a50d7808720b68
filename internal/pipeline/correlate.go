package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/detect"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
)

// stories are the correlations of one event stream. Live sources share one
// correlator, so that an act seen by two of them is one; an import has one of its
// own, since its time is another, and closes it at the end of its files. Everything
// here is decided by records of the stream and by no clock: a replay closes the
// same windows at the same places. Other rules begin with empty windows.
type stories struct {
	rules   *detect.RuleSet
	live    *detect.Correlator
	imports map[string]*detect.Correlator // by source
	sources map[string]sourceClock
	latest  int64 // latest receipt, Unix nanoseconds
	mark    time.Time
}

// sourceClock is how far a live source has come.
type sourceClock struct {
	Until    time.Time `json:"until"`
	Received int64     `json:"received"`
}

const (
	// quiet is how long, by receipts of the stream, a live source may send nothing
	// before the others no longer wait for it.
	quiet = 30 * time.Minute

	endOfImport = "import-end"
	wayImport   = "import"
)

// forever is later than any window.
var forever = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)

// newStories returns nil for a rule set without correlations.
func newStories(r *detect.RuleSet) *stories {
	c := r.NewCorrelator()
	if c == nil {
		return nil
	}
	return &stories{rules: r, live: c, imports: make(map[string]*detect.Correlator), sources: make(map[string]sourceClock)}
}

// of gives the correlator for an event.
func (s *stories) of(e *event.Event) *detect.Correlator {
	if s == nil {
		return nil
	}
	s.latest = max(s.latest, e.Received)
	if e.Way != wayImport {
		c := s.sources[e.Source]
		c.Received = max(c.Received, e.Received)
		s.sources[e.Source] = c
		return s.live
	}
	c := s.imports[e.Source]
	if c == nil {
		c = s.rules.NewCorrelator()
		s.imports[e.Source] = c
	}
	return c
}

// watermark closes windows as far as a record of the stream allows.
func (s *stories) watermark(w *event.Watermark) []event.Finding {
	if s == nil {
		return nil
	}
	if w.Reason == endOfImport {
		c := s.imports[w.Source]
		if c == nil {
			return nil
		}
		delete(s.imports, w.Source)
		return c.Advance(forever)
	}
	c := s.sources[w.Source]
	if w.Until.After(c.Until) {
		c.Until = w.Until
		s.sources[w.Source] = c
	}
	var until time.Time
	for _, c := range s.sources {
		if s.latest-c.Received > int64(quiet) {
			continue
		}
		if until.IsZero() || c.Until.Before(until) {
			until = c.Until
		}
	}
	if !until.After(s.mark) {
		return nil
	}
	s.mark = until
	return s.live.Advance(until)
}

// savedStories is the stored form, part of the state.
type savedStories struct {
	Live    json.RawMessage            `json:"live"`
	Imports map[string]json.RawMessage `json:"imports"`
	Sources map[string]sourceClock     `json:"sources"`
	Latest  int64                      `json:"latest"`
	Mark    time.Time                  `json:"mark"`
}

func (s *stories) save() ([]byte, error) {
	live, err := s.live.Save()
	if err != nil {
		return nil, err
	}
	out := savedStories{Live: live, Imports: make(map[string]json.RawMessage), Sources: s.sources, Latest: s.latest, Mark: s.mark}
	for _, source := range slices.Sorted(maps.Keys(s.imports)) {
		if out.Imports[source], err = s.imports[source].Save(); err != nil {
			return nil, err
		}
	}
	return json.Marshal(out)
}

func loadStories(r *detect.RuleSet, b []byte) (*stories, error) {
	var in savedStories
	if err := json.Unmarshal(b, &in); err != nil {
		return nil, fmt.Errorf("reading correlations: %w", err)
	}
	s := newStories(r)
	if s == nil {
		return nil, fmt.Errorf("the rule set has no correlations")
	}
	var err error
	if s.live, err = r.LoadCorrelator(in.Live); err != nil {
		return nil, err
	}
	for source, b := range in.Imports {
		if s.imports[source], err = r.LoadCorrelator(b); err != nil {
			return nil, err
		}
	}
	s.latest, s.mark = in.Latest, in.Mark
	if in.Sources != nil {
		s.sources = in.Sources
	}
	return s, nil
}

// enforce puts a context's rules and assessments in force. Windows of a rule set
// end with it.
func (f *follower) enforce(s *past) {
	if f.past == nil || f.past.rules.Digest() != s.rules.Digest() {
		f.stories = newStories(s.rules)
	}
	f.past = s
}

// warm brings the correlations to where the follower stands: from the newest saved
// state that is not ahead of it, or else from the beginning of the stream. What they
// tell on the way is in the index already.
func (f *follower) warm(ctx context.Context) error {
	if f.stories == nil || f.place.at == (evidence.Position{}) {
		return nil
	}
	saved, err := f.p.state.Correlations(ctx, f.compartment)
	if err != nil {
		return err
	}
	current := f.past
	from := place{}
	f.past, f.stories = nil, nil
	for _, s := range saved { // newest first
		at, err := parsePlace(s.Position)
		if err != nil || before(f.place.at, at.at) || at.context == "" {
			continue
		}
		past, err := f.p.recallDigest(at.context)
		if err != nil {
			return err
		}
		loaded, err := loadStories(past.rules, s.Data)
		if err != nil {
			f.p.log.Warn("a saved state of correlations cannot be used; an older one is", "err", err)
			continue
		}
		from, f.past, f.stories = at, past, loaded
		break
	}
	_, err = f.p.readOn(ctx, f.compartment, from.at, func(ref event.Ref, rec []byte) error {
		if !before(evidence.Position{Segment: ref.Segment, Ordinal: ref.Ordinal}, f.place.at) {
			return evidence.ErrStop
		}
		en, err := event.Decode(rec)
		if err != nil {
			return fmt.Errorf("record %s: %w", ref, err)
		}
		if en.Event != nil && f.past == nil {
			if _, err := f.begin(ctx, ref); err != nil {
				return err
			}
		}
		switch {
		case en.Event != nil && f.past != nil:
			f.past.rules.Judge(en.Event, ref, f.past.sight(en.Event), f.stories.of(en.Event))
		case en.Watermark != nil:
			f.stories.watermark(en.Watermark)
		case en.Context != nil:
			s, err := f.p.recall(en.Context)
			if err != nil {
				return fmt.Errorf("record %s: %w", ref, err)
			}
			f.enforce(s)
		}
		return nil
	})
	f.enforce(current)
	return err
}

// saveEvery is how often the correlations are saved. The state is read again from
// there after a crash.
const saveEvery = 5 * time.Second

// saveStories writes the correlations beside the position that they have read to.
func (f *follower) saveStories(ctx context.Context, always bool) error {
	if f.stories == nil || !always && time.Since(f.saved) < saveEvery {
		return nil
	}
	f.saved = time.Now()
	data, err := f.stories.save()
	if err != nil {
		return err
	}
	return f.p.state.SaveCorrelations(ctx, f.compartment, f.place.String(), data)
}

// recallDigest compiles what a context, named by digest, had in force.
func (p *Pipeline) recallDigest(digest string) (*past, error) {
	doc, err := p.blobs.get(digest)
	if err != nil {
		return nil, err
	}
	c, err := decodeContext(doc)
	if err != nil {
		return nil, err
	}
	return p.recall(c)
}

// Retro asks other rules about what is sealed: every event whose time lies between
// from and to, with the assessments that were in force, and windows closed where
// they were closed live. It calls fn for each finding that stands at the end,
// oldest first. The same rules live give the same finding ids.
func (p *Pipeline) Retro(ctx context.Context, rules *detect.RuleSet, from, to time.Time, fn func(event.Finding) error) error {
	last := make(map[string]event.Finding)
	note := func(found []event.Finding) {
		for _, f := range found {
			if have, ok := last[f.ID]; !ok || f.Rev >= have.Rev {
				last[f.ID] = f
			}
		}
	}
	for _, comp := range p.evidence.Compartments(evidence.Events) {
		told := newStories(rules)
		var in *past
		var begun uuid.UUID // segment in which a context was looked for
		_, err := p.readOn(ctx, comp, evidence.Position{}, func(ref event.Ref, rec []byte) error {
			en, err := event.Decode(rec)
			if err != nil {
				return fmt.Errorf("record %s: %w", ref, err)
			}
			if en.Event != nil && in == nil && begun != ref.Segment {
				begun = ref.Segment
				c, err := p.contextOf(ctx, ref)
				if err == nil && c != nil {
					in, err = p.recall(c)
				}
				if err != nil {
					return fmt.Errorf("the context of segment %s: %w", ref.Segment, err)
				}
			}
			switch {
			case en.Event != nil && in != nil:
				if at := en.Event.At(); !from.IsZero() && at.Before(from) || !to.IsZero() && at.After(to) {
					return nil
				}
				note(rules.Judge(en.Event, ref, in.sight(en.Event), told.of(en.Event)))
			case en.Watermark != nil:
				note(told.watermark(en.Watermark))
			case en.Context != nil:
				if in, err = p.recall(en.Context); err != nil {
					return fmt.Errorf("record %s: %w", ref, err)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	all := slices.Collect(maps.Values(last))
	slices.SortFunc(all, func(a, b event.Finding) int {
		if c := a.From.Compare(b.From); c != 0 {
			return c
		}
		return compareText(a.ID, b.ID)
	})
	for _, f := range all {
		if f.State == event.Withdrawn {
			continue
		}
		if err := fn(f); err != nil {
			return err
		}
	}
	return nil
}
