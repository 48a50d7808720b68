package lifecycle

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/index"
	"github.com/counterseal/counterseal/internal/pia"
	"github.com/counterseal/counterseal/internal/state"
)

// TestWayOut follows a week from sealing to its end: kept to the last day, announced,
// left for the grace, destroyed with its index, its rows and its statement.
func TestWayOut(t *testing.T) {
	s := newSite(t)
	a := s.seal(evidence.Events, "hr", 3)
	s.after(2 * day)
	b := s.seal(evidence.Events, "hr", 2)
	o := s.seal(evidence.Originals, "hr", 2)
	s.after(7 * day)
	next := s.seal(evidence.Events, "hr", 4) // of the week after
	weekEnd := time.Date(2026, 3, 9, 0, 0, 0, 0, time.UTC)

	s.at = weekEnd.Add(7*day - time.Second)
	if r := s.pass(); r.Announced+r.Destroyed != 0 || !r.Next.Equal(weekEnd.Add(7*day)) {
		t.Fatalf("%+v", r)
	}
	s.after(time.Second) // original_days 7: the original is over, with its week
	if r := s.pass(); r.Announced != 1 || r.Destroyed != 0 {
		t.Fatalf("%+v", r)
	}
	s.after(s.grace)
	if r := s.pass(); r.Destroyed != 1 || s.opens(o) || !s.opens(a) {
		t.Fatalf("%+v", r)
	}

	due := weekEnd.Add(30 * day)
	s.at = due.Add(-time.Second)
	if r := s.pass(); r.Announced != 0 || !s.opens(a) {
		t.Fatalf("%+v", r)
	}
	s.at = due
	if r := s.pass(); r.Announced != 2 || r.Destroyed != 0 || !r.Next.Equal(due.Add(s.grace)) {
		t.Fatalf("%+v", r)
	}
	s.at = due.Add(s.grace - time.Second)
	if r := s.pass(); r.Announced != 0 || r.Destroyed != 0 || !s.opens(a) || !s.opens(b) {
		t.Fatalf("destroyed within the grace: %+v", r)
	}
	before := s.weeks()
	s.at = due.Add(s.grace)
	r := s.pass()
	if r.Destroyed != 2 || s.opens(a) || s.opens(b) || !s.opens(next) {
		t.Fatalf("%+v", r)
	}
	if diff := cmp.Diff([]string{"hr 2026-w11", "hr 2026-w10"}, before); diff != "" {
		t.Fatal(diff)
	}
	if diff := cmp.Diff([]string{"hr 2026-w11"}, s.weeks()); diff != "" {
		t.Fatal(diff)
	}
	got := details[doneDetail](t, s.book, "destruction.done")
	want := doneDetail{Rule: "retention_days 30 of events/hr", Beyond: beyond[:], Destroyed: doneCounts{Cards: 2, Records: 5, Rows: 2, Weeks: []string{"2026-w10"}, Bytes: got[1].Destroyed.Bytes}}
	if diff := cmp.Diff(want, got[1]); diff != "" || len(got) != 2 || got[0].Rule != "original_days 7 of originals/hr" || got[1].Destroyed.Bytes == 0 {
		t.Fatal(diff, got)
	}
	rule, at, ok, err := s.l.Gone(context.Background(), a)
	if err != nil || !ok || rule != want.Rule || !at.Equal(s.at) {
		t.Fatal(rule, at, ok, err)
	}
	n := len(s.book.all)
	if r := s.pass(); r.Destroyed+r.Announced != 0 || len(s.book.all) != n {
		t.Fatalf("a second pass did something: %+v", r)
	}
	s.verify()
	s.reopen()
	if r := s.pass(); r.Destroyed+r.Announced+r.Back != 0 || s.opens(a) || !s.opens(next) {
		t.Fatalf("%+v", r)
	}
}

// TestGraceOfNothing: announced and destroyed in one pass.
func TestGraceOfNothing(t *testing.T) {
	s := newSite(t)
	s.grace = 0
	s.reopen()
	a := s.seal(evidence.Events, "hr", 1)
	s.after(60 * day)
	if r := s.pass(); r.Announced != 1 || r.Destroyed != 1 || s.opens(a) {
		t.Fatalf("%+v", r)
	}
}

