package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/duty"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/oversight"
)

// dutyWarrant is what a duty host keeps of a warrant: the statement, the decisions of the
// two offices, that witnesses have seen them, and the reviews of what came before it.
// Nothing in it is secret.
type dutyWarrant struct {
	Decisions []approval.Signed `json:"decisions"`
	Receipt   receipt           `json:"receipt"` // duty.warranted
	Reviews   []receipt         `json:"reviews"` // look.reviewed
	Statement string            `json:"statement"`
	V         int               `json:"v"`
}

// Bounds of what a duty host reads. A proof is some 3 KiB.
const (
	maxNightReviews = 64 // that a server sends, the newest
	maxWarrant      = 1 << 20
	maxDuty         = 4 << 20
)

// warranted is a warrant that was checked.
type warranted struct {
	*duty.Warrant
	at      time.Time // when the ledger had it
	signers []string  // accounts of the officers who signed it, where the roster has them
	reviews []receipt
}

// parseDutyWarrant reads the file of a warrant in canonical form. It verifies nothing.
func parseDutyWarrant(b []byte) (*dutyWarrant, *approval.Statement, error) {
	var w dutyWarrant
	if err := approval.DecodeUpTo(maxWarrant, b, &w); err != nil {
		return nil, nil, fmt.Errorf("warrant: %w", err)
	}
	if w.V != 1 || w.Receipt.V != 1 || len(w.Reviews) > maxNightReviews || len(w.Decisions) > 4 {
		return nil, nil, errors.New("warrant: another form")
	}
	st, err := approval.Parse([]byte(w.Statement))
	return &w, st, err
}

// verify checks a warrant by the officers and the keys of log and witnesses that a duty
// host knows by itself: two people of two offices signed it, witnesses have seen it, and it
// is about this host.
func (w *dutyWarrant) verify(st *approval.Statement, roster *officer.Roster, v ledger.Verifiers, org string) (*warranted, error) {
	leaf, err := w.Receipt.check("duty.warranted", st, []byte(w.Statement), v)
	if err != nil {
		return nil, err
	}
	var signers []string
	var book approval.Book // as it stood when the ledger had it
	if _, err := book.Request([]byte(w.Statement), leaf.Time); err != nil {
		return nil, err
	}
	for i, d := range w.Decisions {
		by, err := roster.VoterFor(d.Key, st.Action)
		if err != nil {
			return nil, fmt.Errorf("decision %d: %w", i+1, err)
		}
		if _, err := book.Decide(st.ID, d, by, leaf.Time); err != nil {
			return nil, fmt.Errorf("decision %d: %w", i+1, err)
		}
		signers = append(signers, roster.Find(d.Key).Account)
	}
	if _, err := book.Use(st.ID, leaf.Time); err != nil {
		return nil, err
	}
	p, err := duty.ParseWarrant(st)
	if err != nil {
		return nil, err
	}
	inner, outer := roster.Duty()
	switch {
	case st.Org != org:
		return nil, errors.New("the warrant is of another data directory")
	case inner == "" || p.Inner != inner || p.Outer != outer:
		return nil, errors.New("the warrant is of another duty host than the one in the officers of this machine")
	}
	return &warranted{p, leaf.Time, signers, w.Reviews}, nil
}

// dutyRequest is what a responder's client brings to a duty host: the sealed name with its
// place in the ledger, the statement about the request, that witnesses have seen it, the
// grant that opened the person, and the reviews of earlier releases.
type dutyRequest struct {
	unmaskRequest
	Asked   receipt   `json:"asked"`   // duty.asked
	Grant   receipt   `json:"grant"`   // grant.opened
	Opened  string    `json:"opened"`  // its payload with the salt, unpadded base64url
	Reviews []receipt `json:"reviews"` // look.reviewed

	objects *dutyObjects
	st      *approval.Statement
}

// dutyObjects are what a statement about a name at night says: what one about a name says,
// the grant and the warrant.
type dutyObjects struct {
	unmaskObjects
	grant, warrant string
}

func (o *dutyObjects) list() []string {
	return append(o.unmaskObjects.list(), "grant "+o.grant, "warrant "+o.warrant)
}

func parseDutyObjects(list []string) (*dutyObjects, error) {
	bad := errors.New("the statement does not name one seal, a grant and a warrant")
	if len(list) != 6 {
		return nil, bad
	}
	u, err := parseUnmaskObjects(list[:4])
	if err != nil {
		return nil, bad
	}
	o := &dutyObjects{unmaskObjects: *u}
	for i, into := range []*string{&o.grant, &o.warrant} {
		what, text, ok := strings.Cut(list[4+i], " ")
		if !ok || what != []string{"grant", "warrant"}[i] || !ledger.IsWord(text) || strings.ContainsAny(text, "/.:") {
			return nil, bad
		}
		*into = text
	}
	return o, nil
}

// parseDuty reads a request in canonical form. It verifies nothing.
func parseDuty(b []byte) (*dutyRequest, error) {
	var r dutyRequest
	if err := approval.DecodeUpTo(maxDuty, b, &r); err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	if len(r.Reviews) > maxNightReviews {
		return nil, fmt.Errorf("request: more than %d reviews", maxNightReviews)
	}
	var err error
	if r.st, err = r.read(); err != nil {
		return nil, err
	}
	if r.st.Action != duty.ToOpen {
		return nil, errors.New("the statement is about another act")
	}
	r.objects, err = parseDutyObjects(r.st.Objects)
	return &r, err
}

