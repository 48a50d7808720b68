package cases

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/policy"
	"github.com/counterseal/counterseal/internal/state"
)

// Named is an identity that a question names: a token, or text folded to small letters.
type Named = access.Identity

// Question is what Covers judges.
type Question struct {
	Named   []Named
	Verdict access.Verdict
	// From and To are the times that the question itself says; zero where it says none.
	From, To time.Time
	// Confined reports whether the question answers only about what the given function
	// takes. nil: everybody that it names must be taken.
	Confined func(covered func(Named) bool) bool

	joined *Joined // of its case
}

// How far something reaches: the words of policy.Context.
const (
	Covers  = "covers"
	Beyond  = "outside"
	Expired = "expired"
)

// What covers a question.
const (
	KindAuthorisation = "authorisation"
	KindGrant         = "grant"
	KindGlass         = "glass"
)

// Cover is what covers a question, or why nothing does.
type Cover struct {
	Authorisation string // Covers, Beyond, Expired, or empty: there is none
	Grant         string // likewise, of a grant or a broken glass
	Kind          string // which of the kinds covers
	ID            string
	// Scope bounds the answer: whoever runs the question keeps it inside of the sources
	// and times that are set.
	Scope   Scope
	Until   time.Time // when it ends
	Counsel bool      // a second office has agreed
	Outside bool      // an office outside the organisation has agreed
	Notice  string    // what the asker should know
	// Planted says that only attempts that failed name somebody in the question. The
	// overseers have been told.
	Planted bool
	// Code, Reason and Hint say why nothing covers.
	Code, Reason, Hint string
}

// Err is the refusal, nil where something covers.
func (c *Cover) Err() error {
	if c.Code == "" {
		return nil
	}
	return &Refusal{Code: c.Code, Reason: c.Reason, Hint: c.Hint}
}

func (c *Cover) no(r *Refusal) { c.Code, c.Reason, c.Hint = r.Code, r.Reason, r.Hint }

// GrantFinding is a finding as a grant sees it: its newest revision, which is open.
type GrantFinding struct {
	ID         string
	RuleID     string
	RuleDigest string
	Level      string
	From, To   time.Time // the first and the last event
	// Subjects are those in the events that it cites. It is asked for few findings.
	Subjects func(context.Context) ([]Subject, error)
}

// Subject is somebody or something in the events that a finding cites.
type Subject struct {
	Value string // token, or folded text
	// OnlyFailedTarget: it is there only as the target of attempts that failed.
	OnlyFailedTarget bool
}

var uncovered = &Refusal{Code: Uncovered, Reason: "nothing covers this question", Hint: "ask for an authorisation: counterseal authorise request; a responder who cannot wait breaks the glass for 4 hours: counterseal glass break"}

var aimed = &Refusal{Code: Aimed, Reason: "it is aimed at a protected channel", Hint: "nothing opens this; the overseer is told of the question"}

// Covers says what covers a question that selects people: an authorisation of the case,
// a glass that the asker broke in it, or a finding. An error says that it could not be
// told; that nothing covers is an answer. The first use of a grant is stated before the
// answer.
func (b *Book) Covers(ctx context.Context, by policy.Person, caseID string, q Question) (Cover, error) {
	var c Cover
	if q.Verdict.Free() {
		return c, nil
	}
	if q.Verdict.Protected {
		c.no(aimed)
		return c, nil
	}
	var err error
	if q.joined, err = b.Joined(ctx, caseID); err != nil {
		return c, err
	}
	q.Named = unique(q.Named)
	done, err := b.standing(ctx, by, caseID, &q, &c)
	if err != nil || done || by.Inspector { // findings are for responders, and reported
		return c, err
	}
	return c, b.byFinding(ctx, by, caseID, &q, &c)
}

func unique(named []Named) []Named {
	out := slices.Clone(named)
	slices.SortFunc(out, func(x, y Named) int { return cmp.Or(cmp.Compare(x.Value, y.Value), cmp.Compare(x.Who, y.Who)) })
	return slices.Compact(out)
}

// people is how many people a question names, at least.
func (q *Question) people() int { return max(q.Verdict.Persons, len(q.Named)) }

