package main

import (
	"context"
	"time"

	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/pipeline"
)

// The spare pair opens what the other officers lost the keys of, and nobody knows that it does
// before it has. So it is tried: soon after it is enrolled, and once a year.
const (
	rehearseFirst = 30 * 24 * time.Hour
	rehearseAgain = 365 * 24 * time.Hour
)

// spareChecks tells the doctor when the two spare keys have last opened a name.
func (s *server) spareChecks(ctx context.Context) ([]pipeline.Check, error) {
	roster, err := s.cfg.roster()
	if err != nil || roster == nil {
		return nil, err
	}
	enrolled, last, err := s.sparesOpened(ctx, roster)
	if err != nil || enrolled.IsZero() { // the server states who is in office at its start
		return nil, err
	}
	c := pipeline.Check{Name: "spares", State: "ok"}
	due := enrolled.Add(rehearseFirst)
	c.Text = "the two spare keys have opened nothing yet; rehearse before " + due.UTC().Format(time.DateOnly)
	if !last.IsZero() {
		due = last.Add(rehearseAgain)
		c.Text = "the two spare keys opened a name on " + last.UTC().Format(time.DateOnly) + "; rehearse again before " + due.UTC().Format(time.DateOnly)
	}
	if !s.now().Before(due) {
		c.State, c.Hint = "warn", "if the other two are lost, these open the names, or nothing does: both spares open the name of somebody of the staff who agreed, by counterseal unmask"
	}
	return []pipeline.Check{c}, nil
}

// sparesOpened says since when both spares are enrolled, and when a name was last opened that
// both of them had approved; zero: never.
func (s *server) sparesOpened(ctx context.Context, roster *officer.Roster) (enrolled, last time.Time, err error) {
	rec := s.pipe.Recorder()
	var spares []string
	for _, a := range roster.Officers {
		if !a.Spare {
			continue
		}
		f, ok, err := rec.Fact(ctx, "officer.enrolled", a.ID())
		if err != nil || !ok {
			return time.Time{}, last, err
		}
		if f.Time.After(enrolled) {
			enrolled = f.Time
		}
		spares = append(spares, a.ID())
	}
	opened, err := rec.Facts(ctx, "unmask.opened")
	if err != nil {
		return enrolled, last, err
	}
	for _, f := range opened {
		both := f.Time.After(last)
		for _, id := range spares {
			if !both {
				break
			}
			if _, both, err = rec.Fact(ctx, "approval.decided", f.Key+"/"+id); err != nil {
				return enrolled, last, err
			}
		}
		if both {
			last = f.Time
		}
	}
	return enrolled, last, nil
}
