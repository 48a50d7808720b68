package pipeline

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/counterseal/counterseal/internal/detect"
	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/parse"
	"github.com/counterseal/counterseal/internal/pia"
	"github.com/counterseal/counterseal/sigma"
)

// Check is one answer of doctor.
type Check struct {
	Name  string `json:"name"`
	State string `json:"state"` // ok, warn, fail
	Text  string `json:"text"`
	Hint  string `json:"hint,omitempty"`
}

// Doctor says what a person should know about the state of the system: what is
// wrong, what is not promised yet, and what the assessments hide from the rules.
// Thorough reads the whole ledger to compare the state with it.
func (p *Pipeline) Doctor(ctx context.Context, thorough bool) []Check {
	var out []Check
	add := func(name, state, text, hint string) {
		out = append(out, Check{Name: name, State: state, Text: text, Hint: hint})
	}
	p.policyMu.RLock()
	pol, problems := p.policy, p.problems
	p.policyMu.RUnlock()

	if free, err := durable.Free(p.dir); err != nil {
		add("disk", "fail", "free space cannot be read", "check the data disk")
	} else if free < p.reserve {
		add("disk", "fail", fmt.Sprintf("%d MiB are free and %d MiB are the reserve: nothing is accepted", free>>20, p.reserve>>20), "free space or lower `reserve`")
	} else {
		add("disk", "ok", fmt.Sprintf("%d MiB are free", free>>20), "")
	}
	recovered := p.evidence.Recovered()
	for _, r := range recovered {
		add("recovery", "warn", r.String(), "")
	}
	p.damageMu.Lock()
	for _, d := range p.damage {
		add("evidence", "fail", d, "counterseal verify names what was altered; restore the segment from a copy")
	}
	p.damageMu.Unlock()
	for _, d := range p.index.Damaged() {
		add("index", "warn", fmt.Sprintf("the index of %s %s was damaged and is made again: %s", d.Compartment, d.Week, d.Reason), "")
	}

	p.watchChecks(ctx, thorough, add)

	now := p.now()
	pias := pol.pias.PIAs()
	if len(pias) == 0 {
		add("assessments", "warn", "no assessment is in force, so nothing is collected", "counterseal pia draft --sample FILE")
	}
	var unsigned []string
	for _, a := range pias {
		if a.Unsigned() {
			unsigned = append(unsigned, a.ID)
		}
		for _, d := range a.Dates(now) {
			add("assessments", stateOf(d.Level), d.String(), "publish a new version before collection stops")
		}
	}
	if len(unsigned) > 0 {
		verb := map[bool]string{true: "is", false: "are"}[len(unsigned) == 1]
		add("assessments", "warn", listed(unsigned)+" "+verb+" unsigned: signatures are not checked yet", "")
	}
	for _, text := range together(problems) {
		add("documents", "warn", text, "")
	}
	if pol.protected.Digest() == "" {
		add("protected", "warn", "no protected channel is named", "name the inspector general, counsel, press and the like in the file `protected`")
	}
	p.vaultChecks(ctx, thorough, add)
	if hasOriginals(p.evidence.Compartments(evidence.Originals)) && !p.escrow {
		add("originals", "warn", "originals are sealed to this server, not to two officers", "name the officers in the file `officers`")
	} else if n := p.compare(ctx, thorough).unsealed; n > 0 {
		add("originals", "warn", fmt.Sprintf("%d segments of originals are from before there were officers: whoever has the keyring opens them", n),
			"they stay so until their retention ends; put the keyring under a passphrase: counterseal keys seal")
	}
	blind := p.blind(pol, now)
	if len(blind) > 0 {
		rules := map[string]bool{}
		for _, b := range blind {
			rules[b.Rule] = true
		}
		add("rules", "warn", fmt.Sprintf("%d of %d rules read fields that an assessment hides", len(rules), len(pol.rules.Rules())), "counterseal rules check")
	}
	if n := len(pol.rules.Refused()); n > 0 {
		add("rules", "warn", fmt.Sprintf("%d rules are refused", n), "counterseal rules check")
	}
	pol.standing.checks(now, add)
	if err := p.followError(); err != nil {
		add("streams", "fail", "the event streams are not being read", "restart; if it persists, counterseal rebuild")
	}
	for _, text := range p.today.over() {
		add("volume", "warn", text, "assess the volume anew, or find out what has changed")
	}
	for source, n := range p.repeats(ctx) {
		add("repeats", "warn", fmt.Sprintf("%d records of %s may be there twice: their acknowledgement was lost", n, source), "")
	}
	for _, r := range p.Refused() {
		add("refused", "warn", fmt.Sprintf("%d records of %s %s were refused for want of an assessment", r.N, r.Source, r.Dataset), "counterseal pia draft --source "+r.Source+" --sample FILE")
	}
	return out
}

// listed names up to five things, and how many more there are.
func listed(names []string) string {
	const most = 5
	if n := len(names) - most; n > 0 {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", n)
	}
	return strings.Join(names, ", ")
}

