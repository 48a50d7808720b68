package collect

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/counterseal/counterseal/internal/event"
)

// Bounds of RELP. A transaction number and a length have at most nine digits, a
// command at most 32 letters, says the protocol.
const (
	relpDigits   = 9
	relpCommand  = 32
	relpOpenMax  = 4 << 10          // data of an open
	relpSkipMax  = 64 << 20         // a message longer than this ends the session
	relpRemember = 1024             // sealed lines of a session that may come again; rsyslog has 128 under way
	relpPeers    = 256              // senders whose broken session is remembered
	relpEarly    = 15 * time.Minute // after a start a sender may come back from a session with the process before
)

// RELP is the listener for the Reliable Event Logging Protocol. A `syslog` command
// is answered 200 only after its line is durable evidence, so nothing acknowledged
// is missing. A session that breaks leaves lines that were sealed and whose answer
// the sender may not have read; it sends those again. Such lines are known by their
// digest and go to the sink with Frame.Repeat set: nothing is thrown away, since
// two equal lines may both be true. A sender can be back before we see that its old
// session broke, so every other session of the sender that has not said close counts
// as broken here. Digests are kept in memory alone: a line may be one that is
// withheld later. So after a crash of this process only lines that come twice in one
// session are marked here.
//
// A line that the sink refuses by itself (event.LineError) is answered 200 too: it
// is counted in evidence, and any other answer would make the sender repeat it for
// ever. A batch that the sink refuses as a whole is answered 500 and the session
// ends, so the sender keeps its lines.
type RELP struct {
	*server
	started time.Time

	rmu     sync.Mutex // guards the rest, and what each session sealed
	live    map[netip.Addr][]*relpSession
	broken  map[netip.Addr]*brokenLines
	ordered []netip.Addr // of broken, oldest first
}

type lineDigest [16]byte

// brokenLines is what the broken sessions of a sender sealed.
type brokenLines struct {
	lines map[lineDigest]int
	since int // lines of the sender since then
}

func digestLine(b []byte) lineDigest {
	s := sha256.Sum256(b)
	return lineDigest(s[:16])
}

// ListenRELP opens the listener. With Options.TLS it speaks TLS 1.3.
func ListenRELP(addr string, o Options) (*RELP, error) {
	s, err := listen(addr, WayRELP, o)
	if err != nil {
		return nil, err
	}
	return &RELP{server: s, started: s.o.Now(), live: make(map[netip.Addr][]*relpSession), broken: make(map[netip.Addr]*brokenLines)}, nil
}

// Run serves until ctx ends. Each session then answers what it has sealed and says
// serverclose.
func (r *RELP) Run(ctx context.Context) error {
	return r.run(ctx, r.serve, func(c net.Conn) { c.SetReadDeadline(time.Unix(1, 0)) })
}

// errRELP is wrapped by every error about what a client wrote.
var errRELP = errors.New("not RELP")

// relpFrame is one command of a client.
type relpFrame struct {
	txnr    uint32
	command string
	data    []byte // valid until the next feed
	large   bool   // the data were over the bound and were skipped
}

// relpReader finds commands in a byte stream:
//
//	txnr SP command SP length [SP data] LF
type relpReader struct {
	max  int
	buf  []byte
	pos  int
	skip int // data octets of an oversized command still to come
	late relpFrame
}

func (r *relpReader) feed(p []byte) {
	if r.pos > 0 {
		r.buf = append(r.buf[:0], r.buf[r.pos:]...)
		r.pos = 0
	}
	r.buf = append(r.buf, p...)
}

func (r *relpReader) partial() bool { return r.pos < len(r.buf) || r.skip > 0 }

