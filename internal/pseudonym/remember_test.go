package pseudonym

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/counterseal/counterseal/internal/event"
)

// slow answers when it is let.
type slow struct {
	asked atomic.Int64
	let   chan error
}

func (s *slow) Token(kind event.TokenKind, canonical []byte) (event.Token, error) {
	s.asked.Add(1)
	if err := <-s.let; err != nil {
		return "", err
	}
	return event.NewToken(kind, 1, [16]byte{canonical[0]}), nil
}

// TestRememberingAsksOnce: however many want one identity at once, the other is asked once,
// and after an error again.
func TestRememberingAsksOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := &slow{let: make(chan error)}
		r := Remember(from)
		away := errors.New("away")
		for i, want := range []error{away, nil} {
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					if tok, err := r.Token(event.Person, []byte("a")); err != want || (err == nil) != event.IsToken([]byte(tok)) {
						t.Errorf("got a token %v, error %v", event.IsToken([]byte(tok)), err)
					}
				})
			}
			synctest.Wait()
			if n := from.asked.Load(); n != int64(i+1) {
				t.Fatalf("asked %d times", n)
			}
			from.let <- want
			wg.Wait()
		}
		if _, err := r.Token(event.Person, []byte("a")); err != nil || from.asked.Load() != 2 {
			t.Fatalf("asked %d times, %v", from.asked.Load(), err)
		}
	})
}

// TestRememberedIsFree: what is remembered costs no memory.
func TestRememberedIsFree(t *testing.T) {
	from := &slow{let: make(chan error, 1)}
	from.let <- nil
	r := Remember(from)
	name := []byte("a")
	if _, err := r.Token(event.Person, name); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { r.Token(event.Person, name) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
