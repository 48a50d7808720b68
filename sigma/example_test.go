package sigma_test

import (
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/counterseal/counterseal/sigma"
)

func Example() {
	rules, refused := sigma.Parse("whoami.yml", []byte(`
title: Whoami Execution
id: 0e95725d-7320-415d-80f7-004da920fc11
logsource:
    category: process_creation
    product: windows
detection:
    selection:
        Image|endswith: '\whoami.exe'
    condition: selection
level: low
`))
	for _, r := range refused {
		fmt.Println(r)
	}
	set, _ := sigma.Compile(rules, sigma.Options{})
	event := &sigma.Event{
		Source: sigma.LogSource{Product: "windows"},
		Fields: []sigma.Field{
			{Name: "Channel", Value: []byte("Security")},
			{Name: "EventID", Kind: sigma.KindNumber, Value: []byte("4688")},
			{Name: "NewProcessName", Value: []byte(`C:\Windows\System32\whoami.exe`)},
		},
	}
	set.Match(event, func(m sigma.Match) {
		for _, f := range m.Matched {
			fmt.Printf("%s: %s because of %s\n", m.Rule.Title, m.Verdict, f.Name)
		}
	})
	// Output: Whoami Execution: yes because of NewProcessName
}

func ExampleParse() {
	_, refused := sigma.Parse("rules.yml", []byte(`
title: Typing error
logsource: {product: windows}
detection:
    selection:
        CommandLine|contians: mimikatz
    condition: selection
`))
	fmt.Println(refused[0])
	// Output: rules.yml:6: rule "Typing error": "CommandLine|contians": the modifier "contians" is not known
}

// A field that was withheld leaves the question open.
func ExampleEvent() {
	rules, _ := sigma.Parse("r.yml", []byte(`
title: Login as root
logsource: {product: linux, service: sshd}
detection:
    selection: {user: root}
    condition: selection
`))
	set, _ := sigma.Compile(rules, sigma.Options{})
	event := &sigma.Event{
		Source: sigma.LogSource{Product: "linux", Service: "sshd"},
		Fields: []sigma.Field{{Name: "event", Value: []byte("accepted")}},
		Blind:  func(name string) bool { return name == "user" },
	}
	set.Match(event, func(m sigma.Match) { fmt.Println(m.Rule.Title, m.Verdict) })
	// Output: Login as root cannot-tell
}

// Many failed logins and then a success. The second failure arrives late, after
// the success: the finding is made when it does. Then a record of a failure in
// between arrives, and the finding is revised.
func ExampleCorrelator() {
	rules, _ := sigma.Parse("logins.yml", []byte(`
title: Failed login
name: failed
logsource: {product: linux, service: sshd}
detection:
    selection: {event: failed}
    condition: selection
---
title: Login
name: login
logsource: {product: linux, service: sshd}
detection:
    selection: {event: accepted}
    condition: selection
---
title: Several failed logins
name: several
correlation:
    type: event_count
    rules: [failed]
    group-by: [user]
    timespan: 10m
    condition: {gte: 2}
---
title: Login after several failures
correlation:
    type: temporal_ordered
    rules: [several, login]
    group-by: [user]
    timespan: 10m
`))
	set, _ := sigma.Compile(rules, sigma.Options{})
	correlator := sigma.NewCorrelator(set, sigma.CorrelatorOptions{})
	day := time.Date(2026, 1, 1, 9, 0, 0, 0, time.UTC)

	tell := func(c sigma.Correlated) {
		word := "found"
		if c.Withdrawn {
			word = "withdrawn"
		}
		fmt.Printf("%s: %s for %s on %d events until %s\n", word, c.Rule.Title, c.Group, len(c.Contents), c.To.Format(time.TimeOnly))
	}
	see := func(minute int, what string) {
		event := &sigma.Event{
			Source: sigma.LogSource{Product: "linux", Service: "sshd"},
			Fields: []sigma.Field{{Name: "event", Value: []byte(what)}, {Name: "user", Value: []byte("alice")}},
		}
		o := sigma.Observation{
			Time:    day.Add(time.Duration(minute) * time.Minute),
			Content: sha256.Sum256([]byte(fmt.Sprint(minute, what))),
		}
		set.Match(event, func(m sigma.Match) {
			if !set.Silent(m.Rule) {
				fmt.Println("found:", m.Rule.Title)
			}
			correlator.Observe(m, event, o, tell)
		})
	}
	see(0, "failed")
	see(5, "accepted")
	see(3, "failed") // late
	see(2, "failed") // later still
	correlator.Advance(day.Add(time.Hour), tell)
	groups, observations := correlator.Size()
	fmt.Println("kept:", groups, observations)
	// Output:
	// found: Login after several failures for user="alice" on 3 events until 09:05:00
	// withdrawn: Login after several failures for user="alice" on 3 events until 09:05:00
	// found: Login after several failures for user="alice" on 3 events until 09:05:00
	// kept: 0 0
}

