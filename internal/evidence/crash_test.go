package evidence

import (
	"bufio"
	"bytes"
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

	"github.com/google/go-cmp/cmp"

	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/packs"
)

// power is a disk that fails at one step. After a power cut every step fails, and
// bytes that were not synced are lost, or not, as it pleases the disk.
type power struct {
	mu     sync.Mutex
	steps  int
	at     int // the step to fail, 1 is the first; 0: none
	done   bool
	torn   bool // a write reaches the disk in part
	cut    bool // the power stays away
	err    error
	failed bool
	rng    *rand.Rand
	synced map[string]int64 // files written since the start: how much is safe
}

func (p *power) fault(s durable.Step) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed && p.cut {
		return p.err
	}
	if s.Done {
		switch s.Op {
		case durable.OpCreate:
			p.synced[s.Path] = 0
		case durable.OpSync:
			if st, err := os.Stat(s.Path); err == nil {
				p.synced[s.Path] = st.Size()
			}
		}
	}
	if s.Done != p.done {
		return nil
	}
	p.steps++
	if p.steps != p.at {
		return nil
	}
	p.failed = true
	if p.torn && s.Op == durable.OpWrite {
		return &durable.TornWrite{N: p.rng.IntN(400), Err: p.err}
	}
	return p.err
}

// off cuts what was never synced to a length between what was and what is there.
func (p *power) off(t testing.TB) {
	for path, n := range p.synced {
		st, err := os.Stat(path)
		if err != nil || st.Size() <= n {
			continue
		}
		keep := n + p.rng.Int64N(st.Size()-n+1)
		if p.rng.IntN(2) == 0 {
			keep = st.Size()
		}
		if err := os.Truncate(path, keep); err != nil {
			t.Fatal(err)
		}
	}
}

// work appends calls of three records until the first error, or to the end. It
// returns what was acknowledged.
func work(s *Store, stream Stream, calls int, onward bool) (acked, failed []string, err error) {
	for c := range calls {
		var r [][]byte
		for k := range 3 {
			r = append(r, fmt.Appendf(nil, "call %d record %d", c, k))
		}
		if _, e := s.Append(context.Background(), stream, "a", r); e != nil {
			failed = append(failed, texts(r)...)
			err = e
			if !onward {
				return acked, failed, err
			}
			continue
		}
		acked = append(acked, texts(r)...)
	}
	return acked, failed, err
}

// compare checks that what was acknowledged is there, once, in order, and that
// nothing else is but records of calls that failed.
func compare(t *testing.T, name string, got, acked, failed []string) {
	t.Helper()
	maybe := map[string]bool{}
	for _, f := range failed {
		maybe[f] = true
	}
	seen := map[string]bool{}
	var rest []string
	for _, g := range got {
		if seen[g] {
			t.Fatalf("%s: %q is there twice", name, g)
		}
		seen[g] = true
		if !maybe[g] {
			rest = append(rest, g)
		}
	}
	if diff := cmp.Diff(acked, rest); diff != "" {
		t.Fatalf("%s: %s", name, diff)
	}
	// A call is there whole or not at all.
	for i := 0; i < len(failed); i += 3 {
		if seen[failed[i]] != seen[failed[i+1]] || seen[failed[i]] != seen[failed[i+2]] {
			t.Fatalf("%s: a part of a call is there", name)
		}
	}
}

func TestPowerCutAtEveryStep(t *testing.T) { powerCuts(t, clearStage()) }

// TestPowerCutSealed is the same for originals whose key only officers have: the
// restarted server recovers what it cannot read.
func TestPowerCutSealed(t *testing.T) { powerCuts(t, sealedStage(t)) }

