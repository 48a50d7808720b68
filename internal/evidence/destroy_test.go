package evidence

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/keyring"
)

func permitted(Stream, string, uuid.UUID) error { return nil }

// over reads a compartment and passes over what was destroyed.
func over(t testing.TB, s *Store, comp string) (got []string, passed uint64) {
	t.Helper()
	pos := Position{}
	for {
		var d *DamageError
		next, err := s.Read(context.Background(), Events, comp, pos, func(_ event.Ref, rec []byte) error {
			got = append(got, string(rec))
			return nil
		})
		if !errors.As(err, &d) {
			if err != nil {
				t.Fatal(err)
			}
			return got, passed
		}
		if !d.Destroyed() || !errors.Is(d, ErrNoKey) || d.Next == pos {
			t.Fatalf("%v, next %v", d, next)
		}
		passed += d.Records
		pos = d.Next
	}
}

// TestDestroyedCard: the records of one segment are gone for every key that is left,
// in this process and in the next; everything else reads and verifies as before.
func TestDestroyedCard(t *testing.T) {
	ctx := context.Background()
	for _, which := range []int{0, 1, 2} {
		dir := quickDir(t)
		s := open(t, dir, func(o *Options) { o.MaxSegmentRecords = 4 })
		var refs []event.Ref
		for i := 0; i < 12; i += 4 {
			refs = append(refs, mustAppend(t, s, "a", recs(i, 4)))
		}
		if err := s.Rotate(); err != nil {
			t.Fatal(err)
		}
		keys, err := keyring.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		backup := filepath.Join(quickDir(t), "backup") // of the keyring: masters, no cards
		if err := keys.Backup(backup, []byte("a passphrase of some length")); err != nil {
			t.Fatal(err)
		}
		victim := refs[which].Segment
		if _, err := s.Get(ctx, refs[which]); err != nil { // its block is in the cache now
			t.Fatal(err)
		}
		before := verify(t, dir)
		there, err := s.DestroyCard(ctx, Events, "a", victim, permitted)
		if err != nil || !there {
			t.Fatal(there, err)
		}
		want := append(texts(recs(0, 4*which)), texts(recs(4*which+4, 8-4*which))...)
		check := func(s *Store) {
			t.Helper()
			got, passed := over(t, s, "a")
			if diff := cmp.Diff(want, got); diff != "" || passed != 4 {
				t.Fatalf("segment %d, passed over %d: %s", which, passed, diff)
			}
			for i, r := range refs {
				if _, err := s.Get(ctx, r); errors.Is(err, ErrNoKey) != (i == which) || (err != nil) != (i == which) {
					t.Fatalf("get %d: %v", i, err)
				}
				p, err := s.Prove(ctx, Events, r)
				if errors.Is(err, ErrNoKey) != (i == which) || (err != nil) != (i == which) {
					t.Fatalf("prove %d: %v", i, err)
				}
				if err == nil {
					if err := p.Check(); err != nil {
						t.Fatal(err)
					}
				}
			}
			infos, err := s.Segments(Events, "a")
			if err != nil {
				t.Fatal(err)
			}
			for i, in := range infos {
				if in.HasKey == (i == which) || in.Records != 4 {
					t.Fatalf("%+v", in)
				}
			}
		}
		check(s)
		if there, err := s.DestroyCard(ctx, Events, "a", victim, permitted); err != nil || there {
			t.Fatalf("the second time: %v %v", there, err)
		}
		// Waiting behind it does not spin, and what comes next is read.
		_, pos := overTo(t, s, "a")
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		if err := s.Wait(short, Events, "a", pos); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("wait: %v", err)
		}
		cancel()
		s.Close()

		s = open(t, dir, nil)
		check(s)
		s.Close()
		after := verify(t, dir)
		if !after.OK() || after.Segments[which].HasKey {
			t.Fatal(after.Problems)
		}
		before.Segments[which].HasKey = false
		if diff := cmp.Diff(before, after); diff != "" {
			t.Fatalf("something else changed: %s", diff)
		}

		// No key that is left opens it: not the keyring, not its backup with the segment
		// file, not any box in any file.
		restored, err := keyring.Load(backup, func() ([]byte, error) { return []byte("a passphrase of some length"), nil })
		if err != nil {
			t.Fatal(err)
		}
		for i, path := range files(t, dir, "a", extClosed) {
			hd, _, err := readEnds(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range []*keyring.Keyring{keys, restored} {
				if err := Opens(dir, k, hd.id); (err == nil) == (i == which) {
					t.Fatalf("segment %d opens: %v", i, err)
				}
				if opensByAnything(t, dir, k, hd) == (i == which) {
					t.Fatalf("a wrap of segment %d: found is %v", i, i != which)
				}
			}
		}
	}
}

