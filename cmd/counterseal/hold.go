package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/lifecycle"
	"github.com/counterseal/counterseal/internal/policy"
	"github.com/counterseal/counterseal/internal/web"
)

// What the acts about holds are given and answer.
type (
	holdPlace struct {
		Scope  lifecycle.Scope `json:"scope"`
		Order  []byte          `json:"order"`
		Review time.Time       `json:"review"`
	}
	holdPlaced struct {
		Hold lifecycle.Hold `json:"hold"`
		// Nonce of an inspector's hold: with the order it shows under what it was placed.
		Nonce []byte `json:"nonce,omitempty"`
		holdKeeps
	}
	holdKeeps struct {
		Segments int    `json:"segments"`
		Records  uint64 `json:"records"`
		Bytes    int64  `json:"bytes"`
	}
	holdAsk struct {
		Hold      string `json:"hold"`
		Case      string `json:"case"`
		Purpose   string `json:"purpose"`
		Requester string `json:"requester"`
	}
	holdRelease struct {
		Hold      string            `json:"hold"`
		Statement string            `json:"statement"`
		Decisions []approval.Signed `json:"decisions"`
	}
)

// lifeError tells an asker what the lifecycle said.
func lifeError(err error) error {
	var no *web.Refused
	switch {
	case errors.As(err, &no):
		return no
	case errors.Is(err, lifecycle.ErrInside):
		return &web.Refused{Reason: err.Error(), Hint: "counterseal hold list says which office it is"}
	case lifecycle.Mistake(err):
		return web.BadRequest(err.Error(), "")
	case errors.Is(err, lifecycle.ErrRefused):
		return &web.Refused{Reason: err.Error(), Hint: "ask with counterseal hold release HOLD -o FILE; two people of two offices sign it: counterseal officer sign"}
	}
	return err
}

func (s *server) holdPlace(ctx context.Context, actor string, body []byte) (any, error) {
	var in holdPlace
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, web.BadRequest("this is no hold", "")
	}
	if c := in.Scope.Compartment; c != "" {
		if known := s.pipe.Compartments(); !slices.Contains(known, c) {
			return nil, web.BadRequest("no compartment has this name: a hold on it would keep nothing", "there are "+strings.Join(known, ", "))
		}
	}
	if by, ok := insider(ctx); ok {
		h, nonce, err := s.life.PlaceInside(ctx, by, in.Scope, in.Order, in.Review)
		if err != nil {
			return nil, lifeError(err)
		}
		return holdPlaced{Hold: h, Nonce: nonce}, nil
	}
	var err error
	if in.Scope.Token, err = s.web.Meant(ctx, in.Scope.Token); err != nil {
		return nil, err
	}
	if in.Scope.Token != "" {
		if err := s.web.JudgeStanding(ctx, access.Hold{Tokens: []string{in.Scope.Token}}); err != nil {
			return nil, err
		}
	}
	h, err := s.life.Place(ctx, actor, in.Scope, in.Order, in.Review)
	if err != nil {
		return nil, lifeError(err)
	}
	lines, _, err := s.life.Plan(ctx, 0)
	if err != nil {
		return nil, err
	}
	out := holdPlaced{Hold: h}
	for _, l := range lines {
		for _, id := range l.Holds {
			if id == h.ID {
				out.Segments += l.Segments
				out.Records += l.Records
				out.Bytes += l.Bytes
			}
		}
	}
	return out, nil
}

func (s *server) holdList(ctx context.Context, _ string, _ []byte) (any, error) {
	all, err := s.life.Holds(ctx)
	by := web.AskerOf(ctx).Person
	for i := range all {
		if !cases.Inside(s.force.Load().offices, by, all[i].Appointed) {
			all[i] = all[i].Veiled()
		}
	}
	return all, err
}

// insider gives who asks as somebody of an inspector's office.
func insider(ctx context.Context) (lifecycle.Insider, bool) {
	p := web.AskerOf(ctx).Person
	return lifecycle.Insider{Person: strings.ToLower(p.ID), Office: p.Office, Authority: p.Authority}, p.Inspector
}

// releaseInside lets a second person of an inspector's office end its hold.
func (s *server) releaseInside(ctx context.Context, by lifecycle.Insider, id string) (any, error) {
	a := web.AskerOf(ctx)
	if !a.Fresh {
		return nil, &web.Refused{Reason: "the login is too old to decide", Hint: "log in again, and decide then"}
	}
	force := s.force.Load()
	h, err := s.life.ReleaseInside(ctx, by, id, func(asked string) error {
		chain, _ := force.offices.Chain(asked)
		d := web.DecideBy(func() *policy.Set { return force.policy })(ctx, policy.Request{Principal: a.Person, Action: "hold.release",
			Resource: policy.Resource{ID: id, Owner: asked, Chain: chain, Authority: by.Authority, Inspector: true}, Context: policy.Context{Now: s.now()}})
		if !d.Allow {
			return &web.Refused{Reason: d.Reason, Hint: "another person of your office releases it"}
		}
		return nil
	})
	if err != nil {
		return nil, lifeError(err)
	}
	return h, nil
}

