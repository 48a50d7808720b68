package web

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/oversight"
	"github.com/counterseal/counterseal/internal/pia"
)

// The page of one's own says what is collected about people like its reader, and takes a
// complaint. It holds nothing of one person, so nobody logs in to read it, and neither a
// reading nor who complains is recorded: docs/decisions/0026.

// People is what the page of one's own needs of others; nil functions: there is no such page.
type People struct {
	// Facts tells what the page shows beside the assessments.
	Facts func(context.Context) (*PeopleFacts, error)
	// Complain seals a text to the overseers and gives the code for the answer.
	Complain func(ctx context.Context, text string) (code string, err error)
	// Receive takes a complaint that the complainant sealed themselves.
	Receive func(ctx context.Context, sealed []byte) error
	// Answer opens the answer to the complaint of a code.
	Answer func(ctx context.Context, code string) (*ComplaintAnswer, error)
	// Sealed gives the state of a complaint, and its answer as it lies there.
	Sealed func(ctx context.Context, id string) (*ComplaintState, error)
	// Source is the address of who asks, for the limit of complaints; empty: not known.
	Source func(*http.Request) string
}

// PeopleFacts are who may look here, and the keys of those who watch.
type PeopleFacts struct {
	*PublicFacts
	// Readers are the offices whose holders may ask about people under an authorisation,
	// Deciders those that decide on it, Overseers those that watch.
	Readers, Deciders, Overseers []string
	Officers                     bool // names are sealed to two officers who hold keys of their own
	Tells                        bool // a broker can tell people that they were looked at
	Keys                         ComplaintKeys
	Contact                      string // another way to the overseers
}

// ComplaintKeys are those of the overseers, to which a complaint is sealed.
type ComplaintKeys struct {
	Org   string         `json:"org"`
	Epoch int            `json:"epoch"`
	Keys  []ComplaintKey `json:"keys"` // empty: nobody could read a complaint
}

// ComplaintKey is one of them.
type ComplaintKey struct {
	ID  string `json:"id"`  // SHA-256 of Key, hex
	Key []byte `json:"key"` // as in the card of the officer
}

// ComplaintState is what may be known of a complaint by its id.
type ComplaintState struct {
	State   string `json:"state"` // waiting or closed
	Outcome string `json:"outcome,omitempty"`
	Answer  []byte `json:"answer,omitempty"` // complaint.answer/v1, sealed
}

// ComplaintAnswer is what a code opens.
type ComplaintAnswer struct {
	State, Outcome, Text string
}

// ErrNoComplaint says that a code or an id is that of no complaint.
var ErrNoComplaint = errors.New("there is no complaint of this code")

// Told is the page of one's own, and its JSON.
type Told struct {
	Kind        string           `json:"kind,omitempty"` // of people; empty: no assessment names any
	Kinds       []ToldKind       `json:"kinds"`
	Assessments []ToldAssessment `json:"assessments"` // that are about them
	Protected   []string         `json:"protected"`   // names of channels that are left alone
	Watch       ToldWatch        `json:"watch"`
	Looking     ToldLooking      `json:"looking"`
	Counts      *ToldCounts      `json:"counts,omitempty"` // of the last whole quarter; absent while they are being counted
	Complaint   ToldComplaint    `json:"complaint"`
}

// ToldKind is one kind of people that assessments name.
type ToldKind struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

// ToldAssessment is one assessment in force.
type ToldAssessment struct {
	ID         string        `json:"id"`
	Version    int           `json:"version"`
	Title      string        `json:"title"`
	Summary    string        `json:"summary,omitempty"`
	System     string        `json:"system"`
	Since      string        `json:"since"` // a day
	Until      string        `json:"until"` // the last day
	URL        string        `json:"url,omitempty"`
	People     int           `json:"people,omitempty"` // of this kind, as it estimates
	Law        []string      `json:"law"`
	Purposes   []ToldPurpose `json:"purposes"`
	Sources    []ToldSource  `json:"sources"`
	Recipients []ToldShare   `json:"recipients"`
	Notice     string        `json:"notice"`
	Consent    string        `json:"consent,omitempty"`
	Redress    string        `json:"redress,omitempty"`
}

// ToldPurpose is what data may be looked at for.
type ToldPurpose struct {
	ID         string   `json:"id"`
	Statement  string   `json:"statement"`
	Prohibited []string `json:"prohibited,omitempty"`
}

