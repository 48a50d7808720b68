package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/parse"
	"github.com/counterseal/counterseal/internal/pia"
	"github.com/counterseal/counterseal/internal/web"
)

// The questions who read them.
const (
	readFew  = "actor.process.cmd_line : clinic"
	readMore = "actor.process.cmd_line : union"
)

// readers is a bureau with 25 people who read one file, 9 of whom read another one too.
func readers(t *testing.T) *bureau {
	t.Helper()
	b := openBureau(t, func(dir string) {
		d := agencyDraft(time.Now())
		src := pia.DraftSource{Source: "linux", Dataset: "linux-sudo", Compartment: "servers", RetentionDays: 365}
		for _, f := range parse.Formats() {
			for _, ds := range f.Datasets {
				for _, fl := range ds.Fields {
					if ds.Name == src.Dataset {
						src.Fields = append(src.Fields, pia.DraftField{Path: fl.Path, Category: fl.Category, Action: fl.Action, Reason: "the commands of administrators"})
					}
				}
			}
		}
		d.Sources = append(d.Sources, src)
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, "pias"), 0o700), os.WriteFile(filepath.Join(dir, "pias", "test.yaml"), d.YAML(), 0o600)); err != nil {
			t.Fatal(err)
		}
	})
	var lines strings.Builder
	at := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	for i := range 25 {
		text := "/srv/union"
		if i < 9 {
			text += " /srv/clinic"
		}
		fmt.Fprintf(&lines, "<86>1 %s files sudo 1 - - reader%02d : TTY=pts/0 ; PWD=/srv ; USER=root ; COMMAND=/usr/bin/less %s\n", at, i, text)
	}
	path := filepath.Join(b.dir, "in.log")
	if err := os.WriteFile(path, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.s.importFiles(context.Background(), web.ImportRequest{Paths: []string{path}, Source: "linux"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := b.s.pipe.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestReverseSearch: who read something is answered in counts; an authorisation that
// lists people opens the rows of few of them, one with counsel those of more, inside of its
// sources, and until it ends.
func TestReverseSearch(t *testing.T) {
	b := readers(t)
	const few, more = readFew, readMore
	shown := func(answer string) int {
		found := regexp.MustCompile(`person-[a-z2-7]{6,}`).FindAllString(answer, -1)
		slices.Sort(found)
		return len(slices.Compact(found))
	}
	counts := func(q, people string) {
		t.Helper()
		if n := shown(b.asks(q, 200, `"`+people+`"`)); n != 0 {
			t.Errorf("%s: %d people in counts", q, n)
		}
	}
	rows := func(q string, want int) {
		t.Helper()
		if n := shown(b.asks(q, 200, "")); n != want {
			t.Errorf("%s: %d people, want %d", q, n, want)
		}
	}
	counts(few, "9")
	counts(more, "25")

	now := b.now()
	ask := authoriseAsk{Sources: []string{"linux"}, From: now.AddDate(0, 0, -30), To: now.Add(time.Hour), Reverse: true, Predicate: "finding-1", Basis: "law-1", Ends: now.AddDate(0, 0, 2)}
	var r authorisationRow
	b.does(0, "authorise.request", ask, &r, 200, "")
	counts(few, "9") // not decided yet
	b.does(privacyOfficer, "authorise", authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}, nil, 200, "approved")
	rows(few, 9)
	counts(more, "25")
	rows(more+" and not actor.process.cmd_line : clinic", 0) // 9 and 16 are 25, asked in two parts
	if code, text := b.as(0, "GET", "/api/v1/search", url.Values{"case": {"C-17"}, "q": {"source = idp and actor.process.cmd_line : clinic"}}, nil); code != 200 || shown(text) != 0 {
		t.Errorf("another source: %d %s", code, text)
	}

	// A second office agrees to more than 20.
	ask.Counsel = true
	b.does(0, "authorise.request", ask, &r, 200, "")
	b.does(privacyOfficer, "authorise", authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}, &r, 200, "")
	if r.State != "requested" {
		t.Fatalf("one decision of two makes it %s", r.State)
	}
	counts(more, "25")
	b.does(overseer, "authorise", authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}, nil, 200, "approved")
	rows(more, 25)

	b.later(49 * time.Hour)
	counts(few, "9")
	counts(more, "25")
}
