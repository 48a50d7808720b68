package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/detect"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/pipeline"
	"github.com/counterseal/counterseal/internal/web"
	"github.com/counterseal/counterseal/sigma"
	"github.com/counterseal/counterseal/sigma/sigmatest"
)

func newRules(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "rules", Short: "Sigma rules: list, check, test", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newRulesList(env), newRulesCheck(env), newRulesTest(env), newRulesRun(env), newRulesActivate(env), newRulesApprove(env))
	return cmd
}

// ruleAnswer is what the API says about the rules in force.
type ruleAnswer struct {
	Digest  string     `json:"digest"`
	Rules   []web.Rule `json:"rules"`
	Refused []struct {
		Path   string `json:"path"`
		Line   int    `json:"line"`
		ID     string `json:"id"`
		Reason string `json:"reason"`
	} `json:"refused"`
	Unfed []string         `json:"unfed"`
	Blind []pipeline.Blind `json:"blind"`
	Aside []pipeline.Aside `json:"aside"`
	Held  []pipeline.Held  `json:"held"`
}

func askRules(cmd *cobra.Command, env *environment, f *configFlags) (a ruleAnswer, err error) {
	cfg, err := f.load()
	if err != nil {
		return a, err
	}
	c, err := dial(cmd.Context(), env, cfg)
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	return a, c.getJSON(cmd.Context(), "/api/v1/rules", nil, &a)
}

func newRulesList(env *environment) *cobra.Command {
	var f configFlags
	cmd := &cobra.Command{
		Use: "list", Short: "List the rules in force", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := askRules(cmd, env, &f)
			if err != nil {
				return err
			}
			for _, r := range a.Rules {
				fmt.Fprintf(env.stdout, "%-13s %s  %s\n", r.Level, r.ID, event.Printable(r.Title))
			}
			return nil
		},
	}
	f.add(cmd)
	return cmd
}

func newRulesCheck(env *environment) *cobra.Command {
	var f configFlags
	var o output
	strict := false
	cmd := &cobra.Command{
		Use:   "check [PATH]...",
		Short: "Say which rules are refused, which nothing feeds, and what their authors probably did not mean",
		Long: "With paths, check reads those rules alone, and says what their authors probably did not\n" +
			"mean, a class in front of each line: schema (not what the JSON schema of the specification\n" +
			"asks for), dead-selection (a part that makes no difference), impossible (no event can\n" +
			"match), contradiction (only an event with a field more than once can), always (every event\n" +
			"matches), cost (far dearer than others), duplicate, filter, correlation. Unmapped is a log\n" +
			"source that we do not know; unknown-field a field that our template of what feeds the\n" +
			"rule does not have, most likely misspelt.\n\n" +
			"Without paths, it looks at the rules in force in the data directory, and at what the\n" +
			"assessments in force leave them to see.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return checkFiles(env, args, &o, strict)
			}
			if strict || o.format != "table" || o.jsonl != "" || o.file != "-" {
				return usage("rules check: --strict, --format, --jsonl and --output are for rules at a path")
			}
			a, err := askRules(cmd, env, &f)
			if err != nil {
				return err
			}
			for _, r := range a.Refused {
				fmt.Fprintf(env.stdout, "refused  %s:%d %s\n", event.Printable(r.Path), r.Line, event.Printable(r.Reason))
			}
			for _, r := range a.Aside {
				fmt.Fprintf(env.stdout, "aside    %s:%d %s: %s\n", event.Printable(r.Path), r.Line, event.Printable(r.Rule), event.Printable(r.Reason))
				if r.Hint != "" {
					fmt.Fprintf(env.stdout, "         %s\n", r.Hint)
				}
			}
			for _, r := range a.Held {
				fmt.Fprintf(env.stdout, "held     %s under authorisation %s until %s\n", event.Printable(r.Rule), r.Authorisation, r.Bound.Until.UTC().Format(time.RFC3339))
			}
			title := map[string]string{}
			for _, r := range a.Rules {
				title[r.ID] = r.Title
			}
			for _, b := range a.Blind {
				what := joinNonEmpty("; ", prefixed("drops ", b.Dropped), prefixed("changes ", b.Altered))
				fmt.Fprintf(env.stdout, "blind    %s %q on %s/%s: %s %s\n", b.Rule, event.Printable(b.Title), b.Source, b.Dataset, b.PIA, what)
			}
			for _, id := range a.Unfed {
				fmt.Fprintf(env.stdout, "unfed    %s %q: no source of an assessment in force feeds it\n", id, event.Printable(title[id]))
			}
			fmt.Fprintf(env.stdout, "%d rules in force, %d refused, %d unfed, %d blinded somewhere", len(a.Rules), len(a.Refused), len(a.Unfed), distinct(a.Blind))
			if len(a.Aside)+len(a.Held) > 0 {
				fmt.Fprintf(env.stdout, "; %d set aside, %d under an authorisation", len(a.Aside), len(a.Held))
			}
			fmt.Fprintln(env.stdout)
			return nil
		},
	}
	f.add(cmd)
	o.add(cmd)
	cmd.Flags().BoolVar(&strict, "strict", false, "exit with 4 when there is a warning of any class")
	return cmd
}

