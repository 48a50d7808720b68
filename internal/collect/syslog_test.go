package collect

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// split feeds in at the given places and lists what comes out.
func split(in []byte, max int, cuts ...int) []string {
	s := splitter{max: max}
	var out []string
	drain := func() bool {
		for {
			m, ok, err := s.next()
			switch {
			case err != nil:
				out = append(out, "ERR "+err.Error())
				return false
			case !ok:
				return true
			case m.large:
				out = append(out, "LARGE")
			default:
				out = append(out, string(m.body))
			}
		}
	}
	from := 0
	for _, c := range append(cuts, len(in)) {
		s.feed(in[from:c])
		from = c
		if !drain() {
			return out
		}
	}
	m, ok, broken := s.end()
	switch {
	case broken:
		out = append(out, "BROKEN")
	case ok && m.large:
		out = append(out, "LARGE")
	case ok:
		out = append(out, string(m.body))
	}
	return out
}

func TestSplitter(t *testing.T) {
	long := strings.Repeat("x", 3000)
	for name, c := range map[string]struct {
		in   string
		want []string
	}{
		"lines":                            {"<1>a\n<2>b\r\n\n<3>c", []string{"<1>a", "<2>b", "<3>c"}},
		"counted":                          {"4 <1>a6 <2>b\nc5 <3>d\n", []string{"<1>a", "<2>b\nc", "<3>d"}},
		"mixed":                            {"4 <1>a<2>b\n4 <3>c<4>d\n", []string{"<1>a", "<2>b", "<3>c", "<4>d"}},
		"counted with line ends":           {"4 <1>a\n4 <2>b\n", []string{"<1>a", "<2>b"}},
		"counted without priority":         {"4 <1>a5 hello", []string{"<1>a", "hello"}},
		"NUL at the end":                   {"<1>a\x00\n5 <1>b\x00", []string{"<1>a", "<1>b"}},
		"NUL inside":                       {"<1>a\x00b\n", []string{"<1>a\x00b"}},
		"a line that begins with a number": {"2024 was a year\n12 monkeys\n", []string{"2024 was a year", "12 monkeys"}},
		"eight digits and a priority":      {"12345678 <1>a", []string{"ERR an octet count of more than 7 digits"}},
		"leading zero is a line":           {"04 <1>a\n", []string{"04 <1>a"}},
		"too long, counted":                {"3000 " + "<" + long[1:] + "4 <1>a", []string{"LARGE", "<1>a"}},
		"too long, line":                   {long + "\n<1>a\n", []string{"LARGE", "<1>a"}},
		"cut":                              {"4 <1>a9 <2>b", []string{"<1>a", "BROKEN"}},
		"cut in the count":                 {"4 <1>a9", []string{"<1>a", "BROKEN"}},
		"nothing":                          {"", nil},
	} {
		if diff := cmp.Diff(c.want, split([]byte(c.in), 2048)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// TestSplitterAnyBoundary: the same bytes in other pieces are the same messages.
func TestSplitterAnyBoundary(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var b strings.Builder
		for range 1 + rnd.IntN(12) {
			body := "<13>" + strings.Repeat("ab 1\x00", rnd.IntN(14))
			switch rnd.IntN(4) {
			case 0:
				fmt.Fprintf(&b, "%d %s", len(body), body)
			case 1:
				fmt.Fprintf(&b, "%s\n", body)
			case 2:
				fmt.Fprintf(&b, "%d %s\r\n", rnd.IntN(90), body)
			case 3:
				b.WriteString(strings.Repeat("y", rnd.IntN(90)) + "\n")
			}
		}
		in := []byte(b.String())
		want := split(in, 48)
		for i := range in {
			if got := split(in, 48, i); !slices.Equal(want, got) {
				t.Fatalf("%q cut at %d: %s", in, i, cmp.Diff(want, got))
			}
		}
		every := make([]int, len(in))
		for i := range every {
			every[i] = i
		}
		if diff := cmp.Diff(want, split(in, 48, every...)); diff != "" {
			t.Fatalf("%q byte by byte: %s", in, diff)
		}
	}
}

func FuzzSplitter(f *testing.F) {
	for _, s := range []string{"<1>a\n4 <1>b", "9999999 <", "12345678 <a", "4 <1>a\n\x00\n9 9", strings.Repeat("z", 70) + "\n<1>a"} {
		f.Add([]byte(s), uint(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint) {
		want := split(in, 48)
		c := 0
		if len(in) > 0 {
			c = int(cut % uint(len(in)))
		}
		if diff := cmp.Diff(want, split(in, 48, c)); diff != "" {
			t.Fatalf("cut at %d: %s", c, diff)
		}
		for _, l := range want {
			if len(l) > 48 && !strings.HasPrefix(l, "ERR ") {
				t.Fatalf("a message of %d bytes", len(l))
			}
		}
	})
}
