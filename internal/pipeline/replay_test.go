package pipeline

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/demo"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
)

// TestReplay parses the originals of a small incident again: as they were, under an
// assessment that keeps less, and under the context of then.
func TestReplay(t *testing.T) {
	in := demo.Play(demo.Options{Seed: 1, At: at, Hotline: true, Scale: 0.02})
	docs := documents(t, in)
	s := start(t, Options{Dir: t.TempDir(), Documents: docs})
	play(t, s, in)
	if err := s.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.policyMu.RLock()
	then := s.policy.digest
	s.policyMu.RUnlock()

	type original struct {
		compartment string
		segment     uuid.UUID
		bytes       map[uint64][]byte
	}
	var all []original
	total := 0
	for _, comp := range s.evidence.Compartments(evidence.Originals) {
		_, err := s.evidence.Read(t.Context(), evidence.Originals, comp, evidence.Position{}, func(ref event.Ref, rec []byte) error {
			if len(all) == 0 || all[len(all)-1].segment != ref.Segment {
				all = append(all, original{comp, ref.Segment, make(map[uint64][]byte)})
			}
			all[len(all)-1].bytes[ref.Ordinal] = bytes.Clone(rec[2:])
			total++
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if total < 100 {
		t.Fatalf("only %d originals to parse again", total)
	}
	replay := func(context string) (same, otherwise, refused int) {
		t.Helper()
		for _, o := range all {
			got, err := s.Replay(t.Context(), o.compartment, o.segment, o.bytes, context)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(o.bytes) {
				t.Errorf("%s/%s: %d of %d originals came back", o.compartment, o.segment, len(got), len(o.bytes))
			}
			for _, r := range got {
				switch {
				case r.Refused != "":
					refused++
				case r.Same:
					same++
				default:
					otherwise++
				}
			}
		}
		return same, otherwise, refused
	}
	if same, otherwise, refused := replay(""); same != total || otherwise+refused > 0 {
		t.Fatalf("%d originals: %d as sealed, %d otherwise, %d refused", total, same, otherwise, refused)
	}

	// Another assessment keeps less: the same bytes give other events, and under the
	// context of then the same ones.
	changed := docs
	changed.PIAs = nil
	for _, d := range docs.PIAs {
		text := bytes.ReplaceAll(d.Data, []byte("action: truncate"), []byte("action: drop"))
		text = bytes.ReplaceAll(text, []byte("action: allow"), []byte("action: hash-keyed"))
		changed.PIAs = append(changed.PIAs, Document{d.Name, text})
	}
	if err := s.SetDocuments(changed); err != nil {
		t.Fatal(err)
	}
	same, otherwise, refused := replay("")
	if otherwise == 0 {
		t.Fatalf("an assessment that hides more changes nothing: %d, %d, %d", same, otherwise, refused)
	}
	if same, otherwise, refused := replay(then); same != total || otherwise+refused > 0 {
		t.Fatalf("under the context of then: %d as sealed, %d otherwise, %d refused of %d", same, otherwise, refused, total)
	}

	// Another protected list cannot be undone: the one of then is kept as a digest only.
	changed.Protected = append(bytes.Clone(docs.Protected), "# another\n"...)
	if err := s.SetDocuments(changed); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Replay(t.Context(), all[0].compartment, all[0].segment, all[0].bytes, then); !errors.Is(err, ErrContext) {
		t.Fatalf("parsed under lists that are not kept: %v", err)
	}
}
