package collect

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/counterseal/counterseal/internal/event"
)

func dial(t *testing.T, network string, a net.Addr) net.Conn {
	t.Helper()
	c, err := net.Dial(network, a.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func tcp(t *testing.T, e *evidence, o Options) (*TCP, func()) {
	t.Helper()
	o.Gap, o.Source = e.gap, "net"
	if o.Sink == nil {
		o.Sink = e.sink
	}
	l, err := ListenTCP("127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	return l, running(t, l.Run)
}

func TestTCP(t *testing.T) {
	var e evidence
	l, stop := tcp(t, &e, Options{})
	c := dial(t, "tcp", l.Addr())
	big := strings.Repeat("q", 10<<20) // a line of 10 MB costs itself alone
	fmt.Fprintf(c, "<13>one\n5 <14>2<15>three\n%s\n<16>four\n%d %s<17>five\n", big, 9_000_000, "<"+big[:8_999_999])
	c.Close()
	want := []string{"<13>one", "<14>2", "<15>three", "<16>four", "<17>five"}
	until(t, "five lines", func() bool { return len(e.lines()) == len(want) })
	if diff := cmp.Diff(want, e.lines()); diff != "" {
		t.Error(diff)
	}
	if got := e.errors(); len(got) != 2 || got[0].Code != CodeTooLarge {
		t.Errorf("refused lines: %v", got)
	}
	until(t, "the session's end", func() bool { return l.Stats().Open == 0 })
	if g := e.gapsNow(); len(g) != 0 {
		t.Errorf("a clean end is no gap: %v", g)
	}
	st := l.Stats()
	if st.Frames != 5 || st.Refused != 2 || st.Sessions != 1 || st.Breaks != 0 {
		t.Errorf("%+v", st)
	}
	b := e.batches[0]
	if b.Source != "net" || b.Way != WayTCP || b.Peer != "127.0.0.1" || b.Conn == "" || b.Received.IsZero() {
		t.Errorf("batch %+v", b)
	}
	stop()
}

func TestTCPBreakIsAGap(t *testing.T) {
	var e evidence
	l, _ := tcp(t, &e, Options{})
	c := dial(t, "tcp", l.Addr()).(*net.TCPConn)
	fmt.Fprintf(c, "<13>one\n<13>two\n")
	until(t, "two lines", func() bool { return len(e.lines()) == 2 })
	c.SetLinger(0) // a reset
	c.Close()
	until(t, "a gap", func() bool { return len(e.gapsNow()) == 1 })
	if g := e.gapsNow()[0]; g.Kind != GapConnection || g.From != 2 || g.Source != "net" || g.Stream == "" {
		t.Errorf("%+v", g)
	}
	c = dial(t, "tcp", l.Addr()).(*net.TCPConn)
	fmt.Fprintf(c, "7 <13>one99 <13>cut")
	c.Close()
	until(t, "the second gap", func() bool { return len(e.gapsNow()) == 2 })
	if diff := cmp.Diff([]string{"<13>one", "<13>two", "<13>one"}, e.lines()); diff != "" {
		t.Error(diff)
	}
}

// A sender that drips bytes is cut; one that is quiet between lines is not.
func TestTCPSlowSender(t *testing.T) {
	var e evidence
	l, _ := tcp(t, &e, Options{FrameTimeout: 150 * time.Millisecond})
	quiet, slow := dial(t, "tcp", l.Addr()), dial(t, "tcp", l.Addr())
	fmt.Fprintf(quiet, "<13>before\n")
	closed := make(chan struct{})
	go func() {
		io.Copy(io.Discard, slow)
		close(closed)
	}()
	start := time.Now()
	for cut := false; !cut; {
		io.WriteString(slow, "x")
		select {
		case <-closed:
			cut = true
		case <-time.After(20 * time.Millisecond):
		}
		if time.Since(start) > 5*time.Second {
			t.Fatal("a dripping sender is not cut")
		}
	}
	fmt.Fprintf(quiet, "<13>after\n")
	until(t, "the quiet sender's second line", func() bool { return len(e.lines()) == 2 })
	if g := e.gapsNow(); len(g) != 1 {
		t.Errorf("gaps: %v", g)
	}
}

// While the sink waits nothing is read, and a busy sink costs no line.
func TestTCPBackPressure(t *testing.T) {
	var e evidence
	var tries atomic.Int32
	e.before = func(*event.Batch) error {
		if tries.Add(1) < 4 {
			return &event.Refusal{Code: "busy", Reason: "full", After: time.Millisecond}
		}
		return nil
	}
	l, _ := tcp(t, &e, Options{})
	c := dial(t, "tcp", l.Addr())
	for i := range 3000 {
		fmt.Fprintf(c, "<13>line %d\n", i)
	}
	c.Close()
	until(t, "all lines", func() bool { return len(e.lines()) == 3000 })
	for i, got := range e.lines() {
		if got != fmt.Sprintf("<13>line %d", i) {
			t.Fatalf("line %d is %q", i, got)
		}
	}
	for _, b := range e.batches {
		if len(b.Frames) > batchFrames {
			t.Errorf("a batch of %d", len(b.Frames))
		}
	}
}

// A source without a PIA is not drained into nothing: its connection ends.
func TestTCPRefused(t *testing.T) {
	var e evidence
	e.before = func(*event.Batch) error { return &event.Refusal{Code: "pia_missing", Reason: "no PIA"} }
	l, _ := tcp(t, &e, Options{})
	c := dial(t, "tcp", l.Addr())
	fmt.Fprintf(c, "<13>secret\n")
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection stays open: %v", err)
	}
	until(t, "the count", func() bool { return l.Stats().Refused == 1 && l.Stats().Breaks == 1 })
}

func TestTooManyConnections(t *testing.T) {
	var e evidence
	l, _ := tcp(t, &e, Options{MaxConns: 1})
	c := dial(t, "tcp", l.Addr())
	fmt.Fprintf(c, "<13>first\n")
	until(t, "the first", func() bool { return len(e.lines()) == 1 })
	d := dial(t, "tcp", l.Addr())
	d.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := d.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the second stays open: %v", err)
	}
	if l.Stats().TurnedAway != 1 {
		t.Errorf("%+v", l.Stats())
	}
}

// certs writes a certificate authority, a server's and a client's certificate.
func certs(t *testing.T) (f TLSFiles, ca *x509.CertPool, client tls.Certificate) {
	t.Helper()
	dir := t.TempDir()
	newKey := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	caKey := newKey()
	caTmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, caTmpl, caTmpl, &caKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	caCert, err := x509.ParseCertificate(caDER)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	leaf := func(serial int64, usage x509.ExtKeyUsage) ([]byte, []byte) {
		k := newKey()
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{usage}, KeyUsage: x509.KeyUsageDigitalSignature,
		}, caCert, &k.PublicKey, caKey)
		if err != nil {
			t.Fatal(err)
		}
		kb, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return der, kb
	}
	sc, sk := leaf(2, x509.ExtKeyUsageServerAuth)
	cc, ck := leaf(3, x509.ExtKeyUsageClientAuth)
	f = TLSFiles{Cert: write("server.pem", "CERTIFICATE", sc), Key: write("server.key", "PRIVATE KEY", sk), ClientCA: write("ca.pem", "CERTIFICATE", caDER)}
	client, err = tls.LoadX509KeyPair(write("client.pem", "CERTIFICATE", cc), write("client.key", "PRIVATE KEY", ck))
	if err != nil {
		t.Fatal(err)
	}
	ca = x509.NewCertPool()
	ca.AddCert(caCert)
	return f, ca, client
}

