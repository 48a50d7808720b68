package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/lifecycle"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/oversight"
	"github.com/counterseal/counterseal/internal/policy"
)

// The people of an inspector's office, as users of the operating system.
const (
	inspectorOne = 4721
	inspectorTwo = 4722
	operatorUser = 4723
)

const inspectorCase = "IG-4711"

// layInspectors adds an inspector's office and an operator to the offices of bureau.
func layInspectors(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, "offices.yaml")
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b := bytes.NewBuffer(have)
	for i, user := range []int{inspectorOne, inspectorTwo} {
		fmt.Fprintf(b, "  - {id: inspection-%d, authority: court, outside: true, inspector: true, holder: os-%d, standing: confirmed, since: 2020-01-01, roles: [investigator], training_until: 2099-01-01}\n", i+1, user)
	}
	fmt.Fprintf(b, "  - {id: machine, authority: ciso, holder: os-%d, standing: confirmed, since: 2020-01-01, roles: [operator]}\n", operatorUser)
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// caseOf is what others than inspectors do not know the case of the inspectors for.
func caseOf(user int) string {
	if user == inspectorOne || user == inspectorTwo {
		return inspectorCase
	}
	return "C-17"
}

// inspects does an act in the case of the inspectors, and wants a status.
func (b *bureau) inspects(user int, act string, body, out any, status int, says string) string {
	b.t.Helper()
	code, text := b.as(user, "POST", "/api/v1/acts/"+act, url.Values{"case": {caseOf(user)}}, body)
	if code != status || !strings.Contains(text, says) {
		b.t.Fatalf("%s by %d: got %d, want %d with %q\n%s", act, user, code, status, says, text)
	}
	if out != nil {
		if err := json.Unmarshal([]byte(text), out); err != nil {
			b.t.Fatal(err)
		}
	}
	return text
}

