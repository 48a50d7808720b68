package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/alias"
	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/index"
	"github.com/counterseal/counterseal/internal/login"
	"github.com/counterseal/counterseal/internal/oversight"
	"github.com/counterseal/counterseal/internal/policy"
	"github.com/counterseal/counterseal/internal/query"
)

// Gate is what the decision point asks: every request of a person or a machine passes
// it once, before anything is read.
type Gate struct {
	// Policy is the set of policies in force.
	Policy func() *policy.Set
	// Offices is the record of who is in office; nil: none is configured, and the owner of
	// the machine is the founder.
	Offices func() *policy.Offices
	// Held reports that a record of offices was in force once: taken away, it makes the
	// owner of the machine no founder again. nil: there was none.
	Held func() bool
	// Access is what Selects has to know.
	Access func() access.Options
	// Purposes are the codes that the assessments in force declare.
	Purposes func() []string
	Cases    *cases.Book
	// Watching gives the digests of the rules whose findings somebody does not see: rules
	// that select people under an authorisation which is not theirs. nil: there are none.
	Watching func(ctx context.Context, person string) ([]string, error)
	// Inside seals what an inspector's office asked to the keys of that office, for the id of
	// a statement; nil: it is not kept.
	Inside func(office, id string, asked []byte) ([]byte, error)
	// Shown keeps whom an answer under an authorisation that lists people showed, until they
	// are told; nil: nobody does.
	Shown func(ctx context.Context, actor, look, authorisation string, tokens []string) error
	// Oversight watches the looks; nil: nobody does, as before anybody is in office.
	Oversight *oversight.Book
	Aliases   *alias.Book
	// Owner is the person id of the user who runs the server: os-1000.
	Owner string
	// Team names whoever works together outside of a case: they see the same aliases.
	Team string
}

// founder is the role of the machine's owner while nobody is in office.
const founder = "founder"

// permit is what the decision point says of one request.
type permit struct {
	act    string
	actor  string // as the ledger names the asker
	person policy.Person
	// machine is set for a token, which may do what its scopes name.
	machine bool
	scopes  []string
	fresh   bool // the login is young enough to decide

	purpose, caseID string
	view            alias.Scope

	selects  string
	cover    cases.Cover
	decision policy.Decision
	judged   bool
	cells    bool // counts only
	veil     access.Veiling
	notices  []string
	watched  *watched // what overseers review; nil: nothing
	rows     int      // of the answer
	sized    bool     // the rows were counted
}

type permitKey struct{}

// permitOf gives what was decided about a request.
func permitOf(ctx context.Context) *permit {
	p, _ := ctx.Value(permitKey{}).(*permit)
	if p == nil { // a route without an act shows nothing that needs one
		p = &permit{}
	}
	return p
}

// Asker is who asks, for acts that decide by person.
type Asker struct {
	Person policy.Person
	Actor  string
	Case   string
	Fresh  bool // logged in within login.Fresh, or the owner of the machine
}

// OfficeHeader names the office in which somebody asks who holds more than one; without
// it, that is their first in the record.
const OfficeHeader = "Counterseal-Office"

// AskerOf tells an act who asks.
func AskerOf(ctx context.Context) Asker {
	p := permitOf(ctx)
	return Asker{Person: p.person, Actor: p.actor, Case: p.caseID, Fresh: p.fresh}
}

