package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/broker"
	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/discloser"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/lifecycle"
	"github.com/counterseal/counterseal/internal/oversight"
	"github.com/counterseal/counterseal/internal/state"
	"github.com/counterseal/counterseal/internal/vault"
)

// kindErasure is the kind of a target that is a request to erase the names of somebody.
const kindErasure = "erasure"

// What an overseer's machine compares with a list of protected disclosers. It is part of every
// answer about the queue, the same for every list and for none: the server does not learn
// whether there is one.
type (
	queueTargets struct {
		Org        string        `json:"org"`
		Epoch      int           `json:"epoch"` // of the tokens that are made today
		Targets    []targetRow   `json:"targets"`
		Shown      []targetShown `json:"shown"`
		Uncompared int           `json:"uncompared"` // whom something was about is not there, or cannot be read
	}
	// targetRow is something that is about people: a look, an authorisation, a grant of an
	// incident or a broken glass, a request for a name or to erase one, an order.
	targetRow struct {
		Kind    string        `json:"kind"`
		ID      string        `json:"id"`
		At      time.Time     `json:"at"`
		Case    string        `json:"case,omitempty"`
		Who     string        `json:"who"` // looked, asked
		State   string        `json:"state"`
		About   []targetAbout `json:"about"`
		Partial bool          `json:"partial,omitempty"` // it named more than are kept
	}
	// targetAbout is one of the people: an alias on the way out, and a veil.
	targetAbout struct {
		Person string         `json:"person"` // empty of an erasure
		Veil   discloser.Veil `json:"veil"`
	}
	// targetShown is a look that listed people: whom, is sealed to the overseers, as for a notice.
	targetShown struct {
		ID     string    `json:"id"` // of the look
		At     time.Time `json:"at"`
		Case   string    `json:"case,omitempty"`
		Who    string    `json:"who"`
		Sealed []byte    `json:"sealed"`
	}
)

// add takes in what is about people. Hosts are none. The tokens of an erasure are those of one
// person in every epoch that its case joined: their aliases elsewhere would tell so.
func (q *queueTargets) add(r targetRow, named []string) {
	r.About = []targetAbout{}
	for _, n := range named {
		if !event.IsToken([]byte(n)) {
			continue
		}
		who := targetAbout{Person: n, Veil: discloser.VeilOf(event.Token(n))}
		if r.Kind == kindErasure {
			who.Person = ""
		}
		r.About = append(r.About, who)
	}
	if len(r.About) > 0 {
		r.At = r.At.UTC().Truncate(time.Second)
		q.Targets = append(q.Targets, r)
	}
}

// targets gives everything about people that overseers watch or decide on; with all what is
// over, too.
func (s *server) targets(ctx context.Context, looks []oversight.Look, authorisations []cases.Authorisation, all bool) (queueTargets, error) {
	q := queueTargets{Org: s.pipe.Org().String(), Epoch: s.tokens.epoch, Targets: []targetRow{}, Shown: []targetShown{}}
	for i := range looks {
		l := &looks[i]
		if slices.Contains(l.Marks, oversight.Unread) {
			q.Uncompared++
		}
		q.add(targetRow{Kind: "look", ID: l.ID, At: l.At, Case: l.Case, Who: cmp.Or(l.Person, oversight.PersonOf(l.Actor)), State: cmp.Or(l.Outcome, "waits"), Partial: len(l.Named) >= oversight.MaxNamed}, l.Named)
	}
	for i := range authorisations {
		a := &authorisations[i]
		if a.State == cases.Unread && !a.Inspector {
			q.Uncompared++
		}
		if a.Inspector || a.State == cases.Unread || !all && a.State != cases.Requested && a.State != cases.Approved {
			continue
		}
		q.add(targetRow{Kind: "authorisation", ID: a.ID, At: a.Asked, Case: a.Case, Who: a.Requester, State: string(a.State)}, a.Scope.Subjects)
	}
	reviews, err := s.cases.Reviews(ctx)
	if err != nil {
		return q, err
	}
	for i := range reviews {
		r := &reviews[i]
		if r.Unread {
			q.Uncompared++
		}
		q.add(targetRow{Kind: r.Kind, ID: r.ID, At: r.Opened, Case: r.Case, Who: r.Responder, State: "waits"}, r.Subjects)
	}
	of := map[string]*cases.Authorisation{}
	for i := range authorisations {
		of[authorisations[i].ID] = &authorisations[i]
	}
	if err := s.listedTargets(ctx, &q, of); err != nil {
		return q, err
	}
	if err := s.nameTargets(ctx, &q, of, all); err != nil {
		return q, err
	}
	if err := s.orderTargets(ctx, &q, all); err != nil {
		return q, err
	}
	slices.SortStableFunc(q.Targets, func(a, b targetRow) int { return a.At.Compare(b.At) })
	return q, nil
}

// maxShownBytes bounds what an answer about the queue has of the lists that were shown.
const maxShownBytes = 32 << 20

