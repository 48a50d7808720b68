package pseudonym

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/counterseal/counterseal/internal/admit"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/pia"
)

const plantedDirectory = `apiVersion: directory/v1
domains: [CORP, corp.example]
people:
  - id: E-1
    names: ['CORP\zebulonq', Zebulon Quistgaard, 王小明]
    mails: [zq@corp.example, zebu@private.example]
    sids: [S-1-5-21-1111111111-2222222222-3333333333-7777]
    phones: [+44 20 7946 0991]
    devices: [ZEBULON-PHONE]
`

// planted are spellings of a person of the directory, in the forms that are
// promised. None of secrets may be in an event.
var planted = []string{
	"zebulonq", "ZEBULONQ", "Zebulon Quistgaard", "zebulon  quistgaard", "王小明", `CORP\zebulonq`, `CORP\\Zebulonq`, "zebulonq@corp.example", "zq@corp.example", "Zebu@Private.Example",
	"S-1-5-21-1111111111-2222222222-3333333333-7777", `C:\Users\zebulonq\x`, `c:\\users\\ZEBULONQ`, "/home/zebulonq/.bashrc", "file:///Users/zebulonq/x", `C:\Users\ZEBULO~1\AppData`, `\\FS\Users\zebulonq.CORP\x`,
	"+44 20 7946 0991", "020 7946 0991", "0044-20-7946-0991", "ZEBULON-PHONE", `\\zebulon-phone\c$`, `"zebulonq"`, "user=zebulonq", "(zebulonq)", "zebulonq:x", "cn=Zebulon Quistgaard,ou=x",
}

// shaped are people of no directory, in the shapes that speak for themselves.
var shaped = []string{
	"quillfeather@outside.example", `CORP\quillfeather`, "quillfeather@corp.example", `D:\Users\quillfeather\y`, "/home/quillfeather/y", `C:\Documents and Settings\quillfeather\y`, `C:\Users\Quill Feather\y`,
	"S-1-5-21-9191919191-2-3-1500", "+1 (919) 555-9191", "919-555-9191", "(919) 555-9191", "0919 5559191",
}

var secrets = []string{
	"zebulon", "quistgaard", "王小明", "zq@", "zebu@", "-7777", "7946", "zebulo~1", "quillfeather", "quill feather", "9191919191", "919", "5559191",
}

func leaks(encoded []byte) string {
	folded := bytes.ToLower(encoded)
	for _, s := range secrets {
		if bytes.Contains(folded, []byte(s)) {
			return s
		}
	}
	return ""
}

// inEvent is what storage gets, and what detection sees at the door beside it.
func inEvent(e *event.Event) []byte {
	b := event.AppendEncode(nil, e)
	for _, f := range e.DetectOnly {
		b = append(append(append(b, f.Name...), 0), f.Value...)
	}
	return b
}

func plantedTest(t testing.TB) *Pseudonymiser {
	t.Helper()
	d, err := ParseDirectory([]byte(plantedDirectory))
	if err != nil {
		t.Fatal(err)
	}
	return New(testLocal(t), d, testHash)
}

