package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/alias"
	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/index"
	"github.com/counterseal/counterseal/internal/query"
	"github.com/counterseal/counterseal/internal/web"
	"github.com/counterseal/counterseal/sigma"
)

// The rules of these tests, by the last digit of their ids.
const (
	everySignin = 10 + iota // of everybody: selects nobody
	watchOne                // names one person
	watchList               // names two
	watchClear              // names one by the name
	watchPlace              // lists people by what they looked up
	aimedAt                 // at a protected channel
	chained                 // correlates the one that names a person
)

func ruleID(n int) string { return fmt.Sprintf("0d1a53a4-7e0c-4c53-8d2f-3a3c2f5b%04d", n) }

// signinRule is a rule about sign-ins; under names its authorisation.
func signinRule(n int, test, under string) string {
	text := fmt.Sprintf("title: Rule %d\nid: %s\nlevel: medium\nlogsource: {product: idp, service: signin}\ndetection: {s: {%s}, condition: s}\n", n, ruleID(n), test)
	if under != "" {
		text += "counterseal: {authorisation: " + under + "}\n"
	}
	return text
}

func (b *bureau) writeRules(files map[string]string) {
	b.t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(b.dir, "rules", name), []byte(text), 0o600); err != nil {
			b.t.Fatal(err)
		}
	}
	docs, err := b.s.cfg.documents()
	if err == nil {
		err = b.s.pipe.SetDocuments(docs)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// signins imports a sign-in of each of the three people, an hour old.
func (b *bureau) signins() {
	b.t.Helper()
	path := filepath.Join(b.dir, "in.ndjson")
	var lines strings.Builder
	for i, who := range []string{"alice", "bob", "carol"} {
		fmt.Fprintf(&lines, `{"time":%q,"event":"signin","user":"%s@agency.example","src_ip":"203.0.113.%d","country":"US","result":"success","mfa":true,"client_app":"Browser","risk":"none"}`+"\n", b.now().Add(-time.Hour).Format(time.RFC3339Nano), who, i)
	}
	if err := os.WriteFile(path, []byte(lines.String()), 0o600); err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.s.importFiles(context.Background(), web.ImportRequest{Paths: []string{path}, Source: "idp"}, nil); err != nil {
		b.t.Fatal(err)
	}
	if err := b.s.pipe.Settle(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

// found gives how many findings each rule has, by the last digits of its id.
func (b *bureau) found(of ...int) (out []int) {
	b.t.Helper()
	for _, n := range of {
		all, err := b.s.pipe.Index().Findings(b.t.Context(), &query.Query{Where: query.Equal{Field: "rule.id", Pattern: query.Literal(ruleID(n))}}, index.Scope{}, 1000)
		if err != nil {
			b.t.Fatal(err)
		}
		out = append(out, len(all))
	}
	return out
}

func (b *bureau) wantFound(of, want []int, when string) {
	b.t.Helper()
	if got := b.found(of...); !slices.Equal(got, want) {
		b.t.Errorf("%s: rules %v have found %v, want %v", when, of, got, want)
	}
}

// aside gives the codes of the rules that are set aside, by id, and checks that no reason
// tells whom they are about.
func (b *bureau) aside() map[string]string {
	b.t.Helper()
	out := map[string]string{}
	list, _ := b.s.pipe.Standing()
	for _, a := range list {
		out[a.Rule] = a.Code
		for _, name := range []string{"alice", "bob", "union.example", "oig.example", "mail-", "m1_"} {
			if strings.Contains(a.Reason+a.Hint, name) {
				b.t.Errorf("the reason of %s holds a value: %s", a.Rule, a.Reason)
			}
		}
	}
	return out
}

func (b *bureau) wantAside(when string, want map[int]string) {
	b.t.Helper()
	got := b.aside()
	for n, code := range want {
		if got[ruleID(n)] != code {
			b.t.Errorf("%s: rule %d is set aside for %q, want %q", when, n, got[ruleID(n)], code)
		}
	}
	rules := b.s.pipe.Rules()
	for _, r := range slices.Concat(rules.Rules(), rules.Set().Correlations()) {
		if got[r.ID] != "" {
			b.t.Errorf("%s: rule %s is set aside and in force", when, r.ID)
		}
	}
	if len(got) != len(want) {
		b.t.Errorf("%s: %d are set aside, want %d: %v", when, len(got), len(want), got)
	}
}

func withProtected(dir string) {
	const list = "apiVersion: protected/v1\nchannels:\n  - name: hotline\n    domains: [oig.example]\n"
	const more = "http: off\nreserve: 16MiB\nmemory: 64MiB\noffices: offices.yaml\nown_rules: false\nrules: [rules]\nprotected: protected.yaml\n"
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "protected.yaml"), []byte(list), 0o600), layAgency(dir, more)); err != nil {
		panic(err)
	}
}

