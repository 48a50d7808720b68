package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/pipeline"
	"github.com/counterseal/counterseal/internal/state"
	"github.com/counterseal/counterseal/internal/web"
	"github.com/counterseal/counterseal/sigma"
)

// actionRules is the act of the request that one person makes and another approves.
const actionRules = "rules.activate"

// wordHolds is how long the word of who asked holds.
const wordHolds = 24 * time.Hour

// setAsked is the payload of approval.requested for a set that two people stand for: who
// asked for which. The leaf has its salted digest alone.
type setAsked struct {
	Asked   string `json:"asked"` // person id
	Digest  string `json:"digest"`
	Expires string `json:"expires"`
	Form    string `json:"form"`
	ID      string `json:"id"`
}

const rulesAskedForm = "rules.request/v1"

// parseAsked reads the canonical form and nothing else.
func parseAsked(form string, b []byte) (*setAsked, time.Time, error) {
	var r setAsked
	if err := approval.DecodeUpTo(4<<10, b, &r); err != nil {
		return nil, time.Time{}, err
	}
	id, err := uuid.Parse(r.ID)
	sum, derr := hex.DecodeString(r.Digest)
	switch {
	case r.Form != form:
		return nil, time.Time{}, errors.New("form is another one")
	case err != nil || id.String() != r.ID:
		return nil, time.Time{}, errors.New("id is not a UUID")
	case derr != nil || len(sum) != 32 || hex.EncodeToString(sum) != r.Digest:
		return nil, time.Time{}, errors.New("digest is not one of a set")
	case r.Asked == "" || len(r.Asked) > 128:
		return nil, time.Time{}, errors.New("asked is who asked, 1 to 128 bytes")
	}
	at, err := time.Parse(time.RFC3339, r.Expires)
	if err != nil || at.UTC().Format(time.RFC3339) != r.Expires {
		return nil, time.Time{}, errors.New("expires is not a time in UTC")
	}
	return &r, at, nil
}

// What the acts about rule sets are given and answer.
type (
	rulesState struct {
		Digest  string      `json:"digest"` // of the set in force
		Rules   int         `json:"rules"`
		Before  bool        `json:"before"`  // a set was approved before
		New     int         `json:"new"`     // rules that the last approved set had not, or not so
		Gone    int         `json:"gone"`    // rules of the last approved set that are not there, or not so
		Some    []rulesLine `json:"some"`    // of the new ones
		Waiting []wordGiven `json:"waiting"` // requests for this set
		Until   time.Time   `json:"until,omitzero"`
		Offices []string    `json:"offices,omitempty"`
	}
	rulesLine struct {
		Level string `json:"level"`
		ID    string `json:"id"`
		Title string `json:"title"`
	}
	wordGiven struct {
		Asked string    `json:"asked"`
		Until time.Time `json:"until"`
		id    string
	}
	rulesNamed struct {
		Digest string `json:"digest"`
	}
)

// maxNewShown bounds the new rules that are shown one by one.
const maxNewShown = 20

// ruleSet is the set in force with who wrote its rules here: an author is somebody here
// where the record of offices knows the id; others are publishers.
func (s *server) ruleSet() (cases.RuleSet, []*sigma.Rule) {
	in := s.pipe.Rules()
	rules := slices.Concat(in.Rules(), in.Set().Correlations())
	held := map[string]bool{}
	if o := s.force.Load().offices; o != nil {
		for i := range o.Offices {
			held[strings.ToLower(o.Offices[i].Holder)] = o.Offices[i].Holder != ""
		}
	}
	set := cases.RuleSet{Digest: in.Digest()}
	seen := map[string]bool{}
	var each []*sigma.Rule
	for _, r := range rules {
		o := cases.RuleOrigin{Digest: hex.EncodeToString(r.Digest[:])}
		if seen[o.Digest] {
			continue
		}
		seen[o.Digest] = true
		for author := range strings.SplitSeq(r.Author, ",") {
			if id := strings.ToLower(strings.TrimSpace(author)); held[id] && len(o.Authors) < 20 {
				o.Authors = append(o.Authors, id)
			}
		}
		set.Rules, each = append(set.Rules, o), append(each, r)
	}
	return set, each
}

