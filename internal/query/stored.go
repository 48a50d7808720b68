package query

import (
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// The library takes a column for whole numbers, fractions, IPv4 addresses or times
// where all values of a block look like it, and then prints them in a form of its
// own: 60.0 comes back as 60, 1_000 as 1000, 01.2.3.4 as 1.2.3.4. Whether it does
// depends on the neighbours of a value. Stored gives what to keep under the field so
// that this never shows: a value that surely comes back stays as it is, a fraction
// gets its own form, so that ordering works, and what could be taken for something
// else gets a mark that makes it text. Where exact is false, the value as it was
// written must stand among all values of the field (MultiName).
func Stored(v string) (stored string, exact bool) {
	if strings.HasSuffix(v, textMark) { // Written takes one mark away
		return v + textMark, false
	}
	if v == "" || v[0] != '-' && v[0] != '_' && (v[0] < '0' || v[0] > '9') || len(v) > maxNumeric {
		return v, true
	}
	switch {
	case len(v) <= len("255.255.255.255") && strings.Count(v, ".") == 3:
		if a, err := netip.ParseAddr(v); err == nil && a.String() == v {
			return v, true
		}
		return v + textMark, false
	case len(v) == len(milliForm) && v[4] == '-':
		if t, err := time.Parse(milliForm, v); err == nil && t.Format(milliForm) == v {
			return v, true
		}
		return v + textMark, false
	case strings.Trim(v, "-.0123456789_") != "":
		return v, true
	case strings.Contains(v, "_"), v == "-0":
		return v + textMark, false
	}
	whole, frac, dot := strings.Cut(strings.TrimPrefix(v, "-"), ".")
	if !dot || whole == "" || frac == "" || len(whole) > 1 && whole[0] == '0' || strings.Trim(whole+frac, "0123456789") != "" {
		return v, true // whole numbers come back; the rest is text for the library
	}
	n, err1 := strconv.ParseUint(whole, 10, 64)
	m, err2 := strconv.ParseUint(frac, 10, 64)
	if err1 != nil || err2 != nil {
		return v + textMark, false
	}
	// As the library computes it: one rounding.
	f := math.FMA(float64(m), math.Pow10(-len(frac)), float64(n))
	if v[0] == '-' {
		f = -f
	}
	own := strconv.FormatFloat(f, 'f', -1, 64)
	if own == "-0" {
		return v + textMark, false
	}
	return own, own == v
}

// Written takes the mark of Stored away.
func Written(stored string) string { return strings.TrimSuffix(stored, textMark) }

// number reports whether a text may be the form that another text is stored in.
func number(text string) bool { return text != "" && strings.Trim(text, "-.0123456789") == "" }

const (
	textMark   = "\xff" // no text in UTF-8 ends with it
	milliForm  = "2006-01-02T15:04:05.000Z"
	maxNumeric = 32 // the library takes at most 27 bytes for a number
)
