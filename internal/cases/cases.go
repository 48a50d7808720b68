// Package cases keeps what opens events about people: authorisations, the grants of
// incidents, broken glasses, and what is reviewed and asked afterwards. It owns the
// payloads of docs/formats/authorisation.md.
//
// It promises: nothing is covered before a statement of the ledger says so, and all that
// a Book knows is a fold of the ledger, so that it is the same after a restart; an
// authorisation is in force only where the people decided on exactly the request that
// they read, none of them asked for it or stands in the chain of command of who did, and
// its end has not come; a grant opens what a finding shows, for a rule that two people
// stood for before the events, and never by an event that failed; a broken glass and a
// first use of a grant stand in Reviews until somebody else has looked; a refusal names
// no person and says what to do next. What cannot be read, told or found covers nothing.
//
// It leaves to others who somebody is, what a question selects (access), what the acts
// of this package need (policy), to run a question inside of the Scope of its Cover, and
// to count. A leaf of the ledger holds ids, cases, codes, dates and salted digests;
// whom a look is about stands in payloads.
package cases

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/policy"
	"github.com/counterseal/counterseal/internal/state"
)

// The clocks.
const (
	MaxAuthorisation = 90 * 24 * time.Hour // from the request to the end
	Around           = 72 * time.Hour      // of a finding: what a grant opens, and until when
	Glass            = 4 * time.Hour       // how long a broken glass opens something
	ReviewWithin     = 3 * 24 * time.Hour  // later, its breaker breaks no other
	OwnRule          = 30 * 24 * time.Hour // how long a rule is fresh from the hands of somebody
	Skew             = 5 * time.Minute     // how far from the future a finding may come
)

// GlassSubjects is how many people one responder holds open by broken glasses.
const GlassSubjects = 20

// Options of a Book.
type Options struct {
	Statements attest.Statements
	// Policy judges an act of this package. The caller adds what the context knows: whether
	// a machine asks, and its scopes; the purpose. nil refuses everything.
	Policy func(context.Context, policy.Request) policy.Decision
	// Offices is the record in force; nil, or a nil record, is one without offices, and
	// then nothing is opened.
	Offices func() *policy.Offices
	// Recent gives the newest revisions of the open findings whose last event is not before
	// a moment; nil: there are none, and no grants.
	Recent func(ctx context.Context, since time.Time) ([]GrantFinding, error)
	// Actor names the asker for the ledger, in a word; nil: "account:" and the id.
	Actor func(context.Context, policy.Person) string
	// Stopped says why nobody may look at people now, whatever was authorised: no overseer
	// watches. Waits says why new authorisations wait. nil, or a nil refusal: it is not so.
	// They make no statement of this package and call nothing of the Book.
	Stopped func(context.Context) (*Refusal, error)
	Waits   func(context.Context) (*Refusal, error)
	Now     func() time.Time // nil: time.Now
}

// Book knows every authorisation, grant, broken glass and inquiry. It is safe for
// concurrent use.
type Book struct {
	o Options

	mu    sync.Mutex // guards all below, and is held while a statement is made
	stale bool       // a statement may stand that was not folded

	authorisations map[string]*authorisation
	codes          map[string]string // of what inspectors' offices asked for, by id; in memory alone
	looks          map[string]*look  // grants and broken glasses
	inquiries      map[string]*Inquiry
	reported       []Reported
	joined         map[string]*Joined // by case
	rules          rules
}

// kinds are the statements that a Book is the fold of.
var kinds = []string{
	"authorisation.requested", "authorisation.decided", "authorisation.ended",
	"grant.opened", "glass.broken", "grant.reviewed",
	"inquiry.received", "inquiry.answered", "question.reported", "rules.approved", "name.answered",
}

// Open reads a Book from the ledger.
func Open(ctx context.Context, o Options) (*Book, error) {
	b := &Book{o: o, codes: map[string]string{}}
	if b.o.Now == nil {
		b.o.Now = time.Now
	}
	if b.o.Offices == nil {
		b.o.Offices = func() *policy.Offices { return nil }
	}
	never := func(context.Context) (*Refusal, error) { return nil, nil }
	if b.o.Stopped == nil {
		b.o.Stopped = never
	}
	if b.o.Waits == nil {
		b.o.Waits = never
	}
	if err := b.load(ctx); err != nil {
		return nil, err
	}
	return b, nil
}

// load folds every statement anew.
func (b *Book) load(ctx context.Context) error {
	var all []state.Fact
	for _, kind := range kinds {
		facts, err := b.o.Statements.Facts(ctx, kind)
		if err != nil {
			return fmt.Errorf("reading %s: %w", kind, err)
		}
		all = append(all, facts...)
	}
	slices.SortFunc(all, func(x, y state.Fact) int { return cmp.Compare(x.Index, y.Index) })
	b.authorisations, b.looks, b.inquiries = map[string]*authorisation{}, map[string]*look{}, map[string]*Inquiry{}
	b.reported, b.rules, b.joined = nil, rules{}, map[string]*Joined{}
	for _, f := range all {
		if err := b.fold(f); err != nil {
			return err
		}
	}
	b.stale = false
	return nil
}

