// Package access judges a question before it runs. Selects says of every form in
// which something can be asked whom it selects: nobody, a person, or people by what
// they read, wrote, visited, printed or contacted; and whether it is aimed at a
// protected channel. Combine says the same of several questions of one session.
//
// It promises: the answer depends on the question and the Options alone, and not on
// the order, the quoting or the case of its parts; one more alternative (or) never
// makes it milder; a reason names the field and never the value; where it cannot
// tell, it takes the stricter answer. testdata/selects.tsv shows each class for each
// form, docs/selects.md is the page for privacy officers.
//
// What follows from a verdict stands here too. Named says whom a question names, and
// Confined whether a scope that covers them covers every row. Cell gives the table for
// an answer in counts, and Memory lets through the counts that give nobody away. Veil
// says which fields of a row may be shown.
//
// It leaves to others who is asking, which authorisation, grant or finding there is,
// how old the rule of that finding is, and the counting itself: a count goes through
// Memory before anybody sees it.
//
// What it does not catch, for THREAT_MODEL.md:
//   - a person without a field and without a shape: a nickname in a command line, a
//     service account that one user alone has, a rare program or printer;
//   - a narrow time or a rare event: only the count tells, see SmallCell;
//   - questions spread over sessions, people or days: Combine sees what it is given;
//   - one protected channel cut into pieces that name it only together;
//   - an account of the system among the people of a cell, and three counts or more of
//     which only all together give a small one away; Memory forgets with the process;
//   - in a rule, contact that hides behind a test of a program that is always true.
//
// It is pure: no clock, no file, no network.
package access

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/counterseal/counterseal/internal/query"
	"github.com/counterseal/counterseal/sigma"
)

// MinCell is the smallest count that an answer in counts may show.
const MinCell = 8

// The numbers of people at once above which an authorisation alone is not enough.
const (
	CounselAbove = 20
	OutsideAbove = 100
)

// SmallCell reports whether a count of people is too small to be shown. Zero is: that nobody
// visited a place is an answer about everybody.
func SmallCell(count int) bool { return count < MinCell }

// SmallStep reports whether two counts of one session may not both be shown, because
// one question narrows the other and their difference is a small cell.
func SmallStep(before, after int) bool {
	d := before - after
	if d < 0 {
		d = -d
	}
	return SmallCell(after) || SmallCell(before) || d != 0 && SmallCell(d)
}

// Class is a set: a question may select a person and be a reverse search too. Each
// member has to be satisfied.
type Class uint8

// The classes.
const (
	Nobody  Class = 0
	Person  Class = 1 << 0
	Reverse Class = 1 << 1
)

// Has reports whether all classes of o are in c.
func (c Class) Has(o Class) bool { return c&o == o }

func (c Class) String() string {
	switch c {
	case Nobody:
		return "nobody"
	case Person:
		return "person"
	case Reverse:
		return "reverse"
	}
	return "person+reverse"
}

// Who is by what a person is selected.
type Who string

// The ways to select a person.
const (
	ByToken   Who = "token" // or alias
	ByName    Who = "name"
	ByMail    Who = "mail"
	BySID     Who = "sid"
	ByPhone   Who = "phone"
	ByDevice  Who = "device"
	ByMachine Who = "machine"
	ByAddress Who = "address"
	ByHome    Who = "home"
	ByCloud   Who = "cloud"
	BySession Who = "session"
)

// Crowd is how many people a question selects at once.
type Crowd string

// The sizes of a crowd.
const (
	CrowdNone    Crowd = "none"
	CrowdFew     Crowd = "few"     // an authorisation is enough
	CrowdCounsel Crowd = "counsel" // more than CounselAbove
	CrowdOutside Crowd = "outside" // more than OutsideAbove
	CrowdMany    Crowd = "many"    // the question does not say: count before answering
)

// Reason says why, for the text of a refusal. It never holds a value.
type Reason struct {
	Field string // empty: free text, or no field
	Why   string
}

