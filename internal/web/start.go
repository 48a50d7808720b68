package web

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/index"
	"github.com/counterseal/counterseal/internal/pipeline"
)

// How much the start page shows; the command line has the rest.
const (
	pageRows     = 100
	pageFindings = 60
	pageGaps     = 20
)

type startPage struct {
	Title  string
	Demo   bool
	Story  []StoryLine
	Query  string
	Error  string
	Hint   string
	Table  index.Table
	Rows   []pageRow
	More   bool
	Events string
	Levels []levelCount
	Rules  int

	Reader  bool // may ask for findings
	Owner   bool // of the machine, without a login
	Notices []string

	Findings     []pageFinding
	MoreFindings bool
	Sources      []pageSource
	Checks       []pipeline.Check
	Gaps         []pageGap
	GapCount     int
}

type pageRow struct{ Time, Dataset, Device, Who, What, Ref string }

type levelCount struct {
	Level string
	N     int
}

// pageFinding is one finding, or several of one rule in a row: Count says how many.
type pageFinding struct {
	Time, Level, Title, Author, Tags, Dataset, Because, Ref string
	Count                                                   int

	rule, dataset string
}

type pageSource struct {
	Source, Dataset, Kept, LastText string
}

type pageGap struct{ Time, Source, Stream, Kind, Missing string }

// start renders the start page, and the answer to a question where one is asked.
func (s *Server) start(w http.ResponseWriter, r *http.Request) error {
	p := s.o.Pipeline
	page := startPage{Title: "What is here", Demo: s.o.Demo, Query: r.URL.Query().Get("q"), Rules: len(p.Rules().Rules()), Owner: s.owner(r)}
	if s.o.Story != nil {
		page.Story = s.o.Story()
	}
	if page.Query != "" {
		if err := s.answer(r, &page); err != nil {
			return err
		}
	}
	page.Query = event.Printable(page.Query)
	counts, err := p.State().Counts(r.Context())
	if err != nil {
		return err
	}
	var events int64
	for _, c := range counts {
		events += c.Kept
		page.Sources = append(page.Sources, pageSource{c.Source, c.Dataset, thousands(c.Kept), seconds(c.Last)})
	}
	page.Events = thousands(events)

	// Findings show people, by aliases: who may not ask for them sees how much there is
	// of everything else.
	var all []event.Finding
	if page.Reader = s.may(permitOf(r.Context()), "findings"); page.Reader {
		if all, err = p.Index().Findings(r.Context(), nil, index.Scope{}, 10_000); err != nil {
			return err
		}
		hidden, err := s.watching(r.Context(), permitOf(r.Context()))
		if err != nil {
			return err
		}
		all = slices.DeleteFunc(all, func(f event.Finding) bool { return slices.Contains(hidden, f.Rule.Digest) })
	}
	slices.SortStableFunc(all, func(a, b event.Finding) int { return a.From.Compare(b.From) })
	n := map[string]int{}
	for i := range all {
		f := &all[i]
		n[f.Rule.Level]++
		if k := len(page.Findings); k > 0 && page.Findings[k-1].rule == f.Rule.ID && page.Findings[k-1].dataset == f.Dataset {
			page.Findings[k-1].Count++
			continue
		}
		if len(page.Findings) == pageFindings {
			page.MoreFindings = true
			continue
		}
		page.Findings = append(page.Findings, newPageFinding(f))
	}
	for _, level := range []string{"critical", "high", "medium", "low", "informational"} {
		if n[level] > 0 {
			page.Levels = append(page.Levels, levelCount{level, n[level]})
		}
	}
	gaps, err := p.Gaps(r.Context(), 10_000)
	if err != nil {
		return err
	}
	page.GapCount = len(gaps)
	for _, g := range gaps[:min(len(gaps), pageGaps)] {
		missing := ""
		if g.To >= g.From && g.To > 0 {
			missing = thousands(int64(g.To - g.From + 1))
		}
		page.Gaps = append(page.Gaps, pageGap{seconds(g.At), g.Source, event.Printable(g.Stream), g.Kind, missing})
	}
	for _, c := range p.Doctor(r.Context(), false) {
		if c.State != "ok" {
			c.Text, c.Hint = event.Printable(c.Text), event.Printable(c.Hint)
			page.Checks = append(page.Checks, c)
		}
	}
	var buf bytes.Buffer
	if err := s.page.ExecuteTemplate(&buf, "start.html", &page); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, err = buf.WriteTo(w)
	return err
}

