// Package oversight watches those who look at people. It owns the overseer's queue, the
// pace of looking, the independence of who watches, and the report with its form,
// docs/formats/oversight.md.
//
// It promises: all that a Book knows is a fold of the ledger, so that it is the same
// after a restart; every look at a person and the drawn tenth of the wide ones wait
// until an overseer of another chain of command has stated a review; where looks pile
// up beyond two weeks of reviews, new authorisations wait; where no independent office
// has been heard for 14 days, or none is held, looking at people stops until one is
// back; and no count from 1 to 7 can be worked out from a report, by those who know how
// it was made too. A Book without a record of offices stops nothing: then nobody looks.
//
// It leaves to others to state the looks (web), what authorisations are and to end them
// (cases), who somebody is, and to publish.
package oversight

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/policy"
	"github.com/counterseal/counterseal/internal/state"
)

// The clocks and numbers.
const (
	SilentAfter = 14 * 24 * time.Hour // without a heartbeat
	Fortnight   = 14 * 24 * time.Hour // of the rules about repeated looks
	Measured    = 28 * 24 * time.Hour // in which reviews are counted for the capacity
	Kept        = 90 * 24 * time.Hour // how long a reviewed look stays in the queue's memory
	Quick       = time.Minute         // an approval sooner than this is marked
	Repeats     = 3                   // looks at one token by one person without a case
	Many        = 5                   // people who look at one token
	SameWords   = 3                   // requests of one person in the same words
	Floor       = 50                  // reviews in two weeks, where the configuration says nothing
	Skew        = 5 * time.Minute     // how far from the future a statement may come
)

// Why looking at people has stopped, and why it goes on.
const (
	Vacant    = "vacant"    // no independent office of an overseer is held
	Unheard   = "heartbeat" // none was heard for SilentAfter
	Begun     = "begun"     // the first record of offices: the clock runs from here
	Heard     = "heartbeat"
	stampForm = "2006-01-02T15:04:05Z"
)

// The kinds of looks in the queue.
const (
	People = "people" // covered by an authorisation, a grant or a broken glass
	// Inspecting is a look of an inspector's office: it is counted, and nobody else reviews it.
	Inspecting = "inspector"
	// Night is a name that was asked for at night, under a warrant of two offices.
	Night = "night"
	Wide  = "wide" // it lists people by what they did and nothing covers it: counts, or findings
)

// The outcomes of a review.
const (
	Justified = state.Justified
	Excessive = state.Excessive
	Misuse    = state.Misuse
)

// Outcomes are what a review may find.
func Outcomes() []string { return []string{Justified, Excessive, Misuse} }

// Drawn says whether a wide look is one of the tenth that is reviewed. It depends on the
// id of the statement alone, so that everybody can check the draw and nobody who asks can
// choose: docs/formats/oversight.md.
func Drawn(id uuid.UUID) bool {
	sum := sha256.Sum256(append([]byte("counterseal look/v1\n"), id[:]...))
	return binary.BigEndian.Uint64(sum[:8]) < math.MaxUint64/10
}

// Settings are what a configuration says.
type Settings struct {
	// Floor is how many reviews in two weeks are taken as the capacity, if fewer were
	// made; 0: Floor.
	Floor int
	// Begin and End are the hours of a working day, Monday to Friday, in Zone. Both 0:
	// no hour is out of hours.
	Begin, End int
	Zone       *time.Location // nil: UTC
}

// Statements are a ledger and its fold. Looks gives the statements about each look that
// waits for a review, or was reviewed at a moment or later; FactsSince the facts of a kind
// that were stated then or later.
type Statements interface {
	attest.Statements
	Looks(ctx context.Context, since time.Time) ([]state.Fact, error)
	FactsSince(ctx context.Context, kind string, since time.Time) ([]state.Fact, error)
}

// Options of a Book.
type Options struct {
	Statements Statements
	// Policy judges an act of this package; nil refuses everything.
	Policy func(context.Context, policy.Request) policy.Decision
	// Offices is the record in force; nil, or a nil record: nobody is watched.
	Offices func() *policy.Offices
	// Roster gives the officers; where there are any, a heartbeat needs the signature of
	// one of oversight. nil: there are none.
	Roster func() (*officer.Roster, error)
	// Org is the data directory, which a heartbeat names.
	Org uuid.UUID
	// Actor names who acts for the ledger, in a word; nil: "account:" and the id.
	Actor    func(context.Context, policy.Person) string
	Settings Settings
	Now      func() time.Time // nil: time.Now
	// Witnessed is when witnesses last cosigned the ledger, by their clocks: a server whose
	// clock stands still or was put back waits no longer for an overseer. nil: there are none.
	Witnessed func() time.Time
}

