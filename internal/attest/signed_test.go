package attest

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/descope/virtualwebauthn"
	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/packs"
	"github.com/counterseal/counterseal/internal/passkey"
)

// TestSignaturesAreVerified: verify holds each request that was signed by passkey against
// its payloads and the enrolment, and names a name whose request nobody signed.
func TestSignaturesAreVerified(t *testing.T) {
	const account = "u_A"
	rp := virtualwebauthn.RelyingParty{ID: "logs.example", Origin: "https://logs.example"}
	key := packs.NewPasskey()
	record := passkey.Record{AAGUID: strings.Repeat("0", 32), Account: account, ID: base64.RawURLEncoding.EncodeToString(key.ID), Origin: rp.Origin,
		PublicKey: base64.RawURLEncoding.EncodeToString(key.Key.AttestationData()), RPID: rp.ID, V: 1}
	known, err := record.Digest()
	if err != nil {
		t.Fatal(err)
	}
	newStatement := func() (*approval.Statement, []byte) {
		st, b, err := approval.New(approval.Ask{Action: "unmask", Case: "C-1", Purpose: "why", Requester: "Ines Vogel", Objects: []string{"account " + account}, Org: uuid.New(), Grant: time.Hour}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return st, b
	}
	sign := func(over []byte) passkey.Signed {
		challenge := passkey.Challenge(over)
		var a struct {
			Response struct{ AuthenticatorData, ClientDataJSON, Signature string }
		}
		text := virtualwebauthn.CreateAssertionResponse(rp, virtualwebauthn.NewAuthenticator(), key, virtualwebauthn.AssertionOptions{Challenge: challenge[:], RelyingPartyID: rp.ID})
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			t.Fatal(err)
		}
		return passkey.Signed{AuthenticatorData: a.Response.AuthenticatorData, ClientData: a.Response.ClientDataJSON, Signature: a.Response.Signature, Record: record, V: 1}
	}
	// stated is a house with one request; spoil changes what is stated of it.
	type request struct {
		enrolled          string // of the record
		actor             string
		statement, signed []byte // payloads
		digest            string // of the signature
		of                []byte // whose digest is stated
		late              bool   // the passkey is stated afterwards
	}
	problems := func(spoil func(*request)) (out []string) {
		t.Helper()
		h := newHouse(t)
		ctx := t.Context()
		st, b := newStatement()
		by := sign(b)
		raw, err := approval.Canonical(by)
		if err != nil {
			t.Fatal(err)
		}
		sum, err := by.Digest()
		if err != nil {
			t.Fatal(err)
		}
		q := request{enrolled: known, actor: "account:" + account, statement: b, signed: raw, digest: sum, of: b}
		if spoil != nil {
			spoil(&q)
		}
		enrol := func() {
			if _, err := h.rec.Record(ctx, Act{Kind: "login.passkey_added", Actor: "account:" + account, Subject: []string{account, "0011"}, Detail: map[string]any{"account": account, "passkey": "0011", "record": q.enrolled}}); err != nil {
				t.Fatal(err)
			}
		}
		put := func(b []byte) ledger.Digest {
			d, err := h.rec.PutPayload(b)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		if !q.late {
			enrol()
		}
		digest := approval.Digest(q.of)
		if _, err := h.rec.Record(ctx, Act{Kind: "approval.requested", Actor: q.actor, Subject: []string{st.ID},
			Detail: map[string]any{"request": st.ID, "act": st.Action, "expires": st.Expires, "statement": hex.EncodeToString(digest[:]), "payload": put(q.statement), "signed": q.digest, "signature": put(q.signed)}}); err != nil {
			t.Fatal(err)
		}
		if q.late {
			enrol()
		}
		// A second name: its request has no signature.
		for i, id := range []string{"bare", "inside"} {
			if _, err := h.rec.Record(ctx, Act{Kind: "approval.requested", Actor: System, Subject: []string{id}, Detail: map[string]any{"act": "unmask", "expires": st.Expires}}); err != nil {
				t.Fatal(err)
			}
			detail := map[string]any{"request": id, "statement": strings.Repeat("0", 64), "case": ""}
			if i == 1 {
				detail["inspector"] = true
			}
			if _, err := h.rec.Record(ctx, Act{Kind: "unmask.approved", Actor: System, Subject: []string{id}, Detail: detail}); err != nil {
				t.Fatal(err)
			}
		}
		vkey, err := ledger.VKey(origin, h.key.Public().(ed25519.PublicKey))
		if err != nil {
			t.Fatal(err)
		}
		r, err := Verify(ctx, h.dir, VerifyOptions{Log: []string{vkey}})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range r.Problems {
			out = append(out, p.What)
		}
		h.close()
		return out
	}
	const nobody = "a name was approved whose request nobody signed"
	for name, c := range map[string]struct {
		spoil func(*request)
		says  string
	}{
		"as it is":                   {nil, nobody},
		"another statement":          {func(q *request) { _, q.statement = newStatement() }, nobody + "; the payload of the request is another statement"},
		"signed for another":         {func(q *request) { _, b := newStatement(); q.statement, q.of = b, b }, nobody + "; it does not hold over the statement"},
		"another signature":          {func(q *request) { q.digest = strings.Repeat("0", 64) }, nobody + "; its payload is another signature than the one that was stated"},
		"no signature":               {func(q *request) { q.signed = []byte("{}") }, nobody + "; its payload is no signature"},
		"another account asked":      {func(q *request) { q.actor = "account:u_B" }, nobody + "; it is of another account than the one that asked"},
		"another passkey is known":   {func(q *request) { q.enrolled = strings.Repeat("0", 64) }, nobody + "; no statement before it knows the passkey"},
		"the passkey is known later": {func(q *request) { q.late = true }, nobody + "; no statement before it knows the passkey"},
	} {
		got := problems(c.spoil)
		if len(got) == 2 && got[1] == nobody {
			got[0], got[1] = got[1], got[0]
		}
		if strings.Join(got, "; ") != c.says {
			t.Errorf("%s: %q, want %q", name, got, c.says)
		}
	}
}
