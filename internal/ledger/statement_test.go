package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

func TestCanonicalForm(t *testing.T) {
	s := Statement{
		ID:   uuid.MustParse("01928f3a-7b6c-7def-8123-456789abcdef"),
		Kind: "segment.closed", Time: time.Date(2026, 11, 25, 9, 0, 0, 120_000, time.UTC), Node: "n1", Seq: 1<<63 + 1,
		Actor: "system", Subject: []string{"general/01928f3a-7b6c-7def-8123-456789abcdef/7"},
		Detail: json.RawMessage(`{"stream":"<events> & more","records": 1048576, "root" : "00ff", "b":[true,"é\u0001"],"compartment":"general"}`),
	}
	const want = `{"_type":"counterseal/statement/v1","actor":"system","detail":{"b":[true,"é\u0001"],"compartment":"general",` +
		`"records":1048576,"root":"00ff","stream":"<events> & more"},"id":"01928f3a-7b6c-7def-8123-456789abcdef","kind":"segment.closed",` +
		`"node":"n1","seq":"9223372036854775809","subject":["general/01928f3a-7b6c-7def-8123-456789abcdef/7"],"time":"2026-11-25T09:00:00.000120Z"}`
	got, err := s.Canonical()
	if err != nil || string(got) != want {
		t.Fatalf("got  %s, %v\nwant %s", got, err, want)
	}
	back, err := Parse(got)
	if err != nil || back.Seq != s.Seq || !back.Time.Equal(s.Time) {
		t.Fatalf("%+v, %v", back, err)
	}
	for _, change := range [][2]string{
		{`"actor":"system"`, `"actor": "system"`}, {`.000120Z`, `.00012Z`}, {`.000120Z`, `.000120+00:00`}, {`"n1"`, `"\u006e1"`},
		{`"seq":"9`, `"seq":"09`}, {`9223372036854775809`, `-1`}, {`1048576`, `1048576.0`}, {`1048576`, `1e3`}, {`1048576`, `-0`}, {`00ff"`, "00ff\"\n"},
		{`01928f3a-7b6c-7def-8123-456789abcdef","kind`, `01928F3A-7b6c-7def-8123-456789abcdef","kind`},
		{`}`, `},"extra":1`}, {`{"_type":"counterseal/statement/v1",`, `{`}, {`statement/v1`, `statement/v2`}, {`,"time"`, `,"time":"","time"`},
		{`"subject":[`, `"subject":[],"x":[`}, {`segment.closed`, `Segment.closed`}, {`segment.closed`, `closed`}, {`"actor":"system",`, `"actor":"system","Actor":"system",`},
	} {
		bad := strings.Replace(want, change[0], change[1], 1)
		if bad == want {
			t.Fatal("nothing changed:", change)
		}
		if _, err := Parse([]byte(bad)); !errors.Is(err, ErrForm) {
			t.Errorf("%v: %v", change, err)
		}
	}
}

// TestStatementProperty: what Canonical writes, Parse reads back equal, and the
// writing does not depend on the order or spelling of the detail.
func TestStatementProperty(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	word := func() string {
		const set = "abcXYZ019._:/-"
		b := make([]byte, 1+rng.IntN(20))
		for i := range b {
			b[i] = set[rng.IntN(len(set))]
		}
		return string(b)
	}
	text := func() string {
		var b strings.Builder
		for range rng.IntN(12) {
			r := []rune{'a', '<', '"', '\\', 'é', '\n', '\u2028', '😀', 0, 0x7f, '\ufffd', '&'}
			b.WriteRune(r[rng.IntN(len(r))])
		}
		return b.String()
	}
	var value func(depth int) any
	value = func(depth int) any {
		switch n := rng.IntN(6); {
		case n == 0 && depth > 0:
			m := map[string]any{}
			for range rng.IntN(4) {
				m[word()] = value(depth - 1)
			}
			return m
		case n == 1 && depth > 0:
			a := []any{}
			for range rng.IntN(4) {
				a = append(a, value(depth-1))
			}
			return a
		case n == 2:
			return rng.Int64N(2*maxExact) - maxExact
		case n == 3:
			return rng.IntN(2) == 0
		}
		return text()
	}
	kinds := Kinds()
	for range 2000 {
		detail := map[string]any{}
		for range rng.IntN(5) {
			detail[word()] = value(4)
		}
		s, err := New(kinds[rng.IntN(len(kinds))].Name, word(), time.UnixMicro(rng.Int64N(4e15)), detail)
		if err != nil {
			t.Fatal(err)
		}
		s.Node, s.Seq = word(), 1+rng.Uint64N(1<<64-1)
		for range rng.IntN(3) {
			s.Subject = append(s.Subject, word())
		}
		if rng.IntN(2) == 0 {
			s.Purpose = word()
		}
		raw, err := s.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		whole := jsontext.Value(bytes.Clone(raw))
		if err := whole.Canonicalize(); err != nil || !bytes.Equal(whole, raw) {
			t.Fatalf("%s is canonically %s, %v", raw, whole, err)
		}
		back, err := Parse(raw)
		if err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		again, err := back.Canonical()
		if err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("%s became %s, %v", raw, again, err)
		}
		var got map[string]any
		dec := json.NewDecoder(bytes.NewReader(back.Detail))
		dec.UseNumber()
		if err := dec.Decode(&got); err != nil || !reflect.DeepEqual(fmt.Sprint(got), fmt.Sprint(detail)) {
			t.Fatalf("%v became %v, %v", detail, got, err)
		}
		back.Detail, s.Detail = nil, nil
		if d := cmp.Diff(s, back); d != "" {
			t.Fatal(d)
		}
	}
}

