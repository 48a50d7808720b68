package oversight

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/policy"
	"github.com/counterseal/counterseal/internal/state"
)

// statements is a ledger in memory.
type statements struct {
	now      func() time.Time
	next     uint64
	facts    map[[2]string]state.Fact
	payloads map[string][]byte
}

func (s *statements) Record(_ context.Context, a attest.Act) (uint64, error) {
	made, err := ledger.New(a.Kind, a.Actor, s.now(), a.Detail)
	if err != nil {
		return 0, err
	}
	made.Subject = a.Subject
	for _, f := range attest.Fold(s.next, made) {
		s.facts[[2]string{f.Kind, f.Key}] = f
	}
	s.next++
	return s.next - 1, nil
}

func (s *statements) Facts(_ context.Context, kind string) (out []state.Fact, _ error) {
	for k, f := range s.facts {
		if k[0] == kind {
			out = append(out, f)
		}
	}
	return out, nil
}

func (s *statements) FactsSince(ctx context.Context, kind string, since time.Time) ([]state.Fact, error) {
	all, err := s.Facts(ctx, kind)
	return slices.DeleteFunc(all, func(f state.Fact) bool { return f.Time.Before(since) }), err
}

func (s *statements) Looks(_ context.Context, since time.Time) (out []state.Fact, _ error) {
	for k := range s.facts {
		if k[0] != "request.served" {
			continue
		}
		review, ok := s.facts[[2]string{"look.reviewed", k[1]}]
		if _, settles := state.Outcome(review.Detail); ok && settles && review.Time.Before(since) {
			continue
		}
		for _, kind := range []string{"request.served", "look.answered", "look.reviewed"} {
			if f, ok := s.facts[[2]string{kind, k[1]}]; ok {
				out = append(out, f)
			}
		}
	}
	return out, nil
}

func (s *statements) Fact(_ context.Context, kind, key string) (state.Fact, bool, error) {
	f, ok := s.facts[[2]string{kind, key}]
	return f, ok, nil
}

func (s *statements) PutPayload(b []byte) (ledger.Digest, error) {
	d := ledger.Digest{Alg: "sha256-salted", H: fmt.Sprintf("%064x", len(s.payloads)+1)}
	s.payloads[d.H] = b
	return d, nil
}

func (s *statements) Payload(d ledger.Digest) ([]byte, error) {
	b, ok := s.payloads[d.H]
	if !ok {
		return nil, ledger.ErrNoPayload
	}
	return b, nil
}

// house is a Book with people in office and a clock.
type house struct {
	*Book
	t       *testing.T
	s       *statements
	clock   time.Time
	offices *policy.Offices
	roster  *officer.Roster
	o       Options
	looks   int
}

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC) // a Wednesday

func newHouse(t *testing.T) *house {
	t.Helper()
	office := func(id, holder, authority, under string, roles ...string) policy.Office {
		return policy.Office{ID: id, Holder: holder, Authority: authority, Under: under, Standing: "confirmed", Since: noon.AddDate(-1, 0, 0), Roles: roles, Trained: noon.AddDate(1, 0, 0)}
	}
	h := &house{t: t, clock: noon, offices: &policy.Offices{Offices: []policy.Office{
		office("head", "hugo", "crown", "", "overseer"), // above the analysts
		office("soc", "anna", "ciso", "head", "analyst"),
		office("inspector", "olga", "parliament", "", "overseer"),
		office("inside", "ines", "ciso", "", "overseer"), // appointed as the analysts are
		office("privacy", "pia", "board", "", "privacy_officer"),
	}}}
	h.s = &statements{now: func() time.Time { return h.clock }, facts: map[[2]string]state.Fact{}, payloads: map[string][]byte{}}
	set, err := policy.Load(policy.Default())
	if err != nil {
		t.Fatal(err)
	}
	h.o = Options{
		Statements: h.s, Offices: func() *policy.Offices { return h.offices }, Now: func() time.Time { return h.clock }, Org: uuid.MustParse("01900000-0000-7000-8000-000000000001"),
		Roster: func() (*officer.Roster, error) { return h.roster, nil }, Settings: Settings{Floor: 4, Begin: 7, End: 19},
		Policy: func(_ context.Context, r policy.Request) policy.Decision {
			r.Context.Offices, r.Context.Crowd = "kept", "none"
			return set.Decide(r)
		},
	}
	h.open()
	return h
}

