package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/web"
)

// The people of bureau, as users of the operating system.
const (
	privacyOfficer = 4711
	overseer       = 4712
	colleague      = 4713
	complianceUser = 4714
)

// bureau is a server with people in office and a clock of its own. Whoever runs the test
// is a responder.
type bureau struct {
	t     *testing.T
	s     *server
	stop  func()
	dir   string
	ahead atomic.Int64 // of the clock
	// bearer is the session of a terminal of whoever runs the test; empty: they ask by the
	// socket as the user that they are.
	bearer string
}

func layOffices(t *testing.T, dir string) {
	t.Helper()
	var b strings.Builder
	b.WriteString("form: offices/v1\noffices:\n")
	for _, o := range []struct{ id, authority, holder, role string }{
		{"soc", "ciso", owner(), "analyst, responder"},
		{"soc-two", "ciso", fmt.Sprintf("os-%d", colleague), "analyst"},
		{"privacy", "board", fmt.Sprintf("os-%d", privacyOfficer), "privacy_officer"},
		{"inspector", "parliament", fmt.Sprintf("os-%d", overseer), "overseer"},
		{"compliance", "board", fmt.Sprintf("os-%d", complianceUser), "compliance"},
	} {
		fmt.Fprintf(&b, "  - id: %s\n    authority: %s\n    holder: %s\n    standing: confirmed\n    since: 2020-01-01\n    roles: [%s]\n    training_until: 2099-01-01\n", o.id, o.authority, o.holder, o.role)
	}
	if err := os.WriteFile(filepath.Join(dir, "offices.yaml"), []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// openBureau opens it, on a directory that may hold something already.
func openBureau(t *testing.T, prepare ...func(dir string)) *bureau {
	t.Helper()
	b := &bureau{t: t, dir: t.TempDir()}
	layOffices(t, b.dir)
	for _, f := range prepare {
		f(b.dir)
	}
	rules := filepath.Join(b.dir, "rules")
	if err := os.MkdirAll(rules, 0o700); err != nil {
		t.Fatal(err)
	}
	b.rule("one")
	if err := layAgency(b.dir, "http: off\nreserve: 16MiB\nmemory: 64MiB\noffices: offices.yaml\nown_rules: false\nrules: [rules]\n"); err != nil {
		t.Fatal(err)
	}
	b.open()
	return b
}

func (b *bureau) open() {
	b.t.Helper()
	b.s, b.stop = inProcess(b.t, b.dir, func() time.Time { return time.Now().Add(time.Duration(b.ahead.Load())) }, io.Discard)
}

// rule writes the one rule of the house, with another word each time.
func (b *bureau) rule(word string) {
	b.t.Helper()
	text := "title: A program that ends in " + word + "\nid: 0d1a53a4-7e0c-4c53-8d2f-3a3c2f5b0001\nlevel: high\nlogsource: {product: windows, category: process_creation}\ndetection: {s: {Image|endswith: '\\" + word + ".exe'}, condition: s}\n"
	if err := os.WriteFile(filepath.Join(b.dir, "rules", "rule.yml"), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bureau) later(d time.Duration) { b.ahead.Add(int64(d)) }

func (b *bureau) now() time.Time { return b.s.now().UTC() }

// as sends a request over the socket as a user; 0 is whoever runs the test.
func (b *bureau) as(user int, method, path string, query url.Values, body any) (int, string) {
	b.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		b.t.Fatal(err)
	}
	r := httptest.NewRequest(method, "http://localhost"+path+"?"+query.Encode(), strings.NewReader(string(raw)))
	actor := ownActor()
	if user != 0 {
		actor = fmt.Sprintf("os:%d", user)
	}
	w := httptest.NewRecorder()
	h := b.s.web.Socket()
	if user == 0 && b.bearer != "" {
		r.Header.Set("Authorization", "Bearer "+b.bearer)
		h = b.s.signin.socket(h)
	}
	h.ServeHTTP(w, r.WithContext(web.WithActor(r.Context(), actor)))
	return w.Code, w.Body.String()
}

// does does an act in the case of the test, and wants a status and a part of the answer.
func (b *bureau) does(user int, act string, body, out any, status int, says string) {
	b.t.Helper()
	code, text := b.as(user, "POST", "/api/v1/acts/"+act, url.Values{"case": {"C-17"}}, body)
	if code != status || !strings.Contains(text, says) {
		b.t.Fatalf("%s by %d: got %d, want %d with %q\n%s", act, user, code, status, says, text)
	}
	if status != 200 && !strings.Contains(text, `"hint"`) {
		b.t.Errorf("%s by %d is refused without what to do next: %s", act, user, text)
	}
	if out != nil {
		if err := json.Unmarshal([]byte(text), out); err != nil {
			b.t.Fatal(err)
		}
	}
}

// asks asks a question in the case of the test.
func (b *bureau) asks(q string, status int, says string) string {
	b.t.Helper()
	code, text := b.as(0, "GET", "/api/v1/search", url.Values{"case": {"C-17"}, "q": {q}}, nil)
	if code != status || !strings.Contains(text, says) {
		b.t.Fatalf("%s: got %d, want %d with %q\n%s", q, code, status, says, text)
	}
	return text
}

// people imports events of three people and gives their aliases in the case.
func (b *bureau) people() []string {
	b.t.Helper()
	at := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	path := filepath.Join(b.dir, "in.ndjson")
	var lines strings.Builder
	for i, who := range []string{"alice", "bob", "carol"} {
		fmt.Fprintf(&lines, `{"time":%q,"event":"signin","user":"%s@agency.example","src_ip":"203.0.113.%d","country":"US","result":"success","mfa":true,"client_app":"Browser","risk":"none"}`+"\n", at, who, i)
	}
	if err := os.WriteFile(path, []byte(lines.String()), 0o600); err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.s.importFiles(context.Background(), web.ImportRequest{Paths: []string{path}, Source: "idp"}, nil); err != nil {
		b.t.Fatal(err)
	}
	if err := b.s.pipe.Settle(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	text := b.asks("source = idp", 200, "")
	found := regexp.MustCompile(`(?:mail|person)-[a-z2-7]{6,}`).FindAllString(text, -1) // a person where a directory knows them
	slices.Sort(found)
	found = slices.Compact(found)
	if len(found) != 3 {
		b.t.Fatalf("%d people are shown, want 3\n%s", len(found), text)
	}
	return found
}

func (b *bureau) request(alias string) (r authorisationRow) {
	b.t.Helper()
	now := b.now()
	b.does(0, "authorise.request", authoriseAsk{
		whom: whom{People: []string{alias}}, From: now.AddDate(0, 0, -30), To: now.Add(time.Hour), Predicate: "finding-1", Basis: "law-1", Ends: now.AddDate(0, 0, 2),
	}, &r, 200, "")
	return r
}

// TestAuthorisation: a question about a person is refused, asked for, decided by somebody
// else on exactly what they read, answered within the scope alone, and refused again when
// it has ended.
func TestAuthorisation(t *testing.T) {
	b := openBureau(t)
	who := b.people()
	about := func(alias string) string { return "class_uid = 3002 and user.uid = " + alias }

	b.asks(about(who[0]), 403, "authorisation")
	// A name and an alias of nowhere are no one to ask for.
	b.does(0, "authorise.request", authoriseAsk{whom: whom{People: []string{"alice"}}}, nil, 400, "by the alias")
	b.does(0, "authorise.request", authoriseAsk{whom: whom{People: []string{"person-aaaaaa"}}}, nil, 400, "by the alias")
	b.does(0, "authorise.request", authoriseAsk{whom: whom{People: who[:1]}, Ends: b.now().AddDate(1, 0, 0)}, nil, 400, "90 days")

	r := b.request(who[0])
	if !slices.Equal(r.Offices, []string{"privacy", "inspector"}) || !slices.Equal(r.Subjects, who[:1]) || r.State != "requested" {
		t.Fatalf("got %+v", r)
	}
	b.asks(about(who[0]), 403, "not decided yet")
	yes := authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}
	b.does(0, "authorise", yes, nil, 403, "nobody decides on")
	b.does(colleague, "authorise", yes, nil, 403, "")
	b.does(privacyOfficer, "authorise", authoriseNamed{ID: r.ID, Digest: strings.Repeat("0", 64), Approve: true}, nil, 403, "another one")
	b.does(privacyOfficer, "authorise", authoriseNamed{ID: "01900000-0000-7000-8000-000000000000", Digest: r.Digest, Approve: true}, nil, 400, "no authorisation")
	b.asks(about(who[0]), 403, "not decided yet")
	b.does(privacyOfficer, "authorise", yes, &r, 200, "")
	if r.State != "approved" || !slices.Equal(r.Approvers, []string{fmt.Sprintf("os-%d", privacyOfficer)}) {
		t.Fatalf("got %+v", r)
	}
	b.does(overseer, "authorise", yes, nil, 403, "settled")

	b.asks(about(who[0]), 200, who[0])
	b.asks(about(who[1]), 403, "authorisation")

	// Others see it only if they decide.
	var rows []authorisationRow
	b.does(colleague, "authorise.list", authoriseNamed{}, &rows, 200, "")
	if len(rows) != 0 {
		t.Errorf("a colleague sees %d", len(rows))
	}
	b.does(overseer, "authorise.list", authoriseNamed{}, &rows, 200, "")
	if len(rows) != 1 {
		t.Errorf("the overseer sees %d", len(rows))
	}

	// Its end comes by the clock.
	b.later(49 * time.Hour)
	b.asks(about(who[0]), 403, "has ended")
	b.does(0, "authorise.list", authoriseNamed{ID: r.ID}, &rows, 200, "")
	if rows[0].State != "expired" {
		t.Errorf("got %s", rows[0].State)
	}

	// Another one is ended by who asked; one is refused.
	r = b.request(who[0])
	b.does(overseer, "authorise", authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}, nil, 200, "approved")
	b.asks(about(who[0]), 200, who[0])
	b.does(colleague, "authorise.end", authoriseNamed{ID: r.ID, Reason: "revoked"}, nil, 403, "")
	b.does(0, "authorise.end", authoriseNamed{ID: r.ID, Reason: "because"}, nil, 400, "reason is one of")
	b.does(0, "authorise.end", authoriseNamed{ID: r.ID, Reason: "done"}, nil, 200, `"reason":"done"`)
	b.asks(about(who[0]), 403, "has ended")
	r = b.request(who[0])
	b.does(overseer, "authorise", authoriseNamed{ID: r.ID, Digest: r.Digest}, nil, 200, "refused")

	// The ledger has who refused what: a policy, or else the code.
	b.stop()
	told := ledgerTold(t, filepath.Join(b.dir, "data"))
	for _, want := range []string{
		`request.refused os:4713 0 {"act":"authorise","office":"soc-two","policies":"same-authority","route":"POST /api/v1/acts/{act}","rule":"same-authority","status":403}`,
		`{"act":"authorise.end","office":"soc-two","policies":"not_permitted"`,
		`"rule":"own-request`, `"rule":"altered"`, `"rule":"settled"`,
	} {
		if !strings.Contains(told, want) {
			t.Errorf("the ledger does not say %s", want)
		}
	}
}

// TestGlassAndReview: the glass opens at once, is told to the doctor, and somebody else
// reviews it.
func TestGlassAndReview(t *testing.T) {
	b := openBureau(t)
	who := b.people()
	b.does(colleague, "break.glass", whom{People: who[:1]}, nil, 403, "")
	var g glassBroken
	b.does(0, "break.glass", whom{People: who[:1]}, &g, 200, "")
	if !slices.Equal(g.Offices, []string{"privacy", "inspector"}) || !slices.Equal(g.Subjects, who[:1]) {
		t.Errorf("got %+v", g)
	}
	b.asks("class_uid = 3002 and user.uid = "+who[0], 200, who[0])
	b.asks("class_uid = 3002 and user.uid = "+who[1], 403, "")
	if got := b.targetsOf(false, who[0]); !slices.Equal(got, []string{"glass waits", "look waits"}) {
		t.Errorf("an overseer's list is compared with %q", got)
	}
	checks := func() (out []string) {
		all, err := b.s.caseChecks(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range all {
			out = append(out, c.Name+" "+c.State)
		}
		return out
	}
	if got := checks(); !slices.Equal(got, []string{"glass warn", "reviews ok"}) {
		t.Errorf("got %v", got)
	}
	b.later(4*24*time.Hour + time.Minute)
	if got := checks(); !slices.Equal(got, []string{"reviews warn"}) {
		t.Errorf("got %v", got)
	}
	b.does(0, "break.glass", whom{People: who[:1]}, nil, 403, "waits for its review")
	b.does(0, "review.list", struct{}{}, nil, 403, "")
	var rows []reviewRow
	b.does(overseer, "review.list", struct{}{}, &rows, 200, "")
	if len(rows) != 1 || !rows[0].Overdue || rows[0].What != "glass" {
		t.Fatalf("got %+v", rows)
	}
	b.does(0, "grant.review", reviewNamed{g.ID, "justified"}, nil, 403, "")
	b.does(overseer, "grant.review", reviewNamed{g.ID, "fine"}, nil, 400, "justified")
	b.does(overseer, "grant.review", reviewNamed{g.ID, "excessive"}, nil, 200, "")
	b.does(privacyOfficer, "grant.review", reviewNamed{g.ID, "justified"}, nil, 403, "reviewed")
	if got := checks(); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

// TestInquiries: an inquiry has a day on which it is due, and one answer.
func TestInquiries(t *testing.T) {
	b := openBureau(t)
	in := inquiryAsk{From: "committee", Text: "who looked?", Due: b.now().AddDate(0, 0, 1)}
	b.does(0, "inquiry.receive", in, nil, 403, "")
	var q inquiryRow
	b.does(complianceUser, "inquiry.receive", in, &q, 200, "")
	b.later(25 * time.Hour)
	var rows []inquiryRow
	b.does(overseer, "inquiry.list", struct{}{}, &rows, 200, "")
	if len(rows) != 1 || !rows[0].Overdue {
		t.Errorf("got %+v", rows)
	}
	if all, err := b.s.caseChecks(t.Context()); err != nil || len(all) != 1 || all[0].Name != "inquiries" || all[0].State != "warn" {
		t.Errorf("got %v, %v", all, err)
	}
	b.does(privacyOfficer, "inquiry.answer", inquiryReply{q.ID, "answered", "nobody"}, nil, 200, "")
	b.does(privacyOfficer, "inquiry.answer", inquiryReply{q.ID, "answered", "nobody"}, nil, 403, "it was answered")
}

// TestRulesByTwo: one person asks for the rules in force, and another stands for the same
// ones, within a day, also after a restart.
func TestRulesByTwo(t *testing.T) {
	b := openBureau(t)
	digest := b.s.pipe.Rules().Digest()
	doctor := func(want string) {
		t.Helper()
		var got string
		checks, err := b.s.standsChecks(t.Context())
		for _, c := range checks {
			got += c.State + " " + c.Text
		}
		if err != nil || (want == "") != (got == "") || !strings.HasPrefix(got, want) {
			t.Errorf("the doctor says %q, %v", got, err)
		}
	}
	doctor("warn no two people stand for the rules in force")
	b.does(colleague, "rules.approve", rulesNamed{digest}, nil, 403, "nobody has asked")
	var st rulesState
	b.does(overseer, "rules.activate", struct{}{}, nil, 403, "")
	b.does(0, "rules.activate", struct{}{}, &st, 200, "")
	if st.Digest != digest || st.Rules != 1 || st.Before || st.New != 1 {
		t.Fatalf("got %+v", st)
	}
	b.does(0, "rules.approve", rulesNamed{digest}, nil, 403, "their own request")
	b.does(colleague, "rules.approve", rulesNamed{strings.Repeat("a", 64)}, nil, 403, "other ones")

	// The word holds for a day.
	b.later(24*time.Hour + time.Minute)
	b.does(colleague, "rules.approve", rulesNamed{digest}, nil, 403, "nobody has asked")
	b.does(0, "rules.activate", struct{}{}, &st, 200, "")

	// A restart keeps it; other rules in force are not what was asked for.
	b.stop()
	b.rule("two")
	b.open()
	b.does(colleague, "rules.approve", rulesNamed{digest}, nil, 403, "other ones")
	b.does(colleague, "rules.approve", rulesNamed{b.s.pipe.Rules().Digest()}, nil, 403, "nobody has asked")
	b.stop()
	b.rule("one")
	b.open()
	b.does(colleague, "rules.waiting", struct{}{}, &st, 200, "")
	if len(st.Waiting) != 1 || st.Waiting[0].Asked != owner() {
		t.Fatalf("got %+v", st)
	}
	b.does(colleague, "rules.approve", rulesNamed{digest}, &st, 200, "")
	set, _ := b.s.ruleSet()
	if _, ok, err := b.s.cases.Approved(t.Context(), set.Rules[0].Digest); !ok || err != nil {
		t.Errorf("the rule is not approved: %v", err)
	}
	if st.New != 0 || st.Gone != 0 || !st.Before {
		t.Errorf("got %+v", st)
	}
	b.does(colleague, "rules.approve", rulesNamed{digest}, nil, 403, "nobody has asked")
	doctor("")
	b.stop()
	b.rule("two")
	b.open()
	doctor("warn 1 rule is new or altered")
}

// FuzzRulesAsked: what is read as the word of somebody has one form.
func FuzzRulesAsked(f *testing.F) {
	good := setAsked{Asked: "u_a", Digest: strings.Repeat("a", 64), Expires: "2026-01-01T00:00:00Z", Form: rulesAskedForm, ID: "01900000-0000-7000-8000-000000000000"}
	b, err := approval.Canonical(&good)
	if err != nil {
		f.Fatal(err)
	}
	if _, _, err := parseAsked(rulesAskedForm, b); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{}`))
	f.Add([]byte(strings.Replace(string(b), "v1", "v2", 1)))
	f.Add([]byte(strings.Replace(string(b), "00Z", "00+01:00", 1)))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, _, err := parseAsked(rulesAskedForm, in)
		if err != nil {
			return
		}
		again, err := approval.Canonical(r)
		if err != nil || string(again) != string(in) {
			t.Errorf("%q has another form: %q, %v", in, again, err)
		}
	})
}
