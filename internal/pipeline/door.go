package pipeline

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/pia"
)

// What the door remembers between batches. All of it is bounded and in memory
// alone: a restart begins anew, and what must last is in the event stream.

const maxStreams = 100_000

// running looks for holes in the running numbers of producers. It sees every
// record before anything is withheld, so a withheld record leaves no hole.
type running struct {
	mu   sync.Mutex
	last map[string]uint64 // by source and stream
}

// see answers with the hole before a record, if there is one. A number at or below
// the last is a late or repeated record and no hole; a counter that begins again
// at a small number (a boot, a cleared log) starts a new run.
func (r *running) see(rec *event.Record) []event.Gap {
	if rec.Running.Stream == "" {
		return nil
	}
	key := rec.Source + "\x00" + rec.Running.Stream
	n := rec.Running.N
	r.mu.Lock()
	defer r.mu.Unlock()
	last, ok := r.last[key]
	if !ok && len(r.last) >= maxStreams {
		return nil
	}
	switch {
	case !ok:
		r.last[key] = n
		return nil
	case n <= last && last-n < restartDistance:
		return nil
	}
	r.last[key] = n
	if n <= last+1 || n-last > maxHole {
		return nil
	}
	return []event.Gap{{Source: rec.Source, Stream: rec.Running.Stream, Kind: "record-number", From: last + 1, To: n - 1,
		At: time.Unix(0, rec.Received).UTC()}}
}

const (
	restartDistance = 10_000  // further back than this is another run of the counter
	maxHole         = 1 << 32 // further ahead than this is another counter
)

// sequence numbers the records of each connection.
type sequence struct {
	mu   sync.Mutex
	last map[string]uint64
}

func (s *sequence) next(conn string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.last) >= maxStreams {
		clear(s.last)
	}
	s.last[conn]++
	return s.last[conn]
}

// pending holds gaps until a card carries them. Gaps of one source travel with the
// next card of that source.
type pending struct {
	mu   sync.Mutex
	gaps map[string][]event.Gap
}

const maxPending = 10_000

func (p *pending) add(gaps []event.Gap) {
	if len(gaps) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range gaps {
		if len(p.gaps[g.Source]) < maxPending {
			p.gaps[g.Source] = append(p.gaps[g.Source], g)
		}
	}
}

func (p *pending) take(source string) []event.Gap {
	p.mu.Lock()
	defer p.mu.Unlock()
	gaps := p.gaps[source]
	delete(p.gaps, source)
	return gaps
}

func (p *pending) sources() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return sortedKeys(p.gaps)
}

// refusals counts what was refused for want of an assessment, by source and
// dataset.
type refusals struct {
	mu sync.Mutex
	n  map[[2]string]int64
}

func (r *refusals) add(source, dataset string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.n) < maxStreams {
		r.n[[2]string{source, dataset}]++
	}
}

// Refused counts what was refused at the door since the process began.
type Refused struct {
	Source  string `json:"source"`
	Dataset string `json:"dataset"`
	N       int64  `json:"n"`
}

func (r *refusals) list() []Refused {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []Refused{}
	for k, n := range r.n {
		out = append(out, Refused{Source: k[0], Dataset: k[1], N: n})
	}
	slices.SortFunc(out, func(a, b Refused) int {
		if a.Source != b.Source {
			return compareText(a.Source, b.Source)
		}
		return compareText(a.Dataset, b.Dataset)
	})
	return out
}

// keyLocks lets one request of a key be on its way at a time.
type keyLocks struct {
	mu   sync.Mutex
	held map[string]*keyLock
}

type keyLock struct {
	mu   sync.Mutex
	uses int
}

func (k *keyLocks) lock(key string) (unlock func()) {
	k.mu.Lock()
	l := k.held[key]
	if l == nil {
		l = new(keyLock)
		k.held[key] = l
	}
	l.uses++
	k.mu.Unlock()
	l.mu.Lock()
	return func() {
		l.mu.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.uses--; l.uses == 0 {
			delete(k.held, key)
		}
	}
}

// watermarks says when enough time has passed for another watermark of a source,
// and which compartments an import has touched.
type watermarks struct {
	mu      sync.Mutex
	last    map[[2]string]time.Time         // compartment, source
	imports map[string]map[string]time.Time // source, compartment: latest time of an import under way
}

