package collect

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/counterseal/counterseal/internal/event"
)

// exchange is one request of a Beat and what it wants to see. The files in
// testdata/bulk follow what the client of Beats 8 sends and reads: its encoder, its
// connection, its loaders of template and policy.
type exchange struct {
	Do     string            `json:"do"` // method and path
	Header map[string]string `json:"header,omitempty"`
	Gzip   bool              `json:"gzip,omitempty"`
	Body   []json.RawMessage `json:"body,omitempty"`
	Status int               `json:"status"`
	Answer map[string]any    `json:"answer,omitempty"` // must be in the answer
	Frames int               `json:"frames,omitempty"`
}

func TestBulkExchanges(t *testing.T) {
	files, err := filepath.Glob("testdata/bulk/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no exchanges: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var steps []exchange
			if err := json.Unmarshal(raw, &steps); err != nil {
				t.Fatal(err)
			}
			var e evidence
			_, s := ingestServer(t, &e, HTTPOptions{})
			var want []string
			for _, x := range steps {
				method, path, _ := strings.Cut(x.Do, " ")
				var body strings.Builder
				for i, line := range x.Body {
					body.Write(line)
					body.WriteByte('\n')
					if x.Frames > 0 && i%2 == 1 {
						want = append(want, string(line))
					}
				}
				var header []string
				for k, v := range x.Header {
					header = append(header, k, v)
				}
				send, media := body.String(), ""
				if len(x.Body) > 0 {
					media = "application/json; charset=UTF-8"
				}
				if x.Gzip {
					send = zipped(t, send)
					header = append(header, "Content-Encoding", "gzip")
				}
				before := len(e.lines())
				resp, v := sendTo(t, method, s.URL+path, media, send, header)
				if resp.StatusCode != x.Status {
					t.Fatalf("%s: %d %v", x.Do, resp.StatusCode, v)
				}
				if resp.Header.Get("X-Elastic-Product") != "Elasticsearch" {
					t.Errorf("%s: no product header", x.Do)
				}
				for k, w := range x.Answer {
					if diff := cmp.Diff(w, v[k]); diff != "" {
						t.Errorf("%s: %s: %s", x.Do, k, diff)
					}
				}
				if got := len(e.lines()) - before; got != x.Frames {
					t.Errorf("%s: %d frames", x.Do, got)
				}
			}
			if diff := cmp.Diff(want, e.lines()); diff != "" {
				t.Error(diff)
			}
			if len(e.batches) == 0 {
				t.Fatal("the exchange holds no records")
			}
			b := e.batches[0]
			if b.Source != "beats" || b.Way != WayBulk || b.Frames[0].Dataset == "" {
				t.Errorf("%+v", b)
			}
		})
	}
}

func sendTo(t *testing.T, method, url, media, body string, header []string) (*http.Response, map[string]any) {
	return send(t, method, url, media, body, header...)
}

func TestBulkItems(t *testing.T) {
	body := strings.Join([]string{
		`{"create":{"_index":"filebeat-8.15.0"}}`, `{"message":"one"}`,
		`{"delete":{"_index":"x","_id":"1"}}`,
		`{"update":{"_index":"x","_id":"1"}}`, `{"doc":{}}`,
		`{"index":{}}`, `{"message":`,
		`{"index":{"_index":"a b"}}`, `{"message":"two"}`,
		`{"nonsense":{}}`, `{"message":"lost"}`,
		`{"index":{"_index":"i"}}`, `"text"`,
		`{"index":{"_index":"i"}}`, ``,
		`{"index":{"_index":"i"}}`, `{"message":"three"}`,
		`{"create":{}}`,
	}, "\n")
	var e evidence
	_, s := ingestServer(t, &e, HTTPOptions{Source: "beats"})
	resp, v := send(t, "POST", s.URL+"/dflt/_bulk", "application/x-ndjson", body)
	if resp.StatusCode != 200 || v["errors"] != true {
		t.Fatalf("%d %v", resp.StatusCode, v)
	}
	var got []string
	for _, it := range v["items"].([]any) {
		for action, st := range it.(map[string]any) {
			m := st.(map[string]any)
			got = append(got, fmt.Sprintf("%s %v %v", action, m["_index"], m["status"]))
		}
	}
	want := []string{
		"create filebeat-8.15.0 201", "delete x 400", "update x 400", "index dflt 400", "index a b 201", "index dflt 400", "index i 400", "index i 400",
		"index i 201", "create dflt 400",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{`{"message":"one"}`, `{"message":"two"}`, `{"message":"three"}`}, e.lines()); diff != "" {
		t.Error(diff)
	}
	var sets []string
	for _, f := range e.batches[0].Frames {
		sets = append(sets, f.Dataset)
	}
	if diff := cmp.Diff([]string{"filebeat-8.15.0", "", "i"}, sets); diff != "" {
		t.Error(diff)
	}
}

func TestBulkRefusals(t *testing.T) {
	var code string
	e := evidence{before: func(*event.Batch) error { return &event.Refusal{Code: code, Reason: "because"} }}
	_, s := ingestServer(t, &e, HTTPOptions{})
	body := "{\"index\":{\"_index\":\"i\"}}\n{\"a\":1}\n"
	for c, status := range map[string]int{"pia_missing": 403, "busy": 429, "disk_low": 503} {
		code = c
		resp, v := send(t, "POST", s.URL+"/es/beats/_bulk", "application/json", body)
		if resp.StatusCode != status || v["status"] != float64(status) || v["error"].(map[string]any)["type"] != c {
			t.Errorf("%s: %d %v", c, resp.StatusCode, v)
		}
	}
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"POST", "/_bulk", 404}, {"POST", "/es/", 404}, {"GET", "/es/beats/_search", 404}, {"POST", "/es/beats/a/b/_bulk", 404}, {"DELETE", "/es/beats/_index_template/x", 404},
	} {
		if resp, v := send(t, c.method, s.URL+c.path, "application/json", body); resp.StatusCode != c.status {
			t.Errorf("%s %s: %d %v", c.method, c.path, resp.StatusCode, v)
		}
	}
	if resp, _ := send(t, "POST", s.URL+"/es/beats/_bulk", "application/json", "\n"); resp.StatusCode != 400 {
		t.Errorf("an empty body: %d", resp.StatusCode)
	}
}

func FuzzBulk(f *testing.F) {
	for _, s := range []string{
		"{\"index\":{\"_index\":\"i\"}}\n{\"a\":1}\n", "{\"delete\":{}}\n{\"create\":{}}\n{}\n", "{\"update\":{}}\n\n{\"index\":1}\n{\"index\":null}\n{}", "\xef\xbb\xbf{}\n[]\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var b event.Batch
		items := readBulk(in, "d", &b)
		// Each item is a frame or an error, and none is both.
		seen := make(map[int]int)
		for _, x := range b.Frames {
			seen[x.Line]++
			if !json.Valid(x.Bytes) {
				t.Errorf("item %d is no JSON", x.Line)
			}
		}
		for _, x := range b.Errors {
			seen[x.Line]++
		}
		if len(seen) != len(items) {
			t.Errorf("%d items, %d answers", len(items), len(seen))
		}
		for i := range items {
			if seen[i+1] != 1 {
				t.Errorf("item %d has %d answers", i+1, seen[i+1])
			}
		}
	})
}
