package main

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/duty"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/oversight"
	"github.com/counterseal/counterseal/internal/passkey"
	"github.com/counterseal/counterseal/internal/pipeline"
	"github.com/counterseal/counterseal/internal/policy"
	"github.com/counterseal/counterseal/internal/state"
	"github.com/counterseal/counterseal/internal/vault"
	"github.com/counterseal/counterseal/internal/web"
)

// What the acts of the night are given and answer.
type (
	dutyWarrantAsk struct {
		From      time.Time `json:"from"`
		Until     time.Time `json:"until"`
		Night     string    `json:"night"`
		Names     int       `json:"names"`
		Purpose   string    `json:"purpose"`
		Requester string    `json:"requester"`
	}
	dutyAsk struct {
		Alias  string `json:"alias"`
		Reason string `json:"reason"`
	}
	dutyOpened struct {
		Statement string          `json:"statement"`
		Signed    approval.Signed `json:"signed"`
	}
	dutyNamed struct {
		Warrant string `json:"warrant"`
	}
	dutyState struct {
		Warrants []dutyWarrantRow `json:"warrants"` // the newest first
		Asked    []dutyAskedRow   `json:"asked"`
		Overdue  int              `json:"overdue"` // not reviewed in time: nothing is opened
		Waiting  int              `json:"waiting"` // not reviewed: no warrant is renewed
	}
	dutyWarrantRow struct {
		ID    string    `json:"id"`
		From  time.Time `json:"from"`
		Until time.Time `json:"until"`
		Night string    `json:"night"`
		Names int       `json:"names"`
		State string    `json:"state"` // to come, in force, over, ended
	}
	dutyAskedRow struct {
		ID       string    `json:"id"`
		At       time.Time `json:"at"`
		Who      string    `json:"who"`
		Case     string    `json:"case"`
		Warrant  string    `json:"warrant"`
		Opened   bool      `json:"opened"` // the host has said so
		Due      time.Time `json:"due"`
		Overdue  bool      `json:"overdue,omitempty"`
		Outcome  string    `json:"outcome,omitempty"`
		Reviewed time.Time `json:"reviewed,omitzero"`
	}
)

// dutyWarranted is the detail of duty.warranted.
type dutyWarranted struct {
	From      string `json:"from"`
	Names     int    `json:"names"`
	Night     string `json:"night"`
	Request   string `json:"request"`
	Statement string `json:"statement"`
	Until     string `json:"until"`
}

const stampForm = "2006-01-02T15:04:05Z"

// nightsAsked gives what was asked for at night, the oldest first.
func (s *server) nightsAsked(ctx context.Context) ([]dutyAskedRow, error) {
	rec := s.pipe.Recorder()
	facts, err := rec.Facts(ctx, "duty.asked")
	if err != nil {
		return nil, err
	}
	slices.SortFunc(facts, func(a, b state.Fact) int { return cmp.Compare(a.Index, b.Index) })
	now := s.now()
	out := []dutyAskedRow{}
	for _, f := range facts {
		var d dutyAsked
		if err := json.Unmarshal(f.Detail, &d); err != nil {
			return nil, fmt.Errorf("statement %d: %w", f.Index, err)
		}
		r := dutyAskedRow{ID: f.Key, At: f.Time.UTC(), Who: f.Actor, Case: d.Case, Warrant: d.Warrant, Due: duty.Due(f.Time)}
		if _, r.Opened, err = rec.Fact(ctx, "duty.opened", f.Key); err != nil {
			return nil, err
		}
		review, ok, err := rec.Fact(ctx, "look.reviewed", f.Key)
		if err != nil {
			return nil, err
		}
		if ok {
			var found struct {
				Outcome string `json:"outcome"`
			}
			if err := json.Unmarshal(review.Detail, &found); err != nil {
				return nil, fmt.Errorf("statement %d: %w", review.Index, err)
			}
			r.Outcome, r.Reviewed = found.Outcome, review.Time.UTC()
		}
		r.Overdue = !ok && !now.Before(r.Due)
		out = append(out, r)
	}
	return out, nil
}

