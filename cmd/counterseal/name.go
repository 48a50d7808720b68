package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/keyholder"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/web"
)

// nameRequest is what travels to the officers who let names be asked for. The statement
// names nobody; each officer can open the names with their own key.
type nameRequest struct {
	Boxes     []nameBox `json:"boxes"`
	Epoch     int       `json:"epoch"` // of the officers to whom they are sealed
	Statement string    `json:"statement"`
	V         int       `json:"v"`

	question *keyholder.Question
}

// nameBox is what one officer reads: a namesKept.
type nameBox struct {
	Box string `json:"box"` // unpadded base64url
	Key string `json:"key"` // id of the card
}

// namesKept are the names of a question with the salt of their commitment. The asker keeps
// them in a file, and each officer finds them in the request.
type namesKept struct {
	Names []keyholder.Spoken `json:"names"`
	Salt  string             `json:"salt"` // unpadded base64url
	V     int                `json:"v"`

	salt []byte
}

const maxNameRequest = 128 << 10

func parseNameRequest(b []byte) (*nameRequest, *approval.Statement, error) {
	bad := errors.New("not a request for names")
	var r nameRequest
	if err := approval.DecodeUpTo(maxNameRequest, b, &r); err != nil || r.V != 1 || r.Epoch < 1 || len(r.Boxes) == 0 || len(r.Boxes) > 8 {
		return nil, nil, bad
	}
	s, err := approval.Parse([]byte(r.Statement))
	if err != nil {
		return nil, nil, err
	}
	if r.question, err = keyholder.ParseQuestion(s); err != nil {
		return nil, nil, err
	}
	return &r, s, nil
}

// parseNames reads namesKept and refuses those that a question is not about.
func (r *nameRequest) parseNames(b []byte) (*namesKept, error) {
	var n namesKept
	err := approval.DecodeUpTo(maxNameRequest, b, &n)
	if err == nil {
		n.salt, err = base64.RawURLEncoding.Strict().DecodeString(n.Salt)
	}
	if err != nil || n.V != 1 {
		return nil, errors.New("these are no names of a question")
	}
	if !r.question.Fits(n.salt, n.Names) {
		return nil, errors.New("these are other names than the statement commits to")
	}
	return &n, nil
}

// seal puts the names into the request, for each officer who may have to decide.
func (r *nameRequest) seal(roster *officer.Roster, n *namesKept) error {
	st, err := approval.Parse([]byte(r.Statement))
	if err != nil {
		return err
	}
	if r.question, err = keyholder.ParseQuestion(st); err != nil {
		return err
	}
	text, err := approval.Canonical(n)
	if err != nil {
		return err
	}
	if _, err := r.parseNames(text); err != nil { // what the server made of it
		return err
	}
	defer clear(text)
	r.Epoch, r.V = roster.Epoch, 1
	for i := range roster.Officers {
		a := &roster.Officers[i]
		if a.Inspector {
			continue
		}
		box, err := roster.SealFor(a, r.question.Org, st.ID, text)
		if err != nil {
			return err
		}
		r.Boxes = append(r.Boxes, nameBox{Box: base64.RawURLEncoding.EncodeToString(box), Key: a.ID()})
	}
	return nil
}

// open gives an officer the names, if they are those of the statement.
func (r *nameRequest) open(k *officer.Key, st *approval.Statement) (*namesKept, error) {
	for _, b := range r.Boxes {
		if b.Key != k.Card().ID() {
			continue
		}
		box, err := base64.RawURLEncoding.Strict().DecodeString(b.Box)
		if err != nil {
			return nil, errors.New("the names of the request cannot be read")
		}
		text, err := k.Read(r.question.Org, r.Epoch, st.ID, box)
		if err != nil {
			return nil, fmt.Errorf("the names of the request: %w", err)
		}
		defer clear(text)
		return r.parseNames(text)
	}
	return nil, errors.New("the names of the request are not sealed to this officer")
}

// nameAsk is what a person asks the server for: never a name.
type nameAsk struct {
	Names      int    `json:"names"`
	Commitment string `json:"commitment"` // hex
	Reason     string `json:"reason"`
	Requester  string `json:"requester"`
	Minutes    int    `json:"minutes"`
}

