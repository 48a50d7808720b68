package lifecycle

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Check is one thing that a person should know.
type Check struct {
	State string // ok, warn, fail
	Text  string
	Hint  string
}

// Doctor says how retention and holds stand.
func (l *Lifecycle) Doctor(ctx context.Context) ([]Check, error) {
	var out []Check
	add := func(state, hint, format string, args ...any) {
		out = append(out, Check{State: state, Text: fmt.Sprintf(format, args...), Hint: hint})
	}
	if _, err := l.Last(); err != nil {
		add("fail", "the log says why; it is made again within the hour", "the last pass of retention did not end")
	}
	ruled, mixed, err := l.ahead(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range mixed {
		add("warn", "give it one retention_days, or part it", "compartment %s has several retentions: the longest holds", c)
	}
	w, err := l.world(ctx, ruled)
	if err != nil {
		return nil, err
	}
	missing, waiting, kept, due := 0, 0, 0, 0
	var silent []string
	for _, u := range w.units {
		v := w.judge(u)
		switch v.state {
		case Held:
			if len(v.holds) > 0 { // what else is kept is for an inspector's office to know
				kept += len(v.todo)
			}
			for _, s := range v.todo {
				if !s.HasKey {
					missing++
				}
			}
		case Unwitnessed:
			waiting += len(v.todo)
		case Due, Announced, Ready:
			due += len(v.todo)
		case NoRule:
			if c := (chain{u.stream, u.compartment}).String(); !slices.Contains(silent, c) {
				silent = append(silent, c)
			}
		}
	}
	if missing > 0 {
		add("fail", "somebody removed them: counterseal verify names the segments", "%d key cards are gone that a hold keeps", missing)
	}
	if waiting > 0 {
		add("warn", "see ledger above", "%d segments are past their retention and wait for witnesses", waiting)
	}
	if len(silent) > 0 {
		add("warn", "name the compartment in an assessment", "no assessment says how long to keep %s", strings.Join(silent, ", "))
	}
	in, overdue := 0, 0
	for i := range w.holds {
		h := &w.holds[i]
		if !h.InForce() {
			continue
		}
		if h.Unread {
			add("warn", "counterseal hold list", "the scope of hold %s cannot be read: it keeps everything", h.ID)
		}
		if h.Inspector {
			continue
		}
		in++
		if h.Review.Before(w.now) {
			overdue++
		}
	}
	if overdue > 0 {
		add("warn", "counterseal hold list; ask whether they are still needed", "%d holds are past their review", overdue)
	}
	add("ok", "", "%d segments are on their way out, %d holds keep %d", due, in, kept)
	return out, nil
}
