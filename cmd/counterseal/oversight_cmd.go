package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/oversight"
)

func newOversight(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "oversight", Short: "Watch those who look at people: the queue, reviews, heartbeat, report", Args: cobra.NoArgs,
		Long: "Every look at a person waits here until an overseer has looked at it. Where looks pile up,\n" +
			"new authorisations wait; where no independent overseer is heard for 14 days, looking at\n" +
			"people stops. docs/for-overseers.md tells more.",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newOversightStatus(env), newOversightHeartbeat(env), newOversightQueue(env), newOversightReview(env), newOversightReport(env), newNotices(env), newComplaints(env), newDisclosers(env), newOversightVerify(env))
	return cmd
}

func newOversightStatus(env *environment) *cobra.Command {
	var f configFlags
	var l look
	cmd := &cobra.Command{Use: "status", Short: "Whether somebody watches, and whether reviews keep up", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var st oversightState
			if err := doActIn(cmd, env, &f, &l, "oversight.status", struct{}{}, &st); err != nil {
				return err
			}
			return printOversight(env.stdout, &st)
		}}
	f.add(cmd)
	l.add(cmd)
	return cmd
}

func printOversight(w io.Writer, st *oversightState) error {
	line := func(name, text string) { fmt.Fprintf(w, "%-10s%s\n", name, event.Printable(text)) }
	switch {
	case !st.Watched:
		line("looking", "nobody is in office, so nobody looks at people")
	case st.Stopped != "":
		line("looking", "STOPPED since "+st.Since.UTC().Format(time.RFC3339)+": "+st.Stopped)
		line("next", "an overseer: counterseal oversight heartbeat")
	default:
		line("looking", "goes on; another heartbeat is due before "+st.Until.UTC().Format(time.RFC3339))
	}
	if st.Watched {
		line("offices", joinNonEmpty(", ", append(st.Independent, map[bool]string{true: "none is independent and held"}[len(st.Independent) == 0])...))
		if st.Heard.IsZero() {
			line("heard", "never")
		} else {
			line("heard", st.Heard.UTC().Format(time.RFC3339))
		}
	}
	text := fmt.Sprintf("%d not reviewed; two weeks of reviews are %d", st.Unreviewed, st.Capacity)
	if !st.Oldest.IsZero() {
		text += "; the oldest of " + st.Oldest.UTC().Format(time.RFC3339)
	}
	line("looks", text)
	if c := st.Complaints; c != nil && c.Waiting+c.Missing > 0 {
		text := fmt.Sprintf("%d wait", c.Waiting)
		if c.Late > 0 {
			text += fmt.Sprintf("; %d LONGER THAN 30 DAYS", c.Late)
		}
		if c.Missing > 0 {
			text += fmt.Sprintf("; %d NOT THERE ANY MORE", c.Missing)
		}
		line("complaint", text+": counterseal oversight complaints")
	}
	if st.Stopped == "" && st.Waits {
		line("requests", "new authorisations WAIT until looks are reviewed: counterseal oversight queue")
	}
	return nil
}

