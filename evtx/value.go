package evtx

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// ValueType is the BinXML type of a value. Arrays have bit 0x80 in the file; the
// fields that they yield carry the type of their elements.
type ValueType uint8

// The value types of BinXML.
const (
	TypeNull       ValueType = 0x00
	TypeString     ValueType = 0x01
	TypeAnsiString ValueType = 0x02
	TypeInt8       ValueType = 0x03
	TypeUint8      ValueType = 0x04
	TypeInt16      ValueType = 0x05
	TypeUint16     ValueType = 0x06
	TypeInt32      ValueType = 0x07
	TypeUint32     ValueType = 0x08
	TypeInt64      ValueType = 0x09
	TypeUint64     ValueType = 0x0a
	TypeFloat32    ValueType = 0x0b
	TypeFloat64    ValueType = 0x0c
	TypeBool       ValueType = 0x0d
	TypeBinary     ValueType = 0x0e
	TypeGUID       ValueType = 0x0f
	TypeSize       ValueType = 0x10
	TypeFileTime   ValueType = 0x11
	TypeSystemTime ValueType = 0x12
	TypeSID        ValueType = 0x13
	TypeHex32      ValueType = 0x14
	TypeHex64      ValueType = 0x15
	TypeBinXML     ValueType = 0x21

	arrayBit ValueType = 0x80
)

// width is the size of a fixed-width type, 0 for the others.
func (t ValueType) width() int {
	switch t {
	case TypeInt8, TypeUint8:
		return 1
	case TypeInt16, TypeUint16:
		return 2
	case TypeInt32, TypeUint32, TypeFloat32, TypeBool, TypeHex32:
		return 4
	case TypeInt64, TypeUint64, TypeFloat64, TypeFileTime, TypeHex64:
		return 8
	case TypeGUID, TypeSystemTime:
		return 16
	}
	return 0
}

func (t ValueType) kind() Kind {
	if t < ValueType(len(kinds)) {
		return kinds[t]
	}
	return String
}

var kinds = [...]Kind{
	String, String, String,
	Number, Number, Number, Number, Number, Number, Number, Number, Number, Number,
	Bool, Binary, String,
}

var (
	errWidth = errors.New("value of the wrong size for its type")
	errType  = errors.New("unknown value type")
)

// appendValue writes one value, not an array and not BinXML, as Windows does.
func appendValue(dst []byte, t ValueType, b []byte) (out []byte, lossy bool, err error) {
	if t == TypeString { // most of all values
		if len(b)%2 != 0 {
			return dst, false, errWidth
		}
		for len(b) >= 2 && b[len(b)-1] == 0 && b[len(b)-2] == 0 {
			b = b[:len(b)-2]
		}
		dst, lossy = appendUTF16(dst, b)
		return dst, lossy, nil
	}
	if w := t.width(); w != 0 && len(b) != w {
		return dst, false, errWidth
	}
	le := binary.LittleEndian
	switch t {
	case TypeAnsiString:
		for len(b) > 0 && b[len(b)-1] == 0 {
			b = b[:len(b)-1]
		}
		dst, lossy = appendANSI(dst, b)
		return dst, lossy, nil
	case TypeInt8:
		return strconv.AppendInt(dst, int64(int8(b[0])), 10), false, nil
	case TypeUint8:
		return appendDecimal(dst, uint64(b[0])), false, nil
	case TypeInt16:
		return strconv.AppendInt(dst, int64(int16(le.Uint16(b))), 10), false, nil
	case TypeUint16:
		return appendDecimal(dst, uint64(le.Uint16(b))), false, nil
	case TypeInt32:
		return strconv.AppendInt(dst, int64(int32(le.Uint32(b))), 10), false, nil
	case TypeUint32:
		return appendDecimal(dst, uint64(le.Uint32(b))), false, nil
	case TypeInt64:
		return strconv.AppendInt(dst, int64(le.Uint64(b)), 10), false, nil
	case TypeUint64:
		return appendDecimal(dst, le.Uint64(b)), false, nil
	case TypeFloat32:
		return strconv.AppendFloat(dst, float64(math.Float32frombits(le.Uint32(b))), 'g', -1, 32), false, nil
	case TypeFloat64:
		return strconv.AppendFloat(dst, math.Float64frombits(le.Uint64(b)), 'g', -1, 64), false, nil
	case TypeBool:
		return strconv.AppendBool(dst, le.Uint32(b) != 0), false, nil
	case TypeBinary:
		for _, x := range b {
			dst = append(dst, upperHex[x>>4], upperHex[x&15])
		}
		return dst, false, nil
	case TypeGUID:
		return appendGUID(dst, b), false, nil
	case TypeSize:
		switch len(b) {
		case 4:
			return appendHex(dst, uint64(le.Uint32(b))), false, nil
		case 8:
			return appendHex(dst, le.Uint64(b)), false, nil
		}
		return dst, false, errWidth
	case TypeFileTime:
		return FileTime(le.Uint64(b)).AppendText(dst), false, nil
	case TypeSystemTime:
		return appendSystemTime(dst, b), false, nil
	case TypeSID:
		n, ok := sidSize(b)
		if !ok || n != len(b) {
			return dst, false, errWidth
		}
		return appendSID(dst, b), false, nil
	case TypeHex32:
		return appendHex(dst, uint64(le.Uint32(b))), false, nil
	case TypeHex64:
		return appendHex(dst, le.Uint64(b)), false, nil
	}
	return dst, false, errType
}

