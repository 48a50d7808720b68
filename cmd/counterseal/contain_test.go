package main

import (
	"context"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/counterseal/counterseal/internal/broker"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/ledger"
)

// TestContain: two people have an account disabled of which neither learns the name; who
// broke the glass does it alone; it is given back by undo; and the ledger has all of it.
func TestContain(t *testing.T) {
	b, tasks := brokered(t)
	who := b.people()
	ask := containAsk{whom: whom{People: who[:1]}, Act: broker.Disable, Seconds: 4 * 3600}
	b.does(0, "contain.order", containAsk{whom: whom{People: []string{"alice"}}, Act: broker.Disable}, nil, 400, "by the alias")
	b.does(0, "contain.order", containAsk{whom: whom{People: who[:2]}, Act: broker.Disable}, nil, 400, "one person")
	b.does(0, "contain.order", containAsk{whom: whom{People: who[:1]}, Act: "delete-account"}, nil, 400, "no")
	b.does(colleague, "contain.order", ask, nil, 403, "")
	var r containRow
	b.does(0, "contain.order", ask, &r, 200, "")
	if r.State != "waiting" || r.Target != who[0] || tasks() != 0 {
		t.Fatalf("got %+v, %d tasks", r, tasks())
	}
	b.does(0, "contain.agree", containNamed{ID: r.ID, Digest: r.Digest}, nil, 403, "their own order")
	b.does(colleague, "contain.agree", containNamed{ID: r.ID, Digest: strings.Repeat("0", 64)}, nil, 403, "another one")
	b.does(complianceUser, "contain.agree", containNamed{ID: r.ID, Digest: r.Digest}, nil, 403, "")
	// Whoever makes accounts makes no second person: who holds no office does not agree.
	if _, err := b.s.containAgree(t.Context(), "account:u_x", []byte(`{"id":"`+r.ID+`","digest":"`+r.Digest+`"}`)); err == nil || !strings.Contains(err.Error(), "holder of an office") {
		t.Errorf("agreed without an office: %v", err)
	}
	if _, err := b.s.containUndo(t.Context(), "account:u_x", []byte(`{"id":"`+r.ID+`"}`)); err == nil || !strings.Contains(err.Error(), "holder of an office") {
		t.Errorf("taken back without an office: %v", err)
	}
	// Of another case nobody is shown whom an order is about, nor agrees to it.
	elsewhere := func(act string, body any, status int, says string) {
		t.Helper()
		code, text := b.as(colleague, "POST", "/api/v1/acts/"+act, url.Values{"case": {"C-18"}}, body)
		if code != status || !strings.Contains(text, says) || strings.Contains(text, "person-") || strings.Contains(text, "mail-") {
			t.Errorf("%s in another case: %d %s", act, code, text)
		}
	}
	elsewhere("contain.list", struct{}{}, 200, `"target":""`)
	elsewhere("contain.agree", containNamed{ID: r.ID, Digest: r.Digest}, 403, "another case")
	b.does(colleague, "contain.agree", containNamed{ID: r.ID, Digest: r.Digest}, &r, 200, "")
	if r.State != broker.Done || tasks() != 1 {
		t.Fatalf("got %+v, %d tasks", r, tasks())
	}
	b.does(colleague, "contain.agree", containNamed{ID: r.ID, Digest: r.Digest}, nil, 403, "does not wait")
	b.does(0, "contain.undo", containNamed{ID: r.ID}, &r, 200, "")
	if r.State != broker.Undone || tasks() != 2 {
		t.Fatalf("got %+v, %d tasks", r, tasks())
	}
	b.does(0, "contain.undo", containNamed{ID: r.ID}, nil, 403, "taken back already")

	// By the glass, alone.
	b.does(0, "break.glass", whom{People: who[1:2]}, nil, 200, "")
	ask.People = who[1:2]
	b.does(0, "contain.order", ask, &r, 200, "somebody else reviews")
	if r.State != broker.Done || tasks() != 3 {
		t.Fatalf("got %+v, %d tasks", r, tasks())
	}
	for _, c := range []struct {
		all  bool
		of   string
		want []string
	}{{false, who[0], nil}, {true, who[0], []string{"disable-account undone"}}, {false, who[1], []string{"disable-account done", "glass waits"}}} {
		if got := b.targetsOf(c.all, c.of); !slices.Equal(got, c.want) {
			t.Errorf("an overseer's list is compared with %q, want %q", got, c.want)
		}
	}
	var rows []containRow
	b.does(overseer, "contain.list", struct{}{}, &rows, 200, "")
	if len(rows) != 2 || rows[0].State != broker.Done || rows[1].State != broker.Undone {
		t.Errorf("got %+v", rows)
	}
	if code, text := b.as(0, "POST", "/api/v1/acts/contain.list", url.Values{"case": {"C-17"}}, struct{}{}); code != 200 || !json.Valid([]byte(text)) || strings.Contains(text, `"p1_`) || strings.Contains(text, `"m1_`) {
		t.Errorf("a token left: %s", text)
	}

	b.stop()
	told := ledgerTold(t, filepath.Join(b.dir, "data"))
	for _, want := range []string{"containment.ordered", "containment.agreed", "containment.done", `"state":"undone"`, `"grant":`} {
		if !strings.Contains(told, want) {
			t.Errorf("the ledger does not say %s", want)
		}
	}
	if strings.Contains(told, "agency.example") {
		t.Error("the ledger has a name")
	}
}

