package collect

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/packs"
)

func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

func zstandard(t *testing.T, s string) string {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(z, s)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func archive(t *testing.T, members ...string) string {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := 0; i < len(members); i += 2 {
		w, err := z.Create(members[i])
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, members[i+1])
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// pieces lists the records of a content.
func pieces(in []byte, jsonForm, zeek bool, max, step int) (out []string, raw []byte) {
	emit := func(p *piece) error {
		raw = append(raw, p.raw...)
		switch p.kind {
		case pieceFrame:
			out = append(out, string(p.body))
		case pieceBad:
			out = append(out, "BAD "+p.reason.Reason)
		}
		return nil
	}
	r := &stepReader{b: in, n: step}
	if jsonForm {
		splitJSON(r, max, emit)
	} else {
		splitLines(r, max, zeek, emit)
	}
	return out, raw
}

// stepReader gives n bytes at a time.
type stepReader struct {
	b []byte
	n int
}

func (s *stepReader) Read(p []byte) (int, error) {
	if len(s.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.b[:min(s.n, len(s.b))])
	s.b = s.b[n:]
	return n, nil
}

var jsonSeeds = []string{
	`[{"a":1},{"b":"]}"}]`, `{"Records":[{"a":1},{"b":2}],"x":[1,"]"]}` + "\n" + `{"Records":[{"c":3}]}`, "{\n\"a\":1\n}\n{\"b\":2}", `[1,"x\"",[2],null]`,
	"junk\n{\"a\":1}\n", `[{"a":1}`, `{"a"`, "[]", " ", `[{"a":"` + strings.Repeat("x", 80) + `"},{"b":1}]`, "\xef\xbb\xbf[{}]", `{"Records":[]}{"a":[]}`, "}", "[}]", `["a`,
}

// TestJSONAnyBoundary: in whatever pieces a content is read, its records are the
// same, and its pieces are the content.
func TestJSONAnyBoundary(t *testing.T) {
	for _, s := range jsonSeeds {
		want, raw := pieces([]byte(s), true, false, 64, len(s)+1)
		if string(raw) != s {
			t.Errorf("the pieces of %q are %q", s, raw)
		}
		for n := 1; n <= len(s); n++ {
			got, raw := pieces([]byte(s), true, false, 64, n)
			if diff := cmp.Diff(want, got); diff != "" || string(raw) != s {
				t.Errorf("%q by %d: %s, %q", s, n, diff, raw)
			}
		}
	}
}

func TestJSONRecords(t *testing.T) {
	for in, want := range map[string][]string{
		jsonSeeds[0]:                  {`{"a":1}`, `{"b":"]}"}`},
		jsonSeeds[1]:                  {`{"a":1}`, `{"b":2}`, `{"c":3}`},
		jsonSeeds[2]:                  {"{\n\"a\":1\n}", `{"b":2}`},
		jsonSeeds[3]:                  {"1", `"x\""`, "[2]", "null"},
		jsonSeeds[4]:                  {"BAD no JSON object", `{"a":1}`},
		jsonSeeds[5]:                  {`{"a":1}`, "BAD the array is not closed"},
		jsonSeeds[6]:                  {"BAD cut short inside a record"},
		jsonSeeds[7]:                  nil,
		jsonSeeds[9]:                  {"BAD longer than 64 bytes", `{"b":1}`},
		`{"x":1,"Records":[{"a":1}]}`: {`{"x":1,"Records":[{"a":1}]}`}, // an event with such a field
	} {
		got, _ := pieces([]byte(in), true, false, 64, 7)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", in, diff)
		}
	}
}

func TestLinesAnyBoundary(t *testing.T) {
	for _, s := range []string{
		"a\nb\r\n\nc", strings.Repeat("x", 64) + "\n" + strings.Repeat("y", 65) + "\nz\n", strings.Repeat("x", 64) + "\r\n" + strings.Repeat("y", 65) + "\r\n", "\n\n", "\xef\xbb\xbfa\n", "\x00\n\xff",
		strings.Repeat("x", 1000),
	} {
		want, raw := pieces([]byte(s), false, false, 64, len(s)+1)
		if string(raw) != s {
			t.Errorf("the pieces of %q are %q", s, raw)
		}
		for n := 1; n <= len(s); n++ {
			got, raw := pieces([]byte(s), false, false, 64, n)
			if diff := cmp.Diff(want, got); diff != "" || string(raw) != s {
				t.Errorf("%q by %d: %s", s, n, diff)
			}
		}
	}
	got, _ := pieces([]byte("a\n"+strings.Repeat("y", 65)+"\nb"), false, false, 64, 3)
	if diff := cmp.Diff([]string{"a", "BAD longer than 64 bytes", "b"}, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzJSONSplit(f *testing.F) {
	for _, s := range jsonSeeds {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		want, raw := pieces(in, true, false, 64, len(in)+1)
		if !bytes.Equal(raw, in) {
			t.Fatalf("the pieces are %q", raw)
		}
		got, raw := pieces(in, true, false, 64, int(step)+1)
		if diff := cmp.Diff(want, got); diff != "" || !bytes.Equal(raw, in) {
			t.Fatalf("by %d: %s", int(step)+1, diff)
		}
	})
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("#separator \\x09\n#fields\ta\nx\n#close\n"), uint8(3))
	f.Add([]byte(strings.Repeat("x", 70)+"\r\na"), uint8(1))
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		want, raw := pieces(in, false, true, 64, len(in)+1)
		if !bytes.Equal(raw, in) {
			t.Fatalf("the pieces are %q", raw)
		}
		got, _ := pieces(in, false, true, 64, int(step)+1)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("by %d: %s", int(step)+1, diff)
		}
	})
}

