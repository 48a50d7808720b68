package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/counterseal/counterseal/internal/oversight"
	"github.com/counterseal/counterseal/internal/pia"
	"github.com/counterseal/counterseal/internal/pipeline"
)

const testCode = "abcd-efgh-ijkl-mnop-qrst-uvwx-yz23-4567"

// asPeople gives the house the page of one's own, without any state behind it.
func (h *house) asPeople(f *PeopleFacts) {
	h.o.People = People{
		Facts: func(context.Context) (*PeopleFacts, error) { return f, nil },
		Complain: func(_ context.Context, text string) (string, error) {
			switch {
			case text == "":
				return "", BadRequest("the text is empty", "write what happened")
			case len(f.Keys.Keys) == 0:
				return "", &Refused{"no overseer's key is enrolled here, so whoever runs this server could read a complaint", "another way to the overseers: room 12"}
			case text == "fault":
				return "", errors.New("the disk is gone")
			}
			return testCode, nil
		},
		Receive: func(context.Context, []byte) error { return nil },
		Answer: func(_ context.Context, code string) (*ComplaintAnswer, error) {
			switch code {
			case testCode:
				return &ComplaintAnswer{State: "closed", Outcome: "partly", Text: "We looked into it.\n<b>Twice</b>."}, nil
			case "waits":
				return &ComplaintAnswer{State: "waiting"}, nil
			}
			return nil, ErrNoComplaint
		},
		Sealed: func(_ context.Context, id string) (*ComplaintState, error) {
			if id != strings.Repeat("0", 32) {
				return nil, ErrNoComplaint
			}
			return &ComplaintState{State: "waiting"}, nil
		},
		Source: func(r *http.Request) string { return r.Header.Get("Test-Source") },
	}
}

func peopleFacts() *PeopleFacts {
	return &PeopleFacts{
		PublicFacts: &PublicFacts{Watched: true, Report: publicReport()}, Readers: []string{"soc", "investigations"}, Deciders: []string{"privacy"}, Overseers: []string{"inspector-general"}, Officers: true, Tells: true,
		Keys:    ComplaintKeys{Org: "01900000-0000-7000-8000-000000000001", Epoch: 1, Keys: []ComplaintKey{{ID: strings.Repeat("0a", 32), Key: []byte{1}}, {ID: strings.Repeat("1b", 32), Key: []byte{2}}}},
		Contact: "room 12, or by post to the inspector general",
	}
}

