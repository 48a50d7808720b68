package sigma_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	goyaml "github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"

	"github.com/counterseal/counterseal/internal/packs"
	"github.com/counterseal/counterseal/sigma"
)

// specification holds the three schemas as the specification publishes them. They
// are the oracle of CheckSchema; it knows nothing of them.
type specification struct{ rule, correlation, filter *jsonschema.Schema }

func newSpecification(t testing.TB) *specification {
	t.Helper()
	dir := filepath.Join(packs.Dir(t, "sigma-rules"), "sigma-specification", "json-schema")
	compile := func(name string) *jsonschema.Schema {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		// The schema of rules names its dialect with an empty fragment, which the
		// dialect's own name does not have.
		data = bytes.Replace(data, []byte("draft/2020-12/schema#"), []byte("draft/2020-12/schema"), 1)
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		c := jsonschema.NewCompiler()
		c.AssertFormat() // so that "format": "uuid" asks for something
		if err := c.AddResource("spec:///"+name, doc); err != nil {
			t.Fatal(err)
		}
		s, err := c.Compile("spec:///" + name)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	return &specification{
		compile("sigma-detection-rule-schema.json"), compile("sigma-correlation-rules-schema.json"), compile("sigma-filters-schema.json"),
	}
}

// asks reads a document with another YAML reader than ours and validates it; ok
// is false for what is no JSON.
func (s *specification) asks(t testing.TB, text []byte) (violates string, ok bool) {
	t.Helper()
	var v any
	if err := goyaml.Unmarshal(text, &v); err != nil {
		return err.Error(), false
	}
	data, err := json.Marshal(plainJSON(v))
	if err != nil {
		return err.Error(), false
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	top, _ := doc.(map[string]any)
	schema := s.rule
	if top["correlation"] != nil || has(top, "correlation") {
		schema = s.correlation
	} else if has(top, "filter") {
		schema = s.filter
	}
	if err := schema.Validate(doc); err != nil {
		return strings.ReplaceAll(err.Error(), "\n", " "), true
	}
	return "", true
}

func has(m map[string]any, key string) bool { _, ok := m[key]; return ok }

// plainJSON gives maps the keys that JSON has.
func plainJSON(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = plainJSON(v[k])
		}
	case map[any]any:
		out := make(map[string]any)
		for k := range v {
			out[fmt.Sprint(k)] = plainJSON(v[k])
		}
		return out
	case []any:
		for i := range v {
			v[i] = plainJSON(v[i])
		}
	case float64:
		if math.IsInf(v, 0) || math.IsNaN(v) {
			return fmt.Sprint(v)
		}
	}
	return v
}

