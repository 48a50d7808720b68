package report

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/keyring"
)

// unlock opens the key of a segment of originals as its two officers do.
func (h *house) unlock(t *testing.T, ref event.Ref) *evidence.UnlockedKey {
	t.Helper()
	k, err := evidence.ReadSealedKey(h.dir, ref.Segment)
	fatal(t, err)
	box := k.Boxes()[0]
	info := k.Info()
	info.Epoch = box.Epoch
	inner, err := keyring.OpenOuter(h.officers[1], info, box.Box)
	fatal(t, err)
	secret, err := keyring.OpenInner(h.officers[0], info, inner)
	fatal(t, err)
	file, err := k.KeyFile(secret, h.now.Add(time.Hour), [32]byte{1})
	fatal(t, err)
	key, err := evidence.ParseKeyFile(file, h.now)
	fatal(t, err)
	return key
}

// TestOriginals: bytes as received go along where their key was unlocked and every
// token of every event of them is one of the authorisation, inside the scope and out
// of it; both verifiers check them; without the key none goes along.
func TestOriginals(t *testing.T) {
	bin := buildSecond(t)
	h := newHouse(t)
	ctx := context.Background()
	raw := [][]byte{[]byte("login alice \x1b[31m"), []byte("login bob"), {0xff, 0xfe, 0}, []byte("login alice and bob"), []byte("of another source")}
	var recs [][]byte
	for _, r := range raw {
		recs = append(recs, append([]byte{1, byte(event.TypeOriginal)}, r...))
	}
	first, err := h.Evidence.Append(ctx, evidence.Originals, "identity", recs)
	fatal(t, err)
	at := h.now
	h.put(t, "identity",
		h.event("idp", at, first, "who", string(tokenA)),
		h.event("idp", at, first.Next(1), "who", string(tokenB)),
		h.event("idp", at, first.Next(2), "who", string(tokenA), "who", string(tokenA)),
		h.event("idp", at, first.Next(3), "who", string(tokenA)),
		h.event("web", at, first.Next(3), "who", string(tokenB)), // outside the scope, of the same bytes
		h.event("web", at, first.Next(4), "who", string(tokenA)),
		h.event("idp", at, event.Ref{}, "n", "no original"))
	fatal(t, h.Settle(ctx))
	key := h.unlock(t, first)

	_, none := h.pack(t, func(r *Request) { r.Scope.Sources = []string{"idp"} })
	if m := none; m.Originals != 0 || m.Records != 5 || m.Withheld != 0 {
		t.Fatalf("%+v", m)
	}
	path, m := h.pack(t, func(r *Request) { r.Scope.Sources, r.Unlocked = []string{"idp"}, []*evidence.UnlockedKey{key} })
	if m.Originals != 2 || m.Records != 5 || m.Withheld != 2 || m.Segments != 2 {
		t.Fatalf("%+v", m)
	}
	dir := filepath.Join(t.TempDir(), "bag")
	c, err := Open(ctx, path, h.key, h.trust, dir)
	if err != nil || !c.OK() || c.Originals != 2 {
		t.Fatal(c, err)
	}
	if code, _, out := second(t, bin, "--log", h.trust.Log[0], "--witness", h.trust.Witnesses[0].VKey, dir); code != 0 || !strings.Contains(out, "5 records, 2 originals, 2 segments") {
		t.Fatal(code, out)
	}
	var got []byte
	for _, f := range filesOf(t, dir) {
		if strings.HasPrefix(f, dirOriginals) {
			b, err := os.ReadFile(filepath.Join(dir, f))
			fatal(t, err)
			got = append(got, b...)
		}
	}
	if bytes.Count(got, []byte("\n")) != 2 || !bytes.Contains(got, []byte("login alice")) || bytes.Contains(got, []byte("bob")) || bytes.Contains(got, []byte(b64(recs[1]))) {
		t.Fatalf("%s", got)
	}
	// A key whose time is over opens nothing.
	h.now = h.now.Add(2 * time.Hour)
	req := h.request()
	req.Unlocked = []*evidence.UnlockedKey{key}
	if _, err := h.Create(ctx, req, filepath.Join(t.TempDir(), "p")); err == nil {
		t.Fatal("made with a key whose time is over")
	}
	// A question that finds one event takes that one.
	refs := []event.Ref{}
	_, err = h.Evidence.Read(ctx, evidence.Events, "identity", evidence.Position{}, func(ref event.Ref, _ []byte) error { refs = append(refs, ref); return nil })
	fatal(t, err)
	_, m = h.pack(t, func(r *Request) { r.Scope.Query, r.Scope.Refs = `n = "no original"`, refs[len(refs)-1:] })
	if m.Records != 1 || m.Originals != 0 {
		t.Fatalf("%+v", m)
	}
}
