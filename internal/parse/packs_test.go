package parse

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/counterseal/counterseal/evtx"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/packs"
)

// sample parses our own samples of one format; lines that no parser takes are
// left out.
func sample(t *testing.T, format string) []*event.Record {
	t.Helper()
	files, _ := filepath.Glob("testdata/" + format + "/*.log")
	var out []*event.Record
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range frames(b) {
			if r, err := read(&f, testContext()); err == nil {
				out = append(out, r)
			}
		}
	}
	if len(out) == 0 {
		t.Fatalf("no sample of %s", format)
	}
	return out
}

// tally counts what became of frames.
type tally struct {
	datasets map[string]int
	bad      int
	first    string
	untimed  int
}

func (s *tally) take(f *event.Frame) *event.Record {
	if s.datasets == nil {
		s.datasets = map[string]int{}
	}
	r, err := read(f, testContext())
	if err != nil {
		s.bad++
		if s.first == "" {
			s.first = err.Error() + ": " + string(f.Bytes[:min(len(f.Bytes), 120)])
		}
		return nil
	}
	s.datasets[r.Dataset]++
	if r.Time == 0 {
		s.untimed++
	}
	return r
}

func lines(t *testing.T, r io.Reader, fn func(line []byte)) {
	t.Helper()
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 16<<20)
	for sc.Scan() {
		if len(bytes.TrimSpace(sc.Bytes())) > 0 {
			fn(bytes.Clone(sc.Bytes()))
		}
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
}

// zipped calls fn for each file of a zip.
func zipped(t *testing.T, path string, fn func(name string, r io.Reader)) {
	t.Helper()
	z, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for _, f := range z.File {
		if f.FileInfo().IsDir() {
			continue
		}
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		fn(f.Name, r)
		r.Close()
	}
}

func TestOTRFLateral(t *testing.T) {
	dir := packs.Dir(t, "otrf-lateral")
	files, _ := filepath.Glob(filepath.Join(dir, "*.zip"))
	var s tally
	running, withHost := 0, 0
	for _, file := range files {
		zipped(t, file, func(_ string, r io.Reader) {
			lines(t, r, func(line []byte) {
				rec := s.take(&event.Frame{Bytes: line})
				if rec == nil {
					return
				}
				if rec.Running.N != 0 {
					running++
				}
				if _, ok := rec.Get("Computer"); ok {
					withHost++
				}
				for _, f := range rec.Fields {
					switch f.Name {
					case "host", "port", "tags", "@version", "RecordNumber":
						t.Fatalf("%s is a field", f.Name)
					}
				}
				if et, ok := rec.Get("EventType"); ok && collectorSeverity(et.Value) {
					t.Fatalf("EventType holds the agent's severity")
				}
			})
		})
	}
	if s.bad != 0 {
		t.Errorf("%d not parsed, first %s", s.bad, s.first)
	}
	n := 0
	for _, c := range s.datasets {
		n += c
	}
	if n != 55201 || running != 55201 || withHost != 55201 || s.untimed != 0 {
		t.Errorf("records %d, with running number %d, with machine %d, without time %d: %v", n, running, withHost, s.untimed, s.datasets)
	}
	if s.datasets["win-security"] != 19614 {
		t.Errorf("channel case: %d Security records", s.datasets["win-security"])
	}
}

func TestOTRFCompound(t *testing.T) {
	dir := packs.Dir(t, "otrf-compound")
	var s tally
	files, _ := filepath.Glob(filepath.Join(dir, "*", "*.[zZ]ip"))
	if len(files) < 15 {
		t.Fatalf("%d archives", len(files))
	}
	for _, file := range files {
		zipped(t, file, func(name string, r io.Reader) {
			switch {
			case strings.HasSuffix(name, ".pcap"):
			case strings.HasSuffix(name, ".log"):
				b, err := io.ReadAll(r)
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range frames(b) {
					s.take(&f)
				}
			default:
				n := 0
				lines(t, r, func(line []byte) {
					if n++; testing.Short() && n > 5000 {
						return
					}
					s.take(&event.Frame{Bytes: line})
				})
			}
		})
	}
	if s.bad != 0 {
		t.Errorf("%d not parsed, first %s", s.bad, s.first)
	}
	for _, ds := range []string{"win-security", "win-sysmon", "zeek-conn", "zeek-dns", "json"} {
		if s.datasets[ds] == 0 {
			t.Errorf("no %s: %v", ds, s.datasets)
		}
	}
	t.Log(s.datasets, "without time", s.untimed)
}

