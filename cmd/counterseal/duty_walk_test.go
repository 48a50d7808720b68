package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/duty"
)

// TestDutyByCommands goes through a night with processes: a server with its key holder, a
// witness, two officers, a duty host that is killed between count and answer, and one
// responder.
func TestDutyByCommands(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := newShell(t)
	pass, log, witness := layNights(t, s, "", func(log string) (string, string) {
		vkey, address := runWitness(t, log)
		return vkey, "witnesses:\n  - {vkey: \"" + vkey + "\", url: \"" + address + "\", run_by: others}\n"
	})
	file := s.at(configName)
	for name, host := range map[string]string{"host": "127.0.0.1", owner(): "responder", "stranger": "stranger"} {
		layPair(t, s.dir, name, host)
	}
	// Others approve the rule and ask for the warrant. A test is one user of the machine, so
	// this is not done in processes of its own.
	b := &bureau{t: t, dir: s.dir}
	b.later(-2 * time.Hour)
	b.open()
	opened, other := b.granted()
	b.later(time.Hour)
	now := time.Now().UTC()
	wish := dutyWarrantAsk{From: now.Add(-time.Minute), Until: now.AddDate(0, 0, 3), Night: now.Add(-2*time.Hour).Format("15:04") + "-" + now.Add(4*time.Hour).Format("15:04"), Names: 3, Purpose: "the nights of this week", Requester: "Olaf Tal"}
	var r officerRequest
	b.does(overseer, "duty.warrant", wish, &r, 200, "")
	if err := sendRequest(&environment{stdout: &bytes.Buffer{}}, s.at("request"), &r, r.Statement); err != nil {
		t.Fatal(err)
	}
	by := func(code int, args ...string) string {
		t.Helper()
		cmd := exec.Command("counterseal", args...)
		out, err := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Fatalf("%v: exit %d, want %d: %v\n%s", args, got, code, err, out)
		}
		return string(out)
	}
	var w dutyWarrant
	for _, who := range []string{"inv", "ovs"} {
		if said := by(0, "officer", "sign", s.at("request"), "--key", s.at(who), "--passphrase-file", pass, "--yes", "-o", s.at("says-"+who)); !strings.Contains(said, "names 3 a night") {
			t.Fatal(said)
		}
	}
	signed, err := readDecisions([]string{s.at("says-inv"), s.at("says-ovs")})
	if err != nil {
		t.Fatal(err)
	}
	b.does(overseer, "duty.approve", unlockDecided{r.Statement, signed}, &w, 200, "")
	n := &nights{names: &names{bureau: b, sh: s}}
	by(0, "duty", "install", n.write(&w), "--dir", s.at("duty"))
	b.stop()

	start := func(program string, args ...string) (said *spoken, end func(code int)) {
		t.Helper()
		cmd := exec.Command(program, args...)
		said = newSpoken()
		cmd.Stdout, cmd.Stderr = said, said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := false
		end = func(code int) {
			if ended {
				return
			}
			ended = true
			if code >= 0 {
				cmd.Process.Signal(os.Interrupt)
			}
			cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != code {
				t.Errorf("%v ends with %d, want %d:\n%s", args[0], got, code, said)
			}
			if strings.Contains(said.String(), "bob@") {
				t.Errorf("the log of %s has the name", args[0])
			}
		}
		t.Cleanup(func() { end(0) })
		return said, end
	}
	start("counterseal", "serve", "--config", file)
	host := func(program string) (address string, end func(int)) {
		said, end := start(program, "duty", "serve", "--dir", s.at("duty"), "--listen", "127.0.0.1:0", "--tls-cert", s.at("host.crt"), "--tls-key", s.at("host.key"),
			"--client-ca", s.at(owner()+".crt"), "--passphrase-file", pass, "--oversight-passphrase-file", pass)
		return said.after(t, "listens   "), end
	}
	up := false
	for end := time.Now().Add(30 * time.Second); !up && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if c := dialRunning(t.Context(), s.at("data")); c != nil {
			up = c.close() == nil
		}
	}
	if !up {
		t.Fatal("the server does not come up")
	}
	address, end := host("counterseal-dies")
	ask := func(code int, alias, cert string, more ...string) string {
		t.Helper()
		return by(code, append([]string{"duty", "ask", alias, "--config", file, "--case", "C-17", "--reason", "who signed in from there", "--host", address, "--host-ca", s.at("host.crt"),
			"--tls-cert", s.at(cert + ".crt"), "--tls-key", s.at(cert + ".key")}, more...)...)
	}
	if said := ask(3, opened[0], owner()); !strings.Contains(said, "on a terminal") {
		t.Fatal(said)
	}
	if said := ask(3, opened[0], "stranger", "--pipe"); !strings.Contains(said, "certificate") {
		t.Fatal(said)
	}
	if said := ask(3, other, owner(), "--pipe"); !strings.Contains(said, "no incident grant") {
		t.Fatal(said)
	}
	if said := ask(1, opened[0], owner(), "--pipe"); strings.Contains(said, "bob") {
		t.Fatal(said)
	}
	end(-1) // it was killed
	if all, err := duty.Releases(s.at("duty")); err != nil || len(all) != 1 {
		t.Fatalf("%v: %d names are counted, want the one that was not answered", err, len(all))
	}
	address, end = host("counterseal")
	for _, want := range []string{"number 2", "number 3"} {
		if said := ask(0, opened[0], owner(), "--pipe"); !strings.Contains(said, "mail       bob@agency.example\n") || !strings.Contains(said, want) {
			t.Fatal(said)
		}
	}
	if said := ask(3, opened[0], owner(), "--pipe"); !strings.Contains(said, "the most") || strings.Contains(said, "bob") {
		t.Fatal(said)
	}
	if said := by(0, "duty", "status", "--config", file); strings.Count(said, "  opened, waits") != 2 || strings.Count(said, "not known to be opened, waits") != 1 || !strings.Contains(said, "in force") {
		t.Fatal(said)
	}
	end(0)
	if said := by(0, "verify", "--config", file, "--log", log, "--witness", witness); !strings.Contains(said, "nothing altered") {
		t.Fatal(said)
	}
	n.noName("bob@")
	if err := filepath.WalkDir(s.at("duty"), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && bytes.Contains(read(t, path), []byte("bob@")) {
			t.Errorf("%s of the duty host has the name", path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
