package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/web"
)

// lines imports lines of a source and waits until they can be found.
func (b *bureau) lines(source, text string) {
	b.t.Helper()
	path := filepath.Join(b.dir, source+".in")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.s.importFiles(context.Background(), web.ImportRequest{Paths: []string{path}, Source: source}, nil); err != nil {
		b.t.Fatal(err)
	}
	if err := b.s.pipe.Settle(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

// TestOpenedRecords: a record that names somebody in a field of its program alone, or in a
// text, is opened to nobody without an authorisation; its proof alone tells nothing.
func TestOpenedRecords(t *testing.T) {
	b := openBureau(t)
	at := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	b.lines("app", fmt.Sprintf("{\"time\":%q,\"n\":1,\"who\":\"alice@agency.example\",\"text\":\"reads the site of the union\"}\n{\"time\":%q,\"n\":2,\"text\":\"sent to bob@agency.example\"}\n", at, at))
	code, text := b.as(0, "GET", "/api/v1/search", url.Values{"q": {"source = app"}}, nil)
	refs := regexp.MustCompile(`"ref":"([^"]+)"`).FindAllStringSubmatch(text, -1)
	if code != 200 || len(refs) != 2 {
		t.Fatalf("%d %s", code, text)
	}
	for _, ref := range refs {
		b.does(0, "prove", proveRequest{Ref: ref[1], Stream: "events", Open: true}, nil, 403, "authorisation")
		b.does(0, "prove", proveRequest{Ref: ref[1], Stream: "events"}, nil, 403, "still being written")
	}
}

// TestApprovalsAreOnce: a decision counts once and for what was read; one by a clock that
// ran ahead, and one about a request whose text was exchanged on the disk, opens nothing.
func TestApprovalsAreOnce(t *testing.T) {
	b := openBureau(t)
	who := b.people()
	about := "class_uid = 3002 and user.uid = " + who[0]
	now := b.now()
	ask := authoriseAsk{whom: whom{People: who[:1]}, From: now.AddDate(0, 0, -30), To: now.Add(time.Hour), Predicate: "finding-1", Basis: "law-1", Ends: now.AddDate(0, 0, 9), Counsel: true}
	var r, other authorisationRow
	b.does(0, "authorise.request", ask, &r, 200, "")
	ask.Counsel = false
	b.does(0, "authorise.request", ask, &other, 200, "")

	// The same person twice is one person; their word for one request is none for another.
	yes := authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}
	b.does(privacyOfficer, "authorise", yes, &r, 200, "requested")
	b.does(privacyOfficer, "authorise", yes, nil, 403, "has decided already")
	b.does(privacyOfficer, "authorise", authoriseNamed{ID: other.ID, Digest: r.Digest, Approve: true}, nil, 403, "another one")
	b.asks(about, 403, "not decided yet")
	// Neither after a restart.
	b.stop()
	b.open()
	b.does(privacyOfficer, "authorise", yes, nil, 403, "has decided already")
	b.does(overseer, "authorise", yes, nil, 200, "approved")
	b.asks(about, 200, who[0])

	// A word that is brought again after the end brings nothing back.
	b.does(0, "authorise.end", authoriseNamed{ID: r.ID, Reason: "done"}, nil, 200, "")
	b.does(overseer, "authorise", yes, nil, 403, "settled")
	b.asks(about, 403, "")

	// A clock that ran ahead when it was agreed on.
	b.later(2 * time.Hour)
	b.does(overseer, "authorise", authoriseNamed{ID: other.ID, Digest: other.Digest, Approve: true}, nil, 200, "approved")
	b.asks(about, 200, who[0])
	b.later(-2 * time.Hour)
	b.asks(about, 403, "clock ran ahead")
	b.later(3 * time.Hour)
	b.asks(about, 200, who[0])

	// Its text is exchanged beside the ledger: another one than was agreed on covers nothing.
	b.stop()
	changed := 0
	payloads := filepath.Join(b.dir, "data", "ledger", "payloads")
	entries, err := os.ReadDir(payloads)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		path := filepath.Join(payloads, e.Name())
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte(`"id":"`+other.ID)) && bytes.Contains(text, []byte(`"law-1"`)) {
			changed++
			if err := os.Chmod(path, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, bytes.Replace(text, []byte("law-1"), []byte("law-2"), 1), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if changed != 1 {
		t.Fatalf("%d requests were found on the disk", changed)
	}
	if s, err := openAgain(b); err == nil { // it may refuse to start; if it starts, nothing is covered
		b.s = s
		b.asks(about, 403, "")
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}
}

// openAgain opens the server of a bureau, which may fail.
func openAgain(b *bureau) (*server, error) {
	cfg, err := readConfig(filepath.Join(b.dir, configName))
	if err != nil {
		return nil, err
	}
	return openServer(b.t.Context(), cfg, serverOptions{log: b.s.log, now: b.s.now})
}

// TestAliasesAndInjection: an alias says something only where it was shown, a token nowhere,
// and no spelling of a question gets beyond what an authorisation covers. A refusal names
// nobody, and is the same for somebody who is there and for somebody who is not.
func TestAliasesAndInjection(t *testing.T) {
	b := openBureau(t)
	who := b.people()
	r := b.request(who[0])
	b.does(privacyOfficer, "authorise", authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}, nil, 200, "approved")
	in := func(caseID, q string) (int, string) {
		v := url.Values{"q": {q}}
		if caseID != "" {
			v.Set("case", caseID)
		}
		return b.as(0, "GET", "/api/v1/search", v, nil)
	}
	about := "class_uid = 3002 and user.uid = "
	for _, caseID := range []string{"", "C-18", "c-17"} {
		if code, text := in(caseID, about+who[0]); code != 403 || !strings.Contains(text, "not shown here") || strings.Contains(text, who[0]) {
			t.Errorf("an alias of another case, in %q: %d %s", caseID, code, text)
		}
	}
	for _, caseID := range []string{"C-17\n", "../C-17", "C 17", strings.Repeat("C", 65)} {
		if code, text := in(caseID, about+who[0]); code != 400 {
			t.Errorf("case %q: %d %s", caseID, code, text)
		}
	}
	// The token behind an alias is never typed, whole or in part.
	for _, token := range []string{"m1_" + strings.Repeat("a", 26), "M1_" + strings.Repeat("A", 26)} {
		if code, text := in("C-17", about+token); code != 403 || !strings.Contains(text, "tokens never leave") {
			t.Errorf("a token: %d %s", code, text)
		}
	}
	others := func(text string) bool { return strings.Contains(text, who[1]) || strings.Contains(text, who[2]) }
	for _, q := range []string{
		about + who[0] + " or user.uid = " + who[1],
		about + who[0] + ") or (class_uid = 3002",
		about + `"` + who[0] + `" or "` + who[1] + `"`,
		about + `"` + who[0] + `\" or class_uid:3002 or \""`,
		about + who[0] + "\n| limit 5\nor user.uid = " + who[1],
		about + who[0] + " | stats count() by user.uid",
		about + who[0] + " | limit 5 | fields user.uid",
		about + who[0][:len(who[0])-1] + "*",
		about + who[0][:len(who[0])-1] + "?",
		"not (class_uid = 3002 and user.uid != " + who[0] + ")",
		"class_uid = 3002 and not user.uid in (" + who[1] + ")",
		`class_uid = 3002 and user.uid = "` + who[0] + `" | fields user.uid, _msg`,
		about + who[0] + ` | sort by "user.uid) or (*"`,
		`native.user = ` + who[0] + ` or *`,
		`user.uid = ` + who[0] + "\x00 or user.uid = " + who[1],
		`{source="idp"} ` + who[0],
		`_stream_id:* or user.uid = ` + who[0],
		`user.uid:~".*" `,
		`user.uid = ` + who[0] + ` or time > 1970-01-01T00:00:00Z`,
	} {
		code, text := in("C-17", q)
		if code != 200 && code != 400 && code != 403 || others(text) {
			t.Errorf("%s: %d %.400s", q, code, text)
		}
	}
	// Whether somebody is there is not told: not by an answer, nor by its text.
	there, text := in("C-17", about+who[1])
	for _, name := range []string{"alice", "nobody-of-that-name", "bob@agency.example", "zz@agency.example", who[2]} {
		code, other := in("C-17", about+name)
		if code != there || strings.Contains(other, name) {
			t.Errorf("a question about somebody: %d %s", code, other)
		}
		if strings.HasPrefix(name, "mail-") && other != text {
			t.Errorf("two refusals differ:\n%s\n%s", text, other)
		}
	}
	alice, nobody := "", ""
	_, alice = in("C-17", about+"bob@agency.example")
	if _, nobody = in("C-17", about+"zz@agency.example"); alice != nobody {
		t.Errorf("who is there is refused in other words than who is not:\n%s\n%s", alice, nobody)
	}
}

// TestPoliciesOfOneFault: a folder of policies with one fault is refused as a whole, when
// the server starts and when it reloads, and the ones in force stay. Who lacks what a policy
// asks for, such as the day until which they are trained, is refused.
func TestPoliciesOfOneFault(t *testing.T) {
	b := openBureau(t)
	b.asks("class_uid = 3002", 200, "")
	folder := filepath.Join(b.dir, "mine")
	if code := run(t.Context(), &environment{stdout: io.Discard, stderr: io.Discard}, []string{"policy", "export", folder}); code != 0 {
		t.Fatalf("export: %d", code)
	}
	path := filepath.Join(folder, "roles.cedar")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b.s.cfg.Policies = folder
	for name, more := range map[string]string{
		"syntax":       "\npermit (principal, action, resource",
		"an attribute": "\n@id(\"all\")\npermit (principal, action, resource) when { context.nowhere };\n",
		"an act":       "\n@id(\"all\")\npermit (principal, action == Action::\"see.all\", resource);\n",
		"no name":      "\npermit (principal, action, resource);\n",
		"a type":       "\n@id(\"all\")\npermit (principal, action, resource) when { context.purpose == 7 };\n",
	} {
		if err := os.WriteFile(path, append(slices.Clone(good), more...), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := b.s.reloadForce(t.Context()); err == nil || !strings.Contains(err.Error(), "roles.cedar") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := b.s.cfg.inForce(); err == nil {
			t.Errorf("%s: would start", name)
		}
		b.asks("user.uid = alice and class_uid = 3002", 403, "authorisation")
		b.asks("class_uid = 3002", 200, "")
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}

	// An office without a day of training, or whose training is over.
	offices := filepath.Join(b.dir, "offices.yaml")
	text, err := os.ReadFile(offices)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(string) string{
		"none": func(s string) string { return strings.Replace(s, "    training_until: 2099-01-01\n", "", 1) },
		"over": func(s string) string { return strings.Replace(s, "2099-01-01", "2020-01-01", 1) },
	} {
		if err := os.WriteFile(offices, []byte(change(string(text))), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := b.s.reloadForce(t.Context()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		b.asks("class_uid = 3002", 403, "training")
	}
}

// TestTokensStayInScope: the token of a machine does what its scopes name, of that only what
// asks about nobody, whoever made it and whatever else they may do; and nothing when it is
// over. The counts of a reverse search are for people.
func TestTokensStayInScope(t *testing.T) {
	t.Parallel()
	var card *x509.Certificate
	b := openBureau(t, func(dir string) {
		card = layCertificate(t, dir, 1)
		if err := layAgency(dir, "http: off\nreserve: 16MiB\nmemory: 64MiB\noffices: offices.yaml\nown_rules: false\nrules: [rules]\nlogin: {address: \"127.0.0.1:0\", origin: \"https://logs.example\", cert: cert.pem, key: key.pem}\n"); err != nil {
			t.Fatal(err)
		}
	})
	b.signins()
	first, err := act[accountSecret](t, b.s.signin.accountSetUp, struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	maker := newPerson(t, doorClient(t, card, func() net.Addr { return b.s.signin.l.Addr() }), first.Secret)
	writeOffices(t, b.dir, office{"soc", "ciso", "", maker.id, "analyst, responder"}, office{"privacy", "board", "", "os-4711", "privacy_officer"})
	if err := b.s.reloadForce(t.Context()); err != nil {
		t.Fatal(err)
	}
	handler := b.s.signin.socket(b.s.web.Socket())
	send := func(token, method, path, body string) (int, string) {
		r := httptest.NewRequest(method, "http://localhost"+path, strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	search := func(q string) string { return "/api/v1/search?" + url.Values{"q": {q}, "case": {"C-17"}}.Encode() }
	requests := map[string][3]string{
		"nobody":       {"GET", search("class_uid = 3002")},
		"person":       {"GET", search("class_uid = 3002 and user.uid = alice@agency.example")},
		"reverse":      {"GET", search("query.hostname : union")},
		"contents":     {"GET", search("class_uid = 4003 | fields query.hostname")},
		"findings":     {"GET", "/api/v1/findings"},
		"rules":        {"POST", "/api/v1/rules/run", `{"files":[{"path":"a.yml","data":"dGl0bGU6IGEKaWQ6IDBkMWE1M2E0LTdlMGMtNGM1My04ZDJmLTNhM2MyZjViMDAwMQpsb2dzb3VyY2U6IHtwcm9kdWN0OiBpZHAsIHNlcnZpY2U6IHNpZ25pbn0KZGV0ZWN0aW9uOiB7czoge3Jlc3VsdDogc3VjY2Vzc30sIGNvbmRpdGlvbjogc30K"}]}`},
		"start":        {"GET", "/"},
		"own list":     {"POST", "/api/v1/acts/authorise.list?case=C-17", "{}"},
		"ask":          {"POST", "/api/v1/acts/authorise.request?case=C-17", "{}"},
		"decide":       {"POST", "/api/v1/acts/authorise?case=C-17", "{}"},
		"glass":        {"POST", "/api/v1/acts/break.glass?case=C-17", `{"people":["mail-aaaaaa"]}`},
		"rules by two": {"POST", "/api/v1/acts/rules.approve", "{}"},
		"more tokens":  {"POST", "/api/v1/acts/token.create", `{"scopes":["search"],"days":1}`},
	}
	var last string
	for _, c := range []struct {
		scopes []string
		may    []string
	}{
		{[]string{"search"}, []string{"nobody"}},
		{[]string{"events.read"}, []string{"nobody", "findings", "rules"}},
		{[]string{"search.count"}, nil},
		{[]string{"ingest"}, nil},
		{[]string{"authorise.request", "authorise", "break.glass", "rules.approve", "token.change"}, nil},
	} {
		tok, err := act[tokenMade](t, b.s.signin.tokenCreate, tokenCreate{Account: maker.id, Scopes: c.scopes, Days: 1})
		if err != nil {
			t.Fatalf("%v: %v", c.scopes, err)
		}
		for name, r := range requests {
			want := 403
			switch {
			case slices.Contains(c.may, name):
				want = 200
			case name == "decide":
				want = 400 // there is nothing to decide on
			}
			code, text := send(tok.Text, r[0], r[1], r[2])
			if code != want || strings.Contains(text, "alice") {
				t.Errorf("a token for %v, %s: %d, want %d\n%.300s", c.scopes, name, code, want, text)
			}
		}
		if slices.Contains(c.may, "nobody") {
			last = tok.Text
		}
	}
	if code, _ := send(last+"A", "GET", search("class_uid = 3002"), ""); code != 401 {
		t.Errorf("an altered token: %d", code)
	}
	b.later(25 * time.Hour)
	if code, _ := send(last, "GET", search("class_uid = 3002"), ""); code != 401 {
		t.Errorf("a token that is over: %d", code)
	}
}

// TestPeopleOfAPackage: whose originals go along into a package is nobody's word alone.
func TestPeopleOfAPackage(t *testing.T) {
	b := openBureau(t)
	who := b.people()
	writeOffices(t, b.dir, office{"ig", "court", "", owner(), "investigator"}, office{"privacy", "board", "", fmt.Sprintf("os-%d", privacyOfficer), "privacy_officer"},
		office{"inspector", "parliament", "", fmt.Sprintf("os-%d", overseer), "overseer"})
	if err := b.s.reloadForce(t.Context()); err != nil {
		t.Fatal(err)
	}
	q := packageRequest{Case: "C-17", Purpose: "incident", Due: "2099-01-01", Output: filepath.Join(b.dir, "out.csp"), Query: "class_uid = 3002"}
	b.does(0, "package.create", q, nil, 403, "list people") // records of everybody, whole
	q.Query = "class_uid = 3002 and source = none"
	b.does(0, "package.create", q, nil, 400, "") // nobody to seal it to
	q.People, q.Query = who[:1], "class_uid = 3002 and user.uid = "+who[0]
	b.does(0, "package.create", q, nil, 403, "authorisation")
	r := b.request(who[0])
	b.does(privacyOfficer, "authorise", authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}, nil, 200, "approved")
	b.does(0, "package.create", q, nil, 400, "")
	q.People = who[:2]
	b.does(0, "package.create", q, nil, 403, "scope")
}

// TestFindingsOfAWatchRule: what a rule about somebody finds is seen by those whom its
// authorisation names, and opens nobody to others.
func TestFindingsOfAWatchRule(t *testing.T) {
	b := openBureau(t, withProtected)
	who := b.people()
	r := b.request(who[0])
	b.does(privacyOfficer, "authorise", authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}, nil, 200, "")
	b.writeRules(map[string]string{"one.yml": signinRule(watchOne, "user: "+who[0], r.ID)})
	b.signins()
	seen := url.Values{"q": {"kind = finding and rule.id = \"" + ruleID(watchOne) + "\""}}
	if code, text := b.as(0, "GET", "/api/v1/findings", seen, nil); code != 200 || !strings.Contains(text, ruleID(watchOne)) {
		t.Errorf("who asked for the authorisation sees none: %d %.300s", code, text)
	}
	title := fmt.Sprintf("Rule %d", watchOne)
	for path, q := range map[string]url.Values{"/api/v1/findings": seen, "/api/v1/search": seen, "/": nil, "/api/v1/timeline": nil} {
		code, text := b.as(colleague, "GET", path, q, nil)
		if code == 200 && (strings.Contains(text, ruleID(watchOne)) || strings.Contains(text, title)) {
			t.Errorf("%s: a colleague whom the authorisation does not name sees findings of its rule: %.300s", path, text)
		}
	}
	if _, text := b.as(0, "GET", "/", nil, nil); !strings.Contains(text, title) {
		t.Error("the start page shows none to who asked for the authorisation")
	}
}