func TestTLS(t *testing.T) {
	files, ca, client := certs(t)
	var e evidence
	l, _ := tcp(t, &e, Options{TLS: &files})
	good := &tls.Config{RootCAs: ca, ServerName: "localhost", Certificates: []tls.Certificate{client}}
	c, err := tls.Dial("tcp", l.Addr().String(), good)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "7 <13>one8 <13>two\n")
	c.Close()
	until(t, "two lines", func() bool { return len(e.lines()) == 2 })
	if b := e.batches[0]; b.Way != WayTLS {
		t.Errorf("way %q", b.Way)
	}
	// Without a client certificate, and with an old protocol, nothing comes in.
	for name, conf := range map[string]*tls.Config{
		"no certificate": {RootCAs: ca, ServerName: "localhost"},
		"TLS 1.2":        {RootCAs: ca, ServerName: "localhost", Certificates: []tls.Certificate{client}, MaxVersion: tls.VersionTLS12},
	} {
		c, err := tls.Dial("tcp", l.Addr().String(), conf)
		if err == nil {
			fmt.Fprintf(c, "7 <13>bad")
			c.SetReadDeadline(time.Now().Add(5 * time.Second))
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	until(t, "all sessions closed", func() bool { return l.Stats().Open == 0 })
	if n := len(e.lines()); n != 2 {
		t.Errorf("%d lines", n)
	}
}

func TestUDP(t *testing.T) {
	var e evidence
	l, err := ListenUDP("127.0.0.1:0", Options{Sink: e.sink, Gap: e.gap, Source: "net", MaxMessage: 4096})
	if err != nil {
		t.Fatal(err)
	}
	stop := running(t, l.Run)
	c := dial(t, "udp", l.Addr())
	for i := range 20 {
		fmt.Fprintf(c, "<13>datagram %d\n\x00", i)
	}
	c.Write(bytes.Repeat([]byte("x"), 5000))
	c.Write([]byte("\n")) // nothing in it
	until(t, "all datagrams", func() bool { return len(e.lines()) == 20 && len(e.errors()) == 1 })
	for i, got := range e.lines() {
		if got != fmt.Sprintf("<13>datagram %d", i) {
			t.Errorf("%d is %q", i, got)
		}
	}
	if b := e.batches[0]; b.Way != WayUDP || b.Peer != "127.0.0.1" || b.Source != "net" {
		t.Errorf("%+v", b)
	}
	stop()
}

// The kernel's counter of drops becomes a gap.
func TestUDPDrops(t *testing.T) {
	var e evidence
	block := make(chan struct{})
	e.before = func(*event.Batch) error { <-block; return nil }
	l, err := ListenUDP("127.0.0.1:0", Options{Sink: e.sink, Gap: e.gap})
	if err != nil {
		t.Fatal(err)
	}
	l.conn.SetReadBuffer(4096)
	if err := countDrops(l.conn); err != nil {
		t.Fatal(err)
	}
	c := dial(t, "udp", l.Addr())
	msg := bytes.Repeat([]byte("d"), 1000)
	for range 200 { // nobody reads yet
		c.Write(msg)
	}
	stop := running(t, l.Run)
	close(block)
	deadline := time.Now().Add(5 * time.Second)
	for len(e.gapsNow()) == 0 && time.Now().Before(deadline) {
		c.Write(msg)
		time.Sleep(5 * time.Millisecond)
	}
	g := e.gapsNow()
	if len(g) == 0 {
		if _, err := os.Stat("/proc/net/udp"); err != nil {
			t.Skip("needs a kernel that counts dropped datagrams")
		}
		t.Fatal("no gap")
	}
	for range 20 { // these are not dropped, and the counter stands on them too
		c.Write(msg)
		time.Sleep(time.Millisecond)
	}
	stop()
	g = e.gapsNow()
	var sum, last uint64
	for _, x := range g {
		if x.Kind != GapDrops || x.From != last || x.To <= x.From {
			t.Errorf("%+v behind %d", x, last)
		}
		sum, last = sum+x.To-x.From, x.To
	}
	if l.Stats().Drops != sum {
		t.Errorf("%d drops in gaps, %+v", sum, l.Stats())
	}
}

// relpClient speaks RELP as the protocol says.
type relpClient struct {
	t *testing.T
	c net.Conn
	r *bufio.Reader
	n int
}

func newRELP(t *testing.T, a net.Addr) *relpClient {
	c := dial(t, "tcp", a)
	return &relpClient{t: t, c: c, r: bufio.NewReader(c)}
}

func (r *relpClient) send(command, data string) int {
	r.n++
	if data == "" {
		fmt.Fprintf(r.c, "%d %s 0\n", r.n, command)
	} else {
		fmt.Fprintf(r.c, "%d %s %d %s\n", r.n, command, len(data), data)
	}
	return r.n
}

func (r *relpClient) recv() (txnr int, command, data string) {
	r.t.Helper()
	r.c.SetReadDeadline(time.Now().Add(10 * time.Second))
	var n int
	if _, err := fmt.Fscanf(r.r, "%d %s %d", &txnr, &command, &n); err != nil {
		r.t.Fatalf("reading an answer: %v", err)
	}
	if n > 0 {
		r.r.ReadByte()
		b := make([]byte, n)
		if _, err := io.ReadFull(r.r, b); err != nil {
			r.t.Fatal(err)
		}
		data = string(b)
	}
	if c, err := r.r.ReadByte(); err != nil || c != '\n' {
		r.t.Fatalf("no line feed: %q %v", c, err)
	}
	return txnr, command, data
}

const relpHello = "relp_version=0\nrelp_software=test\ncommands=syslog"

func (r *relpClient) open() {
	r.t.Helper()
	r.send("open", relpHello)
	if n, c, d := r.recv(); n != 1 || c != "rsp" || !strings.HasPrefix(d, "200 OK\nrelp_version=0\n") || !strings.Contains(d, "commands=syslog") {
		r.t.Fatalf("open answered %d %s %q", n, c, d)
	}
}

func relp(t *testing.T, e *evidence, o Options) (*RELP, func()) {
	t.Helper()
	o.Sink, o.Gap, o.Source = e.sink, e.gap, "net"
	l, err := ListenRELP("127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	return l, running(t, l.Run)
}

func TestRELP(t *testing.T) {
	var e evidence
	l, _ := relp(t, &e, Options{MaxMessage: 4096})
	c := newRELP(t, l.Addr())
	c.open()
	for i := range 10 {
		c.send("syslog", fmt.Sprintf("<13>line %d", i))
	}
	c.send("syslog", strings.Repeat("x", 100_000)) // costs itself
	c.send("syslog", "<13>multi\nline")
	c.send("syslog", "")
	c.send("frobnicate", "x")
	for i := 2; i <= 14; i++ {
		n, cmd, d := c.recv()
		if n != i || cmd != "rsp" || d != "200 OK" {
			t.Errorf("answer %d: %d %s %q", i, n, cmd, d)
		}
	}
	if n, _, d := c.recv(); n != 15 || !strings.HasPrefix(d, "500 ") {
		t.Errorf("unknown command: %d %q", n, d)
	}
	last := c.send("close", "")
	if n, cmd, _ := c.recv(); n != last || cmd != "rsp" {
		t.Errorf("close: %d %s", n, cmd)
	}
	if n, cmd, _ := c.recv(); n != 0 || cmd != "serverclose" {
		t.Errorf("%d %s", n, cmd)
	}
	if got := e.lines(); len(got) != 11 || got[10] != "<13>multi\nline" {
		t.Errorf("%q", got)
	}
	if got := e.errors(); len(got) != 1 {
		t.Errorf("%v", got)
	}
	until(t, "the end", func() bool { return l.Stats().Open == 0 })
	if st := l.Stats(); st.Breaks != 0 || st.Frames != 11 || st.Refused != 1 {
		t.Errorf("%+v", st)
	}
}

// Nothing is acknowledged before it is sealed.
func TestRELPSealsFirst(t *testing.T) {
	var e evidence
	block := make(chan struct{})
	e.before = func(*event.Batch) error { <-block; return nil }
	l, _ := relp(t, &e, Options{})
	c := newRELP(t, l.Addr())
	c.open()
	c.send("syslog", "<13>a")
	c.c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := c.r.Peek(1); err == nil {
		t.Fatal("answered before it was sealed")
	}
	close(block)
	if n, _, d := c.recv(); n != 2 || d != "200 OK" {
		t.Errorf("%d %q", n, d)
	}
	if len(e.lines()) != 1 {
		t.Error("answered and not sealed")
	}
}

// Lines that a broken session sealed are marked when they come again, and so are
// equal lines of the session after it, whose sender may send each of them twice.
func TestRELPRepeats(t *testing.T) {
	var e evidence
	var now atomic.Int64
	now.Store(time.Now().UnixNano())
	l, _ := relp(t, &e, Options{Now: func() time.Time { return time.Unix(0, now.Load()) }})
	now.Add(int64(time.Hour)) // a sender of the process before us would be back by now
	c := newRELP(t, l.Addr())
	c.open()
	for _, line := range []string{"<13>a", "<13>b", "<13>b", "<13>c"} {
		c.send("syslog", line)
	}
	until(t, "four lines", func() bool { return len(e.lines()) == 4 })
	c.c.Close()
	until(t, "the break", func() bool { return l.Stats().Breaks == 1 && l.Stats().Open == 0 })

	c = newRELP(t, l.Addr())
	c.open()
	for _, line := range []string{"<13>b", "<13>c", "<13>c", "<13>d", "<13>b", "<13>b"} {
		c.send("syslog", line)
	}
	for range 6 {
		c.recv()
	}
	c.send("close", "")
	c.recv()
	var got []string
	for _, b := range e.batches {
		for _, f := range b.Frames {
			if f.Repeat {
				got = append(got, string(f.Bytes))
			}
		}
	}
	if diff := cmp.Diff([]string{"<13>b", "<13>c", "<13>c", "<13>b", "<13>b"}, got); diff != "" {
		t.Error(diff)
	}
	until(t, "the count", func() bool { return l.Stats().Repeats == 5 && l.Stats().Open == 0 })
	// After a clean close nothing is remembered.
	c = newRELP(t, l.Addr())
	c.open()
	c.send("syslog", "<13>a")
	c.send("syslog", "<13>a")
	c.recv()
	c.recv()
	if l.Stats().Repeats != 5 {
		t.Errorf("%+v", l.Stats())
	}
}

// A repeat whose batch was refused as a whole is a repeat when it comes once more.
func TestRELPRepeatOfARefusedBatch(t *testing.T) {
	var e evidence
	var no atomic.Bool
	e.before = func(*event.Batch) error {
		if no.Swap(false) {
			return &event.Refusal{Code: "internal", Reason: "not now"}
		}
		return nil
	}
	l, _ := relp(t, &e, Options{})
	for i, line := range []string{"<13>a", "<13>a", "<13>a"} {
		no.Store(i == 1)
		c := newRELP(t, l.Addr())
		c.open()
		c.send("syslog", line)
		c.recv()
		c.c.Close()
		until(t, "the break", func() bool { return l.Stats().Breaks == uint64(i+1) && l.Stats().Open == 0 })
	}
	if len(e.lines()) != 2 || l.Stats().Repeats != 1 {
		t.Errorf("%d lines, %+v", len(e.lines()), l.Stats())
	}
}

// A sender may be back while its old session still waits for the disk and does not
// know yet that it broke.
func TestRELPRepeatsBeforeTheBreakIsSeen(t *testing.T) {
	var e evidence
	first := make(chan struct{})
	var n atomic.Int32
	e.before = func(*event.Batch) error {
		if n.Add(1) == 1 {
			<-first
		}
		return nil
	}
	l, _ := relp(t, &e, Options{})
	old := newRELP(t, l.Addr())
	old.open()
	old.send("syslog", "<13>a")
	until(t, "the line at the sink", func() bool { return n.Load() == 1 })
	old.c.Close()
	c := newRELP(t, l.Addr())
	c.open()
	c.send("syslog", "<13>a")
	c.recv()
	close(first)
	until(t, "both", func() bool { return len(e.lines()) == 2 })
	if got := l.Stats().Repeats; got != 1 {
		t.Errorf("%d repeats", got)
	}
}

func TestRELPRefusedStaysWithSender(t *testing.T) {
	var e evidence
	e.before = func(*event.Batch) error { return &event.Refusal{Code: "pia_missing", Reason: "no PIA"} }
	l, _ := relp(t, &e, Options{})
	c := newRELP(t, l.Addr())
	c.open()
	c.send("syslog", "<13>a")
	if _, cmd, d := c.recv(); cmd != "rsp" || d != "500 pia_missing" {
		t.Errorf("%s %q", cmd, d)
	}
	if n, cmd, _ := c.recv(); n != 0 || cmd != "serverclose" {
		t.Errorf("%d %s", n, cmd)
	}
}

func TestRELPStop(t *testing.T) {
	var e evidence
	l, stop := relp(t, &e, Options{})
	c := newRELP(t, l.Addr())
	c.open()
	stop()
	if n, cmd, _ := c.recv(); n != 0 || cmd != "serverclose" {
		t.Errorf("%d %s", n, cmd)
	}
}

func TestRELPRefusesNonsense(t *testing.T) {
	var e evidence
	l, _ := relp(t, &e, Options{})
	for _, in := range []string{
		"GET / HTTP/1.1\r\n\r\n", "1234567890 open 0\n", "1 syslog 3 abc\n", "1 open 10 relp_versi\n",
		"1 open 99999 x", "1 open 50 relp_version=x\ncommands=syslog" + strings.Repeat("x", 20) + "\n", "1 " + strings.Repeat("a", 40) + " 0\n",
		"1 syslog 999999999 x",
	} {
		c := dial(t, "tcp", l.Addr())
		io.WriteString(c, in)
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q keeps the session open", in)
		}
	}
	if n := len(e.lines()); n != 0 {
		t.Errorf("%d lines", n)
	}
}

// relpSplit lists what a reader finds in bytes cut at the given places.
func relpSplit(in []byte, cuts ...int) []string {
	r := relpReader{max: 32}
	var out []string
	from := 0
	for _, c := range append(cuts, len(in)) {
		r.feed(in[from:c])
		from = c
		for {
			f, ok, err := r.next()
			if err != nil {
				return append(out, err.Error())
			}
			if !ok {
				break
			}
			out = append(out, fmt.Sprintf("%d %s %q %v", f.txnr, f.command, f.data, f.large))
		}
	}
	return out
}

func FuzzRELP(f *testing.F) {
	for _, s := range []string{
		"1 open 3 a=b\n2 syslog 5 <13>a\n3 close 0\n", "1 syslog 40 " + strings.Repeat("x", 40) + "\n2 close 0\n", "1 syslog 0 \n", "9999999999 a 1 b\n",
		"1 syslog 99999999 x", "0 serverclose 0\n",
	} {
		f.Add([]byte(s), uint(4))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint) {
		want := relpSplit(in)
		c := 0
		if len(in) > 0 {
			c = int(cut % uint(len(in)))
		}
		if diff := cmp.Diff(want, relpSplit(in, c)); diff != "" {
			t.Fatalf("cut at %d: %s", c, diff)
		}
		every := make([]int, len(in))
		for i := range every {
			every[i] = i
		}
		if diff := cmp.Diff(want, relpSplit(in, every...)); diff != "" {
			t.Fatalf("byte by byte: %s", diff)
		}
	})
}

