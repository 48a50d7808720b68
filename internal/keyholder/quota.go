package keyholder

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/event"
)

// Limits bound how many new identities ingest may ask for. What the holder has answered
// since it started is not new; the holder cannot tell more, since it stores no name.
// Burst is how many a day may go beyond minute and hour, for a start with cold memories.
type Limits struct {
	Minute int `yaml:"minute"`
	Hour   int `yaml:"hour"`
	Day    int `yaml:"day"`
	Burst  int `yaml:"burst"`
}

// Quota are the limits of names (people, mail, devices) and of addresses, which a scan
// from outside makes in numbers that tell of nobody; and of names in questions, by day UTC.
type Quota struct {
	Names     Limits `yaml:"names"`
	Addresses Limits `yaml:"addresses"`
	Questions int    `yaml:"questions"`
	// Lists is how many questions about lists of disclosers are answered in ListWindow.
	Lists int `yaml:"lists"`
}

// DefaultQuota takes a first start of an organisation of about 700 people at once
// (docs/operations.md has the count), and not a directory of 10,000 names.
func DefaultQuota() Quota {
	return Quota{
		Names:     Limits{Minute: 500, Hour: 5_000, Day: 50_000, Burst: 4_000},
		Addresses: Limits{Minute: 5_000, Hour: 50_000, Day: 500_000, Burst: 20_000},
		Questions: 100,
		Lists:     2,
	}
}

func (l Limits) check(where string) error {
	if l.Minute < 1 || l.Hour < l.Minute || l.Day < l.Hour || l.Burst < 0 || l.Day > 1e9 || l.Burst > 1e9 {
		return fmt.Errorf("%s: minute, hour and day are numbers from 1 to 1,000,000,000, none below the one before; burst may be 0", where)
	}
	return nil
}

// classes of identities that are counted apart.
const (
	classNames = iota
	classAddresses
	classes
)

var classWords = [classes]string{"names", "addresses"}

func classOf(k event.TokenKind) int {
	if k == event.Address {
		return classAddresses
	}
	return classNames
}

const (
	seenRoom    = 1 << 18 // of each of two generations
	reserved    = 256     // counts that are written down before they are used
	countsLimit = 64 << 10
)

var windowLengths = [...]time.Duration{time.Minute, time.Hour, 24 * time.Hour}
var windowWords = [...]string{"minute", "hour", "day"}

type window struct {
	from time.Time
	n    int
}

// used is what a class has used.
type used struct {
	windows [len(windowLengths)]window
	burst   int // of this day
}

// quota counts. It writes its counts down ahead, so that a crash gives nothing back.
type quota struct {
	path   string
	limits [classes]Limits
	now    func() time.Time

	mu         sync.Mutex
	used       [classes]used
	written    [classes]used // what the file says
	young, old map[uint64]struct{}

	asked, fresh, refused int64
	lastRefused           time.Time
}

// countsForm is counts.json: minute, hour and day by class.
type countsForm struct {
	Classes []classForm `json:"classes"`
	V       int         `json:"v"`
}

type classForm struct {
	Burst int    `json:"burst"`
	Class string `json:"class"`
	Day   string `json:"day"`
	DayN  int    `json:"day_n"`
	Hour  string `json:"hour"`
	HourN int    `json:"hour_n"`
	// Of the minute too: whoever starts the holder anew gets no other one.
	Minute  string `json:"minute"`
	MinuteN int    `json:"minute_n"`
}

func openQuota(dir string, q Quota, now func() time.Time) (*quota, error) {
	u := &quota{path: filepath.Join(dir, "counts.json"), now: now, limits: [classes]Limits{q.Names, q.Addresses}}
	b, err := os.ReadFile(u.path)
	if errors.Is(err, fs.ErrNotExist) {
		return u, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the counts: %w", err)
	}
	var f countsForm
	if err := approval.DecodeUpTo(countsLimit, b, &f); err != nil || f.V != 1 || len(f.Classes) != classes {
		return nil, fmt.Errorf("%s is damaged: remove it, and the counts of today begin anew", u.path)
	}
	for i, c := range f.Classes {
		hour, err := time.Parse(time.RFC3339, c.Hour)
		day, derr := time.Parse(time.RFC3339, c.Day)
		minute, merr := time.Parse(time.RFC3339, c.Minute)
		if c.Class != classWords[i] || err != nil || derr != nil || merr != nil || c.DayN < 0 || c.HourN < 0 || c.MinuteN < 0 || c.Burst < 0 {
			return nil, fmt.Errorf("%s is damaged: remove it, and the counts of today begin anew", u.path)
		}
		u.used[i].windows[0] = window{minute, c.MinuteN}
		u.used[i].windows[1] = window{hour, c.HourN}
		u.used[i].windows[2] = window{day, c.DayN}
		u.used[i].burst = c.Burst
		u.written[i] = u.used[i]
	}
	return u, nil
}

// roll begins the windows that time has begun. A clock that was put back begins them as
// well: one that ran ahead once must not lock ingest out until then.
func (u *used) roll(now time.Time) {
	for i := range u.windows {
		from := now.Truncate(windowLengths[i])
		if w := &u.windows[i]; !from.Equal(w.from) {
			*w = window{from: from}
			if i == len(windowLengths)-1 {
				u.burst = 0
			}
		}
	}
}

