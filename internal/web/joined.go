package web

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/query"
)

// access is what Selects has to know of a question in a case.
func (s *Server) access(ctx context.Context, p *permit) (access.Options, error) {
	o := s.o.Gate.Access()
	joined, err := s.o.Gate.Cases.Joined(ctx, p.caseID)
	if joined.Any() {
		o.Joined = joined.One
	}
	return o, err
}

// Joined asks a question about people of whom the case knows several tokens about all of
// these.
func (s *Server) Joined(ctx context.Context, q *query.Query) (*query.Query, error) {
	if q == nil || q.Where == nil {
		return q, nil
	}
	joined, err := s.o.Gate.Cases.Joined(ctx, permitOf(ctx).caseID)
	if err != nil || !joined.Any() {
		return q, err
	}
	w := widener{joined: joined}
	wide := *q
	wide.Where = w.expr(q.Where)
	if w.full {
		return nil, &badRequest{fmt.Sprintf("the question is about more than %d tokens of people whom the case joins", query.MaxTerms), "ask about fewer people at once"}
	}
	return &wide, nil
}

// newest puts the token by which a case shows somebody where another one of theirs stands: an
// alias of before the case knew them as one means the same as that of today.
func newest(joined *cases.Joined, text string) string {
	if !joined.Any() {
		return text
	}
	var out strings.Builder
	for {
		from, to := event.NextToken([]byte(text))
		if from < 0 {
			out.WriteString(text)
			return out.String()
		}
		out.WriteString(text[:from] + joined.One(text[from:to]))
		text = text[to:]
	}
}

// LookedByName makes an act that gave somebody's aliases a look at these people, which
// overseers review.
func LookedByName(ctx context.Context, tokens []string) {
	p := permitOf(ctx)
	var named []access.Identity
	for _, t := range tokens {
		named = append(named, access.Identity{Who: access.ByToken, Value: t})
	}
	p.watch(access.Person, true, named)
}

// widener puts all tokens of a person where one of them stands.
type widener struct {
	joined *cases.Joined
	n      int
	full   bool // it would be too many
}

// texts are a text with each token of it replaced by all of the person.
func (w *widener) texts(s string) []string {
	out := []string{""}
	rest := s
	for {
		from, to := event.NextToken([]byte(rest))
		if from < 0 {
			break
		}
		var next []string
		for _, t := range w.joined.All(rest[from:to]) {
			for _, head := range out {
				next = append(next, head+rest[:from]+t)
			}
		}
		if w.n += len(next); w.n > query.MaxTerms {
			w.full = true
			return []string{s}
		}
		out, rest = next, rest[to:]
	}
	for i := range out {
		out[i] += rest
	}
	return out
}

func (w *widener) patterns(p query.Pattern) []query.Pattern {
	out := []query.Pattern{{}}
	for _, part := range p.Parts {
		texts := []string{part.Text}
		if part.Wild == 0 {
			texts = w.texts(part.Text)
		}
		var next []query.Pattern
		for _, head := range out {
			for _, t := range texts {
				next = append(next, query.Pattern{Parts: append(slices.Clone(head.Parts), query.Part{Wild: part.Wild, Text: t})})
			}
		}
		if w.n += len(next); w.n > query.MaxTerms {
			w.full = true
			return []query.Pattern{p}
		}
		out = next
	}
	return out
}

func (w *widener) expr(e query.Expr) query.Expr {
	switch e := e.(type) {
	case query.And:
		return query.And{Of: w.each(e.Of, isAnd)}
	case query.Or:
		return query.Or{Of: w.each(e.Of, isOr)}
	case query.Not:
		return query.Not{Of: w.expr(e.Of)}
	case query.OneOf:
		of := query.OneOf{Field: e.Field}
		for _, p := range e.Of {
			of.Of = append(of.Of, w.patterns(p)...)
		}
		return of
	case query.Equal:
		all := w.patterns(e.Pattern)
		if len(all) == 1 {
			return e
		}
		if !e.Fold && !e.Differs {
			return query.OneOf{Field: e.Field, Of: all}
		}
		var of []query.Expr
		for _, p := range all {
			of = append(of, query.Equal{Field: e.Field, Pattern: p, Fold: e.Fold, Differs: e.Differs})
		}
		if e.Differs {
			return query.And{Of: of}
		}
		return query.Or{Of: of}
	case query.Phrase:
		all := w.texts(e.Text)
		if len(all) == 1 {
			return e
		}
		var of []query.Expr
		for _, t := range all {
			of = append(of, query.Phrase{Field: e.Field, Text: t, Prefix: e.Prefix})
		}
		return query.Or{Of: of}
	}
	return e
}

// each keeps the tree as query has it: no And right below an And, and no Or below an Or.
func (w *widener) each(in []query.Expr, flat func(query.Expr) []query.Expr) (out []query.Expr) {
	for _, e := range in {
		wide := w.expr(e)
		if inner := flat(wide); inner != nil {
			out = append(out, inner...)
			continue
		}
		out = append(out, wide)
	}
	return out
}

func isAnd(e query.Expr) []query.Expr {
	and, _ := e.(query.And)
	return and.Of
}

func isOr(e query.Expr) []query.Expr {
	or, _ := e.(query.Or)
	return or.Of
}
