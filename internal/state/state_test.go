package state

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/google/go-cmp/cmp"
)

func TestProjectAndLookUp(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	card := &event.Card{
		Source: "idp", Key: "k1", Body: "b1", N: 2, First: "c/x/0", Last: "c/x/1", Received: now,
		Counts:  []event.Count{{Dataset: "signin", Kept: 2, Dropped: map[string]int{"user_agent": 2}}},
		Gaps:    []event.Gap{{Source: "idp", Stream: "h", Kind: "record-number", From: 1 << 63, To: 1<<63 + 4, At: now}},
		Repeats: 3,
	}
	if err := s.Project(t.Context(), "identity", "p1", []*event.Card{card, card}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got, err := s.Cards(t.Context(), "k1", now.Add(time.Hour))
	if err != nil || len(got) != 1 {
		t.Fatalf("cards: %v, %v", got, err)
	}
	if diff := cmp.Diff(card, got["identity"]); diff != "" {
		t.Fatal(diff)
	}
	if got, _ := s.Cards(t.Context(), "k1", now.Add(8*24*time.Hour)); got != nil {
		t.Fatal("a key of eight days ago is still known")
	}
	if p, _ := s.Position(t.Context(), "identity"); p != "p1" {
		t.Fatalf("position %q", p)
	}
	counts, _ := s.Counts(t.Context())
	if len(counts) != 1 || counts[0].Kept != 4 {
		t.Fatalf("counts: %+v", counts)
	}
	gaps, err := s.Gaps(t.Context(), 10)
	if err != nil || len(gaps) != 2 || gaps[0].To != 1<<63+4 {
		t.Fatalf("gaps: %+v %v", gaps, err)
	}
	if r, _ := s.Repeats(t.Context()); r["idp"] != 6 {
		t.Fatalf("repeats: %v", r)
	}
	if d, _ := s.Drops(t.Context()); len(d) != 1 || d[0].N != 4 {
		t.Fatalf("drops: %v", d)
	}
	if err := s.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if counts, _ := s.Counts(t.Context()); len(counts) != 0 {
		t.Fatal("reset left counts")
	}
}

func TestDamagedFileIsReplaced(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "state.db"), []byte("this is not a database, it is only text that is long enough to be read as a header of one"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if p, err := s.Position(t.Context(), "x"); err != nil || p != "" {
		t.Fatalf("%q, %v", p, err)
	}
}
