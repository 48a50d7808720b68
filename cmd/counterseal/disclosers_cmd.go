package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
	"github.com/counterseal/counterseal/internal/oversight"
)

func newDisclosers(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "disclosers", Short: "Your own list of protected disclosers: who on it is looked at, and by whom", Args: cobra.NoArgs,
		Long: "People who told an inspector, Congress, a court or the press something are hunted for it at\n" +
			"times. Keep them on a list of your own: a file on your machine that opens with the key of\n" +
			"oversight, and with nothing else. What is asked about anybody is compared with it here: looks,\n" +
			"authorisations, requests for names and orders (disclosers check), and what you are about to\n" +
			"sign (officer sign --disclosers). Nobody else learns who is on it, or of a match: the key\n" +
			"holder gives what is compared without learning of whom (disclosers ask), and the server gives\n" +
			"every overseer's machine the same, with the queue.",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newDisclosersNew(env), newDisclosersAdd(env), newDisclosersShow(env), newDisclosersRemove(env), newDisclosersAsk(env), newDisclosersCheck(env))
	return cmd
}

// listFile is a list of disclosers, opened, and the file that it lies in.
type listFile struct {
	*discloser.List
	key  *officer.Key
	path string
	was  []byte // the file
}

// listFlags name the key with which a list is opened.
type listFlags struct{ key, pass string }

func (f *listFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.key, "key", "", "`file` of the officer's key, of oversight or its spare")
	cmd.Flags().StringVar(&f.pass, "passphrase-file", "", "`file` with the passphrase of the key")
}

// open opens a list and the key.
func (f *listFlags) open(cmd *cobra.Command, env *environment, path string) (*listFile, error) {
	if err := need(cmd, "key"); err != nil {
		return nil, err
	}
	k, err := openKey(env, f.key, f.pass)
	if err != nil {
		return nil, err
	}
	return openList(path, k)
}

// openList opens the list in a file.
func openList(path string, k *officer.Key) (*listFile, error) {
	b, err := readFile(path, "the list", "counterseal oversight disclosers new writes one")
	if err != nil {
		return nil, err
	}
	l, err := discloser.Open(b, k)
	switch {
	case errors.Is(err, keyring.ErrNotForKey):
		return nil, &exitError{code: exitFailed, err: fmt.Errorf("%s: %w", path, err), hint: "the key of oversight for which it was made opens it, or its spare"}
	case err != nil:
		return nil, &exitError{code: exitFailed, err: fmt.Errorf("%s: %w", path, err), hint: "it is no list, or was cut or altered: take your copy"}
	}
	return &listFile{l, k, path, b}, nil
}

// save writes a list in the place of the one before, which nobody has changed meanwhile.
func (l *listFile) save() error {
	b, err := l.Seal()
	if err != nil {
		return err
	}
	path, err := filepath.EvalSymlinks(l.path) // the file, and not what leads to it
	if err != nil {
		return unwritable(l.path, err)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, l.was) {
		return &exitError{code: exitFailed, err: fmt.Errorf("%s was changed meanwhile, and is left as it is", l.path), hint: "run the command again"}
	}
	var disk durable.FS
	if err := disk.WriteFile(path, b, 0o600); err != nil {
		return unwritable(l.path, err)
	}
	return nil
}

