package login

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/descope/virtualwebauthn"
	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/packs"
	"github.com/counterseal/counterseal/internal/passkey"
)

// waits is a statement that an account is to sign.
func (g *rig) waits(account string) Waiting {
	g.t.Helper()
	_, b, err := approval.New(approval.Ask{Action: "unmask", Case: "C-1", Purpose: "why", Requester: "Ines Vogel", Objects: []string{"account " + account}, Org: uuid.New(), Grant: time.Hour}, g.s.o.Now())
	if err != nil {
		g.t.Fatal(err)
	}
	w, err := g.s.Await(g.t.Context(), account, b)
	if err != nil {
		g.t.Fatal(err)
	}
	return w
}

// options are what the page gets for a statement.
func (g *rig) options(c *http.Client, id string) (*virtualwebauthn.AssertionOptions, int) {
	g.t.Helper()
	code, out := g.ask(c, "POST", "/login/sign/begin", `{"id":"`+id+`"}`, "X-Csrf-Token", g.csrf(c))
	if code != 200 {
		return nil, code
	}
	o, err := virtualwebauthn.ParseAssertionOptions(out)
	if err != nil {
		g.t.Fatal(err)
	}
	return o, code
}

// sign answers for an authenticator; spoil changes what it is asked.
func (g *rig) sign(c *http.Client, k *key, id string, o *virtualwebauthn.AssertionOptions, site virtualwebauthn.RelyingParty) (int, string) {
	g.t.Helper()
	k.cred.Counter++
	b, err := json.Marshal(map[string]any{"id": id, "answer": json.RawMessage(virtualwebauthn.CreateAssertionResponse(site, k.auth, k.cred, *o))})
	if err != nil {
		g.t.Fatal(err)
	}
	return g.ask(c, "POST", "/login/sign/finish", string(b), "X-Csrf-Token", g.csrf(c))
}

// stated counts the events with a text in their detail.
func (g *rig) stated(kind, text string) (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range g.events {
		b, _ := json.Marshal(e.detail)
		if e.kind == kind && strings.Contains(string(b), text) {
			n++
		}
	}
	return n
}