// Verdict is what a question selects.
type Verdict struct {
	Class   Class
	Who     []Who // sorted, each once
	Persons int   // different people named, at least
	Many    bool  // and an unknown number beside them
	// Protected: aimed at a protected channel. Refuse, and tell the overseer.
	Protected bool
	// Cells: the answer may show counts of MinCell or more only. A reverse search
	// without finding or authorisation is answered so. What is counted for SmallCell
	// are different people, and devices where no people are known, and not events:
	// one person may visit a place eight times.
	Cells bool
	// Veil: the rows may hold people beside what they read or visited. Without
	// finding or authorisation show people or, where the question asks for contents by
	// name, contents; never both, and beside contents no reference and no exact time.
	Veil bool
	// Finding: the question is no reverse search only because it reads findings. Look
	// whether their rules are older than the request.
	Finding bool
	// Standing: it goes on by itself. If it is not Nobody it is an authorisation.
	Standing bool
	Reasons  []Reason // sorted, each once
}

// Crowd sorts the number of people.
func (v *Verdict) Crowd() Crowd {
	switch {
	case v.Many:
		return CrowdMany
	case v.Persons > OutsideAbove:
		return CrowdOutside
	case v.Persons > CounselAbove:
		return CrowdCounsel
	case v.Persons > 0:
		return CrowdFew
	}
	return CrowdNone
}

// Free reports that a purpose is enough.
func (v *Verdict) Free() bool { return v.Class == Nobody && !v.Protected }

// Options are what only the caller knows. The functions must be pure, and may be nil.
// Protected gets text as typed, the others as admit.Fold gives it; it may be a piece
// of a value with wildcards.
type Options struct {
	// Protected reports text that names a protected channel: admit.Protected.Mentions.
	Protected func(text []byte) bool
	// Known reports text that the directory lists as a person or a personal device.
	Known func(text string) bool
	// Private reports text that names a place of private life or of opinion beyond
	// the words that Selects knows: a newspaper, a union, a messenger, a clinic.
	Private func(text string) bool
	// Shared reports an account, host or address that the registry knows to belong to
	// no single user: a server, a service account.
	Shared func(text string) bool
	// Joined gives the one token by which a case knows somebody of whom it knows several;
	// any other token as it is.
	Joined func(token string) string
}

// Question is one form of asking.
type Question interface{ question() }

// Search asks for events, or for the table that its query says.
type Search struct{ Query *query.Query }

// Statistics asks for counts of what the query matches: facets, charts, totals. A
// query without stats or top counts.
type Statistics struct{ Query *query.Query }

// Values asks which values a field has, for completion. A facet, which counts, is a
// Statistics.
type Values struct {
	Field  string
	Prefix string
	Where  *query.Query // nil: all
}

// Rule is a detection rule or a filter.
type Rule struct {
	Rule *sigma.Rule
	// Published says that the rule is, byte for byte, one that its publisher wrote for
	// everybody. Then contact alone is what malice looks like and no reverse search,
	// unless it names a place of private life.
	Published bool
	// Alone says that one person brings the rule and nobody else has read it. Then a test of
	// a program beside contact excuses nothing: it may be true always.
	Alone bool
}

// List is a named list that rules or questions use.
type List struct {
	Field  string // whose values they are; empty: their shape decides
	Values []string
}

// Indicator is one thing to look out for.
type Indicator struct {
	Field string // OCSF field or STIX type, such as domain-name; empty: its shape decides
	Value string
}

// Suppression keeps findings of what it matches from being shown.
type Suppression struct{ Query *query.Query }

// SavedSearch is a search that runs by itself or is kept for others.
type SavedSearch struct{ Query *query.Query }

// Hold keeps evidence from being destroyed.
type Hold struct {
	Query  *query.Query // nil: none
	Tokens []string
}

// PeerGroup is who is compared with whom.
type PeerGroup struct {
	By      []string // fields that make the group
	Members []string // named members
	Query   *query.Query
}

// DirectoryChange changes whom a name means.
type DirectoryChange struct {
	Whole    bool // the feed of the whole organisation
	Subjects []string
}

// Export takes an answer out of the system.
type Export struct {
	Query *query.Query
	// People says that the records which it takes along name somebody, as whoever has
	// looked knows: they go along whole, and with the tokens of all in them.
	People bool
}

func (Search) question()          {}
func (Statistics) question()      {}
func (Values) question()          {}
func (Rule) question()            {}
func (List) question()            {}
func (Indicator) question()       {}
func (Suppression) question()     {}
func (SavedSearch) question()     {}
func (Hold) question()            {}
func (PeerGroup) question()       {}
func (DirectoryChange) question() {}
func (Export) question()          {}

