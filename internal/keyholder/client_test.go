package keyholder

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
)

// TestAwaySaysNotWhere: why a key holder does not answer is told without an address or the name
// of a host.
func TestAwaySaysNotWhere(t *testing.T) {
	at := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 8444}
	for want, err := range map[string]error{
		"connection refused": &net.OpError{Op: "dial", Net: "tcp", Addr: at, Err: errors.New("connection refused")},
		"reset":              &net.OpError{Op: "read", Net: "tcp", Source: at, Addr: at, Err: errors.New("connection reset by peer")},
		"not found":          &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "holder.example", Server: "192.0.2.1"}},
		"certificate":        &tls.CertificateVerificationError{Err: x509.HostnameError{Certificate: &x509.Certificate{DNSNames: []string{"holder.example"}}, Host: "192.0.2.1"}},
		"EOF":                errors.New("EOF"),
	} {
		got := away(err)
		if !errors.Is(got, ErrAway) || !strings.Contains(got.Error(), want) || strings.Contains(got.Error(), "192.0.2.1") || strings.Contains(got.Error(), "holder.example") {
			t.Errorf("got %v, want %q", got, want)
		}
	}
}

// TestAwayIsSaidOnce: while a key holder is away the log says so once, and not at each try.
func TestAwayIsSaidOnce(t *testing.T) {
	b := newBench(t, Setup{})
	b.begin()
	tries := make(chan struct{}, 100)
	var log lockedBuffer
	c, err := Connect(t.Context(), ClientOptions{Log: slog.New(slog.NewTextHandler(&log, nil)), Dial: func(ctx context.Context) (net.Conn, error) {
		tries <- struct{}{}
		return b.dial("ingest.sock")(ctx)
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b.end()
	for range 5 { // the first one was answered
		<-tries
	}
	if n := strings.Count(log.String(), "is not reached"); n != 1 {
		t.Errorf("it is said %d times:\n%s", n, log.String())
	}
	b.begin()
	if _, err := c.Tokens([]Name{person(1)}); err != nil {
		t.Errorf("it is back: %v", err)
	}
}