// asks finds who asks: the account of a session or of a token, else the owner of the
// machine, who alone can open the socket and read the one-time secret. A refusal comes with
// whom it refuses.
func (s *Server) asks(r *http.Request) (*permit, error) {
	g := &s.o.Gate
	p := &permit{actor: s.actor(r)}
	id := s.personID(r)
	var roles []string
	if w, ok := login.From(r.Context()); ok {
		roles = w.Account.Roles
		p.machine, p.scopes = w.Session == "", w.Scopes
		p.fresh = w.Session != "" && s.now().Sub(w.Since) <= login.Fresh
	} else {
		p.fresh = true
	}
	offices := g.Offices()
	named := r.Header.Get(OfficeHeader)
	if offices == nil {
		if named != "" {
			return p.unheld(), &Refused{"no record of offices is in force, so nobody holds the office that is named", "leave out --office and COUNTERSEAL_OFFICE, or begin a record: counterseal offices init"}
		}
		switch {
		case s.wasHeld() && s.owner(r) && id == g.Owner:
			p.person = policy.Person{ID: id, Roles: []string{"operator"}}
		case s.wasHeld():
			p.person = policy.Person{ID: id, Roles: outOfOffice(roles)}
		case s.owner(r):
			p.person = policy.Person{ID: id, Roles: []string{founder}}
		default:
			p.person = policy.Person{ID: id, Roles: roles}
		}
		return p, nil
	}
	roles = outOfOffice(roles)
	p.person = policy.Person{ID: id, Roles: roles}
	all := offices.Held(id)
	held := named // the one that they name, or the first of theirs
	switch {
	case named == "" && len(all) > 0:
		held = all[0]
	case named != "" && !slices.Contains(all, named):
		if len(all) == 0 {
			return p.unheld(), &Refused{"who asks holds no office, so not the one that is named either", "leave out --office and COUNTERSEAL_OFFICE"}
		}
		return p.unheld(), &Refused{"who asks does not hold the office that is named", "name one of yours with --office: " + strings.Join(all, ", ")}
	}
	switch {
	case held != "":
		person, ok := offices.Person(held)
		if !ok {
			return nil, fmt.Errorf("office %s has no holder", held)
		}
		for _, role := range roles {
			if !slices.Contains(person.Roles, role) {
				person.Roles = append(person.Roles, role)
			}
		}
		p.person = person
	case s.owner(r) && id == g.Owner:
		p.person.Roles = []string{"operator"} // who runs the machine keeps it running
	}
	return p, nil
}

// wasHeld reports that people were in office before.
func (s *Server) wasHeld() bool { return s.o.Gate.Held != nil && s.o.Gate.Held() }

// seats are the roles that watch, decide, or ask for names. Where there is a record of
// offices it alone gives them: an account is made by one person, or by a provider.
var seats = []string{"overseer", "privacy_officer", "investigator"}

// outOfOffice gives the roles of an account that it has by itself.
func outOfOffice(roles []string) (out []string) {
	for _, r := range roles {
		if !slices.Contains(seats, r) {
			out = append(out, r)
		}
	}
	return out
}

// unheld is what the ledger has of somebody who names an office that they do not hold.
func (p *permit) unheld() *permit {
	p.judged, p.decision = true, policy.Decision{Policies: []string{"office"}}
	return p
}

// owner reports a request by the socket or by the one-time secret: no login.
func (s *Server) owner(r *http.Request) bool {
	_, ok := login.From(r.Context())
	return !ok
}

// permit begins the decision about a request: who, why, in which case.
func (s *Server) permit(r *http.Request, act string) (*permit, error) {
	p, err := s.asks(r)
	if p != nil {
		p.act = act
	}
	if err != nil {
		return p, err
	}
	v := r.URL.Query()
	p.caseID, p.purpose = v.Get("case"), v.Get("purpose")
	if err := checkCase(p.caseID); err != nil {
		return nil, err
	}
	codes := s.o.Gate.Purposes()
	switch {
	case p.purpose == "" && len(codes) == 1: // there is nothing to choose
		p.purpose = codes[0]
	case p.purpose != "" && !slices.Contains(codes, p.purpose):
		return nil, &badRequest{"no assessment in force declares this purpose", "the purposes are: " + strings.Join(codes, ", ")}
	}
	if p.purpose == "" && saysWhy[act] {
		p.purpose = "as-requested"
	}
	p.view = alias.Scope{Case: p.caseID, Team: s.o.Gate.Team, Day: s.now().UTC().Format(time.DateOnly)}
	return p, nil
}

// saysWhy are the acts whose own request states the purpose: the officers read it, and
// it counts also where no assessment is in force.
var saysWhy = map[string]bool{"unlock.request": true, "unmask.request": true, "name.request": true, "duty.ask": true, "erase.request": true, "package.create": true}

// checkCase bounds what names a case.
func checkCase(id string) error {
	if len(id) > 64 || strings.ContainsFunc(id, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
	}) {
		return &badRequest{"a case is named by at most 64 letters, digits, dots and dashes", ""}
	}
	return nil
}

