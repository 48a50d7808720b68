package main

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/keyholder"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/pseudonym"
)

func newName(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "name", Short: "Begin with a name, by two officers: request, approve, ask", Args: cobra.NoArgs,
		Long: "Nobody types a name into a search. Who has one, and a reason, asks two officers: name\n" +
			"request. Both read the names on their own machines and sign (officer sign). The server\n" +
			"takes the decisions and sees no name (name approve). The key holder is asked and answers\n" +
			"the server, which shows the aliases of these people in the case (name ask). Their tokens\n" +
			"of every epoch are one person there from then on. To search for one of them is another\n" +
			"matter: that needs an authorisation (authorise request).",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newNameRequest(env), newNameApprove(env), newNameAsk(env))
	return cmd
}

// maxNamesFile bounds what name request reads.
const maxNamesFile = 64 << 10

// readSpoken reads names, one a line: a category and the name, or a name of a person.
func readSpoken(env *environment, path string) ([]keyholder.Spoken, error) {
	in := env.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, &exitError{code: exitFailed, err: errors.New("--names: the file cannot be read"), hint: "- reads standard input"}
		}
		defer f.Close()
		in = f
	} else if terminal(env.stdout) {
		fmt.Fprintf(env.stdout, "Names, one a line, after person, mail, phone, device or address; then an empty line or Ctrl-D:\n")
	}
	text, err := io.ReadAll(io.LimitReader(in, maxNamesFile+1))
	if err != nil || len(text) > maxNamesFile {
		return nil, usage("--names: at most %d bytes of text", maxNamesFile)
	}
	var out []keyholder.Spoken
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		n := keyholder.Spoken{Category: "person", Text: line}
		if word, rest, ok := strings.Cut(line, " "); ok && slices.Contains(pseudonym.Categories, word) {
			n = keyholder.Spoken{Category: word, Text: strings.TrimSpace(rest)}
		}
		out = append(out, n)
	}
	return out, nil
}

