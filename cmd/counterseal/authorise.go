package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/pipeline"
	"github.com/counterseal/counterseal/internal/policy"
	"github.com/counterseal/counterseal/internal/web"
)

// What the acts about authorisations are given and answer.
type (
	// whom names people and machines in a request; aliases count in the case of the request.
	whom struct {
		People []string `json:"people"` // aliases
		Hosts  []string `json:"hosts"`
	}
	authoriseAsk struct {
		whom
		Sources   []string  `json:"sources"`
		From      time.Time `json:"from"`
		To        time.Time `json:"to"`
		Reverse   bool      `json:"reverse"`
		Predicate string    `json:"predicate"`
		Basis     string    `json:"basis"`
		Ends      time.Time `json:"ends"`
		Readers   []string  `json:"readers"`
		Counsel   bool      `json:"counsel"`
		Outside   bool      `json:"outside"`
	}
	authorisationRow struct {
		ID        string    `json:"id"`
		State     string    `json:"state"`
		Case      string    `json:"case"`
		Asked     time.Time `json:"asked"`
		Ends      time.Time `json:"ends"`
		Requester string    `json:"requester"`
		Readers   []string  `json:"readers,omitempty"`
		Approvers []string  `json:"approvers,omitempty"`
		Basis     string    `json:"basis"`
		Predicate string    `json:"predicate"`
		Subjects  []string  `json:"subjects"`
		Sources   []string  `json:"sources,omitempty"`
		From      time.Time `json:"from"`
		To        time.Time `json:"to"`
		Reverse   bool      `json:"reverse"`
		Counsel   bool      `json:"counsel"`
		Outside   bool      `json:"outside"`
		Reason    string    `json:"reason,omitempty"`
		Digest    string    `json:"digest"`
		// Of an inspector's office. Others see no more than that, and the state.
		Inspector bool   `json:"inspector,omitempty"`
		Office    string `json:"office,omitempty"`
		Code      string `json:"code,omitempty"`
		Locked    bool   `json:"locked,omitempty"`
		// Offices are those whose holders could decide; of a request that waits.
		Offices []string `json:"offices,omitempty"`
	}
	authoriseNamed struct {
		ID      string `json:"id"`
		Digest  string `json:"digest,omitempty"`
		Approve bool   `json:"approve,omitempty"`
		Reason  string `json:"reason,omitempty"`
		Code    string `json:"code,omitempty"` // of what an inspector's office asked for
	}
)

// caseError tells an asker what internal/cases said.
func caseError(err error) error {
	var r *cases.Refusal
	if !errors.As(err, &r) {
		return err
	}
	if r.Code == cases.BadInput || r.Code == cases.Unknown {
		return web.BadRequest(r.Reason, r.Hint)
	}
	return &web.Refused{Reason: r.Reason, Hint: r.Hint}
}

// decided closes an act that internal/cases has decided.
func decided(ctx context.Context, err error) error {
	var r *cases.Refusal
	switch {
	case err == nil:
		web.Judged(ctx, "")
	case errors.As(err, &r):
		web.Judged(ctx, r.Code)
	}
	return caseError(err)
}

// subjectsOf gives the tokens behind aliases, and hosts as questions name them. A name
// stays outside: it would stand in the scope as it was typed.
func (s *server) subjectsOf(ctx context.Context, w whom) ([]cases.Named, error) {
	var out []cases.Named
	for _, text := range w.People {
		token, err := s.web.Meant(ctx, strings.TrimSpace(text))
		if err != nil {
			return nil, err
		}
		if !event.IsToken([]byte(token)) {
			return nil, web.BadRequest("a person is named by the alias that an answer showed", "such as person-…; search in the case first: counterseal search --case CASE …")
		}
		out = append(out, cases.Named{Who: access.ByToken, Value: token})
	}
	asking := s.pipe.Asking()
	for _, text := range w.Hosts {
		host, err := s.web.Meant(ctx, strings.TrimSpace(text))
		if err != nil {
			return nil, err
		}
		id, ok := access.Canonical("device.hostname", host, asking)
		if !ok || asking.Known(host) {
			return nil, web.BadRequest("a host is one host by its name, which is not that of somebody", "take what an answer showed as device.hostname")
		}
		out = append(out, id)
	}
	return out, nil
}

func values(named []cases.Named) []string {
	out := make([]string, len(named))
	for i, n := range named {
		out[i] = n.Value
	}
	return out
}

