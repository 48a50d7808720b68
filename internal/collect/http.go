package collect

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/counterseal/counterseal/internal/event"
)

// Codes of an answer of no that this package gives itself, beside those of
// event.Refusal.
const (
	codeBadRequest = "bad_request"
	codeMediaType  = "media_type"
	codeInternal   = "internal"
)

// maxRecords bounds the records of one request, so that a body of short lines takes
// no more memory than one of long lines, and a card holds the reasons of all refusals.
const maxRecords = 100_000

var errTooMany = &event.Refusal{Code: CodeTooLarge, Reason: fmt.Sprintf("the body holds more than %d records", maxRecords), Hint: "send less at a time"}

// HTTPOptions are what the handlers of HTTP need. Who may send is checked before
// they are called.
type HTTPOptions struct {
	Sink Sink
	Zone string
	Log  *slog.Logger     // failures of the sink; nil: silent
	Now  func() time.Time // nil: time.Now

	// MaxBody bounds a body, decompressed. 0 is 16 MiB.
	MaxBody int64
	// BodyTimeout bounds the time to read a body, so that a slow sender does not keep
	// a place. 0 is 60 s.
	BodyTimeout time.Duration
	// InFlight bounds requests that hold a body in memory; one more is answered 429.
	// 0 is 16.
	InFlight int

	// Source is the source of bulk requests whose path names none (bulk.go).
	Source string
	// Version is the version that the bulk handshake claims, not below that of the
	// Beat. Empty is 8.19.99.
	Version string
}

// HTTP counts and bounds what comes in by HTTP. Ingest and Bulk are its handlers.
type HTTP struct {
	o     HTTPOptions
	c     counters
	slots chan struct{}
}

// NewHTTP checks the options.
func NewHTTP(o HTTPOptions) (*HTTP, error) {
	if o.Sink == nil {
		return nil, errors.New("the way in by HTTP needs a sink")
	}
	if o.MaxBody <= 0 {
		o.MaxBody = 16 << 20
	}
	if o.BodyTimeout <= 0 {
		o.BodyTimeout = time.Minute
	}
	if o.InFlight <= 0 {
		o.InFlight = 16
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Version == "" {
		o.Version = "8.19.99"
	}
	return &HTTP{o: o, slots: make(chan struct{}, o.InFlight)}, nil
}

// Stats returns the counters.
func (h *HTTP) Stats() Stats { return h.c.stats() }

// Answer is what a sender is told of a request that was taken.
type Answer struct {
	Accepted int               `json:"accepted"`
	First    string            `json:"first,omitempty"`
	Last     string            `json:"last,omitempty"`
	Repeated bool              `json:"repeated"`
	Errors   []event.LineError `json:"errors"`
}

// Ingest takes `POST /api/v1/ingest/{source}`; the pattern it is mounted under
// names the path value "source". A body is lines or JSON, by its content type:
//
//	application/x-ndjson, application/jsonl   a JSON value a line
//	application/json                          an array, {"Records": [...]}, objects
//	text/plain                                a record a line
//	none, application/octet-stream            by the first byte
//
// `?dataset=` declares the dataset of all records. With an Idempotency-Key a
// request may be repeated and is taken once.
func (h *HTTP) Ingest() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h.ingest(w, r); err != nil {
			h.problem(w, r, err)
		}
	})
}

func (h *HTTP) ingest(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return &event.Refusal{Code: codeBadRequest, Reason: "records are sent with POST"}
	}
	source := r.PathValue("source")
	if !isName(source) {
		return &event.Refusal{Code: "source_unknown", Reason: "the path names no source", Hint: "POST /api/v1/ingest/{source}, with a source of the configuration"}
	}
	dataset := r.URL.Query().Get("dataset")
	if dataset != "" && !isName(dataset) {
		return &event.Refusal{Code: codeBadRequest, Reason: "the dataset is no name of letters, digits, '.', '-' and '_'"}
	}
	keys := r.Header.Values("Idempotency-Key")
	key := ""
	if len(keys) > 0 {
		if key = keys[0]; len(keys) > 1 || !isKey(key) {
			return &event.Refusal{Code: codeBadRequest, Reason: "one Idempotency-Key of 1 to 255 printable ASCII characters is allowed"}
		}
	}
	body, free, err := h.body(w, r)
	if err != nil {
		return err
	}
	defer free()
	b := event.Batch{Source: source, Way: WayHTTP, Peer: requestPeer(r), Key: key, Received: h.o.Now(), Zone: h.o.Zone}
	if err := readBody(r.Header.Get("Content-Type"), body, dataset, &b); err != nil {
		return err
	}
	if len(b.Frames) > maxRecords {
		return errTooMany
	}
	ans := Answer{Errors: []event.LineError{}}
	if len(b.Frames)+len(b.Errors) > 0 {
		res, err := h.seal(r.Context(), b)
		if err != nil {
			return err
		}
		ans.Accepted, ans.First, ans.Last, ans.Repeated = res.Accepted, res.First, res.Last, res.Repeated
		ans.Errors = append(ans.Errors, lineErrors(b.Errors, res.Errors)...)
	}
	return writeJSON(w, http.StatusOK, "application/json", ans)
}