// next returns the next whole command; ok is false where more bytes are needed.
func (r *relpReader) next() (f relpFrame, ok bool, err error) {
	if r.skip > 0 {
		n := min(r.skip-1, len(r.buf)-r.pos) // the last octet is the line feed
		r.pos += n
		r.skip -= n
		if r.skip > 1 || r.pos == len(r.buf) {
			return relpFrame{}, false, nil
		}
		if r.buf[r.pos] != '\n' {
			return relpFrame{}, false, fmt.Errorf("%w: no line feed behind the data", errRELP)
		}
		r.pos++
		r.skip = 0
		return r.late, true, nil
	}
	b := r.buf[r.pos:]
	txnr, i, err := relpNumber(b, "transaction number")
	if err != nil || i == 0 {
		return relpFrame{}, false, err
	}
	if b[i] != ' ' {
		return relpFrame{}, false, fmt.Errorf("%w: no space behind the transaction number", errRELP)
	}
	j := i + 1
	for j < len(b) && isLetter(b[j]) {
		j++
		if j-i-1 > relpCommand {
			return relpFrame{}, false, fmt.Errorf("%w: a command of more than %d letters", errRELP, relpCommand)
		}
	}
	if j == len(b) {
		return relpFrame{}, false, nil
	}
	if j == i+1 || b[j] != ' ' {
		return relpFrame{}, false, fmt.Errorf("%w: no command", errRELP)
	}
	n, k, err := relpNumber(b[j+1:], "length")
	if err != nil || k == 0 {
		return relpFrame{}, false, err
	}
	at := j + 1 + k
	f = relpFrame{txnr: txnr, command: string(b[i+1 : j])}
	if n == 0 {
		// Some senders put a space here as well.
		if b[at] == ' ' {
			if at++; at == len(b) {
				return relpFrame{}, false, nil
			}
		}
		if b[at] != '\n' {
			return relpFrame{}, false, fmt.Errorf("%w: data behind a length of 0", errRELP)
		}
		r.pos += at + 1
		return f, true, nil
	}
	if b[at] != ' ' {
		return relpFrame{}, false, fmt.Errorf("%w: no space behind the length", errRELP)
	}
	at++
	limit := r.max
	if f.command == "open" {
		limit = relpOpenMax
	}
	if int(n) > limit {
		if f.command != "syslog" || n > relpSkipMax {
			return relpFrame{}, false, fmt.Errorf("%w: %s with %d bytes of data", errRELP, f.command, n)
		}
		f.large = true
		r.late = f
		r.pos += at
		r.skip = int(n) + 1
		return r.next()
	}
	end := at + int(n)
	if end >= len(b) {
		return relpFrame{}, false, nil
	}
	if b[end] != '\n' {
		return relpFrame{}, false, fmt.Errorf("%w: no line feed behind the data", errRELP)
	}
	f.data = b[at:end]
	r.pos += end + 1
	return f, true, nil
}

// relpNumber reads digits; end is 0 where b ends before the number does.
func relpNumber(b []byte, what string) (n uint32, end int, err error) {
	for i, c := range b {
		if c < '0' || c > '9' {
			if i == 0 {
				return 0, 0, fmt.Errorf("%w: no %s", errRELP, what)
			}
			return n, i, nil
		}
		if i == relpDigits {
			return 0, 0, fmt.Errorf("%w: a %s of more than %d digits", errRELP, what, relpDigits)
		}
		n = n*10 + uint32(c-'0')
	}
	return 0, 0, nil
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// relpSession adds to a session what RELP needs.
type relpSession struct {
	*session
	open  bool
	clean bool // the client said close
	again bool // a session of the sender may have broken before this one; guarded by RELP.rmu
	out   []byte

	// The lines that were sealed last and may come again, guarded by RELP.rmu.
	sealedLines map[lineDigest]int
	ring        []lineDigest // of the same, to forget the oldest
	at          int
}

func (r *RELP) serve(ctx context.Context, s *session) {
	rs := &relpSession{session: s, sealedLines: make(map[lineDigest]int)}
	r.enter(rs)
	err := r.read(ctx, rs)
	r.leave(rs)
	if rs.clean || !rs.open && s.sealed == 0 && err == nil || errors.Is(err, errStopped) {
		return
	}
	r.c.breaks.Add(1)
	why := "closed without a close command"
	if err != nil {
		why = err.Error()
	}
	r.o.Log.Warn("relp session broke", "conn", s.id, "source", s.source, "sealed", s.sealed, "why", why)
}

func (r *RELP) read(ctx context.Context, s *relpSession) error {
	rd := relpReader{max: r.o.MaxMessage}
	buf := make([]byte, 64<<10)
	progressed := false
	for {
		if err := r.o.deadline(s.session, rd.partial() || !s.open, progressed); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return r.goodbye(s, errStopped)
		}
		n, err := s.conn.Read(buf)
		rd.feed(buf[:n])
		var derr error
		if progressed, derr = r.drain(ctx, s, &rd); derr != nil {
			return r.goodbye(s, derr)
		}
		if s.clean {
			return nil
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			if rd.partial() {
				return errCut
			}
			return nil
		case ctx.Err() != nil:
			return r.goodbye(s, errStopped)
		default:
			return netCause(err)
		}
	}
}