// warrants gives the warrants that two offices have signed, the newest first.
func (s *server) warrants(ctx context.Context) ([]dutyWarrantRow, error) {
	rec := s.pipe.Recorder()
	facts, err := rec.Facts(ctx, "duty.warranted")
	if err != nil {
		return nil, err
	}
	slices.SortFunc(facts, func(a, b state.Fact) int { return cmp.Compare(b.Index, a.Index) })
	now := s.now()
	out := []dutyWarrantRow{}
	for _, f := range facts {
		var d dutyWarranted
		err := json.Unmarshal(f.Detail, &d)
		r := dutyWarrantRow{ID: f.Key, Night: d.Night, Names: d.Names}
		from, ferr := time.Parse(stampForm, d.From)
		until, uerr := time.Parse(stampForm, d.Until)
		if err := errors.Join(err, ferr, uerr); err != nil {
			return nil, fmt.Errorf("statement %d: %w", f.Index, err)
		}
		r.From, r.Until = from, until
		_, ended, err := rec.Fact(ctx, "duty.ended", f.Key)
		switch {
		case err != nil:
			return nil, err
		case ended:
			r.State = "ended"
		case now.Before(from):
			r.State = "to come"
		case now.Before(until):
			r.State = "in force"
		default:
			r.State = "over"
		}
		out = append(out, r)
	}
	return out, nil
}

func (s *server) dutyStatus(ctx context.Context, _ string, _ []byte) (any, error) {
	var out dutyState
	var err error
	if out.Warrants, err = s.warrants(ctx); err != nil {
		return nil, err
	}
	if out.Asked, err = s.nightsAsked(ctx); err != nil {
		return nil, err
	}
	for i := range out.Asked {
		if r := &out.Asked[i]; r.Outcome == "" {
			out.Waiting++
			if r.Overdue {
				out.Overdue++
			}
		}
	}
	return out, nil
}

// allReviewed refuses a new warrant before what was asked for under others is reviewed.
func (s *server) allReviewed(ctx context.Context) error {
	asked, err := s.nightsAsked(ctx)
	if err != nil {
		return err
	}
	n := 0
	for i := range asked {
		if asked[i].Outcome == "" {
			n++
		}
	}
	if n > 0 {
		return &web.Refused{Reason: fmt.Sprintf("%d names that were asked for at night are not reviewed, so no warrant is renewed", n), Hint: "an overseer: counterseal oversight queue, counterseal oversight review"}
	}
	return nil
}

// dutyWarrant makes a request for a warrant and states it under the eyes of the witnesses.
func (s *server) dutyWarrant(ctx context.Context, actor string, body []byte) (any, error) {
	var ask dutyWarrantAsk
	if err := decodeAct(body, &ask); err != nil {
		return nil, err
	}
	roster, err := s.cfg.roster()
	if err != nil {
		return nil, err
	}
	w := duty.Warrant{From: ask.From.UTC().Truncate(time.Second), Until: ask.Until.UTC().Truncate(time.Second), Names: ask.Names}
	if roster != nil {
		w.Inner, w.Outer = roster.Duty()
	}
	if w.Inner == "" {
		return nil, &web.Refused{Reason: "the officers name no duty host", Hint: "counterseal duty init makes one; its two cards belong into the file of the officers, with a new epoch"}
	}
	if w.Night, err = duty.ParseNight(ask.Night); err != nil {
		return nil, web.BadRequest("--night: "+err.Error(), "")
	}
	if err := s.allReviewed(ctx); err != nil {
		return nil, err
	}
	st, statement, err := approval.New(approval.Ask{
		Action: duty.ToWarrant, Case: "duty", Purpose: ask.Purpose, Requester: ask.Requester, Objects: w.Objects(), Org: s.pipe.Org(), Grant: duty.Fresh,
	}, s.now())
	if err == nil {
		_, err = duty.ParseWarrant(st)
	}
	if err != nil {
		return nil, web.BadRequest(err.Error(), "see: counterseal duty warrant --help")
	}
	if err := s.requested(ctx, actor, st, statement, nil); err != nil {
		return nil, err
	}
	return officerRequest{Statement: string(statement), V: 1}, nil
}

