package main

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// remote are the commands, or groups of them, that ask a server on another machine as
// well as one on this. The others read or write files of the server's machine.
var remote = []string{
	"search", "timeline", "doctor", "prove", "replay", "authorise", "contain", "glass", "review", "inquiry", "hold", "retention", "account", "token", "oversight", "me",
	"rules list", "rules run", "rules activate", "rules approve", "channels", "package list", "package receive", "package return", "evidence unlock", "evidence approve", "unmask", "name", "erase", "inspector",
	"duty warrant", "duty approve", "duty ask", "duty status", "duty end",
}

// elsewhere is where a command asks that names no data directory on this machine.
type elsewhere struct {
	server, ca string
	never      bool // the command works on the server's machine alone
}

type elsewhereKey struct{}

// elsewhereOf gives it; nil: on this machine, since the command line says so.
func elsewhereOf(ctx context.Context) *elsewhere {
	e, _ := ctx.Value(elsewhereKey{}).(*elsewhere)
	return e
}

// addServer gives the commands of remote the flags of a server, and has all commands that
// open a data directory look at where they ask.
func addServer(cmd *cobra.Command, below string) {
	path := strings.TrimSpace(below + " " + cmd.Name())
	if below == "" && cmd.Parent() == nil {
		path = ""
	}
	for _, sub := range cmd.Commands() {
		addServer(sub, path)
	}
	run := cmd.RunE
	if run == nil || cmd.Flags().Lookup("data") == nil || cmd.Flags().Lookup("server") != nil {
		return
	}
	e := elsewhere{never: !slices.ContainsFunc(remote, func(r string) bool { return path == r || strings.HasPrefix(path, r+" ") })}
	if !e.never {
		addServerFlags(cmd, &e.server, &e.ca)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		here := cmd.Flags().Changed("data") || cmd.Flags().Changed("config")
		if here && e.server != "" {
			return usage("--server and --data or --config name two places: leave one out")
		}
		if !here {
			at := e
			if at.server == "" {
				at.server = os.Getenv("COUNTERSEAL_SERVER")
			}
			if at.ca == "" {
				at.ca = os.Getenv("COUNTERSEAL_CA")
			}
			cmd.SetContext(context.WithValue(cmd.Context(), elsewhereKey{}, &at))
		}
		return run(cmd, args)
	}
}

func addServerFlags(cmd *cobra.Command, server, ca *string) {
	cmd.Flags().StringVar(server, "server", "", "`address` of a server on another machine, https://host[:port] (default $COUNTERSEAL_SERVER)")
	cmd.Flags().StringVar(ca, "ca", "", "PEM `file` of the authority that signed its certificate, where the system does not know it (default $COUNTERSEAL_CA)")
}

// dialElsewhere reaches the server on another machine that the command line or the
// environment names or, where there is nothing to ask on this machine, the one at which
// this terminal signed in. nil: ask here.
func dialElsewhere(ctx context.Context, cfg *config) (*client, error) {
	e := elsewhereOf(ctx)
	if e == nil {
		return nil, nil
	}
	if e.server == "" {
		if _, err := os.Stat(cfg.Data); err == nil || cfg.path != "" { // there is something here
			return nil, nil
		}
	} else if e.never {
		return nil, &exitError{code: exitUsage, err: errors.New("this command works on the machine of its server alone, and COUNTERSEAL_SERVER names another"),
			hint: "run it there, or name a data directory of this machine with --data"}
	}
	if e.never {
		return nil, nil
	}
	s, err := readSession()
	if err != nil || s == nil && e.server == "" {
		return nil, err
	}
	if e.server == "" {
		e.server = s.URL
	}
	u, err := loginURL(e.server)
	switch {
	case err != nil:
		return nil, usage("--server: %v", err)
	case s == nil || s.URL != u:
		return nil, &exitError{code: exitRefused, err: errors.New("this terminal is not signed in at that server"), hint: "sign in: counterseal login --server URL"}
	}
	if err := s.ended(); err != nil {
		return nil, err
	}
	if e.ca == "" {
		e.ca = s.CA
	}
	t, err := trusting(e.ca)
	if err != nil {
		return nil, err
	}
	return &client{
		http: &http.Client{Transport: t, CheckRedirect: noRedirect}, base: url.URL{Scheme: "https", Host: strings.TrimPrefix(u, "https://")},
		sign: "Bearer " + s.Secret, stop: func() error { t.CloseIdleConnections(); return nil },
	}, nil
}

// noRedirect keeps a secret with the server that it belongs to.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// absoluteFile is a path that holds from any folder; empty stays empty.
func absoluteFile(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	return filepath.Abs(path)
}
