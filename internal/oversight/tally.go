package oversight

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/counterseal/counterseal/internal/broker"
	"github.com/counterseal/counterseal/internal/ledger"
)

// How much a Tally keeps.
const (
	maxValues  = 1000    // of one dimension; what comes later is one value
	maxPending = 200_000 // requests for an authorisation of the last 90 days
	beyond     = "more"  // that value
)

// Tally counts the statements of a period. It is given each statement of the ledger in
// order, keeps counts alone, and takes the same time for each.
type Tally struct {
	from, to  time.Time
	families  map[string]*family
	asked     map[string]asking // for an authorisation, until it is too old to be decided
	lag       lags
	drawWrong bool
	silent    *Silence          // at the end of the period
	added     int64             // protected channels
	removed   map[Removed]int64 // likewise, by day and kind; N is 0 in the key
	next      uint64
}

// asking is when an authorisation was asked for, and whether by an inspector's office.
type asking struct {
	at     time.Time
	inside bool
}

type family struct {
	total int64
	dims  map[string]map[string]int64
}

// lags counts reviews by how many whole days the looks had waited.
type lags struct {
	total int64
	days  [Days]int64 // the last one: that or more
}

// Days is where the report ends to tell lags apart.
const Days = 92

// NewTally begins to count from a moment up to, and without, another.
func NewTally(from, to time.Time) *Tally {
	return &Tally{from: from, to: to, families: map[string]*family{}, asked: map[string]asking{}, removed: map[Removed]int64{}}
}

// tallied are the kinds that a Tally looks into, without a statement before the period.
// What an inspector's office did is counted under insides, and nowhere else.
var tallied = map[string]string{
	"grant.opened": "grants", "glass.broken": "glasses", "hold.placed": "holds-placed", "name.approved": "names-asked",
	"hold.released": "holds-released", "destruction.done": "destructions", "package.made": "packages", "containment.ordered": "containments", "question.reported": "reported",
	"notice.postponed": "notices-postponed", "complaint.received": "complaints", "complaint.closed": "complaints-closed",
}

// insides are the families of what inspectors' offices did, by that of the organisation.
var insides = map[string]string{
	"requests": "inspector-requests", "decisions": "inspector-decisions", "holds-placed": "inspector-holds", "holds-released": "inspector-releases", "names-opened": "inspector-names",
}

// whose gives the family of a statement whose detail says that it is an inspector's.
func whose(name string, inspector bool) string {
	if inspector {
		return cmp.Or(insides[name], name)
	}
	return name
}

// Add counts a statement.
func (t *Tally) Add(index uint64, s ledger.Statement) {
	t.next = index + 1
	if !s.Time.Before(t.to) { // the clock may step back, so what follows is still looked at
		return
	}
	within := !s.Time.Before(t.from)
	switch s.Kind {
	case "request.served":
		if within {
			t.served(&s)
		}
	case "look.reviewed":
		t.reviewed(&s)
	case "request.refused":
		if within {
			var d struct {
				Office string `json:"office"`
				Rule   string `json:"rule"`
			}
			_ = json.Unmarshal(s.Detail, &d) // what it does not say is unnamed
			rule, _, _ := strings.Cut(d.Rule, " ")
			t.count("refused", "rule", rule, "office", d.Office)
		}
	case "authorisation.requested":
		var d decidedDetail
		_ = json.Unmarshal(s.Detail, &d) // what it does not say is the organisation's
		if len(s.Subject) > 0 {
			t.remember(s.Subject[0], asking{s.Time, d.Inspector})
		}
		if within {
			t.count(whose("requests", d.Inspector))
		}
	case "authorisation.decided":
		if within {
			var d decidedDetail
			_ = json.Unmarshal(s.Detail, &d)
			speed := "a-minute-or-more"
			if a, ok := t.asked[d.Authorisation]; ok && s.Time.Sub(a.at) < Quick {
				speed = "under-60-seconds"
			}
			t.count(whose("decisions", d.Inspector), "decision", d.Decision, "speed", speed)
		}
	case "authorisation.ended":
		var d struct {
			Authorisation string `json:"authorisation"`
			Reason        string `json:"reason"`
		}
		_ = json.Unmarshal(s.Detail, &d)
		if within && !t.asked[d.Authorisation].inside {
			t.count("ended", "reason", d.Reason)
		}
	case "channels.approved":
		if within {
			t.channels(&s)
		}
	case "unmask.approved", "duty.asked": // what was let be opened
		if within {
			var d struct {
				Inspector bool `json:"inspector"`
			}
			_ = json.Unmarshal(s.Detail, &d)
			t.count(whose("names-opened", d.Inspector), "way", map[bool]string{true: "at-night", false: "two-officers"}[s.Kind == "duty.asked"])
		}
	case "oversight.silent":
		var d silentDetail
		_ = json.Unmarshal(s.Detail, &d)
		t.silent = &Silence{cmp.Or(d.Reason, Unheard), timeOr(d.Since, s.Time)}
	case "oversight.back":
		t.silent = nil
	default:
		name := tallied[s.Kind]
		if name == "" || !within {
			return
		}
		var d struct {
			Reason    string `json:"reason"`
			Outcome   string `json:"outcome"`
			Act       string `json:"act"`
			Inspector bool   `json:"inspector"`
		}
		_ = json.Unmarshal(s.Detail, &d)
		switch {
		case name == "reported":
			t.count(name, "reason", d.Reason)
			return
		case name == "complaints-closed":
			t.count(name, "outcome", d.Outcome)
			return
		case name == "containments" && d.Act == broker.Notify: // it contains nobody
			name = "notices"
		}
		t.count(whose(name, d.Inspector))
	}
}

