package collect

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/counterseal/counterseal/internal/event"
)

func ingestServer(t *testing.T, e *evidence, o HTTPOptions) (*HTTP, *httptest.Server) {
	t.Helper()
	o.Sink = e.sink
	h, err := NewHTTP(o)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("POST /api/v1/ingest/{source}", h.Ingest())
	mux.Handle("/", h.Bulk())
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return h, s
}

func send(t *testing.T, method, url, contentType, body string, header ...string) (*http.Response, map[string]any) {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if len(b) > 0 {
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatalf("%s %s answered %q", method, url, b)
		}
	}
	return resp, v
}

func zipped(t *testing.T, s string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	io.WriteString(z, s)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestIngestForms(t *testing.T) {
	wrapped := `{"Records":[{"a":1},{"a":"]}"}]}`
	for name, c := range map[string]struct {
		contentType, body string
		header            []string
		want              []string
		bad               []int
	}{
		"ndjson":          {"application/x-ndjson", "{\"a\":1}\n{\"a\":2}\r\n\n{\"a\":3}", nil, []string{`{"a":1}`, `{"a":2}`, `{"a":3}`}, nil},
		"a bad line":      {"application/x-ndjson; charset=utf-8", "{\"a\":1}\n{\"a\":\n{\"a\":3}\nxyz\n", nil, []string{`{"a":1}`, `{"a":3}`}, []int{2, 4}},
		"array":           {"application/json", ` [ {"a":1}, {"b":[1,{"c":"\"}]"}]} ,3] `, nil, []string{`{"a":1}`, `{"b":[1,{"c":"\"}]"}]}`, `3`}, nil},
		"bad item":        {"application/json", `[{"a":1},{"a":01},{"a":3}]`, nil, []string{`{"a":1}`, `{"a":3}`}, []int{2}},
		"open array":      {"application/json", `[{"a":1},{"a"`, nil, []string{`{"a":1}`}, []int{2}},
		"wrapper":         {"application/json", wrapped, nil, []string{`{"a":1}`, `{"a":"]}"}`}, nil},
		"one object":      {"application/json", "{\n \"a\": 1\n}\n", nil, []string{"{\n \"a\": 1\n}"}, nil},
		"lines as json":   {"application/json", "{\"a\":1}\n{\"a\":\n{\"a\":2}\n", nil, []string{`{"a":1}`, `{"a":2}`}, []int{2}},
		"text":            {"text/plain", "<13>one\n\ntwo {\n", nil, []string{"<13>one", "two {"}, nil},
		"sniffed lines":   {"", "{\"a\":1}\n{\"a\":2}\n", nil, []string{`{"a":1}`, `{"a":2}`}, nil},
		"sniffed array":   {"application/octet-stream", `[{"a":1}]`, nil, []string{`{"a":1}`}, nil},
		"sniffed text":    {"", "type=SYSCALL msg=audit(1:2)\n", nil, []string{"type=SYSCALL msg=audit(1:2)"}, nil},
		"gzip":            {"application/x-ndjson", zipped(t, "{\"a\":1}\n"), []string{"Content-Encoding", "gzip"}, []string{`{"a":1}`}, nil},
		"byte order mark": {"application/x-ndjson", "\xef\xbb\xbf{\"a\":1}\n", nil, []string{`{"a":1}`}, nil},
		"not UTF-8, NUL":  {"text/plain", "a\xffb\nc\x00d\x1b[2J\n", nil, []string{"a\xffb", "c\x00d\x1b[2J"}, nil},
		"deep":            {"application/json", "[" + strings.Repeat("[", 200_000) + strings.Repeat("]", 200_000) + `,{"a":1}]`, nil, []string{`{"a":1}`}, []int{1}},
		"empty":           {"application/x-ndjson", "", nil, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var e evidence
			_, s := ingestServer(t, &e, HTTPOptions{})
			resp, v := send(t, "POST", s.URL+"/api/v1/ingest/idp?dataset=signin", c.contentType, c.body, c.header...)
			if resp.StatusCode != 200 {
				t.Fatalf("%d %v", resp.StatusCode, v)
			}
			if diff := cmp.Diff(c.want, e.lines()); diff != "" {
				t.Error(diff)
			}
			var bad []int
			for _, x := range v["errors"].([]any) {
				bad = append(bad, int(x.(map[string]any)["line"].(float64)))
			}
			if diff := cmp.Diff(c.bad, bad); diff != "" {
				t.Error(diff)
			}
			if got := int(v["accepted"].(float64)); got != len(c.want) {
				t.Errorf("accepted %d", got)
			}
			for _, b := range e.batches {
				if b.Source != "idp" || b.Way != WayHTTP || b.Peer != "127.0.0.1" || b.Frames != nil && b.Frames[0].Dataset != "signin" {
					t.Errorf("%+v", b)
				}
			}
		})
	}
}

