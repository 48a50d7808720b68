package access

import (
	"slices"
	"strings"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/query"
)

// Identity is somebody as a question names them.
type Identity struct {
	Who Who
	// Value is the token or alias in lower case, else the folded text: a name, a mail
	// address, a SID, a telephone number, a host, an address, a session.
	Value string
}

// Key is the same for an identity by whatever field it is named: a host is the same as
// a device field and in a path, an account as a name and as a home folder. Compare
// keys, not identities.
func (i Identity) Key() string {
	switch i.Who {
	case ByToken, ByMail, BySID, ByPhone, ByCloud:
		return string(i.Who) + ":" + i.Value
	}
	return "n:" + i.Value
}

// whoOrder puts the surest way first: a person who is named by account and by home
// folder in one question counts once, as the account.
var whoOrder = [...]Who{ByToken, ByName, ByMail, BySID, ByPhone, ByMachine, ByDevice, ByAddress, ByHome, ByCloud, BySession}

func before(a, b Who) bool { return slices.Index(whoOrder[:], a) < slices.Index(whoOrder[:], b) }

// Named gives every identity that a question names and that makes it select a person,
// sorted, each once. Verdict.Persons counts them. With Verdict.Many they are not all:
// then no list of identities covers the question.
func Named(q Question, o Options) []Identity {
	j := judge{o: o}
	j.ask(q)
	return j.identities()
}

func (j *judge) identities() []Identity {
	out := make([]Identity, 0, len(j.seen))
	for key, who := range j.seen {
		_, value, _ := strings.Cut(key, ":")
		out = append(out, Identity{who, value})
	}
	slices.SortFunc(out, func(a, b Identity) int {
		if a.Who != b.Who {
			return strings.Compare(string(a.Who), string(b.Who))
		}
		return strings.Compare(a.Value, b.Value)
	})
	return out
}

// Confined reports whether every row that a question can match either belongs to an
// identity that is covered, or is matched by a part of the question that would be free
// if it stood alone. An authorisation or a grant covers a question only if it is
// confined: user.uid = X or user.uid != X is not a question about X.
//
// It looks at rows, not at names: user.uid = X and device.hostname = Y is confined
// when X is covered, because it shows less than user.uid = X does. Who holds the names
// against a scope asks Named. Wildcards, ranges, not and free text confine nothing.
// What is aimed at a protected channel is never confined. An export asks Bound.
func Confined(q *query.Query, o Options, covered func(Identity) bool) bool {
	c := confiner{o: o, covered: covered, left: maxConfine}
	if q != nil {
		c.q = *q
	}
	return !Selects(Search{Query: q}, o).Protected && c.confined(c.q.Where)
}

// Bound reports whether every row that a question can match belongs to an identity
// that is covered. Then nothing needs a veil, and nothing is a reverse search.
func Bound(q *query.Query, o Options, covered func(Identity) bool) bool {
	c := confiner{o: o, covered: covered, left: maxConfine}
	if q != nil {
		c.q = *q
	}
	return !Selects(Search{Query: q}, o).Protected && c.bound(c.q.Where)
}

// Covers reports whether a question, as it is asked, is covered: everybody whom its form
// names is, and its rows are confined; bound, where its answer would else be veiled or
// in counts only, because who is covered sees it whole. A rule, a list, an indicator, a
// peer group and a change of the directory have no rows here: they are covered when
// they name covered identities only, and all of them, and list nobody by contents.
func Covers(q Question, o Options, covered func(Identity) bool) bool {
	v := Selects(q, o)
	if v.Protected {
		return false
	}
	rows := func(w *query.Query) bool {
		if v.Veil || v.Cells || v.Class.Has(Reverse) {
			return Bound(w, o, covered)
		}
		return Confined(w, o, covered)
	}
	all := func() bool {
		return !v.Many && !v.Class.Has(Reverse) && !slices.ContainsFunc(Named(q, o), func(id Identity) bool { return !covered(id) })
	}
	switch q := q.(type) {
	case Search:
		return rows(q.Query)
	case SavedSearch:
		return rows(q.Query)
	case Statistics:
		return rows(q.Query)
	case Export:
		return rows(q.Query)
	case Suppression:
		return rows(q.Query)
	case Hold:
		return all() && (q.Query == nil || rows(q.Query))
	case Values:
		return q.Where != nil && Bound(q.Where, o, covered) || all() && !v.Cells
	}
	return all()
}

// maxConfine bounds the tests that Confined looks at; what needs more is not confined.
const maxConfine = 20 * query.MaxTerms

