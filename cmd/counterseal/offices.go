package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/policy"
)

func newOffices(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "offices", Short: "Offices: who may ask, who decides, and who appointed them", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newOfficesInit(env), newOfficesCheck(env), newOfficesShow(env), newOfficesRequest(env), newOfficesApprove(env))
	return cmd
}

// officesFile is a record of offices as it was read.
type officesFile struct {
	path   string
	data   []byte
	record *policy.Offices
	cfg    config
}

func (o *officesFile) digest() string {
	sum := sha256.Sum256(o.data)
	return hex.EncodeToString(sum[:])
}

// readOffices reads the record named, or that of the configuration, by the roles of the
// policies of the configuration.
func readOffices(f *configFlags, args []string) (*officesFile, error) {
	cfg, err := f.load()
	if err != nil {
		return nil, err
	}
	o := &officesFile{path: cfg.Offices, cfg: cfg}
	if len(args) > 0 {
		o.path = args[0]
	}
	if o.path == "" {
		return nil, &exitError{code: exitUsage, err: errors.New("no record of offices is named, here or in the configuration"), hint: "counterseal offices init -o offices.yaml"}
	}
	roles, err := rolesOf(&cfg)
	if err != nil {
		return nil, err
	}
	if o.data, err = readFile(o.path, "the record of offices", "counterseal offices init -o FILE makes one"); err != nil {
		return nil, err
	}
	if o.record, err = policy.ParseOffices(o.data, roles); err != nil {
		return nil, err
	}
	return o, nil
}

// rolesOf are the roles of the policies of a configuration.
func rolesOf(cfg *config) ([]string, error) {
	var dir fs.FS = policy.Default()
	if cfg.Policies != "" {
		dir = os.DirFS(cfg.Policies)
	}
	set, err := policy.Load(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the policies: %w", err)
	}
	return set.Roles(), nil
}

func newOfficesCheck(env *environment) *cobra.Command {
	var f configFlags
	var strict bool
	cmd := &cobra.Command{Use: "check [FILE]", Short: "Say what is wrong with a record of offices, what weakens it, and who approved it", Args: cobra.MaximumNArgs(1),
		Long: "Check refuses a record that is not of the form offices/v1 and warns of what is allowed and\n" +
			"weakens it: a deciding office that is vacant or only acting, training that is over or\n" +
			"ends within 30 days, one person in several offices, users of the machine as holders,\n" +
			"offices whose requests nobody may decide on. It prints the digest that the ledger and\n" +
			"the two officers name, and whether they approved exactly this file.",
		RunE: func(_ *cobra.Command, args []string) error {
			o, err := readOffices(&f, args)
			if err != nil {
				return err
			}
			warnings := o.record.Warnings(time.Now())
			for _, w := range warnings {
				fmt.Fprintf(env.stdout, "warning: %s\n", w)
			}
			held := 0
			for _, one := range o.record.Offices {
				if one.Holder != "" {
					held++
				}
			}
			fmt.Fprintf(env.stdout, "%d offices, %d held, %d warnings\ndigest %s\n", len(o.record.Offices), held, len(warnings), o.digest())
			switch asked, err := o.approved(); {
			case errors.Is(err, errUnsigned), errors.Is(err, errUnknown):
				fmt.Fprintln(env.stdout, err)
			case err != nil:
				return &exitError{code: exitFailed, err: fmt.Errorf("the approval beside the record: %w", err), hint: "ask both officers anew: counterseal offices request"}
			default:
				fmt.Fprintln(env.stdout, "approved by two officers of two offices, asked on "+asked.Format(time.DateOnly))
			}
			if strict && len(warnings) > 0 {
				return &exitError{code: exitPartial, err: fmt.Errorf("%d warnings", len(warnings))}
			}
			return nil
		}}
	f.add(cmd)
	cmd.Flags().BoolVar(&strict, "strict", false, "exit with 4 where there are warnings")
	return cmd
}

