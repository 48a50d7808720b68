package sigma_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/counterseal/counterseal/sigma"
)

func TestTests(t *testing.T) {
	rules, refused := sigma.Parse("r.yml", []byte(`title: x
logsource: {product: windows}
detection:
  a:
    User|contains: [alice, bob]
    EventID: 4624
  b:
    - Image|endswith|cased: '\x.exe'
    - Hash: null
  words: [mimikatz]
  condition: a or b or words
`))
	if len(refused) != 0 || len(rules) != 1 {
		t.Fatal(refused)
	}
	want := []sigma.Test{
		{Field: "User", Modifiers: []string{"contains"}, Values: []string{"alice", "bob"}},
		{Field: "EventID", Modifiers: []string{}, Values: []string{"4624"}},
		{Field: "Image", Modifiers: []string{"endswith", "cased"}, Values: []string{`\x.exe`}},
		{Field: "Hash", Modifiers: []string{}, Values: []string{""}},
		{Values: []string{"mimikatz"}},
	}
	if d := cmp.Diff(want, rules[0].Tests()); d != "" {
		t.Error(d)
	}
}
