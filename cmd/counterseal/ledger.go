package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/pipeline"
)

func newLedger(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "ledger", Short: "The log of statements: where it ends, and what follows it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newLedgerEnd(env), newLedgerSucceed(env))
	return cmd
}

func newLedgerEnd(env *environment) *cobra.Command {
	var f keyFlags
	cmd := &cobra.Command{Use: "end", Short: "Say where the log ends, while no server runs", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			dir, k, _, err := f.open(env)
			if err != nil {
				return err
			}
			cfg, err := f.load()
			if err != nil {
				return err
			}
			return locked(dir, func() error {
				e, err := pipeline.LedgerEnd(dir, k, cfg.ledger())
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(env.stdout, "origin    %s\nsize      %d\nroot      %s\n", e.Origin, e.Size, e.Root)
				return err
			})
		}}
	f.add(cmd)
	return cmd
}

func newLedgerSucceed(env *environment) *cobra.Command {
	var f keyFlags
	var reason, number, requester, out string
	var decisions []string
	cmd := &cobra.Command{Use: "succeed [REQUEST --decision FILE --decision FILE]", Short: "Close a log that cannot go on and begin another, by two people", Args: cobra.MaximumNArgs(1),
		Long: "A log restored from an old backup cannot go on under its name: its witnesses have seen\n" +
			"more of it. Without a request, succeed writes one: which log ends where, and why. Two\n" +
			"officers of two offices sign it (officer sign). With both decisions it closes the log as\n" +
			"it ends and begins another, whose first statement says so. Stop the server first. Then\n" +
			"give the witnesses the key that it prints. What the old log says still holds.",
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, k, _, err := f.open(env)
			if err != nil {
				return err
			}
			cfg, err := f.load()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				if err := errors.Join(need(cmd, "reason", "case", "requester", "output"), free(out)); err != nil {
					return err
				}
				return locked(dir, func() error {
					e, err := pipeline.LedgerEnd(dir, k, cfg.ledger())
					if err != nil {
						return err
					}
					_, statement, err := approval.New(approval.Ask{
						Action: attest.ActionSucceed, Case: number, Purpose: reason, Requester: requester, Objects: e.Objects(), Org: k.ID(), Grant: time.Hour,
					}, time.Now())
					if err != nil {
						return usage("%v", err)
					}
					return sendRequest(env, out, &officerRequest{Statement: string(statement), V: 1}, string(statement))
				})
			}
			roster, err := cfg.roster()
			if err != nil {
				return err
			}
			if roster == nil {
				return &exitError{code: exitRefused, err: errors.New("no officers are configured"), hint: "name them in the file `officers`"}
			}
			text, s, err := readStatement(args[0])
			if err != nil {
				return err
			}
			now := time.Now()
			var book approval.Book
			if _, err := book.Request([]byte(text), now); err != nil {
				return &exitError{code: exitRefused, err: err}
			}
			officers, err := os.ReadFile(cfg.Officers)
			if err != nil {
				return err
			}
			payloads := map[string][]byte{"statement": []byte(text), "officers": officers}
			signed, err := readDecisions(decisions)
			if err != nil {
				return err
			}
			for i, d := range signed {
				by, err := roster.Voter(d.Key)
				if err == nil {
					_, err = book.Decide(s.ID, d, by, now)
				}
				if err != nil {
					return &exitError{code: exitRefused, err: fmt.Errorf("%s: %w", decisions[i], err)}
				}
				if payloads[fmt.Sprintf("decision_%d", i+1)], err = approval.Canonical(d); err != nil {
					return err
				}
			}
			if _, err := book.Use(s.ID, now); err != nil {
				return &exitError{code: exitRefused, err: err, hint: "two people of two offices must approve it: counterseal officer sign"}
			}
			return locked(dir, func() error {
				e, err := pipeline.LedgerEnd(dir, k, cfg.ledger())
				if err != nil {
					return err
				}
				if s.Action != attest.ActionSucceed || s.Org != k.ID().String() || !slices.Equal(s.Objects, e.Objects()) {
					return &exitError{code: exitRefused, err: errors.New("the officers approved something else: the log ends elsewhere by now"), hint: "ask anew with counterseal ledger succeed"}
				}
				vkey, err := pipeline.Succeed(cmd.Context(), dir, k, e, ownActor(), s.ID, payloads)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(env.stdout, "closed    %s at %d statements\nvkey      %s\nGive this key to the witnesses: they know only the old one.\n", e.Origin, e.Size, vkey)
				return err
			})
		}}
	f.add(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why the log cannot go on, in a sentence")
	cmd.Flags().StringVar(&number, "case", "", "`number` of the case")
	cmd.Flags().StringVar(&requester, "requester", "", "`name` of who asks")
	cmd.Flags().StringArrayVar(&decisions, "decision", nil, "`file` of a decision; two are needed")
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` of the request, which must not be there")
	return cmd
}
