package main

import (
	"slices"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/duty"
)

// TestUnreviewed: a warrant waits for the reviews of what was opened before it, by the clock
// of the host, and for those of its own only once they are overdue, however two clocks differ.
func TestUnreviewed(t *testing.T) {
	at := time.Date(2026, 11, 30, 23, 0, 0, 400_000_000, time.UTC)
	w := &warranted{Warrant: &duty.Warrant{ID: "this"}, at: at}
	all := []duty.Release{
		{ID: "own, in the second of the warrant", Warrant: "this", At: at.Truncate(time.Second)},
		{ID: "own, by a clock that is late", Warrant: "this", At: at.Add(-4 * time.Minute)},
		{ID: "of before", Warrant: "other", At: at.Add(-time.Hour)},
		{ID: "of before, reviewed", Warrant: "other", At: at.Add(-time.Hour), Reviewed: true},
		{ID: "of another one that runs", Warrant: "other", At: at.Add(time.Hour)},
	}
	if got := w.unreviewed(all, at.Add(2*time.Hour)); !slices.Equal(got, []string{"of before"}) {
		t.Errorf("got %q", got)
	}
	if got := w.unreviewed(all, at.AddDate(0, 0, 14)); len(got) != 4 {
		t.Errorf("overdue: %q", got)
	}
}