// What a restart needs is stored and loaded again.
func ExampleCorrelator_AppendState() {
	rules, _ := sigma.Parse("r.yml", []byte(`
title: Login as root
name: root
logsource: {product: linux, service: sshd}
detection:
    selection: {user: root}
    condition: selection
---
title: Root logs in from several places
correlation:
    type: value_count
    rules: [root]
    timespan: 1h
    condition: {field: address, gte: 2}
`))
	set, _ := sigma.Compile(rules, sigma.Options{})
	tell := func(c sigma.Correlated) { fmt.Println(c.Rule.Title, c.Value) }
	see := func(c *sigma.Correlator, minute int64, address string) {
		event := &sigma.Event{
			Source: sigma.LogSource{Product: "linux", Service: "sshd"},
			Fields: []sigma.Field{{Name: "user", Value: []byte("root")}, {Name: "address", Value: []byte(address)}},
		}
		set.Match(event, func(m sigma.Match) {
			o := sigma.Observation{Time: time.Unix(60*minute, 0), Content: sha256.Sum256([]byte(address))}
			c.Observe(m, event, o, tell)
		})
	}
	before := sigma.NewCorrelator(set, sigma.CorrelatorOptions{})
	see(before, 1, "192.0.2.1")
	state := before.AppendState(nil)

	after := sigma.NewCorrelator(set, sigma.CorrelatorOptions{})
	if err := after.LoadState(state); err != nil {
		fmt.Println(err)
	}
	see(after, 1, "192.0.2.1") // again: seen before the restart
	see(after, 2, "192.0.2.2")
	// Output: Root logs in from several places 2
}

func ExampleSet_Lint() {
	rules, _ := sigma.Parse("rules.yml", []byte(`
title: Script From a Temporary Folder
logsource: {product: windows, category: process_creation}
detection:
    selection:
        Image|endswith: '\wscript.exe'
        CommandLine|contains: '\Temp\'
    filter_updater:
        Image|endswith: '\updater.exe'
    filter_installer:
        CommandLine|contains: '\Temp\setup.js'
    filter_all_setups:
        CommandLine|contains: 'setup'
    condition: selection and not 1 of filter_*
`))
	set, _ := sigma.Compile(rules, sigma.Options{})
	for _, w := range set.Lint() {
		fmt.Printf("line %d, %s: %s\n", w.Line, w.Class, w.Text)
	}
	// Output:
	// line 8, dead-selection: the search identifier "filter_updater" makes no difference to the rule, unless the field Image occurs more than once in an event: its answer follows from "selection"
	// line 10, dead-selection: the search identifier "filter_installer" makes no difference to the rule: its answer follows from "filter_all_setups"
}

func ExampleCheckSchema() {
	for _, w := range sigma.CheckSchema("rules.yml", []byte(`
title: Whoami Execution
date: 2025/02/03
tags: [Discovery]
logsource: {product: windows, category: process_creation}
detection:
    selection:
        Image|endswith: '\whoami.exe'
    condition: selection
level: low
`)) {
		fmt.Println(w)
	}
	// Output:
	// rules.yml:3:7: rule "Whoami Execution": date must be a day written as YYYY-MM-DD
	// rules.yml:4:8: rule "Whoami Execution": the tag "Discovery" must be a namespace, a dot and a name, in small letters, digits, _ and -
}