const upperHex = "0123456789ABCDEF"

func appendHex(dst []byte, v uint64) []byte {
	return strconv.AppendUint(append(dst, '0', 'x'), v, 16)
}

// appendDecimal is strconv.AppendUint, with the usual small numbers written in
// place.
func appendDecimal(dst []byte, v uint64) []byte {
	if v >= 100000 {
		return strconv.AppendUint(dst, v, 10)
	}
	n := uint32(v)
	a, b, c, d, e := byte('0'+n/10000), byte('0'+n/1000%10), byte('0'+n/100%10), byte('0'+n/10%10), byte('0'+n%10)
	switch {
	case n < 10:
		return append(dst, e)
	case n < 100:
		return append(dst, d, e)
	case n < 1000:
		return append(dst, c, d, e)
	case n < 10000:
		return append(dst, b, c, d, e)
	}
	return append(dst, a, b, c, d, e)
}

func appendGUID(dst, b []byte) []byte {
	dst = slices.Grow(dst, 38)
	g := dst[len(dst) : len(dst)+38]
	g[0], g[9], g[14], g[19], g[24], g[37] = '{', '-', '-', '-', '-', '}'
	for i, at := range [16]uint8{7, 5, 3, 1, 12, 10, 17, 15, 20, 22, 25, 27, 29, 31, 33, 35} {
		g[at], g[at+1] = upperHex[b[i]>>4], upperHex[b[i]&15]
	}
	return dst[:len(dst)+38]
}

// sidSize is the size of the SID at the start of b.
func sidSize(b []byte) (int, bool) {
	if len(b) < 8 {
		return 0, false
	}
	n := 8 + 4*int(b[1])
	return n, n <= len(b)
}

func appendSID(dst, b []byte) []byte {
	dst = appendDecimal(append(dst, 'S', '-'), uint64(b[0]))
	var authority uint64
	for _, x := range b[2:8] {
		authority = authority<<8 | uint64(x)
	}
	dst = appendDecimal(append(dst, '-'), authority)
	for i := range int(b[1]) {
		dst = appendDecimal(append(dst, '-'), uint64(binary.LittleEndian.Uint32(b[8+4*i:])))
	}
	return dst
}

// appendUTF16 writes UTF-16LE as UTF-8. A surrogate without its other half
// becomes U+FFFD and is reported.
func appendUTF16(dst, b []byte) (out []byte, lossy bool) {
	dst, b = narrow(dst, b)
	for i := 0; i+1 < len(b); i += 2 {
		u := rune(b[i]) | rune(b[i+1])<<8
		if u < utf8.RuneSelf {
			dst = append(dst, byte(u))
			continue
		}
		if utf16.IsSurrogate(u) {
			r := rune(utf8.RuneError)
			if i+3 < len(b) {
				r = utf16.DecodeRune(u, rune(b[i+2])|rune(b[i+3])<<8)
			}
			if r == utf8.RuneError {
				lossy = true
			} else {
				i += 2
			}
			u = r
		}
		dst = utf8.AppendRune(dst, u)
	}
	return dst, lossy
}

// cp1252 holds the code points 0x80 to 0x9f of the Western code page.
var cp1252 = [32]rune{
	0x20ac, 0xfffd, 0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160, 0x2039, 0x0152, 0xfffd, 0x017d, 0xfffd,
	0xfffd, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0xfffd, 0x017e, 0x0178,
}

// appendANSI reads bytes of a code page that the file does not name. ASCII is
// sure; the rest is read as the Western code page and reported as a guess.
func appendANSI(dst, b []byte) (out []byte, lossy bool) {
	for _, x := range b {
		switch {
		case x < utf8.RuneSelf:
			dst = append(dst, x)
		case x < 0xa0:
			dst, lossy = utf8.AppendRune(dst, cp1252[x-0x80]), true
		default:
			dst, lossy = utf8.AppendRune(dst, rune(x)), true
		}
	}
	return dst, lossy
}

// FileTime counts 100 ns ticks since 1601-01-01 UTC, exactly as stored.
type FileTime uint64

const (
	ticksPerSecond = 10_000_000
	unixEpochTicks = 116_444_736_000_000_000
)

// Time converts without loss of a tick.
func (t FileTime) Time() time.Time {
	sec := int64(t/ticksPerSecond) - unixEpochTicks/ticksPerSecond
	return time.Unix(sec, int64(t%ticksPerSecond)*100).UTC()
}

// UnixNano is the time in nanoseconds since 1970; ok is false where an int64
// cannot hold it (before 1677, after 2262).
func (t FileTime) UnixNano() (ns int64, ok bool) {
	d := int64(t) - unixEpochTicks
	if t > math.MaxInt64 || d > math.MaxInt64/100 || d < math.MinInt64/100 {
		return 0, false
	}
	return d * 100, true
}

