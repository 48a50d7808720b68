package keyholder

import (
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/officer"
)

// ordered is an order of two officers, and what a test changes of it.
type ordered struct {
	d         Destruction
	ask       approval.Ask
	by        []string
	decisions []approval.Decision
	seen      bool
	at        time.Time
}

func order(t testing.TB, keys map[string]*officer.Key, d Destruction, change func(*ordered)) []byte {
	t.Helper()
	o := &ordered{d: d, by: []string{"O. Versight", "I. Vestigator"}, decisions: []approval.Decision{approval.Approve, approval.Approve}, seen: true, at: noon,
		ask: approval.Ask{Action: DestroyAction, Case: "P-1", Purpose: "its records are gone", Requester: "Head of Privacy", Org: org, Grant: 24 * time.Hour}}
	if change != nil {
		change(o)
	}
	if o.ask.Objects == nil {
		o.ask.Objects = o.d.Objects()
	}
	_, statement, err := approval.New(o.ask, o.at)
	if err != nil {
		t.Fatal(err)
	}
	var signed []approval.Signed
	for i, name := range o.by {
		s, err := keys[name].Sign(o.decisions[i], statement)
		if err != nil {
			t.Fatal(err)
		}
		signed = append(signed, s)
	}
	seen := Seen{Proof: "proof", V: 1}
	if digest := approval.Digest(statement); o.seen {
		seen.Leaf = hex.EncodeToString(digest[:])
	}
	b, err := Capability(statement, signed, seen)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestDestroy: the key of an old epoch is destroyed under the word of two offices that
// witnesses have seen, and under nothing less; then no name is tested against its tokens.
func TestDestroy(t *testing.T) {
	keys, roster := offices(t)
	pass := func() ([]byte, error) { return []byte("correct horse battery staple"), nil }
	secret, _ := pass()
	for _, sealed := range []bool{false, true} {
		o := Options{Now: func() time.Time { return noon }, Ledger: invented}
		s := Setup{Officers: roster, Ledger: inventedLedger, FirstEpoch: 4}
		if sealed {
			o.Passphrase, s.Passphrase = pass, secret
		}
		b := newBench(t, s)
		for range 2 {
			if _, err := Rotate(b.dir, noon, o.Passphrase); err != nil {
				t.Fatal(err)
			}
		}
		h, err := Open(b.dir, o)
		if err != nil {
			t.Fatal(err)
		}
		who, err := h.Identity(5)
		if err != nil {
			t.Fatal(err)
		}
		alice := Name{event.Person, []byte("alice")}
		old, kept := h.bits(5, []Name{alice})[0], h.bits(4, []Name{alice})[0]
		newest, err := h.Identity(6)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		d := Destruction{Epoch: 5, Check: who.Check}
		good := order(t, keys, d, nil)
		ring := filepath.Join(b.dir, "keys", "keyring")
		before, err := os.ReadFile(ring)
		if err != nil {
			t.Fatal(err)
		}
		refused := map[string]struct {
			order []byte
			epoch int
			says  string
		}{
			"another epoch meant": {good, 4, "another epoch"},
			"altered":             {append([]byte("{"), good...), 5, "capability"},
			"one officer":         {order(t, keys, d, func(o *ordered) { o.by = o.by[:1] }), 5, "two decisions"},
			"one office":          {order(t, keys, d, func(o *ordered) { o.by[1] = "O. Spare" }), 5, "another office"},
			"a refusal":           {order(t, keys, d, func(o *ordered) { o.decisions[1] = approval.Refuse }), 5, "capability"},
			"who asked":           {order(t, keys, d, func(o *ordered) { o.ask.Requester = "i. vestigator" }), 5, "does not decide"},
			"unseen":              {order(t, keys, d, func(o *ordered) { o.seen = false }), 5, "witnesses"},
			"another action":      {order(t, keys, d, func(o *ordered) { o.ask.Action = Action }), 5, "another action"},
			"other objects":       {order(t, keys, d, func(o *ordered) { o.ask.Objects = []string{"epoch 5"} }), 5, "another action"},
			"another house":       {order(t, keys, d, func(o *ordered) { o.ask.Org[0]++ }), 5, "organisation"},
			"too late":            {order(t, keys, d, func(o *ordered) { o.at = noon.Add(-25 * time.Hour) }), 5, "expired"},
			"another key":         {order(t, keys, Destruction{Epoch: 5, Check: newest.Check}, nil), 5, "another key"},
			"the newest":          {order(t, keys, Destruction{Epoch: 6, Check: newest.Check}, nil), 6, "begin another epoch"},
			"no epoch":            {order(t, keys, Destruction{Epoch: 7}, nil), 7, "epoch"},
		}
		if sealed { // each try opens the keys anew, which is slow
			refused = nil
		}
		for name, bad := range refused {
			if err := Destroy(b.dir, bad.epoch, bad.order, o); err == nil || !strings.Contains(err.Error(), bad.says) {
				t.Errorf("%s: %v", name, err)
			}
		}
		blind := o
		blind.Ledger = nil
		if err := Destroy(b.dir, 5, good, blind); !errors.Is(err, ErrRoster) {
			t.Errorf("without the keys of the ledger: %v", err)
		}
		if after, err := os.ReadFile(ring); err != nil || string(after) != string(before) {
			t.Fatal("what was refused changed the keys", err)
		}
		// Another name of the same bytes: they are overwritten, and not only unlinked.
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Link(ring, link); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := Destroy(b.dir, 5, good, o); err != nil {
				t.Fatal(err)
			}
		}
		if left, err := os.ReadFile(link); err != nil || strings.Trim(string(left), "\x00") != "" {
			t.Error("the bytes of before are there", err)
		}
		if h, err = Open(b.dir, o); err != nil {
			t.Fatal(err)
		}
		if st := h.Stats(); len(st.Destroyed) != 1 || st.Destroyed[0] != (Destroyed{5, noon.Format(time.RFC3339)}) || st.Epoch != 6 {
			t.Errorf("%+v", st)
		}
		if _, err := h.Identity(5); !errors.Is(err, ErrEpoch) {
			t.Errorf("the epoch is answered: %v", err)
		}
		if got := h.bits(4, []Name{alice})[0]; got != kept {
			t.Error("another epoch makes other tokens")
		}
		for epoch := range h.makers {
			if h.bits(epoch, []Name{alice})[0] == old {
				t.Error("the name gives the token")
			}
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		if n, err := Rotate(b.dir, noon, o.Passphrase); n != 7 || err != nil {
			t.Error(n, err)
		}
		k, err := keyring.Load(ring, o.Passphrase)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.MACKeyAt(2, keyPurpose); err == nil {
			t.Error("the key is derived")
		}
		if err := k.Destroy(b.dir, 4, noon, o.Passphrase); err == nil {
			t.Error("the newest is destroyed")
		}
	}
}

// FuzzDestruction: a statement about a key has one form.
func FuzzDestruction(f *testing.F) {
	d := Destruction{Epoch: 5, Check: [16]byte{1}}
	for _, kept := range []bool{false, true} {
		d.Kept = kept
		o := d.Objects()
		f.Add(o[0], o[1], o[2])
	}
	f.Add("epoch 05", "check 01", "records")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		got, err := ParseDestruction(&approval.Statement{Action: DestroyAction, Objects: []string{a, b, c}})
		if err != nil {
			return
		}
		if o := got.Objects(); o[0] != a || o[1] != b || o[2] != c {
			t.Errorf("%q %q %q", a, b, c)
		}
	})
}
