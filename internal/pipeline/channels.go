package pipeline

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/admit"
	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/state"
)

// Channels is the list of protected channels, and what the file says otherwise.
type Channels struct {
	Agreed  bool            // the list is one of the ledger; false: it is the file
	Since   time.Time       // of the list in force, where it is one of the ledger
	InForce []admit.Channel // what is protected
	Waiting []admit.Channel // in the file alone: it protects nothing
	Missing []admit.Channel // not in the file, and protected all the same
}

// ChannelsChange is what was agreed on about the list.
type ChannelsChange struct {
	Add, Remove     []admit.Channel
	Asked, Approved string // person ids; Asked is empty where one word is enough
	Actor           string // for the ledger
}

// ErrChannels is wrapped where a change of the list does not fit the list in force.
var ErrChannels = errors.New("the list of protected channels is another one by now")

// channelsForm is the payload of channels.approved: the whole list from then on.
type channelsForm struct {
	Approved string          `json:"approved"` // person id; empty: nobody, the first list
	Asked    string          `json:"asked"`    // likewise; empty for a removal too
	Channels []admit.Channel `json:"channels"`
	Form     string          `json:"form"`
	ID       string          `json:"id"`
}

const channelsName = "channels/v1"

// parseChannels reads the canonical form and nothing else.
func parseChannels(b []byte) (*channelsForm, error) {
	var f channelsForm
	if err := approval.DecodeUpTo(ledger.MaxPayload, b, &f); err != nil {
		return nil, err
	}
	id, err := uuid.Parse(f.ID)
	switch {
	case f.Form != channelsName:
		return nil, errors.New("form is another one")
	case err != nil || id.String() != f.ID:
		return nil, errors.New("id is not a UUID")
	case f.Channels == nil:
		return nil, errors.New("channels are missing")
	case len(f.Asked) > 128 || len(f.Approved) > 128:
		return nil, errors.New("asked and approved are person ids of up to 128 bytes")
	}
	return &f, admit.CheckChannels(f.Channels)
}

// channelsDetail is the detail of channels.approved. Of the keyed digests, list is that of
// the list from then on and file that of the file before, if it was in force.
type channelsDetail struct {
	Added   int           `json:"added"`
	Entries int           `json:"entries"`
	File    string        `json:"file,omitempty"`
	List    string        `json:"list"`
	Payload ledger.Digest `json:"payload"`
	Reason  string        `json:"reason"` // first, added or removed
	Removed int           `json:"removed"`
	// RemovedKinds says of what kinds the removed ones are: that is public.
	RemovedKinds map[string]int `json:"removed_kinds,omitempty"`
}

// agreed gives the list that the ledger has last; ok is false where it has none. One that
// cannot be read is an error: going on without it would store what must not be.
func (p *Pipeline) agreed(ctx context.Context) (list []admit.Channel, since time.Time, ok bool, err error) {
	facts, err := p.recorder.Facts(ctx, "channels.approved")
	if err != nil || len(facts) == 0 {
		return nil, since, false, err
	}
	last := facts[0]
	for _, f := range facts {
		if f.Index > last.Index {
			last = f
		}
	}
	var d channelsDetail
	var raw []byte
	var f *channelsForm
	if err = json.Unmarshal(last.Detail, &d); err == nil {
		raw, err = p.recorder.Payload(d.Payload)
	}
	if err == nil {
		f, err = parseChannels(raw)
	}
	if err == nil && f.ID != last.Key {
		err = errors.New("it is another one")
	}
	if err != nil {
		return nil, since, false, fmt.Errorf("the list of protected channels that statement %d put in force cannot be read; restore ledger/ from a copy: %w", last.Index, err)
	}
	return f.Channels, last.Time, true, nil
}

// channels finds the list in force: the file before there are offices, and then what was
// agreed on. first says that the list has to be stated, since offices have come.
func (p *Pipeline) channels(ctx context.Context, file []byte) (c Channels, first bool, err error) {
	said, err := admit.Channels(file)
	if err != nil {
		return c, false, err
	}
	list, since, ok, err := p.agreed(ctx)
	switch {
	case err != nil:
		return c, false, err
	case ok:
		return Channels{Agreed: true, Since: since, InForce: list, Waiting: admit.Without(said, list), Missing: admit.Without(list, said)}, false, nil
	case p.offices != nil && p.offices():
		return Channels{Agreed: true, Since: p.now().UTC(), InForce: said}, true, nil
	}
	return Channels{InForce: said}, false, nil
}

// compileChannels gives a policy the list in force.
func (p *Pipeline) compileChannels(ctx context.Context, pol *policy) (err error) {
	if pol.channels, pol.firstList, err = p.channels(ctx, pol.from.Protected); err != nil {
		return fmt.Errorf("reading the protected channels: %w", err)
	}
	if pol.channels.Agreed {
		pol.protected, err = admit.Protect(pol.channels.InForce)
		pol.context.Protected = p.listDigest(pol.channels.InForce)
	} else {
		pol.protected, err = admit.ParseProtected(pol.from.Protected)
		pol.context.Protected = p.fileDigest(pol.from.Protected)
	}
	if err != nil {
		return fmt.Errorf("reading the protected channels: %w", err)
	}
	return nil
}

