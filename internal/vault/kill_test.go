package vault

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"

	"github.com/counterseal/counterseal/internal/event"
)

const (
	killDir   = "COUNTERSEAL_VAULT_KILL_DIR"
	killPlace = "COUNTERSEAL_VAULT_KILL_PLACE"
)

// TestKillErasing kills a process at each step of erasing. The next one does what was stated,
// once, and nothing else.
func TestKillErasing(t *testing.T) {
	if dir := os.Getenv(killDir); dir != "" {
		eraseAndDie(t, dir, os.Getenv(killPlace))
	}
	for _, place := range []string{"begin", "erasing", "erased", "none"} {
		h := newHouse(t)
		h.seals("hr", now, "alice", "bob")
		h.closes()
		places := h.placesOf("bob")
		if err := h.v.Close(); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestKillErasing$")
		cmd.Env = append(os.Environ(), killDir+"="+h.dir, killPlace+"="+place)
		var died *exec.ExitError
		if out, err := cmd.CombinedOutput(); !errors.As(err, &died) || died.ExitCode() >= 0 {
			t.Fatalf("%s: it was not killed: %v\n%s", place, err, out)
		}
		stated := StatedErasure{ID: "one", Places: places}
		if r := h.check(h.known(stated)); len(r.Findings) > 0 {
			t.Errorf("%s: before the next start: %v", place, r.Findings)
		}
		h.open()
		if done, err := h.v.Done(t.Context()); err != nil || done["one"] != (place == "none") {
			t.Errorf("%s: %v %v", place, done, err)
		}
		if _, err := h.v.Erase(t.Context(), "one", places); err != nil {
			t.Fatal(place, err)
		}
		if r := h.check(h.known(stated)); len(r.Findings)+len(r.Notes) > 0 || r.Erased != 1 || r.Rows != 1 {
			t.Errorf("%s: %+v", place, r)
		}
		h.opens("alice")
	}
}

// eraseAndDie erases the row of bob in a process of its own, and ends it at a place.
func eraseAndDie(t *testing.T, dir, place string) {
	die := func() {
		p, err := os.FindProcess(os.Getpid())
		if err == nil {
			err = p.Kill()
		}
		if err != nil {
			t.Fatal(err)
		}
		select {} // until it is dead
	}
	v, err := Open(t.Context(), Options{Dir: dir, State: func(context.Context, Window) error { return nil }, Fault: func(at string) error {
		if at == place {
			die()
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	places, err := v.Places(t.Context(), []event.Token{tokenOf("bob")})
	if err != nil || len(places) != 1 {
		t.Fatal(places, err)
	}
	if place == "begin" {
		die()
	}
	if _, err := v.Erase(t.Context(), "one", places); err != nil {
		t.Fatal(err)
	}
	die()
}
