// Package web answers people and programs: the JSON API under /api/v1, the start
// page, health and metrics. Handlers parse, call one domain function and render;
// the rules live below. It imports no package that could undo a token, open a
// segment or use a key (layers_test.go).
//
// Every route passes one decision point (gate.go) before its handler reads anything, and
// what people are shown holds aliases in place of tokens. The loopback handler checks the
// Host header, refuses requests that another site makes a browser send, and asks for
// a session that a one-time secret begins; the socket handler trusts the file mode of the
// socket: both are the owner of the machine. Everybody else logs in.
package web

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"embed"
	"encoding/json"
	"errors"
	"html/template"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/collect"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/login"
	"github.com/counterseal/counterseal/internal/pipeline"
)

//go:embed templates static openapi.json
var files embed.FS

// Options of a server.
type Options struct {
	Pipeline *pipeline.Pipeline
	Gate     Gate
	// Ingest and Bulk are the ways in that collect offers.
	Ingest http.Handler
	Bulk   http.Handler
	// Import reads files on this machine.
	Import func(context.Context, ImportRequest, func(collect.Progress)) (collect.Report, error)
	// Checks are what other parts tell the doctor; nil: nothing.
	Checks func(context.Context) ([]pipeline.Check, error)
	// Public tells what the page for everybody shows; nil: there is no such page.
	Public func(context.Context) (*PublicFacts, error)
	// People is the page of one's own, and complaints.
	People People
	// Acts are what a person may do beside asking, by name.
	Acts map[string]Act
	Log  *slog.Logger
	// Version is shown by status.
	Version string
	// Demo marks a data directory whose keys are public; Story is what the start
	// page tells of it; nil: nothing.
	Demo  bool
	Story func() []StoryLine
	// Collectors are metrics of other parts.
	Collectors []prometheus.Collector
	Now        func() time.Time
}

// StoryLine is a sentence of the start page, and a question that it leads to.
type StoryLine struct{ Text, Query string }

// Server holds the handlers.
type Server struct {
	o        Options
	log      *slog.Logger
	now      func() time.Time
	page     *template.Template
	registry *prometheus.Registry
	counts   access.Memory // that askers were shown

	complaints hourly // how many came

	listing sync.Mutex
	listed  map[string]*access.Heads // guarded by listing: whom the rows of an authorisation have shown

	mu       sync.Mutex
	once     [32]byte // digest of the one-time secret; zero when it was used
	sessions map[[32]byte]time.Time

	strangers   int // refused since strangersAt and not stated
	strangersAt time.Time
}

// sessionLife bounds a session that the one-time secret began.
const sessionLife = 12 * time.Hour

const cookieName = "counterseal"

// noticeHeader carries what the asker should know beside the answer: why it is in counts,
// what opened it.
const noticeHeader = "Counterseal-Notice"

// New makes a server.
func New(o Options) (*Server, error) {
	s := &Server{o: o, log: o.Log, now: o.Now, sessions: make(map[[32]byte]time.Time)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	var err error
	if s.page, err = template.ParseFS(files, "templates/*.html"); err != nil {
		return nil, err
	}
	s.registry = prometheus.NewRegistry()
	if err := s.registry.Register(&collector{s: s}); err != nil {
		return nil, err
	}
	for _, c := range o.Collectors {
		if err := s.registry.Register(c); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// OneTime makes a new one-time secret and forgets the one before.
func (s *Server) OneTime() string {
	text := rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.once = sha256.Sum256([]byte(text))
	return text
}

// Socket is the handler for run/api.sock: whoever may open the socket may ask.
func (s *Server) Socket() http.Handler {
	return s.mux(func(*http.Request) bool { return true }, atSocket)
}

// People is the handler for those who logged in; whoever serves it puts them into the
// context of the request (login.Service.Middleware) and guards what sends records.
func (s *Server) People() http.Handler {
	return s.mux(func(r *http.Request) bool { _, ok := login.From(r.Context()); return ok }, atLogin)
}

// place is where a handler answers.
type place int

const (
	atSocket place = iota
	atLoopback
	atLogin
)

// offers says whether a route is there at a place.
func (p place) offers(rt route) bool {
	switch rt.door {
	case socketOnly:
		return p == atSocket
	case people:
		return p != atLoopback
	}
	return p != atLogin || rt.pattern != "GET /enter" // a login has no one-time secret
}

// Loopback is the handler for a loopback address.
func (s *Server) Loopback() http.Handler {
	guard := http.NewCrossOriginProtection()
	guard.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		problem(w, http.StatusForbidden, "refused", "another site made a browser send this", "")
	}))
	inner := s.mux(s.known, atLoopback)
	guarded := guard.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !localHost(r.Host) {
			problem(w, http.StatusMisdirectedRequest, "refused", "this server answers to localhost alone", "")
			return
		}
		inner.ServeHTTP(w, r)
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		headers(w.Header()) // on refusals too
		guarded.ServeHTTP(w, r)
	})
}

