package sigma_test

import (
	"fmt"

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
