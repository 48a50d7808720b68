package keyholder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/pseudonym"
)

var (
	noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	org  = uuid.MustParse("01890a5d-ac96-474b-bcce-b302099a8057")
)

// bench is a holder on two sockets that can be ended and begun again.
type bench struct {
	t    testing.TB
	dir  string
	at   atomic.Int64 // seconds after noon
	log  lockedBuffer
	h    *Holder
	stop func()
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

func newBench(t testing.TB, s Setup) *bench {
	t.Helper()
	if s.Org == uuid.Nil {
		s.Org = org
	}
	b := &bench{t: t, dir: filepath.Join(t.TempDir(), "holder")}
	if err := Create(b.dir, s); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if b.stop != nil {
			b.end()
		}
	})
	return b
}

func (b *bench) now() time.Time { return noon.Add(time.Duration(b.at.Load()) * time.Second) }

func (b *bench) open() *Holder {
	b.t.Helper()
	h, err := Open(b.dir, Options{Now: b.now, Log: slog.New(slog.NewTextHandler(&b.log, nil)), Ledger: invented})
	if err != nil {
		b.t.Fatal(err)
	}
	return h
}

// begin serves both interfaces.
func (b *bench) begin() {
	b.t.Helper()
	b.h = b.open()
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	for name, serve := range map[string]func(context.Context, net.Listener) error{"ingest.sock": b.h.Ingest, "question.sock": b.h.Questions} {
		l, err := net.Listen("unix", filepath.Join(b.dir, name))
		if err != nil {
			b.t.Fatal(err)
		}
		group.Go(func() {
			if err := serve(ctx, l); err != nil {
				b.t.Error(err)
			}
		})
	}
	b.stop = func() { cancel(); group.Wait() }
}

// end stops it in order; crash leaves the counts as a kill does.
func (b *bench) end() {
	b.crash()
	if err := b.h.quota.close(); err != nil {
		b.t.Error(err)
	}
}

func (b *bench) crash() {
	b.stop()
	b.stop = nil
	if err := b.h.lock.Release(); err != nil {
		b.t.Error(err)
	}
}

func (b *bench) dial(name string) Dial {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(b.dir, name))
	}
}

func (b *bench) client(o ClientOptions) *Client {
	b.t.Helper()
	o.Dial = b.dial("ingest.sock")
	o.Log = slog.New(slog.NewTextHandler(&b.log, nil))
	c, err := Connect(context.Background(), o)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.Close() })
	return c
}

func person(i int) Name { return Name{event.Person, fmt.Appendf(nil, "invented-%05d", i)} }

func TestTokens(t *testing.T) {
	b := newBench(t, Setup{})
	b.begin()
	c := b.client(ClientOptions{})
	if who := c.Identity(); who.Org != org || who.Epoch != 1 || who.Check == [16]byte{} {
		t.Fatalf("%+v", who)
	}
	// The key is where the folder says, and nowhere else.
	ring, err := keyring.Load(filepath.Join(b.dir, "keys", "keyring"), nil)
	if err != nil {
		t.Fatal(err)
	}
	local, err := pseudonym.NewLocal(ring.MACKey(keyPurpose), org, 1)
	if err != nil {
		t.Fatal(err)
	}
	var names []Name
	for i := range 200 {
		names = append(names, person(i), Name{event.Address, fmt.Appendf(nil, "192.0.2.%d", i)})
	}
	names = append(names, Name{event.Mail, bytes.Repeat([]byte("x"), 3<<20)}, Name{event.Device, nil})
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for _, n := range names {
				got, err := c.Token(n.Kind, n.Canonical)
				want, _ := local.Token(n.Kind, n.Canonical)
				if err != nil || got != want {
					t.Errorf("kind %c: %v, %v", n.Kind, got, err)
					return
				}
			}
		})
	}
	group.Wait()
	batch, err := c.Tokens(names[:maxBatch])
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range names[:maxBatch] {
		if want, _ := local.Token(n.Kind, n.Canonical); batch[i] != want {
			t.Fatal(i)
		}
	}
	if _, err := c.Tokens(names[:maxBatch+1]); err == nil {
		t.Error("a batch beyond the bound was asked")
	}
	if s, err := c.Stats(t.Context()); err != nil || s.New != 402 || s.Asked < 402 || s.Refused != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestHolderDiesAndComesBack: who asks meanwhile waits and gets the same tokens; who
