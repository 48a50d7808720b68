package pipeline

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/collect"
	"github.com/counterseal/counterseal/internal/event"
)

// TestBrokenContactLeavesNoTrace: a contact with a protected channel in a line that
// is no JSON, or in what an import cannot frame, leaves no refusal behind.
func TestBrokenContactLeavesNoTrace(t *testing.T) {
	docs, b := twoCompartments(t)
	lines := func(with bool, contact string) string {
		var out []string
		for i, f := range b.Frames {
			out = append(out, string(f.Bytes))
			if with && i == 3 {
				out = append(out, contact)
			}
		}
		return strings.Join(append(out, `{"broken`), "\n") + "\n"
	}
	action := `{"index":{}}` + "\n"
	ways := map[string]func(*system, bool) error{
		"ndjson": func(s *system, with bool) error {
			return post(s, "/api/v1/ingest/idp", "application/x-ndjson", lines(with, `{"mail":"hotline@oig.example"`))
		},
		"json": func(s *system, with bool) error {
			body := strings.TrimSuffix(lines(with, `{"mail":"hotline@oig.example",01}`), "\n{\"broken\n")
			return post(s, "/api/v1/ingest/idp", "application/json", "["+strings.ReplaceAll(body, "\n", ",")+"]")
		},
		"bulk": func(s *system, with bool) error {
			var body strings.Builder
			for l := range strings.Lines(lines(with, "")) {
				switch {
				case l != "\n":
					body.WriteString(action + l)
				default:
					body.WriteString(action + `{"mail":"hotline@oig.example"` + "\n")
					body.WriteString(`{"update":{"_index":"x"}}` + "\n" + `{"doc":{"mail":"hotline@oig.example"}}` + "\n")
				}
			}
			return post(s, "/es/idp/_bulk", "application/x-ndjson", body.String())
		},
		"import": func(s *system, with bool) error {
			path := filepath.Join(t.TempDir(), "x.json")
			text := "[" + string(b.Frames[0].Bytes) + "]\n"
			if with {
				text += "hotline@oig.example is no JSON\n"
			}
			text += string(b.Frames[1].Bytes) + "\nneither is this\n"
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				return err
			}
			r, err := collect.Import(t.Context(), collect.ImportOptions{Paths: []string{path}, Source: "idp", Sink: s.Accept,
				Withhold: s.Withholds("idp", ""), Now: func() time.Time { return at }})
			if err == nil && (r.Accepted != 2 || r.Refused != 1) {
				err = fmt.Errorf("%+v", r)
			}
			return err
		},
	}
	for name, send := range ways {
		var held [2]string
		for i, with := range []bool{false, true} {
			dir := t.TempDir()
			seeded(t, dir)
			s := start(t, Options{Dir: dir, Documents: docs})
			if err := send(s, with); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := s.Settle(t.Context()); err != nil {
				t.Fatal(err)
			}
			h := hold(t, s)
			if len(h.Cards) == 0 {
				t.Fatalf("%s: nothing is sealed", name)
			}
			held[i] = fmt.Sprint(h, s.Refused())
			s.stop()
		}
		if held[0] != held[1] {
			t.Errorf("%s: the contact left a trace:\n%s\n%s", name, held[0], held[1])
		}
	}
}

// post sends a body to the ways in by HTTP.
func post(s *system, path, contentType, body string) error {
	h, err := collect.NewHTTP(collect.HTTPOptions{Sink: s.Accept, Now: func() time.Time { return at }})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/api/v1/ingest/{source}", h.Ingest())
	mux.Handle("/es/", h.Bulk())
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		return fmt.Errorf("%d: %s", w.Code, w.Body)
	}
	return nil
}

// TestRecordThatGrows: a record whose tokens are too long for one sealed record is
// refused by its line; its neighbours are kept.
func TestRecordThatGrows(t *testing.T) {
	docs, b := twoCompartments(t)
	s := start(t, Options{Dir: t.TempDir(), Documents: docs})
	long := bytes.Replace(b.Frames[0].Bytes, []byte(`"user_agent":"`), []byte(`"user_agent":"`+strings.Repeat("a@b.co ", 700_000)), 1)
	if len(long) < 4<<20 {
		t.Fatal("the record is as before")
	}
	b.Frames = append([]event.Frame{{Bytes: long, Line: 1}}, b.Frames...)
	for i := range b.Frames {
		b.Frames[i].Line = i + 1
	}
	res, err := s.Accept(t.Context(), b)
	if err != nil || res.Accepted != 10 || len(res.Errors) != 1 || res.Errors[0].Code != "too_large" || res.Errors[0].Line != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
}

// TestDatasetWithAName: a name that a sender gives as the dataset is stored and shown
// nowhere, and the answer tells no token of it.
func TestDatasetWithAName(t *testing.T) {
	docs, b := twoCompartments(t)
	names := people(t, docs.Directory)
	i := slices.IndexFunc(names, func(n string) bool { return strings.Trim(n, "abcdefghijklmnopqrstuvwxyz") == "" })
	if i < 0 {
		t.Fatal("no name that may be a dataset")
	}
	for _, any := range []bool{false, true} {
		mine := docs
		if any { // an assessment that covers whatever dataset
			mine.PIAs = []Document{{Name: "x", Data: bytes.ReplaceAll(docs.PIAs[0].Data, []byte("source: idp, dataset: signin"), []byte("source: idp"))}}
		}
		s := start(t, Options{Dir: t.TempDir(), Documents: mine})
		fs := slices.Clone(b.Frames)
		fs = append(fs, event.Frame{Bytes: []byte(`{"app":"x"}`), Line: len(fs) + 1, Dataset: names[i]})
		res, err := s.Accept(t.Context(), event.Batch{Source: "idp", Way: "http", Received: at, Frames: fs})
		if err != nil {
			t.Fatal(err)
		}
		s.Accept(t.Context(), event.Batch{Source: names[i], Way: "http", Received: at, Frames: fs}) // is refused
		if err := s.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		h := hold(t, s)
		h.Events = nil // hexadecimal
		text := fmt.Sprint(h, s.Refused(), s.Doctor(t.Context(), true))
		if strings.Contains(text, names[i]) {
			k := strings.Index(text, names[i])
			t.Errorf("any %v: %q is shown: …%s…", any, names[i], text[max(0, k-80):k+80])
		}
		if text := fmt.Sprint(res); strings.Contains(text, "p1_") {
			t.Errorf("the answer tells a token: %s", text)
		}
		s.stop()
	}
}

// TestManyShortLines: a body of the most records, all refused but one, is taken; one
// of more records is refused as a whole.
func TestManyShortLines(t *testing.T) {
	docs, b := twoCompartments(t)
	s := start(t, Options{Dir: t.TempDir(), Documents: docs})
	body := string(b.Frames[0].Bytes) + "\n" + strings.Repeat("{\n", 99_999)
	for _, path := range []string{"/api/v1/ingest/idp"} {
		if err := post(s, path, "application/x-ndjson", body); err != nil {
			t.Error(err)
		}
		if err := post(s, path, "application/x-ndjson", body+strings.Repeat("{\n", 4_000_000)); err == nil || !strings.Contains(err.Error(), "too_large") {
			t.Errorf("many: %v", err)
		}
	}
	if n := sealed(t, s.Pipeline); n["identity"] != 1 {
		t.Errorf("sealed %v", n)
	}
}
