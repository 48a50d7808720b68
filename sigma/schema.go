package sigma

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// CheckSchema says where the documents of a rule file are not what the JSON
// schemas of the specification v2.1.0 ask for: those for rules, for correlations
// and for filters. It speaks of form alone, and of more than Parse: Parse takes
// each document of which the meaning is clear. What is no YAML, or passes the
// bounds of Parse, is left to Parse.
//
// It differs from the schemas in one point: a filter may say rules: any, for
// which they have no form.
func CheckSchema(path string, data []byte) []Warning {
	var out []Warning
	if len(data) > maxFile || !utf8.Valid(data) {
		return nil
	}
	docs := documents([]byte(strings.TrimPrefix(string(data), "\xef\xbb\xbf")))
	if len(docs) > maxDocuments {
		return nil
	}
	for _, d := range docs {
		root, f := decode(d)
		if f != nil || root.Kind != yaml.MappingNode {
			continue
		}
		c := conformance{rule: Rule{Path: path}}
		c.document(root)
		out = append(out, c.out...)
	}
	return out
}

// conformance holds a document against its schema.
type conformance struct {
	rule Rule // path, id and title
	out  []Warning
}

func (c *conformance) say(n *yaml.Node, format string, args ...any) {
	c.out = append(c.out, c.rule.warning(ClassSchema, n.Line, n.Column, format, args...))
}

// labelled is one key of a map, with the node of the key for its place.
type labelled struct {
	name       string
	key, value *yaml.Node
}

func entries(n *yaml.Node) []labelled {
	var out []labelled
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if k := n.Content[i]; k.Kind == yaml.ScalarNode {
			out = append(out, labelled{k.Value, k, n.Content[i+1]})
		}
	}
	return out
}

func member(n *yaml.Node, name string) *yaml.Node {
	for _, e := range entries(n) {
		if e.name == name {
			return e.value
		}
	}
	return nil
}

// kind names what a node is in JSON. A date is text there.
func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a map"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!int":
		return "a whole number"
	case "!!float":
		f, err := strconv.ParseFloat(strings.ReplaceAll(n.Value, "_", ""), 64)
		if err == nil && f == math.Trunc(f) && !math.IsInf(f, 0) {
			return "a whole number" // JSON does not tell 1.0 from 1
		}
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!null":
		return "empty"
	}
	return "text"
}

// is says so when a node is not of a kind.
func (c *conformance) is(want, what string, n *yaml.Node) bool {
	have := kind(n)
	if have == want {
		return true
	}
	if have == "text" || have == "a list" || have == "a map" || have == "empty" {
		c.say(n, "%s must be %s and is %s", what, want, have)
	} else {
		c.say(n, "%s must be %s and is %s: put it in quotes", what, want, have)
	}
	return false
}

func (c *conformance) text(what string, n *yaml.Node, least, most int) bool {
	if !c.is("text", what, n) {
		return false
	}
	size := utf8.RuneCountInString(n.Value)
	if size < least {
		c.say(n, "%s must have at least %d characters", what, least)
	}
	if most > 0 && size > most {
		c.say(n, "%s must have at most %d characters and has %d", what, most, size)
	}
	return true
}

// texts holds a list of texts to account; each stands in it once.
func (c *conformance) texts(what string, n *yaml.Node, least int, each func(n *yaml.Node)) {
	if !c.is("a list", what, n) {
		return
	}
	seen := make(map[string]bool)
	for _, k := range n.Content {
		if !c.text("an entry of "+what, k, least, 0) {
			continue
		}
		if seen[k.Value] {
			c.say(k, "%s holds %q twice", what, k.Value)
		}
		seen[k.Value] = true
		if each != nil {
			each(k)
		}
	}
}

func (c *conformance) word(what string, n *yaml.Node, words ...string) {
	if c.is("text", what, n) && !slices.Contains(words, n.Value) {
		c.say(n, "%s must be one of %s", what, strings.Join(words, ", "))
	}
}

