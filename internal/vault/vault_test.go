package vault

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/keyring"
)

// now is when records are sealed, a Wednesday.
var now = time.Date(2027, 3, 3, 12, 0, 0, 0, time.UTC)

// plainTokens makes tokens that nobody could undo only because the test is short.
type plainTokens struct{}

func (plainTokens) Token(kind event.TokenKind, canonical []byte) (event.Token, error) {
	sum := sha256.Sum256(append([]byte{byte(kind)}, canonical...))
	return event.NewToken(kind, 1, [16]byte(sum[:16])), nil
}

func tokenOf(name string) event.Token {
	t, _ := plainTokens{}.Token(event.Person, []byte(name))
	return t
}

// house is a vault with its officers and what the ledger was told.
type house struct {
	t    testing.TB
	dir  string
	org  uuid.UUID
	keys [4]*keyring.PrivateKey // investigation, oversight, and their spares
	e    *keyring.Escrow

	mu     sync.Mutex
	stated []Window
	down   bool // the ledger

	fault func(string) error
	v     *Vault
}

func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir(), org: uuid.MustParse("0d1a53a4-7e0c-4c53-8d2f-3a3c2f5b0001")}
	for i := range h.keys {
		var err error
		if h.keys[i], err = keyring.NewPrivateKey(); err != nil {
			t.Fatal(err)
		}
	}
	h.e = &keyring.Escrow{Epoch: 3, Main: keyring.Pair{Investigation: h.keys[0].Public(), Oversight: h.keys[1].Public()}, Spare: keyring.Pair{Investigation: h.keys[2].Public(), Oversight: h.keys[3].Public()}}
	h.open()
	t.Cleanup(func() { h.v.Close() })
	return h
}

func (h *house) options() Options {
	return Options{Dir: h.dir, Org: h.org, Escrow: h.e, State: h.state, Fault: func(place string) error {
		if h.fault == nil {
			return nil
		}
		return h.fault(place)
	}}
}

func (h *house) open() {
	h.t.Helper()
	var err error
	if h.v, err = Open(context.Background(), h.options()); err != nil {
		h.t.Fatal(err)
	}
}

// crash opens the vault anew, as after kill -9: nothing of the process is left.
func (h *house) crash() {
	h.t.Helper()
	h.v.Close()
	h.fault = nil
	h.open()
}

func (h *house) state(_ context.Context, w Window) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down {
		return errors.New("the ledger is away")
	}
	for _, have := range h.stated {
		if have.ID == w.ID {
			if have != w {
				h.t.Errorf("window %s was stated as %v and then as %v", w.ID, have, w)
			}
			return nil
		}
	}
	h.stated = append(h.stated, w)
	return nil
}

