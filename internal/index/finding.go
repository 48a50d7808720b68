package index

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/query"
)

// The fields of a finding's row.
const (
	fieldID      = "finding.id"
	fieldRev     = "finding.rev"
	fieldState   = "finding.state"
	fieldGroup   = "finding.group"
	fieldFrom    = "finding.from"
	fieldTo      = "finding.to"
	fieldRuleSet = "finding.rule_set"
	fieldPart    = "finding.part" // length of the field name, colon, name=value
	fieldRef     = "finding.ref"  // the records that it cites
	ruleID       = "rule.id"
	ruleDigest   = "rule.digest"
	ruleTitle    = "rule.title"
	ruleLevel    = "rule.level"
	ruleAuthor   = "rule.author"
	ruleLicense  = "rule.license"
	ruleTag      = "rule.tags"
)

// FindingRef is the reference of a finding's row, by which Has knows it.
func FindingRef(id string, rev int) string { return "finding/" + id + "/" + strconv.Itoa(rev) }

// FindingRow makes the row of a finding. It lies in the compartment of the first
// record that it cites, in the week of sealed, at the time of its last event.
func FindingRow(f event.Finding, sealed time.Time) Row {
	r := Row{
		Ref:     FindingRef(f.ID, f.Rev),
		Time:    f.To.UnixNano(),
		Sealed:  sealed,
		Source:  f.Source,
		Dataset: f.Dataset,
		Kind:    KindFinding,
	}
	if len(f.Refs) > 0 {
		r.Compartment = f.Refs[0].Compartment
	}
	add := func(name, value string) { r.OCSF = append(r.OCSF, Attr{name, value}) }
	add(fieldID, f.ID)
	add(fieldRev, strconv.Itoa(f.Rev))
	add(fieldState, string(f.State))
	add(fieldGroup, f.Group)
	add(fieldFrom, f.From.UTC().Format(time.RFC3339Nano))
	add(fieldTo, f.To.UTC().Format(time.RFC3339Nano))
	add(fieldRuleSet, f.RuleSet)
	add(ruleID, f.Rule.ID)
	add(ruleDigest, f.Rule.Digest)
	add(ruleTitle, f.Rule.Title)
	add(ruleLevel, f.Rule.Level)
	add(ruleAuthor, f.Rule.Author)
	add(ruleLicense, f.Rule.License)
	for _, t := range f.Rule.Tags {
		add(ruleTag, t)
	}
	for _, ref := range f.Refs {
		add(fieldRef, ref.String())
	}
	for _, p := range f.Parts {
		add(fieldPart, strconv.Itoa(len(p.Field))+":"+p.Field+"="+p.Value)
	}
	return r
}

// Finding reads the finding that a row holds.
func (r *Row) Finding() (event.Finding, error) {
	f := event.Finding{Source: r.Source, Dataset: r.Dataset}
	bad := func(what string) (event.Finding, error) {
		return event.Finding{}, fmt.Errorf("the finding row %s: its %s cannot be read", r.Ref, what)
	}
	if r.Kind != KindFinding {
		return bad("kind")
	}
	var err error
	for _, a := range r.OCSF {
		switch a.Name {
		case fieldID:
			f.ID = a.Value
		case fieldRev:
			if f.Rev, err = strconv.Atoi(a.Value); err != nil {
				return bad("revision")
			}
		case fieldState:
			f.State = event.State(a.Value)
		case fieldGroup:
			f.Group = a.Value
		case fieldFrom:
			if f.From, err = time.Parse(time.RFC3339Nano, a.Value); err != nil {
				return bad("window")
			}
		case fieldTo:
			if f.To, err = time.Parse(time.RFC3339Nano, a.Value); err != nil {
				return bad("window")
			}
		case fieldRuleSet:
			f.RuleSet = a.Value
		case ruleID:
			f.Rule.ID = a.Value
		case ruleDigest:
			f.Rule.Digest = a.Value
		case ruleTitle:
			f.Rule.Title = a.Value
		case ruleLevel:
			f.Rule.Level = a.Value
		case ruleAuthor:
			f.Rule.Author = a.Value
		case ruleLicense:
			f.Rule.License = a.Value
		case ruleTag:
			f.Rule.Tags = append(f.Rule.Tags, a.Value)
		case fieldRef:
			ref, err := event.ParseRef(a.Value)
			if err != nil {
				return bad("reference")
			}
			f.Refs = append(f.Refs, ref)
		case fieldPart:
			size, rest, _ := strings.Cut(a.Value, ":")
			n, err := strconv.Atoi(size)
			if err != nil || n < 0 || n >= len(rest) || rest[n] != '=' {
				return bad("part")
			}
			f.Parts = append(f.Parts, event.Part{Field: rest[:n], Value: rest[n+1:]})
		}
	}
	if f.ID == "" || f.Rev < 1 {
		return bad("id or revision")
	}
	return f, nil
}