func (s *server) authoriseRequest(ctx context.Context, _ string, body []byte) (any, error) {
	var in authoriseAsk
	if json.Unmarshal(body, &in) != nil {
		return nil, web.BadRequest("this is no request for an authorisation", "")
	}
	named, err := s.subjectsOf(ctx, in.whom)
	if err != nil {
		return nil, err
	}
	a := web.AskerOf(ctx)
	id, err := s.cases.Request(ctx, a.Person, cases.Authorisation{
		Case: a.Case, Predicate: in.Predicate, Basis: in.Basis, Readers: in.Readers, Ends: in.Ends, Counsel: in.Counsel, Outside: in.Outside,
		Scope: cases.Scope{Subjects: values(named), Sources: in.Sources, From: in.From, To: in.To, Reverse: in.Reverse},
	})
	if err != nil {
		return nil, caseError(err)
	}
	return s.authorisationNow(ctx, id)
}

func (s *server) authorisationRow(v *cases.Authorisation) authorisationRow {
	r := authorisationRow{
		ID: v.ID, State: string(v.State), Case: v.Case, Asked: v.Asked.UTC().Truncate(time.Second), Ends: v.Ends, Requester: v.Requester, Readers: v.Readers,
		Approvers: v.Approvers, Basis: v.Basis, Predicate: v.Predicate, Subjects: v.Scope.Subjects, Sources: v.Scope.Sources, From: v.Scope.From, To: v.Scope.To,
		Reverse: v.Scope.Reverse, Counsel: v.Counsel, Outside: v.Outside, Reason: v.Reason, Digest: v.Digest,
		Inspector: v.Inspector, Office: v.Office, Code: v.Code, Locked: v.Locked,
	}
	if v.State == cases.Requested && v.Requester != "" {
		r.Offices = s.couldDecide("authorise", append([]string{v.Requester}, v.Readers...)...)
	}
	return r
}

// couldDecide names the offices whose holders the policies let decide on what others
// asked for. It is for the eyes of the asker: internal/cases decides.
func (s *server) couldDecide(act string, owners ...string) []string {
	force := s.force.Load()
	if force.offices == nil {
		return nil
	}
	var out []string
	for i := range force.offices.Offices {
		o := &force.offices.Offices[i]
		p, ok := force.offices.Person(o.ID)
		if !ok {
			continue
		}
		could := true
		for _, owner := range owners {
			owner = strings.ToLower(owner)
			chain, _ := force.offices.Chain(owner)
			for _, of := range force.offices.Offices {
				if strings.ToLower(of.Holder) == owner {
					could = could && force.policy.Decide(policy.Request{
						Principal: p, Action: act, Resource: policy.Resource{Owner: owner, Chain: append([]string{}, chain...), Authority: of.Authority, Inspector: of.Inspector},
						Context: policy.Context{Now: s.now(), Offices: "kept", Crowd: string(access.CrowdNone)},
					}).Allow
				}
			}
			could = could && strings.ToLower(o.Holder) != owner
		}
		if could {
			out = append(out, o.ID)
		}
	}
	return out
}

// authoriseList shows all to those who decide and watch, and to others what is theirs.
func (s *server) authoriseList(ctx context.Context, _ string, body []byte) (any, error) {
	var in authoriseNamed
	if json.Unmarshal(body, &in) != nil {
		return nil, web.BadRequest("this names no authorisation", "")
	}
	me := web.AskerOf(ctx).Person
	if in.Code != "" {
		if err := s.cases.Unlock(ctx, me, in.ID, in.Code); err != nil {
			return nil, caseError(err)
		}
	}
	all, err := s.cases.AuthorisationsFor(ctx, me)
	if err != nil {
		return nil, caseError(err)
	}
	watches := slices.Contains(me.Roles, "privacy_officer") || slices.Contains(me.Roles, "overseer")
	id := strings.ToLower(me.ID)
	rows := []authorisationRow{}
	for i := range all {
		v := &all[i]
		if in.ID != "" && v.ID != in.ID || !watches && !(v.Inspector && v.Digest != "") && v.Requester != id && !slices.Contains(v.Readers, id) {
			continue
		}
		rows = append(rows, s.authorisationRow(v))
	}
	if in.ID != "" && len(rows) == 0 {
		return nil, web.BadRequest("there is no authorisation with this id that you may see", "look at: counterseal authorise list")
	}
	return rows, nil
}

func (s *server) authoriseDecide(ctx context.Context, _ string, body []byte) (any, error) {
	var in authoriseNamed
	if json.Unmarshal(body, &in) != nil {
		return nil, web.BadRequest("this is no decision about an authorisation", "")
	}
	a := web.AskerOf(ctx)
	if err := decided(ctx, s.cases.Decide(ctx, a.Person, a.Fresh, in.ID, in.Digest, in.Approve)); err != nil {
		return nil, err
	}
	s.stand(ctx)
	return s.authorisationNow(ctx, in.ID)
}

