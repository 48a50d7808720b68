package report

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/ledger"
)

// TestCustody: receipt and outcome of each recipient become statements, what is not
// returned in time is overdue and stated once, and nothing is written down twice or of
// a package that nobody made.
func TestCustody(t *testing.T) {
	h := newHouse(t)
	h.fill(t, 4)
	ctx := context.Background()
	other, err := NewRecipientKey("Second Court")
	fatal(t, err)
	_, m := h.pack(t, func(r *Request) { r.Recipients = append(r.Recipients, other.Card()) })
	rec, now := h.Recorder, h.now
	one, two := h.key.Card().ID(), other.Card().ID()
	for _, bad := range [][2]string{{uuid.NewString(), ""}, {m.ID, ""}, {m.ID, "ff"}, {"x", one}} {
		if _, err := Receive(ctx, rec, bad[0], bad[1], "os:1", now); !errors.Is(err, ErrRequest) {
			t.Error(bad, err)
		}
	}
	_, err = Receive(ctx, rec, m.ID, one, "os:1", now)
	fatal(t, err)
	if _, err := Receive(ctx, rec, m.ID, one, "os:1", now); !errors.Is(err, ErrRequest) {
		t.Error("received twice", err)
	}
	if _, err := Return(ctx, rec, m.ID, one, "lost", "", "os:1", now); !errors.Is(err, ErrRequest) {
		t.Error(err)
	}
	if n, err := Overdue(ctx, rec, now); n != 0 || err != nil {
		t.Error(n, err)
	}
	_, err = Return(ctx, rec, m.ID, one, "destroyed", "shredded before two people", "os:1", now)
	fatal(t, err)
	if _, err := Return(ctx, rec, m.ID, one, "returned", "", "os:1", now); !errors.Is(err, ErrRequest) {
		t.Error("returned twice", err)
	}
	late := time.Date(2026, 12, 26, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		at   time.Time
		want int
	}{{late.Add(-time.Second), 0}, {late, 1}, {late.AddDate(0, 0, 1), 0}} {
		if n, err := Overdue(ctx, rec, c.at); n != c.want || err != nil {
			t.Error(c.at, n, err)
		}
	}
	all, err := Packages(ctx, rec, late)
	fatal(t, err)
	if len(all) != 2 {
		t.Fatal(all)
	}
	for _, s := range all {
		switch s.Recipient {
		case one:
			if s.Overdue || s.Outcome != "destroyed" || s.Received.IsZero() {
				t.Errorf("%+v", s)
			}
		case two:
			if !s.Overdue || s.Outcome != "" || !s.Received.IsZero() {
				t.Errorf("%+v", s)
			}
		}
	}
	kinds := map[string]int{}
	_, err = rec.Ledger().Each(ctx, 0, func(_ uint64, s ledger.Statement, raw []byte) error {
		kinds[s.Kind]++
		return nil
	})
	fatal(t, err)
	for kind, want := range map[string]int{"export.made": 1, "package.made": 1, "package.received": 1, "package.returned": 1, "package.overdue": 1} {
		if kinds[kind] != want {
			t.Errorf("%d statements of %s, want %d", kinds[kind], kind, want)
		}
	}
}
