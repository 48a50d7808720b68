package ledger

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/counterseal/counterseal/internal/durable"
)

// Alarm is something that a person must look at.
type Alarm struct {
	Kind    string
	What    string
	Witness string // its name, where one is concerned
	Size    uint64 // of the log then
	Time    time.Time
}

// The kinds of alarms.
const (
	AlarmFork      = "ledger.fork"        // a witness has seen another history
	AlarmRollback  = "ledger.rollback"    // a witness has seen more than the log has
	AlarmWitness   = "ledger.witness"     // a witness refused or answered nonsense
	AlarmClock     = "ledger.clock"       // a witness and we disagree on the time
	AlarmUnwitness = "ledger.unwitnessed" // too few witnesses answer
	AlarmGap       = "ledger.gap"         // a number of this node is missing
	AlarmDouble    = "ledger.double"      // one id, two contents
	AlarmOutbox    = "ledger.outbox"      // the outbox is damaged
	AlarmDisk      = "ledger.disk"        // the log cannot be written
)

const (
	maxAlarms  = 256
	alarmAgain = 10 * time.Minute // the same alarm is quiet for so long
	maxSkew    = 5 * time.Minute
	maxAnswer  = 64 << 10
	backoffMin = 100 * time.Millisecond
	backoffMax = 5 * time.Second
	// usualLag is how long a statement may lack its cosignatures in good health.
	usualLag = 3 * time.Second
)

// alarm keeps an alarm and tells the caller of Open. The same one again within ten
// minutes is dropped.
func (l *Ledger) alarm(a Alarm) {
	a.Time = l.o.Now().UTC()
	key := a.Kind + "\x00" + a.Witness + "\x00" + a.What
	l.mu.Lock()
	a.Size = uint64(l.size)
	old, again := l.raised[key]
	if again && a.Time.Sub(old).Abs() < alarmAgain {
		l.mu.Unlock()
		return
	}
	if len(l.raised) >= maxAlarms {
		clear(l.raised)
	}
	l.raised[key] = a.Time
	l.alarms = append(l.alarms, a)
	if len(l.alarms) > maxAlarms {
		l.alarms = l.alarms[1:]
	}
	l.mu.Unlock()
	l.log.Error("ledger alarm", "kind", a.Kind, "what", a.What, "witness", a.Witness)
	if l.o.OnAlarm != nil {
		l.o.OnAlarm(a)
	}
}

// Alarms are the alarms since Open, oldest first.
func (l *Ledger) Alarms() []Alarm {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Alarm(nil), l.alarms...)
}

// witnessClient asks one witness.
type witnessClient struct {
	cosigner
	url  string
	http *http.Client
	mu   sync.Mutex // held for one question: a slow witness is not asked twice at once
	old  int64      // the size that it cosigned last, as far as we know; guarded by mu
	said string     // why it did not cosign the last time, empty where it did; guarded by mu
}

func newWitnessClients(o Options, t *trust) ([]*witnessClient, error) {
	client := o.Client
	if client == nil {
		client = &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}
	}
	// A witness that moves is a change of configuration, not a redirect.
	own := *client
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	var out []*witnessClient
	for i, w := range o.Witnesses {
		u, err := url.Parse(w.URL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("witness %d: the URL is not one of http or https", i+1)
		}
		out = append(out, &witnessClient{cosigner: t.witnesses[i], url: u.JoinPath("add-checkpoint").String(), http: &own})
	}
	return out, nil
}

// Receipt is where a critical statement stands and who has seen it.
type Receipt struct {
	Index        uint64
	Checkpoint   []byte // with its cosignatures
	Cosignatures []Cosignature
}

