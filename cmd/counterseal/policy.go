package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/policy"
)

func newPolicy(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "policy", Short: "Policies: who may do what", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newPolicyCheck(env), newPolicyTest(env), newPolicyExport(env))
	return cmd
}

func newPolicyCheck(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "check [DIR]",
		Short: "Say what is wrong with the policies of a folder, or give their digest (without a folder: those in the program)",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := there(args); err != nil {
				return err
			}
			_, err := loadPolicy(env, policyDir(args))
			return err
		},
	}
}

func newPolicyTest(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "test [DIR]",
		Short: "Run the cases beside the policies of a folder, tests/*.txt (without a folder: those in the program)",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := there(args); err != nil {
				return err
			}
			dir := policyDir(args)
			set, err := loadPolicy(env, dir)
			if err != nil {
				return err
			}
			cases, err := policy.Cases(dir)
			if err != nil {
				return err
			}
			failed := 0
			for _, c := range cases {
				if err := set.Check(c); err != nil {
					fmt.Fprintln(env.stdout, event.Printable(err.Error()))
					failed++
				}
			}
			untested := set.Untested(cases)
			for _, id := range untested {
				fmt.Fprintf(env.stdout, "no case expects the policy %s to decide\n", id)
			}
			fmt.Fprintf(env.stdout, "%d cases, %d failed, %d policies without a case\n", len(cases), failed, len(untested))
			if failed > 0 || len(untested) > 0 {
				return &exitError{code: exitFailed, err: fmt.Errorf("%d cases failed, %d policies have none", failed, len(untested))}
			}
			return nil
		},
	}
}

func newPolicyExport(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "export DIR",
		Short: "Write the policies in the program, and their cases, into a folder that must not be there",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := os.Mkdir(args[0], 0o700); errors.Is(err, fs.ErrExist) {
				return &exitError{code: exitFailed, err: fmt.Errorf("%s is there already and is not overwritten", args[0]), hint: "name a new folder"}
			} else if err != nil {
				return fmt.Errorf("making the folder: %w", err)
			}
			if err := os.CopyFS(args[0], policy.Default()); err != nil {
				return fmt.Errorf("writing the policies: %w", err)
			}
			_, err := loadPolicy(env, os.DirFS(args[0]))
			return err
		},
	}
}

func policyDir(args []string) fs.FS {
	if len(args) == 0 {
		return policy.Default()
	}
	return os.DirFS(args[0])
}

// loadPolicy says each fault on a line of its own.
func loadPolicy(env *environment, dir fs.FS) (*policy.Set, error) {
	set, err := policy.Load(dir)
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			fmt.Fprintln(env.stdout, event.Printable(line))
		}
		return nil, &exitError{code: exitFailed, err: fmt.Errorf("the policies are refused as a whole")}
	}
	fmt.Fprintf(env.stdout, "%d policies, %d acts, %d roles\ndigest %s\n", len(set.Policies()), len(set.Actions()), len(set.Roles()), set.Digest())
	return set, nil
}
