package detect

import (
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"github.com/counterseal/counterseal/internal/event"
)

const encoded = `title: Encoded PowerShell
id: 0a1b2c3d-0000-4000-8000-000000000001
status: test
level: high
author: Counterseal
license: Apache-2.0
tags: [attack.t1059.001]
logsource: {product: windows, category: process_creation}
detection:
  sel:
    CommandLine|contains: ' -enc '
  condition: sel
`

const parent = `title: Shell from Office
id: 0a1b2c3d-0000-4000-8000-000000000002
level: medium
logsource: {product: windows, category: process_creation}
detection:
  sel:
    ParentImage|endswith: '\winword.exe'
  condition: sel
`

func ruleSet(t *testing.T, texts ...string) *RuleSet {
	t.Helper()
	m := fstest.MapFS{}
	for i, text := range texts {
		m[string(rune('a'+i))+".yml"] = &fstest.MapFile{Data: []byte(text)}
	}
	files, err := ReadFiles(m, "test")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Compile(files)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Refused()) > 0 {
		t.Fatal(r.Refused()[0])
	}
	return r
}

func process(command string) *event.Event {
	return &event.Event{
		Envelope: event.Envelope{Source: "win", Dataset: "win-sysmon", Format: "winlogbeat/1", Time: 1_700_000_000_000_000_000, Received: 1_700_000_001_000_000_000},
		Fields: []event.Field{
			{Name: "Channel", Value: []byte("Microsoft-Windows-Sysmon/Operational")},
			{Name: "EventID", Kind: event.Number, Value: []byte("1")},
			{Name: "Image", Value: []byte(`C:\Windows\System32\powershell.exe`)},
			{Name: "CommandLine", Value: []byte(command)},
		},
	}
}

func TestJudge(t *testing.T) {
	r := ruleSet(t, encoded, parent)
	ref := event.Ref{Compartment: "c", Ordinal: 4}
	got := r.Judge(process("powershell -enc QQ=="), ref, Sight{}, nil)
	if len(got) != 1 || got[0].Rule.Level != "high" || got[0].Refs[0] != ref || got[0].Rule.Author != "Counterseal" || len(got[0].Parts) == 0 {
		t.Fatalf("findings: %+v", got)
	}
	if again := r.Judge(process("powershell -enc QQ=="), event.Ref{Compartment: "d"}, Sight{}, nil); again[0].ID != got[0].ID {
		t.Fatal("another Ref gave another finding id")
	}
	if other := r.Judge(process("powershell -enc QR=="), ref, Sight{}, nil); other[0].ID == got[0].ID {
		t.Fatal("another content gave the same finding id")
	}
	if none := r.Judge(process("powershell"), ref, Sight{}, nil); len(none) != 0 {
		t.Fatalf("findings: %+v", none)
	}
}

func TestCannotTellIsCountedAndNoFinding(t *testing.T) {
	r := ruleSet(t, encoded, parent)
	sight := Sight{Blind: func(f string) bool { return f == "ParentImage" }}
	if got := r.Judge(process("powershell"), event.Ref{}, sight, nil); len(got) != 0 {
		t.Fatalf("findings: %+v", got)
	}
	if n := r.CannotTell()["0a1b2c3d-0000-4000-8000-000000000002"]; n != 1 {
		t.Fatalf("cannot tell: %v", r.CannotTell())
	}
	if n := r.CannotTell()["0a1b2c3d-0000-4000-8000-000000000001"]; n != 0 {
		t.Fatalf("cannot tell: %v", r.CannotTell())
	}
}

func TestDetectOnlyIsJudgedAtTheDoorAndReplayed(t *testing.T) {
	r := ruleSet(t, encoded, parent)
	sight := Sight{Hidden: func(f string) bool { return f == "CommandLine" }}
	e := process("len=20 h1_x")
	e.DetectOnly = []event.Field{{Name: "CommandLine", Value: []byte("powershell -enc QQ==")}}
	r.AtDoor(e, sight)

	en, err := event.Decode(event.AppendEncode(nil, e))
	if err != nil {
		t.Fatal(err)
	}
	got := r.Judge(en.Event, event.Ref{}, sight, nil)
	if len(got) != 1 || !slices.Contains(got[0].Parts, event.Part{Field: "CommandLine", Value: "len=20 h1_x"}) {
		t.Fatalf("findings: %+v", got)
	}
	again, err := FromBlob(r.Blob())
	if err != nil || again.Digest() != r.Digest() {
		t.Fatalf("blob: %v", err)
	}
	if replay := again.Judge(en.Event, event.Ref{}, sight, nil); len(replay) != 1 || replay[0].ID != got[0].ID {
		t.Fatalf("replay: %+v", replay)
	}
	other := ruleSet(t, encoded) // another rule set must not guess
	if out := other.Judge(en.Event, event.Ref{}, sight, nil); len(out) != 0 || other.CannotTell()["0a1b2c3d-0000-4000-8000-000000000001"] != 1 {
		t.Fatalf("findings: %+v, cannot tell %v", out, other.CannotTell())
	}
}

func TestClaimAheadOfReceiptIsClamped(t *testing.T) {
	r := ruleSet(t, encoded)
	e := process("powershell -enc QQ==")
	e.Time = e.Received + int64(10*time.Hour)
	got := r.Judge(e, event.Ref{}, Sight{}, nil)
	if want := time.Unix(0, e.Received).Add(MaxAhead).UTC(); len(got) != 1 || !got[0].From.Equal(want) {
		t.Fatalf("from %v, want %v", got[0].From, want)
	}
}