// TestMePage: it needs no login and no statement is made of who read it; what it says is what
// the assessments in force, the offices and the report say.
func TestMePage(t *testing.T) {
	h := full(t)
	facts := peopleFacts()
	h.asPeople(facts)
	get := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.People().ServeHTTP(w, httptest.NewRequest("GET", "http://localhost"+path, nil))
		return w
	}
	before := h.pipe.Recorder().Ledger().Size()
	page := get("/me").Body.String()
	for _, want := range []string{
		"Employees", "Sign-ins at the identity provider", "PIA-IDENTITY-2026-001, version 1", "Never for: performance management", "kept for 365 days", "kept as a code in place of the name",
		"<code>user_id</code>", "inspector general hotline", "employee union", "Somebody independent watches", "soc", "privacy", "inspector-general", "412", "1 July 2026 to 30 September 2026",
		"within 90 days", "privacy@agency.example", "Seal and send", "0a0a0a", "room 12",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if strings.Contains(page, "hotline@oig.example") || strings.Contains(page, "oig.example") {
		t.Error("the page says by which addresses a channel is known")
	}
	var told Told
	w := get("/api/v1/me")
	conforms(t, schema(t, "paths", "/api/v1/me", "get", "responses", "200", "content", "application/json", "schema"), w.Body.Bytes())
	if err := json.Unmarshal(w.Body.Bytes(), &told); err != nil || told.Kind != "employee" || len(told.Assessments) < 4 || told.Counts.Looks[0].N != "412" {
		t.Errorf("%v %+v", err, told.Kinds)
	}
	if w := get("/api/v1/me?of=minor"); w.Code != 400 {
		t.Errorf("a kind that no assessment names: %d", w.Code)
	}
	if w := get("/me?of=minor"); w.Code != 200 || !strings.Contains(w.Body.String(), "Employees") {
		t.Errorf("an old link: %d", w.Code)
	}
	if after := h.pipe.Recorder().Ledger().Size(); after != before {
		t.Errorf("reading the page made %d statements", after-before)
	}

	facts.Stopped, facts.Report, facts.Keys.Keys, facts.Contact, facts.Officers = &oversight.Silence{Reason: oversight.Vacant, Since: at}, nil, nil, "", false
	facts.Tells = false
	page = get("/me").Body.String()
	for _, want := range []string{"Looking at people has stopped", "is being counted", "No complaint is taken here", "or to an inspector or data protection authority", "no name can be opened", "Nothing is set up here that could tell you"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if strings.Contains(page, "Seal and send") || strings.Contains(page, "sealed to two officers") {
		t.Error("the page promises what is not there")
	}
	h.o.People = People{}
	for _, path := range []string{"/me", "/api/v1/me", "/api/v1/complaints/x"} {
		if w := get(path); w.Code != 404 {
			t.Errorf("%s without a page: %d", path, w.Code)
		}
	}
}

// TestKindsOfPeople: each kind of people is told of the assessments that name it, and of no
// other.
func TestKindsOfPeople(t *testing.T) {
	var in []pia.Assessed
	for i, kinds := range [][]string{{"employee", "visitor"}, {"visitor"}, {"public"}} {
		p := &pia.PIA{ID: fmt.Sprint("PIA-", i)}
		for _, k := range kinds {
			p.Subjects = append(p.Subjects, pia.Subject{Category: k})
		}
		in = append(in, pia.Assessed{PIA: p})
	}
	for kind, want := range map[string]string{"": "PIA-0", "employee": "PIA-0", "visitor": "PIA-0 PIA-1", "public": "PIA-2"} {
		var got []string
		told := tell(in, kind)
		for _, a := range told.Assessments {
			got = append(got, a.ID)
		}
		if strings.Join(got, " ") != want || len(told.Kinds) != 3 {
			t.Errorf("%q: %v of %v", kind, got, told.Kinds)
		}
	}
	if tell(in, "contractor") != nil || tell(nil, "").Kind != "" {
		t.Error("a kind that nobody names")
	}
}

// TestComplaintForm: the code is shown once; what is wrong is said with what to do, and the
// text is not lost; nothing of a text or a code is logged or stated.
func TestComplaintForm(t *testing.T) {
	h := full(t)
	facts := peopleFacts()
	h.asPeople(facts)
	post := func(path, name, value string, head ...string) *httptest.ResponseRecorder {
		return send(h.People(), "POST", path, url.Values{name: {value}}.Encode(), append(head, "Content-Type", "application/x-www-form-urlencoded")...)
	}
	before := h.pipe.Recorder().Ledger().Size()
	for _, c := range []struct {
		path, name, value string
		status            int
		says              string
	}{
		{"/me/complaint", "text", "Somebody looked.\r\nTwice.", 200, testCode},
		{"/me/complaint", "text", "", 400, "the text is empty"},
		{"/me/complaint", "text", strings.Repeat("x", 70_000), 400, "longer than a complaint may be"},
		{"/me/complaint", "text", "fault", 500, "something went wrong"},
		{"/me/answer", "code", testCode, 200, "right in part"},
		{"/me/answer", "code", testCode, 200, "&lt;b&gt;Twice"},
		{"/me/answer", "code", "waits", 200, "No answer yet"},
		{"/me/answer", "code", "zzzz", 404, "no complaint of this code"},
		{"/me/answer", "code", strings.Repeat("x", 5000), 400, "broken off"},
	} {
		w := post(c.path, c.name, c.value)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s %.20s: %d %s", c.path, c.value, w.Code, w.Body)
		}
		if w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("Set-Cookie") != "" {
			t.Errorf("%s: %v", c.path, w.Header())
		}
	}
	facts.Keys.Keys = nil
	if w := post("/me/complaint", "text", "Keep me."); w.Code != 403 || !strings.Contains(w.Body.String(), "Keep me.") || !strings.Contains(w.Body.String(), "room 12") {
		t.Errorf("without a key: %d %s", w.Code, w.Body)
	}
	if after := h.pipe.Recorder().Ledger().Size(); after != before {
		t.Errorf("the forms made %d statements by themselves", after-before)
	}
	facts.Keys = peopleFacts().Keys
	for i := range perSource + 1 {
		w := post("/me/complaint", "text", "x", "Test-Source", "192.0.2.1")
		if want := map[bool]int{true: 200, false: 429}[i < perSource]; w.Code != want {
			t.Errorf("complaint %d of one address: %d", i+1, w.Code)
		}
	}
	w := send(h.People(), "POST", "/api/v1/complaints", "{}", "Test-Source", "192.0.2.1")
	if w.Code != 429 || w.Header().Get("Retry-After") == "" {
		t.Errorf("a sealed one of that address: %d", w.Code)
	}
	isProblem(t, w, "busy")
	if w := send(h.People(), "POST", "/api/v1/complaints", "{}", "Test-Source", "192.0.2.2"); w.Code != 204 {
		t.Errorf("a sealed one of another: %d", w.Code)
	}
	if w := send(h.People(), "GET", "/api/v1/complaints/"+strings.Repeat("0", 32), ""); w.Code != 200 || !strings.Contains(w.Body.String(), "waiting") {
		t.Errorf("the state of one: %d %s", w.Code, w.Body)
	}
	isProblem(t, send(h.People(), "GET", "/api/v1/complaints/"+strings.Repeat("1", 32), ""), "bad_request")
}

