package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/report"
	"github.com/counterseal/counterseal/internal/web"
)

// TestKnownMisuse plays what is documented of one monitoring programme that became a hunt
// for critics (the report OIG-12-14-01 and the hearing of 26 February 2014): nobody had
// written down the scope, it was widened from one person to five, it had no end, it took
// messages to counsel, the inspector general and the legislature along, and what it found
// came to stand on a public page. Each step is refused, and the ledger says by what.
func TestKnownMisuse(t *testing.T) {
	const channels = `apiVersion: protected/v1
channels:
  - {name: office of special counsel, domains: [special-counsel.example], mails: [disclosure@special-counsel.example], names: [Office of Special Counsel]}
  - {name: inspector general hotline, domains: [inspector.example]}
  - {name: legislature, domains: [parliament.example]}
`
	b := openBureau(t, func(dir string) {
		text := "data: data\npias: [pias]\nprotected: protected.yaml\nhttp: off\nreserve: 16MiB\nmemory: 64MiB\noffices: offices.yaml\nown_rules: false\nrules: [rules]\n"
		// They may ask for packages too, so that it is not the role that refuses one.
		record := filepath.Join(dir, "offices.yaml")
		held, err := os.ReadFile(record)
		if err != nil {
			t.Fatal(err)
		}
		held = []byte(strings.Replace(string(held), "roles: [analyst, responder]", "roles: [analyst, responder, investigator]", 1))
		if err := errors.Join(os.WriteFile(record, held, 0o600), os.WriteFile(filepath.Join(dir, "protected.yaml"), []byte(channels), 0o600), os.WriteFile(filepath.Join(dir, configName), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	})
	who := b.people()
	// by tells the place that refused the last request: a rule of docs/policy-matrix.md.
	by := func(rule string) {
		t.Helper()
		var d struct{ Rule string }
		if _, err := b.s.pipe.Recorder().Ledger().Each(t.Context(), 0, func(_ uint64, s ledger.Statement, _ []byte) error {
			if s.Kind != "request.refused" {
				return nil
			}
			return json.Unmarshal(s.Detail, &d)
		}); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(strings.Fields(d.Rule), rule) {
			t.Errorf("refused by %q, want %q", d.Rule, rule)
		}
	}
	about := func(alias string) string { return "class_uid = 3002 and user.uid = " + alias }
	ask := authoriseAsk{whom: whom{People: who[:1]}, From: b.now().AddDate(0, 0, -30), To: b.now().Add(time.Hour), Predicate: "finding-1", Basis: "law-1", Ends: b.now().AddDate(0, 0, 30)}
	without := func(change func(*authoriseAsk)) authoriseAsk {
		a := ask
		change(&a)
		return a
	}

	// Nothing is written down: no question about a person, and none of everybody's.
	b.asks(about(who[0]), 403, "authorisation")
	by("people")
	b.asks("user.uid = a* and class_uid = 3002", 403, "")
	by("people")
	// No basis, no allegation, nobody named, no end, an end in years.
	b.does(0, "authorise.request", without(func(a *authoriseAsk) { a.Basis = "" }), nil, 400, "basis")
	b.does(0, "authorise.request", without(func(a *authoriseAsk) { a.Predicate = "" }), nil, 400, "predicate")
	b.does(0, "authorise.request", without(func(a *authoriseAsk) { a.People = nil }), nil, 400, "")
	b.does(0, "authorise.request", without(func(a *authoriseAsk) { a.Ends = time.Time{} }), nil, 400, "")
	b.does(0, "authorise.request", without(func(a *authoriseAsk) { a.Ends = b.now().AddDate(2, 0, 0) }), nil, 400, "90 days")

	// The asker's own chain of command does not approve it.
	var r authorisationRow
	b.does(0, "authorise.request", ask, &r, 200, "")
	b.does(colleague, "authorise", authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}, nil, 403, "")
	by("same-authority")
	b.does(privacyOfficer, "authorise", authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}, nil, 200, "approved")
	b.asks(about(who[0]), 200, who[0])

	// From one person to others: the others, both, everybody but one, all their contacts.
	b.asks(about(who[1]), 403, "")
	by("people")
	b.asks("class_uid = 3002 and user.uid in ("+who[0]+", "+who[1]+")", 403, "")
	by("people")
	b.asks("class_uid = 3002 and user.uid != "+who[0], 403, "")
	by("people")
	b.asks("class_uid = 3002 and (user.uid = "+who[0]+" or country = US)", 403, "")
	by("reverse-rows")
	b.does(0, "authorise", authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}, nil, 403, "") // by oneself
	by("own-request")

	// Messages to counsel, inspector and legislature: what comes in has none of them, and
	// no question is aimed at them, also about a person in scope.
	at := time.Now().Add(-30 * time.Minute).UTC().Format(time.RFC3339)
	var lines strings.Builder
	for i, to := range []string{"disclosure@special-counsel.example", "https://hotline.inspector.example/form", "member@parliament.example", "printer@agency.example"} {
		fmt.Fprintf(&lines, "{\"time\":%q,\"n\":%d,\"who\":\"alice@agency.example\",\"text\":\"sent to %s\"}\n", at, i, to)
	}
	path := filepath.Join(b.dir, "mail.ndjson")
	if err := os.WriteFile(path, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.s.importFiles(context.Background(), web.ImportRequest{Paths: []string{path}, Source: "app"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := b.s.pipe.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if code, text := b.as(0, "GET", "/api/v1/search", url.Values{"q": {"source = app"}}, nil); code != 200 || strings.Count(text, "\n") != 1 || !strings.Contains(text, `"native.n":["3"]`) {
		t.Errorf("of the mail is shown: %d\n%s", code, text)
	}
	for _, q := range []string{"url.hostname : special-counsel.example", "text : disclosure@special-counsel.example", about(who[0]) + " and text : inspector.example", "query.hostname = www.parliament.example"} {
		b.asks(q, 403, "overseer is told")
		by("protected")
	}
	if told, err := b.s.cases.Reports(t.Context()); err != nil || len(told) != 4 {
		t.Errorf("the overseer was told of %d questions, %v; want 4", len(told), err)
	}

	// What was found does not go out by whoever found it, and nobody exports it whole.
	key, err := report.NewRecipientKey("newspaper")
	if err != nil {
		t.Fatal(err)
	}
	for q, rule := range map[string]string{about(who[1]): "people", "class_uid = 3002 and user.uid in (" + who[0] + ", " + who[1] + ")": "people", "*": "reverse-rows", "class_uid = 3002": "reverse-rows"} {
		b.does(0, "package.create", packageRequest{Case: "C-17", Purpose: "publish", Due: "2099-01-01", Output: filepath.Join(b.dir, "out.csp"), Query: q, Recipients: []string{string(key.Card().Bytes())}}, nil, 403, "")
		by(rule)
	}

	// It ends by itself, and nobody asks on.
	for range 3 {
		b.later(31 * 8 * time.Hour)
		b.heartbeat(overseer, 200, "")
	}
	b.asks(about(who[0]), 403, "has ended")
	by("people")

	b.stop()
	told := ledgerTold(t, filepath.Join(b.dir, "data"))
	for _, want := range []string{`"selects":"protected"`, `"rule":"protected`, `"rule":"same-authority`, "authorisation.decided", `"act":"search","office":"soc"`} {
		if !strings.Contains(told, want) {
			t.Errorf("the ledger does not say %s", want)
		}
	}
	for _, name := range []string{"alice", "special-counsel", "inspector.example", "parliament"} {
		if strings.Contains(told, name) {
			t.Errorf("the ledger says %s", name)
		}
	}
}