// TestInspectorsOffice: an inspector's office asks, approves and looks inside itself, with
// a hold of its own. Everybody else sees that an entry is there: in every list, statement,
// payload and check.
func TestInspectorsOffice(t *testing.T) {
	t.Parallel()
	b := openBureau(t, func(dir string) { layInspectors(t, dir) })
	who := b.people()

	search := func(user int, q string) (int, string) {
		return b.as(user, "GET", "/api/v1/search", url.Values{"case": {inspectorCase}, "q": {q}}, nil)
	}
	_, text := search(inspectorOne, "source = idp")
	theirs := regexp.MustCompile(`mail-[a-z2-7]{6,}`).FindString(text)
	if theirs == "" {
		t.Fatalf("no alias in the case of the inspectors: %s", text)
	}
	about := "class_uid = 3002 and user.uid = " + theirs
	now := b.now()
	ask := authoriseAsk{whom: whom{People: []string{theirs}}, From: now.AddDate(0, 0, -30), To: now.AddDate(0, 0, 1), Predicate: "allegation-of-inspector", Basis: "inspector-law-9", Ends: now.AddDate(0, 0, 20)}
	var r authorisationRow
	b.inspects(inspectorOne, "authorise.request", ask, &r, 200, "")
	if r.Code == "" || !r.Inspector || r.Case != inspectorCase || strings.Join(r.Offices, " ") != "inspection-2" {
		t.Fatalf("got %+v", r)
	}
	yes := authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}
	for _, user := range []int{0, colleague, privacyOfficer, overseer, complianceUser, operatorUser, inspectorOne} {
		b.inspects(user, "authorise", yes, nil, 403, "")
	}
	if code, _ := search(inspectorOne, about); code != 403 {
		t.Fatalf("before the decision: %d", code)
	}
	b.inspects(inspectorTwo, "authorise", yes, &r, 200, `"approved"`)
	code, text := search(inspectorOne, about)
	if code != 200 || !strings.Contains(text, theirs) {
		t.Fatalf("under the authorisation: %d %s", code, text)
	}
	if code, _ := search(inspectorTwo, about); code != 403 {
		t.Errorf("who decided asks: %d", code)
	}
	// The officers of the organisation would read whom it asks about.
	b.inspects(inspectorOne, "name.request", nameAsk{Names: 1, Commitment: strings.Repeat("ab", 32), Reason: "why", Requester: "somebody", Minutes: 60}, nil, 403, "inspector's office asks for no names")
	b.asks("class_uid = 3002 and user.uid = "+who[0], 403, "authorisation") // the SOC, about the same person
	if code, _ := search(inspectorOne, "class_uid = 3002 and user.uid = "+who[1]); code == 200 {
		t.Error("an inspector asks about somebody else")
	}

	// A hold.
	compartment := b.s.pipe.Compartments()[0]
	var placed holdPlaced
	b.inspects(inspectorOne, "hold.place", holdPlace{Scope: lifecycle.Scope{Compartment: compartment}, Order: []byte("order-of-the-court"), Review: now.AddDate(0, 0, 3)}, &placed, 200, "")
	hold := placed.Hold.ID
	b.inspects(inspectorOne, "hold.place", holdPlace{Scope: lifecycle.Scope{Case: inspectorCase}, Order: []byte("x"), Review: now.AddDate(0, 0, 3)}, nil, 400, "compartment and times")
	if len(placed.Nonce) != 32 || placed.Hold.Scope.Compartment != compartment {
		t.Fatalf("got %+v", placed)
	}

	// What others see.
	secrets := []string{inspectorCase, "allegation-of-inspector", "inspector-law-9", "order-of-the-court", theirs}
	quiet := func(where, text string) {
		t.Helper()
		for _, s := range secrets {
			if strings.Contains(text, s) {
				t.Errorf("%s tells %q: %s", where, s, text)
			}
		}
	}
	b.later(4 * 24 * time.Hour) // the review of the hold is overdue
	for _, user := range []int{0, colleague, privacyOfficer, overseer, complianceUser, operatorUser} {
		for _, act := range []string{"authorise.list", "review.list", "hold.list", "oversight.queue", "oversight.status", "oversight.report", "inquiry.list", "retention.plan", "rules.waiting", "contain.list", "package.list"} {
			_, text := b.as(user, "POST", "/api/v1/acts/"+act, nil, struct{}{})
			quiet(fmt.Sprintf("%s for %d", act, user), text)
			if act == "hold.list" && strings.Contains(text, hold) && (strings.Contains(text, compartment) || strings.Contains(text, now.AddDate(0, 0, 3).Format("2006-01-02"))) {
				t.Errorf("%d sees what the hold covers: %s", user, text)
			}
		}
		for _, path := range []string{"/", "/api/v1/status", "/api/v1/doctor", "/api/v1/findings", "/metrics"} {
			_, text := b.as(user, "GET", path, nil, nil)
			quiet(fmt.Sprintf("%s for %d", path, user), text)
		}
	}
	var rows []authorisationRow
	b.does(overseer, "authorise.list", authoriseNamed{}, &rows, 200, "")
	if len(rows) != 1 || rows[0].ID != r.ID || rows[0].State != "approved" || rows[0].Office != "inspection-1" || rows[0].Requester != "" || rows[0].Subjects != nil || rows[0].Digest != "" {
		t.Errorf("the overseer sees %+v", rows)
	}
	b.does(0, "authorise.list", authoriseNamed{ID: r.ID, Code: r.Code}, nil, 400, "")
	b.inspects(inspectorTwo, "authorise.list", authoriseNamed{ID: r.ID}, &rows, 200, inspectorCase)
	checks, err := b.s.caseChecks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	quiet("the doctor", fmt.Sprint(checks))
	life, err := b.s.life.Doctor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprint(life); strings.Contains(text, "review") || strings.Contains(text, hold) {
		t.Errorf("the doctor tells of the hold: %s", text)
	}

	// Nobody else ends either.
	b.does(overseer, "authorise.end", authoriseNamed{ID: r.ID, Reason: "revoked"}, nil, 403, "")
	b.does(overseer, "hold.release", holdRelease{Hold: hold}, nil, 403, "")
	b.does(0, "hold.request", holdAsk{Hold: hold, Case: "C-17", Purpose: "why", Requester: "A. Analyst"}, nil, 403, "nobody else")
	b.inspects(inspectorTwo, "hold.list", struct{}{}, nil, 200, compartment)
	b.inspects(inspectorTwo, "hold.release", holdRelease{Hold: hold}, nil, 400, "nobody of your office has asked")
	b.inspects(inspectorOne, "hold.request", holdAsk{Hold: hold}, nil, 200, "")
	b.inspects(inspectorOne, "hold.release", holdRelease{Hold: hold}, nil, 403, "their own request")
	b.inspects(inspectorTwo, "hold.release", holdRelease{Hold: hold}, nil, 403, "unwitnessed") // decided, and this house has no witness

	// A restart: the code opens it again.
	b.stop()
	layInspectorKeys(t, b.dir) // from here on what they ask is kept, under their keys
	path := filepath.Join(b.dir, configName)
	config, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(config, "officers: officers.yaml\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	b.open()
	if code, text := search(inspectorOne, about); code != 403 || !strings.Contains(text, "locked") {
		t.Errorf("after a restart: %d %s", code, text)
	}
	b.inspects(inspectorTwo, "authorise.list", authoriseNamed{ID: r.ID, Code: r.Code}, nil, 200, inspectorCase)
	if code, text := search(inspectorOne, about); code != 200 {
		t.Errorf("after the code: %d %s", code, text)
	}
	a, err := b.s.cases.AuthorisationFor(t.Context(), b.person(inspectorOne), r.ID)
	if err != nil || len(a.Scope.Subjects) != 1 {
		t.Fatalf("%+v, %v", a, err)
	}

	// When the quarter is over, everybody reads how often.
	_, began := oversight.Quarter(b.now())
	b.later(began.AddDate(0, 3, 0).Sub(b.now()) + time.Hour)
	if page := b.page(); !regexp.MustCompile(`Looks by inspectors<[^\d]*fewer than 8`).MatchString(page) {
		t.Errorf("the page does not tell how often inspectors looked:\n%s", page)
	}
	b.stop()

	// What lies there: tokens are everywhere, and beside the ledger is none of theirs.
	secrets = append(secrets, r.Code)
	sealed := 0
	err = filepath.WalkDir(filepath.Join(b.dir, "data"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(b.dir, path)
		if bytes.Contains(raw, []byte(`"sealed":"`)) {
			sealed++
		}
		for _, s := range secrets {
			if s == theirs && strings.Contains(rel, "aliases.db") { // which names no case and nobody who asked
				continue
			}
			if bytes.Contains(raw, []byte(s)) || bytes.Contains(raw, []byte(base64.StdEncoding.EncodeToString([]byte(s)))[:8]) {
				t.Errorf("%s holds %q", rel, s)
			}
		}
		if strings.HasPrefix(rel, filepath.Join("data", "ledger")) && bytes.Contains(raw, []byte(a.Scope.Subjects[0])) {
			t.Errorf("%s holds the token", rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if sealed < 3 { // each request since the restart
		t.Errorf("%d questions are sealed to the inspectors", sealed)
	}
	told := ledgerTold(t, filepath.Join(b.dir, "data"))
	quiet("the ledger", told)
	for _, want := range []string{"authorisation.requested office:inspection-1", `request.served office:inspection-1`, "hold.placed office:inspection-1"} {
		if !strings.Contains(told, want) {
			t.Errorf("the ledger does not say %s:\n%s", want, told)
		}
	}
	for _, user := range []int{inspectorOne, inspectorTwo} {
		if strings.Contains(told, fmt.Sprintf("os:%d", user)) {
			t.Errorf("the ledger names %d", user)
		}
	}
}

// person gives a user as the record of offices has them.
func (b *bureau) person(user int) policy.Person {
	b.t.Helper()
	o := b.s.force.Load().offices
	p, ok := o.Person(o.Held(fmt.Sprintf("os-%d", user))[0])
	if !ok {
		b.t.Fatalf("%d is in no office", user)
	}
	return p
}

// layInspectorKeys writes officers.yaml: the four of the organisation, and two inspectors.
func layInspectorKeys(t *testing.T, dir string) (keys []*officer.Key) {
	t.Helper()
	text := "apiVersion: officers/v1\nepoch: 3\nofficers:\n"
	for i, o := range []struct {
		office    officer.Office
		authority string
		spare     bool
	}{{officer.Investigation, "Legal", false}, {officer.Oversight, "Council", false}, {officer.Investigation, "Legal", true}, {officer.Oversight, "Council", true},
		{officer.Investigation, "Court", false}, {officer.Oversight, "Court", false}} {
		k, err := officer.New(fmt.Sprint("Officer ", i), o.office, o.spare)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
		text += fmt.Sprintf("  - id: %s\n    authority: %s\n    card: '%s'\n", k.Card().ID(), o.authority, k.Card().Bytes())
		if i > 3 {
			text += "    inspector: true\n"
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "officers.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return keys
}

// TestInsideSeals: what an inspector's office asked opens with its two keys, and with no
// other; without such keys it is not kept, and where the officers cannot be read nothing
// is answered.
func TestInsideSeals(t *testing.T) {
	b := openBureau(t, func(dir string) { layInspectors(t, dir) })
	defer b.stop()
	if b.s.inside() != nil {
		t.Fatal("it is sealed to nobody")
	}
	keys := layInspectorKeys(t, b.dir)
	b.s.cfg.Officers = filepath.Join(b.dir, "officers.yaml")
	seal := b.s.inside()
	const id = "01900000-0000-7000-8000-000000000000"
	box, err := seal("inspection-1", id, []byte("the question"))
	if err != nil || bytes.Contains(box, []byte("question")) {
		t.Fatal(err)
	}
	for _, other := range []string{"soc", "nobody"} { // of another authority, or no office: kept nowhere
		if box, err := seal(other, id, []byte("the question")); err != nil || box != nil {
			t.Errorf("what %s asked is sealed to the inspectors: %v", other, err)
		}
	}
	r, err := b.s.cfg.roster()
	if err != nil {
		t.Fatal(err)
	}
	objects := []string{"statement " + id}
	_, st, err := approval.New(approval.Ask{Action: officer.InsideQuestions, Case: "C", Purpose: "p", Requester: "r", Objects: objects, Org: b.s.pipe.Org(), Grant: time.Hour}, b.now())
	if err != nil {
		t.Fatal(err)
	}
	o := &officer.Opening{Action: officer.InsideQuestions, Roster: r, Statement: st, Objects: objects, Org: b.s.pipe.Org().String(), Now: b.now(), Record: func([]byte) error { return nil }}
	for _, k := range keys[4:] {
		s, err := k.Sign(approval.Approve, st)
		if err != nil {
			t.Fatal(err)
		}
		o.Signed = append(o.Signed, s)
	}
	pair := r.Escrow().Inspector
	info := keyring.SealInfo{Purpose: insidePurpose, Org: b.s.pipe.Org(), Epoch: 3, Subject: id}
	sealed := []keyring.Sealed{{Box: box, Epoch: 3, Inner: pair.Investigation.ID(), Outer: pair.Oversight.ID()}}
	if _, err := keys[1].OpenOuter(o, info, sealed); err == nil {
		t.Error("oversight of the organisation opens it")
	}
	h, err := keys[5].OpenOuter(o, info, sealed)
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := keys[4].OpenInner(o, info, h); err != nil || string(got) != "the question" {
		t.Errorf("got %q, %v", got, err)
	}
	b.s.cfg.Officers = filepath.Join(b.dir, "gone.yaml")
	if _, err := b.s.inside()("inspection-1", id, nil); err == nil {
		t.Error("without the officers it is kept nowhere and answered")
	}
}
