package pipeline

import (
	"context"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/counterseal/counterseal/internal/demo"
	"github.com/counterseal/counterseal/internal/detect"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/index"
)

const spray = `title: One Failed Sign-In
id: 5b7f0f4e-6a1c-4b86-9c1e-1d2f3a4b5c60
name: failed_signin
status: test
level: informational
logsource: {product: idp, service: signin}
detection:
  sel: {result: failure}
  condition: sel
---
title: Many People Fail From One Address
id: 5b7f0f4e-6a1c-4b86-9c1e-1d2f3a4b5c61
status: test
level: high
correlation:
  type: value_count
  rules: [failed_signin]
  group-by: [src_ip]
  timespan: 30m
  condition: {gte: 4, field: user}
---
title: Process Started
id: 5b7f0f4e-6a1c-4b86-9c1e-1d2f3a4b5c62
name: started
status: test
level: informational
logsource: {product: windows, category: process_creation}
detection:
  sel: {Image: '*'}
  condition: sel
---
title: Many Starts of One Program
id: 5b7f0f4e-6a1c-4b86-9c1e-1d2f3a4b5c63
status: test
level: low
correlation:
  type: event_count
  rules: [started]
  group-by: [Computer, Image]
  timespan: 12h
  condition: {gte: 3}
`

// standing lists the findings of correlations that stand.
func standing(t *testing.T, p *Pipeline) []string {
	t.Helper()
	all, err := p.Index().Findings(t.Context(), nil, index.Scope{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range all {
		if f.State == event.Open && f.Group != "" {
			out = append(out, f.ID+" "+f.Rule.Title)
		}
	}
	sort.Strings(out)
	return out
}

// TestCorrelation: windows are the same live, over restarts, rebuilt, and asked
// afterwards; the rules that feed them are no findings.
func TestCorrelation(t *testing.T) {
	in := demo.Play(demo.Options{Seed: 4, At: at, Hotline: true, Scale: 0.1})
	docs := documents(t, in)
	docs.Rules = []detect.File{{Path: "spray.yml", Data: []byte(spray)}}
	var all []event.Batch
	for _, st := range in.Streams {
		if st.Way != "file" {
			all = append(all, batches(st)...)
		}
	}
	// Senders are heard together: by the time of their records.
	slices.SortStableFunc(all, func(a, b event.Batch) int {
		return strings.Compare(a.Key[strings.LastIndex(a.Key, "-"):], b.Key[strings.LastIndex(b.Key, "-"):])
	})
	run := func(restarts int) (*system, []string) {
		dir := t.TempDir()
		seeded(t, dir)
		s := start(t, Options{Dir: dir, Documents: docs})
		for i, b := range all {
			if _, err := s.Accept(context.Background(), b); err != nil {
				t.Fatal(err)
			}
			if restarts > 0 && i%(len(all)/(restarts+1)) == len(all)/(restarts+1)-1 {
				s.stop()
				s = start(t, Options{Dir: dir, Documents: docs})
			}
		}
		if err := s.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		return s, standing(t, s.Pipeline)
	}
	s, want := run(0)
	sprayed, counted := 0, 0
	for _, f := range want {
		switch {
		case strings.Contains(f, "Many People"):
			sprayed++
		case strings.Contains(f, "Many Starts"):
			counted++
		default:
			t.Errorf("a rule that only feeds a correlation is a finding: %s", f)
		}
	}
	if sprayed == 0 || counted == 0 {
		t.Fatalf("the spray gave %d findings, the starts %d", sprayed, counted)
	}
	_, again := run(3)
	if diff := cmp.Diff(want, again); diff != "" {
		t.Errorf("with restarts:\n%s", diff)
	}

	rules, err := detect.Compile(docs.Rules)
	if err != nil {
		t.Fatal(err)
	}
	var retro []string
	err = s.Retro(t.Context(), rules, time.Time{}, time.Time{}, func(f event.Finding) error {
		if f.Group != "" {
			retro = append(retro, f.ID+" "+f.Rule.Title)
		}
		return nil
	})
	sort.Strings(retro)
	if diff := cmp.Diff(want, retro); err != nil || diff != "" {
		t.Errorf("asked afterwards, %v:\n%s", err, diff)
	}

	dir := s.dir
	s.stop()
	now := at.Add(time.Hour)
	p, err := Open(t.Context(), Options{Tokens: maker(t), Dir: dir, Documents: docs, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Rebuild(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, standing(t, p)); diff != "" {
		t.Errorf("rebuilt:\n%s", diff)
	}
}
