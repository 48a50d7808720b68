// Package sigmatest runs test cases for Sigma rules that stand in a text file,
// so that an analyst can add one without writing Go. It reads no file and no
// environment: the caller hands over the text and prints the report.
//
// A line at the margin is a directive; indented lines below it are its body;
// lines that begin with # are comments.
//
//	rule                      body: one or more Sigma documents that must be taken
//	refused TEXT              body: one document that must be refused; the reason holds TEXT
//	placeholder NAME = A, B   a value list for |expand
//	opaque REGEXP             what an opaque token looks like
//	source P C S              product, category, service of the events that follow; - is unset
//	event WORDS               body: one JSON object; objects inside join names with dots
//	blind NAME...             fields withheld from the event above; * is every absent field
//	addr FIELD ADDRESS        the event's FIELD is opaque and of the class of ADDRESS
//	want yes: RULE            the event above satisfies RULE (id, name or title)
//	want cannot-tell: RULE    RULE cannot be decided on it
//	want no: RULE             it reaches RULE by its log source and does not satisfy it
//	want none                 no rule is satisfied or undecided
//	matched NAME...           the fields that the last "want yes" reports
//
// The wants of an event are complete: a rule that they do not name must not match.
//
// Correlations are tested by events with a time. They arrive in the order of the
// file, and then again in random orders between two advances, some of them twice,
// with the state stored and loaded in between. Each time the findings at the end
// must be those that the file names, and no others:
//
//	at DURATION               when the event above happened, since some start; it needs no want
//	twin TEXT                 another sensor's record of what has the same TEXT
//	advance DURATION          nothing older is awaited any more
//	found RULE: EVENT... | GROUP | VALUE | FROM TO
//	                          RULE fires on the events, named as in their directive;
//	                          what follows a bar may be left out from the end
//	found none                nothing is found at the end
//	late N, ungrouped N, skipped N
//	                          how many observations are counted so, 0 when not given
package sigmatest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/counterseal/counterseal/sigma"
)

// Options are what every file of a run shares.
type Options struct {
	Rules   []*sigma.Rule  // tested beside those in the file
	Mapping *sigma.Mapping // nil means the default
}

// A Report is the outcome of one file.
type Report struct {
	Events   int
	Refused  int               // documents that were to be refused
	Failures []string          // empty when all is as wanted
	Rules    map[string]Tested // by Rule.Key
}

// Tested counts the events that name a rule.
type Tested struct{ Yes, CannotTell, No int }

type directive struct {
	line int
	word string
	rest string
	body string
	at   int // line of the body
}

type want struct {
	line    int
	verdict string
	rule    string
	matched string // names joined by a space
	checked bool   // matched was given
}

type testCase struct {
	line  int
	name  string
	event sigma.Event
	blind []string
	wants []want
	timed bool // it is part of the story
}

// Run runs the cases of one file; name is for messages.
func Run(name string, data []byte, opt Options) Report {
	rep := Report{Rules: make(map[string]Tested)}
	failf := func(line int, format string, args ...any) {
		rep.Failures = append(rep.Failures, fmt.Sprintf("%s:%d: ", name, line)+fmt.Sprintf(format, args...))
	}
	directives, err := split(data)
	if err != nil {
		rep.Failures = append(rep.Failures, fmt.Sprintf("%s: %v", name, err))
		return rep
	}
	rules := slices.Clone(opt.Rules)
	sopt := sigma.Options{Mapping: opt.Mapping, Placeholders: map[string][]string{}}
	var refusals []directive
	var cases []*testCase
	var source sigma.LogSource
	var story story
	for _, d := range directives {
		var last *testCase
		if len(cases) > 0 {
			last = cases[len(cases)-1]
		}
		switch d.word {
		case "rule":
			parsed, refused := sigma.Parse(name, []byte(d.body))
			for _, r := range refused {
				failf(d.at+r.Line-1, "refused: %s", r.Reason)
			}
			rules = append(rules, parsed...)
		case "refused":
			refusals = append(refusals, d)
		case "placeholder":
			key, values, ok := strings.Cut(d.rest, "=")
			if !ok {
				failf(d.line, "placeholder needs NAME = VALUES")
				continue
			}
			for _, v := range strings.Split(values, ",") {
				key := strings.TrimSpace(key)
				sopt.Placeholders[key] = append(sopt.Placeholders[key], strings.TrimSpace(v))
			}
		case "opaque":
			re, err := regexp.Compile(d.rest)
			if err != nil {
				failf(d.line, "opaque: %v", err)
				continue
			}
			sopt.Opaque = func(b []byte) (int, int) {
				if loc := re.FindIndex(b); loc != nil {
					return loc[0], loc[1]
				}
				return -1, -1
			}
		case "source":
			attrs := strings.Fields(d.rest)
			if len(attrs) != 3 {
				failf(d.line, "source needs product, category and service, - for unset")
				continue
			}
			for i := range attrs {
				if attrs[i] == "-" {
					attrs[i] = ""
				}
			}
			source = sigma.LogSource{Product: attrs[0], Category: attrs[1], Service: attrs[2]}
		case "event":
			fields, err := Fields([]byte(d.body))
			if err != nil {
				failf(d.at, "event: %v", err)
				continue
			}
			cases = append(cases, &testCase{line: d.line, name: d.rest, event: sigma.Event{Source: source, Fields: fields}})
		case "blind", "addr", "want", "matched":
			if last == nil {
				failf(d.line, "%s stands before any event", d.word)
				continue
			}
			if err := last.add(d); err != nil {
				failf(d.line, "%v", err)
			}
		case "at", "twin", "advance", "found", "late", "ungrouped", "skipped":
			if err := story.add(d, last); err != nil {
				failf(d.line, "%s: %v", d.word, err)
			}
		default:
			failf(d.line, "unknown directive %q", d.word)
		}
	}
	for _, d := range refusals {
		rep.Refused++
		if msg := checkRefused(d, sopt); msg != "" {
			failf(d.line, "%s", msg)
		}
	}
	set, refused := sigma.Compile(rules, sopt)
	for _, r := range refused {
		rep.Failures = append(rep.Failures, r.Error())
	}
	for _, c := range cases {
		rep.Events++
		c.run(set, &rep, failf)
	}
	story.run(set, &rep, failf)
	return rep
}

