package web

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/counterseal/counterseal/internal/admit"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/oversight"
)

// PublicFacts is what the public page tells beside what is collected.
type PublicFacts struct {
	Watched bool               // people are in office: looking is watched
	Stopped *oversight.Silence // nil: looking goes on
	Waits   bool               // new authorisations wait
	Report  *oversight.Report  // of the last quarter; nil: it is being counted
	// Removed are the removals from the list of protected channels, the newest first.
	Removed []ChannelsRemoved
}

// ChannelsRemoved is one of them: when, and how many entries of which kinds.
type ChannelsRemoved struct {
	At      time.Time
	Entries int
	Kinds   map[string]int64
}

type publicPage struct {
	Title     string
	Demo      bool
	Watched   bool
	Stopped   string // why, in words
	Since     string
	Waits     bool
	From, To  string // of the counts, the last day included
	Report    bool
	Size      string
	Draw      bool // against the rule
	Lag       string
	Totals    []publicCount
	Divisions []publicDivision
	Collected []publicSource
	Removed   []publicCount // from the list of protected channels
	Earlier   int           // removals before those
}

// maxRemoved bounds the removals that the page tells one by one.
const maxRemoved = 50

type publicCount struct{ Name, About, N string }

type publicDivision struct {
	Name string
	Rows []publicCount
}

type publicSource struct {
	Source, Dataset, Assessment, Purposes, Kept, Originals string
}

// totals names the counts of a report in words, in the order of the page.
var totals = [][3]string{
	{"looks", "Looks at people", "questions about somebody, each under an authorisation, a finding or a broken glass"},
	{"inspector-looks", "Looks by inspectors", "offices that the organisation did not appoint"},
	{"inspector-requests", "Authorisations that inspectors asked for", "and decided on among themselves"},
	{"inspector-names", "Names opened by inspectors", "by two of their office, with keys of their own"},
	{"inspector-holds", "Holds placed by inspectors", "which the organisation neither sees nor lifts"},
	{"refused", "Refused", "requests that the rules did not allow"},
	{"requests", "Authorisations asked for", "to be allowed to look at people"},
	{"decisions", "Decisions on them", "by people of another chain of command"},
	{"grants", "Opened by a finding", "to a responder, and reviewed afterwards"},
	{"glasses", "Broken glasses", "looks that could not wait for a decision, reviewed afterwards"},
	{"names-opened", "Names opened", "by two officers together, or at night by a host under their warrant"},
	{"holds-placed", "Holds placed", "evidence kept from destruction"},
	{"holds-released", "Holds released", ""},
	{"destructions", "Destructions", "of keys whose time was over"},
	{"packages", "Packages handed over", ""},
	{"containments", "Containments", "such as a session that was ended, without a name"},
	{"notices", "People told", "that they were looked at, or their name was opened"},
	{"notices-postponed", "Notices put off", "by an overseer, 90 days each time"},
	{"complaints", "Complaints", "to the overseers"},
	{"complaints-closed", "Complaints answered", ""},
	{"names-asked", "Questions by name", "two officers let a case begin with names that somebody told"},
	{"wide", "Counts of people", "questions that list people by what they did, answered in counts or by findings"},
	{"free", "Questions about nobody", "about machines, programs and rules"},
}

// divisions names what a count is divided by, in words.
var divisions = [][3]string{
	{"looks", "cover", "Looks at people, by what allowed them"},
	{"looks", "review", "Looks at people, by what an overseer found"},
	{"looks", "class", "Looks at people, by what was asked"},
	{"looks", "act", "Looks at people, by the kind of question"},
	{"decisions", "decision", "Decisions on authorisations"},
	{"decisions", "speed", "Decisions, by how soon after the request"},
	{"inspector-decisions", "decision", "Decisions of inspectors' offices"},
	{"names-opened", "way", "Names opened, by which way"},
	{"ended", "reason", "Authorisations that ended, by why"},
	{"complaints-closed", "outcome", "Complaints, by what an overseer found"},
}

// valueWords says values in words.
var valueWords = map[string]string{
	"*": "others, not told apart", "authorisation": "an authorisation", "grant": "a finding", "glass": "a broken glass",
	"two-officers": "by two officers", "at-night": "at night, by a host under their warrant",
	"waiting": "not reviewed yet", "person": "somebody by name", "reverse": "people by what they did", "person+reverse": "both",
	"approve": "approved", "refuse": "refused", "under-60-seconds": "under 60 seconds", "a-minute-or-more": "a minute or more",
	"upheld": "right", "partly": "right in part", "unfounded": "nothing wrong", "elsewhere": "another office is competent",
	"expired": "its time was over", "done": "it was done", "withdrawn": "taken back", "revoked": "revoked", "case_closed": "the case was closed", "no_oversight": "nobody independent watched",
}

