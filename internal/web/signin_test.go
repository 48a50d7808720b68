package web

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/fips140"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	cdpruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/counterseal/counterseal/internal/login"
	"github.com/counterseal/counterseal/internal/packs"
)

// door is a login with its pages on a real listener.
type door struct {
	t     *testing.T
	login *login.Service
	srv   *httptest.Server
	url   string
	pin   string // digest of the key of the certificate, for the browser

	mu    sync.Mutex // guards what follows
	past  time.Duration
	kinds []string

	taken   []string // statements that were signed
	refuses string   // why they are refused
}

func (d *door) now() time.Time { d.mu.Lock(); defer d.mu.Unlock(); return time.Now().Add(d.past) }

func (d *door) pass(by time.Duration) { d.mu.Lock(); defer d.mu.Unlock(); d.past += by }

func newDoor(t *testing.T) *door {
	t.Helper()
	d := &door{t: t}
	db, err := login.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	card := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	raw, err := x509.CreateCertificate(rand.Reader, card, card, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(spki)
	d.pin = base64.StdEncoding.EncodeToString(sum[:])
	d.srv = httptest.NewUnstartedServer(nil)
	d.srv.TLS = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{raw}, PrivateKey: key}}}
	d.srv.StartTLS()
	t.Cleanup(d.srv.Close)
	d.url = strings.Replace(d.srv.URL, "127.0.0.1", "localhost", 1)
	d.login, err = login.New(login.Options{Store: db, RPID: "localhost", Origin: d.url, Now: d.now, Signed: d.signed,
		Record: func(_ context.Context, kind, _ string, _ map[string]any) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.kinds = append(d.kinds, kind)
			return nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	pages, err := NewSignIn(SignInOptions{Login: d.login, Origin: d.url, Now: d.now,
		Empty: func(r *http.Request) (bool, error) { n, err := db.Accounts(r.Context()); return n == 0, err }})
	if err != nil {
		t.Fatal(err)
	}
	d.srv.Config.Handler = pages.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, _ := login.From(r.Context())
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, "<!doctype html><html lang=en><title>inside</title><p id=who>%s", who.Account.ID)
	}))
	return d
}

// get asks without a session.
func (d *door) get(path, host string) (*http.Response, string) {
	d.t.Helper()
	r, err := http.NewRequest(http.MethodGet, d.srv.URL+path, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	r.Host = host
	c := d.srv.Client()
	c.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	w, err := c.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer w.Body.Close()
	b, err := io.ReadAll(w.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return w, string(b)
}

// TestSignInPages looks at every page as a stranger gets it.
func TestSignInPages(t *testing.T) {
	d := newDoor(t)
	host := strings.TrimPrefix(d.url, "https://")
	for _, c := range []struct {
		path   string
		status int
		want   string
	}{
		{"/login/", 200, "There is no account yet"},
		{"/login/setup", 200, "Set-up secret"},
		{"/login/invited", 200, "Invitation"},
		{"/login/account", 401, `data-next="/login/account"`},
		{"/login/cli", 401, `data-next="/login/cli"`},
		{"/login/oidc/start", 404, "No provider is configured"},
		{"/login/oidc/callback?code=a&state=b", 404, "No provider is configured"},
	} {
		w, body := d.get(c.path, host)
		if w.StatusCode != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s: %d %s", c.path, w.StatusCode, body)
		}
		if got := w.Header.Get("Content-Security-Policy"); got != signInPolicy {
			t.Errorf("%s: %s", c.path, got)
		}
		for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Strict-Transport-Security": ""} {
			if got := w.Header.Get(name); got != want {
				t.Errorf("%s: %s: %q", c.path, name, got)
			}
		}
		if outside := regexp.MustCompile(`(?:src|href|action)="(?:https?:)?//`).FindString(body); outside != "" {
			t.Errorf("%s: %s", c.path, outside)
		}
		if regexp.MustCompile(`<script(?:>| type="module">)|\son[a-z]+=|\sstyle=`).MatchString(body) {
			t.Errorf("%s: inline script or style", c.path)
		}
	}
	for _, path := range []string{"/api/v1/ingest/app", "/es/app/_bulk"} {
		for bearer, want := range map[string]int{"": 401, "css_" + strings.Repeat("A", 43): 401, d.token("search"): 403, d.token("ingest"): 200} {
			r := httptest.NewRequest(http.MethodPost, d.url+path, nil)
			if bearer != "" {
				r.Header.Set("Authorization", "Bearer "+bearer)
			}
			w := httptest.NewRecorder()
			if d.srv.Config.Handler.ServeHTTP(w, r); w.Code != want {
				t.Errorf("%s with %.4s: %d, want %d", path, bearer, w.Code, want)
			}
		}
	}
	if w, _ := d.get("/login/", "planted.example"); w.StatusCode != 421 {
		t.Errorf("another host: %d", w.StatusCode)
	}
	if w, _ := d.get("/", host); w.StatusCode != 200 || w.Header.Get("Content-Security-Policy") == signInPolicy {
		t.Errorf("the policy of the login is for its pages alone: %d", w.StatusCode)
	}
	if w, body := d.get("/static/js/signin.js", host); w.StatusCode != 200 || !strings.HasPrefix(w.Header.Get("Content-Type"), "text/javascript") || strings.Contains(body, "innerHTML") {
		t.Errorf("the script: %d %s", w.StatusCode, w.Header.Get("Content-Type"))
	}
}

