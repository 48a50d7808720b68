// Package attest joins the two truths. It writes the statements that the system makes
// about evidence, folds the ledger into the state database, and holds evidence, ledger
// and state against each other.
//
// It promises: a statement that Record or Critical acknowledged is durable and can be
// found in the state at once; a segment takes no record before the ledger knows it;
// each closed segment has a statement with its roots, also where the process died
// between the two; and Check names evidence that the ledger knows otherwise, with no
// key.
//
// What a person may do is the caller's business, and so is doing it only after the
// statement stands.
package attest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/state"
)

// System is the actor of what no person asked for.
const System = "system"

// Act is a statement to be made.
type Act struct {
	ID      uuid.UUID // zero: a new one
	Kind    string    // one of ledger.Kinds
	Actor   string    // "os:1000", "session:<8 hex>", "officer:<id>" or System
	Purpose string    // a code or the id of a case; may be empty
	Subject []string  // the objects that it is about: the keys under which it is found again
	Detail  any       // becomes a JSON object: no identity, free text, address or fraction
}

// ErrNoWitness is wrapped where an act must be witnessed and no witness is configured.
var ErrNoWitness = fmt.Errorf("no witness is configured: %w", ledger.ErrUnwitnessed)

// Options of a recorder.
type Options struct {
	Ledger ledger.Options // OnAlarm is filled here
	State  *state.DB
	Log    *slog.Logger
	// Before are the logs that this one succeeds, oldest first.
	Before []*ledger.Closed
}

// Recorder is the open ledger with its projection. It is safe for concurrent use. Its
// statements are numbered on from those of the logs that it succeeds.
type Recorder struct {
	ledger    *ledger.Ledger
	before    []*ledger.Closed
	base      uint64 // statements in the logs before
	origin    string
	state     *state.DB
	log       *slog.Logger
	now       func() time.Time
	witnesses []ledger.Witness

	foldMu sync.Mutex // one folds at a time
	next   uint64     // guarded by foldMu

	alarms chan ledger.Alarm
	done   sync.WaitGroup
	quit   chan struct{}
}

// Open opens the ledger and folds what the state has not seen. The caller closes the
// state after the recorder.
func Open(ctx context.Context, o Options) (*Recorder, error) {
	r := &Recorder{state: o.State, log: o.Log, before: o.Before, origin: o.Ledger.Origin, now: o.Ledger.Now, witnesses: o.Ledger.Witnesses, alarms: make(chan ledger.Alarm, 64), quit: make(chan struct{})}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.now == nil {
		r.now = time.Now
	}
	for _, c := range r.before {
		r.base += c.Size()
	}
	o.Ledger.Log = r.log
	o.Ledger.OnAlarm = func(a ledger.Alarm) {
		select {
		case r.alarms <- a:
		default: // it is in the log and in Alarms
		}
	}
	var err error
	if r.ledger, err = ledger.Open(ctx, o.Ledger); err != nil {
		return nil, err
	}
	if r.next, err = r.state.Told(ctx); err != nil {
		return nil, errors.Join(err, r.ledger.Close())
	}
	if r.next > r.size() { // the state is of another, longer ledger: it is a view
		if err := r.state.Forgotten(ctx); err != nil {
			return nil, errors.Join(err, r.ledger.Close())
		}
		r.log.Error("the state knew more statements than the ledger has: an older copy of the ledger was put back, or it was cut", "state", r.next, "ledger", r.size())
		r.alarms <- ledger.Alarm{Kind: "state.ahead", Size: r.size()}
		r.next = 0
	}
	if err := r.fold(ctx, r.size()); err != nil {
		return nil, errors.Join(err, r.ledger.Close())
	}
	r.done.Add(1)
	go r.raise()
	return r, nil
}

// raise turns alarms of the ledger into statements, until Close.
func (r *Recorder) raise() {
	defer r.done.Done()
	for {
		select {
		case <-r.quit:
			return
		case a := <-r.alarms:
			if a.Kind == ledger.AlarmDisk {
				continue // what cannot be written cannot be stated
			}
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			_, err := r.Record(ctx, Act{Kind: "alarm.raised", Actor: System, Subject: []string{a.Kind}, Detail: map[string]any{"alarm": a.Kind, "size": a.Size}})
			cancel()
			if err != nil && !errors.Is(err, ledger.ErrClosed) {
				r.log.Error("an alarm could not be stated", "kind", a.Kind, "err", err)
			}
		}
	}
}