// localHost accepts the names under which a browser on this machine may ask: a
// name that some DNS points here is refused.
func localHost(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	if name == "localhost" {
		return true
	}
	if len(name) > 1 && name[0] == '[' && name[len(name)-1] == ']' {
		name = name[1 : len(name)-1]
	}
	ip := net.ParseIP(name)
	return ip != nil && ip.IsLoopback()
}

func (s *Server) mux(allowed func(*http.Request) bool, where place) http.Handler {
	mux := http.NewServeMux()
	for _, rt := range s.routes() {
		if !where.offers(rt) {
			continue
		}
		mux.HandleFunc(rt.pattern, func(w http.ResponseWriter, r *http.Request) {
			headers(w.Header())
			if (rt.door == secret || rt.door == people) && !allowed(r) {
				switch {
				case where == atLogin && r.URL.Path == "/":
					http.Redirect(w, r, "/login/", http.StatusSeeOther)
				case where == atLogin:
					problem(w, http.StatusUnauthorized, "unauthorized", "this needs a session, and none came or it has ended", "sign in: at /login/ in a browser, with counterseal login at a terminal")
				default:
					s.refuseStranger(w, r)
				}
				return
			}
			if rt.act == byName && onMachine[r.PathValue("act")] && where != atSocket {
				problem(w, http.StatusForbidden, "refused", "this act names files of the server's machine", "do it there, by the socket")
				return
			}
			a := &answerWriter{ResponseWriter: w}
			if rt.look {
				r = s.recorded(a, r, rt.pattern)
			}
			defer func() { a.look.answered() }() // also of an answer that is broken off
			if err := s.through(a, r, rt); err != nil {
				s.fail(a, r, err)
			}
			a.end()
		})
	}
	return mux
}

// through asks the decision point, and lets the handler answer.
func (s *Server) through(a *answerWriter, r *http.Request, rt route) error {
	if rt.act == "" || rt.door == ingests {
		return rt.handle(a, r)
	}
	act := rt.act
	if act == byName {
		name := r.PathValue("act")
		if s.o.Acts[name] == nil {
			return &badRequest{"there is no such act", ""}
		}
		act = action(name)
	}
	p, err := s.permit(r, act)
	a.permit = p
	if err != nil {
		return err
	}
	r = r.WithContext(context.WithValue(r.Context(), permitKey{}, p))
	if !rt.events && !judging[act] {
		if err := s.house(p, act); err != nil {
			return err
		}
	}
	if !rt.look {
		return rt.handle(a, r)
	}
	out := s.o.Gate.Aliases.Writer(context.WithoutCancel(r.Context()), a, p.view)
	if err := rt.handle(&aliased{answerWriter: a, out: out}, r); err != nil {
		return err
	}
	return out.Close()
}

// aliased shows aliases where the handler writes tokens.
type aliased struct {
	*answerWriter
	out io.Writer
}

func (w *aliased) Write(b []byte) (int, error) {
	if len(b) == 0 { // begins the answer
		return w.answerWriter.Write(b)
	}
	w.look.people.take(b)
	return w.out.Write(b)
}

// answerWriter knows whether an answer has begun, and lets it begin only when the
// ledger has the request.
type answerWriter struct {
	http.ResponseWriter
	begun    bool
	look     *look // nil: the route is no look
	permit   *permit
	unstated bool // the ledger does not have it: something else was answered
}

func (a *answerWriter) WriteHeader(status int) {
	if a.begun {
		return
	}
	a.begun = true
	if a.permit != nil && !a.permit.judged && status < http.StatusBadRequest { // a defect of ours never shows anything
		a.unstated = true
		a.look.s.log.Error("an answer was stopped", "path", a.look.route, "err", errUnjudged)
		problem(a.ResponseWriter, http.StatusInternalServerError, "internal", errUnjudged.Error(), "")
		return
	}
	if a.permit != nil {
		for _, n := range a.permit.notices {
			a.Header().Add(noticeHeader, n)
		}
	}
	if a.look != nil {
		a.look.permit = a.permit
		if err := a.look.state(status); err != nil {
			a.unstated = true
			a.look.s.log.Error("a request was not answered: the ledger could not take it", "path", a.look.route, "err", err)
			for name := range a.Header() {
				if name != "Content-Security-Policy" && name != "Cache-Control" && name != "X-Content-Type-Options" {
					a.Header().Del(name)
				}
			}
			a.Header().Set("Retry-After", "30")
			problem(a.ResponseWriter, http.StatusServiceUnavailable, "ledger", errUnstated.Error(), "counterseal doctor says why; nothing is answered that cannot be recorded")
			return
		}
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answerWriter) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	if a.unstated {
		return 0, errUnstated
	}
	return a.ResponseWriter.Write(b)
}

// FlushError sends what was written; the answer begins no other way than by WriteHeader.
func (a *answerWriter) FlushError() error {
	a.WriteHeader(http.StatusOK)
	if a.unstated {
		return errUnstated
	}
	return http.NewResponseController(a.ResponseWriter).Flush()
}

// end begins an answer that the handler left empty.
func (a *answerWriter) end() { a.WriteHeader(http.StatusOK) }