// TestHoldBeatsRetention: nothing under a hold goes, the whole week with it, and the
// clock resumes with a new announcement once two people have released it.
func TestHoldBeatsRetention(t *testing.T) {
	s := newSite(t)
	o := newOfficers(t)
	s.roll = o.roster
	s.reopen()
	ctx := context.Background()
	a := s.seal(evidence.Events, "hr", 1)
	s.after(day)
	neighbour := s.seal(evidence.Events, "hr", 1) // not in the scope, and of the same week
	s.rules = append(s.rules, &pia.Rule{Source: "fw", Compartment: "net", Retention: 30})
	other := s.seal(evidence.Events, "net", 1)
	s.at = monday.Add(50 * day)
	if r := s.pass(); r.Announced != 3 {
		t.Fatalf("%+v", r)
	}
	h := s.place(Scope{Case: "HR-2026-17", Compartment: "hr", To: monday.Add(time.Hour).Format(time.RFC3339)})
	s.after(s.grace)
	r := s.pass()
	if !s.opens(a) || !s.opens(neighbour) || s.opens(other) || r.Destroyed != 1 || r.Held != 2 {
		t.Fatalf("%+v", r)
	}
	lines, _, err := s.l.Plan(ctx, 0)
	if err != nil || len(lines) != 1 || lines[0].State != Held || !slices.Equal(lines[0].Holds, []string{h.ID}) || lines[0].Segments != 2 {
		t.Fatalf("%+v %v", lines, err)
	}

	release := func(by ...int) error {
		statement, err := s.l.Ask(ctx, "os:1000", h.ID, "HR-2026-17", "The case is closed.", "A. Analyst")
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.l.Release(ctx, "os:1000", h.ID, statement, o.sign(t, statement, by...))
		return err
	}
	for _, by := range [][]int{nil, {0}, {1}, {0, 0}, {0, 2}, {1, 3}} { // one, one person twice, two of one office
		if err := release(by...); !errors.Is(err, ErrRefused) {
			t.Fatalf("released by %v: %v", by, err)
		}
	}
	asked, err := s.l.Ask(ctx, "os:1000", h.ID, "HR-2026-17", "The case is closed.", "A. Analyst")
	if err != nil {
		t.Fatal(err)
	}
	no, err := o.keys[3].Sign(approval.Refuse, asked)
	if err != nil {
		t.Fatal(err)
	}
	for _, signed := range [][]approval.Signed{{no}, o.sign(t, asked, 0, 1)} { // a refusal binds those who are asked later
		if _, err := s.l.Release(ctx, "os:1000", h.ID, asked, signed); !errors.Is(err, ErrRefused) {
			t.Fatalf("released after a refusal: %v", err)
		}
	}
	s.after(20 * day)
	if s.pass(); !s.opens(a) || !s.opens(neighbour) {
		t.Fatal("destroyed under a hold")
	}
	if err := release(0, 1); err != nil {
		t.Fatal(err)
	}
	if r := s.pass(); r.Announced != 2 || r.Destroyed != 0 || !s.opens(a) {
		t.Fatalf("the old announcement counts: %+v", r)
	}
	s.after(s.grace)
	if r := s.pass(); r.Destroyed != 2 || s.opens(a) || s.opens(neighbour) {
		t.Fatalf("%+v", r)
	}
	if _, err := s.l.Ask(ctx, "os:1000", h.ID, "HR-2026-17", "Once more.", "A. Analyst"); !Mistake(err) {
		t.Fatalf("asked for a second time: %v", err)
	}
}

