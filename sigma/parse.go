package sigma

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// Bounds of Parse. A document that passes one is refused, not cut.
const (
	maxFile      = 10 << 20
	maxDocuments = 10000
	maxNodes     = 200000 // YAML nodes of a document, aliases followed
	maxDepth     = 100
	maxTitle     = 256
)

// Parse reads a rule file, which may hold several documents. Each document
// comes back as a rule or as a refusal: one that is refused does not touch the
// others. Parse checks all that can be known without Options, so what it returns
// compiles unless a placeholder has no value, an id occurs twice or a correlation
// names a rule that is not in the set, more than one rule, or itself.
func Parse(path string, data []byte) ([]*Rule, []*Refusal) {
	if len(data) > maxFile {
		return nil, []*Refusal{{Path: path, Reason: fmt.Sprintf("the file is larger than %d bytes", maxFile)}}
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if !utf8.Valid(data) {
		return nil, []*Refusal{{Path: path, Reason: "the file is not UTF-8"}}
	}
	docs := documents(data)
	if len(docs) == 0 {
		return nil, []*Refusal{{Path: path, Reason: "the file holds no document"}}
	}
	if len(docs) > maxDocuments {
		return nil, []*Refusal{{Path: path, Reason: fmt.Sprintf("the file holds more than %d documents", maxDocuments)}}
	}
	var rules []*Rule
	var refused []*Refusal
	for _, d := range docs {
		r := &Rule{Path: path, Line: d.line, Digest: sha256.Sum256(d.text)}
		if f := r.read(d); f != nil {
			refused = append(refused, &Refusal{path, f.line, r.ID, r.Title, f.reason})
			continue
		}
		rules = append(rules, r)
	}
	return rules, refused
}

// Split cuts a rule file into the documents that Parse reads one by one. Each is digested
// as it stands, also in a file of its own or beside others of them. A file that Parse
// refuses as a whole has none.
func Split(data []byte) [][]byte {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if len(data) > maxFile || !utf8.Valid(data) {
		return nil
	}
	docs := documents(data)
	if len(docs) > maxDocuments {
		return nil
	}
	out := make([][]byte, len(docs))
	for i, d := range docs {
		out[i] = d.text
	}
	return out
}

// document is one YAML document and the line of the file that it starts on.
type document struct {
	text []byte
	line int
}

// documents cuts a file at its "---" lines, so that a syntax error in one
// document leaves the others readable. YAML allows such a line at the margin
// nowhere else. What holds comments only joins the next document, so that a
// file with one document is digested whole.
func documents(data []byte) []document {
	var docs []document
	start, startLine, line := 0, 1, 0
	content, marked := false, false // of the document so far
	for at := 0; at < len(data); {
		line++
		end := bytes.IndexByte(data[at:], '\n')
		if end < 0 {
			end = len(data)
		} else {
			end += at + 1
		}
		text := bytes.TrimRight(data[at:end], " \t\r\n")
		marker := bytes.Equal(text, []byte("---")) || bytes.HasPrefix(text, []byte("--- ")) || bytes.HasPrefix(text, []byte("---\t"))
		if marker && content {
			docs = append(docs, document{data[start:at], startLine})
			start, startLine, content, marked = at, line, false, false
		}
		if marker && marked { // an empty document before it
			start, startLine = at, line
		}
		if marker {
			marked = true
			text = bytes.TrimLeft(text[3:], " \t")
		}
		if len(text) > 0 && text[0] != '#' && !bytes.Equal(text, []byte("...")) {
			content = true
		}
		at = end
	}
	if content {
		docs = append(docs, document{data[start:], startLine})
	}
	return docs
}

// yamlLine finds the line in the YAML reader's messages.
var yamlLine = regexp.MustCompile(`^(?:yaml: )?line (\d+): `)

func decode(d document) (node *yaml.Node, f *fault) {
	// The YAML reader is not ours: a panic of its own must cost one document.
	defer func() {
		if p := recover(); p != nil {
			node, f = nil, faultf(d.line, "the document cannot be read as YAML")
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(d.text))
	var root yaml.Node
	if err := dec.Decode(&root); err != nil {
		reason, line := strings.TrimPrefix(err.Error(), "yaml: "), d.line
		if m := yamlLine.FindStringSubmatch(reason); m != nil {
			n, _ := strconv.Atoi(m[1])
			line, reason = d.line+n-1, strings.TrimPrefix(reason, m[0])
		}
		return nil, faultf(line, "not valid YAML: %s", reason)
	}
	var second yaml.Node
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, faultf(d.line, "not valid YAML: text after the end of the document")
	}
	if root.Kind != yaml.DocumentNode || len(root.Content) != 1 {
		return nil, faultf(d.line, "the document is empty")
	}
	b := yamlBudget{maxNodes, maxFile}
	if f := flatten(root.Content[0], d.line-1, 0, &b); f != nil {
		return nil, f
	}
	return root.Content[0], nil
}

// yamlBudget is what a document may still hold.
type yamlBudget struct{ nodes, text int }

func (b *yamlBudget) take(n *yaml.Node) bool {
	b.nodes--
	b.text -= len(n.Value)
	return b.nodes >= 0 && b.text >= 0
}

// flatten replaces aliases by what they stand for, moves line numbers from the
// document to the file and keeps the whole within bounds: aliases of aliases
// grow without end otherwise.
func flatten(n *yaml.Node, offset, depth int, b *yamlBudget) *fault {
	if !b.take(n) {
		return faultf(n.Line+offset, "the document holds more than %d values, or %d bytes, once its aliases are followed", maxNodes, maxFile)
	}
	if depth > maxDepth {
		return faultf(n.Line+offset, "the document is nested more than %d levels deep", maxDepth)
	}
	for i, k := range n.Content {
		if k.Kind == yaml.AliasNode {
			// A copy, so that a shared node's lines are moved once.
			c := copyNode(k.Alias, depth, b)
			if c == nil {
				return faultf(k.Line+offset, "the document holds more than %d values, or %d bytes, once its aliases are followed", maxNodes, maxFile)
			}
			n.Content[i] = c
			move(c, k)
			k = c
		}
		if f := flatten(k, offset, depth+1, b); f != nil {
			return f
		}
	}
	n.Line += offset
	n.Anchor = ""
	return nil
}

func copyNode(n *yaml.Node, depth int, b *yamlBudget) *yaml.Node {
	if !b.take(n) || depth > maxDepth {
		return nil
	}
	if n.Kind == yaml.AliasNode {
		return copyNode(n.Alias, depth+1, b)
	}
	c := *n
	c.Content = make([]*yaml.Node, len(n.Content))
	for i, k := range n.Content {
		if c.Content[i] = copyNode(k, depth+1, b); c.Content[i] == nil {
			return nil
		}
	}
	return &c
}

// move gives a copied node the place of its alias.
func move(n, to *yaml.Node) {
	n.Line, n.Column = to.Line, to.Column
	for _, k := range n.Content {
		move(k, to)
	}
}

// pair is one key of a mapping.
type pair struct {
	key       string
	line, col int
	value     *yaml.Node
}

// pairs reads a mapping and refuses a key that occurs twice: most YAML readers
// would keep the last one and forget the first.
func pairs(n *yaml.Node, what string) ([]pair, *fault) {
	if n.Kind != yaml.MappingNode {
		return nil, faultf(n.Line, "%s must be a map", what)
	}
	out := make([]pair, 0, len(n.Content)/2)
	seen := make(map[string]bool, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			return nil, faultf(k.Line, "%s has a key that is not plain text", what)
		}
		if k.ShortTag() == "!!merge" {
			return nil, faultf(k.Line, "%s uses a YAML merge key (<<), which Sigma does not have", what)
		}
		if seen[k.Value] {
			return nil, faultf(k.Line, "%s has the key %q twice", what, k.Value)
		}
		seen[k.Value] = true
		out = append(out, pair{k.Value, k.Line, k.Column, v})
	}
	return out, nil
}