func (h *house) open() {
	h.t.Helper()
	var err error
	if h.Book, err = Open(h.t.Context(), h.o); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) as(id string) policy.Person {
	for _, f := range h.offices.Offices {
		if f.Holder == id {
			p, _ := h.offices.Person(f.ID)
			return p
		}
	}
	return policy.Person{ID: id}
}

// look states one of somebody about tokens.
func (h *house) look(who, caseID string, tokens ...string) string {
	h.t.Helper()
	raw, err := json.Marshal(map[string]any{"path": "/p", "query": "q", "look": AboutOf(h.offices, who, tokens)})
	if err != nil {
		h.t.Fatal(err)
	}
	d, err := h.s.PutPayload(raw)
	if err != nil {
		h.t.Fatal(err)
	}
	h.looks++
	id := fmt.Sprintf("look-%d", h.looks)
	detail := map[string]any{"act": "search", "selects": "person", "look": People, "office": "soc", "question": d, "route": "r", "status": 200}
	if caseID != "" {
		detail["case"] = caseID
	}
	if _, err := h.s.Record(h.t.Context(), attest.Act{Kind: "request.served", Actor: "account:" + who, Subject: []string{id}, Detail: detail}); err != nil {
		h.t.Fatal(err)
	}
	h.Stated(h.t.Context(), "request.served", id)
	return id
}

func (h *house) marked() map[string]string {
	h.t.Helper()
	q, err := h.Queue(h.t.Context(), true)
	if err != nil {
		h.t.Fatal(err)
	}
	out := map[string]string{}
	for _, l := range q {
		if len(l.Marks) > 0 {
			out[l.ID] = strings.Join(l.Marks, " ")
		}
	}
	return out
}

func code(t *testing.T, err error) string {
	t.Helper()
	var r *Refusal
	switch {
	case err == nil:
		return ""
	case !errors.As(err, &r):
		t.Fatalf("not a refusal: %v", err)
	case r.Reason == "" || r.Hint == "":
		t.Fatalf("a refusal without reason or hint: %+v", r)
	}
	return r.Code
}

// TestMarks: each rule about odd looks marks what it is about, and not one look sooner.
func TestMarks(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		name string
		do   func(*house)
		want map[string]string
	}{
		{"two by one person without a case", func(h *house) { h.look("anna", "", "a"); h.look("anna", "", "a") }, map[string]string{}},
		{"three", func(h *house) { h.look("anna", "", "a"); h.look("anna", "", "a"); h.look("anna", "", "a", "b") },
			map[string]string{"look-1": Repeated, "look-2": Repeated, "look-3": Repeated}},
		{"three in a case", func(h *house) { h.look("anna", "c", "a"); h.look("anna", "c", "a"); h.look("anna", "c", "a") }, map[string]string{}},
		{"three of three tokens", func(h *house) { h.look("anna", "", "a"); h.look("anna", "", "b"); h.look("anna", "", "d") }, map[string]string{}},
		{"three of three people", func(h *house) { h.look("anna", "", "a"); h.look("arno", "", "a"); h.look("alma", "", "a") }, map[string]string{}},
		{"three in 14 days and a bit", func(h *house) {
			h.look("anna", "", "a")
			h.clock = h.clock.Add(7 * day)
			h.look("anna", "", "a")
			h.clock = h.clock.Add(7 * day)
			h.look("anna", "", "a")
		}, map[string]string{}},
		{"three in almost 14 days", func(h *house) {
			h.look("anna", "", "a")
			h.clock = h.clock.Add(7 * day)
			h.look("anna", "", "a")
			h.clock = h.clock.Add(7*day - time.Second)
			h.look("anna", "", "a")
		}, map[string]string{"look-1": Repeated, "look-2": Repeated, "look-3": Repeated}},
		{"four people in cases", func(h *house) {
			for i := range 4 {
				h.look(fmt.Sprintf("a%d", i), "c", "a")
			}
		}, map[string]string{}},
		{"five people", func(h *house) {
			for i := range 5 {
				h.look(fmt.Sprintf("a%d", i), "c", "a")
			}
		}, map[string]string{"look-1": Crowded, "look-2": Crowded, "look-3": Crowded, "look-4": Crowded, "look-5": Crowded}},
		{"before seven", func(h *house) { h.clock = noon.Add(-5*time.Hour - time.Second); h.look("anna", "c", "a") }, map[string]string{"look-1": OffHours}},
		{"at seven", func(h *house) { h.clock = noon.Add(-5 * time.Hour); h.look("anna", "c", "a") }, map[string]string{}},
		{"at nineteen", func(h *house) { h.clock = noon.Add(7 * time.Hour); h.look("anna", "c", "a") }, map[string]string{"look-1": OffHours}},
		{"on Saturday", func(h *house) { h.clock = noon.Add(3 * day); h.look("anna", "c", "a") }, map[string]string{"look-1": OffHours}},
		{"not kept", func(h *house) { h.look("anna", "c", "a"); clear(h.s.payloads) }, map[string]string{"look-1": Unread}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			c.do(h)
			if d := cmp.Diff(c.want, h.marked()); d != "" {
				t.Error(d)
			}
			h.open()
			if d := cmp.Diff(c.want, h.marked()); d != "" {
				t.Errorf("after a restart: %s", d)
			}
		})
	}
}

