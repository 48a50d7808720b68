package parse

import (
	"bytes"
	"strings"

	"github.com/counterseal/counterseal/internal/event"
)

// zeekDataset names the dataset of a log by its path.
func zeekDataset(path string) string {
	switch path {
	case "conn":
		return "zeek-conn"
	case "dns":
		return "zeek-dns"
	case "http":
		return "zeek-http"
	case "ssl":
		return "zeek-ssl"
	case "ssh":
		return "zeek-ssh"
	case "smb_files", "smb_mapping", "smb_cmd":
		return "zeek-smb"
	}
	return "zeek-other"
}

// zeekHeader is what the header lines of a Zeek text log say.
type zeekHeader struct {
	sep, setSep, empty, unset []byte
	path                      string
	names, types              [][]byte
}

// readZeekHeader obeys the header: later lines win, so that a block in the middle
// of a file holds from there on.
func readZeekHeader(b []byte) (zeekHeader, bool) {
	h := zeekHeader{sep: []byte("\t"), setSep: []byte(","), empty: []byte("(empty)"), unset: []byte("-")}
	for len(b) > 0 {
		var line []byte
		line, b, _ = bytes.Cut(b, []byte("\n"))
		line = bytes.TrimSuffix(line, []byte("\r"))
		if rest, ok := bytes.CutPrefix(line, []byte("#separator ")); ok {
			if v := unescapeZeek(rest); len(v) > 0 {
				h.sep = v
			}
			continue
		}
		if len(line) == 0 || line[0] != '#' {
			continue
		}
		key, rest, ok := bytes.Cut(line, h.sep)
		if !ok {
			continue
		}
		switch string(key) {
		case "#set_separator":
			h.setSep = unescapeZeek(rest)
		case "#empty_field":
			h.empty = unescapeZeek(rest)
		case "#unset_field":
			h.unset = unescapeZeek(rest)
		case "#path":
			h.path = string(unescapeZeek(rest))
		case "#fields":
			h.names = bytes.Split(rest, h.sep)
		case "#types":
			h.types = bytes.Split(rest, h.sep)
		}
	}
	return h, len(h.names) > 0
}

// zeekPath finds the path without reading the rest of the header.
func zeekPath(b []byte) string {
	i := bytes.LastIndex(b, []byte("#path"))
	if i < 0 {
		return ""
	}
	path, _, _ := bytes.Cut(b[i+len("#path"):], []byte("\n"))
	path = bytes.TrimSuffix(path, []byte("\r"))
	sep := []byte("\t")
	if j := bytes.LastIndex(b[:i], []byte("#separator ")); j >= 0 {
		line, _, _ := bytes.Cut(b[j+len("#separator "):], []byte("\n"))
		if v := unescapeZeek(bytes.TrimSuffix(line, []byte("\r"))); len(v) > 0 {
			sep = v
		}
	}
	return string(unescapeZeek(bytes.TrimPrefix(path, sep)))
}

// maxHeader bounds the header, which is read anew for each line.
const maxHeader = 64 << 10

func sniffZeek(f *event.Frame, _ string) (string, bool) {
	if len(f.Header) == 0 || len(f.Header) > maxHeader || !bytes.Contains(f.Header, []byte("#fields")) {
		return "", false
	}
	return zeekDataset(zeekPath(f.Header)), true
}

// parseZeek reads one line of a Zeek text log. The values are as in Zeek's JSON:
// an unset field is absent, T and F are booleans, sets and vectors repeat the
// name, an empty set is Null.
func parseZeek(f *event.Frame, c Context, r *event.Record) error {
	if len(f.Header) > maxHeader {
		return &Error{Format: "zeek-tsv", Offset: -1, What: "the header is longer than 64 KiB"}
	}
	h, ok := readZeekHeader(f.Header)
	if !ok {
		return &Error{Format: "zeek-tsv", Offset: -1, What: "the header names no fields"}
	}
	r.Format = "zeek-tsv/1"
	r.Dataset = zeekDataset(zeekPath(f.Header))
	line := trimLine(f.Bytes)
	r.Fields = make([]event.Field, 0, len(h.names)+1)
	if h.path != "" {
		r.Add("_path", h.path)
	}
	n, at := 0, 0
	for {
		i := bytes.Index(line[at:], h.sep)
		last := i < 0
		v := line[at:]
		if !last {
			v = v[:i]
		}
		if n >= len(h.names) {
			return &Error{Format: "zeek-tsv", Offset: at, What: "more columns than the header names"}
		}
		typ := ""
		if n < len(h.types) {
			typ = string(h.types[n])
		}
		zeekColumn(r, &h, string(h.names[n]), typ, v)
		n++
		if last {
			break
		}
		at += i + len(h.sep)
	}
	if n < len(h.names) {
		return &Error{Format: "zeek-tsv", Offset: len(line), What: "fewer columns than the header names"}
	}
	timeOf(r, c, "ts")
	return nil
}

