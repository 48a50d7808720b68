package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/ledger"
)

// Report is what a pass did and found, in segments.
type Report struct {
	At          time.Time `json:"at"`
	Announced   int       `json:"announced"`
	Destroyed   int       `json:"destroyed"`
	Held        int       `json:"held"`        // their time is over and a hold keeps them
	Unwitnessed int       `json:"unwitnessed"` // wait for witnesses
	Busy        int       `json:"busy"`        // wait for the index
	Back        int       `json:"back"`        // cards that were there again after their destruction
	Missing     int       `json:"missing"`     // under a hold, and the card is gone
	Weeks       []string  `json:"weeks,omitempty"`
	Mixed       []string  `json:"mixed,omitempty"` // compartments of several retentions
	Names       int64     `json:"names"`           // sealed names that were erased
	Next        time.Time `json:"next"`            // when something is due next; zero: nothing is known
}

// doneDetail is the detail of destruction.done.
type doneDetail struct {
	Beyond    []string   `json:"beyond"` // copies that the server cannot reach
	Destroyed doneCounts `json:"destroyed"`
	Rule      string     `json:"rule"`
}

type doneCounts struct {
	Bytes   int64    `json:"bytes"` // sealed bytes that nobody opens any more
	Cards   int64    `json:"cards"` // key cards removed now
	Missing int64    `json:"missing"`
	Records int64    `json:"records"`
	Rows    int64    `json:"state_rows"`
	Weeks   []string `json:"index_weeks"`
}

// beyond is what else may hold a copy, in every statement of a destruction.
var beyond = [...]string{"backups-of-keys-segments", "correlations-in-memory", "exports", "packages", "unlock-requests", "unlocked-keys"}

// maxSubjects bounds the segments of one statement.
const maxSubjects = 200

// Pass does what is to be done now: it states retentions that changed, ends what a
// crash cut off, announces what is due, and destroys what was announced and left for
// the grace. It may be called at any time and any number of times.
func (l *Lifecycle) Pass(ctx context.Context) (Report, error) {
	r, err := l.pass(ctx)
	l.lastMu.Lock()
	l.last, l.failed = r, err
	l.lastMu.Unlock()
	return r, err
}

func (l *Lifecycle) pass(ctx context.Context) (Report, error) {
	r := Report{At: l.now()}
	if l.o.Agree != nil {
		if err := l.o.Agree(ctx); err != nil {
			return r, fmt.Errorf("nothing is destroyed: %w", err)
		}
	}
	ruled, mixed, err := l.sync(ctx)
	if err != nil {
		return r, err
	}
	r.Mixed = mixed
	l.mu.Lock()
	r.Back, err = l.finish(ctx)
	l.mu.Unlock()
	if err != nil {
		return r, err
	}
	w, err := l.world(ctx, ruled)
	if err != nil {
		return r, err
	}
	if r.Announced, err = l.announce(ctx, w); err != nil {
		return r, err
	}
	for _, u := range w.units {
		if w.judge(u).state != Ready {
			continue
		}
		if err := l.destroy(ctx, w, u, &r); err != nil {
			return r, err
		}
	}
	if err := l.sweep(ctx, w, &r.Weeks); err != nil {
		return r, err
	}
	if r.Names, err = l.sealedNames(ctx, w); err != nil {
		return r, err
	}
	for _, u := range w.units {
		v := w.judge(u)
		switch v.state {
		case Held:
			if v.ruled && !w.now.Before(v.due) {
				r.Held += len(v.todo)
			}
			for _, s := range v.todo {
				if !s.HasKey {
					r.Missing++
				}
			}
		case Due, Unwitnessed: // what is due was announced, but for the witnesses
			r.Unwitnessed += len(v.todo)
		case Busy:
			r.Busy += len(v.todo)
		case Kept:
			r.Next = earlier(r.Next, v.due)
		case Announced:
			r.Next = earlier(r.Next, v.after)
		}
	}
	if r.Missing > 0 {
		l.log.Error("key cards are gone that a hold keeps", "segments", r.Missing)
	}
	return r, nil
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// announce states what is due and was not announced, under witnesses. Where they are
// missing the destruction waits, and nothing else does.
func (l *Lifecycle) announce(ctx context.Context, w *world) (announced int, err error) {
	type group struct {
		c    chain
		rule string
	}
	todo := make(map[group][]string)
	var order []group
	for _, u := range w.units {
		v := w.judge(u)
		if v.state != Due {
			continue
		}
		g := group{chain{u.stream, u.compartment}, v.rule.text}
		if todo[g] == nil {
			order = append(order, g)
		}
		for _, s := range v.silent {
			todo[g] = append(todo[g], s.Segment.String())
		}
	}
	for _, g := range order {
		for ids := range slices.Chunk(todo[g], maxSubjects) {
			after := l.now().Add(l.o.Grace).UTC()
			_, err := l.o.Statements.Critical(ctx, attest.Act{Kind: "destruction.intended", Actor: attest.System, Subject: ids,
				Detail: intentDetail{After: after.Format(time.RFC3339Nano), Rule: g.rule}})
			switch {
			case errors.Is(err, ledger.ErrUnwitnessed):
				// No later group fares better now. One that stands counts once it is seen.
				return announced, l.words(ctx, w)
			case err != nil:
				return announced, fmt.Errorf("announcing a destruction: %w", err)
			}
			announced += len(ids)
		}
	}
	return announced, l.words(ctx, w)
}

// destroy destroys the cards of a unit that is ready, then what was derived, and
// states it. Holds are read anew under the lock, and asked about once more before
// each card.
func (l *Lifecycle) destroy(ctx context.Context, w *world, u *unit, r *Report) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.words(ctx, w); err != nil {
		return err
	}
	v := w.judge(u)
	if v.state != Ready { // a hold came in between
		return nil
	}
	if err := l.cards(ctx, w, u, v.todo); err != nil {
		return err
	}
	return l.derived(ctx, w, u, v, r)
}