// TestSign: one signature of the passkey of who asked, over exactly what was asked, once.
func TestSign(t *testing.T) {
	g := newRig(t, nil)
	type taken struct {
		account   string
		statement []byte
		by        *passkey.Signed
	}
	var got []taken
	var refusal string
	var down error
	g.s.o.Signed = func(_ context.Context, account string, statement []byte, by *passkey.Signed) (string, error) {
		if refusal == "" && down == nil {
			got = append(got, taken{account, statement, by})
		}
		return refusal, down
	}
	c, k := g.first()
	g.pass(Fresh) // an old session: the signature itself is fresh
	w := g.waits(k.account)
	o, code := g.options(c, w.ID)
	if code != 200 {
		t.Fatal(code, g.last())
	}
	if challenge := passkey.Challenge(w.Statement); string(o.Challenge) != string(challenge[:]) || len(o.AllowCredentials) != 1 {
		t.Fatalf("the authenticator is asked for something else: %v", o)
	}
	if code, out := g.sign(c, k, w.ID, o, rp); code != 200 || len(got) != 1 {
		t.Fatal(code, out, g.last())
	}
	s := got[0]
	if err := s.by.Verify(w.Statement, "https://example.org"); err != nil || s.account != k.account || string(s.statement) != string(w.Statement) {
		t.Fatalf("%v: %+v", err, s)
	}
	digest, err := s.by.Record.Digest()
	if err != nil || g.stated("login.passkey_added", `"record":"`+digest+`"`) != 1 {
		t.Errorf("the enrolment does not say which key it is of: %v", err)
	}
	if ok, err := g.s.Enrolled(t.Context(), &s.by.Record); err != nil || !ok {
		t.Error("the passkey is not enrolled", err)
	}
	list, err := g.s.Enrolments(t.Context())
	if err != nil || len(list) != 1 || list[0].Record != digest || list[0].Account != k.account {
		t.Errorf("%+v %v", list, err)
	}

	// The nonce is used up.
	if _, code := g.options(c, w.ID); code != 409 {
		t.Errorf("asked again: %d", code)
	}
	if code, _ := g.sign(c, k, w.ID, o, rp); code != 409 || len(got) != 1 || g.stated("alarm.raised", "statement.repeated") != 1 {
		t.Errorf("the second time: %d, and no alarm", code)
	}
	if _, err := g.s.Await(t.Context(), k.account, w.Statement); err == nil {
		t.Error("a statement waits twice")
	}

	// What a signature can be beside the right one. None of them uses the statement up.
	stranger, sk := g.browser(), newKey()
	secret, _, err := g.s.Invite(t.Context(), k.account, []string{"analyst"})
	if err != nil {
		t.Fatal(err)
	}
	if code := g.register(stranger, secret, sk); code != 200 {
		t.Fatal(code)
	}
	unverified, absent, foreign := *k, *k, *k
	unverified.auth.Options.UserNotVerified, absent.auth.Options.UserNotPresent = true, true
	foreign.cred = packs.NewPasskey()
	foreign.cred.ID = k.cred.ID
	evil := rp
	evil.ID = "evil.example"
	elsewhere := rp
	elsewhere.Origin = "https://evil.example"
	for name, x := range map[string]struct {
		c      *http.Client
		k      *key
		rp     virtualwebauthn.RelyingParty
		other  bool // the authenticator is asked about another statement
		reason string
	}{
		"by another account":        {stranger, sk, rp, false, "no-statement"},
		"by another passkey":        {c, sk, rp, false, "passkey-not-valid"},
		"by a forged passkey":       {c, &foreign, rp, false, "passkey-not-valid"},
		"of another statement":      {c, k, rp, true, "passkey-not-valid"},
		"without verification":      {c, &unverified, rp, false, "passkey-not-valid"},
		"without anybody":           {c, &absent, rp, false, "passkey-not-valid"},
		"for another relying party": {c, k, evil, false, "passkey-not-valid"},
		"at another origin":         {c, k, elsewhere, false, "passkey-not-valid"},
	} {
		w = g.waits(k.account)
		about := w.ID
		if x.other {
			about = g.waits(k.account).ID
		}
		o, _ = g.options(c, about)
		before := len(got)
		if code, _ := g.sign(x.c, x.k, w.ID, o, x.rp); code != 403 || len(got) != before || g.last().detail["reason"] != x.reason || g.last().detail["way"] != "statement" {
			t.Errorf("%s: %d %v", name, code, g.last())
		}
		k.cred.Counter += 10 // as the copies of it in this table
		if code, _ := g.sign(c, k, w.ID, o, rp); (code == 200) == x.other {
			t.Errorf("%s: the right one after it: %d %v", name, code, g.last())
		}
		g.pass(16 * time.Minute) // past the lock-out of the account
		g.touch(c, k)
		g.touch(stranger, sk)
	}
	w = g.waits(k.account)
	if code, _ := g.ask(c, "POST", "/login/sign/finish", `{"id":"`+w.ID+`","answer":"x"}`, "X-Csrf-Token", g.csrf(c)); code != 403 || g.last().detail["reason"] != "malformed" {
		t.Errorf("no answer of an authenticator: %d", code)
	}
	for _, body := range []string{"", "{}", `{"id":"x"}`, `{"id":"` + w.ID + `","more":1}`} {
		if code, _ := g.ask(c, "POST", "/login/sign/finish", body, "X-Csrf-Token", g.csrf(c)); code < 400 {
			t.Errorf("%q: %d", body, code)
		}
	}
	if code, _ := g.ask(c, "POST", "/login/sign/begin", `{"id":"`+w.ID+`"}`); code != 403 {
		t.Errorf("without the CSRF token: %d", code)
	}
	if code, _ := g.ask(g.browser(), "POST", "/login/sign/begin", `{"id":"`+w.ID+`"}`); code != 401 {
		t.Errorf("by nobody: %d", code)
	}
	g.pass(16 * time.Minute)
	g.touch(c, k)

	// It is refused, or cannot be stated: used up all the same.
	w = g.waits(k.account)
	o, _ = g.options(c, w.ID)
	refusal = "the authorisation has ended"
	if code, out := g.sign(c, k, w.ID, o, rp); code != 403 || !strings.Contains(out, refusal) || !strings.Contains(out, "not_permitted") {
		t.Errorf("%d %s", code, out)
	}
	refusal = ""
	if code, _ := g.sign(c, k, w.ID, o, rp); code != 409 {
		t.Errorf("after a refusal: %d", code)
	}
	w = g.waits(k.account)
	o, _ = g.options(c, w.ID)
	down = errors.New("no witness")
	if code, _ := g.sign(c, k, w.ID, o, rp); code != 503 {
		t.Errorf("not stated: %d", code)
	}
	down = nil
	if code, _ := g.sign(c, k, w.ID, o, rp); code != 409 {
		t.Errorf("after it was not stated: %d", code)
	}

	// Time.
	w = g.waits(k.account)
	o, _ = g.options(c, w.ID)
	g.pass(SignLife)
	if code, _ := g.sign(c, k, w.ID, o, rp); code != 410 {
		t.Errorf("late: %d", code)
	}
	if used, err := g.db.UseStatement(t.Context(), w.ID, g.s.o.Now()); used || err != nil {
		t.Errorf("used late: %v %v", used, err)
	}

	// A copied passkey signs nothing, and nothing after it.
	w = g.waits(k.account)
	o, _ = g.options(c, w.ID)
	k.cred.Counter = 1
	if code, _ := g.sign(c, k, w.ID, o, rp); code != 403 || g.last().detail["reason"] != "sign-count-went-back" {
		t.Errorf("a copied passkey: %d %v", code, g.last())
	}
	k.cred.Counter = 500
	if code, _ := g.sign(c, k, w.ID, o, rp); code != 403 {
		t.Errorf("a passkey that was copied once: %d", code)
	}
	if ok, err := g.s.Enrolled(t.Context(), &s.by.Record); err != nil || ok {
		t.Error("a copied passkey counts as enrolled", err)
	}
}

