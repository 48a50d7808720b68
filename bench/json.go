//go:build linux

package main

import (
	"archive/zip"
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/valyala/fastjson"

	"github.com/counterseal/counterseal/evtx"
	"github.com/counterseal/counterseal/internal/packs"
	"github.com/counterseal/counterseal/sigma"
	"github.com/counterseal/counterseal/sigma/sigmajson"
)

// corpus is a list of events as JSON texts.
type corpus struct {
	name  string
	texts [][]byte
}

// corpora are the records of the logs as flat JSON, those of process creation
// alone, and the captures of lateral movement as their collector wrote them.
func corpora() []corpus {
	all, starts := corpus{name: "event logs"}, corpus{name: "event logs, process creation"}
	for _, data := range logs() {
		decode(data, new(evtx.Chunk), func(rec *evtx.Record) {
			text := rec.AppendJSON(nil)
			all.texts = append(all.texts, text)
			var channel, id string
			for _, f := range rec.Fields() {
				switch f.Name {
				case "Channel":
					channel = string(f.Value)
				case "EventID":
					id = string(f.Value)
				}
			}
			if channel == "Security" && id == "4688" || channel == "Microsoft-Windows-Sysmon/Operational" && id == "1" {
				starts.texts = append(starts.texts, text)
			}
		})
	}
	lateral := corpus{name: "lateral movement, JSON of a collector"}
	for _, path := range files(packs.Dir(noTest{}, "otrf-lateral"), ".zip") {
		z, err := zip.OpenReader(path)
		if err != nil {
			log.Fatal(err)
		}
		for _, entry := range z.File {
			if filepath.Ext(entry.Name) != ".json" {
				continue
			}
			f, err := entry.Open()
			if err != nil {
				log.Fatal(err)
			}
			lines := bufio.NewScanner(f)
			lines.Buffer(nil, 1<<24)
			for lines.Scan() {
				if len(lines.Bytes()) > 0 {
					lateral.texts = append(lateral.texts, bytes.Clone(lines.Bytes()))
				}
			}
			if err := lines.Err(); err != nil {
				log.Fatal(err)
			}
		}
	}
	return []corpus{all, starts, lateral}
}

// fieldsOfMap reads an event by way of a map, as most programs do.
func fieldsOfMap(dst []sigma.Field, text []byte) []sigma.Field {
	var event map[string]any
	if err := json.Unmarshal(text, &event); err != nil {
		log.Fatal(err)
	}
	return flatten(dst, "", event)
}

func flatten(dst []sigma.Field, name string, value any) []sigma.Field {
	switch v := value.(type) {
	case map[string]any:
		for key, member := range v {
			if name != "" {
				key = name + "." + key
			}
			dst = flatten(dst, key, member)
		}
	case []any:
		for _, element := range v {
			dst = flatten(dst, name, element)
		}
	case string:
		dst = append(dst, sigma.Field{Name: name, Value: []byte(v)})
	case float64:
		dst = append(dst, sigma.Field{Name: name, Kind: sigma.KindNumber, Value: strconv.AppendFloat(nil, v, 'f', -1, 64)})
	case bool:
		dst = append(dst, sigma.Field{Name: name, Kind: sigma.KindBool, Value: strconv.AppendBool(nil, v)})
	case nil:
		dst = append(dst, sigma.Field{Name: name, Kind: sigma.KindNull})
	}
	return dst
}

// treeReader reads an event by way of the tree of fastjson.
type treeReader struct {
	parser  fastjson.Parser
	names   map[string]string
	numbers []byte
	name    []byte
}

func (r *treeReader) fields(dst []sigma.Field, text []byte) []sigma.Field {
	v, err := r.parser.ParseBytes(text)
	if err != nil {
		log.Fatal(err)
	}
	r.numbers, r.name = r.numbers[:0], r.name[:0]
	return r.flatten(dst, v)
}

