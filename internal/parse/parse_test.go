package parse

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/event"
)

func TestIdentify(t *testing.T) {
	for _, c := range []struct {
		name, bytes, format, dataset, header string
		wantFormat, wantDataset              string
	}{
		{name: "declared by nobody", bytes: `{"a":1}`, wantFormat: "json", wantDataset: "json"},
		{name: "declared name of our own", bytes: `{"a":1}`, dataset: "signin", wantFormat: "signin", wantDataset: "signin"},
		{name: "declared name of the operator", bytes: `{"event":"signin","user":"x"}`, dataset: "vpn-sessions", wantFormat: "json", wantDataset: "vpn-sessions"},
		{name: "the record tells more than the sender", bytes: `{"Channel":"System","EventID":1,"Hostname":"a"}`, dataset: "win-security", wantFormat: "nxlog", wantDataset: "win-system"},
		{name: "format of the way in", bytes: `{"Channel":"Security","EventID":1}`, format: "evtx-json", wantFormat: "evtx-json", wantDataset: "win-security"},
		{name: "firewall without a known tag", bytes: `<13>Nov 24 10:00:00 fw1 blah: something`, dataset: "firewall", wantFormat: "syslog", wantDataset: "firewall"},
		{name: "operator's syslog", bytes: `<13>Nov 24 10:00:00 fw1 blah: something`, dataset: "printers", wantFormat: "syslog", wantDataset: "printers"},
		{name: "json in leading space", bytes: " \r\n{\"a\":1}", wantFormat: "json", wantDataset: "json"},
		{name: "sshd under the operator's name", bytes: `<13>Nov 24 10:00:00 h sshd[1]: Invalid user x from 1.2.3.4`, dataset: "jump-hosts", wantFormat: "syslog", wantDataset: "jump-hosts"},
		{name: "sshd though firewall was declared", bytes: `<13>Nov 24 10:00:00 h sshd[1]: Invalid user x from 1.2.3.4`, dataset: "firewall", wantFormat: "syslog", wantDataset: "linux-sshd"},
		{name: "syslog though JSON was declared", bytes: `<13>Nov 24 10:00:00 h a[1]: x`, dataset: "signin", wantFormat: "syslog", wantDataset: "syslog"},
		{name: "key in disguise", bytes: `{"Chan\u006eel":"Security","EventID":1,"Computer":"x"}`, format: "evtx-json", wantFormat: "evtx-json", wantDataset: "win-other"},
		{name: "index of an agent", bytes: `{"a":1}`, dataset: "filebeat-8.15.0", wantFormat: "json", wantDataset: "json"},
		{name: "index of an agent with a line", bytes: `{"agent":{},"message":"Nov 24 10:00:00 h sshd[1]: Invalid user x from 1.2.3.4"}`, dataset: "filebeat-8.15.0", wantFormat: "filebeat", wantDataset: "linux-sshd"},
		{name: "shipper with another message", bytes: `{"agent":{},"message":"hello"}`, wantFormat: "json", wantDataset: "json"},
		{name: "text", bytes: "hello"},
		{name: "array", bytes: `[{"a":1}]`},
		{name: "empty", bytes: ""},
		{name: "text of the operator", bytes: "hello", dataset: "printers"},
		{name: "unknown format is no hint", bytes: `{"a":1}`, format: "csv", wantFormat: "json", wantDataset: "json"},
		{name: "zeek", bytes: "a\tb", header: "#path\tssl\n#fields\tx\ty\n", wantFormat: "zeek-tsv", wantDataset: "zeek-ssl"},
	} {
		f := &event.Frame{Bytes: []byte(c.bytes), Format: c.format, Dataset: c.dataset, Header: []byte(c.header)}
		fm, ds, ok := Identify(f, "http")
		got := ""
		if ok {
			got = fm.Name
		}
		if got != c.wantFormat || ds != c.wantDataset {
			t.Errorf("%s: %q, %q; want %q, %q", c.name, got, ds, c.wantFormat, c.wantDataset)
		}
		if !ok {
			continue
		}
		var r event.Record
		if err := fm.Parse(f, testContext(), &r); err != nil || r.Dataset != ds {
			t.Errorf("%s: parsed as %q, %v", c.name, r.Dataset, err)
		}
	}
}

