package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/oversight"
	"github.com/counterseal/counterseal/internal/web"
)

// heartbeat sends one by a user, and wants a status and a part of the answer.
func (b *bureau) heartbeat(user, status int, says string) {
	b.t.Helper()
	var st oversightState
	b.does(user, "oversight.status", struct{}{}, &st, 200, "")
	raw, err := oversight.NewHeartbeat(st.Office, b.s.pipe.Org(), b.now())
	if err != nil {
		b.t.Fatal(err)
	}
	b.does(user, "oversight.heartbeat", heartbeatSent{Statement: raw}, nil, status, says)
}

// page is the page for everybody.
func (b *bureau) page() string {
	b.t.Helper()
	w := httptest.NewRecorder()
	b.s.web.People().ServeHTTP(w, httptest.NewRequest("GET", "http://localhost/public", nil))
	if w.Code != 200 || strings.Contains(w.Body.String(), "<script") {
		b.t.Fatalf("%d\n%s", w.Code, w.Body)
	}
	return w.Body.String()
}

// authorised asks for an authorisation about somebody for 60 days, and has it approved.
func (b *bureau) authorised(alias string) (r authorisationRow) {
	b.t.Helper()
	now := b.now()
	b.does(0, "authorise.request", authoriseAsk{
		whom: whom{People: []string{alias}}, From: now.AddDate(0, 0, -30), To: now.Add(time.Hour), Predicate: "finding-1", Basis: "law-1", Ends: now.AddDate(0, 0, 60),
	}, &r, 200, "")
	b.does(privacyOfficer, "authorise", authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}, &r, 200, "")
	return r
}