func (c *conformance) uuid(what string, n *yaml.Node) {
	if c.is("text", what, n) && !isUUID(n.Value) {
		c.say(n, "%s must be a UUID, such as 0e95725d-7320-415d-80f7-004da920fc11", what)
	}
}

func isUUID(s string) bool {
	groups := strings.Split(s, "-")
	if len(groups) != 5 {
		return false
	}
	for i, size := range []int{8, 4, 4, 4, 12} {
		if len(groups[i]) != size || strings.Trim(groups[i], "0123456789abcdefABCDEF") != "" {
			return false
		}
	}
	return true
}

func (c *conformance) day(what string, n *yaml.Node) {
	if c.is("text", what, n) && !isDay(n.Value) {
		c.say(n, "%s must be a day written as YYYY-MM-DD", what)
	}
}

func isDay(s string) bool {
	if len(s) != len("2006-01-02") || s[4] != '-' || s[7] != '-' || strings.Trim(s[:4]+s[5:7]+s[8:], "0123456789") != "" {
		return false
	}
	month, day := s[5:7], s[8:]
	return "01" <= month && month <= "12" && "01" <= day && day <= "31"
}

// isTag reports a namespace, a dot and a name, of small letters, digits, _ and -;
// the name may hold further dots.
func isTag(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789_-"
	space, name, _ := strings.Cut(s, ".")
	return space != "" && name != "" && strings.Trim(space, letters) == "" && strings.Trim(name, letters+".") == ""
}

// document checks a whole document. Keys that the specification does not define
// are the author's own.
func (c *conformance) document(root *yaml.Node) {
	top := entries(root)
	for _, e := range top {
		switch e.name {
		case "id":
			c.rule.ID = strings.TrimSpace(e.value.Value)
		case "title":
			c.rule.Title = strings.TrimSpace(e.value.Value)
		}
	}
	correlation := member(root, "correlation") != nil
	filter := !correlation && member(root, "filter") != nil
	rule := !correlation && !filter
	switch {
	case correlation:
		c.require(root, "a correlation", "title", "correlation")
	case filter:
		c.require(root, "a filter", "title", "logsource", "filter")
	default:
		c.require(root, "a rule", "title", "logsource", "detection")
	}
	for _, e := range top {
		switch e.name {
		case "title", "taxonomy":
			c.text(e.name, e.value, 0, maxTitle)
		case "id":
			c.uuid(e.name, e.value)
		case "description":
			c.text(e.name, e.value, 0, 65535)
		case "date", "modified":
			c.day(e.name, e.value)
		}
		if !filter {
			switch e.name {
			case "status":
				c.word(e.name, e.value, "stable", "test", "experimental", "deprecated", "unsupported")
			case "level":
				c.word(e.name, e.value, "informational", "low", "medium", "high", "critical")
			case "author":
				c.text(e.name, e.value, 0, 0)
			case "references":
				c.texts(e.name, e.value, 0, nil)
			case "falsepositives":
				if correlation && kind(e.value) == "text" {
					c.text(e.name, e.value, 2, 0)
				} else {
					c.texts(e.name, e.value, 2, nil)
				}
			}
		}
		if rule || filter {
			switch e.name {
			case "logsource":
				c.logSource(e.value, rule)
			case "filter":
				c.filter(e.value)
			}
		}
		if rule {
			c.ruleOnly(e)
		}
		if correlation {
			switch e.name {
			case "correlation":
				c.correlation(e.value)
			case "generate":
				c.is("true or false", e.name, e.value)
			}
		}
	}
}

func (c *conformance) require(n *yaml.Node, what string, names ...string) {
	for _, name := range names {
		if member(n, name) == nil {
			c.say(n, "%s must have the key %s", what, name)
		}
	}
}

