package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/vault"
)

func newUnmask(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "unmask", Short: "The name of one person, by two officers: ask, approve, open", Args: cobra.NoArgs,
		Long: "A name takes six steps. An investigator asks, under an authorisation that covers the\n" +
			"person (unmask request), and signs the statement with their passkey on a page of the\n" +
			"server. One officer of each office checks that, reads the statement and signs it on a\n" +
			"machine of their own (officer sign). The server takes both decisions (unmask approve).\n" +
			"Oversight opens the outer layer and never sees the name (unmask open). Investigation opens\n" +
			"the inner one, the server says whether that name gives the token, once, and the name is\n" +
			"shown on this terminal and nowhere else.",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newUnmaskRequest(env), newUnmaskCollect(env), newUnmaskApprove(env), newUnmaskOpen(env))
	return cmd
}

func newUnmaskRequest(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var ask unmaskAsk
	var out string
	var grant time.Duration
	var leave bool
	cmd := &cobra.Command{Use: "request ALIAS --case C --reason TEXT --requester NAME -o FILE", Short: "Ask two officers for the name behind an alias", Args: cobra.ExactArgs(1),
		Long: "Request opens nothing: this server cannot. It needs an authorisation in force that names\n" +
			"the person, in this case, for you, and an account: counterseal login. It prints the\n" +
			"address of a page of the server; open it in your browser, read the statement, and sign it\n" +
			"with your passkey within ten minutes. Then the request is written. Who asks does not\n" +
			"decide.\n\n" + aliasHelp,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if leave == (out != "") {
				return misused(cmd, "-o names the file of the request; or --no-wait leaves it to counterseal unmask collect")
			}
			if err := need(cmd, "case", "reason", "requester"); err != nil {
				return err
			}
			if !leave {
				if err := free(out); err != nil {
					return err
				}
			}
			ask.Alias, ask.Minutes = args[0], int(grant/time.Minute)
			cfg, err := f.load()
			if err != nil {
				return err
			}
			c, err := dial(cmd.Context(), env, cfg)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, c.close()) }()
			var w unmaskWaits
			if err := c.actIn(cmd.Context(), &l, "unmask.request", &ask, &w); err != nil {
				return err
			}
			if _, err := fmt.Fprintf(env.stdout, "sign      %s\n          with your passkey, by %s\n", w.URL, w.Expires.UTC().Format(time.RFC3339)); err != nil {
				return err
			}
			if leave {
				_, err := fmt.Fprintf(env.stdout, "then      counterseal unmask collect %s -o FILE\n", w.ID)
				return err
			}
			err = collectUnmask(cmd.Context(), env, c, &l, w.ID, out)
			var told *exitError
			if err != nil && !errors.As(err, &told) { // the way to the server broke; the request is there
				err = &exitError{code: exitFailed, err: err, hint: "it can be signed all the same; then: counterseal unmask collect " + w.ID + " -o FILE"}
			}
			return err
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().StringVar(&ask.Reason, "reason", "", "why, in a sentence that names nobody")
	cmd.Flags().StringVar(&ask.Requester, "requester", "", "your `name`, as the officers know you")
	cmd.Flags().DurationVar(&grant, "for", time.Hour, "how long both officers have to open it, once it is approved")
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` of the request, which must not be there")
	cmd.Flags().BoolVar(&leave, "no-wait", false, "do not wait for the signature; counterseal unmask collect writes the request")
	return cmd
}

func newUnmaskCollect(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var out string
	cmd := &cobra.Command{Use: "collect ID -o FILE", Short: "Write a request that you signed, with proofs of now", Args: cobra.ExactArgs(1),
		Long: fmt.Sprintf("Collect waits until the request is signed and writes it for the officers. An officer signs\n"+
			"a request only while witnesses have seen the ledger with it within the last %d minutes:\n"+
			"collect it again, just before, as often as that is needed.", int(freshness/time.Minute)),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if err := errors.Join(need(cmd, "output"), free(out)); err != nil {
				return err
			}
			cfg, err := f.load()
			if err != nil {
				return err
			}
			c, err := dial(cmd.Context(), env, cfg)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, c.close()) }()
			return collectUnmask(cmd.Context(), env, c, &l, args[0], out)
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` of the request, which must not be there")
	return cmd
}

