package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/duty"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/login"
	"github.com/counterseal/counterseal/internal/passkey"
	"github.com/counterseal/counterseal/internal/web"
)

// pollFor is how long the server lets one question for a signature wait.
const pollFor = 100 * time.Second

// maxRefusals bounds what is remembered of signatures that were refused.
const maxRefusals = 64

// signatures tells who waits for a signature that something has come of it.
type signatures struct {
	mu       sync.Mutex // guards the rest
	changed  chan struct{}
	stopped  bool
	refusals map[string]string // by request; the ledger has nothing of them
}

// next is closed when something changes.
func (w *signatures) next() (changed <-chan struct{}, stopped bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changed == nil {
		w.changed = make(chan struct{})
	}
	return w.changed, w.stopped
}

// tell wakes all who wait.
func (w *signatures) tell(request, refusal string, stop bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = w.stopped || stop
	if refusal != "" {
		if w.refusals == nil || len(w.refusals) >= maxRefusals {
			w.refusals = map[string]string{}
		}
		w.refusals[request] = refusal
	}
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
}

func (w *signatures) refused(request string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.refusals[request]
}

// signs says whether who asks can sign by passkey here, and as which account.
func (s *server) signs(ctx context.Context) (account string, err error) {
	who, ok := login.From(ctx)
	switch {
	case s.signin == nil:
		return "", &web.Refused{Reason: "a request for a name is signed by passkey, and this server has no login", Hint: "add the section login to " + configName + "; docs/operations.md says how people get accounts"}
	case !ok || who.Session == "":
		return "", &web.Refused{Reason: "a request for a name is signed by the passkey of who asks: whoever can open the socket of the machine is no account", Hint: "sign in: counterseal login"}
	case s.signin.l == nil:
		return "", &web.Refused{Reason: "a request for a name is signed on a page of the server, and no server runs", Hint: "start it: counterseal serve"}
	}
	return who.Account.ID, nil
}

// unmaskWaits is a request that waits for its passkey.
type unmaskWaits struct {
	ID        string    `json:"id"`
	URL       string    `json:"url"` // of the page; it tells nothing but the id
	Expires   time.Time `json:"expires"`
	Statement string    `json:"statement"`
}

// await stores a statement of an account and says where it is signed.
func (s *server) await(ctx context.Context, account string, statement []byte) (*unmaskWaits, error) {
	w, err := s.signin.login.Await(ctx, account, statement)
	if errors.Is(err, login.ErrBad) {
		return nil, loginError(err, "account")
	}
	if err != nil {
		return nil, err
	}
	return &unmaskWaits{ID: w.ID, URL: s.cfg.Login.Origin + "/login/sign/" + w.ID, Expires: w.Expires.UTC().Truncate(time.Second), Statement: string(statement)}, nil
}

// signed takes a statement that the passkey of an account signed. Its nonce is used up.
func (x *signIn) signed(ctx context.Context, account string, statement []byte, by *passkey.Signed) (refusal string, err error) {
	st, err := approval.Parse(statement)
	if err != nil {
		return "", err
	}
	switch st.Action {
	case actionUnmask:
		refusal, err = x.s.unmaskSigned(ctx, account, st, statement, by)
	case duty.ToOpen:
		refusal, err = x.s.dutySigned(ctx, account, st, statement, by)
	default:
		refusal = "nobody asks for this by passkey"
	}
	if err != nil {
		x.s.log.Error("a request that was signed could not be stated", "request", st.ID, "err", err)
	}
	x.signatures.tell(st.ID, refusal, false)
	return refusal, err
}

// unmaskSigned states a request for a name, under the eyes of the witnesses. What held when
// it was made must hold now.
func (s *server) unmaskSigned(ctx context.Context, account string, st *approval.Statement, statement []byte, by *passkey.Signed) (string, error) {
	o, err := parseUnmaskObjects(st.Objects)
	if err != nil {
		return "", err
	}
	if o.account != account {
		return "the statement is of another account", nil
	}
	cover, err := s.covered(ctx, st, o)
	var no *web.Refused
	switch {
	case errors.Is(err, attest.ErrNotApproved):
		return notApproved(err), nil
	case errors.As(err, &no):
		return no.Reason, nil
	case err != nil:
		return "", err
	}
	return s.stateSigned(ctx, account, st, statement, by, cover.ID)
}

