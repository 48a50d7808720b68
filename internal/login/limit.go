package login

import (
	"errors"
	"sync"
	"time"
)

// once holds values that may be taken one time, by a random text, for a while.
type once struct {
	max  int
	text func() string
	mu   sync.Mutex // guards m
	m    map[string]kept
}

type kept struct {
	v   any
	end time.Time
}

func newOnce(limit int, text func() string) *once {
	return &once{max: limit, text: text, m: map[string]kept{}}
}

func (o *once) put(v any, now time.Time, life time.Duration) (string, error) {
	text := o.text()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.m) >= o.max {
		for k, e := range o.m {
			if !now.Before(e.end) {
				delete(o.m, k)
			}
		}
	}
	if len(o.m) >= o.max {
		return "", errors.New("too many logins are under way")
	}
	o.m[digest(text)] = kept{v, now.Add(life)}
	return text, nil
}

// look returns the value and leaves it.
func (o *once) look(text string, now time.Time) (any, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	e, ok := o.m[digest(text)]
	return e.v, ok && now.Before(e.end)
}

// take returns the value and forgets it, also when its time is over.
func (o *once) take(text string, now time.Time) (any, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	k := digest(text)
	e, ok := o.m[k]
	delete(o.m, k)
	return e.v, ok && now.Before(e.end)
}

const maxLimited = 10_000

// limiter locks a key out after some failures inside a window. When the map is full,
// new keys share one entry: a flood of keys can neither grow it nor push a lock out.
type limiter struct {
	fails        int
	window, lock time.Duration
	mu           sync.Mutex // guards m
	m            map[string]*strikes
}

type strikes struct {
	n            int
	since, until time.Time
}

func newLimiter(fails int, window, lock time.Duration) *limiter {
	return &limiter{fails: fails, window: window, lock: lock, m: map[string]*strikes{}}
}

func (l *limiter) locked(key string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.m[key]
	if !ok && len(l.m) >= maxLimited {
		e = l.m[""]
	}
	return e != nil && now.Before(e.until)
}

func (l *limiter) fail(key string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.m[key]
	if e == nil && len(l.m) >= maxLimited {
		for k, x := range l.m {
			if !now.Before(x.until) && now.Sub(x.since) >= l.window {
				delete(l.m, k)
			}
		}
		if len(l.m) >= maxLimited {
			key = ""
			e = l.m[key]
		}
	}
	if e == nil {
		e = &strikes{since: now}
		l.m[key] = e
	}
	if now.Sub(e.since) >= l.window {
		e.n, e.since = 0, now
	}
	if e.n++; e.n >= l.fails {
		e.until = now.Add(l.lock)
	}
}

func (l *limiter) clear(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.m, key)
}