// dutyApprove checks the decisions of two officers and states the warrant. What it answers
// is all that the duty host needs.
func (s *server) dutyApprove(ctx context.Context, actor string, body []byte) (any, error) {
	got, err := s.approve(ctx, actor, body, ceremony{
		action: duty.ToWarrant, kind: "duty.warranted", hint: "ask with counterseal duty warrant; two people of two offices sign it: counterseal officer sign",
		check: func(ctx context.Context, st *approval.Statement, _ []approval.Signed, _ *officer.Roster) error {
			return s.allReviewed(ctx)
		},
		state: func(st *approval.Statement, digest string) ([]string, any, error) {
			w, err := duty.ParseWarrant(st)
			if err != nil {
				return nil, nil, err
			}
			return []string{st.ID}, dutyWarranted{From: w.From.Format(stampForm), Names: w.Names, Night: w.Night.String(), Request: st.ID, Statement: digest, Until: w.Until.Format(stampForm)}, nil
		},
	})
	if err != nil {
		return nil, err
	}
	var in unlockDecided
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, err
	}
	reviews, err := s.nightReviews(ctx)
	return &dutyWarrant{Decisions: in.Decisions, Receipt: *got.(*receipt), Reviews: reviews, Statement: in.Statement, V: 1}, err
}

// nightReviews proves the newest reviews of names that were asked for at night.
func (s *server) nightReviews(ctx context.Context) ([]receipt, error) {
	asked, err := s.nightsAsked(ctx)
	if err != nil {
		return nil, err
	}
	rec := s.pipe.Recorder()
	seen, _ := rec.Witnessed()
	out := []receipt{}
	for i := range slices.Backward(asked) {
		f, ok, err := rec.Fact(ctx, "look.reviewed", asked[i].ID)
		if err != nil {
			return nil, err
		}
		if _, current := rec.Own(f.Index); !ok || !current || f.Index >= seen {
			continue
		}
		r, err := s.receiptOf(ctx, f.Index)
		if err != nil {
			return nil, err
		}
		if out = append(out, *r); len(out) == maxNightReviews {
			break
		}
	}
	return out, nil
}

// dutyNow gives the warrant in force, the night, and how many names were asked for in it.
func (s *server) dutyNow(ctx context.Context) (*dutyWarrantRow, error) {
	all, err := s.warrants(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(r dutyWarrantRow) bool { return r.State == "in force" })
	if i < 0 {
		return nil, &web.Refused{Reason: "no warrant of a duty host is in force", Hint: "the two offices sign one in advance: counterseal duty warrant; else they open a name together: counterseal unmask request"}
	}
	w := &all[i]
	n, err := duty.ParseNight(w.Night)
	if err != nil {
		return nil, err
	}
	night, err := (&duty.Warrant{From: w.From, Until: w.Until, Night: n, Names: w.Names}).At(s.now())
	var no *duty.Refusal
	if errors.As(err, &no) {
		return nil, &web.Refused{Reason: no.Reason, Hint: no.Hint}
	}
	asked, err := s.nightsAsked(ctx)
	if err != nil {
		return nil, err
	}
	count, overdue := 0, 0
	for i := range asked {
		if asked[i].Overdue {
			overdue++
		}
		if of, ok := n.Of(asked[i].At); ok && of == night {
			count++
		}
	}
	switch {
	case overdue > 0:
		return nil, &web.Refused{Reason: fmt.Sprintf("the review of %d names that were asked for at night is overdue, so no other one is opened", overdue), Hint: "an overseer: counterseal oversight queue; until then two officers open a name: counterseal unmask request"}
	case count >= w.Names:
		return nil, &web.Refused{Reason: fmt.Sprintf("%d names were asked for this night, and that is the most", count), Hint: "two officers open more: counterseal unmask request"}
	}
	return w, nil
}

// nightAsk is a request for a name at night, before it is stated.
type nightAsk struct {
	st        *approval.Statement
	statement []byte
	row       *vault.Row
	proof     *vault.Proof
	grant     string
	warrant   string
}

// newNightAsk makes a request for a name at night, if who asks may ask for it now.
func (s *server) newNightAsk(ctx context.Context, body []byte) (*nightAsk, error) {
	var ask dutyAsk
	if err := decodeAct(body, &ask); err != nil {
		return nil, err
	}
	a, alias, token, err := s.asksForName(ctx, ask.Alias)
	if err != nil {
		return nil, err
	}
	w, cover, err := s.mayAskAtNight(ctx, a, token)
	if err != nil {
		return nil, err
	}
	n := nightAsk{grant: cover.ID, warrant: w.ID}
	if n.row, n.proof, err = s.sealOf(ctx, a.Case, token); err != nil {
		return nil, err
	}
	roster, err := s.cfg.roster()
	if err != nil {
		return nil, err
	}
	if !sealedToDuty(roster, n.row) {
		return nil, &web.Refused{Reason: "the name was sealed before there was a duty host", Hint: "two officers open it: counterseal unmask request"}
	}
	o := dutyObjects{newUnmaskObjects(alias, n.row, n.proof, a.Person.ID), n.grant, n.warrant}
	n.st, n.statement, err = approval.New(approval.Ask{
		Action: duty.ToOpen, Case: a.Case, Purpose: ask.Reason, Requester: a.Person.ID, Objects: o.list(), Org: s.pipe.Org(), Life: duty.Fresh, Grant: duty.Fresh,
	}, s.now())
	if err != nil {
		return nil, web.BadRequest(err.Error(), "see: counterseal duty ask --help")
	}
	return &n, nil
}

