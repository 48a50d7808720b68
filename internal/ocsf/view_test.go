package ocsf

import (
	"archive/zip"
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/packs"
	"github.com/counterseal/counterseal/internal/parse"
)

// eventOf stands for pseudonymising: the records of the tests hold nobody real.
func eventOf(t *testing.T, f *event.Frame) *event.Event {
	t.Helper()
	fm, ds, ok := parse.Identify(f, "import")
	if !ok {
		t.Fatalf("not identified: %s", f.Bytes)
	}
	r := event.Record{Envelope: event.Envelope{Dataset: ds}}
	if err := fm.Parse(f, parse.Context{Received: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)}, &r); err != nil {
		t.Fatal(err)
	}
	return &event.Event{Envelope: r.Envelope, Fields: r.Fields}
}

func values(attrs []Attr) map[string]string {
	m := map[string]string{}
	for _, a := range attrs {
		m[a.Name] = a.Value
	}
	return m
}

const (
	ann = "p1_aaaaaaaaaaaaaaaaaaaaaaaaaa"
	bob = "p1_bbbbbbbbbbbbbbbbbbbbbbbbbb"
	wks = "d1_cccccccccccccccccccccccccc"
	ipT = "a1_dddddddddddddddddddddddddd"
)

// win builds a Windows record from channel, id and pairs.
func win(channel, id string, pairs ...string) string {
	m := map[string]string{"Channel": channel, "EventID": id, "Hostname": wks, "EventTime": "2026-11-24 08:00:00"}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	b, _ := json.Marshal(m)
	return string(b)
}

const sysmon = "Microsoft-Windows-Sysmon/Operational"