// split cuts a file into directives with their bodies, the bodies' indentation
// removed.
func split(data []byte) ([]directive, error) {
	var out []directive
	for i, line := range strings.Split(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n") {
		trimmed := strings.TrimSpace(line)
		indented := line != "" && (line[0] == ' ' || line[0] == '\t')
		switch {
		case indented || trimmed == "" && len(out) > 0 && out[len(out)-1].body != "":
			if len(out) == 0 {
				return nil, fmt.Errorf("line %d: a body without a directive", i+1)
			}
			d := &out[len(out)-1]
			if d.body == "" {
				if trimmed == "" {
					continue
				}
				d.at = i + 1
			}
			d.body += line + "\n"
		case trimmed == "" || line[0] == '#':
		default:
			word, rest, _ := strings.Cut(trimmed, " ")
			out = append(out, directive{line: i + 1, word: word, rest: strings.TrimSpace(rest)})
		}
	}
	for i := range out {
		out[i].body = dedent(out[i].body)
	}
	return out, nil
}

func dedent(body string) string {
	lines := strings.Split(body, "\n")
	margin := lines[0][:len(lines[0])-len(strings.TrimLeft(lines[0], " \t"))]
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], margin)
	}
	return strings.Join(lines, "\n")
}

func (c *testCase) add(d directive) error {
	switch d.word {
	case "blind":
		c.blind = append(c.blind, strings.Fields(d.rest)...)
	case "addr":
		name, text, _ := strings.Cut(d.rest, " ")
		class := sigma.AddrUnknown
		if text != "unknown" {
			a, err := netip.ParseAddr(strings.TrimSpace(text))
			if err != nil {
				return err
			}
			class = sigma.ClassOf(a)
		}
		found := false
		for i := range c.event.Fields {
			if c.event.Fields[i].Name == name {
				c.event.Fields[i].Addr, found = class, true
			}
		}
		if !found {
			return fmt.Errorf("the event has no field %q", name)
		}
	case "matched":
		if len(c.wants) == 0 || c.wants[len(c.wants)-1].verdict != "yes" {
			return errors.New("matched stands after no want yes")
		}
		w := &c.wants[len(c.wants)-1]
		w.matched, w.checked = d.rest, true
	case "want":
		v, rule, _ := strings.Cut(d.rest, ":")
		rule = strings.TrimSpace(rule)
		if !slices.Contains([]string{"yes", "cannot-tell", "no", "none"}, v) || (rule == "") != (v == "none") {
			return errors.New("want needs yes, cannot-tell or no with a rule, or none")
		}
		c.wants = append(c.wants, want{line: d.line, verdict: v, rule: rule})
	}
	return nil
}

func checkRefused(d directive, opt sigma.Options) string {
	rules, refused := sigma.Parse("", []byte(d.body))
	_, late := sigma.Compile(rules, opt)
	refused = append(refused, late...)
	if len(refused) == 0 {
		return "the document was taken"
	}
	for _, r := range refused {
		if strings.Contains(r.Reason, d.rest) {
			return ""
		}
	}
	return "refused for another reason: " + refused[0].Reason
}

