//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"strings"

	bradley "github.com/bradleyjkemp/sigma-go"
	"github.com/bradleyjkemp/sigma-go/evaluator"
	markus "github.com/markuskont/go-sigma-rule-engine"
	"gopkg.in/yaml.v2"
	velocidex "www.velocidex.com/golang/evtx"

	"github.com/counterseal/counterseal/sigma"
)

// A peer asks single rules about an event. Dispatch by log source is done for it
// and costs it nothing.
type peer struct {
	name  string
	rules int
	ask   map[*sigma.Rule]func(peerEvent) bool
}

// peerEvent is an event in the forms that the peers read, made beforehand.
type peerEvent struct {
	fields   map[string]any
	keywords []string
}

func (e peerEvent) Keywords() ([]string, bool) { return e.keywords, true }

func (e peerEvent) Select(name string) (any, bool) {
	v, ok := e.fields[name]
	return v, ok
}

// aliases are the fields that process creation has under other names in the
// Security log.
var aliases = [][2]string{{"Image", "NewProcessName"}, {"ParentImage", "ParentProcessName"}, {"Signature", "ThreatName"}, {"Filename", "Path"}}

func forPeers(ev *sigma.Event) peerEvent {
	out := peerEvent{fields: make(map[string]any)}
	for _, f := range ev.Fields {
		name, value := strings.ReplaceAll(f.Name, " ", ""), string(f.Value)
		if _, ok := out.fields[name]; !ok {
			out.fields[name] = value
		}
		out.keywords = append(out.keywords, value)
	}
	for _, a := range aliases {
		if v, ok := out.fields[a[1]]; ok && out.fields[a[0]] == nil {
			out.fields[a[0]] = v
		}
	}
	return out
}

func peers(rules []*sigma.Rule, texts [][]byte) []*peer {
	a := &peer{name: "sigma-go v0.6.6", ask: make(map[*sigma.Rule]func(peerEvent) bool)}
	b := &peer{name: "go-sigma-rule-engine v0.3.0", ask: make(map[*sigma.Rule]func(peerEvent) bool)}
	for i, r := range rules {
		text := texts[i]
		if rule, err := bradley.ParseRule(text); err == nil {
			e := evaluator.ForRule(rule)
			a.rules++
			a.ask[r] = func(ev peerEvent) bool {
				res, err := e.Matches(context.Background(), ev.fields)
				return err == nil && res.Match
			}
		}
		var handle markus.RuleHandle
		if yaml.Unmarshal(text, &handle.Rule) != nil {
			continue
		}
		if tree := tree(handle); tree != nil {
			b.rules++
			b.ask[r] = func(ev peerEvent) bool {
				_, ok := tree.Eval(ev)
				return ok
			}
		}
	}
	return []*peer{a, b}
}

// tree is nil for a rule that the library does not take, by error or by panic.
func tree(h markus.RuleHandle) (t *markus.Tree) {
	defer func() {
		if recover() != nil {
			t = nil
		}
	}()
	t, err := markus.NewTree(h)
	if err != nil {
		return nil
	}
	return t
}

// matcherOf asks the rules that reach the event, one after the other.
func (p *peer) matcherOf(reach func(*sigma.Event) []*sigma.Rule, form map[*sigma.Event]peerEvent) matcher {
	lists := make(map[*sigma.Event][]func(peerEvent) bool)
	kept := make(map[string][]func(peerEvent) bool)
	for ev := range form {
		key := origin(ev)
		asks, ok := kept[key]
		if !ok {
			for _, r := range reach(ev) {
				if ask := p.ask[r]; ask != nil {
					asks = append(asks, ask)
				}
			}
			kept[key] = asks
		}
		lists[ev] = asks
	}
	return func(ev *sigma.Event, fn func(sigma.Match)) {
		e := form[ev]
		for _, ask := range lists[ev] {
			if safely(ask, e) {
				fn(sigma.Match{})
			}
		}
	}
}

func safely(ask func(peerEvent) bool, e peerEvent) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	return ask(e)
}

// origin is what the mapping reads of an event.
func origin(ev *sigma.Event) string {
	var channel, id, kind string
	for _, f := range ev.Fields {
		switch f.Name {
		case "Channel":
			channel = string(f.Value)
		case "EventID":
			id = string(f.Value)
		case "EventType":
			kind = string(f.Value)
		}
	}
	return fmt.Sprint(channel, "|", id, "|", kind)
}

// peerDecode reads a log with the other library and returns its events.
func peerDecode(data []byte) int {
	chunks, err := velocidex.GetChunks(bytes.NewReader(data))
	if err != nil {
		log.Fatal(err)
	}
	n := 0
	for _, c := range chunks {
		records, err := c.Parse(0)
		if err != nil {
			log.Fatal(err)
		}
		n += len(records)
	}
	return n
}
