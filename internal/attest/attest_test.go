package attest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/state"
)

func TestMain(m *testing.M) {
	ledger.RouteLibraryLog(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

// house is a data directory with evidence, ledger and state.
type house struct {
	t     *testing.T
	dir   string
	key   ed25519.PrivateKey
	keys  *keyring.Keyring
	rec   *Recorder
	segs  *Segments
	state *state.DB
	store *evidence.Store
}

const origin = "counterseal/test"

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir(), key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))}
	h.open()
	return h
}

func (h *house) open() {
	h.t.Helper()
	var err error
	if h.keys, err = keyring.Open(h.dir); err != nil {
		h.t.Fatal(err)
	}
	if h.state, err = state.Open(filepath.Join(h.dir, "state")); err != nil {
		h.t.Fatal(err)
	}
	h.rec, err = Open(h.t.Context(), Options{State: h.state, Ledger: h.options()})
	if err != nil {
		h.t.Fatal(err)
	}
	h.segs = h.rec.Segments()
	h.store, err = evidence.Open(evidence.Options{Dir: h.dir, Keys: h.keys, Opened: h.segs.Opened, Settled: h.segs.Settled})
	if err != nil {
		h.t.Fatal(err)
	}
	if err := h.segs.Reconcile(h.t.Context(), h.store); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) options() ledger.Options {
	return ledger.Options{Dir: filepath.Join(h.dir, "ledger"), Origin: origin, Key: h.key, Node: "n1"}
}

func (h *house) close() {
	h.t.Helper()
	ctx := context.Background()
	if err := errors.Join(h.store.Close(), h.segs.Flush(ctx, h.store), h.rec.Close(), h.state.Close()); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) append(compartment string, texts ...string) {
	h.t.Helper()
	var recs [][]byte
	for _, s := range texts {
		recs = append(recs, []byte(s))
	}
	if _, err := h.store.Append(h.t.Context(), evidence.Events, compartment, recs); err != nil {
		h.t.Fatal(err)
	}
}

// check verifies the directory by its files alone.
func (h *house) check() []string {
	h.t.Helper()
	vkey, err := ledger.VKey(origin, h.key.Public().(ed25519.PublicKey))
	if err != nil {
		h.t.Fatal(err)
	}
	r, err := Verify(h.t.Context(), h.dir, VerifyOptions{Log: []string{vkey}})
	if err != nil {
		h.t.Fatal(err)
	}
	var out []string
	for _, p := range r.Evidence.Problems {
		out = append(out, p.String())
	}
	for _, f := range r.Ledger.Findings {
		out = append(out, f.String())
	}
	for _, p := range r.Problems {
		out = append(out, p.String())
	}
	return out
}

func (h *house) sound() {
	h.t.Helper()
	if bad := h.check(); len(bad) > 0 {
		h.t.Fatalf("nothing was changed, and:\n%s", strings.Join(bad, "\n"))
	}
}

// names fails unless some problem holds every one of the words.
func (h *house) names(words ...string) {
	h.t.Helper()
	bad := h.check()
	for _, b := range bad {
		all := true
		for _, w := range words {
			all = all && strings.Contains(b, w)
		}
		if all {
			return
		}
	}
	h.t.Fatalf("no problem names %q:\n%s", words, strings.Join(bad, "\n"))
}

func (h *house) files(compartment, pattern string) []string {
	h.t.Helper()
	fs, err := filepath.Glob(filepath.Join(h.dir, "evidence", "events", compartment, pattern))
	if err != nil {
		h.t.Fatal(err)
	}
	return fs
}