// contents reads all records of a file.
func contents(t *testing.T, path string) (lines []string, shape Shape, err error) {
	t.Helper()
	f, err := Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	for _, m := range f.Members {
		shape = m.Shape
		_, err = m.Frames(t.Context(), func(f *event.Frame) error {
			lines = append(lines, string(f.Bytes))
			return nil
		}, func(e event.LineError) { lines = append(lines, fmt.Sprintf("line %d %s", e.Line, e.Code)) })
		if err != nil {
			return lines, shape, err
		}
	}
	return lines, shape, nil
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	nd := "{\"a\":1}\n{\"a\":2}\n"
	two := []string{`{"a":1}`, `{"a":2}`}
	for name, c := range map[string]struct {
		content string
		shape   Shape
		want    []string
	}{
		"plain":          {nd, Lines, two},
		"gzip":           {zipped(t, nd), Lines, two},
		"gzip twice":     {zipped(t, "{\"a\":1}\n") + zipped(t, "{\"a\":2}\n"), Lines, two},
		"zstd":           {zstandard(t, nd), Lines, two},
		"zip":            {archive(t, "x/a.log", "{\"a\":1}\n", "b.json.gz", zipped(t, "[{\"a\":2}]")), JSON, two},
		"array":          {`[{"a":1},{"a":2}]`, JSON, two},
		"wrapper":        {`{"Records": [{"a":1},{"a":2}]}`, JSON, two},
		"pretty":         {"{\n \"a\": 1\n}\n", JSON, []string{"{\n \"a\": 1\n}"}},
		"torn first":     {"{\"a\":\n{\"a\":2}\n", Lines, []string{`{"a":`, `{"a":2}`}},
		"text":           {"[notice] hello\n[error] x\n", Lines, []string{"[notice] hello", "[error] x"}},
		"text, date":     {"[2024-01-02 10:00] x\n", Lines, []string{"[2024-01-02 10:00] x"}},
		"empty":          {"", Lines, nil},
		"zeek":           {"#separator \\x09\n#fields\ta\tb\n1\t2\n#close\tx\n", Zeek, []string{"1\t2"}},
		"NUL, not UTF-8": {"a\x00b\n\xff\xfe\n", Lines, []string{"a\x00b", "\xff\xfe"}},
		"10 MB line":     {"a\n" + strings.Repeat("x", 10<<20) + "\nb\n", Lines, []string{"a", "line 2 too_large", "b"}},
	} {
		got, shape, err := contents(t, write(t, dir, strings.ReplaceAll(name, " ", "-"), c.content))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" || shape != c.shape {
			t.Errorf("%s: %v: %s", name, shape, diff)
		}
	}
	for name, c := range map[string]struct{ content, want string }{
		"xz":     {"\xfd7zXZ\x00xx", "xz"},
		"utf16":  {"\xff\xfea\x00", "UTF-16"},
		"png":    {"\x89PNG\r\n", "picture"},
		"tar.gz": {zipped(t, strings.Repeat("\x00", 257)+"ustar\x0000"), "tar"},
		"gz.gz":  {zipped(t, zipped(t, "x")), "twice"},
	} {
		if _, _, err := contents(t, write(t, dir, name, c.content)); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := contents(t, write(t, dir, "nested.zip", archive(t, "in.zip", archive(t, "a", "b")))); err == nil {
		t.Error("an archive in an archive was opened")
	}
	// A cut gzip gives what it holds, then the error.
	var long strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&long, "line %d %x\n", i, sha256.Sum256([]byte{byte(i), byte(i >> 8)}))
	}
	z := zipped(t, long.String())
	got, _, err := contents(t, write(t, dir, "cut.gz", z[:len(z)/2]))
	if !errors.Is(err, io.ErrUnexpectedEOF) || len(got) < 5000 {
		t.Errorf("a cut gzip: %d lines, %v", len(got), err)
	}
	if n := len(got); n > 0 && got[n-1] != fmt.Sprintf("line %d bad_line", n) {
		t.Errorf("the cut line is %q", got[n-1])
	}
}