// officeLine is a line of offices show --format jsonl.
type officeLine struct {
	ID            string   `json:"id"`
	Roles         []string `json:"roles"`
	Holder        string   `json:"holder,omitempty"`
	Standing      string   `json:"standing,omitempty"`
	Since         string   `json:"since,omitempty"`
	TrainingUntil string   `json:"training_until,omitempty"`
	Authority     string   `json:"authority"`
	Under         string   `json:"under,omitempty"`
	Outside       bool     `json:"outside"`
	Inspector     bool     `json:"inspector,omitempty"`
}

func newOfficesShow(env *environment) *cobra.Command {
	var f configFlags
	var format string
	cmd := &cobra.Command{Use: "show [FILE]", Short: "Show who holds which office", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if format != "table" && format != "jsonl" {
				return usage("--format is table or jsonl")
			}
			o, err := readOffices(&f, args)
			if err != nil {
				return err
			}
			day := func(t time.Time) string {
				if t.IsZero() {
					return ""
				}
				return t.Format(time.DateOnly)
			}
			lines := make([]officeLine, len(o.record.Offices))
			for i, one := range o.record.Offices {
				lines[i] = officeLine{one.ID, one.Roles, one.Holder, one.Standing, day(one.Since), day(one.Trained), one.Authority, one.Under, one.Outside, one.Inspector}
			}
			if format == "jsonl" {
				return printLines(env, lines)
			}
			w := tabwriter.NewWriter(env.stdout, 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "OFFICE\tROLES\tHOLDER\tSTANDING\tSINCE\tTRAINED UNTIL\tAPPOINTED BY\tUNDER")
			for _, l := range lines {
				holder, where := l.Holder, l.Under
				if holder == "" {
					holder = "vacant"
				}
				if l.Inspector {
					where = strings.TrimSpace(where + " (inspector, outside)")
				} else if l.Outside {
					where = strings.TrimSpace(where + " (outside)")
				}
				cells := []string{l.ID, strings.Join(l.Roles, ","), holder, l.Standing, l.Since, l.TrainingUntil, l.Authority, where}
				for i, c := range cells {
					if c == "" {
						cells[i] = "-"
					}
				}
				fmt.Fprintln(w, strings.Join(cells, "\t"))
			}
			return w.Flush()
		}}
	f.add(cmd)
	cmd.Flags().StringVar(&format, "format", "table", "table or jsonl")
	return cmd
}

// The approval of a record: two officers of two offices sign its digest, and what they
// signed lies beside it.

const (
	actionOffices  = "offices.activate"
	approvedSuffix = ".approved"
	maxApproved    = 64 << 10
)

// officesApproval is the file beside a record.
type officesApproval struct {
	Decisions []approval.Signed `json:"decisions"`
	Statement string            `json:"statement"`
	V         int               `json:"v"`
}

// Why a record is not approved, where nothing is wrong with what lies beside it.
var (
	errUnsigned = errors.New("not approved: no two officers have signed it")
	errUnknown  = errors.New("an approval lies beside it, which cannot be checked: no officers are configured")
)

// approved says when the officers were asked who approved the record. errUnsigned and
// errUnknown say that it is not approved; any other error that what lies beside it does not
// fit: the record has changed, or the officers have.
func (o *officesFile) approved() (asked time.Time, err error) {
	f, err := os.Open(o.path + approvedSuffix)
	if errors.Is(err, os.ErrNotExist) {
		return asked, errUnsigned
	}
	if err != nil {
		return asked, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxApproved+1))
	if err != nil {
		return asked, err
	}
	roster, err := o.cfg.roster()
	if err != nil {
		return asked, err
	}
	if roster == nil {
		return asked, errUnknown
	}
	var a officesApproval
	if err := approval.DecodeUpTo(maxApproved, data, &a); err != nil || a.V != 1 || len(a.Decisions) != 2 {
		return asked, errors.New("it is not of the form that counterseal offices approve writes")
	}
	s, err := approval.Parse([]byte(a.Statement))
	if err != nil {
		return asked, err
	}
	// It was approved in its time; that time is over by now.
	if err := o.check(s, a, roster, s.MadeAt()); err != nil {
		return asked, err
	}
	return s.MadeAt().UTC(), nil
}

