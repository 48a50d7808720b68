package main

import (
	"crypto/ecdh"
	"crypto/fips140"
	"crypto/rand"
	"os"
	"strings"
	"testing"

	"github.com/counterseal/counterseal/internal/packs"
)

// TestFIPS shows that a run which calls itself one under FIPS 140-3 is one: a frozen
// module, enabled, and what is not approved is refused. The scripts ask the same of
// the commands that they run (version.txtar).
func TestFIPS(t *testing.T) {
	if !packs.Required("fips") {
		t.Skip("not a FIPS run: make fips")
	}
	if v := fips140.Version(); !strings.HasPrefix(v, "v") {
		t.Errorf("the module is %q, want a frozen one: GOFIPS140=certified", v)
	}
	if !fips140.Enabled() || !fips140.Enforced() {
		t.Errorf("enabled %v, enforced %v, want both: GODEBUG=%q", fips140.Enabled(), fips140.Enforced(), os.Getenv("GODEBUG"))
	}
	if _, err := ecdh.X25519().GenerateKey(rand.Reader); err == nil {
		t.Error("X25519 is not approved and gives a key all the same")
	}
}
