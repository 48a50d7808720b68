package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/complaint"
)

func newComplaints(env *environment) *cobra.Command {
	var f configFlags
	var l look
	cmd := &cobra.Command{Use: "complaints", Short: "Complaints of people: list, open with your key, answer", Args: cobra.NoArgs,
		Long: "Complaints lists what came, the oldest first. What they say is sealed to the key of oversight\n" +
			"and its spare: save one, open it on your own machine, and close it with an answer, which the\n" +
			"complainant alone can read. An outcome is counted in the report.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var rows []complaintRow
			if err := doActIn(cmd, env, &f, &l, "complaint.list", struct{}{}, &rows); err != nil {
				return err
			}
			if len(rows) == 0 {
				_, err := fmt.Fprintln(env.stdout, "nobody has complained")
				return err
			}
			w := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "COMPLAINT\tRECEIVED\tSTATE\tKEYS")
			for _, r := range rows {
				state := joinNonEmpty(" ", r.State, r.Outcome)
				var keys []string
				for _, k := range r.Keys {
					keys = append(keys, shorten(k, 12))
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.ID, r.Received.Format(time.DateOnly), state, strings.Join(keys, " "))
			}
			return w.Flush()
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.AddCommand(newComplaintSave(env), newComplaintOpen(env), newComplaintClose(env))
	return cmd
}

func newComplaintSave(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var out string
	cmd := &cobra.Command{Use: "save ID -o FILE", Short: "Bring a sealed complaint to your machine", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := need(cmd, "output"); err != nil {
				return err
			}
			if err := free(out); err != nil {
				return err
			}
			var saved complaintSaved
			if err := doActIn(cmd, env, &f, &l, "complaint.save", &complaintNamed{args[0]}, &saved); err != nil {
				return err
			}
			c, err := complaint.Parse(saved.Sealed)
			if err != nil {
				return err
			}
			if err := writeNew(out, append(c.Bytes(), '\n')); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "saved      %s\nnext       counterseal oversight complaints open %s --key FILE\n", out, out)
			return err
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` to write, which must not be there")
	return cmd
}

// openComplaint opens a saved complaint with the key of an overseer.
func openComplaint(env *environment, path, key, pass string) (*complaint.Opened, string, error) {
	b, err := readFile(path, "the complaint", "counterseal oversight complaints save writes one")
	if err != nil {
		return nil, "", err
	}
	c, err := complaint.Parse(b)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", path, err)
	}
	k, err := openKey(env, key, pass)
	if err != nil {
		return nil, "", err
	}
	o, err := c.Open(k)
	if err != nil {
		return nil, "", &exitError{code: exitFailed, err: fmt.Errorf("%s: %w", path, err), hint: "the key of oversight that was enrolled when it came opens it, or its spare"}
	}
	return o, k.SealKey().String(), nil
}

func newComplaintOpen(env *environment) *cobra.Command {
	var key, pass string
	cmd := &cobra.Command{Use: "open FILE --key FILE", Short: "Read a saved complaint, here", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := need(cmd, "key"); err != nil {
				return err
			}
			o, id, err := openComplaint(env, args[0], key, pass)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "%s\n\nkey        %s\nnext       counterseal oversight complaints close %s --key FILE --outcome OUTCOME --answer FILE\n", printableLines(o.Text), id, args[0])
			return err
		}}
	cmd.Flags().StringVar(&key, "key", "", "`file` of the officer's key")
	cmd.Flags().StringVar(&pass, "passphrase-file", "", "`file` with the passphrase of the key")
	return cmd
}

func newComplaintClose(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var key, pass, outcome, answer string
	cmd := &cobra.Command{Use: "close FILE --key FILE --outcome OUTCOME --answer FILE", Short: "Answer a saved complaint, sealed to who complained", Args: cobra.ExactArgs(1),
		Long: "Close seals your answer, here, to the code that only the complainant has, and closes the\n" +
			"complaint. The outcome is counted: " + strings.Join(complaint.Outcomes(), ", ") + ".",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := need(cmd, "key", "outcome", "answer"); err != nil {
				return err
			}
			if !complaint.IsOutcome(outcome) {
				return usage("--outcome is one of %s", strings.Join(complaint.Outcomes(), ", "))
			}
			text, err := readText(env, answer, "the answer")
			if err != nil {
				return err
			}
			o, _, err := openComplaint(env, args[0], key, pass)
			if err != nil {
				return err
			}
			a, err := o.Answer(outcome, text)
			if err != nil {
				return err
			}
			var row complaintRow
			if err := doActIn(cmd, env, &f, &l, "complaint.close", &complaintClosing{a.Bytes()}, &row); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "%s is closed: %s\n", row.ID, row.Outcome)
			return err
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().StringVar(&key, "key", "", "`file` of the officer's key")
	cmd.Flags().StringVar(&pass, "passphrase-file", "", "`file` with the passphrase of the key")
	cmd.Flags().StringVar(&outcome, "outcome", "", "`what` you found: "+strings.Join(complaint.Outcomes(), ", "))
	cmd.Flags().StringVar(&answer, "answer", "", "`file` of the answer, or - for standard input")
	return cmd
}
