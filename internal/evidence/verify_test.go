package evidence

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/counterseal/counterseal/internal/event"
)

// quickDir is a directory in memory where there is one: these tests sync often and
// do not depend on what the disk does.
func quickDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "counterseal-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func verify(t testing.TB, dir string) Report {
	t.Helper()
	r, err := Verify(context.Background(), dir, VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// files lists the files of a compartment with an extension, in order.
func files(t testing.TB, dir, comp, ext string) []string {
	t.Helper()
	m, err := filepath.Glob(filepath.Join(dir, "evidence", "events", comp, "*"+ext))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func rewrite(t testing.TB, path string, b []byte) {
	t.Helper()
	os.Chmod(path, 0o600)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// filled makes a directory with closed segments of 7 blocks each.
func filled(t testing.TB, segments int) string {
	dir := quickDir(t)
	s := open(t, dir, func(o *Options) { o.MaxSegmentRecords = 63 })
	for i := range segments * 7 {
		mustAppend(t, s, "a", recs(i*9, 9))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, dir); !r.OK() || len(r.Segments) != segments || r.Records != uint64(segments*63) || r.Blocks != uint64(segments*7) || len(r.Notes) != 0 {
		t.Fatalf("%+v", r)
	}
	return dir
}

// TestFlippedByte: a changed byte anywhere in a closed segment is found, and the
// report names the segment and the part that the byte belongs to.
func TestFlippedByte(t *testing.T) {
	dir := filled(t, 3)
	path := files(t, dir, "a", extClosed)[1]
	orig, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	hd, foot, err := readEnds(path)
	if err != nil {
		t.Fatal(err)
	}
	partOf := func(at int64) (Part, int) {
		switch {
		case at < hd.size:
			return PartHeader, -1
		case at >= int64(len(orig))-trailerLen:
			return PartTrailer, -1
		case at >= foot.end:
			return PartFooter, -1
		}
		i := 0
		for i+1 < len(foot.table) && foot.table[i+1].off <= at {
			i++
		}
		return PartBlock, i
	}
	rng := rand.New(rand.NewPCG(7, 7))
	step := 1
	if testing.Short() {
		step = 13
	}
	n := 0
	for at := 0; at < len(orig); at += step {
		b := append([]byte(nil), orig...)
		b[at] ^= byte(1 + rng.IntN(255))
		rewrite(t, path, b)
		r := verify(t, dir)
		n++
		part, block := partOf(int64(at))
		found := false
		for _, p := range r.Problems {
			if p.Segment == hd.id && p.Part == part && p.Block == block {
				found = true
			}
			if p.Segment == hd.id && p.Part == PartBlock && (part != PartBlock || p.Block != block) {
				t.Errorf("byte %d of %s %d: also blames %v", at, part, block, p)
			}
		}
		if !found {
			t.Fatalf("byte %d of %s %d: %v", at, part, block, r.Problems)
		}
	}
	if n < 100 {
		t.Fatalf("only %d positions were tried", n)
	}
}

// TestForger changes bytes and mends the checksums: the hashes must find it.
func TestForger(t *testing.T) {
	dir := filled(t, 3)
	paths := files(t, dir, "a", extClosed)
	path := paths[1]
	orig, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	hd, foot, err := readEnds(path)
	if err != nil {
		t.Fatal(err)
	}
	mend := func(b []byte, from, to int64) { // checksum in the last 4 bytes
		binary.BigEndian.PutUint32(b[to-4:], crcOf(b[from:to-4]))
	}
	blockEnd := func(i int) int64 {
		if i+1 < len(foot.table) {
			return foot.table[i+1].off
		}
		return foot.end
	}
	cases := map[string]struct {
		change func(b []byte) []byte
		part   Part
		block  int
		next   bool // it is the next segment that knows
	}{
		"opened time in header": {func(b []byte) []byte {
			i := strings.Index(string(b), `"opened":"`) + len(`"opened":"`)
			b[i+3] ^= 1
			mend(b, 0, hd.size)
			return b
		}, PartHeader, -1, false},
		"leaf of block 2": {func(b []byte) []byte {
			b[foot.table[2].off+frameHeadLen+40] ^= 1
			mend(b, foot.table[2].off, blockEnd(2))
			return b
		}, PartBlock, 2, false},
		"time of the last block": {func(b []byte) []byte {
			b[foot.table[6].off+39] ^= 1
			mend(b, foot.table[6].off, blockEnd(6))
			return b
		}, PartBlock, 6, false},
		"two blocks swapped": {func(b []byte) []byte {
			x := append([]byte(nil), b[foot.table[3].off:foot.table[4].off]...)
			y := append([]byte(nil), b[foot.table[4].off:foot.table[5].off]...)
			copy(b[foot.table[3].off:], append(y, x...))
			return b
		}, PartBlock, 3, false},
		"time of the footer": {func(b []byte) []byte {
			b[foot.end+39] ^= 1
			mend(b, foot.end, int64(len(b))-trailerLen)
			return b
		}, PartLink, -1, true},
		"root in the footer": {func(b []byte) []byte {
			i := strings.Index(string(b), `"blocks_root":"`) + len(`"blocks_root":"`)
			b[i] = "0123456789abcdef0"[strings.IndexByte("0123456789abcdef", b[i])+1]
			mend(b, foot.end, int64(len(b))-trailerLen)
			return b
		}, PartFooter, -1, false},
		"a tile": {func(b []byte) []byte {
			b[foot.end+int64(foot.tilesAt)] ^= 1
			mend(b, foot.end, int64(len(b))-trailerLen)
			return b
		}, PartFooter, -1, false},
		"last block and its line cut out, closed anew": {func(b []byte) []byte {
			sc, err := scanSegment(strings.NewReader(string(b)), foot.table[6].off)
			if err != nil {
				t.Fatal(err)
			}
			f, tr, _ := sc.footer(foot.Reason, foot.head.ms, 0, "")
			return append(append(append([]byte(nil), b[:foot.table[6].off]...), f...), tr...)
		}, PartLink, -1, true},
		"bytes behind the trailer": {func(b []byte) []byte { return append(b, 0) }, PartTrailer, -1, false},
	}
	nextHead, _, err := readEnds(paths[2])
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range cases {
		rewrite(t, path, c.change(append([]byte(nil), orig...)))
		want := hd.id
		if c.next {
			want = nextHead.id
		}
		found := false
		r := verify(t, dir)
		for _, p := range r.Problems {
			found = found || p.Segment == want && p.Part == c.part && p.Block == c.block
		}
		if !found {
			t.Errorf("%s: %v", name, r.Problems)
		}
		rewrite(t, path, orig)
	}
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	r := verify(t, dir)
	if len(r.Problems) != 1 || r.Problems[0].Part != PartLink || r.Problems[0].Segment != nextHead.id {
		t.Errorf("segment taken away: %v", r.Problems)
	}
}

func TestVerifyWhileAServerWrites(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, func(o *Options) { o.MaxSegmentRecords = 200 })
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := s.Append(context.Background(), Events, fmt.Sprintf("c%d", i%2), recs(n, 7)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for s.Stats().Events.Records < 3000 && !t.Failed() {
		if r := verify(t, dir); !r.OK() {
			t.Errorf("%v", r.Problems)
		}
	}
	close(stop)
	wg.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	r := verify(t, dir)
	if !r.OK() || r.Records != s.Stats().Events.Records || len(r.Segments) < 3 {
		t.Fatalf("%d records in %d segments, %v", r.Records, len(r.Segments), r.Problems)
	}
	for _, sr := range r.Segments {
		if !sr.HasKey || sr.State != "closed" {
			t.Errorf("%+v", sr)
		}
	}
}

func TestProve(t *testing.T) {
	dir := quickDir(t)
	s := open(t, dir, nil)
	var first event.Ref
	for i := range 130 { // over tile borders, blocks of several sizes
		ref := mustAppend(t, s, "a", recs(i*11, 11))
		if i == 0 {
			first = ref
		}
	}
	if _, err := s.Prove(context.Background(), Events, first); err == nil {
		t.Fatal("a proof in an open segment")
	}
	if err := s.Rotate(); err != nil {
		t.Fatal(err)
	}
	infos, err := s.Segments(Events, "a")
	if err != nil || len(infos) != 1 {
		t.Fatal(infos, err)
	}
	for i := uint64(0); i < infos[0].Records; i += 17 {
		p, err := s.Prove(context.Background(), Events, first.Next(i))
		if err != nil {
			t.Fatal(err)
		}
		if string(p.Record) != string(recs(int(i), 1)[0]) || hash(p.Root).String() != infos[0].RecordsRoot {
			t.Fatalf("record %d: %q", i, p.Record)
		}
		p.Record = append(p.Record, 'x')
		if p.Check() == nil {
			t.Fatal("accepted another record")
		}
	}
	if _, err := s.Prove(context.Background(), Events, first.Next(infos[0].Records)); !errors.Is(err, ErrPosition) {
		t.Fatal(err)
	}
}

// meter counts what is read.
type meter struct {
	r *os.File
	n int
}

func (m *meter) ReadAt(b []byte, off int64) (int, error) {
	m.n += len(b)
	return m.r.ReadAt(b, off)
}

// TestProofReadsLittle: DESIGN.md allows 150 KiB for the proof of any record, also
// where every block holds one.
func TestProofReadsLittle(t *testing.T) {
	dir := quickDir(t)
	s := open(t, dir, nil)
	var first event.Ref
	small := make([][]byte, 50_000)
	for i := range small {
		small[i] = []byte{byte(i)}
	}
	for i := range 4 {
		ref := mustAppend(t, s, "a", small)
		if i == 0 {
			first = ref
		}
		for range 500 {
			mustAppend(t, s, "a", small[:1])
		}
	}
	if err := s.Rotate(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(files(t, dir, "a", extClosed)[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	for _, i := range []uint64{0, 1, 49_999, 50_000, 50_300, 50_499, 50_500, 101_300, 201_999} {
		m := &meter{r: f}
		_, path, size, root, err := provePath(m, st.Size(), i)
		if err != nil || size != 202_000 {
			t.Fatal(i, size, err)
		}
		p, err := s.Prove(context.Background(), Events, first.Next(i))
		if err != nil {
			t.Fatal(err)
		}
		if err := checkPath(leafHash(p.Salt[:], p.Record), i, size, path, root); err != nil {
			t.Fatal(i, err)
		}
		most = max(most, m.n)
	}
	if most > 150<<10 {
		t.Fatalf("one proof read %d bytes", most)
	}
	t.Logf("at most %d bytes", most)
}
