package ocsf

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/counterseal/counterseal/internal/packs"
)

// schema is the published schema, read for the checks of the tests.
type schema struct {
	classes    map[int]map[string]bool      // class uid to attribute names
	activities map[int]map[int]string       // class uid to activity captions
	types      map[string]string            // attribute to type
	enums      map[string]map[string]string // attribute to enumeration
	objects    map[string]map[string]bool   // object to attribute names
	deprecated map[int]bool                 // class uid
	numeric    map[string]bool              // attribute types that are numbers
}

type schemaFile struct {
	UID        int                        `json:"uid"`
	Name       string                     `json:"name"`
	Extends    string                     `json:"extends"`
	Category   string                     `json:"category"`
	Attributes map[string]json.RawMessage `json:"attributes"`
	Deprecated json.RawMessage            `json:"@deprecated"`
	path       string
	extension  int
}

type schemaAttr struct {
	Type string                              `json:"type"`
	Enum map[string]struct{ Caption string } `json:"enum"`
}

func loadSchema(t *testing.T) *schema {
	t.Helper()
	root := packs.Dir(t, "ocsf-schema")
	s := &schema{
		classes: map[int]map[string]bool{}, activities: map[int]map[int]string{}, types: map[string]string{}, enums: map[string]map[string]string{},
		objects: map[string]map[string]bool{}, deprecated: map[int]bool{}, numeric: map[string]bool{"integer_t": true, "long_t": true, "float_t": true, "timestamp_t": true, "port_t": true},
	}
	read := func(path string) *schemaFile {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		f := &schemaFile{path: path}
		if err := json.Unmarshal(b, f); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		return f
	}
	var version struct{ Version string }
	b, err := os.ReadFile(filepath.Join(root, "version.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &version); err != nil || version.Version != Version {
		t.Fatalf("the schema is %q, the view %q", version.Version, Version)
	}
	for _, path := range []string{"dictionary.json", "extensions/windows/dictionary.json"} {
		for name, raw := range read(filepath.Join(root, path)).Attributes {
			var a schemaAttr
			if err := json.Unmarshal(raw, &a); err != nil {
				t.Fatal(err)
			}
			s.types[name] = a.Type
			if len(a.Enum) > 0 {
				s.enums[name] = map[string]string{}
				for k, v := range a.Enum {
					s.enums[name][k] = v.Caption
				}
			}
		}
	}
	categories := map[string]int{}
	for name, raw := range read(filepath.Join(root, "categories.json")).Attributes {
		var c struct{ UID int }
		if err := json.Unmarshal(raw, &c); err != nil {
			t.Fatal(err)
		}
		categories[name] = c.UID
	}
	// names gives the attributes of a file, those of its includes too.
	names := func(f *schemaFile) map[string]bool {
		out := map[string]bool{}
		for name, raw := range f.Attributes {
			if name != "$include" {
				out[name] = true
				continue
			}
			var includes []string
			if err := json.Unmarshal(raw, &includes); err != nil {
				var one string
				if err := json.Unmarshal(raw, &one); err != nil {
					t.Fatal(err)
				}
				includes = []string{one}
			}
			for _, inc := range includes {
				for n := range read(filepath.Join(root, inc)).Attributes {
					out[n] = true
				}
			}
		}
		return out
	}
	load := func(dir string, extension int, into map[string]*schemaFile) {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".json") {
				return err
			}
			f := read(path)
			f.extension = extension
			name := f.Name
			if name == "" || into[name] != nil { // an extension widens what is there
				name = fmt.Sprintf("%d:%s", extension, filepath.Base(path))
			}
			into[name] = f
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	events, objects := map[string]*schemaFile{}, map[string]*schemaFile{}
	load("events", 0, events)
	load("extensions/windows/events", 2, events)
	load("objects", 0, objects)
	load("extensions/windows/objects", 2, objects)

	for _, f := range events {
		if f.UID == 0 && f.Name != "base_event" {
			continue
		}
		all, category := map[string]bool{}, ""
		activities := map[int]string{}
		for at := f; at != nil; at = events[at.Extends] {
			for n := range names(at) {
				all[n] = true
			}
			if category == "" {
				category = at.Category
			}
			if raw, ok := at.Attributes["activity_id"]; ok {
				var a schemaAttr
				if err := json.Unmarshal(raw, &a); err != nil {
					t.Fatal(err)
				}
				for k, v := range a.Enum {
					n, err := strconv.Atoi(k)
					if err != nil {
						t.Fatal(err)
					}
					if activities[n] == "" {
						activities[n] = v.Caption
					}
				}
			}
			if at.Extends == "" {
				break
			}
		}
		uid := categories[category]*1000 + f.UID + 100000*f.extension
		if f.Name == "base_event" {
			uid = 0
		}
		s.classes[uid], s.activities[uid] = all, activities
		s.deprecated[uid] = len(f.Deprecated) > 0
	}
	for name, f := range objects {
		all := map[string]bool{}
		for at := f; at != nil; at = objects[at.Extends] {
			for n := range names(at) {
				all[n] = true
			}
			if at.Extends == "" || at.Extends == at.Name {
				break
			}
		}
		key := name
		if f.Name == "" || strings.Contains(name, ":") { // widened by an extension
			key = f.Extends
			if key == "" {
				key = strings.TrimSuffix(name[strings.IndexByte(name, ':')+1:], ".json")
			}
		}
		if s.objects[key] == nil {
			s.objects[key] = map[string]bool{}
		}
		for n := range all {
			s.objects[key][n] = true
		}
	}
	return s
}

// check holds one view against the schema.
func (s *schema) check(attrs []Attr) error {
	get := func(name string) (string, bool) {
		for _, a := range attrs {
			if a.Name == name {
				return a.Value, true
			}
		}
		return "", false
	}
	number := func(name string) int {
		v, _ := get(name)
		n, err := strconv.Atoi(v)
		if err != nil {
			return -1
		}
		return n
	}
	class, activity := number("class_uid"), number("activity_id")
	have, ok := s.classes[class]
	switch {
	case !ok:
		return fmt.Errorf("class_uid %d is none", class)
	case s.deprecated[class]:
		return fmt.Errorf("class_uid %d is deprecated", class)
	case number("category_uid") != class%100000/1000:
		return fmt.Errorf("category_uid %d for class %d", number("category_uid"), class)
	case number("type_uid") != class*100+activity:
		return fmt.Errorf("type_uid %d for class %d, activity %d", number("type_uid"), class, activity)
	case s.activities[class][activity] == "":
		return fmt.Errorf("class %d has no activity %d", class, activity)
	}
	if _, named := get("activity_name"); named != (activity == activityOther) {
		return fmt.Errorf("class %d, activity %d: activity_name %t", class, activity, named)
	}
	seen := map[string]bool{}
	for _, a := range attrs {
		if seen[a.Name] {
			return fmt.Errorf("class %d: %s stands twice", class, a.Name)
		}
		seen[a.Name] = true
		if a.Value == "" {
			return fmt.Errorf("class %d: %s is empty", class, a.Name)
		}
		parts := strings.Split(a.Name, ".")
		in := have
		for i, part := range parts {
			if !in[part] {
				return fmt.Errorf("class %d: %s: no attribute %s", class, a.Name, part)
			}
			typ := s.types[part]
			if i == len(parts)-1 {
				if s.numeric[typ] != a.Number {
					return fmt.Errorf("class %d: %s: type %s, number %t", class, a.Name, typ, a.Number)
				}
				if s.objects[typ] != nil {
					return fmt.Errorf("class %d: %s is an object", class, a.Name)
				}
				break
			}
			if in = s.objects[typ]; in == nil {
				return fmt.Errorf("class %d: %s: %s is %s, no object", class, a.Name, part, typ)
			}
		}
		last := parts[len(parts)-1]
		if enum := s.enums[last]; enum != nil && a.Number && last != "activity_id" && last != "class_uid" && last != "category_uid" {
			if _, ok := enum[a.Value]; !ok && !(last == "type_id" && parts[0] == "file" && a.Value == "6") {
				return fmt.Errorf("class %d: %s: %s is not in the enumeration", class, a.Name, a.Value)
			}
		}
	}
	return nil
}

// TestSchemaSeesFaults: the check itself must be able to say no.
func TestSchemaSeesFaults(t *testing.T) {
	s := loadSchema(t)
	good := []Attr{{"metadata.version", Version, false}, {"class_uid", "3002", true}, {"category_uid", "3", true}, {"activity_id", "1", true}, {"type_uid", "300201", true}, {"severity_id", "1", true}}
	if err := s.check(good); err != nil {
		t.Fatal(err)
	}
	for name, extra := range map[string]Attr{
		"attribute": {"process.file.path", "x", false}, "object": {"user", "x", false}, "path": {"user.uid.x", "x", false}, "kind": {"status_id", "1", false},
		"enumeration": {"status_id", "7", true}, "twice": {"severity_id", "1", true}, "empty": {"user.uid", "", false}, "name": {"activity_name", "x", false},
	} {
		if err := s.check(append(good[:len(good):len(good)], extra)); err == nil {
			t.Errorf("took a wrong %s", name)
		}
	}
}
