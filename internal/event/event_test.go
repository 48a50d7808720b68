package event

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

func sample() *Event {
	return &Event{
		Envelope: Envelope{
			Source: "windows", Dataset: "win-security", Format: "winlogbeat/1", Group: "g", Zone: "UTC", Time: 1_700_000_000_000_000_100,
			Way: "http", Peer: "127.0.0.1", Conn: "c1", Seq: 7, Received: 1_700_000_001_000_000_000,
			Original: Ref{Compartment: "servers", Segment: uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057"), Ordinal: 9},
			Origin:   &Origin{File: [32]byte{1, 2}, Chunk: -1, Record: 3},
		},
		Fields: []Field{
			{Name: "Image", Value: []byte(`C:\x.exe`)},
			{Name: "EventID", Kind: Number, Value: []byte("4688")},
			{Name: "_time", Kind: Null, Value: []byte{}},
			{Name: "ip", Addr: 3, Value: []byte("a1_aaaaaaaaaaaaaaaaaaaaaaaaaa")},
		},
		RuleSet:  [32]byte{5},
		Verdicts: []Verdict{{Rule: [32]byte{6}}},
	}
}

func TestRoundTrip(t *testing.T) {
	want := sample()
	b := AppendEncode(nil, want)
	en, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, en.Event); diff != "" {
		t.Fatal(diff)
	}
	if !bytes.Equal(AppendEncode(nil, en.Event), b) {
		t.Fatal("second encoding differs")
	}
}

func TestContentLeavesReceiptOut(t *testing.T) {
	a, b := sample(), sample()
	b.Way, b.Peer, b.Conn, b.Seq, b.Received, b.Original, b.Origin, b.RuleSet, b.Verdicts = "x", "y", "z", 1, 2, Ref{}, nil, [32]byte{}, nil
	if a.Content() != b.Content() {
		t.Fatal("receipt data changed the content digest")
	}
	for name, change := range map[string]func(*Event){
		"source":  func(e *Event) { e.Source = "other" },
		"time":    func(e *Event) { e.Time++ },
		"kind":    func(e *Event) { e.Fields[0].Kind = Number },
		"value":   func(e *Event) { e.Fields[0].Value = []byte("y") },
		"class":   func(e *Event) { e.Fields[3].Addr = 1 },
		"missing": func(e *Event) { e.Fields = e.Fields[1:] },
	} {
		c := sample()
		change(c)
		if c.Content() == a.Content() {
			t.Errorf("%s does not change the content digest", name)
		}
	}
}

func TestDetectOnlyIsNeverEncoded(t *testing.T) {
	e := sample()
	e.DetectOnly = []Field{{Name: "CommandLine", Value: []byte("planted-secret")}}
	if bytes.Contains(AppendEncode(nil, e), []byte("planted-secret")) {
		t.Fatal("a detect-only value was encoded")
	}
}

func TestControlRecords(t *testing.T) {
	b, err := EncodeCard(&Card{Source: "s", N: 3, Received: time.Unix(5, 0).UTC()})
	if err != nil {
		t.Fatal(err)
	}
	en, err := Decode(b)
	if err != nil || en.Card == nil || en.Card.N != 3 {
		t.Fatalf("card: %+v, %v", en, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(AppendEncode(nil, sample()))
	f.Add(AppendEncode(nil, &Event{}))
	f.Add([]byte{1, 2, '{', '}'})
	f.Fuzz(func(t *testing.T, b []byte) {
		en, err := Decode(b)
		if err != nil || en.Event == nil {
			return
		}
		again := AppendEncode(nil, en.Event)
		en2, err := Decode(again)
		if err != nil {
			t.Fatal(err)
		}
		if en.Event.Content() != en2.Event.Content() {
			t.Fatal("content changed over a round trip")
		}
	})
}

func TestToken(t *testing.T) {
	tok := NewToken(Person, 1, [16]byte{0xff, 1, 2})
	if len(tok) != 3+26 || tok[:3] != "p1_" {
		t.Fatalf("token %q", tok)
	}
	text := []byte(`C:\Users\` + string(tok) + `\x`)
	s, e := NextToken(text)
	if string(text[s:e]) != string(tok) {
		t.Fatalf("found %q", text[s:e])
	}
	if !IsToken([]byte(tok)) || IsToken(text) {
		t.Fatal("IsToken")
	}
	if s, _ := NextToken([]byte("p1_short")); s != -1 {
		t.Fatal("found a token that is none")
	}
	if _, e := NextToken([]byte(NewToken(Device, 123, [16]byte{}))); e != 31 {
		t.Fatalf("three-digit epoch: end %d", e)
	}
}

func TestRef(t *testing.T) {
	r := sample().Original
	got, err := ParseRef(r.String())
	if err != nil || got != r {
		t.Fatalf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "a", "a/b", "A/01890a5d-ac96-774b-bcce-b302099a8057/1", "a/01890A5D-ac96-774b-bcce-b302099a8057/1", "a/01890a5d-ac96-774b-bcce-b302099a8057/01", "../01890a5d-ac96-774b-bcce-b302099a8057/1"} {
		if _, err := ParseRef(bad); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}

func TestFindingIDIgnoresOrder(t *testing.T) {
	a, b := [32]byte{1}, [32]byte{2}
	now := time.Unix(1, 0)
	if FindingID("r", [][32]byte{a, b}, "", now, now) != FindingID("r", [][32]byte{b, a}, "", now, now) {
		t.Fatal("the order of contents changed the id")
	}
	if FindingID("r", [][32]byte{a}, "", now, now) == FindingID("r", [][32]byte{b}, "", now, now) {
		t.Fatal("contents do not change the id")
	}
}

func TestClamp(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for _, c := range []struct {
		t  time.Time
		ok bool
	}{{now, true}, {now.Add(47 * time.Hour), true}, {now.Add(49 * time.Hour), false}, {time.Unix(-5, 0), false}, {time.Date(2286, 1, 1, 0, 0, 0, 0, time.UTC), false}} {
		if _, ok := Clamp(c.t, now); ok != c.ok {
			t.Errorf("%v: %v", c.t, ok)
		}
	}
}

// nextToken is the plain way to look for a token: at each byte.
func nextToken(b []byte) (start, end int) {
	for i := range b {
		for digits := 1; digits <= 4; digits++ {
			j := i + 1 + digits
			if j+1+tokenBody > len(b) || !strings.ContainsRune("pmda", rune(b[i])) || b[j] != '_' {
				continue
			}
			ok := true
			for k, c := range b[i+1 : j+1+tokenBody] {
				switch {
				case k < digits:
					ok = ok && c >= '0' && c <= '9'
				case k > digits:
					ok = ok && isTokenChar(c)
				}
			}
			if ok {
				return i, j + 1 + tokenBody
			}
		}
	}
	return -1, -1
}

// FuzzNextToken: looking for underscores finds what looking everywhere finds.
func FuzzNextToken(f *testing.F) {
	whole := string(NewToken(Mail, 12, [16]byte{1, 2, 3}))
	for _, s := range []string{"", "_", "p1_", whole, "pp" + whole, "1" + whole + whole, "m12345" + whole[3:], whole[1:], whole[:len(whole)-1], "a_p1_" + whole, "_" + whole + "_"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, e := NextToken(b)
		if ws, we := nextToken(b); s != ws || e != we {
			t.Errorf("%q: %d to %d, want %d to %d", b, s, e, ws, we)
		}
	})
}
