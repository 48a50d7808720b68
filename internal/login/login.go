// Package login answers who is asking: OIDC, passkeys, sessions of browsers and tokens of
// machines. It owns `login.db`, which is no view of the ledger and has to be backed up.
//
// It promises: no password exists; a login, an account and a token take effect only after
// Record has taken their statement; cookies, sessions of terminals and tokens are stored
// as SHA-256 alone; no error, event or address names a person, because an account is a
// random id; a disabled account has no session and no token. It leaves to others what an
// account may do (internal/policy) and every page.
package login

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/counterseal/counterseal/internal/passkey"
)

// The limits of a session, a set-up secret and a ceremony between its two requests.
const (
	Idle       = 20 * time.Minute
	Absolute   = 8 * time.Hour
	SecretLife = 15 * time.Minute
	Ceremony   = 5 * time.Minute
	Fresh      = 5 * time.Minute // how young a login must be to add a passkey or a token

	cookieName = "__Host-session"
	maxBody    = 64 << 10
)

// ErrRefused is every refusal that a client sees; it never says which check failed.
var ErrRefused = errors.New("login refused")

// Nobody is the actor of a refusal whose account is not known.
const Nobody = "nobody"

// Options are what the service needs.
type Options struct {
	Store  Store
	RPID   string // the host name that passkeys are bound to
	Origin string // https://host[:port]
	OIDC   *OIDC  // nil: passkeys only
	// Proxies are the peers whose last hop in X-Forwarded-For is the source of a request.
	Proxies []netip.Prefix
	// Record makes the ledger statement, of the kinds login, account and token of
	// ledger.Kinds. It is called before anything takes effect; an error of it refuses.
	Record func(ctx context.Context, kind, actor string, detail map[string]any) error
	// Signed is told of a statement that the passkey of an account signed. What it answers
	// refuses, with the reason for the page; an error says that nobody has it stated. nil:
	// nothing is signed here.
	Signed func(ctx context.Context, account string, statement []byte, by *passkey.Signed) (refusal string, err error)
	Now    func() time.Time // nil: time.Now
	Client *http.Client     // for the provider; nil: one with a timeout
}

// Service answers logins. All methods may be called at once.
type Service struct {
	o       Options
	wan     *webauthn.WebAuthn
	oidc    *provider
	pending *once
	secrets *once
	sources *limiter
	persons *limiter
	starts  *limiter // of logins of terminals, by source
	devices *devices

	counting sync.Mutex // orders reading and writing of sign counts
}

// New checks the options. The provider is asked when somebody first logs in by it: a
// server collects also while its provider is away.
func New(o Options) (*Service, error) {
	if o.Store == nil || o.Record == nil {
		return nil, errors.New("login needs a store and a record function")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Client == nil {
		o.Client = &http.Client{Timeout: 10 * time.Second}
	}
	wan, err := newWebAuthn(o.RPID, o.Origin)
	if err != nil {
		return nil, err
	}
	s := &Service{o: o, wan: wan, pending: newOnce(4096, random), secrets: newOnce(64, rand.Text), devices: newDevices(),
		sources: newLimiter(20, time.Minute, 5*time.Minute), persons: newLimiter(5, 15*time.Minute, 15*time.Minute), starts: newLimiter(10, time.Minute, time.Minute)}
	if o.OIDC != nil {
		if s.oidc, err = newProvider(*o.OIDC, o.Client); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Who is the asker of a request.
type Who struct {
	Account  Account
	Session  string   // id of the session; empty for a machine
	Terminal bool     // the session belongs to the command line
	Scopes   []string // of a machine's token
	Since    time.Time
}

// May says whether the scope covers it: a session may ask anything that policy allows.
func (w Who) May(scope string) bool { return w.Session != "" || slices.Contains(w.Scopes, scope) }

type whoKey struct{}

// From returns who asks.
func From(ctx context.Context) (Who, bool) {
	w, ok := ctx.Value(whoKey{}).(Who)
	return w, ok
}

// Middleware puts the asker into the context. A request without a valid session or
// token goes on without one; a request that shows an invalid token, or changes state by
// a session without its CSRF token, is refused here: CrossOriginProtection lets
// a request with neither Origin nor Sec-Fetch-Site pass.
func (s *Service) Middleware(next http.Handler) http.Handler {
	return http.NewCrossOriginProtection().Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			text, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			who, err := s.byBearer(r.Context(), text)
			if !bearer || err != nil {
				refuse(w, http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), whoKey{}, who)))
			return
		}
		c, err := r.Cookie(cookieName)
		if err != nil {
			next.ServeHTTP(w, r)
			return
		}
		who, err := s.bySession(r.Context(), c.Value, false)
		if err != nil {
			clearCookie(w, cookieName)
			next.ServeHTTP(w, r)
			return
		}
		safe := r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions
		if !safe && subtle.ConstantTimeCompare([]byte(r.Header.Get("X-Csrf-Token")), []byte(csrf(c.Value))) != 1 {
			refuse(w, http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), whoKey{}, who)))
	}))
}

