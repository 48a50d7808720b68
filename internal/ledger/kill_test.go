package ledger

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/packs"
)

const killEnv = "COUNTERSEAL_LEDGER_CHILD"

// killChild adds statements from several goroutines until it is killed, and prints
// each that was acknowledged.
func killChild(dir string) {
	fail := func(err error) {
		fmt.Println("fail", err)
		os.Exit(1)
	}
	l, err := Open(context.Background(), testOptions(dir))
	if err != nil {
		fail(err)
	}
	for _, a := range l.Alarms() {
		fail(errors.New(a.Kind + " " + a.What))
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				s, err := New("server.stop", "system", time.Now(), map[string]any{"reason": "none"})
				if err != nil {
					fail(err)
				}
				i, err := l.Add(context.Background(), s)
				if err != nil {
					fail(err)
				}
				mu.Lock()
				os.Stdout.WriteString(fmt.Sprintln("ack", i, s.ID))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

// TestKill kills the writer at random points. Nothing acknowledged is lost or
// moved, nothing stands twice, no number is missing, and the directory verifies
// before the next start and after it.
func TestKill(t *testing.T) {
	rounds := 8
	if testing.Short() {
		rounds = 2
	} else if packs.Required("kill") {
		rounds = 50
	}
	if n, err := strconv.Atoi(os.Getenv("COUNTERSEAL_KILLS")); err == nil {
		rounds = n
	}
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	acked := map[string]uint64{}
	v := Verifiers{Log: []string{testVKey(t, 1)}}
	for round := range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), killEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		after := rng.IntN(120)
		if round%4 == 3 {
			after = 0 // while it starts
			time.Sleep(time.Duration(rng.IntN(30)) * time.Millisecond)
			cmd.Process.Kill()
		}
		sc := bufio.NewScanner(out)
		for n := 0; sc.Scan(); n++ {
			w := strings.Fields(sc.Text())
			if len(w) != 3 || w[0] != "ack" {
				cmd.Process.Kill()
				t.Fatalf("round %d: %s", round, sc.Text())
			}
			i, err := strconv.ParseUint(w[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			acked[w[2]] = i
			if n == after {
				time.Sleep(time.Duration(rng.IntN(5000)) * time.Microsecond)
				cmd.Process.Kill()
			}
		}
		cmd.Wait()
		if st := cmd.ProcessState.Sys().(syscall.WaitStatus); !st.Signaled() {
			t.Fatalf("round %d: the child ended by itself: %v", round, cmd.ProcessState)
		}
		if _, err := os.Stat(filepath.Join(dir, "log", "checkpoint")); err == nil {
			if r, err := VerifyDir(context.Background(), dir, v); err != nil || !r.OK() {
				t.Fatalf("round %d, before the start: %+v, %v", round, r.Findings, err)
			}
		}
	}
	l := testOpen(t, testOptions(dir))
	if a := l.Alarms(); len(a) > 0 {
		t.Fatal(a)
	}
	seen := map[uuid.UUID]bool{}
	found := 0
	_, err := l.Each(context.Background(), 0, func(i uint64, s Statement, _ []byte) error {
		if seen[s.ID] {
			return fmt.Errorf("%d stands twice", i)
		}
		seen[s.ID] = true
		if s.Seq != i+1 {
			return fmt.Errorf("%d has number %d", i, s.Seq)
		}
		if at, ok := acked[s.ID.String()]; ok {
			if at != i {
				return fmt.Errorf("acknowledged at %d, stands at %d", at, i)
			}
			found++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found != len(acked) || found == 0 {
		t.Fatalf("%d of %d acknowledged statements are there", found, len(acked))
	}
	t.Logf("%d rounds, %d acknowledged, %d in the log", rounds, len(acked), len(seen))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err := VerifyDir(context.Background(), dir, v); err != nil || !r.OK() || r.Pending != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
}

// TestEveryStepFails fails each step of our own writes, before and after it
// happens. What was acknowledged is there; what failed is there once or not at
// all; and no number is missing.
func TestEveryStepFails(t *testing.T) {
	boom := errors.New("boom")
	for _, done := range []bool{false, true} {
		for step := 1; ; step += 1 + step/8 {
			var mu sync.Mutex
			n, failed := 0, false
			o := testOptions(t.TempDir())
			o.FS = durable.FS{Fault: func(s durable.Step) error {
				mu.Lock()
				defer mu.Unlock()
				if s.Done != done {
					return nil
				}
				if n++; n == step {
					failed = true
					if s.Op == durable.OpWrite && !done {
						return &durable.TornWrite{N: 30, Err: boom}
					}
					return boom
				}
				return nil
			}}
			l, err := Open(context.Background(), o)
			if err != nil {
				if !errors.Is(err, boom) {
					t.Fatalf("step %d %v: %v", step, done, err)
				}
			} else {
				for i := range 6 {
					_, err := l.Add(context.Background(), testStatement(t, fmt.Sprint(i)))
					if err != nil && !errors.Is(err, boom) {
						t.Fatalf("step %d %v: %v", step, done, err)
					}
				}
				l.Close()
			}
			o.FS = durable.FS{}
			l = testOpen(t, o)
			testAdd(t, l, "after")
			got := reasons(t, l) // and their numbers
			l.Close()
			if a := l.Alarms(); len(a) > 0 {
				t.Fatalf("step %d %v: %v", step, done, a)
			}
			r, err := VerifyDir(context.Background(), o.Dir, Verifiers{Log: []string{testVKey(t, 1)}})
			if err != nil || !r.OK() {
				t.Fatalf("step %d %v: %+v, %v", step, done, r, err)
			}
			if !failed {
				if len(got) != 7 || step < 8 {
					t.Fatalf("step %d: %d statements", step, len(got))
				}
				break
			}
		}
	}
}

// TestFullDisk: while nothing can be written nothing is acknowledged, and then it
// goes on by itself.
func TestFullDisk(t *testing.T) {
	var mu sync.Mutex
	full := false
	o := testOptions(t.TempDir())
	o.FS = durable.FS{Fault: func(s durable.Step) error {
		mu.Lock()
		defer mu.Unlock()
		if full && !s.Done && (s.Op == durable.OpWrite || s.Op == durable.OpCreate) {
			return syscall.ENOSPC
		}
		return nil
	}}
	set := func(b bool) { mu.Lock(); full = b; mu.Unlock() }
	l := testOpen(t, o)
	testAdd(t, l, "a")
	set(true)
	for range 3 {
		if _, err := l.Add(context.Background(), testStatement(t, "b")); !durable.IsFull(err) {
			t.Fatal(err)
		}
	}
	set(false)
	testAdd(t, l, "c")
	if got := reasons(t, l); len(got) != 2 {
		t.Fatal(got)
	}
}

// TestLogCannotBeWritten takes the log directory away from the library: an answer
// that says nothing is not asked for twice, and the statement comes in, once, when
// the log is back.
func TestLogCannotBeWritten(t *testing.T) {
	o := testOptions(t.TempDir())
	o.Deadline = 300 * time.Millisecond
	l := testOpen(t, o)
	testAdd(t, l, "a")
	// A file where the bundles stand: no bundle can be written.
	entries := filepath.Join(o.Dir, "log", "tile", "entries")
	aside := filepath.Join(o.Dir, "aside")
	if err := os.Rename(entries, aside); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(entries, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := testStatement(t, "b")
	if _, err := l.Add(context.Background(), s); !errors.Is(err, ErrUnknown) {
		t.Fatal(err)
	}
	if !hasAlarm(l, AlarmDisk) {
		t.Fatal(l.Alarms())
	}
	os.Remove(entries)
	if err := os.Rename(aside, entries); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := l.Wait(ctx, 2); err != nil {
		t.Fatal(err)
	}
	if i, err := l.Add(context.Background(), s); err != nil || i != 1 {
		t.Fatal(i, err)
	}
	if got := reasons(t, l); len(got) != 2 {
		t.Fatal(got)
	}

	// The same, but the ledger is closed meanwhile: the next start adds it.
	if err := os.Rename(entries, aside); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(entries, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Add(context.Background(), testStatement(t, "c")); !errors.Is(err, ErrUnknown) {
		t.Fatal(err)
	}
	if err := l.Close(); err == nil {
		t.Fatal("closing said that all is written")
	}
	os.Remove(entries)
	if err := os.Rename(aside, entries); err != nil {
		t.Fatal(err)
	}
	r, err := VerifyDir(context.Background(), o.Dir, Verifiers{Log: []string{testVKey(t, 1)}})
	if err != nil || !r.OK() || r.Pending != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	l = testOpen(t, o)
	if got := reasons(t, l); len(got) != 3 {
		t.Fatal(got)
	}
	if a := l.Alarms(); len(a) > 0 {
		t.Fatal(a)
	}
}

// TestUnknownAnswers lets the library lie: it says that it failed where it wrote,
// and where it did not. Each statement stands once, in order.
func TestUnknownAnswers(t *testing.T) {
	o := testOptions(t.TempDir())
	l := testOpen(t, o)
	real := l.app.add
	var calls int // the writer's
	rng := rand.New(rand.NewPCG(1, 2))
	l.app.add = func(ctx context.Context, leaf []byte) func() (uint64, error) {
		calls++
		unknown := errors.New("an answer got lost")
		switch {
		case calls > 400:
		case calls%17 == 3: // and nothing was written; nor is what comes behind it
			return func() (uint64, error) { return 0, unknown }
		case rng.IntN(3) == 0:
			f := real(ctx, leaf)
			return func() (uint64, error) {
				f()
				return 0, unknown
			}
		}
		return real(ctx, leaf)
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 20 {
				n, err := l.Add(context.Background(), testStatement(t, fmt.Sprint(w, i)))
				if err != nil {
					t.Error(n, err)
				}
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	seqs := map[uint64]bool{}
	_, err := l.Each(context.Background(), 0, func(i uint64, s Statement, _ []byte) error {
		if seen[string(s.Detail)] || seqs[s.Seq] {
			return fmt.Errorf("%d stands twice", i)
		}
		seen[string(s.Detail)], seqs[s.Seq] = true, true
		return nil
	})
	if err != nil || len(seen) != 80 || !seqs[1] || !seqs[80] {
		t.Fatal(len(seen), err)
	}
	l.Close()
	r, err := VerifyDir(context.Background(), o.Dir, Verifiers{Log: []string{testVKey(t, 1)}})
	if err != nil || !r.OK() || r.Last["n1"] != 80 {
		t.Fatalf("%+v, %v", r, err)
	}
	l = testOpen(t, o)
	if a := l.Alarms(); len(a) > 0 {
		t.Fatal(a)
	}
	if i := testAdd(t, l, "after"); i != 80 {
		t.Fatal(i)
	}
}

// TestOutboxFirst: what the library is given is synced in the outbox before.
func TestOutboxFirst(t *testing.T) {
	o := testOptions(t.TempDir())
	var mu sync.Mutex
	dirty, writes := false, 0
	o.FS = durable.FS{Fault: func(s durable.Step) error {
		mu.Lock()
		defer mu.Unlock()
		if filepath.Base(s.Path) == outboxName {
			switch {
			case s.Op == durable.OpWrite && !s.Done:
				dirty = true
				writes++
			case s.Op == durable.OpSync && s.Done:
				dirty = false
			}
		}
		return nil
	}}
	l := testOpen(t, o)
	real := l.app.add
	l.app.add = func(ctx context.Context, leaf []byte) func() (uint64, error) {
		mu.Lock()
		defer mu.Unlock()
		if dirty || writes == 0 {
			t.Error("a statement went into the log before it was synced in the outbox")
		}
		return real(ctx, leaf)
	}
	for i := range 3 {
		testAdd(t, l, fmt.Sprint(i))
	}
	if writes != 3 {
		t.Fatal(writes)
	}
}
