package evtx

import (
	"bytes"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"
)

func crcIEEE(b []byte) uint32 { return crc32.ChecksumIEEE(b) }

// seeds are built chunks and, where the pack is unpacked, the used part of a few
// real ones.
func seeds(f *testing.F) {
	chunk, at := threeRecords(1)
	f.Add(chunk[:at[2]])
	f.Add(bytes.TrimRight(chunk, "\x00"))
	w := newBuilder(1)
	w.record(1, func() {
		w.element(false, "Event", []attr{{"a", w.text("b")}}, w.text("c"), func() { w.bytes(0x09); w.name("amp") })
	})
	f.Add(bytes.TrimRight(w.chunk(), "\x00"))
	f.Add(bytes.TrimRight(named("Good", "User", "x"), "\x00"))
	root := filepath.Join(os.TempDir(), "counterseal-packs")
	regression, _ := filepath.Glob(filepath.Join(root, "sigma-regression-open-*", "regression_data", "rules", "windows", "*", "*", "*.evtx"))
	core, _ := filepath.Glob(filepath.Join(root, "evtx-core-*", "*", "*", "*.evtx"))
	for i, path := range append(regression, core...) {
		if i%16 != 0 {
			continue
		}
		if b, err := os.ReadFile(path); err == nil && len(b) > firstChunk+recordsStart {
			f.Add(bytes.TrimRight(b[firstChunk:min(len(b), firstChunk+16384)], "\x00"))
		}
	}
}

// FuzzChunk reads any bytes as a chunk, with its checksums made right so that the
// content is reached. Every byte of the live area belongs to exactly one record,
// and each form of a record is well-formed.
func FuzzChunk(f *testing.F) {
	seeds(f)
	chunk, _ := threeRecords(1)
	known := [][]byte{chunk, named("Good", "User", "x"), named("Evil", "User", "y")}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < recordsStart || len(data) > ChunkSize {
			return
		}
		chunk := make([]byte, ChunkSize)
		copy(chunk, data)
		b := file(0, 1, seal(chunk))
		r, err := NewReader(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		err = r.Chunks(func(c *Chunk) error {
			_, _ = c.CheckTables()
			at := c.Offset + recordsStart
			return c.Records(func(rec *Record) error {
				if rec.Offset < at || len(rec.Raw) == 0 {
					t.Fatalf("record of %d bytes at %d after %d", len(rec.Raw), rec.Offset, at)
				}
				at = rec.Offset + 1
				if rec.State.OK() != (rec.Err() == nil) {
					t.Fatalf("state %v, error %v", rec.State, rec.Err())
				}
				if c.spent > maxSpent+2*ChunkSize*4 || len(c.tokens()) > 4*maxSteps {
					t.Fatalf("expanded to %d bytes and %d tokens", c.spent, len(c.toks))
				}
				for _, field := range rec.Fields() {
					if field.Name == "" {
						t.Fatal("field without a name")
					}
				}
				checkForms(t, rec)
				same(t, rec)
				return nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		// What a cache has seen before changes nothing, neither this chunk nor
		// those of which this one may be a forgery.
		h := new(Cache)
		var before []string
		for _, b := range known {
			before = append(before, readWith(h, b))
		}
		if readWith(h, chunk) != readWith(new(Cache), chunk) {
			t.Fatal("the chunk reads differently behind others")
		}
		for i, b := range known {
			if readWith(h, b) != before[i] {
				t.Fatalf("chunk %d reads differently behind this one", i)
			}
		}
	})
}

// FuzzFile reads any bytes as a file.
func FuzzFile(f *testing.F) {
	chunk, at := threeRecords(1)
	f.Add(file(0, 1, chunk)[:firstChunk+at[2]+100])
	f.Add(file(1, 0))
	f.Add([]byte("ElfFile\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewReader(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		if err := r.Records(func(rec *Record) error { checkForms(t, rec); return nil }); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzFileTime reads what it prints.
func FuzzFileTime(f *testing.F) {
	f.Add("2021-12-23T08:45:55.1234567Z")
	f.Add("12021-12-23T08:45:55Z")
	f.Fuzz(func(t *testing.T, s string) {
		ft, ok := ParseFileTime([]byte(s))
		if !ok {
			return
		}
		if again, ok := ParseFileTime([]byte(ft.String())); !ok || again != ft {
			t.Fatalf("%q reads as %d, prints as %v, reads as %d", s, ft, ft, again)
		}
	})
}
