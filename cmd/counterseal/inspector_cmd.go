package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/vault"
)

func newInspector(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "inspector", Short: "An inspector's office opens, with its own two keys and nobody else", Args: cobra.NoArgs,
		Long: "For an inspector's office, which asks, approves and opens inside itself. Somebody of it asks\n" +
			"(unmask, unlock, questions), each of its two keys signs the statement (officer sign), the\n" +
			"server takes both decisions (approve), the key of oversight opens the outer layer and the\n" +
			"one of investigation the inner one (open). The organisation sees that the office asked to\n" +
			"open something, and when; not whom or what it is about, nor why.",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newInsideUnmask(env), newInsideUnlock(env), newInsideQuestions(env), newInsideApprove(env), newInsideOpen(env))
	return cmd
}

// insideAsking is a command that asks for an opening.
type insideAsking struct {
	f     configFlags
	l     look
	ask   insideAsk
	out   string
	grant time.Duration
}

func (q *insideAsking) flags(cmd *cobra.Command) {
	q.f.add(cmd)
	q.l.add(cmd)
	cmd.Flags().StringVar(&q.ask.Purpose, "reason", "", "why, in a sentence that names nobody")
	cmd.Flags().StringVar(&q.ask.Requester, "requester", "", "your `name`, as your office knows you")
	cmd.Flags().DurationVar(&q.grant, "for", time.Hour, "how long both have to open it, once it is approved")
	cmd.Flags().StringVarP(&q.out, "output", "o", "", "`file` of the request, which must not be there")
}

func (q *insideAsking) run(cmd *cobra.Command, env *environment, action string) error {
	if err := errors.Join(need(cmd, "case", "reason", "requester", "output"), free(q.out)); err != nil {
		return err
	}
	q.ask.Action, q.ask.Minutes = action, int(q.grant/time.Minute)
	var r insideRequest
	if err := doActIn(cmd, env, &q.f, &q.l, "inspector.request", &q.ask, &r); err != nil {
		return err
	}
	for _, one := range r.Questions {
		fmt.Fprintf(env.stdout, "%s  %-18s  %s\n", event.Printable(one.At), event.Printable(one.Kind), event.Printable(one.Route))
	}
	return sendRequest(env, q.out, &r, r.Statement)
}

func newInsideUnmask(env *environment) *cobra.Command {
	var q insideAsking
	cmd := &cobra.Command{Use: "unmask ALIAS --case C --reason TEXT --requester NAME -o FILE", Short: "Ask for the name behind an alias", Args: cobra.ExactArgs(1),
		Long: "Unmask needs an authorisation of your office in force that names the person, in this case.\n" +
			"The quotas of the organisation do not count here.\n\n" + aliasHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			q.ask.Alias = args[0]
			return q.run(cmd, env, officer.InsideUnmask)
		}}
	q.flags(cmd)
	return cmd
}

func newInsideUnlock(env *environment) *cobra.Command {
	var q insideAsking
	var from, to string
	cmd := &cobra.Command{Use: "unlock --segment ID | --compartment C --from TIME --to TIME --case C --reason TEXT --requester NAME -o FILE", Short: "Ask for the keys of originals", Args: cobra.NoArgs,
		Long: "Unlock asks for the keys of segments of originals. What comes out opens copies of their\n" +
			"files (evidence read) for a time.",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if q.ask.From, err = flagTime("from", from); err != nil {
				return err
			}
			if q.ask.To, err = flagTime("to", to); err != nil {
				return err
			}
			if len(q.ask.Segments) == 0 && q.ask.Compartment == "" {
				return misused(cmd, "--segment, or --compartment with --from and --to, is missing: what to open")
			}
			return q.run(cmd, env, officer.InsideUnlock)
		}}
	q.flags(cmd)
	cmd.Flags().StringArrayVar(&q.ask.Segments, "segment", nil, "`id` of a segment; repeats")
	cmd.Flags().StringVar(&q.ask.Compartment, "compartment", "", "`name` of a compartment, with a range")
	cmd.Flags().StringVar(&from, "from", "", "earliest `time` of sealing, RFC 3339")
	cmd.Flags().StringVar(&to, "to", "", "latest `time` of sealing, RFC 3339")
	return cmd
}