// TestReview: an overseer of another chain and authority reviews a look, once.
func TestReview(t *testing.T) {
	h := newHouse(t)
	id := h.look("anna", "c", "a")
	for who, want := range map[string]string{"anna": NotPermitted, "hugo": NotPermitted, "ines": NotPermitted, "pia": NotPermitted, "nobody": NotPermitted} {
		if err := h.Review(t.Context(), h.as(who), id, Justified); code(t, err) != want {
			t.Errorf("%s: %v, want %s", who, err, want)
		}
	}
	// Who was above her then is not forgotten, and neither is who appointed her.
	moved := *h.offices
	moved.Offices = slices.Clone(moved.Offices)
	moved.Offices[1].Under, moved.Offices[1].Authority = "", "else"
	h.offices = &moved
	for _, who := range []string{"hugo", "ines"} {
		if err := h.Review(t.Context(), h.as(who), id, Justified); code(t, err) != NotPermitted {
			t.Errorf("%s, after she has moved: %v", who, err)
		}
	}
	if err := h.Review(t.Context(), h.as("olga"), id, "fine"); code(t, err) != BadInput {
		t.Error(err)
	}
	if err := h.Review(t.Context(), h.as("olga"), "look-9", Misuse); code(t, err) != Unknown {
		t.Error(err)
	}
	h.clock = h.clock.Add(36 * time.Hour)
	if err := h.Review(t.Context(), h.as("olga"), id, Misuse); err != nil {
		t.Fatal(err)
	}
	if err := h.Review(t.Context(), h.as("olga"), id, Justified); code(t, err) != Settled {
		t.Error(err)
	}
	if lag, err := h.Lag(t.Context()); err != nil || lag.Reviewed != 1 || lag.Median != 36*time.Hour {
		t.Errorf("%+v %v", lag, err)
	}
	if q, err := h.Queue(t.Context(), false); err != nil || len(q) != 0 {
		t.Errorf("%+v %v", q, err)
	}
	h.open()
	if q, err := h.Queue(t.Context(), true); err != nil || len(q) != 1 || q[0].Outcome != Misuse {
		t.Errorf("%+v %v", q, err)
	}
	h.clock = h.clock.Add(Kept + time.Second)
	h.open()
	if q, err := h.Queue(t.Context(), true); err != nil || len(q) != 0 {
		t.Errorf("%+v %v", q, err)
	}
}

