package pia

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Draft is what a first assessment is written from: the fields that a parser
// gives, and whatever is known already of the rest. What is left empty becomes a
// marked place that a person fills in; until then the document has an error for
// each, so a draft never opens the gate by itself.
type Draft struct {
	ID           string // such as PIA-SIEM-2026-001
	Title        string
	Owner        string
	ATO          string
	SSP          string // UUID of the system security plan
	Authority    string
	Purpose      string // statement of the one purpose, intrusion-detection
	Notice       string
	Redress      string
	Schedule     string // records schedule
	Signers      []Signer
	Publication  Publication
	Effective    time.Time
	Expires      time.Time
	MaxHazard    int
	OriginalDays int // 0: the default of the schema; -1: none

	Sources []DraftSource
}

// DraftSource is one source entry of a draft.
type DraftSource struct {
	Source, Dataset string
	Title           string // for the comment
	Compartment     string
	RetentionDays   int
	Zone            string
	Fields          []DraftField
}

// DraftField is one field that a parser gives, with what it proposes.
type DraftField struct {
	Path, Category, Action, Reason string
}

const fill = "<" + placeholder + ": "

// YAML prints the draft with a comment at every decision.
func (d Draft) YAML() []byte {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	text := func(have, ask string) string {
		if have == "" {
			have = fill + ask + ">"
		}
		return quote(have)
	}
	date := func(t time.Time, ask string) string {
		if t.IsZero() {
			return quote(fill + ask + ">")
		}
		return quote(t.UTC().Format(time.DateOnly))
	}

	line("# A privacy impact assessment as code. The gate reads this file: a source that no")
	line("# published assessment covers is refused, and a field without a line is dropped.")
	line("# Every <%s: ...> is for a person. Until all are there, the gate stays shut.", placeholder)
	line("# Check with: counterseal pia check FILE")
	line("apiVersion: pia/v1")
	line("kind: PIA                # only a PIA opens the gate; PTA and AdaptedPIA do not")
	line("id: %s", text(d.ID, "PIA-SYSTEM-YEAR-001"))
	line("version: 1               # raise with every change; a lower or equal one is refused")
	line("title: %s", text(d.Title, "what is collected, in a few words"))
	line("system:")
	line("  id: siem")
	line("  owner: %s", text(d.Owner, "the office that answers for the system"))
	line("  ssp_uuid: %s", text(d.SSP, "UUID of the system security plan"))
	line("  ato: %s", text(d.ATO, "the authorisation to operate"))
	line("authority:               # the law that lets you collect this")
	line("  - citation: %s", text(d.Authority, "such as 44 U.S.C. 3554(b)"))
	line("purposes:                # every look at a person names one of these")
	line("  - id: intrusion-detection")
	line("    statement: %s", text(d.Purpose, "why, in a sentence that the people concerned would understand"))
	line("    prohibited: [performance management, union activity]")
	line("subjects:")
	line("  - category: employee")
	line("sources:")
	var compartments, join []string
	for _, s := range d.Sources {
		if s.Compartment == "" {
			s.Compartment = "default"
		}
		if s.RetentionDays == 0 {
			s.RetentionDays = 365
		}
		if !slices.Contains(compartments, s.Compartment) {
			compartments = append(compartments, s.Compartment)
		}
		if s.Title != "" {
			line("  # %s", oneLine(s.Title))
		}
		line("  - selector:")
		line("      source: %s", text(s.Source, "name of the source in counterseal.yaml"))
		if s.Dataset != "" {
			line("      dataset: %s", quote(s.Dataset))
		}
		line("    default: drop        # the only legal value")
		line("    fields:")
		kept := 0
		seen := map[string]bool{}
		for _, f := range s.Fields {
			if seen[f.Path] || checkPath(f.Path) != "" {
				continue
			}
			seen[f.Path] = true
			if categoryRefused(f.Category) || f.Category == "location" {
				line("      # %s is never collected: %s", quote(f.Path), oneLine(f.Reason))
				continue
			}
			kept += d.field(line, f)
			if f.Action == "tokenise" && f.Category == "person" && !slices.Contains(join, f.Path) {
				join = append(join, f.Path)
			}
		}
		if kept == 0 {
			line("      # No field is proposed. An entry needs one line at least.")
			line("      - {path: %s, action: drop}", quote(fill+"a field to keep>"))
		}
		line("    retention_days: %d", s.RetentionDays)
		line("    records_schedule: %s", text(d.Schedule, "a records officer names the item"))
		line("    disposition: crypto-shred")
		line("    compartment: %s   # its own key, index and retention", quote(s.Compartment))
		line("    purposes: [intrusion-detection]")
		if d.OriginalDays != 0 {
			line("    original_days: %d     # bytes as received, sealed to two officers; 0 keeps none", max(d.OriginalDays, 0))
		} else {
			line("    # original_days: 30  bytes as received, sealed to two officers; 0 keeps none")
		}
		if s.Zone != "" {
			line("    time_zone: %s   # for times without a zone", quote(s.Zone))
		}
	}
	line("sharing: []              # every recipient outside, with its agreement")
	line("notice:")
	line("  how: %s", text(d.Notice, "how the people concerned were told"))
	line("  redress: %s", text(d.Redress, "whom they can ask"))
	line("access:")
	line("  compartments: [%s]", strings.Join(quoteAll(compartments), ", "))
	line("  audit: true")
	line("aggregation:             # fields by which records of one person may be joined")
	line("  join_keys: [%s]", strings.Join(quoteAll(join), ", "))
	line("  max_hazard: %d", d.MaxHazard)
	line("risks:")
	line("  - risk: function creep")
	line("    mitigation: every look names a purpose and leaves a statement that nobody can erase")
	line("    residual: low")
	line("approval:                # two persons with two keys; one is the SAOP or CPO")
	line("  threshold: 2")
	line("  signers:")
	signers := d.Signers
	if len(signers) == 0 {
		signers = []Signer{{Role: "SAOP"}, {Role: "CISO"}}
	}
	for i, s := range signers {
		n := strconv.Itoa(i + 1)
		line("    - role: %s", s.Role)
		line("      name: %s", text(s.Name, "office holder "+n))
		line("      key_id: %s", text(s.KeyID, "key "+n))
		line("      sig: %s", text(s.Sig, "signature "+n))
		if s.SignedAt != "" {
			line("      signed_at: %s", quote(s.SignedAt))
		}
	}
	line("publication:             # published is the only status that opens the gate")
	line("  status: published")
	line("  url: %s", text(d.Publication.URL, "where the public reads it"))
	line("  digest: %s", text(d.Publication.Digest, "sha256:... of the published text"))
	line("  published_at: %s", text(d.Publication.PublishedAt, "time of publication"))
	line("effective: %s", date(d.Effective, "first day"))
	line("expires: %s           # at most three years later; then collection stops", date(d.Expires, "last day"))
	return []byte(b.String())
}

// field prints one line and says whether it keeps anything.
func (d Draft) field(line func(string, ...any), f DraftField) int {
	a, ok := parseAction(f.Action)
	if !ok {
		a = Drop
	}
	var b strings.Builder
	fmt.Fprintf(&b, "      - {path: %s, action: %s", quote(f.Path), a)
	if f.Category != "" {
		fmt.Fprintf(&b, ", category: %s", quote(f.Category))
	}
	reason := oneLine(f.Reason)
	if a == Truncate {
		arg := 64
		if f.Category == "address" {
			arg = 24
		}
		fmt.Fprintf(&b, ", arg: %d", arg)
	}
	if a != Drop && IsFreeText(f.Path) {
		if reason == "" {
			reason = fill + "why this text is needed>"
		}
		fmt.Fprintf(&b, ", justification: %s}", quote(reason))
		reason = ""
	} else {
		b.WriteString("}")
	}
	if reason != "" {
		b.WriteString("   # " + reason)
	}
	line("%s", b.String())
	if a == Drop {
		return 0
	}
	return 1
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// quote prints a JSON text, which YAML reads as the same text.
func quote(s string) string { return string(appendCanonicalText(nil, s)) }

func quoteAll(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = quote(s)
	}
	return out
}
