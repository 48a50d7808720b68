package broker

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/ledger"
)

// house is a ledger, a broker that believes it, and commands that write down what they get.
type house struct {
	t   *testing.T
	l   *ledger.Ledger
	b   *Broker
	o   Options
	now time.Time
	out string // what the commands were given
}

const alice = "alice@agency.example"

var org = uuid.MustParse("01900000-0000-7000-8000-000000000001")

func who() event.Token { return event.NewToken(event.Person, 1, [16]byte{1}) }

// laptop is the token of her device.
func laptop() event.Token { return event.NewToken(event.Device, 1, [16]byte{2}) }

func newHouse(t *testing.T) *house {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, now: time.Now().UTC().Truncate(time.Second), out: filepath.Join(t.TempDir(), "out")}
	h.l, err = ledger.Open(t.Context(), ledger.Options{Dir: filepath.Join(t.TempDir(), "ledger"), Origin: "example.test/broker", Key: key, Node: "n1", Now: func() time.Time { return h.now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.l.Close(); err != nil {
			t.Error(err)
		}
	})
	vkey, err := ledger.VKey("example.test/broker", key.Public())
	if err != nil {
		t.Fatal(err)
	}
	way := Way{Command: []string{"/bin/sh", "-c", `cat >> "$0"; echo >> "$0"; [ ! -e "$0.fail" ]`, h.out}}
	if err := way.Check(); err != nil {
		t.Fatal(err)
	}
	h.o = Options{
		Dir: filepath.Join(t.TempDir(), "broker"), Org: org.String(), Ledger: ledger.Verifiers{Log: []string{vkey}}, MaxDay: 5, MaxAlone: 2, MaxNotices: 3,
		Resolve: func(tok event.Token) (Account, bool) {
			return Account{Names: []string{"alice"}, Mails: []string{alice}}, tok == who() || tok == laptop()
		},
		Do: way.Do, Can: func(act string) bool { return act != Contact }, Now: func() time.Time { return h.now },
		Log: slog.New(slog.DiscardHandler),
	}
	h.open()
	return h
}

func (h *house) open() {
	h.t.Helper()
	var err error
	if h.b, err = Open(h.o); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) order(act string) *Order {
	o := &Order{Act: act, Case: "C-17", Form: OrderForm, ID: uuid.NewString(), Nonce: base64.RawURLEncoding.EncodeToString(make([]byte, 16)), Org: org.String(), Target: string(who())}
	if lasts(act) {
		o.Until = h.now.Add(4 * time.Hour).Format(time.RFC3339)
	}
	return o
}

// said makes a statement and proves it.
func (h *house) said(kind, actor, id string, detail any) Proven {
	h.t.Helper()
	s, err := ledger.New(kind, actor, h.now, detail)
	if err != nil {
		h.t.Fatal(err)
	}
	s.Subject = []string{id}
	index, err := h.l.Add(h.t.Context(), s)
	if err != nil {
		h.t.Fatal(err)
	}
	leaf, err := h.l.Leaf(h.t.Context(), index)
	if err != nil {
		h.t.Fatal(err)
	}
	for {
		proof, err := h.l.Prove(h.t.Context(), index)
		if errors.Is(err, ledger.ErrUncovered) { // the next checkpoint covers it
			time.Sleep(5 * time.Millisecond)
			continue
		} else if err != nil {
			h.t.Fatal(err)
		}
		return Proven{leaf, proof}
	}
}

// by is an order with the statements of one person, or of two.
func (h *house) by(o *Order, grant string, actors ...string) Asked {
	h.t.Helper()
	b, err := o.Bytes()
	if err != nil {
		h.t.Fatal(err)
	}
	a := Asked{Order: b, Asks: h.said(KindOrdered, actors[0], o.ID, Ordered{Act: o.Act, Grant: grant, Order: DigestOf(b)})}
	if len(actors) > 1 {
		p := h.said(KindAgreed, actors[1], o.ID, Agreed{DigestOf(b)})
		a.Agrees = &p
	}
	return a
}

// tasks are what the commands were given so far.
func (h *house) tasks() (out []Task) {
	h.t.Helper()
	b, err := os.ReadFile(h.out)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		h.t.Fatal(err)
	}
	for dec := json.NewDecoder(bytes.NewReader(b)); ; {
		var task Task
		if err := dec.Decode(&task); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			h.t.Fatal(err)
		}
		out = append(out, task)
	}
}

func (h *house) refused(a Asked, says string) {
	h.t.Helper()
	before := len(h.tasks())
	state, err := h.b.Do(h.t.Context(), a)
	var r *Refusal
	if !errors.As(err, &r) || !strings.Contains(r.Reason, says) || state != "" {
		h.t.Errorf("got %q, %v; want a refusal with %q", state, err, says)
	}
	if len(h.tasks()) != before {
		h.t.Errorf("refused, and done: %q", says)
	}
}

