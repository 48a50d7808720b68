package alias

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/counterseal/counterseal/internal/event"
)

// whole is what the Writer must give: the tokens of the whole text replaced.
func whole(t testing.TB, b *Book, s Scope, text []byte) string {
	t.Helper()
	var out strings.Builder
	for {
		start, end := event.NextToken(text)
		if start < 0 {
			out.Write(text)
			return out.String()
		}
		out.Write(text[:start])
		out.WriteString(show(t, b, s, string(text[start:end])))
		text = text[end:]
	}
}

// pieces writes the text in pieces of the lengths given, and the rest.
func pieces(t testing.TB, b *Book, s Scope, text []byte, cuts ...int) string {
	t.Helper()
	var out bytes.Buffer
	w := b.Writer(context.Background(), &out, s)
	for i := range len(cuts) + 1 {
		c := len(text)
		if i < len(cuts) {
			c = min(cuts[i], c)
		}
		p := bytes.Clone(text[:c])
		if n, err := w.Write(p); n != c || err != nil {
			t.Fatalf("Write of %d: %d, %v", c, n, err)
		}
		clear(p) // a Writer keeps nothing of what it was given
		text = text[c:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestTokenLengths(t *testing.T) {
	if n := len(event.NewToken(event.Person, 1, [16]byte{})); n != 3+tokenBody {
		t.Errorf("a token of epoch 1 has %d bytes", n)
	}
	long := []byte(event.NewToken(event.Person, 9999, [16]byte{}))
	if len(long) != tokenMax || !event.IsToken(long) {
		t.Errorf("a token of epoch 9999 has %d bytes, the Writer thinks %d", len(long), tokenMax)
	}
	if event.IsToken([]byte(event.NewToken(event.Person, 10000, [16]byte{}))) {
		t.Error("there are longer tokens than the Writer holds back")
	}
}

// samples are texts with tokens in all neighbourhoods.
func samples() []string {
	p, m := token(event.Person, 1), token(event.Mail, 2)
	long := string(event.NewToken(event.Address, 9999, [16]byte{1, 2, 3}))
	return []string{
		"",
		p,
		p + m + long,
		`{"user":"` + p + `","mail":"` + m + `","src":"` + long + `"}` + "\n",
		"p1_" + p + "abc" + m + "_1_" + long + "p1",
		"xp1_p12_p1234_p12345_" + p[3:] + " " + p[:20] + " " + p[:28] + "A",
		`C:\\Users\\` + p + `\\a.txt \n` + m,
		strings.Repeat("d", 40) + strings.Repeat("d1", 20) + strings.Repeat("d1_", 20),
		"a1_" + strings.Repeat("a", 25) + "d2_" + strings.Repeat("b", 26) + "m",
	}
}

func TestChunkBoundaries(t *testing.T) {
	b := open(t, options(t))
	s := Scope{Case: "c1"}
	for _, text := range samples() {
		want := whole(t, b, s, []byte(text))
		if strings.Contains(text, token(event.Person, 1)) && tokens([]byte(want)) > 0 {
			t.Errorf("%q: the sample is of no use", text)
		}
		for i := range len(text) + 1 {
			if got := pieces(t, b, s, []byte(text), i); got != want {
				t.Fatalf("%q cut at %d:\n got %q\nwant %q", text, i, got, want)
			}
			for j := range min(40, len(text)-i+1) {
				if got := pieces(t, b, s, []byte(text), i, j); got != want {
					t.Fatalf("%q cut at %d and %d more:\n got %q\nwant %q", text, i, j, got, want)
				}
			}
		}
		var out bytes.Buffer
		w := b.Writer(context.Background(), &out, s)
		if _, err := io.Copy(w, iotest.OneByteReader(strings.NewReader(text))); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil || out.String() != want {
			t.Fatalf("%q byte by byte:\n got %q, %v\nwant %q", text, out.String(), err, want)
		}
	}
}

// A row that ends in a line end, quote or bracket has gone out when Write returns: an
// answer that goes on for hours shows each row at once.
func TestNothingIsHeldBehindALineEnd(t *testing.T) {
	b := open(t, options(t))
	s := Scope{Case: "c1"}
	var out bytes.Buffer
	w := b.Writer(context.Background(), &out, s)
	var want string
	for _, text := range samples() {
		row := text + "\n"
		want += whole(t, b, s, []byte(row))
		if _, err := w.Write([]byte(row)); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Fatalf("after %q %d bytes are held", row, len(want)-out.Len())
		}
	}
	for _, row := range []string{"d_abc", "p12345", "x1_abc", "p1_abc1", "p1_A", "é"} {
		want += row
		if _, err := w.Write([]byte(row)); err != nil || out.String() != want {
			t.Fatalf("%q begins no token, and is held (%v)", row, err)
		}
	}
	if _, err := w.Write([]byte("x p1_abc")); err != nil {
		t.Fatal(err)
	}
	if got := out.String()[len(want):]; got != "x " {
		t.Errorf("what may begin a token: %q went out", got)
	}
	if err := w.Close(); err != nil || out.String() != want+"x p1_abc" {
		t.Errorf("Close: %v, %q", err, out.String()[len(want):])
	}
	if err := w.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("Write after Close")
	}
}

func TestRoundTrip(t *testing.T) {
	b := open(t, options(t))
	s := OfTeam("soc", noon)
	var text strings.Builder
	for n := range uint64(3000) {
		fmt.Fprintf(&text, `{"user":%q,"host":%q,"n":%d}`+"\n", token(event.Person, n), token(event.Device, n%7), n)
	}
	shown := pieces(t, b, s, []byte(text.String()), 1000, 5000)
	if n := tokens([]byte(shown)); n != 0 {
		t.Fatalf("%d tokens passed", n)
	}
	if r := resolve(t, b, s, shown); r.Text != text.String() || r.Known != 6000 {
		t.Errorf("%d known, %d unknown", r.Known, r.Unknown)
	}
}

func TestErrorsOfTheAnswerSurface(t *testing.T) {
	b := open(t, options(t))
	gone := errors.New("gone")
	for _, to := range []io.Writer{failing{gone}, failing{}} {
		w := b.Writer(context.Background(), to, Scope{Case: "c1"})
		_, err := w.Write([]byte("a " + token(event.Person, 1) + "\n"))
		want := io.ErrShortWrite
		if to == (failing{gone}) {
			want = gone
		}
		if !errors.Is(err, want) || !errors.Is(w.Close(), want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
}

type failing struct{ err error }

func (f failing) Write(p []byte) (int, error) { return len(p) / 2, f.err }

func TestWriterIsBounded(t *testing.T) {
	b := open(t, options(t))
	most := 0
	w := b.Writer(context.Background(), widest{&most}, Scope{Case: "c1"}).(*writer)
	var text bytes.Buffer
	for n := range uint64(3 * maxSeen) {
		text.WriteString(token(event.Person, n))
		text.WriteString("\n")
	}
	if _, err := w.Write(text.Bytes()); err != nil {
		t.Fatal(err)
	}
	if len(w.seen) > maxSeen || cap(w.out) > 4*maxOut || cap(w.held) > 4*tokenMax || most > maxOut+100 {
		t.Errorf("%d aliases remembered, room of %d and %d bytes, written at once %d", len(w.seen), cap(w.out), cap(w.held), most)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

type widest struct{ most *int }

func (w widest) Write(p []byte) (int, error) {
	*w.most = max(*w.most, len(p))
	return len(p), nil
}

func FuzzWriter(f *testing.F) {
	b := open(f, options(f))
	b.rows = 1000
	s := Scope{Case: "c1"}
	for _, text := range samples() {
		f.Add([]byte(text), uint8(7), uint8(40))
	}
	f.Fuzz(func(t *testing.T, text []byte, i, j uint8) {
		want := whole(t, b, s, text)
		got := pieces(t, b, s, text, int(i), int(j))
		if got != want {
			t.Errorf("%q cut at %d and %d:\n got %q\nwant %q", text, i, j, got, want)
		}
	})
}

// BenchmarkWriter writes 4 MiB of rows: without a token, with one in each row of 200
// bytes out of 1,000 people, and out of 100,000. The ratio is to io.Copy in the same run.
func BenchmarkWriter(b *testing.B) {
	row := `{"time":"2026-11-20T12:00:00.123456Z","dataset":"process_creation","process_id":4312,"user":"%s","message":"a process_1 was created by parent_2","level":"info","native.image":"C:\\Windows\\System32\\cmd.exe"}` + "\n"
	for _, people := range []int{0, 1000, 100_000} {
		var text bytes.Buffer
		for n := 0; text.Len() < 4<<20; n++ {
			who := "SYSTEM"
			if people > 0 {
				who = token(event.Person, uint64(n*7919%people))
			}
			fmt.Fprintf(&text, row, who)
		}
		b.Run(fmt.Sprintf("people=%d", people), func(b *testing.B) {
			book := open(b, options(b))
			var copied, replaced int64
			b.SetBytes(int64(text.Len()))
			for b.Loop() {
				start := int64(time.Since(began))
				if _, err := io.CopyBuffer(struct{ io.Writer }{sink{}}, struct{ io.Reader }{bytes.NewReader(text.Bytes())}, make([]byte, 32<<10)); err != nil {
					b.Fatal(err)
				}
				middle := int64(time.Since(began))
				w := book.Writer(context.Background(), sink{}, Scope{Case: "c1"})
				if _, err := io.CopyBuffer(w, struct{ io.Reader }{bytes.NewReader(text.Bytes())}, make([]byte, 32<<10)); err != nil {
					b.Fatal(err)
				}
				if err := w.Close(); err != nil {
					b.Fatal(err)
				}
				copied += middle - start
				replaced += int64(time.Since(began)) - middle
			}
			b.ReportMetric(float64(text.Len())*float64(b.N)*1000/float64(replaced), "writer-MB/s")
			b.ReportMetric(float64(replaced)/float64(copied), "x-copy")
		})
	}
}

var began = time.Now()

// sink is io.Discard without its short cuts.
type sink struct{}

func (sink) Write(p []byte) (int, error) { return len(p), nil }
