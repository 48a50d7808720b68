package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/collect"
	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/duty"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/vault"
)

func newDuty(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "duty", Short: "A few names at night, by a host that two offices let do so in advance", Args: cobra.NoArgs,
		Long: fmt.Sprintf("A responder alone at night sees at most %d names of people whom the grant of an incident has\n", duty.MaxNames) +
			"opened, without waking two officers. The two offices sign a warrant in advance (duty\n" +
			"warrant, officer sign, duty approve) for a duty host: a process under other hands than the\n" +
			"server (duty init, duty serve, duty install). The responder's terminal asks it (duty ask).\n" +
			fmt.Sprintf("Each name waits in the overseer's queue; where one is not reviewed within %d working days no\n", duty.ReviewIn) +
			"other is opened, and without all reviews no warrant is renewed. The server opens nothing.",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newDutyInit(env), newDutyCard(env), newDutyServe(env), newDutyInstall(env), newDutyWarrant(env), newDutyApprove(env), newDutyAsk(env), newDutyStatus(env), newDutyEnd(env))
	return cmd
}

func newDutyInit(env *environment) *cobra.Command {
	var dir, org, name, pass, outerPass, origin string
	var responders []string
	var trust trustFlags
	cmd := &cobra.Command{Use: "init --dir DIR --org ID --log VKEY --witness VKEY --name TEXT", Short: "Make the folder of a duty host: its keys and its settings", Args: cobra.NoArgs,
		Long: "Init makes two key pairs, the one of investigation and the one of oversight, each under a\n" +
			"passphrase, and duty.yaml with the keys of log and witnesses that the host believes. The\n" +
			"two entries that duty card prints belong into the file of the officers, with a new epoch;\n" +
			"a copy of that file belongs into the folder. Names that are seen from then on are sealed\n" +
			"to the host too. Give each office the passphrase of its own key.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := need(cmd, "dir", "org", "log", "witness", "name"); err != nil {
				return err
			}
			if err := trust.check(); err != nil {
				return err
			}
			id, err := uuid.Parse(org)
			if err != nil {
				return usage("--org: the id that counterseal keys list prints")
			}
			if _, err := os.Lstat(dir); err == nil {
				return &exitError{code: exitFailed, err: errors.New("--dir is there already"), hint: "name a new folder: a key is never replaced"}
			}
			var text strings.Builder
			fmt.Fprintf(&text, "apiVersion: %s\norg: %s # counterseal keys list\nlog: # of the ledger that this host believes\n", dutyForm, id)
			for _, k := range trust.logs {
				fmt.Fprintf(&text, "  - '%s'\n", quoted(k))
			}
			text.WriteString("witnesses: # whose hands each is in: those of one name count once\n")
			for i, k := range trust.witnesses {
				fmt.Fprintf(&text, "  - {vkey: '%s', run_by: witness-%d}\n", quoted(k), i+1)
			}
			fmt.Fprintf(&text, "threshold: %d\nresponders: # accounts, as their certificates name them\n", trust.verifiers().Threshold)
			for _, r := range responders {
				fmt.Fprintf(&text, "  - '%s'\n", quoted(r))
			}
			if origin != "" {
				fmt.Fprintf(&text, "origin: '%s' # a request is signed by passkey there\n", quoted(origin))
			}
			if _, err := parseDutySettings([]byte(text.String())); err != nil {
				return usage("%v", err)
			}
			var disk durable.FS
			if err := disk.MkdirAll(filepath.Join(dir, dutyWarrants), 0o700); err != nil {
				return fmt.Errorf("making the folder: %w", err)
			}
			for _, k := range []struct {
				file, pass, what string
				office           officer.Office
			}{{dutyInnerFile, pass, "passphrase of the key of investigation", officer.Investigation}, {dutyOuterFile, outerPass, "passphrase of the key of oversight", officer.Oversight}} {
				key, err := officer.New(name, k.office, false)
				if err != nil {
					return usage("--name: %v", err)
				}
				secret, err := passphrase(env, k.pass, k.what, true)()
				if err != nil {
					return err
				}
				b, err := key.File(secret)
				clear(secret)
				if err != nil {
					return err
				}
				if err := writeNew(filepath.Join(dir, k.file), b); err != nil {
					return err
				}
			}
			if err := writeNew(filepath.Join(dir, dutySettingsFile), []byte(text.String())); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "folder    %s\norg       %s\nnext      counterseal duty card --dir %s --run-by TEXT, into the file of the officers; then a copy of that file as %s\n", dir, id, dir, filepath.Join(dir, dutyOfficersFile))
			return err
		}}
	cmd.Flags().StringVar(&dir, "dir", "", "`folder` to make")
	cmd.Flags().StringVar(&org, "org", "", "`id` of the data directory whose names it opens")
	cmd.Flags().StringVar(&name, "name", "", "`name` of the host")
	cmd.Flags().StringArrayVar(&responders, "responder", nil, "`account` that may ask, as its certificate names it; repeats")
	addOrigin(cmd, &origin)
	dutyPassphrases(cmd, &pass, &outerPass)
	trust.add(cmd)
	return cmd
}

