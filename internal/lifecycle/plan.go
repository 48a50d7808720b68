package lifecycle

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/state"
)

// State is where something stands on its way out.
type State string

// The states, in the order in which they come.
const (
	NoRule      State = "no-rule"     // no assessment has ever said how long
	Kept        State = "kept"        // its time is not over
	Held        State = "held"        // a hold keeps it
	Due         State = "due"         // its time is over: the next pass announces it
	Announced   State = "announced"   // the grace runs
	Unwitnessed State = "unwitnessed" // no witness has seen the announcement, or none says that it is time
	Busy        State = "busy"        // it is being written or read into the index
	Ready       State = "ready"       // the next pass destroys it
	Destroyed   State = "destroyed"
)

// world is everything that decides, at one moment.
type world struct {
	now     time.Time
	grace   time.Duration
	units   []*unit
	open    map[weekKey]bool
	ruled   map[chain][]promise
	holds   []Hold
	intents map[string]intent
	done    map[string]state.Fact
	seen    uint64    // statements that enough witnesses have cosigned
	seenAt  time.Time // when, by their clock
	past    func(*segment) bool
}

// intent is the newest announcement about a segment.
type intent struct {
	index uint64
	at    time.Time // when it was made
	after time.Time
	rule  string
}

type intentDetail struct {
	After string `json:"after"`
	Rule  string `json:"rule"`
}

// verdict is what is to be done with a unit.
type verdict struct {
	state  State
	rule   rule
	ruled  bool
	due    time.Time // zero without a rule
	after  time.Time // of the announcement
	holds  []string  // that keep it, and may be told
	inside bool      // a hold of an inspector's office keeps it
	todo   []*segment
	silent []*segment // of todo: not announced yet
}

// judge decides about a unit, by nothing but the world.
func (w *world) judge(u *unit) verdict {
	var v verdict
	for _, s := range u.segments {
		if _, gone := w.done[s.Segment.String()]; !gone {
			v.todo = append(v.todo, s)
		}
	}
	if v.rule, v.ruled = ruleFor(chain{u.stream, u.compartment}, w.ruled[chain{u.stream, u.compartment}], u.week, w.grace); v.ruled {
		v.due = v.rule.due(u.week)
	}
	if len(v.todo) == 0 {
		v.state = Destroyed
		return v
	}
	changed := uint64(0) // the newest statement about a hold over it: an older announcement is void
	for i := range w.holds {
		h := &w.holds[i]
		for _, s := range v.todo {
			if h.covers(s) {
				changed = max(changed, h.changed)
				switch {
				case !h.InForce():
				case h.Inspector:
					v.inside = true
				default:
					v.holds = append(v.holds, h.ID)
				}
				break
			}
		}
	}
	switch {
	case len(v.holds) > 0 || v.inside:
		v.state = Held
		return v
	case !v.ruled:
		v.state = NoRule
		return v
	case w.now.Before(v.due):
		v.state = Kept
		return v
	}
	seen := true
	for _, s := range v.todo {
		it, ok := w.intents[s.Segment.String()]
		// An announcement counts for the rule that it names, when it was made after the
		// time was over and after the last word about a hold: the clock resumes there.
		if !ok || it.rule != v.rule.text || it.at.Before(v.due) || it.index <= changed && changed > 0 {
			v.silent = append(v.silent, s)
			continue
		}
		if it.after.After(v.after) {
			v.after = it.after
		}
		seen = seen && it.index < w.seen
	}
	switch {
	case len(v.silent) > 0:
		v.state = Due
	case w.now.Before(v.after):
		v.state = Announced
	case !seen || w.seenAt.Add(skew).Before(v.after): // a clock of ours that runs ahead destroys nothing
		v.state = Unwitnessed
	case w.open[weekKey{u.stream, u.compartment, u.week.Name}] || w.behind(v.todo):
		v.state = Busy
	default:
		v.state = Ready
	}
	return v
}

// skew is how far the clocks of witnesses may be behind ours.
const skew = 5 * time.Minute

func (w *world) behind(todo []*segment) bool {
	if w.past == nil {
		return false
	}
	for _, s := range todo {
		if s.Stream == evidence.Events && !w.past(s) {
			return true
		}
	}
	return false
}

// world reads what decides now.
func (l *Lifecycle) world(ctx context.Context, ruled map[chain][]promise) (*world, error) {
	w := &world{grace: l.o.Grace, ruled: ruled}
	var err error
	if w.units, w.open, err = l.units(); err != nil {
		return nil, err
	}
	sortUnits(w.units)
	if l.o.Past != nil {
		w.past = func(s *segment) bool {
			return l.o.Past(s.Compartment, evidence.Position{Segment: s.Segment, Ordinal: s.Records})
		}
	}
	return w, l.words(ctx, w)
}

