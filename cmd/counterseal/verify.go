package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/vault"
)

// trustFlags are the keys that a verifier trusts, which came by another way than what
// it verifies.
type trustFlags struct {
	logs, witnesses []string
	threshold       int
}

func (t *trustFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&t.logs, "log", nil, "`vkey` of the log, known from elsewhere; repeats")
	cmd.Flags().StringArrayVar(&t.witnesses, "witness", nil, "`vkey` of a witness; repeats")
	cmd.Flags().IntVar(&t.threshold, "threshold", 0, "how many witnesses must have cosigned (default all that are named)")
}

// verifiers turns the flags into what is trusted.
func (t *trustFlags) verifiers() ledger.Verifiers {
	v := ledger.Verifiers{Log: t.logs, Threshold: t.threshold}
	for _, w := range t.witnesses {
		v.Witnesses = append(v.Witnesses, ledger.Witness{VKey: w})
	}
	if v.Threshold == 0 {
		v.Threshold = len(v.Witnesses)
	}
	return v
}

// check says which of the keys is malformed.
func (t *trustFlags) check() error {
	for _, k := range t.logs {
		if err := checkVKey("--log", k); err != nil {
			return err
		}
	}
	for _, k := range t.witnesses {
		if err := checkWitnessVKey("--witness", k); err != nil {
			return err
		}
	}
	return nil
}

func newVerify(env *environment) *cobra.Command {
	var f configFlags
	var trust trustFlags
	var format, checkpoint string
	cmd := &cobra.Command{
		Use:   "verify [DATA]",
		Short: "Prove from the files alone that nothing was altered",
		Long: "Verify reads evidence, ledger, state and the sealed names: it needs no key, takes no lock and works beside\n" +
			"a running server. It names the segment and block, the statement or the file of whatever\n" +
			"is wrong. The key of the log comes from the directory unless --log gives one: then it\n" +
			"also shows that nobody wrote the whole anew. A checkpoint that was kept elsewhere, or\n" +
			"the key of a witness, shows that the end was not cut off.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "table" && format != "jsonl" {
				return usage("--format is table or jsonl")
			}
			if err := trust.check(); err != nil { // so nothing can be judged
				var x *exitError
				if errors.As(err, &x) {
					x.code = exitUnknown
				}
				return err
			}
			v := trust.verifiers()
			dir := ""
			if len(args) == 1 {
				dir = args[0]
				// The folder of a configuration says where its data lies, as --data does.
				if _, err := os.Stat(filepath.Join(dir, configName)); err == nil {
					cfg, err := readConfig(filepath.Join(dir, configName))
					if err != nil {
						return err
					}
					dir = cfg.Data
				}
			} else {
				cfg, err := f.load()
				if err != nil {
					return err
				}
				dir = cfg.Data
				if o := cfg.ledger(); len(trust.witnesses) == 0 && len(o.Witnesses) > 0 {
					v.Witnesses = o.Witnesses
					// Those of the configuration may not have answered yet: that is said and is no
					// fault. With --witness it is one.
					if _, err := os.Stat(filepath.Join(dir, "ledger", "witnessed")); err == nil && v.Threshold == 0 {
						v.Threshold = cmp.Or(o.Threshold, groups(o.Witnesses))
					}
				}
			}
			if _, err := os.Stat(filepath.Join(dir, "evidence")); err != nil {
				return &exitError{code: exitUnknown, err: fmt.Errorf("no evidence at %s", dir), hint: "name it with --data, or begin with: counterseal demo"}
			}
			o := attest.VerifyOptions{Log: v.Log, Witnesses: v.Witnesses, Threshold: v.Threshold}
			if checkpoint != "" {
				var err error
				if o.Known, err = readFile(checkpoint, "--checkpoint", "it is a copy of ledger/log/checkpoint that was kept elsewhere"); err != nil {
					return err
				}
			}
			var bar *progressbar.ProgressBar
			if terminal(env.stderr) {
				bar = progressbar.NewOptions64(-1, progressbar.OptionSetWriter(env.stderr), progressbar.OptionShowBytes(true), progressbar.OptionClearOnFinish())
				o.Progress = func(done, total int64) {
					bar.ChangeMax64(max(total, 1))
					bar.Set64(done)
				}
			}
			report, err := attest.Verify(cmd.Context(), dir, o)
			if bar != nil {
				bar.Finish()
			}
			if err != nil {
				return &exitError{code: exitUnknown, err: err}
			}
			if format == "jsonl" {
				err = linesOfVerify(env.stdout, &report)
			} else {
				printVerify(env.stdout, &report)
			}
			if err == nil && !report.OK() {
				err = &exitError{code: exitFailed, err: errors.New("something was altered or damaged")}
			}
			return err
		},
	}
	f.add(cmd)
	trust.add(cmd)
	cmd.Flags().StringVar(&checkpoint, "checkpoint", "", "`file` of a checkpoint that was kept elsewhere: the log must hold at least it")
	cmd.Flags().StringVar(&format, "format", "table", "table or jsonl")
	return cmd
}

// groups counts the parties that run witnesses.
func groups(all []ledger.Witness) int {
	seen := map[string]bool{}
	n := 0
	for _, w := range all {
		if w.Group == "" || !seen[w.Group] {
			n++
		}
		seen[w.Group] = true
	}
	return n
}

