package parse

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/event"
)

// fuzzFormat feeds mutated samples of one format to Identify and to the format
// itself.
func fuzzFormat(f *testing.F, folder, format string) {
	files, _ := filepath.Glob("testdata/" + folder + "/*.log")
	seeds := 0
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, fr := range frames(b) {
			f.Add(fr.Bytes, fr.Header)
			seeds++
		}
	}
	if seeds == 0 {
		f.Fatalf("no seed for %s", format)
	}
	f.Fuzz(func(t *testing.T, line, header []byte) {
		frame := event.Frame{Bytes: line, Header: header}
		for _, declared := range []string{"", "printers", "firewall", "win-security", "signin", "json", "filebeat-8.15.0"} {
			frame.Dataset = declared
			if fm, ds, ok := Identify(&frame, "import"); ok {
				checkParse(t, fm, &frame, ds)
			}
		}
		frame.Dataset, frame.Format = "", format
		if fm, ds, ok := Identify(&frame, "import"); !ok || fm.Name != format {
			t.Fatal("the format of the way in was not taken")
		} else {
			checkParse(t, fm, &frame, ds)
		}
		frame.Format = ""
		checkParse(t, byName(format), &frame, "")
	})
}

// checkParse parses and holds the result against the promises of the package.
func checkParse(t *testing.T, fm *Format, f *event.Frame, ds string) {
	t.Helper()
	before := bytes.Clone(f.Bytes)
	c := Context{Received: received, Zone: time.FixedZone("test", 3600)}
	var r event.Record
	err := fm.Parse(f, c, &r)
	if !bytes.Equal(before, f.Bytes) {
		t.Fatal("the parser wrote into the frame")
	}
	if err != nil {
		if len(r.Fields) != 0 || r.Group != "" || r.Running.Stream != "" || r.Time != 0 {
			t.Fatal("a failed parse leaves something behind")
		}
		return
	}
	if r.Format != fm.Tag() || r.Dataset == "" {
		t.Fatalf("format %q, dataset %q", r.Format, r.Dataset)
	}
	if ds != "" && r.Dataset != ds {
		t.Fatalf("identified as %q, parsed as %q", ds, r.Dataset)
	}
	if len(r.Fields) > event.MaxFields {
		t.Fatalf("%d fields", len(r.Fields))
	}
	total := 0
	for _, v := range r.Fields {
		if len(v.Name) > event.MaxName {
			t.Fatal("a name beyond the bound")
		}
		switch v.Kind {
		case event.Number:
			if !isNumber(v.Value) && !isDigits(v.Value) {
				t.Fatalf("%s: number %q", v.Name, v.Value)
			}
		case event.Bool:
			if s := string(v.Value); s != "true" && s != "false" {
				t.Fatalf("%s: bool %q", v.Name, s)
			}
		case event.Null:
			if len(v.Value) != 0 {
				t.Fatalf("%s: null with bytes", v.Name)
			}
		}
		if _, shaped := r.Get("event"); shaped && v.Name == "msg" {
			continue // beside its parts
		}
		switch v.Name {
		case "_path", "saddr_fam", "facility", "severity", "event", "outcome", "action", "in_if", "out_if":
		default:
			total += len(v.Value)
		}
	}
	if r.Format != "zeek-tsv/1" && total > len(f.Bytes) {
		t.Fatalf("%d bytes of values out of %d bytes", total, len(f.Bytes))
	}
	if r.Time != 0 && (r.Time < 0 || r.Time > received.Add(event.Future).UnixNano()) {
		t.Fatalf("time %d", r.Time)
	}
	if r.Zone != "" && r.Zone != "test" {
		t.Fatalf("zone %q", r.Zone)
	}
	switch fm.Name {
	case "json", "cloudtrail", "okta", "entra-signin", "signin", "mdm":
		if n := tokens(f.Bytes); n >= 0 && n != len(r.Fields) {
			t.Fatalf("%d scalars, %d fields", n, len(r.Fields))
		}
	}
}

// tokens counts the scalars of a JSON text with another decoder, empty arrays and
// objects as one each, the top aside; -1 where that decoder refuses the text.
func tokens(b []byte) int {
	if !json.Valid(b) {
		return -1
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	type level struct {
		object, key bool
		items       int
	}
	var stack []level
	n := 0
	for {
		tok, err := d.Token()
		if err != nil {
			return n
		}
		if delim, ok := tok.(json.Delim); ok {
			if delim == '{' || delim == '[' {
				if len(stack) > 0 {
					stack[len(stack)-1].items++
					stack[len(stack)-1].key = true
				}
				stack = append(stack, level{object: delim == '{', key: true})
				continue
			}
			top := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if top.items == 0 && len(stack) > 0 {
				n++
			}
			continue
		}
		top := &stack[len(stack)-1]
		if top.object && top.key {
			top.key = false
			continue
		}
		top.items++
		top.key = true
		n++
	}
}

func FuzzWinlogbeat(f *testing.F) { fuzzFormat(f, "winlogbeat", "winlogbeat") }
func FuzzFilebeat(f *testing.F)   { fuzzFormat(f, "filebeat", "filebeat") }
func FuzzNXLog(f *testing.F)      { fuzzFormat(f, "nxlog", "nxlog") }
func FuzzEvtxJSON(f *testing.F)   { fuzzFormat(f, "evtx-json", "evtx-json") }
func FuzzSyslog(f *testing.F)     { fuzzFormat(f, "syslog", "syslog") }
func FuzzSSHD(f *testing.F)       { fuzzFormat(f, "sshd", "syslog") }
func FuzzSudo(f *testing.F)       { fuzzFormat(f, "sudo", "syslog") }
func FuzzAuth(f *testing.F)       { fuzzFormat(f, "auth", "syslog") }
func FuzzFirewall(f *testing.F)   { fuzzFormat(f, "firewall", "syslog") }
func FuzzAuditd(f *testing.F)     { fuzzFormat(f, "auditd", "auditd") }
func FuzzZeek(f *testing.F)       { fuzzFormat(f, "zeek", "zeek-tsv") }
func FuzzZeekJSON(f *testing.F)   { fuzzFormat(f, "zeek-json", "zeek-json") }
func FuzzSignin(f *testing.F)     { fuzzFormat(f, "signin", "signin") }
func FuzzOkta(f *testing.F)       { fuzzFormat(f, "okta", "okta") }
func FuzzEntra(f *testing.F)      { fuzzFormat(f, "entra-signin", "entra-signin") }
func FuzzMDM(f *testing.F)        { fuzzFormat(f, "mdm", "mdm") }
func FuzzCloudTrail(f *testing.F) { fuzzFormat(f, "cloudtrail", "cloudtrail") }
func FuzzJSON(f *testing.F)       { fuzzFormat(f, "json", "json") }