// seal asks the sink once: unlike a socket, a sender by HTTP is told to wait.
func (h *HTTP) seal(ctx context.Context, b event.Batch) (event.Result, error) {
	res, err := h.o.Sink(ctx, b)
	total := len(b.Frames) + len(b.Errors)
	if err != nil {
		h.c.refused.Add(uint64(total))
		return res, err
	}
	h.c.batches.Add(1)
	refused := min(total, len(lineErrors(b.Errors, res.Errors)))
	h.c.refused.Add(uint64(refused))
	h.c.frames.Add(uint64(total - refused))
	for i := range b.Frames {
		h.c.bytes.Add(uint64(len(b.Frames[i].Bytes)))
	}
	return res, nil
}

var errBusy = &event.Refusal{Code: "busy", Reason: "too many requests are being read", Hint: "send again later", After: time.Second}

// body reads the whole body, decompressed. free gives back its place among the
// requests in flight.
func (h *HTTP) body(w http.ResponseWriter, r *http.Request) (body []byte, free func(), err error) {
	select {
	case h.slots <- struct{}{}:
	default:
		return nil, nil, errBusy
	}
	free = func() { <-h.slots }
	rc := http.NewResponseController(w)
	if err := rc.SetReadDeadline(time.Now().Add(h.o.BodyTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		free()
		return nil, nil, fmt.Errorf("bounding the time of a request: %w", err)
	}
	body, err = h.readAll(r)
	if err != nil {
		free() // the deadline stays: the server reads what is left of the body
		return nil, nil, err
	}
	// While the sink works nothing is read, and the server would take a deadline for
	// a sender that is gone.
	rc.SetReadDeadline(time.Time{})
	return body, free, nil
}

func (h *HTTP) readAll(r *http.Request) ([]byte, error) {
	large := &event.Refusal{Code: CodeTooLarge, Reason: fmt.Sprintf("the body holds more than %d bytes", h.o.MaxBody), Hint: "send less at a time"}
	if r.ContentLength > h.o.MaxBody {
		return nil, large
	}
	var in io.Reader = io.LimitReader(r.Body, h.o.MaxBody+1)
	switch enc := strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding"))); enc {
	case "", "identity":
	case "gzip", "x-gzip":
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, &event.Refusal{Code: codeBadRequest, Reason: "the body is no gzip"}
		}
		in = io.LimitReader(z, h.o.MaxBody+1)
	default:
		return nil, &event.Refusal{Code: codeMediaType, Reason: "the content encoding is not read here", Hint: "send it plain or as gzip"}
	}
	var buf bytes.Buffer
	if n := r.ContentLength; n > 0 {
		buf.Grow(int(min(n, h.o.MaxBody)) + bytes.MinRead)
	}
	if _, err := buf.ReadFrom(in); err != nil {
		var limit *http.MaxBytesError
		if errors.As(err, &limit) {
			return nil, large
		}
		return nil, &event.Refusal{Code: codeBadRequest, Reason: "the body ended early or is damaged"}
	}
	if int64(buf.Len()) > h.o.MaxBody {
		return nil, large
	}
	return buf.Bytes(), nil
}

// readBody fills the batch. Frames point into body.
func readBody(contentType string, body []byte, dataset string, b *event.Batch) error {
	media := ""
	if contentType != "" {
		var err error
		if media, _, err = mime.ParseMediaType(contentType); err != nil {
			return &event.Refusal{Code: codeMediaType, Reason: "the content type cannot be read"}
		}
	}
	first := bytes.TrimLeft(bytes.TrimPrefix(body, bom), " \t\r\n")
	switch media {
	case "application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines", "application/json-lines", "application/x-json-stream":
		bodyLines(body, true, dataset, b)
	case "text/plain":
		bodyLines(body, false, dataset, b)
	case "application/json":
		if looksJSON(first) {
			return bodyJSON(body, dataset, b)
		}
		bodyLines(body, true, dataset, b)
	case "", "application/octet-stream", "application/x-www-form-urlencoded": // the last is what curl says of --data
		if looksJSON(first) {
			return bodyJSON(body, dataset, b)
		}
		bodyLines(body, len(first) > 0 && first[0] == '{', dataset, b)
	default:
		return &event.Refusal{Code: codeMediaType, Reason: "the content type is not read here", Hint: "send application/x-ndjson, application/json or text/plain"}
	}
	return nil
}

