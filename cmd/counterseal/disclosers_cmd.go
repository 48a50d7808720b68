package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/discloser"
	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/keyholder"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/officer"
)

func newDisclosers(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "disclosers", Short: "Your own list of protected disclosers: who on it is looked at, and by whom", Args: cobra.NoArgs,
		Long: "People who told an inspector, Congress, a court or the press something are hunted for it at\n" +
			"times. Keep them on a list of your own: a file on your machine that opens with the key of\n" +
			"oversight, and with nothing else. What is asked about anybody is compared with it here: looks,\n" +
			"authorisations and orders (disclosers check), and what you are about to sign (officer sign\n" +
			"--disclosers). Nobody else learns who is on it, or that there is a list: the key holder gives\n" +
			"what is compared without learning of whom (disclosers ask), and the server tells everybody's\n" +
			"machine the same.",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newDisclosersNew(env), newDisclosersAdd(env), newDisclosersShow(env), newDisclosersRemove(env), newDisclosersAsk(env), newDisclosersCheck(env))
	return cmd
}

// listFlags name the key with which a list is opened.
type listFlags struct{ key, pass string }

func (f *listFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.key, "key", "", "`file` of the officer's key, of oversight or its spare")
	cmd.Flags().StringVar(&f.pass, "passphrase-file", "", "`file` with the passphrase of the key")
}

// open opens a list and the key.
func (f *listFlags) open(cmd *cobra.Command, env *environment, path string) (*discloser.List, *officer.Key, error) {
	if err := need(cmd, "key"); err != nil {
		return nil, nil, err
	}
	k, err := openKey(env, f.key, f.pass)
	if err != nil {
		return nil, nil, err
	}
	l, err := openList(path, k)
	return l, k, err
}

// openList opens the list in a file.
func openList(path string, k *officer.Key) (*discloser.List, error) {
	b, err := readFile(path, "the list", "counterseal oversight disclosers new writes one")
	if err != nil {
		return nil, err
	}
	l, err := discloser.Open(b, k)
	switch {
	case errors.Is(err, keyring.ErrNotForKey):
		return nil, &exitError{code: exitFailed, err: fmt.Errorf("%s: %w", path, err), hint: "the key of oversight for which it was made opens it, or its spare"}
	case err != nil:
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return l, nil
}

// saveList writes a list in the place of the one before.
func saveList(path string, l *discloser.List) error {
	b, err := l.Seal()
	if err != nil {
		return err
	}
	var disk durable.FS
	if err := disk.WriteFile(path, b, 0o600); err != nil {
		return unwritable(path, err)
	}
	return nil
}

func newDisclosersNew(env *environment) *cobra.Command {
	var officers string
	cmd := &cobra.Command{Use: "new LIST --officers FILE", Short: "Begin a list, sealed to oversight and its spare", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := errors.Join(need(cmd, "officers"), free(args[0])); err != nil {
				return err
			}
			data, err := readFile(officers, "--officers", "your own copy of officers.yaml")
			if err != nil {
				return err
			}
			roster, err := officer.ParseRoster(officers, data)
			if err != nil {
				return err
			}
			var to []keyring.PublicKey
			for _, a := range roster.Overseers() {
				to = append(to, a.Seal)
			}
			l, err := discloser.New(to)
			if err != nil {
				return err
			}
			b, err := l.Seal()
			if err != nil {
				return err
			}
			if err := writeNew(args[0], b); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "wrote     %s, which opens with %d keys of oversight\nnext      counterseal oversight disclosers add %s --key FILE --note TEXT\n", args[0], len(to), args[0])
			return err
		}}
	cmd.Flags().StringVar(&officers, "officers", "", "`file` of the officers (officers/v1), your own copy")
	return cmd
}

func newDisclosersAdd(env *environment) *cobra.Command {
	var f listFlags
	var note, names string
	cmd := &cobra.Command{Use: "add LIST --key FILE --note TEXT [--names FILE]", Short: "Put one person on the list", Args: cobra.ExactArgs(1),
		Long: "Add reads the names of one person, one a line, as the directory of the organisation has them:\n" +
			"an account, a mail address, a SID, a display name. One does. The note is what you are shown\n" +
			"when somebody looks at them: the number of a file of yours, say.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := need(cmd, "note"); err != nil {
				return err
			}
			l, _, err := f.open(cmd, env, args[0])
			if err != nil {
				return err
			}
			lines, err := readLines(env, names)
			if err != nil {
				return err
			}
			if err := l.Add(time.Now(), note, lines); err != nil {
				return &exitError{code: exitUsage, err: err, hint: "one name a line, all of them of one person"}
			}
			if err := saveList(args[0], l); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "added     %s, by %s\nnext      counterseal oversight disclosers ask %s --key FILE; until then nothing matches them\n", event.Printable(note), counted(len(lines), "name", "names"), args[0])
			return err
		}}
	f.add(cmd)
	cmd.Flags().StringVar(&note, "note", "", "`text` for yourself, which names nobody")
	cmd.Flags().StringVar(&names, "names", "-", "`file` of the names of one person; - reads standard input")
	return cmd
}

