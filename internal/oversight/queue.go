package oversight

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/counterseal/counterseal/internal/duty"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/policy"
	"github.com/counterseal/counterseal/internal/state"
)

// About is what the payload of a look says beside the question: who asked, with the chain
// of command and the appointing authorities of then, and whom it names. The leaf of the
// ledger holds none of it.
type About struct {
	Person      string   `json:"person"`
	Chain       []string `json:"chain,omitempty"`
	Authorities []string `json:"authorities,omitempty"`
	Named       []string `json:"named,omitempty"` // tokens, and hosts in small letters
}

// MaxNamed bounds whom a look names in its payload.
const MaxNamed = 1000

// AboutOf is what a look of somebody is about.
func AboutOf(o *policy.Offices, person string, named []string) About {
	a := About{Person: ident(person), Named: named[:min(len(named), MaxNamed)]}
	a.Chain, a.Authorities = standing(o, a.Person)
	return a
}

// standing gives the chain of command of somebody and who appointed them.
func standing(o *policy.Offices, person string) (chain, authorities []string) {
	if o == nil {
		return nil, nil
	}
	chain, _ = o.Chain(person)
	for i := range o.Offices {
		if f := &o.Offices[i]; f.Holder != "" && ident(f.Holder) == person && !slices.Contains(authorities, f.Authority) {
			authorities = append(authorities, f.Authority)
		}
	}
	slices.Sort(authorities)
	return chain, authorities
}

// ParseQuestion reads the payload of a look: the path and the query of the request, and what
// it is about. Its errors quote nothing.
func ParseQuestion(raw []byte) (path, query string, a About, err error) {
	if len(raw) > 1<<20 {
		return "", "", a, errors.New("the payload of a look is longer than 1 MiB")
	}
	var q struct {
		Path  string `json:"path"`
		Query string `json:"query"`
		Look  About  `json:"look"`
	}
	if json.Unmarshal(raw, &q) != nil {
		return "", "", a, errors.New("the payload of a look is not of its form")
	}
	q.Look.Person = ident(q.Look.Person)
	if len(q.Look.Named) > MaxNamed {
		return "", "", a, errors.New("the payload of a look names too many")
	}
	return q.Path, q.Query, q.Look, nil
}

// The classes of result sizes, by their lower ends.
var (
	rowClasses    = []int{0, 1, 10, 100, 1000, 10_000, 100_000}
	peopleClasses = []int{0, 1, 2, 8, 21, 101}
)

func classOf(classes []int, n int) int {
	i, found := slices.BinarySearch(classes, n)
	if !found {
		i--
	}
	return classes[max(i, 0)]
}

// RowClass and PeopleClass give the lower end of the class of a result size.
func RowClass(n int) int { return classOf(rowClasses, n) }

// PeopleClass gives the lower end of the class of a number of people.
func PeopleClass(n int) int { return classOf(peopleClasses, n) }

// classText writes a class, as in 8-20.
func classText(classes []int, low int) string {
	i := slices.Index(classes, low)
	switch {
	case i < 0:
		return "unknown"
	case i == len(classes)-1:
		return fmt.Sprintf("%d or more", low)
	case classes[i+1] == low+1:
		return fmt.Sprint(low)
	}
	return fmt.Sprintf("%d-%d", low, classes[i+1]-1)
}

// The marks of a look in the queue.
const (
	Repeated = "repeated" // 3 looks at one token in 14 days by one person without a case
	Crowded  = "crowded"  // 5 people looked at one token in 14 days
	OffHours = "off-hours"
	Unread   = "unread"  // its question is not kept
	Overdue  = "overdue" // a name of the night that was not reviewed in time: no other one is opened
)

// Look is a row of the queue.
type Look struct {
	ID        string
	Kind      string // People or Wide
	At        time.Time
	Actor     string
	Person    string // as the payload says; empty where it cannot be read
	Office    string
	Act       string
	Selects   string
	Case      string
	Purpose   string
	Cover     string // id of what covered it
	CoveredBy string // authorisation, grant or glass
	Rows      string // a class; "unknown" where the answer was broken off and nobody counted
	People    string
	Named     []string
	Path      string
	Query     string
	Marks     []string
	Outcome   string // empty: it waits
	Reviewed  time.Time
}