func TestHostileInput(t *testing.T) {
	big := strings.Repeat("A", 10<<20)
	deep := strings.Repeat(`{"a":`, 33) + "1" + strings.Repeat("}", 33)
	wide := "{" + strings.Repeat(`"a":1,`, event.MaxFields) + `"a":1}`
	for _, c := range []struct {
		name, bytes string
		want        string // part of the error; empty: it parses
	}{
		{"10 MB string", `{"a":"` + big + `"}`, ""},
		{"10 MB syslog", "<13>Nov 24 10:00:00 h sshd[1]: Accepted password for " + big + " from 1.2.3.4 port 22 ssh2", ""},
		{"10 MB sudo", "<13>Nov 24 10:00:00 h sudo: a : " + strings.Repeat("TTY=x ; ", 1<<20), "fields"},
		{"10 MB of words", "type=A msg=audit(1.0:1): op=" + strings.Repeat("x ", 5<<20), ""},
		{"10 MB of pairs", "type=A msg=audit(1.0:1): " + strings.Repeat("x=y ", 2<<20), "fields"},
		{"10 MB of keys", "type=A msg=audit(1.0:1): key=" + strings.Repeat("6101", 2<<20), "fields"},
		{"10 MB of flags", "<13>Nov 24 10:00:00 h kernel: IN= SRC=1 DST=2 " + strings.Repeat("x ", 5<<20), "fields"},
		{"10 MB of structured data", "<13>1 - h a - - " + strings.Repeat(`[a b="c"]`, 1<<20), "fields"},
		{"10 MB of quotes", `{"a":"` + strings.Repeat(`\"`, 5<<20) + `"}`, ""},
		{"10 MB of backslashes", `{"a":"` + strings.Repeat(`\\`, 5<<20) + `"}`, ""},
		{"deep object", deep, "nested deeper"},
		{"deep array", `{"a":` + strings.Repeat("[", 1<<20), "nested deeper"},
		{"wide object", wide, "more than 2000 fields"},
		{"long name", `{"` + strings.Repeat("n", event.MaxName+1) + `":1}`, "name"},
		{"long name by nesting", `{"` + strings.Repeat("n", 300) + `":{"` + strings.Repeat("n", 300) + `":1}}`, "name"},
		{"NUL bytes", "<13>Nov 24 10:00:00 h a: x\x00y", ""},
		{"invalid UTF-8", "{\"a\":\"\xff\xfe\"}", ""},
		{"terminal escapes", "<13>Nov 24 10:00:00 h a: \x1b[2J", ""},
	} {
		start := time.Now()
		f := &event.Frame{Bytes: []byte(c.bytes)}
		fm, _, ok := Identify(f, "http")
		if !ok {
			t.Errorf("%s: not identified", c.name)
			continue
		}
		var r event.Record
		err := fm.Parse(f, testContext(), &r)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
		// Far above what a linear reading takes on a busy machine, far below what a
		// quadratic one takes.
		if d := time.Since(start); d > time.Minute {
			t.Errorf("%s took %v", c.name, d)
		}
	}
}

// TestErrorsHoldNoValue plants a name in records that do not parse.
func TestErrorsHoldNoValue(t *testing.T) {
	const planted = "Zdenka-Planted"
	for _, line := range []string{
		`{"user":"` + planted + `"`, `{"` + planted + `":01}`, `{"user":"` + planted + `",}`, `{"user":"x"} ` + planted,
		"type=" + planted + " msg=audit(" + planted + ":1): a=b", "type=X msg=audit(1.0:" + planted + "): a=b", "type=X audit(" + strings.Repeat(planted, 9),
	} {
		for _, fm := range Formats() {
			f := event.Frame{Bytes: []byte(line), Header: []byte("#fields\ta\tb\tc\n")}
			var r event.Record
			err := fm.Parse(&f, testContext(), &r)
			if err == nil {
				continue
			}
			if strings.Contains(err.Error(), planted) {
				t.Errorf("%s: %v", fm.Name, err)
			}
			var pe *Error
			if !errors.As(err, &pe) || pe.What == "" || pe.Format == "" || pe.Offset > len(line) {
				t.Errorf("%s: %#v", fm.Name, err)
			}
		}
	}
}