// readLines reads lines that are not empty.
func readLines(env *environment, path string) ([]string, error) {
	in := env.stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, &exitError{code: exitFailed, err: errors.New("--names: the file cannot be read"), hint: "- reads standard input"}
		}
		defer file.Close()
		in = file
	} else if terminal(env.stdout) {
		fmt.Fprintln(env.stdout, "Names of one person, one a line; then Ctrl-D:")
	}
	text, err := io.ReadAll(io.LimitReader(in, maxNamesFile+1))
	if err != nil || len(text) > maxNamesFile {
		return nil, usage("--names: at most %d bytes of text", maxNamesFile)
	}
	var out []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out, nil
}

func newDisclosersShow(env *environment) *cobra.Command {
	var f listFlags
	cmd := &cobra.Command{Use: "show LIST --key FILE", Short: "Show who is on the list, on this terminal", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, _, err := f.open(cmd, env, args[0])
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(env.stdout, 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "PLACE\tADDED\tFOUND\tNOTE\tNAMES")
			for i := range l.Entries {
				e := &l.Entries[i]
				found := "not asked"
				if e.Found >= 0 {
					found = fmt.Sprintf("%d of %d", e.Found, len(e.Names))
				}
				fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\n", i+1, e.Added.Format(time.DateOnly), found, event.Printable(e.Note), event.Printable(strings.Join(e.Names, ", ")))
			}
			if err := w.Flush(); err != nil {
				return err
			}
			return printAsked(env.stdout, l)
		}}
	f.add(cmd)
	return cmd
}

func printAsked(w io.Writer, l *discloser.List) error {
	text := "never: nothing matches anybody yet"
	if !l.Asked.IsZero() {
		text = l.Asked.Format(time.RFC3339) + ", in epoch " + strconv.Itoa(l.Epoch)
	}
	_, err := fmt.Fprintln(w, "asked     "+text)
	return err
}

func newDisclosersRemove(env *environment) *cobra.Command {
	var f listFlags
	cmd := &cobra.Command{Use: "remove LIST PLACE --key FILE", Short: "Take one person off the list", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			place, err := strconv.Atoi(args[1])
			if err != nil {
				return usage("PLACE is a number that disclosers show prints")
			}
			l, _, err := f.open(cmd, env, args[0])
			if err != nil {
				return err
			}
			if err := l.Remove(place); err != nil {
				return &exitError{code: exitUsage, err: err, hint: "counterseal oversight disclosers show prints the places"}
			}
			if err := saveList(args[0], l); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "removed   place %d; those after it moved up\n", place)
			return err
		}}
	f.add(cmd)
	return cmd
}

