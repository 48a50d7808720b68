package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/collect"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/index"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/packs"
	"github.com/counterseal/counterseal/internal/query"
)

// served is a counterseal serve in a process of its own, on fixed ports.
type served struct {
	dir        string
	http, relp int
	cmd        *exec.Cmd
	log        bytes.Buffer
}

func newServed(t *testing.T) *served {
	t.Helper()
	s := &served{dir: t.TempDir(), http: freePort(t), relp: freePort(t)}
	more := fmt.Sprintf("http: 127.0.0.1:%d\nreserve: 16MiB\nmemory: 64MiB\nlisteners:\n  - {way: relp, address: \"127.0.0.1:%d\", source: linux}\n", s.http, s.relp)
	if err := layAgency(s.dir, more); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.cmd != nil {
			s.kill()
		}
		if t.Failed() {
			t.Logf("the servers said:\n%s", s.log.String())
		}
	})
	return s
}

func (s *served) url(path string) string { return fmt.Sprintf("http://127.0.0.1:%d%s", s.http, path) }

// start starts the server and waits until it takes records.
func (s *served) start(t *testing.T) {
	t.Helper()
	s.cmd = exec.Command("counterseal", "serve", "--config", filepath.Join(s.dir, configName))
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		resp, err := http.Get(s.url("/healthz"))
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
	}
	t.Fatal("the server does not come up")
}

func (s *served) kill() {
	s.cmd.Process.Kill()
	s.cmd.Wait()
	s.cmd = nil
}

// stop ends the server as an operator does.
func (s *served) stop(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err := s.cmd.Wait()
	s.cmd = nil
	if err != nil {
		t.Fatalf("a clean stop: %v", err)
	}
}

// count asks the running server for one number.
func (s *served) count(t *testing.T, q string) int {
	t.Helper()
	var out bytes.Buffer
	code := run(t.Context(), &environment{stdout: &out, stderr: io.Discard}, []string{"search", "--config", filepath.Join(s.dir, configName), "--format", "csv", q})
	lines := strings.Fields(out.String())
	if code != 0 || len(lines) != 2 {
		return -1
	}
	n, err := strconv.Atoi(lines[1])
	if err != nil {
		t.Fatalf("%q is no count", lines[1])
	}
	return n
}

// TestKillDuringFlow kills the server again and again while one client sends by
// HTTP with keys and rsyslog forwards by RELP. Then: no acknowledged line is
// missing from evidence or index, none by HTTP is there twice, those by RELP that
// are there twice are reported, and index equals evidence.
func TestKillDuringFlow(t *testing.T) {
	t.Parallel()
	rounds := 2
	if packs.Required("kill") {
		rounds = 20
	}
	if text := os.Getenv("COUNTERSEAL_KILLS"); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil || rounds < 1 {
			t.Fatalf("COUNTERSEAL_KILLS is %q", text)
		}
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("%d rounds, seed %d", rounds, seed)
	draw := rand.New(rand.NewPCG(seed, 1))

	s := newServed(t)
	s.start(t)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var senders sync.WaitGroup
	var posted, relayed atomic.Int64 // lines acknowledged by HTTP, lines given to the sender of RELP
	senders.Go(func() { postLines(t, ctx, s, &posted) })
	feed := relpFeed(t, s.relp)
	senders.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			if err := feed.send(numberedLine(n)); err != nil {
				t.Errorf("feeding line %d: %v", n, err)
				return
			}
			relayed.Store(int64(n + 1))
			if n%20 == 19 { // as many lines in many rounds as in few: the sender must get rid of them
				time.Sleep(time.Duration(4*max(1, rounds/50)) * time.Millisecond)
			}
		}
	})
	for range rounds {
		before := posted.Load()
		time.Sleep(time.Duration(100+draw.IntN(500)) * time.Millisecond)
		for end := time.Now().Add(20 * time.Second); posted.Load() == before && time.Now().Before(end); {
			time.Sleep(time.Millisecond) // a round without flow would show nothing
		}
		s.kill()
		s.start(t)
	}
	time.Sleep(100 * time.Millisecond)
	stop()
	senders.Wait()
	if err := feed.close(); err != nil {
		t.Fatal(err)
	}
	want := int(relayed.Load())
	have := -1
	for end := time.Now().Add(time.Minute); have < want && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		have = s.count(t, "source = linux | stats count_uniq(time)")
	}
	if have != want {
		t.Errorf("%d of %d lines by RELP can be found", have, want)
	}
	s.stop(t)

	if out, _ := counterseal(t, 0, "verify", filepath.Join(s.dir, "data")); !strings.Contains(out, "nothing altered") {
		t.Error(out)
	}
	w := wholeOf(t, s.dir)
	if n := int(posted.Load()); n == 0 || want == 0 {
		t.Fatalf("%d lines by HTTP, %d by RELP: no flow", n, want)
	} else {
		t.Logf("%d lines by HTTP, %d by RELP, %d of them twice, %d reported", n, want, w.doubles("linux"), w.repeats["linux"])
	}
	for n := range int(posted.Load()) {
		if got := w.lines["app"][strconv.Itoa(n)]; got != 1 {
			t.Errorf("line %d by HTTP was acknowledged and is in evidence %d times", n, got)
		}
	}
	for n := range want {
		if w.lines["linux"][numberedText(n)] == 0 {
			t.Errorf("line %d by RELP is missing", n)
		}
	}
	if d := w.doubles("app"); d > 0 {
		t.Errorf("%d lines by HTTP are there twice", d)
	}
	if d := w.doubles("linux"); int64(d) > w.repeats["linux"] {
		t.Errorf("%d lines by RELP are there twice and %d are reported", d, w.repeats["linux"])
	}
	if out, _ := counterseal(t, 0, "doctor", "--config", filepath.Join(s.dir, configName)); w.repeats["linux"] > 0 && !strings.Contains(out, "may be there twice") {
		t.Errorf("doctor does not report the repeats:\n%s", out)
	}
}

