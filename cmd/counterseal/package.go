package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/index"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/pipeline"
	"github.com/counterseal/counterseal/internal/query"
	"github.com/counterseal/counterseal/internal/report"
	"github.com/counterseal/counterseal/internal/web"
)

func newPackage(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "package", Short: "Evidence for named recipients: make, check, open, follow", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newPackageCreate(env), newPackageVerify(env), newPackageOpen(env), newPackageKey(env), newPackageReceive(env), newPackageReturn(env), newPackageList(env))
	return cmd
}

// packageRequest asks for a package.
type packageRequest struct {
	Case         string   `json:"case"`
	Purpose      string   `json:"purpose"`
	Recipients   []string `json:"recipients"` // cards
	Compartments []string `json:"compartments"`
	Sources      []string `json:"sources"`
	From         string   `json:"from"`
	To           string   `json:"to"`
	Query        string   `json:"query"`
	People       []string `json:"people"`
	Due          string   `json:"due"`
	Approvals    []string `json:"approvals"`
	// Unlocked are files of unlocked keys on this machine. Their content is in no
	// request: what is asked is kept.
	Unlocked []string `json:"unlocked"`
	Output   string   `json:"output"`
}

func newPackageCreate(env *environment) *cobra.Command {
	var f configFlags
	var q packageRequest
	var cards []string
	cmd := &cobra.Command{Use: "create --case ID --purpose CODE --recipient CARD... --due DATE -o FILE", Short: "Make a sealed package of records with their proofs", Args: cobra.NoArgs,
		Long: "Create takes the records inside the scope, exactly as they were sealed, with proofs, the\n" +
			"statements about them and a page to read, and seals all to the recipients. Everybody in it\n" +
			"stays a token. Segments that are open are closed first. The package stands in the ledger\n" +
			"under the signatures of witnesses before the file is there; without them there is none.\n" +
			"Originals go in for segments whose key two officers unlocked, except those that tell of\n" +
			"anybody whom no --person names.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := need(cmd, "case", "purpose", "recipient", "due", "output"); err != nil {
				return err
			}
			for _, path := range cards {
				b, err := readFile(path, "--recipient", "the card is what counterseal package key --card wrote, on the recipient's machine")
				if err != nil {
					return err
				}
				if _, err := keyring.ParseSealed(b); err == nil {
					return &exitError{code: exitUsage, err: fmt.Errorf("%s is a private key file: it opens the package", path), hint: "ask for the card, and tell its owner not to send the key"}
				}
				r, err := report.ParseRecipient(b)
				if err != nil {
					return usage("%s: %v", path, err)
				}
				q.Recipients = append(q.Recipients, string(r.Bytes()))
			}
			paths, err := absolute(append([]string{q.Output}, q.Unlocked...))
			if err != nil {
				return err
			}
			show := q.Output
			q.Output, q.Unlocked = paths[0], paths[1:]
			cfg, err := f.load()
			if err != nil {
				return err
			}
			c, err := dial(cmd.Context(), env, cfg)
			if err != nil {
				return err
			}
			var m report.Made
			if err := errors.Join(c.act(cmd.Context(), "package.create", q, &m), c.close()); err != nil {
				return err
			}
			fmt.Fprintf(env.stdout, "package    %s\nstatement  %d of the ledger, witnessed\ndigest     %s\n", m.ID, m.Index, m.Digest)
			fmt.Fprintf(env.stdout, "inside     %d records of %d segments, %d originals, %d statements\n", m.Records, m.Segments, m.Originals, m.Statements)
			if m.Withheld > 0 {
				fmt.Fprintf(env.stdout, "withheld   %d originals, since they tell of people whom no --person names\n", m.Withheld)
			}
			if m.Unread > 0 {
				fmt.Fprintf(env.stdout, "missing    %d segments could not be read, see index.txt inside\n", m.Unread)
			}
			_, err = fmt.Fprintf(env.stdout, "wrote %s, %d bytes\ncheck it with: counterseal package verify %s %s\n", show, m.Bytes, show, trustOf(cfg))
			return err
		}}
	f.add(cmd)
	cmd.Flags().StringVar(&q.Case, "case", "", "`number` of the case")
	cmd.Flags().StringVar(&q.Purpose, "purpose", "", "`code` of the purpose")
	cmd.Flags().StringArrayVar(&cards, "recipient", nil, "`file` with the card of a recipient (package key); repeats")
	cmd.Flags().StringArrayVar(&q.Compartments, "compartment", nil, "`name` of a compartment; repeats (default all)")
	cmd.Flags().StringArrayVar(&q.Sources, "source", nil, "`name` of a source; repeats (default all)")
	cmd.Flags().StringVar(&q.From, "from", "", "`time` of the first record, RFC 3339")
	cmd.Flags().StringVar(&q.To, "to", "", "`time` behind the last record")
	cmd.Flags().StringVar(&q.Query, "query", "", "only what this `question` finds, as search takes it")
	cmd.Flags().StringArrayVar(&q.People, "person", nil, "`alias` of somebody whom the authorisation names; repeats")
	cmd.Flags().StringVar(&q.Due, "due", "", "`day` by which it is returned or destroyed, such as 2027-01-31")
	cmd.Flags().StringArrayVar(&q.Approvals, "approval", nil, "`id` of a request that two people approved; repeats")
	cmd.Flags().StringArrayVar(&q.Unlocked, "unlocked", nil, "`file` of an unlocked key of originals; repeats")
	cmd.Flags().StringVarP(&q.Output, "output", "o", "", "`file` to write, which must not be there")
	return cmd
}