func TestUnparsed(t *testing.T) {
	f := event.Frame{Bytes: []byte("\x00not \xff a record"), Dataset: "signin"}
	r := event.Record{Fields: []event.Field{{Name: "left"}}, Running: event.Running{Stream: "s"}}
	Unparsed(&f, &r)
	if r.Kind != event.Unparsed || r.Dataset != "signin" || len(r.Fields) != 1 || r.Running.Stream != "" {
		t.Fatalf("%+v", r)
	}
	if v, ok := r.Get(event.UnparsedField); !ok || !bytes.Equal(v.Value, f.Bytes) {
		t.Fatalf("%q", v.Value)
	}
}

func TestLogSource(t *testing.T) {
	for _, c := range [][4]string{
		{"win-sysmon", "windows", "", ""}, {"linux-auditd", "linux", "", "auditd"}, {"zeek-dns", "zeek", "", "dns"}, {"cloudtrail", "aws", "", "cloudtrail"},
		{"firewall", "firewall", "firewall", ""}, {"signin", "idp", "authentication", "signin"}, {"mdm-device", "mdm", "", "device"}, {"none", "", "", ""},
	} {
		p, cat, s := LogSource(c[0])
		if p != c[1] || cat != c[2] || s != c[3] {
			t.Errorf("%s: %s/%s/%s", c[0], p, cat, s)
		}
	}
}

func TestReadTime(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip("needs the time zone database")
	}
	for _, c := range []struct {
		text, want string
		zoned      bool
	}{
		{"2026-11-24T07:58:12Z", "2026-11-24T07:58:12Z", true},
		{"2026-11-24T07:58:12.123456789+01:00", "2026-11-24T06:58:12.123456789Z", true},
		{"2026-11-24T07:58:12.1234567891-0130", "2026-11-24T09:28:12.123456789Z", true},
		{"2026-11-24 07:58:12", "2026-11-24T06:58:12Z", false},
		{"2026-07-24 07:58:12,5", "2026-07-24T05:58:12.5Z", false},
		{"2026/07/24 07:58:12 UTC", "2026-07-24T07:58:12Z", true},
		{"2026-11-24T07:58:12+05", "2026-11-24T02:58:12Z", true},
		{"2026-02-29T07:58:12Z", "", false},
		{"2026-13-01T07:58:12Z", "", false},
		{"2026-11-24T24:00:00Z", "", false},
		{"2026-11-24T07:58:12.Z", "", false},
		{"2026-11-24T07:58", "", false},
		{"2026-11-24T07:58:12Zulu", "", false},
		{"", "", false},
	} {
		got, zoned, ok := readTime([]byte(c.text), berlin)
		if ok != (c.want != "") {
			t.Errorf("%q: ok %t", c.text, ok)
			continue
		}
		if ok && (got.UTC().Format(time.RFC3339Nano) != c.want || zoned != c.zoned) {
			t.Errorf("%q: %s zoned %t", c.text, got.UTC().Format(time.RFC3339Nano), zoned)
		}
	}
}

// TestYear puts a date without a year near its receipt: at most a day after it.
func TestYear(t *testing.T) {
	for _, c := range []struct{ received, text, want string }{
		{"2026-01-01T00:10:00Z", "Dec 31 23:59:59", "2025-12-31T23:59:59Z"},
		{"2025-12-31T23:50:00Z", "Jan  1 00:05:00", "2026-01-01T00:05:00Z"},
		{"2026-03-01T12:00:00Z", "Mar  2 11:59:59", "2026-03-02T11:59:59Z"},
		{"2026-03-01T12:00:00Z", "Mar  2 12:00:01", "2025-03-02T12:00:01Z"},
		{"2026-03-01T12:00:00Z", "Feb 29 12:00:01", "2024-02-29T12:00:01Z"},
		{"2026-03-01T12:00:00Z", "Mar 1 08:00:00.250", "2026-03-01T08:00:00.25Z"},
		{"2026-03-01T12:00:00Z", "Mar 10 2019 08:00:00", "2019-03-10T08:00:00Z"},
	} {
		at, err := time.Parse(time.RFC3339, c.received)
		if err != nil {
			t.Fatal(err)
		}
		got, n, ok := readStamp([]byte(c.text), Context{Received: at})
		if !ok || n != len(c.text) || got.UTC().Format(time.RFC3339Nano) != c.want {
			t.Errorf("%s received %s: %s, %d bytes, %t", c.text, c.received, got.UTC().Format(time.RFC3339Nano), n, ok)
		}
	}
	for _, bad := range []string{"Foo  1 00:00:00", "Jan 32 00:00:00", "Feb 30 00:00:00", "Jan  1 24:00:00", "Jan  1 00:00"} {
		if _, _, ok := readStamp([]byte(bad), testContext()); ok {
			t.Errorf("took %q", bad)
		}
	}
}