// asksNames refuses who cannot ask for names now, in this case.
func (s *server) asksNames(ctx context.Context) (web.Asker, error) {
	a := web.AskerOf(ctx)
	switch {
	case !cases.IsCase(a.Case):
		return a, web.BadRequest("the case is missing", "--case names it")
	case a.Person.Inspector:
		return a, &web.Refused{Reason: "an inspector's office asks for no names: the two officers of the organisation would read them", Hint: "search for what is known of the matter, and take the alias"}
	case s.tokens.client == nil:
		return a, &web.Refused{Reason: "no key holder makes the tokens of this data, so nobody can be asked", Hint: "counterseal keyholder init --dir DIR --data " + s.cfg.Data}
	}
	return a, caseError(s.cases.Stops(ctx))
}

// nameRequest makes a request to the officers and states it under the eyes of the
// witnesses. It sees how many names it is about, and no name.
func (s *server) nameRequest(ctx context.Context, actor string, body []byte) (any, error) {
	var ask nameAsk
	raw, err := []byte(nil), json.Unmarshal(body, &ask)
	if err == nil {
		raw, err = hex.DecodeString(ask.Commitment)
	}
	if err != nil || len(raw) != 32 {
		return nil, web.BadRequest("this is no request for names", "counterseal name request makes one")
	}
	a, err := s.asksNames(ctx)
	if err != nil {
		return nil, err
	}
	if !a.Fresh {
		return nil, &web.Refused{Reason: "the login is too old to ask for names", Hint: "log in again: counterseal login; then ask"}
	}
	st, err := s.tokens.client.Stats(ctx)
	if err != nil {
		return nil, err
	}
	if !st.Officers {
		return nil, &web.Refused{Reason: keyholder.ErrRoster.Error(), Hint: "put officers.yaml into its folder, and the keys of ledger and witnesses under `ledger` in its keyholder.yaml"}
	}
	q, statement, err := keyholder.NewQuestion(keyholder.Question{
		Case: a.Case, Purpose: ask.Reason, Requester: ask.Requester, Account: a.Person.ID, Names: ask.Names, Commitment: [32]byte(raw), Org: s.pipe.Org(), Grant: time.Duration(ask.Minutes) * time.Minute,
	}, s.now())
	if err != nil {
		return nil, web.BadRequest(err.Error(), "see: counterseal name request --help")
	}
	if err := s.requested(ctx, actor, q, statement, nil); err != nil {
		return nil, err
	}
	return &nameRequest{Boxes: []nameBox{}, Statement: string(statement), V: 1}, nil
}

// nameApprove checks the decisions of two officers and states them. What it answers makes
// the capability whole that the key holder takes.
func (s *server) nameApprove(ctx context.Context, actor string, body []byte) (any, error) {
	return s.approve(ctx, actor, body, ceremony{
		action: keyholder.Action, kind: "name.approved", hint: "ask with counterseal name request; two people of two offices sign it: counterseal officer sign",
		check: func(ctx context.Context, st *approval.Statement, signed []approval.Signed, roster *officer.Roster) error {
			q, err := keyholder.ParseQuestion(st)
			if err == nil {
				err = apart(st, signed, roster)
			}
			if err == nil && !s.stillHolds(q.Account) {
				err = errors.New("who asked is not in office any more")
			}
			if err != nil {
				return fmt.Errorf("%w: %w", attest.ErrNotApproved, err)
			}
			return nil
		},
		state: func(st *approval.Statement, digest string) ([]string, any, error) {
			return []string{st.ID}, unmaskApproved{Case: st.Case, Minutes: st.Minutes, Request: st.ID, Statement: digest}, nil
		},
	})
}

// stillHolds reports whether an account holds an office today.
func (s *server) stillHolds(account string) bool {
	offices := s.force.Load().offices
	return offices != nil && len(offices.Held(account)) > 0
}

// nameFetch is what the asker says once the key holder was asked.
type nameFetch struct {
	Request string `json:"request"`
}

// nameAnswer has the tokens by which the case shows the people, in the order of the names.
// On its way out they become aliases.
type nameAnswer struct {
	People []string `json:"people"`
	Epochs int      `json:"epochs"`
}