func newDisclosersNew(env *environment) *cobra.Command {
	var officers string
	cmd := &cobra.Command{Use: "new LIST --officers FILE", Short: "Begin a list, sealed to oversight and its spare", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := need(cmd, "officers"); err != nil {
				return err
			}
			if _, err := os.Lstat(args[0]); err == nil {
				return &exitError{code: exitFailed, err: fmt.Errorf("%s is there already", args[0]), hint: "counterseal oversight disclosers show " + args[0] + " --key FILE, if it is a list; else name another file"}
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
	var place int
	cmd := &cobra.Command{Use: "add LIST --key FILE --note TEXT | --place N [--names FILE]", Short: "Put one person on the list, or give one further names", Args: cobra.ExactArgs(1),
		Long: "Add reads the names of one person, one a line, as the directory of the organisation has them:\n" +
			"an account, a mail address, a SID, a display name. For the key holder one does; in a question\n" +
			"by name only those that you write are compared, so write every one that you know. The note is\n" +
			"what you are shown when somebody looks at them: the number of a file of yours, say. --place\n" +
			"gives somebody who is on the list further names.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if (note == "") == (place == 0) {
				return misused(cmd, "--note is about somebody new, --place names somebody who is on the list")
			}
			l, err := f.open(cmd, env, args[0])
			if err != nil {
				return err
			}
			lines, err := readLines(env, names)
			if err != nil {
				return err
			}
			if place != 0 {
				err = l.Name(place, lines)
			} else if err = l.Add(time.Now(), note, lines); err == nil {
				place = len(l.Entries)
			}
			if err != nil {
				return &exitError{code: exitUsage, err: err, hint: "one name a line, all of one person; disclosers show prints the places"}
			}
			if err := l.save(); err != nil {
				return err
			}
			e := &l.Entries[place-1]
			_, err = fmt.Fprintf(env.stdout, "added     place %d, %s, by %s\nnext      counterseal oversight disclosers ask %s --key FILE, on the next of your days; until then nothing matches what is new\n", place, event.Printable(e.Note), counted(len(e.Names), "name", "names"), args[0])
			return err
		}}
	f.add(cmd)
	cmd.Flags().StringVar(&note, "note", "", "`text` for yourself, which names nobody")
	cmd.Flags().IntVar(&place, "place", 0, "`number` of somebody on the list, who gets further names")
	cmd.Flags().StringVar(&names, "names", "-", "`file` of the names of one person; - reads standard input")
	return cmd
}

// readLines reads lines that are not empty.
func readLines(env *environment, path string) ([]string, error) {
	var text []byte
	var err error
	if path == "-" {
		if terminal(env.stdout) {
			fmt.Fprintln(env.stdout, "Names of one person, one a line; then Ctrl-D:")
		}
		text, err = io.ReadAll(io.LimitReader(env.stdin, maxNamesFile+1))
	} else {
		text, err = readFile(path, "--names", "- reads standard input")
	}
	if err != nil {
		return nil, err
	}
	if len(text) > maxNamesFile {
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
	var pipe bool
	cmd := &cobra.Command{Use: "show LIST --key FILE", Short: "Show who is on the list, on this terminal", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !pipe && !terminal(env.stdout) {
				return &exitError{code: exitRefused, err: errors.New("who is on the list is shown on a terminal, and standard output is none"), hint: "--pipe gives it to whatever reads standard output"}
			}
			l, err := f.open(cmd, env, args[0])
			if err != nil {
				return err
			}
			for i := range l.Entries {
				e := &l.Entries[i]
				found := "not asked for yet"
				if e.Found >= 0 {
					found = fmt.Sprintf("%d of %s found", e.Found, counted(len(e.Names), "name", "names"))
				}
				fmt.Fprintf(env.stdout, "%-3d       %s\n          added %s, %s\n", i+1, event.Printable(e.Note), e.Added.Format(time.DateOnly), found)
				for _, name := range e.Names {
					fmt.Fprintf(env.stdout, "          %s\n", event.Printable(name))
				}
			}
			return printAsked(env.stdout, l.List)
		}}
	f.add(cmd)
	cmd.Flags().BoolVar(&pipe, "pipe", false, "show it also where standard output is no terminal")
	return cmd
}