// TestNoNames plants every promised form in every field and in the envelope.
func TestNoNames(t *testing.T) {
	p, rule := plantedTest(t), defaultRule(t)
	for _, form := range append(planted, shaped...) {
		for _, field := range []string{"user", "mail", "phone", "device", "any", "message", "path", "script"} {
			for _, text := range []string{form, "x " + form + " y", "\t" + form + "\n", "'" + form + "',", "<" + form + ">"} {
				if field != "message" && field != "path" && field != "script" && text != form {
					continue
				}
				if s := leaks(inEvent(pass(t, p, rule, field, text))); s != "" {
					t.Errorf("%s %q: %q passes in %q", field, text, s, value(pass(t, p, rule, field, text), field))
				}
			}
		}
		e := pass(t, p, rule, "by."+form, "1")
		if s := leaks(inEvent(e)); s != "" && !strings.Contains(form, ".") {
			t.Errorf("name of a field %q: %q passes", form, s)
		}
	}
	r := &event.Record{Envelope: event.Envelope{Source: "test", Group: "zebulon-phone:1:2", Peer: "9.1.9.19", Conn: "9.1.9.19:55", Dataset: "zebulonq", Way: "http"}}
	r.Running.Stream = "ZEBULON-PHONE/Security"
	r.Add("path", "x")
	var c admit.Counts
	e, err := p.Event(admit.Minimise(r, rule, testHash, &c))
	if err != nil {
		t.Fatal(err)
	}
	if s := leaks(inEvent(e)); s != "" || bytes.Contains(inEvent(e), []byte("9.1.9.19")) {
		t.Errorf("%q passes in the envelope %+v", s, e.Envelope)
	}
	if got := p.Stream("ZEBULON-PHONE/Security"); leaks([]byte(got)) != "" || got != p.Stream("ZEBULON-PHONE/Security") {
		t.Errorf("stream %q", got)
	}
	if got, err := p.Label("by.zebulonq.count"); err != nil || leaks([]byte(got)) != "" || !strings.HasPrefix(got, "by.p1_") {
		t.Errorf("label %q, %v", got, err)
	}
}

// TestIdentityOfTheRecordInItsText: nobody's directory, no shape, but a field of the
// same record says that it is an identity.
func TestIdentityOfTheRecordInItsText(t *testing.T) {
	p, rule := New(testLocal(t), nil, testHash), defaultRule(t)
	for _, c := range []struct{ field, in, text string }{
		{"user", "quillfeather", "QUILLFEATHER logs on"},
		{"user", `ANY\quillfeather`, "quillfeather"},
		{"user", `ANY\quillfeather`, `any\quillfeather`},
		{"user", "Quill Feather", "Hello, Quill Feather."},
		{"device", "quillfeather-mac", "from QUILLFEATHER-MAC"},
		{"user", "quillfeather", "id;quillfeather@anything"},
		{"user", "quillfeather", "quillfeather.log"},
		{"user", "quillfeather", `C:\Users\quillfeather`},
		{"ip", "9.1.9.19", "from 9.1.9.19:22"},
	} {
		e := pass(t, p, rule, "message", c.text, c.field, c.in)
		if s := leaks(inEvent(e)); s != "" || strings.Contains(value(e, "message"), "9.1.9.19") {
			t.Errorf("%s=%q, message %q: %q passes in %q", c.field, c.in, c.text, s, value(e, "message"))
		}
	}
}

// TestNotCovered states what is not promised, so that nobody believes it is.
func TestNotCovered(t *testing.T) {
	p, rule := plantedTest(t), defaultRule(t)
	for name, text := range map[string]string{
		"a nickname that no directory lists":       "ask Zebbie about it",
		"a name inside base64":                     "powershell -enc emVidWxvbnE=",
		"a name as part of a longer word":          "zebulonqs",
		"a bare number that may be anything":       "ticket 4479460991",
		"an account of a domain nobody has listed": `UNKNOWN\quentin`,
	} {
		if got := value(pass(t, p, rule, "message", text), "message"); got != text {
			t.Errorf("%s: now covered (%q); say so in the package comment", name, got)
		}
	}
}

// TestSameInSameOut: whatever came before, and from many goroutines, a record gives
// the same event.
func TestSameInSameOut(t *testing.T) {
	rule := defaultRule(t)
	rng := rand.New(rand.NewPCG(5, 6))
	var records [][]string
	fields := []string{"user", "target", "mail", "any", "message", "path", "device", "TargetDomainName"}
	for range 300 {
		var r []string
		for range 1 + rng.IntN(5) {
			form := planted[rng.IntN(len(planted))]
			if rng.IntN(2) == 0 {
				form = shaped[rng.IntN(len(shaped))]
			}
			r = append(r, fields[rng.IntN(len(fields))], form)
		}
		records = append(records, r)
	}
	want := make([][]byte, len(records))
	for i, r := range records {
		want[i] = inEvent(pass(t, plantedTest(t), rule, r...))
	}
	shared := plantedTest(t)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range records {
				j := (i*7 + g*31) % len(records)
				if got := inEvent(pass(t, shared, rule, records[j]...)); !bytes.Equal(got, want[j]) {
					t.Errorf("record %d differs: %q", j, records[j])
				}
			}
		})
	}
	wg.Wait()
}

