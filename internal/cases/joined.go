package cases

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/policy"
	"github.com/counterseal/counterseal/internal/state"
)

// namesForm is what a question by name gave: the tokens of each person, of every epoch. A
// case that has it takes them for one person.
type namesForm struct {
	Case   string     `json:"case"`
	Form   string     `json:"form"`
	ID     string     `json:"id"` // of the question
	People [][]string `json:"people"`
}

const (
	namesName = "name.answer/v1"
	maxPeople = 20 // of one question
)

func (*namesForm) fresh() form { return &namesForm{} }

func (n *namesForm) check() error {
	if err := head(n.Form, namesName, n.ID); err != nil {
		return err
	}
	if !IsCase(n.Case) {
		return errCase
	}
	if len(n.People) < 1 || len(n.People) > maxPeople {
		return fmt.Errorf("people are 1 to %d", maxPeople)
	}
	for _, tokens := range n.People {
		if err := sorted("tokens", tokens, 1, maxSubjects, func(s string) bool { return event.IsToken([]byte(s)) && s[0] == tokens[0][0] }); err != nil {
			return err
		}
	}
	return nil
}

// Joined are the tokens that one case takes for one person each, beyond the epoch that each
// is of. nil joins nobody. It does not change once it is given.
type Joined struct{ all map[string][]string } // by each of its tokens, the newest epoch first

// All gives the tokens of the person whose token it is, the newest epoch first: at least
// this one.
func (j *Joined) All(token string) []string {
	if j != nil {
		if all := j.all[token]; all != nil {
			return slices.Clone(all)
		}
	}
	return []string{token}
}

// One gives the token by which the case shows the person: that of the newest epoch.
func (j *Joined) One(token string) string {
	if j != nil {
		if all := j.all[token]; all != nil {
			return all[0]
		}
	}
	return token
}

// Any reports whether the case joins tokens at all.
func (j *Joined) Any() bool { return j != nil && len(j.all) > 0 }

// among reports whether a value, or another token of the same person, is one of a list.
func (j *Joined) among(list []string, value string) bool {
	one := j.One(value)
	return slices.ContainsFunc(list, func(s string) bool { return s == value || j.One(s) == one })
}

// Join gives the people that lists of tokens make; who shares a token is one person.
func Join(people ...[]string) *Joined {
	var j *Joined
	for _, tokens := range people {
		j = j.with(tokens)
	}
	return j
}

// with is the same with the tokens of a person more; who shares a token is one person.
func (j *Joined) with(tokens []string) *Joined {
	next := &Joined{all: map[string][]string{}}
	group := slices.Clone(tokens)
	if j != nil {
		for token, all := range j.all {
			next.all[token] = all
		}
		for _, t := range tokens {
			group = append(group, j.all[t]...)
		}
	}
	slices.SortFunc(group, func(a, b string) int {
		if x, y := event.Token(a).Epoch(), event.Token(b).Epoch(); x != y {
			return y - x
		}
		if a < b {
			return -1
		} else if a > b {
			return 1
		}
		return 0
	})
	group = slices.Compact(group)
	if len(group) > 1 {
		for _, t := range group {
			next.all[t] = group
		}
	}
	return next
}

type namesDetail struct {
	Payload ledger.Digest `json:"payload"`
	Request string        `json:"request"`
}

func (b *Book) foldNamed(f state.Fact) error {
	var d namesDetail
	if json.Unmarshal(f.Detail, &d) != nil {
		return nil
	}
	var p namesForm
	switch err := b.payload(d.Payload, &p); {
	case errors.Is(err, errUnread):
		return nil // what cannot be read joins nobody
	case err != nil:
		return err
	case p.ID != f.Key:
		return nil
	}
	for _, tokens := range p.People {
		b.joined[p.Case] = b.joined[p.Case].with(tokens)
	}
	return nil
}

// Answered states what a question by name gave in a case, once: for each name the tokens
// of every epoch, which are one person in this case from then on, and in no other.
func (b *Book) Answered(ctx context.Context, by policy.Person, caseID, question string, people [][]string) error {
	if err := b.lock(ctx); err != nil {
		return err
	}
	defer b.mu.Unlock()
	p := namesForm{Case: caseID, Form: namesName, ID: question}
	for _, tokens := range people {
		p.People = append(p.People, list(tokens))
	}
	payload, _, err := b.put(&p)
	if err != nil {
		return err
	}
	return b.state(ctx, by, "name.answered", question, caseID, namesDetail{Payload: payload, Request: question})
}

// Joined gives the people of a case of whom it knows several tokens.
func (b *Book) Joined(ctx context.Context, caseID string) (*Joined, error) {
	if err := b.lock(ctx); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	if caseID == "" {
		return nil, nil
	}
	return b.joined[caseID], nil
}

// Stops says why nobody may look at people now; nil: they may.
func (b *Book) Stops(ctx context.Context) error {
	if err := b.lock(ctx); err != nil {
		return err
	}
	defer b.mu.Unlock()
	r, _, err := b.stopped(ctx)
	if err != nil || r == nil {
		return err
	}
	return r
}
