package access_test

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/admit"
	"github.com/counterseal/counterseal/internal/query"
	"github.com/counterseal/counterseal/sigma"
)

// options are those of the table: a protected list, a small directory, a registry.
func options(t testing.TB) access.Options {
	t.Helper()
	p, err := admit.ParseProtected([]byte(`apiVersion: protected/v1
channels:
  - name: inspector general hotline
    domains: [oig.example]
    addresses: [192.0.2.7/32]
    mails: [hotline@agency.example]
    numbers: ["+1 202 555 0100"]
    names: [Office of Inspector General]
`))
	if err != nil {
		t.Fatal(err)
	}
	return access.Options{
		Protected: p.Mentions,
		Known:     func(s string) bool { return strings.Contains(s, "cunningham") },
		Private:   func(s string) bool { return strings.Contains(s, "local47") },
		Shared:    func(s string) bool { return s == "srv-db01" || s == "10.0.0.53" || s == "svc-backup" },
	}
}

// token makes the nth token of a kind.
func token(kind string, n int) string {
	const alphabet = "abcdefghijklmnopqrstuvwxyz234567"
	b := []byte(strings.Repeat("q", 26))
	b[0], b[1] = alphabet[n%32], alphabet[n/32%32]
	return kind + "1_" + string(b)
}

var macro = regexp.MustCompile(`\{([pmda])(?:\*(\d+))?\}`)

// expand writes {p} as a token and {p*21} as 21 of them.
func expand(s string) string {
	return macro.ReplaceAllStringFunc(s, func(m string) string {
		g := macro.FindStringSubmatch(m)
		n := 1
		if g[2] != "" {
			n, _ = strconv.Atoi(g[2])
		}
		all := make([]string, n)
		for i := range all {
			all[i] = token(g[1], i)
		}
		return strings.Join(all, ", ")
	})
}

func list(s string) []string {
	var out []string
	for v := range strings.SplitSeq(s, ",") {
		if v = strings.TrimSpace(v); v != "" {
			out = append(out, v)
		}
	}
	return out
}

func parseQuery(t testing.TB, s string) *query.Query {
	t.Helper()
	q, err := query.Parse(s)
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return q
}

func rule(t testing.TB, body string) *sigma.Rule {
	t.Helper()
	cond := "s"
	if b, c, ok := strings.Cut(body, " => "); ok {
		body, cond = b, c
	} else {
		body = "s: {" + body + "}"
	}
	rules, refused := sigma.Parse("t.yml", []byte("title: t\nlogsource: {product: windows}\ndetection: {"+body+", condition: "+cond+"}\n"))
	if len(rules) != 1 {
		t.Fatalf("%s: %v", body, refused)
	}
	return rules[0]
}

// build reads one question of the table.
func build(t testing.TB, form, s string) access.Question {
	t.Helper()
	s = expand(s)
	part := strings.Split(s, "|")
	for len(part) < 3 {
		part = append(part, "")
	}
	switch form {
	case "search":
		return access.Search{Query: parseQuery(t, s)}
	case "statistics":
		return access.Statistics{Query: parseQuery(t, s)}
	case "saved":
		return access.SavedSearch{Query: parseQuery(t, s)}
	case "export":
		return access.Export{Query: parseQuery(t, s)}
	case "export-people":
		return access.Export{Query: parseQuery(t, s), People: true}
	case "suppression":
		return access.Suppression{Query: parseQuery(t, s)}
	case "hold":
		return access.Hold{Query: parseQuery(t, s)}
	case "hold-tokens":
		return access.Hold{Tokens: list(s)}
	case "values":
		return access.Values{Field: part[0], Prefix: part[1], Where: parseQuery(t, part[2])}
	case "rule":
		return access.Rule{Rule: rule(t, s)}
	case "published":
		return access.Rule{Rule: rule(t, s), Published: true}
	case "list":
		return access.List{Field: part[0], Values: list(part[1])}
	case "indicator":
		return access.Indicator{Field: part[0], Value: part[1]}
	case "peers":
		return access.PeerGroup{By: list(part[0]), Members: list(part[1]), Query: parseQuery(t, part[2])}
	case "directory":
		return access.DirectoryChange{Whole: s == "whole", Subjects: list(s)}
	}
	t.Fatalf("no form %q", form)
	return nil
}

