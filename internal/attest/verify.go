package attest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/state"
)

// VerifyOptions are what a verifier of a data directory trusts.
type VerifyOptions struct {
	// Log are the public keys of the log that the verifier trusts. Without them the one
	// that lies in the directory is taken, which shows only that all fits together.
	Log       []string
	Witnesses []ledger.Witness
	Threshold int
	Known     []byte // a checkpoint kept elsewhere
	Progress  func(done, total int64)
}

// Report is what Verify found.
type Report struct {
	Evidence  evidence.Report
	Ledger    ledger.Report
	HasLedger bool // a directory from before there was one has none
	OwnKey    bool // the key of the log was taken from the directory
	Problems  []Problem
	Destroyed []Destroyed // segments that nobody reads again, by statement
}

// OK reports whether nothing is wrong.
func (r *Report) OK() bool {
	return r.Evidence.OK() && r.Ledger.OK() && len(r.Problems) == 0
}

// Verify checks a data directory by its files alone, also beside a running server:
// evidence, ledger, what one says of the other, and the facts in the state file. The
// state is read before the ledger and the ledger before evidence, since each may grow
// meanwhile and knows of the next only what is older.
func Verify(ctx context.Context, dir string, o VerifyOptions) (Report, error) {
	var r Report
	known := NewFolded()
	told, facts, stateErr := state.ReadFacts(ctx, filepath.Join(dir, "state"))
	if _, err := os.Stat(filepath.Join(dir, "ledger", "log")); err == nil {
		r.HasLedger = true
		v := ledger.Verifiers{Log: o.Log, Witnesses: o.Witnesses, Threshold: o.Threshold, Known: o.Known}
		if len(v.Log) == 0 {
			vkey, err := os.ReadFile(filepath.Join(dir, "ledger", "log.vkey"))
			if err != nil {
				return r, fmt.Errorf("verifying the ledger: its public key is not there, give it: %w", err)
			}
			v.Log, r.OwnKey = []string{string(trimLine(vkey))}, true
		}
		then := NewFolded() // when the state had read so far
		v.Each = func(index uint64, s ledger.Statement) {
			known.Add(index, s)
			if index < told {
				then.Add(index, s)
			}
		}
		if r.Ledger, err = ledger.VerifyDir(ctx, filepath.Join(dir, "ledger"), v); err != nil {
			return r, err
		}
		switch {
		case stateErr == nil && r.Ledger.OK(): // else the fold has holes, and what is wrong was said
			r.Problems = append(r.Problems, then.State(told, facts)...)
		case stateErr != nil && !errors.Is(stateErr, fs.ErrNotExist):
			r.Problems = append(r.Problems, Problem{"state/state.db", -1, "it cannot be read: delete it, and the next start makes it again"})
		}
	} else if o.Known != nil || len(o.Log) > 0 {
		return r, fmt.Errorf("verifying the ledger: %w", err)
	}
	heads, bad := known.Known()
	r.Problems = append(r.Problems, bad...)
	var err error
	if r.Evidence, err = evidence.Verify(ctx, dir, evidence.VerifyOptions{Progress: o.Progress, Known: heads}); err != nil {
		return r, err
	}
	if r.HasLedger && r.Ledger.OK() {
		r.Problems = append(r.Problems, known.Segments(r.Evidence.Segments)...)
		r.Destroyed = known.Destroyed(r.Evidence.Segments)
	}
	return r, nil
}

func trimLine(b []byte) []byte {
	for len(b) > 0 && (b[len(b)-1] == '\n' || b[len(b)-1] == '\r') {
		b = b[:len(b)-1]
	}
	return b
}
