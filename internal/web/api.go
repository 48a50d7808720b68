package web

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/alias"
	"github.com/counterseal/counterseal/internal/collect"
	"github.com/counterseal/counterseal/internal/detect"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/index"
	"github.com/counterseal/counterseal/internal/query"
	"github.com/counterseal/counterseal/sigma"
)

const (
	defaultLimit = 100
	maxLimit     = 1_000_000
)

// asked is a question with its bounds, as every search route reads them.
type asked struct {
	query *query.Query
	scope index.Scope
	limit int
}

func (s *Server) ask(r *http.Request) (asked, error) {
	v := r.URL.Query()
	text, err := s.meant(r.Context(), v.Get("q"))
	if err != nil {
		return asked{}, err
	}
	q, err := query.Parse(text)
	if err != nil {
		return asked{}, &badRequest{err.Error(), "see: counterseal search --help"}
	}
	if q, err = s.Joined(r.Context(), q); err != nil {
		return asked{}, err
	}
	a := asked{query: q, limit: defaultLimit}
	for name, at := range map[string]*time.Time{"from": &a.scope.From, "to": &a.scope.To} {
		if text := v.Get(name); text != "" {
			t, err := time.Parse(time.RFC3339Nano, text)
			if err != nil {
				return asked{}, &badRequest{name + " is no time", "write it like 2026-03-01T12:00:00Z"}
			}
			*at = t
		}
	}
	if text := v.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxLimit {
			return asked{}, &badRequest{"limit is a number from 1 to " + strconv.Itoa(maxLimit), ""}
		}
		a.limit = n
	}
	return a, nil
}

// meant turns the aliases of a question back. One of another case or another day says
// nothing here, and a token was never shown to anybody.
func (s *Server) meant(ctx context.Context, text string) (string, error) {
	p := permitOf(ctx)
	found, err := s.o.Gate.Aliases.Resolve(ctx, p.view, text)
	switch {
	case errors.Is(err, alias.ErrText):
		return "", &badRequest{err.Error(), ""}
	case err != nil:
		return "", err
	case found.Tokens > 0:
		return "", &Refused{"the question holds a token, and tokens never leave the server", "use the alias that the answer showed, such as person-…"}
	case found.Unknown > 0:
		return "", &Refused{"the question holds an alias that was not shown here", "an alias counts in its case alone, without a case for its day: name the case with --case, or search again"}
	}
	joined, err := s.o.Gate.Cases.Joined(ctx, p.caseID)
	if err != nil {
		return "", err
	}
	return newest(joined, found.Text), nil
}

// Row is one line of an answer.
type Row struct {
	Ref         string              `json:"ref"`
	Time        string              `json:"time"`
	Sealed      string              `json:"sealed"`
	Compartment string              `json:"compartment"`
	Source      string              `json:"source"`
	Dataset     string              `json:"dataset"`
	Kind        string              `json:"kind"`
	Truncated   bool                `json:"truncated,omitempty"`
	Fields      map[string][]string `json:"fields"`
}

