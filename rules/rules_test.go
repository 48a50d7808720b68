package rules_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/rules"
	"github.com/counterseal/counterseal/sigma"
	"github.com/counterseal/counterseal/sigma/sigmatest"
)

// TestRules checks what every rule of ours carries.
func TestRules(t *testing.T) {
	all, err := rules.All()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 40 {
		t.Errorf("%d rules, want at least 40", len(all))
	}
	fileName := regexp.MustCompile(`^[a-z0-9_]{10,70}\.yml$`)
	titles := make(map[string]bool)
	for _, r := range all {
		id, err := uuid.Parse(r.ID)
		switch {
		case err != nil || id.Version() != 4:
			t.Errorf("%s: the id is no random UUID", r.Path)
		case r.License != "Apache-2.0" || r.Author != "Counterseal":
			t.Errorf("%s: licence %q, author %q", r.Path, r.License, r.Author)
		case r.Level == "" || r.Status == "" || r.Description == "" || r.Date == "" || len(r.Tags) == 0 || len(r.FalsePositives) == 0:
			t.Errorf("%s: level, status, description, date, tags or false positives are missing", r.Path)
		case !fileName.MatchString(filepath.Base(r.Path)):
			t.Errorf("%s: the file name is not in the form of the specification", r.Path)
		case titles[r.Title]:
			t.Errorf("%s: the title is used twice", r.Path)
		}
		titles[r.Title] = true
		for _, w := range r.Warnings {
			t.Error(w)
		}
	}
	set, refused := sigma.Compile(all, sigma.Options{})
	for _, r := range refused {
		t.Error(r)
	}
	for _, r := range set.Unmapped() {
		t.Errorf("%s: no event can reach it", r.Path)
	}
	for _, w := range set.Lint() {
		t.Errorf("%s: %s", w.Class, w)
	}
	err = fs.WalkDir(rules.Files(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".yml" {
			return err
		}
		data, err := fs.ReadFile(rules.Files(), path)
		for _, w := range sigma.CheckSchema(path, data) {
			t.Error(w)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestCases runs testdata/*.test against all rules together, so a case fails
// too when a rule fires that should not. Every rule needs an event that it finds
// and one of its log source that it leaves alone.
func TestCases(t *testing.T) {
	all, err := rules.All()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/*.test")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	tested := make(map[string]sigmatest.Tested)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		rep := sigmatest.Run(file, data, sigmatest.Options{Rules: all})
		for _, f := range rep.Failures {
			t.Error(f)
		}
		for key, n := range rep.Rules {
			sum := tested[key]
			sum.Yes, sum.No, sum.CannotTell = sum.Yes+n.Yes, sum.No+n.No, sum.CannotTell+n.CannotTell
			tested[key] = sum
		}
	}
	asked := make(map[string]bool) // by a correlation that is tested
	for _, r := range all {
		if r.Correlation != nil && tested[r.Key()].Yes > 0 {
			for _, name := range r.Correlation.Rules {
				asked[name] = true
			}
		}
	}
	for _, r := range all {
		n := tested[r.Key()]
		if r.Correlation != nil && (n.Yes > 0 || asked[r.Key()] || asked[r.Name]) {
			continue // a story finds nothing but what it names, in any order
		}
		if n.Yes == 0 || n.No == 0 {
			t.Errorf("%s: %d events that it finds and %d that it leaves alone, want one of each", r.Path, n.Yes, n.No)
		}
	}
}
