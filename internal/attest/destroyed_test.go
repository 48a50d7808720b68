package attest

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/ledger"
)

// TestWhatExcusesAMissingCard: a statement of the destruction does, an announcement that
// ran out does until somebody placed a hold, and nothing else.
func TestWhatExcusesAMissingCard(t *testing.T) {
	id := uuid.Must(uuid.NewV7())
	report := []evidence.SegmentReport{{Stream: evidence.Events, Compartment: "hr", Segment: id, State: "closed", Records: 3, HeaderHash: "aa", RecordsRoot: "bb", BlocksRoot: "cc"}}
	say := func(f *Folded, kind, key string, detail any) {
		s, err := ledger.New(kind, System, time.Now(), detail)
		if err != nil {
			t.Fatal(err)
		}
		s.Subject = []string{key}
		f.Add(f.Next, s)
	}
	stamp := func(d time.Duration) string { return time.Now().Add(d).Format(time.RFC3339) }
	for _, c := range []struct {
		name   string
		fold   func(*Folded)
		wrong  bool
		listed int
	}{
		{"nothing was said", func(*Folded) {}, true, 0},
		{"announced, and its grace runs", func(f *Folded) {
			say(f, "destruction.intended", id.String(), map[string]any{"rule": "r", "after": stamp(time.Hour)})
		}, true, 0},
		{"announced, and it ran out", func(f *Folded) {
			say(f, "destruction.intended", id.String(), map[string]any{"rule": "r", "after": stamp(-time.Hour)})
		}, false, 0},
		{"announced, it ran out, and a hold came", func(f *Folded) {
			say(f, "destruction.intended", id.String(), map[string]any{"rule": "r", "after": stamp(-time.Hour)})
			say(f, "hold.placed", "h", map[string]any{"scope": map[string]any{"compartment": "hr"}, "authority": "x"})
		}, true, 0},
		{"done", func(f *Folded) {
			say(f, "destruction.intended", id.String(), map[string]any{"rule": "r", "after": stamp(-time.Hour)})
			say(f, "destruction.done", id.String(), map[string]any{"rule": "retention_days 30 of events/hr", "destroyed": map[string]any{}})
			say(f, "hold.placed", "h", map[string]any{"scope": map[string]any{"compartment": "hr"}, "authority": "x"})
		}, false, 1},
	} {
		f := NewFolded()
		say(f, "segment.closed", id.String(), map[string]any{"compartment": "hr", "stream": "events", "records": 3, "root": "bb", "blocks": "cc", "header": "aa"})
		c.fold(f)
		bad := f.Segments(report, NewFolded())
		if (len(bad) > 0) != c.wrong || c.wrong && !strings.Contains(bad[0].What, "key card is gone") {
			t.Errorf("%s: %v", c.name, bad)
		}
		got := f.Destroyed(report)
		if len(got) != c.listed || c.listed > 0 && !strings.Contains(got[0].String(), "destroyed under retention_days 30 of events/hr at ") {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// TestDestroyedUnderAHold: a destruction is weighed against the holds of its own time,
// those that are over by now too.
func TestDestroyedUnderAHold(t *testing.T) {
	id := uuid.Must(uuid.NewV7())
	day := func(n int) time.Time { return time.Date(2026, 3, n, 0, 0, 0, 0, time.UTC) }
	report := []evidence.SegmentReport{{Stream: evidence.Events, Compartment: "hr", Segment: id, State: "closed", Records: 3, HeaderHash: "aa", RecordsRoot: "bb", BlocksRoot: "cc", First: day(10), Last: day(11)}}
	at := func(n int) string { return day(n).Format(time.RFC3339) }
	for name, c := range map[string]struct {
		scope    map[string]any
		released bool // before the destruction
		wrong    bool
	}{
		"its compartment":       {map[string]any{"compartment": "hr"}, false, true},
		"a case, so everything": {map[string]any{"case": "C-1"}, false, true},
		"its days":              {map[string]any{"from": at(11), "to": at(20)}, false, true},
		"released in time":      {map[string]any{"compartment": "hr"}, true, false},
		"another compartment":   {map[string]any{"compartment": "net"}, false, false},
		"days after":            {map[string]any{"compartment": "hr", "from": at(12)}, false, false},
		"days before":           {map[string]any{"compartment": "hr", "to": at(9)}, false, false},
	} {
		f := NewFolded()
		say := func(kind, key string, detail any) {
			s, err := ledger.New(kind, System, time.Now(), detail)
			if err != nil {
				t.Fatal(err)
			}
			s.Subject = []string{key}
			f.Add(f.Next, s)
		}
		say("segment.closed", id.String(), map[string]any{"compartment": "hr", "stream": "events", "records": 3, "root": "bb", "blocks": "cc", "header": "aa"})
		say("hold.placed", "h", map[string]any{"scope": c.scope, "authority": "x"})
		if c.released {
			say("hold.released", "h", map[string]any{"hold": "h", "request": "r"})
		}
		say("destruction.done", id.String(), map[string]any{"rule": "r", "destroyed": map[string]any{}})
		if !c.released { // too late
			say("hold.released", "h", map[string]any{"hold": "h", "request": "r"})
		}
		bad := f.Segments(report, NewFolded())
		if (len(bad) > 0) != c.wrong || c.wrong && !strings.Contains(bad[0].What, "while hold h was in force") {
			t.Errorf("%s: %v", name, bad)
		}
	}
}