// fold takes one statement in. It fails only where a payload could not be read for a
// reason that may pass; what is not of its form, or not kept any more, covers nothing.
func (b *Book) fold(f state.Fact) error {
	var err error
	switch f.Kind {
	case "authorisation.requested":
		err = b.foldRequested(f)
	case "authorisation.decided":
		err = b.foldDecided(f)
	case "authorisation.ended":
		b.foldEnded(f)
	case "grant.opened":
		err = b.foldOpened(f)
	case "glass.broken":
		err = b.foldBroken(f)
	case "grant.reviewed":
		err = b.foldReviewed(f)
	case "inquiry.received":
		err = b.foldReceived(f)
	case "inquiry.answered":
		err = b.foldAnswered(f)
	case "question.reported":
		err = b.foldReported(f)
	case "rules.approved":
		err = b.foldRules(f)
	case "name.answered":
		err = b.foldNamed(f)
	}
	if err != nil {
		return fmt.Errorf("statement %d, %s: %w", f.Index, f.Kind, err)
	}
	return nil
}

// errUnread says that a payload is dropped or not of its form.
var errUnread = errors.New("a payload cannot be read")

// payload reads the payload of a statement into a form. It wraps errUnread where trying
// again would not help.
func (b *Book) payload(d ledger.Digest, v form) error {
	raw, err := b.o.Statements.Payload(d)
	switch {
	case errors.Is(err, ledger.ErrNoPayload):
		return errUnread
	case err != nil:
		return err
	}
	if err := parse(raw, v); err != nil {
		return errUnread
	}
	return nil
}

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

func (b *Book) now() time.Time { return b.o.Now().UTC() }

// state makes a statement and folds it. Nothing takes effect before.
func (b *Book) state(ctx context.Context, by policy.Person, kind, key, purpose string, detail any) error {
	actor := "account:" + by.ID
	switch {
	case by.ID == "":
		actor = attest.System
	case by.Inspector: // which of them is for the office to know
		actor = "office:" + by.Office
	case b.o.Actor != nil:
		actor = b.o.Actor(ctx, by)
	case !ledger.IsWord(actor): // a mail address, say: the payload has it
		actor = "account:unnamed"
	}
	if _, err := b.o.Statements.Record(ctx, attest.Act{Kind: kind, Actor: actor, Purpose: purpose, Subject: []string{key}, Detail: detail}); err != nil {
		b.stale = true // it may stand all the same
		return err
	}
	f, ok, err := b.o.Statements.Fact(ctx, kind, key)
	if err == nil && !ok {
		err = fmt.Errorf("%s was stated and is not found", kind)
	}
	if err == nil {
		err = b.fold(f)
	}
	b.stale = b.stale || err != nil
	return err
}

// put keeps a payload after the check that its reader will make.
func (b *Book) put(v form) (ledger.Digest, []byte, error) {
	raw, err := approval.Canonical(v)
	if err != nil {
		return ledger.Digest{}, nil, err
	}
	if err := parse(raw, v.fresh()); err != nil {
		return ledger.Digest{}, nil, mistake(err.Error())
	}
	d, err := b.o.Statements.PutPayload(raw)
	return d, raw, err
}

// Refusal is an answer that says no. It names no person, token or address.
type Refusal struct {
	Code   string // one of the codes below, stable
	Reason string
	Hint   string // what to do next
}

func (r *Refusal) Error() string { return r.Reason }

// The codes of refusals.
const (
	BadInput     = "bad_input"     // not of the form
	Unknown      = "unknown"       // no such request, look or inquiry
	Locked       = "locked"        // an inspector's office has to tell a code first
	NotPermitted = "not_permitted" // by the policies, or no office
	NotFresh     = "not_fresh"     // the login is too old to decide
	Altered      = "altered"       // the request is another one than the one that was read
	Settled      = "settled"       // it was decided, has ended or was reviewed
	Again        = "again"         // this person or office has decided
	Useless      = "useless"       // the decision adds nothing that is still needed
	Uncovered    = "uncovered"     // nothing covers the question
	Undecided    = "undecided"     // the authorisation is not decided yet
	Over         = "over"          // its time is over
	Subjects     = "subjects"      // somebody is named who is not in scope
	Times        = "times"         // beyond the time in scope
	Lists        = "lists"         // it would list people, which the scope does not say
	TooMany      = "too_many"      // people at once
	Standing     = "standing"      // it goes on by itself, and only an authorisation covers that
	Planted      = "planted"       // only attempts that failed name somebody
	FreshRule    = "fresh_rule"    // the rule is fresh from the hands of the asker
	Future       = "future"        // the finding is from the future
	OneGlass     = "one_glass"     // another one is open
	Unreviewed   = "unreviewed"    // an older one waits for its review
	Aimed        = "protected"     // aimed at a protected channel
)

