package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/vault"
	"github.com/counterseal/counterseal/internal/web"
)

// What an inspector's office opens with its two keys, and with nobody else: a name, originals,
// what it asked itself. The statement that both sign lies under their keys beside the
// ledger; the leaf says that an office asked to open something, and no more. The server is
// brought the statement again where it needs it: docs/formats/authorisation.md.

// insideRequest is what travels from the server to the two of an inspector's office: what
// they are asked, and one of three sealed things. Nothing in it is secret from them.
type insideRequest struct {
	Form      string           `json:"form"`
	Name      *insideName      `json:"name,omitempty"`
	Questions []insideQuestion `json:"questions,omitempty"`
	Segments  []sealedSegment  `json:"segments,omitempty"`
	Statement string           `json:"statement"`

	name   *unmaskRequest
	sealed []*evidence.SealedKey
}

// insideName is a sealed name, and what the ledger knew of it from its first sighting.
type insideName struct {
	Path   []string `json:"path"` // from the seal to the root of its window, hex
	Row    string   `json:"row"`  // unpadded base64url; it has the token
	Window receipt  `json:"window"`
}

// insideQuestion is something that the office asked.
type insideQuestion struct {
	At    string `json:"at"`
	Box   string `json:"box"` // unpadded base64url
	ID    string `json:"id"`  // of the statement
	Kind  string `json:"kind"`
	Route string `json:"route"`
}

const (
	insideForm   = "inspector.request/v1"
	maxInside    = 4 << 20
	maxQuestions = 60
)

// insideKinds are the statements that an opening becomes, by the action of the request.
var insideKinds = map[string]string{officer.InsideUnmask: "unmask.approved", officer.InsideUnlock: "unlock.opened", officer.InsideQuestions: "inspector.read"}

// parseInside reads a request of an inspector's office. Its errors quote nothing.
func parseInside(b []byte) (*insideRequest, *approval.Statement, error) {
	bad := errors.New("not a request of an inspector's office")
	var r insideRequest
	if err := approval.DecodeUpTo(maxInside, b, &r); err != nil || r.Form != insideForm {
		return nil, nil, bad
	}
	st, err := approval.Parse([]byte(r.Statement))
	if err != nil {
		return nil, nil, err
	}
	switch {
	case st.Action == officer.InsideUnmask && r.Name != nil && r.Segments == nil && r.Questions == nil:
		raw, err := base64.RawURLEncoding.Strict().DecodeString(r.Name.Row)
		if err != nil || r.Name.Window.V != 1 {
			return nil, nil, bad
		}
		row, err := vault.ParseRow(raw)
		if err != nil {
			return nil, nil, err
		}
		r.name = &unmaskRequest{Path: r.Name.Path, Window: r.Name.Window, row: row}
	case st.Action == officer.InsideUnlock && r.Name == nil && len(r.Segments) > 0 && len(r.Segments) <= maxUnlock && r.Questions == nil:
		for i := range r.Segments {
			k, err := r.Segments[i].key()
			if err != nil {
				return nil, nil, err
			}
			r.sealed = append(r.sealed, k)
		}
	case st.Action == officer.InsideQuestions && r.Name == nil && r.Segments == nil && len(r.Questions) > 0 && len(r.Questions) <= maxQuestions:
		for _, q := range r.Questions {
			if id, err := uuid.Parse(q.ID); err != nil || id.String() != q.ID {
				return nil, nil, bad
			}
			if _, err := base64.RawURLEncoding.Strict().DecodeString(q.Box); err != nil {
				return nil, nil, bad
			}
		}
	default:
		return nil, nil, bad
	}
	return &r, st, nil
}

// org is the data directory of what is sealed; empty where that does not say.
func (r *insideRequest) org() string {
	switch {
	case r.name != nil:
		return r.name.row.Org.String()
	case len(r.sealed) > 0:
		return r.sealed[0].Org()
	}
	return ""
}

// objects are what a statement about these things must name; nil for a name, whose alias
// the statement alone has.
func (r *insideRequest) objects() (out []string) {
	for _, k := range r.sealed {
		out = append(out, k.Objects()...)
	}
	for _, q := range r.Questions {
		out = append(out, "statement "+q.ID)
	}
	return out
}

