package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/officer"
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

// Record is the ledger of a data directory with the state that it is folded into.
type Record struct {
	*attest.Recorder
	State *state.DB
}

// Close closes both.
func (r *Record) Close() error { return errors.Join(r.Recorder.Close(), r.State.Close()) }

// OpenRecord opens ledger and state of a data directory that the caller has locked: for
// what is done while no server runs. now is nil for the clock.
func OpenRecord(ctx context.Context, dir string, keys keyring.Holder, o LedgerOptions, log *slog.Logger, now func() time.Time) (r *Record, err error) {
	if err := SettleSuccession(dir); err != nil {
		return nil, err
	}
	if err := ledgerThere(dir); err != nil {
		return nil, err
	}
	before, err := openBefore(dir, keys, o)
	if err != nil {
		return nil, err
	}
	key, err := logKey(keys)
	if err != nil {
		return nil, err
	}
	origin := Origin(keys.ID().String(), len(before))
	vkey, err := ledger.VKey(origin, key.Public())
	if err != nil {
		return nil, err
	}
	r = &Record{}
	if r.State, err = state.Open(filepath.Join(dir, "state")); err != nil {
		return nil, err
	}
	at := filepath.Join(dir, ledgerDir)
	r.Recorder, err = attest.Open(ctx, attest.Options{
		State: r.State, Log: log, Before: before,
		Ledger: ledger.Options{Dir: at, Origin: origin, Key: key, Node: node, Witnesses: o.Witnesses, Threshold: o.Threshold, Now: now},
	})
	if err != nil {
		return nil, errors.Join(err, r.State.Close())
	}
	var disk durable.FS
	if err := disk.WriteFile(filepath.Join(at, vkeyName), []byte(vkey+"\n"), 0o644); err != nil {
		return nil, errors.Join(fmt.Errorf("writing the public key of the log: %w", err), r.Close())
	}
	for purpose, id := range map[string]string{"ledger": keyID(vkey), "keyring": keys.ID().String()} {
		_, known, err := r.Fact(ctx, "key.made", id)
		if err == nil && !known {
			_, err = r.Record(ctx, attest.Act{Kind: "key.made", Actor: attest.System, Subject: []string{id}, Detail: map[string]any{"purpose": purpose, "key": id}})
		}
		if err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	return r, nil
}

// ledgerThere refuses a directory whose VERSION names a ledger that is gone: a new one
// would hide that.
func ledgerThere(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "VERSION"))
	if err != nil || !strings.Contains(string(text), "\nledger ") {
		return nil // before the first start is over, or from before there was a ledger
	}
	if _, err := os.Stat(filepath.Join(dir, ledgerDir, "log")); err != nil {
		return fmt.Errorf("the ledger of %s is gone, restore it from a copy: %w", dir, err)
	}
	return nil
}

