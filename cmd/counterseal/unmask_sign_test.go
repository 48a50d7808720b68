package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/descope/virtualwebauthn"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/passkey"
)

// hand signs a statement as the authenticator of a person does, past the server. spoil
// changes what it answers with.
func (n *names) hand(p *person, statement []byte, spoil func(p *person)) passkey.Signed {
	n.t.Helper()
	q := *p
	if spoil != nil {
		spoil(&q)
	}
	creds, err := n.s.signin.db.Credentials(n.t.Context(), p.id)
	if err != nil || len(creds) == 0 {
		n.t.Fatal("no passkey", err)
	}
	challenge := passkey.Challenge(statement)
	text := virtualwebauthn.CreateAssertionResponse(q.rp, q.auth, q.cred, virtualwebauthn.AssertionOptions{Challenge: challenge[:], RelyingPartyID: q.rp.ID})
	var a struct {
		Response struct{ AuthenticatorData, ClientDataJSON, Signature string }
	}
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		n.t.Fatal(err)
	}
	return passkey.Signed{AuthenticatorData: a.Response.AuthenticatorData, ClientData: a.Response.ClientDataJSON, Signature: a.Response.Signature, Record: n.s.signin.login.Record(p.id, &creds[0]), V: 1}
}

// hostile states a request as a server would that lets anything pass: with this signature.
func (n *names) hostile(statement []byte, by passkey.Signed) *receipt {
	n.t.Helper()
	st, err := approval.Parse(statement)
	if err != nil {
		n.t.Fatal(err)
	}
	sum, err := by.Digest()
	if err != nil {
		n.t.Fatal(err)
	}
	got, err := n.s.pipe.Recorder().Critical(n.t.Context(), attest.Act{Kind: "approval.requested", Actor: "account:" + by.Record.Account, Subject: []string{st.ID + "/hostile"},
		Detail: map[string]any{"request": st.ID, "act": st.Action, "expires": st.Expires, "statement": fmt.Sprintf("%x", approval.Digest(statement)), "signed": sum}})
	if err != nil {
		n.t.Fatal(err)
	}
	seen, err := n.s.receiptOf(n.t.Context(), got.Index)
	if err != nil {
		n.t.Fatal(err)
	}
	return seen
}

// enrols states a passkey, as a server would.
func (n *names) enrols(r passkey.Record) *receipt {
	n.t.Helper()
	digest, err := r.Digest()
	if err != nil {
		n.t.Fatal(err)
	}
	got, err := n.s.pipe.Recorder().Critical(n.t.Context(), attest.Act{Kind: "login.passkey_added", Actor: "account:" + r.Account, Subject: []string{r.Account},
		Detail: map[string]any{"account": r.Account, "passkey": "0011223344556677", "record": digest}})
	if err != nil {
		n.t.Fatal(err)
	}
	seen, err := n.s.receiptOf(n.t.Context(), got.Index)
	if err != nil {
		n.t.Fatal(err)
	}
	return seen
}

// spoiledSignature is a request whose signature is not what it should be, and what an
// officer's machine says of it.
type spoiledSignature struct {
	do   func(*unmaskOpening)
	says string
}

