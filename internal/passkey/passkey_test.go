package passkey

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-webauthn/webauthn/protocol/webauthncbor"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"
	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
)

const origin = "https://logs.example"

var b64 = base64.RawURLEncoding.EncodeToString

// authenticator signs as one does, and lets a test change every part before it signs.
type authenticator struct {
	record Record
	sign   func(over []byte) []byte
}

func cose(t testing.TB, key any) string {
	t.Helper()
	b, err := webauthncbor.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	return b64(b)
}

func newRecord(key string) Record {
	return Record{AAGUID: strings.Repeat("0", 32), Account: "u_ABC", ID: b64([]byte("credential")), Origin: origin, PublicKey: key, RPID: "logs.example", V: 1}
}

func elliptical(t testing.TB) *authenticator {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	public := webauthncose.EC2PublicKeyData{PublicKeyData: webauthncose.PublicKeyData{KeyType: int64(webauthncose.EllipticKey), Algorithm: int64(webauthncose.AlgES256)}, Curve: int64(webauthncose.P256), XCoord: raw[1:33], YCoord: raw[33:]}
	return &authenticator{newRecord(cose(t, public)), func(over []byte) []byte {
		sum := sha256.Sum256(over)
		sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}}
}

func edwards(t testing.TB) *authenticator {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	data := webauthncose.OKPPublicKeyData{PublicKeyData: webauthncose.PublicKeyData{KeyType: int64(webauthncose.OctetKey), Algorithm: int64(webauthncose.AlgEdDSA)}, Curve: int64(webauthncose.Ed25519), XCoord: public}
	return &authenticator{newRecord(cose(t, data)), func(over []byte) []byte { return ed25519.Sign(key, over) }}
}

// asked is what an authenticator is asked to sign.
type asked struct {
	statement   []byte
	rp          string
	flags       byte
	client      map[string]any
	tail        []byte
	overTheAuth []byte // signed in place of the authenticator data
}

func (a *authenticator) signed(t testing.TB, statement []byte, change func(*asked)) *Signed {
	t.Helper()
	c := Challenge(statement)
	q := asked{statement: statement, rp: a.record.RPID, flags: flagPresent | flagVerified,
		client: map[string]any{"type": "webauthn.get", "challenge": b64(c[:]), "origin": origin, "crossOrigin": false}}
	if change != nil {
		change(&q)
	}
	host := sha256.Sum256([]byte(q.rp))
	auth := append(append(append(host[:], q.flags), 0, 0, 0, 7), q.tail...)
	client, err := json.Marshal(q.client)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(client)
	over := auth
	if q.overTheAuth != nil {
		over = q.overTheAuth
	}
	return &Signed{AuthenticatorData: b64(auth), ClientData: b64(client), Record: a.record, Signature: b64(a.sign(append(bytes.Clone(over), sum[:]...))), V: 1}
}

