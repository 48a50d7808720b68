package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/oversight"
	"github.com/counterseal/counterseal/internal/pipeline"
	"github.com/counterseal/counterseal/internal/policy"
	"github.com/counterseal/counterseal/internal/web"
)

// What the acts of overseers are given and answer.
type (
	queueAsk struct {
		All bool `json:"all"`
	}
	queueAnswer struct {
		Looks     []queueRow           `json:"looks"`
		Approvers []oversight.Approver `json:"approvers"` // of the last 90 days
		Verbatim  []oversight.Words    `json:"verbatim"`
		Reviewed  int                  `json:"reviewed"` // in the last 90 days
		Median    float64              `json:"median_hours"`
		Longest   float64              `json:"longest_hours"`
		queueTargets
	}
	queueRow struct {
		ID        string     `json:"id"`
		Kind      string     `json:"kind"`
		At        time.Time  `json:"at"`
		Who       string     `json:"who"`
		Office    string     `json:"office"`
		Act       string     `json:"act"`
		Selects   string     `json:"selects"`
		Case      string     `json:"case,omitempty"`
		Purpose   string     `json:"purpose,omitempty"`
		CoveredBy string     `json:"covered_by,omitempty"`
		Cover     string     `json:"cover,omitempty"`
		Predicate string     `json:"predicate,omitempty"`
		Basis     string     `json:"basis,omitempty"`
		Scope     []string   `json:"scope,omitempty"` // people, and hosts
		From      *time.Time `json:"from,omitempty"`
		To        *time.Time `json:"to,omitempty"`
		About     []string   `json:"about,omitempty"`
		Path      string     `json:"path,omitempty"`
		Query     string     `json:"query,omitempty"`
		Rows      string     `json:"rows"`
		People    string     `json:"people"`
		Marks     []string   `json:"marks,omitempty"`
		Outcome   string     `json:"outcome,omitempty"`
	}
	heartbeatSent struct {
		Statement []byte           `json:"statement"`
		Signed    *approval.Signed `json:"signed,omitempty"`
	}
	oversightState struct {
		Watched     bool      `json:"watched"`
		Office      string    `json:"office"` // of the asker
		Org         string    `json:"org"`
		Stopped     string    `json:"stopped,omitempty"` // why
		Since       time.Time `json:"since,omitzero"`
		Heard       time.Time `json:"heard,omitzero"`
		Until       time.Time `json:"until,omitzero"`
		Independent []string  `json:"independent"`
		Signed      bool      `json:"signed"`
		Waits       bool      `json:"waits"`
		Unreviewed  int       `json:"unreviewed"`
		Capacity    int       `json:"capacity"`
		Oldest      time.Time `json:"oldest,omitzero"`
		// Complaints are for the eyes of overseers; nil to others.
		Complaints *complaintCounts `json:"complaints,omitempty"`
	}
	reportAsk struct {
		Public   bool      `json:"public"`
		From, To time.Time `json:",omitzero"`
	}
	reportAnswer struct {
		Note []byte `json:"note"`
	}
)

// oversightConfig is what overseers can do and when people work.
type oversightConfig struct {
	// Reviews is how many looks overseers review in two weeks, if fewer were of late; up to 500.
	Reviews int `yaml:"reviews"`
	// Hours are those of a working day, Monday to Friday, such as 7-19; looks at other
	// hours are marked. Without it none is.
	Hours string `yaml:"hours"`
	// Zone is the time zone of hours, such as Europe/Berlin; UTC without it.
	Zone string `yaml:"zone"`
	// Contact is another way to the overseers, for everybody to read: an address, a room.
	Contact string `yaml:"contact"`
}

// maxReviews bounds what a configuration may claim. Who runs the machine writes it, and a
// large number would end the pace of looking; reviews that were made raise it beyond.
const maxReviews = 500

// settings reads it, naming the key that is wrong.
func (c *oversightConfig) settings() (s oversight.Settings, err error) {
	if c.Reviews < 0 || c.Reviews > maxReviews {
		return s, fmt.Errorf("reviews: a number from 0 to %d; what overseers have reviewed counts by itself", maxReviews)
	}
	if len(c.Contact) > 500 || strings.ContainsFunc(c.Contact, func(r rune) bool { return !unicode.IsGraphic(r) }) {
		return s, errors.New("contact: a line of up to 500 bytes")
	}
	s.Floor = c.Reviews
	if c.Zone != "" {
		if s.Zone, err = time.LoadLocation(c.Zone); err != nil {
			return s, errors.New("zone: a time zone such as Europe/Berlin")
		}
	}
	if c.Hours == "" {
		return s, nil
	}
	begin, end, ok := strings.Cut(c.Hours, "-")
	var berr, eerr error
	s.Begin, berr = strconv.Atoi(begin)
	s.End, eerr = strconv.Atoi(end)
	if !ok || berr != nil || eerr != nil || s.Begin < 0 || s.Begin >= s.End || s.End > 24 {
		return s, errors.New("hours: from hour to hour, such as 7-19")
	}
	return s, nil
}