// dutyAsk states that a responder asks for a name at night, under the eyes of the witnesses,
// and gives what the duty host needs. This server opens nothing: it cannot.
func (s *server) dutyAsk(ctx context.Context, actor string, body []byte) (any, error) {
	n, err := s.newNightAsk(ctx, body)
	if err != nil {
		return nil, err
	}
	return s.askAtNight(ctx, actor, n)
}

// askAtNight counts a request, states it, and proves all that the duty host wants to see.
func (s *server) askAtNight(ctx context.Context, actor string, n *nightAsk) (*dutyRequest, error) {
	s.approving.Lock()
	defer s.approving.Unlock()
	rec, a := s.pipe.Recorder(), web.AskerOf(ctx)
	f, asked, err := rec.Fact(ctx, "duty.asked", n.st.ID)
	if err != nil {
		return nil, err
	}
	if !asked {
		// Again: another one may have been asked for meanwhile.
		if w, err := s.dutyNow(ctx); err != nil {
			return nil, err
		} else if w.ID != n.warrant {
			return nil, &web.Refused{Reason: "the warrant has ended", Hint: "ask again: counterseal duty ask"}
		}
		d := dutyAsked{Act: "duty.ask", Case: n.st.Case, Cover: n.grant, Office: a.Person.Office, Purpose: word(n.st.Case), Request: n.st.ID, Selects: access.Person.String(), Statement: approval.HexDigest(n.statement), Warrant: n.warrant}
		question, err := json.Marshal(map[string]any{"path": "/api/v1/acts/duty.ask", "query": n.st.Purpose, "look": oversight.AboutOf(s.force.Load().offices, a.Person.ID, []string{string(n.row.Token)})})
		if err != nil {
			return nil, err
		}
		if d.Payload, err = rec.PutPayload(n.statement); err != nil {
			return nil, err
		}
		if d.Question, err = rec.PutPayload(question); err != nil {
			return nil, err
		}
		stated, err := rec.Critical(ctx, attest.Act{Kind: "duty.asked", Actor: actor, Purpose: word(n.st.Case), Subject: []string{n.st.ID}, Detail: d})
		s.oversight.Stated(ctx, "duty.asked", n.st.ID) // it waits for its review, whether witnesses have seen it or not
		if err != nil {
			return nil, err
		}
		f.Index = stated.Index
	}
	sealed, err := s.sealedRequest(ctx, n.row, n.proof, n.statement)
	if err != nil {
		return nil, err
	}
	r := dutyRequest{unmaskRequest: *sealed}
	got, err := s.receiptOf(ctx, f.Index)
	if err != nil {
		return nil, err
	}
	r.Asked = *got
	if err := s.provenGrant(ctx, n.grant, &r); err != nil {
		return nil, err
	}
	r.Reviews, err = s.nightReviews(ctx)
	return &r, err
}

// dutySign makes a request that waits for the passkey of who asks. Nothing is counted before
// it is signed and collected.
func (s *server) dutySign(ctx context.Context, _ string, body []byte) (any, error) {
	n, err := s.newNightAsk(ctx, body)
	if err != nil {
		return nil, err
	}
	account, err := s.signs(ctx)
	if err != nil {
		return nil, err
	}
	return s.await(ctx, account, n.statement)
}

// dutyCollected is what came of a request: nil while it waits for its passkey.
type dutyCollected struct {
	Request *dutyRequest `json:"request,omitempty"`
}

