package web

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestAnswerThatFailsHalfWay: an error behind the first rows breaks the answer off,
// and adds no line to it that looks like a row.
func TestAnswerThatFailsHalfWay(t *testing.T) {
	s := &Server{log: slog.New(slog.DiscardHandler)}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := &answerWriter{ResponseWriter: w}
		io.WriteString(a, "{\"row\":1}\n")
		s.fail(a, r, errors.New("the index is closed"))
	}))
	defer srv.Close()
	resp, err := http.Get(srv.URL)
	if err != nil {
		return // broken off before the first byte was sent
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err == nil {
		t.Fatalf("a part was taken for the whole: %q", b)
	}
}
