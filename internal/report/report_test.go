package report

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/state"
)

func TestMain(m *testing.M) {
	ledger.RouteLibraryLog(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

const testOrigin = "counterseal/test"

var (
	tokenA = event.NewToken(event.Person, 1, [16]byte{1})
	tokenB = event.NewToken(event.Person, 1, [16]byte{2})
)

// house is a data directory with a ledger, a witness over HTTP and evidence in it.
type house struct {
	*Maker
	dir     string
	trust   ledger.Verifiers
	witness *httptest.Server
	refs    []event.Ref // of the events, in order
	key     *RecipientKey
	// investigation, oversight, and a spare of each
	officers [4]*keyring.PrivateKey
	now      time.Time
}

func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{dir: t.TempDir(), now: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)}
	ctx := context.Background()
	logKey := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{3}, ed25519.SeedSize))
	vkey, err := ledger.VKey(testOrigin, logKey.Public().(ed25519.PublicKey))
	fatal(t, err)
	w, err := ledger.OpenWitness(ledger.WitnessOptions{Dir: filepath.Join(t.TempDir(), "w"), Name: "witness.example/a", Logs: []string{vkey}, Log: slog.New(slog.DiscardHandler)})
	fatal(t, err)
	h.witness = httptest.NewServer(w)
	h.trust = ledger.Verifiers{Log: []string{vkey}, Witnesses: []ledger.Witness{{VKey: w.VKey(), URL: h.witness.URL}}, Threshold: 1}
	keys, err := keyring.Open(h.dir)
	fatal(t, err)
	db, err := state.Open(filepath.Join(h.dir, "state"))
	fatal(t, err)
	rec, err := attest.Open(ctx, attest.Options{State: db, Ledger: ledger.Options{
		Dir: filepath.Join(h.dir, "ledger"), Origin: testOrigin, Key: logKey, Node: "n1", Witnesses: h.trust.Witnesses, Threshold: 1, WitnessDeadline: 3 * time.Second,
	}})
	fatal(t, err)
	for i := range h.officers {
		h.officers[i], err = keyring.NewPrivateKey()
		fatal(t, err)
	}
	escrow := &keyring.Escrow{Epoch: 1, Main: keyring.Pair{Investigation: h.officers[0].Public(), Oversight: h.officers[1].Public()}, Spare: keyring.Pair{Investigation: h.officers[2].Public(), Oversight: h.officers[3].Public()}}
	segments := rec.Segments()
	store, err := evidence.Open(evidence.Options{Dir: h.dir, Keys: keys, Escrow: escrow, Opened: segments.Opened, Settled: segments.Settled, Now: func() time.Time { return h.now }})
	fatal(t, err)
	h.Maker = &Maker{Dir: h.dir, Org: keys.ID(), Log: testOrigin, Evidence: store, Recorder: rec, Now: func() time.Time { return h.now },
		Settle: func(ctx context.Context) error {
			if err := store.Rotate(); err != nil {
				return err
			}
			return segments.Flush(ctx, store)
		}}
	h.key, err = NewRecipientKey("Court of the District")
	fatal(t, err)
	t.Cleanup(func() {
		fatal(t, store.Close())
		fatal(t, rec.Close())
		fatal(t, db.Close())
		h.witness.Close()
		w.Close()
	})
	return h
}

