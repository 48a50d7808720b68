package parse

import (
	"bytes"

	"github.com/counterseal/counterseal/internal/event"
)

// firewallMessage tells a packet filter's line by its keys: netfilter's `IN=` and
// `SRC=`, or an action beside a source address as the appliances write them.
func firewallMessage(msg []byte) bool {
	head := msg[:min(len(msg), 2048)]
	if bytes.Contains(head, []byte("SRC=")) && bytes.Contains(head, []byte("DST=")) &&
		(bytes.Contains(head, []byte("IN=")) || bytes.Contains(head, []byte("PROTO="))) {
		return true
	}
	src, act := false, false
	for _, key := range []string{"srcip=", "src_ip=", "src="} {
		src = src || hasKey(head, key)
	}
	for _, key := range []string{"action=", "act=", "disposition="} {
		act = act || hasKey(head, key)
	}
	return src && act
}

// hasKey finds a key at the start of a word.
func hasKey(b []byte, key string) bool {
	for at := 0; ; {
		i := bytes.Index(b[at:], []byte(key))
		if i < 0 {
			return false
		}
		if i += at; i == 0 || b[i-1] == ' ' || b[i-1] == ',' || b[i-1] == '\t' || b[i-1] == ';' {
			return true
		}
		at = i + len(key)
	}
}

// firewallName maps the keys of netfilter and of the common appliances to our
// field; other keys keep their name.
func firewallName(key string) string {
	switch key {
	case "SRC", "srcip", "src_ip", "src":
		return "src_ip"
	case "DST", "dstip", "dst_ip", "dst":
		return "dst_ip"
	case "SPT", "srcport", "src_port", "spt", "sport":
		return "src_port"
	case "DPT", "dstport", "dst_port", "dpt", "dport":
		return "dst_port"
	case "PROTO", "proto", "protocol":
		return "proto"
	case "IN", "srcintf", "in_if", "inif", "iif":
		return "in_if"
	case "OUT", "dstintf", "out_if", "outif", "oif":
		return "out_if"
	case "action", "act", "disposition":
		return "action"
	case "rule", "policyid", "policyname", "rule_name", "ruleid", "policy":
		return "rule"
	case "sentbyte", "bytes_out", "sent_bytes", "out":
		return "bytes_out"
	case "rcvdbyte", "bytes_in", "rcvd_bytes", "in":
		return "bytes_in"
	}
	return key
}

// firewall reads netfilter's lines from the kernel, the appliances' key=value
// lines and pf's comma-separated ones.
func firewall(r *event.Record, h *header) {
	if string(h.app) == "filterlog" && pf(r, h.msg) {
		return
	}
	msg := h.msg
	netfilter := bytes.Contains(msg, []byte("SRC=")) && bytes.Contains(msg, []byte("DST="))
	if netfilter {
		msg = netfilterPrefix(r, msg)
	}
	if !netfilter && !firewallMessage(msg) {
		r.Fields = append(r.Fields, event.Field{Name: "msg", Value: msg})
		return
	}
	pairs(r, msg, netfilter)
}

// netfilterPrefix reads what stands before the first key: the kernel's clock and
// the text of the rule, which says what became of the packet if anything does.
func netfilterPrefix(r *event.Record, msg []byte) []byte {
	at := bytes.Index(msg, []byte("IN="))
	if src := bytes.Index(msg, []byte("SRC=")); at < 0 || at > src {
		at = src
	}
	// A key of the rule's own, such as DESCR="…", begins before IN=.
	if eq := bytes.IndexByte(msg, '='); eq >= 0 && eq < at {
		at = bytes.LastIndexByte(msg[:eq], ' ') + 1
	}
	prefix := bytes.TrimRight(msg[:at], " ")
	if len(prefix) > 0 && prefix[0] == '[' {
		if end := bytes.IndexByte(prefix, ']'); end > 0 && kernelClock(prefix[1:end]) {
			r.Fields = append(r.Fields, event.Field{Name: "kernel_time", Value: bytes.TrimSpace(prefix[1:end])})
			prefix = bytes.TrimLeft(prefix[end+1:], " ")
		}
	}
	if len(prefix) > 0 {
		r.Fields = append(r.Fields, event.Field{Name: "rule", Value: prefix})
		if a := actionWord(prefix); a != "" {
			r.Add("action", a)
		}
	}
	return msg[at:]
}

func kernelClock(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && c != '.' && c != ' ' {
			return false
		}
	}
	return len(b) > 0
}

// actionWord finds a verdict in the text of a rule. Netfilter logs no verdict, so
// the text is all there is.
func actionWord(b []byte) string {
	low := bytes.ToLower(b)
	for _, w := range []string{"drop", "reject", "deny", "denied", "block", "accept", "allow", "pass"} {
		if bytes.Contains(low, []byte(w)) {
			switch w {
			case "denied":
				return "deny"
			}
			return w
		}
	}
	return ""
}