func newStatement(t testing.TB) []byte {
	t.Helper()
	_, b, err := approval.New(approval.Ask{Action: "unmask", Case: "C-1", Purpose: "why", Requester: "Ines Vogel", Objects: []string{"account u_ABC"}, Org: uuid.New(), Grant: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestVerify: one signature of each kind of key holds, and what differs from it in one
// part does not.
func TestVerify(t *testing.T) {
	statement, other := newStatement(t), newStatement(t)
	for kind, a := range map[string]*authenticator{"P-256": elliptical(t), "Ed25519": edwards(t)} {
		good := a.signed(t, statement, nil)
		if err := good.Verify(statement, origin); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		b, err := approval.Canonical(good)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(b)
		if err != nil || *again != *good {
			t.Fatalf("%s: %v", kind, err)
		}
		extended := a.signed(t, statement, func(q *asked) { q.flags |= flagExtended; q.tail = []byte{0xa0} })
		if err := extended.Verify(statement, origin); err != nil {
			t.Errorf("%s: with extensions: %v", kind, err)
		}
		for name, c := range map[string]struct {
			change func(*asked)
			says   string
		}{
			"nobody present":        {func(q *asked) { q.flags &^= flagPresent }, "nobody was present"},
			"not verified":          {func(q *asked) { q.flags &^= flagVerified }, "did not verify"},
			"an enrolment":          {func(q *asked) { q.flags |= flagAttested }, "enrolment"},
			"eligible for backup":   {func(q *asked) { q.flags |= flagEligible }, "another kind"},
			"backed up all alone":   {func(q *asked) { q.flags |= flagBackedUp }, "another kind"},
			"longer":                {func(q *asked) { q.tail = []byte{0} }, "after its end"},
			"another server":        {func(q *asked) { q.rp = "evil.example" }, "another server"},
			"another origin":        {func(q *asked) { q.client["origin"] = "https://evil.example" }, "another origin"},
			"in a frame":            {func(q *asked) { q.client["crossOrigin"] = true }, "another origin"},
			"under another page":    {func(q *asked) { q.client["topOrigin"] = "https://evil.example" }, "another origin"},
			"an act of enrolment":   {func(q *asked) { q.client["type"] = "webauthn.create" }, "another act"},
			"another challenge":     {func(q *asked) { q.client["challenge"] = b64(make([]byte, 32)) }, "another statement"},
			"no challenge":          {func(q *asked) { delete(q.client, "challenge") }, "another statement"},
			"the bare digest":       {func(q *asked) { d := sha256.Sum256(statement); q.client["challenge"] = b64(d[:]) }, "another statement"},
			"client data not right": {func(q *asked) { q.client["type"] = 7 }, "not readable"},
			"signed over otherwise": {func(q *asked) { q.overTheAuth = make([]byte, 37) }, "not of this key"},
		} {
			if err := a.signed(t, statement, c.change).Verify(statement, origin); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %s: %v", kind, name, err)
			}
		}
		for name, c := range map[string]struct {
			change func(*Signed)
			says   string
		}{
			"another key":       {func(s *Signed) { s.Record.PublicKey = elliptical(t).record.PublicKey }, "not of this key"},
			"no key":            {func(s *Signed) { s.Record.PublicKey = b64(make([]byte, 64)) }, "public key is none"},
			"a key with a tail": {func(s *Signed) { s.Record.PublicKey += "AAAA" }, "public key is none"},
			"no signature":      {func(s *Signed) { s.Signature = "" }, "signature is not"},
			"zeros":             {func(s *Signed) { s.Signature = b64(make([]byte, 64)) }, "not of this key"},
			"a synced passkey":  {func(s *Signed) { s.Record.BackupEligible = true }, "another kind"},
			"another host":      {func(s *Signed) { s.Record.RPID = "example" }, "another server"},
			"a foreign host":    {func(s *Signed) { s.Record.RPID = "evil.example" }, "record.rp_id"},
			"plain http":        {func(s *Signed) { s.Record.Origin = "http://logs.example" }, "record.origin"},
			"origin with path":  {func(s *Signed) { s.Record.Origin += "/x" }, "record.origin"},
			"short data":        {func(s *Signed) { s.AuthenticatorData = b64(make([]byte, 36)) }, "authenticator_data"},
			"long data":         {func(s *Signed) { s.AuthenticatorData = b64(make([]byte, maxAuth+1)) }, "authenticator_data"},
			"long client data":  {func(s *Signed) { s.ClientData = b64(make([]byte, maxClient+1)) }, "client_data"},
			"padded":            {func(s *Signed) { s.ClientData += "=" }, "client_data"},
			"no account":        {func(s *Signed) { s.Record.Account = "" }, "record.account"},
			"account in words":  {func(s *Signed) { s.Record.Account = "u 1" }, "record.account"},
			"another version":   {func(s *Signed) { s.V = 2 }, "version"},
			"another record":    {func(s *Signed) { s.Record.V = 2 }, "version"},
			"no AAGUID":         {func(s *Signed) { s.Record.AAGUID = "00" }, "aaguid"},
		} {
			s := *good
			c.change(&s)
			if err := s.Verify(statement, origin); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %s: %v", kind, name, err)
			}
		}
		if err := good.Verify(other, origin); err == nil {
			t.Errorf("%s: it holds for another statement", kind)
		}
		if err := good.Verify(append(bytes.Clone(statement), ' '), origin); err == nil {
			t.Errorf("%s: it holds for a statement with a space more", kind)
		}
		if err := good.Verify(statement, "https://other.example"); err == nil {
			t.Errorf("%s: it holds at another origin", kind)
		}
	}
}

// TestDigest: every member of a record and of a signature is in its digest.
func TestDigest(t *testing.T) {
	s := *elliptical(t).signed(t, newStatement(t), nil)
	record, err := s.Record.Digest()
	if err != nil || len(record) != 64 {
		t.Fatal(record, err)
	}
	whole, err := s.Digest()
	if err != nil || whole == record {
		t.Fatal(err)
	}
	seen := map[string]bool{record: true}
	for _, change := range []func(*Record){
		func(r *Record) { r.AAGUID = "1" }, func(r *Record) { r.Account += "x" }, func(r *Record) { r.BackupEligible = true }, func(r *Record) { r.ID += "x" },
		func(r *Record) { r.Origin += "x" }, func(r *Record) { r.PublicKey += "x" }, func(r *Record) { r.RPID += "x" }, func(r *Record) { r.V++ },
	} {
		r := s.Record
		change(&r)
		d, err := r.Digest()
		if err != nil || seen[d] {
			t.Errorf("two records have one digest: %v", err)
		}
		seen[d] = true
		c := s
		c.Record = r
		if d, err := c.Digest(); err != nil || d == whole {
			t.Errorf("a signature does not depend on its record: %v", err)
		}
	}
}

func FuzzSigned(f *testing.F) {
	statement := newStatement(f)
	a := elliptical(f)
	good := a.signed(f, statement, nil)
	for _, s := range []*Signed{good, edwards(f).signed(f, statement, nil), a.signed(f, statement, func(q *asked) { q.flags = 0 })} {
		b, err := approval.Canonical(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Parse(b)
		if err != nil {
			return
		}
		if again, err := approval.Canonical(s); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("accepted what is written otherwise: %q", b)
		}
		if s.Verify(append(bytes.Clone(statement), ' '), origin) == nil {
			t.Fatal("it holds for a statement that nobody signed")
		}
	})
}

// FuzzVerify changes the parts of a signature that holds: what still holds must say the
// same.
func FuzzVerify(f *testing.F) {
	statement := newStatement(f)
	a := edwards(f) // its signatures have one form
	good := a.signed(f, statement, nil)
	auth, _ := base64.RawURLEncoding.DecodeString(good.AuthenticatorData)
	client, _ := base64.RawURLEncoding.DecodeString(good.ClientData)
	key, _ := base64.RawURLEncoding.DecodeString(good.Record.PublicKey)
	sig, _ := base64.RawURLEncoding.DecodeString(good.Signature)
	f.Add(auth, client, key, sig)
	f.Add([]byte{}, []byte("{}"), []byte{0xa0}, []byte{0})
	f.Fuzz(func(t *testing.T, fauth, fclient, fkey, fsig []byte) {
		s := *good
		s.AuthenticatorData, s.ClientData, s.Signature, s.Record.PublicKey = b64(fauth), b64(fclient), b64(fsig), b64(fkey)
		if s.Verify(statement, origin) == nil && bytes.Equal(fkey, key) && (!bytes.Equal(fauth, auth) || !bytes.Equal(fclient, client)) {
			t.Fatal("changed bytes hold")
		}
	})
}
