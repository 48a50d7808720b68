package login

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/descope/virtualwebauthn"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/counterseal/counterseal/internal/packs"
)

type event struct {
	kind, actor string
	detail      map[string]any
}

type rig struct {
	t      *testing.T
	s      *Service
	db     *DB
	srv    *httptest.Server
	mu     sync.Mutex // guards now, events, fail
	now    time.Time
	events []event
	fail   error
}

func newRig(t *testing.T, c *OIDC) *rig {
	g := &rig{t: t, now: time.Now()}
	var err error
	if g.db, err = Open(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.db.Close() })
	g.s, err = New(Options{Store: g.db, RPID: "example.org", Origin: "https://example.org", OIDC: c,
		Now: func() time.Time { g.mu.Lock(); defer g.mu.Unlock(); return g.now },
		Record: func(_ context.Context, kind, actor string, d map[string]any) error {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.events = append(g.events, event{kind, actor, d})
			return g.fail
		}})
	if err != nil {
		t.Fatal(err)
	}
	g.srv = httptest.NewTLSServer(g.s.Handler())
	t.Cleanup(g.srv.Close)
	return g
}

func (g *rig) pass(d time.Duration) { g.mu.Lock(); defer g.mu.Unlock(); g.now = g.now.Add(d) }

func (g *rig) last() event { g.mu.Lock(); defer g.mu.Unlock(); return g.events[len(g.events)-1] }