// rulesNow compares the set in force with the last approved one, and finds who waits.
func (s *server) rulesNow(ctx context.Context) (rulesState, cases.RuleSet, error) {
	set, each := s.ruleSet()
	st := rulesState{Digest: set.Digest, Rules: len(set.Rules), Some: []rulesLine{}, Waiting: []wordGiven{}}
	before, ok, err := s.rulesApprovedLast(ctx)
	if err != nil {
		return st, set, err
	}
	st.Before = ok
	kept := 0
	for i, r := range set.Rules {
		if before[r.Digest] {
			kept++
			continue
		}
		if st.New++; st.New <= maxNewShown {
			st.Some = append(st.Some, rulesLine{each[i].Level, each[i].ID, each[i].Title})
		}
	}
	st.Gone = len(before) - kept
	st.Waiting, err = s.wordsFor(ctx, actionRules, rulesAskedForm, set.Digest)
	return st, set, err
}

// standsChecks tells the doctor of rules for which nobody stands: what they find opens nobody
// to a responder, and on the night in which that is missed it is too late.
func (s *server) standsChecks(ctx context.Context) ([]pipeline.Check, error) {
	if s.force.Load().offices == nil {
		return nil, nil
	}
	st, _, err := s.rulesNow(ctx)
	if err != nil || st.Before && st.New == 0 {
		return nil, err
	}
	c := pipeline.Check{Name: "rules", State: "warn", Text: "no two people stand for the rules in force, so no finding opens anybody to a responder", Hint: "one person asks: counterseal rules activate; another approves"}
	if st.Before {
		c.Text = counted(st.New, "rule is", "rules are") + " new or altered since two people stood for them: what they find opens nobody to a responder"
	}
	return []pipeline.Check{c}, nil
}

// rulesApprovedLast gives the digests of the rules of the newest approved set. One that
// cannot be read has none: then all that is in force counts as new.
func (s *server) rulesApprovedLast(ctx context.Context) (map[string]bool, bool, error) {
	facts, err := s.pipe.Recorder().Facts(ctx, "rules.approved")
	if err != nil || len(facts) == 0 {
		return nil, false, err
	}
	last := facts[0]
	for _, f := range facts {
		if f.Index > last.Index {
			last = f
		}
	}
	var d struct {
		Rules ledger.Digest `json:"rules"`
	}
	if err := json.Unmarshal(last.Detail, &d); err != nil {
		return nil, false, nil
	}
	b, err := s.pipe.Recorder().Payload(d.Rules)
	if errors.Is(err, ledger.ErrNoPayload) {
		return nil, false, nil
	} else if err != nil {
		return nil, false, err
	}
	var p struct {
		Rules []struct {
			Digest string `json:"digest"`
		} `json:"rules"`
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, false, nil
	}
	out := map[string]bool{}
	for _, r := range p.Rules {
		out[r.Digest] = true
	}
	return out, true, nil
}

// wordsFor finds the requests for a set that hold, the newest first: stated, not used, not
// over, and of the form that its own statement says.
func (s *server) wordsFor(ctx context.Context, act, form, digest string) ([]wordGiven, error) {
	rec := s.pipe.Recorder()
	facts, err := rec.Facts(ctx, "approval.requested")
	if err != nil {
		return nil, err
	}
	slices.SortFunc(facts, func(a, b state.Fact) int { return cmp.Compare(b.Index, a.Index) })
	out := []wordGiven{}
	for _, f := range facts {
		var d struct {
			Act     string        `json:"act"`
			Expires string        `json:"expires"`
			Payload ledger.Digest `json:"payload"`
		}
		if json.Unmarshal(f.Detail, &d) != nil || d.Act != act {
			continue
		}
		b, err := rec.Payload(d.Payload)
		if errors.Is(err, ledger.ErrNoPayload) {
			continue
		} else if err != nil {
			return nil, err
		}
		r, until, err := parseAsked(form, b)
		if err != nil || r.ID != f.Key || r.Expires != d.Expires || r.Digest != digest || until.After(f.Time.Add(wordHolds+time.Second)) || !s.now().Before(until) {
			continue
		}
		if _, used, err := rec.Fact(ctx, "approval.used", f.Key); err != nil {
			return nil, err
		} else if used {
			continue
		}
		out = append(out, wordGiven{Asked: r.Asked, Until: until, id: r.ID})
	}
	return out, nil
}

