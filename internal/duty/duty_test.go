package duty

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
)

var (
	org    = uuid.MustParse("01890a5d-ac96-474b-bcce-b302099a8057")
	monday = time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)
)

func at(text string) time.Time {
	t, err := time.Parse("Mon 15:04:05", text)
	if err != nil {
		panic(err)
	}
	days := map[string]int{"Mon": 0, "Tue": 1, "Wed": 2, "Thu": 3, "Fri": 4, "Sat": 5, "Sun": 6}
	return monday.AddDate(0, 0, days[text[:3]]).Add(time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute + time.Duration(t.Second())*time.Second)
}

func TestNight(t *testing.T) {
	for _, c := range []struct{ night, at, want string }{
		{"20:00-06:00", "Mon 19:59:59", ""},
		{"20:00-06:00", "Mon 20:00:00", "2026-11-30"},
		{"20:00-06:00", "Tue 00:00:00", "2026-11-30"},
		{"20:00-06:00", "Tue 05:59:59", "2026-11-30"},
		{"20:00-06:00", "Tue 06:00:00", ""},
		{"20:00-06:00", "Tue 20:00:00", "2026-12-01"},
		{"00:30-05:00", "Mon 00:29:00", ""},
		{"00:30-05:00", "Mon 00:30:00", "2026-11-30"},
		{"00:30-05:00", "Mon 05:00:00", ""},
		{"18:00-00:00", "Mon 23:59:59", "2026-11-30"},
		{"18:00-00:00", "Tue 00:00:00", ""},
	} {
		n, err := ParseNight(c.night)
		if err != nil {
			t.Fatal(c.night, err)
		}
		if got, ok := n.Of(at(c.at).In(time.FixedZone("", 3600))); got != c.want || ok != (c.want != "") {
			t.Errorf("%s at %s: %q, want %q", c.night, c.at, got, c.want)
		}
	}
	for _, bad := range []string{"", "20:00", "20:00-20:00", "06:00-20:01", "24:00-06:00", "8:00-10:00", "20:00-06:00 ", "20:00-06:00-07:00", "20:60-06:00"} {
		if _, err := ParseNight(bad); err == nil {
			t.Errorf("%q is a night", bad)
		}
	}
}

func TestDue(t *testing.T) {
	for when, want := range map[string]string{
		"Mon 00:00:00": "Fri 00:00:00", "Mon 23:59:59": "Fri 00:00:00", "Tue 02:30:00": "Sat 00:00:00",
		"Wed 12:00:00": "Tue 00:00:00", "Thu 12:00:00": "Wed 00:00:00", "Fri 23:00:00": "Thu 00:00:00", "Sat 03:00:00": "Thu 00:00:00", "Sun 23:59:59": "Thu 00:00:00",
	} {
		w := at(want)
		if w.Before(at(when)) {
			w = w.AddDate(0, 0, 7)
		}
		if got := Due(at(when)); !got.Equal(w) {
			t.Errorf("%s: due %s, want %s", when, got.Format("Mon 15:04:05"), want)
		}
	}
}

func aWarrant() Warrant {
	return Warrant{Inner: strings.Repeat("a", 64), Outer: strings.Repeat("b", 64), From: at("Mon 12:00:00"), Until: at("Mon 12:00:00").AddDate(0, 0, 14), Night: Night{20 * 60, 6 * 60}, Names: 3}
}

func stated(t testing.TB, action string, objects []string, made time.Time) (*approval.Statement, []byte) {
	t.Helper()
	st, b, err := approval.New(approval.Ask{Action: action, Case: "duty", Purpose: "the nights of a fortnight", Requester: "Ines Vogel", Objects: objects, Org: org, Grant: Fresh}, made)
	if err != nil {
		t.Fatal(err)
	}
	return st, b
}

