package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/lifecycle"
	"github.com/counterseal/counterseal/internal/pipeline"
	"github.com/counterseal/counterseal/internal/web"
)

// openLife makes what ends the life of evidence, and ends what an earlier process had
// begun before anything reads on.
func (s *server) openLife(ctx context.Context) error {
	roster, err := s.cfg.roster()
	if err != nil {
		return err
	}
	grace, err := s.cfg.grace()
	if err != nil {
		return err
	}
	s.life, err = lifecycle.New(lifecycle.Options{
		Evidence: s.pipe.Evidence(), Index: s.pipe.Index, State: s.pipe.State(), Statements: s.pipe.Recorder(), Ledger: s.pipe.Recorder(),
		Rules: s.pipe.InForce, Past: s.pipe.Past, Agree: s.pipe.Agree, Roster: roster, Org: s.pipe.Org(), Vault: s.pipe.Vault(), Wrap: s.pipe.WrapHold, Unwrap: s.pipe.UnwrapHold, Grace: grace, Now: s.now, Log: s.log,
	})
	if err != nil {
		return err
	}
	return s.life.Begin(ctx)
}

// grace is the time between announcing a destruction and destroying.
func (c *config) grace() (time.Duration, error) {
	d, err := time.ParseDuration(c.RetentionGrace)
	if err != nil || d < 0 {
		return 0, usage("retention_grace: a time such as 72h")
	}
	return d, nil
}

// lifeChecks tells the doctor how retention and holds stand.
func (s *server) lifeChecks(ctx context.Context) ([]pipeline.Check, error) {
	checks, err := s.life.Doctor(ctx)
	out := make([]pipeline.Check, len(checks))
	for i, c := range checks {
		out[i] = pipeline.Check{Name: "retention", State: c.State, Text: c.Text, Hint: c.Hint}
	}
	return out, err
}

type (
	planAsk struct {
		Days int `json:"days"`
	}
	plan struct {
		Lines []lifecycle.Line `json:"lines"`
		Mixed []string         `json:"mixed"`
	}
)

func (s *server) retentionPlan(ctx context.Context, _ string, body []byte) (any, error) {
	var in planAsk
	if err := json.Unmarshal(body, &in); err != nil || in.Days < 0 || in.Days > 100_000 {
		return nil, web.BadRequest("a plan looks some days ahead", "")
	}
	lines, mixed, err := s.life.Plan(ctx, time.Duration(in.Days)*24*time.Hour)
	if err != nil {
		return nil, err
	}
	return plan{Lines: lines, Mixed: mixed}, nil
}

func (s *server) retentionRun(ctx context.Context, _ string, _ []byte) (any, error) {
	return s.life.Pass(ctx)
}

func newRetention(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "retention", Short: "What is destroyed when, and what keeps the rest", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newRetentionPlan(env), newRetentionRun(env))
	return cmd
}

func newRetentionPlan(env *environment) *cobra.Command {
	var f configFlags
	var format string
	days := 0
	cmd := &cobra.Command{Use: "plan", Short: "Show what goes when, under which rule, and what a hold keeps", Args: cobra.NoArgs,
		Long: "Plan changes nothing. Evidence goes by whole weeks of sealing: segments, their keys, the\n" +
			"index of the week and what was derived from it.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "table" && format != "jsonl" {
				return usage("--format is table or jsonl")
			}
			if days < 0 {
				return usage("--days is how far to look ahead; 0 shows all")
			}
			var p plan
			if err := doAct(cmd, env, &f, "retention.plan", planAsk{Days: days}, &p); err != nil {
				return err
			}
			for _, c := range p.Mixed {
				fmt.Fprintf(env.stderr, "counterseal: the assessments give compartment %s several retentions, and the longest holds: part it\n", c)
			}
			if format == "jsonl" {
				return printLines(env, p.Lines)
			}
			return printPlan(env, p.Lines)
		}}
	f.add(cmd)
	cmd.Flags().IntVar(&days, "days", 0, "show what goes within so many days; 0: all")
	cmd.Flags().StringVar(&format, "format", "table", "table or jsonl")
	return cmd
}

func printPlan(env *environment, lines []lifecycle.Line) error {
	if len(lines) == 0 {
		_, err := fmt.Fprintln(env.stdout, "nothing goes in this time")
		return err
	}
	w := tabwriter.NewWriter(env.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "GOES\tSTATE\tSTREAM\tCOMPARTMENT\tWEEK\tSEGMENTS\tRECORDS\tSIZE\tRULE")
	for i := range lines {
		l := &lines[i]
		goes := "-"
		switch {
		case len(l.Holds) > 0: // when, nobody knows
		case l.After != nil:
			goes = l.After.UTC().Format("2006-01-02 15:04")
		case l.Due != nil:
			goes = l.Due.UTC().Format(time.DateOnly)
		}
		state := string(l.State)
		if len(l.Holds) > 0 {
			state += " by " + strings.Join(l.Holds, " ")
		}
		rule := l.Rule
		if rule == "" {
			rule = "none: no assessment says how long"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", goes, state, l.Stream, l.Compartment, l.Week, l.Segments, l.Records, bytesText(l.Bytes), rule)
	}
	return w.Flush()
}

// bytesText writes a size for people.
func bytesText(n int64) string {
	for _, u := range []struct {
		name string
		size int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.size {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.size), u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}

func newRetentionRun(env *environment) *cobra.Command {
	var f configFlags
	var format string
	cmd := &cobra.Command{Use: "run", Short: "Announce what is due and destroy what was announced and left for the grace, now", Args: cobra.NoArgs,
		Long: "A server does this by itself, daily. What is destroyed cannot be brought back.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "table" && format != "jsonl" {
				return usage("--format is table or jsonl")
			}
			var r lifecycle.Report
			if err := doAct(cmd, env, &f, "retention.run", struct{}{}, &r); err != nil {
				return err
			}
			if format == "jsonl" {
				return printLines(env, []lifecycle.Report{r})
			}
			fmt.Fprintf(env.stdout, "announced  %d segments\ndestroyed  %d segments\nheld       %d segments whose time is over\n", r.Announced, r.Destroyed, r.Held)
			if r.Names > 0 {
				fmt.Fprintf(env.stdout, "names      %d sealed names were erased\n", r.Names)
			}
			if len(r.Weeks) > 0 {
				fmt.Fprintf(env.stdout, "index      %s\n", strings.Join(r.Weeks, " "))
			}
			if r.Unwitnessed > 0 {
				fmt.Fprintf(env.stdout, "waiting    %d segments for a witness: counterseal doctor\n", r.Unwitnessed)
			}
			if r.Busy > 0 {
				fmt.Fprintf(env.stdout, "waiting    %d segments that are still being read into the index\n", r.Busy)
			}
			if r.Back > 0 {
				fmt.Fprintf(env.stdout, "ALARM      %d key cards were there again after their destruction, and are destroyed again\n", r.Back)
			}
			if r.Missing > 0 {
				fmt.Fprintf(env.stdout, "ALARM      %d key cards are gone that a hold keeps\n", r.Missing)
			}
			if !r.Next.IsZero() {
				fmt.Fprintf(env.stdout, "next       %s\n", r.Next.UTC().Format(time.RFC3339))
			}
			return nil
		}}
	f.add(cmd)
	cmd.Flags().StringVar(&format, "format", "table", "table or jsonl")
	return cmd
}
