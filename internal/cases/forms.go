package cases

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/ledger"
)

// The bounds of payloads.
const (
	maxPayload  = 1 << 20
	maxRules    = 16 << 20 // of a rule set
	maxSubjects = 1000
	maxSources  = 100
	maxReaders  = 20
	maxChain    = 2000
	maxText     = 16 << 10
	maxCode     = 64
	timeForm    = "2006-01-02T15:04:05Z"
)

// form is a payload.
type form interface {
	check() error
	fresh() form // an empty one of the same kind
}

// parse reads the canonical form of a payload and nothing else. Its errors name members
// and quote nothing.
func parse(b []byte, v form) error {
	limit := maxPayload
	if _, ok := v.(*rulesForm); ok {
		limit = maxRules
	}
	if err := approval.DecodeUpTo(limit, b, v); err != nil {
		return err
	}
	return v.check()
}

// owner is who asked for something, as the record of offices had them then.
type owner struct {
	Authorities []string `json:"authorities"` // that appointed their offices
	Chain       []string `json:"chain"`       // persons above and below
	Person      string   `json:"person"`
}

func (w *owner) check() error {
	if !isPerson(w.Person) {
		return errors.New("a person id of 1 to 128 bytes")
	}
	if err := sorted("authorities", w.Authorities, 1, maxChain, ledger.IsWord); err != nil {
		return err
	}
	return sorted("chain", w.Chain, 0, maxChain, isPerson)
}

type scopeForm struct {
	From     string   `json:"from"`
	Reverse  bool     `json:"reverse"`
	Sources  []string `json:"sources"`
	Subjects []string `json:"subjects"`
	To       string   `json:"to"`
}

func (s *scopeForm) check() error {
	from, err := parseTime(s.From)
	if err != nil || from.Year() < 1970 {
		return errors.New("scope: from is not a time since 1970")
	}
	to, err := parseTime(s.To)
	if err != nil {
		return errors.New("scope: to is not a time")
	}
	if !from.Before(to) {
		return errors.New("scope: from lies behind to")
	}
	if err := sorted("scope: sources", s.Sources, 0, maxSources, ledger.IsWord); err != nil {
		return err
	}
	least := 1
	if s.Reverse {
		least = 0
	}
	return sorted("scope: subjects", s.Subjects, least, maxSubjects, isSubject)
}

func (s *scopeForm) scope() Scope {
	from, _ := parseTime(s.From)
	to, _ := parseTime(s.To)
	return Scope{Subjects: slices.Clone(s.Subjects), Sources: slices.Clone(s.Sources), From: from, To: to, Reverse: s.Reverse}
}

// requestForm is what an authorisation asks for: the bytes that people decide on.
type requestForm struct {
	Basis     string    `json:"basis"`
	Case      string    `json:"case"`
	Counsel   bool      `json:"counsel"`
	Ends      string    `json:"ends"`
	Form      string    `json:"form"`
	ID        string    `json:"id"`
	Outside   bool      `json:"outside"`
	Owner     owner     `json:"owner"`
	Predicate string    `json:"predicate"`
	Readers   []owner   `json:"readers"`
	Scope     scopeForm `json:"scope"`
}

const requestName = "authorisation/v1"

func (*requestForm) fresh() form { return &requestForm{} }