func printAsked(w io.Writer, l *discloser.List) error {
	text := "never: nothing matches anybody yet"
	if !l.Asked.IsZero() {
		text = l.Asked.Format(time.RFC3339) + ", about tokens of the epochs " + strings.Trim(fmt.Sprint(l.Epochs), "[]")
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
			l, err := f.open(cmd, env, args[0])
			if err != nil {
				return err
			}
			note := ""
			if place >= 1 && place <= len(l.Entries) {
				note = l.Entries[place-1].Note
			}
			if err := l.Remove(place); err != nil {
				return &exitError{code: exitUsage, err: err, hint: "counterseal oversight disclosers show prints the places"}
			}
			if err := l.save(); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "removed   place %d, %s; those after it moved up\n", place, event.Printable(note))
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
			"full. It answers " + strconv.Itoa(keyholder.DefaultQuota().Lists) + " such questions in 30 days and counts them, and the ledger says how\n" +
			"many: ask on fixed days, such as the first of a month, so that the day tells nothing either.\n" +
			"Whom you add, and a new epoch of tokens, wait for the next of them.",
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := f.open(cmd, env, args[0])
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
			words := l.Words()
			sign := func(statement []byte) (approval.Signed, error) { return l.key.Sign(approval.Approve, statement) }
			got, err := keyholder.AskList(cmd.Context(), to, words, l.key.Card().Name, time.Now(), sign, progress)
			if err != nil {
				return listError(err, holder.where(cfg))
			}
			if l, err = openList(args[0], l.key); err != nil { // as it is now: somebody may have been added
				return err
			}
			if err := l.Answered(time.Now(), got.Org, got.Epochs, words, got.Tags); err != nil {
				return &exitError{code: exitRefused, err: err, hint: "nothing was changed; look at --keyholder"}
			}
			if err := l.save(); err != nil {
				return err
			}
			if err := printAsked(env.stdout, l.List); err != nil {
				return err
			}
			found := 0
			for i := range l.Entries {
				if l.Entries[i].Found > 0 {
					found++
				}
			}
			for _, m := range l.missing(got.Epochs[0]) {
				fmt.Fprintln(env.stdout, "MISSING   "+m)
			}
			for _, n := range l.notes(got.Epochs[0]) {
				fmt.Fprintln(env.stdout, "note      "+n)
			}
			_, err = fmt.Fprintf(env.stdout, "found     %d of %s\nleft      %s in 30 days\nnext      counterseal oversight disclosers check %s --key FILE\n", found, counted(len(l.Entries), "person", "people"), counted(got.Left, "more question", "more questions"), args[0])
			return err
		}}
	c.add(cmd)
	f.add(cmd)
	holder.add(cmd)
	return cmd
}

// listError says what to do where the key holder does not answer about a list.
func listError(err error, where string) error {
	var quota *keyholder.QuotaError
	switch {
	case errors.As(err, &quota):
		if quota.After == 0 {
			return &exitError{code: exitRefused, err: errors.New("the key holder answers no lists"), hint: "`quota.lists` in its keyholder.yaml, read at its start, is how many in 30 days"}
		}
		return &exitError{code: exitRefused, err: errors.New("the key holder has answered as many lists as 30 days allow"),
			hint: "ask again after " + time.Now().Add(quota.After).UTC().Format(time.RFC3339) + "; `quota.lists` in its keyholder.yaml, read at its start, is the number"}
	case errors.Is(err, keyholder.ErrAway):
		return &exitError{code: exitFailed, err: err, hint: "looked for it at " + where + ": --keyholder names its folder, --keyholder-address where it takes questions on another host"}
	case errors.Is(err, keyholder.ErrCapability):
		return &exitError{code: exitRefused, err: err, hint: "its log says why; it answers the officer of oversight, or the spare, of its own copy of officers.yaml, and its clock must be right"}
	case errors.Is(err, keyholder.ErrRoster):
		return &exitError{code: exitRefused, err: errors.New("the key holder knows no officers"), hint: "put officers.yaml into its folder"}
	case errors.Is(err, keyholder.ErrBusy):
		return &exitError{code: exitFailed, err: err, hint: "ask again in a minute; nothing was used up"}
	case errors.Is(err, keyholder.ErrDirectory):
		return &exitError{code: exitRefused, err: err, hint: "put directory.yaml into its folder: who is in no directory is found by no list; its log says whether it is too large"}
	}
	return askedError(err)
}

func newDisclosersCheck(env *environment) *cobra.Command {
	var c configFlags
	var f listFlags
	var where look
	var in queueAsk
	var format, failOn string
	cmd := &cobra.Command{Use: "check LIST --key FILE", Short: "Who on the list is looked at, asked for or contained", Args: cobra.ExactArgs(1),
		Long: "Check gets every look, grant and broken glass that waits for a review, every authorisation\n" +
			"that is asked for or in force, requests to open or erase a name, containments, and whom\n" +
			"answers listed, of everybody, and compares them here. What it prints is for you alone. An\n" +
			"inspector's office looks without being seen, here as well. Do not tell who asked: refuse,\n" +
			"end or ask why as you would of anybody, and in no other words; not at the moment of your\n" +
			"check either. With --case an alias is the one that those who asked saw.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "table" && format != "jsonl" {
				return usage("--format is table or jsonl")
			}
			if failOn != "" && failOn != "match" {
				return usage("--fail-on is match")
			}
			l, err := f.open(cmd, env, args[0])
			if err != nil {
				return err
			}
			var q queueAnswer
			if err := doActIn(cmd, env, &c, &where, "oversight.queue", &in, &q); err != nil {
				return err
			}
			a := &q.queueTargets
			if !l.Asked.IsZero() && l.Org.String() != a.Org {
				return &exitError{code: exitFailed, err: errors.New("the list was asked for at the key holder of another organisation"), hint: "each organisation has a list of its own"}
			}
			matches, unread := compare(l.List, l.key, a)
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
			if err := printCompared(w, l, a, len(matches), unread, time.Now()); err != nil {
				return err
			}
			switch {
			case failOn != "" && len(matches) > 0:
				return &exitError{code: exitFound}
			case failOn != "" && (len(l.missing(a.Epoch)) > 0 || unread+a.Uncompared > 0):
				return &exitError{code: exitUnknown, err: errors.New("not everything could be compared")}
			}
			return nil
		}}
	c.add(cmd)
	f.add(cmd)
	where.add(cmd)
	cmd.Flags().BoolVar(&in.All, "all", false, "what is over, too: looks of the last 90 days that were reviewed, authorisations and containments that have ended")
	cmd.Flags().StringVar(&format, "format", "table", "table or jsonl")
	cmd.Flags().StringVar(&failOn, "fail-on", "", "exit 10 on a `match`, and 5 where something could not be compared")
	return cmd
}