// within reports whether all that it answers is about the subjects.
func (q *Question) within(subjects []string) bool {
	switch {
	case len(q.Named) == 0 || len(q.Named) < q.Verdict.Persons: // it names somebody that nobody told us of
		return false
	case q.Confined != nil:
		return q.Confined(func(n Named) bool { return q.joined.among(subjects, n.Value) })
	}
	return q.names(subjects)
}

// names reports whether it names nobody beside the subjects.
func (q *Question) names(subjects []string) bool {
	return !slices.ContainsFunc(q.Named, func(n Named) bool { return !q.joined.among(subjects, n.Value) })
}

// inTime reports whether the times that the question says lie in a window.
func (q *Question) inTime(from, to time.Time) bool {
	for _, t := range []time.Time{q.From, q.To} {
		if !t.IsZero() && (!from.IsZero() && t.Before(from) || !to.IsZero() && t.After(to)) {
			return false
		}
	}
	return true
}

// standing looks at authorisations and broken glasses.
func (b *Book) standing(ctx context.Context, by policy.Person, caseID string, q *Question, c *Cover) (done bool, err error) {
	if err := b.lock(ctx); err != nil {
		return false, err
	}
	defer b.mu.Unlock()
	o, me := b.o.Offices(), ident(by.ID)
	_, inspects := inspectorOf(o, by.ID)
	if !holds(o, by, reading...) || inspects != by.Inspector {
		c.no(errNoReader)
		return true, nil
	}
	if _, err := b.expire(ctx, func(a *authorisation) bool { return a.caseID == caseID && a.reader(me) }); err != nil {
		return false, err
	}
	c.no(uncovered)
	now := b.now()
	stop, _, err := b.stopped(ctx)
	if err != nil {
		return false, err
	}
	if stop != nil && !inspects { // a finding opens its people all the same: defence goes on
		c.no(stop)
		return false, nil
	}
	var mine []*authorisation
	for _, a := range b.authorisations {
		if caseID != "" && a.caseID == caseID && a.reader(me) && b.inside(by, a) && (a.sealed != nil) == inspects {
			mine = append(mine, a)
		}
	}
	weight := func(a *authorisation) (n int) { // what more offices agreed to opens more people at once
		counsel, outside := a.agreed()
		if counsel {
			n++
		}
		if outside {
			n += 2
		}
		return n
	}
	slices.SortFunc(mine, func(a, b *authorisation) int { return cmp.Or(cmp.Compare(weight(b), weight(a)), byIndex(a, b)) })
	for _, a := range mine {
		switch a.state(now) {
		case Approved:
			if a.agreedAt.After(now.Add(Skew)) {
				c.Authorisation = Beyond
				c.no(&Refusal{Code: Future, Reason: "the authorisation was agreed on while the clock ran ahead", Hint: "ask for a new one"})
				continue
			}
		case Lapsed, Ended:
			if c.Authorisation == "" {
				c.Authorisation = Expired
				c.no(&Refusal{Code: Over, Reason: "the authorisation of this case has ended", Hint: "ask for a new one"})
			}
			continue
		case Requested:
			if c.Authorisation == "" {
				c.no(&Refusal{Code: Undecided, Reason: "the authorisation of this case is not decided yet", Hint: "somebody of another chain of command decides on it"})
			}
			continue
		default:
			continue
		}
		if r := a.refuses(q); r != nil {
			c.Authorisation = Beyond
			c.no(r)
			continue
		}
		counsel, outside := a.agreed()
		*c = Cover{Authorisation: Covers, Kind: KindAuthorisation, ID: a.id, Scope: a.request.Scope.scope(), Until: a.ends, Counsel: counsel, Outside: outside,
			Notice: "under the authorisation of case " + a.caseID + " until " + stamp(a.ends)}
		return true, nil
	}
	if inspects && c.Code == Uncovered && b.lockedFor(by, now) {
		c.no(locked)
	}
	var glasses []*look
	for _, l := range b.looks {
		if l.kind == KindGlass && l.form.Case == caseID && l.by() == me {
			glasses = append(glasses, l)
		}
	}
	slices.SortFunc(glasses, func(x, y *look) int { return cmp.Compare(x.index, y.index) })
	for _, l := range glasses {
		switch {
		case !holds(o, by, "responder"):
		case !l.open(now):
			c.Grant = cmp.Or(c.Grant, Expired)
			if c.Code == Uncovered {
				c.no(&Refusal{Code: Over, Reason: "the broken glass of this case has closed", Hint: "ask for an authorisation"})
			}
		default:
			if r := q.plain(); r != nil {
				c.Grant = Beyond
				c.no(r)
			} else if !q.within(l.form.Subjects) {
				c.Grant = Beyond
				c.no(&Refusal{Code: Subjects, Reason: "it names somebody whom the broken glass does not open", Hint: "ask for an authorisation"})
			} else {
				authorisation := c.Authorisation
				*c = l.cover()
				c.Authorisation = authorisation
				return true, nil
			}
		}
	}
	return false, nil
}

