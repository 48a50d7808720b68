// Package rules holds the detection rules that ship with Counterseal, embedded
// in the binary. It owns their text and their cases under testdata, where every
// rule has an event that it must find and one that it must leave alone. What the
// rules mean is the business of package sigma.
package rules

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/counterseal/counterseal/sigma"
)

//go:embed windows linux network identity mobile
var files embed.FS

// Files returns the rule files, one rule in each.
func Files() fs.FS { return files }

// All parses the rules, in the order of their paths. An error means that the
// binary was built from a broken rule.
func All() ([]*sigma.Rule, error) {
	var out []*sigma.Rule
	err := fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".yml") {
			return err
		}
		data, err := files.ReadFile(path)
		if err != nil {
			return err
		}
		rules, refused := sigma.Parse("rules/"+path, data)
		if len(refused) > 0 {
			return refused[0]
		}
		out = append(out, rules...)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading our own rules: %w", err)
	}
	if len(out) == 0 {
		return nil, errors.New("the binary holds no rules")
	}
	return out, nil
}
