package pipeline

import "context"

// CloseSegments closes every open segment and returns when the ledger knows them: what
// was accepted before can then be proven. The next record opens a new one.
func (p *Pipeline) CloseSegments(ctx context.Context) error {
	if err := p.evidence.Rotate(); err != nil {
		return err
	}
	return p.segments.Flush(ctx, p.evidence)
}