func find(ps []pair, key string) *pair {
	for i := range ps {
		if ps[i].key == key {
			return &ps[i]
		}
	}
	return nil
}

func (r *Rule) read(d document) *fault {
	root, f := decode(d)
	if f != nil {
		return f
	}
	r.Line = root.Line
	top, f := pairs(root, "the document")
	if f != nil {
		return f
	}
	// Title and id first: a refusal should name its rule.
	for _, p := range top {
		switch p.key {
		case "title":
			r.Title = strings.TrimSpace(p.value.Value)
		case "id":
			r.ID = strings.TrimSpace(p.value.Value)
		}
	}
	if p := find(top, "action"); p != nil && slices.Contains([]string{"global", "reset", "repeat"}, p.value.Value) {
		return faultf(p.line, "rule collections with 'action' belong to Sigma 1.0: write whole documents separated by ---")
	}
	var detection *pair
	for i := range top {
		p := &top[i]
		var f *fault
		switch p.key {
		case "title", "id":
			if p.value.Kind != yaml.ScalarNode {
				f = faultf(p.line, "%s must be plain text", p.key)
			}
		case "name":
			r.Name, f = plainText(p)
		case "status":
			r.Status, f = oneOf(p, "stable", "test", "experimental", "deprecated", "unsupported")
		case "level":
			r.Level, f = oneOf(p, "informational", "low", "medium", "high", "critical")
		case "taxonomy":
			if p.value.Value != "sigma" {
				f = faultf(p.line, "the taxonomy %q is not known: only sigma is", p.value.Value)
			}
		case "description":
			r.Description, f = plainText(p)
		case "license":
			r.License, f = plainText(p)
		case "author":
			r.Author, f = plainText(p)
		case "date":
			r.Date, f = plainText(p)
		case "modified":
			r.Modified, f = plainText(p)
		case "tags":
			r.Tags = r.textList(p)
		case "references":
			r.References = r.textList(p)
		case "falsepositives":
			r.FalsePositives = r.textList(p)
		case "fields":
			r.Fields = r.textList(p)
		case "scope":
			r.Scope = r.textList(p)
		case "related":
			f = r.readRelated(p)
		case "logsource":
			f = r.readLogSource(p)
		case "detection":
			detection = p
		case "filter":
			detection, r.Filter = p, true
		case "correlation":
			f = r.readCorrelation(p)
		default:
			if p.key == "generate" && find(top, "correlation") != nil {
				continue // checkCorrelation reads it
			}
			r.Extra = append(r.Extra, Extra{p.key, yamlText(p.value)})
		}
		if f != nil {
			return f
		}
	}
	switch {
	case r.Title == "":
		return faultf(r.Line, "the rule has no title")
	case utf8.RuneCountInString(r.Title) > maxTitle:
		return faultf(r.Line, "the title is longer than %d characters", maxTitle)
	case r.Correlation != nil:
		return r.checkCorrelation(top)
	case find(top, "logsource") == nil:
		return faultf(r.Line, "the rule has no logsource")
	case detection == nil:
		return faultf(r.Line, "the rule has no detection")
	case r.Filter && find(top, "detection") != nil:
		return faultf(r.Line, "a document is either a rule with detection or a filter with filter, not both")
	}
	return r.readDetection(detection)
}

