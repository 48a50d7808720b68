package sigma_test

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/event"
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

// TestPublicRulesLint holds what Lint says of the public rules. Each of the 41
// needless parts was read by a person and is one.
func TestPublicRulesLint(t *testing.T) {
	rules, _ := packRules(t)
	set, _ := sigma.Compile(rules, sigma.Options{Opaque: event.NextToken})
	start := time.Now()
	counts := make(map[sigma.Class]int)
	said := make(map[string]bool)
	for _, w := range set.Lint() {
		counts[w.Class]++
		said[filepath.Base(w.Path)+" "+w.Text] = true
	}
	t.Logf("%v after %v", counts, time.Since(start))
	dear := counts[sigma.ClassCost] // what is dear depends on the index
	delete(counts, sigma.ClassCost)
	if want := map[sigma.Class]int{sigma.ClassDead: 41}; !maps.Equal(counts, want) || dear < 17 || dear > 30 {
		t.Errorf("%v, want %v, and %d dear rules", counts, want, dear)
	}
	for _, want := range []string{
		// "1 of selection_parent_* and selection_parent_ext": the pattern takes in the other one.
		`proc_creation_win_pua_pingcastle_script_parent.yml the search identifier "selection_parent_path_1" makes no difference to the rule, whatever it asks: the others decide`,
		// A path that ends with .evtx and with \Logs\.
		`file_event_win_create_evtx_non_common_locations.yml the search identifier "filter_main_baseimage" makes no difference to the rule, unless the field TargetFilename occurs more than once in an event: its answer follows from "selection"`,
		`proc_creation_win_wmic_recon_service.yml the search identifier "filter_main_manipulation" makes no difference to the rule: its answer follows from "filter_main_win32_methods"`,
		// The exact image \SystemResetPlatform.exe is in no folder.
		`image_load_side_load_rjvplatform_non_default_location.yml the search identifier "filter_main_legit_path" makes no difference to the rule, unless the field Image occurs more than once in an event: its answer follows from "selection"`,
		`win_alert_mimikatz_keywords.yml looks for its keywords in every value of every event of windows: a category or a service in logsource would spare the others`,
		`proc_creation_win_powershell_token_obfuscation.yml is asked of every event of windows process_creation that has the field CommandLine or holds "-f" in CommandLine, because it needs no text of 3 bytes or more; each time it may run 3 regular expressions`,
	} {
		if !said[want] {
			t.Errorf("nothing says %s", want)
		}
	}
}
