package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/complaint"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/web"
)

// dialUnnamed reaches a server without telling who asks, also where this terminal is signed
// in.
func dialUnnamed(ctx context.Context, env *environment, f *configFlags) (*client, error) {
	server, ca := "", ""
	if e := elsewhereOf(ctx); e != nil {
		server, ca = e.server, e.ca
	}
	if server == "" {
		cfg, err := f.load()
		if err != nil {
			return nil, err
		}
		at, err := readSession()
		if err != nil {
			return nil, err
		}
		if _, serr := os.Stat(cfg.Data); at == nil || serr == nil || cfg.path != "" || elsewhereOf(ctx) == nil {
			c, err := dial(context.WithValue(ctx, elsewhereKey{}, (*elsewhere)(nil)), env, cfg)
			if err != nil {
				return nil, err
			}
			c.sign, c.quiet = "", true
			return c, nil
		}
		server = at.URL // nothing is here: the server at which this terminal signed in
		if ca == "" {
			ca = at.CA
		}
	}
	u, err := loginURL(server)
	if err != nil {
		return nil, usage("--server: %v", err)
	}
	t, err := trusting(ca)
	if err != nil {
		return nil, err
	}
	return &client{
		http: &http.Client{Transport: t, CheckRedirect: noRedirect}, base: url.URL{Scheme: "https", Host: strings.TrimPrefix(u, "https://")},
		quiet: true, stop: func() error { t.CloseIdleConnections(); return nil },
	}, nil
}

func newMe(env *environment) *cobra.Command {
	var f configFlags
	var of, format string
	cmd := &cobra.Command{Use: "me", Short: "What is collected about people like me, by which assessments, and how to complain", Args: cobra.NoArgs,
		Long: "Me prints what the page /me of a server says: what the assessments in force collect about a\n" +
			"kind of people, why and for how long, what is left alone, who may look, how often people\n" +
			"were looked at in the last whole quarter. It needs no login, and nobody records who read it.",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if format != "text" && format != "json" {
				return usage("--format is text or json")
			}
			c, err := dialUnnamed(cmd.Context(), env, &f)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, c.close()) }()
			t, err := askTold(cmd.Context(), c, of)
			if err != nil {
				return err
			}
			if format == "json" {
				enc := json.NewEncoder(env.stdout)
				enc.SetIndent("", "  ")
				return enc.Encode(t)
			}
			return printTold(env.stdout, t)
		}}
	f.add(cmd)
	cmd.Flags().StringVar(&of, "of", "", "kind of `people`, such as employee (default the first that assessments name)")
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	cmd.AddCommand(newMeComplain(env), newMeAnswer(env))
	return cmd
}

func askTold(ctx context.Context, c *client, of string) (*web.Told, error) {
	v := url.Values{}
	if of != "" {
		v.Set("of", of)
	}
	var t web.Told
	return &t, c.getJSON(ctx, "/api/v1/me", v, &t)
}