// things are the seals of a request, as the officers of a roster open them.
func (r *insideRequest) things(st *approval.Statement, roster *officer.Roster) ([]sealedThing, error) {
	var out []sealedThing
	if r.name != nil {
		out = append(out, sealedThing{r.name.row.Info(), r.name.row.Boxes()})
	}
	for _, k := range r.sealed {
		out = append(out, sealedThing{k.Info(), k.Boxes()})
	}
	if len(r.Questions) == 0 {
		return out, nil
	}
	org, err := uuid.Parse(st.Org)
	if err != nil {
		return nil, err
	}
	escrow := roster.Escrow()
	if !escrow.Inspected() {
		return nil, errors.New("--officers names no inspector's office")
	}
	for _, q := range r.Questions {
		box, err := base64.RawURLEncoding.Strict().DecodeString(q.Box)
		if err != nil {
			return nil, err
		}
		out = append(out, sealedThing{
			keyring.SealInfo{Purpose: insidePurpose, Org: org, Subject: q.ID},
			[]keyring.Sealed{{Box: box, Epoch: escrow.Epoch, Inner: escrow.Inspector.Investigation.ID(), Outer: escrow.Inspector.Oversight.ID()}},
		})
	}
	return out, nil
}

// insideAsk is what somebody of an inspector's office asks the server for.
type insideAsk struct {
	Action string `json:"action"` // one of insideKinds
	Alias  string `json:"alias,omitempty"`
	unlockAsk
}

// insider gives who asks, where they are of the inspector's office to which seals are made,
// by the login and by both records.
func (s *server) insider(ctx context.Context) (web.Asker, *officer.Roster, error) {
	a := web.AskerOf(ctx)
	no := func(reason, hint string) (web.Asker, *officer.Roster, error) {
		return a, nil, &web.Refused{Reason: reason, Hint: hint}
	}
	if !cases.Inside(s.force.Load().offices, a.Person, a.Person.Authority) {
		return no("an inspector's office does this, with keys of its own", "the organisation asks with counterseal unmask request, and evidence unlock")
	}
	roster, err := s.cfg.roster()
	if err != nil {
		return a, nil, err
	}
	if roster == nil || !roster.Escrow().Inspected() {
		return no("no keys of an inspector's office are named in the configuration, so nothing is sealed to one", "docs/operations.md: officers")
	}
	if !keysOf(roster, s.force.Load().offices, a.Person.Office) {
		return no("the keys in the configuration are of another inspector's office than yours", "docs/operations.md: officers")
	}
	return a, roster, nil
}

// insideActor is who acts for the ledger, where somebody of an inspector's office does.
func insideActor(a web.Asker) string { return "office:" + a.Person.Office }

// insideRequest makes a request to the two of an inspector's office and states, under the
// eyes of the witnesses, that there is one.
func (s *server) insideRequest(ctx context.Context, _ string, body []byte) (any, error) {
	var ask insideAsk
	if json.Unmarshal(body, &ask) != nil || insideKinds[ask.Action] == "" {
		return nil, web.BadRequest("this is no request of an inspector's office", "")
	}
	a, _, err := s.insider(ctx)
	if err != nil {
		return nil, err
	}
	switch {
	case !cases.IsCase(a.Case):
		return nil, web.BadRequest("the case is missing", "--case names it")
	case !a.Fresh:
		return nil, &web.Refused{Reason: "the login is too old to ask for this", Hint: "log in again, and ask then"}
	}
	r := insideRequest{Form: insideForm}
	var objects []string
	var row *vault.Row
	var proof *vault.Proof
	switch ask.Action {
	case officer.InsideUnmask:
		objects, row, proof, err = s.insideName(ctx, a, ask.Alias)
	case officer.InsideUnlock:
		var ids []uuid.UUID
		if ids, err = s.asked(&ask.unlockAsk); err == nil {
			r.Segments, r.sealed, err = s.sealedSegments(ids)
			objects = r.objects()
		}
	default:
		r.Questions, err = s.insideQuestions(ctx, a, ask.From, ask.To)
		objects = r.objects()
	}
	if err != nil {
		return nil, err
	}
	if row != nil {
		err = s.sealedInside(a.Person.Authority, row)
	}
	for _, k := range r.sealed {
		err = errors.Join(err, s.sealedInside(a.Person.Authority, k))
	}
	if err != nil {
		return nil, err
	}
	st, statement, err := approval.New(approval.Ask{
		Action: ask.Action, Case: a.Case, Purpose: ask.Purpose, Requester: ask.Requester, Objects: objects, Org: s.pipe.Org(), Grant: time.Duration(ask.Minutes) * time.Minute,
	}, s.now())
	if err != nil {
		return nil, web.BadRequest(err.Error(), "see: counterseal inspector --help")
	}
	r.Statement = string(statement)
	if err := s.stateInside(ctx, a.Person.Office, st, statement); err != nil {
		return nil, err
	}
	if row != nil {
		of, err := s.sealedRequest(ctx, row, proof, statement)
		if err != nil {
			return nil, err
		}
		r.Name = &insideName{Path: of.Path, Row: of.Row, Window: of.Window}
	}
	return &r, nil
}

