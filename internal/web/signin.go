package web

import (
	"errors"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/counterseal/counterseal/internal/login"
)

// SignInOptions are what the pages of the login need.
type SignInOptions struct {
	Login    *login.Service
	Origin   string // https://host[:port]; requests for another host are refused
	Provider bool   // a provider is configured
	// Empty tells whether no account exists yet.
	Empty func(*http.Request) (bool, error)
	Log   *slog.Logger     // nil: nothing is logged
	Now   func() time.Time // nil: time.Now
}

// SignIn is the door for people: the pages of the login, its API, and behind them
// whatever else the server answers.
type SignIn struct {
	o    SignInOptions
	host string
	page *template.Template
}

// NewSignIn makes the pages.
func NewSignIn(o SignInOptions) (*SignIn, error) {
	u, err := url.Parse(o.Origin)
	if err != nil || u.Host == "" {
		return nil, errors.New("the origin of the login is no address")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	p := &SignIn{o: o, host: u.Host}
	if p.page, err = template.ParseFS(files, "templates/signin*.html"); err != nil {
		return nil, err
	}
	return p, nil
}

// Handler answers the pages and the API of the login, and gives everything else to inner,
// with the asker in its context.
func (p *SignIn) Handler(inner http.Handler) http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range map[string]func(http.ResponseWriter, *http.Request){
		"GET /login/{$}": p.signIn, "GET /login/setup": p.setUp, "GET /login/invited": p.invited,
		"GET /login/account": p.account, "GET /login/cli": p.terminal, "GET /login/sign/{id}": p.statement,
	} {
		mux.Handle(pattern, p.o.Login.Middleware(http.HandlerFunc(h)))
	}
	api := p.o.Login.Handler()
	mux.Handle("/login/", api)
	mux.Handle("GET /login/oidc/start", p.provider(api))
	mux.Handle("GET /login/oidc/callback", p.provider(api))
	mux.HandleFunc("GET /static/", serveStatic)
	machine := p.o.Login.Middleware(onlyMachine(inner))
	mux.Handle("/api/v1/ingest/", machine)
	mux.Handle("/es/", machine)
	// What is everybody's: nobody looks who is signed in.
	everybody := http.NewCrossOriginProtection().Handler(inner)
	for _, pattern := range []string{"/me", "/me/", "/api/v1/me", "/api/v1/complaints", "/api/v1/complaints/"} {
		mux.Handle(pattern, everybody)
	}
	mux.Handle("/", p.o.Login.Middleware(inner))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		headers(w.Header())
		if ip, err := netip.ParseAddr(strings.Trim(hostName(p.host), "[]")); hostName(p.host) != "localhost" && (err != nil || !ip.IsLoopback()) {
			w.Header().Set("Strict-Transport-Security", "max-age=31536000")
		}
		if r.Host != p.host {
			problem(w, http.StatusMisdirectedRequest, "refused", "this server answers to the host of login.origin alone", "")
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// ingestScope is the scope of a token that may send records.
const ingestScope = "ingest"

// onlyMachine lets the tokens of machines send records: here, unlike at the loopback
// address, anybody could, and no person sends any.
func onlyMachine(inner http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, ok := login.From(r.Context())
		switch {
		case !ok:
			problem(w, http.StatusUnauthorized, "unauthorized", "sending records needs a token", "make one: counterseal token create --scope "+ingestScope)
		case who.Session != "" || !who.May(ingestScope):
			problem(w, http.StatusForbidden, "refused", "sending records needs a token with the scope "+ingestScope, "")
		default:
			inner.ServeHTTP(w, r)
		}
	})
}

// hostName is a host without its port.
func hostName(host string) string {
	u := url.URL{Host: host}
	return u.Hostname()
}

// signInPolicy lets the one script of these pages run and ask this server. It makes no markup,
// so there is no Trusted Types policy that could.
const signInPolicy = "default-src 'none'; style-src 'self'; img-src 'self' data:; script-src 'self'; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Where a login goes on, beside nextSign.
const (
	nextStart    = "/"
	nextAccount  = "/login/account"
	nextTerminal = "/login/cli"
)

// nextCookie remembers where to go on while a browser is at the provider.
const nextCookie = "__Host-next"

type signInPage struct {
	Title    string
	CSRF     string
	Account  string // empty: nobody is signed in
	Roles    []string
	Provider bool
	Empty    bool // there is no account yet
	Fresh    bool
	Next     string
	Invited  bool
	Problem  string // of the provider
	Sessions []signInSession
	Passkeys []signInPasskey

	Statement *signStatement // nil: there is none to sign
}

type signInSession struct {
	ID, Began, Seen, Ends string
	Terminal, Current     bool
}

type signInPasskey struct {
	ID, Made, Used string
	Synced, Last   bool
}

// NextName is the word for Next in an address.
func (p *signInPage) NextName() string { return strings.TrimPrefix(p.Next, "/login/") }

func (p *SignIn) view(r *http.Request, title, next string) *signInPage {
	v := &signInPage{Title: title, Provider: p.o.Provider, Next: next, CSRF: login.CSRF(r)}
	if who, ok := login.From(r.Context()); ok && who.Session != "" {
		v.Account, v.Roles = who.Account.ID, who.Account.Roles
		v.Fresh = p.o.Now().Sub(who.Since) < login.Fresh
	}
	return v
}

func (p *SignIn) show(w http.ResponseWriter, status int, name string, v *signInPage) {
	w.Header().Set("Content-Security-Policy", signInPolicy)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if err := p.page.ExecuteTemplate(w, name, v); err != nil {
		p.o.Log.Error("a page of the login was broken off", "page", name, "err", err)
	}
}

