package attest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/state"
)

// Statements makes statements and finds them again. *Recorder is one.
type Statements interface {
	Record(context.Context, Act) (uint64, error)
	Facts(ctx context.Context, kind string) ([]state.Fact, error)
	Fact(ctx context.Context, kind, key string) (state.Fact, bool, error)
	PutPayload([]byte) (ledger.Digest, error)
	Payload(ledger.Digest) ([]byte, error)
}

// Approval is a request that two people decide about, as it is brought to the server.
type Approval struct {
	Statement []byte
	Signed    []approval.Signed // decisions brought now, beside those that stand in the ledger
	Action    string            // that the statement must name
	Org       string            // likewise
	Objects   []string          // likewise; nil: whatever was asked for
	Roster    *officer.Roster   // nil: nobody is in office
	Actor     string            // who brings them
	Now       time.Time
}

// ErrNotApproved is wrapped where an act may not be done, with the reason.
var ErrNotApproved = errors.New("not approved by two people of two offices")

// Approve answers nil where two people of two offices have approved exactly this
// request, by what stands in the ledger and what is brought now, and it was not used.
// Each decision that counts is stated before the answer, a refusal too: it is final.
func Approve(ctx context.Context, s Statements, a Approval) (*approval.Statement, error) {
	no := func(err error) (*approval.Statement, error) {
		return nil, fmt.Errorf("%w: %w", ErrNotApproved, err)
	}
	if a.Roster == nil {
		return no(errors.New("no officers are named in the configuration"))
	}
	st, err := approval.Parse(a.Statement)
	if err != nil {
		return no(err)
	}
	if st.Action != a.Action || st.Org != a.Org || a.Objects != nil && !slices.Equal(st.Objects, a.Objects) {
		return no(errors.New("the statement is about something else"))
	}
	requested, ok, err := s.Fact(ctx, "approval.requested", st.ID)
	if err != nil {
		return nil, err
	}
	if !ok || !strings.Contains(string(requested.Detail), `"`+approval.HexDigest(a.Statement)+`"`) {
		return no(errors.New("the ledger knows no request with this statement"))
	}
	if _, used, err := s.Fact(ctx, "approval.used", st.ID); err != nil {
		return nil, err
	} else if used {
		return no(approval.ErrUsed)
	}
	var book approval.Book
	if _, err := book.Request(a.Statement, a.Now); err != nil {
		return no(err)
	}
	stated, err := decisions(ctx, s, st.ID)
	if err != nil {
		return nil, err
	}
	all := stated
	for _, d := range a.Signed {
		b, err := approval.Canonical(d)
		if err != nil {
			return no(err)
		}
		if !slices.ContainsFunc(all, func(have []byte) bool { return bytes.Equal(have, b) }) {
			all = append(all, b)
		}
	}
	for i, b := range all {
		d, err := approval.ParseSigned(b)
		if err != nil {
			return no(err)
		}
		by, err := a.Roster.VoterFor(d.Key, st.Action)
		if err != nil {
			return no(err)
		}
		if in, err := inOffice(ctx, s, d.Key); err != nil {
			return nil, err
		} else if !in { // the file was changed since the server stated who is in office
			return no(errors.New("the ledger does not know this officer: restart the server"))
		}
		if _, err := book.Decide(st.ID, d, by, a.Now); err != nil {
			return no(err)
		}
		if i < len(stated) {
			continue
		}
		payload, err := s.PutPayload(b)
		if err != nil {
			return nil, err
		}
		if _, err := s.Record(ctx, Act{
			Kind: "approval.decided", Actor: a.Actor, Subject: []string{st.ID + "/" + d.Key},
			Detail: map[string]any{"request": st.ID, "decision": string(d.Decision), "office": by.Office, "officer": d.Key, "signed": payload},
		}); err != nil {
			return nil, err
		}
	}
	if got := book.State(st.ID); got != approval.Approved {
		return no(fmt.Errorf("the request is %s", got))
	}
	return st, nil
}

// Requested gives the statement that a request was about, whose digest a later statement has.
func Requested(ctx context.Context, s Statements, request, digest string) (*approval.Statement, error) {
	f, ok, err := s.Fact(ctx, "approval.requested", request)
	if err != nil || !ok {
		return nil, errors.Join(err, errors.New("the ledger does not know the request"))
	}
	var in struct{ Payload ledger.Digest }
	if err := decode(f, &in); err != nil {
		return nil, err
	}
	statement, err := s.Payload(in.Payload)
	if err != nil {
		return nil, err
	}
	st, err := approval.Parse(statement)
	if err != nil || digest != approval.HexDigest(statement) {
		return nil, errors.New("the payload of the request is another statement than the one that was approved")
	}
	return st, nil
}

// Use states that an approval was used, once.
func Use(ctx context.Context, s Statements, actor, request string) error {
	if _, ok, err := s.Fact(ctx, "approval.used", request); err != nil || ok {
		return err
	}
	_, err := s.Record(ctx, Act{Kind: "approval.used", Actor: actor, Subject: []string{request}, Detail: map[string]any{"request": request}})
	return err
}

// Approved tells whether two offices stand for a request in the ledger and none against
// it, whether it was used or not.
func Approved(ctx context.Context, s Statements, request string) (bool, error) {
	all, err := s.Facts(ctx, "approval.decided")
	if err != nil {
		return false, err
	}
	offices := map[string]bool{}
	for _, f := range all {
		d, err := decided(f)
		if err != nil {
			return false, err
		}
		if d.Request != request {
			continue
		}
		if d.Decision != string(approval.Approve) {
			return false, nil
		}
		offices[d.Office] = true
	}
	return len(offices) >= 2, nil
}

// decisions gives the signed decisions about a request that stand in the ledger.
func decisions(ctx context.Context, s Statements, request string) ([][]byte, error) {
	all, err := s.Facts(ctx, "approval.decided")
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for _, f := range all {
		d, err := decided(f)
		if err != nil {
			return nil, err
		}
		if d.Request != request {
			continue
		}
		b, err := s.Payload(d.Signed)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// decision is the detail of approval.decided.
type decision struct {
	Request, Decision, Office string
	Signed                    ledger.Digest
}

func decided(f state.Fact) (d decision, err error) {
	if err := json.Unmarshal(f.Detail, &d); err != nil {
		return d, fmt.Errorf("statement %d: %w", f.Index, err)
	}
	return d, nil
}

// inOffice tells whether the ledger knows an officer who has not left.
func inOffice(ctx context.Context, s Statements, key string) (bool, error) {
	came, ok, err := s.Fact(ctx, "officer.enrolled", key)
	if err != nil || !ok {
		return false, err
	}
	left, ok, err := s.Fact(ctx, "officer.retired", key)
	return err == nil && (!ok || left.Index < came.Index), err
}
