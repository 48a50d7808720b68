package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/demo"
	"github.com/counterseal/counterseal/internal/index"
	"github.com/counterseal/counterseal/internal/web"
)

// screen is what a running command has printed.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
	at string // closes shown when it is printed
	ok chan struct{}
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	had := strings.Contains(s.b.String(), s.at)
	n, err := s.b.Write(p)
	if !had && strings.Contains(s.b.String(), s.at) {
		close(s.ok)
	}
	return n, err
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// keyboard runs command lines and counts what was typed.
type keyboard struct {
	t     *testing.T
	typed int
}

// types runs a command line of plain words and words in single quotes.
func (k *keyboard) types(want int, line string) (stdout, stderr string) {
	k.t.Helper()
	k.typed += len(line) + 1
	var args []string
	for _, m := range regexp.MustCompile(`'([^']*)'|(\S+)`).FindAllStringSubmatch(line, -1) {
		args = append(args, m[1]+m[2])
	}
	if args[0] != "counterseal" {
		k.t.Fatalf("no command of ours: %s", line)
	}
	return counterseal(k.t, want, args[1:]...)
}

func rowsOf(t *testing.T, text string) (rows []web.Row) {
	t.Helper()
	for line := range strings.Lines(text) {
		var r web.Row
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, r)
	}
	return rows
}

// playing runs the demo until the test ends or stops it.
func playing(t *testing.T, args ...string) (out *screen, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out = &screen{at: "Ctrl-C stops it", ok: make(chan struct{})}
	var errs bytes.Buffer
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, &environment{stdin: strings.NewReader(""), stdout: out, stderr: &errs}, append([]string{"demo"}, args...))
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if code := <-done; code != 0 {
			t.Errorf("the demo ends with %d\n%s", code, errs.String())
		}
	})
	t.Cleanup(stop)
	select {
	case <-out.ok:
	case code := <-done:
		done <- code
		t.Fatalf("the demo ends with %d\n%s%s", code, out, errs.String())
	}
	return out, stop
}