// openOversight opens the book of those who watch. internal/cases asks it.
func (s *server) openOversight(ctx context.Context) error {
	settings, err := s.cfg.Oversight.settings()
	if err != nil {
		return usage("oversight.%v", err)
	}
	s.oversight, err = oversight.Open(ctx, oversight.Options{
		Statements: s.pipe.Recorder(), Now: s.now, Actor: web.ActorOf, Org: s.pipe.Org(), Settings: settings,
		Policy:  web.DecideBy(func() *policy.Set { return s.force.Load().policy }),
		Offices: func() *policy.Offices { return s.force.Load().offices },
		Roster:  func() (*officer.Roster, error) { return s.cfg.roster() },
		Witnessed: func() time.Time {
			_, at := s.pipe.Recorder().Witnessed()
			return at
		},
	})
	return err
}

// asCase tells internal/cases what the book of those who watch says.
func asCase(ask func(context.Context) (*oversight.Refusal, error)) func(context.Context) (*cases.Refusal, error) {
	return func(ctx context.Context) (*cases.Refusal, error) {
		r, err := ask(ctx)
		if err != nil || r == nil {
			return nil, err
		}
		return &cases.Refusal{Code: r.Code, Reason: r.Reason, Hint: r.Hint}, nil
	}
}

// tendOversight states whether somebody watches, where that has changed, and ends what
// nobody watches.
func (s *server) tendOversight(ctx context.Context) error {
	stopped, err := s.oversight.Tend(ctx)
	if err != nil || stopped == nil {
		return err
	}
	_, err = s.cases.Unwatched(ctx)
	return err
}

// overseen closes an act that internal/oversight has decided.
func overseen(ctx context.Context, err error) error {
	var r *oversight.Refusal
	switch {
	case err == nil:
		web.Judged(ctx, "")
	case errors.As(err, &r):
		web.Judged(ctx, r.Code)
		if r.Code == oversight.BadInput || r.Code == oversight.Unknown {
			return web.BadRequest(r.Reason, r.Hint)
		}
		return &web.Refused{Reason: r.Reason, Hint: r.Hint}
	}
	return err
}

func (s *server) oversightQueue(ctx context.Context, _ string, body []byte) (any, error) {
	var in queueAsk
	if json.Unmarshal(body, &in) != nil {
		return nil, web.BadRequest("this is no question about the queue", "")
	}
	looks, err := s.oversight.Queue(ctx, in.All)
	if err != nil {
		return nil, err
	}
	out := queueAnswer{Looks: []queueRow{}}
	for i := range looks {
		row, err := s.queueRow(ctx, &looks[i])
		if err != nil {
			return nil, err
		}
		out.Looks = append(out.Looks, row)
	}
	since := s.now().Add(-oversight.Kept)
	if out.Approvers, err = s.oversight.Approvers(ctx, since); err != nil {
		return nil, err
	}
	all, err := s.cases.Authorisations(ctx)
	if err != nil {
		return nil, err
	}
	var asked []oversight.Asked
	for i := range all {
		if a := &all[i]; !a.Inspector && a.State != cases.Unread && !a.Asked.Before(since) {
			asked = append(asked, oversight.Asked{ID: a.ID, Person: a.Requester, Words: a.Basis + " " + a.Predicate, At: a.Asked})
		}
	}
	out.Verbatim = oversight.Verbatim(asked)
	if out.queueTargets, err = s.targets(ctx, looks, all, in.All); err != nil {
		return nil, err
	}
	lag, err := s.oversight.Lag(ctx)
	out.Reviewed, out.Median, out.Longest = lag.Reviewed, lag.Median.Hours(), lag.Longest.Hours()
	return out, err
}

