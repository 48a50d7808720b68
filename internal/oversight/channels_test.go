package oversight

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestChannelsInReport: what was taken off the list of protected channels stands in a
// report to the last entry, with its day and kind, for everybody; and nowhere twice.
func TestChannelsInReport(t *testing.T) {
	tally := NewTally(quarter, quarter.AddDate(0, 3, 0))
	change := func(at time.Time, added, removed int, kinds map[string]int) {
		tally.Add(0, statement(t, "channels.approved", at, map[string]any{"added": added, "removed": removed, "entries": 9, "list": "l", "payload": "p", "reason": "r", "removed_kinds": kinds}, "c"))
	}
	change(quarter.Add(-time.Second), 100, 100, nil)
	change(quarter.AddDate(0, 3, 0), 100, 100, nil)
	change(quarter.Add(20*time.Hour), 5, 0, nil)
	change(quarter.Add(40*time.Hour), 0, 3, map[string]int{"union": 2})
	change(quarter.Add(41*time.Hour), 0, 1, map[string]int{"union": 7, "hearsay": 3}) // says more than was removed
	change(quarter, 0, 2, map[string]int{"press": -4, "inspector": 2})
	tally.Add(0, statement(t, "channels.approved", quarter, nil, "c"))
	for _, audience := range []string{Public, Internal} {
		r := tally.report(audience)
		text := r.Format()
		want := "channels-added 5\nchannels-removed 6\nchannels-removed 2026-07-01 inspector 2\nchannels-removed 2026-07-02 other 1\nchannels-removed 2026-07-02 union 3\n"
		if !strings.HasSuffix(text, want) {
			t.Fatalf("%s: got\n%swant\n%s", audience, text, want)
		}
		back, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(r, back); d != "" {
			t.Error(d)
		}
		for _, change := range [][2]string{{"removed 6", "removed 5"}, {"2026-07-01 inspector", "2026-06-30 inspector"}, {"2026-07-01 inspector", "2026-10-01 inspector"}, {"other 1", "somebody 1"}, {"other 1", "other 0"},
			{"channels-removed 2026-07-02 other 1\n", ""}, {"channels-added 5\n", ""}, {"2026-07-02 other 1\nchannels-removed 2026-07-02 union 3", "2026-07-02 union 3\nchannels-removed 2026-07-02 other 1"}} {
			if _, err := Parse(strings.Replace(text, change[0], change[1], 1)); err == nil {
				t.Errorf("with %q it is a report", change[1])
			}
		}
	}
}

// TestInspectorsInReport: what inspectors' offices did is counted apart, under the rules of
// small counts, and no count of the organisation has it.
func TestInspectorsInReport(t *testing.T) {
	tally := NewTally(quarter, quarter.AddDate(0, 3, 0))
	add := func(times int, kind string, detail map[string]any, subject ...string) {
		for range times {
			tally.Add(0, statement(t, kind, quarter.Add(time.Hour), detail, subject...))
		}
	}
	inside := map[bool]map[string]any{true: {"inspector": true}, false: {}}
	with := func(in bool, more map[string]any) map[string]any {
		out := map[string]any{}
		for _, m := range []map[string]any{inside[in], more} {
			for k, v := range m {
				out[k] = v
			}
		}
		return out
	}
	for in, n := range map[bool]int{true: 9, false: 20} {
		id := map[bool]string{true: "i", false: "h"}[in]
		add(n, "authorisation.requested", with(in, map[string]any{"case": ""}), id)
		add(n, "authorisation.decided", with(in, map[string]any{"authorisation": id, "decision": "approve"}), id+"/1")
		add(n, "authorisation.ended", map[string]any{"authorisation": id, "reason": "expired"}, id)
		add(n, "hold.placed", with(in, map[string]any{"scope": "s", "authority": "a"}), "x")
		add(n, "hold.released", with(in, map[string]any{"hold": "x", "request": "r"}), "x")
		add(n, "unmask.approved", with(in, map[string]any{"request": "r", "statement": "s"}), "u")
	}
	add(12, "request.served", map[string]any{"look": Inspecting, "office": "inspection", "inspector": true})
	add(3, "authorisation.decided", map[string]any{"inspector": true, "authorisation": "i", "decision": "refuse"}, "i/2")
	text := tally.report(Public).Format()
	for _, want := range []string{"requests 20", "inspector-requests 9", "decisions 20", "inspector-decisions 12", "inspector-decisions decision * 12", "ended 20", "holds-placed 20", "inspector-holds 9", "holds-released 20", "inspector-releases 9",
		"names-opened 20", "inspector-names 9", "looks 0", "inspector-looks 12"} {
		if !strings.Contains(text, "\ncount "+want+"\n") {
			t.Errorf("the report does not say %q", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
	if internal := tally.report(Internal).Format(); strings.Contains(internal, "inspection") {
		t.Errorf("it names an inspector's office:\n%s", internal)
	}
}
