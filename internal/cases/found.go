package cases

import (
	"context"
	"time"

	"github.com/counterseal/counterseal/internal/policy"
)

// ByFinding is Covers where neither an authorisation nor a broken glass is enough: a finding
// alone opens those whom the question names.
func (b *Book) ByFinding(ctx context.Context, by policy.Person, caseID string, q Question) (Cover, error) {
	var c Cover
	if q.Verdict.Protected {
		c.no(aimed)
		return c, nil
	}
	c.no(&Refusal{Code: Uncovered, Reason: "no incident grant opens this person", Hint: "a finding of high level opens its people to a responder: counterseal search in the case shows what; else two officers open a name: counterseal unmask request"})
	q.Named = unique(q.Named)
	return c, b.byFinding(ctx, by, caseID, &q, &c)
}

// OpenedGrant is what a grant has opened, by the payload of grant.opened.
type OpenedGrant struct {
	ID       string
	Person   string // to whom
	Subjects []string
	Until    time.Time
}

// ParseGrant reads the payload of grant.opened. Its errors quote nothing.
func ParseGrant(payload []byte) (*OpenedGrant, error) {
	var f lookForm
	if err := parse(payload, &f); err != nil {
		return nil, err
	}
	if err := head(f.Form, grantName, f.ID); err != nil {
		return nil, err
	}
	until, err := parseTime(f.Until)
	return &OpenedGrant{ID: f.ID, Person: f.Owner.Person, Subjects: f.Subjects, Until: until}, err
}