// TestHourly: an address is counted within an hour, and nothing of it is in memory.
func TestHourly(t *testing.T) {
	var h hourly
	now := at
	take := func(from string) bool { return h.take(from, now) == nil }
	for range perSource {
		if !take("192.0.2.1") {
			t.Fatal("refused too soon")
		}
	}
	if take("192.0.2.1") || !take("192.0.2.2") || !take("") {
		t.Error("the wrong one is refused")
	}
	if bytes.Contains(fmt.Appendf(nil, "%s %v", fmt.Sprint(h.seen), h.seen), []byte("192.0.2.1")) {
		t.Error("an address is in memory")
	}
	key := h.key
	now = now.Add(time.Hour)
	if !take("192.0.2.1") || h.key == key {
		t.Error("the hour is not over")
	}
	for i := h.all; i < perHour; i++ {
		if !take("") {
			t.Fatalf("the %dth is refused", i+1)
		}
	}
	if take("") || take("192.0.2.9") {
		t.Error("there is no bound")
	}
	h.forget(now.Add(time.Hour))
	if h.seen != nil || h.key != [32]byte{} {
		t.Error("the hour is not forgotten")
	}
	now = now.Add(-24 * time.Hour) // a clock that steps back
	if !take("192.0.2.1") {
		t.Error("refused for a clock")
	}
}

// TestNobodySignsInToRead: whoever is signed in is nobody on the page, and another site cannot
// send a complaint.
func TestNobodySignsInToRead(t *testing.T) {
	d := newDoor(t)
	h := newHouse(t, pipeline.Options{})
	h.asPeople(peopleFacts())
	pages, err := NewSignIn(SignInOptions{Login: d.login, Origin: d.url, Now: d.now, Empty: func(*http.Request) (bool, error) { return true, nil }})
	if err != nil {
		t.Fatal(err)
	}
	handler := pages.Handler(h.People())
	ask := func(method, path string, head ...string) int {
		return send(handler, method, path, "text=x", append(head, "Host", strings.TrimPrefix(d.url, "https://"), "Content-Type", "application/x-www-form-urlencoded")...).Code
	}
	// A session that is none would be refused where anybody looked at it.
	if code := ask("GET", "/me", "Authorization", "Bearer css_"+strings.Repeat("A", 43)); code != 200 {
		t.Errorf("with a session: %d", code)
	}
	if code := ask("POST", "/me/complaint", "Cookie", "__Host-session=x", "Sec-Fetch-Site", "same-origin"); code != 200 {
		t.Errorf("a complaint of a browser with a session: %d", code)
	}
	if code := ask("POST", "/me/complaint", "Sec-Fetch-Site", "cross-site"); code != 403 {
		t.Errorf("a complaint by another site: %d", code)
	}
	if code := ask("GET", "/api/v1/status"); code != 401 {
		t.Errorf("the rest: %d", code)
	}
}