// refuses says why an authorisation in force does not cover a question.
func (a *authorisation) refuses(q *Question) *Refusal {
	s, v := a.request.Scope.scope(), &q.Verdict
	counsel, outside := a.agreed()
	switch {
	case (v.Class.Has(access.Reverse) || v.Many) && !s.Reverse:
		return &Refusal{Code: Lists, Reason: "it would list people, and the authorisation is about those that it names", Hint: "name whom it is about, or ask for an authorisation that says so"}
	case s.Reverse && len(q.Named) < v.Persons, s.Reverse && !q.names(s.Subjects), !s.Reverse && !q.within(s.Subjects):
		return &Refusal{Code: Subjects, Reason: "it names somebody who is not in the scope of the authorisation", Hint: "ask about those in scope, or ask for an authorisation that names the others"}
	case !q.inTime(s.From, s.To):
		return &Refusal{Code: Times, Reason: "it reaches beyond the time in the scope of the authorisation", Hint: "ask from " + stamp(s.From) + " to " + stamp(s.To)}
	case q.people() > access.CounselAbove && !counsel, q.people() > access.OutsideAbove && !outside:
		return &Refusal{Code: TooMany, Reason: "it names more people at once than have been agreed on", Hint: "ask about fewer, or ask for an authorisation with counsel"}
	}
	return nil
}

// plain says why a grant or a broken glass never covers a question: they open few people
// by name, once.
func (q *Question) plain() *Refusal {
	v := &q.Verdict
	switch {
	case v.Class != access.Person || v.Many:
		return &Refusal{Code: Lists, Reason: "it would list people: neither a finding nor a broken glass opens that", Hint: "name whom it is about, or ask for an authorisation that says so"}
	case v.Standing:
		return &Refusal{Code: Standing, Reason: "what goes on by itself about a person needs an authorisation", Hint: "ask for an authorisation"}
	case q.people() > access.CounselAbove:
		return &Refusal{Code: TooMany, Reason: "it names more than 20 at once", Hint: "ask about fewer, or ask for an authorisation with counsel"}
	}
	return nil
}

// byFinding looks at findings. They open something to responders alone; that a question
// pivots on a planted event is said, and reported, whoever asks.
func (b *Book) byFinding(ctx context.Context, by policy.Person, caseID string, q *Question, c *Cover) error {
	if b.o.Recent == nil || q.plain() != nil {
		return nil
	}
	// Nothing is locked while the findings are read, which takes as long as a search.
	found, err := b.o.Recent(ctx, b.o.Now().UTC().Add(-Around-Skew))
	if err != nil {
		return fmt.Errorf("reading the findings: %w", err)
	}
	judged, err := b.judgeFindings(ctx, ident(by.ID), q, found)
	if err != nil {
		return err
	}
	for i := range judged {
		if judged[i].subjects, err = judged[i].Subjects(ctx); err != nil {
			return fmt.Errorf("reading whom a finding is about: %w", err)
		}
	}
	if err := b.lock(ctx); err != nil {
		return err
	}
	defer b.mu.Unlock()
	responder := holds(b.o.Offices(), by, "responder")
	g := grants{b: b, q: q, me: ident(by.ID), now: b.now()}
	for i := range judged {
		g.take(&judged[i])
	}
	switch {
	case q.within(g.values):
		if !responder {
			return nil
		}
		return g.open(ctx, by, caseID, c)
	case len(g.planted) > 0 && q.within(append(slices.Clone(g.values), g.planted...)):
		c.Grant, c.Planted = Beyond, true
		c.no(&Refusal{Code: Planted, Reason: "only attempts that failed name somebody here, which anybody can bring about", Hint: "look at where the attempts came from, or ask for an authorisation: counterseal authorise request; the overseer is told of the question"})
		return b.report(ctx, by, Planted, reportForm{Case: caseID, Finding: g.plantedBy, Subjects: values(q.Named)})
	case g.why != nil && responder: // to others it would tell that there is a finding
		c.Grant = cmp.Or(c.Grant, Beyond)
		if c.Authorisation == "" {
			c.no(g.why)
		}
	}
	return nil
}