func dutyPassphrases(cmd *cobra.Command, inner, outer *string) {
	cmd.Flags().StringVar(inner, "passphrase-file", "", "`file` with the passphrase of the key of investigation")
	cmd.Flags().StringVar(outer, "oversight-passphrase-file", "", "`file` with the passphrase of the key of oversight")
}

func newDutyCard(env *environment) *cobra.Command {
	var dir, by string
	cmd := &cobra.Command{Use: "card --dir DIR --run-by TEXT", Short: "Print the two entries of a duty host for the file of the officers", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := need(cmd, "dir", "run-by"); err != nil {
				return err
			}
			cards, err := dutyCards(dir)
			if err != nil {
				return err
			}
			for _, c := range cards {
				if err := printCard(env, c, by, "", "duty", ""); err != nil {
					return err
				}
			}
			return nil
		}}
	cmd.Flags().StringVar(&dir, "dir", "", "`folder` of the duty host")
	cmd.Flags().StringVar(&by, "run-by", "", "`who` runs the host")
	return cmd
}

func newDutyServe(env *environment) *cobra.Command {
	var dir, pass, outerPass, listen string
	var files collect.TLSFiles
	cmd := &cobra.Command{Use: "serve --dir DIR --listen ADDRESS --tls-cert FILE --tls-key FILE --client-ca FILE", Short: "Open names for responders, as far as a warrant lets it, until stopped", Args: cobra.NoArgs,
		Long: "Serve answers by TLS 1.3 to who shows a certificate of --client-ca whose common name is an\n" +
			"account in duty.yaml. That authority is of the host's own hands: the server has no\n" +
			"certificate of it. It believes nothing but its folder and the witnesses.",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if err := need(cmd, "dir", "listen", "tls-cert", "tls-key", "client-ca"); err != nil {
				return err
			}
			h, err := openDutyHost(env, dir, pass, outerPass)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, h.journal.Close()) }()
			l, err := listenTLS(listen, files)
			if err != nil {
				return err
			}
			fmt.Fprintf(env.stdout, "listens   %s\n", l.Addr())
			return h.serve(cmd.Context(), l)
		}}
	cmd.Flags().StringVar(&dir, "dir", "", "`folder` of the duty host")
	cmd.Flags().StringVar(&listen, "listen", "", "`address` for responders")
	cmd.Flags().StringVar(&files.Cert, "tls-cert", "", "certificate `file`; a renewed one is read again")
	cmd.Flags().StringVar(&files.Key, "tls-key", "", "key `file` of the certificate")
	cmd.Flags().StringVar(&files.ClientCA, "client-ca", "", "`file` of who signs the certificates of responders")
	dutyPassphrases(cmd, &pass, &outerPass)
	return cmd
}