// request fills in what every decision has.
func (s *Server) request(p *permit, act string, res policy.Resource) policy.Request {
	kept := "kept"
	if s.o.Gate.Offices() == nil && !s.wasHeld() {
		kept = "none"
	}
	return policy.Request{
		Principal: p.person, Action: act, Resource: res,
		Context: policy.Context{Now: s.now(), Offices: kept, Purpose: p.purpose, Machine: p.machine, Scopes: p.scopes, Crowd: string(access.CrowdNone)},
	}
}

// house decides about an act that asks for no events.
func (s *Server) house(p *permit, act string) error {
	p.act, p.judged = act, true
	res := policy.Resource{}
	if act == "retention.run" {
		res.Hold = "free" // what a hold keeps is left out, segment by segment: internal/lifecycle
	}
	p.decision = s.o.Gate.Policy().Decide(s.request(p, act, res))
	if p.decision.Allow {
		return nil
	}
	return s.refusal(p, nil)
}

// may tells whether the asker could ask about events that select nobody, for a page that
// shows some beside other things.
func (s *Server) may(p *permit, act string) bool {
	return s.o.Gate.Policy().Decide(s.request(p, act, policy.Resource{Selects: access.Nobody.String()})).Allow
}

// judge decides about a question before it runs, and bounds it by what covers it.
// An answer in counts sets p.cells: who can show rows alone refuses then.
func (s *Server) judge(ctx context.Context, p *permit, act string, q access.Question, a *asked) error {
	p.act, p.judged = act, true
	if err := s.unwatch(ctx, p, a); err != nil {
		return err
	}
	p.cover, p.cells, p.veil = cases.Cover{}, false, access.Veiling{} // of the question before
	o, err := s.access(ctx, p)
	if err != nil {
		return err
	}
	v := access.Selects(q, o)
	p.selects = v.Class.String()
	if v.Protected {
		p.selects = "protected"
	}
	req := s.request(p, act, policy.Resource{Selects: p.selects})
	req.Context.Crowd, req.Context.Finding = string(v.Crowd()), v.Finding
	if v.Class != access.Nobody && !v.Protected {
		cover, err := s.o.Gate.Cases.Covers(ctx, p.person, p.caseID, cases.Question{
			Named: access.Named(q, o), Verdict: v, From: a.scope.From, To: a.scope.To,
			Confined: func(covered func(access.Identity) bool) bool { return access.Covers(q, o, covered) },
		})
		if err != nil {
			return err
		}
		p.cover = cover
		req.Context.Authorisation, req.Context.Grant = cover.Authorisation, cover.Grant
		req.Context.Counsel, req.Context.Outside = cover.Counsel, cover.Outside
	}
	var heads *access.Heads
	if v.Crowd() == access.CrowdMany && (p.cover.Authorisation == cases.Covers || v.Finding) {
		var err error
		if heads, err = s.heads(ctx, q, o, a, p.cover.Scope); err != nil {
			return err
		}
		if heads != nil { // questions by the hour are one question
			s.listing.Lock()
			defer s.listing.Unlock()
			heads.Join(s.listed[p.cover.ID])
			req.Context.Crowd = string(heads.Crowd())
		}
	}
	set := s.o.Gate.Policy()
	p.decision = set.Decide(req)
	covered := p.cover.Authorisation == cases.Covers || p.cover.Grant == cases.Covers
	if !p.decision.Allow && v.Class.Has(access.Reverse) && !v.Protected {
		// Whom it lists is not shown; how many there are may be.
		counts := req
		counts.Action, counts.Context.Crowd = "search.count", string(v.Crowd()) // a count shows none of them
		if d := set.Decide(counts); d.Allow {
			opens := "an authorisation opens the rows"
			if covered { // but not for so many
				opens = "under the authorisation the rows are not shown: " + p.decision.Reason
			}
			p.decision, p.cells, covered = d, true, false
			p.notices = append(p.notices, "this question lists people by what they did, so it is answered in counts of people, 8 or more: "+opens)
		}
	}
	if !p.decision.Allow {
		if v.Protected {
			if err := s.o.Gate.Cases.Report(ctx, p.person, p.caseID, "protected", a.query.String()); err != nil {
				return err
			}
		}
		return s.refusal(p, &v)
	}
	p.watch(v.Class, covered, access.Named(q, o))
	if !covered {
		p.cells = p.cells || v.Cells
		if v.Veil {
			p.veil = access.Veil(a.query)
		}
		return nil
	}
	if heads != nil && p.cover.Authorisation == cases.Covers {
		if s.listed == nil {
			s.listed = map[string]*access.Heads{}
		}
		s.listed[p.cover.ID] = heads
	}
	a.bound(p.cover.Scope)
	if p.cover.Notice != "" {
		p.notices = append(p.notices, p.cover.Notice)
	}
	return nil
}

