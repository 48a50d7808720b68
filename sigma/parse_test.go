package sigma_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/counterseal/counterseal/sigma"
)

const fullRule = `# A comment in front belongs to the document.
title: Everything
id: 7f3b9a52-0d37-4a43-8c71-5a3df3e6a001
name: everything
related:
    - id: 7f3b9a52-0d37-4a43-8c71-5a3df3e6a002
      type: derived
taxonomy: sigma
status: test
description: |
    Two
    lines.
license: Apache-2.0
references:
    - https://example.org/a
author: A, B
date: 2025-01-02
modified: 2025-02-03
tags:
    - attack.t1059
logsource:
    product: Windows
    category: process_creation
    definition: audit it
detection:
    selection:
        Image: x
    condition: selection
fields:
    - CommandLine
falsepositives:
    - None
level: high
scope:
    - server
our_key:
    a: [1, 2]
`

func TestParseKeepsAll(t *testing.T) {
	rules, refused := sigma.Parse("a.yml", []byte(fullRule))
	if len(refused) > 0 || len(rules) != 1 {
		t.Fatalf("%d rules, refused %v", len(rules), refused)
	}
	r := rules[0]
	got := sigma.Rule{
		ID: r.ID, Name: r.Name, Title: r.Title, Status: r.Status, Level: r.Level, Author: r.Author,
		License: r.License, Description: r.Description, Date: r.Date, Modified: r.Modified, Tags: r.Tags,
		References: r.References, FalsePositives: r.FalsePositives, Fields: r.Fields, Scope: r.Scope,
		Related: r.Related, LogSource: r.LogSource, Digest: r.Digest, Path: r.Path, Line: r.Line,
		Extra: r.Extra, Warnings: r.Warnings,
	}
	want := sigma.Rule{
		ID: "7f3b9a52-0d37-4a43-8c71-5a3df3e6a001", Name: "everything", Title: "Everything", Status: "test", Level: "high",
		Author: "A, B", License: "Apache-2.0", Description: "Two\nlines.", Date: "2025-01-02", Modified: "2025-02-03",
		Tags: []string{"attack.t1059"}, References: []string{"https://example.org/a"}, FalsePositives: []string{"None"},
		Fields: []string{"CommandLine"}, Scope: []string{"server"},
		Related:   []sigma.Related{{ID: "7f3b9a52-0d37-4a43-8c71-5a3df3e6a002", Type: "derived"}},
		LogSource: sigma.LogSource{Product: "windows", Category: "process_creation"},
		Digest:    sha256.Sum256([]byte(fullRule)), Path: "a.yml", Line: 2,
		Extra: []sigma.Extra{{Key: "our_key", YAML: "a: [1, 2]\n"}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(sigma.Rule{})); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func ruleText(title, id string) string {
	return fmt.Sprintf("title: %s\nid: %s\nlogsource: {product: p}\ndetection:\n  s: {A: 1}\n  condition: s\n", title, id)
}

func TestDocumentsStandAlone(t *testing.T) {
	file := "# head\n---\n" + ruleText("one", "1") +
		"---\ntitle: broken\nlogsource: [\n" +
		"---\r\n" + ruleText("two", "2") +
		"--- # correlated\ntitle: corr\nid: c\ncorrelation:\n  type: event_count\n" +
		"---\n# nothing\n---\n" + ruleText("three", "3") + "...\n---\n"
	rules, refused := sigma.Parse("many.yml", []byte(file))
	var titles []string
	for _, r := range rules {
		titles = append(titles, r.Title)
	}
	if want := []string{"one", "two", "three"}; !slices.Equal(titles, want) {
		t.Errorf("rules %v, want %v (refused %v)", titles, want, refused)
	}
	if len(refused) != 2 {
		t.Fatalf("refused %v, want two", refused)
	}
	if r := refused[0]; r.Line < 10 || r.Line > 12 || !strings.Contains(r.Reason, "YAML") {
		t.Errorf("the broken document is refused as %v", r)
	}
	if r := refused[1]; r.Title != "corr" || r.RuleID != "c" || !strings.Contains(r.Error(), "many.yml:") {
		t.Errorf("the correlation is refused as %v", r)
	}
	line := strings.Count(file[:strings.Index(file, "title: three")], "\n") + 1
	if rules[2].Line != line {
		t.Errorf("rule three on line %d, want %d", rules[2].Line, line)
	}
}

func TestParseBounds(t *testing.T) {
	bomb := "title: x\nlogsource: {product: p}\na0: &a0 [1,1,1,1,1,1,1,1,1,1]\n"
	for i := 1; i < 12; i++ {
		bomb += fmt.Sprintf("a%d: &a%d [*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d]\n", i, i, i-1, i-1, i-1, i-1, i-1, i-1, i-1, i-1)
	}
	for _, c := range []struct{ name, text, reason string }{
		{"large", strings.Repeat("#", 10<<20+1), "larger"},
		{"aliases", bomb, "aliases"},
		{"values", "title: x\na: [" + strings.Repeat("1,", 200001) + "]\n", "more than 200000 values"},
		{"alias of itself", "title: x\na: &a [*a]\n", "aliases"},
		{"deep", "a: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000), "deep"},
		{"documents", strings.Repeat("---\na\n", 10001), "documents"},
		{"not UTF-8", "title: \xff\n", "UTF-8"},
		{"empty", "", "no document"},
		{"comments", "# a\n---\n", "no document"},
		{"list", "- a\n", "must be a map"},
		{"text", "just text", "must be a map"},
		{"condition", "title: x\nlogsource: {product: p}\ndetection: {s: {A: 1}, condition: " + strings.Repeat("(", 101) + "s" + strings.Repeat(")", 101) + "}", "deep"},
		{"nots", "title: x\nlogsource: {product: p}\ndetection: {s: {A: 1}, condition: " + strings.Repeat("not ", 101) + "s}", "deep"},
		{"forms", "title: x\nlogsource: {product: p}\ndetection: {s: {A|windash: [" + strings.Repeat("-a -b -c -d -e,", 40) + "]}, condition: s}", "forms"},
		{"expressions", "title: x\nlogsource: {product: p}\ndetection: {s: {A|re: [" + strings.Repeat("a,", 2100) + "]}, condition: s}", "forms"},
		{"title", "title: " + strings.Repeat("x", 257) + "\nlogsource: {product: p}\ndetection: {s: {A: 1}, condition: s}", "longer than 256"},
	} {
		rules, refused := sigma.Parse(c.name, []byte(c.text))
		if len(rules) != 0 || len(refused) == 0 || !strings.Contains(refused[0].Reason, c.reason) {
			t.Errorf("%s: %d rules, refused %v, want the reason %q", c.name, len(rules), refused, c.reason)
		}
	}
}

func TestConditionsMayBeLong(t *testing.T) {
	text := strings.Repeat("not (s) or (s and not s) and ", 300) + "s"
	_, refused := sigma.Parse("l", []byte("title: x\nlogsource: {product: p}\ndetection: {s: {A: 1}, condition: "+text+"}\n"))
	if len(refused) > 0 {
		t.Error(refused[0])
	}
}

func TestAliasesOfYAML(t *testing.T) {
	rules, refused := sigma.Parse("a.yml", []byte("title: x\nlogsource: {product: p}\ndetection:\n  a: {A: &v [1, 2]}\n  b: {B: *v}\n  condition: a and b\n"))
	if len(refused) > 0 {
		t.Fatal(refused)
	}
	set, _ := sigma.Compile(rules, sigma.Options{})
	got := verdict(set, &sigma.Event{Source: sigma.LogSource{Product: "p"}, Fields: []sigma.Field{{Name: "A", Value: []byte("1")}, {Name: "B", Value: []byte("2")}}})
	if got != sigma.Yes {
		t.Errorf("%v, want yes", got)
	}
}

// verdict is the answer of a set of one rule.
func verdict(set *sigma.Set, ev *sigma.Event) sigma.Verdict {
	v := sigma.No
	set.Match(ev, func(m sigma.Match) { v = m.Verdict })
	return v
}

func TestWarnings(t *testing.T) {
	rules, refused := sigma.Parse("w.yml", []byte(`title: w
tags: attack.t1
related: [{id: x, type: cousin}]
logsource: {product: p}
detection:
  s: {A: 1}
  unused: {B: 1}
  condition: s
---
title: f
logsource: {product: elsewhere}
filter: {rules: any, s: {A: 1}, condition: s}
`))
	if len(refused) > 0 {
		t.Fatal(refused)
	}
	set, _ := sigma.Compile(rules, sigma.Options{})
	var all strings.Builder
	for _, w := range set.Warnings() {
		all.WriteString(w.String() + "\n")
	}
	for _, want := range []string{"tags should be a list", "entry of related", `"unused"`, "holds no 'not'", "applies to no rule"} {
		if !strings.Contains(all.String(), want) {
			t.Errorf("no warning says %q in\n%s", want, all.String())
		}
	}
	if len(set.Filters()) != 1 || len(set.Rules()) != 1 {
		t.Errorf("%d filters and %d rules, want one each", len(set.Filters()), len(set.Rules()))
	}
}

func TestCompileDoesNotDependOnOrder(t *testing.T) {
	var rules []*sigma.Rule
	for _, text := range []string{ruleText("b", "2"), ruleText("a", "1"), ruleText("twin", "2"), ruleText("no id", "''"), ruleText("c", "C")} {
		r, refused := sigma.Parse(text[:9], []byte(text))
		if len(refused) > 0 {
			t.Fatal(refused)
		}
		rules = append(rules, r...)
	}
	first, refused := sigma.Compile(rules, sigma.Options{})
	if len(refused) != 1 || refused[0].Title != "twin" || !strings.Contains(refused[0].Reason, "used by") {
		t.Fatalf("refused %v, want the twin", refused)
	}
	slices.Reverse(rules)
	second, again := sigma.Compile(rules, sigma.Options{})
	if first.Digest() != second.Digest() || len(again) != 1 || again[0].Title != "twin" {
		t.Error("the order of the rules changes the set")
	}
	upper, _ := sigma.Parse("z", []byte(ruleText("upper", "c")))
	if _, twice := sigma.Compile(append(upper, rules...), sigma.Options{}); len(twice) != 2 {
		t.Errorf("refused %v, want the id in the other case too", twice)
	}
	third, _ := sigma.Compile(rules[1:], sigma.Options{})
	fourth, _ := sigma.Compile(rules, sigma.Options{Placeholders: map[string][]string{"a": {"b"}}})
	fifth, _ := sigma.Compile(rules, sigma.Options{Mapping: &sigma.Mapping{}})
	if first.Digest() == third.Digest() || first.Digest() == fourth.Digest() || first.Digest() == fifth.Digest() {
		t.Error("the digest does not cover rules, placeholders and mapping")
	}
	var order []string
	ev := &sigma.Event{Source: sigma.LogSource{Product: "p"}, Fields: []sigma.Field{{Name: "A", Value: []byte("1")}}}
	second.Match(ev, func(m sigma.Match) { order = append(order, m.Rule.Title) })
	if want := []string{"a", "b", "c", "no id"}; !slices.Equal(order, want) {
		t.Errorf("matches in the order %v, want %v", order, want)
	}
}

func TestFieldsOfAndCouldFeed(t *testing.T) {
	rules, refused := sigma.Parse("f.yml", []byte(`title: process
id: '1'
logsource: {product: windows, category: process_creation}
detection:
  s: {Image|endswith: x, 'A|fieldref': B}
  k: [word]
  condition: s or k
---
title: deleted
id: '2'
logsource: {product: windows, category: registry_delete}
detection: {s: {TargetObject: x}, condition: s}
---
title: sshd
id: '3'
logsource: {product: linux, service: sshd}
detection: {s: {user: x}, condition: s}
---
title: filter
id: '4'
logsource: {product: linux}
filter: {rules: any, s: {src_ip: x}, condition: not s}
---
title: unmapped
id: '5'
logsource: {product: windows, category: file_rename}
detection: {s: {X: x}, condition: s}
`))
	if len(refused) > 0 {
		t.Fatal(refused)
	}
	set, _ := sigma.Compile(rules, sigma.Options{})
	r := set.Rules()
	for i, want := range [][]string{
		{"*", "A", "B", "Channel", "EventID", "Image", "NewProcessName"},
		{"Channel", "EventID", "EventType", "TargetObject"},
		{"src_ip", "user"},
		{"X"},
	} {
		if got := set.FieldsOf(r[i]); !slices.Equal(got, want) {
			t.Errorf("%s reads %v, want %v", r[i].Title, got, want)
		}
	}
	if set.FieldsOf(&sigma.Rule{}) != nil || set.CouldFeed(&sigma.Rule{}, []sigma.LogSource{{}}) {
		t.Error("a rule of another set has an answer")
	}
	for _, c := range []struct {
		rule   int
		source sigma.LogSource
		want   bool
	}{
		{0, sigma.LogSource{Product: "windows"}, true},
		{0, sigma.LogSource{Product: "Windows", Service: "Security"}, true},
		{0, sigma.LogSource{Product: "windows", Service: "sysmon"}, true},
		{0, sigma.LogSource{Product: "windows", Service: "application"}, false},
		{0, sigma.LogSource{Product: "linux"}, false},
		{1, sigma.LogSource{Product: "windows", Service: "security"}, false},
		{2, sigma.LogSource{Product: "linux", Service: "sshd"}, true},
		{2, sigma.LogSource{Product: "linux", Service: "auditd"}, false},
		{2, sigma.LogSource{Product: "windows"}, false},
		{3, sigma.LogSource{Product: "windows"}, false},
		{3, sigma.LogSource{Product: "windows", Category: "file_rename"}, true},
	} {
		if got := set.CouldFeed(r[c.rule], []sigma.LogSource{c.source}); got != c.want {
			t.Errorf("%v could feed %s: %v, want %v", c.source, r[c.rule].Title, got, c.want)
		}
		if got := set.FieldsOn(r[c.rule], c.source) != nil; got != c.want {
			t.Errorf("%v has fields for %s: %v, want %v", c.source, r[c.rule].Title, got, c.want)
		}
	}
	for _, c := range []struct {
		rule   int
		source sigma.LogSource
		want   []string
	}{
		{0, sigma.LogSource{Product: "windows", Service: "security"}, []string{"*", "A", "B", "Channel", "EventID", "NewProcessName"}},
		{0, sigma.LogSource{Product: "windows", Service: "sysmon"}, []string{"*", "A", "B", "Channel", "EventID", "Image"}},
		{2, sigma.LogSource{Product: "linux", Service: "sshd"}, []string{"src_ip", "user"}},
		{3, sigma.LogSource{Product: "windows", Category: "file_rename"}, []string{"X"}},
	} {
		if got := set.FieldsOn(r[c.rule], c.source); !slices.Equal(got, c.want) {
			t.Errorf("%s reads %v on %v, want %v", r[c.rule].Title, got, c.source, c.want)
		}
	}
}

func TestMatchIsConcurrent(t *testing.T) {
	rules, refused := sigma.Parse("c.yml", []byte("title: c\nlogsource: {product: p}\ndetection:\n  s: {A|contains: Ä, B|re: x}\n  condition: s\n"))
	if len(refused) > 0 {
		t.Fatal(refused)
	}
	set, _ := sigma.Compile(rules, sigma.Options{})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 200 {
				value := bytes.Repeat([]byte("y"), i)
				ev := &sigma.Event{
					Source: sigma.LogSource{Product: "p", Service: fmt.Sprint(g, i%7)},
					Fields: []sigma.Field{{Name: "B", Value: []byte("x")}, {Name: "A", Value: append(value, "ä"...)}},
				}
				inner := sigma.No
				set.Match(ev, func(m sigma.Match) {
					inner = verdict(set, ev) // a match within a match
					if m.Verdict != sigma.Yes || len(m.Matched) != 2 || m.Matched[0].Name != "B" {
						t.Errorf("match %v", m)
					}
				})
				if inner != sigma.Yes {
					t.Error("no match")
				}
			}
		})
	}
	wg.Wait()
}

