package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/alias"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/index"
	"github.com/counterseal/counterseal/internal/pipeline"
	"github.com/counterseal/counterseal/internal/policy"
	"github.com/counterseal/counterseal/internal/query"
	"github.com/counterseal/counterseal/internal/web"
	"github.com/counterseal/counterseal/sigma"
)

// inForce is who may do what, as the configuration says it at one moment.
type inForce struct {
	policy  *policy.Set
	offices *policy.Offices // nil: no record is configured
	digest  string          // of the record of offices, hex; empty without one
	held    bool            // a record of offices is in force, or was
	asked   time.Time       // when the officers were asked who approved the record; zero: it is not approved
	refused string          // why the record of the configuration is not in force; then offices is nil
}

// inForce reads policies and offices. A set or a record that is not valid is refused.
func (c *config) inForce() (*inForce, error) {
	var dir fs.FS = policy.Default()
	if c.Policies != "" {
		dir = os.DirFS(c.Policies)
	}
	set, err := policy.Load(dir)
	if err != nil {
		return nil, fmt.Errorf("policies: %w", err)
	}
	f := &inForce{policy: set}
	if c.Offices == "" {
		return f, nil
	}
	data, err := os.ReadFile(c.Offices)
	if err != nil {
		return nil, fmt.Errorf("offices: %w", err)
	}
	if f.offices, err = policy.ParseOffices(data, set.Roles()); err != nil {
		return nil, fmt.Errorf("offices: %s: %w", filepath.Base(c.Offices), err)
	}
	o := &officesFile{path: c.Offices, data: data, record: f.offices, cfg: *c}
	f.digest = o.digest()
	if f.asked, err = o.approved(); err != nil {
		f.asked = time.Time{} // whether it has to be is judged by who knows the ledger
	}
	return f, nil
}

// officesApproved is the detail of offices.approved.
type officesApproved struct {
	Asked  time.Time `json:"asked"`
	Digest string    `json:"digest"`
}

// bindOffices holds a record of offices against the last one that two officers approved:
// from then on only that one, or one that two officers were asked for later, is in force.
func (s *server) bindOffices(ctx context.Context, f *inForce) error {
	fact, ok, err := s.pipe.Recorder().Fact(ctx, "offices.approved", "offices")
	if err != nil || !ok || f.offices == nil {
		return err
	}
	var last officesApproved
	if err := json.Unmarshal(fact.Detail, &last); err != nil {
		return fmt.Errorf("statement %d: %w", fact.Index, err)
	}
	switch {
	case f.digest == last.Digest:
		f.asked = last.Asked // whoever the officers are today
	case f.asked.IsZero():
		f.refused = "two officers approved the record of offices before, and not this one"
	case f.asked.Before(last.Asked):
		f.refused = "two officers approved a later record of offices than this one"
	}
	if f.refused != "" {
		f.offices, f.digest = nil, ""
	}
	return nil
}

// stateOffices states that two officers approved the record that is in force.
func (s *server) stateOffices(ctx context.Context, f *inForce) error {
	if f.offices == nil || f.asked.IsZero() {
		return nil
	}
	fact, ok, err := s.pipe.Recorder().Fact(ctx, "offices.approved", "offices")
	if err != nil || ok && strings.Contains(string(fact.Detail), `"`+f.digest+`"`) {
		return err
	}
	_, err = s.pipe.Recorder().Record(ctx, attest.Act{Kind: "offices.approved", Actor: attest.System, Subject: []string{"offices"}, Detail: officesApproved{Asked: f.asked.UTC(), Digest: f.digest}})
	return err
}

// reloadForce puts changed policies and offices in force, once the ledger has them.
func (s *server) reloadForce(ctx context.Context) error {
	force, err := s.cfg.inForce()
	if err != nil {
		return err
	}
	if err := s.bindOffices(ctx, force); err != nil {
		return err
	}
	if force.refused != "" {
		return fmt.Errorf("offices: %s; the record before stays in force (%s)", force.refused, officesHint)
	}
	if err := errors.Join(
		s.pipe.Activated(ctx, "policy.activated", "policy", force.policy.Digest(), attest.System),
		s.pipe.Activated(ctx, "offices.activated", "offices", force.digest, attest.System),
	); err != nil {
		return err
	}
	return s.putInForce(ctx, *force)
}

const officesHint = "counterseal offices request asks the officers; counterseal offices check says what they approved"