func (s *server) authoriseEnd(ctx context.Context, _ string, body []byte) (any, error) {
	var in authoriseNamed
	if json.Unmarshal(body, &in) != nil {
		return nil, web.BadRequest("this names no authorisation", "")
	}
	if err := decided(ctx, s.cases.End(ctx, web.AskerOf(ctx).Person, in.ID, in.Reason)); err != nil {
		return nil, err
	}
	s.stand(ctx)
	return s.authorisationNow(ctx, in.ID)
}

func (s *server) authorisationNow(ctx context.Context, id string) (any, error) {
	v, err := s.cases.AuthorisationFor(ctx, web.AskerOf(ctx).Person, id)
	if err != nil {
		return nil, err
	}
	return s.authorisationRow(&v), nil
}

// caseChecks tells the doctor what waits for people: reviews, inquiries, broken glasses.
func (s *server) caseChecks(ctx context.Context) ([]pipeline.Check, error) {
	reviews, err := s.cases.Reviews(ctx)
	if err != nil {
		return nil, err
	}
	inquiries, err := s.cases.Inquiries(ctx)
	if err != nil {
		return nil, err
	}
	now := s.now()
	glasses, late, waiting, due := 0, 0, 0, 0
	for i := range reviews {
		if reviews[i].Kind == cases.KindGlass && now.Before(reviews[i].Until) {
			glasses++
		}
		if reviews[i].Overdue {
			late++
		}
	}
	for i := range inquiries {
		if inquiries[i].Outcome == "" {
			waiting++
		}
		if inquiries[i].Overdue {
			due++
		}
	}
	var out []pipeline.Check
	if glasses > 0 {
		out = append(out, pipeline.Check{Name: "glass", State: "warn", Text: fmt.Sprintf("%d broken and open still", glasses), Hint: "counterseal review list"})
	}
	switch {
	case late > 0:
		out = append(out, pipeline.Check{Name: "reviews", State: "warn", Text: fmt.Sprintf("%d of %d wait for more than %d days", late, len(reviews), int(cases.ReviewWithin/(24*time.Hour))), Hint: "counterseal review list"})
	case len(reviews) > 0:
		out = append(out, pipeline.Check{Name: "reviews", State: "ok", Text: fmt.Sprintf("%d wait, none overdue", len(reviews))})
	}
	switch {
	case due > 0:
		out = append(out, pipeline.Check{Name: "inquiries", State: "warn", Text: fmt.Sprintf("%d of %d that wait are overdue", due, waiting), Hint: "counterseal inquiry list"})
	case waiting > 0:
		out = append(out, pipeline.Check{Name: "inquiries", State: "ok", Text: fmt.Sprintf("%d wait, none overdue", waiting)})
	}
	return out, nil
}

// doActIn is doAct with a purpose and in a case.
func doActIn(cmd *cobra.Command, env *environment, f *configFlags, l *look, name string, in, out any) (err error) {
	cfg, err := f.load()
	if err != nil {
		return err
	}
	c, err := dial(cmd.Context(), env, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	return c.actIn(cmd.Context(), l, name, in, out)
}

const aliasHelp = "An alias counts in the case that showed it, without a case for its day: search with the\n" +
	"same --case first, and take the alias from that answer."

func newAuthorise(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "authorise", Short: "Authorisations to ask about people: request, decide, end", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newAuthoriseRequest(env), newAuthoriseList(env), newAuthoriseShow(env), newAuthoriseDecide(env, true), newAuthoriseDecide(env, false), newAuthoriseEnd(env))
	return cmd
}

