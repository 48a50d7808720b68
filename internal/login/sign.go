package login

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/passkey"
)

// How long a statement waits for the passkey of who asks, and how many of them may wait.
const (
	SignLife = 10 * time.Minute

	maxWaiting = 1024 // in all
	maxOwn     = 8    // of one account
)

// Waiting is a statement of an account whose passkey is to sign it, once. It was stored,
// with its nonce, before anybody was asked to sign.
type Waiting struct {
	ID, Account, Nonce string
	Statement          []byte // canonical, approval.Parse reads it
	Made, Expires      time.Time
	Used               bool
}

// Await stores a statement that the account is to sign within SignLife. An error that wraps
// ErrBad is for who asks.
func (s *Service) Await(ctx context.Context, account string, statement []byte) (Waiting, error) {
	st, err := approval.Parse(statement)
	if err != nil {
		return Waiting{}, err
	}
	creds, err := s.o.Store.Credentials(ctx, account)
	if err != nil {
		return Waiting{}, err
	}
	if len(creds) == 0 {
		return Waiting{}, bad("the account has no passkey, and a passkey signs this")
	}
	now := s.o.Now()
	w := Waiting{ID: st.ID, Account: account, Nonce: st.Nonce, Statement: statement, Made: now, Expires: now.Add(SignLife)}
	return w, s.o.Store.PutStatement(ctx, w)
}

// Awaited gives a statement of an account. ErrUnknown: there is none with this id, or it is
// of somebody else.
func (s *Service) Awaited(ctx context.Context, account, id string) (Waiting, error) {
	w, err := s.o.Store.Statement(ctx, id)
	if err == nil && w.Account != account {
		return Waiting{}, ErrUnknown
	}
	return w, err
}

// Over says whether nobody can sign it any more.
func (w *Waiting) Over(now time.Time) bool { return w.Used || !now.Before(w.Expires) }

// Record is what the ledger and a signature have of a passkey.
func (s *Service) Record(account string, c *webauthn.Credential) passkey.Record {
	return passkey.Record{
		AAGUID: hex.EncodeToString(c.Authenticator.AAGUID), Account: account, BackupEligible: c.Flags.BackupEligible, ID: base64.RawURLEncoding.EncodeToString(c.ID),
		Origin: s.o.Origin, PublicKey: base64.RawURLEncoding.EncodeToString(c.PublicKey), RPID: s.o.RPID, V: 1,
	}
}

// Enrolment is a passkey that is enrolled now.
type Enrolment struct {
	Account string
	Passkey string // its name in lists and statements
	Record  string // digest of its record
}

// Enrolments lists the passkeys of all accounts that are not disabled.
func (s *Service) Enrolments(ctx context.Context) (list []Enrolment, err error) {
	accounts, err := s.o.Store.AllAccounts(ctx)
	if err != nil {
		return nil, err
	}
	for _, a := range accounts {
		if a.Disabled {
			continue
		}
		creds, err := s.o.Store.Credentials(ctx, a.ID)
		if err != nil {
			return nil, err
		}
		for _, c := range creds {
			r := s.Record(a.ID, &c)
			digest, err := r.Digest()
			if err != nil {
				return nil, err
			}
			list = append(list, Enrolment{a.ID, passkeyID(c.ID), digest})
		}
	}
	return list, nil
}

