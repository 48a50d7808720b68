package vault

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/counterseal/counterseal/internal/event"
)

// seals sees people and notes records about them.
func (h *house) seals(compartment string, at time.Time, names ...string) {
	h.t.Helper()
	h.sees(names...)
	var rec [][]byte
	for _, n := range names {
		rec = append(rec, []byte(`{"who":"`+string(tokenOf(n))+`","x":"_"}`))
	}
	if err := h.v.Keep(h.t.Context(), compartment, at, rec...); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) seen(name string) []Seen {
	h.t.Helper()
	s, err := h.v.Seen(h.t.Context(), tokenOf(name))
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

const week = 7 * 24 * time.Hour

func TestWeek(t *testing.T) {
	for text, want := range map[string]int{
		"1970-01-01T00:00:00Z": 0, "1970-01-04T23:59:59Z": 0, "1970-01-05T00:00:00Z": 1, "1969-12-28T23:59:59Z": -1,
		"2027-03-01T00:00:00Z": 2983, "2027-03-07T23:59:59Z": 2983, "2027-03-08T00:00:00Z": 2984,
	} {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil || Week(at) != want {
			t.Errorf("%s: %d, want %d", text, Week(at), want)
		}
	}
}

// TestSeen: each week in which a record with a token was sealed is noted before it is, once.
func TestSeen(t *testing.T) {
	h := newHouse(t)
	w := Week(now)
	h.seals("hr", now, "alice", "bob")
	h.seals("hr", now, "alice")
	h.seals("net", now, "alice")
	h.seals("hr", now.Add(3*week), "alice")
	sunday := time.Date(2027, 3, 7, 23, 30, 0, 0, time.UTC)
	h.seals("hr", sunday, "bob", "carol") // it may be sealed after midnight
	for name, want := range map[string][]Seen{
		"alice": {{"hr", []int{w, w + 3}}, {"net", []int{w}}},
		"bob":   {{"hr", []int{w, w + 1}}},
		"carol": {{"hr", []int{w, w + 1}}},
	} {
		if diff := cmp.Diff(want, h.seen(name)); diff != "" {
			t.Error(name, diff)
		}
	}
	h.crash()
	before := h.seen("alice")
	h.seals("hr", now, "alice")
	if diff := cmp.Diff(before, h.seen("alice")); diff != "" {
		t.Error(diff)
	}
	// Whoever was seen without officers was seen before, and nobody knows when.
	h.v.Close()
	e := h.e
	h.e = nil
	h.open()
	h.sees("dora", "eric")
	h.closes()
	h.v.Close()
	h.e = e
	h.open()
	today := Week(time.Now())
	for _, name := range []string{"dora", "eric"} {
		if diff := cmp.Diff([]Seen{{"", []int{today}}}, h.seen(name)); diff != "" {
			t.Error(name, diff)
		}
	}
	h.v.o.Now = func() time.Time { return now }
	h.seals("hr", now, "dora")
	if seen := h.seen("dora"); len(seen) != 2 || len(seen[0].Weeks) != 2 || seen[1].Compartment != "hr" {
		t.Errorf("%+v", seen)
	}
	if _, err := h.v.Outlived(t.Context(), func(string, int) bool { return true }, now); err != nil {
		t.Fatal(err)
	}
	if u, err := h.v.Unsealed(t.Context(), tokenOf("eric")); u || err != nil {
		t.Error("who was never sealed is remembered after the last record", err)
	}
}

// TestVersion1: a file from before weeks were noted keeps its names until everything of then
// is gone.
func TestVersion1(t *testing.T) {
	h := newHouse(t)
	h.seals("hr", now, "alice")
	h.closes()
	if _, err := h.v.db.Exec("DROP TABLE seen; DROP TABLE erased; PRAGMA user_version = 1"); err != nil {
		t.Fatal(err)
	}
	h.v.Close()
	if r := h.check(h.known()); len(r.Findings) > 0 || r.Rows != 1 {
		t.Errorf("beside a server of before: %+v", r)
	}
	db, err := openFile(filepath.Join(h.dir, File), now)
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	h.open()
	if diff := cmp.Diff([]Seen{{"", []int{Week(now)}}}, h.seen("alice")); diff != "" {
		t.Error(diff)
	}
	h.opens("alice")
}

// TestOutlived: a name goes with the last record that holds its token, and not before.
func TestOutlived(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	w := Week(now)
	h.seals("hr", now, "alice", "bob", "carol")
	h.seals("net", now, "alice")
	h.seals("hr", now.Add(2*week), "carol")
	h.sees("nobody") // of a batch that was never kept
	h.keeps()
	h.closes()
	outlived := func(at time.Time, gone func(string, int) bool) []event.Token {
		t.Helper()
		out, err := h.v.Outlived(ctx, gone, at)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	made, err := windowTime(h.stated[0].ID) // by the clock of the machine
	if err != nil {
		t.Fatal(err)
	}
	if got := outlived(made, func(string, int) bool { return false }); len(got) > 0 {
		t.Fatalf("%d outlived what is there", len(got))
	}
	hr := func(c string, n int) bool { return c == "hr" && n <= w }
	got := outlived(made, hr)
	if !slices.Equal(got, []event.Token{tokenOf("bob")}) {
		t.Fatalf("%d outlived", len(got))
	}
	if diff := cmp.Diff([]Seen{{"hr", []int{w + 2}}}, h.seen("carol")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Seen{{"net", []int{w}}}, h.seen("alice")); diff != "" {
		t.Error(diff)
	}
	got = outlived(made.Add(2*week), hr)
	want := []event.Token{tokenOf("bob"), tokenOf("nobody")}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("%d outlived, with who was in no record", len(got))
	}
	// Who comes back in between keeps the row.
	h.seals("hr", now.Add(5*week), "bob")
	var stated [][]Place
	n, err := h.v.EraseOutlived(ctx, got, func(p []Place) (string, error) { stated = append(stated, p); return "one", nil })
	if n != 1 || err != nil || len(stated) != 1 || len(stated[0]) != 1 {
		t.Fatal(n, err, stated)
	}
	h.opens("bob")
	if _, _, err := h.v.Find(ctx, tokenOf("nobody")); !errors.Is(err, ErrNoSeal) {
		t.Error(err)
	}
	r := h.check(h.known(StatedErasure{ID: "one", Places: stated[0]}))
	if len(r.Findings)+len(r.Notes) > 0 || r.Erased != 1 {
		t.Errorf("%+v", r)
	}
	// A statement that cannot be made erases nothing.
	away := errors.New("the ledger is away")
	if n, err := h.v.EraseOutlived(ctx, []event.Token{tokenOf("nobody")}, func([]Place) (string, error) { return "", away }); n != 0 || err != nil {
		t.Error("who is gone is stated again", n, err)
	}
	if _, err := h.v.db.Exec("DELETE FROM seen WHERE token = ?", string(tokenOf("bob"))); err != nil {
		t.Fatal(err)
	}
	if n, err := h.v.EraseOutlived(ctx, []event.Token{tokenOf("bob")}, func([]Place) (string, error) { return "", away }); n != 0 || !errors.Is(err, away) {
		t.Error(n, err)
	}
	h.opens("bob")
}

// TestErasedMeanwhile: a batch that was on its way while a name of it was erased comes again,
// and is sealed anew.
func TestErasedMeanwhile(t *testing.T) {
	h := newHouse(t)
	h.seals("hr", now, "alice")
	h.closes()
	h.sees("alice") // the batch has its token
	if n, err := h.erases("one", "alice"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	rec := []byte(tokenOf("alice"))
	if err := h.v.Keep(t.Context(), "hr", now, rec); !errors.Is(err, ErrAgain) {
		t.Fatalf("it is taken without a name: %v", err)
	}
	h.seals("hr", now, "alice")
	h.closes()
	h.opens("alice")
	if n, err := h.erases("one", "alice"); n != 1 || err != nil { // a statement of another time has another id
		t.Fatal(n, err)
	}
	// What nobody can seal again is no reason to refuse for ever.
	if err := h.v.Keep(t.Context(), "hr", now, rec); !errors.Is(err, ErrAgain) {
		t.Fatal(err)
	}
	if err := h.v.Keep(t.Context(), "hr", now, rec); err != nil {
		t.Fatal(err)
	}
}

// TestEraseFaults: cut off wherever it is, what was stated is erased the next time, and twice
// does nothing more.
func TestEraseFaults(t *testing.T) {
	for _, place := range []string{"erasing", "erased"} {
		h := newHouse(t)
		h.seals("hr", now, "alice", "bob")
		h.closes()
		places := h.placesOf("bob")
		h.fault = func(at string) error {
			if at == place {
				return errors.New("killed")
			}
			return nil
		}
		if _, err := h.v.Erase(t.Context(), "one", places); err == nil {
			t.Fatal(place, "the fault is nowhere")
		}
		h.crash()
		done, err := h.v.Done(t.Context())
		if err != nil || done["one"] {
			t.Fatal(place, done, err)
		}
		for range 2 {
			if _, err := h.v.Erase(t.Context(), "one", places); err != nil {
				t.Fatal(place, err)
			}
		}
		if done, err = h.v.Done(t.Context()); err != nil || !done["one"] {
			t.Fatal(place, done, err)
		}
		if r := h.check(h.known(StatedErasure{ID: "one", Places: places})); len(r.Findings)+len(r.Notes) > 0 || r.Erased != 1 {
			t.Errorf("%s: %+v", place, r)
		}
		h.opens("alice")
	}
}

func TestOfEpoch(t *testing.T) {
	h := newHouse(t)
	h.seals("hr", now, "alice", "bob")
	if _, err := h.v.db.Exec("INSERT INTO seen VALUES (?, 'hr', ?), (?, 'hr', ?)", string(event.NewToken(event.Mail, 12, [16]byte{1})), []byte{1}, string(event.NewToken(event.Person, 2, [16]byte{1})), []byte{1}); err != nil {
		t.Fatal(err)
	}
	for epoch, want := range map[int]int64{1: 2, 2: 1, 12: 1, 3: 0} {
		if n, err := h.v.OfEpoch(t.Context(), epoch); n != want || err != nil {
			t.Errorf("epoch %d: %d %v", epoch, n, err)
		}
	}
	if u, err := h.v.Unsealed(t.Context(), tokenOf("alice")); u || err != nil {
		t.Error(u, err)
	}
}

// FuzzWeeks: the weeks of a token have one form.
func FuzzWeeks(f *testing.F) {
	for _, w := range [][]int{{0}, {2983}, {1, 2, 3}, {2983, 2984, 3100}} {
		f.Add(encodeWeeks(w))
	}
	f.Add([]byte{})
	f.Add([]byte{1, 0})
	f.Add([]byte{0x80, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := decodeWeeks(b)
		if err != nil {
			return
		}
		if !slices.IsSorted(w) || !bytes.Equal(encodeWeeks(w), b) {
			t.Errorf("%x: %v", b, w)
		}
	})
}

// FuzzParseList: a list of places has one form.
func FuzzParseList(f *testing.F) {
	for _, p := range [][]Place{nil, {{"0190b2a0-0000-7000-8000-00000000000a", 0}}, {{"0190b2a0-0000-7000-8000-00000000000b", 7}, {"0190b2a0-0000-7000-8000-00000000000a", 3}, {"0190b2a0-0000-7000-8000-00000000000a", 4}}} {
		b, err := EncodeList(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"rows":[{"places":[1,1],"window":"0190b2a0-0000-7000-8000-00000000000a"}],"v":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseList(b)
		if err != nil {
			return
		}
		if again, err := EncodeList(p); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%s: %s %v", b, again, err)
		}
	})
}

// BenchmarkNoted looks for tokens in the values of a record of 1,000 bytes, all of them noted.
func BenchmarkNoted(b *testing.B) {
	h := newHouse(b)
	rec := []byte{}
	for i := range 4 {
		name := fmt.Sprint("name ", i)
		h.sees(name)
		rec = fmt.Appendf(rec, "%s and some_text_of_a_value with under_scores, %0150d ", tokenOf(name), i)
	}
	rec = append(rec, bytes.Repeat([]byte("x"), 1000-len(rec))...)
	if err := h.v.Keep(b.Context(), "hr", now, rec); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(rec)))
	for b.Loop() {
		if err := h.v.Keep(b.Context(), "hr", now, rec); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOutlived looks at 100,000 tokens of 50 weeks each, of which one week is gone.
func BenchmarkOutlived(b *testing.B) {
	h := newHouse(b)
	fill := func() {
		weeks := make([]int, 50)
		for i := range weeks {
			weeks[i] = 2900 + i
		}
		if err := h.v.change(b.Context(), func(tx *sql.Tx) error {
			for i := range 100_000 {
				if _, err := tx.Exec("INSERT OR REPLACE INTO seen VALUES (?, 'hr', ?)", string(tokenOf(fmt.Sprint(i))), encodeWeeks(weeks)); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
	fill()
	for n := 2900; b.Loop(); n++ {
		if _, err := h.v.Outlived(b.Context(), func(_ string, w int) bool { return w <= n }, now); err != nil {
			b.Fatal(err)
		}
	}
}
