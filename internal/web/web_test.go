package web

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/counterseal/counterseal/internal/collect"
	"github.com/counterseal/counterseal/internal/demo"
	"github.com/counterseal/counterseal/internal/detect"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/pipeline"
	"github.com/counterseal/counterseal/internal/policy"
	"github.com/counterseal/counterseal/internal/pseudonym"
	"github.com/counterseal/counterseal/rules"
)

var at = time.Date(2026, 3, 5, 17, 0, 0, 0, time.UTC)

// house is a server on a pipeline of its own, whose clock a test may move.
type house struct {
	*Server
	pipe *pipeline.Pipeline
	now  time.Time

	offices *policy.Offices // nil: none, and who asks by the socket is the founder

	broken bool // the test took the ledger away: closing fails
}

func newHouse(t *testing.T, o pipeline.Options) *house {
	t.Helper()
	in := demo.Play(demo.Options{Seed: 1, At: at, Hotline: true, Scale: 0.01})
	files, err := detect.ReadFiles(rules.Files(), "rules")
	if err != nil {
		t.Fatal(err)
	}
	h := &house{now: at}
	now := func() time.Time { return h.now }
	o.Dir, o.Now = t.TempDir(), now
	o.Documents = pipeline.Documents{Protected: in.Protected, Directory: in.Directory, Rules: files}
	for _, name := range slices.Sorted(maps.Keys(in.PIAs)) {
		o.Documents.PIAs = append(o.Documents.PIAs, pipeline.Document{Name: name, Data: in.PIAs[name]})
	}
	if o.Tokens, err = pseudonym.NewLocal(bytes.Repeat([]byte{7}, pseudonym.KeySize), uuid.Nil, 1); err != nil {
		t.Fatal(err)
	}
	if h.pipe, err = pipeline.Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.pipe.Follow(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-done, h.pipe.Close()); err != nil && !h.broken {
			t.Error(err)
		}
	})
	in_, err := collect.NewHTTP(collect.HTTPOptions{Sink: h.pipe.Accept, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	acts := map[string]Act{}
	for _, name := range []string{"key.state", "unlock.approve", "unlock.request", "unmask.approve", "unmask.check", "erase.request", "erase.approve", "erase.list", "tokenkey.request", "tokenkey.approve", "hold.place", "hold.list", "hold.request", "hold.release", "retention.plan", "retention.run",
		"package.create", "package.list", "replay", "authorise.request", "authorise.list", "break.glass", "review.list", "account.list", "account.change", "token.change", "rules.activate", "channels.show", "channels.propose", "channels.remove", "canary.check"} {
		acts[name] = func(context.Context, string, []byte) (any, error) { return map[string]any{}, nil }
	}
	h.Server, err = New(Options{
		Pipeline: h.pipe, Gate: gateOf(t, h, h.pipe), Acts: acts, Ingest: in_.Ingest(), Bulk: in_.Bulk(), Version: "test", Demo: true, Story: func() []StoryLine { return []StoryLine{{Text: "A story.", Query: "source = idp"}} }, Now: now,
		Import: func(context.Context, ImportRequest, func(collect.Progress)) (collect.Report, error) {
			return collect.Report{Accepted: 7}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// full plays a small incident into the house.
func full(t *testing.T) *house {
	t.Helper()
	h := newHouse(t, pipeline.Options{})
	for _, st := range demo.Play(demo.Options{Seed: 1, At: at, Hotline: true, Scale: 0.01}).Streams {
		if st.Way == "file" {
			continue
		}
		b := event.Batch{Source: st.Source, Way: st.Way, Conn: st.Name, Received: at}
		for f := range st.Frames() {
			b.Frames = append(b.Frames, event.Frame{Bytes: f.Bytes, Line: len(b.Frames) + 1})
		}
		if _, err := h.pipe.Accept(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	h.settled(t)
	return h
}

func (h *house) settled(t *testing.T) {
	t.Helper()
	if err := h.pipe.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// ask sends a request to the loopback handler as a program on this machine would.
func (h *house) ask(method, target, body string, head ...string) *httptest.ResponseRecorder {
	return send(h.Loopback(), method, target, body, head...)
}

func send(handler http.Handler, method, target, body string, head ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://127.0.0.1:8420"+target, strings.NewReader(body))
	for i := 0; i+1 < len(head); i += 2 {
		if head[i] == "Host" {
			r.Host = head[i+1]
		} else {
			r.Header.Set(head[i], head[i+1])
		}
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

// session opens a session and returns its cookie header.
func (h *house) session(t *testing.T) []string {
	t.Helper()
	w := h.ask("GET", "/enter?once="+url.QueryEscape(h.OneTime()), "")
	if w.Code != http.StatusOK || len(w.Result().Cookies()) != 1 {
		t.Fatalf("no session: %d", w.Code)
	}
	c := w.Result().Cookies()[0]
	return []string{"Cookie", c.Name + "=" + c.Value}
}

func TestHostIsChecked(t *testing.T) {
	h := newHouse(t, pipeline.Options{})
	for host, want := range map[string]int{
		"127.0.0.1:8420": 200, "127.0.0.1": 200, "localhost": 200, "localhost:1": 200, "[::1]:8420": 200, "[::1]": 200, "127.9.9.9:80": 200,
		"evil.example": 421, "evil.example:8420": 421, "127.0.0.1.evil.example": 421, "localhost.evil.example": 421,
		"192.0.2.1:8420": 421, "0.0.0.0:8420": 421, "": 421, "localhost.": 421, "[::ffff:192.0.2.1]": 421,
	} {
		for _, method := range []string{"GET", "POST"} {
			target := "/healthz"
			if method == "POST" {
				if target = "/api/v1/ingest/nobody"; want == 200 {
					want = 404
				}
			}
			w := h.ask(method, target, `{"a":1}`, "Host", host)
			if w.Code != want {
				t.Errorf("%s Host %q: %d, want %d", method, host, w.Code, want)
			}
		}
	}
}

// TestOtherSites: a browser that another site makes send something is refused;
// programs, which say nothing of sites, are not.
func TestOtherSites(t *testing.T) {
	h := newHouse(t, pipeline.Options{})
	cookie := h.session(t)
	for _, c := range []struct {
		name string
		head []string
		want int
	}{
		{"a program", nil, 204},
		{"our own page", []string{"Sec-Fetch-Site", "same-origin"}, 204},
		{"typed by a person", []string{"Sec-Fetch-Site", "none"}, 204},
		{"our own page, old browser", []string{"Origin", "http://127.0.0.1:8420"}, 204},
		{"another site", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"another port of this machine", []string{"Sec-Fetch-Site", "same-site"}, 403},
		{"another site, old browser", []string{"Origin", "https://evil.example"}, 403},
		{"a sandboxed frame", []string{"Origin", "null"}, 403},
	} {
		for _, target := range []string{"/api/v1/settle", "/api/v1/ingest/nobody", "/es/nobody/_bulk"} {
			w := h.ask("POST", target, `{"a":1}`, slices.Concat(cookie, c.head)...)
			if refused := w.Code == 403 && strings.Contains(w.Body.String(), "another site"); refused != (c.want == 403) {
				t.Errorf("%s to %s: %d %s", c.name, target, w.Code, w.Body)
			}
			if target == "/api/v1/settle" && w.Code != c.want {
				t.Errorf("%s to %s: %d, want %d", c.name, target, w.Code, c.want)
			}
			if c.want == 403 {
				isProblem(t, w, "refused")
			}
		}
	}
}

func TestOneTimeSecret(t *testing.T) {
	h := newHouse(t, pipeline.Options{})
	enter := func(once string) *httptest.ResponseRecorder {
		return h.ask("GET", "/enter?once="+url.QueryEscape(once), "")
	}
	if w := enter(""); w.Code != 403 || len(w.Result().Cookies()) > 0 {
		t.Fatalf("no secret was made and none given: %d", w.Code)
	}
	old := h.OneTime()
	once := h.OneTime()
	for _, wrong := range []string{"", "x", old, once + "x", strings.ToLower(once)} {
		if w := enter(wrong); w.Code != 403 || len(w.Result().Cookies()) > 0 {
			t.Errorf("wrong secret %q: %d", wrong, w.Code)
		}
	}
	if w := h.ask("HEAD", "/enter?once="+url.QueryEscape(once), ""); w.Code != 405 || len(w.Result().Cookies()) > 0 {
		t.Errorf("a HEAD opened a session: %d", w.Code)
	}
	w := enter(once)
	if w.Code != 200 || w.Header().Get("Refresh") != "0; url=/" {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	c := w.Result().Cookies()[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" || len(c.Value) < 40 {
		t.Errorf("cookie %+v", c)
	}
	if w := enter(once); w.Code != 403 || len(w.Result().Cookies()) > 0 {
		t.Errorf("a second time: %d", w.Code)
	}
	head := []string{"Cookie", c.Name + "=" + c.Value}
	if w := h.ask("GET", "/api/v1/status", "", head...); w.Code != 200 {
		t.Errorf("with a session: %d", w.Code)
	}
	h.now = h.now.Add(sessionLife + time.Second)
	if w := h.ask("GET", "/api/v1/status", "", head...); w.Code != 401 {
		t.Errorf("after its life: %d", w.Code)
	}
}

// TestStrangers: whoever has no session learns nothing beside health and the
// description of the API; the socket needs none; import is for the socket alone.
func TestStrangers(t *testing.T) {
	h := newHouse(t, pipeline.Options{})
	cookie := h.session(t)
	for _, rt := range h.routes() {
		method, path, ok := strings.Cut(rt.pattern, " ")
		if !ok {
			method, path = "POST", rt.pattern+"_bulk"
		}
		path = strings.NewReplacer("{$}", "", "{source}", "nobody").Replace(path)
		if path == "/static/" {
			path = "/static/style.css"
		}
		for _, head := range [][]string{nil, {"Cookie", cookieName + "=guess"}} {
			w := h.ask(method, path, "{}", head...)
			switch rt.door {
			case secret:
				if w.Code != 401 {
					t.Errorf("%s without a session: %d", rt.pattern, w.Code)
				}
				if path != "/" {
					isProblem(t, w, "unauthorized")
				}
			case socketOnly:
				if w.Code != 404 && w.Code != 405 {
					t.Errorf("%s over the loopback address: %d", rt.pattern, w.Code)
				}
			default:
				if w.Code == 401 {
					t.Errorf("%s is not open: %d", rt.pattern, w.Code)
				}
			}
		}
		if rt.door == socketOnly {
			if w := h.ask(method, path, "{}", cookie...); w.Code != 404 && w.Code != 405 {
				t.Errorf("%s with a session: %d", rt.pattern, w.Code)
			}
		}
		// An empty request for rules is refused as one, which is an answer all the same.
		if w := send(h.Socket(), method, path, "{}"); rt.door == secret && w.Code >= 300 && (w.Code != 400 || path != "/api/v1/rules/run") {
			t.Errorf("%s over the socket: %d", rt.pattern, w.Code)
		}
	}
}

// TestSecurityHeaders: they stand on every answer, of whatever kind.
func TestSecurityHeaders(t *testing.T) {
	h := newHouse(t, pipeline.Options{})
	cookie := h.session(t)
	for _, c := range []struct {
		method, target string
		head           []string
	}{
		{"GET", "/", nil}, {"GET", "/", cookie}, {"GET", "/enter?once=x", nil}, {"GET", "/static/style.css", nil}, {"GET", "/static/none", nil},
		{"GET", "/healthz", nil}, {"GET", "/metrics", cookie}, {"GET", "/api/v1/status", cookie}, {"GET", "/api/v1/status", nil}, {"GET", "/nowhere", nil},
		{"DELETE", "/api/v1/status", cookie}, {"GET", "/", []string{"Host", "evil.example"}}, {"POST", "/api/v1/settle", []string{"Origin", "https://evil.example"}},
		{"POST", "/api/v1/ingest/nobody", nil}, {"GET", "/es/x/", nil},
	} {
		w := h.ask(c.method, c.target, "", c.head...)
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin",
		} {
			if got := w.Header().Get(name); !strings.Contains(got, want) {
				t.Errorf("%s %s %v (%d): %s is %q", c.method, c.target, c.head, w.Code, name, got)
			}
		}
		if w.Header().Get("Cache-Control") == "" && c.target != "/static/none" { // the library takes it off its errors
			t.Errorf("%s %s: no Cache-Control", c.method, c.target)
		}
		if strings.Contains(w.Header().Get("Content-Security-Policy"), "unsafe") || w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s %s: %v", c.method, c.target, w.Header())
		}
	}
}

// openAPI is the description that we serve.
func openAPI(t *testing.T) (paths map[string]map[string]any, compiler *jsonschema.Compiler) {
	t.Helper()
	data, err := fs.ReadFile(files, "openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	compiler = jsonschema.NewCompiler()
	if err := compiler.AddResource("api:///openapi.json", doc); err != nil {
		t.Fatal(err)
	}
	paths = make(map[string]map[string]any)
	for p, v := range doc.(map[string]any)["paths"].(map[string]any) {
		paths[p] = v.(map[string]any)
	}
	return paths, compiler
}

func schema(t *testing.T, at ...string) *jsonschema.Schema {
	t.Helper()
	_, c := openAPI(t)
	for i := range at {
		at[i] = strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(at[i])
	}
	s, err := c.Compile("api:///openapi.json#/" + strings.Join(at, "/"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// conforms checks JSON text against a schema.
func conforms(t *testing.T, s *jsonschema.Schema, text []byte) {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("no JSON: %v: %.200q", err, text)
	}
	if err := s.Validate(v); err != nil {
		t.Errorf("%v\n%.400s", err, text)
	}
}

// isProblem checks that an answer is a problem of RFC 9457 as described, with the
// code given.
func isProblem(t *testing.T, w *httptest.ResponseRecorder, code string) {
	t.Helper()
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("a problem of type %q: %s", got, w.Body)
		return
	}
	conforms(t, schema(t, "components", "responses", "Problem", "content", "application/problem+json", "schema"), w.Body.Bytes())
	var p struct {
		Status       int
		Code, Detail string
	}
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Code != code || p.Status != w.Code || p.Detail == "" {
		t.Errorf("%v, %+v with status %d, want code %s", err, p, w.Code, code)
	}
}

// TestOpenAPIAndRoutes: what is served is described, and the other way round.
func TestOpenAPIAndRoutes(t *testing.T) {
	described := map[string]bool{}
	paths, _ := openAPI(t)
	for p, ops := range paths {
		for method, op := range ops {
			described[strings.ToUpper(method)+" "+p] = true
			if op.(map[string]any)["operationId"] == nil || op.(map[string]any)["summary"] == nil {
				t.Errorf("%s %s has no name or no summary", method, p)
			}
		}
	}
	served := map[string]bool{}
	for _, rt := range new(Server).routes() {
		if _, path, _ := strings.Cut(rt.pattern, " "); strings.HasPrefix(path, "/api/") {
			served[rt.pattern] = true
		}
	}
	for r := range served {
		if !described[r] {
			t.Errorf("%s is served and not in openapi.json", r)
		}
	}
	for r := range described {
		if !served[r] {
			t.Errorf("%s is in openapi.json and not served", r)
		}
	}
	if len(served) < 10 {
		t.Errorf("only %d routes", len(served))
	}
	h := newHouse(t, pipeline.Options{})
	w := h.ask("GET", "/api/v1/openapi.json", "")
	if w.Code != 200 || !json.Valid(w.Body.Bytes()) || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

// TestAnswersAreAsDescribed validates every answer of a full house.
func TestAnswersAreAsDescribed(t *testing.T) {
	h := full(t)
	cookie := h.session(t)
	get := func(target, contentType string) []byte {
		t.Helper()
		w := h.ask("GET", target, "", cookie...)
		if w.Code != 200 || w.Header().Get("Content-Type") != contentType {
			t.Fatalf("%s: %d %q %.200s", target, w.Code, w.Header().Get("Content-Type"), w.Body)
		}
		return w.Body.Bytes()
	}
	for _, name := range []string{"status", "doctor"} {
		path := "/api/v1/" + name
		conforms(t, schema(t, "paths", path, "get", "responses", "200", "content", "application/json", "schema"), get(path, "application/json"))
	}
	lines := func(b []byte) [][]byte { return bytes.Split(bytes.TrimSpace(b), []byte("\n")) }
	row := schema(t, "components", "schemas", "Row")
	rows := lines(get("/api/v1/search?limit=50", "application/x-ndjson"))
	if len(rows) != 50 {
		t.Errorf("%d rows", len(rows))
	}
	for _, l := range append(rows, lines(get("/api/v1/search?q="+url.QueryEscape("kind = finding")+"&limit=5", "application/x-ndjson"))...) {
		conforms(t, row, l)
	}
	finding := schema(t, "components", "schemas", "Finding")
	found := lines(get("/api/v1/findings?limit=1000", "application/x-ndjson"))
	if len(found) < 20 {
		t.Errorf("%d findings", len(found))
	}
	for _, l := range found {
		conforms(t, finding, l)
	}
	stats := lines(get("/api/v1/search?q="+url.QueryEscape("* | stats count() by source"), "application/x-ndjson"))
	if string(stats[0]) != `{"columns":["source","count"]}` || len(stats) < 5 {
		t.Errorf("statistics: %s", stats[0])
	}
	var sources struct {
		Kept    []struct{ Source, Dataset string }
		Dropped []struct{ Path string }
		Refused []struct{ N int }
	}
	decode(t, get("/api/v1/sources", "application/json"), &sources)
	if len(sources.Kept) < 10 || len(sources.Dropped) == 0 || sources.Refused == nil {
		t.Errorf("sources %+v", sources)
	}
	var gaps []event.Gap
	decode(t, get("/api/v1/gaps", "application/json"), &gaps)
	if len(gaps) == 0 || gaps[0].Kind == "" {
		t.Errorf("gaps %+v", gaps)
	}
	var set struct {
		Digest         string
		Rules          []Rule
		Refused, Unfed []any
		Blind          []pipeline.Blind
	}
	decode(t, get("/api/v1/rules", "application/json"), &set)
	if len(set.Digest) != 64 || len(set.Rules) < 40 || set.Refused == nil || set.Unfed == nil || len(set.Blind) == 0 {
		t.Errorf("rules %s: %d, %v, %v, %d", set.Digest, len(set.Rules), set.Refused, set.Unfed, len(set.Blind))
	}
	if w := h.ask("POST", "/api/v1/settle", "", cookie...); w.Code != 204 || w.Body.Len() > 0 {
		t.Errorf("settle: %d", w.Code)
	}

	// An empty house answers lists, never null.
	empty := newHouse(t, pipeline.Options{})
	for _, name := range []string{"sources", "gaps", "rules", "doctor"} {
		w := send(empty.Socket(), "GET", "/api/v1/"+name, "")
		if w.Code != 200 || strings.Contains(w.Body.String(), "null") {
			t.Errorf("%s of an empty house: %d %.300s", name, w.Code, w.Body)
		}
	}
}

func decode(t *testing.T, b []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%v: %.200s", err, b)
	}
}

func TestIngestAnswers(t *testing.T) {
	h := newHouse(t, pipeline.Options{})
	good := `{"time":"2026-03-05T16:00:00Z","event":"signin","user":"mhalvorsen@agency.example","src_ip":"203.0.113.9","country":"US","result":"success","mfa":true,"client_app":"browser"}` + "\n"
	w := h.ask("POST", "/api/v1/ingest/idp", good+"{\n"+good, "Content-Type", "application/x-ndjson", "Idempotency-Key", "k1")
	conforms(t, schema(t, "paths", "/api/v1/ingest/{source}", "post", "responses", "200", "content", "application/json", "schema"), w.Body.Bytes())
	var a collect.Answer
	decode(t, w.Body.Bytes(), &a)
	if w.Code != 200 || a.Accepted != 2 || len(a.Errors) != 1 || a.Errors[0].Line != 2 || a.Errors[0].Code != "bad_line" {
		t.Errorf("%d %+v", w.Code, a)
	}
	var again collect.Answer
	w = h.ask("POST", "/api/v1/ingest/idp", good+"{\n"+good, "Content-Type", "application/x-ndjson", "Idempotency-Key", "k1")
	decode(t, w.Body.Bytes(), &again)
	if !again.Repeated || again.First != a.First || again.Last != a.Last || again.Accepted != 2 {
		t.Errorf("a repeat: %+v after %+v", again, a)
	}
	for _, c := range []struct {
		name, path, body, code string
		status                 int
		head                   []string
	}{
		{"key reused", "/api/v1/ingest/idp", good, "key_reused", 409, []string{"Idempotency-Key", "k1"}},
		{"unknown source", "/api/v1/ingest/nobody", good, "source_unknown", 404, nil},
		{"no assessment", "/api/v1/ingest/idp", `{"planted":1}`, "pia_missing", 403, nil},
		{"too large", "/api/v1/ingest/idp", strings.Repeat(good, 17<<20/len(good)), "too_large", 413, nil},
		{"no name", "/api/v1/ingest/a%20b", good, "source_unknown", 404, nil},
		{"media type", "/api/v1/ingest/idp", good, "media_type", 415, []string{"Content-Type", "image/png"}},
		{"encoding", "/api/v1/ingest/idp", good, "media_type", 415, []string{"Content-Encoding", "br"}},
		{"bad gzip", "/api/v1/ingest/idp", good, "bad_request", 400, []string{"Content-Encoding", "gzip"}},
		{"bad key", "/api/v1/ingest/idp", good, "bad_request", 400, []string{"Idempotency-Key", "\x01"}},
	} {
		w := h.ask("POST", c.path, c.body, c.head...)
		if w.Code != c.status {
			t.Errorf("%s: %d, want %d: %s", c.name, w.Code, c.status, w.Body)
		}
		isProblem(t, w, c.code)
		if strings.Contains(w.Body.String(), "mhalvorsen") {
			t.Errorf("%s: the answer holds a value: %s", c.name, w.Body)
		}
	}

	low := newHouse(t, pipeline.Options{Reserve: 1 << 60})
	w = low.ask("POST", "/api/v1/ingest/idp", good)
	isProblem(t, w, "disk_low")
	if w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("a full disk: %d %v", w.Code, w.Header())
	}
	if w := low.ask("GET", "/healthz", ""); w.Code != 503 || !strings.Contains(w.Body.String(), "disk") {
		t.Errorf("health of a full disk: %d %s", w.Code, w.Body)
	}
}

func TestQuestionsAreChecked(t *testing.T) {
	h := newHouse(t, pipeline.Options{})
	cookie := h.session(t)
	for _, q := range []string{"q=foo+%3D+(", "limit=0", "limit=x", "limit=1000001", "from=yesterday", "to=12", "q=%ff", "q=" + strings.Repeat("a+", 20_000)} {
		for _, path := range []string{"/api/v1/search", "/api/v1/findings"} {
			w := h.ask("GET", path+"?"+q, "", cookie...)
			if w.Code != 400 {
				t.Errorf("%s?%.40s: %d", path, q, w.Code)
			}
			isProblem(t, w, "bad_request")
		}
	}
	for _, body := range []string{"", "{", `{"paths":["/x"],"source":"s","colour":"green"}`, "[]"} {
		w := send(h.Socket(), "POST", "/api/v1/import", body)
		if w.Code != 400 {
			t.Errorf("import of %q: %d", body, w.Code)
		}
		isProblem(t, w, "bad_request")
	}
	w := send(h.Socket(), "POST", "/api/v1/import", `{"paths":["/x"],"source":"s"}`)
	var l ImportLine
	decode(t, bytes.TrimSpace(w.Body.Bytes()), &l)
	if w.Code != 200 || l.Report == nil || l.Report.Accepted != 7 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestHealthAndMetrics(t *testing.T) {
	h := full(t)
	if w := h.ask("GET", "/healthz", ""); w.Code != 200 || w.Body.String() != "ok\n" {
		t.Errorf("health: %d %q", w.Code, w.Body)
	}
	if w := h.ask("POST", "/api/v1/ingest/nobody", `{"a":1}`); w.Code != 404 {
		t.Fatal(w.Code)
	}
	w := h.ask("GET", "/metrics", "", h.session(t)...)
	text := w.Body.String()
	for _, want := range []string{
		`(?m)^counterseal_events_kept_total\{dataset="signin",source="idp"\} [1-9]`, `(?m)^counterseal_records_refused_total\{dataset="json",source="nobody"\} 1$`,
		`(?m)^counterseal_gaps [1-9]`, `(?m)^counterseal_index_rows_total [1-9]`, `(?m)^counterseal_index_rows_dropped_total 0$`, `(?m)^counterseal_ready 1$`,
	} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("no metric like %s", want)
		}
	}
	if w.Code != 200 || t.Failed() {
		t.Logf("%d\n%s", w.Code, text)
	}
}

// page parses a page strictly enough that an unclosed or unquoted thing is an
// error, and checks that nothing in it leaves this server or runs.
func page(t *testing.T, body []byte) (text string) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(body))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	var b strings.Builder
	var open []string
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the page does not parse: %v", err)
		}
		switch v := tok.(type) {
		case xml.StartElement:
			open = append(open, v.Name.Local)
			switch v.Name.Local {
			case "script", "style", "iframe", "object", "embed", "img", "base":
				t.Errorf("the page holds <%s>", v.Name.Local)
			}
			for _, a := range v.Attr {
				name := a.Name.Local
				switch {
				case name == "style" || strings.HasPrefix(name, "on"):
					t.Errorf("<%s> has the attribute %s", v.Name.Local, name)
				case slices.Contains([]string{"href", "src", "action", "formaction", "poster", "data"}, name):
					if u, err := url.Parse(a.Value); err != nil || u.Host != "" || u.Scheme != "" {
						t.Errorf("<%s %s=%q> leaves this server", v.Name.Local, name, a.Value)
					}
				}
			}
		case xml.EndElement:
			if len(open) == 0 || open[len(open)-1] != v.Name.Local {
				t.Fatalf("</%s> closes %v", v.Name.Local, open)
			}
			open = open[:len(open)-1]
		case xml.CharData:
			b.Write(v)
			b.WriteByte('\n')
		}
	}
	if len(open) > 0 {
		t.Fatalf("not closed: %v", open)
	}
	for _, c := range b.String() {
		if c != '\n' && (c < ' ' || c == 0x7f || c >= 0x202a && c <= 0x202e || c >= 0x2066 && c <= 0x2069) {
			t.Errorf("the page shows the control character %U", c)
			break
		}
	}
	return b.String()
}

func TestStartPageEmpty(t *testing.T) {
	h := newHouse(t, pipeline.Options{})
	w := h.ask("GET", "/", "", h.session(t)...)
	text := page(t, w.Body.Bytes())
	for _, want := range []string{"Nothing has been collected", "No rule has matched yet"} {
		if !strings.Contains(text, want) {
			t.Errorf("an empty page does not say %q", want)
		}
	}
	stranger := h.ask("GET", "/", "")
	if !strings.Contains(page(t, stranger.Body.Bytes()), "needs the address that the server printed") || stranger.Code != 401 {
		t.Errorf("a stranger: %d", stranger.Code)
	}
	page(t, h.ask("GET", "/enter?once="+h.OneTime(), "").Body.Bytes())
}

func TestStartPageFull(t *testing.T) {
	h := full(t)
	cookie := h.session(t)
	text := page(t, h.ask("GET", "/", "", cookie...).Body.Bytes())
	for _, want := range []string{"A story.", "Memory Dump With comsvcs.dll", "fileserver", "critical", "PIA-SERVERS-2026-001, PIA-WORKSTATIONS-2026-001 are unsigned"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	for q, want := range map[string]string{
		"source = idp":                    "idp",
		"* | stats count() by dataset":    "win-sysmon",
		"foo = (":                         "at character 7",
		"native.nothing = 1":              "Nothing matches",
		"<script>alert(1)</script>":       "at character",
		`"><img src=x onerror=alert(1)>`:  "",
		"\x1b[31m":                        "",
		strings.Repeat("word and ", 4000): "",
	} {
		w := h.ask("GET", "/?q="+url.QueryEscape(q), "", cookie...)
		if w.Code != 200 {
			t.Errorf("%.40q: %d", q, w.Code)
			continue
		}
		if text := page(t, w.Body.Bytes()); !strings.Contains(text, want) {
			t.Errorf("the answer to %.40q does not say %q", q, want)
		}
	}
}

// TestHostileTextIsText: what a log says reaches a page as text, never as markup,
// address or control character.
func TestHostileTextIsText(t *testing.T) {
	h := newHouse(t, pipeline.Options{})
	evil := `</td><script>alert(1)</script><img src=x onerror=alert(2)>\" onmouseover=\"x` + `\u001b]0;t\u0007\u202e javascript:alert(3) {{.}}`
	for i, line := range []string{
		fmt.Sprintf(`{"@timestamp":"2026-03-05T16:00:00Z","winlog":{"channel":"Microsoft-Windows-Sysmon/Operational","event_id":1,"record_id":1,"computer_name":"%s","provider_name":"Microsoft-Windows-Sysmon","event_data":{"Image":"C:\\Windows\\System32\\rundll32.exe","CommandLine":"rundll32.exe comsvcs.dll, MiniDump 1 x full %s","User":"AGENCY\\%s"}}}`, evil, evil, evil),
	} {
		w := h.ask("POST", "/api/v1/ingest/workstations", line, "Content-Type", "application/x-ndjson")
		var a collect.Answer
		decode(t, w.Body.Bytes(), &a)
		if w.Code != 200 || a.Accepted != 1 {
			t.Fatalf("line %d: %d %s", i, w.Code, w.Body)
		}
	}
	h.settled(t)
	cookie := h.session(t)
	for _, target := range []string{"/", "/?q=" + url.QueryEscape("source = workstations"), "/?q=" + url.QueryEscape("* | stats count() by process.cmd_line, device.hostname, native.CommandLine")} {
		w := h.ask("GET", target, "", cookie...)
		text := page(t, w.Body.Bytes())
		if !strings.Contains(text, "<script>alert(1)</script>") {
			t.Errorf("%s does not show the text: the test shows nothing", target)
		}
	}
	w := h.ask("GET", "/api/v1/search", "", cookie...)
	if ct := w.Header().Get("Content-Type"); ct != "application/x-ndjson" || bytes.Contains(w.Body.Bytes(), []byte("<script")) {
		t.Errorf("JSON of type %q with markup in clear: %.300s", ct, w.Body)
	}
}

// TestFilesAreOurs: templates and style sheet name no address outside.
func TestFilesAreOurs(t *testing.T) {
	n := 0
	err := fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path == "openapi.json" {
			return err
		}
		n++
		b, err := fs.ReadFile(files, path)
		if err != nil {
			return err
		}
		b = bytes.ReplaceAll(b, []byte(`<script type="module" src="/static/js/signin.js"></script>`), nil) // our own, by address
		for _, bad := range []string{`https?:`, `["'(=]//`, `@import`, `url\(`, `\sstyle=`, `<script`, `\son[a-z]+=`} {
			if m := regexp.MustCompile(bad).FindIndex(b); m != nil {
				t.Errorf("%s holds %q", path, b[m[0]:min(len(b), m[1]+30)])
			}
		}
		return nil
	})
	if err != nil || n < 4 {
		t.Fatalf("%v, %d files", err, n)
	}
}

// TestEveryLookIsAStatement: each request of a person stands in the ledger with who
// asked and, as a payload, what; what the ledger cannot take is not answered.
func TestEveryLookIsAStatement(t *testing.T) {
	h := full(t)
	rec := h.pipe.Recorder()
	ask := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "http://localhost"+path, nil)
		h.Socket().ServeHTTP(w, r.WithContext(WithActor(r.Context(), "os:1234")))
		return w
	}
	last := func() (s ledger.Statement, n uint64) {
		next, err := rec.Ledger().Each(t.Context(), 0, func(_ uint64, st ledger.Statement, _ []byte) error { s = st; return nil })
		if err != nil {
			t.Fatal(err)
		}
		return s, next
	}
	for _, rt := range h.routes() {
		if (rt.door == secret || rt.door == socketOnly) && !rt.look && !strings.Contains(rt.pattern, "/metrics") && !strings.Contains(rt.pattern, "/settle") {
			t.Errorf("%s is a look that leaves no statement", rt.pattern)
		}
	}
	_, before := last()
	secretWord := "needle-in-a-question"
	if w := ask("/api/v1/search?q=" + secretWord); w.Code != 200 {
		t.Fatal(w.Code, w.Body)
	}
	s, after := last()
	if after != before+1 || s.Kind != "request.served" || s.Actor != "os:1234" {
		t.Fatalf("%d statements more, the last %s by %s", after-before, s.Kind, s.Actor)
	}
	leaf, err := s.Canonical()
	if err != nil || strings.Contains(string(leaf), secretWord) {
		t.Fatalf("the leaf holds the question: %s", leaf)
	}
	var d struct {
		Route    string
		Status   int
		Question ledger.Digest
	}
	if err := json.Unmarshal(s.Detail, &d); err != nil || d.Status != 200 || d.Route != "GET /api/v1/search" {
		t.Fatal(string(s.Detail), err)
	}
	payload, err := rec.Ledger().Payload(d.Question)
	if err != nil || !strings.Contains(string(payload), secretWord) {
		t.Fatalf("the payload lacks the question: %s, %v", payload, err)
	}
	if w := ask("/api/v1/search?q=(("); w.Code != 400 {
		t.Fatal(w.Code)
	}
	if s, _ = last(); !strings.Contains(string(s.Detail), `"status":400`) {
		t.Fatalf("a refused question: %s", s.Detail)
	}
	if w := ask("/healthz"); w.Code != 200 {
		t.Fatal(w.Code)
	}
	if _, n := last(); n != after+1 {
		t.Fatal("a health check became a statement")
	}

	h.broken = true
	if err := rec.Ledger().Close(); err != nil {
		t.Fatal(err)
	}
	w := ask("/api/v1/search?q=*")
	if w.Code != 503 || !strings.Contains(w.Body.String(), `"code":"ledger"`) || strings.Contains(w.Body.String(), `"ref"`) {
		t.Fatalf("answered without a statement: %d %s", w.Code, w.Body)
	}
}
