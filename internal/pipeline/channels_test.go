package pipeline

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/counterseal/counterseal/internal/admit"
	"github.com/counterseal/counterseal/internal/event"
)

func channelsFile(domains ...string) []byte {
	return []byte("apiVersion: protected/v1\nchannels:\n  - name: hotline\n    domains: [" + strings.Join(domains, ", ") + "]\n")
}

func values(list []admit.Channel) []string {
	out := []string{}
	for _, c := range list {
		out = append(out, c.Value)
	}
	return out
}

// TestChannels: before there are offices the file counts as it is; from then on the ledger
// has the list, whatever the file says, after a restart, after a rebuild, and without offices.
func TestChannels(t *testing.T) {
	dir := t.TempDir()
	offices := false
	docs := Documents{Protected: channelsFile("a.example", "b.example")}
	open := func() *system {
		return start(t, Options{Dir: dir, Documents: docs, Offices: func() bool { return offices }})
	}
	s := open()
	holds := func(agreed bool, inForce, waiting, missing []string) {
		t.Helper()
		c := s.Channels()
		got := []any{c.Agreed, values(c.InForce), values(c.Waiting), values(c.Missing)}
		if diff := cmp.Diff([]any{agreed, inForce, waiting, missing}, got); diff != "" {
			t.Error(diff)
		}
		for _, d := range []string{"a.example", "b.example", "c.example", "evil.example"} {
			withheld := s.policy.protected.Withhold(&event.Record{Fields: []event.Field{{Name: "url", Value: []byte("https://" + d + "/x")}}})
			if withheld != slices.Contains(inForce, d) {
				t.Errorf("%s is withheld: %v", d, withheld)
			}
		}
	}
	set := func(file []byte) {
		t.Helper()
		docs.Protected = file
		if err := s.SetDocuments(docs); err != nil {
			t.Fatal(err)
		}
	}
	none := []string{}
	holds(false, []string{"a.example", "b.example"}, none, none)
	set(channelsFile("b.example"))
	holds(false, []string{"b.example"}, none, none)
	if err := s.ChangeChannels(t.Context(), ChannelsChange{Add: []admit.Channel{{List: "domains", Value: "c.example"}}}); !errors.Is(err, ErrChannels) {
		t.Error("a change before there are offices:", err)
	}
	then := s.policy.context.Protected

	offices = true
	set(channelsFile("b.example"))
	holds(true, []string{"b.example"}, none, none)
	if known, err := s.knownList(t.Context(), then); !known || err != nil {
		t.Error("the context of the file is not known any more:", err)
	}
	set(channelsFile("evil.example", "c.example"))
	holds(true, []string{"b.example"}, []string{"c.example", "evil.example"}, []string{"b.example"})
	before := s.policy.context.Protected

	change := func(c ChannelsChange) error { return s.ChangeChannels(t.Context(), c) }
	c1 := s.Channels().Waiting[:1]
	if err := change(ChannelsChange{Add: c1, Asked: "rui", Approved: "olga", Actor: "os:1"}); err != nil {
		t.Fatal(err)
	}
	holds(true, []string{"b.example", "c.example"}, []string{"evil.example"}, []string{"b.example"})
	if s.policy.context.Protected == before {
		t.Error("another list is the same context")
	}
	if known, err := s.knownList(t.Context(), before); !known || err != nil {
		t.Error("the context of the list of before is not known any more:", err)
	}
	for name, wrong := range map[string]ChannelsChange{
		"again": {Add: c1, Actor: "os:1"}, "nothing": {Actor: "os:1"}, "not there": {Remove: []admit.Channel{{List: "domains", Value: "d.example"}}, Actor: "os:1"},
		"both at once": {Add: s.Channels().Waiting, Remove: c1, Actor: "os:1"},
	} {
		if err := change(wrong); !errors.Is(err, ErrChannels) {
			t.Error(name, err)
		}
	}

	again := func() {
		t.Helper()
		s.stop()
		s = open()
		holds(true, []string{"b.example", "c.example"}, []string{"evil.example"}, []string{"b.example"})
	}
	again()
	if err := s.Rebuild(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	again()
	s.stop()
	for _, view := range []string{"state", "index"} {
		if err := os.RemoveAll(filepath.Join(dir, view)); err != nil {
			t.Fatal(err)
		}
	}
	s = open()
	again()
	offices = false // a record of offices that is taken away frees nobody of the list
	again()
	set(nil)
	holds(true, []string{"b.example", "c.example"}, none, []string{"b.example", "c.example"})

	if err := change(ChannelsChange{Remove: s.Channels().Missing[:1], Approved: "olga", Actor: "os:1"}); err != nil {
		t.Fatal(err)
	}
	holds(true, []string{"c.example"}, none, []string{"c.example"})
	removed, err := s.RemovedChannels(t.Context())
	if err != nil || len(removed) != 1 || removed[0].Entries != 1 || removed[0].Kinds["other"] != 1 {
		t.Error(removed, err)
	}
	facts, err := s.recorder.Facts(t.Context(), "channels.approved")
	if err != nil || len(facts) != 3 {
		t.Fatal(len(facts), err)
	}
	newest := facts[0]
	for _, f := range facts {
		if strings.Contains(string(f.Detail), "example") {
			t.Errorf("a leaf names a channel: %s", f.Detail)
		}
		if f.Index > newest.Index {
			newest = f
		}
	}
	// A list that cannot be read stops the start.
	s.stop()
	payloads, err := filepath.Glob(filepath.Join(dir, "ledger", "payload*", "*"))
	if err != nil || len(payloads) == 0 {
		t.Fatal(payloads, err)
	}
	for _, p := range payloads {
		if err := os.Remove(p); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(t.Context(), Options{Dir: dir, Documents: docs, Tokens: maker(t)}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("statement %d", newest.Index)) {
		t.Error("a start without the list:", err)
	}
}

// TestChannelsFirst: the first list is stated also where it is empty, so that the file
// protects nothing by itself from then on.
func TestChannelsFirst(t *testing.T) {
	docs := Documents{}
	s := start(t, Options{Dir: t.TempDir(), Documents: docs, Offices: func() bool { return true }})
	docs.Protected = channelsFile("evil.example")
	if err := s.SetDocuments(docs); err != nil {
		t.Fatal(err)
	}
	if c := s.Channels(); len(c.InForce) != 0 || len(c.Waiting) != 1 || s.policy.protected.Mentions([]byte("evil.example")) {
		t.Error(c)
	}
}

func FuzzParseChannels(f *testing.F) {
	f.Add([]byte(`{"approved":"","asked":"","channels":[{"list":"domains","name":"a","value":"b.example"}],"form":"channels/v1","id":"01900000-0000-7000-8000-000000000000"}`))
	f.Add([]byte(`{"channels":[],"form":"channels/v1"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := parseChannels(b); err == nil {
			if _, err := admit.Protect(c.Channels); err != nil && len(c.Channels) == 0 {
				t.Fatal(err)
			}
		}
	})
}
