package main

import (
	"io"
	"net/http"
	"testing"
)

// TestInProcessAnswerIsBrokenOff: an answer that a handler in this process breaks off
// is an error for the reader, as over a socket.
func TestInProcessAnswerIsBrokenOff(t *testing.T) {
	c := http.Client{Transport: handlerTransport{http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "{\"row\":1}\n")
		panic(http.ErrAbortHandler)
	})}}
	resp, err := c.Get("http://localhost/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err == nil {
		t.Fatalf("a part was taken for the whole: %q", b)
	}
}
