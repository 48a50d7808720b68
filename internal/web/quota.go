package web

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"time"
)

// How many complaints are taken within an hour, from one address and in all.
const (
	perSource = 5
	perHour   = 200
)

// tooMany says that no more are taken for now.
type tooMany struct{ after time.Duration }

func (e *tooMany) Error() string { return "too many complaints came within this hour" }

// hourly counts what comes within an hour, by where it comes from. It keeps no address: what
// it has in memory is a digest under a key that is thrown away with the hour.
type hourly struct {
	mu    sync.Mutex // guards the rest
	since time.Time
	key   [32]byte
	seen  map[[32]byte]int
	all   int
}

// take counts one, or refuses with a *tooMany. Of an unknown address the bound of all counts.
func (h *hourly) take(from string, now time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if age := now.Sub(h.since); age < 0 || age >= time.Hour {
		h.since, h.seen, h.all = now, map[[32]byte]int{}, 0
		rand.Read(h.key[:]) // never fails
	}
	full := &tooMany{h.since.Add(time.Hour).Sub(now)}
	if h.all >= perHour {
		return full
	}
	if from != "" {
		m := hmac.New(sha256.New, h.key[:])
		m.Write([]byte(from))
		id := [32]byte(m.Sum(nil))
		if h.seen[id] >= perSource {
			return full
		}
		h.seen[id]++
	}
	h.all++
	return nil
}

// forget throws the hour away where it is over, so that nothing of it waits for the next
// complaint.
func (h *hourly) forget(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if age := now.Sub(h.since); age < 0 || age >= time.Hour {
		h.key, h.seen, h.all = [32]byte{}, nil, 0
		h.since = time.Time{}
	}
}
