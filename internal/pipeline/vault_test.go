package pipeline

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/demo"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/index"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/query"
	"github.com/counterseal/counterseal/internal/vault"
)

func fourOfficers(t testing.TB) *keyring.Escrow {
	t.Helper()
	var keys [4]keyring.PublicKey
	for i := range keys {
		k, err := keyring.NewPrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		keys[i] = k.Public()
	}
	return &keyring.Escrow{Epoch: 1, Main: keyring.Pair{Investigation: keys[0], Oversight: keys[1]}, Spare: keyring.Pair{Investigation: keys[2], Oversight: keys[3]}}
}

// tokensOf gives every token in the rows of the index.
func tokensOf(t *testing.T, p *Pipeline) map[event.Token]bool {
	t.Helper()
	out := map[event.Token]bool{}
	err := p.Index().Query(context.Background(), &query.Query{}, index.Scope{}, 1_000_000, func(r index.Row) bool {
		for _, fields := range [][]index.Attr{r.OCSF, r.Native} {
			for _, f := range fields {
				text := []byte(f.Value)
				for {
					i, j := event.NextToken(text)
					if i < 0 {
						break
					}
					out[event.Token(text[i:j])] = true
					text = text[j:]
				}
			}
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestEveryTokenIsSealed: whoever stands in an event that was accepted has a row, which the
// ledger knows; a question, a refused source and a rebuild leave none and take none away.
func TestEveryTokenIsSealed(t *testing.T) {
	in := demo.Play(demo.Options{Seed: 1, At: at, Scale: 0.02})
	o := Options{Dir: t.TempDir(), Documents: documents(t, in), Segment: evidence.Options{Escrow: fourOfficers(t)}}
	s := start(t, o)
	play(t, s, in)
	if err := s.vault.CloseWindow(t.Context()); err != nil {
		t.Fatal(err)
	}
	tokens := tokensOf(t, s.Pipeline)
	if len(tokens) < 20 {
		t.Fatalf("%d tokens: the test looks at nothing", len(tokens))
	}
	for token := range tokens {
		if seen, err := s.vault.Seen(t.Context(), token); err != nil || len(seen) == 0 || seen[0].Compartment == "" {
			t.Fatalf("when a token of an accepted event was seen: %v %v", seen, err)
		}
		if _, p, err := s.vault.Find(t.Context(), token); err != nil {
			t.Fatalf("a token of an accepted event: %v", err)
		} else if _, ok, err := s.recorder.Fact(t.Context(), "vault.sealed", p.Window.ID); !ok || err != nil {
			t.Fatalf("the ledger does not know its window: %v", err)
		}
	}
	before, err := s.vault.Counts(t.Context())
	if err != nil || before.Unsealed != 0 || before.Waiting != 0 {
		t.Fatalf("%+v %v", before, err)
	}

	if known := s.Asking().Known; known("gone.fishing@nowhere.example") == false {
		t.Error("a mail address names somebody")
	}
	b := event.Batch{Source: "someone@nowhere.example", Way: "http", Received: at, Frames: []event.Frame{{Bytes: []byte(`{"a":1}`), Line: 1}}}
	if _, err := s.Accept(t.Context(), b); err == nil {
		t.Fatal("a source that no assessment names is accepted")
	}
	if err := s.vault.Keep(t.Context(), "default", s.now()); err != nil {
		t.Fatal(err)
	}
	windows, err := s.recorder.Facts(t.Context(), "vault.sealed")
	if err != nil {
		t.Fatal(err)
	}
	s.stop()

	p, err := Open(t.Context(), Options{Tokens: maker(t), Dir: o.Dir, Documents: o.Documents, Segment: o.Segment, Now: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Rebuild(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	after, err := p.vault.Counts(t.Context())
	if err != nil || after != before {
		t.Errorf("%+v, and after questions, a refusal, a restart and a rebuild %+v, %v", before, after, err)
	}
	again, err := p.recorder.Facts(t.Context(), "vault.sealed")
	if err != nil || len(again) != len(windows) {
		t.Errorf("%d windows are stated, and after a rebuild %d, %v", len(windows), len(again), err)
	}
	said := ""
	for _, c := range p.Doctor(t.Context(), true) {
		if c.Name == "names" {
			said += c.State + " " + c.Text + "\n"
		}
	}
	if said != fmt.Sprintf("ok %d tokens have a seal to the officers of now\n", before.Sealed) {
		t.Errorf("doctor says:\n%s", said)
	}
	file, err := sql.Open("sqlite", "file:"+filepath.Join(o.Dir, vault.File))
	if err == nil {
		_, err = file.Exec("UPDATE seals SET row = (SELECT row FROM seals WHERE id = 1) WHERE id = 2")
	}
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	if !slices.ContainsFunc(p.Doctor(t.Context(), true), func(c Check) bool {
		return c.Name == "names" && c.State == "fail" && strings.HasPrefix(c.Text, "1 places of the vault")
	}) {
		t.Error("doctor does not see that a row was exchanged")
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}

	// A lost vault is lost names and nothing else.
	if err := os.RemoveAll(filepath.Join(o.Dir, "vault")); err != nil {
		t.Fatal(err)
	}
	s = start(t, Options{Dir: o.Dir, Documents: o.Documents, Segment: o.Segment})
	if got := tokensOf(t, s.Pipeline); len(got) != len(tokens) {
		t.Errorf("%d tokens are left of %d", len(got), len(tokens))
	}
	said = ""
	for _, c := range s.Doctor(t.Context(), true) {
		if c.Name == "names" && c.State == "warn" {
			said += c.Text
		}
	}
	if !strings.Contains(said, "lost until they are seen again") {
		t.Errorf("doctor says %q", said)
	}
}

// TestVaultFirst: while the vault cannot be written nothing is accepted that holds a name
// which is new.
func TestVaultFirst(t *testing.T) {
	in := demo.Play(demo.Options{Seed: 1, At: at, Scale: 0.02})
	p, err := Open(t.Context(), Options{Tokens: maker(t), Dir: t.TempDir(), Documents: documents(t, in), Segment: evidence.Options{Escrow: fourOfficers(t)}, Now: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.vault.Close(); err != nil {
		t.Fatal(err)
	}
	failed := 0
	for _, st := range in.Streams {
		if st.Way == "file" {
			continue
		}
		for _, b := range batches(st) {
			before := p.Accepted()
			if _, err := p.Accept(t.Context(), b); err != nil {
				failed++
				if p.Accepted() != before {
					t.Fatal("a batch was refused, and its events were sealed")
				}
			} else if p.vault.Keep(t.Context(), "default", p.now()) != nil {
				t.Fatal("a batch was accepted while names wait")
			}
		}
	}
	if failed == 0 {
		t.Error("the vault is away, and everything is accepted")
	}
	if err := p.Close(); err == nil {
		t.Error("the names that wait are lost in silence")
	}
}

// BenchmarkKnownNames is the way in of a batch whose names are all known, without officers
// and with them.
func BenchmarkKnownNames(b *testing.B) {
	in := demo.Play(demo.Options{Seed: 1, At: at, Scale: 0.2})
	docs := documents(b, in)
	var batch event.Batch
	for _, st := range in.Streams {
		if st.Way == "file" {
			continue
		}
		for _, one := range batches(st) {
			if len(one.Frames) > len(batch.Frames) {
				batch = one
			}
		}
	}
	batch.Key = ""
	for name, escrow := range map[string]*keyring.Escrow{"without officers": nil, "with officers": fourOfficers(b)} {
		b.Run(name, func(b *testing.B) {
			s := start(b, Options{Dir: b.TempDir(), Documents: docs, Segment: evidence.Options{Escrow: escrow}})
			if _, err := s.Accept(b.Context(), batch); err != nil {
				b.Fatal(err)
			}
			cpu, n := cpuTime(), 0
			for b.Loop() {
				if _, err := s.Accept(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
				n += len(batch.Frames)
			}
			b.ReportMetric(float64((cpuTime()-cpu).Nanoseconds())/float64(n), "cpu-ns/event")
		})
	}
}
