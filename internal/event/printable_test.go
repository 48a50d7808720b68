package event

import "testing"

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain äöü":         "plain äöü",
		"\x1b[31mred":       `\x1b[31mred`,
		"a\u202eb":          `a\u202eb`,
		"nul\x00":           `nul\x00`,
		"line\nbreak":       `line\nbreak`,
		"broken \xff":       `broken \xff`,
		"zero\u200bwidth":   `zero\u200bwidth`,
		"sep\u2028":         `sep\u2028`,
		"\U0010fffd opaque": `\U0010fffd opaque`,
	} {
		if got := Printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
