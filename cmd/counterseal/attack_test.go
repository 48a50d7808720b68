package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/web"
)

// lines imports lines of a source and waits until they can be found.
func (b *bureau) lines(source, text string) {
	b.t.Helper()
	path := filepath.Join(b.dir, source+".in")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.s.importFiles(context.Background(), web.ImportRequest{Paths: []string{path}, Source: source}, nil); err != nil {
		b.t.Fatal(err)
	}
	if err := b.s.pipe.Settle(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

// TestOpenedRecords: a record that names somebody in a field of its program alone, or in a
// text, is opened to nobody without an authorisation; its proof alone tells nothing.
func TestOpenedRecords(t *testing.T) {
	b := openBureau(t)
	at := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	b.lines("app", fmt.Sprintf("{\"time\":%q,\"n\":1,\"who\":\"alice@agency.example\",\"text\":\"reads the site of the union\"}\n{\"time\":%q,\"n\":2,\"text\":\"sent to bob@agency.example\"}\n", at, at))
	code, text := b.as(0, "GET", "/api/v1/search", url.Values{"q": {"source = app"}}, nil)
	refs := regexp.MustCompile(`"ref":"([^"]+)"`).FindAllStringSubmatch(text, -1)
	if code != 200 || len(refs) != 2 {
		t.Fatalf("%d %s", code, text)
	}
	for _, ref := range refs {
		b.does(0, "prove", proveRequest{Ref: ref[1], Stream: "events", Open: true}, nil, 403, "authorisation")
		b.does(0, "prove", proveRequest{Ref: ref[1], Stream: "events"}, nil, 403, "still being written")
	}
}
