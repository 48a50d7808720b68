package cases

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/policy"
)

// What an inspector's office asks for is kept under a code that is made with the request,
// shown to that office, and written nowhere: docs/decisions/0023. The Book has what it says
// in memory. After a restart it covers nothing until somebody of the office tells the code.

// sealedForm is an authorisation of an inspector's office as it lies beside the ledger.
type sealedForm struct {
	Authority string `json:"authority"` // that appointed the office
	Box       string `json:"box"`       // unpadded base64url: the request, under a key of the code
	Commit    string `json:"commit"`    // to the code: it opens to one request alone
	Counsel   bool   `json:"counsel"`
	Ends      string `json:"ends"`
	Form      string `json:"form"`
	ID        string `json:"id"`
	Office    string `json:"office"`
	Outside   bool   `json:"outside"`
}

const (
	sealedName  = "authorisation.sealed/v1"
	sealedLabel = "counterseal/authorisation/sealed/v1/"
	codeLen     = 32
	minBox      = 12 + 16 // nonce and tag
)

func (*sealedForm) fresh() form { return &sealedForm{} }

func (s *sealedForm) check() error {
	if err := head(s.Form, sealedName, s.ID); err != nil {
		return err
	}
	box, err := base64.RawURLEncoding.Strict().DecodeString(s.Box)
	switch {
	case err != nil || len(box) < minBox:
		return errors.New("box is not a sealed request")
	case !isDigest(s.Commit):
		return errors.New("commit is not one to a code")
	case !ledger.IsWord(s.Authority) || !ledger.IsWord(s.Office):
		return errors.New("office and authority say whose it is")
	}
	if _, err := parseTime(s.Ends); err != nil {
		return errors.New("ends is not a time")
	}
	return nil
}

// aad binds the box to everything beside it.
func (s *sealedForm) aad() ([]byte, error) {
	bare := *s
	bare.Box = ""
	return approval.Canonical(&bare)
}

// derive makes what a code is used for.
func derive(code, use string) ([]byte, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(code)
	if err != nil || len(raw) != codeLen {
		return nil, errors.New("not a code")
	}
	return hkdf.Key(sha256.New, raw, nil, sealedLabel+use, 32)
}