func TestNumbersAsTimes(t *testing.T) {
	for text, want := range map[string]string{
		"1692161622.036086": "2023-08-16T04:53:42.036086Z", "1700000000": "2023-11-14T22:13:20Z", "1700000000123": "2023-11-14T22:13:20.123Z",
		"1700000000123456": "2023-11-14T22:13:20.123456Z", "1700000000123456789": "2023-11-14T22:13:20.123456789Z", "99999999999999999999": "", "170000000012345678": "1975-05-22T14:13:20.012345678Z", "1.7e9": "2023-11-14T22:13:20Z",
		"-1": "", "x": "", "": "",
	} {
		got, ok := readNumber([]byte(text))
		if ok != (want != "") || ok && got.UTC().Format(time.RFC3339Nano) != want {
			t.Errorf("%s: %s %t", text, got.UTC().Format(time.RFC3339Nano), ok)
		}
	}
}

// TestZoneIsNamed: a time without a zone names the zone that was assumed.
func TestZoneIsNamed(t *testing.T) {
	zone := time.FixedZone("Agency/West", -5*3600)
	for line, want := range map[string]string{
		"Nov 24 10:00:00 h a: x":                       "Agency/West",
		"2026-11-24T10:00:00 h a: x":                   "Agency/West",
		"2026-11-24T10:00:00Z h a: x":                  "",
		`{"time":"2026-11-24 10:00:00"}`:               "Agency/West",
		`{"time":1700000000}`:                          "",
		"type=A msg=audit(1700000000.1:1): a=b":        "",
		`{"time":"2126-11-24 10:00:00"}`:               "",
		"<13>1 2026-11-24T10:00:00+00:00 h a - - - x.": "",
	} {
		f := event.Frame{Bytes: []byte(line)}
		r, err := read(&f, Context{Received: received, Zone: zone})
		if err != nil || r.Zone != want {
			t.Errorf("%s: zone %q, %v", line, r.Zone, err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	for _, line := range []string{
		`{"@timestamp":"2026-11-24T08:16:00.000Z","winlog":{"channel":"Microsoft-Windows-Sysmon/Operational","computer_name":"ws07.agency.example","event_id":1,"record_id":77,"event_data":{"UtcTime":"2026-11-24 08:15:59.998","ProcessId":"5120","Image":"C:\\Windows\\System32\\cmd.exe","CommandLine":"cmd /c \"whoami\"","User":"AGENCY\\r.kern","Hashes":"SHA256=AB"}}}`,
		"Nov 24 09:57:22 bullseye sshd[582]: Failed password for invalid user admin from 198.51.100.7 port 53502 ssh2",
		`type=SYSCALL msg=audit(1492752520.441:8832): arch=c000003e syscall=59 success=yes exit=0 a0=3 a1=7ffd items=2 ppid=1 pid=1663 auid=1000 uid=0 gid=0 tty=(none) ses=4 comm="sshd" exe="/usr/sbin/sshd" key=(null)`,
		`{"_path":"conn","ts":"2026-11-24T10:00:00.123456Z","uid":"C1","id.orig_h":"10.0.1.6","id.orig_p":54243,"id.resp_h":"10.0.0.4","id.resp_p":53,"proto":"udp","conn_state":"SF"}`,
	} {
		f := event.Frame{Bytes: []byte(line)}
		fm, ds, ok := Identify(&f, "http")
		if !ok {
			b.Fatal(line)
		}
		b.Run(fmt.Sprintf("%s-%s", fm.Name, ds), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(line)))
			for b.Loop() {
				var r event.Record
				fm, _, _ := Identify(&f, "http")
				if err := fm.Parse(&f, testContext(), &r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
