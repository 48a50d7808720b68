package discloser

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/pseudonym"
)

var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func overseer(t testing.TB) *officer.Key {
	t.Helper()
	k, err := officer.New("O. Versight", officer.Oversight, false)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newList(t testing.TB, keys ...*officer.Key) *List {
	t.Helper()
	var to []keyring.PublicKey
	for _, k := range keys {
		to = append(to, k.Card().Seal)
	}
	l, err := New(to)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func token(i int) event.Token {
	return event.NewToken(event.Person, 1, [16]byte{byte(i), byte(i >> 8)})
}

// TestVeil: a veil is compared with the tag of its token and with no other one, and two of one
// token have nothing in common.
func TestVeil(t *testing.T) {
	tags := map[Tag]bool{}
	for i := range 200 {
		a, b := VeilOf(token(i)), VeilOf(token(i))
		if tags[TagOf(token(i))] {
			t.Fatal("two tokens have one tag")
		}
		tags[TagOf(token(i))] = true
		if bytes.Equal(a.Salt, b.Salt) || bytes.Equal(a.Sum, b.Sum) {
			t.Fatal("two veils of one token look alike")
		}
		for j := range 200 {
			if a.Of(TagOf(token(j))) != (i == j) {
				t.Fatalf("the veil of %d and the tag of %d", i, j)
			}
		}
		a.Sum[0] ^= 1
		if a.Of(TagOf(token(i))) {
			t.Fatal("an altered veil is taken")
		}
	}
	for _, bad := range []Veil{{}, {Salt: make([]byte, veilLen)}, {Salt: make([]byte, 3), Sum: veil(TagOf(token(1)), make([]byte, 3))}} {
		if bad.Of(TagOf(token(1))) {
			t.Errorf("%+v is taken", bad)
		}
	}
}

// TestVeilFormat holds the bytes of docs/formats/disclosers.md, computed by another program.
func TestVeilFormat(t *testing.T) {
	tag := TagOf("p1_aaaaaaaaaaaaaaaaaaaaaaaaaa")
	const wantTag, wantSum = "2a51f145f829fb3c9cb895c098c424db", "c996309a2ccb65feee38ab7c8351f631"
	if got := fmt.Sprintf("%x", tag); got != wantTag {
		t.Errorf("tag %s, want %s", got, wantTag)
	}
	if got := fmt.Sprintf("%x", veil(tag, []byte("0123456789abcdef"))); got != wantSum {
		t.Errorf("sum %s, want %s", got, wantSum)
	}
}

// TestList: what is on a list is there again when it is opened, with each of its keys, and with
// no other one.
func TestList(t *testing.T) {
	k, spare, other := overseer(t), overseer(t), overseer(t)
	l := newList(t, k, spare)
	if err := l.Add(noon, "IG-1", []string{`CORP\alice`, "Alice Example"}); err != nil {
		t.Fatal(err)
	}
	if err := l.Add(noon, "IG-2", []string{"bob"}); err != nil {
		t.Fatal(err)
	}
	if got := l.Words(); len(got) != 3 || string(got[0]) != "alice" || string(got[1]) != "alice example" {
		t.Fatalf("%q", got)
	}
	if l.Match(VeilOf(token(1))) != nil || l.Unasked() != 2 {
		t.Error("a list that was not asked for matches somebody")
	}
	org := uuid.New()
	one, two := TagOf(token(1)), TagOf(token(2))
	if err := l.Answered(noon, org, []int{2}, l.Words(), [][]Tag{{one, two}, {one}}); err == nil {
		t.Error("an answer about fewer names is taken")
	}
	if err := l.Answered(noon, org, []int{2}, l.Words(), [][]Tag{{one, two}, {one}, nil}); err != nil {
		t.Fatal(err)
	}
	if err := l.Answered(noon, uuid.New(), []int{2}, l.Words(), [][]Tag{nil, nil, nil}); err == nil {
		t.Error("the key holder of another organisation is taken")
	}
	b, err := l.Seal()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []*officer.Key{k, spare} {
		got, err := Open(append(b, '\n'), key)
		if err != nil {
			t.Fatal(err)
		}
		if got.ID != l.ID || got.Org != org || !slices.Equal(got.Epochs, []int{2}) || !got.Asked.Equal(noon) || len(got.Entries) != 2 {
			t.Errorf("%d entries, %v %v", len(got.Entries), got.Asked, got.Epochs)
		}
		e := got.Entries[0]
		if e.Note != "IG-1" || e.Found != 2 || !slices.Equal(e.Names, l.Entries[0].Names) || !e.Added.Equal(noon) || got.Entries[1].Found != 0 {
			t.Errorf("%d %d", e.Found, got.Entries[1].Found)
		}
		for i, want := range []bool{false, true, true, false} {
			if m := got.MatchToken(token(i)); (len(m) == 1) != want || want && m[0].Note != "IG-1" {
				t.Errorf("token %d: %d", i, len(m))
			}
		}
		for name, want := range map[string]string{"ALICE": "IG-1", `corp\bob`: "IG-2", "carol": "", "": ""} {
			if m, _ := got.MatchName("person", name); (len(m) == 0) != (want == "") || len(m) > 0 && m[0].Note != want {
				t.Errorf("%q: %d", name, len(m))
			}
		}
		if again, err := got.Seal(); err != nil || len(again) != len(b) {
			t.Errorf("sealed again: %d bytes, %d before, %v", len(again), len(b), err)
		}
	}
	if _, err := Open(b, other); !errors.Is(err, keyring.ErrNotForKey) {
		t.Errorf("another key: %v", err)
	}
	for _, v := range []string{fmt.Sprint(l), fmt.Sprintf("%+v", l), fmt.Sprintf("%#v", l), slog.AnyValue(l).Resolve().String()} {
		if strings.Contains(v, "alice") || strings.Contains(v, "IG-") {
			t.Errorf("printed: %s", v)
		}
	}
	if _, err := json.Marshal(l); err == nil {
		t.Error("a list is written into a document")
	}
	if err := l.Remove(1); err != nil || len(l.MatchToken(token(1))) > 0 || l.Remove(2) == nil || l.Remove(0) == nil {
		t.Error("removing")
	}
}

// TestTagsStay: what a key holder gave is kept when it knows somebody no longer, whoever came
// onto the list meanwhile is not asked for yet, and the file has one length.
func TestTagsStay(t *testing.T) {
	k := overseer(t)
	l := newList(t, k)
	empty, err := l.Seal()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Add(noon, "IG-1", []string{"alice"}); err != nil {
		t.Fatal(err)
	}
	org := uuid.New()
	ask := func(tags ...Tag) {
		t.Helper()
		if err := l.Answered(noon, org, []int{1}, [][]byte{[]byte("alice")}, [][]Tag{tags}); err != nil {
			t.Fatal(err)
		}
	}
	ask(TagOf(token(1)))
	if err := l.Add(noon, "IG-2", []string{"bob"}); err != nil {
		t.Fatal(err)
	}
	ask()
	if l.Entries[0].Found != 0 || !l.Entries[0].Known() || l.Entries[1].Known() || l.Unasked() != 1 || len(l.MatchToken(token(1))) != 1 {
		t.Errorf("somebody who left the directory: found %d, unasked %d", l.Entries[0].Found, l.Unasked())
	}
	// A holder that gives many tags, true ones or not, drives no more than half of the others out.
	var many []Tag
	for i := range MaxTags + 7 {
		many = append(many, TagOf(token(1000+i)))
	}
	ask(many...)
	if len(l.MatchToken(token(1000))) != 1 || len(l.MatchToken(token(1))) != 1 || len(l.MatchToken(token(1000+MaxTags-1))) != 0 {
		t.Error("the newest tags and those of before are not those that are kept")
	}
	if err := l.Name(1, []string{"Alice Example"}); err != nil || l.Entries[0].Found != -1 || len(l.MatchToken(token(1))) != 1 {
		t.Errorf("a further name: %v, found %d", err, l.Entries[0].Found)
	}
	if err := l.Answered(noon, org, []int{1}, [][]byte{[]byte("alice"), []byte("alice example")}, [][]Tag{many, {TagOf(token(7))}}); err != nil || len(l.MatchToken(token(7))) != 1 {
		t.Errorf("one name drives the tags of the other out: %v", err)
	}
	for _, bad := range []int{0, 3} {
		if l.Name(bad, []string{"x"}) == nil {
			t.Errorf("somebody at place %d gets a name", bad)
		}
	}
	if l.Name(2, []string{"ALICE"}) == nil {
		t.Error("the name of another person is taken")
	}
	for i := range MaxNames - 3 {
		name := fmt.Sprintf("%d%s", i, strings.Repeat("\"", 250))
		if err := l.Add(noon, strings.Repeat("\"", MaxNote), []string{name}); err != nil {
			t.Fatal(err)
		}
		if err := l.Answered(noon, org, []int{1}, [][]byte{[]byte(name)}, [][]Tag{many}); err != nil {
			t.Fatal(err)
		}
	}
	full, err := l.Seal()
	if err != nil || len(full) != len(empty) {
		t.Errorf("%d bytes empty and %d full: %v", len(empty), len(full), err)
	}
	if again, err := Open(full, k); err != nil || len(again.Entries) != MaxNames-1 {
		t.Error(err)
	}
}

// TestListRefuses what it could not find again or show.
func TestListRefuses(t *testing.T) {
	l := newList(t, overseer(t))
	for name, c := range map[string]struct {
		note  string
		names []string
	}{
		"nobody": {"n", nil}, "an empty name": {"n", []string{""}}, "a word of the system": {"n", []string{"SYSTEM"}},
		"a note of two lines": {"a\nb", []string{"alice"}}, "a note that turns": {"a\u202eb", []string{"alice"}}, "a long note": {strings.Repeat("x", MaxNote+1), []string{"alice"}},
	} {
		if err := l.Add(noon, c.note, c.names); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if len(l.Entries) != 0 {
		t.Error("what was refused is on the list")
	}
	for i := range MaxNames {
		if err := l.Add(noon, "", []string{fmt.Sprintf("person-%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Remove(MaxNames); err != nil {
		t.Fatal(err)
	}
	if err := l.Add(noon, "", []string{"one-more", `CORP\ONE-MORE`}); err != nil || len(l.Entries[MaxNames-1].Names) != 1 {
		t.Errorf("two spellings of one name take two places: %v", err)
	}
	if err := l.Add(noon, "", []string{"and-another"}); err == nil {
		t.Error("more names than a question has places")
	}
	if err := l.Add(noon, "", []string{"person-3"}); err == nil {
		t.Error("a name twice")
	}
	for _, keys := range [][]keyring.PublicKey{nil, make([]keyring.PublicKey, keyring.MaxEach+1)} {
		if _, err := New(keys); err == nil {
			t.Errorf("a list for %d keys", len(keys))
		}
	}
}

// FuzzOpen: nothing that was altered opens, and nothing makes it fail otherwise.
func FuzzOpen(f *testing.F) {
	k := overseer(f)
	l := newList(f, k)
	if err := l.Add(noon, "IG-1", []string{"alice"}); err != nil {
		f.Fatal(err)
	}
	b, err := l.Seal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add([]byte(`{"boxes":[],"form":"disclosers/v1","id":"01900000-0000-7000-8000-000000000001"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := Open(in, k)
		if err == nil && (len(got.Entries) != 1 || got.Entries[0].Note != "IG-1" || !bytes.Equal(trim(in), b)) {
			t.Error("an altered list opens")
		}
	})
}

// FuzzInside reads what lies in the seal, which a thief of the public key can make: anything
// that is taken is sealed and read again as the same.
func FuzzInside(f *testing.F) {
	k := overseer(f)
	l := newList(f, k)
	if err := l.Add(noon, "IG-1", []string{"alice", "Alice Example"}); err != nil {
		f.Fatal(err)
	}
	if err := l.Answered(noon, uuid.New(), []int{1}, l.Words(), [][]Tag{{TagOf(token(1))}, nil}); err != nil {
		f.Fatal(err)
	}
	b, err := l.Seal()
	if err != nil {
		f.Fatal(err)
	}
	var sealed sealedForm
	if err := json.Unmarshal(b, &sealed); err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.TrimRight(inside(f, l, k, sealed), "\x00"))
	f.Add([]byte(`{"asked":"","entries":[],"epochs":[],"keys":[],"org":"","v":1}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		padded := make([]byte, max(plainLen, len(in)))
		copy(padded, in)
		got, err := parse(padded)
		if err != nil {
			return
		}
		got.ID = l.ID
		again, err := got.Seal()
		if err != nil {
			t.Fatalf("what was read is not sealed again: %v", err)
		}
		if len(again) > MaxFile {
			t.Errorf("a file of %d bytes", len(again))
		}
		if n := len(got.Words()); n > MaxNames {
			t.Errorf("%d names", n)
		}
	})
}

// inside opens the box of a list.
func inside(t testing.TB, l *List, k *officer.Key, f sealedForm) []byte {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(f.Boxes[0].Box)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := k.OpenOnly(info(l.ID), raw)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// FuzzMatchName: whatever the door takes for one of the names of somebody on the list, the
// list does as well.
func FuzzMatchName(f *testing.F) {
	k := overseer(f)
	l := newList(f, k)
	if err := l.Add(noon, "IG-1", []string{`CORP\alice`, "Alice Example", "alice@corp.example", "S-1-5-21-1-2-3-1104"}); err != nil {
		f.Fatal(err)
	}
	if err := l.Add(noon, "IG-2", []string{"bob"}); err != nil {
		f.Fatal(err)
	}
	d, err := pseudonym.ParseDirectory([]byte("apiVersion: directory/v1\ndomains: [CORP, corp.example]\npeople:\n  - {id: E-1, names: ['CORP\\alice', Alice Example], mails: [alice@corp.example], sids: [S-1-5-21-1-2-3-1104]}\n  - {id: E-2, names: [bob]}\n"))
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"alice", "CN=alice", `CORP\CN=Alice Example`, "CN=alice@corp.example,OU=x", "<alice@corp.example>", "CORP/alice", "alice@CORP", "alice@corp.example", "arn:aws:iam::1:user/alice", "s-1-5-21-1-2-3-1104", "Bob", "bob@corp.example", "@", "/", "carol"} {
		f.Add("person", s)
		f.Add("mail", s)
	}
	f.Fuzz(func(t *testing.T, category, text string) {
		found, compared := l.MatchName(category, text)
		if who, err := d.Who(category, text); err == nil && who >= 0 && compared {
			if !slices.ContainsFunc(found, func(e *Entry) bool { return e == &l.Entries[who] }) {
				t.Errorf("%s %q is person %d at the door, and nobody on the list", category, text, who)
			}
		} else if err == nil && who >= 0 && (category == "person" || category == "mail") {
			t.Errorf("%s %q is person %d at the door, and was not compared", category, text, who)
		}
	})
}
