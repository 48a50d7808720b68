// Package lifecycle ends the life of evidence: retention, legal hold, destruction.
// Decision record 0013 says which day counts, docs/operations.md how people use it.
//
// It promises: nothing is destroyed before its retention is over, announced under a
// witnessed statement and left for the grace; nothing under a hold is ever destroyed,
// which is looked at again under the lock that placing a hold takes, in the moment
// before each key card goes; segment, key, index week and what else we derived go
// together, and a sealed name with the last record that holds its token; each step can be
// cut off and the next pass ends it; and what was destroyed stays destroyed, also where
// somebody brings a card or a row back.
//
// It makes no statement about segments that live (internal/attest), opens none, and
// cannot reach copies that left the data directory: exports, packages, unlocked keys,
// backups of keys/segments. The statement of a destruction names them as such.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/index"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/pia"
	"github.com/counterseal/counterseal/internal/state"
	"github.com/counterseal/counterseal/internal/vault"
)

// DefaultGrace lies between the announcement of a destruction and the destruction.
const DefaultGrace = 72 * time.Hour

// Statements makes statements and finds them again. A fact is the newest statement
// of a kind about an object; it is found as soon as Record or Critical returns.
// Critical gives an error that wraps ledger.ErrUnwitnessed where too few witnesses
// answer; then the statement may stand all the same. *attest.Recorder is one.
type Statements interface {
	Record(context.Context, attest.Act) (uint64, error)
	Critical(context.Context, attest.Act) (ledger.Receipt, error)
	Facts(ctx context.Context, kind string) ([]state.Fact, error)
	Fact(ctx context.Context, kind, key string) (state.Fact, bool, error)
}

// Ledger keeps payloads and knows how much enough witnesses have cosigned.
// *attest.Recorder is one.
type Ledger interface {
	PutPayload([]byte) (ledger.Digest, error)
	Payload(ledger.Digest) ([]byte, error)
	Witnessed() (size uint64, at time.Time)
}

// Options of a lifecycle.
type Options struct {
	Evidence   *evidence.Store
	Index      func() *index.Index // as it is now: a rebuild replaces it
	State      *state.DB
	Statements Statements
	Ledger     Ledger
	// Rules are the lines of all assessments in force.
	Rules func() []*pia.Rule
	// Past tells whether whoever reads the event stream is behind a position. A
	// segment that the index has not read yet is not destroyed: its rows would come
	// after it. nil: nobody reads.
	Past func(compartment string, end evidence.Position) bool
	// Agree compares the state with the ledger. A pass destroys nothing while they differ:
	// a hold that somebody cut out of the state stands in the ledger. nil: not asked.
	Agree func(context.Context) error
	// Roster are the officers who may release a hold; nil: there are none.
	Roster *officer.Roster
	Org    uuid.UUID // of the data directory, which a request to release names
	// Wrap and Unwrap keep what a hold of an inspector's office covers under a key of the
	// server, bound to its id: the retention has to know it. nil: there are no such holds.
	Wrap   func(plain, id []byte) ([]byte, error)
	Unwrap func(box, id []byte) ([]byte, error)
	// Vault has the sealed names; nil: there are none.
	Vault *vault.Vault
	Grace time.Duration // from announcing to destroying; 0 is none, see DefaultGrace
	Now   func() time.Time
	Log   *slog.Logger
}

// Lifecycle plans and destroys. It is safe for concurrent use.
type Lifecycle struct {
	o   Options
	log *slog.Logger
	now func() time.Time

	// mu is held from looking at the holds to the removal of a key card, and while a
	// hold is placed or released: a hold that stands is obeyed.
	mu sync.Mutex

	lastMu sync.Mutex
	last   Report // of the newest pass
	failed error  // why it did not end

	// names tells that sealed names may outlive their records: something was destroyed, or
	// nobody looked since the start. Guarded by mu.
	names bool
}

// New makes a lifecycle.
func New(o Options) (*Lifecycle, error) {
	if o.Evidence == nil || o.Index == nil || o.State == nil || o.Statements == nil || o.Ledger == nil || o.Rules == nil {
		return nil, errors.New("a lifecycle needs evidence, index, state, statements, ledger and rules")
	}
	if o.Grace < 0 {
		return nil, errors.New("the grace before a destruction cannot be negative")
	}
	l := &Lifecycle{o: o, log: o.Log, now: o.Now, names: true}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if l.now == nil {
		l.now = time.Now
	}
	return l, nil
}

// checkEvery is how often Run looks, where nothing is due earlier.
const checkEvery = 24 * time.Hour

