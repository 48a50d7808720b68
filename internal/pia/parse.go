package pia

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/counterseal/counterseal/internal/event"
)

//go:embed pia.schema.json
var schemaText []byte

type schemas struct {
	compiled *jsonschema.Schema
	tree     map[string]any // the same schema, to learn which scalars are texts
	err      error
}

// loadSchema compiles the embedded schema once: that costs more than a validation.
var loadSchema = sync.OnceValue(func() schemas {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schemaText))
	if err != nil {
		return schemas{err: err}
	}
	tree, _ := doc.(map[string]any)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	const at = "pia.schema.json"
	if err := c.AddResource(at, doc); err != nil {
		return schemas{err: err}
	}
	s, err := c.Compile(at)
	return schemas{compiled: s, tree: tree, err: err}
})

// placeholder marks what a draft leaves to a person. A document that holds one has
// an error for each.
const placeholder = "FILL IN"

// Parse reads one assessment, YAML or JSON. path is named in problems and not
// opened. The PIA is nil where the document cannot be read at all; a PIA with
// problems of level Error never opens the gate.
func Parse(path string, data []byte) (*PIA, []Problem) {
	c := &checker{file: path}
	root, err := readTree(data, maxBytes)
	if err != nil {
		var le *lineError
		if errors.As(err, &le) {
			c.problems = append(c.problems, Problem{Code: "unreadable", File: path, Line: le.line, Message: le.msg})
		} else {
			c.problems = append(c.problems, Problem{Code: "unreadable", File: path, Message: err.Error()})
		}
		return nil, c.problems
	}
	c.root = root
	sch := loadSchema()
	if sch.err != nil {
		c.problems = append(c.problems, Problem{Code: "schema", File: path, Message: "the built-in schema does not load: " + sch.err.Error()})
		return nil, c.problems
	}
	c.placeholders(root, nil)
	doc, ok := typed(root, sch.tree).(map[string]any)
	if !ok {
		c.add(Error, "schema", nil, "the document is not a mapping")
		return nil, c.problems
	}
	if err := sch.compiled.Validate(doc); err != nil {
		var ve *jsonschema.ValidationError
		if !errors.As(err, &ve) {
			c.add(Error, "schema", nil, "%v", err)
		} else {
			c.schemaErrors(ve)
		}
	}
	p := &PIA{path: path}
	if text, err := json.Marshal(doc); err != nil {
		c.add(Error, "schema", nil, "%v", err)
	} else if err := json.Unmarshal(text, p); err != nil {
		// A value of a wrong type: the schema has already named it.
		if len(c.problems) == 0 {
			c.add(Error, "schema", nil, "%v", err)
		}
	}
	p.path = path
	if p.digest, err = bodyDigest(doc); err != nil {
		c.add(Error, "not_canonical", nil, "%v", err)
	}
	c.check(p)
	slices.SortStableFunc(c.problems, func(a, b Problem) int {
		if a.Level != b.Level {
			return int(a.Level) - int(b.Level)
		}
		return a.Line - b.Line
	})
	p.problems = c.problems
	if len(c.problems) == 0 || c.problems[0].Level != Error {
		p.rules = make([]*Rule, len(p.Sources))
		for i := range p.Sources {
			p.rules[i] = newRule(p, &p.Sources[i])
		}
	}
	return p, c.problems
}

// checker collects problems with their lines.
type checker struct {
	file     string
	root     *node
	problems []Problem
}

func (c *checker) add(l Level, code string, path []string, format string, args ...any) {
	line := 0
	if n := c.root.at(path); n != nil {
		line = n.line
	}
	c.problems = append(c.problems, Problem{Code: code, Level: l, File: c.file, Path: strings.Join(path, "."), Line: line, Message: fmt.Sprintf(format, args...)})
}

func (c *checker) placeholders(n *node, path []string) {
	if n.kind == scalar && strings.Contains(n.text, placeholder) {
		c.add(Error, "placeholder", path, "still to be filled in by a person")
	}
	for i, k := range n.kids {
		at := strconv.Itoa(i)
		if n.kind == mapping {
			at = n.keys[i]
		}
		c.placeholders(k, append(path[:len(path):len(path)], at))
	}
}

