package pipeline

import "github.com/counterseal/counterseal/internal/pia"

// Assessed are the assessments in force, with what is collected under each.
func (p *Pipeline) Assessed() []pia.Assessed {
	p.policyMu.RLock()
	defer p.policyMu.RUnlock()
	return p.policy.pias.InForce(p.now())
}