// dutyCollect gives what the duty host needs, once a request was signed by the passkey of who
// asks. What held when it was made must hold now.
func (s *server) dutyCollect(ctx context.Context, actor string, body []byte) (any, error) {
	from, err := s.awaitSigned(ctx, body, duty.ToOpen, func(objects []string) (*unmaskObjects, error) {
		o, err := parseDutyObjects(objects)
		if err != nil {
			return nil, err
		}
		return &o.unmaskObjects, nil
	}, "counterseal duty ask")
	if err != nil || from == nil {
		return dutyCollected{}, err
	}
	o, err := parseDutyObjects(from.st.Objects)
	if err != nil {
		return nil, err
	}
	n := nightAsk{st: from.st, statement: from.statement, grant: o.grant, warrant: o.warrant}
	if n.row, n.proof, err = s.pipe.Vault().At(ctx, o.window, o.index); err != nil {
		return nil, err
	}
	a := web.AskerOf(ctx)
	if a.Case != from.st.Case {
		return nil, web.BadRequest("the request is of another case", "--case names it")
	}
	_, cover, err := s.mayAskAtNight(ctx, a, string(n.row.Token))
	if err != nil {
		return nil, err
	}
	if cover.ID != n.grant {
		return nil, &web.Refused{Reason: "another grant opens this person now", Hint: "ask again: counterseal duty ask"}
	}
	r, err := s.askAtNight(ctx, actor, &n)
	if err != nil {
		return nil, err
	}
	by, err := s.signedByOf(ctx, from)
	r.By, r.V = by, 2
	return dutyCollected{r}, err
}

// dutySigned states a request for a name at night that a passkey signed.
func (s *server) dutySigned(ctx context.Context, account string, st *approval.Statement, statement []byte, by *passkey.Signed) (string, error) {
	o, err := parseDutyObjects(st.Objects)
	if err != nil {
		return "", err
	}
	if o.account != account {
		return "the statement is of another account", nil
	}
	return s.stateSigned(ctx, account, st, statement, by, "")
}

// sealedToDuty reports whether the duty host of the officers has a box of a seal.
func sealedToDuty(roster *officer.Roster, row *vault.Row) bool {
	if roster == nil {
		return false
	}
	inner, outer := roster.Duty()
	return inner != "" && slices.ContainsFunc(row.Boxes(), func(b keyring.Sealed) bool {
		return b.Inner == roster.Find(inner).Seal.ID() && b.Outer == roster.Find(outer).Seal.ID()
	})
}

// mayAskAtNight asks the policies, for a warrant, whether somebody watches who could review
// it, and for a finding that opens the person.
func (s *server) mayAskAtNight(ctx context.Context, a web.Asker, token string) (w *dutyWarrantRow, cover cases.Cover, err error) {
	decide := web.DecideBy(func() *policy.Set { return s.force.Load().policy })
	r := policy.Request{Principal: a.Person, Action: "duty.ask", Context: policy.Context{Now: s.now(), Grant: cases.Covers}}
	d := decide(ctx, r)
	if d.Allow { // or no grant could open it: whoever may not ask opens none
		if w, err = s.dutyNow(ctx); err != nil {
			web.Judged(ctx, cases.Times)
			return w, cover, err
		}
		stop, err := s.oversight.Stopped(ctx)
		if err != nil {
			return w, cover, err
		}
		if stop != nil {
			web.Judged(ctx, stop.Code)
			return w, cover, &web.Refused{Reason: stop.Reason, Hint: stop.Hint}
		}
		if cover, err = s.cases.ByFinding(ctx, a.Person, a.Case, s.questionAbout(cases.Named{Who: access.ByToken, Value: token})); err != nil {
			return w, cover, err
		}
		r.Context.Grant = cover.Grant
		d = decide(ctx, r)
	}
	if !d.Allow {
		web.Judged(ctx, "not_permitted")
		return w, cover, &web.Refused{Reason: joinNonEmpty("; ", d.Reason, cover.Reason), Hint: cmp.Or(cover.Hint, "docs/policy-matrix.md says who may ask for a name at night")}
	}
	web.Judged(ctx, "")
	return w, cover, nil
}

// provenGrant adds the statement of a grant and its payload to a request.
func (s *server) provenGrant(ctx context.Context, id string, r *dutyRequest) error {
	rec := s.pipe.Recorder()
	f, ok, err := rec.Fact(ctx, "grant.opened", id)
	if err != nil || !ok {
		return errors.Join(err, errors.New("the ledger does not know the grant"))
	}
	var d struct {
		Payload ledger.Digest `json:"payload"`
	}
	if err := json.Unmarshal(f.Detail, &d); err != nil {
		return fmt.Errorf("statement %d: %w", f.Index, err)
	}
	salted, err := rec.Ledger().SaltedPayload(d.Payload)
	if err != nil {
		return err
	}
	grant, err := s.receiptOf(ctx, f.Index)
	if err != nil {
		return err
	}
	r.Grant, r.Opened = *grant, base64.RawURLEncoding.EncodeToString(salted)
	return nil
}

