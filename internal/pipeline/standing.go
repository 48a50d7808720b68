package pipeline

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/detect"
	"github.com/counterseal/counterseal/internal/state"
	"github.com/counterseal/counterseal/sigma"
)

// Standing is a rule of the configuration that selects somebody. It is an authorisation,
// and in force only while one covers it.
type Standing struct {
	Rule    *sigma.Rule
	Digest  string // SHA-256 of its document as it is written, in hexadecimal
	Text    []byte // the document
	Verdict access.Verdict
	Options access.Options // of the lists that it is judged with
}

// Ruling is what becomes of such a rule.
type Ruling struct {
	Authorisation string       // that covers it
	Text          []byte       // its document with aliases turned back
	Bound         detect.Bound // for how long and on what it is asked; its rule is filled in here
	// Code, Reason and Hint say why it is set aside; without a code it is in force.
	Code, Reason, Hint string
}

// Aside is a rule of the configuration that is not in force, and why. It names fields and
// no value.
type Aside struct {
	Digest string `json:"digest"` // of its document, as it is written
	Rule   string `json:"rule"`   // its id, or the digest
	Path   string `json:"path"`
	Line   int    `json:"line,omitempty"`
	Code   string `json:"code"`
	Reason string `json:"reason"`
	Hint   string `json:"hint,omitempty"`
}

// Held is a rule that is in force under an authorisation.
type Held struct {
	Digest        string       `json:"digest"` // of its document, as it is written
	Rule          string       `json:"rule"`   // its id, or the digest
	Authorisation string       `json:"authorisation"`
	Bound         detect.Bound `json:"bound"`
	text          []byte
}

// The codes of what this package sets aside by itself.
const (
	asideUncovered = "uncovered"
	asideFilter    = "filter"
	asideStandsOn  = "stands_on"
)

// forms is what became of the rules that select somebody.
type forms struct {
	aside []Aside
	held  []Held
	files []detect.File // those with any of both, as they are written
}

// stand judges each rule of the files. It gives the files as they come into force: what
// is set aside is cut out, so that its text, which may name somebody, is stored nowhere.
func (p *Pipeline) stand(ctx context.Context, files []detect.File, o access.Options) ([]detect.File, forms, error) {
	var st forms
	out := map[[32]byte]bool{}     // documents that are set aside
	texts := map[[32]byte][]byte{} // of documents that come into force in other words
	names := map[string]bool{}     // ids and names of what is set aside
	var correlations []*sigma.Rule
	setAside := func(r *sigma.Rule, code, reason, hint string) {
		if out[r.Digest] {
			return
		}
		out[r.Digest] = true
		names[strings.ToLower(r.ID)], names[r.Name] = true, true
		delete(names, "")
		st.aside = append(st.aside, Aside{Digest: hex.EncodeToString(r.Digest[:]), Rule: r.Key(), Path: r.Path, Line: r.Line, Code: code, Reason: reason, Hint: hint})
	}
	touched := map[string]bool{}
	for _, f := range files {
		rules, _ := sigma.Parse(f.Path, f.Data)
		var docs [][]byte
		for _, r := range rules {
			if r.Correlation != nil {
				correlations = append(correlations, r)
				continue
			}
			v := access.Standing(r, o)
			if v.Free() || out[r.Digest] || texts[r.Digest] != nil {
				touched[f.Path] = touched[f.Path] || out[r.Digest] || texts[r.Digest] != nil
				continue
			}
			touched[f.Path] = true
			if docs == nil {
				docs = sigma.Split(f.Data)
			}
			i := slices.IndexFunc(docs, func(d []byte) bool { return sha256.Sum256(d) == r.Digest })
			if i < 0 {
				return nil, st, fmt.Errorf("%s: the document of rule %s is not found", f.Path, r.Key())
			}
			s := Standing{Rule: r, Digest: hex.EncodeToString(r.Digest[:]), Text: docs[i], Verdict: v, Options: o}
			ruling, err := p.rule(ctx, &s)
			if err != nil {
				return nil, st, err
			}
			if ruling.Code != "" {
				setAside(r, ruling.Code, ruling.Reason, ruling.Hint)
				continue
			}
			texts[r.Digest] = ruling.Text
			sum := sha256.Sum256(ruling.Text)
			ruling.Bound.Rule = hex.EncodeToString(sum[:])
			if !slices.ContainsFunc(st.held, func(h Held) bool { return h.Bound.Rule == ruling.Bound.Rule }) {
				st.held = append(st.held, Held{Digest: s.Digest, Rule: r.Key(), Authorisation: ruling.Authorisation, Bound: ruling.Bound, text: ruling.Text})
			}
		}
	}
	// What correlates a rule that is set aside goes with it, and what correlates that.
	for again := true; again; {
		again = false
		for _, r := range correlations {
			if !out[r.Digest] && slices.ContainsFunc(r.Correlation.Rules, func(name string) bool { return names[name] || names[strings.ToLower(name)] }) {
				setAside(r, asideStandsOn, "it correlates a rule that is set aside", "")
				touched[r.Path], again = true, true
			}
		}
	}
	kept := make([]detect.File, 0, len(files))
	for _, f := range files {
		if touched[f.Path] {
			st.files = append(st.files, f)
			f.Data = rewritten(f.Data, out, texts)
		}
		if len(f.Data) > 0 || !touched[f.Path] {
			kept = append(kept, f)
		}
	}
	slices.SortFunc(st.aside, func(a, b Aside) int { return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line)) })
	slices.SortFunc(st.held, func(a, b Held) int { return cmp.Compare(a.Bound.Rule, b.Bound.Rule) })
	return kept, st, nil
}

