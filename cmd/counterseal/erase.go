package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/lifecycle"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/web"
)

// eraseAsk is what a person asks the server for.
type eraseAsk struct {
	Aliases   []string `json:"aliases"`
	Reason    string   `json:"reason"`
	Requester string   `json:"requester"`
}

// eraseRequest makes a request to the officers and states it under the eyes of the
// witnesses. It erases nothing, and shows nothing of whom it is about.
func (s *server) eraseRequest(ctx context.Context, actor string, body []byte) (any, error) {
	var ask eraseAsk
	if json.Unmarshal(body, &ask) != nil {
		return nil, web.BadRequest("this is no request to erase", "")
	}
	a := web.AskerOf(ctx)
	if !cases.IsCase(a.Case) {
		return nil, web.BadRequest("the case is missing", "--case names it")
	}
	if len(ask.Aliases) == 0 || len(ask.Aliases) > lifecycle.MaxErasure {
		return nil, web.BadRequest(fmt.Sprintf("a request names 1 to %d aliases of one person", lifecycle.MaxErasure), "")
	}
	v := s.pipe.Vault()
	if err := v.CloseWindow(ctx); err != nil { // each row has a place
		return nil, err
	}
	joined, err := s.cases.Joined(ctx, a.Case) // a question by name joins the epochs of a person
	if err != nil {
		return nil, err
	}
	var all []lifecycle.Erasure
	for _, text := range ask.Aliases {
		alias, token, err := s.whom(ctx, text)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(all, func(e lifecycle.Erasure) bool { return e.Alias == alias }) {
			continue
		}
		found := false
		for _, one := range joined.All(token) {
			places, err := v.Places(ctx, []event.Token{event.Token(one)})
			if err != nil {
				return nil, err
			}
			if len(places) > 0 {
				found = true
				all = append(all, lifecycle.Erasure{Alias: alias, At: places[0]})
			}
		}
		if !found {
			return nil, s.nothingSealed(ctx, event.Token(token))
		}
	}
	if len(all) > lifecycle.MaxErasure {
		return nil, web.BadRequest(fmt.Sprintf("they stand for more than %d tokens", lifecycle.MaxErasure), "ask in two requests")
	}
	return s.askOfficers(ctx, actor, approval.Ask{
		Action: lifecycle.ErasureAction, Case: a.Case, Purpose: ask.Reason, Requester: ask.Requester, Objects: lifecycle.ErasureObjects(all),
	})
}

// askOfficers makes a statement for two officers and states it under the eyes of the
// witnesses.
func (s *server) askOfficers(ctx context.Context, actor string, ask approval.Ask) (*officerRequest, error) {
	ask.Org = s.pipe.Org()
	if ask.Grant == 0 {
		ask.Grant = time.Minute // what it allows is done at once, so that says nothing
	}
	st, statement, err := approval.New(ask, s.now())
	if err != nil {
		return nil, web.BadRequest(err.Error(), "")
	}
	if err := s.requested(ctx, actor, st, statement, nil); err != nil {
		return nil, err
	}
	return &officerRequest{Statement: string(statement), V: 1}, nil
}

// nothingSealed says why nothing is sealed of somebody.
func (s *server) nothingSealed(ctx context.Context, token event.Token) error {
	never, err := s.pipe.Vault().Unsealed(ctx, token)
	if err != nil {
		return err
	}
	no := &web.Refused{Reason: "nothing is sealed of this identity: it was last seen before there were officers, or is no name", Hint: "it is sealed when it is seen again; counterseal doctor says how many there are"}
	if !never {
		no = &web.Refused{Reason: "nothing is sealed of this identity any more: it was erased", Hint: "who is seen again is sealed again; the ledger says when rows were erased (vault.erased)"}
	}
	return no
}

// eraseApprove checks the decisions of two officers and states that the rows are to be
// erased. What it answers is the same whether they are gone then, or something keeps them:
// the hold of an inspector's office is for nobody else to know.
func (s *server) eraseApprove(ctx context.Context, actor string, body []byte) (any, error) {
	got, err := s.approve(ctx, actor, body, ceremony{
		action: lifecycle.ErasureAction, kind: "erasure.approved", hint: "ask with counterseal erase request; two people of two offices sign it: counterseal officer sign",
		check: func(_ context.Context, st *approval.Statement, signed []approval.Signed, roster *officer.Roster) error {
			if _, err := lifecycle.ParseErasure(st.Objects); err != nil {
				return fmt.Errorf("%w: %w", attest.ErrNotApproved, err)
			}
			if err := apart(st, signed, roster); err != nil {
				return fmt.Errorf("%w: %w", attest.ErrNotApproved, err)
			}
			return nil
		},
		state: func(st *approval.Statement, digest string) ([]string, any, error) {
			return []string{st.ID}, lifecycle.ErasureApproved{Case: st.Case, Request: st.ID, Statement: digest}, nil
		},
	})
	if err != nil {
		return nil, err
	}
	if err := s.life.EraseApproved(ctx); err != nil {
		s.log.Error("what is to be erased could not be; the next pass of retention tries again", "err", err)
	}
	return got, nil
}

