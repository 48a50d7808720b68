package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/descope/virtualwebauthn"
	"github.com/spf13/cobra"
)

// TestRemoteCommands: each name of the list is a command, and what asks a server has the
// flags of one.
func TestRemoteCommands(t *testing.T) {
	root := newRoot(&environment{stdout: io.Discard, stderr: io.Discard})
	for _, path := range remote {
		cmd, rest, err := root.Find(strings.Fields(path))
		if err != nil || len(rest) > 0 {
			t.Errorf("%s: %v %v", path, rest, err)
			continue
		}
		var walk func(*cobra.Command) int
		walk = func(cmd *cobra.Command) (n int) {
			if cmd.Flags().Lookup("server") != nil && cmd.Flags().Lookup("ca") != nil {
				n++
			}
			for _, sub := range cmd.Commands() {
				n += walk(sub)
			}
			return n
		}
		if walk(cmd) == 0 {
			t.Errorf("%s has no --server", path)
		}
	}
	for _, path := range []string{"serve", "import", "verify", "rebuild", "package create", "rules check"} {
		cmd, _, err := root.Find(strings.Fields(path))
		if err != nil || cmd.Flags().Lookup("server") != nil {
			t.Errorf("%s has --server: %v", path, err)
		}
	}
}

// desk is a person at a machine of their own: settings, a folder, and no data.
type desk struct {
	t            *testing.T
	home, folder string
	env          []string
	by           *person
}

func (d *desk) command(args ...string) *exec.Cmd {
	cmd := exec.Command("counterseal", args...)
	cmd.Dir = d.folder
	cmd.Env = append(append(os.Environ(), "HOME="+d.home, "XDG_CONFIG_HOME="+d.home), d.env...)
	return cmd
}

// run runs a command, and wants its exit code and a part of what it says.
func (d *desk) run(code int, says string, args ...string) string {
	d.t.Helper()
	out, err := d.command(args...).CombinedOutput()
	got := 0
	var x *exec.ExitError
	if errors.As(err, &x) {
		got = x.ExitCode()
	} else if err != nil {
		d.t.Fatal(err)
	}
	if got != code || !strings.Contains(string(out), says) {
		d.t.Fatalf("%v: exit code %d, want %d with %q\n%s", args, got, code, says, out)
	}
	if bytes.Contains(out, []byte("css_")) {
		d.t.Errorf("%v shows the secret", args)
	}
	return string(out)
}