// The lists hold names, so only keyed digests of them are stored.

func (p *Pipeline) fileDigest(file []byte) string {
	return hex.EncodeToString(p.hash(append([]byte("protected\x00"), file...)))
}

func (p *Pipeline) listDigest(list []admit.Channel) string {
	b := []byte("channels\x00")
	for i := range list {
		b = append(append(append(append(b, list[i].List...), 0), list[i].Value...), 0)
	}
	return hex.EncodeToString(p.hash(b))
}

// stateFirst states the list that is in force when offices come.
func (p *Pipeline) stateFirst(ctx context.Context, pol *policy) error {
	if !pol.firstList {
		return nil
	}
	return p.stateChannels(ctx, pol.channels.InForce, attest.System, channelsForm{}, channelsDetail{File: p.fileDigest(pol.from.Protected), Reason: "first"})
}

func (p *Pipeline) stateChannels(ctx context.Context, list []admit.Channel, actor string, f channelsForm, d channelsDetail) error {
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("making an id: %w", err)
	}
	f.Channels, f.Form, f.ID = append([]admit.Channel{}, list...), channelsName, id.String()
	raw, err := approval.Canonical(&f)
	if err != nil {
		return err
	}
	if _, err := parseChannels(raw); err != nil { // the check that its reader will make
		return fmt.Errorf("the list of protected channels: %w", err)
	}
	d.Entries, d.List = len(list), p.listDigest(list)
	if d.Payload, err = p.recorder.PutPayload(raw); err != nil {
		return err
	}
	_, err = p.recorder.Record(ctx, attest.Act{Kind: "channels.approved", Actor: actor, Subject: []string{f.ID}, Detail: d})
	return err
}

// Channels is the list of protected channels in force.
func (p *Pipeline) Channels() Channels {
	p.policyMu.RLock()
	defer p.policyMu.RUnlock()
	return p.policy.channels
}

// ChangeChannels states what was agreed on and puts it in force. The caller has the words
// that it needs.
func (p *Pipeline) ChangeChannels(ctx context.Context, c ChannelsChange) error {
	p.documentsMu.Lock()
	defer p.documentsMu.Unlock()
	p.policyMu.RLock()
	pol := p.policy
	p.policyMu.RUnlock()
	have, _, ok, err := p.agreed(ctx)
	if err != nil {
		return err
	}
	d := channelsDetail{Added: len(c.Add), Removed: len(c.Remove), Reason: "added"}
	switch {
	case !ok:
		return fmt.Errorf("no list was agreed on: %w", ErrChannels)
	case len(admit.Without(c.Add, have)) != len(c.Add), len(admit.Without(c.Remove, have)) > 0, d.Added+d.Removed == 0, d.Added*d.Removed > 0:
		return ErrChannels
	case d.Removed > 0:
		d.Reason, d.RemovedKinds = "removed", map[string]int{}
		for _, one := range admit.Without(have, admit.Without(have, c.Remove)) { // as the list has them
			d.RemovedKinds[cmp.Or(one.Kind, admit.OtherChannel)]++
		}
	}
	list := admit.Joined(admit.Without(have, c.Remove), c.Add)
	if err := p.stateChannels(ctx, list, c.Actor, channelsForm{Asked: c.Asked, Approved: c.Approved}, d); err != nil {
		return err
	}
	return p.setDocuments(context.WithoutCancel(ctx), pol.from)
}

// ChannelsRemoved is a removal from the list of protected channels, for everybody to see.
type ChannelsRemoved struct {
	At      time.Time
	Entries int
	Kinds   map[string]int64 // of the entries: admit.ChannelKinds
}

// RemovedChannels lists the removals, the newest first.
func (p *Pipeline) RemovedChannels(ctx context.Context) ([]ChannelsRemoved, error) {
	facts, err := p.recorder.Facts(ctx, "channels.approved")
	if err != nil {
		return nil, err
	}
	slices.SortFunc(facts, func(a, b state.Fact) int { return cmp.Compare(b.Index, a.Index) })
	var out []ChannelsRemoved
	for _, f := range facts {
		if _, kinds := admit.ChannelsChanged(f.Detail); len(kinds) > 0 {
			one := ChannelsRemoved{At: f.Time.UTC(), Kinds: kinds}
			for _, n := range kinds {
				one.Entries += int(n)
			}
			out = append(out, one)
		}
	}
	return out, nil
}

// knownList tells whether the ledger has put a list of this keyed digest in force. Replay
// needs no more: what it withholds, it withholds by the list in force now.
func (p *Pipeline) knownList(ctx context.Context, digest string) (bool, error) {
	facts, err := p.recorder.Facts(ctx, "channels.approved")
	if err != nil {
		return false, err
	}
	for _, f := range facts {
		var d channelsDetail
		if json.Unmarshal(f.Detail, &d) == nil && digest != "" && (d.List == digest || d.File == digest) {
			return true, nil
		}
	}
	return false, nil
}