func fatal(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// event makes a stored event.
func (h *house) event(source string, at time.Time, original event.Ref, fields ...string) []byte {
	e := event.Event{Envelope: event.Envelope{Source: source, Dataset: "test", Format: "json/1", Way: "http", Peer: "127.0.0.1", Seq: 1, Received: h.now.UnixNano(), Time: at.UnixNano(), Original: original}}
	for i := 0; i+1 < len(fields); i += 2 {
		e.Fields = append(e.Fields, event.Field{Name: fields[i], Value: []byte(fields[i+1])})
	}
	return event.AppendEncode(nil, &e)
}

// put appends records to a compartment.
func (h *house) put(t testing.TB, comp string, recs ...[]byte) event.Ref {
	t.Helper()
	ref, err := h.Evidence.Append(context.Background(), evidence.Events, comp, recs)
	fatal(t, err)
	return ref
}

// fill puts n events of two people and two sources into two compartments.
func (h *house) fill(t testing.TB, n int) {
	t.Helper()
	for i := range n {
		source, comp := "idp", "identity"
		if i%3 == 0 {
			source, comp = "web", "servers"
		}
		who := tokenA
		if i%2 == 1 {
			who = tokenB
		}
		ref := h.put(t, comp, h.event(source, h.now.Add(time.Duration(i-n)*time.Minute), event.Ref{}, "who", string(who), "n", fmt.Sprint(i), "odd", "\x1b[31m\xff<script>"))
		h.refs = append(h.refs, ref)
	}
}

func (h *house) request() Request {
	return Request{
		Case: "C-2026-7", Purpose: "INV-2", Recipients: []*Recipient{h.key.Card()}, People: []event.Token{tokenA}, Due: h.now.AddDate(0, 1, 0), Actor: "os:1000",
		Tools: map[string]string{"counterseal": "test", "go": "go1.26"},
	}
}

// pack makes a package of all that there is.
func (h *house) pack(t testing.TB, change func(*Request)) (string, *Made) {
	t.Helper()
	req := h.request()
	if change != nil {
		change(&req)
	}
	path := filepath.Join(t.TempDir(), "case.pkg")
	m, err := h.Create(context.Background(), req, path)
	fatal(t, err)
	return path, m
}

// TestPackage: what is made verifies, sealed, with the key, and opened, with nothing
// but public keys; it holds the scope and no more; people whom nobody named are tokens.
func TestPackage(t *testing.T) {
	h := newHouse(t)
	h.fill(t, 40)
	path, m := h.pack(t, func(r *Request) { r.Scope.Sources = []string{"idp"}; r.Scope.From = h.now.Add(-30 * time.Minute) })
	ctx := context.Background()
	c, err := VerifyFile(ctx, path, nil, h.trust)
	if err != nil || !c.OK() || !c.Sealed || c.ID != m.ID || c.Due != "2026-12-25" {
		t.Fatalf("%+v %v", c, err)
	}
	c, err = VerifyFile(ctx, path, h.key, h.trust)
	if err != nil || !c.OK() || c.Records != m.Records || c.Records != 20 || c.Segments != 1 || c.Statements < 3 {
		t.Fatalf("%+v %+v %v", c, m, err)
	}
	dir := filepath.Join(t.TempDir(), "bag")
	if c, err = Open(ctx, path, h.key, h.trust, dir); err != nil || !c.OK() {
		t.Fatalf("%+v %v", c, err)
	}
	if c, err = VerifyBag(ctx, dir, h.trust); err != nil || !c.OK() || c.Records != 20 {
		t.Fatalf("%+v %v", c, err)
	}
	var all []byte
	for _, name := range []string{"data/index.html", "data/index.txt", "data/package.json"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		fatal(t, err)
		all = append(all, b...)
	}
	for _, want := range []string{"C-2026-7", "INV-2", "2026-12-25", "Court of the District", string(tokenA), string(tokenB), "go1.26"} {
		if !bytes.Contains(all, []byte(want)) {
			t.Errorf("the pages lack %q", want)
		}
	}
	for _, bad := range []string{"<script", "\x1b", "web"} {
		if bytes.Contains(all, []byte(bad)) {
			t.Errorf("the pages hold %q", bad)
		}
	}
	if n := bytes.Index(all, []byte("</html>")); bytes.Count(all[:n], []byte("<tr><td>2026-11-25 11:")) != 20 {
		t.Error("the page does not show each record once")
	}
	// Another key opens nothing, and no second package takes the place of the first.
	other, err := NewRecipientKey("Somebody")
	fatal(t, err)
	if _, err := VerifyFile(ctx, path, other, h.trust); err == nil {
		t.Fatal("opened with another key")
	}
	if _, err := h.Create(ctx, h.request(), path); err == nil {
		t.Fatal("written over a package")
	}
	if _, err := Open(ctx, path, h.key, h.trust, dir); err == nil {
		t.Fatal("opened over a folder")
	}
}

// TestUnwitnessed: without the witness no file comes to be.
func TestUnwitnessed(t *testing.T) {
	h := newHouse(t)
	h.fill(t, 3)
	h.witness.Close()
	dir := t.TempDir()
	if _, err := h.Create(context.Background(), h.request(), filepath.Join(dir, "p")); err == nil {
		t.Fatal("made without a witness")
	}
	des, err := os.ReadDir(dir)
	if err != nil || len(des) != 0 {
		t.Fatal(des, err)
	}
}

// other adds a statement that is about something else.
func (h *house) other(t testing.TB) {
	t.Helper()
	_, err := h.Recorder.Record(context.Background(), attest.Act{Kind: "request.served", Actor: "os:1000", Detail: map[string]any{"route": "search", "status": 200}})
	fatal(t, err)
}

// TestDestroyed: what was destroyed is missing from a package by name, the rest is in
// it, and the path of a destroyed record can still be proven.
func TestDestroyed(t *testing.T) {
	h := newHouse(t)
	h.fill(t, 9)
	ctx := context.Background()
	fatal(t, h.Settle(ctx))
	gone := h.refs[0]
	if _, err := h.Evidence.Prove(ctx, evidence.Events, gone); err != nil { // a block of it is at hand
		t.Fatal(err)
	}
	_, err := h.Evidence.DestroyCard(ctx, evidence.Events, gone.Compartment, gone.Segment, func(evidence.Stream, string, uuid.UUID) error { return nil })
	fatal(t, err)
	path, m := h.pack(t, nil)
	if m.Unread != 1 || m.Records != 6 || m.Segments != 1 {
		t.Fatalf("%+v", m)
	}
	dir := filepath.Join(t.TempDir(), "bag")
	if c, err := Open(ctx, path, h.key, h.trust, dir); err != nil || !c.OK() {
		t.Fatal(c, err)
	}
	b, err := os.ReadFile(filepath.Join(dir, nameIndexText))
	fatal(t, err)
	if !bytes.Contains(b, []byte("segment "+gone.Segment.String()+": destroyed")) {
		t.Fatalf("%s", b)
	}
	proof, _, err := h.Prove(ctx, evidence.Events, gone, false)
	fatal(t, err)
	if _, err := VerifyProof(proof, h.trust); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.Prove(ctx, evidence.Events, gone, true); !errors.Is(err, evidence.ErrNoKey) {
		t.Fatal(err)
	}
	req := h.request()
	req.Scope.Query, req.Scope.Refs = "n = 0", []event.Ref{gone}
	if _, err := h.Create(ctx, req, filepath.Join(t.TempDir(), "p")); !errors.Is(err, ErrEmpty) {
		t.Fatal(err)
	}
}

// TestDisagreement: where evidence has another root than the ledger says, neither a
// proof nor a package is made.
func TestDisagreement(t *testing.T) {
	h := newHouse(t)
	h.fill(t, 4)
	ctx := context.Background()
	fatal(t, h.Settle(ctx))
	ref := h.refs[1]
	f, _, err := h.Recorder.Fact(ctx, "segment.closed", ref.Segment.String())
	fatal(t, err)
	other := bytes.Replace(f.Detail, []byte(`"root":"`), []byte(`"root":"`+"00000000"), 1)
	i := bytes.Index(other, []byte(`"root":"`)) + 8 + 64
	other = append(other[:i], other[i+8:]...)
	_, err = h.Recorder.Record(ctx, attest.Act{Kind: "segment.closed", Actor: attest.System, Subject: []string{ref.Segment.String()}, Detail: json.RawMessage(other)})
	fatal(t, err)
	if _, _, err := h.Prove(ctx, evidence.Events, ref, false); err == nil {
		t.Error("proved against another root")
	}
	path := filepath.Join(t.TempDir(), "p")
	if _, err := h.Create(ctx, h.request(), path); err == nil || !strings.Contains(err.Error(), "another root") {
		t.Error("packed against another root:", err)
	}
	if des, err := os.ReadDir(filepath.Dir(path)); err != nil || len(des) != 0 {
		t.Error(des, err)
	}
}
