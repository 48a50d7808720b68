package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/alias"
	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/detect"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/pipeline"
	"github.com/counterseal/counterseal/internal/policy"
	"github.com/counterseal/counterseal/internal/strict"
	"github.com/counterseal/counterseal/sigma"
)

// maxNaming bounds the key of a rule that names its authorisation.
const maxNaming = 1 << 10

var errNaming = errors.New("counterseal is not of the form {authorisation: ID}")

// authorisationNamed gives the id of the authorisation that a rule names under the key
// counterseal; empty: it has no such key.
func authorisationNamed(extra []sigma.Extra) (string, error) {
	for _, x := range extra {
		if x.Key != "counterseal" {
			continue
		}
		var in struct {
			Authorisation string `yaml:"authorisation"`
		}
		if len(x.YAML) > maxNaming {
			return "", errNaming
		}
		err := strict.NewDecoder([]byte(x.YAML)).Decode(&in)
		if err != nil && !errors.Is(err, io.EOF) || in.Authorisation == "" || !isID(in.Authorisation) {
			return "", errNaming
		}
		return in.Authorisation, nil
	}
	return "", nil
}

// isID takes what the id of an authorisation is made of.
func isID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && c != '-' {
			return false
		}
	}
	return true
}

// ruleStands says what becomes of a rule of the configuration that selects somebody: it is
// in force under the authorisation that it names, about the people whom that is about, or
// set aside. One that is aimed at a protected channel is told to the overseers, once.
func (s *server) ruleStands(ctx context.Context, st *pipeline.Standing) (pipeline.Ruling, error) {
	rule, text, v := st.Rule, st.Text, st.Verdict
	id, err := authorisationNamed(rule.Extra)
	if err != nil {
		return pipeline.Ruling{Code: cases.BadInput, Reason: err.Error(), Hint: "counterseal: {authorisation: ID}, as counterseal authorise list shows it"}, nil
	}
	if !v.Protected && id != "" {
		var no string
		if rule, text, no, err = s.named(ctx, id, rule, text); err != nil {
			return pipeline.Ruling{}, err
		}
		if no != "" {
			return pipeline.Ruling{Code: cases.BadInput, Reason: no, Hint: "name people by the aliases of the case of the authorisation"}, nil
		}
		v = access.Standing(rule, st.Options)
	}
	if v.Protected {
		if err := s.tellAimed(ctx, st); err != nil {
			return pipeline.Ruling{}, err
		}
	}
	cover, err := s.cases.Standing(ctx, id, cases.Question{
		Named: access.Named(access.Rule{Rule: rule, Published: access.Published(rule)}, st.Options), Verdict: v,
	})
	switch {
	case err != nil:
		return pipeline.Ruling{}, err
	case cover.Code != "":
		return pipeline.Ruling{Code: cover.Code, Reason: cover.Reason, Hint: cover.Hint}, nil
	case cover.Authorisation != cases.Covers:
		return pipeline.Ruling{Code: cases.Uncovered, Reason: "nothing covers it"}, nil
	}
	return pipeline.Ruling{Authorisation: id, Text: text, Bound: detect.Bound{Until: cover.Until, From: cover.Scope.From, To: cover.Scope.To, Sources: cover.Scope.Sources}}, nil
}

// named gives a rule with the aliases turned back that its authorisation is about. Those of
// an authorisation that is not in force stay what they are: nobody's name in the rule.
func (s *server) named(ctx context.Context, id string, rule *sigma.Rule, text []byte) (*sigma.Rule, []byte, string, error) {
	var no *cases.Refusal
	a, err := s.cases.Authorisation(ctx, id)
	if errors.As(err, &no) || err == nil && a.State != cases.Approved {
		return rule, text, "", nil
	}
	if err != nil {
		return nil, nil, "", err
	}
	scope := alias.Scope{Case: a.Case}
	for _, who := range a.Scope.Subjects { // so that they count also where the file of aliases is new
		if event.IsToken([]byte(who)) {
			if _, err := s.aliases.Show(ctx, scope, who); err != nil {
				return nil, nil, "", err
			}
		}
	}
	found, err := s.aliases.Resolve(ctx, scope, string(text))
	switch {
	case errors.Is(err, alias.ErrText):
		return nil, nil, "it is longer than 256 KiB", nil
	case err != nil:
		return nil, nil, "", err
	case found.Tokens > 0:
		return nil, nil, "it holds a token, which no answer shows", nil
	case found.Known == 0:
		return rule, text, "", nil
	}
	parsed, refused := sigma.Parse(rule.Path, []byte(found.Text))
	if len(parsed) != 1 || len(refused) > 0 {
		return nil, nil, "it is no rule once its aliases are turned back", nil
	}
	parsed[0].Line = rule.Line
	return parsed[0], []byte(found.Text), "", nil
}

// tellAimed tells the overseers of a rule that is aimed at a protected channel, unless the
// ledger says that this very rule was set aside for it before. Whoever runs the machine
// answers for its configuration.
func (s *server) tellAimed(ctx context.Context, st *pipeline.Standing) error {
	f, ok, err := s.pipe.Recorder().Fact(ctx, "standing.aside", st.Digest)
	if err != nil {
		return err
	}
	var d struct{ Reason string }
	if ok && json.Unmarshal(f.Detail, &d) == nil && d.Reason == cases.Aimed {
		return nil
	}
	return s.cases.Report(ctx, policy.Person{ID: owner()}, "", cases.Aimed, "a rule of the configuration: "+st.Rule.Key()+", SHA-256 "+st.Digest)
}

// stand judges the rules that select somebody anew, after an authorisation was given or has
// ended. Where that fails it is tried again within a minute; the end of an authorisation by
// its date needs no try, since each event is held against it.
func (s *server) stand(ctx context.Context) {
	if err := s.pipe.Stand(context.WithoutCancel(ctx)); err != nil {
		s.log.Error("the rules that select somebody could not be judged anew; tried again", "err", err)
	}
}

// tendEvery is how often what ends by its date is looked at.
const tendEvery = time.Minute

// tendCases states what has ended by its date, takes rules out whose authorisation has
// ended, and forgets the aliases of cases that are over.
func (s *server) tendCases(ctx context.Context) error {
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	over := map[string]uint64{}
	for {
		if err := s.tend(ctx, over); err != nil && ctx.Err() == nil {
			s.log.Error("what has ended could not be stated; tried again", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// tend does it once. over has the cases whose aliases are forgotten.
func (s *server) tend(ctx context.Context, over map[string]uint64) error {
	if err := errors.Join(s.tendOversight(ctx), s.tendComplaints(ctx)); err != nil {
		return err
	}
	if _, err := s.cases.Expire(ctx); err != nil {
		return err
	}
	if err := s.pipe.Stand(ctx); err != nil {
		return err
	}
	closed, err := s.cases.Closed(ctx)
	if err != nil {
		return err
	}
	for id, at := range closed {
		if over[id] == at {
			continue
		}
		if err := s.aliases.Forget(ctx, alias.Scope{Case: id}); err != nil {
			return err
		}
		over[id] = at
	}
	return nil
}