// answer is what comes back for a condition.
type answer uint8

const (
	rows   answer = iota
	counts        // a table or a number
	none          // nothing is listed: a suppression, a hold
)

// Selects says whom a question selects.
func Selects(q Question, o Options) Verdict {
	j := judge{o: o}
	j.ask(q)
	return j.done()
}

func (j *judge) ask(q Question) {
	switch q := q.(type) {
	case Search:
		j.query(q.Query, rows)
		j.beside(q.Query)
	case SavedSearch:
		j.v.Standing = true
		j.query(q.Query, rows)
		j.beside(q.Query)
	case Statistics:
		j.query(q.Query, counts)
	case Export:
		j.query(q.Query, rows)
		if j.v.Veil {
			j.v.Veil = false
			j.reverse("", "the export holds people beside what they read or visited")
		}
		if q.People {
			j.reverse("", "the records of the export name people")
		}
	case Suppression:
		j.v.Standing = true
		j.query(q.Query, none)
	case Hold:
		j.v.Standing = true
		if q.Query != nil {
			j.query(q.Query, none)
		}
		for _, t := range q.Tokens {
			j.named("hold", t)
		}
	case Values:
		j.values(q)
	case Rule:
		j.v.Standing = true
		j.rule(q)
	case List:
		j.v.Standing = true
		for _, s := range q.Values {
			j.item(q.Field, s)
		}
	case Indicator:
		j.v.Standing = true
		j.item(q.Field, q.Value)
	case PeerGroup:
		j.peers(q)
	case DirectoryChange:
		if !q.Whole {
			for _, s := range q.Subjects {
				j.named("directory", s)
			}
		}
	default:
		j.person("", ByName, "", "the form of the question is not known")
		j.v.Many = true
	}
}

// judge gathers what one question selects.
type judge struct {
	o       Options
	v       Verdict
	seen    map[string]Who // people, by key
	content bool           // a condition reads contents, unexcused
	field   string         // the first such field, by name
}

func (j *judge) done() Verdict {
	slices.Sort(j.v.Who)
	j.v.Who = slices.Compact(j.v.Who)
	slices.SortFunc(j.v.Reasons, func(a, b Reason) int {
		if c := strings.Compare(a.Field, b.Field); c != 0 {
			return c
		}
		return strings.Compare(a.Why, b.Why)
	})
	j.v.Reasons = slices.Compact(j.v.Reasons)
	j.v.Persons = len(j.seen)
	if j.v.Class.Has(Reverse) {
		j.v.Cells, j.v.Veil, j.v.Many = true, false, true
	}
	return j.v
}

func (j *judge) because(field, why string) {
	if r := (Reason{shown(field), why}); !slices.Contains(j.v.Reasons, r) {
		j.v.Reasons = append(j.v.Reasons, r)
	}
}

// shown keeps a field whose name holds an identity out of reasons: JSON keyed by user.
func shown(field string) string {
	if _, found := shape(fold(field)); found {
		return "(a field whose name is somebody)"
	}
	return field
}

func (j *judge) person(field string, who Who, id, why string) {
	j.v.Class |= Person
	if !slices.Contains(j.v.Who, who) {
		j.v.Who = append(j.v.Who, who)
	}
	if id != "" {
		if j.seen == nil {
			j.seen = make(map[string]Who)
		}
		if old, ok := j.seen[id]; !ok || before(who, old) {
			j.seen[id] = who
		}
	}
	j.because(field, why)
}

func (j *judge) reverse(field, why string) {
	j.v.Class |= Reverse
	j.because(field, why)
}

func (j *judge) contents(field string) {
	if !j.content || field < j.field {
		j.field = field
	}
	j.content = true
}