// AddWitnessed appends a statement and waits until it stands under a checkpoint
// with enough cosignatures, each verified here. On ErrUnwitnessed the statement
// stands in the log, Index is right, and the act must not be done.
func (l *Ledger) AddWitnessed(ctx context.Context, s Statement) (Receipt, error) {
	i, err := l.Add(ctx, s)
	if err != nil {
		return Receipt{}, err
	}
	r := Receipt{Index: i}
	if l.trust.threshold == 0 {
		return r, fmt.Errorf("%w: no witness is configured", ErrUnwitnessed)
	}
	ctx, cancel := context.WithTimeout(ctx, l.o.WitnessDeadline)
	defer cancel()
	l.mu.Lock()
	l.waiting++
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.waiting--
		l.mu.Unlock()
	}()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	if err := l.until(ctx, func() bool { return uint64(l.witnessed.size) > i }); err != nil {
		return r, fmt.Errorf("%w: statement %d: %w", ErrUnwitnessed, i, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r.Checkpoint, r.Cosignatures = l.witnessed.raw, l.witnessed.cosig
	return r, nil
}

// Witnessed is the size that enough witnesses have cosigned, and when the last of
// them that counted did, by its own clock.
func (l *Ledger) Witnessed() (size uint64, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return uint64(l.witnessed.size), l.witnessed.at
}

// sinceCache is the time of the first statement that no witness has seen.
type sinceCache struct {
	index int64
	at    time.Time
}

// UnwitnessedSince is the time of the oldest statement without enough
// cosignatures, if it has lacked them for longer than is usual.
func (l *Ledger) UnwitnessedSince() (time.Time, bool) {
	l.mu.Lock()
	size, index, c := l.size, l.witnessed.size, l.covered
	l.mu.Unlock()
	if index >= size {
		return time.Time{}, false
	}
	if c.index != index || c.at.IsZero() {
		raw, err := l.files.entry(size, index)
		if err != nil {
			return time.Time{}, true // unreadable is not witnessed
		}
		s, err := Parse(raw)
		if err != nil {
			return time.Time{}, true
		}
		c = sinceCache{index, s.Time}
		l.mu.Lock()
		l.covered = c
		l.mu.Unlock()
	}
	if l.trust.threshold > 0 && l.o.Now().Sub(c.at) < usualLag {
		return time.Time{}, false
	}
	return c.at, true
}

// witnessLoop keeps the witnessed checkpoint close to the published one.
func (l *Ledger) witnessLoop(ctx context.Context) {
	if l.trust.threshold == 0 {
		return
	}
	wait := backoffMin
	lastRound := time.Time{}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		case <-timer.C:
		}
		l.mu.Lock()
		behind, have := l.witnessed.size < l.size, l.witnessed.size
		l.mu.Unlock()
		pause := l.o.Heartbeat
		if behind {
			pause = 10 * time.Millisecond // the next checkpoint is near
		}
		o, err := l.published()
		switch {
		case err != nil:
			// A new log has none for a moment; a broken one is an alarm.
			if !errors.Is(err, os.ErrNotExist) {
				l.alarm(Alarm{Kind: AlarmDisk, What: "the checkpoint of the log does not verify"})
				pause = time.Second
			}
		case o.size > have, o.size > 0 && time.Since(lastRound) >= l.o.Heartbeat:
			lastRound = time.Now()
			if err := l.round(ctx, o); err != nil {
				if ctx.Err() != nil {
					return
				}
				l.alarm(Alarm{Kind: AlarmUnwitness, What: "too few witnesses cosign"})
				pause = wait
				if wait = min(2*wait, backoffMax); l.isWaiting() {
					pause = min(pause, 4*backoffMin)
				}
				// A wake now would shorten the wait to nothing.
				select {
				case <-ctx.Done():
					return
				case <-time.After(pause):
				}
				pause = 0
			} else {
				wait = backoffMin
			}
		}
		timer.Reset(pause)
	}
}

func (l *Ledger) isWaiting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting > 0
}

// round asks every witness for one checkpoint and keeps it when enough answered.
func (l *Ledger) round(ctx context.Context, o opened) error {
	type answer struct {
		sig []byte
		err error
	}
	// Answers that come too late to count still bring a witness up to date.
	answers := make(chan answer, len(l.clients))
	asked := 0
	for _, w := range l.clients {
		if !w.mu.TryLock() {
			continue
		}
		asked++
		l.rest.Go(func() {
			defer w.mu.Unlock()
			qctx, cancel := context.WithTimeout(ctx, l.o.WitnessTimeout)
			defer cancel()
			sig, err := l.ask(qctx, w, o)
			why := ""
			if err != nil {
				why = err.Error()
			}
			if why != "" && why != w.said { // it is asked again and again: once is enough
				l.log.Warn("a witness did not cosign; asked again", "witness", w.Name(), "error", err)
			}
			w.said = why
			answers <- answer{sig, err}
		})
	}
	// Cosignatures of an earlier round over the same bytes are not reused: a
	// heartbeat asks for fresh times.
	raw := bytes.Clone(o.raw)
	var errs []error
	for range asked {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case a := <-answers:
			if a.err != nil {
				errs = append(errs, a.err)
				continue
			}
			raw = append(raw, a.sig...)
			got, err := l.trust.open(raw)
			if err != nil {
				return err // each signature was verified on its own
			}
			if !l.trust.witnessed(got) {
				continue
			}
			if err := l.o.FS.WriteFile(filepath.Join(l.o.Dir, witnessedName), raw, 0o644); err != nil {
				return fmt.Errorf("keeping the cosignatures: %w", err)
			}
			l.mu.Lock()
			l.witnessed = got
			l.broadcast()
			l.mu.Unlock()
			return nil
		}
	}
	return errors.Join(append(errs, ErrUnwitnessed)...)
}