func linesOfVerify(w io.Writer, r *attest.Report) error {
	enc := json.NewEncoder(w)
	for i := range r.Evidence.Segments {
		s := &r.Evidence.Segments[i]
		if err := enc.Encode(map[string]any{"segment": s.Segment, "stream": s.Stream.String(), "compartment": s.Compartment, "seq": s.Seq, "state": s.State,
			"records": s.Records, "blocks": s.Blocks, "bytes": s.Bytes, "cut": s.Cut, "header": s.HeaderHash, "records_root": s.RecordsRoot, "blocks_root": s.BlocksRoot, "key": s.HasKey}); err != nil {
			return err
		}
	}
	for i := range r.Evidence.Problems {
		p := &r.Evidence.Problems[i]
		if err := enc.Encode(map[string]any{"problem": p.What, "segment": p.Segment, "stream": p.Stream.String(), "compartment": p.Compartment, "part": p.Part, "block": p.Block, "first": p.First, "n": p.N}); err != nil {
			return err
		}
	}
	for _, f := range r.Ledger.Findings {
		if err := enc.Encode(map[string]any{"problem": f.What, "file": "ledger/" + f.File, "statement": f.Index}); err != nil {
			return err
		}
	}
	for _, p := range r.Problems {
		if err := enc.Encode(map[string]any{"problem": p.What, "object": p.Object, "statement": p.Index}); err != nil {
			return err
		}
	}
	for _, d := range r.Destroyed {
		if err := enc.Encode(map[string]any{"destroyed": d.Object, "rule": d.Rule, "at": d.At, "statement": d.Index}); err != nil {
			return err
		}
	}
	if r.HasLedger {
		l := &r.Ledger
		if err := enc.Encode(map[string]any{"vault": vault.File, "windows": r.Vault.Windows, "rows": r.Vault.Rows, "erased": r.Vault.Erased}); err != nil {
			return err
		}
		return enc.Encode(map[string]any{"ledger": l.Origin, "statements": l.Size, "published": l.Published, "witnessed": l.Witnessed, "pending": l.Pending, "own_key": r.OwnKey})
	}
	return nil
}

func printVerify(w io.Writer, r *attest.Report) {
	for i := range r.Evidence.Problems {
		fmt.Fprintf(w, "ALTERED %s\n", event.Printable(r.Evidence.Problems[i].String()))
	}
	for _, f := range r.Ledger.Findings {
		fmt.Fprintf(w, "ALTERED ledger/%s\n", event.Printable(f.String()))
	}
	if r.Ledger.More > 0 {
		fmt.Fprintf(w, "ALTERED ledger: %d more\n", r.Ledger.More)
	}
	for _, p := range r.Problems {
		fmt.Fprintf(w, "ALTERED %s\n", event.Printable(p.String()))
	}
	for _, n := range r.Evidence.Notes {
		fmt.Fprintf(w, "note    %s\n", event.Printable(n))
	}
	e := &r.Evidence
	for i := range e.Segments {
		if s := &e.Segments[i]; s.Cut > 0 {
			fmt.Fprintf(w, "note    %s/%s/%s: a torn tail of %d bytes was cut after a crash\n", s.Stream, s.Compartment, s.Segment, s.Cut)
		}
	}
	for _, d := range r.Destroyed {
		fmt.Fprintf(w, "note    %s\n", event.Printable(d.String()))
	}
	for _, n := range r.Vault.Notes {
		fmt.Fprintf(w, "note    %s\n", event.Printable(n))
	}
	if r.HasLedger {
		l := &r.Ledger
		switch {
		case l.Witnessed > 0 && l.Witnessed < l.Size:
			fmt.Fprintf(w, "note    no witness has seen the last %d of %d statements\n", l.Size-l.Witnessed, l.Size)
		case l.Witnessed == 0:
			fmt.Fprintf(w, "note    no witness has seen the ledger: whoever holds its key could write it anew\n")
		}
		if n := len(r.Earlier); n > 0 {
			fmt.Fprintf(w, "note    the log succeeds %d earlier log%s, closed by two people\n", n, map[bool]string{false: "s"}[n == 1])
		}
		if l.Pending > 0 {
			fmt.Fprintf(w, "note    %d statements wait for the next start\n", l.Pending)
		}
		if r.OwnKey {
			fmt.Fprintln(w, "note    the key of the log is the one in the directory; give the one that you know with --log")
		}
	} else {
		fmt.Fprintln(w, "note    there is no ledger: whole segments may have been taken away")
	}
	fmt.Fprintf(w, "%d segments, %d blocks, %d records, %d bytes", len(e.Segments), e.Blocks, e.Records, e.Bytes)
	if r.HasLedger {
		fmt.Fprintf(w, ", %d statements", r.Ledger.Size)
	}
	if r.Vault.Rows > 0 || r.Vault.Erased > 0 {
		fmt.Fprintf(w, ", %d sealed names", r.Vault.Rows)
	}
	if r.Vault.Erased > 0 {
		fmt.Fprintf(w, " and %d erased", r.Vault.Erased)
	}
	if r.OK() {
		fmt.Fprint(w, ": nothing altered")
	}
	fmt.Fprintln(w)
}
