package admit

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestChannels(t *testing.T) {
	got, err := Channels([]byte(`apiVersion: protected/v1
channels:
  - name: hotline
    kind: other
    domains: ["*.OIG.example.", oig.example]
    addresses: [192.0.2.7/32, "::ffff:192.0.2.7", 198.51.100.9/24]
    mails: [Hotline@Agency.example]
  - name: counsel
    kind: counsel
    domains: [oig.example]
    numbers: ["+1 202 555 0100"]
    names: [Office of Inspector General]
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Channel{
		{"addresses", "192.0.2.7", "hotline", ""}, {"addresses", "198.51.100.0/24", "hotline", ""},
		{"domains", "oig.example", "counsel", "counsel"}, {"mails", "hotline@agency.example", "hotline", ""},
		{"names", "Office of Inspector General", "counsel", "counsel"}, {"numbers", "+1 202 555 0100", "counsel", "counsel"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	p, err := Protect(got)
	if err != nil {
		t.Fatal(err)
	}
	for text, is := range map[string]bool{
		"https://www.oig.example/x": true, "to 198.51.100.200": true, "hotline@AGENCY.example": true, "call 202-555-0100": true, "192.0.2.8": false,
	} {
		if p.Mentions([]byte(text)) != is {
			t.Errorf("%q: %v", text, !is)
		}
	}
	if p.Digest() == "" {
		t.Error("a list without a digest")
	}
	if none, err := Protect(nil); err != nil || none.Digest() != "" {
		t.Error(none.Digest(), err)
	}
	new1 := Channel{List: "domains", Value: "evil.example"}
	if diff := cmp.Diff([]Channel{new1}, Without(Joined(got, []Channel{new1, got[2]}), got)); diff != "" {
		t.Error(diff)
	}
	for name, bad := range map[string][]Channel{
		"order": {got[1], got[0]}, "twice": {got[0], got[0]}, "list": {{List: "x", Value: "y"}}, "empty": {{List: "names"}},
		"spelling": {{List: "domains", Value: "OIG.example"}}, "long": {{List: "names", Value: strings.Repeat("x", 2000)}}, "no domain": {{List: "domains", Value: "x"}},
		"kind": {{List: "domains", Value: "oig.example", Kind: "hearsay"}}, "kind other": {{List: "domains", Value: "oig.example", Kind: OtherChannel}},
	} {
		if _, err := Protect(bad); err == nil {
			t.Error(name)
		}
	}
}

// FuzzChannels: the entries of a file protect what the file protects.
func FuzzChannels(f *testing.F) {
	f.Add([]byte(protectedYAML), []byte("see https://oig.example/ now"))
	f.Add([]byte("apiVersion: protected/v1\nchannels: [{name: a, domains: [xn--bcher-kva.example, \"*.BÜCHER.example\"], addresses: [\"::ffff:1.2.3.0/120\"]}]"), []byte("bücher.example 1.2.3.4"))
	f.Fuzz(func(t *testing.T, file, text []byte) {
		whole, err := ParseProtected(file)
		if err != nil {
			return
		}
		list, err := Channels(file)
		if err != nil {
			return // longer than a list may be
		}
		p, err := Protect(list)
		if err != nil {
			t.Fatal(err)
		}
		if p.Mentions(text) != whole.Mentions(text) {
			t.Fatalf("file %v, entries %v", whole.Mentions(text), p.Mentions(text))
		}
	})
}