func TestStatementsAreFoundAtOnceAndAfterRebuild(t *testing.T) {
	h := newHouse(t)
	index, err := h.rec.Record(t.Context(), Act{Kind: "hold.placed", Actor: "os:1000", Subject: []string{"h1"}, Detail: map[string]any{"scope": map[string]any{"source": "a"}, "authority": "x"}})
	if err != nil {
		t.Fatal(err)
	}
	f, ok, err := h.rec.Fact(t.Context(), "hold.placed", "h1")
	if err != nil || !ok || f.Index != index || f.Actor != "os:1000" || !strings.Contains(string(f.Detail), `"source":"a"`) {
		t.Fatalf("%+v %v %v", f, ok, err)
	}
	if _, ok, _ := h.rec.Fact(t.Context(), "hold.released", "h1"); ok {
		t.Fatal("a statement that nobody made")
	}
	before, err := h.rec.Facts(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.rec.Rebuild(t.Context()); err != nil {
		t.Fatal(err)
	}
	after, err := h.rec.Facts(t.Context(), "")
	if err != nil || len(after) != len(before) || !same(after[0], before[0]) {
		t.Fatalf("rebuilt otherwise: %v %v %v", before, after, err)
	}
	if bad, err := h.rec.Differences(t.Context()); err != nil || len(bad) > 0 {
		t.Fatal(bad, err)
	}
	h.close()
	if err := os.RemoveAll(filepath.Join(h.dir, "state")); err != nil {
		t.Fatal(err)
	}
	h.open()
	defer h.close()
	if f, ok, err := h.rec.Fact(t.Context(), "hold.placed", "h1"); err != nil || !ok || f.Index != index {
		t.Fatal("a deleted state was not made again", ok, err)
	}
}

func TestCriticalActsWaitForAWitness(t *testing.T) {
	h := newHouse(t)
	defer h.close()
	_, err := h.rec.Critical(t.Context(), Act{Kind: "destruction.intended", Actor: System, Subject: []string{"s"}, Detail: map[string]any{"rule": "r", "after": "t"}})
	if !errors.Is(err, ErrNoWitness) || !errors.Is(err, ledger.ErrUnwitnessed) {
		t.Fatal(err)
	}
	if _, ok, _ := h.rec.Fact(t.Context(), "destruction.intended", "s"); ok {
		t.Fatal("an act that nobody could witness was stated")
	}
}

// TestVerifyNamesWhatTheLedgerKnowsOtherwise is the tamper suite of the joint: each
// change leaves segments that agree with themselves.
func TestVerifyNamesWhatTheLedgerKnowsOtherwise(t *testing.T) {
	fill := func(t *testing.T) *house {
		h := newHouse(t)
		for i := range 3 {
			h.append("a", "one", "two", strings.Repeat("three", i+1))
			h.append("b", "other")
			if err := h.store.Rotate(); err != nil {
				t.Fatal(err)
			}
		}
		h.close()
		h.sound()
		return h
	}
	t.Run("the last segment is removed", func(t *testing.T) {
		h := fill(t)
		fs := h.files("a", "*.seg")
		if len(fs) == 0 {
			fs = h.files("a", "*")
		}
		last := fs[len(fs)-1]
		if err := os.Remove(last); err != nil {
			t.Fatal(err)
		}
		id := strings.TrimSuffix(filepath.Base(last), filepath.Ext(last))
		h.names("events/a/"+id, "taken away")
	})
	t.Run("a whole compartment is removed", func(t *testing.T) {
		h := fill(t)
		if err := os.RemoveAll(filepath.Join(h.dir, "evidence", "events", "b")); err != nil {
			t.Fatal(err)
		}
		h.names("events/b/", "taken away")
	})
	t.Run("a key card is removed", func(t *testing.T) {
		h := fill(t)
		cards, err := filepath.Glob(filepath.Join(h.dir, "keys", "segments", "*"))
		if err != nil || len(cards) == 0 {
			t.Fatal(cards, err)
		}
		if err := os.Remove(cards[0]); err != nil {
			t.Fatal(err)
		}
		h.names("key card is gone and no statement")
	})
	t.Run("a key card is made empty", func(t *testing.T) {
		h := fill(t)
		cards, err := filepath.Glob(filepath.Join(h.dir, "keys", "segments", "*"))
		if err != nil || len(cards) == 0 {
			t.Fatal(cards, err)
		}
		other, err := os.ReadFile(cards[1])
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"", "{}\n", string(other)} {
			if err := os.WriteFile(cards[0], []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			h.names("card")
		}
	})
	t.Run("the ledger is removed", func(t *testing.T) {
		h := fill(t)
		if err := os.WriteFile(filepath.Join(h.dir, "VERSION"), []byte("counterseal data 1\nledger 1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		h.sound()
		if err := os.RemoveAll(filepath.Join(h.dir, "ledger")); err != nil {
			t.Fatal(err)
		}
		r, err := Verify(t.Context(), h.dir, VerifyOptions{})
		if err != nil || r.OK() {
			t.Fatal("a ledger that was taken away is not missed", err)
		}
	})
	t.Run("a compartment is written anew by somebody with the keys", func(t *testing.T) {
		h := fill(t)
		if err := os.RemoveAll(filepath.Join(h.dir, "evidence", "events", "b")); err != nil {
			t.Fatal(err)
		}
		s, err := evidence.Open(evidence.Options{Dir: h.dir, Keys: h.keys})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Append(t.Context(), evidence.Events, "b", [][]byte{[]byte("invented")}); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		h.names("events/b/", "put in")
	})
	t.Run("the state says otherwise", func(t *testing.T) {
		h := fill(t)
		s, err := state.Open(filepath.Join(h.dir, "state"))
		if err != nil {
			t.Fatal(err)
		}
		next, err := s.Told(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Tell(t.Context(), next, []state.Fact{{Kind: "hold.released", Key: "h", Time: time.Now(), Actor: "os:0"}}); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		h.names("state/state.db", "hold.released", "no statement")
		h.open()
		if bad, err := h.rec.Differences(t.Context()); err != nil || len(bad) != 1 {
			t.Fatalf("doctor would say %v, %v", bad, err)
		}
		if err := h.rec.Rebuild(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.close()
		h.sound()
	})
	t.Run("the state keeps a look from whoever reviews", func(t *testing.T) {
		h := fill(t)
		h.open()
		for _, id := range []string{"look-1", "look-2"} {
			if _, err := h.rec.Record(t.Context(), Act{Kind: "request.served", Actor: "os:0", Subject: []string{id}, Detail: map[string]any{"route": "r", "status": 200, "cover": "c"}}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := h.rec.Record(t.Context(), Act{Kind: "look.reviewed", Actor: "os:0", Subject: []string{"look-2"}, Detail: map[string]any{"look": "look-2", "outcome": "justified"}}); err != nil {
			t.Fatal(err)
		}
		if f, ok, err := h.rec.Fact(t.Context(), CoverUsed, "c"); err != nil || !ok || f.Detail != nil {
			t.Errorf("what covered a look: %+v, %v, %v", f, ok, err)
		}
		if waits, err := h.rec.Looks(t.Context(), time.Now().Add(time.Hour)); err != nil || len(waits) != 1 || waits[0].Key != "look-1" || waits[0].Settled != state.Waits {
			t.Errorf("%+v, %v", waits, err)
		}
		h.close()
		h.sound()
		db, err := sql.Open("sqlite", "file:"+filepath.Join(h.dir, "state", "state.db"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec("UPDATE facts SET settled = 1 WHERE key = 'look-1'"); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		h.names("state/state.db", "request.served", "look-1", "otherwise")
	})
}

// TestProgressIsHeldAgainstAnOpenSegment: a process that was killed leaves a segment
// open; what the ledger saw of it can neither be cut off nor be written anew.
func TestProgressIsHeldAgainstAnOpenSegment(t *testing.T) {
	h := newHouse(t)
	h.append("a", "one", "two")
	h.append("a", "three")
	for end := time.Now().Add(10 * time.Second); h.store.Heads()[0].Records < 3; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the head does not follow")
		}
	}
	if err := h.segs.Flush(t.Context(), h.store); err != nil {
		t.Fatal(err)
	}
	size := h.rec.Ledger().Size()
	if err := h.segs.Flush(t.Context(), h.store); err != nil {
		t.Fatal(err)
	}
	if h.rec.Ledger().Size() != size {
		t.Fatal("nothing was written, and progress was stated")
	}
	h.append("a", "four") // after the statement
	copied := filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(copied, os.DirFS(h.dir)); err != nil {
		t.Fatal(err)
	}
	h.close()
	h.dir = copied
	h.sound()
	path := h.files("a", "*.open")[0]
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.LastIndex(b, []byte("CSBK"))
	third := bytes.LastIndex(b[:at], []byte("CSBK"))
	if err := os.WriteFile(path, b[:at], 0o600); err != nil { // what came after: not known to the ledger
		t.Fatal(err)
	}
	h.sound()
	if err := os.WriteFile(path, b[:third], 0o600); err != nil {
		t.Fatal(err)
	}
	h.names("events/a/", "its end was cut off")
}

// TestSegmentsClosedInACrashAreStated: the process dies between the footer and the
// statement, or the directory is from before there was a ledger.
func TestSegmentsClosedInACrashAreStated(t *testing.T) {
	h := newHouse(t)
	h.append("a", "one")
	if err := errors.Join(h.store.Close(), h.rec.Close(), h.state.Close()); err != nil { // without Flush
		t.Fatal(err)
	}
	h.open()
	closed, err := h.rec.Facts(t.Context(), "segment.closed")
	if err != nil || len(closed) != 1 {
		t.Fatal(closed, err)
	}
	h.close()
	h.sound()
	for _, d := range []string{"ledger", "state"} {
		if err := os.RemoveAll(filepath.Join(h.dir, d)); err != nil {
			t.Fatal(err)
		}
	}
	h.open()
	h.append("a", "two")
	h.close()
	h.sound()
}

// TestASegmentTakesNothingBeforeTheLedgerKnowsIt: with a ledger that is closed, no
// record is accepted.
func TestASegmentTakesNothingBeforeTheLedgerKnowsIt(t *testing.T) {
	h := newHouse(t)
	if err := h.rec.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := h.store.Append(t.Context(), evidence.Events, "a", [][]byte{[]byte("one")})
	if !errors.Is(err, ledger.ErrClosed) {
		t.Fatalf("accepted before it was stated: %v", err)
	}
	if err := errors.Join(h.store.Close(), h.state.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestALedgerWrittenAnewIsFound: somebody takes evidence and ledger away and writes
// both anew with another key; all fits together, and the key known from elsewhere or a
// checkpoint kept elsewhere does not.
func TestALedgerWrittenAnewIsFound(t *testing.T) {
	h := newHouse(t)
	h.append("a", "one", "two")
	if _, err := h.rec.Record(t.Context(), Act{Kind: "state.rebuilt", Actor: System, Detail: map[string]any{"views": "x"}}); err != nil {
		t.Fatal(err)
	}
	h.close()
	kept, err := os.ReadFile(filepath.Join(h.dir, "ledger", "log", "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	known, err := ledger.VKey(origin, h.key.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"ledger", "state", "evidence"} {
		if err := os.RemoveAll(filepath.Join(h.dir, d)); err != nil {
			t.Fatal(err)
		}
	}
	h.open() // with the same key: only the checkpoint can tell
	h.append("a", "one")
	h.close()
	h.sound()
	r, err := Verify(t.Context(), h.dir, VerifyOptions{Log: []string{known}, Known: kept})
	if err != nil || r.OK() {
		t.Fatalf("a shorter log passes for the one that was known: %v", err)
	}
	for _, d := range []string{"ledger", "state", "evidence"} {
		if err := os.RemoveAll(filepath.Join(h.dir, d)); err != nil {
			t.Fatal(err)
		}
	}
	h.key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, 32))
	h.open()
	h.append("a", "one")
	h.close()
	h.sound()
	r, err = Verify(t.Context(), h.dir, VerifyOptions{Log: []string{known}})
	if err != nil || r.Ledger.OK() {
		t.Fatalf("a log of another key passes: %v %v", r.Ledger.Findings, err)
	}
}