// maxHeads bounds the rows in which people are counted before an answer.
const maxHeads = 500_000

// heads counts the people whom a question would show, inside of what covers it, where the
// question does not say how many. Where more rows than maxHeads tell of few people it
// stays unknown, nil, and the asker narrows the question.
func (s *Server) heads(ctx context.Context, q access.Question, o access.Options, a *asked, scope cases.Scope) (*access.Heads, error) {
	rows, ok := access.Rows(q)
	if !ok {
		return nil, nil
	}
	in := asked{query: rows, scope: a.scope}
	in.bound(scope)
	var heads access.Heads
	n := 0
	err := s.o.Pipeline.Index().Query(ctx, in.query, in.scope, maxHeads+1, func(r index.Row) bool {
		n++
		heads.Row(func(yield func(string, string) bool) {
			for _, f := range r.OCSF {
				if !yield(f.Name, f.Value) {
					return
				}
			}
			for _, f := range r.Native {
				if !yield("native."+f.Name, f.Value) {
					return
				}
			}
		}, o)
		return !heads.Full()
	})
	if err != nil || n > maxHeads && !heads.Full() {
		return nil, err
	}
	return &heads, nil
}

// nobody is a question that selects nobody.
func nobody() *query.Query {
	return &query.Query{Where: query.Equal{Field: "kind", Pattern: query.Literal("finding")}}
}

// JudgeRecord decides whether the asker of an act may have a sealed record: its proof
// alone, which tells nothing of it, or opened, by the people whom its row in the index
// names. Before anybody is in office the owner of the machine has the record anyway.
func (s *Server) JudgeRecord(ctx context.Context, ref string, opened bool) error {
	p := permitOf(ctx)
	a := asked{query: nobody()}
	if !opened || slices.Contains(p.person.Roles, founder) {
		return s.judge(ctx, p, p.act, access.Search{Query: a.query}, &a)
	}
	row := &query.Query{Where: query.Equal{Field: "ref", Pattern: query.Literal(ref)}}
	o, err := s.access(ctx, p)
	if err != nil {
		return err
	}
	people := query.OneOf{Field: "user.uid"}
	found, somebody, class := false, false, ""
	look := func(name, value string) {
		if name == "class_uid" {
			class = value
		}
		if id, ok := access.Canonical(name, value, o); ok {
			people.Of = append(people.Of, query.Literal(id.Value))
		}
		for rest := []byte(value); ; { // also inside of texts
			from, to := event.NextToken(rest)
			if from < 0 {
				break
			}
			people.Of = append(people.Of, query.Literal(string(rest[from:to])))
			rest = rest[to:]
		}
		somebody = somebody || access.Somebody(class, name, value, o)
	}
	err = s.o.Pipeline.Index().Query(ctx, row, index.Scope{}, 1, func(r index.Row) bool {
		found = true
		for _, f := range r.OCSF {
			look(f.Name, f.Value)
		}
		for _, f := range r.Native {
			look("native."+f.Name, f.Value)
		}
		return true
	})
	switch {
	case err != nil:
		return err
	case !found, somebody && len(people.Of) == 0:
		p.judged = true
		return &Refused{"nobody can tell whom this record is about: the index has no row of it, or none that names them", "name a record that a search shows; without --open its proof tells nothing of it"}
	case len(people.Of) > 0:
		a.query = &query.Query{Where: people}
	}
	return s.judge(ctx, p, p.act, access.Search{Query: a.query}, &a)
}