// postLines sends numbered lines by HTTP, each batch with a key of its own, and
// sends a batch again until it is answered.
func postLines(t *testing.T, ctx context.Context, s *served, posted *atomic.Int64) {
	client := &http.Client{Timeout: 5 * time.Second}
	n := 0
	for batch := 0; ctx.Err() == nil; batch++ {
		var body bytes.Buffer
		lines := 1 + batch%17
		for i := range lines {
			fmt.Fprintf(&body, `{"time":%q,"n":"%d","who":"alice"}`+"\n", time.Now().UTC().Format(time.RFC3339Nano), n+i)
		}
		for {
			a, again, err := post(client, s.url("/api/v1/ingest/app"), "batch-"+strconv.Itoa(batch), body.Bytes())
			if again {
				time.Sleep(5 * time.Millisecond)
				continue
			}
			if err != nil || a.Accepted != lines || len(a.Errors) > 0 {
				t.Errorf("batch %d: %+v, %v", batch, a, err)
				return
			}
			break
		}
		n += lines
		posted.Store(int64(n))
	}
}

// post sends one request; again says that there was no answer, or one that asks to
// send later.
func post(client *http.Client, to, key string, body []byte) (a collect.Answer, again bool, err error) {
	req, err := http.NewRequest(http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return a, false, err
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	req.Header.Set("Idempotency-Key", key)
	resp, err := client.Do(req)
	if err != nil {
		return a, true, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable {
		return a, true, err
	}
	if resp.StatusCode != http.StatusOK {
		return a, false, fmt.Errorf("%s: %s", resp.Status, answer)
	}
	return a, false, json.Unmarshal(answer, &a)
}

func numberedText(n int) string { return fmt.Sprintf("line number %d", n) }

// numberedLine has a time of its own, so that no two lines are equal.
func numberedLine(n int) string {
	at := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Millisecond)
	return fmt.Sprintf("<13>1 %s web1 numbered 1 - - %s", at.Format("2006-01-02T15:04:05.000000Z"), numberedText(n))
}

// feeder takes lines and forwards them by RELP until they are acknowledged.
type feeder interface {
	send(line string) error
	close() error // no more lines come; what was taken is still forwarded
}

// relpFeed is a real rsyslogd where there is one, else a client of our own.
func relpFeed(t *testing.T, port int) feeder {
	t.Helper()
	bin := ""
	for _, p := range []string{"rsyslogd", "/usr/sbin/rsyslogd", "/sbin/rsyslogd"} {
		if found, err := exec.LookPath(p); err == nil && bin == "" {
			bin = found
		}
	}
	modules := append(globbed("/usr/lib*/*/rsyslog/omrelp.so"), globbed("/usr/lib*/rsyslog/omrelp.so")...)
	if bin == "" || len(modules) == 0 {
		if packs.Required("rsyslog") {
			t.Fatal("rsyslogd with omrelp is required and absent")
		}
		t.Log("rsyslogd with omrelp is not here: a RELP client of our own stands for it")
		f := &ownRELP{addr: "127.0.0.1:" + strconv.Itoa(port), lines: make(chan string, 4096), done: make(chan error, 1)}
		go f.forward()
		return f
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "rsyslog.conf")
	text := fmt.Sprintf(`
global(workDirectory="%[1]s")
module(load="imtcp")
module(load="omrelp")
input(type="imtcp" port="0" address="127.0.0.1" listenPortFileName="%[1]s/port")
template(name="raw" type="string" string="%%rawmsg%%")
action(type="omrelp" target="127.0.0.1" port="%[2]d" template="raw" action.resumeRetryCount="-1" action.resumeInterval="1"
  queue.type="linkedList" queue.filename="relay" queue.size="100000" queue.saveOnShutdown="on")
`, dir, port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command(bin, "-n", "-f", conf, "-i", filepath.Join(dir, "pid"))
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("rsyslogd: %s", out.String())
		}
	})
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(dir, "port"))
		if err != nil || len(b) == 0 {
			continue
		}
		if c, err := net.Dial("tcp", "127.0.0.1:"+strings.TrimSpace(string(b))); err == nil {
			return lineConn{c}
		}
	}
	t.Fatal("rsyslogd does not come up")
	return nil
}

