package keyholder

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/event"
)

const (
	maxConns     = 64 // of each interface: who asks does not keep ingest out
	helloTimeout = 10 * time.Second
	askTimeout   = time.Minute // until somebody asks who has said hello; ingest stays
	writeTimeout = 10 * time.Second
	fileEvery    = 2 * time.Second
)

// peer is one connection.
type peer struct {
	conn   net.Conn
	ingest bool
	mu     sync.Mutex // guards out
	out    *bufio.Writer
}

// write puts a frame into the buffer, and the buffer on the wire where last is set.
func (p *peer) write(f frame, last bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.put(f, last)
}

func (p *peer) put(f frame, last bool) error {
	if err := p.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := p.out.Write(appendFrame(nil, f)); err != nil {
		return err
	}
	if last {
		return p.out.Flush()
	}
	return nil
}

// push tells a peer something that it did not ask. One that does not read is closed by
// its own reader later.
func (p *peer) push(f frame) {
	if err := p.write(f, true); err != nil {
		p.conn.Close()
	}
}

// Ingest answers on l until ctx ends: tokens, directory file, counts, and what questions
// gave.
func (h *Holder) Ingest(ctx context.Context, l net.Listener) error {
	return h.serve(ctx, l, faceIngest)
}

// Questions answers on l until ctx ends, under capabilities: whether names may be asked, and
// what a list of disclosers is compared by.
func (h *Holder) Questions(ctx context.Context, l net.Listener) error {
	return h.serve(ctx, l, faceQuestion)
}

// Watch reads directory and officers again when they change, until ctx ends.
func (h *Holder) Watch(ctx context.Context) error {
	tick := time.NewTicker(fileEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := h.readFiles(); err != nil {
			h.log.Error("a file cannot be read; the old ones stay in force", "err", err)
		}
	}
}

func (h *Holder) serve(ctx context.Context, l net.Listener, f face) error {
	var conns sync.WaitGroup
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer conns.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				continue
			}
			return fmt.Errorf("taking connections: %w", err)
		}
		p := &peer{conn: c, ingest: f == faceIngest, out: bufio.NewWriterSize(c, 32<<10)}
		conns.Go(func() {
			done := context.AfterFunc(ctx, func() { c.Close() })
			defer done()
			defer c.Close()
			if err := h.talk(p, f); err != nil && ctx.Err() == nil {
				h.log.Warn("a connection ended", "why", reason(err))
			}
		})
	}
}

// reason is what of an error goes into the log: no address, no bytes.
func reason(err error) string {
	for _, known := range []error{errFrame, errFace, errRoom, ErrEpoch} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return "it broke"
}

// talk answers one connection, in the order of its requests.
func (h *Holder) talk(p *peer, f face) error {
	if err := p.conn.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return err
	}
	in := bufio.NewReaderSize(p.conn, 32<<10)
	first, err := readFrame(in)
	if err != nil {
		return err
	}
	no := func(id uint64, c code, err error) error {
		return errors.Join(err, p.write(frame{op: opNo, id: id, body: refusal{code: c}.encode()}, true))
	}
	hi, err := parseHello(first.body)
	if err != nil || first.op != opHello {
		return no(first.id, noFrame, errFrame)
	}
	if hi.face != f {
		return no(first.id, noFace, errFace)
	}
	who, err := h.Identity(hi.epoch)
	if err != nil {
		return no(first.id, noEpoch, err)
	}
	room, err := h.welcome(p, frame{op: opHelloOK, id: first.id}, who)
	if !room {
		return no(first.id, noRoom, errRoom)
	}
	defer func() {
		h.mu.Lock()
		delete(h.conns, p.conn)
		h.mu.Unlock()
	}()
	if err != nil {
		return err
	}
	for {
		var until time.Time
		if !p.ingest {
			until = time.Now().Add(askTimeout)
		}
		if err := p.conn.SetReadDeadline(until); err != nil {
			return err
		}
		q, err := readFrame(in)
		if err != nil {
			if errors.Is(err, errFrame) {
				return no(0, noFrame, err)
			}
			return nil // the other side went away
		}
		if f == faceQuestion && q.op == opList {
			err := h.list(q.body, func(a frame, last bool) error {
				a.id = q.id
				return p.write(a, last)
			})
			var gone broken
			switch {
			case errors.As(err, &gone):
				return err
			case err != nil:
				if werr := p.write(frame{op: opNo, id: q.id, body: refusalOf(err).encode()}, true); werr != nil {
					return werr
				}
			}
			if errors.Is(err, errFrame) {
				return err
			}
			continue
		}
		a, err := h.answer(f, who.Epoch, q)
		if err != nil {
			a = frame{op: opNo, body: refusalOf(err).encode()}
		}
		a.id = q.id
		if werr := p.write(a, in.Buffered() == 0); werr != nil {
			return werr
		}
		if errors.Is(err, errFrame) {
			return errors.Join(err, p.flush())
		}
	}
}

