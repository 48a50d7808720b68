package access

import (
	"slices"
	"time"

	"github.com/counterseal/counterseal/internal/query"
)

// Combine says what several questions of one session or case select together: what
// each selects, and, where two may speak of the same rows, what one selects if it is
// shown beside the other: counts of a place by the minute, and people by the minute.
// Relative times are taken from now. Forms other than searches, statistics, saved
// searches and exports are joined, not crossed.
func Combine(now time.Time, o Options, questions ...Question) Verdict {
	all := judge{o: o}
	var asked []crossing
	for _, q := range questions {
		j := judge{o: o}
		j.ask(q)
		for id, who := range j.seen { // somebody named in two questions is one person
			if all.seen == nil {
				all.seen = make(map[string]Who)
			}
			all.seen[id] = who
		}
		one := j.done()
		all.v.Class |= one.Class
		all.v.Many = all.v.Many || one.Many
		all.v.Protected = all.v.Protected || one.Protected
		all.v.Cells = all.v.Cells || one.Cells
		all.v.Veil = all.v.Veil || one.Veil
		all.v.Finding = all.v.Finding || one.Finding
		all.v.Standing = all.v.Standing || one.Standing
		all.v.Who = append(all.v.Who, one.Who...)
		all.v.Reasons = append(all.v.Reasons, one.Reasons...)
		if c, ok := half(q, o); ok {
			asked = append(asked, c)
		}
	}
	for i, a := range asked {
		for _, b := range asked[i+1:] {
			if (a.contents && b.people || b.contents && a.people) && !apart(a.q, b.q, now) {
				all.reverse("", "beside another question of this session the answer would list people by what they read or visited")
			}
		}
	}
	return all.done()
}

// crossing is what a question gives to another one.
type crossing struct {
	q        *query.Query
	contents bool // it picks or shows something that was read or visited
	people   bool // it shows people, more than one
}

func half(q Question, o Options) (crossing, bool) {
	c := crossing{}
	switch q := q.(type) {
	case Search:
		c.q = q.Query
	case SavedSearch:
		c.q = q.Query
	case Statistics:
		c.q = q.Query
	case Export:
		c.q = q.Query
	case Values:
		c.q = q.Where
		if c.q == nil {
			c.q = &query.Query{}
		}
		c.people = roleOf(q.Field)&(person|device|session) != 0
		c.contents = roleOf(q.Field)&content != 0
	default:
		return c, false
	}
	if c.q == nil {
		c.q = &query.Query{}
	}
	j := judge{o: o}
	if j.single(c.q.Where) || pinsFinding(c.q.Where) {
		return c, false
	}
	j.where(c.q.Where, false, false)
	c.contents = c.contents || j.content
	show := func(field string) { c.people = c.people || roleOf(field)&(person|device|session) != 0 }
	switch {
	case c.q.Stats != nil:
		for _, f := range c.q.Stats.By {
			show(f)
			c.contents = c.contents || c.q.Stats.Bin > 0 && roleOf(f)&content != 0
		}
	case c.q.Top != nil:
		for _, f := range c.q.Top.By {
			show(f)
		}
	default:
		for _, f := range c.q.Fields {
			show(f)
			c.contents = c.contents || roleOf(f)&content != 0
		}
		if _, isValues := q.(Values); c.q.Fields == nil && !isValues {
			_, counted := q.(Statistics)
			c.people = !counted
		}
	}
	return c, true
}

// apart reports whether no row can match both questions: other classes, other
// datasets, other times.
func apart(a, b *query.Query, now time.Time) bool {
	af, at := a.Range(now)
	bf, bt := b.Range(now)
	if at.Before(bf) || bt.Before(af) {
		return true
	}
	for _, f := range [...]string{"class_uid", "dataset", "kind"} {
		x, y := fixed(a.Where, f), fixed(b.Where, f)
		if x != nil && y != nil && !slices.ContainsFunc(x, func(s string) bool { return slices.Contains(y, s) }) {
			return true
		}
	}
	return false
}

// fixed gives the values that a condition binds a field to, nil where it does not.
func fixed(e query.Expr, field string) []string {
	var of []query.Pattern
	switch e := e.(type) {
	case query.And:
		for _, x := range e.Of {
			if v := fixed(x, field); v != nil {
				return v
			}
		}
		return nil
	case query.Equal:
		if e.Field == field && !e.Differs && !e.Fold {
			of = []query.Pattern{e.Pattern}
		}
	case query.OneOf:
		if e.Field == field {
			of = e.Of
		}
	}
	var out []string
	for _, p := range of {
		t, literal := p.Text()
		if !literal {
			return nil
		}
		out = append(out, t)
	}
	return out
}
