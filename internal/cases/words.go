package cases

import (
	"context"

	"github.com/counterseal/counterseal/internal/policy"
)

// Decides answers nil where somebody may decide on what another asked for, by the policies
// and the record of offices of today, and a Refusal otherwise. id names what it is about.
// Nothing is stated.
func (b *Book) Decides(ctx context.Context, asked string, by policy.Person, action, id string) error {
	if err := b.lock(ctx); err != nil {
		return err
	}
	defer b.mu.Unlock()
	w, ok := ownerOf(b.o.Offices(), asked)
	if !ok {
		return &Refusal{Code: NotPermitted, Reason: "who asked for it holds no office", Hint: "somebody in office asks for it"}
	}
	_, err := b.decides(ctx, by, action, id, false, w)
	return err
}
