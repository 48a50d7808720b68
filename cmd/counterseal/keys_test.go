package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/ledger"
)

// shell runs command lines in a folder, as one person after the other would.
type shell struct {
	t   *testing.T
	dir string
}

// noPassphrase: what a test needs it says in a file, whatever the environment holds.
var noPassphrase = sync.OnceFunc(func() {
	os.Unsetenv("CREDENTIALS_DIRECTORY")
	os.Unsetenv("COUNTERSEAL_PASSPHRASE")
})

func newShell(t *testing.T) *shell {
	noPassphrase()
	return &shell{t, t.TempDir()}
}

func (s *shell) at(name string) string { return filepath.Join(s.dir, name) }

func (s *shell) write(name, text string) string {
	s.t.Helper()
	if err := os.WriteFile(s.at(name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return s.at(name)
}

// run gives standard output and both outputs of a command that ends with a code.
func (s *shell) run(code int, args ...string) (out, both string) {
	s.t.Helper()
	var stdout, stderr bytes.Buffer
	if got := run(context.Background(), &environment{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr}, args); got != code {
		s.t.Fatalf("%v: exit %d, want %d\n%s%s", args, got, code, stdout.String(), stderr.String())
	}
	return stdout.String(), stdout.String() + stderr.String()
}

// office makes four officers and gives the file of the officers and of their passphrase.
func (s *shell) office() (officers, pass string) {
	s.t.Helper()
	pass = s.write("pass", "correct horse battery staple\n")
	roster := "apiVersion: officers/v1\nepoch: 1\nofficers:\n"
	for _, o := range []struct{ file, office, name, authority string }{
		{"inv", "investigation", "Ada Ihle", "Head of Legal"}, {"ovs", "oversight", "Otto Sand", "Works Council"},
		{"inv2", "investigation", "Ira Blom", "Head of Legal"}, {"ovs2", "oversight", "Olga Rot", "Works Council"},
	} {
		args := []string{"officer", "init", "--office", o.office, "--name", o.name, "-o", s.at(o.file), "--passphrase-file", pass}
		if strings.HasSuffix(o.file, "2") {
			args = append(args, "--spare")
		}
		made, _ := s.run(0, args...)
		again, _ := s.run(0, "officer", "card", s.at(o.file))
		if made != again {
			s.t.Fatalf("another card: %s, %s", made, again)
		}
		entry, _ := s.run(0, "officer", "card", s.at(o.file), "--authority", o.authority)
		roster += entry
	}
	s.run(1, "officer", "init", "--office", "oversight", "--name", "X", "-o", s.at("inv"), "--passphrase-file", pass) // a key is never replaced
	return s.write("officers.yaml", roster), pass
}

// witness runs a witness of a data directory and gives its key, its lines of the
// configuration and a switch that takes it away.
func (s *shell) witness(data string) (log, vkey, lines string, away *atomic.Bool) {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(data, "ledger", "log.vkey"))
	if err != nil {
		s.t.Fatal(err)
	}
	log = strings.TrimSpace(string(b))
	w, err := ledger.OpenWitness(ledger.WitnessOptions{Dir: s.at("witness"), Name: "test/witness", Logs: []string{log}})
	if err != nil {
		s.t.Fatal(err)
	}
	away = new(atomic.Bool)
	host := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if away.Load() {
			http.Error(rw, "away", http.StatusServiceUnavailable)
			return
		}
		w.ServeHTTP(rw, r)
	}))
	s.t.Cleanup(func() {
		host.Close()
		w.Close()
	})
	return log, w.VKey(), "witnesses:\n  - vkey: " + w.VKey() + "\n    url: " + host.URL + "\n    run_by: others\n", away
}

