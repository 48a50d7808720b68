package web

import (
	"context"
	"strings"
	"testing"

	"github.com/counterseal/counterseal/internal/policy"
)

// TestJudged: an act that decided by itself counts as judged, and the ledger has the
// policies that refused it, else the code of the refusal.
func TestJudged(t *testing.T) {
	yes, no := policy.Decision{Allow: true, Policies: []string{"overseer"}}, policy.Decision{Policies: []string{"own-chain"}}
	for _, c := range []struct {
		before  policy.Decision
		refused string
		allow   bool
		by      string
	}{
		{yes, "", true, "overseer"},
		{policy.Decision{}, "", true, ""},
		{no, "not_permitted", false, "own-chain"},
		{yes, "altered", false, "altered"},
		{policy.Decision{}, "not_permitted", false, "not_permitted"},
	} {
		p := &permit{decision: c.before}
		Judged(context.WithValue(t.Context(), permitKey{}, p), c.refused)
		if by := strings.Join(p.decision.Policies, " "); !p.judged || p.decision.Allow != c.allow || by != c.by {
			t.Errorf("%+v refused %q: got judged %v, allow %v, by %q", c.before, c.refused, p.judged, p.decision.Allow, by)
		}
	}
}