// ToldShare is who outside gets some of it.
type ToldShare struct {
	Recipient string `json:"recipient"`
	Purpose   string `json:"purpose"`
	Agreement string `json:"agreement,omitempty"`
}

// ToldSource is what one source sends.
type ToldSource struct {
	Source    string      `json:"source"`
	Dataset   string      `json:"dataset,omitempty"`
	Kept      int         `json:"kept_days"`
	Originals int         `json:"originals_days"` // bytes as received; 0: not kept
	After     string      `json:"after"`          // what becomes of it then
	Fields    []ToldGroup `json:"fields"`
}

// ToldGroup are the fields of which the same becomes.
type ToldGroup struct {
	Action  string   `json:"action"`
	Becomes string   `json:"becomes"`
	What    []string `json:"what"`  // kinds of data among them, in words
	Names   []string `json:"names"` // as the source writes them
}

// ToldWatch says whether somebody independent watches now.
type ToldWatch struct {
	State string `json:"state"` // watched, stopped or nobody
	Why   string `json:"why,omitempty"`
	Since string `json:"since,omitempty"`
	Waits bool   `json:"waits"` // new authorisations wait until looks are reviewed
}

// ToldLooking says who may look, by offices.
type ToldLooking struct {
	Readers   []string `json:"readers"`
	Deciders  []string `json:"deciders"`
	Overseers []string `json:"overseers"`
	Officers  bool     `json:"officers"`
	Tells     bool     `json:"tells"` // people are told that they were looked at
}

// ToldCounts are those of the public report.
type ToldCounts struct {
	From  string      `json:"from"` // first day
	To    string      `json:"to"`   // last day
	Looks []ToldCount `json:"looks"`
}

// ToldCount is one of them.
type ToldCount struct {
	Name  string `json:"name"`
	About string `json:"about,omitempty"`
	N     string `json:"n"` // a number, or "fewer than 8"
}

// ToldComplaint is how to complain.
type ToldComplaint struct {
	ComplaintKeys
	Contact string `json:"contact,omitempty"`
}

// kindNames says the kinds of people of an assessment in words, in the order of the page.
var kindNames = [][2]string{
	{"employee", "Employees"}, {"contractor", "Contractors"}, {"applicant", "Applicants"}, {"visitor", "Visitors"},
	{"public", "The public"}, {"minor", "Minors"}, {"foreign-national", "Foreign nationals"}, {"other", "Others"},
}

// becomes says in words what is done with a field, in the order of the page.
var becomes = []struct {
	action       pia.Action
	words, short string
}{
	{pia.Allow, "kept, with codes for the names that are found in it", "kept"},
	{pia.Tokenise, "kept as a code in place of the name", "kept as codes"},
	{pia.Truncate, "kept shortened", "kept shortened"},
	{pia.HashKeyed, "kept as a digest that nobody turns back", "kept as digests"},
	{pia.DetectOnly, "looked at by detection, and not kept", "looked at and not kept"},
	{pia.Drop, "thrown away at the door", "thrown away"},
}

// categoryWords says categories of fields in words; others are shown as they are.
var categoryWords = map[string]string{
	"person": "who somebody is", "mail": "mail addresses", "phone": "telephone numbers", "address": "network addresses", "device": "devices", "url": "addresses of pages",
	"path": "paths of files", "command": "commands", "free-text": "free text", "text": "free text", "location": "places", "biometric": "biometric data", "precise-location": "precise places", "content": "content of messages",
}

// afterWords says what becomes of records whose time is over.
var afterWords = map[string]string{"destroy": "destroyed", "crypto-shred": "destroyed with its key", "transfer-nara": "handed to the national archives"}

// counted are the counts of the report that tell how people were looked at.
var counted = []string{"looks", "names-opened", "inspector-looks", "inspector-names", "notices", "complaints"}

// me renders the page, or its JSON.
func (s *Server) me(w http.ResponseWriter, r *http.Request) error {
	told, err := s.told(r)
	if err != nil || told == nil {
		return s.untold(w, r, err)
	}
	if strings.HasPrefix(r.URL.Path, "/api/") {
		return sendJSON(w, told)
	}
	return s.mePage(w, http.StatusOK, "me.html", &mePage{Title: "What is collected about me", Demo: s.o.Demo, Told: told})
}

func (s *Server) untold(w http.ResponseWriter, r *http.Request, err error) error {
	if err == nil {
		http.NotFound(w, r)
	}
	return err
}

