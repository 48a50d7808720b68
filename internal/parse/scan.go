package parse

import (
	"bytes"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/counterseal/counterseal/internal/event"
)

// maxDepth bounds how deep objects and arrays may nest.
const maxDepth = 32

// Error says what is wrong with a frame and where. It never holds a value of the
// record.
type Error struct {
	Format string // name of the format
	Offset int    // byte in the frame, or -1 where no single byte is at fault
	What   string
}

func (e *Error) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("reading a %s record: %s", e.Format, e.What)
	}
	return fmt.Sprintf("reading a %s record: byte %d: %s", e.Format, e.Offset, e.What)
}

// scanner walks one JSON text. It is our own because the record must keep what
// decoders throw away: the order of keys, duplicate keys, numbers as written, and
// bytes that are not UTF-8. It is lenient in one place: control characters inside
// a string are taken as they are, so that a careless producer loses nothing.
type scanner struct {
	b      []byte
	i      int
	depth  int
	format string
	name   []byte
	fields []event.Field
}

func (s *scanner) fail(what string) error {
	return &Error{Format: s.format, Offset: s.i, What: what}
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// flatten reads one JSON object as dotted fields in source order. Scalars of an
// array repeat the name, objects of an array repeat their names without an index,
// an empty array or object is Null. Values may point into b.
func flatten(format string, b []byte) ([]event.Field, error) {
	s := scanner{b: b, format: format, fields: make([]event.Field, 0, 32)}
	s.space()
	if s.i >= len(b) || b[s.i] != '{' {
		return nil, s.fail("not a JSON object")
	}
	if err := s.value(); err != nil {
		return nil, err
	}
	s.space()
	if s.i != len(b) {
		return nil, s.fail("more bytes after the object")
	}
	return s.fields, nil
}

func (s *scanner) add(kind event.Kind, v []byte) error {
	if len(s.fields) >= event.MaxFields {
		return s.fail(fmt.Sprintf("more than %d fields", event.MaxFields))
	}
	if len(s.name) > event.MaxName {
		return s.fail(fmt.Sprintf("a field name of more than %d bytes", event.MaxName))
	}
	s.fields = append(s.fields, event.Field{Name: string(s.name), Kind: kind, Value: v})
	return nil
}

var empty = []byte{}

func (s *scanner) value() error {
	if s.i >= len(s.b) {
		return s.fail("the text ends where a value is due")
	}
	switch c := s.b[s.i]; {
	case c == '"':
		v, err := s.text()
		if err != nil {
			return err
		}
		return s.add(event.String, v)
	case c == '{':
		return s.object()
	case c == '[':
		return s.array()
	case c == 't' && bytes.HasPrefix(s.b[s.i:], []byte("true")):
		s.i += 4
		return s.add(event.Bool, s.b[s.i-4:s.i])
	case c == 'f' && bytes.HasPrefix(s.b[s.i:], []byte("false")):
		s.i += 5
		return s.add(event.Bool, s.b[s.i-5:s.i])
	case c == 'n' && bytes.HasPrefix(s.b[s.i:], []byte("null")):
		s.i += 4
		return s.add(event.Null, empty)
	case c == '-' || c >= '0' && c <= '9':
		v, err := s.number()
		if err != nil {
			return err
		}
		return s.add(event.Number, v)
	}
	return s.fail("no JSON value begins so")
}

func (s *scanner) enter() error {
	s.i++
	s.depth++
	if s.depth > maxDepth {
		return s.fail(fmt.Sprintf("nested deeper than %d", maxDepth))
	}
	s.space()
	return nil
}

func (s *scanner) object() error {
	if err := s.enter(); err != nil {
		return err
	}
	defer func() { s.depth-- }()
	if s.i < len(s.b) && s.b[s.i] == '}' {
		s.i++
		if s.depth == 1 {
			return nil // an empty record has no field
		}
		return s.add(event.Null, empty)
	}
	base := len(s.name)
	for {
		s.space()
		if s.i >= len(s.b) || s.b[s.i] != '"' {
			return s.fail("a key is due")
		}
		key, err := s.text()
		if err != nil {
			return err
		}
		if base > 0 || s.depth > 1 {
			s.name = append(s.name[:base], '.')
			s.name = append(s.name, key...)
		} else {
			s.name = append(s.name[:0], key...)
		}
		if len(s.name) > event.MaxName {
			return s.fail(fmt.Sprintf("a field name of more than %d bytes", event.MaxName))
		}
		s.space()
		if s.i >= len(s.b) || s.b[s.i] != ':' {
			return s.fail("a colon is due")
		}
		s.i++
		s.space()
		if err := s.value(); err != nil {
			return err
		}
		s.name = s.name[:base]
		s.space()
		if s.i >= len(s.b) {
			return s.fail("the text ends inside an object")
		}
		switch s.b[s.i] {
		case ',':
			s.i++
		case '}':
			s.i++
			return nil
		default:
			return s.fail("a comma or the end of the object is due")
		}
	}
}

func (s *scanner) array() error {
	if err := s.enter(); err != nil {
		return err
	}
	defer func() { s.depth-- }()
	if s.i < len(s.b) && s.b[s.i] == ']' {
		s.i++
		return s.add(event.Null, empty)
	}
	for {
		s.space()
		if err := s.value(); err != nil {
			return err
		}
		s.space()
		if s.i >= len(s.b) {
			return s.fail("the text ends inside an array")
		}
		switch s.b[s.i] {
		case ',':
			s.i++
		case ']':
			s.i++
			return nil
		default:
			return s.fail("a comma or the end of the array is due")
		}
	}
}

func (s *scanner) number() ([]byte, error) {
	start := s.i
	digits := func() bool {
		at := s.i
		for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' {
			s.i++
		}
		return s.i > at
	}
	if s.b[s.i] == '-' {
		s.i++
	}
	lead := s.i
	if !digits() {
		return nil, s.fail("a digit is due")
	}
	if s.b[lead] == '0' && s.i > lead+1 {
		return nil, s.fail("a number with a leading zero")
	}
	if s.i < len(s.b) && s.b[s.i] == '.' {
		s.i++
		if !digits() {
			return nil, s.fail("a digit is due")
		}
	}
	if s.i < len(s.b) && (s.b[s.i] == 'e' || s.b[s.i] == 'E') {
		s.i++
		if s.i < len(s.b) && (s.b[s.i] == '+' || s.b[s.i] == '-') {
			s.i++
		}
		if !digits() {
			return nil, s.fail("a digit is due")
		}
	}
	return s.b[start:s.i], nil
}