// Queue gives every look that waits for a review, the oldest first, with what is odd
// about it; with all, those that were reviewed in the last 90 days too.
func (b *Book) Queue(ctx context.Context, all bool) ([]Look, error) {
	if err := b.lock(ctx); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	looks := slices.SortedFunc(maps.Values(b.looks), func(x, y *look) int { return cmp.Compare(x.index, y.index) })
	for _, l := range looks {
		if err := b.read(l); err != nil {
			return nil, err
		}
	}
	marks := b.marks(looks)
	out := []Look{}
	for _, l := range looks {
		if l.outcome != "" && !all {
			continue
		}
		row := Look{ID: l.id, Kind: l.kind, At: l.at, Actor: l.actor, Person: l.about.Person, Office: l.office, Act: l.act, Selects: l.selects, Case: l.caseID,
			Purpose: l.purpose, Cover: l.cover, CoveredBy: l.coveredBy, Rows: "unknown", People: "unknown", Named: l.about.Named, Path: l.path, Query: l.query,
			Marks: marks[l.id], Outcome: l.outcome, Reviewed: l.reviewed}
		if l.answered {
			row.Rows, row.People = classText(rowClasses, l.rows), classText(peopleClasses, l.people)
		}
		out = append(out, row)
	}
	return out, nil
}

// read reads the payload of a look, once.
func (b *Book) read(l *look) error {
	if l.read {
		return nil
	}
	raw, err := b.o.Statements.Payload(l.question)
	switch {
	case errors.Is(err, ledger.ErrNoPayload) || l.question.H == "":
	case err != nil:
		return fmt.Errorf("reading the question of a look: %w", err)
	default:
		l.path, l.query, l.about, _ = ParseQuestion(raw) // what is not of the form is unread
	}
	l.read = true
	return nil
}

// marks says what is odd about looks. looks are in order.
func (b *Book) marks(looks []*look) map[string][]string {
	out := map[string][]string{}
	mark := func(l *look, m string) {
		if !slices.Contains(out[l.id], m) {
			out[l.id] = append(out[l.id], m)
		}
	}
	at := map[string][]*look{} // by token
	for _, l := range looks {
		if l.about.Person == "" {
			mark(l, Unread)
		}
		if l.kind == Night && l.outcome == "" && !b.now().Before(duty.Due(l.at)) {
			mark(l, Overdue)
		}
		if b.offHours(l.at) {
			mark(l, OffHours)
		}
		for _, n := range l.about.Named {
			at[n] = append(at[n], l)
		}
	}
	for _, token := range slices.Sorted(maps.Keys(at)) {
		of := at[token]
		window(of, func(in []*look) {
			people := map[string]bool{}
			alone := map[string][]*look{}
			for _, l := range in {
				people[l.actor] = true
				if l.caseID == "" {
					alone[l.actor] = append(alone[l.actor], l)
				}
			}
			if len(people) >= Many {
				for _, l := range in {
					mark(l, Crowded)
				}
			}
			for _, mine := range alone {
				if len(mine) >= Repeats {
					for _, l := range mine {
						mark(l, Repeated)
					}
				}
			}
		})
	}
	return out
}

// window gives the looks of each fortnight that ends with one of them.
func window(of []*look, fn func([]*look)) {
	from := 0
	for i, l := range of {
		for l.at.Sub(of[from].at) >= Fortnight {
			from++
		}
		fn(of[from : i+1])
	}
}

func (b *Book) offHours(at time.Time) bool {
	s := &b.o.Settings
	if s.Begin == 0 && s.End == 0 {
		return false
	}
	t := at.In(s.Zone)
	return t.Weekday() == time.Saturday || t.Weekday() == time.Sunday || t.Hour() < s.Begin || t.Hour() >= s.End
}

// Review states what an overseer found of a look. Nobody reviews their own, or that of
// their chain of command or appointing authority.
func (b *Book) Review(ctx context.Context, by policy.Person, id, outcome string) error {
	if err := b.lock(ctx); err != nil {
		return err
	}
	defer b.mu.Unlock()
	if !slices.Contains(Outcomes(), outcome) {
		return &Refusal{BadInput, "outcome is one of " + strings.Join(Outcomes(), ", "), "correct it and ask again"}
	}
	l := b.looks[id]
	if l == nil {
		return &Refusal{Unknown, "there is no look with this id", "look at the list: counterseal oversight queue"}
	}
	if err := b.read(l); err != nil {
		return err
	}
	o := b.o.Offices()
	if o == nil || !slices.ContainsFunc(o.Offices, func(f policy.Office) bool {
		return f.ID == by.Office && f.Holder != "" && ident(f.Holder) == ident(by.ID) && slices.Contains(f.Roles, "overseer")
	}) {
		return &Refusal{NotPermitted, "only the holder of an office of an overseer reviews looks", "the record of offices tells who they are"}
	}
	person := cmp.Or(l.about.Person, PersonOf(l.actor))
	chain, authorities := standing(o, person)
	chain, authorities = append(slices.Clone(l.about.Chain), chain...), append(slices.Clone(l.about.Authorities), authorities...)
	slices.Sort(authorities)
	authorities = slices.Compact(authorities)
	if len(authorities) == 0 {
		return &Refusal{NotPermitted, "nobody knows who appointed the one who looked", "the record of offices has to say so"}
	}
	for _, authority := range authorities {
		if err := b.permitted(ctx, by, "look.review", policy.Resource{ID: id, Owner: person, Chain: append([]string{}, chain...), Authority: authority}); err != nil {
			return err
		}
	}
	if l.outcome != "" {
		return &Refusal{Settled, "it was reviewed", "nothing is left to do"}
	}
	return b.state(ctx, by, "look.reviewed", id, reviewedDetail{Look: id, Kind: l.kind, Looked: stamp(l.at), Office: by.Office, Outcome: outcome})
}