func globbed(pattern string) []string {
	found, _ := filepath.Glob(pattern) // the pattern is right
	return found
}

type lineConn struct{ net.Conn }

func (c lineConn) send(line string) error { _, err := io.WriteString(c, line+"\n"); return err }
func (c lineConn) close() error           { return c.Close() }

// ownRELP keeps what is not acknowledged and sends it again after a break.
type ownRELP struct {
	addr  string
	lines chan string
	done  chan error
}

func (f *ownRELP) send(line string) error { f.lines <- line; return nil }
func (f *ownRELP) close() error           { close(f.lines); return <-f.done }

func (f *ownRELP) forward() {
	var held []string
	for line := range f.lines {
		held = append(held[:0], line)
		for more := true; more && len(held) < 100; {
			select {
			case l, ok := <-f.lines:
				if more = ok; ok {
					held = append(held, l)
				}
			default:
				more = false
			}
		}
		for end := time.Now().Add(time.Minute); f.deliver(held) != nil; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				f.done <- errors.New("the server takes no line")
				return
			}
		}
	}
	f.done <- nil
}

// deliver opens a session for a few lines; an error says that none or some of them
// were taken.
func (f *ownRELP) deliver(lines []string) error {
	conn, err := net.DialTimeout("tcp", f.addr, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	c := relpClient{conn: conn, in: newRELPReader(conn)}
	if err := c.command("open", []byte("relp_version=0\nrelp_software=test\ncommands=syslog")); err != nil {
		return err
	}
	if err := c.await(0); err != nil {
		return err
	}
	for _, l := range lines {
		if err := c.command("syslog", []byte(l)); err != nil {
			return err
		}
	}
	if err := c.await(0); err != nil {
		return err
	}
	if err := c.command("close", nil); err != nil {
		return nil // every line is acknowledged
	}
	c.await(0)
	return nil
}

// whole is what a data directory holds after its server has stopped.
type whole struct {
	lines   map[string]map[string]int // source, what a test numbered, how often in evidence
	repeats map[string]int64
}

func (w *whole) doubles(source string) int {
	n := 0
	for _, times := range w.lines[source] {
		n += times - 1
	}
	return n
}

// wholeOf reads evidence and index and holds one against the other: the same Refs,
// each once, with the same line.
func wholeOf(t *testing.T, dir string) *whole {
	t.Helper()
	cfg, err := readConfig(filepath.Join(dir, configName))
	if err != nil {
		t.Fatal(err)
	}
	s, err := openServer(t.Context(), cfg, serverOptions{log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			s.close()
		}
	}()
	w := &whole{lines: map[string]map[string]int{}}
	q, err := query.Parse("kind in (event, unparsed)")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	err = s.pipe.Index().Query(t.Context(), q, index.Scope{}, 0, func(r index.Row) bool {
		if _, twice := rows[r.Ref]; twice {
			t.Errorf("%s is in the index twice", r.Ref)
		}
		rows[r.Ref] = ""
		for _, a := range r.Native {
			if a.Name == "n" || a.Name == "msg" {
				rows[r.Ref] = a.Value
			}
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if w.repeats, err = s.pipe.State().Repeats(t.Context()); err != nil {
		t.Fatal(err)
	}
	closed = true
	if err := s.close(); err != nil {
		t.Fatal(err)
	}

	keys, err := keyring.Open(cfg.Data)
	if err != nil {
		t.Fatal(err)
	}
	store, err := evidence.Open(evidence.Options{Dir: cfg.Data, Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	for _, comp := range store.Compartments(evidence.Events) {
		_, err := store.Read(t.Context(), evidence.Events, comp, evidence.Position{}, func(ref event.Ref, rec []byte) error {
			en, err := event.Decode(rec)
			if err != nil || en.Event == nil {
				return err
			}
			line := ""
			for _, name := range []string{"n", "msg"} {
				if f, ok := en.Event.Get(name); ok {
					line = string(f.Value)
				}
			}
			if w.lines[en.Event.Source] == nil {
				w.lines[en.Event.Source] = map[string]int{}
			}
			w.lines[en.Event.Source][line]++
			if have, ok := rows[ref.String()]; !ok || have != line {
				t.Errorf("%s is %q in evidence and %q in the index (%v)", ref, line, have, ok)
			}
			delete(rows, ref.String())
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for ref := range rows {
		t.Errorf("%s is in the index and not in evidence", ref)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	return w
}
