package cases

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/policy"
	"github.com/counterseal/counterseal/internal/state"
)

// Scope is what somebody may ask about. Whoever answers a question keeps it inside of
// the sources and times; Covers looks at the rest.
type Scope struct {
	Subjects []string // tokens, or hosts, sessions and addresses in small letters
	Sources  []string // none: all
	From, To time.Time
	Reverse  bool // it may list people by what they did
}

// Authorisation lets one person, and those it names, ask about people.
type Authorisation struct {
	ID        string
	Case      string
	Predicate string // id of the finding, or digest of the allegation, that it rests on
	Basis     string // code of the legal basis
	Requester string
	Readers   []string // who else may use it
	Approvers []string // in the order of their decisions
	Scope     Scope
	Ends      time.Time
	State     State
	Reason    string // why it ended, a code
	// Counsel says that a second decision is needed: for more than access.CounselAbove
	// subjects always, else where the request asks for it. One of the two is then of the
	// overseer or of an office outside the organisation.
	Counsel bool
	// Outside says that one of those who decide is of an office outside the organisation:
	// for more than access.OutsideAbove subjects always.
	Outside bool
	Digest  string // SHA-256 of the request, hex: what Decide must be told
	Asked   time.Time
	// Inspector says that an inspector's office asked: Office. Others learn no more than that
	// it is there, and its state. Code, for that office, opens it after a restart; Locked says
	// that it waits for it.
	Inspector bool
	Office    string
	Code      string
	Locked    bool
}

// State is where an authorisation stands.
type State string

// The states. All but the first two are final.
const (
	Requested State = "requested"
	Approved  State = "approved"
	Refused   State = "refused"
	Ended     State = "ended"
	Lapsed    State = "expired"
	Unread    State = "unreadable" // its payload is not kept, or not of its form
)

// Why an authorisation ended: the reasons that End takes, the one of the clock, and that
// nobody independent watches.
const (
	Done       = "done"
	Withdrawn  = "withdrawn"
	Revoked    = "revoked"
	CaseClosed = "case_closed"
	expired    = "expired"
	unwatched  = "no_oversight"
)

var endings = []string{Done, Withdrawn, Revoked, CaseClosed}

type authorisation struct {
	id, caseID string
	ends       time.Time
	asked      time.Time
	index      uint64
	unread     bool
	request    requestForm
	digest     string
	decisions  []decisionForm // approvals that count
	agreedAt   time.Time      // the last of them
	statements int            // about decisions
	refused    bool
	ended      string      // reason
	endedAt    uint64      // number of the statement
	sealed     *sealedForm // of an inspector's office
	locked     bool        // it is sealed, and nobody has told the code since the start
}

// purpose is the case as a leaf of the ledger may have it.
func (a *authorisation) purpose() string {
	if a.sealed != nil {
		return ""
	}
	return a.caseID
}

// agreed says what the approvals that are there amount to.
func (a *authorisation) agreed() (counsel, outside bool) {
	for i := range a.decisions {
		d := &a.decisions[i]
		outside = outside || d.Outside
		counsel = counsel || len(a.decisions) > 1 && (d.Outside || d.Overseer)
	}
	return counsel, outside
}

func (a *authorisation) satisfied() bool {
	counsel, outside := a.agreed()
	return len(a.decisions) > 0 && (counsel || !a.request.Counsel) && (outside || !a.request.Outside)
}

func (a *authorisation) state(now time.Time) State {
	switch {
	case a.ended == expired:
		return Lapsed
	case a.ended != "":
		return Ended
	case a.refused:
		return Refused
	case a.unread:
		return Unread
	case !now.Before(a.ends):
		return Lapsed
	case a.satisfied():
		return Approved
	}
	return Requested
}

// reader reports whether somebody asked for it or is named in it.
func (a *authorisation) reader(id string) bool {
	return a.request.Owner.Person == id || slices.ContainsFunc(a.request.Readers, func(w owner) bool { return w.Person == id })
}

// outsideView is what everybody may know of what an inspector's office asked for.
func (a *authorisation) outsideView(now time.Time) Authorisation {
	return Authorisation{ID: a.id, Ends: a.ends, State: a.state(now), Asked: a.asked, Inspector: true, Office: a.sealed.Office}
}