// told gathers what the page says; nil where there is none.
func (s *Server) told(r *http.Request) (*Told, error) {
	if s.o.People.Facts == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 2*time.Minute)
	defer cancel()
	f, err := s.o.People.Facts(ctx)
	if err != nil {
		return nil, err
	}
	assessed := s.o.Pipeline.Assessed()
	t := tell(assessed, r.URL.Query().Get("of"))
	if t == nil && !strings.HasPrefix(r.URL.Path, "/api/") { // an old link leads to the page as it is now
		t = tell(assessed, "")
	}
	if t == nil {
		return nil, &badRequest{"no assessment in force is about this kind of people", "leave out `of`; the answer names the kinds"}
	}
	t.Protected = []string{}
	for _, c := range s.o.Pipeline.Channels().InForce {
		if name := event.Printable(c.Name); name != "" && !slices.Contains(t.Protected, name) {
			t.Protected = append(t.Protected, name)
		}
	}
	slices.Sort(t.Protected)
	t.Watch = ToldWatch{State: "watched", Waits: f.Waits}
	switch {
	case !f.Watched:
		t.Watch.State = "nobody"
	case f.Stopped != nil:
		t.Watch.State, t.Watch.Why, t.Watch.Since = "stopped", f.Stopped.Text(), f.Stopped.Since.UTC().Format("2 January 2006, 15:04")
	}
	t.Looking = ToldLooking{append([]string{}, f.Readers...), append([]string{}, f.Deciders...), append([]string{}, f.Overseers...), f.Officers, f.Tells}
	if f.Report != nil {
		t.Counts = countsOf(f.Report)
	}
	t.Complaint = ToldComplaint{f.Keys, event.Printable(f.Contact)}
	if t.Complaint.Keys == nil {
		t.Complaint.Keys = []ComplaintKey{}
	}
	return t, nil
}

// countsOf gives some counts of a report as it tells them, and nothing that is not in it.
func countsOf(r *oversight.Report) *ToldCounts {
	c := &ToldCounts{From: r.From.Format(time.DateOnly), To: r.To.AddDate(0, 0, -1).Format(time.DateOnly), Looks: []ToldCount{}}
	for _, t := range totals {
		if slices.Contains(counted, t[0]) {
			c.Looks = append(c.Looks, ToldCount{t[1], t[2], countText(r.Family(t[0]).Total)})
		}
	}
	return c
}

// tell says what the assessments in force say about one kind of people, the first that they
// name where kind is empty; nil where none is about that kind.
func tell(in []pia.Assessed, kind string) *Told {
	t := &Told{Kinds: []ToldKind{}, Assessments: []ToldAssessment{}}
	about := func(a *pia.Assessed, kind string) int {
		return slices.IndexFunc(a.Subjects, func(s pia.Subject) bool { return s.Category == kind })
	}
	for _, k := range kindNames {
		if slices.ContainsFunc(in, func(a pia.Assessed) bool { return about(&a, k[0]) >= 0 }) {
			t.Kinds = append(t.Kinds, ToldKind{k[0], k[1]})
		}
	}
	switch {
	case kind == "" && len(t.Kinds) == 0:
		return t
	case kind == "":
		kind = t.Kinds[0].Kind
	case !slices.ContainsFunc(t.Kinds, func(k ToldKind) bool { return k.Kind == kind }):
		return nil
	}
	t.Kind = kind
	for i := range in {
		if at := about(&in[i], kind); at >= 0 {
			t.Assessments = append(t.Assessments, assessment(&in[i], in[i].Subjects[at].Estimate))
		}
	}
	return t
}

func printables(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = event.Printable(s)
	}
	return out
}

