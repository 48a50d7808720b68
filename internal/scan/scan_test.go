package scan

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/collect"
	"github.com/counterseal/counterseal/internal/detect"
	"github.com/counterseal/counterseal/internal/packs"
	"github.com/counterseal/counterseal/internal/pia"
)

const testRules = `title: Test tool
id: 11111111-1111-1111-1111-111111111111
status: test
level: high
author: A. Author
tags: [attack.t1003]
logsource: {product: windows, category: process_creation}
detection:
  selection:
    CommandLine|contains: evil.exe
  condition: selection
---
title: Any process
id: 22222222-2222-2222-2222-222222222222
level: low
logsource: {product: windows, category: process_creation}
detection:
  selection:
    Image|endswith: .exe
  condition: selection
---
title: Root in the cloud
id: 33333333-3333-3333-3333-333333333333
level: critical
logsource: {product: aws, service: cloudtrail}
detection:
  selection:
    userIdentity.type: Root
  condition: selection
---
title: Cannot be honoured
id: 44444444-4444-4444-4444-444444444444
logsource: {product: windows}
detection:
  selection:
    A|nonsense: b
  condition: selection
`

func rules() []detect.File { return []detect.File{{Path: "test.yml", Data: []byte(testRules)}} }

// process is a Winlogbeat line of a started process.
func process(host, user, command string, n int) string {
	line, err := json.Marshal(map[string]any{
		"@timestamp": "2024-05-01T10:00:00.000Z",
		"winlog": map[string]any{
			"channel": "Microsoft-Windows-Sysmon/Operational", "event_id": 1, "record_id": 100 + n, "computer_name": host,
			"provider_name": "Microsoft-Windows-Sysmon",
			"event_data": map[string]any{
				"Image": `C:\Tools\evil.exe`, "CommandLine": command, "User": `CORP\` + user, "UtcTime": "2024-05-01 10:00:00.000",
			},
		},
	})
	if err != nil {
		panic(err)
	}
	return string(line) + "\n"
}

const cloudtrail = `{"Records":[{"eventVersion":"1.08","eventTime":"2024-05-02T11:00:00Z","eventSource":"iam.amazonaws.com","eventName":"CreateUser","userIdentity":{"type":"Root"}},
{"eventVersion":"1.08","eventTime":"2024-05-02T12:00:00Z","eventSource":"iam.amazonaws.com","eventName":"CreateUser","userIdentity":{"type":"IAMUser"}}]}`

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func gz(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// folder is a folder of one file in each form.
func folder(t *testing.T) string {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.ndjson"), []byte(process("HOST01", "alice", `evil.exe /user:alice`, 1)+process("HOST02", "bob", `good`, 2)))
	write(t, filepath.Join(dir, "b.json"), []byte(cloudtrail))
	write(t, filepath.Join(dir, "c.json"), []byte("["+process("HOST01", "alice", "evil.exe", 3)+","+process("HOST01", "alice", "evil.exe", 4)+"]"))
	write(t, filepath.Join(dir, "d.ndjson.gz"), gz(t, []byte(process("HOST03", "alice", "evil.exe", 5))))
	var z bytes.Buffer
	zw := zip.NewWriter(&z)
	w, err := zw.Create("inside.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(process("HOST04", "carol", "evil.exe", 6))); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "e.zip"), z.Bytes())
	write(t, filepath.Join(dir, "sub", "f.log"), []byte("type=SYSCALL msg=audit(1714557600.123:99): arch=c000003e syscall=59 success=yes exe=\"/usr/bin/evil\"\n"))
	return dir
}

func TestForms(t *testing.T) {
	dir := folder(t)
	findings, s := scanJSON(t, rules(), dir)
	var got []string
	for _, f := range findings {
		rel, err := filepath.Rel(dir, f.Source.Path)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %d %s %s %s", filepath.ToSlash(rel), f.Source.Record, f.Time, f.Rule.Level, f.Rule.Title))
	}
	want := []string{
		"a.ndjson 1 2024-05-01T10:00:00Z high Test tool",
		"a.ndjson 1 2024-05-01T10:00:00Z low Any process",
		"a.ndjson 2 2024-05-01T10:00:00Z low Any process",
		"b.json 1 2024-05-02T11:00:00Z critical Root in the cloud",
		"c.json 1 2024-05-01T10:00:00Z high Test tool",
		"c.json 1 2024-05-01T10:00:00Z low Any process",
		"c.json 2 2024-05-01T10:00:00Z high Test tool",
		"c.json 2 2024-05-01T10:00:00Z low Any process",
		"d.ndjson.gz 1 2024-05-01T10:00:00Z high Test tool",
		"d.ndjson.gz 1 2024-05-01T10:00:00Z low Any process",
		"e.zip!inside.ndjson 1 2024-05-01T10:00:00Z high Test tool",
		"e.zip!inside.ndjson 1 2024-05-01T10:00:00Z low Any process",
	}
	if !slices.Equal(got, want) {
		t.Errorf("findings:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if s.Files != 6 || s.Events != 9 || s.Hit != 7 || s.Rules != 3 || s.RefusedRules != 1 || s.Partial() {
		t.Errorf("summary: %+v", s)
	}
	if s.Findings != [6]int{0, 0, 6, 0, 5, 1} || !s.Reached(Critical) {
		t.Errorf("levels: %v", s.Findings)
	}
	if s.TopRules[0].Title != "Root in the cloud" || s.TopRules[1].Count != 5 || s.TopDays[0] != (DayCount{"2024-05-01", 11}) {
		t.Errorf("rules %v, days %v", s.TopRules, s.TopDays)
	}
	if !s.First.Equal(time.Date(2024, 5, 1, 10, 0, 0, 0, time.UTC)) || !s.Last.Equal(time.Date(2024, 5, 2, 12, 0, 0, 0, time.UTC)) {
		t.Errorf("seen %v to %v", s.First, s.Last)
	}
	if f := findings[0]; f.Rule.Author != "A. Author" || !slices.Equal(f.Rule.Tags, []string{"attack.t1003"}) || f.Source.EventID != 101 {
		t.Errorf("finding: %+v", f)
	}
}

// TestOrder shows that the number of cores changes nothing.
func TestOrder(t *testing.T) {
	dir := folder(t)
	var big strings.Builder
	for i := range 20000 {
		big.WriteString(process(fmt.Sprintf("HOST%02d", i%50), "alice", "evil.exe", i))
	}
	write(t, filepath.Join(dir, "big.ndjson"), []byte(big.String()))
	var outs []string
	for _, workers := range []int{1, 2, 7} {
		var out, notes bytes.Buffer
		at := time.Date(2024, 6, 1, 0, 0, 0, 0, time.UTC)
		_, err := Run(context.Background(), Options{
			Paths: []string{dir}, Rules: rules(), Out: &out, Notes: &notes, Clear: true, Workers: workers, Now: func() time.Time { return at },
		})
		if err != nil {
			t.Fatal(err)
		}
		outs = append(outs, out.String()+notes.String())
	}
	if outs[0] != outs[1] || outs[1] != outs[2] {
		t.Error("the output depends on the number of workers")
	}
	if n := strings.Count(outs[0], "Test tool"); n != 20000+5+1 {
		t.Errorf("%d findings printed", n)
	}
}

// TestNames plants names and looks for them in everything that is printed.
func TestNames(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.ndjson"), []byte(
		process("LAPTOP-ALICE", "alice", `evil.exe C:\Users\alice\x.txt`, 1)+process("LAPTOP-ALICE", "alice", `evil.exe`, 2)+process("WORKSTATION77", "robertina", `evil.exe`, 3)))
	print := func(format string, clear bool) string {
		var out, lines, notes bytes.Buffer
		_, err := Run(context.Background(), Options{
			Paths: []string{dir}, Rules: rulesOn("User"), Out: &out, Format: format, JSONL: &lines, Notes: &notes, Clear: clear,
		})
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(out.String(), "\n")
		if format != Table {
			first, _, _ = strings.Cut(notes.String(), "\n")
		}
		if strings.Contains(first, "--clear") == clear || !strings.HasPrefix(first, "# ") {
			t.Errorf("first line with clear=%v: %q", clear, first)
		}
		return out.String() + lines.String() + notes.String()
	}
	for _, format := range []string{Table, JSONL, CSV} {
		if got := strings.ToLower(print(format, false)); strings.Contains(got, "alice") || strings.Contains(got, "robertina") || strings.Contains(got, "workstation77") {
			t.Errorf("%s holds a name:\n%s", format, got)
		} else if !strings.Contains(got, "p1_") || !strings.Contains(got, "d1_") {
			t.Errorf("%s holds no tokens:\n%s", format, got)
		}
		if got := print(format, true); !strings.Contains(got, `alice`) || !strings.Contains(got, "LAPTOP-ALICE") || strings.Contains(got, "p1_") {
			t.Errorf("%s does not show the names:\n%s", format, got)
		}
	}
	// One person is one token in a run, and another one in the next.
	users := func() []string {
		findings, s := scanJSON(t, rulesOn("User"), dir)
		var out []string
		for _, f := range findings {
			out = append(out, f.Matched[0].Value, f.Host)
		}
		if s.Hosts != 2 || s.TopHosts[0].Host != findings[0].Host || s.TopHosts[0].Events != 2 {
			t.Errorf("hosts: %+v", s.TopHosts)
		}
		return out
	}
	a, b := users(), users()
	if len(a) != 6 || a[0] != a[2] || a[0] == a[4] || a[1] != a[3] || a[1] == a[5] || a[0] == b[0] {
		t.Errorf("tokens %q, then %q", a, b)
	}
}

// TestMarks pins what is an identity as a whole.
func TestMarks(t *testing.T) {
	m, err := newMask(false)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		dataset, field string
		want           pia.Action
	}{
		{"win-security", "TargetUserName", pia.Tokenise},
		{"win-security", "Computer", pia.Tokenise},
		{"win-security", "CommandLine", pia.Allow},
		{"a dataset of nobody", "TargetUserName", pia.Tokenise},
		{"a dataset of nobody", "Image", pia.Allow},
		{"linux-auditd", "node", pia.Allow}, // a server is no person
	} {
		if got := m.mark(x.dataset, x.field).Action; got != x.want {
			t.Errorf("%s of %s: %v, want %v", x.field, x.dataset, got, x.want)
		}
	}
	for _, x := range []struct {
		pattern, name string
		want          bool
	}{{"a.*.c", "a.b.c", true}, {"a.*", "a.b.c", false}, {"*", "a", true}, {"a.*.c", "a.b", false}, {"a.*", "b.b", false}} {
		if pathMatches(x.pattern, x.name) != x.want {
			t.Errorf("%s on %s: not %v", x.pattern, x.name, x.want)
		}
	}
}

// rulesOn is one rule that any value of the field satisfies.
func rulesOn(field string) []detect.File {
	return []detect.File{{Path: "on.yml", Data: []byte("title: On\nid: 55555555-5555-5555-5555-555555555555\nlevel: medium\nlogsource: {product: windows, category: process_creation}\ndetection:\n  s:\n    " + field + ": '*'\n  condition: s\n")}}
}

// TestHostileText prints what would move a cursor or turn text around.
func TestHostileText(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.ndjson"), []byte(process("H\x1b[2J", "u", "evil.exe \x1b]0;x\x07 \u202egpj \u2028 \u0085 \x00 =1+1", 1)))
	for _, format := range []string{Table, JSONL, CSV} {
		var out, notes bytes.Buffer
		if _, err := Run(context.Background(), Options{Paths: []string{dir}, Rules: rules(), Out: &out, Notes: &notes, Format: format, Clear: true}); err != nil {
			t.Fatal(err)
		}
		for _, r := range out.String() + notes.String() {
			if r != '\n' && (r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x202e || r == 0x2028) {
				t.Errorf("%s prints %U", format, r)
			}
		}
		if format == JSONL {
			var f Finding
			if err := json.NewDecoder(&out).Decode(&f); err != nil || !strings.Contains(f.Matched[0].Value, "\x1b]0;x\x07 \u202egpj \u2028 \u0085 \x00") {
				t.Errorf("JSON loses the value: %q %v", f.Matched[0].Value, err)
			}
		}
	}
	for _, s := range []string{"=1+1", "+1", "-1", "@x"} {
		if cell(s) != "'"+s {
			t.Errorf("a spreadsheet takes %q for a formula", cell(s))
		}
	}
}

func TestCSV(t *testing.T) {
	dir := folder(t)
	var out bytes.Buffer
	if _, err := Run(context.Background(), Options{Paths: []string{dir}, Rules: rules(), Out: &out, Format: CSV, MinLevel: High}); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&out).ReadAll()
	if err != nil || len(rows) != 7 || rows[1][4] != "Test tool" || rows[0][0] != "time" {
		t.Errorf("%v %v", rows, err)
	}
}

// TestUnreadable gives the scan what it cannot read: each thing is counted, and
// the rest is scanned.
func TestUnreadable(t *testing.T) {
	dir := folder(t)
	write(t, filepath.Join(dir, "picture.png"), []byte("\x89PNG\r\n\x1a\n"))
	cut := gz(t, []byte(strings.Repeat(process("HOST05", "alice", "evil.exe", 7), 500)))
	write(t, filepath.Join(dir, "cut.gz"), cut[:len(cut)-20])
	write(t, filepath.Join(dir, "empty.evtx"), nil)
	write(t, filepath.Join(dir, "header.evtx"), append([]byte("ElfFile\x00"), make([]byte, 5000)...))
	write(t, filepath.Join(dir, "words.txt"), []byte("what is this\n\n\xff\xfe\n"))
	write(t, filepath.Join(dir, "bad.json"), []byte(`[{"a":1},{"b":`))
	findings, s := scanJSON(t, rules(), dir, filepath.Join(dir, "missing"))
	if s.Unreadable < 3 || !s.Partial() {
		t.Errorf("%d unreadable: %v", s.Unreadable, s.Problems)
	}
	if s.Refused == 0 || s.Unparsed == 0 {
		t.Errorf("%d lines refused, %d not understood", s.Refused, s.Unparsed)
	}
	n := 0
	for _, f := range findings {
		if filepath.Base(f.Source.Path) != "cut.gz" {
			n++
		}
	}
	if n != 12 {
		t.Errorf("%d findings in the good files, want 12", n)
	}
	var page bytes.Buffer
	if err := s.Print(&page); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Files not read", "picture.png", "missing", "Dates with the most findings", "1 refused"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the summary does not say %q:\n%s", want, page.String())
		}
	}
	if n := strings.Count(page.String(), "\n"); n > 60 {
		t.Errorf("the summary has %d lines", n)
	}
}

// TestBounds shows that a flood of hosts does not grow the summary.
func TestBounds(t *testing.T) {
	var b strings.Builder
	for i := range maxHosts + 500 {
		b.WriteString(process(fmt.Sprintf("SRV%06d", i), "x", "none", i))
	}
	path := filepath.Join(t.TempDir(), "hosts.ndjson")
	write(t, path, []byte(b.String()))
	var notes bytes.Buffer
	s, err := Run(context.Background(), Options{Paths: []string{path}, Rules: rules(), Notes: &notes, Clear: true, MinLevel: High})
	if err != nil {
		t.Fatal(err)
	}
	if s.Hosts != maxHosts+1 || s.Events != maxHosts+500 || s.Total() != 0 {
		t.Errorf("%d hosts, %d events, %d findings", s.Hosts, s.Events, s.Total())
	}
	for _, h := range s.TopHosts {
		if h.Host == others && h.Events != 500 {
			t.Errorf("%d events of other hosts", h.Events)
		}
	}
}

type broken struct{ after int }

var errDisk = errors.New("disk full")

func (b *broken) Write(p []byte) (int, error) {
	if b.after -= len(p); b.after < 0 {
		return 0, errDisk
	}
	return len(p), nil
}

func TestStops(t *testing.T) {
	dir := folder(t)
	if _, err := Run(context.Background(), Options{}); !errors.Is(err, ErrNoInput) {
		t.Errorf("no paths: %v", err)
	}
	if _, err := Run(context.Background(), Options{Paths: []string{dir}, Out: &bytes.Buffer{}, Format: "xml"}); err == nil {
		t.Error("an unknown format is accepted")
	}
	if _, err := Run(context.Background(), Options{Paths: []string{dir}, Rules: rules(), Out: &broken{after: 300}}); !errors.Is(err, errDisk) {
		t.Errorf("printer fails: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Run(ctx, Options{Paths: []string{dir}, Rules: rules()}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	var done, total int64
	if _, err := Run(context.Background(), Options{Paths: []string{dir}, Rules: rules(), Progress: func(d, t int64) { done, total = d, t }}); err != nil || done != total || total == 0 {
		t.Errorf("progress %d of %d, %v", done, total, err)
	}
}

// TestDamagedLog damages one chunk of a real log: the rest is scanned.
func TestDamagedLog(t *testing.T) {
	matches, err := filepath.Glob(filepath.Join(packs.Dir(t, "evtx-core"), "EVTX-ATTACK-SAMPLES", "*", "*.evtx"))
	if err != nil || len(matches) == 0 {
		t.Fatal("no logs", err)
	}
	var log []byte
	for _, path := range matches { // the largest
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > len(log) && len(b) < 4<<20 {
			log = b
		}
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "clean.evtx"), log)
	_, clean := scanJSON(t, rules(), dir)
	if clean.Chunks < 3 || clean.Partial() {
		t.Fatalf("the clean log: %+v", clean)
	}
	// The last byte of the second chunk's records is in a size copy.
	bad := bytes.Clone(log)
	free := int(binary.LittleEndian.Uint32(log[4096+65536+48:]))
	bad[4096+65536+free-1] ^= 0x55
	write(t, filepath.Join(dir, "clean.evtx"), bad)
	everything := []detect.File{{Path: "all.yml", Data: []byte("title: All\nid: 66666666-6666-6666-6666-666666666666\nlevel: low\nlogsource: {product: windows}\ndetection:\n  s:\n    Computer: '*'\n  condition: s\n")}}
	findings, s := scanJSON(t, everything, dir)
	if len(findings) < s.Events {
		t.Errorf("%d findings in %d events", len(findings), s.Events)
	}
	states := map[string]int{}
	for _, f := range findings {
		if (f.Source.ChunkState != "") != (*f.Source.Chunk == 1) {
			t.Fatalf("finding in chunk %d says %q of it", *f.Source.Chunk, f.Source.ChunkState)
		}
		states[f.Source.RecordState]++
	}
	if states["size-copy"] != 1 || len(states) != 2 {
		t.Errorf("states of the records: %v", states)
	}
	if s.DamagedChunks != 1 || s.Chunks != clean.Chunks || s.DamagedRecords != 1 || s.Unreadable != 0 || !s.Partial() {
		t.Errorf("damaged: %+v", s)
	}
	if s.Events != clean.Events {
		t.Errorf("%d of %d events are left", s.Events, clean.Events)
	}
	// Compressed, and without its file header, it gives the same.
	write(t, filepath.Join(dir, "clean.evtx"), gz(t, log))
	if _, packed := scanJSON(t, rules(), dir); packed.Events != clean.Events || packed.Partial() {
		t.Errorf("compressed: %+v", packed)
	}
	clear(log[:4096])
	write(t, filepath.Join(dir, "clean.evtx"), log)
	if _, headless := scanJSON(t, rules(), dir); headless.Events != clean.Events {
		t.Errorf("without header: %+v", headless)
	}
}

// TestBomb shows that a file that grows without end is stopped.
func TestBomb(t *testing.T) {
	if testing.Short() {
		t.Skip("unpacks a hundred megabytes")
	}
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	line := []byte(strings.Repeat(" ", 1<<20))
	for range 256 {
		if _, err := w.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "bomb.gz")
	write(t, path, out.Bytes())
	_, s := scanJSON(t, rules(), path)
	if s.Unreadable != 1 || !strings.Contains(s.Problems[0].Reason, collect.ErrBomb.Error()) {
		t.Errorf("%+v", s.Problems)
	}
}

func TestLevels(t *testing.T) {
	for _, name := range levelNames[1:] {
		if l, err := ParseLevel(name); err != nil || l.String() != name {
			t.Errorf("%s: %v %v", name, l, err)
		}
	}
	for _, name := range []string{"", "High", "x"} {
		if _, err := ParseLevel(name); err == nil {
			t.Errorf("%q is accepted", name)
		}
	}
	s := Summary{}
	s.Findings[Medium] = 1
	if s.Reached(High) || !s.Reached(Medium) || !s.Reached(Low) {
		t.Error("Reached")
	}
}
