package cases

import (
	"context"

	"github.com/counterseal/counterseal/internal/policy"
)

// NoOffices, Unnamed: why a form that goes on by itself is not in force.
const (
	NoOffices = "no_offices" // nobody is in office who could authorise it
	Unnamed   = "unnamed"    // it names no authorisation
)

// Standing says what covers a form that goes on by itself and selects somebody, such as a
// rule: the authorisation that it names by its id, and nothing else. Nobody asks: who asked
// for the authorisation, or a reader of it, stands for the form, and has to be in office
// still. An error says that it could not be told.
//
// What is protected is refused here too; the caller tells the overseers (Report).
func (b *Book) Standing(ctx context.Context, id string, q Question) (Cover, error) {
	var c Cover
	if q.Verdict.Free() {
		return c, nil
	}
	if err := b.lock(ctx); err != nil {
		return c, err
	}
	defer b.mu.Unlock()
	q.Named = unique(q.Named)
	if r, _, err := b.stopped(ctx); err != nil || r != nil && !q.Verdict.Protected {
		if err == nil {
			c.no(r)
		}
		return c, err
	}
	a := b.authorisations[id]
	if r := b.stands(a, id, &q); r != nil {
		c.no(r)
		return c, nil
	}
	counsel, outside := a.agreed()
	return Cover{Authorisation: Covers, Kind: KindAuthorisation, ID: a.id, Scope: a.request.Scope.scope(), Until: a.ends, Counsel: counsel, Outside: outside}, nil
}

// stands says why an authorisation does not cover a form.
func (b *Book) stands(a *authorisation, id string, q *Question) *Refusal {
	o, now := b.o.Offices(), b.now()
	switch {
	case q.Verdict.Protected:
		return &Refusal{Code: Aimed, Reason: "it is aimed at a protected channel", Hint: "nothing opens this; the overseer is told"}
	case o == nil:
		return &Refusal{Code: NoOffices, Reason: "nobody is in office who could authorise it", Hint: "counterseal offices init"}
	case id == "":
		return &Refusal{Code: Unnamed, Reason: "what goes on by itself and selects somebody needs an authorisation, and it names none", Hint: "counterseal authorise request; then name it in the rule, counterseal: {authorisation: ID}, and the people by the aliases of its case"}
	case a == nil || a.sealed != nil: // what the configuration names, the organisation reads
		return &Refusal{Code: Unknown, Reason: "there is no authorisation with the id that it names", Hint: "counterseal authorise list"}
	}
	switch a.state(now) {
	case Approved:
	case Requested:
		return &Refusal{Code: Undecided, Reason: "its authorisation is not decided yet", Hint: "somebody of another chain of command decides on it"}
	case Refused:
		return &Refusal{Code: Settled, Reason: "its authorisation was refused", Hint: "take it out, or ask for another authorisation"}
	case Unread:
		return &Refusal{Code: Altered, Reason: "its authorisation cannot be read any more", Hint: "ask for another one"}
	default:
		return &Refusal{Code: Over, Reason: "its authorisation has ended", Hint: "take it out, or ask for another authorisation"}
	}
	if a.agreedAt.After(now.Add(Skew)) {
		return &Refusal{Code: Future, Reason: "its authorisation was agreed on while the clock ran ahead", Hint: "ask for a new one"}
	}
	if !b.inOffice(o, a) {
		return &Refusal{Code: NotPermitted, Reason: "nobody who may use its authorisation is in an office that reads events", Hint: "somebody in office asks for another one"}
	}
	return a.refuses(q)
}

// inOffice reports whether the record still has somebody who may use an authorisation in
// an office that reads events.
func (b *Book) inOffice(o *policy.Offices, a *authorisation) bool {
	for _, f := range o.Offices {
		if f.Holder != "" && a.reader(ident(f.Holder)) {
			if p, ok := o.Person(f.ID); ok && holds(o, p, reading...) {
				return true
			}
		}
	}
	return false
}

// Closed gives the cases that are over, each with a number that is another one when it is
// over again: somebody ended an authorisation of theirs because the case was closed, and
// none is in force or waits, and no glass or grant is open in it.
func (b *Book) Closed(ctx context.Context) (map[string]uint64, error) {
	if err := b.lock(ctx); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	now := b.now()
	out, open := map[string]uint64{}, map[string]bool{}
	for _, a := range b.authorisations {
		if a.sealed != nil { // its case is for nobody to know
			continue
		}
		switch a.state(now) {
		case Requested, Approved:
			open[a.caseID] = true
		case Ended:
			if a.ended == CaseClosed && a.caseID != "" {
				out[a.caseID] = max(out[a.caseID], a.endedAt)
			}
		}
	}
	for _, l := range b.looks {
		if l.open(now) {
			open[l.form.Case] = true
		}
	}
	for c := range open {
		delete(out, c)
	}
	return out, nil
}
