package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/descope/virtualwebauthn"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/keyholder"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/login"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/passkey"
	"github.com/counterseal/counterseal/internal/vault"
)

// socketUser is an investigator who has no account.
const socketUser = 4715

// names is a bureau with officers, a witness, and an investigator who runs the test, with a
// passkey.
type names struct {
	*bureau
	person     *person // who asks
	sh         *shell
	roster     *officer.Roster
	keys       map[string]*officer.Key
	log, vkey  string
	away       *atomic.Bool
	who        []string // aliases in case C-17
	strangeKey *officer.Key
}

func layNames(t *testing.T, s *shell) (pass string) {
	t.Helper()
	_, pass = s.office()
	layOffices(t, s.dir)
	text, err := os.ReadFile(s.at("offices.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	s.write("offices.yaml", strings.Replace(string(text), "roles: [analyst, responder]", "roles: [investigator]", 1))
	if err := layAgency(s.dir, "http: off\nreserve: 16MiB\nmemory: 64MiB\nofficers: officers.yaml\noffices: offices.yaml\nown_rules: false\nlogin: {address: \"127.0.0.1:0\", origin: \"https://logs.example\"}\n"); err != nil {
		t.Fatal(err)
	}
	return pass
}

// watched gives the configuration a witness.
func watched(t *testing.T, s *shell, lines string) {
	t.Helper()
	conf, err := os.ReadFile(s.at(configName))
	if err != nil {
		t.Fatal(err)
	}
	s.write(configName, string(conf)+lines)
}

func openNames(t *testing.T) *names {
	t.Helper()
	n := &names{sh: newShell(t), keys: map[string]*officer.Key{}}
	pass := layNames(t, n.sh)
	secret, err := os.ReadFile(pass)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"inv", "ovs", "inv2", "ovs2"} {
		b, err := os.ReadFile(n.sh.at(name))
		if err != nil {
			t.Fatal(err)
		}
		if n.keys[name], err = officer.OpenKey(b, bytes.TrimSpace(secret)); err != nil {
			t.Fatal(err)
		}
	}
	if n.strangeKey, err = officer.New("Ada Ihle", officer.Investigation, false); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(n.sh.at("officers.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if n.roster, err = officer.ParseRoster("officers.yaml", data); err != nil {
		t.Fatal(err)
	}
	n.bureau = &bureau{t: t, dir: n.sh.dir}
	n.open()
	n.person = n.newPerson("investigator")
	n.stop()
	n.holds(n.person.id)
	var lines string
	n.log, n.vkey, lines, n.away = n.sh.witness(n.sh.at("data"))
	watched(t, n.sh, lines)
	n.open()
	n.signIn()
	n.who = n.people()
	return n
}

// later moves the clock, and signs in again: a session does not last.
func (n *names) later(d time.Duration) {
	n.t.Helper()
	n.bureau.later(d)
	if n.person != nil {
		n.signIn()
	}
}

// newPerson makes an account with a passkey.
func (n *names) newPerson(role string) *person {
	n.t.Helper()
	first, err := n.s.signin.empty(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	if first {
		made, err := act[accountSecret](n.t, n.s.signin.accountSetUp, struct{}{})
		if err != nil {
			n.t.Fatal(err)
		}
		newPerson(n.t, n.browser(), made.Secret)
	}
	made, err := act[accountSecret](n.t, n.s.signin.accountInvite, accountInvite{[]string{role}})
	if err != nil {
		n.t.Fatal(err)
	}
	return newPerson(n.t, n.browser(), made.Secret)
}

// browser reaches the pages of the server, whichever runs now.
func (n *names) browser() *http.Client {
	n.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		n.t.Fatal(err)
	}
	return &http.Client{Jar: jar, Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		return handlerTransport{n.s.signin.handler(n.s.web.People())}.RoundTrip(r)
	})}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// holds gives the office of whoever runs the test to an account.
func (n *names) holds(account string) {
	n.t.Helper()
	text := string(read(n.t, n.sh.at("offices.yaml")))
	text = strings.Replace(text, "holder: "+owner(), "holder: "+account, 1)
	n.sh.write("offices.yaml", text+fmt.Sprintf("  - id: by-socket\n    authority: ciso\n    holder: os-%d\n    standing: confirmed\n    since: 2020-01-01\n    roles: [investigator]\n    training_until: 2099-01-01\n", socketUser))
}

// signIn signs the investigator in, in a browser and in a terminal.
func (n *names) signIn() {
	n.t.Helper()
	n.person.signIn()
	n.bearer = n.person.terminal()
}

// signIn signs in by passkey.
func (p *person) signIn() {
	p.t.Helper()
	code, out := p.post("/login/passkey/begin", "{}")
	o, err := virtualwebauthn.ParseAssertionOptions(out)
	if code != 200 || err != nil {
		p.t.Fatalf("%d %s %v", code, out, err)
	}
	code, out = p.post("/login/passkey/finish", virtualwebauthn.CreateAssertionResponse(p.rp, p.auth, p.cred, *o))
	var got struct{ CSRF string }
	if err := json.Unmarshal([]byte(out), &got); code != 200 || err != nil {
		p.t.Fatalf("%d %s", code, out)
	}
	p.csrf = got.CSRF
}

// terminal signs a terminal in.
func (p *person) terminal() string {
	p.t.Helper()
	var start struct {
		Device string `json:"device_code"`
		User   string `json:"user_code"`
	}
	var done struct{ Secret string }
	for _, step := range []struct {
		path string
		body func() string
		out  any
	}{
		{"/login/cli/start", func() string { return "{}" }, &start},
		{"/login/cli/confirm", func() string { return `{"user_code":"` + start.User + `"}` }, &struct{}{}},
		{"/login/cli/finish", func() string { return `{"device_code":"` + start.Device + `"}` }, &done},
	} {
		code, out := p.post(step.path, step.body())
		if err := json.Unmarshal([]byte(out), step.out); code != 200 || err != nil {
			p.t.Fatalf("%s: %d %s", step.path, code, out)
		}
	}
	return done.Secret
}

// signs signs a statement on its page.
func (p *person) signs(id string, spoil ...func(*virtualwebauthn.AssertionOptions)) (int, string) {
	p.t.Helper()
	o, code := p.signOptions(id)
	if o == nil {
		return code, ""
	}
	for _, f := range spoil {
		f(o)
	}
	return p.answers(id, o)
}

// signOptions are what the page gets for a statement.
func (p *person) signOptions(id string) (*virtualwebauthn.AssertionOptions, int) {
	p.t.Helper()
	code, out := p.post("/login/sign/begin", `{"id":"`+id+`"}`)
	if code != 200 {
		return nil, code
	}
	o, err := virtualwebauthn.ParseAssertionOptions(out)
	if err != nil {
		p.t.Fatal(err)
	}
	return o, code
}

// answers answers for the authenticator.
func (p *person) answers(id string, o *virtualwebauthn.AssertionOptions) (int, string) {
	p.t.Helper()
	return p.post("/login/sign/finish", `{"id":"`+id+`","answer":`+virtualwebauthn.CreateAssertionResponse(p.rp, p.auth, p.cred, *o)+`}`)
}

// authorised lets the investigator ask about somebody.
func (n *names) authorised(alias string) authorisationRow {
	n.t.Helper()
	r := n.request(alias)
	n.does(privacyOfficer, "authorise", authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}, &r, 200, "")
	return r
}

