package sigma

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"
)

// opaqueRune stands for an opaque token wherever a value is read rune by rune.
// It is a noncharacter of a private plane: no rule has a reason to write it.
const opaqueRune = '\U0010FFFD'

type partKind uint8

const (
	partText        partKind = iota
	partOne                  // ?
	partAny                  // *
	partPlaceholder          // %name%, between expand and its values
)

// part is a piece of a value.
type part struct {
	kind partKind
	text string // literal, or the name of a placeholder
}

// parsePattern reads wildcards and escapes: a backslash escapes *, ? and itself,
// and is itself before anything else. With expand it reads %name% as a placeholder
// and \% as a percent sign too.
func parsePattern(s string, expand bool) []part {
	var parts []part
	var lit []byte
	flush := func() {
		if len(lit) > 0 {
			parts = append(parts, part{partText, string(lit)})
			lit = lit[:0]
		}
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '\\':
			if i+1 < len(s) && (s[i+1] == '\\' || s[i+1] == '*' || s[i+1] == '?' || expand && s[i+1] == '%') {
				i++
			}
			lit = append(lit, s[i])
		case '%':
			if name := placeholderName(s[i:]); expand && name != "" {
				flush()
				parts = append(parts, part{partPlaceholder, name})
				i += len(name) + 1
				continue
			}
			lit = append(lit, c)
		case '*':
			flush()
			parts = appendAny(parts)
		case '?':
			flush()
			parts = append(parts, part{kind: partOne})
		default:
			lit = append(lit, c)
		}
	}
	flush()
	return parts
}

// placeholderName returns the name of the placeholder that s begins with.
func placeholderName(s string) string {
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '%':
			return s[1:i]
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-', c == '.':
		default:
			return ""
		}
	}
	return ""
}

func appendAny(parts []part) []part {
	if n := len(parts); n > 0 && parts[n-1].kind == partAny {
		return parts
	}
	return append(parts, part{kind: partAny})
}

func prependAny(parts []part) []part {
	if len(parts) > 0 && parts[0].kind == partAny {
		return parts
	}
	return append([]part{{kind: partAny}}, parts...)
}

// plain returns the text of a value without wildcards and placeholders.
func plain(parts []part) (string, bool) {
	if len(parts) == 0 {
		return "", true
	}
	if len(parts) == 1 && parts[0].kind == partText {
		return parts[0].text, true
	}
	var b []byte
	for _, p := range parts {
		if p.kind != partText {
			return "", false
		}
		b = append(b, p.text...)
	}
	return string(b), true
}

// foldRune maps a rune to one of those that differ from it by case only: the
// lower-case letter for ASCII, the smallest of the class for the rest. Rule and
// event both go through it, so K (U+212A) equals k and ſ equals s.
func foldRune(r rune) rune {
	if r < utf8.RuneSelf {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}
	least := r
	for c := unicode.SimpleFold(r); c != r; c = unicode.SimpleFold(c) {
		least = min(least, c)
	}
	if 'A' <= least && least <= 'Z' {
		least += 'a' - 'A'
	}
	return least
}

// appendFold appends s folded. Bytes that are not UTF-8 stay as they are.
func appendFold(dst, s []byte) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			dst = append(dst, c)
			i++
			continue
		}
		r, n := utf8.DecodeRune(s[i:])
		if r == utf8.RuneError && n == 1 {
			dst = append(dst, c)
		} else {
			dst = utf8.AppendRune(dst, foldRune(r))
		}
		i += n
	}
	return dst
}

