package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/event"
)

// protectedFile writes the file of protected channels and has it read.
func (b *bureau) protectedFile(domains ...string) {
	b.t.Helper()
	text := "apiVersion: protected/v1\nchannels:\n  - name: hotline\n    kind: works-council\n    domains: [" + strings.Join(domains, ", ") + "]\n"
	if err := os.WriteFile(filepath.Join(b.dir, "protected.yaml"), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	docs, err := b.s.cfg.documents()
	if err == nil {
		err = b.s.pipe.SetDocuments(docs)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// channels gives the state of each entry, as somebody is shown it.
func (b *bureau) channels(user int) (st channelsState, states map[string]string) {
	b.t.Helper()
	b.does(user, "channels.show", struct{}{}, &st, 200, "")
	states = map[string]string{}
	for _, c := range st.Channels {
		states[c.Value] = c.State
	}
	return st, states
}

func (b *bureau) wantChannels(when string, want map[string]string) channelsState {
	b.t.Helper()
	st, got := b.channels(overseer)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		b.t.Errorf("%s: got %v, want %v", when, got, want)
	}
	for value, state := range want {
		if is := b.s.pipe.Withholds("idp", "signin")(&event.Frame{Bytes: []byte(`{"url":"https://` + value + `/"}`)}); is == (state == channelWaits) {
			b.t.Errorf("%s: contact with %s is withheld: %v", when, value, is)
		}
	}
	return st
}

func (b *bureau) doctorOfChannels() (out []string) {
	b.t.Helper()
	all, err := b.s.checks(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	for _, c := range all {
		if c.Name == "protected" {
			out = append(out, c.State+" "+c.Text)
		}
	}
	return out
}

// TestTwoOwnersOfChannels: what is new in the file protects nothing until security and an
// overseer of another chain have agreed, what is gone from it stays protected until an
// overseer takes it off, and everybody sees that.
func TestTwoOwnersOfChannels(t *testing.T) {
	b := openBureau(t, withProtected)
	b.wantChannels("at first", map[string]string{"oig.example": channelIs})
	b.does(0, "channels.propose", struct{}{}, nil, 400, "names none")
	if got := b.doctorOfChannels(); len(got) != 0 {
		t.Error(got)
	}

	b.protectedFile("union.example", "evil.example")
	waits := map[string]string{"oig.example": channelMissing, "union.example": channelWaits, "evil.example": channelWaits}
	st := b.wantChannels("changed in the file", waits)
	if got := strings.Join(b.doctorOfChannels(), "\n"); !strings.Contains(got, "2 entries of the file protect nothing") || !strings.Contains(got, "can decide: inspector") || !strings.Contains(got, "1 entry is not in the file") {
		t.Error(got)
	}
	named := channelsNamed{Digest: st.Digest}
	b.does(overseer, "channels.approve", named, nil, 403, "nobody has asked")
	for _, user := range []int{overseer, privacyOfficer} {
		b.does(user, "channels.propose", struct{}{}, nil, 403, "")
	}
	b.does(0, "channels.propose", struct{}{}, &st, 200, `"offices":["inspector"]`)
	for _, user := range []int{0, colleague, privacyOfficer} {
		b.does(user, "channels.approve", named, nil, 403, "")
	}
	b.does(overseer, "channels.approve", channelsNamed{Digest: strings.Repeat("a", 64)}, nil, 403, "something else")

	// The file changes under the word of who asked: it is another set, for which nobody asks.
	b.protectedFile("union.example", "other.example")
	b.does(overseer, "channels.approve", named, nil, 403, "something else")
	st, _ = b.channels(overseer)
	b.does(overseer, "channels.approve", channelsNamed{Digest: st.Digest}, nil, 403, "nobody has asked")
	b.protectedFile("union.example", "evil.example")
	b.later(25 * time.Hour)
	b.does(overseer, "channels.approve", named, nil, 403, "nobody has asked")

	// The overseer sees whose server it is; the file is mended, and they agree.
	b.protectedFile("union.example")
	b.does(0, "channels.propose", struct{}{}, &st, 200, "")
	b.does(overseer, "channels.approve", channelsNamed{Digest: st.Digest}, &st, 200, "")
	both := map[string]string{"oig.example": channelMissing, "union.example": channelIs}
	st = b.wantChannels("agreed", both)
	b.stop()
	b.open()
	b.wantChannels("after a restart", both)
	b.does(overseer, "channels.approve", named, nil, 403, "")

	gone := channelsNamed{IDs: []string{st.Channels[0].ID}}
	if st.Channels[0].Value != "oig.example" {
		t.Fatal(st.Channels)
	}
	for _, user := range []int{0, colleague, privacyOfficer} {
		b.does(user, "channels.remove", gone, nil, 403, "")
	}
	b.does(overseer, "channels.remove", channelsNamed{IDs: []string{"0123456789ab"}}, nil, 400, "not on the list")
	if strings.Contains(b.page(), "taken off the list") {
		t.Error("the page tells of a removal before there is one")
	}
	// An overseer of the authority of those who look is none who could take one off.
	record := filepath.Join(b.dir, "offices.yaml")
	held, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	inForce := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(record, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := b.s.reloadForce(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	inForce([]byte(strings.Replace(string(held), "authority: parliament", "authority: ciso", 1)))
	b.does(overseer, "channels.remove", gone, nil, 403, "independent office")
	b.does(overseer, "notice.postpone", noticeNamed{Authorisation: "A-1"}, nil, 403, "independent office")
	inForce(held)
	b.does(overseer, "channels.remove", gone, nil, 200, `"removed":[{`)
	b.wantChannels("removed", map[string]string{"union.example": channelIs})
	page := b.page()
	if !strings.Contains(page, "no kind named") || !strings.Contains(page, "taken off the list") || !strings.Contains(page, b.now().Format("2 January 2006")) || strings.Contains(page, "oig.example") {
		t.Error("the page does not tell of the removal, or tells too much")
	}
	b.does(overseer, "channels.remove", channelsNamed{IDs: []string{st.Channels[1].ID}}, nil, 200, `"kinds":{"works-council":1}`)
	if page := b.page(); !strings.Contains(page, "works council") || strings.Contains(page, "union.example") {
		t.Error("the page does not tell of what kind it was, or tells too much")
	}
	b.stop()
	told := ledgerTold(t, filepath.Join(b.dir, "data"))
	for _, want := range []string{`channels.approved system`, `"reason":"first"`, `"reason":"added"`, `"reason":"removed"`, "channels.approved os:4712"} {
		if !strings.Contains(told, want) {
			t.Errorf("the ledger does not say %s", want)
		}
	}
	if strings.Contains(told, "oig") || strings.Contains(told, "union") {
		t.Error("a leaf names a channel")
	}
}
