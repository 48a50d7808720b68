package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/pia"
)

// Evidence is the open store, for what ends the life of segments.
func (p *Pipeline) Evidence() *evidence.Store { return p.evidence }

// Org is the id of the data directory, to which seals and statements are bound.
func (p *Pipeline) Org() uuid.UUID { return p.keyring.ID() }

// InForce are the lines of all assessments that open the gate now.
func (p *Pipeline) InForce() []*pia.Rule {
	p.policyMu.RLock()
	defer p.policyMu.RUnlock()
	return p.policy.pias.Rules(p.now())
}

// Asking is what the decision point must know of the documents in force: protected
// channels, and whom the directory names.
func (p *Pipeline) Asking() access.Options {
	p.policyMu.RLock()
	pol := p.policy
	p.policyMu.RUnlock()
	return pol.asking()
}

// AliasMAC is the keyed digest that aliases are made of.
func (p *Pipeline) AliasMAC(msg []byte) [32]byte { return [32]byte(p.keyring.MAC("alias/1", msg)) }

// WrapHold keeps what a hold of an inspector's office covers from whoever has the data
// without the keyring.
func (p *Pipeline) WrapHold(plain, id []byte) ([]byte, error) {
	return p.keyring.Wrap(holdPurpose, plain, id)
}

// UnwrapHold opens what WrapHold gave.
func (p *Pipeline) UnwrapHold(box, id []byte) ([]byte, error) {
	return p.keyring.Unwrap(holdPurpose, box, id)
}

const holdPurpose = "hold/inspector"

// WrapShown keeps whom an answer showed from whoever has no keyring of this server: the
// overseer who opens the seal around it.
func (p *Pipeline) WrapShown(plain, look []byte) ([]byte, error) {
	return p.keyring.Wrap(shownPurpose, plain, look)
}

// UnwrapShown opens what WrapShown gave.
func (p *Pipeline) UnwrapShown(box, look []byte) ([]byte, error) {
	return p.keyring.Unwrap(shownPurpose, box, look)
}

const shownPurpose = "notice/shown"

// Purposes are the codes that the assessments in force declare, sorted.
func (p *Pipeline) Purposes() []string {
	seen := map[string]bool{}
	for _, r := range p.InForce() {
		for _, u := range r.Purposes {
			seen[u] = true
		}
	}
	return sortedKeys(seen)
}

// Past tells whether the follower of a compartment has read up to a position, so that
// nothing before it comes into the index any more. Where nobody follows nobody adds.
func (p *Pipeline) Past(compartment string, end evidence.Position) bool {
	p.followMu.Lock()
	following := p.followed && p.group != nil
	p.followMu.Unlock()
	return !following || p.reached(compartment, end)
}

// passOver takes what a reader could not read: damage, or a segment whose key was
// destroyed. The reader goes on behind it.
func (p *Pipeline) passOver(ctx context.Context, d *evidence.DamageError) error {
	if !d.Destroyed() {
		p.damaged(d)
		return nil
	}
	id := d.Segment.String()
	for _, kind := range []string{"destruction.done", "destruction.intended"} { // a crash may lie between them
		_, stated, err := p.recorder.Fact(ctx, kind, id)
		if err != nil {
			return err
		}
		if stated {
			p.damageMu.Lock()
			defer p.damageMu.Unlock()
			p.destroyed[d.Segment] = d.Records
			return nil
		}
	}
	p.damaged(d)
	return nil
}

// Destroyed counts the segments that readers of this process passed over because their
// keys were destroyed, and their records.
func (p *Pipeline) Destroyed() (segments int, records uint64) {
	p.damageMu.Lock()
	defer p.damageMu.Unlock()
	for _, n := range p.destroyed {
		records += n
	}
	return len(p.destroyed), records
}

// contextAt is the last context that was written into a stream, and where.
type contextAt struct {
	digest  string
	segment uuid.UUID
}

// repeatContext writes the context in force into a segment that has none yet, so that
// each segment can be judged when those before it are destroyed. A batch that opened
// the segment stands before it and is under the same one: the caller holds policyMu
// since before the batch was sealed. Where the disk fails the next batch writes it.
func (p *Pipeline) repeatContext(ctx context.Context, pol *policy, compartment string, segment uuid.UUID) {
	p.contextMu.Lock()
	have := p.contexts[compartment]
	if have.segment == segment {
		p.contextMu.Unlock()
		return
	}
	delete(p.contexts, compartment)
	p.contextMu.Unlock()
	if err := p.ensureContext(ctx, pol, compartment); err != nil {
		p.log.Warn("the context in force is not repeated in its segment yet", "compartment", compartment, "err", err)
	}
}

// contextOf finds the context in force for the records at the beginning of a segment:
// the first one in it from a record on. nil: there is none.
func (p *Pipeline) contextOf(ctx context.Context, ref event.Ref) (*event.Context, error) {
	var found *event.Context
	from := evidence.Position{Segment: ref.Segment, Ordinal: ref.Ordinal}
	_, err := p.evidence.Read(ctx, evidence.Events, ref.Compartment, from, func(at event.Ref, rec []byte) error {
		if at.Segment != ref.Segment {
			return evidence.ErrStop
		}
		if len(rec) < 2 || event.Type(rec[1]) != event.TypeContext {
			return nil
		}
		en, err := event.Decode(rec)
		if err != nil {
			return err
		}
		found = en.Context
		return evidence.ErrStop
	})
	if errors.As(err, new(*evidence.DamageError)) { // whoever reads on meets it too
		err = nil
	}
	return found, err
}

// begin puts a context in force for a follower that has none: the segments before were
// destroyed, or recovery has cut the first record of the stream.
func (f *follower) begin(ctx context.Context, ref event.Ref) (digest string, err error) {
	if f.begun == ref.Segment {
		return "", nil
	}
	f.begun = ref.Segment
	c, err := f.p.contextOf(ctx, ref)
	if err != nil || c == nil {
		return "", err
	}
	s, err := f.p.recall(c)
	if err != nil {
		return "", fmt.Errorf("the context of segment %s: %w", ref.Segment, err)
	}
	f.enforce(s)
	return contextDigest(c)
}

// sealedAt is the time of sealing that decides the week of a row, and with it when the
// row is dropped. Receipt stands for it, since sealing follows within the time that
// Accept takes; but no row is older than its segment, which ends with its week, so
// that a segment has rows in one week only.
func sealedAt(ref event.Ref, e *event.Event) time.Time {
	at := time.Unix(0, e.Received).UTC()
	sec, nsec := ref.Segment.Time().UnixTime()
	if made := time.Unix(sec, nsec).UTC(); at.Before(made) {
		return made
	}
	return at
}

// Compartments are those that hold evidence or may, by an assessment in force, sorted.
func (p *Pipeline) Compartments() []string {
	seen := make(map[string]bool)
	for _, stream := range []evidence.Stream{evidence.Events, evidence.Originals} {
		for _, c := range p.evidence.Compartments(stream) {
			seen[c] = true
		}
	}
	for _, r := range p.InForce() {
		seen[r.Compartment] = true
	}
	return sortedKeys(seen)
}
