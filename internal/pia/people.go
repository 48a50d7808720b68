package pia

import (
	"slices"
	"time"
)

// Assessed is an assessment in force and what is collected under it.
type Assessed struct {
	*PIA
	Collected []Collected // one for each of its sources that opens the gate
}

// Collected is one source of an assessment as it is in force.
type Collected struct {
	// Rule is what applies: where two assessments claim the source, the stricter word of both.
	Rule *Rule
	// Fields are the paths that this assessment names, in its order, with what becomes of each.
	Fields []Kept
}

// Kept is what becomes of one path.
type Kept struct {
	Path          string
	Action        Action
	Arg           int    // truncate
	Category      string // what it is, as the assessment says; may be empty
	Justification string
}

// InForce gives the assessments that open the gate at a moment, by id. One whose every source
// another one replaces is among them, with nothing collected.
func (s *Set) InForce(at time.Time) []Assessed {
	var out []Assessed
	for _, p := range s.PIAs() {
		if !s.speaks(p, at) {
			continue
		}
		a := Assessed{PIA: p}
		for i := range p.Sources {
			src := &p.Sources[i]
			rule, no := s.Find(src.Selector.Source, src.Selector.Dataset, src.Selector.Collector, at)
			if no != nil || !slices.Contains(rule.names, p.Name()) {
				continue
			}
			c := Collected{Rule: rule}
			for j := range src.Fields {
				f := &src.Fields[j]
				k := Kept{Path: f.Path, Category: f.Category, Justification: f.Justification}
				if strict := rule.Field(f.Path); strict != nil {
					k.Action, k.Arg = strict.Action, strict.Arg
				}
				c.Fields = append(c.Fields, k)
			}
			a.Collected = append(a.Collected, c)
		}
		out = append(out, a)
	}
	return out
}