func values(named []Named) []string {
	out := []string{}
	for _, n := range named {
		if isText(n.Value, 1, 256) && len(out) < maxSubjects {
			out = append(out, n.Value)
		}
	}
	return list(out)
}

// grants gathers what findings open to one responder for one question.
type grants struct {
	b   *Book
	q   *Question
	me  string
	now time.Time

	usable    []*lookForm // one for each finding that opens something
	values    []string    // that they open
	planted   []string    // that only attempts that failed name
	plantedBy string      // the first such finding
	why       *Refusal    // of a finding that would have opened what is asked for
}

// judgedFinding is a finding whose subjects matter: it opens them, or the asker is told
// why it does not.
type judgedFinding struct {
	GrantFinding
	refusal  *Refusal
	subjects []Subject
}

// judgeFindings says what findings may open. Those that open nothing for a reason that
// would tell the asker of a finding about somebody are left out.
func (b *Book) judgeFindings(ctx context.Context, me string, q *Question, found []GrantFinding) ([]judgedFinding, error) {
	if err := b.lock(ctx); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	if err := b.readRules(ctx); err != nil {
		return nil, err
	}
	g := grants{b: b, q: q, me: me, now: b.now()}
	var out []judgedFinding
	for _, f := range found {
		if f.Subjects == nil || !ledger.IsWord(f.ID) || !ledger.IsWord(f.RuleDigest) || f.To.Before(f.From) {
			continue
		}
		r := g.refuses(&f)
		if r == nil || r.Code == FreshRule || r.Code == Times {
			out = append(out, judgedFinding{GrantFinding: f, refusal: r})
		}
	}
	return out, nil
}

// take looks at one finding.
func (g *grants) take(f *judgedFinding) {
	open, planted := []string{}, []string{}
	for _, s := range f.subjects {
		switch {
		case !isSubject(s.Value):
		case s.OnlyFailedTarget:
			planted = append(planted, s.Value)
		default:
			open = append(open, s.Value)
		}
	}
	open = list(open)
	planted = slices.DeleteFunc(list(planted), func(v string) bool { return slices.Contains(open, v) })
	named := func(in []string) bool {
		return slices.ContainsFunc(g.q.Named, func(n Named) bool { return g.q.joined.among(in, n.Value) })
	}
	switch {
	case !named(open) && !named(planted): // it is about others
		return
	case len(open) > maxSubjects:
		return
	case f.refusal != nil:
		if named(open) && (g.why == nil || f.refusal.Code == FreshRule) {
			g.why = f.refusal
		}
		return
	}
	if named(planted) {
		g.planted = append(g.planted, planted...)
		g.plantedBy = cmp.Or(g.plantedBy, f.ID)
	}
	if !named(open) {
		return
	}
	w, ok := ownerOf(g.b.o.Offices(), g.me)
	if !ok {
		return
	}
	until := f.To.Add(Around)
	form := &lookForm{Finding: f.ID, Form: grantName, From: stamp(f.From.Add(-Around)), Owner: w, Rule: f.RuleDigest, Subjects: open, To: stamp(until), Until: stamp(until)}
	if l := g.b.opened(g.me, form); l != nil && !l.open(g.now) {
		g.why = &Refusal{Code: Over, Reason: "a review has ended this grant", Hint: "ask for an authorisation"}
		return
	}
	g.usable = append(g.usable, form)
	g.values = append(g.values, open...)
}