func bodyLines(body []byte, isJSON bool, dataset string, b *event.Batch) {
	line := 0
	body = bytes.TrimPrefix(body, bom)
	for raw := range bytes.Lines(body) {
		if len(b.Frames) > maxRecords {
			return
		}
		line++
		raw = bytes.TrimRight(raw, "\r\n")
		switch {
		case len(raw) == 0:
		case len(raw) > event.MaxFrame:
			b.Frames = append(b.Frames, refused(raw, line, CodeTooLarge, fmt.Sprintf("longer than %d bytes", event.MaxFrame)))
		case isJSON && !json.Valid(raw):
			b.Frames = append(b.Frames, refused(raw, line, CodeBadLine, "no valid JSON"))
		default:
			b.Frames = append(b.Frames, event.Frame{Bytes: raw, Line: line, Dataset: dataset})
		}
	}
}

func bodyJSON(body []byte, dataset string, b *event.Batch) error {
	item := 0
	return splitJSON(bytes.NewReader(body), event.MaxFrame, func(p *piece) error {
		if len(b.Frames) > maxRecords {
			return errTooMany
		}
		switch p.kind {
		case pieceFrame:
			item++
			if !json.Valid(p.body) {
				b.Frames = append(b.Frames, refused(bytes.Clone(p.body), item, CodeBadLine, "no valid JSON"))
				return nil
			}
			b.Frames = append(b.Frames, event.Frame{Bytes: bytes.Clone(p.body), Line: item, Dataset: dataset})
		case pieceBad:
			item++
			b.Frames = append(b.Frames, refused(bytes.Clone(p.raw), item, p.reason.Code, p.reason.Reason))
		}
		return nil
	})
}

// refused is a frame that is no record: the sink refuses it, or withholds it.
func refused(raw []byte, line int, code, reason string) event.Frame {
	return event.Frame{Bytes: raw, Line: line, Refused: &event.LineError{Line: line, Code: code, Reason: reason}}
}

// statusOf is the HTTP status of a code.
func statusOf(code string) int {
	switch code {
	case "pia_missing", "refused":
		return http.StatusForbidden
	case "source_unknown":
		return http.StatusNotFound
	case "key_reused":
		return http.StatusConflict
	case CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case "busy":
		return http.StatusTooManyRequests
	case "disk_low":
		return http.StatusServiceUnavailable
	case codeMediaType:
		return http.StatusUnsupportedMediaType
	case codeBadRequest:
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

// refusalOf makes an answer of no from an error. What is no refusal is ours: the
// sender learns that it failed, the log learns why.
func (h *HTTP) refusalOf(r *http.Request, err error) *event.Refusal {
	var no *event.Refusal
	if errors.As(err, &no) {
		return no
	}
	h.o.Log.Error("taking records by HTTP", "route", r.Pattern, "err", err.Error())
	return &event.Refusal{Code: codeInternal, Reason: "the records were not taken", Hint: "send again; with an Idempotency-Key nothing is taken twice"}
}

// problem answers no in the form of RFC 9457.
func (h *HTTP) problem(w http.ResponseWriter, r *http.Request, err error) {
	no := h.refusalOf(r, err)
	status := statusOf(no.Code)
	setRetry(w, no)
	writeJSON(w, status, "application/problem+json", struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
		Code   string `json:"code"`
		Hint   string `json:"hint,omitempty"`
	}{"about:blank", http.StatusText(status), status, no.Reason, no.Code, no.Hint})
}

func setRetry(w http.ResponseWriter, no *event.Refusal) {
	if no.Code != "busy" && no.Code != "disk_low" {
		return
	}
	s := max(1, int(math.Ceil(no.After.Seconds())))
	w.Header().Set("Retry-After", strconv.Itoa(s))
}

func writeJSON(w http.ResponseWriter, status int, contentType string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding an answer: %w", err)
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)+1))
	w.WriteHeader(status)
	w.Write(append(b, '\n')) // the sender is gone if this fails; it will ask again
	return nil
}

func requestPeer(r *http.Request) string {
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		return peerText(ap.Addr().Unmap())
	}
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	return ""
}

// isName accepts the names that sources and datasets may have.
func isName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for _, c := range []byte(s) {
		if !isLetter(c) && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return s != "." && s != ".."
}

func isKey(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for _, c := range []byte(s) {
		if c < 0x20 || c > 0x7e {
			return false
		}
	}
	return true
}