func (g *rig) browser() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		g.t.Fatal(err)
	}
	return &http.Client{Transport: g.srv.Client().Transport, Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (g *rig) ask(c *http.Client, method, path, body string, headers ...string) (int, string) {
	g.t.Helper()
	r, err := http.NewRequest(method, g.srv.URL+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w, err := c.Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	defer w.Body.Close()
	b, err := io.ReadAll(w.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return w.StatusCode, string(b)
}

func (g *rig) session(c *http.Client) string {
	u, _ := url.Parse(g.srv.URL)
	for _, k := range c.Jar.Cookies(u) {
		if k.Name == cookieName {
			return k.Value
		}
	}
	return ""
}

// csrf is what a page would read from /login/me; a browser without a session has none.
func (g *rig) csrf(c *http.Client) string {
	if g.session(c) == "" {
		return ""
	}
	return csrf(g.session(c))
}

var rp = virtualwebauthn.RelyingParty{ID: "example.org", Name: "Counterseal", Origin: "https://example.org"}

type key struct {
	auth    virtualwebauthn.Authenticator
	cred    virtualwebauthn.Credential
	account string
}

func (g *rig) register(c *http.Client, secret string, k *key) int {
	g.t.Helper()
	code, out := g.ask(c, "POST", "/login/register/begin", `{"secret":"`+secret+`"}`, "X-Csrf-Token", g.csrf(c))
	if code != 200 {
		return code
	}
	o, err := virtualwebauthn.ParseAttestationOptions(out)
	if err != nil {
		g.t.Fatal(err)
	}
	code, out = g.ask(c, "POST", "/login/register/finish", virtualwebauthn.CreateAttestationResponse(rp, k.auth, k.cred, *o), "X-Csrf-Token", g.csrf(c))
	var a struct{ Account string }
	if code == 200 {
		if err := json.Unmarshal([]byte(out), &a); err != nil {
			g.t.Fatal(err)
		}
		k.account, k.auth.Options.UserHandle = a.Account, []byte(a.Account)
	}
	return code
}

func (g *rig) login(c *http.Client, k *key) int {
	g.t.Helper()
	code, out := g.ask(c, "POST", "/login/passkey/begin", `{}`, "X-Csrf-Token", g.csrf(c))
	if code != 200 {
		return code
	}
	o, err := virtualwebauthn.ParseAssertionOptions(out)
	if err != nil {
		g.t.Fatal(err)
	}
	code, _ = g.ask(c, "POST", "/login/passkey/finish", virtualwebauthn.CreateAssertionResponse(rp, k.auth, k.cred, *o), "X-Csrf-Token", g.csrf(c))
	return code
}

func newKey() *key {
	k := &key{auth: virtualwebauthn.NewAuthenticator(), cred: packs.NewPasskey()}
	k.cred.Counter = 5
	return k
}

func (g *rig) first() (*http.Client, *key) {
	g.t.Helper()
	secret, err := g.s.SetUp(g.t.Context(), []string{"operator"})
	if err != nil {
		g.t.Fatal(err)
	}
	c, k := g.browser(), newKey()
	if code := g.register(c, secret, k); code != 200 {
		g.t.Fatalf("set-up: %d %v", code, g.events)
	}
	if code := g.register(g.browser(), secret, newKey()); code != 403 {
		g.t.Errorf("the secret a second time: %d", code)
	}
	return c, k
}

func TestPasskey(t *testing.T) {
	g := newRig(t, nil)
	secret, err := g.s.SetUp(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	g.pass(SecretLife)
	if code := g.register(g.browser(), secret, newKey()); code != 403 {
		t.Errorf("a secret that is over: %d", code)
	}
	c, k := g.first()
	if _, err := g.s.SetUp(t.Context(), nil); err == nil {
		t.Error("a second set-up")
	}
	if code := g.register(c, "", newKey()); code != 200 {
		t.Errorf("a second passkey of a young session: %d %v", code, g.last())
	}
	g.pass(Fresh)
	if code := g.register(c, "", newKey()); code != 403 {
		t.Errorf("a passkey of an old session: %d", code)
	}
	planted := g.session(c)
	k.cred.Counter = 6
	if code := g.login(c, k); code != 200 {
		t.Fatalf("login: %d %v", code, g.last())
	}
	if e := g.last(); e.kind != "login.accepted" || e.actor != k.account {
		t.Errorf("%v", e)
	}
	if got := g.session(c); got == planted || got == "" {
		t.Error("the session before the login lives on")
	}
	if _, err := g.db.Session(t.Context(), digest(planted)); !errors.Is(err, ErrUnknown) {
		t.Errorf("the old session: %v", err)
	}
	k.cred.Counter = 9
	k.auth.Options.UserNotVerified = true
	if code := g.login(g.browser(), k); code != 403 {
		t.Errorf("without user verification: %d", code)
	}
	k.auth.Options.UserNotVerified = false
	g.fail = errors.New("ledger down")
	b := g.browser()
	if code := g.login(b, k); code != 503 || g.session(b) != "" || g.last().kind != "login.accepted" {
		t.Errorf("without a statement: %d", code)
	}
	g.fail = nil
	other := newKey()
	other.cred.ID, other.auth.Options.UserHandle = k.cred.ID, k.auth.Options.UserHandle
	other.cred.Counter = 100
	for range 5 {
		if code := g.login(g.browser(), other); code != 403 {
			t.Fatalf("another's key: %d", code)
		}
	}
	k.cred.Counter = 200
	if code := g.login(g.browser(), k); code != 403 {
		t.Errorf("a locked account: %d", code)
	}
	g.pass(16 * time.Minute)
	k.cred.Counter = 300
	if code := g.login(g.browser(), k); code != 200 {
		t.Errorf("after the lock-out: %d %v", code, g.last())
	}
	k.cred.Counter = 3
	if code := g.login(g.browser(), k); code != 403 || !strings.Contains(g.last().detail["reason"].(string), "sign-count") {
		t.Errorf("a copied passkey: %d %v", code, g.last())
	}
	k.cred.Counter = 400 // the copy may be the one that counts on: the passkey stays refused
	if code := g.login(g.browser(), k); code != 403 {
		t.Errorf("a passkey that was copied once: %d", code)
	}
}

func TestSourceLimit(t *testing.T) {
	g := newRig(t, nil)
	codes := map[int]int{}
	for range 25 {
		code, _ := g.ask(g.browser(), "POST", "/login/passkey/finish", `{}`)
		codes[code]++
	}
	if codes[403] != 20 || codes[429] != 5 || len(g.events) != 20 {
		t.Errorf("%v, %d statements", codes, len(g.events))
	}
	o := newOnce(2, random)
	one, err := o.put(1, time.Now(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := o.take(one, time.Now()); !ok {
		t.Error("not taken")
	}
	if _, ok := o.take(one, time.Now()); ok {
		t.Error("taken twice")
	}
	l := newLimiter(1, time.Minute, time.Hour)
	now := time.Now()
	l.fail("first", now)
	for range maxLimited + 100 {
		l.fail(random(), now)
	}
	if len(l.m) > maxLimited+1 || !l.locked("first", now) {
		t.Errorf("%d entries, first locked %v", len(l.m), l.locked("first", now))
	}
}

func TestSessions(t *testing.T) {
	g := newRig(t, nil)
	c, k := g.first()
	token := g.csrf(c)
	// Neither Origin nor Sec-Fetch-Site: the library lets it pass, the token does not.
	if code, _ := g.ask(c, "POST", "/login/out", `{}`); code != 403 {
		t.Errorf("no CSRF token: %d", code)
	}
	if code, _ := g.ask(c, "POST", "/login/out", `{}`, "X-Csrf-Token", token, "Sec-Fetch-Site", "cross-site"); code != 403 {
		t.Errorf("cross-site: %d", code)
	}
	before := g.session(c)
	r := httptest.NewRequest("POST", "/x", nil)
	r.AddCookie(&http.Cookie{Name: cookieName, Value: before})
	rec := httptest.NewRecorder()
	if err := g.s.Renew(rec, r); err != nil {
		t.Fatal(err)
	}
	u, _ := url.Parse(g.srv.URL)
	c.Jar.SetCookies(u, rec.Result().Cookies())
	if k := rec.Result().Cookies()[0]; !k.Secure || !k.HttpOnly || k.SameSite != http.SameSiteStrictMode || k.Path != "/" || k.Domain != "" {
		t.Errorf("%v", k)
	}
	if code, _ := g.ask(g.browser(), "GET", "/login/me", "", "Cookie", cookieName+"="+before); code != 401 {
		t.Errorf("the session before the renewal: %d", code)
	}
	if code, _ := g.ask(c, "GET", "/login/me", ""); code != 200 {
		t.Errorf("the renewed session: %d", code)
	}
	stolen := g.session(c)
	k.cred.Counter = 6
	b := g.browser()
	if code := g.login(b, k); code != 200 {
		t.Fatal(code)
	}
	var list []struct {
		ID      string
		Current bool
	}
	_, out := g.ask(b, "GET", "/login/sessions", "")
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 2 {
		t.Fatalf("%s %v", out, err)
	}
	for _, x := range list {
		if !x.Current {
			if code, _ := g.ask(b, "POST", "/login/sessions/revoke", `{"id":"`+x.ID+`"}`, "X-Csrf-Token", g.csrf(b)); code != 200 {
				t.Errorf("revoke: %d", code)
			}
		}
	}
	if code, _ := g.ask(g.browser(), "GET", "/login/me", "", "Cookie", cookieName+"="+stolen); code != 401 {
		t.Errorf("a stolen, revoked session: %d", code)
	}
	live := g.session(b)
	for i := range 26 { // never idle, and past the absolute end after 25 steps of 19 min
		g.pass(19 * time.Minute)
		want := 200
		if i == 25 {
			want = 401
		}
		if code, _ := g.ask(g.browser(), "GET", "/login/me", "", "Cookie", cookieName+"="+live); code != want {
			t.Fatalf("step %d: %d, want %d", i, code, want)
		}
	}
	k.cred.Counter = 7
	if code := g.login(b, k); code != 200 {
		t.Fatal(code)
	}
	g.pass(Idle - time.Second)
	if code, _ := g.ask(b, "GET", "/login/me", ""); code != 200 {
		t.Errorf("just not idle: %d", code)
	}
	g.pass(Idle)
	if code, _ := g.ask(b, "GET", "/login/me", ""); code != 401 {
		t.Errorf("idle: %d", code)
	}
}

func TestTokens(t *testing.T) {
	g := newRig(t, nil)
	_, k := g.first()
	text, made, err := g.s.NewToken(t.Context(), k.account, k.account, []string{"events.write"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	h := g.s.Middleware(RequireScope("events.write", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	other := g.s.Middleware(RequireScope("events.read", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	ask := func(h http.Handler, auth string) int {
		r := httptest.NewRequest("POST", "/x", nil)
		if auth != "" {
			r.Header.Set("Authorization", auth)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	for _, c := range []struct {
		h    http.Handler
		auth string
		want int
	}{{h, "Bearer " + text, 200}, {other, "Bearer " + text, 403}, {h, "", 401}, {h, "Basic " + text, 401}, {h, "Bearer cst_" + random(), 401}, {h, "Bearer " + text + "A", 401}} {
		if got := ask(c.h, c.auth); got != c.want {
			t.Errorf("%.10s: %d, want %d", c.auth, got, c.want)
		}
	}
	if at, err := g.db.Token(t.Context(), digest(text)); err != nil || at.Used.Unix() == 0 {
		t.Errorf("last used %v %v", at.Used, err)
	}
	g.pass(time.Hour)
	if got := ask(h, "Bearer "+text); got != 401 {
		t.Errorf("expired: %d", got)
	}
	if list, err := g.s.Tokens(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("an expired token in the list: %v %v", list, err)
	}
	if err := g.s.RevokeToken(t.Context(), k.account, made.ID); err != nil || g.last().kind != "token.revoked" {
		t.Error(err, g.last())
	}
}

func TestConcurrentSessions(t *testing.T) {
	g := newRig(t, nil)
	_, k := g.first()
	begin := time.Now()
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			text, err := g.s.enter(httptest.NewRequest("POST", "/", nil), Account{ID: k.account}, "passkey", false)
			if err != nil {
				t.Error(err)
				return
			}
			for range 5 {
				r := httptest.NewRequest("GET", "/login/me", nil)
				r.AddCookie(&http.Cookie{Name: cookieName, Value: text})
				w := httptest.NewRecorder()
				g.s.Handler().ServeHTTP(w, r)
				if w.Code != 200 {
					t.Errorf("%d", w.Code)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("200 sessions made and 1,000 requests answered in %v", time.Since(begin))
}

// idp is a small provider over real HTTP. The fields bend its tokens.
type idp struct {
	srv                 *httptest.Server
	key                 *ecdsa.PrivateKey
	mu                  sync.Mutex // guards codes
	codes               map[string]url.Values
	nonce, iss, aud, no string
	exp                 time.Duration
	none                bool
}

func newIDP(t *testing.T) *idp {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &idp{key: k, codes: map[string]url.Values{}, exp: time.Hour}
	send := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(v)
	}
	mux := http.NewServeMux()
	p.srv = httptest.NewServer(mux)
	t.Cleanup(p.srv.Close)
	u := p.srv.URL
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		send(w, map[string]any{"issuer": u, "authorization_endpoint": u + "/auth", "token_endpoint": u + "/token", "jwks_uri": u + "/keys", "id_token_signing_alg_values_supported": []string{"ES256", "none"}})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, r *http.Request) {
		send(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &k.PublicKey, KeyID: "1", Algorithm: "ES256", Use: "sig"}}})
	})
	mux.HandleFunc("/auth", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("code_challenge_method") != "S256" || q.Get("code_challenge") == "" {
			http.Error(w, "PKCE", 400)
			return
		}
		code := random()
		p.mu.Lock()
		p.codes[code] = q
		p.mu.Unlock()
		http.Redirect(w, r, q.Get("redirect_uri")+"?"+url.Values{"code": {code}, "state": {q.Get("state")}}.Encode(), http.StatusFound)
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		q, ok := p.codes[r.FormValue("code")]
		delete(p.codes, r.FormValue("code"))
		p.mu.Unlock()
		sum := sha256.Sum256([]byte(r.FormValue("code_verifier")))
		if !ok || base64.RawURLEncoding.EncodeToString(sum[:]) != q.Get("code_challenge") {
			w.WriteHeader(400)
			send(w, map[string]string{"error": "invalid_grant"})
			return
		}
		claims := map[string]any{"iss": u + p.iss, "aud": q.Get("client_id") + p.aud, "sub": "planted.name", "nonce": q.Get("nonce") + p.nonce,
			"exp": time.Now().Add(p.exp).Unix(), "iat": time.Now().Unix(), "groups": []string{"soc", "other"}, "amr": []string{"hwk"}}
		delete(claims, p.no)
		b, _ := json.Marshal(claims)
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: k, KeyID: "1"}}, nil)
		if err != nil {
			panic(err)
		}
		j, err := signer.Sign(b)
		if err != nil {
			panic(err)
		}
		text, _ := j.CompactSerialize()
		if p.none {
			text = base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + base64.RawURLEncoding.EncodeToString(b) + "."
		}
		send(w, map[string]any{"access_token": "x", "token_type": "Bearer", "id_token": text})
	})
	return p
}

func TestOIDC(t *testing.T) {
	p := newIDP(t)
	g := newRig(t, &OIDC{Issuer: p.srv.URL, ClientID: "counterseal", RedirectURL: "https://example.org/login/oidc/callback", Roles: map[string][]string{"soc": {"analyst"}}, AMR: []string{"hwk"}})
	// walk returns the path of the callback.
	walk := func(c *http.Client) string {
		w, err := c.Get(g.srv.URL + "/login/oidc/start")
		if err != nil {
			t.Fatal(err)
		}
		w.Body.Close()
		w, err = c.Get(w.Header.Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		w.Body.Close()
		return strings.TrimPrefix(w.Header.Get("Location"), "https://example.org")
	}
	c := g.browser()
	back := walk(c)
	code, out := g.ask(c, "GET", back, "")
	if code != 200 || !strings.Contains(out, `"roles":["analyst"]`) {
		t.Fatalf("%d %s %v", code, out, g.last())
	}
	if code, _ := g.ask(c, "GET", back, ""); code != 403 {
		t.Errorf("the same callback again: %d", code)
	}
	again := g.browser()
	if _, two := g.ask(again, "GET", walk(again), ""); two[:40] != out[:40] {
		t.Errorf("another account the second time: %s %s", two, out)
	}
	used, _ := url.Parse(back)
	for name, bend := range map[string]func(string) string{
		"state": func(b string) string { return strings.Replace(b, "state=", "state=x", 1) },
		"reused code": func(b string) string {
			u, _ := url.Parse(b)
			q := u.Query()
			q.Set("code", used.Query().Get("code"))
			return u.Path + "?" + q.Encode()
		},
		"nonce":     func(b string) string { p.nonce = "x"; return b },
		"no nonce":  func(b string) string { p.no = "nonce"; return b },
		"issuer":    func(b string) string { p.iss = "/x"; return b },
		"audience":  func(b string) string { p.aud = "x"; return b },
		"expired":   func(b string) string { p.exp = -time.Hour; return b },
		"alg none":  func(b string) string { p.none = true; return b },
		"amr":       func(b string) string { p.no = "amr"; return b },
		"no groups": func(b string) string { p.no = "groups"; return b },
		"missing PKCE": func(b string) string {
			p.mu.Lock()
			defer p.mu.Unlock()
			for _, q := range p.codes {
				q.Set("code_challenge", "x")
			}
			return b
		},
		"cookie": func(b string) string { c = g.browser(); return b },
	} {
		p.nonce, p.no, p.iss, p.aud, p.exp, p.none = "", "", "", "", time.Hour, false
		c = g.browser()
		back := bend(walk(c))
		if code, _ := g.ask(c, "GET", back, ""); code != 403 || g.session(c) != "" {
			t.Errorf("%s: %d", name, code)
		}
		g.s.sources.clear("127.0.0.1")
		t.Logf("%s: %v", name, g.last().detail["reason"])
	}
	for _, e := range g.events {
		if b, _ := json.Marshal(e.detail); bytes.Contains(b, []byte("planted")) || strings.Contains(e.actor, "planted") {
			t.Errorf("a name in %v", e)
		}
	}
}

func FuzzParseOIDC(f *testing.F) {
	f.Add([]byte(`{"issuer":"https://a.example","client_id":"c","redirect_url":"https://b.example/login/oidc/callback","roles":{"g":["analyst"]}}`))
	f.Add([]byte(`{"issuer":"http://a.example"} x`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseOIDC(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		d, err := ParseOIDC(again)
		if err != nil {
			t.Fatal(err)
		}
		if x, _ := json.Marshal(d); !bytes.Equal(x, again) {
			t.Errorf("%s, then %s", again, x)
		}
	})
}

// FuzzPasskey: whatever an authenticator's answer says, nobody gets in without a key.
func FuzzPasskey(f *testing.F) {
	f.Add([]byte(`{"id":"AA","rawId":"AA","type":"public-key","response":{"clientDataJSON":"e30","authenticatorData":"AA","signature":"AA","userHandle":"AA","attestationObject":"oA"}}`))
	f.Add([]byte(`{}`))
	db, err := Open(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { db.Close() })
	s, err := New(Options{Store: db, RPID: "example.org", Origin: "https://example.org", Record: func(context.Context, string, string, map[string]any) error { return nil }})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, reason := s.asserted(t.Context(), webauthn.SessionData{Challenge: "x"}, b); reason == "" {
			t.Error("let in")
		}
		if _, err := s.created(registration{data: webauthn.SessionData{Challenge: "x"}}, b); err == nil {
			t.Error("registered")
		}
	})
}
