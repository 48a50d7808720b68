package ledger

import (
	"bytes"
	"context"
	"strconv"
	"testing"
)

// TestLeaf: one statement by its index is the one that Each gives, over a full bundle
// and a partial one.
func TestLeaf(t *testing.T) {
	l := testOpen(t, testOptions(t.TempDir()))
	for i := range 260 {
		testAdd(t, l, "n"+strconv.Itoa(i))
	}
	n := 0
	_, err := l.Each(context.Background(), 0, func(index uint64, _ Statement, raw []byte) error {
		b, err := l.Leaf(context.Background(), index)
		if err != nil || !bytes.Equal(b, raw) {
			t.Fatal(index, err, string(b))
		}
		n++
		return nil
	})
	if err != nil || n != 260 {
		t.Fatal(n, err)
	}
	if _, err := l.Leaf(context.Background(), 260); err == nil {
		t.Fatal("a statement that is not there")
	}
}