// errHeld: a hold keeps a segment.
var errHeld = errors.New("a hold keeps it")

// cards removes key cards. The caller holds mu.
func (l *Lifecycle) cards(ctx context.Context, w *world, u *unit, todo []*segment) error {
	permit := func(stream evidence.Stream, compartment string, id uuid.UUID) error {
		for _, s := range u.segments {
			if s.Segment != id || s.Stream != stream || s.Compartment != compartment {
				continue
			}
			for i := range w.holds {
				if h := &w.holds[i]; h.InForce() && h.covers(s) {
					return errHeld
				}
			}
			return nil
		}
		return errors.New("it is not what was announced")
	}
	for _, s := range todo {
		there, err := l.o.Evidence.DestroyCard(ctx, s.Stream, s.Compartment, s.Segment, permit)
		if err != nil {
			return err
		}
		s.HasKey = false
		s.removed = there
	}
	return nil
}

// derived drops what was made of a unit without cards, and states the destruction.
// The caller holds mu.
func (l *Lifecycle) derived(ctx context.Context, w *world, u *unit, v verdict, r *Report) error {
	for _, s := range v.todo { // for the sweep; the statement follows
		s.gone = true
	}
	weeks := []string{}
	rows := int64(0)
	if u.stream == evidence.Events {
		if err := l.sweep(ctx, w, &weeks); err != nil {
			return err
		}
		r.Weeks = append(r.Weeks, weeks...)
		var ids []uuid.UUID
		for _, s := range v.todo {
			ids = append(ids, s.Segment)
		}
		var err error
		if rows, err = l.o.State.Destroyed(ctx, u.compartment, ids, w.oldest(u.compartment)); err != nil {
			return err
		}
	}
	for part := range slices.Chunk(v.todo, maxSubjects) {
		d := doneDetail{Rule: v.rule.text, Beyond: beyond[:], Destroyed: doneCounts{Rows: rows, Weeks: weeks}}
		ids := make([]string, len(part))
		for i, s := range part {
			ids[i] = s.Segment.String()
			d.Destroyed.Bytes += s.Bytes
			d.Destroyed.Records += int64(s.Records)
			if s.removed {
				d.Destroyed.Cards++
			} else {
				d.Destroyed.Missing++
			}
		}
		if _, err := l.o.Statements.Record(ctx, attest.Act{Kind: "destruction.done", Actor: attest.System, Subject: ids, Detail: d}); err != nil {
			return fmt.Errorf("stating a destruction: %w", err)
		}
		r.Destroyed += len(part)
		l.names = true
		weeks, rows = []string{}, 0 // counted once
	}
	return l.words(ctx, w)
}

// oldest is when the first segment of a compartment that still lives was begun.
func (w *world) oldest(compartment string) time.Time {
	at := w.now
	for _, u := range w.units {
		if u.stream != evidence.Events || u.compartment != compartment {
			continue
		}
		for _, s := range u.segments {
			if !w.isGone(s) && s.first.Before(at) {
				at = s.first
			}
		}
	}
	return at
}