// text reads a string. Without an escape the result points into the input.
func (s *scanner) text() ([]byte, error) {
	s.i++
	start := s.i
	n := bytes.IndexByte(s.b[start:], '"')
	if n < 0 {
		s.i = len(s.b)
		return nil, s.fail("the text ends inside a string")
	}
	if bytes.IndexByte(s.b[start:start+n], '\\') < 0 {
		s.i = start + n + 1
		return s.b[start : start+n], nil
	}
	out := make([]byte, 0, n+n/2)
	for s.i < len(s.b) {
		switch c := s.b[s.i]; c {
		case '"':
			s.i++
			return out, nil
		case '\\':
			var err error
			if out, err = s.escape(out); err != nil {
				return nil, err
			}
		default:
			out = append(out, c)
			s.i++
		}
	}
	return nil, s.fail("the text ends inside a string")
}

func (s *scanner) escape(out []byte) ([]byte, error) {
	if s.i+1 >= len(s.b) {
		return nil, s.fail("the text ends inside an escape")
	}
	c := s.b[s.i+1]
	switch c {
	case '"', '\\', '/':
	case 'b':
		c = '\b'
	case 'f':
		c = '\f'
	case 'n':
		c = '\n'
	case 'r':
		c = '\r'
	case 't':
		c = '\t'
	case 'u':
		r, ok := hex4(s.b[s.i+2:])
		if !ok {
			return nil, s.fail("an escape without four hexadecimal digits")
		}
		s.i += 6
		if utf16.IsSurrogate(r) {
			if s.i+1 < len(s.b) && s.b[s.i] == '\\' && s.b[s.i+1] == 'u' {
				if r2, ok := hex4(s.b[s.i+2:]); ok {
					if pair := utf16.DecodeRune(r, r2); pair != utf8.RuneError {
						s.i += 6
						return utf8.AppendRune(out, pair), nil
					}
				}
			}
			// A lone surrogate has no UTF-8. Its generalised form keeps it apart
			// from every other text.
			return append(out, 0xE0|byte(r>>12), 0x80|byte(r>>6)&0x3F, 0x80|byte(r)&0x3F), nil
		}
		return utf8.AppendRune(out, r), nil
	default:
		return nil, s.fail("an unknown escape")
	}
	s.i += 2
	return append(out, c), nil
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		d, ok := hexDigit(c)
		if !ok {
			return 0, false
		}
		r = r<<4 | rune(d)
	}
	return r, true
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// members calls fn for each member of the JSON object at the start of b, with the
// key as written and the bytes of its value, and reports whether b begins as an
// object. It skips values without reading them: it serves the header tests, and
// full checks come with flatten.
func members(b []byte, fn func(key, value []byte)) bool {
	i := skipSpace(b, 0)
	if i >= len(b) || b[i] != '{' {
		return false
	}
	for i++; ; {
		i = skipSpace(b, i)
		if i >= len(b) || b[i] != '"' {
			return true
		}
		end := skipString(b, i)
		if end < 0 {
			return true
		}
		key := b[i+1 : end-1]
		i = skipSpace(b, end)
		if i >= len(b) || b[i] != ':' {
			return true
		}
		i = skipSpace(b, i+1)
		end = skipValue(b, i)
		if end < 0 {
			return true
		}
		fn(key, b[i:end])
		i = skipSpace(b, end)
		if i >= len(b) || b[i] != ',' {
			return true
		}
		i++
	}
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// skipString returns the index behind the string that begins at i, or -1.
func skipString(b []byte, i int) int {
	for i++; i < len(b); {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return -1
		}
		end := i + n
		back := 0
		for end-1-back >= i && b[end-1-back] == '\\' {
			back++
		}
		i = end + 1
		if back%2 == 0 {
			return i
		}
	}
	return -1
}

func skipValue(b []byte, i int) int {
	if i >= len(b) {
		return -1
	}
	if b[i] == '"' {
		return skipString(b, i)
	}
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			if i = skipString(b, i); i < 0 {
				return -1
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return -1
}

// plain gives the text of a JSON string value, and nothing for other values.
func plain(value []byte) []byte {
	if len(value) < 2 || value[0] != '"' {
		return nil
	}
	s := scanner{b: value}
	v, err := s.text()
	if err != nil {
		return nil
	}
	return v
}
