package sigmajson_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/counterseal/counterseal/sigma"
	"github.com/counterseal/counterseal/sigma/sigmajson"
)

// lines writes fields down, one on a line.
func lines(fields []sigma.Field) string {
	var b strings.Builder
	for _, f := range fields {
		fmt.Fprintf(&b, "%s %d %q\n", f.Name, f.Kind, f.Value)
	}
	return b.String()
}

func TestFields(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"kinds", `{"s":"x","n":1,"t":true,"f":false,"z":null}`, "s 0 \"x\"\nn 1 \"1\"\nt 2 \"true\"\nf 2 \"false\"\nz 3 \"\"\n"},
		{"order and blanks", " {\n\"b\" : 1 ,\t\"a\": 2 } \r\n", "b 1 \"1\"\na 1 \"2\"\n"},
		{"dotted names", `{"a":{"b":{"c":1},"d":2},"e":3}`, "a.b.c 1 \"1\"\na.d 1 \"2\"\ne 1 \"3\"\n"},
		{"arrays are lists", `{"a":["x",1,null],"b":[["y"],["z"]]}`, "a 0 \"x\"\na 1 \"1\"\na 3 \"\"\nb 0 \"y\"\nb 0 \"z\"\n"},
		{"objects in arrays", `{"a":[{"b":1,"c":2},{"b":3}]}`, "a.b 1 \"1\"\na.c 1 \"2\"\na.b 1 \"3\"\n"},
		{"empty ones are null", `{"a":{},"b":[],"c":{"d":[]}}`, "a 3 \"\"\nb 3 \"\"\nc.d 3 \"\"\n"},
		{"an empty object has no fields", `{}`, ""},
		{"duplicate names", `{"a":1,"a":"2","a":{"b":3},"a.b":4}`, "a 1 \"1\"\na 0 \"2\"\na.b 1 \"3\"\na.b 1 \"4\"\n"},
		{"an empty name", `{"":1,"a":{"":2}}`, " 1 \"1\"\na. 1 \"2\"\n"},
		{"numbers as written", `{"n":[-0,1.50,1E+2,12345678901234567890,1e400,0.1000000000000000055511151231257827]}`,
			"n 1 \"-0\"\nn 1 \"1.50\"\nn 1 \"1E+2\"\nn 1 \"12345678901234567890\"\nn 1 \"1e400\"\nn 1 \"0.1000000000000000055511151231257827\"\n"},
		{"escapes", `{"\u0061\n":"\"\\\/\b\f\n\r\t\u20ac\ud83d\ude00"}`, "a\n 0 \"\\\"\\\\/\\b\\f\\n\\r\\t€😀\"\n"},
		{"half a pair takes nothing with it", `{"a":"\ud800\u0077hoami","b":"\udc00x"}`, "a 0 \"�whoami\"\nb 0 \"�x\"\n"},
		{"not UTF-8", "{\"a\xff\":\"b\xc3\"}", "a� 0 \"b�\"\n"},
	} {
		var r sigmajson.Reader
		for range 2 { // the second time the names are known
			fields, err := r.Fields(nil, []byte(c.text))
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			if diff := cmp.Diff(c.want, lines(fields)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", c.name, diff)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	deep := strings.Repeat(`[`, sigmajson.MaxDepth) + strings.Repeat(`]`, sigmajson.MaxDepth)
	for _, c := range []struct {
		text, want string
	}{
		{``, "byte 0: not a JSON object"},
		{`[1]`, "byte 0: not a JSON object"},
		{`"secret"`, "byte 0: not a JSON object"},
		{`{"a":1`, "byte 6: not valid JSON"},
		{`{"a":secret}`, "byte 5: not valid JSON"},
		{`{"a":01}`, "byte 6: not valid JSON"},
		{`{"a":1,}`, "byte 6: not valid JSON"},
		{`{"a":1}}`, "byte 7: not valid JSON"},
		{`{"a":1} {"b":2}`, "byte 9: more than one JSON value"},
		{"{\"a\":\"x\x01\"}", "byte 7: not valid JSON"},
		{`{"a":"\q"}`, "byte 6: not valid JSON"},
		{`{"a":NaN}`, "byte 5: not valid JSON"},
		{`{"a":[1}`, "byte 7: not valid JSON"},
		{`{"a":` + deep + `}`, "byte 68: objects and arrays nest deeper than 64"},
		{`{"` + strings.Repeat("x", sigmajson.MaxName+1) + `":1}`, "byte 516: a name is longer than 512 bytes"},
	} {
		var r sigmajson.Reader
		before := []sigma.Field{{Name: "kept"}}
		fields, err := r.Fields(before, []byte(c.text))
		var e *sigmajson.Error
		if !errors.As(err, &e) || err.Error() != "reading JSON fields: "+c.want {
			t.Errorf("%.40q: %v, want %s", c.text, err, c.want)
		}
		if len(fields) != 1 || fields[0].Name != "kept" {
			t.Errorf("%.40q: the fields are %v", c.text, fields)
		}
		if fields, err := r.Fields(nil, []byte(`{"a":1}`)); err != nil || lines(fields) != "a 1 \"1\"\n" {
			t.Errorf("after %.40q: %v, %v", c.text, fields, err)
		}
	}
	var r sigmajson.Reader
	if _, err := r.Fields(nil, []byte(`{"a":`+deep[1:len(deep)-1]+`}`)); err != nil {
		t.Errorf("as deep as allowed: %v", err)
	}
}

// TestNoAllocation: an event whose names are known costs none.
func TestNoAllocation(t *testing.T) {
	text := []byte(`{"EventID":1,"Image":"C:\\Windows\\x.exe","a":{"b":[true,null,"ü"]}}`)
	var r sigmajson.Reader
	var fields []sigma.Field
	if n := testing.AllocsPerRun(100, func() {
		var err error
		if fields, err = r.Fields(fields[:0], text); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestHostile: what a reader keeps does not grow with what it has read.
func TestHostile(t *testing.T) {
	var r sigmajson.Reader
	var many strings.Builder
	many.WriteString(`{"":0`)
	for i := range 200_000 {
		fmt.Fprintf(&many, `,"n%d":%d`, i, i)
	}
	many.WriteString(`}`)
	if fields, err := r.Fields(nil, []byte(many.String())); err != nil || len(fields) != 200_001 {
		t.Errorf("%d fields, %v", len(fields), err)
	}
	big := `{"a":"` + strings.Repeat(`\n`, 8<<20) + `"}`
	fields, err := r.Fields(nil, []byte(big))
	if err != nil || len(fields[0].Value) != 8<<20 {
		t.Errorf("a value of 8 MiB: %v", err)
	}
	names, _ := r.Kept()
	if names > 8192 {
		t.Errorf("%d names are kept", names)
	}
	if _, err := r.Fields(nil, []byte(`{}`)); err != nil {
		t.Error(err)
	}
	if _, values := r.Kept(); values > 1<<20 {
		t.Errorf("%d bytes are kept", values)
	}
}

// oracle reads an object with encoding/json.
func oracle(text []byte) (string, bool) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if tok, err := d.Token(); err != nil || tok != json.Delim('{') {
		return "", false
	}
	var b strings.Builder
	ok := members(d, &b, "", true, 1)
	if _, err := d.Token(); err != io.EOF {
		return "", false
	}
	return b.String(), ok
}

func members(d *json.Decoder, b *strings.Builder, name string, object bool, depth int) bool {
	empty := true
	for d.More() {
		empty = false
		full := name
		if object {
			tok, err := d.Token()
			if err != nil {
				return false
			}
			key := tok.(string)
			if depth > 1 {
				full += "."
			}
			full += key
			if len(full) > sigmajson.MaxName {
				return false
			}
		}
		tok, err := d.Token()
		if err != nil {
			return false
		}
		switch v := tok.(type) {
		case json.Delim:
			if depth == sigmajson.MaxDepth || !members(d, b, full, v == '{', depth+1) {
				return false
			}
		case string:
			fmt.Fprintf(b, "%s %d %q\n", full, sigma.KindString, v)
		case json.Number:
			fmt.Fprintf(b, "%s %d %q\n", full, sigma.KindNumber, v)
		case bool:
			fmt.Fprintf(b, "%s %d %q\n", full, sigma.KindBool, fmt.Sprint(v))
		case nil:
			fmt.Fprintf(b, "%s %d %q\n", full, sigma.KindNull, "")
		}
	}
	if _, err := d.Token(); err != nil {
		return false
	}
	if empty && depth > 1 {
		fmt.Fprintf(b, "%s %d %q\n", name, sigma.KindNull, "")
	}
	return true
}

// FuzzFields: a text is taken if and only if encoding/json takes it, inside our
// bounds, and gives the same fields.
func FuzzFields(f *testing.F) {
	for _, s := range []string{
		`{"EventID":4688,"NewProcessName":"C:\\Windows\\System32\\whoami.exe","Keywords":-9214364837600034816}`,
		`{"a":{"b":[1,{"c":null},[],{}],"b":true},"a":1e400,"":"\ud800\u0077\ud83d\ude00"}`,
		"{\"a\xff\":\"\xed\xa0\x80\"}", `{"a":[[[[1.0e-5]]]]}`, `{"a":1}{`, `{"a":"\u00"}`, `{ }`, `{"a":1,}`, `nul`,
		`{"x":` + strings.Repeat(`{"y":`, 70) + `1` + strings.Repeat(`}`, 71),
		`{"` + strings.Repeat("n", 300) + `":{"` + strings.Repeat("n", 300) + `":1}}`,
	} {
		f.Add([]byte(s))
	}
	var r sigmajson.Reader
	f.Fuzz(func(t *testing.T, text []byte) {
		fields, err := r.Fields(nil, text)
		want, ok := oracle(text)
		// The token reader of encoding/json is lax between tokens; its checker is not.
		ok = ok && json.Valid(text)
		if ok != (err == nil) {
			t.Fatalf("%q: %v, encoding/json says %v", text, err, ok)
		}
		if ok && want != lines(fields) {
			t.Fatalf("%q:\n%s\nencoding/json:\n%s", text, lines(fields), want)
		}
	})
}