func marks(v access.Verdict) string {
	var m []string
	for _, x := range []struct {
		on   bool
		name string
	}{{v.Protected, "protected"}, {v.Cells, "cells"}, {v.Veil, "veil"}, {v.Finding, "finding"}, {v.Standing, "standing"}} {
		if x.on {
			m = append(m, x.name)
		}
	}
	if c := v.Crowd(); c != access.CrowdNone && c != access.CrowdFew {
		m = append(m, string(c))
	}
	if len(m) == 0 {
		return "-"
	}
	return strings.Join(m, ",")
}

func whose(v access.Verdict) string {
	if len(v.Who) == 0 {
		return "-"
	}
	s := make([]string, len(v.Who))
	for i, w := range v.Who {
		s[i] = string(w)
	}
	return strings.Join(s, ",")
}

func why(v access.Verdict) string {
	if len(v.Reasons) == 0 {
		return "-"
	}
	s := make([]string, len(v.Reasons))
	for i, r := range v.Reasons {
		s[i] = strings.TrimSpace(r.Field + ": " + r.Why)
	}
	return strings.Join(s, "; ")
}

type row struct {
	line                                     int
	form, question, class, who, mark, reason string
}

func table(t testing.TB) []row {
	t.Helper()
	f, err := os.Open("testdata/selects.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []row
	s := bufio.NewScanner(f)
	for n := 1; s.Scan(); n++ {
		if strings.HasPrefix(s.Text(), "#") || strings.TrimSpace(s.Text()) == "" {
			continue
		}
		c := strings.Split(s.Text(), "\t")
		if len(c) != 6 {
			t.Fatalf("line %d has %d columns", n, len(c))
		}
		out = append(out, row{n, c[0], c[1], c[2], c[3], c[4], c[5]})
	}
	return out
}

func TestTable(t *testing.T) {
	rows := table(t)
	if len(rows) < 250 {
		t.Errorf("%d rows", len(rows))
	}
	o := options(t)
	count := map[string]int{}
	seen := map[string]int{}
	for _, r := range rows {
		if l := seen[r.form+"\t"+r.question]; l > 0 {
			t.Errorf("line %d repeats line %d", r.line, l)
		}
		seen[r.form+"\t"+r.question] = r.line
		v := access.Selects(build(t, r.form, r.question), o)
		count[r.form+" "+v.Class.String()]++
		if got := fmt.Sprint(v.Class, "\t", whose(v), "\t", marks(v)); got != r.class+"\t"+r.who+"\t"+r.mark {
			t.Errorf("line %d: %s: %s\n got %s\nwant %s\t%s\t%s\nreasons %s", r.line, r.form, r.question, got, r.class, r.who, r.mark, why(v))
		}
		if got := why(v); got != r.reason {
			t.Errorf("line %d: %s: %s\n got reason %s\nwant %s", r.line, r.form, r.question, got, r.reason)
		}
	}
	for _, form := range []string{"search", "statistics", "saved", "export", "suppression", "hold", "hold-tokens", "values", "rule", "published", "list", "indicator", "peers", "directory"} {
		if count[form+" nobody"] == 0 && form != "hold-tokens" {
			t.Errorf("no row: %s that selects nobody", form)
		}
		if count[form+" person"] == 0 {
			t.Errorf("no row: %s that selects a person", form)
		}
	}
	for _, form := range []string{"search", "statistics", "saved", "export", "values", "rule", "published", "list", "indicator", "peers"} {
		if count[form+" reverse"] == 0 {
			t.Errorf("no row: %s that is a reverse search", form)
		}
	}
	t.Logf("%d rows: %v", len(rows), count)
}