func newCode() string {
	var raw [codeLen]byte
	rand.Read(raw[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

func boxOf(code string) (cipher.AEAD, error) {
	key, err := derive(code, "key")
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// seal puts a request under a code.
func seal(r *requestForm, in policy.Office, code string) (*sealedForm, error) {
	s := &sealedForm{Authority: in.Authority, Counsel: r.Counsel, Ends: r.Ends, Form: sealedName, ID: r.ID, Office: in.ID, Outside: r.Outside}
	commit, err := derive(code, "commit")
	if err != nil {
		return nil, err
	}
	s.Commit = hex.EncodeToString(commit)
	plain, err := approval.Canonical(r)
	if err != nil {
		return nil, err
	}
	if err := parse(plain, &requestForm{}); err != nil {
		return nil, mistake(err.Error())
	}
	aead, err := boxOf(code)
	if err != nil {
		return nil, err
	}
	aad, err := s.aad()
	if err != nil {
		return nil, err
	}
	s.Box = base64.RawURLEncoding.EncodeToString(aead.Seal(nil, nil, plain, aad))
	return s, nil
}

// open gives the request behind a code, which is the one that the code was made for.
func (s *sealedForm) open(code string) (*requestForm, error) {
	bad := errors.New("the code is not that of this request")
	commit, err := derive(code, "commit")
	if err != nil || subtle.ConstantTimeCompare([]byte(hex.EncodeToString(commit)), []byte(s.Commit)) != 1 {
		return nil, bad
	}
	aead, err := boxOf(code)
	if err != nil {
		return nil, err
	}
	aad, err := s.aad()
	if err != nil {
		return nil, err
	}
	box, err := base64.RawURLEncoding.Strict().DecodeString(s.Box)
	if err != nil {
		return nil, bad
	}
	plain, err := aead.Open(nil, nil, box, aad)
	if err != nil {
		return nil, bad
	}
	var r requestForm
	if parse(plain, &r) != nil || r.ID != s.ID || r.Ends != s.Ends || r.Counsel != s.Counsel || r.Outside != s.Outside || !slices.Equal(r.Owner.Authorities, []string{s.Authority}) {
		return nil, bad
	}
	return &r, nil
}

// inspectorOf gives the inspector's office that the record says somebody holds.
func inspectorOf(o *policy.Offices, id string) (policy.Office, bool) {
	if o == nil {
		return policy.Office{}, false
	}
	for _, f := range o.Offices {
		if f.Inspector && f.Holder != "" && ident(f.Holder) == ident(id) {
			return f, true
		}
	}
	return policy.Office{}, false
}

// Inside reports whether somebody is in the inspector's office whose authority is given, as
// the login and the record of offices both have it.
func Inside(o *policy.Offices, by policy.Person, authority string) bool {
	f, ok := inspectorOf(o, by.ID)
	return ok && by.Inspector && f.Authority == authority && by.Authority == authority
}

// inside reports whether an authorisation is for the eyes of somebody.
func (b *Book) inside(by policy.Person, a *authorisation) bool {
	return a.sealed == nil || Inside(b.o.Offices(), by, a.sealed.Authority)
}

// locked says that an authorisation of an inspector's office waits for its code.
var locked = &Refusal{
	Code: Locked, Reason: "what this office asked for is locked since the server was started",
	Hint: "tell the code of the request: counterseal authorise show ID --code CODE",
}

// foldSealed takes in what an inspector's office asked for.
func (b *Book) foldSealed(a *authorisation, payload ledger.Digest, ends string) error {
	var s sealedForm
	switch err := b.payload(payload, &s); {
	case errors.Is(err, errUnread):
		a.unread = true
		return nil
	case err != nil:
		return err
	case s.ID != a.id || s.Ends != ends:
		a.unread = true
		return nil
	}
	raw, err := approval.Canonical(&s)
	if err != nil {
		return err
	}
	// The digest is that of the sealed form: nobody tests a guess of what is in it.
	a.sealed, a.digest, a.locked = &s, digestOf(raw), true
	a.request = requestForm{Counsel: s.Counsel, Outside: s.Outside}
	if code := b.codes[a.id]; code != "" {
		_ = a.unlock(code) // it fitted before
	}
	return nil
}

func (a *authorisation) unlock(code string) error {
	r, err := a.sealed.open(code)
	if err != nil {
		return err
	}
	a.request, a.caseID, a.locked = *r, r.Case, false
	// Who may use it did not approve it, whatever was stated while it was locked.
	a.decisions = slices.DeleteFunc(a.decisions, func(d decisionForm) bool { return a.reader(d.By) })
	return nil
}

// Unlock takes the code of what the office of the asker asked for, so that it covers
// something again.
func (b *Book) Unlock(ctx context.Context, by policy.Person, id, code string) error {
	if err := b.lock(ctx); err != nil {
		return err
	}
	defer b.mu.Unlock()
	a := b.authorisations[id]
	if a == nil || a.sealed == nil || !b.inside(by, a) {
		return unknown("authorisation of your office")
	}
	if !a.locked {
		return nil
	}
	if err := a.unlock(code); err != nil {
		return &Refusal{Code: BadInput, Reason: err.Error(), Hint: "it was shown to who asked, with the request"}
	}
	b.codes[id] = code
	return nil
}

// lockedFor reports whether something of the asker's office that could cover a question
// waits for its code.
func (b *Book) lockedFor(by policy.Person, now time.Time) bool {
	for _, a := range b.authorisations {
		if s := a.state(now); a.locked && (s == Approved || s == Requested) && b.inside(by, a) {
			return true
		}
	}
	return false
}
