package main

import (
	"fmt"

	"github.com/counterseal/counterseal/internal/keyring"
)

// inside gives what seals the questions of an inspector's office to the two keys of that
// office; nil where the officers of the configuration have none: then they are not kept.
// Where the officers cannot be read, that office is not answered.
func (s *server) inside() func(id string, asked []byte) ([]byte, error) {
	escrow, err := s.cfg.escrow()
	if err == nil && (escrow == nil || !escrow.Inspected()) {
		return nil
	}
	return func(id string, asked []byte) ([]byte, error) {
		if err != nil {
			return nil, err
		}
		box, err := escrow.Inspector.Seal(keyring.SealInfo{Purpose: insidePurpose, Org: s.pipe.Org(), Epoch: escrow.Epoch, Subject: id}, asked)
		if err != nil {
			return nil, fmt.Errorf("sealing a question to the inspector's office: %w", err)
		}
		return box, nil
	}
}

const insidePurpose = "inspector/question"
