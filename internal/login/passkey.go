package login

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
)

const passkeyCookie = "__Host-ceremony"

func newWebAuthn(rpid, origin string) (*webauthn.WebAuthn, error) {
	w, err := webauthn.New(&webauthn.Config{RPID: rpid, RPDisplayName: "Counterseal", RPOrigins: []string{origin}})
	if err != nil {
		return nil, fmt.Errorf("setting up passkeys: %w", err)
	}
	return w, nil
}

// user is an account as the library sees it. Its names are the random id.
type user struct {
	a     Account
	creds []webauthn.Credential
}

func (u user) WebAuthnID() []byte                         { return []byte(u.a.ID) }
func (u user) WebAuthnName() string                       { return u.a.ID }
func (u user) WebAuthnDisplayName() string                { return u.a.ID }
func (u user) WebAuthnCredentials() []webauthn.Credential { return u.creds }

type registration struct {
	data   webauthn.SessionData
	u      user
	secret string // that makes the account; empty for an account that is there
	first  bool
}

func (s *Service) pend(w http.ResponseWriter, v any, options any) {
	text, err := s.pending.put(v, s.o.Now(), Ceremony)
	if err != nil {
		refuse(w, http.StatusServiceUnavailable)
		return
	}
	setCookie(w, passkeyCookie, text, "/", http.SameSiteStrictMode, Ceremony)
	answer(w, options)
}

func (s *Service) pended(w http.ResponseWriter, r *http.Request, cookie string) (any, bool) {
	c, err := r.Cookie(cookie)
	if err != nil {
		return nil, false
	}
	clearCookie(w, cookie)
	return s.pending.take(c.Value, s.o.Now())
}

// registerBegin starts a passkey: for a new account by a secret, or for the account of
// a young session.
func (s *Service) registerBegin(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Secret string `json:"secret"`
	}
	if err := body(r, &in); err != nil {
		refuse(w, http.StatusBadRequest)
		return
	}
	now := s.o.Now()
	var reg registration
	if who, ok := From(r.Context()); ok && in.Secret == "" {
		if who.Session == "" || who.Terminal || now.Sub(who.Since) >= Fresh {
			refuseAs(w, http.StatusForbidden, notFresh)
			return
		}
		creds, err := s.o.Store.Credentials(r.Context(), who.Account.ID)
		if err != nil {
			refuse(w, http.StatusInternalServerError)
			return
		}
		reg.u = user{who.Account, creds}
	} else {
		// The secret stays until the passkey is there: an authenticator that fails does not
		// use it up.
		secret := typed(in.Secret)
		v, ok := s.secrets.look(secret, now)
		if !ok {
			s.refused(w, r, "passkey", "", "secret")
			return
		}
		inv := v.(invitation)
		reg = registration{u: user{a: Account{ID: inv.account, Roles: inv.roles, Created: now}}, secret: secret, first: inv.first}
	}
	required := true
	options, data, err := s.wan.BeginRegistration(reg.u,
		webauthn.WithExclusions(webauthn.Credentials(reg.u.creds).CredentialDescriptors()),
		webauthn.WithAuthenticatorSelection(protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementRequired, RequireResidentKey: &required, UserVerification: protocol.VerificationRequired}))
	if err != nil {
		refuse(w, http.StatusInternalServerError)
		return
	}
	reg.data = *data
	s.pend(w, reg, options)
}

func (s *Service) registerFinish(w http.ResponseWriter, r *http.Request) {
	v, ok := s.pended(w, r, passkeyCookie)
	reg, right := v.(registration)
	b, err := raw(r)
	if !ok || !right || err != nil {
		s.refused(w, r, "passkey", "", "no-ceremony")
		return
	}
	cred, err := s.created(reg, b)
	if err != nil {
		s.refused(w, r, "passkey", "", "passkey-not-acceptable")
		return
	}
	ctx, account := r.Context(), reg.u.a.ID
	known := s.Record(account, cred)
	record, err := known.Digest()
	if err != nil {
		refuse(w, http.StatusInternalServerError)
		return
	}
	way := "invitation"
	if reg.secret == "" {
		// Who began it may have been turned away meanwhile.
		if who, ok := From(ctx); !ok || who.Account.ID != account {
			s.refused(w, r, "passkey", account, "no-ceremony")
			return
		}
	} else {
		if _, ok := s.secrets.take(reg.secret, s.o.Now()); !ok {
			s.refused(w, r, "passkey", "", "secret")
			return
		}
		if reg.first {
			way = "set-up"
			if n, err := s.o.Store.Accounts(ctx); err != nil || n > 0 {
				s.refused(w, r, "passkey", "", "secret")
				return
			}
		}
		if err := s.record(ctx, "account.made", account, map[string]any{"account": account, "way": way, "roles": reg.u.a.Roles}); err != nil {
			refuse(w, http.StatusServiceUnavailable)
			return
		}
	}
	if err := s.record(ctx, "login.passkey_added", account, map[string]any{"account": account, "passkey": passkeyID(cred.ID), "record": record}); err != nil {
		refuse(w, http.StatusServiceUnavailable)
		return
	}
	switch {
	case reg.secret == "":
		err = s.o.Store.PutCredential(ctx, account, *cred, s.o.Now())
	default:
		err = s.o.Store.Register(ctx, reg.u.a, reg.first, *cred)
	}
	if errors.Is(err, ErrUnknown) { // another account was first, or the passkey is another's
		s.refused(w, r, "passkey", "", "passkey-not-acceptable")
		return
	}
	if err != nil {
		refuse(w, http.StatusInternalServerError)
		return
	}
	s.accept(w, r, reg.u.a, "passkey")
}

