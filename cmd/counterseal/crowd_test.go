package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/web"
)

// ombudsman holds an office outside the organisation.
const ombudsman = 4715

// TestCrowds: for up to 20 people one office decides, for more a second one as counsel, and
// for more than 100 one of them is outside the organisation. Until then nothing is answered.
func TestCrowds(t *testing.T) {
	b := openBureau(t, func(dir string) {
		path := filepath.Join(dir, "offices.yaml")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text = fmt.Appendf(text, "  - id: ombudsman\n    authority: people\n    outside: true\n    holder: os-%d\n    standing: confirmed\n    since: 2020-01-01\n    roles: [overseer]\n", ombudsman)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	const many = 110
	path := filepath.Join(b.dir, "in.ndjson")
	var lines strings.Builder
	for i := range many {
		fmt.Fprintf(&lines, `{"time":%q,"event":"signin","user":"user%d@agency.example","src_ip":"203.0.113.%d","country":"US","result":"success","mfa":true,"client_app":"Browser","risk":"none"}`+"\n", b.now().Format(time.RFC3339Nano), i, i)
	}
	if err := os.WriteFile(path, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.s.importFiles(context.Background(), web.ImportRequest{Paths: []string{path}, Source: "idp"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := b.s.pipe.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	ask := func(q string) (int, string) {
		t.Helper()
		return b.as(0, "GET", "/api/v1/search", url.Values{"case": {"C-17"}, "limit": {"1000"}, "q": {q}}, nil)
	}
	_, text := ask("source = idp")
	who := regexp.MustCompile(`mail-[a-z2-7]{6,}`).FindAllString(text, -1)
	slices.Sort(who)
	if who = slices.Compact(who); len(who) != many {
		t.Fatalf("%d people, want %d", len(who), many)
	}
	about := func(n int) string { return "class_uid = 3002 and user.uid in (" + strings.Join(who[:n], ", ") + ")" }
	answered := func(n int, want bool, says string) {
		t.Helper()
		code, text := ask(about(n))
		if code != map[bool]int{true: 200, false: 403}[want] || !strings.Contains(text, says) {
			t.Fatalf("about %d people: got %d\n%.600s", n, code, text)
		}
		if got := strings.Count(text, `"dataset":"signin"`); want && got != n {
			t.Errorf("about %d people: %d rows", n, got)
		}
	}
	request := func(n int) (r authorisationRow) {
		t.Helper()
		now := b.now()
		b.does(0, "authorise.request", authoriseAsk{
			whom: whom{People: who[:n]}, From: now.AddDate(0, 0, -30), To: now.Add(time.Hour), Predicate: "finding-1", Basis: "law-1", Ends: now.AddDate(0, 0, 2),
		}, &r, 200, "")
		return r
	}
	approve := func(by int, r authorisationRow, status int, says string) {
		t.Helper()
		b.does(by, "authorise", authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}, nil, status, says)
	}
	const requested, approved = `"state":"requested"`, `"state":"approved"`

	answered(20, false, "authorisation")
	r := request(20)
	if r.Counsel || r.Outside {
		t.Errorf("20 people: %+v", r)
	}
	approve(privacyOfficer, r, 200, approved)
	answered(20, true, "")
	answered(21, false, "")

	r = request(21)
	if !r.Counsel || r.Outside {
		t.Errorf("21 people: counsel %v, outside %v", r.Counsel, r.Outside)
	}
	approve(privacyOfficer, r, 200, requested)
	answered(21, false, "")
	approve(privacyOfficer, r, 403, "has decided already")
	approve(overseer, r, 200, approved)
	answered(21, true, "")

	r = request(101)
	if !r.Counsel || !r.Outside {
		t.Errorf("101 people: counsel %v, outside %v", r.Counsel, r.Outside)
	}
	approve(privacyOfficer, r, 200, requested)
	answered(101, false, "")
	approve(overseer, r, 200, requested) // counsel, and not outside
	answered(101, false, "")
	approve(ombudsman, r, 200, approved)
	answered(101, true, "")
	answered(102, false, "")

	// Who has several authorisations adds none of them to another.
	answered(many, false, "")
	b.later(49 * time.Hour)
	answered(20, false, "has ended")
	answered(101, false, "has ended")
}