func countText(n int64) string {
	if n == oversight.Few {
		return "fewer than 8"
	}
	return thousands(n)
}

// public renders the page for everybody: what is collected, whether people may be looked
// at, and how often that happened. It has no login and tells of no person.
func (s *Server) public(w http.ResponseWriter, r *http.Request) error {
	if s.o.Public == nil {
		http.NotFound(w, r)
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 2*time.Minute)
	defer cancel()
	f, err := s.o.Public(ctx)
	if err != nil {
		return err
	}
	page := publicPage{Title: "What is watched here, and who watches", Demo: s.o.Demo, Watched: f.Watched, Waits: f.Waits}
	if f.Stopped != nil {
		page.Stopped, page.Since = f.Stopped.Text(), f.Stopped.Since.UTC().Format("2 January 2006, 15:04")
	}
	if f.Report != nil {
		page.counts(f.Report)
	}
	for _, one := range f.Removed[:min(len(f.Removed), maxRemoved)] {
		page.Removed = append(page.Removed, publicCount{Name: one.At.UTC().Format("2 January 2006"), About: kindsText(one.Kinds), N: thousands(int64(one.Entries))})
	}
	page.Earlier = len(f.Removed) - len(page.Removed)
	for _, rule := range s.o.Pipeline.InForce() {
		originals := "not kept"
		if rule.OriginalDays > 0 {
			originals = days(rule.OriginalDays) + ", sealed"
		}
		page.Collected = append(page.Collected, publicSource{
			Source: cmp.Or(rule.Source, "any"), Dataset: cmp.Or(rule.Dataset, "any"), Assessment: event.Printable(rule.PIA) + ", version " + strconv.Itoa(rule.Version),
			Purposes: event.Printable(strings.Join(rule.Purposes, ", ")), Kept: days(rule.Retention), Originals: originals,
		})
	}
	slices.SortStableFunc(page.Collected, func(a, b publicSource) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Dataset, b.Dataset))
	})
	page.Collected = together(page.Collected)
	var buf bytes.Buffer
	if err := s.page.ExecuteTemplate(&buf, "public.html", &page); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, err = buf.WriteTo(w)
	return err
}

// together joins what one source sends under the same terms. all is in order.
func together(all []publicSource) []publicSource {
	var out []publicSource
	for _, c := range all {
		i := slices.IndexFunc(out, func(o publicSource) bool {
			o.Dataset = c.Dataset
			return o == c
		})
		switch {
		case i < 0:
			out = append(out, c)
		case !slices.Contains(strings.Split(out[i].Dataset, ", "), c.Dataset):
			out[i].Dataset += ", " + c.Dataset
		}
	}
	return out
}

// kindsText says of what kinds protected channels are that were taken off the list.
func kindsText(kinds map[string]int64) string {
	var out []string
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		text := strings.ReplaceAll(kind, "-", " ")
		if kind == admit.OtherChannel {
			text = "no kind named"
		}
		if n := kinds[kind]; n > 1 {
			text += ", " + thousands(n)
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}

func days(n int) string {
	if n == 1 {
		return "1 day"
	}
	return strconv.Itoa(n) + " days"
}

func (page *publicPage) counts(r *oversight.Report) {
	page.Report, page.Draw = true, r.DrawWrong
	page.From, page.To = r.From.Format("2 January 2006"), r.To.AddDate(0, 0, -1).Format("2 January 2006")
	page.Size = thousands(int64(r.Size))
	if r.Median >= 0 {
		page.Lag = "Half of the looks that were reviewed were reviewed within " + days(r.Median+1) + ", nine in ten within " + days(r.Slow+1) + "."
	}
	for _, t := range totals {
		f := r.Family(t[0])
		page.Totals = append(page.Totals, publicCount{t[1], t[2], countText(f.Total)})
	}
	removed := int64(0)
	for _, one := range r.Removed {
		removed += one.N
	}
	page.Totals = append(page.Totals, publicCount{"Protected channels added", "entries of the list, told to the last one", thousands(r.ChannelsAdded)},
		publicCount{"Protected channels taken off", "likewise; below stands when, and of what kind", thousands(removed)})
	for _, d := range divisions {
		f := r.Family(d[0])
		for _, p := range f.Parts {
			if p.Dim != d[1] || len(p.Rows) == 0 {
				continue
			}
			div := publicDivision{Name: d[2]}
			for _, c := range p.Rows {
				div.Rows = append(div.Rows, publicCount{Name: cmp.Or(valueWords[c.Value], c.Value), N: countText(c.N)})
			}
			if p.Rest > 0 {
				div.Rows = append(div.Rows, publicCount{Name: valueWords["*"], N: countText(p.Rest)})
			}
			page.Divisions = append(page.Divisions, div)
		}
	}
}