func TestKinds(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Kinds() {
		if !isKind(k.Name) || k.About == "" || seen[k.Name] {
			t.Errorf("%+v", k)
		}
		seen[k.Name] = true
		for _, d := range k.Detail {
			if !isName(d) {
				t.Errorf("%s: %q", k.Name, d)
			}
		}
	}
}

// FuzzParse: what is read is canonical, so it is written back byte for byte.
func FuzzParse(f *testing.F) {
	for i, k := range Kinds()[:4] {
		s, err := New(k.Name, "system", time.Unix(1e9, 0), map[string]any{"a": i, "b": []string{"x"}, "c": map[string]any{"d": true}})
		if err != nil {
			f.Fatal(err)
		}
		s.Node, s.Seq = "n1", 1
		raw, err := s.Canonical()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
		f.Add(bytes.Replace(raw, []byte(`"a":`), []byte(`"\u0061":`), 1))
		f.Add(append(raw, ' '))
	}
	f.Add([]byte(`{"_type":"counterseal/statement/v1","detail":{"a":9007199254740993}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := Parse(raw)
		if err != nil {
			if !errors.Is(err, ErrForm) {
				t.Fatal(err)
			}
			return
		}
		if !utf8.Valid(raw) || len(raw) > MaxStatement {
			t.Fatalf("%q", raw)
		}
		again, err := s.Canonical()
		if err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("%q became %q, %v", raw, again, err)
		}
	})
}

// FuzzProof: a proof that parses prints back, and one that was changed proves nothing.
func FuzzProof(f *testing.F) {
	var h history
	h.grow("a", 5)
	cp := h.checkpoint(f, 1, testOrigin, 5)
	f.Add([]byte(proofHeader + "\nindex 0\n\n" + cp))
	f.Add([]byte(proofHeader + "\nextra YWJj\nindex 4\n" + h.proof(f, 3, 5) + "\n" + cp))
	f.Add([]byte(proofHeader + "\nindex 04\n\n" + cp))
	v := Verifiers{Log: []string{testVKey(f, 1)}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, err := VerifyProof([]byte("never in the log"), raw, v); err == nil {
			t.Fatalf("%q", raw)
		}
		i, p, cp, err := parseProof(raw)
		if err != nil {
			return
		}
		again := formatProof(i, p, cp)
		if j, p2, cp2, err := parseProof(again); err != nil || i != j || len(p) != len(p2) || !bytes.Equal(cp, cp2) {
			t.Fatalf("%q printed as %q, %v", raw, again, err)
		}
	})
}

// FuzzOutbox: no line comes out of an outbox that did not go in.
func FuzzOutbox(f *testing.F) {
	line := func(s string) string { return crc([]byte(s)) + " " + s + "\n" }
	head := outboxHead + " " + crc([]byte("3 9")) + " 3 9\n"
	f.Add([]byte(head))
	f.Add([]byte(head + line("a") + line("b")))
	f.Add([]byte(head + line("a") + "00000000 b\n" + line("c")))
	f.Add([]byte(head + line("a") + line("b")[:5]))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c := parseOutbox(raw)
		at := 0
		for _, l := range c.leaves {
			i := bytes.Index(raw[at:], []byte(line(string(l))))
			if i < 0 {
				t.Fatalf("%q from %q", l, raw)
			}
			at += i + len(line(string(l)))
		}
		if c.base < 0 {
			t.Fatal(c.base)
		}
	})
}

// FuzzBundle: entries fill their bundle.
func FuzzBundle(f *testing.F) {
	f.Add([]byte("\x00\x01a\x00\x00\x00\x02bc"))
	f.Add([]byte("\x00\x05a"))
	f.Add([]byte("\x00"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		entries, err := splitBundle(raw)
		if err != nil {
			return
		}
		n := 0
		for _, e := range entries {
			n += 2 + len(e)
		}
		if n != len(raw) || len(entries) > tileWidth {
			t.Fatal(n, len(raw), len(entries))
		}
	})
}

// TestKindsAreDocumented holds docs/formats/ledger.md to the list.
func TestKindsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/formats/ledger.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range Kinds() {
		detail := "–"
		if len(k.Detail) > 0 {
			detail = "`" + strings.Join(k.Detail, "` `") + "`"
		}
		row := fmt.Sprintf("| `%s` | %s | %s |\n", k.Name, k.About, detail)
		if !bytes.Contains(doc, []byte(row)) {
			t.Errorf("docs/formats/ledger.md lacks this row:\n%s", row)
		}
	}
}