// asked is a request that the server made.
func (n *names) asked(alias, requester string) *unmaskRequest {
	n.t.Helper()
	var w unmaskWaits
	n.does(0, "unmask.request", unmaskAsk{alias, "who signed in from there", requester, 60}, &w, 200, "")
	if code, text := n.person.signs(w.ID); code != 200 {
		n.t.Fatalf("signing: %d %s", code, text)
	}
	return n.collected(w.ID)
}

// collected is a request that was signed.
func (n *names) collected(id string) *unmaskRequest {
	n.t.Helper()
	var got unmaskCollected
	n.does(0, "unmask.collect", map[string]string{"request": id}, &got, 200, "")
	return n.travelled(got.Request)
}

// travelled is a request as the officers read it out of its file.
func (n *names) travelled(r *unmaskRequest) *unmaskRequest {
	n.t.Helper()
	b, err := approval.Canonical(r)
	if err != nil {
		n.t.Fatal(err)
	}
	got, _, err := parseUnmask(b)
	if err != nil {
		n.t.Fatal(err)
	}
	return got
}

// erases takes the rows of somebody out of the vault.
func (n *names) erases(token event.Token) {
	n.t.Helper()
	v := n.s.pipe.Vault()
	places, err := v.Places(n.t.Context(), []event.Token{token})
	if err == nil {
		_, err = v.Erase(n.t.Context(), fmt.Sprint(n.now().UnixNano()), places)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *names) sign(d approval.Decision, statement string, keys ...string) (out []approval.Signed) {
	n.t.Helper()
	for _, name := range keys {
		s, err := n.keys[name].Sign(d, []byte(statement))
		if err != nil {
			n.t.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}

func (n *names) both(statement string) []approval.Signed {
	return n.sign(approval.Approve, statement, "inv", "ovs")
}

func (n *names) approved(r *unmaskRequest) *receipt {
	n.t.Helper()
	var got receipt
	n.does(0, "unmask.approve", unlockDecided{r.Statement, n.both(r.Statement)}, &got, 200, "")
	return &got
}

// opening is what an officer's machine has about a request that was approved.
func (n *names) opening(r *unmaskRequest, got *receipt) unmaskOpening {
	n.t.Helper()
	st, err := approval.Parse([]byte(r.Statement))
	if err != nil {
		n.t.Fatal(err)
	}
	return unmaskOpening{request: r, st: st, origin: doorRP.Origin, openingFacts: openingFacts{
		trust: &trustFlags{logs: []string{n.log}, witnesses: []string{n.vkey}}, roster: n.roster, signed: n.both(r.Statement), receipt: got,
		records: filepath.Join(n.t.TempDir(), "statements"), now: n.now()}}
}

// nameOf is the name that a request is about.
func (n *names) nameOf(r *unmaskRequest) vault.Identity {
	n.t.Helper()
	for _, name := range []string{"alice", "bob", "carol"} {
		id := vault.Identity{Kind: event.Mail, Canonical: []byte(name + "@agency.example")}
		if token, err := n.s.tokens.maker.Token(id.Kind, id.Canonical); err == nil && token == r.row.Token {
			return id
		}
	}
	n.t.Fatal("the request is about somebody else")
	return vault.Identity{}
}

// stated tells whether the ledger has a statement of a kind about an object.
func (n *names) stated(kind, key string) bool {
	n.t.Helper()
	_, ok, err := n.s.pipe.Recorder().Fact(n.t.Context(), kind, key)
	if err != nil {
		n.t.Fatal(err)
	}
	return ok
}

// check asks the server as the client of investigation does.
func (n *names) check(user int, status int, says string) func(unmaskCheck) (bool, error) {
	return func(in unmaskCheck) (bool, error) {
		var a unmaskAnswer
		n.does(user, "unmask.check", in, &a, status, says)
		if status != 200 {
			return false, errors.New("refused")
		}
		return a.Same, nil
	}
}

// TestUnmaskRequest: who may ask, about whom, and what must be there.
func TestUnmaskRequest(t *testing.T) {
	t.Parallel()
	n := openNames(t)
	ask := unmaskAsk{n.who[0], "who signed in from there", "Ines Vogel", 60}
	with := func(change func(*unmaskAsk)) unmaskAsk { a := ask; change(&a); return a }

	n.does(0, "unmask.request", ask, nil, 403, "authorisation")
	waits := n.request(n.who[0])
	n.does(0, "unmask.request", ask, nil, 403, "not decided yet")
	n.does(privacyOfficer, "authorise", authoriseNamed{ID: waits.ID, Digest: waits.Digest, Approve: true}, nil, 200, "")
	n.does(0, "unmask.request", with(func(a *unmaskAsk) { a.Alias = n.who[1] }), nil, 403, "authorisation")
	for _, user := range []int{colleague, overseer, privacyOfficer, complianceUser} {
		n.does(user, "unmask.request", ask, nil, 403, "")
	}
	for name, bad := range map[string]unmaskAsk{
		"a name":       with(func(a *unmaskAsk) { a.Alias = "alice@agency.example" }),
		"no alias":     with(func(a *unmaskAsk) { a.Alias = "" }),
		"a stranger":   with(func(a *unmaskAsk) { a.Alias = "mail-aaaaaa" }),
		"no reason":    with(func(a *unmaskAsk) { a.Reason = "" }),
		"no requester": with(func(a *unmaskAsk) { a.Requester = " " }),
		"for ever":     with(func(a *unmaskAsk) { a.Minutes = 1 << 20 }),
		"for no time":  with(func(a *unmaskAsk) { a.Minutes = 0 }),
	} {
		if code, text := n.as(0, "POST", "/api/v1/acts/unmask.request", url.Values{"case": {"C-17"}}, bad); code != 400 {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}
	if code, text := n.as(0, "POST", "/api/v1/acts/unmask.request", nil, ask); code != 400 || !strings.Contains(text, "case") {
		t.Errorf("without a case: %d %s", code, text)
	}
	n.does(socketUser, "unmask.request", ask, nil, 403, "signed by the passkey of who asks")

	code, text := n.as(0, "POST", "/api/v1/acts/unmask.request", url.Values{"case": {"C-17"}}, ask)
	if at, _ := event.NextToken([]byte(text)); code != 200 || at >= 0 || strings.Contains(text, "alice") {
		t.Fatalf("%d: a canonical token or a name leaves the server\n%s", code, text)
	}
	var w unmaskWaits
	if err := json.Unmarshal([]byte(text), &w); err != nil || w.URL != "https://logs.example/login/sign/"+w.ID {
		t.Fatal(w.URL, err)
	}
	// A command without a running server has no page.
	l := n.s.signin.l
	n.s.signin.l = nil
	n.does(0, "unmask.request", ask, nil, 403, "no server runs")
	n.s.signin.l = l
	// Nobody has signed it: the officers have nothing, the ledger knows nothing.
	if n.stated("approval.requested", w.ID) {
		t.Error("the ledger has a request that nobody signed")
	}
	n.does(0, "unmask.approve", unlockDecided{w.Statement, n.both(w.Statement)}, nil, 403, "knows no request")
	n.does(0, "unmask.collect", map[string]string{"request": "0d1a53a4-7e0c-4c53-8d2f-3a3c2f5b0001"}, nil, 403, "no request of yours")
	n.does(socketUser, "unmask.collect", map[string]string{"request": w.ID}, nil, 403, "passkey of who asks")
	// It waits for the signature, and gives what was signed.
	done := make(chan string, 1)
	go func() {
		_, text := n.as(0, "POST", "/api/v1/acts/unmask.collect", url.Values{"case": {"C-17"}}, map[string]string{"request": w.ID})
		done <- text
	}()
	n.away.Store(true)
	if code, text := n.person.signs(w.ID); code != 503 || !strings.Contains(text, "unstated") {
		t.Fatalf("without a witness: %d %s", code, text)
	}
	if text := <-done; !strings.Contains(text, `"code":"unwitnessed"`) {
		t.Errorf("a request that no witness has seen: %s", text)
	}
	n.does(0, "unmask.collect", map[string]string{"request": w.ID}, nil, 503, "")
	n.away.Store(false)
	other := n.asked(n.who[0], "Ines Vogel") // the next checkpoint reaches the witness
	code, text = n.as(0, "POST", "/api/v1/acts/unmask.collect", url.Values{"case": {"C-17"}}, map[string]string{"request": w.ID})
	if at, _ := event.NextToken([]byte(text)); code != 200 || at >= 0 || strings.Contains(text, "alice") {
		t.Fatalf("%d: a canonical token or a name leaves the server\n%s", code, text)
	}
	r := n.collected(w.ID)
	st, err := approval.Parse([]byte(r.Statement))
	if err != nil || r.Statement != w.Statement || r.Statement == other.Statement {
		t.Fatal("another statement than was signed", err)
	}
	for _, want := range []string{n.who[0], "C-17", "Ines Vogel", "who signed in from there", "account " + n.person.id} {
		if !strings.Contains(st.Words(), want) {
			t.Errorf("the officers are not told %q:\n%s", want, st.Words())
		}
	}
	if st.ExpiresAt().Sub(st.MadeAt()) > 24*time.Hour {
		t.Error("it lasts for more than a day")
	}

	// Nothing is sealed of who was seen before there were officers, or was erased.
	token, err := n.s.web.Meant(t.Context(), n.who[0])
	if err == nil && event.IsToken([]byte(token)) {
		t.Fatal("an alias of the case is turned back outside of it")
	}
	n.erases(r.row.Token)
	n.does(0, "unmask.request", ask, nil, 403, "nothing is sealed")
	// The authorisation ends: nothing can be asked under it.
	n.does(0, "authorise.end", authoriseNamed{ID: waits.ID, Reason: "done"}, nil, 200, "")
	n.does(0, "unmask.request", ask, nil, 403, "has ended")
}

// TestUnmaskSigning: what held when a request was made must hold when it is signed, and who
// waits for the signature hears what came of it.
func TestUnmaskSigning(t *testing.T) {
	t.Parallel()
	n := openNames(t)
	auth := n.authorised(n.who[0])
	ask := unmaskAsk{n.who[0], "who signed in from there", "Ines Vogel", 60}
	var w, late, open unmaskWaits
	for _, into := range []*unmaskWaits{&w, &late, &open} {
		n.does(0, "unmask.request", ask, into, 200, "")
	}
	waiting := func(id string) <-chan string {
		done := make(chan string, 1)
		go func() { // ends with the answer
			_, text := n.as(0, "POST", "/api/v1/acts/unmask.collect", url.Values{"case": {"C-17"}}, map[string]string{"request": id})
			done <- text
		}()
		return done
	}
	n.does(0, "authorise.end", authoriseNamed{ID: auth.ID, Reason: "done"}, nil, 200, "")
	done := waiting(w.ID)
	if code, text := n.person.signs(w.ID); code != 403 || !strings.Contains(text, "no authorisation in force") {
		t.Errorf("signed without an authorisation: %d %s", code, text)
	}
	if text := <-done; !strings.Contains(text, "no authorisation in force") || !strings.Contains(text, "unmask request") {
		t.Errorf("who waits is told %s", text)
	}
	if n.stated("approval.requested", w.ID) {
		t.Error("the ledger has a request that was refused")
	}
	n.does(0, "unmask.collect", map[string]string{"request": w.ID}, nil, 403, "no authorisation in force")

	// A passkey that the ledger does not know signs nothing.
	n.authorised(n.who[0])
	list, err := n.s.signin.login.Enrolments(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if e.Account == n.person.id {
			if _, err := n.s.pipe.Recorder().Record(t.Context(), attest.Act{Kind: "login.passkey_added", Actor: attest.System, Subject: []string{e.Passkey}, Detail: map[string]any{"account": e.Account, "record": strings.Repeat("0", 64)}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if code, text := n.person.signs(open.ID); code != 403 || !strings.Contains(text, "does not know this passkey") {
		t.Errorf("signed by a passkey that nobody stated: %d %s", code, text)
	}

	n.later(login.SignLife)
	n.does(0, "unmask.collect", map[string]string{"request": late.ID}, nil, 403, "nobody signed the request in time")
	if code, _ := n.person.signs(late.ID); code != 410 {
		t.Errorf("signed late: %d", code)
	}
	n.does(0, "unmask.request", ask, &late, 200, "")
	done = waiting(late.ID)
	n.stop()
	if text := <-done; !strings.Contains(text, "the server stops") || !strings.Contains(text, "unmask collect "+late.ID) {
		t.Errorf("when the server stops, who waits is told %s", text)
	}
}

// TestUnmaskApprove: what the server takes for the approval of two officers.
func TestUnmaskApprove(t *testing.T) {
	t.Parallel()
	n := openNames(t)
	auth := n.authorised(n.who[0])
	one := n.asked(n.who[0], "Ines Vogel")
	other := n.asked(n.who[0], "Ines Vogel")
	st, err := approval.Parse([]byte(one.Statement))
	if err != nil {
		t.Fatal(err)
	}
	unasked := func(action string) string { // a statement that the ledger does not know
		_, b, err := approval.New(approval.Ask{Action: action, Case: st.Case, Purpose: st.Purpose, Requester: st.Requester, Objects: st.Objects, Org: n.s.pipe.Org(), Grant: st.Grant()}, n.now())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for name, c := range map[string]struct {
		requester string
		signed    func(statement string) []approval.Signed
		says      string
	}{
		"one decision":      {"Ines Vogel", func(s string) []approval.Signed { return n.sign(approval.Approve, s, "ovs") }, "requested"},
		"none":              {"Ines Vogel", func(s string) []approval.Signed { return nil }, "requested"},
		"two of one office": {"Ines Vogel", func(s string) []approval.Signed { return n.sign(approval.Approve, s, "inv", "inv2") }, "another office"},
		"one of them forged": {"Ines Vogel", func(s string) []approval.Signed {
			signed := n.both(s)
			signed[1].Signature = signed[0].Signature
			return signed
		}, "signature"},
		"of another request": {"Ines Vogel", func(string) []approval.Signed { return n.both(other.Statement) }, "signature"},
		"of a stranger": {"Ines Vogel", func(s string) []approval.Signed {
			signed, err := n.strangeKey.Sign(approval.Approve, []byte(s))
			if err != nil {
				t.Fatal(err)
			}
			return append(n.sign(approval.Approve, s, "ovs"), signed)
		}, "no officer of the roster"},
		"of who asks": {"ada IHLE", n.both, "does not decide on it"},
	} {
		r := n.asked(n.who[0], c.requester)
		code, text := n.as(0, "POST", "/api/v1/acts/unmask.approve", url.Values{"case": {"C-17"}}, unlockDecided{r.Statement, c.signed(r.Statement)})
		if code != 403 || !strings.Contains(text, c.says) {
			t.Errorf("%s: %d, want 403 with %q\n%s", name, code, c.says, text)
		}
	}
	for action, says := range map[string]string{actionUnmask: "knows no request", actionUnlock: "something else"} {
		s := unasked(action)
		n.does(0, "unmask.approve", unlockDecided{s, n.both(s)}, nil, 403, says)
	}
	n.does(0, "unmask.approve", unlockDecided{"{}", nil}, nil, 403, "statement")
	// The approval of a name opens no originals.
	n.does(0, "unlock.approve", unlockDecided{one.Statement, n.both(one.Statement)}, nil, 403, "something else")
	n.does(colleague, "unmask.approve", unlockDecided{one.Statement, n.both(one.Statement)}, nil, 403, "")

	refused := n.asked(n.who[0], "Ines Vogel")
	n.does(0, "unmask.approve", unlockDecided{refused.Statement, n.sign(approval.Refuse, refused.Statement, "ovs")}, nil, 403, "refused")
	n.does(0, "unmask.approve", unlockDecided{refused.Statement, n.both(refused.Statement)}, nil, 403, "")

	n.away.Store(true)
	n.does(0, "unmask.approve", unlockDecided{one.Statement, n.both(one.Statement)}, nil, 503, "")
	n.away.Store(false)
	n.asked(n.who[0], "Ines Vogel") // the next checkpoint reaches the witness
	got := n.approved(one)
	if again := n.approved(one); again.Leaf != got.Leaf {
		t.Error("asked again it is another receipt")
	}
	if !n.stated("approval.used", st.ID) {
		t.Error("the approval was not used up")
	}

	n.spoiledApprovals()

	// What held at the request must hold now.
	erased, late := n.asked(n.who[0], "Ines Vogel"), n.asked(n.who[0], "Ines Vogel")
	n.does(0, "authorise.end", authoriseNamed{ID: auth.ID, Reason: "done"}, nil, 200, "")
	n.does(0, "unmask.approve", unlockDecided{erased.Statement, n.both(erased.Statement)}, nil, 403, "no authorisation in force")
	n.authorised(n.who[0])
	n.later(25 * time.Hour)
	n.does(0, "unmask.approve", unlockDecided{late.Statement, n.both(late.Statement)}, nil, 403, "expired")
	n.later(-25 * time.Hour)
	n.erases(erased.row.Token)
	n.does(0, "unmask.approve", unlockDecided{erased.Statement, n.both(erased.Statement)}, nil, 403, "not in the vault")
}

// unwitnessed takes the signatures of witnesses off a proof.
func unwitnessed(proof, log string) string {
	name, _, _ := strings.Cut(log, "+")
	var out []string
	for _, line := range strings.Split(proof, "\n") {
		if !strings.HasPrefix(line, "— ") || strings.HasPrefix(line, "— "+name+" ") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

// TestUnmaskOfficers: what an officer's machine opens for, by what it can check itself.
func TestUnmaskOfficers(t *testing.T) {
	t.Parallel()
	n := openNames(t)
	n.authorised(n.who[0])
	r, other := n.asked(n.who[0], "Ines Vogel"), n.asked(n.who[0], "Ines Vogel")
	got, elsewhere := n.approved(r), n.approved(other)
	b64 := base64.RawURLEncoding.EncodeToString
	resealed, err := vault.Seal(n.roster.Escrow(), n.s.pipe.Org(), r.row.Token, vault.Identity{Kind: event.Mail, Canonical: []byte("mallory@agency.example")})
	if err != nil {
		t.Fatal(err)
	}
	strange, err := n.strangeKey.Sign(approval.Approve, []byte(r.Statement))
	if err != nil {
		t.Fatal(err)
	}
	changed := func(change func(*unmaskRequest)) *unmaskRequest { c := *r; change(&c); return n.travelled(&c) }
	spoiled := map[string]func(*unmaskOpening){
		"one decision":                func(u *unmaskOpening) { u.signed = u.signed[:1] },
		"no decision":                 func(u *unmaskOpening) { u.signed = nil },
		"one decision twice":          func(u *unmaskOpening) { u.signed = []approval.Signed{u.signed[1], u.signed[1]} },
		"two of one office":           func(u *unmaskOpening) { u.signed = n.sign(approval.Approve, r.Statement, "ovs", "ovs2") },
		"one refuses":                 func(u *unmaskOpening) { u.signed[0] = n.sign(approval.Refuse, r.Statement, "inv")[0] },
		"a forged signature":          func(u *unmaskOpening) { u.signed[0].Signature = u.signed[1].Signature },
		"a decision on another":       func(u *unmaskOpening) { u.signed[0] = n.both(other.Statement)[0] },
		"a stranger decides":          func(u *unmaskOpening) { u.signed[0] = strange },
		"the receipt of another":      func(u *unmaskOpening) { u.receipt = elsewhere },
		"a forged receipt":            func(u *unmaskOpening) { u.receipt = &receipt{strings.Replace(got.Leaf, "60", "61", 1), got.Proof, 1} },
		"the proof of another":        func(u *unmaskOpening) { u.receipt = &receipt{got.Leaf, elsewhere.Proof, 1} },
		"no witness saw the approval": func(u *unmaskOpening) { u.receipt = &receipt{got.Leaf, unwitnessed(got.Proof, n.log), 1} },
		"no witness saw the seal": func(u *unmaskOpening) {
			u.request = changed(func(q *unmaskRequest) { q.Window.Proof = unwitnessed(q.Window.Proof, n.log) })
		},
		"another log": func(u *unmaskOpening) {
			u.trust = &trustFlags{logs: []string{strings.Replace(n.log, "counterseal/", "counterseal/x", 1)}, witnesses: u.trust.witnesses}
		},
		"the window of the approval": func(u *unmaskOpening) { u.request = changed(func(q *unmaskRequest) { q.Window = *got }) },
		"another way to the root": func(u *unmaskOpening) {
			u.request = changed(func(q *unmaskRequest) { q.Path = append(slices.Clone(q.Path), q.Path[0]) })
		},
		"a seal made later":              func(u *unmaskOpening) { u.request = changed(func(q *unmaskRequest) { q.Row = b64(resealed.Bytes) }) },
		"a statement about a later seal": func(u *unmaskOpening) { n.reseal(u, resealed) },
		"who asks decides":               func(u *unmaskOpening) { n.own(u) },
		"late":                           func(u *unmaskOpening) { u.now = u.now.Add(61 * time.Minute) },
		"after its expiry":               func(u *unmaskOpening) { u.now = u.now.Add(25 * time.Hour) },
		"before it was made":             func(u *unmaskOpening) { u.now = u.now.Add(-time.Hour) },
		"signed by nobody":               func(u *unmaskOpening) { c := *r; c.By = nil; u.request = &c }, // TestUnmaskSignable has the others
		"signed at another server":       func(u *unmaskOpening) { u.origin = "https://evil.example" },
		"who asks decides, by account":   n.decidesByAccount,
		"it cannot be recorded":          func(u *unmaskOpening) { u.records = filepath.Join(n.sh.at("officers.yaml"), "x") },
	}
	for name, spoil := range spoiled {
		u := n.opening(r, got)
		spoil(&u)
		if b, err := u.outer(n.keys["ovs"]); err == nil || b != nil {
			t.Errorf("%s: oversight opened", name)
		}
	}
	for _, wrong := range []string{"inv", "inv2"} {
		u := n.opening(r, got)
		if _, err := u.outer(n.keys[wrong]); !errors.Is(err, officer.ErrOtherOfficer) {
			t.Errorf("%s opens the layer of oversight: %v", wrong, err)
		}
	}
	u := n.opening(r, got)
	handover, err := u.outer(n.keys["ovs"])
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(handover, []byte("alice")) {
		t.Fatal("oversight sees the name")
	}
	if _, err := u.outer(n.keys["ovs"]); !errors.Is(err, approval.ErrUsed) {
		t.Errorf("the second time: %v", err)
	}
	u2 := n.opening(other, elsewhere)
	second, err := u2.outer(n.keys["ovs"])
	if err != nil {
		t.Fatal(err)
	}

	never := func(unmaskCheck) (bool, error) { t.Error("the server is asked about a name"); return true, nil }
	for name, spoil := range spoiled {
		u := n.opening(r, got)
		u.handover = handover
		spoil(&u)
		if id, err := u.inner(n.keys["inv"], never); err == nil || id.Canonical != nil {
			t.Errorf("%s: investigation opened", name)
		}
	}
	for name, spoil := range map[string]func(*unmaskOpening) string{
		"no handover":              func(u *unmaskOpening) string { u.handover = nil; return "inv" },
		"the handover of another":  func(u *unmaskOpening) string { u.handover = second; return "inv" },
		"the box as it was sealed": func(u *unmaskOpening) string { u.handover = rebox(t, handover, r.row.Boxes()[0].Box); return "inv" },
		"the wrong office":         func(*unmaskOpening) string { return "ovs" },
		"the spare of this office": func(*unmaskOpening) string { return "inv2" },
		"the spare of the other":   func(*unmaskOpening) string { return "ovs2" },
		"a handover with a changed box": func(u *unmaskOpening) string {
			u.handover = rebox(t, handover, bytes.Repeat([]byte{7}, 1400))
			return "inv"
		},
	} {
		u := n.opening(r, got)
		u.handover = handover
		who := spoil(&u)
		if id, err := u.inner(n.keys[who], never); err == nil || id.Canonical != nil {
			t.Errorf("%s: investigation opened", name)
		}
	}
	u = n.opening(r, got)
	u.handover = handover
	id, err := u.inner(n.keys["inv"], n.check(0, 200, `"same":true`))
	name := string(n.nameOf(r).Canonical)
	if err != nil || string(id.Canonical) != name || id.Kind != event.Mail {
		t.Fatalf("the name does not come out: %v", err)
	}
	if !n.stated("unmask.opened", u.st.ID) || n.stated("unmask.mismatch", u.st.ID) {
		t.Error("the ledger does not know that the name was opened")
	}
	// The spares do the same without them, and the doctor knows when they last did.
	spares := func(state, says string) {
		t.Helper()
		if c, err := n.s.spareChecks(t.Context()); err != nil || len(c) != 1 || c[0].State != state || !strings.Contains(c[0].Text, says) {
			t.Errorf("want %s %q, got %+v %v", state, says, c, err)
		}
	}
	spares("ok", "have opened nothing yet")
	n.bureau.later(rehearseFirst)
	spares("warn", "have opened nothing yet")
	n.bureau.later(-rehearseFirst)
	u2 = n.opening(n.asked(n.who[0], "Ines Vogel"), nil)
	u2.signed = n.sign(approval.Approve, u2.request.Statement, "inv2", "ovs2")
	n.does(0, "unmask.approve", unlockDecided{u2.request.Statement, u2.signed}, &u2.receipt, 200, "")
	if u2.handover, err = u2.outer(n.keys["ovs2"]); err != nil {
		t.Fatal(err)
	}
	u2.records += "-inv2" // another machine
	if id, err = u2.inner(n.keys["inv2"], n.check(0, 200, "")); err != nil || string(id.Canonical) != name {
		t.Fatalf("the spares open nothing: %v", err)
	}
	spares("ok", "opened a name on "+n.now().Format(time.DateOnly))
	n.bureau.later(rehearseAgain)
	spares("warn", "opened a name on")
	n.noName(name)
}

// reseal makes a statement about another seal than the one of the first sighting, and has
// everybody stand for it: the ledger still knows no window with it.
func (n *names) reseal(u *unmaskOpening, row *vault.Row) {
	c := row.Commitment()
	o, err := parseUnmaskObjects(u.st.Objects)
	if err != nil {
		n.t.Fatal(err)
	}
	o.seal = fmt.Sprintf("%x", c)
	st, b, err := approval.New(approval.Ask{Action: actionUnmask, Case: u.st.Case, Purpose: u.st.Purpose, Requester: u.st.Requester, Objects: o.list(), Org: n.s.pipe.Org(), Grant: time.Hour}, n.now())
	if err != nil {
		n.t.Fatal(err)
	}
	q := *u.request
	q.Row, q.Statement = base64.RawURLEncoding.EncodeToString(row.Bytes), string(b)
	u.request, u.st, u.signed = n.travelled(&q), st, n.both(string(b))
}

// own makes a request whose asker is one of the two who decide, and a server that lets
// them: the ledger has the approval, and witnesses have seen it.
func (n *names) own(u *unmaskOpening) {
	n.t.Helper()
	r := n.asked(n.who[0], "ada IHLE")
	st, err := approval.Parse([]byte(r.Statement))
	if err != nil {
		n.t.Fatal(err)
	}
	got, err := n.s.pipe.Recorder().Critical(n.t.Context(), attest.Act{Kind: "unmask.approved", Actor: attest.System, Subject: []string{st.ID},
		Detail: unmaskApproved{Case: st.Case, Minutes: st.Minutes, Request: st.ID, Statement: fmt.Sprintf("%x", approval.Digest([]byte(r.Statement)))}})
	if err != nil {
		n.t.Fatal(err)
	}
	seen, err := n.s.receiptOf(n.t.Context(), got.Index)
	if err != nil {
		n.t.Fatal(err)
	}
	u.request, u.st, u.signed, u.receipt, u.now = r, st, n.both(r.Statement), seen, n.now()
}

// rebox puts another box into a handover.
func rebox(t *testing.T, handover, box []byte) []byte {
	t.Helper()
	h, err := officer.ParseHandover(bytes.TrimSpace(handover))
	if err != nil {
		t.Fatal(err)
	}
	h.Box = base64.RawURLEncoding.EncodeToString(box)
	b, err := approval.Canonical(h)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// noName looks for a name in all that the server keeps.
func (n *names) noName(name string) {
	n.t.Helper()
	err := filepath.WalkDir(n.sh.at("data"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(name)) {
			n.t.Errorf("%s holds a name that was opened", path)
		}
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

// TestUnmaskCheck: the server says yes or no to one name, once, for one request.
func TestUnmaskCheck(t *testing.T) {
	t.Parallel()
	n := openNames(t)
	n.authorised(n.who[0])
	idOf := func(r *unmaskRequest) string {
		st, err := approval.Parse([]byte(r.Statement))
		if err != nil {
			t.Fatal(err)
		}
		return st.ID
	}
	r := n.asked(n.who[0], "Ines Vogel")
	id, right, wrong := idOf(r), n.nameOf(r), n.nameOf(r)
	wrong.Canonical = append([]byte("x"), wrong.Canonical...)
	n.does(0, "unmask.check", newUnmaskCheck(id, right), nil, 403, "not approved")
	n.approved(r)
	n.does(0, "unmask.check", newUnmaskCheck("0d1a53a4-7e0c-4c53-8d2f-3a3c2f5b0001", right), nil, 403, "not approved")
	n.does(0, "unmask.check", unmaskCheck{Request: id}, nil, 400, "no name")
	n.does(0, "unmask.check", unmaskCheck{Request: id, Kind: "m", Identity: []byte("x")}, nil, 400, "no name") // its digest would confirm a guess
	for _, user := range []int{colleague, overseer, privacyOfficer} {
		n.does(user, "unmask.check", newUnmaskCheck(id, right), nil, 403, "")
	}
	n.does(0, "unmask.check", newUnmaskCheck(id, right), nil, 200, `"same":true`)
	n.does(0, "unmask.check", newUnmaskCheck(id, right), nil, 403, "once")
	if !n.stated("alarm.raised", "unmask.repeated") {
		t.Error("a second question raises no alarm")
	}

	// A guess is one guess, and everybody hears of it.
	r = n.asked(n.who[0], "Ines Vogel")
	id = idOf(r)
	n.approved(r)
	n.does(0, "unmask.check", newUnmaskCheck(id, wrong), nil, 200, `"same":false`)
	n.does(0, "unmask.check", newUnmaskCheck(id, right), nil, 403, "once")
	if !n.stated("unmask.mismatch", id) || !n.stated("alarm.raised", "unmask.mismatch") || n.stated("unmask.opened", id) {
		t.Error("a name that does not give the token raises no alarm")
	}

	r = n.asked(n.who[0], "Ines Vogel")
	n.approved(r)
	n.later(61 * time.Minute)
	n.does(0, "unmask.check", newUnmaskCheck(idOf(r), right), nil, 403, "over")
	n.later(-61 * time.Minute)

	// The server sealed another name than the one that it saw: the officers open it, and the
	// client discards it.
	v := n.s.pipe.Vault()
	n.erases(r.row.Token)
	if _, err := v.Tokenizer(fixedToken(r.row.Token)).Token(event.Mail, []byte("mallory@agency.example")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(v.Keep(t.Context(), "app", n.now()), v.CloseWindow(t.Context())); err != nil {
		t.Fatal(err)
	}
	r = n.asked(n.who[0], "Ines Vogel")
	u := n.opening(r, n.approved(r))
	var err error
	if u.handover, err = u.outer(n.keys["ovs"]); err != nil {
		t.Fatal(err)
	}
	u.records += "-inv"
	got, err := u.inner(n.keys["inv"], n.check(0, 200, `"same":false`))
	if err == nil || got.Canonical != nil || strings.Contains(err.Error(), "mallory") {
		t.Fatalf("a name that is not the one is shown: %v", err)
	}
	n.noName("mallory")
	n.noName(string(right.Canonical))

	// After a rotation of the key holder the name behind an older alias opens as before.
	n.authorised(n.who[1])
	right = n.nameOf(n.asked(n.who[1], "Ines Vogel"))
	n.stop()
	if _, err := keyholder.Rotate(n.sh.at("data-keyholder"), n.now(), nil); err != nil {
		t.Fatal(err)
	}
	n.open()
	n.signIn()
	r = n.asked(n.who[1], "Ines Vogel")
	n.does(0, "unmask.check", unmaskCheck{Request: idOf(r), Ready: true}, nil, 403, "not approved")
	n.approved(r)
	n.does(0, "unmask.check", unmaskCheck{Request: idOf(r), Ready: true}, nil, 200, `"ready":true`)
	n.does(0, "unmask.check", newUnmaskCheck(idOf(r), right), nil, 200, `"same":true`)
	n.does(0, "unmask.check", unmaskCheck{Request: idOf(r), Ready: true}, nil, 403, "once")
}

// fixedToken gives one token for everything.
type fixedToken event.Token

func (f fixedToken) Token(event.TokenKind, []byte) (event.Token, error) { return event.Token(f), nil }

// TestUnmaskQuota: names are counted by case and month, and many need a third decision.
func TestUnmaskQuota(t *testing.T) {
	n := openNames(t)
	n.authorised(n.who[0])
	waiting := n.asked(n.who[0], "Ines Vogel")
	for range unmaskFew {
		n.approved(n.asked(n.who[0], "Ines Vogel"))
	}
	ask := unmaskAsk{n.who[0], "one more", "Ines Vogel", 60}
	n.does(0, "unmask.request", ask, nil, 403, "third decision")
	n.does(0, "unmask.approve", unlockDecided{waiting.Statement, n.both(waiting.Statement)}, nil, 403, "third decision")
	// Counsel decides too.
	now := n.now()
	var r authorisationRow
	n.does(0, "authorise.request", authoriseAsk{
		whom: whom{People: n.who[:1]}, From: now.AddDate(0, 0, -30), To: now.Add(time.Hour), Predicate: "finding-1", Basis: "law-1", Ends: now.AddDate(0, 0, 2), Counsel: true,
	}, &r, 200, "")
	n.does(privacyOfficer, "authorise", authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}, nil, 200, "")
	n.does(0, "unmask.request", ask, nil, 403, "third decision")
	n.does(overseer, "authorise", authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}, nil, 200, "")
	n.does(0, "unmask.request", ask, nil, 200, "")
	n.does(0, "unmask.approve", unlockDecided{waiting.Statement, n.both(waiting.Statement)}, nil, 200, "")
}

func FuzzParseUnmask(f *testing.F) {
	var keys [4]keyring.PublicKey
	for i := range keys {
		k, err := keyring.NewPrivateKey()
		if err != nil {
			f.Fatal(err)
		}
		keys[i] = k.Public()
	}
	e := &keyring.Escrow{Epoch: 1, Main: keyring.Pair{Investigation: keys[0], Oversight: keys[1]}, Spare: keyring.Pair{Investigation: keys[2], Oversight: keys[3]}}
	org := [16]byte{6: 0x40, 8: 0x80}
	row, err := vault.Seal(e, org, event.NewToken(event.Person, 1, [16]byte{1}), vault.Identity{Kind: event.Person, Canonical: []byte("x")})
	if err != nil {
		f.Fatal(err)
	}
	_, statement, err := approval.New(approval.Ask{Action: actionUnmask, Case: "C", Purpose: "p", Requester: "r", Objects: []string{"alias a", "seal b", "window c 0", "account d"}, Org: org, Grant: time.Hour}, time.Now())
	if err != nil {
		f.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	signed := passkey.Signed{AuthenticatorData: b64(make([]byte, 37)), ClientData: b64([]byte("{}")), Signature: b64(make([]byte, 64)), V: 1, Record: passkey.Record{
		AAGUID: strings.Repeat("0", 32), Account: "u_A", ID: "AA", Origin: doorRP.Origin, PublicKey: b64(make([]byte, 77)), RPID: doorRP.ID, V: 1}}
	b, err := approval.Canonical(&unmaskRequest{Path: []string{}, Row: b64(row.Bytes), Statement: string(statement), V: 2, Window: receipt{V: 1},
		By: &signedBy{Signed: signed, Enrolled: receipt{V: 1}, Requested: receipt{V: 1}, V: 1}})
	if err != nil {
		f.Fatal(err)
	}
	if _, _, err := parseUnmask(b); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, st, err := parseUnmask(b)
		if err != nil {
			return
		}
		if r.row == nil || st.Action != actionUnmask {
			t.Error("a request without its parts")
		}
		if _, err := r.verify(st, ledger.Verifiers{Log: []string{"x"}}); err == nil {
			t.Error("it is proved by nobody")
		}
		if _, err := r.By.verify(st, []byte(r.Statement), r.By.Signed.Record.Account, r.By.Signed.Record.Origin, ledger.Verifiers{Log: []string{"x"}}, st.MadeAt()); err == nil {
			t.Error("it is signed by nobody")
		}
	})
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
