package oversight

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/policy"
)

// Silence is that nobody independent watches.
type Silence struct {
	Reason string // Vacant or Unheard
	Since  time.Time
}

// Text says it in words.
func (s *Silence) Text() string {
	if s.Reason == Vacant {
		return "no independent office of an overseer is held"
	}
	return "no independent overseer was heard for 14 days"
}

// Independent names the offices that may watch those who read events: of an overseer, held,
// by somebody who holds no office that reads or runs, of no chain of command with one, and
// appointed by another authority than any of them. An inspector's office is none of those.
func Independent(o *policy.Offices) []string {
	var out []string
	if o == nil {
		return nil
	}
	reads := func(f *policy.Office) bool {
		return !f.Inspector && slices.ContainsFunc(f.Roles, func(r string) bool {
			return r == "analyst" || r == "responder" || r == "investigator" || r == "operator"
		})
	}
	for i := range o.Offices {
		f := &o.Offices[i]
		if f.Holder == "" || !slices.Contains(f.Roles, "overseer") {
			continue
		}
		chain, _ := o.Chain(f.Holder)
		apart := true
		for j := range o.Offices {
			other := &o.Offices[j]
			if !reads(other) {
				continue
			}
			apart = apart && other.Authority != f.Authority && ident(other.Holder) != ident(f.Holder) &&
				(other.Holder == "" || !slices.ContainsFunc(chain, func(p string) bool { return ident(p) == ident(other.Holder) }))
		}
		if apart {
			out = append(out, f.ID)
		}
	}
	return out
}

// silence judges by the clocks and the record of offices; nil: somebody watches.
func (b *Book) silence(now time.Time) *Silence {
	o := b.o.Offices()
	if o == nil {
		return nil
	}
	now = later(now, b.o.Witnessed().UTC())
	offices := Independent(o)
	if len(offices) == 0 {
		return &Silence{Vacant, now}
	}
	last := b.begun
	for _, id := range offices {
		if f, ok := b.heard[id]; ok && f.Time.After(last) && !f.Time.After(now.Add(Skew)) {
			last = f.Time
		}
	}
	if last.After(now.Add(Skew)) || now.Sub(last) >= SilentAfter {
		return &Silence{Unheard, last.Add(SilentAfter)}
	}
	return nil
}

// Tend states that looking at people has stopped, or that it goes on, where that has
// changed; nil: it goes on.
func (b *Book) Tend(ctx context.Context) (*Silence, error) {
	if err := b.lock(ctx); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	return b.tend(ctx)
}

func (b *Book) tend(ctx context.Context) (*Silence, error) {
	if b.o.Offices() == nil {
		return nil, nil
	}
	b.forget()
	now := b.now()
	if b.begun.IsZero() {
		if err := b.turned(ctx, "oversight.back", silentDetail{Reason: Begun}); err != nil {
			return nil, err
		}
	}
	s := b.silence(now)
	switch {
	case s != nil && b.quiet == nil:
		if err := b.turned(ctx, "oversight.silent", silentDetail{Reason: s.Reason, Since: stamp(s.Since)}); err != nil {
			return nil, err
		}
	case s == nil && b.quiet != nil:
		if err := b.turned(ctx, "oversight.back", silentDetail{Reason: Heard}); err != nil {
			return nil, err
		}
	}
	if b.quiet == nil {
		return nil, nil
	}
	out := *b.quiet
	return &out, nil
}

func (b *Book) turned(ctx context.Context, kind string, d silentDetail) error {
	id, err := newID()
	if err != nil {
		return err
	}
	if err := b.state(ctx, policy.Person{}, kind, id, d.fields()); err != nil {
		return fmt.Errorf("stating whether somebody watches: %w", err)
	}
	return nil
}

func (d silentDetail) fields() map[string]any {
	out := map[string]any{"reason": d.Reason}
	if d.Since != "" {
		out["since"] = d.Since
	}
	return out
}

// Stopped says why nobody may look at people now, after stating it; nil: they may.
func (b *Book) Stopped(ctx context.Context) (*Refusal, error) {
	s, err := b.Tend(ctx)
	if err != nil || s == nil {
		return nil, err
	}
	return s.refusal(), nil
}

