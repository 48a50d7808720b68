package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/keyholder"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/policy"
	"github.com/counterseal/counterseal/internal/pseudonym"
	"github.com/counterseal/counterseal/internal/state"
	"github.com/counterseal/counterseal/internal/vault"
	"github.com/counterseal/counterseal/internal/web"
)

// How many names of a case two officers open in a calendar month, UTC. More than a few
// need a third decision: an authorisation on which counsel, or an office outside, decided
// as well. Beyond that a case is asked for differently: with a package, or another case.
const (
	unmaskFew  = 10
	unmaskMost = 50

	actionUnmask = "unmask"
)

// unmaskRequest is what travels from the server to the officers: what they are asked, by
// whose passkey, the sealed name, and what the ledger knew of it from its first sighting.
// Nothing in it is secret.
type unmaskRequest struct {
	By        *signedBy `json:"by,omitempty"` // nil: of a night, where the duty host does not ask for it
	Path      []string  `json:"path"`         // from the seal to the root of its window, hex
	Row       string    `json:"row"`          // unpadded base64url; it has the token
	Statement string    `json:"statement"`    //
	V         int       `json:"v"`
	Window    receipt   `json:"window"` // vault.sealed, under a witnessed checkpoint

	row *vault.Row
}

const maxUnmask = 768 << 10

func parseUnmask(b []byte) (*unmaskRequest, *approval.Statement, error) {
	bad := errors.New("not a request for a name")
	var r unmaskRequest
	if err := approval.DecodeUpTo(maxUnmask, b, &r); err != nil || r.By == nil {
		return nil, nil, bad
	}
	s, err := r.read()
	if err == nil && s.Action != actionUnmask {
		err = bad
	}
	if err != nil {
		return nil, nil, err
	}
	return &r, s, nil
}

