package cases

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/access"
)

// model is what should be, in as few words as possible.
type model struct {
	auths   []*modelAuth
	glasses []*modelGlass
}

type modelAuth struct {
	id, caseID       string
	by, reader       string
	subjects         int // person 0 to this one
	counsel, outside bool
	reverse          bool
	ends             time.Time
	yes              []string
	no, ended        bool
}

type modelGlass struct {
	id, caseID, by string
	subjects       int
	at             time.Time
	outcome        string
}

var (
	inner   = []string{"olga", "pia", "paul"}  // may decide, of other chains and authorities
	loud    = []string{"olga", "hugo", "ludo"} // overseer, or outside
	readers = []string{"ines", "rita", "remo", "anna"}
	cast    = []string{"ines", "rita", "remo", "anna", "olga", "pia", "paul", "ludo", "hugo", "dora", "otto", "sven", "nobody"}
)

func (a *modelAuth) approved() bool {
	counsel := len(a.yes) > 1 && slices.ContainsFunc(a.yes, func(p string) bool { return slices.Contains(loud, p) })
	return len(a.yes) > 0 && (counsel || !a.counsel) && (!a.outside || slices.Contains(a.yes, "ludo"))
}

func (a *modelAuth) open(now time.Time) bool { return !a.no && !a.ended && now.Before(a.ends) }

// may says whether somebody's decision should count.
func (a *modelAuth) may(p string, yes bool, now time.Time) bool {
	able := slices.Contains(inner, p) || p == "ludo" ||
		(p == "hugo" && a.by != "ines" && a.reader != "ines") || (p == "dora" && a.by != "ines" && a.reader != "ines")
	if !able || !a.open(now) || a.approved() || slices.Contains(a.yes, p) {
		return false
	}
	if !yes || len(a.yes) == 0 {
		return true
	}
	isLoud := func(p string) bool { return slices.Contains(loud, p) }
	hadCounsel := len(a.yes) > 1 && slices.ContainsFunc(a.yes, isLoud)
	getsCounsel := slices.ContainsFunc(append(slices.Clone(a.yes), p), isLoud)
	return a.counsel && !hadCounsel && getsCounsel || a.outside && p == "ludo"
}

func (g *modelGlass) open(now time.Time) bool {
	return now.Before(g.at.Truncate(time.Second).Add(Glass)) && (g.outcome == "" || g.outcome == Justified)
}

// TestModel takes random steps, legal and not, and compares with the model after each.
func TestModel(t *testing.T) {
	seeds, steps := 40, 250
	if testing.Short() {
		seeds = 5
	}
	accepted, refused, covered := 0, 0, 0
	for i := range seeds {
		seed := uint64(time.Now().UnixNano()) + uint64(i)
		r := rand.New(rand.NewPCG(seed, 1))
		h := newHouse(t)
		h.offices.Offices[0].Roles = []string{"overseer"}
		m := &model{}
		for n := range steps {
			did, ok, want, err := step(h, m, r)
			if ok != want {
				t.Fatalf("seed %d, step %d: %s: accepted %v, the model says %v (%v)", seed, n, did, ok, want, err)
			}
			switch {
			case ok:
				accepted++
			default:
				refused++
			}
			covered += compare(t, h, m, r, fmt.Sprintf("seed %d, step %d: %s", seed, n, did))
		}
	}
	t.Logf("%d seeds of %d steps: %d accepted, %d refused, %d questions covered", seeds, steps, accepted, refused, covered)
}

func pick(r *rand.Rand, from []string) string { return from[r.IntN(len(from))] }

