package access

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestFieldsOfTheView: each attribute that internal/ocsf gives has a role here, and
// what it gives as a person, a device or an address is one.
func TestFieldsOfTheView(t *testing.T) {
	files, err := filepath.Glob("../ocsf/*.go")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	call := regexp.MustCompile(`v\.(set|person|device|address|number|file|boolean)\("([a-z_.]+)"`)
	n := 0
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range call.FindAllStringSubmatch(string(data), -1) {
			n++
			field := m[2]
			if m[1] == "file" {
				field += ".path"
			}
			r := roleOf(field)
			if r&unknown != 0 {
				t.Errorf("%s has no role", field)
			}
			if m[1] == "person" && r&person == 0 {
				t.Errorf("%s is a person and has the role %b", field, r)
			}
			if (m[1] == "device" || m[1] == "address") && r&(device|person) == 0 {
				t.Errorf("%s is a device and has the role %b", field, r)
			}
		}
	}
	if n < 100 {
		t.Errorf("%d attributes", n)
	}
}

func TestRoles(t *testing.T) {
	for field, want := range map[string]role{
		"actor.user.uid": person, "process.user.name": person, "native.TargetUserName": person, "native.winlog.event_data.TargetUserName": person,
		"device.hostname": device, "src_endpoint.ip": device, "dst_endpoint.ip": device | content, "actor.session.uid": session,
		"query.hostname": content, "query.type": 0, "http_request.url.path": content, "file.path": content | prose, "process.cmd_line": prose,
		"class_uid": 0, "time": 0, "ref": prose, "": content | prose, "never.heard": unknown, "native.neverheard": unknown,
		"native.EventID": 0, "native.DestinationIp": device | content, "native.QueryName": content, "email.to": person | content,
	} {
		if got := roleOf(field); got != want {
			t.Errorf("%q has the role %b, want %b", field, got, want)
		}
	}
}
