package admit

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/unicode/norm"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/pia"
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

func TestProtectedFile(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{" ", "empty"},
		{"apiVersion: protected/v2\nchannels: []\n", "protected/v1"},
		{"apiVersion: protected/v1\nchannels:\n - names: [ab]\n", "channel 1, names, entry 1"},
		{"apiVersion: protected/v1\nchannels:\n - domains: [ok.example, com]\n", "domains, entry 2"},
		{"apiVersion: protected/v1\nchannels:\n - addresses: [192.0.2.300]\n", "addresses"},
		{"apiVersion: protected/v1\nchannels:\n - addresses: ['::ffff:192.0.2.0/24']\n", "addresses"},
		{"apiVersion: protected/v1\nchannels:\n - numbers: [12]\n", "numbers"},
		{"apiVersion: protected/v1\nchannels:\n - mails: [hotline]\n", "mails"},
		{"apiVersion: protected/v1\nchannels:\n - secret: x\n", "line 3"},
		{"apiVersion: protected/v1\nchannels:\n - {kind: hearsay, names: [SECRETNAME]}\n", "channel 1: kind is one of"},
		{"apiVersion: protected/v1\nchannels:\n - names: [SECRETNAME, [SECRETNAME]]\n", "line 3"},
		{"apiVersion: protected/v1\nchannels: [&a {name: SECRETNAME}, *a]\n", "anchors"},
	} {
		_, err := ParseProtected([]byte(c.in))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.in, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "SECRETNAME") {
			t.Errorf("an error says a value: %v", err)
		}
	}
	if p, err := ParseProtected(nil); err != nil || p.Digest() != "" || p.Mentions([]byte("oig.example")) {
		t.Errorf("no file: %v", err)
	}
	var none *Protected
	r := &event.Record{}
	r.Add("a", "oig.example")
	if none.Withhold(r) || none.Mentions([]byte("x")) || none.Digest() != "" {
		t.Error("no file withholds")
	}
	if p := parseProtected(t); len(p.Digest()) != 64 || !p.Mentions([]byte("report of oig.example")) || p.Mentions([]byte("report")) {
		t.Error("digest or mention")
	}
}

// TestWithholdLooksEverywhere: names of fields, the peer, any field.
func TestWithholdLooksEverywhere(t *testing.T) {
	p := parseProtected(t)
	r := &event.Record{}
	r.Add("by.hotline@agency.example.count", "3")
	if !p.Withhold(r) {
		t.Error("a name of a field is not looked at")
	}
	r = &event.Record{Envelope: event.Envelope{Peer: "192.0.2.7:514"}}
	if !p.Withhold(r) {
		t.Error("the peer is not looked at")
	}
	r = &event.Record{}
	for range 50 {
		r.Add("x", "y")
	}
	r.Fields = append(r.Fields, event.Field{Name: "n", Kind: event.Number, Value: []byte("12025550100")})
	if !p.Withhold(r) {
		t.Error("a number is not looked at")
	}
}

// TestWithholdAloneAndWithout is the invisible blind spot: whatever stands between
// them, the other records are judged as if the contact had never been there, and
// what is counted of them is the same.
func TestWithholdAloneAndWithout(t *testing.T) {
	p := parseProtected(t)
	rule := testRule(t)
	run := func(values ...string) (kept []string, c Counts) {
		for _, v := range values {
			r := &event.Record{}
			r.Add("keep", v)
			r.Add("lost", v)
			if p.Withhold(r) {
				continue
			}
			m := Minimise(r, rule, testHash, &c)
			kept = append(kept, string(m.Fields[0].Value))
		}
		return kept, c
	}
	with, a := run("one", "call +1 202 555 0100", "two", "https://oig.example/", "hotline@agency.example", "three")
	without, b := run("one", "two", "three")
	if diff := cmp.Diff(without, with); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(b, a); diff != "" {
		t.Error(diff)
	}
}

func testHash(b []byte) []byte { s := sha256.Sum256(append([]byte("key"), b...)); return s[:] }

