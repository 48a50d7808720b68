package cases

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/policy"
	"github.com/counterseal/counterseal/internal/state"
)

// book of statements in memory, which keeps to the forms of the ledger.
type statements struct {
	t        testing.TB
	now      func() time.Time
	next     uint64
	facts    map[[2]string]state.Fact
	leaves   []string
	payloads map[string][]byte
	fail     error // of the next Record, after the statement stands if lost is set
	lost     bool
}

func newStatements(t testing.TB, now func() time.Time) *statements {
	return &statements{t: t, now: now, facts: map[[2]string]state.Fact{}, payloads: map[string][]byte{}}
}

func (s *statements) Record(_ context.Context, a attest.Act) (uint64, error) {
	if s.fail != nil && !s.lost {
		err := s.fail
		s.fail = nil
		return 0, err
	}
	st, err := ledger.New(a.Kind, a.Actor, s.now(), a.Detail)
	if err != nil {
		return 0, err
	}
	s.next++
	st.Node, st.Seq, st.Purpose, st.Subject = "node", s.next, a.Purpose, a.Subject
	leaf, err := st.Canonical()
	if err != nil {
		return 0, err
	}
	i := slices.IndexFunc(ledger.Kinds(), func(k ledger.Kind) bool { return k.Name == a.Kind })
	if i < 0 {
		return 0, fmt.Errorf("no kind %s", a.Kind)
	}
	for _, name := range ledger.Kinds()[i].Detail {
		if !strings.Contains(string(st.Detail), `"`+name+`":`) {
			return 0, fmt.Errorf("detail of %s lacks %s", a.Kind, name)
		}
	}
	s.leaves = append(s.leaves, string(leaf))
	for _, f := range attest.Fold(s.next, st) {
		s.facts[[2]string{f.Kind, f.Key}] = f
	}
	err, s.fail = s.fail, nil
	return s.next, err
}