func (s *server) holdAsk(ctx context.Context, actor string, body []byte) (any, error) {
	var in holdAsk
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, web.BadRequest("this is no request to release a hold", "")
	}
	if by, ok := insider(ctx); ok {
		if err := s.life.AskInside(ctx, by, in.Hold); err != nil {
			return nil, lifeError(err)
		}
		return officerRequest{V: 1}, nil
	}
	b, err := s.life.Ask(ctx, actor, in.Hold, in.Case, in.Purpose, in.Requester)
	if err != nil {
		return nil, lifeError(err)
	}
	return officerRequest{Statement: string(b), V: 1}, nil
}

func (s *server) holdRelease(ctx context.Context, actor string, body []byte) (any, error) {
	var in holdRelease
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, web.BadRequest("these are no decisions about a hold", "")
	}
	if by, ok := insider(ctx); ok {
		return s.releaseInside(ctx, by, in.Hold)
	}
	h, err := s.life.Release(ctx, actor, in.Hold, []byte(in.Statement), in.Decisions)
	if err != nil {
		return nil, lifeError(err)
	}
	return h, nil
}

func newHold(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "hold", Short: "Legal holds: what is kept beyond its retention, and under whose order", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newHoldPlace(env), newHoldList(env), newHoldRelease(env))
	return cmd
}

func newHoldPlace(env *environment) *cobra.Command {
	var f configFlags
	var in holdPlace
	var order, review string
	cmd := &cobra.Command{Use: "place --order FILE --review DAY [--case C] [--compartment C] [--source S] [--token T] [--from TIME] [--to TIME]", Short: "Keep evidence beyond its retention, under an order", Args: cobra.NoArgs,
		Long: "Place keeps every segment that may hold something of the scope, from now on and for all\n" +
			"that comes. Compartment and time narrow it; the time is that of sealing, so leave --to\n" +
			"open where old logs may still be imported. A source, a token and a case cannot be told\n" +
			"from outside of a segment: such a hold keeps everything in the compartments and times\n" +
			"that it names. One person places a hold; two officers release it.\n\n" +
			"An inspector's office names a compartment and times. Others see that its hold is there, and\n" +
			"two people of that office release it. It keeps the order; the nonce that is printed shows\n" +
			"later, with it, under what the hold was placed: SHA-256 of nonce and order.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := need(cmd, "order", "review")
			if err != nil {
				return err
			}
			if in.Order, err = readFile(order, "--order", "it holds the text of the order, such as a letter, and is kept beside the ledger"); err != nil {
				return err
			}
			if in.Review, err = time.Parse(time.DateOnly, review); err != nil {
				return usage("--review: write a day like 2027-03-01")
			}
			var out holdPlaced
			if err := doAct(cmd, env, &f, "hold.place", &in, &out); err != nil {
				return err
			}
			if out.Hold.Inspector {
				_, err = fmt.Fprintf(env.stdout, "hold %s is in force, statement %d of the ledger\nnonce %s\nkeep it with the order\n", out.Hold.ID, out.Hold.Statement, base64.RawURLEncoding.EncodeToString(out.Nonce))
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "hold %s is in force, statement %d of the ledger\nit keeps %d segments with %d records, %s\n", out.Hold.ID, out.Hold.Statement, out.Segments, out.Records, bytesText(out.Bytes))
			if err == nil && out.Segments == 0 {
				_, err = fmt.Fprintln(env.stderr, "warning: this hold keeps nothing that is there today; look at its scope")
			}
			return err
		}}
	f.add(cmd)
	cmd.Flags().StringVar(&order, "order", "", "`file` with the text of the order, kept beside the ledger")
	cmd.Flags().StringVar(&review, "review", "", "`day` of the next review")
	cmd.Flags().StringVar(&in.Scope.Case, "case", "", "`number` of the case")
	cmd.Flags().StringVar(&in.Scope.Compartment, "compartment", "", "only this compartment")
	cmd.Flags().StringVar(&in.Scope.Source, "source", "", "what this source sent")
	cmd.Flags().StringVar(&in.Scope.Token, "token", "", "what is about this person, by the alias that an answer showed")
	cmd.Flags().StringVar(&in.Scope.From, "from", "", "sealed at or after this `time`, RFC 3339")
	cmd.Flags().StringVar(&in.Scope.To, "to", "", "sealed at or before this `time`")
	return cmd
}