// read reads what lies inside a request that was decoded.
func (r *unmaskRequest) read() (*approval.Statement, error) {
	bad := errors.New("not a request for a name")
	if r.V != 1 && r.V != 2 || (r.V == 2) != (r.By != nil) || r.Window.V != 1 {
		return nil, bad
	}
	if r.By != nil {
		if err := r.By.check(); err != nil {
			return nil, err
		}
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(r.Row)
	if err != nil {
		return nil, bad
	}
	if r.row, err = vault.ParseRow(raw); err != nil {
		return nil, err
	}
	return approval.Parse([]byte(r.Statement))
}

func readUnmask(path string) (*unmaskRequest, *approval.Statement, error) {
	b, err := readFile(path, "the request", "counterseal unmask request writes one")
	if err != nil {
		return nil, nil, err
	}
	r, s, err := parseUnmask(b)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, s, nil
}

// unmaskObjects are what a statement about a name says: whom, by the alias of the case;
// which seal; where the ledger has it; and the account that asks.
type unmaskObjects struct {
	alias, seal, window string
	index               int64
	account             string
}

func (o *unmaskObjects) list() []string {
	return []string{"alias " + o.alias, "seal " + o.seal, "window " + o.window + " " + strconv.FormatInt(o.index, 10), "account " + o.account}
}

func parseUnmaskObjects(list []string) (*unmaskObjects, error) {
	bad := errors.New("the statement does not name one seal")
	if len(list) != 4 {
		return nil, bad
	}
	var o unmaskObjects
	for i, into := range []*string{&o.alias, &o.seal, &o.window, &o.account} {
		what, text, ok := strings.Cut(list[i], " ")
		if !ok || what != []string{"alias", "seal", "window", "account"}[i] {
			return nil, bad
		}
		*into = text
	}
	var at string
	o.window, at, _ = strings.Cut(o.window, " ")
	var err error
	if o.index, err = strconv.ParseInt(at, 10, 64); err != nil || o.index < 0 || o.list()[2] != list[2] {
		return nil, bad
	}
	return &o, nil
}

// unmaskAsk is what a person asks the server for.
type unmaskAsk struct {
	Alias     string `json:"alias"`
	Reason    string `json:"reason"`
	Requester string `json:"requester"`
	Minutes   int    `json:"minutes"`
}

// unmaskRequest makes a request to the officers that waits for the passkey of who asks. It
// opens nothing: this server cannot.
func (s *server) unmaskRequest(ctx context.Context, _ string, body []byte) (any, error) {
	var ask unmaskAsk
	if json.Unmarshal(body, &ask) != nil {
		return nil, web.BadRequest("this is no request for a name", "")
	}
	a, alias, token, err := s.asksForName(ctx, ask.Alias)
	if err != nil {
		return nil, err
	}
	account, cover, err := s.mayAskName(ctx, a, token)
	if err != nil {
		return nil, err
	}
	if err := s.namesLeft(ctx, a.Case, cover); err != nil {
		return nil, err
	}
	row, proof, err := s.sealOf(ctx, a.Case, token)
	if err != nil {
		return nil, err
	}
	_, done, err := s.compares(ctx, row.Token) // rather now than at the last step
	if err != nil {
		return nil, err
	}
	done()
	o := newUnmaskObjects(alias, row, proof, account)
	_, statement, err := approval.New(approval.Ask{
		Action: actionUnmask, Case: a.Case, Purpose: ask.Reason, Requester: ask.Requester, Objects: o.list(), Org: s.pipe.Org(), Grant: time.Duration(ask.Minutes) * time.Minute,
	}, s.now())
	if err != nil {
		return nil, web.BadRequest(err.Error(), "see: counterseal unmask request --help")
	}
	return s.await(ctx, account, statement)
}

// whom gives the token behind an alias of the case, and the alias as answers write it.
func (s *server) whom(ctx context.Context, text string) (alias, token string, err error) {
	alias = strings.ToLower(strings.TrimSpace(text))
	if token, err = s.web.Meant(ctx, alias); err == nil && !event.IsToken([]byte(token)) {
		err = web.BadRequest("somebody is named by the alias that an answer in this case showed", "such as person-…; search in the case first: counterseal search --case CASE …")
	}
	return alias, token, err
}

// asksForName gives who asks for a name, in a case and by a young login, and whose.
func (s *server) asksForName(ctx context.Context, text string) (a web.Asker, alias, token string, err error) {
	a = web.AskerOf(ctx)
	switch {
	case !cases.IsCase(a.Case):
		err = web.BadRequest("the case is missing", "--case names it")
	case !a.Fresh:
		web.Judged(ctx, cases.NotFresh)
		err = &web.Refused{Reason: "the login is too old to ask for a name", Hint: "log in again: counterseal login; then ask"}
	default:
		alias, token, err = s.whom(ctx, text)
	}
	return a, alias, token, err
}

// nameApproved gives what two officers approved of a request, once witnesses have seen it.
// kind is unmask.approved or name.approved; hint says what to do where they did not.
func (s *server) nameApproved(ctx context.Context, kind, request, hint string) (d unmaskApproved, at state.Fact, err error) {
	rec := s.pipe.Recorder()
	at, ok, err := rec.Fact(ctx, kind, request)
	if err != nil {
		return d, at, err
	}
	if seen, _ := rec.Witnessed(); !ok || seen <= at.Index {
		return d, at, &web.Refused{Reason: "two officers have not approved this request", Hint: hint}
	}
	if err := json.Unmarshal(at.Detail, &d); err != nil {
		return d, at, fmt.Errorf("statement %d: %w", at.Index, err)
	}
	return d, at, nil
}

// findSeal gives the seal of a token and its place in the ledger.
func (s *server) findSeal(ctx context.Context, token string) (*vault.Row, *vault.Proof, error) {
	row, proof, err := s.pipe.Vault().Find(ctx, event.Token(token))
	if errors.Is(err, vault.ErrOpen) {
		if err := s.pipe.Vault().CloseWindow(ctx); err != nil {
			return nil, nil, err
		}
		row, proof, err = s.pipe.Vault().Find(ctx, event.Token(token))
	}
	if errors.Is(err, vault.ErrNoSeal) {
		return nil, nil, s.nothingSealed(ctx, event.Token(token))
	}
	return row, proof, err
}

// newUnmaskObjects are what a statement about a name says of it.
func newUnmaskObjects(alias string, row *vault.Row, proof *vault.Proof, account string) unmaskObjects {
	commitment := row.Commitment()
	return unmaskObjects{alias: alias, seal: hex.EncodeToString(commitment[:]), window: proof.Window.ID, index: proof.Index, account: account}
}

// sealedRequest is a request about a seal whose statement witnesses have seen.
func (s *server) sealedRequest(ctx context.Context, row *vault.Row, proof *vault.Proof, statement []byte) (*unmaskRequest, error) {
	r := unmaskRequest{Row: base64.RawURLEncoding.EncodeToString(row.Bytes), Statement: string(statement), V: 1, Path: []string{}}
	for _, h := range proof.Path {
		r.Path = append(r.Path, hex.EncodeToString(h[:]))
	}
	f, ok, err := s.pipe.Recorder().Fact(ctx, "vault.sealed", proof.Window.ID)
	if err != nil || !ok {
		return nil, errors.Join(err, errors.New("the ledger does not know the window of this seal"))
	}
	window, err := s.receiptOf(ctx, f.Index) // no later than the request, which witnesses have seen
	if err != nil {
		return nil, err
	}
	r.Window = *window
	return &r, nil
}

// sealOf finds what is sealed of a person of a case: of their newest token that has a seal.
func (s *server) sealOf(ctx context.Context, caseID, token string) (row *vault.Row, proof *vault.Proof, err error) {
	joined, err := s.cases.Joined(ctx, caseID)
	if err != nil {
		return nil, nil, err
	}
	for _, t := range joined.All(token) {
		var none *web.Refused
		if row, proof, err = s.findSeal(ctx, t); !errors.As(err, &none) {
			break
		}
	}
	return row, proof, err
}

// mayAskName asks the policies, for the account that will sign, and for an authorisation of
// the case.
func (s *server) mayAskName(ctx context.Context, a web.Asker, token string) (account string, cover cases.Cover, err error) {
	decide := web.DecideBy(func() *policy.Set { return s.force.Load().policy })
	r := policy.Request{Principal: a.Person, Action: "unmask.request", Context: policy.Context{Now: s.now(), Authorisation: cases.Covers}}
	d := decide(ctx, r)
	if d.Allow { // or nothing could cover it: whoever may not ask uses up no grant
		if account, err = s.signs(ctx); err != nil { // before an authorisation of theirs is asked for
			web.Judged(ctx, "not_permitted")
			return "", cover, err
		}
		if cover, err = s.namesCover(ctx, a.Person, a.Case, token); err != nil {
			return "", cover, err
		}
		r.Context.Authorisation = cover.Authorisation
		d = decide(ctx, r)
	}
	if !d.Allow {
		web.Judged(ctx, "not_permitted")
		return "", cover, &web.Refused{Reason: joinNonEmpty("; ", d.Reason, cover.Reason), Hint: "ask for an authorisation that names whom it is about: counterseal authorise request; docs/policy-matrix.md says who may ask for a name"}
	}
	web.Judged(ctx, "")
	return account, cover, nil
}

// namesCover gives the authorisation in force that covers somebody for a person in a case.
func (s *server) namesCover(ctx context.Context, by policy.Person, caseID, token string) (cases.Cover, error) {
	q, o := access.Hold{Tokens: []string{token}}, s.pipe.Asking()
	return s.cases.Covers(ctx, by, caseID, cases.Question{Named: access.Named(q, o), Verdict: access.Selects(q, o)})
}

// namesLeft refuses where a case has had its names of this month.
func (s *server) namesLeft(ctx context.Context, caseID string, cover cases.Cover) error {
	year, month, _ := s.now().UTC().Date()
	facts, err := s.pipe.Recorder().FactsSince(ctx, "unmask.approved", time.Date(year, month, 1, 0, 0, 0, 0, time.UTC))
	if err != nil {
		return err
	}
	n := 0
	for _, f := range facts {
		var d unmaskApproved
		if err := json.Unmarshal(f.Detail, &d); err != nil {
			return fmt.Errorf("statement %d: %w", f.Index, err)
		}
		if y, m, _ := f.Time.UTC().Date(); d.Case == caseID && y == year && m == month {
			n++
		}
	}
	switch {
	case n >= unmaskMost:
		return &web.Refused{Reason: fmt.Sprintf("%d names of this case were opened this month, and %d is the most", n, unmaskMost), Hint: "wait for the next month, or close this case and open one that is about fewer people"}
	case n >= unmaskFew && !cover.Counsel && !cover.Outside:
		return &web.Refused{Reason: fmt.Sprintf("%d names of this case were opened this month; from %d on a third decision is needed", n, unmaskFew), Hint: "ask for an authorisation on which counsel decides as well: counterseal authorise request --counsel"}
	}
	return nil
}

// unmaskApproved is the detail of unmask.approved. It does not say which seal it is about:
// leaves stay for ever, and whoever reads them would see that two requests are about one
// person. The statement says it, which is a payload.
type unmaskApproved struct {
	Case      string `json:"case"`
	Inspector bool   `json:"inspector,omitempty"` // then the case is empty
	Minutes   int    `json:"minutes"`
	Request   string `json:"request"`
	Statement string `json:"statement"`
}

// askedFor gives what a request for a name that was approved is about. brought is its
// statement where the payload, of an inspector's office, is not for the server to read.
func (s *server) askedFor(ctx context.Context, d *unmaskApproved, brought string) (*unmaskObjects, error) {
	if d.Inspector {
		return broughtFor(d, brought)
	}
	st, err := attest.Requested(ctx, s.pipe.Recorder(), d.Request, d.Statement)
	if err != nil {
		return nil, err
	}
	return parseUnmaskObjects(st.Objects)
}

// unmaskApprove checks the decisions of two officers and states them and the opening. What
// it answers lets the officers' machines open.
func (s *server) unmaskApprove(ctx context.Context, actor string, body []byte) (any, error) {
	return s.approve(ctx, actor, body, ceremony{
		action: actionUnmask, kind: "unmask.approved", hint: "ask with counterseal unmask request; two people of two offices sign it: counterseal officer sign",
		check: func(ctx context.Context, st *approval.Statement, signed []approval.Signed, roster *officer.Roster) error {
			return s.stillCovered(ctx, st, signed, roster)
		},
		state: func(st *approval.Statement, digest string) ([]string, any, error) {
			return []string{st.ID}, unmaskApproved{Case: st.Case, Minutes: st.Minutes, Request: st.ID, Statement: digest}, nil
		},
	})
}

// stillCovered looks again at all that may have changed since the request: the passkey, the
// seal, the authorisation of who asked, the names of the month; and whether who asks decides.
func (s *server) stillCovered(ctx context.Context, st *approval.Statement, signed []approval.Signed, roster *officer.Roster) error {
	o, err := parseUnmaskObjects(st.Objects)
	if err == nil {
		err = apart(st, signed, roster)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", attest.ErrNotApproved, err)
	}
	if err := s.stillSigned(ctx, st.ID, o.account); err != nil {
		return err
	}
	_, err = s.covered(ctx, st, o)
	return err
}

// covered gives the authorisation in force under which an account asks for a name. Its error
// wraps attest.ErrNotApproved where there is none, or the seal is not there any more. The
// quotas of the house are not an inspector's.
func (s *server) covered(ctx context.Context, st *approval.Statement, o *unmaskObjects) (cover cases.Cover, err error) {
	no := func(reason string) (cases.Cover, error) {
		return cover, fmt.Errorf("%w: %s", attest.ErrNotApproved, reason)
	}
	row, _, err := s.pipe.Vault().At(ctx, o.window, o.index)
	if errors.Is(err, vault.ErrNoSeal) {
		return no("the seal is not in the vault any more")
	}
	if err != nil {
		return cover, err
	}
	if c := row.Commitment(); hex.EncodeToString(c[:]) != o.seal {
		return no("the seal is another one")
	}
	offices := s.force.Load().offices
	if offices == nil {
		return no("nobody is in office")
	}
	for _, id := range offices.Held(o.account) {
		by, ok := offices.Person(id)
		if !ok {
			continue
		}
		if cover, err = s.namesCover(ctx, by, st.Case, string(row.Token)); err != nil {
			return cover, err
		}
		switch {
		case cover.Authorisation != cases.Covers:
		case by.Inspector:
			return cover, nil
		default:
			return cover, s.namesLeft(ctx, st.Case, cover)
		}
	}
	return no(joinNonEmpty("; ", "no authorisation in force covers this person for who asked", cover.Reason))
}

// notApproved is the reason alone.
func notApproved(err error) string {
	return strings.TrimPrefix(err.Error(), attest.ErrNotApproved.Error()+": ")
}

// apart refuses where who asked is one of those who decided, by name or, where the statement
// and the roster name them, by account.
func apart(st *approval.Statement, signed []approval.Signed, roster *officer.Roster) error {
	for _, d := range signed {
		by, err := roster.VoterFor(d.Key, st.Action)
		if err != nil {
			return err
		}
		if by.Person == officer.Person(st.Requester) || slices.Contains(st.Objects, "account "+cmp.Or(roster.Find(d.Key).Account, "of nobody")) {
			return errors.New("who asks does not decide on it")
		}
	}
	return nil
}

// unmaskCheck is what the client of investigation asks when it has opened a name: is it
// the one that the token was made of? Salt keeps the digest of the request, which the
// ledger has, from confirming a guess.
type unmaskCheck struct {
	Request  string `json:"request"`
	Kind     string `json:"kind"`
	Identity []byte `json:"identity"`
	Salt     []byte `json:"salt"`
	// Statement of the request, of an inspector's office: the server does not have it.
	Statement string `json:"statement,omitempty"`
	// Ready asks, before anything is opened, whether there would be an answer. It has no name.
	Ready bool `json:"ready,omitempty"`
}

type unmaskAnswer struct {
	Same  bool `json:"same"`
	Ready bool `json:"ready,omitempty"`
}

func newUnmaskCheck(request string, id vault.Identity) unmaskCheck {
	salt := make([]byte, 32)
	rand.Read(salt)
	return unmaskCheck{Request: request, Kind: string(rune(id.Kind)), Identity: id.Canonical, Salt: salt}
}

// unmaskCheck makes the token of a name again and says whether it is the one of the
// request: yes or no, once. It keeps nothing of the name.
func (s *server) unmaskCheck(ctx context.Context, actor string, body []byte) (any, error) {
	var in unmaskCheck
	if json.Unmarshal(body, &in) != nil || !in.Ready && (len(in.Kind) != 1 || len(in.Identity) == 0 || len(in.Salt) < 16) {
		return nil, web.BadRequest("this is no name to compare", "counterseal unmask open asks it")
	}
	defer clear(in.Identity)
	s.approving.Lock()
	defer s.approving.Unlock()
	rec := s.pipe.Recorder()
	const anew = "begin anew: counterseal unmask request"
	no := func(reason string) (any, error) { return nil, &web.Refused{Reason: reason, Hint: anew} }
	d, f, err := s.nameApproved(ctx, "unmask.approved", in.Request, anew)
	if err != nil {
		return nil, err
	}
	if d.Inspector {
		a, _, err := s.insider(ctx)
		if err != nil {
			return nil, err
		}
		actor = insideActor(a)
	}
	for _, kind := range []string{"unmask.opened", "unmask.mismatch"} {
		if _, done, err := rec.Fact(ctx, kind, in.Request); err != nil {
			return nil, err
		} else if done {
			if err := s.alarm(ctx, "unmask.repeated", in.Request); err != nil {
				return nil, err
			}
			return no("this request was answered, and is answered once")
		}
	}
	if !s.now().Before(f.Time.Add(time.Duration(d.Minutes) * time.Minute)) {
		return no("the time of this request is over")
	}
	o, err := s.askedFor(ctx, &d, in.Statement)
	if err != nil {
		return nil, err
	}
	row, _, err := s.pipe.Vault().At(ctx, o.window, o.index)
	if errors.Is(err, vault.ErrNoSeal) {
		return no("the seal is not in the vault any more")
	}
	if err != nil {
		return nil, err
	}
	maker, done, err := s.compares(ctx, row.Token)
	if err != nil {
		return nil, err
	}
	defer done()
	if in.Ready {
		return unmaskAnswer{Ready: true}, nil
	}
	token, err := maker.Token(event.TokenKind(in.Kind[0]), in.Identity)
	if err != nil {
		return nil, err
	}
	same := subtle.ConstantTimeCompare([]byte(token), []byte(row.Token)) == 1
	kind := "unmask.opened"
	if !same {
		kind = "unmask.mismatch"
	}
	if _, err := rec.Record(ctx, attest.Act{Kind: kind, Actor: actor, Purpose: word(d.Case), Subject: []string{in.Request}, Detail: map[string]any{"request": in.Request}}); err != nil {
		return nil, err
	}
	if !same {
		if err := s.alarm(ctx, "unmask.mismatch", in.Request); err != nil {
			return nil, err
		}
	}
	return unmaskAnswer{Same: same}, nil
}

// compares gives who makes tokens as this one was made, also before a rotation of the key
// holder. Where that key was destroyed nobody can tell a name from another one.
func (s *server) compares(ctx context.Context, token event.Token) (pseudonym.Tokenizer, func(), error) {
	maker, done, err := s.tokens.makerOf(ctx, token.Epoch())
	if errors.Is(err, keyholder.ErrEpoch) {
		err = &web.Refused{Reason: "the token key of the time in which this alias was made is destroyed: no name can be compared with it, so none is opened", Hint: "ask for an alias of the person from a later time"}
	}
	return maker, done, err
}

// alarm states something that a person must look at.
func (s *server) alarm(ctx context.Context, alarm, request string) error {
	s.log.Error("a name was asked for in a way that should not be", "alarm", alarm, "request", request)
	_, err := s.pipe.Recorder().Record(ctx, attest.Act{Kind: "alarm.raised", Actor: attest.System, Subject: []string{alarm}, Detail: map[string]any{"alarm": alarm, "request": request}})
	return err
}

// verify checks, with the keys of v alone, that the ledger knew this seal from the window of
// its first sighting, and that the statement is about it. It gives when that was.
func (r *unmaskRequest) verify(st *approval.Statement, v ledger.Verifiers) (sealed time.Time, err error) {
	o, err := parseUnmaskObjects(st.Objects)
	if err != nil {
		return sealed, err
	}
	return r.verifyAbout(o, st, v)
}

// verifyAbout is verify for a statement whose objects were read.
func (r *unmaskRequest) verifyAbout(o *unmaskObjects, st *approval.Statement, v ledger.Verifiers) (sealed time.Time, err error) {
	commitment := r.row.Commitment()
	if o.seal != hex.EncodeToString(commitment[:]) || st.Org != r.row.Org.String() {
		return sealed, errors.New("the statement is about another seal")
	}
	leaf, err := r.Window.proved("vault.sealed", v)
	if err != nil {
		return sealed, fmt.Errorf("the window of the seal: %w", err)
	}
	var d struct {
		Window string
		N      int64
		Root   string
	}
	raw, herr := []byte(nil), error(nil)
	if json.Unmarshal(leaf.Detail, &d) == nil {
		raw, herr = hex.DecodeString(d.Root)
	}
	if herr != nil || len(raw) != 32 || d.Window != o.window {
		return sealed, errors.New("the window of the seal is another one than the statement says")
	}
	p := vault.Proof{Window: vault.Window{ID: d.Window, N: d.N, Root: [32]byte(raw)}, Index: o.index}
	for _, text := range r.Path {
		h, err := hex.DecodeString(text)
		if err != nil || len(h) != 32 {
			return sealed, errors.New("the way from the seal to its window is not one of hashes")
		}
		p.Path = append(p.Path, [32]byte(h))
	}
	return leaf.Time, p.Check(commitment)
}

// approved checks the receipt of an approval: it is of this statement, and its time is not
// over.
func (r *receipt) approved(st *approval.Statement, statement []byte, v ledger.Verifiers, now time.Time) error {
	leaf, err := r.check("unmask.approved", st, statement, v)
	if err != nil {
		return err
	}
	return inTime(leaf, st, now)
}
