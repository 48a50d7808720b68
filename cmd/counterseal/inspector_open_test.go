package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/officer"
)

// layInside lays a house in which whoever runs the test is of an inspector's office, whose
// two keys are "ii" and "io".
func layInside(t *testing.T, s *shell) (pass string) {
	t.Helper()
	roster, pass := s.office()
	text := string(read(t, roster))
	for _, o := range [][3]string{{"ii", "investigation", "Nils Berg"}, {"io", "oversight", "Nora Lund"}} {
		s.run(0, "officer", "init", "--office", o[1], "--name", o[2], "-o", s.at(o[0]), "--passphrase-file", pass)
		entry, _ := s.run(0, "officer", "card", s.at(o[0]), "--authority", "Court", "--inspector")
		text += entry
	}
	s.write("officers.yaml", text)
	layOffices(t, s.dir)
	offices := strings.Replace(string(read(t, s.at("offices.yaml"))), "holder: "+owner()+"\n", "holder: os-4713\n", 1)
	for i, holder := range []string{owner(), fmt.Sprintf("os-%d", inspectorTwo)} {
		offices += fmt.Sprintf("  - {id: inspection-%d, authority: court, outside: true, inspector: true, holder: %s, standing: confirmed, since: 2020-01-01, roles: [investigator], training_until: 2099-01-01}\n", i+1, holder)
	}
	s.write("offices.yaml", offices)
	draft := agencyDraft(time.Now())
	draft.OriginalDays = 30
	if err := os.Mkdir(s.at("pias"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.write("pias/test.yaml", string(draft.YAML()))
	if err := layAgency(s.dir, "http: off\nreserve: 16MiB\nmemory: 64MiB\nofficers: officers.yaml\nown_rules: false\n"); err != nil {
		t.Fatal(err)
	}
	return pass
}

// TestInspectorOpensByCommands: with a server and a witness of their own processes, an
// inspector's office asks for a name, for originals and for what it asked itself, signs with
// its two keys and opens. The officers of the organisation decide on none of it, and in
// ledger, payloads and log stands nothing of whom, what, why and by whom.
func TestInspectorOpensByCommands(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	pass := layInside(t, s)
	file := s.at(configName)
	at := time.Now().Add(-time.Hour).UTC()
	s.write("in.ndjson", fmt.Sprintf(`{"time":%q,"event":"signin","user":"alice@agency.example","src_ip":"203.0.113.9","country":"US","result":"success","mfa":true,"client_app":"Browser","risk":"none"}`+"\n", at.Format(time.RFC3339)))
	s.run(0, "import", "--config", file, "--source", "idp", s.at("in.ndjson")) // before there is a record of offices
	log := strings.TrimSpace(string(read(t, s.at("data/ledger/log.vkey"))))
	witness, address := runWitness(t, log)
	watched(t, s, "offices: offices.yaml\nwitnesses:\n  - {vkey: \""+witness+"\", url: \""+address+"\", run_by: others}\n")

	// The other person of the office decides. A test is one user of the machine, so this is
	// not done in a process of its own; nor is what others of the house try.
	b := &bureau{t: t, dir: s.dir}
	b.open()
	_, text := b.as(0, "GET", "/api/v1/search", url.Values{"case": {inspectorCase}, "q": {"source = idp"}}, nil)
	alias := regexp.MustCompile(`mail-[a-z2-7]{6,}`).FindString(text)
	if alias == "" {
		t.Fatal(text)
	}
	act := func(user int, name string, body, out any, status int, says string) {
		t.Helper()
		caseID := inspectorCase
		if user != 0 && user != inspectorTwo { // others do not know it
			caseID = "C-17"
		}
		code, text := b.as(user, "POST", "/api/v1/acts/"+name, url.Values{"case": {caseID}}, body)
		if code != status || !strings.Contains(text, says) {
			t.Fatalf("%s by %d: got %d, want %d with %q\n%s", name, user, code, status, says, text)
		}
		if out != nil {
			if err := json.Unmarshal([]byte(text), out); err != nil {
				t.Fatal(err)
			}
		}
	}
	asked := insideAsk{Action: officer.InsideUnmask, Alias: alias, unlockAsk: unlockAsk{Purpose: "r", Requester: "q", Minutes: 5}}
	for _, user := range []int{4713, colleague, privacyOfficer, overseer, complianceUser} {
		act(user, "inspector.request", asked, nil, 403, "")
		act(user, "inspector.approve", unlockDecided{}, nil, 403, "")
	}
	act(0, "unmask.request", unmaskAsk{alias, "r", "q", 5}, nil, 403, "counterseal inspector")
	act(0, "unlock.request", unlockAsk{Compartment: "x"}, nil, 403, "counterseal inspector")
	act(0, "inspector.request", asked, nil, 403, "no authorisation of your office")
	now := time.Now().UTC()
	var r authorisationRow
	act(0, "authorise.request", authoriseAsk{whom: whom{People: []string{alias}}, From: now.AddDate(0, 0, -30), To: now.AddDate(0, 0, 1), Predicate: "allegation-of-inspector", Basis: "inspector-law-9", Ends: now.AddDate(0, 0, 20)}, &r, 200, "")
	act(0, "inspector.request", asked, nil, 403, "")
	act(inspectorTwo, "authorise", authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}, nil, 200, "")
	b.stop()

	server := exec.Command("counterseal", "serve", "--config", file)
	var said bytes.Buffer
	server.Stdout, server.Stderr = &said, &said
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop := func() {
		if !stopped {
			stopped = true
			server.Process.Signal(os.Interrupt)
			if err := server.Wait(); err != nil {
				t.Errorf("the server: %v", err)
			}
		}
	}
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("the server said:\n%s", said.String())
		}
	})
	up := false
	for end := time.Now().Add(30 * time.Second); !up && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if c := dialRunning(t.Context(), s.at("data")); c != nil {
			up = c.close() == nil
		}
	}
	if !up {
		t.Fatalf("the server does not come up:\n%s", said.String())
	}
	by := func(code int, args ...string) string {
		t.Helper()
		_, both := s.run(code, args...)
		return both
	}
	why := []string{"--config", file, "--case", inspectorCase, "--reason", "what the allegation says", "--requester", "Nils Berg"}
	ask := func(code int, name, what string, more ...string) string {
		return by(code, append(append([]string{"inspector", what}, more...), append(why, "-o", s.at(name))...)...)
	}
	if said := ask(3, "name", "unmask", alias); !strings.Contains(said, "--code") { // the code is not told since the start
		t.Fatal(said)
	}
	by(0, "authorise", "show", r.ID, "--config", file, "--case", inspectorCase, "--code", r.Code)
	by(0, "search", "--config", file, "--case", inspectorCase, "class_uid = 3002 and user.uid = "+alias)

	sign := func(name string, keys ...string) (decisions []string) {
		t.Helper()
		for _, k := range keys {
			by(0, "officer", "sign", s.at(name), "--key", s.at(k), "--passphrase-file", pass, "--yes", "-o", s.at(name+"-"+k))
			decisions = append(decisions, "--decision", s.at(name+"-"+k))
		}
		return decisions
	}
	open := func(code int, name, key string, more ...string) string {
		t.Helper()
		args := []string{"inspector", "open", s.at(name), "--config", file, "--key", s.at(key), "--passphrase-file", pass, "--officers", s.at("officers.yaml"),
			"--decision", s.at(name + "-ii"), "--decision", s.at(name + "-io"), "--receipt", s.at(name + "-receipt"), "--log", log, "--witness", witness}
		return by(code, append(args, more...)...)
	}
	// both asks for one thing and gives what the inner key opens; tried: after every short cut
	// was refused.
	both := func(tried bool, name, what string, more []string, inner ...string) string {
		t.Helper()
		ask(0, name, what, more...)
		ours := sign(name, "ii", "io")
		approve := func(code int, decisions ...string) {
			t.Helper()
			by(code, append([]string{"inspector", "approve", s.at(name), "--config", file, "-o", s.at(name + "-receipt")}, decisions...)...)
		}
		if tried {
			house := sign(name, "inv", "ovs")
			approve(3, ours[:2]...)
			approve(3, house...)
			approve(3, append(ours[:2:2], house[2:]...)...)
		}
		approve(0, ours...)
		if tried {
			open(1, name, "ii", "-o", s.at(name+"-handover"))  // the inner key first
			open(1, name, "ovs", "-o", s.at(name+"-handover")) // a key of the house
		}
		open(0, name, "io", "-o", s.at(name+"-handover"))
		inner = append([]string{"--handover", s.at(name + "-handover")}, inner...)
		if tried {
			open(1, name, "io", "-o", s.at(name+"-again"))
			open(1, name, "inv", inner...)
			open(3, name, "ii", inner[:2]...) // no terminal
		}
		got := open(0, name, "ii", inner...)
		if tried {
			open(3, name, "ii", inner...) // the server says first that it was answered
			if got := open(3, name, "ii", append(inner, "--records", s.at("elsewhere"))...); strings.Contains(got, "alice") || !strings.Contains(got, "answered once") {
				t.Error(got)
			}
		}
		return got
	}
	if got := both(true, "name", "unmask", []string{alias}, "--pipe"); !strings.Contains(got, "mail       alice@agency.example\n") {
		t.Fatal(got)
	}
	both(false, "keys", "unlock", []string{"--compartment", "identity", "--from", at.AddDate(0, 0, -1).Format(time.RFC3339), "--to", at.AddDate(0, 0, 1).Format(time.RFC3339)}, "-o", s.at("key-file"))
	if k := read(t, s.at("key-file")); len(k) == 0 {
		t.Error("no keys came out")
	}
	got := both(false, "questions", "questions", []string{"--from", at.Format(time.RFC3339), "--to", at.Add(2 * time.Hour).Format(time.RFC3339)})
	for _, want := range []string{"user.uid", "what the allegation says"} {
		if !strings.Contains(got, want) {
			t.Errorf("what the office asked does not show %q:\n%s", want, got)
		}
	}
	stop()

	// What others read.
	secrets := []string{inspectorCase, "allegation", "inspector-law-9", "Nils Berg", "alice", alias, "user.uid"}
	for _, w := range secrets {
		if strings.Contains(said.String(), w) {
			t.Errorf("the log of the server tells %q", w)
		}
	}
	err := filepath.WalkDir(s.at("data"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		for _, w := range secrets {
			if strings.Contains(path, "aliases.db") && w == alias || w == "user.uid" && !strings.Contains(path, "ledger") {
				continue
			}
			if bytes.Contains(raw, []byte(w)) || bytes.Contains(raw, []byte(base64.StdEncoding.EncodeToString([]byte(w)))[:8]) {
				t.Errorf("%s holds %q", path, w)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	_, err = ledger.VerifyDir(t.Context(), s.at("data/ledger"), ledger.Verifiers{Log: []string{log}, Witnesses: []ledger.Witness{{VKey: witness}}, Threshold: 1, Each: func(_ uint64, st ledger.Statement) {
		switch st.Kind {
		case "unmask.approved", "unlock.opened", "inspector.read":
			kinds = append(kinds, st.Kind)
			if st.Actor != "office:inspection-1" || st.Purpose != "" || len(st.Subject) != 1 {
				t.Errorf("%s tells more than that it is: %s %q %v", st.Kind, st.Actor, st.Purpose, st.Subject)
			}
		}
	}})
	if got := strings.Join(kinds, " "); err != nil || got != "unmask.approved unlock.opened inspector.read" {
		t.Fatal(got, err)
	}
}

// FuzzParseInside: a request that is read has one sealed kind of thing, and writes back as it
// was.
func FuzzParseInside(f *testing.F) {
	_, statement, err := approval.New(approval.Ask{Action: officer.InsideQuestions, Case: "C", Purpose: "p", Requester: "r", Objects: []string{"statement 01900000-0000-7000-8000-000000000000"}, Org: uuid.New(), Grant: time.Hour}, time.Now())
	if err != nil {
		f.Fatal(err)
	}
	b, err := approval.Canonical(&insideRequest{Form: insideForm, Statement: string(statement), Questions: []insideQuestion{{At: "t", Box: "AAAA", ID: "01900000-0000-7000-8000-000000000000", Kind: "request.served", Route: "r"}}})
	if err != nil {
		f.Fatal(err)
	}
	if _, _, err := parseInside(b); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{}`))
	f.Add(bytes.Replace(b, []byte("questions"), []byte("unmask"), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, st, err := parseInside(b)
		if err != nil {
			return
		}
		if n := len(r.Questions) + len(r.Segments); (r.Name == nil) == (n == 0) || insideKinds[st.Action] == "" {
			t.Error("a request without its thing, or with two")
		}
		if again, err := approval.Canonical(r); err != nil || !bytes.Equal(again, b) {
			t.Errorf("it is written as %q, %v", again, err)
		}
	})
}