func TestIngestOnce(t *testing.T) {
	var e evidence
	_, s := ingestServer(t, &e, HTTPOptions{})
	url := s.URL + "/api/v1/ingest/idp"
	_, first := send(t, "POST", url, "application/x-ndjson", "{\"a\":1}\n{bad\n", "Idempotency-Key", "k1")
	_, again := send(t, "POST", url, "application/x-ndjson", "{\"a\":1}\n{bad\n", "Idempotency-Key", "k1")
	if again["repeated"] != true || first["repeated"] != false {
		t.Errorf("%v, %v", first, again)
	}
	again["repeated"] = false
	if diff := cmp.Diff(first, again); diff != "" {
		t.Error(diff)
	}
	if len(e.lines()) != 1 {
		t.Errorf("%q", e.lines())
	}
	resp, v := send(t, "POST", url, "application/x-ndjson", "{\"a\":2}\n", "Idempotency-Key", "k1")
	if resp.StatusCode != 409 || v["code"] != "key_reused" {
		t.Errorf("%d %v", resp.StatusCode, v)
	}
}

func TestIngestRefusals(t *testing.T) {
	for code, status := range map[string]int{
		"pia_missing": 403, "source_unknown": 404, "key_reused": 409, "too_large": 413, "busy": 429, "disk_low": 503, "refused": 403,
	} {
		e := evidence{before: func(*event.Batch) error {
			return &event.Refusal{Code: code, Reason: "because", Hint: "do this", After: 1500 * time.Millisecond}
		}}
		_, s := ingestServer(t, &e, HTTPOptions{})
		resp, v := send(t, "POST", s.URL+"/api/v1/ingest/idp", "text/plain", "x\n")
		if resp.StatusCode != status || v["code"] != code || v["detail"] != "because" || v["hint"] != "do this" || resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %v", code, resp.StatusCode, v)
		}
		if retry := resp.Header.Get("Retry-After"); (retry == "2") != (code == "busy" || code == "disk_low") {
			t.Errorf("%s: Retry-After %q", code, retry)
		}
	}
	e := evidence{before: func(*event.Batch) error { return errors.New("planted-secret went wrong") }}
	h, s := ingestServer(t, &e, HTTPOptions{MaxBody: 1 << 20})
	url := s.URL + "/api/v1/ingest/idp"
	resp, v := send(t, "POST", url, "text/plain", "x\n")
	if resp.StatusCode != 500 || strings.Contains(fmt.Sprint(v), "planted-secret") {
		t.Errorf("%d %v", resp.StatusCode, v)
	}
	if st := h.Stats(); st.Refused != 1 || st.Frames != 0 {
		t.Errorf("%+v", st)
	}
	for name, c := range map[string]struct {
		url, contentType, body string
		header                 []string
		status                 int
		code                   string
	}{
		"large":         {url, "text/plain", strings.Repeat("x", 1<<20+1), nil, 413, "too_large"},
		"large inside":  {url, "text/plain", zipped(t, strings.Repeat("x", 30<<20)), []string{"Content-Encoding", "gzip"}, 413, "too_large"},
		"no gzip":       {url, "text/plain", "xxxxx", []string{"Content-Encoding", "gzip"}, 400, "bad_request"},
		"cut gzip":      {url, "text/plain", zipped(t, "hello")[:20], []string{"Content-Encoding", "gzip"}, 400, "bad_request"},
		"encoding":      {url, "text/plain", "x", []string{"Content-Encoding", "br"}, 415, "media_type"},
		"media type":    {url, "image/png", "x", nil, 415, "media_type"},
		"no media type": {url, ";;", "x", nil, 415, "media_type"},
		"empty key":     {url, "text/plain", "x", []string{"Idempotency-Key", ""}, 400, "bad_request"},
		"long key":      {url, "text/plain", "x", []string{"Idempotency-Key", strings.Repeat("k", 256)}, 400, "bad_request"},
		"two keys":      {url, "text/plain", "x", []string{"Idempotency-Key", "a", "Idempotency-Key", "b"}, 400, "bad_request"},
		"source":        {s.URL + "/api/v1/ingest/a%20b", "text/plain", "x", nil, 404, "source_unknown"},
		"dataset":       {url + "?dataset=a/b", "text/plain", "x", nil, 400, "bad_request"},
	} {
		resp, v := send(t, "POST", c.url, c.contentType, c.body, c.header...)
		if resp.StatusCode != c.status || v["code"] != c.code {
			t.Errorf("%s: %d %v", name, resp.StatusCode, v)
		}
	}
}