// listedTargets adds whom answers under authorisations listed, until they are told: the newest,
// as many as there is room for.
func (s *server) listedTargets(ctx context.Context, q *queueTargets, of map[string]*cases.Authorisation) error {
	rec := s.pipe.Recorder()
	facts, err := rec.Facts(ctx, "look.shown")
	if err != nil {
		return err
	}
	slices.SortFunc(facts, func(a, b state.Fact) int { return cmp.Compare(b.Index, a.Index) })
	room := maxShownBytes
	for _, f := range facts {
		var d shownDetail
		if json.Unmarshal(f.Detail, &d) != nil {
			q.Uncompared++
			continue
		}
		a := of[d.Authorisation]
		if a == nil || a.Inspector || d.Shown == nil {
			continue
		}
		if room <= 0 {
			q.Uncompared++
			continue
		}
		sealed, err := rec.Payload(*d.Shown)
		if errors.Is(err, ledger.ErrNoPayload) { // they were told
			continue
		}
		if err != nil {
			return err
		}
		if room -= len(sealed); room < 0 {
			q.Uncompared++
			continue
		}
		q.Shown = append(q.Shown, targetShown{f.Key, f.Time.UTC().Truncate(time.Second), a.Case, oversight.PersonOf(f.Actor), sealed})
	}
	return nil
}

// nameTargets adds requests of the last days for a name, and to erase names, that officers of
// the organisation decide on.
func (s *server) nameTargets(ctx context.Context, q *queueTargets, of map[string]*cases.Authorisation, all bool) error {
	rec := s.pipe.Recorder()
	facts, err := rec.FactsSince(ctx, "approval.requested", s.now().Add(-oversight.Kept))
	if err != nil {
		return err
	}
	for _, f := range facts {
		var d struct {
			Act, Authorisation string
			Payload            ledger.Digest
		}
		if json.Unmarshal(f.Detail, &d) != nil {
			q.Uncompared++
			continue
		}
		approved := map[string]string{actionUnmask: "unmask.approved", lifecycle.ErasureAction: "erasure.approved"}[d.Act]
		if a := of[d.Authorisation]; approved == "" || a != nil && a.Inspector {
			continue
		}
		raw, err := rec.Payload(d.Payload)
		if err != nil && !errors.Is(err, ledger.ErrNoPayload) {
			return err
		}
		st, perr := approval.Parse(raw)
		if perr != nil { // it is not kept, or of another form: one is no reason to see none
			q.Uncompared++
			continue
		}
		r := targetRow{Kind: "name", ID: st.ID, At: f.Time, Case: st.Case, Who: oversight.PersonOf(f.Actor), State: "requested"}
		if d.Act == lifecycle.ErasureAction {
			r.Kind = kindErasure
		}
		done, ok, err := rec.Fact(ctx, approved, st.ID)
		switch {
		case err != nil:
			return err
		case ok && !s.now().Before(done.Time.Add(st.Grant())):
			r.State = "over"
		case ok:
			r.State = "approved"
		case !s.now().Before(st.ExpiresAt()):
			r.State = "expired"
		}
		if (r.State == "expired" || r.State == "over") && !all {
			continue
		}
		tokens, err := s.tokensOf(ctx, st)
		if err != nil {
			return err
		}
		if len(tokens) == 0 {
			q.Uncompared++
		}
		q.add(r, tokens)
	}
	return nil
}

// tokensOf gives whom a request for a name, or to erase names, is about. What is not in the
// vault any more, and what is of another form, is left out.
func (s *server) tokensOf(ctx context.Context, st *approval.Statement) ([]string, error) {
	var at []vault.Place
	if o, err := parseUnmaskObjects(st.Objects); st.Action == actionUnmask && err == nil {
		at = append(at, vault.Place{Window: o.window, Index: o.index})
	} else if erased, err := lifecycle.ParseErasure(st.Objects); err == nil {
		for _, e := range erased {
			at = append(at, e.At)
		}
	}
	var out []string
	for _, p := range at {
		t, err := s.pipe.Vault().TokenAt(ctx, p)
		if err != nil {
			return nil, err
		}
		if t != "" {
			out = append(out, string(t))
		}
	}
	return out, nil
}

// orderTargets adds containments: those that wait, last, or of which nobody knows whether they
// were done.
func (s *server) orderTargets(ctx context.Context, q *queueTargets, all bool) error {
	orders, err := s.pipe.Recorder().Facts(ctx, broker.KindOrdered)
	if err != nil {
		return err
	}
	for _, f := range orders {
		var d containDetail
		if json.Unmarshal(f.Detail, &d) == nil && d.Act == broker.Notify { // whom a notice is about is not theirs to see
			continue
		}
		o, err := s.readOrder(f)
		if err != nil { // it is not kept, or of another form: one is no reason to see none
			q.Uncompared++
			continue
		}
		if o.order.Undoes != "" {
			continue
		}
		r, err := s.containRow(ctx, o)
		if err != nil {
			return err
		}
		if over := r.State == broker.Failed || r.State == broker.Undone || r.State == "expired"; all || !over {
			q.add(targetRow{Kind: o.order.Act, ID: r.ID, At: r.Asked, Case: r.Case, Who: r.By, State: r.State}, []string{o.order.Target})
		}
	}
	return nil
}