// doctorSays gives the lines of the doctor about rules that select somebody.
func (b *bureau) doctorSays() (out []string) {
	for _, c := range b.s.pipe.Doctor(b.t.Context(), false) {
		if c.Name == "standing" {
			out = append(out, c.State+" "+c.Text)
		}
	}
	return out
}

// TestRuleThatNamesAPerson: a rule or a list that names people is set aside until an
// authorisation covers it, finds then, and finds nothing once that has ended, live, after
// a restart and in a rebuild; what is aimed at a protected channel never is in force, and
// the overseer hears of it once; all other rules go on finding.
func TestRuleThatNamesAPerson(t *testing.T) {
	b := openBureau(t, withProtected)
	who := b.people()
	var r authorisationRow
	b.does(0, "authorise.request", authoriseAsk{
		whom: whom{People: who[:1]}, From: b.now().AddDate(0, 0, -30), To: b.now().AddDate(0, 0, 2), Predicate: "finding-1", Basis: "law-1", Ends: b.now().AddDate(0, 0, 2),
	}, &r, 200, "")
	all := []int{everySignin, watchOne, watchList, watchClear, watchPlace, aimedAt, chained}
	files := map[string]string{
		"all.yml":   signinRule(everySignin, "result: success", ""),
		"one.yml":   signinRule(watchOne, "user: "+who[0], r.ID) + "---\n" + "title: Rule 16\nid: " + ruleID(chained) + "\nlevel: medium\ncorrelation: {type: event_count, rules: [" + ruleID(watchOne) + "], timespan: 1h, condition: {gte: 1}, generate: true}\n",
		"list.yml":  signinRule(watchList, "user: ["+who[0]+", "+who[1]+"]", r.ID),
		"clear.yml": signinRule(watchClear, "user: alice@agency.example", ""),
		"place.yml": "title: Rule 14\nid: " + ruleID(watchPlace) + "\nlogsource: {category: dns}\ndetection: {s: {QueryName: union.example}, condition: s}\n",
		"aimed.yml": "title: Rule 15\nid: " + ruleID(aimedAt) + "\nlogsource: {category: dns}\ndetection: {s: {QueryName: www.oig.example}, condition: s}\n",
	}
	b.writeRules(files)
	rest := map[int]string{watchClear: cases.Unnamed, watchPlace: cases.Unnamed, aimedAt: cases.Aimed}
	with := func(more map[int]string) map[int]string {
		for n, code := range rest {
			more[n] = code
		}
		return more
	}
	b.wantAside("not decided", with(map[int]string{watchOne: cases.Undecided, watchList: cases.Undecided, chained: "stands_on"}))
	b.signins()
	b.wantFound(all, []int{3, 0, 0, 0, 0, 0, 0}, "not decided")
	if got := b.doctorSays(); len(got) != 6 || !strings.HasPrefix(got[0], "warn rule ") {
		t.Errorf("the doctor says %q", got)
	}

	// Approved: in force at once, about the one person.
	b.does(privacyOfficer, "authorise", authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}, nil, 200, "")
	b.wantAside("approved", with(map[int]string{watchList: cases.Subjects}))
	b.signins()
	b.wantFound(all, []int{6, 1, 0, 0, 0, 0, 1}, "approved")
	if got := strings.Join(b.doctorSays(), "\n"); !strings.Contains(got, "ok rule "+ruleID(watchOne)+" is in force under authorisation "+r.ID+" until "+r.Ends.Format(time.RFC3339)) {
		t.Errorf("the doctor says %q", got)
	}

	// The ledger knows it by the digest of its document, as it is written.
	sum := sha256.Sum256(sigma.Split([]byte(files["one.yml"]))[0])
	if _, ok, err := b.s.pipe.Recorder().Fact(t.Context(), "standing.begun", hex.EncodeToString(sum[:])); !ok || err != nil {
		t.Errorf("the ledger does not know the rule by its digest: %v", err)
	}

	// A restart keeps it.
	b.stop()
	b.open()
	b.wantAside("restarted", with(map[int]string{watchList: cases.Subjects}))
	b.signins()
	b.wantFound(all[:2], []int{9, 2}, "restarted")

	// Its end comes by the clock, before anybody has looked at it.
	b.later(r.Ends.Sub(b.now()))
	b.signins()
	b.wantFound(all[:2], []int{12, 2}, "at its end")
	if got := strings.Join(b.doctorSays(), "\n"); !strings.Contains(got, "warn rule "+ruleID(watchOne)+" has found nothing since ") {
		t.Errorf("the doctor says %q", got)
	}
	if err := b.s.tend(t.Context(), map[string]uint64{}); err != nil {
		t.Fatal(err)
	}
	b.wantAside("ended", with(map[int]string{watchOne: cases.Over, watchList: cases.Over, chained: "stands_on"}))
	b.signins()
	b.wantFound(all, []int{15, 2, 0, 0, 0, 0, 2}, "ended")

	// A rebuild finds what the live run found.
	b.stop()
	cfg, err := readConfig(filepath.Join(b.dir, configName))
	if err != nil {
		t.Fatal(err)
	}
	if b.s, err = openServer(t.Context(), cfg, serverOptions{log: b.s.log, now: b.s.now}); err != nil {
		t.Fatal(err)
	}
	err = b.s.pipe.Rebuild(t.Context(), nil)
	b.wantFound(all, []int{15, 2, 0, 0, 0, 0, 2}, "rebuilt")
	if err := errors.Join(err, b.s.close()); err != nil {
		t.Fatal(err)
	}

	// The ledger has each once, by the digest of the rule; no name is stored.
	told := ledgerTold(t, filepath.Join(b.dir, "data"))
	for want, n := range map[string]int{
		`standing.aside system 1 {"reason":"undecided"}`: 2, `standing.aside system 1 {"reason":"subjects"}`: 1, `standing.aside system 1 {"reason":"unnamed"}`: 2,
		`standing.aside system 1 {"reason":"protected"}`: 1, `standing.begun system 1 {"authorisation":"` + r.ID + `"`: 1,
		`standing.ended system 1 {"authorisation":"` + r.ID + `","reason":"over"}`: 1, `question.reported`: 1,
		`authorisation.ended`: 1,
	} {
		if got := strings.Count(told, want); got != n {
			t.Errorf("the ledger says %s %d times, want %d", want, got, n)
		}
	}
	if t.Failed() {
		t.Log(told)
	}
	b.noBlobHolds("alice@agency.example", "union.example", "oig.example")
}