func assessment(a *pia.Assessed, people int) ToldAssessment {
	out := ToldAssessment{
		ID: event.Printable(a.ID), Version: a.Version, Title: event.Printable(a.Title), Summary: event.Printable(a.Summary), System: event.Printable(a.System.ID), Since: a.Effective, Until: a.Expires,
		People: people, Law: []string{}, Purposes: []ToldPurpose{}, Sources: []ToldSource{}, Recipients: []ToldShare{},
		Notice: event.Printable(a.Notice.How), Consent: a.Notice.Consent, Redress: event.Printable(a.Notice.Redress),
	}
	if strings.HasPrefix(a.Publication.URL, "https://") {
		out.URL = event.Printable(a.Publication.URL)
	}
	for _, l := range a.Authority {
		out.Law = append(out.Law, event.Printable(l.Citation))
	}
	out.Law = append(out.Law, printables(a.SORN)...)
	for _, p := range a.Purposes {
		out.Purposes = append(out.Purposes, ToldPurpose{event.Printable(p.ID), event.Printable(p.Statement), printables(p.Prohibited)})
	}
	for _, s := range a.Sharing {
		out.Recipients = append(out.Recipients, ToldShare{event.Printable(s.Recipient), event.Printable(s.Purpose), event.Printable(s.Agreement)})
	}
	for i := range a.Collected {
		c := &a.Collected[i]
		src := ToldSource{
			Source: event.Printable(c.Rule.Source), Dataset: event.Printable(c.Rule.Dataset), Kept: c.Rule.Retention, Originals: c.Rule.OriginalDays,
			After: afterWords[c.Rule.Disposition], Fields: []ToldGroup{},
		}
		for _, b := range becomes {
			g := ToldGroup{Action: b.action.String(), Becomes: b.words, What: []string{}, Names: []string{}}
			for _, f := range c.Fields {
				if f.Action != b.action {
					continue
				}
				name := event.Printable(f.Path)
				switch {
				case f.Action == pia.Truncate:
					name += " (" + strconv.Itoa(f.Arg) + ")"
				case f.Path == "_peer":
					name = "address of the sender"
				case f.Path == "_unparsed":
					name = "lines that cannot be read"
				}
				g.Names = append(g.Names, name)
				if f.Category == "" {
					continue
				}
				what := event.Printable(f.Category)
				if w := categoryWords[f.Category]; w != "" {
					what = w
				}
				if !slices.Contains(g.What, what) {
					g.What = append(g.What, what)
				}
			}
			if len(g.Names) > 0 {
				src.Fields = append(src.Fields, g)
			}
		}
		out.Sources = append(out.Sources, src)
	}
	return out
}

// mePage is what the templates of the page of one's own are given.
type mePage struct {
	Title string
	Demo  bool
	*Told
	Text    string // that was not taken, so that it is not lost
	Problem string
	Hint    string
	Code    string // shown once
	Answer  *ComplaintAnswer
	MaxText int
}

// Days writes a number of days.
func (p *mePage) Days(n int) string { return days(n) }

// Name is the kind of people in words.
func (t *Told) Name() string {
	for _, k := range t.Kinds {
		if k.Kind == t.Kind {
			return k.Name
		}
	}
	return ""
}

// Sum says in a line what becomes of the fields of a source.
func (s ToldSource) Sum() string {
	var parts []string
	for _, b := range becomes {
		for _, g := range s.Fields {
			if g.Action == b.action.String() {
				parts = append(parts, strconv.Itoa(len(g.Names))+" "+b.short)
			}
		}
	}
	return "Fields: " + strings.Join(parts, ", ")
}

// ToldRights is what the assessments of some titles say alike.
type ToldRights struct {
	Of                       []string
	Notice, Consent, Redress string
}

// Rights joins the assessments that say the same about notice and redress.
func (t *Told) Rights() (out []ToldRights) {
	for i := range t.Assessments {
		a := &t.Assessments[i]
		at := slices.IndexFunc(out, func(r ToldRights) bool {
			return r.Notice == a.Notice && r.Consent == a.Consent && r.Redress == a.Redress
		})
		if at < 0 {
			out, at = append(out, ToldRights{nil, a.Notice, a.Consent, a.Redress}), len(out)
		}
		out[at].Of = append(out[at].Of, a.Title)
	}
	return out
}

// Day writes a day of an assessment as people do.
func (p *mePage) Day(day string) string {
	t, err := time.Parse(time.DateOnly, day)
	if err != nil {
		return day
	}
	return t.Format("2 January 2006")
}

func (s *Server) mePage(w http.ResponseWriter, status int, name string, page *mePage) error {
	page.MaxText = maxComplaint
	var buf bytes.Buffer
	if err := s.page.ExecuteTemplate(&buf, name, page); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, err := buf.WriteTo(w)
	return err
}

// maxComplaint bounds the text of a complaint, in bytes; maxSealed a sealed one.
const (
	maxComplaint = 16 << 10
	maxSealed    = 128 << 10
)