// served counts a question about events.
func (t *Tally) served(s *ledger.Statement) {
	var d servedDetail
	switch {
	case json.Unmarshal(s.Detail, &d) != nil:
		return
	case d.Look == Inspecting: // what it selects is told nobody
		t.count("inspector-looks")
		return
	case d.Selects == "":
		return // it asked for no events
	}
	switch d.Look {
	case People:
		t.count("looks", "act", d.Act, "class", d.Selects, "office", d.Office, "cover", d.CoveredBy)
	case Wide:
		drawn := len(s.Subject) > 0
		t.drawWrong = t.drawWrong || drawn != Drawn(s.ID)
		t.count("wide", "act", d.Act, "office", d.Office)
	default:
		if d.Selects == "nobody" {
			t.count("free", "act", d.Act, "office", d.Office)
		}
	}
}

// reviewed counts a review by when the look was. A review after the period is not known
// to a report about it, so that the report says the same whenever it is made.
func (t *Tally) reviewed(s *ledger.Statement) {
	var d reviewedDetail
	if json.Unmarshal(s.Detail, &d) != nil || d.Kind != People {
		return
	}
	at, err := time.Parse(stampForm, d.Looked)
	if err != nil || at.Before(t.from.Truncate(time.Second)) || !at.Before(t.to) {
		return
	}
	t.family("looks").add("review", d.Outcome)
	t.lag.total++
	t.lag.days[min(max(int(s.Time.Sub(at)/(24*time.Hour)), 0), Days-1)]++
}

func (t *Tally) family(name string) *family {
	f := t.families[name]
	if f == nil {
		f = &family{dims: map[string]map[string]int64{}}
		t.families[name] = f
	}
	return f
}

func (t *Tally) count(name string, pairs ...string) {
	f := t.family(name)
	f.total++
	for i := 0; i < len(pairs); i += 2 {
		f.add(pairs[i], pairs[i+1])
	}
}

func (f *family) add(dim, value string) {
	if f.dims[dim] == nil {
		f.dims[dim] = map[string]int64{}
	}
	switch values := f.dims[dim]; {
	case !isValue(value):
		value = "unnamed"
		fallthrough
	default:
		if _, ok := values[value]; !ok && len(values) >= maxValues {
			value = beyond
		}
		values[value]++
	}
}

