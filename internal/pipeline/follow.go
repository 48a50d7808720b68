package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/index"
	"github.com/counterseal/counterseal/internal/ocsf"
)

// chunk is how many records a follower handles before it hands them on.
const chunk = 2000

// place is where a follower stands: the next record of a stream and the context in
// force there. Its text is the index's durable mark.
type place struct {
	at      evidence.Position
	context string // digest; empty before the first context record
}

func (p place) String() string {
	return p.at.Segment.String() + "/" + strconv.FormatUint(p.at.Ordinal, 10) + "/" + p.context
}

func parsePlace(s string) (place, error) {
	if s == "" {
		return place{}, nil
	}
	seg, rest, ok := strings.Cut(s, "/")
	ord, digest, ok2 := strings.Cut(rest, "/")
	id, err := uuid.Parse(seg)
	n, err2 := strconv.ParseUint(ord, 10, 64)
	if !ok || !ok2 || err != nil || err2 != nil {
		return place{}, fmt.Errorf("a mark that is none of ours")
	}
	return place{at: evidence.Position{Segment: id, Ordinal: n}, context: digest}, nil
}

func before(a, b evidence.Position) bool {
	if a.Segment != b.Segment {
		return compareText(a.Segment.String(), b.Segment.String()) < 0
	}
	return a.Ordinal < b.Ordinal
}

// follower reads one compartment's event stream.
type follower struct {
	p           *Pipeline
	compartment string
	past        *past // rules and assessments in force where it stands
	place       place
	seen        place // of the state projection
	checkUntil  evidence.Position
	stories     *stories  // nil where the rules hold no correlation
	sealed      time.Time // receipt of the newest event, for findings without one
	saved       time.Time // when the stories were saved, by the clock
	begun       uuid.UUID // segment in which a context was looked for

	mu   sync.Mutex // guards done
	done evidence.Position
}

// Follow reads every event stream from its durable mark to its end, and on as it
// grows: findings and rows into the index, cards into the state. It returns when
// the context ends or a stream cannot be read.
func (p *Pipeline) Follow(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	group, gctx := errgroup.WithContext(ctx)
	p.followMu.Lock()
	p.group, p.groupCtx, p.stop, p.followed = group, gctx, stop, true
	p.followMu.Unlock()
	group.Go(func() error { // finds compartments that appear
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			if err := p.startFollowers(group, gctx); err != nil {
				return err
			}
			select {
			case <-gctx.Done():
				return nil
			case <-tick.C:
			}
		}
	})
	group.Go(func() error { p.tend(gctx); return nil })
	err := group.Wait()
	// Whoever follows next finds rows behind the mark that were added and not noted.
	p.topMu.Lock()
	found := maps.Clone(p.tops)
	p.topMu.Unlock()
	p.followMu.Lock()
	p.found = found
	p.group = nil
	p.followers = make(map[string]*follower)
	p.followMu.Unlock()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// tend does what is due from time to time: it seals breaks of ways in whose source
// may never send again, and forgets old request keys.
func (p *Pipeline) tend(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var forgotten time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := p.sealGaps(ctx, &p.breaks); err != nil && ctx.Err() == nil {
			p.log.Warn("a break of a way in is not sealed yet", "err", err)
		}
		if now := p.now(); now.Sub(forgotten).Abs() >= time.Hour {
			forgotten = now
			if err := p.state.Forget(ctx, now); err != nil && ctx.Err() == nil {
				p.log.Warn("old request keys are not forgotten yet", "err", err)
			}
		}
	}
}

func (p *Pipeline) startFollowers(group *errgroup.Group, ctx context.Context) error {
	p.followMu.Lock()
	defer p.followMu.Unlock()
	for _, comp := range p.evidence.Compartments(evidence.Events) {
		if p.followers[comp] != nil {
			continue
		}
		f, err := p.newFollower(ctx, comp)
		if err != nil {
			return err
		}
		p.followers[comp] = f
		group.Go(func() error { return f.run(ctx) })
	}
	return nil
}

func (p *Pipeline) newFollower(ctx context.Context, comp string) (*follower, error) {
	f := &follower{p: p, compartment: comp}
	var err error
	if f.place, err = parsePlace(p.index.Mark(comp)); err != nil {
		return nil, err
	}
	if f.place.context != "" {
		s, err := p.recallDigest(f.place.context)
		if err != nil {
			return nil, err
		}
		f.enforce(s)
	}
	seen, err := p.state.Position(ctx, comp)
	if err != nil {
		return nil, err
	}
	if f.seen, err = parsePlace(seen); err != nil {
		return nil, err
	}
	// What the last process may have added and not noted lies between the mark and
	// the end of the stream now: there each Ref is looked up before it is added.
	f.checkUntil = p.found[comp]
	f.done = f.place.at
	return f, f.warm(ctx)
}