// nameAnswered fetches what a question gave from the key holder, and states which tokens
// are one person in its case.
func (s *server) nameAnswered(ctx context.Context, _ string, body []byte) (any, error) {
	var in nameFetch
	if json.Unmarshal(body, &in) != nil {
		return nil, web.BadRequest("this is no question that was asked", "counterseal name ask asks it")
	}
	id, err := uuid.Parse(in.Request)
	if err != nil {
		return nil, web.BadRequest("the request has no id", "counterseal name ask asks it")
	}
	a, err := s.asksNames(ctx)
	if err != nil {
		return nil, err
	}
	s.approving.Lock()
	defer s.approving.Unlock()
	rec := s.pipe.Recorder()
	const anew = "begin anew: counterseal name request"
	no := func(reason string) (any, error) { return nil, &web.Refused{Reason: reason, Hint: anew} }
	d, f, err := s.nameApproved(ctx, "name.approved", in.Request, anew)
	if err != nil {
		return nil, err
	}
	st, err := attest.Requested(ctx, rec, d.Request, d.Statement)
	if err != nil {
		return nil, err
	}
	q, err := keyholder.ParseQuestion(st)
	switch {
	case err != nil:
		return nil, err
	case q.Case != a.Case || !strings.EqualFold(q.Account, a.Person.ID):
		return no("this request is of another case or of somebody else")
	case !s.now().Before(f.Time.Add(q.Grant + keyholder.AnswerKept)):
		return no("the time of this request is over")
	}
	got, err := s.tokens.client.Fetch(ctx, id)
	switch {
	case errors.Is(err, keyholder.ErrNoAnswer):
		return no(err.Error())
	case err != nil:
		return nil, err
	case len(got) != q.Names:
		return nil, errors.New("the key holder answered for another number of names")
	}
	people := make([][]string, len(got))
	for i := range got {
		for _, t := range got[i].Tokens {
			people[i] = append(people[i], string(t))
		}
	}
	if _, done, err := rec.Fact(ctx, "name.answered", in.Request); err != nil {
		return nil, err
	} else if !done {
		if err := s.cases.Answered(ctx, a.Person, a.Case, in.Request, people); err != nil {
			return nil, caseError(err)
		}
	}
	joined, err := s.cases.Joined(ctx, a.Case)
	if err != nil {
		return nil, err
	}
	answer := nameAnswer{}
	for _, tokens := range people {
		answer.People = append(answer.People, joined.One(tokens[0]))
		answer.Epochs = max(answer.Epochs, len(tokens))
	}
	web.LookedByName(ctx, answer.People)
	return answer, nil
}

// holderLedger makes of the keys in a key holder's folder what says whether witnesses have
// seen that two officers approved a question, or the destruction of a key.
func holderLedger(w keyholder.Witnesses) (keyholder.SeenBy, error) {
	trust := trustFlags{logs: []string{w.Log}, witnesses: w.Witnesses, threshold: w.Threshold}
	if err := trust.check(); err != nil {
		return nil, err
	}
	v := trust.verifiers()
	if v.Threshold < 1 {
		return nil, errors.New("at least one witness must have cosigned")
	}
	return func(st *approval.Statement, statement []byte, seen keyholder.Seen, now time.Time) error {
		r := receipt(seen)
		kind := "name.approved"
		if st.Action == keyholder.DestroyAction {
			kind = "tokenkey.approved"
		}
		leaf, err := r.check(kind, st, statement, v)
		if err != nil {
			return err
		}
		return inTime(leaf, st, now)
	}, nil
}

// inTime checks the leaf of an approval: it is of the case and time of the statement, and
// that time is not over.
func inTime(leaf *ledger.Statement, st *approval.Statement, now time.Time) error {
	var d unmaskApproved
	if json.Unmarshal(leaf.Detail, &d) != nil || d.Case != st.Case || d.Minutes != st.Minutes {
		return errors.New("the receipt is of another case or time")
	}
	if !now.Before(leaf.Time.Add(st.Grant())) {
		return errors.New("the time of this approval is over")
	}
	return nil
}
