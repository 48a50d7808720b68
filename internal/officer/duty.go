package officer

import (
	"errors"
	"slices"

	"github.com/counterseal/counterseal/internal/keyring"
)

// OpenBoth opens both layers of a seal with the two keys of a duty host, which has checked
// by itself that a warrant lets it. count is called once, and no layer is opened before it
// returned nil. Its error is ErrOtherOfficer where nothing is sealed to these two.
func OpenBoth(investigation, oversight *Key, info keyring.SealInfo, boxes []keyring.Sealed, count func() error) ([]byte, error) {
	i := slices.IndexFunc(boxes, func(b keyring.Sealed) bool {
		return b.Inner == investigation.card.Seal.ID() && b.Outer == oversight.card.Seal.ID()
	})
	if i < 0 || investigation.card.Office != Investigation || oversight.card.Office != Oversight {
		return nil, ErrOtherOfficer
	}
	if count == nil {
		return nil, errors.New("nothing is opened that nobody counts")
	}
	if err := count(); err != nil {
		return nil, err
	}
	info.Epoch = boxes[i].Epoch
	inner, err := keyring.OpenOuter(oversight.seal, info, boxes[i].Box)
	if err != nil {
		return nil, err
	}
	return keyring.OpenInner(investigation.seal, info, inner)
}