// complain takes the form of the page. The text is sealed before anything else is done with
// it, and lies nowhere.
func (s *Server) complain(w http.ResponseWriter, r *http.Request) error {
	if s.o.People.Complain == nil {
		return s.untold(w, r, nil)
	}
	r.Body = http.MaxBytesReader(w, r.Body, 4*maxComplaint)
	err := r.ParseForm()
	text := strings.ReplaceAll(r.PostForm.Get("text"), "\r\n", "\n")
	code := ""
	switch {
	case err != nil:
		text, err = "", &badRequest{"the form is longer than a complaint may be, or was broken off", "a complaint holds up to 16,384 bytes"}
	default:
		if err = s.room(r); err == nil {
			code, err = s.o.People.Complain(r.Context(), text)
		}
	}
	page := &mePage{Title: "Your complaint", Demo: s.o.Demo, Code: code, Text: text}
	status, known := page.problem(err)
	if !known {
		return err
	}
	return s.mePage(w, status, "me_complaint.html", page)
}

// problem says on the page what was wrong; false: that is for the log.
func (p *mePage) problem(err error) (status int, known bool) {
	var bad *badRequest
	var no *Refused
	var full *tooMany
	switch {
	case err == nil:
		return http.StatusOK, true
	case errors.As(err, &bad):
		p.Problem, p.Hint = bad.text, bad.hint
		return http.StatusBadRequest, true
	case errors.As(err, &no):
		p.Problem, p.Hint = no.Reason, no.Hint
		return http.StatusForbidden, true
	case errors.As(err, &full):
		p.Problem, p.Hint = full.Error(), "wait an hour, or use another way to the overseers; the page names it"
		return http.StatusTooManyRequests, true
	case errors.Is(err, ErrNoComplaint):
		p.Problem, p.Hint = ErrNoComplaint.Error(), "look at each letter again; answers are kept for a year"
		return http.StatusNotFound, true
	}
	return 0, false
}

// answerShown shows the answer to the complaint of a code. The code comes in the body of a form:
// an address would be logged on its way.
func (s *Server) answerShown(w http.ResponseWriter, r *http.Request) error {
	if s.o.People.Answer == nil {
		return s.untold(w, r, nil)
	}
	r.Body = http.MaxBytesReader(w, r.Body, 4<<10)
	page := &mePage{Title: "The answer to your complaint", Demo: s.o.Demo}
	err := r.ParseForm()
	if err == nil {
		page.Answer, err = s.o.People.Answer(r.Context(), r.PostForm.Get("code"))
	} else {
		err = &badRequest{"the form was broken off", "send it again"}
	}
	status, known := page.problem(err)
	if !known {
		return err
	}
	return s.mePage(w, status, "me_complaint.html", page)
}

// receive takes a complaint that its maker sealed.
func (s *Server) receive(w http.ResponseWriter, r *http.Request) error {
	if s.o.People.Receive == nil {
		return s.untold(w, r, nil)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxSealed))
	if err != nil {
		return &badRequest{"the complaint is too large or was broken off", "counterseal me complain makes one"}
	}
	if err := s.room(r); err != nil {
		return busy(w, err)
	}
	if err := s.o.People.Receive(r.Context(), body); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// busy answers a source that has sent too much, and passes other errors on.
func busy(w http.ResponseWriter, err error) error {
	var full *tooMany
	if !errors.As(err, &full) {
		return err
	}
	w.Header().Set("Retry-After", strconv.Itoa(int(full.after/time.Second)+1))
	problem(w, http.StatusTooManyRequests, "busy", full.Error(), "wait an hour, or use another way to the overseers: counterseal me")
	return nil
}

// sealedComplaint gives state and sealed answer of a complaint by its id.
func (s *Server) sealedComplaint(w http.ResponseWriter, r *http.Request) error {
	if s.o.People.Sealed == nil {
		return s.untold(w, r, nil)
	}
	st, err := s.o.People.Sealed(r.Context(), r.PathValue("id"))
	if errors.Is(err, ErrNoComplaint) {
		return &badRequest{ErrNoComplaint.Error(), "answers are kept for a year"}
	}
	if err != nil {
		return err
	}
	return sendJSON(w, st)
}

// room refuses where too many complaints came within the hour.
func (s *Server) room(r *http.Request) error {
	from := ""
	if s.o.People.Source != nil {
		from = s.o.People.Source(r)
	}
	return s.complaints.take(from, s.now())
}

// ForgetSources throws away what the limit of complaints had of the hour before.
func (s *Server) ForgetSources() { s.complaints.forget(s.now()) }
