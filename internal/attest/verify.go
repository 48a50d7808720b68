package attest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/state"
	"github.com/counterseal/counterseal/internal/vault"
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
	HasLedger bool            // a directory from before there was one has none
	OwnKey    bool            // the key of the log was taken from the directory
	Earlier   []ledger.Report // of the logs that it succeeds, oldest first
	Problems  []Problem
	Destroyed []Destroyed  // segments that nobody reads again, by statement
	Vault     vault.Report // rows and windows of sealed names; what is wrong is in Problems
}

// OK reports whether nothing is wrong.
func (r *Report) OK() bool {
	return r.Evidence.OK() && r.Ledger.OK() && len(r.Problems) == 0
}

// Verify checks a data directory by its files alone, also beside a running server:
// evidence, ledger, what one says of the other, the facts in the state file, and the vault.
// State and vault are read before the ledger and the ledger before evidence, since each may
// grow meanwhile and knows of the next only what is older.
func Verify(ctx context.Context, dir string, o VerifyOptions) (Report, error) {
	var r Report
	known := NewFolded()
	told, facts, stateErr := state.ReadFacts(ctx, filepath.Join(dir, "state"))
	names, vaultErr := vault.Look(ctx, dir)
	if names != nil {
		defer names.Close()
	}
	then := NewFolded() // when the state had read so far
	base := uint64(0)
	var first *ledger.Statement  // of the log that is read
	var officers map[string]bool // in office before it
	each := func(index uint64, s ledger.Statement) {
		if first == nil {
			first = &s
		}
		known.Add(base+index, s)
		if base+index < told {
			then.Add(base+index, s)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "ledger", "log")); err == nil {
		r.HasLedger = true
		var before []ledger.Report
		for n := 1; ; n++ {
			at := filepath.Join("ledger.before", strconv.Itoa(n))
			if _, err := os.Stat(filepath.Join(dir, at)); err != nil {
				break
			}
			first, officers = nil, known.officers()
			rep, err := r.log(ctx, dir, at, VerifyOptions{Log: o.Log, Witnesses: o.Witnesses}, each)
			if err != nil {
				return r, err
			}
			r.follows(dir, officers, before, at, first)
			for _, f := range rep.Findings {
				r.Problems = append(r.Problems, Problem{at + "/" + f.File, f.Index, f.What})
			}
			before = append(before, rep)
			base += rep.Size
		}
		first, officers = nil, known.officers()
		if r.Ledger, err = r.log(ctx, dir, "ledger", o, each); err != nil {
			return r, err
		}
		r.follows(dir, officers, before, "ledger", first)
		r.Earlier = before
		switch {
		case stateErr == nil && r.OK(): // else the fold has holes, and what is wrong was said
			r.Problems = append(r.Problems, then.State(told, facts)...)
		case stateErr != nil && !errors.Is(stateErr, fs.ErrNotExist):
			r.Problems = append(r.Problems, Problem{"state/state.db", -1, "it cannot be read: delete it, and the next start makes it again"})
		}
	} else if text, err := os.ReadFile(filepath.Join(dir, "VERSION")); err == nil && strings.Contains(string(text), "\nledger ") {
		r.Problems = append(r.Problems, Problem{"ledger", -1, "VERSION names a ledger and it is not there: it was taken away"})
	} else if o.Known != nil || len(o.Log) > 0 {
		return r, fmt.Errorf("verifying the ledger: %w", err)
	}
	heads, bad := known.Known()
	r.Problems = append(r.Problems, bad...)
	var err error
	if r.Evidence, err = evidence.Verify(ctx, dir, evidence.VerifyOptions{Progress: o.Progress, Known: heads}); err != nil {
		return r, err
	}
	if r.HasLedger && r.Ledger.OK() && sound(r.Earlier) {
		since := NewFolded()
		if known.unknown(r.Evidence.Segments) { // begun since the ledger was read, or put in
			rep, err := r.log(ctx, dir, "ledger", o, since.Add)
			if err != nil {
				return r, err
			}
			if !rep.OK() {
				since, r.Ledger = NewFolded(), rep
			}
		}
		if err := r.vault(ctx, dir, known, names, vaultErr); err != nil {
			return r, err
		}
		r.signatures(known, r.payloads(dir))
		r.Problems = append(r.Problems, known.Segments(r.Evidence.Segments, since)...)
		r.Destroyed = known.Destroyed(r.Evidence.Segments)
	}
	return r, nil
}

// log verifies one log with the keys that the options have for it, else with the one
// that lies beside it.
func (r *Report) log(ctx context.Context, dir, at string, o VerifyOptions, each func(uint64, ledger.Statement)) (ledger.Report, error) {
	b, err := os.ReadFile(filepath.Join(dir, at, "log.vkey"))
	if err != nil && len(o.Log) == 0 {
		return ledger.Report{}, fmt.Errorf("verifying the ledger: its public key is not there, give it: %w", err)
	}
	own := strings.TrimSpace(string(b))
	v := ledger.Verifiers{Witnesses: o.Witnesses, Threshold: o.Threshold, Known: o.Known, Each: each}
	origin, _, _ := strings.Cut(own, "+")
	for _, k := range o.Log {
		if name, _, _ := strings.Cut(k, "+"); name == origin || at == "ledger" && len(o.Log) == 1 {
			v.Log = append(v.Log, k)
		}
	}
	if len(v.Log) == 0 {
		v.Log, r.OwnKey = []string{own}, true
	}
	return ledger.VerifyDir(ctx, filepath.Join(dir, at), v)
}

// follows checks that a log begins with what two officers signed about the one before.
// officers are those in office by the logs before it.
func (r *Report) follows(dir string, officers map[string]bool, before []ledger.Report, at string, first *ledger.Statement) {
	if len(before) == 0 {
		if first != nil && first.Kind == "log.succeeded" {
			r.Problems = append(r.Problems, Problem{at, 0, "it succeeds a log that is not there"})
		}
		return
	}
	last := before[len(before)-1]
	if first == nil || first.Kind != "log.succeeded" {
		r.Problems = append(r.Problems, Problem{at, 0, "it does not say which log it succeeds"})
		return
	}
	var d struct {
		Origin, Root string
		Size         uint64
	}
	if err := json.Unmarshal(first.Detail, &d); err != nil || d.Origin != last.Origin || d.Size != last.Size || d.Root != last.Root {
		r.Problems = append(r.Problems, Problem{at, 0, "the log before it is not the one that it succeeds"})
		return
	}
	payload := func(d ledger.Digest) ([]byte, error) { return ledger.ReadPayload(filepath.Join(dir, at), d) }
	if err := succession(first, payload, officers); err != nil {
		r.Problems = append(r.Problems, Problem{at, 0, err.Error()})
	}
}

func sound(logs []ledger.Report) bool {
	for i := range logs {
		if !logs[i].OK() {
			return false
		}
	}
	return true
}