// dutyOpened takes what the duty host signed when it had opened a name, and states it. The
// server learns no name by it.
func (s *server) dutyOpened(ctx context.Context, actor string, body []byte) (any, error) {
	var in dutyOpened
	if err := decodeAct(body, &in); err != nil {
		return nil, err
	}
	no := func(reason string) (any, error) {
		return nil, &web.Refused{Reason: reason, Hint: "counterseal duty status says what was asked for"}
	}
	roster, err := s.cfg.roster()
	if err != nil {
		return nil, err
	}
	var book approval.Book
	st, err := book.Request([]byte(in.Statement), s.now())
	if err != nil {
		return no(err.Error())
	}
	rec := s.pipe.Recorder()
	f, ok, err := rec.Fact(ctx, "duty.asked", st.ID)
	if err != nil {
		return nil, err
	}
	var d dutyAsked
	if !ok || json.Unmarshal(f.Detail, &d) != nil || d.Statement != approval.HexDigest([]byte(in.Statement)) {
		return no("the ledger does not know this request")
	}
	inner := ""
	if roster != nil {
		inner, _ = roster.Duty()
	}
	if inner == "" || in.Signed.Key != inner || in.Signed.Decision != approval.Approve {
		return no("the duty host of the officers did not sign it")
	}
	if _, err := book.Decide(st.ID, in.Signed, approval.Officer{Key: inner, Person: "duty", Office: "duty", Public: roster.Find(inner).Sign}, s.now()); err != nil {
		return no(err.Error())
	}
	if _, done, err := rec.Fact(ctx, "duty.opened", st.ID); err != nil {
		return nil, err
	} else if done {
		return in, nil
	}
	b, err := approval.Canonical(in.Signed)
	if err != nil {
		return nil, err
	}
	signed, err := rec.PutPayload(b)
	if err != nil {
		return nil, err
	}
	if _, err := rec.Record(ctx, attest.Act{Kind: "duty.opened", Actor: actor, Purpose: word(st.Case), Subject: []string{st.ID}, Detail: map[string]any{"request": st.ID, "signed": signed}}); err != nil {
		return nil, err
	}
	s.oversight.Stated(ctx, "duty.opened", st.ID)
	return in, nil
}

// dutyEnd states that nothing is asked for under a warrant any more.
func (s *server) dutyEnd(ctx context.Context, actor string, body []byte) (any, error) {
	var in dutyNamed
	if err := decodeAct(body, &in); err != nil {
		return nil, err
	}
	rec := s.pipe.Recorder()
	if _, ok, err := rec.Fact(ctx, "duty.warranted", in.Warrant); err != nil {
		return nil, err
	} else if !ok {
		return nil, web.BadRequest("there is no such warrant", "counterseal duty status lists them")
	}
	if _, ended, err := rec.Fact(ctx, "duty.ended", in.Warrant); err != nil || ended {
		return in, err
	}
	_, err := rec.Record(ctx, attest.Act{Kind: "duty.ended", Actor: actor, Subject: []string{in.Warrant}, Detail: map[string]any{"warrant": in.Warrant}})
	return in, err
}

// dutyChecks tells the doctor how the nights stand.
func (s *server) dutyChecks(ctx context.Context) ([]pipeline.Check, error) {
	all, err := s.warrants(ctx)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	asked, err := s.nightsAsked(ctx)
	if err != nil {
		return nil, err
	}
	c := pipeline.Check{Name: "nights", State: "ok", Text: "no warrant of a duty host is in force"}
	if i := slices.IndexFunc(all, func(r dutyWarrantRow) bool { return r.State == "in force" }); i >= 0 {
		c.Text = fmt.Sprintf("a responder may see %d names a night, %s UTC, until %s", all[i].Names, all[i].Night, all[i].Until.UTC().Format(time.DateOnly))
	}
	for i := range asked {
		if asked[i].Overdue {
			c.State, c.Text, c.Hint = "warn", "a name that was asked for at night was not reviewed within 3 working days: no other one is opened", "an overseer: counterseal oversight queue"
		}
	}
	return []pipeline.Check{c}, nil
}