// TestMeInABrowser looks at the page as it is empty, full and long, and goes the whole way of a
// complaint by the keyboard.
func TestMeInABrowser(t *testing.T) {
	d := newDoor(t)
	ctx := d.browser()
	h := full(t)
	facts := peopleFacts()
	h.asPeople(facts)
	pages, err := NewSignIn(SignInOptions{Login: d.login, Origin: d.url, Now: d.now, Empty: func(*http.Request) (bool, error) { return true, nil }})
	if err != nil {
		t.Fatal(err)
	}
	d.srv.Config.Handler = pages.Handler(h.People())
	run := func(what string, actions ...chromedp.Action) {
		t.Helper()
		if err := chromedp.Run(ctx, actions...); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	at := func(path string) chromedp.Action { return chromedp.Navigate(d.url + path) }
	run("full", at("/me"), see("Employees"), d.look("me-full"))
	var open bool
	run("a source by the keyboard", d.focused("summary"), chromedp.KeyEvent(kb.Enter), chromedp.Evaluate(`document.activeElement.parentElement.open`, &open))
	if !open {
		t.Error("Enter does not open what is collected")
	}
	run("open", d.look("me-open"))
	run("complain", chromedp.SendKeys("#text", "Somebody looked at me.", chromedp.ByQuery), chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent(kb.Enter), see(testCode), d.look("me-code"))
	run("no answer", at("/me"), chromedp.SendKeys("#code", "waits"+kb.Enter, chromedp.ByQuery), see("No answer yet"), d.look("me-waits"))
	run("answer", at("/me"), chromedp.SendKeys("#code", testCode+kb.Enter, chromedp.ByQuery), see("right in part"), d.look("me-answer"))
	facts.Keys.Keys, facts.Officers = nil, false
	facts.Stopped = &oversight.Silence{Reason: oversight.Unheard, Since: time.Now()}
	run("without a key", at("/me"), see("No complaint is taken here"), d.look("me-nokey"))

	long := strings.Repeat("A-very-long-word-without-a-place-to-break", 6)
	p := &pia.PIA{ID: "PIA-" + long[:60], Title: long, Summary: long, Effective: "2026-01-01", Expires: "2027-01-01"}
	p.Notice = pia.Notice{How: long, Redress: long}
	p.Purposes = []pia.Purpose{{ID: "x", Statement: long, Prohibited: []string{long, long}}}
	fields := []pia.Kept{{Path: long, Action: pia.Allow, Category: long}}
	for i := range 200 {
		fields = append(fields, pia.Kept{Path: fmt.Sprint("field.number.", i), Action: pia.Action(i % 6), Arg: 24, Category: "person"})
	}
	for _, k := range kindNames {
		p.Subjects = append(p.Subjects, pia.Subject{Category: k[0]})
	}
	told := tell([]pia.Assessed{{PIA: p, Collected: []pia.Collected{{Rule: &pia.Rule{Source: long, Dataset: long, Retention: 3660, Disposition: "destroy"}, Fields: fields}}}}, "")
	told.Protected, told.Watch.State, told.Looking = []string{long, "union"}, "watched", ToldLooking{Readers: []string{long}, Deciders: []string{long}, Overseers: []string{long}}
	told.Complaint.Contact = long
	empty := tell(nil, "")
	empty.Watch.State = "nobody"
	for name, page := range map[string]*Told{"long": told, "empty": empty} {
		d.srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			headers(w.Header())
			if strings.HasPrefix(r.URL.Path, "/static/") {
				serveStatic(w, r)
			} else if err := h.mePage(w, 200, "me.html", &mePage{Title: "What is collected about me", Told: page}); err != nil {
				t.Error(err)
			}
		})
		run(name, at("/me"), see("Your rights"), chromedp.Evaluate(`document.querySelectorAll("details").forEach(d => d.open = true)`, nil), d.look("me-"+name))
	}
}
