package main

import (
	"fmt"

	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/policy"
)

// inside gives what seals the questions of an inspector's office to the two keys of that
// office; nil where the officers of the configuration have none: then they are not kept.
// Those of an office that another authority appointed than the keys are not kept either:
// whoever has the keys is nobody to read them. Where the officers cannot be read, no
// inspector's office is answered.
func (s *server) inside() func(office, id string, asked []byte) ([]byte, error) {
	roster, err := s.cfg.roster()
	if err == nil && (roster == nil || !roster.Escrow().Inspected()) {
		return nil
	}
	return func(office, id string, asked []byte) ([]byte, error) {
		if err != nil {
			return nil, err
		}
		if !keysOf(roster, s.force.Load().offices, office) {
			return nil, nil
		}
		escrow := roster.Escrow()
		box, err := escrow.Inspector.Seal(keyring.SealInfo{Purpose: insidePurpose, Org: s.pipe.Org(), Epoch: escrow.Epoch, Subject: id}, asked)
		if err != nil {
			return nil, fmt.Errorf("sealing a question to the inspector's office: %w", err)
		}
		return box, nil
	}
}

// keysOf reports whether the inspector's keys of a roster are of an office: one authority
// appointed both.
func keysOf(roster *officer.Roster, offices *policy.Offices, office string) bool {
	if offices == nil {
		return false
	}
	for i := range offices.Offices {
		f := &offices.Offices[i]
		if f.ID != office || !f.Inspector {
			continue
		}
		for k := range roster.Officers {
			if o := &roster.Officers[k]; o.Inspector && officer.Person(o.Authority) == officer.Person(f.Authority) {
				return true
			}
		}
	}
	return false
}

const insidePurpose = "inspector/question"