func TestZeekPack(t *testing.T) {
	dir := filepath.Join(packs.Dir(t, "zeek-logs"), "zed-sample-data")
	gz := func(path string) []byte {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	files, _ := filepath.Glob(filepath.Join(dir, "zeek-default", "*.log.gz"))
	if len(files) < 10 {
		t.Fatalf("%d logs", len(files))
	}
	var s tally
	differ := map[string]int{}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".log.gz")
		text := frames(gz(file))
		object := frames(gz(filepath.Join(dir, "zeek-json", name+".json.gz")))
		if len(text) != len(object) {
			t.Errorf("%s: %d lines as text, %d as JSON", name, len(text), len(object))
			continue
		}
		for i := range text {
			a, b := s.take(&text[i]), s.take(&object[i])
			if a == nil || b == nil {
				continue
			}
			if a.Dataset != b.Dataset {
				t.Fatalf("%s line %d: %s as text, %s as JSON", name, i, a.Dataset, b.Dataset)
			}
			if x, y := zeekSet(a, a), zeekSet(b, a); x != y {
				differ[name]++
				if differ[name] == 1 {
					t.Logf("%s line %d:\ntext %s\njson %s", name, i, x, y)
				}
			}
		}
	}
	if s.bad != 0 {
		t.Errorf("%d not parsed, first %s", s.bad, s.first)
	}
	if len(differ) != 0 {
		t.Errorf("text and JSON give other fields: %v", differ)
	}
}

// zeekSet renders the fields of a record without their order. What the text form
// has as a number is left out: JSON rounds numbers and writes times as ISO.
func zeekSet(r, text *event.Record) string {
	var out []string
	for _, f := range r.Fields {
		if v, ok := text.Get(f.Name); ok && v.Kind == event.Number || f.Name == "_write_ts" || f.Kind == event.Null || len(f.Value) == 0 {
			continue
		}
		out = append(out, f.Name+"="+string(f.Value))
	}
	sort.Strings(out)
	return strings.Join(out, " | ")
}

func TestAuditdPack(t *testing.T) {
	dir := packs.Dir(t, "parser-goldens")
	var files []string
	for _, glob := range []string{"beats-apache2/auditd/log/test/*.log", "go-libaudit-apache2/testdata/*.log", "go-libaudit-apache2/auparse/testdata/*.log"} {
		m, _ := filepath.Glob(filepath.Join(dir, glob))
		files = append(files, m...)
	}
	if len(files) < 14 {
		t.Fatalf("%d logs", len(files))
	}
	var s tally
	torn := 0
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		groups := map[string]int{}
		var serials []uint64
		for _, f := range frames(b) {
			if bytes.Contains(f.Bytes, []byte("type=UNKNOWN[1329] msg=")) && !bytes.Contains(f.Bytes, []byte("audit(")) {
				torn++ // bytes of another protocol in the log
				continue
			}
			r := s.take(&f)
			if r == nil {
				continue
			}
			if r.Dataset != "linux-auditd" || r.Group == "" || !r.Running.Step {
				t.Fatalf("%s: dataset %s group %q", file, r.Dataset, r.Group)
			}
			groups[r.Group]++
			serials = append(serials, r.Running.N)
			for _, fl := range r.Fields {
				if fl.Name == "" || strings.Contains(fl.Name, " ") {
					t.Fatalf("%s line %d: field name %q", file, f.Line, fl.Name)
				}
			}
		}
		switch filepath.Base(file) {
		case "out_of_order.log": // serials 58 to 62, interleaved
			if len(groups) != 5 || groups["/1492037291.038:60"] < 5 {
				t.Errorf("out of order: %v", groups)
			}
		case "lost_messages.log": // a hole in the serials shows
			if !slices.Equal(slices.Compact(serials), []uint64{49, 59, 60, 61, 62}) {
				t.Errorf("lost messages: %v", slices.Compact(serials))
			}
		case "rollover.log":
			if !slices.Equal(slices.Compact(serials), []uint64{4294967294, 4294967295, 0, 1, 2}) {
				t.Errorf("rollover: %v", slices.Compact(serials))
			}
		}
	}
	if s.bad > 0 || s.untimed > 0 || torn > 120 {
		t.Errorf("%d not parsed, %d torn, %d without time, first %s", s.bad, torn, s.untimed, s.first)
	}
}