func (f *follower) run(ctx context.Context) error {
	for {
		if err := f.drain(ctx); err != nil {
			return err
		}
		if err := f.p.evidence.Wait(ctx, evidence.Events, f.compartment, f.place.at); err != nil {
			if ctx.Err() != nil {
				return f.saveStories(context.WithoutCancel(ctx), true)
			}
			return err
		}
	}
}

// drain handles everything durable now, a chunk at a time.
func (f *follower) drain(ctx context.Context) error {
	for {
		var rows []index.Row
		var cards []*event.Card
		here := f.place
		n := 0
		next, err := f.p.evidence.Read(ctx, evidence.Events, f.compartment, f.place.at, func(ref event.Ref, rec []byte) error {
			n++
			en, err := event.Decode(rec)
			if err != nil {
				return fmt.Errorf("record %s: %w", ref, err)
			}
			switch {
			case en.Event != nil:
				if f.past == nil {
					if here.context, err = f.begin(ctx, ref); err != nil {
						return err
					}
				}
				rows = f.event(rows, ref, en.Event)
			case en.Card != nil:
				if !before(evidence.Position{Segment: ref.Segment, Ordinal: ref.Ordinal}, f.seen.at) {
					cards = append(cards, en.Card)
				}
			case en.Watermark != nil:
				rows = f.findings(rows, f.stories.watermark(en.Watermark), nil)
			case en.Context != nil:
				s, err := f.p.recall(en.Context)
				if err != nil {
					return fmt.Errorf("record %s: %w", ref, err)
				}
				f.enforce(s)
				if here.context, err = contextDigest(en.Context); err != nil {
					return err
				}
			}
			if n == chunk {
				return evidence.ErrStop
			}
			return nil
		})
		var damage *evidence.DamageError
		if errors.As(err, &damage) {
			// What can be read goes on; what cannot is shown until somebody acts.
			if err := f.p.passOver(ctx, damage); err != nil {
				return err
			}
			next = damage.Next
		} else if err != nil {
			return err
		}
		here.at = next
		if n == 0 && damage == nil {
			f.place = here
			return nil
		}
		if err := f.hand(ctx, here, rows, cards); err != nil {
			return err
		}
		if n < chunk && damage == nil {
			return nil
		}
	}
}

// damaged remembers damage that a reader met, for doctor.
func (p *Pipeline) damaged(d *evidence.DamageError) {
	p.damageMu.Lock()
	defer p.damageMu.Unlock()
	text := d.Error()
	if !slices.Contains(p.damage, text) {
		p.damage = append(p.damage, text)
		p.log.Error("sealed records cannot be read", "what", text)
	}
}

// hand gives a chunk to index and state and moves on.
func (f *follower) hand(ctx context.Context, to place, rows []index.Row, cards []*event.Card) error {
	if len(rows) > 0 && before(f.place.at, f.checkUntil) {
		var err error
		if rows, err = f.missing(ctx, rows); err != nil {
			return err
		}
	}
	if len(rows) > 0 {
		if err := f.add(ctx, rows); err != nil {
			return err
		}
	}
	f.p.index.Note(f.compartment, to.String())
	if before(f.seen.at, to.at) {
		if err := f.p.state.Project(ctx, f.compartment, to.String(), cards); err != nil {
			return err
		}
		f.p.projected(f.compartment, cards)
		f.seen = to
	}
	f.place = to
	f.mu.Lock()
	f.done = to.at
	f.mu.Unlock()
	return f.saveStories(ctx, false)
}