// Get returns the first value of a field, empty where there is none.
func (r *Row) Get(name string) string {
	if v := r.Fields[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// newRow shows a row, without what is veiled.
func newRow(r *index.Row, veil access.Veiling, o access.Options) Row {
	out := Row{
		Ref: r.Ref, Time: stamp(time.Unix(0, r.Time)), Sealed: stamp(r.Sealed), Compartment: r.Compartment,
		Source: r.Source, Dataset: r.Dataset, Kind: r.Kind, Truncated: r.Truncated, Fields: make(map[string][]string, len(r.OCSF)+len(r.Native)),
	}
	class := ""
	for _, a := range r.OCSF {
		if a.Name == "class_uid" {
			class = a.Value
		}
	}
	veil = veil.Row(class, r.Kind)
	if !veil.Contents() && !peopled(class, r, o) {
		veil = access.Veiling{}
	}
	show := func(name, value string) {
		if !veil.HideValue(name, value, o) {
			out.Fields[name] = append(out.Fields[name], value)
		}
	}
	for _, a := range r.OCSF {
		show(a.Name, a.Value)
	}
	for _, a := range r.Native {
		show("native."+a.Name, a.Value)
	}
	if veil.Ref() {
		out.Ref = ""
	}
	if veil.Day() {
		out.Time, out.Sealed = time.Unix(0, r.Time).UTC().Format(time.DateOnly), ""
	}
	return out
}

// peopled reports whether a row leads to anybody.
func peopled(class string, r *index.Row, o access.Options) bool {
	for _, a := range r.OCSF {
		if access.Somebody(class, a.Name, a.Value, o) {
			return true
		}
	}
	return slices.ContainsFunc(r.Native, func(a index.Attr) bool { return access.Somebody(class, "native."+a.Name, a.Value, o) })
}

// stamp is how times are shown: UTC, RFC 3339, as precise as they are.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// search answers rows as JSON lines, newest first or as the question sorts; a
// question with statistics answers {"columns": …} and then a line of values each.
func (s *Server) search(w http.ResponseWriter, r *http.Request) error {
	a, err := s.ask(r)
	if err != nil {
		return err
	}
	p := permitOf(r.Context())
	if err := s.judge(r.Context(), p, "search", access.Search{Query: a.query}, &a); err != nil {
		return err
	}
	if err := s.mixed(r.Context(), p, a); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	buf := bufio.NewWriter(w)
	enc := json.NewEncoder(buf)
	if a.query.IsTable() || p.cells {
		t, err := s.table(r.Context(), p, a)
		if err != nil {
			return err
		}
		if err := enc.Encode(struct {
			Columns []string `json:"columns"`
		}{t.Columns}); err != nil {
			return err
		}
		for _, row := range t.Rows {
			if err := enc.Encode(row); err != nil {
				return err
			}
		}
		return buf.Flush()
	}
	if err := s.shown(r, p, a, func(row Row) error { return enc.Encode(row) }); err != nil {
		return err
	}
	return buf.Flush()
}

// mixed refuses an answer that shows contents without people where few people stand behind
// it, or where the limit picks its rows: beside a question for the people of the same
// events it would say whose contents they are.
func (s *Server) mixed(ctx context.Context, p *permit, a asked) error {
	if !p.veil.Contents() || p.cells || a.query.IsTable() {
		return nil
	}
	c, _ := access.Cell(&query.Query{Where: a.query.Where})
	t, err := s.o.Pipeline.Index().Stats(ctx, c.Query, a.scope)
	if err != nil {
		return err
	}
	shown, _ := s.counts.Show(s.now(), p.person.ID, c, t.Rows)
	if len(shown) == 0 {
		return &Refused{"contents are shown where " + strconv.Itoa(access.MinCell) + " people or more stand behind them, by themselves and beside what was shown today",
			"widen the question or its time; without | fields it shows people and no contents"}
	}
	limit := a.limit
	if a.query.Limit > 0 {
		limit = min(limit, a.query.Limit)
	}
	if n, err := strconv.Atoi(shown[0][0]); err != nil || n > limit {
		return &Refused{"contents are shown all or none: the limit would pick some by their time", "set the limit to " + shown[0][0] + " or more, or ask for the most frequent: | top 20 by FIELD"}
	}
	return nil
}

// shown gives the rows of an answer as the asker may see them. Where they show contents
// without people their order tells nothing either.
func (s *Server) shown(r *http.Request, p *permit, a asked, fn func(Row) error) error {
	o := s.o.Gate.Access()
	if !p.veil.Contents() {
		return s.each(r, a, func(row *index.Row) error { return fn(newRow(row, p.veil, o)) })
	}
	type line struct {
		key string
		row Row
	}
	var all []line
	err := s.each(r, a, func(row *index.Row) error {
		v := newRow(row, p.veil, o)
		key, err := json.Marshal(v)
		all = append(all, line{string(key), v})
		return err
	})
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b line) int { return strings.Compare(a.key, b.key) })
	for _, l := range all {
		if err := fn(l.row); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) each(r *http.Request, a asked, fn func(*index.Row) error) error {
	var failed error
	p := permitOf(r.Context())
	p.counted(0)
	err := s.o.Pipeline.Index().Query(r.Context(), a.query, a.scope, a.limit, func(row index.Row) bool {
		p.counted(1)
		failed = fn(&row)
		return failed == nil
	})
	if failed != nil {
		return failed
	}
	return err
}

// findings answers findings in their newest revision, newest first, as JSON lines.
func (s *Server) findings(w http.ResponseWriter, r *http.Request) error {
	a, err := s.ask(r)
	if err != nil {
		return err
	}
	a.query = onFindings(a.query)
	p := permitOf(r.Context())
	if err := s.judge(r.Context(), p, "findings", access.Search{Query: a.query}, &a); err != nil {
		return err
	}
	if p.cells {
		return &Refused{"this question about findings lists people by what they did", "ask for the findings of a rule: rule.id = …"}
	}
	all, err := s.o.Pipeline.Index().Findings(r.Context(), a.query, a.scope, a.limit)
	if err != nil {
		return err
	}
	p.counted(len(all))
	w.Header().Set("Content-Type", "application/x-ndjson")
	buf := bufio.NewWriter(w)
	enc := json.NewEncoder(buf)
	for i := range all {
		if err := enc.Encode(newFinding(&all[i])); err != nil {
			return err
		}
	}
	return buf.Flush()
}

// onFindings asks the same about findings alone, which is what the route answers with.
func onFindings(q *query.Query) *query.Query {
	only := query.Expr(query.Equal{Field: "kind", Pattern: query.Literal("finding")})
	out := *q
	out.Where = only
	if q.Where != nil {
		out.Where = query.And{Of: []query.Expr{only, q.Where}}
	}
	return &out
}

// askable compiles the rules of a request, judges what they select together, and gives
// the rules that may be asked. A rule that is in force under an authorisation is asked as it
// is in force; who asks needs a cover all the same. One that was published for everybody
// selects nobody, as in the configuration.
func (s *Server) askable(ctx context.Context, req *RetroRequest) (*detect.RuleSet, error) {
	files, bounds := s.o.Pipeline.AsInForce(req.Files)
	rules, err := detect.Compile(files, bounds...)
	if err != nil {
		return nil, err
	}
	if len(rules.Rules())+len(rules.Set().Correlations()) == 0 {
		return nil, &badRequest{"no rule of the request can be honoured", "counterseal rules check PATH says why"}
	}
	every := func(set *detect.RuleSet) []*sigma.Rule { return slices.Concat(set.Rules(), set.Set().Correlations()) }
	stood := map[[32]byte]bool{} // others have read these
	for _, r := range every(s.o.Pipeline.Rules()) {
		stood[r.Digest] = true
	}
	o := s.o.Gate.Access()
	p := permitOf(ctx)
	var out []string // files of rules that select people
	var refused error
	before := p.notices
	for _, r := range every(rules) {
		a := asked{query: &query.Query{}, scope: index.Scope{From: req.From, To: req.To}}
		public := access.Published(r)
		question := access.Question(access.Rule{Rule: r, Published: public, Alone: !public && !stood[r.Digest]})
		if v := access.Standing(r, o); (public || stood[r.Digest]) && v.Free() {
			question = access.Search{Query: nobody()}
		}
		err := s.judge(ctx, p, "rules.run", question, &a)
		var no *Refused
		switch {
		case errors.As(err, &no) || err == nil && (p.cells || len(p.cover.Scope.Sources) > 0): // a rule is not bounded by source
			if refused == nil {
				refused = err
			}
			out = append(out, r.Path)
			p.cells, p.notices = false, before
		case err != nil:
			return nil, err
		default:
			req.From, req.To = a.scope.From, a.scope.To
		}
	}
	if len(out) == 0 {
		return rules, nil
	}
	left := slices.DeleteFunc(slices.Clone(files), func(f detect.File) bool { return slices.Contains(out, f.Path) })
	if len(left) == 0 {
		if refused == nil {
			refused = &Refused{"the rules would list people by what they read or visited", "rules that two people activated answer that; or ask for an authorisation: counterseal authorise request"}
		}
		return nil, refused
	}
	p.decision.Allow = true
	p.notices = append(p.notices, strconv.Itoa(len(out))+" of "+strconv.Itoa(len(every(rules)))+" rules select people or list them by what they did, and were not asked: "+strings.Join(out[:min(len(out), 5)], ", "))
	return detect.Compile(left, bounds...)
}

// table answers with columns. Where an answer may be in counts only, each row stands for
// access.MinCell people or more, and for what a question about people by what they did
// asks, there is one row: how many they are.
func (s *Server) table(ctx context.Context, p *permit, a asked) (index.Table, error) {
	ix := s.o.Pipeline.Index()
	if !p.cells {
		t, err := ix.Stats(ctx, a.query, a.scope)
		p.counted(len(t.Rows))
		return t, err
	}
	c, _ := access.Cell(a.query)
	t, err := ix.Stats(ctx, c.Query, a.scope)
	if err != nil {
		return index.Table{}, err
	}
	shown, hidden := s.counts.Show(s.now(), p.person.ID, c, t.Rows)
	if hidden > 0 {
		p.notices = append(p.notices, strconv.Itoa(hidden)+" of "+strconv.Itoa(len(t.Rows))+" counts are left out: they stand for fewer than "+strconv.Itoa(access.MinCell)+" people, by themselves or beside what was shown today")
	}
	return index.Table{Columns: c.Columns, Rows: shown}, nil
}

// Finding is a finding as the API shows it.
type Finding struct {
	ID      string         `json:"id"`
	Rev     int            `json:"rev"`
	State   string         `json:"state"`
	Time    string         `json:"time"`
	Until   string         `json:"until"`
	Rule    event.RuleInfo `json:"rule"`
	RuleSet string         `json:"rule_set"`
	Refs    []string       `json:"refs"`
	Source  string         `json:"source"`
	Dataset string         `json:"dataset"`
	Group   string         `json:"group,omitempty"`
	Parts   []event.Part   `json:"parts"`
}

func newFinding(f *event.Finding) Finding {
	out := Finding{
		ID: f.ID, Rev: f.Rev, State: string(f.State), Time: stamp(f.From), Until: stamp(f.To), Rule: f.Rule,
		RuleSet: f.RuleSet, Source: f.Source, Dataset: f.Dataset, Group: f.Group, Parts: f.Parts, Refs: []string{},
	}
	for _, r := range f.Refs {
		out.Refs = append(out.Refs, r.String())
	}
	return out
}

func (s *Server) sources(w http.ResponseWriter, r *http.Request) error {
	counts, err := s.o.Pipeline.State().Counts(r.Context())
	if err != nil {
		return err
	}
	drops, err := s.o.Pipeline.State().Drops(r.Context())
	if err != nil {
		return err
	}
	return sendJSON(w, map[string]any{"kept": counts, "dropped": drops, "refused": s.o.Pipeline.Refused()})
}

func (s *Server) gaps(w http.ResponseWriter, r *http.Request) error {
	gaps, err := s.o.Pipeline.Gaps(r.Context(), 10_000)
	if err != nil {
		return err
	}
	return sendJSON(w, gaps)
}

// Rule is a rule as the API lists it.
type Rule struct {
	ID     string   `json:"id"`
	Title  string   `json:"title"`
	Level  string   `json:"level"`
	Status string   `json:"status"`
	Author string   `json:"author"`
	Tags   []string `json:"tags,omitempty"`
	Path   string   `json:"path"`
	// CannotTell counts events on which it could not be answered.
	CannotTell int64 `json:"cannot_tell"`
}

// rules answers the rule set in force: rules, refusals, what no source feeds and
// what the assessments hide.
func (s *Server) rules(w http.ResponseWriter, _ *http.Request) error {
	set := s.o.Pipeline.Rules()
	cannot := s.o.Pipeline.CannotTell()
	rules := []Rule{}
	for _, r := range set.Rules() {
		rules = append(rules, Rule{ID: r.ID, Title: r.Title, Level: r.Level, Status: r.Status, Author: r.Author, Tags: r.Tags, Path: r.Path, CannotTell: cannot[r.ID]})
	}
	type refused struct {
		Path   string `json:"path"`
		Line   int    `json:"line,omitempty"`
		ID     string `json:"id,omitempty"`
		Reason string `json:"reason"`
	}
	bad := []refused{}
	for _, r := range set.Refused() {
		bad = append(bad, refused{r.Path, r.Line, r.RuleID, r.Reason})
	}
	unfed := []string{}
	for _, r := range s.o.Pipeline.Unfed() {
		unfed = append(unfed, r.ID)
	}
	aside, held := s.o.Pipeline.Standing()
	return sendJSON(w, map[string]any{
		"digest": set.Digest(), "rules": rules, "refused": bad, "unfed": unfed, "blind": s.o.Pipeline.Blind(), "aside": aside, "held": held,
	})
}

func (s *Server) doctor(w http.ResponseWriter, r *http.Request) error {
	checks := s.o.Pipeline.Doctor(r.Context(), true)
	if s.o.Checks != nil {
		more, err := s.o.Checks(r.Context())
		if err != nil {
			return err
		}
		checks = append(checks, more...)
	}
	return sendJSON(w, checks)
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) error {
	p := s.o.Pipeline
	counts, err := p.State().Counts(r.Context())
	if err != nil {
		return err
	}
	var events int64
	for _, c := range counts {
		events += c.Kept
	}
	return sendJSON(w, map[string]any{
		"version": s.o.Version, "demo": s.o.Demo, "events": events, "sealed_since_start": p.Accepted(), "rule_set": p.Rules().Digest(), "sources": len(counts),
	})
}

// settle waits until everything sealed so far can be found.
func (s *Server) settle(w http.ResponseWriter, r *http.Request) error {
	if err := s.o.Pipeline.Settle(r.Context()); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err := s.o.Pipeline.Ready(); err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, werr := w.Write([]byte(err.Error() + "\n"))
		return werr
	}
	_, err := w.Write([]byte("ok\n"))
	return err
}

