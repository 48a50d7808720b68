package keyholder

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/event"
)

func aQuota(t *testing.T, dir string, now *time.Time, l Limits) *quota {
	t.Helper()
	q, err := openQuota(dir, Quota{Names: l, Addresses: Limits{Minute: 2, Hour: 2, Day: 2}}, func() time.Time { return *now })
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// spend asks for n identities that were never asked before.
func spend(t *testing.T, q *quota, kind event.TokenKind, from, n int) (granted int) {
	t.Helper()
	for i := range n {
		var bits [16]byte
		bits[0], bits[1], bits[2] = byte((from+i)>>16), byte((from+i)>>8), byte(from+i)
		switch err := q.take([]Name{{Kind: kind}}, [][16]byte{bits}); {
		case err == nil:
			granted++
		case !errors.Is(err, ErrQuota):
			t.Fatal(err)
		}
	}
	return granted
}

func TestQuota(t *testing.T) {
	now := noon
	q := aQuota(t, t.TempDir(), &now, Limits{Minute: 10, Hour: 30, Day: 50, Burst: 5})
	if got := spend(t, q, event.Person, 0, 40); got != 15 {
		t.Errorf("minute and burst gave %d", got)
	}
	if got := spend(t, q, event.Person, 0, 15); got != 15 {
		t.Errorf("what was answered is not new: %d", got)
	}
	if got := spend(t, q, event.Address, 900, 9); got != 2 {
		t.Errorf("addresses are counted apart: %d", got)
	}
	now = now.Add(time.Minute)
	if got := spend(t, q, event.Person, 100, 40); got != 10 {
		t.Errorf("the next minute, no burst left: %d", got)
	}
	now = now.Add(time.Minute)
	if got := spend(t, q, event.Person, 200, 40); got != 5 {
		t.Errorf("the rest of the hour: %d", got)
	}
	now = now.Add(time.Hour)
	if got := spend(t, q, event.Person, 300, 9); got != 9 {
		t.Error(got)
	}
	now = now.Add(time.Minute)
	if got := spend(t, q, event.Person, 400, 40); got != 10 {
		t.Error(got)
	}
	now = now.Add(time.Minute)
	if got := spend(t, q, event.Person, 500, 40); got != 1 {
		t.Errorf("the rest of the day: %d", got)
	}
	var e *QuotaError
	if err := q.take([]Name{{Kind: event.Mail}}, [][16]byte{{9, 9, 9}}); !errors.As(err, &e) || e.After <= 10*time.Hour || e.After > 12*time.Hour {
		t.Errorf("when to ask again: %v", err)
	}
	ahead := now
	now = now.AddDate(1, 0, 0) // a clock that ran ahead, and was put right again
	spend(t, q, event.Person, 600, 40)
	if now = ahead; spend(t, q, event.Person, 650, 9) != 9 {
		t.Error("ingest is locked out for a year")
	}
	now = noon.Add(24 * time.Hour)
	if got := spend(t, q, event.Person, 700, 40); got != 15 {
		t.Errorf("the next day: %d", got)
	}
}

func TestBatchIsAllOrNothing(t *testing.T) {
	now := noon
	q := aQuota(t, t.TempDir(), &now, Limits{Minute: 2, Hour: 2, Day: 2})
	three := []Name{person(1), person(2), person(3)}
	if err := q.take(three, [][16]byte{{1}, {2}, {3}}); !errors.Is(err, ErrQuota) {
		t.Fatal(err)
	}
	if err := q.take(three, [][16]byte{{1}, {2}, {1}}); err != nil {
		t.Fatal("one of them twice", err)
	}
	if q.fresh != 2 || q.refused != 3 || q.asked != 6 {
		t.Error(q.fresh, q.refused, q.asked)
	}
}

// TestCountsSurvive: a crash gives nothing back; an orderly end takes nothing away.
func TestCountsSurvive(t *testing.T) {
	now, dir := noon, t.TempDir()
	l := Limits{Minute: 10_000, Hour: 10_000, Day: 10_000}
	q := aQuota(t, dir, &now, l)
	granted := spend(t, q, event.Person, 0, 3_000)
	for range 5 { // killed
		q = aQuota(t, dir, &now, l)
		if got := q.used[classNames].windows[2].n; got < granted || got > granted+6*reserved {
			t.Fatalf("%d of %d are known after a crash", got, granted)
		}
		granted += spend(t, q, event.Person, granted, 100)
	}
	used := q.used[classNames].windows[2].n
	if err := q.close(); err != nil {
		t.Fatal(err)
	}
	if q = aQuota(t, dir, &now, l); q.used[classNames].windows[2].n != used {
		t.Errorf("%d became %d", used, q.used[classNames].windows[2].n)
	}
	total := used
	for try := range 100 {
		total += spend(t, q, event.Person, 100_000+try*1000, 1000)
		q = aQuota(t, dir, &now, l)
	}
	if total > l.Day {
		t.Errorf("starting anew again and again gave %d of %d a day", total, l.Day)
	}
	if err := os.WriteFile(filepath.Join(dir, "counts.json"), []byte(`{"classes":[],"v":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openQuota(dir, DefaultQuota(), func() time.Time { return now }); err == nil {
		t.Error("counts that are none were taken")
	}
}

// TestDirectoryOfNamesHitsTheQuota asks as somebody who took the server over would.
func TestDirectoryOfNamesHitsTheQuota(t *testing.T) {
	b := newBench(t, Setup{})
	b.begin()
	c := b.client(ClientOptions{})
	got := 0
	for i := 0; i < 10_000; i += 100 {
		var batch []Name
		for n := range 100 {
			batch = append(batch, person(i+n))
		}
		switch _, err := c.Tokens(batch); {
		case err == nil:
			got += len(batch)
		case !errors.Is(err, ErrQuota):
			t.Fatal(err)
		}
	}
	d := DefaultQuota().Names
	if got != d.Minute+d.Burst || got > 5_000 {
		t.Errorf("%d of 10,000 names were answered", got)
	}
	s, err := c.Stats(t.Context())
	if err != nil || s.Refused != int64(10_000-got) || s.LastRefused == "" {
		t.Errorf("%+v, %v", s, err)
	}
	if n := strings.Count(b.log.String(), "quota of new identities is used up"); n != 1 {
		t.Errorf("the holder's own log says so %d times", n)
	}
}

// TestStartingAnewGivesNoMinutes: a server that starts its holder anew again and again gets
// no more at once than one that does not.
func TestStartingAnewGivesNoMinutes(t *testing.T) {
	now, dir := noon, t.TempDir()
	l := DefaultQuota().Names
	total := 0
	for try := range 40 {
		q := aQuota(t, dir, &now, l)
		total += spend(t, q, event.Person, try*1000, 500)
		if try%2 == 0 { // an orderly end, else killed
			if err := q.close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if total > l.Minute+l.Burst {
		t.Errorf("%d names in one minute, want at most %d", total, l.Minute+l.Burst)
	}
	now = now.Add(time.Minute)
	q := aQuota(t, dir, &now, l)
	if got := spend(t, q, event.Person, 1_000_000, 1000); got < l.Minute-reserved {
		t.Errorf("the next minute gives %d", got)
	}
}
