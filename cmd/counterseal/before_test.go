package main

import (
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/counterseal/counterseal/internal/ledger"
)

// TestDirectoryFromBeforeTheLedger opens a data directory that a version without a ledger
// wrote (testdata/before-ledger: two lines of a test, its keys are no secret). What is
// there is stated at the first start, and answers as before; from then on a segment
// that is taken away is missed, and so is the ledger.
func TestDirectoryFromBeforeTheLedger(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := newShell(t)
	if err := layAgency(s.dir, "reserve: 16MiB\nmemory: 64MiB\nhttp: off\n"); err != nil {
		t.Fatal(err)
	}
	data := s.at("data")
	if err := os.CopyFS(data, os.DirFS("testdata/before-ledger")); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			err = os.Chmod(path, 0o600)
		} else if err == nil {
			err = os.Chmod(path, 0o700)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	file := s.at(configName)
	if out, _ := s.run(0, "verify", "--config", file); !strings.Contains(out, "there is no ledger") || !strings.Contains(out, "nothing altered") {
		t.Fatal(out)
	}
	if out, _ := s.run(0, "search", "--config", file, "--format", "csv", "* | stats count() by source"); !strings.Contains(out, "app,2") {
		t.Fatal(out)
	}
	if out, _ := s.run(0, "verify", "--config", file); strings.Contains(out, "there is no ledger") || !strings.Contains(out, "nothing altered") {
		t.Fatal(out)
	}
	if b, err := os.ReadFile(filepath.Join(data, "VERSION")); err != nil || string(b) != formatVersion {
		t.Fatalf("%s, %v", b, err)
	}
	segs, err := filepath.Glob(filepath.Join(data, "evidence", "events", "apps", "*.seg"))
	if err != nil || len(segs) == 0 {
		t.Fatal(segs, err)
	}
	away := s.at("away.seg")
	if err := os.Rename(segs[0], away); err != nil {
		t.Fatal(err)
	}
	if out, _ := s.run(1, "verify", "--config", file); !strings.Contains(out, "it was taken away") {
		t.Fatal(out)
	}
	if err := os.Rename(away, segs[0]); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(data, "ledger"), s.at("ledger")); err != nil {
		t.Fatal(err)
	}
	if _, said := s.run(1, "doctor", "--config", file); !strings.Contains(said, "the ledger of") || !strings.Contains(said, "is gone") {
		t.Fatal(said)
	}
}