// stateInside states that an inspector's office asks to open something. What, lies under its
// keys.
func (s *server) stateInside(ctx context.Context, office string, st *approval.Statement, statement []byte) error {
	seal := s.inside()
	if seal == nil {
		return errors.New("the keys of the inspector's office are gone")
	}
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	kept := keptInside{Route: "inspector.request"}
	if kept.Sealed, err = seal(office, id.String(), statement); err != nil {
		return err
	}
	raw, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	rec := s.pipe.Recorder()
	payload, err := rec.PutPayload(raw)
	if err != nil {
		return err
	}
	_, err = rec.Critical(ctx, attest.Act{
		ID: id, Kind: "approval.requested", Actor: "office:" + office, Subject: []string{st.ID},
		Detail: map[string]any{"request": st.ID, "act": st.Action, "expires": st.Expires, "statement": approval.HexDigest(statement), "payload": payload, "inspector": true},
	})
	return err
}

// keptInside is the payload of what an inspector's office asked: web keeps questions so.
type keptInside struct {
	Route  string `json:"route"`
	Sealed []byte `json:"sealed"`
}

// sealedInside refuses what is not sealed to the two keys of an inspector's office: it was
// sealed before they were in officers/v1, and nobody of the office could open it.
func (s *server) sealedInside(authority string, sealed interface{ Boxes() []keyring.Sealed }) error {
	roster, err := s.cfg.roster()
	if err != nil {
		return err
	}
	theirs := map[keyring.KeyID]bool{}
	if roster != nil {
		for _, o := range roster.Officers {
			theirs[o.Seal.ID()] = o.Inspector && officer.Person(o.Authority) == officer.Person(authority)
		}
	}
	for _, b := range sealed.Boxes() {
		if theirs[b.Inner] && theirs[b.Outer] {
			return nil
		}
	}
	return &web.Refused{Reason: "this was sealed before the keys of your office were among the officers, so your keys do not open it", Hint: "ask for what was sealed later: counterseal officer card --inspector, and a new officers.yaml, put your keys there"}
}

// insideName finds the seal of somebody whom an authorisation of the office covers.
func (s *server) insideName(ctx context.Context, a web.Asker, alias string) (objects []string, row *vault.Row, proof *vault.Proof, err error) {
	alias, token, err := s.whom(ctx, alias)
	if err != nil {
		return nil, nil, nil, err
	}
	cover, err := s.namesCover(ctx, a.Person, a.Case, token)
	if err != nil {
		return nil, nil, nil, err
	}
	if cover.Authorisation != cases.Covers {
		return nil, nil, nil, &web.Refused{Reason: joinNonEmpty("; ", "no authorisation of your office covers this person in this case", cover.Reason), Hint: "ask inside your office: counterseal authorise request; after a restart tell its code: authorise show ID --code CODE"}
	}
	row, proof, err = s.sealOf(ctx, a.Case, token)
	if err != nil {
		return nil, nil, nil, err
	}
	_, done, err := s.compares(ctx, row.Token)
	if err != nil {
		return nil, nil, nil, err
	}
	done()
	o := newUnmaskObjects(alias, row, proof, a.Person.ID)
	return o.list(), row, proof, nil
}

