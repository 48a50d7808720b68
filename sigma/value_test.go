package sigma

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// TestFold: letters that differ by case fold to one, everything else stays
// itself, bytes that are not UTF-8 among it.
func TestFold(t *testing.T) {
	for _, same := range [][]string{
		{"k", "K", "\u212a"}, {"s", "S", "\u017f"}, {"ä", "Ä"}, {"σ", "ς", "Σ"}, {"\u01c5", "\u01c4", "\u01c6"},
	} {
		for _, s := range same[1:] {
			if foldString(s) != foldString(same[0]) {
				t.Errorf("%q and %q fold apart", s, same[0])
			}
		}
	}
	seen := map[string]string{}
	for _, s := range []string{"\xff", "\xfe", "\ufffd", "a", "b", "ß", "ss", "i", "ı", "\U0010fffd", ""} {
		if other, ok := seen[foldString(s)]; ok {
			t.Errorf("%q and %q fold together", s, other)
		}
		seen[foldString(s)] = s
	}
}

// TestIndexWithTokens compares the search with one that tries every place.
func TestIndexWithTokens(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		b := []byte(strings.Repeat("x", r.IntN(12)))
		for i := range b {
			b[i] = "ab"[r.IntN(2)]
		}
		v := text{b: b}
		for at := 0; at < len(b); {
			start := at + r.IntN(4)
			end := start + 1 + r.IntN(3)
			if end > len(b) {
				break
			}
			v.spans = append(v.spans, span{start, end})
			at = end
		}
		lit := []byte("abab"[r.IntN(3):][:1+r.IntN(2)])[:1]
		if r.IntN(2) == 0 && len(b) > 2 {
			i := r.IntN(len(b) - 1)
			lit = b[i : i+1+r.IntN(len(b)-i)]
		}
		inside := func(i int) bool {
			for _, s := range v.spans {
				if s.start < i && i < s.end {
					return true
				}
			}
			return false
		}
		want := -1
		for i := 0; i+len(lit) <= len(b) && want < 0; i++ {
			if string(b[i:i+len(lit)]) == string(lit) && !inside(i) && !inside(i+len(lit)) {
				want = i
			}
		}
		if got := v.index(lit, 0); got != want {
			t.Fatalf("%q in %q with tokens %v: %d, want %d", lit, b, v.spans, got, want)
		}
		for i := range len(b) + 1 {
			if v.cuts(i) != inside(i) {
				t.Fatalf("%q with tokens %v: cuts(%d) is %v", b, v.spans, i, v.cuts(i))
			}
		}
	}
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"1", "2", -1}, {"2", "1", 1}, {"1", "1.0", 0}, {"-1", "1", -1}, {"1", "-1", 1}, {"-2", "-1", -1}, {"-0", "0", 0},
		{"18446744073709551615", "18446744073709551614", 1}, {"-18446744073709551615", "-18446744073709551614", -1},
		{"99999999999999999999", "18446744073709551615", 1}, {"0x10", "16", 0}, {"1e3", "1000", 0}, {"+5", "5", 0}, {".5", "0.5", 0},
	} {
		a, okA := parseNumber([]byte(c.a))
		b, okB := parseNumber([]byte(c.b))
		if !okA || !okB || a.compare(b) != c.want {
			t.Errorf("%s and %s: %d (%v, %v), want %d", c.a, c.b, a.compare(b), okA, okB, c.want)
		}
	}
	for _, bad := range []string{"", "-", "+", "x", "0x", "0xg", "1 ", " 1", "1,5", "NaN", "Inf", "1e999", "e", ".", "1_000", "--1", "0x1p4", strings.Repeat("1", 65)} {
		if n, ok := parseNumber([]byte(bad)); ok {
			t.Errorf("%q is read as %v", bad, n)
		}
	}
}
