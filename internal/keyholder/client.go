package keyholder

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/pseudonym"
)

// Dial opens a connection to an interface: a unix socket, TLS, a pipe.
type Dial func(ctx context.Context) (net.Conn, error)

// ClientOptions of a client of the ingest interface.
type ClientOptions struct {
	Dial  Dial
	Known *Identity // what the data knows its holder by; nil: whoever answers
	Epoch int       // of tokens; 0: the newest, kept over reconnections
	// Timeout bounds each call, reconnecting included; 0: 5 s.
	Timeout time.Duration
	Log     *slog.Logger // nil: none
}

// Client asks a holder for tokens. It is a pseudonym.Tokenizer with a memory, safe for
// many goroutines, which share one connection.
type Client struct {
	*pseudonym.Remembering
	o       ClientOptions
	stop    context.CancelFunc
	stopped chan struct{}

	mu      sync.Mutex
	who     Identity
	digest  [32]byte // of the directory file, as last told
	session *session // nil: none
	ready   chan struct{}
	last    error // why there is no session
}

const (
	firstWait = 20 * time.Millisecond
	longWait  = 2 * time.Second
)

// Connect waits for a first answer of the holder, at most as long as Timeout or ctx.
func Connect(ctx context.Context, o ClientOptions) (*Client, error) {
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c := &Client{o: o, stopped: make(chan struct{}), ready: make(chan struct{})}
	c.Remembering = pseudonym.Remember(asker{c})
	run, stop := context.WithCancel(context.Background())
	c.stop = stop
	go c.run(run)
	if _, err := c.connected(ctx, time.Now().Add(o.Timeout)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Close ends the connection; what is under way fails.
func (c *Client) Close() error {
	c.stop()
	<-c.stopped
	return nil
}

// Identity says whose keys answer.
func (c *Client) Identity() Identity {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.who
}

// run keeps a connection until ctx ends.
func (c *Client) run(ctx context.Context) {
	defer close(c.stopped)
	wait := firstWait
	for ctx.Err() == nil {
		s, err := c.open(ctx)
		if err == nil {
			wait = firstWait
			c.mu.Lock()
			c.session, c.last = s, nil
			close(c.ready)
			c.mu.Unlock()
			s.run(ctx, c)
			c.forget(s)
			if ctx.Err() == nil {
				c.o.Log.Warn("the key holder went away; it is asked again")
			}
		} else {
			c.mu.Lock()
			// Before a first answer Connect tells. What was said once is not said at each try.
			news := c.who.Epoch != 0 && (c.last == nil || err.Error() != c.last.Error())
			c.last = err
			c.mu.Unlock()
			if news && ctx.Err() == nil {
				c.o.Log.Warn("the key holder is not reached", "why", err)
			}
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
		case <-t.C:
		}
		wait = min(2*wait, longWait)
	}
}

// away says why nobody answers, without an address or a name of a host.
func away(err error) error {
	var at *net.OpError
	var name *net.DNSError
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &cert):
		err = errors.New("its certificate is of another host, or not of the authority that is named for it")
	case errors.As(err, &name):
		err = errors.New("its host is not found")
	case errors.As(err, &at):
		err = at.Err
	}
	return fmt.Errorf("%w: %w", ErrAway, err)
}

// greet says hello and reads the answer.
func greet(ctx context.Context, dial Dial, h hello) (net.Conn, *bufio.Reader, welcome, error) {
	none := func(c net.Conn, err error) (net.Conn, *bufio.Reader, welcome, error) {
		if c != nil {
			c.Close()
		}
		return nil, nil, welcome{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	conn, err := dial(ctx)
	if err != nil {
		return none(nil, away(err))
	}
	end := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })
	defer end()
	if _, err := conn.Write(appendFrame(nil, frame{op: opHello, body: h.encode()})); err != nil {
		return none(conn, away(err))
	}
	in := bufio.NewReaderSize(conn, 32<<10)
	f, err := readFrame(in)
	if err != nil {
		return none(conn, away(err))
	}
	if f.op == opNo {
		return none(conn, parseRefusal(f.body))
	}
	w, err := parseWelcome(f.body)
	if err != nil || f.op != opHelloOK {
		return none(conn, errFrame)
	}
	if !end() {
		return none(conn, ErrAway)
	}
	return conn, in, w, nil
}