func zeekColumn(r *event.Record, h *zeekHeader, name, typ string, v []byte) {
	if bytes.Equal(v, h.unset) && len(h.unset) > 0 {
		return
	}
	if inner, ok := strings.CutSuffix(typ, "]"); ok {
		if _, elem, ok := strings.Cut(inner, "["); ok {
			if bytes.Equal(v, h.empty) {
				r.Fields = append(r.Fields, event.Field{Name: name, Kind: event.Null, Value: empty})
				return
			}
			for {
				one, rest, more := v, []byte(nil), false
				if len(h.setSep) > 0 {
					one, rest, more = bytes.Cut(v, h.setSep)
				}
				if bytes.Equal(one, h.unset) {
					r.Fields = append(r.Fields, event.Field{Name: name, Kind: event.Null, Value: empty})
				} else {
					r.Fields = append(r.Fields, zeekScalar(h, name, elem, one))
				}
				if !more || len(r.Fields) > event.MaxFields {
					return
				}
				v = rest
			}
		}
	}
	r.Fields = append(r.Fields, zeekScalar(h, name, typ, v))
}

func zeekScalar(h *zeekHeader, name, typ string, v []byte) event.Field {
	switch typ {
	case "bool":
		switch string(v) {
		case "T":
			return event.Field{Name: name, Kind: event.Bool, Value: []byte("true")}
		case "F":
			return event.Field{Name: name, Kind: event.Bool, Value: []byte("false")}
		}
	case "count", "int", "double", "time", "interval", "port":
		if isNumber(v) {
			return event.Field{Name: name, Kind: event.Number, Value: v}
		}
	}
	if bytes.Equal(v, h.empty) && len(h.empty) > 0 {
		return event.Field{Name: name, Value: empty}
	}
	return event.Field{Name: name, Value: unescapeZeek(v)}
}

func isNumber(b []byte) bool {
	s := scanner{b: b}
	if len(b) == 0 || b[0] != '-' && (b[0] < '0' || b[0] > '9') {
		return false
	}
	_, err := s.number()
	return err == nil && s.i == len(b)
}

// unescapeZeek resolves \xHH and the doubled backslash. Other backslashes stay.
func unescapeZeek(v []byte) []byte {
	if bytes.IndexByte(v, '\\') < 0 {
		return v
	}
	out := make([]byte, 0, len(v))
	for i := 0; i < len(v); i++ {
		if v[i] == '\\' && i+3 < len(v) && v[i+1] == 'x' {
			hi, ok1 := hexDigit(v[i+2])
			lo, ok2 := hexDigit(v[i+3])
			if ok1 && ok2 {
				out = append(out, hi<<4|lo)
				i += 3
				continue
			}
		}
		if v[i] == '\\' && i+1 < len(v) && v[i+1] == '\\' {
			i++
		}
		out = append(out, v[i])
	}
	return out
}

// parseZeekJSON reads Zeek's JSON, its own and the streaming one, under the names
// of the text log.
func parseZeekJSON(f *event.Frame, c Context, r *event.Record) error {
	fields, err := flatten("zeek-json", f.Bytes)
	if err != nil {
		return err
	}
	r.Format = "zeek-json/1"
	for i := range fields {
		switch name := fields[i].Name; name {
		case "@stream":
			fields[i].Name = "_path"
		case "id_orig_h", "id_orig_p", "id_resp_h", "id_resp_p":
			fields[i].Name = "id." + name[3:]
		}
	}
	r.Fields = fields
	sh := readShape(f.Bytes)
	ds, ok := zeekShape(sh)
	if !ok {
		ds = zeekDataset(string(sh.path))
	}
	r.Dataset = ds
	timeOf(r, c, "ts")
	return nil
}
