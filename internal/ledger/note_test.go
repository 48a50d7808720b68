package ledger

import (
	"errors"
	"testing"
)

// TestNote: a note of the log verifies as it stands and no other way, and is no checkpoint.
func TestNote(t *testing.T) {
	o := testOptions(t.TempDir())
	l := testOpen(t, o)
	vkey, err := VKey(o.Origin, o.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.SignNote(o.Origin, "1\n"); err == nil {
		t.Error("a note that begins like a checkpoint was signed")
	}
	raw, err := l.SignNote("a report", "one line\n")
	if err != nil {
		t.Fatal(err)
	}
	text, err := OpenNote("a report", raw, []string{vkey})
	if err != nil || text != "one line\n" {
		t.Fatalf("%q, %v", text, err)
	}
	for i := range raw {
		bad := append([]byte{}, raw...)
		bad[i] ^= 1
		if text, err := OpenNote("a report", bad, []string{vkey}); err == nil {
			t.Fatalf("with another byte %d it verifies: %q", i, text)
		}
	}
	if _, err := OpenNote("another report", raw, []string{vkey}); !errors.Is(err, ErrNote) {
		t.Errorf("another title: %v", err)
	}
	if _, _, _, err := Tree([]byte("a report\n1\n")); err == nil {
		t.Error("what has no signature is a checkpoint")
	}
	cp, err := l.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	if origin, _, root, err := Tree(cp); err != nil || origin != o.Origin || root == "" {
		t.Errorf("%q %q %v", origin, root, err)
	}
}
