package officer

import (
	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/keyring"
)

// reading is what a text that an officer reads before deciding is sealed for.
func reading(org uuid.UUID, epoch int, subject string) keyring.SealInfo {
	return keyring.SealInfo{Purpose: "officer/reads", Org: org, Epoch: epoch, Subject: subject}
}

// SealFor seals to one officer what they have to read before they decide on a statement,
// and what the statement must not say.
func (r *Roster) SealFor(a *Appointed, org uuid.UUID, statement string, text []byte) ([]byte, error) {
	return keyring.SealTo(a.Seal, reading(org, r.Epoch, statement), keyring.RoleOnly, text)
}

// Read opens what SealFor sealed, for the id of the statement and the epoch of the roster.
// It opens no layer of a sealed name or segment.
func (k *Key) Read(org uuid.UUID, epoch int, statement string, box []byte) ([]byte, error) {
	return keyring.OpenWith(k.seal, reading(org, epoch, statement), keyring.RoleOnly, box)
}