// folded reports whether appendFold would return s unchanged, for the common
// case of ASCII without capitals.
func folded(s []byte) bool {
	for _, c := range s {
		if c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}

func foldString(s string) string { return string(appendFold(nil, []byte(s))) }

// span is an opaque token inside a value.
type span struct{ start, end int }

// text is a value as the matcher reads it.
type text struct {
	b     []byte
	spans []span
}

// token returns the first token that ends after position i, or an empty span
// behind the value. A long value may hold many: hence the binary search.
func (t text) token(i int) span {
	k, _ := slices.BinarySearchFunc(t.spans, i, func(s span, i int) int {
		if s.end > i {
			return 1
		}
		return -1
	})
	if k < len(t.spans) {
		return t.spans[k]
	}
	return span{len(t.b), len(t.b)}
}

// cuts reports whether position i lies inside a token.
func (t text) cuts(i int) bool { return t.token(i).start < i && i < len(t.b) }

// next returns the position after the character at i: a rune, a byte that is
// not UTF-8, or a whole token.
func (t text) next(i int) int {
	if len(t.spans) > 0 {
		if s := t.token(i); s.start == i {
			return s.end
		}
	}
	if t.b[i] < utf8.RuneSelf {
		return i + 1
	}
	_, n := utf8.DecodeRune(t.b[i:])
	return i + n
}

func (t text) hasPrefix(lit []byte) bool {
	return bytes.HasPrefix(t.b, lit) && (t.spans == nil || !t.cuts(len(lit)))
}

func (t text) hasSuffix(lit []byte) bool {
	return bytes.HasSuffix(t.b, lit) && (t.spans == nil || !t.cuts(len(t.b)-len(lit)))
}

// index finds lit at or after from, at a place where it cuts no token.
func (t text) index(lit []byte, from int) int {
	for from <= len(t.b) {
		i := bytes.Index(t.b[from:], lit)
		if i < 0 {
			return -1
		}
		i += from
		switch {
		case t.spans == nil || !t.cuts(i) && !t.cuts(i+len(lit)):
			return i
		case t.cuts(i):
			from = t.token(i).end
		default:
			from = i + 1
		}
	}
	return -1
}

// atom is a compiled part.
type atom struct {
	kind partKind
	lit  []byte
}

// glob matches the whole value. Only the last star is ever moved: an earlier one
// gains nothing from taking more.
func (t text) glob(atoms []atom) bool {
	at, ai := 0, 0
	star, resume := -1, 0
	for {
		if ai == len(atoms) {
			if at == len(t.b) {
				return true
			}
		} else {
			switch a := &atoms[ai]; a.kind {
			case partAny:
				if ai == len(atoms)-1 {
					return true
				}
				star, resume = ai, at
				ai++
				continue
			case partOne:
				if at < len(t.b) {
					at = t.next(at)
					ai++
					continue
				}
			case partText:
				end := at + len(a.lit)
				if star == ai-1 && star >= 0 {
					// Right after the star: jump to the next place.
					i := t.index(a.lit, at)
					if i < 0 {
						return false
					}
					resume, at = i, i+len(a.lit)
					ai++
					continue
				}
				if bytes.HasPrefix(t.b[at:], a.lit) && (t.spans == nil || !t.cuts(end)) {
					at = end
					ai++
					continue
				}
			}
		}
		if star < 0 || resume >= len(t.b) {
			return false
		}
		resume = t.next(resume)
		at, ai = resume, star+1
	}
}

// number is a value read as a number; whole numbers keep all their digits.
type number struct {
	whole bool
	neg   bool
	mag   uint64
	f     float64
}

func parseNumber(b []byte) (number, bool) {
	if len(b) == 0 || len(b) > 64 {
		return number{}, false
	}
	s := b
	neg := false
	if s[0] == '-' || s[0] == '+' {
		neg, s = s[0] == '-', s[1:]
		if len(s) == 0 || s[0] == '-' || s[0] == '+' {
			return number{}, false
		}
	}
	if len(s) > 2 && s[0] == '0' && (s[1] == 'x' || s[1] == 'X') {
		u, err := strconv.ParseUint(string(s[2:]), 16, 64)
		return whole(neg, u), err == nil
	}
	digits, other := 0, 0
	for _, c := range s {
		switch {
		case '0' <= c && c <= '9':
			digits++
		case c == '.' || c == 'e' || c == 'E' || c == '+' || c == '-':
			other++
		default:
			return number{}, false
		}
	}
	if digits == 0 {
		return number{}, false
	}
	if other == 0 {
		if u, err := strconv.ParseUint(string(s), 10, 64); err == nil {
			return whole(neg, u), true
		}
	}
	f, err := strconv.ParseFloat(string(s), 64)
	if err != nil || math.IsInf(f, 0) {
		return number{}, false
	}
	if neg {
		f = -f
	}
	return number{f: f}, true
}

func whole(neg bool, u uint64) number {
	f := float64(u)
	if neg {
		f = -f
	}
	return number{whole: true, neg: neg && u != 0, mag: u, f: f}
}

func (a number) compare(b number) int {
	if a.whole && b.whole {
		switch {
		case a.neg != b.neg:
			if a.neg {
				return -1
			}
			return 1
		case a.mag == b.mag:
			return 0
		case (a.mag < b.mag) != a.neg:
			return -1
		}
		return 1
	}
	switch {
	case a.f < b.f:
		return -1
	case a.f > b.f:
		return 1
	}
	return 0
}

// timePart names a part of a time.
type timePart uint8

const (
	partMinute timePart = iota
	partHour
	partDay
	partWeek
	partMonth
	partYear
)

func parseTime(b []byte) (time.Time, bool) {
	if len(b) < len("2006-01-02T15:04") || len(b) > 40 {
		return time.Time{}, false
	}
	s := string(b)
	for _, layout := range []string{
		time.RFC3339, "2006-01-02 15:04:05Z07:00", "2006-01-02T15:04:05", "2006-01-02 15:04:05",
	} { // Parse takes a fraction of a second after each of them
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}

func (p timePart) of(t time.Time) int {
	switch p {
	case partMinute:
		return t.Minute()
	case partHour:
		return t.Hour()
	case partDay:
		return t.Day()
	case partWeek:
		_, w := t.ISOWeek()
		return w
	case partMonth:
		return int(t.Month())
	}
	return t.Year()
}