// ruleOnly checks what the schema of rules defines and the other two do not.
func (c *conformance) ruleOnly(e labelled) {
	switch e.name {
	case "name":
		c.text(e.name, e.value, 0, 256)
	case "license":
		c.text(e.name, e.value, 0, 0)
	case "fields":
		c.texts(e.name, e.value, 0, nil)
	case "scope":
		if c.is("a list", e.name, e.value) {
			for _, k := range e.value.Content {
				c.text("an entry of scope", k, 2, 0)
			}
		}
	case "tags":
		c.texts(e.name, e.value, 0, func(k *yaml.Node) {
			if !isTag(k.Value) {
				c.say(k, "the tag %q must be a namespace, a dot and a name, in small letters, digits, _ and -", k.Value)
			}
		})
	case "related":
		if !c.is("a list", e.name, e.value) {
			return
		}
		for _, k := range e.value.Content {
			if !c.is("a map", "an entry of related", k) {
				continue
			}
			c.require(k, "an entry of related", "id", "type")
			for _, r := range entries(k) {
				switch r.name {
				case "id":
					c.uuid("the id of a related rule", r.value)
				case "type":
					c.word("the type of a related rule", r.value, "derived", "obsolete", "merged", "renamed", "similar")
				}
			}
		}
	case "detection":
		if !c.is("a map", e.name, e.value) {
			return
		}
		c.require(e.value, "detection", "condition")
		for _, s := range entries(e.value) {
			if s.name == "condition" {
				c.text("the condition", s.value, 0, 0)
			} else {
				c.search(s)
			}
		}
	}
}

// search checks the body of a search identifier: a map, or a list of texts, whole
// numbers and maps.
func (c *conformance) search(e labelled) {
	what := fmt.Sprintf("the search identifier %q", e.name)
	switch have := kind(e.value); have {
	case "a map":
	case "a list":
		for _, k := range e.value.Content {
			switch have := kind(k); have {
			case "text", "a whole number", "a map":
			default:
				c.say(k, "%s lists what is %s: a text, a whole number or a map is meant", what, have)
			}
		}
	default:
		c.say(e.value, "%s must be a map or a list and is %s", what, have)
	}
}

func (c *conformance) logSource(n *yaml.Node, rule bool) {
	if !c.is("a map", "logsource", n) {
		return
	}
	for _, e := range entries(n) {
		switch e.name {
		case "category", "product", "service":
			c.text("the "+e.name+" of logsource", e.value, 0, 0)
		case "definition":
			if rule {
				c.text("the definition of logsource", e.value, 0, 0)
			}
		}
	}
}

func (c *conformance) filter(n *yaml.Node) {
	if !c.is("a map", "filter", n) {
		return
	}
	c.require(n, "filter", "rules", "selection", "condition")
	for _, e := range entries(n) {
		switch e.name {
		case "rules":
			if e.value.Kind == yaml.ScalarNode && e.value.Value == "any" {
				continue // see CheckSchema
			}
			c.texts("rules", e.value, 0, nil)
			if e.value.Kind == yaml.SequenceNode && len(e.value.Content) == 0 {
				c.say(e.value, "rules must name at least one rule")
			}
		case "selection":
			c.search(e)
		case "condition":
			c.text("the condition", e.value, 0, 0)
		}
	}
}

func (c *conformance) correlation(n *yaml.Node) {
	if !c.is("a map", "correlation", n) {
		return
	}
	c.require(n, "correlation", "type", "rules", "timespan")
	for _, e := range entries(n) {
		switch e.name {
		case "type":
			c.word("the type of a correlation", e.value, "event_count", "value_count", "temporal", "temporal_ordered",
				"value_sum", "value_avg", "value_percentile")
			switch e.value.Value {
			case "temporal", "temporal_ordered":
				c.require(n, "a correlation of type "+e.value.Value, "group-by")
			case "event_count", "value_count", "value_sum", "value_avg", "value_percentile":
				c.require(n, "a correlation of type "+e.value.Value, "condition", "group-by")
			}
		case "rules":
			c.texts(e.name, e.value, 2, nil)
		case "group-by":
			c.texts(e.name, e.value, 0, nil)
		case "timespan":
			c.text(e.name, e.value, 0, 10)
		case "condition":
			c.is("a map", "the condition of a correlation", e.value)
		case "aliases":
			if c.is("a map", e.name, e.value) {
				for _, a := range entries(e.value) {
					c.is("a map", fmt.Sprintf("the alias %q", a.name), a.value)
				}
			}
		}
	}
}