func (a *authorisation) view(now time.Time) Authorisation {
	r := &a.request
	v := Authorisation{
		ID: a.id, Case: a.caseID, Predicate: r.Predicate, Basis: r.Basis, Requester: r.Owner.Person, Ends: a.ends, State: a.state(now),
		Reason: a.ended, Counsel: r.Counsel, Outside: r.Outside, Digest: a.digest, Asked: a.asked,
	}
	if a.sealed != nil {
		v.Inspector, v.Office, v.Locked = true, a.sealed.Office, a.locked
	}
	if a.unread || a.locked {
		return v
	}
	v.Scope = r.Scope.scope()
	for _, w := range r.Readers {
		v.Readers = append(v.Readers, w.Person)
	}
	for i := range a.decisions {
		v.Approvers = append(v.Approvers, a.decisions[i].By)
	}
	return v
}

type requestedDetail struct {
	Case  string        `json:"case"`
	Ends  string        `json:"ends"`
	Scope ledger.Digest `json:"scope"`
	// Of an inspector's office: then the case is empty.
	Inspector bool   `json:"inspector,omitempty"`
	Office    string `json:"office,omitempty"`
}

func (b *Book) foldRequested(f state.Fact) error {
	a := &authorisation{id: f.Key, asked: f.Time, index: f.Index}
	b.authorisations[f.Key] = a
	var d requestedDetail
	if json.Unmarshal(f.Detail, &d) != nil {
		a.unread = true
		return nil
	}
	a.caseID = d.Case
	a.ends, _ = parseTime(d.Ends)
	if d.Inspector {
		return b.foldSealed(a, d.Scope, d.Ends)
	}
	err := b.payload(d.Scope, &a.request)
	switch {
	case errors.Is(err, errUnread):
	case err != nil:
		return err
	case a.request.ID == a.id && a.request.Case == a.caseID && a.request.Ends == d.Ends:
		raw, err := approval.Canonical(&a.request)
		a.digest = digestOf(raw)
		return err
	}
	a.unread, a.request = true, requestForm{}
	return nil
}

