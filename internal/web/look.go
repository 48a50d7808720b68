package web

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/login"
	"github.com/counterseal/counterseal/internal/oversight"
)

// actorKey is the key of the actor in the context of a request.
type actorKey struct{}

// WithActor says who asks: for the server of the socket, which knows the user at the
// other end, and for commands that ask in their own process.
func WithActor(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// actor is who asks: whoever signed in, else the user at the socket or the session of a
// browser.
func (s *Server) actor(r *http.Request) string {
	if w, ok := login.From(r.Context()); ok {
		return "account:" + w.Account.ID
	}
	if a, ok := r.Context().Value(actorKey{}).(string); ok {
		return a
	}
	if c, err := r.Cookie(cookieName); err == nil {
		return sessionActor(c.Value)
	}
	return "nobody"
}

// sessionActor names a session by the beginning of its digest, which opens nothing.
func sessionActor(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return "session:" + hex.EncodeToString(sum[:4])
}

// actRoute begins the routes whose bodies are not kept: an act keeps what it must in its
// own statements.
const actRoute = "POST /api/v1/acts/"

// keptBody is how much of the body of a request goes into its payload. The digest is
// of the whole.
const keptBody = 64 << 10

// question is what a request asked, kept beside the ledger: the leaf holds its salted
// digest alone.
type question struct {
	Route      string `json:"route"`
	Path       string `json:"path"`
	Query      string `json:"query,omitempty"`
	Body       []byte `json:"body,omitempty"`
	BodySHA256 string `json:"body_sha256,omitempty"`
	// Sealed is all of it, of an inspector's office: its two officers open it.
	Sealed []byte `json:"sealed,omitempty"`
	// Look is whom a look is about and who looked, for those who review it.
	Look *oversight.About `json:"look,omitempty"`
}

// look is one request of a person on its way into the ledger.
type look struct {
	s     *Server
	r     *http.Request
	route string
	body  []byte
	sum   hash.Hash // nil: no body was read

	permit *permit // nil: it came to no decision
	id     string  // of the statement, where it is a look that overseers review
	people heads   // that the answer shows
}

// watched is what overseers review of a request.
type watched struct {
	kind  string // oversight.People or oversight.Wide
	cover cases.Cover
	named []string
}

// watch remembers that a question was allowed: as a look at people where something covers
// it, as a wide one where it lists people and nothing does.
func (p *permit) watch(class access.Class, covered bool, named []access.Identity) {
	switch {
	case class == access.Nobody:
		return
	case covered:
		kind := oversight.People
		if p.person.Inspector {
			kind = oversight.Inspecting
		}
		if p.watched == nil || p.watched.kind != kind {
			p.watched = &watched{kind: kind, cover: p.cover}
		}
	case p.watched == nil:
		p.watched = &watched{kind: oversight.Wide}
	}
	for _, n := range named {
		if !slices.Contains(p.watched.named, n.Value) {
			p.watched.named = append(p.watched.named, n.Value)
		}
	}
}

// counted adds to the rows of the answer.
func (p *permit) counted(n int) {
	p.rows, p.sized = p.rows+n, true
}

// heads counts the tokens of different people in what is shown, of devices and addresses
// where there are none of people.
type heads struct {
	tail            []byte // the end of what came, which may begin a token
	people, devices map[string]bool
}

// enough is more than oversight.PeopleClass tells apart, and how many are told at most that
// one answer showed them.
const enough = 1000

func (h *heads) take(b []byte) {
	if h.people == nil {
		h.people, h.devices = map[string]bool{}, map[string]bool{}
	}
	text := append(h.tail, b...)
	for at := 0; len(h.people) < enough && at < len(text); {
		from, to := event.NextToken(text[at:])
		if from < 0 {
			break
		}
		token := string(text[at+from : at+to])
		switch k := event.TokenKind(token[0]); {
		case k == event.Person || k == event.Mail:
			h.people[token] = true
		case len(h.devices) < enough:
			h.devices[token] = true
		}
		at += to
	}
	h.tail = append(h.tail[:0], text[max(0, len(text)-40):]...)
}

// tokens are those that count counts.
func (h *heads) tokens() []string {
	if len(h.people) > 0 {
		return slices.Sorted(maps.Keys(h.people))
	}
	return slices.Sorted(maps.Keys(h.devices))
}

func (h *heads) count() int {
	if len(h.people) > 0 {
		return len(h.people)
	}
	return len(h.devices)
}

// answered states how much a look at people showed, when its answer has ended or was broken
// off. The look itself stands in the ledger from before it began. What is missing here was
// cut off by the end of the process: the queue says that nobody knows.
func (l *look) answered() {
	if l == nil || l.id == "" {
		return
	}
	rows := -1
	if l.permit.sized {
		rows = oversight.RowClass(l.permit.rows)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.r.Context()), 10*time.Second)
	defer cancel()
	_, err := l.s.o.Pipeline.Recorder().Record(ctx, attest.Act{Kind: "look.answered", Actor: l.permit.actor, Purpose: l.permit.purpose, Subject: []string{l.id},
		Detail: map[string]any{"look": l.id, "rows": rows, "people": oversight.PeopleClass(l.people.count())}})
	if err != nil {
		l.s.log.Error("how much a look showed could not be stated", "err", err)
		return
	}
	l.s.o.Gate.Oversight.Stated(ctx, "look.answered", l.id)
	w := l.permit.watched
	keep, tokens := l.s.o.Gate.Shown, l.people.tokens()
	if keep == nil || len(tokens) == 0 || w.cover.Kind != cases.KindAuthorisation || !strings.Contains(l.permit.selects, access.Reverse.String()) {
		return
	}
	if err := keep(ctx, l.permit.actor, l.id, w.cover.ID, tokens); err != nil {
		l.s.log.Error("whom an answer showed could not be kept for their notice", "err", err)
	}
}

