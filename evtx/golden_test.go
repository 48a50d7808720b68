package evtx

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"sort"
	"testing"
)

// TestGolden pins every byte that the reader gives for the packs: whoever makes
// it faster must not change an answer.
func TestGolden(t *testing.T) {
	files := packFiles(t)
	sort.Slice(files, func(i, j int) bool { return filepath.Base(files[i]) < filepath.Base(files[j]) })
	asJSON, asXML, asFields := sha256.New(), sha256.New(), sha256.New()
	var buf []byte
	for _, path := range files {
		r, _ := openFile(t, path)
		err := r.Records(func(rec *Record) error {
			buf = append(rec.AppendJSON(buf[:0]), '\n')
			asJSON.Write(buf)
			buf = append(rec.AppendXML(buf[:0]), '\n')
			asXML.Write(buf)
			created, ok := rec.Created()
			fmt.Fprintln(asFields, rec.ID, rec.Written, rec.Chunk, rec.Offset, rec.State, rec.Err(), created, ok)
			for _, f := range rec.Fields() {
				fmt.Fprintf(asFields, "%q %d %d %v %q\n", f.Name, f.Kind, f.Type, f.Lossy, f.Value)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range []struct{ what, got, want string }{
		{"JSON", hex.EncodeToString(asJSON.Sum(nil)), "bd23d2c4d25906820de6dad5ffff8685f02c1d8f82f196b77e889c8f1e16b580"},
		{"XML", hex.EncodeToString(asXML.Sum(nil)), "84bb2ab981b7be52864f803389d8af12886304444eefce9fbb2d6e555d5b9dbe"},
		{"fields", hex.EncodeToString(asFields.Sum(nil)), "119145d9fe4b2cd0c845d863aeef18f209b31c7b94601d5da0fba2ade3c918a7"},
	} {
		if x.got != x.want {
			t.Errorf("digest of all %s: %s, want %s", x.what, x.got, x.want)
		}
	}
}