// ask gets the cosignature line of one witness and verifies it. The caller holds
// the client's lock.
func (l *Ledger) ask(ctx context.Context, w *witnessClient, o opened) ([]byte, error) {
	if w.old > o.size {
		w.old = o.size
	}
	for range 4 {
		var body bytes.Buffer
		fmt.Fprintf(&body, "old %d\n", w.old)
		if w.old > 0 && w.old < o.size {
			p, err := tlog.ProveTree(o.size, w.old, l.files.hashes(o.tree))
			if err != nil {
				return nil, fmt.Errorf("proving that the log has grown: %w", err)
			}
			for _, h := range p {
				fmt.Fprintf(&body, "%s\n", base64.StdEncoding.EncodeToString(h[:]))
			}
		}
		body.WriteByte('\n')
		body.Write(o.raw)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(body.Bytes()))
		if err != nil {
			return nil, err
		}
		resp, err := w.http.Do(req)
		if err != nil {
			return nil, fmt.Errorf("asking: %w", err)
		}
		got, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		resp.Body.Close()
		if err != nil {
			return nil, fmt.Errorf("reading the answer: %w", err)
		}
		switch {
		case resp.StatusCode == http.StatusOK:
			sig, err := l.accept(w, o, got)
			if err != nil {
				l.incident(Alarm{Kind: AlarmWitness, Witness: w.Name(), What: "it answered without a valid cosignature"}, body.Bytes(), resp.Status, got)
				return nil, err
			}
			w.old = o.size
			return sig, nil
		case resp.StatusCode == http.StatusConflict && resp.Header.Get("Content-Type") == sizeType:
			size, err := parseSize(strings.TrimSuffix(string(got), "\n"))
			if err != nil {
				l.alarm(Alarm{Kind: AlarmWitness, Witness: w.Name(), What: "it answered with a size that is none"})
				return nil, errors.New("a size that is none")
			}
			if size > o.size {
				l.incident(Alarm{Kind: AlarmRollback, Witness: w.Name(),
					What: "it has cosigned more than the log holds: the log was rolled back"}, body.Bytes(), resp.Status, got)
				return nil, errors.New("the witness has seen more than the log holds")
			}
			if size == w.old {
				return nil, errors.New("the witness contradicts itself about its size")
			}
			w.old = size
		case resp.StatusCode == http.StatusConflict, resp.StatusCode == http.StatusUnprocessableEntity:
			l.incident(Alarm{Kind: AlarmFork, Witness: w.Name(),
				What: "it has seen another history of this log (" + strconv.Itoa(resp.StatusCode) + ")"}, body.Bytes(), resp.Status, got)
			return nil, errors.New("the witness has seen another history")
		case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusForbidden:
			l.alarm(Alarm{Kind: AlarmWitness, Witness: w.Name(), What: "it does not know this log or its key (" + strconv.Itoa(resp.StatusCode) + ")"})
			return nil, errors.New("the witness does not know this log or its key")
		default:
			return nil, fmt.Errorf("the witness answered %d", resp.StatusCode)
		}
	}
	return nil, errors.New("the witness names another size each time")
}

// accept takes from an answer the line of this witness that verifies.
func (l *Ledger) accept(w *witnessClient, o opened, answer []byte) ([]byte, error) {
	var own []byte
	for line := range bytes.Lines(answer) {
		if bytes.HasPrefix(line, []byte("— "+w.Name()+" ")) && bytes.HasSuffix(line, []byte("\n")) && own == nil {
			own = line
		}
	}
	got, err := l.trust.open(append(bytes.Clone(o.raw), own...))
	if err != nil || len(got.cosig) != 1 || got.cosig[0].Witness != w.Name() {
		return nil, errors.New("no valid cosignature in the answer")
	}
	if d := l.o.Now().Sub(got.cosig[0].Time).Abs(); d > maxSkew {
		// What it has seen is as true as before; only one of the clocks is wrong.
		l.alarm(Alarm{Kind: AlarmClock, Witness: w.Name(), What: "its clock and ours differ by more than 5 minutes"})
	}
	return own, nil
}

// incident keeps what was asked and answered, then raises the alarm: a fork is
// proven by these bytes.
func (l *Ledger) incident(a Alarm, asked []byte, status string, answered []byte) {
	if err := keepIncident(l.o.FS, filepath.Join(l.o.Dir, incidentDir), a.Kind+"-"+a.Witness, asked, status, answered); err != nil {
		l.log.Error("keeping the evidence of an alarm", "error", err)
	}
	l.alarm(a)
}

const maxIncidents = 256

// keepIncident writes request and answer of one incident, once per content, and no
// more than maxIncidents.
func keepIncident(fs durable.FS, dir, name string, asked []byte, status string, answered []byte) error {
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	des, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(des) >= maxIncidents {
		return fmt.Errorf("%s is full: look at it", dir)
	}
	doc := fmt.Appendf(nil, "%s\n%s\n%s\n%s", asked, status, strings.Repeat("-", 8), answered)
	sum := tlog.RecordHash(doc)
	safe := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '_'
	}, name)
	err = fs.WriteNew(filepath.Join(dir, fmt.Sprintf("%.100s-%x.txt", safe, sum[:8])), doc, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}

// incidentHolds compares a kept incident with the digest in its name.
func incidentHolds(name string, doc []byte) bool {
	sum := tlog.RecordHash(doc)
	return strings.HasSuffix(name, fmt.Sprintf("-%x.txt", sum[:8]))
}