// maxFound bounds what a question may put into a package.
const maxFound = 1_000_000

// packageCreate makes a package.
func (s *server) packageCreate(ctx context.Context, actor string, body []byte) (any, error) {
	var q packageRequest
	if err := decodeAct(body, &q); err != nil {
		return nil, err
	}
	bad := func(err error) (any, error) {
		return nil, web.BadRequest(err.Error(), "see: counterseal package create --help")
	}
	r := report.Request{Case: q.Case, Purpose: q.Purpose, Actor: actor, Approvals: q.Approvals,
		Scope: report.Scope{Compartments: q.Compartments, Sources: q.Sources, Query: q.Query},
		Tools: map[string]string{"counterseal": version(), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH},
	}
	for _, c := range q.Recipients {
		to, err := report.ParseRecipient([]byte(c))
		if err != nil {
			return bad(err)
		}
		r.Recipients = append(r.Recipients, to)
	}
	joined, err := s.cases.Joined(ctx, web.AskerOf(ctx).Case)
	if err != nil {
		return nil, err
	}
	for _, p := range q.People {
		token, err := s.web.Meant(ctx, p)
		if err != nil {
			return nil, err
		}
		for _, t := range joined.All(token) {
			r.People = append(r.People, event.Token(t))
		}
	}
	due, err := time.Parse(time.DateOnly, q.Due)
	if err != nil {
		return bad(errors.New("--due is a day such as 2027-01-31"))
	}
	r.Due = due.Add(24*time.Hour - time.Second)
	for text, at := range map[*string]*time.Time{&q.From: &r.Scope.From, &q.To: &r.Scope.To} {
		if *text == "" {
			continue
		}
		if *at, err = time.Parse(time.RFC3339Nano, *text); err != nil {
			return bad(errors.New("write a time like 2026-03-01T12:00:00Z"))
		}
	}
	if !filepath.IsAbs(q.Output) {
		return bad(errors.New("the file is named by its whole path"))
	}
	if _, err := os.Lstat(q.Output); err == nil {
		return bad(errors.New("the file is there already"))
	}
	for _, id := range q.Approvals {
		ok, err := attest.Approved(ctx, s.pipe.Recorder(), id)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, &web.Refused{Reason: "the ledger does not have two offices for this request", Hint: "--approval names a request that two people approved"}
		}
	}
	for _, path := range q.Unlocked {
		keys, err := readUnlocked(path, s.now())
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			open, err := s.pipe.Unlocked(ctx, k.Segment)
			if err != nil {
				return nil, err
			}
			if !open {
				return nil, &web.Refused{Reason: "the ledger knows no opening of segment " + k.Segment.String() + " that is witnessed and whose time is not over", Hint: "ask with counterseal evidence unlock"}
			}
		}
		r.Unlocked = append(r.Unlocked, keys...)
	}
	for _, p := range r.People { // their originals may go along: an authorisation names them
		one := &query.Query{Where: query.Equal{Field: "user.uid", Pattern: query.Literal(string(p))}}
		if _, r.Scope.From, r.Scope.To, err = s.web.JudgeExport(ctx, one, r.Scope.From, r.Scope.To); err != nil {
			return nil, err
		}
	}
	if q.Query, err = s.web.Meant(ctx, q.Query); err != nil {
		return nil, err
	}
	asked, err := query.Parse(q.Query)
	if err != nil {
		return nil, web.BadRequest(err.Error(), "see: counterseal search --help")
	}
	if asked, err = s.web.Joined(ctx, asked); err != nil {
		return nil, err
	}
	if asked, r.Scope.From, r.Scope.To, err = s.web.JudgeExport(ctx, asked, r.Scope.From, r.Scope.To); err != nil {
		return nil, err
	}
	if asked.Where != nil || q.Query != "" {
		r.Scope.Query = asked.String()
		if r.Scope.Refs, err = s.find(ctx, r.Scope.Query, r.Scope); err != nil {
			return nil, err
		}
	}
	m, err := s.maker().Create(ctx, r, q.Output)
	switch {
	case errors.Is(err, report.ErrRequest):
		return bad(err)
	case errors.Is(err, report.ErrEmpty):
		return nil, web.BadRequest(err.Error(), "look with counterseal search first")
	case err != nil:
		return nil, err
	}
	return m, nil
}