func TestWarrant(t *testing.T) {
	w := aWarrant()
	st, _ := stated(t, ToWarrant, w.Objects(), monday)
	got, err := ParseWarrant(st)
	if err != nil {
		t.Fatal(err)
	}
	w.ID = st.ID
	if *got != w {
		t.Errorf("got %+v, want %+v", *got, w)
	}
	for name, spoil := range map[string]func(*Warrant){
		"four names a night":  func(w *Warrant) { w.Names = 4 },
		"no name":             func(w *Warrant) { w.Names = 0 },
		"fifteen days":        func(w *Warrant) { w.Until = w.Until.Add(time.Second) },
		"no time":             func(w *Warrant) { w.Until = w.From },
		"long before":         func(w *Warrant) { w.From, w.Until = w.From.AddDate(0, 0, 15), w.Until.AddDate(0, 0, 15) },
		"over when stated":    func(w *Warrant) { w.From, w.Until = w.From.AddDate(0, 0, -15), monday },
		"one key for both":    func(w *Warrant) { w.Outer = w.Inner },
		"no card":             func(w *Warrant) { w.Inner = "host" },
		"the whole day night": func(w *Warrant) { w.Night = Night{0, 14*60 + 1} },
	} {
		c := aWarrant()
		spoil(&c)
		st, _ := stated(t, ToWarrant, c.Objects(), monday)
		if _, err := ParseWarrant(st); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for name, objects := range map[string][]string{
		"one too few": w.Objects()[:4], "another order": append(w.Objects()[1:], w.Objects()[0]), "a word more": append([]string{w.Objects()[0] + " x"}, w.Objects()[1:]...),
		"03 names": append(w.Objects()[:4:4], "names 03 a night"), "a word": {"x", "x", "x", "x", "x"},
	} {
		st, _ := stated(t, ToWarrant, objects, monday)
		if _, err := ParseWarrant(st); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	st, _ = stated(t, "unmask", w.Objects(), monday)
	if _, err := ParseWarrant(st); err == nil {
		t.Error("the statement of another act is taken")
	}
	for when, want := range map[string]string{"Mon 11:59:59": "has not begun", "Mon 12:00:00": "day", "Mon 20:00:00": "", "Tue 12:00:00": "day"} {
		if _, err := w.At(at(when)); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", when, err, want)
		}
	}
	if _, err := w.At(w.Until); err == nil || !strings.Contains(err.Error(), "over") {
		t.Error(err)
	}
}

// TestJournal: what is counted stays counted, whatever happens behind it; each request once.
func TestJournal(t *testing.T) {
	dir := t.TempDir()
	open := func() *Journal {
		j, err := OpenJournal(dir)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	j := open()
	if _, err := OpenJournal(dir); err == nil {
		t.Error("two hosts count in one folder")
	}
	warrant := uuid.NewString()
	one := func(id, when, night string) Release {
		return Release{ID: id, At: at(when), Night: night, Warrant: warrant}
	}
	ids := []string{uuid.NewString(), uuid.NewString(), uuid.NewString(), uuid.NewString()}
	take := func(r Release, most, want int, says string) {
		t.Helper()
		n, err := j.Take(r, most)
		var no *Refusal
		if says == "" && (err != nil || n != want) || says != "" && (!errors.As(err, &no) || !strings.Contains(err.Error(), says) || no.Hint == "") {
			t.Fatalf("%d, %v; want %d, %q", n, err, want, says)
		}
	}
	take(one(ids[0], "Mon 23:00:00", "2026-11-30"), 2, 1, "")
	take(one(ids[0], "Mon 23:00:01", "2026-11-30"), 2, 0, "brought before")
	// It dies here, before it opened anything: the name is counted all the same.
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, journalName), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"at":"2026-11-3`); err != nil { // torn
		t.Fatal(err)
	}
	f.Close()
	j = open()
	take(one(ids[0], "Mon 23:00:02", "2026-11-30"), 2, 0, "brought before")
	take(one(ids[1], "Tue 01:00:00", "2026-11-30"), 2, 2, "")
	take(one(ids[2], "Tue 01:00:01", "2026-11-30"), 2, 0, "2 names")
	take(one(ids[2], "Tue 01:00:01", "2026-11-30"), 100, 3, "")
	take(one(ids[3], "Tue 01:00:01", "2026-11-30"), 100, 0, "3 names") // whatever is asked for
	take(one(ids[3], "Mon 22:00:00", "2026-11-29"), 3, 0, "went back")
	take(one(ids[3], "Tue 21:00:00", "2026-12-01"), 3, 1, "")
	for range 2 {
		if err := j.Review(ids[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Review(uuid.NewString()); err != nil {
		t.Fatal(err)
	}
	before := j.All()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if again, err := Releases(dir); err != nil || !slices.Equal(again, before) || !again[1].Reviewed || again[0].Reviewed || len(again) != 4 {
		t.Errorf("%v, %+v", err, again)
	}
	path := filepath.Join(dir, journalName)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, spoiled := range map[string][]byte{
		"a line twice": append(bytes.Clone(raw), raw[:bytes.IndexByte(raw, '\n')+1]...), "a word": append([]byte("x\n"), raw...),
		"a review of nothing": []byte(fmt.Sprintf("{\"id\":%q}\n", ids[0])),
	} {
		if err := os.WriteFile(path, spoiled, 0o600); err != nil {
			t.Fatal(err)
		}
		if j, err := OpenJournal(dir); err == nil {
			j.Close()
			t.Errorf("%s: opened", name)
		}
	}
}

func FuzzWarrant(f *testing.F) {
	w := aWarrant()
	_, b := stated(f, ToWarrant, w.Objects(), monday)
	f.Add(b)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := approval.Parse(b)
		if err != nil {
			return
		}
		w, err := ParseWarrant(st)
		if err == nil && (w.Names > MaxNames || w.Until.Sub(w.From) > MaxLast || !slices.Equal(w.Objects(), st.Objects)) {
			t.Errorf("%+v", w)
		}
	})
}

func FuzzJournal(f *testing.F) {
	id := uuid.NewString()
	f.Add([]byte(`{"at":"2026-11-30T23:00:00Z","id":"` + id + `","night":"2026-11-30","warrant":"` + id + "\"}\n{\"id\":\"" + id + "\"}\n"))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := parse(b)
		for i := range all {
			if err == nil && (!isID(all[i].ID) || all[i].At.IsZero() || slices.ContainsFunc(all[:i], func(r Release) bool { return r.ID == all[i].ID })) {
				t.Errorf("%+v", all)
			}
		}
	})
}
