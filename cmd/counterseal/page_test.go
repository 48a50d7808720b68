package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPrivacyOfficersPage: what the page for privacy officers shows of `policy test` is what
// it prints.
func TestPrivacyOfficersPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/for-privacy-officers.md")
	if err != nil {
		t.Fatal(err)
	}
	prints := func(args ...string) string {
		var out bytes.Buffer
		run(t.Context(), &environment{stdin: strings.NewReader(""), stdout: &out, stderr: &out}, args)
		return out.String()
	}
	told := func(text string) {
		t.Helper()
		for line := range strings.Lines(strings.TrimSpace(text)) {
			if line = strings.TrimSpace(line); !strings.Contains(string(page), "    "+line+"\n") {
				t.Errorf("the page does not show:\n%s", line)
			}
		}
	}
	told(prints("policy", "test"))

	mine := filepath.Join(t.TempDir(), "mine")
	prints("policy", "export", mine)
	f, err := os.OpenFile(filepath.Join(mine, "roles.cedar"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("\n@id(\"analysts-see-all\")\npermit (principal in Role::\"analyst\", action in Action::\"events.read\", resource);\n"); err != nil {
		t.Fatal(err)
	}
	got := prints("policy", "test", mine)
	told(regexp.MustCompile(`(?m)^.*a scope may name a group.*$`).FindString(got))
	told(regexp.MustCompile(`(?m)^no case expects.*$`).FindString(got))
	told(regexp.MustCompile(`(?m)^\d+ cases, .*$`).FindString(got))
	if t.Failed() {
		t.Log(got)
	}
}
