package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/descope/virtualwebauthn"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/officer"
)

// signedIn gives a desk the session of a terminal, as counterseal login keeps it.
func (d *desk) signedIn(at, ca string) {
	d.t.Helper()
	b, err := json.Marshal(terminalSession{URL: at, CA: ca, Secret: d.by.terminal(), Expires: time.Now().Add(time.Hour)})
	if err != nil {
		d.t.Fatal(err)
	}
	dir := filepath.Join(d.home, "counterseal")
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "session"), b, 0o600)); err != nil {
		d.t.Fatal(err)
	}
}

// asksName runs counterseal unmask request, lets a person meet its page, and gives what the
// command said when it had ended with a code.
func (d *desk) asksName(code int, meet func(id string), args ...string) string {
	d.t.Helper()
	cmd := d.command(append([]string{"unmask", "request"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	var said, errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		if url, ok := strings.CutPrefix(lines.Text(), "sign      "); ok && meet != nil {
			meet(url[strings.LastIndexByte(url, '/')+1:])
		}
	}
	cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != code {
		d.t.Fatalf("unmask request: exit code %d, want %d\n%s%s", got, code, &said, &errs)
	}
	return said.String() + errs.String()
}

// children are the programs that a process started.
func children(t *testing.T, pid int) (names []string) {
	t.Helper()
	dirs, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		for _, child := range strings.Fields(string(read(t, dir))) {
			names = append(names, strings.ReplaceAll(string(read(t, "/proc/"+child+"/cmdline")), "\x00", " "))
		}
	}
	return names
}

// TestUnmaskByCommands goes the whole way with real processes: a server with TLS and a
// login, its key holder, a witness, an investigator and a privacy officer on machines of
// their own with virtual passkeys, two officers on theirs. Each step is refused when a part
// of it is missing, wrong, repeated, forged or by the wrong office; what is late is in
// TestUnmaskSignable and TestUnmaskApprove, which own the clock. With -v it tells how long
// each step took.
func TestUnmaskByCommands(t *testing.T) {
	s := newShell(t)
	_, pass := s.office()
	card := layCertificate(t, s.dir, 1)
	port := freePort(t)
	at, ca, file := fmt.Sprintf("https://localhost:%d", port), s.at("cert.pem"), s.at(configName)
	text := fmt.Sprintf("data: data\npias: [pias]\nhttp: off\nreserve: 16MiB\nmemory: 64MiB\nofficers: officers.yaml\nown_rules: false\nlogin: {address: \"127.0.0.1:%d\", origin: %q, cert: cert.pem, key: key.pem}\n", port, at)
	s.write(configName, text)
	if err := layAgency(s.dir, ""); err != nil {
		t.Fatal(err)
	}

	// Accounts are made before anybody is in office.
	b := &bureau{t: t, dir: s.dir}
	b.s, b.stop = inProcess(t, s.dir, time.Now, io.Discard)
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
	asker, privacy, watcher := newDesk("investigator"), newDesk("privacy_officer"), newDesk("overseer")
	for _, d := range []*desk{asker, privacy, watcher} {
		d.signedIn(at, ca)
	}
	b.stop()
	layHolder(t, s.at("data-keyholder"), s.at("officers.yaml"))
	b.s, b.stop = inProcess(t, s.dir, time.Now, io.Discard)
	b.signIns("in.ndjson", `"user":"alice@agency.example","src_ip":"203.0.113.9","country":"US","result":"success"`)
	b.stop()
	log := strings.TrimSpace(string(read(t, s.at("data/ledger/log.vkey"))))
	witness, address := runWitness(t, log)
	writeOffices(t, s.dir, office{"cases", "ciso", "", asker.by.id, "investigator"}, office{"privacy", "board", "", privacy.by.id, "privacy_officer"}, office{"inspector", "parliament", "", watcher.by.id, "overseer"})
	s.write(configName, text+"offices: offices.yaml\nwitnesses:\n  - {vkey: \""+witness+"\", url: \""+address+"\", run_by: others}\n")

	server := exec.Command("counterseal", "serve", "--config", file)
	var noise bytes.Buffer // read when the process has ended
	server.Stderr = &noise
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Signal(os.Interrupt)
		if err := server.Wait(); err != nil {
			t.Errorf("the server: %v", err)
		}
		if strings.Contains(noise.String(), "alice") {
			t.Error("the log of the server has the name")
		}
		if t.Failed() {
			t.Logf("the server said:\n%s", noise.String())
		}
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "login ") {
	}
	if runtime.GOOS == "linux" {
		if c := children(t, server.Process.Pid); len(c) != 1 || !strings.Contains(c[0], " keyholder serve ") {
			t.Fatalf("the key holder is no process of its own: %q", c)
		}
	}

	found := asker.run(0, "", "search", "--case", "C-17", "--jsonl", "-", "source = idp")
	alias := regexp.MustCompile(`person-[a-z2-7]{6,}`).FindString(found)
	if alias == "" {
		t.Fatal(found)
	}
	ask := func(name string) []string {
		return []string{alias, "--case", "C-17", "--reason", "who signed in from there", "--requester", "Ines Vogel", "-o", s.at(name)}
	}
	never := func(string) { t.Error("a request that is refused has a page") }
	if said := asker.asksName(3, never, ask("request")...); !strings.Contains(said, "authorise request") {
		t.Fatal(said)
	}
	asker.asksName(2, never, alias, "--reason", "x", "--requester", "y", "-o", s.at("request"))
	day := func(n int) string { return time.Now().UTC().AddDate(0, 0, n).Format(time.RFC3339) }
	said := asker.run(0, "", "authorise", "request", "--case", "C-17", "--person", alias, "--from", day(-3), "--to", time.Now().UTC().Add(time.Second).Format(time.RFC3339), "--predicate", "finding-1", "--basis", "law-1", "--ends", time.Now().AddDate(0, 0, 2).Format(time.DateOnly))
	id := regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}`).FindString(said)
	digest := regexp.MustCompile(`[0-9a-f]{64}`).FindString(privacy.run(0, alias, "authorise", "show", id, "--case", "C-17"))

	// The overseer has this person on a list of protected disclosers. Who asks, and the server,
	// learn nothing of it.
	list, opens := s.at("list"), []string{"--key", s.at("ovs"), "--passphrase-file", pass}
	disclosers := func(d *desk, code int, says, do string, more ...string) string {
		t.Helper()
		return d.run(code, says, append(append([]string{"oversight", "disclosers", do, list}, opens...), more...)...)
	}
	s.run(0, "oversight", "disclosers", "new", list, "--officers", s.at("officers.yaml"))
	disclosers(watcher, 0, "IG-2026-14", "add", "--names", s.write("disclosers.txt", "Alice Example\n"), "--note", "IG-2026-14")
	disclosers(watcher, 5, "MISSING   place 1, IG-2026-14: added since", "check", "--case", "C-17", "--fail-on", "match")
	disclosers(watcher, 0, "found     1 of 1 person", "ask", "--keyholder", s.at("data-keyholder"))
	if said := disclosers(watcher, 10, "1 match", "check", "--case", "C-17", "--fail-on", "match"); !strings.Contains(said, alias) || strings.Contains(said, "alice") || strings.Contains(said, "MISSING") {
		t.Fatal(said)
	}
	disclosers(privacy, 3, "", "check")
	privacy.run(0, "approved", "authorise", "approve", id, "--digest", digest, "--case", "C-17")

	var took []string
	var total time.Duration
	step := func(name string, do func()) time.Duration {
		from := time.Now()
		do()
		d := time.Since(from)
		took = append(took, fmt.Sprintf("%s %.0f ms", name, float64(d.Microseconds())/1000))
		return d
	}

	// The request: by this account, over this statement, once.
	var requested string
	var paged, asked, signed time.Time
	var options *virtualwebauthn.AssertionOptions
	from := time.Now()
	words := asker.asksName(0, func(id string) {
		paged, requested = time.Now(), id
		if code, _ := privacy.by.signs(id); code != 403 {
			t.Errorf("another account signs: %d", code)
		}
		if code, _ := asker.by.signs(id, func(o *virtualwebauthn.AssertionOptions) { o.Challenge = bytes.Repeat([]byte{7}, 32) }); code != 403 {
			t.Errorf("another statement is signed: %d", code)
		}
		privacy.run(3, "no request of yours", "unmask", "collect", id, "--case", "C-17", "-o", s.at("stolen"))
		asked = time.Now()
		options, _ = asker.by.signOptions(id)
		if code, text := asker.by.answers(id, options); code != 200 {
			t.Errorf("signing: %d %s", code, text)
		}
		signed = time.Now()
	}, ask("request")...)
	written := time.Now()
	for _, part := range []struct {
		name     string
		from, to time.Time
	}{{"request", from, paged}, {"signature", asked, signed}, {"collect", signed, written}} {
		d := part.to.Sub(part.from)
		total += d
		took = append(took, fmt.Sprintf("%s %.0f ms", part.name, float64(d.Microseconds())/1000))
	}
	if code, _ := asker.by.answers(requested, options); code != 409 {
		t.Errorf("it is signed twice: %d", code)
	}
	seal := regexp.MustCompile(`seal [0-9a-f]{64}`).FindString(words)
	if !strings.Contains(words, alias) || !strings.Contains(words, "Ines Vogel") || !strings.Contains(words, "officer sign") {
		t.Fatal(words)
	}
	asker.asksName(1, never, ask("request")...) // the file is there
	asker.run(0, "wrote", "unmask", "collect", requested, "--case", "C-17", "-o", s.at("anew"))
	other := asker.asksName(0, nil, append(ask("")[:7], "--no-wait")...)
	second := regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}`).FindString(other)
	if code, text := asker.by.signs(second); code != 200 {
		t.Fatalf("signing: %d %s", code, text)
	}
	asker.run(0, "wrote", "unmask", "collect", second, "--case", "C-17", "-o", s.at("other"))

	// The officers' machines check it. They ask no server, so what they refuse is tried in
	// this process.
	trust := []string{"--origin", at, "--log", log, "--witness", witness}
	desks := &desk{t: t, home: t.TempDir(), folder: t.TempDir()}
	sign := func(request, who, decision string) []string {
		return append([]string{"officer", "sign", s.at(request), "--key", s.at(who), "--passphrase-file", pass, "-o", s.at(decision)}, trust...)
	}
	spoil := func(name string, change func(*unmaskRequest)) string {
		r, _, err := readUnmask(s.at("request"))
		if err != nil {
			t.Fatal(err)
		}
		change(r)
		c, err := approval.Canonical(r)
		if err != nil {
			t.Fatal(err)
		}
		s.write(name, string(c))
		return name
	}
	elsewhere, _, err := readUnmask(s.at("other"))
	if err != nil {
		t.Fatal(err)
	}
	listed := append(sign("request", "ovs", "no"), "--yes", "--disclosers", list)
	for name, c := range map[string]struct {
		args []string
		says string
		code int
	}{
		"somebody on the list": {listed, "LISTED     IG-2026-14", 3},
		"a list of other keys": {append(sign("request", "inv", "no"), "--yes", "--disclosers", list), "sealed to other keys", 1},
		"nobody typed approve": {sign("request", "ovs", "no"), "nothing was signed", 3},
		"no origin, no keys":   {sign("request", "ovs", "no")[:9], "--origin", 2},
		"another origin":       {append(sign("request", "ovs", "no"), "--origin", "https://evil.example"), "another origin", 3},
		"another witness":      {append(sign("request", "ovs", "no"), "--threshold", "2"), "threshold", 3},
		"the other signature":  {sign(spoil("spoiled-1", func(r *unmaskRequest) { r.By.Signed = elsewhere.By.Signed }), "ovs", "no"), "another statement", 3},
		"the other statement":  {sign(spoil("spoiled-2", func(r *unmaskRequest) { r.Statement = elsewhere.Statement }), "ovs", "no"), "another statement", 3},
		"unwitnessed":          {sign(spoil("spoiled-3", func(r *unmaskRequest) { r.By.Requested.Proof = unwitnessed(r.By.Requested.Proof, log) }), "ovs", "no"), "not witnessed", 3},
		"a forged account":     {sign(spoil("spoiled-4", func(r *unmaskRequest) { r.By.Signed.Record.Account = privacy.by.id }), "ovs", "no"), "another account", 3},
		"not the request":      {sign("officers.yaml", "ovs", "no"), "not a request", 1},
	} {
		if _, said := s.run(c.code, c.args...); !strings.Contains(said, c.says) {
			t.Errorf("%s: want %q\n%s", name, c.says, said)
		}
	}
	s.run(0, append(listed[:len(listed):len(listed)], "--although-listed", "-o", s.at("listed"))...)
	for _, who := range []string{"inv", "ovs"} {
		total += step("officer sign", func() {
			desks.run(0, "signed by  passkey ", append(sign("request", who, "says-"+who), "--yes")...)
		})
		s.run(0, append(sign("other", who, "other-"+who), "--yes")...)
	}
	s.run(0, append(sign("other", "inv2", "other-inv2"), "--yes")...)

	// The server takes both decisions.
	approve := func(request, out string, decisions ...string) []string {
		args := []string{"unmask", "approve", s.at(request), "-o", s.at(out)}
		for _, d := range decisions {
			args = append(args, "--decision", s.at(d))
		}
		return args
	}
	forged, err := approval.ParseSigned(read(t, s.at("other-ovs")))
	if err != nil {
		t.Fatal(err)
	}
	forged.Key = mustCard(t, s.at("inv")).ID()
	raw, err := approval.Canonical(forged)
	if err != nil {
		t.Fatal(err)
	}
	s.write("forged", string(raw))
	for _, c := range map[string]struct {
		args []string
		says string
	}{
		"no decision":         {approve("other", "no"), "requested"},
		"a forged one":        {approve("other", "no", "forged"), "signature"},
		"of another request":  {approve("other", "no", "says-ovs"), "signature"},
		"by the wrong office": {approve("other", "no", "other-inv", "other-inv2"), "another office"},
	} {
		asker.run(3, c.says, c.args...)
	}
	total += step("approve", func() { asker.run(0, "", approve("request", "receipt", "says-inv", "says-ovs")...) })
	asker.run(0, "", approve("request", "receipt-again", "says-inv", "says-ovs")...) // an answer that got lost
	asker.run(0, "", approve("other", "receipt-other", "other-ovs")...)              // the first of the two stands already

	// The officers open.
	open := func(who string, more ...string) []string {
		return append(append([]string{"unmask", "open", s.at("request"), "--key", s.at(who), "--passphrase-file", pass, "--officers", s.at("officers.yaml"),
			"--decision", s.at("says-inv"), "--decision", s.at("says-ovs"), "--receipt", s.at("receipt")}, trust...), more...)
	}
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"neither way":         {open("ovs"), 2, "-o"},
		"the wrong office":    {open("inv", "-o", s.at("no")), 1, "sealed to this officer"},
		"another's receipt":   {open("ovs", "-o", s.at("no"), "--receipt", s.at("receipt-other")), 1, "another act"},
		"another origin":      {open("ovs", "-o", s.at("no"), "--origin", "https://evil.example"), 1, "another origin"},
		"too few witnesses":   {open("ovs", "-o", s.at("no"), "--threshold", "2"), 1, "threshold"},
		"a spoiled signature": {append([]string{"unmask", "open", s.at("spoiled-1")}, open("ovs", "-o", s.at("no"))[3:]...), 1, "another statement"},
		"no handover":         {open("inv", "--handover", s.at("no")), 2, ""},
	} {
		if _, said := s.run(c.code, c.args...); !strings.Contains(said, c.says) {
			t.Errorf("%s: want %q\n%s", name, c.says, said)
		}
	}
	var shown string
	total += step("open outer", func() { shown = desks.run(0, "who signed in from there", open("ovs", "-o", s.at("handover"))...) })
	if strings.Contains(shown, "alice") {
		t.Fatal("oversight sees the name")
	}
	if _, said := s.run(1, open("ovs", "-o", s.at("again"))...); !strings.Contains(said, "it was used") {
		t.Fatal(said)
	}
	if said := asker.run(3, "on a terminal", open("inv", "--handover", s.at("handover"))...); strings.Contains(said, "alice") {
		t.Fatal(said)
	}
	total += step("open inner", func() {
		asker.run(0, "person     alice\n", open("inv", "--handover", s.at("handover"), "--pipe")...)
	})
	if said := asker.run(3, "is answered once", open("inv", "--handover", s.at("handover"), "--pipe")...); strings.Contains(said, "alice") {
		t.Fatal("the name is shown twice")
	}
	t.Logf("unmask end to end: %.0f ms of machines: %s", float64(total.Microseconds())/1000, strings.Join(took, ", "))

	if _, said := s.run(0, "verify", "--config", file); !strings.Contains(said, "nothing altered") {
		t.Fatal(said)
	}
	n := &names{bureau: &bureau{t: t}, sh: s}
	n.noName("alice")
	var kinds []string
	alarms := 0
	_, err = ledger.VerifyDir(t.Context(), s.at("data/ledger"), ledger.Verifiers{Log: []string{log}, Witnesses: []ledger.Witness{{VKey: witness}}, Threshold: 1, Each: func(_ uint64, st ledger.Statement) {
		if strings.HasPrefix(st.Kind, "unmask.") || st.Kind == "approval.requested" || st.Kind == "approval.used" {
			kinds = append(kinds, st.Kind)
		}
		if st.Kind == "alarm.raised" && strings.Contains(string(st.Detail), "statement.repeated") {
			alarms++
		}
		leaf, err := st.Canonical()
		if err != nil {
			t.Error(err)
		}
		for _, no := range append([]string{"alice", "Ines", "Ada", "signed in from"}, strings.Fields(seal)[1]) {
			if strings.Contains(string(leaf), no) {
				t.Errorf("a leaf holds %q: %s", no, leaf)
			}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(kinds, " "); got != "approval.requested approval.requested unmask.approved approval.used unmask.approved approval.used unmask.opened" {
		t.Fatal(got)
	}
	if alarms != 1 {
		t.Errorf("%d alarms of a statement that was signed twice", alarms)
	}
}

// layHolder puts a directory and the officers into the folder of a key holder.
func layHolder(t *testing.T, dir, officers string) {
	t.Helper()
	for name, text := range map[string]string{"directory.yaml": agencyDirectory, "officers.yaml": string(read(t, officers))} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func mustCard(t *testing.T, path string) *officer.Card {
	t.Helper()
	c, err := officer.CardOf(read(t, path))
	if err != nil {
		t.Fatal(err)
	}
	return c
}
