package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/descope/virtualwebauthn"
	"github.com/go-jose/go-jose/v4"

	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/login"
	"github.com/counterseal/counterseal/internal/web"
)

// provider is a login of an organisation, over HTTP. It lets in whom the test names, with
// a name, a mail address and a group in its tokens.
type provider struct {
	url string
	now func() time.Time

	mu         sync.Mutex // guards what follows
	who, group string
	codes      map[string]url.Values
}

func newProvider(t *testing.T, now func() time.Time) *provider {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &provider{now: now, codes: map[string]url.Values{}}
	send := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(v); err != nil {
			t.Error(err)
		}
	}
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	p.url = srv.URL
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		send(w, map[string]any{"issuer": p.url, "authorization_endpoint": p.url + "/auth", "token_endpoint": p.url + "/token", "jwks_uri": p.url + "/keys", "id_token_signing_alg_values_supported": []string{"ES256"}})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		send(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "1", Algorithm: "ES256", Use: "sig"}}})
	})
	mux.HandleFunc("/auth", func(w http.ResponseWriter, r *http.Request) {
		q, code := r.URL.Query(), rand.Text()
		p.mu.Lock()
		defer p.mu.Unlock()
		q.Set("sub", p.who)
		q.Set("group", p.group)
		p.codes[code] = q
		http.Redirect(w, r, q.Get("redirect_uri")+"?"+url.Values{"code": {code}, "state": {q.Get("state")}}.Encode(), http.StatusFound)
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		q, ok := p.codes[r.FormValue("code")]
		delete(p.codes, r.FormValue("code"))
		p.mu.Unlock()
		sum := sha256.Sum256([]byte(r.FormValue("code_verifier")))
		if !ok || q.Get("code_challenge_method") != "S256" || base64.RawURLEncoding.EncodeToString(sum[:]) != q.Get("code_challenge") {
			w.WriteHeader(http.StatusBadRequest)
			send(w, map[string]string{"error": "invalid_grant"})
			return
		}
		claims, err := json.Marshal(map[string]any{"iss": p.url, "aud": q.Get("client_id"), "sub": q.Get("sub"), "name": q.Get("sub") + " by name", "email": q.Get("sub") + "@owner.example",
			"nonce": q.Get("nonce"), "exp": p.now().Add(time.Hour).Unix(), "iat": p.now().Unix(), "groups": []string{q.Get("group")}})
		if err != nil {
			t.Error(err)
		}
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "1"}}, nil)
		if err != nil {
			t.Error(err)
		}
		signed, err := signer.Sign(claims)
		if err != nil {
			t.Error(err)
		}
		text, err := signed.CompactSerialize()
		if err != nil {
			t.Error(err)
		}
		send(w, map[string]any{"access_token": "x", "token_type": "Bearer", "id_token": text})
	})
	return p
}

// browser is somebody in front of a browser: cookies, redirects, the token of the pages,
// and the headers that tell where a request comes from.
type browser struct {
	t    *testing.T
	c    *http.Client
	csrf string
	seen *strings.Builder // all that was answered, with addresses
}