// TestUnlinkable: tokens of a source that says so join with no other.
func TestUnlinkable(t *testing.T) {
	p := newTest(t)
	d := testRule(t, pia.DraftField{Path: "user", Action: "tokenise", Category: "person"}, pia.DraftField{Path: "message", Action: "allow", Reason: "r"})
	line := *d.Field("user")
	line.Unlinkable = true
	r := &event.Record{Envelope: event.Envelope{Source: "test"}}
	r.Add("user", "alice")
	r.Add("message", "alice")
	var c admit.Counts
	m := admit.Minimise(r, d, testHash, &c)
	m.Marks[0] = &line
	e, err := p.Event(m)
	if err != nil {
		t.Fatal(err)
	}
	if v := value(e, "user"); v == alice(t) || v != value(e, "message") || !event.IsToken([]byte(v)) {
		t.Errorf("user %q, message %q", v, value(e, "message"))
	}
	if v := value(pass(t, p, d, "user", "alice"), "user"); v != alice(t) {
		t.Errorf("the next source gets %q", v)
	}
}

func TestKindsSurvive(t *testing.T) {
	p, rule := newTest(t), defaultRule(t)
	r := &event.Record{Envelope: event.Envelope{Source: "test", Time: 5}}
	r.Fields = []event.Field{
		{Name: "user", Kind: event.Null}, {Name: "user", Kind: event.Number, Value: []byte("0")}, {Name: "path", Kind: event.Number, Value: []byte("4712")},
		{Name: "path", Kind: event.Bool, Value: []byte("true")}, {Name: "path", Value: []byte("a")}, {Name: "path", Value: []byte{}}, {Name: "user", Kind: event.Number, Value: []byte("104512")},
	}
	var c admit.Counts
	e, err := p.Event(admit.Minimise(r, rule, testHash, &c))
	if err != nil {
		t.Fatal(err)
	}
	last := e.Fields[6]
	if last.Kind != event.String || !event.IsToken(last.Value) {
		t.Errorf("a user number became %+v", last)
	}
	want := []event.Field{
		{Name: "user", Kind: event.Null}, {Name: "user", Kind: event.Number, Value: []byte("0")}, {Name: "path", Kind: event.Number, Value: []byte("4712")},
		{Name: "path", Kind: event.Bool, Value: []byte("true")}, {Name: "path", Value: []byte("a")}, {Name: "path", Value: []byte{}},
	}
	if diff := cmp.Diff(want, e.Fields[:6]); diff != "" {
		t.Error(diff)
	}
}

func TestPeer(t *testing.T) {
	p := newTest(t)
	closed := defaultRule(t)
	open := testRule(t, pia.DraftField{Path: "path", Action: "allow"}, pia.DraftField{Path: PeerPath, Action: "allow"})
	peer := func(rule *pia.Rule, addr string) string {
		r := &event.Record{Envelope: event.Envelope{Source: "test", Peer: addr}}
		var c admit.Counts
		e, err := p.Event(admit.Minimise(r, rule, testHash, &c))
		if err != nil {
			t.Fatal(err)
		}
		return e.Peer
	}
	if v := peer(closed, "10.1.2.3"); !event.IsToken([]byte(v)) || v[0] != 'a' {
		t.Errorf("%q", v)
	}
	if v := peer(open, "10.1.2.3"); v != "10.1.2.3" {
		t.Errorf("%q", v)
	}
	if v := peer(closed, "127.0.0.1"); v != "127.0.0.1" {
		t.Errorf("%q", v)
	}
	if v := peer(closed, "a unix socket of zebulonq"); !strings.HasPrefix(v, admit.HashPrefix) {
		t.Errorf("%q", v)
	}
	if v := peer(closed, ""); v != "" {
		t.Errorf("%q", v)
	}
}

