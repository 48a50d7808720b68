package cases

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/policy"
	"github.com/counterseal/counterseal/internal/state"
)

// Inquiry is what an investigating office asks for, with a clock and an answer.
type Inquiry struct {
	ID        string
	Case      string
	From      string // the asking office
	Reference string // its own
	Text      string
	Due       time.Time
	Received  time.Time
	Outcome   string // one of the answers; empty while it waits
	Answer    string
	Answered  time.Time
	Overdue   bool
	Unread    bool // its text is not kept

	index uint64
}

// The answers to an inquiry.
const (
	Answered = "answered"
	Partly   = "partly"
	Declined = "declined"
	Moot     = "withdrawn" // the office took it back
)

var answers = []string{Answered, Partly, Declined, Moot}

// MaxDue is how far ahead an answer may be due.
const MaxDue = 366 * 24 * time.Hour

type receivedDetail struct {
	Case    string        `json:"case"`
	Due     string        `json:"due"`
	Payload ledger.Digest `json:"payload"`
}

func (b *Book) foldReceived(f state.Fact) error {
	q := &Inquiry{ID: f.Key, Received: f.Time, index: f.Index}
	b.inquiries[f.Key] = q
	var d receivedDetail
	if json.Unmarshal(f.Detail, &d) != nil {
		q.Unread = true
		return nil
	}
	q.Case = d.Case
	q.Due, _ = parseTime(d.Due)
	var p inquiryForm
	err := b.payload(d.Payload, &p)
	switch {
	case errors.Is(err, errUnread):
	case err != nil:
		return err
	case p.ID == q.ID:
		q.From, q.Reference, q.Text = p.From, p.Reference, p.Text
		return nil
	}
	q.Unread = true
	return nil
}

// Receive takes an inquiry in. Its clock runs from now.
func (b *Book) Receive(ctx context.Context, by policy.Person, q Inquiry) (id string, err error) {
	if err := b.lock(ctx); err != nil {
		return "", err
	}
	defer b.mu.Unlock()
	if err := b.permitted(ctx, by, "inquiry.receive", q.Case, policy.Resource{}); err != nil {
		return "", err
	}
	now, due := b.now(), q.Due.UTC().Truncate(time.Second)
	if !due.After(now) || due.After(now.Add(MaxDue)) {
		return "", mistake("due is a time to come, at most 366 days ahead")
	}
	if id, err = newID(); err != nil {
		return "", err
	}
	payload, _, err := b.put(&inquiryForm{By: ident(by.ID), Case: q.Case, Due: stamp(due), Form: inquiryName, From: q.From, ID: id, Reference: q.Reference, Text: q.Text})
	if err != nil {
		return "", err
	}
	return id, b.state(ctx, by, "inquiry.received", id, q.Case, receivedDetail{Case: q.Case, Due: stamp(due), Payload: payload})
}

type answeredDetail struct {
	Inquiry string        `json:"inquiry"`
	Outcome string        `json:"outcome"`
	Payload ledger.Digest `json:"payload"`
}

func (b *Book) foldAnswered(f state.Fact) error {
	var d answeredDetail
	q := b.inquiries[f.Key]
	if q == nil || json.Unmarshal(f.Detail, &d) != nil || q.Outcome != "" {
		return nil
	}
	q.Outcome, q.Answered = d.Outcome, f.Time
	var p answerForm
	switch err := b.payload(d.Payload, &p); {
	case errors.Is(err, errUnread):
		return nil
	case err != nil:
		return err
	}
	q.Answer = p.Text
	return nil
}

// Answer states the answer to an inquiry, once.
func (b *Book) Answer(ctx context.Context, by policy.Person, id, outcome, text string) error {
	if err := b.lock(ctx); err != nil {
		return err
	}
	defer b.mu.Unlock()
	if err := oneOf("outcome", outcome, answers); err != nil {
		return mistake(err.Error())
	}
	q := b.inquiries[id]
	if q == nil {
		return unknown("inquiry")
	}
	if err := b.permitted(ctx, by, "inquiry.answer", q.Case, policy.Resource{}); err != nil {
		return err
	}
	if q.Outcome != "" {
		return &Refusal{Code: Settled, Reason: "it was answered", Hint: "a further letter is a new inquiry"}
	}
	payload, _, err := b.put(&answerForm{By: ident(by.ID), Form: answerName, ID: id, Outcome: outcome, Text: text})
	if err != nil {
		return err
	}
	return b.state(ctx, by, "inquiry.answered", id, q.Case, answeredDetail{Inquiry: id, Outcome: outcome, Payload: payload})
}

