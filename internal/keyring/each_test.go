package keyring

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// alone is a key that opens seals of one layer.
type alone struct{ *PrivateKey }

func (a alone) OpenOnly(info SealInfo, box []byte) ([]byte, error) {
	return OpenWith(a.PrivateKey, info, RoleOnly, box)
}
func (a alone) SealKey() KeyID { return a.Public().ID() }

// TestEach: each of the keys opens its box, another one none, and what was altered is told from
// what is another's.
func TestEach(t *testing.T) {
	var keys []alone
	var to []PublicKey
	for range MaxEach + 1 {
		k, err := NewPrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		keys, to = append(keys, alone{k}), append(to, k.Public())
	}
	info := SealInfo{Purpose: "test", Org: uuid.New(), Epoch: 1, Subject: "s"}
	for _, n := range []int{0, MaxEach + 1} {
		if _, err := SealEach(to[:n], info, []byte("x")); err == nil {
			t.Errorf("sealed to %d keys", n)
		}
	}
	boxes, err := SealEach(to[:MaxEach], info, []byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	ids, err := ParseEach(boxes, len("hello"))
	if err != nil || len(ids) != MaxEach || ids[2] != keys[2].SealKey() {
		t.Fatal(ids, err)
	}
	for i, k := range keys {
		plain, err := OpenEach(k, info, boxes)
		if i < MaxEach && (err != nil || string(plain) != "hello") || i == MaxEach && !errors.Is(err, ErrNotForKey) {
			t.Errorf("key %d: %q %v", i, plain, err)
		}
	}
	other := info
	other.Subject = "another"
	if _, err := OpenEach(keys[0], other, boxes); !errors.Is(err, ErrAltered) {
		t.Errorf("for another subject: %v", err)
	}
	swapped := append([]Box{}, boxes...)
	swapped[0].Box = boxes[1].Box
	if _, err := OpenEach(keys[0], info, swapped); !errors.Is(err, ErrAltered) {
		t.Errorf("the box of another key: %v", err)
	}
	for name, bad := range map[string][]Box{
		"none":              nil,
		"too many":          append(append([]Box{}, boxes...), boxes[0]),
		"a short key":       {{boxes[0].Box, "ab"}},
		"a key in capitals": {{boxes[0].Box, strings.ToUpper(boxes[0].Key)}},
		"no base64url":      {{"+" + boxes[0].Box[1:], boxes[0].Key}},
		"another length":    {{boxes[0].Box[:len(boxes[0].Box)-4], boxes[0].Key}},
	} {
		if _, err := ParseEach(bad, len("hello")); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
