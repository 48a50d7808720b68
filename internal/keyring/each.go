package keyring

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
)

// MaxEach is to how many keys one plaintext is sealed, each of which opens it alone.
const MaxEach = 4

// Box is a seal of role RoleOnly to one of them, as documents have it.
type Box struct {
	Box string `json:"box"` // unpadded base64url
	Key string `json:"key"` // KeyID
}

// Opener is a key that opens seals of one layer: the key of an officer.
type Opener interface {
	// OpenOnly opens a seal; its error wraps ErrNotForKey.
	OpenOnly(info SealInfo, box []byte) ([]byte, error)
	// SealKey names it.
	SealKey() KeyID
}

var errEach = fmt.Errorf("boxes are one to %d, each to one key", MaxEach)

// SealEach seals a plaintext to each of 1 to MaxEach keys.
func SealEach(to []PublicKey, info SealInfo, plaintext []byte) ([]Box, error) {
	if len(to) == 0 || len(to) > MaxEach {
		return nil, errEach
	}
	var out []Box
	for _, k := range to {
		box, err := SealTo(k, info, RoleOnly, plaintext)
		if err != nil {
			return nil, err
		}
		out = append(out, Box{base64.RawURLEncoding.EncodeToString(box), k.ID().String()})
	}
	return out, nil
}

// ParseEach gives the keys of boxes, in order, and refuses what SealEach does not make of a
// plaintext of plain bytes; 0: of any number. Its errors quote nothing.
func ParseEach(boxes []Box, plain int) ([]KeyID, error) {
	if len(boxes) == 0 || len(boxes) > MaxEach {
		return nil, errEach
	}
	var out []KeyID
	for i, b := range boxes {
		key, err := hex.DecodeString(b.Key)
		if err != nil || len(key) != len(KeyID{}) || hex.EncodeToString(key) != b.Key {
			return nil, fmt.Errorf("boxes[%d].key is not a digest", i)
		}
		box, err := base64.RawURLEncoding.Strict().DecodeString(b.Box)
		switch {
		case err != nil:
			return nil, fmt.Errorf("boxes[%d].box is not base64url", i)
		case plain > 0 && len(box) != SealOverhead+plain:
			return nil, fmt.Errorf("boxes[%d].box is not a seal of %d bytes", i, SealOverhead+plain)
		}
		out = append(out, KeyID(key))
	}
	return out, nil
}

// ErrAltered says that a box names a key that does not open it.
var ErrAltered = errors.New("the box of this key was altered")

// OpenEach opens the box of a key. Its error wraps ErrNotForKey where no box names the key, and
// ErrAltered where one does that it does not open.
func OpenEach(k Opener, info SealInfo, boxes []Box) ([]byte, error) {
	for _, b := range boxes {
		if b.Key != k.SealKey().String() {
			continue
		}
		box, err := base64.RawURLEncoding.Strict().DecodeString(b.Box)
		if err != nil {
			return nil, ErrAltered
		}
		plain, err := k.OpenOnly(info, box)
		if errors.Is(err, ErrNotForKey) {
			return nil, ErrAltered
		}
		return plain, err
	}
	return nil, fmt.Errorf("it is sealed to other keys: %w", ErrNotForKey)
}
