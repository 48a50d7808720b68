package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/demo"
)

// TestDemoContains: at night one responder goes from the alert to a disabled account, and
// back, in less than a minute of typing; the broker alone knows whose it was.
func TestDemoContains(t *testing.T) {
	t.Chdir(t.TempDir())
	_, stop := playing(t, "--data", "d", "--scale", "0.1", "--seed", "3", "--at", playedAt, "--http", "127.0.0.1:0")
	at, err := time.Parse(time.RFC3339, playedAt)
	if err != nil {
		t.Fatal(err)
	}
	in := demo.Play(demo.Options{Seed: 3, At: at, Scale: 0.1, Hotline: true})
	k := &keyboard{t: t}
	began := time.Now()
	alerts, _ := k.types(0, "counterseal search --data d --case N1 'kind = finding and rule.level = high'")
	m := regexp.MustCompile(`(person-[a-z2-7]+) .*Sign-In Abroad Without a Second Factor`).FindStringSubmatch(alerts)
	if m == nil {
		t.Fatalf("no alert names an account\n%s", alerts)
	}
	done, _ := k.types(0, "counterseal contain disable-account --data d --case N1 "+m[1])
	id := regexp.MustCompile(`contain undo (\S+)`).FindStringSubmatch(done)
	if id == nil || !strings.HasPrefix(done, "done  disable-account  "+m[1]) || !strings.Contains(done, "somebody else reviews it") {
		t.Fatalf("got %s", done)
	}
	if k.typed >= 300 {
		t.Errorf("%d characters are typed", k.typed)
	}
	// At three characters a second, and half a minute to read each of the two answers.
	took := time.Since(began)
	if all := took + time.Duration(k.typed)*time.Second/3 + time.Minute; all >= 5*time.Minute {
		t.Errorf("from the alert to the disabled account it takes %s", all.Round(time.Second))
	}
	t.Logf("%d characters typed; the program took %s", k.typed, took.Round(10*time.Millisecond))
	back, _ := k.types(0, "counterseal contain undo "+id[1]+" --data d --case N1")
	if !strings.HasPrefix(back, "undone  disable-account  "+m[1]) {
		t.Errorf("got %s", back)
	}
	service, err := os.ReadFile(filepath.Join("d", brokerFolder, accountsName))
	if err != nil || strings.Count(string(service), "\n") != 2 || !strings.Contains(string(service), `"undo":true`) {
		t.Fatalf("%v\n%s", err, service)
	}
	name := ""
	for _, s := range in.Truth.Steps {
		if name == "" {
			name = s.Person
		}
	}
	if name == "" || !strings.Contains(strings.ToLower(string(service)), strings.ToLower(name)) {
		t.Errorf("it was done to somebody else than the one whose account was taken over")
	}
	if seen := strings.ToLower(alerts + done + back); strings.Contains(seen, strings.ToLower(name)) {
		t.Error("the responder has seen the name")
	}

	// Somebody uninvolved: two people.
	others, _ := k.types(0, "counterseal search --data d --case N1 'source = idp' --jsonl - --limit 500")
	other := ""
	for _, r := range rowsOf(t, others) {
		if id := r.Get("user.uid"); strings.HasPrefix(id, "person-") && !strings.Contains(alerts, id) {
			other = id
		}
	}
	waits, _ := k.types(0, "counterseal contain disable-account --data d --case N1 "+other)
	if !strings.HasPrefix(waits, "waiting  ") {
		t.Errorf("got %s", waits)
	}
	stop()
}
