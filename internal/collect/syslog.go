package collect

import (
	"bytes"
	"errors"
)

// errFraming ends a connection: where the next message begins is unknown.
var errFraming = errors.New("an octet count of more than 7 digits")

const countDigits = 7

// splitter finds syslog messages in a byte stream, RFC 6587 and RFC 5425. Each
// message may be octet-counted or end in a line feed; the first bytes tell:
//
//	digits, space, '<'   octet-counted. After the first such message digits and a
//	                     space are enough.
//	anything else        ends at the next line feed
//
// So a line of text that begins with a number stays a line. A message over the
// bound is skipped, to its counted end or its line feed, and reported once.
// Feeding the same bytes in other pieces gives the same messages
// (TestSplitterAnyBoundary).
type splitter struct {
	max     int
	counted bool // a message of this connection was octet-counted
	buf     []byte
	pos     int // start of what is not yet handed out
	seen    int // bytes from pos known to hold no line feed
	skip    int // octets of an oversized counted message still to come
	skipEOL bool
}

// message is one finding of a splitter.
type message struct {
	body  []byte // valid until the next feed
	large bool   // over the bound; body is empty
}

// feed adds bytes. Messages handed out before become invalid.
func (s *splitter) feed(p []byte) {
	if s.pos > 0 {
		s.buf = append(s.buf[:0], s.buf[s.pos:]...)
		s.pos = 0
	}
	s.buf = append(s.buf, p...)
}

// partial reports whether a message has begun and not ended.
func (s *splitter) partial() bool { return s.pos < len(s.buf) || s.skip > 0 || s.skipEOL }

// next returns the next whole message; ok is false where more bytes are needed.
func (s *splitter) next() (m message, ok bool, err error) {
	for {
		rest := s.buf[s.pos:]
		if s.skip > 0 {
			n := min(s.skip, len(rest))
			s.pos += n
			s.skip -= n
			if s.skip > 0 {
				return message{}, false, nil
			}
			continue
		}
		if s.skipEOL {
			i := bytes.IndexByte(rest, '\n')
			if i < 0 {
				s.pos = len(s.buf)
				return message{}, false, nil
			}
			s.pos += i + 1
			s.skipEOL = false
			continue
		}
		if len(rest) == 0 {
			return message{}, false, nil
		}
		switch kind, n, start, need := s.count(rest); {
		case need:
			return message{}, false, nil
		case kind == countBad:
			return message{}, false, errFraming
		case kind == countGood:
			s.counted = true
			s.seen = 0
			if n > s.max {
				s.pos += start
				s.skip = n
				return message{large: true}, true, nil
			}
			if len(rest) < start+n {
				return message{}, false, nil
			}
			s.pos += start + n
			if body := trimMessage(rest[start : start+n]); len(body) > 0 {
				return message{body: body}, true, nil
			}
			continue
		}
		i := bytes.IndexByte(rest[s.seen:], '\n')
		if i < 0 {
			s.seen = len(rest)
			if len(rest) <= s.max+1 { // the carriage return of a line of full length
				return message{}, false, nil
			}
			s.seen = 0
			s.pos = len(s.buf)
			s.skipEOL = true
			return message{large: true}, true, nil
		}
		i += s.seen
		s.seen = 0
		s.pos += i + 1
		body := trimMessage(rest[:i])
		if i > s.max+1 || len(body) > s.max {
			return message{large: true}, true, nil
		}
		if len(body) > 0 {
			return message{body: body}, true, nil
		}
	}
}

// end returns what stands after the last line feed when the sender has closed:
// whole for a sender that ends its last line with the connection. It reports
// broken where an octet-counted message was cut.
func (s *splitter) end() (m message, ok, broken bool) {
	if s.skip > 0 {
		return message{}, false, true
	}
	rest := s.buf[s.pos:]
	s.pos = len(s.buf)
	if s.skipEOL || len(rest) == 0 {
		return message{}, false, false
	}
	if kind, _, _, need := s.count(rest); need && s.counted || kind != countNone {
		return message{}, false, true
	}
	body := trimMessage(rest)
	if len(body) > s.max {
		return message{large: true}, true, false
	}
	return message{body: body}, len(body) > 0, false
}

type countKind uint8

const (
	countNone countKind = iota // a line
	countGood
	countBad // digits, space and '<', and too many digits
)

// count reads an octet count at the start of b. need says that b is too short to
// tell.
func (s *splitter) count(b []byte) (kind countKind, n, start int, need bool) {
	if b[0] < '1' || b[0] > '9' {
		return countNone, 0, 0, false
	}
	i := 0
	for i < len(b) && i < 20 && b[i] >= '0' && b[i] <= '9' {
		if i < countDigits {
			n = n*10 + int(b[i]-'0')
		}
		i++
	}
	if i == len(b) {
		return countNone, 0, 0, i < 20
	}
	if b[i] != ' ' {
		return countNone, 0, 0, false
	}
	if !s.counted {
		if i+1 == len(b) {
			return countNone, 0, 0, true
		}
		if b[i+1] != '<' {
			return countNone, 0, 0, false
		}
	}
	if i > countDigits {
		return countBad, 0, 0, false
	}
	return countGood, n, i + 1, false
}

// trimMessage takes off what transports put behind a message: line ends and NUL.
func trimMessage(b []byte) []byte { return bytes.TrimRight(b, "\r\n\x00") }