// TestMatchAllocates pins that an event without a match costs no memory.
func TestMatchAllocates(t *testing.T) {
	if raced {
		t.Skip("memory cannot be counted under the race detector")
	}
	rules, _ := sigma.Parse("a.yml", []byte("title: a\nlogsource: {product: p}\ndetection:\n  s: {A|contains: nothing, B: null}\n  condition: s\n"))
	set, _ := sigma.Compile(rules, sigma.Options{})
	ev := &sigma.Event{Source: sigma.LogSource{Product: "p", Service: "x"}, Fields: []sigma.Field{{Name: "A", Value: []byte("Some VALUE")}}}
	fn := func(sigma.Match) { t.Error("match") }
	set.Match(ev, fn)
	if n := testing.AllocsPerRun(100, func() { set.Match(ev, fn) }); n > 0 {
		t.Errorf("%v allocations an event", n)
	}
}

// TestSplit: each document of a file has, by itself and beside any others, the digest that
// it has in the file.
func TestSplit(t *testing.T) {
	const doc = "title: %s\nlogsource: {product: windows}\ndetection: {s: {Image: x}, condition: s}\n"
	text := "# a remark\n---\n" + strings.ReplaceAll(doc, "%s", "a") + "---\n# another\n" + strings.ReplaceAll(doc, "%s", "b") + "---\n" + strings.ReplaceAll(doc, "%s", "c") + "---\n# the end\n"
	all, refused := sigma.Parse("x", []byte("\xef\xbb\xbf"+text))
	docs := sigma.Split([]byte("\xef\xbb\xbf" + text))
	if len(all) != 3 || len(docs) != 3 || len(refused) != 0 {
		t.Fatalf("%d rules, %d documents, %v", len(all), len(docs), refused)
	}
	for i := range docs {
		for j := range docs {
			part := slices.Clone(docs[i])
			if j > i {
				part = append(part, docs[j]...)
			}
			got, _ := sigma.Parse("x", part)
			if got[0].Digest != all[i].Digest || j > i && got[1].Digest != all[j].Digest {
				t.Errorf("documents %d and %d alone have other digests", i, j)
			}
		}
	}
	if sigma.Split([]byte("\xff")) != nil || len(sigma.Split(nil)) != 0 {
		t.Error("what is no text has documents")
	}
}