// collectUnmask waits for the signature of a request and writes its file.
func collectUnmask(ctx context.Context, env *environment, c *client, l *look, id, out string) error {
	for {
		var got unmaskCollected
		if err := c.actIn(ctx, l, "unmask.collect", map[string]string{"request": id}, &got); err != nil {
			return err
		}
		if r := got.Request; r != nil {
			return sendRequest(env, out, r, r.Statement, "--origin "+r.By.Signed.Record.Origin+" --log VKEY --witness VKEY")
		}
	}
}

func newUnmaskApprove(env *environment) *cobra.Command {
	return newBringDecisions(env, "unmask.approve", "; next oversight and then investigation, each on their own machine: counterseal unmask open --help", func(path string) (string, error) {
		r, _, err := readUnmask(path)
		if err != nil {
			return "", err
		}
		return r.Statement, nil
	})
}

// unmaskOpening is what an officer's machine has about one name, and checks by itself.
type unmaskOpening struct {
	openingFacts
	request  *unmaskRequest
	st       *approval.Statement
	origin   string // at which people sign, known from elsewhere
	by       *signer
	handover []byte // of oversight, for investigation
}

// opening checks all that the officer's machine can know, and gives what opens a layer.
func (u *unmaskOpening) opening() (o *officer.Opening, sealed time.Time, err error) {
	v := u.trust.verifiers()
	if sealed, err = u.request.verify(u.st, v); err != nil {
		return nil, sealed, err
	}
	statement := []byte(u.request.Statement)
	named, err := parseUnmaskObjects(u.st.Objects)
	if err != nil {
		return nil, sealed, err
	}
	if u.by, err = u.request.By.verify(u.st, statement, named.account, u.origin, v, u.now); err != nil {
		return nil, sealed, err
	}
	if err := u.receipt.approved(u.st, statement, v, u.now); err != nil {
		return nil, sealed, err
	}
	if err := apart(u.st, u.signed, u.roster); err != nil {
		return nil, sealed, err
	}
	return &officer.Opening{
		Action: actionUnmask, Roster: u.roster, Statement: statement, Signed: u.signed, Objects: u.st.Objects, Org: u.request.row.Org.String(), Now: u.now, Record: recordIn(u.records),
	}, sealed, nil
}

// outer is the part of oversight: a handover that is still sealed to investigation.
func (u *unmaskOpening) outer(k *officer.Key) ([]byte, error) {
	o, _, err := u.opening()
	if err != nil {
		return nil, err
	}
	h, err := k.OpenOuter(o, u.request.row.Info(), u.request.row.Boxes())
	if err != nil {
		return nil, err
	}
	b, err := approval.Canonical(h)
	return append(b, '\n'), err
}

// inner is the part of investigation. same asks the server whether the name gives the
// token; a name that does not is discarded.
func (u *unmaskOpening) inner(k *officer.Key, same func(unmaskCheck) (bool, error)) (vault.Identity, error) {
	var none vault.Identity
	o, _, err := u.opening()
	if err != nil {
		return none, err
	}
	h, err := officer.ParseHandover(bytes.TrimSuffix(u.handover, []byte("\n")))
	if err != nil {
		return none, err
	}
	plain, _, err := k.OpenInner(o, u.request.row.Info(), h)
	if err != nil {
		return none, err
	}
	defer clear(plain)
	id, err := vault.ParseIdentity(plain)
	if err != nil {
		return none, err
	}
	ok, err := same(newUnmaskCheck(u.st.ID, id))
	if err == nil && !ok {
		err = wrongName()
	}
	if err != nil {
		clear(id.Canonical)
		return none, err
	}
	return id, nil
}

func wrongName() error {
	return &exitError{code: exitRefused, err: errors.New("the name that was sealed does not give the token: it is discarded, and the ledger has an alarm"), hint: "tell the overseer: the server sealed another name than the one that it saw"}
}