// refuses says why a finding opens nothing to the responder.
func (g *grants) refuses(f *GrantFinding) *Refusal {
	until := f.To.Add(Around)
	if f.Level != "high" && f.Level != "critical" {
		return uncovered
	}
	if f.From.After(g.now.Add(Skew)) || f.To.After(g.now.Add(Skew)) {
		return &Refusal{Code: Future, Reason: "the finding is from the future", Hint: "set the clock of the source right; ask for an authorisation meanwhile"}
	}
	if !g.now.Before(until.Truncate(time.Second)) {
		return &Refusal{Code: Over, Reason: "the finding is older than 72 hours", Hint: "ask for an authorisation"}
	}
	act, ok := g.b.rules.at(f.RuleDigest, f.From)
	if !ok {
		return &Refusal{Code: Uncovered, Reason: "two people did not stand for the rule of this finding before its events", Hint: "ask for an authorisation; a responder who cannot wait breaks the glass, for 4 hours"}
	}
	if slices.Contains(act.By, g.me) && act.At.After(f.From.Add(-OwnRule)) {
		return &Refusal{Code: FreshRule, Reason: "the rule of this finding is fresh from the hands of who asks", Hint: "a responder who had no part in the rule asks, or ask for an authorisation"}
	}
	if !g.q.inTime(f.From.Add(-Around), until) {
		return &Refusal{Code: Times, Reason: "it reaches beyond 72 hours around the finding", Hint: "ask from " + stamp(f.From.Add(-Around)) + " to " + stamp(until)}
	}
	return nil
}

// opened gives the look of a responder by the same finding with the same content.
func (b *Book) opened(me string, form *lookForm) *look {
	var have *look
	for _, l := range b.looks {
		if l.kind != KindGrant || l.by() != me || l.form.Finding != form.Finding {
			continue
		}
		if l.outcome != "" && l.outcome != Justified {
			return l // a review has closed the finding to this responder
		}
		if l.form.From == form.From && l.form.Until == form.Until && subset(form.Subjects, l.form.Subjects) {
			have = l
		}
	}
	return have
}

func subset(in, of []string) bool {
	return !slices.ContainsFunc(in, func(s string) bool { return !slices.Contains(of, s) })
}

// open states the first use of each finding that the question needs, and covers.
func (g *grants) open(ctx context.Context, by policy.Person, caseID string, c *Cover) error {
	var used []*lookForm
	for _, n := range g.q.Named {
		has := func(f *lookForm) bool { return g.q.joined.among(f.Subjects, n.Value) }
		if slices.ContainsFunc(used, has) {
			continue
		}
		if i := slices.IndexFunc(g.usable, has); i >= 0 {
			used = append(used, g.usable[i])
		}
	}
	if len(used) == 0 {
		return nil
	}
	// Whom the policies refuse all the same has opened nothing.
	err := g.b.judged(ctx, policy.Request{Principal: by, Action: "search",
		Resource: policy.Resource{Selects: access.Person.String()},
		Context:  policy.Context{Now: g.now, Purpose: cmp.Or(caseID, "incident"), Grant: Covers, Crowd: string(access.CrowdFew)}})
	var r *Refusal
	if errors.As(err, &r) {
		c.Grant = Beyond
		c.no(r)
		return nil
	}
	var cover Cover
	for i, form := range used {
		l := g.b.opened(g.me, form)
		if l == nil {
			id, err := newID()
			if err != nil {
				return err
			}
			form.ID, form.Case = id, caseID
			payload, _, err := g.b.put(form)
			if err != nil {
				return err
			}
			if err := g.b.state(ctx, by, "grant.opened", id, caseID, openedDetail{Finding: form.Finding, Until: form.Until, Payload: payload}); err != nil {
				return err
			}
			l = g.b.looks[id]
		}
		one := l.cover()
		if i == 0 {
			cover = one
			continue
		}
		cover.Scope.Subjects = list(append(cover.Scope.Subjects, one.Scope.Subjects...))
		if one.Scope.From.After(cover.Scope.From) {
			cover.Scope.From = one.Scope.From
		}
		if one.Scope.To.Before(cover.Scope.To) {
			cover.Scope.To = one.Scope.To
		}
		if one.Until.Before(cover.Until) {
			cover.Until = one.Until
		}
	}
	cover.Authorisation = c.Authorisation
	*c = cover
	return nil
}

type openedDetail struct {
	Finding string        `json:"finding"`
	Payload ledger.Digest `json:"payload"`
	Until   string        `json:"until"`
}

func (b *Book) foldOpened(f state.Fact) error {
	var d openedDetail
	if json.Unmarshal(f.Detail, &d) != nil {
		d = openedDetail{}
	}
	return b.foldLook(f, KindGrant, grantName, d.Payload, d.Until)
}