func prefixed(what string, fields []string) string {
	if len(fields) == 0 {
		return ""
	}
	return what + strings.Join(fields, ", ")
}

func distinct(blind []pipeline.Blind) int {
	seen := map[string]bool{}
	for _, b := range blind {
		seen[b.Rule] = true
	}
	return len(seen)
}

// remark is a line of rules check about a file. Its class is refused, unmapped,
// unknown-field, or one of the classes of sigma.Warning.
type remark struct {
	Class  string `json:"class"`
	Path   string `json:"path"`
	Line   int    `json:"line"`
	Column int    `json:"column,omitempty"`
	Rule   string `json:"rule,omitempty"`
	Title  string `json:"title,omitempty"`
	Text   string `json:"text"`
}

func checkFiles(env *environment, paths []string, o *output, strict bool) (err error) {
	if err := there(paths); err != nil {
		return err
	}
	files, err := ruleFiles(false, paths)
	if err != nil {
		return err
	}
	set, err := detect.Compile(files)
	if err != nil {
		return err
	}
	var warnings []sigma.Warning
	for _, f := range files {
		warnings = append(warnings, sigma.CheckSchema(f.Path, f.Data)...)
	}
	warnings = append(warnings, set.Set().Lint()...)
	slices.SortStableFunc(warnings, func(a, b sigma.Warning) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	var remarks []remark
	for _, r := range set.Refused() {
		remarks = append(remarks, remark{"refused", r.Path, r.Line, 0, r.RuleID, r.Title, r.Reason})
	}
	counts := make(map[string]int)
	for _, w := range warnings {
		counts[string(w.Class)]++
		remarks = append(remarks, remark{string(w.Class), w.Path, w.Line, w.Column, w.RuleID, w.Title, w.Text})
	}
	for _, r := range set.Unmapped() {
		remarks = append(remarks, remark{"unmapped", r.Path, r.Line, 0, r.ID, r.Title, "no mapping knows its log source"})
	}
	unknown := 0
	for _, r := range set.Rules() {
		fields, datasets := pipeline.Unknown(set, r)
		if len(fields) == 0 {
			continue
		}
		unknown++
		remarks = append(remarks, remark{"unknown-field", r.Path, r.Line, 0, r.ID, r.Title,
			"reads " + strings.Join(fields, ", ") + ", which no record of " + strings.Join(datasets, ", ") + " is known to have"})
	}
	standing := 0
	for _, f := range files {
		parsed, _ := sigma.Parse(f.Path, f.Data)
		for _, r := range parsed {
			v := access.Standing(r, access.Options{})
			if v.Class == access.Nobody {
				continue
			}
			standing++
			why := make([]string, 0, len(v.Reasons))
			for _, reason := range v.Reasons {
				why = append(why, strings.TrimSpace(reason.Field+" "+reason.Why))
			}
			remarks = append(remarks, remark{"standing", r.Path, r.Line, 0, r.ID, r.Title, "it selects " + v.Class.String() + " and needs an authorisation: " + strings.Join(why, "; ")})
		}
	}
	last := fmt.Sprintf("%d rules accepted, %d refused, %d unmapped", len(set.Rules()), len(set.Refused()), len(set.Unmapped()))
	if unknown > 0 {
		last += fmt.Sprintf(", %d with an unknown field", unknown)
	}
	for i, class := range slices.Sorted(maps.Keys(counts)) {
		last += fmt.Sprintf("%s %d %s", []string{";", ","}[min(i, 1)], counts[class], class)
	}
	if standing > 0 {
		last += fmt.Sprintf("; %d standing", standing)
	}
	w, format, done, err := o.open(env)
	if err != nil {
		return err
	}
	if err := errors.Join(printRemarks(w, format, remarks, last), done()); err != nil {
		return err
	}
	switch {
	case len(set.Refused()) > 0:
		return &exitError{code: exitPartial, err: fmt.Errorf("%d rules are refused", len(set.Refused()))}
	case strict && len(warnings) > 0:
		return &exitError{code: exitPartial, err: fmt.Errorf("%d warnings", len(warnings))}
	}
	return nil
}

// printRemarks prints one remark a line, and as a table a last line of counts.
func printRemarks(w io.Writer, format string, remarks []remark, last string) error {
	rows, lines := csv.NewWriter(w), json.NewEncoder(w)
	lines.SetEscapeHTML(false)
	if format == "csv" {
		rows.Write([]string{"class", "path", "line", "column", "rule", "title", "text"}) // its error stays until Flush
	}
	for _, r := range remarks {
		switch format {
		case "jsonl":
			if err := lines.Encode(r); err != nil {
				return err
			}
		case "csv":
			cells := []string{r.Class, r.Path, strconv.Itoa(r.Line), strconv.Itoa(r.Column), r.Rule, r.Title, r.Text}
			for i := range cells {
				cells[i] = event.Printable(cells[i])
			}
			rows.Write(cells)
		default:
			text := sigma.Warning{Path: r.Path, Line: r.Line, Column: r.Column, Title: r.Title, Text: r.Text}.String()
			if _, err := fmt.Fprintf(w, "%-14s %s\n", r.Class, event.Printable(text)); err != nil {
				return err
			}
		}
	}
	if format == "table" {
		_, err := fmt.Fprintln(w, last)
		return err
	}
	rows.Flush()
	return rows.Error()
}

func newRulesTest(env *environment) *cobra.Command {
	var folders []string
	cmd := &cobra.Command{
		Use:   "test FILE...",
		Short: "Run text files that hold events and expected matches",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := errors.Join(there(args), there(folders)); err != nil {
				return err
			}
			files, err := ruleFiles(true, folders)
			if err != nil {
				return err
			}
			set, err := detect.Compile(files)
			if err != nil {
				return err
			}
			failures, events := 0, 0
			for _, arg := range args {
				paths, err := listFiles(arg, ".test")
				if err != nil {
					return err
				}
				for _, path := range paths {
					data, err := os.ReadFile(path)
					if err != nil {
						return err
					}
					report := sigmatest.Run(path, data, sigmatest.Options{Rules: set.Rules()})
					events += report.Events
					for _, f := range report.Failures {
						failures++
						fmt.Fprintln(env.stdout, event.Printable(f))
					}
				}
			}
			fmt.Fprintf(env.stdout, "%d events asked, %d failures\n", events, failures)
			if failures > 0 {
				return &exitError{code: exitFailed, err: fmt.Errorf("%d expectations do not hold", failures)}
			}
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&folders, "rules", nil, "`folder` of rules beside our own (repeats)")
	return cmd
}

func newRulesRun(env *environment) *cobra.Command {
	var f configFlags
	var o output
	var folders []string
	var from, to string
	var why look
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Ask rules about what is sealed",
		Long: "Run reads the event stream, with the assessments that were in force, and prints what the\n" +
			"rules find, oldest first; nothing is stored. The rules in force give the findings that\n" +
			"they gave live, with the same ids.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			cfg, err := f.load()
			if err != nil {
				return err
			}
			req := web.RetroRequest{}
			if req.From, err = flagTime("from", from); err != nil {
				return err
			}
			if req.To, err = flagTime("to", to); err != nil {
				return err
			}
			if err := there(folders); err != nil {
				return err
			}
			if len(folders) > 0 {
				req.Files, err = ruleFiles(false, folders)
			} else {
				req.Files, err = ruleFiles(cfg.OwnRules, cfg.Rules)
			}
			if err != nil {
				return err
			}
			body, err := json.Marshal(req)
			if err != nil {
				return err
			}
			c, err := dial(cmd.Context(), env, cfg)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, c.close()) }()
			v := url.Values{}
			why.values(v)
			resp, err := c.do(cmd.Context(), "POST", "/api/v1/rules/run", v, bytes.NewReader(body))
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			notices(env, resp)
			w, format, done, err := o.open(env)
			if err != nil {
				return err
			}
			return errors.Join(printFindings(w, env.stderr, format, resp.Body), done())
		},
	}
	f.add(cmd)
	o.add(cmd)
	cmd.Flags().StringArrayVar(&folders, "rules", nil, "`folder` of rules to ask instead of those in force (repeats)")
	cmd.Flags().StringVar(&from, "from", "", "earliest event `time`, RFC 3339")
	cmd.Flags().StringVar(&to, "to", "", "latest event `time`, RFC 3339")
	why.add(cmd)
	return cmd
}