func newUnmaskOpen(env *environment) *cobra.Command {
	var f configFlags
	var files openingFlags
	var u unmaskOpening
	var out string
	var pipe bool
	cmd := &cobra.Command{Use: "open REQUEST --key FILE --officers FILE --decision FILE --decision FILE --receipt FILE --origin URL --log VKEY --witness VKEY [-o FILE | --handover FILE]", Short: "Open the officer's own layer of a sealed name, after two officers approved", Args: cobra.ExactArgs(1),
		Long: "Oversight opens first and writes a handover (-o), which is still sealed to investigation.\n" +
			"Investigation opens it (--handover) and sees the name, once the server has said that it\n" +
			"gives the token. This machine checks by itself: that who asked signed with their passkey\n" +
			"at this origin, both decisions with its own copy of the officers, that who asked did not\n" +
			"decide, that witnesses have seen the approval, that its\n" +
			"time is not over, and that the seal is the one of which the ledger knew from its first\n" +
			"sighting. It opens for one statement once. The name is shown on a terminal and kept\n" +
			"nowhere: close the window when you have read it.",
		RunE: func(cmd *cobra.Command, args []string) error {
			err := files.check(cmd, "origin")
			if err != nil {
				return err
			}
			if (out == "") == (files.handover == "") {
				return misused(cmd, "oversight writes a handover with -o; investigation reads it with --handover")
			}
			if u.request, u.st, err = readUnmask(args[0]); err != nil {
				return err
			}
			if u.openingFacts, err = files.load(); err != nil {
				return err
			}
			_, sealed, err := u.opening() // before the key is opened: what does not hold asks for no passphrase
			if err != nil {
				return err
			}
			showStatement(env, u.st)
			u.by.show(env.stdout)
			fmt.Fprintf(env.stdout, "  sealed     %s, at the latest\n", sealed.UTC().Format(time.RFC3339))
			if files.handover == "" {
				return unmaskOuter(env, &u, &files, out)
			}
			if u.handover, err = readFile(files.handover, "--handover", "oversight writes it with counterseal unmask open"); err != nil {
				return err
			}
			if !pipe && !terminal(env.stdout) {
				return &exitError{code: exitRefused, err: errors.New("a name is shown on a terminal, and standard output is none"), hint: "--pipe gives it to whatever reads standard output"}
			}
			return unmaskInner(cmd, env, &f, &u, &files)
		}}
	f.add(cmd)
	files.add(cmd, "unmask approve")
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` of the handover, which must not be there; for oversight")
	cmd.Flags().BoolVar(&pipe, "pipe", false, "show the name also where standard output is no terminal")
	addOrigin(cmd, &u.origin)
	return cmd
}

func unmaskOuter(env *environment, u *unmaskOpening, files *openingFlags, out string) error {
	if err := free(out); err != nil {
		return err
	}
	k, err := openKey(env, files.key, files.pass)
	if err != nil {
		return err
	}
	b, err := u.outer(k)
	if err != nil {
		return err
	}
	if err := writeNew(out, b); err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.stdout, "wrote %s, for investigation\n", out)
	return err
}

func unmaskInner(cmd *cobra.Command, env *environment, f *configFlags, u *unmaskOpening, files *openingFlags) (err error) {
	cfg, err := f.load()
	if err != nil {
		return err
	}
	// Before anything is opened: without the server no name is shown.
	c, err := dial(cmd.Context(), env, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	same := func(in unmaskCheck) (bool, error) {
		var a unmaskAnswer
		err := c.actIn(cmd.Context(), &look{caseID: u.st.Case}, "unmask.check", in, &a)
		return a.Same, err
	}
	// Opening uses the statement up: first, whether there would be an answer.
	if _, err := same(unmaskCheck{Request: u.st.ID, Ready: true}); err != nil {
		return err
	}
	k, err := openKey(env, files.key, files.pass)
	if err != nil {
		return err
	}
	id, err := u.inner(k, same)
	if err != nil {
		return err
	}
	defer clear(id.Canonical)
	return showName(env.stdout, id)
}

// showName prints what a token stands for, the one place that does.
func showName(w io.Writer, id vault.Identity) error {
	what := map[event.TokenKind]string{event.Person: "person", event.Mail: "mail", event.Device: "device", event.Address: "address"}[id.Kind]
	source, name, apart := strings.Cut(string(id.Canonical), "\x00")
	if !apart {
		name, source = source, ""
	}
	if _, err := fmt.Fprintf(w, "%-9s  %s\n", what, event.Printable(name)); err != nil || source == "" {
		return err
	}
	_, err := fmt.Fprintf(w, "%-9s  only as this source knows it: %s\n", "source", event.Printable(source))
	return err
}