func (c *checker) schemaErrors(e *jsonschema.ValidationError) {
	if len(e.Causes) > 0 {
		for _, cause := range e.Causes {
			c.schemaErrors(cause)
		}
		return
	}
	path := e.InstanceLocation
	switch k := e.ErrorKind.(type) {
	case *kind.AdditionalProperties:
		at := c.root.at(path)
		for _, name := range k.Properties {
			line := at.line
			if i := slices.Index(at.keys, name); i >= 0 {
				line = at.lines[i]
			}
			full := append(path[:len(path):len(path)], name)
			c.problems = append(c.problems, Problem{Code: "unknown_field", File: c.file, Path: strings.Join(full, "."), Line: line, Message: "pia/v1 has no such field"})
		}
		return
	case *kind.Required:
		c.add(Error, "missing_field", path, "needs %s", strings.Join(k.Missing, ", "))
		return
	}
	if slices.ContainsFunc(c.problems, func(p Problem) bool { return p.Code == "placeholder" && p.Path == strings.Join(path, ".") }) {
		return // said already, more helpfully
	}
	if len(path) == 3 && path[2] == "default" {
		c.add(Error, "default_not_drop", path, "the only legal default is drop: name each field that is kept")
		return
	}
	c.add(Error, "schema", path, "%s", e.ErrorKind.LocalizedString(message.NewPrinter(language.English)))
}

