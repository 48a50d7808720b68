package admit

import (
	"bytes"
	"strings"
)

// unescaped undoes what logs do to text: %40, \u0040 and \x40, (3)oig(7)example(0)
// of the Windows DNS log, and the NUL after each letter of UTF-16. It reports
// whether anything changed, and allocates only then.
func unescaped(v []byte) ([]byte, bool) {
	if bytes.IndexByte(v, '%') < 0 && bytes.IndexByte(v, '\\') < 0 && bytes.IndexByte(v, 0) < 0 && bytes.IndexByte(v, '(') < 0 {
		return v, false
	}
	var out []byte
	from := 0
	put := func(i, next int, with ...byte) {
		out = append(append(out, v[from:i]...), with...)
		from = next
	}
	for i := 0; i < len(v); i++ {
		switch v[i] {
		case 0:
			put(i, i+1)
		case '%':
			if c, ok := hexByte(v, i+1); ok {
				put(i, i+3, c)
				i += 2
			}
		case '\\':
			switch {
			case i+1 < len(v) && v[i+1] == '/':
				put(i, i+1)
			case i+1 < len(v) && v[i+1] == 'x':
				if c, ok := hexByte(v, i+2); ok {
					put(i, i+4, c)
					i += 3
				}
			case i+3 < len(v) && v[i+1] == 'u' && v[i+2] == '0' && v[i+3] == '0':
				if c, ok := hexByte(v, i+4); ok && c < 0x80 {
					put(i, i+6, c)
					i += 5
				}
			}
		case '(':
			j := i + 1
			for j < len(v) && j < i+4 && v[j] >= '0' && v[j] <= '9' {
				j++
			}
			if j > i+1 && j < len(v) && v[j] == ')' {
				put(i, j+1, '.')
				i = j
			}
		}
	}
	if out == nil {
		return v, false
	}
	return append(out, v[from:]...), true
}

func hexByte(v []byte, i int) (byte, bool) {
	if i+2 > len(v) {
		return 0, false
	}
	hi, lo := hexDigit(v[i]), hexDigit(v[i+1])
	return hi<<4 | lo, hi < 16 && lo < 16
}

func hexDigit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	}
	return 0xff
}

// The xn-- form of RFC 3492, both ways, for domains of a list. Mapping is Fold: no
// more of IDNA is needed to compare two spellings of one domain.
const (
	punyBase, punyMin, punyMax, punySkew, punyDamp = 36, 1, 26, 38, 700
	punyBias, punyN                                = 72, 128
)

func toASCII(domain string) string {
	labels := strings.Split(domain, ".")
	for i, l := range labels {
		for _, r := range l {
			if r >= 0x80 {
				if p, ok := punyEncode([]rune(l)); ok {
					labels[i] = "xn--" + p
				}
				break
			}
		}
	}
	return strings.Join(labels, ".")
}

func toUnicode(domain string) string {
	labels := strings.Split(domain, ".")
	for i, l := range labels {
		if rest, ok := strings.CutPrefix(l, "xn--"); ok {
			if u, ok := punyDecode(rest); ok {
				labels[i] = Fold(u)
			}
		}
	}
	return strings.Join(labels, ".")
}

func punyAdapt(delta, n int, first bool) int {
	if first {
		delta /= punyDamp
	} else {
		delta /= 2
	}
	delta += delta / n
	k := 0
	for ; delta > (punyBase-punyMin)*punyMax/2; k += punyBase {
		delta /= punyBase - punyMin
	}
	return k + (punyBase-punyMin+1)*delta/(delta+punySkew)
}

func punyThreshold(k, bias int) int { return min(max(k-bias, punyMin), punyMax) }

func punyEncode(label []rune) (string, bool) {
	if len(label) > 63 {
		return "", false
	}
	var b strings.Builder
	for _, r := range label {
		if r < 0x80 {
			b.WriteRune(r)
		}
	}
	done, basic := b.Len(), b.Len()
	if basic > 0 {
		b.WriteByte('-')
	}
	digit := func(d int) { b.WriteByte("abcdefghijklmnopqrstuvwxyz0123456789"[d]) }
	n, delta, bias := rune(punyN), 0, punyBias
	for done < len(label) {
		next := rune(0x7fffffff)
		for _, r := range label {
			if r >= n && r < next {
				next = r
			}
		}
		delta += int(next-n) * (done + 1)
		n = next
		for _, r := range label {
			if r < n {
				delta++
			}
			if r != n {
				continue
			}
			q := delta
			for k := punyBase; ; k += punyBase {
				t := punyThreshold(k, bias)
				if q < t {
					break
				}
				digit(t + (q-t)%(punyBase-t))
				q = (q - t) / (punyBase - t)
			}
			digit(q)
			bias = punyAdapt(delta, done+1, done == basic)
			delta = 0
			done++
		}
		delta++
		n++
	}
	return b.String(), true
}

func punyDecode(s string) (string, bool) {
	if len(s) > 63 {
		return "", false
	}
	var out []rune
	if i := strings.LastIndexByte(s, '-'); i > 0 {
		out, s = []rune(s[:i]), s[i+1:]
	}
	n, pos, bias := punyN, 0, punyBias
	for len(s) > 0 {
		old, w := pos, 1
		for k := punyBase; ; k += punyBase {
			if s == "" {
				return "", false
			}
			c := s[0]
			s = s[1:]
			d := 0
			switch {
			case c >= 'a' && c <= 'z':
				d = int(c - 'a')
			case c >= '0' && c <= '9':
				d = int(c-'0') + 26
			default:
				return "", false
			}
			pos += d * w
			t := punyThreshold(k, bias)
			if d < t {
				break
			}
			if w *= punyBase - t; w > 1<<40 || pos > 1<<40 {
				return "", false
			}
		}
		bias = punyAdapt(pos-old, len(out)+1, old == 0)
		n += pos / (len(out) + 1)
		pos %= len(out) + 1
		if n > 0x10ffff {
			return "", false
		}
		out = append(out[:pos], append([]rune{rune(n)}, out[pos:]...)...)
		pos++
	}
	return string(out), true
}
