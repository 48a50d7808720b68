package lifecycle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/index"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/pia"
	"github.com/counterseal/counterseal/internal/state"
	"github.com/counterseal/counterseal/internal/vault"
)

// book is a ledger in memory with one witness: it keeps what was added, whatever else
// fails, and can be told to fail before or after it did. The real one is used by the
// tests of cmd/counterseal.
type book struct {
	mu       sync.Mutex
	now      func() time.Time
	facts    map[[2]string]state.Fact
	all      []attest.Act
	next     uint64
	up       bool // the witness answers
	none     bool // there is no witness
	seen     uint64
	seenAt   time.Time
	slow     time.Duration // the clock of the witness is so far behind
	payloads map[ledger.Digest][]byte

	calls    int
	failAt   int // the call to fail, 1 is the first; 0: none
	failDone bool
	dead     bool
}

var errCrash = errors.New("the process died")

func newBook(now func() time.Time) *book {
	return &book{now: now, facts: map[[2]string]state.Fact{}, up: true}
}

func (b *book) add(a attest.Act) (uint64, error) {
	if b.dead {
		return 0, errCrash
	}
	b.calls++
	if b.calls == b.failAt && !b.failDone {
		b.dead = true
		return 0, errCrash
	}
	s, err := ledger.New(a.Kind, a.Actor, b.now(), a.Detail)
	if err != nil {
		return 0, err
	}
	s.Node, s.Seq, s.Purpose, s.Subject = "n1", b.next+1, a.Purpose, a.Subject
	if _, err := s.Canonical(); err != nil { // what the ledger would refuse
		return 0, err
	}
	for _, f := range attest.Fold(b.next, s) {
		b.facts[[2]string{f.Kind, f.Key}] = f
	}
	b.all = append(b.all, a)
	b.next++
	b.witness()
	if b.calls == b.failAt {
		b.dead = true
		return b.next - 1, errCrash
	}
	return b.next - 1, nil
}

func (b *book) witness() {
	if b.up && !b.none {
		b.seen, b.seenAt = b.next, b.now().Add(-b.slow)
	}
}

func (b *book) Record(_ context.Context, a attest.Act) (uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.add(a)
}

func (b *book) Critical(_ context.Context, a attest.Act) (ledger.Receipt, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.none {
		return ledger.Receipt{}, attest.ErrNoWitness
	}
	i, err := b.add(a)
	if err == nil && !b.up {
		err = ledger.ErrUnwitnessed
	}
	return ledger.Receipt{Index: i}, err
}

func (b *book) Facts(_ context.Context, kind string) ([]state.Fact, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dead {
		return nil, errCrash
	}
	var out []state.Fact
	for k, f := range b.facts {
		if k[0] == kind {
			out = append(out, f)
		}
	}
	return out, nil
}

func (b *book) Fact(_ context.Context, kind, key string) (state.Fact, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, ok := b.facts[[2]string{kind, key}]
	return f, ok, nil
}

func (b *book) PutPayload(p []byte) (ledger.Digest, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := sha256.Sum256(append([]byte{byte(len(b.payloads))}, p...))
	d := ledger.Digest{Alg: ledger.DigestAlg, H: hex.EncodeToString(h[:])}
	if b.payloads == nil {
		b.payloads = make(map[ledger.Digest][]byte)
	}
	b.payloads[d] = p
	return d, nil
}

func (b *book) Payload(d ledger.Digest) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.payloads[d]
	if !ok {
		return nil, ledger.ErrNoPayload
	}
	return p, nil
}

// enrol is what a server states of its officers when it starts.
func (b *book) enrol(r *officer.Roster) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, o := range r.Officers {
		id := o.ID()
		b.facts[[2]string{"officer.enrolled", id}] = state.Fact{Kind: "officer.enrolled", Key: id}
	}
}

func (b *book) Witnessed() (uint64, time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.witness() // a heartbeat
	return b.seen, b.seenAt
}

