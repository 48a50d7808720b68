package report

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/ledger"
)

// names is what a checker says is wrong, as one text.
func names(c *Checked) string {
	var out []string
	for _, p := range c.Problems {
		out = append(out, p.File)
	}
	return strings.Join(out, ",")
}

// TestFlipInContainer: one changed byte anywhere in a sealed file is found with and
// without the key, and booked on the part that it is in.
func TestFlipInContainer(t *testing.T) {
	h := newHouse(t)
	h.fill(t, 12)
	path, _ := h.pack(t, nil)
	whole, err := os.ReadFile(path)
	fatal(t, err)
	f, err := os.Open(path)
	fatal(t, err)
	defer f.Close()
	box, err := splitContainer(f, int64(len(whole)))
	fatal(t, err)
	fatal(t, box.readHead())
	body := int(box.body)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	at := []int{0, 7, 8, 11, 12, int(box.at) - 1, int(box.at), int(box.at) + 1, int(box.at) + 4, int(box.at) + 5, body - 1, body, body + 1, len(whole) - 77, len(whole) - 13, len(whole) - 12, len(whole) - 9, len(whole) - 1}
	for range 150 {
		at = append(at, rng.IntN(len(whole)))
	}
	for range 60 {
		at = append(at, body+rng.IntN(len(whole)-body))
	}
	for n, i := range at {
		b := append([]byte(nil), whole...)
		b[i] ^= 1 << rng.IntN(8)
		want := PartContainer
		if i >= body {
			want = PartMade
		}
		for _, key := range []*RecipientKey{nil, h.key} {
			c, err := verifyReader(context.Background(), readerAt(b), int64(len(b)), key, h.trust, nil)
			if err != nil || names(c) != want {
				t.Fatalf("%d: byte %d of %d (body %d): %v %v, want %s", n, i, len(b), body, c, err, want)
			}
		}
	}
	for _, n := range []int{0, 1, endLen, len(whole) / 2, len(whole) - 1} { // cut short
		c, err := verifyReader(context.Background(), readerAt(whole[:n]), int64(n), h.key, h.trust, nil)
		if err != nil || c.OK() {
			t.Fatal(n, c, err)
		}
	}
	c, err := verifyReader(context.Background(), readerAt(append(whole, 0)), int64(len(whole)+1), h.key, h.trust, nil)
	if err != nil || c.OK() {
		t.Fatal(c, err)
	}
}

type readerAt []byte

func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(r).ReadAt(p, off)
}

// opened makes a package and opens it.
func (h *house) opened(t testing.TB) string {
	t.Helper()
	path, _ := h.pack(t, nil)
	dir := filepath.Join(t.TempDir(), "bag")
	c, err := Open(context.Background(), path, h.key, h.trust, dir)
	fatal(t, err)
	if !c.OK() {
		t.Fatal(c.Problems)
	}
	return dir
}

func filesOf(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	fatal(t, fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, p)
		}
		return err
	}))
	return out
}

