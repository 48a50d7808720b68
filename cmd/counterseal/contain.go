package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/broker"
	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/pipeline"
	"github.com/counterseal/counterseal/internal/query"
	"github.com/counterseal/counterseal/internal/state"
	"github.com/counterseal/counterseal/internal/web"
)

// What the acts of containment are given and answer.
type (
	containAsk struct {
		whom
		Act     string `json:"act"`
		Seconds int64  `json:"seconds,omitempty"` // that what lasts lasts
	}
	containNamed struct {
		ID     string `json:"id"`
		Digest string `json:"digest,omitempty"`
	}
	containRow struct {
		ID     string    `json:"id"`
		Act    string    `json:"act"`
		Case   string    `json:"case"`
		Target string    `json:"target"` // empty where the order is of another case
		State  string    `json:"state"`  // waiting, done, failed, undone, or unknown
		Asked  time.Time `json:"asked"`
		By     string    `json:"by"`
		Until  string    `json:"until,omitempty"`
		Digest string    `json:"digest"`
		Notice string    `json:"notice,omitempty"`
	}
	// containForm is the payload of containment.ordered.
	containForm struct {
		Asker string `json:"asker"` // person id
		Form  string `json:"form"`
		Order string `json:"order"` // its bytes, unpadded base64url
	}
	// containDetail is the detail of containment.ordered.
	containDetail struct {
		broker.Ordered
		What ledger.Digest `json:"what"`
	}
)

const containFormName = "containment.order/v1"

// containWord is how long an order waits for a second person.
const containWord = 24 * time.Hour

// ordered is one order as the ledger has it.
type ordered struct {
	fact   state.Fact
	detail containDetail
	form   containForm
	bytes  []byte
	order  *broker.Order
}

func (s *server) orderOf(ctx context.Context, id string) (*ordered, error) {
	f, ok, err := s.pipe.Recorder().Fact(ctx, broker.KindOrdered, id)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, web.BadRequest("there is no such order", "counterseal contain list")
	}
	return s.readOrder(f)
}

func (s *server) readOrder(f state.Fact) (*ordered, error) {
	o := ordered{fact: f}
	if err := json.Unmarshal(f.Detail, &o.detail); err != nil {
		return nil, fmt.Errorf("order %s: %w", f.Key, err)
	}
	b, err := s.pipe.Recorder().Payload(o.detail.What)
	if err != nil {
		return nil, fmt.Errorf("order %s: %w", f.Key, err)
	}
	if err := approval.Decode(b, &o.form); err != nil || o.form.Form != containFormName {
		return nil, fmt.Errorf("order %s: its payload is of another form", f.Key)
	}
	if o.bytes, err = base64.RawURLEncoding.DecodeString(o.form.Order); err != nil || broker.DigestOf(o.bytes) != o.detail.Order {
		return nil, fmt.Errorf("order %s: its payload is another one", f.Key)
	}
	o.order, err = broker.ParseOrder(o.bytes)
	return &o, err
}

// hasBroker reports whether a broker is configured, on this machine or another.
func (s *server) hasBroker() bool { return s.broker != nil }

const brokerHint = "`broker` in " + configName + " says where it takes orders; see docs/operations.md"

// brokerChecks tells the doctor whether the broker is reached.
func (s *server) brokerChecks(ctx context.Context) []pipeline.Check {
	if !s.hasBroker() {
		return nil
	}
	c := pipeline.Check{Name: "broker", State: "ok", Text: "it takes orders"}
	if err := s.broker.Reached(ctx); err != nil {
		c.State, c.Text = "warn", err.Error()+": no account is contained, and nobody told that they were looked at"
		c.Hint = "start it, or look at `broker` in " + configName
	}
	return []pipeline.Check{c}
}