// details decodes the details of the statements of a kind.
func details[T any](t testing.TB, b *book, kind string) (out []T) {
	t.Helper()
	for _, a := range b.all {
		if a.Kind != kind {
			continue
		}
		raw, err := json.Marshal(a.Detail)
		if err != nil {
			t.Fatal(err)
		}
		var v T
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

// site is a data directory with a clock.
type site struct {
	t     testing.TB
	dir   string
	at    time.Time
	book  *book
	rules []*pia.Rule
	grace time.Duration
	fault func(durable.Step) error
	past  func(string, evidence.Position) bool
	roll  *officer.Roster

	keys *keyring.Keyring
	ev   *evidence.Store
	idx  *index.Index
	st   *state.DB
	l    *Lifecycle
	n    int

	closed bool
	agree  func(context.Context) error
	vault  *vault.Vault
}

// monday is a quiet Monday noon.
var monday = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func quickDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "counterseal-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func newSite(t testing.TB) *site {
	s := &site{t: t, dir: quickDir(t), at: monday, grace: DefaultGrace}
	s.book = newBook(s.now)
	s.rules = []*pia.Rule{{Source: "idp", Compartment: "hr", Retention: 30, OriginalDays: 7}}
	s.open()
	t.Cleanup(s.close)
	return s
}

func (s *site) now() time.Time { return s.at }

func (s *site) open() {
	s.t.Helper()
	if err := s.tryOpen(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) tryOpen() (err error) {
	s.closed = false
	if s.keys, err = keyring.Open(s.dir); err != nil {
		return err
	}
	if s.ev, err = evidence.Open(evidence.Options{Dir: s.dir, Keys: s.keys, Now: s.now, FS: durable.FS{Fault: s.fault}}); err != nil {
		return err
	}
	if s.idx, err = index.Open(index.Options{Dir: filepath.Join(s.dir, "index"), Now: s.now}); err != nil {
		return errors.Join(err, s.ev.Close())
	}
	if s.st, err = state.Open(filepath.Join(s.dir, "state")); err != nil {
		return errors.Join(err, s.ev.Close(), s.idx.Close())
	}
	if s.roll != nil {
		s.book.enrol(s.roll)
	}
	s.l, err = New(Options{
		Evidence: s.ev, Index: func() *index.Index { return s.idx }, State: s.st, Statements: s.book, Ledger: s.book,
		Rules: func() []*pia.Rule { return s.rules }, Grace: s.grace, Now: s.now, Past: s.past, Agree: s.agree, Vault: s.vault, Roster: s.roll, Org: s.keys.ID(),
		Wrap:   func(plain, id []byte) ([]byte, error) { return s.keys.Wrap("hold/inspector", plain, id) },
		Unwrap: func(box, id []byte) ([]byte, error) { return s.keys.Unwrap("hold/inspector", box, id) },
	})
	return err
}

func (s *site) close() {
	s.t.Helper()
	if s.closed {
		return
	}
	s.closed = true
	s.ev.Close() // a dead disk refuses
	if err := errors.Join(s.idx.Close(), s.st.Close()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) reopen() {
	s.t.Helper()
	s.close()
	s.open()
}

// seal writes one closed segment of records, with their rows and card, and gives its
// id.
func (s *site) seal(stream evidence.Stream, comp string, records int) uuid.UUID {
	s.t.Helper()
	ctx := context.Background()
	var recs [][]byte
	for range records {
		s.n++
		recs = append(recs, fmt.Appendf(nil, "record %d of %s", s.n, comp))
	}
	first, err := s.ev.Append(ctx, stream, comp, recs)
	if err != nil {
		s.t.Fatal(err)
	}
	if stream == evidence.Events {
		var rows []index.Row
		for i := range recs {
			rows = append(rows, index.Row{Ref: first.Next(uint64(i)).String(), Time: s.at.UnixNano(), Sealed: s.at, Compartment: comp, Source: "idp", Dataset: "signin", Kind: index.KindEvent})
		}
		if _, err := s.idx.Append(ctx, rows); err != nil {
			s.t.Fatal(err)
		}
		card := &event.Card{Source: "idp", Key: fmt.Sprintf("key-%d", s.n), N: records, First: first.String(), Last: first.Next(uint64(records - 1)).String(), Received: s.at}
		if err := s.st.Project(ctx, comp, evidence.After(first).Segment.String()+"/0/", []*event.Card{card}); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := s.ev.Rotate(); err != nil {
		s.t.Fatal(err)
	}
	return first.Segment
}

func (s *site) pass() Report {
	s.t.Helper()
	r, err := s.l.Pass(context.Background())
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func (s *site) after(d time.Duration) { s.at = s.at.Add(d) }

// opens tells whether the key of a segment is there and opens it.
func (s *site) opens(id uuid.UUID) bool {
	s.t.Helper()
	err := evidence.Opens(s.dir, s.keys, id)
	if err != nil && !errors.Is(err, evidence.ErrNoKey) {
		s.t.Fatal(err)
	}
	return err == nil
}

func (s *site) weeks() (names []string) {
	for _, w := range s.idx.Weeks() {
		names = append(names, w.Compartment+" "+w.Name)
	}
	return names
}

func (s *site) verify() {
	s.t.Helper()
	r, err := evidence.Verify(context.Background(), s.dir, evidence.VerifyOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	if !r.OK() {
		s.t.Fatal(r.Problems)
	}
}

func (s *site) place(scope Scope) Hold {
	s.t.Helper()
	h, err := s.l.Place(context.Background(), "os:1000", scope, []byte("order of the court"), s.at.Add(90*24*time.Hour))
	if err != nil {
		s.t.Fatal(err)
	}
	return h
}

const day = 24 * time.Hour