func openWatched(t *testing.T, settings string) *bureau {
	t.Helper()
	return openBureau(t, func(dir string) {
		text := "data: data\npias: [pias]\nhttp: off\nreserve: 16MiB\nmemory: 64MiB\noffices: offices.yaml\nown_rules: false\nrules: [rules]\noversight: " + settings + "\n"
		if err := os.WriteFile(filepath.Join(dir, configName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	})
}

func (b *bureau) queue() (q queueAnswer) {
	b.t.Helper()
	b.does(overseer, "oversight.queue", queueAsk{}, &q, 200, "")
	return q
}

// TestNoPaceByConfiguration: who runs the machine cannot end the pace by a large number.
func TestNoPaceByConfiguration(t *testing.T) {
	for n, ok := range map[int]bool{-1: false, 0: true, maxReviews: true, maxReviews + 1: false, 1_000_000_000: false} {
		if _, err := (&oversightConfig{Reviews: n}).settings(); (err == nil) != ok {
			t.Errorf("%d: %v", n, err)
		}
	}
}

// TestPace: a flood of looks stops the next authorisation, what runs goes on, and reviews
// by an overseer open it again.
func TestPace(t *testing.T) {
	b := openWatched(t, "{reviews: 3}")
	who := b.people()
	r := b.authorised(who[0])
	about := "class_uid = 3002 and user.uid = " + who[0]
	for range 4 {
		b.asks(about, 200, who[0])
	}
	next := authoriseAsk{whom: whom{People: who[1:2]}, From: b.now().AddDate(0, 0, -30), To: b.now(), Predicate: "finding-2", Basis: "law-1", Ends: b.now().AddDate(0, 0, 2)}
	b.does(0, "authorise.request", next, nil, 403, "new authorisations wait: 4 looks")
	b.asks(about, 200, who[0])
	if got := b.page(); !strings.Contains(got, "New authorisations wait") {
		t.Errorf("the public page does not say that they wait:\n%s", got)
	}

	b.does(0, "oversight.queue", queueAsk{}, nil, 403, "")
	b.does(privacyOfficer, "oversight.queue", queueAsk{}, nil, 403, "")
	q := b.queue()
	if len(q.Looks) != 5 || len(q.Approvers) != 1 || q.Approvers[0].Quick != 1 || q.Approvers[0].Approved != 1 {
		t.Fatalf("got %+v", q)
	}
	l := q.Looks[0]
	if l.Kind != oversight.People || l.Who != ownActor() || l.Office != "soc" || l.Case != "C-17" || l.CoveredBy != "authorisation" || l.Cover != r.ID ||
		l.Predicate != "finding-1" || !slices.Equal(l.Scope, who[:1]) || !slices.Equal(l.About, who[:1]) || l.Rows != "1-9" || l.People != "1" || len(l.Marks) > 0 {
		t.Errorf("got %+v", l)
	}
	done := func(i int) reviewNamed { return reviewNamed{q.Looks[i].ID, oversight.Justified} }
	b.does(0, "look.review", done(0), nil, 403, "")
	b.does(privacyOfficer, "look.review", done(0), nil, 403, "")
	b.does(overseer, "look.review", reviewNamed{q.Looks[0].ID, "fine"}, nil, 400, "outcome is one of")
	b.does(overseer, "look.review", reviewNamed{"01900000-0000-7000-8000-000000000000", oversight.Justified}, nil, 400, "no look")
	b.does(overseer, "look.review", done(0), nil, 200, "")
	b.does(overseer, "look.review", done(0), nil, 403, "was reviewed")
	b.does(0, "authorise.request", next, nil, 403, "new authorisations wait")
	b.does(overseer, "look.review", done(1), nil, 200, "")
	b.does(0, "authorise.request", next, nil, 200, "")

	// The same after a restart.
	b.stop()
	b.open()
	if q := b.queue(); len(q.Looks) != 3 || q.Looks[0].Rows != "1-9" {
		t.Errorf("got %+v", q)
	}
	b.asks("query.hostname : example", 200, "people") // in counts: it waits for a review where it is drawn
	b.stop()
	told := ledgerTold(t, filepath.Join(b.dir, "data"))
	for _, want := range []string{"look.answered " + ownActor(), fmt.Sprintf("look.reviewed os:%d", overseer), `"look":"people"`, `"look":"wide"`} {
		if !strings.Contains(told, want) {
			t.Errorf("the ledger does not say %s", want)
		}
	}
	if hasToken([]byte(told)) {
		t.Error("a leaf has a token")
	}
}

// TestIndependence: where no independent overseer is heard for 14 days, looking at people
// stops and defence goes on; when they are back, it may be asked for again. All of it
// stands in the ledger, on the page for everybody and with the doctor.
func TestIndependence(t *testing.T) {
	b := openWatched(t, "{reviews: 100}")
	rule := fmt.Sprintf("title: A sign-in of high risk\nid: %s\nlevel: high\nlogsource: {product: idp, service: signin}\ndetection: {s: {risk: high}, condition: s}\n", ruleID(1))
	b.writeRules(map[string]string{"rule.yml": rule})
	b.does(0, "rules.activate", struct{}{}, nil, 200, "")
	b.does(colleague, "rules.approve", rulesNamed{b.s.pipe.Rules().Digest()}, nil, 200, "")
	for range 4 { // until the rule is nobody's fresh one
		b.later(9 * 24 * time.Hour)
		b.heartbeat(overseer, 200, `"watched":true`)
	}
	b.heartbeat(privacyOfficer, 403, "")
	b.heartbeat(0, 403, "")
	b.signins()
	who := b.people()
	r := b.authorised(who[0])
	about := "class_uid = 3002 and user.uid = " + who[0]
	b.asks(about, 200, who[0])
	if got := b.page(); !strings.Contains(got, "Looking at people is watched.") || !strings.Contains(got, "idp") {
		t.Errorf("the page says\n%s", got)
	}

	b.later(oversight.SilentAfter - time.Hour)
	b.asks(about, 200, who[0])
	b.later(2 * time.Hour)
	b.asks(about, 403, "looking at people has stopped since")
	if got := b.page(); !strings.Contains(got, "Looking at people has stopped") || !strings.Contains(got, "no independent overseer was heard for 14 days") {
		t.Errorf("the page says\n%s", got)
	}
	var rows []authorisationRow
	b.does(0, "authorise.list", authoriseNamed{ID: r.ID}, &rows, 200, "")
	if rows[0].State != "ended" || rows[0].Reason != "no_oversight" {
		t.Errorf("got %+v", rows[0])
	}
	b.does(0, "break.glass", whom{People: who[:1]}, nil, 403, "has stopped")
	b.does(0, "authorise.request", authoriseAsk{whom: whom{People: who[:1]}, From: b.now().AddDate(0, 0, -30), To: b.now(), Predicate: "f", Basis: "b", Ends: b.now().AddDate(0, 0, 2)}, nil, 403, "has stopped")
	checks, err := b.s.oversightChecks(t.Context())
	if err != nil || len(checks) == 0 || checks[0].State != "warn" {
		t.Errorf("the doctor says %+v, %v", checks, err)
	}

	// Defence goes on: a rule finds something, and its finding opens whom it is about.
	path := filepath.Join(b.dir, "more.ndjson")
	line := fmt.Sprintf(`{"time":%q,"event":"signin","user":"dora@agency.example","src_ip":"203.0.113.9","country":"US","result":"success","mfa":true,"client_app":"Browser","risk":"high"}`+"\n", b.now().Add(-time.Minute).Format(time.RFC3339Nano))
	if err := os.WriteFile(path, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.s.importFiles(context.Background(), web.ImportRequest{Paths: []string{path}, Source: "idp"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := b.s.pipe.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	code, text := b.as(0, "GET", "/api/v1/findings", url.Values{"case": {"C-17"}}, nil)
	if code != 200 || !strings.Contains(text, "A sign-in of high risk") {
		t.Fatalf("nothing was found: %d %s", code, text)
	}
	dora := ""
	for _, m := range regexp.MustCompile(`mail-[a-z2-7]{6,}`).FindAllString(b.asks("source = idp", 200, ""), -1) {
		if !slices.Contains(who, m) {
			dora = m
		}
	}
	b.asks("class_uid = 3002 and user.uid = "+dora, 200, dora)
	b.asks(about, 403, "has stopped")

	silent, err := b.s.pipe.Recorder().Facts(t.Context(), "oversight.silent")
	if err != nil || len(silent) != 1 {
		t.Fatalf("got %v, %v", silent, err)
	}
	if f, ok, err := b.s.pipe.Recorder().Fact(t.Context(), "authorisation.ended", r.ID); !ok || err != nil || f.Index < silent[0].Index {
		t.Errorf("the authorisation ended before the ledger said why: %+v", f)
	}

	// Back.
	b.heartbeat(overseer, 200, `"watched":true`)
	if got := b.page(); !strings.Contains(got, "Looking at people is watched.") {
		t.Errorf("the page says\n%s", got)
	}
	b.asks(about, 403, "has ended")
	b.authorised(who[0])
	b.asks(about, 200, who[0])

	// The seat falls vacant: at once, without a clock.
	offices, err := os.ReadFile(filepath.Join(b.dir, "offices.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	vacant := strings.Replace(string(offices), fmt.Sprintf("    holder: os-%d\n    standing: confirmed\n    since: 2020-01-01\n    roles: [overseer]\n    training_until: 2099-01-01\n", overseer), "    roles: [overseer]\n", 1)
	if vacant == string(offices) {
		t.Fatal("the seat was not found")
	}
	if err := os.WriteFile(filepath.Join(b.dir, "offices.yaml"), []byte(vacant), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.s.reloadForce(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.asks(about, 403, "no independent office of an overseer is held")
	if err := os.WriteFile(filepath.Join(b.dir, "offices.yaml"), offices, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.s.reloadForce(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.asks(about, 403, "has ended")

	// The report of the whole time is signed, and the same twice.
	report := func(in reportAsk) []byte {
		var out reportAnswer
		b.does(overseer, "oversight.report", in, &out, 200, "")
		return out.Note
	}
	b.later(24 * time.Hour)
	day := func(t time.Time) time.Time { return t.Truncate(24 * time.Hour) }
	in := reportAsk{From: day(b.now().AddDate(0, 0, -80)), To: day(b.now())}
	first := report(in)
	b.does(colleague, "oversight.report", in, nil, 403, "")
	b.does(overseer, "oversight.report", reportAsk{Public: true, From: in.From, To: in.To}, nil, 400, "whole quarter")
	vkey, err := os.ReadFile(filepath.Join(b.dir, "data", "ledger", "log.vkey"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := oversight.Verify(first, []string{strings.TrimSpace(string(vkey))})
	if err != nil {
		t.Fatal(err)
	}
	if f := got.Family("grants"); f.Total != oversight.Few {
		t.Errorf("got %+v", f)
	}
	file := filepath.Join(b.dir, "report.note")
	if err := os.WriteFile(file, first, 0o600); err != nil {
		t.Fatal(err)
	}
	b.stop()
	var out, errs bytes.Buffer
	if code := run(t.Context(), &environment{stdout: &out, stderr: &errs}, []string{"oversight", "verify", file, "--log", strings.TrimSpace(string(vkey))}); code != 0 || !strings.Contains(out.String(), "the report holds") {
		t.Errorf("%d %s %s", code, &out, &errs)
	}
	if err := os.WriteFile(file, bytes.Replace(first, []byte("count grants fewer-than-8"), []byte("count grants 0"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if code := run(t.Context(), &environment{stdout: &out, stderr: &errs}, []string{"oversight", "verify", file, "--log", strings.TrimSpace(string(vkey))}); code == 0 {
		t.Error("an altered report verifies")
	}
	told := ledgerTold(t, filepath.Join(b.dir, "data"))
	for _, want := range []string{
		`oversight.back system 1 {"reason":"begun"}`, `"reason":"no_oversight"`, `oversight.heartbeat os:4712`, `"reason":"vacant"`, `oversight.silent system`,
	} {
		if !strings.Contains(told, want) {
			t.Errorf("the ledger does not say %s", want)
		}
	}
}

// TestSignedHeartbeat: where officers are enrolled, a heartbeat counts with the signature of
// one of oversight over exactly it, once, and while it is fresh.
func TestSignedHeartbeat(t *testing.T) {
	b := openWatched(t, "{}")
	defer b.stop()
	keys := layInspectorKeys(t, b.dir)
	b.s.cfg.Officers = filepath.Join(b.dir, "officers.yaml")
	var st oversightState
	b.does(overseer, "oversight.status", struct{}{}, &st, 200, `"signed":true`)
	made := func(office string, at time.Time) []byte {
		raw, err := oversight.NewHeartbeat(office, b.s.pipe.Org(), at)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	sign := func(k *officer.Key, over []byte) *approval.Signed {
		s, err := k.Sign(approval.Approve, over)
		if err != nil {
			t.Fatal(err)
		}
		return &s
	}
	now := b.now()
	raw, old := made(st.Office, now), made(st.Office, now.Add(-25*time.Hour))
	forged := sign(keys[1], raw)
	forged.Signature = sign(keys[0], raw).Signature
	for name, c := range map[string]struct {
		raw    []byte
		signed *approval.Signed
		status int
		says   string
	}{
		"not signed":               {raw, nil, 403, "not signed by an officer of oversight"},
		"by investigation":         {raw, sign(keys[0], raw), 403, "not signed by an officer of oversight"},
		"by a key of nobody":       {raw, forged, 403, "not signed by an officer of oversight"},
		"over another one":         {raw, sign(keys[1], old), 403, "not signed by an officer of oversight"},
		"of another office":        {made("privacy", now), sign(keys[1], made("privacy", now)), 400, "of another office"},
		"old":                      {old, sign(keys[1], old), 400, "older than a day"},
		"by an inspector's office": {raw, sign(keys[5], raw), 403, "not signed by an officer of oversight"},
	} {
		t.Run(name, func(t *testing.T) {
			b.does(overseer, "oversight.heartbeat", heartbeatSent{Statement: c.raw, Signed: c.signed}, nil, c.status, c.says)
		})
	}
	good := heartbeatSent{Statement: raw, Signed: sign(keys[1], raw)}
	b.does(0, "oversight.heartbeat", good, nil, 403, "")
	b.does(overseer, "oversight.heartbeat", good, nil, 200, `"heard"`)
	b.does(overseer, "oversight.heartbeat", good, nil, 403, "heard already")
	b.later(25 * time.Hour)
	b.does(overseer, "oversight.heartbeat", good, nil, 400, "older than a day")
}
