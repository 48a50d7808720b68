package evidence

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/event"
)

// aSegment is a small closed segment, always the same but for its key.
func aSegment(f *testing.F) (whole []byte, footAt int64) {
	dir := quickDir(f)
	s := open(f, dir, nil)
	for i := range 3 {
		mustAppend(f, s, "a", recs(i*2, 2))
	}
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	path := files(f, dir, "a", extClosed)[0]
	b, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	_, foot, err := readEnds(path)
	if err != nil {
		f.Fatal(err)
	}
	return b, foot.end
}

func FuzzHeader(f *testing.F) {
	b, _ := aSegment(f)
	n, err := parsePrelude(b)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[preludeLen : n-4])
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, js []byte) {
		// The checksum is mended, so that the parser behind it is reached.
		h := append([]byte(preludeMagic), 0, 1, 0, 0, byte(len(js)>>24), byte(len(js)>>16), byte(len(js)>>8), byte(len(js)))
		h = append(h, js...)
		c := crcOf(h)
		h = append(h, byte(c>>24), byte(c>>16), byte(c>>8), byte(c))
		hd, err := parseHead(h)
		if err != nil {
			return
		}
		again, err := encodeHead(&hd.header)
		if err != nil || !bytes.Equal(again, h) {
			t.Fatalf("accepted a header that is written otherwise: %q", js)
		}
	})
}

func FuzzFooter(f *testing.F) {
	b, at := aSegment(f)
	foot := b[at : len(b)-trailerLen]
	f.Add(foot[:frameHeadLen], foot[frameHeadLen:len(foot)-4])
	f.Fuzz(func(t *testing.T, head, body []byte) {
		if len(head) != frameHeadLen || len(body) > 1<<16 {
			return
		}
		x := append(append([]byte(nil), head...), body...)
		n := len(x) + 4
		x[8], x[9], x[10], x[11] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
		c := crcOf(x)
		x = append(x, byte(c>>24), byte(c>>16), byte(c>>8), byte(c))
		p, err := parseFooter(x, 1<<20)
		if err != nil {
			return
		}
		if uint32(len(p.table)) != p.Blocks || uint64(len(p.tiles)) != 32*tileCount(p.Records) {
			t.Fatal("a footer whose parts do not fit was accepted")
		}
		trailer := trailerFor(0, len(x))
		r := bytes.NewReader(append(x, trailer...))
		for _, i := range []uint64{0, p.Records / 2, p.Records} {
			if _, _, _, _, err := provePath(r, r.Size(), i); err == nil {
				t.Fatal("a proof out of a footer alone")
			}
		}
	})
}

// FuzzSegment changes a whole file: what is not the original is never whole, and
// what is read from its front was there.
func FuzzSegment(f *testing.F) {
	whole, _ := aSegment(f)
	sc, err := scanSegment(bytes.NewReader(whole), int64(len(whole)))
	if err != nil || !sc.complete {
		f.Fatal(err)
	}
	f.Add(uint32(100), []byte{1}, uint32(len(whole)))
	f.Add(uint32(sc.end), []byte("CSBK"), uint32(len(whole)))
	f.Add(uint32(700), []byte("CSBK\x01\x00\x00\x00\x00\x00\x00\x80"), uint32(900))
	f.Fuzz(func(t *testing.T, at uint32, patch []byte, size uint32) {
		x := append([]byte(nil), whole...)
		if int(size) < len(x) {
			x = x[:size]
		}
		if int(at) < len(x) {
			copy(x[at:], patch)
		}
		r := bytes.NewReader(x)
		got, err := scanSegment(r, r.Size())
		if err != nil {
			if _, err := tornHeader(r, r.Size()); err != nil {
				t.Fatal(err)
			}
			return
		}
		if got.complete && !bytes.Equal(x, whole) {
			t.Fatal("a changed segment is called whole")
		}
		if !bytes.Equal(x[:got.end], whole[:got.end]) {
			t.Fatal("blocks that were changed were accepted")
		}
		if _, _, err := got.tornTail(r, r.Size()); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzCard(f *testing.F) {
	dir := quickDir(f)
	s := open(f, dir, nil)
	ref := mustAppend(f, s, "a", recs(0, 1))
	b, err := os.ReadFile(cardPath(dir, ref.Segment))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var c card
		if parseCard(b, &c) != nil {
			return
		}
		if again, err := marshalLine(c); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("accepted a card that is written otherwise")
		}
	})
}

func FuzzBlock(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 'x', 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		for len(b) > 0 {
			rec, rest, err := nextRecord(b)
			if err != nil {
				return
			}
			if len(rec)+len(rest)+4 != len(b) {
				t.Fatal("bytes were lost")
			}
			b = rest
			n++
		}
	})
}

// TestCardBelongsToItsSegment: cards cannot be exchanged, nor a header be put over
// another's blocks.
func TestCardBelongsToItsSegment(t *testing.T) {
	dir := quickDir(t)
	s := open(t, dir, nil)
	a := mustAppend(t, s, "a", recs(0, 1))
	if err := s.Rotate(); err != nil {
		t.Fatal(err)
	}
	b := mustAppend(t, s, "a", recs(1, 1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	read := func() error {
		s := open(t, dir, nil)
		defer s.Close()
		_, err := s.Get(t.Context(), a)
		return err
	}
	if err := read(); err != nil {
		t.Fatal(err)
	}
	card := func(id uuid.UUID) []byte {
		c, err := os.ReadFile(cardPath(dir, id))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	ca, cb := card(a.Segment), card(b.Segment)
	forged := bytes.Replace(cb, []byte(b.Segment.String()), []byte(a.Segment.String()), 1)
	for name, c := range map[string][]byte{"other": cb, "renamed": forged, "short": ca[:len(ca)-9]} {
		rewrite(t, cardPath(dir, a.Segment), c)
		if err := read(); err == nil {
			t.Errorf("%s: the segment opened", name)
		}
	}
	os.Remove(cardPath(dir, a.Segment))
	if err := read(); !errors.Is(err, ErrNoKey) {
		t.Errorf("without a card: %v", err)
	}
	// A follower is told, and can go on.
	func() {
		s := open(t, dir, nil)
		defer s.Close()
		_, err := s.Read(t.Context(), Events, "a", Position{}, func(event.Ref, []byte) error { return nil })
		var damage *DamageError
		if !errors.As(err, &damage) || !errors.Is(err, ErrNoKey) || damage.Next.Segment != b.Segment {
			t.Fatalf("%v", err)
		}
		n := 0
		if _, err := s.Read(t.Context(), Events, "a", damage.Next, func(event.Ref, []byte) error { n++; return nil }); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		// The last segment too: the place behind it is stable.
		os.Remove(cardPath(dir, b.Segment))
		s2 := open(t, dir, nil)
		defer s2.Close()
		_, err = s2.Read(t.Context(), Events, "a", damage.Next, nil)
		if !errors.As(err, &damage) || damage.Next != After(b) {
			t.Fatalf("%v, then %v", err, damage.Next)
		}
		if pos, err := s2.Read(t.Context(), Events, "a", damage.Next, nil); err != nil || pos != After(b) {
			t.Fatal(pos, err)
		}
		rewrite(t, cardPath(dir, b.Segment), cb)
	}()
	r := verify(t, dir)
	if !r.OK() || r.Segments[0].HasKey || !r.Segments[1].HasKey {
		t.Errorf("without a card: %+v", r)
	}
	if st, err := os.Stat(filepath.Join(dir, "keys", "segments", b.Segment.String()+".card")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode of a card: %v, %v", st.Mode(), err)
	}
}
