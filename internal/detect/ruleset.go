// Package detect asks the rules about events and turns their answers into
// findings. It owns the rule set as a document (a digest, the files under it) and
// the difference between a rule that says no and one that cannot tell, because an
// assessment hid the field. Correlation, anomalies and intelligence build on it.
//
// Detection sees tokenised events only. The same event, rule set and assessment
// give the same findings, live or replayed: a rule that must read a detect-only
// value is asked at the door, and its answer is sealed with the event.
package detect

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/sigma"
)

// File is one rule file.
type File struct {
	Path string `json:"path"`
	Data []byte `json:"data"`
}

// ReadFiles reads the Sigma files (.yml, .yaml) below the roots of a file system,
// each path prefixed, in a stable order.
func ReadFiles(fsys fs.FS, prefix string) ([]File, error) {
	var files []File
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() || !strings.HasSuffix(p, ".yml") && !strings.HasSuffix(p, ".yaml") {
			return nil
		}
		data, err := fs.ReadFile(fsys, p)
		if err != nil {
			return err
		}
		files = append(files, File{Path: path.Join(prefix, p), Data: data})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading rules: %w", err)
	}
	return files, nil
}

// RuleSet is a compiled set of rules and the document it came from. It is safe for
// concurrent use.
type RuleSet struct {
	digest  [32]byte
	blob    []byte
	set     *sigma.Set
	refused []*sigma.Refusal
	rules   map[[32]byte]*sigma.Rule
	fields  map[*sigma.Rule][]string

	bounds map[[32]byte]*Bound // by digest of the rule

	pool   sync.Pool // *scratch
	cannot map[*sigma.Rule]*atomic.Int64
}

// scratch is what one call of the matcher needs.
type scratch struct{ fields []sigma.Field }

// Bound says on which events a rule is asked: a rule that is in force under an
// authorisation alone. It is part of the document of the set, so that a replay is bound as
// the live run was.
type Bound struct {
	Rule    string    `json:"rule"`              // digest, in hexadecimal
	Until   time.Time `json:"until"`             // what was received then or later is not asked
	From    time.Time `json:"from,omitzero"`     // by the time of the event, as rules see it
	To      time.Time `json:"to,omitzero"`       // likewise
	Sources []string  `json:"sources,omitempty"` // none: all
}

// takes reports whether a rule is asked about an event.
func (b *Bound) takes(e *event.Event) bool {
	at := ruleTime(e)
	return time.Unix(0, e.Received).Before(b.Until) && !at.Before(b.From) && (b.To.IsZero() || !at.After(b.To)) &&
		(len(b.Sources) == 0 || slices.Contains(b.Sources, e.Source))
}

// asks reports whether a rule is asked about an event.
func (r *RuleSet) asks(rule *sigma.Rule, e *event.Event) bool {
	b := r.bounds[rule.Digest]
	return b == nil || b.takes(e)
}

// stored is the document of a set with bounds. Without any it is the list of files.
type stored struct {
	Files  []File  `json:"files"`
	Bounds []Bound `json:"bounds"`
}

// Compile makes a rule set of files. Rules that cannot be honoured are listed by
// Refused; they cost no other rule. Rules that bounds name are asked inside of them; one
// rule has one.
func Compile(files []File, bounds ...Bound) (*RuleSet, error) {
	sorted := append([]File(nil), files...)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].Path < sorted[j].Path })
	var document any = sorted
	if len(bounds) > 0 {
		bounds = slices.Clone(bounds)
		sort.Slice(bounds, func(i, j int) bool { return bounds[i].Rule < bounds[j].Rule })
		document = stored{sorted, bounds}
	}
	blob, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("storing the rule set: %w", err)
	}
	r := &RuleSet{digest: sha256.Sum256(blob), blob: blob, bounds: make(map[[32]byte]*Bound)}
	for i := range bounds {
		sum, err := hex.DecodeString(bounds[i].Rule)
		if err != nil || len(sum) != 32 || r.bounds[[32]byte(sum)] != nil || bounds[i].Until.IsZero() {
			return nil, fmt.Errorf("bound %d of a rule set: its rule is a digest that no other bound has, and it has an end", i+1)
		}
		r.bounds[[32]byte(sum)] = &bounds[i]
	}
	var rules []*sigma.Rule
	for _, f := range sorted {
		some, refused := sigma.Parse(f.Path, f.Data)
		rules = append(rules, some...)
		r.refused = append(r.refused, refused...)
	}
	set, refused := sigma.Compile(rules, sigma.Options{Mapping: sigma.DefaultMapping(), Opaque: event.NextToken})
	r.set = set
	r.refused = append(r.refused, refused...)
	r.rules = make(map[[32]byte]*sigma.Rule)
	r.fields = make(map[*sigma.Rule][]string)
	r.cannot = make(map[*sigma.Rule]*atomic.Int64)
	for _, rule := range set.Rules() {
		r.rules[rule.Digest] = rule
		r.fields[rule] = set.FieldsOf(rule)
		r.cannot[rule] = new(atomic.Int64)
	}
	r.pool.New = func() any { return new(scratch) }
	return r, nil
}

// FromBlob compiles a rule set from the document that Blob gave.
func FromBlob(blob []byte) (*RuleSet, error) {
	var s stored
	into := any(&s.Files)
	if bytes.HasPrefix(blob, []byte("{")) {
		into = &s
	}
	if err := json.NewDecoder(bytes.NewReader(blob)).Decode(into); err != nil {
		return nil, fmt.Errorf("reading a stored rule set: %w", err)
	}
	return Compile(s.Files, s.Bounds...)
}

// Digest is the SHA-256 of the document, in hexadecimal.
func (r *RuleSet) Digest() string { return hex.EncodeToString(r.digest[:]) }

// Blob is the document that FromBlob reads.
func (r *RuleSet) Blob() []byte { return r.blob }

// Rules lists the rules in force.
func (r *RuleSet) Rules() []*sigma.Rule { return r.set.Rules() }

// Refused lists the rules that cannot be honoured, each with its reason.
func (r *RuleSet) Refused() []*sigma.Refusal { return r.refused }

// Unmapped lists rules whose log source no mapping knows.
func (r *RuleSet) Unmapped() []*sigma.Rule { return r.set.Unmapped() }

// FieldsOf lists the native fields that a rule tests.
func (r *RuleSet) FieldsOf(rule *sigma.Rule) []string { return r.fields[rule] }

// Set is the compiled set, for callers that hold sigma events themselves.
func (r *RuleSet) Set() *sigma.Set { return r.set }

// CannotTell counts, by rule id, the events on which a rule could not be answered,
// since this rule set was compiled.
func (r *RuleSet) CannotTell() map[string]int64 {
	out := make(map[string]int64)
	for rule, n := range r.cannot {
		if v := n.Load(); v > 0 {
			out[rule.ID] = v
		}
	}
	return out
}