func powerCuts(t *testing.T, st stage) {
	const calls = 9
	small := func(p *power) func(*Options) {
		return func(o *Options) { st.change(o); o.MaxSegmentRecords = 12; o.FS.Fault = p.fault }
	}
	for _, mode := range []struct {
		name       string
		done, torn bool
	}{{"before", false, false}, {"torn", false, true}, {"after", true, false}} {
		step := 1
		for ; ; step++ {
			name := fmt.Sprintf("%s step %d", mode.name, step)
			dir := quickDir(t)
			p := &power{at: step, done: mode.done, torn: mode.torn, cut: true, err: errors.New("power cut"), rng: rand.New(rand.NewPCG(uint64(step), 1)), synced: map[string]int64{}}
			s, err := tryOpen(dir, small(p))
			var acked, failed []string
			if err == nil {
				acked, failed, err = work(s, st.stream, calls, false)
				if cerr := s.Close(); err == nil {
					err = cerr
				}
			}
			if p.failed && err == nil {
				t.Fatalf("%s: nobody was told", name)
			}
			p.off(t)
			s = open(t, dir, st.change)
			compare(t, name, st.read(t, dir, s), acked, failed)
			if _, err := s.Append(context.Background(), st.stream, "a", recs(0, 1)); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := s.Close(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if r := verify(t, dir); !r.OK() {
				t.Fatalf("%s: %v", name, r.Problems)
			}
			os.RemoveAll(dir)
			if !p.failed {
				break
			}
		}
		if step < 40 {
			t.Fatalf("%s: only %d steps", mode.name, step)
		}
	}
}

// TestPowerCutInRecovery cuts the power again at every step of the recovery from a
// torn tail.
func TestPowerCutInRecovery(t *testing.T) {
	torn := quickDir(t)
	s := open(t, torn, nil)
	mustAppend(t, s, "a", recs(0, 5))
	mustAppend(t, s, "a", recs(5, 5))
	base := quickDir(t)
	copyDir(t, torn, base)
	path := files(t, base, "a", extOpen)[0]
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rewrite(t, path, b[:len(b)-30])
	sc, err := scanSegment(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	lost := b[sc.table[1].off : len(b)-30]
	for _, done := range []bool{false, true} {
		for step := 1; ; step++ {
			dir := quickDir(t)
			copyDir(t, base, dir)
			p := &power{at: step, done: done, torn: true, cut: true, err: errors.New("power cut"), rng: rand.New(rand.NewPCG(uint64(step), 2)), synced: map[string]int64{}}
			if s, err := tryOpen(dir, func(o *Options) { o.FS.Fault = p.fault }); err == nil {
				s.Close()
			}
			p.off(t)
			s := open(t, dir, nil)
			got, _ := all(t, s, "a")
			if diff := cmp.Diff(texts(recs(0, 5)), got); diff != "" {
				t.Fatalf("step %d: %s", step, diff)
			}
			s.Close()
			if r := verify(t, dir); !r.OK() {
				t.Fatalf("step %d: %v", step, r.Problems)
			}
			tail, err := os.ReadFile(files(t, dir, "a", extTail)[0])
			if err != nil || !bytes.HasPrefix(tail, lost) {
				t.Fatalf("step %d: the cut bytes are not kept: %v", step, err)
			}
			os.RemoveAll(dir)
			if !p.failed {
				break
			}
		}
	}
}

func copyDir(t testing.TB, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(to, "keys", "keyring"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestOneFault: a single step fails and the disk works again. The store goes on in
// the same process, in a new segment.
func TestOneFault(t *testing.T) { oneFault(t, clearStage()) }

// TestOneFaultSealed is the same for sealed originals.
func TestOneFaultSealed(t *testing.T) { oneFault(t, sealedStage(t)) }

func oneFault(t *testing.T, st stage) {
	for _, mode := range []struct {
		name       string
		done, torn bool
		err        error
	}{{"before", false, false, syscall.EIO}, {"full", false, true, syscall.ENOSPC}, {"after", true, false, syscall.EIO}} {
		for step := 1; ; step++ {
			name := fmt.Sprintf("%s step %d", mode.name, step)
			dir := quickDir(t)
			p := &power{at: step, done: mode.done, torn: mode.torn, err: mode.err, rng: rand.New(rand.NewPCG(uint64(step), 3)), synced: map[string]int64{}}
			s, err := tryOpen(dir, func(o *Options) { st.change(o); o.MaxSegmentRecords = 12; o.FS.Fault = p.fault })
			if err != nil {
				os.RemoveAll(dir)
				continue
			}
			acked, failed, err := work(s, st.stream, 9, true)
			if err != nil && !errors.Is(err, mode.err) {
				t.Fatalf("%s: %v", name, err)
			}
			if mode.err == syscall.ENOSPC && err != nil && !durable.IsFull(err) {
				t.Fatalf("%s: the full disk is not told: %v", name, err)
			}
			if len(failed) > 3 {
				t.Fatalf("%s: one fault failed %d records", name, len(failed))
			}
			if st.stream == Originals { // what is cut is cut at the latest when it closes
				s.Close()
			}
			got := st.read(t, dir, s)
			compare(t, name, got, acked, failed)
			if len(got) != len(acked) {
				t.Fatalf("%s: records of a failed call are there while the process knows that they were cut", name)
			}
			s.Close()
			if r := verify(t, dir); !r.OK() {
				t.Fatalf("%s: %v", name, r.Problems)
			}
			s = open(t, dir, st.change)
			compare(t, name+" after a restart", st.read(t, dir, s), acked, failed)
			s.Close()
			if r := verify(t, dir); !r.OK() {
				t.Fatalf("%s: %v", name, r.Problems)
			}
			os.RemoveAll(dir)
			if !p.failed {
				break
			}
		}
	}
}

// TestFaultWithManySenders: everybody in a failed block gets the error.
func TestFaultWithManySenders(t *testing.T) {
	dir := quickDir(t)
	var mu sync.Mutex
	n := 0
	s := open(t, dir, func(o *Options) {
		o.FS.Fault = func(st durable.Step) error {
			mu.Lock()
			defer mu.Unlock()
			if st.Op == durable.OpSync && st.Done && strings.HasSuffix(st.Path, extOpen) {
				if n++; n%5 == 0 {
					return syscall.EIO
				}
			}
			return nil
		}
	})
	acked := map[string]bool{}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for c := range 20 {
				text := fmt.Sprintf("%d/%d", i, c)
				if _, err := s.Append(context.Background(), Events, "a", [][]byte{[]byte(text)}); err == nil {
					mu.Lock()
					acked[text] = true
					mu.Unlock()
				} else if !errors.Is(err, syscall.EIO) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got, _ := all(t, s, "a")
	for _, g := range got {
		if !acked[g] {
			t.Errorf("%q is there and was never acknowledged, or is there twice", g)
		}
		delete(acked, g)
	}
	if len(acked) != 0 || len(got) == 0 {
		t.Errorf("%d acknowledged records are missing of %d", len(acked), len(got))
	}
	s.Close()
	if r := verify(t, dir); !r.OK() {
		t.Fatal(r.Problems)
	}
}

// TestTornTailAtEveryCut: at every length of an open segment, the rest cut, zeroed
// or 0xFF, the walk tells a torn tail; a flipped bit in an earlier block is damage.
func TestTornTailAtEveryCut(t *testing.T) {
	dir := quickDir(t)
	s := open(t, dir, nil)
	for i := range 4 {
		mustAppend(t, s, "a", recs(i*3, 3))
	}
	path := files(t, dir, "a", extOpen)[0]
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := scanSegment(bytes.NewReader(b), int64(len(b)))
	if err != nil || len(whole.table) != 4 {
		t.Fatal(err)
	}
	judge := func(b []byte) (records uint64, torn bool) {
		sc, err := scanSegment(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			torn, err := tornHeader(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			return 0, torn
		}
		torn, _, err = sc.tornTail(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		return sc.records, torn
	}
	records := func(x []byte) uint64 { // in the part of x that is as it was: the fill may be what stood there
		same := 0
		for same < len(x) && x[same] == b[same] {
			same++
		}
		n := uint64(0)
		for i, e := range whole.table {
			end := int64(len(b))
			if i+1 < len(whole.table) {
				end = whole.table[i+1].off
			}
			if int64(same) >= end {
				n = e.first + 3
			}
		}
		return n
	}
	for cut := 0; cut <= len(b); cut++ {
		for name, fill := range map[string]int{"cut": -1, "zeroed": 0, "0xff": 0xff} {
			x := append([]byte(nil), b[:cut]...)
			for fill >= 0 && len(x) < len(b) {
				x = append(x, byte(fill))
			}
			want := records(x)
			if got, torn := judge(x); !torn || got != want {
				t.Fatalf("%s at %d: torn %v with %d records, want %d", name, cut, torn, got, want)
			}
		}
	}
	for at := 0; int64(at) < whole.table[3].off; at++ {
		x := append([]byte(nil), b...)
		x[at] ^= 1 << (at % 8)
		if _, torn := judge(x); torn {
			t.Fatalf("a flip at %d was taken for a torn tail", at)
		}
	}
}

// TestTornTailIsCutAndSaved does the same through Open at some lengths, and looks
// at what is left.
func TestTornTailIsCutAndSaved(t *testing.T) {
	base := quickDir(t)
	s := open(t, base, nil)
	for i := range 4 {
		mustAppend(t, s, "a", recs(i*3, 3))
	}
	b, err := os.ReadFile(files(t, base, "a", extOpen)[0])
	if err != nil {
		t.Fatal(err)
	}
	for cut := 1; cut < len(b); cut += 41 {
		for _, fill := range []int{-1, 0, 0xff} {
			dir := quickDir(t)
			copyDir(t, base, dir)
			path := files(t, dir, "a", extOpen)[0]
			x := append([]byte(nil), b[:cut]...)
			for fill >= 0 && len(x) < len(b) {
				x = append(x, byte(fill))
			}
			rewrite(t, path, x)
			s := open(t, dir, nil)
			rec := s.Recovered()
			if len(rec) != 1 {
				t.Fatalf("cut %d: %v", cut, rec)
			}
			got, _ := all(t, s, "a")
			if diff := cmp.Diff(texts(recs(0, len(got))), append([]string(nil), got...)); len(got) > 0 && diff != "" {
				t.Fatal(diff)
			}
			mustAppend(t, s, "a", recs(90, 1))
			s.Close()
			if r := verify(t, dir); !r.OK() {
				t.Fatalf("cut %d: %v", cut, r.Problems)
			}
			if rec[0].Kind == RecoveredTorn {
				tail, err := os.ReadFile(filepath.Join(dir, "evidence", "events", "a", rec[0].Tail))
				if err != nil || int64(len(tail)) != rec[0].Cut || sum(tail).String() != rec[0].SHA256 || !bytes.HasSuffix(x, tail) {
					t.Fatalf("cut %d: the tail was not saved: %v", cut, err)
				}
				rewrite(t, filepath.Join(dir, "evidence", "events", "a", rec[0].Tail), append(tail, 1))
				if r := verify(t, dir); len(r.Problems) != 1 || r.Problems[0].Part != PartTail {
					t.Fatalf("a changed tail: %v", r.Problems)
				}
			}
			os.RemoveAll(dir)
		}
	}
}

// TestDamageIsSetAside: damage in an open segment is never cut. The records before
// it are read, later segments name the file as it was found, and every start says
// so.
func TestDamageIsSetAside(t *testing.T) {
	dir := quickDir(t)
	s := open(t, dir, nil)
	for i := range 4 {
		mustAppend(t, s, "a", recs(i*3, 3))
	}
	hurt := quickDir(t)
	copyDir(t, dir, hurt)
	path := files(t, hurt, "a", extOpen)[0]
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sc, err := scanSegment(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	b[sc.table[2].off+100] ^= 4
	rewrite(t, path, b)
	for start := range 3 {
		s = open(t, hurt, nil)
		rec := s.Recovered()
		if len(rec) != 1 || rec[0].Kind != RecoveredDamaged || rec[0].Records != 6 {
			t.Fatalf("start %d: %v", start, rec)
		}
		got, _ := all(t, s, "a")
		want := texts(recs(0, 6))
		for i := range start {
			want = append(want, texts(recs(50+i, 1))...)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
		mustAppend(t, s, "a", recs(50+start, 1))
		s.Close()
	}
	kept, err := os.ReadFile(files(t, hurt, "a", extDamaged)[0])
	if err != nil || !bytes.Equal(kept, b) {
		t.Fatal("the damaged file was changed", err)
	}
	r := verify(t, hurt)
	var parts []Part
	for _, p := range r.Problems {
		parts = append(parts, p.Part)
	}
	if diff := cmp.Diff([]Part{PartFile, PartBlock}, parts); diff != "" {
		t.Fatal(r.Problems)
	}
	kept[len(kept)-1] ^= 1
	rewrite(t, files(t, hurt, "a", extDamaged)[0], kept)
	r = verify(t, hurt)
	if len(r.Problems) != 3 || r.Problems[2].Part != PartLink {
		t.Fatalf("changed after it was set aside: %v", r.Problems)
	}
}

// TestDamagedFooter: the newest closed segment has lost its end. It is set aside, its
// records are read by walking, and the next segment names it as it was found.
func TestDamagedFooter(t *testing.T) {
	dir := filled(t, 3)
	paths := files(t, dir, "a", extClosed)
	for i, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)-60] ^= 1
		if i > 0 { // the second is met by readers only, the third by Open
			rewrite(t, path, b)
		}
	}
	s := open(t, dir, nil)
	rec := s.Recovered()
	if len(rec) != 1 || rec[0].Kind != RecoveredDamaged || rec[0].Records != 63 {
		t.Fatalf("%v", rec)
	}
	mustAppend(t, s, "a", recs(189, 1))
	var got []string
	pos := Position{}
	damages := 0
	for {
		_, err := s.Read(context.Background(), Events, "a", pos, func(_ event.Ref, rec []byte) error {
			got = append(got, string(rec))
			return nil
		})
		var damage *DamageError
		if errors.As(err, &damage) {
			damages++
			pos = damage.Next
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	if diff := cmp.Diff(texts(recs(0, 190)), got); diff != "" || damages != 1 {
		t.Fatal(damages, diff)
	}
	s.Close()
	var parts []Part
	for _, p := range verify(t, dir).Problems {
		parts = append(parts, p.Part)
	}
	if diff := cmp.Diff([]Part{PartFooter, PartFile, PartBlock}, parts); diff != "" {
		t.Fatal(diff)
	}
}

// TestDamagedClosedBlock: reading stops at the damage and says where to go on.
func TestDamagedClosedBlock(t *testing.T) {
	dir := filled(t, 2)
	path := files(t, dir, "a", extClosed)[0]
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, foot, err := readEnds(path)
	if err != nil {
		t.Fatal(err)
	}
	b[foot.table[3].off+frameHeadLen+3] ^= 1
	rewrite(t, path, b)
	s := open(t, dir, nil)
	var got []string
	collect := func(_ event.Ref, rec []byte) error {
		got = append(got, string(rec))
		return nil
	}
	_, err = s.Read(context.Background(), Events, "a", Position{}, collect)
	var damage *DamageError
	if !errors.As(err, &damage) || damage.Block != 3 || len(got) != 27 {
		t.Fatalf("%d records, %v", len(got), err)
	}
	if _, err = s.Read(context.Background(), Events, "a", damage.Next, collect); err != nil {
		t.Fatal(err)
	}
	if want := append(texts(recs(0, 27)), texts(recs(36, 126-36))...); cmp.Diff(want, got) != "" {
		t.Fatal(cmp.Diff(want, got))
	}
}

// TestClockJumps: a clock 200 days ahead, and back after a restart, changes neither
// the order of segments nor that of records.
func TestClockJumps(t *testing.T) {
	dir := quickDir(t)
	now := time.Now()
	n := 0
	for _, d := range []time.Duration{0, 200 * 24 * time.Hour, 0, -10 * 365 * 24 * time.Hour, time.Hour} {
		s := open(t, dir, func(o *Options) { o.Now = func() time.Time { return now.Add(d) } })
		for range 3 {
			mustAppend(t, s, "a", recs(n, 2))
			n += 2
			if err := s.Rotate(); err != nil {
				t.Fatal(err)
			}
		}
		s.Close()
	}
	// Inside one process, and over the age of a segment.
	at := now
	s := open(t, dir, func(o *Options) { o.Now = func() time.Time { return at } })
	for _, d := range []time.Duration{0, 200 * 24 * time.Hour, -200 * 24 * time.Hour} {
		at = at.Add(d)
		mustAppend(t, s, "a", recs(n, 2))
		n += 2
	}
	got, _ := all(t, s, "a")
	if diff := cmp.Diff(texts(recs(0, n)), got); diff != "" {
		t.Fatal(diff)
	}
	infos, err := s.Segments(Events, "a")
	if err != nil {
		t.Fatal(err)
	}
	for i, in := range infos {
		if in.Seq != uint64(i+1) || i > 0 && in.Segment.String() <= infos[i-1].Segment.String() {
			t.Fatalf("segment %d is number %d, %s after %s", i, in.Seq, in.Segment, infos[max(i-1, 0)].Segment)
		}
	}
	if len(infos) != 18 || infos[15].Reason != reasonAge || infos[16].Reason != reasonAge {
		t.Fatalf("%+v", infos)
	}
	s.Close()
	if r := verify(t, dir); !r.OK() {
		t.Fatal(r.Problems)
	}
}

const childEnv = "COUNTERSEAL_EVIDENCE_CHILD"

// TestKill9 kills a writing process many times and compares what it was told with
// what is there.
func TestKill9(t *testing.T) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
	}
	rounds := 8
	switch {
	case testing.Short():
		rounds = 2
	case packs.Required("kill"):
		rounds = 50
	}
	if n, err := strconv.Atoi(os.Getenv("COUNTERSEAL_KILLS")); err == nil {
		rounds = n
	}
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	rng := rand.New(rand.NewPCG(seed, 9))
	recovered, told := 0, 0
	dir, acked := "", map[string]bool{}
	for round := range rounds {
		if round%20 == 0 { // or the look at everything grows with the square
			dir, acked = t.TempDir(), map[string]bool{}
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill9$")
		cmd.Env = append(os.Environ(), childEnv+"="+dir, "ROUND="+fmt.Sprint(round))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		stop := 50 + rng.IntN(400)
		for i := 0; lines.Scan(); i++ {
			if text, ok := strings.CutPrefix(lines.Text(), "ack "); ok {
				acked[text] = true
				told++
			}
			if i == stop {
				cmd.Process.Kill()
			}
		}
		cmd.Wait()
		s := open(t, dir, nil)
		recovered += len(s.Recovered())
		got, _ := all(t, s, "a")
		seen := map[string]bool{}
		last := map[string]string{}
		for _, g := range got {
			if seen[g] {
				t.Fatalf("round %d: %q twice", round, g)
			}
			seen[g] = true
			sender, n, _ := strings.Cut(g, "#")
			if last[sender] >= n {
				t.Fatalf("round %d: sender %s: %s after %s", round, sender, n, last[sender])
			}
			last[sender] = n
		}
		for a := range acked {
			if !seen[a] {
				t.Fatalf("round %d: %q was acknowledged and is not there", round, a)
			}
		}
		s.Close()
		if r := verify(t, dir); !r.OK() {
			t.Fatalf("round %d: %v", round, r.Problems)
		}
	}
	t.Logf("%d kills, %d recoveries, %d acknowledgements", rounds, recovered, told)
	if recovered == 0 || told < 50*rounds {
		t.Fatalf("%d recoveries, %d acknowledgements: the test did not kill a writer", recovered, told)
	}
}

func child(dir string) {
	s, err := tryOpen(dir, func(o *Options) { o.MaxSegmentRecords = 100 })
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for i := range 8 {
		go func() {
			for n := 0; ; n++ {
				text := fmt.Sprintf("%s/%d#%08d", os.Getenv("ROUND"), i, n)
				if _, err := s.Append(context.Background(), Events, "a", [][]byte{[]byte(text)}); err != nil {
					fmt.Println(err)
					os.Exit(1)
				}
				os.Stdout.WriteString("ack " + text + "\n")
			}
		}()
	}
	time.Sleep(20 * time.Second)
	os.Exit(1)
}