// goodbye tells the client that the server ends the session.
func (r *RELP) goodbye(s *relpSession, cause error) error {
	s.out = append(s.out, "0 serverclose 0\n"...)
	if err := s.flush(); err != nil {
		return errors.Join(cause, netCause(err))
	}
	return cause
}

// drain answers every whole command that was read. Neighbouring syslog commands
// are one batch, and their answers one write.
func (r *RELP) drain(ctx context.Context, s *relpSession, rd *relpReader) (progressed bool, err error) {
	var lines []relpFrame
	size := 0
	seal := func() error {
		err := r.seal(ctx, s, lines)
		lines, size = lines[:0], 0
		return err
	}
	for {
		f, ok, ferr := rd.next()
		if !ok || f.command != "syslog" || len(lines) == batchFrames || size >= batchBytes {
			if len(lines) > 0 {
				if err := seal(); err != nil {
					return true, err
				}
			}
		}
		if ferr != nil {
			return progressed, ferr
		}
		if !ok {
			return progressed, s.flush()
		}
		progressed = true
		if f.command == "syslog" && s.open {
			lines = append(lines, f)
			size += len(f.data)
			continue
		}
		if err := r.control(s, f); err != nil {
			return true, err
		}
		if s.clean {
			return true, s.flush()
		}
	}
}

// control answers every command but syslog.
func (r *RELP) control(s *relpSession, f relpFrame) error {
	switch {
	case f.command == "open" && !s.open:
		offers, err := relpOffers(f.data)
		if err != nil {
			s.answer(f.txnr, "500 "+err.Error())
			return fmt.Errorf("%w: %v", errRELP, err)
		}
		s.open = true
		s.answer(f.txnr, "200 OK\n"+offers)
	case f.command == "close" && s.open:
		s.answer(f.txnr, "")
		s.out = append(s.out, "0 serverclose 0\n"...)
		s.clean = true
	case !s.open:
		s.answer(f.txnr, "500 the session is not open")
		return fmt.Errorf("%w: a command before open", errRELP)
	default:
		s.answer(f.txnr, "500 command not known here")
	}
	return nil
}

// relpOffers answers the offers of a client with those that both sides know.
func relpOffers(data []byte) (string, error) {
	version := -1
	syslog := false
	for line := range bytes.Lines(data) {
		name, value, _ := strings.Cut(strings.TrimRight(string(line), "\r\n"), "=")
		switch name {
		case "relp_version":
			n, err := strconv.Atoi(value)
			if err != nil || n < 0 {
				return "", errors.New("relp_version is no number")
			}
			version = min(n, 1)
		case "commands":
			for c := range strings.SplitSeq(value, ",") {
				syslog = syslog || c == "syslog"
			}
		}
	}
	switch {
	case version < 0:
		return "", errors.New("no relp_version is offered")
	case !syslog:
		return "", errors.New("the command syslog is not offered")
	}
	return fmt.Sprintf("relp_version=%d\nrelp_software=counterseal\ncommands=syslog", version), nil
}

// seal hands lines to the sink and then, and only then, answers them.
func (r *RELP) seal(ctx context.Context, s *relpSession, lines []relpFrame) error {
	b := event.Batch{Source: s.source, Way: WayRELP, Peer: peerText(s.peer), Conn: s.id, Received: r.o.Now(), Zone: r.o.Zone}
	digests := make([]lineDigest, 0, len(lines))
	for i, l := range lines {
		if l.large {
			b.Errors = append(b.Errors, tooLarge(i+1, r.o.MaxMessage))
			continue
		}
		body := trimMessage(l.data)
		if len(body) == 0 {
			continue // nothing to keep, still to be answered
		}
		digests = append(digests, digestLine(body))
		b.Frames = append(b.Frames, event.Frame{Bytes: bytes.Clone(body), Line: i + 1})
	}
	if len(b.Frames)+len(b.Errors) > 0 {
		repeats := r.mark(s, digests, b.Frames)
		res, err := r.o.accept(ctx, &r.c, b)
		if err != nil {
			r.unmark(s, digests, b.Frames)
			var no *event.Refusal
			if errors.As(err, &no) {
				for _, l := range lines {
					s.answer(l.txnr, "500 "+no.Code)
				}
			}
			return err
		}
		r.c.repeats.Add(uint64(repeats))
		s.sealed += uint64(res.Accepted) // never what was withheld: the log tells the number
	}
	for _, l := range lines {
		s.answer(l.txnr, "200 OK")
	}
	return s.flush()
}