// recorded makes a request whose answer does not begin before the ledger has it.
func (s *Server) recorded(a *answerWriter, r *http.Request, route string) *http.Request {
	l := &look{s: s, r: r, route: route}
	if r.Body != nil && r.Body != http.NoBody {
		l.sum = sha256.New()
		r = r.WithContext(r.Context())
		keep := keptBody
		if strings.HasPrefix(route, actRoute) { // it may carry what must never lie on the disk of the server
			keep = 0
		}
		r.Body = &keeper{ReadCloser: r.Body, l: l, keep: keep}
	}
	a.look = l
	return r
}

// keeper remembers what is read of a body.
type keeper struct {
	io.ReadCloser
	l    *look
	keep int // bytes; the rest goes into the digest alone
}

func (k *keeper) Read(b []byte) (int, error) {
	n, err := k.ReadCloser.Read(b)
	k.l.sum.Write(b[:n])
	k.l.body = append(k.l.body, b[:min(n, k.keep-len(k.l.body))]...)
	return n, err
}

// state puts the request into the ledger.
func (l *look) state(status int) error {
	q := question{Route: l.route, Path: l.r.URL.Path, Query: l.r.URL.RawQuery, Body: l.body}
	if l.sum != nil {
		q.BodySHA256 = hex.EncodeToString(l.sum.Sum(nil))
	}
	p := l.permit
	seen := p != nil && p.watched != nil && p.decision.Allow && status < http.StatusBadRequest
	if seen && p.watched.kind != oversight.Inspecting {
		about := oversight.AboutOf(l.s.o.Gate.Offices(), p.person.ID, p.watched.named)
		q.Look = &about
	}
	payload, err := json.Marshal(q)
	if err != nil {
		return err
	}
	if office := l.s.inspects(l.r); office != "" {
		return l.stateInside(office, q, payload, status, seen)
	}
	rec := l.s.o.Pipeline.Recorder()
	// Who has gone may have seen a part of the answer: the statement is made all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.r.Context()), 10*time.Second)
	defer cancel()
	digest, err := rec.Ledger().PutPayload(payload)
	if err != nil {
		return err
	}
	act := attest.Act{Kind: "request.served", Actor: l.s.actor(l.r)}
	detail := map[string]any{"route": l.route, "status": status, "question": digest}
	if p != nil {
		act.Actor, act.Purpose = p.actor, p.purpose
		detail["act"], detail["policies"] = p.act, strings.Join(p.decision.Policies, " ")
		for name, text := range map[string]string{"selects": p.selects, "office": p.person.Office, "cover": p.cover.ID} {
			if text != "" {
				detail[name] = text
			}
		}
		if p.cells {
			detail["counts"] = true
		}
		if p.judged && !p.decision.Allow {
			act.Kind, detail["rule"] = "request.refused", strings.Join(p.decision.Policies, " ")
		}
	}
	queued := false
	if seen {
		if act.ID, err = uuid.NewV7(); err != nil {
			return err
		}
		detail["look"] = p.watched.kind
		queued = p.watched.kind == oversight.People || p.watched.kind == oversight.Wide && oversight.Drawn(act.ID)
		for name, text := range map[string]string{"cover": p.watched.cover.ID, "covered_by": p.watched.cover.Kind, "case": p.caseID, "purpose": p.purpose} {
			if text != "" {
				detail[name] = text
			}
		}
	}
	if queued { // found again by its id
		act.Subject = []string{act.ID.String()}
	}
	act.Detail = detail
	if _, err = rec.Record(ctx, act); err != nil || !queued {
		return err
	}
	l.s.o.Gate.Oversight.Stated(ctx, act.Kind, act.Subject[0])
	if p.watched.kind == oversight.People {
		l.id = act.Subject[0]
	}
	return nil
}