func digestOf(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// Request asks for an authorisation. It covers nothing until others have decided.
func (b *Book) Request(ctx context.Context, by policy.Person, a Authorisation) (id string, err error) {
	if err := b.lock(ctx); err != nil {
		return "", err
	}
	defer b.mu.Unlock()
	o, now := b.o.Offices(), b.now()
	if !holds(o, by, reading...) {
		return "", errNoReader
	}
	if err := b.permitted(ctx, by, "authorise.request", a.Case, policy.Resource{}); err != nil {
		return "", err
	}
	in, inspects := inspectorOf(o, by.ID)
	if inspects != by.Inspector {
		return "", errNoReader
	}
	if !inspects { // those who are looked into do not slow down who looks into them
		if r, err := b.o.Waits(ctx); err != nil || r != nil {
			return "", waiting(r, err)
		}
	}
	ends := a.Ends.UTC().Truncate(time.Second)
	switch {
	case !ends.After(now):
		return "", mistake("ends is a time to come")
	case ends.After(now.Add(MaxAuthorisation)):
		return "", mistake("ends lies at most 90 days ahead")
	}
	if id, err = newID(); err != nil {
		return "", err
	}
	r := &requestForm{
		Basis: a.Basis, Case: a.Case, Ends: stamp(ends), Form: requestName, ID: id, Predicate: a.Predicate, Readers: []owner{},
		Scope: scopeForm{From: stamp(a.Scope.From), Reverse: a.Scope.Reverse, Sources: list(a.Scope.Sources), Subjects: list(a.Scope.Subjects), To: stamp(a.Scope.To)},
	}
	n := len(r.Scope.Subjects)
	r.Outside = a.Outside || n > access.OutsideAbove
	r.Counsel = a.Counsel || n > access.CounselAbove
	var ok bool
	if r.Owner, ok = ownerOf(o, by.ID); !ok {
		return "", errNoReader
	}
	readers := make([]string, len(a.Readers))
	for i, p := range a.Readers {
		readers[i] = ident(p)
	}
	for _, p := range list(readers) {
		w, ok := ownerOf(o, p)
		if !ok {
			return "", mistake("a reader holds no office: who asks about people does")
		}
		if f, ok := inspectorOf(o, p); ok != inspects || f.Authority != in.Authority {
			return "", mistake("a reader is of another office: an inspector's office shares nothing, and is given nothing")
		}
		r.Readers = append(r.Readers, w)
	}
	if inspects {
		code := newCode()
		s, err := seal(r, in, code)
		if err != nil {
			return "", err
		}
		scope, _, err := b.put(s)
		if err != nil {
			return "", err
		}
		b.codes[id] = code
		return id, b.state(ctx, by, "authorisation.requested", id, "", requestedDetail{Ends: r.Ends, Scope: scope, Inspector: true, Office: in.ID})
	}
	scope, _, err := b.put(r)
	if err != nil {
		return "", err
	}
	return id, b.state(ctx, by, "authorisation.requested", id, a.Case, requestedDetail{Case: a.Case, Ends: r.Ends, Scope: scope})
}

var errNoReader = &Refusal{
	Code: NotPermitted, Reason: "only analysts, responders and investigators in office ask about people",
	Hint: "the record of offices tells who they are",
}

type decidedDetail struct {
	Authorisation string        `json:"authorisation"`
	Decision      string        `json:"decision"`
	Payload       ledger.Digest `json:"payload"`
	Inspector     bool          `json:"inspector,omitempty"`
}

func (b *Book) foldDecided(f state.Fact) error {
	var d decidedDetail
	if json.Unmarshal(f.Detail, &d) != nil {
		return nil
	}
	a := b.authorisations[d.Authorisation]
	if a == nil {
		return nil
	}
	a.statements++
	if d.Decision != approve { // also one of a later version: it approves nothing
		a.refused = true
		return nil
	}
	var p decisionForm
	switch err := b.payload(d.Payload, &p); {
	case errors.Is(err, errUnread):
		return nil
	case err != nil:
		return err
	}
	// The writer has asked all this, and the policies. Whoever reads asks it again: a
	// decision about another request, or of who may not decide, approves nothing.
	switch {
	case p.ID != a.id || p.Digest != a.digest || p.Decision != approve || a.unread || a.reader(p.By):
	case a.sealed != nil && p.Authority != a.sealed.Authority:
	case slices.ContainsFunc(a.decisions, func(have decisionForm) bool { return have.By == p.By || have.Office == p.Office }):
	default:
		a.decisions, a.agreedAt = append(a.decisions, p), f.Time
	}
	return nil
}

// Decide takes the decision of one person about a request. digest is that of the request
// as they read it; fresh says that they have logged in just now.
func (b *Book) Decide(ctx context.Context, by policy.Person, fresh bool, id, digest string, yes bool) error {
	if err := b.lock(ctx); err != nil {
		return err
	}
	defer b.mu.Unlock()
	a := b.authorisations[id]
	if a == nil {
		return unknown("authorisation")
	}
	switch {
	case !b.inside(by, a):
		return &Refusal{Code: NotPermitted, Reason: "what an inspector's office asked for is decided in that office", Hint: "nobody else has to do anything"}
	case a.locked:
		return locked
	}
	me := ident(by.ID)
	in, err := b.decides(ctx, by, "authorise", id, a.sealed != nil, append([]owner{a.request.Owner}, a.request.Readers...)...)
	switch {
	case a.unread:
		return &Refusal{Code: Altered, Reason: "the request cannot be read any more", Hint: "it has to be asked for again"}
	case err != nil:
		return err
	case a.reader(me):
		return &Refusal{Code: NotPermitted, Reason: "nobody decides on what they may use", Hint: "somebody of another chain of command decides"}
	case !fresh:
		return &Refusal{Code: NotFresh, Reason: "the login is too old to decide", Hint: "log in again, and decide then"}
	case digest != a.digest:
		return &Refusal{Code: Altered, Reason: "the request is another one than the one that was read", Hint: "read it again, and decide on what it says"}
	}
	switch a.state(b.now()) {
	case Lapsed:
		return &Refusal{Code: Over, Reason: "its end has come before a decision", Hint: "it has to be asked for again"}
	case Requested:
	default:
		return &Refusal{Code: Settled, Reason: "it is settled: approved, refused or ended", Hint: "a new request can be decided on"}
	}
	for i := range a.decisions {
		if a.decisions[i].By == me || a.decisions[i].Office == in.ID {
			return &Refusal{Code: Again, Reason: "this person or office has decided already", Hint: "the second decision is that of another office"}
		}
	}
	p := decisionForm{Authority: in.Authority, By: me, Decision: refuse, Digest: digest, Form: decisionName, ID: id, Office: in.ID,
		Outside: in.Outside, Overseer: slices.Contains(in.Roles, "overseer")}
	if yes {
		if a.sealed == nil {
			if r, err := b.o.Waits(ctx); err != nil || r != nil {
				return waiting(r, err)
			}
		}
		p.Decision = approve
		if len(a.decisions) > 0 && !adds(a, &p) {
			return &Refusal{Code: Useless, Reason: "what is missing is another office: the overseer, or one outside the organisation", Hint: "somebody of such an office decides"}
		}
	}
	payload, _, err := b.put(&p)
	if err != nil {
		return err
	}
	key := id + "/" + strconv.Itoa(a.statements+1)
	return b.state(ctx, by, "authorisation.decided", key, a.purpose(), decidedDetail{Authorisation: id, Decision: p.Decision, Payload: payload, Inspector: a.sealed != nil})
}

// adds reports whether one more approval brings what is missing.
func adds(a *authorisation, p *decisionForm) bool {
	counsel, outside := a.agreed()
	with := authorisation{request: a.request, decisions: append(slices.Clone(a.decisions), *p)}
	c, o := with.agreed()
	return a.request.Counsel && c && !counsel || a.request.Outside && o && !outside
}

type endedDetail struct {
	Authorisation string `json:"authorisation"`
	Reason        string `json:"reason"`
}

func (b *Book) foldEnded(f state.Fact) {
	d := endedDetail{Reason: Revoked}
	_ = json.Unmarshal(f.Detail, &d) // whatever it says, it is over
	if a := b.authorisations[f.Key]; a != nil && a.ended == "" {
		a.ended, a.endedAt = cmp.Or(d.Reason, Revoked), f.Index
	}
}

// End ends an authorisation before its time, or takes a request back. The policies say who
// may, also about who asked for it: a machine that asks with the token of somebody is not
// that person.
func (b *Book) End(ctx context.Context, by policy.Person, id, reason string) error {
	if err := b.lock(ctx); err != nil {
		return err
	}
	defer b.mu.Unlock()
	if err := oneOf("reason", reason, endings); err != nil {
		return mistake(err.Error())
	}
	a := b.authorisations[id]
	if a == nil {
		return unknown("authorisation")
	}
	switch a.state(b.now()) {
	case Requested, Approved, Unread:
	default:
		return &Refusal{Code: Settled, Reason: "it covers nothing any more", Hint: "there is nothing to end"}
	}
	w := a.request.Owner
	res := policy.Resource{ID: id, Owner: w.Person, Chain: w.Chain}
	if a.sealed != nil { // it may be locked: to end it nobody has to know what it says
		if !b.inside(by, a) {
			by.Inspector = false // nor is somebody of another inspector's office
		}
		res.Inspector, res.Authority = true, a.sealed.Authority
	}
	if err := b.permitted(ctx, by, "authorise.end", a.purpose(), res); err != nil {
		return err
	}
	return b.end(ctx, by, a, reason)
}

func (b *Book) end(ctx context.Context, by policy.Person, a *authorisation, reason string) error {
	return b.state(ctx, by, "authorisation.ended", a.id, a.purpose(), endedDetail{Authorisation: a.id, Reason: reason})
}

// waiting is the error of a question that waits.
func waiting(r *Refusal, err error) error {
	if err != nil {
		return fmt.Errorf("asking whether somebody watches: %w", err)
	}
	return r
}

// Unwatched ends every authorisation in force where nobody independent watches, and says
// how many. Covers does it too, before it answers.
func (b *Book) Unwatched(ctx context.Context) (int, error) {
	if err := b.lock(ctx); err != nil {
		return 0, err
	}
	defer b.mu.Unlock()
	_, n, err := b.stopped(ctx)
	return n, err
}

// stopped says why nobody may look at people now, and ends what was in force.
func (b *Book) stopped(ctx context.Context) (r *Refusal, n int, err error) {
	if r, err = b.o.Stopped(ctx); err != nil {
		return nil, 0, fmt.Errorf("asking whether somebody watches: %w", err)
	}
	if r == nil {
		return nil, 0, nil
	}
	now := b.now()
	var over []*authorisation
	for _, a := range b.authorisations {
		if a.state(now) == Approved && a.sealed == nil { // an inspector's office is itself who watches
			over = append(over, a)
		}
	}
	slices.SortFunc(over, byIndex)
	for _, a := range over {
		if err := b.end(ctx, policy.Person{}, a, unwatched); err != nil {
			return r, n, fmt.Errorf("stating that an authorisation has ended: %w", err)
		}
		n++
	}
	return r, n, nil
}

// Expire states what has ended by the clock, and says how many. Nothing depends on it:
// the clock alone ends them. Covers does it too, for the case that it is asked about.
func (b *Book) Expire(ctx context.Context) (int, error) {
	if err := b.lock(ctx); err != nil {
		return 0, err
	}
	defer b.mu.Unlock()
	return b.expire(ctx, func(*authorisation) bool { return true })
}

func (b *Book) expire(ctx context.Context, which func(*authorisation) bool) (n int, err error) {
	now := b.now()
	var over []*authorisation
	for _, a := range b.authorisations {
		if a.ended == "" && a.state(now) == Lapsed && which(a) {
			over = append(over, a)
		}
	}
	slices.SortFunc(over, byIndex)
	for _, a := range over {
		if err := b.end(ctx, policy.Person{}, a, expired); err != nil {
			return n, fmt.Errorf("stating that an authorisation has expired: %w", err)
		}
		n++
	}
	return n, nil
}

func byIndex(x, y *authorisation) int { return cmp.Compare(x.index, y.index) }

// Authorisations lists all, the newest first, as nobody in particular sees them: of what
// an inspector's office asked for, that it is there.
func (b *Book) Authorisations(ctx context.Context) ([]Authorisation, error) {
	return b.AuthorisationsFor(ctx, policy.Person{})
}

// AuthorisationsFor lists all as somebody sees them.
func (b *Book) AuthorisationsFor(ctx context.Context, by policy.Person) ([]Authorisation, error) {
	if err := b.lock(ctx); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	all := make([]*authorisation, 0, len(b.authorisations))
	for _, a := range b.authorisations {
		all = append(all, a)
	}
	slices.SortFunc(all, byIndex)
	slices.Reverse(all)
	now := b.now()
	out := make([]Authorisation, len(all))
	for i, a := range all {
		out[i] = b.seen(by, a, now)
	}
	return out, nil
}

// seen is what somebody may see of an authorisation.
func (b *Book) seen(by policy.Person, a *authorisation, now time.Time) Authorisation {
	if !b.inside(by, a) {
		return a.outsideView(now)
	}
	v := a.view(now)
	if a.sealed != nil {
		v.Code = b.codes[a.id]
	}
	return v
}

// Authorisation gives one, as Authorisations does.
func (b *Book) Authorisation(ctx context.Context, id string) (Authorisation, error) {
	return b.AuthorisationFor(ctx, policy.Person{}, id)
}

// AuthorisationFor gives one as somebody sees it.
func (b *Book) AuthorisationFor(ctx context.Context, by policy.Person, id string) (Authorisation, error) {
	if err := b.lock(ctx); err != nil {
		return Authorisation{}, err
	}
	defer b.mu.Unlock()
	a := b.authorisations[id]
	if a == nil {
		return Authorisation{}, unknown("authorisation")
	}
	return b.seen(by, a, b.now()), nil
}
