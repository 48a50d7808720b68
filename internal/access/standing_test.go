package access_test

import (
	"encoding/hex"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/packs"
	"github.com/counterseal/counterseal/rules"
	"github.com/counterseal/counterseal/sigma"
)

var write = flag.Bool("write", false, "write published.txt anew")

// publicRules gives every document of the public rules, filters and correlations too.
func publicRules(t *testing.T) (out []*sigma.Rule) {
	t.Helper()
	dir := packs.Dir(t, "sigma-rules")
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".yml" {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		parsed, _ := sigma.Parse(path, data)
		out = append(out, parsed...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestPublished: the list names exactly the public rules that would select somebody if
// they were written here, and with it each public rule and each of our own loads.
func TestPublished(t *testing.T) {
	all := publicRules(t)
	want := map[string]bool{}
	for _, r := range all {
		if v := access.Selects(access.Rule{Rule: r}, access.Options{}); v.Class != access.Nobody {
			want[hex.EncodeToString(r.Digest[:])] = true
		}
	}
	text := strings.Join(slices.Sorted(maps.Keys(want)), "\n") + "\n"
	if *write {
		if err := os.WriteFile("published.txt", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile("published.txt")
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != text {
		t.Errorf("published.txt is not the list of these public rules: go test ./internal/access -run TestPublished -write")
	}
	own, err := rules.All()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range slices.Concat(all, own) {
		if v := access.Standing(r, access.Options{}); v.Class != access.Nobody {
			t.Errorf("%s: %s", r.Path, why(v))
		}
	}
	t.Logf("%d public rules, %d of them on the list; %d of our own", len(all), len(want), len(own))
}

// TestPublishedHere: what the lists of a house add counts for a published rule too, and a
// rule that was changed is not a published one.
func TestPublishedHere(t *testing.T) {
	var telegram, account *sigma.Rule
	for _, r := range publicRules(t) {
		switch filepath.Base(r.Path) {
		case "net_dns_susp_telegram_api.yml":
			telegram = r
		case "azure_user_account_mfa_disable.yml":
			account = r
		}
	}
	if telegram == nil || account == nil {
		t.Fatal("a public rule of this test is gone")
	}
	has := func(part string) func(string) bool {
		return func(s string) bool { return strings.Contains(strings.ToLower(s), part) }
	}
	for name, c := range map[string]struct {
		rule      *sigma.Rule
		o         access.Options
		class     access.Class
		protected bool
	}{
		"as published":          {telegram, access.Options{}, access.Nobody, false},
		"a place of this house": {telegram, access.Options{Private: has("telegram")}, access.Reverse, false},
		"a protected channel":   {telegram, access.Options{Protected: func(b []byte) bool { return has("telegram")(string(b)) }}, access.Reverse, true},
		"a name elsewhere":      {account, access.Options{}, access.Nobody, false},
		"somebody of the house": {account, access.Options{Known: has("authentication")}, access.Person, false},
	} {
		v := access.Standing(c.rule, c.o)
		if v.Class != c.class || v.Protected != c.protected {
			t.Errorf("%s: %s protected=%v: %s", name, v.Class, v.Protected, why(v))
		}
	}
	data, err := os.ReadFile(telegram.Path)
	if err != nil {
		t.Fatal(err)
	}
	changed, refused := sigma.Parse(telegram.Path, append(data, "\n# here\n"...))
	if len(refused) > 0 || access.Published(changed[0]) {
		t.Error("a changed rule is taken for the published one")
	}
	if v := access.Standing(changed[0], access.Options{}); !v.Class.Has(access.Reverse) {
		t.Errorf("a changed rule: %s", v.Class)
	}
}

// TestStanding: what the rules of a house select.
func TestStanding(t *testing.T) {
	const form = "title: T\nid: 0d1a53a4-7e0c-4c53-8d2f-3a3c2f5b0001\nlogsource: {product: windows}\ndetection: {s: {%s}, condition: s}\n"
	for test, want := range map[string]string{
		`Image|endswith: '\tool.exe'`:                "nobody",
		`User: alice`:                                "person",
		`User: [alice, bob]`:                         "person",
		`Computer: ws-17`:                            "person",
		`CommandLine|contains: 'alice@corp.example'`: "person",
		`QueryName: union.example`:                   "reverse",
		`User: alice, QueryName: union.example`:      "person+reverse",
		`User: alice, Image|endswith: '\tool.exe'`:   "person",
	} {
		parsed, refused := sigma.Parse("x.yml", fmt.Appendf(nil, form, test))
		if len(refused) > 0 {
			t.Fatal(refused[0])
		}
		if v := access.Standing(parsed[0], access.Options{}); v.Class.String() != want || !v.Standing {
			t.Errorf("%s: %s, want %s", test, v.Class, want)
		}
	}
}