func newDisclosersAsk(env *environment) *cobra.Command {
	var c configFlags
	var f listFlags
	var holder askedHolder
	cmd := &cobra.Command{Use: "ask LIST --key FILE", Short: "Get from the key holder what the list is compared by, without telling it who is on it", Args: cobra.ExactArgs(1),
		Long: "Ask signs with your key that oversight asks, and gets a table of the whole directory of the\n" +
			"key holder, of which only the rows of your own people open here. The key holder does not\n" +
			"learn whose: what it is sent has one length and looks random, whether your list is empty or\n" +
			"full. It answers " + strconv.Itoa(keyholder.DefaultQuota().Lists) + " such questions in 30 days, counts them, and the ledger says how many: ask on\n" +
			"fixed days, such as those of your heartbeat, so that the day tells nothing either. Ask again\n" +
			"when you have added somebody, and after a new epoch of tokens.",
		RunE: func(cmd *cobra.Command, args []string) error {
			l, k, err := f.open(cmd, env, args[0])
			if err != nil {
				return err
			}
			cfg, err := c.load()
			if err != nil {
				return err
			}
			to, err := holder.dial(cfg)
			if err != nil {
				return err
			}
			var bar *progressbar.ProgressBar
			progress := func(done, all int) {
				if bar == nil && terminal(env.stderr) {
					bar = progressbar.NewOptions(all, progressbar.OptionSetWriter(env.stderr), progressbar.OptionSetDescription("the key holder answers"),
						progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
				}
				if bar != nil {
					_ = bar.Set(done) // it only shows how far it is
				}
			}
			sign := func(statement []byte) (approval.Signed, error) { return k.Sign(approval.Approve, statement) }
			got, err := keyholder.AskList(cmd.Context(), to, l.Words(), k.Card().Name, time.Now(), sign, progress)
			if err != nil {
				return listError(err)
			}
			if err := l.Answered(time.Now(), got.Org, got.Epoch, got.Tags); err != nil {
				return &exitError{code: exitRefused, err: err, hint: "nothing was changed; look at --keyholder"}
			}
			if err := saveList(args[0], l); err != nil {
				return err
			}
			if err := printAsked(env.stdout, l); err != nil {
				return err
			}
			missing := 0
			for i := range l.Entries {
				if e := &l.Entries[i]; e.Found == 0 {
					missing++
					fmt.Fprintf(env.stdout, "UNKNOWN   place %d, %s: the directory of the key holder has none of the names, so nothing matches\n", i+1, event.Printable(e.Note))
				}
			}
			_, err = fmt.Fprintf(env.stdout, "found     %d of %s\nnext      counterseal oversight disclosers check %s --key FILE\n", len(l.Entries)-missing, counted(len(l.Entries), "person", "people"), args[0])
			return err
		}}
	c.add(cmd)
	f.add(cmd)
	holder.add(cmd)
	return cmd
}

// listError says what to do where the key holder does not answer about a list.
func listError(err error) error {
	switch {
	case errors.Is(err, keyholder.ErrCapability):
		return &exitError{code: exitRefused, err: err, hint: "its log says why; it answers the officer of oversight, or the spare, of its own copy of officers.yaml, and its clock must be right"}
	case errors.Is(err, keyholder.ErrRoster):
		return &exitError{code: exitRefused, err: errors.New("the key holder knows no officers"), hint: "put officers.yaml into its folder"}
	case errors.Is(err, keyholder.ErrDirectory):
		return &exitError{code: exitRefused, err: err, hint: "put directory.yaml into its folder: who is in no directory is found by no list"}
	case errors.Is(err, keyholder.ErrQuota):
		return &exitError{code: exitRefused, err: errors.New("the key holder has answered as many lists as 30 days allow"), hint: "ask later; `quota.lists` in its keyholder.yaml is the number"}
	}
	return askedError(err)
}

func newDisclosersCheck(env *environment) *cobra.Command {
	var c configFlags
	var f listFlags
	var where look
	var in targetsAsk
	var format, failOn string
	cmd := &cobra.Command{Use: "check LIST --key FILE", Short: "Who on the list is looked at, asked for or contained", Args: cobra.ExactArgs(1),
		Long: "Check gets every look, grant and broken glass that waits for a review, every authorisation\n" +
			"that is asked for or in force and every containment, of everybody, and compares them here. What it prints is for you\n" +
			"alone. An inspector's office looks without being seen, here as well. Do not tell who asked:\n" +
			"refuse, end or ask why as you would of anybody, and in no other words. With --case an alias\n" +
			"is the one that those who asked saw.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "table" && format != "jsonl" {
				return usage("--format is table or jsonl")
			}
			if failOn != "" && failOn != "match" {
				return usage("--fail-on is match")
			}
			l, k, err := f.open(cmd, env, args[0])
			if err != nil {
				return err
			}
			var a targetsAnswer
			if err := doActIn(cmd, env, &c, &where, "oversight.targets", &in, &a); err != nil {
				return err
			}
			matches, err := compare(l, k, &a)
			if err != nil {
				return err
			}
			if format == "jsonl" {
				if err := printLines(env, matches); err != nil {
					return err
				}
			} else if err := printMatches(env.stdout, matches); err != nil {
				return err
			}
			w := env.stdout
			if format == "jsonl" {
				w = env.stderr
			}
			if err := printCompared(w, l, k, &a, len(matches), args[0], time.Now()); err != nil {
				return err
			}
			if failOn != "" && len(matches) > 0 {
				return &exitError{code: exitFound}
			}
			return nil
		}}
	c.add(cmd)
	f.add(cmd)
	where.add(cmd)
	cmd.Flags().BoolVar(&in.All, "all", false, "what is over, too: looks of the last 90 days that were reviewed, authorisations and containments that have ended")
	cmd.Flags().StringVar(&format, "format", "table", "table or jsonl")
	cmd.Flags().StringVar(&failOn, "fail-on", "", "exit 10 on a `match`")
	return cmd
}

// discloserMatch is something about somebody on the list. It has no name.
type discloserMatch struct {
	targetRow
	About  []targetAbout `json:"about,omitempty"`  // left out
	Person string        `json:"person,omitempty"` // alias; empty where a look listed them
	Note   string        `json:"note"`
}