// stateSigned states a request that a passkey of an account signed, under the eyes of the
// witnesses, and what covers it.
func (s *server) stateSigned(ctx context.Context, account string, st *approval.Statement, statement []byte, by *passkey.Signed, cover string) (refusal string, err error) {
	if by.Record.Account != account {
		return "the statement is of another account", nil
	}
	rec := s.pipe.Recorder()
	if _, err := s.enrolment(ctx, &by.Record); errors.Is(err, attest.ErrNotApproved) {
		return "the ledger does not know this passkey", nil
	} else if err != nil {
		return "", err
	}
	signed, err := approval.Canonical(by)
	if err != nil {
		return "", err
	}
	signature, err := rec.PutPayload(signed)
	if err != nil {
		return "", err
	}
	sum, err := by.Digest()
	if err != nil {
		return "", err
	}
	more := map[string]any{"signed": sum, "signature": signature}
	if cover != "" {
		more["authorisation"] = cover
	}
	return "", s.requested(ctx, "account:"+account, st, statement, more)
}

// enrolment finds the statement about a passkey. Its error wraps attest.ErrNotApproved where
// there is none, or it is about another key.
func (s *server) enrolment(ctx context.Context, r *passkey.Record) (index uint64, err error) {
	name, err := login.PasskeyOf(r)
	if err != nil {
		return 0, err
	}
	f, ok, err := s.pipe.Recorder().Fact(ctx, "login.passkey_added", name)
	if err != nil {
		return 0, err
	}
	digest, err := r.Digest()
	if err != nil {
		return 0, err
	}
	var d struct{ Account, Record string }
	if !ok || json.Unmarshal(f.Detail, &d) != nil || d.Account != r.Account || d.Record != digest {
		return 0, fmt.Errorf("%w: the ledger does not know this passkey", attest.ErrNotApproved)
	}
	return f.Index, nil
}

// stated is a request in the ledger, with its signature.
type stated struct {
	index     uint64
	statement []byte
	st        *approval.Statement
	signed    *passkey.Signed
}

// signedRequest finds a request in the ledger and its signature; nil: there is none. A
// request that nobody signed counts for none.
func (s *server) signedRequest(ctx context.Context, id string) (*stated, error) {
	rec := s.pipe.Recorder()
	f, ok, err := rec.Fact(ctx, "approval.requested", id)
	if err != nil || !ok {
		return nil, err
	}
	var d struct {
		Signed             string
		Payload, Signature ledger.Digest
	}
	if err := json.Unmarshal(f.Detail, &d); err != nil {
		return nil, fmt.Errorf("statement %d: %w", f.Index, err)
	}
	if d.Signed == "" {
		return nil, nil
	}
	r := stated{index: f.Index}
	if r.statement, err = rec.Payload(d.Payload); err != nil {
		return nil, err
	}
	if r.st, err = approval.Parse(r.statement); err != nil {
		return nil, fmt.Errorf("statement %d: %w", f.Index, err)
	}
	b, err := rec.Payload(d.Signature)
	if err != nil {
		return nil, err
	}
	if r.signed, err = passkey.Parse(b); err != nil {
		return nil, fmt.Errorf("statement %d: %w", f.Index, err)
	}
	if sum, err := r.signed.Digest(); err != nil || sum != d.Signed {
		return nil, errors.Join(err, fmt.Errorf("statement %d: the payload is another signature than the one that was stated", f.Index))
	}
	return &r, nil
}

// stillSigned refuses where a request has no signature that counts now: by a passkey that is
// enrolled, of an account that is not disabled. Its error wraps attest.ErrNotApproved.
func (s *server) stillSigned(ctx context.Context, id, account string) error {
	no := func(reason string) error { return fmt.Errorf("%w: %s", attest.ErrNotApproved, reason) }
	r, err := s.signedRequest(ctx, id)
	switch {
	case err != nil:
		return err
	case r == nil:
		return no("the ledger knows no request that was signed by passkey")
	case r.signed.Record.Account != account:
		return no("the passkey is of another account than the statement says")
	case s.signin == nil:
		return no("this server has no login any more")
	}
	if err := r.signed.Verify(r.statement, s.cfg.Login.Origin); err != nil {
		return no(err.Error())
	}
	in, err := s.signin.login.Enrolled(ctx, &r.signed.Record)
	if err == nil && !in {
		err = no("the passkey is not enrolled any more, or its account is disabled")
	}
	return err
}

// unmaskCollected is what came of a request: nil while it waits for its passkey.
type unmaskCollected struct {
	Request *unmaskRequest `json:"request,omitempty"`
}

