package collect

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/counterseal/counterseal/internal/event"
)

// Bulk speaks as much of Elasticsearch 8 as Filebeat and Winlogbeat need to send
// records: the questions that they ask first, and `_bulk`. It stores nothing under
// a name and answers no search.
//
// The source is named by the path, `/es/{source}/_bulk`, so a Beat is told
// `hosts: ["https://server/es/idp"]`; without it HTTPOptions.Source holds. The
// `_index` of an action becomes Frame.Dataset. `_id` is not kept, so a Beat that
// sends a request again after it lost the answer sends records twice: use Ingest
// with a key where that matters.
//
// Templates, policies and pipelines are answered as present and as taken: the
// records keep the producer's own fields here and need none.
func (h *HTTP) Bulk() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Elastic-Product", "Elasticsearch")
		source, path := h.bulkPath(r.URL.Path)
		if err := h.bulk(w, r, source, path); err != nil {
			h.bulkProblem(w, r, err)
		}
	})
}

// bulkPath takes `/es/{source}` off a path.
func (h *HTTP) bulkPath(path string) (source, rest string) {
	if p, ok := strings.CutPrefix(path, "/es/"); ok {
		source, rest, _ = strings.Cut(p, "/")
		return source, strings.Trim(rest, "/")
	}
	return h.o.Source, strings.Trim(path, "/")
}

func (h *HTTP) bulk(w http.ResponseWriter, r *http.Request, source, path string) error {
	first, _, _ := strings.Cut(path, "/")
	asks := r.Method == http.MethodGet || r.Method == http.MethodHead
	puts := r.Method == http.MethodPut || r.Method == http.MethodPost
	switch {
	case path == "" && asks:
		return bulkAnswer(w, r, map[string]any{
			"name": "counterseal", "cluster_name": "counterseal", "cluster_uuid": "_na_",
			"version": map[string]any{
				"number": h.o.Version, "build_flavor": "default", "build_type": "tar", "build_snapshot": false,
				"minimum_wire_compatibility_version": "7.17.0", "minimum_index_compatibility_version": "7.0.0",
			},
			"tagline": "takes records, answers no search",
		})
	case path == "_bulk" && puts:
		return h.bulkRecords(w, r, source, "")
	case strings.HasSuffix(path, "/_bulk") && puts && strings.Count(path, "/") == 1:
		return h.bulkRecords(w, r, source, first)
	case path == "_license" && asks:
		return bulkAnswer(w, r, map[string]any{"license": map[string]any{"status": "active", "uid": "counterseal", "type": "basic", "mode": "basic"}})
	case path == "_xpack" && asks:
		return bulkAnswer(w, r, map[string]any{
			"license":  map[string]any{"status": "active", "uid": "counterseal", "type": "basic", "mode": "basic"},
			"features": map[string]any{"ilm": map[string]any{"available": true, "enabled": true}},
		})
	case path == "_cluster/health" && asks:
		return bulkAnswer(w, r, map[string]any{"cluster_name": "counterseal", "status": "green", "timed_out": false, "number_of_nodes": 1})
	}
	switch first {
	case "_index_template", "_component_template", "_template", "_data_stream", "_ilm", "_ingest":
		if asks {
			return bulkAnswer(w, r, map[string]any{})
		}
		if puts {
			// Read to its end, so that the connection can be used again.
			io.Copy(io.Discard, io.LimitReader(r.Body, h.o.MaxBody))
			return bulkAnswer(w, r, map[string]any{"acknowledged": true})
		}
	}
	return &event.Refusal{Code: codeNoRoute, Reason: "only records are taken here", Hint: "POST to _bulk"}
}

const codeNoRoute = "no_such_route"

// bulkItem is one action and what became of it.
type bulkItem struct {
	action string
	index  string
	err    *event.LineError
}

// bulkAction is the only thing read of an action line.
type bulkAction struct {
	Index string `json:"_index"`
}

func (h *HTTP) bulkRecords(w http.ResponseWriter, r *http.Request, source, index string) error {
	start := h.o.Now()
	if !isName(source) {
		return &event.Refusal{Code: "source_unknown", Reason: "no source is named", Hint: "send to /es/{source}, with a source of the configuration"}
	}
	body, free, err := h.body(w, r)
	if err != nil {
		return err
	}
	defer free()
	b := event.Batch{Source: source, Way: WayBulk, Peer: requestPeer(r), Received: start, Zone: h.o.Zone}
	items := readBulk(body, index, &b)
	if len(items) == 0 {
		return &event.Refusal{Code: codeBadRequest, Reason: "the body holds no action"}
	}
	if len(b.Frames) > maxRecords {
		return errTooMany
	}
	res, err := h.seal(r.Context(), b)
	if err != nil {
		return err
	}
	for _, e := range lineErrors(b.Errors, res.Errors) {
		if e.Line >= 1 && e.Line <= len(items) {
			items[e.Line-1].err = &e
		}
	}
	return bulkResult(w, r, items, h.o.Now().Sub(start))
}