func (r *treeReader) flatten(dst []sigma.Field, v *fastjson.Value) []sigma.Field {
	switch v.Type() {
	case fastjson.TypeObject:
		object, _ := v.Object()
		prefix := len(r.name)
		object.Visit(func(key []byte, member *fastjson.Value) {
			if prefix > 0 {
				r.name = append(r.name, '.')
			}
			r.name = append(r.name, key...)
			dst = r.flatten(dst, member)
			r.name = r.name[:prefix]
		})
		return dst
	case fastjson.TypeArray:
		elements, _ := v.Array()
		for _, e := range elements {
			dst = r.flatten(dst, e)
		}
		return dst
	}
	name, ok := r.names[string(r.name)]
	if !ok {
		name = string(r.name)
		r.names[name] = name
	}
	f := sigma.Field{Name: name}
	switch v.Type() {
	case fastjson.TypeString:
		f.Value, _ = v.StringBytes()
	case fastjson.TypeNull:
		f.Kind = sigma.KindNull
	default:
		f.Kind = sigma.KindNumber
		if v.Type() != fastjson.TypeNumber {
			f.Kind = sigma.KindBool
		}
		at := len(r.numbers)
		r.numbers = v.MarshalTo(r.numbers)
		f.Value = r.numbers[at:]
	}
	return append(dst, f)
}

func tableJSON(texts [][]byte) {
	set := compile(texts)
	tree := &treeReader{names: make(map[string]string)}
	var reader sigmajson.Reader
	ways := []struct {
		name string
		read func([]sigma.Field, []byte) []sigma.Field
	}{
		{"package sigmajson", func(dst []sigma.Field, text []byte) []sigma.Field {
			fields, err := reader.Fields(dst, text)
			if err != nil {
				log.Fatal(err)
			}
			return fields
		}},
		{"fastjson v1.6.10, its tree, unchecked", tree.fields},
		{"the same, checked to be JSON first", func(dst []sigma.Field, text []byte) []sigma.Field {
			if err := fastjson.ValidateBytes(text); err != nil {
				log.Fatal(err)
			}
			return tree.fields(dst, text)
		}},
		{"encoding/json, a map", fieldsOfMap},
	}
	for _, c := range corpora() {
		size := 0
		for _, text := range c.texts {
			size += len(text)
		}
		fmt.Printf("\n### JSON in, one core: %s, %d events of %d bytes\n\n| reader | reading: time against ours (lowest, highest round) | events/s | allocations an event | read and matched: time against ours | events/s | allocations an event | matches an event |\n|---|---|---|---|---|---|---|---|\n",
			c.name, len(c.texts), size/len(c.texts))
		const reading, matching = 0, 1
		cost, mallocs, matches := [2][4][]float64{}, [2][4]float64{}, [4]int{}
		for round := range *rounds + 1 {
			for i, way := range ways {
				for part := range 2 {
					event := sigma.Event{Source: sigma.LogSource{Product: "windows"}}
					matches[i] = 0
					var before, after runtime.MemStats
					runtime.GC()
					runtime.ReadMemStats(&before)
					start := cpu()
					for _, text := range c.texts {
						event.Fields = way.read(event.Fields[:0], text)
						if part == matching {
							set.Match(&event, func(sigma.Match) { matches[i]++ })
						}
					}
					spent := cpu() - start
					runtime.ReadMemStats(&after)
					if round == 0 {
						continue // for the caches
					}
					cost[part][i] = append(cost[part][i], float64(spent.Nanoseconds())/float64(len(c.texts)))
					mallocs[part][i] = float64(after.Mallocs-before.Mallocs) / float64(len(c.texts))
				}
			}
		}
		for i, way := range ways {
			fmt.Printf("| %s |", way.name)
			for part := range 2 {
				mid, low, high := ratios(cost[part][i], cost[part][0])
				fmt.Printf(" %.1f (%.1f, %.1f) | %.0f | %.1f |", mid, low, high, 1e9/median(cost[part][i]), mallocs[part][i])
			}
			fmt.Printf(" %.3f |\n", float64(matches[i])/float64(len(c.texts)))
		}
	}
}
