package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
)

func newVerify(env *environment) *cobra.Command {
	var f configFlags
	var format string
	cmd := &cobra.Command{
		Use:   "verify [DATA]",
		Short: "Prove from the files alone that no evidence was altered",
		Long: "Verify reads segments only: it needs no key, takes no lock and works beside a running\n" +
			"server. It names the segment and block or record of whatever is wrong.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "table" && format != "jsonl" {
				return usage("--format is table or jsonl")
			}
			dir := ""
			if len(args) == 1 {
				dir = args[0]
			} else {
				cfg, err := f.load()
				if err != nil {
					return err
				}
				dir = cfg.Data
			}
			if _, err := os.Stat(filepath.Join(dir, "evidence")); err != nil {
				return &exitError{code: exitUnknown, err: fmt.Errorf("no evidence at %s", dir)}
			}
			var o evidence.VerifyOptions
			var bar *progressbar.ProgressBar
			if terminal(env.stderr) {
				bar = progressbar.NewOptions64(-1, progressbar.OptionSetWriter(env.stderr), progressbar.OptionShowBytes(true), progressbar.OptionClearOnFinish())
				o.Progress = func(done, total int64) {
					bar.ChangeMax64(max(total, 1))
					bar.Set64(done)
				}
			}
			report, err := evidence.Verify(cmd.Context(), dir, o)
			if bar != nil {
				bar.Finish()
			}
			if err != nil {
				return err
			}
			return printVerify(env, format, &report)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&format, "format", "table", "table or jsonl")
	return cmd
}

func printVerify(env *environment, format string, r *evidence.Report) error {
	if format == "jsonl" {
		enc := json.NewEncoder(env.stdout)
		for i := range r.Segments {
			s := &r.Segments[i]
			if err := enc.Encode(map[string]any{"segment": s.Segment, "stream": s.Stream.String(), "compartment": s.Compartment, "seq": s.Seq, "state": s.State,
				"records": s.Records, "blocks": s.Blocks, "bytes": s.Bytes, "cut": s.Cut, "header": s.HeaderHash, "records_root": s.RecordsRoot, "blocks_root": s.BlocksRoot}); err != nil {
				return err
			}
		}
		for i := range r.Problems {
			p := &r.Problems[i]
			if err := enc.Encode(map[string]any{"problem": p.What, "segment": p.Segment, "stream": p.Stream.String(), "compartment": p.Compartment, "part": p.Part, "block": p.Block, "first": p.First, "n": p.N}); err != nil {
				return err
			}
		}
	} else {
		for i := range r.Problems {
			fmt.Fprintf(env.stdout, "ALTERED %s\n", event.Printable(r.Problems[i].String()))
		}
		for _, n := range r.Notes {
			fmt.Fprintf(env.stdout, "note    %s\n", event.Printable(n))
		}
		for i := range r.Segments {
			if s := &r.Segments[i]; s.Cut > 0 {
				fmt.Fprintf(env.stdout, "note    %s/%s/%s: a torn tail of %d bytes was cut after a crash\n", s.Stream, s.Compartment, s.Segment, s.Cut)
			}
		}
		fmt.Fprintf(env.stdout, "%d segments, %d blocks, %d records, %d bytes", len(r.Segments), r.Blocks, r.Records, r.Bytes)
		if r.OK() {
			fmt.Fprint(env.stdout, ": nothing altered")
		}
		fmt.Fprintln(env.stdout)
	}
	if !r.OK() {
		return &exitError{code: exitFailed, err: errors.New("evidence was altered or damaged")}
	}
	return nil
}