// query judges a parsed question by the form of its answer.
func (j *judge) query(q *query.Query, as answer) {
	if q == nil {
		q = &query.Query{}
	}
	m := j.measure(q.Where)
	one, found := m.bound == 1, m.finding
	j.part(q.Where, m, one, found)
	for _, n := range q.Names() {
		j.nameOf(n)
	}
	if as == none {
		return
	}
	table := q.IsTable()
	var by []string
	shows := role(0)
	both := false // people and contents together
	veil := false // perhaps
	switch {
	case table:
		people, things := role(0), role(0)
		if q.Stats != nil {
			by = q.Stats.By
			for _, f := range q.Stats.Funcs {
				switch f.Name {
				case "min", "max":
					by = append(slices.Clone(by), f.Field)
				case "count_uniq", "sum", "avg":
					if r := roleOf(f.Field); r&content != 0 {
						things |= content
					}
				}
			}
		} else {
			by = q.Top.By
		}
		for i, f := range by {
			r := roleOf(f)
			if r == unknown && !plainClass(q.Where) { // it may hold contents, and beside another such field a person too
				things |= content
				if slices.ContainsFunc(by[:i], func(g string) bool { return g != f && roleOf(g) == unknown }) {
					people |= unknown
				}
				shows |= unknown
				continue
			}
			people |= r & peopled
			things |= r & content
		}
		shows |= people | things
		both = people != 0 && things != 0
		if things != 0 {
			j.v.Cells = true
		}
	case as == counts:
		by = nil
	default:
		by = q.Fields
		shows, veil = peopled|content, true
		if q.Fields != nil {
			shows = 0
			for _, f := range q.Fields {
				shows |= roleOf(f)
			}
			both = shows&peopled != 0 && shows&content != 0
			veil = shows&unknown != 0 // its reference leads to people
			shows |= person           // the reference of a row leads to its people
		}
		for _, k := range q.Sort {
			if roleOf(k.Field)&(content|unknown) != 0 && !one && !found {
				j.reverse(k.Field, "the order of the rows tells who read or visited what")
			}
		}
	}
	if j.content {
		if shows&peopled != 0 {
			j.reverse(j.field, "the answer would list people by what they read, wrote, visited, printed or contacted")
		} else {
			j.v.Cells = true
			j.because(j.field, "what people read or visited is shown in counts of 8 or more only")
		}
	}
	switch {
	case one:
	case found:
		j.v.Finding = true
	case both:
		for _, f := range by {
			if roleOf(f)&content != 0 {
				j.reverse(f, "the answer would show people beside what they read or visited")
			}
		}
		if j.v.Class&Reverse == 0 { // contents are only computed
			j.reverse("", "the answer would count for each person what they read or visited")
		}
	case veil && !plainClass(q.Where):
		j.v.Veil = true
	}
}

// beside veils rows that show contents alone: their references lead to people. An
// export has no references to follow.
func (j *judge) beside(q *query.Query) {
	if q == nil || q.IsTable() || j.single(q.Where) || pinsFinding(q.Where) {
		return
	}
	for _, f := range q.Fields {
		j.v.Veil = j.v.Veil || roleOf(f)&content != 0
	}
}

// where judges a condition. one: the rows are those of one person. found: they are
// findings.
func (j *judge) where(e query.Expr, one, found bool) { j.part(e, j.measure(e), one, found) }

// measured says of a condition and its parts what they are bound to: once for each, so
// that the time for a question grows with its length and not with its depth.
type measured struct {
	bound   int
	finding bool
	parts   []measured
}

func (j *judge) measure(e query.Expr) (m measured) {
	switch e := e.(type) {
	case query.And:
		m.parts = make([]measured, 0, len(e.Of))
		for _, x := range e.Of {
			p := j.measure(x)
			if p.bound > 0 && (m.bound == 0 || p.bound < m.bound) {
				m.bound = p.bound
			}
			m.finding = m.finding || p.finding
			m.parts = append(m.parts, p)
		}
	case query.Or:
		all := true
		m.finding = true
		m.parts = make([]measured, 0, len(e.Of))
		for _, x := range e.Of {
			p := j.measure(x)
			all = all && p.bound > 0
			m.bound += p.bound
			m.finding = m.finding && p.finding
			m.parts = append(m.parts, p)
		}
		if !all {
			m.bound = 0
		}
	case query.Not:
		m.parts = []measured{j.measure(e.Of)}
	default:
		m.bound, m.finding = j.bound(e), pinsFinding(e)
	}
	return m
}