func mistake(why string) *Refusal {
	return &Refusal{Code: BadInput, Reason: why, Hint: "correct it and ask again"}
}

func unknown(what string) *Refusal {
	return &Refusal{Code: Unknown, Reason: "there is no " + what + " with this id", Hint: "look at the list"}
}

// ident is the one spelling of a person id.
func ident(id string) string { return strings.ToLower(strings.TrimSpace(id)) }

// reading are the roles that read events.
var reading = []string{"analyst", "responder", "investigator"}

// holds reports whether somebody has one of the roles, as told and by an office that the
// record says is held today: a role or an office that was lost ends at once.
func holds(o *policy.Offices, by policy.Person, roles ...string) bool {
	if o == nil {
		return false
	}
	for _, f := range o.Offices {
		if f.Holder == "" || ident(f.Holder) != ident(by.ID) {
			continue
		}
		for _, r := range roles {
			if slices.Contains(f.Roles, r) && slices.Contains(by.Roles, r) {
				return true
			}
		}
	}
	return false
}

// ownerOf is who asks, with the chain of command and the appointing authorities of today.
func ownerOf(o *policy.Offices, id string) (owner, bool) {
	w := owner{Authorities: []string{}, Chain: []string{}, Person: ident(id)}
	if o == nil {
		return w, false
	}
	chain, ok := o.Chain(w.Person)
	if !ok {
		return w, false
	}
	for _, p := range chain {
		w.Chain = append(w.Chain, ident(p))
	}
	slices.Sort(w.Chain)
	w.Chain = slices.Compact(w.Chain)
	for _, f := range o.Offices {
		if ident(f.Holder) == w.Person && !slices.Contains(w.Authorities, f.Authority) {
			w.Authorities = append(w.Authorities, f.Authority)
		}
	}
	slices.Sort(w.Authorities)
	return w, true
}

// office gives the office that somebody decides in, if the record says that it is theirs.
func office(o *policy.Offices, by policy.Person) (policy.Office, bool) {
	if o == nil {
		return policy.Office{}, false
	}
	for _, f := range o.Offices {
		if f.ID == by.Office && f.Holder != "" && ident(f.Holder) == ident(by.ID) {
			return f, true
		}
	}
	return policy.Office{}, false
}

// permitted asks the policies about an act.
func (b *Book) permitted(ctx context.Context, by policy.Person, action, purpose string, res policy.Resource) error {
	return b.judged(ctx, policy.Request{Principal: by, Action: action, Resource: res, Context: policy.Context{Now: b.now(), Purpose: purpose}})
}

func (b *Book) judged(ctx context.Context, r policy.Request) error {
	d := policy.Decision{Reason: "no policies are in force"}
	if b.o.Policy != nil {
		d = b.o.Policy(ctx, r)
	}
	if d.Allow {
		return nil
	}
	if d.Reason == "" {
		d.Reason = "no policy permits this"
	}
	return &Refusal{Code: NotPermitted, Reason: d.Reason, Hint: "docs/policy-matrix.md tells who may"}
}

// decides asks the policies whether somebody may decide on what others asked for, as the
// caller has them and as the record of offices does: both have to do. Every authority that appointed an owner and every chain of command counts, those
// of the time of the request and those of today.
func (b *Book) decides(ctx context.Context, by policy.Person, action, id string, inspector bool, owners ...owner) (policy.Office, error) {
	o := b.o.Offices()
	in, ok := office(o, by)
	if !ok {
		return in, &Refusal{Code: NotPermitted, Reason: "only the holder of an office decides, and the record of offices does not have this one so", Hint: "log in again; the record of offices tells who decides"}
	}
	recorded, _ := o.Person(in.ID)
	for _, w := range owners {
		chain, authorities := slices.Clone(w.Chain), slices.Clone(w.Authorities)
		if today, ok := ownerOf(o, w.Person); ok {
			chain = append(chain, today.Chain...)
			authorities = append(authorities, today.Authorities...)
		}
		slices.Sort(chain)
		slices.Sort(authorities)
		chain = append([]string{}, slices.Compact(chain)...)
		for _, authority := range slices.Compact(authorities) {
			for _, principal := range []policy.Person{by, recorded} {
				if err := b.permitted(ctx, principal, action, "", policy.Resource{ID: id, Owner: w.Person, Chain: chain, Authority: authority, Inspector: inspector}); err != nil {
					return in, err
				}
			}
		}
		if len(authorities) == 0 {
			return in, &Refusal{Code: NotPermitted, Reason: "nobody knows who appointed the one who asked", Hint: "the record of offices has to say so"}
		}
	}
	return in, nil
}

// newID makes an id.
func newID() (string, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("making an id: %w", err)
	}
	return id.String(), nil
}