// noBlobHolds looks for text in what is stored of the documents.
func (b *bureau) noBlobHolds(words ...string) {
	b.t.Helper()
	entries, err := os.ReadDir(filepath.Join(b.dir, "data", "blobs"))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(b.dir, "data", "blobs", e.Name()))
		if err != nil {
			b.t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`"data":"([^"]*)"`).FindAllSubmatch(data, -1) { // the files of a rule set
			file, err := base64.StdEncoding.DecodeString(string(m[1]))
			if err != nil {
				b.t.Fatal(err)
			}
			data = append(data, file...)
		}
		for _, w := range words {
			if strings.Contains(string(data), w) {
				b.t.Errorf("a stored document names somebody or some place of a rule that was set aside")
			}
		}
	}
}

// TestAuthorisationNamed: the key of a rule names an authorisation in one form.
func TestAuthorisationNamed(t *testing.T) {
	const id = "01900000-0000-7000-8000-000000000000"
	for text, want := range map[string]string{
		"":                                   "",
		"other: {authorisation: " + id + "}": "",
		"counterseal: {authorisation: " + id + "}":   id,
		"counterseal:\n  authorisation: " + id:       id,
		"counterseal: {}":                            "error",
		"counterseal:":                               "error",
		"counterseal: " + id:                         "error",
		"counterseal: [" + id + "]":                  "error",
		"counterseal: {authorisation: [" + id + "]}": "error",
		"counterseal: {authorisation: C-17}":         "error",
		"counterseal: {authorisation: " + strings.ToUpper("01900000-0000-7000-8000-00000000000a") + "}": "error",
		"counterseal: {authorisation: " + id + ", until: never}":                                        "error",
		"counterseal: {authorisation: " + strings.Repeat("0", 2000) + "}":                               "error",
	} {
		parsed, refused := sigma.Parse("x", []byte(signinRule(1, "user: x", "")+text+"\n"))
		if len(refused) > 0 {
			t.Fatal(refused[0])
		}
		got, err := authorisationNamed(parsed[0].Extra)
		if err != nil {
			got = "error"
			if strings.Contains(err.Error(), id) {
				t.Errorf("%q: the error quotes it", text)
			}
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// FuzzAuthorisationNamed: what is read as an id has its form.
func FuzzAuthorisationNamed(f *testing.F) {
	f.Add("{authorisation: 01900000-0000-7000-8000-000000000000}")
	f.Add("authorisation: 7\n")
	f.Add("{authorisation: &a 01900000-0000-7000-8000-000000000000, b: *a}")
	f.Add("[")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := authorisationNamed([]sigma.Extra{{Key: "counterseal", YAML: text}})
		if (err == nil) != isID(id) {
			t.Errorf("%q, %v", id, err)
		}
	})
}

// TestFounderHasNoWatchList: before anybody is in office nobody could authorise it.
func TestFounderHasNoWatchList(t *testing.T) {
	b := openBureau(t, func(dir string) {
		if err := layAgency(dir, "http: off\nreserve: 16MiB\nmemory: 64MiB\nown_rules: false\nrules: [rules]\n"); err != nil {
			t.Fatal(err)
		}
	})
	b.writeRules(map[string]string{
		"all.yml": signinRule(everySignin, "result: success", ""), "one.yml": signinRule(watchClear, "user: alice@agency.example", ""),
		"under.yml": signinRule(watchOne, "user: alice@agency.example", "01900000-0000-7000-8000-000000000000"),
	})
	b.wantAside("without offices", map[int]string{watchClear: cases.NoOffices, watchOne: cases.NoOffices})
	list, _ := b.s.pipe.Standing()
	if list[0].Hint != "counterseal offices init" {
		t.Errorf("the hint is %q", list[0].Hint)
	}
	b.signins()
	b.wantFound([]int{everySignin, watchClear, watchOne}, []int{3, 0, 0}, "without offices")
}

// TestStandingBadInput: what is no rule, no authorisation or no alias is set aside by
// itself, and the rest is in force.
func TestStandingBadInput(t *testing.T) {
	b := openBureau(t)
	who := b.people()
	r := b.request(who[0])
	b.does(privacyOfficer, "authorise", authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}, nil, 200, "")
	token := ""
	if v, err := b.s.cases.Authorisation(t.Context(), r.ID); err != nil {
		t.Fatal(err)
	} else {
		token = v.Scope.Subjects[0]
	}
	none := "01900000-0000-7000-8000-000000000000"
	files := map[string]string{
		"0.yml": signinRule(everySignin, "result: success", r.ID), // it needs none
		"1.yml": signinRule(20, "user: "+who[0], none),
		"2.yml": signinRule(21, "user: "+who[0], "C-17"),
		"3.yml": signinRule(22, "user: "+token, r.ID),
		"4.yml": signinRule(23, "user: person-aaaaaa", r.ID),
		"5.yml": signinRule(24, "user: "+who[0], r.ID) + "description: '" + strings.Repeat("x", 300<<10) + "'\n",
		"6.yml": signinRule(25, "user|startswith: "+who[0][:8], r.ID),
		"7.yml": signinRule(26, "user: "+who[0]+", src_ip: 203.0.113.9", r.ID),
		"8.yml": "title: F\nid: " + ruleID(27) + "\nlogsource: {product: idp, service: signin}\nfilter: {rules: [" + ruleID(everySignin) + "], s: {user: " + who[0] + "}, condition: not s}\ncounterseal: {authorisation: " + r.ID + "}\n",
		"9.yml": "title: [\n",
		"a.yml": signinRule(28, "user: "+strings.ToUpper(who[0]), r.ID),
	}
	b.writeRules(files)
	b.wantAside("bad input", map[int]string{
		20: cases.Unknown, 21: cases.BadInput, 22: cases.BadInput, 23: cases.Subjects, 24: cases.BadInput, 25: cases.Lists, 26: cases.Subjects, 27: "filter",
	})
	b.signins()
	b.wantFound([]int{everySignin, 20, 23, 25, 26, 28}, []int{3, 0, 0, 0, 0, 1}, "bad input")

	// Ended before its time: the act answers, and the rule has stopped.
	b.does(0, "authorise.end", authoriseNamed{ID: r.ID, Reason: "revoked"}, nil, 200, "")
	b.signins()
	b.wantFound([]int{everySignin, 28}, []int{6, 1}, "revoked")
}