func (r *requestForm) check() error {
	if err := head(r.Form, requestName, r.ID); err != nil {
		return err
	}
	if !IsCase(r.Case) {
		return errCase
	}
	if !isCode(r.Basis) {
		return errors.New("basis is the code of a legal basis, 1 to 64 letters, digits and . _ : / -")
	}
	if !ledger.IsWord(r.Predicate) {
		return errors.New("predicate is the id of a finding or the digest of an allegation")
	}
	ends, err := parseTime(r.Ends)
	if err != nil {
		return errors.New("ends is not a time")
	}
	if err := r.Owner.check(); err != nil {
		return fmt.Errorf("owner: %w", err)
	}
	if r.Readers == nil || len(r.Readers) > maxReaders {
		return fmt.Errorf("readers are at most %d", maxReaders)
	}
	last := ""
	for i := range r.Readers {
		if err := r.Readers[i].check(); err != nil {
			return fmt.Errorf("readers: %w", err)
		}
		if p := r.Readers[i].Person; p <= last || p == r.Owner.Person {
			return errors.New("readers are there once each, in order, without the one who asks")
		}
		last = r.Readers[i].Person
	}
	if err := r.Scope.check(); err != nil {
		return err
	}
	if to, _ := parseTime(r.Scope.To); to.After(ends) {
		return errors.New("scope: to lies behind the end of the authorisation")
	}
	return nil
}

// decisionForm is what one person decided, in an office.
type decisionForm struct {
	Authority string `json:"authority"` // that appointed the office
	By        string `json:"by"`
	Decision  string `json:"decision"`
	Digest    string `json:"digest"` // of the request that they read
	Form      string `json:"form"`
	ID        string `json:"id"` // of the authorisation
	Office    string `json:"office"`
	Outside   bool   `json:"outside"`
	Overseer  bool   `json:"overseer"`
}

const (
	decisionName = "authorisation.decision/v1"
	approve      = "approve"
	refuse       = "refuse"
)

func (*decisionForm) fresh() form { return &decisionForm{} }

func (d *decisionForm) check() error {
	if err := head(d.Form, decisionName, d.ID); err != nil {
		return err
	}
	switch {
	case d.Decision != approve && d.Decision != refuse:
		return errors.New("decision is approve or refuse")
	case !isPerson(d.By) || !ledger.IsWord(d.Office) || !ledger.IsWord(d.Authority):
		return errors.New("by, office and authority say who decided")
	case !isDigest(d.Digest):
		return errors.New("digest is not one of a request")
	}
	return nil
}

// lookForm is what a grant or a broken glass opens, to whom.
type lookForm struct {
	Case     string   `json:"case"` // empty for a grant outside of a case
	Finding  string   `json:"finding"`
	Form     string   `json:"form"`
	From     string   `json:"from"` // of the events; empty: not bounded
	ID       string   `json:"id"`
	Owner    owner    `json:"owner"`
	Rule     string   `json:"rule"` // digest of the rule
	Subjects []string `json:"subjects"`
	To       string   `json:"to"`
	Until    string   `json:"until"` // by the clock
}

const (
	grantName = "grant/v1"
	glassName = "glass/v1"
)

func (*lookForm) fresh() form { return &lookForm{} }

func (l *lookForm) check() error {
	if err := head(l.Form, l.Form, l.ID); err != nil {
		return err
	}
	if _, err := parseTime(l.Until); err != nil {
		return errors.New("until is not a time")
	}
	if err := l.Owner.check(); err != nil {
		return fmt.Errorf("owner: %w", err)
	}
	limit := maxSubjects
	switch l.Form {
	case glassName:
		limit = GlassSubjects
		if !IsCase(l.Case) {
			return errCase
		}
		if l.Finding != "" || l.Rule != "" || l.From != "" || l.To != "" {
			return errors.New("a broken glass has no finding, rule and times")
		}
	case grantName:
		from, err := parseTime(l.From)
		if err != nil {
			return errors.New("from is not a time")
		}
		to, err := parseTime(l.To)
		if err != nil || to.Before(from) {
			return errors.New("to is not a time behind from")
		}
		if l.Case != "" && !IsCase(l.Case) {
			return errCase
		}
		if !ledger.IsWord(l.Finding) || !ledger.IsWord(l.Rule) {
			return errors.New("finding and rule are an id and a digest")
		}
	default:
		return errors.New("form is neither that of a grant nor of a broken glass")
	}
	return sorted("subjects", l.Subjects, 1, limit, isSubject)
}

