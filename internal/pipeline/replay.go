package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/admit"
	"github.com/counterseal/counterseal/internal/detect"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
)

// Replayed is one original that was parsed again.
type Replayed struct {
	Ordinal uint64       // in the original segment
	Ref     event.Ref    // of the event that was sealed from it
	Event   *event.Event // nil: refused now
	Refused string       // why
	Same    bool         // the content is that of the sealed event
}

// ErrContext: originals cannot be parsed under this context any more.
var ErrContext = errors.New("the lists that were in force then are not kept, only keyed digests of them; they differ from those in force now and from every list of protected channels that people agreed on")

// Replay parses originals of one segment again: with the assessments, rules and parsers
// of now, and the assessments and rules of a context where one is named by its digest.
// originals are the bytes as received, by their number in the segment. What belongs to
// a protected channel by the list in force leaves no trace in the answer. Nothing is
// stored.
func (p *Pipeline) Replay(ctx context.Context, compartment string, segment uuid.UUID, originals map[uint64][]byte, digest string) ([]Replayed, error) {
	p.policyMu.RLock()
	pol := p.policy
	p.policyMu.RUnlock()
	if digest != "" && digest != pol.digest {
		then, err := p.recallPolicy(ctx, pol, digest)
		if err != nil {
			return nil, err
		}
		pol = then
	}
	var out []Replayed
	err := p.sealedFrom(ctx, compartment, segment, func(ref event.Ref, e *event.Event) error {
		raw, wanted := originals[e.Original.Ordinal]
		if !wanted {
			return nil
		}
		b := event.Batch{Source: e.Source, Way: e.Way, Conn: e.Conn, Peer: e.Peer, Received: time.Unix(0, e.Received).UTC()}
		f := event.Frame{Bytes: raw, Dataset: e.Dataset, Origin: e.Origin}
		rec, rule, refusal := p.read(pol, &b, &f)
		if pol.withheld(&rec, &f) {
			return nil
		}
		r := Replayed{Ordinal: e.Original.Ordinal, Ref: ref}
		switch {
		case refusal != nil:
			r.Refused = refusal.Reason
		case rec.Kind == event.Unparsed && rule.Field(event.UnparsedField) == nil:
			r.Refused = badLine(&rec)
		default:
			var counts admit.Counts
			now, err := pol.quiet.Event(admit.Minimise(&rec, rule, p.hash, &counts))
			if err != nil {
				return err
			}
			pol.rules.AtDoor(now, pol.sight(now.Source, now.Dataset, b.Received))
			now.Seq, now.Original = e.Seq, e.Original
			r.Event = now
			r.Same = now.Content() == e.Content()
		}
		out = append(out, r)
		return nil
	})
	return out, err
}

// recallPolicy is the policy of a context that was in force. The directory holds names and
// is not kept, so it must be the one in force now; the protected channels are those in
// force now, and then must have been these or others that the ledger knows.
func (p *Pipeline) recallPolicy(ctx context.Context, now *policy, digest string) (*policy, error) {
	doc, err := p.blobs.get(digest)
	if err != nil {
		return nil, fmt.Errorf("the context named: %w", err)
	}
	c, err := decodeContext(doc)
	if err != nil {
		return nil, fmt.Errorf("the context named: %w", err)
	}
	known := c.Protected == now.context.Protected
	if !known {
		if known, err = p.knownList(ctx, c.Protected); err != nil {
			return nil, err
		}
	}
	if !known || c.Directory != now.context.Directory || c.Epoch != now.context.Epoch {
		return nil, ErrContext
	}
	then, err := p.recall(c)
	if err != nil {
		return nil, err
	}
	pol := &policy{
		context: *c, digest: digest, pias: then.pias, protected: now.protected, names: now.names, quiet: now.quiet, rules: then.rules,
		sources: make(map[string]string), sights: make(map[sightKey]detect.Sight),
	}
	return pol, nil
}

// sealedFrom gives the events that were sealed from the originals of a segment. Both
// are appended in one go, so they lie in event segments of the same time.
func (p *Pipeline) sealedFrom(ctx context.Context, compartment string, segment uuid.UUID, fn func(event.Ref, *event.Event) error) error {
	states := p.evidence.States(evidence.Events, compartment)
	ids := make([]uuid.UUID, 0, len(states))
	for id := range states {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	in, ok, err := p.evidence.Segment(evidence.Originals, compartment, segment)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("no segment %s of originals in %s", segment, compartment)
	}
	var from evidence.Position // in the event segment that was open when the originals were begun
	for _, id := range ids {
		if bytes.Compare(id[:6], segment[:6]) > 0 { // by the time in the id
			break
		}
		from.Segment = id
	}
	after := in.Last.Add(time.Minute) // events are appended after their originals
	_, err = p.readOn(ctx, compartment, from, func(ref event.Ref, rec []byte) error {
		if sec, nsec := ref.Segment.Time().UnixTime(); in.State == "closed" && time.Unix(sec, nsec).After(after) {
			return evidence.ErrStop
		}
		en, err := event.Decode(rec)
		if err != nil {
			return fmt.Errorf("record %s: %w", ref, err)
		}
		if en.Event == nil || en.Event.Original.Segment != segment {
			return nil
		}
		return fn(ref, en.Event)
	})
	return err
}

// Unlocked tells whether the ledger knows an opening of a segment whose time is not over.
func (p *Pipeline) Unlocked(ctx context.Context, segment uuid.UUID) (bool, error) {
	f, ok, err := p.recorder.Fact(ctx, "unlock.opened", segment.String())
	if err != nil || !ok {
		return false, err
	}
	var d struct{ Minutes int64 }
	if err := json.Unmarshal(f.Detail, &d); err != nil {
		return false, err
	}
	seen, _ := p.recorder.Witnessed()
	return seen > f.Index && p.now().Before(f.Time.Add(time.Duration(d.Minutes)*time.Minute)), nil
}