// containOrder asks for an act. Where an incident grant, or a broken glass, has opened
// who it is about to the asker, it is done at once.
func (s *server) containOrder(ctx context.Context, actor string, body []byte) (any, error) {
	var in containAsk
	if json.Unmarshal(body, &in) != nil {
		return nil, web.BadRequest("this is no order", "")
	}
	if !s.hasBroker() {
		return nil, &web.Refused{Reason: "no broker is configured", Hint: brokerHint}
	}
	a := web.AskerOf(ctx)
	if in.Act == broker.Notify {
		return nil, web.BadRequest("a notice is not an order of a case", "an overseer: counterseal oversight notices")
	}
	if !cases.IsCase(a.Case) {
		return nil, web.BadRequest("the case is missing", "--case names it")
	}
	named, err := s.subjectsOf(ctx, in.whom)
	if err != nil {
		return nil, err
	}
	if len(named) != 1 {
		return nil, web.BadRequest("an order is about one person or one machine", "name one by --person or --host")
	}
	target := named[0].Value
	if event.IsToken([]byte(strings.ToLower(target))) {
		target = strings.ToLower(target)
	}
	o := broker.Order{Act: in.Act, Case: a.Case, Target: target}
	if in.Seconds < 0 || in.Seconds > int64(broker.MaxUntil/time.Second) {
		return nil, web.BadRequest("an act lasts up to 14 days", "name another end")
	}
	if in.Seconds > 0 {
		o.Until = s.now().UTC().Add(time.Duration(in.Seconds) * time.Second).Truncate(time.Second).Format(time.RFC3339)
	}
	grant, err := s.openedBy(ctx, a, named)
	if err != nil {
		return nil, err
	}
	return s.order(ctx, actor, a, o, grant)
}

// openedBy gives what had opened somebody to the asker before they asked, empty for
// nothing.
func (s *server) openedBy(ctx context.Context, a web.Asker, named []cases.Named) (string, error) {
	c, err := s.cases.Covers(ctx, a.Person, a.Case, s.questionAbout(named[0]))
	if err != nil || c.Grant != cases.Covers {
		return "", err
	}
	return c.ID, nil
}

// questionAbout is the question about one person or one machine.
func (s *server) questionAbout(n cases.Named) cases.Question {
	field := "user.uid"
	if n.Who != access.ByToken {
		field = "device.hostname"
	}
	q := access.Search{Query: &query.Query{Where: query.Equal{Field: field, Pattern: query.Literal(n.Value)}}}
	o := s.pipe.Asking()
	return cases.Question{Named: access.Named(q, o), Verdict: access.Selects(q, o)}
}

// order states an order, and has it done where nobody else has to agree.
func (s *server) order(ctx context.Context, actor string, a web.Asker, o broker.Order, grant string) (any, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, 16)
	rand.Read(nonce)
	o.Form, o.ID, o.Org, o.Nonce = broker.OrderForm, id.String(), s.pipe.Org().String(), base64.RawURLEncoding.EncodeToString(nonce)
	b, err := o.Bytes()
	if err != nil {
		return nil, err
	}
	if _, err := broker.ParseOrder(b); err != nil {
		return nil, web.BadRequest(err.Error(), "see: counterseal contain --help")
	}
	form, err := approval.Canonical(&containForm{Asker: strings.ToLower(a.Person.ID), Form: containFormName, Order: base64.RawURLEncoding.EncodeToString(b)})
	if err != nil {
		return nil, err
	}
	rec := s.pipe.Recorder()
	what, err := rec.PutPayload(form)
	if err != nil {
		return nil, err
	}
	if _, err := rec.Record(ctx, attest.Act{Kind: broker.KindOrdered, Actor: actor, Purpose: o.Case, Subject: []string{o.ID},
		Detail: containDetail{broker.Ordered{Act: o.Act, Grant: grant, Order: broker.DigestOf(b)}, what}}); err != nil {
		return nil, err
	}
	got, err := s.orderOf(ctx, o.ID)
	if err != nil {
		return nil, err
	}
	if grant == "" && o.Undoes == "" && o.Act != broker.Notify {
		return s.containRow(ctx, got)
	}
	answer, err := s.send(ctx, actor, got)
	if o.Act == broker.Notify && strings.HasSuffix(o.Case, listedSuffix) { // whom a list held is kept nowhere
		err = errors.Join(err, rec.Ledger().DropPayload(what))
	}
	return answer, err
}

// containBy refuses who may not stand for an order, or take it back: somebody whom two
// people put into no office, for one alone can make accounts; and who asks in another case.
func (s *server) containBy(a web.Asker, o *ordered) error {
	if s.force.Load().offices == nil || a.Person.Office == "" {
		return &web.Refused{Reason: "the holder of an office does this, and the record of offices does not have this one so", Hint: "counterseal offices show tells who does"}
	}
	if a.Case != o.order.Case {
		return &web.Refused{Reason: "the order is of another case", Hint: "name its case with --case: counterseal contain list tells it"}
	}
	return nil
}

