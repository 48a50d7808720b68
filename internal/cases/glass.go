package cases

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/policy"
	"github.com/counterseal/counterseal/internal/state"
)

// look is what a grant or a broken glass opened, to one responder.
type look struct {
	kind     string // KindGrant or KindGlass
	id       string
	at       time.Time
	until    time.Time
	index    uint64
	unread   bool
	form     lookForm
	outcome  string
	reviewed time.Time
	reviewer string
}

// open reports whether it opens something still. A review that does not find it
// justified ends it. What was opened while the clock ran ahead opens nothing once the
// clock is right.
func (l *look) open(now time.Time) bool {
	return !l.unread && now.Before(l.until) && !l.at.After(now.Add(Skew)) && (l.outcome == "" || l.outcome == Justified)
}

func (l *look) by() string { return l.form.Owner.Person }

// The outcomes of a review. All but the first end at once what is open still.
const (
	Justified = "justified"
	Excessive = "excessive"
	Misuse    = "misuse"
)

var outcomes = []string{Justified, Excessive, Misuse}

// Review is a look that somebody else has to look at.
type Review struct {
	ID        string
	Kind      string // KindGlass or KindGrant
	Case      string // empty for a grant outside of a case
	Finding   string // of a grant
	Responder string
	Subjects  []string
	Opened    time.Time
	Until     time.Time
	Overdue   bool // longer than ReviewWithin
	Unread    bool // what it opened is not kept
}

// Reviews lists what waits for a review: broken glasses first, then grants, the oldest
// first.
func (b *Book) Reviews(ctx context.Context) ([]Review, error) {
	if err := b.lock(ctx); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	now := b.now()
	var wait []*look
	for _, l := range b.looks {
		if l.outcome == "" {
			wait = append(wait, l)
		}
	}
	slices.SortFunc(wait, func(x, y *look) int {
		return cmp.Or(cmp.Compare(rank(x), rank(y)), cmp.Compare(x.index, y.index))
	})
	out := make([]Review, len(wait))
	for i, l := range wait {
		out[i] = Review{ID: l.id, Kind: l.kind, Case: l.form.Case, Finding: l.form.Finding, Responder: l.by(), Subjects: slices.Clone(l.form.Subjects),
			Opened: l.at, Until: l.until, Overdue: now.Sub(l.at) > ReviewWithin, Unread: l.unread}
	}
	return out, nil
}

func rank(l *look) int {
	if l.kind == KindGlass {
		return 0
	}
	return 1
}

// Review states what somebody else found afterwards.
func (b *Book) Review(ctx context.Context, by policy.Person, id, outcome string) error {
	if err := b.lock(ctx); err != nil {
		return err
	}
	defer b.mu.Unlock()
	if err := oneOf("outcome", outcome, outcomes); err != nil {
		return mistake(err.Error())
	}
	l := b.looks[id]
	if l == nil {
		return unknown("grant or broken glass")
	}
	in, err := b.decides(ctx, by, "grant.review", id, false, l.form.Owner)
	if err != nil {
		return err
	}
	if l.outcome != "" {
		return &Refusal{Code: Settled, Reason: "it was reviewed", Hint: "nothing is left to do"}
	}
	payload, _, err := b.put(&reviewForm{By: ident(by.ID), Form: reviewName, ID: id, Office: in.ID, Outcome: outcome})
	if err != nil {
		return err
	}
	return b.state(ctx, by, "grant.reviewed", id, l.form.Case, reviewedDetail{Grant: id, Outcome: outcome, Payload: payload})
}

type reviewedDetail struct {
	Grant   string        `json:"grant"`
	Outcome string        `json:"outcome"`
	Payload ledger.Digest `json:"payload"`
}

func (b *Book) foldReviewed(f state.Fact) error {
	var d reviewedDetail
	l := b.looks[f.Key]
	if l == nil || json.Unmarshal(f.Detail, &d) != nil || l.outcome != "" {
		return nil
	}
	l.outcome, l.reviewed = cmp.Or(d.Outcome, Misuse), f.Time
	var p reviewForm
	switch err := b.payload(d.Payload, &p); {
	case errors.Is(err, errUnread):
		return nil
	case err != nil:
		return err
	}
	l.reviewer = p.By
	return nil
}

type brokenDetail struct {
	Case  string        `json:"case"`
	Scope ledger.Digest `json:"scope"`
	Until string        `json:"until"`
}