// isValue takes what one line of the report can hold.
func isValue(s string) bool {
	return s != "" && s != merged && len(s) <= 128 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// remember keeps when an authorisation was asked for, as long as it can be decided.
func (t *Tally) remember(id string, a asking) {
	if len(t.asked) >= maxPending {
		maps.DeleteFunc(t.asked, func(_ string, was asking) bool { return a.at.Sub(was.at) > Kept })
	}
	if len(t.asked) < maxPending {
		t.asked[id] = a
	}
}

// percentile gives the whole days after which a share of the reviewed looks was reviewed.
func (l *lags) percentile(share float64) int {
	need, sum := int64(share*float64(l.total)+0.5), int64(0)
	for day, n := range l.days {
		if sum += n; sum >= max(need, 1) {
			return day
		}
	}
	return Days - 1
}

// names are the families of a report, in its order, with the dimensions that each may be
// told by: in public, and to those inside.
var names = []struct {
	name           string
	public, inside []string
}{
	{"looks", []string{"act", "class", "cover", "review"}, []string{"office"}},
	{"wide", []string{"act"}, []string{"office"}},
	{"inspector-looks", nil, nil},
	{"inspector-requests", nil, nil},
	{"inspector-decisions", []string{"decision"}, nil},
	{"inspector-names", nil, nil},
	{"inspector-holds", nil, nil},
	{"inspector-releases", nil, nil},
	{"free", []string{"act"}, []string{"office"}},
	{"refused", nil, []string{"rule", "office"}},
	{"requests", nil, nil},
	{"decisions", []string{"decision", "speed"}, nil},
	{"ended", []string{"reason"}, nil},
	{"grants", nil, nil},
	{"glasses", nil, nil},
	{"names-opened", []string{"way"}, nil},
	{"holds-placed", nil, nil},
	{"holds-released", nil, nil},
	{"destructions", nil, nil},
	{"packages", nil, nil},
	{"containments", nil, nil},
	{"reported", nil, []string{"reason"}},
	{"notices", nil, nil},
	{"notices-postponed", nil, nil},
	{"complaints", nil, nil},
	{"complaints-closed", []string{"outcome"}, nil},
	{"names-asked", nil, nil},
}

// Report gives what may be told of the counts. The caller fills in of which log.
func (t *Tally) Report(audience string) *Report {
	r := &Report{Audience: audience, From: t.from, To: t.to, Stopped: t.silent, DrawWrong: t.drawWrong, Median: -1, Slow: -1}
	for _, n := range names {
		f := t.families[n.name]
		if f == nil {
			f = &family{}
		}
		dims := slices.Clone(n.public)
		if audience == Internal {
			dims = append(dims, n.inside...)
		}
		r.Families = append(r.Families, f.shown(n.name, dims))
	}
	r.ChannelsAdded = t.added
	for k, n := range t.removed {
		k.N = n
		r.Removed = append(r.Removed, k)
	}
	slices.SortFunc(r.Removed, Removed.order)
	if t.lag.total >= MinCount {
		r.Median, r.Slow = t.lag.percentile(0.5), t.lag.percentile(0.9)
	}
	return r
}

// shown is what may be told of a family.
func (f *family) shown(name string, dims []string) Family {
	out := Family{Name: name, Total: f.total}
	if f.total < MinCount {
		if f.total > 0 {
			out.Total = Few
		}
		return out
	}
	for _, dim := range dims {
		cells := maps.Clone(f.dims[dim])
		if cells == nil {
			cells = map[string]int64{}
		}
		sum := int64(0)
		for _, n := range cells {
			sum += n
		}
		if dim == "review" && sum < f.total {
			cells["waiting"] += f.total - sum
			sum = f.total
		}
		if sum != f.total {
			continue // a review without its look: the sums would tell it
		}
		out.Parts = append(out.Parts, part(dim, cells))
	}
	return out
}

// part hides what is small of one division of a family: every count below MinCount, and
// then the smallest others, all of one size together, until what is hidden are two values
// or more, at least twice MinCount, and not as much as so many values of 7 are. So nobody can take the rest apart, not even with
// this text at hand: TestNothingSmall tries every table.
func part(dim string, cells map[string]int64) Part {
	p := Part{Dim: dim}
	hidden, rest := 0, int64(0)
	left := map[string]int64{}
	for value, n := range cells {
		switch {
		case n == 0:
		case n < MinCount:
			hidden++
			rest += n
		default:
			left[value] = n
		}
	}
	for hidden > 0 && (hidden < 2 || rest < 2*MinCount || rest == int64(hidden)*(MinCount-1)) && len(left) > 0 {
		least := slices.Min(slices.Collect(maps.Values(left)))
		for value, n := range left {
			if n == least {
				hidden++
				rest += n
				delete(left, value)
			}
		}
	}
	for _, value := range slices.Sorted(maps.Keys(left)) {
		p.Rows = append(p.Rows, Count{value, left[value]})
	}
	slices.SortStableFunc(p.Rows, func(a, b Count) int { return cmp.Compare(b.N, a.N) })
	p.Rest = rest
	return p
}