// brokered is a bureau with a broker whose command counts what it is asked.
func brokered(t *testing.T) (b *bureau, tasks func() int) {
	t.Helper()
	b = openBureau(t, layBroker(t))
	return b, b.broker(10)
}

// layBroker lays a configuration with a broker.
func layBroker(t *testing.T) func(dir string) {
	return func(dir string) {
		text := "data: data\npias: [pias]\nhttp: off\nreserve: 16MiB\nmemory: 64MiB\noffices: offices.yaml\nown_rules: false\nrules: [rules]\nbroker: {socket: b.sock}\n"
		if err := os.WriteFile(filepath.Join(dir, configName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestContainWitnessed: a broker that believes a witness gets the order when the witness has
// seen it, and not before.
func TestContainWitnessed(t *testing.T) {
	b := openBureau(t, layBroker(t))
	b.stop()
	s := &shell{t, b.dir}
	_, vkey, lines, _ := s.witness(s.at("data"))
	watched(t, s, lines)
	b.open()
	tasks := b.broker(10, ledger.Witness{VKey: vkey, Group: "others"})
	who := b.people()
	b.does(0, "break.glass", whom{People: who[:1]}, nil, 200, "")
	var r containRow
	b.does(0, "contain.order", containAsk{whom: whom{People: who[:1]}, Act: broker.Disable, Seconds: 3600}, &r, 200, "")
	if r.State != broker.Done || tasks() != 1 {
		t.Errorf("got %+v, %d tasks", r, tasks())
	}
	b.does(0, "contain.undo", containNamed{ID: r.ID}, &r, 200, "")
	if r.State != broker.Undone || tasks() != 2 {
		t.Errorf("got %+v, %d tasks", r, tasks())
	}
}

// broker runs a broker at b.sock that writes down its tasks, and counts them.
func (b *bureau) broker(notices int, witnesses ...ledger.Witness) (tasks func() int) {
	t := b.t
	t.Helper()
	out := filepath.Join(b.dir, "out")
	way := broker.Way{Command: []string{"/bin/sh", "-c", `cat >> "$0"; echo >> "$0"`, out}}
	vkey, err := os.ReadFile(filepath.Join(b.dir, "data", "ledger", "log.vkey"))
	if err != nil {
		t.Fatal(err)
	}
	br, err := broker.Open(broker.Options{
		Dir: filepath.Join(b.dir, "broker"), Org: b.s.pipe.Org().String(), Ledger: ledger.Verifiers{Log: []string{strings.TrimSpace(string(vkey))}, Witnesses: witnesses, Threshold: len(witnesses)}, MaxDay: 10, MaxAlone: 5, MaxNotices: notices,
		Resolve: func(tok event.Token) (broker.Account, bool) {
			return broker.Account{Mails: []string{"x@agency.example"}}, true
		},
		Do: way.Do, Can: func(string) bool { return true }, Now: b.now, Log: newLog(os.Stderr, false),
	})
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(b.dir, "b.sock")
	l, err := broker.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	if !b.s.hasBroker() { // the configuration of the test names none
		b.s.broker = &broker.Client{Dial: atSocket(socket)}
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- br.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := br.Close(); err != nil {
			t.Error(err)
		}
	})
	return func() int {
		raw, _ := os.ReadFile(out)
		return strings.Count(string(raw), "\n")
	}
}