// pairs reads key=value with quotes where a value holds spaces. A word without a
// key is a flag.
func pairs(r *event.Record, b []byte, netfilter bool) {
	lens := 0
	for len(r.Fields) <= event.MaxFields {
		b = bytes.TrimLeft(b, " ,;\t")
		if len(b) == 0 {
			return
		}
		n := 0
		for n < len(b) && b[n] != '=' && b[n] != ' ' && b[n] != '\t' {
			n++
		}
		if n == len(b) || b[n] != '=' || n == 0 {
			if n == 0 {
				n = 1
			}
			r.Fields = append(r.Fields, event.Field{Name: "flags", Value: b[:n]})
			b = b[n:]
			continue
		}
		key := string(b[:n])
		b = b[n+1:]
		var v []byte
		if len(b) > 0 && b[0] == '"' {
			end := 1
			for end < len(b) && b[end] != '"' {
				if b[end] == '\\' && end+1 < len(b) {
					end++
				}
				end++
			}
			v = b[1:min(end, len(b))]
			b = b[min(end+1, len(b)):]
		} else {
			end := 0
			for end < len(b) && b[end] != ' ' && b[end] != '\t' && (netfilter || b[end] != ',' && b[end] != ';') {
				end++
			}
			v, b = b[:end], b[end:]
		}
		if netfilter && key == "LEN" {
			// The first LEN is the packet's, the second UDP's.
			if lens++; lens > 1 {
				key = "UDP_LEN"
			}
		}
		name := firewallName(key)
		if (name == "src_ip" || name == "dst_ip") && (key == "src" || key == "dst") && !addressLike(v) {
			name = key
		}
		if (name == "bytes_in" || name == "bytes_out") && (key == "in" || key == "out") && !isDigits(v) {
			name = map[string]string{"in": "in_if", "out": "out_if"}[key]
		}
		kind := event.String
		switch name {
		case "src_port", "dst_port", "bytes_in", "bytes_out":
			if isDigits(v) {
				kind = event.Number
			}
		}
		r.Fields = append(r.Fields, event.Field{Name: name, Kind: kind, Value: v})
	}
}

// applianceTime reads the time of a line that has it in two keys, date and time.
func applianceTime(r *event.Record, c Context) {
	date, ok1 := r.Get("date")
	clock, ok2 := r.Get("time")
	if !ok1 || !ok2 {
		return
	}
	text := append(append(append(make([]byte, 0, 32), date.Value...), ' '), clock.Value...)
	setTime(r, c, text)
}

func isDigits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0
}

// pf reads the filterlog lines of pfSense and OPNsense. It answers false for a
// line that it does not know, which then stays a message.
func pf(r *event.Record, msg []byte) bool {
	p := bytes.Split(msg, []byte(","))
	if len(p) < 20 || len(p) > 64 || (string(p[8]) != "4" && string(p[8]) != "6") {
		return false
	}
	names := []string{"rule", "sub_rule", "anchor", "tracker", "interface", "reason", "action", "direction", "ip_version"}
	if string(p[8]) == "4" {
		names = append(names, "tos", "ecn", "ttl", "id", "offset", "flags", "proto_id", "proto", "length", "src_ip", "dst_ip")
	} else {
		names = append(names, "class", "flow", "hop_limit", "proto", "proto_id", "length", "src_ip", "dst_ip")
	}
	if len(p) < len(names) {
		return false
	}
	next := len(names)
	for i, name := range names {
		if len(p[i]) > 0 {
			r.Fields = append(r.Fields, event.Field{Name: name, Value: p[i]})
		}
	}
	in, _ := r.Get("direction")
	iface, _ := r.Get("interface")
	switch string(in.Value) {
	case "in":
		r.Fields = append(r.Fields, event.Field{Name: "in_if", Value: iface.Value})
	case "out":
		r.Fields = append(r.Fields, event.Field{Name: "out_if", Value: iface.Value})
	}
	proto, _ := r.Get("proto")
	if s := string(bytes.ToLower(proto.Value)); (s == "tcp" || s == "udp") && len(p) >= next+2 && isDigits(p[next]) && isDigits(p[next+1]) {
		r.Fields = append(r.Fields,
			event.Field{Name: "src_port", Kind: event.Number, Value: p[next]},
			event.Field{Name: "dst_port", Kind: event.Number, Value: p[next+1]})
		next += 2
	}
	for _, v := range p[next:] {
		if len(v) > 0 {
			r.Fields = append(r.Fields, event.Field{Name: "detail", Value: v})
		}
	}
	return true
}
