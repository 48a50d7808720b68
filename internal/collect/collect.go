// Package collect is the door: one file per way in. It frames bytes from a
// socket, an HTTP request or a file, bounds them, and hands batches to a Sink.
//
// It promises:
//   - A sender is acknowledged only after the sink has returned, that is after the
//     records are durable evidence. HTTP answers then, RELP acknowledges then; TCP
//     stops reading until then.
//   - Every length is checked before memory is taken for it. A frame over its
//     bound costs itself and is reported by its number, never its neighbours.
//   - What a way in can know of loss is reported as an event.Gap: a connection
//     that broke, datagrams that the kernel dropped.
//   - Errors, gaps and counters name files, lines, sources and connections, never
//     what a line says.
//
// It leaves to others: which source may speak and what a line means (admit,
// parse), and the order of the steps (pipeline). It writes no file.
//
// The ways in: syslog by UDP (udp.go), by TCP and TLS (tcp.go, framing in
// syslog.go), RELP (relp.go), HTTP (http.go), the bulk form of Elasticsearch
// (bulk.go), and files (file.go, records.go, import.go).
package collect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/counterseal/counterseal/internal/event"
)

// Sink takes a batch and returns once its records are durable evidence. It blocks
// when the way is full. An error that is an *event.Refusal is an answer of no to
// the whole batch, none of which was kept.
type Sink func(ctx context.Context, b event.Batch) (event.Result, error)

// The ways in, as they stand in a batch.
const (
	WayUDP    = "syslog-udp"
	WayTCP    = "syslog-tcp"
	WayTLS    = "syslog-tls"
	WayRELP   = "relp"
	WayHTTP   = "http"
	WayBulk   = "bulk"
	WayImport = "import"
)

// Codes of a refused line that this package gives itself.
const (
	CodeTooLarge = "too_large"
	CodeBadLine  = "bad_line"
)

// The kinds of a gap that this package reports.
const (
	GapConnection = "connection"
	GapDrops      = "udp-drops"
)

const (
	batchFrames = 512     // frames of one batch of a listener
	batchBytes  = 1 << 20 // bytes of one batch of any way in, one frame aside
)

// Options are what a listener needs. The zero value of each but Sink works.
type Options struct {
	Sink   Sink
	Source string                       // source of all senders
	Of     func(peer netip.Addr) string // source of one sender; empty answer: Source
	Zone   string                       // zone for times without one
	Gap    func(event.Gap)              // told of every gap, from several goroutines; nil: counted only
	Log    *slog.Logger                 // refusals and broken sessions, without values; nil: silent
	Now    func() time.Time             // nil: time.Now

	// MaxMessage bounds one syslog message. 0 is 64 KiB.
	MaxMessage int
	// FrameTimeout is how long a message may take from its first byte to its last.
	// 0 is 30 s.
	FrameTimeout time.Duration
	// IdleTimeout closes a connection on which nothing begins. 0 is never: to close
	// a TCP connection costs its sender the line that it writes next.
	IdleTimeout time.Duration
	// MaxConns bounds open connections; one more is closed at once. 0 is 1024.
	MaxConns int
	// TLS makes a TCP or RELP listener speak TLS 1.3.
	TLS *TLSFiles
}

func (o *Options) fill() error {
	if o.Sink == nil {
		return errors.New("a listener needs a sink")
	}
	if o.MaxMessage == 0 {
		o.MaxMessage = 64 << 10
	}
	if o.MaxMessage < 2048 || o.MaxMessage > event.MaxFrame {
		return fmt.Errorf("the largest syslog message is set to %d bytes; allowed is 2048 to %d", o.MaxMessage, event.MaxFrame)
	}
	if o.FrameTimeout <= 0 {
		o.FrameTimeout = 30 * time.Second
	}
	if o.MaxConns <= 0 {
		o.MaxConns = 1024
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

func (o *Options) source(peer netip.Addr) string {
	if o.Of != nil {
		if s := o.Of(peer); s != "" {
			return s
		}
	}
	return o.Source
}

// Stats are the counters of a listener since it began. They count and never hold
// a value.
type Stats struct {
	Frames     uint64 // handed to the sink and accepted by it
	Bytes      uint64 // of these frames
	Batches    uint64
	Refused    uint64 // frames refused, by this way in or by the sink
	Sessions   uint64 // connections accepted
	Open       uint64 // connections open now
	TurnedAway uint64 // connections closed at once: too many
	Handshakes uint64 // connections that ended in the TLS handshake
	Breaks     uint64 // sessions that ended without a clean close
	Waits      uint64 // times that a batch waited for a busy sink or a full disk
	Drops      uint64 // datagrams that the kernel dropped
	Repeats    uint64 // RELP lines that equal one of a broken session
}

// counters is Stats while it is being counted.
type counters struct {
	frames, bytes, batches, refused, sessions, open, turnedAway, handshakes, breaks, waits, drops, repeats atomic.Uint64
}

func (c *counters) stats() Stats {
	return Stats{
		Frames: c.frames.Load(), Bytes: c.bytes.Load(), Batches: c.batches.Load(), Refused: c.refused.Load(),
		Sessions: c.sessions.Load(), Open: c.open.Load(), TurnedAway: c.turnedAway.Load(), Handshakes: c.handshakes.Load(), Breaks: c.breaks.Load(),
		Waits: c.waits.Load(), Drops: c.drops.Load(), Repeats: c.repeats.Load(),
	}
}

// accept hands a batch to the sink and waits as long as the sink is busy or the
// disk is low: the sender then waits with us. It gives up when ctx ends, but never
// cuts a call of the sink that has begun, so that what was sealed is known.
func (o *Options) accept(ctx context.Context, c *counters, b event.Batch) (event.Result, error) {
	for {
		res, err := o.Sink(context.WithoutCancel(ctx), b)
		if err == nil {
			c.batches.Add(1)
			total := len(b.Frames) + len(b.Errors)
			refused := min(total, len(lineErrors(b.Errors, res.Errors)))
			c.refused.Add(uint64(refused))
			c.frames.Add(uint64(total - refused))
			for i := range b.Frames {
				c.bytes.Add(uint64(len(b.Frames[i].Bytes)))
			}
			return res, nil
		}
		wait, again := retryable(err)
		if !again {
			c.refused.Add(uint64(len(b.Frames) + len(b.Errors)))
			return res, err
		}
		c.waits.Add(1)
		if err := sleep(ctx, wait); err != nil {
			return res, err
		}
	}
}

// retryable says whether the sender should wait and try the same batch again.
func retryable(err error) (time.Duration, bool) {
	var r *event.Refusal
	if !errors.As(err, &r) || r.Code != "busy" && r.Code != "disk_low" {
		return 0, false
	}
	if r.After > 0 {
		return r.After, true
	}
	return time.Second, true
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// lineErrors joins what the way in refused with what the sink answered. The sink
// may repeat the first, so one line appears once.
func lineErrors(own, answered []event.LineError) []event.LineError {
	if len(own) == 0 {
		return answered
	}
	seen := make(map[int]bool, len(answered))
	for _, e := range answered {
		seen[e.Line] = true
	}
	all := append([]event.LineError(nil), answered...)
	for _, e := range own {
		if !seen[e.Line] {
			all = append(all, e)
		}
	}
	slices.SortStableFunc(all, func(a, b event.LineError) int { return cmp.Compare(a.Line, b.Line) })
	return all
}

func tooLarge(line, limit int) event.LineError {
	return event.LineError{Line: line, Code: CodeTooLarge, Reason: fmt.Sprintf("longer than %d bytes", limit)}
}
