package ledger

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/durable"
)

func TestMain(m *testing.M) {
	RouteLibraryLog(slog.New(slog.DiscardHandler))
	if dir := os.Getenv(killEnv); dir != "" {
		killChild(dir)
		return
	}
	os.Exit(m.Run())
}

const testOrigin = "ledger.example/test"

func testKey(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func testVKey(t testing.TB, n byte) string {
	t.Helper()
	k, err := VKey(testOrigin, testKey(n).Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func testOptions(dir string) Options {
	return Options{Dir: dir, Origin: testOrigin, Key: testKey(1), Node: "n1"}
}

func testOpen(t testing.TB, o Options) *Ledger {
	t.Helper()
	l, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func testStatement(t testing.TB, what string) Statement {
	t.Helper()
	s, err := New("server.stop", "os:1000", time.Now(), map[string]any{"reason": what})
	if err != nil {
		t.Fatal(err)
	}
	s.Purpose, s.Subject = "operations", []string{"p1_aaaaaaaaaaaaaaaaaaaaaaaaaa"}
	return s
}

func testAdd(t testing.TB, l *Ledger, what string) uint64 {
	t.Helper()
	i, err := l.Add(context.Background(), testStatement(t, what))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// testWitness is a witness over HTTP for the test log.
func testWitness(t testing.TB, dir string) (*WitnessServer, *httptest.Server) {
	t.Helper()
	w, err := OpenWitness(WitnessOptions{Dir: dir, Name: "witness.example/" + filepath.Base(dir), Logs: []string{testVKey(t, 1)}})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(w)
	t.Cleanup(func() { srv.Close(); w.Close() })
	return w, srv
}

func reasons(t testing.TB, l *Ledger) []string {
	t.Helper()
	var out []string
	_, err := l.Each(context.Background(), 0, func(i uint64, s Statement, raw []byte) error {
		if i != uint64(len(out)) || s.Seq != i+1 || s.Node != "n1" {
			return fmt.Errorf("index %d, number %d of %s", i, s.Seq, s.Node)
		}
		out = append(out, string(s.Detail))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAddReadRestart(t *testing.T) {
	dir := t.TempDir()
	o := testOptions(dir)
	var want []string
	for round := range 3 {
		l, err := Open(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			what := fmt.Sprint("stop ", round, i)
			if got := testAdd(t, l, what); got != uint64(len(want)) {
				t.Fatalf("index %d, want %d", got, len(want))
			}
			want = append(want, `{"reason":"`+what+`"}`)
		}
		if got := reasons(t, l); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Fatalf("got %v, want %v", got, want)
		}
		if n := l.Size(); n != uint64(len(want)) {
			t.Fatal(n)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Add(context.Background(), testStatement(t, "late")); !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
		if a := l.Alarms(); len(a) > 0 {
			t.Fatal(a)
		}
	}
}

// TestManyAtOnce crosses the edge of a tile with many writers.
func TestManyAtOnce(t *testing.T) {
	l := testOpen(t, testOptions(t.TempDir()))
	var wg sync.WaitGroup
	var mu sync.Mutex
	at := map[uint64]string{}
	for w := range 32 {
		wg.Go(func() {
			for i := range 20 {
				what := fmt.Sprintf("w %d %d", w, i)
				n, err := l.Add(context.Background(), testStatement(t, what))
				mu.Lock()
				if err != nil || at[n] != "" {
					t.Error(n, at[n], err)
				}
				at[n] = `{"reason":"` + what + `"}`
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	got := reasons(t, l)
	if len(got) != 640 || len(at) != 640 {
		t.Fatal(len(got), len(at))
	}
	for i, r := range got {
		if at[uint64(i)] != r {
			t.Fatalf("%d: %s, acknowledged %s", i, r, at[uint64(i)])
		}
	}
	if err := l.Wait(context.Background(), 640); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := l.Wait(ctx, 641); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	// From the middle, and to an error of the reader.
	stop := errors.New("stop")
	next, err := l.Each(context.Background(), 300, func(i uint64, _ Statement, _ []byte) error {
		if i == 310 {
			return stop
		}
		return nil
	})
	if next != 310 || !errors.Is(err, stop) {
		t.Fatal(next, err)
	}
}

// TestSameAgain: an answer that got lost is asked for again with the same id.
func TestSameAgain(t *testing.T) {
	dir := t.TempDir()
	o := testOptions(dir)
	l := testOpen(t, o)
	testAdd(t, l, "first")
	s := testStatement(t, "x")
	for range 3 {
		if i, err := l.Add(context.Background(), s); err != nil || i != 1 {
			t.Fatal(i, err)
		}
	}
	other := s
	other.Purpose = "another"
	if _, err := l.Add(context.Background(), other); !errors.Is(err, ErrReused) {
		t.Fatal(err)
	}
	// Together, so that they meet in one group.
	s2 := testStatement(t, "y")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if i, err := l.Add(context.Background(), s2); err != nil || i != 2 {
				t.Error(i, err)
			}
		})
	}
	wg.Wait()
	if got := reasons(t, l); len(got) != 3 {
		t.Fatal(got)
	}
	l.Close()
	l = testOpen(t, o)
	if i := testAdd(t, l, "z"); i != 3 {
		t.Fatal(i)
	}
}

func TestRefusedStatements(t *testing.T) {
	l := testOpen(t, testOptions(t.TempDir()))
	for name, change := range map[string]func(*Statement){
		"unknown kind":    func(s *Statement) { s.Kind = "server.dance" },
		"missing detail":  func(s *Statement) { s.Detail = nil },
		"mail address":    func(s *Statement) { s.Subject = []string{"anna@example.org"} },
		"domain name":     func(s *Statement) { s.Actor = `CORP\anna` },
		"full name":       func(s *Statement) { s.Purpose = "Anna Example" },
		"number given":    func(s *Statement) { s.Seq = 7 },
		"node given":      func(s *Statement) { s.Node = "n2" },
		"too long":        func(s *Statement) { s.Detail = []byte(`{"reason":"` + strings.Repeat("x", MaxStatement) + `"}`) },
		"null":            func(s *Statement) { s.Detail = []byte(`{"reason":null}`) },
		"float":           func(s *Statement) { s.Detail = []byte(`{"reason":1.5}`) },
		"too large":       func(s *Statement) { s.Detail = []byte(`{"reason":9007199254740993}`) },
		"no object":       func(s *Statement) { s.Detail = []byte(`["reason"]`) },
		"twice":           func(s *Statement) { s.Detail = []byte(`{"reason":1,"reason":2}`) },
		"lone surrogate":  func(s *Statement) { s.Detail = []byte(`{"reason":"\ud800"}`) },
		"not ASCII":       func(s *Statement) { s.Detail = []byte(`{"reason":1,"ü":2}`) },
		"nanoseconds":     func(s *Statement) { s.Time = s.Time.Add(1) },
		"local time":      func(s *Statement) { s.Time = s.Time.In(time.FixedZone("x", 3600)) },
		"another version": func(s *Statement) { s.ID[6] = s.ID[6]&0x0f | 0x40 },
	} {
		s := testStatement(t, "x")
		change(&s)
		if _, err := l.Add(context.Background(), s); !errors.Is(err, ErrForm) {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), "anna") || strings.Contains(err.Error(), "Anna") {
			t.Errorf("%s: the error holds the value: %v", name, err)
		}
	}
	if l.Size() != 0 {
		t.Fatal("something was added")
	}
	// None of them took a number.
	testAdd(t, l, "x")
	reasons(t, l)
}

func TestTwoAppenders(t *testing.T) {
	o := testOptions(t.TempDir())
	l := testOpen(t, o)
	if _, err := Open(context.Background(), o); !errors.Is(err, durable.ErrLocked) {
		t.Fatal(err)
	}
	testAdd(t, l, "still mine")
	l.Close()
	testOpen(t, o)
}

// TestWithoutClose opens a directory that nobody closed.
func TestWithoutClose(t *testing.T) {
	dir := t.TempDir()
	l := testOpen(t, testOptions(dir))
	for range 300 {
		go l.Add(context.Background(), testStatement(t, "x"))
	}
	if err := l.Wait(context.Background(), 200); err != nil {
		t.Fatal(err)
	}
	l.Wait(context.Background(), 300)
	// What a crash leaves: all files as they are.
	o := testOptions(copyDir(t, dir))
	l2 := testOpen(t, o)
	if got := reasons(t, l2); len(got) != 300 {
		t.Fatal(len(got))
	}
	if i := testAdd(t, l2, "y"); i != 300 {
		t.Fatal(i)
	}
}

// elsewhere signs with a key that nobody can take out of it, as a token would.
type elsewhere struct{ crypto.Signer }

// TestKeyThatLiesElsewhere: the log needs signatures, not the key.
func TestKeyThatLiesElsewhere(t *testing.T) {
	o := Options{Dir: t.TempDir(), Origin: "ledger.example/else", Key: elsewhere{testKey(3)}, Node: "n1"}
	l, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New("state.rebuilt", "system", time.Now(), map[string]any{"views": "x"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Add(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	vkey, err := VKey(o.Origin, o.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	r, err := VerifyDir(t.Context(), o.Dir, Verifiers{Log: []string{vkey}})
	if err != nil || !r.OK() || r.Published != 1 {
		t.Fatal(r, err)
	}
	for _, bad := range []crypto.Signer{nil, ed25519.PrivateKey(nil)} {
		if _, err := Open(t.Context(), Options{Dir: t.TempDir(), Origin: "x", Key: bad, Node: "n1"}); err == nil {
			t.Fatal("a ledger without a key")
		}
	}
}