func (s *server) eraseList(ctx context.Context, _ string, _ []byte) (any, error) {
	return s.life.Erasures(ctx)
}

const eraseLimits = "Erased are the seals of which two officers could open the name, of every epoch of officers.\n" +
	"The events stay, under their token; so does what left: originals until their retention\n" +
	"ends, backups of vault/, packages and exports, what an officer has read. A known name can be\n" +
	"tested against the token by whoever has the key holder, until the key of its epoch is\n" +
	"destroyed (keyholder destroy). Who goes on working is sealed anew, under the same token:\n" +
	"begin a new epoch first (keyholder rotate) to part what was from what comes."

func newErase(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "erase", Short: "Erase the sealed names of one person, by two officers: request, approve, list", Args: cobra.NoArgs,
		Long: eraseLimits,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newEraseRequest(env), newEraseApprove(env), newEraseList(env))
	return cmd
}

func newEraseRequest(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var ask eraseAsk
	var out string
	cmd := &cobra.Command{Use: "request ALIAS... --case C --reason TEXT --requester NAME -o FILE", Short: "Ask two officers to erase what is sealed of one person", Args: cobra.MinimumNArgs(1),
		Long: "Request writes a request and erases nothing. Name every alias of the person that the case\n" +
			"has shown: an account, a mail address and a device are tokens of their own. The same name in\n" +
			"another epoch of tokens is one as well, unless a question by name has joined them in this\n" +
			"case (counterseal name request): then its alias stands for all of them.\n\n" + eraseLimits + "\n\n" + aliasHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := errors.Join(need(cmd, "case", "reason", "requester", "output"), free(out)); err != nil {
				return err
			}
			ask.Aliases = args
			var r officerRequest
			if err := doActIn(cmd, env, &f, &l, "erase.request", &ask, &r); err != nil {
				return err
			}
			return sendRequest(env, out, &r, r.Statement)
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().StringVar(&ask.Reason, "reason", "", "why, in a sentence that names nobody")
	cmd.Flags().StringVar(&ask.Requester, "requester", "", "your `name`, as the officers know you")
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` of the request, which must not be there")
	return cmd
}

func newEraseApprove(env *environment) *cobra.Command {
	cmd := newBringDecisions(env, "erase.approve", "\nit is erased as soon as nothing keeps it, and the ledger says so then (vault.erased): counterseal erase list\n"+eraseLimits, statementIn)
	cmd.Short = "Bring the decisions of two officers: then it is erased, as soon as nothing keeps it"
	cmd.Long = "Approve checks both decisions and states them. What a hold keeps is not erased before the hold\n" +
		"ends; every pass of retention tries again. The answer is the same in both cases: a hold of\n" +
		"an inspector's office is for nobody else to know."
	return cmd
}

func newEraseList(env *environment) *cobra.Command {
	var f configFlags
	var format string
	cmd := &cobra.Command{Use: "list", Short: "List erasures that two officers approved", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "table" && format != "jsonl" {
				return usage("--format is table or jsonl")
			}
			var all []lifecycle.ErasureState
			if err := doAct(cmd, env, &f, "erase.list", struct{}{}, &all); err != nil {
				return err
			}
			if format == "jsonl" {
				return printLines(env, all)
			}
			w := tabwriter.NewWriter(env.stdout, 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "REQUEST\tCASE\tAPPROVED\tERASED\tROWS")
			for i := range all {
				e := &all[i]
				erased, rows := "-", "-"
				if e.Erased != nil {
					erased, rows = e.Erased.UTC().Format(time.DateTime), fmt.Sprint(e.Rows)
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", e.Request, event.Printable(e.Case), e.Approved.UTC().Format(time.DateTime), erased, rows)
			}
			return w.Flush()
		}}
	f.add(cmd)
	cmd.Flags().StringVar(&format, "format", "table", "table or jsonl")
	return cmd
}