// touch signs in again.
func (g *rig) touch(c *http.Client, k *key) {
	g.t.Helper()
	k.cred.Counter += 2
	if code := g.login(c, k); code != 200 {
		g.t.Fatalf("signing in again: %d %v", code, g.last())
	}
}

// TestSignIsBounded: an account has eight statements that wait, and what waits is on the
// disk before anybody signs.
func TestSignIsBounded(t *testing.T) {
	g := newRig(t, nil)
	_, k := g.first()
	var w Waiting
	for range maxOwn {
		w = g.waits(k.account)
	}
	statement := func() []byte {
		_, b, err := approval.New(approval.Ask{Action: "unmask", Case: "C-1", Purpose: "why", Requester: "r", Objects: []string{"o"}, Org: uuid.New(), Grant: time.Hour}, g.s.o.Now())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if _, err := g.s.Await(t.Context(), k.account, statement()); !errors.Is(err, ErrBad) {
		t.Errorf("one too many: %v", err)
	}
	var nonce string
	var seq int
	var name, path string
	if err := g.db.db.QueryRow("PRAGMA database_list").Scan(&seq, &name, &path); err != nil {
		t.Fatal(err)
	}
	again, err := Open(strings.TrimSuffix(path, "/login.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.db.QueryRow("SELECT nonce FROM statements WHERE id = ?", w.ID).Scan(&nonce); err != nil || nonce != w.Nonce {
		t.Errorf("the nonce is not on the disk: %v", err)
	}
	if n, err := base64.RawURLEncoding.DecodeString(nonce); err != nil || len(n) != 32 {
		t.Error("the nonce is not 32 bytes")
	}
	if _, err := g.s.Awaited(t.Context(), "u_other", w.ID); !errors.Is(err, ErrUnknown) {
		t.Errorf("somebody else's: %v", err)
	}
	g.pass(SignLife)
	g.waits(k.account)
	if _, err := g.s.Await(t.Context(), "u_nobody", statement()); err == nil {
		t.Error("an account that is not there")
	}
	machine, err := g.s.Machine(t.Context(), k.account, []string{"analyst"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.s.Await(t.Context(), machine.ID, statement()); !errors.Is(err, ErrBad) {
		t.Errorf("an account without a passkey: %v", err)
	}
	if _, err := g.s.Await(t.Context(), k.account, []byte("{}")); err == nil {
		t.Error("no statement")
	}
	g.pass(3 * 24 * time.Hour)
	g.waits(k.account)
	if _, err := g.db.Statement(t.Context(), w.ID); !errors.Is(err, ErrUnknown) {
		t.Errorf("an old statement lies there: %v", err)
	}
}