// open makes a session with the holder that the data knows.
func (c *Client) open(ctx context.Context) (*session, error) {
	c.mu.Lock()
	who := c.who
	c.mu.Unlock()
	epoch := c.o.Epoch
	if who.Epoch != 0 {
		epoch = who.Epoch
	}
	conn, in, w, err := greet(ctx, c.o.Dial, hello{faceIngest, epoch})
	if err != nil {
		return nil, err
	}
	k := c.o.Known
	switch {
	case who.Epoch != 0 && w.Identity != who, who.Epoch == 0 && epoch != 0 && w.Epoch != epoch,
		k != nil && w.Org != k.Org, k != nil && k.Epoch == w.Epoch && k.Check != w.Check:
		conn.Close()
		return nil, ErrOther
	}
	c.mu.Lock()
	c.who, c.digest = w.Identity, w.directory
	c.mu.Unlock()
	return &session{conn: conn, in: in, out: make(chan []byte, 64), done: make(chan struct{}), wait: map[uint64]chan frame{}}, nil
}

// connected waits for a session.
func (c *Client) connected(ctx context.Context, until time.Time) (*session, error) {
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	c.mu.Lock()
	s, ready := c.session, c.ready
	c.mu.Unlock()
	if s != nil {
		return s, nil
	}
	why := func(err error) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.last != nil {
			return c.last
		}
		return err
	}
	for {
		select {
		case <-ready:
			c.mu.Lock()
			s, ready = c.session, c.ready
			c.mu.Unlock()
			if s != nil {
				return s, nil
			}
		case <-ctx.Done():
			return nil, why(ctx.Err())
		case <-c.stopped:
			return nil, ErrAway
		case <-t.C:
			return nil, why(ErrAway)
		}
	}
}

// session is one connection and what waits on it.
type session struct {
	conn net.Conn
	in   *bufio.Reader
	out  chan []byte
	done chan struct{}

	mu   sync.Mutex
	next uint64
	wait map[uint64]chan frame // nil: the session is over
}

// run moves frames until the connection ends.
func (s *session) run(ctx context.Context, c *Client) {
	stop := context.AfterFunc(ctx, func() { s.conn.Close() })
	defer stop()
	var writer sync.WaitGroup
	writer.Go(func() {
		out := bufio.NewWriterSize(s.conn, 32<<10)
		for {
			select {
			case <-s.done:
				return
			case b := <-s.out:
				s.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
				_, err := out.Write(b)
				if err == nil && len(s.out) == 0 { // what others have put there meanwhile goes along
					err = out.Flush()
				}
				if err != nil {
					s.conn.Close() // the reader ends the session
				}
			}
		}
	})
	for {
		f, err := readFrame(s.in)
		if err != nil {
			break
		}
		if f.op == opChanged {
			if len(f.body) == 32 {
				c.mu.Lock()
				c.digest = [32]byte(f.body)
				c.mu.Unlock()
			}
			continue
		}
		s.mu.Lock()
		w := s.wait[f.id]
		delete(s.wait, f.id)
		s.mu.Unlock()
		if w == nil {
			break // an answer that nobody asked for
		}
		w <- f
	}
	s.conn.Close()
	s.mu.Lock()
	s.wait = nil
	s.mu.Unlock()
	close(s.done)
	writer.Wait()
}

// call asks once on this session. ErrAway says that another one may be tried.
func (s *session) call(ctx context.Context, o op, body []byte, until <-chan time.Time) (frame, error) {
	answer := make(chan frame, 1)
	s.mu.Lock()
	if s.wait == nil {
		s.mu.Unlock()
		return frame{}, ErrAway
	}
	s.next++
	id := s.next
	s.wait[id] = answer
	s.mu.Unlock()
	b := appendFrame(make([]byte, 0, 4+frameHead+len(body)), frame{o, id, body})
	select {
	case s.out <- b:
	case <-s.done:
		return frame{}, ErrAway
	case <-ctx.Done():
		return frame{}, ctx.Err()
	case <-until:
		return frame{}, errLate
	}
	select {
	case f := <-answer:
		return f, nil
	case <-s.done:
		return frame{}, ErrAway
	case <-ctx.Done():
		return frame{}, ctx.Err()
	case <-until:
		return frame{}, errLate
	}
}

// errLate ends a call whose time is over.
var errLate = fmt.Errorf("%w in time", ErrAway)

