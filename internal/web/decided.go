package web

import (
	"context"

	"github.com/counterseal/counterseal/internal/policy"
)

// Judged closes the decision about an act that decides by itself (judging): the policies
// were asked by DecideBy, with what it is about, which the house does not know. refused is
// the code of the refusal, empty where the act was done. The ledger has the policies that
// refused, else that code.
func Judged(ctx context.Context, refused string) {
	p := permitOf(ctx)
	p.judged = true
	switch {
	case refused == "":
		p.decision.Allow = true
	case p.decision.Allow || len(p.decision.Policies) == 0:
		p.decision = policy.Decision{Policies: []string{refused}}
	}
}