func newAuthoriseRequest(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var in authoriseAsk
	var from, to, ends string
	cmd := &cobra.Command{
		Use:   "request --case C --person ALIAS… --from T --to T --predicate P --basis CODE --ends DAY",
		Short: "Ask to be allowed to ask about people", Args: cobra.NoArgs,
		Long: "Request asks for an authorisation. It covers nothing until somebody of another chain of\n" +
			"command, appointed by another authority, has read and approved it: counterseal authorise\n" +
			"show. More than 20 people need a second office, more than 100 one outside.\n\n" + aliasHelp,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := need(cmd, "case", "predicate", "basis", "from", "to", "ends")
			if err != nil {
				return err
			}
			if in.From, err = flagTime("from", from); err != nil {
				return err
			}
			if in.To, err = flagTime("to", to); err != nil {
				return err
			}
			if in.Ends, err = time.Parse(time.DateOnly, ends); err != nil {
				return usage("--ends: write a day like 2027-03-01")
			}
			var r authorisationRow
			if err := doActIn(cmd, env, &f, &l, "authorise.request", &in, &r); err != nil {
				return err
			}
			fmt.Fprintf(env.stdout, "requested  %s\ndigest     %s\n", r.ID, r.Digest)
			if r.Code != "" {
				fmt.Fprintf(env.stdout, "code       %s\n           keep it: the server forgets it when it stops, and covers nothing without it\n", r.Code)
			}
			printDeciders(env.stdout, r.Offices, "decide", needs(&r))
			_, err = fmt.Fprintf(env.stdout, "next       counterseal authorise show %s\n           one of them reads that, and approves or refuses\n", r.ID)
			return err
		}}
	f.add(cmd)
	l.add(cmd)
	addWhom(cmd, &in.whom)
	cmd.Flags().StringArrayVar(&in.Sources, "source", nil, "only what this `source` sent; repeats (default: all)")
	cmd.Flags().StringVar(&from, "from", "", "earliest event `time`, RFC 3339")
	cmd.Flags().StringVar(&to, "to", "", "latest event `time`, not behind --ends")
	cmd.Flags().BoolVar(&in.Reverse, "reverse", false, "it may list people by what they did")
	cmd.Flags().StringVar(&in.Predicate, "predicate", "", "`id` of the finding, or SHA-256 of the allegation's file")
	cmd.Flags().StringVar(&in.Basis, "basis", "", "`code` of the legal basis")
	cmd.Flags().StringVar(&ends, "ends", "", "`day` that ends it, as it begins, UTC; at most 90 days ahead")
	cmd.Flags().StringArrayVar(&in.Readers, "reader", nil, "`account` of who may use it too; repeats")
	cmd.Flags().BoolVar(&in.Counsel, "counsel", false, "ask for a second decision, also for few people")
	cmd.Flags().BoolVar(&in.Outside, "outside", false, "ask for the decision of an office outside, also for few people")
	return cmd
}

func addWhom(cmd *cobra.Command, w *whom) {
	cmd.Flags().StringArrayVar(&w.People, "person", nil, "`alias` of somebody, as an answer in this case showed it; repeats")
	cmd.Flags().StringArrayVar(&w.Hosts, "host", nil, "`name` of a machine; repeats")
}

// needs says what decisions a request needs.
func needs(r *authorisationRow) string {
	switch {
	case r.Outside:
		return "; two, one of them outside of the organisation"
	case r.Counsel:
		return "; two, one of them the overseer or outside of the organisation"
	}
	return ""
}

func printDeciders(w io.Writer, offices []string, verb, more string) {
	if len(offices) == 0 {
		fmt.Fprintf(w, "nobody in office can %s: look at counterseal offices check\n", verb)
		return
	}
	fmt.Fprintf(w, "can %-6s %s%s\n", verb, strings.Join(offices, ", "), more)
}