func (s *relpSession) answer(txnr uint32, data string) {
	s.out = strconv.AppendUint(s.out, uint64(txnr), 10)
	s.out = append(s.out, " rsp "...)
	s.out = strconv.AppendInt(s.out, int64(len(data)), 10)
	if data != "" {
		s.out = append(s.out, ' ')
		s.out = append(s.out, data...)
	}
	s.out = append(s.out, '\n')
}

// flush writes the answers. A client that does not read them for long ends the
// session: their lines are sealed, and remembered.
func (s *relpSession) flush() error {
	if len(s.out) == 0 {
		return nil
	}
	if err := s.conn.SetWriteDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	_, err := s.conn.Write(s.out)
	s.out = s.out[:0]
	return err
}

func (r *RELP) enter(s *relpSession) {
	r.rmu.Lock()
	defer r.rmu.Unlock()
	s.again = r.broken[s.peer] != nil || len(r.live[s.peer]) > 0 || r.o.Now().Sub(r.started) < relpEarly
	r.live[s.peer] = append(r.live[s.peer], s)
}

// leave ends a session. What a broken one sealed is remembered for its sender.
func (r *RELP) leave(s *relpSession) {
	r.rmu.Lock()
	defer r.rmu.Unlock()
	rest := slices.DeleteFunc(r.live[s.peer], func(o *relpSession) bool { return o == s })
	if r.live[s.peer] = rest; len(rest) == 0 {
		delete(r.live, s.peer)
	}
	if s.clean { // the sender has nothing left to repeat
		r.forget(s.peer)
		return
	}
	if len(s.sealedLines) == 0 {
		return
	}
	b := r.broken[s.peer]
	if b == nil {
		if len(r.ordered) == relpPeers {
			r.forget(r.ordered[0])
		}
		b = &brokenLines{lines: make(map[lineDigest]int)}
		r.broken[s.peer] = b
		r.ordered = append(r.ordered, s.peer)
	}
	if len(b.lines) > 4*relpRemember { // of many broken sessions; the newest counts
		clear(b.lines)
	}
	b.since = 0
	for d, n := range s.sealedLines {
		b.lines[d] += n
	}
}

func (r *RELP) forget(peer netip.Addr) {
	if r.broken[peer] == nil {
		return
	}
	delete(r.broken, peer)
	r.ordered = slices.DeleteFunc(r.ordered, func(p netip.Addr) bool { return p == peer })
}

// mark says of each frame whether its line may be a repeat, and notes the lines of
// the session before they are sealed: the sender may come back while they are.
// That a write of their answer succeeds does not say that the sender reads it, so
// the last relpRemember lines stay noted.
func (r *RELP) mark(s *relpSession, digests []lineDigest, frames []event.Frame) (repeats int) {
	r.rmu.Lock()
	defer r.rmu.Unlock()
	b := r.broken[s.peer]
	for i, d := range digests {
		again := b != nil && take(b.lines, d)
		for _, o := range r.live[s.peer] {
			again = again || o != s && take(o.sealedLines, d)
		}
		// Both librelp and the queue of rsyslog above it keep a line until it is
		// answered, and after a break each may send it: twice in one session.
		again = again || s.again && len(s.ring) < relpRemember && s.sealedLines[d] > 0
		if again {
			frames[i].Repeat = true
			repeats++
		}
		s.sealedLines[d]++
		if len(s.ring) < relpRemember {
			s.ring = append(s.ring, d)
			continue
		}
		take(s.sealedLines, s.ring[s.at])
		s.ring[s.at] = d
		s.at = (s.at + 1) % relpRemember
	}
	if b != nil {
		// A sender repeats first of all; what comes later is new.
		if b.since += len(digests); b.since > 4*relpRemember {
			r.forget(s.peer)
		}
	}
	return repeats
}

// unmark forgets lines that were not sealed after all, but those whose equals were:
// they come again, and are repeats then.
func (r *RELP) unmark(s *relpSession, digests []lineDigest, frames []event.Frame) {
	r.rmu.Lock()
	defer r.rmu.Unlock()
	for i, d := range digests {
		if !frames[i].Repeat {
			take(s.sealedLines, d)
		}
	}
}

// take takes one line out of a set.
func take(m map[lineDigest]int, d lineDigest) bool {
	switch n := m[d]; n {
	case 0:
		return false
	case 1:
		delete(m, d)
	default:
		m[d] = n - 1
	}
	return true
}