// RequireScope lets sessions pass, and machines whose token holds the scope.
func RequireScope(scope string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, ok := From(r.Context())
		if !ok {
			refuse(w, http.StatusUnauthorized)
			return
		}
		if !who.May(scope) {
			refuse(w, http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Handler answers everything under /login/.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login/passkey/begin", s.limited(s.passkeyBegin))
	mux.HandleFunc("POST /login/passkey/finish", s.limited(s.passkeyFinish))
	mux.HandleFunc("POST /login/register/begin", s.limited(s.registerBegin))
	mux.HandleFunc("POST /login/register/finish", s.limited(s.registerFinish))
	mux.HandleFunc("GET /login/oidc/start", s.limited(s.oidcStart))
	mux.HandleFunc("GET /login/oidc/callback", s.limited(s.oidcCallback))
	mux.HandleFunc("POST /login/out", s.known(s.out))
	mux.HandleFunc("GET /login/me", s.known(s.me))
	mux.HandleFunc("GET /login/sessions", s.known(s.sessions))
	mux.HandleFunc("POST /login/sessions/revoke", s.known(s.revoke))
	mux.HandleFunc("POST /login/passkeys/remove", s.known(s.removePasskey))
	mux.HandleFunc("POST /login/sign/begin", s.limited(s.known(s.signBegin)))
	mux.HandleFunc("POST /login/sign/finish", s.limited(s.known(s.signFinish)))
	mux.HandleFunc("POST /login/cli/start", s.limited(s.cliStart))
	mux.HandleFunc("POST /login/cli/confirm", s.limited(s.known(s.cliConfirm)))
	mux.HandleFunc("POST /login/cli/finish", s.limited(s.cliFinish))
	return s.Middleware(mux)
}

func (s *Service) limited(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if s.sources.locked(s.Source(r), s.o.Now()) {
			w.Header().Set("Retry-After", "300")
			refuse(w, http.StatusTooManyRequests)
			return
		}
		h(w, r)
	}
}

func (s *Service) known(h func(http.ResponseWriter, *http.Request, Who)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		who, ok := From(r.Context())
		if !ok || who.Session == "" {
			refuse(w, http.StatusUnauthorized)
			return
		}
		h(w, r, who)
	}
}

// Source is the address that a request comes from, an IPv6 one by its /64: one host has a
// whole such net. Behind a proxy of the configuration it is the last hop of
// X-Forwarded-For, which that proxy wrote; what stands before it anybody may have written.
func (s *Service) Source(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	ip = ip.Unmap().WithZone("")
	if slices.ContainsFunc(s.o.Proxies, func(p netip.Prefix) bool { return p.Contains(ip) }) {
		if hops := r.Header.Values("X-Forwarded-For"); len(hops) > 0 {
			last := hops[len(hops)-1]
			if hop, err := netip.ParseAddr(strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:])); err == nil {
				ip = hop.Unmap().WithZone("")
			}
		}
	}
	if ip.Is6() {
		return netip.PrefixFrom(ip, 64).Masked().Addr().String()
	}
	return ip.String()
}

// refused counts and records a refusal. The reason is a code; it goes to the ledger, not
// to the client.
func (s *Service) refused(w http.ResponseWriter, r *http.Request, way, account, reason string) {
	now := s.o.Now()
	s.sources.fail(s.Source(r), now)
	if account == "" {
		account = Nobody
	} else {
		s.persons.fail(account, now)
	}
	if err := s.o.Record(r.Context(), "login.refused", account, map[string]any{"way": way, "reason": reason}); err != nil {
		refuse(w, http.StatusServiceUnavailable)
		return
	}
	refuse(w, http.StatusForbidden)
}

// accept makes the statement, ends the session that the browser came with, and starts a
// new one: a session that somebody planted before the login is worth nothing after it.
func (s *Service) accept(w http.ResponseWriter, r *http.Request, a Account, way string) {
	text, err := s.enter(r, a, way, false)
	switch {
	case errors.Is(err, ErrRefused):
		s.refused(w, r, way, a.ID, "disabled-or-locked")
		return
	case errors.Is(err, errUnstated):
		refuse(w, http.StatusServiceUnavailable)
		return
	case err != nil:
		refuse(w, http.StatusInternalServerError)
		return
	}
	setCookie(w, cookieName, text, "/", http.SameSiteStrictMode, Absolute)
	answer(w, map[string]any{"account": a.ID, "roles": a.Roles, "csrf": csrf(text)})
}