// AppendText writes the time in RFC 3339, UTC, with seven decimals.
func (t FileTime) AppendText(dst []byte) []byte {
	secs := uint64(t / ticksPerSecond)
	year, month, day := civil(secs / 86400)
	rest := secs % 86400
	dst = appendPadded(dst, year, 4)
	var b [24]byte
	b[0], b[3], b[6], b[9], b[12], b[15], b[23] = '-', '-', 'T', ':', ':', '.', 'Z'
	two(b[1:], month)
	two(b[4:], day)
	two(b[7:], rest/3600)
	two(b[10:], rest/60%60)
	two(b[13:], rest%60)
	for i, n := 22, uint32(t%ticksPerSecond); i > 15; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
	return append(dst, b[:]...)
}

func two(b []byte, n uint64) { b[0], b[1] = byte('0'+n/10), byte('0'+n%10) }

func (t FileTime) String() string { return string(t.AppendText(nil)) }

// ParseFileTime reads what AppendText writes, exactly. It takes any number of
// decimals, as some events hold nine, if no digit below a tick is lost.
func ParseFileTime(b []byte) (FileTime, bool) {
	const shape = "-01-02T15:04:05"
	y := 0
	for y < len(b) && b[y] >= '0' && b[y] <= '9' {
		y++
	}
	// The year has four digits, five after 9999.
	if y < 4 || y > 5 || len(b) < y+len(shape)+1 || b[len(b)-1] != 'Z' {
		return 0, false
	}
	for i, s := range []byte(shape) {
		d := b[y+i]
		if digit := d >= '0' && d <= '9'; digit != (s >= '0' && s <= '9') || !digit && s != d {
			return 0, false
		}
	}
	num := func(from, to int) (n uint64) {
		for _, d := range b[from:to] {
			n = n*10 + uint64(d-'0')
		}
		return n
	}
	days, ok := dayNumber(num(0, y), num(y+1, y+3), num(y+4, y+6))
	h, m, s := num(y+7, y+9), num(y+10, y+12), num(y+13, y+15)
	if !ok || h > 23 || m > 59 || s > 59 {
		return 0, false
	}
	ticks := uint64(0)
	if frac := b[y+len(shape) : len(b)-1]; len(frac) > 0 {
		if frac[0] != '.' || len(frac) == 1 {
			return 0, false
		}
		unit := uint64(ticksPerSecond)
		for _, d := range frac[1:] {
			if unit /= 10; d < '0' || d > '9' || unit == 0 && d != '0' {
				return 0, false
			}
			ticks += uint64(d-'0') * unit
		}
	}
	secs := days*86400 + h*3600 + m*60 + s
	if secs > (math.MaxUint64-ticksPerSecond)/ticksPerSecond {
		return 0, false
	}
	return FileTime(secs*ticksPerSecond + ticks), true
}

// civil turns days since 1601-01-01 into a date. 1601 opens a 400-year cycle.
func civil(days uint64) (year, month, day uint64) {
	const d400, d100, d4 = 146097, 36524, 1461
	year = 1601 + 400*(days/d400)
	days %= d400
	c := min(days/d100, 3)
	year, days = year+100*c, days-c*d100
	year, days = year+4*(days/d4), days%d4
	y := min(days/365, 3)
	year, days = year+y, days-y*365
	for month = 1; days >= monthDays(year, month); month++ {
		days -= monthDays(year, month)
	}
	return year, month, days + 1
}

func dayNumber(year, month, day uint64) (uint64, bool) {
	if year < 1601 || month < 1 || month > 12 || day < 1 || day > monthDays(year, month) {
		return 0, false
	}
	y := year - 1601
	days := y*365 + y/4 - y/100 + y/400 + day - 1
	for m := uint64(1); m < month; m++ {
		days += monthDays(year, m)
	}
	return days, true
}

func monthDays(year, month uint64) uint64 {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

func appendPadded(dst []byte, v uint64, width int) []byte {
	var b [20]byte
	i := len(b)
	for v > 0 || len(b)-i < width {
		i--
		b[i] = byte('0' + v%10)
		v /= 10
	}
	return append(dst, b[i:]...)
}

// appendSystemTime writes the eight words of a SYSTEMTIME with milliseconds. The
// words are shown as they stand, possible date or not.
func appendSystemTime(dst, b []byte) []byte {
	w := func(i int) uint64 { return uint64(binary.LittleEndian.Uint16(b[2*i:])) }
	dst = appendPadded(dst, w(0), 4)
	dst = appendPadded(append(dst, '-'), w(1), 2)
	dst = appendPadded(append(dst, '-'), w(3), 2)
	dst = appendPadded(append(dst, 'T'), w(4), 2)
	dst = appendPadded(append(dst, ':'), w(5), 2)
	dst = appendPadded(append(dst, ':'), w(6), 2)
	dst = appendPadded(append(dst, '.'), w(7), 3)
	return append(dst, 'Z')
}