func newInsideQuestions(env *environment) *cobra.Command {
	var q insideAsking
	var from, to string
	cmd := &cobra.Command{Use: "questions --from TIME --to TIME --case C --reason TEXT --requester NAME -o FILE", Short: "Ask for what your own office asked, to review it", Args: cobra.NoArgs,
		Long: fmt.Sprintf("Questions lists when and through which route your office asked in a range, and writes a\n"+
			"request for what it was: that lies under the two keys of the office alone. One request\n"+
			"holds up to %d.", maxQuestions),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if err := need(cmd, "from", "to"); err != nil {
				return err
			}
			if q.ask.From, err = flagTime("from", from); err != nil {
				return err
			}
			if q.ask.To, err = flagTime("to", to); err != nil {
				return err
			}
			return q.run(cmd, env, officer.InsideQuestions)
		}}
	q.flags(cmd)
	cmd.Flags().StringVar(&from, "from", "", "earliest `time`, RFC 3339")
	cmd.Flags().StringVar(&to, "to", "", "latest `time`, RFC 3339")
	return cmd
}

func newInsideApprove(env *environment) *cobra.Command {
	return newBringDecisions(env, "inspector.approve", "; oversight, then investigation: counterseal inspector open", func(path string) (string, error) {
		r, _, err := readInside(path)
		if err != nil {
			return "", err
		}
		return r.Statement, nil
	})
}

func readInside(path string) (*insideRequest, *approval.Statement, error) {
	b, err := readFile(path, "the request", "counterseal inspector writes one")
	if err != nil {
		return nil, nil, err
	}
	r, st, err := parseInside(b)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, st, nil
}

// insideOpening is what a machine of an inspector's office has about a request, and checks
// by itself.
type insideOpening struct {
	openingFacts
	request *insideRequest
	st      *approval.Statement
}

// opening checks all that the machine can know, and gives what opens a layer.
func (u *insideOpening) opening() (*officer.Opening, []sealedThing, error) {
	v := u.trust.verifiers()
	statement := []byte(u.request.Statement)
	objects := u.request.objects()
	if u.request.name != nil {
		objects = u.st.Objects
		if _, err := u.request.name.verify(u.st, v); err != nil {
			return nil, nil, err
		}
	}
	leaf, err := u.receipt.check(insideKinds[u.st.Action], u.st, statement, v)
	if err != nil {
		return nil, nil, err
	}
	var d unmaskApproved
	switch {
	case json.Unmarshal(leaf.Detail, &d) != nil || !d.Inspector || d.Case != "" || d.Minutes != u.st.Minutes:
		return nil, nil, errors.New("the receipt is not of an opening of an inspector's office, or of another time")
	case !u.now.Before(leaf.Time.Add(u.st.Grant())):
		return nil, nil, errors.New("the time of this approval is over")
	case u.request.org() != "" && u.request.org() != u.st.Org:
		return nil, nil, errors.New("the statement is about another data directory")
	}
	things, err := u.request.things(u.st, u.roster)
	if err != nil {
		return nil, nil, err
	}
	return &officer.Opening{Action: u.st.Action, Roster: u.roster, Statement: statement, Signed: u.signed, Objects: objects, Org: u.st.Org, Now: u.now, Record: recordIn(u.records)}, things, nil
}

