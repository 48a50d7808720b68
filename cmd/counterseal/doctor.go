package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/pipeline"
)

func newDoctor(env *environment) *cobra.Command {
	var f configFlags
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what is wrong, what is not promised yet, and what to do",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			cfg, err := f.load()
			if err != nil {
				return err
			}
			c, err := dial(cmd.Context(), env, cfg)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, c.close()) }()
			var checks []pipeline.Check
			if err := c.getJSON(cmd.Context(), "/api/v1/doctor", nil, &checks); err != nil {
				return err
			}
			failed := 0
			for _, k := range checks {
				fmt.Fprintf(env.stdout, "%-5s %-12s %s\n", k.State, k.Name, event.Printable(k.Text))
				if k.Hint != "" {
					fmt.Fprintf(env.stdout, "%19s%s\n", "", event.Printable(k.Hint))
				}
				if k.State == "fail" {
					failed++
				}
			}
			if failed > 0 {
				return &exitError{code: exitFailed, err: fmt.Errorf("%d checks failed", failed)}
			}
			return nil
		},
	}
	f.add(cmd)
	return cmd
}

// makeData makes the data directory for commands that may begin one.
func makeData(cfg config) error {
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return fmt.Errorf("making the data directory: %w", err)
	}
	return nil
}

func newRebuild(env *environment) *cobra.Command {
	var f configFlags
	cmd := &cobra.Command{
		Use:   "rebuild",
		Short: "Delete index and state and make them again from evidence",
		Long: "Rebuild uses the rules and assessments that were in force when each record was\n" +
			"sealed. It needs no officer. A running server must be stopped first.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := f.load()
			if err != nil {
				return err
			}
			if _, err := os.Stat(cfg.Data); err != nil {
				return fmt.Errorf("no data directory at %s", cfg.Data)
			}
			s, err := openServer(cmd.Context(), cfg, serverOptions{log: newLog(env.stderr, false)})
			if err != nil {
				return err
			}
			show := terminal(env.stderr)
			var total int64
			err = s.pipe.Rebuild(cmd.Context(), func(n int64) {
				total = n
				if show {
					fmt.Fprintf(env.stderr, "\r%d records", n)
				}
			})
			if show {
				fmt.Fprint(env.stderr, "\r"+strings.Repeat(" ", 30)+"\r")
			}
			if err := errors.Join(err, s.close()); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "rebuilt index and state from %d records\n", total)
			return err
		},
	}
	f.add(cmd)
	return cmd
}
