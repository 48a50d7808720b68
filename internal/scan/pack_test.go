package scan

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/counterseal/counterseal/internal/detect"
	"github.com/counterseal/counterseal/internal/packs"
)

// packRules are the 3,754 public rules.
func packRules(t testing.TB) []detect.File {
	t.Helper()
	root := filepath.Join(packs.Dir(t, "sigma-rules"), "sigma")
	var files []detect.File
	for _, folder := range []string{"rules", "rules-threat-hunting", "rules-emerging-threats"} {
		some, err := detect.ReadFiles(os.DirFS(filepath.Join(root, folder)), folder)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, some...)
	}
	return files
}

// scanJSON scans and returns the findings.
func scanJSON(t testing.TB, rules []detect.File, paths ...string) ([]Finding, Summary) {
	t.Helper()
	var out bytes.Buffer
	s, err := Run(context.Background(), Options{Paths: paths, Rules: rules, Out: &out, Format: JSONL})
	if err != nil {
		t.Fatal(err)
	}
	var findings []Finding
	for dec := json.NewDecoder(&out); dec.More(); {
		var f Finding
		if err := dec.Decode(&f); err != nil {
			t.Fatal(err)
		}
		findings = append(findings, f)
	}
	if len(findings) != s.Total() {
		t.Errorf("%d findings printed, %d in the summary", len(findings), s.Total())
	}
	return findings, s
}

func readTSV(t testing.TB, path string) []map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.Comma = '\t'
	r.LazyQuotes = true
	rows, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var out []map[string]string
	for _, row := range rows[1:] {
		m := map[string]string{}
		for i, name := range rows[0] {
			m[name] = row[i]
		}
		out = append(out, m)
	}
	return out
}

// TestRegressionCases runs each open case of the rule collection: one rule, one
// file, the matches that it must give.
func TestRegressionCases(t *testing.T) {
	root := packs.Dir(t, "sigma-regression-open")
	cases := readTSV(t, packs.File(t, "regression-open.tsv"))
	var paths []string
	for _, c := range cases {
		paths = append(paths, filepath.Join(root, filepath.FromSlash(c["evtx_path"])))
	}
	findings, s := scanJSON(t, packRules(t), paths...)
	compare(t, "regression-open", root, findings)
	got := map[string]int{}
	for _, f := range findings {
		rel, err := filepath.Rel(root, f.Source.Path)
		if err != nil {
			t.Fatal(err)
		}
		got[f.Rule.ID+" "+filepath.ToSlash(rel)]++
	}
	for _, c := range cases {
		want := 1
		if c["count_given"] == "yes" {
			var err error
			if want, err = strconv.Atoi(c["match_count"]); err != nil {
				t.Fatal(err)
			}
		}
		switch n := got[c["rule_id"]+" "+c["evtx_path"]]; {
		case n < want:
			t.Errorf("%s: %d matches, want %d", c["rule_path"], n, want)
		case n > want:
			t.Logf("%s: %d matches, %d written", c["rule_path"], n, want)
		}
	}
	if len(cases) != 146 {
		t.Errorf("%d cases, want 146", len(cases))
	}
	if s.Events != 177 || s.DamagedChunks+s.DamagedRecords != 0 {
		t.Errorf("%d events, %d chunks and %d records damaged; want 177 and none", s.Events, s.DamagedChunks, s.DamagedRecords)
	}
}

// TestAttackSamples scans the 391 files of the core pack: none fails the run.
func TestAttackSamples(t *testing.T) {
	root := packs.Dir(t, "evtx-core")
	findings, s := scanJSON(t, packRules(t), root)
	if s.Files < 391 || s.Events != 16982 || s.DamagedChunks+s.DamagedRecords+s.Refused != 0 {
		t.Errorf("%d files, %d events, %d chunks and %d records damaged", s.Files, s.Events, s.DamagedChunks, s.DamagedRecords)
	}
	if len(s.Problems) > 0 {
		t.Errorf("%d files not read: %v", s.Unreadable, s.Problems)
	}
	compare(t, "evtx-core", root, findings)
}

// compare holds findings against an independent engine: each pair of file and
// rule that it knows is found, with at least as many matches. The reference did
// not ask the antivirus rules, which name no product; nothing else may be more.
func compare(t *testing.T, pack, root string, findings []Finding) {
	t.Helper()
	got, antivirus := map[string]int{}, map[string]bool{}
	for _, f := range findings {
		rel, err := filepath.Rel(root, f.Source.Path)
		if err != nil {
			t.Fatal(err)
		}
		key := pack + "/" + filepath.ToSlash(rel) + " " + f.Rule.ID
		got[key]++
		antivirus[key] = strings.HasPrefix(f.Rule.Title, "Antivirus ")
	}
	pairs, matches := 0, 0
	for _, row := range readTSV(t, packs.File(t, "matches-gated.tsv")) {
		want, err := strconv.Atoi(row["ref"])
		if !strings.HasPrefix(row["file"], pack+"/") || err != nil || want == 0 {
			continue
		}
		pairs++
		key := row["file"] + " " + row["rule_id"]
		matches += got[key]
		if got[key] != want {
			t.Errorf("%s: %d matches, the reference has %d", key, got[key], want)
		}
		delete(got, key)
	}
	for key, n := range got {
		if !antivirus[key] {
			t.Errorf("%s: %d matches, the reference has none", key, n)
		}
	}
	if pairs == 0 {
		t.Errorf("the reference has nothing for %s", pack)
	}
	t.Logf("%s: %d pairs, %d matches; %d pairs of antivirus rules more", pack, pairs, matches, len(got))
}

// TestForeignEvents asks the Windows rules about Linux and cloud events: none
// matches.
func TestForeignEvents(t *testing.T) {
	var windows []detect.File
	for _, f := range packRules(t) {
		if strings.Contains(f.Path, "/windows/") {
			windows = append(windows, f)
		}
	}
	if len(windows) < 2300 {
		t.Fatalf("only %d Windows rules", len(windows))
	}
	findings, s := scanJSON(t, windows, packs.Dir(t, "cloud-attacks"), filepath.Join(packs.Dir(t, "parser-goldens")))
	if s.Events < 1000 {
		t.Errorf("only %d events read", s.Events)
	}
	for _, f := range findings {
		t.Errorf("%s matches record %d of %s", f.Rule.Title, f.Source.Record, f.Source.Path)
	}
	t.Logf("%d events of %d files, %d lines not understood, %d refused, %d files not read", s.Events, s.Files, s.Unparsed, s.Refused, s.Unreadable)
	if testing.Verbose() {
		for _, p := range s.Problems {
			t.Log(fmt.Sprint(p))
		}
	}
}

// BenchmarkScan is the whole way over the core pack with all public rules, printing
// included; rules are compiled once a run.
func BenchmarkScan(b *testing.B) {
	root := packs.Dir(b, "evtx-core")
	rules := packRules(b)
	events := 0
	for b.Loop() {
		s, err := Run(context.Background(), Options{Paths: []string{root}, Rules: rules, Out: &bytes.Buffer{}, Format: JSONL})
		if err != nil {
			b.Fatal(err)
		}
		events += s.Events
	}
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
}