// waited in vain gets an error that says nothing of the name.
func TestHolderDiesAndComesBack(t *testing.T) {
	wide := Limits{Minute: 1e6, Hour: 1e6, Day: 1e6} // each crash uses up some of a quota
	b := newBench(t, Setup{Quota: &Quota{Names: wide, Addresses: wide}})
	b.begin()
	c := b.client(ClientOptions{Timeout: time.Minute})
	want, err := c.Tokens([]Name{person(1)})
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	goOn := make(chan struct{})
	for i := range 8 {
		group.Go(func() {
			for n := range 400 {
				if n == 100 {
					goOn <- struct{}{}
				}
				if _, err := c.Token(event.Person, fmt.Appendf(nil, "invented-%d-%d", i, n)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 8 {
		<-goOn
		b.crash()
		os.Remove(filepath.Join(b.dir, "ingest.sock"))
		os.Remove(filepath.Join(b.dir, "question.sock"))
		b.begin()
	}
	group.Wait()
	if got, err := c.Tokens([]Name{person(1)}); err != nil || got[0] != want[0] {
		t.Fatal(got, err)
	}
	b.end()
	_, err = Connect(t.Context(), ClientOptions{Dial: b.dial("ingest.sock"), Timeout: 50 * time.Millisecond})
	if !errors.Is(err, ErrAway) {
		t.Fatal(err)
	}
	if strings.Contains(err.Error(), b.dir) {
		t.Errorf("an error with an address: %v", err)
	}
}

func TestAnotherKeyIsNotTakenForThisOne(t *testing.T) {
	b := newBench(t, Setup{})
	b.begin()
	who := b.client(ClientOptions{}).Identity()
	c := b.client(ClientOptions{}) // it knows what it saw first
	b.end()
	if err := os.RemoveAll(b.dir); err != nil {
		t.Fatal(err)
	}
	if err := Create(b.dir, Setup{Org: org}); err != nil {
		t.Fatal(err)
	}
	b.begin()
	c.o.Timeout = 200 * time.Millisecond
	if _, err := c.Token(event.Person, []byte("x")); !errors.Is(err, ErrOther) {
		t.Errorf("a connection that lasts: %v", err)
	}
	if _, err := Connect(t.Context(), ClientOptions{Dial: b.dial("ingest.sock"), Known: &who, Timeout: 200 * time.Millisecond}); !errors.Is(err, ErrOther) {
		t.Errorf("a new one: %v", err)
	}
	if _, err := Connect(t.Context(), ClientOptions{Dial: b.dial("ingest.sock"), Known: &Identity{Org: uuid.New(), Epoch: 9}, Timeout: 200 * time.Millisecond}); !errors.Is(err, ErrOther) {
		t.Errorf("another organisation: %v", err)
	}
}

func TestEpochs(t *testing.T) {
	b := newBench(t, Setup{FirstEpoch: 2})
	b.begin()
	before := b.client(ClientOptions{})
	first := before.Identity()
	old, err := before.Tokens([]Name{person(1)})
	if err != nil {
		t.Fatal(err)
	}
	b.end()
	if n, err := Rotate(b.dir, noon, nil); err != nil || n != 3 {
		t.Fatal(n, err)
	}
	os.Remove(filepath.Join(b.dir, "ingest.sock"))
	os.Remove(filepath.Join(b.dir, "question.sock"))
	b.begin()
	if got, err := before.Tokens([]Name{person(1)}); err != nil || got[0] != old[0] || before.Identity() != first {
		t.Errorf("who was connected goes on in its epoch: %v, %v", got, err)
	}
	after := b.client(ClientOptions{Known: &first})
	got, err := after.Tokens([]Name{person(1)})
	if err != nil || after.Identity().Epoch != 3 || got[0] == old[0] || !strings.HasPrefix(string(got[0]), "p3_") {
		t.Errorf("%v in epoch %d, %v", got, after.Identity().Epoch, err)
	}
	if _, err := Connect(t.Context(), ClientOptions{Dial: b.dial("ingest.sock"), Epoch: 1, Timeout: 200 * time.Millisecond}); !errors.Is(err, ErrEpoch) {
		t.Errorf("the epoch of the data directory's own key: %v", err)
	}
}

func TestDirectory(t *testing.T) {
	file := func(n int) []byte {
		var f bytes.Buffer
		f.WriteString("apiVersion: directory/v1\ndomains: [CORP]\npeople:\n")
		for i := range n {
			fmt.Fprintf(&f, "  - {id: E-%d, names: ['CORP\\invented%d']}\n", i, i)
		}
		return f.Bytes()
	}
	big := file(20_000)
	b := newBench(t, Setup{Directory: big})
	b.begin()
	c := b.client(ClientOptions{})
	if got, err := c.Directory(t.Context()); err != nil || !bytes.Equal(got, big) || len(got) < 2*chunkSize {
		t.Fatalf("%d bytes of %d, %v", len(got), len(big), err)
	}
	first := c.Digest()
	path := filepath.Join(b.dir, fileDirectory)
	if err := os.WriteFile(path, []byte("apiVersion: directory/v1\npeople: [{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.h.readFiles(); err == nil {
		t.Error("a file that cannot be read was taken")
	}
	if got, err := c.Directory(t.Context()); err != nil || !bytes.Equal(got, big) {
		t.Fatal("the old one did not stay in force", err)
	}
	if err := os.WriteFile(path, file(3), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.h.readFiles(); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Directory(t.Context()); err != nil || !bytes.Equal(got, file(3)) {
		t.Fatal(err)
	}
	if c.Digest() == first { // the answer above came behind the notice
		t.Error("the client was not told")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := b.h.readFiles(); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Directory(t.Context()); err != nil || got != nil || c.Digest() != [32]byte{} {
		t.Fatal(len(got), err)
	}
}

func TestFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "holder")
	pass := []byte("a long passphrase of tests")
	if err := Create(dir, Setup{Org: org, Passphrase: pass}); err != nil {
		t.Fatal(err)
	}
	if err := Create(dir, Setup{Org: org}); err == nil {
		t.Error("it was made twice")
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if st, err := d.Info(); err != nil || st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); !errors.Is(err, keyring.ErrNoPassphrase) {
		t.Errorf("without a passphrase: %v", err)
	}
	h, err := Open(dir, Options{Passphrase: func() ([]byte, error) { return bytes.Clone(pass), nil }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{Passphrase: func() ([]byte, error) { return bytes.Clone(pass), nil }}); err == nil {
		t.Error("two processes have it")
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("a folder that others read: %v", err)
	}
	for text, want := range map[string]string{
		"apiVersion: keyholder/v1\norg: nobody\n":                                                                                            "org is not",
		"apiVersion: keyholder/v2\norg: " + org.String() + "\n":                                                                              "apiVersion",
		"apiVersion: keyholder/v1\norg: " + org.String() + "\nfirst_epoch: 0\n":                                                              "first_epoch",
		"apiVersion: keyholder/v1\norg: " + org.String() + "\nquota: {questions: -1}\n":                                                      "quota.questions",
		"apiVersion: keyholder/v1\norg: " + org.String() + "\nledger: {witnesses: [w]}\n":                                                    "ledger.log",
		"apiVersion: keyholder/v1\norg: " + org.String() + "\nledger: {log: l}\n":                                                            "ledger.witnesses",
		"apiVersion: keyholder/v1\norg: " + org.String() + "\nledger: {log: l, witnesses: [w], threshold: 2}\n":                              "ledger.threshold",
		"apiVersion: keyholder/v1\norg: " + org.String() + "\nkey: x\n":                                                                      "key",
		"apiVersion: keyholder/v1\norg: " + org.String() + "\nquota: {names: {minute: 9, hour: 1, day: 1}, addresses: {minute: 1, hour: 1}}": "quota.names",
	} {
		if _, err := parseFolder("f", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestApart(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(data, link); err != nil {
		t.Fatal(err)
	}
	for _, in := range []string{data, filepath.Join(data, "holder"), filepath.Join(data, "a", "b"), dir, link, filepath.Join(data, "..", "data", "h")} {
		if Apart(in, data) == nil {
			t.Errorf("%s was taken", in)
		}
	}
	for _, out := range []string{filepath.Join(dir, "keyholder"), filepath.Join(dir, "data-keyholder"), filepath.Join(dir, "..data")} {
		if err := Apart(out, data); err != nil {
			t.Error(out, err)
		}
	}
}

// TestWritesNoName asks in every way and looks at all that is left.
func TestWritesNoName(t *testing.T) {
	secret := "invented-zyzzyva"
	b := newBench(t, Setup{})
	b.begin()
	c := b.client(ClientOptions{})
	var said strings.Builder
	for i := range 6_000 {
		if _, err := c.Token(event.Person, fmt.Appendf(nil, "%s-%d", secret, i)); err != nil {
			fmt.Fprintln(&said, err)
		}
	}
	if err := Ask(t.Context(), b.dial("question.sock"), []byte(secret), make([]byte, SaltSize), spoken(secret)); err == nil {
		t.Error("a question without a capability was answered")
	} else {
		fmt.Fprintln(&said, err)
	}
	if said.Len() == 0 {
		t.Fatal("nothing went wrong, so nothing was said")
	}
	b.end()
	said.WriteString(b.log.String())
	if strings.Contains(said.String(), secret) {
		t.Error("a log or an error holds the name")
	}
	err := filepath.WalkDir(b.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(secret)) {
			t.Errorf("%s holds the name", filepath.Base(path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestInterfacesApart(t *testing.T) {
	b := newBench(t, Setup{})
	b.begin()
	if _, err := Connect(t.Context(), ClientOptions{Dial: b.dial("question.sock"), Timeout: 200 * time.Millisecond}); !errors.Is(err, errFace) {
		t.Errorf("ingest at the question interface: %v", err)
	}
	if err := Ask(t.Context(), b.dial("ingest.sock"), []byte("{}"), make([]byte, SaltSize), spoken("alice")); !errors.Is(err, errFace) {
		t.Errorf("a question at the ingest interface: %v", err)
	}
	c := b.client(ClientOptions{})
	if _, err := c.call(t.Context(), opAsk, opTokens, nil); !errors.Is(err, errFace) {
		t.Errorf("a question on an ingest connection: %v", err)
	}
}

func TestStatsFields(t *testing.T) {
	b := newBench(t, Setup{})
	b.begin()
	c := b.client(ClientOptions{})
	if _, err := c.Tokens([]Name{person(1), person(1), person(2)}); err != nil {
		t.Fatal(err)
	}
	s, err := c.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := Window{Class: "names", From: "2026-11-25T12:00:00Z", Limit: 500, Used: 2, Window: "minute"}
	if diff := cmp.Diff(want, s.Windows[0]); diff != "" {
		t.Error(diff)
	}
	if s.Asked != 3 || s.New != 2 || s.Officers || len(s.Windows) != 8 {
		t.Errorf("%+v", s)
	}
}