func newInsideOpen(env *environment) *cobra.Command {
	var f configFlags
	var files openingFlags
	var u insideOpening
	var out string
	var pipe bool
	cmd := &cobra.Command{Use: "open REQUEST --key FILE --officers FILE --decision FILE --decision FILE --receipt FILE --log VKEY --witness VKEY [-o FILE] [--handover FILE]", Short: "Open the layer of one of the office's two keys", Args: cobra.ExactArgs(1),
		Long: "The key of oversight opens first and writes a handover (-o), which is still sealed to the\n" +
			"key of investigation. That one reads it (--handover): a name is shown on this terminal, once\n" +
			"the server has said that it gives the token; keys of originals go into a file (-o); what\n" +
			"the office asked is printed, a line each. This machine checks by itself both decisions with\n" +
			"its own copy of the officers, that witnesses have seen the approval, and that its time is\n" +
			"not over. It opens for one statement once.",
		RunE: func(cmd *cobra.Command, args []string) error {
			err := errors.Join(files.check(cmd), free(out))
			if err != nil {
				return err
			}
			if u.request, u.st, err = readInside(args[0]); err != nil {
				return err
			}
			if (out == "") == (files.handover == "" || u.st.Action == officer.InsideUnlock) {
				return misused(cmd, "the key of oversight writes a handover with -o; that of investigation reads it with --handover, and writes with -o the keys of originals alone")
			}
			if u.openingFacts, err = files.load(); err != nil {
				return err
			}
			o, things, err := u.opening() // before the key is opened: what does not hold asks for no passphrase
			if err != nil {
				return err
			}
			showStatement(env, u.st)
			if files.handover != "" && u.st.Action == officer.InsideUnmask && !pipe && !terminal(env.stdout) {
				return &exitError{code: exitRefused, err: errors.New("a name is shown on a terminal, and standard output is none"), hint: "--pipe gives it to whatever reads standard output"}
			}
			return u.open(cmd, env, &f, o, things, &files, out)
		}}
	f.add(cmd)
	files.add(cmd, "inspector approve")
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` of the handover, or of the keys of originals, which must not be there")
	cmd.Flags().BoolVar(&pipe, "pipe", false, "show the name also where standard output is no terminal")
	return cmd
}

// open opens the layer of a key: of oversight, or with a handover of investigation.
func (u *insideOpening) open(cmd *cobra.Command, env *environment, f *configFlags, o *officer.Opening, things []sealedThing, files *openingFlags, out string) (err error) {
	var c *client
	if files.handover != "" && u.st.Action == officer.InsideUnmask { // before anything is opened: without the server no name is shown
		cfg, err := f.load()
		if err != nil {
			return err
		}
		if c, err = dial(cmd.Context(), env, cfg); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.close()) }()
		// Opening uses the statement up: first, whether there would be an answer.
		var ready unmaskAnswer
		if err := c.actIn(cmd.Context(), &look{caseID: u.st.Case}, "unmask.check", unmaskCheck{Request: u.st.ID, Statement: u.request.Statement, Ready: true}, &ready); err != nil {
			return err
		}
	}
	k, err := openKey(env, files.key, files.pass)
	if err != nil {
		return err
	}
	if files.handover == "" {
		b, err := openOuters(k, o, things)
		if err != nil {
			return err
		}
		if err := writeNew(out, b); err != nil {
			return err
		}
		_, err = fmt.Fprintf(env.stdout, "wrote %s, for investigation\n", out)
		return err
	}
	secrets, until, err := openInners(k, o, things, files.handover)
	if err != nil {
		return err
	}
	defer func() {
		for _, s := range secrets {
			clear(s)
		}
	}()
	switch u.st.Action {
	case officer.InsideUnmask:
		id, err := vault.ParseIdentity(secrets[0])
		if err != nil {
			return err
		}
		defer clear(id.Canonical)
		in := newUnmaskCheck(u.st.ID, id)
		in.Statement = u.request.Statement
		var a unmaskAnswer
		if err := c.actIn(cmd.Context(), &look{caseID: u.st.Case}, "unmask.check", in, &a); err != nil {
			return err
		}
		if !a.Same {
			return wrongName()
		}
		return showName(env.stdout, id)
	case officer.InsideUnlock:
		var b []byte
		for i, s := range u.request.sealed {
			line, err := s.KeyFile(secrets[i], until, approval.Digest(o.Statement))
			if err != nil {
				return err
			}
			b = append(b, line...)
		}
		defer clear(b)
		if err := writeNew(out, b); err != nil {
			return err
		}
		_, err = fmt.Fprintf(env.stdout, "wrote %s\n", out)
		return err
	}
	for i, q := range u.request.Questions {
		var line bytes.Buffer
		if err := json.Compact(&line, secrets[i]); err != nil {
			return errors.New("what was sealed is no question")
		}
		if _, err := fmt.Fprintf(env.stdout, "%s %s\n", event.Printable(q.At), event.Printable(line.String())); err != nil {
			return err
		}
	}
	return nil
}