// Who connects must begin: a TLS handshake, a RELP open.
func TestSilentClients(t *testing.T) {
	files, _, _ := certs(t)
	var e evidence
	o := Options{FrameTimeout: 100 * time.Millisecond}
	r, _ := relp(t, &e, o)
	o.TLS = &files
	l, _ := tcp(t, &e, o)
	for name, a := range map[string]net.Addr{"relp": r.Addr(), "tls": l.Addr()} {
		c := dial(t, "tcp", a)
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: a silent client stays", name)
		}
	}
	until(t, "the count", func() bool { return l.Stats().Handshakes == 1 })
}

// The gap of a broken session counts what the sink kept: a line that it withheld is
// in no number.
func TestGapCountsNothingWithheld(t *testing.T) {
	var e evidence
	l, _ := tcp(t, &e, Options{Sink: func(ctx context.Context, b event.Batch) (event.Result, error) {
		kept := b.Frames[:0:0]
		for _, f := range b.Frames {
			if !strings.Contains(string(f.Bytes), "hotline") {
				kept = append(kept, f)
			}
		}
		b.Frames = kept
		return e.sink(ctx, b)
	}})
	c := dial(t, "tcp", l.Addr()).(*net.TCPConn)
	fmt.Fprintf(c, "<13>one\n<13>hotline\n<13>two\n")
	until(t, "two lines", func() bool { return len(e.lines()) == 2 })
	c.SetLinger(0)
	c.Close()
	until(t, "a gap", func() bool { return len(e.gapsNow()) == 1 })
	if g := e.gapsNow()[0]; g.From != 2 {
		t.Errorf("%+v: two lines were kept", g)
	}
}
