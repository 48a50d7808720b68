// Package broker does four things to an account or a machine without anybody learning
// whose it is: contact, disable the account, revoke its sessions, isolate the host; and a
// fifth, it tells somebody that they were looked at. It
// owns orders, who may stand for them, and the journal of what was done
// (docs/formats/broker.md).
//
// It promises: nothing is done before the ledger proves, under the keys and witnesses that
// the broker itself was given, that two different people asked for exactly this, or one
// whom an incident grant had opened the person to, a notice apart; an order is done at most once; what
// lasts is undone at its time, also after a restart, but not while another order holds the
// same account or machine; it does no more in a day than its own configuration says,
// whatever the server asks; no name is in an answer, the journal, an argument of a command
// or a log.
//
// It leaves to others who may ask (policy), whether the grant is real (cases, and the
// review afterwards), and what the configured command does.
package broker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/ledger"
)

// Account is whom an act is about, as the command that does it is told on its standard
// input.
type Account struct {
	Names   []string `json:"names,omitempty"`
	Mails   []string `json:"mails,omitempty"`
	SIDs    []string `json:"sids,omitempty"`
	Devices []string `json:"devices,omitempty"`
	Host    string   `json:"host,omitempty"`
}

// Task is what a command or a webhook gets.
type Task struct {
	Act     string  `json:"act"`
	Account Account `json:"account"`
	ID      string  `json:"id"` // of the order
	Undo    bool    `json:"undo"`
	Until   string  `json:"until,omitempty"`
}

// Options of a Broker.
type Options struct {
	Dir string // of the journal, of one process
	Org string // whose orders it takes
	// Ledger is what it believes: the keys of the log and of the witnesses.
	Ledger ledger.Verifiers
	// Resolve finds whom a token stands for. It is the only place where that is known.
	Resolve func(event.Token) (Account, bool)
	// Do does a task, and gives an error that names nobody.
	Do func(context.Context, Task) error
	// Can reports whether an act is configured.
	Can func(act string) bool
	// MaxDay is how many orders are done in 24 hours; MaxAlone how many of them on the
	// word of one person, by a grant; MaxNotices how many notices, which count apart.
	MaxDay, MaxAlone, MaxNotices int
	Now                          func() time.Time
	Log                          *slog.Logger
}

// Refusal says why an order is not done, in words that name nobody.
type Refusal struct{ Reason, Hint string }

func (r *Refusal) Error() string { return r.Reason }

// The states of an order.
const (
	Begun  = "begun"  // the command was started; after a crash nobody knows whether it ended
	Done   = "done"   // it answered well
	Failed = "failed" // it answered otherwise
	Undone = "undone" // taken back, by somebody or by the clock
)

// entry is a line of the journal.
type entry struct {
	Act    string `json:"act"`
	Alone  bool   `json:"alone,omitempty"`
	At     string `json:"at"`
	ID     string `json:"id"`
	State  string `json:"state"`
	Target string `json:"target"`
	Undoes string `json:"undoes,omitempty"`
	Until  string `json:"until,omitempty"`
}

// Broker does orders. It is safe for concurrent use; one order is done at a time.
type Broker struct {
	o    Options
	lock *durable.Locked
	mu   sync.Mutex // guards what follows
	f    *os.File
	last map[string]entry  // by id, the newest line
	took map[string]string // by id, when it was taken: at of the first line
	late map[string]retry  // by id, ends that failed
}

// retry is when an end that failed is tried again, and how long after that.
type retry struct {
	next time.Time
	wait time.Duration
}

// How long an end that failed waits, at first and at most.
const (
	minRetry = 10 * time.Second
	maxRetry = 10 * time.Minute
)

const journalName = "journal.ndjson"

// Open takes the folder for this process and reads the journal. A torn last line is cut off; any other line that is not of the
// form is an error that names it.
func Open(o Options) (opened *Broker, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := o.Ledger.Check(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(o.Dir, journalName)
	b := &Broker{o: o, last: map[string]entry{}, took: map[string]string{}, late: map[string]retry{}}
	if b.lock, err = durable.Lock(o.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.lock.Release())
		}
	}()
	raw, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	whole := bytes.LastIndexByte(raw, '\n') + 1
	lines := bufio.NewScanner(bytes.NewReader(raw[:whole]))
	for n := 1; lines.Scan(); n++ {
		var e entry
		dec := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&e); err != nil || e.ID == "" || !slices.Contains([]string{Begun, Done, Failed, Undone}, e.State) {
			return nil, fmt.Errorf("%s: line %d is not one of a journal", journalName, n)
		}
		b.keep(e)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", journalName, err)
	}
	if b.f, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return nil, err
	}
	var disk durable.FS
	if err := errors.Join(b.f.Truncate(int64(whole)), disk.SyncDir(o.Dir)); err != nil {
		return nil, errors.Join(err, b.f.Close())
	}
	return b, nil
}

