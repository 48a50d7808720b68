package sigma_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/sigma"
)

// TestHostileValues: long values made of what the rules look for cost no more
// than a few comparisons a byte.
func TestHostileValues(t *testing.T) {
	rules, _ := packRules(t)
	set, _ := sigma.Compile(rules, sigma.Options{Opaque: event.NextToken})
	for _, piece := range []string{`\powershell.exe`, `rundll32`, `aaaa`, "`", `\..\`, `c:\windows\system32\`, "\xff", "\u212a", `http://`, ` -enc `} {
		value := []byte(strings.Repeat(piece, 1<<20/len(piece)))
		ev := &sigma.Event{Source: sigma.LogSource{Product: "windows"}, Fields: []sigma.Field{
			{Name: "Channel", Value: []byte("Microsoft-Windows-Sysmon/Operational")}, {Name: "EventID", Value: []byte("1")},
			{Name: "CommandLine", Value: value}, {Name: "Image", Value: value}, {Name: "ParentImage", Value: value},
		}}
		start := time.Now()
		set.Match(ev, func(sigma.Match) {})
		d := time.Since(start)
		t.Logf("%q: %v", piece, d)
		if d > 5*time.Second {
			t.Errorf("3 MiB of %q take %v", piece, d)
		}
	}
}

// TestManyFields: a million fields are an event like others.
func TestManyFields(t *testing.T) {
	rules, _ := packRules(t)
	set, _ := sigma.Compile(rules, sigma.Options{})
	ev := &sigma.Event{Source: sigma.LogSource{Product: "windows"}}
	for i := range 1_000_000 {
		ev.Fields = append(ev.Fields, sigma.Field{Name: fmt.Sprint("F", i), Value: []byte("x")})
	}
	ev.Fields = append(ev.Fields,
		sigma.Field{Name: "Channel", Value: []byte("Microsoft-Windows-Sysmon/Operational")}, sigma.Field{Name: "EventID", Value: []byte("1")},
		sigma.Field{Name: "CommandLine", Value: []byte("rundll32.exe javascript:x")}, sigma.Field{Name: "Image", Value: []byte(`c:\rundll32.exe`)})
	n := 0
	start := time.Now()
	set.Match(ev, func(sigma.Match) { n++ })
	if n == 0 || time.Since(start) > 20*time.Second {
		t.Errorf("%d matches after %v", n, time.Since(start))
	}
}

// TestNoAllocation: an event of each kind of value that no rule matches costs no
// memory once its origin is known.
func TestNoAllocation(t *testing.T) {
	if raced {
		t.Skip("memory cannot be counted under the race detector")
	}
	rules, _ := packRules(t)
	more, refused := sigma.Parse("m", []byte(`title: m
id: m
logsource: {product: windows, service: security}
detection:
  a: {IpAddress|cidr: ['2001:db8::/32', 10.0.0.0/8], B: null}
  b: {N|gt: 5, C|re: 'x[0-9]+y'}
  c: {Image|fieldref: D}
  k: ['never there']
  condition: 1 of them
`))
	if len(refused) > 0 {
		t.Fatal(refused)
	}
	set, _ := sigma.Compile(append(rules, more...), sigma.Options{Opaque: event.NextToken})
	ev := &sigma.Event{Source: sigma.LogSource{Product: "windows"}, Fields: []sigma.Field{
		{Name: "Channel", Value: []byte("Security")}, {Name: "EventID", Value: []byte("4688")},
		{Name: "New Process Name", Value: []byte("C:\\W\u00edndows\\Nothing.exe")}, {Name: "CommandLine", Value: []byte("Nothing -At All \u212a")},
		{Name: "IpAddress", Value: []byte("fe80::1%eth0")}, {Name: "N", Value: []byte("4")}, {Name: "C", Value: []byte("xyx7")},
		{Name: "D", Value: []byte("p1_abcdefghijklmnopqrstuvwxyz")}, {Name: "NewProcessName", Value: []byte(`C:\Other.exe`)},
	}}
	fn := func(m sigma.Match) { t.Errorf("%s matches", m.Rule.Title) }
	set.Match(ev, fn)
	if n := testing.AllocsPerRun(200, func() { set.Match(ev, fn) }); n > 0 {
		t.Errorf("%v allocations an event", n)
	}
}