func newNameRequest(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var ask nameAsk
	var names, officers, out, keep string
	var grant time.Duration
	cmd := &cobra.Command{Use: "request --names FILE --officers FILE --case C --reason TEXT --requester NAME -o FILE", Short: "Ask two officers to let names be asked for", Args: cobra.NoArgs,
		Long: "Request reads up to 20 names, one a line: a word for what it is (person, mail, phone,\n" +
			"device, address) and the name as you would write it; without such a word, a person.\n" +
			"\n" +
			"    person CORP\\alice\n" +
			"    mail alice@corp.example\n" +
			"    device ALICE-LAPTOP\n" +
			"\n" +
			"The server learns how many there are, and a salted digest. The names go into the request,\n" +
			"sealed to the officers, and into a second file, FILE.names, that stays with you: it is\n" +
			"needed to ask, and name ask deletes it. Who asks does not decide.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := need(cmd, "names", "officers", "case", "reason", "requester", "output"); err != nil {
				return err
			}
			if keep == "" {
				keep = out + ".names"
			}
			if err := errors.Join(free(out), free(keep)); err != nil {
				return err
			}
			data, err := readFile(officers, "--officers", "your own copy of officers.yaml: the names are sealed to those in it")
			if err != nil {
				return err
			}
			roster, err := officer.ParseRoster(officers, data)
			if err != nil {
				return err
			}
			kept := namesKept{V: 1}
			if kept.Names, err = readSpoken(env, names); err != nil {
				return err
			}
			salt, commitment, err := keyholder.Commit(kept.Names)
			if err != nil {
				return &exitError{code: exitUsage, err: fmt.Errorf("--names: %w", err), hint: "one name a line, after person, mail, phone, device or address"}
			}
			kept.Salt = base64.RawURLEncoding.EncodeToString(salt)
			ask.Names, ask.Commitment, ask.Minutes = len(kept.Names), hex.EncodeToString(commitment[:]), int(grant/time.Minute)
			var r nameRequest
			if err := doActIn(cmd, env, &f, &l, "name.request", &ask, &r); err != nil {
				return err
			}
			if err := r.seal(roster, &kept); err != nil {
				return err
			}
			text, err := approval.Canonical(&kept)
			if err != nil {
				return err
			}
			if err := writeNew(keep, text); err != nil {
				return err
			}
			fmt.Fprintf(env.stdout, "names %s: keep it to yourself; name ask needs it and deletes it\n", keep)
			return sendRequest(env, out, &r, r.Statement)
		}}
	f.add(cmd)
	l.add(cmd)
	cmd.Flags().StringVar(&names, "names", "", "`file` of the names; - reads standard input")
	cmd.Flags().StringVar(&officers, "officers", "", "`file` of the officers (officers/v1), your own copy")
	cmd.Flags().StringVar(&ask.Reason, "reason", "", "why, in a sentence that names nobody")
	cmd.Flags().StringVar(&ask.Requester, "requester", "", "your `name`, as the officers know you")
	cmd.Flags().DurationVar(&grant, "for", time.Hour, "how long the key holder can be asked, once it is approved")
	cmd.Flags().StringVar(&keep, "keep", "", "`file` of the names and their salt, for you alone (default FILE.names)")
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` of the request, which must not be there")
	return cmd
}

func readNameRequest(path string) (*nameRequest, *approval.Statement, error) {
	b, err := readFile(path, "the request", "counterseal name request writes one")
	if err != nil {
		return nil, nil, err
	}
	r, s, err := parseNameRequest(b)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, s, nil
}

func newNameApprove(env *environment) *cobra.Command {
	return newBringDecisions(env, "name.approve", "; then who asked: counterseal name ask", func(path string) (string, error) {
		r, _, err := readNameRequest(path)
		if err != nil {
			return "", err
		}
		return r.Statement, nil
	})
}

// showNames shows an officer whom a request is about, which the statement does not say.
func showNames(env *environment, path string, k *officer.Key) ([]keyholder.Spoken, error) {
	r, st, err := readNameRequest(path)
	if err != nil {
		return nil, err
	}
	n, err := r.open(k, st)
	if err != nil {
		return nil, &exitError{code: exitRefused, err: err, hint: "sign nothing: who asked has to make the request anew, with the officers of today"}
	}
	for _, name := range n.Names {
		fmt.Fprintf(env.stdout, "  %-9s  %s\n", name.Category, event.Printable(name.Text))
	}
	return n.Names, nil
}

// askedHolder is where the key holder takes questions.
type askedHolder struct {
	dir string
	OtherHost
}

func (h *askedHolder) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&h.dir, "keyholder", "", "`folder` of the key holder on this machine (default that of the configuration, or beside the data)")
	cmd.Flags().StringVar(&h.Address, "keyholder-address", "", "`host:port` where it takes questions on another host")
	cmd.Flags().StringVar(&h.Cert, "tls-cert", "", "your certificate `file` there")
	cmd.Flags().StringVar(&h.Key, "tls-key", "", "key `file` of your certificate")
	cmd.Flags().StringVar(&h.CA, "tls-ca", "", "`file` of who signed its certificate")
}

func (h *askedHolder) dial(cfg config) (keyholder.Dial, error) {
	if h.Address != "" {
		if h.dir != "" || h.Cert == "" || h.Key == "" || h.CA == "" {
			return nil, usage("--keyholder-address needs --tls-cert, --tls-key and --tls-ca, and goes without --keyholder")
		}
		if err := h.check("", ""); err != nil {
			return nil, usage("--keyholder-%v", err)
		}
		return h.OtherHost.dial("--keyholder-")
	}
	dir := h.dir
	switch {
	case dir == "" && cfg.Keyholder.Address != "":
		return nil, usage("the key holder is on another host: --keyholder-address says where it takes questions, which is not where it answers the server")
	case dir == "" && cfg.Keyholder.Dir != "":
		dir = cfg.Keyholder.Dir
	case dir == "":
		dir = filepath.Clean(cfg.Data) + "-keyholder"
	}
	return func(ctx context.Context) (net.Conn, error) { return dialUnix(ctx, dir, "question.sock") }, nil
}

// where says where questions are asked, for people.
func (h *askedHolder) where(cfg config) string {
	switch {
	case h.Address != "":
		return h.Address
	case h.dir != "":
		return h.dir
	}
	return cmp.Or(cfg.Keyholder.Dir, filepath.Clean(cfg.Data)+"-keyholder")
}

func newNameAsk(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var holder askedHolder
	var decisions []string
	var receiptFile, keep string
	cmd := &cobra.Command{Use: "ask REQUEST --decision FILE --decision FILE --receipt FILE", Short: "Ask the key holder, and get the aliases of these people in the case", Args: cobra.ExactArgs(1),
		Long: "Ask brings the names, both decisions and the receipt to the key holder, which checks them\n" +
			"by its own copies of the officers and of the keys of the ledger, once. It gives the tokens\n" +
			"to the server and not to you; the server shows the aliases, in the order of the names. A\n" +
			"name that was never seen has an alias too: whether it was, only a search tells.",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if err := need(cmd, "decision", "receipt"); err != nil {
				return err
			}
			r, st, err := readNameRequest(args[0])
			if err != nil {
				return err
			}
			if keep == "" {
				keep = args[0] + ".names"
			}
			text, err := readFile(keep, "--keep", "counterseal name request wrote it beside the request")
			if err != nil {
				return err
			}
			kept, err := r.parseNames(text)
			if err != nil {
				return fmt.Errorf("%s: %w", keep, err)
			}
			signed, err := readDecisions(decisions)
			if err != nil {
				return err
			}
			got, err := readReceipt(receiptFile)
			if err != nil {
				return err
			}
			capability, err := keyholder.Capability([]byte(r.Statement), signed, keyholder.Seen(*got))
			if err != nil {
				return err
			}
			cfg, err := f.load()
			if err != nil {
				return err
			}
			to, err := holder.dial(cfg)
			if err != nil {
				return err
			}
			if l.caseID == "" {
				l.caseID = st.Case
			}
			// Before the capability is used up: without the server nobody hears the answer.
			c, err := dial(cmd.Context(), env, cfg)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, c.close()) }()
			asked := keyholder.Ask(cmd.Context(), to, capability, kept.salt, kept.Names)
			if asked != nil && !errors.Is(asked, keyholder.ErrCapability) {
				return askedError(asked)
			}
			var a nameAnswer
			if err := c.actIn(cmd.Context(), &l, "name.ask", nameFetch{st.ID}, &a); err != nil {
				if asked != nil { // else it was asked before, and the answer got lost
					return askedError(asked)
				}
				return err
			}
			for i, alias := range a.People {
				fmt.Fprintf(env.stdout, "name %-3d  %s\n", i+1, alias)
			}
			fmt.Fprintf(env.stdout, "next      counterseal authorise request --case %s --person ALIAS …, and then a search: an alias needs one\n", st.Case)
			if err := os.Remove(keep); err != nil {
				return &exitError{code: exitFailed, err: errors.New("the file of the names could not be deleted"), hint: "delete " + keep}
			}
			_, err = fmt.Fprintf(env.stdout, "deleted   %s\n", keep)
			return err
		}}
	f.add(cmd)
	l.add(cmd)
	holder.add(cmd)
	cmd.Flags().StringArrayVar(&decisions, "decision", nil, "`file` of a decision; two are needed")
	cmd.Flags().StringVar(&receiptFile, "receipt", "", "`file` that name approve wrote")
	cmd.Flags().StringVar(&keep, "keep", "", "`file` of the names that name request kept (default REQUEST.names)")
	return cmd
}

// askedError says what to do where the key holder does not answer.
func askedError(err error) error {
	switch {
	case errors.Is(err, keyholder.ErrCapability):
		return &exitError{code: exitRefused, err: err, hint: "its log says why; it takes one ask by two officers of its own copy of the roster, within its time: begin anew with counterseal name request"}
	case errors.Is(err, keyholder.ErrRoster):
		return &exitError{code: exitRefused, err: err, hint: "put officers.yaml into its folder, and the keys of ledger and witnesses under `ledger` in its keyholder.yaml"}
	case errors.Is(err, keyholder.ErrQuota):
		return &exitError{code: exitRefused, err: errors.New("the key holder has answered as many names as a day allows; nothing was used up"), hint: "ask after midnight UTC, or within its time; `quota.questions` in its keyholder.yaml is the number"}
	case errors.Is(err, keyholder.ErrNoName):
		return &exitError{code: exitRefused, err: err, hint: "write it as somebody does who knows them, with its kind, and begin anew"}
	case errors.Is(err, keyholder.ErrAway):
		return &exitError{code: exitFailed, err: err, hint: "it takes questions at run/question.sock in its folder, or where keyholder serve --question-listen says: --keyholder or --keyholder-address"}
	}
	return err
}