// spoiledSignatures are all that we know; other is another request that was signed.
func (n *names) spoiledSignatures(r, other *unmaskRequest) map[string]spoiledSignature {
	n.t.Helper()
	statement := []byte(r.Statement)
	by := func(says string, change func(*signedBy)) spoiledSignature {
		return spoiledSignature{func(u *unmaskOpening) {
			c, b := *u.request, *u.request.By
			change(&b)
			c.By = &b
			u.request = &c
		}, says}
	}
	signed := func(says string, s passkey.Signed) spoiledSignature { // and the ledger has just that
		requested := n.hostile(statement, s)
		return by(says, func(b *signedBy) { b.Signed, b.Requested = s, *requested })
	}
	stranger := n.newPerson("investigator")
	foreign := n.hand(stranger, statement, nil)
	strangers := n.enrols(foreign.Record)
	borrowed := n.hand(stranger, statement, nil) // the key of one, the record of the other
	borrowed.Record = r.By.Signed.Record
	zeros := r.By.Signed
	zeros.Signature = base64.RawURLEncoding.EncodeToString(make([]byte, 70))
	synced := r.By.Signed
	synced.Record.BackupEligible = true

	// A passkey that comes after the request.
	n.bureau.later(3 * time.Second)
	late := n.hand(n.person, statement, nil)
	late.Record.AAGUID = strings.Repeat("1", 32)
	lately := n.enrols(late.Record)
	after := n.hostile(statement, late)
	early := n.hand(n.person, statement, nil) // not the one that was stated
	n.bureau.later(-3 * time.Second)

	return map[string]spoiledSignature{
		"nobody signed":         by("not signed by passkey", func(b *signedBy) { *b = signedBy{} }),
		"no enrolment":          by("not signed by passkey", func(b *signedBy) { b.Enrolled = receipt{} }),
		"no request":            by("not signed by passkey", func(b *signedBy) { b.Requested = receipt{} }),
		"signed for another":    by("over another statement", func(b *signedBy) { b.Signed = other.By.Signed }),
		"all of another":        by("over another statement", func(b *signedBy) { *b = *other.By }),
		"a forged signature":    by("not of this key", func(b *signedBy) { b.Signed = zeros }),
		"the key of a stranger": by("not of this key", func(b *signedBy) { b.Signed = borrowed }),
		"a stranger signed": by("another account", func(b *signedBy) {
			b.Signed, b.Enrolled, b.Requested = foreign, *strangers, *n.hostile(statement, foreign)
		}),
		"a stranger's enrolment": by("another passkey or account", func(b *signedBy) {
			b.Enrolled = *strangers
		}),
		"another kind of passkey": by("another kind", func(b *signedBy) { b.Signed = synced }),
		"nobody was verified":     signed("did not verify", n.hand(n.person, statement, func(p *person) { p.auth.Options.UserNotVerified = true })),
		"nobody was present":      signed("nobody was present", n.hand(n.person, statement, func(p *person) { p.auth.Options.UserNotPresent = true })),
		"another relying party":   signed("another server", n.hand(n.person, statement, func(p *person) { p.rp.ID = "evil.example" })),
		"another origin":          signed("another origin", n.hand(n.person, statement, func(p *person) { p.rp.Origin = "https://evil.example" })),
		"another server's origin": {func(u *unmaskOpening) { u.origin = "https://evil.example" }, "another origin"},
		"no origin":               {func(u *unmaskOpening) { u.origin = "" }, "another origin"},
		"another signature than stated": by("another signature", func(b *signedBy) {
			b.Signed = early
		}),
		"the request of another": by("another act", func(b *signedBy) { b.Requested = other.By.Requested }),
		"an enrolment for a request": by("another act", func(b *signedBy) {
			b.Requested = b.Enrolled
		}),
		"a request for an enrolment": by("another act", func(b *signedBy) { b.Enrolled = b.Requested }),
		"no witness saw the enrolment": by("not witnessed", func(b *signedBy) {
			b.Enrolled.Proof = unwitnessed(b.Enrolled.Proof, n.log)
		}),
		"no witness saw the request": by("not witnessed", func(b *signedBy) { b.Requested.Proof = unwitnessed(b.Requested.Proof, n.log) }),
		"a forged enrolment": by("the leaf does not stand", func(b *signedBy) {
			b.Enrolled.Leaf = strings.Replace(b.Enrolled.Leaf, `"record":"`, `"record":"0`, 1)
		}),
		"enrolled after the request": by("enrolled after", func(b *signedBy) { b.Signed, b.Enrolled, b.Requested = late, *lately, *after }),
		"enrolled anew later":        by("enrolled after", func(b *signedBy) { b.Enrolled = *n.enrols(b.Signed.Record) }),
	}
}

// decidesByAccount has a roster in which an officer has the account that asks.
func (n *names) decidesByAccount(u *unmaskOpening) {
	mine := *n.roster
	mine.Officers = slices.Clone(mine.Officers)
	for i := range mine.Officers {
		if mine.Officers[i].ID() == n.keys["ovs"].Card().ID() {
			mine.Officers[i].Account = n.person.id
		}
	}
	u.roster = &mine
}

