package collect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/counterseal/counterseal/internal/event"
)

const (
	udpQueue   = 8192 // datagrams between reader and sink
	udpGather  = 5 * time.Millisecond
	udpSenders = 16 // batches of one gathering that are sealed at the same time
	maxUDP     = 64 << 10
)

// UDP is the syslog listener for UDP: one datagram is one message. Nothing is
// promised to the sender; datagrams that the kernel dropped for want of room are
// counted and reported as a gap where the kernel tells (Linux).
type UDP struct {
	o    Options
	c    counters
	conn *net.UDPConn
}

// ListenUDP opens the listener.
func ListenUDP(addr string, o Options) (*UDP, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	a, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, fmt.Errorf("listening for %s: %w", WayUDP, err)
	}
	conn, err := net.ListenUDP("udp", a)
	if err != nil {
		return nil, fmt.Errorf("listening for %s: %w", WayUDP, err)
	}
	// As much room as the kernel grants; it may grant less without an error.
	if err := conn.SetReadBuffer(4 << 20); err != nil {
		conn.Close()
		return nil, fmt.Errorf("asking for receive memory: %w", err)
	}
	if err := countDrops(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("asking for the drop counter: %w", err)
	}
	return &UDP{o: o, conn: conn}, nil
}

// Addr is the address that is listened on.
func (u *UDP) Addr() net.Addr { return u.conn.LocalAddr() }

// Stats returns the counters.
func (u *UDP) Stats() Stats { return u.c.stats() }

type datagram struct {
	peer netip.Addr
	at   time.Time
	body []byte
	big  bool
}

// Run serves until ctx ends, then hands over what was read and returns nil.
func (u *UDP) Run(ctx context.Context) error {
	unhook := context.AfterFunc(ctx, func() { u.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer unhook()
	defer u.conn.Close()
	queue := make(chan datagram, udpQueue)
	// The sink waits for a disk; the socket must be read meanwhile.
	var sealing sync.WaitGroup
	sealing.Go(func() { u.seal(ctx, queue) })
	err := u.read(ctx, queue)
	close(queue)
	sealing.Wait()
	return err
}

func (u *UDP) read(ctx context.Context, queue chan<- datagram) error {
	buf, oob := make([]byte, maxUDP), make([]byte, 128)
	var drops uint32
	for {
		n, oobn, _, from, err := u.conn.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("reading %s: %w", WayUDP, netCause(err))
			}
			// An ICMP answer to an earlier packet shows up here and means nothing to us.
			if sleep(ctx, time.Millisecond) != nil {
				return nil
			}
			continue
		}
		now := u.o.Now()
		if total, ok := dropCount(oob[:oobn]); ok && total != drops {
			u.c.drops.Add(uint64(total - drops)) // wraps as the kernel's does
			if u.o.Gap != nil {
				u.o.Gap(event.Gap{Source: u.o.Source, Stream: u.conn.LocalAddr().String(), Kind: GapDrops, From: uint64(drops), To: uint64(total), At: now})
			}
			drops = total
		}
		body := trimMessage(buf[:n])
		if len(body) == 0 {
			continue
		}
		d := datagram{peer: from.Addr().Unmap(), at: now, big: len(body) > u.o.MaxMessage}
		if !d.big {
			d.body = append([]byte(nil), body...)
		}
		select {
		case queue <- d:
		case <-ctx.Done():
			// What the queue holds is still sealed; this one is not and is a drop.
			u.c.drops.Add(1)
			return nil
		}
	}
}

// seal gathers what is queued, up to 512 datagrams or 5 ms, and hands it over, one
// batch for each sender.
func (u *UDP) seal(ctx context.Context, queue <-chan datagram) {
	for first := range queue {
		got := append(make([]datagram, 0, batchFrames), first)
		size := len(first.body)
		timer := time.NewTimer(udpGather)
	gather:
		for len(got) < batchFrames && size < batchBytes {
			select {
			case d, ok := <-queue:
				if !ok {
					break gather
				}
				got = append(got, d)
				size += len(d.body)
			case <-timer.C:
				break gather
			}
		}
		timer.Stop()
		u.handOver(ctx, got)
	}
}

func (u *UDP) handOver(ctx context.Context, got []datagram) {
	var order []netip.Addr
	by := make(map[netip.Addr]*event.Batch)
	for _, d := range got {
		b := by[d.peer]
		if b == nil {
			b = &event.Batch{Source: u.o.source(d.peer), Way: WayUDP, Peer: peerText(d.peer), Received: d.at, Zone: u.o.Zone}
			by[d.peer] = b
			order = append(order, d.peer)
		}
		line := len(b.Frames) + len(b.Errors) + 1
		if d.big {
			b.Errors = append(b.Errors, tooLarge(line, u.o.MaxMessage))
			continue
		}
		b.Frames = append(b.Frames, event.Frame{Bytes: d.body, Line: line})
	}
	var g errgroup.Group
	g.SetLimit(udpSenders)
	for _, peer := range order {
		b := *by[peer]
		g.Go(func() error {
			if _, err := u.o.accept(ctx, &u.c, b); err != nil {
				if ctx.Err() != nil {
					u.c.drops.Add(uint64(len(b.Frames) + len(b.Errors)))
				}
				u.o.Log.Warn("datagrams refused", "source", b.Source, "why", err.Error())
			}
			return nil
		})
	}
	g.Wait()
}
