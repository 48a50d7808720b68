package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/pia"
)

// sealedAs is what the model knows of a segment: nothing of lifecycle's own.
type sealedAs struct {
	id      uuid.UUID
	stream  evidence.Stream
	comp    string
	at      time.Time
	expired bool // the model has seen it destroyed
}

type said struct {
	at   time.Time
	days int
}

// model is a second telling of decision 0013, by brute force.
type model struct {
	segments []*sealedAs
	said     map[string][]said // by stream and compartment
	holds    map[string]Scope  // in force
	grace    time.Duration
}

func monday0(at time.Time) time.Time {
	at = at.UTC().Truncate(day)
	for at.Weekday() != time.Monday {
		at = at.Add(-day)
	}
	return at
}

func (m *model) due(s *sealedAs) (time.Time, bool) {
	all := m.said[s.stream.String()+s.comp]
	week := monday0(s.at)
	days, found := 0, false
	for i, w := range all {
		until := time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
		slip := false
		// The next one that is no slip ends it; a slip is one that lasted less than the grace.
		if i+1 < len(all) && all[i+1].at.Sub(w.at) < m.grace {
			slip = true
		}
		for j := i + 1; j < len(all); j++ {
			if j+1 < len(all) && all[j+1].at.Sub(all[j].at) < m.grace {
				continue
			}
			until = all[j].at
			break
		}
		firstGood := true
		for j := range i {
			if !(j+1 < len(all) && all[j+1].at.Sub(all[j].at) < m.grace) {
				firstGood = false
			}
		}
		if slip {
			continue
		}
		// In force at any moment of [week, for ever): it ended behind the Monday, or it is
		// the first there ever was.
		if until.After(week) || firstGood && until.After(week) {
			if !found || w.days < days {
				days, found = w.days, true
			}
		}
	}
	return week.Add(7*day + time.Duration(days)*day), found
}

// held tells that a hold keeps the unit of a segment.
func (m *model) held(s *sealedAs) bool {
	for _, o := range m.segments {
		if o.expired || o.stream != s.stream || o.comp != s.comp || !monday0(o.at).Equal(monday0(s.at)) {
			continue
		}
		if s.stream == evidence.Originals && o != s {
			continue
		}
		for _, h := range m.holds {
			if h.Compartment != "" && h.Compartment != o.comp {
				continue
			}
			if h.From != "" {
				if from, _ := time.Parse(time.RFC3339, h.From); o.at.Before(from) {
					continue
				}
			}
			if h.To != "" {
				if to, _ := time.Parse(time.RFC3339, h.To); o.at.After(to) {
					continue
				}
			}
			return true
		}
	}
	return false
}

