package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/keyholder"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/lifecycle"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/policy"
)

var mailAlias = regexp.MustCompile(`mail-[a-z2-7]{6,}`)

// aliasesIn are the different mail aliases of a text, sorted.
func aliasesIn(text string) []string {
	found := mailAlias.FindAllString(text, -1)
	slices.Sort(found)
	return slices.Compact(found)
}

// TestNameByCommands goes from a name to an alias with processes: a server with its key
// holder, a witness, who asks, two officers. The key was changed in between, so that one
// person has two tokens: the case joins them, and no other case does.
func TestNameByCommands(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := newShell(t)
	pass := layNames(t, s)
	file := s.at(configName)
	conf := string(read(t, file))
	s.write(configName, strings.Replace(conf, "offices: offices.yaml\n", "", 1)) // the operator imports first
	holder := s.at("data-keyholder")
	bring := func(name, user string, minutes int) {
		at := time.Now().Add(-time.Duration(minutes) * time.Minute).UTC().Format(time.RFC3339)
		s.write(name, fmt.Sprintf(`{"time":%q,"event":"signin","user":%q,"src_ip":"203.0.113.9","country":"US","result":"success","mfa":true,"client_app":"Browser","risk":"none"}`+"\n", at, user))
		s.run(0, "import", "--config", file, "--source", "idp", s.at(name))
	}
	bring("one.ndjson", "alice@agency.example", 50)
	s.run(0, "keyholder", "rotate", "--dir", holder)
	bring("two.ndjson", "Alice@AGENCY.example", 40)
	s.write(configName, conf)
	log := strings.TrimSpace(string(read(t, s.at("data/ledger/log.vkey"))))
	witness, address := runWitness(t, log)
	watched(t, s, "witnesses:\n  - {vkey: \""+witness+"\", url: \""+address+"\", run_by: others}\n")
	by := func(code int, args ...string) string {
		t.Helper()
		cmd := exec.Command("counterseal", args...)
		out, err := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Fatalf("%v: exit %d, want %d: %v\n%s", args, got, code, err, out)
		}
		return string(out)
	}
	search := func(caseID string) []string {
		t.Helper()
		return aliasesIn(by(0, "search", "--config", file, "--case", caseID, "--jsonl", "-", "source = idp"))
	}
	ask := []string{"name", "request", "--config", file, "--case", "C-17", "--names", s.write("names.txt", "mail alice@agency.example\n\nmail nobody.yet@agency.example\n"), "--officers", s.at("officers.yaml"),
		"--reason", "a colleague told what they saw", "--requester", "Ines Vogel", "-o", s.at("request")}

	serve := func() (stop func()) {
		server := exec.Command("counterseal", "serve", "--config", file)
		var said bytes.Buffer
		server.Stdout, server.Stderr = &said, &said
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if c := dialRunning(t.Context(), s.at("data")); c != nil && c.close() == nil {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("the server does not come up:\n%s", said.String())
			}
		}
		return func() {
			server.Process.Signal(os.Interrupt)
			if err := server.Wait(); err != nil {
				t.Errorf("the server: %v", err)
			}
			if strings.Contains(said.String(), "alice") || strings.Contains(said.String(), "nobody.yet") {
				t.Error("the log of the server, or of its key holder, has a name")
			}
			if t.Failed() {
				t.Logf("the server said:\n%s", said.String())
			}
		}
	}
	// A holder that knows no officers answers nobody, and the server says so at once.
	if said := by(3, ask...); !strings.Contains(said, "knows no officers") {
		t.Fatal(said)
	}
	if err := os.WriteFile(filepath.Join(holder, "officers.yaml"), read(t, s.at("officers.yaml")), 0o600); err != nil {
		t.Fatal(err)
	}
	settings := filepath.Join(holder, "keyholder.yaml")
	if err := os.WriteFile(settings, fmt.Appendf(read(t, settings), "ledger:\n  log: %q\n  witnesses: [%q]\n", log, witness), 0o600); err != nil {
		t.Fatal(err)
	}
	stop := serve()
	defer func() { stop() }()
	before := search("C-17")
	if len(before) != 2 {
		t.Fatalf("one person with two tokens is shown as %q", before)
	}
	words := by(0, ask...)
	if strings.Contains(words, "alice@") || !strings.Contains(words, "names 2") || !strings.Contains(words, "Ines Vogel") || !strings.Contains(words, "request.names") {
		t.Fatal(words)
	}
	if text := string(read(t, s.at("request"))); strings.Contains(text, "alice") {
		t.Fatal("the request says a name")
	}
	if mode, err := os.Stat(s.at("request.names")); err != nil || mode.Mode().Perm() != 0o600 {
		t.Fatal(mode, err)
	}
	for _, who := range []string{"inv", "ovs"} {
		said := by(0, "officer", "sign", s.at("request"), "--key", s.at(who), "--passphrase-file", pass, "--yes", "-o", s.at("says-"+who))
		if !strings.Contains(said, "mail       alice@agency.example\n") || !strings.Contains(said, "mail       nobody.yet@agency.example\n") {
			t.Fatalf("the officer does not read whom it is about:\n%s", said)
		}
	}
	decisions := []string{"--decision", s.at("says-inv"), "--decision", s.at("says-ovs")}
	by(3, "name", "approve", s.at("request"), "--config", file, "--decision", s.at("says-ovs"), "-o", s.at("receipt"))
	asked := append([]string{"name", "ask", s.at("request"), "--config", file, "--receipt", s.at("receipt")}, decisions...)
	by(2, asked...) // there is no receipt yet
	by(0, append([]string{"name", "approve", s.at("request"), "--config", file, "-o", s.at("receipt")}, decisions...)...)
	if said := by(3, slices.Concat(asked[:7], decisions[:2])...); !strings.Contains(said, "refuses the capability") {
		t.Fatal(said)
	}
	said := by(0, asked...)
	got := mailAlias.FindAllString(said, -1)
	if strings.Contains(said, "alice") || len(got) != 2 || !slices.Contains(before, got[0]) || slices.Contains(before, got[1]) {
		t.Fatalf("%s\nbefore: %q", said, before)
	}
	if _, err := os.Stat(s.at("request.names")); err == nil {
		t.Error("the file of the names is still there")
	}
	if after := search("C-17"); !slices.Equal(after, got[:1]) {
		t.Errorf("the case shows %q, want %q", after, got[:1])
	}
	if other := search("C-18"); len(other) != 2 {
		t.Errorf("another case sees the link: %q", other)
	}
	stop()
	stop = func() {}

	// From here on the rules are those for every alias. A test is one user of the machine, so
	// the others do not act in processes of their own.
	b := &bureau{t: t, dir: s.dir}
	b.open()
	defer func() { b.stop() }()
	about := func(alias string) string { return "class_uid = 3002 and user.uid = " + alias }
	b.asks(about(got[0]), 403, "authorisation")
	old := before[0]
	if old == got[0] {
		old = before[1]
	}
	r := b.request(old) // the alias of before means the same person
	b.does(privacyOfficer, "authorise", authoriseNamed{ID: r.ID, Digest: r.Digest, Approve: true}, nil, 200, "")
	for _, q := range []string{about(got[0]), about(old)} {
		if rows := strings.Count(b.asks(q, 200, ""), `"ref"`); rows != 2 {
			t.Errorf("%s: %d rows, want 2", q, rows)
		}
	}
	b.asks(about(got[1]), 403, "authorisation")
	if code, text := b.as(0, "GET", "/api/v1/search", url.Values{"case": {"C-18"}, "q": {about(got[0])}}, nil); code != 403 {
		t.Errorf("another case: %d %s", code, text)
	}
	var queue queueAnswer
	b.does(overseer, "oversight.queue", struct{}{}, &queue, 200, "")
	if !slices.ContainsFunc(queue.Looks, func(l queueRow) bool { return l.Act == "name.ask" && l.Case == "C-17" && len(l.About) == 2 }) {
		t.Errorf("the question waits for no review: %+v", queue.Looks)
	}
	if said := by(0, "verify", "--config", file); !strings.Contains(said, "nothing altered") {
		t.Fatal(said)
	}
	n := &names{bureau: b, sh: s}
	n.noName("alice")
	n.noName("nobody.yet")
	var kinds []string
	_, err := ledger.VerifyDir(t.Context(), s.at("data/ledger"), ledger.Verifiers{Log: []string{log}, Witnesses: []ledger.Witness{{VKey: witness}}, Threshold: 1, Each: func(_ uint64, st ledger.Statement) {
		if strings.HasPrefix(st.Kind, "approval.") || strings.HasPrefix(st.Kind, "name.") {
			kinds = append(kinds, st.Kind)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(kinds, " "); got != "approval.requested approval.decided approval.decided name.approved approval.used name.answered" {
		t.Fatal(got)
	}
	eraseByCommands(t, s, b, by, pass, file, holder, got[0])
}

// question is somebody's request for a name, in a case, as the server is asked it.
func (n *names) question(text, requester string) (*nameRequest, *namesKept) {
	n.t.Helper()
	kept := &namesKept{Names: []keyholder.Spoken{{Category: "mail", Text: text}}, V: 1}
	salt, c, err := keyholder.Commit(kept.Names)
	if err != nil {
		n.t.Fatal(err)
	}
	kept.salt, kept.Salt = salt, base64.RawURLEncoding.EncodeToString(salt)
	var r nameRequest
	n.does(0, "name.request", nameAsk{Names: 1, Commitment: hex.EncodeToString(c[:]), Reason: "a colleague told", Requester: requester, Minutes: 60}, &r, 200, "")
	if err := r.seal(n.roster, kept); err != nil {
		n.t.Fatal(err)
	}
	return &r, kept
}

// ask asks the key holder of the server.
func (n *names) ask(r *nameRequest, kept *namesKept, got *receipt) error {
	n.t.Helper()
	c, err := keyholder.Capability([]byte(r.Statement), n.both(r.Statement), keyholder.Seen(*got))
	if err != nil {
		n.t.Fatal(err)
	}
	h := askedHolder{dir: n.s.tokens.dir}
	dial, err := h.dial(config{})
	if err != nil {
		n.t.Fatal(err)
	}
	return keyholder.Ask(n.t.Context(), dial, c, kept.salt, kept.Names)
}

func (n *names) idOf(r *nameRequest) nameFetch {
	n.t.Helper()
	st, err := approval.Parse([]byte(r.Statement))
	if err != nil {
		n.t.Fatal(err)
	}
	return nameFetch{st.ID}
}

// TestNameRefused: what the server refuses of a question by name, step by step.
func TestNameRefused(t *testing.T) {
	t.Parallel() // it waits more than it works
	n := openNames(t)
	ask := nameAsk{Names: 1, Commitment: strings.Repeat("ab", 32), Reason: "a colleague told", Requester: "Ines Vogel", Minutes: 60}
	with := func(change func(*nameAsk)) nameAsk { a := ask; change(&a); return a }
	n.does(0, "name.request", ask, nil, 403, "knows no officers")
	n.stop()
	dir := n.s.tokens.dir
	for name, text := range map[string]string{
		"officers.yaml":  string(read(t, n.sh.at("officers.yaml"))),
		"keyholder.yaml": fmt.Sprintf("%sledger:\n  log: %q\n  witnesses: [%q]\n", read(t, filepath.Join(dir, "keyholder.yaml")), n.log, n.vkey),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n.open()
	for _, user := range []int{colleague, overseer, privacyOfficer, complianceUser} {
		n.does(user, "name.request", ask, nil, 403, "")
		n.does(user, "name.ask", nameFetch{}, nil, 403, "")
	}
	for name, bad := range map[string]nameAsk{
		"no commitment":  with(func(a *nameAsk) { a.Commitment = "" }),
		"a short one":    with(func(a *nameAsk) { a.Commitment = "abcd" }),
		"nobody":         with(func(a *nameAsk) { a.Names = 0 }),
		"a whole office": with(func(a *nameAsk) { a.Names = keyholder.MaxNames + 1 }),
		"no reason":      with(func(a *nameAsk) { a.Reason = "" }),
		"no requester":   with(func(a *nameAsk) { a.Requester = " " }),
		"for ever":       with(func(a *nameAsk) { a.Minutes = 1 << 20 }),
	} {
		if code, text := n.as(0, "POST", "/api/v1/acts/name.request", url.Values{"case": {"C-17"}}, bad); code != 400 {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}
	if code, text := n.as(0, "POST", "/api/v1/acts/name.request", nil, ask); code != 400 || !strings.Contains(text, "case") {
		t.Errorf("without a case: %d %s", code, text)
	}
	n.away.Store(true)
	n.does(0, "name.request", ask, nil, 503, "")
	n.away.Store(false)

	r, kept := n.question("alice@agency.example", "Ines Vogel")
	other, _ := n.question("bob@agency.example", "Ines Vogel")
	id := n.idOf(r)
	n.does(0, "name.ask", nameFetch{"x"}, nil, 400, "no id")
	n.does(0, "name.ask", id, nil, 403, "not approved")
	bring := func(status int, says string, signed []approval.Signed, statement string) *receipt {
		t.Helper()
		var got receipt
		n.does(0, "name.approve", unlockDecided{statement, signed}, &got, status, says)
		return &got
	}
	fresh := func(requester string) string {
		q, _ := n.question("bob@agency.example", requester)
		return q.Statement
	}
	for _, keys := range [][]string{{"ovs"}, {"inv"}, {"ovs", "ovs2"}, {"inv", "inv2"}} {
		q := fresh("Ines Vogel")
		bring(403, "", n.sign(approval.Approve, q, keys...), q)
	}
	bring(403, "signature", n.both(other.Statement), r.Statement)
	own := fresh("otto SAND")
	bring(403, "does not decide", n.both(own), own)
	refused := fresh("Ines Vogel")
	bring(403, "refused", n.sign(approval.Refuse, refused, "inv"), refused)
	bring(403, "", n.both(refused), refused)
	unasked, err := func() (string, error) { // a statement that the ledger does not know
		q := *r.question
		q.Commitment[0] ^= 1
		_, b, err := keyholder.NewQuestion(q, n.now())
		return string(b), err
	}()
	if err != nil {
		t.Fatal(err)
	}
	bring(403, "knows no request", n.both(unasked), unasked)
	n.does(0, "unmask.approve", unlockDecided{r.Statement, n.both(r.Statement)}, nil, 403, "something else")

	got := bring(200, "", n.both(r.Statement), r.Statement)
	n.does(0, "name.ask", id, nil, 403, "no answer to this question") // nobody asked the holder yet
	// Both decisions without the word of the ledger, or with that about another question.
	othergot := bring(200, "", n.both(other.Statement), other.Statement)
	for name, bad := range map[string]*receipt{"another receipt": othergot, "none": {V: 1}, "another leaf": {Leaf: othergot.Leaf, Proof: got.Proof, V: 1}} {
		if err := n.ask(r, kept, bad); !errors.Is(err, keyholder.ErrCapability) {
			t.Errorf("%s: %v", name, err)
		}
	}
	n.later(61 * time.Minute)
	if err := n.ask(r, kept, got); !errors.Is(err, keyholder.ErrCapability) {
		t.Errorf("late: %v", err)
	}
	n.later(-61 * time.Minute)
	if err := n.ask(r, kept, got); err != nil {
		t.Fatal(err)
	}
	if code, text := n.as(0, "POST", "/api/v1/acts/name.ask", url.Values{"case": {"C-18"}}, id); code != 403 {
		t.Errorf("in another case: %d %s", code, text)
	}
	var first, again nameAnswer
	n.does(0, "name.ask", id, &first, 200, "")
	n.does(0, "name.ask", id, &again, 200, "") // the answer got lost on its way
	if len(first.People) != 1 || !slices.Equal(first.People, again.People) || !slices.Contains(n.who, first.People[0]) {
		t.Errorf("%v, %v, shown are %v", first, again, n.who)
	}
	if facts, err := n.s.pipe.Recorder().Facts(t.Context(), "name.answered"); err != nil || len(facts) != 1 {
		t.Errorf("%d statements, %v", len(facts), err)
	}
	n.later(11 * time.Minute)
	n.does(0, "name.ask", id, nil, 403, "no answer")

	// Somebody whom the case knows by a token of a later epoch, in which nothing was sealed
	// yet: the seal of the one before is opened.
	token, err := n.s.tokens.maker.Token(event.Mail, []byte("alice@agency.example"))
	if err != nil {
		t.Fatal(err)
	}
	newer := event.NewToken(event.Mail, 2, [16]byte{1})
	if err := n.s.cases.Answered(t.Context(), policy.Person{ID: owner()}, "C-17", uuid.NewString(), [][]string{{string(token), string(newer)}}); err != nil {
		t.Fatal(err)
	}
	shown := aliasesIn(n.asks("source = idp", 200, ""))
	shown = slices.DeleteFunc(shown, func(a string) bool { return slices.Contains(n.who, a) })
	if len(shown) != 1 {
		t.Fatalf("shown by %q", shown)
	}
	n.authorised(first.People[0]) // the alias of before
	if u := n.asked(shown[0], "Ines Vogel"); u.row.Token != token {
		t.Error("the seal of another token is asked for")
	}
	// Two seals of one person are erased together, by either alias.
	another, err := n.s.tokens.maker.Token(event.Mail, []byte("bob@agency.example"))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.s.cases.Answered(t.Context(), policy.Person{ID: owner()}, "C-17", uuid.NewString(), [][]string{{string(another), string(newer)}}); err != nil {
		t.Fatal(err)
	}
	st, err := approval.Parse([]byte(n.eraseAsked(0, first.People[0]).Statement))
	if err != nil {
		t.Fatal(err)
	}
	if all, err := lifecycle.ParseErasure(st.Objects); err != nil || len(all) != 2 {
		t.Errorf("%d seals are to be erased, %v", len(all), err)
	}
	n.later(15 * 24 * time.Hour) // no overseer is heard any more
	n.does(0, "name.request", ask, nil, 403, "overseer")
	n.does(0, "name.ask", id, nil, 403, "overseer")
}

// TestNameRequestIsRead: an officer reads the names of a request or signs nothing.
func TestNameRequestIsRead(t *testing.T) {
	n := &names{bureau: &bureau{t: t}, sh: newShell(t), keys: map[string]*officer.Key{}}
	_, pass := n.sh.office()
	secret := bytes.TrimSpace(read(t, pass))
	for _, name := range []string{"inv", "ovs2"} {
		k, err := officer.OpenKey(read(t, n.sh.at(name)), secret)
		if err != nil {
			t.Fatal(err)
		}
		n.keys[name] = k
	}
	roster, err := officer.ParseRoster("officers.yaml", read(t, n.sh.at("officers.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := officer.New("Ada Ihle", officer.Investigation, false)
	if err != nil {
		t.Fatal(err)
	}
	kept := &namesKept{Names: []keyholder.Spoken{{Category: "person", Text: "alice"}, {Category: "device", Text: "LAP-1"}}, V: 1}
	salt, c, err := keyholder.Commit(kept.Names)
	if err != nil {
		t.Fatal(err)
	}
	kept.Salt = base64.RawURLEncoding.EncodeToString(salt)
	about := func(c [32]byte) *nameRequest {
		_, b, err := keyholder.NewQuestion(keyholder.Question{Case: "C-17", Purpose: "x", Requester: "y", Account: "os-1", Names: 2, Commitment: c, Org: uuid.MustParse("01890a5d-ac96-474b-bcce-b302099a8057"), Grant: time.Hour}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return &nameRequest{Statement: string(b), V: 1}
	}
	r := about(c)
	if err := r.seal(roster, kept); err != nil {
		t.Fatal(err)
	}
	text, err := approval.Canonical(r)
	if err != nil {
		t.Fatal(err)
	}
	got, st, err := parseNameRequest(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range n.keys {
		if names, err := got.open(k, st); err != nil || !slices.Equal(names.Names, kept.Names) {
			t.Errorf("%v: %v", k, err)
		}
	}
	if _, err := got.open(stranger, st); err == nil {
		t.Error("a stranger reads the names")
	}
	// The statement commits to others: who asked does not seal, and an officer does not read.
	other := about([32]byte{1})
	if err := other.seal(roster, kept); err == nil {
		t.Error("sealed under another commitment")
	}
	moved := *got
	moved.Statement = other.Statement
	if moved.question, err = keyholder.ParseQuestion(sure(approval.Parse([]byte(other.Statement)))); err != nil {
		t.Fatal(err)
	}
	if _, err := moved.open(n.keys["inv"], sure(approval.Parse([]byte(other.Statement)))); err == nil {
		t.Error("names of another statement are read")
	}
	file := n.sh.write("request", string(sure(approval.Canonical(&nameRequest{Boxes: got.Boxes, Epoch: 1, Statement: other.Statement, V: 1}))))
	if _, said := n.sh.run(3, "officer", "sign", file, "--key", n.sh.at("inv"), "--passphrase-file", pass, "--yes", "-o", n.sh.at("signed")); !strings.Contains(said, "sign nothing") {
		t.Error(said)
	}
}

func sure[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// FuzzNameRequest: what is taken for a request is written back as it was.
func FuzzNameRequest(f *testing.F) {
	_, b, err := keyholder.NewQuestion(keyholder.Question{Case: "C-17", Purpose: "x", Requester: "y", Account: "os-1", Names: 2, Org: uuid.Nil, Grant: time.Hour}, time.Unix(1_780_000_000, 0))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sure(approval.Canonical(&nameRequest{Boxes: []nameBox{{"AAAA", "ab"}}, Epoch: 1, Statement: string(b), V: 1})))
	f.Add(sure(approval.Canonical(&namesKept{Names: []keyholder.Spoken{{Category: "person", Text: "alice"}}, Salt: "AAAA", V: 1})))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, _, err := parseNameRequest(b)
		if err != nil {
			return
		}
		if again := sure(approval.Canonical(r)); !bytes.Equal(again, b) {
			t.Errorf("%s", again)
		}
		if _, err := r.parseNames(b); err == nil {
			t.Error("a request is names")
		}
	})
}
