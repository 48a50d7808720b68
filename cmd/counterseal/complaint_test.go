package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/complaint"
	"github.com/counterseal/counterseal/internal/web"
)

// complains sends the form of the page and gives the code that it shows.
func (b *bureau) complains(text string, status int, says string) (code string) {
	b.t.Helper()
	r := httptest.NewRequest("POST", "http://localhost/me/complaint", strings.NewReader(url.Values{"text": {text}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	b.s.web.People().ServeHTTP(w, r)
	if w.Code != status || !strings.Contains(w.Body.String(), says) {
		b.t.Fatalf("%d, want %d with %q\n%s", w.Code, status, says, w.Body)
	}
	_, rest, _ := strings.Cut(w.Body.String(), `class="once"><code>`)
	code, _, _ = strings.Cut(rest, "<")
	return code
}

// TestComplaint: a complaint of the page and one that was sealed before it was sent reach the
// overseer, who alone opens them; the answer reaches who has the code, who alone opens it. The
// ledger says that one came and how it ended, and nothing that lies on the server has a word
// of it. One that waits for more than 30 days is shown to the overseer, and so is one that
// was taken away.
func TestComplaint(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	b := openBureau(t, func(dir string) { // whoever runs the test is the overseer
		text, err := os.ReadFile(filepath.Join(dir, "offices.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		swapped := strings.NewReplacer("holder: "+owner()+"\n", "holder: os-7001\n", fmt.Sprintf("holder: os-%d\n", overseer), "holder: "+owner()+"\n").Replace(string(text))
		if err := os.WriteFile(filepath.Join(dir, "offices.yaml"), []byte(swapped), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	b.s.cfg.Oversight.Contact = "room 12"
	b.complains("Somebody looked.", 403, "room 12")

	keys := layInspectorKeys(t, b.dir)
	b.s.cfg.Officers = filepath.Join(b.dir, "officers.yaml")
	const secret, second = "my manager reads my sign-ins", "and so does the one below"
	code := b.complains(secret, 200, "sealed to the overseers")
	if _, err := complaint.ParseCode(code); err != nil {
		t.Fatalf("%v: %q", err, code)
	}

	at := func(name string) string { return filepath.Join(b.dir, name) }
	write := func(name, text string) string {
		t.Helper()
		if err := os.WriteFile(at(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return at(name)
	}
	cli := func(want int, stdin string, args ...string) string {
		t.Helper()
		var out bytes.Buffer
		if got := run(t.Context(), &environment{stdin: strings.NewReader(stdin), stdout: &out, stderr: &out}, args); got != want {
			t.Fatalf("%v: exit %d, want %d\n%s", args, got, want, out.String())
		}
		return out.String()
	}
	config, pass := []string{"--config", at(configName)}, write("pass", "correct horse battery staple\n")
	file, err := keys[1].File([]byte("correct horse battery staple"))
	if err != nil {
		t.Fatal(err)
	}
	write("ovs", string(file))
	told := cli(0, "", append([]string{"me"}, config...)...)
	for _, want := range []string{"about", "nothing is set up here that could tell you", keys[1].SealKey().String(), keys[3].SealKey().String(), "room 12", "opened by two officers"} {
		if !strings.Contains(told, want) {
			t.Errorf("me does not say %q:\n%s", want, told)
		}
	}
	var page web.Told
	if err := json.Unmarshal([]byte(cli(0, "", append([]string{"me", "--format", "json"}, config...)...)), &page); err != nil || page.Looking.Readers == nil || len(page.Looking.Deciders) == 0 || page.Looking.Overseers[0] != "inspector" {
		t.Errorf("%v %+v", err, page.Looking)
	}
	complain := append([]string{"me", "complain", "--text", "-"}, config...)
	cli(exitRefused, second, append(complain, "--key", strings.Repeat("ab", 32))...)
	sent := cli(0, second, append(complain, "--key", keys[1].SealKey().String(), "--key", keys[3].SealKey().String())...)
	_, rest, _ := strings.Cut(sent, "code        ")
	other, _, _ := strings.Cut(rest, "\n")

	var rows []complaintRow
	b.does(0, "complaint.list", struct{}{}, &rows, 200, "")
	if len(rows) != 2 || rows[0].State != "waiting" || len(rows[0].Keys) != 2 {
		t.Fatalf("got %+v", rows)
	}
	for _, user := range []int{7001, privacyOfficer, complianceUser} {
		b.does(user, "complaint.list", struct{}{}, nil, 403, "")
		b.does(user, "complaint.save", complaintNamed{rows[0].ID}, nil, 403, "")
	}
	b.does(0, "complaint.save", complaintNamed{"../../keys/keyring"}, nil, 400, "32 hex digits")
	cli(0, code, append([]string{"me", "answer"}, config...)...)

	// The overseer, on a machine of their own.
	cli(0, "", append([]string{"oversight", "complaints", "save", rows[0].ID, "-o", at("one")}, config...)...)
	raw, err := os.ReadFile(at("one"))
	if err != nil {
		t.Fatal(err)
	}
	one, err := complaint.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range keys { // oversight, and its spare
		if o, err := one.Open(k); (err == nil && o.Text == secret) != (i == 1 || i == 3) {
			t.Errorf("with the key of officer %d: %v", i, err)
		}
	}
	if out := cli(0, "", "oversight", "complaints", "open", at("one"), "--key", at("ovs"), "--passphrase-file", pass); !strings.Contains(out, secret) {
		t.Errorf("opened: %s", out)
	}
	const answer = "It was one look, and it was wrong."
	closing := append([]string{"oversight", "complaints", "close", at("one"), "--key", at("ovs"), "--passphrase-file", pass, "--answer", "-", "--outcome"}, "upheld")
	cli(0, answer, append(closing, config...)...)
	again, err := one.Open(keys[3])
	if err != nil {
		t.Fatal(err)
	}
	twice, err := again.Answer("unfounded", "no")
	if err != nil {
		t.Fatal(err)
	}
	b.does(0, "complaint.close", complaintClosing{twice.Bytes()}, nil, 403, "answered once")
	if out := cli(0, strings.ToUpper(code), append([]string{"me", "answer"}, config...)...); !strings.Contains(out, answer) || !strings.Contains(out, "upheld") {
		t.Errorf("the answer: %s", out)
	}
	if a, err := b.s.openAnswer(t.Context(), code); err != nil || a.Text != answer || a.Outcome != "upheld" {
		t.Errorf("on the page: %+v %v", a, err)
	}
	if a, err := b.s.openAnswer(t.Context(), other); err != nil || a.State != "waiting" {
		t.Errorf("the other one: %+v %v", a, err)
	}
	if _, err := b.s.openAnswer(t.Context(), complaint.NewCode().Text()); err != web.ErrNoComplaint {
		t.Errorf("the code of nobody: %v", err)
	}

	// What nobody answers.
	if out := cli(0, "", append([]string{"oversight", "status"}, config...)...); !strings.Contains(out, "complaint 1 wait:") {
		t.Errorf("status:\n%s", out)
	}
	b.later(31 * 24 * time.Hour)
	var st oversightState
	b.does(0, "oversight.status", struct{}{}, &st, 200, "")
	if st.Complaints == nil || st.Complaints.Late != 1 || st.Complaints.Waiting != 1 {
		t.Errorf("after 31 days: %+v", st.Complaints)
	}
	st = oversightState{}
	b.does(7001, "oversight.status", struct{}{}, &st, 200, "")
	if st.Complaints != nil {
		t.Error("others are told how many wait")
	}
	waits := b.s.complaintFile(rows[1].ID, complaintText)
	lies, err := os.ReadFile(waits)
	if err != nil {
		t.Fatal(err)
	}
	altered := bytes.Replace(lies, []byte(`"epoch":3`), []byte(`"epoch":4`), 1)
	if err := os.WriteFile(waits, altered, 0o600); err != nil {
		t.Fatal(err)
	}
	b.does(0, "complaint.save", complaintNamed{rows[1].ID}, nil, 403, "not there as the ledger has it")
	if err := os.Remove(waits); err != nil {
		t.Fatal(err)
	}
	if checks, err := b.s.complaintChecks(t.Context()); err != nil || len(checks) != 1 || checks[0].State != "fail" {
		t.Errorf("the doctor: %+v %v", checks, err)
	}
	if err := os.WriteFile(waits, lies, 0o600); err != nil {
		t.Fatal(err)
	}
	b.later(340 * 24 * time.Hour) // what was answered a year ago is gone
	if err := b.s.tendComplaints(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(at("data/complaints/*")); err != nil || len(left) != 1 {
		t.Errorf("left are %v", left)
	}

	b.stop()
	ledger := ledgerTold(t, at("data"))
	for _, want := range []string{"complaint.received nobody", `"outcome":"upheld"`} {
		if !strings.Contains(ledger, want) {
			t.Errorf("the ledger does not say %s", want)
		}
	}
	if n := strings.Count(ledger, "complaint.received"); n != 2 {
		t.Errorf("the ledger says %d came", n)
	}
	err = filepath.WalkDir(at("data"), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		for _, never := range []string{secret, second, answer, code, strings.ReplaceAll(code, "-", "")} {
			if bytes.Contains(raw, []byte(never)) {
				t.Errorf("%s holds a complaint, an answer or a code", path)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
