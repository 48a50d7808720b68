package parse

import (
	"strings"
	"testing"

	"github.com/counterseal/counterseal/internal/pia"
)

func TestDatasets(t *testing.T) {
	actions := map[string]bool{"allow": true, "drop": true, "tokenise": true, "truncate": true, "hash-keyed": true, "detect-only": true}
	categories := map[string]bool{"": true, "person": true, "mail": true, "device": true, "address": true, "phone": true, "text": true, "command": true, "url": true, "content": true, "location": true}
	want := []string{"win-security", "win-sysmon", "win-powershell", "win-system", "win-defender", "win-taskscheduler", "win-other",
		"linux-sshd", "linux-sudo", "linux-auth", "firewall", "syslog", "linux-auditd", "zeek-conn", "zeek-dns", "zeek-http", "zeek-ssl", "zeek-ssh", "zeek-smb",
		"zeek-other", "signin", "okta", "entra-signin", "mdm-device", "cloudtrail", "json"}
	for _, name := range want {
		if find(name) == nil {
			t.Errorf("no dataset %s", name)
		}
	}
	for _, fm := range Formats() {
		for _, d := range fm.Datasets {
			seen := map[string]bool{}
			for _, f := range d.Fields {
				if seen[f.Path] {
					t.Errorf("%s: %s stands twice", d.Name, f.Path)
				}
				seen[f.Path] = true
				if !actions[f.Action] || !categories[f.Category] {
					t.Errorf("%s: %s: action %q, category %q", d.Name, f.Path, f.Action, f.Category)
				}
				if f.Action == "allow" && f.Reason == "" && (f.Category != "" && f.Category != "address" && f.Category != "device") ||
					f.Action == "detect-only" && f.Reason == "" ||
					f.Action == "drop" && f.Reason == "" {
					t.Errorf("%s: %s: %s of %q needs a reason", d.Name, f.Path, f.Action, f.Category)
				}
				if f.Action != "drop" && f.Reason == "" && pia.IsFreeText(f.Path) {
					t.Errorf("%s: %s: an assessment asks for a justification", d.Name, f.Path)
				}
				switch f.Category {
				case "content", "location":
					if f.Action != "drop" {
						t.Errorf("%s: %s: %s is always dropped", d.Name, f.Path, f.Category)
					}
				case "person", "mail":
					if f.Action == "allow" {
						t.Errorf("%s: %s: a person in clear", d.Name, f.Path)
					}
				}
				if strings.ContainsAny(f.Path, " *") {
					t.Errorf("%s: path %q", d.Name, f.Path)
				}
			}
		}
	}
}

// TestSampleFieldsAreProposed finds fields of our own samples for which a
// template has no proposal.
func TestSampleFieldsAreProposed(t *testing.T) {
	for _, format := range []string{"sshd", "sudo", "auth", "firewall", "signin", "mdm", "cloudtrail", "okta", "entra-signin", "zeek-json", "nxlog", "winlogbeat"} {
		for _, r := range sample(t, format) {
			d := find(r.Dataset)
			have := map[string]bool{}
			for _, f := range d.Fields {
				have[f.Path] = true
			}
			for _, f := range r.Fields {
				switch f.Name {
				case "detail", "tos", "ttl", "id", "offset", "class", "flow", "hop_limit", "sd.meta.sequenceId", "@system", // pf's own, Corelight's own
					"Empty", "Nothing", "EventData.Version", "UserData.Channel", "ThreatName", "requestParameters.tags", "properties.createdDateTime": // made up for the sample
					continue
				}
				if !have[f.Name] {
					t.Errorf("%s: no proposal for %s", r.Dataset, f.Name)
				}
			}
		}
	}
}