func TestDirectoryFile(t *testing.T) {
	const head = "apiVersion: directory/v1\npeople:\n"
	for _, c := range []struct{ in, want string }{
		{" ", "empty"},
		{"apiVersion: directory/v2\n", "directory/v1"},
		{head + " - {names: [x]}", "needs an id"},
		{head + " - {id: a}\n - {id: a}", "person 2: needs an id"},
		{head + " - {id: a, names: [SECRETNAME]}\n - {id: b, names: ['X\\secretname']}", "person 2, names, entry 1: belongs"},
		{head + " - {id: a, mails: [SECRETNAME@x.y]}\n - {id: b, mails: [secretname@x.y]}", "person 2, mails"},
		{head + " - {id: a, sids: [S-1-5-21-1]}\n - {id: b, sids: [s-1-5-21-1]}", "person 2, sids"},
		{head + " - {id: a, sids: [SECRETNAME]}", "not a SID"},
		{head + " - {id: a, phones: ['+1 202 555 0100']}\n - {id: b, phones: [2025550100]}", "person 2, phones"},
		{head + " - {id: a, names: [root]}", "no person"},
		{head + " - {id: a, names: ['']}", "empty"},
		{head + " - {id: a, devices: ['']}", "empty"},
		{head + " - {id: a, mails: [SECRETNAME]}", "not a mail"},
		{head + " - {id: a, end: SECRETNAME}", "not a date"},
		{head + " - {id: a, nickname: SECRETNAME}", "line 3"},
		{head + " - {id: a, names: [[SECRETNAME]]}", "line 3"},
	} {
		_, err := ParseDirectory([]byte(c.in))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.in, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "SECRETNAME") {
			t.Errorf("an error says a value: %v", err)
		}
	}
	if d, err := ParseDirectory(nil); err != nil || d.Len() != 0 {
		t.Errorf("no file: %v", err)
	}
	d := testDirectory(t)
	if d.Len() != 2 || len(d.Digest()) != 64 || (*Directory)(nil).Digest() != "" || (*Directory)(nil).Len() != 0 {
		t.Error("length or digest")
	}
	left, err := newTest(t).Leavers()
	if err != nil || len(left) != 1 || left[event.Token(alice(t))].Format("2006-01-02") != "2026-10-31" {
		t.Errorf("%v, %v", left, err)
	}
}

func TestLocal(t *testing.T) {
	l := testLocal(t)
	seen := map[event.Token]bool{}
	other, _ := NewLocal(bytes.Repeat([]byte{8}, KeySize), [16]byte{}, 1)
	later, _ := NewLocal(bytes.Repeat([]byte{7}, KeySize), [16]byte{}, 2)
	org, _ := NewLocal(bytes.Repeat([]byte{7}, KeySize), [16]byte{}, 1)
	for _, l := range []*Local{l, other, later, org} {
		for _, k := range []event.TokenKind{event.Person, event.Mail, event.Device, event.Address} {
			for _, c := range []string{"alice", "bob", ""} {
				tok, err := l.Token(k, []byte(c))
				if err != nil || seen[tok] || !event.IsToken([]byte(tok)) {
					t.Errorf("%c %q: %q, %v", k, c, tok, err)
				}
				seen[tok] = true
				if again, _ := l.Token(k, []byte(c)); again != tok {
					t.Error("not the same twice")
				}
			}
		}
	}
	if _, err := NewLocal([]byte("short"), [16]byte{}, 1); err == nil {
		t.Error("a short key")
	}
	if _, err := NewLocal(make([]byte, KeySize), [16]byte{}, 0); err == nil {
		t.Error("epoch 0")
	}
}

