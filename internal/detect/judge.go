package detect

import (
	"encoding/hex"
	"slices"
	"time"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/parse"
	"github.com/counterseal/counterseal/sigma"
)

// Sight says what of a record's fields an assessment left to be seen. The zero
// value hides nothing.
type Sight struct {
	// Blind reports that a field may have been in the record and is not now: it was
	// dropped. Hidden reports that what is stored under the name is not the value:
	// a length and a keyed digest.
	Blind  func(field string) bool
	Hidden func(field string) bool
}

// MaxAhead is how far a claimed time may lie after receipt before rules take the
// receipt instead.
const MaxAhead = 5 * time.Minute

// Judge asks the rules about one stored event and returns a finding for each yes,
// in the order of rule ids. Matches of rules that feed a correlation go to c, where
// it is not nil; what that brings or takes back is among the findings.
func (r *RuleSet) Judge(e *event.Event, ref event.Ref, sight Sight, c *Correlator) []event.Finding {
	var out []event.Finding
	yes := func(m sigma.Match, ev *sigma.Event, parts func() []event.Part) {
		if !r.set.Silent(m.Rule) {
			out = append(out, r.finding(e, ref, m.Rule, parts()))
		}
		if c != nil {
			out = c.observe(out, m, ev, e, ref)
		}
	}
	if e.RuleSet == r.digest {
		r.event(e, e.Fields, sight, func(ev *sigma.Event) {
			for _, v := range e.Verdicts {
				if rule := r.rules[v.Rule]; rule != nil && r.asks(rule, e) {
					yes(sigma.Match{Rule: rule, Verdict: sigma.Yes}, ev, func() []event.Part { return r.stored(e, rule) })
				}
			}
		})
		return out
	}
	r.match(e, e.Fields, sight, func(m sigma.Match, ev *sigma.Event) {
		switch m.Verdict {
		case sigma.Yes:
			yes(m, ev, func() []event.Part {
				parts := make([]event.Part, 0, len(m.Matched))
				for _, f := range m.Matched {
					parts = append(parts, event.Part{Field: f.Name, Value: string(f.Value)})
				}
				return parts
			})
		case sigma.CannotTell:
			r.cannot[m.Rule].Add(1)
		}
	})
	return out
}

// AtDoor asks the rules about an event whose detect-only values are still there
// and writes the answers into it. An event without such values is left as it is:
// Judge can answer later.
func (r *RuleSet) AtDoor(e *event.Event, sight Sight) {
	if len(e.DetectOnly) == 0 {
		return
	}
	fields := slices.Clone(e.Fields)
	next := 0
	for i := range fields { // both lists are in source order
		if next < len(e.DetectOnly) && fields[i].Name == e.DetectOnly[next].Name {
			fields[i] = e.DetectOnly[next]
			next++
		}
	}
	e.RuleSet, e.Verdicts = r.digest, nil
	open := Sight{Blind: sight.Blind}
	r.match(e, fields, open, func(m sigma.Match, _ *sigma.Event) {
		switch m.Verdict {
		case sigma.Yes:
			e.Verdicts = append(e.Verdicts, event.Verdict{Rule: m.Rule.Digest})
		case sigma.CannotTell:
			r.cannot[m.Rule].Add(1)
		}
	})
}

func (r *RuleSet) match(e *event.Event, fields []event.Field, sight Sight, fn func(sigma.Match, *sigma.Event)) {
	r.event(e, fields, sight, func(ev *sigma.Event) {
		r.set.Match(ev, func(m sigma.Match) {
			if r.asks(m.Rule, e) {
				fn(m, ev)
			}
		})
	})
}

// event shows an event to the rules as far as the assessment lets it be seen.
func (r *RuleSet) event(e *event.Event, fields []event.Field, sight Sight, fn func(*sigma.Event)) {
	s := r.pool.Get().(*scratch)
	defer r.pool.Put(s)
	s.fields = s.fields[:0]
	for i := range fields {
		f := &fields[i]
		if sight.Hidden != nil && sight.Hidden(f.Name) {
			continue
		}
		s.fields = append(s.fields, sigma.Field{Name: f.Name, Kind: kinds[f.Kind&3], Value: f.Value, Addr: sigma.AddrClass(f.Addr)})
	}
	ev := sigma.Event{Fields: s.fields}
	ev.Source.Product, ev.Source.Category, ev.Source.Service = parse.LogSource(e.Dataset)
	if sight.Blind != nil || sight.Hidden != nil {
		ev.AnyBlind = true
		ev.Blind = func(name string) bool {
			return sight.Blind != nil && sight.Blind(name) || sight.Hidden != nil && sight.Hidden(name)
		}
	}
	fn(&ev)
}

var kinds = [4]sigma.Kind{event.String: sigma.KindString, event.Number: sigma.KindNumber, event.Bool: sigma.KindBool, event.Null: sigma.KindNull}

// stored lists the fields of a rule with what is stored under them.
func (r *RuleSet) stored(e *event.Event, rule *sigma.Rule) []event.Part {
	var parts []event.Part
	for i := range e.Fields {
		if slices.Contains(r.fields[rule], e.Fields[i].Name) {
			parts = append(parts, event.Part{Field: e.Fields[i].Name, Value: string(e.Fields[i].Value)})
		}
	}
	return parts
}

func (r *RuleSet) finding(e *event.Event, ref event.Ref, rule *sigma.Rule, parts []event.Part) event.Finding {
	digest := hex.EncodeToString(rule.Digest[:])
	claimed := time.Unix(0, e.Time).UTC() // 1970 where the record has none: receipt takes no part in the id
	at := ruleTime(e)
	return event.Finding{
		ID:  event.FindingID(digest, [][32]byte{e.Content()}, "", claimed, claimed),
		Rev: 1, State: event.Open,
		Rule:    ruleInfo(rule),
		RuleSet: r.Digest(),
		Refs:    []event.Ref{ref},
		From:    at, To: at,
		Parts:  parts,
		Source: e.Source, Dataset: e.Dataset,
	}
}

// ruleTime is the time of an event for rules: the claimed one, at most MaxAhead
// after receipt.
func ruleTime(e *event.Event) time.Time {
	at := e.At()
	if limit := time.Unix(0, e.Received).UTC().Add(MaxAhead); at.After(limit) {
		return limit
	}
	return at
}

func ruleInfo(rule *sigma.Rule) event.RuleInfo {
	return event.RuleInfo{
		ID: rule.ID, Digest: hex.EncodeToString(rule.Digest[:]), Title: rule.Title, Level: rule.Level,
		Author: rule.Author, License: rule.License, Tags: rule.Tags,
	}
}
