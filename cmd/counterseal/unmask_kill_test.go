package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/collect"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/index"
	"github.com/counterseal/counterseal/internal/query"
	"github.com/counterseal/counterseal/internal/vault"
)

// TestKillWhileSealing kills the server again and again while every line that comes in has
// a new name. Then: whoever stands in an event has a seal that the ledger knows, and no
// line that was acknowledged is missing.
func TestKillWhileSealing(t *testing.T) {
	t.Parallel()
	sh := newShell(t)
	sh.office()
	s := &served{dir: sh.dir, http: freePort(t)}
	if err := layAgency(s.dir, fmt.Sprintf("http: 127.0.0.1:%d\nreserve: 16MiB\nmemory: 64MiB\nofficers: officers.yaml\n", s.http)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.cmd != nil {
			s.kill()
		}
		if t.Failed() {
			t.Logf("the servers said:\n%s", s.log.String())
		}
	})
	acked, n := 0, 0
	for life := range 6 {
		s.start(t)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for ctx.Err() == nil {
				var body strings.Builder
				first := n
				for range 25 {
					fmt.Fprintf(&body, `{"time":%q,"n":"%d","who":"new.name%d"}`+"\n", time.Now().UTC().Format(time.RFC3339), n, n)
					n++
				}
				r, err := http.NewRequestWithContext(ctx, "POST", s.url("/api/v1/ingest/app"), strings.NewReader(body.String()))
				if err != nil {
					return
				}
				r.Header.Set("Content-Type", "application/x-ndjson")
				r.Header.Set("Idempotency-Key", fmt.Sprint("batch ", first))
				resp, err := http.DefaultClient.Do(r)
				if err != nil {
					return // the server was killed
				}
				b, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				var a collect.Answer
				if err == nil && resp.StatusCode == http.StatusOK && json.Unmarshal(b, &a) == nil {
					acked += a.Accepted
				}
			}
		}()
		time.Sleep(time.Duration(60+97*life) * time.Millisecond)
		s.kill()
		stop()
		<-done
	}
	if acked == 0 {
		t.Fatal("nothing was acknowledged: the test kills too early")
	}
	var log bytes.Buffer
	b, stop := inProcess(t, s.dir, time.Now, &log)
	defer stop()
	if err := b.pipe.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.pipe.Vault().CloseWindow(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows := 0
	err := b.pipe.Index().Query(t.Context(), &query.Query{Where: query.Equal{Field: "source", Pattern: query.Literal("app")}}, index.Scope{}, 1_000_000, func(r index.Row) bool {
		rows++
		for _, f := range r.Native {
			if i, j := event.NextToken([]byte(f.Value)); i >= 0 {
				_, p, err := b.pipe.Vault().Find(t.Context(), event.Token(f.Value[i:j]))
				if err == nil {
					var ok bool
					if _, ok, err = b.pipe.Recorder().Fact(t.Context(), "vault.sealed", p.Window.ID); !ok && err == nil {
						err = fmt.Errorf("the ledger does not know its window")
					}
				}
				if err == nil {
					var seen []vault.Seen
					if seen, err = b.pipe.Vault().Seen(t.Context(), event.Token(f.Value[i:j])); err == nil && len(seen) == 0 {
						err = fmt.Errorf("nobody noted when it was seen")
					}
				}
				if err != nil {
					t.Errorf("a token of an event: %v", err)
					return false
				}
			}
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if rows < acked {
		t.Errorf("%d lines were acknowledged and %d are there", acked, rows)
	}
	report, err := attest.Verify(t.Context(), filepath.Join(s.dir, "data"), attest.VerifyOptions{})
	if err != nil || !report.OK() || len(report.Vault.Notes) > 0 || report.Vault.Rows < int64(acked) {
		t.Errorf("the vault after it: %v %v %+v", err, report.Problems, report.Vault)
	}
	t.Logf("%d lines sent, %d acknowledged, %d sealed", n, acked, rows)
}