// TestPaceOfBook: as many looks as two weeks of reviews may wait, and not one more.
func TestPaceOfBook(t *testing.T) {
	h := newHouse(t)
	waits := func() bool {
		r, err := h.Waits(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if r != nil && r.Code != Paced {
			t.Fatalf("got %+v", r)
		}
		return r != nil
	}
	var ids []string
	for range 4 {
		ids = append(ids, h.look("anna", "c", "a"))
	}
	if waits() {
		t.Error("four wait, which is the floor")
	}
	ids = append(ids, h.look("anna", "c", "a"))
	if !waits() {
		t.Error("five do not make others wait")
	}
	for _, id := range ids {
		if err := h.Review(t.Context(), h.as("olga"), id, Justified); err != nil {
			t.Fatal(err)
		}
	}
	for range 13 { // ten more than the floor of reviews in four weeks: seven in two
		if err := h.Review(t.Context(), h.as("olga"), h.look("anna", "c", "a"), Justified); err != nil {
			t.Fatal(err)
		}
	}
	for range 9 {
		h.look("anna", "c", "a")
	}
	if waits() {
		t.Error("nine wait, of 18 reviews in four weeks")
	}
	h.look("anna", "c", "a")
	if !waits() {
		t.Error("ten do not make others wait")
	}
	st, err := h.Status(t.Context())
	if err != nil || !st.Waits || st.Unreviewed != 10 || st.Capacity != 9 {
		t.Errorf("%+v %v", st, err)
	}
	h.offices = nil
	if waits() {
		t.Error("a house without offices waits")
	}
}

func (h *house) beat(who string) error {
	raw, err := NewHeartbeat(h.as(who).Office, h.o.Org, h.clock)
	if err != nil {
		return err
	}
	return h.Beat(h.t.Context(), h.as(who), true, raw, nil)
}

func (h *house) stopped() string {
	h.t.Helper()
	s, err := h.Tend(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	if s == nil {
		return ""
	}
	return s.Reason
}

// TestClockPutBack: a clock that stands still, or was put back, does not keep looking alive
// where witnesses say what time it is; one of theirs that is behind changes nothing.
func TestClockPutBack(t *testing.T) {
	h := newHouse(t)
	witnessed := h.clock
	h.o.Witnessed = func() time.Time { return witnessed }
	h.open()
	if h.stopped() != "" {
		t.Fatal("it stops at once")
	}
	h.clock = h.clock.Add(10 * 24 * time.Hour)
	if err := h.beat("olga"); err != nil || h.stopped() != "" {
		t.Fatalf("%v: a witness behind stops it", err)
	}
	witnessed = h.clock.Add(SilentAfter - time.Second) // four days of ours, put back each day
	if h.stopped() != "" {
		t.Error("it stops too soon")
	}
	witnessed = witnessed.Add(time.Second)
	if h.stopped() != Unheard {
		t.Error("it goes on by a clock that stands still")
	}
}

// TestSilence: looking stops 14 days after the last heartbeat, and at once where no
// independent office is held; a statement says so once, and another that it goes on.
func TestSilence(t *testing.T) {
	h := newHouse(t)
	if got := Independent(h.offices); !slices.Equal(got, []string{"inspector"}) {
		t.Fatalf("got %v", got)
	}
	if h.stopped() != "" {
		t.Error("it stops before the first 14 days are over")
	}
	h.clock = h.clock.Add(SilentAfter - time.Second)
	if h.stopped() != "" {
		t.Error("it stops too soon")
	}
	h.open() // neither a restart nor another record of offices begins the time anew
	h.clock = h.clock.Add(time.Second)
	for range 2 { // it is stated once
		if h.stopped() != Unheard {
			t.Error("it goes on after 14 days")
		}
	}
	for _, who := range []string{"hugo", "ines", "anna", "pia"} {
		if err := h.beat(who); code(t, err) != NotPermitted {
			t.Errorf("%s: %v", who, err)
		}
	}
	if err := h.beat("olga"); err != nil {
		t.Fatal(err)
	}
	if h.stopped() != "" {
		t.Error("it has stopped while the overseer is there")
	}
	if err := h.beat("olga"); code(t, err) != Settled {
		t.Errorf("the same moment twice: %v", err)
	}
	h.open()
	if h.stopped() != "" {
		t.Error("it has stopped after a restart")
	}
	vacant := *h.offices
	vacant.Offices = slices.Clone(vacant.Offices)
	vacant.Offices[2].Holder = ""
	held := h.offices
	h.offices = &vacant
	if h.stopped() != Vacant {
		t.Error("it goes on without an independent office")
	}
	h.offices = held
	if h.stopped() != "" {
		t.Error("it has stopped with the office held and heard")
	}
	h.clock = h.clock.Add(SilentAfter)
	if h.stopped() != Unheard {
		t.Error("it goes on")
	}
	silent, _ := h.s.Facts(t.Context(), "oversight.silent")
	back, _ := h.s.Facts(t.Context(), "oversight.back")
	if len(silent) != 3 || len(back) != 3 {
		t.Errorf("%d statements that it has stopped and %d that it goes on, want 3 and 3", len(silent), len(back))
	}
	h.offices = nil
	if h.stopped() != "" {
		t.Error("a house without offices is stopped")
	}
}

// TestHeartbeat: what is no heartbeat of this office, this house and now is refused, and
// where officers hold keys it is signed by one of oversight.
func TestHeartbeat(t *testing.T) {
	h := newHouse(t)
	made := func(office string, org uuid.UUID, at time.Time) []byte {
		raw, err := NewHeartbeat(office, org, at)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	org, other := h.o.Org, uuid.MustParse("01900000-0000-7000-8000-000000000002")
	for name, c := range map[string]struct {
		raw   []byte
		fresh bool
		want  string
	}{
		"old login":       {made("inspector", org, noon), false, NotFresh},
		"another office":  {made("head", org, noon), true, BadInput},
		"another house":   {made("inspector", other, noon), true, BadInput},
		"of yesterday":    {made("inspector", org, noon.Add(-25*time.Hour)), true, BadInput},
		"from the future": {made("inspector", org, noon.Add(time.Hour)), true, BadInput},
		"no form":         {[]byte(`{}`), true, BadInput},
	} {
		if err := h.Beat(t.Context(), h.as("olga"), c.fresh, c.raw, nil); code(t, err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	oversees, err := officer.New("Olga", officer.Oversight, false)
	if err != nil {
		t.Fatal(err)
	}
	investigates, err := officer.New("Ida", officer.Investigation, false)
	if err != nil {
		t.Fatal(err)
	}
	h.roster = &officer.Roster{Epoch: 1, Officers: []officer.Appointed{{Card: oversees.Card(), Authority: "parliament"}, {Card: investigates.Card(), Authority: "ciso"}}}
	raw := made("inspector", org, noon)
	sign := func(k *officer.Key, d approval.Decision, over []byte) *approval.Signed {
		s, err := k.Sign(d, over)
		if err != nil {
			t.Fatal(err)
		}
		return &s
	}
	for name, signed := range map[string]*approval.Signed{
		"not signed": nil, "by investigation": sign(investigates, approval.Approve, raw), "a refusal": sign(oversees, approval.Refuse, raw),
		"another heartbeat": sign(oversees, approval.Approve, made("inspector", org, noon)),
	} {
		if err := h.Beat(t.Context(), h.as("olga"), true, raw, signed); code(t, err) != Unsigned {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := h.Beat(t.Context(), h.as("olga"), true, raw, sign(oversees, approval.Approve, raw)); err != nil {
		t.Fatal(err)
	}
	st, err := h.Status(t.Context())
	if err != nil || !st.Signed || !st.Heard.Equal(noon) || !st.Until.Equal(noon.Add(SilentAfter)) {
		t.Errorf("%+v %v", st, err)
	}
}

// TestApprovers: approvals sooner than a minute after the request are counted apart.
func TestApprovers(t *testing.T) {
	fact := func(kind, key, actor string, at time.Time, detail map[string]string) state.Fact {
		raw, err := json.Marshal(detail)
		if err != nil {
			t.Fatal(err)
		}
		return state.Fact{Kind: kind, Key: key, Actor: actor, Time: at, Detail: raw}
	}
	asked := []state.Fact{fact("authorisation.requested", "a", "x", noon, nil), fact("authorisation.requested", "b", "x", noon, nil)}
	decide := func(id, actor, what string, after time.Duration) state.Fact {
		return fact("authorisation.decided", id+"/1", actor, noon.Add(after), map[string]string{"authorisation": id, "decision": what})
	}
	got := Approvers(asked, []state.Fact{
		decide("a", "olga", "approve", 59*time.Second), decide("b", "olga", "approve", time.Minute), decide("a", "pia", "refuse", time.Second),
		decide("c", "pia", "approve", time.Second), decide("a", "olga", "approve", -time.Hour),
	}, noon)
	if d := cmp.Diff([]Approver{{"olga", 2, 0, 1}, {"pia", 1, 1, 0}}, got); d != "" {
		t.Error(d)
	}
}

// TestVerbatim: three requests of one person in the same words are told.
func TestVerbatim(t *testing.T) {
	in := []Asked{{"3", "Anna", "law 1", noon}, {"1", "anna", "LAW  1 ", noon}, {"2", "anna", "law 1", noon}, {"4", "arno", "law 1", noon}, {"5", "arno", "law 1", noon}, {"6", "anna", "law 2", noon}}
	if d := cmp.Diff([]Words{{"anna", "law 1", []string{"1", "2", "3"}}}, Verbatim(in)); d != "" {
		t.Error(d)
	}
}

func TestClasses(t *testing.T) {
	for n, want := range map[int]string{0: "0 0", 1: "1-9 1", 2: "1-9 2-7", 9: "1-9 8-20", 10: "10-99 8-20", 21: "10-99 21-100", 101: "100-999 101 or more", 2_000_000: "100000 or more 101 or more"} {
		if got := classText(rowClasses, RowClass(n)) + " " + classText(peopleClasses, PeopleClass(n)); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
	if got := classText(rowClasses, -1); got != "unknown" {
		t.Error(got)
	}
}