// step does one thing. It says what, whether it was accepted, and whether it should be.
func step(h *house, m *model, r *rand.Rand) (did string, ok, want bool, err error) {
	ctx := h.t.Context()
	now := h.clock
	caseID := fmt.Sprintf("C-%d", r.IntN(3))
	who := pick(r, cast)
	switch r.IntN(10) {
	case 0, 1: // ask
		if r.IntN(2) == 0 {
			who = pick(r, readers)
		}
		a := draft(people(1 + r.IntN(3))...)
		switch r.IntN(6) {
		case 0:
			a.Scope.Subjects = people(25)
		case 1:
			a.Scope.Subjects = people(101)
		}
		a.Case, a.Scope.Reverse = caseID, r.IntN(4) == 0
		a.Ends = now.Add(time.Duration(r.IntN(100)) * 24 * time.Hour)
		a.Scope.From, a.Scope.To = now.AddDate(0, 0, -3), now
		a.Counsel = r.IntN(8) == 0
		reader := ""
		if r.IntN(4) == 0 {
			reader = pick(r, readers)
			a.Readers = []string{reader}
		}
		id, err := h.Request(ctx, h.as(who), a)
		n := len(a.Scope.Subjects)
		want := slices.Contains(readers, who) && a.Ends.After(now) && !a.Ends.After(now.Add(MaxAuthorisation)) && reader != who
		if err == nil {
			m.auths = append(m.auths, &modelAuth{id: id, caseID: caseID, by: who, reader: reader, subjects: n, counsel: a.Counsel || n > 20,
				outside: n > 100, reverse: a.Scope.Reverse, ends: a.Ends})
		}
		return who + " asks", err == nil, want, err
	case 2, 3, 4: // decide
		if len(m.auths) == 0 {
			return "nothing", true, true, nil
		}
		a := m.auths[max(0, len(m.auths)-1-r.IntN(4))]
		if r.IntN(2) == 0 {
			who = pick(r, append(inner, "ludo"))
		}
		yes, fresh, right := r.IntN(5) > 0, r.IntN(8) > 0, r.IntN(8) > 0
		digest := h.digest(a.id)
		if !right {
			digest = h.digest(m.auths[0].id) + "0"
		}
		err := h.Decide(ctx, h.as(who), fresh, a.id, digest, yes)
		want := fresh && right && a.may(who, yes, now)
		if err == nil && yes {
			a.yes = append(a.yes, who)
		} else if err == nil {
			a.no = true
		}
		return fmt.Sprintf("%s decides %v", who, yes), err == nil, want, err
	case 5: // end
		if len(m.auths) == 0 {
			return "nothing", true, true, nil
		}
		a := m.auths[r.IntN(len(m.auths))]
		err := h.End(ctx, h.as(who), a.id, Done)
		want := a.open(now) && (who == a.by || slices.Contains([]string{"olga", "pia", "paul", "ludo", "hugo", "dora", "otto"}, who))
		if err == nil {
			a.ended = true
		}
		return who + " ends", err == nil, want, err
	case 6: // break the glass
		n := 1 + r.IntN(25)
		if r.IntN(2) == 0 {
			who = pick(r, []string{"rita", "remo"})
		}
		_, err := h.BreakGlass(ctx, h.as(who), caseID, named(people(n)...))
		held := n
		want := (who == "rita" || who == "remo") && n <= 20
		for _, g := range m.glasses {
			if g.by != who {
				continue
			}
			if g.outcome == "" && now.Sub(g.at) > ReviewWithin {
				want = false
			}
			if g.open(now) {
				held += g.subjects
				want = want && g.caseID != caseID
			}
		}
		want = want && held <= 20
		if err == nil {
			g := &modelGlass{caseID: caseID, by: who, subjects: n, at: now}
			for _, rev := range must(h.Reviews(ctx)) {
				if !slices.ContainsFunc(m.glasses, func(g *modelGlass) bool { return g.id == rev.ID }) {
					g.id = rev.ID
				}
			}
			m.glasses = append(m.glasses, g)
		}
		return who + " breaks the glass", err == nil, want, err
	case 7: // review
		if len(m.glasses) == 0 {
			return "nothing", true, true, nil
		}
		g := m.glasses[r.IntN(len(m.glasses))]
		outcome := pick(r, outcomes)
		err := h.Review(ctx, h.as(who), g.id, outcome)
		want := g.outcome == "" && slices.Contains([]string{"olga", "pia", "paul", "ludo", "hugo", "dora"}, who)
		if err == nil {
			g.outcome = outcome
		}
		return who + " reviews", err == nil, want, err
	case 8: // time goes by
		h.clock = h.clock.Add(time.Duration(r.IntN(72)) * time.Hour)
		return "time goes by", true, true, nil
	default: // restart
		before := h.everything()
		return "restart", h.reopened() == before, true, nil
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// compare asks a few questions of the Book and of the model.
func compare(t *testing.T, h *house, m *model, r *rand.Rand, where string) (covered int) {
	t.Helper()
	now := h.clock
	for range 3 {
		who, caseID, n, reverse := pick(r, cast), fmt.Sprintf("C-%d", r.IntN(3)), []int{0, 1, 2, 24, 99}[r.IntN(5)], r.IntN(4) == 0
		if r.IntN(2) == 0 {
			who = pick(r, readers)
		}
		q := about(person(n))
		if reverse {
			q.Verdict.Class, q.Verdict.Many = access.Person|access.Reverse, true
		}
		c, err := h.Covers(t.Context(), h.as(who), caseID, q)
		if err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		want := ""
		for _, g := range m.glasses {
			if g.by == who && g.caseID == caseID && g.open(now) && n < g.subjects && !reverse {
				want = KindGlass
			}
		}
		for _, a := range m.auths {
			if (a.by == who || a.reader == who) && a.caseID == caseID && a.open(now) && a.approved() && n < a.subjects && (a.reverse || !reverse) {
				want = KindAuthorisation
			}
		}
		if c.Kind != want {
			t.Fatalf("%s: %s asks in %s about %d, reverse %v: got %q (%s), want %q", where, who, caseID, n, reverse, c.Kind, c.Code, want)
		}
		if want != "" {
			covered++
		}
	}
	waiting := 0
	for _, g := range m.glasses {
		if g.outcome == "" {
			waiting++
		}
	}
	if got := must(h.Reviews(t.Context())); len(got) != waiting {
		t.Fatalf("%s: %d reviews, want %d", where, len(got), waiting)
	}
	return covered
}