// Inquiries lists those that wait, the one that is due next first, and then those that
// were answered, the newest first.
func (b *Book) Inquiries(ctx context.Context) ([]Inquiry, error) {
	if err := b.lock(ctx); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	now := b.now()
	out := make([]Inquiry, 0, len(b.inquiries))
	for _, q := range b.inquiries {
		one := *q
		one.Overdue = q.Outcome == "" && !now.Before(q.Due)
		out = append(out, one)
	}
	slices.SortFunc(out, func(x, y Inquiry) int {
		if wx, wy := x.Outcome == "", y.Outcome == ""; wx != wy {
			if wx {
				return -1
			}
			return 1
		} else if !wx {
			return cmp.Compare(y.index, x.index)
		}
		return cmp.Or(x.Due.Compare(y.Due), cmp.Compare(x.index, y.index))
	})
	return out, nil
}

// Reported is a refused question that overseers are told about.
type Reported struct {
	ID       string
	Reason   string // a code
	Asker    string
	Case     string
	Finding  string
	Subjects []string // whom it named
	Question string
	At       time.Time
	Unread   bool // what was asked is not kept
}

type reportedDetail struct {
	Question ledger.Digest `json:"question"`
	Reason   string        `json:"reason"`
}

func (b *Book) foldReported(f state.Fact) error {
	r := Reported{ID: f.Key, At: f.Time, Unread: true}
	var d reportedDetail
	if json.Unmarshal(f.Detail, &d) == nil {
		r.Reason = d.Reason
		var p reportForm
		switch err := b.payload(d.Question, &p); {
		case errors.Is(err, errUnread):
		case err != nil:
			return err
		case p.ID == f.Key:
			r.Unread = false
			r.Asker, r.Case, r.Finding, r.Subjects, r.Question = p.By, p.Case, p.Finding, p.Subjects, p.Question
		}
	}
	b.reported = append(b.reported, r)
	return nil
}

// Report tells the overseers of a refused question: a reason, which is a code, and the
// question as it was asked, of which the ledger holds a salted digest. What is longer
// than a payload takes is cut.
func (b *Book) Report(ctx context.Context, by policy.Person, caseID, reason, question string) error {
	if err := b.lock(ctx); err != nil {
		return err
	}
	defer b.mu.Unlock()
	if by.Inspector { // that it was asked is told, and not what
		caseID, question = "", ""
	}
	return b.report(ctx, by, reason, reportForm{Case: caseID, Question: readable(question), Subjects: []string{}})
}

func (b *Book) report(ctx context.Context, by policy.Person, reason string, p reportForm) error {
	id, err := newID()
	if err != nil {
		return err
	}
	p.By, p.Form, p.ID, p.Reason = ident(by.ID), reportName, id, reason
	if !IsCase(p.Case) {
		p.Case = "" // a question is reported whatever it says
	}
	question, _, err := b.put(&p)
	if err != nil {
		return err
	}
	return b.state(ctx, by, "question.reported", id, p.Case, reportedDetail{Question: question, Reason: reason})
}

// readable makes text that a payload takes of whatever was asked.
func readable(s string) string {
	out := make([]rune, 0, len(s))
	n := 0
	for _, r := range s {
		if !isText(string(r), 1, 4) {
			r = '?'
		}
		if n += len(string(r)); n > maxText {
			break
		}
		out = append(out, r)
	}
	return string(out)
}

// Reports lists what overseers are told about, the newest first.
func (b *Book) Reports(ctx context.Context) ([]Reported, error) {
	if err := b.lock(ctx); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	out := slices.Clone(b.reported)
	for i := range out {
		out[i].Subjects = slices.Clone(out[i].Subjects)
	}
	slices.Reverse(out)
	return out, nil
}
