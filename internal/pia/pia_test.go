package pia

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/packs"
)

// TestPack reads the cases of the shared pack and compares with its truth.
func TestPack(t *testing.T) {
	dir := filepath.Join(packs.Dir(t, "gov"), "synthetic", "pia")
	var truth struct {
		AsOf  string `json:"as_of"`
		Cases []struct{ File, Expect, Why string }
	}
	readJSONFile(t, filepath.Join(dir, "truth.json"), &truth)
	at, err := time.Parse(time.DateOnly, truth.AsOf)
	if err != nil || len(truth.Cases) < 9 {
		t.Fatalf("truth: %v, %d cases", err, len(truth.Cases))
	}
	for _, c := range truth.Cases {
		p, problems := Parse(c.File, readFile(t, filepath.Join(dir, c.File)))
		set, _ := NewSet([]*PIA{p}, at)
		rule, no := set.Find("idp", "signin", "", at)
		if got := rule != nil; got != (c.Expect == "accept") {
			t.Errorf("%s: open %v, want %s (%s): %v", c.File, got, c.Expect, c.Why, problems)
		}
		if no != nil && (no.Code != "pia_missing" || no.Reason == "" || no.Hint == "") {
			t.Errorf("%s: refusal %+v", c.File, no)
		}
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readJSONFile(t *testing.T, path string, v any) {
	t.Helper()
	if err := json.Unmarshal(readFile(t, path), v); err != nil {
		t.Fatal(err)
	}
}
