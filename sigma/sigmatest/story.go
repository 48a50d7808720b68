package sigmatest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/counterseal/counterseal/sigma"
)

// orders is the number of random orders in which the events of a story arrive.
const orders = 100

// start is the time that the durations of a story count from.
var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// story is what happens to the correlations of a file.
type story struct {
	parts   []part // cut at the advances
	found   []finding
	asked   bool // there was a found
	line    int
	counted map[string]int64
}

// part is a number of events and the advance that follows them.
type part struct {
	events  []arrival
	advance time.Time // zero: none
}

type arrival struct {
	test *testCase
	o    sigma.Observation
}

// finding is a found directive.
type finding struct {
	line                       int
	rule, events, group, value string
	window                     string
	given                      int // parts of the directive
}

func (s *story) add(d directive, last *testCase) error {
	if len(s.parts) == 0 {
		s.parts = make([]part, 1)
	}
	now := &s.parts[len(s.parts)-1]
	switch d.word {
	case "at":
		after, err := time.ParseDuration(d.rest)
		if err != nil || last == nil || last.timed {
			return errors.New("it needs a duration and an event above")
		}
		if last.name == "" || strings.ContainsAny(last.name, " |") {
			return errors.New("the event needs a name of one word")
		}
		last.timed = true
		now.events = append(now.events, arrival{last, sigma.Observation{Time: start.Add(after), Content: sha256.Sum256([]byte(last.name))}})
	case "twin":
		n := len(now.events)
		if n == 0 || now.events[n-1].test != last {
			return errors.New("the event above has no time")
		}
		now.events[n-1].o.Twin = d.rest
	case "advance":
		after, err := time.ParseDuration(d.rest)
		if err != nil {
			return err
		}
		now.advance = start.Add(after)
		s.parts = append(s.parts, part{})
	case "found":
		s.asked, s.line = true, d.line
		if d.rest == "none" {
			return nil
		}
		fields := strings.Split(d.rest, " | ")
		rule, events, ok := strings.Cut(fields[0], ": ")
		if !ok || len(fields) > 4 {
			return errors.New("it needs RULE: EVENTS | GROUP | VALUE | FROM TO")
		}
		names := strings.Fields(events)
		slices.Sort(names)
		f := finding{line: d.line, rule: rule, events: strings.Join(names, " "), given: len(fields)}
		for i, to := range []*string{&f.group, &f.value, &f.window} {
			if i+1 < len(fields) {
				*to = strings.TrimSpace(fields[i+1])
			}
		}
		s.found = append(s.found, f)
	default:
		n, err := strconv.ParseInt(d.rest, 10, 64)
		if err != nil {
			return err
		}
		if s.counted == nil {
			s.counted = make(map[string]int64)
		}
		s.counted[d.word] = n
	}
	return nil
}

func (s *story) run(set *sigma.Set, rep *Report, failf func(int, string, ...any)) {
	if len(s.parts) == 0 {
		return
	}
	if !s.asked {
		failf(1, "events have times and no found says what for")
		return
	}
	for seed := range orders + 1 {
		how := "in the order of the file"
		if seed > 0 {
			how = fmt.Sprintf("in random order %d", seed)
		}
		got, counted, err := s.tell(set, seed)
		if err != nil {
			failf(s.line, "%s: %v", how, err)
			return
		}
		ok := true
		for _, want := range s.found {
			i := slices.IndexFunc(got, func(g finding) bool { return want.is(g, set) })
			if i < 0 {
				failf(want.line, "%s: not found", how)
				ok = false
				continue
			}
			if r := lookup(set, want.rule); r != nil && seed == 0 {
				tested := rep.Rules[r.Key()]
				tested.Yes++
				rep.Rules[r.Key()] = tested
			}
			got = slices.Delete(got, i, i+1)
		}
		for _, g := range got {
			failf(s.line, "%s: found, and no directive says so: %s: %s | %s | %s | %s", how, g.rule, g.events, g.group, g.value, g.window)
			ok = false
		}
		for _, word := range []string{"late", "ungrouped", "skipped"} {
			// What arrives twice is counted twice, so only the first run tells.
			if seed == 0 && counted[word] != s.counted[word] {
				failf(s.line, "%s: %d %s, want %d", how, counted[word], word, s.counted[word])
				ok = false
			}
		}
		if !ok {
			return
		}
	}
}

// is compares what a directive gives with what was found.
func (f finding) is(got finding, set *sigma.Set) bool {
	r := lookup(set, f.rule)
	return r != nil && r.Title == got.rule && f.events == got.events &&
		(f.given < 2 || f.group == got.group) && (f.given < 3 || f.value == got.value) && (f.given < 4 || f.window == got.window)
}

// tell lets the story happen once and returns what is found at its end.
func (s *story) tell(set *sigma.Set, seed int) ([]finding, map[string]int64, error) {
	random := rand.New(rand.NewPCG(uint64(seed), 1))
	c := sigma.NewCorrelator(set, sigma.CorrelatorOptions{})
	names := make(map[[32]byte]string)
	open := make(map[string]finding)
	var err error
	hear := func(x sigma.Correlated) {
		var events []string
		for _, content := range x.Contents {
			events = append(events, names[content])
		}
		slices.Sort(events)
		f := finding{
			rule: x.Rule.Title, events: strings.Join(events, " "), group: x.Group,
			value:  strconv.FormatFloat(x.Value, 'g', -1, 64),
			window: x.From.Sub(start).String() + " " + x.To.Sub(start).String(),
		}
		id := f.rule + "\n" + f.events + "\n" + f.group + "\n" + f.window
		_, there := open[id]
		switch {
		case x.Withdrawn && !there:
			err = fmt.Errorf("withdrawn without being found: %q", id)
		case !x.Withdrawn && there:
			err = fmt.Errorf("found twice: %q", id)
		case x.Withdrawn:
			delete(open, id)
		default:
			open[id] = f
		}
	}
	for _, p := range s.parts {
		events := slices.Clone(p.events)
		if seed > 0 {
			for _, a := range p.events {
				if random.IntN(4) == 0 {
					events = append(events, a)
				}
			}
			random.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
		}
		for _, a := range events {
			if seed > 0 && random.IntN(6) == 0 {
				state := c.AppendState(nil)
				c = sigma.NewCorrelator(set, sigma.CorrelatorOptions{})
				if err := c.LoadState(state); err != nil {
					return nil, nil, err
				}
			}
			names[a.o.Content] = a.test.name
			ev := a.test.view()
			set.Match(&ev, func(m sigma.Match) { c.Observe(m, &ev, a.o, hear) })
		}
		if !p.advance.IsZero() {
			c.Advance(p.advance, hear)
		}
	}
	var out []finding
	for _, f := range open {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b finding) int {
		return strings.Compare(a.rule+a.events+a.window, b.rule+b.events+b.window)
	})
	counted := make(map[string]int64)
	for word, counts := range map[string]map[string]int64{"late": c.Late(), "ungrouped": c.Ungrouped(), "skipped": c.Skipped()} {
		for _, n := range counts {
			counted[word] += n
		}
	}
	return out, counted, err
}
