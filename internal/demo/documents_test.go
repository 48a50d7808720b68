package demo

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/counterseal/counterseal/internal/admit"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/parse"
	"github.com/counterseal/counterseal/internal/pia"
	"github.com/counterseal/counterseal/internal/policy"
)

func TestAssessmentsMatchTheSchema(t *testing.T) {
	f, err := os.Open("../pia/pia.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	doc, err := jsonschema.UnmarshalJSON(f)
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("pia-v1.json", doc); err != nil {
		t.Fatal(err)
	}
	sch, err := c.Compile("pia-v1.json")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range Play(Options{Seed: 7, At: at, Scale: 0.01, Hotline: true}).PIAs {
		b, err := yaml.YAMLToJSON(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := sch.Validate(v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func assess(t *testing.T, in *Incident) *pia.Set {
	t.Helper()
	var list []*pia.PIA
	for _, name := range sortedNames(in.PIAs) {
		p, problems := pia.Parse(name, in.PIAs[name])
		for _, pr := range problems {
			if pr.Code != "unsigned" && pr.Code != "ato_unknown" {
				t.Errorf("%v", pr)
			}
		}
		if p == nil {
			t.Fatalf("%s was not read", name)
		}
		list = append(list, p)
	}
	set, problems := pia.NewSet(list, at)
	for _, pr := range problems {
		if pr.Code != "unsigned" && pr.Code != "ato_unknown" {
			t.Errorf("%v", pr)
		}
	}
	return set
}

// seldom are fields that rules read and that no record of the demo happens to have.
var seldom = []string{event.UnparsedField, "RelativeTargetName", "PipeName", "ImageLoaded", "Signed", "Signature", "SignatureStatus", "Type", "Contents", "op", "audit_enabled", "res", "risk"}

// TestAssessmentsCoverTheRecords parses every frame. Each must have its parser, its
// dataset and an assessment that opens the gate, each field of a record must be
// decided by a line, and no line may stand for a field that no record has.
func TestAssessmentsCoverTheRecords(t *testing.T) {
	in := Play(Options{Seed: 7, At: at, Hotline: true})
	set := assess(t, in)
	type line struct{ source, dataset, path string }
	used, missing := map[line]bool{}, map[line]int{}
	datasets := map[string]int{}
	for _, s := range in.Streams {
		var header []byte
		for f := range s.Frames() {
			fr := &event.Frame{Bytes: f.Bytes}
			if s.Way == "file" {
				if f.Bytes[0] == '#' {
					header = append(append(header, f.Bytes...), '\n')
					continue
				}
				fr.Header, fr.Format = header, "zeek"
			}
			format, dataset, ok := parse.Identify(fr, s.Way)
			if !ok {
				t.Fatalf("%s: no format for %s", s.Source, f.Bytes)
			}
			r := &event.Record{Envelope: event.Envelope{Source: s.Source, Dataset: dataset}}
			if err := format.Parse(fr, parse.Context{Received: at}, r); err != nil {
				t.Fatalf("%s: %v: %s", s.Source, err, f.Bytes)
			}
			datasets[s.Source+"/"+r.Dataset]++
			if d := r.Time - f.At.UnixNano(); r.Time == 0 || d > 1e9 || d < -600e9 {
				t.Fatalf("%s: record time is %d ns off: %s", s.Source, d, f.Bytes)
			}
			rule, refusal := set.Find(s.Source, r.Dataset, "", at)
			if refusal != nil {
				t.Fatalf("%s/%s: %s", s.Source, r.Dataset, refusal.Reason)
			}
			for _, fd := range r.Fields {
				if fr := rule.Field(fd.Name); fr != nil {
					used[line{s.Source, r.Dataset, fr.Path}] = true
				} else {
					missing[line{s.Source, r.Dataset, fd.Name}]++
				}
			}
		}
	}
	for k, n := range missing {
		t.Errorf("no line decides %s/%s %s (%d times)", k.source, k.dataset, k.path, n)
	}
	for _, a := range assessments() {
		for _, s := range a.sources {
			if datasets[s.source+"/"+s.dataset] == 0 {
				t.Errorf("%s/%s is assessed and never sent", s.source, s.dataset)
			}
		}
	}
	t.Log(datasets)

	// A field of one Windows host counts for all: the assessments share the list.
	shared := map[line]bool{}
	for k := range used {
		if strings.HasPrefix(k.dataset, "win-") || k.source == "linux" {
			k.source, k.dataset = "", k.dataset[:3]
		}
		shared[k] = true
	}
	for _, a := range assessments() {
		for _, s := range a.sources {
			for _, r := range s.rules {
				for path := range strings.FieldsSeq(r.paths) {
					k := line{s.source, s.dataset, path}
					if strings.HasPrefix(s.dataset, "win-") || s.source == "linux" {
						k.source, k.dataset = "", s.dataset[:3]
					}
					if !shared[k] && !slices.Contains(seldom, path) {
						t.Errorf("%s: %s/%s lists %s, which no record has", a.file, s.source, s.dataset, path)
					}
				}
			}
		}
	}
}

// TestWithheld holds that the list takes exactly the lines of the contact.
func TestWithheld(t *testing.T) {
	in := Play(Options{Seed: 7, At: at, Hotline: true})
	list, err := admit.ParseProtected(in.Protected)
	if err != nil {
		t.Fatal(err)
	}
	without := Play(Options{Seed: 7, At: at})
	for i, s := range in.Streams {
		withheld := 0
		for f := range s.Frames() {
			fr := &event.Frame{Bytes: f.Bytes}
			if s.Way == "file" {
				if list.Mentions(f.Bytes) {
					withheld++
				}
				continue
			}
			format, dataset, ok := parse.Identify(fr, s.Way)
			if !ok {
				t.Fatalf("%s: no format", s.Source)
			}
			r := &event.Record{Envelope: event.Envelope{Source: s.Source, Dataset: dataset}}
			if err := format.Parse(fr, parse.Context{Received: at}, r); err != nil {
				t.Fatal(err)
			}
			if list.Withhold(r) {
				withheld++
			}
		}
		if want := s.Len() - without.Streams[i].Len(); withheld != want {
			t.Errorf("%s: %d withheld, the contact has %d", s.Source, withheld, want)
		}
	}
}

// TestOffices: the record is one that a server takes, and the one thing that weakens it is
// that a user of the machine is on duty; who stands for the rules is somebody else.
func TestOffices(t *testing.T) {
	set, err := policy.Load(policy.Default())
	if err != nil {
		t.Fatal(err)
	}
	in := Play(Options{Seed: 7, At: at, Scale: 0.01, Hotline: true})
	o, err := policy.ParseOffices(in.Offices("os-1000"), set.Roles())
	if err != nil {
		t.Fatal(err)
	}
	for _, now := range []time.Time{at, at.AddDate(2, 0, 0)} {
		if w := o.Warnings(now); len(w) != 1 || w[0].Office != "soc" {
			t.Errorf("at %v: %v", now, w)
		}
	}
	duty, ok := o.Person("soc")
	if !ok || duty.ID != "os-1000" || !slices.Equal(duty.Roles, []string{"analyst", "responder"}) {
		t.Errorf("on duty: %+v", duty)
	}
	asks, ok := o.Person(RulesAskedBy)
	approves, also := o.Person(RulesApprovedBy)
	if !ok || !also || asks.ID == approves.ID || asks.ID == duty.ID || approves.ID == duty.ID {
		t.Errorf("%q asks for the rules and %q approves", asks.ID, approves.ID)
	}
}
