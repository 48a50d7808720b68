package sigma_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/counterseal/counterseal/internal/packs"
	"github.com/counterseal/counterseal/sigma"
)

// A misreading is a way to read a rule that is not the specification's. It
// changes a rule to what an engine with that fault takes it for, so that our
// engine, asked the changed rule, gives that engine's answers.
type misreading struct {
	name   string
	change func(detection *yaml.Node) (changed bool)
}

// without drops a modifier.
func without(modifier string) func(string, *yaml.Node) (string, bool) {
	return func(key string, _ *yaml.Node) (string, bool) {
		parts := strings.Split(key, "|")
		kept := slices.DeleteFunc(slices.Clone(parts[1:]), func(p string) bool { return p == modifier })
		return strings.Join(append(parts[:1], kept...), "|"), len(kept) < len(parts)-1
	}
}

func scalars(n *yaml.Node) []*yaml.Node {
	if n.Kind == yaml.SequenceNode {
		return n.Content
	}
	return []*yaml.Node{n}
}

// literally takes the wildcards and escapes of a text for characters.
func literally(key string, value *yaml.Node) (string, bool) {
	changed := false
	if carries("re")(key, nil) {
		return key, false
	}
	for _, v := range scalars(value) {
		if strings.ContainsAny(v.Value, `*?`) || strings.Contains(v.Value, `\\`) {
			v.Value = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`).Replace(v.Value)
			v.Style = 0
			changed = true
		}
	}
	return key, changed
}

// nothing is a search that no event satisfies.
func nothing() *yaml.Node {
	return &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{
		{Kind: yaml.ScalarNode, Value: "EventID"}, {Kind: yaml.ScalarNode, Value: "not a number"}}}
}

// searches hands each search of a detection to fn.
func searches(fn func(search *yaml.Node) bool) func(*yaml.Node) bool {
	return func(detection *yaml.Node) bool {
		changed := false
		for i := 0; i+1 < len(detection.Content); i += 2 {
			if detection.Content[i].Value != "condition" && fn(detection.Content[i+1]) {
				changed = true
			}
		}
		return changed
	}
}

// unread is an engine that gives up a search at what it cannot read: the map that
// holds it is never true, nor is one after it in the same list.
func unread(fault func(key string, value *yaml.Node) bool) func(*yaml.Node) bool {
	return searches(func(search *yaml.Node) bool {
		maps := []*yaml.Node{search}
		if search.Kind == yaml.SequenceNode {
			maps = search.Content
		}
		changed := false
		for _, m := range maps {
			bad := m.Kind == yaml.ScalarNode && fault("", m)
			for i := 0; m.Kind == yaml.MappingNode && i+1 < len(m.Content); i += 2 {
				bad = bad || fault(m.Content[i].Value, m.Content[i+1])
			}
			if bad || changed {
				*m = *nothing()
				changed = true
			}
		}
		return changed
	})
}

func carries(modifier string) func(string, *yaml.Node) bool {
	return func(key string, _ *yaml.Node) bool { return slices.Contains(strings.Split(key, "|")[1:], modifier) }
}

func each(change func(string, *yaml.Node) (string, bool)) func(*yaml.Node) bool {
	return searches(func(search *yaml.Node) bool { return apply(search, change) })
}

var misreadings = []misreading{
	{"condition", func(detection *yaml.Node) bool {
		for i := 0; i+1 < len(detection.Content); i += 2 {
			if c := detection.Content[i+1]; detection.Content[i].Value == "condition" && digitStar.MatchString(c.Value) {
				c.Value = "nothing-at-all"
				detection.Content = append(detection.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: c.Value}, nothing())
				return true
			}
		}
		return false
	}},
	{"windash", unread(carries("windash"))},
	{"base64offset", unread(carries("base64offset"))},
	{"fieldref", each(without("fieldref"))},
	{"re-i", each(without("i"))},
	{"keywords", unread(func(key string, _ *yaml.Node) bool { return key == "" })},
	{"percent", unread(func(_ string, value *yaml.Node) bool {
		return slices.ContainsFunc(scalars(value), func(v *yaml.Node) bool {
			return len(v.Value) > 1 && strings.HasPrefix(v.Value, "%") && strings.HasSuffix(v.Value, "%")
		})
	})},
	{"null", unread(func(_ string, value *yaml.Node) bool { return value.Tag == "!!null" })},
	{"null-empty", each(func(key string, value *yaml.Node) (string, bool) {
		if value.Tag != "!!null" {
			return key, false
		}
		value.Tag, value.Value, value.Style = "!!str", "", yaml.SingleQuotedStyle
		return key, true
	})},
	{"wildcards", each(literally)},
}

var digitStar = regexp.MustCompile(`[0-9]_?\*`)

func apply(n *yaml.Node, change func(string, *yaml.Node) (string, bool)) bool {
	changed := false
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, v := n.Content[i], n.Content[i+1]
			if v.Kind == yaml.MappingNode || v.Kind == yaml.SequenceNode && len(v.Content) > 0 && v.Content[0].Kind == yaml.MappingNode {
				changed = apply(v, change) || changed
				continue
			}
			key, ok := change(k.Value, v)
			k.Value, changed = key, changed || ok
		}
	case yaml.SequenceNode:
		for _, v := range n.Content {
			changed = apply(v, change) || changed
		}
	}
	return changed
}

// misread returns the rule as an engine with the fault reads it, or nil when the
// fault does not touch the rule.
func misread(t testing.TB, text []byte, m misreading) *sigma.Rule {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	root := doc.Content[0]
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value != "detection" {
			continue
		}
		if m.change(root.Content[i+1]) {
			out, err := yaml.Marshal(&doc)
			if err != nil {
				t.Fatal(err)
			}
			rules, refused := sigma.Parse(m.name, out)
			if len(refused) > 0 {
				return nil // the change cannot be said in a rule, so another one must explain the pair
			}
			return rules[0]
		}
	}
	return nil
}

// difference is a pair of file and rule on which two engines disagree.
type difference struct{ engine, kind, cause, rule, file string }

// TestDifferences holds docs/sigma-differences.md to what is: it compares our
// engine with the reference and the reference with two other engines, pair by
// pair, finds the cause of each difference, and compares counts and examples with
// the table of the document. A cause is proven by asking the rule as the other
// engine reads it: that must give the other engine's number of matches.
func TestDifferences(t *testing.T) {
	if testing.Short() {
		t.Skip("reads 17,000 events")
	}
	texts := ruleTexts(t)
	ours := ourPairs(t)
	var all []difference
	equal, matches := 0, 0
	for _, row := range table(t, "matches-gated.tsv") {
		file, rule := row[0], row[1]
		var n [3]int
		for i := range n {
			var err error
			if n[i], err = strconv.Atoi(row[2+i]); err != nil {
				t.Fatal(err)
			}
		}
		pair := file + "\x00" + rule
		switch {
		case ours[pair] != n[0]:
			t.Errorf("%s: rule %s: %d matches, the reference has %d", file, rule, ours[pair], n[0])
		case n[0] > 0:
			equal++
			matches += n[0]
		}
		delete(ours, pair)
		for i, engine := range []string{"sigmalite", "sigma_go"} {
			got := n[1+i]
			if got == n[0] {
				continue
			}
			kind := "misses"
			if got > n[0] {
				kind = "adds"
			}
			cause := causeOf(t, texts[rule], file, got)
			if cause == "" {
				t.Errorf("%s: rule %s: %s has %d matches and the reference %d, and no cause explains it", file, rule, engine, got, n[0])
			}
			all = append(all, difference{engine, kind, cause, rule, file})
		}
	}
	for pair := range ours {
		file, rule, _ := strings.Cut(pair, "\x00")
		cause := ""
		if product := regexp.MustCompile(`(?m)^ +product:`); !product.Match(texts[rule]) {
			cause = "no-product"
		} else {
			t.Errorf("%s: rule %s: we match and the reference does not, and no cause explains it", file, rule)
		}
		all = append(all, difference{"counterseal", "adds", cause, rule, file})
	}

	counts := make(map[string]int)
	for _, d := range all {
		counts[fmt.Sprintf("| `%s` | %s | %s |", d.cause, d.engine, d.kind)]++
	}
	data, err := os.ReadFile("../docs/sigma-differences.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(data)
	told := make(map[string]int)
	for _, line := range strings.Split(doc, "\n") {
		cells := strings.Split(line, " | ")
		if !strings.HasPrefix(line, "| `") || len(cells) < 6 {
			continue
		}
		key := strings.Join(cells[:3], " | ") + " |"
		told[key], _ = strconv.Atoi(cells[3])
		example := difference{cells[1], cells[2], strings.Trim(cells[0], "|` "), strings.Trim(cells[4], "`"), strings.Trim(cells[5], "` |")}
		if !slices.Contains(all, example) {
			t.Errorf("the example %+v is none", example)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(counts)) {
		if told[key] != counts[key] {
			t.Errorf("%s: %d pairs, the document says %d", key, counts[key], told[key])
		}
		delete(told, key)
	}
	for key := range told {
		t.Errorf("%s: no such pair, and the document has some", key)
	}
	if line := fmt.Sprintf("%d pairs with %d matches are equal", equal, matches); !strings.Contains(doc, line) {
		t.Errorf("%s: the document says something else", line)
	}
}

// causeOf names the first misreading that turns our matches of a rule in a file
// into want.
func causeOf(t testing.TB, rule []byte, file string, want int) string {
	for _, m := range misreadings {
		r := misread(t, rule, m)
		if r == nil {
			continue
		}
		set, _ := sigma.Compile([]*sigma.Rule{r}, sigma.Options{})
		got := 0
		windowsEvents(t, fileOf(t, file), func(ev *sigma.Event) {
			set.Match(ev, func(sigma.Match) { got++ })
		})
		if got == want {
			return m.name
		}
	}
	return ""
}

var packOf = map[string]string{"evtx-core": "evtx-core", "regression-open": "sigma-regression-open"}

// fileOf finds a file of the table.
func fileOf(t testing.TB, name string) string {
	pack, rest, _ := strings.Cut(name, "/")
	return filepath.Join(packs.Dir(t, packOf[pack]), filepath.FromSlash(rest))
}

// ourPairs counts the matches of all public rules by file and rule.
func ourPairs(t testing.TB) map[string]int {
	rules, _ := packRules(t)
	set, _ := sigma.Compile(rules, sigma.Options{})
	out := make(map[string]int)
	for name, pack := range packOf {
		root := packs.Dir(t, pack)
		err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".evtx") {
				return err
			}
			rel, err := filepath.Rel(root, path)
			windowsEvents(t, path, func(ev *sigma.Event) {
				set.Match(ev, func(m sigma.Match) { out[name+"/"+filepath.ToSlash(rel)+"\x00"+m.Rule.ID]++ })
			})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// ruleTexts are the texts of the public rules by id.
func ruleTexts(t testing.TB) map[string][]byte {
	root := filepath.Join(packs.Dir(t, "sigma-rules"), "sigma")
	rules, _ := packRules(t)
	out := make(map[string][]byte)
	for _, r := range rules {
		data, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(r.Path)))
		if err != nil {
			t.Fatal(err)
		}
		out[r.ID] = data
	}
	return out
}
