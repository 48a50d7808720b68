package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/complaint"
	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/pipeline"
	"github.com/counterseal/counterseal/internal/policy"
	"github.com/counterseal/counterseal/internal/state"
	"github.com/counterseal/counterseal/internal/web"
)

// The bounds of what complaints may be here.
const (
	complaintsWaiting = 2000                 // not answered yet
	complaintLate     = 30 * 24 * time.Hour  // from when one that waits is shown
	complaintKept     = 365 * 24 * time.Hour // after its answer
)

type (
	complaintRow struct {
		ID       string    `json:"id"`
		Received time.Time `json:"received"`
		State    string    `json:"state"` // waiting, late, closed, or missing: not there as the ledger has it
		Outcome  string    `json:"outcome,omitempty"`
		Keys     []string  `json:"keys,omitempty"` // that open it
	}
	complaintCounts struct {
		Waiting int `json:"waiting"`
		Late    int `json:"late"`    // for longer than 30 days
		Missing int `json:"missing"` // received, and not there any more
	}
	complaintNamed struct {
		ID string `json:"id"`
	}
	complaintSaved struct {
		Sealed []byte `json:"sealed"`
	}
	complaintClosing struct {
		Answer []byte `json:"answer"` // complaint.answer/v1
	}
	// complaintReceived is the detail of complaint.received: nothing of what or who.
	complaintReceived struct {
		Sealed string `json:"sealed"` // SHA-256 of the file, hex
	}
	// complaintClosed is the detail of complaint.closed.
	complaintClosed struct {
		Complaint string `json:"complaint"`
		Outcome   string `json:"outcome"`
		Sealed    string `json:"sealed"` // SHA-256 of the answer, hex
	}
)

// complaintFile is where a complaint, or its answer, lies. The id was checked.
func (s *server) complaintFile(id, what string) string {
	return filepath.Join(s.cfg.Data, "complaints", id+"."+what)
}

const (
	complaintText   = "complaint"
	complaintAnswer = "answer"
)

// overseerKeys are those of the overseers; none where no officers are enrolled.
func (s *server) overseerKeys() (keys []keyring.PublicKey, epoch int, err error) {
	roster, err := s.cfg.roster()
	if err != nil || roster == nil {
		return nil, 0, err
	}
	for _, a := range roster.Overseers() {
		keys = append(keys, a.Seal)
	}
	return keys, roster.Epoch, nil
}

// noOverseer refuses a complaint that nobody but this server could read.
func (s *server) noOverseer() error {
	hint := "turn to whom the assessments name, or to an inspector or data protection authority: counterseal me tells"
	if c := s.cfg.Oversight.Contact; c != "" {
		hint = "another way to the overseers: " + c
	}
	return &web.Refused{Reason: "no overseer's key is enrolled here, so whoever runs this server could read a complaint", Hint: hint}
}

// complain seals a text to the overseers and gives the code for the answer.
func (s *server) complain(ctx context.Context, text string) (string, error) {
	if err := complaint.CheckText(text); err != nil {
		return "", web.BadRequest(err.Error(), "write what happened, in up to 16,384 bytes")
	}
	keys, epoch, err := s.overseerKeys()
	if err != nil {
		return "", err
	}
	if len(keys) == 0 {
		return "", s.noOverseer()
	}
	code := complaint.NewCode()
	sealed, err := complaint.Seal(code, text, s.pipe.Org(), epoch, keys)
	if err != nil {
		return "", err
	}
	return code.Text(), s.takeComplaint(ctx, sealed)
}

// receiveComplaint takes one that its maker sealed. The same bytes again are no second one.
func (s *server) receiveComplaint(ctx context.Context, body []byte) error {
	sealed, err := complaint.Parse(body)
	if err != nil {
		return web.BadRequest(err.Error(), "counterseal me complain makes one")
	}
	keys, epoch, err := s.overseerKeys()
	if err != nil {
		return err
	}
	var want []keyring.KeyID
	for _, k := range keys {
		want = append(want, k.ID())
	}
	switch {
	case len(keys) == 0:
		return s.noOverseer()
	case sealed.Org != s.pipe.Org() || sealed.Epoch != epoch || !slices.Equal(sealed.Keys, want):
		return web.BadRequest("the complaint is sealed for another server or to other keys than those of the overseers now", "make it anew: counterseal me complain")
	}
	return s.takeComplaint(ctx, sealed)
}

