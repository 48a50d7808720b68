package sigma_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/counterseal/counterseal/sigma/sigmatest"
)

// TestCases runs testdata/*.test. The form of a file is described in sigmatest.
func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/*.test")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			rep := sigmatest.Run(file, data, sigmatest.Options{})
			for _, f := range rep.Failures {
				t.Error(f)
			}
			if rep.Events+rep.Refused == 0 {
				t.Error("the file holds no case")
			}
		})
	}
}
