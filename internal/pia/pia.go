// Package pia reads Privacy Impact Assessments as code (pia/v1) and answers the
// one question that opens the gate: may this source, with these fields, be
// collected now, and what becomes of each field.
//
// It promises that a file is read strictly (unknown field, anchor, tag, duplicate
// key: an error with its line), that only a published assessment of kind PIA that
// is in effect opens the gate, that a field which no line names is dropped, and
// that the categories biometric, precise-location and content are refused whatever
// the action. It is pure: no clock, no file, no network.
//
// It does not verify signatures, the bytes behind a publication address, or the
// ATO register: those need keys and registers that live elsewhere. Unsigned says
// so, and whoever shows the state of a source must show it too.
//
// The schema is pia.schema.json beside this file; pia_test.go compares it with the
// shared copy.
package pia

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// Action is what becomes of a field.
type Action uint8

// The actions, from nothing kept to everything kept. The zero value drops, so that
// a forgotten assignment cannot keep a field.
const (
	Drop Action = iota
	Truncate
	HashKeyed
	DetectOnly
	Tokenise
	Allow
)

var actionNames = [...]string{"drop", "truncate", "hash-keyed", "detect-only", "tokenise", "allow"}

func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return fmt.Sprintf("action %d", uint8(a))
}

func parseAction(s string) (Action, bool) {
	for i, n := range actionNames {
		if n == s {
			return Action(i), true
		}
	}
	return Drop, false
}

// PIA is one assessment as written, after Parse. Its fields are those of the
// schema that Counterseal acts on or shows.
type PIA struct {
	Kind       string   `json:"kind"`
	ID         string   `json:"id"`
	Version    int      `json:"version"`
	Supersedes string   `json:"supersedes"`
	Title      string   `json:"title"`
	Summary    string   `json:"summary"`
	System     System   `json:"system"`
	SORN       []string `json:"sorn"`

	Authority []struct {
		Citation string `json:"citation"`
		URL      string `json:"url"`
	} `json:"authority"`
	Purposes []Purpose `json:"purposes"`
	Sources  []Source  `json:"sources"`
	Subjects []Subject `json:"subjects"`
	Sharing  []Sharing `json:"sharing"`
	Notice   Notice    `json:"notice"`

	Access struct {
		Compartments []string `json:"compartments"`
		Roles        []string `json:"roles"`
	} `json:"access"`
	Aggregation struct {
		JoinKeys       []string `json:"join_keys"`
		MaxHazard      float64  `json:"max_hazard"`
		ForbiddenJoins []string `json:"forbidden_joins"`
	} `json:"aggregation"`
	Risks       []Risk      `json:"risks"`
	Approval    Approval    `json:"approval"`
	Publication Publication `json:"publication"`

	Effective string `json:"effective"`
	Expires   string `json:"expires"`

	path     string
	digest   [32]byte
	from     time.Time // first moment in effect
	until    time.Time // first moment after the last day
	problems []Problem
	rules    []*Rule // one per source, nil where the document has errors
}

// System is the information system that the assessment is about.
type System struct {
	ID      string `json:"id"`
	Owner   string `json:"owner"`
	HVA     bool   `json:"hva"`
	SSPUUID string `json:"ssp_uuid"`
	ATO     string `json:"ato"`
}

// Purpose is a reason for which data may be looked at.
type Purpose struct {
	ID         string   `json:"id"`
	Statement  string   `json:"statement"`
	Prohibited []string `json:"prohibited"`
}

// Subject is a kind of people that the assessment is about.
type Subject struct {
	Category string `json:"category"` // employee, contractor, and so on: the schema has them
	Estimate int    `json:"estimate"` // how many; 0: not said
}

// Notice is what those people are told, and whom they turn to.
type Notice struct {
	How                string `json:"how"`
	URL                string `json:"url"`
	Consent            string `json:"consent"` // not-applicable, opt-out, opt-in, or empty
	DeclineConsequence string `json:"decline_consequence"`
	Redress            string `json:"redress"`
}

// Sharing names a recipient outside and the fields it gets.
type Sharing struct {
	Recipient string   `json:"recipient"`
	Kind      string   `json:"kind"`
	Purpose   string   `json:"purpose"`
	Agreement string   `json:"agreement"`
	Fields    []string `json:"fields"`
}

// Risk is a risk that the assessment accepts or works on.
type Risk struct {
	Risk       string `json:"risk"`
	Mitigation string `json:"mitigation"`
	Residual   string `json:"residual"`
	POAM       string `json:"poam"`
}

// Approval lists who signed.
type Approval struct {
	Threshold int      `json:"threshold"`
	Signers   []Signer `json:"signers"`
}

// Signer is one signature as written; nobody has verified it yet.
type Signer struct {
	Role     string `json:"role"`
	Name     string `json:"name"`
	KeyID    string `json:"key_id"`
	Sig      string `json:"sig"`
	SignedAt string `json:"signed_at"`
}

// Publication says where the public can read it.
type Publication struct {
	Status      string `json:"status"`
	URL         string `json:"url"`
	Digest      string `json:"digest"`
	PublishedAt string `json:"published_at"`
}