// takeComplaint keeps a sealed complaint and states that one came. The statement names
// nobody: not even the server knows who it was.
func (s *server) takeComplaint(ctx context.Context, c *complaint.Sealed) error {
	s.complaining.Lock()
	defer s.complaining.Unlock()
	rec := s.pipe.Recorder()
	if f, ok, err := rec.Fact(ctx, "complaint.received", c.ID); err != nil {
		return err
	} else if ok {
		var d complaintReceived
		if json.Unmarshal(f.Detail, &d) == nil && d.Sealed == c.Digest() {
			return nil
		}
		return web.BadRequest("there is a complaint of this code already", "make it anew, with another code")
	}
	rows, err := s.complaintRows(ctx)
	if err != nil {
		return err
	}
	if n := countComplaints(rows).Waiting; n >= complaintsWaiting {
		return &web.Refused{Reason: fmt.Sprintf("%d complaints wait for the overseers, and no more are taken here", n), Hint: cmp.Or(s.cfg.Oversight.Contact, "turn to an inspector or data protection authority")}
	}
	var disk durable.FS
	path := s.complaintFile(c.ID, complaintText)
	if err := disk.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("making complaints/: %w", err)
	}
	if err := disk.WriteFile(path, c.Bytes(), 0o600); err != nil {
		return fmt.Errorf("keeping a complaint: %w", err)
	}
	// Who closes the connection has complained all the same.
	_, err = rec.Record(context.WithoutCancel(ctx), attest.Act{Kind: "complaint.received", Actor: "nobody", Subject: []string{c.ID}, Detail: complaintReceived{c.Digest()}})
	if err != nil {
		return errors.Join(err, disk.Remove(path))
	}
	return nil
}

// complaintRows lists what the ledger knows of complaints, those that wait first, the oldest
// before the others.
func (s *server) complaintRows(ctx context.Context) ([]complaintRow, error) {
	rec := s.pipe.Recorder()
	received, err := rec.Facts(ctx, "complaint.received")
	if err != nil {
		return nil, err
	}
	closed, err := rec.Facts(ctx, "complaint.closed")
	if err != nil {
		return nil, err
	}
	outcome := map[string]string{}
	for _, f := range closed {
		var d complaintClosed
		_ = json.Unmarshal(f.Detail, &d) // whatever it says, it is closed
		outcome[f.Key] = cmp.Or(d.Outcome, "unread")
	}
	slices.SortFunc(received, func(a, b state.Fact) int { return cmp.Compare(a.Index, b.Index) })
	rows := []complaintRow{}
	for _, f := range received {
		r := complaintRow{ID: f.Key, Received: f.Time.UTC().Truncate(time.Second), State: "waiting"}
		switch {
		case outcome[f.Key] != "":
			r.State, r.Outcome = "closed", outcome[f.Key]
		case s.now().Sub(f.Time) > complaintLate:
			r.State = "late"
		}
		if r.State != "closed" {
			if _, err := os.Stat(s.complaintFile(r.ID, complaintText)); errors.Is(err, fs.ErrNotExist) {
				r.State = "missing"
			}
		}
		rows = append(rows, r)
	}
	slices.SortStableFunc(rows, func(a, b complaintRow) int {
		return cmp.Compare(b2i(a.State == "closed"), b2i(b.State == "closed"))
	})
	return rows, nil
}

func countComplaints(rows []complaintRow) (c complaintCounts) {
	for _, r := range rows {
		switch r.State {
		case "late":
			c.Late++
			c.Waiting++
		case "waiting":
			c.Waiting++
		case "missing":
			c.Missing++
		}
	}
	return c
}

// savedComplaint reads a complaint and compares it with the ledger.
func (s *server) savedComplaint(ctx context.Context, id string) (*complaint.Sealed, error) {
	gone := &web.Refused{Reason: "the complaint is not there as the ledger has it: somebody removed or changed it", Hint: "who runs the server says why; the statement complaint.received stays"}
	if !complaint.IsID(id) {
		return nil, web.BadRequest("an id is 32 hex digits", "counterseal oversight complaints lists them")
	}
	f, ok, err := s.pipe.Recorder().Fact(ctx, "complaint.received", id)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, web.BadRequest("there is no such complaint", "counterseal oversight complaints lists them")
	}
	b, err := readBounded(s.complaintFile(id, complaintText), complaint.MaxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, gone
	}
	if err != nil {
		return nil, err
	}
	var d complaintReceived
	c, err := complaint.Parse(b)
	if err != nil || json.Unmarshal(f.Detail, &d) != nil || d.Sealed != c.Digest() || c.ID != id {
		return nil, gone
	}
	return c, nil
}

