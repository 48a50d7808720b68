package pseudonym

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/admit"
	"github.com/counterseal/counterseal/internal/collect"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/packs"
	"github.com/counterseal/counterseal/internal/parse"
	"github.com/counterseal/counterseal/internal/pia"
	"github.com/counterseal/counterseal/sigma"
)

// verdictExceptions are the rules whose verdict on some event of the packs moves when
// people become tokens, each with its reason. The list may only shrink.
var verdictExceptions = map[string]string{
	// Metasploit SMB authentication asks whether a workstation name is 16 letters and
	// digits. A personal device may be called AliceSmithLaptop, so the name is a token
	// like any other. An assessment that allows WorkstationName gets the rule back.
	"72124974-a68b-4366-b990-d30e0b2a190d": "16 characters do not tell a tool from a person's device",
}

// TestSameVerdicts runs the public rules over the records of the packs, before and
// after people become tokens: the same rules say the same of the same events. Fields
// are those that package parse proposes to tokenise; nothing is dropped here, since
// what an assessment drops is reported as blind and not as wrong.
func TestSameVerdicts(t *testing.T) {
	if testing.Short() {
		t.Skip("reads whole packs")
	}
	set := publicRules(t)
	p := New(testLocal(t), nil, testHash)
	moved := map[string]int{}
	type pack struct {
		pack  string
		match string // end of the names to read
		least int
	}
	all := []pack{
		{"evtx-core", ".evtx", 10_000},
		{"sigma-regression-open", ".evtx", 150},
		{"cloud-attacks", ".json", 2_000},
		{"crowdsec-tests", ".log", 1_000},
	}
	if packs.Required("packs") { // half a minute: in CI alone
		all = append(all, pack{"otrf-lateral", ".zip", 50_000})
	}
	proposal := proposals()
	for _, c := range all {
		events := 0
		eachRecord(t, packs.Dir(t, c.pack), c.match, func(path string, rec *event.Record) {
			events++
			before := verdicts(set, rec.Dataset, rec.Fields)
			m := admit.Minimised{Envelope: rec.Envelope}
			proposed := proposal(rec.Dataset)
			for _, f := range rec.Fields {
				f.Value = bytes.Clone(f.Value)
				m.Fields = append(m.Fields, f)
				mark := &pia.FieldRule{Action: pia.Allow}
				if proposed != nil {
					if l := proposed.Field(f.Name); l != nil && l.Action == pia.Tokenise {
						mark = l
					}
				}
				m.Marks = append(m.Marks, mark)
			}
			e, err := p.Event(m)
			if err != nil {
				t.Fatal(err)
			}
			after := verdicts(set, rec.Dataset, e.Fields)
			tell := func(id string, was, is sigma.Verdict) {
				if moved[id]++; moved[id] == 1 && verdictExceptions[id] == "" {
					t.Errorf("%s: rule %s said %v, now %v\n%s", filepath.Base(path), id, was, is, changed(rec.Fields, e.Fields))
				}
			}
			for id, v := range before {
				if after[id] != v {
					tell(id, v, after[id])
				}
			}
			for id, v := range after {
				if _, known := before[id]; !known && v != sigma.No {
					tell(id, sigma.No, v)
				}
			}
		})
		t.Logf("%s: %d events", c.pack, events)
		if events < c.least {
			t.Errorf("%s: %d events only", c.pack, events)
		}
	}
	for id := range verdictExceptions {
		if moved[id] == 0 {
			t.Errorf("rule %s is no exception any more: take it off the list", id)
		}
	}
}

// TestTokensLookLikeNothing: an event in which every field that any rule reads is a
// token says yes to no rule, whatever producer it claims, beyond the few that also
// say yes to a text of one strange character: those ask that something is not there
// (a path without a backslash) or that two fields are equal.
func TestTokensLookLikeNothing(t *testing.T) {
	set := publicRules(t)
	names := map[string]bool{}
	sources := map[sigma.LogSource]bool{}
	for _, r := range set.Rules() {
		for _, f := range set.FieldsOf(r) {
			names[f] = true
		}
		sources[r.LogSource] = true
	}
	if len(names) < 300 || len(sources) < 50 {
		t.Fatalf("%d fields of %d producers", len(names), len(sources))
	}
	yes := func(value string) map[string]bool {
		out := map[string]bool{}
		ev := sigma.Event{}
		for n := range names {
			ev.Fields = append(ev.Fields, sigma.Field{Name: n, Value: []byte(value)})
		}
		for s := range sources {
			ev.Source = s
			set.Match(&ev, func(m sigma.Match) {
				if m.Verdict == sigma.Yes {
					out[m.Rule.Title+" "+m.Rule.ID] = true
				}
			})
		}
		return out
	}
	strange := yes("\u2603")
	if len(strange) > 10 {
		t.Errorf("%d rules say yes to a snowman", len(strange))
	}
	for _, kind := range []event.TokenKind{event.Person, event.Mail, event.Device, event.Address} {
		tok, err := testLocal(t).Token(kind, []byte("somebody"))
		if err != nil {
			t.Fatal(err)
		}
		for rule := range yes(string(tok)) {
			if !strange[rule] {
				t.Errorf("%c: %s", kind, rule)
			}
		}
	}
}

