package pipeline

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/state"
)

// LedgerOptions say who watches the ledger of a pipeline.
type LedgerOptions struct {
	Witnesses []ledger.Witness
	Threshold int // groups of witnesses that a checkpoint needs; 0: all

	RunBy        string   // who administers this server
	Certificates []string // PEM files of this server: who signed them must not sign a witness
}

// Names under which the files of a data directory know each other.
const (
	ledgerDir = "ledger"
	vkeyName  = "log.vkey" // the public key of the log, in ledger/
	node      = "n1"       // one node writes
)

// Origin names the log of an organisation.
func Origin(org string) string { return "counterseal/" + org }

// openRecord opens ledger and state. Both come before evidence, since a segment takes
// no record before the ledger knows it.
func (p *Pipeline) openRecord(ctx context.Context, o LedgerOptions) error {
	signer, err := p.keyring.Signer("ledger", 1)
	if err != nil {
		return err
	}
	key, ok := signer.(ed25519.PrivateKey)
	if !ok {
		return errors.New("the key of the ledger is not kept in this keyring")
	}
	origin := Origin(p.keyring.ID().String())
	if p.state, err = state.Open(filepath.Join(p.dir, "state")); err != nil {
		return err
	}
	dir := filepath.Join(p.dir, ledgerDir)
	p.recorder, err = attest.Open(ctx, attest.Options{
		State: p.state, Log: p.log,
		Ledger: ledger.Options{Dir: dir, Origin: origin, Key: key, Node: node, Witnesses: o.Witnesses, Threshold: o.Threshold, Now: p.now},
	})
	if err != nil {
		return errors.Join(err, p.state.Close())
	}
	vkey, err := ledger.VKey(origin, key.Public().(ed25519.PublicKey))
	if err == nil {
		var disk durable.FS
		err = disk.WriteFile(filepath.Join(dir, vkeyName), []byte(vkey+"\n"), 0o644)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing the public key of the log: %w", err), p.recorder.Close(), p.state.Close())
	}
	p.watch = o
	p.segments = p.recorder.Segments()
	p.windows = windows{from: p.now().UTC(), admitted: make(map[string]int64), refused: make(map[[2]string]int64)}
	return nil
}

// startRecord states what is there and begins to state what comes.
func (p *Pipeline) startRecord(ctx context.Context, o LedgerOptions) error {
	if err := p.segments.Reconcile(ctx, p.evidence); err != nil {
		return err
	}
	if err := p.stateWitnesses(ctx, o.Witnesses); err != nil {
		return err
	}
	if err := p.stateDocuments(ctx, p.policy); err != nil {
		return err
	}
	recording, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.stopRecord = stop
	p.record.Add(2)
	go func() {
		defer p.record.Done()
		p.segments.Run(recording, p.evidence)
	}()
	go func() {
		defer p.record.Done()
		tick := time.NewTicker(windowLength)
		defer tick.Stop()
		for {
			select {
			case <-recording.Done():
				return
			case <-tick.C:
				if err := p.stateWindows(recording); err != nil && recording.Err() == nil {
					p.log.Error("what the sources sent could not be stated; tried again", "err", err)
				}
			}
		}
	}()
	return nil
}

// closeRecord states the rest. Evidence is closed, and nothing follows.
func (p *Pipeline) closeRecord(ctx context.Context) error {
	p.stopRecord()
	p.record.Wait()
	err := errors.Join(p.segments.Flush(ctx, p.evidence), p.stateWindows(ctx))
	if p.leaving != "" && err == nil {
		_, err = p.recorder.Record(ctx, attest.Act{Kind: "server.stop", Actor: attest.System, Subject: []string{node}, Detail: map[string]any{"reason": p.leaving}})
	}
	return errors.Join(err, p.recorder.Close())
}

// Recorder is the ledger with its projection, for statements about acts of people.
func (p *Pipeline) Recorder() *attest.Recorder { return p.recorder }

// Started states that a server of this binary and configuration runs, with what is in
// force; Close then states that it stopped. The digests are SHA-256 in hex.
func (p *Pipeline) Started(ctx context.Context, binary, config, version, actor string) error {
	p.policyMu.RLock()
	rules, policy := p.policy.rules.Digest(), p.policy.digest
	p.policyMu.RUnlock()
	_, err := p.recorder.Record(ctx, attest.Act{
		Kind: "server.start", Actor: actor, Subject: []string{node},
		Detail: map[string]any{"binary": binary, "config": config, "rules": rules, "policy": policy, "version": version},
	})
	if err == nil {
		p.leaving = "asked"
	}
	return err
}

// stateWitnesses states which witnesses are asked from now on and which no more.
func (p *Pipeline) stateWitnesses(ctx context.Context, now []ledger.Witness) error {
	added, err := p.recorder.Facts(ctx, "witness.added")
	if err != nil {
		return err
	}
	removed, err := p.recorder.Facts(ctx, "witness.removed")
	if err != nil {
		return err
	}
	asked := inForce(added, removed)
	for _, w := range now {
		key := keyID(w.VKey)
		if asked[key] {
			delete(asked, key)
			continue
		}
		if _, err := p.recorder.Record(ctx, attest.Act{Kind: "witness.added", Actor: attest.System, Subject: []string{key}, Detail: map[string]any{"vkey": w.VKey}}); err != nil {
			return err
		}
	}
	for _, key := range sortedKeys(asked) {
		if _, err := p.recorder.Record(ctx, attest.Act{Kind: "witness.removed", Actor: attest.System, Subject: []string{key}, Detail: map[string]any{"vkey": key}}); err != nil {
			return err
		}
	}
	return nil
}