// PersonOf is the person behind an actor of the ledger.
func PersonOf(actor string) string {
	if id, ok := strings.CutPrefix(actor, "account:"); ok {
		return ident(id)
	}
	if n, ok := strings.CutPrefix(actor, "os:"); ok {
		return policy.SystemUser + n
	}
	return ""
}

// Approver is how somebody decides on authorisations.
type Approver struct {
	Actor    string
	Approved int
	Refused  int
	Quick    int // of the approvals, sooner than a minute after the request
}

// Approvers counts decisions since a moment, by who made them.
func Approvers(requested, decided []state.Fact, since time.Time) []Approver {
	asked := map[string]time.Time{}
	for _, f := range requested {
		asked[f.Key] = f.Time
	}
	by := map[string]*Approver{}
	for _, f := range decided {
		if f.Time.Before(since) {
			continue
		}
		var d decidedDetail
		_ = json.Unmarshal(f.Detail, &d) // what is not of its form approved nothing
		a := by[f.Actor]
		if a == nil {
			a = &Approver{Actor: f.Actor}
			by[f.Actor] = a
		}
		if d.Decision != "approve" {
			a.Refused++
			continue
		}
		a.Approved++
		if at, ok := asked[d.Authorisation]; ok && f.Time.Sub(at) < Quick {
			a.Quick++
		}
	}
	out := []Approver{}
	for _, actor := range slices.Sorted(maps.Keys(by)) {
		out = append(out, *by[actor])
	}
	return out
}

// Approvers counts the decisions on authorisations since a moment.
func (b *Book) Approvers(ctx context.Context, since time.Time) ([]Approver, error) {
	decided, err := b.o.Statements.FactsSince(ctx, "authorisation.decided", since)
	if err != nil {
		return nil, err
	}
	// Nobody decides on what was asked for longer ago than an authorisation lasts.
	requested, err := b.o.Statements.FactsSince(ctx, "authorisation.requested", since.Add(-Kept))
	if err != nil {
		return nil, err
	}
	return Approvers(requested, decided, since), nil
}

type decidedDetail struct {
	Authorisation string `json:"authorisation"`
	Decision      string `json:"decision"`
	Inspector     bool   `json:"inspector"`
}

// Asked is why somebody asked for an authorisation.
type Asked struct {
	ID, Person, Words string
	At                time.Time
}

// Words are requests of one person that say why in the same words.
type Words struct {
	Person, Words string
	IDs           []string
}

// Verbatim finds who asked SameWords times or more in the same words. Case and spaces
// make no difference.
func Verbatim(asked []Asked) []Words {
	type key struct{ person, words string }
	by := map[key][]string{}
	for _, a := range asked {
		k := key{ident(a.Person), strings.ToLower(strings.Join(strings.Fields(a.Words), " "))}
		by[k] = append(by[k], a.ID)
	}
	out := []Words{}
	for k, ids := range by {
		if len(ids) >= SameWords && k.words != "" {
			slices.Sort(ids)
			out = append(out, Words{k.person, k.words, ids})
		}
	}
	slices.SortFunc(out, func(x, y Words) int { return cmp.Or(cmp.Compare(x.Person, y.Person), cmp.Compare(x.Words, y.Words)) })
	return out
}

// Lag is how long looks waited for their reviews in the last 90 days.
type Lag struct {
	Reviewed int
	Median   time.Duration
	Longest  time.Duration
}

// Lag measures it.
func (b *Book) Lag(ctx context.Context) (Lag, error) {
	if err := b.lock(ctx); err != nil {
		return Lag{}, err
	}
	defer b.mu.Unlock()
	var all []time.Duration
	for _, l := range b.looks {
		if l.outcome != "" {
			all = append(all, max(0, l.reviewed.Sub(l.at)))
		}
	}
	if len(all) == 0 {
		return Lag{}, nil
	}
	slices.Sort(all)
	return Lag{len(all), all[len(all)/2], all[len(all)-1]}, nil
}