func TestCacheIsBounded(t *testing.T) {
	var c cache
	for i := range 3*maxCached + 10 {
		c.put(strings.Repeat("x", i%7)+string(rune('a'+i%26))+reflect.ValueOf(i).String()+string(rune(i+1000)), cached{text: "t"})
	}
	if n := len(c.young) + len(c.old); n > 2*maxCached {
		t.Errorf("%d entries", n)
	}
	c.put(strings.Repeat("x", maxCachedKey+1), cached{})
	if _, ok := c.get([]byte(strings.Repeat("x", maxCachedKey+1))); ok {
		t.Error("a long key is kept")
	}
}

func FuzzDirectory(f *testing.F) {
	f.Add([]byte(directoryYAML), []byte(`CORP\alice on ALICE-LAPTOP`))
	f.Add([]byte(plantedDirectory), []byte("0044-20-7946-0991 S-1-5-21-1"))
	f.Add([]byte("apiVersion: directory/v1\npeople: [{id: a, names: ['\\x', 'a b', \"\\u0301\"]}]"), []byte("x"))
	f.Fuzz(func(t *testing.T, file, text []byte) {
		d, err := ParseDirectory(file)
		if err != nil {
			return
		}
		p := New(testLocal(t), d, testHash)
		r := new(record)
		r.reset()
		p.text(r, text)
		p.whole(r, &event.Field{Value: text}, hintPerson)
	})
}

// FuzzText surrounds a planted form with anything: it never passes.
func FuzzText(f *testing.F) {
	rule := defaultRule(f)
	p := plantedTest(f)
	for i := range planted {
		f.Add([]byte("run "), []byte(" /x"), uint8(i), uint8(0))
	}
	for i := range shaped {
		f.Add([]byte("run@x.example, "), []byte(" \\Users\\ "), uint8(len(planted)+i), uint8(1))
	}
	f.Add([]byte("r\xe8\x03\x00\x00.exe, <"), []byte("\\Users,\\ "), uint8(9), uint8(5))
	f.Add([]byte("p1_aaaaaaaaaaaaaaaaaaaaaaaaaa\\"), []byte("\xff\xfe\u0301"), uint8(3), uint8(2))
	f.Add([]byte("444=4"), []byte("444=444 /x"), uint8(len(planted)+len(shaped)-1), uint8(0))
	victim := alice(f)
	digest := string(admit.Hashed(testHash, []byte("x")))
	for i := range 8 {
		f.Add([]byte("x "+victim+"\\"), []byte("@"+digest+"/p1_"+victim), uint8(i), uint8(i))
	}
	forms := append(append([]string(nil), planted...), shaped...)
	separators := []string{" ", "\"", ", ", "\t", "'", "<", ">", "|"}
	f.Fuzz(func(t *testing.T, before, after []byte, which, sep uint8) {
		if leaks(before) != "" || leaks(after) != "" {
			return
		}
		form, s := forms[int(which)%len(forms)], separators[int(sep)%len(separators)]
		text := string(before) + s + form + s + string(after)
		for _, field := range []string{"message", "script", "user", "ip", "device", "mail"} {
			e := pass(t, p, rule, field, text)
			if l := leaks(inEvent(e)); l != "" {
				t.Fatalf("%s %q: %q passes in %q", field, text, l, value(e, field))
			}
			if out := inEvent(e); strings.Contains(text, victim) && bytes.Contains(out, []byte(victim)) || strings.Contains(text, digest) && bytes.Contains(out, []byte(digest)) {
				t.Fatalf("%s %q: forged in %q", field, text, value(e, field))
			}
			if again := pass(t, p, rule, field, text); !bytes.Equal(inEvent(again), inEvent(e)) {
				t.Fatalf("%q gives two events", text)
			}
		}
	})
}