// TestRulesRunUnderAuthorisation: rules run asks a rule that is in force under an
// authorisation as it is in force, for those whom the authorisation lets ask, and gives
// the findings that it gave live.
func TestRulesRunUnderAuthorisation(t *testing.T) {
	b := openBureau(t)
	who := b.people()
	r := b.request(who[0])
	b.does(privacyOfficer, "authorise", authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}, nil, 200, "")
	b.writeRules(map[string]string{"all.yml": signinRule(everySignin, "result: success", ""), "one.yml": signinRule(watchOne, "user: "+who[0], r.ID)})
	b.signins()
	live, err := b.s.pipe.Index().Findings(t.Context(), &query.Query{Where: query.Equal{Field: "rule.id", Pattern: query.Literal(ruleID(watchOne))}}, index.Scope{}, 10)
	if err != nil || len(live) != 1 {
		t.Fatalf("%d findings, %v", len(live), err)
	}
	files, err := ruleFiles(false, b.s.cfg.Rules)
	if err != nil {
		t.Fatal(err)
	}
	run := func(caseID string) string {
		code, text := b.as(0, "POST", "/api/v1/rules/run", url.Values{"case": {caseID}}, web.RetroRequest{Files: files})
		if code != 200 {
			t.Fatalf("got %d\n%s", code, text)
		}
		return text
	}
	in := run("C-17")
	if !strings.Contains(in, live[0].ID) || strings.Count(in, ruleID(watchOne)) != 2 { // and the sign-in of before
		t.Errorf("in the case: %s", in)
	}
	if out := run(""); strings.Contains(out, ruleID(watchOne)) || strings.Count(out, ruleID(everySignin)) < 3 {
		t.Errorf("outside of the case: %s", out)
	}
}