// token makes a token of a machine.
func (d *door) token(scope string) string {
	d.t.Helper()
	a, err := d.login.Machine(d.t.Context(), "os:1000", []string{"collector"})
	if err != nil {
		d.t.Fatal(err)
	}
	text, _, err := d.login.NewToken(d.t.Context(), "os:1000", a.ID, []string{scope}, time.Hour)
	if err != nil {
		d.t.Fatal(err)
	}
	return text
}

// browser starts a real browser, or skips.
func (d *door) browser() context.Context {
	d.t.Helper()
	if fips140.Enforced() {
		d.t.Skip("no part of a FIPS run: the WebSocket to the browser needs SHA-1")
	}
	if testing.Short() && !packs.Required("browser") {
		d.t.Skip("long: other tests go the same ways without a browser")
	}
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "headless_shell"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		if packs.Required("browser") {
			d.t.Fatal("no Chromium is installed, and COUNTERSEAL_REQUIRE demands one")
		}
		d.t.Skip("no Chromium is installed: the pages of the login are not tried in a browser")
	}
	profile, err := os.MkdirTemp("", "counterseal-browser")
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { // its last processes may write after the first one has ended
		err := os.RemoveAll(profile)
		for end := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(end); err = os.RemoveAll(profile) {
			time.Sleep(20 * time.Millisecond)
		}
		if err != nil {
			d.t.Error(err)
		}
	})
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.UserDataDir(profile), chromedp.Flag("ignore-certificate-errors-spki-list", d.pin), chromedp.WSURLReadTimeout(time.Minute))
	// Not the context of the test, which ends before what cleans up: the browser is asked to close.
	alloc, stop := chromedp.NewExecAllocator(context.Background(), options...)
	d.t.Cleanup(stop)
	ctx, end := chromedp.NewContext(alloc)
	d.t.Cleanup(end)
	d.t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			d.t.Log("the browser did not close by itself: ", err)
		}
	})
	ctx, over := context.WithTimeout(ctx, 3*time.Minute)
	d.t.Cleanup(over)
	return ctx
}

