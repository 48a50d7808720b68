package admit

import "strings"

// Telephone numbers are compared by digits. A number of a list has up to four
// forms: with country code, with 00 before it, national, national with 0.

const (
	minPhone = 7
	maxPhone = 15
)

// PhoneForms gives the digit forms under which a listed number is found, the
// canonical one first, or nil where it has not 7 to 15 digits.
func PhoneForms(number string) []string {
	number = strings.TrimSpace(number)
	var b strings.Builder
	for _, r := range number {
		switch {
		case r >= '0' && r <= '9':
			b.WriteRune(r)
		case strings.ContainsRune("+ -./()\u00a0", r):
		default:
			return nil
		}
	}
	d := b.String()
	international := strings.HasPrefix(number, "+")
	if !international && strings.HasPrefix(d, "00") {
		international, d = true, d[2:]
	}
	if len(d) < minPhone || len(d) > maxPhone {
		return nil
	}
	if !international {
		if t := strings.TrimPrefix(d, "0"); t != d && len(t) >= minPhone {
			return []string{d, t}
		}
		return []string{d}
	}
	forms := []string{d, "00" + d}
	if national := d[countryCode(d):]; len(national) >= minPhone {
		forms = append(forms, national, "0"+national)
	}
	return forms
}

// countryCode is the length of the country code that a number begins with: the
// zones of E.164 have one, two or three digits.
func countryCode(d string) int {
	const two = "20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 65 66 81 82 84 86 90 91 92 93 94 95 98"
	switch {
	case d[0] == '1' || d[0] == '7':
		return 1
	case strings.Contains(two, d[:2]):
		return 2
	}
	return 3
}

// NumberRun is a run of digit groups in a text, such as "+1 (202) 555-0100". It is
// reused from run to run and does not allocate.
type NumberRun struct {
	digits [48]byte
	groups [20]numberGroup
	n      int // groups
	Plus   bool
}

type numberGroup struct{ from, to, start, end int } // digits and text

func numberSeparator(c byte) bool {
	return c == ' ' || c == '-' || c == '.' || c == '/' || c == '(' || c == ')'
}

// Next reads the first run at or after offset i and returns the offset from which
// to go on, or -1 at the end. A letter or underscore beside a group ends the run
// and takes the group out of it.
func (r *NumberRun) Next(v []byte, i int) int {
	for i < len(v) {
		if v[i] < '0' || v[i] > '9' {
			i++
			continue
		}
		r.n, r.Plus = 0, i > 0 && v[i-1] == '+'
		d, full := 0, false
		for i < len(v) && r.n < len(r.groups) {
			g := numberGroup{from: d, start: i}
			touches := i > 0 && (v[i-1] == '_' || WordBefore(v, i))
			for i < len(v) && v[i] >= '0' && v[i] <= '9' {
				if d < len(r.digits) {
					r.digits[d] = v[i]
					d++
				}
				i++
			}
			g.to, g.end = d, i
			if touches || i < len(v) && (v[i] == '_' || WordAfter(v, i)) {
				d = g.from
				break
			}
			r.groups[r.n] = g
			r.n++
			if full = d == len(r.digits) || r.n == len(r.groups); full {
				break
			}
			j := i
			for j < len(v) && j-i < 3 && numberSeparator(v[j]) {
				j++
			}
			if j == i || j == len(v) || v[j] < '0' || v[j] > '9' {
				break
			}
			i = j
		}
		if full && r.n > 1 {
			// A number may reach over the end of what fits: its groups come again.
			i = r.groups[max(1, r.n-8)].start
		}
		if r.n > 0 && d >= minPhone {
			return i
		}
	}
	return -1
}

// Find gives the text range of the first whole groups whose digits the set holds.
func (r *NumberRun) Find(set map[string]bool) (start, end int, ok bool) {
	for a := range r.n {
		for b := a; b < r.n; b++ {
			d := r.digits[r.groups[a].from:r.groups[b].to]
			if len(d) > maxPhone+2 {
				break
			}
			if len(d) >= minPhone && set[string(d)] {
				return r.groups[a].start, r.groups[b].end, true
			}
		}
	}
	return 0, 0, false
}

// Shape reports whether the run is written like a telephone number: with a plus, as
// 3-3-4 digits, or as a trunk 0 with an area code and 5 to 9 digits. Dates, versions,
// addresses and identifiers are not.
func (r *NumberRun) Shape(v []byte) (start, end int, ok bool) {
	if r.n == 0 {
		return 0, 0, false
	}
	first := r.groups[0]
	if r.Plus {
		start = first.start - 1
		if start > 0 && (v[start-1] == '_' || v[start-1] == '+' || WordBefore(v, start)) {
			return 0, 0, false
		}
		// As many groups as make a number; what follows may be another thing.
		for b := r.n - 1; b >= 0; b-- {
			if n := r.groups[b].to - first.from; n >= minPhone && n <= maxPhone {
				return start, r.groups[b].end, true
			}
		}
		return 0, 0, false
	}
	for a := range r.n {
		if end, ok := r.national(v, a); ok {
			start = r.groups[a].start
			if start > 0 && v[start-1] == '(' {
				start--
			}
			return start, end, true
		}
	}
	return 0, 0, false
}

// national reads a number that begins with group a: 202-555-0100, (202) 555-0100,
// 0171 1234567.
func (r *NumberRun) national(v []byte, a int) (end int, ok bool) {
	g := r.groups[a:r.n]
	if len(g) < 2 {
		return 0, false
	}
	open := false
	if at := g[0].start; at > 0 {
		switch v[at-1] {
		case '.', '-', ':', '/', '\\', '#', '{', '+':
			return 0, false
		case '(':
			open = true
		}
	}
	size := func(i int) int { return g[i].to - g[i].from }
	between := func(i int) string { return string(v[g[i].end:g[i+1].start]) }
	// What follows must not go on with the number.
	closed := func(i int) bool {
		e := g[i].end
		return e+1 >= len(v) || v[e] != '.' && v[e] != '-' && v[e] != ':' || v[e+1] == ' '
	}
	if len(g) >= 3 && size(0) == 3 && size(1) == 3 && size(2) == 4 && closed(2) {
		x, y := between(0), between(1)
		if x == y && (x == "-" || x == "." || x == " ") || open && (x == ") " || x == ")") && (y == "-" || y == " ") {
			return g[2].end, true
		}
	}
	if size(0) < 3 || size(0) > 6 || r.digits[g[0].from] != '0' || r.digits[g[0].from+1] == '0' || size(1) < 3 {
		return 0, false
	}
	if x := between(0); x != " " && x != "/" && x != "-" && x != " / " && !(open && (x == ") " || x == ")")) {
		return 0, false
	}
	last := 1
	for last+1 < len(g) && (between(last) == " " || between(last) == "-") && size(last+1) >= 2 {
		last++
	}
	// As many groups as make a number; what follows may be another thing.
	for ; last >= 1; last-- {
		if n := g[last].to - g[1].from; n >= 5 && n <= 9 && closed(last) {
			return g[last].end, true
		}
	}
	return 0, false
}