// TestAliasesOfAClosedCase: when the last authorisation of a case has ended because the
// case is closed, its aliases cannot be turned back any more.
func TestAliasesOfAClosedCase(t *testing.T) {
	b := openBureau(t)
	who := b.people()
	over := map[string]uint64{}
	one, two := b.request(who[0]), b.request(who[0])
	known := func() int {
		found, err := b.s.aliases.Resolve(t.Context(), alias.Scope{Case: "C-17"}, who[0])
		if err != nil {
			t.Fatal(err)
		}
		return found.Known
	}
	tend := func(want int, when string) {
		t.Helper()
		if err := b.s.tend(t.Context(), over); err != nil {
			t.Fatal(err)
		}
		if got := known(); got != want {
			t.Errorf("%s: %d aliases are known, want %d", when, got, want)
		}
	}
	tend(1, "open")
	b.does(0, "authorise.end", authoriseNamed{ID: one.ID, Reason: "case_closed"}, nil, 200, "")
	tend(1, "another authorisation waits")
	b.does(0, "authorise.end", authoriseNamed{ID: two.ID, Reason: "done"}, nil, 200, "")
	tend(0, "closed")
	// Who looks in the case again sees the alias of before, until the case is closed again.
	b.asks("source = idp", 200, who[0])
	tend(1, "looked at again")
	three := b.request(who[0])
	tend(1, "opened again")
	b.does(0, "authorise.end", authoriseNamed{ID: three.ID, Reason: "case_closed"}, nil, 200, "")
	tend(0, "closed again")
}

// TestListOfNames: a list of names finds those on it, and a rule that lists people is in
// force, as long as the authorisation that says so is.
func TestListOfNames(t *testing.T) {
	b := openBureau(t)
	who := b.people()
	ask := func(a authoriseAsk) (r authorisationRow) {
		a.From, a.To, a.Predicate, a.Basis, a.Ends = b.now().AddDate(0, 0, -1), b.now().AddDate(0, 0, 2), "finding-1", "law-1", b.now().AddDate(0, 0, 2)
		b.does(0, "authorise.request", a, &r, 200, "")
		b.does(privacyOfficer, "authorise", authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}, nil, 200, "")
		return r
	}
	two, lists := ask(authoriseAsk{whom: whom{People: who[:2]}}), ask(authoriseAsk{Reverse: true, Sources: []string{"idp"}})
	place := "title: Rule 14\nid: " + ruleID(watchPlace) + "\nlogsource: {category: dns}\ndetection: {s: {QueryName: union.example}, condition: s}\ncounterseal: {authorisation: " + lists.ID + "}\n"
	b.writeRules(map[string]string{
		"all.yml": signinRule(everySignin, "result: success", ""), "list.yml": signinRule(watchList, "user: ["+who[0]+", "+who[1]+"]", two.ID), "place.yml": place,
	})
	b.wantAside("approved", nil)
	if _, held := b.s.pipe.Standing(); len(held) != 2 {
		t.Errorf("%d rules are held, want 2", len(held))
	}
	b.signins()
	b.wantFound([]int{everySignin, watchList}, []int{3, 2}, "approved")
	b.does(overseer, "authorise.end", authoriseNamed{ID: two.ID, Reason: "revoked"}, nil, 200, "")
	b.does(overseer, "authorise.end", authoriseNamed{ID: lists.ID, Reason: "revoked"}, nil, 200, "")
	b.wantAside("revoked", map[int]string{watchList: cases.Over, watchPlace: cases.Over})
	b.signins()
	b.wantFound([]int{everySignin, watchList}, []int{6, 2}, "revoked")
}
