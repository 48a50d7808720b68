package evtx

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/counterseal/counterseal/internal/packs"
)

// packFiles lists the EVTX files of both packs.
func packFiles(t testing.TB) []string {
	t.Helper()
	var files []string
	for _, name := range []string{"evtx-core", "sigma-regression-open"} {
		root := packs.Dir(t, name)
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && strings.EqualFold(filepath.Ext(path), ".evtx") {
				files = append(files, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func openFile(t testing.TB, path string) (*Reader, []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return r, b
}

// TestPacks checks every fact of the format on real files: all checksums, ids
// and hashes hold, and the numbers are the measured ones.
func TestPacks(t *testing.T) {
	var got struct {
		files, v31, v32, dirty                    int
		chunks, empty, badChunks, emptyFiles      int
		records, badRecords, notMultiple, padding int
		tables, templates                         int
		idDiffers, sameTime, earlier, later       int
		freeNotEnd, plain                         int
	}
	for _, path := range packFiles(t) {
		r, _ := openFile(t, path)
		h := r.Header()
		got.files++
		if h.CRCWrong {
			t.Errorf("%s: file header checksum", path)
		}
		switch h.Minor {
		case 1:
			got.v31++
		case 2:
			got.v32++
		}
		if h.Dirty {
			got.dirty++
		}
		empty := 0
		err := r.Chunks(func(c *Chunk) error {
			switch {
			case c.State == ChunkEmpty:
				empty++
				return nil
			case !c.State.OK():
				t.Errorf("%s: chunk %d: %v", path, c.Index, c.State)
				got.badChunks++
			}
			got.chunks++
			end := int64(0)
			err := c.Records(func(rec *Record) error {
				got.records++
				if !rec.State.OK() {
					got.badRecords++
					t.Errorf("%s: %v", path, rec.Err())
					return nil
				}
				if len(rec.Raw)%8 != 0 {
					got.notMultiple++
				}
				if c.tail < 0 || c.tail > 7 {
					got.padding++
				}
				if rec.Raw[28] != 0x0c {
					got.plain++
				}
				end = rec.Offset + int64(len(rec.Raw)) - c.Offset
				checkRecord(t, path, rec)
				created, ok := rec.Created()
				switch {
				case !ok:
					t.Errorf("%s: record %d has no time", path, rec.ID)
				case created == rec.Written:
					got.sameTime++
				case created < rec.Written:
					got.earlier++
				default:
					got.later++
				}
				for _, f := range rec.Fields() {
					if f.Name == "EventRecordID" && string(f.Value) != uitoa(rec.ID) {
						got.idDiffers++
					}
				}
				return nil
			})
			if int(end) != c.free {
				got.freeNotEnd++
			}
			tables, terr := c.CheckTables()
			if terr != nil {
				t.Errorf("%s: %v", path, terr)
			}
			got.tables += tables.Names
			got.templates += tables.Templates
			if len(c.defs) != tables.Templates {
				t.Errorf("%s: chunk %d: %d templates in the chains, %d in use", path, c.Index, tables.Templates, len(c.defs))
			}
			return err
		})
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		got.empty += empty
		if empty > 0 {
			got.emptyFiles++
		}
	}
	t.Logf("%+v", got)
	for _, x := range []struct {
		what      string
		have, len int
	}{
		{"files", got.files, 537}, {"version 3.1", got.v31, 367}, {"version 3.2", got.v32, 170}, {"dirty files", got.dirty, 1},
		{"chunks", got.chunks, 740}, {"empty chunks", got.empty, 341}, {"files with empty chunks", got.emptyFiles, 29}, {"bad chunks", got.badChunks, 0},
		{"records", got.records, 17159}, {"bad records", got.badRecords, 0}, {"records without template", got.plain, 31},
		{"sizes not a multiple of 8", got.notMultiple, 0}, {"paddings over 7", got.padding, 0}, {"chunks whose records end before the free space", got.freeNotEnd, 0},
		{"templates", got.templates, 2817}, {"names in tables", got.tables, 21237},
		{"ids that differ", got.idDiffers, 14575},
		{"same time", got.sameTime, 3269}, {"created earlier", got.earlier, 13588}, {"created later", got.later, 271 + 31}, // the 31 without a template hold nine decimals
	} {
		if x.have != x.len {
			t.Errorf("%s: %d, want %d", x.what, x.have, x.len)
		}
	}
}

func uitoa(n uint64) string { return string(appendPadded(nil, n, 1)) }

// checkRecord holds the three forms of one record against each other.
func checkRecord(t *testing.T, path string, rec *Record) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(rec.AppendXML(nil)))
	elements := 0
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Errorf("%s: record %d: XML: %v", path, rec.ID, err)
			return
		}
		if _, ok := tok.(xml.StartElement); ok {
			elements++
		}
	}
	if elements < 3 {
		t.Errorf("%s: record %d: %d elements", path, rec.ID, elements)
	}
	want := map[string][]string{}
	for _, f := range rec.Fields() {
		want[f.Name] = append(want[f.Name], string(f.Value))
		if strings.ContainsRune(f.Name, ' ') || f.Name == "" {
			t.Errorf("%s: record %d: field name with a space", path, rec.ID)
		}
	}
	dec := json.NewDecoder(bytes.NewReader(rec.AppendJSON(nil)))
	dec.UseNumber()
	var obj map[string]any
	if err := dec.Decode(&obj); err != nil {
		t.Errorf("%s: record %d: JSON: %v", path, rec.ID, err)
		return
	}
	if len(obj) != len(want) {
		t.Errorf("%s: record %d: JSON has %d names, want %d", path, rec.ID, len(obj), len(want))
	}
	for name, values := range want {
		v := obj[name]
		list, ok := v.([]any)
		if !ok {
			list = []any{v}
		}
		if len(list) != len(values) {
			t.Errorf("%s: record %d: JSON has %d values of %s, want %d", path, rec.ID, len(list), name, len(values))
			continue
		}
		for i := range list {
			if jsonText(list[i]) != values[i] {
				t.Errorf("%s: record %d: JSON value of %s differs", path, rec.ID, name)
			}
		}
	}
}

