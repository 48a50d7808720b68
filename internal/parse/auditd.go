package parse

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"

	"github.com/counterseal/counterseal/internal/event"
)

// auditStart finds where an auditd record begins in a line: at `node=` or
// `type=`, perhaps behind the kernel's "audit: ". It answers -1 where none does.
func auditStart(b []byte) int {
	at := 0
	if bytes.HasPrefix(b, []byte("[")) { // the kernel's clock
		if end := bytes.IndexByte(b[:min(len(b), 32)], ']'); end > 0 && kernelClock(b[1:end]) {
			at = end + 1
		}
	}
	for at < len(b) && b[at] == ' ' {
		at++
	}
	if rest := b[at:]; bytes.HasPrefix(rest, []byte("audit: ")) {
		at += len("audit: ")
	}
	rest := b[at:]
	if !bytes.HasPrefix(rest, []byte("type=")) && !bytes.HasPrefix(rest, []byte("node=")) {
		return -1
	}
	if !bytes.Contains(rest[:min(len(rest), 512)], []byte("audit(")) {
		return -1
	}
	return at
}

func sniffAuditd(f *event.Frame, _ string) (string, bool) {
	b := f.Bytes
	if len(b) == 0 || b[0] != 't' && b[0] != 'n' {
		return "", false
	}
	return "linux-auditd", auditStart(b) == 0
}

func parseAuditd(f *event.Frame, c Context, r *event.Record) error {
	r.Format = "auditd/1"
	r.Dataset = "linux-auditd"
	r.Fields = make([]event.Field, 0, 32)
	return auditFields(r, c, trimLine(f.Bytes), "")
}

// auditFields reads one audit record. An event of the kernel is several records
// with one (node, time, serial): that is Group, and each record stays its own,
// since rules test single records.
func auditFields(r *event.Record, c Context, line []byte, host string) error {
	bad := func(what string, rest []byte) error {
		return &Error{Format: "auditd", Offset: len(line) - len(rest), What: what}
	}
	at := auditStart(line)
	if at < 0 {
		return bad("no audit record begins the line", line)
	}
	b := line[at:]
	node := host
	if rest, ok := bytes.CutPrefix(b, []byte("node=")); ok {
		name, after, _ := bytes.Cut(rest, []byte(" "))
		r.Fields = append(r.Fields, event.Field{Name: "node", Value: name})
		node, b = string(name), bytes.TrimLeft(after, " ")
	}
	rest, ok := bytes.CutPrefix(b, []byte("type="))
	if !ok {
		return bad("type is due", b)
	}
	typ, rest, ok := bytes.Cut(rest, []byte(" "))
	if !ok || len(typ) == 0 {
		return bad("the line ends after the type", rest)
	}
	r.Fields = append(r.Fields, event.Field{Name: "type", Value: typ})
	rest = bytes.TrimPrefix(rest, []byte("msg="))
	if rest, ok = bytes.CutPrefix(rest, []byte("audit(")); !ok {
		return bad("audit( is due", rest)
	}
	id, body, ok := bytes.Cut(rest[:], []byte(")"))
	if !ok || len(id) > 64 {
		return bad("the identity of the event does not end", rest)
	}
	stamp, serial, ok := bytes.Cut(id, []byte(":"))
	n, err := strconv.ParseUint(string(serial), 10, 64)
	if !ok || err != nil {
		return bad("the serial is no number", rest)
	}
	if t, ok := readEpoch(stamp); ok {
		claim(r, c, t, true)
	} else if !setTime(r, c, stamp) && len(stamp) == 0 {
		return bad("the time is missing", rest)
	}
	r.Fields = append(r.Fields, event.Field{Name: "audit_time", Value: stamp})
	body = bytes.TrimPrefix(body, []byte(":"))

	a := audit{r: r, typ: string(typ)}
	body, enriched, _ := bytes.Cut(body, []byte{0x1D})
	a.body(body, 0)
	if len(enriched) > 0 {
		a.body(enriched, 0)
	}
	a.flushArgument()
	if v, ok := r.Get("node"); ok && node == "" {
		node = string(v.Value)
	}
	r.Group = node + "/" + string(stamp) + ":" + string(serial)
	r.Running = event.Running{Stream: strings.ToLower(node) + "/auditd", N: n, Step: true}
	return nil
}

// audit adds the pairs of one record.
type audit struct {
	r   *event.Record
	typ string

	// arg is an argument of EXECVE that the kernel split into a1[0], a1[1], …
	arg      string
	argParts []byte
}

