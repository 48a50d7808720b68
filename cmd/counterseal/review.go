package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/web"
)

// What the acts about reviews are given and answer.
type (
	reviewRow struct {
		What      string    `json:"what"` // glass, grant or report
		ID        string    `json:"id"`
		Case      string    `json:"case,omitempty"`
		Finding   string    `json:"finding,omitempty"`
		Who       string    `json:"who"`
		Subjects  []string  `json:"subjects,omitempty"`
		At        time.Time `json:"at"`
		Until     time.Time `json:"until,omitzero"`
		Overdue   bool      `json:"overdue,omitempty"`
		Unread    bool      `json:"unread,omitempty"`
		Reason    string    `json:"reason,omitempty"` // of a report
		Question  string    `json:"question,omitempty"`
		Reviewers []string  `json:"reviewers,omitempty"` // offices
	}
	reviewNamed struct {
		ID      string `json:"id"`
		Outcome string `json:"outcome"`
	}
)

func (s *server) reviewList(ctx context.Context, _ string, _ []byte) (any, error) {
	reviews, err := s.cases.Reviews(ctx)
	if err != nil {
		return nil, caseError(err)
	}
	reports, err := s.cases.Reports(ctx)
	if err != nil {
		return nil, caseError(err)
	}
	rows := []reviewRow{}
	for _, r := range reviews {
		row := reviewRow{What: r.Kind, ID: r.ID, Case: r.Case, Finding: r.Finding, Who: r.Responder, Subjects: r.Subjects, At: r.Opened.UTC().Truncate(time.Second), Until: r.Until, Overdue: r.Overdue, Unread: r.Unread}
		if r.Responder != "" {
			row.Reviewers = s.couldDecide("grant.review", r.Responder)
		}
		rows = append(rows, row)
	}
	for _, r := range reports {
		rows = append(rows, reviewRow{What: "report", ID: r.ID, Case: r.Case, Finding: r.Finding, Who: r.Asker, Subjects: r.Subjects, At: r.At.UTC().Truncate(time.Second), Unread: r.Unread, Reason: r.Reason, Question: r.Question})
	}
	return rows, nil
}

func (s *server) reviewDone(ctx context.Context, _ string, body []byte) (any, error) {
	var in reviewNamed
	if json.Unmarshal(body, &in) != nil {
		return nil, web.BadRequest("this is no review", "")
	}
	if err := decided(ctx, s.cases.Review(ctx, web.AskerOf(ctx).Person, in.ID, in.Outcome)); err != nil {
		return nil, err
	}
	return in, nil
}

func newReview(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "review", Short: "Broken glasses and grants that wait for a second look, and refused questions", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newReviewList(env), newReviewDone(env))
	return cmd
}

func newReviewList(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var format string
	cmd := &cobra.Command{Use: "list", Short: "List what waits for a review, and what overseers are told", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "table" && format != "jsonl" {
				return usage("--format is table or jsonl")
			}
			var rows []reviewRow
			if err := doActIn(cmd, env, &f, &l, "review.list", struct{}{}, &rows); err != nil {
				return err
			}
			if format == "jsonl" {
				return printLines(env, rows)
			}
			w := tabwriter.NewWriter(env.stdout, 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "ID\tWHAT\tWHO\tCASE\tWHEN\tSTATE")
			for i := range rows {
				r := &rows[i]
				state := fmt.Sprintf("waits, %d people", len(r.Subjects))
				switch {
				case r.What == "report":
					state = r.Reason
				case r.Overdue:
					state = "OVERDUE"
				case r.Unread:
					state = "waits, unreadable"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.ID, r.What, shorten(event.Printable(r.Who), 12), shorten(event.Printable(r.Case), 10), r.At.Format(time.DateOnly), event.Printable(state))
			}
			if err := w.Flush(); err != nil {
				return err
			}
			for i := range rows {
				if r := &rows[i]; r.What != "report" {
					fmt.Fprintf(env.stdout, "next: counterseal review done %s --outcome …\n", r.ID)
					printDeciders(env.stdout, r.Reviewers, "review", "")
					break
				}
			}
			return nil
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().StringVar(&format, "format", "table", "table, or jsonl: with whom each was about, and refused questions as they were asked")
	return cmd
}

func newReviewDone(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var in reviewNamed
	outcomes := []string{"justified", "excessive", "misuse"}
	cmd := &cobra.Command{Use: "done ID --outcome OUTCOME", Short: "Say what a second look found; all but justified ends what is open", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if in.Outcome == "" {
				return usage("--outcome is one of %s", strings.Join(outcomes, ", "))
			}
			in.ID = args[0]
			var out reviewNamed
			if err := doActIn(cmd, env, &f, &l, "grant.review", &in, &out); err != nil {
				return err
			}
			_, err := fmt.Fprintf(env.stdout, "%s is reviewed: %s\n", out.ID, out.Outcome)
			return err
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().StringVar(&in.Outcome, "outcome", "", "`word`: "+strings.Join(outcomes, ", "))
	return cmd
}