func (s *server) complaintList(ctx context.Context, _ string, _ []byte) (any, error) {
	rows, err := s.complaintRows(ctx)
	if err != nil {
		return nil, err
	}
	for i := range rows {
		if rows[i].State == "missing" || rows[i].State == "closed" {
			continue
		}
		c, err := s.savedComplaint(ctx, rows[i].ID)
		if err != nil {
			rows[i].State = "missing"
			continue
		}
		for _, k := range c.Keys {
			rows[i].Keys = append(rows[i].Keys, k.String())
		}
	}
	return rows, nil
}

func (s *server) complaintSave(ctx context.Context, _ string, body []byte) (any, error) {
	var in complaintNamed
	if json.Unmarshal(body, &in) != nil {
		return nil, web.BadRequest("this names no complaint", "")
	}
	c, err := s.savedComplaint(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return complaintSaved{c.Bytes()}, nil
}

// complaintClose takes the answer of an overseer, and states the outcome.
func (s *server) complaintClose(ctx context.Context, actor string, body []byte) (any, error) {
	var in complaintClosing
	if json.Unmarshal(body, &in) != nil {
		return nil, web.BadRequest("this is no answer", "make one: counterseal oversight complaints close")
	}
	a, err := complaint.ParseAnswer(in.Answer)
	if err != nil {
		return nil, web.BadRequest(err.Error(), "make one: counterseal oversight complaints close")
	}
	s.complaining.Lock()
	defer s.complaining.Unlock()
	c, err := s.savedComplaint(ctx, a.ID)
	if err != nil {
		return nil, err
	}
	if c.Org != a.Org || c.Epoch != a.Epoch {
		return nil, web.BadRequest("the answer is to another complaint", "make it with the file of this one")
	}
	rec := s.pipe.Recorder()
	if _, ok, err := rec.Fact(ctx, "complaint.closed", a.ID); err != nil {
		return nil, err
	} else if ok {
		return nil, &web.Refused{Reason: "the complaint is closed, and is answered once", Hint: "counterseal oversight complaints"}
	}
	var disk durable.FS
	path := s.complaintFile(a.ID, complaintAnswer)
	if err := disk.WriteFile(path, a.Bytes(), 0o600); err != nil {
		return nil, fmt.Errorf("keeping an answer: %w", err)
	}
	if _, err := rec.Record(ctx, attest.Act{Kind: "complaint.closed", Actor: actor, Subject: []string{a.ID}, Detail: complaintClosed{a.ID, a.Outcome, a.Digest()}}); err != nil {
		return nil, errors.Join(err, disk.Remove(path))
	}
	return complaintRow{ID: a.ID, State: "closed", Outcome: a.Outcome}, nil
}

// sealedComplaint gives the state of a complaint to who has its id.
func (s *server) sealedComplaint(ctx context.Context, id string) (*web.ComplaintState, error) {
	if !complaint.IsID(id) {
		return nil, web.ErrNoComplaint
	}
	rec := s.pipe.Recorder()
	if _, ok, err := rec.Fact(ctx, "complaint.received", id); err != nil {
		return nil, err
	} else if !ok {
		return nil, web.ErrNoComplaint
	}
	f, ok, err := rec.Fact(ctx, "complaint.closed", id)
	if err != nil || !ok {
		return &web.ComplaintState{State: "waiting"}, err
	}
	b, err := readBounded(s.complaintFile(id, complaintAnswer), complaint.MaxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, web.ErrNoComplaint
	}
	if err != nil {
		return nil, err
	}
	var d complaintClosed
	a, err := complaint.ParseAnswer(b)
	if err != nil || json.Unmarshal(f.Detail, &d) != nil || d.Sealed != a.Digest() {
		return nil, errors.New("an answer to a complaint is another one than the ledger has")
	}
	return &web.ComplaintState{State: "closed", Outcome: a.Outcome, Answer: a.Bytes()}, nil
}

// openAnswer gives the answer to who has the code.
func (s *server) openAnswer(ctx context.Context, text string) (*web.ComplaintAnswer, error) {
	code, err := complaint.ParseCode(text)
	if err != nil {
		return nil, web.BadRequest(err.Error(), "it was shown once, after the complaint")
	}
	id, err := code.ID()
	if err != nil {
		return nil, err
	}
	st, err := s.sealedComplaint(ctx, id)
	if err != nil {
		return nil, err
	}
	return opened(st, code)
}

// opened opens an answer where there is one.
func opened(st *web.ComplaintState, code complaint.Code) (*web.ComplaintAnswer, error) {
	out := &web.ComplaintAnswer{State: st.State}
	if st.State != "closed" {
		return out, nil
	}
	a, err := complaint.ParseAnswer(st.Answer)
	if err != nil {
		return nil, err
	}
	out.Outcome = a.Outcome
	if out.Text, err = a.Open(code); err != nil {
		return nil, fmt.Errorf("the answer does not open with the code of its complaint: %w", err)
	}
	return out, nil
}

// tendComplaints forgets addresses whose hour is over, and removes what was answered a year
// ago.
func (s *server) tendComplaints(ctx context.Context) error {
	s.web.ForgetSources()
	closed, err := s.pipe.Recorder().Facts(ctx, "complaint.closed")
	if err != nil {
		return err
	}
	s.complaining.Lock()
	defer s.complaining.Unlock()
	var disk durable.FS
	for _, f := range closed {
		if s.now().Sub(f.Time) < complaintKept || !complaint.IsID(f.Key) {
			continue
		}
		for _, what := range []string{complaintText, complaintAnswer} {
			path := s.complaintFile(f.Key, what)
			if _, err := os.Stat(path); err != nil {
				continue
			}
			if err := disk.Remove(path); err != nil {
				return fmt.Errorf("removing an answered complaint: %w", err)
			}
		}
	}
	return nil
}

// people is what the page of one's own needs.
func (s *server) people() web.People {
	return web.People{
		Facts: s.peopleFacts, Complain: s.complain, Receive: s.receiveComplaint, Answer: s.openAnswer, Sealed: s.sealedComplaint,
		Source: func(r *http.Request) string {
			if s.signin == nil { // at the loopback address everybody is this machine, or a proxy on it
				return ""
			}
			return s.signin.login.Source(r)
		},
	}
}

// may asks the policies about the holder of an office.
func (s *server) may(p policy.Person, act string, res policy.Resource, c policy.Context) bool {
	force := s.force.Load()
	c.Now, c.Offices = s.now(), "kept"
	return force.offices != nil && force.policy.Decide(policy.Request{Principal: p, Action: act, Resource: res, Context: c}).Allow
}

// complaintChecks tells the doctor where somebody took a complaint away.
func (s *server) complaintChecks(ctx context.Context) ([]pipeline.Check, error) {
	rows, err := s.complaintRows(ctx)
	if err != nil {
		return nil, err
	}
	if n := countComplaints(rows).Missing; n > 0 {
		return []pipeline.Check{{Name: "complaints", State: "fail", Text: fmt.Sprintf("%s that the ledger has %s not there any more", counted(n, "complaint", "complaints"), map[bool]string{true: "is", false: "are"}[n == 1]), Hint: "restore complaints/ from a copy, and tell an overseer"}}, nil
	}
	return nil, nil
}

// peopleFacts tells who may look here, by the policies and the offices in force.
func (s *server) peopleFacts(ctx context.Context) (*web.PeopleFacts, error) {
	public, err := s.publicFacts(ctx)
	if err != nil {
		return nil, err
	}
	f := &web.PeopleFacts{PublicFacts: public, Contact: s.cfg.Oversight.Contact}
	keys, epoch, err := s.overseerKeys()
	if err != nil {
		return nil, err
	}
	f.Officers, f.Tells = len(keys) > 0, s.hasBroker()
	f.Keys = web.ComplaintKeys{Org: s.pipe.Org().String(), Epoch: epoch}
	for _, k := range keys {
		f.Keys.Keys = append(f.Keys.Keys, web.ComplaintKey{ID: k.ID().String(), Key: k.Bytes()})
	}
	force := s.force.Load()
	if force.offices == nil {
		return f, nil
	}
	purpose := ""
	if codes := s.pipe.Purposes(); len(codes) > 0 {
		purpose = codes[0]
	}
	var holders []string
	for i := range force.offices.Offices {
		o := &force.offices.Offices[i]
		p, ok := force.offices.Person(o.ID)
		if !ok || o.Inspector {
			continue
		}
		if s.may(p, "search", policy.Resource{Selects: access.Person.String()}, policy.Context{Purpose: purpose, Authorisation: cases.Covers, Crowd: string(access.CrowdFew)}) {
			f.Readers = append(f.Readers, o.ID)
			holders = append(holders, o.Holder)
		}
		if s.may(p, "oversight.queue", policy.Resource{}, policy.Context{Crowd: string(access.CrowdNone)}) {
			f.Overseers = append(f.Overseers, o.ID)
		}
	}
	decides := map[string]bool{}
	for _, holder := range holders {
		for _, office := range s.couldDecide("authorise", holder) {
			decides[office] = true
		}
	}
	for i := range force.offices.Offices { // in the order of the record
		if id := force.offices.Offices[i].ID; decides[id] && !force.offices.Offices[i].Inspector {
			f.Deciders = append(f.Deciders, id)
		}
	}
	return f, nil
}