// packFiles calls fn with every rule file of the public collection, the folders
// included that we do not load.
func packFiles(t testing.TB, fn func(path string, data []byte)) {
	t.Helper()
	root := filepath.Join(packs.Dir(t, "sigma-rules"), "sigma")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".yml") || !strings.Contains(path, "rules") && !strings.Contains(path, "unsupported") {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		fn(rel, data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSchemaOracle: over the public rules we say "violates the schema" of exactly
// the documents of which the schemas say it.
func TestSchemaOracle(t *testing.T) {
	spec := newSpecification(t)
	files, violating := 0, 0
	packFiles(t, func(path string, data []byte) {
		files++
		want, ok := spec.asks(t, data)
		if !ok {
			t.Errorf("%s: %s", path, want)
			return
		}
		got := sigma.CheckSchema(path, data)
		if (want != "") != (len(got) > 0) {
			t.Errorf("%s: we say %v, the schema %q", path, got, want)
		}
		if want != "" {
			violating++
		}
	})
	t.Logf("%d files, %d violate the schema", files, violating)
	if files < 3754 {
		t.Errorf("%d files", files)
	}
}

const fullCorrelation = `title: Many
id: 7f3b9a52-0d37-4a43-8c71-5a3df3e6a001
status: test
description: Some
author: A
references: [https://example.org/a]
date: 2025-01-02
modified: "2025-02-03"
taxonomy: sigma
correlation:
  type: value_count
  rules: [aa, 7f3b9a52-0d37-4a43-8c71-5a3df3e6a001]
  aliases: {who: {aa: user}}
  group-by: [who]
  timespan: 1h
  condition: {gte: 3, field: x}
falsepositives: [none known]
level: high
generate: true
`

const fullFilter = `title: Leave out
id: 7f3b9a52-0d37-4a43-8c71-5a3df3e6a001
description: Some
date: 2025-01-02
modified: 2025-02-03
taxonomy: sigma
logsource: {category: c, product: p, service: s}
filter:
  rules: [aa, bb]
  selection: {User|startswith: adm_}
  condition: not selection
`

// mutants calls fn with copies of a document, each with one value or key changed.
func mutants(t testing.TB, text string, fn func(what, mutant string)) {
	t.Helper()
	spare := []string{
		"x", "''", "1", "1.0", "1.5", "-3", "true", "null", "[]", "{}", "[x, x]", "[x, y]", "[1]", "[1.5]", "[null]", "[[x]]", "[{a: 1}]", "{a: b}", "{a: {b: c}}",
		"2024-13-01", "'2024-02-31'", "2024-1-1", "20240101", "7f3b9a52-0d37-4a43-8c71-5a3df3e6a00", "7F3B9A52-0d37-4a43-8c71-5a3df3e6a001", "7f3b9a520d374a438c715a3df3e6a001",
		"[attack.t1059, cve.2021-1]", "[Attack.t1059]", "[attack]", "[a.b.c]", "[.b]", "[a.]", "[é.b]", "any", "[any]", "high", "stable", "temporal", "value_median", "event_count", "0x1F", "yes",
		strings.Repeat("y", 10), strings.Repeat("é", 11), strings.Repeat("é", 256), strings.Repeat("é", 257), "[{id: 7f3b9a52-0d37-4a43-8c71-5a3df3e6a001, type: similar}]", "[{id: x, type: similar}]",
	}
	for target := 0; ; target++ {
		ran := false
		for change := -1; change < len(spare); change++ {
			var root yaml.Node
			if err := yaml.Unmarshal([]byte(text), &root); err != nil {
				t.Fatal(err)
			}
			n, what := 0, ""
			var walk func(m *yaml.Node, path string)
			walk = func(m *yaml.Node, path string) {
				for i := 0; i < len(m.Content); i++ {
					at, k := path, m.Content[i]
					if m.Kind == yaml.MappingNode {
						if i%2 == 0 {
							continue
						}
						at += "/" + m.Content[i-1].Value
					}
					if n++; n-1 == target {
						switch {
						case change >= 0:
							var s yaml.Node
							if err := yaml.Unmarshal([]byte(spare[change]), &s); err != nil {
								t.Fatal(err)
							}
							m.Content[i], what = s.Content[0], at+" is "+spare[change]
						case m.Kind == yaml.MappingNode:
							m.Content, what = append(m.Content[:i-1:i-1], m.Content[i+1:]...), at+" is gone"
						default:
							m.Content, what = append(m.Content[:i:i], m.Content[i+1:]...), at+" is gone"
						}
						return
					}
					walk(k, at)
				}
			}
			if walk(root.Content[0], ""); what == "" {
				continue
			}
			ran = true
			out, err := yaml.Marshal(&root)
			if err != nil {
				t.Fatal(err)
			}
			fn(what, string(out))
		}
		if !ran {
			return
		}
	}
}

// deviations are the documents on which we mean not to agree with the schemas.
func deviation(what string) string {
	if what == "/filter/rules is any" {
		return "the schema of filters has no form for every rule; Parse reads any, and so do others"
	}
	return ""
}

// TestSchemaMutants: whatever is changed in a rule, a correlation or a filter, we
// agree with the schema.
func TestSchemaMutants(t *testing.T) {
	spec := newSpecification(t)
	total, violating, deviating := 0, 0, 0
	for _, text := range []string{fullRule, fullCorrelation, fullFilter, strings.Replace(fullCorrelation, "value_count", "temporal", 1)} {
		if w := sigma.CheckSchema("whole", []byte(text)); len(w) > 0 {
			t.Fatalf("the document to begin with: %v", w)
		}
		mutants(t, text, func(what, mutant string) {
			want, ok := spec.asks(t, []byte(mutant))
			if !ok {
				t.Fatalf("%s: %s\n%s", what, want, mutant)
			}
			got := sigma.CheckSchema("mutant", []byte(mutant))
			total++
			if want != "" {
				violating++
			}
			for _, w := range got {
				lines := strings.Split(mutant, "\n")
				if w.Class != sigma.ClassSchema || w.Text == "" || w.Line < 1 || w.Line > len(lines) || w.Column < 1 || w.Column > len([]rune(lines[w.Line-1])) {
					t.Errorf("%s: the place %d:%d (%s)", what, w.Line, w.Column, w.Text)
				}
			}
			if (want != "") == (len(got) > 0) {
				return
			}
			if deviation(what) != "" {
				deviating++
				return
			}
			t.Errorf("%s: we say %v, the schema %q\n%s", what, got, want, mutant)
		})
	}
	t.Logf("%d mutants, %d violate the schema, %d deviations", total, violating, deviating)
	if violating < 1000 || deviating != 1 {
		t.Errorf("%d mutants violate the schema, %d deviations", violating, deviating)
	}
}

// TestSchemaSays: what is wrong and where.
func TestSchemaSays(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{"title: Everything\n", "", `2:1 a rule must have the key title`},
		{"level: high", "level: urgent", `33:8 level must be one of informational, low, medium, high, critical`},
		{"date: 2025-01-02", "date: 2.1.2025", `17:7 date must be a day written as YYYY-MM-DD`},
		{"date: 2025-01-02", "date: 20250102", `17:7 date must be text and is a whole number: put it in quotes`},
		{"author: A, B", "author: [A, B]", `16:9 author must be text and is a list`},
		{"status: test", "status: draft", `9:9 status must be one of stable, test, experimental, deprecated, unsupported`},
		{"id: 7f3b9a52-0d37-4a43-8c71-5a3df3e6a001", "id: mine", `3:5 id must be a UUID, such as 0e95725d-7320-415d-80f7-004da920fc11`},
		{"      type: derived\n", "", `6:7 an entry of related must have the key type`},
		{"    - attack.t1059", "    - Attack T1059", `20:7 the tag "Attack T1059" must be a namespace, a dot and a name, in small letters, digits, _ and -`},
		{"    - None", "    - None\n    - None", `33:7 falsepositives holds "None" twice`},
		{"    condition: selection", "    condition: [selection, selection]", `28:16 the condition must be text and is a list`},
		{"        Image: x", "        Image: x\n    timeframe: 5m", `28:16 the search identifier "timeframe" must be a map or a list and is text`},
		{"        Image: x", "        - a\n        - 1.5", `28:11 the search identifier "selection" lists what is a number: a text, a whole number or a map is meant`},
	} {
		text := strings.Replace(fullRule, c.old, c.new, 1)
		var got []string
		for _, w := range sigma.CheckSchema("r.yml", []byte(text)) {
			got = append(got, fmt.Sprintf("%d:%d %s", w.Line, w.Column, w.Text))
		}
		if len(got) != 1 || got[0] != c.want {
			t.Errorf("%q: got %q, want %q", c.new, got, c.want)
		}
	}
}
