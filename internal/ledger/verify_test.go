package ledger

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
)

// tampered is a closed ledger with every kind of file in it.
func tampered(t testing.TB, n int) (string, Verifiers) {
	t.Helper()
	w, srv := testWitness(t, filepath.Join(t.TempDir(), "w"))
	o := withWitness(t, t.TempDir(), Witness{VKey: w.VKey(), URL: srv.URL})
	l := testOpen(t, o)
	if _, err := l.PutPayload([]byte("who asked for what")); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range n - 5 {
		wg.Go(func() { testAdd(t, l, "x") })
	}
	wg.Wait()
	for range 5 {
		if _, err := l.AddWitnessed(context.Background(), testStatement(t, "y")); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return o.Dir, testVerifiers(t, o)
}

// covered lists the files whose every byte counts.
func covered(t testing.TB, dir string) []string {
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		if err == nil && d.Type().IsRegular() && !strings.HasSuffix(path, "lock") && d.Name() != "gcState" {
			out = append(out, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestEveryFlippedByte changes bytes of every file, one at a time: the verifier
// names the file, or, where two files contradict each other, one of the two.
func TestEveryFlippedByte(t *testing.T) {
	dir, v := tampered(t, 300)
	r, err := VerifyDir(context.Background(), dir, v)
	if err != nil || !r.OK() || r.Size != 300 || r.Published != 300 || r.Witnessed != 300 {
		t.Fatalf("%+v, %v", r, err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	kinds := map[string]bool{}
	for _, name := range covered(t, dir) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		kinds[strings.Join(strings.Split(name, "/")[:min(3, strings.Count(name, "/")+1)], "/")] = true
		tries := 2
		if testing.Short() {
			tries = 1
		}
		for range tries {
			at, bit := rng.IntN(len(good)), byte(1)<<rng.IntN(8)
			bad := bytes.Clone(good)
			bad[at] ^= bit
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			r, err := VerifyDir(context.Background(), dir, v)
			if err != nil {
				t.Fatalf("%s byte %d bit %x: %v", name, at, bit, err)
			}
			if r.OK() {
				t.Errorf("%s: byte %d bit %x changed, and nothing is found", name, at, bit)
			}
			named := false
			for _, f := range r.Findings {
				named = named || f.File == name || strings.HasPrefix(name, f.File+"/")
			}
			if !named {
				t.Errorf("%s: byte %d bit %x: not named in %v", name, at, bit, r.Findings)
			}
		}
		// Cut short, and gone.
		os.WriteFile(path, good[:rng.IntN(len(good))], 0o600)
		if r, err := VerifyDir(context.Background(), dir, v); err != nil || r.OK() {
			t.Errorf("%s cut: %+v, %v", name, r, err)
		}
		os.Remove(path)
		dropped := strings.Contains(name, ".p/") || strings.HasPrefix(name, payloadDir)
		if r, err := VerifyDir(context.Background(), dir, v); err != nil || r.OK() && !dropped {
			t.Errorf("%s removed: %+v, %v", name, r, err)
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"log/checkpoint", "witnessed", "outbox", "log/.state/treeState", "log/.state/version", "log/tile/0", "log/tile/1", "log/tile/entries"} {
		if !kinds[want] {
			t.Errorf("no %s among %v", want, kinds)
		}
	}
	if r, err := VerifyDir(context.Background(), dir, v); err != nil || !r.OK() {
		t.Fatalf("%+v, %v", r, err)
	}
}

// TestForgedLog lets the holder of the log key write what our code would not.
func TestForgedLog(t *testing.T) {
	id := func() uuid.UUID { return uuid.Must(uuid.NewV7()) }
	leaf := func(id uuid.UUID, seq uint64) []byte {
		s := testStatement(t, "x")
		s.ID, s.Node, s.Seq = id, "n1", seq
		b, err := s.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	one := id()
	first := leaf(one, 1)
	for name, c := range map[string]struct {
		leaves [][]byte
		want   string
	}{
		"good":          {[][]byte{first, leaf(id(), 2), leaf(id(), 3)}, ""},
		"added twice":   {[][]byte{first, leaf(id(), 2), first}, ""},
		"exchanged":     {[][]byte{leaf(id(), 2), first, leaf(id(), 3)}, ""},
		"gap":           {[][]byte{first, leaf(id(), 3)}, "number 2 of node n1 is missing"},
		"late start":    {[][]byte{leaf(id(), 2)}, "number 1 of node n1 is missing"},
		"number again":  {[][]byte{first, leaf(id(), 2), leaf(id(), 2)}, "number was used"},
		"id again":      {[][]byte{first, leaf(one, 2)}, "its id is that of statement 0"},
		"no statement":  {[][]byte{first, []byte("hello")}, "not a statement"},
		"not canonical": {[][]byte{bytes.Replace(first, []byte(`,"id"`), []byte(`, "id"`), 1)}, "not canonical"},
	} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t.TempDir())
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			sign, _, err := signer(o.Origin, o.Key)
			if err != nil {
				t.Fatal(err)
			}
			app, err := newAppender(ctx, filepath.Join(o.Dir, logDir), sign, nil)
			if err != nil {
				t.Fatal(err)
			}
			for i, l := range c.leaves {
				if n, err := app.add(ctx, l)(); err != nil || n != uint64(i) {
					t.Fatal(n, err)
				}
			}
			if err := app.shutdown(ctx); err != nil {
				t.Fatal(err)
			}
			b := outbox{path: filepath.Join(o.Dir, outboxName)}
			if err := b.reset(0, 0); err != nil {
				t.Fatal(err)
			}
			b.close()
			r, err := VerifyDir(context.Background(), o.Dir, Verifiers{Log: []string{testVKey(t, 1)}})
			if err != nil {
				t.Fatal(err)
			}
			if c.want == "" && !r.OK() || c.want != "" && !strings.Contains(fmt.Sprint(r.Findings), c.want) {
				t.Fatalf("found %v, want %q", r.Findings, c.want)
			}
			if r, err := VerifyDir(context.Background(), o.Dir, Verifiers{Log: []string{testVKey(t, 2)}}); err != nil || r.OK() {
				t.Fatalf("another key: %+v, %v", r, err)
			}
		})
	}
}

// TestTruncated takes the end of a log away, with and without its newest files.
func TestTruncated(t *testing.T) {
	w, srv := testWitness(t, filepath.Join(t.TempDir(), "w"))
	o := withWitness(t, t.TempDir(), Witness{VKey: w.VKey(), URL: srv.URL})
	l := testOpen(t, o)
	for i := range 4 {
		if _, err := l.AddWitnessed(context.Background(), testStatement(t, fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	old := copyDir(t, o.Dir)
	l = testOpen(t, o)
	for i := range 4 {
		if _, err := l.AddWitnessed(context.Background(), testStatement(t, fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	v := testVerifiers(t, o)
	for _, keep := range []string{"witnessed", "log/checkpoint", "log/.state/treeState"} {
		dir := copyDir(t, old)
		b, err := os.ReadFile(filepath.Join(o.Dir, keep))
		if err != nil {
			t.Fatal(err)
		}
		os.WriteFile(filepath.Join(dir, keep), b, 0o600)
		r, err := VerifyDir(context.Background(), dir, v)
		if err != nil || r.OK() {
			t.Errorf("%s kept: %+v, %v", keep, r, err)
		}
		t.Log(keep, r.Findings)
	}
}

// TestVerifyWhileWriting: the verifier finds nothing wrong beside a writer, before
// and after the library collects partial tiles.
func TestVerifyWhileWriting(t *testing.T) {
	l := testOpen(t, testOptions(t.TempDir()))
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for ctx.Err() == nil && l.Size() < 900 {
				l.Add(context.Background(), testStatement(t, "x"))
			}
		})
	}
	l.Wait(context.Background(), 50)
	for n := 0; n < 5 || l.Size() < 600 && n < 500; n++ {
		r, err := VerifyDir(context.Background(), l.o.Dir, Verifiers{Log: []string{testVKey(t, 1)}})
		if err != nil || !r.OK() {
			t.Errorf("%+v, %v", r, err)
		}
	}
	cancel()
	wg.Wait()
	t.Log(l.Size(), "statements")
}

const lockEnv = "COUNTERSEAL_LEDGER_LOCK"

// TestVerifyKeepsLocks: POSIX drops a lock when any descriptor of the file is
// closed by the process. The verifier must open none.
func TestVerifyKeepsLocks(t *testing.T) {
	if path := os.Getenv(lockEnv); path != "" {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			fmt.Println(err)
			return
		}
		lk := syscall.Flock_t{Type: syscall.F_WRLCK}
		fmt.Println("lock:", syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &lk))
		return
	}
	l := testOpen(t, testOptions(t.TempDir()))
	testAdd(t, l, "x")
	dir := l.o.Dir
	l.Close()
	time.Sleep(300 * time.Millisecond) // the library's goroutines have ended
	path := filepath.Join(dir, "log", ".state", "treeState.lock")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lk := syscall.Flock_t{Type: syscall.F_WRLCK}
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &lk); err != nil {
		t.Fatal(err)
	}
	child := func() string {
		cmd := exec.Command(os.Args[0], "-test.run=^TestVerifyKeepsLocks$")
		cmd.Env = append(os.Environ(), lockEnv+"="+path)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		line, _ := bufio.NewReader(bytes.NewReader(out)).ReadString('\n')
		return strings.TrimSpace(line)
	}
	if got := child(); got == "lock: <nil>" {
		t.Fatal("the lock does not hold in the first place")
	}
	if r, err := VerifyDir(context.Background(), dir, Verifiers{Log: []string{testVKey(t, 1)}}); err != nil || !r.OK() {
		t.Fatalf("%+v, %v", r, err)
	}
	if got := child(); got == "lock: <nil>" {
		t.Fatal("the verifier dropped the lock")
	}
	// The test can see a dropped lock.
	if _, err := os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	if got := child(); got != "lock: <nil>" {
		t.Fatal(got)
	}
}

func TestPayloads(t *testing.T) {
	o := testOptions(t.TempDir())
	l := testOpen(t, o)
	d, err := l.PutPayload([]byte("SELECT everything"))
	if err != nil {
		t.Fatal(err)
	}
	d2, err := l.PutPayload([]byte("SELECT everything"))
	if err != nil || d2 == d {
		t.Fatal("equal payloads have equal digests", err)
	}
	s, err := New("request.served", "os:1000", time.Now(), map[string]any{"route": "search", "status": 200, "query": d})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Add(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	l.Each(context.Background(), 0, func(_ uint64, s Statement, raw []byte) error {
		var got struct{ Query Digest }
		if err := json.Unmarshal(s.Detail, &got); err != nil || got.Query != d {
			t.Error(got, err)
		}
		if bytes.Contains(raw, []byte("SELECT")) {
			t.Error("the payload is in the leaf")
		}
		return nil
	})
	if b, err := l.Payload(d); err != nil || string(b) != "SELECT everything" {
		t.Fatal(string(b), err)
	}
	for range 2 {
		if err := l.DropPayload(d); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Payload(d); err == nil {
		t.Fatal("a dropped payload was read")
	}
	for _, bad := range []Digest{{}, {Alg: DigestAlg, H: "../outbox"}, {Alg: "x", H: d.H}, {Alg: DigestAlg, H: strings.ToUpper(d2.H)}} {
		if _, err := l.Payload(bad); err == nil {
			t.Fatal(bad)
		}
	}
	l.Close()
	if r, err := VerifyDir(context.Background(), o.Dir, Verifiers{Log: []string{testVKey(t, 1)}}); err != nil || !r.OK() {
		t.Fatalf("%+v, %v", r, err)
	}
}