// TestSignInInABrowser goes the whole way in a real browser with an authenticator that the
// browser plays: set-up, log out, login, a second passkey, a terminal, revocation.
func TestSignInInABrowser(t *testing.T) {
	d := newDoor(t)
	ctx := d.browser()
	var mu sync.Mutex // guards wrong
	var wrong []string
	chromedp.ListenTarget(ctx, func(e any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := e.(type) {
		case *cdpruntime.EventExceptionThrown:
			wrong = append(wrong, e.ExceptionDetails.Error())
		case *cdplog.EventEntryAdded:
			if e.Entry.Source != cdplog.SourceNetwork { // refusals are network errors here
				wrong = append(wrong, e.Entry.Text)
			}
		}
	})
	run := func(what string, actions ...chromedp.Action) {
		t.Helper()
		if err := chromedp.Run(ctx, actions...); err != nil {
			var page string
			chromedp.Run(ctx, chromedp.OuterHTML("body", &page, chromedp.ByQuery))
			t.Fatalf("%s: %v\n%s", what, err, page)
		}
	}
	var authenticator webauthn.AuthenticatorID
	add := func(ctx context.Context) (err error) {
		authenticator, err = webauthn.AddVirtualAuthenticator(&webauthn.VirtualAuthenticatorOptions{Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportInternal,
			HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true}).Do(ctx)
		return err
	}
	at := func(path string) chromedp.Action { return chromedp.Navigate(d.url + path) }

	run("start", cdplog.Enable(), webauthn.Enable(), chromedp.ActionFunc(add))
	run("the empty server", at("/login/"), see("There is no account yet"), d.look("signin-empty"))
	run("to the set-up by the keyboard", d.focused(`a[href="/login/setup"]`), chromedp.KeyEvent(kb.Enter), see("Set-up secret"), d.look("setup"))

	run("a wrong secret", chromedp.SendKeys("#secret", "AAAA"+kb.Enter, chromedp.ByQuery), see("These letters are not valid"), d.look("setup-wrong"))
	secret, err := d.login.SetUp(t.Context(), []string{"operator"})
	if err != nil {
		t.Fatal(err)
	}
	run("a set-up with the secret", chromedp.KeyEvent(strings.ToLower(secret)+kb.Enter), see("Where you are signed in"), d.look("account-one"))
	var where, rows string
	run("no secret in the address", chromedp.Location(&where))
	if where != d.url+"/login/account" {
		t.Errorf("after the set-up: %s", where)
	}
	run("log out", chromedp.Click(`nav [data-act=out]`, chromedp.ByQuery), see("There are no passwords here"), d.look("signin"))
	run("the set-up is over", at("/login/setup"), see("The set-up is over"), d.look("setup-over"))

	run("login by passkey", at("/login/"), chromedp.Click(`[data-act=passkey]`, chromedp.ByQuery), chromedp.WaitVisible("#who", chromedp.ByQuery), chromedp.Text("#who", &where, chromedp.ByQuery))
	if !strings.HasPrefix(where, "u_") {
		t.Errorf("inside: %q", where)
	}
	run("one session", at("/login/account"), see("Where you are signed in"), chromedp.Text(`[aria-labelledby=h-sessions] tbody`, &rows, chromedp.ByQuery))
	if n := strings.Count(rows, "Browser"); n != 1 || !strings.Contains(rows, "this one") {
		t.Errorf("%d sessions: %s", n, rows)
	}
	run("the same device again", chromedp.Click(`[data-act=add]`, chromedp.ByQuery), see("holds a passkey of your account already"), d.look("account-same"))
	run("another device", webauthn.RemoveVirtualAuthenticator(authenticator), chromedp.ActionFunc(add), chromedp.Click(`[data-act=add]`, chromedp.ByQuery),
		chromedp.WaitVisible(`[data-act=remove]`, chromedp.ByQuery), d.look("account-two"))
	run("remove the first", chromedp.Click(`[data-act=remove]`, chromedp.ByQuery), see("Add a second passkey"))

	run("who am I", at("/login/account"), chromedp.Text(`dd.mono`, &where, chromedp.ByQuery))
	d.signs(where, run, see)

	secretOf := d.terminal(func(code string) {
		run("a wrong code", at("/login/cli"), see("Let this terminal in"), d.look("terminal"), chromedp.SendKeys("#code", "BBBBBBBB"+kb.Enter, chromedp.ByQuery), see("No terminal waits"))
		run("a terminal", chromedp.KeyEvent(strings.ToLower(code)+kb.Enter), see("The terminal is signed in"), d.look("terminal-done"))
	})
	if got := d.me(secretOf); got != 200 {
		t.Errorf("the terminal: %d", got)
	}
	run("revoke it", at("/login/account"), see("Terminal"), d.look("account-terminal"), chromedp.Click(`[data-act=revoke]`, chromedp.ByQuery), chromedp.WaitNotPresent(`[data-act=revoke]`, chromedp.ByQuery))
	if got := d.me(secretOf); got != 401 {
		t.Errorf("the revoked terminal: %d", got)
	}
	d.pass(login.Fresh)
	run("no longer fresh", at("/login/cli"), see("younger than five minutes"), d.look("terminal-old"), at("/login/account"), see("sign in again"), d.look("account-old"))
	run("sign in again", chromedp.Click(`[data-act=passkey]`, chromedp.ByQuery), chromedp.WaitVisible(`[data-act=add]`, chromedp.ByQuery))
	run("invited", at("/login/invited"), see("Invitation"), d.look("invited"))
	run("revoke this one", at("/login/account"), chromedp.WaitVisible("table [data-act=out]", chromedp.ByQuery), chromedp.Click("table [data-act=out]", chromedp.ByQuery), see("There are no passwords here"))

	mu.Lock()
	defer mu.Unlock()
	for _, w := range wrong {
		t.Errorf("the browser complains: %s", w)
	}
	for _, kind := range []string{"account.made", "login.passkey_added", "login.accepted", "login.ended", "login.refused", "account.changed"} {
		if !strings.Contains(strings.Join(d.kinds, " "), kind) {
			t.Errorf("no statement %s: %v", kind, d.kinds)
		}
	}
}