// step is the least advance that is worth a record.
const step = time.Minute

func (m *watermarks) watermark(compartment, source, way string, until time.Time, lateness time.Duration, final bool) ([][]byte, error) {
	m.mu.Lock()
	w, due := m.next(compartment, source, way, until, lateness, final)
	m.mu.Unlock()
	if !due {
		return nil, nil
	}
	rec, err := event.EncodeWatermark(&w)
	if err != nil {
		return nil, err
	}
	return [][]byte{rec}, nil
}

func (m *watermarks) next(compartment, source, way string, until time.Time, lateness time.Duration, final bool) (event.Watermark, bool) {
	if way == wayImport { // files come in any order: windows close at their end
		open := m.imports[source]
		if open == nil {
			open = make(map[string]time.Time)
			m.imports[source] = open
		}
		if until.After(open[compartment]) {
			open[compartment] = until
		}
		w := event.Watermark{Source: source, Until: open[compartment].UTC(), Reason: endOfImport}
		if final {
			delete(open, compartment)
		}
		return w, final
	}
	if until.IsZero() {
		return event.Watermark{}, false
	}
	w := event.Watermark{Source: source, Until: until.Add(-lateness).UTC(), Reason: "lateness"}
	if w.Until.Sub(m.last[[2]string{compartment, source}]) < step {
		return event.Watermark{}, false
	}
	m.last[[2]string{compartment, source}] = w.Until
	return w, true
}

// rest gives the compartments of an import that have no end yet, and forgets them.
func (m *watermarks) rest(source string) map[string]time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	open := m.imports[source]
	delete(m.imports, source)
	return open
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func compareText(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// today counts what each assessment let in since midnight UTC: more than it foresaw
// is told, and nothing is lost.
type today struct {
	mu  sync.Mutex
	day int64
	n   map[string]int64
	max map[string]int64
}

func (t *today) add(rule *pia.Rule, n int64, received time.Time) {
	if rule.MaxPerDay <= 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if day := received.Unix() / 86400; day != t.day {
		t.day, t.n, t.max = day, make(map[string]int64), make(map[string]int64)
	}
	key := rule.PIA + " " + rule.Source + "/" + rule.Dataset
	t.n[key] += n
	t.max[key] = rule.MaxPerDay
}

// over lists what is beyond its bound.
func (t *today) over() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []string
	for _, key := range sortedKeys(t.n) {
		if t.n[key] > t.max[key] {
			out = append(out, fmt.Sprintf("%s: %d events today, %d were assessed", key, t.n[key], t.max[key]))
		}
	}
	return out
}

// tail knows the records that a source sent by RELP just before the process that
// received them ended. Their acknowledgements may be lost, so an equal record soon
// after the start is a possible repeat: it is kept and counted.
type tail struct {
	mu    sync.Mutex
	until time.Time
	have  map[tailKey]int
}

type tailKey struct {
	source  string
	content [32]byte
}

const (
	tailRecords = 32768 // of each compartment
	tailLife    = 15 * time.Minute
)

func (t *tail) add(e *event.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.have[tailKey{e.Source, e.Content()}]++
}

// take reports whether an equal record is in the tail, once for each.
func (t *tail) take(e *event.Event, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.have) == 0 {
		return false
	}
	if now.After(t.until) {
		clear(t.have)
		return false
	}
	k := tailKey{e.Source, e.Content()}
	n := t.have[k]
	switch {
	case n == 0:
		return false
	case n == 1:
		delete(t.have, k)
	default:
		t.have[k] = n - 1
	}
	return true
}

// noTokens is when ingest last had to wait for the maker of tokens, and why.
type noTokens struct {
	mu  sync.Mutex
	n   int64
	at  time.Time
	why error
}

func (t *noTokens) add(err error, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n, t.at, t.why = t.n+1, now, err
}

// NoTokens says how many batches had to wait for tokens since the process began, and when
// and why the last one did. The error names no identity.
func (p *Pipeline) NoTokens() (n int64, at time.Time, why error) {
	t := &p.noTokens
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n, t.at, t.why
}
