package broker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestClient: what is no answer of a broker is an error, and no error says where it was asked.
func TestClient(t *testing.T) {
	for name, c := range map[string]struct {
		status       int
		body         string
		did, reached string // parts of the errors
	}{
		"done":      {200, `{"state":"done"}`, "", "nonsense"},
		"refused":   {403, `{"state":"","reason":"too late"}`, "too late", "nonsense"},
		"a broker":  {404, `{"reason":"a broker takes orders and nothing else"}`, "a fault of its own", ""},
		"a fault":   {500, `{"reason":"the journal"}`, "a fault of its own: the journal", "nonsense"},
		"no JSON":   {200, "hello", "nonsense", "nonsense"},
		"too much":  {200, `{"state":"` + strings.Repeat("x", maxAnswer) + `"}`, "nonsense", "nonsense"},
		"elsewhere": {307, `{"state":"done"}`, "does not answer", "does not answer"},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if c.status == 307 {
				w.Header().Set("Location", "/orders")
			}
			w.WriteHeader(c.status)
			io.WriteString(w, c.body)
		}))
		client := Client{Dial: func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", srv.Listener.Addr().String())
		}}
		_, did := client.Do(t.Context(), Asked{})
		for what, x := range map[string]struct {
			err  error
			want string
		}{"an order": {did, c.did}, "a question": {client.Reached(t.Context()), c.reached}} {
			if (x.err == nil) != (x.want == "") || x.err != nil && !strings.Contains(x.err.Error(), x.want) {
				t.Errorf("%s, %s: got %v, want %q", name, what, x.err, x.want)
			}
		}
		srv.Close()
	}
	where := &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 8445}, Err: errors.New("connection refused")}
	for want, err := range map[string]error{
		"is not reached":                where,
		"does not take the certificate": &net.OpError{Op: "remote error", Addr: where.Addr, Err: errors.New("tls: bad certificate")},
		"of another host":               &tls.CertificateVerificationError{Err: x509.HostnameError{Certificate: &x509.Certificate{DNSNames: []string{"a.example"}}, Host: "192.0.2.1"}},
	} {
		got := Client{Dial: func(context.Context) (net.Conn, error) { return nil, err }}.Reached(t.Context())
		if got == nil || !strings.Contains(got.Error(), want) || strings.Contains(got.Error(), "192.0.2.1") || strings.Contains(got.Error(), "a.example") {
			t.Errorf("got %v, want %q", got, want)
		}
	}
}