// Bodies in memory are bounded: one too many is told to wait.
func TestIngestBusy(t *testing.T) {
	in, out := make(chan struct{}), make(chan struct{})
	e := evidence{before: func(*event.Batch) error { in <- struct{}{}; <-out; return nil }}
	_, s := ingestServer(t, &e, HTTPOptions{InFlight: 1})
	done := make(chan int)
	go func() {
		resp, err := http.Post(s.URL+"/api/v1/ingest/idp", "text/plain", strings.NewReader("x\n"))
		if err != nil {
			t.Error(err)
			done <- 0
			return
		}
		resp.Body.Close()
		done <- resp.StatusCode
	}()
	<-in
	resp, v := send(t, "POST", s.URL+"/api/v1/ingest/idp", "text/plain", "y\n")
	if resp.StatusCode != 429 || v["code"] != "busy" || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%d %v", resp.StatusCode, v)
	}
	close(out)
	if got := <-done; got != 200 {
		t.Errorf("the first got %d", got)
	}
}

// A body that drips does not keep its place.
func TestIngestSlowBody(t *testing.T) {
	var e evidence
	_, s := ingestServer(t, &e, HTTPOptions{InFlight: 1, BodyTimeout: 100 * time.Millisecond})
	c := dial(t, "tcp", s.Listener.Addr())
	fmt.Fprintf(c, "POST /api/v1/ingest/idp HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nhalf")
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 400 {
		t.Fatalf("%v %v", resp, err)
	}
	if resp, v := send(t, "POST", s.URL+"/api/v1/ingest/idp", "text/plain", "x\n"); resp.StatusCode != 200 {
		t.Errorf("%d %v", resp.StatusCode, v)
	}
	if n := len(e.lines()); n != 1 {
		t.Errorf("%d lines", n)
	}
}

// A sink that takes longer than a body may take is waited for.
func TestIngestSlowSink(t *testing.T) {
	e := evidence{before: func(*event.Batch) error { time.Sleep(300 * time.Millisecond); return nil }}
	o := HTTPOptions{BodyTimeout: 100 * time.Millisecond}
	o.Sink = func(ctx context.Context, b event.Batch) (event.Result, error) {
		r, err := e.sink(ctx, b)
		return r, errors.Join(err, ctx.Err())
	}
	h, err := NewHTTP(o)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("POST /api/v1/ingest/{source}", h.Ingest())
	s := httptest.NewServer(mux)
	defer s.Close()
	if resp, v := send(t, "POST", s.URL+"/api/v1/ingest/idp", "text/plain", "x\n"); resp.StatusCode != 200 {
		t.Errorf("%d %v", resp.StatusCode, v)
	}
}