func (s *statements) Facts(_ context.Context, kind string) ([]state.Fact, error) {
	var out []state.Fact
	for k, f := range s.facts {
		if k[0] == kind {
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(x, y state.Fact) int { return strings.Compare(x.Key, y.Key) })
	return out, nil
}

func (s *statements) Fact(_ context.Context, kind, key string) (state.Fact, bool, error) {
	f, ok := s.facts[[2]string{kind, key}]
	return f, ok, nil
}

func (s *statements) PutPayload(b []byte) (ledger.Digest, error) {
	salted := make([]byte, 32)
	rand.Read(salted)
	sum := sha256.Sum256(append(salted, b...))
	h := hex.EncodeToString(sum[:])
	s.payloads[h] = slices.Clone(b)
	return ledger.Digest{Alg: ledger.DigestAlg, H: h}, nil
}

func (s *statements) Payload(d ledger.Digest) ([]byte, error) {
	b, ok := s.payloads[d.H]
	if !ok {
		return nil, ledger.ErrNoPayload
	}
	return b, nil
}

func (s *statements) count(kind string) (n int) {
	for k := range s.facts {
		if k[0] == kind {
			n++
		}
	}
	return n
}

// house is a Book with people in office.
type house struct {
	*Book
	t        testing.TB
	s        *statements
	clock    time.Time
	offices  *policy.Offices
	findings []GrantFinding
	o        Options
}

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func theOffices() *policy.Offices {
	trained := noon.AddDate(1, 0, 0)
	office := func(id, holder, authority, under string, roles ...string) policy.Office {
		return policy.Office{ID: id, Holder: holder, Authority: authority, Under: under, Standing: "confirmed", Since: noon.AddDate(-1, 0, 0), Roles: roles, Trained: trained}
	}
	o := &policy.Offices{Offices: []policy.Office{
		office("investigations", "hugo", "crown", "", "overseer"), // above ines, appointed by another
		office("investigator", "ines", "director", "investigations", "investigator"),
		office("soc", "sven", "ciso", "", "compliance"),
		office("responder-a", "rita", "ciso", "soc", "responder"),
		office("responder-b", "remo", "ciso", "soc", "responder"),
		office("responder-c", "ruth", "ciso", "soc", "responder"),
		office("analyst", "anna", "ciso", "soc", "analyst"),
		office("inspector", "olga", "parliament", "", "overseer"),
		office("privacy", "pia", "board", "", "privacy_officer"),
		office("privacy-two", "paul", "council", "", "privacy_officer"),
		office("privacy-own", "dora", "director", "", "privacy_officer"), // appointed as ines is
		office("law-firm", "ludo", "bar", "", "privacy_officer"),
		office("machine", "otto", "works", "", "operator", "privacy_officer"),
	}}
	for i := range o.Offices {
		o.Offices[i].Outside = o.Offices[i].ID == "law-firm"
	}
	return o
}

var policies = func() *policy.Set {
	set, err := policy.Load(policy.Default())
	if err != nil {
		panic(err)
	}
	return set
}()

func newHouse(t testing.TB) *house {
	h := &house{t: t, clock: noon, offices: theOffices()}
	h.s = newStatements(t, func() time.Time { return h.clock })
	h.o = Options{
		Statements: h.s, Now: func() time.Time { return h.clock }, Offices: func() *policy.Offices { return h.offices },
		Policy: func(_ context.Context, r policy.Request) policy.Decision {
			r.Context.Offices = "kept"
			if r.Context.Crowd == "" {
				r.Context.Crowd = "none"
			}
			return policies.Decide(r)
		},
		Recent: func(_ context.Context, since time.Time) ([]GrantFinding, error) {
			var out []GrantFinding
			for _, f := range h.findings {
				if !f.To.Before(since) {
					out = append(out, f)
				}
			}
			return out, nil
		},
	}
	h.open()
	return h
}

func (h *house) open() {
	h.t.Helper()
	b, err := Open(h.t.Context(), h.o)
	if err != nil {
		h.t.Fatal(err)
	}
	h.Book = b
}

// as gives somebody as a login would.
func (h *house) as(id string) policy.Person {
	for _, f := range h.offices.Offices {
		if f.Holder == id {
			p, _ := h.offices.Person(f.ID)
			return p
		}
	}
	return policy.Person{ID: id}
}

func token(kind event.TokenKind, n int) string {
	var bits [16]byte
	bits[0], bits[1] = byte(n), byte(n>>8)
	return string(event.NewToken(kind, 1, bits))
}

func person(n int) string { return token(event.Person, n) }

func people(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = person(i)
	}
	return out
}

func named(values ...string) []Named {
	out := make([]Named, len(values))
	for i, v := range values {
		out[i] = Named{Who: access.ByToken, Value: v}
	}
	return out
}

// about is a question about people by name.
func about(values ...string) Question {
	return Question{Named: named(values...), Verdict: access.Verdict{Class: access.Person, Persons: len(values)}}
}

func (h *house) ask(who, caseID string, q Question) Cover {
	h.t.Helper()
	c, err := h.Covers(h.t.Context(), h.as(who), caseID, q)
	if err != nil {
		h.t.Fatalf("%s asks: %v", who, err)
	}
	if (c.Code == "") != (c.Authorisation == Covers || c.Grant == Covers) && !q.Verdict.Free() {
		h.t.Fatalf("code %q with authorisation %q and grant %q", c.Code, c.Authorisation, c.Grant)
	}
	return c
}

// draft is a request that is in order.
func draft(subjects ...string) Authorisation {
	return Authorisation{Case: "C-7", Predicate: "allegation-1", Basis: "art6-1-c", Ends: noon.AddDate(0, 0, 30),
		Scope: Scope{Subjects: subjects, From: noon.AddDate(0, -1, 0), To: noon.AddDate(0, 0, 7)}}
}

