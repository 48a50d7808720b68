package scan

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/counterseal/counterseal/internal/detect"
	"github.com/counterseal/counterseal/internal/event"
)

// Bounds of the summary's tables. What is beyond them is counted together.
const (
	maxHosts    = 10_000
	maxDays     = 40_000
	maxProblems = 1000
	topLines    = 10
	topDays     = 5
)

// others names what the tables had no room for.
const others = "(others)"

// Summary is what a scan found, for a page and for an exit code.
type Summary struct {
	Files      int       // files and members of archives that were read
	Unreadable int       // files that could not be read, or not to their end
	Problems   []Problem // the first of them, with reasons

	Events         int // records that were asked about
	Hit            int // records with at least one finding
	Unparsed       int // lines that no parser took
	Refused        int // lines that could not be framed
	Chunks         int // chunks of event logs in use
	DamagedChunks  int
	DamagedRecords int

	Rules, RefusedRules, UnmappedRules int
	Correlations                       int // rules over several events, which a scan does not ask
	CannotTell                         int // answers that a rule could not give

	MinLevel Level
	Findings [Critical + 1]int // by level
	First    time.Time         // of all events; zero: none has a time
	Last     time.Time
	TopRules []RuleCount
	TopHosts []HostCount
	Hosts    int
	TopDays  []DayCount
	Elapsed  time.Duration
}

// Problem is a file that could not be read.
type Problem struct{ Path, Reason string }

// RuleCount is how often a rule said yes.
type RuleCount struct {
	ID, Title string
	Level     Level
	Count     int
}

// HostCount is what is known of a host.
type HostCount struct {
	Host             string
	Events, Findings int
	First, Last      time.Time
}

// DayCount is how many findings a day has.
type DayCount struct {
	Day   string
	Count int
}

// Total is the number of findings.
func (s *Summary) Total() (n int) {
	for _, x := range s.Findings {
		n += x
	}
	return n
}

// Reached reports whether there is a finding of the level or above.
func (s *Summary) Reached(l Level) bool {
	for i := max(l, Informational); i <= Critical; i++ {
		if s.Findings[i] > 0 {
			return true
		}
	}
	return false
}

// Partial reports whether something could not be read.
func (s *Summary) Partial() bool {
	return s.Unreadable+s.Unparsed+s.Refused+s.DamagedChunks+s.DamagedRecords > 0
}

// tally builds a summary.
type tally struct {
	s     Summary
	start time.Time
	rules map[string]*RuleCount
	hosts map[string]*hostTally
	days  map[string]int

	first, last int64
}

type hostTally struct {
	seen
	findings int
}

func newTally(min Level, rules *detect.RuleSet, start time.Time) *tally {
	t := &tally{start: start, rules: map[string]*RuleCount{}, hosts: map[string]*hostTally{}, days: map[string]int{}}
	t.s.MinLevel = min
	t.s.Rules, t.s.RefusedRules, t.s.UnmappedRules = len(rules.Rules()), len(rules.Refused()), len(rules.Unmapped())
	t.s.Correlations = len(rules.Set().Correlations())
	return t
}

func (t *tally) host(name string) *hostTally {
	h := t.hosts[name]
	if h == nil {
		if len(t.hosts) >= maxHosts && name != others {
			return t.host(others)
		}
		h = new(hostTally)
		t.hosts[name] = h
	}
	return h
}

func (t *tally) piece(p *piece, m *mask) error {
	if p.opened {
		t.s.Files++
	}
	if p.problem != nil {
		t.s.Unreadable++
		if len(t.s.Problems) < maxProblems {
			t.s.Problems = append(t.s.Problems, Problem{p.path, p.problem.Error()})
		}
	}
	t.s.Events += p.events
	t.s.Hit += p.hits
	t.s.Unparsed += p.unparsed
	t.s.Refused += p.refused
	t.s.Chunks += p.answer.chunks
	t.s.DamagedChunks += p.damagedChunks
	t.s.DamagedRecords += p.damagedRecords
	t.s.CannotTell += p.cannotTell
	span(&t.first, &t.last, p.answer.first, p.answer.last)
	// In a fixed order: who is beyond the bound must not depend on chance.
	keys := slices.SortedFunc(maps.Keys(p.hosts), func(a, b hostKey) int { return strings.Compare(a.name, b.name) })
	for _, key := range keys {
		from, shown := p.hosts[key], key.name
		if key.mask {
			var err error
			if shown, err = m.host(key.name); err != nil {
				return err
			}
		}
		h := t.host(shown)
		h.events += from.events
		span(&h.seen.first, &h.seen.last, from.first, from.last)
	}
	return nil
}