// Unwrap lets http.ResponseController reach the connection.
func (a *answerWriter) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func headers(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

func (s *Server) refuseStranger(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/" {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(http.StatusUnauthorized)
		if err := s.page.ExecuteTemplate(w, "stranger.html", nil); err != nil {
			s.log.Error("page", "err", err)
		}
		return
	}
	problem(w, http.StatusUnauthorized, "unauthorized", "this needs a session", "open the address that `counterseal serve` printed, or use run/api.sock")
}

// known reports whether the request carries a live session.
func (s *Server) known(r *http.Request) bool {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return false
	}
	sum := sha256.Sum256([]byte(c.Value))
	s.mu.Lock()
	defer s.mu.Unlock()
	until, ok := s.sessions[sum]
	if ok && s.now().After(until) {
		delete(s.sessions, sum)
		ok = false
	}
	return ok
}

// enter exchanges the one-time secret for a session.
func (s *Server) enter(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet { // a HEAD of a preview must not use the secret up
		w.WriteHeader(http.StatusMethodNotAllowed)
		return nil
	}
	sum := sha256.Sum256([]byte(r.URL.Query().Get("once")))
	s.mu.Lock()
	ok := s.once != ([32]byte{}) && subtle.ConstantTimeCompare(sum[:], s.once[:]) == 1
	var text string
	if ok {
		s.once = [32]byte{}
		text = rand.Text() + rand.Text()
	}
	s.mu.Unlock()
	if !ok {
		s.log.Warn("a wrong or used one-time secret was presented")
		if err := s.login(r, "", "wrong-or-used"); err != nil {
			return err
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(http.StatusForbidden)
		return s.page.ExecuteTemplate(w, "stranger.html", nil)
	}
	if err := s.login(r, sessionActor(text), ""); err != nil {
		return err
	}
	s.mu.Lock()
	s.sessions[sha256.Sum256([]byte(text))] = s.now().Add(sessionLife)
	s.mu.Unlock()
	http.SetCookie(w, &http.Cookie{Name: cookieName, Value: text, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, MaxAge: int(sessionLife / time.Second)})
	// A page that goes on by itself: a redirect would be another site's request to
	// a strict cookie when the address was clicked in a chat or a mail.
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Refresh", "0; url=/")
	return s.page.ExecuteTemplate(w, "entered.html", nil)
}

func (s *Server) static(w http.ResponseWriter, r *http.Request) error {
	sub, err := fs.Sub(files, "static")
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-cache")
	http.StripPrefix("/static/", http.FileServerFS(sub)).ServeHTTP(w, r)
	return nil
}

func (s *Server) ingest(w http.ResponseWriter, r *http.Request) error {
	s.o.Ingest.ServeHTTP(w, r)
	return nil
}

func (s *Server) bulk(w http.ResponseWriter, r *http.Request) error {
	s.o.Bulk.ServeHTTP(w, r)
	return nil
}

// badRequest is an error of the asker, with a stable code.
type badRequest struct{ text, hint string }

func (e *badRequest) Error() string { return e.text }

// fail is the one place that turns errors into answers: a safe sentence for the
// asker, the detail for the log. An answer that has begun is broken off, so that
// nobody takes a part for the whole.
func (s *Server) fail(w *answerWriter, r *http.Request, err error) {
	if w.unstated { // answered already
		return
	}
	if w.begun {
		if r.Context().Err() == nil {
			s.log.Error("an answer was broken off", "path", r.Pattern, "err", err)
		}
		panic(http.ErrAbortHandler)
	}
	var bad *badRequest
	var refusal *event.Refusal
	var no *Refused
	switch {
	case errors.As(err, &bad):
		problem(w, http.StatusBadRequest, "bad_request", bad.text, bad.hint)
	case errors.As(err, &no):
		problem(w, http.StatusForbidden, "refused", no.Reason, no.Hint)
	case errors.Is(err, attest.ErrNoWitness):
		problem(w, http.StatusForbidden, "unwitnessed", "this act must be witnessed, and no witness is configured", "run counterseal witness on another host and name it under `witnesses`")
	case errors.Is(err, ledger.ErrUnwitnessed):
		problem(w, http.StatusServiceUnavailable, "unwitnessed", "no witness has cosigned the statement, so the act was not done", "counterseal doctor says what the witnesses do; then ask again")
	case errors.As(err, &refusal):
		if refusal.After > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int((refusal.After+time.Second-1)/time.Second)))
		}
		problem(w, http.StatusServiceUnavailable, refusal.Code, refusal.Reason, refusal.Hint)
	case r.Context().Err() != nil:
	default:
		id := rand.Text()[:8]
		s.log.Error("request failed", "path", r.Pattern, "id", id, "err", err)
		problem(w, http.StatusInternalServerError, "internal", "something went wrong; the log of the server has it as "+id, "")
	}
}

// problem writes an RFC 9457 answer.
func problem(w http.ResponseWriter, status int, code, detail, hint string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Code   string `json:"code"`
		Detail string `json:"detail"`
		Hint   string `json:"hint,omitempty"`
	}{"about:blank", http.StatusText(status), status, code, detail, hint})
}

func sendJSON(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}