// compare finds what is about people on a list, the oldest first.
func compare(l *discloser.List, k *officer.Key, a *targetsAnswer) ([]discloserMatch, error) {
	out := []discloserMatch{}
	for _, t := range a.Targets {
		for _, who := range t.About {
			if e := l.Match(who.Veil); e != nil {
				out = append(out, discloserMatch{targetRow: t, Person: who.Person, Note: e.Note})
			}
		}
	}
	for _, s := range a.Shown {
		_, veils, err := openShown(k, s.Sealed)
		if errors.Is(err, keyring.ErrNotForKey) {
			continue // printCompared says so
		}
		if err != nil {
			return nil, fmt.Errorf("look %s: %w", s.ID, err)
		}
		for _, v := range veils {
			if e := l.Match(v); e != nil {
				out = append(out, discloserMatch{targetRow: targetRow{Kind: "listed", ID: s.ID, At: s.At, Case: s.Case, Who: s.Who, State: "shown"}, Note: e.Note})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b discloserMatch) int { return a.At.Compare(b.At) })
	return out, nil
}

func printMatches(w io.Writer, matches []discloserMatch) error {
	if len(matches) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "KIND\tID\tWHEN\tWHO\tCASE\tPERSON\tSTATE\tNOTE")
	for i := range matches {
		m := &matches[i]
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.Kind, m.ID, m.At.Format(time.DateOnly), shorten(event.Printable(strings.TrimPrefix(m.Who, "account:")), 12),
			shorten(event.Printable(m.Case), 8), cmp.Or(event.Printable(m.Person), "-"), event.Printable(m.State), event.Printable(m.Note))
	}
	return t.Flush()
}

// stale is after what time a list should be asked for again: people get other names.
const stale = 35 * 24 * time.Hour

func printCompared(w io.Writer, l *discloser.List, k *officer.Key, a *targetsAnswer, matches int, path string, now time.Time) error {
	again := "counterseal oversight disclosers ask " + path + " --key FILE"
	people, unknown, closed := len(a.Shown), 0, 0
	for i := range a.Targets {
		people += len(a.Targets[i].About)
	}
	for i := range a.Shown {
		if _, _, err := openShown(k, a.Shown[i].Sealed); err != nil {
			closed++
		}
	}
	for i := range l.Entries {
		if l.Entries[i].Found == 0 {
			unknown++
		}
	}
	var err error
	line := func(name, text string) {
		if err == nil {
			_, err = fmt.Fprintf(w, "%-9s %s\n", name, text)
		}
	}
	line("compared", fmt.Sprintf("%s with %s on the list; %s", counted(people, "target", "targets"), counted(len(l.Entries), "person", "people"), counted(matches, "match", "matches")))
	if n := l.Unasked(); n > 0 {
		line("MISSING", counted(n, "person was", "people were")+" added since the key holder was asked, and nothing matches them: "+again)
	}
	if unknown > 0 {
		line("MISSING", counted(unknown, "person is", "people are")+" in no directory of the key holder, and nothing matches them")
	}
	if closed > 0 {
		line("MISSING", counted(closed, "look that listed people is", "looks that listed people are")+" sealed to an earlier key of oversight")
	}
	switch {
	case l.Asked.IsZero():
	case l.Epoch < a.Epoch:
		line("MISSING", fmt.Sprintf("tokens are of epoch %d, and the list of epoch %d: %s", a.Epoch, l.Epoch, again))
	case now.Sub(l.Asked) > stale:
		line("old", "the key holder was asked on "+l.Asked.Format(time.DateOnly)+": "+again)
	}
	return err
}

// listedIn gives whom on a list one of the targets is about.
func listedIn(l *discloser.List, a *targetsAnswer, id string) []*discloser.Entry {
	var out []*discloser.Entry
	for _, t := range a.Targets {
		if t.ID != id {
			continue
		}
		for _, who := range t.About {
			out = append(out, l.Match(who.Veil))
		}
	}
	return out
}

// listed shows an officer of oversight whom on their list something is about, before they
// approve it, and refuses that unless they said that they know.
func listed(w io.Writer, entries []*discloser.Entry, approves, although bool) error {
	some := false
	for _, e := range entries {
		if e != nil {
			some = true
			fmt.Fprintf(w, "LISTED     %s: on your list of protected disclosers\n", event.Printable(e.Note))
		}
	}
	if some && approves && !although {
		return &exitError{code: exitRefused, err: errors.New("somebody on your list is asked about, and nothing was approved"),
			hint: "find out why they are asked about; --although-listed approves, and a refusal is one like any other: it says no word of the list"}
	}
	return nil
}

const (
	disclosersHelp = "`list` of protected disclosers (oversight disclosers): whoever is on it is shown to you, and not approved by mistake"
	althoughHelp   = "approve although somebody on your list is asked about"
)