func (t *tally) finding(f *Finding) {
	t.s.Findings[f.level]++
	r := t.rules[f.Rule.ID]
	if r == nil {
		r = &RuleCount{ID: f.Rule.ID, Title: f.Rule.Title, Level: f.level}
		t.rules[f.Rule.ID] = r
	}
	r.Count++
	t.host(f.Host).findings++
	day := "(no date)"
	if i := strings.IndexByte(f.Time, 'T'); i > 0 {
		day = f.Time[:i]
	}
	if _, ok := t.days[day]; !ok && len(t.days) >= maxDays {
		day = others
	}
	t.days[day]++
}

func (t *tally) summary(now time.Time) Summary {
	s := t.s
	s.Elapsed = now.Sub(t.start)
	s.First, s.Last = moment(t.first), moment(t.last)
	for _, r := range t.rules {
		s.TopRules = append(s.TopRules, *r)
	}
	slices.SortFunc(s.TopRules, func(a, b RuleCount) int {
		return cmp.Or(cmp.Compare(b.Level, a.Level), cmp.Compare(b.Count, a.Count), cmp.Compare(a.ID, b.ID))
	})
	for name, h := range t.hosts {
		s.TopHosts = append(s.TopHosts, HostCount{name, h.events, h.findings, moment(h.first), moment(h.last)})
	}
	s.Hosts = len(s.TopHosts)
	slices.SortFunc(s.TopHosts, func(a, b HostCount) int {
		return cmp.Or(cmp.Compare(b.Findings, a.Findings), cmp.Compare(b.Events, a.Events), cmp.Compare(a.Host, b.Host))
	})
	for day, n := range t.days {
		s.TopDays = append(s.TopDays, DayCount{day, n})
	}
	slices.SortFunc(s.TopDays, func(a, b DayCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Day, b.Day))
	})
	return s
}

func moment(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

// Print writes the summary on one page.
func (s *Summary) Print(w io.Writer) error {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("")
	line("Events      %d in %d files, %d with a finding; %.1f s", s.Events, s.Files, s.Hit, s.Elapsed.Seconds())
	if !s.First.IsZero() {
		line("Seen        %s to %s", s.First.Format(time.RFC3339), s.Last.Format(time.RFC3339))
	}
	line("Rules       %d in force, %d refused, %d without a log source that we know", s.Rules, s.RefusedRules, s.UnmappedRules)
	line("Unread      %d files, %d of %d chunks damaged, %d records damaged, %d lines not understood, %d lines refused",
		s.Unreadable, s.DamagedChunks, s.Chunks, s.DamagedRecords, s.Unparsed, s.Refused)
	if s.Correlations > 0 {
		line("Not asked   %d correlations over several events: import the files and use rules run", s.Correlations)
	}
	if s.CannotTell > 0 {
		line("Unanswered  %d times a rule could not tell", s.CannotTell)
	}
	from := ""
	if s.MinLevel > Informational {
		from = fmt.Sprintf(" (%s and above)", s.MinLevel)
	}
	line("Findings    %d%s: %d critical, %d high, %d medium, %d low, %d informational", s.Total(), from,
		s.Findings[Critical], s.Findings[High], s.Findings[Medium], s.Findings[Low], s.Findings[Informational]+s.Findings[None])
	if len(s.TopRules) > 0 {
		line("\nRules with the most weight (%d in all)", len(s.TopRules))
		for _, r := range s.TopRules[:min(topLines, len(s.TopRules))] {
			line("  %6d  %-13s %s", r.Count, levelText(r.Level.String()), event.Printable(r.Title))
		}
	}
	if s.Hosts > 0 {
		line("\nHosts (%d in all)          findings    events  first and last seen", s.Hosts)
		for _, h := range s.TopHosts[:min(topLines, len(s.TopHosts))] {
			when := "-"
			if !h.First.IsZero() {
				when = h.First.Format(time.RFC3339) + " " + h.Last.Format(time.RFC3339)
			}
			line("  %-28s %6d  %8d  %s", event.Printable(host(h.Host)), h.Findings, h.Events, when)
		}
	}
	if len(s.TopDays) > 0 {
		line("\nDates with the most findings")
		for _, d := range s.TopDays[:min(topDays, len(s.TopDays))] {
			line("  %-10s %6d", event.Printable(d.Day), d.Count)
		}
	}
	if len(s.Problems) > 0 {
		line("\nFiles not read")
		for _, p := range s.Problems[:min(topLines, len(s.Problems))] {
			text := p.Reason
			if !strings.Contains(text, p.Path) {
				text = p.Path + ": " + text
			}
			line("  %s", event.Printable(text))
		}
		if s.Unreadable > topLines {
			line("  … %d more", s.Unreadable-topLines)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