// TestFlipInBag: one changed byte in any file of an opened package is booked on that
// file and no other; so are files that are missing, added or linked.
func TestFlipInBag(t *testing.T) {
	h := newHouse(t)
	h.fill(t, 12)
	dir := h.opened(t)
	check := func(want, what string) {
		t.Helper()
		c, err := VerifyBag(context.Background(), dir, h.trust)
		if err != nil || names(c) != want {
			t.Fatalf("%s: %v %v, want %q", what, c, err, want)
		}
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	for _, name := range filesOf(t, dir) {
		path := filepath.Join(dir, name)
		whole, err := os.ReadFile(path)
		fatal(t, err)
		for range 12 {
			b := append([]byte(nil), whole...)
			b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
			fatal(t, os.WriteFile(path, b, 0o600))
			check(name, "flip")
		}
		fatal(t, os.Remove(path))
		check(name, "missing")
		fatal(t, os.Symlink(filepath.Join(dir, "other"), path))
		if c, err := VerifyBag(context.Background(), dir, h.trust); err == nil && c.OK() {
			t.Fatal("a link")
		}
		fatal(t, os.Remove(path))
		fatal(t, os.WriteFile(path, whole, 0o600))
	}
	check("", "whole again")
	extra := filepath.Join(dir, "data", "ledger", "999999999999.json")
	fatal(t, os.WriteFile(extra, []byte("{}"), 0o600))
	check("data/ledger/999999999999.json", "added")
	fatal(t, os.Remove(extra))
	fatal(t, os.WriteFile(filepath.Join(dir, "run.sh"), []byte("x"), 0o600))
	check("run.sh", "added")
}

// rewrite changes a file of a bag and then makes the manifests fit, as somebody does
// who made the package: only the ledger stands in the way.
func rewrite(t *testing.T, dir, name string, change func(string) string) {
	t.Helper()
	edit := func(name string, change func(string) string) (before, after string) {
		path := filepath.Join(dir, name)
		b, err := os.ReadFile(path)
		fatal(t, err)
		n := change(string(b))
		if n == string(b) {
			t.Fatal("nothing changed in", name)
		}
		fatal(t, os.WriteFile(path, []byte(n), 0o600))
		a, z := sha256.Sum256(b), sha256.Sum256([]byte(n))
		return hex.EncodeToString(a[:]), hex.EncodeToString(z[:])
	}
	a, b := edit(name, change)
	a, b = edit(nameManifest, func(s string) string { return strings.Replace(s, a, b, 1) })
	edit(nameTagManifest, func(s string) string { return strings.Replace(s, a, b, 1) })
}

// TestLiesInside: a maker who lies, and has the ledger say so, is found too, by both
// verifiers, and booked on the same file.
func TestLiesInside(t *testing.T) {
	bin := buildSecond(t)
	h := newHouse(t)
	h.fill(t, 12)
	for _, lie := range []struct {
		name   string
		find   string
		change func(string) string
	}{
		{"a view", "data/records/", func(s string) string { return strings.Replace(s, `"n","0"`, `"n","7"`, 1) }},
		{"a record left out", "data/records/", func(s string) string { return s[strings.Index(s, "\n")+1:] }},
		{"a record twice", "data/records/", func(s string) string { i := strings.Index(s, "\n") + 1; return s[:i] + s }},
		{"a salt", "data/records/", func(s string) string {
			i := strings.Index(s, `"salt":"`) + 8
			return s[:i] + strings.Repeat("0", 64) + s[i+64:]
		}},
		{"a path", "data/records/", func(s string) string { return strings.Replace(s, `"path":["`, `"path":["00`, 1) }},
		{"a sibling", "data/records/", func(s string) string {
			i := strings.Index(s, `"path":["`) + 9
			return s[:i] + strings.Map(func(r rune) rune { return '0' + ('f'-r)%10 }, s[i:i+64]) + s[i+64:]
		}},
		{"an ordinal", "data/records/", func(s string) string { return strings.Replace(s, `"ordinal":0`, `"ordinal":1`, 1) }},
		{"the scope", "data/package.json", func(s string) string { return strings.Replace(s, `"sources":[]`, `"sources":["idp"]`, 1) }},
		{"the count", "data/package.json", func(s string) string { return strings.Replace(s, `"records":12`, `"records":11`, 1) }},
		{"a statement", "data/ledger/", func(s string) string { return strings.Replace(s, `"seq":"`, `"seq":"9`, 1) }},
	} {
		dir := h.opened(t)
		var name string
		for _, f := range filesOf(t, dir) {
			b, err := os.ReadFile(filepath.Join(dir, f))
			fatal(t, err)
			if strings.HasPrefix(f, lie.find) && lie.change(string(b)) != string(b) {
				name = f
			}
		}
		if name == "" {
			t.Fatal(lie.name, "fits no file")
		}
		rewrite(t, dir, name, lie.change)
		c, err := VerifyBag(context.Background(), dir, h.trust)
		if err != nil || names(c) != nameTagManifest {
			t.Fatalf("%s: %v %v", lie.name, c, err)
		}
		h.restate(t, dir)
		c, err = VerifyBag(context.Background(), dir, h.trust)
		if err != nil || c.OK() {
			t.Fatalf("%s in %s was not found: %v %v", lie.name, name, c, err)
		}
		t.Logf("%s: %v", lie.name, c.Problems)
		code, also, out := second(t, bin, "--log", h.trust.Log[0], "--witness", h.trust.Witnesses[0].VKey, dir)
		if code != 1 || also != names(c) {
			t.Errorf("%s: the second verifier names %q, the first %q\n%s", lie.name, also, names(c), out)
		}
	}
}

// restate makes the ledger say that a changed bag is a package of its own.
func (h *house) restate(t *testing.T, dir string) {
	t.Helper()
	ctx := context.Background()
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		fatal(t, err)
		return b
	}
	old, err := parseMade(read(PartMade))
	fatal(t, err)
	st, err := ledger.Parse([]byte(old.Statement))
	fatal(t, err)
	var d madeDetail
	fatal(t, json.Unmarshal(st.Detail, &d))
	d.Bag = hexOf(sha256.Sum256(read(nameTagManifest)))
	r, err := h.Recorder.Critical(ctx, attest.Act{Kind: st.Kind, Actor: st.Actor, Purpose: st.Purpose, Subject: st.Subject, Detail: d})
	fatal(t, err)
	leaf, proof, err := h.statement(ctx, r.Index)
	fatal(t, err)
	b, err := encodeMade(leaf, proof)
	fatal(t, err)
	fatal(t, os.WriteFile(filepath.Join(dir, PartMade), b, 0o600))
}