// together says a problem of several documents once.
func together(problems []Problem) []string {
	var texts []string
	where := make(map[string][]string)
	for _, pr := range problems {
		place, text := pr.Document, pr.Text
		if line, rest, ok := strings.Cut(pr.Text, ": "); ok && strings.Trim(line, "0123456789") == "" {
			place, text = place+":"+line, rest
		}
		if where[text] == nil {
			texts = append(texts, text)
		}
		where[text] = append(where[text], place)
	}
	for i, text := range texts {
		texts[i] = listed(where[text]) + ": " + text
	}
	return texts
}

func stateOf(l pia.Level) string {
	if l == pia.Error {
		return "fail"
	}
	return "warn"
}

func hasOriginals(comps []string) bool { return len(comps) > 0 }

func (p *Pipeline) repeats(ctx context.Context) map[string]int64 {
	r, err := p.state.Repeats(ctx)
	if err != nil {
		return nil
	}
	return r
}

// Blind says that a rule, fed by a dataset, reads fields that the assessment in
// force drops or changes.
type Blind struct {
	Rule    string   `json:"rule"`
	Title   string   `json:"title"`
	Level   string   `json:"level"`
	PIA     string   `json:"pia"`
	Source  string   `json:"source"`
	Dataset string   `json:"dataset"`
	Dropped []string `json:"dropped,omitempty"`
	Altered []string `json:"altered,omitempty"`
}

// Blind lists what the assessments in force hide from the rules in force.
func (p *Pipeline) Blind() []Blind {
	p.policyMu.RLock()
	defer p.policyMu.RUnlock()
	return p.blind(p.policy, p.now())
}

func (p *Pipeline) blind(pol *policy, now time.Time) []Blind {
	var out []Blind
	for _, r := range pol.pias.Rules(now) {
		feed := feedOf(r.Dataset)
		for _, rule := range pol.rules.Rules() {
			fields := pol.rules.Set().FieldsOn(rule, feed)
			if fields == nil {
				continue
			}
			dropped, altered := pia.Blinds(fields, r)
			if len(dropped) == 0 && len(altered) == 0 {
				continue
			}
			out = append(out, Blind{Rule: rule.ID, Title: rule.Title, Level: rule.Level, PIA: r.PIA,
				Source: r.Source, Dataset: r.Dataset, Dropped: dropped, Altered: altered})
		}
	}
	slices.SortStableFunc(out, func(a, b Blind) int { return strings.Compare(a.Rule, b.Rule) })
	return out
}

// feedOf is the log source of a dataset as narrow as it is known. An event of a
// Windows dataset says itself by its channel what it feeds; here there is no event.
func feedOf(dataset string) sigma.LogSource {
	var s sigma.LogSource
	s.Product, s.Category, s.Service = parse.LogSource(dataset)
	if s.Product == "windows" && s.Service == "" {
		s.Service = channels[dataset]
	}
	return s
}

var channels = map[string]string{
	"win-security": "security", "win-sysmon": "sysmon", "win-powershell": "powershell", "win-system": "system",
	"win-defender": "windefend", "win-taskscheduler": "taskscheduler",
}

// Unknown lists the fields that a rule reads and no template of a dataset that feeds it
// has: most likely they are misspelt. It answers nothing of a rule that only datasets of
// open form feed.
func Unknown(set *detect.RuleSet, rule *sigma.Rule) (fields, datasets []string) {
	unknown := make(map[string]bool)
	known := make(map[string]bool)
	for _, f := range parse.Formats() {
		for _, d := range f.Datasets {
			feed := feedOf(d.Name)
			if len(d.Fields) == 0 || feed.Product == "" || feed.Service == "" && feed.Category == "" {
				continue
			}
			read := set.Set().FieldsOn(rule, feed)
			if read == nil {
				continue
			}
			if !slices.Contains(datasets, d.Name) { // several formats may bring one
				datasets = append(datasets, d.Name)
			}
			for _, name := range read {
				if name == "*" || slices.ContainsFunc(d.Fields, func(f parse.Field) bool { return covers(f.Path, name) }) {
					known[name] = true
				} else {
					unknown[name] = true
				}
			}
		}
	}
	for name := range unknown {
		if !known[name] {
			fields = append(fields, name)
		}
	}
	slices.Sort(fields)
	return fields, datasets
}

// covers reports whether a path of a template, where * is one segment, is of a field.
func covers(path, field string) bool {
	want, have := strings.Split(path, "."), strings.Split(field, ".")
	if len(want) != len(have) {
		return false
	}
	for i := range want {
		if want[i] != "*" && want[i] != have[i] {
			return false
		}
	}
	return true
}

// Unfed lists rules that no dataset of an assessment in force can feed.
func (p *Pipeline) Unfed() []*sigma.Rule {
	p.policyMu.RLock()
	defer p.policyMu.RUnlock()
	var feeds []sigma.LogSource
	for _, r := range p.policy.pias.Rules(p.now()) {
		feeds = append(feeds, feedOf(r.Dataset))
	}
	var out []*sigma.Rule
	for _, rule := range p.policy.rules.Rules() {
		if !p.policy.rules.Set().CouldFeed(rule, feeds) {
			out = append(out, rule)
		}
	}
	return out
}

// Gaps lists the holes that the door found.
func (p *Pipeline) Gaps(ctx context.Context, limit int) ([]event.Gap, error) {
	return p.state.Gaps(ctx, limit)
}