// Ledger is the log that statements go into now. It counts its own statements alone:
// what has the number of a fact is read by the methods of the recorder.
func (r *Recorder) Ledger() *ledger.Ledger { return r.ledger }

// size is how many statements all logs hold.
func (r *Recorder) size() uint64 { return r.base + r.ledger.Size() }

// of finds the log of a statement: nil for the current one.
func (r *Recorder) of(index uint64) (c *ledger.Closed, own uint64) {
	for _, c := range r.before {
		if index < c.Size() {
			return c, index
		}
		index -= c.Size()
	}
	return nil, index
}

// Origin names the log that statements go into now.
func (r *Recorder) Origin() string { return r.origin }

// Own is the number of a statement in its own log, and whether that is the current one.
func (r *Recorder) Own(index uint64) (own uint64, current bool) {
	c, own := r.of(index)
	return own, c == nil
}

// Leaf reads the exact bytes of a statement.
func (r *Recorder) Leaf(ctx context.Context, index uint64) ([]byte, error) {
	c, own := r.of(index)
	if c != nil {
		return c.Leaf(ctx, own)
	}
	return r.ledger.Leaf(ctx, own)
}

// Prove makes a tlog-proof for a statement, by the log in which it stands.
func (r *Recorder) Prove(ctx context.Context, index uint64) ([]byte, error) {
	c, own := r.of(index)
	if c != nil {
		return c.Prove(ctx, own)
	}
	return r.ledger.Prove(ctx, own)
}

// Witnessed is how many statements enough witnesses have cosigned, those of earlier
// logs among them: two people of two offices have closed those.
func (r *Recorder) Witnessed() (size uint64, at time.Time) {
	size, at = r.ledger.Witnessed()
	return r.base + size, at
}

// PutPayload keeps a payload for a statement to come.
func (r *Recorder) PutPayload(b []byte) (ledger.Digest, error) { return r.ledger.PutPayload(b) }

// Payload reads a payload, of whichever log.
func (r *Recorder) Payload(d ledger.Digest) ([]byte, error) {
	b, err := r.ledger.Payload(d)
	for i := len(r.before) - 1; i >= 0 && errors.Is(err, ledger.ErrNoPayload); i-- {
		b, err = r.before[i].Payload(d)
	}
	return b, err
}

// Each calls fn for every durable statement of all logs from an index on, in order, and
// returns the index to go on from.
func (r *Recorder) Each(ctx context.Context, from uint64, fn func(index uint64, s ledger.Statement) error) (uint64, error) {
	return r.each(ctx, from, fn)
}

// each reads all logs from a statement on.
func (r *Recorder) each(ctx context.Context, from uint64, fn func(index uint64, s ledger.Statement) error) (uint64, error) {
	base := uint64(0)
	for _, c := range r.before {
		if from < base+c.Size() {
			next, err := c.Each(ctx, from-base, func(i uint64, s ledger.Statement, _ []byte) error { return fn(base+i, s) })
			if from = base + next; err != nil {
				return from, err
			}
		}
		base += c.Size()
	}
	next, err := r.ledger.Each(ctx, from-base, func(i uint64, s ledger.Statement, _ []byte) error { return fn(base+i, s) })
	return base + next, err
}

// Close closes the ledger.
func (r *Recorder) Close() error {
	close(r.quit)
	r.done.Wait()
	return r.ledger.Close()
}

func (r *Recorder) statement(a Act) (ledger.Statement, error) {
	s, err := ledger.New(a.Kind, a.Actor, r.now(), a.Detail)
	if err != nil {
		return s, err
	}
	if a.ID != (uuid.UUID{}) {
		s.ID = a.ID
	}
	s.Purpose, s.Subject = a.Purpose, a.Subject
	return s, nil
}

// Record adds a statement. It is durable and folded when Record returns nil; then, and
// not before, the act may take effect.
func (r *Recorder) Record(ctx context.Context, a Act) (uint64, error) {
	s, err := r.statement(a)
	if err != nil {
		return 0, err
	}
	index, err := r.ledger.Add(ctx, s)
	if err != nil {
		return 0, fmt.Errorf("stating %s: %w", a.Kind, err)
	}
	index += r.base
	return index, r.fold(ctx, index+1)
}