var (
	plainInt    = regexp.MustCompile(`^-?(0|[1-9][0-9]{0,17})$`)
	plainNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?$`)
)

// typed turns a node into what encoding/json would give, with the schema's word on
// plain scalars: where it says string, 2026-09-01 and 42 and yes stay texts.
func typed(n *node, schema map[string]any) any {
	switch n.kind {
	case mapping:
		props, _ := schema["properties"].(map[string]any)
		m := make(map[string]any, len(n.keys))
		for i, k := range n.keys {
			sub, _ := props[k].(map[string]any)
			m[k] = typed(n.kids[i], sub)
		}
		return m
	case list:
		items, _ := schema["items"].(map[string]any)
		l := make([]any, len(n.kids))
		for i, k := range n.kids {
			l[i] = typed(k, items)
		}
		return l
	}
	if n.quoted {
		return n.text
	}
	accepts := func(want string) bool {
		switch t := schema["type"].(type) {
		case string:
			return t == want
		case []any:
			return slices.Contains(t, any(want))
		}
		return false
	}
	switch {
	case n.text == "" || n.text == "null" || n.text == "~":
		return nil
	case accepts("boolean") && (n.text == "true" || n.text == "false"):
		return n.text == "true"
	case accepts("integer") && plainInt.MatchString(n.text), accepts("number") && plainNumber.MatchString(n.text):
		return json.Number(n.text)
	}
	return n.text
}

// refusedCategories are never collected, whatever the action. The names of the
// fides taxonomy for the same things are refused too, with everything below them.
var refusedCategories = [...]string{
	"biometric", "precise-location", "content",
	"user.biometric", "user.biometric_health", "user.location.precise", "user.content",
}

func categoryRefused(category string) bool {
	category = strings.ReplaceAll(strings.ToLower(strings.TrimSpace(category)), "precise_location", "precise-location")
	for _, r := range refusedCategories {
		if category == r || strings.HasPrefix(category, r+".") {
			return true
		}
	}
	return false
}

// freeText are the last segments of paths whose value is written by a person or
// carries what one typed. They are where names leak, so a PIA says why it keeps one.
var freeText = [...]string{
	"message", "msg", "body", "text", "content", "payload", "raw", "original", "subject", "title", "description", "comment",
	"commandline", "command_line", "cmdline", "cmd", "command", "processcommandline", "parentcommandline", "proctitle",
	"scriptblocktext", "query", "url", "uri", "url_query", "request", "referrer", "referer", "useragent", "user_agent",
	event.UnparsedField, "*",
}

// IsFreeText reports whether a path of this name needs a justification to be kept.
func IsFreeText(path string) bool {
	last := path[strings.LastIndexByte(path, '.')+1:]
	return slices.Contains(freeText[:], strings.ToLower(last))
}

const (
	maxPath     = 256
	maxSegments = 32
)

func checkPath(path string) string {
	if path == "" || len(path) > maxPath {
		return fmt.Sprintf("a path has 1 to %d bytes", maxPath)
	}
	segments := strings.Split(path, ".")
	if len(segments) > maxSegments {
		return fmt.Sprintf("a path has at most %d segments", maxSegments)
	}
	for _, s := range segments {
		if s == "" {
			return "a path has no empty segment"
		}
		if s != "*" && strings.ContainsRune(s, '*') {
			return "* stands for one whole segment"
		}
		if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return "a path has no control characters"
		}
	}
	return ""
}

const (
	day         = 24 * time.Hour
	maxYears    = 3
	defaultDays = 30
)

// check holds what no schema can say: notes/governance.md §2.1.
func (c *checker) check(p *PIA) {
	p.from, _ = time.Parse(time.DateOnly, p.Effective)
	if end, err := time.Parse(time.DateOnly, p.Expires); err == nil {
		p.until = end.Add(day)
	}
	if !p.from.IsZero() && !p.until.IsZero() {
		if !p.from.Before(p.until) {
			c.add(Error, "dates_crossed", []string{"expires"}, "expires before it is in effect")
		} else if p.until.Add(-day).After(p.from.AddDate(maxYears, 0, 0)) {
			c.add(Error, "expiry_too_long", []string{"expires"}, "an assessment lasts %d years at most", maxYears)
		}
	}
	c.approval(p)

	purposes := map[string]bool{}
	for i, u := range p.Purposes {
		if purposes[u.ID] {
			c.add(Error, "purpose_twice", []string{"purposes", strconv.Itoa(i), "id"}, "this purpose stands twice")
		}
		purposes[u.ID] = true
	}
	kept := map[string]bool{}
	selectors := map[string]bool{}
	for i := range p.Sources {
		c.source(p, i, purposes, kept, selectors)
	}
	for i, s := range p.Sharing {
		for j, f := range s.Fields {
			if !kept[f] {
				c.add(Error, "sharing_field_unknown", []string{"sharing", strconv.Itoa(i), "fields", strconv.Itoa(j)}, "no source keeps this field")
			}
		}
	}
	for i, f := range p.Aggregation.JoinKeys {
		if !kept[f] {
			c.add(Error, "join_key_unknown", []string{"aggregation", "join_keys", strconv.Itoa(i)}, "no source keeps this field")
		}
	}
	for i, r := range p.Risks {
		if r.Residual == "high" && r.POAM == "" {
			c.add(Error, "poam_missing", []string{"risks", strconv.Itoa(i)}, "a high residual risk names its POA&M item")
		}
	}
	if p.System.ATO != "" {
		c.add(CannotJudge, "ato_unknown", []string{"system", "ato"}, "no register of ATOs is here to look it up in")
	}
}

// approval counts who stands below the document. Whether the signatures are good is
// not judged here: see Unsigned.
func (c *checker) approval(p *PIA) {
	at := []string{"approval"}
	keys, names := map[string]bool{}, map[string]bool{}
	privacy, reviewers := false, 0
	for i, s := range p.Approval.Signers {
		here := []string{"approval", "signers", strconv.Itoa(i)}
		if s.SignedAt == "" {
			c.add(Warning, "signed_at_missing", here, "says no time of signing, so the signature will not verify")
		}
		if keys[s.KeyID] || names[s.Name] {
			c.add(Error, "signer_twice", here, "the same person or key signs twice")
			continue
		}
		keys[s.KeyID], names[s.Name] = true, true
		privacy = privacy || s.Role == "SAOP" || s.Role == "CPO"
		if s.Role != "system-owner" { // never a reviewer of the own system
			reviewers++
		}
	}
	need := max(p.Approval.Threshold, 2)
	if reviewers < need {
		c.add(Error, "under_threshold", at, "%d of %d signers; a system owner does not count", reviewers, need)
	}
	if !privacy {
		c.add(Error, "no_privacy_signer", at, "needs an SAOP or CPO")
	}
	c.add(Warning, "unsigned", at, "the signatures are not verified by this version")
}

func (c *checker) source(p *PIA, i int, purposes, kept, selectors map[string]bool) {
	s := &p.Sources[i]
	at := func(more ...string) []string { return append([]string{"sources", strconv.Itoa(i)}, more...) }

	sel := s.Selector.Source + "\x00" + s.Selector.Dataset + "\x00" + s.Selector.Collector
	if selectors[sel] {
		c.add(Error, "selector_twice", at("selector"), "this selector stands twice")
	}
	selectors[sel] = true
	if err := event.CheckCompartment(s.Compartment); err != nil {
		c.add(Error, "compartment_name", at("compartment"), "%v", err)
	} else if !slices.Contains(p.Access.Compartments, s.Compartment) {
		c.add(Error, "compartment_not_listed", at("compartment"), "access.compartments does not list it")
	}
	for j, u := range s.Purposes {
		if !purposes[u] {
			c.add(Error, "purpose_unknown", at("purposes", strconv.Itoa(j)), "purposes declares no such id")
		}
	}
	if s.RecordsSchedule == "" {
		c.add(CannotJudge, "schedule_missing", at(), "names no records schedule: a records officer must say whether the retention is right")
	}
	if s.OriginalDays != nil && *s.OriginalDays > s.RetentionDays {
		c.add(Error, "original_longer", at("original_days"), "keeps the bytes as received longer than the events made of them")
	}
	if s.OriginalDays != nil && *s.OriginalDays > defaultDays && s.OriginalReason == "" {
		c.add(Error, "original_unjustified", at("original_days"), "more than %d days need an original_justification", defaultDays)
	}
	if s.TimeZone == "Local" {
		c.add(Error, "time_zone_unknown", at("time_zone"), "a zone has a name of the IANA list")
	} else if _, err := time.LoadLocation(s.TimeZone); err != nil {
		c.add(Error, "time_zone_unknown", at("time_zone"), "a zone has a name of the IANA list")
	}
	paths := map[string]bool{}
	for j := range s.Fields {
		f := &s.Fields[j]
		here := func(name string) []string { return at("fields", strconv.Itoa(j), name) }
		if why := checkPath(f.Path); why != "" {
			c.add(Error, "path_bad", here("path"), "%s", why)
		}
		if paths[f.Path] {
			c.add(Error, "path_twice", here("path"), "this path stands twice in one source")
		}
		paths[f.Path] = true
		if categoryRefused(f.Category) {
			c.add(Error, "category_refused", here("category"), "biometric templates, precise location and content are never collected, whatever the action")
		}
		action, _ := parseAction(f.Action)
		if action != Drop {
			kept[f.Path] = true
		}
		if action != Drop && f.Justification == "" && IsFreeText(f.Path) {
			c.add(Error, "free_text_unjustified", here("path"), "free text is dropped, unless a justification says why it is needed")
		}
		arg, ok := intArg(f.Arg)
		switch {
		case action == Truncate && (!ok || arg < 1 || arg > 4096):
			c.add(Error, "arg_bad", here("arg"), "truncate needs a number from 1 to 4096: the prefix of an IPv4 address, the length of any other text")
		case action != Truncate && f.Arg != nil:
			c.add(Error, "arg_unused", here("arg"), "only truncate takes an argument")
		}
		if f.Unlinkable && action != Tokenise {
			c.add(Error, "unlinkable_unused", here("unlinkable"), "only tokens can be unlinkable")
		}
	}
}

func intArg(v any) (int, bool) {
	switch v := v.(type) {
	case float64:
		return int(v), v == float64(int(v))
	case string:
		n, err := strconv.Atoi(v)
		return n, err == nil
	}
	return 0, false
}
