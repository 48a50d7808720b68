package web

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/duty"
	"github.com/counterseal/counterseal/internal/login"
	"github.com/counterseal/counterseal/internal/passkey"
)

// signed takes the signatures of the door: they must verify as an officer would.
func (d *door) signed(_ context.Context, account string, statement []byte, by *passkey.Signed) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := by.Verify(statement, d.url); err != nil || by.Record.Account != account {
		d.t.Errorf("what the page sent does not verify: %v", err)
	}
	d.taken = append(d.taken, string(statement))
	return d.refuses, nil
}

// asks makes a statement that an account is to sign.
func (d *door) asks(account, action, purpose string) login.Waiting {
	d.t.Helper()
	_, b, err := approval.New(approval.Ask{Action: action, Case: "C-17", Purpose: purpose, Requester: "Ines Vogel",
		Objects: []string{"alias mail-abcdef", "seal " + strings.Repeat("0a", 32), "window 0d1a53a4-7e0c-4c53-8d2f-3a3c2f5b0001 7", "account " + account}, Org: uuid.New(), Grant: time.Hour}, d.now())
	if err != nil {
		d.t.Fatal(err)
	}
	w, err := d.login.Await(d.t.Context(), account, b)
	if err != nil {
		d.t.Fatal(err)
	}
	return w
}

// signs is the part of the walk in a browser that signs statements: read, refused, signed by
// the keyboard, signed once, over.
func (d *door) signs(account string, run func(string, ...chromedp.Action), see func(string) chromedp.Action) {
	d.t.Helper()
	at := func(w login.Waiting) chromedp.Action { return chromedp.Navigate(d.url + nextSign + w.ID) }
	w := d.asks(account, "unmask", `who signed in from there <b onclick="x()">&amp;</b>`)
	var exact, where string
	run("a statement", at(w), see("the name of one person"), see("Two officers read the same"), see("mail-abcdef"), see("C-17"), see("Ines Vogel"), see(`<b onclick="x()">&amp;</b>`), d.look("sign"),
		chromedp.Location(&where), chromedp.Evaluate(`document.querySelector(".exact").textContent`, &exact))
	if exact != string(w.Statement) {
		d.t.Errorf("the page shows another text than is signed:\n%s\n%s", exact, w.Statement)
	}
	if where != d.url+"/login/sign/"+w.ID {
		d.t.Errorf("the address tells more than the id: %s", where)
	}
	run("by the keyboard", d.focused(`summary`), chromedp.KeyEvent(kb.Enter), d.look("sign-exact"), d.focused(`[data-act=sign]`), chromedp.KeyEvent(kb.Enter), see("Signed. The request goes on"), d.look("sign-done"))
	if len(d.taken) != 1 || d.taken[0] != string(w.Statement) {
		d.t.Errorf("%d statements were signed", len(d.taken))
	}
	run("signed once", at(w), see("is signed once"), d.look("sign-used"))

	d.refuses = "no authorisation in force covers this person for who asked"
	run("refused", at(d.asks(account, "unmask", "why")), chromedp.Click(`[data-act=sign]`, chromedp.ByQuery), see("Signed, but refused: no authorisation in force"), d.look("sign-refused"))
	d.refuses = ""
	run("late", at(d.asks(account, "unmask", "why")), chromedp.ActionFunc(func(context.Context) error { d.pass(login.SignLife); return nil }), chromedp.Click(`[data-act=sign]`, chromedp.ByQuery),
		see("Its time is over"), d.look("sign-late"), chromedp.Reload(), see("nobody signed it"), d.look("sign-over"),
		chromedp.Navigate(d.url+"/login/account"), see("sign in again"), chromedp.Click(`[data-act=passkey]`, chromedp.ByQuery), chromedp.WaitVisible(`[data-act=add]`, chromedp.ByQuery))
	run("at night", at(d.asks(account, duty.ToOpen, "why")), see("the name of one person, at night"), see("an overseer reviews what you signed"), d.look("sign-night"))
	run("of somebody else", chromedp.Navigate(d.url+nextSign+uuid.NewString()), see("Nothing to sign"), d.look("sign-nothing"))
}

// TestSignStatementPages: what somebody sees of a statement who is nobody, or mistypes.
func TestSignStatementPages(t *testing.T) {
	d := newDoor(t)
	host := strings.TrimPrefix(d.url, "https://")
	id := uuid.NewString()
	if w, body := d.get(nextSign+id, host); w.StatusCode != 401 || !strings.Contains(body, `data-next="/login/sign/`+id+`"`) || w.Header.Get("Content-Security-Policy") != signInPolicy {
		t.Errorf("%d %s", w.StatusCode, body)
	}
	for _, bad := range []string{"xyzzy", strings.ToUpper(id), id + "0", "%22%3E%3Cscript%3E"} {
		w, body := d.get(nextSign+bad, host)
		if w.StatusCode != 404 || strings.Contains(body, bad) || strings.Contains(body, "<script>") {
			t.Errorf("%s: %d %s", bad, w.StatusCode, body)
		}
	}
	for name, want := range map[string]string{
		"account": nextAccount, "cli": nextTerminal, "sign/" + id: nextSign + id, "": nextStart, "sign/": nextStart, "sign/x": nextStart, "sign/" + id + "/..": nextStart, "//evil.example": nextStart, "setup": nextStart,
	} {
		if got := nextPage(name); got != want {
			t.Errorf("%q leads to %s, want %s", name, got, want)
		}
	}
	rec := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, d.url+nextSign+id, nil)
	if d.srv.Config.Handler.ServeHTTP(rec, r); rec.Code < 400 {
		t.Errorf("POST to the page: %d", rec.Code)
	}
}