func (v *browser) ask(method, path, body string, head ...string) (*http.Response, string) {
	v.t.Helper()
	r, err := http.NewRequest(method, "https://logs.example"+path, strings.NewReader(body))
	if err != nil {
		v.t.Fatal(err)
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Origin", "https://logs.example")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		r.Header.Set("X-Csrf-Token", v.csrf)
	}
	for i := 0; i < len(head); i += 2 {
		r.Header.Set(head[i], head[i+1])
	}
	w, err := v.c.Do(r)
	if err != nil {
		v.t.Fatal(err)
	}
	defer w.Body.Close()
	b, err := io.ReadAll(w.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	fmt.Fprintln(v.seen, w.Request.URL, w.Header, string(b))
	if m := regexp.MustCompile(`data-csrf="([^"]*)"`).FindSubmatch(b); m != nil {
		v.csrf = string(m[1])
	}
	return w, string(b)
}

// want asks and compares the status and a part of the answer.
func (v *browser) want(status int, says, method, path, body string, head ...string) string {
	v.t.Helper()
	w, text := v.ask(method, path, body, head...)
	if w.StatusCode != status || !strings.Contains(text, says) {
		v.t.Fatalf("%s %s: got %d, want %d with %q\n%s", method, path, w.StatusCode, status, says, text)
	}
	if status >= 400 && !strings.Contains(text, `"code"`) {
		v.t.Errorf("%s %s is refused without a code\n%s", method, path, text)
	}
	return text
}

// search asks a question in the case of the test.
func (v *browser) search(status int, says, q string, more ...string) string {
	v.t.Helper()
	values := url.Values{"case": {"C-17"}, "purpose": {"intrusion-detection"}, "q": {q}}
	for i := 0; i < len(more); i += 2 {
		values.Set(more[i], more[i+1])
	}
	return v.want(status, says, http.MethodGet, "/api/v1/search?"+values.Encode(), "")
}

// does does an act in the case of the test.
func (v *browser) does(status int, says, act string, in, out any) {
	v.t.Helper()
	b, err := json.Marshal(in)
	if err != nil {
		v.t.Fatal(err)
	}
	text := v.want(status, says, http.MethodPost, "/api/v1/acts/"+act+"?case=C-17&purpose=intrusion-detection", string(b))
	if out != nil {
		if err := json.Unmarshal([]byte(text), out); err != nil {
			v.t.Fatal(err)
		}
	}
}

// byProvider signs in through the provider, as somebody of a group, and gives the account.
func (v *browser) byProvider(p *provider, who, group string) string {
	v.t.Helper()
	p.mu.Lock()
	p.who, p.group = who, group
	p.mu.Unlock()
	v.want(200, "Signed in", http.MethodGet, "/login/oidc/start?next=account", "")
	v.want(200, "Your account", http.MethodGet, "/login/account", "") // has the token of the pages
	return v.me()
}

func (v *browser) me() string {
	v.t.Helper()
	var me struct{ Account string }
	if err := json.Unmarshal([]byte(v.want(200, "", http.MethodGet, "/login/me", "")), &me); err != nil || me.Account == "" {
		v.t.Fatal(err)
	}
	return me.Account
}

// byPasskey signs in with the passkey of a person.
func (v *browser) byPasskey(p *person) {
	v.t.Helper()
	p.cred.Counter++
	o, err := virtualwebauthn.ParseAssertionOptions(v.want(200, "", http.MethodPost, "/login/passkey/begin", "{}"))
	if err != nil {
		v.t.Fatal(err)
	}
	v.want(200, p.id, http.MethodPost, "/login/passkey/finish", virtualwebauthn.CreateAssertionResponse(doorRP, p.auth, p.cred, *o))
	v.want(200, "Your account", http.MethodGet, "/login/account", "")
}

// office is a line of a record of offices.
type office struct{ id, authority, under, holder, roles string }

// inspector watches: without somebody who does nobody looks at people.
var inspector = office{"inspector", "parliament", "", fmt.Sprintf("os-%d", overseer), "overseer"}

func writeOffices(t *testing.T, dir string, all ...office) {
	t.Helper()
	var b strings.Builder
	b.WriteString("form: offices/v1\noffices:\n")
	for _, o := range all {
		fmt.Fprintf(&b, "  - id: %s\n    authority: %s\n    under: %q\n    holder: %s\n    standing: confirmed\n    since: 2020-01-01\n    roles: [%s]\n    training_until: 2099-01-01\n", o.id, o.authority, o.under, o.holder, o.roles)
	}
	if err := os.WriteFile(filepath.Join(dir, "offices.yaml"), []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// layTwoPurposes adds an assessment with another purpose.
func layTwoPurposes(t *testing.T, dir string) {
	t.Helper()
	d := agencyDraft(time.Now())
	d.ID = "PIA-TEST-2026-002"
	d.Sources = d.Sources[:1]
	d.Sources[0].Source = "other"
	if err := os.WriteFile(filepath.Join(dir, "pias", "fraud.yaml"), bytes.ReplaceAll(d.YAML(), []byte("intrusion-detection"), []byte("fraud")), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestWholeWay goes the whole way in browsers over the real listener: login, a look with
// and without a purpose, a question about somebody, an authorisation by somebody of
// another chain of command, its scope, its end, and the end of the session.
func TestWholeWay(t *testing.T) {
	b := &bureau{t: t, dir: t.TempDir()}
	now := func() time.Time { return time.Now().Add(time.Duration(b.ahead.Load())) }
	idp := newProvider(t, now)
	card := layCertificate(t, b.dir, 1)
	oidc, err := json.Marshal(login.OIDC{Issuer: idp.url, ClientID: "counterseal", RedirectURL: "https://logs.example/login/oidc/callback",
		Roles: map[string][]string{"soc": {"analyst"}, "lead": {"privacy_officer"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "provider.json"), oidc, 0o600); err != nil {
		t.Fatal(err)
	}
	writeOffices(t, b.dir, office{"soc", "ciso", "", owner(), "analyst"})
	if err := layAgency(b.dir, "http: off\nreserve: 16MiB\nmemory: 64MiB\noffices: offices.yaml\nown_rules: false\nrules: [rules]\nlogin: {address: \"127.0.0.1:0\", origin: \"https://logs.example\", cert: cert.pem, key: key.pem, oidc: provider.json}\n"); err != nil {
		t.Fatal(err)
	}
	layTwoPurposes(t, b.dir)
	if err := os.Mkdir(filepath.Join(b.dir, "rules"), 0o700); err != nil {
		t.Fatal(err)
	}
	b.rule("one")
	var log bytes.Buffer
	b.s, b.stop = inProcess(t, b.dir, now, &log)
	b.signins()

	var seen strings.Builder
	client := func() *http.Client { return doorClient(t, card, func() net.Addr { return b.s.signin.l.Addr() }) }
	newBrowser := func() *browser { return &browser{t: t, c: client(), seen: &seen} }

	// A stranger is led to the login; a program of theirs hears where it is.
	stranger := newBrowser()
	if w, _ := stranger.ask(http.MethodGet, "/", ""); w.Request.URL.Path != "/login/" {
		t.Errorf("a stranger comes to %s", w.Request.URL)
	}
	stranger.search(401, "/login/", "source = idp")

	// The analyst and the head of the office above come by the provider, the privacy
	// officer by an invitation and a passkey. Then they are put in office.
	analyst, colleague, lead, officer := newBrowser(), newBrowser(), newBrowser(), newBrowser()
	analystID := analyst.byProvider(idp, "planted.analyst", "soc")
	colleagueID := colleague.byProvider(idp, "planted.colleague", "soc")
	leadID := lead.byProvider(idp, "planted.lead", "lead")
	if w, _ := newBrowser().byRefusal(idp, "planted.stranger", "canteen"); w.StatusCode != 403 {
		t.Errorf("somebody without a role: %d", w.StatusCode)
	}
	invited, err := act[accountSecret](t, b.s.signin.accountInvite, accountInvite{[]string{"privacy_officer"}})
	if err != nil {
		t.Fatal(err)
	}
	privacy := newPerson(t, officer.c, invited.Secret)
	officer.want(200, "Your account", http.MethodGet, "/login/account", "")
	writeOffices(t, b.dir,
		office{"soc", "ciso", "lead", analystID, "analyst"}, office{"soc-night", "ciso", "lead", analystID, "responder"}, office{"soc-two", "ciso", "lead", colleagueID, "analyst"},
		office{"lead", "court", "", leadID, "privacy_officer"}, office{"privacy", "board", "", privacy.id, "privacy_officer"}, inspector)
	if err := b.s.reloadForce(t.Context()); err != nil {
		t.Fatal(err)
	}

	// One person makes accounts: that puts nobody into a seat.
	invited, err = act[accountSecret](t, b.s.signin.accountInvite, accountInvite{[]string{"overseer", "privacy_officer", "investigator"}})
	if err != nil {
		t.Fatal(err)
	}
	crony := newBrowser()
	newPerson(t, crony.c, invited.Secret)
	crony.want(200, "Your account", http.MethodGet, "/login/account", "")
	for _, name := range []string{"notice.list", "oversight.queue", "unmask.check", "channels.remove", "authorise.list"} {
		crony.does(403, `"code":"refused"`, name, struct{}{}, nil)
	}

	// Why is asked first. The answer shows aliases.
	analyst.search(403, "the purposes are: fraud, intrusion-detection", "source = idp", "purpose", "")
	analyst.search(400, "the purposes are: fraud, intrusion-detection", "source = idp", "purpose", "curiosity")
	text := analyst.search(200, "", "source = idp")
	who := regexp.MustCompile(`mail-[a-z2-7]{6,}`).FindAllString(text, -1)
	slices.Sort(who)
	if who = slices.Compact(who); len(who) != 3 || strings.Contains(text, "alice") || hasToken([]byte(text)) {
		t.Fatalf("%d people, want 3 by alias alone\n%s", len(who), text)
	}
	analyst.search(200, "", "source = idp", "purpose", "fraud")
	about := func(i int) string { return "class_uid = 3002 and user.uid = " + who[i] }
	analyst.search(403, "counterseal authorise request", about(0))

	// An office is named, or it is the first; another's is refused.
	for named, status := range map[string]int{"": 200, "soc": 200, "soc-night": 200, "privacy": 403} {
		if w, text := analyst.ask(http.MethodGet, "/api/v1/search?case=C-17&purpose=intrusion-detection&q=source+%3D+idp", "", web.OfficeHeader, named); w.StatusCode != status || status == 403 && !strings.Contains(text, "soc, soc-night") {
			t.Errorf("in the office %q: %d\n%s", named, w.StatusCode, text)
		}
	}

	// The request, which no other site and no page without the token makes.
	ask := authoriseAsk{whom: whom{People: who[:1]}, From: b.now().AddDate(0, 0, -30).Truncate(time.Second), To: b.now().Add(time.Second).Truncate(time.Second), Predicate: "finding-1", Basis: "law-1", Ends: b.now().Add(15 * time.Minute)}
	raw, err := json.Marshal(ask)
	if err != nil {
		t.Fatal(err)
	}
	for _, head := range [][]string{{"X-Csrf-Token", ""}, {"X-Csrf-Token", "A" + analyst.csrf}, {"X-Csrf-Token", lead.csrf}, {"Sec-Fetch-Site", "cross-site", "Origin", "https://planted.example"}, {"Sec-Fetch-Site", "", "Origin", "https://planted.example"}} {
		if w, _ := analyst.ask(http.MethodPost, "/api/v1/acts/authorise.request?case=C-17&purpose=intrusion-detection", string(raw), head...); w.StatusCode != 403 {
			t.Errorf("%v: %d", head, w.StatusCode)
		}
	}
	var r authorisationRow
	analyst.does(200, `"state":"requested"`, "authorise.request", ask, &r)
	if !slices.Equal(r.Offices, []string{"privacy", "inspector"}) {
		t.Errorf("who could decide: %v", r.Offices)
	}
	yes := authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}
	analyst.does(403, "nobody decides on their own request", "authorise", yes, nil)
	lead.does(403, "own chain of command", "authorise", yes, nil)
	analyst.search(403, "not decided yet", about(0))

	// The privacy officer reads what is asked. An old login decides nothing.
	var rows []authorisationRow
	officer.does(200, "", "authorise.list", authoriseNamed{}, &rows)
	if len(rows) != 1 || rows[0].Digest != r.Digest || rows[0].Subjects[0] != who[0] {
		t.Fatalf("got %+v", rows)
	}
	var rules rulesState
	analyst.does(200, "", "rules.activate", struct{}{}, &rules)
	b.later(6 * time.Minute)
	officer.does(403, "the login is too old to decide", "authorise", yes, nil)
	colleague.does(403, "the login is too old to decide", "rules.approve", rulesNamed{rules.Digest}, nil)
	officer.byPasskey(privacy)
	colleague.byProvider(idp, "planted.colleague", "soc")
	colleague.does(200, rules.Digest, "rules.approve", rulesNamed{rules.Digest}, nil)
	officer.does(403, "another one", "authorise", authoriseNamed{ID: r.ID, Digest: strings.Repeat("0", 64), Approve: true}, nil)
	officer.does(200, `"state":"approved"`, "authorise", authoriseNamed{ID: r.ID, Digest: rows[0].Digest, Approve: true}, nil)

	// Answered inside of the scope, with a notice; refused outside of it.
	w, text := analyst.ask(http.MethodGet, "/api/v1/search?"+url.Values{"case": {"C-17"}, "purpose": {"intrusion-detection"}, "q": {about(0)}, "from": {ask.From.Format(time.RFC3339)}, "to": {ask.To.Format(time.RFC3339)}}.Encode(), "")
	if w.StatusCode != 200 || !strings.Contains(text, who[0]) || w.Header.Get("Counterseal-Notice") == "" {
		t.Fatalf("under the authorisation: %d %v\n%s", w.StatusCode, w.Header, text)
	}
	analyst.search(403, "authorisation", about(1))
	analyst.search(403, "beyond the time", about(0), "from", ask.From.AddDate(-1, 0, 0).Format(time.RFC3339), "to", ask.From.AddDate(0, 0, -1).Format(time.RFC3339))
	analyst.search(403, "not shown here", about(0), "case", "C-18") // an alias of another case is nobody's
	officer.search(403, "", about(0))

	// Its end comes by the clock, while the session goes on.
	b.later(10 * time.Minute)
	analyst.search(403, "has ended", about(0))

	// The token of a machine does what its scopes name.
	tok, err := act[tokenMade](t, b.s.signin.tokenCreate, tokenCreate{Account: analystID, Scopes: []string{"ingest"}, Days: 1})
	if err != nil {
		t.Fatal(err)
	}
	machine := newBrowser()
	machine.want(403, "token of a machine", http.MethodGet, "/api/v1/search?purpose=intrusion-detection&q=source+%3D+idp", "", "Authorization", "Bearer "+tok.Text)
	machine.want(403, "", http.MethodPost, "/api/v1/acts/authorise.list?purpose=intrusion-detection", "{}", "Authorization", "Bearer "+tok.Text)

	// Somebody takes the cookie. It is no bearer and changes nothing without the token of
	// the pages; it ends with the session, wherever it lies.
	thief := newBrowser()
	home := &url.URL{Scheme: "https", Host: "logs.example", Path: "/"}
	stolen := analyst.c.Jar.Cookies(home)
	thief.c.Jar.SetCookies(home, stolen)
	thief.want(403, "", http.MethodPost, "/api/v1/acts/authorise.list?purpose=intrusion-detection", "{}")
	for _, c := range stolen {
		newBrowser().want(401, "not in force", http.MethodGet, "/api/v1/status", "", "Authorization", "Bearer "+c.Value)
	}
	analyst.want(200, "", http.MethodPost, "/login/out", "{}")
	thief.search(401, "/login/", "source = idp")
	if again := analyst.byProvider(idp, "planted.analyst", "soc"); again != analystID {
		t.Errorf("the same person is %s", again)
	}
	thief.search(401, "/login/", "source = idp") // nor does the next login open it

	// The session ends without use.
	analyst.search(200, "", "source = idp")
	b.later(login.Idle + time.Second)
	analyst.search(401, "/login/", "source = idp")
	if w, _ := analyst.ask(http.MethodGet, "/", ""); w.Request.URL.Path != "/login/" {
		t.Errorf("after the end the browser comes to %s", w.Request.URL)
	}

	// The ledger has all of it, by account; nothing anywhere has their names.
	statements := map[string]int{}
	if _, err := b.s.pipe.Recorder().Ledger().Each(t.Context(), 0, func(_ uint64, s ledger.Statement, raw []byte) error {
		if bytes.Contains(raw, []byte("planted")) || bytes.Contains(raw, []byte("owner.example")) {
			t.Errorf("%s", raw)
		}
		if strings.HasPrefix(s.Kind, "request.") {
			var d struct {
				Act, Rule, Office string
				Status            int
			}
			if err := json.Unmarshal(s.Detail, &d); err != nil {
				return err
			}
			statements[fmt.Sprint(s.Actor, " ", d.Act, " ", d.Status, " ", d.Rule)]++
			if !strings.HasPrefix(s.Actor, "account:u_") {
				t.Errorf("a request of %s: %s", s.Actor, raw)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	a, c, l, o := "account:"+analystID, "account:"+colleagueID, "account:"+leadID, "account:"+privacy.id
	for want, n := range map[string]int{
		a + " search 403 purpose": 1, a + "  400 ": 1, a + " search 200 ": 7, a + " search 403 people": 5, a + " search 403 office": 1, a + " search 403 ": 1,
		a + " authorise.request 200 ": 1, a + " authorise 403 own-request same-authority": 1, l + " authorise 403 own-chain": 1,
		c + " rules.approve 403 not_fresh": 1, c + " rules.approve 200 ": 1, o + " authorise 403 not_fresh": 1, o + " authorise 403 altered": 1, o + " authorise 200 ": 1, o + " authorise.list 200 ": 1,
		a + " search 403 token-scope": 1, a + " authorise.list 403 token-scope": 1,
	} {
		if statements[want] != n {
			t.Errorf("%q stands %d times in the ledger, want %d", want, statements[want], n)
		}
	}
	if t.Failed() {
		for s, n := range statements {
			t.Log(n, s)
		}
	}
	b.stop()
	for _, said := range []string{log.String(), seen.String()} {
		for _, name := range []string{"planted.analyst", "planted.colleague", "planted.lead", "planted.stranger", "owner.example"} {
			if strings.Contains(said, name) {
				t.Errorf("%s was said", name)
			}
		}
	}
	if err := filepath.WalkDir(filepath.Join(b.dir, "data"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if bytes.Contains(raw, []byte("planted.")) || bytes.Contains(raw, []byte("owner.example")) {
			t.Errorf("%s holds a name", strings.TrimPrefix(path, b.dir))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// byRefusal comes from the provider and is not let in.
func (v *browser) byRefusal(p *provider, who, group string) (*http.Response, string) {
	p.mu.Lock()
	p.who, p.group = who, group
	p.mu.Unlock()
	return v.ask(http.MethodGet, "/login/oidc/start", "")
}
