package parse

import (
	"math"
	"strconv"
	"time"

	"github.com/counterseal/counterseal/internal/event"
)

// setTime fills the claimed time. A text without a zone is read in the zone of
// the context, which the record then names. What cannot be read or lies outside
// the bounds leaves Time at zero; the text as written stays a field.
func setTime(r *event.Record, c Context, text []byte) bool {
	t, zoned, ok := readTime(text, c.zone())
	if !ok {
		return false
	}
	return claim(r, c, t, zoned)
}

func claim(r *event.Record, c Context, t time.Time, zoned bool) bool {
	ns, ok := event.Clamp(t, c.Received)
	if !ok {
		return false
	}
	r.Time = ns
	r.Zone = ""
	if !zoned {
		r.Zone = c.zone().String()
	}
	return true
}

func (c Context) zone() *time.Location {
	if c.Zone == nil {
		return time.UTC
	}
	return c.Zone
}

// readTime reads a date and a time of day as ISO 8601 and its relatives write
// them: T or space between, up to nine digits of a second used, Z, ±hh:mm, ±hhmm,
// ±hh or no zone.
func readTime(b []byte, zone *time.Location) (t time.Time, zoned, ok bool) {
	d := digits{b: b}
	year := d.take(4)
	sep := d.next()
	if sep != '-' && sep != '/' {
		return time.Time{}, false, false
	}
	month := d.take(2)
	if d.next() != sep {
		return time.Time{}, false, false
	}
	day := d.take(2)
	switch d.next() {
	case 'T', 't', ' ':
	default:
		return time.Time{}, false, false
	}
	for d.i < len(b) && b[d.i] == ' ' {
		d.i++
	}
	hour, min, sec, nano := d.clock()
	if d.bad || !valid(year, month, day, hour, min, sec) {
		return time.Time{}, false, false
	}
	loc := zone
	if d.i < len(b) && b[d.i] == ' ' {
		d.i++
	}
	switch rest := string(b[d.i:]); {
	case rest == "":
	case rest == "Z" || rest == "z" || rest == "UTC" || rest == "GMT":
		loc, zoned = time.UTC, true
	case rest[0] == '+' || rest[0] == '-':
		off, good := offset(rest)
		if !good {
			return time.Time{}, false, false
		}
		loc, zoned = time.FixedZone("", off), true
	default:
		return time.Time{}, false, false
	}
	return time.Date(year, time.Month(month), day, hour, min, sec, nano, loc), zoned, true
}

func valid(year, month, day, hour, min, sec int) bool {
	if month < 1 || month > 12 || day < 1 || hour > 23 || min > 59 || sec > 60 {
		return false
	}
	return day <= daysIn(year, month)
}

