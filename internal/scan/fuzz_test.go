package scan

import (
	"bufio"
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzPrint prints any text in every form: what comes out moves no cursor, and a
// JSON reader gets back what went in.
func FuzzPrint(f *testing.F) {
	f.Add("plain", "C:\\x \"q\"")
	f.Add("\x1b[31m\x07", "\u202e\u2066\u200b\u2028\u0085\x7f")
	f.Add("\xff\xfe", "\U000e0001 \U000f0000 \\u202e =1")
	f.Fuzz(func(t *testing.T, host, value string) {
		in := Finding{Time: value, Host: host, Rule: Rule{Title: value, Tags: []string{}}, Source: Source{Path: host}, Matched: []Pair{{host, value}}}
		var table, lines bytes.Buffer
		tw, lw := bufio.NewWriter(&table), bufio.NewWriter(&lines)
		if err := printLine(tw, &in); err != nil {
			t.Fatal(err)
		}
		if err := printJSON(lw, &in); err != nil {
			t.Fatal(err)
		}
		tw.Flush()
		lw.Flush()
		if strings.Count(table.String(), "\n") != 2 || bytes.Count(lines.Bytes(), []byte("\n")) != 1 {
			t.Errorf("line breaks: %q %q", table.String(), lines.String())
		}
		for _, out := range []string{table.String(), lines.String(), strings.Join(csvRow(&in), "")} {
			if !utf8.ValidString(out) {
				t.Errorf("not UTF-8: %q", out)
			}
			for _, r := range out {
				if r != '\n' && commands(r) {
					t.Errorf("prints %U: %q", r, out)
				}
			}
		}
		var back Finding
		if err := json.Unmarshal(lines.Bytes(), &back); err != nil {
			t.Fatal(err)
		}
		if want := strings.ToValidUTF8(value, "\ufffd"); utf8.ValidString(value) && back.Matched[0].Value != want {
			t.Errorf("%q comes back as %q", value, back.Matched[0].Value)
		}
	})
}