// queueRow is a look with what was asked for it.
func (s *server) queueRow(ctx context.Context, l *oversight.Look) (queueRow, error) {
	row := queueRow{ID: l.ID, Kind: l.Kind, At: l.At.UTC().Truncate(time.Second), Who: l.Actor, Office: l.Office, Act: l.Act, Selects: l.Selects, Case: l.Case,
		Purpose: l.Purpose, CoveredBy: l.CoveredBy, Cover: l.Cover, About: l.Named, Path: l.Path, Query: l.Query, Rows: l.Rows, People: l.People, Marks: l.Marks, Outcome: l.Outcome}
	if l.CoveredBy != cases.KindAuthorisation {
		return row, nil
	}
	a, err := s.cases.Authorisation(ctx, l.Cover)
	var gone *cases.Refusal
	switch {
	case errors.As(err, &gone):
		return row, nil
	case err != nil:
		return row, err
	}
	row.Predicate, row.Basis, row.Scope = a.Predicate, a.Basis, a.Scope.Subjects
	if a.State != cases.Unread {
		row.From, row.To = &a.Scope.From, &a.Scope.To
	}
	return row, nil
}

func (s *server) lookReview(ctx context.Context, _ string, body []byte) (any, error) {
	var in reviewNamed
	if json.Unmarshal(body, &in) != nil {
		return nil, web.BadRequest("this is no review", "")
	}
	if err := overseen(ctx, s.oversight.Review(ctx, web.AskerOf(ctx).Person, in.ID, in.Outcome)); err != nil {
		return nil, err
	}
	return in, nil
}

func (s *server) oversightHeartbeat(ctx context.Context, _ string, body []byte) (any, error) {
	var in heartbeatSent
	if json.Unmarshal(body, &in) != nil {
		return nil, web.BadRequest("this is no heartbeat", "make one: counterseal oversight heartbeat")
	}
	// What has stopped by the clock ends what was authorised, before anything goes on.
	if err := s.tendOversight(ctx); err != nil {
		return nil, err
	}
	a := web.AskerOf(ctx)
	if err := overseen(ctx, s.oversight.Beat(ctx, a.Person, a.Fresh, in.Statement, in.Signed)); err != nil {
		return nil, err
	}
	s.stand(ctx)
	return s.oversightNow(ctx)
}

func (s *server) oversightStatus(ctx context.Context, _ string, _ []byte) (any, error) {
	return s.oversightNow(ctx)
}

func (s *server) oversightNow(ctx context.Context) (oversightState, error) {
	st, err := s.oversight.Status(ctx)
	out := oversightState{Watched: st.Watched, Office: web.AskerOf(ctx).Person.Office, Org: s.pipe.Org().String(), Heard: st.Heard, Until: st.Until,
		Independent: append([]string{}, st.Independent...), Signed: st.Signed, Waits: st.Waits, Unreviewed: st.Unreviewed, Capacity: st.Capacity, Oldest: st.Oldest}
	if st.Stopped != nil {
		out.Stopped, out.Since = st.Stopped.Text(), st.Stopped.Since
	}
	if err != nil || !s.may(web.AskerOf(ctx).Person, "complaint.list", policy.Resource{}, policy.Context{Crowd: string(access.CrowdNone)}) {
		return out, err
	}
	rows, err := s.complaintRows(ctx)
	counts := countComplaints(rows)
	out.Complaints = &counts
	return out, err
}

func (s *server) oversightReport(ctx context.Context, _ string, body []byte) (any, error) {
	var in reportAsk
	if json.Unmarshal(body, &in) != nil {
		return nil, web.BadRequest("this names no period", "")
	}
	from, to, audience := in.From.UTC(), in.To.UTC(), oversight.Internal
	if in.Public {
		audience = oversight.Public
	}
	if from.IsZero() && to.IsZero() {
		from, to = oversight.Quarter(s.now())
	}
	day := func(t time.Time) bool { return t.Equal(t.Truncate(24 * time.Hour)) }
	switch {
	case !from.Before(to) || !day(from) || !day(to) || to.After(s.now()):
		return nil, web.BadRequest("a report is about whole days that are over", "name the first day and the day after the last")
	case in.Public:
		if f, t := oversight.Quarter(to); !f.Equal(from) || !t.Equal(to) {
			return nil, web.BadRequest("a public report is about one whole quarter, so that no two of them overlap", "leave the days out for the last one")
		}
	}
	r, err := s.count(ctx, audience, from, to)
	if err != nil {
		return nil, err
	}
	note, err := s.pipe.Recorder().Ledger().SignNote(oversight.Title, r.Format())
	if err != nil {
		return nil, err
	}
	return reportAnswer{note}, nil
}