// reviewForm is who looked at it afterwards.
type reviewForm struct {
	By      string `json:"by"`
	Form    string `json:"form"`
	ID      string `json:"id"` // of the grant or glass
	Office  string `json:"office"`
	Outcome string `json:"outcome"`
}

const reviewName = "grant.review/v1"

func (*reviewForm) fresh() form { return &reviewForm{} }

func (r *reviewForm) check() error {
	if err := head(r.Form, reviewName, r.ID); err != nil {
		return err
	}
	if !isPerson(r.By) || !ledger.IsWord(r.Office) {
		return errors.New("by and office say who reviewed")
	}
	return oneOf("outcome", r.Outcome, outcomes)
}

// inquiryForm is what an investigating office asks for.
type inquiryForm struct {
	By        string `json:"by"` // who received it
	Case      string `json:"case"`
	Due       string `json:"due"`
	Form      string `json:"form"`
	From      string `json:"from"`
	ID        string `json:"id"`
	Reference string `json:"reference"` // theirs
	Text      string `json:"text"`
}

const inquiryName = "inquiry/v1"

func (*inquiryForm) fresh() form { return &inquiryForm{} }

func (q *inquiryForm) check() error {
	if err := head(q.Form, inquiryName, q.ID); err != nil {
		return err
	}
	if !IsCase(q.Case) {
		return errCase
	}
	if !isPerson(q.By) {
		return errors.New("by is who received it")
	}
	if _, err := parseTime(q.Due); err != nil {
		return errors.New("due is not a time")
	}
	if !isText(q.From, 1, 200) || !isText(q.Reference, 0, 200) || !isText(q.Text, 1, maxText) {
		return errors.New("from, reference and text are text of at most 200, 200 and 16384 bytes; from and text are not empty")
	}
	return nil
}

// answerForm is the answer to an inquiry.
type answerForm struct {
	By      string `json:"by"`
	Form    string `json:"form"`
	ID      string `json:"id"` // of the inquiry
	Outcome string `json:"outcome"`
	Text    string `json:"text"`
}

const answerName = "inquiry.answer/v1"

func (*answerForm) fresh() form { return &answerForm{} }

func (a *answerForm) check() error {
	if err := head(a.Form, answerName, a.ID); err != nil {
		return err
	}
	if !isPerson(a.By) || !isText(a.Text, 0, maxText) {
		return errors.New("by is who answered, and text at most 16384 bytes")
	}
	return oneOf("outcome", a.Outcome, answers)
}

// reportForm is a question that overseers are told about.
type reportForm struct {
	By       string   `json:"by"`
	Case     string   `json:"case"`
	Finding  string   `json:"finding"`
	Form     string   `json:"form"`
	ID       string   `json:"id"`
	Question string   `json:"question"`
	Reason   string   `json:"reason"`
	Subjects []string `json:"subjects"`
}

const reportName = "question.report/v1"

func (*reportForm) fresh() form { return &reportForm{} }

func (r *reportForm) check() error {
	if err := head(r.Form, reportName, r.ID); err != nil {
		return err
	}
	switch {
	case !isPerson(r.By):
		return errors.New("by is who asked")
	case r.Case != "" && !IsCase(r.Case):
		return errCase
	case r.Finding != "" && !ledger.IsWord(r.Finding):
		return errors.New("finding is no id")
	case !isCode(r.Reason):
		return errors.New("reason is a code")
	case !isText(r.Question, 0, maxText):
		return errors.New("question is text of at most 16384 bytes")
	}
	return sorted("subjects", r.Subjects, 0, maxSubjects, func(s string) bool { return isText(s, 1, 256) })
}

// rulesForm is a rule set that two people stand for.
type rulesForm struct {
	Approved string     `json:"approved"` // who approved it
	Asked    string     `json:"asked"`    // who asked for it
	Digest   string     `json:"digest"`   // of the set
	Form     string     `json:"form"`
	ID       string     `json:"id"`
	Rules    []ruleForm `json:"rules"`
}