// readBulk reads pairs of action and record. Each action is an item, from 1; items
// that cannot be taken are errors of the batch. An action that cannot be read costs
// itself: the next line that is an action goes on.
func readBulk(body []byte, index string, b *event.Batch) []bulkItem {
	var items []bulkItem
	refuse := func(raw []byte, code, reason string) {
		b.Frames = append(b.Frames, refused(raw, len(items), code, reason))
	}
	const (
		wantAction = iota
		wantRecord
		skipRecord
		lost // behind an action that could not be read
	)
	state := wantAction
	for raw := range bytes.Lines(bytes.TrimPrefix(body, bom)) {
		if len(b.Frames) > maxRecords {
			return items
		}
		line := bytes.TrimRight(raw, "\r\n")
		if len(bytes.TrimSpace(line)) == 0 && state != wantRecord {
			continue
		}
		switch state {
		case skipRecord:
			state = wantAction
			b.Frames[len(b.Frames)-1].Bytes = line // what is looked at for protected channels
			continue
		case wantRecord:
			state = wantAction
			it := &items[len(items)-1]
			switch {
			case len(line) > event.MaxFrame:
				refuse(line, CodeTooLarge, fmt.Sprintf("longer than %d bytes", event.MaxFrame))
			case !json.Valid(line) || bytes.TrimLeft(line, " \t")[0] != '{':
				refuse(line, CodeBadLine, "the record is no JSON object")
			default:
				f := event.Frame{Bytes: line, Line: len(items)}
				if isName(it.index) {
					f.Dataset = it.index
				}
				b.Frames = append(b.Frames, f)
			}
			continue
		}
		action, at, ok := readAction(line, index)
		if !ok {
			if state != lost {
				items = append(items, bulkItem{action: "index", index: index})
				refuse(line, CodeBadLine, "the action cannot be read")
			}
			state = lost
			continue
		}
		items = append(items, bulkItem{action: action, index: at})
		switch action {
		case "index", "create":
			state = wantRecord
		case "update":
			refuse(line, "refused", "records are only added")
			state = skipRecord
		default:
			refuse(line, "refused", "records are only added")
			state = wantAction
		}
	}
	if state == wantRecord {
		refuse(nil, CodeBadLine, "the action has no record")
	}
	return items
}

func readAction(line []byte, index string) (action, at string, ok bool) {
	if len(line) > 64<<10 {
		return "", "", false
	}
	var m map[string]json.RawMessage
	if json.Unmarshal(line, &m) != nil || len(m) != 1 {
		return "", "", false
	}
	for name, meta := range m {
		switch name {
		case "index", "create", "update", "delete":
		default:
			return "", "", false
		}
		a := bulkAction{Index: index}
		if json.Unmarshal(meta, &a) != nil {
			return "", "", false
		}
		return name, a.Index, true
	}
	return "", "", false
}

type bulkError struct {
	Type   string `json:"type"`
	Reason string `json:"reason"`
}

type bulkStatus struct {
	Index  string     `json:"_index"`
	Status int        `json:"status"`
	Result string     `json:"result,omitempty"`
	Error  *bulkError `json:"error,omitempty"`
}

func bulkResult(w http.ResponseWriter, r *http.Request, items []bulkItem, took time.Duration) error {
	ans := struct {
		Took   int64                   `json:"took"`
		Errors bool                    `json:"errors"`
		Items  []map[string]bulkStatus `json:"items"`
	}{Took: took.Milliseconds(), Items: make([]map[string]bulkStatus, 0, len(items))}
	for _, it := range items {
		st := bulkStatus{Index: it.index, Status: http.StatusCreated, Result: "created"}
		if it.err != nil {
			ans.Errors = true
			st = bulkStatus{Index: it.index, Status: http.StatusBadRequest, Error: &bulkError{it.err.Code, it.err.Reason}}
		}
		ans.Items = append(ans.Items, map[string]bulkStatus{it.action: st})
	}
	return bulkAnswer(w, r, ans)
}

// elasticMedia is what a client of Elasticsearch 8 asks for and wants to be told.
const elasticMedia = "application/vnd.elasticsearch+json"

func bulkAnswer(w http.ResponseWriter, r *http.Request, v any) error {
	return writeJSON(w, http.StatusOK, bulkMedia(r), v)
}

func bulkMedia(r *http.Request) string {
	if strings.Contains(r.Header.Get("Accept"), elasticMedia) {
		return elasticMedia + ";compatible-with=8"
	}
	return "application/json"
}

// bulkProblem answers no to the whole request, as Elasticsearch does. A Beat keeps
// its records and tries again.
func (h *HTTP) bulkProblem(w http.ResponseWriter, r *http.Request, err error) {
	no := h.refusalOf(r, err)
	status := statusOf(no.Code)
	if no.Code == codeNoRoute {
		status = http.StatusNotFound
	}
	setRetry(w, no)
	cause := bulkError{no.Code, no.Reason}
	writeJSON(w, status, bulkMedia(r), map[string]any{
		"error":  map[string]any{"root_cause": []bulkError{cause}, "type": cause.Type, "reason": cause.Reason},
		"status": status,
	})
}