// Book knows the looks, their reviews, and whether somebody watches. It is safe for
// concurrent use.
type Book struct {
	o Options

	mu    sync.Mutex // guards all below, and is held while a statement is made
	stale bool       // a statement may stand that was not folded
	looks map[string]*look
	heard map[string]state.Fact // heartbeats by office
	begun time.Time
	quiet *Silence // stated, and not ended
	turn  uint64   // the statement that said the last of the two
}

type look struct {
	id                                  string
	index                               uint64
	at                                  time.Time
	actor, office, act, selects, caseID string
	purpose, cover, coveredBy, kind     string
	question                            ledger.Digest
	answered                            bool
	rows, people                        int
	outcome                             string
	reviewed                            time.Time
	read                                bool // of the payload
	about                               About
	path, query                         string
}

// kinds are the statements of whether somebody watches, and of names that were asked for at
// night: few, and all are read.
var kinds = []string{"oversight.heartbeat", "oversight.silent", "oversight.back", "duty.asked", "duty.opened"}

// Open reads a Book from the ledger: of the looks those that wait, and those of the last
// days, Kept.
func Open(ctx context.Context, o Options) (*Book, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Offices == nil {
		o.Offices = func() *policy.Offices { return nil }
	}
	if o.Roster == nil {
		o.Roster = func() (*officer.Roster, error) { return nil, nil }
	}
	if o.Settings.Floor == 0 {
		o.Settings.Floor = Floor
	}
	if o.Settings.Zone == nil {
		o.Settings.Zone = time.UTC
	}
	if o.Witnessed == nil {
		o.Witnessed = func() time.Time { return time.Time{} }
	}
	b := &Book{o: o}
	return b, b.load(ctx)
}

func (b *Book) load(ctx context.Context) error {
	all, err := b.o.Statements.Looks(ctx, b.now().Add(-Kept))
	if err != nil {
		return err
	}
	for _, kind := range kinds {
		facts, err := b.o.Statements.Facts(ctx, kind)
		if err != nil {
			return fmt.Errorf("reading %s: %w", kind, err)
		}
		all = append(all, facts...)
		for i := range facts {
			if kind != "duty.asked" {
				break
			}
			review, ok, err := b.o.Statements.Fact(ctx, "look.reviewed", facts[i].Key)
			if err != nil {
				return fmt.Errorf("reading a review: %w", err)
			}
			if ok {
				all = append(all, review)
			}
		}
	}
	slices.SortFunc(all, func(x, y state.Fact) int { return cmp.Compare(x.Index, y.Index) })
	b.looks, b.heard, b.begun, b.quiet, b.turn = map[string]*look{}, map[string]state.Fact{}, time.Time{}, nil, 0
	for i := range all {
		b.fold(&all[i])
	}
	b.forget()
	b.stale = false
	return nil
}

// forget drops looks that were reviewed long ago.
func (b *Book) forget() {
	before := b.now().Add(-Kept)
	for id, l := range b.looks {
		if l.outcome != "" && l.reviewed.Before(before) {
			delete(b.looks, id)
		}
	}
}

// servedDetail is what a statement of a look has for this package.
type servedDetail struct {
	Act       string        `json:"act"`
	Selects   string        `json:"selects"`
	Office    string        `json:"office"`
	Cover     string        `json:"cover"`
	CoveredBy string        `json:"covered_by"`
	Case      string        `json:"case"`
	Purpose   string        `json:"purpose"`
	Look      string        `json:"look"`
	Question  ledger.Digest `json:"question"`
}

type answeredDetail struct {
	Look   string `json:"look"`
	Rows   int    `json:"rows"`
	People int    `json:"people"`
}

type reviewedDetail struct {
	Look    string `json:"look"`
	Kind    string `json:"kind"`
	Looked  string `json:"looked"` // when: the report attributes the review to it
	Office  string `json:"office"` // that reviewed
	Outcome string `json:"outcome"`
}

type silentDetail struct {
	Reason string `json:"reason"`
	Since  string `json:"since"`
}