// TestRandomLives runs random lives of a data directory, with crashes, against the
// model: nothing under a hold is ever destroyed, nothing before its time, and at the
// end nothing that is over survives a pass, whatever happened before.
func TestRandomLives(t *testing.T) {
	runs := 30
	if testing.Short() {
		runs = 6
	}
	destroyed, kept, crashes := 0, 0, 0
	for run := range runs {
		seed := uint64(run)
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 4))
			s := newSite(t)
			if rng.IntN(3) == 0 {
				s.grace = 0
			}
			m := &model{said: map[string][]said{}, holds: map[string]Scope{}, grace: s.grace}
			days := map[string]int{"hr": 30, "net": 10}
			origs := map[string]int{"hr": 7, "net": 0}
			say := func() {
				s.rules = nil
				for _, c := range []string{"hr", "net"} {
					s.rules = append(s.rules, &pia.Rule{Source: "s" + c, Compartment: c, Retention: days[c], OriginalDays: origs[c]})
				}
			}
			// What was stated counts from its statement: a pass may die before it.
			note := func() {
				for _, c := range []string{"hr", "net"} {
					for stream, want := range map[evidence.Stream]int{evidence.Events: days[c], evidence.Originals: origs[c]} {
						k := stream.String() + c
						f, ok := s.book.facts[[2]string{kindPromise, fmt.Sprintf("retention/%s/%s/%d", stream, c, len(m.said[k])+1)}]
						if !ok {
							continue
						}
						var d promiseDetail
						if err := json.Unmarshal(f.Detail, &d); err != nil || d.Days != want {
							t.Fatalf("%s is stated as %s, and is %d: %v", k, f.Detail, want, err)
						}
						m.said[k] = append(m.said[k], said{f.Time, want})
					}
				}
			}
			say()
			s.reopen()
			ctx := context.Background()
			steps := 0
			look := func(heldBefore map[uuid.UUID]bool) {
				for _, x := range m.segments {
					gone := !s.opens2(x.id)
					if gone && !x.expired {
						due, ok := m.due(x)
						if heldBefore[x.id] {
							t.Fatalf("%s/%s of %s was destroyed under a hold", x.stream, x.comp, x.at)
						}
						if !ok || s.at.Before(due) {
							t.Fatalf("%s/%s of %s was destroyed at %s, due %s", x.stream, x.comp, x.at, s.at, due)
						}
						x.expired = true
						destroyed++
					}
					if !gone && x.expired {
						t.Fatalf("%s/%s of %s came back", x.stream, x.comp, x.at)
					}
				}
			}
			pass := func() {
				held := map[uuid.UUID]bool{}
				for _, x := range m.segments {
					held[x.id] = m.held(x)
				}
				_, err := s.l.Pass(ctx)
				note()
				if err != nil && !s.book.dead {
					t.Fatal(err)
				}
				if s.book.dead { // the process is gone: start again
					crashes++
					s.close()
					s.fault, s.book.dead, s.book.failAt = nil, false, 0
					s.open()
				}
				look(held)
			}
			for range 60 {
				switch rng.IntN(12) {
				case 0, 1, 2:
					comp := []string{"hr", "net"}[rng.IntN(2)]
					stream := evidence.Events
					if comp == "hr" && rng.IntN(3) == 0 {
						stream = evidence.Originals
					}
					at := s.at
					m.segments = append(m.segments, &sealedAs{id: s.seal(stream, comp, 1+rng.IntN(3)), stream: stream, comp: comp, at: at})
				case 3:
					c := []string{"hr", "net"}[rng.IntN(2)]
					days[c] = []int{1, 10, 30, 90}[rng.IntN(4)]
					origs[c] = []int{0, 1, 7}[rng.IntN(3)]
					say()
				case 4:
					scope := Scope{Case: "C-1"}
					if rng.IntN(2) == 0 {
						scope.Compartment = []string{"hr", "net"}[rng.IntN(2)]
					}
					if rng.IntN(2) == 0 {
						scope.From = s.at.Add(-time.Duration(rng.IntN(60)) * day).Format(time.RFC3339)
					}
					if rng.IntN(2) == 0 {
						scope.To = s.at.Add(-time.Duration(rng.IntN(30)) * day).Format(time.RFC3339)
					}
					h, err := s.l.Place(ctx, "os:1", scope, []byte("order"), s.at.Add(day))
					if err == nil {
						m.holds[h.ID] = scope
					} else if !Mistake(err) {
						t.Fatal(err)
					}
				case 5, 6:
					for id := range m.holds { // the ceremony has its own tests
						if s.book.up {
							if _, err := s.book.Critical(ctx, actOf("hold.released", id, map[string]any{"hold": id, "request": "x"})); err != nil {
								t.Fatal(err)
							}
							delete(m.holds, id)
						}
						break
					}
				case 7:
					s.book.up = rng.IntN(4) > 0
				case 8:
					s.reopen()
				case 9: // the power goes in the middle of the next pass
					at, n := 1+rng.IntN(6), 0
					if rng.IntN(2) == 0 {
						s.book.calls, s.book.failAt, s.book.failDone = 0, at, rng.IntN(2) == 0
					} else {
						done := rng.IntN(2) == 0
						s.close()
						s.fault = func(st durable.Step) error {
							if s.book.dead {
								return errCrash
							}
							if st.Op != durable.OpRemove && st.Op != durable.OpSyncDir || st.Done != done {
								return nil
							}
							if n++; n == at {
								s.book.dead = true
								return errCrash
							}
							return nil
						}
						if err := s.tryOpen(); err != nil {
							if !errors.Is(err, errCrash) {
								t.Fatal(err)
							}
							s.fault, s.book.dead = nil, false
							s.closed = true
							s.open()
						}
					}
					pass()
					s.close()
					s.fault, s.book.dead, s.book.failAt = nil, false, 0
					s.open()
				default:
					pass()
				}
				steps++
				s.after(time.Duration(rng.IntN(int(5 * day))))
			}
			s.book.up = true
			pass()
			over := s.at
			s.after(s.grace)
			pass()
			pass()
			for _, c := range []string{"hr", "net"} {
				if all := m.said["events"+c]; len(all) == 0 || all[len(all)-1].days != days[c] {
					t.Errorf("the retention of %s is not stated", c)
				}
			}
			for _, x := range m.segments {
				due, ok := m.due(x)
				if !x.expired && ok && !due.After(over) && !m.held(x) {
					t.Errorf("%s/%s of %s is over since %s and survives", x.stream, x.comp, x.at, due)
				}
				if !x.expired {
					kept++
				}
			}
			live := map[string]bool{}
			for _, x := range m.segments {
				if x.stream == evidence.Events && !x.expired {
					live[x.comp+" "+weekName(x.at)] = true
				}
			}
			for _, w := range s.weeks() {
				if !live[w] {
					t.Errorf("the index still has %s", w)
				}
			}
			for w := range live {
				if !slices.Contains(s.weeks(), w) {
					t.Errorf("the index has lost %s", w)
				}
			}
			s.verify()
		})
	}
	t.Logf("%d segments destroyed, %d kept, %d crashes", destroyed, kept, crashes)
	if destroyed < runs || kept < runs || crashes < runs/6 {
		t.Error("the lives are too quiet to show anything")
	}
}

func weekName(at time.Time) string {
	y, w := at.UTC().ISOWeek()
	return fmt.Sprintf("%04d-w%02d", y, w)
}