type ruleForm struct {
	Authors []string `json:"authors"` // who wrote or changed it here; none for a publisher's
	Digest  string   `json:"digest"`
}

const rulesName = "rules/v1"

func (*rulesForm) fresh() form { return &rulesForm{} }

func (r *rulesForm) check() error {
	if err := head(r.Form, rulesName, r.ID); err != nil {
		return err
	}
	switch {
	case !isPerson(r.Asked) || !isPerson(r.Approved) || r.Asked == r.Approved:
		return errors.New("asked and approved are two people")
	case !isDigest(r.Digest):
		return errors.New("digest is not one of a rule set")
	case r.Rules == nil:
		return errors.New("rules are missing")
	}
	last := ""
	for i := range r.Rules {
		if !ledger.IsWord(r.Rules[i].Digest) || r.Rules[i].Digest <= last {
			return errors.New("rules are there once each, in the order of their digests")
		}
		last = r.Rules[i].Digest
		if err := sorted("authors", r.Rules[i].Authors, 0, maxReaders, isPerson); err != nil {
			return err
		}
	}
	return nil
}

// head checks what every payload begins with.
func head(got, want, id string) error {
	if got != want {
		return errors.New("form is another one")
	}
	if u, err := uuid.Parse(id); err != nil || u.String() != id {
		return errors.New("id is not a UUID")
	}
	return nil
}

var errCase = errors.New("case is its number, 1 to 64 letters, digits and . _ -")

// IsCase reports the form of a case's number.
func IsCase(s string) bool { return isCode(s) && !strings.ContainsAny(s, ":/") }

func isCode(s string) bool { return len(s) <= maxCode && ledger.IsWord(s) }

func isDigest(s string) bool {
	return len(s) == 64 && !strings.ContainsFunc(s, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') })
}

func isPerson(s string) bool { return s != "" && len(s) <= 128 && ident(s) == s && isText(s, 1, 128) }

// isSubject takes a token, or a host, session or address in small letters. A mail
// address, DOMAIN\name or a full name is none: names stay at the door.
func isSubject(s string) bool {
	return s != "" && len(s) <= 256 && strings.ToLower(s) == s && utf8.ValidString(s) &&
		!strings.ContainsFunc(s, func(r rune) bool {
			return r == '@' || r == '\\' || unicode.IsSpace(r) || !unicode.IsGraphic(r) || r == utf8.RuneError
		})
}

// isText takes text that can be read as it stands.
func isText(s string, least, most int) bool {
	return len(s) >= least && len(s) <= most && utf8.ValidString(s) &&
		!strings.ContainsFunc(s, func(r rune) bool {
			return r != '\n' && (!unicode.IsGraphic(r) || r == utf8.RuneError)
		})
}

// sorted checks a list: each entry once, in order.
func sorted(name string, list []string, least, most int, ok func(string) bool) error {
	if list == nil || len(list) < least || len(list) > most {
		return fmt.Errorf("%s are %d to %d", name, least, most)
	}
	for i, s := range list {
		if !ok(s) {
			return fmt.Errorf("%s: number %d is not of the form", name, i+1)
		}
		if i > 0 && s <= list[i-1] {
			return fmt.Errorf("%s are there once each, in order", name)
		}
	}
	return nil
}

func oneOf(name, s string, of []string) error {
	if !slices.Contains(of, s) {
		return fmt.Errorf("%s is one of %s", name, strings.Join(of, ", "))
	}
	return nil
}

// list sorts, so that one set has one form. It is never nil, which would be null.
func list(in []string) []string {
	out := append([]string{}, in...)
	slices.Sort(out)
	return slices.Compact(out)
}

func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(timeForm, s)
	if err == nil && t.Format(timeForm) != s {
		err = errors.New("not in canonical form")
	}
	return t, err
}

func stamp(t time.Time) string { return t.UTC().Format(timeForm) }