func daysIn(year, month int) int {
	return time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

func offset(s string) (int, bool) {
	d := digits{b: []byte(s[1:])}
	h := d.take(2)
	m := 0
	if d.i < len(d.b) {
		if d.b[d.i] == ':' {
			d.i++
		}
		m = d.take(2)
	}
	if d.bad || d.i != len(d.b) || h > 23 || m > 59 {
		return 0, false
	}
	n := h*3600 + m*60
	if s[0] == '-' {
		n = -n
	}
	return n, true
}

// digits reads fixed groups of digits and remembers that one was missing.
type digits struct {
	b   []byte
	i   int
	bad bool
}

func (d *digits) take(n int) int {
	if d.bad || d.i+n > len(d.b) {
		d.bad = true
		return 0
	}
	v := 0
	for ; n > 0; n-- {
		c := d.b[d.i]
		if c < '0' || c > '9' {
			d.bad = true
			return 0
		}
		v = v*10 + int(c-'0')
		d.i++
	}
	return v
}

func (d *digits) next() byte {
	if d.bad || d.i >= len(d.b) {
		d.bad = true
		return 0
	}
	d.i++
	return d.b[d.i-1]
}

// clock reads hh:mm:ss with an optional fraction.
func (d *digits) clock() (hour, min, sec, nano int) {
	hour = d.take(2)
	if d.next() != ':' {
		d.bad = true
	}
	min = d.take(2)
	if d.next() != ':' {
		d.bad = true
	}
	sec = d.take(2)
	if !d.bad && d.i < len(d.b) && (d.b[d.i] == '.' || d.b[d.i] == ',') {
		d.i++
		var bad bool
		if nano, bad = d.fraction(); bad {
			d.bad = true
		}
	}
	return hour, min, sec, nano
}

// fraction reads the digits of a fraction as nanoseconds; digits beyond nine are
// read and not used.
func (d *digits) fraction() (nano int, bad bool) {
	at, scale := d.i, 100_000_000
	for d.i < len(d.b) && d.b[d.i] >= '0' && d.b[d.i] <= '9' {
		nano += int(d.b[d.i]-'0') * scale
		scale /= 10
		d.i++
	}
	return nano, d.i == at
}

// readEpoch reads seconds since 1970 as a decimal number, exactly to the
// nanosecond.
func readEpoch(b []byte) (time.Time, bool) {
	n, frac, ok := decimal(b)
	if !ok {
		return time.Time{}, false
	}
	return time.Unix(n, int64(frac)), true
}

func decimal(b []byte) (whole int64, nano int, ok bool) {
	d := digits{b: b}
	for d.i < len(b) && d.i < 19 && whole < math.MaxInt64/10 && b[d.i] >= '0' && b[d.i] <= '9' {
		whole = whole*10 + int64(b[d.i]-'0')
		d.i++
	}
	if d.i == 0 {
		return 0, 0, false
	}
	if d.i < len(b) && b[d.i] == '.' {
		d.i++
		var bad bool
		if nano, bad = d.fraction(); bad {
			return 0, 0, false
		}
	}
	if d.i == len(b) {
		return whole, nano, true
	}
	if b[d.i] != 'e' && b[d.i] != 'E' {
		return 0, 0, false
	}
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil || f < 0 || f > 1e18 {
		return 0, 0, false
	}
	return int64(f), int((f - float64(int64(f))) * 1e9), true
}

// readNumber reads a time written as a number whose unit shows in its size:
// seconds, milliseconds, microseconds or nanoseconds since 1970.
func readNumber(b []byte) (time.Time, bool) {
	n, frac, ok := decimal(b)
	switch {
	case !ok:
		return time.Time{}, false
	case n < 100_000_000_000:
		return time.Unix(n, int64(frac)), true
	case n < 100_000_000_000_000:
		return time.UnixMilli(n), true
	case n < 100_000_000_000_000_000:
		return time.UnixMicro(n), true
	}
	return time.Unix(0, n), true
}

// readStamp reads the date of RFC 3164, "Jan _2 15:04:05", and its relative with
// a year before or after the time of day. It returns how many bytes it took.
// Without a year it takes the latest year that puts the time at most one day
// after receipt.
func readStamp(b []byte, c Context) (t time.Time, n int, ok bool) {
	if len(b) < 14 {
		return time.Time{}, 0, false
	}
	month := monthOf(b[:3])
	if month == 0 || b[3] != ' ' {
		return time.Time{}, 0, false
	}
	d := digits{b: b, i: 4}
	for d.i < len(b) && b[d.i] == ' ' && d.i < 6 {
		d.i++
	}
	day := d.take(1)
	if !d.bad && d.i < len(b) && b[d.i] >= '0' && b[d.i] <= '9' {
		day = day*10 + d.take(1)
	}
	if d.next() != ' ' {
		return time.Time{}, 0, false
	}
	year := 0
	if d.i+5 < len(b) && b[d.i+4] == ' ' { // "Jan 2 2006 15:04:05"
		y := digits{b: b, i: d.i}
		if v := y.take(4); !y.bad {
			year = v
			d.i += 5
		}
	}
	hour, min, sec, nano := d.clock()
	if d.bad || !valid(2000, int(month), day, hour, min, sec) {
		return time.Time{}, 0, false
	}
	at := func(y int) time.Time {
		return time.Date(y, month, day, hour, min, sec, nano, c.zone())
	}
	if year != 0 {
		if !valid(year, int(month), day, hour, min, sec) {
			return time.Time{}, 0, false
		}
		return at(year), d.i, true
	}
	latest := c.Received.Add(24 * time.Hour)
	for y := latest.In(c.zone()).Year(); y > latest.Year()-10; y-- {
		if day > daysIn(y, int(month)) {
			continue // 29 February
		}
		if t := at(y); !t.After(latest) {
			return t, d.i, true
		}
	}
	return time.Time{}, 0, false
}

func monthOf(b []byte) time.Month {
	switch string(b) {
	case "Jan":
		return time.January
	case "Feb":
		return time.February
	case "Mar":
		return time.March
	case "Apr":
		return time.April
	case "May":
		return time.May
	case "Jun":
		return time.June
	case "Jul":
		return time.July
	case "Aug":
		return time.August
	case "Sep":
		return time.September
	case "Oct":
		return time.October
	case "Nov":
		return time.November
	case "Dec":
		return time.December
	}
	return 0
}
