package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/counterseal/counterseal/internal/broker"
	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/discloser"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/web"
)

// What an overseer's machine is given to compare with its list of protected disclosers. It is
// the same for every list and for none: the server does not learn whether there is one.
type (
	targetsAsk struct {
		All bool `json:"all"` // what is over, too
	}
	targetsAnswer struct {
		Epoch   int           `json:"epoch"` // of the tokens that are made today
		Targets []targetRow   `json:"targets"`
		Shown   []targetShown `json:"shown"`
	}
	// targetShown is a look that listed people: whom, is sealed to the overseers, as for a notice.
	targetShown struct {
		ID     string    `json:"id"` // of the look
		At     time.Time `json:"at"`
		Case   string    `json:"case,omitempty"`
		Who    string    `json:"who"`
		Sealed []byte    `json:"sealed"`
	}
	// targetRow is something that is about people: a look, an authorisation, a grant of an incident
	// or a broken glass, an order.
	targetRow struct {
		Kind  string        `json:"kind"`
		ID    string        `json:"id"`
		At    time.Time     `json:"at"`
		Case  string        `json:"case,omitempty"`
		Who   string        `json:"who"` // looked, asked
		State string        `json:"state"`
		About []targetAbout `json:"about"`
	}
	// targetAbout is one of the people: an alias on the way out, and a veil.
	targetAbout struct {
		Person string         `json:"person"`
		Veil   discloser.Veil `json:"veil"`
	}
)

// veiled gives those of a list who are people or what is theirs, veiled. Hosts are not.
func veiled(named []string) []targetAbout {
	out := []targetAbout{}
	for _, n := range named {
		if event.IsToken([]byte(n)) {
			out = append(out, targetAbout{n, discloser.VeilOf(event.Token(n))})
		}
	}
	return out
}

// oversightTargets gives everything about people that overseers watch or decide on.
func (s *server) oversightTargets(ctx context.Context, _ string, body []byte) (any, error) {
	var in targetsAsk
	if json.Unmarshal(body, &in) != nil {
		return nil, web.BadRequest("this is no question about targets", "")
	}
	out := targetsAnswer{Epoch: s.tokens.epoch, Targets: []targetRow{}, Shown: []targetShown{}}
	add := func(r targetRow, named []string) {
		if r.About = veiled(named); len(r.About) > 0 {
			r.At = r.At.UTC().Truncate(time.Second)
			out.Targets = append(out.Targets, r)
		}
	}
	looks, err := s.oversight.Queue(ctx, in.All)
	if err != nil {
		return nil, err
	}
	for i := range looks {
		l := &looks[i]
		add(targetRow{Kind: "look", ID: l.ID, At: l.At, Case: l.Case, Who: l.Actor, State: cmp.Or(l.Outcome, "waits")}, l.Named)
	}
	all, err := s.cases.Authorisations(ctx)
	if err != nil {
		return nil, err
	}
	for i := range all {
		a := &all[i]
		if a.Inspector || a.State == cases.Unread || !in.All && a.State != cases.Requested && a.State != cases.Approved {
			continue
		}
		add(targetRow{Kind: "authorisation", ID: a.ID, At: a.Asked, Case: a.Case, Who: a.Requester, State: string(a.State)}, a.Scope.Subjects)
	}
	reviews, err := s.cases.Reviews(ctx)
	if err != nil {
		return nil, err
	}
	for i := range reviews {
		r := &reviews[i]
		add(targetRow{Kind: r.Kind, ID: r.ID, At: r.Opened, Case: r.Case, Who: r.Responder, State: "waits"}, r.Subjects)
	}
	lists, err := s.lists(ctx)
	if err != nil {
		return nil, err
	}
	for i := range all {
		for _, l := range lists[all[i].ID] {
			if l.sealed != nil && !all[i].Inspector && len(out.Shown) < maxLists {
				out.Shown = append(out.Shown, targetShown{l.fact.Key, l.fact.Time.UTC().Truncate(time.Second), all[i].Case, l.fact.Actor, l.sealed})
			}
		}
	}
	orders, err := s.pipe.Recorder().Facts(ctx, broker.KindOrdered)
	if err != nil {
		return nil, err
	}
	for _, f := range orders {
		o, err := s.readOrder(f)
		if errors.Is(err, ledger.ErrNoPayload) {
			continue
		} else if err != nil {
			return nil, err
		}
		if o.order.Undoes != "" || o.order.Act == broker.Notify {
			continue
		}
		r, err := s.containRow(ctx, o)
		if err != nil {
			return nil, err
		}
		if in.All || r.State == "waiting" || r.State == broker.Done {
			add(targetRow{Kind: o.order.Act, ID: r.ID, At: r.Asked, Case: r.Case, Who: r.By, State: r.State}, []string{o.order.Target})
		}
	}
	slices.SortStableFunc(out.Targets, func(a, b targetRow) int { return a.At.Compare(b.At) })
	return out, nil
}