type confiner struct {
	o       Options
	covered func(Identity) bool
	q       query.Query // for its pipes
	left    int
}

func (c *confiner) confined(e query.Expr) bool {
	if c.bound(e) || c.free(e) {
		return true
	}
	switch e := e.(type) {
	case query.Or:
		for _, x := range e.Of {
			if !c.confined(x) {
				return false
			}
		}
		return true
	case query.OneOf:
		for _, p := range e.Of {
			if !c.confined(query.Equal{Field: e.Field, Pattern: p}) {
				return false
			}
		}
		return true
	case query.And:
		// (a or b) and c is a and c, or b and c. One alternative is enough to prove it.
		for i, x := range e.Of {
			if alternatives := split(x); alternatives != nil && c.each(alternatives, without(e.Of, i)) {
				return true
			}
		}
	}
	return false
}

// each reports whether every alternative is confined beside the rest.
func (c *confiner) each(alternatives, rest []query.Expr) bool {
	for _, a := range alternatives {
		if c.bound(a) {
			continue
		}
		of := slices.Clone(rest)
		if and, ok := a.(query.And); ok {
			of = append(of, and.Of...)
		} else {
			of = append(of, a)
		}
		if c.left <= 0 || !c.confined(query.And{Of: of}) {
			return false
		}
	}
	return true
}

func split(e query.Expr) []query.Expr {
	switch e := e.(type) {
	case query.Or:
		return e.Of
	case query.OneOf:
		if len(e.Of) > 1 {
			out := make([]query.Expr, len(e.Of))
			for i, p := range e.Of {
				out[i] = query.Equal{Field: e.Field, Pattern: p}
			}
			return out
		}
	}
	return nil
}

func without(of []query.Expr, i int) []query.Expr {
	return append(slices.Clone(of[:i]), of[i+1:]...)
}

// free reports whether a part of the question would be free with the same pipes.
func (c *confiner) free(e query.Expr) bool {
	one := c.q
	one.Where = e
	one.Walk(func(e query.Expr) {
		c.left--
		if list, ok := e.(query.OneOf); ok {
			c.left -= len(list.Of)
		}
	})
	if c.left <= 0 {
		return false
	}
	v := Selects(Search{Query: &one}, c.o)
	return v.Free()
}

// bound reports whether each row of a condition belongs to a covered identity.
func (c *confiner) bound(e query.Expr) bool {
	if c.left--; c.left <= 0 {
		return false
	}
	switch e := e.(type) {
	case query.And:
		return slices.ContainsFunc(e.Of, c.bound)
	case query.Or:
		return !slices.ContainsFunc(e.Of, func(x query.Expr) bool { return !c.bound(x) })
	case query.Equal:
		t, literal := e.Pattern.Text()
		return literal && !e.Differs && c.pinned(e.Field, t)
	case query.OneOf:
		for _, p := range e.Of {
			if t, literal := p.Text(); !literal || !c.pinned(e.Field, t) {
				return false
			}
		}
		return len(e.Of) > 0
	case query.Phrase:
		// A token is one word: whatever stands beside it, the row is of that token. A
		// name is not.
		return !e.Prefix && event.IsToken([]byte(fold(e.Text))) && c.pinned(e.Field, e.Text)
	case query.Network:
		a := e.Prefix.Addr()
		return e.Prefix.Bits() == a.BitLen() && c.pinned(e.Field, a.String())
	}
	return false
}

// pinned reports whether a value of a field is a covered identity, and nobody else.
func (c *confiner) pinned(field, s string) bool {
	if r := roleOf(field); r&(person|device|session) == 0 || r&content != 0 {
		return false
	}
	c.left--
	own := judge{o: Options{Known: c.o.Known, Shared: c.o.Shared, Joined: c.o.Joined}}
	own.value(field, plainGap(s))
	if len(own.seen) == 0 || own.v.Many {
		return false
	}
	for _, id := range own.identities() {
		if !c.covered(id) {
			return false
		}
	}
	return true
}

// Canonical gives the identity that a value of a field is, as Named writes it, so that
// a scope can be held against it: an account, a host, an address of an event. ok is
// false where the value is nobody's, or more than one.
func Canonical(field, value string, o Options) (id Identity, ok bool) {
	if r := roleOf(field); r&(person|device|session) == 0 {
		return Identity{}, false
	}
	own := judge{o: Options{Known: o.Known, Shared: o.Shared, Joined: o.Joined}}
	own.value(field, plainGap(value))
	if len(own.seen) != 1 || own.v.Many {
		return Identity{}, false
	}
	return own.identities()[0], true
}