// rulesActivate takes the word of the first of two people.
func (s *server) rulesActivate(ctx context.Context, _ string, _ []byte) (any, error) {
	return s.askForRules(ctx, web.AskerOf(ctx))
}

func (s *server) askForRules(ctx context.Context, a web.Asker) (any, error) {
	s.approving.Lock()
	defer s.approving.Unlock()
	me := strings.ToLower(a.Person.ID)
	if s.force.Load().offices == nil || a.Person.Office == "" {
		return nil, &web.Refused{Reason: "who asks for rules holds an office, and the record of offices does not have this one so", Hint: "counterseal offices show tells who does"}
	}
	st, _, err := s.rulesNow(ctx)
	if err != nil {
		return nil, err
	}
	st.Offices = s.couldDecide("rules.approve", me)
	for _, w := range st.Waiting {
		if w.Asked == me { // their word holds already
			st.Until = w.Until
			return st, nil
		}
	}
	until, err := s.giveWord(ctx, a, actionRules, rulesAskedForm, st.Digest)
	if err != nil {
		return nil, err
	}
	st.Until = until
	st.Waiting = append(st.Waiting, wordGiven{Asked: me, Until: until})
	return st, nil
}

// giveWord states that somebody stands for a set, and until when.
func (s *server) giveWord(ctx context.Context, a web.Asker, act, form, digest string) (until time.Time, err error) {
	id, err := uuid.NewV7()
	if err != nil {
		return until, err
	}
	until = s.now().UTC().Add(wordHolds).Truncate(time.Second)
	r := setAsked{Asked: strings.ToLower(a.Person.ID), Digest: digest, Expires: until.Format(time.RFC3339), Form: form, ID: id.String()}
	b, err := approval.Canonical(&r)
	if err != nil {
		return until, err
	}
	if _, _, err := parseAsked(form, b); err != nil {
		return until, web.BadRequest(err.Error(), "")
	}
	rec := s.pipe.Recorder()
	payload, err := rec.PutPayload(b)
	if err != nil {
		return until, err
	}
	_, err = rec.Record(ctx, attest.Act{Kind: "approval.requested", Actor: a.Actor, Subject: []string{r.ID},
		Detail: map[string]any{"act": act, "expires": r.Expires, "payload": payload}})
	return until, err
}

func (s *server) rulesWaiting(ctx context.Context, _ string, _ []byte) (any, error) {
	st, _, err := s.rulesNow(ctx)
	return st, err
}

// rulesApprove takes the word of the second: about the set that they name, which is the
// one in force, and which somebody else has asked for.
func (s *server) rulesApprove(ctx context.Context, _ string, body []byte) (any, error) {
	var in rulesNamed
	if json.Unmarshal(body, &in) != nil {
		return nil, web.BadRequest("this names no rule set", "")
	}
	return s.standForRules(ctx, web.AskerOf(ctx), in.Digest)
}

func (s *server) standForRules(ctx context.Context, a web.Asker, digest string) (any, error) {
	s.approving.Lock()
	defer s.approving.Unlock()
	st, set, err := s.rulesNow(ctx)
	if err != nil {
		return nil, err
	}
	id, err := s.approveRules(ctx, a, digest, &st, set)
	if err := decided(ctx, err); err != nil {
		return nil, err
	}
	if _, err := s.pipe.Recorder().Record(ctx, attest.Act{Kind: "approval.used", Actor: a.Actor, Subject: []string{id}, Detail: map[string]any{"request": id}}); err != nil {
		return nil, err
	}
	st, _, err = s.rulesNow(ctx)
	return st, err
}

