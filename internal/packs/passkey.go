package packs

import "github.com/descope/virtualwebauthn"

// coseP256 is how many bytes a P-256 key has as a COSE_Key.
const coseP256 = 77

// NewPasskey makes the key of a virtual authenticator. The library writes a coordinate that
// begins with zeros short, one key in 128, and whoever reads it refuses that rightly.
func NewPasskey() virtualwebauthn.Credential {
	for {
		c := virtualwebauthn.NewCredential(virtualwebauthn.KeyTypeEC2)
		if len(c.Key.AttestationData()) == coseP256 {
			return c
		}
	}
}
