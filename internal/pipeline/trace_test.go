package pipeline

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/collect"
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