// Close gives the journal back.
func (b *Broker) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return errors.Join(b.f.Close(), b.lock.Release())
}

// write puts a line into the journal, durably.
func (b *Broker) write(e entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if _, err := b.f.Write(append(line, '\n')); err != nil {
		return err
	}
	if err := b.f.Sync(); err != nil {
		return err
	}
	b.keep(e)
	return nil
}

func (b *Broker) keep(e entry) {
	b.last[e.ID] = e
	if _, there := b.took[e.ID]; !there {
		b.took[e.ID] = e.At
	}
}

// Do does an order, once. It answers with the state that it left it in.
func (b *Broker) Do(ctx context.Context, a Asked) (state string, err error) {
	o, err := ParseOrder(a.Order)
	if err != nil {
		return "", &Refusal{err.Error(), "the server that sends orders and this broker are of different versions"}
	}
	now := b.o.Now()
	at, alone, err := a.stands(o, b.o.Ledger)
	switch {
	case errors.Is(err, ledger.ErrUnwitnessed):
		return "", &Refusal{err.Error(), "ask again when a witness answers: counterseal doctor; broker.yaml names those that the broker believes"}
	case err != nil:
		return "", &Refusal{err.Error(), "somebody else agrees: counterseal contain agree"}
	case o.Org != b.o.Org:
		return "", &Refusal{"it comes from another server", "the configuration of the broker names whose orders it takes"}
	case at.Before(now.Add(-Fresh)) || at.After(now.Add(Fresh)):
		return "", &Refusal{"its statement is not of the last 15 minutes", "ask again, and look at the clocks"}
	case !b.o.Can(o.Act):
		return "", &Refusal{"the broker has no command for " + o.Act, "its configuration names one for each act"}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, there := b.last[o.ID]; there {
		return "", &Refusal{"this order was taken before", "ask again: each order is done once"}
	}
	e := entry{Act: o.Act, Alone: alone && o.Undoes == "" && o.Act != Notify, ID: o.ID, Target: o.Target, Undoes: o.Undoes, Until: o.Until}
	if o.Undoes != "" {
		old, there := b.last[o.Undoes]
		switch {
		case !there || old.Act != o.Act || old.Target != o.Target || old.Undoes != "":
			return "", &Refusal{"there is no such order to take back", "counterseal contain list"}
		case old.State == Undone:
			return "", &Refusal{"it is taken back already", ""}
		}
		return b.run(ctx, e, &old)
	}
	until, err := o.until()
	switch {
	case lasts(o.Act) && (err != nil || !until.After(now) || until.After(now.Add(MaxUntil))):
		return "", &Refusal{"its end is not within the next 14 days", "name another end"}
	}
	if err := b.room(e, now); err != nil {
		return "", err
	}
	return b.run(ctx, e, nil)
}

// room refuses what is more than the broker does in a day.
func (b *Broker) room(e entry, now time.Time) error {
	day, lone, notices := 0, 0, 0
	for id, old := range b.last {
		at, err := time.Parse(time.RFC3339, b.took[id])
		switch {
		case old.Undoes != "" || err == nil && now.Sub(at) >= 24*time.Hour:
		case old.Act == Notify:
			notices++
		default:
			day++
			if old.Alone {
				lone++
			}
		}
	}
	switch {
	case e.Act == Notify && notices >= b.o.MaxNotices:
		return &Refusal{"the broker has sent as many notices today as its configuration allows", "send the others tomorrow; or who runs the broker looks at why, and raises max_notices"}
	case e.Act == Notify:
	case day >= b.o.MaxDay:
		return &Refusal{"the broker has done as much today as its configuration allows", "who runs the broker looks at why, and raises max_day"}
	case e.Alone && lone >= b.o.MaxAlone:
		return &Refusal{"one person alone has had as much done today as the configuration of the broker allows", "a second person agrees: counterseal contain agree"}
	}
	return nil
}

// held reports that another order goes on that took the same from the same account or
// machine. It then stays as it is: the last one gives it back.
func (b *Broker) held(e *entry, now time.Time) bool {
	for id, x := range b.last {
		until, err := time.Parse(time.RFC3339, x.Until)
		if id != e.ID && x.Act == e.Act && x.Undoes == "" && (x.State == Begun || x.State == Done) && err == nil && until.After(now) && b.same(e.Act, x.Target, e.Target) {
			return true
		}
	}
	return false
}

// same reports two targets that are one: a person has a token in each epoch, and devices.
func (b *Broker) same(act, x, y string) bool {
	if x == y {
		return true
	}
	a, ok := b.account(act, x)
	c, too := b.account(act, y)
	if act == Isolate {
		return ok && too && a.Host == c.Host && slices.Equal(a.Devices, c.Devices)
	}
	return ok && too && slices.Equal(a.Names, c.Names) && slices.Equal(a.Mails, c.Mails) && slices.Equal(a.SIDs, c.SIDs)
}

// account finds whom an act is about. To isolate it, one machine and no name; for the other
// acts somebody's account, which a device that several people have does not stand for.
func (b *Broker) account(act, target string) (Account, bool) {
	if !event.IsToken([]byte(target)) {
		return Account{Host: target}, true
	}
	a, ok := b.o.Resolve(event.Token(target))
	if act == Isolate {
		return Account{Devices: a.Devices}, ok && len(a.Devices) == 1
	}
	return a, ok && len(a.Names)+len(a.Mails)+len(a.SIDs) > 0
}

// run does one act between two lines of the journal.
func (b *Broker) run(ctx context.Context, e entry, undoes *entry) (string, error) {
	t := Task{Act: e.Act, ID: e.ID, Undo: undoes != nil, Until: e.Until}
	var ok bool
	if t.Account, ok = b.account(e.Act, e.Target); !ok {
		return "", &Refusal{"the directory of the broker does not know whom it is about, or more than one", "name the person, or the one machine; else somebody with the directory looks: a name is opened by two offices only"}
	}
	if e.Act == Notify { // nothing is ever given back: the journal needs not say whom it is about
		e.Target = ""
	}
	e.At, e.State = b.o.Now().UTC().Format(time.RFC3339), Begun
	if err := b.write(e); err != nil {
		return "", err
	}
	if undoes != nil && b.held(undoes, b.o.Now()) {
		b.o.Log.Info("taken back, and another order holds it still", "id", undoes.ID, "act", e.Act)
	} else if err := b.o.Do(ctx, t); err != nil {
		e.State = Failed
		if werr := b.write(e); werr != nil {
			return "", werr
		}
		b.o.Log.Warn("an act failed", "id", e.ID, "act", e.Act, "undo", t.Undo, "err", err)
		return Failed, &Refusal{"the command of the broker failed: " + err.Error(), "who runs the broker finds the order in its journal"}
	}
	e.State = Done
	if err := b.write(e); err != nil {
		return "", err
	}
	if undoes != nil {
		undoes.State, undoes.At = Undone, e.At
		if err := b.write(*undoes); err != nil {
			return "", err
		}
		return Undone, nil
	}
	return Done, nil
}

// State tells where an order stands, "" where there is none.
func (b *Broker) State(id string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last[id].State
}

// Expire takes back what has come to its end, and says how many orders it tried. One that
// fails is tried again, after 10 seconds at first and after 10 minutes at most; between two
// commands other orders have their turn.
func (b *Broker) Expire(ctx context.Context) (tried int, err error) {
	for _, id := range b.ended() {
		if err := b.expire(ctx, id); err != nil {
			return tried, err
		}
		tried++
	}
	return tried, nil
}

// over reports an order that has come to its end and is not given back.
func over(e *entry, now time.Time) bool {
	until, err := time.Parse(time.RFC3339, e.Until)
	return e.Until != "" && e.Undoes == "" && e.State != Undone && err == nil && !until.After(now)
}

// ended names the orders whose end is to be tried now.
func (b *Broker) ended() (ids []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.o.Now()
	for id, e := range b.last {
		if over(&e, now) && !b.late[id].next.After(now) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// expire takes one order back. An error is one of the journal.
func (b *Broker) expire(ctx context.Context, id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, e := b.o.Now(), b.last[id]
	if !over(&e, now) { // somebody took it back by now
		return nil
	}
	again := func(what string, args ...any) error {
		wait := min(max(2*b.late[id].wait, minRetry), maxRetry)
		b.late[id] = retry{now.Add(wait), wait}
		b.o.Log.Error(what, append([]any{"id", id, "act", e.Act}, args...)...)
		return nil
	}
	if b.held(&e, now) {
		b.o.Log.Info("at its end, and another order holds it still", "id", id, "act", e.Act)
	} else {
		t := Task{Act: e.Act, ID: e.ID, Undo: true}
		var ok bool
		if t.Account, ok = b.account(e.Act, e.Target); !ok {
			return again("nobody knows whom to give an account back to")
		}
		if err := b.o.Do(ctx, t); err != nil {
			return again("an act cannot be taken back at its end", "err", err)
		}
	}
	e.State, e.At = Undone, now.UTC().Format(time.RFC3339)
	delete(b.late, id)
	return b.write(e)
}