// words reads what was stated until now: announcements, destructions, holds.
func (l *Lifecycle) words(ctx context.Context, w *world) error {
	w.now = l.now()
	var err error
	if w.holds, err = l.Holds(ctx); err != nil {
		return err
	}
	w.seen, w.seenAt = l.o.Ledger.Witnessed()
	intents, err := l.o.Statements.Facts(ctx, "destruction.intended")
	if err != nil {
		return err
	}
	w.intents = make(map[string]intent, len(intents))
	for _, f := range intents {
		var d intentDetail
		if err := json.Unmarshal(f.Detail, &d); err != nil {
			return fmt.Errorf("reading the announcement of statement %d: %w", f.Index, err)
		}
		after, err := time.Parse(time.RFC3339, d.After)
		if err != nil {
			return fmt.Errorf("reading the announcement of statement %d: %w", f.Index, err)
		}
		w.intents[f.Key] = intent{f.Index, f.Time, after, d.Rule}
	}
	done, err := l.o.Statements.Facts(ctx, "destruction.done")
	if err != nil {
		return err
	}
	w.done = make(map[string]state.Fact, len(done))
	for _, f := range done {
		w.done[f.Key] = f
	}
	return nil
}

// Line is one line of a plan: what of a stream and compartment was sealed in a week.
type Line struct {
	Stream      string     `json:"stream"`
	Compartment string     `json:"compartment"`
	Week        string     `json:"week"`
	State       State      `json:"state"`
	Segments    int        `json:"segments"`
	Records     uint64     `json:"records"`
	Bytes       int64      `json:"bytes"`
	First       time.Time  `json:"first"` // of sealing
	Last        time.Time  `json:"last"`
	Rule        string     `json:"rule,omitempty"`
	Due         *time.Time `json:"due,omitempty"`   // when its time is over, rounded up to the week
	After       *time.Time `json:"after,omitempty"` // when the grace of its announcement ends
	Holds       []string   `json:"holds,omitempty"` // that keep it
}

// Plan says what goes when, and what keeps the rest, oldest first. Lines of what goes
// later than within are left out; zero is no limit. mixed names the compartments whose
// assessments say several retentions: the longest holds.
func (l *Lifecycle) Plan(ctx context.Context, within time.Duration) (lines []Line, mixed []string, err error) {
	ruled, mixed, err := l.ahead(ctx)
	if err != nil {
		return nil, nil, err
	}
	w, err := l.world(ctx, ruled)
	if err != nil {
		return nil, nil, err
	}
	type key struct {
		weekKey
		state State
		holds string
	}
	at := make(map[key]int)
	for _, u := range w.units {
		v := w.judge(u)
		if v.state == Destroyed || within > 0 && !v.due.IsZero() && v.due.After(w.now.Add(within)) {
			continue
		}
		k := key{weekKey{u.stream, u.compartment, u.week.Name}, v.state, fmt.Sprint(v.holds)}
		i, ok := at[k] // originals are one segment a unit: lines of a week are one
		if !ok {
			i = len(lines)
			at[k] = i
			lines = append(lines, Line{Stream: u.stream.String(), Compartment: u.compartment, Week: u.week.Name, State: v.state, Holds: v.holds, First: v.todo[0].first})
		}
		line := &lines[i]
		if v.ruled {
			line.Rule, line.Due = v.rule.text, &v.due
		}
		if !v.after.IsZero() {
			line.After = &v.after
		}
		for _, s := range v.todo {
			line.Segments++
			line.Records += s.Records
			line.Bytes += s.Bytes
			if s.first.Before(line.First) {
				line.First = s.first
			}
			if s.last.After(line.Last) {
				line.Last = s.last
			}
		}
	}
	return lines, mixed, nil
}

// ahead gives all retentions, with those that the next pass will state.
func (l *Lifecycle) ahead(ctx context.Context) (map[chain][]promise, []string, error) {
	ruled, err := l.promises(ctx)
	if err != nil {
		return nil, nil, err
	}
	days, mixed := l.inForce()
	for c, d := range days {
		if have := ruled[c]; len(have) == 0 && d > 0 || len(have) > 0 && have[len(have)-1].days != d {
			ruled[c] = append(have, promise{days: d, from: l.now()})
		}
	}
	return ruled, mixed, nil
}

// Gone says under which rule and when a segment was destroyed; ok is false where it
// was not.
func (l *Lifecycle) Gone(ctx context.Context, segment uuid.UUID) (rule string, at time.Time, ok bool, err error) {
	f, ok, err := l.o.Statements.Fact(ctx, "destruction.done", segment.String())
	if err != nil || !ok {
		return "", at, false, err
	}
	var d doneDetail
	if err := json.Unmarshal(f.Detail, &d); err != nil {
		return "", at, false, fmt.Errorf("reading statement %d: %w", f.Index, err)
	}
	return d.Rule, f.Time, true, nil
}