func (h *house) sees(names ...string) {
	h.t.Helper()
	t := h.v.Tokenizer(plainTokens{})
	for _, n := range names {
		if _, err := t.Token(event.Person, []byte(n)); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *house) keeps() {
	h.t.Helper()
	if err := h.v.Keep(context.Background(), "a", now); err != nil {
		h.t.Fatal(err)
	}
}

// erases erases the rows of somebody.
func (h *house) erases(statement string, names ...string) (int64, error) {
	h.t.Helper()
	var tokens []event.Token
	for _, n := range names {
		tokens = append(tokens, tokenOf(n))
	}
	places, err := h.v.Places(context.Background(), tokens)
	if err != nil {
		h.t.Fatal(err)
	}
	return h.v.Erase(context.Background(), statement, places)
}

func (h *house) closes() {
	h.t.Helper()
	if err := h.v.CloseWindow(context.Background()); err != nil {
		h.t.Fatal(err)
	}
}

// opens opens a row with both pairs and gives the name.
func (h *house) opens(name string) Identity {
	h.t.Helper()
	row, p, err := h.v.Find(context.Background(), tokenOf(name))
	if err != nil {
		h.t.Fatal(name, err)
	}
	if err := p.Check(row.Commitment()); err != nil {
		h.t.Error(err)
	}
	found := false
	for _, w := range h.stated {
		found = found || w == p.Window
	}
	if !found {
		h.t.Errorf("%s: the ledger does not know its window", name)
	}
	var got [2]Identity
	for i := range got {
		info := row.Info()
		info.Epoch = row.Epoch()
		inner, err := keyring.OpenOuter(h.keys[2*i+1], info, row.Boxes()[i].Box)
		if err != nil {
			h.t.Fatal(err)
		}
		plain, err := keyring.OpenInner(h.keys[2*i], info, inner)
		if err != nil {
			h.t.Fatal(err)
		}
		if got[i], err = ParseIdentity(plain); err != nil {
			h.t.Fatal(err)
		}
	}
	if !bytes.Equal(got[0].Canonical, got[1].Canonical) || string(got[0].Canonical) != name {
		h.t.Errorf("what was sealed is not what was seen")
	}
	return got[0]
}

func (h *house) counts() Counts {
	h.t.Helper()
	c, err := h.v.Counts(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// TestSealOnce: a name is sealed at its first sighting and never again, also in the next
// life of the process; both pairs open it, and nothing on the disk holds it.
func TestSealOnce(t *testing.T) {
	h := newHouse(t)
	h.sees("alice.planted", "bob.planted", "alice.planted")
	if _, _, err := h.v.Find(t.Context(), tokenOf("alice.planted")); !errors.Is(err, ErrNoSeal) {
		t.Errorf("before Keep: %v", err)
	}
	h.keeps()
	if _, _, err := h.v.Find(t.Context(), tokenOf("alice.planted")); !errors.Is(err, ErrOpen) {
		t.Errorf("in an open window: %v", err)
	}
	h.closes()
	row, _, err := h.v.Find(t.Context(), tokenOf("alice.planted"))
	if err != nil {
		t.Fatal(err)
	}
	h.crash()
	h.sees("alice.planted", "carol.planted")
	h.keeps()
	h.closes()
	again, p, err := h.v.Find(t.Context(), tokenOf("alice.planted"))
	if err != nil || !bytes.Equal(row.Bytes, again.Bytes) {
		t.Errorf("sealed again after a restart: %v", err)
	}
	at, _, err := h.v.At(t.Context(), p.Window.ID, p.Index)
	if err != nil || at.Token != row.Token {
		t.Errorf("by its place: %v", err)
	}
	for _, name := range []string{"alice.planted", "bob.planted", "carol.planted"} {
		h.opens(name)
	}
	if diff := cmp.Diff(Counts{Sealed: 3}, h.counts()); diff != "" {
		t.Error(diff)
	}
	if len(h.stated) != 2 || h.stated[0].N != 2 || h.stated[1].N != 1 {
		t.Errorf("the ledger was told %v", h.stated)
	}
	h.closes() // nothing came: nothing is stated
	if len(h.stated) != 2 {
		t.Error("an empty window was stated")
	}
	files, err := filepath.Glob(filepath.Join(h.dir, "vault", "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte("planted")) {
			t.Errorf("%s holds a name", f)
		}
		if st, err := os.Stat(f); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", f, st.Mode(), err)
		}
	}
}

// TestOfficers: without officers it is noted who has no seal; with officers they are
// sealed when they are seen again; other officers get seals of their own.
func TestOfficers(t *testing.T) {
	h := newHouse(t)
	e := h.e
	h.e = nil
	h.crash()
	h.sees("alice", "bob")
	h.keeps()
	h.closes()
	if got := h.counts(); got.Unsealed != 2 || got.Sealed != 0 {
		t.Errorf("without officers: %+v", got)
	}
	if len(h.stated) != 0 {
		t.Errorf("without officers the ledger was told %v", h.stated)
	}
	h.e = e
	h.crash()
	h.sees("alice")
	h.keeps()
	h.closes()
	h.opens("alice")
	if got := h.counts(); got.Unsealed != 1 || got.Sealed != 1 {
		t.Errorf("with officers: %+v", got)
	}
	h.e = &keyring.Escrow{Epoch: 4, Main: e.Spare, Spare: e.Main}
	h.crash()
	if got := h.counts(); got.Former != 1 || got.Sealed != 0 {
		t.Errorf("with other officers: %+v", got)
	}
	h.sees("alice")
	h.keeps()
	h.closes()
	row, _, err := h.v.Find(t.Context(), tokenOf("alice"))
	if err != nil || row.Epoch() != 4 {
		t.Errorf("for other officers: %v", err)
	}
	if got := h.counts(); got.Former != 0 || got.Sealed != 1 || got.Unsealed != 1 {
		t.Errorf("with other officers: %+v", got)
	}
	h.sees(strings.Repeat("long ", maxName)) // no name
	h.keeps()
	if got := h.counts(); got.Unsealed != 2 || got.Waiting != 0 {
		t.Errorf("what is no name: %+v", got)
	}
}

// TestFaults fails at each place, and dies at each place. What Keep answered nil for has a
// row afterwards, no place of a window is used twice, and no window is stated twice or grows
// after it was stated.
func TestFaults(t *testing.T) {
	for _, dies := range []bool{false, true} {
		for _, place := range []string{"sealed", "written", "committed", "stated"} {
			t.Run(fmt.Sprintf("%s dies=%v", place, dies), func(t *testing.T) {
				h := newHouse(t)
				kept := []string{"one"}
				h.sees("one")
				h.keeps()
				h.closes()
				broken := errors.New("broken")
				for round := range 4 {
					h.fault = func(at string) error {
						if at == place {
							return broken
						}
						return nil
					}
					name := fmt.Sprintf("name %d", round)
					h.sees(name)
					if err := h.v.Keep(t.Context(), "a", now); err == nil {
						kept = append(kept, name)
					} else if place == "stated" {
						t.Fatal(err)
					}
					if err := h.v.CloseWindow(t.Context()); err == nil && place == "stated" {
						t.Fatal("the fault did not come")
					}
					if dies {
						h.crash()
					}
					h.fault = nil
					h.sees("after " + name)
					h.keeps()
					kept = append(kept, "after "+name)
					if !dies { // what waited is kept with the next batch
						kept = append(kept, name)
					}
					if round%2 == 0 {
						h.closes()
					}
				}
				h.closes()
				for _, name := range kept {
					h.opens(name)
				}
				h.crash()
				w, err := h.v.Windows(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(h.stated, w); diff != "" {
					t.Errorf("ledger and vault differ: %s", diff)
				}
			})
		}
	}
}

// TestLedgerAway: sealing goes on, and the windows are stated when the ledger is back.
func TestLedgerAway(t *testing.T) {
	h := newHouse(t)
	h.down = true
	for i := range 3 {
		h.sees(fmt.Sprint("name ", i))
		h.keeps()
		if h.v.CloseWindow(t.Context()) == nil {
			t.Fatal("a window was stated in a ledger that is away")
		}
	}
	if _, _, err := h.v.Find(t.Context(), tokenOf("name 0")); !errors.Is(err, ErrOpen) {
		t.Errorf("a window that was not stated: %v", err)
	}
	h.down = false
	h.closes()
	for i := range 3 {
		h.opens(fmt.Sprint("name ", i))
	}
	if len(h.stated) != 3 {
		t.Errorf("the ledger was told %v", h.stated)
	}
}

// TestKeepTogether: many batches see the same new names at once; nobody is answered before
// the names of all that it saw are in the file.
func TestKeepTogether(t *testing.T) {
	h := newHouse(t)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 12 {
				name := fmt.Sprint("name ", (i*7+g)%20)
				h.sees(name)
				if err := h.v.Keep(context.Background(), "a", now); err != nil {
					t.Error(err)
				}
				var n int
				if err := h.v.db.QueryRow("SELECT count(*) FROM seals WHERE token = ?", string(tokenOf(name))).Scan(&n); err != nil || n != 1 {
					t.Errorf("after Keep there are %d rows of it, %v", n, err)
				}
				if i%5 == 4 {
					if err := h.v.CloseWindow(context.Background()); err != nil {
						t.Error(err)
					}
				}
			}
		}()
	}
	wg.Wait()
	h.closes()
	for i := range 20 {
		h.opens(fmt.Sprint("name ", i))
	}
}

// TestErase: the name of one is gone, the windows of all others still prove.
func TestErase(t *testing.T) {
	h := newHouse(t)
	h.sees("alice", "bob", "carol")
	h.keeps()
	h.closes()
	row, _, err := h.v.Find(t.Context(), tokenOf("bob"))
	if err != nil {
		t.Fatal(err)
	}
	lies := func() bool {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(h.dir, "vault", "*"))
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(b, row.Bytes[1000:1200]) {
				return true
			}
		}
		return false
	}
	if !lies() {
		t.Fatal("the box of nobody is looked for")
	}
	if n, err := h.erases("one", "bob"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if lies() {
		t.Error("the box of somebody who was erased is on the disk")
	}
	if _, _, err := h.v.Find(t.Context(), tokenOf("bob")); !errors.Is(err, ErrNoSeal) {
		t.Errorf("after it was erased: %v", err)
	}
	h.opens("alice")
	h.opens("carol")
	if n, err := h.erases("one", "bob"); n != 0 || err != nil {
		t.Error(n, err)
	}
	h.sees("bob") // who is seen again is sealed again
	h.keeps()
	h.closes()
	h.opens("bob")
}

