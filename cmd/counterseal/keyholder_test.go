package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/index"
	"github.com/counterseal/counterseal/internal/keyholder"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/pseudonym"
	"github.com/counterseal/counterseal/internal/query"
)

// planted is a directory of n invented people.
func planted(n int) []byte {
	var f bytes.Buffer
	f.WriteString("apiVersion: directory/v1\ndomains: [CORP, corp.example]\npeople:\n")
	for i := range n {
		fmt.Fprintf(&f, "  - {id: E-%05d, names: ['CORP\\invented%05d', invented%05d], mails: [invented%05d@corp.example]}\n", i, i, i, i)
	}
	return f.Bytes()
}

// openOn opens a server without listeners that follows its streams.
func openOn(t *testing.T, cfg config) (s *server, stop func()) {
	t.Helper()
	s, err := openServer(t.Context(), cfg, serverOptions{log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.pipe.Follow(ctx) }()
	return s, func() {
		t.Helper()
		if err := s.pipe.Settle(context.Background()); err != nil {
			t.Error(err)
		}
		cancel()
		if err := errors.Join(<-done, s.close()); err != nil {
			t.Error(err)
		}
	}
}

// aboutPeople are lines of the source app about invented people, from one number to another.
func aboutPeople(from, to int) event.Batch {
	b := event.Batch{Source: "app", Way: "http", Received: time.Now()}
	for i := from; i < to; i++ {
		b.Frames = append(b.Frames, event.Frame{Line: len(b.Frames) + 1,
			Bytes: fmt.Appendf(nil, `{"time":%q,"n":"%d","who":"CORP\\invented%05d"}`, time.Now().UTC().Format(time.RFC3339Nano), i, i)})
	}
	return b
}

// asked records what a directory is tokenised by.
type asked struct{ names []keyholder.Name }

func (a *asked) Token(k event.TokenKind, canonical []byte) (event.Token, error) {
	a.names = append(a.names, keyholder.Name{Kind: k, Canonical: bytes.Clone(canonical)})
	return event.NewToken(k, 1, [16]byte{byte(len(a.names)), byte(len(a.names) >> 8), byte(len(a.names) >> 16)}), nil
}

// testAll tells how many of the names are behind a token, by one key.
func testAll(t *testing.T, key []byte, org uuid.UUID, epoch int, names []keyholder.Name, tokens map[event.Token]bool) int {
	t.Helper()
	m, err := pseudonym.NewMaker(key, org, epoch)
	if err != nil {
		t.Fatal(err)
	}
	hits := 0
	for _, n := range names {
		if tok, _ := m.Token(n.Kind, n.Canonical); tokens[tok] {
			hits++
		}
	}
	return hits
}

// purposes are all words in our source that could be one of a key.
func purposes(t *testing.T) []string {
	t.Helper()
	found := map[string]bool{}
	for _, root := range []string{"../../internal", "."} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if _, ok := n.(*ast.ImportSpec); ok {
					return false
				}
				if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
					if s, err := strconv.Unquote(l.Value); err == nil && purposeShape.MatchString(s) {
						found[s] = true
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, must := range []string{"token/1", "field/1", "alias/1"} {
		if !found[must] {
			t.Fatalf("%s is no purpose: this looks for the wrong thing", must)
		}
	}
	var out []string
	for s := range found {
		out = append(out, s)
	}
	return out
}

var purposeShape = regexp.MustCompile(`^[a-z][a-z0-9._-]*(/[a-z0-9._-]+){1,3}$`)

// TestStolenServer: who has the data directory, the configuration and all that the
// keyring there derives tests a directory of 10,000 names against every token in
// evidence and index. None fits. The same attack works with the key of the holder, and
// with data whose tokens were made by the keyring, so it is an attack.
func TestStolenServer(t *testing.T) {
	t.Parallel() // it waits more than it works
	const people = 10_000
	attack := func(t *testing.T, own bool) {
		root := t.TempDir()
		if err := layAgency(root, "http: off\nreserve: 16MiB\nmemory: 64MiB\n"); err != nil {
			t.Fatal(err)
		}
		cfg, err := readConfig(filepath.Join(root, configName))
		if err != nil {
			t.Fatal(err)
		}
		if own { // as a version without key holders left it
			asBefore(t, &cfg)
			if err := os.WriteFile(filepath.Join(root, "directory.yaml"), planted(people), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg.Directory = filepath.Join(root, "directory.yaml")
		}
		_, stop := openOn(t, cfg)
		if !own {
			holder := cfg.Data + "-keyholder"
			if err := os.WriteFile(filepath.Join(holder, "directory.yaml"), planted(people), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		stop()
		s, stop := openOn(t, cfg)
		const lines = 500
		if r, err := s.pipe.Accept(t.Context(), aboutPeople(0, lines)); err != nil || r.Accepted != lines {
			t.Fatal(r, err)
		}
		stop()
		var names asked
		dir, err := pseudonym.ParseDirectory(planted(people))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pseudonym.Known(&names, dir); err != nil {
			t.Fatal(err)
		}
		if len(names.names) < people {
			t.Fatalf("only %d names to test", len(names.names))
		}

		// The attacker's machine: a copy of data and configuration.
		stolen := filepath.Join(t.TempDir(), "stolen")
		if err := os.CopyFS(stolen, os.DirFS(cfg.Data)); err != nil {
			t.Fatal(err)
		}
		keys := privateKeyring(t, stolen)
		tokens := everyToken(t, stolen, keys)
		if len(tokens) < lines {
			t.Fatalf("%d tokens in evidence and index", len(tokens))
		}
		tried, hits := 0, 0
		for _, p := range purposes(t) {
			for epoch := 1; epoch <= keys.Epoch(); epoch++ {
				key, err := keys.MACKeyAt(epoch, p)
				if err != nil {
					t.Fatal(err)
				}
				tried++
				hits += testAll(t, key, keys.ID(), 1, names.names, tokens)
			}
		}
		if own {
			if hits < lines {
				t.Errorf("the attack found %d of %d people where the keyring made the tokens: it is none", hits, lines)
			}
			return
		}
		if hits > 0 {
			t.Errorf("%d names were found by %d keys", hits, tried)
		}
		t.Logf("%d names, %d keys, %d tokens", len(names.names), tried, len(tokens))

		ring, err := keyring.Load(filepath.Join(cfg.Data+"-keyholder", "keys", "keyring"), nil)
		if err != nil {
			t.Fatal(err)
		}
		key, err := ring.MACKeyAt(1, "keyholder/token/1")
		if err != nil {
			t.Fatal(err)
		}
		if hits := testAll(t, key, keys.ID(), 1, names.names, tokens); hits < lines {
			t.Errorf("the key of the holder finds %d of %d people: the test looks at the wrong names", hits, lines)
		}
		// Without the folder the stolen server makes no tokens, neither these nor others.
		cfg.Data = stolen
		if s, err := openServer(t.Context(), cfg, serverOptions{log: slog.New(slog.DiscardHandler)}); err == nil {
			s.close()
			t.Error("the copy opens without the key holder")
		} else if !strings.Contains(err.Error(), "key holder") {
			t.Error(err)
		}
	}
	t.Run("key holder", func(t *testing.T) { attack(t, false) })
	t.Run("own key", func(t *testing.T) { attack(t, true) })
}

// asBefore makes the data directory one that was in use before there were key holders.
func asBefore(t *testing.T, cfg *config) {
	t.Helper()
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.Data, "VERSION"), []byte(beforeLedger), 0o600); err != nil {
		t.Fatal(err)
	}
}

func privateKeyring(t *testing.T, data string) *keyring.Keyring {
	t.Helper()
	path := filepath.Join(data, "keys", "keyring")
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := keyring.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// everyToken reads evidence and index with the keyring of the data directory.
func everyToken(t *testing.T, data string, keys *keyring.Keyring) map[event.Token]bool {
	t.Helper()
	tokens := map[event.Token]bool{}
	look := func(b []byte) {
		for {
			from, to := event.NextToken(b)
			if from < 0 {
				return
			}
			tokens[event.Token(b[from:to])] = true
			b = b[to:]
		}
	}
	store, err := evidence.Open(evidence.Options{Dir: data, Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	for _, comp := range store.Compartments(evidence.Events) {
		_, err := store.Read(t.Context(), evidence.Events, comp, evidence.Position{}, func(_ event.Ref, rec []byte) error {
			look(rec)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	x, err := index.Open(index.Options{Dir: filepath.Join(data, "index"), MemoryBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	q, err := query.Parse("*")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	err = x.Query(t.Context(), q, index.Scope{}, 0, func(r index.Row) bool {
		rows++
		for _, a := range append(r.OCSF, r.Native...) {
			look([]byte(a.Value))
		}
		return true
	})
	if err != nil || rows == 0 {
		t.Fatal(rows, err)
	}
	return tokens
}

// TestLiveAttempt: somebody who has the running server asks for a directory of names. The
// quota ends it, doctor alarms, and ingest goes on with names that are known and waits
// with those that are new.
func TestLiveAttempt(t *testing.T) {
	root := t.TempDir()
	if err := layAgency(root, "http: off\nreserve: 16MiB\nmemory: 64MiB\n"); err != nil {
		t.Fatal(err)
	}
	cfg, err := readConfig(filepath.Join(root, configName))
	if err != nil {
		t.Fatal(err)
	}
	s, stop := openOn(t, cfg)
	defer stop()
	if r, err := s.pipe.Accept(t.Context(), aboutPeople(0, 20)); err != nil || r.Accepted != 20 {
		t.Fatal(r, err)
	}
	if text := tokenText(t, s); strings.Contains(text, "quota") {
		t.Fatal(text)
	}
	answered := 0
	for i := range 10_000 {
		_, err := s.tokens.client.Tokens([]keyholder.Name{{Kind: event.Person, Canonical: fmt.Appendf(nil, "listed%05d", i)}})
		if err == nil {
			answered++
		} else if !errors.Is(err, keyholder.ErrQuota) {
			t.Fatal(err)
		}
	}
	if answered > 6_000 || answered < 100 { // two minutes, at the most
		t.Errorf("%d of 10,000 names were answered", answered)
	}
	if text := tokenText(t, s); !strings.Contains(text, "fail the quota of new names was used up") {
		t.Errorf("doctor: %s", text)
	}
	if r, err := s.pipe.Accept(t.Context(), aboutPeople(0, 20)); err != nil || r.Accepted != 20 {
		t.Errorf("people who are known: %v, %v", r, err)
	}
	_, err = s.pipe.Accept(t.Context(), aboutPeople(5_000, 9_000))
	var no *event.Refusal
	if !errors.As(err, &no) || no.Code != "busy" || no.After <= 0 || no.After > time.Minute {
		t.Errorf("people who are new: %v", err)
	}
	if err := s.stateTokenWindow(t.Context()); err != nil {
		t.Error(err)
	}
	f, ok, err := s.pipe.Recorder().Fact(t.Context(), "keyholder.window", s.pipe.Org().String())
	if err != nil || !ok || !strings.Contains(string(f.Detail), `"refused"`) || strings.Contains(string(f.Detail), `"refused":0,`) {
		t.Errorf("the ledger has %s, %v, %v", f.Detail, ok, err)
	}
}

func tokenText(t *testing.T, s *server) string {
	t.Helper()
	var out []string
	for _, c := range s.tokenChecks(t.Context()) {
		out = append(out, c.State+" "+c.Text)
	}
	return strings.Join(out, "\n")
}

// TestMoveToAKeyHolder: data from before keeps its key until an operator moves it; then a
// new epoch begins, and the configuration cannot go back unseen.
func TestMoveToAKeyHolder(t *testing.T) {
	t.Parallel() // it waits more than it works
	root := t.TempDir()
	if err := layAgency(root, "http: off\nreserve: 16MiB\nmemory: 64MiB\n"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, configName)
	cfg, err := readConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	asBefore(t, &cfg)
	s, stop := openOn(t, cfg)
	if text := tokenText(t, s); s.tokens.client != nil || !strings.Contains(text, "the key lies in the data directory") {
		t.Error(text)
	}
	if _, err := s.pipe.Accept(t.Context(), aboutPeople(0, 3)); err != nil {
		t.Fatal(err)
	}
	stop()
	dir := filepath.Join(root, "holder")
	if _, errs := counterseal(t, exitUsage, "keyholder", "init", "--no-passphrase", "--dir", filepath.Join(cfg.Data, "holder"), "--data", cfg.Data); !strings.Contains(errs, "apart") {
		t.Error(errs)
	}
	if out, _ := counterseal(t, 0, "keyholder", "init", "--no-passphrase", "--dir", dir, "--data", cfg.Data); !strings.Contains(out, "epoch     2") {
		t.Error(out)
	}
	cfg.Keyholder.Dir = dir
	s, stop = openOn(t, cfg)
	if text := tokenText(t, s); s.tokens.epoch != 2 || !strings.Contains(text, "tokens of epoch 1 were made with the key of the data directory") {
		t.Error(text)
	}
	if _, err := s.pipe.Accept(t.Context(), aboutPeople(0, 3)); err != nil {
		t.Fatal(err)
	}
	stop()
	prefixes := map[string]int{}
	for tok := range everyToken(t, cfg.Data, privateKeyring(t, cfg.Data)) {
		prefixes[string(tok[:3])]++
	}
	if prefixes["p1_"] != 3 || prefixes["p2_"] != 3 {
		t.Error(prefixes)
	}
	aside := filepath.Join(root, "tokens.json")
	if err := os.Rename(filepath.Join(cfg.Data, tokensFile), aside); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", dir} {
		cfg.Keyholder.Dir = dir
		if s, err := openServer(t.Context(), cfg, serverOptions{log: slog.New(slog.DiscardHandler)}); err == nil {
			s.close()
			t.Error("it opens where nobody knows whose tokens these are")
		} else if !strings.Contains(err.Error(), tokensFile) {
			t.Error(err)
		}
	}
	if err := os.Rename(aside, filepath.Join(cfg.Data, tokensFile)); err != nil {
		t.Fatal(err)
	}
	cfg.Keyholder.Dir = ""
	if s, err := openServer(t.Context(), cfg, serverOptions{log: slog.New(slog.DiscardHandler)}); err == nil {
		s.close()
		t.Error("it went back to the key of the data directory")
	}
	other := filepath.Join(root, "other") // another holder with the same organisation
	if err := keyholder.Create(other, keyholder.Setup{Org: privateKeyring(t, cfg.Data).ID(), FirstEpoch: 2}); err != nil {
		t.Fatal(err)
	}
	cfg.Keyholder.Dir = other
	if s, err := openServer(t.Context(), cfg, serverOptions{log: slog.New(slog.DiscardHandler)}); err == nil {
		s.close()
		t.Error("another key goes on with the tokens")
	} else if !errors.Is(err, keyholder.ErrOther) {
		t.Error(err)
	}
	cfg.Keyholder.Dir = dir
	counterseal(t, 0, "keyholder", "rotate", "--dir", dir)
	s, stop = openOn(t, cfg)
	if s.tokens.epoch != 3 {
		t.Errorf("epoch %d after rotating", s.tokens.epoch)
	}
	stop()
}

// TestHolderUnderAPassphrase: where the configuration names one, the new folder is sealed.
func TestHolderUnderAPassphrase(t *testing.T) {
	root := t.TempDir()
	if err := layAgency(root, "http: off\nreserve: 16MiB\nmemory: 64MiB\nkeyholder: {dir: holder, passphrase_file: pass}\n"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "pass"), []byte("a long passphrase of tests\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := readConfig(filepath.Join(root, configName))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, stop := openOn(t, cfg)
		stop()
	}
	if sealed, err := keyring.IsSealed(filepath.Join(root, "holder")); err != nil || !sealed {
		t.Error(sealed, err)
	}
}

// TestHolderDirectory: the directory file of the holder is what ingest knows people by,
// and no file of it is in the data directory.
func TestHolderDirectory(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := layAgency(root, "http: off\nreserve: 16MiB\nmemory: 64MiB\nkeyholder: {dir: holder}\n"); err != nil {
		t.Fatal(err)
	}
	cfg, err := readConfig(filepath.Join(root, configName))
	if err != nil {
		t.Fatal(err)
	}
	s, stop := openOn(t, cfg)
	before, err := s.stamp()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "holder", "directory.yaml"), planted(50), 0o600); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if now, err := s.stamp(); err != nil || now != before {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the server is not told of a changed directory")
		}
	}
	docs, err := s.documents(t.Context())
	if err != nil || !bytes.Equal(docs.Directory, planted(50)) {
		t.Fatal(err)
	}
	if err := s.pipe.SetDocuments(docs); err != nil {
		t.Fatal(err)
	}
	b := event.Batch{Source: "app", Way: "http", Received: time.Now()}
	for i, who := range []string{`CORP\\invented00007`, "invented00007@corp.example"} {
		b.Frames = append(b.Frames, event.Frame{Line: i + 1, Bytes: fmt.Appendf(nil, `{"time":"2026-01-02T03:04:05Z","n":"%d","who":"%s"}`, i, who)})
	}
	if _, err := s.pipe.Accept(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	stop()
	if tokens := everyToken(t, cfg.Data, privateKeyring(t, cfg.Data)); len(tokens) != 1 {
		t.Errorf("one person has %d tokens", len(tokens))
	}
	err = filepath.WalkDir(cfg.Data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte("invented00007")) {
			t.Errorf("%s holds a name of the directory", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestKillTheHolder kills the process of the key holder again and again while a client
// sends new names: every line is there once. Then the server is killed, and its holder
// ends with it.
func TestKillTheHolder(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := newServed(t)
	s.start(t)
	holder := filepath.Join(s.dir, "data-keyholder")
	pid := func() int {
		b, err := os.ReadFile(filepath.Join(holder, "run", "lock"))
		if err != nil {
			return 0
		}
		n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		return n
	}
	if pid() == 0 || pid() == s.cmd.Process.Pid {
		t.Fatalf("the holder is process %d, the server %d", pid(), s.cmd.Process.Pid)
	}
	const batches, lines = 60, 20
	var killer sync.WaitGroup
	next := make(chan struct{})
	killer.Go(func() {
		for range next {
			if p := pid(); p != 0 && p != s.cmd.Process.Pid {
				signalTo(p, os.Kill)
			}
		}
	})
	client := &http.Client{Timeout: 30 * time.Second}
	for batch := range batches {
		if batch%12 == 5 {
			next <- struct{}{}
		}
		var body bytes.Buffer
		for i := range lines {
			n := batch*lines + i
			fmt.Fprintf(&body, `{"time":"2026-01-02T03:04:05Z","n":"%d","who":"invented%05d"}`+"\n", n, n)
		}
		for end := time.Now().Add(time.Minute); ; {
			a, again, err := post(client, s.url("/api/v1/ingest/app"), "batch-"+strconv.Itoa(batch), body.Bytes())
			if again && time.Now().Before(end) {
				time.Sleep(5 * time.Millisecond)
				continue
			}
			if err != nil || a.Accepted != lines || len(a.Errors) > 0 {
				t.Fatalf("batch %d: %+v, %v", batch, a, err)
			}
			break
		}
	}
	close(next)
	killer.Wait()
	last := pid()
	s.kill()
	for end := time.Now().Add(10 * time.Second); signalTo(last, syscall.Signal(0)) == nil; time.Sleep(5 * time.Millisecond) {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", last)); err == nil && bytes.Contains(b, []byte(") Z ")) {
			break // dead, and nobody here is its parent
		}
		if time.Now().After(end) {
			t.Fatal("the holder outlives its server")
		}
	}
	s.start(t)
	s.stop(t)
	w := wholeOf(t, s.dir)
	for n := range batches * lines {
		if got := w.lines["app"][strconv.Itoa(n)]; got != 1 {
			t.Errorf("line %d is there %d times", n, got)
		}
	}
	people := 0
	for tok := range everyToken(t, filepath.Join(s.dir, "data"), privateKeyring(t, filepath.Join(s.dir, "data"))) {
		if strings.HasPrefix(string(tok), "p1_") {
			people++
		}
	}
	if people != batches*lines {
		t.Errorf("%d people have %d tokens", batches*lines, people)
	}
	if strings.Contains(s.log.String(), "invented0") {
		t.Error("a log holds a name")
	}
	if n := strings.Count(s.log.String(), "it is started again"); n < 2 {
		t.Errorf("the holder was started again %d times: nothing was killed", n)
	}
}

func signalTo(pid int, s os.Signal) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Signal(s)
}

// TestHolderOnAnotherHost speaks TLS with certificates on both sides; who shows another
// one, or none, is not answered.
func TestHolderOnAnotherHost(t *testing.T) {
	root := t.TempDir()
	layPair(t, root, "holder", "127.0.0.1")
	layPair(t, root, "server", "server")
	layPair(t, root, "stranger", "stranger")
	layPair(t, root, "asker", "asker")
	if err := layAgency(root, "http: off\nreserve: 16MiB\nmemory: 64MiB\nkeyholder: {address: \"127.0.0.1:1\", cert: server.crt, key: server.key, ca: holder.crt}\n"); err != nil {
		t.Fatal(err)
	}
	cfg, err := readConfig(filepath.Join(root, configName))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	keys, err := keyring.Open(cfg.Data)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "elsewhere")
	counterseal(t, 0, "keyholder", "init", "--no-passphrase", "--dir", dir, "--org", keys.ID().String())
	at := func(name string) string { return filepath.Join(root, name) }
	ctx, cancel := context.WithCancel(context.Background())
	out := newSpoken()
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, &environment{stdin: strings.NewReader(""), stdout: out, stderr: out}, []string{"keyholder", "serve", "--dir", dir, "--listen", "127.0.0.1:0",
			"--tls-cert", at("holder.crt"), "--tls-key", at("holder.key"), "--client-ca", at("server.crt"), "--question-listen", "127.0.0.1:0", "--question-client-ca", at("asker.crt")})
	}()
	defer func() {
		cancel()
		if code := <-done; code != 0 {
			t.Errorf("the key holder ended with %d: %s", code, out)
		}
	}()
	cfg.Keyholder.Address = out.after(t, "ingest    ")
	s, stop := openOn(t, cfg)
	if r, err := s.pipe.Accept(t.Context(), aboutPeople(0, 5)); err != nil || r.Accepted != 5 {
		t.Error(r, err)
	}
	if text := tokenText(t, s); !strings.Contains(text, "ok another host has the key") {
		t.Error(text)
	}
	stop()
	// Questions have a door of their own: the server's certificate does not open it.
	questions := askedHolder{OtherHost: OtherHost{out.after(t, "question  "), at("asker.crt"), at("asker.key"), at("holder.crt")}}
	if err := askAt(t, questions); !errors.Is(err, keyholder.ErrRoster) {
		t.Error(err)
	}
	for name, change := range map[string]func(*askedHolder){
		"the server":            func(h *askedHolder) { h.Cert, h.Key = at("server.crt"), at("server.key") },
		"another holder":        func(h *askedHolder) { h.CA = at("stranger.crt") },
		"at the door of ingest": func(h *askedHolder) { h.Address = cfg.Keyholder.Address },
	} {
		h := questions
		change(&h)
		if err := askAt(t, h); !errors.Is(err, keyholder.ErrAway) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, k := range map[string]OtherHost{
		"a stranger":     {Address: cfg.Keyholder.Address, Cert: at("stranger.crt"), Key: at("stranger.key"), CA: at("holder.crt")},
		"another holder": {Address: cfg.Keyholder.Address, Cert: at("server.crt"), Key: at("server.key"), CA: at("stranger.crt")},
	} {
		dial, err := k.dial("keyholder.")
		if err != nil {
			t.Fatal(err)
		}
		if c, err := keyholder.Connect(t.Context(), keyholder.ClientOptions{Dial: dial, Timeout: 300 * time.Millisecond}); err == nil {
			c.Close()
			t.Errorf("%s was answered", name)
		}
	}
}

// askAt asks a question that nobody approved: who is let in hears that.
func askAt(t *testing.T, h askedHolder) error {
	t.Helper()
	dial, err := h.dial(config{})
	if err != nil {
		t.Fatal(err)
	}
	return keyholder.Ask(t.Context(), dial, []byte("{}"), make([]byte, keyholder.SaltSize), []keyholder.Spoken{{Category: "person", Text: "alice"}})
}

// layPair writes a certificate that signs itself, and its key.
func layPair(t *testing.T, dir, name, host string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	card := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if ip := net.ParseIP(host); ip != nil {
		card.IPAddresses = []net.IP{ip}
	} else {
		card.DNSNames = []string{host}
	}
	raw, err := x509.CreateCertificate(rand.Reader, card, card, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for ending, block := range map[string]*pem.Block{".crt": {Type: "CERTIFICATE", Bytes: raw}, ".key": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(dir, name+ending), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// spoken is what a command prints while it runs.
type spoken struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func newSpoken() *spoken { return &spoken{more: make(chan struct{}, 64)} }

func (s *spoken) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
	return s.text.Write(b)
}

func (s *spoken) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// after waits for a line that begins so and gives the rest of it.
func (s *spoken) after(t *testing.T, begin string) string {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		if _, rest, ok := strings.Cut("\n"+s.String(), "\n"+begin); ok {
			if line, _, whole := strings.Cut(rest, "\n"); whole {
				return line
			}
		}
		select {
		case <-s.more:
		case <-late:
			t.Fatalf("no line %q in:\n%s", begin, s)
		}
	}
}