// openRecord opens ledger and state. Both come before evidence, since a segment takes
// no record before the ledger knows it.
func (p *Pipeline) openRecord(ctx context.Context, o LedgerOptions) error {
	r, err := OpenRecord(ctx, p.dir, p.keyring, o, p.log, p.now)
	if err != nil {
		return err
	}
	p.recorder, p.state = r.Recorder, r.State
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
	if err := p.stateEnds(ctx); err != nil {
		return err
	}
	recording, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.stopRecord = stop
	p.record.Add(3)
	go p.tendVault(recording)
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
				if err := errors.Join(p.stateWindows(recording), p.stateEnds(recording)); err != nil && recording.Err() == nil {
					p.log.Error("what the sources sent and what has ended could not be stated; tried again", "err", err)
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
	err := errors.Join(p.segments.Flush(ctx, p.evidence), p.stateWindows(ctx), p.vault.CloseWindow(ctx))
	if p.leaving != "" && err == nil {
		_, err = p.recorder.Record(ctx, attest.Act{Kind: "server.stop", Actor: attest.System, Subject: []string{node}, Detail: map[string]any{"reason": p.leaving}})
	}
	return errors.Join(err, p.recorder.Close())
}

// Recorder is the ledger with its projection, for statements about acts of people.
func (p *Pipeline) Recorder() *attest.Recorder { return p.recorder }

// Start is what a server runs with. The digests are SHA-256 in hex.
type Start struct {
	Binary, Config string
	Policy         string // of the access policies
	Offices        string // of the record of offices; empty: none is configured
	Version, Actor string
}

// Started states that a server of this binary and configuration runs, with what is in
// force; Close then states that it stopped.
func (p *Pipeline) Started(ctx context.Context, s Start) error {
	p.policyMu.RLock()
	rules, documents := p.policy.rules.Digest(), p.policy.digest
	p.policyMu.RUnlock()
	for _, one := range [][3]string{{"config.activated", "config", s.Config}, {"policy.activated", "policy", s.Policy}, {"offices.activated", "offices", s.Offices}} {
		if err := p.Activated(ctx, one[0], one[1], one[2], s.Actor); err != nil {
			return err
		}
	}
	_, err := p.recorder.Record(ctx, attest.Act{
		Kind: "server.start", Actor: s.Actor, Subject: []string{node},
		Detail: map[string]any{"binary": s.Binary, "config": s.Config, "rules": rules, "policy": s.Policy, "documents": documents, "version": s.Version},
	})
	if err == nil {
		p.leaving = "asked"
	}
	return err
}

// Activated states that a document is in force from now on, if the last one was
// another. An empty digest says that there is none.
func (p *Pipeline) Activated(ctx context.Context, kind, key, digest, actor string) error {
	before, ok, err := p.recorder.Fact(ctx, kind, key)
	if err != nil || !ok && digest == "" || ok && strings.Contains(string(before.Detail), `"`+digest+`"`) {
		return err
	}
	_, err = p.recorder.Record(ctx, attest.Act{Kind: kind, Actor: actor, Subject: []string{key}, Detail: map[string]any{"digest": digest}})
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

// Officers states who has come into office and who has left it. nil: nobody is.
func (p *Pipeline) Officers(ctx context.Context, r *officer.Roster) error {
	enrolled, err := p.recorder.Facts(ctx, "officer.enrolled")
	if err != nil {
		return err
	}
	retired, err := p.recorder.Facts(ctx, "officer.retired")
	if err != nil {
		return err
	}
	office := make(map[string]string)
	for _, f := range enrolled {
		var d struct{ Office string }
		if err := json.Unmarshal(f.Detail, &d); err != nil {
			return err
		}
		office[f.Key] = d.Office
	}
	left := inForce(enrolled, retired)
	if r != nil {
		for i := range r.Officers {
			o := &r.Officers[i]
			id := o.Card.ID()
			if left[id] {
				delete(left, id)
				continue
			}
			detail := map[string]any{"office": string(o.Card.Office), "key": id, "spare": o.Card.Spare}
			if o.Inspector {
				detail["inspector"] = true
			}
			if o.Duty {
				detail["duty"] = true
			}
			if _, err := p.recorder.Record(ctx, attest.Act{Kind: "officer.enrolled", Actor: attest.System, Subject: []string{id}, Detail: detail}); err != nil {
				return err
			}
		}
	}
	for _, id := range sortedKeys(left) {
		if _, err := p.recorder.Record(ctx, attest.Act{Kind: "officer.retired", Actor: attest.System, Subject: []string{id}, Detail: map[string]any{"office": office[id], "key": id}}); err != nil {
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
	if err := p.stateFirst(ctx, pol); err != nil {
		return err
	}
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
	return p.stateStanding(ctx, &pol.standing)
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

// stateEnds states what ended by its time: requests that nobody decided, and openings.
func (p *Pipeline) stateEnds(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	now := p.now()
	decided, err := p.recorder.Facts(ctx, "approval.decided")
	if err != nil {
		return err
	}
	refused := make(map[string]bool)
	for _, f := range decided {
		var d struct{ Request, Decision string }
		if json.Unmarshal(f.Detail, &d) == nil && d.Decision == string(approval.Refuse) {
			refused[d.Request] = true
		}
	}
	over := func(begun, ended, other string, end func(state.Fact) (time.Time, error), detail func(state.Fact) any) error {
		facts, err := p.recorder.Facts(ctx, begun)
		if err != nil {
			return err
		}
		for _, f := range facts {
			var d struct{ Request string }
			if json.Unmarshal(f.Detail, &d) == nil && d.Request != "" && d.Request != f.Key { // a segment of it
				continue
			}
			done := refused[f.Key]
			for _, kind := range []string{ended, other} {
				_, ok, err := p.recorder.Fact(ctx, kind, f.Key)
				if err != nil {
					return err
				}
				done = done || ok
			}
			if done {
				continue
			}
			at, err := end(f)
			if err != nil || now.Before(at) {
				continue // one that cannot be read ends nothing
			}
			if _, err := p.recorder.Record(ctx, attest.Act{Kind: ended, Actor: attest.System, Subject: []string{f.Key}, Detail: detail(f)}); err != nil {
				return err
			}
		}
		return nil
	}
	request := func(f state.Fact) any { return map[string]any{"request": f.Key} }
	return errors.Join(
		over("approval.requested", "approval.expired", "approval.used", func(f state.Fact) (time.Time, error) {
			var d struct{ Act, Expires string }
			if err := json.Unmarshal(f.Detail, &d); err != nil || d.Act == "" {
				return time.Time{}, errors.New("no request")
			}
			if _, err := uuid.Parse(f.Key); err != nil {
				return time.Time{}, err
			}
			return time.Parse(time.RFC3339, d.Expires)
		}, request),
		over("unlock.opened", "unlock.closed", "unlock.closed", func(f state.Fact) (time.Time, error) {
			var d struct{ Minutes int64 }
			err := json.Unmarshal(f.Detail, &d)
			return f.Time.Add(time.Duration(d.Minutes) * time.Minute), err
		}, request),
	)
}