func newAuthoriseList(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var format string
	cmd := &cobra.Command{Use: "list", Short: "List authorisations: your own, and all of them to those who decide", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "table" && format != "jsonl" {
				return usage("--format is table or jsonl")
			}
			var rows []authorisationRow
			if err := doActIn(cmd, env, &f, &l, "authorise.list", authoriseNamed{}, &rows); err != nil {
				return err
			}
			if format == "jsonl" {
				return printLines(env, rows)
			}
			w := tabwriter.NewWriter(env.stdout, 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "AUTHORISATION\tSTATE\tCASE\tPEOPLE\tENDS\tASKED BY")
			for i := range rows {
				r := &rows[i]
				if r.Inspector && r.Requester == "" {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.ID, r.State, "-", "-", r.Ends.Format(time.DateOnly), "office "+shorten(event.Printable(r.Office), 16))
					continue
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", r.ID, r.State, shorten(event.Printable(r.Case), 14), len(r.Subjects), r.Ends.Format(time.DateOnly), shorten(event.Printable(r.Requester), 16))
			}
			return w.Flush()
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().StringVar(&format, "format", "table", "table or jsonl")
	return cmd
}

func newAuthoriseShow(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var format string
	var in authoriseNamed
	cmd := &cobra.Command{Use: "show ID", Short: "Show all of a request in words, and its digest", Args: cobra.ExactArgs(1),
		Long: "Show prints what is asked for. Who approves says with the digest that this was read. People\n" +
			"have the aliases of its case. What an inspector's office asked for is locked when the server\n" +
			"was started anew, until somebody of that office tells its code.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "table" && format != "jsonl" {
				return usage("--format is table or jsonl")
			}
			var rows []authorisationRow
			in.ID = args[0]
			for range 2 { // the second time in its case, where its aliases count
				if err := doActIn(cmd, env, &f, &l, "authorise.list", &in, &rows); err != nil {
					return err
				}
				if len(rows) != 1 || rows[0].Case == l.caseID {
					break
				}
				l.caseID = rows[0].Case
			}
			if len(rows) != 1 {
				return usage("there is no authorisation with this id")
			}
			if format == "jsonl" {
				return printLines(env, rows)
			}
			printAuthorisation(env.stdout, &rows[0])
			return nil
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().StringVar(&in.Code, "code", "", "`code` of what an inspector's office asked for")
	cmd.Flags().StringVar(&format, "format", "table", "table or jsonl")
	return cmd
}

func printAuthorisation(w io.Writer, r *authorisationRow) {
	line := func(name, text string) { fmt.Fprintf(w, "%-11s%s\n", name, event.Printable(text)) }
	list := func(name string, of []string, none string) {
		if len(of) == 0 {
			line(name, none)
			return
		}
		for i, s := range of {
			if i > 0 {
				name = ""
			}
			line(name, s)
		}
	}
	line("request", r.ID)
	line("state", joinNonEmpty(", ", r.State, r.Reason))
	if r.Inspector {
		line("office", r.Office+", an inspector's")
	}
	if r.Inspector && r.Requester == "" {
		line("asked on", r.Asked.Format(time.RFC3339))
		line("ends", r.Ends.Format(time.RFC3339))
		if r.Locked {
			line("next", "it is locked: counterseal authorise show "+r.ID+" --code CODE")
		} else {
			line("", "what it says is for that office alone")
		}
		return
	}
	line("case", r.Case)
	line("asked by", r.Requester+" on "+r.Asked.Format(time.RFC3339))
	list("readers", r.Readers, "nobody else")
	list("about", r.Subjects, "nobody by name")
	list("sources", r.Sources, "all")
	line("events", r.From.Format(time.RFC3339)+" to "+r.To.Format(time.RFC3339))
	if r.Reverse {
		line("lists", "yes: it may list people by what they did")
	} else {
		line("lists", "no: only about those who are named")
	}
	line("basis", r.Basis)
	line("rests on", r.Predicate)
	line("ends", r.Ends.Format(time.RFC3339))
	list("approved", r.Approvers, "by nobody yet")
	line("digest", r.Digest)
	if r.Code != "" {
		line("code", r.Code)
	}
	if r.State == string(cases.Requested) {
		printDeciders(w, r.Offices, "decide", needs(r))
		line("next", "counterseal authorise approve "+r.ID+" \\")
		line("", "  --digest "+r.Digest)
	}
}

func newAuthoriseDecide(env *environment, yes bool) *cobra.Command {
	var f configFlags
	var l look
	in := authoriseNamed{Approve: yes}
	verb, short := "approve", "Approve a request that you have read"
	if !yes {
		verb, short = "refuse", "Refuse a request, for good"
	}
	cmd := &cobra.Command{Use: verb + " ID --digest D", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if in.Digest == "" {
				return usage("--digest is what counterseal authorise show printed: it says that this was read")
			}
			in.ID = args[0]
			var r authorisationRow
			if err := doActIn(cmd, env, &f, &l, "authorise", &in, &r); err != nil {
				return err
			}
			fmt.Fprintf(env.stdout, "%s is %s\n", r.ID, r.State)
			if r.State == string(cases.Requested) {
				printDeciders(env.stdout, r.Offices, "decide", "; a second decision is missing")
			}
			return nil
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().StringVar(&in.Digest, "digest", "", "`digest` of the request, as authorise show printed it")
	return cmd
}

func newAuthoriseEnd(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var in authoriseNamed
	cmd := &cobra.Command{Use: "end ID --reason CODE", Short: "End an authorisation before its time, or take a request back", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.ID = args[0]
			var r authorisationRow
			if err := doActIn(cmd, env, &f, &l, "authorise.end", &in, &r); err != nil {
				return err
			}
			_, err := fmt.Fprintf(env.stdout, "%s has ended, %s: it covers nothing any more\n", r.ID, cmp.Or(r.Reason, in.Reason))
			return err
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().StringVar(&in.Reason, "reason", "", "`code`: done, withdrawn, revoked or case_closed")
	return cmd
}

// textOf reads a text of a flag or of a file.
func textOf(name, text, file string) (string, error) {
	switch {
	case (text == "") == (file == ""):
		return "", usage("--%s is the text, or --file the file that has it", name)
	case text != "":
		return text, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 17<<10)) // what is longer, cases refuses
	return string(b), err
}