func (o *officesFile) objects() []string { return []string{"offices " + o.digest()} }

// check holds a statement and two decisions against the record and the officers.
func (o *officesFile) check(s *approval.Statement, a officesApproval, roster *officer.Roster, now time.Time) error {
	if s.Action != actionOffices {
		return errors.New("the officers signed something else than a record of offices")
	}
	if !slices.Equal(s.Objects, o.objects()) {
		return errors.New("the officers signed another record: this one has changed")
	}
	var book approval.Book
	if _, err := book.Request([]byte(a.Statement), now); err != nil {
		return err
	}
	for _, d := range a.Decisions {
		by, err := roster.Voter(d.Key)
		if err == nil {
			_, err = book.Decide(s.ID, d, by, now)
		}
		if err != nil {
			return err
		}
	}
	_, err := book.Use(s.ID, now)
	return err
}

func newOfficesRequest(env *environment) *cobra.Command {
	var f keyFlags
	var ask approval.Ask
	var out string
	cmd := &cobra.Command{Use: "request FILE -o REQUEST --purpose TEXT --requester NAME", Short: "Ask two officers of two offices to approve a record of offices", Args: cobra.ExactArgs(1),
		Long: "Request writes what the two officers sign: the digest of the record. Each reads the record,\n" +
			"compares the digest with that of counterseal offices check, and signs with counterseal\n" +
			"officer sign.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := errors.Join(need(cmd, "output", "purpose", "requester"), free(out)); err != nil {
				return err
			}
			o, err := readOffices(&f.configFlags, args)
			if err != nil {
				return err
			}
			_, k, _, err := f.open(env)
			if err != nil {
				return err
			}
			ask.Action, ask.Objects, ask.Org, ask.Grant = actionOffices, o.objects(), k.ID(), time.Hour
			_, statement, err := approval.New(ask, time.Now())
			if err != nil {
				return usage("%v", err)
			}
			return sendRequest(env, out, &officerRequest{Statement: string(statement), V: 1}, string(statement))
		}}
	f.add(cmd)
	cmd.Flags().StringVar(&ask.Purpose, "purpose", "", "why the record changes, in a sentence")
	cmd.Flags().StringVar(&ask.Requester, "requester", "", "`name` of who asks")
	cmd.Flags().StringVar(&ask.Case, "case", "offices", "`number` of the case")
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` of the request, which must not be there")
	return cmd
}

func newOfficesApprove(env *environment) *cobra.Command {
	var f configFlags
	var decisions []string
	cmd := &cobra.Command{Use: "approve FILE REQUEST --decision FILE --decision FILE", Short: "Lay the approval of two officers beside a record of offices", Args: cobra.ExactArgs(2),
		Long: "Approve checks both decisions against the officers of the configuration and writes them\n" +
			"beside the record, as FILE" + approvedSuffix + ". From then on counterseal offices check says whether\n" +
			"the record is the one that they approved.",
		RunE: func(_ *cobra.Command, args []string) error {
			o, err := readOffices(&f, args[:1])
			if err != nil {
				return err
			}
			roster, err := o.cfg.roster()
			if err != nil {
				return err
			}
			if roster == nil {
				return &exitError{code: exitRefused, err: errors.New("no officers are configured"), hint: "name them in the file `officers`"}
			}
			text, s, err := readStatement(args[1])
			if err != nil {
				return err
			}
			a := officesApproval{Statement: text, V: 1}
			if a.Decisions, err = readDecisions(decisions); err != nil {
				return err
			}
			if err := o.check(s, a, roster, time.Now()); err != nil {
				return &exitError{code: exitRefused, err: err, hint: "two people of two offices must approve it: counterseal officer sign"}
			}
			b, err := approval.Canonical(a)
			if err != nil {
				return err
			}
			if err := writeNew(o.path+approvedSuffix, b); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "wrote %s\n", o.path+approvedSuffix)
			return err
		}}
	f.add(cmd)
	cmd.Flags().StringArrayVar(&decisions, "decision", nil, "`file` of a decision; two are needed")
	return cmd
}

// The walk through a new record.

// roleSentences say what a role is for. A test holds them against the policies.
var roleSentences = map[string]string{
	"analyst":         "An analyst watches for attacks: asks about events that select nobody, and about people under an authorisation.",
	"responder":       "A responder stops an attack: sees the accounts and hosts of an incident for 72 hours without asking, and may break the glass.",
	"investigator":    "An investigator makes a case: asks about people under an authorisation, unlocks originals and packs evidence with two officers.",
	"privacy_officer": "The privacy officer decides on looks at people together with the overseer, and agrees to changed policies.",
	"overseer":        "The overseer decides on looks at people, reviews them afterwards, and never looks.",
	"compliance":      "Compliance makes accounts, keeps deadlines and holds, and answers offices that ask for evidence.",
	"operator":        "An operator keeps the machine running and reads no events.",
	"collector":       "A collector is a machine that delivers events and asks nothing.",
}

// planned is an office that init asks about.
type planned struct {
	id    string
	roles []string
	// what Enter answers
	holder, authority, under, standing, since, trained string
	outside                                            bool
}

func plannedOffices(small bool, today time.Time) []*planned {
	p := func(id, authority, under string, outside bool, roles ...string) *planned {
		one := &planned{id: id, authority: authority, under: under, outside: outside, roles: roles, standing: "confirmed", since: today.Format(time.DateOnly)}
		if one.reads() {
			one.trained = today.AddDate(1, 0, 0).Format(time.DateOnly)
		}
		return one
	}
	if small {
		return []*planned{
			p("lead", "owners", "", false, "compliance"),
			p("defence", "lead", "lead", false, "analyst", "responder"),
			p("personnel", "lead", "lead", false, "investigator"),
			p("machines", "lead", "lead", false, "operator"),
			p("staff-council", "staff", "", false, "overseer"),
			p("data-protection", "law-firm", "", true, "privacy_officer"),
		}
	}
	return []*planned{
		p("management", "board", "", false, "compliance"),
		p("security", "management", "management", false, "responder"),
		p("soc", "management", "security", false, "analyst"),
		p("internal-affairs", "management", "management", false, "investigator"),
		p("machines", "management", "management", false, "operator"),
		p("privacy", "board", "", false, "privacy_officer"),
		p("inspector", "supervisor", "", true, "overseer"),
	}
}

func (p *planned) reads() bool {
	return slices.ContainsFunc(p.roles, func(r string) bool { return r == "analyst" || r == "responder" || r == "investigator" })
}

func (p *planned) decides() bool {
	return slices.Contains(p.roles, "privacy_officer") || slices.Contains(p.roles, "overseer")
}

// set answers one question.
func (p *planned) set(key, value string) error {
	into := map[string]*string{"holder": &p.holder, "authority": &p.authority, "under": &p.under, "standing": &p.standing, "since": &p.since, "training_until": &p.trained}[key]
	switch {
	case key == "outside" && (value == "yes" || value == "no"):
		p.outside = value == "yes"
		return nil
	case key == "outside":
		return errors.New("yes or no")
	case into == nil:
		return errors.New("an office has no such key")
	}
	if value = strings.TrimSpace(value); value == "-" {
		value = ""
	}
	before := *into
	*into = value
	// One office alone is held against the form, without the office above it.
	alone := *p
	alone.under = ""
	if alone.holder == "" { // dates are looked at once somebody holds it
		alone.holder = "somebody"
	}
	if _, err := policy.ParseOffices([]byte(officesText(false, []*planned{&alone})), p.roles); err != nil {
		*into = before
		return errors.New(strings.TrimPrefix(err.Error(), "offices: office 1: "))
	}
	return nil
}

// question is what init asks about each office.
type question struct{ key, text string }

func (p *planned) questions() []question {
	q := []question{
		{"holder", "id of an account, os-1000 for a user of this machine, - while it is vacant"},
		{"authority", "who appoints it"},
		{"under", "the office above it, - for none"},
	}
	if p.decides() {
		q = append(q, question{"outside", "of the organisation, yes or no"})
	}
	return q
}

// heldQuestions come where somebody holds it.
func (p *planned) heldQuestions() []question {
	q := []question{{"standing", "confirmed or acting"}, {"since", "the first day"}}
	if p.reads() {
		q = append(q, question{"training_until", "the day on which the training ends, - for untrained"})
	}
	return q
}

func (p *planned) answer(key string) string {
	switch key {
	case "outside":
		return map[bool]string{true: "yes", false: "no"}[p.outside]
	case "holder":
		return p.holder
	case "authority":
		return p.authority
	case "under":
		return p.under
	case "standing":
		return p.standing
	case "since":
		return p.since
	}
	return p.trained
}

// officesText writes a record. Its values are checked, or are about to be.
func officesText(small bool, offices []*planned) string {
	var b strings.Builder
	b.WriteString("# Who is in which office: docs/formats/offices.md. Whoever changes it has two officers\n# approve it: counterseal offices request.\nform: offices/v1\n")
	if small {
		b.WriteString("profile: small\n")
	}
	b.WriteString("offices:\n")
	for _, p := range offices {
		b.WriteString("\n")
		for _, r := range p.roles {
			fmt.Fprintf(&b, "  # %s\n", roleSentences[r])
		}
		fmt.Fprintf(&b, "  - id: %s\n    authority: %s\n", scalar(p.id), scalar(p.authority))
		if p.under != "" {
			fmt.Fprintf(&b, "    under: %s\n", scalar(p.under))
		}
		if p.outside {
			b.WriteString("    outside: true\n")
		}
		if p.holder != "" {
			fmt.Fprintf(&b, "    holder: %s\n    standing: %s\n    since: %s\n", scalar(p.holder), scalar(p.standing), scalar(p.since))
			if p.trained != "" {
				fmt.Fprintf(&b, "    training_until: %s\n", scalar(p.trained))
			}
		}
		fmt.Fprintf(&b, "    roles: [%s]\n", strings.Join(p.roles, ", "))
	}
	return b.String()
}

// scalar is text as a string of YAML, whatever it looks like: true and null are names.
func scalar(s string) string {
	if _, err := time.Parse(time.DateOnly, s); err == nil {
		return s
	}
	if s != "" && s[0] >= 'a' && s[0] <= 'z' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_@.") == "" &&
		!slices.Contains([]string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}, s) {
		return s
	}
	return "'" + quoted(s) + "'"
}

const (
	maxAnswer = 200
	maxTries  = 3
)

// answers asks about each office and takes what is typed; an empty line is the answer
// that the question shows.
func (e *environment) answers(offices []*planned) error {
	in := bufio.NewReader(io.LimitReader(e.stdin, 1<<20))
	ids := make([]string, len(offices))
	for i, p := range offices {
		ids[i] = p.id
	}
	ask := func(p *planned, q question) error {
		for range maxTries {
			shown := p.answer(q.key)
			if shown == "" {
				shown = "-"
			}
			fmt.Fprintf(e.stderr, "  %s (%s) [%s]: ", q.key, q.text, shown)
			line, err := in.ReadString('\n')
			if err != nil && line == "" {
				fmt.Fprintln(e.stderr)
				return fmt.Errorf("the answers end at %s of %s: %w", q.key, p.id, err)
			}
			line = strings.TrimSpace(line)
			if line == "" {
				return nil
			}
			err = errors.New("too long")
			if len(line) <= maxAnswer {
				err = p.set(q.key, line)
			}
			if err == nil && q.key == "under" && p.under != "" && !slices.Contains(ids, p.under) {
				p.under, err = "", fmt.Errorf("the offices are %s", strings.Join(ids, ", "))
			}
			if err == nil {
				return nil
			}
			fmt.Fprintf(e.stderr, "  %s\n", event.Printable(err.Error()))
		}
		return fmt.Errorf("%s of %s was not answered in %d tries", q.key, p.id, maxTries)
	}
	fmt.Fprintln(e.stderr, "Enter takes the answer in brackets. Nothing is written before the end.")
	for i, p := range offices {
		fmt.Fprintf(e.stderr, "\n%d of %d: %s\n", i+1, len(offices), p.id)
		for _, r := range p.roles {
			fmt.Fprintf(e.stderr, "  %s\n", roleSentences[r])
		}
		for _, q := range p.questions() {
			if err := ask(p, q); err != nil {
				return err
			}
		}
		if p.holder == "" {
			continue
		}
		for _, q := range p.heldQuestions() {
			if err := ask(p, q); err != nil {
				return err
			}
		}
	}
	return nil
}

func newOfficesInit(env *environment) *cobra.Command {
	var small, yes bool
	var sets []string
	var out string
	cmd := &cobra.Command{Use: "init -o FILE [--small] [--yes] [--set OFFICE.KEY=VALUE]", Short: "Walk through who holds which office, and write the record", Args: cobra.NoArgs,
		Long: "Init asks office by office who holds it, who appointed it and what stands above it, and\n" +
			"writes a record that counterseal offices check accepts. Two offices decide on looks at\n" +
			"people, privacy officer and overseer: two people, appointed by two authorities, neither\n" +
			"above the other. --small is for a team of about five: one of the two is outside, such as\n" +
			"a data protection officer, a law firm or a peer organisation. Where somebody holds two\n" +
			"offices, or an office is missing, edit the file.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := need(cmd, "output"); err != nil {
				return err
			}
			if free(out) != nil {
				return usage("%s is there already and is not overwritten; name a new file with -o", out)
			}
			now := time.Now().UTC()
			offices := plannedOffices(small, now)
			for _, s := range sets {
				where, value, ok := strings.Cut(s, "=")
				id, key, ok2 := strings.Cut(where, ".")
				i := slices.IndexFunc(offices, func(p *planned) bool { return p.id == id })
				if !ok || !ok2 || i < 0 {
					return usage("--set is OFFICE.KEY=VALUE, of an office that init asks about")
				}
				if err := offices[i].set(key, value); err != nil {
					return usage("--set %s.%s: %v", id, key, err)
				}
			}
			if !yes {
				if err := env.answers(offices); err != nil {
					return &exitError{code: exitUsage, err: err, hint: "nothing was written"}
				}
			}
			text := officesText(small, offices)
			set, err := policy.Load(policy.Default())
			if err != nil {
				return err
			}
			o, err := policy.ParseOffices([]byte(text), set.Roles())
			if err != nil {
				return &exitError{code: exitUsage, err: err, hint: "nothing was written"}
			}
			if err := writeNew(out, []byte(text)); err != nil {
				return err
			}
			for _, w := range o.Warnings(now) {
				fmt.Fprintf(env.stdout, "warning: %s\n", w)
			}
			_, err = fmt.Fprintf(env.stdout, "wrote %[1]s with %[2]d offices\nnext: read it, and have counterseal offices check %[1]s say nothing that you did not know;\n"+
				"      have two officers approve it: counterseal offices request %[1]s -o FILE;\n"+
				"      name it in counterseal.yaml: offices: %[1]s. From then on nobody is the founder.\n", out, len(o.Offices))
			return err
		}}
	cmd.Flags().BoolVar(&small, "small", false, "a team of about five, one deciding office outside")
	cmd.Flags().BoolVar(&yes, "yes", false, "ask nothing: the answers in brackets, and those of --set")
	cmd.Flags().StringArrayVar(&sets, "set", nil, "`OFFICE.KEY=VALUE` answers a question, such as privacy.holder=u_ABC; repeats")
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` of the record, which must not be there")
	return cmd
}