// fold takes one statement in. What is not of its form waits for a review all the same.
func (b *Book) fold(f *state.Fact) {
	switch f.Kind {
	case "request.served":
		var d servedDetail
		if json.Unmarshal(f.Detail, &d) != nil || d.Look != Wide {
			d.Look = People
		}
		b.looked(f, &d)
	case "duty.asked":
		var d servedDetail
		_ = json.Unmarshal(f.Detail, &d)
		d.Look, d.CoveredBy = Night, Night
		b.looked(f, &d)
	case "duty.opened":
		if l := b.looks[f.Key]; l != nil {
			l.answered, l.rows, l.people = true, 1, 1
		}
	case "look.answered":
		var d answeredDetail
		if l := b.looks[f.Key]; l != nil && json.Unmarshal(f.Detail, &d) == nil {
			l.answered, l.rows, l.people = true, d.Rows, d.People
		}
	case "look.reviewed":
		if l := b.looks[f.Key]; l != nil && l.outcome == "" {
			if outcome, ok := state.Outcome(f.Detail); ok {
				l.outcome, l.reviewed = outcome, f.Time
			}
		}
	case "oversight.heartbeat":
		b.heard[f.Key] = *f
	case "oversight.silent":
		var d silentDetail
		_ = json.Unmarshal(f.Detail, &d) // whatever it says, it has stopped
		if f.Index >= b.turn {
			b.quiet, b.turn = &Silence{Reason: cmp.Or(d.Reason, Unheard), Since: timeOr(d.Since, f.Time)}, f.Index
		}
	case "oversight.back":
		var d silentDetail
		_ = json.Unmarshal(f.Detail, &d)
		if d.Reason == Begun && (b.begun.IsZero() || f.Time.Before(b.begun)) {
			b.begun = f.Time
		}
		if f.Index >= b.turn {
			b.quiet, b.turn = nil, f.Index
		}
	}
}

// looked puts a look into the queue.
func (b *Book) looked(f *state.Fact, d *servedDetail) {
	if b.looks[f.Key] == nil {
		b.looks[f.Key] = &look{id: f.Key, index: f.Index, at: f.Time, actor: f.Actor, office: d.Office, act: d.Act, selects: d.Selects,
			caseID: d.Case, purpose: d.Purpose, cover: d.Cover, coveredBy: d.CoveredBy, kind: d.Look, question: d.Question}
	}
}

func timeOr(text string, or time.Time) time.Time {
	if t, err := time.Parse(stampForm, text); err == nil {
		return t
	}
	return or
}

func stamp(t time.Time) string { return t.UTC().Format(stampForm) }

func (b *Book) now() time.Time { return b.o.Now().UTC() }

// lock takes the mutex and reads the ledger again where a statement may have been made
// that the Book has not folded.
func (b *Book) lock(ctx context.Context) error {
	b.mu.Lock()
	if b.stale {
		if err := b.load(ctx); err != nil {
			b.mu.Unlock()
			return err
		}
	}
	return nil
}

// Stated takes in what web has stated of a look, or of its answer. A nil Book watches
// nothing.
func (b *Book) Stated(ctx context.Context, kind, id string) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	f, ok, err := b.o.Statements.Fact(ctx, kind, id)
	if err != nil || !ok {
		b.stale = true
		return
	}
	b.fold(&f)
}

// state makes a statement and folds it. Nothing takes effect before.
func (b *Book) state(ctx context.Context, by policy.Person, kind, key string, detail any) error {
	actor := "account:" + by.ID
	switch {
	case by.ID == "":
		actor = attest.System
	case b.o.Actor != nil:
		actor = b.o.Actor(ctx, by)
	case !ledger.IsWord(actor):
		actor = "account:unnamed"
	}
	if _, err := b.o.Statements.Record(ctx, attest.Act{Kind: kind, Actor: actor, Subject: []string{key}, Detail: detail}); err != nil {
		b.stale = true // it may stand all the same
		return err
	}
	f, ok, err := b.o.Statements.Fact(ctx, kind, key)
	if err == nil && !ok {
		err = fmt.Errorf("%s was stated and is not found", kind)
	}
	if err != nil {
		b.stale = true
		return err
	}
	b.fold(&f)
	return nil
}

// Refusal is an answer that says no. It names no person.
type Refusal struct{ Code, Reason, Hint string }

func (r *Refusal) Error() string { return r.Reason }

// The codes of refusals.
const (
	BadInput     = "bad_input"
	Unknown      = "unknown"
	NotPermitted = "not_permitted"
	NotFresh     = "not_fresh"
	Settled      = "settled"
	Unsigned     = "unsigned"
	Paced        = "paced"        // unreviewed looks pile up
	Unwatched    = "no_oversight" // no independent overseer is there
)

func ident(id string) string { return strings.ToLower(strings.TrimSpace(id)) }

func newID() (string, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("making an id: %w", err)
	}
	return id.String(), nil
}
