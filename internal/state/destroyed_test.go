package state

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/event"
)

// TestDestroyed: rows of destroyed segments leave the file, and their neighbours stay.
func TestDestroyed(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var ids []uuid.UUID
	for range 3 {
		id, err := uuid.NewV7()
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	card := func(key string, id uuid.UUID, at time.Time) *event.Card {
		return &event.Card{Source: "idp", Key: key, N: 1, First: "hr/" + id.String() + "/0", Last: "hr/" + id.String() + "/0", Received: at, PIA: []string{"planted-" + key},
			Gaps: []event.Gap{{Source: "idp", Stream: "h", Kind: "record-number", From: 1, To: 2, At: at}}}
	}
	for i, id := range ids {
		key := string(rune('a' + i))
		if err := s.Project(ctx, "hr", "p", []*event.Card{card(key, id, now.Add(time.Duration(i)*time.Hour))}); err != nil {
			t.Fatal(err)
		}
		if err := s.SaveCorrelations(ctx, "hr", id.String()+"/7/x", []byte("planted-window-"+key)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Project(ctx, "other", "p", []*event.Card{card("o", ids[0], now)}); err != nil { // a Ref of another compartment
		t.Fatal(err)
	}
	if n, err := s.Destroyed(ctx, "hr", ids[:2], now.Add(2*time.Hour)); err != nil || n != 6 {
		t.Fatalf("%d rows, %v", n, err)
	}
	for key, want := range map[string]int{"a": 0, "b": 0, "c": 1, "o": 1} {
		if got, err := s.Cards(ctx, key, now); err != nil || len(got) != want {
			t.Errorf("cards of %s: %v %v", key, got, err)
		}
	}
	if got, err := s.Correlations(ctx, "hr"); err != nil || len(got) != 1 || string(got[0].Data) != "planted-window-c" {
		t.Errorf("%v %v", got, err)
	}
	if got, err := s.Gaps(ctx, 10); err != nil || len(got) != 2 {
		t.Errorf("%v %v", got, err)
	}
	for _, name := range []string{"state.db", "state.db-wal"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, left := range []string{"planted-a", "planted-b", "planted-window-a", "planted-window-b"} {
			if bytes.Contains(b, []byte(left)) {
				t.Errorf("%s still holds %s", name, left)
			}
		}
	}
	if n, err := s.Destroyed(ctx, "hr", ids[:2], now); err != nil || n != 0 {
		t.Fatalf("the second time: %d rows, %v", n, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