// yamlText prints a value that we keep and do not read. What the YAML writer
// cannot print is kept as its bare text.
func yamlText(n *yaml.Node) (text string) {
	defer func() {
		if recover() != nil {
			text = n.Value
		}
	}()
	b, err := yaml.Marshal(n)
	if err != nil {
		return n.Value
	}
	return string(b)
}

func (r *Rule) warn(class Class, line, col int, format string, args ...any) {
	r.Warnings = append(r.Warnings, r.warning(class, line, col, format, args...))
}

func plainText(p *pair) (string, *fault) {
	if p.value.Kind != yaml.ScalarNode {
		return "", faultf(p.line, "%s must be plain text", p.key)
	}
	if p.value.ShortTag() == "!!null" {
		return "", nil
	}
	return strings.TrimSpace(p.value.Value), nil
}

func oneOf(p *pair, words ...string) (string, *fault) {
	if p.value.Kind == yaml.ScalarNode && slices.Contains(words, p.value.Value) {
		return p.value.Value, nil
	}
	return "", faultf(p.line, "%s must be one of %s", p.key, strings.Join(words, ", "))
}

// textList reads a list of descriptive texts. A defect in it does not change
// what the rule finds, so it is a warning.
func (r *Rule) textList(p *pair) []string {
	var out []string
	switch p.value.Kind {
	case yaml.ScalarNode:
		if p.value.ShortTag() != "!!null" {
			r.warn(ClassSchema, p.line, p.col, "%s should be a list", p.key)
			out = append(out, p.value.Value)
		}
	case yaml.SequenceNode:
		for _, k := range p.value.Content {
			if k.Kind != yaml.ScalarNode {
				r.warn(ClassSchema, k.Line, k.Column, "%s holds an entry that is not plain text", p.key)
				continue
			}
			out = append(out, k.Value)
		}
	default:
		r.warn(ClassSchema, p.line, p.col, "%s should be a list", p.key)
	}
	return out
}

