package login

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

const oidcCookie = "__Host-oidc"

// OIDC is the configuration of a provider.
type OIDC struct {
	Issuer       string              `json:"issuer"`        // https, or http on loopback
	ClientID     string              `json:"client_id"`     // the audience that we demand
	ClientSecret string              `json:"client_secret"` // may be empty: PKCE is always used
	RedirectURL  string              `json:"redirect_url"`  // ends in /login/oidc/callback
	Algs         []string            `json:"algs"`          // signing algorithms; empty: ES256, RS256
	GroupsClaim  string              `json:"groups_claim"`  // empty: groups
	Roles        map[string][]string `json:"roles"`         // group to roles; a person without a role is refused
	AMR          []string            `json:"amr"`           // one of these is demanded, when set
}

// ParseOIDC reads the configuration, strictly. Errors name a field, never a value.
func ParseOIDC(b []byte) (OIDC, error) {
	var c OIDC
	if len(b) > maxBody {
		return c, errors.New("oidc: the configuration is too large")
	}
	if err := strict(b, &c); err != nil {
		return c, errors.New("oidc: not one JSON object with known fields alone")
	}
	return c, c.check()
}

func (c *OIDC) check() error {
	for _, f := range []struct{ name, v string }{{"issuer", c.Issuer}, {"redirect_url", c.RedirectURL}} {
		u, err := url.Parse(f.v)
		if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return fmt.Errorf("oidc: %s is no plain address", f.name)
		}
		ip := net.ParseIP(u.Hostname())
		if loop := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback(); u.Scheme != "https" && !(u.Scheme == "http" && loop) {
			return fmt.Errorf("oidc: %s must be https", f.name)
		}
	}
	if c.ClientID == "" {
		return errors.New("oidc: client_id is missing")
	}
	if len(c.Roles) == 0 {
		return errors.New("oidc: roles is empty: nobody could log in")
	}
	if len(c.Algs) == 0 {
		c.Algs = []string{"ES256", "RS256"}
	}
	for _, a := range c.Algs {
		if !slices.Contains([]string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}, a) {
			return errors.New("oidc: algs holds one that is no public-key signature")
		}
	}
	if c.GroupsClaim == "" {
		c.GroupsClaim = "groups"
	}
	return nil
}

// provider is asked for its discovery document when somebody first needs it, and again
// after a pause where it did not answer.
type provider struct {
	c      OIDC
	client *http.Client

	mu    sync.Mutex // guards found and tried
	found *discovered
	tried time.Time
}

type discovered struct {
	oauth  oauth2.Config
	verify *oidc.IDTokenVerifier
}

// again is the pause before a provider that did not answer is asked again.
const again = 10 * time.Second

var errAway = errors.New("the provider did not answer")

func newProvider(c OIDC, client *http.Client) (*provider, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return &provider{c: c, client: client}, nil
}

func (p *provider) discover(ctx context.Context, now time.Time) (*discovered, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.found != nil {
		return p.found, nil
	}
	if since := now.Sub(p.tried); since >= 0 && since < again {
		return nil, errAway
	}
	p.tried = now
	// The next asker needs the answer too, when this one has gone.
	d, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), p.client), p.c.Issuer)
	if err != nil {
		return nil, errAway
	}
	p.found = &discovered{
		oauth:  oauth2.Config{ClientID: p.c.ClientID, ClientSecret: p.c.ClientSecret, RedirectURL: p.c.RedirectURL, Endpoint: d.Endpoint(), Scopes: []string{oidc.ScopeOpenID}},
		verify: d.Verifier(&oidc.Config{ClientID: p.c.ClientID, SupportedSigningAlgs: p.c.Algs}),
	}
	return p.found, nil
}

type flow struct{ state, nonce, verifier string }

func (s *Service) oidcStart(w http.ResponseWriter, r *http.Request) {
	if s.oidc == nil {
		refuse(w, http.StatusNotFound)
		return
	}
	d, err := s.oidc.discover(r.Context(), s.o.Now())
	if err != nil {
		refuse(w, http.StatusBadGateway)
		return
	}
	f := flow{random(), random(), oauth2.GenerateVerifier()}
	text, err := s.pending.put(f, s.o.Now(), Ceremony)
	if err != nil {
		refuse(w, http.StatusServiceUnavailable)
		return
	}
	setCookie(w, oidcCookie, text, "/", http.SameSiteLaxMode, Ceremony)
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, d.oauth.AuthCodeURL(f.state, oauth2.S256ChallengeOption(f.verifier), oidc.Nonce(f.nonce)), http.StatusFound)
}