func (a *audit) add(name string, v []byte) {
	if len(a.r.Fields) <= event.MaxFields {
		a.r.Fields = append(a.r.Fields, event.Field{Name: name, Value: v})
	}
}

// body reads the pairs of a record or of a nested msg='…'. Words without a key
// belong to the value before them, or are the record's prose.
func (a *audit) body(b []byte, depth int) {
	auoms := strings.HasPrefix(a.typ, "AUOMS_")
	if (a.typ == "AVC" || a.typ == "USER_AVC" || a.typ == "1400") && depth < 2 {
		b = a.avc(b)
	}
	whole := b
	loose := -1  // where a bare value began that prose may continue, or -1
	prefix := "" // "old" or "new" before a key
	for len(a.r.Fields) <= event.MaxFields {
		b = bytes.TrimLeft(b, " ,\n")
		if len(b) == 0 {
			return
		}
		n := 0
		for n < len(b) && b[n] != '=' && b[n] != ' ' {
			n++
		}
		if n == len(b) || b[n] == ' ' || n == 0 { // prose
			if n == 0 {
				n = 1
			}
			word := b[:n]
			b = b[n:]
			if string(word) == "}" { // the end of an enriched SADDR
				loose = -1
				continue
			}
			next := bytes.TrimLeft(b, " ")
			if s := string(word); (s == "old" || s == "new") && pairAhead(next) {
				prefix = s
				continue
			}
			end := len(whole) - len(b)
			if loose < 0 {
				loose = end - n
				a.add("text", nil)
			}
			// Word by word the field grows over the bytes of the line.
			a.r.Fields[len(a.r.Fields)-1].Value = bytes.TrimRight(whole[loose:end], ",")
			continue
		}
		key := string(b[:n])
		if prefix == "old" {
			key = "old-" + key
		}
		prefix = ""
		b = b[n+1:]
		switch {
		case key == "msg" && len(b) > 0 && b[0] == '\'' && depth == 0:
			inner := b[1:]
			rest := []byte(nil)
			if end := bytes.LastIndexByte(inner, '\''); end >= 0 {
				inner, rest = inner[:end], inner[end+1:]
			}
			a.body(inner, depth+1)
			b = rest
			loose = -1
		case auoms && (key == "cmdline" || key == "proctitle"):
			// The agent writes these without escaping: they end where its next key
			// begins.
			end := bytes.Index(b, []byte(" redactors="))
			if end < 0 {
				end = len(b)
			}
			v := b[:end]
			if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
				v = v[1 : len(v)-1]
			}
			a.add(key, v)
			b = b[end:]
			loose = -1
		case auoms && len(b) > 0 && b[0] == '[':
			end := bytes.Index(b, []byte("] "))
			if end < 0 {
				end = len(b) - 1
			}
			a.add(key, b[:end+1])
			b = b[end+1:]
			loose = -1
		case len(b) > 0 && b[0] == '"':
			end := bytes.IndexByte(b[1:], '"')
			if end < 0 {
				a.value(key, b[1:], true)
				return
			}
			a.value(key, b[1:1+end], true)
			b = b[end+2:]
			loose = -1
		default:
			end := bytes.IndexByte(b, ' ')
			if end < 0 {
				end = len(b)
			}
			v := b[:end]
			at := len(whole) - len(b)
			b = b[end:]
			if len(v) > 1 && v[len(v)-1] == ',' {
				v = v[:len(v)-1]
			}
			loose = -1
			if a.value(key, v, false) {
				loose = at
			}
		}
	}
}

func pairAhead(b []byte) bool {
	for _, c := range b {
		if c == '=' {
			return true
		}
		if c == ' ' {
			return false
		}
	}
	return false
}

// avc reads the prose of SELinux: `avc:  denied  { getattr } for  pid=…`.
func (a *audit) avc(b []byte) []byte {
	t := bytes.TrimLeft(b, " ")
	at := bytes.Index(t[:min(len(t), 200)], []byte("avc:"))
	if at < 0 {
		return b
	}
	head := t[:at]
	t = bytes.TrimLeft(t[at+4:], " ")
	verdict, rest, ok := bytes.Cut(t, []byte(" "))
	rest = bytes.TrimLeft(rest, " ")
	if !ok || len(rest) == 0 || rest[0] != '{' {
		return b
	}
	perms, rest, ok := bytes.Cut(rest[1:], []byte("}"))
	if !ok {
		return b
	}
	if len(bytes.TrimSpace(head)) > 0 {
		a.body(head, 2)
	}
	a.add("seresult", verdict)
	a.add("seperms", bytes.TrimSpace(perms))
	rest = bytes.TrimLeft(rest, " ")
	return bytes.TrimPrefix(rest, []byte("for "))
}

