//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/counterseal/counterseal/evtx"
	"github.com/counterseal/counterseal/internal/packs"
	"github.com/counterseal/counterseal/sigma"
)

// noTest stands in for a test: a missing pack ends the run.
type noTest struct{}

func (noTest) Helper()                           {}
func (noTest) Skipf(format string, args ...any)  { log.Fatalf(format, args...) }
func (noTest) Fatalf(format string, args ...any) { log.Fatalf(format, args...) }

type matcher func(*sigma.Event, func(sigma.Match))

func files(root, ext string) []string {
	var out []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ext) {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	return out
}

func read(path string) []byte {
	data, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	return data
}

// windowsRules are the public rules whose product is windows, as text.
func windowsRules() [][]byte {
	root := filepath.Join(packs.Dir(noTest{}, "sigma-rules"), "sigma")
	var out [][]byte
	for _, folder := range []string{"rules", "rules-threat-hunting", "rules-emerging-threats"} {
		for _, path := range files(filepath.Join(root, folder), ".yml") {
			data := read(path)
			rules, _ := sigma.Parse(path, data)
			if len(rules) == 1 && rules[0].LogSource.Product == "windows" {
				out = append(out, data)
			}
		}
	}
	return out
}

func parseAll(texts [][]byte) []*sigma.Rule {
	var out []*sigma.Rule
	for i, text := range texts {
		rules, refused := sigma.Parse(fmt.Sprint(i), text)
		if len(refused) > 0 {
			log.Fatal(refused[0])
		}
		out = append(out, rules...)
	}
	return out
}

func compile(texts [][]byte) *sigma.Set {
	set, _ := sigma.Compile(parseAll(texts), sigma.Options{})
	return set
}

// logs are the event logs of both packs.
func logs() [][]byte {
	var out [][]byte
	for _, pack := range []string{"evtx-core", "sigma-regression-open"} {
		for _, path := range files(packs.Dir(noTest{}, pack), ".evtx") {
			out = append(out, read(path))
		}
	}
	return out
}

// events are all records of the logs, in memory.
func events() []*sigma.Event {
	var out []*sigma.Event
	for _, data := range logs() {
		decode(data, new(evtx.Chunk), func(rec *evtx.Record) {
			ev := &sigma.Event{Source: sigma.LogSource{Product: "windows"}}
			for _, f := range rec.Fields() {
				ev.Fields = append(ev.Fields, sigma.Field{Name: strings.Clone(f.Name), Value: bytes.Clone(f.Value)})
			}
			out = append(out, ev)
		})
	}
	return out
}

func decode(data []byte, c *evtx.Chunk, fn func(*evtx.Record)) {
	r, err := evtx.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		log.Fatal(err)
	}
	for i := range r.NumChunks() {
		if err := r.ReadChunk(i, c); err != nil {
			log.Fatal(err)
		}
		if c.State&evtx.ChunkEmpty != 0 {
			continue
		}
		_ = c.Records(func(rec *evtx.Record) error { fn(rec); return nil })
	}
}

// clone gives the k-th copy of a rule another id and other literals. Numbers that
// name the kind of an event stay, unless a search has nothing else. Not ok means
// that it has no literal but in its exceptions.
func clone(text []byte, k int) (out []byte, ok bool) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		log.Fatal(err)
	}
	root := doc.Content[0]
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		switch key.Value {
		case "id", "name":
			value.Value += fmt.Sprint("-", k)
		case "detection":
			for j := 0; j+1 < len(value.Content); j += 2 { // each search by itself
				key, search := value.Content[j].Value, value.Content[j+1]
				if strings.HasPrefix(key, "filter") || bytes.Contains(text, []byte("not "+key)) {
					continue // another exception would make the copy match more
				}
				if alter(search, key, k, false) || alter(search, key, k, true) {
					ok = true
				}
			}
		}
	}
	out, err := yaml.Marshal(&doc)
	if err != nil {
		log.Fatal(err)
	}
	return out, ok
}

var kindOfEvent = []string{"EventID", "Channel", "Provider_Name", "condition"}

func alter(n *yaml.Node, key string, k int, all bool) bool {
	changed := false
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if alter(n.Content[i+1], n.Content[i].Value, k, all) {
				changed = true
			}
		}
	case yaml.SequenceNode:
		for _, v := range n.Content {
			if alter(v, key, k, all) {
				changed = true
			}
		}
	case yaml.ScalarNode:
		field, mods, _ := strings.Cut(key, "|")
		switch {
		case field == "condition" || n.Tag == "!!null" || n.Tag == "!!bool" || slices.Contains(strings.Split(mods, "|"), "cidr") || strings.Contains(mods, "fieldref"):
			return false
		case !all && (slices.Contains(kindOfEvent, field) || len(n.Value) < 3):
			return false
		case strings.HasPrefix(mods, "re"):
			n.Value = fmt.Sprintf("(?:%s)q%dz", n.Value, k)
		default:
			mid := len(n.Value) / 2
			for mid > 0 && n.Value[mid]&0xc0 == 0x80 {
				mid--
			}
			n.Value = fmt.Sprintf("%sq%dz%s", n.Value[:mid], k, n.Value[mid:])
			n.Tag = "!!str"
		}
		return true
	}
	return changed
}
