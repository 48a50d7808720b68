package sigmajson_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/counterseal/counterseal/evtx"
	"github.com/counterseal/counterseal/internal/packs"
	"github.com/counterseal/counterseal/sigma"
	"github.com/counterseal/counterseal/sigma/sigmajson"
)

// BenchmarkFields reads the events of the pack of attacks, for profiles. Against
// other ways to read them see ../../bench, table json.
func BenchmarkFields(b *testing.B) {
	var texts [][]byte
	size := 0
	err := filepath.WalkDir(packs.Dir(b, "evtx-core"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".evtx") {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		r, err := evtx.NewReader(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return err
		}
		return r.Records(func(rec *evtx.Record) error {
			texts = append(texts, rec.AppendJSON(nil))
			size += len(texts[len(texts)-1])
			return nil
		})
	})
	if err != nil {
		b.Fatal(err)
	}
	var r sigmajson.Reader
	var fields []sigma.Field
	b.ReportAllocs()
	b.SetBytes(int64(size))
	for b.Loop() {
		for _, text := range texts {
			if fields, err = r.Fields(fields[:0], text); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.N*len(texts))/b.Elapsed().Seconds(), "events/s")
}