// putInForce puts it in force, with whether the ledger has had a record of offices.
func (s *server) putInForce(ctx context.Context, f inForce) (err error) {
	if err := s.stateOffices(ctx, &f); err != nil {
		return err
	}
	if _, f.held, err = s.pipe.Recorder().Fact(ctx, "offices.activated", "offices"); err == nil {
		s.force.Store(&f)
	}
	return err
}

// officeChecks tells the doctor of a record of offices that was taken away.
func (s *server) officeChecks() []pipeline.Check {
	f := s.force.Load()
	if f.refused != "" {
		return []pipeline.Check{{Name: "offices", State: "fail", Text: f.refused + ": nobody asks about events", Hint: officesHint}}
	}
	if f.offices != nil || !f.held {
		return nil
	}
	return []pipeline.Check{{Name: "offices", State: "fail", Text: "a record of offices was in force, and the configuration names none: nobody asks about events", Hint: "offices: FILE in " + configName}}
}

// owner is the person id of the user who runs the server.
func owner() string { return "os-" + strconv.Itoa(os.Getuid()) }

// openGate opens what the decision point asks.
func (s *server) openGate(ctx context.Context) error {
	var err error
	s.aliases, err = alias.Open(alias.Options{
		Path: filepath.Join(s.cfg.Data, "state", "aliases.db"), Now: s.now, MAC: s.pipe.AliasMAC,
		Joined: func(ctx context.Context, caseID string) (func(string) string, error) {
			joined, err := s.cases.Joined(ctx, caseID)
			return joined.One, err
		},
	})
	if err != nil {
		return err
	}
	if err := s.openOversight(ctx); err != nil {
		return errors.Join(err, s.aliases.Close())
	}
	s.cases, err = cases.Open(ctx, cases.Options{
		Stopped: asCase(s.oversight.Stopped), Waits: asCase(s.oversight.Waits),
		Statements: s.pipe.Recorder(), Now: s.now, Recent: s.recentFindings, Actor: web.ActorOf,
		Policy:  web.DecideBy(func() *policy.Set { return s.force.Load().policy }),
		Offices: func() *policy.Offices { return s.force.Load().offices },
	})
	if err != nil {
		return errors.Join(err, s.aliases.Close())
	}
	return nil
}

func (s *server) closeGate() error {
	if s.aliases == nil {
		return nil
	}
	return s.aliases.Close()
}

// gate is the decision point of the API.
func (s *server) gate() web.Gate {
	return web.Gate{
		Policy:  func() *policy.Set { return s.force.Load().policy },
		Offices: func() *policy.Offices { return s.force.Load().offices },
		Held:    func() bool { return s.force.Load().held },
		Access:  s.pipe.Asking, Purposes: s.pipe.Purposes,
		Inside: s.inside(), // what an inspector's office asked
		Shown:  s.keepShown,
		Cases:  s.cases, Watching: s.watching, Oversight: s.oversight, Aliases: s.aliases, Owner: owner(), Team: "team",
	}
}

// watchRules gives the rules that select people, now or before, by their digests, with the
// authorisation that each stood under last. What correlates one of those in force is one.
func (s *server) watchRules(ctx context.Context) (map[string]string, error) {
	facts, err := s.pipe.Recorder().Facts(ctx, "standing.begun")
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, f := range facts {
		var d struct{ Authorisation, Rule string }
		if err := json.Unmarshal(f.Detail, &d); err != nil {
			return nil, err
		}
		out[d.Rule] = d.Authorisation
	}
	if len(out) == 0 {
		return out, nil
	}
	rules := s.pipe.Rules()
	names := map[string]string{} // of rules that watch, in small letters
	know := func(r *sigma.Rule) bool {
		under, ok := out[hex.EncodeToString(r.Digest[:])]
		if ok && r.ID != "" {
			names[strings.ToLower(r.ID)] = under
		}
		if ok && r.Name != "" {
			names[strings.ToLower(r.Name)] = under
		}
		return ok
	}
	for _, r := range rules.Rules() {
		know(r)
	}
	for again := true; again; {
		again = false
		for _, r := range rules.Set().Correlations() {
			digest := hex.EncodeToString(r.Digest[:])
			if _, ok := out[digest]; ok {
				continue
			}
			for _, of := range r.Correlation.Rules {
				if under, ok := names[strings.ToLower(of)]; ok {
					out[digest], again = under, true
					know(r)
					break
				}
			}
		}
	}
	return out, nil
}

