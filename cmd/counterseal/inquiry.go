package main

import (
	"context"
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/web"
)

// What the acts about inquiries are given and answer.
type (
	inquiryAsk struct {
		From      string    `json:"from"`
		Reference string    `json:"reference"`
		Text      string    `json:"text"`
		Due       time.Time `json:"due"`
	}
	inquiryReply struct {
		ID      string `json:"id"`
		Outcome string `json:"outcome"`
		Text    string `json:"text"`
	}
	inquiryRow struct {
		ID        string    `json:"id"`
		Case      string    `json:"case"`
		From      string    `json:"from"`
		Reference string    `json:"reference,omitempty"`
		Text      string    `json:"text"`
		Received  time.Time `json:"received"`
		Due       time.Time `json:"due"`
		Overdue   bool      `json:"overdue,omitempty"`
		Outcome   string    `json:"outcome,omitempty"`
		Answer    string    `json:"answer,omitempty"`
		Answered  time.Time `json:"answered,omitzero"`
		Unread    bool      `json:"unread,omitempty"`
	}
)

func (s *server) inquiryReceive(ctx context.Context, _ string, body []byte) (any, error) {
	var in inquiryAsk
	if json.Unmarshal(body, &in) != nil {
		return nil, web.BadRequest("this is no inquiry", "")
	}
	a := web.AskerOf(ctx)
	id, err := s.cases.Receive(ctx, a.Person, cases.Inquiry{Case: a.Case, From: in.From, Reference: in.Reference, Text: in.Text, Due: in.Due})
	if err != nil {
		return nil, caseError(err)
	}
	return inquiryRow{ID: id, Case: a.Case, Due: in.Due}, nil
}

func (s *server) inquiryAnswer(ctx context.Context, _ string, body []byte) (any, error) {
	var in inquiryReply
	if json.Unmarshal(body, &in) != nil {
		return nil, web.BadRequest("this is no answer to an inquiry", "")
	}
	if err := s.cases.Answer(ctx, web.AskerOf(ctx).Person, in.ID, in.Outcome, in.Text); err != nil {
		return nil, caseError(err)
	}
	return inquiryRow{ID: in.ID, Outcome: in.Outcome}, nil
}

func (s *server) inquiryList(ctx context.Context, _ string, _ []byte) (any, error) {
	all, err := s.cases.Inquiries(ctx)
	if err != nil {
		return nil, caseError(err)
	}
	rows := []inquiryRow{}
	for _, q := range all {
		rows = append(rows, inquiryRow{ID: q.ID, Case: q.Case, From: q.From, Reference: q.Reference, Text: q.Text, Received: q.Received.UTC().Truncate(time.Second),
			Due: q.Due, Overdue: q.Overdue, Outcome: q.Outcome, Answer: q.Answer, Answered: q.Answered.UTC().Truncate(time.Second), Unread: q.Unread})
	}
	return rows, nil
}

func newInquiry(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "inquiry", Short: "What investigating offices ask for, until when, and the answers", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newInquiryReceive(env), newInquiryList(env), newInquiryAnswer(env))
	return cmd
}

func newInquiryReceive(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var in inquiryAsk
	var due, file string
	cmd := &cobra.Command{Use: "receive --case C --from OFFICE --due DAY --file FILE", Short: "Take an inquiry in; its clock runs from now", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if err := need(cmd, "case", "from", "due"); err != nil {
				return err
			}
			day, err := time.Parse(time.DateOnly, due)
			if err != nil {
				return usage("--due: write a day like 2027-03-01")
			}
			in.Due = day.AddDate(0, 0, 1).Add(-time.Second)
			if in.Text, err = textOf("text", in.Text, file); err != nil {
				return err
			}
			var r inquiryRow
			if err := doActIn(cmd, env, &f, &l, "inquiry.receive", &in, &r); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "inquiry    %s\ndue        %s\nnext       counterseal inquiry answer %s --outcome … --file …\n", r.ID, r.Due.Format(time.RFC3339), r.ID)
			return err
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().StringVar(&in.From, "from", "", "the `office` that asks")
	cmd.Flags().StringVar(&in.Reference, "reference", "", "its own `number`")
	cmd.Flags().StringVar(&in.Text, "text", "", "what it asks for")
	cmd.Flags().StringVar(&file, "file", "", "`file` with what it asks for")
	cmd.Flags().StringVar(&due, "due", "", "last `day` for the answer, UTC")
	return cmd
}

func newInquiryAnswer(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var in inquiryReply
	var file string
	cmd := &cobra.Command{Use: "answer ID --outcome OUTCOME --file FILE", Short: "State the answer, once", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			in.ID = args[0]
			if in.Outcome == "" {
				return usage("--outcome is answered, partly, declined or withdrawn")
			}
			if in.Text, err = textOf("text", in.Text, file); err != nil {
				return err
			}
			var r inquiryRow
			if err := doActIn(cmd, env, &f, &l, "inquiry.answer", &in, &r); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "inquiry %s: %s\n", r.ID, r.Outcome)
			return err
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().StringVar(&in.Outcome, "outcome", "", "`word`: answered, partly, declined or withdrawn")
	cmd.Flags().StringVar(&in.Text, "text", "", "the answer")
	cmd.Flags().StringVar(&file, "file", "", "`file` with the answer")
	return cmd
}

func newInquiryList(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var format string
	cmd := &cobra.Command{Use: "list", Short: "List inquiries, the one that is due next first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "table" && format != "jsonl" {
				return usage("--format is table or jsonl")
			}
			var rows []inquiryRow
			if err := doActIn(cmd, env, &f, &l, "inquiry.list", struct{}{}, &rows); err != nil {
				return err
			}
			if format == "jsonl" {
				return printLines(env, rows)
			}
			w := tabwriter.NewWriter(env.stdout, 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "INQUIRY\tSTATE\tDUE\tCASE\tFROM")
			for i := range rows {
				r := &rows[i]
				state := "waits"
				switch {
				case r.Overdue:
					state = "OVERDUE"
				case r.Outcome != "":
					state = r.Outcome
				}
				from := r.From
				if r.Unread {
					from = "its text is not kept"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.ID, event.Printable(state), r.Due.Format(time.DateOnly), shorten(event.Printable(r.Case), 14), shorten(event.Printable(from), 24))
			}
			return w.Flush()
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().StringVar(&format, "format", "table", "table or jsonl")
	return cmd
}
