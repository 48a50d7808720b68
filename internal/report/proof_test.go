package report

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/ledger"
)

// TestProve: the proof of a record holds with public keys alone, needs no key to be
// made, and is refused once any of its bytes is another one.
func TestProve(t *testing.T) {
	h := newHouse(t)
	h.fill(t, 30)
	ctx := context.Background()
	ref := h.refs[7]
	if _, _, err := h.Prove(ctx, evidence.Events, ref, false); !errors.Is(err, evidence.ErrNotClosed) {
		t.Fatal(err)
	}
	fatal(t, h.Settle(ctx))
	h.pack(t, nil) // the witness has seen it
	opened, _, err := h.Prove(ctx, evidence.Events, ref, true)
	fatal(t, err)
	fatal(t, os.RemoveAll(filepath.Join(h.dir, "keys")))
	b, witnessed, err := h.Prove(ctx, evidence.Events, ref, false)
	fatal(t, err)
	if !witnessed {
		t.Error("said to be without a witness")
	}
	p, err := VerifyProof(b, h.trust)
	if err != nil || p.Ref != ref || p.Record != nil || p.Statement.Kind != "segment.closed" || p.Size != 20 {
		t.Fatalf("%+v %v", p, err)
	}
	if bytes.Contains(b, []byte(tokenA)) || bytes.Contains(b, []byte(tokenB)) {
		t.Fatal("a proof that tells of the record")
	}
	p, err = VerifyProof(opened, h.trust)
	fatal(t, err)
	if text, err := p.Text(); err != nil || !strings.Contains(text, `"source":"idp"`) {
		t.Fatal(text, err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 5))
	for _, good := range [][]byte{b, opened} {
		for range 300 {
			c := bytes.Clone(good)
			i := rng.IntN(len(c))
			c[i] ^= 1 << rng.IntN(8)
			// A cosignature by another name is one of a stranger.
			if _, err := VerifyProof(c, h.trust); !errors.Is(err, ErrAltered) && !errors.Is(err, ledger.ErrUnwitnessed) {
				t.Fatalf("byte %d: %v\n%s", i, err, c)
			}
		}
	}
	v := h.trust
	other, err := ledger.OpenWitness(ledger.WitnessOptions{Dir: filepath.Join(t.TempDir(), "w"), Name: "witness.example/b", Logs: h.trust.Log})
	fatal(t, err)
	defer other.Close()
	v.Witnesses, v.Threshold = append(v.Witnesses, ledger.Witness{VKey: other.VKey()}), 2
	if _, err := VerifyProof(b, v); !errors.Is(err, ledger.ErrUnwitnessed) {
		t.Fatal(err)
	}
	ref.Segment = uuid.New()
	if _, _, err := h.Prove(ctx, evidence.Events, ref, false); !errors.Is(err, evidence.ErrPosition) {
		t.Fatal(err)
	}
}

// FuzzProof: whatever is accepted says the same. Signatures of strangers may be added.
func FuzzProof(f *testing.F) {
	_, _, v := readGolden(f)
	good, err := os.ReadFile(filepath.Join(goldenDir, "proof.json"))
	fatal(f, err)
	want, err := VerifyProof(good, v)
	fatal(f, err)
	f.Add(good)
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"_type":"counterseal/proof/v1","compartment":"a","index":0,"leaf":"","path":[],"proof":"","segment":"","size":0,"statement":"","stream":"events"}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := VerifyProof(b, v)
		if err == nil && (p.Ref != want.Ref || p.Size != want.Size || p.Index != want.Index || p.Record != nil && !bytes.Equal(p.Record, want.Record)) {
			t.Fatal("something else is proven too")
		}
	})
}
