package access_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/packs"
	"github.com/counterseal/counterseal/sigma"
)

// TestPublicRules: of the public rules, which look for malice everywhere, hardly one
// is taken for a question about a person.
func TestPublicRules(t *testing.T) {
	dir := packs.Dir(t, "sigma-rules")
	rules, person, reverse, own := 0, 0, 0, 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".yml" || !strings.Contains(filepath.ToSlash(path), "/rules") {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		parsed, _ := sigma.Parse(path, data)
		for _, r := range parsed {
			rules++
			v := access.Selects(access.Rule{Rule: r, Published: true}, access.Options{})
			if v.Class.Has(access.Person) {
				person++
				t.Logf("person: %s: %s", filepath.Base(path), why(v))
			}
			if v.Class.Has(access.Reverse) {
				reverse++
				t.Logf("reverse: %s: %s", filepath.Base(path), why(v))
			}
			if v := access.Selects(access.Rule{Rule: r}, access.Options{}); v.Class.Has(access.Reverse) {
				own++
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d rules: %d select a person, %d are reverse; unpublished %d would be", rules, person, reverse, own)
	if rules < 3000 || person*50 > rules || reverse*20 > rules {
		t.Errorf("of %d rules %d select a person and %d are reverse", rules, person, reverse)
	}
}
