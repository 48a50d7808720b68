package attest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/evidence"
)

// edits are ways of somebody who can write to the disk and has no key.
var edits = []struct {
	name string
	do   func(draw *rand.Rand, path, other string) error
}{
	{"flip a bit", func(draw *rand.Rand, path, _ string) error {
		return change(path, func(b []byte) []byte { b[draw.IntN(len(b))] ^= 1 << draw.IntN(8); return b })
	}},
	{"cut the end off", func(draw *rand.Rand, path, _ string) error {
		return change(path, func(b []byte) []byte { return b[:draw.IntN(len(b))] })
	}},
	{"cut a piece out", func(draw *rand.Rand, path, _ string) error {
		return change(path, func(b []byte) []byte {
			i := draw.IntN(len(b))
			j := i + 1 + draw.IntN(len(b)-i)
			return append(bytes.Clone(b[:i]), b[j:]...)
		})
	}},
	{"exchange two pieces", func(draw *rand.Rand, path, _ string) error {
		return change(path, func(b []byte) []byte {
			n := 1 + draw.IntN(max(1, len(b)/3))
			x, y := bytes.Clone(b[:n]), bytes.Clone(b[len(b)-n:])
			copy(b, y)
			copy(b[len(b)-n:], x)
			return b
		})
	}},
	{"remove it", func(_ *rand.Rand, path, _ string) error { return os.Remove(path) }},
	{"put another in its place", func(_ *rand.Rand, path, other string) error {
		b, err := os.ReadFile(other)
		if err != nil {
			return err
		}
		return change(path, func([]byte) []byte { return b })
	}},
}

func change(path string, to func([]byte) []byte) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	return os.WriteFile(path, to(bytes.Clone(b)), 0o600)
}

// TestRandomEditsAreFound: whatever is changed in evidence and in the log, Verify finds
// it and names the file, or the segment or statement in it.
func TestRandomEditsAreFound(t *testing.T) {
	h := newHouse(t)
	for i := range 4 {
		for _, c := range []string{"a", "b"} {
			h.append(c, "one", strings.Repeat("two", i+1), fmt.Sprint(i))
		}
		if err := h.store.Rotate(); err != nil {
			t.Fatal(err)
		}
	}
	h.append("a", "the last one")
	payload, err := h.rec.Ledger().PutPayload([]byte("what somebody asked"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.rec.Record(t.Context(), Act{Kind: "request.served", Actor: "os:1000", Detail: map[string]any{"route": "x", "status": 200, "question": payload}}); err != nil {
		t.Fatal(err)
	}
	h.close()
	h.sound()

	var targets []string
	err = filepath.WalkDir(h.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(h.dir, path)
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case st.Size() == 0, strings.Contains(rel, ".state/"), strings.HasPrefix(rel, "keys"), strings.HasPrefix(rel, "state"):
		case rel == "ledger/outbox", rel == "ledger/log.vkey", strings.HasSuffix(rel, "lock"): // no truth stands in them
		default:
			targets = append(targets, rel)
		}
		return nil
	})
	if err != nil || len(targets) < 14 {
		t.Fatal(targets, err)
	}
	rounds := 300
	if testing.Short() {
		rounds = 60
	}
	seed := uint64(time.Now().UnixNano())
	draw := rand.New(rand.NewPCG(seed, 2))
	whole := h.dir
	for range rounds {
		h.dir = filepath.Join(t.TempDir(), "d")
		if err := os.CopyFS(h.dir, os.DirFS(whole)); err != nil {
			t.Fatal(err)
		}
		rel, other := targets[draw.IntN(len(targets))], targets[draw.IntN(len(targets))]
		e := edits[draw.IntN(len(edits))]
		before, err := os.ReadFile(filepath.Join(h.dir, rel))
		if err != nil {
			t.Fatal(err)
		}
		if err := e.do(draw, filepath.Join(h.dir, rel), filepath.Join(h.dir, other)); err != nil {
			t.Fatal(err)
		}
		after, err := os.ReadFile(filepath.Join(h.dir, rel))
		gone := err != nil
		if !gone && bytes.Equal(before, after) || gone && (strings.HasPrefix(rel, "ledger/payloads/") || collected(whole, rel)) {
			os.RemoveAll(h.dir)
			continue // nothing was changed, or what may go went
		}
		bad := h.check()
		name := strings.TrimSuffix(filepath.Base(rel), filepath.Ext(rel)) // a segment
		if strings.HasPrefix(rel, "ledger/") {
			name = "log" // which of tile, entries and checkpoint lies is not always to be told
		}
		if len(bad) == 0 || !strings.Contains(strings.Join(bad, "\n"), name) && !strings.HasPrefix(rel, "ledger/") {
			t.Fatalf("seed %d: %s %s (%s): found %q", seed, e.name, rel, other, bad)
		}
		os.RemoveAll(h.dir)
	}
}

// collected tells whether a file is a partial tile that a wider one has replaced: the log
// library removes it in its own time.
func collected(root, rel string) bool {
	dir, width := filepath.Split(rel)
	if !strings.HasSuffix(dir, ".p/") {
		return false
	}
	own, err := strconv.Atoi(width)
	if err != nil {
		return false
	}
	des, err := os.ReadDir(filepath.Join(root, dir))
	if err != nil {
		return false
	}
	for _, d := range des {
		if n, err := strconv.Atoi(d.Name()); err == nil && n > own {
			return true
		}
	}
	return false
}

// TestVerifyBesideTheWriter: while statements are made, Verify sees a sound directory
// and does not take the lock away from the writer.
func TestVerifyBesideTheWriter(t *testing.T) {
	h := newHouse(t)
	done := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if _, err := h.store.Append(t.Context(), evidence.Events, "a", [][]byte{[]byte(fmt.Sprint(i))}); err != nil {
				done <- err
				return
			}
			if i%7 == 0 {
				if err := errors.Join(h.store.Rotate(), h.segs.Flush(t.Context(), h.store)); err != nil {
					done <- err
					return
				}
			}
		}
	}()
	for range 15 {
		h.sound()
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Options{State: h.state, Ledger: h.options()}); err == nil {
		t.Fatal("a second writer came in: the lock was lost")
	}
	h.close()
	h.sound()
}
