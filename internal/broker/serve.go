package broker

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// maxAsked bounds a request: an order and two statements with their proofs.
const maxAsked = 256 << 10

// answer is what the broker says.
type answer struct {
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
	Hint   string `json:"hint,omitempty"`
}

// ServeHTTP takes orders: POST /orders with an Asked as JSON.
func (b *Broker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	say := func(status int, a answer) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(a) // who asked may have gone
	}
	if r.Method != http.MethodPost || r.URL.Path != "/orders" {
		say(http.StatusNotFound, answer{Reason: "a broker takes orders and nothing else"})
		return
	}
	var a Asked
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAsked))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&a); err != nil {
		say(http.StatusBadRequest, answer{Reason: "this is no order"})
		return
	}
	// An act that has begun ends also when nobody waits for it.
	state, err := b.Do(context.WithoutCancel(r.Context()), a)
	var no *Refusal
	switch {
	case errors.As(err, &no):
		say(http.StatusForbidden, answer{state, no.Reason, no.Hint})
	case err != nil:
		b.o.Log.Error("an order could not be taken", "err", err)
		say(http.StatusInternalServerError, answer{Reason: "the broker could not write its journal"})
	default:
		say(http.StatusOK, answer{State: state})
	}
}

// Serve takes orders at a listener until ctx ends, and takes back what has come to its
// end.
func (b *Broker) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{Handler: b, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 2 * doLimit, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(b.o.Log.Handler(), slog.LevelDebug)} // handshakes of scanners, with addresses
	done := make(chan error, 1) // the goroutine below ends with the listener
	go func() { done <- srv.Serve(l) }()
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		if _, err := b.Expire(ctx); err != nil {
			b.o.Log.Error("the journal cannot be written", "err", err)
		}
		select {
		case err := <-done:
			return err
		case <-tick.C:
			continue
		case <-ctx.Done():
		}
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), doLimit)
		defer cancel()
		if err := srv.Shutdown(stop); err != nil {
			return err
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}
}

// Listen makes the socket, which the user of this process and its group reach.
func Listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Client sends orders to the broker, over the connections that Dial opens: a unix socket,
// or TLS to another host.
type Client struct {
	Dial func(context.Context) (net.Conn, error)
}

// maxAnswer bounds an answer, and reachLimit how long Reached waits for one.
const (
	maxAnswer  = 64 << 10
	reachLimit = 5 * time.Second
)

// ErrUnreached says that the broker was not reached, so that nothing was done.
var ErrUnreached = errors.New("the broker is not reached")

// Do sends an order. A *Refusal is the answer of the broker, and ErrUnreached says that it has
// none; any other error says that nobody knows whether it was done.
func (c Client) Do(ctx context.Context, a Asked) (state string, err error) {
	body, err := json.Marshal(a)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, doLimit+10*time.Second)
	defer cancel()
	status, got, err := c.ask(ctx, http.MethodPost, body)
	if err != nil {
		return "", err
	}
	switch status {
	case http.StatusOK:
		return got.State, nil
	case http.StatusForbidden, http.StatusBadRequest:
		return got.State, &Refusal{got.Reason, got.Hint}
	}
	return "", errors.New("the broker has a fault of its own: " + got.Reason)
}

// Reached asks for nothing, and gives nil where a broker answers that it takes orders.
func (c Client) Reached(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reachLimit)
	defer cancel()
	status, _, err := c.ask(ctx, http.MethodGet, nil)
	if err == nil && status != http.StatusNotFound {
		err = errNonsense
	}
	return err
}

var errNonsense = errors.New("the broker answers with nonsense")

// ask gives errors without an address or a name of a host.
func (c Client) ask(ctx context.Context, method string, body []byte) (status int, got answer, err error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://broker/orders", bytes.NewReader(body))
	if err != nil {
		return 0, got, err
	}
	var reached atomic.Bool // the transport dials beside this
	t := &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := c.Dial(ctx)
		reached.Store(err == nil)
		return conn, err
	}}
	w, err := (&http.Client{Transport: t}).Do(r)
	var op *net.OpError
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &cert):
		return 0, got, fmt.Errorf("%w: its certificate is of another host, or not of the authority that is named for it", ErrUnreached)
	case errors.As(err, &op) && op.Op == "remote error": // an alert of TLS
		return 0, got, errors.New("the broker does not take the certificate of this server")
	case err != nil && !reached.Load():
		return 0, got, ErrUnreached
	case err != nil:
		return 0, got, errors.New("the broker does not answer")
	}
	defer w.Body.Close()
	if err := json.NewDecoder(io.LimitReader(w.Body, maxAnswer)).Decode(&got); err != nil {
		return 0, got, errNonsense
	}
	return w.StatusCode, got, nil
}