// login runs counterseal login, confirms its code in the browser, and gives the secret.
func (d *desk) login(args ...string) string {
	d.t.Helper()
	cmd := d.command(append([]string{"login"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if code, ok := strings.CutPrefix(lines.Text(), "code      "); ok {
			if status, text := d.by.post("/login/cli/confirm", `{"user_code":"`+code+`"}`); status != 200 {
				d.t.Errorf("confirm: %d %s", status, text)
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		d.t.Fatal(err)
	}
	path := filepath.Join(d.home, "counterseal", "session")
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		d.t.Fatal(st, err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		d.t.Fatal(err)
	}
	s, err := parseSession(b)
	if err != nil {
		d.t.Fatal(err)
	}
	return s.Secret
}

// TestRemote is the program in two processes, as on two machines: a server, and commands
// that reach it over TLS with the session of their terminal.
func TestRemote(t *testing.T) {
	port := freePort(t)
	at := fmt.Sprintf("https://localhost:%d", port)
	b := &bureau{t: t, dir: t.TempDir()}
	card := layCertificate(t, b.dir, 1)
	text := fmt.Sprintf("data: data\npias: [pias]\nhttp: off\nreserve: 16MiB\nmemory: 64MiB\nlogin: {address: \"127.0.0.1:%d\", origin: %q, cert: cert.pem, key: key.pem}\n", port, at)
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(b.dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write(configName, text)
	if err := layAgency(b.dir, ""); err != nil {
		t.Fatal(err)
	}

	// Accounts are made, and events come in, before anybody is in office.
	b.s, b.stop = inProcess(t, b.dir, time.Now, io.Discard)
	b.signins()
	rp := virtualwebauthn.RelyingParty{ID: "localhost", Name: "Counterseal", Origin: at}
	newDesk := func(role string) *desk {
		t.Helper()
		invited, err := act[accountSecret](t, b.s.signin.accountInvite, accountInvite{[]string{role}})
		if err != nil {
			t.Fatal(err)
		}
		c := doorClient(t, card, func() net.Addr { return b.s.signin.l.Addr() })
		return &desk{t: t, home: t.TempDir(), folder: t.TempDir(), by: newPersonAt(t, c, rp, invited.Secret)}
	}
	analyst, officer, watcher := newDesk("analyst"), newDesk("privacy_officer"), newDesk("overseer")
	tok, err := act[tokenMade](t, b.s.signin.tokenCreate, tokenCreate{Scopes: []string{"ingest"}, Days: 1})
	if err != nil {
		t.Fatal(err)
	}
	b.stop()
	writeOffices(t, b.dir, office{"soc", "ciso", "", analyst.by.id, "analyst"}, office{"soc-night", "ciso", "", analyst.by.id, "responder"}, office{"privacy", "board", "", officer.by.id, "privacy_officer"}, office{"inspector", "parliament", "", watcher.by.id, "overseer"})
	write(configName, text+"offices: offices.yaml\n")

	srv := exec.Command("counterseal", "serve", "--verbose", "--config", filepath.Join(b.dir, configName))
	var log bytes.Buffer // read when the process has ended
	srv.Stderr = &log
	out, err := srv.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	var over sync.Once
	stop := func() {
		over.Do(func() {
			if err := errors.Join(srv.Process.Signal(os.Interrupt), srv.Wait()); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "login ") {
	}
	if !strings.HasPrefix(lines.Text(), "login ") {
		t.Fatal("the server does not come up")
	}

	// Nobody is signed in, or at another server.
	const why = "--purpose=intrusion-detection"
	ca := filepath.Join(b.dir, "cert.pem")
	analyst.run(exitFailed, "no data directory", "search", "source = idp")
	analyst.run(exitRefused, "counterseal login --server URL", "search", "--server", at, "--ca", ca, "source = idp")
	analyst.run(exitUsage, "https://host", "search", "--server", "http://localhost", "source = idp")
	analyst.run(exitUsage, "name two places", "search", "--server", at, "--data", "data", "source = idp")
	secret := analyst.login("--server", at, "--ca", ca)
	analyst.run(exitRefused, "not signed in at that server", "search", "--server", "https://other.example", "source = idp")

	// The session knows the server and the authority; the questions are judged as the account's.
	shown := analyst.run(0, "", "search", "--case", "C-17", why, "--format", "jsonl", "source = idp")
	who := regexp.MustCompile(`mail-[a-z2-7]{6,}`).FindAllString(shown, -1)
	slices.Sort(who)
	if who = slices.Compact(who); len(who) != 3 {
		t.Fatalf("%d people, want 3\n%s", len(who), shown)
	}
	about := "class_uid = 3002 and user.uid = " + who[0]
	analyst.run(exitRefused, "counterseal authorise request", "search", "--case", "C-17", why, about)
	analyst.run(exitRefused, "name one of yours with --office: soc, soc-night", "search", "--office", "privacy", why, "source = idp")
	analyst.run(0, "", "search", "--office", "soc-night", why, "source = idp")
	analyst.run(0, "", "timeline", why)
	analyst.run(0, "", "rules", "list")
	analyst.run(exitRefused, "", "hold", "list")
	analyst.run(exitRefused, "", "review", "list")
	analyst.run(0, "inspector", "oversight", "status")

	// The environment names server and office, and what works on the server's machine
	// alone says so.
	analyst.env = []string{"COUNTERSEAL_SERVER=" + at, "COUNTERSEAL_OFFICE=privacy"}
	analyst.run(exitRefused, "soc, soc-night", "rules", "list")
	analyst.run(exitUsage, "the machine of its server alone", "import", "--source", "idp", write("more.ndjson", "{}\n"))
	analyst.env = []string{"COUNTERSEAL_SERVER=" + at, "COUNTERSEAL_OFFICE=soc", "COUNTERSEAL_CASE=C-17", "COUNTERSEAL_PURPOSE=intrusion-detection"}
	day := func(n int) string { return time.Now().UTC().AddDate(0, 0, n).Format(time.RFC3339) }
	said := analyst.run(0, "", "authorise", "request", "--person", who[0], "--from", day(-3), "--to", time.Now().UTC().Add(time.Second).Format(time.RFC3339), "--predicate", "finding-1", "--basis", "law-1", "--ends", time.Now().AddDate(0, 0, 2).Format(time.DateOnly))
	id := regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}`).FindString(said)

	// The privacy officer, on a third machine.
	officer.login("--server", at, "--ca", ca)
	digest := regexp.MustCompile(`[0-9a-f]{64}`).FindString(officer.run(0, who[0], "authorise", "show", id, "--case", "C-17"))
	officer.run(0, "approved", "authorise", "approve", id, "--digest", digest, "--case", "C-17")
	analyst.run(0, "counterseal: ", "search", about) // with a notice
	officer.run(exitRefused, "", "search", why, "source = idp")

	// An authority that did not sign the certificate; the question is not repeated.
	other := t.TempDir()
	layCertificate(t, other, 2)
	if text := analyst.run(exitFailed, "asking the server", "search", "--ca", filepath.Join(other, "cert.pem"), about); strings.Contains(text, who[0]) {
		t.Errorf("the question is repeated: %s", text)
	}

	// The session is revoked in the browser: the terminal is told what to do.
	w, err := analyst.by.c.Get(at + "/login/sessions")
	if err != nil {
		t.Fatal(err)
	}
	var sessions []struct {
		ID       string
		Terminal bool
	}
	err = json.NewDecoder(w.Body).Decode(&sessions)
	if err = errors.Join(err, w.Body.Close()); err != nil || w.StatusCode != http.StatusOK {
		t.Fatal(w.StatusCode, err)
	}
	for _, s := range sessions {
		if s.Terminal {
			if status, _ := analyst.by.post("/login/sessions/revoke", `{"id":"`+s.ID+`"}`); status != 200 {
				t.Error(status)
			}
		}
	}
	analyst.run(exitRefused, "sign in again: counterseal login", "search", about)
	analyst.login() // where it signed in before
	analyst.run(0, "", "search", "source = idp")
	// One that is over by its own word is not even sent.
	path := filepath.Join(analyst.home, "counterseal", "session")
	old, err := json.Marshal(terminalSession{URL: at, CA: ca, Secret: "css_A", Expires: time.Now().Add(-time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	analyst.run(exitRefused, "the session of this terminal has ended", "search", "source = idp")
	officer.run(0, "signed out", "logout")
	officer.run(exitRefused, "counterseal login", "authorise", "list", "--server", at)

	watcher.login("--server", at, "--ca", ca)
	watcher.canaries(at, ca, tok.Text)

	stop()
	for _, s := range []string{tok.Text, secret, strings.TrimPrefix(secret, "css_"), who[0], "user.uid"} {
		if strings.Contains(log.String(), s) {
			t.Errorf("the log of the server holds %.8s…\n%s", s, &log)
		}
	}
}
