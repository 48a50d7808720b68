package parse

import (
	"strings"

	"github.com/counterseal/counterseal/internal/event"
)

// Shippers of files, Filebeat and Vector, put each line into the `message` of an
// object beside what they know of themselves. The object is a transport envelope:
// it is taken off, and the line is read as if it had come alone. Only lines that
// say what they are, syslog and auditd, are read so; another message stays JSON.

func filebeatShape(s *shape) (string, bool) {
	if !s.all(hasMessage|hasShipper) || s.any(hasWinlog) {
		return "", false
	}
	return inner(plain(s.message))
}

// inner names the dataset of the line in an envelope.
func inner(line []byte) (string, bool) {
	line = trimLine(line)
	if auditStart(line) == 0 {
		return "linux-auditd", true
	}
	h, ok := splitSyslog(line)
	if !ok {
		return "", false
	}
	return syslogDataset(&event.Frame{}, &h), true
}

func parseFilebeat(f *event.Frame, c Context, r *event.Record) error {
	fields, err := flatten("filebeat", f.Bytes)
	if err != nil {
		return err
	}
	var line []byte
	host := ""
	var own []event.Field // what the operator or a pipeline added
	for _, v := range fields {
		switch v.Name {
		case "message":
			if line == nil && v.Kind == event.String {
				line = v.Value
			}
			continue
		case "host.name", "host.hostname", "host":
			if host == "" {
				host = string(v.Value)
			}
			continue
		case "@timestamp", "timestamp", "offset", "source_type", "file", "tags", "@version", "event.kind", "event.created", "event.ingested":
			continue
		}
		switch top, _, _ := strings.Cut(v.Name, "."); top {
		case "agent", "beat", "ecs", "host", "input", "log", "@metadata", "cloud", "prospector":
			continue
		}
		own = append(own, v)
	}
	if _, ok := inner(line); !ok {
		return &Error{Format: "filebeat", Offset: -1, What: "field message holds neither a syslog line nor an audit record"}
	}
	frame := event.Frame{Bytes: line}
	hostField := "hostname"
	if auditStart(trimLine(line)) == 0 {
		if err = parseAuditd(&frame, c, r); err == nil {
			r.Group = prefixHost(r.Group, host)
			r.Running.Stream = prefixHost(r.Running.Stream, strings.ToLower(host))
		}
		hostField = "node"
	} else {
		err = parseSyslog(&frame, c, r)
	}
	if err != nil {
		return err
	}
	r.Format = "filebeat/1"
	_, named := r.Get(hostField)
	if _, relayed := r.Get("syslog_host"); !named && !relayed && host != "" {
		r.Add(hostField, host)
	}
	r.Fields = append(r.Fields, own...)
	return nil
}

// prefixHost puts the shipper's host where an audit record names no node.
func prefixHost(s, host string) string {
	if strings.HasPrefix(s, "/") {
		return host + s
	}
	return s
}

// agentIndex reports whether a declared dataset is only the index that an agent
// uses by default, which says who ships and not what.
func agentIndex(name string) bool {
	for _, p := range []string{"filebeat", "winlogbeat", "auditbeat", "logstash", "vector", "fluentd", "fluent-bit", "logs-"} {
		if rest, ok := strings.CutPrefix(name, p); ok && (rest == "" || p == "logs-" || rest[0] == '-') {
			return true
		}
	}
	return false
}