// value adds one pair. Text that the kernel does not trust is hexadecimal where it
// is not quoted. It reports whether one field holds the bytes as they stand.
func (a *audit) value(key string, v []byte, quoted bool) bool {
	if name, ok := a.split(key); ok {
		if !quoted {
			v = unhex(v)
		}
		if a.arg != name {
			a.flushArgument()
			a.arg = name
		}
		a.argParts = append(a.argParts, v...)
		return false
	}
	a.flushArgument()
	asIs := true
	if !quoted && a.encoded(key) {
		decoded := unhex(v)
		asIs = len(decoded) == len(v)
		v = decoded
	}
	switch key {
	case "saddr":
		if a.sockaddr(v) {
			return false
		}
	case "SADDR":
		if string(v) == "{" { // the enriched form: its parts follow as pairs
			return false
		}
	case "proctitle":
		if bytes.IndexByte(v, 0) >= 0 {
			v = bytes.ReplaceAll(v, []byte{0}, []byte{' '})
		}
	case "key":
		for {
			one, rest, more := bytes.Cut(v, []byte{1})
			a.add(key, one)
			if !more {
				return asIs
			}
			asIs = false
			v = rest
		}
	}
	a.add(key, v)
	return asIs && len(a.r.Fields) <= event.MaxFields
}

// sockaddr decodes a socket address under the names that enriched records use. An
// address in hexadecimal would pass every test for addresses unseen. The family is
// in the byte order of the machine, the port in that of the network.
func (a *audit) sockaddr(v []byte) bool {
	raw := make([]byte, len(v)/2)
	if n, err := hex.Decode(raw, v); err != nil || n < 4 {
		return false
	}
	port := strconv.AppendUint(nil, uint64(raw[2])<<8|uint64(raw[3]), 10)
	inet := func(family string, addr []byte) bool {
		ip, ok := netip.AddrFromSlice(addr)
		if !ok {
			return false
		}
		a.add("saddr_fam", []byte(family))
		a.add("laddr", []byte(ip.String()))
		a.add("lport", port)
		return true
	}
	family := uint16(raw[0]) | uint16(raw[1])<<8
	if raw[0] == 0 { // a big-endian machine
		family = uint16(raw[1])
	}
	switch {
	case family == 2 && len(raw) >= 8:
		return inet("inet", raw[4:8])
	case family == 10 && len(raw) >= 24:
		return inet("inet6", raw[8:24])
	case family == 1:
		path := raw[2:]
		if path[0] == 0 { // an abstract name
			path = path[1:]
		}
		if end := bytes.IndexByte(path, 0); end >= 0 {
			path = path[:end]
		}
		a.add("saddr_fam", []byte("local"))
		a.add("path", path)
		return true
	}
	return false
}

// split tells a piece of a long argument, a1[0].
func (a *audit) split(key string) (string, bool) {
	if a.typ != "EXECVE" || len(key) < 5 || key[0] != 'a' || key[len(key)-1] != ']' {
		return "", false
	}
	name, index, ok := strings.Cut(key[:len(key)-1], "[")
	return name, ok && isDigits([]byte(index)) && isDigits([]byte(name[1:]))
}

// flushArgument adds the argument whose pieces have been gathered.
func (a *audit) flushArgument() {
	if a.arg == "" {
		return
	}
	a.add(a.arg, a.argParts)
	a.arg, a.argParts = "", nil
}

func (a *audit) encoded(key string) bool {
	switch key {
	case "comm", "ocomm", "exe", "name", "acct", "cwd", "cmd", "proctitle", "key", "data", "path", "dir", "watch",
		"file", "filename", "device", "old-chardev", "new-chardev", "old-disk", "new-disk", "old-fs", "new-fs",
		"vm", "sw", "unit", "profile", "info", "kernel", "vm-ctx", "img-ctx", "id_file", "grp", "new_group", "id-name":
		return true
	}
	if a.typ == "EXECVE" && len(key) > 1 && key[0] == 'a' {
		return isDigits([]byte(key[1:]))
	}
	return false
}

// unhex decodes text of an even number of upper-case hexadecimal digits, and
// leaves other text as it is: `(null)`, `?`, a bare word.
func unhex(v []byte) []byte {
	if len(v) == 0 || len(v)%2 != 0 {
		return v
	}
	for _, c := range v {
		if (c < '0' || c > '9') && (c < 'A' || c > 'F') {
			return v
		}
	}
	out := make([]byte, len(v)/2)
	if _, err := hex.Decode(out, v); err != nil {
		return v
	}
	return out
}