func (r *Rule) readRelated(p *pair) *fault {
	if p.value.Kind != yaml.SequenceNode {
		r.warn(ClassSchema, p.line, p.col, "related should be a list")
		return nil
	}
	for _, k := range p.value.Content {
		entry, f := pairs(k, "an entry of related")
		if f != nil {
			return f
		}
		var rel Related
		for _, e := range entry {
			switch e.key {
			case "id":
				rel.ID = e.value.Value
			case "type":
				rel.Type = e.value.Value
			}
		}
		if rel.ID == "" || !slices.Contains([]string{"derived", "obsolete", "merged", "renamed", "similar"}, rel.Type) {
			r.warn(ClassSchema, k.Line, k.Column, "an entry of related needs an id and a type of derived, obsolete, merged, renamed or similar")
		}
		r.Related = append(r.Related, rel)
	}
	return nil
}

func (r *Rule) readLogSource(p *pair) *fault {
	attrs, f := pairs(p.value, "logsource")
	if f != nil {
		return f
	}
	for i := range attrs {
		a := &attrs[i]
		var to *string
		switch a.key {
		case "product":
			to = &r.LogSource.Product
		case "category":
			to = &r.LogSource.Category
		case "service":
			to = &r.LogSource.Service
		default:
			continue // definition and the author's own: for readers
		}
		text, f := plainText(a)
		if f != nil {
			return f
		}
		*to = strings.ToLower(text)
	}
	if r.LogSource == (LogSource{}) {
		return faultf(p.line, "logsource names no product, category or service")
	}
	return nil
}

// search is a search identifier and what it stands for.
type search struct {
	name      string
	line, col int
	block     block
}

// block is the body of a search identifier: items that must all hold, or
// alternatives of which one must.
type block struct {
	items     []item
	any       []block
	line, col int
}

// item is one "field|modifiers: values" as written. No field means keywords.
type item struct {
	field  string
	mods   []string
	values []scalar
	list   bool
	line   int
}

type scalarKind uint8

const (
	scalarText scalarKind = iota
	scalarInt
	scalarFloat
	scalarBool
	scalarNull
)

type scalar struct {
	kind scalarKind
	text string
	line int
}

