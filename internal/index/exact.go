package index

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// The library stores a column of numbers, addresses or times as such and prints
// them back in a form of its own: 60.0 comes back as 60, 1_000 as 1000, 01.2.3.4
// as 1.2.3.4. Whether it does depends on the other values of the block. kept gives
// what to store under the field so that this never shows: values that come back as
// they are stay; a number gets its own form, so that ordering works; anything else
// a space at its end, so that the library takes it for text. The exact value of the
// latter two is stored beside it (spread).
func kept(v string) (stored string, exact bool) {
	if v == "" || v[0] != '-' && (v[0] < '0' || v[0] > '9') || len(v) > maxNumeric {
		return v, true
	}
	dots, odd := 0, false
	for i := range len(v) {
		switch c := v[i]; {
		case c >= '0' && c <= '9', c == '-' && i == 0:
		case c == '.':
			dots++
		case c == '_':
			odd = true
		case c == '-' || c == ':' || c == 'T' || c == 'Z':
			return keptTime(v)
		case v[i:] == textMark: // text that looks marked gets a mark of its own
			return v + textMark, false
		default:
			return v, true
		}
	}
	switch {
	case v == "-":
		return v, true
	case odd || v[0] == '-' && strings.Trim(v, "-0.") == "":
		return v + textMark, false
	case dots == 0:
		return v, true // whole numbers come back; what is too long or begins with 0 is text
	case dots == 1:
		return keptFloat(v)
	case dots == 3:
		return keptAddress(v)
	}
	return v, true
}

const (
	textMark   = "\xff" // no text in UTF-8 ends with it
	maxNumeric = 32
)

// written undoes the mark of kept.
func written(stored string) string {
	v, marked := strings.CutSuffix(stored, textMark)
	if marked && v != "" && len(v) <= maxNumeric+1 && strings.Trim(strings.TrimSuffix(v, textMark), "-.:_TZ0123456789") == "" {
		return v
	}
	return stored
}

func keptTime(v string) (string, bool) {
	const form = "2006-01-02T15:04:05.000Z"
	if len(v) != len(form) || v[10] != 'T' || v[23] != 'Z' {
		return v, true
	}
	if t, err := time.Parse(form, v); err == nil && t.Format(form) == v {
		return v, true
	}
	return v + textMark, false
}

// keptFloat computes as the library does: whole part plus fraction times a power
// of ten, in one rounding.
func keptFloat(v string) (string, bool) {
	whole, frac, _ := strings.Cut(strings.TrimPrefix(v, "-"), ".")
	if whole == "" || frac == "" || len(whole) > 1 && whole[0] == '0' {
		return v, true // text for the library
	}
	n, err1 := strconv.ParseUint(whole, 10, 64)
	m, err2 := strconv.ParseUint(frac, 10, 64)
	if err1 != nil || err2 != nil {
		return v + textMark, false
	}
	f := math.FMA(float64(m), math.Pow10(-len(frac)), float64(n))
	if v[0] == '-' {
		f = -f
	}
	text := strconv.FormatFloat(f, 'f', -1, 64)
	return text, text == v
}

func keptAddress(v string) (string, bool) {
	for _, part := range strings.Split(v, ".") {
		if len(part) > 1 && part[0] == '0' {
			return v + textMark, false
		}
	}
	return v, true
}
