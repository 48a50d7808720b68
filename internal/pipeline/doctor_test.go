package pipeline

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/keyring"
)

// TestOriginalsFromBeforeOfficers: doctor goes on saying which originals the server opens
// alone, once new ones are sealed to officers.
func TestOriginalsFromBeforeOfficers(t *testing.T) {
	docs, b := twoCompartments(t)
	dir := t.TempDir()
	said := func(o evidence.Options) string {
		t.Helper()
		s := start(t, Options{Dir: dir, Documents: docs, Segment: o})
		if _, err := s.Accept(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		text := ""
		for _, c := range s.Doctor(t.Context(), true) {
			if c.Name == "originals" {
				text += c.Text
			}
		}
		s.stop()
		return text
	}
	if text := said(evidence.Options{}); !strings.Contains(text, "not to two officers") {
		t.Errorf("without officers: %q", text)
	}
	public := func() keyring.PublicKey {
		k, err := keyring.NewPrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		return k.Public()
	}
	pair := func() keyring.Pair { return keyring.Pair{Investigation: public(), Oversight: public()} }
	o := evidence.Options{Escrow: &keyring.Escrow{Epoch: 1, Main: pair(), Spare: pair()}}
	if text := said(o); !strings.Contains(text, "segments of originals are from before there were officers") {
		t.Errorf("with officers: %q", text)
	}
	dir = t.TempDir()
	if text := said(o); text != "" {
		t.Errorf("with officers from the beginning: %q", text)
	}
}

func TestTogether(t *testing.T) {
	got := together([]Problem{{"a.yaml", "7: no register"}, {"b.yaml", "other"}, {"c.yaml", "9: no register"}})
	want := []string{"a.yaml:7, c.yaml:9: no register", "b.yaml: other"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := listed(slices.Repeat([]string{"x"}, 7)); got != "x, x, x, x, x and 2 more" {
		t.Error(got)
	}
}
