package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/descope/virtualwebauthn"

	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/login"
	"github.com/counterseal/counterseal/internal/packs"
)

// layCertificate writes a certificate for logs.example and localhost, and gives it.
func layCertificate(t *testing.T, dir string, serial int64) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	card := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: []string{"logs.example", "localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true}
	raw, err := x509.CreateCertificate(rand.Reader, card, card, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: raw}, "key.pem": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if card, err = x509.ParseCertificate(raw); err != nil {
		t.Fatal(err)
	}
	return card
}

// openDoor is a server with a login on a real listener. dial reaches it under its name.
func openDoor(t *testing.T) (x *signIn, client func() *http.Client) {
	t.Helper()
	dir := t.TempDir()
	card := layCertificate(t, dir, 1)
	cfg, err := parseConfig(filepath.Join(dir, configName), []byte("data: data\nhttp: off\nreserve: 16MiB\nlogin: {address: \"127.0.0.1:0\", origin: \"https://logs.example\", cert: cert.pem, key: key.pem}\n"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := openServer(t.Context(), cfg, serverOptions{log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if x, err = s.openLogin(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := x.listenLogin(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- x.run(ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			who, _ := login.From(r.Context())
			fmt.Fprintf(w, "inside as %q", who.Account.ID)
		}))
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := x.close(); err != nil {
			t.Error(err)
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return x, func() *http.Client { return doorClient(t, card, x.l.Addr) }
}

// doorClient is a browser that finds logs.example at an address.
func doorClient(t *testing.T, card *x509.Certificate, at func() net.Addr) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(card)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			if address == "logs.example:443" {
				address = at().String()
			}
			var d net.Dialer
			return d.DialContext(ctx, "tcp", address)
		}}}
}

// person is somebody with a browser and a passkey.
type person struct {
	t    *testing.T
	c    *http.Client
	rp   virtualwebauthn.RelyingParty // the server
	auth virtualwebauthn.Authenticator
	cred virtualwebauthn.Credential
	id   string
	csrf string
}

var doorRP = virtualwebauthn.RelyingParty{ID: "logs.example", Name: "Counterseal", Origin: "https://logs.example"}

func (p *person) post(path, body string) (int, string) {
	p.t.Helper()
	r, err := http.NewRequest(http.MethodPost, p.rp.Origin+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	r.Header.Set("X-Csrf-Token", p.csrf)
	w, err := p.c.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer w.Body.Close()
	b, err := io.ReadAll(w.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return w.StatusCode, string(b)
}

// newPerson makes an account by a secret.
func newPerson(t *testing.T, c *http.Client, secret string) *person {
	t.Helper()
	return newPersonAt(t, c, doorRP, secret)
}

func newPersonAt(t *testing.T, c *http.Client, rp virtualwebauthn.RelyingParty, secret string) *person {
	t.Helper()
	p := &person{t: t, c: c, rp: rp, auth: virtualwebauthn.NewAuthenticator(), cred: packs.NewPasskey()}
	code, out := p.post("/login/register/begin", `{"secret":"`+secret+`"}`)
	if code != 200 {
		t.Fatalf("begin: %d %s", code, out)
	}
	o, err := virtualwebauthn.ParseAttestationOptions(out)
	if err != nil {
		t.Fatal(err)
	}
	code, out = p.post("/login/register/finish", virtualwebauthn.CreateAttestationResponse(rp, p.auth, p.cred, *o))
	var got struct{ Account, CSRF string }
	if err := json.Unmarshal([]byte(out), &got); code != 200 || err != nil {
		t.Fatalf("finish: %d %s", code, out)
	}
	p.id, p.csrf, p.auth.Options.UserHandle = got.Account, got.CSRF, []byte(got.Account)
	return p
}

// act does an act as the owner of the machine.
func act[T any](t *testing.T, do func(context.Context, string, []byte) (any, error), in any) (T, error) {
	t.Helper()
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	got, err := do(t.Context(), "os:1000", b)
	out, _ := got.(T)
	return out, err
}

// terminalLogin runs counterseal login while the person confirms, and gives the file.
func terminalLogin(t *testing.T, client func() *http.Client, by *person) []byte {
	t.Helper()
	a := &asking{http: client(), url: "https://logs.example"}
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	var all bytes.Buffer
	go func() {
		done <- a.login(t.Context(), &environment{stdout: io.MultiWriter(&all, pw)})
		pw.Close()
	}()
	lines := bufio.NewScanner(pr)
	for lines.Scan() {
		code, ok := strings.CutPrefix(lines.Text(), "code      ")
		if !ok {
			continue
		}
		if status, text := by.post("/login/cli/confirm", `{"user_code":"`+code+`"}`); status != 200 {
			t.Fatalf("confirm: %d %s", status, text)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(all.String(), "signed in as "+by.id) || strings.Contains(all.String(), "css_") {
		t.Errorf("%s", &all)
	}
	path, err := sessionPath()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestDoor is the login of a server as people and terminals meet it, with what the ledger
// has of it.
func TestDoor(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	x, client := openDoor(t)
	var said bytes.Buffer
	if err := x.announce(t.Context(), &said); err != nil || !strings.Contains(said.String(), "counterseal account setup") || strings.Contains(said.String(), "type there") {
		t.Errorf("to what is no terminal: %q %v", &said, err)
	}
	first, err := act[accountSecret](t, x.accountSetUp, struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	boss := newPerson(t, client(), first.Secret)
	if _, err := act[accountSecret](t, x.accountSetUp, struct{}{}); err == nil {
		t.Error("a second set-up")
	}
	w, err := boss.c.Get("https://logs.example/")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(w.Body)
	w.Body.Close()
	if string(b) != fmt.Sprintf("inside as %q", boss.id) || w.ProtoMajor != 2 || w.TLS.Version != tls.VersionTLS13 || w.Header.Get("Strict-Transport-Security") == "" {
		t.Errorf("%s, HTTP/%d, TLS %x, %v", b, w.ProtoMajor, w.TLS.Version, w.Header)
	}
	old := client()
	old.Transport.(*http.Transport).TLSClientConfig.MaxVersion = tls.VersionTLS12
	if _, err := old.Get("https://logs.example/login/"); err == nil {
		t.Error("TLS 1.2 was taken")
	}

	for _, roles := range [][]string{nil, {"founder"}, {"planted.name"}} {
		if _, err := act[accountSecret](t, x.accountInvite, accountInvite{roles}); err == nil {
			t.Errorf("invited as %v", roles)
		}
	}
	invited, err := act[accountSecret](t, x.accountInvite, accountInvite{[]string{"analyst", "responder"}})
	if err != nil {
		t.Fatal(err)
	}
	guest := newPerson(t, client(), invited.Secret)
	if guest.id != invited.Account {
		t.Errorf("the invitation made %s, not %s", guest.id, invited.Account)
	}

	// A terminal of the guest.
	var out bytes.Buffer
	a := &asking{http: client(), url: "https://logs.example"}
	terminalLogin(t, client, guest)
	path, err := sessionPath()
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	sign, err := bearer(&x.s.cfg)
	if err != nil || !strings.HasPrefix(sign, "Bearer css_") {
		t.Fatalf("%.11q %v", sign, err)
	}
	other := x.s.cfg
	other.Login.Origin = "https://other.example"
	if sign, err := bearer(&other); sign != "" || err != nil {
		t.Error("the session of one server was sent to another")
	}
	ask := func(sign string) string {
		r, err := http.NewRequest(http.MethodGet, "https://logs.example/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", sign)
		w, err := client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Body.Close()
		b, _ := io.ReadAll(w.Body)
		return string(b)
	}
	if got := ask(sign); got != fmt.Sprintf("inside as %q", guest.id) {
		t.Errorf("%s", got)
	}
	// The same session at the socket; without one it is the owner of the machine.
	atSocket := func(sign string) (int, string) {
		r := httptest.NewRequest(http.MethodPost, "http://localhost/api/v1/acts/hold.list", nil)
		if sign != "" {
			r.Header.Set("Authorization", sign)
		}
		w := httptest.NewRecorder()
		x.socket(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			who, _ := login.From(r.Context())
			fmt.Fprint(w, who.Account.ID)
		})).ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	if code, who := atSocket(sign); code != 200 || who != guest.id {
		t.Errorf("at the socket: %d %s", code, who)
	}
	if code, who := atSocket(""); code != 200 || who != "" {
		t.Errorf("the owner at the socket: %d %s", code, who)
	}

	// A machine of the owner.
	tok, err := act[tokenMade](t, x.tokenCreate, tokenCreate{Scopes: []string{"ingest"}, Days: 30})
	if err != nil || !strings.HasPrefix(tok.Text, "cst_") {
		t.Fatal(err)
	}
	for _, bad := range []tokenCreate{{Scopes: []string{"ingest"}}, {Scopes: []string{"ingest"}, Days: 366}, {Days: 1}, {Scopes: []string{"planted name"}, Days: 1}, {Account: "u_X", Scopes: []string{"ingest"}, Days: 1}} {
		if _, err := act[tokenMade](t, x.tokenCreate, bad); err == nil {
			t.Errorf("%+v made a token", bad)
		}
	}
	if got := ask("Bearer " + tok.Text); !strings.Contains(got, tok.Account) {
		t.Errorf("the token: %s", got)
	}
	rows, err := act[[]accountRow](t, x.accountList, struct{}{})
	if err != nil || len(rows) < 3 || rows[1].Sessions != 2 || rows[1].Passkeys != 1 {
		t.Errorf("%+v %v", rows, err)
	}
	if list, err := act[[]tokenRow](t, x.tokenList, struct{}{}); err != nil || len(list) != 1 || list[0].Used.IsZero() {
		t.Errorf("%+v %v", list, err)
	}
	if _, err := act[tokenNamed](t, x.tokenRevoke, tokenNamed{tok.Token}); err != nil {
		t.Error(err)
	}
	if got := ask("Bearer " + tok.Text); strings.Contains(got, "inside") {
		t.Errorf("the revoked token: %s", got)
	}
	if _, err := act[accountNamed](t, x.accountDisable, accountNamed{guest.id}); err != nil {
		t.Error(err)
	}
	if got := ask(sign); strings.Contains(got, "inside") {
		t.Errorf("the terminal of a disabled account: %s", got)
	}
	if code, out := atSocket(sign); code != 401 || !strings.Contains(out, "counterseal login") {
		t.Errorf("the terminal of a disabled account at the socket: %d %s", code, out)
	}
	if _, err := act[accountNamed](t, x.accountEnable, accountNamed{guest.id}); err != nil {
		t.Error(err)
	}

	// Another login of a terminal, which logs out.
	keep, err := x.login.Sessions(t.Context(), boss.id)
	if err != nil {
		t.Fatal(err)
	}
	kept := terminalLogin(t, client, boss)
	if err := os.WriteFile(path, kept, 0o644); err != nil { // others can read it
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if err := logout(t.Context(), &environment{stdout: &out}, func(*terminalSession) (*asking, error) { return a, nil }); err != nil || out.String() != "signed out\n" {
		t.Errorf("log out: %q %v", &out, err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the session lies there after the log-out")
	}
	if left, err := x.login.Sessions(t.Context(), boss.id); err != nil || len(left) != len(keep) {
		t.Errorf("%d sessions after the log-out, %d before: %v", len(left), len(keep), err)
	}
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := logout(t.Context(), &environment{stdout: &out}, nil); err == nil || !strings.Contains(err.Error(), "forgotten here") {
		t.Errorf("a file that is no session: %v", err)
	}

	// The certificate is renewed in place.
	layCertificate(t, filepath.Dir(x.s.cfg.path), 2)
	c := client()
	c.Transport.(*http.Transport).TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	if w, err = c.Get("https://logs.example/login/"); err != nil {
		t.Fatal(err)
	}
	w.Body.Close()
	if got := w.TLS.PeerCertificates[0].SerialNumber.Int64(); got != 2 {
		t.Errorf("certificate %d after the renewal", got)
	}

	// What the ledger has of all this.
	kinds := map[string]int{}
	_, err = x.s.pipe.Recorder().Ledger().Each(t.Context(), 0, func(_ uint64, s ledger.Statement, raw []byte) error {
		kinds[s.Kind]++
		if strings.HasPrefix(s.Kind, "login.") && s.Actor != "account:"+boss.id && s.Actor != "account:"+guest.id && s.Actor != login.Nobody {
			t.Errorf("%s by %s", s.Kind, s.Actor)
		}
		if bytes.Contains(raw, []byte("planted")) || bytes.Contains(raw, []byte(first.Secret)) || bytes.Contains(raw, []byte(tok.Text)) {
			t.Errorf("%s", raw)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[string]int{"account.made": 3, "account.changed": 3, "login.passkey_added": 2, "login.accepted": 4, "login.ended": 1, "token.made": 1, "token.revoked": 1} {
		if kinds[kind] != want {
			t.Errorf("%s: %d statements, want %d: %v", kind, kinds[kind], want, kinds)
		}
	}
}

// Refusals of strangers do not fill the ledger: after sixty in a minute they are counted.
func TestStrangersAreCounted(t *testing.T) {
	x, _ := openDoor(t)
	now := time.Now()
	x.s.now = func() time.Time { return now }
	refuse := func() {
		if err := x.record(t.Context(), "login.refused", login.Nobody, map[string]any{"way": "passkey", "reason": "no-ceremony"}); err != nil {
			t.Fatal(err)
		}
	}
	for range strangersPerMinute + 40 {
		refuse()
	}
	now = now.Add(time.Minute)
	refuse()
	var n, times int
	_, err := x.s.pipe.Recorder().Ledger().Each(t.Context(), 0, func(_ uint64, s ledger.Statement, _ []byte) error {
		if s.Kind == "login.refused" {
			var d struct{ Times int }
			n++
			if err := json.Unmarshal(s.Detail, &d); err != nil {
				return err
			}
			times += max(d.Times, 1)
		}
		return nil
	})
	if err != nil || n != strangersPerMinute+1 || times != strangersPerMinute+41 {
		t.Errorf("%d statements for %d refusals: %v", n, times, err)
	}
}

// What a login cannot be opened with is named.
func TestOpenLoginErrors(t *testing.T) {
	dir := t.TempDir()
	layCertificate(t, dir, 1)
	provider := `{"issuer":"https://idp.example","client_id":"c","redirect_url":"https://logs.example/login/oidc/callback","roles":{"soc":["analyst"]}}`
	for name, text := range map[string]string{
		"none": "{", "other": strings.Replace(provider, "logs.example", "planted.example", 1), "role": strings.Replace(provider, "analyst", "planted", 1), "good": provider,
	} {
		if err := os.WriteFile(filepath.Join(dir, name+".json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for more, want := range map[string]string{
		"oidc: missing.json":                       "login.oidc",
		"oidc: none.json":                          "login.oidc",
		"oidc: other.json":                         "redirect_url",
		"oidc: role.json":                          "a role that the policies do not know",
		"cert: missing.pem, key: key.pem":          "login.cert",
		"oidc: good.json":                          "",
		"cert: cert.pem, key: key.pem":             "",
		"proxy: [192.0.2.0/28, \"2001:db8::/64\"]": "",
	} {
		cfg, err := parseConfig(filepath.Join(dir, configName), []byte("login: {address: \"127.0.0.1:0\", origin: \"https://logs.example\", "+more+"}\n"))
		if err != nil {
			t.Fatal(err)
		}
		cfg.Data = t.TempDir()
		x, err := (&server{cfg: cfg, now: time.Now}).openLogin(t.Context())
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", more, err)
			} else if err := x.close(); err != nil {
				t.Error(err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: %v, want %q named", more, err, want)
		}
	}
	if x, err := (&server{}).openLogin(t.Context()); x != nil || err != nil {
		t.Errorf("no section: %v %v", x, err)
	}
	var none *signIn
	if _, err := act[[]accountRow](t, none.accountList, struct{}{}); err == nil || !strings.Contains(err.Error(), "no login") {
		t.Errorf("accounts without a login: %v", err)
	}
}

func TestSessionFile(t *testing.T) {
	home := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", home)
	if s, err := readSession(); s != nil || err != nil {
		t.Errorf("no file: %v %v", s, err)
	}
	path := filepath.Join(home, "counterseal", "session")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(terminalSession{URL: "https://logs.example", Secret: "css_A", Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readSession(); err == nil || !strings.Contains(err.Error(), "can be read by others") {
		t.Errorf("a file that others can read: %v", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	var c config
	c.Login = loginConfig{Address: "127.0.0.1:1", Origin: "https://logs.example"}
	if sign, err := bearer(&c); sign != "Bearer css_A" || err != nil {
		t.Errorf("%q %v", sign, err)
	}
	if sign, err := bearer(&config{}); sign != "" || err != nil {
		t.Errorf("without a login: %q %v", sign, err)
	}
	// What was asked as an account is not asked as the owner of the machine later on.
	if text, err = json.Marshal(terminalSession{URL: "https://logs.example", Secret: "css_A", Expires: time.Now().Add(-time.Second)}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	var x *exitError
	if _, err := bearer(&c); !errors.As(err, &x) || x.code != exitRefused || !strings.Contains(x.hint, "counterseal login") {
		t.Errorf("a session that has ended: %v", err)
	}
}

func FuzzParseSession(f *testing.F) {
	f.Add([]byte(`{"url":"https://logs.example:8443","secret":"css_A","expires":"2027-01-02T03:04:05Z"}`))
	f.Add([]byte(`{"url":"https://logs.example","ca":"/etc/ca.pem","secret":"css_A","expires":"2027-01-02T03:04:05Z"}`))
	f.Add([]byte(`{"url":"https://logs.example","ca":"ca.pem","secret":"css_A","expires":"2027-01-02T03:04:05Z"}`))
	f.Add([]byte(`{"url":"http://logs.example","secret":"css_A\n","expires":"0001-01-01T00:00:00Z"} x`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSession(b)
		if err != nil {
			return
		}
		if strings.ContainsAny(s.Secret, " \r\n") || s.CA != "" && !filepath.IsAbs(s.CA) || !strings.HasPrefix(s.URL, "https://") {
			t.Fatalf("%+v", s)
		}
		again, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := parseSession(again); err != nil || d.URL != s.URL || d.CA != s.CA || d.Secret != s.Secret || !d.Expires.Equal(s.Expires) {
			t.Errorf("%s: %v", again, err)
		}
	})
}
