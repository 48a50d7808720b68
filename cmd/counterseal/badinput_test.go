package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/collect"
	"github.com/counterseal/counterseal/internal/packs"
)

// inProcess is a server with its listeners in this process, with a clock of its
// own. stop ends it cleanly.
func inProcess(t *testing.T, dir string, now func() time.Time, log io.Writer) (s *server, stop func()) {
	t.Helper()
	cfg, err := readConfig(filepath.Join(dir, configName))
	if err != nil {
		t.Fatal(err)
	}
	s, err = openServer(context.Background(), cfg, serverOptions{log: slog.New(slog.NewTextHandler(log, nil)), now: now})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.listen(); err != nil {
		t.Fatal(err)
	}
	end := s.background(context.Background())
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		if err := end(); err != nil {
			t.Error(err)
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return s, stop
}

// give posts numbered lines and returns the answer.
func give(t *testing.T, s *server, key string, lines ...string) (int, collect.Answer) {
	t.Helper()
	r := httptest.NewRequest("POST", "http://localhost/api/v1/ingest/app", strings.NewReader(strings.Join(lines, "\n")))
	r.Header.Set("Content-Type", "application/x-ndjson")
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	w := httptest.NewRecorder()
	s.web.Loopback().ServeHTTP(w, r)
	var a collect.Answer
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	return w.Code, a
}

// TestClockJumpsOverRestarts: a clock that is 200 days ahead for one life of the
// process, and back in the next, loses and doubles nothing.
func TestClockJumpsOverRestarts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := layAgency(dir, "http: 127.0.0.1:0\nreserve: 16MiB\nmemory: 64MiB\n"); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	n := 0
	for life, shift := range []time.Duration{0, 200 * 24 * time.Hour, 0, -200 * 24 * time.Hour, time.Minute} {
		// In the past no assessment is in force: nothing is taken, nothing is lost.
		open := shift >= 0
		var log bytes.Buffer
		s, stop := inProcess(t, dir, func() time.Time { return begin.Add(shift).Add(time.Since(begin)) }, &log)
		for i := range 10 {
			line := fmt.Sprintf(`{"time":%q,"n":"%d"}`, begin.Add(time.Duration(n)*time.Second).Add(-time.Hour).UTC().Format(time.RFC3339), n)
			code, a := give(t, s, fmt.Sprintf("life-%d-%d", life, i), line)
			switch {
			case open && (code != http.StatusOK || a.Accepted != 1):
				t.Fatalf("life %d, line %d: %d %+v", life, i, code, a)
			case !open && code != http.StatusForbidden:
				t.Fatalf("life %d, line %d: %d %+v", life, i, code, a)
			case open:
				n++
			}
		}
		if open {
			// A repeat inside this life answers as at first.
			line := fmt.Sprintf(`{"time":%q,"n":"%d"}`, begin.Add(time.Duration(n-1)*time.Second).Add(-time.Hour).UTC().Format(time.RFC3339), n-1)
			if code, a := give(t, s, fmt.Sprintf("life-%d-9", life), line); code != http.StatusOK || !a.Repeated {
				t.Errorf("life %d, a repeat: %d %+v", life, code, a)
			}
		}
		stop()
		if strings.Contains(log.String(), "level=ERROR") {
			t.Errorf("life %d: %s", life, log.String())
		}
	}
	w := wholeOf(t, dir)
	for i := range n {
		if got := w.lines["app"][strconv.Itoa(i)]; got != 1 {
			t.Errorf("line %d is there %d times", i, got)
		}
	}
	if out, _ := counterseal(t, 0, "verify", filepath.Join(dir, "data")); !strings.Contains(out, "nothing altered") {
		t.Error(out)
	}
	out, _ := counterseal(t, 0, "rebuild", "--config", filepath.Join(dir, configName))
	if !strings.Contains(out, "rebuilt index and state") {
		t.Error(out)
	}
	wholeOf(t, dir)
}