// overTo is over with the position behind the end.
func overTo(t testing.TB, s *Store, comp string) (n int, pos Position) {
	t.Helper()
	for {
		var d *DamageError
		next, err := s.Read(context.Background(), Events, comp, pos, func(event.Ref, []byte) error { n++; return nil })
		if !errors.As(err, &d) {
			if err != nil {
				t.Fatal(err)
			}
			return n, next
		}
		pos = d.Next
	}
}

// TestDestroyedSealedCard: the officers and their spares open nothing any more.
func TestDestroyedSealedCard(t *testing.T) {
	dir := quickDir(t)
	o := newOfficers(t)
	ctx := context.Background()
	s := open(t, dir, func(opt *Options) { o.seal(opt); opt.MaxSegmentRecords = 4 })
	var refs []event.Ref
	for i := 0; i < 8; i += 4 {
		ref, err := s.Append(ctx, Originals, "a", recs(i, 4))
		if err != nil {
			t.Fatal(err)
		}
		refs = append(refs, ref)
	}
	if err := s.Rotate(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.DestroyCard(ctx, Originals, "a", refs[0].Segment, permitted); err != nil {
		t.Fatal(err)
	}
	for i := range o {
		for j := range o {
			if _, err := unlock(dir, refs[0].Segment, o[i], o[j]); !errors.Is(err, ErrNoKey) {
				t.Fatalf("opened by %d and %d: %v", i, j, err)
			}
		}
	}
	if _, err := unlock(dir, refs[1].Segment, o[0], o[1]); err != nil {
		t.Fatalf("the neighbour: %v", err)
	}
	if r := verify(t, dir); !r.OK() {
		t.Fatal(r.Problems)
	}
}

// TestDestroyRefuses: no card goes without a permit, and none of a segment in use.
func TestDestroyRefuses(t *testing.T) {
	ctx := context.Background()
	dir := quickDir(t)
	s := open(t, dir, nil)
	ref := mustAppend(t, s, "a", recs(0, 4))
	if _, err := s.DestroyCard(ctx, Events, "a", ref.Segment, permitted); err == nil {
		t.Fatal("the card of an open segment was destroyed")
	}
	if err := s.Rotate(); err != nil {
		t.Fatal(err)
	}
	held := errors.New("under hold")
	if _, err := s.DestroyCard(ctx, Events, "a", ref.Segment, nil); err == nil {
		t.Fatal("without a permit")
	}
	if _, err := s.DestroyCard(ctx, Events, "a", ref.Segment, func(Stream, string, uuid.UUID) error { return held }); !errors.Is(err, held) {
		t.Fatalf("against its permit: %v", err)
	}
	if _, err := s.DestroyCard(ctx, Originals, "a", ref.Segment, permitted); !errors.Is(err, ErrPosition) {
		t.Fatalf("of another stream: %v", err)
	}
	if _, err := s.DestroyCard(ctx, Events, "a", uuid.New(), permitted); !errors.Is(err, ErrPosition) {
		t.Fatalf("of no segment: %v", err)
	}
	if got, _ := all(t, s, "a"); len(got) != 4 {
		t.Fatal("a refusal destroyed something")
	}
}

// TestDestroyPowerCut cuts the power at every step of a destruction, before and after
// it takes effect. The card is there or gone; a second call finishes.
func TestDestroyPowerCut(t *testing.T) {
	ctx := context.Background()
	base := quickDir(t)
	s := open(t, base, func(o *Options) { o.MaxSegmentRecords = 4 })
	ref := mustAppend(t, s, "a", recs(0, 4))
	mustAppend(t, s, "a", recs(4, 4))
	s.Close()
	for _, done := range []bool{false, true} {
		step := 1
		for ; ; step++ {
			name := fmt.Sprintf("done %v step %d", done, step)
			dir := quickDir(t)
			copyDir(t, base, dir)
			p := &power{at: step, done: done, cut: true, err: errors.New("power cut"), rng: rand.New(rand.NewPCG(uint64(step), 9)), synced: map[string]int64{}}
			s := open(t, dir, func(o *Options) { o.FS.Fault = p.fault })
			_, err := s.DestroyCard(ctx, Events, "a", ref.Segment, permitted)
			if (err != nil) != p.failed {
				t.Fatalf("%s: nobody was told: %v", name, err)
			}
			s.Close()
			s = open(t, dir, nil)
			_, serr := os.Stat(cardPath(dir, ref.Segment))
			if got, passed := over(t, s, "a"); (serr == nil) != (passed == 0) || len(got)+int(passed) != 8 {
				t.Fatalf("%s: %d read, %d passed over, card %v", name, len(got), passed, serr)
			}
			if _, err := s.DestroyCard(ctx, Events, "a", ref.Segment, permitted); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got, passed := over(t, s, "a"); len(got) != 4 || passed != 4 {
				t.Fatalf("%s: %d read, %d passed over", name, len(got), passed)
			}
			s.Close()
			if r := verify(t, dir); !r.OK() {
				t.Fatalf("%s: %v", name, r.Problems)
			}
			if !p.failed {
				break
			}
		}
		if step < 3 {
			t.Fatalf("only %d steps", step)
		}
	}
}

// TestDestroyBesideReaders: readers that are under way end, and nobody who begins
// afterwards reads a record.
func TestDestroyBesideReaders(t *testing.T) {
	ctx := context.Background()
	for range 20 {
		s := open(t, quickDir(t), func(o *Options) { o.MaxSegmentRecords = 50 })
		var refs []event.Ref
		for i := range 10 {
			refs = append(refs, mustAppend(t, s, "a", recs(10*i, 10)))
		}
		if err := s.Rotate(); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for range 4 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if _, err := s.Read(ctx, Events, "a", Position{}, func(event.Ref, []byte) error { return nil }); err != nil && !errors.Is(err, ErrNoKey) {
						t.Error(err)
						return
					}
					if _, err := s.Get(ctx, refs[0]); err != nil && !errors.Is(err, ErrNoKey) {
						t.Error(err)
						return
					}
				}
			})
		}
		if _, err := s.DestroyCard(ctx, Events, "a", refs[0].Segment, permitted); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := s.Get(ctx, refs[1]); !errors.Is(err, ErrNoKey) {
				t.Fatalf("read after it was destroyed: %v", err)
			}
		}
		close(stop)
		wg.Wait()
		if _, err := s.Get(ctx, refs[0]); !errors.Is(err, ErrNoKey) {
			t.Fatalf("read after it was destroyed: %v", err)
		}
		s.Close()
	}
}

// TestSegmentEndsWithItsWeek: no segment holds blocks of two ISO weeks, so that it and
// its index week go together.
func TestSegmentEndsWithItsWeek(t *testing.T) {
	now := time.Date(2026, 3, 1, 23, 59, 58, 0, time.UTC) // a Sunday
	var mu sync.Mutex
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	s := open(t, quickDir(t), func(o *Options) { o.Now = clock })
	a := mustAppend(t, s, "a", recs(0, 1))
	b := mustAppend(t, s, "a", recs(1, 1))
	mu.Lock()
	now = now.Add(2 * time.Second)
	mu.Unlock()
	c := mustAppend(t, s, "a", recs(2, 1))
	if a.Segment != b.Segment || b.Segment == c.Segment {
		t.Fatalf("%s %s %s", a, b, c)
	}
}