func (j *judge) part(e query.Expr, m measured, one, found bool) {
	switch e := e.(type) {
	case nil:
	case query.And:
		for i, x := range e.Of {
			j.part(x, m.parts[i], one || m.bound == 1, found || m.finding)
		}
	case query.Or:
		for i, x := range e.Of {
			j.part(x, m.parts[i], one || m.parts[i].bound == 1, found || m.parts[i].finding)
		}
	case query.Not:
		j.part(e.Of, m.parts[0], one, found)
	case query.Equal:
		j.test(e.Field, text(e.Pattern), one, found)
	case query.OneOf:
		for _, p := range e.Of {
			j.test(e.Field, text(p), one, found)
		}
	case query.Phrase:
		s := plainGap(e.Text)
		if e.Prefix {
			s += string(gap)
		}
		j.test(e.Field, s, one, found)
	case query.Number:
		j.numbers(e.Field, e.Op == "=", one, found)
	case query.Between:
		j.numbers(e.Field, e.Low == e.High, one, found)
	case query.Network:
		j.network(e.Field, e.Prefix, one, found)
	}
}

// test judges one value of one field. In s a gap stands for each wildcard.
func (j *judge) test(field, s string, one, found bool) {
	if r := j.value(field, s); r && !one {
		if found {
			j.v.Finding = true
			return
		}
		j.contents(field)
	}
}

// value judges what a value names, and reports whether it is about contents.
func (j *judge) value(field, s string) (about bool) {
	r := roleOf(field)
	exact := strings.IndexByte(s, gap) < 0
	f := fold(s)
	if strings.Trim(s, string(gap)) == "" {
		// No value at all, or any: presence. A pattern of some ? has a length.
		return false
	}
	if j.protected(s) {
		j.v.Protected = true
		j.because(field, "aimed at a protected channel")
	}
	hits, shaped := shape(f)
	if shaped {
		j.hits(field, hits)
	}
	if !shaped && j.o.Known != nil {
		for p := range strings.SplitSeq(f, string(gap)) {
			if p != "" && j.o.Known(p) {
				shaped = true
				j.person(field, ByName, "n:"+p, "names somebody of the directory")
			}
		}
	}
	shared := exact && (wellKnown(f) || j.o.Shared != nil && j.o.Shared(f))
	switch {
	case r&(person|device|session) == 0 || shaped || shared:
	case !exact && !letters(f) || !exact && wellKnownPart(f) || strings.HasPrefix(f, string(gap)+"@"): // a whole domain
	default:
		who, why := ByName, "names an account"
		switch {
		case r&session != 0:
			who, why = BySession, "names the session of one user"
		case strings.HasSuffix(f, "$"):
			who, why = ByMachine, "names a machine account"
		case r&device != 0:
			who, why = ByDevice, "names a device or a host"
			if a, err := netip.ParseAddr(strings.Trim(f, "[]")); err == nil {
				f = a.Unmap().String()
				who, why = ByAddress, "names one address"
				if outward(r, a) {
					return true
				}
			} else if r&content != 0 && strings.Contains(f, ".") && !internalName(f) {
				return true // a destination outside
			}
		}
		id := "n:" + f
		if !exact {
			id, why = "", "names accounts or devices by a part of their name"
			j.v.Many = true
		}
		j.person(field, who, id, why)
	}
	switch {
	case shared && r&device != 0:
		return r&content != 0 && j.private(f)
	case r&(content|unknown) != 0:
		return !plainValue(f) || r&content != 0 && number(f) // an article has a number
	case r&prose != 0:
		return j.private(f)
	}
	return false
}

func (j *judge) hits(field string, hits []hit) {
	for _, h := range hits {
		if h.part {
			j.v.Many = true
			j.person(field, h.who, "", "names people by a part of an identity ("+string(h.who)+")")
			continue
		}
		if h.who == ByHome && wellKnown(h.id) {
			continue
		}
		if h.who == ByToken && j.o.Joined != nil {
			h.id = j.o.Joined(h.id)
		}
		j.person(field, h.who, h.key(), "names one user ("+string(h.who)+")")
	}
}

func (j *judge) numbers(field string, exact, one, found bool) {
	switch r := roleOf(field); {
	case r&(person|device|session) != 0:
		j.person(field, ByName, "", "selects accounts by a range of numbers")
		j.v.Many = true
	case r&content != 0 && !one && !found:
		j.contents(field)
	}
}

