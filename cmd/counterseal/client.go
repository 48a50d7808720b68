package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/web"
)

// client asks the API: over the socket of a running server, in this process on the same
// handlers where no server runs, or over TLS on another machine.
type client struct {
	http  *http.Client
	base  url.URL // scheme and host; without a host this machine
	local *server // nil while a server runs
	quiet bool    // it says nothing of who asks
	sign  string  // the Authorization header, of whoever is signed in at this terminal
	stop  func() error
}

// officeValue is how look.values names an office on the way to client.do.
const officeValue = "office"

// dial finds a running server or starts one without listeners, holding the lock, or goes
// to another machine.
func dial(ctx context.Context, env *environment, cfg config) (*client, error) {
	if c, err := dialElsewhere(ctx, &cfg); c != nil || err != nil {
		return c, err
	}
	if _, err := os.Stat(cfg.Data); err != nil {
		return nil, &exitError{code: exitFailed, err: fmt.Errorf("no data directory at %s", cfg.Data),
			hint: "name it with --data; on another machine sign in first: counterseal login --server URL; to try it: counterseal demo"}
	}
	sign, err := bearer(&cfg)
	if err != nil {
		return nil, err
	}
	if c := dialRunning(ctx, cfg.Data); c != nil {
		c.sign = sign
		return c, nil
	}
	s, err := openServer(ctx, cfg, serverOptions{log: slog.New(slog.NewTextHandler(env.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.pipe.Follow(run) }()
	c := &client{http: &http.Client{Transport: handlerTransport{s.signin.socket(s.web.Socket())}}, local: s, sign: sign}
	c.stop = func() error {
		cancel()
		return errors.Join(<-done, s.close())
	}
	var low *event.Refusal
	if err := s.pipe.Settle(ctx); errors.As(err, &low) { // an answer without the newest is better than none
		fmt.Fprintf(env.stderr, "counterseal: %s\n", low.Reason)
	} else if err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

// dialRunning finds a running server, nil where none runs.
func dialRunning(ctx context.Context, data string) *client {
	conn, err := dialSocket(ctx, data)
	if err != nil {
		return nil
	}
	conn.Close()
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dialSocket(ctx, data) }}
	return &client{http: &http.Client{Transport: t}, stop: func() error { t.CloseIdleConnections(); return nil }}
}

func dialSocket(ctx context.Context, data string) (net.Conn, error) {
	return dialUnix(ctx, data, "api.sock")
}

func (c *client) close() error { return c.stop() }

// do sends one request and turns a problem answer into an error.
func (c *client) do(ctx context.Context, method, path string, query url.Values, body io.Reader) (*http.Response, error) {
	office := os.Getenv("COUNTERSEAL_OFFICE")
	if c.quiet {
		office = ""
	}
	if query.Has(officeValue) {
		office, query = query.Get(officeValue), maps.Clone(query)
		query.Del(officeValue)
	}
	u := c.base
	if u.Host == "" {
		u = url.URL{Scheme: "http", Host: "localhost"}
	}
	u.Path, u.RawQuery = path, query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.sign != "" {
		req.Header.Set("Authorization", c.sign)
	}
	if office != "" {
		req.Header.Set(web.OfficeHeader, office)
	}
	resp, err := c.http.Do(req)
	var with *url.Error
	if errors.As(err, &with) { // it repeats the question
		return nil, fmt.Errorf("asking the server: %w", with.Err)
	}
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, problemError(resp)
	}
	return resp, nil
}

// getJSON asks and decodes the answer.
func (c *client) getJSON(ctx context.Context, path string, query url.Values, v any) error {
	resp, err := c.do(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	return nil
}

// act asks for an act with the purpose and the case of the environment, and decodes what
// was done.
func (c *client) act(ctx context.Context, name string, in, out any) error {
	return c.actIn(ctx, lookOf(), name, in, out)
}

// actIn is act for a purpose and in a case.
func (c *client) actIn(ctx context.Context, l *look, name string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	v := url.Values{}
	l.values(v)
	resp, err := c.do(ctx, http.MethodPost, "/api/v1/acts/"+name, v, bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxActAnswer)).Decode(out); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	return nil
}

// maxActAnswer bounds what a client reads of the answer to an act, in bytes.
const maxActAnswer = 256 << 20

func problemError(resp *http.Response) error {
	var p struct {
		Code, Detail, Hint string
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil || json.Unmarshal(data, &p) != nil || p.Detail == "" {
		return fmt.Errorf("the server answered %s", resp.Status)
	}
	code := exitFailed
	switch p.Code {
	case "bad_request":
		code = exitUsage
	case "pia_missing", "source_unknown", "refused", "unwitnessed", "unauthorized":
		code = exitRefused
	}
	return &exitError{code: code, err: errors.New(p.Detail), hint: p.Hint}
}

// handlerTransport serves requests by a handler in this process, streaming.
type handlerTransport struct{ h http.Handler }

func (t handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	pr, pw := io.Pipe()
	w := &pipeWriter{header: make(http.Header), body: pw, ready: make(chan struct{})}
	if r.Body == nil {
		r.Body = http.NoBody
	}
	r = r.WithContext(web.WithActor(r.Context(), ownActor()))
	go func() { // ends with the handler; the reader ends it early by closing the body
		defer func() {
			if r := recover(); r == http.ErrAbortHandler { // as a server would break off the connection
				w.WriteHeader(http.StatusInternalServerError)
				pw.CloseWithError(io.ErrUnexpectedEOF)
			} else if r != nil {
				panic(r)
			}
		}()
		t.h.ServeHTTP(w, r)
		w.WriteHeader(http.StatusOK)
		pw.Close()
	}()
	select {
	case <-w.ready:
	case <-r.Context().Done():
		pr.CloseWithError(r.Context().Err())
		return nil, r.Context().Err()
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)), StatusCode: w.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: w.sent, Body: pr, ContentLength: -1, Request: r,
	}, nil
}

type pipeWriter struct {
	header http.Header
	sent   http.Header
	body   *io.PipeWriter
	once   sync.Once
	status int
	ready  chan struct{}
}

func (w *pipeWriter) Header() http.Header { return w.header }

func (w *pipeWriter) WriteHeader(status int) {
	w.once.Do(func() {
		w.status, w.sent = status, w.header.Clone()
		close(w.ready)
	})
}

func (w *pipeWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(b)
}

func (w *pipeWriter) Flush() {}

// absolute makes paths independent of the folder of whoever reads them.
func absolute(paths []string) ([]string, error) {
	out := make([]string, len(paths))
	for i, p := range paths {
		abs, err := filepath.Abs(p)
		if err != nil {
			return nil, err
		}
		out[i] = abs
	}
	return out, nil
}

func joinNonEmpty(sep string, parts ...string) string {
	var out []string
	for _, p := range parts {
		if p != "" {
			out = append(out, p)
		}
	}
	return strings.Join(out, sep)
}