// rule asks what covers one rule.
func (p *Pipeline) rule(ctx context.Context, s *Standing) (Ruling, error) {
	why := because(&s.Verdict)
	r := Ruling{Code: asideUncovered, Reason: "nothing here can cover a rule that selects somebody"}
	switch {
	case s.Rule.Filter && !s.Verdict.Protected:
		r = Ruling{Code: asideFilter, Reason: "a filter that selects somebody would spare them in every rule and for good", Hint: "say so in the one rule that an authorisation covers"}
	case p.standing != nil:
		var err error
		if r, err = p.standing(ctx, s); err != nil {
			return r, fmt.Errorf("judging rule %s: %w", s.Rule.Key(), err)
		}
	}
	if r.Code != "" && why != "" {
		r.Reason += " (" + why + ")"
	}
	return r, nil
}

// because says in a few words whom a rule selects: class, fields, and never a value.
func because(v *access.Verdict) string {
	var why []string
	for _, r := range v.Reasons[:min(len(v.Reasons), 3)] {
		why = append(why, strings.TrimSpace(r.Field+" "+r.Why))
	}
	if len(why) == 0 {
		return ""
	}
	return "it selects " + v.Class.String() + ": " + strings.Join(why, "; ")
}

// rewritten is a file without some documents and with others in other words. The rest
// keeps its bytes, and so its digests.
func rewritten(data []byte, out map[[32]byte]bool, texts map[[32]byte][]byte) []byte {
	var b []byte
	for _, d := range sigma.Split(data) {
		sum := sha256.Sum256(d)
		if out[sum] {
			continue
		}
		if t := texts[sum]; t != nil {
			d = t
		}
		b = append(b, d...)
	}
	return b
}

func (s *forms) bounds() []detect.Bound {
	out := make([]detect.Bound, len(s.held))
	for i := range s.held {
		out[i] = s.held[i].Bound
	}
	return out
}

// Standing lists the rules of the configuration that are set aside, and those that are in
// force under an authorisation.
func (p *Pipeline) Standing() ([]Aside, []Held) {
	p.policyMu.RLock()
	defer p.policyMu.RUnlock()
	return append([]Aside{}, p.policy.standing.aside...), append([]Held{}, p.policy.standing.held...)
}

// AsInForce gives rule files as they are in force: documents that are so under an
// authorisation in those words and inside of those bounds.
func (p *Pipeline) AsInForce(files []detect.File) ([]detect.File, []detect.Bound) {
	p.policyMu.RLock()
	st := p.policy.standing
	p.policyMu.RUnlock()
	if len(st.held) == 0 {
		return files, nil
	}
	texts := map[[32]byte][]byte{}
	for i := range st.held {
		if sum, err := hex.DecodeString(st.held[i].Digest); err == nil {
			texts[[32]byte(sum)] = st.held[i].text
		}
	}
	out := slices.Clone(files)
	for i := range out {
		if docs := sigma.Split(out[i].Data); slices.ContainsFunc(docs, func(d []byte) bool { return texts[sha256.Sum256(d)] != nil }) {
			out[i].Data = rewritten(out[i].Data, nil, texts)
		}
	}
	return out, st.bounds()
}