// see waits until the page says a text.
func see(text string) chromedp.Action {
	return chromedp.ActionFunc(func(ctx context.Context) error {
		for {
			var ok bool
			err := chromedp.Poll(`document.readyState === "complete" && document.body.innerText.includes(`+quoted(text)+`)`, &ok, chromedp.WithPollingTimeout(20*time.Second)).Do(ctx)
			if err == nil || !regexp.MustCompile("context with specified id|context was destroyed|target navigated").MatchString(err.Error()) {
				return err
			} // the page that was asked gave way to the next one
		}
	})
}

func quoted(text string) string {
	b, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// focused walks by Tab until the element has the focus: the keyboard reaches it.
func (d *door) focused(selector string) chromedp.Action {
	return chromedp.ActionFunc(func(ctx context.Context) error {
		for range 20 {
			var ok bool
			if err := chromedp.KeyEvent(kb.Tab).Do(ctx); err != nil {
				return err
			}
			if err := chromedp.Evaluate(`document.activeElement.matches(`+quoted(selector)+`)`, &ok).Do(ctx); err != nil || ok {
				return err
			}
		}
		return errors.New("the keyboard does not reach " + selector)
	})
}

// audit is what a page must keep for people who do not see it or use no mouse.
const audit = `(() => {
  const out = [];
  const name = (e) => (e.getAttribute("aria-label") || e.innerText || e.textContent || "").trim();
  for (const e of document.querySelectorAll("button, a")) if (!name(e)) out.push("no name: " + e.outerHTML);
  for (const e of document.querySelectorAll("input, textarea")) if (!e.labels.length) out.push("no label: " + e.outerHTML);
  for (const e of document.querySelectorAll("[aria-describedby]")) if (!document.getElementById(e.getAttribute("aria-describedby"))) out.push("no description: " + e.outerHTML);
  for (const e of document.querySelectorAll("[aria-labelledby]")) if (!document.getElementById(e.getAttribute("aria-labelledby"))) out.push("no heading: " + e.className);
  for (const e of document.querySelectorAll("svg")) if (e.getAttribute("aria-hidden") !== "true") out.push("an image is read out");
  if (document.querySelectorAll("h1").length !== 1 || document.querySelectorAll("main").length !== 1) out.push("not one heading and one main part");
  if (!document.documentElement.lang || !document.title) out.push("no language or title");
  if (document.documentElement.scrollWidth > document.documentElement.clientWidth) out.push("wider than the window by " + (document.documentElement.scrollWidth - document.documentElement.clientWidth));
  const lum = (c) => { const [r, g, b] = c.match(/[\d.]+/g).map((v) => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; };
  const ground = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (!/, 0\)$/.test(c)) return c; } return "rgb(255, 255, 255)"; };
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !e.getClientRects().length || e.disabled || e.closest(".skip, .hide, noscript")) continue;
    const a = lum(getComputedStyle(e).color), b = lum(ground(e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) out.push("contrast " + ratio.toFixed(2) + ": " + e.textContent.trim());
  }
  return out;
})()`

// look audits the page, dark and light, wide and narrow. With COUNTERSEAL_SHOTS it also
// leaves pictures in that folder, for a person to look at.
func (d *door) look(name string) chromedp.Action {
	return chromedp.ActionFunc(func(ctx context.Context) error {
		var width int
		if err := chromedp.Run(ctx, chromedp.Evaluate(`innerWidth`, &width)); err != nil {
			return err
		}
		for _, scheme := range []string{"light", "dark"} {
			for _, width := range []int64{360, 1280} {
				size := map[int64]string{360: "narrow", 1280: "wide"}[width]
				var faults []string
				err := chromedp.Run(ctx, emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
					emulation.SetDeviceMetricsOverride(width, 800, 1, false), chromedp.Evaluate(audit, &faults))
				if err != nil {
					return err
				}
				for _, f := range faults {
					d.t.Errorf("%s, %s and %s: %s", name, scheme, size, f)
				}
				if dir := os.Getenv("COUNTERSEAL_SHOTS"); dir != "" {
					var picture []byte
					if err := chromedp.Run(ctx, chromedp.FullScreenshot(&picture, 100)); err != nil {
						return err
					}
					if err := os.WriteFile(filepath.Join(dir, name+"-"+scheme+"-"+size+".png"), picture, 0o600); err != nil {
						return err
					}
				}
			}
		}
		// Whoever clicks next would miss what still moves: wait for the old width and for two frames at it.
		return chromedp.Run(ctx, emulation.ClearDeviceMetricsOverride(), chromedp.Poll(fmt.Sprintf(`innerWidth === %d`, width), nil, chromedp.WithPollingTimeout(20*time.Second)),
			chromedp.Evaluate(`new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))`, nil,
				func(p *cdpruntime.EvaluateParams) *cdpruntime.EvaluateParams { return p.WithAwaitPromise(true) }))
	})
}

// post asks as a program.
func (d *door) post(path string, body, into any) int {
	d.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		d.t.Fatal(err)
	}
	r, err := http.NewRequest(http.MethodPost, d.srv.URL+path, bytes.NewReader(b))
	if err != nil {
		d.t.Fatal(err)
	}
	r.Host = strings.TrimPrefix(d.url, "https://")
	r.Header.Set("Content-Type", "application/json")
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	w, err := c.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer w.Body.Close()
	if w.StatusCode == http.StatusOK {
		if err := json.NewDecoder(w.Body).Decode(into); err != nil {
			d.t.Fatal(err)
		}
	}
	return w.StatusCode
}

// terminal logs a terminal in; confirm types the code.
func (d *door) terminal(confirm func(code string)) string {
	d.t.Helper()
	var start struct {
		Device string `json:"device_code"`
		User   string `json:"user_code"`
	}
	if code := d.post("/login/cli/start", struct{}{}, &start); code != 200 {
		d.t.Fatalf("start: %d", code)
	}
	confirm(start.User)
	var done struct{ Secret string }
	if code := d.post("/login/cli/finish", map[string]string{"device_code": start.Device}, &done); code != 200 {
		d.t.Fatalf("finish: %d", code)
	}
	return done.Secret
}

func (d *door) me(bearer string) int {
	d.t.Helper()
	r := httptest.NewRequest(http.MethodGet, d.url+"/login/me", nil)
	r.Header.Set("Authorization", "Bearer "+bearer)
	w := httptest.NewRecorder()
	d.srv.Config.Handler.ServeHTTP(w, r)
	return w.Code
}
