package pseudonym

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/admit"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/packs"
	"github.com/counterseal/counterseal/internal/pia"
	"github.com/counterseal/counterseal/sigma"
)

func testHash(b []byte) []byte {
	h := hmac.New(sha256.New, []byte("the key of digests, not of tokens"))
	h.Write(b)
	return h.Sum(nil)
}

func testLocal(t testing.TB) *Local {
	t.Helper()
	l, err := NewLocal(bytes.Repeat([]byte{7}, KeySize), uuid.MustParse("9cbd98f3-abcb-4948-ad06-14e0bcba742f"), 1)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

const directoryYAML = `apiVersion: directory/v1
domains: [CORP, corp.example]
people:
  - id: E-1001
    names: ['CORP\alice', Alice Example, Jürgen]
    mails: [alice.example@corp.example, ally@home.example]
    sids: [S-1-5-21-1111111111-2222222222-3333333333-1104]
    phones: [+1 202 555 0123]
    devices: [ALICE-LAPTOP]
    end: 2026-10-31
  - id: E-1002
    names: [bob.builder]
    mails: [bob@corp.example]
`

func testDirectory(t testing.TB) *Directory {
	t.Helper()
	d, err := ParseDirectory([]byte(directoryYAML))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func newTest(t testing.TB) *Pseudonymiser { return New(testLocal(t), testDirectory(t), testHash) }

var testNow = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

// testDraft is an assessment of some sources with everything filled in.
func testDraft(sources ...pia.DraftSource) pia.Draft {
	return pia.Draft{
		ID: "PIA-TEST-2026-001", Title: "test", Owner: "CISO", ATO: "ATO-1", SSP: "9cbd98f3-abcb-4948-ad06-14e0bcba742f", Authority: "law", Purpose: "detect", Notice: "banner", Redress: "office", Schedule: "item",
		Signers:     []pia.Signer{{Role: "SAOP", Name: "A", KeyID: "a", Sig: "x"}, {Role: "CISO", Name: "B", KeyID: "b", Sig: "y"}},
		Publication: pia.Publication{URL: "https://agency.example/p", Digest: "sha256:" + strings.Repeat("0", 64), PublishedAt: "2026-01-01T00:00:00Z"},
		Effective:   time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Expires: time.Date(2028, 1, 1, 0, 0, 0, 0, time.UTC),
		Sources: sources,
	}
}

// testRule compiles an assessment of one source.
func testRule(t testing.TB, fields ...pia.DraftField) *pia.Rule {
	t.Helper()
	d := testDraft(pia.DraftSource{Source: "test", Fields: fields})
	p, problems := pia.Parse("test.yaml", d.YAML())
	if p == nil || !p.Valid() {
		t.Fatalf("%v\n%s", problems, d.YAML())
	}
	set, _ := pia.NewSet([]*pia.PIA{p}, testNow)
	rule, no := set.Find("test", "any", "", testNow)
	if no != nil {
		t.Fatal(no)
	}
	return rule
}

func defaultRule(t testing.TB) *pia.Rule {
	return testRule(t,
		pia.DraftField{Path: "user", Action: "tokenise", Category: "person"},
		pia.DraftField{Path: "target", Action: "tokenise", Category: "person"},
		pia.DraftField{Path: "sid", Action: "tokenise", Category: "person"},
		pia.DraftField{Path: "mail", Action: "tokenise", Category: "user.contact.email"},
		pia.DraftField{Path: "phone", Action: "tokenise", Category: "phone"},
		pia.DraftField{Path: "device", Action: "tokenise", Category: "device"},
		pia.DraftField{Path: "ip", Action: "tokenise", Category: "address"},
		pia.DraftField{Path: "any", Action: "tokenise"},
		pia.DraftField{Path: "TargetDomainName", Action: "allow"},
		pia.DraftField{Path: "hash", Action: "hash-keyed"},
		pia.DraftField{Path: "short", Action: "truncate", Category: "address"},
		pia.DraftField{Path: "script", Action: "detect-only", Category: "command"},
		pia.DraftField{Path: "by.*", Action: "allow", Reason: "counters by key"},
		pia.DraftField{Path: "path", Action: "allow"},
		pia.DraftField{Path: "message", Action: "allow", Reason: "we need it"},
	)
}

// pass takes name=value pairs through minimisation and pseudonymisation.
func pass(t testing.TB, p *Pseudonymiser, rule *pia.Rule, pairs ...string) *event.Event {
	t.Helper()
	r := &event.Record{Envelope: event.Envelope{Source: "test", Dataset: "any"}}
	for i := 0; i < len(pairs); i += 2 {
		r.Add(pairs[i], pairs[i+1])
	}
	var c admit.Counts
	e, err := p.Event(admit.Minimise(r, rule, testHash, &c))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func value(e *event.Event, name string) string {
	f, _ := e.Get(name)
	return string(f.Value)
}

// alice is the token of the person in the directory.
func alice(t testing.TB) string {
	tok, err := testLocal(t).Token(event.Person, []byte("alice"))
	if err != nil {
		t.Fatal(err)
	}
	return string(tok)
}

func TestOnePersonOneToken(t *testing.T) {
	p, rule, a := newTest(t), defaultRule(t), alice(t)
	for _, c := range []struct{ field, in, want string }{
		{"user", "alice", a},
		{"user", "ALICE", a},
		{"user", `CORP\alice`, `CORP\` + a},
		{"user", `corp\\Alice`, `corp\\` + a},
		{"user", "alice@corp.example", a},
		{"user", "Alice.Example@Corp.Example", a},
		{"mail", "ally@home.example", a},
		{"user", "Alice  Example", a},
		{"user", "JÜRGEN", a},
		{"user", "Ju\u0308rgen", a},
		{"user", "CN=Alice Example,OU=People,DC=corp", a},
		{"sid", "S-1-5-21-1111111111-2222222222-3333333333-1104", "S-1-5-21-" + a},
		{"phone", "+1 (202) 555-0123", a},
		{"phone", "202.555.0123", a},
		{"mail", "Alice E. <ally@home.example>", a},
		{"mail", "<Alice.Example@corp.example>", a},
		{"mail", "alice@corp.example; Ally <ally@home.example>,root@corp.example", a + ";" + a + ",root@corp.example"},
		{"user", "CORP/alice", "CORP/" + a},
		{"any", "ally@home.example", a},
		{"any", "alice", a},
		{"message", `logon of CORP\alice from home`, `logon of CORP\` + a + ` from home`},
		{"path", `C:\Users\alice\AppData\Local\x.exe`, `C:\Users\` + a + `\AppData\Local\x.exe`},
		{"path", `C:\\Users\\Alice Example\\x`, `C:\\Users\\` + a + `\\x`},
		{"path", `C:\Users\alice.CORP.000\x`, `C:\Users\` + a + `.CORP.000\x`},
		{"path", "/home/alice/.ssh/id", "/home/" + a + "/.ssh/id"},
		{"path", "/Users/alice", "/Users/" + a},
		{"path", `C:\Users\ALICEE~1\x`, `C:\Users\` + a + `\x`},
		{"message", "HKU\\S-1-5-21-1111111111-2222222222-3333333333-1104_Classes", "HKU\\S-1-5-21-" + a + "_Classes"},
		{"message", "mailto:ally@home.example?x", "mailto:" + a + "?x"},
		{"message", "call +1 202 555 0123 now", "call " + a + " now"},
		{"message", "net user Alice /add", "net user " + a + " /add"},
	} {
		if got := value(pass(t, p, rule, c.field, c.in), c.field); got != c.want {
			t.Errorf("%s %q:\n got %q\nwant %q", c.field, c.in, got, c.want)
		}
	}
}

// TestWithoutDirectory shows the joins that need no file.
func TestWithoutDirectory(t *testing.T) {
	p, rule := New(testLocal(t), nil, testHash), defaultRule(t)
	e := pass(t, p, rule, "user", "carol", "target", `EXAMPLE\Carol`, "mail", "carol@example.local", "TargetDomainName", "example.local",
		"message", `EXAMPLE\carol, carol@EXAMPLE.LOCAL and carol; dave@other.example; EXAMPLE\dave; OTHER\dave`,
		"path", `D:\Users\CAROL\x`)
	tok := value(e, "user")
	if !event.IsToken([]byte(tok)) || tok[0] != 'p' {
		t.Fatalf("user %q", tok)
	}
	if got := value(e, "target"); got != `EXAMPLE\`+tok {
		t.Errorf("target %q", got)
	}
	if got := value(e, "mail"); got != tok {
		t.Errorf("mail %q", got)
	}
	if got := value(e, "path"); got != `D:\Users\`+tok+`\x` {
		t.Errorf("path %q", got)
	}
	m, _ := testLocal(t).Token(event.Mail, []byte("dave@other.example"))
	d, _ := testLocal(t).Token(event.Person, []byte("dave"))
	want := `EXAMPLE\` + tok + `, ` + tok + ` and ` + tok + `; ` + string(m) + `; EXAMPLE\` + string(d) + `; OTHER\dave`
	if got := value(e, "message"); got != want {
		t.Errorf("message\n got %q\nwant %q", got, want)
	}
}

func TestStay(t *testing.T) {
	p, rule := newTest(t), defaultRule(t)
	for _, v := range []string{
		"", "-", "SYSTEM", "Système", "СИСТЕМА", "NETZWERKDIENST", `NT AUTHORITY\SYSTEM`, `AUTORITE NT\Système`, `NT-AUTORITÄT\SYSTEM`, `Window Manager\DWM-1`, "root", "0", "Administrator",
		"krbtgt", "MSOL_0123456789ab", "SAMTHEADMIN-12", "WEB01$", `CORP\WEB01$`, "S-1-5-18", "S-1-5-32-544", "S-1-0-0", "S-1-5-80-1-2-3", "WEB01$@corp.example", "Administrator@corp.example", "4294967295", "$", "%%1793", "admin01", "--",
	} {
		if got := value(pass(t, p, rule, "user", v), "user"); got != v {
			t.Errorf("user %q became %q", v, got)
		}
	}
	for _, v := range []string{"127.0.0.1", "::1", "0.0.0.0", "-", "ff02::1", "255.255.255.255", "cloudtrail.amazonaws.com", "127.0.0.1:80"} {
		if got := value(pass(t, p, rule, "ip", v), "ip"); got != v {
			t.Errorf("ip %q became %q", v, got)
		}
	}
	for _, v := range []string{
		`C:\Users\Public\x.exe`, `C:\Users\Default\x`, `C:\Users\All Users\x`, `C:\Windows\System32\config\systemprofile\x`, `C:\Users\Administrator\x`, `%USERPROFILE%\x`, `C:\Users\%USERNAME%\x`, "/home/*/x",
		"2026-11-22 10:00:00", "10.0.19041.1288", "192.168.101.2010", "{01234567-0123-0123-0123-012345678901}", "S-1-5-18", `\\CORP\share\x`, "user@host", "01-02-03-04-05", "01-02-2026 10:30", `C:\x\y`, "version 123-456-7890-1",
		"rundll32.exe C:\\Windows\\x.dll,#1", "a+1234567", "0x0171 ", "12345678", "user@1000.service", `C:\Downloads\Invoice@0582.cpl`,
	} {
		if got := value(pass(t, p, rule, "path", v), "path"); got != v {
			t.Errorf("path %q became %q", v, got)
		}
	}
}

func TestAddressClass(t *testing.T) {
	p, rule := newTest(t), defaultRule(t)
	for v, want := range map[string]sigma.AddrClass{
		"10.1.2.3": sigma.AddrPrivate10, "172.16.0.1": sigma.AddrPrivate172, "192.168.1.1": sigma.AddrPrivate192, "169.254.1.1": sigma.AddrLinkLocal4,
		"203.0.113.77": sigma.AddrPublic4, "::ffff:203.0.113.77": sigma.AddrPublic4, "fe80::1%eth0": sigma.AddrLinkLocal6, "fd00::1": sigma.AddrLocal6, "2001:db8::1": sigma.AddrPublic6,
	} {
		f, _ := pass(t, p, rule, "ip", v).Get("ip")
		if !event.IsToken(f.Value) || f.Value[0] != 'a' || sigma.AddrClass(f.Addr) != want {
			t.Errorf("%s: %q class %d, want %d", v, f.Value, f.Addr, want)
		}
	}
	e := pass(t, p, rule, "ip", "203.0.113.77:443", "any", "203.0.113.77", "message", "from 203.0.113.77:443, not 203.0.113.7 nor 1.203.0.113.77")
	tok := value(e, "any")
	if got := value(e, "ip"); got != tok+":443" {
		t.Errorf("with port: %q", got)
	}
	if got := value(e, "message"); got != "from "+tok+":443, not 203.0.113.7 nor 1.203.0.113.77" {
		t.Errorf("in text: %q", got)
	}
}

func TestSIDs(t *testing.T) {
	p, rule := newTest(t), defaultRule(t)
	admin := value(pass(t, p, rule, "sid", "S-1-5-21-1111111111-2222222222-3333333333-500"), "sid")
	domain := value(pass(t, p, rule, "sid", "S-1-5-21-1111111111-2222222222-3333333333"), "sid")
	if !strings.HasPrefix(admin, "S-1-5-21-d1_") || !strings.HasSuffix(admin, "-500") || admin != domain+"-500" {
		t.Errorf("%q and %q", admin, domain)
	}
	other := value(pass(t, p, rule, "sid", "S-1-5-21-1111111111-2222222222-3333333333-1105"), "sid")
	if s, e := event.NextToken([]byte(other)); s != 9 || e != len(other) || other[s] != 'p' {
		t.Errorf("%q", other)
	}
}

func TestDevices(t *testing.T) {
	p, rule := newTest(t), defaultRule(t)
	d := value(pass(t, p, rule, "device", "alice-laptop.corp.example"), "device")
	if !event.IsToken([]byte(d)) || d[0] != 'd' {
		t.Fatalf("%q", d)
	}
	for _, c := range []struct{ field, in, want string }{
		{"device", "ALICE-LAPTOP", d},
		{"device", `\\ALICE-LAPTOP`, `\\` + d},
		{"user", `CORP\ALICE-LAPTOP$`, `CORP\` + d + `$`},
		{"user", `ALICE-LAPTOP\alice`, d + `\` + alice(t)},
		{"user", "arn:aws:iam::123456789012:user/alice", "arn:aws:iam::123456789012:user/" + alice(t)},
		{"user", "arn:aws:sts::123456789012:assumed-role/Admin/ally@home.example", "arn:aws:sts::123456789012:assumed-role/Admin/" + alice(t)},
		{"user", "arn:aws:iam::123456789012:root", "arn:aws:iam::123456789012:root"},
		{"message", `from Alice-Laptop to \\ALICE-LAPTOP\c$`, `from ` + d + ` to \\` + d + `\c$`},
	} {
		if got := value(pass(t, p, rule, c.field, c.in), c.field); got != c.want {
			t.Errorf("%s %q: got %q, want %q", c.field, c.in, got, c.want)
		}
	}
}

// TestDeviceBeforeName: the machine is an identity of the record, so it is none less
// where it stands as the domain of a local account, in whatever order they come.
func TestDeviceBeforeName(t *testing.T) {
	p, rule := New(testLocal(t), nil, testHash), defaultRule(t)
	for _, pairs := range [][]string{
		{"device", "CAROLS-MAC", "user", `CAROLS-MAC\carol`},
		{"user", `Carols-Mac\carol`, "device", "CAROLS-MAC"},
	} {
		e := pass(t, p, rule, pairs...)
		d := value(e, "device")
		if got := value(e, "user"); !strings.HasPrefix(got, d+`\p1_`) {
			t.Errorf("%q: user %q, device %q", pairs, got, d)
		}
	}
}

func TestCleanTextIsNotCopied(t *testing.T) {
	p := newTest(t)
	v := []byte(`"C:\Program Files\Vendor\tool.exe" --config "C:\ProgramData\x.json" --to host@web01 -o /var/home-1/report-2026-11-22.txt 10.1.2.3`)
	r := new(record)
	r.reset()
	if n := testing.AllocsPerRun(100, func() {
		if out := p.text(r, v); &out[0] != &v[0] {
			t.Fatalf("%q", out)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestDetectOnly(t *testing.T) {
	p, rule := newTest(t), defaultRule(t)
	const script = "Get-ADUser alice"
	e := pass(t, p, rule, "script", script)
	if len(e.DetectOnly) != 1 || string(e.DetectOnly[0].Value) != "Get-ADUser "+alice(t) {
		t.Errorf("detection sees %q", e.DetectOnly)
	}
	if got := value(e, "script"); !strings.HasPrefix(got, "len=16 h1_") || len(got) != len("len=16 h1_")+26 {
		t.Errorf("storage holds %q", got)
	}
	if bytes.Contains(event.AppendEncode(nil, e), []byte("Get-ADUser")) {
		t.Error("the script is encoded")
	}
}

// TestForged: a source writes a token of somebody else, and a keyed digest.
func TestForged(t *testing.T) {
	p, rule, a := newTest(t), defaultRule(t), alice(t)
	h := string(admit.Hashed(testHash, []byte("x")))
	for _, v := range []string{a, h, a + a, "x" + a, "p1_" + a, a[:10] + a, `CORP\` + a, a + `\x`, a + "@corp.example", "S-1-5-21-" + a, "C:\\Users\\" + a + "\\x", "a " + h + " b"} {
		for _, field := range []string{"user", "message", "path", "mail", "ip", "device", "any", "phone"} {
			got := pass(t, p, rule, field, v)
			if strings.Contains(value(got, field), a) || strings.Contains(value(got, field), h) {
				t.Errorf("%s %q passes as %q", field, v, value(got, field))
			}
		}
	}
}

// TestPack takes the events of the shared pack the whole way to an event.
func TestPack(t *testing.T) {
	dir := filepath.Join(packs.Dir(t, "gov"), "synthetic", "pia")
	doc, err := os.ReadFile(filepath.Join(dir, "ok.json"))
	if err != nil {
		t.Fatal(err)
	}
	assessment, problems := pia.Parse("ok.json", doc)
	at := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	set, _ := pia.NewSet([]*pia.PIA{assessment}, at)
	lines, err := os.ReadFile(filepath.Join(dir, "events.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var want []struct {
		Decision      string
		Why           string
		Kept, Dropped []string
	}
	expected, err := os.ReadFile(filepath.Join(dir, "events.expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(expected, &want); err != nil {
		t.Fatal(err)
	}
	p := New(testLocal(t), nil, testHash)
	for i, line := range bytes.Split(bytes.TrimSpace(lines), []byte{'\n'}) {
		var doc map[string]any
		if err := json.Unmarshal(line, &doc); err != nil {
			t.Fatal(err)
		}
		source, dataset := doc["source"].(string), doc["dataset"].(string)
		rule, no := set.Find(source, dataset, "", at)
		if want[i].Decision == "refuse" {
			if no == nil || no.Code != "pia_missing" || no.Reason != want[i].Why {
				t.Errorf("event %d: %+v, want %q", i, no, want[i].Why)
			}
			continue
		}
		if no != nil {
			t.Fatalf("event %d: %v %v", i, no, problems)
		}
		r := &event.Record{}
		var add func(prefix string, v any)
		add = func(prefix string, v any) {
			if m, ok := v.(map[string]any); ok {
				for k, x := range m {
					add(prefix+"."+k, x)
				}
				return
			}
			if name := prefix[1:]; name != "source" && name != "dataset" {
				r.Add(name, fmt.Sprint(v))
			}
		}
		add("", doc)
		var c admit.Counts
		e, err := p.Event(admit.Minimise(r, rule, testHash, &c))
		if err != nil {
			t.Fatal(err)
		}
		var kept []string
		for _, f := range e.Fields {
			switch {
			case event.IsToken(f.Value):
				kept = append(kept, f.Name+"(token)")
			case bytes.HasPrefix(f.Value, []byte(admit.HashPrefix)):
				kept = append(kept, f.Name+"(hash)")
			case f.Name == "src.ip":
				kept = append(kept, f.Name+"("+string(f.Value)+")")
			default:
				kept = append(kept, f.Name)
			}
		}
		slices.Sort(kept)
		slices.Sort(want[i].Kept)
		if !slices.Equal(kept, want[i].Kept) {
			t.Errorf("event %d keeps %v, want %v", i, kept, want[i].Kept)
		}
		for _, d := range want[i].Dropped {
			if c.Dropped[d] != 1 {
				t.Errorf("event %d: %s counted %d times as dropped", i, d, c.Dropped[d])
			}
		}
	}
}

type refusing struct{}

func (refusing) Token(event.TokenKind, []byte) (event.Token, error) {
	return "", errors.New("the key holder is away")
}

func TestRefusedTokenStopsTheRecord(t *testing.T) {
	p := New(refusing{}, testDirectory(t), testHash)
	r := &event.Record{Envelope: event.Envelope{Source: "test"}}
	r.Add("user", "alice")
	var c admit.Counts
	e, err := p.Event(admit.Minimise(r, defaultRule(t), testHash, &c))
	if e != nil || err == nil || strings.Contains(err.Error(), "alice") {
		t.Fatalf("%v, %v", e, err)
	}
}