// watching gives the digests of the rules whose findings a person does not see.
func (s *server) watching(ctx context.Context, person string) ([]string, error) {
	watch, err := s.watchRules(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for digest, under := range watch {
		a, err := s.cases.Authorisation(ctx, under)
		var no *cases.Refusal
		if err != nil && !errors.As(err, &no) {
			return nil, err
		}
		me := strings.ToLower(person)
		if err == nil && a.State != cases.Unread && (strings.ToLower(a.Requester) == me || slices.Contains(a.Readers, me)) {
			continue
		}
		out = append(out, digest)
	}
	slices.Sort(out)
	return out, nil
}

// grantLevels are the levels of findings that open their people to a responder.
var grantLevels = []string{"high", "critical"}

// recentFindings gives the findings of high level whose window ended since then, with
// whom their events are about.
func (s *server) recentFindings(ctx context.Context, since time.Time) ([]cases.GrantFinding, error) {
	q := &query.Query{Where: query.OneOf{Field: "rule.level", Of: []query.Pattern{query.Literal(grantLevels[0]), query.Literal(grantLevels[1])}}}
	all, err := s.pipe.Index().Findings(ctx, q, index.Scope{From: since}, 10_000)
	if err != nil {
		return nil, err
	}
	watch, err := s.watchRules(ctx)
	if err != nil {
		return nil, err
	}
	var out []cases.GrantFinding
	for i := range all {
		f := &all[i]
		if _, ok := watch[f.Rule.Digest]; ok { // it selects people itself, and would open them to everybody
			continue
		}
		if f.State != event.Open || !slices.Contains(grantLevels, f.Rule.Level) {
			continue
		}
		out = append(out, cases.GrantFinding{ID: f.ID, RuleID: f.Rule.ID, RuleDigest: f.Rule.Digest, Level: f.Rule.Level, From: f.From, To: f.To,
			Subjects: func(ctx context.Context) ([]cases.Subject, error) { return s.subjects(ctx, f) }})
	}
	return out, nil
}

// maxCited bounds the events of a finding that are looked up for their people.
const maxCited = 100

// subjects are the people, hosts and sessions of the events that a finding cites.
func (s *server) subjects(ctx context.Context, f *event.Finding) ([]cases.Subject, error) {
	in := query.OneOf{Field: "ref"}
	for _, r := range f.Refs[:min(len(f.Refs), maxCited)] {
		in.Of = append(in.Of, query.Literal(r.String()))
	}
	if len(in.Of) == 0 {
		return nil, nil
	}
	tried, acted := map[string]bool{}, map[string]bool{}
	err := s.pipe.Index().Query(ctx, &query.Query{Where: in}, index.Scope{}, maxCited, func(r index.Row) bool {
		cited(&r, s.pipe.Asking(), tried, acted)
		return true
	})
	if err != nil {
		return nil, err
	}
	var out []cases.Subject
	for v := range acted {
		out = append(out, cases.Subject{Value: v})
	}
	for v := range tried {
		if !acted[v] {
			out = append(out, cases.Subject{Value: v, OnlyFailedTarget: true})
		}
	}
	slices.SortFunc(out, func(a, b cases.Subject) int { return strings.Compare(a.Value, b.Value) })
	return out, nil
}

// cited sorts the identities of one event. Of a logon that failed, only where it was seen
// and who else was at work there are part of what happened: the account, its session and
// the machine that the client names are what anybody can write there.
func cited(r *index.Row, o access.Options, tried, acted map[string]bool) {
	failed, class := false, ""
	for _, a := range r.OCSF {
		switch a.Name {
		case "class_uid":
			class = a.Value
		case "status_id":
			failed = a.Value == "2"
		}
	}
	failed = failed && class == authentication
	target := map[string]bool{}
	for _, a := range r.OCSF {
		if id, ok := access.Canonical(a.Name, a.Value, o); ok && strings.HasPrefix(a.Name, "user.") {
			target[id.Value] = true
		}
	}
	for _, a := range r.OCSF {
		id, ok := access.Canonical(a.Name, a.Value, o)
		switch {
		case !ok:
		case !failed, a.Name == "src_endpoint.ip", strings.HasPrefix(a.Name, "device."), strings.HasPrefix(a.Name, "actor.") && !target[id.Value]:
			acted[id.Value] = true
		default:
			tried[id.Value] = true
		}
	}
}

// authentication is the class of OCSF for logons.
const authentication = "3002"
