package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/scan"
	"github.com/counterseal/counterseal/sigma"
)

type scanFlags struct {
	rules                     []string
	format, jsonl, out        string
	minLevel, failOn          string
	ids, tags, statuses       []string
	clear, strict             bool
	atLeast, failAt           scan.Level
	notes                     io.Writer
	files                     []*os.File
	findings, lines, progress io.Writer
}

func newScan(env *environment) *cobra.Command {
	var f scanFlags
	cmd := &cobra.Command{
		Use:   "scan PATH...",
		Short: "Ask detection rules about log files, without a server",
		Long: "Scan reads EVTX, JSON lines, JSON arrays, CloudTrail, syslog text, auditd and Zeek logs,\n" +
			"plain or in gzip, zstd and zip, a folder at a time, and prints what the rules find and a\n" +
			"summary. It keeps nothing. People are shown as tokens made with a key of the run; --clear\n" +
			"shows their names. What cannot be read is counted and fails nothing; a path that is not\n" +
			"there is wrong use.\n\n" +
			"Exit: 0 done, 2 wrong use, 4 with --strict when something was not read, 10 with --fail-on\n" +
			"when a finding reached the level.",
		Example: "  counterseal scan /var/log/audit\n  counterseal scan ./evtx --rules ./sigma/rules --min-level high\n  counterseal scan ./evtx --jsonl - | jq .rule.title",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if err := errors.Join(f.check(), there(args), there(f.rules)); err != nil {
				return err
			}
			rules, err := ruleFiles(len(f.rules) == 0, f.rules)
			if err != nil {
				return err
			}
			if len(rules) == 0 {
				return usage("there is no rule file (.yml, .yaml) below %q", f.rules)
			}
			if err := f.open(env); err != nil {
				return err
			}
			defer func() {
				for _, file := range f.files {
					err = errors.Join(err, file.Close())
				}
			}()
			o := scan.Options{
				Paths: args, Rules: rules, Out: f.findings, Format: f.format, JSONL: f.lines, Notes: f.notes,
				Clear: f.clear, MinLevel: f.atLeast, Choose: f.choose(),
			}
			done := func() error { return nil }
			if f.progress != nil {
				o.Progress, done = scanProgress(f.progress)
			}
			s, err := scan.Run(cmd.Context(), o)
			if err := errors.Join(err, done()); err != nil {
				return err
			}
			switch {
			case f.failAt != scan.None && s.Reached(f.failAt):
				return &exitError{code: exitFound, err: fmt.Errorf("there are findings of level %s or above", f.failAt)}
			case f.strict && s.Partial():
				return &exitError{code: exitPartial, err: errors.New("not everything was read")}
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.rules, "rules", nil, "`folder` or file of Sigma rules instead of our own; repeats")
	flags.StringVar(&f.format, "format", scan.Table, "print findings as table, jsonl or csv")
	flags.StringVar(&f.jsonl, "jsonl", "", "write findings as JSON lines to `FILE` too; - is standard output and nothing else goes there")
	flags.StringVarP(&f.out, "output", "o", "", "write findings to `FILE` instead of standard output")
	flags.BoolVar(&f.clear, "clear", false, "show names instead of tokens")
	flags.StringVar(&f.minLevel, "min-level", "", "leave out findings below this `level`: informational, low, medium, high, critical")
	flags.StringArrayVar(&f.ids, "id", nil, "only rules with this `id` or name; repeats")
	flags.StringArrayVar(&f.tags, "tag", nil, "only rules with this `tag`, such as attack.t1059 with all below it; repeats")
	flags.StringArrayVar(&f.statuses, "status", nil, "only rules of this `status`, such as stable; repeats")
	flags.StringVar(&f.failOn, "fail-on", "", "exit 10 when a finding has this `level` or a higher one")
	flags.BoolVar(&f.strict, "strict", false, "exit 4 when a file, a chunk, a record or a line was not read")
	return cmd
}

func (f *scanFlags) check() error {
	var err error
	if f.minLevel != "" {
		if f.atLeast, err = scan.ParseLevel(f.minLevel); err != nil {
			return usage("--min-level: %v", err)
		}
	}
	if f.failOn != "" {
		if f.failAt, err = scan.ParseLevel(f.failOn); err != nil {
			return usage("--fail-on: %v", err)
		}
		if f.failAt < f.atLeast {
			return usage("--fail-on %s asks for findings that --min-level %s leaves out", f.failOn, f.minLevel)
		}
	}
	switch f.format {
	case scan.Table, scan.JSONL, scan.CSV:
	default:
		return usage("--format is table, jsonl or csv, not %q", f.format)
	}
	return nil
}

// choose answers which rules were asked for; nil is all of them.
func (f *scanFlags) choose() func(*sigma.Rule) bool {
	if len(f.ids)+len(f.tags)+len(f.statuses) == 0 {
		return nil
	}
	return func(r *sigma.Rule) bool {
		tagged := func(want string) bool {
			return slices.ContainsFunc(r.Tags, func(tag string) bool {
				return strings.EqualFold(tag, want) || len(tag) > len(want) && strings.EqualFold(tag[:len(want)], want) && tag[len(want)] == '.'
			})
		}
		return (len(f.ids) == 0 || slices.ContainsFunc(f.ids, func(id string) bool { return strings.EqualFold(id, r.ID) || id == r.Name && id != "" })) &&
			(len(f.tags) == 0 || slices.ContainsFunc(f.tags, tagged)) &&
			(len(f.statuses) == 0 || slices.ContainsFunc(f.statuses, func(s string) bool { return strings.EqualFold(s, r.Status) }))
	}
}

// open decides what goes where. Standard output holds the summary only where the
// findings on it are for a person.
func (f *scanFlags) open(env *environment) error {
	f.notes = env.stdout
	create := func(path string) (io.Writer, error) {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		if err != nil {
			return nil, unwritable(path, err)
		}
		f.files = append(f.files, file)
		return file, nil
	}
	var err error
	switch {
	case f.out != "":
		if f.findings, err = create(f.out); err != nil {
			return err
		}
	case f.jsonl == "-": // the lines take standard output
	default:
		f.findings = env.stdout
		if f.format != scan.Table {
			f.notes = env.stderr
		}
	}
	switch f.jsonl {
	case "":
	case "-":
		f.lines, f.notes = env.stdout, env.stderr
	default:
		if f.lines, err = create(f.jsonl); err != nil {
			return err
		}
	}
	// A bar between findings would be torn.
	if terminal(env.stderr) && (!terminal(env.stdout) || f.findings != env.stdout && f.lines != env.stdout) {
		f.progress = env.stderr
	}
	return nil
}

func scanProgress(w io.Writer) (tell func(done, total int64), end func() error) {
	bar := progressbar.NewOptions64(-1, progressbar.OptionSetWriter(w), progressbar.OptionShowBytes(true),
		progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	// A bar that cannot be drawn is no reason to stop; the terminal is gone then.
	return func(done, total int64) {
		bar.ChangeMax64(max(total, 1))
		_ = bar.Set64(done)
	}, bar.Finish
}