// TestDemoAtNight: one responder goes from an alert to all that the compromised account
// did, and to nobody else, in less than a minute of typing; the same question about
// somebody uninvolved is refused with what to do instead; both stand in the ledger.
func TestDemoAtNight(t *testing.T) {
	t.Chdir(t.TempDir())
	out, stop := playing(t, "--data", "d", "--scale", "0.1", "--seed", "3", "--at", playedAt, "--http", "127.0.0.1:0")
	at, err := time.Parse(time.RFC3339, playedAt)
	if err != nil {
		t.Fatal(err)
	}
	in := demo.Play(demo.Options{Seed: 3, At: at, Scale: 0.1, Hotline: true})
	k := &keyboard{t: t}

	alerts, _ := k.types(0, "counterseal search --data d 'kind = finding and rule.level = high'")
	m := regexp.MustCompile(`(person-[a-z2-7]+) .*Sign-In Abroad Without a Second Factor`).FindStringSubmatch(alerts)
	if m == nil {
		t.Fatalf("no alert names an account\n%s", alerts)
	}
	account := m[1]
	all := "user.uid = " + account + " or actor.user.uid = " + account
	answer, said := k.types(0, "counterseal search --data d --jsonl - --limit 9999 '"+all+"'")
	if k.typed >= 300 {
		t.Errorf("%d characters are typed, more than a minute at 5 a second", k.typed)
	}
	t.Logf("%d characters typed", k.typed)
	until := regexp.MustCompile(`opened by a finding until (\S+Z)`).FindStringSubmatch(said)
	if until == nil {
		t.Fatalf("the answer does not say what opened it, and until when: %s", said)
	}
	if end, err := time.Parse(time.RFC3339, until[1]); err != nil || !end.After(at) || end.After(at.Add(72*time.Hour)) {
		t.Errorf("it is open until %s", until[1])
	}

	// What the summary and the start page offer is the same question.
	if !strings.Contains(out.String(), "'"+all+"'") {
		t.Errorf("the demo does not lead there:\n%s", out)
	}

	// All that it is in, and nobody else: everybody has a telephone.
	var person string
	for _, s := range in.Truth.Steps {
		if person == "" {
			person = s.Person
		}
	}
	owners, _ := counterseal(t, 0, "search", "--data", "d", "--jsonl", "-", "--limit", "9999", "source = mdm")
	people := map[string]bool{}
	for _, r := range rowsOf(t, owners) {
		people[r.Get("device.owner.uid")] = true
	}
	if len(people) < 30 || !people[account] {
		t.Fatalf("%d people are known", len(people))
	}
	rows, sources := rowsOf(t, answer), map[string]bool{}
	for _, r := range rows {
		if r.Kind == "event" {
			sources[r.Source] = true
		}
		if r.Get("user.uid") != account && r.Get("actor.user.uid") != account {
			t.Fatalf("a row of somebody else: %v", r)
		}
	}
	for _, alias := range regexp.MustCompile(`person-[a-z2-7]+`).FindAllString(answer, -1) {
		if people[alias] && alias != account {
			t.Errorf("the answer names somebody else")
			break
		}
	}
	if got, want := slices.Sorted(maps.Keys(sources)), sourcesOf(t, in, person); !slices.Equal(got, want) {
		t.Errorf("the answer is from %v, the account is in %v", got, want)
	}
	steps := 0
	for _, s := range in.Truth.Steps {
		if s.Person != person {
			continue
		}
		steps++
		if !slices.ContainsFunc(rows, func(r web.Row) bool {
			when, err := time.Parse(time.RFC3339Nano, r.Time)
			return err == nil && r.Kind == "event" && r.Source == s.Source && r.Dataset == s.Dataset && when.Sub(s.Time).Abs() < 2*time.Second
		}) {
			t.Errorf("step %d is not in the answer: %s", s.N, s.Title)
		}
	}
	if steps < 7 {
		t.Errorf("the account does %d steps", steps)
	}

	// The same about somebody uninvolved.
	m = regexp.MustCompile(`refused: uninvolved .*(person-[a-z2-7]+)`).FindStringSubmatch(out.String())
	if m == nil || m[1] == account || !people[m[1]] {
		t.Fatalf("the demo names nobody uninvolved:\n%s", out)
	}
	none, said := k.types(exitRefused, "counterseal search --data d '"+strings.ReplaceAll(all, account, m[1])+"'")
	if none != "" || !strings.Contains(said, "counterseal authorise request") || !strings.Contains(said, "counterseal glass break") {
		t.Errorf("%s%s", none, said)
	}
	// Neither does the account lend its grant to others.
	counterseal(t, exitRefused, "search", "--data", "d", all+" or user.uid = "+m[1])
	counterseal(t, exitRefused, "search", "--data", "d", all+" or user.uid != "+account)

	stop()
	told := ledgerTold(t, filepath.Join("d", "data"))
	for _, want := range []string{
		`(?m)^rules\.approved account:u_privacy `,
		`(?m)^grant\.opened ` + ownActor() + ` `,
		`(?m)^request\.served ` + ownActor() + ` .*"act":"search","cover":"[^"]+".*"selects":"person"`,
		`(?m)^request\.refused ` + ownActor() + ` .*"act":"search".*"rule":"people","selects":"person"`,
	} {
		if !regexp.MustCompile(want).MatchString(told) {
			t.Errorf("the ledger does not say %s", want)
		}
	}
	noNames(t, filepath.Join("d", "data", "ledger"), in.Directory)
}