func TestBombs(t *testing.T) {
	dir := t.TempDir()
	line := strings.Repeat("a", 1<<20-1) + "\n"
	var gz bytes.Buffer
	w, _ := gzip.NewWriterLevel(&gz, gzip.BestCompression)
	for range 80 {
		io.WriteString(w, line)
	}
	w.Close()
	var z bytes.Buffer
	zw := zip.NewWriter(&z)
	for i := range 8 { // each member is small enough, together they are not
		m, _ := zw.Create(fmt.Sprintf("m%d", i))
		for range 10 {
			io.WriteString(m, line)
		}
	}
	zw.Close()
	for name, c := range map[string][]byte{"bomb.gz": gz.Bytes(), "bomb.zip": z.Bytes()} {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, c, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, _, err := contents(t, p); !errors.Is(err, ErrBomb) {
			t.Errorf("%s (%d bytes): %v", name, len(c), err)
		}
		var e evidence
		r, err := Import(t.Context(), ImportOptions{Paths: []string{p}, Source: "s", Sink: e.sink})
		if err != nil || r.Failed == 0 {
			t.Errorf("%s: %v %+v", name, err, r)
		}
	}
}

func TestZeekHeaders(t *testing.T) {
	dir := t.TempDir()
	p := write(t, dir, "conn.log", "#separator \\x09\n#fields\ta\n1\n2\n#close\n#separator ||\n#fields||b\n3\n")
	f, err := Open(p)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got []string
	if _, err := f.Members[0].Frames(t.Context(), func(f *event.Frame) error {
		got = append(got, fmt.Sprintf("%s %s %q", f.Format, f.Bytes, f.Header))
		return nil
	}, nil); err != nil {
		t.Fatal(err)
	}
	one, two := `"#separator \\x09\n#fields\ta\n"`, `"#separator ||\n#fields||b\n"`
	if diff := cmp.Diff([]string{"zeek-tsv 1 " + one, "zeek-tsv 2 " + one, "zeek-tsv 3 " + two}, got); diff != "" {
		t.Error(diff)
	}
}

