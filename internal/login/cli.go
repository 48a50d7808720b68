package login

import (
	"crypto/rand"
	"errors"
	"net/http"
	"sync"
	"time"
)

// How a terminal logs in, after RFC 8628: it asks for two codes, a person types the short
// one into a page of a fresh session, and the terminal takes its session by the long one.
const (
	DeviceLife = 10 * time.Minute
	PollEvery  = 2 * time.Second // how often a terminal may ask

	maxDevices  = 256
	maxPerHost  = 8
	userLetters = "BCDFGHJKLMNPQRSTVWXZ" // no vowel, so no word; nothing that looks like a digit
	userLength  = 8
)

// device is a login of a terminal under way.
type device struct {
	code, user string // digest of the long code; the short code
	source     string
	end        time.Time
	polled     time.Time
	account    string // who confirmed it; empty: nobody yet
}

type devices struct {
	mu   sync.Mutex // guards list
	list []*device  // at most maxDevices
}

func newDevices() *devices { return &devices{} }

// begin makes the two codes of a login.
func (d *devices) begin(source string, now time.Time) (code, user string, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	kept, own := d.list[:0], 0
	for _, x := range d.list {
		if now.Before(x.end) {
			kept = append(kept, x)
			if x.source == source {
				own++
			}
		}
	}
	clear(d.list[len(kept):])
	d.list = kept
	if len(d.list) >= maxDevices || own >= maxPerHost {
		return "", "", false
	}
	code = random()
	for user == "" || d.user(user, now) != nil {
		user = userCode()
	}
	d.list = append(d.list, &device{code: digest(code), user: user, source: source, end: now.Add(DeviceLife)})
	return code, user, true
}

// user finds by the short code; the caller holds the lock.
func (d *devices) user(user string, now time.Time) *device {
	for _, x := range d.list {
		if x.user == user && x.account == "" && now.Before(x.end) {
			return x
		}
	}
	return nil
}

// confirm gives a login to an account, once.
func (d *devices) confirm(user, account string, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := d.user(user, now)
	if x == nil {
		return false
	}
	x.account = account
	return true
}

var errWait = errors.New("nobody has confirmed it yet")
var errSoon = errors.New("asked again too soon")

// finish takes the account that confirmed a login, and forgets the login.
func (d *devices) finish(code string, now time.Time) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := digest(code)
	for i, x := range d.list {
		if x.code != h || !now.Before(x.end) {
			continue
		}
		if x.account == "" {
			soon := now.Sub(x.polled) < PollEvery/2
			x.polled = now
			if soon {
				return "", errSoon
			}
			return "", errWait
		}
		d.list = append(d.list[:i], d.list[i+1:]...)
		return x.account, nil
	}
	return "", ErrRefused
}

// userCode is 34 bits: enough for ten minutes, since a guess needs a fresh session and
// five wrong ones lock the account out.
func userCode() string {
	out := make([]byte, 0, userLength)
	var b [1]byte
	for len(out) < userLength {
		rand.Read(b[:]) // never fails: crypto/rand ends the process instead
		if int(b[0]) < 256/len(userLetters)*len(userLetters) {
			out = append(out, userLetters[int(b[0])%len(userLetters)])
		}
	}
	return string(out)
}

// cliStart begins the login of a terminal.
func (s *Service) cliStart(w http.ResponseWriter, r *http.Request) {
	var in struct{}
	if err := body(r, &in); err != nil {
		refuse(w, http.StatusBadRequest)
		return
	}
	now, from := s.o.Now(), s.Source(r)
	busy := s.starts.locked(from, now)
	s.starts.fail(from, now)
	if !busy {
		if code, user, ok := s.devices.begin(from, now); ok {
			answer(w, map[string]any{"device_code": code, "user_code": user[:4] + "-" + user[4:], "url": s.o.Origin + "/login/cli",
				"expires_in": int(DeviceLife / time.Second), "interval": int(PollEvery / time.Second)})
			return
		}
	}
	w.Header().Set("Retry-After", "60")
	refuse(w, http.StatusTooManyRequests)
}

// cliConfirm gives the login of a terminal to the account of a fresh session of a browser.
func (s *Service) cliConfirm(w http.ResponseWriter, r *http.Request, who Who) {
	var in struct {
		Code string `json:"user_code"`
	}
	if err := body(r, &in); err != nil {
		refuse(w, http.StatusBadRequest)
		return
	}
	now := s.o.Now()
	if who.Terminal || now.Sub(who.Since) >= Fresh {
		refuseAs(w, http.StatusForbidden, notFresh)
		return
	}
	if s.persons.locked(who.Account.ID, now) || !s.devices.confirm(typed(in.Code), who.Account.ID, now) {
		s.refused(w, r, "terminal", who.Account.ID, "user-code")
		return
	}
	answer(w, map[string]any{})
}

// cliFinish gives the terminal its session once somebody has confirmed.
func (s *Service) cliFinish(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Code string `json:"device_code"`
	}
	if err := body(r, &in); err != nil {
		refuse(w, http.StatusBadRequest)
		return
	}
	now := s.o.Now()
	account, err := s.devices.finish(in.Code, now)
	switch {
	case errors.Is(err, errWait):
		w.WriteHeader(http.StatusAccepted)
		return
	case errors.Is(err, errSoon):
		w.Header().Set("Retry-After", "2")
		refuseAs(w, http.StatusTooManyRequests, "slow_down")
		return
	case err != nil:
		s.refused(w, r, "terminal", "", "device-code")
		return
	}
	a, err := s.o.Store.Account(r.Context(), account)
	if err != nil {
		refuse(w, http.StatusInternalServerError)
		return
	}
	text, err := s.enter(r, a, "terminal", true)
	switch {
	case errors.Is(err, ErrRefused):
		s.refused(w, r, "terminal", a.ID, "disabled-or-locked")
	case errors.Is(err, errUnstated):
		refuse(w, http.StatusServiceUnavailable)
	case err != nil:
		refuse(w, http.StatusInternalServerError)
	default:
		answer(w, map[string]any{"secret": text, "account": a.ID, "roles": a.Roles, "expires": now.Add(Absolute).UTC().Format(time.RFC3339)})
	}
}
