package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"
)

func newServe(env *environment) *cobra.Command {
	var f configFlags
	var verbose bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Collect, seal, detect and answer until stopped",
		Long: "Serve opens the data directory, the listeners of the configuration, the API socket\n" +
			"run/api.sock and a loopback address. It prints an address with a secret that opens\n" +
			"one session in a browser. Stop it with Ctrl-C: it finishes what it has accepted.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := f.load()
			if err != nil {
				return err
			}
			log := newLog(env.stderr, verbose)
			s, err := openServer(cmd.Context(), cfg, serverOptions{log: log, child: env.stderr})
			if err != nil {
				return err
			}
			if err := s.listen(); err != nil {
				return errors.Join(err, s.close())
			}
			s.announce(env.stdout)
			if err := s.signin.announce(cmd.Context(), env.stdout); err != nil {
				return errors.Join(err, s.close())
			}
			return errors.Join(s.run(cmd.Context()), s.close())
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "log more")
	return cmd
}

func newLog(w io.Writer, verbose bool) *slog.Logger {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// announce prints where to go. The lines are stable: programs may read them.
func (s *server) announce(w io.Writer) {
	fmt.Fprintf(w, "data      %s\n", s.cfg.Data)
	if s.tokens.dir != "" {
		fmt.Fprintf(w, "tokens    %s\n", s.tokens.dir)
	}
	for i, l := range s.listeners {
		fmt.Fprintf(w, "%-9s %s for source %s\n", s.cfg.Listeners[i].Way, l.Addr(), s.cfg.Listeners[i].Source)
	}
	if s.loopback != nil {
		fmt.Fprintf(w, "ingest    http://%s/api/v1/ingest/SOURCE\n", s.loopback.Addr())
		fmt.Fprintf(w, "page      %s\n", s.pageAddress())
	}
	for _, p := range s.pipe.Problems() {
		fmt.Fprintf(w, "problem   %s: %s\n", p.Document, p.Text)
	}
}

// pageAddress is the start page with a fresh one-time secret.
func (s *server) pageAddress() string {
	return fmt.Sprintf("http://%s/enter?once=%s", s.loopback.Addr(), s.web.OneTime())
}

// background runs a server until stop is called, for commands that play into it.
func (s *server) background(ctx context.Context) (stop func() error) {
	run, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.run(run) }()
	return func() error {
		cancel()
		return <-done
	}
}