// maxFold bounds the findings that one call folds.
const maxFold = 100_000

// Findings returns findings whose newest revision matches, newest first, at most
// limit (0: up to 100,000). The question may be nil. Withdrawn ones are among them:
// a question says finding.state = open.
func (x *Index) Findings(ctx context.Context, q *query.Query, sc Scope, limit int) ([]event.Finding, error) {
	leave, err := x.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	if limit <= 0 || limit > maxFold {
		limit = maxFold
	}
	kind := query.Expr(query.Equal{Field: "kind", Pattern: query.Literal(KindFinding)})
	var where query.Query
	if q != nil {
		if q.IsTable() {
			return nil, ErrTable
		}
		where = query.Query{Where: q.Where, Sort: q.Sort}
		if q.Limit > 0 {
			limit = min(limit, q.Limit)
		}
	}
	if where.Where == nil {
		where.Where = kind
	} else {
		where.Where = query.And{Of: []query.Expr{kind, where.Where}}
	}

	var out []event.Finding
	seen := make(map[string]bool)
	var batch []event.Finding
	// settleBatch asks for the newest revision of each id, wherever and whenever it
	// lies: an older one may match where the newest does not.
	settleBatch := func() error {
		if len(batch) == 0 {
			return nil
		}
		newest, err := x.newestRevs(ctx, batch, sc.Compartments)
		if err != nil {
			return err
		}
		for _, f := range batch {
			if f.Rev == newest[f.ID] && !seen[f.ID] && len(out) < limit {
				seen[f.ID] = true // the same row may have been added twice
				out = append(out, f)
			}
		}
		batch = batch[:0]
		return nil
	}
	var inner error
	err = x.query(ctx, &where, sc, 0, func(r Row) bool {
		f, err := r.Finding()
		if err != nil {
			inner = err
			return false
		}
		if batch = append(batch, f); len(batch) == min(limit, 500) {
			inner = settleBatch()
		}
		return inner == nil && len(out) < limit
	})
	if err == nil {
		err = inner
	}
	if err == nil {
		err = settleBatch()
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (x *Index) newestRevs(ctx context.Context, of []event.Finding, compartments []string) (map[string]int, error) {
	ids := make([]query.Pattern, 0, len(of))
	for _, f := range of {
		p := query.Literal(f.ID)
		if !slices.ContainsFunc(ids, func(o query.Pattern) bool { return slices.Equal(o.Parts, p.Parts) }) {
			ids = append(ids, p)
		}
	}
	q := &query.Query{
		Where: query.And{Of: []query.Expr{
			query.Equal{Field: "kind", Pattern: query.Literal(KindFinding)},
			query.OneOf{Field: fieldID, Of: ids},
		}},
		Stats: &query.Stats{By: []string{fieldID}, Funcs: []query.Func{{Name: "max", Field: fieldRev, As: "rev"}}},
	}
	t, err := x.stats(ctx, q, Scope{Compartments: compartments})
	if err != nil {
		return nil, err
	}
	newest := make(map[string]int, len(t.Rows))
	for _, r := range t.Rows {
		n, err := strconv.Atoi(r[1])
		if err != nil {
			return nil, fmt.Errorf("the newest revision of finding %s cannot be read", r[0])
		}
		newest[r[0]] = n
	}
	return newest, nil
}