// welcome takes the peer in. What changes from then on it is told after its welcome.
func (h *Holder) welcome(p *peer, f frame, who Identity) (room bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := welcome{Identity: who}
	h.mu.Lock()
	same := 0
	for _, other := range h.conns {
		if other.ingest == p.ingest {
			same++
		}
	}
	if same >= maxConns {
		h.mu.Unlock()
		return false, nil
	}
	h.conns[p.conn] = p
	if p.ingest {
		w.directory = h.digest
	}
	h.mu.Unlock()
	f.body = w.encode()
	return true, p.put(f, true)
}

func (p *peer) flush() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Flush()
}

func refusalOf(err error) refusal {
	var q *QuotaError
	if errors.As(err, &q) {
		return refusal{noQuota, q.After}
	}
	for c, e := range errorOf {
		if errors.Is(err, e) {
			return refusal{code: c}
		}
	}
	return refusal{code: noCapability} // judge gives reasons that only the log has
}

func (h *Holder) answer(f face, epoch int, q frame) (frame, error) {
	switch {
	case f == faceIngest && q.op == opToken:
		names, err := parseNames(q.body)
		if err != nil {
			return frame{}, err
		}
		bits := h.bits(epoch, names)
		if err := h.quota.take(names, bits); err != nil {
			h.refused(err)
			return frame{}, err
		}
		return frame{op: opTokens, body: appendBits(nil, bits)}, nil
	case f == faceIngest && q.op == opDirectory:
		c := cursor{b: q.body}
		from := c.uint(8)
		if err := c.done(); err != nil {
			return frame{}, err
		}
		h.mu.Lock()
		all, digest := h.directory, h.digest
		h.mu.Unlock()
		if from > uint64(len(all)) {
			return frame{}, errFrame
		}
		part := all[from:]
		part = part[:min(len(part), chunkSize)]
		return frame{op: opChunk, body: chunk{uint64(len(all)), digest, part}.encode()}, nil
	case f == faceIngest && q.op == opStats && len(q.body) == 0:
		b, err := h.stats()
		return frame{op: opCounts, body: b}, err
	case f == faceIngest && q.op == opFetch:
		id, err := uuid.FromBytes(q.body)
		if err != nil {
			return frame{}, errFrame
		}
		names, err := h.questions.fetch(id)
		return frame{op: opFetched, body: appendAnswers(nil, names)}, err
	case f == faceQuestion && q.op == opAsk:
		a, err := parseAsk(q.body)
		if err != nil {
			return frame{}, err
		}
		return h.question(a)
	case q.op >= opToken && q.op <= opList:
		return frame{}, errFace
	}
	return frame{}, errFrame
}

// refused says in the holder's own log what the server may keep to itself, once a minute.
func (h *Holder) refused(err error) {
	now := h.now()
	h.mu.Lock()
	silent := now.Sub(h.said) < time.Minute && !now.Before(h.said)
	if !silent {
		h.said = now
	}
	h.mu.Unlock()
	switch {
	case silent:
	case errors.Is(err, errDisk):
		h.log.Error("counts cannot be written, so nothing is answered", "err", err)
	default:
		s := h.Stats()
		h.log.Warn("the quota of new identities is used up", "asked", s.Asked, "new", s.New, "refused", s.Refused)
	}
}

func (h *Holder) bits(epoch int, names []Name) [][16]byte {
	m := h.makers[epoch]
	out := make([][16]byte, len(names))
	for i, n := range names {
		out[i] = m.Bits(n.Kind, n.Canonical)
	}
	return out
}

// question answers whether names may be asked. Who asked learns that and nothing more: the
// tokens wait for the server.
func (h *Holder) question(a ask) (frame, error) {
	err := h.judged(a)
	if err != nil {
		h.questions.mu.Lock()
		h.questions.refused++
		h.questions.mu.Unlock()
		h.log.Warn("a question was refused", "why", err)
		return frame{}, err
	}
	h.log.Info("a question was answered", "names", len(a.names))
	return frame{op: opAsked}, nil
}

func (h *Holder) judged(a ask) error {
	h.mu.Lock()
	roster, known := h.roster, h.known
	h.mu.Unlock()
	if roster == nil || h.seen == nil {
		return ErrRoster
	}
	now := h.now()
	j := judgement{roster: roster, org: h.conf.org, now: now, seen: func(s *approval.Statement, statement []byte, seen Seen) error {
		return h.seen(s, statement, seen, now)
	}}
	s, err := j.judge(a.capability, a.salt, a.names)
	if err != nil {
		return err
	}
	names, err := identities(known, a.names)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoName, err)
	}
	answers := make([]Answer, len(names))
	for i, n := range names {
		for _, epoch := range slices.Sorted(maps.Keys(h.makers)) {
			answers[i].Tokens = append(answers[i].Tokens, event.NewToken(n.Kind, epoch, h.makers[epoch].Bits(n.Kind, n.Canonical)))
		}
	}
	return h.questions.spend(s, answers)
}