// TestLongSyslogLine: a line of 10 MB by each way of syslog costs its neighbours
// nothing, is counted, and no part of it becomes a record.
func TestLongSyslogLine(t *testing.T) {
	dir := t.TempDir()
	more := "http: 127.0.0.1:0\nreserve: 16MiB\nmemory: 64MiB\nlisteners:\n"
	for _, way := range []string{"syslog-tcp", "relp", "syslog-udp"} {
		more += fmt.Sprintf("  - {way: %s, address: \"127.0.0.1:0\", source: linux}\n", way)
	}
	if err := layAgency(dir, more); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s, stop := inProcess(t, dir, time.Now, &log)
	long := numberedLine(1) + strings.Repeat(" planted", 10<<20/8)

	tcp, err := net.Dial("tcp", s.listeners[0].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []string{numberedLine(0), long, numberedLine(2)} {
		if _, err := io.WriteString(tcp, l+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	if err := tcp.Close(); err != nil {
		t.Fatal(err)
	}
	relp, err := net.Dial("tcp", s.listeners[1].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer relp.Close()
	c := relpClient{conn: relp, in: newRELPReader(relp)}
	if err := c.command("open", []byte("relp_version=0\nrelp_software=test\ncommands=syslog")); err != nil {
		t.Fatal(err)
	}
	for _, l := range []string{numberedLine(10), long, numberedLine(12)} {
		if err := c.command("syslog", []byte(l)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.await(0); err != nil {
		t.Fatal(err)
	}
	udp, err := net.Dial("udp", s.listeners[2].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for _, l := range []string{numberedLine(20), numberedLine(21) + strings.Repeat(" much", 12_000), numberedLine(22)} {
		if _, err := io.WriteString(udp, l); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []uint64{2, 2, 3} {
		for end := time.Now().Add(10 * time.Second); s.listeners[i].Stats().Frames < want && time.Now().Before(end); {
			time.Sleep(5 * time.Millisecond)
		}
		if st := s.listeners[i].Stats(); st.Frames != want || i < 2 && st.Refused != 1 {
			t.Errorf("way %d: %+v, want %d frames and one refused", i, st, want)
		}
	}
	stop()
	w := wholeOf(t, dir)
	for _, n := range []int{0, 2, 10, 12, 20, 22} {
		if w.lines["linux"][numberedText(n)] != 1 {
			t.Errorf("line %d is there %d times", n, w.lines["linux"][numberedText(n)])
		}
	}
	if len(w.lines["linux"]) != 7 {
		t.Errorf("%d lines, want 7", len(w.lines["linux"]))
	}
	if strings.Contains(log.String(), "planted") {
		t.Error("the log of the server shows what a line held")
	}
}

// tmpfs mounts a small file system of its own, or skips.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size+",mode=700", "counterseal-test", dir).CombinedOutput()
	if err != nil {
		if packs.Required("tmpfs") {
			t.Fatalf("a tmpfs is required: %v: %s", err, out)
		}
		t.Skip("needs the right to mount a tmpfs")
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

// TestFullDisk fills the data disk, first by records, up to the reserve, then by
// somebody else, to the last byte. Each time the senders are told, nothing that was
// acknowledged is lost, and with room again it goes on by itself.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	data := tmpfs(t, "64m")
	s := newServed(t)
	conf := fmt.Sprintf("data: %s\npias: [pias]\nhttp: 127.0.0.1:%d\nreserve: 24MiB\nmemory: 192MiB\n", filepath.Join(data, "data"), s.http)
	if err := os.WriteFile(filepath.Join(s.dir, configName), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start(t)
	client := &http.Client{Timeout: 20 * time.Second}
	n, batch := 0, 0
	noise := make([]byte, 1500)
	// flow sends batches until one is refused or the bound is reached.
	flow := func(bound int) (refused int) {
		for range bound {
			var body bytes.Buffer
			const lines = 50
			for i := range lines {
				for k := range noise { // text that does not compress to nothing
					noise[k] = 'a' + byte((n+i)*7919*(k+1)>>5)%26
				}
				fmt.Fprintf(&body, `{"n":"%d","text":"%s"}`+"\n", n+i, noise)
			}
			req, err := http.NewRequest("POST", s.url("/api/v1/ingest/app"), &body)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Idempotency-Key", "batch-"+strconv.Itoa(batch))
			req.Header.Set("Content-Type", "application/x-ndjson")
			batch++
			resp, err := client.Do(req)
			if err != nil {
				t.Logf("batch %d: %v", batch, err)
				return 0
			}
			answer, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				if resp.StatusCode == http.StatusServiceUnavailable && (!bytes.Contains(answer, []byte(`"code":"disk_low"`)) || resp.Header.Get("Retry-After") == "") {
					t.Errorf("a full disk answers %s: %s", resp.Status, answer)
				}
				return resp.StatusCode
			}
			n += lines
		}
		return 200
	}
	filler := func(size int) string {
		t.Helper()
		path := filepath.Join(data, "filler")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		block := make([]byte, 1<<16)
		for written := 0; written < size; written += len(block) {
			if _, err := f.Write(block); err != nil {
				break // full to the last byte
			}
		}
		if err := f.Close(); err != nil {
			t.Log(err)
		}
		return path
	}
	health := func() int {
		resp, err := client.Get(s.url("/healthz"))
		if err != nil {
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	waitHealth := func(want int) {
		t.Helper()
		for end := time.Now().Add(15 * time.Second); health() != want; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("health is %d, want %d", health(), want)
			}
		}
	}

	if code := flow(20); code != 200 || n != 1000 {
		t.Fatalf("with room: %d after %d lines", code, n)
	}
	// Up to the reserve.
	path := filler(64<<20 - 30<<20)
	if code := flow(2000); code != http.StatusServiceUnavailable {
		t.Fatalf("below the reserve: %d after %d lines", code, n)
	}
	waitHealth(503)
	var out bytes.Buffer
	if code := run(t.Context(), &environment{stdout: &out, stderr: io.Discard}, []string{"doctor", "--config", filepath.Join(s.dir, configName)}); code != 1 || !strings.Contains(out.String(), "fail  disk") {
		t.Errorf("doctor: exit %d\n%s", code, out.String())
	}
	have := -1
	for end := time.Now().Add(15 * time.Second); have != n && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		have = s.count(t, "source = app | stats count()")
	}
	if have != n {
		t.Errorf("%d of %d lines can be found while the disk is full", have, n)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	waitHealth(200)
	if code := flow(5); code != 200 {
		t.Fatalf("with room again: %d", code)
	}

	// To the last byte, by somebody else, while records flow.
	done := make(chan string, 1)
	go func() { done <- filler(64 << 20) }()
	code := flow(2000)
	path = <-done
	if code == 200 {
		t.Fatal("a disk without a free byte takes records")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if health() == 0 { // the index may have given up; evidence has not
		t.Log("the server ended on the full disk")
		s.cmd.Wait()
		s.cmd = nil
		s.start(t)
	}
	waitHealth(200)
	if code := flow(3); code != 200 {
		t.Fatalf("after it all: %d", code)
	}
	s.stop(t)
	w := wholeOf(t, s.dir)
	for i := range n {
		if w.lines["app"][strconv.Itoa(i)] == 0 {
			t.Fatalf("line %d was acknowledged and is missing", i)
		}
	}
	if out, _ := counterseal(t, 0, "verify", filepath.Join(data, "data")); !strings.Contains(out, "nothing altered") {
		t.Error(out)
	}
	t.Logf("%d lines acknowledged", n)
}
