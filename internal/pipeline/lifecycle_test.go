package pipeline

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/demo"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/index"
	"github.com/counterseal/counterseal/internal/query"
)

// judged lists rows and findings about single events by the Ref that they cite, those
// of destroyed segments aside.
func judged(t testing.TB, p *Pipeline, gone map[uuid.UUID]bool) (rows, findings []string) {
	t.Helper()
	lives := func(ref string) bool {
		r, err := event.ParseRef(ref)
		if err != nil {
			t.Fatal(err)
		}
		return !gone[r.Segment]
	}
	q, err := query.Parse("")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Index().Query(t.Context(), q, index.Scope{}, 0, func(r index.Row) bool {
		if r.Kind == index.KindEvent && lives(r.Ref) {
			rows = append(rows, r.Ref)
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	all, err := p.Index().Findings(t.Context(), nil, index.Scope{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if len(f.Refs) == 1 && lives(f.Refs[0].String()) {
			findings = append(findings, f.Rule.ID+" "+f.Refs[0].String())
		}
	}
	slices.Sort(rows)
	slices.Sort(findings)
	return rows, findings
}

// early tells that a finding cites a record of a segment before the first context in it.
func early(t testing.TB, p *Pipeline, comp string, segment uuid.UUID, findings []string) bool {
	t.Helper()
	context := ^uint64(0)
	if _, err := p.evidence.Read(t.Context(), evidence.Events, comp, evidence.Position{Segment: segment}, func(ref event.Ref, rec []byte) error {
		if ref.Segment != segment {
			return evidence.ErrStop
		}
		if event.Type(rec[1]) == event.TypeContext {
			context = ref.Ordinal
			return evidence.ErrStop
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(findings, func(f string) bool {
		ref, err := event.ParseRef(f[strings.IndexByte(f, ' ')+1:])
		if err != nil {
			t.Fatal(err)
		}
		return ref.Segment == segment && ref.Ordinal < context
	})
}

// TestDestroyedIsPassedOver: after the first segments of every stream are destroyed, a
// rebuild neither fails nor brings a row of them back, and the rest is found and
// judged as before, though the context that came first is gone with them. A key that
// is gone without a statement is a failure that doctor names.
func TestDestroyedIsPassedOver(t *testing.T) {
	if testing.Short() {
		t.Skip("long: the race detector sees its code in the others")
	}
	in := demo.Play(demo.Options{Seed: 3, At: at, Scale: 0.1})
	dir := t.TempDir()
	docs := documents(t, in)
	o := Options{Dir: dir, Documents: docs, Segment: evidence.Options{BlockBytes: 16 << 10, MaxSegmentRecords: 200}}
	s := start(t, o)
	play(t, s, in)

	gone := map[uuid.UUID]bool{}
	var passed int
	_, before := judged(t, s.Pipeline, nil)
	bare := false // a finding is about a record that stands before the context in its segment
	for _, comp := range s.evidence.Compartments(evidence.Events) {
		infos, err := s.evidence.Segments(evidence.Events, comp)
		if err != nil {
			t.Fatal(err)
		}
		first := (len(infos) + 1) / 2 // the first that lives
		for i, in := range infos {
			if i > 0 && early(t, s.Pipeline, comp, in.Segment, before) {
				first, bare = i, true
			}
		}
		for i, in := range infos {
			if in.State == "closed" && i < first {
				gone[in.Segment] = true
			}
		}
	}
	if len(gone) < 3 || !bare {
		t.Fatalf("%d segments to destroy; a finding before a context: %v", len(gone), bare)
	}
	wantRows, wantFindings := judged(t, s.Pipeline, gone)
	if len(wantRows) < 100 || len(wantFindings) < 3 {
		t.Fatalf("%d rows and %d findings are left", len(wantRows), len(wantFindings))
	}
	permit := func(evidence.Stream, string, uuid.UUID) error { return nil }
	for _, comp := range s.evidence.Compartments(evidence.Events) {
		infos, err := s.evidence.Segments(evidence.Events, comp)
		if err != nil {
			t.Fatal(err)
		}
		for _, in := range infos {
			if !gone[in.Segment] {
				continue
			}
			if !s.Past(comp, evidence.Position{Segment: in.Segment, Ordinal: in.Records}) {
				t.Fatal("the follower is said to be before a segment that it has read")
			}
			passed += int(in.Records)
			if _, err := s.evidence.DestroyCard(t.Context(), evidence.Events, comp, in.Segment, permit); err != nil {
				t.Fatal(err)
			}
			if _, err := s.recorder.Record(t.Context(), attest.Act{Kind: "destruction.done", Actor: attest.System, Subject: []string{in.Segment.String()},
				Detail: map[string]any{"rule": "test", "destroyed": map[string]any{}}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.stop()

	now := at.Add(time.Hour)
	o.Now, o.Tokens = func() time.Time { return now }, maker(t)
	p, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Rebuild(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if n, records := p.Destroyed(); n != len(gone) || int(records) != passed {
		t.Errorf("passed over %d segments with %d records, want %d with %d", n, records, len(gone), passed)
	}
	rows, findings := judged(t, p, nil)
	if diff := cmp.Diff(wantRows, rows); diff != "" {
		t.Errorf("rows: %.2000s", diff)
	}
	if diff := cmp.Diff(wantFindings, findings); diff != "" {
		t.Errorf("findings: %.2000s", diff)
	}
	for _, c := range p.Doctor(t.Context(), true) {
		if c.Name == "evidence" && c.State == "fail" {
			t.Errorf("doctor: %s", c.Text)
		}
	}
	var other string
	for _, comp := range p.evidence.Compartments(evidence.Events) {
		for id := range p.evidence.States(evidence.Events, comp) {
			if !gone[id] {
				other = id.String()
			}
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}

	if err := os.Remove(filepath.Join(dir, "keys", "segments", other+".card")); err != nil {
		t.Fatal(err)
	}
	if p, err = Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Rebuild(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(p.Doctor(t.Context(), true), func(c Check) bool {
		return c.Name == "evidence" && c.State == "fail" && strings.Contains(c.Text, other) && strings.Contains(c.Text, "key card is gone")
	}) {
		t.Error("doctor does not name a key card that is gone without a statement")
	}
}

// TestRowsOfOneWeek: the rows of a segment lie in one week, also of a record that came
// in before the week ended and was sealed after.
func TestRowsOfOneWeek(t *testing.T) {
	turn := time.Date(2026, 3, 9, 0, 0, 0, 0, time.UTC)
	made, err := uuid.NewV7()
	if err != nil {
		t.Fatal(err)
	}
	ms := turn.Add(time.Second).UnixMilli()
	for i := range 6 {
		made[i] = byte(ms >> (40 - 8*i))
	}
	ref := event.Ref{Compartment: "hr", Segment: made}
	received := func(at time.Time) time.Time {
		var e event.Event
		e.Received = at.UnixNano()
		return sealedAt(ref, &e)
	}
	before, after := received(turn.Add(-time.Second)), received(turn.Add(time.Minute))
	if index.WeekOf("hr", before).Name != "2026-w11" || !after.Equal(turn.Add(time.Minute)) {
		t.Fatalf("%s %s", before, after)
	}
}
