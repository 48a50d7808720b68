package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/duty"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/vault"
)

const signInRule = "title: A Sign-In Without A Second Factor\nid: 0d1a53a4-7e0c-4c53-8d2f-3a3c2f5b0007\nlevel: high\nlogsource: {product: idp, service: signin}\ndetection: {s: {mfa: 'false', country: RO}, condition: s}\n"

// layNights lays a house whose officers name a duty host, with a witness, and gives the
// file of the passphrases. The server has run once.
func layNights(t *testing.T, s *shell, more string, witness func(log string) (vkey, lines string)) (pass, log, vkey string) {
	t.Helper()
	var officers string
	officers, pass = s.office()
	layOffices(t, s.dir)
	if err := os.MkdirAll(s.at("rules"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.write("rules/more.yml", signInRule)
	if err := layAgency(s.dir, "http: off\nreserve: 16MiB\nmemory: 64MiB\nofficers: officers.yaml\noffices: offices.yaml\nown_rules: false\nrules: [rules]\n"+more); err != nil {
		t.Fatal(err)
	}
	b := &bureau{t: t, dir: s.dir}
	b.later(-2 * time.Hour) // so that a rule can be older than a finding, and both older than now
	b.open()
	org := b.s.pipe.Org().String()
	b.stop()
	log = strings.TrimSpace(string(read(t, s.at("data/ledger/log.vkey"))))
	var lines string
	vkey, lines = witness(log)
	watched(t, s, lines)
	s.run(0, "duty", "init", "--dir", s.at("duty"), "--org", org, "--log", log, "--witness", vkey, "--name", "Duty host", "--responder", owner(), "--passphrase-file", pass, "--oversight-passphrase-file", pass)
	card, _ := s.run(0, "duty", "card", "--dir", s.at("duty"), "--run-by", "Directory team")
	text := strings.Replace(string(read(t, officers)), "epoch: 1", "epoch: 2", 1) + card
	s.write("officers.yaml", text)
	s.write("duty/officers.yaml", text)
	return pass, log, vkey
}

// granted has a finding open two people to whoever runs the test, and gives their aliases in
// the case, and the alias of somebody whom it does not open.
func (b *bureau) granted() (opened []string, other string) {
	b.t.Helper()
	b.ruled()
	return b.opens()
}

// ruled has two people stand for the rules, an hour ago.
func (b *bureau) ruled() {
	b.t.Helper()
	b.does(colleague, "rules.activate", struct{}{}, nil, 200, "")
	b.does(privacyOfficer, "rules.approve", rulesNamed{b.s.pipe.Rules().Digest()}, nil, 200, "")
	b.later(time.Hour)
}

// opens has a finding of them.
func (b *bureau) opens() (opened []string, other string) {
	b.t.Helper()
	in := `"user":"%s@agency.example","src_ip":"203.0.113.7","country":"%s","result":"success"`
	b.signIns("in.ndjson", fmt.Sprintf(in, "bob", "RO"), fmt.Sprintf(in, "carol", "US"))
	for _, r := range rowsOf(b.t, b.asks("source = idp and kind = event", 200, "")) {
		if r.Get("src_endpoint.location.country") == "RO" {
			opened = append(opened, r.Get("user.uid"))
		} else {
			other = r.Get("user.uid")
		}
	}
	if len(opened) != 1 || other == "" {
		b.t.Fatalf("got %v, %q", opened, other)
	}
	return opened, other
}

// nights is a house with a duty host, in one process.
type nights struct {
	*names
	host  *dutyHost
	at    time.Time // the clock of the host; zero: that of the server
	bob   string    // opened by a grant
	carol string    // not
	pass  string
}

// openNights opens it; signed: who asks has an account and a passkey, and the duty host wants
// requests that are signed by it.
func openNights(t *testing.T, signed bool) *nights {
	t.Helper()
	more := ""
	if signed {
		more = "login: {address: \"127.0.0.1:0\", origin: \"https://logs.example\"}\n"
	}
	s := newShell(t)
	n := &nights{names: &names{sh: s, keys: map[string]*officer.Key{}}}
	n.pass, n.log, n.vkey = layNights(t, s, more, func(string) (string, string) {
		_, vkey, lines, away := s.witness(s.at("data"))
		n.away = away
		return vkey, lines
	})
	secret := bytes.TrimSpace(read(t, n.pass))
	for _, name := range []string{"inv", "ovs", "inv2", "ovs2"} {
		var err error
		if n.keys[name], err = officer.OpenKey(read(t, s.at(name)), secret); err != nil {
			t.Fatal(err)
		}
	}
	n.bureau = &bureau{t: t, dir: s.dir}
	n.bureau.later(-time.Hour) // the witness has a clock of its own
	n.open()
	if signed {
		n.person = n.newPerson("responder")
		n.stop()
		n.holds(n.person.id)
		s.write("offices.yaml", strings.Replace(string(read(t, s.at("offices.yaml"))), "roles: [investigator]", "roles: [responder]", 1)) // who has no account
		s.write("duty/duty.yaml", strings.Replace(string(read(t, s.at("duty/duty.yaml"))), owner(), n.person.id, 1)+"origin: 'https://logs.example'\n")
		n.open()
	}
	n.ruled()
	if signed {
		n.signIn()
	}
	opened, other := n.opens()
	n.bob, n.carol = opened[0], other
	n.start()
	return n
}

// start opens the duty host, as a new process would.
func (n *nights) start() {
	n.t.Helper()
	if n.host != nil {
		if err := n.host.journal.Close(); err != nil {
			n.t.Fatal(err)
		}
		old := n.host
		n.host = &dutyHost{dir: old.dir, inner: old.inner, outer: old.outer, now: old.now, log: old.log}
		var err error
		if n.host.journal, err = duty.OpenJournal(old.dir); err != nil {
			n.t.Fatal(err)
		}
		return
	}
	var out bytes.Buffer
	h, err := openDutyHost(&environment{stdin: strings.NewReader(""), stdout: &out, stderr: &out}, n.sh.at("duty"), n.pass, n.pass)
	if err != nil {
		n.t.Fatal(err)
	}
	h.now = func() time.Time {
		if n.at.IsZero() {
			return n.now()
		}
		return n.at
	}
	n.host = h
	n.t.Cleanup(func() { n.host.journal.Close() })
}

// night is the hours around now by the clock of the server.
func (n *nights) night() string {
	return n.now().Add(-2*time.Hour).Format("15:04") + "-" + n.now().Add(4*time.Hour).Format("15:04")
}

func (n *nights) wish() dutyWarrantAsk {
	return dutyWarrantAsk{From: n.now().Add(-time.Minute), Until: n.now().Add(10 * 24 * time.Hour), Night: n.night(), Names: 3, Purpose: "the nights of this week", Requester: "Olaf Tal"}
}

// warrant has two officers sign a warrant.
func (n *nights) warrant() *dutyWarrant {
	n.t.Helper()
	var r officerRequest
	n.does(overseer, "duty.warrant", n.wish(), &r, 200, "")
	var w dutyWarrant
	n.does(overseer, "duty.approve", unlockDecided{r.Statement, n.both(r.Statement)}, &w, 200, "")
	return &w
}

func (n *nights) write(w *dutyWarrant) string {
	n.t.Helper()
	b, err := approval.Canonical(w)
	if err != nil {
		n.t.Fatal(err)
	}
	return n.sh.write("warrant-"+fmt.Sprint(time.Now().UnixNano()), string(b))
}

// put puts a warrant where the host finds it, unchecked.
func (n *nights) put(w *dutyWarrant) {
	n.t.Helper()
	st, err := approval.Parse([]byte(w.Statement))
	if err != nil {
		n.t.Fatal(err)
	}
	n.sh.write("duty/warrants/"+st.ID+".json", string(read(n.t, n.write(w))))
}

func (n *nights) asked(alias string) *dutyRequest {
	n.t.Helper()
	var r dutyRequest
	n.does(0, "duty.ask", dutyAsk{alias, "who signed in from there"}, &r, 200, "")
	return n.brought(&r)
}

// brought is a request as the host reads it.
func (n *nights) brought(r *dutyRequest) *dutyRequest {
	n.t.Helper()
	got, err := parseDuty(n.bytes(r))
	if err != nil {
		n.t.Fatal(err)
	}
	return got
}

func (n *nights) bytes(r *dutyRequest) []byte {
	n.t.Helper()
	b, err := approval.Canonical(r)
	if err != nil {
		n.t.Fatal(err)
	}
	return b
}

// refused brings a request that the host refuses.
func (n *nights) refused(name string, r *dutyRequest, says string) {
	n.t.Helper()
	before := len(n.host.journal.All())
	a, err := n.host.open(owner(), n.bytes(r))
	var no *duty.Refusal
	if !errors.As(err, &no) || a != nil || !strings.Contains(err.Error(), says) || no.Hint == "" {
		n.t.Errorf("%s: %v, want a refusal with %q", name, err, says)
	}
	if got := len(n.host.journal.All()); got != before {
		n.t.Errorf("%s: it was counted", name)
	}
}

// lie is a server in other hands: it states a request that its own rules refuse, under its
// own key and the eyes of the witness, for the seal of somebody and a grant.
func (n *nights) lie(r *dutyRequest, alias string, change func(*dutyObjects)) *dutyRequest {
	n.t.Helper()
	ctx := n.t.Context()
	o := *r.objects
	token := r.row.Token
	if alias != "" {
		token = n.tokenOf(alias)
	}
	row, proof, err := n.s.pipe.Vault().Find(ctx, token)
	if err != nil {
		n.t.Fatal(err)
	}
	c := row.Commitment()
	o.seal, o.window, o.index = fmt.Sprintf("%x", c), proof.Window.ID, proof.Index
	if change != nil {
		change(&o)
	}
	st, statement, err := approval.New(approval.Ask{Action: duty.ToOpen, Case: "C-17", Purpose: "a lie", Requester: owner(), Objects: o.list(), Org: n.s.pipe.Org(), Life: duty.Fresh, Grant: duty.Fresh}, n.now())
	if err != nil {
		n.t.Fatal(err)
	}
	rec := n.s.pipe.Recorder()
	payload, err := rec.PutPayload(statement)
	if err != nil {
		n.t.Fatal(err)
	}
	got, err := rec.Critical(ctx, attest.Act{Kind: "duty.asked", Actor: ownActor(), Subject: []string{st.ID},
		Detail: dutyAsked{Act: "duty.ask", Case: "C-17", Cover: o.grant, Payload: payload, Question: payload, Request: st.ID, Statement: approval.HexDigest(statement), Warrant: o.warrant}})
	if err != nil {
		n.t.Fatal(err)
	}
	n.s.oversight.Stated(ctx, "duty.asked", st.ID)
	sealed, err := n.s.sealedRequest(ctx, row, proof, statement)
	if err != nil {
		n.t.Fatal(err)
	}
	out := dutyRequest{unmaskRequest: *sealed, Grant: r.Grant, Opened: r.Opened, Reviews: r.Reviews}
	asked, err := n.s.receiptOf(ctx, got.Index)
	if err != nil {
		n.t.Fatal(err)
	}
	out.Asked = *asked
	return n.brought(&out)
}

// tokenOf is the token of bob or of carol.
func (n *nights) tokenOf(alias string) event.Token {
	n.t.Helper()
	name := map[string]string{n.bob: "bob", n.carol: "carol"}[alias]
	token, err := n.s.tokens.maker.Token(event.Mail, []byte(name+"@agency.example"))
	if err != nil {
		n.t.Fatal(err)
	}
	return token
}

// review has the overseer review what waits of the night.
func (n *nights) review() (ids []string) {
	n.t.Helper()
	var q queueAnswer
	n.does(overseer, "oversight.queue", queueAsk{}, &q, 200, "")
	for _, l := range q.Looks {
		if l.Kind == "night" {
			n.does(overseer, "look.review", reviewNamed{l.ID, "justified"}, nil, 200, "")
			ids = append(ids, l.ID)
		}
	}
	return ids
}

// TestDuty: a name of a grant at night, by the host's own checks; and all that it refuses,
// also where the server and its ledger lie.
func TestDuty(t *testing.T) {
	t.Parallel() // it waits more than it works
	n := openNights(t, false)
	ask := dutyAsk{n.bob, "who signed in from there"}
	n.does(0, "duty.ask", ask, nil, 403, "no warrant")
	n.does(colleague, "duty.ask", ask, nil, 403, "")

	// The warrant.
	for name, bad := range map[string]func(*dutyWarrantAsk){
		"four names": func(w *dutyWarrantAsk) { w.Names = 4 }, "fifteen days": func(w *dutyWarrantAsk) { w.Until = w.From.AddDate(0, 0, 15) },
		"a night of a day": func(w *dutyWarrantAsk) { w.Night = "08:00-23:00" }, "no reason": func(w *dutyWarrantAsk) { w.Purpose = "" },
	} {
		w := n.wish()
		bad(&w)
		if code, text := n.as(overseer, "POST", "/api/v1/acts/duty.warrant", nil, w); code != 400 {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}
	n.does(colleague, "duty.warrant", n.wish(), nil, 403, "")
	var r officerRequest
	n.does(overseer, "duty.warrant", n.wish(), &r, 200, "")
	for name, signed := range map[string][]approval.Signed{"one office": n.sign(approval.Approve, r.Statement, "ovs"), "two of one": n.sign(approval.Approve, r.Statement, "ovs", "ovs2")} {
		if code, text := n.as(overseer, "POST", "/api/v1/acts/duty.approve", nil, unlockDecided{r.Statement, signed}); code != 403 {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}
	n.does(0, "duty.approve", unlockDecided{r.Statement, n.both(r.Statement)}, nil, 403, "")
	w := &dutyWarrant{}
	n.does(overseer, "duty.approve", unlockDecided{r.Statement, n.both(r.Statement)}, w, 200, "")
	n.sh.run(0, "duty", "install", n.write(w), "--dir", n.sh.at("duty"))
	n.sh.run(1, "duty", "install", n.write(w), "--dir", n.sh.at("duty"))
	spoil := func(change func(*dutyWarrant)) *dutyWarrant {
		c := *w
		c.Decisions = slices.Clone(w.Decisions)
		change(&c)
		return &c
	}
	forged := map[string]*dutyWarrant{
		"one office":         spoil(func(w *dutyWarrant) { w.Decisions = w.Decisions[:1] }),
		"two of one office":  spoil(func(w *dutyWarrant) { w.Decisions = n.sign(approval.Approve, w.Statement, "ovs", "ovs2") }),
		"one refuses":        spoil(func(w *dutyWarrant) { w.Decisions[0] = n.sign(approval.Refuse, w.Statement, "inv")[0] }),
		"a forged signature": spoil(func(w *dutyWarrant) { w.Decisions[0].Signature = w.Decisions[1].Signature }),
		"longer":             spoil(func(w *dutyWarrant) { w.Statement = strings.Replace(w.Statement, "names 3", "names 4", 1) }),
		"no witness":         spoil(func(w *dutyWarrant) { w.Receipt.Proof = unwitnessed(w.Receipt.Proof, n.log) }),
	}
	for name, f := range forged {
		if _, said := n.sh.run(3, "duty", "install", n.write(f), "--dir", n.sh.at("duty")); !strings.Contains(said, "nothing was installed") {
			t.Errorf("%s: %s", name, said)
		}
	}

	// Who may ask the server, about whom.
	n.does(0, "duty.ask", dutyAsk{n.carol, "x"}, nil, 403, "no incident grant")
	n.does(0, "duty.ask", dutyAsk{"bob@agency.example", "x"}, nil, 400, "by the alias")
	n.does(0, "duty.ask", dutyAsk{n.bob, ""}, nil, 400, "purpose")
	n.does(overseer, "duty.ask", ask, nil, 403, "")
	n.away.Store(true)
	n.does(0, "duty.ask", ask, nil, 503, "")
	n.away.Store(false)
	if got := n.review(); len(got) != 1 { // what was stated waits, whether a witness has seen it or not
		t.Errorf("%d wait", len(got))
	}

	one := n.asked(n.bob)
	changed := func(change func(*dutyRequest)) *dutyRequest { c := *one; change(&c); return n.brought(&c) }
	resealed, err := vault.Seal(n.rosterNow().Escrow(), n.s.pipe.Org(), one.row.Token, vault.Identity{Kind: event.Mail, Canonical: []byte("mallory@agency.example")})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		r    *dutyRequest
		says string
	}{
		"a seal made later":        {changed(func(r *dutyRequest) { r.Row = base64.RawURLEncoding.EncodeToString(resealed.Bytes) }), "another seal"},
		"no witness saw it":        {changed(func(r *dutyRequest) { r.Asked.Proof = unwitnessed(r.Asked.Proof, n.log) }), "not witnessed"},
		"no witness saw the seal":  {changed(func(r *dutyRequest) { r.Window.Proof = unwitnessed(r.Window.Proof, n.log) }), "not witnessed"},
		"no witness saw the grant": {changed(func(r *dutyRequest) { r.Grant.Proof = unwitnessed(r.Grant.Proof, n.log) }), "not witnessed"},
		"a forged grant":           {changed(func(r *dutyRequest) { r.Grant.Leaf = strings.Replace(r.Grant.Leaf, "grant.opened", "glass.broken", 1) }), "proof"},
		"another payload":          {changed(func(r *dutyRequest) { r.Opened = base64.RawURLEncoding.EncodeToString(make([]byte, 64)) }), "payload"},
		"the grant is no grant":    {changed(func(r *dutyRequest) { r.Grant = r.Asked }), "another act"},
		"another warrant": {changed(func(r *dutyRequest) {
			r.Statement = strings.Replace(r.Statement, r.objects.warrant, "0d1a53a4-7e0c-4c53-8d2f-3a3c2f5b0001", 1)
		}), "no such warrant"},
		"a changed statement": {changed(func(r *dutyRequest) { r.Statement = strings.Replace(r.Statement, "who signed", "why signed", 1) }), "another act"},
	} {
		n.refused(name, c.r, c.says)
	}
	for name, at := range map[string]struct {
		at   time.Time
		says string
	}{
		"by day": {n.now().Add(6 * time.Hour), "it is day"}, "over": {n.now().Add(240 * time.Hour), "over"}, "before": {n.now().Add(-time.Hour), "has not begun"},
		"16 minutes later": {n.now().Add(16 * time.Minute), "15 minutes"},
	} {
		n.at = at.at
		n.refused(name, one, at.says)
	}
	n.at = time.Time{}
	for name, f := range forged {
		n.put(f)
		n.refused(name, one, "")
	}
	n.put(w)
	if _, err := n.host.open("somebody-else", n.bytes(one)); err == nil || !strings.Contains(err.Error(), "does not answer this account") {
		t.Error("a stranger is answered", err)
	}
	settings := string(read(t, n.sh.at("duty/duty.yaml")))
	n.sh.write("duty/duty.yaml", settings+"  - somebody-else\n")
	if _, err := n.host.open("somebody-else", n.bytes(one)); err == nil || !strings.Contains(err.Error(), "another account than the certificate") {
		t.Error("another responder takes the request", err)
	}
	n.sh.write("duty/duty.yaml", settings)
	officers := string(read(t, n.sh.at("duty/officers.yaml")))
	stranger, err := officer.New("Ada Ihle", officer.Investigation, false)
	if err != nil {
		t.Fatal(err)
	}
	swapped := strings.Replace(strings.Replace(officers, n.keys["inv"].Card().ID(), stranger.Card().ID(), 1), string(n.keys["inv"].Card().Bytes()), string(stranger.Card().Bytes()), 1)
	for name, text := range map[string]string{"another officer": swapped, "no duty host": strings.ReplaceAll(officers[:strings.Index(officers, n.host.inner.Card().ID())-len("  - id: ")], "epoch: 2", "epoch: 1"), "no officers": "x"} {
		n.sh.write("duty/officers.yaml", text)
		n.refused("its own copy: "+name, one, "")
	}
	n.sh.write("duty/officers.yaml", officers)

	// A server in other hands states what its rules refuse.
	n.refused("a token outside of the grant", n.lie(one, n.carol, nil), "does not open this person")
	n.refused("another grant", n.lie(one, "", func(o *dutyObjects) { o.grant = "0d1a53a4-7e0c-4c53-8d2f-3a3c2f5b0001" }), "another one than the statement")
	n.review()

	// The name, in the next night.
	n.later(24 * time.Hour)
	one = n.asked(n.bob)
	a, err := n.host.open(owner(), n.bytes(one))
	if err != nil || string(a.Identity) != "bob@agency.example" || a.Kind != "m" || a.Number != 1 {
		t.Fatalf("%v, %+v", err, a)
	}
	n.refused("a replay", one, "brought before")
	n.does(0, "duty.opened", dutyOpened{one.Statement, n.sign(approval.Approve, one.Statement, "inv")[0]}, nil, 403, "did not sign")
	for range 2 {
		n.does(0, "duty.opened", dutyOpened{one.Statement, a.Signed}, nil, 200, "")
	}
	n.noName("bob@")

	// It dies between count and answer: the name is counted, and the request is used.
	two := n.asked(n.bob)
	n.host.counted = func() { panic("killed") }
	func() {
		defer func() { recover() }()
		n.host.open(owner(), n.bytes(two))
	}()
	n.start()
	n.refused("again after the crash", two, "brought before")

	// The third, and no fourth: for the server that counts what was asked, nor for the host.
	three := n.asked(n.bob)
	n.does(0, "duty.ask", ask, nil, 403, "the most")
	if a, err := n.host.open(owner(), n.bytes(three)); err != nil || a.Number != 3 {
		t.Fatal(err, a)
	}
	n.refused("a fourth", n.lie(one, "", nil), "3 names")

	// Each waits in the queue, and no warrant is renewed before.
	var q queueAnswer
	n.does(overseer, "oversight.queue", queueAsk{}, &q, 200, "")
	i := slices.IndexFunc(q.Looks, func(r queueRow) bool { return r.ID == one.st.ID })
	if i < 0 || q.Looks[i].Kind != "night" || q.Looks[i].People != "1" || q.Looks[i].Query != "who signed in from there" || len(q.Looks[i].About) != 1 || q.Looks[i].Who != ownActor() {
		t.Errorf("%d, %+v", i, q.Looks)
	}
	n.does(0, "look.review", reviewNamed{one.st.ID, "justified"}, nil, 403, "")
	n.does(overseer, "duty.warrant", n.wish(), nil, 403, "not reviewed")
	renewed := n.lieWarrant()
	if _, said := n.sh.run(3, "duty", "install", n.write(renewed), "--dir", n.sh.at("duty")); !strings.Contains(said, "not reviewed") {
		t.Error(said)
	}
	n.put(renewed)
	n.later(24 * time.Hour)
	rst, err := approval.Parse([]byte(renewed.Statement))
	if err != nil {
		t.Fatal(err)
	}
	n.refused("renewed without review", n.lie(one, "", func(o *dutyObjects) { o.warrant = rst.ID }), "not reviewed")

	// Under the first warrant it goes on until a review is overdue.
	four := n.lie(one, "", nil)
	if a, err := n.host.open(owner(), n.bytes(four)); err != nil || a.Number != 1 {
		t.Fatal(err, a)
	}
	n.later(6 * 24 * time.Hour)
	n.signIns("more.ndjson", `"user":"bob@agency.example","src_ip":"203.0.113.9","country":"RO","result":"success"`) // another finding, another grant
	n.does(0, "duty.ask", ask, nil, 403, "overdue")
	n.does(overseer, "duty.status", struct{}{}, nil, 200, `"overdue":true`)
	n.does(overseer, "oversight.queue", queueAsk{}, nil, 200, `"overdue"`)
	if checks, err := n.s.dutyChecks(t.Context()); err != nil || len(checks) != 1 || checks[0].State != "warn" {
		t.Error(err, checks)
	}
	if got := n.review(); len(got) < 4 {
		t.Errorf("%d wait", len(got))
	}
	n.refused("an old grant", n.lie(one, "", nil), "the grant is over")
	five := n.asked(n.bob)
	bare := *five
	bare.Reviews = []receipt{}
	n.refused("overdue, and no review is brought", n.brought(&bare), "not reviewed")
	bare.Reviews = slices.Clone(five.Reviews)
	for i := range bare.Reviews {
		bare.Reviews[i].Proof = unwitnessed(bare.Reviews[i].Proof, n.log)
	}
	n.refused("reviews that no witness saw", n.brought(&bare), "a review")
	if a, err := n.host.open(owner(), n.bytes(five)); err != nil || a.Number != 1 {
		t.Fatal(err, a)
	}
	// What was opened before the next warrant is reviewed first.
	n.does(overseer, "duty.warrant", n.wish(), nil, 403, "not reviewed")
	n.review()
	next := n.warrant()
	n.sh.run(0, "duty", "install", n.write(next), "--dir", n.sh.at("duty"))
	// A review ends the grant, an overseer the warrant.
	var rows []reviewRow
	n.does(overseer, "review.list", struct{}{}, &rows, 200, "")
	for _, r := range rows {
		if r.What == "grant" {
			n.does(overseer, "grant.review", reviewNamed{r.ID, "excessive"}, nil, 200, "")
		}
	}
	n.does(0, "duty.ask", ask, nil, 403, "a review has ended this grant")
	nst, err := approval.Parse([]byte(next.Statement))
	if err != nil {
		t.Fatal(err)
	}
	var state dutyState
	n.does(0, "duty.status", struct{}{}, &state, 200, "")
	if state.Waiting != 0 || len(state.Asked) < 5 {
		t.Errorf("%+v", state)
	}
	for _, w := range state.Warrants {
		n.does(0, "duty.end", dutyNamed{w.ID}, nil, 403, "")
		n.does(overseer, "duty.end", dutyNamed{w.ID}, nil, 200, "")
	}
	n.does(0, "duty.ask", ask, nil, 403, "no warrant")
	n.does(overseer, "duty.end", dutyNamed{"0d1a53a4-7e0c-4c53-8d2f-3a3c2f5b0001"}, nil, 400, "no such warrant")
	// Whoever's name could be opened at night is told.
	n.later(duty.Fresh)
	var notices []noticeRow
	n.does(overseer, "notice.list", struct{}{}, &notices, 200, "")
	at := 0
	for _, row := range notices {
		if row.About == aboutName && row.State == "due" && row.People == 1 {
			at++
		}
	}
	if at != len(state.Asked) {
		t.Errorf("%d names were asked for at night, and notices are about %d", len(state.Asked), at)
	}
	n.noName("bob@")
	told := ledgerTold(t, n.sh.at("data"))
	for _, want := range []string{"duty.warranted", "duty.asked", "duty.opened", "duty.ended " + "os:", nst.ID} {
		if !strings.Contains(told, want) {
			t.Errorf("the ledger does not say %s", want)
		}
	}
	for _, no := range []string{string(one.row.Token), one.objects.seal, "agency.example", "who signed in"} {
		if strings.Contains(told, no) {
			t.Errorf("a leaf holds %q", no)
		}
	}
}

// rosterNow is that of the server.
func (n *nights) rosterNow() *officer.Roster {
	n.t.Helper()
	r, err := n.s.cfg.roster()
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

// lieWarrant is a warrant that both offices signed, and that a server states although names
// are not reviewed.
func (n *nights) lieWarrant() *dutyWarrant {
	n.t.Helper()
	inner, outer := n.rosterNow().Duty()
	night, err := duty.ParseNight(n.night())
	if err != nil {
		n.t.Fatal(err)
	}
	w := duty.Warrant{Inner: inner, Outer: outer, From: n.now().Add(-time.Minute).Truncate(time.Second), Until: n.now().AddDate(0, 0, 10).Truncate(time.Second), Night: night, Names: 3}
	st, statement, err := approval.New(approval.Ask{Action: duty.ToWarrant, Case: "duty", Purpose: "renewed", Requester: "Olaf Tal", Objects: w.Objects(), Org: n.s.pipe.Org(), Grant: duty.Fresh}, n.now())
	if err != nil {
		n.t.Fatal(err)
	}
	got, err := n.s.pipe.Recorder().Critical(n.t.Context(), attest.Act{Kind: "duty.warranted", Actor: attest.System, Subject: []string{st.ID},
		Detail: dutyWarranted{From: w.From.Format(stampForm), Names: 3, Night: night.String(), Request: st.ID, Statement: approval.HexDigest(statement), Until: w.Until.Format(stampForm)}})
	if err != nil {
		n.t.Fatal(err)
	}
	seen, err := n.s.receiptOf(n.t.Context(), got.Index)
	if err != nil {
		n.t.Fatal(err)
	}
	return &dutyWarrant{Decisions: n.both(string(statement)), Receipt: *seen, Reviews: []receipt{}, Statement: string(statement), V: 1}
}

// FuzzDuty: what a duty host reads has one form, and nothing unproved is taken for proved.
func FuzzDuty(f *testing.F) {
	var keys [6]keyring.PublicKey
	for i := range keys {
		k, err := keyring.NewPrivateKey()
		if err != nil {
			f.Fatal(err)
		}
		keys[i] = k.Public()
	}
	e := &keyring.Escrow{Epoch: 1, Main: keyring.Pair{Investigation: keys[0], Oversight: keys[1]}, Spare: keyring.Pair{Investigation: keys[2], Oversight: keys[3]}, Duty: keyring.Pair{Investigation: keys[4], Oversight: keys[5]}}
	org := [16]byte{6: 0x40, 8: 0x80}
	row, err := vault.Seal(e, org, event.NewToken(event.Person, 1, [16]byte{1}), vault.Identity{Kind: event.Person, Canonical: []byte("x")})
	if err != nil {
		f.Fatal(err)
	}
	now := time.Now()
	stated := func(action string, objects []string) string {
		_, b, err := approval.New(approval.Ask{Action: action, Case: "C", Purpose: "p", Requester: "r", Objects: objects, Org: org, Life: duty.Fresh, Grant: duty.Fresh}, now)
		if err != nil {
			f.Fatal(err)
		}
		return string(b)
	}
	r := dutyRequest{unmaskRequest: unmaskRequest{Path: []string{}, Row: base64.RawURLEncoding.EncodeToString(row.Bytes), V: 1, Window: receipt{V: 1}}, Reviews: []receipt{}}
	r.Statement = stated(duty.ToOpen, []string{"alias a", "seal b", "window c 0", "account d", "grant e", "warrant f"})
	w := dutyWarrant{Decisions: []approval.Signed{}, Receipt: receipt{V: 1}, Reviews: []receipt{}, V: 1}
	w.Statement = stated(duty.ToWarrant, (&duty.Warrant{Inner: strings.Repeat("a", 64), Outer: strings.Repeat("b", 64), From: now, Until: now.Add(time.Hour), Night: duty.Night{Begin: 1200, End: 360}, Names: 3}).Objects())
	for _, v := range []any{&r, &w} {
		b, err := approval.Canonical(v)
		if err != nil {
			f.Fatal(err)
		}
		_, rerr := parseDuty(b)
		if _, _, werr := parseDutyWarrant(b); rerr != nil && werr != nil {
			f.Fatal(rerr, werr)
		}
		f.Add(b)
	}
	f.Add([]byte("apiVersion: duty/v1\norg: 01890a5d-ac96-474b-bcce-b302099a8057\nlog: ['a']\nwitnesses: [{vkey: 'b', run_by: c}]\nthreshold: 1\nresponders: [d]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseDutySettings(b); err == nil && s.verifiers().Threshold < 1 {
			t.Error("no witness is needed")
		}
		if w, st, err := parseDutyWarrant(b); err == nil {
			if _, err := w.verify(st, &officer.Roster{}, ledger.Verifiers{Log: []string{"x"}}, st.Org); err == nil {
				t.Error("a warrant is proved by nobody")
			}
		}
		if r, err := parseDuty(b); err == nil {
			if err := r.verify(r.objects.account, &warranted{Warrant: &duty.Warrant{ID: r.objects.warrant}}, ledger.Verifiers{Log: []string{"x"}}, now); err == nil {
				t.Error("a request is proved by nobody")
			}
		}
	})
}