func (r *Rule) readDetection(p *pair) *fault {
	what := p.key
	keys, f := pairs(p.value, what)
	if f != nil {
		return f
	}
	var condition *pair
	var targets *pair
	for i := range keys {
		k := &keys[i]
		switch {
		case k.key == "condition":
			condition = k
		case k.key == "rules" && r.Filter:
			targets = k
		case k.key == "timeframe" && !r.Filter:
			return faultf(k.line, "timeframe belongs to the aggregations of Sigma 1.0: write a correlation rule")
		default:
			b, f := readBlock(k.value, fmt.Sprintf("search identifier %q", k.key), 0)
			if f != nil {
				return f
			}
			r.searches = append(r.searches, search{k.key, k.line, k.col, b})
		}
	}
	if condition == nil {
		return faultf(p.line, "%s has no condition", what)
	}
	if len(r.searches) == 0 {
		return faultf(p.line, "%s has no search identifier", what)
	}
	if r.Filter {
		if targets == nil {
			return faultf(p.line, "the filter does not say which rules it is for: write rules: any, or a list of ids and names")
		}
		if f := r.readTargets(targets); f != nil {
			return f
		}
	}
	if f := r.readCondition(condition); f != nil {
		return f
	}
	budget := maxForms
	for _, s := range r.searches {
		if f := checkBlock(&s.block, &budget); f != nil {
			return f
		}
	}
	return nil
}

func (r *Rule) readTargets(p *pair) *fault {
	switch p.value.Kind {
	case yaml.ScalarNode:
		if p.value.Value != "any" {
			return faultf(p.line, "rules of a filter must be any, or a list of ids and names")
		}
	case yaml.SequenceNode:
		for _, k := range p.value.Content {
			if k.Kind != yaml.ScalarNode || k.Value == "" {
				return faultf(k.Line, "rules of a filter must be any, or a list of ids and names")
			}
			r.targets = append(r.targets, k.Value)
		}
	default:
		return faultf(p.line, "rules of a filter must be any, or a list of ids and names")
	}
	return nil
}

func (r *Rule) readCondition(p *pair) *fault {
	nodes := []*yaml.Node{p.value}
	if p.value.Kind == yaml.SequenceNode {
		if r.Filter {
			return faultf(p.line, "the condition of a filter must be one text, not a list")
		}
		nodes = p.value.Content
	}
	r.conditionLine, r.conditionCol = p.line, p.col
	var kids []*cond
	for _, n := range nodes {
		if n.Kind != yaml.ScalarNode {
			return faultf(p.line, "the condition must be text or a list of texts")
		}
		c, f := parseCondition(n.Value, n.Line)
		if f != nil {
			return f
		}
		kids = append(kids, c)
	}
	switch len(kids) {
	case 0:
		return faultf(p.line, "the condition is empty")
	case 1:
		r.condition = kids[0]
	default:
		r.condition = &cond{op: condOr, kids: kids}
	}
	used := make(map[string]bool, len(r.searches))
	if f := r.resolve(r.condition, p.line, used); f != nil {
		return f
	}
	for _, s := range r.searches {
		if !used[s.name] {
			r.warn(ClassDead, s.line, s.col, "the condition does not use the search identifier %q", s.name)
		}
	}
	if r.Filter && !r.condition.has(condNot) {
		r.warn(ClassFilter, p.line, p.col, "the filter's condition holds no 'not': the filter keeps only the events that it describes")
	}
	return nil
}

// resolve checks that each name and pattern of the condition finds something.
func (r *Rule) resolve(c *cond, line int, used map[string]bool) *fault {
	switch c.op {
	case condName:
		for _, s := range r.searches {
			if s.name == c.name {
				used[c.name] = true
				return nil
			}
		}
		return faultf(line, "the condition names %q, which is not a search identifier of the rule", c.name)
	case condOf:
		found := 0
		for _, s := range r.searches {
			if selects(c.name, s.name) {
				used[s.name] = true
				found++
			}
		}
		if found == 0 {
			return faultf(line, "%q in the condition matches no search identifier of the rule", c.name)
		}
		if c.n > found {
			return faultf(line, "the condition asks for %d of %q, which matches %d", c.n, c.name, found)
		}
		return nil
	}
	for _, k := range c.kids {
		if f := r.resolve(k, line, used); f != nil {
			return f
		}
	}
	return nil
}