func (b *Book) foldBroken(f state.Fact) error {
	var d brokenDetail
	if json.Unmarshal(f.Detail, &d) != nil {
		d = brokenDetail{}
	}
	return b.foldLook(f, KindGlass, glassName, d.Scope, d.Until)
}

// foldLook takes a grant or a broken glass in. One that cannot be read opens nothing and
// waits for its review all the same.
func (b *Book) foldLook(f state.Fact, kind, form string, payload ledger.Digest, until string) error {
	l := &look{kind: kind, id: f.Key, at: f.Time, index: f.Index}
	b.looks[f.Key] = l
	err := b.payload(payload, &l.form)
	switch {
	case errors.Is(err, errUnread):
	case err != nil:
		return err
	case l.form.Form == form && l.form.ID == l.id && l.form.Until == until:
		l.until, _ = parseTime(until)
		return nil
	}
	l.unread, l.form = true, lookForm{}
	return nil
}

// BreakGlass opens the subjects to a responder, at once and loudly: the statement stands
// before it opens anything, and it is reviewed.
func (b *Book) BreakGlass(ctx context.Context, by policy.Person, caseID string, subjects []Named) (Cover, error) {
	if err := b.lock(ctx); err != nil {
		return Cover{}, err
	}
	defer b.mu.Unlock()
	o, now, me := b.o.Offices(), b.now(), ident(by.ID)
	if !IsCase(caseID) {
		return Cover{}, mistake(errCase.Error())
	}
	values := make([]string, len(subjects))
	for i, s := range subjects {
		values[i] = s.Value
	}
	values = list(values)
	switch {
	case !holds(o, by, "responder"):
		return Cover{}, &Refusal{Code: NotPermitted, Reason: "only a responder in office breaks the glass", Hint: "ask for an authorisation"}
	case len(values) == 0:
		return Cover{}, mistake("who is to be opened is named")
	case len(values) > GlassSubjects:
		return Cover{}, &Refusal{Code: TooMany, Reason: "a broken glass opens at most 20", Hint: "name those that matter now, and ask for an authorisation for the others"}
	}
	if err := b.permitted(ctx, by, "break.glass", caseID, policy.Resource{}); err != nil {
		return Cover{}, err
	}
	if r, _, err := b.stopped(ctx); err != nil || r != nil {
		return Cover{}, waiting(r, err)
	}
	held := len(values)
	for _, l := range b.looks {
		if l.kind != KindGlass || l.by() != me {
			continue
		}
		if l.outcome == "" && now.Sub(l.at) > ReviewWithin {
			return Cover{}, &Refusal{Code: Unreviewed, Reason: "an earlier broken glass waits for its review for more than 3 days", Hint: "the privacy officer or the overseer reviews it; until then, ask for an authorisation"}
		}
		if l.open(now) {
			if l.form.Case == caseID {
				return Cover{}, &Refusal{Code: OneGlass, Reason: "one is open in this case", Hint: "it lasts 4 hours; ask for an authorisation for what it does not open"}
			}
			held += len(l.form.Subjects)
		}
	}
	if held > GlassSubjects {
		return Cover{}, &Refusal{Code: TooMany, Reason: "with those of other cases it would open more than 20 at once", Hint: "name fewer, or ask for an authorisation"}
	}
	w, ok := ownerOf(o, me)
	if !ok {
		return Cover{}, errNoReader
	}
	id, err := newID()
	if err != nil {
		return Cover{}, err
	}
	form := &lookForm{Case: caseID, Form: glassName, ID: id, Owner: w, Subjects: values, Until: stamp(now.Add(Glass))}
	scope, _, err := b.put(form)
	if err != nil {
		return Cover{}, err
	}
	if err := b.state(ctx, by, "glass.broken", id, caseID, brokenDetail{Case: caseID, Scope: scope, Until: form.Until}); err != nil {
		return Cover{}, err
	}
	return b.looks[id].cover(), nil
}

// cover is what a look opens.
func (l *look) cover() Cover {
	c := Cover{Grant: Covers, ID: l.id, Kind: l.kind, Until: l.until, Scope: Scope{Subjects: slices.Clone(l.form.Subjects)}}
	if l.kind == KindGlass {
		c.Notice = "the glass is broken until " + stamp(l.until) + ": every look stands in the ledger, and somebody else reviews it"
		return c
	}
	c.Scope.From, _ = parseTime(l.form.From)
	c.Scope.To, _ = parseTime(l.form.To)
	c.Notice = "opened by a finding until " + stamp(l.until) + ": it stands in the ledger, and somebody else reviews it"
	return c
}
