package lifecycle

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/index"
	"github.com/counterseal/counterseal/internal/state"
)

// chain is what one retention is about: a stream of a compartment.
type chain struct {
	stream      evidence.Stream
	compartment string
}

func (c chain) String() string { return c.stream.String() + "/" + c.compartment }

// promise is a number of days that was in force from a moment on.
type promise struct {
	days int
	from time.Time
	n    int // its number in the chain, from 1
}

// rule is what decides when a segment goes.
type rule struct {
	days int
	text string // in statements
}

// promiseDetail is the detail of retention.changed.
type promiseDetail struct {
	Compartment string `json:"compartment"`
	Days        int    `json:"days"`
	N           int    `json:"n"`
	Stream      string `json:"stream"`
}

const kindPromise = "retention.changed"

// promises reads every retention that was ever in force, in order.
func (l *Lifecycle) promises(ctx context.Context) (map[chain][]promise, error) {
	facts, err := l.o.Statements.Facts(ctx, kindPromise)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(facts, func(a, b state.Fact) int { return cmp.Compare(a.Index, b.Index) })
	out := make(map[chain][]promise)
	seen := make(map[uint64]bool)
	for _, f := range facts {
		if seen[f.Index] { // a statement has several subjects
			continue
		}
		seen[f.Index] = true
		var d promiseDetail
		if err := json.Unmarshal(f.Detail, &d); err != nil {
			return nil, fmt.Errorf("reading retention of statement %d: %w", f.Index, err)
		}
		stream, err := evidence.ParseStream(d.Stream)
		if err != nil {
			return nil, fmt.Errorf("reading retention of statement %d: %w", f.Index, err)
		}
		c := chain{stream, d.Compartment}
		out[c] = append(out[c], promise{days: d.Days, from: f.Time, n: d.N})
	}
	return out, nil
}

// inForce is what the assessments say now. Where several lines of one compartment say
// different numbers, the longest holds: what is destroyed does not come back. mixed
// names such compartments, until somebody parts them.
func (l *Lifecycle) inForce() (days map[chain]int, mixed []string) {
	days = make(map[chain]int)
	events := make(map[string][]int)
	for _, r := range l.o.Rules() {
		ev, or := chain{evidence.Events, r.Compartment}, chain{evidence.Originals, r.Compartment}
		days[ev] = max(days[ev], r.Retention)
		days[or] = max(days[or], r.OriginalDays) // 0: none are kept, also none of before
		events[r.Compartment] = append(events[r.Compartment], r.Retention)
	}
	for comp, all := range events {
		if slices.Min(all) != slices.Max(all) {
			mixed = append(mixed, comp)
		}
	}
	slices.Sort(mixed)
	return days, mixed
}

// sync states every retention that has changed, and gives all that were in force. A
// compartment that no assessment names any more keeps its last one.
func (l *Lifecycle) sync(ctx context.Context) (map[chain][]promise, []string, error) {
	known, err := l.promises(ctx)
	if err != nil {
		return nil, nil, err
	}
	now, mixed := l.inForce()
	var changed []chain
	for c, d := range now {
		have := known[c]
		if len(have) > 0 && have[len(have)-1].days == d || len(have) == 0 && d == 0 {
			continue
		}
		changed = append(changed, c)
	}
	slices.SortFunc(changed, func(a, b chain) int { return cmp.Compare(a.String(), b.String()) })
	for _, c := range changed {
		n := 1
		if have := known[c]; len(have) > 0 {
			n = have[len(have)-1].n + 1
		}
		at := l.now()
		_, err := l.o.Statements.Record(ctx, attest.Act{
			Kind: kindPromise, Actor: attest.System,
			Subject: []string{fmt.Sprintf("retention/%s/%d", c, n)}, // its own key: all of them are found again
			Detail:  promiseDetail{Compartment: c.compartment, Days: now[c], N: n, Stream: c.stream.String()},
		})
		if err != nil {
			return nil, nil, err
		}
		known[c] = append(known[c], promise{days: now[c], from: at, n: n})
	}
	return known, mixed, nil
}

// ruleFor gives the rule for a week of a chain: the shortest retention that was in
// force at any time since the week began, and the last one before it. So a shorter one
// holds at once, also for what is there; a longer one begins with the next week and
// extends nothing. One that was replaced within the grace was a slip and binds nobody.
func ruleFor(c chain, ps []promise, w index.Week, grace time.Duration) (rule, bool) {
	var good []promise
	for i, p := range ps {
		if i+1 < len(ps) && ps[i+1].from.Sub(p.from) < grace {
			continue
		}
		good = append(good, p)
	}
	if len(good) == 0 {
		return rule{}, false
	}
	at := 0 // what was in force when the week began, or the first one ever
	for i, p := range good {
		if !p.from.After(w.From) {
			at = i
		}
	}
	days := good[at].days
	for _, p := range good[at:] {
		days = min(days, p.days)
	}
	return rule{days, ruleText(c, days)}, true
}

func ruleText(c chain, days int) string {
	name := "retention_days"
	if c.stream == evidence.Originals {
		name = "original_days"
	}
	return fmt.Sprintf("%s %d of %s", name, days, c)
}

// due is when the last record that can be in a week is older than the retention.
func (r rule) due(w index.Week) time.Time { return w.To.Add(time.Duration(r.days) * 24 * time.Hour) }
