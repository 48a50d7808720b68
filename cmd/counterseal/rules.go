package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/detect"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/pipeline"
	"github.com/counterseal/counterseal/internal/web"
	"github.com/counterseal/counterseal/sigma/sigmatest"
)

func newRules(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "rules", Short: "Sigma rules: list, check, test", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newRulesList(env), newRulesCheck(env), newRulesTest(env))
	return cmd
}

// ruleAnswer is what the API says about the rules in force.
type ruleAnswer struct {
	Digest  string     `json:"digest"`
	Rules   []web.Rule `json:"rules"`
	Refused []struct {
		Path   string `json:"path"`
		Line   int    `json:"line"`
		ID     string `json:"id"`
		Reason string `json:"reason"`
	} `json:"refused"`
	Unfed []string         `json:"unfed"`
	Blind []pipeline.Blind `json:"blind"`
}

func askRules(cmd *cobra.Command, env *environment, f *configFlags) (a ruleAnswer, err error) {
	cfg, err := f.load()
	if err != nil {
		return a, err
	}
	c, err := dial(cmd.Context(), env, cfg)
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	return a, c.getJSON(cmd.Context(), "/api/v1/rules", nil, &a)
}

func newRulesList(env *environment) *cobra.Command {
	var f configFlags
	cmd := &cobra.Command{
		Use: "list", Short: "List the rules in force", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := askRules(cmd, env, &f)
			if err != nil {
				return err
			}
			for _, r := range a.Rules {
				fmt.Fprintf(env.stdout, "%-13s %s  %s\n", r.Level, r.ID, event.Printable(r.Title))
			}
			return nil
		},
	}
	f.add(cmd)
	return cmd
}

func newRulesCheck(env *environment) *cobra.Command {
	var f configFlags
	cmd := &cobra.Command{
		Use:   "check [PATH]...",
		Short: "Say which rules are refused, which nothing feeds, and which an assessment blinds",
		Long: "With paths, check reads those rules alone. Without, it looks at the rules in force in the\n" +
			"data directory, and at what the assessments in force leave them to see.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return checkFiles(env, args)
			}
			a, err := askRules(cmd, env, &f)
			if err != nil {
				return err
			}
			for _, r := range a.Refused {
				fmt.Fprintf(env.stdout, "refused  %s:%d %s\n", event.Printable(r.Path), r.Line, event.Printable(r.Reason))
			}
			title := map[string]string{}
			for _, r := range a.Rules {
				title[r.ID] = r.Title
			}
			for _, b := range a.Blind {
				what := joinNonEmpty("; ", prefixed("drops ", b.Dropped), prefixed("changes ", b.Altered))
				fmt.Fprintf(env.stdout, "blind    %s %q on %s/%s: %s %s\n", b.Rule, event.Printable(b.Title), b.Source, b.Dataset, b.PIA, what)
			}
			for _, id := range a.Unfed {
				fmt.Fprintf(env.stdout, "unfed    %s %q: no source of an assessment in force feeds it\n", id, event.Printable(title[id]))
			}
			fmt.Fprintf(env.stdout, "%d rules in force, %d refused, %d unfed, %d blinded somewhere\n", len(a.Rules), len(a.Refused), len(a.Unfed), distinct(a.Blind))
			return nil
		},
	}
	f.add(cmd)
	return cmd
}

func prefixed(what string, fields []string) string {
	if len(fields) == 0 {
		return ""
	}
	return what + strings.Join(fields, ", ")
}

func distinct(blind []pipeline.Blind) int {
	seen := map[string]bool{}
	for _, b := range blind {
		seen[b.Rule] = true
	}
	return len(seen)
}

func checkFiles(env *environment, paths []string) error {
	files, err := ruleFiles(false, paths)
	if err != nil {
		return err
	}
	set, err := detect.Compile(files)
	if err != nil {
		return err
	}
	for _, r := range set.Refused() {
		fmt.Fprintf(env.stdout, "refused  %s\n", event.Printable(r.Error()))
	}
	for _, w := range set.Set().Warnings() {
		fmt.Fprintf(env.stdout, "warning  %s\n", event.Printable(w.String()))
	}
	for _, r := range set.Unmapped() {
		fmt.Fprintf(env.stdout, "unmapped %s %q: no mapping knows its log source\n", r.ID, event.Printable(r.Title))
	}
	fmt.Fprintf(env.stdout, "%d rules accepted, %d refused, %d unmapped\n", len(set.Rules()), len(set.Refused()), len(set.Unmapped()))
	if len(set.Refused()) > 0 {
		return &exitError{code: exitPartial, err: fmt.Errorf("%d rules are refused", len(set.Refused()))}
	}
	return nil
}

func newRulesTest(env *environment) *cobra.Command {
	var folders []string
	cmd := &cobra.Command{
		Use:   "test FILE...",
		Short: "Run text files that hold events and expected matches",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			files, err := ruleFiles(true, folders)
			if err != nil {
				return err
			}
			set, err := detect.Compile(files)
			if err != nil {
				return err
			}
			failures, events := 0, 0
			for _, arg := range args {
				paths, err := listFiles(arg, ".test")
				if err != nil {
					return err
				}
				for _, path := range paths {
					data, err := os.ReadFile(path)
					if err != nil {
						return err
					}
					report := sigmatest.Run(path, data, sigmatest.Options{Rules: set.Rules()})
					events += report.Events
					for _, f := range report.Failures {
						failures++
						fmt.Fprintln(env.stdout, event.Printable(f))
					}
				}
			}
			fmt.Fprintf(env.stdout, "%d events asked, %d failures\n", events, failures)
			if failures > 0 {
				return &exitError{code: exitFailed, err: fmt.Errorf("%d expectations do not hold", failures)}
			}
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&folders, "rules", nil, "`folder` of rules beside our own (repeats)")
	return cmd
}