func testRule(t testing.TB) *pia.Rule {
	t.Helper()
	d := pia.Draft{
		ID: "PIA-TEST-2026-001", Title: "test", Owner: "CISO", ATO: "ATO-1", SSP: "9cbd98f3-abcb-4948-ad06-14e0bcba742f", Authority: "law", Purpose: "detect", Notice: "banner", Redress: "office", Schedule: "item",
		Signers:     []pia.Signer{{Role: "SAOP", Name: "A", KeyID: "a", Sig: "x"}, {Role: "CISO", Name: "B", KeyID: "b", Sig: "y"}},
		Publication: pia.Publication{URL: "https://agency.example/p", Digest: "sha256:" + strings.Repeat("0", 64), PublishedAt: "2026-01-01T00:00:00Z"},
		Effective:   time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Expires: time.Date(2028, 1, 1, 0, 0, 0, 0, time.UTC),
		Sources: []pia.DraftSource{{Source: "s", Fields: []pia.DraftField{
			{Path: "keep", Action: "allow"}, {Path: "drop", Action: "drop"}, {Path: "who", Action: "tokenise", Category: "person"}, {Path: "see", Action: "detect-only"},
			{Path: "hash", Action: "hash-keyed"}, {Path: "net", Action: "truncate", Category: "address"}, {Path: "cut", Action: "truncate"},
		}}},
	}
	p, problems := pia.Parse("t", d.YAML())
	at := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	set, _ := pia.NewSet([]*pia.PIA{p}, at)
	rule, no := set.Find("s", "", "", at)
	if no != nil {
		t.Fatal(no, problems)
	}
	return rule
}

func TestMinimise(t *testing.T) {
	rule := testRule(t)
	r := &event.Record{Envelope: event.Envelope{Source: "s"}}
	secret := []byte("SECRET")
	r.Fields = []event.Field{
		{Name: "unknown", Value: secret}, {Name: "keep", Value: []byte("1"), Kind: event.Number}, {Name: "drop", Value: secret}, {Name: "who", Value: []byte("alice")},
		{Name: "keep", Value: []byte("2")}, {Name: "hash", Value: secret}, {Name: "hash", Kind: event.Null}, {Name: "unknown", Value: secret}, {Name: "see", Value: []byte("cmd")},
		{Name: "net", Value: []byte("203.0.113.77")}, {Name: "net", Value: []byte("203.0.113.77:443")}, {Name: "net", Value: []byte("2001:db8:1:2::3")}, {Name: "net", Value: []byte("::ffff:203.0.113.77")}, {Name: "net", Value: []byte("[2001:db8:1:2::3]:80")},
		{Name: "cut", Value: []byte(strings.Repeat("é", 70))}, {Name: "cut", Value: []byte("203.0.113.77")}, {Name: "net", Value: []byte("host.example")},
	}
	all := r.Fields
	var c Counts
	m := Minimise(r, rule, testHash, &c)
	h := string(Hashed(testHash, secret))
	var got []string
	for i, f := range m.Fields {
		got = append(got, f.Name+"="+string(f.Value)+" "+m.Marks[i].Action.String())
	}
	want := []string{"keep=1 allow", "who=alice tokenise", "keep=2 allow", "hash=" + h + " hash-keyed", "hash= hash-keyed", "see=cmd detect-only",
		"net=203.0.113.0 truncate", "net=203.0.113.0 truncate", "net=2001:db8:1:: truncate", "net=203.0.113.0 truncate", "net=2001:db8:1:: truncate",
		"cut=" + strings.Repeat("é", 64) + " truncate", "cut=203.0.113.0 truncate", "net=host.example truncate"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Counts{Kept: 14, Tokenised: 1, Truncated: 8, Hashed: 2, Detect: 1, Dropped: map[string]int{"unknown": 2, "drop": 1}}, c); diff != "" {
		t.Error(diff)
	}
	if !strings.HasPrefix(h, HashPrefix) || len(h) != len(HashPrefix)+hashChars {
		t.Errorf("digest %q", h)
	}
	for i, f := range all {
		if bytes.Contains(f.Value, secret) {
			t.Errorf("field %d of the record still holds what was dropped", i)
		}
	}
	if r.Fields != nil {
		t.Error("the record can still be used")
	}
}

func TestDroppedPathsAreBounded(t *testing.T) {
	var c Counts
	for i := range 2 * maxPaths {
		r := &event.Record{}
		r.Add("name"+strconv.Itoa(i), "x")
		Minimise(r, testRule(t), testHash, &c)
		if i > maxPaths+10 {
			break
		}
	}
	if len(c.Dropped) != maxPaths+1 || c.Dropped[OtherPaths] != 12 {
		t.Errorf("%d paths, %d others", len(c.Dropped), c.Dropped[OtherPaths])
	}
}