// dutyAsked is the detail of duty.asked. As of every look, the leaf says which grant covered
// it, and neither the seal nor the token.
type dutyAsked struct {
	Act       string        `json:"act"`
	Case      string        `json:"case"`
	Cover     string        `json:"cover"` // the grant
	Office    string        `json:"office"`
	Payload   ledger.Digest `json:"payload"` // the statement
	Purpose   string        `json:"purpose,omitempty"`
	Question  ledger.Digest `json:"question"`
	Request   string        `json:"request"`
	Selects   string        `json:"selects"`
	Statement string        `json:"statement"`
	Warrant   string        `json:"warrant"`
}

// verify checks a request of an account at a moment, by the keys of v alone, but for the
// warrant and what was counted.
func (r *dutyRequest) verify(account string, w *warranted, v ledger.Verifiers, now time.Time) error {
	if !strings.EqualFold(r.objects.account, account) {
		return errors.New("the request is of another account than the certificate")
	}
	if slices.ContainsFunc(w.signers, func(s string) bool { return strings.EqualFold(s, account) }) {
		return errors.New("who signed the warrant asks for nothing under it")
	}
	leaf, err := r.Asked.check("duty.asked", r.st, []byte(r.Statement), v)
	if err != nil {
		return err
	}
	var d dutyAsked
	if json.Unmarshal(leaf.Detail, &d) != nil || d.Warrant != w.ID || r.objects.warrant != w.ID || d.Cover != r.objects.grant || d.Case != r.st.Case {
		return errors.New("the ledger has the request under another warrant, grant or case")
	}
	switch {
	case now.Sub(leaf.Time) > duty.Fresh || leaf.Time.Sub(now) > duty.Skew:
		return errors.New("its statement is not of the last 15 minutes")
	case !now.Before(r.st.ExpiresAt()) || r.st.MadeAt().Sub(now) > duty.Skew:
		return errors.New("the time of the request is over, or from the future")
	case leaf.Time.Before(w.at):
		return errors.New("the request is older than the warrant")
	}
	if err := r.granted(account, leaf.Time, v, now); err != nil {
		return err
	}
	sealed, err := r.verifyAbout(&r.objects.unmaskObjects, r.st, v)
	if err == nil && sealed.After(leaf.Time) {
		err = errors.New("the seal is newer than the request")
	}
	return err
}

// granted checks that the ledger has the grant, that it opened this person to this account
// before the request, and that its time is not over.
func (r *dutyRequest) granted(account string, asked time.Time, v ledger.Verifiers, now time.Time) error {
	leaf, err := r.Grant.proved("grant.opened", v)
	if err != nil {
		return fmt.Errorf("the grant: %w", err)
	}
	var d struct {
		Payload ledger.Digest `json:"payload"`
		Until   string        `json:"until"`
	}
	salted, berr := base64.RawURLEncoding.Strict().DecodeString(r.Opened)
	if berr != nil || json.Unmarshal(leaf.Detail, &d) != nil || !slices.Equal(leaf.Subject, []string{r.objects.grant}) {
		return errors.New("the grant is another one than the statement says")
	}
	payload, err := d.Payload.Open(salted)
	if err != nil {
		return fmt.Errorf("the grant: %w", err)
	}
	g, err := cases.ParseGrant(payload)
	switch {
	case err != nil:
		return fmt.Errorf("the grant: %w", err)
	case g.ID != r.objects.grant || !strings.EqualFold(g.Person, account):
		return errors.New("the grant is of another account")
	case !slices.Contains(g.Subjects, string(r.row.Token)):
		return errors.New("the grant does not open this person")
	case leaf.Time.After(asked):
		return errors.New("the grant is younger than the request")
	case !now.Before(g.Until):
		return errors.New("the grant is over")
	}
	return nil
}

// provenReviews gives the ids of releases that a proof says were reviewed, of those asked
// for. A proof that does not hold is an error: nobody sends one by mistake.
func provenReviews(proofs []receipt, wanted []string, v ledger.Verifiers) (map[string]bool, error) {
	out := map[string]bool{}
	for i := range proofs {
		s, err := ledger.Parse([]byte(proofs[i].Leaf))
		if err != nil || len(s.Subject) != 1 || !slices.Contains(wanted, s.Subject[0]) {
			continue
		}
		leaf, err := proofs[i].proved("look.reviewed", v)
		if err != nil {
			return nil, fmt.Errorf("a review: %w", err)
		}
		var d struct {
			Look    string `json:"look"`
			Outcome string `json:"outcome"`
		}
		if json.Unmarshal(leaf.Detail, &d) != nil || d.Look != s.Subject[0] || !slices.Contains(oversight.Outcomes(), d.Outcome) {
			return nil, errors.New("a review says nothing that was found")
		}
		out[d.Look] = true
	}
	return out, nil
}

// unreviewed gives the releases whose review a warrant needs at a moment: those of before
// the warrant was stated, and those that are overdue.
func (w *warranted) unreviewed(all []duty.Release, now time.Time) (out []string) {
	for i := range all {
		if r := &all[i]; !r.Reviewed && (r.Warrant != w.ID && r.At.Before(w.at) || !now.Before(r.Due())) {
			out = append(out, r.ID)
		}
	}
	return out
}

// dutyAnswer is what a duty host answers: the name, to the requester alone, and what it
// signed, which the server states.
type dutyAnswer struct {
	Identity []byte          `json:"identity"`
	Kind     string          `json:"kind"`
	Number   int             `json:"number"` // of its night
	Signed   approval.Signed `json:"signed"` // the statement, by the key of the host
}