// sourcesOf names the sources whose raw text names an account, without that of its
// telephone, which tells its own state.
func sourcesOf(t *testing.T, in *demo.Incident, person string) []string {
	t.Helper()
	_, entry, ok := strings.Cut(string(in.Directory), "id: "+person+"\n")
	entry, _, _ = strings.Cut(entry, "  - id:")
	if !ok {
		t.Fatalf("%s is not in the directory", person)
	}
	var names []string
	for line := range strings.Lines(entry) {
		if !strings.Contains(line, "phones:") && !strings.Contains(line, "devices:") {
			for _, q := range regexp.MustCompile(`"([^"]+)"`).FindAllStringSubmatch(line, -1) {
				names = append(names, regexp.QuoteMeta(q[1]))
			}
		}
	}
	word := regexp.MustCompile(`(^|\W)(` + strings.Join(names, "|") + `)($|\W)`)
	found := map[string]bool{}
	for _, s := range in.Streams {
		for f := range s.Frames() {
			if s.Source != "mdm" && word.Match(f.Bytes) {
				found[s.Source] = true
				break
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// noNames looks for everybody of a directory in the files of a folder.
func noNames(t *testing.T, dir string, directory []byte) {
	t.Helper()
	var names []string
	for _, q := range regexp.MustCompile(`"([^"]+)"`).FindAllStringSubmatch(string(directory), -1) {
		if _, err := time.Parse(time.DateOnly, q[1]); err != nil { // the last day of a leaver
			names = append(names, strings.ToLower(q[1]))
		}
	}
	looked := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		text := strings.ToLower(string(b))
		looked += len(text)
		for _, n := range names {
			if nameIn(text, n) >= 0 {
				t.Errorf("%s holds a name", path)
				break
			}
		}
		return err
	})
	if err != nil || looked < 10_000 || len(names) < 300 {
		t.Fatal(looked, len(names), err)
	}
}

// ruledBureau is a bureau with another rule, for which two others stood an hour ago.
func ruledBureau(t *testing.T, rule string) *bureau {
	t.Helper()
	b := openBureau(t, func(dir string) {
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, "rules"), 0o700), os.WriteFile(filepath.Join(dir, "rules", "more.yml"), []byte(rule), 0o600)); err != nil {
			t.Fatal(err)
		}
	})
	b.does(colleague, "rules.activate", struct{}{}, nil, 200, "")
	b.does(privacyOfficer, "rules.approve", rulesNamed{b.s.pipe.Rules().Digest()}, nil, 200, "")
	b.later(time.Hour)
	return b
}