func newHoldList(env *environment) *cobra.Command {
	var f configFlags
	var format string
	cmd := &cobra.Command{Use: "list", Short: "List holds, in force and released", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "table" && format != "jsonl" {
				return usage("--format is table or jsonl")
			}
			var holds []lifecycle.Hold
			if err := doAct(cmd, env, &f, "hold.list", struct{}{}, &holds); err != nil {
				return err
			}
			if format == "jsonl" {
				return printLines(env, holds)
			}
			w := tabwriter.NewWriter(env.stdout, 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "HOLD\tSTATE\tPLACED\tREVIEW\tSCOPE")
			for i := range holds {
				h := &holds[i]
				review, scope := h.Review.Format(time.DateOnly), scopeText(h)
				if h.Inspector {
					scope = joinNonEmpty(", ", "of inspector's office "+h.Office, scope)
				}
				veiled := h.Review.IsZero() && h.Inspector
				if veiled {
					review = "-"
				}
				state := "in force"
				switch {
				case h.Released != nil:
					state = "released " + h.Released.Format(time.DateOnly)
				case h.Pending:
					state = "in force, its release waits for a witness"
				case !veiled && h.Review.Before(time.Now()):
					state = "in force, review overdue"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", h.ID, state, h.Placed.Format(time.DateOnly), review, event.Printable(scope))
			}
			return w.Flush()
		}}
	f.add(cmd)
	cmd.Flags().StringVar(&format, "format", "table", "table or jsonl")
	return cmd
}

func scopeText(h *lifecycle.Hold) string {
	if h.Unread {
		return "everything: its scope cannot be read"
	}
	var parts []string
	for _, p := range [][2]string{{"case", h.Scope.Case}, {"compartment", h.Scope.Compartment}, {"source", h.Scope.Source}, {"token", h.Scope.Token}, {"from", h.Scope.From}, {"to", h.Scope.To}} {
		if p[1] != "" {
			parts = append(parts, p[0]+" "+p[1])
		}
	}
	return strings.Join(parts, ", ")
}

func newHoldRelease(env *environment) *cobra.Command {
	var f configFlags
	var ask holdAsk
	var out, request string
	var decisions []string
	var asks, agree bool
	cmd := &cobra.Command{Use: "release HOLD --case C --purpose TEXT --requester NAME -o FILE | HOLD --request FILE --decision FILE --decision FILE | HOLD --ask | HOLD --agree", Short: "Ask two officers to end a hold, or end it with their decisions", Args: cobra.ExactArgs(1),
		Long: "Release with -o writes a request. Both officers sign it on their machines (officer sign).\n" +
			"Release with --request and both decisions ends the hold, once a witness has seen it; the\n" +
			"retention goes on from there, with a new announcement before anything is destroyed.\n\n" +
			"The hold of an inspector's office is released by two people of that office: one asks\n" +
			"(--ask), and within a day another agrees (--agree).",
		RunE: func(cmd *cobra.Command, args []string) error {
			if asks || agree {
				if asks && agree || out != "" || request != "" {
					return misused(cmd, "--ask and --agree are for two people, and go with no file")
				}
				if asks {
					if err := doAct(cmd, env, &f, "hold.request", &holdAsk{Hold: args[0]}, &officerRequest{}); err != nil {
						return err
					}
					_, err := fmt.Fprintf(env.stdout, "asked; somebody else of the office: counterseal hold release %s --agree\n", args[0])
					return err
				}
				var h lifecycle.Hold
				if err := doAct(cmd, env, &f, "hold.release", &holdRelease{Hold: args[0]}, &h); err != nil {
					return err
				}
				_, err := fmt.Fprintf(env.stdout, "hold %s is released\n", h.ID)
				return err
			}
			if (out == "") == (request == "") {
				return misused(cmd, "-o or --request is missing: -o writes a request, --request and two --decision end the hold")
			}
			ask.Hold = args[0]
			if out != "" {
				if err := errors.Join(need(cmd, "case", "purpose", "requester"), free(out)); err != nil {
					return err
				}
				var r officerRequest
				if err := doAct(cmd, env, &f, "hold.request", &ask, &r); err != nil {
					return err
				}
				return sendRequest(env, out, &r, r.Statement)
			}
			in := holdRelease{Hold: args[0]}
			var err error
			if in.Statement, _, err = readStatement(request); err != nil {
				return err
			}
			if in.Decisions, err = readDecisions(decisions); err != nil {
				return err
			}
			var h lifecycle.Hold
			if err := doAct(cmd, env, &f, "hold.release", &in, &h); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "hold %s is released\n", h.ID)
			return err
		}}
	f.add(cmd)
	cmd.Flags().StringVar(&ask.Case, "case", "", "`number` of the case")
	cmd.Flags().StringVar(&ask.Purpose, "purpose", "", "why, in a sentence")
	cmd.Flags().StringVar(&ask.Requester, "requester", "", "`name` of who asks")
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` of the request, which must not be there")
	cmd.Flags().StringVar(&request, "request", "", "`file` of the request that the officers signed")
	cmd.Flags().StringArrayVar(&decisions, "decision", nil, "`file` of a decision; two are needed")
	cmd.Flags().BoolVar(&asks, "ask", false, "of an inspector's office: ask a colleague to agree")
	cmd.Flags().BoolVar(&agree, "agree", false, "of an inspector's office: agree to what a colleague asked for")
	return cmd
}

// printLines prints values as lines of JSON.
func printLines[T any](env *environment, all []T) error {
	enc := json.NewEncoder(env.stdout)
	for i := range all {
		if err := enc.Encode(&all[i]); err != nil {
			return err
		}
	}
	return nil
}