// typed is a secret or a code as a person may have typed it.
func typed(text string) string {
	return strings.ToUpper(strings.NewReplacer(" ", "", "-", "", "\n", "", "\t", "").Replace(text))
}

// created judges the answer of an authenticator to a registration.
func (s *Service) created(reg registration, b []byte) (*webauthn.Credential, error) {
	if !bounded(b) {
		return nil, ErrRefused
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes(b)
	if err != nil {
		return nil, ErrRefused
	}
	cred, err := s.wan.CreateCredential(reg.u, reg.data, parsed)
	if err != nil || !cred.Flags.UserVerified {
		return nil, ErrRefused
	}
	return cred, nil
}

// bounded says whether the bytes are one JSON object, before the library sees them.
func bounded(b []byte) bool {
	t := bytes.TrimSpace(b)
	return len(b) <= maxBody && len(t) > 0 && t[0] == '{' && json.Valid(b)
}

func (s *Service) passkeyBegin(w http.ResponseWriter, r *http.Request) {
	var in struct{}
	if err := body(r, &in); err != nil {
		refuse(w, http.StatusBadRequest)
		return
	}
	options, data, err := s.wan.BeginDiscoverableLogin(webauthn.WithUserVerification(protocol.VerificationRequired))
	if err != nil {
		refuse(w, http.StatusInternalServerError)
		return
	}
	s.pend(w, *data, options)
}

func (s *Service) passkeyFinish(w http.ResponseWriter, r *http.Request) {
	v, ok := s.pended(w, r, passkeyCookie)
	data, right := v.(webauthn.SessionData)
	b, err := raw(r)
	if !ok || !right || err != nil {
		s.refused(w, r, "passkey", "", "no-ceremony")
		return
	}
	s.counting.Lock()
	a, reason := s.asserted(r.Context(), data, b)
	s.counting.Unlock()
	if reason != "" {
		s.refused(w, r, "passkey", a.ID, reason)
		return
	}
	s.accept(w, r, a, "passkey")
}

// asserted judges a login and stores the new sign count. The reason is for the ledger.
// A passkey whose count went back once stays refused: nobody can tell which of the two
// copies counts on. Its owner needs a new one.
func (s *Service) asserted(ctx context.Context, data webauthn.SessionData, b []byte) (a Account, reason string) {
	if !bounded(b) {
		return a, "malformed"
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(b)
	if err != nil {
		return a, "malformed"
	}
	u, cred, err := s.wan.ValidatePasskeyLogin(func(_, handle []byte) (webauthn.User, error) {
		found, err := s.o.Store.Account(ctx, string(handle))
		if err != nil {
			return nil, err
		}
		a = found
		if s.persons.locked(a.ID, s.o.Now()) {
			return nil, errors.New("locked out")
		}
		creds, err := s.o.Store.Credentials(ctx, a.ID)
		return user{a, creds}, err
	}, data, parsed)
	if err != nil || u == nil || !cred.Flags.UserVerified {
		return a, "passkey-not-valid"
	}
	if err := s.o.Store.PutCredential(ctx, a.ID, *cred, s.o.Now()); err != nil { // with the warning, so that it stays seen
		return a, "store"
	}
	if cred.Authenticator.CloneWarning {
		return a, "sign-count-went-back"
	}
	return a, ""
}

// removePasskey takes a passkey from the account that asks, not the last one.
func (s *Service) removePasskey(w http.ResponseWriter, r *http.Request, who Who) {
	var in struct {
		ID string `json:"id"`
	}
	if err := body(r, &in); err != nil {
		refuse(w, http.StatusBadRequest)
		return
	}
	if who.Terminal || s.o.Now().Sub(who.Since) >= Fresh {
		refuseAs(w, http.StatusForbidden, notFresh)
		return
	}
	s.counting.Lock() // a login that is just being judged would put the passkey back
	defer s.counting.Unlock()
	ctx, account := r.Context(), who.Account.ID
	creds, err := s.o.Store.Credentials(ctx, account)
	if err != nil {
		refuse(w, http.StatusInternalServerError)
		return
	}
	i := slices.IndexFunc(creds, func(c webauthn.Credential) bool { return passkeyID(c.ID) == in.ID })
	switch {
	case i < 0:
		refuse(w, http.StatusNotFound)
		return
	case len(creds) == 1 && who.Account.External == "":
		refuseAs(w, http.StatusConflict, "last_passkey")
		return
	}
	if err := s.record(ctx, "account.changed", account, map[string]any{"account": account, "change": "passkey-removed", "passkey": in.ID}); err != nil {
		refuse(w, http.StatusServiceUnavailable)
		return
	}
	if err := s.o.Store.DeleteCredential(ctx, account, creds[i].ID); err != nil {
		refuse(w, http.StatusInternalServerError)
		return
	}
	answer(w, map[string]any{})
}