func (s *Server) answer(r *http.Request, page *startPage) error {
	p := permitOf(r.Context())
	a, err := s.ask(r)
	if err == nil {
		err = s.judge(r.Context(), p, "search", access.Search{Query: a.query}, &a)
	}
	a.limit = pageRows + 1
	if err == nil {
		err = s.mixed(r.Context(), p, a)
	}
	var no *Refused
	var bad *badRequest
	switch {
	case errors.As(err, &no):
		page.Error, page.Hint = no.Reason, no.Hint
		return nil
	case errors.As(err, &bad):
		page.Error, page.Hint = bad.text, bad.hint
		return nil
	case err != nil:
		return err
	}
	page.Notices = p.notices
	if a.query.IsTable() || p.cells {
		t, err := s.table(r.Context(), p, a)
		if err != nil {
			return err
		}
		for _, row := range t.Rows {
			for i := range row {
				row[i] = event.Printable(row[i])
			}
		}
		page.Table = t
		return nil
	}
	return s.shown(r, p, a, func(v Row) error {
		if len(page.Rows) == pageRows {
			page.More = true
			return nil
		}
		page.Rows = append(page.Rows, pageRow{
			Time: v.Time, Dataset: v.Dataset, Device: event.Printable(v.Get("device.hostname")), Who: event.Printable(Who(&v)), What: event.Printable(What(&v)), Ref: v.Ref,
		})
		return nil
	})
}

func newPageFinding(f *event.Finding) pageFinding {
	var because []string
	for _, p := range f.Parts {
		text := p.Value
		if r := []rune(text); len(r) > 160 {
			text = string(r[:160]) + "…"
		}
		because = append(because, p.Field+" = "+event.Printable(text))
		if len(because) == 4 {
			break
		}
	}
	ref := ""
	if len(f.Refs) > 0 {
		ref = f.Refs[0].String()
	}
	return pageFinding{
		Time: seconds(f.From), Level: f.Rule.Level, Title: event.Printable(f.Rule.Title), Author: event.Printable(f.Rule.Author), Tags: event.Printable(strings.Join(f.Rule.Tags, " ")),
		Dataset: f.Dataset, Because: strings.Join(because, "; "), Ref: ref, Count: 1, rule: f.Rule.ID, dataset: f.Dataset,
	}
}

// Who says in one phrase who a row is about.
func Who(r *Row) string {
	actor, user := r.Get("actor.user.uid"), r.Get("user.uid")
	switch {
	case actor != "" && user != "" && actor != user:
		return actor + " → " + user
	case user != "":
		return user
	case actor != "":
		return actor
	}
	return r.Get("src_endpoint.ip")
}

// What says in one phrase what a row is about.
func What(r *Row) string {
	if r.Kind == "finding" {
		return r.Get("rule.level") + ": " + r.Get("rule.title")
	}
	for _, name := range []string{"process.cmd_line", "process.file.path", "query.hostname", "file.path", "native.command", "native.event"} {
		if v := r.Get(name); v != "" {
			return v
		}
	}
	if dst := r.Get("dst_endpoint.ip"); dst != "" {
		return r.Get("src_endpoint.ip") + " → " + dst + " " + r.Get("dst_endpoint.port")
	}
	for _, name := range []string{"activity_name", "native.EventID", "native.msg", "class_name", "class_uid"} {
		if v := r.Get(name); v != "" {
			return strings.TrimPrefix(name, "native.") + " " + v
		}
	}
	return ""
}

func seconds(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func thousands(n int64) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + " " + text[i:]
	}
	return text
}