func (p *SignIn) broken(w http.ResponseWriter, err error) {
	p.o.Log.Error("a page of the login failed", "err", err)
	problem(w, http.StatusInternalServerError, "internal", "something went wrong; the log of the server has it", "")
}

func (p *SignIn) signIn(w http.ResponseWriter, r *http.Request) {
	v := p.view(r, "Sign in", nextStart)
	if v.Account == "" {
		empty, err := p.o.Empty(r)
		if err != nil {
			p.broken(w, err)
			return
		}
		v.Empty = empty
	}
	p.show(w, http.StatusOK, "signin.html", v)
}

func (p *SignIn) setUp(w http.ResponseWriter, r *http.Request) {
	v := p.view(r, "First set-up", nextAccount)
	empty, err := p.o.Empty(r)
	if err != nil {
		p.broken(w, err)
		return
	}
	v.Empty = empty
	p.show(w, http.StatusOK, "signin_setup.html", v)
}

func (p *SignIn) invited(w http.ResponseWriter, r *http.Request) {
	v := p.view(r, "Use an invitation", nextAccount)
	v.Invited = true
	p.show(w, http.StatusOK, "signin_setup.html", v)
}

// account shows who is signed in their sessions and passkeys, and nobody else's.
func (p *SignIn) account(w http.ResponseWriter, r *http.Request) {
	v := p.view(r, "Your account", nextAccount)
	who, ok := login.From(r.Context())
	if !ok || who.Session == "" {
		p.show(w, http.StatusUnauthorized, "signin.html", p.view(r, "Sign in", nextAccount))
		return
	}
	sessions, err := p.o.Login.Sessions(r.Context(), who.Account.ID)
	if err != nil {
		p.broken(w, err)
		return
	}
	passkeys, err := p.o.Login.Passkeys(r.Context(), who.Account.ID)
	if err != nil {
		p.broken(w, err)
		return
	}
	for _, s := range sessions {
		end := s.Created.Add(login.Absolute)
		if idle := s.Seen.Add(login.Idle); idle.Before(end) {
			end = idle
		}
		v.Sessions = append(v.Sessions, signInSession{ID: s.ID, Began: toMinute(s.Created), Seen: toMinute(s.Seen), Ends: toMinute(end), Terminal: s.Terminal, Current: s.ID == who.Session})
	}
	for _, k := range passkeys {
		v.Passkeys = append(v.Passkeys, signInPasskey{ID: k.ID, Made: toMinute(k.Made), Used: toMinute(k.Used), Synced: k.Synced, Last: len(passkeys) == 1})
	}
	p.show(w, http.StatusOK, "signin_account.html", v)
}

func toMinute(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") }

// terminal asks for the code that a terminal shows, of a fresh session.
func (p *SignIn) terminal(w http.ResponseWriter, r *http.Request) {
	v := p.view(r, "Sign in a terminal", nextTerminal)
	if v.Account == "" {
		v.Title = "Sign in"
		p.show(w, http.StatusUnauthorized, "signin.html", v)
		return
	}
	p.show(w, http.StatusOK, "signin_cli.html", v)
}

// provider turns the answers of the API, which are for programs, into pages.
func (p *SignIn) provider(api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := r.URL.Path == "/login/oidc/start"
		next := nextStart
		if start {
			next = nextPage(r.URL.Query().Get("next"))
			http.SetCookie(w, &http.Cookie{Name: nextCookie, Value: strings.TrimPrefix(next, "/login/"), Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: int(login.Ceremony / time.Second)})
		} else {
			if c, err := r.Cookie(nextCookie); err == nil {
				next = nextPage(c.Value)
			}
			http.SetCookie(w, &http.Cookie{Name: nextCookie, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: -1})
		}
		m := &muted{ResponseWriter: w}
		api.ServeHTTP(m, r)
		switch {
		case m.status == http.StatusFound:
			w.WriteHeader(m.status)
		case m.status == 0 || m.status == http.StatusOK:
			// A document and no redirect: a strict cookie would not go along with a redirect
			// that another site began.
			w.Header().Set("Refresh", "0; url="+next)
			p.show(w, http.StatusOK, "signin_done.html", &signInPage{Title: "Signed in", Next: next})
		default:
			v := &signInPage{Title: "Sign in", Provider: p.o.Provider, Next: next, Problem: providerProblem(m.status)}
			p.show(w, m.status, "signin.html", v)
		}
	})
}

func providerProblem(status int) string {
	switch status {
	case http.StatusNotFound:
		return "No provider is configured here. Use a passkey."
	case http.StatusTooManyRequests:
		return "Too many failed logins came from your network. Try again in five minutes."
	case http.StatusBadGateway:
		return "Your organisation's login does not answer. Try again in a minute, or use a passkey."
	case http.StatusServiceUnavailable:
		return "The login could not be recorded, so nobody was let in. Tell whoever runs this server."
	case http.StatusForbidden:
		return "Your organisation's login was not accepted. The account may have no role here, or the attempt took too long. The reason stands in the ledger."
	}
	return "Something went wrong. The log of the server has it."
}

// muted keeps the status of an answer and drops its body.
type muted struct {
	http.ResponseWriter
	status int
}

func (m *muted) WriteHeader(status int) {
	if m.status == 0 {
		m.status = status
		m.Header().Del("Content-Type")
	}
}

func (m *muted) Write(b []byte) (int, error) {
	m.WriteHeader(http.StatusOK)
	return len(b), nil
}

func serveStatic(w http.ResponseWriter, r *http.Request) {
	sub, err := fs.Sub(files, "static")
	if err != nil { // the folder is in the program
		panic(err)
	}
	w.Header().Set("Cache-Control", "no-cache")
	http.StripPrefix("/static/", http.FileServerFS(sub)).ServeHTTP(w, r)
}