// TestCeremonyOfTwoOfficers goes the whole way on the command line: four officers, a
// sealed original, a request, two signatures, two openings, the record.
func TestCeremonyOfTwoOfficers(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := newShell(t)
	officers, pass := s.office()
	text := "data: data\nofficers: officers.yaml\nhttp: off\nreserve: 16MiB\nmemory: 64MiB\n"
	file := s.write(configName, text)
	c, err := readConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	escrow, err := c.escrow()
	if err != nil {
		t.Fatal(err)
	}

	// The server: two originals, sealed.
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	keys, err := keyring.Open(c.Data)
	if err != nil {
		t.Fatal(err)
	}
	store, err := evidence.Open(evidence.Options{Dir: c.Data, Keys: keys, Escrow: escrow})
	if err != nil {
		t.Fatal(err)
	}
	var segments []string
	originals := []string{"the bytes as received", "some more of them"}
	for i := len(originals); i < maxUnlock; i++ {
		originals = append(originals, "bytes "+strconv.Itoa(i))
	}
	for _, text := range originals {
		ref, err := store.Append(context.Background(), evidence.Originals, "servers", [][]byte{append([]byte{1, 5}, text...)})
		if err != nil {
			t.Fatal(err)
		}
		segments = append(segments, ref.Segment.String())
		if err := store.Rotate(); err != nil {
			t.Fatal(err)
		}
	}
	store.Close()
	if out, _ := s.run(0, "keys", "list", "--data", c.Data); !strings.Contains(out, "32 key cards that this server cannot open") {
		t.Fatal(out)
	}

	request := s.at("request")
	ask := []string{"evidence", "unlock", "--config", file, "--compartment", "servers", "--from", "2026-01-01T00:00:00Z", "--to", "2100-01-01T00:00:00Z",
		"--case", "C-17", "--purpose", "who opened the vault", "--requester", "Ada Ihle", "--for", "1h", "-o", request}
	if _, said := s.run(3, ask...); !strings.Contains(said, "no witness is configured") {
		t.Fatal(said)
	}

	vkey, witness, lines, away := s.witness(c.Data)
	s.write(configName, text+lines)

	words, _ := s.run(0, ask...)
	if !strings.Contains(words, "C-17") || !strings.Contains(words, segments[0]) || !strings.Contains(words, segments[1]) {
		t.Fatal(words)
	}
	sign := func(who string, more ...string) string {
		out := s.at("decision-" + who + strings.Join(more, ""))
		s.run(0, append([]string{"officer", "sign", request, "--key", s.at(who), "--passphrase-file", pass, "--yes", "-o", out}, more...)...)
		return out
	}
	s.run(3, "officer", "sign", request, "--key", s.at("inv"), "--passphrase-file", pass, "-o", s.at("unread")) // nobody typed approve
	inv, ovs, no, inv2 := sign("inv"), sign("ovs"), sign("ovs", "--refuse"), sign("inv2")
	approve := func(code int, out string, decisions ...string) string {
		t.Helper()
		args := []string{"evidence", "approve", request, "--config", file, "-o", s.at(out)}
		for _, d := range decisions {
			args = append(args, "--decision", d)
		}
		_, said := s.run(code, args...)
		return said
	}
	if said := approve(3, "x", inv); !strings.Contains(said, "not approved") {
		t.Fatal(said)
	}
	if said := approve(3, "x", inv2); !strings.Contains(said, "another office") {
		t.Fatal(said)
	}
	// The approval of another act opens nothing, and is not used up.
	_, other, err := approval.New(approval.Ask{Action: "hold.release", Case: "C-17", Purpose: "x", Requester: "Ada Ihle", Objects: []string{"hold 1"}, Org: keys.ID(), Grant: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	srv, err := dial(t.Context(), &environment{stderr: io.Discard}, mustConfig(t, file))
	if err != nil {
		t.Fatal(err)
	}
	err = srv.act(t.Context(), "unlock.approve", &unlockDecided{Statement: string(other)}, &receipt{})
	if cerr := srv.close(); cerr != nil || err == nil || !strings.Contains(err.Error(), "something else") {
		t.Fatal(err, cerr)
	}
	away.Store(true)
	if said := approve(3, "x", ovs); !strings.Contains(said, "no witness has cosigned") { // the decisions stand all the same
		t.Fatal(said)
	}
	away.Store(false)
	approve(0, "receipt")
	approve(0, "receipt-again")
	one, err := os.ReadFile(s.at("receipt"))
	if err != nil {
		t.Fatal(err)
	}
	forged := s.write("other-receipt", strings.Replace(string(one), "unlock.opened", "unlock.closed", 1))

	open := func(code int, who, out string, more ...string) string {
		t.Helper()
		args := []string{"officer", "open", request, "--key", s.at(who), "--passphrase-file", pass, "--officers", officers, "-o", s.at(out), "--log", vkey, "--witness", witness}
		if !slices.Contains(more, "--receipt") {
			args = append(args, "--receipt", s.at("receipt"))
		}
		_, both := s.run(code, append(args, more...)...)
		return both
	}
	open(1, "ovs", "x", "--decision", ovs)
	open(1, "ovs", "x", "--decision", inv, "--decision", inv2)
	open(1, "ovs", "x", "--decision", inv, "--decision", no)
	open(1, "ovs", "x", "--decision", inv, "--decision", ovs, "--receipt", forged)
	open(2, "ovs", "x", "--decision", inv, "--decision", ovs, "--log", strings.Replace(vkey, "counterseal/", "counterseal/x", 1))
	if said := open(2, "ovs", "x", "--decision", inv, "--decision", ovs, "--receipt", ""); !strings.Contains(said, "--receipt") {
		t.Fatal(said)
	}
	if _, err := os.Stat(s.at("x")); err == nil {
		t.Fatal("a refused opening wrote something")
	}
	open(0, "ovs", "handover", "--decision", inv, "--decision", ovs)
	if text := open(1, "ovs", "again", "--decision", inv, "--decision", ovs); !strings.Contains(text, "it was used") {
		t.Fatal(text)
	}
	open(1, "inv2", "x", "--decision", inv, "--decision", ovs, "--handover", s.at("handover"))
	open(2, "inv", "x", "--decision", inv, "--decision", ovs)
	segment := func(i int) string {
		return filepath.Join(c.Data, "evidence", "originals", "servers", segments[i]+".seg")
	}
	s.run(1, "evidence", "read", segment(0), "--key", s.at("handover"))
	open(0, "inv", "key", "--decision", inv, "--decision", ovs, "--handover", s.at("handover"))
	if st, err := os.Stat(s.at("key")); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatal(st, err)
	}
	for i, want := range originals {
		if out, _ := s.run(0, "evidence", "read", segment(i), "--key", s.at("key")); out != `{"ordinal":0,"text":"`+want+`"}`+"\n" {
			t.Fatal(out)
		}
	}

	// The ledger tells the whole of it, with nobody's name and without the purpose.
	var kinds []string
	r, err := ledger.VerifyDir(t.Context(), filepath.Join(c.Data, "ledger"), ledger.Verifiers{Log: []string{vkey}, Witnesses: []ledger.Witness{{VKey: witness}}, Threshold: 1,
		Each: func(_ uint64, st ledger.Statement) {
			if strings.HasPrefix(st.Kind, "approval.") || strings.HasPrefix(st.Kind, "unlock.") {
				kinds = append(kinds, st.Kind)
			}
			leaf, err := st.Canonical()
			if err != nil {
				t.Error(err)
			}
			for _, no := range []string{"Ada", "Otto", "vault"} {
				if strings.Contains(string(leaf), no) {
					t.Errorf("a leaf holds %q: %s", no, leaf)
				}
			}
		}})
	if err != nil || !r.OK() {
		t.Fatal(r.Findings, err)
	}
	if got := strings.Join(kinds, " "); got != "approval.requested approval.decided approval.decided unlock.opened approval.used" {
		t.Fatal(got)
	}
}

func mustConfig(t *testing.T, file string) config {
	t.Helper()
	c, err := readConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestReplayOfOriginals goes the whole way: lines come in, their bytes are sealed to two
// officers, the officers open them, and the server parses them again as it did.
func TestReplayOfOriginals(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := newShell(t)
	officers, pass := s.office()
	text := "officers: officers.yaml\nhttp: off\nreserve: 16MiB\nmemory: 64MiB\n"
	if err := layAgency(s.dir, text); err != nil {
		t.Fatal(err)
	}
	file := s.at(configName)
	c, err := readConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	pia, err := os.ReadFile(s.at("pias/test.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	pia = bytes.ReplaceAll(pia, []byte("original_days: 0 "), []byte("original_days: 7 "))
	s.write("pias/test.yaml", string(pia))
	s.write("events.ndjson", `{"time":"2026-01-02T03:04:05Z","n":1,"who":"alice","text":"one"}`+"\n"+`{"time":"2026-01-02T03:04:06Z","n":2,"who":"alice","text":"two"}`+"\n")
	s.run(0, "import", "--config", file, "--source", "app", s.at("events.ndjson"))
	segs, err := filepath.Glob(filepath.Join(c.Data, "evidence", "originals", "apps", "*.seg"))
	if err != nil || len(segs) != 1 {
		t.Fatal(segs, err)
	}
	log, witness, lines, _ := s.witness(c.Data)
	conf, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s.write(configName, string(conf)+lines)
	s.run(0, "evidence", "unlock", "--config", file, "--segment", strings.TrimSuffix(filepath.Base(segs[0]), ".seg"), "--case", "C-18", "--purpose", "what was sent", "--requester", "Ada Ihle", "--for", "1h", "-o", s.at("request"))
	both := []string{}
	for _, who := range []string{"inv", "ovs"} {
		s.run(0, "officer", "sign", s.at("request"), "--key", s.at(who), "--passphrase-file", pass, "--yes", "-o", s.at("says-"+who))
		both = append(both, "--decision", s.at("says-"+who))
	}
	s.run(0, append([]string{"evidence", "approve", s.at("request"), "--config", file, "-o", s.at("receipt")}, both...)...)
	open := func(who string, more ...string) {
		s.run(0, append(append([]string{"officer", "open", s.at("request"), "--key", s.at(who), "--passphrase-file", pass, "--officers", officers, "--receipt", s.at("receipt"), "--log", log, "--witness", witness}, both...), more...)...)
	}
	open("ovs", "-o", s.at("handover"))
	open("inv", "--handover", s.at("handover"), "-o", s.at("key"))

	out, said := s.run(0, "replay", segs[0], "--key", s.at("key"), "--config", file)
	if !strings.Contains(said, "2 as sealed, 0 otherwise, 0 refused now") || strings.Contains(out, "alice") || !strings.Contains(out, `"text":["two"]`) {
		t.Fatal(said)
	}
	less := regexp.MustCompile(`(?m)^.*path: "text", action: allow.*$\n`).ReplaceAllString(string(pia), "")
	if less == string(pia) {
		t.Fatalf("the assessment does not name the field:\n%s", pia)
	}
	// No byte of an original lies on the disk of the server, and no other bytes are taken.
	asked := 0
	err = filepath.WalkDir(c.Data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte("alice")) {
			t.Errorf("%s holds a name out of an original", path)
		}
		var q struct{ Path, Body string } // of a request that is kept, behind 32 bytes of salt
		if len(b) > 32 && json.Unmarshal(b[32:], &q) == nil && strings.HasSuffix(q.Path, "/replay") {
			asked++
			if q.Body != "" {
				t.Errorf("%s keeps the originals that were brought", path)
			}
		}
		return err
	})
	if err != nil || asked == 0 {
		t.Fatal(asked, err)
	}
	srv, err := dial(t.Context(), &environment{stderr: io.Discard}, mustConfig(t, file))
	if err != nil {
		t.Fatal(err)
	}
	segment := strings.TrimSuffix(filepath.Base(segs[0]), ".seg")
	for name, ask := range map[string]*replayAsk{
		"other bytes":   {Compartment: "apps", Segment: segment, Originals: map[uint64][]byte{0: []byte(`{"who":"director"}`)}, Salts: map[uint64][]byte{0: make([]byte, 32)}},
		"no salt":       {Compartment: "apps", Segment: segment, Originals: map[uint64][]byte{0: []byte(`{"who":"director"}`)}},
		"a name inside": {Compartment: "apps", Segment: segment, Context: "Jane Doe"},
	} {
		if err := srv.act(t.Context(), "replay", ask, &replayAnswer{}); err == nil {
			t.Errorf("%s: parsed again", name)
		}
	}
	if err := srv.close(); err != nil {
		t.Fatal(err)
	}
	s.write("pias/test.yaml", less)
	if _, said := s.run(0, "replay", segs[0], "--key", s.at("key"), "--config", file); !strings.Contains(said, "0 as sealed, 2 otherwise") {
		t.Fatal(said)
	}
	if out, _ := s.run(0, "verify", "--config", file); !strings.Contains(out, "nothing altered") {
		t.Fatal(out)
	}
}

// TestKeysOfTheServer seals, rotates, backs up and rehearses on the command line.
func TestKeysOfTheServer(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := newShell(t)
	data := s.at("data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	s.run(1, "keys", "list", "--data", data) // list never makes a keyring
	if _, err := os.Stat(filepath.Join(data, "keys")); err == nil {
		t.Fatal("looking at keys made some")
	}
	segment := func(pass keyring.Passphrase) string {
		t.Helper()
		k, err := keyring.OpenSealed(data, pass)
		if err != nil {
			t.Fatal(err)
		}
		store, err := evidence.Open(evidence.Options{Dir: data, Keys: k})
		if err != nil {
			t.Fatal(err)
		}
		ref, err := store.Append(context.Background(), evidence.Events, "a", [][]byte{[]byte("x")})
		if err != nil {
			t.Fatal(err)
		}
		store.Close()
		return ref.Segment.String()
	}
	before := segment(nil)
	one, two := s.write("one", "correct horse battery staple\n"), s.write("two", "another horse battery staple\n")
	s.run(0, "keys", "seal", "--data", data, "--new-passphrase-file", one)
	s.run(1, "keys", "list", "--data", data)
	s.run(1, "keys", "list", "--data", data, "--passphrase-file", two)
	s.run(0, "keys", "backup", "--data", data, "--passphrase-file", one, "-o", s.at("backup"), "--new-passphrase-file", two)
	s.run(0, "keys", "rotate", "--data", data, "--passphrase-file", one)
	after := segment(keyring.PassphraseFrom(one))
	if out, _ := s.run(0, "keys", "list", "--data", data, "--passphrase-file", one); !strings.Contains(out, "under a passphrase") ||
		!strings.Contains(out, "epoch 1   made with the keyring, 1 key cards") || !strings.Contains(out, "epoch 2") {
		t.Fatal(out)
	}
	rehearse := func(code int, segment string) {
		t.Helper()
		s.run(code, "keys", "rehearse", "--data", data, "--backup", s.at("backup"), "--segment", segment, "--passphrase-file", two)
	}
	rehearse(0, before)
	rehearse(1, after) // a backup of before the rotation
}