func (j *judge) network(field string, p netip.Prefix, one, found bool) {
	r := roleOf(field)
	a := p.Masked().Addr()
	narrow := p.Bits() > a.BitLen()-8
	if j.protected(p.String()) || j.protected(a.String()) {
		j.v.Protected = true
		j.because(field, "aimed at a protected channel")
	}
	if outward(r, a) {
		if p.Bits() > 0 && !one && !found {
			j.contents(field)
		}
		return
	}
	if a.IsLoopback() || a.IsUnspecified() {
		return
	}
	if narrow && r&(device|person) != 0 && (j.o.Shared == nil || !j.o.Shared(p.String())) {
		if p.Bits() == a.BitLen() {
			j.person(field, ByAddress, "n:"+a.String(), "names one address")
			return
		}
		j.person(field, ByAddress, "", "names a few addresses")
		j.v.Many = true
	}
}

// nameOf judges the name of a field: JSON may be keyed by user.
func (j *judge) nameOf(field string) {
	if hits, found := shape(fold(field)); found {
		j.hits(field, hits)
	}
}

// named is a person by the form itself: the subject of a hold or of a directory.
func (j *judge) named(field, s string) {
	if strings.TrimSpace(s) == "" {
		return
	}
	if j.protected(s) {
		j.v.Protected = true
		j.because(field, "aimed at a protected channel")
	}
	if hits, found := shape(fold(stars(s))); found {
		j.hits(field, hits)
		return
	}
	if strings.ContainsAny(s, "*?") {
		j.v.Many = true
		j.person(field, ByName, "", "names people by a part of an identity (name)")
		return
	}
	j.person(field, ByName, "n:"+fold(s), "names one user (name)")
}

// item is a member of a list, or an indicator.
func (j *judge) item(field, s string) {
	field = stix(field)
	s = stars(s)
	f := fold(s)
	if field != "" {
		j.nameOf(field)
		if p, err := netip.ParsePrefix(f); err == nil {
			j.network(field, p, true, false)
			return
		}
		if j.value(field, s) && j.private(f) {
			j.reverse(field, "would list people by a place of private life or of opinion")
		}
		return
	}
	if j.value("list", s) && j.private(f) {
		j.reverse(field, "would list people by a place of private life or of opinion")
	}
	if _, shaped := shape(f); shaped {
		return
	}
	if a, err := netip.ParseAddr(f); err == nil {
		if !outward(content, a) {
			j.person("", ByAddress, "n:"+a.Unmap().String(), "names one address")
		}
		return
	}
	if _, err := netip.ParsePrefix(f); err == nil || notAName(f) || wellKnown(f) {
		return
	}
	id := "n:" + f
	if strings.IndexByte(f, gap) >= 0 {
		id, j.v.Many = "", true
	}
	if strings.HasSuffix(f, "$") {
		j.person("", ByMachine, id, "names a machine account")
		return
	}
	j.person("", ByName, id, "may be the name of an account: say which field the list is for")
}

// values judges completion and facets: the values of a field are the answer.
func (j *judge) values(q Values) {
	w := query.Query{}
	if q.Where != nil {
		w.Where = q.Where.Where
	}
	j.nameOf(q.Field)
	m := j.measure(w.Where)
	one, found := m.bound == 1, m.finding
	j.part(w.Where, m, one, found)
	r := roleOf(q.Field)
	if q.Prefix != "" {
		if j.value(q.Field, plainGap(q.Prefix)+string(gap)) && !one {
			j.v.Cells = true
		}
	}
	if r&(person|device|session) != 0 && !one {
		j.person(q.Field, ByName, "", "lists the people or devices that there are")
		j.v.Many = true
	}
	if r&(content|unknown|prose) != 0 {
		j.v.Cells = true
	}
	switch {
	case one || !j.content && !(r&peopled != 0 && r&content != 0):
	case r&peopled != 0:
		j.reverse(q.Field, "the values would list people by what they read, wrote, visited, printed or contacted")
	default:
		j.v.Cells = true
	}
}

func (j *judge) peers(q PeerGroup) {
	for _, m := range q.Members {
		j.named("members", m)
	}
	for _, f := range q.By {
		j.nameOf(f)
		if roleOf(f)&(person|session|device) != 0 {
			j.v.Many = true
			j.person(f, ByName, "", "makes a group of each person")
		}
		if roleOf(f)&content != 0 {
			j.reverse(f, "groups people by what they read, wrote, visited, printed or contacted")
		}
	}
	if q.Query != nil {
		j.where(q.Query.Where, false, false)
		if j.content {
			j.reverse(j.field, "groups people by what they read, wrote, visited, printed or contacted")
		}
	}
}