// stateInside puts a request of an inspector's office into the ledger. Everybody reads that
// it was made, through which route, by which office; whom and what case it was about lies
// there under the keys of that office, or nowhere.
func (l *look) stateInside(office string, q question, whole []byte, status int, seen bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.r.Context()), 10*time.Second)
	defer cancel()
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	bare := question{Route: q.Route}
	if keep := l.s.o.Gate.Inside; keep != nil {
		if bare.Sealed, err = keep(office, id.String(), whole); err != nil {
			return err
		}
	}
	payload, err := json.Marshal(bare)
	if err != nil {
		return err
	}
	rec := l.s.o.Pipeline.Recorder()
	digest, err := rec.Ledger().PutPayload(payload)
	if err != nil {
		return err
	}
	detail := map[string]any{"route": l.route, "status": status, "question": digest, "office": office, "inspector": true}
	act := attest.Act{ID: id, Kind: "request.served", Actor: "office:" + office, Detail: detail}
	if p := l.permit; p != nil {
		if p.act != "" {
			detail["act"] = p.act
		}
		if p.judged && !p.decision.Allow {
			act.Kind, detail["rule"] = "request.refused", strings.Join(p.decision.Policies, " ")
		}
	}
	if seen {
		detail["look"] = oversight.Inspecting
	}
	_, err = rec.Record(ctx, act)
	return err
}

// inspects names the inspector's office of who asks, empty for everybody else. It holds for
// a request that came to no decision too.
func (s *Server) inspects(r *http.Request) string {
	offices := s.o.Gate.Offices()
	if offices == nil {
		return ""
	}
	id := s.personID(r)
	for _, held := range offices.Held(id) {
		if p, ok := offices.Person(held); ok && p.Inspector {
			return held
		}
	}
	return ""
}

// personID is who asks as policies know them: an account, or a user of this machine.
func (s *Server) personID(r *http.Request) string {
	if w, ok := login.From(r.Context()); ok {
		return w.Account.ID
	}
	if who, ok := strings.CutPrefix(s.actor(r), "os:"); ok {
		return "os-" + who
	}
	return s.o.Gate.Owner
}

// login states that a session begins, or that somebody was turned away.
func (s *Server) login(r *http.Request, session, reason string) error {
	act := attest.Act{Kind: "login.accepted", Actor: session, Detail: map[string]any{"way": "one-time-secret"}}
	if reason != "" {
		// Whoever reaches the address can be refused as often as they like: the ledger hears
		// it once a minute, with how often.
		s.mu.Lock()
		s.strangers++
		n, now := s.strangers, s.now()
		due := now.Sub(s.strangersAt) >= time.Minute || now.Before(s.strangersAt)
		if due {
			s.strangers, s.strangersAt = 0, now
		}
		s.mu.Unlock()
		if !due {
			return nil
		}
		act = attest.Act{Kind: "login.refused", Actor: "nobody", Detail: map[string]any{"way": "one-time-secret", "reason": reason, "times": n}}
	} else {
		act.Subject = []string{session}
	}
	_, err := s.o.Pipeline.Recorder().Record(context.WithoutCancel(r.Context()), act)
	return err
}

// errUnstated says that a request was not answered, since the ledger does not have it.
var errUnstated = errors.New("the ledger could not take the request, so it is not answered")

// Act does what a person asks for over the socket and gives what is answered as JSON.
// It makes its own statements before it does anything. A *Refused and an error that
// wraps ledger.ErrUnwitnessed are told to the asker.
type Act func(ctx context.Context, actor string, body []byte) (any, error)

// Refused says to the asker why an act is not done and what to do next. It names no
// person.
type Refused struct{ Reason, Hint string }

func (e *Refused) Error() string { return e.Reason }

// BadRequest is an error of the asker, with what to do next.
func BadRequest(text, hint string) error { return &badRequest{text, hint} }

// maxAct bounds what an act is given: originals to parse again are the largest.
const maxAct = 32 << 20

// act hands a request to the act of its name.
func (s *Server) act(w http.ResponseWriter, r *http.Request) error {
	do := s.o.Acts[r.PathValue("act")]
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAct))
	if err != nil {
		return &badRequest{"the request is too large or was broken off", ""}
	}
	answer, err := do(r.Context(), permitOf(r.Context()).actor, body)
	if err != nil {
		return err
	}
	return sendJSON(w, answer)
}