// containAgree is the word of the second person, about the order that they read.
func (s *server) containAgree(ctx context.Context, actor string, body []byte) (any, error) {
	var in containNamed
	if json.Unmarshal(body, &in) != nil {
		return nil, web.BadRequest("this names no order", "")
	}
	s.approving.Lock()
	defer s.approving.Unlock()
	o, err := s.orderOf(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	row, err := s.containRow(ctx, o)
	if err != nil {
		return nil, err
	}
	a := web.AskerOf(ctx)
	if err := s.containBy(a, o); err != nil {
		return nil, err
	}
	var no *cases.Refusal
	switch {
	case in.Digest != o.detail.Order:
		no = &cases.Refusal{Code: cases.Altered, Reason: "the order is another one than the one that you read", Hint: "read it again: counterseal contain list"}
	case row.State != "waiting":
		no = &cases.Refusal{Code: cases.Settled, Reason: "the order does not wait any more", Hint: "counterseal contain list"}
	case strings.ToLower(a.Person.ID) == o.form.Asker || actor == o.fact.Actor:
		no = &cases.Refusal{Code: cases.NotPermitted, Reason: "nobody agrees to their own order", Hint: "another person does: counterseal contain agree"}
	case !a.Fresh:
		no = &cases.Refusal{Code: cases.NotFresh, Reason: "the login is too old to decide", Hint: "log in again: counterseal login"}
	}
	if no != nil {
		web.Judged(ctx, no.Code)
		return nil, caseError(no)
	}
	if _, err := s.pipe.Recorder().Record(ctx, attest.Act{Kind: broker.KindAgreed, Actor: actor, Purpose: o.order.Case, Subject: []string{in.ID}, Detail: broker.Agreed{Order: in.Digest}}); err != nil {
		return nil, err
	}
	return s.send(ctx, actor, o)
}

// containUndo takes back what lasts.
func (s *server) containUndo(ctx context.Context, actor string, body []byte) (any, error) {
	var in containNamed
	if json.Unmarshal(body, &in) != nil {
		return nil, web.BadRequest("this names no order", "")
	}
	old, err := s.orderOf(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if err := s.containBy(web.AskerOf(ctx), old); err != nil {
		return nil, err
	}
	if old.order.Until == "" {
		return nil, web.BadRequest("there is nothing to take back: "+old.order.Act+" does not last", "")
	}
	return s.order(ctx, actor, web.AskerOf(ctx), broker.Order{Act: old.order.Act, Case: old.order.Case, Target: old.order.Target, Undoes: in.ID}, "")
}

// send has an order done, and states what came of it.
func (s *server) send(ctx context.Context, actor string, o *ordered) (any, error) {
	asked := broker.Asked{Order: o.bytes}
	var err error
	if asked.Asks, err = s.proven(ctx, o.fact.Index); err != nil {
		return nil, err
	}
	if f, ok, err := s.pipe.Recorder().Fact(ctx, broker.KindAgreed, o.order.ID); err != nil {
		return nil, err
	} else if ok {
		p, err := s.proven(ctx, f.Index)
		if err != nil {
			return nil, err
		}
		asked.Agrees = &p
	}
	// It goes on when nobody waits for the answer.
	ctx = context.WithoutCancel(ctx)
	came, err := s.broker.Do(ctx, asked)
	var no *broker.Refusal
	switch {
	case errors.As(err, &no), errors.Is(err, broker.ErrUnreached):
		came = broker.Failed
	case err != nil:
		came = "unknown"
	}
	id := o.order.ID
	if o.order.Undoes != "" && came == broker.Undone {
		id = o.order.Undoes
	}
	if _, rerr := s.pipe.Recorder().Record(ctx, attest.Act{Kind: broker.KindDone, Actor: actor, Purpose: o.order.Case, Subject: []string{id}, Detail: map[string]any{"order": o.order.ID, "state": came}}); rerr != nil {
		return nil, rerr
	}
	switch {
	case no != nil:
		return nil, &web.Refused{Reason: no.Reason, Hint: cmp.Or(no.Hint, "counterseal contain list")}
	case errors.Is(err, broker.ErrUnreached):
		return nil, &web.Refused{Reason: err.Error() + ", and nothing was done", Hint: "have it started, and order it anew; counterseal doctor tells when it is reached"}
	case err != nil:
		return nil, &web.Refused{Reason: err.Error() + "; nobody knows whether it was done", Hint: "who runs the broker finds the order in its journal"}
	}
	if id != o.order.ID {
		if o, err = s.orderOf(ctx, id); err != nil {
			return nil, err
		}
	}
	return s.containRow(ctx, o)
}

// proven gives a statement with its proof, as soon as the witnesses have cosigned a
// checkpoint over it. Where they have not within 10 seconds it gives what there is: the
// broker says whether that is enough.
func (s *server) proven(ctx context.Context, index uint64) (broker.Proven, error) {
	l := s.pipe.Recorder().Ledger()
	leaf, err := l.Leaf(ctx, index)
	if err != nil {
		return broker.Proven{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		seen, _ := l.Witnessed()
		proof, err := l.Prove(ctx, index)
		wait := errors.Is(err, ledger.ErrUncovered) || err == nil && seen <= index && len(s.cfg.Witnesses) > 0
		if !wait {
			return broker.Proven{Leaf: leaf, Proof: proof}, err
		}
		select {
		case <-ctx.Done():
			if err == nil {
				return broker.Proven{Leaf: leaf, Proof: proof}, nil
			}
			return broker.Proven{}, fmt.Errorf("the order stands in the ledger, and is not done: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *server) containRow(ctx context.Context, o *ordered) (containRow, error) {
	r := containRow{ID: o.order.ID, Act: o.order.Act, Case: o.order.Case, Target: o.order.Target, Until: o.order.Until, Asked: o.fact.Time.UTC().Truncate(time.Second), By: o.form.Asker, Digest: o.detail.Order, State: "waiting"}
	if o.detail.Grant != "" {
		r.Notice = "by one person, under what had opened this to them; somebody else reviews it"
	}
	rec := s.pipe.Recorder()
	done, ok, err := rec.Fact(ctx, broker.KindDone, o.order.ID)
	if err != nil {
		return r, err
	}
	if ok {
		var d struct {
			State string `json:"state"`
		}
		if err := json.Unmarshal(done.Detail, &d); err != nil {
			return r, err
		}
		r.State = d.State
		if until, err := time.Parse(time.RFC3339, r.Until); d.State == broker.Done && r.Until != "" && err == nil && !s.now().Before(until) {
			r.State = broker.Undone // by the broker, at its time
		}
		return r, nil
	}
	if s.now().Sub(o.fact.Time) > containWord {
		r.State = "expired"
	}
	return r, nil
}

// containList lists the orders of all cases, and whom they are about for the case that is
// named, and for those who watch: nobody learns of a colleague's case who is in it.
func (s *server) containList(ctx context.Context, _ string, _ []byte) (any, error) {
	a := web.AskerOf(ctx)
	facts, err := s.pipe.Recorder().Facts(ctx, broker.KindOrdered)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(facts, func(a, b state.Fact) int { return cmp.Compare(b.Index, a.Index) })
	out := []containRow{}
	for _, f := range facts {
		o, err := s.readOrder(f)
		if errors.Is(err, ledger.ErrNoPayload) {
			continue
		} else if err != nil {
			return nil, err
		}
		if o.order.Undoes != "" || o.order.Act == broker.Notify { // whom a notice is about is not theirs to see
			continue
		}
		r, err := s.containRow(ctx, o)
		if err != nil {
			return nil, err
		}
		if r.Case != a.Case && !slices.Contains(a.Person.Roles, "overseer") {
			r.Target = ""
		}
		if out = append(out, r); len(out) == maxListed {
			break
		}
	}
	return out, nil
}

// maxListed bounds a list of orders: the newest.
const maxListed = 200

func newContain(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "contain", Short: "Contact, disable, revoke, isolate, without learning whose account it is", Args: cobra.NoArgs,
		Long: "Contain asks the broker, a process of its own, to do one thing to an account or a machine.\n" +
			"The broker alone finds out whose it is, and tells nobody. Two people stand for an order;\n" +
			"where an incident grant or a broken glass has opened the person to you, you alone do, and\n" +
			"somebody else reviews it. What lasts ends at its time by itself, or by contain undo.",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	for _, act := range []string{broker.Contact, broker.Disable, broker.Sessions, broker.Isolate} {
		cmd.AddCommand(newContainAct(env, act))
	}
	cmd.AddCommand(newContainAgree(env), newContainUndo(env), newContainList(env))
	return cmd
}

func newContainAct(env *environment, act string) *cobra.Command {
	var f configFlags
	var l look
	var hold string
	in := containAsk{Act: act}
	short := map[string]string{
		broker.Contact: "Have the person told to call", broker.Disable: "Keep an account from logging in, for a time",
		broker.Sessions: "Close what an account has open", broker.Isolate: "Cut a machine off, for a time",
	}[act]
	lasts := act == broker.Disable || act == broker.Isolate
	use := act + " --case C [ALIAS]"
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.MaximumNArgs(1), Long: short + ".\n\n" + aliasHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			in.People = append(in.People, args...)
			if l.caseID == "" || len(in.People)+len(in.Hosts) != 1 {
				return usage("--case is the case, and one alias or --host whom it is about")
			}
			if lasts {
				d, err := time.ParseDuration(hold)
				if err != nil || d < time.Minute || d > broker.MaxUntil {
					return usage("--for is a time such as 4h, up to 336h")
				}
				in.Seconds = int64(d / time.Second)
			}
			var r containRow
			if err := doActIn(cmd, env, &f, &l, "contain.order", &in, &r); err != nil {
				return err
			}
			return printContain(env, &r)
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().StringArrayVar(&in.Hosts, "host", nil, "`name` of a machine, instead of an alias")
	if lasts {
		cmd.Flags().StringVar(&hold, "for", "4h", "how long, such as 4h; then it is undone by itself")
	}
	return cmd
}

func printContain(env *environment, r *containRow) error {
	fmt.Fprintf(env.stdout, "%s  %s  %s\n", r.State, r.Act, event.Printable(r.Target))
	if r.Until != "" && r.State == broker.Done {
		fmt.Fprintf(env.stdout, "until    %s; back at once: counterseal contain undo %s --case %s\n", r.Until, r.ID, event.Printable(r.Case))
	}
	if r.State == "waiting" {
		fmt.Fprintf(env.stdout, "next     another person: counterseal contain agree %s --digest %s --case %s\n", r.ID, r.Digest, event.Printable(r.Case))
	}
	if r.Notice != "" {
		fmt.Fprintf(env.stdout, "note     %s\n", r.Notice)
	}
	return nil
}

func newContainAgree(env *environment) *cobra.Command {
	var in containNamed
	cmd := newContainOn(env, "agree ID --digest D --case C", "Stand for an order of somebody else; it is done at once", "contain.agree", &in)
	cmd.Flags().StringVar(&in.Digest, "digest", "", "`digest` of the order, as contain list shows it")
	return cmd
}

func newContainUndo(env *environment) *cobra.Command {
	var in containNamed
	return newContainOn(env, "undo ID --case C", "Take back what lasts, before its end", "contain.undo", &in)
}

func newContainOn(env *environment, use, short, act string, in *containNamed) *cobra.Command {
	var f configFlags
	var l look
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.ID = args[0]
			var r containRow
			if err := doActIn(cmd, env, &f, &l, act, in, &r); err != nil {
				return err
			}
			return printContain(env, &r)
		}}
	f.add(cmd)
	l.add(cmd)
	return cmd
}

func newContainList(env *environment) *cobra.Command {
	var f configFlags
	var l look
	cmd := &cobra.Command{Use: "list [--case C]", Short: "The orders, the newest first; whom they are about, in the case that is named", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var rows []containRow
			if err := doActIn(cmd, env, &f, &l, "contain.list", struct{}{}, &rows); err != nil {
				return err
			}
			if len(rows) == 0 {
				_, err := fmt.Fprintln(env.stdout, "nothing was ordered")
				return err
			}
			w := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "STATE\tACT\tTARGET\tCASE\tASKED\tUNTIL\tID\tDIGEST")
			for _, r := range rows {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.State, r.Act, cmp.Or(event.Printable(r.Target), "-"), event.Printable(r.Case), r.Asked.Format(time.RFC3339), cmp.Or(r.Until, "-"), r.ID, r.Digest)
			}
			return w.Flush()
		}}
	f.add(cmd)
	l.add(cmd)
	return cmd
}