// unmaskCollect gives a request of who asks that was signed, with proofs of now; it waits for
// the signature a while.
func (s *server) unmaskCollect(ctx context.Context, _ string, body []byte) (any, error) {
	r, err := s.awaitSigned(ctx, body, actionUnmask, parseUnmaskObjects, "counterseal unmask request")
	if err != nil || r == nil {
		return unmaskCollected{}, err
	}
	o, err := parseUnmaskObjects(r.st.Objects)
	if err != nil {
		return nil, err
	}
	return s.unmaskFile(ctx, r, o)
}

// awaitSigned waits until a request of who asks was signed; nil: it waits still. objects reads
// those of its statement, and again is the command that begins anew.
func (s *server) awaitSigned(ctx context.Context, body []byte, action string, objects func([]string) (*unmaskObjects, error), again string) (*stated, error) {
	var in struct {
		Request string `json:"request"`
	}
	if err := decodeAct(body, &in); err != nil {
		return nil, err
	}
	no := func(reason string) (*stated, error) {
		web.Judged(ctx, "not_permitted")
		return nil, &web.Refused{Reason: reason, Hint: "begin anew: " + again}
	}
	account, err := s.signs(ctx)
	if err != nil {
		web.Judged(ctx, "not_permitted")
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, pollFor)
	defer cancel()
	for {
		changed, stopped := s.signin.signatures.next() // before it is looked for
		r, err := s.signedRequest(ctx, in.Request)
		if err != nil {
			return nil, err
		}
		if r != nil {
			o, err := objects(r.st.Objects)
			if r.st.Action != action || err != nil || o.account != account {
				return no("no request of yours has this id")
			}
			if err := s.stillSigned(ctx, in.Request, account); errors.Is(err, attest.ErrNotApproved) {
				return no(notApproved(err))
			} else if err != nil {
				return nil, err
			}
			web.Judged(ctx, "")
			return r, nil
		}
		w, err := s.signin.login.Awaited(ctx, account, in.Request)
		switch {
		case errors.Is(err, login.ErrUnknown):
			return no("no request of yours has this id")
		case err != nil:
			return nil, err
		}
		if why := s.signin.signatures.refused(in.Request); why != "" {
			return no(why)
		}
		if !s.now().Before(w.Expires) {
			return no("nobody signed the request in time")
		}
		if stopped {
			web.Judged(ctx, "not_permitted")
			return nil, &web.Refused{Reason: "the server stops", Hint: "when it runs again: counterseal unmask collect " + in.Request + " -o FILE"}
		}
		select {
		case <-changed:
		case <-time.After(w.Expires.Sub(s.now())): // to say that it is over
		case <-ctx.Done():
			web.Judged(ctx, "")
			return nil, nil
		}
	}
}

// unmaskFile makes the file of a request that was signed.
func (s *server) unmaskFile(ctx context.Context, from *stated, o *unmaskObjects) (any, error) {
	row, proof, err := s.pipe.Vault().At(ctx, o.window, o.index)
	if err != nil {
		return nil, err
	}
	r, err := s.sealedRequest(ctx, row, proof, from.statement)
	if err != nil {
		return nil, err
	}
	r.V = 2
	r.By, err = s.signedByOf(ctx, from)
	return unmaskCollected{r}, err
}

// signedByOf proves by whose passkey a request was signed.
func (s *server) signedByOf(ctx context.Context, from *stated) (*signedBy, error) {
	enrolled, err := s.enrolment(ctx, &from.signed.Record)
	if err != nil {
		return nil, err
	}
	by := signedBy{Signed: *from.signed, V: 1}
	for index, into := range map[uint64]*receipt{enrolled: &by.Enrolled, from.index: &by.Requested} {
		got, err := s.receiptOf(ctx, index)
		if err != nil {
			return nil, err
		}
		*into = *got
	}
	return &by, nil
}

// restateEnrolments states each passkey whose newest statement is in a log that was
// succeeded, or has not the digest of its key as it is now: officers could not check it.
func (x *signIn) restateEnrolments(ctx context.Context) error {
	all, err := x.login.Enrolments(ctx)
	if err != nil {
		return err
	}
	for _, e := range all {
		rec := x.s.pipe.Recorder()
		f, ok, err := rec.Fact(ctx, "login.passkey_added", e.Passkey)
		if err != nil {
			return err
		}
		var d struct{ Record string }
		if ok && json.Unmarshal(f.Detail, &d) == nil && d.Record == e.Record {
			if _, current := rec.Own(f.Index); current {
				continue
			}
		}
		if _, err := rec.Record(ctx, attest.Act{Kind: "login.passkey_added", Actor: attest.System, Subject: []string{e.Account, e.Passkey},
			Detail: map[string]any{"account": e.Account, "passkey": e.Passkey, "record": e.Record, "again": true}}); err != nil {
			return err
		}
	}
	return nil
}
