package cases

import (
	"crypto/ed25519"
	"errors"
	"path/filepath"
	"sync"
	"testing"

	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/state"
)

type failing struct{ *statements }

func (failing) Payload(ledger.Digest) ([]byte, error) { return nil, errOther }

// TestRestartOnTheLedger does everything once on a real ledger, and opens it again: from
// the state, and from a state that was made anew.
func TestRestartOnTheLedger(t *testing.T) {
	h := newHouse(t)
	dir := t.TempDir()
	var db *state.DB
	var rec *attest.Recorder
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	start := func(states string) {
		var err error
		if db, err = state.Open(filepath.Join(dir, states)); err != nil {
			t.Fatal(err)
		}
		rec, err = attest.Open(t.Context(), attest.Options{State: db, Ledger: ledger.Options{Dir: filepath.Join(dir, "ledger"), Origin: "cases.example/log", Key: key, Node: "n1", Now: h.o.Now}})
		if err != nil {
			t.Fatal(err)
		}
		h.o.Statements = rec
		h.open()
	}
	stop := func() {
		if err := errors.Join(rec.Close(), db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	start("state")
	h.rule()
	h.finding(nil)
	h.finding(func(f *GrantFinding) { f.Subjects = subjects(nil, []string{person(9)}) })
	id := h.authorised("ines", draft(people(25)...), "olga", "pia")
	h.must(h.decide("olga", h.request("ines", draft(person(2))), false))
	h.must(h.End(t.Context(), h.as("ines"), h.request("ines", draft(person(3))), Withdrawn))
	if c := h.ask("rita", "C-7", about(person(1))); c.Kind != KindGrant {
		t.Fatalf("%+v", c)
	}
	if c := h.ask("rita", "C-7", about(person(9))); c.Code != Planted {
		t.Fatalf("%+v", c)
	}
	h.must(h.Review(t.Context(), h.as("olga"), h.glass("remo", "C-7", person(7)), Justified))
	h.glass("remo", "C-8", person(8))
	inquiry, err := h.Receive(t.Context(), h.as("pia"), Inquiry{Case: "C-7", From: "a court", Text: "what there is", Due: noon.AddDate(0, 0, 9)})
	h.must(err)
	h.must(h.Answer(t.Context(), h.as("pia"), inquiry, Partly, "some of it"))

	before := h.everything()
	for _, states := range []string{"state", "another"} {
		stop()
		start(states)
		if got := h.everything(); got != before {
			t.Fatalf("from %s:\n%s\nbefore:\n%s", states, got, before)
		}
		for _, c := range []Cover{h.ask("ines", "C-7", about(person(24))), h.ask("remo", "C-7", about(person(7))), h.ask("rita", "", about("srv-1"))} {
			if c.Code != "" {
				t.Errorf("after a restart: %+v", c)
			}
		}
		if got := h.state(id); got != Approved {
			t.Errorf("it is %s", got)
		}
	}
	stop()
}

// TestAtOnce lets many decide, break and ask at once: one decision counts, and one glass.
func TestAtOnce(t *testing.T) {
	h := incident(t)
	id := h.request("ines", draft(person(1)))
	digest := h.digest(id)
	var wg sync.WaitGroup
	errs := make(chan error, 200)
	olga, rita := h.as("olga"), h.as("rita")
	for range 20 {
		wg.Add(3) // each ends by itself; Wait is the owner
		go func() { defer wg.Done(); errs <- h.Decide(t.Context(), olga, true, id, digest, true) }()
		go func() {
			defer wg.Done()
			_, err := h.BreakGlass(t.Context(), rita, "C-7", named(person(2)))
			errs <- err
		}()
		go func() { defer wg.Done(); _, err := h.Covers(t.Context(), rita, "", about(person(1))); errs <- err }()
	}
	wg.Wait()
	close(errs)
	done := 0
	for err := range errs {
		switch code(t, err) {
		case "":
			done++
		case Settled, OneGlass:
		default:
			t.Errorf("got %v", err)
		}
	}
	if done != 22 || h.s.count("authorisation.decided") != 1 || h.s.count("glass.broken") != 1 || h.s.count("grant.opened") != 1 {
		t.Errorf("%d done", done)
	}
}

func BenchmarkCovers(b *testing.B) {
	h := newHouse(b)
	for range 50 {
		h.authorised("ines", draft(people(20)...), "olga")
	}
	ines, q := h.as("ines"), about(person(3))
	for b.Loop() {
		if c, err := h.Covers(b.Context(), ines, "C-7", q); err != nil || c.Kind != KindAuthorisation {
			b.Fatal(c, err)
		}
	}
}
