package collect

import (
	"bytes"
	"fmt"
	"io"

	"github.com/counterseal/counterseal/internal/event"
)

// pieceKind says what a stretch of a file's content is.
type pieceKind uint8

const (
	pieceStructure pieceKind = iota // brackets, header lines, empty lines: of no record
	pieceSeparator                  // what stands between two items of an array
	pieceFrame                      // one record
	pieceBad                        // a record that cannot be framed
)

// piece is a stretch of content. All pieces of a content, one behind the other,
// are the content, so that a digest can leave records out (contentDigest). Its
// bytes are valid until emit returns.
type piece struct {
	kind   pieceKind
	raw    []byte
	body   []byte // the record within raw
	first  bool   // first item of its array
	header []byte // header lines in force, the same slice until they change
	reason event.LineError
}

// emitter takes the pieces of a content in order.
type emitter func(p *piece) error

// splitLines finds lines. A line over max is refused and the next one is found
// behind it. Empty lines are structure. With zeek, lines that begin with '#' are
// header lines; a #separator line begins a new block of them. Where r fails, the
// line that it cut is refused.
func splitLines(r io.Reader, max int, zeek bool, emit emitter) error {
	l := lineSplitter{max: max, zeek: zeek, emit: emit}
	buf := make([]byte, 0, 128<<10)
	pos, seen := 0, 0 // start of the line; up to where it is known to hold no line feed
	var failed error
	for {
		if i := bytes.IndexByte(buf[seen:], '\n'); i >= 0 {
			end := seen + i + 1
			if err := l.line(buf[pos:end]); err != nil {
				return err
			}
			pos, seen = end, end
			continue
		}
		if failed != nil {
			break
		}
		if len(buf)-pos > max+2 {
			l.large = true
			if err := emit(&piece{kind: pieceStructure, raw: buf[pos:]}); err != nil {
				return err
			}
			pos = len(buf)
		}
		if pos > 0 {
			buf = buf[:copy(buf, buf[pos:])]
			pos = 0
		}
		seen = len(buf)
		if cap(buf)-len(buf) < 32<<10 {
			buf = append(make([]byte, 0, 2*cap(buf)), buf...)
		}
		var n int
		n, failed = r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
	}
	if failed == io.EOF {
		failed = nil
	}
	if pos < len(buf) || l.large {
		l.cut = failed != nil
		if err := l.line(buf[pos:]); err != nil {
			return err
		}
	}
	return failed
}

type lineSplitter struct {
	max   int
	zeek  bool
	emit  emitter
	large bool // the beginning of this line was too long and was handed on
	cut   bool // the content failed inside this line
	began bool

	header []byte // in force
}

func (l *lineSplitter) line(raw []byte) error {
	body := raw
	if !l.began {
		body = bytes.TrimPrefix(body, bom)
		l.began = true
	}
	body = bytes.TrimSuffix(body, []byte{'\n'})
	body = bytes.TrimSuffix(body, []byte{'\r'})
	p := piece{kind: pieceFrame, raw: raw, body: body, header: l.header}
	switch {
	case l.large || len(body) > l.max:
		l.large = false
		p.kind, p.reason = pieceBad, event.LineError{Code: CodeTooLarge, Reason: fmt.Sprintf("longer than %d bytes", l.max)}
	case len(body) == 0:
		p.kind = pieceStructure
	case l.zeek && body[0] == '#':
		l.head(body)
		p.kind = pieceStructure
	case l.cut:
		p.kind, p.reason = pieceBad, event.LineError{Code: CodeBadLine, Reason: "cut short by the end of readable content"}
	}
	return l.emit(&p)
}

// maxHeader bounds the header lines of a Zeek log; those in the wild have a few KiB.
const maxHeader = 1 << 20

func (l *lineSplitter) head(body []byte) {
	switch {
	case bytes.HasPrefix(body, []byte("#separator")):
		l.header = nil
	case bytes.HasPrefix(body, []byte("#close")):
		return
	}
	if len(l.header)+len(body) >= maxHeader {
		return
	}
	// A new slice: frames already handed on hold the old one.
	h := make([]byte, 0, len(l.header)+len(body)+1)
	h = append(h, l.header...)
	h = append(h, body...)
	l.header = append(h, '\n')
}