func TestWalk(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "b.log", "x")
	write(t, dir, "a/z.log", "x")
	write(t, dir, "a/c/y.log", "x")
	write(t, dir, "c.log", "x")
	for link, to := range map[string]string{"a/up": "..", "loop": "loop", "dangling": "nothing", "d.log": "b.log"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Skipf("needs symbolic links: %v", err)
		}
	}
	var got []string
	err := Walk([]string{dir, filepath.Join(dir, "none")}, func(p string, err error) error {
		rel, _ := filepath.Rel(dir, p)
		if err != nil {
			rel += " !"
			if !strings.Contains(err.Error(), filepath.Base(p)) {
				t.Errorf("the error does not name its file: %v", err)
			}
		}
		got = append(got, rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"b.log", "c.log", "d.log", "dangling !", "loop !", "a/z.log", "a/c/y.log", "a/up !", "none !"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestImport(t *testing.T) {
	dir := t.TempDir()
	content := "one\ntwo\n\nthree\n"
	write(t, dir, "a.log", content)
	write(t, dir, "b.log.gz", zipped(t, "four\nfive\n"))
	write(t, dir, "c.png", "\x89PNG\r\n")
	write(t, dir, "empty.log", "")
	unreadable := write(t, dir, "d.log", "secret\n")
	os.Chmod(unreadable, 0)
	blocked := os.Geteuid() != 0 && runtime.GOOS != "windows"
	if !blocked {
		os.Remove(unreadable)
	}
	var e evidence
	var last Progress
	o := ImportOptions{Paths: []string{dir}, Source: "s", Dataset: "d", Sink: e.sink, Progress: func(p Progress) { last = p }}
	r, err := Import(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"one", "two", "three", "four", "five"}, e.lines()); diff != "" {
		t.Error(diff)
	}
	failed := 1
	if blocked {
		failed = 2
	}
	if r.Frames != 5 || r.Accepted != 5 || r.Repeated != 0 || r.Failed != failed {
		t.Errorf("%+v", r)
	}
	if last.Done != last.Total || last.Total == 0 {
		t.Errorf("%+v", last)
	}
	sum := sha256.Sum256([]byte(content))
	if r.Files[0].Digest != hex.EncodeToString(sum[:]) {
		t.Errorf("digest %s is not that of sha256sum", r.Files[0].Digest)
	}
	if n := len(e.batches); n != 2 || e.batches[0].Final || !e.batches[1].Final {
		t.Errorf("%d batches", n)
	}
	b := e.batches[0]
	if b.Key != "import:"+r.Files[0].Digest+":0" || b.Way != WayImport || b.Frames[2].Dataset != "d" {
		t.Errorf("%+v", b)
	}
	if diff := cmp.Diff(&event.Origin{File: sum, Chunk: -1, Record: 3}, b.Frames[2].Origin); diff != "" || b.Frames[2].Line != 3 {
		t.Errorf("line %d, %s", b.Frames[2].Line, diff)
	}
	// Once more, and under another name, takes nothing.
	os.Rename(filepath.Join(dir, "a.log"), filepath.Join(dir, "a2.log"))
	if r, err = Import(t.Context(), o); err != nil || r.Accepted != 5 || r.Repeated != 5 || len(e.lines()) != 5 {
		t.Errorf("%v %+v", err, r)
	}
}

// TestImportResumes: an import that was stopped anywhere and begun again is the
// same as one that was not.
func TestImportResumes(t *testing.T) {
	dir := t.TempDir()
	var want []string
	for f := range 3 {
		var b strings.Builder
		for i := range 5000 {
			l := fmt.Sprintf("file %d line %d", f, i)
			want = append(want, l)
			b.WriteString(l + "\n")
		}
		write(t, dir, fmt.Sprintf("%d.log", f), b.String())
	}
	var e evidence
	for stop := 1; ; stop++ {
		ctx, cancel := context.WithCancel(t.Context())
		calls := 0
		sink := func(c context.Context, b event.Batch) (event.Result, error) {
			if calls++; calls == stop {
				defer cancel() // it is sealed, and the answer is lost
				if _, err := e.sink(c, b); err != nil {
					t.Error(err)
				}
				return event.Result{}, context.Canceled
			}
			return e.sink(c, b)
		}
		r, err := Import(ctx, ImportOptions{Paths: []string{dir}, Source: "s", Sink: sink})
		cancel()
		if err == nil {
			if r.Accepted != len(want) {
				t.Errorf("%+v", r)
			}
			break
		}
		if stop > 50 {
			t.Fatal("it never ends")
		}
	}
	if diff := cmp.Diff(want, e.lines()); diff != "" {
		t.Error(diff)
	}
}

func TestImportRefusals(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.log", strings.Repeat("bad\n", 5000))
	write(t, dir, "b.log", "good\n")
	var e evidence
	e.before = func(b *event.Batch) error {
		if string(b.Frames[0].Bytes) == "bad" {
			return &event.Refusal{Code: "pia_missing", Reason: "no PIA"}
		}
		return nil
	}
	o := ImportOptions{Paths: []string{dir}, Source: "s", Sink: e.sink}
	r, err := Import(t.Context(), o)
	if err != nil || r.Failed != 1 || r.Accepted != 1 || r.Files[0].Err != "no PIA" || r.Files[0].Refused == 0 || r.Files[1].Err != "" {
		t.Errorf("%v %+v", err, r)
	}
	for _, code := range []string{"disk_low", "source_unknown"} {
		e.before = func(*event.Batch) error { return &event.Refusal{Code: code, Reason: "no"} }
		var no *event.Refusal
		if _, err := Import(t.Context(), o); !errors.As(err, &no) || no.Code != code {
			t.Errorf("%s: %v", code, err)
		}
	}
}

// TestImportWithholds: what is left of a content with a protected contact is what
// a content without it is: same digest, numbers, keys, batches, report.
func TestImportWithholds(t *testing.T) {
	long := func(hidden bool, sep, open, end, item string) string {
		var b strings.Builder
		b.WriteString(open)
		first := true
		for i := range 5000 {
			hide := i == 0 || i == 1 || i == 777 || i == 4999 || i == 2500
			if hide && !hidden {
				continue
			}
			if !first {
				b.WriteString(sep)
			}
			first = false
			if hide {
				fmt.Fprintf(&b, item, "hotline", i)
			} else {
				fmt.Fprintf(&b, item, "x", i)
			}
		}
		return b.String() + end
	}
	for name, f := range map[string]func(hidden bool) string{
		"lines":   func(h bool) string { return long(h, "\n", "", "\n", "%s %d") },
		"array":   func(h bool) string { return long(h, ",\n  ", "[\n  ", "\n]\n", `{"who":"%s","n":%d}`) },
		"wrapper": func(h bool) string { return long(h, ",", `{"Records":[`, "]}", `{"who":"%s","n":%d}`) },
		"two arrays": func(h bool) string {
			return long(h, ",", `{"Records":[`, "]}", `{"who":"%s","n":%d}`) + "\n" + long(h, ", ", `{"Records":[`, "]}", `{"who":"%s","n":%d}`)
		},
		"zeek": func(h bool) string {
			return "#separator \\x09\n#fields\ta\tb\n" + long(h, "\n", "", "\n#close\n", "%s\t%d")
		},
	} {
		run := func(hidden bool) (Report, []event.Batch) {
			var e evidence
			p := write(t, t.TempDir(), "log", f(hidden))
			r, err := Import(t.Context(), ImportOptions{
				Paths: []string{p}, Source: "s", Sink: e.sink,
				Withhold: func(f *event.Frame) bool { return bytes.Contains(f.Bytes, []byte("hotline")) },
			})
			if err != nil {
				t.Fatal(err)
			}
			for i := range r.Files {
				r.Files[i].Name = ""
			}
			for i := range e.batches {
				e.batches[i].Received = e.batches[0].Received
			}
			return r, e.batches
		}
		withR, with := run(true)
		withoutR, without := run(false)
		for i := range with {
			with[i].Received = without[0].Received
		}
		if withR.Frames == 0 || len(with) < 3 {
			t.Fatalf("%s: %+v", name, withR)
		}
		if diff := cmp.Diff(withoutR, withR); diff != "" {
			t.Errorf("%s: report: %s", name, diff)
		}
		for i := range without {
			without[i].Received = without[0].Received
		}
		if len(without) != len(with) {
			t.Errorf("%s: %d batches with, %d without", name, len(with), len(without))
			continue
		}
		for i := range with {
			if !reflect.DeepEqual(without[i], with[i]) {
				t.Errorf("%s: batch %d differs: keys %s and %s", name, i, with[i].Key, without[i].Key)
			}
		}
		sum := sha256.Sum256([]byte(f(false)))
		if got := withR.Files[0].Digest; got != hex.EncodeToString(sum[:]) {
			t.Errorf("%s: digest %s", name, got)
		}
	}
}

// TestPacksEVTX reads real event logs, plain and packed, to the same records.
func TestPacksEVTX(t *testing.T) {
	dir := packs.Dir(t, "evtx-core")
	var files []string
	if err := Walk([]string{dir}, func(p string, err error) error {
		if err == nil && strings.EqualFold(filepath.Ext(p), ".evtx") {
			files = append(files, p)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if len(files) < 100 {
		t.Fatalf("%d event logs", len(files))
	}
	tmp := t.TempDir()
	for _, p := range files[:10] {
		raw, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		var plain, packed evidence
		r1, err := Import(t.Context(), ImportOptions{Paths: []string{p}, Source: "w", Sink: plain.sink})
		if err != nil {
			t.Fatal(err)
		}
		r2, err := Import(t.Context(), ImportOptions{Paths: []string{write(t, tmp, filepath.Base(p)+".gz", zipped(t, string(raw)))}, Source: "w", Sink: packed.sink})
		if err != nil {
			t.Fatal(err)
		}
		if r1.Failed+r2.Failed != 0 || r1.Frames == 0 || r1.Files[0].Digest != r2.Files[0].Digest || !slices.Equal(plain.lines(), packed.lines()) {
			t.Errorf("%s: %+v, %+v", filepath.Base(p), r1, r2)
		}
		for _, b := range plain.batches {
			for _, f := range b.Frames {
				if f.Format != FormatEVTX || f.Origin.Record == 0 || f.Origin.Chunk < 0 || !bytes.HasPrefix(f.Bytes, []byte("{")) {
					t.Fatalf("%s: frame %+v", filepath.Base(p), f.Origin)
				}
			}
		}
	}
}

// A packed event log of any size is read through a window.
func TestForward(t *testing.T) {
	content := make([]byte, 5<<20+77)
	for i := range content {
		content[i] = byte(i * 7 / 3)
	}
	w := &forward{r: &stepReader{b: content, n: 10_000}}
	buf := make([]byte, 65536)
	for off := 0; off < len(content); off += len(buf) {
		for range 2 { // what was just read can be read again
			n, err := w.ReadAt(buf, int64(off))
			want := content[off:min(len(content), off+len(buf))]
			if n != len(want) || !bytes.Equal(buf[:n], want) || (err != nil) != (n < len(buf)) {
				t.Fatalf("offset %d: %d bytes, %v", off, n, err)
			}
		}
		if len(w.buf) > 2*forwardWindow {
			t.Fatalf("the window holds %d bytes", len(w.buf))
		}
	}
	if _, err := w.ReadAt(buf, 0); err == nil {
		t.Error("went back to the start")
	}
}

// An event log with a damaged chunk and a withheld record: both cost themselves.
func TestPacksEVTXDamage(t *testing.T) {
	dir := packs.Dir(t, "evtx-core")
	var raw []byte
	if err := Walk([]string{dir}, func(p string, err error) error {
		if err == nil && raw == nil && strings.EqualFold(filepath.Ext(p), ".evtx") {
			if b, rerr := os.ReadFile(p); rerr == nil && len(b) > 4096+5*65536 {
				raw = b
			}
		}
		return err
	}); err != nil || raw == nil {
		t.Fatalf("no event log of five chunks: %v", err)
	}
	run := func(content []byte, withhold func(*event.Frame) bool) (FileReport, *evidence) {
		var e evidence
		p := write(t, t.TempDir(), "log.evtx", string(content))
		r, err := Import(t.Context(), ImportOptions{Paths: []string{p}, Source: "w", Sink: e.sink, Withhold: withhold})
		if err != nil || len(r.Files) != 1 {
			t.Fatalf("%v %+v", err, r)
		}
		return r.Files[0], &e
	}
	whole, all := run(raw, nil)
	if whole.Damage != (Damage{}) || whole.Frames < 100 {
		t.Fatalf("%+v", whole)
	}
	sum := sha256.Sum256(raw)
	if whole.Digest != hex.EncodeToString(sum[:]) {
		t.Errorf("digest %s", whole.Digest)
	}
	none, _ := run(raw, func(*event.Frame) bool { return false })
	if none.Digest != whole.Digest {
		t.Error("asking about records changed the digest")
	}

	damaged := bytes.Clone(raw)
	for i := 4096 + 65536; i < 4096+65536+8; i++ {
		damaged[i] ^= 0xff // the second chunk's magic
	}
	d, _ := run(damaged, nil)
	if d.Damage.Chunks != 1 || d.Err != "" || d.Frames == 0 || d.Frames > whole.Frames {
		t.Errorf("%+v", d)
	}

	lines := all.lines()
	hide := lines[len(lines)/2]
	w, left := run(raw, func(f *event.Frame) bool { return string(f.Bytes) == hide })
	if w.Frames != whole.Frames-1 || w.Digest == whole.Digest || slices.Contains(left.lines(), hide) {
		t.Errorf("%+v", w)
	}
	again, _ := run(raw, func(f *event.Frame) bool { return string(f.Bytes) == hide })
	if again.Digest != w.Digest {
		t.Error("the digest is not stable")
	}
	cut, _ := run(raw[:4096+2*65536+3000], nil)
	if cut.Frames == 0 || cut.Damage.Chunks != 1 {
		t.Errorf("%+v", cut)
	}
}

func TestPacksZeek(t *testing.T) {
	dir := packs.Dir(t, "zeek-logs")
	var e evidence
	r, err := Import(t.Context(), ImportOptions{Paths: []string{filepath.Join(dir, "zed-sample-data", "zeek-default"), filepath.Join(dir, "zed-sample-data", "zeek-json")}, Source: "z", Sink: e.sink})
	if err != nil || r.Failed != 0 {
		t.Fatalf("%v %+v", err, r)
	}
	tsv, js := 0, 0
	for _, b := range e.batches {
		for _, f := range b.Frames {
			if f.Format == FormatZeek {
				tsv++
				if !bytes.Contains(f.Header, []byte("#fields")) {
					t.Fatal("no header")
				}
			} else {
				js++
			}
		}
	}
	if tsv == 0 || tsv != js {
		t.Errorf("%d records as TSV, %d as JSON", tsv, js)
	}
}