// openDutyHost opens the keys and the journal of a duty host.
func openDutyHost(env *environment, dir, pass, outerPass string) (*dutyHost, error) {
	if _, err := readDutySettings(dir); err != nil {
		return nil, &exitError{code: exitUsage, err: err, hint: "counterseal duty init makes the folder; docs/formats/duty.md says what is in it"}
	}
	h := &dutyHost{dir: dir, now: time.Now, log: newLog(env.stderr, false), counted: env.counted}
	for _, k := range []struct {
		file, pass string
		into       **officer.Key
	}{{dutyInnerFile, pass, &h.inner}, {dutyOuterFile, outerPass, &h.outer}} {
		key, err := openKey(env, filepath.Join(dir, k.file), k.pass)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.file, err)
		}
		*k.into = key
	}
	var err error
	h.journal, err = duty.OpenJournal(dir)
	return h, err
}

func newDutyInstall(env *environment) *cobra.Command {
	var dir string
	cmd := &cobra.Command{Use: "install WARRANT --dir DIR", Short: "Bring a warrant to the duty host, which checks it by itself", Args: cobra.ExactArgs(1),
		Long: "Install checks the decisions of both offices with the host's own copy of the officers, that\n" +
			"witnesses have seen the warrant, and that every name that the host has opened before is\n" +
			"reviewed. A running host takes it at once. Where a review came later than the warrant, get\n" +
			"the warrant again with the same decisions: counterseal duty approve.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := need(cmd, "dir"); err != nil {
				return err
			}
			set, err := readDutySettings(dir)
			if err != nil {
				return &exitError{code: exitUsage, err: err, hint: "counterseal duty init makes the folder"}
			}
			b, err := readFile(args[0], "the warrant", "counterseal duty approve writes one")
			if err != nil {
				return err
			}
			cards, err := dutyCards(dir)
			if err != nil {
				return err
			}
			w, err := checkWarrant(dir, set, cards[0], cards[1], b)
			if err != nil {
				return &exitError{code: exitRefused, err: err, hint: "nothing was installed"}
			}
			all, err := duty.Releases(dir)
			if err != nil {
				return err
			}
			missing := w.unreviewed(all, time.Now())
			done, err := provenReviews(w.reviews, missing, set.verifiers())
			if err == nil {
				err = stillUnreviewed(missing, done)
			}
			if err != nil {
				return dutyRefusal(err)
			}
			if err := writeNew(filepath.Join(dir, dutyWarrants, w.ID+".json"), b); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "warrant   %s\nfrom      %s\nuntil     %s\nnight     %s UTC\nnames     %d a night\n", w.ID, w.From.Format(time.RFC3339), w.Until.Format(time.RFC3339), w.Night, w.Names)
			return err
		}}
	cmd.Flags().StringVar(&dir, "dir", "", "`folder` of the duty host")
	return cmd
}

// dutyRefusal tells a person what the duty host said.
func dutyRefusal(err error) error {
	var no *duty.Refusal
	if errors.As(err, &no) {
		return &exitError{code: exitRefused, err: no, hint: no.Hint}
	}
	return err
}