var cases = []struct {
	name, line string
	want       map[string]string // "" means absent
}{
	{"4624", win("Security", "4624", "SubjectUserName", "-", "TargetUserName", ann, "IpAddress", "::ffff:10.1.2.3", "IpPort", "0", "LogonType", "3", "WorkstationName", wks),
		map[string]string{"class_uid": "3002", "type_uid": "300201", "user.uid": ann, "actor.user.uid": "", "src_endpoint.ip": "10.1.2.3", "src_endpoint.port": "", "logon_type_id": "3", "status_id": "1", "device.hostname": wks}},
	{"4625", win("Security", "4625", "SubjectUserName", `AGENCY\`+bob, "TargetUserName", ann, "IpAddress", ipT, "Status", "0xc000006d"),
		map[string]string{"class_uid": "3002", "status_id": "2", "actor.user.uid": bob, "src_endpoint.ip": ipT, "status_code": "0xc000006d"}},
	{"4688", win("Security", "4688", "SubjectUserName", ann, "NewProcessName", `C:\Windows\cmd.exe`, "NewProcessId", "0x1f4", "CommandLine", "cmd /c", "ParentProcessName", `C:\a.exe`, "ProcessId", "0x10"),
		map[string]string{"class_uid": "1007", "activity_id": "1", "process.file.path": `C:\Windows\cmd.exe`, "process.file.name": "cmd.exe", "process.pid": "500", "process.cmd_line": "cmd /c", "actor.user.uid": ann,
			"process.parent_process.file.path": `C:\a.exe`, "process.parent_process.pid": "16"}},
	{"7045", win("System", "7045", "ServiceName", "evil", "ImagePath", `C:\x.exe`, "AccountName", "LocalSystem"),
		map[string]string{"class_uid": "201004", "category_uid": "1", "type_uid": "20100401", "win_service.name": "evil", "win_service.cmd_line": `C:\x.exe`, "win_service.service_start_name": "LocalSystem"}},
	{"1102", win("Security", "1102", "SubjectUserName", ann), map[string]string{"class_uid": "1008", "activity_id": "1", "severity_id": "4", "actor.user.uid": ann}},
	{"4738", win("Security", "4738", "TargetUserName", ann), map[string]string{"class_uid": "3001", "activity_id": "99", "activity_name": "Change"}},
	{"4732", win("Security", "4732", "MemberName", "CN="+ann, "TargetUserName", "Administrators"), map[string]string{"class_uid": "3006", "activity_id": "3", "user.uid": ann, "group.name": "Administrators"}},
	{"4663 key", win("Security", "4663", "ObjectType", "Key", "ObjectName", `\REGISTRY\X`), map[string]string{"class_uid": "201001", "reg_key.path": `\REGISTRY\X`}},
	{"4663 file", win("Security", "4663", "ObjectType", "File", "ObjectName", `C:\x`), map[string]string{"class_uid": "1001", "file.path": `C:\x`}},
	{"unknown Windows", win("Security", "9999"), map[string]string{"class_uid": "0", "activity_id": "0", "device.hostname": wks}},
	{"Sysmon 1", win(sysmon, "1", "User", `AGENCY\`+ann, "Image", `C:\x.exe`, "ParentImage", `C:\y.exe`, "CommandLine", "x", "ProcessId", "12"),
		map[string]string{"class_uid": "1007", "activity_id": "1", "actor.user.uid": ann, "process.user.uid": ann, "process.pid": "12", "process.parent_process.file.path": `C:\y.exe`}},
	{"Sysmon 3", win(sysmon, "3", "SourceIp", ipT, "DestinationIp", "198.51.100.7", "DestinationPort", "443", "Initiated", "true", "Image", `C:\x.exe`, "User", "NT AUTHORITY\\SYSTEM"),
		map[string]string{"class_uid": "4001", "activity_id": "1", "src_endpoint.ip": ipT, "dst_endpoint.ip": "198.51.100.7", "dst_endpoint.port": "443", "connection_info.direction_id": "2", "actor.process.file.path": `C:\x.exe`, "actor.user.uid": "SYSTEM"}},
	{"Sysmon 10", win(sysmon, "10", "SourceImage", `C:\m.exe`, "TargetImage", `C:\lsass.exe`), map[string]string{"class_uid": "1007", "activity_id": "3", "process.file.path": `C:\lsass.exe`, "actor.process.file.path": `C:\m.exe`}},
	{"Sysmon 11", win(sysmon, "11", "TargetFilename", `C:\a\b.txt`), map[string]string{"class_uid": "1001", "activity_id": "1", "file.path": `C:\a\b.txt`, "file.name": "b.txt"}},
	{"Sysmon 12", win(sysmon, "12", "EventType", "CreateKey", "TargetObject", `HKLM\X`), map[string]string{"class_uid": "201001", "activity_id": "1", "reg_key.path": `HKLM\X`}},
	{"Sysmon 13", win(sysmon, "13", "EventType", "SetValue", "TargetObject", `HKLM\X\Run`, "Details", "x"), map[string]string{"class_uid": "201002", "activity_id": "2", "reg_value.name": "Run", "reg_value.data": "x"}},
	{"Sysmon 17", win(sysmon, "17", "PipeName", `\p`), map[string]string{"class_uid": "1001", "file.type_id": "6", "file.name": `\p`}},
	{"Sysmon 22", win(sysmon, "22", "QueryName", "evil.example", "QueryStatus", "0"), map[string]string{"class_uid": "4003", "activity_id": "1", "query.hostname": "evil.example", "status_id": "1"}},
	{"PowerShell", win("Microsoft-Windows-PowerShell/Operational", "4104", "ScriptBlockId", "i"), map[string]string{"class_uid": "1009", "activity_id": "1", "script.uid": "i"}},
	{"Defender", win("Microsoft-Windows-Windows Defender/Operational", "1116", "ThreatName", "T", "SeverityID", "5"), map[string]string{"class_uid": "2004", "severity_id": "5", "finding_info.title": "T"}},
	{"task", win("Microsoft-Windows-TaskScheduler/Operational", "106", "TaskName", `\t`, "UserContext", ann), map[string]string{"class_uid": "1006", "activity_id": "1", "job.name": `\t`}},

	{"sshd accepted", "Nov 24 09:57:21 srv1 sshd[581]: Accepted publickey for " + ann + " from " + ipT + " port 56296 ssh2: RSA SHA256:x",
		map[string]string{"class_uid": "3002", "activity_id": "1", "status_id": "1", "user.uid": ann, "src_endpoint.ip": ipT, "device.hostname": "srv1", "src_endpoint.port": "56296"}},
	{"sshd closed", "Nov 24 09:57:21 srv1 sshd[581]: Connection closed by authenticating user root 198.51.100.7 port 45362 [preauth]",
		map[string]string{"class_uid": "4007", "activity_id": "2", "actor.user.uid": "root", "src_endpoint.ip": "198.51.100.7"}},
	{"sshd unknown", "Nov 24 09:57:21 srv1 sshd[581]: error: something", map[string]string{"class_uid": "0"}},
	{"sudo", "Nov 24 00:13:02 srv1 sudo: " + ann + " : TTY=pts/1 ; PWD=/ ; USER=root ; COMMAND=/bin/ls", map[string]string{"class_uid": "3002", "activity_id": "7", "account_switch_type_id": "1", "actor.user.uid": ann, "user.uid": "root", "actor.process.cmd_line": "/bin/ls", "status_id": "1"}},
	{"su", "Nov 24 10:00:02 web01 su[77]: FAILED su for root by " + ann, map[string]string{"class_uid": "3002", "activity_id": "7", "status_id": "2"}},
	{"useradd", "Nov 24 10:00:03 web01 useradd[80]: new user: name=" + ann + ", UID=1005, GID=1005, home=/home/x, shell=/bin/bash", map[string]string{"class_uid": "3001", "activity_id": "1", "user.uid": ann}},
	{"auditd execve", `node=n1 type=SYSCALL msg=audit(1492752520.441:8832): arch=c000003e syscall=59 success=yes exit=0 a0=3 ppid=1 pid=1663 auid=` + ann + ` uid=0 comm="id" exe="/usr/bin/id"`,
		map[string]string{"class_uid": "1007", "activity_id": "1", "status_id": "1", "actor.user.uid": ann, "process.file.path": "/usr/bin/id", "process.pid": "1663", "device.hostname": "n1"}},
	{"auditd nobody", `type=SYSCALL msg=audit(1492752520.441:8832): arch=c000003e syscall=42 auid=4294967295 exe="/x"`, map[string]string{"class_uid": "4001", "actor.user.uid": ""}},
	{"auditd EXECVE", `type=EXECVE msg=audit(1492752520.441:8832): argc=2 a0="id" a1="-u"`, map[string]string{"class_uid": "1007", "activity_id": "0", "process.cmd_line": "id -u"}},
	{"auditd USER_CMD", `type=USER_CMD msg=audit(1489519256.192:1): pid=1 auid=` + ann + ` msg='cwd="/" cmd=2F62696E2F6964 terminal=? res=success'`, map[string]string{"class_uid": "3002", "activity_id": "7", "actor.process.cmd_line": "/bin/id", "status_id": "1"}},
	{"auditd SOCKADDR", `type=SOCKADDR msg=audit(1492752520.441:8832): saddr=02000050A9FEA9FE0000000000000000`, map[string]string{"class_uid": "4001", "activity_id": "0", "dst_endpoint.ip": "169.254.169.254", "dst_endpoint.port": "80"}},
	{"auditd failed search", `type=SYSCALL msg=audit(1492752520.441:8832): arch=c000003e syscall=59 success=no exit=-2 exe="/x"`, map[string]string{"class_uid": "1007", "status_id": "2"}},
	{"firewall", "<134>Nov 24 10:11:12 fw01 action=deny srcip=" + ipT + " dstip=198.51.100.20 dstport=443 proto=TCP sentbyte=1200", map[string]string{"class_uid": "4001", "activity_id": "6", "action_id": "2", "disposition_id": "2", "src_endpoint.ip": ipT, "dst_endpoint.port": "443", "traffic.bytes_out": "1200", "connection_info.protocol_name": "tcp"}},
	{"syslog", "<8>Nov 24 10:11:12 h a: x", map[string]string{"class_uid": "0", "severity_id": "6", "device.hostname": "h"}},
	{"zeek conn", `{"_path":"conn","ts":1588205199.9,"uid":"C1","id.orig_h":"` + ipT + `","id.orig_p":1,"id.resp_h":"10.0.0.4","id.resp_p":53,"proto":"udp","conn_state":"REJ","orig_bytes":39}`,
		map[string]string{"class_uid": "4001", "activity_id": "5", "src_endpoint.ip": ipT, "dst_endpoint.ip": "10.0.0.4", "traffic.bytes_out": "39", "time": "1588205199900"}},
	{"zeek dns", `{"_path":"dns","ts":1588205199.9,"uid":"C1","id.orig_h":"10.0.0.1","query":"a.example","rcode_name":"NXDOMAIN"}`, map[string]string{"class_uid": "4003", "activity_id": "2", "query.hostname": "a.example", "status_id": "2"}},
	{"zeek http", `{"_path":"http","ts":1588205199.9,"uid":"C1","id.orig_h":"10.0.0.1","method":"PROPFIND","host":"h","uri":"/x"}`, map[string]string{"class_uid": "4002", "activity_id": "99", "activity_name": "PROPFIND", "http_request.url.hostname": "h"}},
	{"zeek weird", `{"_path":"weird","ts":1588205199.9,"uid":"C1","id.orig_h":"10.0.0.1","name":"x"}`, map[string]string{"class_uid": "0", "src_endpoint.ip": ""}},
	{"zeek smb", `{"_path":"smb_files","ts":1588205199.9,"uid":"C1","id.orig_h":"10.0.0.1","action":"SMB::FILE_OPEN","name":"x.exe"}`, map[string]string{"class_uid": "4006", "activity_id": "2", "file.name": "x.exe"}},
	{"signin", `{"time":"2026-11-24T07:58:12.345Z","event":"signin","user":"` + ann + `","src_ip":"` + ipT + `","country":"DE","result":"failure","mfa":false,"device_id":"` + wks + `"}`,
		map[string]string{"class_uid": "3002", "activity_id": "1", "status_id": "2", "user.uid": ann, "src_endpoint.ip": ipT, "src_endpoint.location.country": "DE", "is_mfa": "false", "src_endpoint.uid": wks}},
	{"mdm", `{"time":"2026-11-24T06:00:00Z","device_id":"` + wks + `","user":"` + ann + `","os":"iOS","compliant":false,"country":"TR","last_check_in":"2026-11-24T05:59:00Z","action":"report"}`,
		map[string]string{"class_uid": "5001", "activity_id": "2", "device.uid": wks, "device.owner.uid": ann, "device.location.country": "TR", "device.is_compliant": "false", "severity_id": "3"}},
	{"mdm wipe", `{"time":"2026-11-24T06:00:00Z","device_id":"` + wks + `","compliant":true,"action":"wipe"}`, map[string]string{"class_uid": "3004", "activity_id": "99", "activity_name": "wipe", "entity.uid": wks}},
	{"okta", `{"actor":{"id":"x","alternateId":"` + ann + `"},"client":{"ipAddress":"203.0.113.9"},"eventType":"user.lifecycle.deactivate","outcome":{"result":"SUCCESS"},"published":"2026-11-24T07:58:12.345Z","target":[{"id":"b","alternateId":"` + bob + `"}]}`,
		map[string]string{"class_uid": "3001", "activity_id": "5", "actor.user.uid": ann, "user.uid": bob, "status_id": "1"}},
	{"entra", `{"createdDateTime":"2026-11-24T07:58:12Z","userPrincipalName":"` + ann + `","appDisplayName":"G","ipAddress":"[2001:db8::1]:443","status":{"errorCode":50126}}`,
		map[string]string{"class_uid": "3002", "status_id": "2", "status_code": "50126", "src_endpoint.ip": "2001:db8::1"}},
	{"cloudtrail", `{"eventVersion":"1.09","userIdentity":{"type":"IAMUser","userName":"` + ann + `"},"eventTime":"2024-08-01T13:33:28Z","eventSource":"iam.amazonaws.com","eventName":"AttachUserPolicy","sourceIPAddress":"075.050.255.67","requestParameters":{"userName":"` + bob + `"},"errorCode":"AccessDenied"}`,
		map[string]string{"class_uid": "3001", "activity_id": "7", "actor.user.uid": ann, "user.uid": bob, "status_id": "2", "src_endpoint.ip": "75.50.255.67"}},
	{"cloudtrail service", `{"eventVersion":"1.09","userIdentity":{"type":"AWSService","invokedBy":"ec2.amazonaws.com"},"eventTime":"2024-08-01T13:33:28Z","eventSource":"sts.amazonaws.com","eventName":"AssumeRole","sourceIPAddress":"ec2.amazonaws.com"}`,
		map[string]string{"class_uid": "3002", "activity_id": "99", "src_endpoint.ip": "", "src_endpoint.svc_name": "ec2.amazonaws.com"}},
	{"cloudtrail read", `{"eventVersion":"1.09","userIdentity":{"type":"Root"},"eventTime":"2024-08-01T13:33:28Z","eventSource":"s3.amazonaws.com","eventName":"ListBuckets"}`, map[string]string{"class_uid": "6003", "activity_id": "2"}},
	{"json", `{"a":1}`, map[string]string{"class_uid": "0", "severity_id": "1"}},
}

func TestView(t *testing.T) {
	for _, c := range cases {
		got := values(View(eventOf(t, &event.Frame{Bytes: []byte(c.line)})))
		if got["metadata.version"] != Version {
			t.Errorf("%s: version %q", c.name, got["metadata.version"])
		}
		for name, want := range c.want {
			if got[name] != want {
				t.Errorf("%s: %s = %q, want %q", c.name, name, got[name], want)
			}
		}
	}
}

func TestUnparsedIsBase(t *testing.T) {
	e := &event.Event{Envelope: event.Envelope{Kind: event.Unparsed, Dataset: "win-security", Received: 5_000_000}, Fields: []event.Field{{Name: event.UnparsedField, Value: []byte("x")}}}
	got := values(View(e))
	if got["class_uid"] != "0" || got["time"] != "5" || len(got) != 7 {
		t.Fatalf("%v", got)
	}
}

// TestSchema holds every view that our cases, samples and packs give against the
// published schema.
func TestSchema(t *testing.T) {
	s := loadSchema(t)
	classes := map[string]int{}
	checkEvent := func(where string, e *event.Event) bool {
		attrs := View(e)
		classes[values(attrs)["class_uid"]]++
		if err := s.check(attrs); err != nil {
			t.Errorf("%s: %v", where, err)
			return false
		}
		return true
	}
	check := func(where string, f *event.Frame) bool { return checkEvent(where, eventOf(t, f)) }
	for _, c := range cases {
		check(c.name, &event.Frame{Bytes: []byte(c.line)})
	}
	// All event ids and record types that the code knows, with a field in every place.
	for _, channel := range []string{"Security", "System", sysmon, "Microsoft-Windows-PowerShell/Operational", "Microsoft-Windows-Windows Defender/Operational", "Microsoft-Windows-TaskScheduler/Operational"} {
		var pairs []string
		for _, fm := range parse.Formats() {
			if fm.Name != "nxlog" {
				continue
			}
			for _, d := range fm.Datasets {
				for _, f := range d.Fields {
					switch f.Path {
					case "EventID", "Channel", "Computer", "EventTime", "Level":
						continue
					}
					pairs = append(pairs, f.Path, "1")
				}
			}
		}
		full := eventOf(t, &event.Frame{Bytes: []byte(win(channel, "1", pairs...))})
		for id := 1; id < 8000; id++ {
			for i := range full.Fields {
				if full.Fields[i].Name == "EventID" {
					full.Fields[i].Value = strconv.AppendInt(nil, int64(id), 10)
				}
			}
			if !checkEvent(channel+" "+strconv.Itoa(id), full) {
				break
			}
		}
		for _, typ := range []string{"SetValue", "DeleteValue", "CreateKey", "DeleteKey", "RenameKey", "other"} {
			check(typ, &event.Frame{Bytes: []byte(win(channel, "12", append(pairs, "EventType", typ)...))})
		}
	}
	for _, typ := range strings.Fields("SYSCALL EXECVE PROCTITLE CWD PATH SOCKADDR USER_LOGIN USER_START USER_END USER_AUTH CRED_ACQ LOGIN USER_CMD ADD_USER DEL_USER USER_CHAUTHTOK USER_MGMT ADD_GROUP DEL_GROUP GRP_MGMT CONFIG_CHANGE DAEMON_START DAEMON_END DAEMON_ROTATE SERVICE_START SERVICE_STOP AVC") {
		check(typ, &event.Frame{Bytes: []byte("type=" + typ + ` msg=audit(1.0:1): arch=c000003e syscall=59 success=yes auid=1 ses=1 pid=2 ppid=1 exe="/a/b" acct="x" addr=1.2.3.4 terminal=t res=success grp="g" unit=u laddr=1.2.3.4 lport=2 name="/a" cwd="/" cmd="c" a0="b"`)})
	}
	for n := range 450 {
		for _, arch := range []string{"c000003e", "c00000b7", "40000003"} {
			text, _ := json.Marshal(n)
			check("syscall "+string(text), &event.Frame{Bytes: []byte("type=SYSCALL msg=audit(1.0:1): arch=" + arch + " syscall=" + string(text) + ` success=yes exe="/a/b" pid=1`)})
		}
	}
	samples, _ := filepath.Glob("../parse/testdata/*/*.log")
	for _, file := range samples {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var header []byte
		for _, line := range bytes.SplitAfter(b, []byte("\n")) {
			if bytes.HasPrefix(line, []byte("#")) {
				header = append(header, line...)
				continue
			}
			f := event.Frame{Bytes: line, Header: header}
			if fm, _, ok := parse.Identify(&f, "import"); ok {
				var r event.Record
				if fm.Parse(&f, parse.Context{}, &r) == nil {
					check(file, &f)
				}
			}
		}
	}
	packFiles(t, func(where string, line []byte) bool { return check(where, &event.Frame{Bytes: line}) })
	t.Log(classes)
}

// packFiles gives the records of the Windows and cloud packs.
func packFiles(t *testing.T, fn func(where string, line []byte) bool) {
	t.Helper()
	zips, _ := filepath.Glob(filepath.Join(packs.Dir(t, "otrf-lateral"), "*.zip"))
	for _, path := range zips {
		z, err := zip.OpenReader(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range z.File {
			r, err := f.Open()
			if err != nil {
				t.Fatal(err)
			}
			sc := bufio.NewScanner(r)
			sc.Buffer(nil, 1<<20)
			for n := 0; sc.Scan() && (n < 2000 || !testing.Short()); n++ {
				if !fn(f.Name, bytes.Clone(sc.Bytes())) {
					break
				}
			}
			r.Close()
		}
		z.Close()
	}
	files, _ := filepath.Glob(filepath.Join(packs.Dir(t, "cloud-attacks"), "stratus-cloudtrail", "*.json"))
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var records []json.RawMessage
		if err := json.Unmarshal(b, &records); err != nil {
			t.Fatal(err)
		}
		for _, rec := range records {
			if !fn(filepath.Base(path), rec) {
				break
			}
		}
	}
}

func FuzzView(f *testing.F) {
	for _, c := range cases {
		f.Add([]byte(c.line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		fr := event.Frame{Bytes: line}
		fm, _, ok := parse.Identify(&fr, "http")
		if !ok {
			return
		}
		var r event.Record
		if fm.Parse(&fr, parse.Context{Received: time.Unix(1_800_000_000, 0)}, &r) != nil {
			return
		}
		seen := map[string]bool{}
		for _, a := range View(&event.Event{Envelope: r.Envelope, Fields: r.Fields}) {
			if a.Value == "" || seen[a.Name] {
				t.Fatalf("%s: %q, again %t", a.Name, a.Value, seen[a.Name])
			}
			seen[a.Name] = true
		}
	})
}

func BenchmarkView(b *testing.B) {
	var t testing.T
	e := eventOf(&t, &event.Frame{Bytes: []byte(cases[10].line)})
	b.ReportAllocs()
	for b.Loop() {
		View(e)
	}
}
