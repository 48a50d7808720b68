package collect

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/google/uuid"
)

// TLSFiles name the PEM files of a TLS listener. They are read again when a
// certificate is renewed in place (its time of change differs).
type TLSFiles struct {
	Cert     string
	Key      string
	ClientCA string // clients must show a certificate of it; empty: any client
}

// Config is config for other listeners of the server.
func (f *TLSFiles) Config() (*tls.Config, error) { return f.config() }

// config builds the server side of TLS 1.3. The client's certificate is checked in
// VerifyConnection too, which also runs where a session is resumed.
func (f *TLSFiles) config() (*tls.Config, error) {
	src := &certSource{files: *f}
	if _, err := src.get(nil); err != nil {
		return nil, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: src.get}
	if f.ClientCA == "" {
		return c, nil
	}
	pem, err := os.ReadFile(f.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate authority of clients: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", f.ClientCA)
	}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	c.ClientCAs = pool
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return errors.New("the client shows no certificate")
		}
		inter := x509.NewCertPool()
		for _, c := range cs.PeerCertificates[1:] {
			inter.AddCert(c)
		}
		_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{
			Roots: pool, Intermediates: inter, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		})
		return err
	}
	return c, nil
}

// certSource reads the server's certificate and reads it again when its file
// changes.
type certSource struct {
	files TLSFiles

	mu   sync.Mutex // guards the rest
	at   time.Time
	cert *tls.Certificate
}

func (s *certSource) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := os.Stat(s.files.Cert)
	if err != nil {
		return s.keep(fmt.Errorf("reading the certificate: %w", err))
	}
	if s.cert != nil && st.ModTime().Equal(s.at) {
		return s.cert, nil
	}
	cert, err := tls.LoadX509KeyPair(s.files.Cert, s.files.Key)
	if err != nil {
		return s.keep(fmt.Errorf("reading certificate and key: %w", err))
	}
	s.cert, s.at = &cert, st.ModTime()
	return s.cert, nil
}

// keep answers with the last good certificate while its files are being replaced.
func (s *certSource) keep(err error) (*tls.Certificate, error) {
	if s.cert != nil {
		return s.cert, nil
	}
	return nil, err
}

// server accepts connections and gives each to serve in a goroutine of its own,
// which Run waits for.
type server struct {
	o   Options
	c   counters
	ln  net.Listener
	way string

	mu    sync.Mutex // guards conns
	conns map[net.Conn]struct{}
}

func listen(addr, way string, o Options) (*server, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	var conf *tls.Config
	if o.TLS != nil {
		var err error
		if conf, err = o.TLS.config(); err != nil {
			return nil, err
		}
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listening for %s: %w", way, err)
	}
	if conf != nil {
		ln = tls.NewListener(ln, conf)
	}
	return &server{o: o, ln: ln, way: way, conns: make(map[net.Conn]struct{})}, nil
}

// Addr is the address that is listened on.
func (s *server) Addr() net.Addr { return s.ln.Addr() }

// Stats returns the counters.
func (s *server) Stats() Stats { return s.c.stats() }

// run accepts until ctx ends, then waits for the sessions. stop is called for each
// open connection when ctx ends and must make its session end.
func (s *server) run(ctx context.Context, serve func(context.Context, *session), stop func(net.Conn)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	unhook := context.AfterFunc(ctx, func() {
		s.ln.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		for c := range s.conns {
			stop(c)
		}
	})
	defer unhook()
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel() // an error of the listener ends its sessions too
	pause := 5 * time.Millisecond
	for {
		conn, err := s.ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accepting %s: %w", s.way, err)
			}
			// Out of descriptors, or a client that was gone already: the next one may
			// be fine.
			if sleep(ctx, pause) != nil {
				return nil
			}
			pause = min(2*pause, time.Second)
			continue
		}
		pause = 5 * time.Millisecond
		s.mu.Lock()
		full := len(s.conns) >= s.o.MaxConns
		if !full {
			s.conns[conn] = struct{}{}
		}
		s.mu.Unlock()
		if full {
			s.c.turnedAway.Add(1)
			conn.Close()
			continue
		}
		s.c.sessions.Add(1)
		s.c.open.Add(1)
		all.Go(func() {
			defer func() {
				conn.Close()
				s.mu.Lock()
				delete(s.conns, conn)
				s.mu.Unlock()
				s.c.open.Add(^uint64(0))
			}()
			if ctx.Err() != nil { // accepted while stop went over the others
				return
			}
			if t, ok := conn.(*tls.Conn); ok {
				hctx, cancel := context.WithTimeout(ctx, s.o.FrameTimeout)
				err := t.HandshakeContext(hctx)
				cancel()
				if err != nil {
					s.c.handshakes.Add(1)
					return
				}
			}
			serve(ctx, newSession(s, conn))
		})
	}
}

// session is one connection.
type session struct {
	conn   net.Conn
	peer   netip.Addr
	id     string
	source string
	sealed uint64    // lines that the sink kept
	begun  time.Time // first byte of the message that is not whole yet; zero: none
}

func newSession(s *server, conn net.Conn) *session {
	peer := addrOf(conn.RemoteAddr())
	return &session{conn: conn, peer: peer, id: uuid.NewString(), source: s.o.source(peer)}
}

func addrOf(a net.Addr) netip.Addr {
	p, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return p.Addr().Unmap()
}

func peerText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// deadline sets how long the next read may wait: a message that has begun must end
// within FrameTimeout of its first byte, however slowly bytes drip in.
func (o *Options) deadline(s *session, partial, progressed bool) error {
	switch {
	case !partial:
		s.begun = time.Time{}
		if o.IdleTimeout > 0 {
			return s.conn.SetReadDeadline(time.Now().Add(o.IdleTimeout))
		}
		return s.conn.SetReadDeadline(time.Time{})
	case s.begun.IsZero() || progressed:
		s.begun = time.Now()
	}
	return s.conn.SetReadDeadline(s.begun.Add(o.FrameTimeout))
}
