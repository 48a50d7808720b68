package cases

import (
	"context"
	"errors"
	"testing"

	"github.com/counterseal/counterseal/internal/policy"
)

// TestMachineEndsNothing: who asked for an authorisation lets it go in person. A token of
// theirs, which asks as a machine, does not.
func TestMachineEndsNothing(t *testing.T) {
	h := newHouse(t)
	id := h.authorised("ines", draft(person(1)), "olga")
	inPerson := h.o.Policy
	h.o.Policy = func(ctx context.Context, r policy.Request) policy.Decision {
		r.Context.Machine, r.Context.Scopes = true, []string{"authorise.end"}
		return inPerson(ctx, r)
	}
	h.open()
	for _, reason := range endings {
		var no *Refusal
		if err := h.End(t.Context(), h.as("ines"), id, reason); !errors.As(err, &no) || no.Code != NotPermitted {
			t.Errorf("%s: got %v, want a refusal by the policies", reason, err)
		}
	}
	h.o.Policy = inPerson
	h.open()
	by := h.as("ines")
	by.ID = "INES" // as a login may spell it
	if err := h.End(t.Context(), by, id, Done); err != nil {
		t.Error(err)
	}
}