var bom = []byte("\xef\xbb\xbf")

// splitJSON finds the records of a stream of JSON: objects one behind the other,
// the items of arrays, and the items of an object whose first name is Records, as
// CloudTrail writes them. It looks at quotes and brackets only, so what it hands
// out may be no JSON; depth costs it nothing.
//
// An item over max is refused. What stands between records and is no JSON is
// refused up to the end of its line. A stream that ends inside a record or an
// array is refused there.
func splitJSON(r io.Reader, max int, emit emitter) error {
	s := jsonSplitter{max: max, emit: emit}
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if ferr := s.feed(buf[:n]); ferr != nil {
			return ferr
		}
		if err != nil {
			if eerr := s.end(); eerr != nil {
				return eerr
			}
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}

// where a jsonSplitter stands between two records.
type jsonPlace uint8

const (
	atTop    jsonPlace = iota
	inArray            // of the top
	inWrap             // in the array of a wrapper
	wrapTail           // behind that array, in the wrapper
)

type jsonSplitter struct {
	max  int
	emit emitter

	place jsonPlace
	items int    // items of this array so far
	cur   []byte // bytes of the piece being read
	began bool   // a byte that is no byte order mark was read

	in    bool // inside a record
	large bool // its beginning was too long and was handed on
	bare  bool // it is a number or a word: ends at a bracket, comma or space
	str   bool
	esc   bool
	depth int
	junk  bool // at the top, in a line that is no JSON
}

func (s *jsonSplitter) feed(p []byte) error {
	start := 0 // of what is not in cur yet
	cut := func(i int) []byte {
		s.cur = append(s.cur, p[start:i]...)
		start = i
		return s.cur
	}
	for i := 0; i < len(p); i++ {
		c := p[i]
		if s.in {
			if s.str {
				switch {
				case s.esc:
					s.esc = false
				case c == '\\':
					s.esc = true
				case c == '"':
					s.str = false
					if s.depth == 0 {
						if err := s.record(cut(i + 1)); err != nil {
							return err
						}
					}
				}
				continue
			}
			switch c {
			case '"':
				if !s.bare {
					s.str = true
					continue
				}
			case '{', '[':
				if s.bare {
					break
				}
				if c == '[' && s.depth == 1 && s.place == atTop && !s.large && isWrapper(cut(i)) {
					cut(i + 1)
					if err := s.structure(); err != nil {
						return err
					}
					s.in, s.depth = false, 0
					s.place, s.items = inWrap, 0
					continue
				}
				s.depth++
				continue
			case '}', ']':
				if s.bare {
					break
				}
				if s.depth--; s.depth == 0 {
					if err := s.record(cut(i + 1)); err != nil {
						return err
					}
				}
				continue
			case ',', ' ', '\t', '\r', '\n':
			default:
				continue
			}
			if !s.bare {
				continue
			}
			if err := s.record(cut(i)); err != nil {
				return err
			}
			// The byte that ended it is looked at again, outside of it.
		}
		if s.junk {
			if c == '\n' {
				if err := s.bad(cut(i+1), "no JSON object"); err != nil {
					return err
				}
				s.junk = false
			}
			continue
		}
		if s.place == wrapTail {
			switch {
			case s.str:
				switch {
				case s.esc:
					s.esc = false
				case c == '\\':
					s.esc = true
				case c == '"':
					s.str = false
				}
			case c == '"':
				s.str = true
			case c == '{' || c == '[':
				s.depth++
			case c == '}' || c == ']':
				if s.depth == 0 {
					s.place, s.items = atTop, 0
				} else {
					s.depth--
				}
			}
			continue
		}
		switch c {
		case ' ', '\t', '\r', '\n', ',':
			continue
		case ']':
			if s.place == atTop {
				break
			}
			cut(i + 1)
			if err := s.structure(); err != nil {
				return err
			}
			if s.place == inWrap {
				s.place, s.depth, s.str, s.esc = wrapTail, 0, false, false
			} else {
				s.place = atTop
			}
			s.items = 0
			continue
		}
		if s.place == atTop {
			if !s.began && (c == bom[0] || c == bom[1] || c == bom[2]) {
				continue
			}
			s.began = true
			if c == '[' {
				cut(i + 1)
				if err := s.structure(); err != nil {
					return err
				}
				s.place, s.items = inArray, 0
				continue
			}
			if c != '{' {
				cut(i)
				if err := s.structure(); err != nil {
					return err
				}
				s.junk = true
				continue
			}
		}
		// A record begins. What was read since the last one separates them.
		cut(i)
		if err := s.between(); err != nil {
			return err
		}
		s.in, s.large, s.str, s.esc, s.depth = true, false, false, false, 0
		s.bare = c != '{' && c != '[' && c != '"'
		switch c {
		case '{', '[':
			s.depth = 1
		case '"':
			s.str = true
		}
	}
	cut(len(p))
	return s.bound()
}

// bound keeps memory: what is over the bound is handed on.
func (s *jsonSplitter) bound() error {
	switch {
	case s.in && len(s.cur) > s.max:
		s.large = true
		return s.structure()
	case !s.in && len(s.cur) > 64<<10:
		return s.structure()
	}
	return nil
}

// isWrapper recognises `{"Records":`, spaces aside.
func isWrapper(b []byte) bool {
	if len(b) > 256 {
		return false
	}
	b, ok := bytes.CutPrefix(b, []byte{'{'})
	if !ok {
		return false
	}
	b = bytes.TrimSpace(b)
	b, ok = bytes.CutSuffix(b, []byte{':'})
	name := string(bytes.TrimSpace(b))
	return ok && (name == `"Records"` || name == `"records"`)
}

func (s *jsonSplitter) record(raw []byte) error {
	s.in = false
	p := piece{kind: pieceFrame, raw: raw, body: raw, first: s.items == 0}
	if s.large || len(raw) > s.max {
		s.large = false
		p.kind, p.reason = pieceBad, event.LineError{Code: CodeTooLarge, Reason: fmt.Sprintf("longer than %d bytes", s.max)}
	}
	s.items++
	s.cur = s.cur[:0]
	return s.emit(&p)
}

func (s *jsonSplitter) bad(raw []byte, reason string) error {
	s.cur = s.cur[:0]
	s.items++
	return s.emit(&piece{kind: pieceBad, raw: raw, reason: event.LineError{Code: CodeBadLine, Reason: reason}})
}

func (s *jsonSplitter) structure() error {
	raw := s.cur
	s.cur = s.cur[:0]
	if len(raw) == 0 {
		return nil
	}
	return s.emit(&piece{kind: pieceStructure, raw: raw})
}

func (s *jsonSplitter) between() error {
	if s.items == 0 {
		return s.structure()
	}
	raw := s.cur
	s.cur = s.cur[:0]
	if len(raw) == 0 {
		return nil
	}
	return s.emit(&piece{kind: pieceSeparator, raw: raw})
}

// end closes the stream.
func (s *jsonSplitter) end() error {
	switch {
	case s.in && s.bare && s.place == atTop:
		return s.record(s.cur)
	case s.in:
		return s.bad(s.cur, "cut short inside a record")
	case s.junk:
		return s.bad(s.cur, "no JSON object")
	case s.place != atTop:
		return s.bad(s.cur, "the array is not closed")
	}
	return s.structure()
}

// looksJSON tells a JSON document from JSON lines, by the beginning of a content
// behind spaces: an array, a wrapper, or an object that goes on over its first
// line. b is at most the first part of the content.
func looksJSON(b []byte) bool {
	if len(b) == 0 || b[0] == '[' {
		return len(b) > 0
	}
	if b[0] != '{' {
		return false
	}
	i := bytes.IndexByte(b, '[')
	if i >= 0 && isWrapper(b[:i]) {
		return true
	}
	// Is the object whole at the end of its line?
	depth, str, esc := 0, false, false
	for i, c := range b {
		switch {
		case c == '\n':
			// A line that was cut is followed by the next object.
			return !str && depth > 0 && i+1 < len(b) && b[i+1] != '{'
		case esc:
			esc = false
		case str:
			esc, str = c == '\\', c != '"'
		case c == '"':
			str = true
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}
