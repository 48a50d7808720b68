package cases

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/policy"
	"github.com/counterseal/counterseal/internal/state"
)

// RuleSet is a rule set that two people stand for.
type RuleSet struct {
	Digest string
	Rules  []RuleOrigin
}

// RuleOrigin is a rule and who wrote or changed it here; nobody for one of a publisher.
type RuleOrigin struct {
	Digest  string
	Authors []string // person ids
}

// Activation is since when two people stand for a rule without a break, and who had a
// part in it: who wrote it, who asked for it, who approved it.
type Activation struct {
	At time.Time
	By []string
}

// rules are the times in which rules were part of an approved set.
type rules struct {
	seen uint64            // up to where the statements are read: the next index
	runs map[string][]*run // by digest of the rule, oldest first
	in   map[string]*run   // those of the newest set
}

type run struct {
	Activation
	until time.Time // zero: it is in the newest set
}

// foldRules takes a set in. One that cannot be read, or that one person alone stands for,
// is a set without rules: nothing of what was approved before goes on.
func (b *Book) foldRules(f state.Fact) error {
	r := &b.rules
	if f.Index < r.seen {
		return nil
	}
	var d struct {
		Digest string        `json:"digest"`
		Rules  ledger.Digest `json:"rules"`
	}
	var p rulesForm
	if json.Unmarshal(f.Detail, &d) == nil {
		switch err := b.payload(d.Rules, &p); {
		case errors.Is(err, errUnread):
			p = rulesForm{}
		case err != nil:
			return err
		case p.Digest != d.Digest:
			p = rulesForm{}
		}
	}
	if r.runs == nil {
		r.runs, r.in = map[string][]*run{}, map[string]*run{}
	}
	r.seen = f.Index + 1
	now := map[string]*run{}
	for i := range p.Rules {
		digest := p.Rules[i].Digest
		if have := r.in[digest]; have != nil {
			now[digest] = have
			continue
		}
		one := &run{Activation: Activation{At: f.Time, By: list(append([]string{p.Asked, p.Approved}, p.Rules[i].Authors...))}}
		now[digest] = one
		r.runs[digest] = append(r.runs[digest], one)
	}
	for digest, old := range r.in {
		if now[digest] == nil {
			old.until = f.Time
		}
	}
	r.in = now
	return nil
}

// at gives the activation of a rule that was in force just before a moment.
func (r *rules) at(digest string, t time.Time) (Activation, bool) {
	for _, one := range slices.Backward(r.runs[digest]) {
		if one.At.Before(t) {
			if one.until.IsZero() || !one.until.Before(t) {
				return one.Activation, true
			}
			return Activation{}, false
		}
	}
	return Activation{}, false
}

// readRules takes sets in that others have stated since.
func (b *Book) readRules(ctx context.Context) error {
	facts, err := b.o.Statements.Facts(ctx, "rules.approved")
	if err != nil {
		return err
	}
	slices.SortFunc(facts, func(x, y state.Fact) int { return cmp.Compare(x.Index, y.Index) })
	for _, f := range facts {
		if f.Index >= b.rules.seen {
			if err := b.fold(f); err != nil {
				return err
			}
		}
	}
	return nil
}

// Approved tells since when two people stand for a rule, and who.
func (b *Book) Approved(ctx context.Context, ruleDigest string) (Activation, bool, error) {
	if err := b.lock(ctx); err != nil {
		return Activation{}, false, err
	}
	defer b.mu.Unlock()
	if err := b.readRules(ctx); err != nil {
		return Activation{}, false, err
	}
	one := b.rules.in[ruleDigest]
	if one == nil {
		return Activation{}, false, nil
	}
	return Activation{At: one.At, By: slices.Clone(one.By)}, true, nil
}

// ApproveRules states that two people stand for a rule set: one who asked for it, and by,
// who approves. The caller has the word of the first, and activates the set.
func (b *Book) ApproveRules(ctx context.Context, asked string, by policy.Person, set RuleSet) error {
	if err := b.lock(ctx); err != nil {
		return err
	}
	defer b.mu.Unlock()
	w, ok := ownerOf(b.o.Offices(), asked)
	if !ok {
		return &Refusal{Code: NotPermitted, Reason: "who asked for the rules holds no office", Hint: "somebody in office asks for them"}
	}
	if _, err := b.decides(ctx, by, "rules.approve", set.Digest, false, w); err != nil {
		return err
	}
	id, err := newID()
	if err != nil {
		return err
	}
	p := &rulesForm{Approved: ident(by.ID), Asked: w.Person, Digest: set.Digest, Form: rulesName, ID: id, Rules: []ruleForm{}}
	for _, r := range set.Rules {
		authors := make([]string, len(r.Authors))
		for i, a := range r.Authors {
			authors[i] = ident(a)
		}
		p.Rules = append(p.Rules, ruleForm{Authors: list(authors), Digest: r.Digest})
	}
	slices.SortFunc(p.Rules, func(x, y ruleForm) int { return cmp.Compare(x.Digest, y.Digest) })
	payload, _, err := b.put(p)
	if err != nil {
		return err
	}
	// Every approval has a key of its own, so that one that comes again leaves the first.
	return b.state(ctx, by, "rules.approved", set.Digest+"/"+id, "", map[string]any{"digest": set.Digest, "rules": payload})
}