// unwatch keeps the findings of rules that watch people out of the answers to others than
// the authorisation of the rule names.
func (s *Server) unwatch(ctx context.Context, p *permit, a *asked) error {
	digests, err := s.watching(ctx, p)
	if err != nil || len(digests) == 0 {
		return err
	}
	hidden := query.OneOf{Field: "rule.digest"}
	for _, d := range digests {
		hidden.Of = append(hidden.Of, query.Literal(d))
	}
	where := query.Expr(query.Not{Of: hidden})
	if a.query.Where != nil {
		where = query.And{Of: []query.Expr{a.query.Where, where}}
	}
	seen := *a.query
	seen.Where = where
	a.query = &seen
	return nil
}

func (s *Server) watching(ctx context.Context, p *permit) ([]string, error) {
	if s.o.Gate.Watching == nil {
		return nil, nil
	}
	return s.o.Gate.Watching(ctx, p.person.ID)
}

// bound keeps a question inside of what covers it.
func (a *asked) bound(c cases.Scope) {
	if !c.From.IsZero() && a.scope.From.Before(c.From) {
		a.scope.From = c.From
	}
	if !c.To.IsZero() && (a.scope.To.IsZero() || a.scope.To.After(c.To)) {
		a.scope.To = c.To
	}
	if len(c.Sources) == 0 {
		return
	}
	in := query.OneOf{Field: "source"}
	for _, name := range c.Sources {
		in.Of = append(in.Of, query.Literal(name))
	}
	where := query.Expr(in)
	if a.query.Where != nil {
		where = query.And{Of: []query.Expr{a.query.Where, in}}
	}
	bounded := *a.query
	bounded.Where = where
	a.query = &bounded
}

// refusal says why a request is refused and what to do next. It names no person.
func (s *Server) refusal(p *permit, v *access.Verdict) error {
	reason := p.decision.Reason
	if reason == "" {
		reason = "no policy permits this"
	}
	if p.cover.Reason != "" {
		reason += "; " + p.cover.Reason
	}
	if v != nil && v.Class != access.Nobody {
		var why []string
		for _, r := range v.Reasons[:min(len(v.Reasons), 3)] {
			why = append(why, strings.TrimSpace(r.Field+" "+r.Why))
		}
		reason += " (the question selects " + p.selects + ": " + strings.Join(why, "; ") + ")"
	}
	return &Refused{Reason: reason, Hint: s.hint(p, v)}
}

// hint is the next step after a refusal.
func (s *Server) hint(p *permit, v *access.Verdict) string {
	switch {
	case s.o.Gate.Offices() == nil && s.wasHeld():
		return "the configuration names no record of offices any more: offices in counterseal.yaml, and counterseal offices show"
	case p.selects == "protected":
		return "contact with a protected channel is not looked at; the overseer is told of the question"
	case slices.Contains(p.decision.Policies, "purpose"):
		return "say why: --purpose CODE; the purposes are: " + strings.Join(s.o.Gate.Purposes(), ", ")
	case slices.Contains(p.person.Roles, founder) && (v != nil && v.Class != access.Nobody):
		return "nobody is in office who could authorise it: counterseal offices init"
	case slices.Contains(p.decision.Policies, "training"):
		return "renew the training; the record of offices has its end"
	case slices.Contains(p.decision.Policies, "operators-read-no-events"):
		return "log in as somebody who reads events: counterseal login"
	case slices.Contains(p.decision.Policies, "counsel"), slices.Contains(p.decision.Policies, "outside"):
		return "narrow the question, or ask for an authorisation with counsel: counterseal authorise request --counsel, beyond 100 people --outside"
	case slices.Contains(p.decision.Policies, "counted-first"):
		return "narrow the question or its time"
	case p.cover.Hint != "":
		return p.cover.Hint
	case v != nil && v.Class.Has(access.Person):
		return "ask for an authorisation: counterseal authorise request; or ask about events that select nobody"
	}
	return "it is for another office: counterseal offices show tells who holds which, docs/policy-matrix.md what each may"
}

// errUnjudged is a defect of ours: a handler that answers with events and asked nobody.
var errUnjudged = errors.New("a question was not judged")