// TestWordsAgainstModel compares the word tree with a search that tries every place.
func TestWordsAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	alphabet := []string{"a", "B", "é", "É", "e\u0301", ".", " ", "  ", "-", "@", "王", "ß", "K", "\u212a", "1", "\xe9"}
	some := func(n int) string {
		var b strings.Builder
		for range 1 + rng.IntN(n) {
			b.WriteString(alphabet[rng.IntN(len(alphabet))])
		}
		return b.String()
	}
	for range 4000 {
		var w Words
		var listed []string
		for range 1 + rng.IntN(4) {
			s := some(5)
			if _, err := w.Add(s); err == nil {
				listed = append(listed, strings.TrimFunc(Fold(s), func(r rune) bool { return !isWordRune(r) }))
			}
		}
		text := []byte(norm.NFC.String(some(12)))
		starts := map[int]bool{}
		for i := 0; ; {
			s, next, hits := w.Next(nil, text, i)
			if s < 0 {
				break
			}
			if next != endOfWord(text, s) {
				t.Fatalf("%q: the word at %d ends at %d, not %d", text, s, endOfWord(text, s), next)
			}
			starts[s], i = true, next
			for _, h := range hits {
				if Fold(string(text[s:h.End])) != listed[h.ID] {
					t.Fatalf("%q in %q: found %q", listed[h.ID], text, text[s:h.End])
				}
			}
		}
		// Every place where a listed text stands between word boundaries is found.
		ends := map[int]bool{len(text): true}
		for i := range starts {
			ends[endOfWord(text, i)] = true
		}
		for s := range starts {
			for e := range ends {
				if e <= s {
					continue
				}
				for id, l := range listed {
					if Fold(string(text[s:e])) != l || strings.TrimSpace(string(text[s:e])) != string(text[s:e]) {
						continue
					}
					found := false
					_, _, hits := w.Next(nil, text, s)
					for _, h := range hits {
						found = found || h.ID == id && h.End == e
					}
					if !found && isEndOfWord(text, e) {
						t.Fatalf("%q at %d..%d of %q is missed", l, s, e, text)
					}
				}
			}
		}
	}
}

func isEndOfWord(text []byte, e int) bool { return WordBefore(text, e) }

func TestDomainForms(t *testing.T) {
	for u, a := range map[string]string{"bücher.example": "xn--bcher-kva.example", "münchen.de": "xn--mnchen-3ya.de", "例え.jp": "xn--r8jz45g.jp", "пример.рф": "xn--e1afmkfd.xn--p1ai", "plain.example": "plain.example"} {
		if got := toASCII(u); got != a {
			t.Errorf("%s: %s, want %s", u, got, a)
		}
		if got := toUnicode(a); got != u {
			t.Errorf("%s: %s, want %s", a, got, u)
		}
	}
}

func TestPhoneForms(t *testing.T) {
	for in, want := range map[string]string{
		"+1 (202) 555-0100": "12025550100 0012025550100 2025550100 02025550100",
		"0049 30 1234567":   "49301234567 0049301234567 301234567 0301234567",
		"030/1234567":       "0301234567 301234567",
		"5550100":           "5550100",
		"12":                "",
		"1234567890123456":  "",
		"+1 202 CALL":       "",
	} {
		if got := strings.Join(PhoneForms(in), " "); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}

// TestNumberAnywhere puts a number after any count of other numbers: none falls
// between two runs.
func TestNumberAnywhere(t *testing.T) {
	p := parseProtected(t)
	for n := range 70 {
		for _, filler := range []string{"7 ", "77 ", "1234567 ", "12345678901234567890 "} {
			for _, number := range []string{"202 555 0100", "2 0 2 555 01 00", "2025550100"} {
				if text := strings.Repeat(filler, n) + number + " " + filler; !p.Mentions([]byte(text)) {
					t.Errorf("%d times %q, then %q: missed", n, filler, number)
				}
			}
		}
	}
}

func FuzzProtected(f *testing.F) {
	f.Add([]byte(protectedYAML), []byte("see https://oig.example/ now"))
	f.Add([]byte(protectedYAML), []byte("xn--bcher-kva.example 192.0.2.7 +1 202 555 0100 %6fig.example"))
	f.Add([]byte("apiVersion: protected/v1\nchannels: [{domains: [xn--0.example]}]"), []byte("\xff\x00(3)"))
	f.Fuzz(func(t *testing.T, file, text []byte) {
		p, err := ParseProtected(file)
		if err != nil {
			return
		}
		r := &event.Record{}
		r.Add("x", string(text))
		alone := p.Withhold(r)
		r.Add("y", "nothing to see")
		if p.Withhold(r) != alone && !p.Mentions([]byte("nothing to see")) && !p.Mentions([]byte("y")) {
			t.Fatal("a harmless field changes the answer")
		}
		if p.Mentions(text) && !alone {
			t.Fatal("mentioned and not withheld")
		}
	})
}

func BenchmarkWithhold(b *testing.B) {
	p := parseProtected(b)
	r := &event.Record{}
	for range 20 {
		r.Add("CommandLine", `"C:\Program Files\Vendor\tool.exe" --config C:\ProgramData\config.json 10.1.2.3`)
	}
	b.ReportAllocs()
	for b.Loop() {
		if p.Withhold(r) {
			b.Fatal("withheld")
		}
	}
}
