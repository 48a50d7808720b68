package collect

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func benchLines(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, `{"EventID":4688,"Computer":"WS%02d.example.test","NewProcessName":"C:\\Windows\\System32\\cmd.exe","CommandLine":"%s","n":%d}`+"\n", i%40, strings.Repeat("a b ", 60), i)
	}
	return b.Bytes()
}

func BenchmarkLines(b *testing.B) {
	in := benchLines(5000)
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		if err := splitLines(bytes.NewReader(in), 8<<20, false, func(*piece) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkJSON(b *testing.B) {
	in := append([]byte{'['}, bytes.ReplaceAll(bytes.TrimSpace(benchLines(5000)), []byte("\n"), []byte(",\n"))...)
	in = append(in, ']')
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		if err := splitJSON(bytes.NewReader(in), 8<<20, func(*piece) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSyslog(b *testing.B) {
	var buf bytes.Buffer
	for l := range bytes.Lines(benchLines(5000)) {
		fmt.Fprintf(&buf, "%d <13>%s", len(l)+4, l)
	}
	in := buf.Bytes()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		s := splitter{max: 64 << 10}
		n := 0
		for from := 0; from < len(in); from += 64 << 10 {
			s.feed(in[from:min(len(in), from+64<<10)])
			for {
				_, ok, err := s.next()
				if err != nil {
					b.Fatal(err)
				}
				if !ok {
					break
				}
				n++
			}
		}
		if n != 5000 {
			b.Fatal(n)
		}
	}
}