// Critical adds a statement and waits until enough witnesses have cosigned it. On an
// error the act must not be done; one that wraps ledger.ErrUnwitnessed says that the
// statement stands and the witnesses are missing.
func (r *Recorder) Critical(ctx context.Context, a Act) (ledger.Receipt, error) {
	if len(r.witnesses) == 0 {
		return ledger.Receipt{}, fmt.Errorf("stating %s: %w", a.Kind, ErrNoWitness)
	}
	s, err := r.statement(a)
	if err != nil {
		return ledger.Receipt{}, err
	}
	receipt, err := r.ledger.AddWitnessed(ctx, s)
	receipt.Index += r.base
	if errors.Is(err, ledger.ErrUnwitnessed) {
		return receipt, errors.Join(fmt.Errorf("stating %s: %w", a.Kind, err), r.fold(ctx, receipt.Index+1))
	}
	if err != nil {
		return receipt, fmt.Errorf("stating %s: %w", a.Kind, err)
	}
	return receipt, r.fold(ctx, receipt.Index+1)
}

// Facts gives the newest statement of a kind about each object.
func (r *Recorder) Facts(ctx context.Context, kind string) ([]state.Fact, error) {
	return r.state.Facts(ctx, kind)
}

// FactsSince is Facts of those that were stated at a moment or later.
func (r *Recorder) FactsSince(ctx context.Context, kind string, since time.Time) ([]state.Fact, error) {
	return r.state.FactsSince(ctx, kind, since)
}

// Looks gives the statements about the looks that wait for a review, or were reviewed at
// a moment or later.
func (r *Recorder) Looks(ctx context.Context, since time.Time) ([]state.Fact, error) {
	return r.state.Looks(ctx, since)
}

// Fact gives the newest statement of a kind about one object; ok is false where
// nothing was stated.
func (r *Recorder) Fact(ctx context.Context, kind, key string) (f state.Fact, ok bool, err error) {
	return r.state.Fact(ctx, kind, key)
}

// fold brings the state up to size. Who finds that done has nothing to do.
func (r *Recorder) fold(ctx context.Context, size uint64) error {
	r.foldMu.Lock()
	defer r.foldMu.Unlock()
	for r.next < size {
		var facts []state.Fact
		next, err := r.each(ctx, r.next, func(index uint64, s ledger.Statement) error {
			facts = append(facts, Fold(index, s)...)
			if len(facts) >= foldBatch {
				return errFull
			}
			return nil
		})
		if errors.Is(err, errFull) {
			next, err = next+1, nil
		}
		if err != nil {
			return fmt.Errorf("folding the ledger: %w", err)
		}
		if err := r.state.Tell(ctx, next, facts); err != nil {
			return err
		}
		r.next = next
	}
	return nil
}

// foldBatch bounds the facts of one transaction.
const foldBatch = 4096

var errFull = errors.New("enough for one transaction")

// Rebuild folds the whole ledger anew, after the state was emptied.
func (r *Recorder) Rebuild(ctx context.Context) error {
	r.foldMu.Lock()
	if err := r.state.Forgotten(ctx); err != nil {
		r.foldMu.Unlock()
		return err
	}
	r.next = 0
	r.foldMu.Unlock()
	return r.fold(ctx, r.size())
}

// Fold turns a statement into facts: one for each object that it is about. A later
// statement of the same kind about the same object takes its place. What covered a look
// has a fact of its own, CoverUsed.
func Fold(index uint64, s ledger.Statement) []state.Fact {
	facts := make([]state.Fact, len(s.Subject), len(s.Subject)+1)
	for i, key := range s.Subject {
		facts[i] = state.Fact{Kind: s.Kind, Key: key, Index: index, Time: s.Time, Actor: s.Actor, Detail: s.Detail}
	}
	if s.Kind == "request.served" && len(s.Subject) > 0 {
		var d struct {
			Cover string `json:"cover"`
		}
		if json.Unmarshal(s.Detail, &d) == nil && d.Cover != "" { // what is not of its form was under nothing
			facts = append(facts, state.Fact{Kind: CoverUsed, Key: d.Cover, Index: index, Time: s.Time, Actor: s.Actor})
		}
	}
	return facts
}

// CoverUsed is the kind of the fact that a look was made under an authorisation, a grant or
// a broken glass, about its id; the newest look counts. No statement is of this kind.
const CoverUsed = "cover.used"

// Folded is the fold of a whole ledger in memory.
type Folded struct {
	Next  uint64
	Facts map[[2]string]state.Fact // by kind and key

	holds    []heldFor            // every hold there was, in the order in which they were placed
	enrolled map[[2]string]uint64 // one more than the first statement about a passkey, by account and record
}

// heldFor is a hold with the statements between which it was in force.
type heldFor struct {
	id            string
	placed, ended uint64 // ended 0: it is in force
	Compartment   string
	From, To      time.Time // of sealing
}