// TestAnOldBackupOfTheLedger puts an older copy of ledger and state back: routine work
// goes on and everything shows it, the witness refuses, and what must be witnessed waits.
func TestAnOldBackupOfTheLedger(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := newShell(t)
	if err := layAgency(s.dir, "reserve: 16MiB\nmemory: 64MiB\nhttp: off\n"); err != nil {
		t.Fatal(err)
	}
	file := s.at(configName)
	data := s.at("data")
	events := s.write("events.ndjson", `{"time":"2026-01-02T03:04:05Z","n":1,"who":"alice","text":"one"}`+"\n")
	s.run(0, "import", "--config", file, "--source", "app", events)
	_, secret := s.office()
	log, _, lines, _ := s.witness(data)
	conf, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s.write(configName, string(conf)+"officers: officers.yaml\n"+lines+"run_by: us\n")
	s.run(0, "doctor", "--config", file)
	for _, d := range []string{"ledger", "state"} {
		if err := os.CopyFS(s.at("backup-"+d), os.DirFS(filepath.Join(data, d))); err != nil {
			t.Fatal(err)
		}
	}
	if out, _ := s.run(0, "doctor", "--config", file); !strings.Contains(out, "statements, cosigned up to") || !strings.Contains(out, "not independent: it runs on the host of this server") {
		t.Fatal(out)
	}
	s.run(0, "search", "--config", file, "text")
	for _, d := range []string{"ledger", "state"} {
		if err := os.RemoveAll(filepath.Join(data, d)); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(s.at("backup-"+d), filepath.Join(data, d)); err != nil {
			t.Fatal(err)
		}
	}
	s.run(0, "search", "--config", file, "text") // routine
	out, _ := s.run(1, "doctor", "--config", file)
	if !strings.Contains(out, "fail  ledger") || !strings.Contains(out, "ledger.rollback") && !strings.Contains(out, "ledger.fork") {
		t.Fatal(out)
	}
	s.run(0, "package", "key", "--name", "prosecutor", "-o", s.at("recipient"), "--card", s.at("card"), "--passphrase-file", secret)
	pack := []string{"package", "create", "--config", file, "--case", "C-1", "--purpose", "handover", "--recipient", s.at("card"), "--due", "2026-12-31",
		"--from", "2026-01-01T00:00:00Z", "--to", "2026-02-01T00:00:00Z"}
	_, said := s.run(3, append(pack, "-o", s.at("package"))...)
	if _, err := os.Stat(s.at("package")); err == nil || !strings.Contains(said, "witness") {
		t.Fatalf("a package from a ledger that its witness does not know: %s", said)
	}

	// Two people close the log as it was found, and another follows.
	s.run(0, "ledger", "succeed", "--config", file, "--reason", "restored from a backup", "--case", "C-2", "--requester", "Ada Ihle", "-o", s.at("succession"))
	both := []string{"ledger", "succeed", s.at("succession"), "--config", file}
	for _, who := range []string{"inv", "ovs"} {
		s.run(0, "officer", "sign", s.at("succession"), "--key", s.at(who), "--passphrase-file", secret, "--yes", "-o", s.at("agrees-"+who))
		if said, all := s.run(3, append(both, "--decision", s.at("agrees-"+who))...); said != "" || !strings.Contains(all, "it is not approved") {
			t.Fatal(all)
		}
	}
	said, _ = s.run(0, append(both, "--decision", s.at("agrees-inv"), "--decision", s.at("agrees-ovs"))...)
	next := strings.Fields(said[strings.Index(said, "vkey"):])[1]
	if next == log || !strings.HasPrefix(next, strings.Split(log, "+")[0]+"/2+") {
		t.Fatalf("the new log is %s after %s", next, log)
	}
	if _, all := s.run(3, append(both, "--decision", s.at("agrees-inv"), "--decision", s.at("agrees-ovs"))...); !strings.Contains(all, "ends elsewhere") {
		t.Fatalf("the consent was used twice: %s", all)
	}
	if out, _ := s.run(0, "verify", "--config", file); !strings.Contains(out, "nothing altered") || !strings.Contains(out, "succeeds 1 earlier log") {
		t.Fatal(out)
	}
	for _, dir := range []string{"ledger.before", "state"} { // the state is folded from both logs, and again
		out, _ := s.run(0, "doctor", "--config", file)
		if !strings.Contains(out, "ok    state") || !strings.Contains(out, "does not know") && !strings.Contains(out, "unwitnessed") && !strings.Contains(out, "warn  ledger") {
			t.Fatal(dir, out)
		}
		if err := os.RemoveAll(filepath.Join(data, "state")); err != nil {
			t.Fatal(err)
		}
	}

	// The witness is given the new key by hand, and critical acts go on.
	w, err := ledger.OpenWitness(ledger.WitnessOptions{Dir: s.at("witness-2"), Name: "test/second", Logs: []string{next}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	host := httptest.NewServer(w)
	defer host.Close()
	s.write(configName, string(conf)+"officers: officers.yaml\nwitnesses:\n  - vkey: "+w.VKey()+"\n    url: "+host.URL+"\n")
	s.run(0, append(pack, "-o", s.at("package"))...)
	s.run(0, "package", "verify", s.at("package"), "--log", next, "--witness", w.VKey())

	// An earlier log that was changed is named.
	flipped := filepath.Join(data, "ledger.before", "1", "log", "checkpoint")
	b, err := os.ReadFile(flipped)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(flipped, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _ := s.run(1, "verify", "--config", file); !strings.Contains(out, "ledger.before/1") {
		t.Fatal(out)
	}
}