// discloserMatch is something about somebody on the list. It has no name.
type discloserMatch struct {
	targetRow
	About  []targetAbout `json:"about,omitempty"`  // left out
	Person string        `json:"person,omitempty"` // alias; empty where a look listed them
	Note   string        `json:"note"`
}

// compare finds what is about people on a list, the oldest first, and counts what named more
// than is kept, or does not open.
func compare(l *discloser.List, k *officer.Key, q *queueTargets) (out []discloserMatch, unread int) {
	out = []discloserMatch{}
	for _, t := range q.Targets {
		if t.Partial {
			unread++
		}
		for _, who := range t.About {
			for _, e := range l.Match(who.Veil) {
				out = append(out, discloserMatch{targetRow: t, Person: who.Person, Note: e.Note})
			}
		}
	}
	for _, s := range q.Shown {
		_, veils, err := openShown(k, s.Sealed)
		if err != nil || veils == nil || len(veils) >= oversight.MaxNamed {
			unread++
		}
		for _, v := range veils {
			for _, e := range l.Match(v) {
				out = append(out, discloserMatch{targetRow: targetRow{Kind: "listed", ID: s.ID, At: s.At, Case: s.Case, Who: s.Who, State: "shown"}, Note: e.Note})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b discloserMatch) int { return a.At.Compare(b.At) })
	return out, unread
}

func printMatches(w io.Writer, matches []discloserMatch) error {
	for i := range matches {
		m := &matches[i]
		where := ""
		if m.Case != "" {
			where = ", case " + event.Printable(m.Case)
		}
		if m.Person != "" {
			where += ", " + event.Printable(m.Person)
		}
		if _, err := fmt.Fprintf(w, "LISTED    %s\n          %s %s: %s\n          %s, by %s%s\n", event.Printable(m.Note), m.Kind, m.ID, event.Printable(m.State), m.At.Format(time.RFC3339), event.Printable(m.Who), where); err != nil {
			return err
		}
	}
	return nil
}

// stale is after what time a list should be asked for again: people get other names.
const stale = 35 * 24 * time.Hour

func printCompared(w io.Writer, l *listFile, q *queueTargets, matches, unread int, now time.Time) error {
	people := len(q.Shown)
	for i := range q.Targets {
		people += len(q.Targets[i].About)
	}
	var err error
	line := func(name, text string) {
		if err == nil {
			_, err = fmt.Fprintf(w, "%-9s %s\n", name, text)
		}
	}
	line("compared", fmt.Sprintf("%s with %s on the list; %s", counted(people, "target", "targets"), counted(len(l.Entries), "person", "people"), counted(matches, "match", "matches")))
	for _, m := range l.missing(q.Epoch) {
		line("MISSING", m)
	}
	if n := unread + q.Uncompared; n > 0 {
		line("MISSING", counted(n, "look, request or order", "looks, requests and orders")+" of which the server has not all that it was about, or this key opens nothing")
	}
	for _, n := range l.notes(q.Epoch) {
		line("note", n)
	}
	if matches > 0 {
		line("next", "counterseal oversight queue --format jsonl, authorise show ID, review list,\n          contain list: what was asked, by whom and why; and say nothing of the list")
	}
	if !l.Asked.IsZero() && slices.Contains(l.Epochs, q.Epoch) && now.Sub(l.Asked) > stale {
		line("old", "the key holder was asked on "+l.Asked.Format(time.DateOnly)+": "+l.again())
	}
	return err
}

func (l *listFile) again() string {
	return "counterseal oversight disclosers ask " + l.path + " --key FILE"
}

// missing says whom nothing matches, where tokens are of an epoch.
func (l *listFile) missing(epoch int) (out []string) {
	for i := range l.Entries {
		e := &l.Entries[i]
		place := fmt.Sprintf("place %d, %s: ", i+1, event.Printable(e.Note))
		switch {
		case e.Found < 0 && !e.Known():
			out = append(out, place+"added since the key holder was asked, so nothing matches: "+l.again()+", on the next of your days")
		case e.Found < 0:
			out = append(out, place+"has names that the key holder was not asked for: "+l.again()+", on the next of your days")
		case e.Found == 0 && !e.Known():
			out = append(out, place+"the directory of the key holder has none of the names, so nothing matches")
		}
	}
	if !l.Asked.IsZero() && !slices.Contains(l.Epochs, epoch) {
		out = append(out, fmt.Sprintf("the key holder was not asked about tokens of epoch %d: %s", epoch, l.again()))
	}
	return out
}

// notes say what nobody can mend, and what matches less than one may think.
func (l *listFile) notes(epoch int) (out []string) {
	for i := range l.Entries {
		if e := &l.Entries[i]; e.Found == 0 && e.Known() {
			out = append(out, fmt.Sprintf("place %d, %s: the directory of the key holder has none of the names any more; what it gave before goes on to match", i+1, event.Printable(e.Note)))
		}
	}
	if old := l.uncovered(epoch); old > 0 {
		out = append(out, counted(old, "older epoch of tokens was", "older epochs of tokens were")+" not in the answer of the key holder: records of then are not compared")
	}
	return out
}

// uncovered is how many epochs before the one of today the key holder gave no tags of.
func (l *listFile) uncovered(epoch int) (n int) {
	for e := 1; e < epoch && !l.Asked.IsZero(); e++ {
		if !slices.Contains(l.Epochs, e) {
			n++
		}
	}
	return n
}

// judge shows an officer of oversight whom on their list a request is about, before they sign
// it, and refuses to approve where somebody is, or where it could not be found out, unless
// they said that they know. token is whom a request for a name is about, names are those of a
// question, org whose data; without either it names nobody whom a list could have.
func (l *listFile) judge(w io.Writer, org string, token event.Token, names []keyholder.Spoken, approves, although bool) error {
	entries, why := []*discloser.Entry{}, ""
	switch {
	case token != "":
		entries = l.MatchToken(token)
		if len(l.Entries) == 0 {
			break
		}
		for _, m := range l.missing(token.Epoch()) {
			fmt.Fprintf(w, "MISSING    %s\n", m)
		}
		switch {
		case !l.Asked.IsZero() && l.Org.String() != org:
			why = "the list was asked for at the key holder of another organisation"
		case l.Unasked() > 0 || !slices.Contains(l.Epochs, token.Epoch()):
			why = "the list was not compared as a whole"
		}
	case len(names) > 0:
		for _, n := range names {
			found, compared := l.MatchName(n.Category, n.Text)
			entries = append(entries, found...)
			if !compared {
				why = "not every name was compared"
				fmt.Fprintf(w, "MISSING    a name of the category %s cannot be compared with a list\n", event.Printable(n.Category))
			}
		}
	default:
		fmt.Fprintf(w, "NOT COMPARED  a request of this kind names nobody by a token or a name; oversight disclosers check has what the server knows\n")
	}
	for _, e := range entries {
		fmt.Fprintf(w, "LISTED     %s: on your list of protected disclosers\n", event.Printable(e.Note))
	}
	if len(entries) > 0 {
		why = "somebody on your list is asked about"
	}
	if why != "" && approves && !although {
		return &exitError{code: exitRefused, err: errors.New(why + ", and nothing was signed"),
			hint: "find out why they are asked about; --although-listed approves, and a refusal is one like any other: it says no word of the list"}
	}
	return nil
}

const (
	disclosersHelp = "`list` of protected disclosers (oversight disclosers): whoever is on it is shown to you, and not approved by mistake"
	althoughHelp   = "approve although somebody on your list is asked about, or it could not be compared"
)
