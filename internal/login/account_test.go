package login

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-webauthn/webauthn/webauthn"
)

// kinds are what the ledger was told, oldest first.
func (g *rig) kinds() (out []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range g.events {
		out = append(out, e.kind)
	}
	return out
}

// TestDetails holds what is recorded to the closed list: names of the ledger's kinds, and
// values that are codes and ids.
func TestDetails(t *testing.T) {
	need := map[string][]string{
		"login.accepted": {"way", "session"}, "login.refused": {"way", "reason"}, "login.passkey_added": {"account", "passkey"}, "login.ended": {"session", "reason"},
		"account.made": {"account", "way", "roles"}, "account.changed": {"account", "change"}, "token.made": {"token", "account", "scopes", "until"}, "token.revoked": {"token"},
	}
	p := newIDP(t)
	g := newRig(t, &OIDC{Issuer: p.srv.URL, ClientID: "counterseal", RedirectURL: "https://example.org/login/oidc/callback", Roles: map[string][]string{"soc": {"analyst"}}})
	c, k := g.first()
	o := g.browser()
	if code, out := g.ask(o, "GET", g.walk(o), ""); code != 200 {
		t.Fatalf("%d %s", code, out)
	}
	if code := g.register(c, "", newKey()); code != 200 {
		t.Fatal(code)
	}
	if _, _, err := g.s.Invite(t.Context(), "os:1000", []string{"analyst"}); err != nil {
		t.Fatal(err)
	}
	_, tok, err := g.s.NewToken(t.Context(), "os:1000", k.account, []string{"events.write"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.s.RevokeToken(t.Context(), "os:1000", tok.ID); err != nil {
		t.Fatal(err)
	}
	if code, _ := g.ask(c, "POST", "/login/out", `{}`, "X-Csrf-Token", g.csrf(c)); code != 200 {
		t.Fatal(code)
	}
	seen := map[string]bool{}
	for _, e := range g.events {
		seen[e.kind] = true
		for _, name := range need[e.kind] {
			if _, ok := e.detail[name]; !ok {
				t.Errorf("%s lacks %s: %v", e.kind, name, e.detail)
			}
		}
		for name, v := range e.detail {
			if text, ok := v.(string); ok && strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_:-") != "" {
				t.Errorf("%s: %s holds more than a word: %q", e.kind, name, text)
			}
		}
	}
	for kind := range need {
		if !seen[kind] {
			t.Errorf("%s was not recorded", kind)
		}
	}
}

// walk goes to the provider and gives the path of the callback.
func (g *rig) walk(c *http.Client) string {
	g.t.Helper()
	w, err := c.Get(g.srv.URL + "/login/oidc/start")
	if err != nil {
		g.t.Fatal(err)
	}
	w.Body.Close()
	if w, err = c.Get(w.Header.Get("Location")); err != nil {
		g.t.Fatal(err)
	}
	w.Body.Close()
	return strings.TrimPrefix(w.Header.Get("Location"), "https://example.org")
}

// A disabled account loses its sessions and tokens at once, and for good.
func TestDisable(t *testing.T) {
	g := newRig(t, nil)
	c, k := g.first()
	text, _, err := g.s.NewToken(t.Context(), k.account, k.account, []string{"events.write"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	terminal := g.terminal(c)
	dead := func(when string) {
		t.Helper()
		if code, _ := g.ask(c, "GET", "/login/me", ""); code != 401 {
			t.Errorf("%s: the session answers %d", when, code)
		}
		for _, bearer := range []string{text, terminal} {
			if who, err := g.s.byBearer(t.Context(), bearer); err == nil {
				t.Errorf("%s: %.4s is %s", when, bearer, who.Account.ID)
			}
		}
	}
	for _, bearer := range []string{text, terminal} {
		if who, err := g.s.byBearer(t.Context(), bearer); err != nil || who.Account.ID != k.account {
			t.Errorf("before: %.4s is %s, %v", bearer, who.Account.ID, err)
		}
	}
	late, err := g.s.o.Store.Account(t.Context(), k.account)
	if err != nil {
		t.Fatal(err)
	}
	g.fail = errors.New("ledger down")
	if err := g.s.Disable(t.Context(), "os:1000", k.account); err == nil {
		t.Error("disabled without a statement")
	}
	g.fail = nil
	if code, _ := g.ask(c, "GET", "/login/me", ""); code != 200 {
		t.Errorf("still enabled: %d", code)
	}
	if err := g.s.Disable(t.Context(), "os:1000", k.account); err != nil {
		t.Fatal(err)
	}
	dead("disabled")
	k.cred.Counter = 20
	if code := g.login(g.browser(), k); code != 403 {
		t.Errorf("login: %d", code)
	}
	// A login that was judged just before and is stored just after makes no session.
	if _, err := g.s.enter(httptest.NewRequest("POST", "/", nil), late, "passkey", false); !errors.Is(err, ErrUnknown) {
		t.Errorf("a session for a disabled account: %v", err)
	}
	if err := g.db.SetRoles(t.Context(), k.account, []string{"overseer"}); !errors.Is(err, ErrUnknown) {
		t.Errorf("roles for a disabled account: %v", err)
	}
	if err := g.db.PutToken(t.Context(), APIToken{Hash: "h", ID: "t", Account: k.account}); !errors.Is(err, ErrUnknown) {
		t.Errorf("a token for a disabled account: %v", err)
	}
	if err := g.s.Enable(t.Context(), "os:1000", k.account); err != nil {
		t.Fatal(err)
	}
	dead("enabled again")
	k.cred.Counter = 30
	if code := g.login(g.browser(), k); code != 200 {
		t.Errorf("login after enabling: %d %v", code, g.last())
	}
	if err := g.s.Enable(t.Context(), "os:1000", k.account); !errors.Is(err, ErrBad) {
		t.Errorf("enabled twice: %v", err)
	}
	if err := g.s.Disable(t.Context(), "os:1000", "u_X"); !errors.Is(err, ErrUnknown) {
		t.Errorf("no such account: %v", err)
	}
}

// terminal logs a terminal in through the session of a browser.
func (g *rig) terminal(c *http.Client) string {
	g.t.Helper()
	var start struct {
		Device string `json:"device_code"`
		User   string `json:"user_code"`
		URL    string `json:"url"`
	}
	code, out := g.ask(g.browser(), "POST", "/login/cli/start", `{}`)
	if err := json.Unmarshal([]byte(out), &start); code != 200 || err != nil || start.URL != "https://example.org/login/cli" {
		g.t.Fatalf("start: %d %s", code, out)
	}
	if code, _ := g.ask(g.browser(), "POST", "/login/cli/finish", `{"device_code":"`+start.Device+`"}`); code != 202 {
		g.t.Fatalf("before anybody confirmed: %d", code)
	}
	if code, _ := g.ask(g.browser(), "POST", "/login/cli/finish", `{"device_code":"`+start.Device+`"}`); code != 429 {
		g.t.Fatalf("asked again at once: %d", code)
	}
	if code, out := g.ask(c, "POST", "/login/cli/confirm", `{"user_code":"`+strings.ToLower(start.User)+`"}`, "X-Csrf-Token", g.csrf(c)); code != 200 {
		g.t.Fatalf("confirm: %d %s %v", code, out, g.last())
	}
	var done struct{ Secret, Account string }
	code, out = g.ask(g.browser(), "POST", "/login/cli/finish", `{"device_code":"`+start.Device+`"}`)
	if err := json.Unmarshal([]byte(out), &done); code != 200 || err != nil {
		g.t.Fatalf("finish: %d %s", code, out)
	}
	if code, _ := g.ask(g.browser(), "POST", "/login/cli/finish", `{"device_code":"`+start.Device+`"}`); code != 403 {
		g.t.Errorf("a device code twice: %d", code)
	}
	return done.Secret
}

func TestTerminal(t *testing.T) {
	g := newRig(t, nil)
	c, k := g.first()
	secret := g.terminal(c)
	if e := g.last(); e.kind != "login.refused" { // of the second finish
		t.Errorf("%v", e)
	}
	auth := []string{"Authorization", "Bearer " + secret}
	if code, out := g.ask(g.browser(), "GET", "/login/me", "", auth...); code != 200 || !strings.Contains(out, k.account) || !strings.Contains(out, `"csrf":""`) {
		t.Errorf("who am I: %d %s", code, out)
	}
	if code, _ := g.ask(g.browser(), "GET", "/login/me", "", "Cookie", cookieName+"="+secret); code != 401 {
		t.Errorf("the secret of a terminal as a cookie: %d", code)
	}
	if code, _ := g.ask(g.browser(), "GET", "/login/me", "", "Authorization", "Bearer "+g.session(c)); code != 401 {
		t.Errorf("a cookie as the secret of a terminal: %d", code)
	}
	if code, _ := g.ask(g.browser(), "POST", "/login/register/begin", `{}`, auth...); code != 403 {
		t.Errorf("a passkey by a terminal: %d", code)
	}
	list, err := g.s.Sessions(t.Context(), k.account)
	if err != nil || len(list) != 2 || !list[1].Terminal || list[0].Terminal {
		t.Fatalf("%+v %v", list, err)
	}
	// No terminal makes another: that would outlive every limit.
	_, out := g.ask(g.browser(), "POST", "/login/cli/start", `{}`)
	var start struct {
		Device string `json:"device_code"`
		User   string `json:"user_code"`
	}
	if err := json.Unmarshal([]byte(out), &start); err != nil {
		t.Fatal(err)
	}
	confirm := `{"user_code":"` + start.User + `"}`
	if code, _ := g.ask(g.browser(), "POST", "/login/cli/confirm", confirm, auth...); code != 403 {
		t.Errorf("confirmed by a terminal: %d", code)
	}
	if code, _ := g.ask(g.browser(), "POST", "/login/cli/confirm", confirm); code != 401 {
		t.Errorf("confirmed by nobody: %d", code)
	}
	if code, _ := g.ask(c, "POST", "/login/cli/confirm", confirm); code != 403 {
		t.Errorf("confirmed without the CSRF token: %d", code)
	}
	if code, _ := g.ask(c, "POST", "/login/cli/confirm", `{"user_code":"BBBB-BBBB"}`, "X-Csrf-Token", g.csrf(c)); code != 403 || g.last().detail["reason"] != "user-code" {
		t.Errorf("a wrong code: %d", code)
	}
	g.pass(Fresh)
	if code, out := g.ask(c, "POST", "/login/cli/confirm", confirm, "X-Csrf-Token", g.csrf(c)); code != 403 || !strings.Contains(out, notFresh) {
		t.Errorf("confirmed by an old session: %d %s", code, out)
	}
	g.pass(DeviceLife - Fresh)
	k.cred.Counter = 9
	if code := g.login(c, k); code != 200 {
		t.Fatal(code)
	}
	if code, _ := g.ask(c, "POST", "/login/cli/confirm", confirm, "X-Csrf-Token", g.csrf(c)); code != 403 {
		t.Errorf("a code that is over: %d", code)
	}
	if code, _ := g.ask(g.browser(), "POST", "/login/cli/finish", `{"device_code":"`+start.Device+`"}`); code != 403 {
		t.Errorf("a device code that is over: %d", code)
	}
	// The browser ends the terminal.
	if code, _ := g.ask(c, "POST", "/login/sessions/revoke", `{"id":"`+list[1].ID+`"}`, "X-Csrf-Token", g.csrf(c)); code != 200 || g.last().kind != "login.ended" {
		t.Errorf("revoke: %d %v", code, g.last())
	}
	if code, _ := g.ask(g.browser(), "GET", "/login/me", "", auth...); code != 401 {
		t.Errorf("after the revocation: %d", code)
	}
	// A terminal is idle like a browser, and logs out like one.
	again := g.terminal(c)
	if code, _ := g.ask(g.browser(), "POST", "/login/out", `{}`, "Authorization", "Bearer "+again); code != 200 {
		t.Errorf("log out: %d", code)
	}
	idle := g.terminal(c)
	g.pass(Idle)
	for _, x := range []string{again, idle} {
		if code, _ := g.ask(g.browser(), "GET", "/login/me", "", "Authorization", "Bearer "+x); code != 401 {
			t.Errorf("a terminal that is over: %d", code)
		}
	}
}

// No session without its statement, and none for an account that was disabled meanwhile.
func TestTerminalStatement(t *testing.T) {
	g := newRig(t, nil)
	_, k := g.first()
	for name, spoil := range map[string]func(){
		"ledger":   func() { g.fail = errors.New("ledger down") },
		"disabled": func() { g.db.Disable(t.Context(), k.account, true) },
	} {
		g.fail = nil
		code, user, ok := g.s.devices.begin("a", g.s.o.Now())
		if !ok || !g.s.devices.confirm(user, k.account, g.s.o.Now()) {
			t.Fatal(name)
		}
		before, _ := g.db.Sessions(t.Context(), k.account)
		spoil()
		if status, out := g.ask(g.browser(), "POST", "/login/cli/finish", `{"device_code":"`+code+`"}`); status == 200 {
			t.Errorf("%s: %d %s", name, status, out)
		}
		if after, _ := g.db.Sessions(t.Context(), k.account); len(after) > len(before) {
			t.Errorf("%s: a session", name)
		}
	}
}

// The number of logins under way has an end, for one source and for all.
func TestDevicesAreBounded(t *testing.T) {
	d, now := newDevices(), time.Now()
	for i := range maxPerHost + 1 {
		if _, _, ok := d.begin("one", now); ok != (i < maxPerHost) {
			t.Errorf("%d of one source: %v", i, ok)
		}
	}
	n := maxPerHost
	for range 2 * maxDevices {
		if _, user, ok := d.begin(random(), now); ok {
			n++
			if len(user) != userLength || strings.Trim(user, userLetters) != "" {
				t.Fatalf("%q", user)
			}
		}
	}
	if n != maxDevices || len(d.list) != maxDevices {
		t.Errorf("%d under way, %d kept", n, len(d.list))
	}
	if _, _, ok := d.begin("one", now.Add(DeviceLife)); !ok || len(d.list) != 1 {
		t.Errorf("what is over stays: %d", len(d.list))
	}
	g := newRig(t, nil)
	codes := map[int]int{}
	for range 15 {
		code, _ := g.ask(g.browser(), "POST", "/login/cli/start", `{}`)
		codes[code]++
	}
	if codes[200] != maxPerHost || codes[429] != 15-maxPerHost {
		t.Errorf("%v", codes)
	}
}

// The source is the peer, and behind a proxy of the configuration its last hop.
func TestSource(t *testing.T) {
	s := &Service{o: Options{Proxies: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/28")}}}
	for _, c := range []struct {
		peer string
		hops []string
		want string
	}{
		{"198.51.100.7:1", nil, "198.51.100.7"},
		{"198.51.100.7:1", []string{"203.0.113.9"}, "198.51.100.7"},
		{"192.0.2.3:1", []string{"203.0.113.9"}, "203.0.113.9"},
		{"[::ffff:192.0.2.3]:1", []string{"10.0.0.1, 203.0.113.9"}, "203.0.113.9"},
		{"192.0.2.3:1", []string{"203.0.113.1", "10.0.0.1, 203.0.113.9"}, "203.0.113.9"},
		{"192.0.2.3:1", []string{"203.0.113.1,"}, "192.0.2.3"},
		{"192.0.2.3:1", []string{"2001:db8:1:2:3::4"}, "2001:db8:1:2::"},
		{"192.0.2.3:1", nil, "192.0.2.3"},
		{"192.0.2.33:1", []string{"203.0.113.9"}, "192.0.2.33"},
		{"[2001:db8::5]:1", nil, "2001:db8::"},
		{"@", nil, "@"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.peer
		for _, h := range c.hops {
			r.Header.Add("X-Forwarded-For", h)
		}
		if got := s.Source(r); got != c.want {
			t.Errorf("%s %q: %s, want %s", c.peer, c.hops, got, c.want)
		}
	}
}

// An authenticator that fails does not use a secret up; two that succeed do not share it.
func TestSecretIsTakenOnce(t *testing.T) {
	g := newRig(t, nil)
	g.first()
	secret, account, err := g.s.Invite(t.Context(), "os:1000", []string{"analyst"})
	if err != nil || g.last().detail["account"] != account {
		t.Fatal(err, g.last())
	}
	if _, _, err := g.s.Invite(t.Context(), "os:1000", []string{"Ada L."}); !errors.Is(err, ErrBad) {
		t.Errorf("a name for a role: %v", err)
	}
	c := g.browser()
	if code, _ := g.ask(c, "POST", "/login/register/begin", `{"secret":"`+secret+`"}`); code != 200 {
		t.Fatal(code)
	}
	if code, _ := g.ask(c, "POST", "/login/register/finish", `{}`); code != 403 {
		t.Fatalf("no passkey: %d", code)
	}
	k := newKey()
	if code := g.register(g.browser(), strings.ToLower(secret[:4])+" "+secret[4:]+"\\n", k); code != 200 || k.account != account {
		t.Errorf("after a failure: %d %v", code, g.last())
	}
	if code := g.register(g.browser(), secret, newKey()); code != 403 {
		t.Errorf("twice: %d", code)
	}
	// Set-up ceremonies that run side by side make one account.
	h := newRig(t, nil)
	one, err := h.s.SetUp(t.Context(), []string{"operator"})
	if err != nil {
		t.Fatal(err)
	}
	two, err := h.s.SetUp(t.Context(), []string{"operator"})
	if err != nil {
		t.Fatal(err)
	}
	if code := h.register(h.browser(), one, newKey()); code != 200 {
		t.Error(code)
	}
	if code := h.register(h.browser(), two, newKey()); code != 403 {
		t.Errorf("a second first account: %d", code)
	}
	if err := h.db.Register(t.Context(), Account{ID: "u_B", Created: time.Now()}, true, webauthn.Credential{ID: []byte("x")}); !errors.Is(err, ErrUnknown) {
		t.Errorf("a second first account in the store: %v", err)
	}
	if n, _ := h.db.Accounts(t.Context()); n != 1 {
		t.Errorf("%d accounts", n)
	}
	if got := slices.Compact(h.kinds()); !slices.Equal(got, []string{"account.made", "login.passkey_added", "login.accepted", "login.refused"}) {
		t.Errorf("%v", got)
	}
}

func TestRemovePasskey(t *testing.T) {
	g := newRig(t, nil)
	c, k := g.first()
	list, err := g.s.Passkeys(t.Context(), k.account)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	remove := func(id string) (int, string) {
		return g.ask(c, "POST", "/login/passkeys/remove", `{"id":"`+id+`"}`, "X-Csrf-Token", g.csrf(c))
	}
	if code, out := remove(list[0].ID); code != 409 || !strings.Contains(out, "last_passkey") {
		t.Errorf("the last passkey: %d %s", code, out)
	}
	two := newKey()
	if code := g.register(c, "", two); code != 200 {
		t.Fatal(code)
	}
	if code, _ := remove("0000"); code != 404 {
		t.Errorf("unknown: %d", code)
	}
	if code, _ := remove(list[0].ID); code != 200 || g.last().detail["change"] != "passkey-removed" {
		t.Errorf("remove: %d %v", code, g.last())
	}
	k.cred.Counter = 50
	if code := g.login(g.browser(), k); code != 403 {
		t.Errorf("the removed passkey: %d", code)
	}
	two.cred.Counter = 50
	if code := g.login(c, two); code != 200 {
		t.Errorf("the other: %d %v", code, g.last())
	}
	g.pass(Fresh)
	if code, _ := remove(list[0].ID); code != 403 {
		t.Errorf("by an old session: %d", code)
	}
}

// A provider that is away stops nobody from starting, and is asked again.
func TestProviderAway(t *testing.T) {
	p := newIDP(t)
	g := newRig(t, &OIDC{Issuer: p.srv.URL, ClientID: "counterseal", RedirectURL: "https://example.org/login/oidc/callback", Roles: map[string][]string{"soc": {"analyst"}}})
	real := g.s.oidc.c.Issuer
	g.s.oidc.c.Issuer = "http://127.0.0.1:1"
	if code, _ := g.ask(g.browser(), "GET", "/login/oidc/start", ""); code != 502 {
		t.Errorf("away: %d", code)
	}
	g.s.oidc.c.Issuer = real
	if code, _ := g.ask(g.browser(), "GET", "/login/oidc/start", ""); code != 502 {
		t.Errorf("asked again at once: %d", code)
	}
	g.pass(again)
	if code, _ := g.ask(g.browser(), "GET", "/login/oidc/start", ""); code != 302 {
		t.Errorf("back: %d", code)
	}
}