func (s *server) approveRules(ctx context.Context, a web.Asker, digest string, st *rulesState, set cases.RuleSet) (id string, err error) {
	me, asked := strings.ToLower(a.Person.ID), wordGiven{}
	for _, w := range st.Waiting {
		if asked.id == "" || asked.Asked == me { // one of somebody else, where there is one
			asked = w
		}
	}
	switch {
	case digest != set.Digest:
		return "", &cases.Refusal{Code: cases.Altered, Reason: "the rules in force are other ones than those of this digest", Hint: "see what is in force: counterseal rules approve"}
	case asked.id == "":
		return "", &cases.Refusal{Code: cases.Over, Reason: "nobody has asked for these rules in the last 24 hours, or they are approved", Hint: "one person asks: counterseal rules activate; another approves"}
	case !a.Fresh:
		return "", &cases.Refusal{Code: cases.NotFresh, Reason: "the login is too old to decide", Hint: "log in again: counterseal login"}
	}
	return asked.id, s.cases.ApproveRules(ctx, asked.Asked, a.Person, set)
}

func newRulesActivate(env *environment) *cobra.Command {
	var f configFlags
	var l look
	cmd := &cobra.Command{Use: "activate", Short: "Stand for the rules in force, and ask a second person to", Args: cobra.NoArgs,
		Long: "Activate gives your word for the set of rules in force. It counts when another person gives\n" +
			"theirs for the same set within 24 hours: counterseal rules approve. Only then do findings of\n" +
			"these rules open their people to a responder.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var st rulesState
			if err := doActIn(cmd, env, &f, &l, "rules.activate", struct{}{}, &st); err != nil {
				return err
			}
			printRulesState(env.stdout, &st)
			printDeciders(env.stdout, st.Offices, "decide", "")
			_, err := fmt.Fprintf(env.stdout, "until    %s\nnext     another person: counterseal rules approve --digest %s\n", st.Until.Format(time.RFC3339), st.Digest)
			return err
		}}
	f.add(cmd)
	l.add(cmd)
	return cmd
}

func newRulesApprove(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var in rulesNamed
	cmd := &cobra.Command{Use: "approve [--digest D]", Short: "Stand for rules that somebody else asked for; without --digest: show them", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var st rulesState
			if in.Digest == "" {
				if err := doActIn(cmd, env, &f, &l, "rules.waiting", struct{}{}, &st); err != nil {
					return err
				}
				printRulesState(env.stdout, &st)
				for _, w := range st.Waiting {
					fmt.Fprintf(env.stdout, "asked by %s, until %s\n", event.Printable(w.Asked), w.Until.Format(time.RFC3339))
				}
				if len(st.Waiting) == 0 {
					fmt.Fprintln(env.stdout, "nobody asks for them: counterseal rules activate")
				}
				return nil
			}
			if err := doActIn(cmd, env, &f, &l, "rules.approve", &in, &st); err != nil {
				return err
			}
			_, err := fmt.Fprintf(env.stdout, "two people stand for the %d rules of %s\n", st.Rules, st.Digest)
			return err
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().StringVar(&in.Digest, "digest", "", "`digest` of the rule set, as rules activate printed it")
	return cmd
}

func printRulesState(w io.Writer, st *rulesState) {
	fmt.Fprintf(w, "digest   %s\nrules    %d in force\n", st.Digest, st.Rules)
	if !st.Before {
		fmt.Fprintln(w, "changed  no set was approved before: all of them")
		return
	}
	fmt.Fprintf(w, "changed  since the last approved set: %d new or altered, %d gone or altered\n", st.New, st.Gone)
	for _, r := range st.Some {
		fmt.Fprintf(w, "         %-13s %s\n", event.Printable(r.Level), shorten(event.Printable(r.Title), 70))
	}
	if more := st.New - len(st.Some); more > 0 {
		fmt.Fprintf(w, "         and %d more\n", more)
	}
}