// Enrolled says whether a passkey is one of an account that is not disabled, as it is now.
func (s *Service) Enrolled(ctx context.Context, r *passkey.Record) (bool, error) {
	a, err := s.o.Store.Account(ctx, r.Account)
	if errors.Is(err, ErrUnknown) || err == nil && a.Disabled {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	creds, err := s.o.Store.Credentials(ctx, a.ID)
	for _, c := range creds {
		if s.Record(a.ID, &c) == *r && !c.Authenticator.CloneWarning {
			return true, nil
		}
	}
	return false, err
}

// PasskeyOf is the name of a passkey in lists and statements.
func PasskeyOf(r *passkey.Record) (string, error) {
	id, err := base64.RawURLEncoding.DecodeString(r.ID)
	return passkeyID(id), err
}

// signBegin gives the options with which an authenticator signs a statement of the account.
func (s *Service) signBegin(w http.ResponseWriter, r *http.Request, who Who) {
	var in struct {
		ID string `json:"id"`
	}
	if err := body(r, &in); err != nil {
		refuse(w, http.StatusBadRequest)
		return
	}
	waits, u, ok := s.signing(w, r, who, in.ID, false)
	if !ok {
		return
	}
	options, _, err := s.signOptions(u, waits.Statement)
	if err != nil {
		refuse(w, http.StatusInternalServerError)
		return
	}
	answer(w, options)
}

func (s *Service) signOptions(u user, statement []byte) (*protocol.CredentialAssertion, *webauthn.SessionData, error) {
	challenge := passkey.Challenge(statement)
	return s.wan.BeginLogin(u, webauthn.WithChallenge(challenge[:]), webauthn.WithUserVerification(protocol.VerificationRequired))
}

// signing finds what is to be signed, and whether who asks may sign it now. Where not, it
// has answered. With signature it comes with one.
func (s *Service) signing(w http.ResponseWriter, r *http.Request, who Who, id string, signature bool) (waits Waiting, u user, ok bool) {
	if who.Terminal { // a page shows what is signed
		refuse(w, http.StatusForbidden)
		return waits, u, false
	}
	waits, err := s.Awaited(r.Context(), who.Account.ID, id)
	switch {
	case errors.Is(err, ErrUnknown):
		s.refused(w, r, "statement", who.Account.ID, "no-statement")
		return waits, u, false
	case err != nil:
		refuse(w, http.StatusInternalServerError)
		return waits, u, false
	case waits.Used && !signature:
		refuseAs(w, http.StatusConflict, "used")
		return waits, u, false
	case waits.Used:
		s.repeated(w, r, who.Account.ID, id)
		return waits, u, false
	case waits.Over(s.o.Now()):
		refuseAs(w, http.StatusGone, "over")
		return waits, u, false
	case s.persons.locked(who.Account.ID, s.o.Now()):
		s.refused(w, r, "statement", who.Account.ID, "disabled-or-locked")
		return waits, u, false
	}
	creds, err := s.o.Store.Credentials(r.Context(), who.Account.ID)
	if err != nil {
		refuse(w, http.StatusInternalServerError)
		return waits, u, false
	}
	if len(creds) == 0 {
		refuseAs(w, http.StatusConflict, "no_passkey")
		return waits, u, false
	}
	return waits, user{who.Account, creds}, true
}

// repeated refuses the second use of a nonce and raises an alarm.
func (s *Service) repeated(w http.ResponseWriter, r *http.Request, account, id string) {
	if err := s.o.Record(r.Context(), "alarm.raised", account, map[string]any{"alarm": "statement.repeated", "request": id}); err != nil {
		refuse(w, http.StatusServiceUnavailable)
		return
	}
	refuseAs(w, http.StatusConflict, "used")
}

// signFinish takes the signature of a statement. Its nonce is used up before anything is
// said about it elsewhere, so that a crash leaves a request that has to be made anew.
func (s *Service) signFinish(w http.ResponseWriter, r *http.Request, who Who) {
	var in struct {
		ID     string          `json:"id"`
		Answer json.RawMessage `json:"answer"`
	}
	if err := body(r, &in); err != nil {
		refuse(w, http.StatusBadRequest)
		return
	}
	waits, u, ok := s.signing(w, r, who, in.ID, true)
	if !ok {
		return
	}
	s.counting.Lock()
	signed, reason := s.signed(r.Context(), u, waits.Statement, in.Answer)
	s.counting.Unlock()
	if reason != "" {
		s.refused(w, r, "statement", who.Account.ID, reason)
		return
	}
	first, err := s.o.Store.UseStatement(r.Context(), waits.ID, s.o.Now())
	switch {
	case err != nil:
		refuse(w, http.StatusInternalServerError)
		return
	case !first:
		s.repeated(w, r, who.Account.ID, waits.ID)
		return
	case s.o.Signed == nil:
		refuse(w, http.StatusNotFound)
		return
	}
	no, err := s.o.Signed(context.WithoutCancel(r.Context()), who.Account.ID, waits.Statement, signed)
	switch {
	case err != nil:
		refuseAs(w, http.StatusServiceUnavailable, "unstated")
	case no != "":
		b, err := json.Marshal(map[string]any{"type": "about:blank", "title": "refused", "status": http.StatusForbidden, "code": "not_permitted", "detail": no})
		if err != nil {
			refuse(w, http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusForbidden)
		w.Write(b)
	default:
		answer(w, map[string]any{})
	}
}

// signed judges what an authenticator answered about a statement, and stores its sign count.
// The reason is for the ledger.
func (s *Service) signed(ctx context.Context, u user, statement, b []byte) (*passkey.Signed, string) {
	if !bounded(b) {
		return nil, "malformed"
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(b)
	if err != nil {
		return nil, "malformed"
	}
	_, data, err := s.signOptions(u, statement)
	if err != nil {
		return nil, "malformed"
	}
	cred, err := s.wan.ValidateLogin(u, *data, parsed)
	if err != nil || !cred.Flags.UserVerified {
		return nil, "passkey-not-valid"
	}
	if err := s.o.Store.PutCredential(ctx, u.a.ID, *cred, s.o.Now()); err != nil { // with the warning, so that it stays seen
		return nil, "store"
	}
	if cred.Authenticator.CloneWarning {
		return nil, "sign-count-went-back"
	}
	b64 := base64.RawURLEncoding.EncodeToString
	out := &passkey.Signed{
		AuthenticatorData: b64(parsed.Raw.AssertionResponse.AuthenticatorData), ClientData: b64(parsed.Raw.AssertionResponse.ClientDataJSON),
		Record: s.Record(u.a.ID, cred), Signature: b64(parsed.Raw.AssertionResponse.Signature), V: 1,
	}
	if err := out.Verify(statement, s.o.Origin); err != nil { // as the officers will
		return nil, "passkey-not-valid"
	}
	return out, ""
}

// PutStatement implements Store.
func (d *DB) PutStatement(ctx context.Context, w Waiting) error {
	return d.atomic(ctx, func(tx *DB) error {
		// The statement itself is over after a day, whatever happens here.
		if err := tx.exec(ctx, false, "DELETE FROM statements WHERE made < ?", w.Made.Add(-2*approval.MaxLife).UnixNano()); err != nil {
			return err
		}
		var all, own int
		row := tx.tx.QueryRowContext(ctx, "SELECT count(*), coalesce(sum(account = ?), 0) FROM statements WHERE used = 0 AND expires > ?", w.Account, w.Made.UnixNano())
		if err := row.Scan(&all, &own); err != nil {
			return fmt.Errorf("reading the login store: %w", err)
		}
		if all >= maxWaiting || own >= maxOwn {
			return bad("too many statements wait for a signature: sign them, or ask again in %d minutes", int(SignLife/time.Minute))
		}
		return tx.exec(ctx, true, "INSERT INTO statements VALUES (?, ?, ?, ?, ?, ?, 0)", w.ID, w.Account, w.Nonce, string(w.Statement), w.Made.UnixNano(), w.Expires.UnixNano())
	})
}

// Statement implements Store.
func (d *DB) Statement(ctx context.Context, id string) (w Waiting, err error) {
	var statement string
	var made, expires, used int64
	err = d.db.QueryRowContext(ctx, "SELECT id, account, nonce, statement, made, expires, used FROM statements WHERE id = ?", id).Scan(&w.ID, &w.Account, &w.Nonce, &statement, &made, &expires, &used)
	w.Statement, w.Made, w.Expires, w.Used = []byte(statement), time.Unix(0, made), time.Unix(0, expires), used != 0
	return w, unknown(err)
}

// UseStatement implements Store.
func (d *DB) UseStatement(ctx context.Context, id string, now time.Time) (bool, error) {
	err := d.exec(ctx, true, "UPDATE statements SET used = ? WHERE id = ? AND used = 0 AND expires > ?", now.UnixNano(), id, now.UnixNano())
	if errors.Is(err, ErrUnknown) {
		return false, nil
	}
	return err == nil, err
}
