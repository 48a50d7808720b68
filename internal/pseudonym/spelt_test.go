package pseudonym

import (
	"slices"
	"strings"
	"testing"
)

// TestSpelt: whatever spelling of the file somebody takes, it is a word of the right person,
// whose token is the one that a record gives.
func TestSpelt(t *testing.T) {
	d, err := ParseDirectory([]byte(`apiVersion: directory/v1
domains: [CORP, corp.example]
people:
  - id: E-1
    names: ['CORP\Alice', Alice Example]
    mails: [Alice.Example@corp.example]
    sids: [S-1-5-21-1-2-3-1104]
    devices: [ALICE-LAPTOP, SHARED]
  - id: E-2
    names: [bob, alice2]
    mails: [alice2@corp.example, alice@elsewhere.example]
    devices: [shared]
`))
	if err != nil {
		t.Fatal(err)
	}
	all := d.Spelt()
	at := map[string]int{}
	for i, who := range all {
		for _, w := range who.Words {
			if j, ok := at[w]; ok {
				t.Errorf("%q stands for persons %d and %d", w, j, i)
			}
			at[w] = i
		}
	}
	for text, want := range map[string]int{
		`CORP\alice`: 0, `corp\ALICE`: 0, "alice": 0, " Alice  Example ": 0, "alice.example@CORP.example": 0, "s-1-5-21-1-2-3-1104": 0, "alice@corp.example": 0,
		"BOB": 1, "bob@corp.example": 1, "alice2@corp.example": 1, "alice@elsewhere.example": 1,
	} {
		word, err := Spelling(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got, ok := at[word]; !ok || got != want {
			t.Errorf("%q is person %d (%v), want %d", text, got, ok, want)
		}
		k, canonical, err := d.Identity("person", text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if id := all[want].Identities[0]; k != id.Kind || string(canonical) != string(id.Canonical) {
			t.Errorf("%q: a record has %c %q, the table %c %q", text, k, canonical, id.Kind, id.Canonical)
		}
	}
	// What a record gave before the directory knew the spelling, and what is theirs alone.
	for i, want := range [][]string{{"palice", "dalice-laptop", "palice example", "malice.example@corp.example"}, {"pbob", "palice2", "malice2@corp.example", "malice@elsewhere.example"}} {
		var got []string
		for _, id := range all[i].Identities {
			got = append(got, string(rune(id.Kind))+string(id.Canonical))
		}
		for _, w := range want {
			if !slices.Contains(got, w) {
				t.Errorf("person %d has %q, and not %q", i, got, w)
			}
		}
		if slices.Contains(got, "dshared") {
			t.Errorf("person %d has the device of two people", i)
		}
	}
	if _, there := at["carol"]; there {
		t.Error("carol is not in the file")
	}
	if got := (*Directory)(nil).Spelt(); got != nil {
		t.Errorf("no directory knows %v", got)
	}
	for _, bad := range []string{"", " ", "SYSTEM", "root", "a\x00b", strings.Repeat("a", 256), "a\u202eb"} {
		if word, err := Spelling(bad); err == nil {
			t.Errorf("%q is spelt %q", bad, word)
		} else if bad = strings.TrimSpace(bad); len(bad) > 3 && strings.Contains(err.Error(), bad) {
			t.Errorf("the error quotes the name: %v", err)
		}
	}
	if !slices.Contains(all[1].Words, "alice2") {
		t.Errorf("the words of bob: %v", all[1].Words)
	}
}