func printTold(w io.Writer, t *web.Told) error {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-12s%s\n", name, event.Printable(fmt.Sprintf(format, args...)))
	}
	if t.Kind == "" {
		line("collected", "nothing about anybody: no assessment is in force that names people")
	} else {
		var others []string
		for _, k := range t.Kinds {
			if k.Kind != t.Kind {
				others = append(others, "--of "+k.Kind)
			}
		}
		line("about", "%s%s", t.Name(), map[bool]string{true: "; others: " + strings.Join(others, ", ")}[len(others) > 0])
	}
	for i := range t.Assessments {
		a := &t.Assessments[i]
		fmt.Fprintln(w)
		line("assessment", "%s: %s, version %d, in force since %s until %s", a.Title, a.ID, a.Version, a.Since, a.Until)
		for _, p := range a.Purposes {
			line("  why", "%s", p.Statement)
			if len(p.Prohibited) > 0 {
				line("  never for", "%s", strings.Join(p.Prohibited, ", "))
			}
		}
		for _, s := range a.Sources {
			line("  source", "%s, kept for %d days, then %s; %s", joinNonEmpty(" ", s.Source, s.Dataset), s.Kept, s.After,
				map[bool]string{true: fmt.Sprintf("as received %d days, %s", s.Originals, map[bool]string{true: "sealed to two officers", false: "under a key of the server"}[t.Looking.Officers]), false: "not kept as received"}[s.Originals > 0])
			for _, g := range s.Fields {
				line("", "  %s: %s", g.Becomes, strings.Join(g.Names, " "))
			}
		}
		for _, r := range a.Recipients {
			line("  given to", "%s: %s", r.Recipient, r.Purpose)
		}
		if a.Redress != "" {
			line("  ask", "%s", a.Redress)
		}
	}
	fmt.Fprintln(w)
	line("left alone", "%s", joinNonEmpty(", ", append(slices.Clone(t.Protected), map[bool]string{true: "nothing: no channel is protected"}[len(t.Protected) == 0])...))
	switch t.Watch.State {
	case "nobody":
		line("looking", "nobody may look at people: nobody is in office who could allow or watch it")
	case "stopped":
		line("looking", "STOPPED since %s UTC: %s", t.Watch.Since, t.Watch.Why)
	default:
		line("looking", "watched by somebody independent: %s", strings.Join(t.Looking.Overseers, ", "))
	}
	if len(t.Looking.Readers) > 0 {
		line("may ask", "%s", strings.Join(t.Looking.Readers, ", "))
		line("may allow", "%s", joinNonEmpty(", ", append(slices.Clone(t.Looking.Deciders), map[bool]string{true: "nobody in office"}[len(t.Looking.Deciders) == 0])...))
	}
	line("names", "%s", map[bool]string{true: "opened by two officers, each with a key that the server does not have", false: "cannot be opened: no officers hold keys"}[t.Looking.Officers])
	if c := t.Counts; c != nil {
		for _, n := range c.Looks {
			line("counted", "%s: %s, from %s to %s, of everybody together", n.Name, n.N, c.From, c.To)
		}
	}
	line("told", "%s", map[bool]string{true: "within 90 days after it has ended; only an overseer puts that off", false: "nothing is set up here that could tell you that you were looked at"}[t.Looking.Tells])
	if len(t.Complaint.Keys) > 0 {
		line("complain", "counterseal me complain --text FILE, or on the page /me; sealed to the overseers")
		for _, k := range t.Complaint.Keys {
			line("  key", "%s", k.ID)
		}
	} else {
		line("complain", "not here: no overseer's key is enrolled")
	}
	if t.Complaint.Contact != "" {
		line("overseers", "%s", t.Complaint.Contact)
	}
	return nil
}

// readText reads a text of a person: a file, or standard input for "-".
func readText(env *environment, path, what string) (string, error) {
	var b []byte
	var err error
	if path == "-" {
		b, err = io.ReadAll(io.LimitReader(env.stdin, complaint.MaxText+2))
	} else if b, err = readFile(path, what, "write it first"); err != nil {
		return "", err
	}
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", what, err)
	}
	text := strings.TrimRight(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n")
	if err := complaint.CheckText(text); err != nil {
		return "", usage("%s: %v", what, err)
	}
	return text, nil
}

