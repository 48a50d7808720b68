package broker

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/event"
)

func (h *house) does(a Asked, want string) {
	h.t.Helper()
	if state, err := h.b.Do(h.t.Context(), a); err != nil || state != want {
		h.t.Fatalf("got %q, %v; want %s", state, err, want)
	}
}

func (h *house) undo(o *Order) *Order {
	u := *o
	u.ID, u.Undoes, u.Until = uuid.NewString(), o.ID, ""
	return &u
}

// TestAnotherOrderHolds: what one order took is not given back while another one holds it
// too, neither at the end of the first nor by its undo; so nobody ends what two people
// ordered by a short order of their own.
func TestAnotherOrderHolds(t *testing.T) {
	h := newHouse(t)
	long, short, third := h.order(Disable), h.order(Disable), h.order(Disable)
	long.Until = h.now.Add(24 * time.Hour).Format(time.RFC3339)
	short.Until = h.now.Add(time.Minute).Format(time.RFC3339)
	third.Until, third.Target = h.now.Add(time.Hour).Format(time.RFC3339), string(laptop()) // the same account by another token
	h.does(h.by(long, "", "os:1", "os:2"), Done)
	h.does(h.by(short, "f-1", "os:3"), Done)
	h.does(h.by(third, "f-1", "os:3"), Done)
	h.now = h.now.Add(2 * time.Minute)
	if n, err := h.b.Expire(t.Context()); n != 1 || err != nil || h.b.State(short.ID) != Undone {
		t.Fatalf("%d, %v, %s", n, err, h.b.State(short.ID))
	}
	h.does(h.by(h.undo(third), "", "os:3"), Undone)
	if got := h.tasks(); len(got) != 3 {
		t.Fatalf("the account was given back while two people's order holds it: %+v", got)
	}
	h.now = h.now.Add(24 * time.Hour)
	if n, err := h.b.Expire(t.Context()); n != 1 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	if got := h.tasks(); len(got) != 4 || !got[3].Undo {
		t.Fatalf("the last one does not give it back: %+v", got)
	}
}

// TestUndoIsNotUndone: what took an order back is no order that could be taken back.
func TestUndoIsNotUndone(t *testing.T) {
	h := newHouse(t)
	o := h.order(Disable)
	h.does(h.by(o, "", "os:1", "os:2"), Done)
	u := h.undo(o)
	h.does(h.by(u, "", "os:1"), Undone)
	h.refused(h.by(h.undo(u), "", "os:1"), "no such order")
}

// TestEndsAreNotOrders: an order counts on the day that it was done, not again when it ends,
// also after a restart.
func TestEndsAreNotOrders(t *testing.T) {
	h := newHouse(t)
	for range h.o.MaxDay {
		h.does(h.by(h.order(Disable), "", "os:1", "os:2"), Done)
		h.now = h.now.Add(time.Second)
	}
	h.refused(h.by(h.order(Sessions), "", "os:1", "os:2"), "as much today")
	h.now = h.now.Add(23*time.Hour + 59*time.Minute)
	if n, err := h.b.Expire(t.Context()); n != h.o.MaxDay || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	h.now = h.now.Add(2 * time.Minute)
	if err := h.b.Close(); err != nil {
		t.Fatal(err)
	}
	h.open()
	h.does(h.by(h.order(Sessions), "", "os:1", "os:2"), Done)
}

// TestNoticesAreCounted: a server that sends notices is bounded by the broker too.
func TestNoticesAreCounted(t *testing.T) {
	h := newHouse(t)
	for range h.o.MaxNotices {
		h.does(h.by(h.order(Notify), "", "os:4"), Done)
	}
	h.refused(h.by(h.order(Notify), "", "os:4"), "as many notices today")
	h.does(h.by(h.order(Sessions), "", "os:1", "os:2"), Done) // they count apart
	h.now = h.now.Add(24 * time.Hour)
	h.does(h.by(h.order(Notify), "", "os:4"), Done)
}

// TestFailingEndsWait: an end that fails is tried less and less often, and never keeps
// another order waiting for more than one command.
func TestFailingEndsWait(t *testing.T) {
	h := newHouse(t)
	o := h.order(Disable)
	h.does(h.by(o, "", "os:1", "os:2"), Done)
	tried := 0
	h.b.o.Do = func(context.Context, Task) error { tried++; return errors.New("exit code 1") }
	h.now = h.now.Add(5 * time.Hour)
	for range 6 * 60 { // an hour, every 10 seconds
		if _, err := h.b.Expire(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.now = h.now.Add(10 * time.Second)
	}
	if tried < 8 || tried > 20 {
		t.Errorf("tried %d times in an hour", tried)
	}
	h.b.o.Do = func(context.Context, Task) error { return nil }
	h.now = h.now.Add(maxRetry)
	if n, err := h.b.Expire(t.Context()); n != 1 || err != nil || h.b.State(o.ID) != Undone {
		t.Errorf("%d, %v, %s", n, err, h.b.State(o.ID))
	}
}

// TestOneMachine: a token of a machine isolates that one and tells no name; where a machine
// is that of several people, no account stands for it.
func TestOneMachine(t *testing.T) {
	h := newHouse(t)
	shared, two := event.NewToken(event.Device, 1, [16]byte{3}), event.NewToken(event.Person, 1, [16]byte{4})
	h.b.o.Resolve = func(tok event.Token) (Account, bool) {
		a := Account{Names: []string{"alice"}, Mails: []string{alice}, Devices: []string{"ONE"}}
		switch tok {
		case laptop():
		case shared:
			a = Account{Devices: []string{"KIOSK"}}
		case two:
			a.Devices = []string{"ONE", "TWO"}
		default:
			return Account{}, false
		}
		return a, true
	}
	at := func(act string, target event.Token) Asked {
		o := h.order(act)
		o.Target = string(target)
		return h.by(o, "", "os:1", "os:2")
	}
	h.does(at(Isolate, laptop()), Done)
	h.does(at(Isolate, shared), Done)
	h.does(at(Disable, laptop()), Done)
	got := h.tasks()
	if len(got) != 3 || len(got[0].Account.Names)+len(got[0].Account.Mails) > 0 || got[0].Account.Devices[0] != "ONE" || got[1].Account.Devices[0] != "KIOSK" || got[2].Account.Mails[0] != alice {
		t.Errorf("got %+v", got)
	}
	h.refused(at(Isolate, two), "more than one")
	h.refused(at(Disable, shared), "more than one")
	h.refused(at(Sessions, shared), "more than one")
}
