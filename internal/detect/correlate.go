package detect

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/sigma"
)

// maxRefs bounds the records that one finding of a correlation cites.
const maxRefs = 1000

// Correlator keeps what the correlations of a rule set wait for, in one stream of
// events. It remembers which record each content came from and which revision of a
// finding was told last, for as long as a window may still change. Equal records in
// any order inside the lateness bound give the same open findings. It belongs to
// one goroutine.
type Correlator struct {
	rules *RuleSet
	sig   *sigma.Correlator
	span  time.Duration // the longest window, twice: a chained one may hold another
	mark  time.Time     // of the last Advance
	seen  map[[32]byte]sighting
	told  map[string]telling
}

// sighting is where a content was seen.
type sighting struct {
	ref event.Ref
	at  int64
	of  string // source and dataset of the record, by a zero byte
}

// telling is the last revision of a finding.
type telling struct {
	rev int
	to  int64
}

// NewCorrelator returns nil for a rule set without correlations.
func (r *RuleSet) NewCorrelator() *Correlator {
	all := r.set.Correlations()
	if len(all) == 0 {
		return nil
	}
	c := &Correlator{rules: r, sig: sigma.NewCorrelator(r.set, sigma.CorrelatorOptions{}), seen: make(map[[32]byte]sighting), told: make(map[string]telling)}
	for _, rule := range all {
		c.span = max(c.span, 2*rule.Correlation.Timespan)
	}
	return c
}

// observe hands one match on and appends the findings that it brings or takes back.
func (c *Correlator) observe(out []event.Finding, m sigma.Match, ev *sigma.Event, e *event.Event, ref event.Ref) []event.Finding {
	content := e.Content()
	at := ruleTime(e)
	if _, known := c.seen[content]; !known {
		c.seen[content] = sighting{ref: ref, at: at.UnixNano(), of: e.Source + "\x00" + e.Dataset}
	}
	c.sig.Observe(m, ev, sigma.Observation{Time: at, Content: content, Twin: twin(e)}, func(f sigma.Correlated) {
		out = append(out, c.finding(f))
	})
	return out
}

// Advance says that nothing older is expected and returns what that decides.
func (c *Correlator) Advance(until time.Time) []event.Finding {
	var out []event.Finding
	c.sig.Advance(until, func(f sigma.Correlated) { out = append(out, c.finding(f)) })
	if until.Sub(c.mark) < c.span/16+time.Second {
		return out
	}
	c.mark = until
	old := until.Add(-c.span).UnixNano()
	for k, s := range c.seen {
		if s.at < old {
			delete(c.seen, k)
		}
	}
	for k, t := range c.told {
		if t.to < old {
			delete(c.told, k)
		}
	}
	return out
}

func (c *Correlator) finding(f sigma.Correlated) event.Finding {
	digest := hex.EncodeToString(f.Rule.Digest[:])
	id := event.FindingID(digest, f.Contents, f.Group, f.From, f.To)
	rev := c.told[id].rev + 1
	c.told[id] = telling{rev: rev, to: f.To.UnixNano()}
	out := event.Finding{
		ID: id, Rev: rev, State: event.Open, Rule: ruleInfo(f.Rule), RuleSet: c.rules.Digest(), Group: f.Group,
		From: f.From.UTC(), To: f.To.UTC(),
		Parts: []event.Part{{Field: f.Rule.Correlation.Type, Value: strconv.FormatFloat(f.Value, 'f', -1, 64)}},
	}
	if f.Group != "" {
		out.Parts = append(out.Parts, event.Part{Field: "group", Value: f.Group})
	}
	if f.Withdrawn {
		out.State = event.Withdrawn
	}
	var cited []sighting
	for _, k := range f.Contents {
		if s, ok := c.seen[k]; ok {
			cited = append(cited, s)
		}
	}
	slices.SortStableFunc(cited, func(a, b sighting) int {
		if a.at != b.at {
			return int(min(max(a.at-b.at, -1), 1))
		}
		return strings.Compare(a.ref.String(), b.ref.String())
	})
	for _, s := range cited[:min(len(cited), maxRefs)] {
		out.Refs = append(out.Refs, s.ref)
	}
	if len(cited) > 0 {
		out.Source, out.Dataset, _ = strings.Cut(cited[len(cited)-1].of, "\x00")
	}
	return out
}