// add gives rows to the index. While the disk is low it waits here: everything is
// in evidence, and goes on into the index when there is room.
func (f *follower) add(ctx context.Context, rows []index.Row) error {
	for {
		_, err := f.p.index.Append(ctx, rows)
		if !errors.Is(err, index.ErrDiskLow) {
			f.p.waiting.Store(false)
			return err
		}
		if !f.p.waiting.Swap(true) {
			f.p.log.Warn("the disk is almost full: the index waits for room")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
		if rows, err = f.missing(ctx, rows); err != nil || len(rows) == 0 {
			return err
		}
	}
}

// missing drops the rows that the index already has.
func (f *follower) missing(ctx context.Context, rows []index.Row) ([]index.Row, error) {
	refs := make([]string, len(rows))
	for i := range rows {
		refs[i] = rows[i].Ref
	}
	from, to := rows[0].Sealed, rows[0].Sealed
	for i := range rows {
		if rows[i].Sealed.Before(from) {
			from = rows[i].Sealed
		}
		if rows[i].Sealed.After(to) {
			to = rows[i].Sealed
		}
	}
	have, err := f.p.index.Has(ctx, f.compartment, from, to, refs)
	if err != nil {
		return nil, err
	}
	kept := rows[:0]
	for _, r := range rows {
		if have[r.Ref] == 0 {
			kept = append(kept, r)
		}
	}
	return kept, nil
}

// event turns one event into its index row and the rows of its findings.
func (f *follower) event(rows []index.Row, ref event.Ref, e *event.Event) []index.Row {
	sealed := sealedAt(ref, e)
	f.sealed = sealed
	row := index.Row{
		Ref: ref.String(), Time: e.At().UnixNano(), Sealed: sealed, Compartment: f.compartment,
		Source: e.Source, Dataset: e.Dataset, Kind: index.KindEvent,
	}
	if e.Kind == event.Unparsed {
		row.Kind = index.KindUnparsed
	}
	for _, a := range ocsf.View(e) {
		row.OCSF = append(row.OCSF, index.Attr{Name: a.Name, Value: a.Value})
	}
	for i := range e.Fields {
		row.Native = append(row.Native, index.Attr{Name: e.Fields[i].Name, Value: string(e.Fields[i].Value)})
	}
	rows = append(rows, row)
	if f.past == nil { // not one context is left in the segment
		return rows
	}
	return f.findings(rows, f.past.rules.Judge(e, ref, f.past.sight(e), f.stories.of(e)), row.OCSF)
}

// findings adds the rows of findings. about are the attributes of the event that
// brought them, for those that are about it alone.
func (f *follower) findings(rows []index.Row, found []event.Finding, about []index.Attr) []index.Row {
	for _, finding := range found {
		row := index.FindingRow(finding, f.sealed)
		row.Compartment = f.compartment
		for _, a := range about { // so that a question about a host or person finds it
			if len(finding.Refs) == 1 && slices.Contains(subjects, a.Name) {
				row.OCSF = append(row.OCSF, a)
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// subjects are the attributes of an event that its findings carry too.
var subjects = []string{"device.hostname", "user.uid", "actor.user.uid", "src_endpoint.ip", "dst_endpoint.ip"}

// catchUp reads the tails of all streams into the state.
func (p *Pipeline) catchUp(ctx context.Context) error {
	for _, comp := range p.evidence.Compartments(evidence.Events) {
		text, err := p.state.Position(ctx, comp)
		if err != nil {
			return err
		}
		from, err := parsePlace(text)
		if err != nil {
			return err
		}
		var cards []*event.Card
		here := from
		card := func(ref event.Ref, rec []byte) error {
			if len(rec) < 2 || event.Type(rec[1]) != event.TypeCard {
				return nil
			}
			en, err := event.Decode(rec)
			if err != nil {
				return fmt.Errorf("record %s: %w", ref, err)
			}
			cards = append(cards, en.Card)
			if len(cards) >= chunk {
				here.at = evidence.After(ref)
				if err := p.state.Project(ctx, comp, here.String(), cards); err != nil {
					return err
				}
				cards = nil
			}
			return nil
		}
		next, err := p.readOn(ctx, comp, from.at, card)
		if err != nil {
			return err
		}
		if err := p.readTail(ctx, comp, next); err != nil {
			return err
		}
		here.at = next
		p.found[comp], p.tops[comp] = next, next
		if next == from.at {
			continue
		}
		if err := p.state.Project(ctx, comp, here.String(), cards); err != nil {
			return err
		}
	}
	return nil
}

// readOn reads a stream to its end, over damage.
func (p *Pipeline) readOn(ctx context.Context, comp string, from evidence.Position, fn func(event.Ref, []byte) error) (evidence.Position, error) {
	for {
		next, err := p.evidence.Read(ctx, evidence.Events, comp, from, fn)
		var damage *evidence.DamageError
		if !errors.As(err, &damage) {
			return next, err
		}
		if err := p.passOver(ctx, damage); err != nil {
			return from, err
		}
		from = damage.Next
	}
}

// readTail remembers what RELP senders sent last, before the process ended.
func (p *Pipeline) readTail(ctx context.Context, comp string, end evidence.Position) error {
	from := p.evidence.Back(evidence.Events, comp, end, tailRecords)
	_, err := p.readOn(ctx, comp, from, func(ref event.Ref, rec []byte) error {
		if len(rec) < 2 || event.Type(rec[1]) != event.TypeEvent {
			return nil
		}
		en, err := event.Decode(rec)
		if err != nil {
			return fmt.Errorf("record %s: %w", ref, err)
		}
		if en.Event.Way == wayRELP {
			p.tail.add(en.Event)
		}
		return nil
	})
	return err
}

// Settle waits until everything sealed so far is in index and state and can be
// found. Gaps that wait for a card get one of their own. Follow must be running, or
// begin soon.
func (p *Pipeline) Settle(ctx context.Context) error {
	if err := p.sealGaps(ctx, &p.pending, &p.breaks); err != nil {
		return err
	}
	p.topMu.Lock()
	tops := maps.Clone(p.tops)
	p.topMu.Unlock()
	for comp, end := range tops {
		for !p.reached(comp, end) {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(2 * time.Millisecond):
			}
			if err := p.followError(); err != nil {
				return err
			}
			if p.waiting.Load() {
				return &event.Refusal{Code: codeDisk, Reason: "the disk is almost full: what was sealed last cannot be found yet",
					Hint: "free space on the data disk or lower `reserve`", After: 30 * time.Second}
			}
		}
	}
	return p.index.Flush()
}

// appended notes the end of a stream after n records at first.
func (p *Pipeline) appended(comp string, first event.Ref, n int) {
	end := evidence.After(first.Next(uint64(n - 1)))
	p.topMu.Lock()
	defer p.topMu.Unlock()
	if before(p.tops[comp], end) {
		p.tops[comp] = end
	}
}

func (p *Pipeline) followError() error {
	p.followMu.Lock()
	defer p.followMu.Unlock()
	if !p.followed { // it is about to
		return nil
	}
	if p.group == nil {
		return errors.New("the streams are not being followed; see the log")
	}
	if err := context.Cause(p.groupCtx); err != nil {
		return err
	}
	return nil
}

func (p *Pipeline) reached(comp string, end evidence.Position) bool {
	p.followMu.Lock()
	f := p.followers[comp]
	p.followMu.Unlock()
	if f == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return !before(f.done, end)
}

// sealGaps writes a card without events for gaps that no batch has carried.
func (p *Pipeline) sealGaps(ctx context.Context, from ...*pending) error {
	p.policyMu.RLock()
	defer p.policyMu.RUnlock()
	for _, waiting := range from {
		for _, source := range waiting.sources() {
			comp := p.policy.sources[source]
			if comp == "" {
				continue
			}
			gaps := waiting.take(source)
			if len(gaps) == 0 {
				continue
			}
			if err := p.sealGap(ctx, comp, source, gaps); err != nil {
				waiting.add(gaps)
				return fmt.Errorf("sealing gaps: %w", err)
			}
		}
	}
	return nil
}

func (p *Pipeline) sealGap(ctx context.Context, comp, source string, gaps []event.Gap) error {
	rec, err := event.EncodeCard(&event.Card{Source: source, Received: p.now().UTC(), Gaps: gaps})
	if err != nil {
		return err
	}
	if err := p.vault.Keep(ctx, comp, p.now(), rec); err != nil { // whose machine it is may be a token
		return err
	}
	ref, err := p.evidence.Append(ctx, evidence.Events, comp, [][]byte{rec})
	if err != nil {
		return err
	}
	p.appended(comp, ref, 1)
	return nil
}

// Rebuild deletes index and state and makes them again from evidence. Follow must
// not be running. progress is called with the records read so far.
func (p *Pipeline) Rebuild(ctx context.Context, progress func(records int64)) error {
	if err := p.index.Close(); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(p.dir, "index")); err != nil {
		return fmt.Errorf("removing the index: %w", err)
	}
	if err := p.state.Reset(ctx); err != nil {
		return err
	}
	x, err := index.Open(p.indexOpt)
	if err != nil {
		return err
	}
	p.index = x
	if err := p.recorder.Rebuild(ctx); err != nil {
		return err
	}
	var total int64
	for _, comp := range p.evidence.Compartments(evidence.Events) {
		f, err := p.newFollower(ctx, comp)
		if err != nil {
			return err
		}
		f.checkUntil = evidence.Position{} // the index is empty
		if err := f.drain(ctx); err != nil {
			return err
		}
		if err := f.saveStories(ctx, true); err != nil {
			return err
		}
		total += int64(f.place.at.Ordinal)
		if progress != nil {
			progress(total)
		}
	}
	if err := p.index.Flush(); err != nil {
		return err
	}
	_, err = p.recorder.Record(ctx, attest.Act{Kind: "state.rebuilt", Actor: attest.System, Subject: []string{node}, Detail: map[string]any{"views": "index findings correlations state"}})
	return err
}

// Close seals what waits, closes index and segments, states the rest, and closes
// ledger and state, in this order. Follow must have returned and no Accept be under
// way.
func (p *Pipeline) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(p.sealGaps(ctx, &p.pending, &p.breaks), p.index.Close(), p.evidence.Close(), p.closeRecord(ctx), p.state.Close(), p.vault.Close())
}