// signIns imports sign-ins of a minute ago.
func (b *bureau) signIns(name string, lines ...string) {
	b.t.Helper()
	var text strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&text, `{"time":%q,"event":"signin",%s,"mfa":false,"client_app":"Browser","risk":"none"}`+"\n", b.now().Add(-time.Minute).Format(time.RFC3339), l)
	}
	path := filepath.Join(b.dir, name)
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.s.importFiles(context.Background(), web.ImportRequest{Paths: []string{path}, Source: "idp"}, nil); err != nil {
		b.t.Fatal(err)
	}
	if err := b.s.pipe.Settle(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

// TestGrantByCorrelation: a finding of a correlation opens whom its events are about, by
// the digest of the correlation that two people stood for, and nobody 72 hours after it.
func TestGrantByCorrelation(t *testing.T) {
	b := ruledBureau(t, "title: From There\nid: 0d1a53a4-7e0c-4c53-8d2f-3a3c2f5b0002\nname: there\nlevel: informational\nlogsource: {product: idp, service: signin}\ndetection: {s: {country: RO}, condition: s}\n---\n"+
		"title: Twice From There\nid: 0d1a53a4-7e0c-4c53-8d2f-3a3c2f5b0003\nlevel: critical\ncorrelation: {type: event_count, rules: [there], group-by: [user], timespan: 1h, condition: {gte: 2}}\n")
	bob := `"user":"bob@agency.example","src_ip":"203.0.113.7","country":"RO","result":"success"`
	b.signIns("in.ndjson", bob, strings.Replace(bob, "113.7", "113.9", 1), strings.Replace(bob, "bob", "carol", 1))
	of := map[string]int{}
	for _, r := range rowsOf(t, b.asks("source = idp and kind = event", 200, "")) {
		of[r.Get("user.uid")]++
	}
	findings := rowsOf(t, b.asks("kind = finding", 200, ""))
	if len(findings) != 1 {
		t.Fatalf("%d findings, want the one of the correlation: %v", len(findings), findings)
	}
	digests := map[string]string{}
	set, each := b.s.ruleSet()
	for i, r := range set.Rules {
		digests[each[i].Title] = r.Digest
	}
	if got := findings[0].Get("rule.digest"); got == "" || got != digests["Twice From There"] {
		t.Fatalf("the finding is of rule %q, two people stood for %v", got, digests)
	}
	for who, n := range of {
		if n == 2 {
			b.asks("user.uid = "+who, 200, who)
		} else {
			b.asks("user.uid = "+who, 403, "nothing covers")
		}
	}
	if len(of) != 2 {
		t.Errorf("%d people signed in", len(of))
	}
	b.later(72 * time.Hour)
	for who := range of {
		b.asks("user.uid = "+who, 403, "")
	}
}

// TestChosenEvent: who fails a sign-in as somebody else, to have a finding about them,
// opens nobody by it: neither themselves nor a colleague. The overseer is told.
func TestChosenEvent(t *testing.T) {
	b := ruledBureau(t, "title: A Sign-In That Failed\nid: 0d1a53a4-7e0c-4c53-8d2f-3a3c2f5b0002\nlevel: high\nlogsource: {product: idp, service: signin}\ndetection: {s: {result: failure}, condition: s}\n")
	b.signIns("in.ndjson",
		`"user":"bob@agency.example","src_ip":"203.0.113.7","country":"US","result":"failure","device_id":"bobs-laptop"`, // planted
		`"user":"carol@agency.example","src_ip":"203.0.113.8","country":"US","result":"success"`)
	text := b.asks("source = idp", 200, "")
	aliases := map[string]string{}
	for _, r := range rowsOf(t, text) {
		if r.Kind == "event" {
			aliases[r.Get("src_endpoint.location.country")+r.Get("status_id")] = r.Get("user.uid")
			if d := r.Get("src_endpoint.uid"); d != "" {
				aliases["device"] = d
			}
			if r.Get("status_id") == "2" {
				aliases["from"] = r.Get("src_endpoint.ip")
			}
		}
	}
	bob, carol := aliases["US2"], aliases["US1"]
	if bob == "" || carol == "" || bob == carol || aliases["device"] == "" || aliases["from"] == "" {
		t.Fatalf("got %v\n%s", aliases, text)
	}
	for _, who := range []string{"user.uid = " + bob, "actor.user.uid = " + bob, "src_endpoint.uid = " + aliases["device"]} {
		b.asks(who, 403, "only attempts that failed")
	}
	b.asks("user.uid = "+carol, 403, "nothing covers")
	b.asks("src_endpoint.ip = "+aliases["from"], 200, "") // where the attempts came from is open
	var rows []reviewRow
	b.does(overseer, "review.list", struct{}{}, &rows, 200, "")
	reports := 0
	for _, r := range rows {
		if r.What == "report" {
			reports++
		}
	}
	if reports != 3 {
		t.Errorf("the overseer is told of %d questions, want 3: %+v", reports, rows)
	}

	// Once they are in with that account it is an incident.
	b.signIns("more.ndjson", `"user":"bob@agency.example","src_ip":"203.0.113.7","country":"US","result":"success"`)
	b.asks("user.uid = "+bob, 403, "only attempts that failed") // no finding says so
}

// TestCited: of a failed logon only where it was seen and who else was at work are part
// of what happened.
func TestCited(t *testing.T) {
	row := func(status string) *index.Row {
		return &index.Row{OCSF: []index.Attr{
			{Name: "class_uid", Value: "3002"}, {Name: "status_id", Value: status},
			{Name: "user.uid", Value: "planted"}, {Name: "actor.user.uid", Value: "Planted"}, {Name: "actor.session.uid", Value: "s-1"},
			{Name: "src_endpoint.hostname", Value: "planted-pc"}, {Name: "src_endpoint.ip", Value: "10.0.0.7"}, {Name: "device.hostname", Value: "dc1"},
		}}
	}
	for status, want := range map[string][2]string{
		"1": {"10.0.0.7 dc1 planted planted-pc s-1", ""},
		"2": {"10.0.0.7 dc1 s-1", "planted planted-pc"},
	} {
		tried, acted := map[string]bool{}, map[string]bool{}
		cited(row(status), access.Options{}, tried, acted)
		got := [2]string{strings.Join(slices.Sorted(maps.Keys(acted)), " "), strings.Join(slices.Sorted(maps.Keys(tried)), " ")}
		if got != want {
			t.Errorf("status %s: %q, want %q", status, got, want)
		}
	}
}
