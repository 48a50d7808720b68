package evidence

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/keyring"
)

// open opens the evidence of a directory with small limits.
func open(t testing.TB, dir string, change func(*Options)) *Store {
	t.Helper()
	s, err := tryOpen(dir, change)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func tryOpen(dir string, change func(*Options)) (*Store, error) {
	k, err := keyring.Open(dir)
	if err != nil {
		return nil, err
	}
	o := Options{Dir: dir, Keys: k}
	if change != nil {
		change(&o)
	}
	return Open(o)
}

func recs(from, n int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = fmt.Appendf(nil, "record %d %s", from+i, strings.Repeat("x", (from+i)%50))
	}
	return out
}

func mustAppend(t testing.TB, s *Store, comp string, r [][]byte) event.Ref {
	t.Helper()
	ref, err := s.Append(context.Background(), Events, comp, r)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// all reads everything of a compartment.
func all(t testing.TB, s *Store, comp string) (texts []string, pos Position) {
	t.Helper()
	pos, err := s.Read(context.Background(), Events, comp, Position{}, func(_ event.Ref, rec []byte) error {
		texts = append(texts, string(rec))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return texts, pos
}

func texts(r [][]byte) []string {
	var out []string
	for _, b := range r {
		out = append(out, string(b))
	}
	return out
}

func TestAppendReadReopen(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, func(o *Options) { o.MaxSegmentRecords = 25 })
	want := recs(0, 100)
	for i := 0; i < 100; i += 10 {
		ref := mustAppend(t, s, "servers", want[i:i+10])
		for k := range 10 {
			got, err := s.Get(context.Background(), ref.Next(uint64(k)))
			if err != nil || string(got) != string(want[i+k]) {
				t.Fatalf("Get %s: %q, %v", ref.Next(uint64(k)), got, err)
			}
		}
	}
	got, pos := all(t, s, "servers")
	if diff := cmp.Diff(texts(want), got); diff != "" {
		t.Fatal(diff)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, nil)
	if r := s.Recovered(); len(r) != 0 {
		t.Fatalf("a clean stop was recovered: %v", r)
	}
	got, pos2 := all(t, s, "servers")
	if diff := cmp.Diff(texts(want), got); diff != "" {
		t.Fatal(diff)
	}
	if pos != pos2 {
		t.Fatalf("position %v, after a restart %v", pos, pos2)
	}
	if diff := cmp.Diff([]string{"servers"}, s.Compartments(Events)); diff != "" {
		t.Fatal(diff)
	}
	// A reader that was at the end sees only what comes.
	mustAppend(t, s, "servers", [][]byte{[]byte("new")})
	n := 0
	if _, err := s.Read(context.Background(), Events, "servers", pos2, func(_ event.Ref, rec []byte) error {
		n++
		if string(rec) != "new" {
			t.Errorf("got %q", rec)
		}
		return nil
	}); err != nil || n != 1 {
		t.Fatalf("%d records, %v", n, err)
	}
}

func TestAppendFuncKnowsItsPosition(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	mustAppend(t, s, "a", recs(0, 3))
	ref, err := s.AppendFunc(context.Background(), Events, "a", 2, func(first event.Ref) ([][]byte, error) {
		return [][]byte{[]byte("x"), []byte(first.String())}, nil
	})
	if err != nil || ref.Ordinal != 3 {
		t.Fatal(ref, err)
	}
	got, err := s.Get(context.Background(), ref.Next(1))
	if err != nil || string(got) != ref.String() {
		t.Fatalf("%q, %v", got, err)
	}
	boom := errors.New("boom")
	if _, err := s.AppendFunc(context.Background(), Events, "a", 2, func(event.Ref) ([][]byte, error) { return nil, boom }); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if _, err := s.AppendFunc(context.Background(), Events, "a", 2, func(event.Ref) ([][]byte, error) { return recs(0, 1), nil }); err == nil {
		t.Fatal("one record for two was accepted")
	}
	if ref := mustAppend(t, s, "a", recs(0, 1)); ref.Ordinal != 5 {
		t.Fatalf("a failed build took a number: %v", ref)
	}
}

func TestGroupCommit(t *testing.T) {
	s := open(t, t.TempDir(), func(o *Options) { o.MaxSegmentRecords = 1500 })
	const senders, calls, per = 64, 10, 10
	refs := make([][]event.Ref, senders)
	var wg sync.WaitGroup
	for i := range senders {
		wg.Go(func() {
			for c := range calls {
				var r [][]byte
				for k := range per {
					r = append(r, fmt.Appendf(nil, "%d/%d/%d", i, c, k))
				}
				ref, err := s.Append(context.Background(), Events, "a", r)
				if err != nil {
					t.Error(err)
					return
				}
				refs[i] = append(refs[i], ref)
			}
		})
	}
	wg.Wait()
	at := map[event.Ref]string{}
	if _, err := s.Read(context.Background(), Events, "a", Position{}, func(ref event.Ref, rec []byte) error {
		at[ref] = string(rec)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(at) != senders*calls*per {
		t.Fatalf("%d records", len(at))
	}
	for i, rs := range refs {
		for c, ref := range rs {
			for k := range per {
				if want := fmt.Sprintf("%d/%d/%d", i, c, k); at[ref.Next(uint64(k))] != want {
					t.Fatalf("%s holds %q, want %q", ref.Next(uint64(k)), at[ref.Next(uint64(k))], want)
				}
			}
		}
	}
	st := s.Stats().Events
	if st.Appends != senders*calls || st.Records != senders*calls*per {
		t.Fatalf("%+v", st)
	}
	if st.Syncs*4 > st.Appends {
		t.Errorf("%d syncs for %d calls: nobody shared", st.Syncs, st.Appends)
	}
}

func TestTooLarge(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	ctx := context.Background()
	for name, r := range map[string][][]byte{
		"record": {make([]byte, maxRecord+1)},
		"call":   {make([]byte, maxRecord), make([]byte, maxRecord)},
	} {
		if _, err := s.Append(ctx, Events, "a", r); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := s.AppendFunc(ctx, Events, "a", len(r), func(event.Ref) ([][]byte, error) { return r, nil }); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s by func: %v", name, err)
		}
	}
	big := make([]byte, maxRecord)
	rand.Read(big)
	ref := mustAppend(t, s, "a", [][]byte{big, {}, []byte("after")})
	got, err := s.Get(ctx, ref)
	if err != nil || string(got) != string(big) {
		t.Fatal("the largest record changed", err)
	}
	if got, err := s.Get(ctx, ref.Next(1)); err != nil || len(got) != 0 {
		t.Fatal("the empty record changed", err)
	}
}

func TestWait(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	woke := make(chan error)
	go func() { woke <- s.Wait(ctx, Events, "a", Position{}) }()
	ref := mustAppend(t, s, "a", recs(0, 2))
	if err := <-woke; err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(ctx, Events, "a", Position{Segment: ref.Segment, Ordinal: 1}); err != nil {
		t.Fatal(err)
	}
	go func() { woke <- s.Wait(ctx, Events, "a", After(ref.Next(1))) }()
	select {
	case err := <-woke:
		t.Fatalf("woke with nothing there: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	if err := s.Rotate(); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, "a", recs(2, 1))
	if err := <-woke; err != nil {
		t.Fatal(err)
	}
	go func() { woke <- s.Wait(ctx, Originals, "a", Position{}) }()
	time.Sleep(time.Millisecond)
	s.Close()
	if err := <-woke; !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if _, err := s.Append(ctx, Events, "a", recs(0, 1)); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

// TestWaitPassesEmptySegments: a segment in which nothing durable came, such as one
// whose first write failed, wakes nobody.
func TestWaitPassesEmptySegments(t *testing.T) {
	dir := quickDir(t)
	s := open(t, dir, nil)
	ref := mustAppend(t, s, "a", recs(0, 2))
	if err := s.Rotate(); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, "a", recs(2, 1))
	path := files(t, dir, "a", extOpen)[0]
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	hd, err := readHead(&window{r: bytes.NewReader(b), size: int64(len(b))})
	if err != nil {
		t.Fatal(err)
	}
	crashed := quickDir(t)
	copyDir(t, dir, crashed)
	rewrite(t, files(t, crashed, "a", extOpen)[0], b[:hd.size])
	s = open(t, crashed, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if err := s.Wait(ctx, Events, "a", After(ref.Next(1))); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("woke for an empty segment: %v", err)
	}
	if err := s.Wait(context.Background(), Events, "a", positionOf(ref)); err != nil {
		t.Fatal(err)
	}
	woke := make(chan error)
	go func() { woke <- s.Wait(context.Background(), Events, "a", After(ref.Next(1))) }()
	mustAppend(t, s, "a", recs(2, 1))
	if err := <-woke; err != nil {
		t.Fatal(err)
	}
}

// positionOf is the position of a record.
func positionOf(r event.Ref) Position { return Position{Segment: r.Segment, Ordinal: r.Ordinal} }

func TestRecoverAfterNoClose(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	mustAppend(t, s, "a", recs(0, 5))
	mustAppend(t, s, "a", recs(5, 5))
	crashed := t.TempDir()
	if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(crashed, "keys", "keyring"), 0o600); err != nil {
		t.Fatal(err)
	}
	s2 := open(t, crashed, nil)
	r := s2.Recovered()
	if len(r) != 1 || r[0].Kind != RecoveredClosed || r[0].Records != 10 {
		t.Fatalf("%v", r)
	}
	got, _ := all(t, s2, "a")
	if diff := cmp.Diff(texts(recs(0, 10)), got); diff != "" {
		t.Fatal(diff)
	}
	mustAppend(t, s2, "a", recs(10, 1))
	infos, err := s2.Segments(Events, "a")
	if err != nil || len(infos) != 2 || infos[0].Seq != 1 || infos[1].Seq != 2 || infos[0].Reason != reasonRecovered {
		t.Fatalf("%+v, %v", infos, err)
	}
}

func TestStopAndPositions(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	ref := mustAppend(t, s, "a", recs(0, 10))
	ctx := context.Background()
	n := 0
	pos, err := s.Read(ctx, Events, "a", Position{}, func(event.Ref, []byte) error {
		if n++; n == 3 {
			return ErrStop
		}
		return nil
	})
	if err != nil || pos.Ordinal != 3 {
		t.Fatal(pos, err)
	}
	boom := errors.New("boom")
	pos, err = s.Read(ctx, Events, "a", pos, func(r event.Ref, _ []byte) error {
		if r.Ordinal == 5 {
			return boom
		}
		return nil
	})
	if !errors.Is(err, boom) || pos.Ordinal != 5 {
		t.Fatal(pos, err)
	}
	for _, p := range []Position{{Ordinal: 1}, {Segment: [16]byte{1}}, {Segment: ref.Segment, Ordinal: 11}} {
		if _, err := s.Read(ctx, Events, "a", p, nil); !errors.Is(err, ErrPosition) {
			t.Errorf("%v: %v", p, err)
		}
	}
	if _, err := s.Get(ctx, ref.Next(10)); !errors.Is(err, ErrPosition) {
		t.Error(err)
	}
	if !slices.Equal(s.Compartments(Originals), nil) {
		t.Error("originals hold something")
	}
}

// TestBack walks back over segments of every length, closed and open.
func TestBack(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	var places []Position
	for i, n := range []int{3, 1, 40, 2, 1} {
		first := mustAppend(t, s, "a", recs(0, n))
		for k := range n {
			places = append(places, positionOf(first.Next(uint64(k))))
		}
		if i < 4 {
			if err := s.Rotate(); err != nil {
				t.Fatal(err)
			}
		}
		if i == 2 { // the counts of closed segments come from their footers
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir, nil)
		}
	}
	_, end := all(t, s, "a")
	for n := range len(places) + 5 {
		got := s.Back(Events, "a", end, uint64(n))
		left := 0
		if _, err := s.Read(t.Context(), Events, "a", got, func(event.Ref, []byte) error { left++; return nil }); err != nil {
			t.Fatal(err)
		}
		if want := min(n, len(places)); left != want {
			t.Errorf("back by %d: %d records to the end, want %d (%v)", n, left, want, got)
		}
		if 0 < n && n <= len(places) && got != places[len(places)-n] {
			t.Errorf("back by %d: %v, want %v", n, got, places[len(places)-n])
		}
	}
	for _, p := range []Position{{}, {Segment: [16]byte{1}, Ordinal: 4}} {
		if got := s.Back(Events, "a", p, 3); got.Segment != p.Segment {
			t.Errorf("back from %v: %v", p, got)
		}
	}
	if got := s.Back(Events, "none", end, 3); got != end {
		t.Error(got)
	}
}

// blocked appends a record whose build holds the writer until release is called.
func blocked(t *testing.T, s *Store, comp string) (release func()) {
	t.Helper()
	in, out, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		if _, err := s.AppendFunc(context.Background(), Events, comp, 1, func(event.Ref) ([][]byte, error) {
			close(in)
			<-out
			return recs(0, 1), nil
		}); err != nil {
			t.Error(err)
		}
	}()
	<-in
	return func() { close(out); <-done }
}

// waiting blocks until n calls are queued.
func waiting(s *Store, comp string, n int) {
	l := s.log(Events, comp)
	for {
		l.mu.Lock()
		k := len(l.queue)
		l.mu.Unlock()
		if k >= n {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// TestTwoLargeCallsAtOnce: each fits a block, both do not. The second keeps the
// position that it was told.
func TestTwoLargeCallsAtOnce(t *testing.T) {
	s := open(t, quickDir(t), func(o *Options) { o.BlockBytes = 12 << 20 })
	release := blocked(t, s, "a")
	var bodies [2][]byte
	for i := range bodies {
		bodies[i] = make([]byte, 11<<20)
		rand.Read(bodies[i])
	}
	bodies[1] = append(bodies[1], bodies[0][:4<<20]...)
	var wg sync.WaitGroup
	for i, body := range bodies {
		wg.Go(func() {
			var told event.Ref
			ref, err := s.AppendFunc(context.Background(), Events, "a", 2, func(first event.Ref) ([][]byte, error) {
				told = first
				return [][]byte{body, []byte(first.String())}, nil
			})
			if err != nil || ref != told {
				t.Errorf("%d: %v, told %v, %v", i, ref, told, err)
				return
			}
			a, err1 := s.Get(context.Background(), ref)
			b, err2 := s.Get(context.Background(), ref.Next(1))
			if err1 != nil || err2 != nil || string(a) != string(body) || string(b) != ref.String() {
				t.Errorf("%d: another record, %v, %v", i, err1, err2)
			}
		})
	}
	waiting(s, "a", 2)
	release()
	wg.Wait()
	if st := s.Stats().Events; st.Records != 5 || st.Blocks < 2 {
		t.Errorf("%+v", st)
	}
}

func TestCancelledCallIsNotStored(t *testing.T) {
	s := open(t, quickDir(t), nil)
	release := blocked(t, s, "a")
	ctx, cancel := context.WithCancel(context.Background())
	got := make(chan error, 1)
	go func() {
		_, err := s.Append(ctx, Events, "a", [][]byte{[]byte("cancelled")})
		got <- err
	}()
	waiting(s, "a", 1)
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	release()
	mustAppend(t, s, "a", recs(1, 1))
	have, _ := all(t, s, "a")
	if diff := cmp.Diff(texts(recs(0, 2)), have); diff != "" {
		t.Fatal(diff)
	}
	if _, err := s.Append(ctx, Events, "a", recs(0, 1)); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// TestIdleSegmentIsClosedByAge: a key does not live on because nobody writes.
func TestIdleSegmentIsClosedByAge(t *testing.T) {
	s := open(t, quickDir(t), func(o *Options) { o.MaxSegmentAge = 30 * time.Millisecond })
	mustAppend(t, s, "a", recs(0, 1))
	for end := time.Now().Add(10 * time.Second); ; {
		infos, err := s.Segments(Events, "a")
		if err != nil {
			t.Fatal(err)
		}
		if infos[0].Reason == reasonAge {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%+v", infos)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestReadersWhileSegmentsTurn reads from the start and from the end while segments
// are closed under it.
func TestReadersWhileSegmentsTurn(t *testing.T) {
	s := open(t, quickDir(t), func(o *Options) { o.MaxSegmentRecords = 6 })
	const n = 600
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { // a follower
			var pos Position
			next := 0
			for next < n {
				if err := s.Wait(context.Background(), Events, "a", pos); err != nil {
					t.Error(err)
					return
				}
				var err error
				if pos, err = s.Read(context.Background(), Events, "a", pos, func(ref event.Ref, rec []byte) error {
					if string(rec) != string(recs(next, 1)[0]) {
						return fmt.Errorf("%s is %q, want record %d", ref, rec, next)
					}
					next++
					return nil
				}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := 0; i < n; i += 2 {
		ref := mustAppend(t, s, "a", recs(i, 2))
		if i%50 == 0 {
			if got, _ := all(t, s, "a"); len(got) < i+2 {
				t.Errorf("%d of %d records", len(got), i+2)
			}
			if _, err := s.Get(context.Background(), ref); err != nil {
				t.Error(err)
			}
		}
	}
	wg.Wait()
}