// TestAuditdAgainstECS compares with the expectations of another implementation,
// through the pairs that mean the same.
func TestAuditdAgainstECS(t *testing.T) {
	dir := filepath.Join(packs.Dir(t, "parser-goldens"), "beats-apache2", "auditd", "log", "test")
	pairs := map[string]string{
		"auditd.log.record_type": "type", "process.pid": "pid", "process.parent.pid": "ppid", "process.executable": "exe", "user.audit.id": "auid",
		"auditd.log.op": "op", "auditd.log.a0": "a0", "auditd.log.a1": "a1", "auditd.log.a2": "a2", "auditd.log.proctitle": "proctitle", "auditd.log.cwd": "cwd",
		"auditd.log.success": "success", "auditd.log.syscall": "syscall", "auditd.log.items": "items", "auditd.log.node": "node", "auditd.log.argc": "argc",
	}
	checked, wrong := 0, 0
	for _, name := range []string{"audit-rhel6", "audit-rhel7", "audit-ubuntu1604", "audit-cent7-node", "avc", "execve", "test"} {
		b, err := os.ReadFile(filepath.Join(dir, name+".log-expected.json"))
		if err != nil {
			t.Fatal(err)
		}
		var want []map[string]any
		d := json.NewDecoder(bytes.NewReader(b))
		d.UseNumber()
		if err := d.Decode(&want); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(filepath.Join(dir, name+".log"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range frames(raw) {
			if f.Line > len(want) {
				break
			}
			r, err := read(&f, testContext())
			if err != nil {
				t.Fatal(err)
			}
			for ecs, ours := range pairs {
				v, ok := want[f.Line-1][ecs]
				if !ok || ours == "exe" && strings.Contains(string(f.Bytes), "type=EXECVE") { // there it is derived
					continue
				}
				var text string
				switch v := v.(type) {
				case string:
					text = v
				case json.Number:
					text = v.String()
				default:
					continue
				}
				got, _ := r.Get(ours)
				checked++
				if !strings.EqualFold(string(got.Value), text) {
					if wrong++; wrong < 10 {
						t.Logf("%s line %d: %s: got %q, want %q", name, f.Line, ours, got.Value, text)
					}
				}
			}
		}
	}
	if checked < 600 || wrong*50 > checked {
		t.Errorf("%d of %d differ", wrong, checked)
	}
	t.Logf("%d of %d differ", wrong, checked)
}

func TestSyslogPacks(t *testing.T) {
	goldens := filepath.Join(packs.Dir(t, "parser-goldens"), "beats-apache2", "system")
	crowd := packs.Dir(t, "crowdsec-tests")
	for _, c := range []struct {
		file string
		bad  int // lines that are no syslog: continuations
		want map[string]int
	}{
		{goldens + "/auth/test/auth-ubuntu1204.log", 0, nil},
		{goldens + "/auth/test/test.log", 0, map[string]int{"linux-sshd": 5}},
		{goldens + "/auth/test/timestamp.log", 0, nil},
		{goldens + "/syslog/test/suse-syslog.log", 0, map[string]int{"syslog": 2}},
		{goldens + "/syslog/test/tz-offset.log", 0, nil},
		{goldens + "/syslog/test/darwin-syslog-sample.log", 18, nil},
		{crowd + "/sshd-logs/sshd-logs.log", 0, nil},
		{crowd + "/sshd-success-logs/sshd-success-logs.log", 0, nil},
		{crowd + "/ssh-bf/ssh-bf.log", 0, nil},
		{crowd + "/iptables-logs/iptables-logs.log", 0, nil},
		{crowd + "/iptables-scan-multi-port/iptables-scan-multi-port.log", 0, nil},
		{crowd + "/pf-logs/pf-logs.log", 0, nil},
		{crowd + "/unifi-logs/unifi-logs.log", 0, nil},
	} {
		b, err := os.ReadFile(c.file)
		if err != nil {
			t.Fatal(err)
		}
		var s tally
		unknown := 0
		for _, f := range frames(b) {
			if r := s.take(&f); r != nil {
				if _, ok := r.Get("msg"); ok && r.Dataset != "syslog" {
					if unknown++; unknown < 4 {
						m, _ := r.Get("msg")
						t.Logf("%s: %s", r.Dataset, m.Value)
					}
				}
			}
		}
		t.Logf("%s: %v, messages without a shape %d, bad %d", filepath.Base(c.file), s.datasets, unknown, s.bad)
		if s.bad != c.bad || s.untimed != 0 {
			t.Errorf("%s: %d not parsed, %d without time, first %s", c.file, s.bad, s.untimed, s.first)
		}
		for ds, n := range c.want {
			if s.datasets[ds] != n {
				t.Errorf("%s: %v", c.file, s.datasets)
			}
		}
	}
}

func TestCloudTrailPack(t *testing.T) {
	dir := packs.Dir(t, "cloud-attacks")
	var s tally
	files, _ := filepath.Glob(filepath.Join(dir, "*", "*.json"))
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var records []json.RawMessage
		if b = bytes.TrimSpace(b); b[0] == '{' {
			var wrap struct{ Records []json.RawMessage }
			if err := json.Unmarshal(b, &wrap); err != nil {
				t.Fatal(err)
			}
			records = wrap.Records
		} else if err := json.Unmarshal(b, &records); err != nil {
			t.Fatal(err)
		}
		for _, rec := range records {
			f := event.Frame{Bytes: rec}
			r := s.take(&f)
			if r == nil {
				continue
			}
			if r.Dataset != "cloudtrail" {
				t.Fatalf("%s: dataset %s", file, r.Dataset)
			}
			if n := scalars(t, rec); n != len(r.Fields) {
				t.Fatalf("%s: %d scalars in the JSON, %d fields", file, n, len(r.Fields))
			}
		}
	}
	if s.bad != 0 || s.untimed != 0 || s.datasets["cloudtrail"] != 2433 {
		t.Errorf("%v, %d not parsed, %d without time, first %s", s.datasets, s.bad, s.untimed, s.first)
	}
}

// scalars counts the values of a JSON text with another decoder; an empty array
// or object counts as one.
func scalars(t *testing.T, b []byte) int {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	var count func(v any) int
	count = func(v any) int {
		n := 0
		switch v := v.(type) {
		case map[string]any:
			for _, e := range v {
				n += count(e)
			}
		case []any:
			for _, e := range v {
				n += count(e)
			}
		default:
			return 1
		}
		return max(n, 1)
	}
	return count(v)
}

// TestZeekBaselines reads the logs of Zeek's own tests: odd separators, repeated
// headers, every log there is.
func TestZeekBaselines(t *testing.T) {
	file := filepath.Join(packs.Dir(t, "zeek-logs"), "zeek-btest-baseline.tar.xz")
	if _, err := os.Stat(file); err != nil {
		t.Fatal(err)
	}
	xz, err := exec.LookPath("xz")
	if err != nil {
		t.Skip("needs the program xz to unpack zeek-btest-baseline.tar.xz")
	}
	raw, err := exec.Command(xz, "-dc", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	var s tally
	total := 0
	for tr := tar.NewReader(bytes.NewReader(raw)); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg || !strings.HasSuffix(h.Name, ".log") {
			continue
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range frames(b) {
			if !bytes.Contains(f.Header, []byte("#fields")) {
				continue // the baseline holds other texts too
			}
			total++
			s.take(&f)
		}
	}
	if total < 5000 || s.bad != 0 {
		t.Errorf("%d of %d not parsed, first %s", s.bad, total, s.first)
	}
	t.Logf("%v of %d", s.datasets, total)
}

// TestSyslogAgainstCrowdSec compares with the fields that another project asserts.
func TestSyslogAgainstCrowdSec(t *testing.T) {
	dir := packs.Dir(t, "crowdsec-tests")
	assert := regexp.MustCompile(`results\["s01-parse"\]\["[^"]+"\]\[(\d+)\]\.Evt\.(Parsed|Meta)\["([^"]+)"\] == "(.*)"`)
	for _, c := range []struct {
		name  string
		pairs map[string]string
		least int
	}{
		{"sshd-logs", map[string]string{"source_ip": "src_ip", "target_user": "user", "pid": "pid", "machine": "hostname"}, 60},
		{"sshd-success-logs", map[string]string{"source_ip": "src_ip", "target_user": "user", "pid": "pid", "machine": "hostname"}, 8},
		{"iptables-logs", map[string]string{"src_ip": "src_ip", "dst_ip": "dst_ip", "src_port": "src_port", "dst_port": "dst_port", "proto": "proto", "int_eth": "in_if"}, 12},
		{"pf-logs", map[string]string{"src_ip": "src_ip", "dst_ip": "dst_ip", "dst_port": "dst_port", "src_port": "src_port"}, 8},
	} {
		raw, err := os.ReadFile(filepath.Join(dir, c.name, c.name+".log"))
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join(dir, c.name, "parser.assert"))
		if err != nil {
			t.Fatal(err)
		}
		var recs []*event.Record
		for _, f := range frames(raw) {
			r, err := read(&f, testContext())
			if err != nil {
				t.Fatal(err)
			}
			recs = append(recs, r)
		}
		checked := 0
		for _, m := range assert.FindAllStringSubmatch(string(want), -1) {
			ours, ok := c.pairs[m[3]]
			n, err := strconv.Atoi(m[1])
			if !ok || err != nil || n >= len(recs) || m[4] == "" {
				continue
			}
			checked++
			if ours == "pid" && recs[n].Dataset != "linux-sshd" {
				ours = "proc_id"
			}
			if got, _ := recs[n].Get(ours); strings.TrimPrefix(string(got.Value), "::ffff:") != m[4] {
				if msg, noise := recs[n].Get("msg"); noise && (bytes.Contains(msg.Value, []byte("totobad")) || bytes.HasPrefix(msg.Value, []byte("Magic value"))) {
					continue // no message of OpenSSH
				}
				t.Errorf("%s line %d: %s is %q, want %q", c.name, n+1, ours, got.Value, m[4])
			}
		}
		if checked < c.least {
			t.Errorf("%s: only %d assertions", c.name, checked)
		}
		t.Logf("%s: %d assertions", c.name, checked)
	}
}

// TestAuthAgainstECS compares with the expectations of another implementation.
func TestAuthAgainstECS(t *testing.T) {
	dir := filepath.Join(packs.Dir(t, "parser-goldens"), "beats-apache2", "system", "auth", "test")
	pairs := map[string]string{
		"host.hostname": "hostname", "process.name": "app_name", "source.ip": "src_ip", "source.port": "src_port", "system.auth.ssh.method": "method",
		"system.auth.ssh.signature": "key", "system.auth.sudo.command": "command", "system.auth.sudo.pwd": "pwd", "system.auth.sudo.tty": "tty",
		"system.auth.sudo.user": "runas", "system.auth.sudo.error": "reason", "system.auth.useradd.home": "home", "system.auth.useradd.shell": "shell",
	}
	checked := 0
	for _, name := range []string{"auth-ubuntu1204.log", "test.log"} {
		b, err := os.ReadFile(filepath.Join(dir, name+"-expected.json"))
		if err != nil {
			t.Fatal(err)
		}
		var want []map[string]any
		d := json.NewDecoder(bytes.NewReader(b))
		d.UseNumber()
		if err := d.Decode(&want); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for i, f := range frames(raw) {
			if i >= len(want) {
				break
			}
			r, err := read(&f, testContext())
			if err != nil {
				t.Fatal(err)
			}
			for ecs, ours := range pairs {
				v, ok := want[i][ecs]
				if !ok {
					continue
				}
				checked++
				if got, _ := r.Get(ours); string(got.Value) != fmt.Sprint(v) {
					t.Errorf("%s line %d: %s is %q, want %q", name, i+1, ours, got.Value, fmt.Sprint(v))
				}
			}
		}
	}
	if checked < 300 {
		t.Errorf("only %d fields compared", checked)
	}
	t.Logf("%d fields compared", checked)
}

// TestEVTXPack parses what package evtx prints of each record of the pack.
func TestEVTXPack(t *testing.T) {
	dir := packs.Dir(t, "evtx-core")
	var s tally
	n := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.EqualFold(filepath.Ext(path), ".evtx") {
			return err
		}
		if n > 3000 && testing.Short() {
			return filepath.SkipAll
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		rd, err := evtx.NewReader(f, info.Size())
		if err != nil {
			return err
		}
		return rd.Records(func(rec *evtx.Record) error {
			b := rec.AppendJSON(nil)
			if len(b) <= 2 {
				return nil // nothing readable
			}
			n++
			r := s.take(&event.Frame{Bytes: b, Format: "evtx-json"})
			if r == nil {
				return nil
			}
			if r.Running.N == 0 || r.Format != "evtx-json/1" {
				t.Fatalf("%s: running %+v, format %s", path, r.Running, r.Format)
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.bad != 0 || s.untimed != 0 || n < 3000 {
		t.Errorf("%d records, %d not parsed, %d without time, first %s", n, s.bad, s.untimed, s.first)
	}
	t.Log(n, s.datasets)
}
