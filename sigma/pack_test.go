package sigma_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/counterseal/counterseal/internal/packs"
	"github.com/counterseal/counterseal/sigma"
)

// packRules parses every rule of the public collection.
func packRules(t testing.TB) ([]*sigma.Rule, []*sigma.Refusal) {
	t.Helper()
	root := filepath.Join(packs.Dir(t, "sigma-rules"), "sigma")
	var rules []*sigma.Rule
	var refused []*sigma.Refusal
	for _, folder := range []string{"rules", "rules-threat-hunting", "rules-emerging-threats"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".yml") {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			rel, _ := filepath.Rel(root, path)
			got, bad := sigma.Parse(rel, data)
			rules, refused = append(rules, got...), append(refused, bad...)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return rules, refused
}

func TestPublicRules(t *testing.T) {
	rules, refused := packRules(t)
	set, late := sigma.Compile(rules, sigma.Options{})
	refused = append(refused, late...)
	if got := len(set.Rules()); got != 3752 {
		t.Errorf("%d rules compiled, want 3752", got)
	}
	if len(refused) != 2 {
		t.Errorf("%d rules refused, want the 2 with a placeholder", len(refused))
	}
	for _, r := range refused {
		if !strings.Contains(r.Reason, "placeholder") {
			t.Errorf("refused: %v", r)
		}
	}
	for _, w := range set.Warnings() {
		t.Logf("warning: %v", w)
	}
	unmapped := make(map[string]int)
	for _, r := range set.Unmapped() {
		unmapped[r.LogSource.Category+r.LogSource.Service]++
	}
	want := map[string]int{
		"file_access": 13, "file_rename": 2, "dns-server": 2, "dns-server-analytic": 1,
		"driver-framework": 1, "microsoft-servicebus-client": 1,
	}
	for name, n := range want {
		if unmapped[name] != n {
			t.Errorf("%d unmapped rules of %s, want %d", unmapped[name], name, n)
		}
		delete(unmapped, name)
	}
	if len(unmapped) > 0 {
		t.Errorf("more unmapped rules: %v", unmapped)
	}
}
