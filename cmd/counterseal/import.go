package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/collect"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/web"
)

func newImport(env *environment) *cobra.Command {
	var f configFlags
	var req web.ImportRequest
	var strict bool
	cmd := &cobra.Command{
		Use:   "import --source NAME PATH...",
		Short: "Seal the records of files and folders",
		Long: "Import reads EVTX, JSON lines, JSON arrays, syslog text, auditd and Zeek logs, plain or\n" +
			"in gzip, zstd and zip, a folder at a time. What an assessment of the source does not\n" +
			"cover is refused. An import that was stopped goes on where it was: run it again.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if req.Source == "" {
				return misused(cmd, "--source is missing: the name of the source, as an assessment has it")
			}
			if err := there(args); err != nil {
				return err
			}
			cfg, err := f.load()
			if err != nil {
				return err
			}
			if req.Paths, err = absolute(args); err != nil {
				return err
			}
			if err := makeData(cfg); err != nil {
				return err
			}
			c, err := dial(cmd.Context(), env, cfg)
			if err != nil {
				return err
			}
			report, err := runImport(cmd, env, c, req)
			if report != nil {
				printReport(env.stdout, report)
			}
			if err == nil {
				err = settle(cmd.Context(), c)
			}
			if err := errors.Join(err, c.close()); err != nil {
				return err
			}
			if i := slices.IndexFunc(report.Files, func(f collect.FileReport) bool { return f.Code != "" }); i >= 0 && report.Accepted == 0 {
				return &exitError{code: exitRefused, err: errors.New("nothing was taken: " + report.Files[i].Err),
					hint: "publish an assessment that covers it: counterseal pia draft --source " + req.Source + " --sample FILE"}
			}
			if strict && report.Failed+report.Refused > 0 {
				return &exitError{code: exitPartial, err: errors.New("not everything was taken")}
			}
			return nil
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&req.Source, "source", "", "the source, as assessments `name` it")
	cmd.Flags().StringVar(&req.Dataset, "dataset", "", "dataset of all records (default: found by their headers)")
	cmd.Flags().StringVar(&req.Zone, "zone", "", "time `zone` of records without one, such as Europe/Berlin (default: the assessment's)")
	cmd.Flags().BoolVar(&strict, "strict", false, "exit 4 when a file or a line was not taken")
	return cmd
}

// settle waits until what was imported can be found, so that the next command does.
func settle(ctx context.Context, c *client) error {
	resp, err := c.do(ctx, http.MethodPost, "/api/v1/settle", nil, nil)
	if err != nil {
		return fmt.Errorf("everything is sealed, but cannot be found yet: %w", err)
	}
	return resp.Body.Close()
}

func runImport(cmd *cobra.Command, env *environment, c *client, req web.ImportRequest) (*collect.Report, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	resp, err := c.do(cmd.Context(), http.MethodPost, "/api/v1/import", nil, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var bar *progressbar.ProgressBar
	if terminal(env.stderr) {
		bar = progressbar.NewOptions64(-1, progressbar.OptionSetWriter(env.stderr), progressbar.OptionShowBytes(true),
			progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	}
	dec := json.NewDecoder(resp.Body)
	for {
		var line web.ImportLine
		if err := dec.Decode(&line); err != nil {
			return nil, fmt.Errorf("the import was cut off; run it again and it goes on: %w", err)
		}
		if line.Progress != nil {
			if bar != nil {
				bar.ChangeMax64(max(line.Progress.Total, 1))
				bar.Describe(event.Printable(line.Progress.Name))
				if err := bar.Set64(line.Progress.Done); err != nil {
					return nil, err
				}
			}
			continue
		}
		if bar != nil {
			if err := bar.Finish(); err != nil {
				return nil, err
			}
		}
		if line.Error != "" {
			code := exitFailed
			if line.Code == "pia_missing" || line.Code == "source_unknown" {
				code = exitRefused
			}
			return line.Report, &exitError{code: code, err: errors.New(line.Error), hint: line.Hint}
		}
		return line.Report, nil
	}
}

func printReport(w io.Writer, r *collect.Report) {
	for _, f := range r.Files {
		if f.Err != "" {
			fmt.Fprintf(w, "%s: %s\n", event.Printable(f.Name), event.Printable(f.Err))
		}
		for _, e := range f.Errors {
			fmt.Fprintf(w, "%s: line %d: %s\n", event.Printable(f.Name), e.Line, event.Printable(e.Reason))
		}
		if f.Damage.Chunks+f.Damage.Records > 0 {
			fmt.Fprintf(w, "%s: %d damaged chunks, %d damaged records\n", event.Printable(f.Name), f.Damage.Chunks, f.Damage.Records)
		}
	}
	fmt.Fprintf(w, "sealed %d records of %d", r.Accepted, r.Frames)
	if r.Repeated > 0 {
		fmt.Fprintf(w, ", %d of them by an earlier run", r.Repeated)
	}
	if r.Refused > 0 {
		fmt.Fprintf(w, "; %d refused", r.Refused)
	}
	if r.Failed > 0 {
		fmt.Fprintf(w, "; %d of %d files not read", r.Failed, len(r.Files))
	}
	fmt.Fprintln(w)
}