// TestOtherFile: a file that is damaged or of another version is not replaced in silence.
func TestOtherFile(t *testing.T) {
	h := newHouse(t)
	h.v.Close()
	path := filepath.Join(h.dir, File)
	if err := os.WriteFile(path, bytes.Repeat([]byte("no database "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), h.options()); err == nil || !strings.Contains(err.Error(), "move it aside") {
		t.Errorf("a damaged file: %v", err)
	}
	for _, f := range []string{path, path + "-wal", path + "-shm"} {
		os.Remove(f)
	}
	h.open()
	h.sees("alice")
	h.keeps()
	h.closes()
	h.opens("alice")
}

// TestTampered: a row that was changed in the file proves nothing.
func TestTampered(t *testing.T) {
	h := newHouse(t)
	h.sees("alice", "bob")
	h.keeps()
	h.closes()
	other, err := Seal(h.e, h.org, tokenOf("alice"), Identity{event.Person, []byte("mallory")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.v.db.Exec("UPDATE seals SET row = ? WHERE token = ?", other.Bytes, string(tokenOf("alice"))); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.v.Find(t.Context(), tokenOf("alice")); !errors.Is(err, errProof) {
		t.Errorf("another box in the place of the first: %v", err)
	}
	h.opens("bob")
}

// TestBinding: a box opens for its token, its organisation and its layer alone.
func TestBinding(t *testing.T) {
	h := newHouse(t)
	row, err := Seal(h.e, h.org, tokenOf("alice"), Identity{event.Person, []byte("alice")})
	if err != nil {
		t.Fatal(err)
	}
	box := row.Boxes()[0].Box
	for name, change := range map[string]func(*keyring.SealInfo){
		"another token":        func(i *keyring.SealInfo) { i.Subject = string(tokenOf("bob")) },
		"another organisation": func(i *keyring.SealInfo) { i.Org = uuid.New() },
		"another epoch":        func(i *keyring.SealInfo) { i.Epoch++ },
		"another purpose":      func(i *keyring.SealInfo) { i.Purpose = "segment/originals" },
	} {
		i := row.Info()
		i.Epoch = row.Epoch()
		change(&i)
		if _, err := keyring.OpenOuter(h.keys[1], i, box); !errors.Is(err, keyring.ErrNotForKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	i := row.Info()
	i.Epoch = row.Epoch()
	for k, key := range h.keys {
		if _, err := keyring.OpenOuter(key, i, box); (err == nil) != (k == 1) {
			t.Errorf("key %d at the outer layer: %v", k, err)
		}
		if _, err := keyring.OpenInner(key, i, box); err == nil {
			t.Errorf("key %d opened the inner layer through the outer one", k)
		}
	}
}

// TestWindowTree holds root and path against the library that auditors use.
func TestWindowTree(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for n := 1; n < 40; n++ {
		leaves := make([][32]byte, n)
		var stored []tlog.Hash
		read := tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
			var out []tlog.Hash
			for _, i := range at {
				out = append(out, stored[i])
			}
			return out, nil
		})
		for i := range leaves {
			for j := range leaves[i] {
				leaves[i][j] = byte(rng.IntN(256))
			}
			hs, err := tlog.StoredHashes(int64(i), leaves[i][:], read)
			if err != nil {
				t.Fatal(err)
			}
			stored = append(stored, hs...)
		}
		want, err := tlog.TreeHash(int64(n), read)
		if err != nil || root(leaves) != want {
			t.Fatalf("%d leaves: another root, %v", n, err)
		}
		for i := range leaves {
			p := Proof{Window{"", int64(n), root(leaves)}, int64(i), path(leaves, i)}
			if err := p.Check(leaves[i]); err != nil {
				t.Errorf("leaf %d of %d: %v", i, n, err)
			}
			for _, change := range []func(*Proof){
				func(p *Proof) { p.Index++ }, func(p *Proof) { p.Window.Root[3] ^= 1 }, func(p *Proof) { p.Index = -1 },
				func(p *Proof) { p.Path = append(p.Path, [32]byte{}) }, func(p *Proof) { p.Path = make([][32]byte, 99) },
			} {
				q := p
				change(&q)
				if q.Check(leaves[i]) == nil {
					t.Errorf("leaf %d of %d: a changed proof holds", i, n)
				}
			}
		}
	}
}

func TestIdentityForm(t *testing.T) {
	for _, name := range []string{"alice", "a", strings.Repeat("x", 43), strings.Repeat("x", 44), "source\x00alice", "\xff\xfe", "ünïcode \u2028 <b>&", "trailing  "} {
		id := Identity{event.Mail, []byte(name)}
		b, err := id.Plaintext()
		if err != nil {
			t.Fatal(err)
		}
		if len(b)%64 != 0 {
			t.Errorf("%q: %d bytes", name, len(b))
		}
		got, err := ParseIdentity(b)
		if err != nil || got.Kind != id.Kind || string(got.Canonical) != name {
			t.Errorf("%q: %v", name, err)
		}
		if text := fmt.Sprintf("%v %+v %s %#v %q", got, got, got, got, got); strings.Contains(text, "alice") {
			t.Errorf("it is printed: %s", text)
		}
		if _, err := got.MarshalJSON(); err == nil {
			t.Error("it goes into JSON")
		}
	}
	pad := func(s string) []byte {
		b := []byte(s)
		for len(b)%64 != 0 {
			b = append(b, ' ')
		}
		return b
	}
	for _, bad := range []string{"", "{}", `{"identity":"a","kind":"p","v":2}`, `{"identity":"a","kind":"x","v":1}`, `{"identity":"","kind":"p","v":1}`, `{"bytes":"YQ","kind":"p","v":1}`,
		`{"identity":"a","kind":"p","more":1,"v":1}`, `{"kind":"p","identity":"a","v":1}`, `{"identity":"a","kind":"pp","v":1}`} {
		if _, err := ParseIdentity(pad(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if _, err := ParseIdentity([]byte(`{"identity":"a","kind":"p","v":1}`)); err == nil {
		t.Error("without its spaces it is taken")
	}
}

func FuzzParseRow(f *testing.F) {
	h := newHouse(f)
	row, err := Seal(h.e, h.org, tokenOf("alice"), Identity{event.Person, []byte("alice")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(row.Bytes)
	f.Add([]byte(`{"boxes":[],"org":"","token":"","v":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRow(b)
		if err != nil {
			return
		}
		if !bytes.Equal(r.Bytes, b) || len(r.Boxes()) != 2 || r.Epoch() < 1 {
			t.Errorf("a row that is not what was read")
		}
	})
}

func FuzzParseIdentity(f *testing.F) {
	for _, id := range []Identity{{event.Person, []byte("alice")}, {event.Address, []byte("\xff")}} {
		b, err := id.Plaintext()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := ParseIdentity(b)
		if err != nil {
			return
		}
		again, err := id.Plaintext()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("it has two forms: %v", err)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	h := newHouse(b)
	id := Identity{event.Person, []byte("alice@agency.example")}
	for b.Loop() {
		if _, err := Seal(h.e, h.org, tokenOf("alice"), id); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "identities/s")
}

// BenchmarkKeep is a batch of a thousand new names, until they are durable.
func BenchmarkKeep(b *testing.B) {
	h := newHouse(b)
	n := 0
	for b.Loop() {
		for range 1000 {
			h.sees(fmt.Sprint("name ", n))
			n++
		}
		h.keeps()
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "identities/s")
}

// BenchmarkKnown is what a name costs that has its row.
func BenchmarkKnown(b *testing.B) {
	h := newHouse(b)
	h.sees("alice")
	h.keeps()
	t := tokenOf("alice")
	name := []byte("alice")
	b.ReportAllocs()
	for b.Loop() {
		if err := h.v.see(t, event.Person, name); err != nil {
			b.Fatal(err)
		}
		if err := h.v.Keep(context.Background(), "a", now); err != nil {
			b.Fatal(err)
		}
	}
}
