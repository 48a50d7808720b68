package report

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/attest"
)

// Outcomes of a package at its recipient.
var outcomes = []string{"returned", "destroyed", "kept-by-order"}

// ErrUnknownPackage: the ledger knows no package of this id, or not for this
// recipient.
var ErrUnknownPackage = fmt.Errorf("%w: the ledger knows no such package for this recipient", ErrRequest)

// Sent is where a package stands with one recipient.
type Sent struct {
	ID        string
	Recipient string // id of the card
	Made      time.Time
	Due       string
	Received  time.Time // zero: not yet
	Returned  time.Time
	Outcome   string
	Overdue   bool
}

// Packages lists every package with each of its recipients, the oldest first.
func Packages(ctx context.Context, r *attest.Recorder, now time.Time) ([]Sent, error) {
	made, err := r.Facts(ctx, "package.made")
	if err != nil {
		return nil, err
	}
	var out []Sent
	for _, f := range made {
		var d madeDetail
		if err := json.Unmarshal(f.Detail, &d); err != nil {
			return nil, fmt.Errorf("statement %d: not the detail of a package", f.Index)
		}
		for _, id := range d.Recipients {
			s := Sent{ID: f.Key, Recipient: id, Made: f.Time, Due: d.Due}
			key := f.Key + "/" + id
			if got, ok, err := r.Fact(ctx, "package.received", key); err != nil {
				return nil, err
			} else if ok {
				s.Received = got.Time
			}
			back, ok, err := r.Fact(ctx, "package.returned", key)
			if err != nil {
				return nil, err
			}
			if ok {
				var o struct{ Outcome string }
				if err := json.Unmarshal(back.Detail, &o); err != nil {
					return nil, fmt.Errorf("statement %d: not the detail of a return", back.Index)
				}
				s.Returned, s.Outcome = back.Time, o.Outcome
			}
			s.Overdue = s.Returned.IsZero() && over(d.Due, now)
			out = append(out, s)
		}
	}
	slices.SortStableFunc(out, func(a, b Sent) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

// over tells whether a day has passed, by UTC.
func over(due string, now time.Time) bool { return now.UTC().Format(dateForm) > due }

// one finds a package of a recipient; of the only one where none is named.
func one(ctx context.Context, r *attest.Recorder, id, recipient string, now time.Time) (*Sent, error) {
	if u, err := uuid.Parse(id); err != nil || u.String() != id {
		return nil, fmt.Errorf("%w: a package is named by its id", ErrRequest)
	}
	all, err := Packages(ctx, r, now)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(s Sent) bool { return s.ID != id || recipient != "" && s.Recipient != recipient })
	switch len(all) {
	case 0:
		return nil, ErrUnknownPackage
	case 1:
		return &all[0], nil
	}
	return nil, fmt.Errorf("%w: the package has several recipients: say which by the id of the card", ErrRequest)
}

// Receive states that a recipient has a package.
func Receive(ctx context.Context, r *attest.Recorder, id, recipient, actor string, now time.Time) (*Sent, error) {
	s, err := one(ctx, r, id, recipient, now)
	if err != nil {
		return nil, err
	}
	if !s.Received.IsZero() {
		return nil, fmt.Errorf("%w: the ledger has the receipt of %s already", ErrRequest, s.Received.Format(time.RFC3339))
	}
	_, err = r.Record(ctx, attest.Act{Kind: "package.received", Actor: actor, Subject: []string{id + "/" + s.Recipient, id}, Detail: map[string]any{"package": id, "recipient": s.Recipient}})
	s.Received = now
	return s, err
}

// Return states what became of a package at a recipient. A note, where there is one,
// is kept as a payload and not in the ledger.
func Return(ctx context.Context, r *attest.Recorder, id, recipient, outcome, note, actor string, now time.Time) (*Sent, error) {
	if !slices.Contains(outcomes, outcome) {
		return nil, fmt.Errorf("%w: an outcome is one of %s", ErrRequest, strings.Join(outcomes, ", "))
	}
	s, err := one(ctx, r, id, recipient, now)
	if err != nil {
		return nil, err
	}
	if s.Outcome != "" && s.Outcome != "kept-by-order" {
		return nil, fmt.Errorf("%w: the ledger has it as %s since %s already", ErrRequest, s.Outcome, s.Returned.Format(time.RFC3339))
	}
	detail := map[string]any{"package": id, "recipient": s.Recipient, "outcome": outcome}
	if note != "" {
		if detail["note"], err = r.PutPayload([]byte(note)); err != nil {
			return nil, err
		}
	}
	_, err = r.Record(ctx, attest.Act{Kind: "package.returned", Actor: actor, Subject: []string{id + "/" + s.Recipient, id}, Detail: detail})
	s.Returned, s.Outcome = now, outcome
	return s, err
}

// Overdue states, once for each, which packages were not returned in time, and gives
// how many statements it made. The server asks it once a day.
func Overdue(ctx context.Context, r *attest.Recorder, now time.Time) (int, error) {
	all, err := Packages(ctx, r, now)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, s := range all {
		if !s.Overdue {
			continue
		}
		key := s.ID + "/" + s.Recipient
		if _, ok, err := r.Fact(ctx, "package.overdue", key); err != nil {
			return n, err
		} else if ok {
			continue
		}
		if _, err := r.Record(ctx, attest.Act{Kind: "package.overdue", Actor: attest.System, Subject: []string{key, s.ID}, Detail: map[string]any{"package": s.ID, "recipient": s.Recipient, "due": s.Due}}); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
