package pipeline

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/detect"
	"github.com/counterseal/counterseal/internal/packs"
	"github.com/counterseal/counterseal/rules"
	"github.com/counterseal/counterseal/sigma"
)

// TestPublicRulesStand: the public rules and our own come into force as they are, byte for
// byte: not one selects somebody of this house.
func TestPublicRulesStand(t *testing.T) {
	files, err := detect.ReadFiles(rules.Files(), "rules")
	if err != nil {
		t.Fatal(err)
	}
	public, err := detect.ReadFiles(os.DirFS(filepath.Join(packs.Dir(t, "sigma-rules"), "sigma")), "sigma")
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, public...)
	p := &Pipeline{standing: func(context.Context, *Standing) (Ruling, error) { return Ruling{}, fmt.Errorf("asked") }}
	begun := time.Now()
	kept, st, err := p.stand(t.Context(), files, access.Options{Known: func(string) bool { return false }, Protected: func([]byte) bool { return false }})
	if err != nil || len(st.aside)+len(st.held) > 0 {
		t.Fatalf("%d are set aside, %d held, %v", len(st.aside), len(st.held), err)
	}
	t.Logf("%d files in %s", len(files), time.Since(begun).Round(time.Millisecond))
	if !slices.EqualFunc(files, kept, func(a, b detect.File) bool { return a.Path == b.Path && bytes.Equal(a.Data, b.Data) }) {
		t.Error("files are changed")
	}
}

const (
	plainDoc = "title: %s\nid: 0d1a53a4-7e0c-4c53-8d2f-3a3c2f5b00%02d\nlogsource: {product: windows}\ndetection: {s: {Image|endswith: '\\%s.exe'}, condition: s}\n"
	nameDoc  = "title: %s\nid: 0d1a53a4-7e0c-4c53-8d2f-3a3c2f5b00%02d\nname: n%[2]d\nlogsource: {product: windows}\ndetection: {s: {User: %s}, condition: s}\n"
	chainDoc = "title: %s\nid: 0d1a53a4-7e0c-4c53-8d2f-3a3c2f5b00%02d\nname: n%[2]d\ncorrelation: {type: event_count, rules: [%s], timespan: 1h, condition: {gte: 2}}\n"
)

// TestStand: documents that are set aside are cut out of their files, those under an
// authorisation stand there as they are asked, and the rest keeps its digests.
func TestStand(t *testing.T) {
	one, two := fmt.Sprintf(plainDoc, "one", 1, "one"), "---\n"+fmt.Sprintf(plainDoc, "two", 2, "two")
	alice, bob := "---\n"+fmt.Sprintf(nameDoc, "alice", 3, "alice"), "---\n"+fmt.Sprintf(nameDoc, "bob", 4, "bob")
	byName, byChain := "---\n"+fmt.Sprintf(chainDoc, "c", 5, "n3"), "---\n"+fmt.Sprintf(chainDoc, "d", 6, "n5")
	files := []detect.File{
		{Path: "a.yml", Data: []byte(one + alice + two + bob)},
		{Path: "b.yml", Data: []byte(alice)},
		{Path: "c.yml", Data: []byte(byChain + byName + "---\n" + fmt.Sprintf(chainDoc, "e", 7, "n4"))},
		{Path: "d.yml", Data: []byte("title: [\n")},
		{Path: "e.yml", Data: nil},
	}
	end := time.Unix(1_800_000_000, 0).UTC()
	asked := 0
	p := &Pipeline{standing: func(_ context.Context, s *Standing) (Ruling, error) {
		asked++
		if s.Rule.Title == "bob" {
			return Ruling{Authorisation: "a1", Text: []byte(strings.Replace(string(s.Text), "User: bob", "User: token", 1)), Bound: detect.Bound{Until: end}}, nil
		}
		return Ruling{Code: "unnamed", Reason: "it names none"}, nil
	}}
	kept, st, err := p.stand(t.Context(), files, access.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if asked != 2 {
		t.Errorf("asked %d times, want once for each of the two documents", asked)
	}
	want := []detect.File{
		{Path: "a.yml", Data: []byte(one + two + strings.Replace(bob, "User: bob", "User: token", 1))},
		{Path: "c.yml", Data: []byte("---\n" + fmt.Sprintf(chainDoc, "e", 7, "n4"))},
		files[3], files[4],
	}
	if diff := cmp.Diff(want, kept); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	var codes []string
	for _, a := range st.aside {
		codes = append(codes, a.Rule[len(a.Rule)-2:]+" "+a.Code)
		if strings.Contains(a.Reason, "alice") {
			t.Errorf("a reason holds a value: %s", a.Reason)
		}
	}
	if !slices.Equal(codes, []string{"03 unnamed", "06 stands_on", "05 stands_on"}) {
		t.Errorf("set aside: %v", codes)
	}
	if len(st.held) != 1 || st.held[0].Authorisation != "a1" || !st.held[0].Bound.Until.Equal(end) || st.held[0].Bound.Rule == st.held[0].Digest {
		t.Errorf("held: %+v", st.held)
	}
	set, err := detect.Compile(kept, st.bounds()...)
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, r := range set.Rules() {
		have[r.Title] = true
	}
	if len(have) != 3 || !have["one"] || !have["two"] || !have["bob"] || len(set.Set().Correlations()) != 1 {
		t.Errorf("in force: %v", have)
	}

	// Nobody to ask: nothing covers.
	_, st, err = (&Pipeline{}).stand(t.Context(), files, access.Options{})
	if err != nil || len(st.held) != 0 || len(st.aside) != 5 || st.aside[0].Code != asideUncovered {
		t.Errorf("without anybody to ask: %+v, %v", st, err)
	}
	// What cannot be told is no answer.
	p.standing = func(context.Context, *Standing) (Ruling, error) { return Ruling{}, fmt.Errorf("the disk") }
	if _, _, err := p.stand(t.Context(), files, access.Options{}); err == nil {
		t.Error("a failure is taken for an answer")
	}
}

// FuzzRewritten: a file without one of its documents holds the others, with their digests.
func FuzzRewritten(f *testing.F) {
	f.Add([]byte("# a\n---\ntitle: a\n---\ntitle: b\n"), 0)
	f.Add([]byte("title: a\n---\n# b\n---\n--- title: c\n...\n"), 1)
	f.Add([]byte("\xef\xbb\xbftitle: a\r\n---\r\n\r\n"), 0)
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		docs := sigma.Split(data)
		if len(docs) == 0 || len(docs) > 50 {
			return
		}
		cut = (cut%len(docs) + len(docs)) % len(docs)
		sum := sha256.Sum256(docs[cut])
		var want [][]byte
		for _, d := range docs {
			if sha256.Sum256(d) != sum {
				want = append(want, d)
			}
		}
		if diff := cmp.Diff(want, append([][]byte(nil), sigma.Split(rewritten(data, map[[32]byte]bool{sum: true}, nil))...)); diff != "" {
			t.Error(diff)
		}
	})
}
