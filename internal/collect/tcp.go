package collect

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/counterseal/counterseal/internal/event"
)

// TCP is the syslog listener for TCP and, with Options.TLS, for TLS (RFC 5425).
// Neither protocol acknowledges. What was sealed is there; a session that broke is
// reported as a gap that says how many of its lines were sealed.
type TCP struct{ *server }

// ListenTCP opens the listener.
func ListenTCP(addr string, o Options) (*TCP, error) {
	way := WayTCP
	if o.TLS != nil {
		way = WayTLS
	}
	s, err := listen(addr, way, o)
	if err != nil {
		return nil, err
	}
	return &TCP{s}, nil
}

// Run serves until ctx ends, then hands over what it has read and returns nil.
func (t *TCP) Run(ctx context.Context) error {
	return t.run(ctx, t.serve, func(c net.Conn) { c.SetReadDeadline(time.Unix(1, 0)) })
}

var (
	errStopped = errors.New("the listener was stopped")
	errCut     = errors.New("the connection ended inside a message")
)

func (t *TCP) serve(ctx context.Context, s *session) {
	err := t.read(ctx, s)
	if err == nil || errors.Is(err, errStopped) && s.sealed == 0 {
		return
	}
	t.c.breaks.Add(1)
	t.o.Log.Warn("syslog session broke", "way", t.way, "conn", s.id, "source", s.source, "sealed", s.sealed, "why", err.Error())
	if t.o.Gap != nil {
		t.o.Gap(event.Gap{Source: s.source, Stream: s.id, Kind: GapConnection, From: s.sealed, At: t.o.Now()})
	}
}

// read is the life of one connection: read what is there, hand over the whole
// messages in it, read on. While the sink is busy nothing is read, so the sender's
// window closes.
func (t *TCP) read(ctx context.Context, s *session) error {
	sp := splitter{max: t.o.MaxMessage}
	buf := make([]byte, 64<<10)
	progressed := false
	for {
		if err := t.o.deadline(s, sp.partial(), progressed); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return errStopped
		}
		n, err := s.conn.Read(buf)
		sp.feed(buf[:n])
		var derr error
		if progressed, derr = t.drain(ctx, s, &sp, errors.Is(err, io.EOF)); derr != nil {
			return derr
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return nil
		case ctx.Err() != nil:
			return errStopped
		default:
			return netCause(err)
		}
	}
}

// drain hands over the whole messages that the splitter holds and, at the end of
// the stream, its last line.
func (t *TCP) drain(ctx context.Context, s *session, sp *splitter, eof bool) (progressed bool, err error) {
	for {
		b := event.Batch{Source: s.source, Way: t.way, Peer: peerText(s.peer), Conn: s.id, Received: t.o.Now(), Zone: t.o.Zone}
		size, more := 0, true
		line := 0
		var ferr error
		for line < batchFrames && size < batchBytes {
			m, ok, err := sp.next()
			if err != nil || !ok {
				ferr, more = err, false
				if err == nil && eof {
					var broken bool
					if m, ok, broken = sp.end(); broken {
						ferr = errCut
					}
					eof = false
				}
				if !ok {
					break
				}
			}
			line++
			if m.large {
				b.Errors = append(b.Errors, tooLarge(line, t.o.MaxMessage))
				continue
			}
			size += len(m.body)
			b.Frames = append(b.Frames, event.Frame{Bytes: append([]byte(nil), m.body...), Line: line})
		}
		if line > 0 {
			progressed = true
			res, err := t.o.accept(ctx, &t.c, b)
			if err != nil {
				return progressed, err
			}
			s.sealed += uint64(res.Accepted) // never what was withheld: a gap tells the number
		}
		if ferr != nil || !more {
			return progressed, ferr
		}
	}
}

// netCause takes addresses off an error of the network.
func netCause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