// Counts says, by rule id, what the correlations could not use: observations
// evicted to bound memory, late ones, and ones without a group or a value.
func (c *Correlator) Counts() map[string]map[string]int64 {
	return map[string]map[string]int64{
		"evicted": c.sig.Evicted(), "late": c.sig.Late(), "ungrouped": c.sig.Ungrouped(), "skipped": c.sig.Skipped(),
	}
}

// savedCorrelator is the stored form of a Correlator, part of a view.
type savedCorrelator struct {
	RuleSet string                  `json:"rule_set"`
	State   string                  `json:"state"`
	Mark    time.Time               `json:"mark"`
	Seen    map[string]savedSight   `json:"seen"`
	Told    map[string]savedTelling `json:"told"`
}

type savedSight struct {
	Ref string `json:"r"`
	At  int64  `json:"t"`
	Of  string `json:"o"`
}

type savedTelling struct {
	Rev int   `json:"r"`
	To  int64 `json:"t"`
}

// Save gives the state for Load.
func (c *Correlator) Save() ([]byte, error) {
	s := savedCorrelator{RuleSet: c.rules.Digest(), State: base64.RawStdEncoding.EncodeToString(c.sig.AppendState(nil)), Mark: c.mark,
		Seen: make(map[string]savedSight, len(c.seen)), Told: make(map[string]savedTelling, len(c.told))}
	for k, v := range c.seen {
		s.Seen[hex.EncodeToString(k[:])] = savedSight{v.ref.String(), v.at, v.of}
	}
	for k, v := range c.told {
		s.Told[k] = savedTelling{v.rev, v.to}
	}
	return json.Marshal(s)
}

// LoadCorrelator makes a correlator of what Save gave for the same rule set.
func (r *RuleSet) LoadCorrelator(b []byte) (*Correlator, error) {
	var s savedCorrelator
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("reading a correlation state: %w", err)
	}
	c := r.NewCorrelator()
	if c == nil || s.RuleSet != r.Digest() {
		return nil, fmt.Errorf("the correlation state belongs to another rule set")
	}
	state, err := base64.RawStdEncoding.DecodeString(s.State)
	if err != nil {
		return nil, fmt.Errorf("reading a correlation state: %w", err)
	}
	if err := c.sig.LoadState(state); err != nil {
		return nil, err
	}
	c.mark = s.Mark
	for k, v := range s.Seen {
		b, err := hex.DecodeString(k)
		if err != nil || len(b) != 32 {
			return nil, fmt.Errorf("reading a correlation state: a digest that is none")
		}
		ref, err := event.ParseRef(v.Ref)
		if err != nil {
			return nil, fmt.Errorf("reading a correlation state: %w", err)
		}
		c.seen[[32]byte(b)] = sighting{ref: ref, at: v.At, of: v.Of}
	}
	for k, v := range s.Told {
		c.told[k] = telling{v.Rev, v.To}
	}
	return c, nil
}

// twin is equal for the records in which two sensors tell the start of one process:
// Security 4688 and Sysmon 1, by machine, process id and image.
func twin(e *event.Event) string {
	var pid, image string
	switch e.Text("EventID") {
	case "4688":
		pid, image = e.Text("NewProcessId"), e.Text("NewProcessName")
	case "1":
		if !strings.HasPrefix(e.Text("Channel"), "Microsoft-Windows-Sysmon") {
			return ""
		}
		pid, image = e.Text("ProcessId"), e.Text("Image")
	default:
		return ""
	}
	n, err := strconv.ParseUint(pid, 0, 64)
	if err != nil || image == "" {
		return ""
	}
	machine, _, _ := strings.Cut(e.Text("Computer"), ".")
	return strings.ToLower(machine) + "\x00" + strconv.FormatUint(n, 10) + "\x00" + strings.ToLower(image)
}
