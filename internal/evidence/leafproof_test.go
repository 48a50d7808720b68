package evidence

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/event"
)

// TestProveLeaf: the path of a record needs no key, agrees with the proof that has
// one, and is refused for a segment that is open, absent, or changed.
func TestProveLeaf(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	var recs [][]byte
	for i := range 700 {
		recs = append(recs, []byte{byte(i), byte(i >> 8), 7})
	}
	first, err := s.Append(context.Background(), Events, "a", recs)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ProveLeaf(dir, Events, first); !errors.Is(err, ErrNotClosed) {
		t.Fatal(err)
	}
	if err := s.Rotate(); err != nil {
		t.Fatal(err)
	}
	full, err := s.Prove(context.Background(), Events, first.Next(299))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir + "/keys"); err != nil { // without any key
		t.Fatal(err)
	}
	p, err := ProveLeaf(dir, Events, first.Next(299))
	if err != nil {
		t.Fatal(err)
	}
	if p.Size != 700 || p.Root != full.Root || p.Leaf != RecordLeaf(full.Salt, recs[299]) || p.Check() != nil {
		t.Fatalf("%+v", p)
	}
	p.Leaf[0] ^= 1
	if p.Check() == nil {
		t.Fatal("another leaf leads to the root")
	}
	for _, ref := range []event.Ref{first.Next(700), {Compartment: "a", Segment: uuid.New()}, {Compartment: "b", Segment: first.Segment}} {
		if _, err := ProveLeaf(dir, Events, ref); err == nil {
			t.Fatal("proved", ref)
		}
	}
	path := files(t, dir, "a", extClosed)[0]
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at, err := scanSegment(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	b[at.table[0].off+frameHeadLen+32*299] ^= 1
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ProveLeaf(dir, Events, first.Next(299)); err == nil {
		t.Fatal("a changed leaf has a path")
	}
}