// call asks until there is an answer or the time is over. Every request may be repeated.
func (c *Client) call(ctx context.Context, o, want op, body []byte) ([]byte, error) {
	until := time.Now().Add(c.o.Timeout)
	t := time.NewTimer(c.o.Timeout)
	defer t.Stop()
	for {
		s, err := c.connected(ctx, until)
		if err != nil {
			return nil, err
		}
		f, err := s.call(ctx, o, body, t.C)
		switch {
		case errors.Is(err, errLate):
			s.conn.Close() // what answers nothing for so long is tried anew
			return nil, err
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil:
			select {
			case <-s.done: // run replaces it
			case <-t.C:
				return nil, errLate
			}
			c.forget(s)
		case f.op == opNo:
			return nil, parseRefusal(f.body)
		case f.op != want:
			return nil, errFrame
		default:
			return f.body, nil
		}
	}
}

// forget sees to it that nobody gets a session that is over before run does.
func (c *Client) forget(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == s {
		c.session, c.last, c.ready = nil, ErrAway, make(chan struct{})
	}
}

// asker asks for one name, behind the memory.
type asker struct{ c *Client }

func (a asker) Token(kind event.TokenKind, canonical []byte) (event.Token, error) {
	t, err := a.c.ask([]Name{{kind, canonical}})
	if err != nil {
		return "", err
	}
	return t[0], nil
}

func (c *Client) ask(names []Name) ([]event.Token, error) {
	body, err := appendNames(nil, names)
	if err != nil {
		return nil, err
	}
	b, err := c.call(context.Background(), opToken, opTokens, body)
	if err != nil {
		return nil, err
	}
	return tokens(b, names, c.Identity().Epoch)
}

func tokens(b []byte, names []Name, epoch int) ([]event.Token, error) {
	bits, err := parseBits(b, len(names))
	if err != nil {
		return nil, err
	}
	out := make([]event.Token, len(names))
	for i := range out {
		out[i] = event.NewToken(names[i].Kind, epoch, bits[i])
	}
	return out, nil
}

// Tokens asks for 1 to 256 names at once, past the memory.
func (c *Client) Tokens(names []Name) ([]event.Token, error) { return c.ask(names) }

// Digest is the SHA-256 of the holder's directory file as last told; zero: none.
func (c *Client) Digest() [32]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.digest
}

// Directory gets the directory file; nil where there is none. It belongs into memory only.
func (c *Client) Directory(ctx context.Context) ([]byte, error) {
	for range 5 { // it may change under way
		var all []byte
		var digest [32]byte
		for {
			b, err := c.call(ctx, opDirectory, opChunk, binary.BigEndian.AppendUint64(nil, uint64(len(all))))
			if err != nil {
				return nil, err
			}
			k, err := parseChunk(b)
			if err != nil {
				return nil, err
			}
			if len(all) == 0 {
				digest = k.digest
			} else if k.digest != digest {
				break
			}
			all = append(all, k.bytes...)
			if uint64(len(all)) < k.total && len(k.bytes) > 0 {
				continue
			}
			if digest == [32]byte{} && len(all) == 0 {
				return nil, nil
			}
			if uint64(len(all)) != k.total || sha256.Sum256(all) != digest {
				return nil, errFrame
			}
			return all, nil
		}
	}
	return nil, errors.New("the directory of the key holder changes all the time")
}

// Stats asks for the counts.
func (c *Client) Stats(ctx context.Context) (Stats, error) {
	b, err := c.call(ctx, opStats, opCounts, nil)
	if err != nil {
		return Stats{}, err
	}
	var s Stats
	if err := json.Unmarshal(b, &s); err != nil {
		return Stats{}, errFrame
	}
	return s, nil
}

// Fetch gets the tokens that a question gave, by the id of its statement: for each name,
// in the order of the question, those of every epoch, the oldest first. They wait for
// AnswerKept and can be fetched again.
func (c *Client) Fetch(ctx context.Context, question uuid.UUID) ([]Answer, error) {
	b, err := c.call(ctx, opFetch, opFetched, question[:])
	if err != nil {
		return nil, err
	}
	return parseAnswers(b)
}

// Ask asks the question interface about names, under a capability that is then used up,
// whatever comes of it. It answers nothing: what the names gave waits for the server.
func Ask(ctx context.Context, dial Dial, capability, salt []byte, names []Spoken) error {
	body, err := ask{capability, salt, names}.encode()
	if err != nil {
		return err
	}
	conn, in, _, err := greet(ctx, dial, hello{faceQuestion, 0})
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })
	defer stop()
	if _, err := conn.Write(appendFrame(nil, frame{opAsk, 1, body})); err != nil {
		return ErrAway
	}
	f, err := readFrame(in)
	switch {
	case err != nil:
		return ErrAway
	case f.op == opNo:
		return parseRefusal(f.body)
	case f.op != opAsked || len(f.body) > 0:
		return errFrame
	}
	return nil
}
