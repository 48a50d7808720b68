package pia

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// Bounds of a document. A PIA of a large organisation is some 200 kB; a directory of
// 100,000 people is some 30 MB.
const (
	maxBytes      = 4 << 20
	maxBytesOther = 128 << 20
	maxDepth      = 32
	bytesPerNode  = 2 // no value is shorter with what separates it from the next
)

// A node is one value of a document with its line, before anything is known of its
// type. YAML and JSON both become nodes, so that all later checks are one code.
type node struct {
	line   int
	kind   nodeKind
	text   string // scalar
	quoted bool   // a quoted scalar is a text; a plain one is what the schema wants
	keys   []string
	lines  []int   // line of each key
	kids   []*node // values of the keys, or items
}

type nodeKind uint8

const (
	scalar nodeKind = iota
	mapping
	list
)

func (n *node) get(key string) *node {
	for i, k := range n.keys {
		if k == key {
			return n.kids[i]
		}
	}
	return nil
}

// at follows a path of keys and indexes as far as it goes.
func (n *node) at(path []string) *node {
	for _, p := range path {
		var next *node
		switch n.kind {
		case mapping:
			next = n.get(p)
		case list:
			if i, err := strconv.Atoi(p); err == nil && i >= 0 && i < len(n.kids) {
				next = n.kids[i]
			}
		}
		if next == nil {
			return n
		}
		n = next
	}
	return n
}

// lineError is an error with the line it stands on.
type lineError struct {
	line int
	msg  string
}

func (e *lineError) Error() string {
	if e.line == 0 {
		return e.msg
	}
	return fmt.Sprintf("line %d: %s", e.line, e.msg)
}

func fail(line int, format string, args ...any) error {
	return &lineError{line, fmt.Sprintf(format, args...)}
}

// readTree reads strict YAML or JSON: one document, no anchors, aliases, tags,
// merge keys or duplicate keys, valid UTF-8.
func readTree(data []byte, limit int) (*node, error) {
	if len(data) > limit {
		return nil, fail(0, "larger than %d MiB", limit>>20)
	}
	if !utf8.Valid(data) {
		return nil, fail(badUTF8Line(data), "not valid UTF-8")
	}
	if t := bytes.TrimLeft(data, " \t\r\n"); len(t) > 0 && (t[0] == '{' || t[0] == '[') && json.Valid(data) {
		return readJSON(data, limit)
	}
	return readYAML(data, limit)
}

func badUTF8Line(data []byte) int {
	line := 1
	for len(data) > 0 {
		r, n := utf8.DecodeRune(data)
		if r == utf8.RuneError && n == 1 {
			break
		}
		if r == '\n' {
			line++
		}
		data = data[n:]
	}
	return line
}

func readYAML(data []byte, limit int) (*node, error) {
	d := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := d.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, fail(0, "the file is empty")
		}
		return nil, fail(yamlLine(err), "%s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	var second yaml.Node
	if err := d.Decode(&second); err == nil {
		return nil, fail(second.Line, "a second document in one file")
	} else if !errors.Is(err, io.EOF) {
		return nil, fail(yamlLine(err), "%s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if len(doc.Content) != 1 {
		return nil, fail(0, "the file is empty")
	}
	left := limit / bytesPerNode
	return fromYAML(doc.Content[0], 0, &left)
}

// yamlLine takes the line out of an error of the YAML reader, which gives it as
// text only.
func yamlLine(err error) int {
	_, rest, ok := strings.Cut(err.Error(), "line ")
	if !ok {
		return 0
	}
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		return 0
	}
	n, _ := strconv.Atoi(rest[:end])
	return n
}

func fromYAML(y *yaml.Node, depth int, left *int) (*node, error) {
	if *left--; *left < 0 {
		return nil, fail(y.Line, "too many values")
	}
	if depth > maxDepth {
		return nil, fail(y.Line, "nested deeper than %d levels", maxDepth)
	}
	if y.Anchor != "" {
		return nil, fail(y.Line, "anchors are not accepted")
	}
	if y.Kind == yaml.AliasNode {
		return nil, fail(y.Line, "aliases are not accepted")
	}
	if y.Style&yaml.TaggedStyle != 0 {
		return nil, fail(y.Line, "tags are not accepted")
	}
	n := &node{line: y.Line}
	switch y.Kind {
	case yaml.ScalarNode:
		n.kind, n.text = scalar, y.Value
		n.quoted = y.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
	case yaml.SequenceNode:
		n.kind = list
		for _, c := range y.Content {
			k, err := fromYAML(c, depth+1, left)
			if err != nil {
				return nil, err
			}
			n.kids = append(n.kids, k)
		}
	case yaml.MappingNode:
		n.kind = mapping
		seen := make(map[string]bool, len(y.Content)/2)
		for i := 0; i+1 < len(y.Content); i += 2 {
			key := y.Content[i]
			if key.Kind != yaml.ScalarNode || key.Anchor != "" || key.Style&yaml.TaggedStyle != 0 {
				return nil, fail(key.Line, "a key is a plain text")
			}
			if key.Value == "<<" {
				return nil, fail(key.Line, "merge keys are not accepted")
			}
			if seen[key.Value] {
				return nil, fail(key.Line, "key %q stands twice", key.Value)
			}
			seen[key.Value] = true
			k, err := fromYAML(y.Content[i+1], depth+1, left)
			if err != nil {
				return nil, err
			}
			n.keys, n.lines, n.kids = append(n.keys, key.Value), append(n.lines, key.Line), append(n.kids, k)
		}
	default:
		return nil, fail(y.Line, "unexpected value")
	}
	return n, nil
}