// oidcCallback answers with a document and no redirect: a Strict cookie would not go along
// with a redirect that another site began.
func (s *Service) oidcCallback(w http.ResponseWriter, r *http.Request) {
	if s.oidc == nil {
		refuse(w, http.StatusNotFound)
		return
	}
	v, ok := s.pended(w, r, oidcCookie)
	f, right := v.(flow)
	q := r.URL.Query()
	if !ok || !right || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(f.state)) != 1 {
		s.refused(w, r, "oidc", "", "state")
		return
	}
	code := q.Get("code")
	if code == "" || len(code) > 4096 {
		s.refused(w, r, "oidc", "", "code")
		return
	}
	d, err := s.oidc.discover(r.Context(), s.o.Now())
	if err != nil {
		refuse(w, http.StatusBadGateway)
		return
	}
	who, reason := s.oidc.redeem(r.Context(), d, f, code)
	if reason != "" {
		s.refused(w, r, "oidc", "", reason)
		return
	}
	a, err := s.o.Store.External(r.Context(), who.External)
	switch {
	case errors.Is(err, ErrUnknown):
		a = Account{ID: id("u_"), External: who.External, Created: s.o.Now()}
	case err != nil:
		refuse(w, http.StatusInternalServerError)
		return
	}
	if a.Disabled || len(who.Roles) == 0 {
		s.refused(w, r, "oidc", a.ID, "disabled-or-no-role")
		return
	}
	if !slices.Equal(a.Roles, who.Roles) {
		kind, detail := "account.changed", map[string]any{"account": a.ID, "change": "roles", "roles": who.Roles}
		put := func(ctx context.Context, a Account) error { return s.o.Store.SetRoles(ctx, a.ID, a.Roles) }
		if a.Roles == nil {
			kind, detail, put = "account.made", map[string]any{"account": a.ID, "way": "oidc", "roles": who.Roles}, s.o.Store.PutAccount
		}
		if err := s.record(r.Context(), kind, a.ID, detail); err != nil {
			refuse(w, http.StatusServiceUnavailable)
			return
		}
		a.Roles = who.Roles
		if err := put(r.Context(), a); err != nil {
			refuse(w, http.StatusInternalServerError)
			return
		}
	}
	s.accept(w, r, a, "oidc")
}

// redeem turns a code into the external id and the roles. The reason is for the ledger.
func (p *provider) redeem(ctx context.Context, d *discovered, f flow, code string) (a Account, reason string) {
	ctx = oidc.ClientContext(ctx, p.client)
	tok, err := d.oauth.Exchange(ctx, code, oauth2.VerifierOption(f.verifier))
	if err != nil {
		return a, "code-not-taken"
	}
	rawID, ok := tok.Extra("id_token").(string)
	if !ok || len(rawID) > maxBody {
		return a, "no-id-token"
	}
	t, err := d.verify.Verify(ctx, rawID) // signature, algorithm, issuer, audience, expiry
	if err != nil {
		return a, "id-token-not-valid"
	}
	if t.Nonce == "" || subtle.ConstantTimeCompare([]byte(t.Nonce), []byte(f.nonce)) != 1 {
		return a, "nonce"
	}
	if len(t.Audience) != 1 || t.Subject == "" {
		return a, "audience-or-subject"
	}
	var all map[string]json.RawMessage
	if err := t.Claims(&all); err != nil {
		return a, "claims"
	}
	if len(p.c.AMR) > 0 && !slices.ContainsFunc(words(all["amr"]), func(m string) bool { return slices.Contains(p.c.AMR, m) }) {
		return a, "amr"
	}
	return Account{External: digest(t.Issuer + "\x00" + t.Subject), Roles: p.c.roles(words(all[p.c.GroupsClaim]))}, ""
}

// words reads a list of strings, or one string; anything else is empty.
func words(b json.RawMessage) []string {
	var list []string
	if json.Unmarshal(b, &list) == nil {
		return list
	}
	var one string
	if json.Unmarshal(b, &one) == nil && one != "" {
		return []string{one}
	}
	return nil
}

func (c *OIDC) roles(groups []string) []string {
	var out []string
	for _, g := range groups {
		out = append(out, c.Roles[g]...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