// NewFolded begins an empty fold.
func NewFolded() *Folded { return &Folded{Facts: make(map[[2]string]state.Fact)} }

// Add takes the next statement in. It fits ledger.Verifiers.Each.
func (f *Folded) Add(index uint64, s ledger.Statement) {
	for _, fact := range Fold(index, s) {
		f.Facts[[2]string{fact.Kind, fact.Key}] = fact
		if fact.Kind == "request.served" || fact.Kind == "look.reviewed" {
			f.settle(fact.Key)
		}
		switch fact.Kind {
		case "hold.placed":
			h := struct{ Scope heldFor }{}
			if decode(fact, &h) == nil { // one of a later version holds nothing here
				h.Scope.id, h.Scope.placed = fact.Key, index
				f.holds = append(f.holds, h.Scope)
			}
		case "login.passkey_added":
			f.enrols(fact)
		case "hold.released":
			for i := range f.holds {
				if f.holds[i].id == fact.Key && f.holds[i].ended == 0 {
					f.holds[i].ended = index
				}
			}
		}
	}
	f.Next = index + 1
}

// settle says of a look when it was reviewed, as the state does.
func (f *Folded) settle(key string) {
	look, ok := f.Facts[[2]string{"request.served", key}]
	if !ok {
		return
	}
	var by *state.Fact
	if review, ok := f.Facts[[2]string{"look.reviewed", key}]; ok {
		by = &review
	}
	look.Settled = state.SettledBy(look.Index, by)
	f.Facts[[2]string{"request.served", key}] = look
}

// heldAt gives a hold that was in force over a segment at a statement, empty where none
// was. It is as narrow as the lifecycle reads a scope: by compartment and time of sealing.
func (f *Folded) heldAt(index uint64, s *evidence.SegmentReport) string {
	if s.First.IsZero() {
		return ""
	}
	for _, h := range f.holds {
		switch {
		case h.placed > index || h.ended != 0 && h.ended < index:
		case h.Compartment != "" && h.Compartment != s.Compartment:
		case !h.From.IsZero() && s.Last.Before(h.From):
		case !h.To.IsZero() && s.First.After(h.To):
		default:
			return h.id
		}
	}
	return ""
}

// Fact gives one fact.
func (f *Folded) Fact(kind, key string) (state.Fact, bool) {
	fact, ok := f.Facts[[2]string{kind, key}]
	return fact, ok
}

// Differences compares the state database with the ledger and says where they
// disagree: somebody changed the file, or it is older. It folds the ledger up to
// where the state has read.
func (r *Recorder) Differences(ctx context.Context) ([]string, error) {
	told, all, err := r.state.AllFacts(ctx)
	if err != nil {
		return nil, err
	}
	f := NewFolded()
	_, err = r.each(ctx, 0, func(index uint64, s ledger.Statement) error {
		if index >= told {
			return errFull
		}
		f.Add(index, s)
		return nil
	})
	if err != nil && !errors.Is(err, errFull) {
		return nil, err
	}
	return f.compare(told, all), nil
}

// compare holds facts of a state file against the fold.
func (f *Folded) compare(told uint64, all []state.Fact) []string {
	var out []string
	if told > f.Next {
		return append(out, fmt.Sprintf("the state has read %d statements and the ledger has %d", told, f.Next))
	}
	seen := make(map[[2]string]bool, len(all))
	for _, have := range all {
		key := [2]string{have.Kind, have.Key}
		seen[key] = true
		want, ok := f.Facts[key]
		switch {
		case !ok:
			out = append(out, fmt.Sprintf("the state knows %s about %s, and no statement says so", have.Kind, have.Key))
		case !same(want, have):
			out = append(out, fmt.Sprintf("the state has %s about %s otherwise than statement %d", have.Kind, have.Key, want.Index))
		}
	}
	for key, want := range f.Facts {
		if !seen[key] {
			out = append(out, fmt.Sprintf("the state lacks %s about %s of statement %d", key[0], key[1], want.Index))
		}
	}
	slices.Sort(out)
	return out
}

func same(a, b state.Fact) bool {
	return a.Index == b.Index && a.Time.Equal(b.Time) && a.Actor == b.Actor && a.Settled == b.Settled && string(a.Detail) == string(b.Detail)
}

// decode reads the detail of a fact.
func decode(f state.Fact, v any) error {
	if err := json.Unmarshal(f.Detail, v); err != nil {
		return fmt.Errorf("statement %d: %w", f.Index, err)
	}
	return nil
}