func (s *Server) openapi(w http.ResponseWriter, _ *http.Request) error {
	data, err := files.ReadFile("openapi.json")
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, err = w.Write(data)
	return err
}

// ImportRequest names files on the server's machine. Only the socket takes it.
type ImportRequest struct {
	Paths   []string `json:"paths"`
	Source  string   `json:"source"`
	Dataset string   `json:"dataset,omitempty"`
	Zone    string   `json:"zone,omitempty"`
}

// ImportLine is one line of the answer to an import: progress, or the report that
// ends it, or the reason why it ended.
type ImportLine struct {
	Progress *collect.Progress `json:"progress,omitempty"`
	Report   *collect.Report   `json:"report,omitempty"`
	Error    string            `json:"error,omitempty"`
	Code     string            `json:"code,omitempty"`
	Hint     string            `json:"hint,omitempty"`
}

// importFiles reads files and answers JSON lines as it goes.
func (s *Server) importFiles(w http.ResponseWriter, r *http.Request) error {
	var req ImportRequest
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil {
		return &badRequest{"the request is no import: " + err.Error(), ""}
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	if _, err := w.Write(nil); err != nil { // the ledger has the request, or nothing is read
		return err
	}
	enc := json.NewEncoder(w)
	flush := http.NewResponseController(w)
	last := time.Time{}
	report, err := s.o.Import(r.Context(), req, func(p collect.Progress) {
		if now := time.Now(); now.Sub(last) > 100*time.Millisecond {
			last = now
			if enc.Encode(ImportLine{Progress: &p}) == nil {
				flush.Flush() // a transport without it sends when it likes
			}
		}
	})
	line := ImportLine{Report: &report}
	if err != nil {
		line.Error = err.Error()
		var refusal *event.Refusal
		if errors.As(err, &refusal) {
			line.Code, line.Hint = refusal.Code, refusal.Hint
		}
	}
	return enc.Encode(line)
}

// RetroRequest names rules to ask about what is sealed.
type RetroRequest struct {
	Files []detect.File `json:"files"`
	From  time.Time     `json:"from"`
	To    time.Time     `json:"to"`
}

// maxRetro bounds the rule files of one request.
const maxRetro = 128 << 20

// retro asks the rules of the request about sealed events and answers findings as
// JSON lines, oldest first.
func (s *Server) retro(w http.ResponseWriter, r *http.Request) error {
	var req RetroRequest
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRetro))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil {
		return &badRequest{"the request names no rules", ""}
	}
	rules, err := s.askable(r.Context(), &req)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	buf := bufio.NewWriter(w)
	enc := json.NewEncoder(buf)
	if err := s.o.Pipeline.Retro(r.Context(), rules, req.From, req.To, func(f event.Finding) error { return enc.Encode(newFinding(&f)) }); err != nil {
		return err
	}
	return buf.Flush()
}