// readUnlocked reads a key file, which has a line for each segment.
func readUnlocked(path string, now time.Time) ([]*evidence.UnlockedKey, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, web.BadRequest("a file of an unlocked key cannot be read", "")
	}
	defer clear(b)
	var keys []*evidence.UnlockedKey
	for _, line := range bytes.SplitAfter(b, []byte("\n")) {
		if len(line) == 0 && len(keys) > 0 {
			break
		}
		k, err := evidence.ParseKeyFile(line, now)
		if errors.Is(err, evidence.ErrOver) {
			return nil, &web.Refused{Reason: err.Error(), Hint: "see: counterseal evidence unlock"}
		}
		if err != nil {
			return nil, web.BadRequest(err.Error(), "it is what counterseal officer open wrote")
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// find gives the references of the events that a question finds.
func (s *server) find(ctx context.Context, text string, sc report.Scope) ([]event.Ref, error) {
	q, err := query.Parse(text)
	if err != nil {
		return nil, web.BadRequest(err.Error(), "see: counterseal search --help")
	}
	if q.IsTable() || q.Limit > 0 {
		return nil, web.BadRequest("a package takes a question without statistics and without a limit", "")
	}
	if err := s.pipe.Settle(ctx); err != nil {
		return nil, err
	}
	var refs []event.Ref
	var failed error
	findings := 0
	err = s.pipe.Index().Query(ctx, q, index.Scope{From: sc.From, To: sc.To, Compartments: sc.Compartments}, maxFound+1, func(r index.Row) bool {
		if r.Kind == index.KindFinding {
			findings++
			return true
		}
		var ref event.Ref
		if ref, failed = event.ParseRef(r.Ref); failed != nil {
			return false
		}
		refs = append(refs, ref)
		return true
	})
	if err := errors.Join(err, failed); err != nil {
		return nil, err
	}
	if len(refs) == 0 && findings > 0 {
		return nil, web.BadRequest("the question finds findings alone; a finding is derived and is not sealed itself: a package holds the events that it cites",
			"counterseal search --jsonl - shows them as finding.ref; ask for those: --query 'ref in (\"REF\", \"REF\")'")
	}
	if len(refs) > maxFound {
		return nil, web.BadRequest(fmt.Sprintf("the question finds more than %d records", maxFound), "narrow it")
	}
	return refs, nil
}

// recipientKey opens the key file of a recipient, nil where none is named.
func recipientKey(env *environment, path, pass string) (*report.RecipientKey, error) {
	if path == "" {
		return nil, nil
	}
	return openWith(env, path, pass, report.OpenRecipientKey)
}

func newPackageKey(env *environment) *cobra.Command {
	var name, out, card, pass string
	var asJSON bool
	cmd := &cobra.Command{Use: "key --name TEXT -o FILE [--card FILE]", Short: "Make a key pair for a recipient of packages", Args: cobra.NoArgs,
		Long: "Key makes the pair of a recipient, on the recipient's own machine, under a passphrase. It\n" +
			"prints the public card and its id: the card goes to whoever makes packages, the id by\n" +
			"another way, such as the telephone. A lost key cannot be brought back.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(need(cmd, "name", "output"), free(out)); err != nil {
				return err
			}
			if card != "" {
				if _, err := os.Lstat(card); err == nil {
					return &exitError{code: exitFailed, err: fmt.Errorf("%s is there already and is not overwritten", card), hint: "name a new file with --card"}
				}
			}
			k, err := report.NewRecipientKey(name)
			if err != nil {
				return usage("%v", err)
			}
			secret, err := passphrase(env, pass, "new passphrase of the key", true)()
			if err != nil {
				return err
			}
			defer clear(secret)
			b, err := k.File(secret)
			if err != nil {
				return err
			}
			if err := writeNew(out, b); err != nil {
				return err
			}
			if card != "" {
				if err := writeNew(card, append(k.Card().Bytes(), '\n')); err != nil {
					return err
				}
			}
			if card != "" && !asJSON && terminal(env.stdout) { // the card is long, and in its file
				_, err = fmt.Fprintf(env.stdout, "key   %s, keep it\ncard  %s, for whoever makes packages\nid    %s, to be told by another way\n", out, card, k.Card().ID())
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "%s\nid %s\n", k.Card().Bytes(), k.Card().ID())
			return err
		}}
	cmd.Flags().BoolVar(&asJSON, "json", false, cardJSON)
	cmd.Flags().StringVar(&name, "name", "", "`name` of the recipient")
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` of the key, which must not be there")
	cmd.Flags().StringVar(&card, "card", "", "`file` for the card, which must not be there")
	cmd.Flags().StringVar(&pass, "passphrase-file", "", "`file` with the passphrase of the key")
	return cmd
}

func newPackageVerify(env *environment) *cobra.Command {
	var trust trustFlags
	var key, pass string
	cmd := &cobra.Command{Use: "verify FILE|DIR --log VKEY [--witness VKEY]... [--key FILE]", Short: "Check a package, sealed or opened, with public keys alone", Args: cobra.ExactArgs(1),
		Long: "Verify needs no data directory, no server and no network. Of a sealed file it checks that\n" +
			"it is the one that the ledger knows; with --key of a recipient, or of an opened folder,\n" +
			"every record up to the checkpoint that witnesses signed. It names the file in which\n" +
			"anything was altered. The keys of log and witnesses come by another way than the package.",
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := trust.named()
			if err != nil {
				return err
			}
			k, err := recipientKey(env, key, pass)
			if err != nil {
				return err
			}
			st, err := os.Stat(args[0])
			if errors.Is(err, fs.ErrNotExist) {
				return &exitError{code: exitUnknown, err: fmt.Errorf("there is no package %s to check", args[0]), hint: "name the file that was handed over, or the folder that package open made"}
			}
			if err != nil {
				return &exitError{code: exitUnknown, err: err}
			}
			var c *report.Checked
			if st.IsDir() {
				c, err = report.VerifyBag(cmd.Context(), args[0], v)
			} else {
				c, err = report.VerifyFile(cmd.Context(), args[0], k, v)
			}
			if err != nil {
				return &exitError{code: exitUnknown, err: err}
			}
			return printChecked(env, c, v)
		}}
	trust.add(cmd)
	cmd.Flags().StringVar(&key, "key", "", "key `file` of a recipient, to look inside a sealed package")
	cmd.Flags().StringVar(&pass, "passphrase-file", "", "`file` with the passphrase of the key")
	return cmd
}

func printChecked(env *environment, c *report.Checked, v ledger.Verifiers) error {
	for _, p := range c.Problems {
		fmt.Fprintf(env.stdout, "ALTERED %s\n", event.Printable(p.String()))
	}
	if !c.OK() {
		return &exitError{code: exitFailed, err: errors.New("the package was altered, or is not what it says")}
	}
	fmt.Fprintf(env.stdout, "package    %s, statement %d of the ledger\n", c.ID, c.Index)
	fmt.Fprintf(env.stdout, "due        %s\n", c.Due)
	if v.Threshold > 0 {
		fmt.Fprintf(env.stdout, "witnesses  at least %d of %d have cosigned\n", v.Threshold, len(v.Witnesses))
	} else {
		fmt.Fprintln(env.stdout, "witnesses  none was named: the log alone vouches for it")
	}
	if c.Sealed {
		_, err := fmt.Fprintln(env.stdout, "it is the file that the ledger knows; only the key of a recipient looks inside")
		return err
	}
	fmt.Fprintf(env.stdout, "case       %s, for %s\n", event.Printable(c.Case), event.Printable(c.Purpose))
	_, err := fmt.Fprintf(env.stdout, "%d records of %d segments, %d originals, %d statements: nothing altered\n", c.Records, c.Segments, c.Originals, c.Statements)
	return err
}

func newPackageOpen(env *environment) *cobra.Command {
	var trust trustFlags
	var key, pass, out string
	cmd := &cobra.Command{Use: "open FILE --key FILE --log VKEY [--witness VKEY]... -o DIR", Short: "Check a package and write what is in it into a new folder", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if key == "" || out == "" {
				return need(cmd, "key", "output")
			}
			v, err := trust.named()
			if err != nil {
				return err
			}
			if err := there(args); err != nil {
				return err
			}
			k, err := recipientKey(env, key, pass)
			if err != nil {
				return err
			}
			c, err := report.Open(cmd.Context(), args[0], k, v, out)
			if err != nil {
				return err
			}
			if err := printChecked(env, c, v); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "read %s\n", filepath.Join(out, "data", "index.html"))
			return err
		}}
	trust.add(cmd)
	cmd.Flags().StringVar(&key, "key", "", "key `file` of the recipient")
	cmd.Flags().StringVar(&pass, "passphrase-file", "", "`file` with the passphrase of the key")
	cmd.Flags().StringVarP(&out, "output", "o", "", "`folder` to make, which must not be there")
	return cmd
}

// custodyRequest tells what became of a package.
type custodyRequest struct {
	ID        string `json:"id"`
	Recipient string `json:"recipient"`
	Outcome   string `json:"outcome"`
	Note      string `json:"note"`
}

func newPackageReceive(env *environment) *cobra.Command {
	return newCustody(env, "receive ID", "Write down that a recipient has a package", "package.receive", nil)
}

func newPackageReturn(env *environment) *cobra.Command {
	return newCustody(env, "return ID --outcome WORD", "Write down what became of a package", "package.return", func(cmd *cobra.Command, q *custodyRequest) {
		cmd.Flags().StringVar(&q.Outcome, "outcome", "", "returned, destroyed or kept-by-order")
		cmd.Flags().StringVar(&q.Note, "note", "", "`text`, kept beside the ledger and not in it")
	})
}

func newCustody(env *environment, use, short, act string, more func(*cobra.Command, *custodyRequest)) *cobra.Command {
	var f configFlags
	var q custodyRequest
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.ID = args[0]
			cfg, err := f.load()
			if err != nil {
				return err
			}
			c, err := dial(cmd.Context(), env, cfg)
			if err != nil {
				return err
			}
			var sent report.Sent
			if err := errors.Join(c.act(cmd.Context(), act, q, &sent), c.close()); err != nil {
				return err
			}
			return printSent(env, []report.Sent{sent})
		}}
	f.add(cmd)
	cmd.Flags().StringVar(&q.Recipient, "recipient", "", "`id` of the recipient's card (default the only one)")
	if more != nil {
		more(cmd, &q)
	}
	return cmd
}

func newPackageList(env *environment) *cobra.Command {
	var f configFlags
	var format string
	var overdue bool
	cmd := &cobra.Command{Use: "list", Short: "Where each package is, and which are overdue", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "table" && format != "jsonl" {
				return usage("--format is table or jsonl")
			}
			cfg, err := f.load()
			if err != nil {
				return err
			}
			c, err := dial(cmd.Context(), env, cfg)
			if err != nil {
				return err
			}
			var all []report.Sent
			if err := errors.Join(c.act(cmd.Context(), "package.list", struct{}{}, &all), c.close()); err != nil {
				return err
			}
			var shown []report.Sent
			for _, s := range all {
				if s.Overdue || !overdue {
					shown = append(shown, s)
				}
			}
			if format == "jsonl" {
				enc := json.NewEncoder(env.stdout)
				for _, s := range shown {
					if err := enc.Encode(s); err != nil {
						return err
					}
				}
				return nil
			}
			return printSent(env, shown)
		}}
	f.add(cmd)
	cmd.Flags().StringVar(&format, "format", "table", "table or jsonl")
	cmd.Flags().BoolVar(&overdue, "overdue", false, "only what is overdue")
	return cmd
}

func printSent(env *environment, all []report.Sent) error {
	w := tabwriter.NewWriter(env.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "PACKAGE\tSTATE\tRECIPIENT\tMADE\tDUE")
	day := func(at time.Time) string { return at.UTC().Format(time.DateOnly) }
	for _, s := range all {
		var state []string
		if !s.Received.IsZero() {
			state = append(state, "received "+day(s.Received))
		}
		if !s.Returned.IsZero() {
			state = append(state, s.Outcome+" "+day(s.Returned))
		}
		if s.Overdue {
			state = append(state, "OVERDUE")
		}
		if len(state) == 0 {
			state = append(state, "sent")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", s.ID, strings.Join(state, ", "), s.Recipient[:min(16, len(s.Recipient))], day(s.Made), s.Due)
	}
	return w.Flush()
}

// packageReceive, packageReturn and packageList are the acts behind the commands.
func (s *server) packageReceive(ctx context.Context, actor string, body []byte) (any, error) {
	var q custodyRequest
	if err := decodeAct(body, &q); err != nil {
		return nil, err
	}
	sent, err := report.Receive(ctx, s.pipe.Recorder(), q.ID, q.Recipient, actor, s.now())
	return sent, custodyError(err)
}

func (s *server) packageReturn(ctx context.Context, actor string, body []byte) (any, error) {
	var q custodyRequest
	if err := decodeAct(body, &q); err != nil {
		return nil, err
	}
	sent, err := report.Return(ctx, s.pipe.Recorder(), q.ID, q.Recipient, q.Outcome, q.Note, actor, s.now())
	return sent, custodyError(err)
}

func custodyError(err error) error {
	if errors.Is(err, report.ErrRequest) {
		return web.BadRequest(err.Error(), "see: counterseal package list")
	}
	return err
}

func (s *server) packageList(ctx context.Context, _ string, _ []byte) (any, error) {
	if _, err := report.Overdue(ctx, s.pipe.Recorder(), s.now()); err != nil {
		return nil, err
	}
	all, err := report.Packages(ctx, s.pipe.Recorder(), s.now())
	if all == nil {
		all = []report.Sent{}
	}
	return all, err
}

// watchPackages states each hour what was not returned in time.
func (s *server) watchPackages(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		n, err := report.Overdue(ctx, s.pipe.Recorder(), s.now())
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			s.log.Error("overdue packages could not be stated; tried again within the hour", "err", err)
		case n > 0:
			s.log.Warn("packages were not returned in time: counterseal package list --overdue", "new", n)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// checks tells the doctor how retention and packages stand.
func (s *server) checks(ctx context.Context) ([]pipeline.Check, error) {
	out, err := s.lifeChecks(ctx)
	if err != nil {
		return nil, err
	}
	more, err := s.caseChecks(ctx)
	if err != nil {
		return nil, err
	}
	out = append(out, more...)
	if more, err = s.oversightChecks(ctx); err != nil {
		return nil, err
	}
	out = append(out, more...)
	if more, err = s.dutyChecks(ctx); err != nil {
		return nil, err
	}
	out = append(out, more...)
	if more, err = s.noticeChecks(ctx); err != nil {
		return nil, err
	}
	out = append(out, more...)
	if more, err = s.complaintChecks(ctx); err != nil {
		return nil, err
	}
	out = append(out, more...)
	if more, err = s.spareChecks(ctx); err != nil {
		return nil, err
	}
	out = append(out, more...)
	out = append(out, s.tokenChecks(ctx)...)
	out = append(out, s.brokerChecks(ctx)...)
	out = append(out, s.channelChecks()...)
	out = append(out, s.officeChecks()...)
	if more, err = s.standsChecks(ctx); err != nil {
		return nil, err
	}
	out = append(out, more...)
	all, err := report.Packages(ctx, s.pipe.Recorder(), s.now())
	if err != nil {
		return nil, err
	}
	late := 0
	for _, p := range all {
		if p.Overdue {
			late++
		}
	}
	switch {
	case late > 0:
		out = append(out, pipeline.Check{Name: "packages", State: "warn", Text: fmt.Sprintf("%d of %d were not returned in time", late, len(all)), Hint: "counterseal package list --overdue"})
	case len(all) > 0:
		out = append(out, pipeline.Check{Name: "packages", State: "ok", Text: fmt.Sprintf("%d, none overdue", len(all))})
	}
	return out, nil
}