// errUnstated is wrapped where the ledger could not take a statement.
var errUnstated = errors.New("the ledger could not take the statement")

func (s *Service) record(ctx context.Context, kind, actor string, detail map[string]any) error {
	if err := s.o.Record(ctx, kind, actor, detail); err != nil {
		return fmt.Errorf("%w: %w", errUnstated, err)
	}
	return nil
}

// enter makes the statement and then the session.
func (s *Service) enter(r *http.Request, a Account, way string, terminal bool) (string, error) {
	ctx, now := r.Context(), s.o.Now()
	if a.Disabled || s.persons.locked(a.ID, now) {
		return "", ErrRefused
	}
	text := random()
	if terminal {
		text = terminalPrefix + text
	}
	fresh := Session{Hash: digest(text), ID: id("s_"), Account: a.ID, Terminal: terminal, Created: now, Seen: now}
	if err := s.record(ctx, "login.accepted", a.ID, map[string]any{"way": way, "session": fresh.ID}); err != nil {
		return "", err
	}
	if c, err := r.Cookie(cookieName); err == nil && !terminal {
		if err := s.o.Store.DeleteSession(ctx, digest(c.Value)); err != nil {
			return "", err
		}
	}
	if err := s.o.Store.PutSession(ctx, fresh); err != nil {
		return "", err
	}
	s.persons.clear(a.ID)
	return text, nil
}

// Renew replaces the session of the request by a new one of the same age. Call it when
// the account's roles change.
func (s *Service) Renew(w http.ResponseWriter, r *http.Request) error {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return ErrRefused
	}
	old, err := s.o.Store.Session(r.Context(), digest(c.Value))
	if err != nil {
		return err
	}
	text := random()
	fresh := old
	fresh.Hash, fresh.ID, fresh.Seen = digest(text), id("s_"), s.o.Now()
	if err := s.o.Store.PutSession(r.Context(), fresh); err != nil {
		return err
	}
	if err := s.o.Store.DeleteSession(r.Context(), old.Hash); err != nil {
		return err
	}
	setCookie(w, cookieName, text, "/", http.SameSiteStrictMode, fresh.Created.Add(Absolute).Sub(s.o.Now()))
	return nil
}

// bySession finds the session of a cookie, or that of a terminal: neither opens what is
// the other's, since the one needs its CSRF token and the other does not.
func (s *Service) bySession(ctx context.Context, text string, terminal bool) (Who, error) {
	if len(text) > 64 {
		return Who{}, ErrRefused
	}
	h := digest(text)
	ses, err := s.o.Store.Session(ctx, h)
	if err != nil {
		return Who{}, err
	}
	if ses.Terminal != terminal {
		return Who{}, ErrRefused
	}
	now := s.o.Now()
	if ses.over(now) {
		if err := s.o.Store.DeleteSession(ctx, h); err != nil {
			return Who{}, err
		}
		return Who{}, ErrRefused
	}
	a, err := s.o.Store.Account(ctx, ses.Account)
	if err != nil {
		return Who{}, err
	}
	if a.Disabled {
		return Who{}, ErrRefused
	}
	if now.Sub(ses.Seen) >= 30*time.Second { // one write in half a minute is enough
		if err := s.o.Store.TouchSession(ctx, h, now); err != nil {
			return Who{}, err
		}
	}
	return Who{Account: a, Session: ses.ID, Terminal: terminal, Since: ses.Created}, nil
}

const (
	tokenPrefix    = "cst_"
	terminalPrefix = "css_"
)

// byBearer finds who shows a text in the Authorization header.
func (s *Service) byBearer(ctx context.Context, text string) (Who, error) {
	if strings.HasPrefix(text, terminalPrefix) {
		return s.bySession(ctx, text, true)
	}
	return s.byToken(ctx, text)
}

func (s *Service) byToken(ctx context.Context, text string) (Who, error) {
	if len(text) != len(tokenPrefix)+43 || !strings.HasPrefix(text, tokenPrefix) {
		return Who{}, ErrRefused
	}
	h := digest(text)
	t, err := s.o.Store.Token(ctx, h)
	if err != nil {
		return Who{}, err
	}
	now := s.o.Now()
	if subtle.ConstantTimeCompare([]byte(h), []byte(t.Hash)) != 1 || !now.Before(t.Expires) {
		return Who{}, ErrRefused
	}
	a, err := s.o.Store.Account(ctx, t.Account)
	if err != nil {
		return Who{}, err
	}
	if a.Disabled {
		return Who{}, ErrRefused
	}
	if now.Sub(t.Used) >= time.Minute {
		if err := s.o.Store.TouchToken(ctx, h, now); err != nil {
			return Who{}, err
		}
	}
	return Who{Account: a, Scopes: t.Scopes, Since: t.Created}, nil
}