func newMeComplain(env *environment) *cobra.Command {
	var f configFlags
	var path string
	var pinned []string
	cmd := &cobra.Command{Use: "complain --text FILE", Short: "Seal a complaint to the overseers here, and send it", Args: cobra.NoArgs,
		Long: "Complain seals a text on this machine to the overseers' keys and sends it. The server learns\n" +
			"that one came, and nothing of what or who; it needs no login. The code that is printed finds\n" +
			"the answer: it is shown once. Name the overseers' keys, known from elsewhere, with --key:\n" +
			"else the keys are those that the server names.",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if err := need(cmd, "text"); err != nil {
				return err
			}
			text, err := readText(env, path, "the complaint")
			if err != nil {
				return err
			}
			c, err := dialUnnamed(cmd.Context(), env, &f)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, c.close()) }()
			t, err := askTold(cmd.Context(), c, "")
			if err != nil {
				return err
			}
			keys, org, err := overseersOf(&t.Complaint, pinned)
			if err != nil {
				return err
			}
			code := complaint.NewCode()
			sealed, err := complaint.Seal(code, text, org, t.Complaint.Epoch, keys)
			if err != nil {
				return err
			}
			resp, err := c.do(cmd.Context(), http.MethodPost, "/api/v1/complaints", nil, bytes.NewReader(sealed.Bytes()))
			if err != nil {
				return err
			}
			resp.Body.Close()
			_, err = fmt.Fprintf(env.stdout, "sealed      to the overseers, and sent; keep the code: it is shown once\ncode        %s\nanswer      counterseal me answer, and type the code\n", code.Text())
			return err
		}}
	f.add(cmd)
	cmd.Flags().StringVar(&path, "text", "", "`file` of the text, or - for standard input")
	cmd.Flags().StringArrayVar(&pinned, "key", nil, "`id` of an overseer's key, known from elsewhere; repeats; keys that are not named are refused")
	return cmd
}

// overseersOf reads the keys that a server names. Each must have the id that it goes by and,
// where ids are pinned, be one of those.
func overseersOf(t *web.ToldComplaint, pinned []string) (keys []keyring.PublicKey, org uuid.UUID, err error) {
	if len(t.Keys) == 0 {
		hint := "turn to whom the assessments name: counterseal me"
		if t.Contact != "" {
			hint = "another way to the overseers: " + event.Printable(t.Contact)
		}
		return nil, org, &exitError{code: exitRefused, err: errors.New("no overseer's key is enrolled there, so whoever runs the server could read a complaint"), hint: hint}
	}
	if org, err = uuid.Parse(t.Org); err != nil {
		return nil, org, errors.New("the server names no data directory")
	}
	for _, k := range t.Keys {
		key, err := keyring.ParsePublicKey(k.Key)
		if err != nil || key.ID().String() != k.ID {
			return nil, org, errors.New("the server names a key that is not the one of its id")
		}
		if len(pinned) > 0 && !slices.ContainsFunc(pinned, func(id string) bool { return strings.EqualFold(id, k.ID) }) {
			return nil, org, &exitError{code: exitRefused, err: errors.New("the server names a key that is none of those given with --key"), hint: "ask the overseers for the ids of both their keys; if they differ, do not complain here"}
		}
		keys = append(keys, key)
	}
	return keys, org, nil
}

func newMeAnswer(env *environment) *cobra.Command {
	var f configFlags
	cmd := &cobra.Command{Use: "answer", Short: "Read the answer to a complaint: the code comes on standard input", Args: cobra.NoArgs,
		Long: "Answer reads the code from standard input, so that it stays out of the list of processes and\n" +
			"the history of the shell. The answer is opened here: the server does not learn the code.",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if in, ok := env.stdin.(*os.File); ok && terminal(in) {
				fmt.Fprint(env.stderr, "code: ")
			}
			text, err := io.ReadAll(io.LimitReader(env.stdin, 200))
			if err != nil {
				return fmt.Errorf("reading the code: %w", err)
			}
			code, err := complaint.ParseCode(string(text))
			if err != nil {
				return &exitError{code: exitUsage, err: err, hint: "type it, then end the input: Ctrl-D"}
			}
			id, err := code.ID()
			if err != nil {
				return err
			}
			c, err := dialUnnamed(cmd.Context(), env, &f)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, c.close()) }()
			var st web.ComplaintState
			if err := c.getJSON(cmd.Context(), "/api/v1/complaints/"+id, nil, &st); err != nil {
				return err
			}
			a, err := opened(&st, code)
			if err != nil {
				return err
			}
			if a.State != "closed" {
				_, err = fmt.Fprintln(env.stdout, "no answer yet: the overseers have it")
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "outcome     %s\n\n%s\n", a.Outcome, printableLines(a.Text))
			return err
		}}
	f.add(cmd)
	return cmd
}

// printableLines shows control characters of a text as escapes, and keeps its lines.
func printableLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = event.Printable(lines[i])
	}
	return strings.Join(lines, "\n")
}
