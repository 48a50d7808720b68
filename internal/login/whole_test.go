package login_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/descope/virtualwebauthn"

	"github.com/counterseal/counterseal/internal/login"
	"github.com/counterseal/counterseal/internal/packs"
	"github.com/counterseal/counterseal/internal/web"
)

// visitor is a client that does what a browser does: cookies, redirects, the headers of
// where a request comes from, the token of the page.
type visitor struct {
	t    *testing.T
	c    *http.Client
	csrf string
}

func (v *visitor) get(path string) (*http.Response, string) {
	v.t.Helper()
	w, err := v.c.Get("https://example.org" + path)
	if err != nil {
		v.t.Fatal(err)
	}
	defer w.Body.Close()
	b, err := io.ReadAll(w.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	if m := regexp.MustCompile(`data-csrf="([^"]*)"`).FindSubmatch(b); m != nil {
		v.csrf = string(m[1])
	}
	return w, string(b)
}

func (v *visitor) post(path, body string) (int, string) {
	v.t.Helper()
	r, err := http.NewRequest(http.MethodPost, "https://example.org"+path, strings.NewReader(body))
	if err != nil {
		v.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	r.Header.Set("Origin", "https://example.org")
	r.Header.Set("X-Csrf-Token", v.csrf)
	w, err := v.c.Do(r)
	if err != nil {
		v.t.Fatal(err)
	}
	defer w.Body.Close()
	b, err := io.ReadAll(w.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return w.StatusCode, string(b)
}

// TestWholeByProvider goes through the pages with a login by a provider over real HTTP.
func TestWholeByProvider(t *testing.T) {
	idp := login.NewIDP(t)
	db, err := login.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	var mu sync.Mutex // guards told
	var told []string
	const origin = "https://example.org"
	s, err := login.New(login.Options{Store: db, RPID: "example.org", Origin: origin,
		OIDC: &login.OIDC{Issuer: idp, ClientID: "counterseal", RedirectURL: origin + "/login/oidc/callback", Roles: map[string][]string{"soc": {"analyst"}}, AMR: []string{"hwk"}},
		Record: func(_ context.Context, kind, actor string, d map[string]any) error {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, fmt.Sprint(kind, " ", actor, " ", d))
			return nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	pages, err := web.NewSignIn(web.SignInOptions{Login: s, Origin: origin, Provider: true,
		Empty: func(r *http.Request) (bool, error) { n, err := db.Accounts(r.Context()); return n == 0, err }})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewTLSServer(pages.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, ok := login.From(r.Context())
		fmt.Fprint(w, ok, " ", who.Account.Roles)
	})))
	t.Cleanup(srv.Close)
	newVisitor := func() *visitor {
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		return &visitor{t: t, c: &http.Client{Jar: jar, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				var d net.Dialer
				if strings.HasPrefix(address, "example.org:") {
					address = srv.Listener.Addr().String()
				}
				return d.DialContext(ctx, network, address)
			}}}}
	}
	v := newVisitor()
	if w, page := v.get("/login/account"); w.StatusCode != 401 || !strings.Contains(page, `href="/login/oidc/start?next=account"`) {
		t.Errorf("before the login: %d %s", w.StatusCode, page)
	}
	// Start, provider, callback: the client follows as a browser does.
	w, page := v.get("/login/oidc/start?next=account")
	if w.StatusCode != 200 || w.Header.Get("Refresh") != "0; url=/login/account" || !strings.Contains(page, "Signed in") || strings.Contains(page, "planted") {
		t.Fatalf("login: %d %v %s", w.StatusCode, w.Header, page)
	}
	if got := w.Header.Get("Content-Security-Policy"); !strings.Contains(got, "script-src 'self'") || !strings.Contains(got, "require-trusted-types-for 'script'") {
		t.Errorf("%s", got)
	}
	back := w.Request.URL
	if w, page := v.get("/login/account"); w.StatusCode != 200 || !strings.Contains(page, "No passkey yet") || strings.Count(page, "<td>Browser") != 1 || strings.Contains(page, "planted") {
		t.Errorf("the account: %d %s", w.StatusCode, page)
	}
	if _, page := v.get("/"); page != "true [analyst]" {
		t.Errorf("inside: %s", page)
	}
	// The same callback again is refused, as a page, and the session stays.
	if w, page := v.get(back.RequestURI()); w.StatusCode != 403 || !strings.Contains(page, "was not accepted") || strings.Contains(page, "state=") {
		t.Errorf("the callback again: %d %s", w.StatusCode, page)
	}
	v.get("/login/account")

	// A passkey beside the provider, then a login by it elsewhere.
	rp := virtualwebauthn.RelyingParty{ID: "example.org", Name: "Counterseal", Origin: origin}
	auth, cred := virtualwebauthn.NewAuthenticator(), packs.NewPasskey()
	code, out := v.post("/login/register/begin", `{"secret":""}`)
	if code != 200 {
		t.Fatalf("register: %d %s", code, out)
	}
	o, err := virtualwebauthn.ParseAttestationOptions(out)
	if err != nil {
		t.Fatal(err)
	}
	if code, out := v.post("/login/register/finish", virtualwebauthn.CreateAttestationResponse(rp, auth, cred, *o)); code != 200 {
		t.Fatalf("register: %d %s", code, out)
	}
	accounts, err := s.Accounts(t.Context())
	if err != nil || len(accounts) != 1 {
		t.Fatal(accounts, err)
	}
	auth.Options.UserHandle = []byte(accounts[0].ID)
	cred.Counter++
	other := newVisitor()
	code, out = other.post("/login/passkey/begin", `{}`)
	if code != 200 {
		t.Fatal(code)
	}
	a, err := virtualwebauthn.ParseAssertionOptions(out)
	if err != nil {
		t.Fatal(err)
	}
	if code, out := other.post("/login/passkey/finish", virtualwebauthn.CreateAssertionResponse(rp, auth, cred, *a)); code != 200 {
		t.Fatalf("passkey: %d %s", code, out)
	}
	// The first session sees the second and ends it.
	_, page = v.get("/login/account")
	ids := regexp.MustCompile(`data-act="revoke" data-id="([^"]+)"`).FindAllStringSubmatch(page, -1)
	if len(ids) != 1 {
		t.Fatalf("%d sessions to revoke: %s", len(ids), page)
	}
	if code, _ := v.post("/login/sessions/revoke", `{"id":"`+ids[0][1]+`"}`); code != 200 {
		t.Errorf("revoke: %d", code)
	}
	if _, page := other.get("/"); page != "false []" {
		t.Errorf("after the revocation: %s", page)
	}
	if code, _ := v.post("/login/out", `{}`); code != 200 {
		t.Errorf("log out: %d", code)
	}
	if w, _ := v.get("/login/account"); w.StatusCode != 401 {
		t.Errorf("after the log-out: %d", w.StatusCode)
	}
	for _, text := range told {
		if strings.Contains(text, "planted") || strings.Contains(text, url.QueryEscape(back.Query().Get("code"))) {
			t.Errorf("recorded: %s", text)
		}
	}
	if all := strings.Join(told, "\n"); !strings.Contains(all, "account.made") || strings.Count(all, "login.ended") != 2 || !strings.Contains(all, "login.refused") {
		t.Errorf("%s", all)
	}
}