// changed lists the fields that tokenising altered.
func changed(before, after []event.Field) string {
	var b strings.Builder
	for i := range before {
		if !bytes.Equal(before[i].Value, after[i].Value) {
			b.WriteString("  " + before[i].Name + ": " + string(before[i].Value) + " => " + string(after[i].Value) + "\n")
		}
	}
	return b.String()
}

func publicRules(t *testing.T) *sigma.Set {
	t.Helper()
	root := filepath.Join(packs.Dir(t, "sigma-rules"), "sigma")
	var rules []*sigma.Rule
	for _, folder := range []string{"rules", "rules-threat-hunting", "rules-emerging-threats"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".yml") {
				return err
			}
			data, err := os.ReadFile(path)
			got, _ := sigma.Parse(path, data)
			rules = append(rules, got...)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	set, _ := sigma.Compile(rules, sigma.Options{Opaque: event.NextToken})
	if len(set.Rules()) < 3000 {
		t.Fatalf("%d rules", len(set.Rules()))
	}
	return set
}

func verdicts(set *sigma.Set, dataset string, fields []event.Field) map[string]sigma.Verdict {
	var ev sigma.Event
	ev.Source.Product, ev.Source.Category, ev.Source.Service = parse.LogSource(dataset)
	for _, f := range fields {
		ev.Fields = append(ev.Fields, sigma.Field{Name: f.Name, Value: f.Value, Addr: sigma.AddrClass(f.Addr)})
	}
	out := map[string]sigma.Verdict{}
	set.Match(&ev, func(m sigma.Match) { out[m.Rule.ID] = m.Verdict })
	return out
}

// proposals gives the draft for a dataset, filled in; nil where nothing is proposed.
func proposals() func(dataset string) *pia.Rule {
	known := map[string]*pia.Rule{}
	return func(dataset string) *pia.Rule {
		if r, ok := known[dataset]; ok {
			return r
		}
		known[dataset] = nil
		for _, format := range parse.Formats() {
			for _, ds := range format.Datasets {
				if ds.Name == dataset && len(ds.Fields) > 0 && known[dataset] == nil {
					set, _ := pia.NewSet([]*pia.PIA{filledDraft(ds)}, testNow)
					known[dataset], _ = set.Find("test", ds.Name, "", testNow)
				}
			}
		}
		return known[dataset]
	}
}

func filledDraft(ds parse.Dataset) *pia.PIA {
	s := pia.DraftSource{Source: "test", Dataset: ds.Name, Title: ds.Title}
	for _, f := range ds.Fields {
		s.Fields = append(s.Fields, pia.DraftField{Path: f.Path, Category: f.Category, Action: f.Action, Reason: f.Reason})
	}
	d := testDraft(s)
	p, _ := pia.Parse(ds.Name, d.YAML())
	return p
}

// TestEveryDraft: what we propose for each dataset that we read is a good assessment
// once a person has filled in the rest.
func TestEveryDraft(t *testing.T) {
	n := 0
	for _, format := range parse.Formats() {
		for _, ds := range format.Datasets {
			if len(ds.Fields) == 0 {
				continue
			}
			n++
			p := filledDraft(ds)
			if p == nil || !p.Valid() {
				t.Errorf("%s: %v", ds.Name, p.Problems())
			}
			for _, f := range ds.Fields {
				if (f.Category == "content" || f.Category == "location") && f.Action != "drop" {
					t.Errorf("%s: %s of category %s is proposed as %s", ds.Name, f.Path, f.Category, f.Action)
				}
			}
		}
	}
	if n < 10 {
		t.Errorf("%d datasets", n)
	}
}

// eachRecord reads every file of a pack as import does.
func eachRecord(t *testing.T, root, match string, fn func(path string, rec *event.Record)) {
	t.Helper()
	var files []string
	if err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(strings.ToLower(path), match) {
			files = append(files, path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	for _, path := range files {
		f, err := collect.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, member := range f.Members {
			if member.Err != nil {
				continue // damaged on purpose
			}
			_, err := member.Frames(t.Context(), func(fr *event.Frame) error {
				format, dataset, ok := parse.Identify(fr, collect.WayImport)
				if !ok {
					return nil
				}
				rec := &event.Record{Envelope: event.Envelope{Source: "test", Dataset: dataset}}
				if format.Parse(fr, parse.Context{Received: testNow, Zone: time.UTC}, rec) == nil {
					fn(path, rec)
				}
				return nil
			}, func(event.LineError) {})
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