// keyID is the part of a vkey that fits a word: its digest.
func keyID(vkey string) string {
	sum := sha256.Sum256([]byte(vkey))
	return hex.EncodeToString(sum[:])
}

// inForce gives the keys that were begun and not ended after it.
func inForce(begun, ended []state.Fact) map[string]bool {
	force := make(map[string]bool)
	for _, f := range begun {
		force[f.Key] = true
		for _, e := range ended {
			if e.Key == f.Key && e.Index > f.Index {
				delete(force, f.Key)
			}
		}
	}
	return force
}

// stateDocuments states what comes into force with a policy, before it does.
func (p *Pipeline) stateDocuments(ctx context.Context, pol *policy) error {
	var acts []attest.Act
	for _, one := range []struct{ kind, key, digest string }{
		{"rules.activated", "rules", pol.rules.Digest()},
		{"lists.activated", "protected", pol.context.Protected},
		{"lists.activated", "directory", pol.context.Directory},
	} {
		f, ok, err := p.recorder.Fact(ctx, one.kind, one.key)
		if err != nil {
			return err
		}
		if ok && strings.Contains(string(f.Detail), `"`+one.digest+`"`) {
			continue
		}
		detail := map[string]any{"digest": one.digest}
		if one.kind == "lists.activated" {
			detail["list"] = one.key
		}
		acts = append(acts, attest.Act{Kind: one.kind, Actor: attest.System, Subject: []string{one.key}, Detail: detail})
	}
	begun, err := p.recorder.Facts(ctx, "pia.activated")
	if err != nil {
		return err
	}
	ended, err := p.recorder.Facts(ctx, "pia.retired")
	if err != nil {
		return err
	}
	open := inForce(begun, ended)
	for _, digest := range pol.context.PIAs {
		if open[digest] {
			delete(open, digest)
			continue
		}
		acts = append(acts, attest.Act{Kind: "pia.activated", Actor: attest.System, Subject: []string{digest}, Detail: map[string]any{"digest": digest}})
	}
	for _, digest := range sortedKeys(open) {
		acts = append(acts, attest.Act{Kind: "pia.retired", Actor: attest.System, Subject: []string{digest}, Detail: map[string]any{"digest": digest}})
	}
	for _, a := range acts {
		if _, err := p.recorder.Record(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

// windowLength is how often the ledger hears what each source sent.
const windowLength = 10 * time.Minute

// windows counts what was sealed and refused since the last statement about it. What
// is withheld for a protected channel is not counted anywhere.
type windows struct {
	mu       sync.Mutex
	from     time.Time
	admitted map[string]int64    // by source
	refused  map[[2]string]int64 // by source and code
}

// elsewhere stands for sources that no assessment names: their words are the sender's.
const elsewhere = "unknown"

func (w *windows) admit(source string, n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.admitted[source] += n
}

func (w *windows) refuse(source, code string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refused[[2]string{source, code}]++
}

// stateWindows makes one statement for each source and, where something was refused,
// for each reason.
func (p *Pipeline) stateWindows(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx) // a statement that was begun is waited for, or it would be made twice
	w := &p.windows
	now := p.now().UTC()
	w.mu.Lock()
	from, admitted, refused := w.from, w.admitted, w.refused
	w.from, w.admitted, w.refused = now, make(map[string]int64), make(map[[2]string]int64)
	w.mu.Unlock()
	form := func(t time.Time) string { return t.Format(time.RFC3339Nano) }
	back := func() { // what was not stated counts for the next window
		w.mu.Lock()
		defer w.mu.Unlock()
		w.from = from
		for k, n := range admitted {
			w.admitted[k] += n
		}
		for k, n := range refused {
			w.refused[k] += n
		}
	}
	for _, source := range sortedKeys(admitted) {
		if _, err := p.recorder.Record(ctx, attest.Act{
			Kind: "source.admitted", Actor: attest.System, Subject: sourceWord(source),
			Detail: map[string]any{"source": source, "from": form(from), "to": form(now), "records": admitted[source]},
		}); err != nil {
			back()
			return err
		}
		delete(admitted, source)
	}
	keys := make([][2]string, 0, len(refused))
	for k := range refused {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b [2]string) int { return strings.Compare(a[0]+"\x00"+a[1], b[0]+"\x00"+b[1]) })
	for _, k := range keys {
		if _, err := p.recorder.Record(ctx, attest.Act{
			Kind: "source.refused", Actor: attest.System, Subject: sourceWord(k[0]),
			Detail: map[string]any{"source": k[0], "from": form(from), "to": form(now), "records": refused[k], "reason": k[1]},
		}); err != nil {
			back()
			return err
		}
		delete(refused, k)
	}
	return nil
}

// sourceWord is a source as the subject of a statement, where its name is a word.
func sourceWord(source string) []string {
	if ledger.IsWord(source) {
		return []string{source}
	}
	return nil
}

// sourceName is a source as a statement may name it: one of an assessment in force,
// and without a person's name.
func sourceName(pol *policy, source string) string {
	if _, known := pol.sources[source]; !known {
		return elsewhere
	}
	return nameless(pol, source)
}

// Originals are the segments of originals of a compartment into which something was
// sealed between two times, oldest first. An open segment is not among them.
func (p *Pipeline) Originals(compartment string, from, to time.Time) ([]uuid.UUID, error) {
	infos, err := p.evidence.Segments(evidence.Originals, compartment)
	if err != nil {
		return nil, err
	}
	var ids []uuid.UUID
	for _, in := range infos {
		if in.State == "closed" && !in.First.IsZero() && in.First.Before(to) && !in.Last.Before(from) {
			ids = append(ids, in.Segment)
		}
	}
	return ids, nil
}