func newDutyWarrant(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var ask dutyWarrantAsk
	var from, until, out string
	cmd := &cobra.Command{Use: "warrant --from TIME --until TIME --night HH:MM-HH:MM --reason TEXT --requester NAME -o FILE", Short: "Ask two officers to let the duty host open a few names a night", Args: cobra.NoArgs,
		Long: fmt.Sprintf("Warrant writes a request for both officers (officer sign, duty approve). It is for up to %d\n", int(duty.MaxLast/(24*time.Hour))) +
			fmt.Sprintf("days and %d names a night; the night is up to %d hours of each day, in UTC. It is refused\n", duty.MaxNames, int(duty.MaxNight/time.Hour)) +
			"while a name that was asked for under an earlier one is not reviewed.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(need(cmd, "from", "until", "night", "reason", "requester", "output"), free(out)); err != nil {
				return err
			}
			var err error
			if ask.From, err = flagTime("from", from); err != nil {
				return err
			}
			if ask.Until, err = flagTime("until", until); err != nil {
				return err
			}
			var r officerRequest
			if err := doActIn(cmd, env, &f, &l, "duty.warrant", &ask, &r); err != nil {
				return err
			}
			return sendRequest(env, out, &r, r.Statement)
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().StringVar(&from, "from", "", "when it begins, RFC 3339")
	cmd.Flags().StringVar(&until, "until", "", "when it ends, RFC 3339")
	cmd.Flags().StringVar(&ask.Night, "night", "", "the `hours` that are night, such as 20:00-06:00, in UTC")
	cmd.Flags().IntVar(&ask.Names, "names", duty.MaxNames, "how many names of a night")
	cmd.Flags().StringVar(&ask.Purpose, "reason", "", "why, in a sentence")
	cmd.Flags().StringVar(&ask.Requester, "requester", "", "`name` of who asks")
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` of the request, which must not be there")
	return cmd
}

func newDutyApprove(env *environment) *cobra.Command {
	cmd := newBringDecisions(env, "duty.approve", "; who runs the duty host: counterseal duty install", statementIn)
	cmd.Short = "Bring the decisions of two officers and get the warrant for the duty host"
	cmd.Long = "Approve checks both decisions, states the warrant, waits for the witnesses, and writes it with\n" +
		"the reviews of what was opened before. Brought again, it gives the same warrant with the\n" +
		"reviews of now."
	return cmd
}

func newDutyAsk(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var ask dutyAsk
	var host, cert, key, ca string
	var pipe bool
	cmd := &cobra.Command{Use: "ask ALIAS --case C --reason TEXT --host ADDRESS --tls-cert FILE --tls-key FILE --host-ca FILE", Short: "See the name behind an alias at night, alone", Args: cobra.ExactArgs(1),
		Long: "Ask has the server state the request under the eyes of the witnesses, brings it to the duty\n" +
			"host, and shows the name on this terminal and nowhere else. It needs the grant of an\n" +
			"incident that names the person, for you, a warrant in force, and the night. The name is\n" +
			"counted before it is opened, and waits for a review.\n\n" + aliasHelp,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if err := need(cmd, "case", "reason", "host", "tls-cert", "tls-key", "host-ca"); err != nil {
				return err
			}
			if !pipe && !terminal(env.stdout) {
				return &exitError{code: exitRefused, err: errors.New("a name is shown on a terminal, and standard output is none"), hint: "--pipe gives it to whatever reads standard output"}
			}
			d, err := dialDuty(host, cert, key, ca)
			if err != nil {
				return &exitError{code: exitUsage, err: err}
			}
			var ready dutyReady
			if err := d.do(cmd.Context(), "GET", "/ready", nil, &ready); err != nil { // before anything is counted
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
			ask.Alias = args[0]
			r, err := askAtNight(cmd.Context(), env, c, &l, &ask, ready.Signed)
			if err != nil {
				return err
			}
			b, err := approval.Canonical(r)
			if err != nil {
				return err
			}
			var a dutyAnswer
			if err := d.do(cmd.Context(), "POST", "/open", b, &a); err != nil {
				return err
			}
			defer clear(a.Identity)
			if len(a.Kind) != 1 {
				return errors.New("the duty host answers with nonsense")
			}
			if err := showName(env.stdout, vault.Identity{Kind: event.TokenKind(a.Kind[0]), Canonical: a.Identity}); err != nil {
				return err
			}
			fmt.Fprintf(env.stderr, "number %d of this night; an overseer reviews it\n", a.Number)
			// The name was counted and waits for its review whether this is stated or not.
			return c.actIn(cmd.Context(), &l, "duty.opened", &dutyOpened{Statement: r.Statement, Signed: a.Signed}, &dutyOpened{})
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().StringVar(&ask.Reason, "reason", "", "why, in a sentence that names nobody")
	cmd.Flags().StringVar(&host, "host", "", "`address` of the duty host")
	cmd.Flags().StringVar(&cert, "tls-cert", "", "certificate `file` of your account")
	cmd.Flags().StringVar(&key, "tls-key", "", "key `file` of the certificate")
	cmd.Flags().StringVar(&ca, "host-ca", "", "`file` of who signed the certificate of the duty host")
	cmd.Flags().BoolVar(&pipe, "pipe", false, "show the name also where standard output is no terminal")
	return cmd
}

// askAtNight has a request stated, signed by passkey first where the duty host wants that.
func askAtNight(ctx context.Context, env *environment, c *client, l *look, ask *dutyAsk, signed bool) (*dutyRequest, error) {
	if !signed {
		var r dutyRequest
		return &r, c.actIn(ctx, l, "duty.ask", ask, &r)
	}
	var w unmaskWaits
	if err := c.actIn(ctx, l, "duty.sign", ask, &w); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(env.stderr, "sign      %s\n          with your passkey, by %s\n", w.URL, w.Expires.UTC().Format(time.RFC3339)); err != nil {
		return nil, err
	}
	for {
		var got dutyCollected
		if err := c.actIn(ctx, l, "duty.collect", map[string]string{"request": w.ID}, &got); err != nil {
			return nil, err
		}
		if got.Request != nil {
			return got.Request, nil
		}
	}
}

func newDutyStatus(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var format string
	cmd := &cobra.Command{Use: "status", Short: "Warrants, what was asked for under them, and whether it was reviewed", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "table" && format != "jsonl" {
				return usage("--format is table or jsonl")
			}
			var st dutyState
			if err := doActIn(cmd, env, &f, &l, "duty.status", struct{}{}, &st); err != nil {
				return err
			}
			if format == "jsonl" {
				return printLines(env, []dutyState{st})
			}
			w := tabwriter.NewWriter(env.stdout, 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "WARRANT\tFROM\tUNTIL\tNIGHT UTC\tNAMES\tSTATE")
			for _, r := range st.Warrants {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\n", r.ID, r.From.UTC().Format(time.DateOnly), r.Until.UTC().Format(time.DateOnly), r.Night, r.Names, r.State)
			}
			fmt.Fprintln(w, "REQUEST\tWHEN\tWHO\tCASE\tDUE\tSTATE")
			for i := range st.Asked {
				r := &st.Asked[i]
				state := "asked, not known to be opened"
				if r.Opened {
					state = "opened"
				}
				switch {
				case r.Outcome != "":
					state += ", " + r.Outcome
				case r.Overdue:
					state += ", OVERDUE"
				default:
					state += ", waits"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.ID, r.At.UTC().Format("2006-01-02 15:04"), shorten(event.Printable(strings.TrimPrefix(r.Who, "account:")), 12), shorten(event.Printable(r.Case), 10), r.Due.UTC().Format(time.DateOnly), state)
			}
			if err := w.Flush(); err != nil {
				return err
			}
			if st.Overdue > 0 {
				fmt.Fprintf(env.stdout, "stopped    %d reviews are overdue: nothing is opened until they are stated\n", st.Overdue)
			}
			if st.Waiting > 0 {
				_, err := fmt.Fprintf(env.stdout, "next       an overseer: counterseal oversight queue; %d wait, and no warrant is renewed before\n", st.Waiting)
				return err
			}
			return nil
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().StringVar(&format, "format", "table", "table or jsonl")
	return cmd
}

func newDutyEnd(env *environment) *cobra.Command {
	var f configFlags
	var l look
	cmd := &cobra.Command{Use: "end WARRANT", Short: "Let nothing be asked for under a warrant any more", Args: cobra.ExactArgs(1),
		Long: "End is for an overseer or the privacy officer. The server asks nothing more under the warrant;\n" +
			"who runs the duty host takes its file out of the folder warrants, or stops the host.",
		RunE: func(cmd *cobra.Command, args []string) error {
			in := dutyNamed{Warrant: args[0]}
			if err := doActIn(cmd, env, &f, &l, "duty.end", &in, &in); err != nil {
				return err
			}
			_, err := fmt.Fprintf(env.stdout, "warrant %s has ended\n", in.Warrant)
			return err
		}}
	f.add(cmd)
	l.add(cmd)
	return cmd
}