// spoiledApprovals: what the server does not take for a request that was signed by passkey.
func (n *names) spoiledApprovals() {
	n.t.Helper()
	ctx, t := n.t.Context(), n.t
	db := n.s.signin.db
	creds, err := db.Credentials(ctx, n.person.id)
	if err != nil || len(creds) != 1 {
		t.Fatal(len(creds), err)
	}
	r := n.asked(n.who[0], "Ines Vogel")
	refused := func(statement, says string) {
		t.Helper()
		n.does(privacyOfficer, "unmask.approve", unlockDecided{statement, n.both(statement)}, nil, 403, says)
	}
	if err := db.DeleteCredential(ctx, n.person.id, creds[0].ID); err != nil {
		t.Fatal(err)
	}
	refused(r.Statement, "not enrolled any more")
	n.does(0, "unmask.collect", map[string]string{"request": mustID(t, r.Statement)}, nil, 403, "not enrolled any more")
	clone := creds[0]
	clone.Authenticator.CloneWarning = true
	if err := db.PutCredential(ctx, n.person.id, clone, n.now()); err != nil {
		t.Fatal(err)
	}
	refused(r.Statement, "not enrolled any more")
	if err := db.PutCredential(ctx, n.person.id, creds[0], n.now()); err != nil {
		t.Fatal(err)
	}
	if err := db.Disable(ctx, n.person.id, true); err != nil {
		t.Fatal(err)
	}
	refused(r.Statement, "account is disabled")
	if err := db.Disable(ctx, n.person.id, false); err != nil {
		t.Fatal(err)
	}
	n.signIn()
	// The ledger has it, and nobody signed it.
	st, err := approval.Parse([]byte(r.Statement))
	if err != nil {
		t.Fatal(err)
	}
	st, bare, err := approval.New(approval.Ask{Action: actionUnmask, Case: st.Case, Purpose: st.Purpose, Requester: st.Requester, Objects: st.Objects, Org: n.s.pipe.Org(), Grant: st.Grant()}, n.now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.s.pipe.Recorder().Critical(ctx, attest.Act{Kind: "approval.requested", Actor: attest.System, Subject: []string{st.ID},
		Detail: map[string]any{"request": st.ID, "act": st.Action, "expires": st.Expires, "statement": fmt.Sprintf("%x", approval.Digest(bare))}}); err != nil {
		t.Fatal(err)
	}
	refused(string(bare), "signed by passkey")
	n.approved(r)
}

func mustID(t *testing.T, statement string) string {
	t.Helper()
	st, err := approval.Parse([]byte(statement))
	if err != nil {
		t.Fatal(err)
	}
	return st.ID
}

// TestUnmaskSignable: what an officer's machine lets its officer sign.
func TestUnmaskSignable(t *testing.T) {
	t.Parallel()
	n := openNames(t)
	n.authorised(n.who[0])
	r, other := n.asked(n.who[0], "Ines Vogel"), n.asked(n.who[0], "Ines Vogel")
	try := func(u *unmaskOpening) (*signer, error) {
		return u.request.signable(u.st, u.origin, u.trust.verifiers(), u.now)
	}
	u := n.opening(r, nil)
	who, err := try(&u)
	if err != nil || who.account != n.person.id || who.synced || len(who.passkey) != 16 || who.enrolled.After(who.stated) {
		t.Fatalf("%+v %v", who, err)
	}
	for name, spoil := range n.spoiledSignatures(r, other) {
		u := n.opening(r, nil)
		spoil.do(&u)
		if _, err := try(&u); err == nil || !strings.Contains(err.Error(), spoil.says) {
			t.Errorf("%s: %v, want %q", name, err, spoil.says)
		}
	}
	for name, c := range map[string]struct {
		do   func(*unmaskOpening)
		says string
	}{
		"witnesses of long ago":   {func(u *unmaskOpening) { u.now = who.seen.Add(freshness + time.Second) }, "longer than 5 minutes ago"},
		"witnesses of the future": {func(u *unmaskOpening) { u.now = who.seen.Add(-freshness - time.Second) }, "longer than 5 minutes ago"},
		"after its expiry":        {func(u *unmaskOpening) { u.now = u.st.ExpiresAt() }, "expired"},
		"another seal": {func(u *unmaskOpening) {
			c := *u.request
			c.row = other.row
			c.Window = c.By.Requested
			u.request = &c
		}, "window of the seal"},
	} {
		u := n.opening(r, nil)
		c.do(&u)
		if _, err := try(&u); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
	for _, d := range []time.Duration{freshness, -freshness} { // at the edge
		u := n.opening(r, nil)
		u.now = who.seen.Add(d)
		if _, err := try(&u); err != nil {
			t.Errorf("%v after witnesses: %v", d, err)
		}
	}

	// The command, with what the officer's machine knows from elsewhere.
	write := func(name string, r *unmaskRequest) string {
		b, err := approval.Canonical(r)
		if err != nil {
			t.Fatal(err)
		}
		return n.sh.write(name, string(b))
	}
	file := write("request", r)
	own := write("own", n.asked(n.who[0], "otto SAND"))
	bare, err := approval.Canonical(officerRequest{r.Statement, 1})
	if err != nil {
		t.Fatal(err)
	}
	unsigned := n.sh.write("unsigned", string(bare))
	roster := string(read(t, n.sh.at("officers.yaml")))
	mine := n.sh.write("mine.yaml", strings.Replace(roster, "authority: 'Works Council'", "authority: 'Works Council'\n    account: "+n.person.id, 1))
	trust := []string{"--log", n.log, "--witness", n.vkey}
	at := []string{"--origin", doorRP.Origin}
	for name, c := range map[string]struct {
		file string
		more []string
		code int
		says string
	}{
		"no keys":                  {file, nil, 2, "--origin"},
		"no origin":                {file, trust, 2, "--origin"},
		"no witness":               {file, append([]string{"--log", n.log}, at...), 2, "--witness"},
		"another origin":           {file, append([]string{"--origin", "https://evil.example"}, trust...), 3, "another origin"},
		"signed by nobody":         {unsigned, append(at, trust...), 3, "signed by passkey"},
		"of the officer itself":    {own, append(at, trust...), 3, "does not decide on it"},
		"by the officer's account": {file, append(append([]string{"--officers", mine}, at...), trust...), 3, "does not decide on it"},
	} {
		_, said := n.sh.run(c.code, append([]string{"officer", "sign", c.file, "--key", n.sh.at("ovs"), "--passphrase-file", n.sh.at("pass"), "--yes", "-o", n.sh.at("never")}, c.more...)...)
		if !strings.Contains(said, c.says) {
			t.Errorf("%s: want %q\n%s", name, c.says, said)
		}
		if c.code == 3 && !strings.Contains(said, "hint") && !strings.Contains(said, "counterseal unmask") && !strings.Contains(said, "decides on this") {
			t.Errorf("%s: it does not say what to do next\n%s", name, said)
		}
	}
	_, said := n.sh.run(0, append(append([]string{"officer", "sign", file, "--key", n.sh.at("ovs"), "--passphrase-file", n.sh.at("pass"), "--officers", n.sh.at("officers.yaml"), "--yes", "-o", n.sh.at("says")}, at...), trust...)...)
	for _, want := range []string{n.who[0], "who signed in from there", "signed by  passkey " + who.passkey + " of account " + n.person.id, "bound to one device"} {
		if !strings.Contains(said, want) {
			t.Errorf("the officer is not told %q\n%s", want, said)
		}
	}
}

// TestEnrolmentsAreStatedAgain: a passkey from before enrolments had the digest of their key
// is stated at the next start, and each one once.
func TestEnrolmentsAreStatedAgain(t *testing.T) {
	x, client := openDoor(t)
	first, err := act[accountSecret](t, x.accountSetUp, struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	p := newPerson(t, client(), first.Secret)
	rec := x.s.pipe.Recorder()
	count := func() int {
		t.Helper()
		if err := x.restateEnrolments(t.Context()); err != nil {
			t.Fatal(err)
		}
		f, ok, err := rec.Fact(t.Context(), "login.passkey_added", p.id)
		if err != nil || !ok {
			t.Fatal("nothing is stated", err)
		}
		return int(f.Index)
	}
	at := count()
	if count() != at {
		t.Error("an enrolment that is known is stated again")
	}
	list, err := x.login.Enrolments(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatal(len(list), err)
	}
	if _, err := rec.Record(t.Context(), attest.Act{Kind: "login.passkey_added", Actor: attest.System, Subject: []string{p.id, list[0].Passkey}, Detail: map[string]any{"account": p.id, "passkey": list[0].Passkey}}); err != nil {
		t.Fatal(err)
	}
	again := count()
	f, _, err := rec.Fact(t.Context(), "login.passkey_added", list[0].Passkey)
	if err != nil || again == at || !strings.Contains(string(f.Detail), list[0].Record) {
		t.Errorf("an old enrolment is not stated again: %s %v", f.Detail, err)
	}
	if count() != again {
		t.Error("it is stated again and again")
	}
}
