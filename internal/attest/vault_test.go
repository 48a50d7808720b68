package attest

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/vault"
)

type plainTokens struct{}

func (plainTokens) Token(kind event.TokenKind, canonical []byte) (event.Token, error) {
	var bits [16]byte
	copy(bits[:], canonical)
	return event.NewToken(kind, 1, bits), nil
}

// vaultOf opens the vault of the house.
func (h *house) vaultOf() *vault.Vault {
	h.t.Helper()
	var keys [4]keyring.PublicKey
	for i := range keys {
		k, err := keyring.NewPrivateKey()
		if err != nil {
			h.t.Fatal(err)
		}
		keys[i] = k.Public()
	}
	v, err := vault.Open(h.t.Context(), vault.Options{Dir: h.dir, Org: h.keys.ID(),
		Escrow: &keyring.Escrow{Epoch: 1, Main: keyring.Pair{Investigation: keys[0], Oversight: keys[1]}, Spare: keyring.Pair{Investigation: keys[2], Oversight: keys[3]}},
		State: func(ctx context.Context, w vault.Window) error {
			_, err := h.rec.Record(ctx, Act{Kind: "vault.sealed", Actor: System, Subject: []string{w.ID}, Detail: map[string]any{"window": w.ID, "n": w.N, "root": hex.EncodeToString(w.Root[:])}})
			return err
		}})
	if err != nil {
		h.t.Fatal(err)
	}
	return v
}

// TestVaultIsVerified: Verify reads the vault with the ledger, beside a server that writes
// both, and names what is wrong with where.
func TestVaultIsVerified(t *testing.T) {
	h := newHouse(t)
	h.append("a", "one")
	v := h.vaultOf()
	ctx := t.Context()
	seal := func(names ...string) {
		t.Helper()
		for _, n := range names {
			token, err := v.Tokenizer(plainTokens{}).Token(event.Person, []byte(n))
			if err == nil {
				err = v.Keep(ctx, "a", time.Now(), []byte(token))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := v.CloseWindow(ctx); err != nil {
			t.Fatal(err)
		}
	}
	look := func() Report {
		t.Helper()
		vkey, err := ledger.VKey(origin, h.key.Public().(ed25519.PublicKey))
		if err != nil {
			t.Fatal(err)
		}
		r, err := Verify(ctx, h.dir, VerifyOptions{Log: []string{vkey}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	seal("alice", "bob", "carol")
	if r := look(); !r.OK() || r.Vault.Rows != 3 || r.Vault.Windows != 1 {
		t.Fatalf("%v %+v", r.Problems, r.Vault)
	}
	token, _ := plainTokens{}.Token(event.Person, []byte("bob"))
	places, err := v.Places(ctx, []event.Token{token})
	if err != nil {
		t.Fatal(err)
	}
	list, err := vault.EncodeList(places)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := h.rec.PutPayload(list)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.rec.Record(ctx, Act{Kind: "vault.erased", Actor: System, Subject: []string{"one"}, Detail: Erased{List: payload, Reason: ErasedByRetention, Rows: 1, Windows: 1}}); err != nil {
		t.Fatal(err)
	}
	if r := look(); !r.OK() || len(r.Vault.Notes) != 1 {
		t.Fatalf("stated and not done: %v %+v", r.Problems, r.Vault)
	}
	if _, err := v.Erase(ctx, "one", places); err != nil {
		t.Fatal(err)
	}
	if r := look(); !r.OK() || r.Vault.Erased != 1 || r.Vault.Rows != 2 || len(r.Vault.Notes) > 0 {
		t.Fatalf("%v %+v", r.Problems, r.Vault)
	}
	seal("dora")
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	h.close()
	whole, err := os.ReadFile(filepath.Join(h.dir, vault.File))
	if err != nil {
		t.Fatal(err)
	}
	names := func(what string) {
		t.Helper()
		r := look()
		for _, p := range r.Problems {
			if strings.Contains(p.String(), "vault/vault.db") && strings.Contains(p.String(), what) {
				return
			}
		}
		t.Errorf("nothing says %q: %v", what, r.Problems)
	}
	edit := func(q string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(h.dir, vault.File), whole, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := sql.Open("sqlite", "file:"+filepath.Join(h.dir, vault.File))
		if err == nil {
			_, err = db.Exec(q)
		}
		if err != nil {
			t.Fatal(err)
		}
		db.Close()
	}
	edit("UPDATE seals SET row = CAST(replace(row, 'a', 'b') AS BLOB) WHERE win = 2")
	names("row 0: the row is not the one of its leaf")
	edit("DELETE FROM seals WHERE win = 2")
	names("no statement says that it was erased")
	edit("DELETE FROM seals WHERE win = 2; DELETE FROM leaves WHERE win = 2; DELETE FROM windows WHERE seq = 2")
	names("the ledger knows this window and it is not there")
	if err := os.WriteFile(filepath.Join(h.dir, vault.File), whole[:5000], 0o600); err != nil {
		t.Fatal(err)
	}
	names("damaged")
	if err := os.Remove(filepath.Join(h.dir, vault.File)); err != nil {
		t.Fatal(err)
	}
	names("it is not there, and the ledger knows 2 windows")
	if err := os.WriteFile(filepath.Join(h.dir, vault.File), whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(h.dir, "ledger", "payloads", payload.H)); err != nil {
		t.Fatal(err)
	}
	names("the list of the rows that were erased cannot be read")
	names("no statement says that it was erased")
}
