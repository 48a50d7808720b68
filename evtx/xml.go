package evtx

import "unicode/utf8"

// AppendXML appends the event as one XML element without line breaks of its own.
// Characters that XML cannot hold become U+FFFD; the fields keep them.
func (r *Record) AppendXML(dst []byte) []byte {
	c := r.chunk
	if c.isQuick {
		x := &c.quick[0]
		return c.quickXML(dst, x, 0, len(x.plan.xml))
	}
	c.tokens()
	open := false // a start tag that lacks its closing bracket
	for i := range c.toks {
		t := &c.toks[i]
		text := c.out[t.off : t.off+t.n]
		if open && t.kind != tokAttr && t.kind != tokNull && t.kind != tokEnd {
			dst, open = append(dst, '>'), false
		}
		switch t.kind {
		case tokStart:
			dst = append(append(dst, '<'), t.name...)
			open = true
		case tokAttr:
			dst = append(append(dst, ' '), t.name...)
			dst = appendXMLText(append(dst, '=', '"'), text)
			dst = append(dst, '"')
		case tokText:
			dst = appendXMLText(dst, text)
		case tokPI:
			dst = append(append(dst, '<', '?'), t.name...)
			dst = appendXMLRaw(append(dst, ' '), text)
			dst = append(dst, '?', '>')
		case tokEnd:
			if open {
				dst, open = append(dst, '/', '>'), false
				continue
			}
			dst = append(append(dst, '<', '/'), t.name...)
			dst = append(dst, '>')
		}
	}
	return dst
}

// xmlPlain holds the bytes that stand for themselves in XML text. U+FFFE and
// U+FFFF, which may not, begin with 0xef.
var xmlPlain = func() (t [256]bool) {
	for i := range t {
		t[i] = i >= 0x20 && i != 0xef && i != '&' && i != '<' && i != '>' && i != '"'
	}
	return t
}()

// appendXMLText writes valid UTF-8 as text or attribute.
func appendXMLText(dst, b []byte) []byte {
	from := 0
	for i := 0; i < len(b); i++ {
		x := b[i]
		if xmlPlain[x] {
			continue
		}
		dst = append(dst, b[from:i]...)
		switch x {
		case '&':
			dst = append(dst, "&amp;"...)
		case '<':
			dst = append(dst, "&lt;"...)
		case '>':
			dst = append(dst, "&gt;"...)
		case '"':
			dst = append(dst, "&quot;"...)
		case '\t':
			dst = append(dst, "&#9;"...)
		case '\n':
			dst = append(dst, "&#10;"...)
		case '\r':
			dst = append(dst, "&#13;"...)
		default:
			r, n := utf8.DecodeRune(b[i:])
			dst = appendXMLRune(dst, r)
			i += n - 1
		}
		from = i + 1
	}
	return append(dst, b[from:]...)
}

func appendXMLRaw(dst, b []byte) []byte {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		dst = appendXMLRune(dst, r)
		i += n
	}
	return dst
}

func appendXMLRune(dst []byte, r rune) []byte {
	if r < 0x20 && r != '\t' && r != '\n' && r != '\r' || r == 0xfffe || r == 0xffff {
		r = utf8.RuneError
	}
	return utf8.AppendRune(dst, r)
}