func (j *judge) protected(s string) bool {
	if j.o.Protected == nil {
		return false
	}
	if strings.IndexByte(s, gap) < 0 {
		return j.o.Protected([]byte(s))
	}
	// A wildcard may hide a dot, or nothing.
	for _, with := range [...]string{" ", ".", ""} {
		if j.o.Protected([]byte(strings.ReplaceAll(s, string(gap), with))) {
			return true
		}
	}
	return false
}

// known asks for the text and for what stands between its wildcards.
func known(fn func(string) bool, s string) bool {
	for p := range strings.SplitSeq(s, string(gap)) {
		if p != "" && fn(p) {
			return true
		}
	}
	return false
}

func (j *judge) private(folded string) bool {
	return privateWord(folded) || j.o.Private != nil && known(j.o.Private, folded)
}

// single reports whether every row of a condition belongs to one named person: then
// it asks what that person did, and not who did something.
func (j *judge) single(e query.Expr) bool { return j.measure(e).bound == 1 }

// bound gives how many people a test is bound to, 0 where it is not.
func (j *judge) bound(e query.Expr) int {
	switch e := e.(type) {
	case query.Equal:
		if !e.Differs {
			return j.pins(e.Field, e.Pattern)
		}
	case query.OneOf:
		sum := 0
		for _, p := range e.Of {
			n := j.pins(e.Field, p)
			if n == 0 {
				return 0
			}
			if sum += n; sum > 1 { // more is not one, however many
				return sum
			}
		}
		return sum
	}
	return 0
}

// pins reports whether one value of a field is one person. What selects nobody, such
// as a server that many use, pins nobody either.
func (j *judge) pins(field string, p query.Pattern) int {
	t, literal := p.Text()
	if r := roleOf(field); !literal || r&(person|device|session) == 0 || r&content != 0 {
		return 0
	}
	own := judge{o: Options{Known: j.o.Known, Shared: j.o.Shared, Joined: j.o.Joined}}
	own.value(field, plainGap(t))
	if len(own.seen) == 1 && !own.v.Many {
		return 1
	}
	return 0
}

// pinsFinding reports whether a condition matches rows of findings only.
func pinsFinding(e query.Expr) bool {
	switch e := e.(type) {
	case query.And:
		return slices.ContainsFunc(e.Of, pinsFinding)
	case query.Or:
		return !slices.ContainsFunc(e.Of, func(x query.Expr) bool { return !pinsFinding(x) })
	case query.Equal:
		t, literal := e.Pattern.Text()
		return literal && !e.Differs && (e.Field == "kind" && t == "finding" || t != "" && (e.Field == "finding.id" || e.Field == "rule.id"))
	}
	return false
}

// plainClass reports whether a condition matches only classes of events that hold no
// contents: processes, logons, accounts, the registry.
func plainClass(e query.Expr) bool {
	switch e := e.(type) {
	case query.And:
		return slices.ContainsFunc(e.Of, plainClass)
	case query.Or:
		return !slices.ContainsFunc(e.Of, func(x query.Expr) bool { return !plainClass(x) })
	case query.Equal:
		t, literal := e.Pattern.Text()
		return literal && !e.Differs && e.Field == "class_uid" && slices.Contains(plainClasses[:], t)
	case query.OneOf:
		for _, p := range e.Of {
			if !plainClass(query.Equal{Field: e.Field, Pattern: p}) {
				return false
			}
		}
		return true
	}
	return false
}

var plainClasses = [...]string{"1002", "1005", "1006", "1007", "3001", "3002", "3003", "3005", "3006", "201001", "201002", "201004"}

// text writes a pattern with a gap for each wildcard.
func text(p query.Pattern) string {
	if t, literal := p.Text(); literal {
		return plainGap(t)
	}
	var b strings.Builder
	for _, part := range p.Parts {
		if part.Wild != 0 {
			b.WriteByte(gap)
			continue
		}
		b.WriteString(plainGap(part.Text))
	}
	return b.String()
}

// plainGap keeps the byte of a gap for wildcards.
func plainGap(s string) string { return strings.ReplaceAll(s, string(gap), " ") }

// stars writes * and ? of a list as gaps.
func stars(s string) string {
	s = plainGap(s)
	if !strings.ContainsAny(s, "*?") {
		return s
	}
	return strings.NewReplacer("*", string(gap), "?", string(gap)).Replace(s)
}
