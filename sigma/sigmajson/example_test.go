package sigmajson_test

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/counterseal/counterseal/sigma"
	"github.com/counterseal/counterseal/sigma/sigmajson"
)

// Events that come as lines of JSON are asked the rules.
func Example() {
	rules, _ := sigma.Parse("keys.yml", []byte(`
title: A key is made for another user
id: 0b3ba2cc-6d1c-4dd6-8d26-4ac51ba3cc0a
logsource: {product: aws, service: cloudtrail}
detection:
    selection:
        eventName: CreateAccessKey
    own:
        userIdentity.userName|fieldref: requestParameters.userName
    condition: selection and not own
`))
	set, _ := sigma.Compile(rules, sigma.Options{})

	lines := bufio.NewScanner(strings.NewReader(`
{"eventName": "CreateAccessKey", "userIdentity": {"userName": "alice"}, "requestParameters": {"userName": "alice"}}
{"eventName": "CreateAccessKey", "userIdentity": {"userName": "alice"}, "requestParameters": {"userName": "build"}}
{"eventName": "CreateAccessKey"
`))
	var reader sigmajson.Reader
	event := sigma.Event{Source: sigma.LogSource{Product: "aws", Service: "cloudtrail"}}
	for n := 0; lines.Scan(); n++ {
		if len(lines.Bytes()) == 0 {
			continue
		}
		var err error
		if event.Fields, err = reader.Fields(event.Fields[:0], lines.Bytes()); err != nil {
			fmt.Printf("line %d: %v\n", n, err)
			continue
		}
		set.Match(&event, func(m sigma.Match) {
			fmt.Printf("line %d: %s\n", n, m.Rule.Title)
		})
	}
	// Output:
	// line 2: A key is made for another user
	// line 3: reading JSON fields: byte 31: not valid JSON
}

// What becomes of nesting, lists, large numbers and a name that occurs twice.
func ExampleReader_Fields() {
	var reader sigmajson.Reader
	fields, err := reader.Fields(nil, []byte(`{
		"process": {"name": "curl", "args": ["-k", "https://192.0.2.1"]},
		"id": 18446744073709551615,
		"tag": "a", "tag": "b",
		"parent": {}
	}`))
	for _, f := range fields {
		fmt.Printf("%s = %q\n", f.Name, f.Value)
	}
	fmt.Println(err)
	// Output:
	// process.name = "curl"
	// process.args = "-k"
	// process.args = "https://192.0.2.1"
	// id = "18446744073709551615"
	// tag = "a"
	// tag = "b"
	// parent = ""
	// <nil>
}