// Begin ends what an earlier process had begun, and destroys again what somebody
// brought back, before anything reads the evidence.
func (l *Lifecycle) Begin(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.finish(ctx)
	return err
}

// Run makes a pass at once and then daily, or when something announced is due, until
// the context ends. A pass that fails is logged, shown by Last, and made again within
// the hour: collecting and detecting go on meanwhile.
func (l *Lifecycle) Run(ctx context.Context) error {
	for {
		wait := checkEvery
		r, err := l.Pass(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			l.log.Error("a pass of retention did not end; it is made again", "err", err)
			wait = time.Hour
		case r.Unwitnessed > 0:
			l.log.Warn("a destruction waits for witnesses", "segments", r.Unwitnessed)
			wait = time.Hour
		case r.Busy > 0: // soon it is read
			wait = 10 * time.Minute
		case !r.Next.IsZero():
			wait = min(wait, max(r.Next.Sub(l.now()), time.Minute))
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
	}
}

// Last gives the report of the newest pass, and why it did not end, if so.
func (l *Lifecycle) Last() (Report, error) {
	l.lastMu.Lock()
	defer l.lastMu.Unlock()
	return l.last, l.failed
}

// segment is one segment that is no longer written, with what decides about it.
type segment struct {
	evidence.SegmentInfo
	first, last time.Time  // of sealing
	week        index.Week // of the youngest block
	early       index.Week // of the oldest

	removed bool // its card was there and is removed now
	gone    bool // it is being destroyed
}

// unit is what goes together: of the event stream all segments of a compartment that
// end in one week, with the index of that week; of originals one segment.
type unit struct {
	stream      evidence.Stream
	compartment string
	week        index.Week
	segments    []*segment // in order
}

func (u *unit) String() string {
	return fmt.Sprintf("%s/%s %s", u.stream, u.compartment, u.week.Name)
}

// units reads all segments. open are the weeks of those that are being written.
func (l *Lifecycle) units() (units []*unit, open map[weekKey]bool, err error) {
	open = make(map[weekKey]bool)
	byWeek := make(map[weekKey]*unit)
	for _, stream := range []evidence.Stream{evidence.Events, evidence.Originals} {
		for _, comp := range l.o.Evidence.Compartments(stream) {
			infos, err := l.o.Evidence.Segments(stream, comp)
			if err != nil {
				return nil, nil, fmt.Errorf("looking at the evidence: %w", err)
			}
			for i := range infos {
				s := describe(&infos[i], l.now())
				k := weekKey{stream, comp, s.week.Name}
				if s.State == "open" {
					open[k] = true
					open[weekKey{stream, comp, s.early.Name}] = true
					continue
				}
				u := byWeek[k]
				if u == nil || stream == evidence.Originals {
					u = &unit{stream: stream, compartment: comp, week: s.week}
					byWeek[k] = u
					units = append(units, u)
				}
				u.segments = append(u.segments, s)
			}
		}
	}
	return units, open, nil
}

type weekKey struct {
	stream      evidence.Stream
	compartment string
	week        string
}

// describe dates a segment. Where blocks do not say when they were sealed, the time
// in its id is the earliest; the end of a segment that cannot be read is not known,
// so it counts from an hour behind its opening, the longest that one is written.
func describe(in *evidence.SegmentInfo, now time.Time) *segment {
	s := &segment{SegmentInfo: *in, first: in.First, last: in.Last}
	sec, nsec := in.Segment.Time().UnixTime()
	made := time.Unix(sec, nsec).UTC()
	if s.first.IsZero() || made.Before(s.first) {
		s.first = made
	}
	if !in.Opened.IsZero() && in.Opened.Before(s.first) {
		s.first = in.Opened
	}
	switch {
	case in.State == "open":
		s.last = now
	case s.last.IsZero():
		s.last = made.Add(unreadable)
	}
	if s.last.Before(made) { // the clock went back while it was written
		s.last = made
	}
	s.week, s.early = index.WeekOf(in.Compartment, s.last), index.WeekOf(in.Compartment, s.first)
	return s
}

// unreadable is how long a segment without a readable end may have been written.
const unreadable = time.Hour

// has reports whether a week holds rows of the segment.
func (s *segment) has(w index.Week) bool { return !w.To.Before(s.early.To) && !s.week.To.Before(w.To) }

func sortUnits(us []*unit) {
	slices.SortStableFunc(us, func(a, b *unit) int {
		if c := a.week.From.Compare(b.week.From); c != 0 {
			return c
		}
		if c := int(a.stream) - int(b.stream); c != 0 {
			return c
		}
		return strings.Compare(a.compartment, b.compartment)
	})
}
