package oversight

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/ledger"
)

// TestComplaintsAreCounted: complaints and notices are counted, small ones are not told, a
// notice contains nobody, and a report from before they were counted is still one.
func TestComplaintsAreCounted(t *testing.T) {
	from := time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC)
	tally := NewTally(from, from.AddDate(0, 3, 0))
	n := uint64(0)
	add := func(times int, kind, detail string) {
		for range times {
			tally.Add(n, ledger.Statement{Kind: kind, Time: from.Add(time.Hour), Detail: json.RawMessage(detail)})
			n++
		}
	}
	add(20, "complaint.received", `{"sealed":"x"}`)
	add(12, "complaint.closed", `{"outcome":"upheld"}`)
	add(3, "complaint.closed", `{"outcome":"unfounded"}`)
	add(8, "containment.ordered", `{"act":"notify"}`)
	add(9, "containment.ordered", `{"act":"disable-account"}`)
	add(2, "notice.postponed", `{}`)
	r := tally.Report(Public)
	r.Origin, r.Root = "log.example", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	text := r.Format()
	for _, want := range []string{"count complaints 20\n", "count complaints-closed 15\ncount complaints-closed outcome * 15\n", "count notices 8\n", "count containments 9\n", "count notices-postponed fewer-than-8\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if _, err := Parse(text); err != nil {
		t.Error(err)
	}
	older := r
	older.Families = older.Families[:before]
	if got, err := Parse(older.Format()); err != nil || len(got.Families) != before || got.Family("complaints").Total != 0 {
		t.Errorf("a report from before: %v", err)
	}
	older.Families = older.Families[:before-1]
	if _, err := Parse(older.Format()); err == nil {
		t.Error("a report that lacks a count is taken")
	}
}