// TestHoldBetweenLookAndRemoval: a hold that is placed after a pass has looked, and
// before it takes the lock, is obeyed.
func TestHoldBetweenLookAndRemoval(t *testing.T) {
	s := newSite(t)
	a := s.seal(evidence.Events, "hr", 1)
	s.after(60 * day)
	s.pass()
	s.after(s.grace)
	ctx := context.Background()
	ruled, _, err := s.l.sync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.l.world(ctx, ruled)
	if err != nil {
		t.Fatal(err)
	}
	if v := w.judge(w.units[0]); v.state != Ready {
		t.Fatal(v.state)
	}
	s.place(Scope{Source: "idp"})
	var r Report
	if err := s.l.destroy(ctx, w, w.units[0], &r); err != nil || r.Destroyed != 0 || !s.opens(a) {
		t.Fatalf("%+v %v", r, err)
	}
	// And where the judgement itself were wrong, the permit says no.
	if err := s.l.cards(ctx, w, w.units[0], w.units[0].segments); !errors.Is(err, errHeld) || !s.opens(a) {
		t.Fatalf("a card under a hold was destroyed: %v", err)
	}
}

// TestScopes says what each scope keeps.
func TestScopes(t *testing.T) {
	at := monday
	seg := func(comp string, from, to time.Duration) *segment {
		return &segment{SegmentInfo: evidence.SegmentInfo{Compartment: comp}, first: at.Add(from), last: at.Add(to)}
	}
	stamp := func(d time.Duration) string { return at.Add(d).Format(time.RFC3339) }
	token := "p1_" + strings.Repeat("a", 26)
	for _, c := range []struct {
		name  string
		scope Scope
		seg   *segment
		want  bool
	}{
		{"its compartment", Scope{Compartment: "hr"}, seg("hr", 0, 1), true},
		{"another one", Scope{Compartment: "hr"}, seg("net", 0, 1), false},
		{"a token may be anywhere", Scope{Token: token}, seg("net", 0, 1), true},
		{"a source may be anywhere", Scope{Source: "idp"}, seg("net", 0, 1), true},
		{"a case may be anywhere", Scope{Case: "HR-1"}, seg("net", 0, 1), true},
		{"a token in a compartment", Scope{Token: token, Compartment: "hr"}, seg("net", 0, 1), false},
		{"before", Scope{From: stamp(time.Hour)}, seg("hr", 0, time.Hour-1), false},
		{"touching from", Scope{From: stamp(time.Hour)}, seg("hr", 0, time.Hour), true},
		{"inside", Scope{From: stamp(0), To: stamp(time.Hour)}, seg("hr", time.Minute, 2*time.Minute), true},
		{"around", Scope{From: stamp(time.Minute), To: stamp(time.Minute)}, seg("hr", 0, time.Hour), true},
		{"touching to", Scope{To: stamp(time.Hour)}, seg("hr", time.Hour, 2*time.Hour), true},
		{"after", Scope{To: stamp(time.Hour)}, seg("hr", time.Hour+1, 2*time.Hour), false},
	} {
		if err := c.scope.check(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := c.scope.covers(c.seg); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	for name, bad := range map[string]Scope{
		"nothing": {}, "no token": {Token: "alice"}, "free text": {Case: "about alice smith"}, "no time": {From: "yesterday"},
		"turned round": {From: stamp(time.Hour), To: stamp(0)}, "no compartment": {Compartment: "../x"}, "a name": {Source: "alice@example.org"},
	} {
		if err := bad.check(); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// TestUnreadHoldKeepsEverything: a hold of a later version, or with a scope that
// cannot be read, keeps everything.
func TestUnreadHoldKeepsEverything(t *testing.T) {
	s := newSite(t)
	a := s.seal(evidence.Events, "hr", 1)
	if _, err := s.book.Record(context.Background(), actOf("hold.placed", uuid.NewString(), map[string]any{"scope": map[string]any{"moon": "full"}, "authority": "x"})); err != nil {
		t.Fatal(err)
	}
	s.after(60 * day)
	s.pass()
	s.after(s.grace)
	if r := s.pass(); r.Held != 1 || !s.opens(a) {
		t.Fatalf("%+v", r)
	}
	holds, err := s.l.Holds(context.Background())
	if err != nil || len(holds) != 1 || !holds[0].Unread {
		t.Fatalf("%+v %v", holds, err)
	}
	if _, err := s.l.Ask(context.Background(), "os:1", holds[0].ID, "C-1", "It is over.", "A. Analyst"); err != nil {
		t.Fatalf("nobody can ever release it: %v", err)
	}
}

// TestWitnessesMissing: nothing is destroyed that no witness saw announced, nor by a
// clock of ours that runs ahead of theirs, and nothing else waits.
func TestWitnessesMissing(t *testing.T) {
	s := newSite(t)
	a := s.seal(evidence.Events, "hr", 1)
	s.after(60 * day)
	s.book.none = true
	for range 3 {
		if r := s.pass(); r.Unwitnessed != 1 || r.Announced+r.Destroyed != 0 {
			t.Fatalf("no witness: %+v", r)
		}
		s.after(s.grace)
	}
	s.book.none, s.book.up = false, false // one is named, and it is down: the statement stands
	if r := s.pass(); r.Announced+r.Destroyed != 0 {
		t.Fatalf("%+v", r)
	}
	n := len(s.book.all)
	s.after(s.grace)
	if r := s.pass(); r.Unwitnessed != 1 || r.Destroyed != 0 || !s.opens(a) || len(s.book.all) != n {
		t.Fatalf("%+v", r)
	}
	s.book.up, s.book.slow = true, 30*day // it is back, and says that it is a month earlier
	if r := s.pass(); r.Unwitnessed != 1 || r.Destroyed != 0 || !s.opens(a) {
		t.Fatalf("by a clock that runs ahead: %+v", r)
	}
	s.book.slow = 0
	if r := s.pass(); r.Destroyed != 1 || s.opens(a) {
		t.Fatalf("%+v", r)
	}
}

// TestUnseenAnnouncement: what stands in the log and under no cosignature counts for
// nothing, also while the witness answers about an older checkpoint.
func TestUnseenAnnouncement(t *testing.T) {
	s := newSite(t)
	s.seal(evidence.Events, "hr", 1)
	s.after(60 * day)
	s.pass()
	s.after(s.grace)
	ctx := context.Background()
	ruled, err := s.l.promises(ctx)
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.l.world(ctx, ruled)
	if err != nil {
		t.Fatal(err)
	}
	if v := w.judge(w.units[0]); v.state != Ready {
		t.Fatal(v.state)
	}
	for _, it := range w.intents {
		w.seen = it.index
	}
	if v := w.judge(w.units[0]); v.state != Unwitnessed {
		t.Fatal(v.state)
	}
}

// TestReleaseUnseen: a release that no witness has seen ends no hold.
func TestReleaseUnseen(t *testing.T) {
	s := newSite(t)
	o := newOfficers(t)
	s.roll = o.roster
	s.reopen()
	ctx := context.Background()
	a := s.seal(evidence.Events, "hr", 1)
	h := s.place(Scope{Compartment: "hr"})
	s.after(60 * day)
	statement, err := s.l.Ask(ctx, "os:1000", h.ID, "C-1", "Closed.", "A. Analyst")
	if err != nil {
		t.Fatal(err)
	}
	s.book.up = false
	if _, err := s.l.Release(ctx, "os:1000", h.ID, statement, o.sign(t, statement, 0, 1)); err == nil {
		t.Fatal("released without a witness")
	}
	if holds, err := s.l.Holds(ctx); err != nil || !holds[0].InForce() || !holds[0].Pending {
		t.Fatalf("%+v %v", holds, err)
	}
	s.pass()
	s.after(s.grace)
	if s.pass(); !s.opens(a) {
		t.Fatal("destroyed under a hold whose release nobody has seen")
	}
	s.book.up = true
	if holds, err := s.l.Holds(ctx); err != nil || holds[0].InForce() {
		t.Fatalf("%+v %v", holds, err)
	}
}

// TestReleaseOnce: one approval releases one hold, and a statement about another one
// none.
func TestReleaseOnce(t *testing.T) {
	s := newSite(t)
	o := newOfficers(t)
	s.roll = o.roster
	s.reopen()
	ctx := context.Background()
	h, g := s.place(Scope{Compartment: "hr"}), s.place(Scope{Compartment: "hr"})
	statement, err := s.l.Ask(ctx, "os:1000", h.ID, "C-1", "Closed.", "A. Analyst")
	if err != nil {
		t.Fatal(err)
	}
	signed := o.sign(t, statement, 0, 1)
	if _, err := s.l.Release(ctx, "os:1000", g.ID, statement, signed); !errors.Is(err, ErrRefused) {
		t.Fatalf("another hold: %v", err)
	}
	at := s.at
	s.after(25 * time.Hour)
	if _, err := s.l.Release(ctx, "os:1000", h.ID, statement, signed); !errors.Is(err, ErrRefused) {
		t.Fatalf("after its time: %v", err)
	}
	s.at = at
	if _, err := s.l.Release(ctx, "os:1000", h.ID, statement, signed); err != nil {
		t.Fatal(err)
	}
	if holds, err := s.l.Holds(ctx); err != nil || holds[0].InForce() || !holds[1].InForce() {
		t.Fatalf("%+v %v", holds, err)
	}
	for _, kind := range []string{"approval.requested", "approval.decided", "hold.released", "approval.used"} {
		if !slices.ContainsFunc(s.book.all, func(a act) bool { return a.Kind == kind }) {
			t.Errorf("the ledger has no %s", kind)
		}
	}
}

// TestPlaceNeedsAuthority: no order, no hold.
func TestPlaceNeedsAuthority(t *testing.T) {
	s := newSite(t)
	ctx := context.Background()
	review := s.at.Add(day)
	for name, try := range map[string]func() error{
		"no order": func() error { _, err := s.l.Place(ctx, "os:1", Scope{Compartment: "hr"}, nil, review); return err },
		"no scope": func() error { _, err := s.l.Place(ctx, "os:1", Scope{}, []byte("x"), review); return err },
		"no review": func() error {
			_, err := s.l.Place(ctx, "os:1", Scope{Compartment: "hr"}, []byte("x"), s.at)
			return err
		},
		"too long": func() error {
			_, err := s.l.Place(ctx, "os:1", Scope{Compartment: "hr"}, make([]byte, maxOrder+1), review)
			return err
		},
	} {
		if err := try(); !Mistake(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(s.book.all) != 0 {
		t.Fatal("something was stated")
	}
}

// TestWhichDayCounts: decision 0013.
func TestWhichDayCounts(t *testing.T) {
	c := chain{evidence.Events, "hr"}
	week := func(at time.Time) index.Week { return index.WeekOf("hr", at) }
	at := func(d int) time.Time { return monday.Add(time.Duration(d) * day) }
	for _, tc := range []struct {
		name string
		ps   []promise
		week index.Week
		want int
	}{
		{"the first, also of before", []promise{{30, at(20), 1}}, week(at(0)), 30},
		{"shorter at once, for what is there", []promise{{365, at(-100), 1}, {30, at(50), 2}}, week(at(0)), 30},
		{"longer for the weeks to come", []promise{{30, at(-100), 1}, {365, at(8), 2}}, week(at(15)), 365},
		{"longer extends nothing that is there", []promise{{30, at(-100), 1}, {365, at(8), 2}}, week(at(0)), 30},
		{"nor the week in which it begins", []promise{{30, at(-100), 1}, {365, at(8), 2}}, week(at(9)), 30},
		{"longer, then shorter than ever", []promise{{30, at(-100), 1}, {365, at(8), 2}, {10, at(90), 3}}, week(at(15)), 10},
		{"a slip binds nobody", []promise{{365, at(-100), 1}, {1, at(50), 2}, {365, at(52), 3}}, week(at(0)), 365},
		{"three days are no slip", []promise{{365, at(-100), 1}, {1, at(50), 2}, {365, at(53), 3}}, week(at(0)), 1},
		{"while it stands it is no slip", []promise{{365, at(-100), 1}, {1, at(50), 2}}, week(at(0)), 1},
	} {
		got, ok := ruleFor(c, tc.ps, tc.week, DefaultGrace)
		if !ok || got.days != tc.want {
			t.Errorf("%s: %+v", tc.name, got)
		}
	}
	if _, ok := ruleFor(c, nil, week(at(0)), DefaultGrace); ok {
		t.Error("a rule out of nothing")
	}
}

// TestRetentionChanges states each change once, takes the longest of several lines,
// and keeps the last word when nobody speaks any more.
func TestRetentionChanges(t *testing.T) {
	s := newSite(t)
	a := s.seal(evidence.Events, "hr", 1)
	s.pass()
	s.pass()
	if got := details[promiseDetail](t, s.book, kindPromise); len(got) != 2 {
		t.Fatalf("%+v", got)
	}
	s.after(4 * day)
	s.rules = append(s.rules, &pia.Rule{Source: "vpn", Compartment: "hr", Retention: 90})
	if r := s.pass(); !slices.Equal(r.Mixed, []string{"hr"}) {
		t.Fatalf("%+v", r)
	}
	s.after(8 * day)
	b := s.seal(evidence.Events, "hr", 1)
	s.rules = nil // every assessment is gone
	s.at = monday.Add(60 * day)
	s.pass()
	s.after(s.grace)
	if s.pass(); s.opens(a) || !s.opens(b) {
		t.Fatal("30 days for the first week, 90 for the second")
	}
	s.reopen()
	s.at = monday.Add(120 * day)
	s.pass()
	s.after(s.grace)
	if s.pass(); s.opens(b) {
		t.Fatal("without an assessment it lives for ever")
	}
}

// TestNoRuleKeeps: what no assessment ever spoke of stays, and the plan says so.
func TestNoRuleKeeps(t *testing.T) {
	s := newSite(t)
	s.rules = nil
	a := s.seal(evidence.Events, "old", 1)
	s.after(4000 * day)
	s.pass()
	lines, _, err := s.l.Plan(context.Background(), day)
	if err != nil || len(lines) != 1 || lines[0].State != NoRule || !s.opens(a) {
		t.Fatalf("%+v %v", lines, err)
	}
}

// TestIndexWaits: a segment that the index has not read is not destroyed, since its
// rows would come after it.
func TestIndexWaits(t *testing.T) {
	s := newSite(t)
	read := false
	s.past = func(string, evidence.Position) bool { return read }
	s.reopen()
	a := s.seal(evidence.Events, "hr", 1)
	s.after(60 * day)
	s.pass()
	s.after(s.grace)
	if r := s.pass(); r.Busy != 1 || !s.opens(a) {
		t.Fatalf("%+v", r)
	}
	read = true
	if r := s.pass(); r.Destroyed != 1 || s.opens(a) {
		t.Fatalf("%+v", r)
	}
}

// TestTwoWeeks: a segment with blocks in two weeks, as earlier versions wrote them,
// goes with the later one, and the index of both waits for it.
func TestTwoWeeks(t *testing.T) {
	s := newSite(t)
	s.at = time.Date(2026, 3, 8, 23, 0, 0, 0, time.UTC)
	a := s.seal(evidence.Events, "hr", 1)
	s.at = time.Date(2026, 3, 8, 23, 30, 0, 0, time.UTC)
	b := s.seal(evidence.Events, "hr", 1)
	u := &unit{stream: evidence.Events, compartment: "hr"}
	infos, err := s.ev.Segments(evidence.Events, "hr")
	if err != nil {
		t.Fatal(err)
	}
	later := infos[1]
	later.Last = later.Last.Add(time.Hour)
	both := describe(&later, s.at)
	first := describe(&infos[0], s.at)
	if both.week.Name != "2026-w11" || both.early.Name != "2026-w10" || first.week.Name != "2026-w10" {
		t.Fatalf("%s %s %s", both.week.Name, both.early.Name, first.week.Name)
	}
	w := &world{units: []*unit{{stream: evidence.Events, compartment: "hr", week: first.week, segments: []*segment{first}}, {stream: evidence.Events, compartment: "hr", week: both.week, segments: []*segment{both}}}}
	first.gone = true
	var dropped []string
	if err := s.l.sweep(context.Background(), w, &dropped); err != nil || len(dropped) != 0 {
		t.Fatalf("a week was dropped with rows of a segment that lives: %v %v", dropped, err)
	}
	both.gone = true
	if err := s.l.sweep(context.Background(), w, &dropped); err != nil || !slices.Equal(dropped, []string{"2026-w10"}) {
		t.Fatalf("%v %v", dropped, err)
	}
	_, _, _ = a, b, u
}

// TestCardComesBack: a card that somebody brings back from a copy is destroyed again,
// before anything reads, and the ledger has it as an alarm.
func TestCardComesBack(t *testing.T) {
	s := newSite(t)
	a := s.seal(evidence.Events, "hr", 1)
	path := filepath.Join(s.dir, "keys", "segments", a.String()+".card")
	card, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s.after(60 * day)
	s.pass()
	s.after(s.grace)
	s.pass()
	s.close()
	if err := os.WriteFile(path, card, 0o600); err != nil {
		t.Fatal(err)
	}
	s.open()
	if !s.opens(a) {
		t.Fatal("the test brings nothing back")
	}
	if err := s.l.Begin(context.Background()); err != nil || s.opens(a) {
		t.Fatalf("it stays: %v", err)
	}
	if !slices.ContainsFunc(s.book.all, func(a act) bool { return a.Kind == "alarm.raised" }) {
		t.Fatal("nobody is told")
	}
}

// TestDoctor tells what a person should know, and nothing else.
func TestDoctor(t *testing.T) {
	s := newSite(t)
	said := func() (text string) {
		checks, err := s.l.Doctor(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range checks {
			text += c.State + " " + c.Text + "\n"
		}
		return text
	}
	a := s.seal(evidence.Events, "hr", 1)
	s.seal(evidence.Events, "lost", 1)
	if got := said(); got != "warn no assessment says how long to keep events/lost\nok 0 segments are on their way out, 0 holds keep 0\n" {
		t.Fatal(got)
	}
	s.rules = append(s.rules, &pia.Rule{Source: "x", Compartment: "hr", Retention: 40}, &pia.Rule{Source: "y", Compartment: "lost", Retention: 4000})
	s.after(70 * day)
	s.book.up = false
	s.pass()
	s.after(s.grace)
	if got := said(); got != "warn compartment hr has several retentions: the longest holds\nwarn 1 segments are past their retention and wait for witnesses\nok 0 segments are on their way out, 0 holds keep 0\n" {
		t.Fatal(got)
	}
	s.place(Scope{Compartment: "hr"})
	s.after(100 * day)
	if err := os.Remove(filepath.Join(s.dir, "keys", "segments", a.String()+".card")); err != nil {
		t.Fatal(err)
	}
	if got := said(); !strings.Contains(got, "fail 1 key cards are gone that a hold keeps\n") || !strings.Contains(got, "warn 1 holds are past their review\n") ||
		!strings.Contains(got, "1 holds keep 1\n") {
		t.Fatal(got)
	}
	s.book.dead = true
	s.l.Pass(context.Background())
	s.book.dead = false
	if got := said(); !strings.HasPrefix(got, "fail the last pass of retention did not end\n") {
		t.Fatal(got)
	}
}

// TestCardGoneUnderHold: a card that somebody else removed under a hold is never
// explained by a destruction.
func TestCardGoneUnderHold(t *testing.T) {
	s := newSite(t)
	a := s.seal(evidence.Events, "hr", 1)
	s.after(60 * day)
	s.pass() // announced
	s.place(Scope{Compartment: "hr"})
	if err := os.Remove(filepath.Join(s.dir, "keys", "segments", a.String()+".card")); err != nil {
		t.Fatal(err)
	}
	s.after(s.grace)
	for range 2 {
		if r := s.pass(); r.Missing != 1 || r.Destroyed != 0 {
			t.Fatalf("%+v", r)
		}
		s.reopen()
		if err := s.l.Begin(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, ok, _ := s.l.Gone(context.Background(), a); ok {
		t.Fatal("the ledger says that it was destroyed")
	}
}

// TestCrashAtEveryStep ends the process before and after each step of a destruction:
// each change of the disk and each statement. The next pass finishes, and every
// statement and every key agree.
func TestCrashAtEveryStep(t *testing.T) {
	for _, mode := range []struct {
		name        string
		done, inLog bool
	}{{"disk before", false, false}, {"disk after", true, false}, {"ledger before", false, true}, {"ledger after", true, true}} {
		step := 1
		for ; ; step++ {
			s := newSite(t)
			var ids []uuid.UUID
			for range 3 {
				ids = append(ids, s.seal(evidence.Events, "hr", 2))
			}
			sealed := s.seal(evidence.Originals, "hr", 2)
			s.after(8 * day)
			next := s.seal(evidence.Events, "hr", 2)
			s.at = monday.Add(40 * day)
			s.pass()
			s.after(s.grace)
			s.close()
			disk := 0
			dead := false
			s.fault = func(st durable.Step) error {
				if dead {
					return errCrash
				}
				if mode.inLog || st.Done != mode.done {
					return nil
				}
				if disk++; disk == step {
					dead = true
					s.book.dead = true
					return errCrash
				}
				return nil
			}
			s.open()
			s.book.calls, s.book.failDone = 0, mode.done
			if mode.inLog {
				s.book.failAt = step
			}
			_, err := s.l.Pass(context.Background())
			crashed := s.book.dead
			if (err != nil) != crashed {
				t.Fatalf("%s %d: nobody was told: %v", mode.name, step, err)
			}
			s.close()
			s.fault, s.book.dead, s.book.failAt = nil, false, 0
			s.open()
			if step%2 == 0 { // a hold comes first: what is there stays, what is gone is stated
				s.place(Scope{Compartment: "hr"})
				r := s.pass()
				if r.Missing != 0 {
					t.Fatalf("%s %d: %+v", mode.name, step, r)
				}
				for _, id := range append(slices.Clone(ids), sealed) {
					_, _, gone, err := s.l.Gone(context.Background(), id)
					if err != nil || gone == s.opens2(id) {
						t.Fatalf("%s %d: stated %v, opens %v, %v", mode.name, step, gone, s.opens2(id), err)
					}
				}
			} else {
				s.pass()
				for _, id := range append(slices.Clone(ids), sealed) {
					if _, _, gone, err := s.l.Gone(context.Background(), id); err != nil || !gone || s.opens2(id) {
						t.Fatalf("%s %d: not finished: stated %v, %v", mode.name, step, gone, err)
					}
				}
				if diff := cmp.Diff([]string{"hr 2026-w11"}, s.weeks()); diff != "" {
					t.Fatalf("%s %d: %s", mode.name, step, diff)
				}
			}
			if !s.opens(next) {
				t.Fatalf("%s %d: a neighbour is gone", mode.name, step)
			}
			s.verify()
			s.close()
			if !crashed {
				break
			}
		}
		if step < 3 {
			t.Fatalf("%s: only %d steps", mode.name, step)
		}
	}
}

// opens2 is whether the card is there at all, for originals too.
func (s *site) opens2(id uuid.UUID) bool {
	_, err := os.Stat(filepath.Join(s.dir, "keys", "segments", id.String()+".card"))
	return err == nil
}

// TestStateThatTheLedgerDoesNotSay: a destruction, or its announcement, that somebody
// wrote into the state destroys nothing: at the start, with a hold, in a pass.
func TestStateThatTheLedgerDoesNotSay(t *testing.T) {
	s := newSite(t)
	a := s.seal(evidence.Events, "hr", 1)
	differ := errors.New("the state says otherwise than the ledger")
	s.agree = func(context.Context) error { return differ }
	s.reopen()
	id := a.String()
	s.book.facts[[2]string{"destruction.done", id}] = state.Fact{Kind: "destruction.done", Key: id, Time: s.at, Detail: []byte(`{"rule":"x","destroyed":{}}`)}
	s.reopen() // Begin
	s.place(Scope{Compartment: "net"})
	if _, err := s.l.Pass(context.Background()); !errors.Is(err, differ) {
		t.Fatal(err)
	}
	if !s.opens(a) {
		t.Fatal("destroyed by what somebody wrote into the state")
	}
	s.agree = nil // where nobody compares, it is gone: the test would see it
	s.reopen()
	if s.pass(); s.opens(a) {
		t.Fatal("the forged statement had no effect without the comparison either")
	}
}