func (s *Service) me(w http.ResponseWriter, r *http.Request, who Who) {
	answer(w, map[string]any{"account": who.Account.ID, "roles": who.Account.Roles, "csrf": CSRF(r)})
}

func (s *Service) out(w http.ResponseWriter, r *http.Request, who Who) {
	if err := s.record(r.Context(), "login.ended", who.Account.ID, map[string]any{"session": who.Session, "reason": "logged-out"}); err != nil {
		refuse(w, http.StatusServiceUnavailable)
		return
	}
	if err := s.o.Store.RevokeSession(r.Context(), who.Account.ID, who.Session); err != nil {
		refuse(w, http.StatusInternalServerError)
		return
	}
	clearCookie(w, cookieName)
	answer(w, map[string]any{})
}

func (s *Service) sessions(w http.ResponseWriter, r *http.Request, who Who) {
	list, err := s.Sessions(r.Context(), who.Account.ID)
	if err != nil {
		refuse(w, http.StatusInternalServerError)
		return
	}
	type row struct {
		ID            string
		Terminal      bool
		Created, Seen time.Time
		Current       bool
	}
	rows := []row{}
	for _, x := range list {
		rows = append(rows, row{x.ID, x.Terminal, x.Created, x.Seen, x.ID == who.Session})
	}
	answer(w, rows)
}

// revoke ends a session of the account that asks.
func (s *Service) revoke(w http.ResponseWriter, r *http.Request, who Who) {
	var in struct {
		ID string `json:"id"`
	}
	if err := body(r, &in); err != nil {
		refuse(w, http.StatusBadRequest)
		return
	}
	list, err := s.o.Store.Sessions(r.Context(), who.Account.ID)
	if err != nil {
		refuse(w, http.StatusInternalServerError)
		return
	}
	if !slices.ContainsFunc(list, func(x Session) bool { return x.ID == in.ID }) {
		refuse(w, http.StatusNotFound)
		return
	}
	if err := s.record(r.Context(), "login.ended", who.Account.ID, map[string]any{"session": in.ID, "reason": "revoked"}); err != nil {
		refuse(w, http.StatusServiceUnavailable)
		return
	}
	if err := s.o.Store.RevokeSession(r.Context(), who.Account.ID, in.ID); err != nil && !errors.Is(err, ErrUnknown) {
		refuse(w, http.StatusInternalServerError)
		return
	}
	answer(w, map[string]any{})
}

// body reads one JSON object with known members alone.
func body(r *http.Request, into any) error {
	b, err := raw(r)
	if err != nil {
		return err
	}
	return strict(b, into)
}

func raw(r *http.Request) ([]byte, error) {
	if ct, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); ct != "application/json" {
		return nil, errors.New("the body must be application/json")
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("reading the body: %w", err)
	}
	if len(b) > maxBody {
		return nil, errors.New("the body is too large")
	}
	return b, nil
}

func strict(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return errors.New("the body is not the JSON that is expected here")
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("the body goes on after its JSON")
	}
	return nil
}

func answer(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		refuse(w, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(b)
}

func refuse(w http.ResponseWriter, status int) { refuseAs(w, status, "refused") }

// notFresh is the code for a session that is too old for what it asks: the page offers to
// log in again. Only who has the session hears it.
const notFresh = "not_fresh"

func refuseAs(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	detail, hint := "the login refused this", ""
	if status == http.StatusUnauthorized {
		detail, hint = "the session or token that came with this is not in force", `,"hint":"sign in again: counterseal login"`
	}
	io.WriteString(w, `{"type":"about:blank","title":"refused","status":`+strconv.Itoa(status)+`,"code":"`+code+`","detail":"`+detail+`"`+hint+`}`)
}

func setCookie(w http.ResponseWriter, name, value, path string, same http.SameSite, life time.Duration) {
	http.SetCookie(w, &http.Cookie{Name: name, Value: value, Path: path, Secure: true, HttpOnly: true, SameSite: same, MaxAge: int(life / time.Second)})
}

func clearCookie(w http.ResponseWriter, name string) {
	http.SetCookie(w, &http.Cookie{Name: name, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode, MaxAge: -1})
}

func random() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails: crypto/rand ends the process instead
	return base64.RawURLEncoding.EncodeToString(b)
}

func id(prefix string) string { return prefix + rand.Text() }

func digest(text string) string {
	h := sha256.Sum256([]byte(text))
	return hex.EncodeToString(h[:])
}

// CSRF is the token that a page of this session sends in X-Csrf-Token; empty without a
// cookie.
func CSRF(r *http.Request) string {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return ""
	}
	return csrf(c.Value)
}

func csrf(session string) string {
	m := hmac.New(sha256.New, []byte(session))
	m.Write([]byte("counterseal/login/csrf/v1"))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}