// readJSON reads with a token scanner, since json.Unmarshal keeps the last of two
// equal keys and says nothing.
func readJSON(data []byte, limit int) (*node, error) {
	if line := loneSurrogate(data); line > 0 {
		return nil, fail(line, "half of a surrogate pair")
	}
	r := jsonReader{d: json.NewDecoder(bytes.NewReader(data)), data: data, line: 1, left: limit / bytesPerNode}
	r.d.UseNumber()
	n, err := r.value(0)
	if err != nil {
		return nil, err
	}
	if _, err := r.d.Token(); !errors.Is(err, io.EOF) {
		return nil, fail(r.at(), "text after the document")
	}
	return n, nil
}

type jsonReader struct {
	d    *json.Decoder
	data []byte
	off  int // newlines are counted up to here
	line int
	left int
}

func (r *jsonReader) at() int {
	end := int(r.d.InputOffset())
	r.line += bytes.Count(r.data[r.off:end], []byte{'\n'})
	r.off = end
	return r.line
}

func (r *jsonReader) value(depth int) (*node, error) {
	t, err := r.d.Token()
	line := r.at()
	if err != nil {
		return nil, fail(line, "not JSON")
	}
	if r.left--; r.left < 0 {
		return nil, fail(line, "too many values")
	}
	if depth > maxDepth {
		return nil, fail(line, "nested deeper than %d levels", maxDepth)
	}
	n := &node{line: line}
	switch t := t.(type) {
	case json.Delim:
		if t == '[' {
			n.kind = list
			for r.d.More() {
				k, err := r.value(depth + 1)
				if err != nil {
					return nil, err
				}
				n.kids = append(n.kids, k)
			}
			_, err = r.d.Token()
			return n, err
		}
		n.kind = mapping
		seen := map[string]bool{}
		for r.d.More() {
			kt, err := r.d.Token()
			kl := r.at()
			key, ok := kt.(string)
			if err != nil || !ok {
				return nil, fail(kl, "not JSON")
			}
			if seen[key] {
				return nil, fail(kl, "key %q stands twice", key)
			}
			seen[key] = true
			k, err := r.value(depth + 1)
			if err != nil {
				return nil, err
			}
			n.keys, n.lines, n.kids = append(n.keys, key), append(n.lines, kl), append(n.kids, k)
		}
		_, err = r.d.Token()
		return n, err
	case string:
		n.text, n.quoted = t, true
	case json.Number:
		n.text = t.String()
	case bool:
		n.text = strconv.FormatBool(t)
	case nil:
		n.text = "null"
	}
	return n, nil
}

// loneSurrogate gives the line of the first \uD8xx that is not one of a pair, or 0.
func loneSurrogate(data []byte) int {
	hex4 := func(b []byte) (uint64, bool) {
		if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
			return 0, false
		}
		v, err := strconv.ParseUint(string(b[2:6]), 16, 16)
		return v, err == nil
	}
	for i := 0; i < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		v, ok := hex4(data[i:])
		switch {
		case !ok:
			i++
		case v >= 0xDC00 && v < 0xE000:
			return 1 + bytes.Count(data[:i], []byte{'\n'})
		case v >= 0xD800 && v < 0xDC00:
			if low, ok := hex4(data[i+6:]); !ok || low < 0xDC00 || low >= 0xE000 {
				return 1 + bytes.Count(data[:i], []byte{'\n'})
			}
			i += 11
		default:
			i += 5
		}
	}
	return 0
}

// DecodeStrict reads one YAML or JSON document with the same strictness as a
// PIA into a struct whose yaml tags name every field: unknown keys are errors. A
// plain scalar stays the text it was where the struct says string, so that a
// telephone number keeps its leading zero. Errors name lines, never values.
func DecodeStrict(data []byte, v any) error {
	if _, err := readTree(data, maxBytesOther); err != nil {
		return err
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	err := d.Decode(v)
	var te *yaml.TypeError
	if errors.As(err, &te) && len(te.Errors) > 0 {
		return fail(yamlLine(err), "%s", withoutValue(te.Errors[0]))
	}
	if err != nil {
		return fail(yamlLine(err), "not a document of this kind")
	}
	return nil
}

// withoutValue cuts the quoted value out of a message such as
// "line 3: cannot unmarshal !!str `alice` into int". The name of an unknown field is
// kept: it is what the reader must correct.
func withoutValue(s string) string {
	if _, rest, ok := strings.Cut(s, ": "); ok && strings.HasPrefix(s, "line ") {
		s = rest
	}
	if a, b := strings.IndexByte(s, '`'), strings.LastIndexByte(s, '`'); a >= 0 && b > a {
		s = s[:a] + "a value" + s[b+1:]
	}
	return s
}