func (h *house) request(who string, a Authorisation) string {
	h.t.Helper()
	id, err := h.Request(h.t.Context(), h.as(who), a)
	if err != nil {
		h.t.Fatalf("%s asks for an authorisation: %v", who, err)
	}
	return id
}

func (h *house) digest(id string) string {
	h.t.Helper()
	a, err := h.Authorisation(h.t.Context(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	return a.Digest
}

func (h *house) decide(who, id string, yes bool) error {
	h.t.Helper()
	return h.Decide(h.t.Context(), h.as(who), true, id, h.digest(id), yes)
}

// authorised makes an authorisation that is in force.
func (h *house) authorised(who string, a Authorisation, by ...string) string {
	h.t.Helper()
	id := h.request(who, a)
	for _, p := range by {
		if err := h.decide(p, id, true); err != nil {
			h.t.Fatalf("%s approves: %v", p, err)
		}
	}
	return id
}

func (h *house) state(id string) State {
	h.t.Helper()
	a, err := h.Authorisation(h.t.Context(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	return a.State
}

// code is that of a refusal, "" for none; any other error fails the test.
func code(t testing.TB, err error) string {
	t.Helper()
	var r *Refusal
	switch {
	case err == nil:
		return ""
	case !errors.As(err, &r):
		t.Fatalf("not a refusal: %v", err)
	case r.Reason == "" || r.Hint == "":
		t.Fatalf("a refusal without reason or hint: %+v", r)
	}
	return r.Code
}

const ruleOne = "1111111111111111111111111111111111111111111111111111111111111111"

func ruleSet(n int, rules ...RuleOrigin) RuleSet {
	return RuleSet{Digest: fmt.Sprintf("%064x", n), Rules: rules}
}

// approve makes two people stand for rules: anna asks, remo approves.
func (h *house) approve(set RuleSet) {
	h.t.Helper()
	if err := h.ApproveRules(h.t.Context(), "anna", h.as("remo"), set); err != nil {
		h.t.Fatal(err)
	}
}

func subjects(open, planted []string) func(context.Context) ([]Subject, error) {
	var out []Subject
	for _, v := range open {
		out = append(out, Subject{Value: v})
	}
	for _, v := range planted {
		out = append(out, Subject{Value: v, OnlyFailedTarget: true})
	}
	return func(context.Context) ([]Subject, error) { return out, nil }
}

// finding is one that opens person 1, host srv-1 and session 0x3e7, of ruleOne.
func (h *house) finding(change func(*GrantFinding)) {
	f := GrantFinding{ID: fmt.Sprintf("finding-%d", len(h.findings)), RuleID: "rule-1", RuleDigest: ruleOne, Level: "high",
		From: h.clock.Add(-2 * time.Hour), To: h.clock.Add(-time.Hour), Subjects: subjects([]string{person(1), "srv-1", "0x3e7"}, nil)}
	if change != nil {
		change(&f)
	}
	h.findings = append(h.findings, f)
}

// incident is a house with a rule of long ago and a finding of today.
func incident(t testing.TB) *house {
	h := newHouse(t)
	h.clock = noon.AddDate(0, 0, -60)
	h.approve(ruleSet(1, RuleOrigin{Digest: ruleOne, Authors: []string{"anna"}}))
	h.clock = noon
	h.finding(nil)
	return h
}

// everything is what a Book tells, for comparison.
func (h *house) everything() string {
	h.t.Helper()
	ctx := h.t.Context()
	as, err1 := h.Authorisations(ctx)
	rs, err2 := h.Reviews(ctx)
	is, err3 := h.Inquiries(ctx)
	qs, err4 := h.Reports(ctx)
	act, ok, err5 := h.Approved(ctx, ruleOne)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		h.t.Fatal(err)
	}
	for i := range is {
		is[i].index = 0
	}
	b, err := json.MarshalIndent([]any{as, rs, is, qs, act, ok}, "", " ")
	if err != nil {
		h.t.Fatal(err)
	}
	return string(b)
}