// take counts a batch of the same length of kinds and bits, all or nothing.
func (q *quota) take(names []Name, bits [][16]byte) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now().UTC()
	q.asked += int64(len(names))
	var new [classes]int
	var keys []uint64
	var batch map[uint64]bool
	if len(names) > 1 {
		batch = make(map[uint64]bool, len(names))
	}
	for i := range names {
		k := binary.BigEndian.Uint64(bits[i][:]) ^ uint64(names[i].Kind)
		if q.has(k) || batch[k] {
			continue
		}
		if batch != nil {
			batch[k] = true
		}
		keys = append(keys, k)
		new[classOf(names[i].Kind)]++
	}
	if len(keys) == 0 {
		return nil
	}
	next := q.used
	for c, n := range new {
		if n == 0 {
			continue
		}
		next[c].roll(now)
		if after, ok := next[c].add(n, q.limits[c], now); !ok {
			q.refused += int64(len(names))
			q.lastRefused = now
			return &QuotaError{After: after}
		}
	}
	if err := q.reserve(&next, false); err != nil {
		return err
	}
	q.used = next
	q.fresh += int64(len(keys))
	for _, k := range keys {
		q.put(k)
	}
	return nil
}

// add counts n where they fit, and else says when they may.
func (u *used) add(n int, l Limits, now time.Time) (after time.Duration, ok bool) {
	limits := [...]int{l.Minute, l.Hour, l.Day}
	over := 0
	for i := range limits {
		u.windows[i].n += n
		more := u.windows[i].n - limits[i]
		if more <= 0 {
			continue
		}
		if after = windowLengths[i] - now.Sub(u.windows[i].from); i == 2 {
			return after, false
		}
		over = max(over, min(more, n))
	}
	if u.burst += over; u.burst > l.Burst {
		return after, false
	}
	return 0, true
}

// covers reports whether a file that says w is enough for what is used by u.
func (w *used) covers(u *used) bool {
	for i := range u.windows {
		if n := u.windows[i]; n.n > 0 && (!n.from.Equal(w.windows[i].from) || n.n > w.windows[i].n) {
			return false
		}
	}
	return u.burst == 0 || u.burst <= w.burst && u.windows[2].from.Equal(w.windows[2].from)
}

// reserve writes counts down that are ahead of what is used, where the file has less.
func (q *quota) reserve(next *[classes]used, exact bool) error {
	enough := !exact
	ahead := *next
	for c := range ahead {
		enough = enough && q.written[c].covers(&next[c])
		if exact {
			continue
		}
		for i := range ahead[c].windows {
			if ahead[c].windows[i].n > 0 {
				ahead[c].windows[i].n += reserved
			}
		}
		if ahead[c].burst > 0 {
			ahead[c].burst += reserved
		}
	}
	if enough {
		return nil
	}
	f := countsForm{V: 1}
	for c, w := range ahead {
		f.Classes = append(f.Classes, classForm{Burst: w.burst, Class: classWords[c], Day: w.windows[2].from.Format(time.RFC3339), DayN: w.windows[2].n,
			Hour: w.windows[1].from.Format(time.RFC3339), HourN: w.windows[1].n, Minute: w.windows[0].from.Format(time.RFC3339), MinuteN: w.windows[0].n})
	}
	b, err := approval.Canonical(f)
	if err != nil {
		return err
	}
	var d durable.FS
	if err := d.WriteFile(q.path, b, 0o600); err != nil {
		return fmt.Errorf("%w: %w", errDisk, err)
	}
	q.written = ahead
	return nil
}

func (q *quota) has(k uint64) bool {
	if _, ok := q.young[k]; ok {
		return true
	}
	if _, ok := q.old[k]; ok {
		q.put(k)
		return true
	}
	return false
}

func (q *quota) put(k uint64) {
	if q.young == nil || len(q.young) >= seenRoom {
		q.young, q.old = make(map[uint64]struct{}), q.young
	}
	q.young[k] = struct{}{}
}

// close writes the exact counts.
func (q *quota) close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.used == [classes]used{} {
		return nil
	}
	return q.reserve(&q.used, true)
}

// Window is what one class has used of one window.
type Window struct {
	Class  string `json:"class"`  // names, addresses
	From   string `json:"from"`   // RFC 3339, UTC
	Limit  int    `json:"limit"`  //
	Used   int    `json:"used"`   //
	Window string `json:"window"` // minute, hour, day, burst
}

func (q *quota) windows() []Window {
	now := q.now().UTC()
	var out []Window
	for c := range q.used {
		u := q.used[c]
		u.roll(now)
		l := q.limits[c]
		for i, limit := range [...]int{l.Minute, l.Hour, l.Day} {
			out = append(out, Window{classWords[c], u.windows[i].from.Format(time.RFC3339), limit, u.windows[i].n, windowWords[i]})
		}
		out = append(out, Window{classWords[c], u.windows[2].from.Format(time.RFC3339), l.Burst, u.burst, "burst"})
	}
	return out
}