// insideQuestions gives what an office asked in a time, the oldest first, sealed. It reads
// the whole ledger.
func (s *server) insideQuestions(ctx context.Context, a web.Asker, from, to time.Time) ([]insideQuestion, error) {
	if !from.Before(to) {
		return nil, web.BadRequest("a range has a beginning and an end", "name them with --from and --to")
	}
	offices, actors := s.force.Load().offices, map[string]bool{}
	for i := range offices.Offices {
		if f := &offices.Offices[i]; f.Inspector && f.Authority == a.Person.Authority {
			actors["office:"+f.ID] = true
		}
	}
	s.counting.Lock() // one at a time
	defer s.counting.Unlock()
	rec := s.pipe.Recorder()
	var out []insideQuestion
	more := 0
	_, err := rec.Each(ctx, 0, func(_ uint64, st ledger.Statement) error {
		if !actors[st.Actor] || st.Time.Before(from) || !st.Time.Before(to) || st.Kind != "request.served" && st.Kind != "request.refused" && st.Kind != "approval.requested" {
			return nil
		}
		var d struct{ Question, Payload ledger.Digest }
		if json.Unmarshal(st.Detail, &d) != nil {
			return nil
		}
		if st.Kind == "approval.requested" {
			d.Question = d.Payload
		}
		var kept keptInside
		raw, err := rec.Payload(d.Question)
		switch {
		case errors.Is(err, ledger.ErrNoPayload):
			return nil
		case err != nil:
			return err
		case json.Unmarshal(raw, &kept) != nil || len(kept.Sealed) == 0:
			return nil
		case len(out) == maxQuestions:
			more++
			return nil
		}
		out = append(out, insideQuestion{At: st.Time.UTC().Format(time.RFC3339), Box: base64.RawURLEncoding.EncodeToString(kept.Sealed), ID: st.ID.String(), Kind: st.Kind, Route: kept.Route})
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case more > 0:
		return nil, web.BadRequest(fmt.Sprintf("your office asked %d times in this range, and one statement names %d", more+maxQuestions, maxQuestions), "ask for a shorter range: --from and --to")
	case len(out) == 0:
		return nil, web.BadRequest("nothing that your office asked in this range is kept under its keys", "name another range: --from and --to")
	}
	return out, nil
}

// insideApprove checks the decisions of the two of an inspector's office and states them and
// the opening. What it answers lets their machines open.
func (s *server) insideApprove(ctx context.Context, _ string, body []byte) (any, error) {
	a, _, err := s.insider(ctx)
	if err != nil {
		return nil, err
	}
	var in unlockDecided
	if json.Unmarshal(body, &in) != nil {
		return nil, web.BadRequest("these are no decisions", "")
	}
	st, err := approval.Parse([]byte(in.Statement))
	if err != nil || insideKinds[st.Action] == "" {
		return nil, web.BadRequest("this is no request of an inspector's office", "ask for one: counterseal inspector")
	}
	return s.approve(ctx, insideActor(a), body, ceremony{
		action: st.Action, kind: insideKinds[st.Action], inside: true, hint: "ask with counterseal inspector; both keys of the office sign it: counterseal officer sign",
		check: func(ctx context.Context, st *approval.Statement, _ []approval.Signed, _ *officer.Roster) error {
			if st.Action != officer.InsideUnmask {
				return nil
			}
			o, err := parseUnmaskObjects(st.Objects)
			if err != nil {
				return fmt.Errorf("%w: %w", attest.ErrNotApproved, err)
			}
			by := a.Person
			by.ID = o.account
			if !cases.Inside(s.force.Load().offices, by, by.Authority) {
				return fmt.Errorf("%w: who asked is not in your office", attest.ErrNotApproved)
			}
			_, err = s.covered(ctx, st, o)
			return err
		},
		state: func(st *approval.Statement, digest string) ([]string, any, error) {
			return []string{st.ID}, map[string]any{"request": st.ID, "statement": digest, "minutes": st.Minutes, "case": "", "inspector": true}, nil
		},
	})
}

// broughtFor gives what a request of an inspector's office is about, of which the ledger has
// the digest alone.
func broughtFor(d *unmaskApproved, statement string) (*unmaskObjects, error) {
	st, err := approval.Parse([]byte(statement))
	if err != nil || d.Statement != approval.HexDigest([]byte(statement)) {
		return nil, web.BadRequest("this is another statement than the one that was approved", "counterseal inspector open brings it")
	}
	return parseUnmaskObjects(st.Objects)
}