// flagTime reads a time of the command line; empty is no bound.
func flagTime(name, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}, usage("--%s: write a time like 2026-03-01T12:00:00Z", name)
	}
	return t, nil
}

// printFindings prints JSON lines of findings.
func printFindings(w, notes io.Writer, format string, r io.Reader) error {
	in := bufio.NewReaderSize(r, 1<<20)
	if format == "jsonl" {
		_, err := io.Copy(w, in)
		return err
	}
	rows := csv.NewWriter(w)
	dec := json.NewDecoder(in)
	n := 0
	for ; ; n++ {
		var f web.Finding
		if err := dec.Decode(&f); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("the answer was cut off: %w", err)
		}
		ref := ""
		if len(f.Refs) > 0 {
			ref = f.Refs[0]
		}
		cells := []string{f.Time, f.Rule.Level, f.Rule.Title, f.Group, strconv.Itoa(len(f.Refs)), ref, f.ID}
		for i := range cells {
			cells[i] = event.Printable(cells[i])
		}
		if format == "csv" {
			if n == 0 {
				rows.Write([]string{"time", "level", "rule", "group", "records", "first", "id"}) // its error stays until Flush
			}
			rows.Write(cells)
			continue
		}
		fmt.Fprintf(w, "%-30s %-13s %s\n", cells[0], cells[1], cells[2])
		if f.Group != "" {
			fmt.Fprintf(w, "%44s %s, %s records\n", "", cells[3], cells[4])
		}
	}
	if n == 0 {
		fmt.Fprintln(notes, "nothing is found")
	}
	rows.Flush()
	return rows.Error()
}
