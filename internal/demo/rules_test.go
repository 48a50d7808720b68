package demo

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/admit"
	"github.com/counterseal/counterseal/internal/detect"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/parse"
	"github.com/counterseal/counterseal/internal/pia"
	"github.com/counterseal/counterseal/internal/pseudonym"
	"github.com/counterseal/counterseal/rules"
)

// hit is one finding: the rule and where and when its record was sent.
type hit struct {
	title, source string
	at            time.Time
	line          string
}

// door lets frames in as the product does: parse, withhold, minimise, tokenise.
type door struct {
	set       *pia.Set
	protected *admit.Protected
	names     *pseudonym.Pseudonymiser
	mac       func([]byte) []byte
}

func newDoor(t *testing.T, in *Incident) *door {
	t.Helper()
	d := &door{set: assess(t, in)}
	var err error
	if d.protected, err = admit.ParseProtected(in.Protected); err != nil {
		t.Fatal(err)
	}
	dir, err := pseudonym.ParseDirectory(in.Directory)
	if err != nil {
		t.Fatal(err)
	}
	if dir.Len() != len(staff()) {
		t.Errorf("the directory has %d people", dir.Len())
	}
	local, err := pseudonym.NewLocal(bytes.Repeat([]byte{7}, pseudonym.KeySize), uuid.MustParse("0192f0c4-0000-7000-8000-00000000d3e0"), 1)
	if err != nil {
		t.Fatal(err)
	}
	d.mac = func(b []byte) []byte {
		m := hmac.New(sha256.New, []byte("a key of the test"))
		m.Write(b)
		return m.Sum(nil)
	}
	d.names = pseudonym.New(local, dir, d.mac)
	return d
}

// pass calls do with each event that comes through and its rule.
func (d *door) pass(t *testing.T, streams []*Stream, do func(s *Stream, f Frame, e *event.Event, rule *pia.Rule)) {
	t.Helper()
	var counts admit.Counts
	for _, s := range streams {
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
				t.Fatalf("%s: no format", s.Source)
			}
			r := &event.Record{Envelope: event.Envelope{Source: s.Source, Dataset: dataset, Received: at.UnixNano()}}
			if err := format.Parse(fr, parse.Context{Received: at}, r); err != nil {
				t.Fatal(err)
			}
			rule, refusal := d.set.Find(s.Source, r.Dataset, "", at)
			if refusal != nil {
				t.Fatal(refusal)
			}
			if d.protected.Withhold(r) {
				continue
			}
			e, err := d.names.Event(admit.Minimise(r, rule, d.mac, &counts))
			if err != nil {
				t.Fatal(err)
			}
			do(s, f, e, rule)
		}
	}
}

// asked runs rules over what comes through the door.
func (d *door) asked(t *testing.T, streams []*Stream, set *detect.RuleSet) []hit {
	t.Helper()
	var hits []hit
	d.pass(t, streams, func(s *Stream, f Frame, e *event.Event, rule *pia.Rule) {
		sight := detect.Sight{
			Blind:  func(name string) bool { a, _, _ := rule.Action(name); return a == pia.Drop },
			Hidden: func(name string) bool { a, _, _ := rule.Action(name); return a == pia.DetectOnly || a == pia.HashKeyed },
		}
		set.AtDoor(e, sight)
		for _, fi := range set.Judge(e, event.Ref{}, sight, nil) {
			hits = append(hits, hit{fi.Rule.Title, s.Source, f.At, string(f.Bytes)})
		}
	})
	return hits
}

// TestNoNames looks for every person in what would be stored.
func TestNoNames(t *testing.T) {
	in := Play(Options{Seed: 7, At: at, Scale: 0.3, Hotline: true})
	names := map[string]bool{}
	for _, w := range staff() {
		for _, v := range []string{w.account, w.mail, w.last, w.sid, w.phone[1:], w.laptop, w.home, w.laptopID, w.phoneID, w.phoneSerial} {
			names[strings.ToLower(v)] = true
		}
	}
	stop := func(r rune) bool { // a name ends at what none of them holds
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '@')
	}
	told := map[string]bool{}
	newDoor(t, in).pass(t, in.Streams, func(s *Stream, f Frame, e *event.Event, _ *pia.Rule) {
		for _, fd := range e.Fields {
			for word := range strings.FieldsFuncSeq(strings.ToLower(string(fd.Value)), stop) {
				if names[strings.Trim(word, ".-")] && !told[e.Dataset+fd.Name] {
					told[e.Dataset+fd.Name] = true
					t.Errorf("%s/%s keeps %s in %s: %s", s.Source, e.Dataset, word, fd.Name, fd.Value)
				}
			}
		}
	})
}

// TestRules asks our own rules: each step of the intruder is found by a rule that
// the truth expects, and the ordinary life of the agency stays quiet.
func TestRules(t *testing.T) {
	files, err := detect.ReadFiles(rules.Files(), "rules")
	if err != nil {
		t.Fatal(err)
	}
	set, err := detect.Compile(files)
	if err != nil {
		t.Fatal(err)
	}
	in := Play(Options{Seed: 7, At: at, Hotline: true})
	d := newDoor(t, in)
	quiet := newPlay(Options{Seed: 7, At: at, Scale: 1, Hotline: true})
	quiet.benign()
	for _, s := range quiet.streams {
		quiet.settle(s)
	}

	benign := d.asked(t, quiet.streams, set)
	counts := map[string]int{}
	for _, h := range benign {
		if counts[h.title] == 0 && testing.Verbose() {
			t.Logf("in ordinary life: %s: %.700s", h.title, h.line)
		}
		counts[h.title]++
	}
	if len(benign) >= 30 {
		t.Errorf("%d findings in ordinary life", len(benign))
	}
	all := d.asked(t, in.Streams, set)
	found := map[string]int{}
	for _, h := range all {
		found[h.title]++
	}
	var table []string
	for title, n := range found {
		table = append(table, fmt.Sprintf("%4d of them ordinary %3d  %s", n, counts[title], title))
	}
	slices.Sort(table)
	t.Logf("%d findings, %d in ordinary life\n%s", len(all), len(benign), strings.Join(table, "\n"))

	for _, s := range in.Truth.Steps {
		want := regexp.MustCompile(s.Rule)
		var near []string
		ok := false
		for _, h := range all {
			if h.source != s.Source || h.at.Before(s.Time.Add(-10*time.Second)) || h.at.After(s.Time.Add(12*time.Minute)) {
				continue
			}
			near = append(near, h.title)
			ok = ok || want.MatchString(h.title)
		}
		slices.Sort(near)
		near = slices.Compact(near)
		if !ok {
			t.Errorf("step %d (%s) is found by no rule like %s; near it: %s", s.N, s.Title, s.Rule, strings.Join(near, "; "))
		} else {
			t.Logf("step %2d %s: %s", s.N, s.Title, strings.Join(near, "; "))
		}
	}
}
