// Package passkey verifies, without a server, that the holder of a passkey signed one
// exact statement. It owns the form of such a signature and of the record of a passkey
// that it needs (docs/formats/login.md, "A signed statement").
//
// It promises: a signature counts for the exact bytes of one statement, for one account
// and at one origin, with its holder present and verified by the authenticator; whatever
// is malformed, longer than its bound or written in another way than the canonical one is
// refused; no error quotes a value.
//
// It leaves to others whether the passkey was enrolled for that account, and when (a
// statement of the ledger with the digest of the record, login.passkey_added), whether the
// signature was stated (approval.requested, with the digest of the signature), and what
// the statement asks for. It is pure: no file, no clock, no network.
package passkey

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/go-webauthn/webauthn/protocol/webauthncose"

	"github.com/counterseal/counterseal/internal/approval"
)

// Bounds, in bytes after base64url.
const (
	maxKey       = 2048 // of a COSE key: an RSA key of 8192 bits and its labels
	maxID        = 1023 // of a credential id, as WebAuthn says
	maxAuth      = 1024 // of authenticator data
	maxClient    = 4096 // of client data
	maxSignature = 2048
	maxSigned    = 16 << 10 // the whole, as JSON
	maxText      = 253      // of a host
)

// The flags of authenticator data (WebAuthn, section 6.1).
const (
	flagPresent  = 1 << 0
	flagVerified = 1 << 2
	flagEligible = 1 << 3
	flagBackedUp = 1 << 4
	flagAttested = 1 << 6
	flagExtended = 1 << 7
)

// Record is what is kept of a passkey from its enrolment on, and does not change.
type Record struct {
	AAGUID         string `json:"aaguid"`          // model of the authenticator, hex, 16 bytes; zeros where it does not say
	Account        string `json:"account"`         // user handle: the account that it is of
	BackupEligible bool   `json:"backup_eligible"` // copies of it may lie on other devices
	ID             string `json:"id"`              // of the credential, unpadded base64url
	Origin         string `json:"origin"`          // https://host[:port] of the server
	PublicKey      string `json:"public_key"`      // COSE_Key, unpadded base64url
	RPID           string `json:"rp_id"`           // host that it is bound to
	V              int    `json:"v"`
}

// Signed is a statement's signature: what the authenticator answered, and the record of the
// passkey. All bytes are unpadded base64url.
type Signed struct {
	AuthenticatorData string `json:"authenticator_data"`
	ClientData        string `json:"client_data"`
	Record            Record `json:"record"`
	Signature         string `json:"signature"`
	V                 int    `json:"v"`
}

// Challenge is what the authenticator signs for a statement. The statement has a random
// nonce of 32 bytes: a challenge of content alone could be signed in advance.
func Challenge(statement []byte) [32]byte {
	h := sha256.New()
	h.Write([]byte("counterseal/approval/v1\x00"))
	h.Write(statement)
	return [32]byte(h.Sum(nil))
}

// Digest names a record: what login.passkey_added has of it, in hex.
func (r *Record) Digest() (string, error) { return digest(r) }

// Digest names a signature: what approval.requested has of it, in hex.
func (s *Signed) Digest() (string, error) { return digest(s) }

