package access_test

import (
	"testing"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/query"
)

func TestVeil(t *testing.T) {
	const people, contents = "class_uid = 4003 or class_uid = 1007", "class_uid = 4003 | fields time, query.hostname, user.uid"
	for _, c := range []struct {
		question, class, kind, field, value string
		hide                                bool
	}{
		// 02:30: processes and logons are whole.
		{people, "1007", "event", "user.uid", "p", false},
		{people, "1007", "event", "process.cmd_line", "winword complaint.docx", false},
		{people, "1007", "event", "native.unheard_of", "x", false},
		{people, "3002", "event", "src_endpoint.ip", "10.1.2.3", false},
		{people, "3002", "event", "native.TargetUserName", "x", false},
		{people, "2004", "finding", "query.hostname", "union.example", false},
		// A row with contents shows people and machines, and no contents.
		{people, "4003", "event", "user.uid", "p", false},
		{people, "4003", "event", "device.hostname", "ws-17", false},
		{people, "4003", "event", "process.file.path", `C:\x\chrome.exe`, false},
		{people, "4003", "event", "ref", "r", false},
		{people, "4003", "event", "traffic.bytes_out", "5", false},
		{people, "4003", "event", "query.hostname", "union.example", true},
		{people, "4003", "event", "native.QueryName", "union.example", true},
		{people, "4003", "event", "native.unheard_of", "x", true},
		{people, "4003", "event", "native.unheard_of", "4711", false},
		{people, "4003", "event", "native.unheard_of", token("p", 0), false},
		{contents, "4003", "event", "native.unheard_of", "4711", true},
		{contents, "4003", "event", "native.unheard_of", token("p", 0), true},
		{people, "4003", "event", "dst_endpoint.ip", "198.51.100.7", true},
		{people, "4003", "event", "process.cmd_line", "signal.exe", true},
		{people, "4003", "event", "process.cmd_line", "type local47.txt", true},
		{people, "4003", "event", "process.cmd_line", "firewall.exe", false},
		{people, "", "unparsed", "native.message", "x", true},
		{people, "2004", "event", "file.path", "x", true},
		// Asked for by name: contents, and nothing that leads to people.
		{contents, "4003", "event", "query.hostname", "union.example", false},
		{contents, "4003", "event", "time", "", false},
		{contents, "4003", "event", "class_uid", "4003", false},
		{contents, "4003", "event", "user.uid", "p", true},
		{contents, "4003", "event", "device.hostname", "ws-17", true},
		{contents, "4003", "event", "src_endpoint.ip", "10.1.2.3", true},
		{contents, "4003", "event", "src_endpoint.port", "55123", true},
		{contents, "4003", "event", "ref", "r", true},
		{contents, "4003", "event", "sealed", "", true},
		{contents, "4003", "event", "start_time", "", true},
		{contents, "4003", "event", "process.cmd_line", "x", true},
		{contents, "4003", "event", "native.EventRecordID", "7", true},
		{contents, "4003", "event", "native.unheard_of", "x", true},
		{contents, "4003", "event", "native.message", "x", true},
		{contents, "4003", "event", "", "x", true},
		{contents, "4003", "event", "email.to", "x", true},
		{contents, "4003", "event", "file.path", "/srv/x.txt", false},
		{contents, "4003", "event", "file.path", "/home/alice/x.txt", true},
		{contents, "4003", "event", "http_request.url.path", "/u/" + token("p", 0), true},
		{contents, "4003", "event", "query.hostname", "cunningham", true},
		{contents, "1007", "event", "user.uid", "p", true},
		{contents, "2004", "finding", "user.uid", "p", true},
	} {
		v := access.Veil(parseQuery(t, c.question)).Row(c.class, c.kind)
		if got := v.HideValue(c.field, c.value, options(t)); got != c.hide {
			t.Errorf("%s: class %s %s: %q hidden: %v", c.question, c.class, c.kind, c.field, got)
		}
		if v.Hide(c.field) && !c.hide && c.field != "native.unheard_of" {
			t.Errorf("%s: the field %q is hidden and its value is not", c.question, c.field)
		}
	}
	v := access.Veil(parseQuery(t, contents))
	if !v.Contents() || !v.Ref() || !v.Day() {
		t.Error("contents lead to people by reference or time")
	}
	if v := access.Veil(parseQuery(t, people)); v.Contents() || v.Ref() || v.Day() {
		t.Error("people are shown, and reference or time is hidden")
	}
}

// TestVeilNeverBoth: whatever is asked, no row shows a person beside contents.
func TestVeilNeverBoth(t *testing.T) {
	for _, q := range append(conditions(t), &query.Query{}, nil) {
		v := access.Veil(q)
		for _, class := range []string{"4001", "4002", "4003", "1001", "0", "", "5001", "201003"} {
			for _, p := range []string{"user.uid", "actor.user.uid", "device.hostname", "src_endpoint.ip", "session.uid", "native.TargetUserName"} {
				for _, c := range []string{"query.hostname", "http_request.url.path", "native.QueryName", "file.name", "app_name", "dst_endpoint.hostname", "email.subject"} {
					if r := v.Row(class, "event"); !r.Hide(p) && !r.Hide(c) {
						t.Fatalf("class %s shows %s beside %s", class, p, c)
					}
				}
			}
		}
	}
}

func TestSomebody(t *testing.T) {
	for _, c := range []struct {
		class, field, value string
		want                bool
	}{
		{"4003", "user.uid", token("p", 0), true},
		{"4003", "user.uid", "alice", true},
		{"4003", "user.uid", "SYSTEM", false},
		{"4003", "device.hostname", "ws-17", true},
		{"4003", "device.hostname", "srv-db01", false},
		{"4003", "query.hostname", "union.example", false},
		{"4003", "process.cmd_line", "x " + token("d", 0), true},
		{"4003", "process.cmd_line", "/home/alice/x", true},
		{"4003", "process.cmd_line", "/usr/bin/x", false},
		{"", "native.message", "mail from alice@corp.example", true},
		{"", "native.message", "service restarted", false},
		{"", "native.host", "web01", false},
		{"", "native.user", "alice", true},
		{"1001", "file.path", "Cunningham.doc", true},
	} {
		if got := access.Somebody(c.class, c.field, c.value, options(t)); got != c.want {
			t.Errorf("class %q: %s: %v", c.class, c.field, got)
		}
	}
}