// isGone tells that a segment was destroyed, stated or about to be.
func (w *world) isGone(s *segment) bool {
	_, done := w.done[s.Segment.String()]
	return done || s.gone
}

// sweep drops every index week of which all segments are destroyed. A week of which
// nothing is known stays.
func (l *Lifecycle) sweep(_ context.Context, w *world, dropped *[]string) error {
	x := l.o.Index()
	for _, week := range x.Weeks() {
		if w.open[weekKey{evidence.Events, week.Compartment, week.Name}] {
			continue
		}
		gone, live := 0, 0
		for _, u := range w.units {
			if u.stream != evidence.Events || u.compartment != week.Compartment {
				continue
			}
			for _, s := range u.segments {
				if !s.has(week) {
					continue
				}
				if w.isGone(s) {
					gone++
				} else {
					live++
				}
			}
		}
		if gone == 0 || live > 0 {
			continue
		}
		if err := x.Drop(week.Compartment, week.Name); err != nil {
			return err
		}
		*dropped = append(*dropped, week.Name)
	}
	return nil
}

// finish ends what an earlier process began: a unit whose cards are gone, in part or
// whole, after its announcement ran out, is stated; rows of the vault that were stated as
// erased are erased. Cards that are there again though
// their destruction was stated are destroyed again, unless a hold keeps them. It says
// how many came back. The caller holds mu.
func (l *Lifecycle) finish(ctx context.Context) (back int, err error) {
	if _, err := l.eraseStated(ctx); err != nil {
		return 0, err
	}
	if begun, err := l.begun(ctx); err != nil || !begun {
		return 0, err
	}
	if l.o.Agree != nil {
		if err := l.o.Agree(ctx); err != nil { // what was begun may be what somebody wrote into the state
			l.log.Error("nothing is ended that seems to have been begun", "err", err)
			return 0, nil
		}
	}
	ruled, err := l.promises(ctx)
	if err != nil {
		return 0, err
	}
	w, err := l.world(ctx, ruled)
	if err != nil {
		return 0, err
	}
	for _, u := range w.units {
		var again []*segment
		for _, s := range u.segments {
			if _, done := w.done[s.Segment.String()]; done && s.HasKey {
				again = append(again, s)
			}
		}
		if len(again) > 0 {
			n, err := l.again(ctx, w, u, again)
			back += n
			if err != nil {
				return back, err
			}
		}
		v := w.judge(u)
		if v.state != Ready && v.state != Busy { // without a key nothing of it comes into the index
			continue
		}
		var begun []*segment
		for _, s := range v.todo {
			if !s.HasKey {
				begun = append(begun, s)
			}
		}
		if len(begun) == 0 {
			continue
		}
		v.todo = begun // those that are there may get a hold yet
		var r Report
		if err := l.derived(ctx, w, u, v, &r); err != nil {
			return back, err
		}
	}
	return back, nil
}

// begun looks for what finish is about, without reading the segments: a card that is
// gone after an announcement, or there after a destruction.
func (l *Lifecycle) begun(ctx context.Context) (bool, error) {
	var w world
	if err := l.words(ctx, &w); err != nil {
		return false, err
	}
	there := func(id string) (bool, error) {
		u, err := uuid.Parse(id)
		if err != nil {
			return false, fmt.Errorf("a destruction is about %s, which is no segment: %w", id, err)
		}
		return l.o.Evidence.HasCard(u)
	}
	for id := range w.done {
		if has, err := there(id); err != nil || has {
			return has, err
		}
	}
	for id := range w.intents {
		if _, done := w.done[id]; done {
			continue
		}
		if has, err := there(id); err != nil || !has {
			return err == nil, err
		}
	}
	return false, nil
}

// again destroys cards that came back, from a copy of the disk say.
func (l *Lifecycle) again(ctx context.Context, w *world, u *unit, segments []*segment) (int, error) {
	n := 0
	for _, s := range segments {
		if slices.ContainsFunc(w.holds, func(h Hold) bool { return h.InForce() && h.covers(s) }) {
			continue // it is here, so the hold keeps it
		}
		id := s.Segment.String()
		if _, err := l.o.Statements.Record(ctx, attest.Act{Kind: "alarm.raised", Actor: attest.System, Subject: []string{id},
			Detail: map[string]any{"alarm": "destroyed-card-is-back", "stream": s.Stream.String(), "compartment": s.Compartment}}); err != nil {
			return n, err
		}
		l.log.Error("a key card is there again after it was destroyed; it is destroyed again", "segment", id)
		if err := l.cards(ctx, w, u, []*segment{s}); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
