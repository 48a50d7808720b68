package pseudonym

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/counterseal/counterseal/evtx"
	"github.com/counterseal/counterseal/internal/admit"
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

// TestSameVerdicts runs the public rules over the event logs of the packs, before and
// after people become tokens: the same rules say yes to the same events. Fields are
// those that package parse proposes to tokenise; nothing is dropped here, since what
// an assessment drops is reported as blind and not as wrong.
func TestSameVerdicts(t *testing.T) {
	if testing.Short() {
		t.Skip("reads all packs of event logs")
	}
	set := publicRules(t)
	marks := proposedMarks()
	events, moved := 0, map[string]int{}
	p := New(testLocal(t), nil, testHash)
	for _, pack := range []string{"evtx-core", "sigma-regression-open"} {
		eachLog(t, packs.Dir(t, pack), func(path string, fields []event.Field) {
			events++
			before := verdicts(set, fields)
			m := admit.Minimised{Envelope: event.Envelope{Source: "windows", Dataset: "windows"}}
			for _, f := range fields {
				f.Value = bytes.Clone(f.Value)
				m.Fields = append(m.Fields, f)
				mark := marks[f.Name]
				if mark == nil {
					mark = &pia.FieldRule{Action: pia.Allow}
				}
				m.Marks = append(m.Marks, mark)
			}
			e, err := p.Event(m)
			if err != nil {
				t.Fatal(err)
			}
			after := verdicts(set, e.Fields)
			for id, v := range before {
				if after[id] != v {
					moved[id]++
					if moved[id] == 1 && verdictExceptions[id] == "" {
						t.Errorf("%s: rule %s said %v, now %v\n%s", filepath.Base(path), id, v, after[id], changed(fields, e.Fields))
					}
				}
			}
			for id, v := range after {
				if before[id] == sigma.No && v != sigma.No {
					moved[id]++
					if moved[id] == 1 && verdictExceptions[id] == "" {
						t.Errorf("%s: rule %s said no, now %v\n%s", filepath.Base(path), id, v, changed(fields, e.Fields))
					}
				}
			}
		})
	}
	if events < 10_000 {
		t.Errorf("%d events only", events)
	}
	for id := range verdictExceptions {
		if moved[id] == 0 {
			t.Errorf("rule %s is no exception any more: take it off the list", id)
		}
	}
	t.Logf("%d events, %d rules moved", events, len(moved))
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

func verdicts(set *sigma.Set, fields []event.Field) map[string]sigma.Verdict {
	ev := sigma.Event{Source: sigma.LogSource{Product: "windows"}}
	for _, f := range fields {
		ev.Fields = append(ev.Fields, sigma.Field{Name: f.Name, Value: f.Value, Addr: sigma.AddrClass(f.Addr)})
	}
	out := map[string]sigma.Verdict{}
	set.Match(&ev, func(m sigma.Match) { out[m.Rule.ID] = m.Verdict })
	return out
}

// proposedMarks is what the drafts of the Windows datasets tokenise.
func proposedMarks() map[string]*pia.FieldRule {
	marks := map[string]*pia.FieldRule{}
	for _, format := range parse.Formats() {
		for _, ds := range format.Datasets {
			if ds.Product != "windows" {
				continue
			}
			for _, f := range ds.Fields {
				if f.Action == "tokenise" && marks[f.Path] == nil {
					marks[f.Path] = &pia.FieldRule{Path: f.Path, Action: pia.Tokenise, Category: f.Category}
				}
			}
		}
	}
	return marks
}

func eachLog(t *testing.T, root string, fn func(path string, fields []event.Field)) {
	t.Helper()
	var logs []string
	if err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(strings.ToLower(path), ".evtx") {
			logs = append(logs, path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(logs)
	for _, path := range logs {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		r, err := evtx.NewReader(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			continue // damaged on purpose
		}
		_ = r.Records(func(rec *evtx.Record) error {
			var fields []event.Field
			for _, f := range rec.Fields() {
				fields = append(fields, event.Field{Name: f.Name, Value: f.Value})
			}
			fn(path, fields)
			return nil
		})
	}
}