func (c *testCase) run(set *sigma.Set, rep *Report, failf func(int, string, ...any)) {
	if len(c.wants) == 0 && c.timed {
		return
	}
	if len(c.wants) == 0 {
		failf(c.line, "event %q: no want", c.name)
		return
	}
	ev := c.view()
	got := make(map[*sigma.Rule]sigma.Match)
	set.Match(&ev, func(m sigma.Match) { got[m.Rule] = m })
	for _, w := range c.wants {
		if w.verdict == "none" {
			continue // what is left over below fails
		}
		r := lookup(set, w.rule)
		if r == nil {
			failf(w.line, "no rule has the id, name or title %q", w.rule)
			continue
		}
		tested := rep.Rules[r.Key()]
		m, ok := got[r]
		delete(got, r)
		verdict := sigma.No
		if ok {
			verdict = m.Verdict
		}
		if verdict.String() != w.verdict {
			failf(w.line, "event %q: rule %q says %s, want %s", c.name, r.Title, verdict, w.verdict)
		}
		switch w.verdict {
		case "yes":
			tested.Yes++
		case "cannot-tell":
			tested.CannotTell++
		case "no":
			tested.No++
			if !set.Reaches(r, &ev) {
				failf(w.line, "event %q: it does not reach rule %q by its log source, so that it does not match shows nothing", c.name, r.Title)
			}
		}
		rep.Rules[r.Key()] = tested
		if w.checked {
			var names []string
			for _, f := range m.Matched {
				names = append(names, f.Name)
			}
			if got := strings.Join(names, " "); got != w.matched {
				failf(w.line, "event %q: rule %q matched by %q, want %q", c.name, r.Title, got, w.matched)
			}
		}
	}
	for _, r := range set.Rules() {
		if m, ok := got[r]; ok {
			failf(c.line, "event %q: rule %q says %s, which no want names", c.name, r.Title, m.Verdict)
		}
	}
}

// view returns the event with what was withheld from it.
func (c *testCase) view() sigma.Event {
	ev := c.event
	if len(c.blind) > 0 {
		ev.AnyBlind = true
		ev.Blind = func(name string) bool { return slices.Contains(c.blind, name) || slices.Contains(c.blind, "*") }
	}
	return ev
}

func lookup(set *sigma.Set, name string) *sigma.Rule {
	for _, r := range slices.Concat(set.Rules(), set.Correlations()) {
		if r.ID == name || r.Name != "" && r.Name == name || r.Title == name {
			return r
		}
	}
	return nil
}

// maxDepth bounds the nesting of a JSON event.
const maxDepth = 64

// Fields reads a JSON object as the fields of an event, in their order. An
// object inside joins its names with dots; an array repeats its name; an empty
// one leaves no field.
func Fields(data []byte) ([]sigma.Field, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	t, err := dec.Token()
	if err != nil {
		return nil, err
	}
	if t != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	fields, err := object(dec, "", nil, 0)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("text after the JSON object")
	}
	return fields, nil
}

func object(dec *json.Decoder, prefix string, fields []sigma.Field, depth int) ([]sigma.Field, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested more than %d levels deep", maxDepth)
	}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		key, ok := t.(string)
		if !ok {
			return nil, errors.New("a key is not text")
		}
		if fields, err = value(dec, prefix+key, fields, depth); err != nil {
			return nil, err
		}
	}
	_, err := dec.Token()
	return fields, err
}

func value(dec *json.Decoder, name string, fields []sigma.Field, depth int) ([]sigma.Field, error) {
	t, err := dec.Token()
	if err != nil {
		return nil, err
	}
	f := sigma.Field{Name: name}
	switch v := t.(type) {
	case json.Delim:
		if v == '{' {
			return object(dec, name+".", fields, depth+1)
		}
		if depth > maxDepth {
			return nil, fmt.Errorf("nested more than %d levels deep", maxDepth)
		}
		for dec.More() {
			if fields, err = value(dec, name, fields, depth+1); err != nil {
				return nil, err
			}
		}
		_, err := dec.Token()
		return fields, err
	case string:
		f.Value = []byte(v)
	case json.Number:
		f.Kind, f.Value = sigma.KindNumber, []byte(v.String())
	case bool:
		f.Kind, f.Value = sigma.KindBool, fmt.Append(nil, v)
	case nil:
		f.Kind = sigma.KindNull
	}
	return append(fields, f), nil
}