func digest(v any) (string, error) {
	b, err := approval.Canonical(v)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// Parse reads a signature in canonical form. It checks the form and verifies nothing.
func Parse(b []byte) (*Signed, error) {
	var s Signed
	if err := approval.DecodeUpTo(maxSigned, b, &s); err != nil {
		return nil, fmt.Errorf("signature by passkey: %w", err)
	}
	if err := s.Check(); err != nil {
		return nil, err
	}
	return &s, nil
}

// Check refuses what no signature can be. It verifies nothing.
func (s *Signed) Check() error {
	bad := func(field string) error {
		return fmt.Errorf("signature by passkey: %s is not what it should be", field)
	}
	r := &s.Record
	if s.V != 1 || r.V != 1 {
		return errors.New("signature by passkey: unknown version")
	}
	for _, f := range []struct {
		name, text string
		least      int
		most       int
	}{
		{"authenticator_data", s.AuthenticatorData, 37, maxAuth}, {"client_data", s.ClientData, 2, maxClient}, {"signature", s.Signature, 8, maxSignature},
		{"record.id", r.ID, 1, maxID}, {"record.public_key", r.PublicKey, 8, maxKey},
	} {
		if base64.RawURLEncoding.DecodedLen(len(f.text)) > f.most {
			return bad(f.name)
		}
		if b, err := base64.RawURLEncoding.Strict().DecodeString(f.text); err != nil || len(b) < f.least || base64.RawURLEncoding.EncodeToString(b) != f.text {
			return bad(f.name)
		}
	}
	if b, err := hex.DecodeString(r.AAGUID); err != nil || len(b) != 16 || hex.EncodeToString(b) != r.AAGUID {
		return bad("record.aaguid")
	}
	if r.Account == "" || len(r.Account) > 64 || strings.Trim(r.Account, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
		return bad("record.account")
	}
	u, err := url.Parse(r.Origin)
	if err != nil || len(r.Origin) > 2*maxText || u.Scheme != "https" || u.Host == "" || r.Origin != "https://"+u.Host {
		return bad("record.origin")
	}
	if r.RPID == "" || len(r.RPID) > maxText || r.RPID != u.Hostname() && !strings.HasSuffix(u.Hostname(), "."+r.RPID) {
		return bad("record.rp_id")
	}
	return nil
}

// Verify says whether the holder of the passkey signed the statement at an origin, which
// the caller knows from elsewhere than the signature. The error names what does not hold.
func (s *Signed) Verify(statement []byte, origin string) error {
	if err := s.Check(); err != nil {
		return err
	}
	no := func(why string) error { return errors.New("the signature by passkey does not hold: " + why) }
	if s.Record.Origin != origin {
		return no("it is of another origin")
	}
	auth, aerr := base64.RawURLEncoding.DecodeString(s.AuthenticatorData)
	client, cerr := base64.RawURLEncoding.DecodeString(s.ClientData)
	sig, serr := base64.RawURLEncoding.DecodeString(s.Signature)
	key, kerr := base64.RawURLEncoding.DecodeString(s.Record.PublicKey)
	if err := errors.Join(aerr, cerr, serr, kerr); err != nil { // Check has seen them
		return err
	}
	if err := checkClient(client, statement, origin); err != nil {
		return err
	}
	if host := sha256.Sum256([]byte(s.Record.RPID)); subtle.ConstantTimeCompare(auth[:32], host[:]) != 1 {
		return no("the authenticator was asked by another server")
	}
	flags := auth[32]
	switch {
	case flags&flagPresent == 0:
		return no("nobody was present")
	case flags&flagVerified == 0:
		return no("the authenticator did not verify who held it")
	case flags&flagAttested != 0:
		return no("it is an enrolment and no signature")
	case (flags&flagEligible != 0) != s.Record.BackupEligible || flags&flagBackedUp != 0 && flags&flagEligible == 0:
		return no("the passkey is of another kind than its record")
	case flags&flagExtended == 0 && len(auth) != 37:
		return no("authenticator data goes on after its end")
	}
	public, err := webauthncose.ParsePublicKey(key)
	if err != nil || !approved(public) {
		return no("the public key is none, or of a kind that is not taken")
	}
	sum := sha256.Sum256(client)
	if ok, err := webauthncose.VerifySignature(public, append(bytes.Clone(auth), sum[:]...), sig); err != nil || !ok {
		return no("it is not of this key over this statement")
	}
	return nil
}

// approved takes the algorithms of the FIPS 140-3 module with SHA-2.
func approved(key any) bool {
	var alg int64
	switch k := key.(type) {
	case webauthncose.EC2PublicKeyData:
		alg = k.Algorithm
	case webauthncose.OKPPublicKeyData:
		alg = k.Algorithm
	case webauthncose.RSAPublicKeyData:
		alg = k.Algorithm
	}
	return slices.Contains([]webauthncose.COSEAlgorithmIdentifier{
		webauthncose.AlgES256, webauthncose.AlgES384, webauthncose.AlgES512, webauthncose.AlgEdDSA,
		webauthncose.AlgRS256, webauthncose.AlgRS384, webauthncose.AlgRS512, webauthncose.AlgPS256, webauthncose.AlgPS384, webauthncose.AlgPS512,
	}, webauthncose.COSEAlgorithmIdentifier(alg))
}

// checkClient judges the client data: what the browser says that it asked for.
func checkClient(client, statement []byte, origin string) error {
	no := func(why string) error { return errors.New("the signature by passkey does not hold: " + why) }
	var c struct {
		Type        string  `json:"type"`
		Challenge   string  `json:"challenge"`
		Origin      string  `json:"origin"`
		CrossOrigin bool    `json:"crossOrigin"`
		TopOrigin   *string `json:"topOrigin"`
	}
	if json.Unmarshal(client, &c) != nil {
		return no("the client data is not readable")
	}
	want := Challenge(statement)
	got, err := base64.RawURLEncoding.Strict().DecodeString(c.Challenge)
	switch {
	case c.Type != "webauthn.get":
		return no("the client data is of another act")
	case err != nil || subtle.ConstantTimeCompare(got, want[:]) != 1:
		return no("it is over another statement")
	case c.Origin != origin || c.CrossOrigin || c.TopOrigin != nil:
		return no("the browser was at another origin")
	}
	return nil
}