// Source is one source that the assessment covers.
type Source struct {
	Selector struct {
		Source    string `json:"source"`
		Dataset   string `json:"dataset"`
		Collector string `json:"collector"`
	} `json:"selector"`
	Fields          []Field  `json:"fields"`
	RetentionDays   int      `json:"retention_days"`
	RecordsSchedule string   `json:"records_schedule"`
	Disposition     string   `json:"disposition"`
	Compartment     string   `json:"compartment"`
	MaxEventsPerDay int64    `json:"max_events_per_day"`
	Purposes        []string `json:"purposes"`
	OriginalDays    *int     `json:"original_days"`
	OriginalReason  string   `json:"original_justification"`
	TimeZone        string   `json:"time_zone"`
	LatenessMinutes *int     `json:"lateness_minutes"`
}

// Field is one line of a source: a path and what becomes of it.
type Field struct {
	Path          string `json:"path"`
	Action        string `json:"action"`
	Category      string `json:"category"`
	Sensitive     bool   `json:"sensitive"`
	Arg           any    `json:"arg"`
	Justification string `json:"justification"`
	Unlinkable    bool   `json:"unlinkable"`
}

// Level says what a problem does.
type Level uint8

// The levels of a problem.
const (
	Error       Level = iota // the gate stays shut
	Warning                  // the gate opens; a person should look
	CannotJudge              // the gate opens; what would be needed to judge is not here
)

func (l Level) String() string {
	return [...]string{"error", "warning", "cannot-judge"}[min(l, CannotJudge)]
}

// Problem is one thing wrong with a file. Codes are stable; docs/formats names them.
type Problem struct {
	Code    string
	Level   Level
	File    string // as given to Parse
	Path    string // where in the document, such as sources.0.fields.2.path
	Line    int    // from 1; 0 where the whole file is meant
	Message string
}

func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	fmt.Fprintf(&b, ": %s: ", p.Level)
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	fmt.Fprintf(&b, "%s [%s]", p.Message, p.Code)
	return b.String()
}

// File is the name that was given to Parse.
func (p *PIA) File() string { return p.path }

// Digest is the SHA-256 of the canonical body (RFC 8785): the document less the
// signatures and less the address, digest and time of its publication, which come
// later than the signatures.
func (p *PIA) Digest() [32]byte { return p.digest }

// Name is id, version and digest in the form that a batch card keeps.
func (p *PIA) Name() string {
	return fmt.Sprintf("%s@%d sha256:%s", p.ID, p.Version, hex.EncodeToString(p.digest[:]))
}

// Problems are those that Parse returned.
func (p *PIA) Problems() []Problem { return p.problems }

// Valid reports whether the document has no error. A valid document opens the gate
// only where Opens says so too.
func (p *PIA) Valid() bool { return p.rules != nil }

// Unsigned reports that no signature of the document has been verified. That is
// always so: this version verifies none, and whoever shows the state of a source
// says "unsigned".
func (p *PIA) Unsigned() bool { return true }

// Opens says whether the document opens the gate at a moment, and if not, why and
// what to do.
func (p *PIA) Opens(at time.Time) (ok bool, why, hint string) {
	switch {
	case !p.Valid():
		return false, "it has errors", "run counterseal pia check " + p.path
	case p.Kind != "PIA":
		return false, "its kind is " + p.Kind + ", and only a PIA opens the gate", "finish the assessment as kind PIA and publish it"
	case p.Publication.Status != "published":
		return false, "its publication status is " + p.Publication.Status + ", and only published opens the gate", "publish it, then set publication.status to published with url, digest and published_at"
	case at.Before(p.from):
		return false, "it is in effect from " + p.Effective, "wait until then, or publish a new version with an earlier date"
	case !at.Before(p.until):
		return false, "it expired on " + p.Expires, "publish a new version with a later expiry"
	}
	return true, "", ""
}

// opens is Opens without the words, for the way of every record.
func (p *PIA) opens(at time.Time) bool {
	return p.Valid() && p.Kind == "PIA" && p.Publication.Status == "published" && !at.Before(p.from) && at.Before(p.until)
}

// Dates gives the problems that depend on the day: expired, not yet in effect, and
// the warnings 90, 60, 30 and 7 days before the end.
func (p *PIA) Dates(at time.Time) []Problem {
	if p.from.IsZero() || p.until.IsZero() {
		return nil
	}
	one := func(l Level, code, path, format string, args ...any) []Problem {
		return []Problem{{Code: code, Level: l, File: p.path, Path: path, Message: fmt.Sprintf(format, args...)}}
	}
	if at.Before(p.from) {
		return one(Warning, "not_effective", "effective", "in effect from %s", p.Effective)
	}
	if !at.Before(p.until) {
		return one(Error, "expired", "expires", "expired on %s: collection has stopped; publish a new version", p.Expires)
	}
	left := int(p.until.Sub(at).Hours() / 24)
	for _, days := range []int{7, 30, 60, 90} {
		if left < days {
			return one(Warning, fmt.Sprintf("expires_in_%d", days), "expires", "%d days left, then collection stops: prepare a new version", left)
		}
	}
	return nil
}
