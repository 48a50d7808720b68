package detect

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/sigma"
)

// TestBound: a bounded rule is asked inside of its bound alone, live and from the stored
// document, at the door and behind it; the others are asked throughout.
func TestBound(t *testing.T) {
	files := []File{{Path: "a.yml", Data: []byte(encoded)}, {Path: "b.yml", Data: []byte(parent)}}
	rules, _ := sigma.Parse("a.yml", []byte(encoded))
	digest := hex.EncodeToString(rules[0].Digest[:])
	at := time.Unix(0, 1_700_000_000_000_000_000)
	inside := Bound{Rule: digest, Until: at.Add(time.Hour), From: at.Add(-time.Hour), To: at.Add(time.Minute), Sources: []string{"win"}}
	for name, c := range map[string]struct {
		bound Bound
		event func(*event.Event)
		want  int
	}{
		"inside":               {inside, func(*event.Event) {}, 2},
		"received at the end":  {inside, func(e *event.Event) { e.Received = inside.Until.UnixNano() }, 1},
		"received just before": {inside, func(e *event.Event) { e.Received = inside.Until.UnixNano() - 1 }, 2},
		"of before":            {inside, func(e *event.Event) { e.Time = inside.From.UnixNano() - 1 }, 1},
		"of after":             {inside, func(e *event.Event) { e.Time = inside.To.UnixNano() + 1 }, 1},
		"of another source":    {inside, func(e *event.Event) { e.Source = "mac" }, 1},
		"without more":         {Bound{Rule: digest, Until: at.Add(time.Hour)}, func(e *event.Event) { e.Source = "mac" }, 2},
	} {
		live, err := Compile(files, c.bound)
		if err != nil {
			t.Fatal(err)
		}
		again, err := FromBlob(live.Blob())
		if err != nil || again.Digest() != live.Digest() {
			t.Fatalf("%s: %v", name, err)
		}
		e := process(`powershell -enc QQ==`)
		e.Fields = append(e.Fields, event.Field{Name: "ParentImage", Value: []byte(`C:\winword.exe`)})
		c.event(e)
		for _, set := range []*RuleSet{live, again} {
			if got := set.Judge(e, event.Ref{}, Sight{}, nil); len(got) != c.want {
				t.Errorf("%s: %d findings, want %d", name, len(got), c.want)
			}
		}
		hidden := process("len=20 h1_x")
		hidden.Fields = append(hidden.Fields, event.Field{Name: "ParentImage", Value: []byte(`C:\winword.exe`)})
		hidden.DetectOnly = []event.Field{{Name: "CommandLine", Value: []byte(`powershell -enc QQ==`)}}
		c.event(hidden)
		live.AtDoor(hidden, Sight{})
		if len(hidden.Verdicts) != c.want {
			t.Errorf("%s: %d answers are sealed, want %d", name, len(hidden.Verdicts), c.want)
		}
	}
}

// TestBoundDocument: a set without bounds has the document that it always had, and one
// whose bounds cannot be read is refused.
func TestBoundDocument(t *testing.T) {
	files := []File{{Path: "a.yml", Data: []byte(encoded)}}
	plain, err := Compile(files)
	if err != nil || !bytes.HasPrefix(plain.Blob(), []byte(`[{"path":"a.yml"`)) {
		t.Fatalf("%s, %v", plain.Blob(), err)
	}
	good := fmt.Sprintf("%064x", 1)
	for name, bounds := range map[string][]Bound{
		"no digest": {{Rule: "a", Until: time.Unix(1, 0)}},
		"no end":    {{Rule: good}},
		"twice":     {{Rule: good, Until: time.Unix(1, 0)}, {Rule: good, Until: time.Unix(2, 0)}},
	} {
		if _, err := Compile(files, bounds...); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for _, blob := range []string{`{"files":[],"bounds":[{"rule":"x"}]}`, `{"files":7}`, `{`, ``} {
		if _, err := FromBlob([]byte(blob)); err == nil {
			t.Errorf("%q is taken", blob)
		}
	}
	one, _ := Compile(files, Bound{Rule: good, Until: time.Unix(1, 0)}, Bound{Rule: fmt.Sprintf("%064x", 2), Until: time.Unix(1, 0)})
	two, _ := Compile(files, Bound{Rule: fmt.Sprintf("%064x", 2), Until: time.Unix(1, 0)}, Bound{Rule: good, Until: time.Unix(1, 0)})
	if one.Digest() != two.Digest() || one.Digest() == plain.Digest() {
		t.Error("the digest depends on the order of the bounds, or not on them")
	}
}