// count reads the ledger once and makes a report of a period.
func (s *server) count(ctx context.Context, audience string, from, to time.Time) (*oversight.Report, error) {
	s.counting.Lock() // one at a time: it reads the whole ledger
	defer s.counting.Unlock()
	rec := s.pipe.Recorder()
	origin, size, root, err := covered(ctx, rec.Ledger())
	if err != nil {
		return nil, err
	}
	tally := oversight.NewTally(from, to)
	if _, err := rec.Each(ctx, 0, func(i uint64, st ledger.Statement) error {
		if own, current := rec.Own(i); !current || own < size {
			tally.Add(i, st)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	r := tally.Report(audience)
	r.Origin, r.Size, r.Root = origin, size, root
	return r, nil
}

// covered gives the log, its size and its root by a checkpoint that covers every statement
// there is by now. The log publishes one within a second.
func covered(ctx context.Context, l *ledger.Ledger) (origin string, size uint64, root string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for now := l.Size(); ; {
		checkpoint, err := l.Checkpoint()
		if err != nil {
			return "", 0, "", fmt.Errorf("reading the checkpoint: %w", err)
		}
		if origin, size, root, err = ledger.Tree(checkpoint); err != nil || size >= now {
			return origin, size, root, err
		}
		select {
		case <-ctx.Done():
			return "", 0, "", &web.Refused{Reason: "the newest statements are not under a checkpoint yet", Hint: "ask again in a minute; counterseal doctor tells of the ledger"}
		case <-tick.C:
		}
	}
}

// published is the newest public report that the server has counted.
type published struct {
	to     time.Time
	report *oversight.Report
}

// publicReport gives the counts of the last quarter; nil while another request counts them.
func (s *server) publicReport(ctx context.Context) (*oversight.Report, error) {
	from, to := oversight.Quarter(s.now())
	if p := s.public.Load(); p != nil && p.to.Equal(to) {
		return p.report, nil
	}
	if !s.publishing.TryLock() {
		return nil, nil
	}
	defer s.publishing.Unlock()
	r, err := s.count(context.WithoutCancel(ctx), oversight.Public, from, to)
	var later *web.Refused
	switch {
	case errors.As(err, &later):
		return nil, nil
	case err != nil:
		return nil, err
	}
	s.public.Store(&published{to, r})
	return r, nil
}

// publicFacts is what the public page tells.
func (s *server) publicFacts(ctx context.Context) (*web.PublicFacts, error) {
	st, err := s.oversight.Status(ctx)
	if err != nil {
		return nil, err
	}
	r, err := s.publicReport(ctx)
	if err != nil {
		return nil, err
	}
	removed, err := s.pipe.RemovedChannels(ctx)
	if err != nil {
		return nil, err
	}
	facts := &web.PublicFacts{Watched: st.Watched, Stopped: st.Stopped, Waits: st.Waits, Report: r}
	for _, r := range removed {
		facts.Removed = append(facts.Removed, web.ChannelsRemoved(r))
	}
	return facts, nil
}

// oversightChecks tells the doctor whether somebody watches and keeps up.
func (s *server) oversightChecks(ctx context.Context) ([]pipeline.Check, error) {
	st, err := s.oversight.Status(ctx)
	if err != nil || !st.Watched {
		return nil, err
	}
	c := pipeline.Check{Name: "oversight", State: "ok", Text: "an independent overseer was heard; another heartbeat is due before " + st.Until.Format(time.DateOnly)}
	switch {
	case st.Stopped != nil:
		c.State, c.Text, c.Hint = "warn", "looking at people has stopped since "+st.Stopped.Since.UTC().Format(time.RFC3339)+": "+st.Stopped.Text(), "an overseer: counterseal oversight heartbeat"
	case st.Heard.IsZero():
		c.Text = "no overseer was heard yet; the first heartbeat is due before " + st.Until.Format(time.DateOnly)
	}
	if st.Stopped == nil && st.Until.Sub(s.now()) < 4*24*time.Hour {
		c.State, c.Hint = "warn", "an overseer: counterseal oversight heartbeat; else looking at people stops"
	}
	out := []pipeline.Check{c}
	switch {
	case st.Stopped == nil && st.Waits:
		out = append(out, pipeline.Check{Name: "looks", State: "warn", Text: fmt.Sprintf("%d wait for a review, and two weeks of reviews are %d: new authorisations wait", st.Unreviewed, st.Capacity), Hint: "an overseer: counterseal oversight queue"})
	case st.Unreviewed > 0:
		out = append(out, pipeline.Check{Name: "looks", State: "ok", Text: fmt.Sprintf("%d wait for a review; from %d on new authorisations wait", st.Unreviewed, st.Capacity+1)})
	}
	return slices.Clip(out), nil
}