func readBlock(n *yaml.Node, what string, depth int) (block, *fault) {
	switch n.Kind {
	case yaml.ScalarNode:
		s, f := readScalar(n)
		if f != nil {
			return block{}, f
		}
		return block{items: []item{{values: []scalar{s}, line: n.Line}}, line: n.Line, col: n.Column}, nil
	case yaml.MappingNode:
		keys, f := pairs(n, what)
		if f != nil {
			return block{}, f
		}
		if len(keys) == 0 {
			return block{}, faultf(n.Line, "%s is empty", what)
		}
		b := block{line: n.Line, col: n.Column}
		for _, k := range keys {
			it, f := readItem(k)
			if f != nil {
				return block{}, f
			}
			b.items = append(b.items, it)
		}
		return b, nil
	case yaml.SequenceNode:
		if len(n.Content) == 0 {
			return block{}, faultf(n.Line, "%s is an empty list", what)
		}
		keywords := item{list: true, line: n.Line}
		for _, k := range n.Content {
			if k.Kind != yaml.ScalarNode {
				keywords.values = nil
				break
			}
			s, f := readScalar(k)
			if f != nil {
				return block{}, f
			}
			keywords.values = append(keywords.values, s)
		}
		if keywords.values != nil {
			return block{items: []item{keywords}, line: n.Line, col: n.Column}, nil
		}
		b := block{line: n.Line, col: n.Column}
		for _, k := range n.Content {
			alt, f := readBlock(k, what, depth+1)
			if f != nil {
				return block{}, f
			}
			b.any = append(b.any, alt)
		}
		return b, nil
	}
	return block{}, faultf(n.Line, "%s must be a map or a list", what)
}

func readItem(p pair) (item, *fault) {
	parts := strings.Split(p.key, "|")
	it := item{field: stripSpaces(parts[0]), mods: parts[1:], line: p.line}
	nodes := []*yaml.Node{p.value}
	switch p.value.Kind {
	case yaml.ScalarNode:
	case yaml.SequenceNode:
		nodes, it.list = p.value.Content, true
	default:
		return item{}, faultf(p.line, "%q has a map as its value: nested fields are written with dots", p.key)
	}
	if len(nodes) == 0 {
		return item{}, faultf(p.line, "%q has an empty list of values", p.key)
	}
	for _, n := range nodes {
		if n.Kind != yaml.ScalarNode {
			return item{}, faultf(n.Line, "%q has a value that is neither text nor number", p.key)
		}
		s, f := readScalar(n)
		if f != nil {
			return item{}, f
		}
		if s.kind == scalarNull && it.list {
			return item{}, faultf(n.Line, "%q has null in a list: null is a type of its own, give it a search identifier of its own", p.key)
		}
		it.values = append(it.values, s)
	}
	return it, nil
}

func readScalar(n *yaml.Node) (scalar, *fault) {
	s := scalar{text: n.Value, line: n.Line}
	switch n.ShortTag() {
	case "!!int":
		s.kind = scalarInt
		var i int64
		var u uint64
		if n.Decode(&i) == nil {
			s.text = strconv.FormatInt(i, 10)
		} else if n.Decode(&u) == nil {
			s.text = strconv.FormatUint(u, 10)
		}
	case "!!float":
		s.kind = scalarFloat
	case "!!bool":
		s.kind = scalarBool
		s.text = strings.ToLower(n.Value)
	case "!!null":
		s.kind, s.text = scalarNull, ""
	case "!!str", "!!timestamp":
	default:
		return s, faultf(n.Line, "a value has the YAML tag %s, which Sigma does not know", n.ShortTag())
	}
	return s, nil
}

func stripSpaces(name string) string {
	if !strings.Contains(name, " ") {
		return name
	}
	return strings.ReplaceAll(name, " ", "")
}

// checkBlock translates each item once, without placeholder values, so that a
// mistake is a refusal of Parse.
func checkBlock(b *block, budget *int) *fault {
	for i := range b.items {
		if _, f := translate(&b.items[i], nil, true, budget); f != nil {
			return f
		}
	}
	for i := range b.any {
		if f := checkBlock(&b.any[i], budget); f != nil {
			return f
		}
	}
	return nil
}