func newOversightHeartbeat(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var key, pass string
	cmd := &cobra.Command{Use: "heartbeat", Short: "Say that an independent overseer is there", Args: cobra.NoArgs,
		Long: "Heartbeat is for the holder of an office of an overseer, outside the chains of command of\n" +
			"those who read events and appointed by another authority. Once in 14 days is enough; once\n" +
			"a week is better. Where officers hold keys, the key of oversight signs it, here.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var st oversightState
			if err := doActIn(cmd, env, &f, &l, "oversight.status", struct{}{}, &st); err != nil {
				return err
			}
			if st.Office == "" {
				return &exitError{code: exitRefused, err: errors.New("you hold no office"), hint: "sign in as an overseer: counterseal login; or name the office: --office"}
			}
			if st.Signed && key == "" {
				return usage("--key is the file of the officer's key: officers are enrolled, so a heartbeat is signed")
			}
			org, err := uuid.Parse(st.Org)
			if err != nil {
				return errors.New("the server names no data directory")
			}
			raw, err := oversight.NewHeartbeat(st.Office, org, time.Now())
			if err != nil {
				return err
			}
			in := heartbeatSent{Statement: raw}
			if key != "" {
				k, err := openKey(env, key, pass)
				if err != nil {
					return err
				}
				signed, err := k.Sign(approval.Approve, raw)
				if err != nil {
					return err
				}
				in.Signed = &signed
			}
			if err := doActIn(cmd, env, &f, &l, "oversight.heartbeat", &in, &st); err != nil {
				return err
			}
			return printOversight(env.stdout, &st)
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().StringVar(&key, "key", "", "`file` of the officer's key")
	cmd.Flags().StringVar(&pass, "passphrase-file", "", "`file` with the passphrase of the key")
	return cmd
}

func newOversightQueue(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var in queueAsk
	var format string
	cmd := &cobra.Command{Use: "queue", Short: "List the looks that wait for a review, and what is odd about looks and decisions", Args: cobra.NoArgs,
		Long: "Queue shows every look at a person, and one in ten of the questions that list people by what\n" +
			"they did. With --case an alias is the one that those who looked saw.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "table" && format != "jsonl" {
				return usage("--format is table or jsonl")
			}
			var q queueAnswer
			if err := doActIn(cmd, env, &f, &l, "oversight.queue", &in, &q); err != nil {
				return err
			}
			if format == "jsonl" {
				return printLines(env, q.Looks)
			}
			return printQueue(env.stdout, &q)
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().BoolVar(&in.All, "all", false, "those of the last 90 days that were reviewed, too")
	cmd.Flags().StringVar(&format, "format", "table", "table, or jsonl: with the question, whom it names, predicate and scope")
	return cmd
}

func printQueue(w io.Writer, q *queueAnswer) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "LOOK\tWHEN\tWHO\tCASE\tBY\tPEOPLE\tSTATE")
	short := map[string]string{"authorisation": "auth"}
	for i := range q.Looks {
		r := &q.Looks[i]
		by := cmp.Or(short[r.CoveredBy], r.CoveredBy, r.Kind)
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.ID, r.At.Format(time.DateOnly), shorten(event.Printable(strings.TrimPrefix(r.Who, "account:")), 12), shorten(event.Printable(r.Case), 8),
			event.Printable(by), strings.ReplaceAll(r.People, " or more", "+"), cmp.Or(r.Outcome, "waits"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for i := range q.Looks {
		if r := &q.Looks[i]; len(r.Marks) > 0 {
			fmt.Fprintf(w, "odd        %s %s\n", r.ID, strings.Join(r.Marks, ", "))
		}
	}
	if q.Reviewed > 0 {
		fmt.Fprintf(w, "reviews    %d in 90 days; half within %.0f hours, the slowest after %.0f\n", q.Reviewed, q.Median, q.Longest)
	}
	for _, a := range q.Approvers {
		fmt.Fprintf(w, "decisions  %s approved %d of %d; %d in under 60 seconds\n", event.Printable(a.Actor), a.Approved, a.Approved+a.Refused, a.Quick)
	}
	for _, v := range q.Verbatim {
		fmt.Fprintf(w, "same words %s asked %d times: %s\n", event.Printable(v.Person), len(v.IDs), event.Printable(v.Words))
	}
	for i := range q.Looks {
		if q.Looks[i].Outcome == "" {
			_, err := fmt.Fprintf(w, "next       counterseal oversight queue --format jsonl shows what was asked\n           counterseal oversight review %s --outcome …\n", q.Looks[i].ID)
			return err
		}
	}
	_, err := fmt.Fprintln(w, "nothing waits")
	return err
}

func newOversightReview(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var in reviewNamed
	cmd := &cobra.Command{Use: "review ID --outcome OUTCOME", Short: "Say what you found of a look", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if in.Outcome == "" {
				return usage("--outcome is one of %s", strings.Join(oversight.Outcomes(), ", "))
			}
			in.ID = args[0]
			if err := doActIn(cmd, env, &f, &l, "look.review", &in, &in); err != nil {
				return err
			}
			_, err := fmt.Fprintf(env.stdout, "%s is reviewed: %s\n", in.ID, in.Outcome)
			return err
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().StringVar(&in.Outcome, "outcome", "", "`what` you found: "+strings.Join(oversight.Outcomes(), ", "))
	return cmd
}

func newOversightReport(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var in reportAsk
	var from, to, out string
	cmd := &cobra.Command{Use: "report [--public] [--from DAY --to DAY] [-o FILE]", Short: "Count a period, without small counts, signed with the key of the ledger", Args: cobra.NoArgs,
		Long: "Report counts looks, decisions, refusals, grants, holds and destructions by the ledger. No\n" +
			"count from 1 to 7 is told, nor can it be worked out. A public report is about one whole\n" +
			"quarter, the last one unless days are named. The same ledger gives the same bytes.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if (from == "") != (to == "") {
				return usage("--from is the first day and --to the day after the last; name both")
			}
			if from != "" {
				if in.From, err = time.Parse(time.DateOnly, from); err != nil {
					return usage("--from: write a day like 2026-07-01")
				}
				if in.To, err = time.Parse(time.DateOnly, to); err != nil {
					return usage("--to: write a day like 2026-10-01")
				}
			}
			if err := free(out); err != nil {
				return err
			}
			var r reportAnswer
			if err := doActIn(cmd, env, &f, &l, "oversight.report", &in, &r); err != nil {
				return err
			}
			if out == "" {
				_, err = env.stdout.Write(r.Note)
				return err
			}
			if err := writeNew(out, r.Note); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "report     %s\nverify     counterseal oversight verify %s --log VKEY\n", out, out)
			return err
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().BoolVar(&in.Public, "public", false, "for everybody: fewer divisions, one whole quarter")
	cmd.Flags().StringVar(&from, "from", "", "first `day` (default the last whole quarter)")
	cmd.Flags().StringVar(&to, "to", "", "`day` after the last")
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` to write, which must not be there (default standard output)")
	return cmd
}

func newOversightVerify(env *environment) *cobra.Command {
	var logs []string
	cmd := &cobra.Command{Use: "verify FILE --log VKEY", Short: "Check a report without a server: its signature, its form, its sums", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := (&trustFlags{logs: logs}).named()
			if err != nil {
				return err
			}
			raw, err := readFile(args[0], "the report", "counterseal oversight report -o FILE writes one")
			if err != nil {
				return err
			}
			r, err := oversight.Verify(raw, v.Log)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			fmt.Fprintf(env.stdout, "report     %s, from %s to %s\n", r.Audience, r.From.Format(time.DateOnly), r.To.Format(time.DateOnly))
			fmt.Fprintf(env.stdout, "log        %s, %d statements, root %s\n", r.Origin, r.Size, r.Root)
			if r.DrawWrong {
				fmt.Fprintln(env.stdout, "draw       AGAINST THE RULE: looks were drawn for review in another way")
			}
			_, err = fmt.Fprintln(env.stdout, "the report holds")
			return err
		}}
	cmd.Flags().StringArrayVar(&logs, "log", nil, "`vkey` of the log, known from elsewhere; repeats")
	return cmd
}
