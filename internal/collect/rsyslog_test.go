package collect

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/packs"
)

// rsyslog starts a real rsyslogd that takes lines on a port and forwards them with
// the given action. It returns a connection to write lines to.
func rsyslog(t *testing.T, global, action string, modules ...string) net.Conn {
	t.Helper()
	missing := func(what string) {
		if packs.Required("rsyslog") {
			t.Fatalf("%s is required and absent", what)
		}
		t.Skipf("needs %s, which is not here", what)
	}
	bin, err := exec.LookPath("rsyslogd")
	if err != nil {
		for _, p := range []string{"/usr/sbin/rsyslogd", "/sbin/rsyslogd"} {
			if _, serr := os.Stat(p); serr == nil {
				bin, err = p, nil
			}
		}
	}
	if err != nil {
		missing("rsyslogd")
	}
	for _, m := range modules {
		if found, _ := filepath.Glob("/usr/lib*/*/rsyslog/" + m + ".so"); len(found) > 0 {
			continue
		}
		if found, _ := filepath.Glob("/usr/lib*/rsyslog/" + m + ".so"); len(found) == 0 {
			missing("the rsyslog module " + m)
		}
	}
	dir := t.TempDir()
	conf := fmt.Sprintf(`
global(workDirectory="%[1]s" maxMessageSize="64k" %[2]s)
module(load="imtcp")
module(load="omrelp")
input(type="imtcp" port="0" address="127.0.0.1" listenPortFileName="%[1]s/port")
template(name="raw" type="string" string="%%rawmsg%%")
%[3]s
`, dir, global, action)
	if !strings.Contains(action, "omrelp") {
		conf = strings.Replace(conf, "module(load=\"omrelp\")\n", "", 1)
	}
	file := filepath.Join(dir, "rsyslog.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd := exec.Command(bin, "-n", "-f", file, "-i", filepath.Join(dir, "pid"))
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
	var port []byte
	until(t, "the port of rsyslogd", func() bool {
		port, err = os.ReadFile(filepath.Join(dir, "port"))
		return err == nil && len(port) > 0
	})
	var c net.Conn
	until(t, "a connection to rsyslogd", func() bool {
		c, err = net.Dial("tcp", "127.0.0.1:"+strings.TrimSpace(string(port)))
		return err == nil
	})
	t.Cleanup(func() { c.Close() })
	return c
}

func numbered(i int) string {
	return fmt.Sprintf("<38>1 2024-09-02T10:11:12.%06dZ web1 sshd %d - - line number %d", i, i, i)
}

// wantNumbered checks that every line is there, and returns how often lines came
// again.
func wantNumbered(t *testing.T, e *evidence, n int) (again int) {
	t.Helper()
	until(t, "all lines", func() bool {
		seen := make(map[string]bool)
		for _, l := range e.lines() {
			seen[l] = true
		}
		return len(seen) == n
	})
	lines := e.lines()
	seen := make(map[string]int, n)
	for _, l := range lines {
		seen[l]++
	}
	for i := range n {
		if seen[numbered(i)] == 0 {
			t.Fatalf("line %d is missing or changed; the first line is %q", i, lines[0])
		}
	}
	return len(lines) - n
}

func TestRsyslogTCP(t *testing.T) {
	for _, framing := range []string{"traditional", "octet-counted"} {
		t.Run(framing, func(t *testing.T) {
			var e evidence
			l, _ := tcp(t, &e, Options{})
			c := rsyslog(t, "", fmt.Sprintf(`action(type="omfwd" target="127.0.0.1" port="%d" protocol="tcp" TCP_Framing="%s" template="raw")`, l.Addr().(*net.TCPAddr).Port, framing))
			for i := range 2000 {
				fmt.Fprintln(c, numbered(i))
			}
			if again := wantNumbered(t, &e, 2000); again != 0 {
				t.Errorf("%d lines twice", again)
			}
		})
	}
}

func TestRsyslogTLS(t *testing.T) {
	files, _, _ := certs(t)
	dir := filepath.Dir(files.Cert)
	var e evidence
	l, _ := tcp(t, &e, Options{TLS: &files})
	c := rsyslog(t,
		fmt.Sprintf(`DefaultNetstreamDriver="ossl" DefaultNetstreamDriverCAFile="%[1]s/ca.pem" DefaultNetstreamDriverCertFile="%[1]s/client.pem" DefaultNetstreamDriverKeyFile="%[1]s/client.key"`, dir),
		fmt.Sprintf(`action(type="omfwd" target="127.0.0.1" port="%d" protocol="tcp" TCP_Framing="octet-counted" template="raw" StreamDriver="ossl" StreamDriverMode="1" StreamDriverAuthMode="x509/certvalid")`, l.Addr().(*net.TCPAddr).Port),
		"lmnsd_ossl")
	for i := range 200 {
		fmt.Fprintln(c, numbered(i))
	}
	wantNumbered(t, &e, 200)
}

func TestRsyslogUDP(t *testing.T) {
	var e evidence
	l, err := ListenUDP("127.0.0.1:0", Options{Sink: e.sink, Source: "net"})
	if err != nil {
		t.Fatal(err)
	}
	running(t, l.Run)
	c := rsyslog(t, "", fmt.Sprintf(`action(type="omfwd" target="127.0.0.1" port="%d" protocol="udp" template="raw")`, l.Addr().(*net.UDPAddr).Port))
	for i := range 100 {
		fmt.Fprintln(c, numbered(i))
	}
	wantNumbered(t, &e, 100)
}

// TestRsyslogRELP breaks the session under the flow, again and again: no line is
// lost, and every line that came twice is marked.
func TestRsyslogRELP(t *testing.T) {
	var e evidence
	e.before = func(*event.Batch) error { time.Sleep(2 * time.Millisecond); return nil } // a disk
	l, _ := relp(t, &e, Options{})
	c := rsyslog(t, "", fmt.Sprintf(`action(type="omrelp" target="127.0.0.1" port="%d" template="raw" action.resumeRetryCount="-1" action.resumeInterval="1")`, l.Addr().(*net.TCPAddr).Port), "omrelp")
	const n, breaks = 6000, 2
	next := 0
	for b := range breaks + 1 {
		for ; next < (b+1)*n/(breaks+1); next++ {
			fmt.Fprintln(c, numbered(next))
		}
		if b < breaks {
			until(t, "lines under way", func() bool { return len(e.lines()) > b*n/(breaks+1)+50 })
			l.mu.Lock()
			for c := range l.conns {
				c.(*net.TCPConn).SetLinger(0)
				c.Close()
			}
			l.mu.Unlock()
		}
	}
	wantNumbered(t, &e, n)
	again, marked := 0, 0
	until(t, "each line that came twice marked", func() bool {
		repeats := l.Stats().Repeats
		e.mu.Lock()
		defer e.mu.Unlock()
		again, marked = -n, 0
		for _, b := range e.batches {
			again += len(b.Frames)
			for _, f := range b.Frames {
				if f.Repeat {
					marked++
				}
			}
		}
		return again == marked && uint64(marked) == repeats
	})
	if l.Stats().Breaks == 0 {
		t.Error("no session broke")
	}
	t.Logf("%d lines, %d breaks, %d came twice", n, l.Stats().Breaks, again)
}