func jsonText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		if v {
			return "true"
		}
		return "false"
	}
	return "?"
}

// TestNames counts the names that the records refer to and checks each hash by a
// second way: over the raw bytes.
func TestNames(t *testing.T) {
	names, refs := 0, 0
	for _, path := range packFiles(t) {
		r, _ := openFile(t, path)
		err := r.Chunks(func(c *Chunk) error {
			c.Use(new(Cache)) // so that each chunk compiles its own
			if err := c.Records(func(*Record) error { return nil }); err != nil {
				return err
			}
			refs += c.refs
			for off := range c.names {
				names++
				n := int(binary.LittleEndian.Uint16(c.buf[off+6:]))
				h := uint32(0)
				for i := range n {
					h = h*65599 + uint32(binary.LittleEndian.Uint16(c.buf[int(off)+8+2*i:]))
				}
				if uint16(h) != binary.LittleEndian.Uint16(c.buf[off+4:]) {
					t.Errorf("%s: chunk %d: name at %d", path, c.Index, off)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if names != 21237 || refs != 65580 {
		t.Errorf("%d names and %d references, want 21237 and 65580", names, refs)
	}
}

func BenchmarkFields(b *testing.B) { benchmark(b, func(r *Record) int { return len(r.Fields()) }) }

func BenchmarkJSON(b *testing.B) {
	var buf []byte
	benchmark(b, func(r *Record) int { buf = r.AppendJSON(buf[:0]); return len(buf) })
}

func BenchmarkXML(b *testing.B) {
	var buf []byte
	benchmark(b, func(r *Record) int { buf = r.AppendXML(buf[:0]); return len(buf) })
}

func benchmark(b *testing.B, use func(*Record) int) {
	var readers []*Reader
	for _, path := range packFiles(b) {
		r, _ := openFile(b, path)
		readers = append(readers, r)
	}
	b.ReportAllocs()
	events := 0
	var c Chunk
	for b.Loop() {
		for _, r := range readers {
			for i := range r.NumChunks() {
				if err := r.ReadChunk(i, &c); err != nil {
					b.Fatal(err)
				}
				_ = c.Records(func(rec *Record) error {
					use(rec)
					events++
					return nil
				})
			}
		}
	}
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
}