// TestTwoPeople: an account is disabled by two people, given back at its time also after a
// restart, and no name is in the journal.
func TestTwoPeople(t *testing.T) {
	h := newHouse(t)
	o := h.order(Disable)
	a := h.by(o, "", "os:1", "os:2")
	if state, err := h.b.Do(t.Context(), a); err != nil || state != Done {
		t.Fatalf("got %q, %v", state, err)
	}
	if got := h.tasks(); len(got) != 1 || got[0].Act != Disable || got[0].Undo || len(got[0].Account.Mails) != 1 || got[0].Account.Mails[0] != alice {
		t.Fatalf("got %+v", got)
	}
	h.refused(a, "taken before")
	if second, err := Open(h.o); err == nil {
		second.Close()
		t.Error("two brokers have one journal")
	}
	if err := h.b.Close(); err != nil {
		t.Fatal(err)
	}
	h.open()
	h.refused(a, "taken before")
	if n, err := h.b.Expire(t.Context()); n != 0 || err != nil {
		t.Fatalf("early: %d, %v", n, err)
	}
	h.now = h.now.Add(4*time.Hour + time.Second)
	if err := os.WriteFile(h.out+".fail", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := h.b.Expire(t.Context()); n != 1 || err != nil || h.b.State(o.ID) != Done {
		t.Fatalf("the command fails: %d, %v, %s", n, err, h.b.State(o.ID))
	}
	if err := os.Remove(h.out + ".fail"); err != nil {
		t.Fatal(err)
	}
	h.now = h.now.Add(minRetry)
	if n, err := h.b.Expire(t.Context()); n != 1 || err != nil || h.b.State(o.ID) != Undone {
		t.Fatalf("again: %d, %v, %s", n, err, h.b.State(o.ID))
	}
	if n, err := h.b.Expire(t.Context()); n != 0 || err != nil {
		t.Fatalf("over: %d, %v", n, err)
	}
	if got := h.tasks(); len(got) != 3 || !got[2].Undo {
		t.Fatalf("got %+v", got)
	}
	journal, err := os.ReadFile(filepath.Join(h.o.Dir, journalName))
	if err != nil || strings.Contains(string(journal), "alice") {
		t.Errorf("%v\n%s", err, journal)
	}
}

// TestUndo: somebody takes an order back before its end; once, and no other one.
func TestUndo(t *testing.T) {
	h := newHouse(t)
	o := h.order(Isolate)
	o.Target = "files.agency.example"
	if state, err := h.b.Do(t.Context(), h.by(o, "", "os:1", "os:2")); err != nil || state != Done {
		t.Fatalf("got %q, %v", state, err)
	}
	undo := *o
	undo.ID, undo.Undoes, undo.Until = uuid.NewString(), o.ID, ""
	other := undo
	other.ID, other.Target = uuid.NewString(), "other.agency.example"
	h.refused(h.by(&other, "", "os:1"), "no such order")
	if state, err := h.b.Do(t.Context(), h.by(&undo, "", "os:1")); err != nil || state != Undone {
		t.Fatalf("got %q, %v", state, err)
	}
	if got := h.tasks(); len(got) != 2 || !got[1].Undo || got[1].Account.Host != o.Target {
		t.Fatalf("got %+v", got)
	}
	again := undo
	again.ID = uuid.NewString()
	h.refused(h.by(&again, "", "os:1"), "taken back already")
	h.now = h.now.Add(5 * time.Hour)
	if n, err := h.b.Expire(t.Context()); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

// TestAlone: by a grant one person is enough, as often in a day as the broker lets them.
func TestAlone(t *testing.T) {
	h := newHouse(t)
	h.refused(h.by(h.order(Disable), "", "os:1"), "two people")
	for range h.o.MaxAlone {
		if state, err := h.b.Do(t.Context(), h.by(h.order(Sessions), "f-1", "os:1")); err != nil || state != Done {
			t.Fatalf("got %q, %v", state, err)
		}
	}
	h.refused(h.by(h.order(Sessions), "f-1", "os:1"), "one person alone")
	for range h.o.MaxDay - h.o.MaxAlone {
		if state, err := h.b.Do(t.Context(), h.by(h.order(Sessions), "", "os:1", "os:2")); err != nil || state != Done {
			t.Fatalf("got %q, %v", state, err)
		}
	}
	h.refused(h.by(h.order(Sessions), "", "os:1", "os:2"), "as much today")
	h.now = h.now.Add(24 * time.Hour)
	if state, err := h.b.Do(t.Context(), h.by(h.order(Sessions), "f-1", "os:1")); err != nil || state != Done {
		t.Fatalf("the next day: %q, %v", state, err)
	}
}

// TestForged: what the ledger does not prove, of exactly this order, is not done.
func TestForged(t *testing.T) {
	h := newHouse(t)
	other := newHouse(t) // another log
	good := h.order(Disable)
	ok := h.by(good, "", "os:1", "os:2")

	h.refused(h.by(h.order(Disable), "", "os:1", "os:1"), "one person stands for it twice")
	h.refused(h.by(h.order(Disable), "", "system", "os:2"), "no person")
	h.refused(other.by(h.order(Disable), "", "os:1", "os:2"), "")

	changed := ok
	o := *good
	o.Until = h.now.Add(5 * time.Hour).Format(time.RFC3339)
	changed.Order, _ = o.Bytes()
	h.refused(changed, "another order")
	swapped := ok
	swapped.Asks, swapped.Agrees = *ok.Agrees, &ok.Asks
	h.refused(swapped, "another one")
	mixed := ok
	mixed.Agrees = h.by(h.order(Disable), "", "os:1", "os:2").Agrees
	h.refused(mixed, "another one")
	flipped := ok
	flipped.Asks.Leaf = bytes.Replace(ok.Asks.Leaf, []byte("os:1"), []byte("os:3"), 1)
	h.refused(flipped, "")

	witnessed := h.o
	witnessed.Ledger.Threshold, witnessed.Ledger.Witnesses = 1, []ledger.Witness{{VKey: other.o.Ledger.Log[0]}}
	witnessed.Dir = t.TempDir()
	if b, err := Open(witnessed); err == nil {
		if _, err := b.Do(t.Context(), ok); err == nil {
			t.Error("an order that no witness saw is done")
		}
		b.Close()
	}

	foreign := h.order(Disable)
	foreign.Org = "01900000-0000-7000-8000-000000000002"
	h.refused(h.by(foreign, "", "os:1", "os:2"), "another server")
	unknown := h.order(Disable)
	unknown.Target = string(event.NewToken(event.Person, 1, [16]byte{9}))
	h.refused(h.by(unknown, "", "os:1", "os:2"), "does not know whom")
	far := h.order(Disable)
	far.Until = h.now.Add(15 * 24 * time.Hour).Format(time.RFC3339)
	h.refused(h.by(far, "", "os:1", "os:2"), "14 days")
	none := h.order(Contact)
	h.refused(h.by(none, "", "os:1", "os:2"), "no command")
	h.now = h.now.Add(16 * time.Minute)
	h.refused(ok, "15 minutes")
}

// TestJournal: a torn line is cut off, a strange one is named; what had begun is known.
func TestJournal(t *testing.T) {
	h := newHouse(t)
	o := h.order(Disable)
	a := h.by(o, "", "os:1", "os:2")
	if _, err := h.b.Do(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if err := h.b.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(h.o.Dir, journalName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	begun := whole[:bytes.IndexByte(whole, '\n')+1]
	if err := os.WriteFile(path, append(begun, whole[len(begun):len(whole)-5]...), 0o600); err != nil {
		t.Fatal(err)
	}
	h.open()
	if got := h.b.State(o.ID); got != Begun {
		t.Errorf("after a crash it is %q", got)
	}
	h.refused(a, "taken before")
	h.now = h.now.Add(5 * time.Hour)
	if n, err := h.b.Expire(t.Context()); n != 1 || err != nil || h.b.State(o.ID) != Undone {
		t.Errorf("%d, %v, %s", n, err, h.b.State(o.ID))
	}
	if err := h.b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("{\"id\":\"x\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(h.o); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("got %v", err)
	}
}

// TestWebhook: the task is signed, and an answer that is no success is told by its number.
func TestWebhook(t *testing.T) {
	status := 204
	var body []byte
	var sig string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ = io.ReadAll(r.Body)
		sig = r.Header.Get(SignatureHeader)
		w.WriteHeader(status)
	}))
	defer srv.Close()
	way := Way{Webhook: srv.URL, Secret: bytes.Repeat([]byte{7}, 32)}
	if err := way.Check(); err != nil {
		t.Fatal(err)
	}
	if err := way.Do(context.Background(), Task{Act: Contact, ID: "x"}); err != nil || len(sig) != 64 || !bytes.Contains(body, []byte(`"contact"`)) {
		t.Errorf("%v, %q, %s", err, sig, body)
	}
	status = 302
	if err := way.Do(context.Background(), Task{}); err == nil || !strings.Contains(err.Error(), "302") {
		t.Errorf("got %v", err)
	}
	for _, bad := range []Way{{}, {Command: []string{"x"}, Webhook: srv.URL}, {Webhook: "http://agency.example/x", Secret: way.Secret}, {Webhook: "https://user:pw@agency.example", Secret: way.Secret}, {Webhook: srv.URL}} {
		if bad.Check() == nil {
			t.Errorf("%+v passes", bad)
		}
	}
}

// FuzzOrder: what is read as an order has one form.
func FuzzOrder(f *testing.F) {
	o := Order{Act: Disable, Case: "C-1", Form: OrderForm, ID: org.String(), Nonce: base64.RawURLEncoding.EncodeToString(make([]byte, 16)), Org: org.String(), Target: string(who()), Until: "2026-01-01T00:00:00Z"}
	good, err := o.Bytes()
	if err != nil {
		f.Fatal(err)
	}
	if _, err := ParseOrder(good); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(strings.Replace(string(good), Disable, Isolate, 1)))
	f.Add([]byte(strings.Replace(string(good), "00Z", "00+01:00", 1)))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		o, err := ParseOrder(in)
		if err != nil {
			return
		}
		again, err := o.Bytes()
		if err != nil || string(again) != string(in) {
			t.Errorf("%q has another form: %q, %v", in, again, err)
		}
	})
}
