package parse

import (
	"bytes"
	"strconv"
	"time"

	"github.com/counterseal/counterseal/internal/event"
)

// header is the frame of a syslog line, RFC 5424, RFC 3164, or the form with an
// ISO time that rsyslog and journald write. All parts point into the line.
type header struct {
	pri       int // -1: none
	stamp     []byte
	host      []byte
	app       []byte
	proc      []byte
	msgid     []byte
	sd        []byte // structured data as written
	msg       []byte
	rfc5424   bool
	stampForm byte // 'i' ISO, 'b' BSD, 0 none
}

// splitSyslog reads the header. It takes a line only where a priority or a date
// begins it.
func splitSyslog(b []byte) (header, bool) {
	h := header{pri: -1}
	i := 0
	if len(b) > 0 && b[0] == '<' {
		end := bytes.IndexByte(b[:min(len(b), 5)], '>')
		if end < 2 {
			return h, false
		}
		n, err := strconv.ParseUint(string(b[1:end]), 10, 16)
		if err != nil || n > 191 {
			return h, false
		}
		h.pri = int(n)
		i = end + 1
		if rest := b[i:]; len(rest) > 2 && rest[0] == '1' && rest[1] == ' ' {
			if split5424(rest[2:], &h) {
				return h, true
			}
			h = header{pri: h.pri}
		}
	}
	rest := b[i:]
	n := isoLength(rest)
	if n > 0 {
		h.stamp, h.stampForm = rest[:n], 'i'
	} else if n = stampLength(rest); n > 0 {
		h.stamp, h.stampForm = rest[:n], 'b'
	} else if h.pri < 0 {
		return h, false
	}
	rest = rest[n:]
	if n > 0 {
		if len(rest) > 0 && rest[0] == ':' { // Cisco ends its date with a colon
			rest = rest[1:]
		}
		if len(rest) == 0 || rest[0] != ' ' {
			return h, len(rest) == 0
		}
		rest = bytes.TrimLeft(rest, " ")
		// A host name follows unless the first word is already the tag.
		word := firstWord(rest)
		if len(word) > 0 && word[len(word)-1] != ':' && word[len(word)-1] != ']' && len(word) < len(rest) {
			h.host = word
			rest = rest[len(word)+1:]
			// Some appliances write their name twice.
			if again, ok := bytes.CutPrefix(rest, word); ok && len(again) > 0 && again[0] == ' ' {
				rest = again[1:]
			}
		}
	}
	h.app, h.proc, h.msg = splitTag(rest)
	return h, true
}

func firstWord(b []byte) []byte {
	if i := bytes.IndexByte(b, ' '); i >= 0 {
		return b[:i]
	}
	return b
}

// splitTag reads `name[pid]: message`. A line without a tag is all message.
func splitTag(b []byte) (app, proc, msg []byte) {
	i := 0
	for i < len(b) && i < 64 && tagByte(b[i]) {
		i++
	}
	if i == 0 || i >= len(b) {
		return nil, nil, b
	}
	app = b[:i]
	rest := b[i:]
	if rest[0] == '[' {
		end := bytes.IndexByte(rest[:min(len(rest), 64)], ']')
		if end < 0 {
			return nil, nil, b
		}
		proc = rest[1:end]
		rest = rest[end+1:]
	}
	switch {
	case len(rest) > 0 && rest[0] == ':':
		rest = rest[1:]
	case len(proc) > 0 && (len(rest) == 0 || rest[0] == ' '):
	default:
		return nil, nil, b
	}
	if len(rest) > 0 && rest[0] == ' ' {
		rest = rest[1:]
	}
	return app, proc, rest
}

func tagByte(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	switch c {
	case '-', '_', '.', '/', '(', ')', '%', '@', '+', '#':
		return true
	}
	return false
}

