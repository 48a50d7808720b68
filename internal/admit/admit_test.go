package admit

import (
	"testing"

	"github.com/counterseal/counterseal/internal/event"
)

const protectedYAML = `apiVersion: protected/v1
channels:
  - name: inspector general hotline
    domains: [oig.example, "*.bücher.example"]
    addresses: [192.0.2.7/32, 2001:db8:7::/48]
    mails: [hotline@agency.example]
    numbers: [+1 202 555 0100, 030 1234567]
    names: [Office of Inspector General, 监察]
`

func parseProtected(t testing.TB) *Protected {
	t.Helper()
	p, err := ParseProtected([]byte(protectedYAML))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestWithhold(t *testing.T) {
	p := parseProtected(t)
	for _, c := range []struct {
		value string
		want  bool
	}{
		{"oig.example", true},
		{"OIG.Example.", true},
		{"www.oig.example", true},
		{"https://www.oig.example/report?x=1", true},
		{"https://www.oig.example:8443/", true},
		{"someone@oig.example", true},
		{`\\files.oig.example\share`, true},
		{"query: a.b.oig.example. IN A", true},
		{"https%3A%2F%2Foig%2Eexample%2F", true},
		{`{"url":"https:\/\/oig.example\/x"}`, true},
		{`mailto:x\u0040oig.example`, true},
		{"(3)www(3)oig(7)example(0)", true},
		{"o\x00i\x00g\x00.\x00e\x00x\x00a\x00m\x00p\x00l\x00e\x00", true},
		{"oig\u3002example", true},
		{"see oig.example, please", true},
		{"myoig.example", false},
		{"my-oig.example", false},
		{"oig.example.evil.test", false},
		{"oig.example-site.test", false},
		{"oig.examples", false},
		{"oig", false},

		{"www.bücher.example", true},
		{"WWW.BÜCHER.example", true},
		{"bu\u0308cher.example", true},
		{"xn--bcher-kva.example", true},
		{"B\xdcCHER.example", true}, // Latin-1

		{"192.0.2.7", true},
		{"::ffff:192.0.2.7", true},
		{"192.0.2.7:443", true},
		{"192.000.002.007", true},
		{"SRC=192.0.2.7 DST=10.0.0.1", true},
		{"7.2.0.192.in-addr.arpa", true},
		{"192.0.2.70", false},
		{"192.0.2.8", false},
		{"1.192.0.2.7", false},
		{"2001:DB8:7::9", true},
		{"[2001:db8:7:0:0:0:0:9]:443", true},
		{"2001:db8:8::9", false},
		{"12:00:07", false},

		{"hotline@agency.example", true},
		{"To: <Hotline@Agency.Example>", true},
		{"nothotline@agency.example", false},
		{"not.hotline@agency.example", false},
		{"other@agency.example", false},

		{"+12025550100", true},
		{"+1 (202) 555-0100", true},
		{"0012025550100", true},
		{"202-555-0100", true},
		{"tel:+1-202-555-0100;ext=5", true},
		{"12025550100", true},
		{"120255501001", false},
		{"2025550101", false},
		{"030/1234567", true},
		{"x12025550100", false},

		{"call the office of  inspector\tgeneral now", true},
		{"Office of Inspector Generals", false},
		{"请联系监察部门", true},
		{"", false},
	} {
		r := &event.Record{}
		r.Add("a", "nothing")
		r.Add("value", c.value)
		if got := p.Withhold(r); got != c.want {
			t.Errorf("%q: withheld %v", c.value, got)
		}
		u := &event.Record{Envelope: event.Envelope{Kind: event.Unparsed}}
		u.Add(event.UnparsedField, "garbage <13> "+c.value+" \xff\xfe")
		if got := p.Withhold(u); got != c.want && c.value != "" {
			t.Errorf("unparsed %q: withheld %v", c.value, got)
		}
	}
}