func (s *Silence) refusal() *Refusal {
	return &Refusal{Code: Unwatched, Reason: "looking at people has stopped since " + stamp(s.Since) + ": " + s.Text(),
		Hint: "an overseer of another authority states that they are there: counterseal oversight heartbeat; then ask for a new authorisation. Detection, grants of findings and containment go on"}
}

// Waits says why new authorisations wait; nil: they do not.
func (b *Book) Waits(ctx context.Context) (*Refusal, error) {
	r, err := b.Stopped(ctx)
	if err != nil || r != nil {
		return r, err
	}
	if err := b.lock(ctx); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	if b.o.Offices() == nil {
		return nil, nil
	}
	unreviewed, capacity := b.pace(b.now())
	if unreviewed <= capacity {
		return nil, nil
	}
	return &Refusal{Code: Paced, Reason: fmt.Sprintf("new authorisations wait: %d looks at people are not reviewed, and two weeks of reviews are %d", unreviewed, capacity),
		Hint: "overseers review looks: counterseal oversight queue. What is authorised already goes on"}, nil
}

// pace counts what waits, and what two weeks of reviews are.
func (b *Book) pace(now time.Time) (unreviewed, capacity int) {
	done := 0
	for _, l := range b.looks {
		switch {
		case l.outcome == "":
			unreviewed++
		case now.Sub(l.reviewed) < Measured:
			done++
		}
	}
	return unreviewed, max(done/2, b.o.Settings.Floor)
}

// heartbeatAction is the action of the statement of an overseer who is there: a statement as
// officers sign them, docs/formats/officer.md.
const heartbeatAction = "oversight.heartbeat"

// NewHeartbeat makes the bytes of one, for an office of the house with the id org.
func NewHeartbeat(office string, org uuid.UUID, now time.Time) ([]byte, error) {
	_, raw, err := approval.New(approval.Ask{
		Action: heartbeatAction, Case: "oversight", Purpose: "an independent overseer is there", Requester: office, Objects: []string{"office " + office}, Org: org, Grant: time.Minute,
	}, now)
	return raw, err
}

type heardDetail struct {
	Made string `json:"made"`
}

// Beat takes a heartbeat of the office that by acts in, signed where there are officers,
// and states it. Looking at people goes on with it.
func (b *Book) Beat(ctx context.Context, by policy.Person, fresh bool, raw []byte, signed *approval.Signed) error {
	if err := b.lock(ctx); err != nil {
		return err
	}
	defer b.mu.Unlock()
	if err := b.permitted(ctx, by, "oversight.heartbeat", policy.Resource{}); err != nil {
		return err
	}
	h, err := approval.Parse(raw)
	if err != nil {
		return &Refusal{BadInput, err.Error(), "make it anew: counterseal oversight heartbeat"}
	}
	o, now := b.o.Offices(), b.now()
	held := o != nil && slices.ContainsFunc(o.Offices, func(f policy.Office) bool {
		return f.ID == by.Office && f.Holder != "" && ident(f.Holder) == ident(by.ID)
	})
	var last heardDetail
	if f, ok := b.heard[by.Office]; ok {
		_ = json.Unmarshal(f.Detail, &last) // what is not of its form has no time
	}
	switch {
	case !held || !slices.Contains(Independent(o), by.Office):
		return &Refusal{NotPermitted, "only an independent office of an overseer says that it is there: held by nobody who reads events or runs the machines, of another chain of command and appointing authority", "counterseal offices show tells who is in office"}
	case !fresh:
		return &Refusal{NotFresh, "the login is too old", "log in again, and do it then"}
	case h.Action != heartbeatAction || !slices.Equal(h.Objects, []string{"office " + by.Office}) || h.Org != b.o.Org.String():
		return &Refusal{BadInput, "it is no heartbeat, or one of another office or another data directory", "make it anew: counterseal oversight heartbeat"}
	case h.MadeAt().After(now.Add(Skew)) || now.After(h.ExpiresAt()):
		return &Refusal{BadInput, "the heartbeat is from the future, or older than a day", "look at the clock and make it anew"}
	case last.Made != "" && h.Made <= last.Made:
		return &Refusal{Settled, "this heartbeat, or a later one, was heard already", "make a new one"}
	}
	key, err := b.signer(raw, signed)
	if err != nil {
		return err
	}
	payload, err := json.Marshal(struct {
		Statement json.RawMessage  `json:"statement"`
		Signed    *approval.Signed `json:"signed,omitempty"`
	}{raw, signed})
	if err != nil {
		return err
	}
	digest, err := b.o.Statements.PutPayload(payload)
	if err != nil {
		return err
	}
	// What has stopped by the clock is stated first: what ended with it stays ended.
	if _, err := b.tend(ctx); err != nil {
		return err
	}
	detail := map[string]any{"office": by.Office, "made": h.Made, "statement": digest}
	if key != "" {
		detail["key"] = key
	}
	if err := b.state(ctx, by, "oversight.heartbeat", by.Office, detail); err != nil {
		return err
	}
	_, err = b.tend(ctx)
	return err
}