func split5424(b []byte, h *header) bool {
	var parts [5][]byte
	for k := range parts {
		i := bytes.IndexByte(b, ' ')
		if i < 1 {
			return false
		}
		if part := b[:i]; len(part) != 1 || part[0] != '-' {
			parts[k] = part
		}
		b = b[i+1:]
	}
	h.stamp, h.host, h.app, h.proc, h.msgid = parts[0], parts[1], parts[2], parts[3], parts[4]
	if h.stamp != nil {
		h.stampForm = 'i'
	}
	switch {
	case len(b) > 0 && b[0] == '-' && (len(b) == 1 || b[1] == ' '):
		b = b[1:]
	case len(b) > 0 && b[0] == '[':
		n := sdLength(b)
		if n < 0 {
			return false
		}
		h.sd, b = b[:n], b[n:]
	default:
		return false
	}
	if len(b) > 0 && b[0] == ' ' {
		b = b[1:]
	}
	h.msg = bytes.TrimPrefix(b, []byte("\xEF\xBB\xBF"))
	h.rfc5424 = true
	return true
}

// sdLength finds the end of structured data.
func sdLength(b []byte) int {
	i := 0
	for i < len(b) && b[i] == '[' {
		quoted := false
		for i++; ; i++ {
			if i >= len(b) {
				return -1
			}
			if quoted && b[i] == '\\' {
				i++
				continue
			}
			if b[i] == '"' {
				quoted = !quoted
			}
			if b[i] == ']' && !quoted {
				break
			}
		}
		i++
	}
	if i < len(b) && b[i] != ' ' {
		return -1
	}
	return i
}

// isoLength is the length of an ISO time at the start of b, up to the space.
func isoLength(b []byte) int {
	if len(b) < 19 || b[4] != '-' || b[7] != '-' || b[10] != 'T' {
		return 0
	}
	n := len(firstWord(b[:min(len(b), 40)]))
	word := b[:n]
	if n < 19 {
		return 0
	}
	if word[n-1] == ':' {
		n--
	}
	if _, _, ok := readTime(b[:n], time.UTC); !ok {
		return 0
	}
	return n
}

func stampLength(b []byte) int {
	// The year does not matter for the length; a leap year accepts each day.
	_, n, ok := readStamp(b, Context{Received: time.Date(2024, 12, 31, 0, 0, 0, 0, time.UTC)})
	if !ok {
		return 0
	}
	return n
}

func sniffSyslog(f *event.Frame, _ string) (string, bool) {
	h, ok := splitSyslog(trimLine(f.Bytes))
	if !ok {
		return "", false
	}
	return syslogDataset(f, &h), true
}

// syslogDataset goes by application name and the first bytes of the message. What
// neither tells is the dataset that the sender declared. A declared dataset that is
// none of ours is the operator's own: its messages stay whole.
func syslogDataset(f *event.Frame, h *header) string {
	if foreign(f) {
		return f.Dataset
	}
	if auditStart(h.msg) >= 0 {
		return "linux-auditd"
	}
	switch app := string(appBase(h.app)); app {
	case "sshd", "sshd-session", "sshd-auth":
		if bytes.HasPrefix(h.msg, []byte("pam_")) {
			return "linux-auth"
		}
		return "linux-sshd"
	case "sudo":
		if bytes.HasPrefix(h.msg, []byte("pam_")) {
			return "linux-auth"
		}
		return "linux-sudo"
	case "su", "login", "pam", "systemd-logind", "useradd", "userdel", "usermod", "groupadd", "groupdel", "groupmod",
		"passwd", "chpasswd", "chage", "gpasswd", "newgrp", "polkitd", "unix_chkpwd", "systemd-user":
		return "linux-auth"
	case "filterlog":
		return "firewall"
	}
	if bytes.HasPrefix(h.msg, []byte("pam_")) {
		return "linux-auth"
	}
	if firewallMessage(h.msg) {
		return "firewall"
	}
	for i := range syslogDatasets {
		if syslogDatasets[i].Name == f.Dataset {
			return f.Dataset
		}
	}
	return formatSyslog
}

// appBase takes the path and what stands in brackets off: `/usr/sbin/cron`,
// `sudo(pam)`.
func appBase(app []byte) []byte {
	if i := bytes.LastIndexByte(app, '/'); i >= 0 {
		app = app[i+1:]
	}
	if i := bytes.IndexByte(app, '('); i > 0 {
		app = app[:i]
	}
	return app
}