// Stand judges the rules in force, and those that are set aside, anew: when an
// authorisation was given or has ended. Nothing happens where the answer is the old one.
func (p *Pipeline) Stand(ctx context.Context) error {
	p.documentsMu.Lock()
	defer p.documentsMu.Unlock()
	p.policyMu.RLock()
	pol := p.policy
	p.policyMu.RUnlock()
	if len(pol.standing.aside)+len(pol.standing.held) == 0 {
		return nil
	}
	// The other files hold nothing that could be answered otherwise.
	_, st, err := p.stand(ctx, pol.standing.files, pol.asking())
	if err != nil || reflect.DeepEqual(st.aside, pol.standing.aside) && reflect.DeepEqual(st.held, pol.standing.held) {
		return err
	}
	return p.setDocuments(ctx, pol.from)
}

// stateStanding states what is set aside, what is in force under an authorisation and
// what is so no more, each once. The key is the digest of the document as it is written.
func (p *Pipeline) stateStanding(ctx context.Context, st *forms) error {
	newest := map[string]state.Fact{}
	for _, kind := range []string{"standing.aside", "standing.begun", "standing.ended"} {
		facts, err := p.recorder.Facts(ctx, kind)
		if err != nil {
			return err
		}
		for _, f := range facts {
			if f.Index >= newest[f.Key].Index {
				newest[f.Key] = f
			}
		}
	}
	type detail struct {
		Authorisation string `json:"authorisation,omitempty"`
		Reason        string `json:"reason,omitempty"`
		Rule          string `json:"rule,omitempty"` // digest in force, with aliases turned back
		Until         string `json:"until,omitempty"`
	}
	said := func(key, kind string) (d detail, ok bool) {
		f := newest[key]
		ok = f.Kind == kind && json.Unmarshal(f.Detail, &d) == nil
		return d, ok
	}
	record := func(kind, key string, d detail) error {
		_, err := p.recorder.Record(ctx, attest.Act{Kind: kind, Actor: attest.System, Subject: []string{key}, Detail: d})
		return err
	}
	held, aside := map[string]bool{}, map[string]string{}
	for i := range st.held {
		held[st.held[i].Digest] = true
	}
	for i := range st.aside {
		aside[st.aside[i].Digest] = st.aside[i].Code
	}
	for _, key := range sortedKeys(newest) {
		if d, ok := said(key, "standing.begun"); ok && !held[key] {
			if err := record("standing.ended", key, detail{Authorisation: d.Authorisation, Reason: cmp.Or(aside[key], "removed")}); err != nil {
				return err
			}
		}
	}
	for i := range st.aside {
		a := &st.aside[i]
		if d, ok := said(a.Digest, "standing.aside"); ok && d.Reason == a.Code {
			continue
		}
		if err := record("standing.aside", a.Digest, detail{Reason: a.Code}); err != nil {
			return err
		}
	}
	for i := range st.held {
		h := &st.held[i]
		want := detail{Authorisation: h.Authorisation, Rule: h.Bound.Rule, Until: h.Bound.Until.UTC().Format(time.RFC3339)}
		if d, ok := said(h.Digest, "standing.begun"); ok && d == want {
			continue
		}
		if err := record("standing.begun", h.Digest, want); err != nil {
			return err
		}
	}
	return nil
}

// maxAsideShown bounds the rules that doctor names one by one.
const maxAsideShown = 10

// checks says which rules are set aside and which are in force under an
// authorisation, by id and reason.
func (st *forms) checks(now time.Time, add func(name, state, text, hint string)) {
	for i := range st.aside[:min(len(st.aside), maxAsideShown)] {
		a := &st.aside[i]
		add("standing", "warn", "rule "+a.Rule+" is set aside: "+a.Reason, a.Hint)
	}
	if n := len(st.aside); n > maxAsideShown {
		add("standing", "warn", fmt.Sprintf("%d rules are set aside, and %d of them are named here", n, maxAsideShown), "counterseal rules check")
	}
	for i := range st.held {
		h := &st.held[i]
		until := h.Bound.Until.UTC().Format(time.RFC3339)
		if !now.Before(h.Bound.Until) {
			add("standing", "warn", "rule "+h.Rule+" has found nothing since "+until+", when authorisation "+h.Authorisation+" ended", "")
			continue
		}
		add("standing", "ok", "rule "+h.Rule+" is in force under authorisation "+h.Authorisation+" until "+until, "")
	}
}