// signer verifies the signature of a heartbeat and names the key; empty where there are no
// officers, and then the login alone says who it is.
func (b *Book) signer(raw []byte, signed *approval.Signed) (key string, err error) {
	roster, err := b.o.Roster()
	if err != nil || roster == nil {
		return "", err
	}
	bad := &Refusal{Unsigned, "the heartbeat is not signed by an officer of oversight", "name the file of the officer's key: counterseal oversight heartbeat --key FILE"}
	if signed == nil || signed.Decision != approval.Approve {
		return "", bad
	}
	who := roster.Overseer(signed.Key)
	if who == nil || !signed.Verify(raw, who.Sign) {
		return "", bad
	}
	return who.ID(), nil
}

// permitted asks the policies about an act.
func (b *Book) permitted(ctx context.Context, by policy.Person, action string, res policy.Resource) error {
	d := policy.Decision{Reason: "no policies are in force"}
	if b.o.Policy != nil {
		d = b.o.Policy(ctx, policy.Request{Principal: by, Action: action, Resource: res, Context: policy.Context{Now: b.now()}})
	}
	if d.Allow {
		return nil
	}
	if d.Reason == "" {
		d.Reason = "no policy permits this"
	}
	return &Refusal{NotPermitted, d.Reason, "docs/policy-matrix.md tells who may"}
}

// Status is how oversight stands.
type Status struct {
	Watched     bool // there is a record of offices: looking is watched
	Stopped     *Silence
	Waits       bool // new authorisations do
	Unreviewed  int
	Capacity    int       // reviews of two weeks
	Oldest      time.Time // of the unreviewed
	Heard       time.Time // the newest heartbeat that counts; zero: none
	Until       time.Time // when looking stops without another one
	Independent []string  // offices
	Signed      bool      // a heartbeat needs the key of an officer
}

// Status tells how it stands.
func (b *Book) Status(ctx context.Context) (Status, error) {
	stopped, err := b.Tend(ctx)
	if err != nil {
		return Status{}, err
	}
	roster, err := b.o.Roster()
	if err != nil {
		return Status{}, err
	}
	if err := b.lock(ctx); err != nil {
		return Status{}, err
	}
	defer b.mu.Unlock()
	o := b.o.Offices()
	s := Status{Watched: o != nil, Stopped: stopped, Independent: Independent(o), Signed: roster != nil}
	s.Unreviewed, s.Capacity = b.pace(b.now())
	s.Waits = s.Watched && (stopped != nil || s.Unreviewed > s.Capacity)
	for _, l := range b.looks {
		if l.outcome == "" && (s.Oldest.IsZero() || l.at.Before(s.Oldest)) {
			s.Oldest = l.at
		}
	}
	for _, id := range s.Independent {
		if f, ok := b.heard[id]; ok && f.Time.After(s.Heard) {
			s.Heard = f.Time
		}
	}
	if last := later(s.Heard, b.begun); s.Watched && stopped == nil {
		s.Until = last.Add(SilentAfter)
	}
	return s, nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