func parseSyslog(f *event.Frame, c Context, r *event.Record) error {
	line := trimLine(f.Bytes)
	h, ok := splitSyslog(line)
	if !ok {
		return &Error{Format: formatSyslog, Offset: 0, What: "neither a priority nor a date begins the line"}
	}
	r.Format = "syslog/1"
	r.Dataset = syslogDataset(f, &h)
	r.Fields = make([]event.Field, 0, 16)
	switch h.stampForm {
	case 'i':
		setTime(r, c, h.stamp)
	case 'b':
		if t, _, ok := readStamp(h.stamp, c); ok {
			claim(r, c, t, false)
		}
	}
	add := func(name string, v []byte) {
		if v != nil {
			r.Fields = append(r.Fields, event.Field{Name: name, Value: v})
		}
	}
	add("timestamp", h.stamp)
	if r.Dataset == "linux-auditd" { // whose own hostname is the other side
		add("syslog_host", h.host)
	} else {
		add("hostname", h.host)
	}
	if h.pri >= 0 {
		r.Add("facility", facilityName(h.pri>>3))
		r.Add("severity", severityNames[h.pri&7])
	}
	add("app_name", h.app)
	if r.Dataset == "linux-sshd" {
		add("pid", h.proc)
	} else {
		add("proc_id", h.proc)
	}
	add("msg_id", h.msgid)
	if h.sd != nil {
		structured(r, h.sd)
	}
	switch r.Dataset {
	case "linux-auditd":
		return auditFields(r, c, h.msg, string(h.host))
	case "linux-sshd":
		take(r, sshdShapes, h.msg)
	case "linux-sudo":
		sudo(r, h.msg)
	case "linux-auth":
		take(r, authShapes, h.msg)
	case "firewall":
		firewall(r, &h)
		if r.Time == 0 {
			applianceTime(r, c)
		}
	default:
		add("msg", h.msg)
	}
	return nil
}

// structured adds the parameters of RFC 5424 structured data as sd.ID.PARAM. An
// element without parameters is Null.
func structured(r *event.Record, b []byte) {
	for len(b) > 0 && b[0] == '[' && len(r.Fields) <= event.MaxFields {
		n := 1
		for n < len(b) && b[n] != ' ' && b[n] != ']' {
			n++
		}
		prefix := "sd." + string(b[1:n])
		b = b[n:]
		if len(b) > 0 && b[0] == ']' {
			r.Fields = append(r.Fields, event.Field{Name: prefix, Kind: event.Null, Value: empty})
		}
		for len(b) > 0 && b[0] == ' ' && len(r.Fields) <= event.MaxFields {
			eq := bytes.IndexByte(b, '=')
			if eq < 0 || eq+1 >= len(b) || b[eq+1] != '"' {
				// Not as the standard says: the rest of the element as it is.
				end := bytes.IndexByte(b, ']')
				if end < 0 {
					end = len(b)
				}
				r.Fields = append(r.Fields, event.Field{Name: prefix, Value: b[1:end]})
				b = b[end:]
				break
			}
			name := string(bytes.TrimSpace(b[:eq]))
			i := eq + 2
			v := make([]byte, 0, 16)
			for i < len(b) && b[i] != '"' {
				if b[i] == '\\' && i+1 < len(b) && (b[i+1] == '"' || b[i+1] == '\\' || b[i+1] == ']') {
					i++
				}
				v = append(v, b[i])
				i++
			}
			r.Fields = append(r.Fields, event.Field{Name: prefix + "." + name, Value: v})
			b = b[min(i+1, len(b)):]
		}
		if len(b) == 0 || b[0] != ']' {
			if len(b) > 0 {
				r.Fields = append(r.Fields, event.Field{Name: prefix, Value: b})
			}
			return
		}
		b = b[1:]
	}
}

var severityNames = [8]string{"emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"}

func facilityName(n int) string {
	names := [...]string{
		"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
		"ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
	}
	return names[n]
}
