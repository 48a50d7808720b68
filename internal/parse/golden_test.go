package parse

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/counterseal/counterseal/internal/event"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// received is the receipt of every test record.
var received = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func testContext() Context { return Context{Received: received, Zone: time.UTC} }

// frames splits a sample into frames; lines of '#' are the header of Zeek's.
func frames(b []byte) []event.Frame {
	var out []event.Frame
	var header []byte
	inHeader := false
	for i, line := range bytes.SplitAfter(b, []byte("\n")) {
		if bytes.HasPrefix(line, []byte("#")) {
			if !inHeader {
				header = nil
			}
			inHeader = true
			header = append(header, line...)
			continue
		}
		inHeader = false
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		out = append(out, event.Frame{Bytes: line, Line: i + 1, Header: header})
	}
	return out
}

// read identifies and parses one frame.
func read(f *event.Frame, c Context) (*event.Record, error) {
	fm, ds, ok := Identify(f, "import")
	if !ok {
		return nil, fmt.Errorf("not identified")
	}
	var r event.Record
	if err := fm.Parse(f, c, &r); err != nil {
		return nil, err
	}
	if r.Dataset != ds {
		return nil, fmt.Errorf("identified as %s, parsed as %s", ds, r.Dataset)
	}
	if r.Format != fm.Tag() {
		return nil, fmt.Errorf("the record says %s, the format %s", r.Format, fm.Tag())
	}
	return &r, nil
}

func render(r *event.Record) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", r.Dataset, r.Format)
	if r.Time != 0 {
		fmt.Fprintf(&b, " time=%s", time.Unix(0, r.Time).UTC().Format(time.RFC3339Nano))
	}
	if r.Zone != "" {
		fmt.Fprintf(&b, " zone=%s", r.Zone)
	}
	if r.Group != "" {
		fmt.Fprintf(&b, " group=%s", r.Group)
	}
	if r.Running.Stream != "" {
		fmt.Fprintf(&b, " running=%s#%d step=%t", r.Running.Stream, r.Running.N, r.Running.Step)
	}
	b.WriteByte('\n')
	for _, f := range r.Fields {
		kind := [...]string{"", "number ", "bool ", "null "}[f.Kind]
		fmt.Fprintf(&b, "  %s = %s%q\n", f.Name, kind, f.Value)
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*.log")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d samples, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimPrefix(file, "testdata/"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, f := range frames(b) {
				r, err := read(&f, testContext())
				if err != nil {
					fmt.Fprintf(&got, "line %d: %v\n", f.Line, err)
					continue
				}
				got.WriteString(render(r))
			}
			golden := strings.TrimSuffix(file, ".log") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", file, diff)
			}
		})
	}
}