// DecideBy asks the policies for acts that decide by themselves, with how the request came.
func DecideBy(set func() *policy.Set) func(context.Context, policy.Request) policy.Decision {
	return func(ctx context.Context, r policy.Request) policy.Decision {
		p := permitOf(ctx)
		r.Context.Machine, r.Context.Scopes, r.Context.Offices = p.machine, p.scopes, "kept"
		if r.Context.Purpose == "" {
			r.Context.Purpose = p.purpose
		}
		if r.Context.Crowd == "" {
			r.Context.Crowd = string(access.CrowdNone)
		}
		p.decision = set().Decide(r)
		return p.decision
	}
}

// ActorOf is the asker of a request as the ledger names them.
func ActorOf(ctx context.Context, by policy.Person) string {
	if p := permitOf(ctx); p.actor != "" {
		return p.actor
	}
	return "account:" + by.ID
}

// Meant turns the aliases in what an act was given back into tokens.
func (s *Server) Meant(ctx context.Context, text string) (string, error) { return s.meant(ctx, text) }

// JudgeStanding decides about a form that goes on by itself, such as a hold: what selects
// somebody is an authorisation, and needs one. Before anybody is in office the officers'
// signatures guard it alone.
func (s *Server) JudgeStanding(ctx context.Context, q access.Question) error {
	p := permitOf(ctx)
	o, err := s.access(ctx, p)
	if err != nil {
		return err
	}
	v := access.Selects(q, o)
	p.selects = v.Class.String()
	if v.Protected {
		p.selects = "protected"
		p.decision = policy.Decision{Policies: []string{"protected"}, Reason: "a question aimed at a protected channel is never answered"}
		return errors.Join(s.o.Gate.Cases.Report(ctx, p.person, p.caseID, "protected", ""), s.refusal(p, &v))
	}
	if v.Class == access.Nobody || slices.Contains(p.person.Roles, founder) {
		return nil
	}
	cover, err := s.o.Gate.Cases.Covers(ctx, p.person, p.caseID, cases.Question{Named: access.Named(q, o), Verdict: v})
	if err != nil {
		return err
	}
	if p.cover = cover; cover.Authorisation == cases.Covers {
		return nil
	}
	p.decision = policy.Decision{Policies: []string{"standing"}, Reason: "what goes on by itself and selects somebody needs an authorisation"}
	return s.refusal(p, &v)
}

// nameSomebody reports whether a record that a question finds holds a token.
func (s *Server) nameSomebody(ctx context.Context, a *asked) (found bool, err error) {
	err = s.o.Pipeline.Index().Query(ctx, &query.Query{Where: a.query.Where}, a.scope, 0, func(r index.Row) bool {
		for _, fields := range [][]index.Attr{r.OCSF, r.Native} {
			for _, f := range fields {
				for _, text := range []string{f.Name, f.Value} {
					from, _ := event.NextToken([]byte(text))
					found = found || from >= 0
				}
			}
		}
		return !found
	})
	return found, err
}

// JudgeExport decides about what a package would take along, and gives it inside of
// what covers it.
func (s *Server) JudgeExport(ctx context.Context, q *query.Query, from, to time.Time) (*query.Query, time.Time, time.Time, error) {
	p := permitOf(ctx)
	if slices.Contains(p.person.Roles, founder) {
		return q, from, to, nil
	}
	if q == nil {
		q = &query.Query{}
	}
	// Records go along whole, whatever fields the question would show.
	a := asked{query: &query.Query{Where: q.Where}, scope: index.Scope{From: from, To: to}}
	if err := s.judge(ctx, p, "export", access.Export{Query: a.query}, &a); err != nil {
		return nil, from, to, err
	}
	if p.selects == access.Nobody.String() {
		// An answer shows aliases, a package the records themselves.
		named, err := s.nameSomebody(ctx, &a)
		if err != nil {
			return nil, from, to, err
		}
		if named {
			if err := s.judge(ctx, p, "export", access.Export{Query: a.query, People: true}, &a); err != nil {
				return nil, from, to, err
			}
		}
	}
	if p.cells { // counts are no records
		p.decision = policy.Decision{Policies: []string{"reverse-rows"}, Reason: "a package of these records would list people by what they did"}
		return nil, from, to, &Refused{p.decision.Reason, "an authorisation that lists people opens it: counterseal authorise request --reverse"}
	}
	whole := *q // who packs refuses its other parts
	whole.Where = a.query.Where
	return &whole, a.scope.From, a.scope.To, nil
}
