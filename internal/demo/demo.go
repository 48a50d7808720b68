// Package demo is the built-in incident: two days of an invented agency of forty
// people, six hosts, a firewall, a network sensor, an identity provider and a
// device manager, as the raw log text that each of these producers writes.
//
// It owns the text, the documents that let it in (assessments, protected
// channels, directory) and the truth to compare an answer with. It promises that
// equal options give equal bytes, that no claimed time is later than Options.At
// or more than 48 hours before it, and that a play without the hotline contact is
// the play with it less exactly the lines of the contact: the contact takes its
// random draws from a stream of its own and stands only in records that carry no
// running number. It leaves sending to the caller.
//
// People, addresses and domains are invented; the latter come from the ranges and
// names that are reserved for documentation. Every day has office hours, whatever
// the weekday, so that any end time gives a full picture.
package demo

import (
	"cmp"
	"hash/fnv"
	"iter"
	"math/rand/v2"
	"slices"
	"time"
)

// Window is how much time a play covers.
const Window = 48 * time.Hour

// Options choose a play. The zero value of Scale means 1; the zero value of At is
// not useful.
type Options struct {
	Seed uint64
	At   time.Time // end of the two days; cut to the second
	// Hotline puts one person's contact with the inspector general into the play.
	// Without it everything else is the same; the demo has it unless told otherwise.
	Hotline bool
	Scale   float64 // 1 is about 50,000 benign events
}

// Frame is one record in the form of its way in, without a line end.
type Frame struct {
	At    time.Time // when the producer sent it
	Bytes []byte    // the receiver may keep them
}

// Stream is what one producer sends over one way in, in the order of sending.
type Stream struct {
	Source string // the source as the assessments name it
	Way    string // "http" (NDJSON), "syslog-tcp", "relp" or "file"
	Name   string // file name, or a name that no other stream has
	Host   string // host name for the way in, where one machine sends
	items  []item
}

// Len is the number of frames.
func (s *Stream) Len() int { return len(s.items) }

// Frames writes the frames one after the other. It can be read any number of
// times and holds a block of about 256 KiB at most.
func (s *Stream) Frames() iter.Seq[Frame] {
	return func(yield func(Frame) bool) {
		const block = 256 << 10
		var b []byte
		for i := range s.items {
			it := &s.items[i]
			if cap(b)-len(b) < 16<<10 {
				b = make([]byte, 0, block)
			}
			from := len(b)
			b = it.write(b, it.number())
			if !yield(Frame{At: time.Unix(0, it.at).UTC(), Bytes: b[from:len(b):len(b)]}) {
				return
			}
		}
	}
}

// Incident is one play.
type Incident struct {
	Streams   []*Stream
	PIAs      map[string][]byte // file name to pia/v1 document, published and active at At
	Protected []byte            // protected/v1
	Directory []byte            // directory/v1
	Truth     Truth

	at time.Time // end of the two days
}

// Truth is what happened, for comparing with what was found.
type Truth struct {
	Steps  []Step   // in order of time
	Gap    Gap      // the records that the intruder destroyed
	Leaver Sighting // a leaver's account in use
	Abroad Sighting // a phone abroad out of policy
}

// Step is one act of the intruder.
type Step struct {
	N         int
	Title     string
	Time      time.Time
	Host      string
	Source    string
	Dataset   string
	Technique string
	// Person is whose account did it, as the directory names them; empty where a machine,
	// a service or nobody's account did.
	Person string
	// Rule matches the title of at least one of our rules that finds a record of
	// this step.
	Rule string
}

// Gap is a silence with missing running numbers.
type Gap struct {
	Host     string
	Source   string
	From, To time.Time
	Holes    []Hole
}

// Hole is a run of missing numbers of one channel.
type Hole struct {
	Channel       string
	After, Before uint64 // last number seen before and first after
}

// Sighting is a person, named as in the directory, where they should not be.
type Sighting struct {
	Person string
	Source string
	Time   time.Time
	What   string
}

// Play makes the incident. It draws everything at once and writes text only when
// a stream is read.
func Play(o Options) *Incident {
	if o.Scale == 0 {
		o.Scale = 1
	}
	p := newPlay(o)
	p.benign()
	p.intrusion()
	p.bystanders()
	if o.Hotline {
		p.hotline()
	}
	in := &Incident{Truth: p.truth, at: p.to}
	for _, s := range p.streams {
		p.settle(s)
		in.Streams = append(in.Streams, s)
	}
	in.Truth.Gap = p.gap()
	in.PIAs, in.Protected, in.Directory = p.documents()
	return in
}

// item is one frame to come. Drawing happens when it is made, writing when it is
// read.
type item struct {
	at    int64  // time of sending, Unix nanoseconds
	group *group // running number, nil where the producer keeps none
	write func(b []byte, n uint64) []byte
}

func (it *item) number() uint64 {
	if it.group == nil {
		return 0
	}
	return it.group.n
}

// group is one running number, shared by the records of one auditd event.
type group struct {
	counter *counter
	n       uint64
}

// counter is a producer's own running number.
type counter struct {
	channel string
	next    uint64
	step    func() uint64 // how far to the next one, nil for 1
	last    uint64        // last number sent before the gap
	first   uint64        // first number sent after it
}

// play is a play in the making.
type play struct {
	o        Options
	from, to time.Time
	people   []*person
	streams  []*Stream
	truth    Truth

	workstations, fileserver, dc          *Stream
	linux, audit, firewall, zeek, archive *Stream
	idp, mdm                              *Stream

	wsFin, wsIT, fs, ad, jump, db *host
	gapFrom, gapTo                time.Time
	rhythm                        rhythm
}

func newPlay(o Options) *play {
	to := o.At.UTC().Truncate(time.Second)
	p := &play{o: o, from: to.Add(-Window), to: to, people: staff()}
	p.rhythm = newRhythm(p.from, Window)
	p.workstations = &Stream{Source: "workstations", Way: "http", Name: "workstations"}
	p.fileserver = &Stream{Source: "fileserver", Way: "http", Name: "FS01", Host: "FS01"}
	p.dc = &Stream{Source: "dc", Way: "http", Name: "DC01", Host: "DC01"}
	p.linux = &Stream{Source: "linux", Way: "syslog-tcp", Name: "linux"}
	p.audit = &Stream{Source: "linux-audit", Way: "relp", Name: "linux-audit"}
	p.firewall = &Stream{Source: "firewall", Way: "syslog-tcp", Name: "fw01", Host: "fw01"}
	p.zeek = &Stream{Source: "zeek", Way: "http", Name: "zeek01", Host: "zeek01"}
	p.archive = &Stream{Source: "zeek", Way: "file", Name: "conn." + p.from.Format("2006-01-02-15-04-05") + ".log"}
	p.idp = &Stream{Source: "idp", Way: "http", Name: "idp"}
	p.mdm = &Stream{Source: "mdm", Way: "http", Name: "mdm"}
	p.streams = []*Stream{p.archive, p.workstations, p.fileserver, p.dc, p.linux, p.audit, p.firewall, p.zeek, p.idp, p.mdm}
	p.gapFrom = p.to.Add(-5*time.Hour - 50*time.Minute)
	p.gapTo = p.gapFrom.Add(40 * time.Minute)
	p.hosts()
	return p
}

// draws gives an independent source of random numbers. One name, one source: what
// one part draws never moves what another gets.
func (p *play) draws(name string) *draws {
	h := fnv.New64a()
	h.Write([]byte(name)) // never fails
	return &draws{rand.New(rand.NewPCG(p.o.Seed, h.Sum64()))}
}

// times is how many events of a kind the scale asks for.
func (p *play) times(n int) int { return int(float64(n) * p.o.Scale) }

// settle puts a stream in the order of sending and gives out running numbers.
// Equal times keep the order in which they were made.
func (p *play) settle(s *Stream) {
	head := 0 // a file's header lines stand first whatever the order
	if s == p.archive {
		head = len(zeekHeader)
	}
	slices.SortStableFunc(s.items[head:], func(a, b item) int { return cmp.Compare(a.at, b.at) })
	from, to := p.gapFrom.UnixNano(), p.gapTo.UnixNano()
	kept := s.items[:0]
	for _, it := range s.items {
		if g := it.group; g != nil && g.n == 0 {
			g.n = g.counter.take()
		}
		// The intruder stops the agent and clears the log: what the host wrote in
		// between took its numbers with it.
		if s == p.fileserver && it.at >= from && it.at < to {
			continue
		}
		if s == p.fileserver && it.group != nil {
			switch c := it.group.counter; {
			case it.at < from:
				c.last = it.group.n
			case c.first == 0:
				c.first = it.group.n
			}
		}
		kept = append(kept, it)
	}
	s.items = kept
}

func (c *counter) take() uint64 {
	n := c.next
	c.next++
	if c.step != nil {
		c.next = n + c.step()
	}
	return n
}

func (p *play) gap() Gap {
	g := Gap{Host: "FS01", Source: p.fileserver.Source, From: p.gapFrom, To: p.gapTo}
	for _, c := range p.fs.counters() {
		if c.last != 0 && c.first > c.last+1 {
			g.Holes = append(g.Holes, Hole{Channel: c.channel, After: c.last, Before: c.first})
		}
	}
	return g
}

// inside says whether a time may be claimed.
func (p *play) inside(t time.Time) bool { return !t.Before(p.from) && !t.After(p.to) }

// draws adds the choices that the producers need.
type draws struct{ *rand.Rand }

func pick[T any](d *draws, list []T) T { return list[d.IntN(len(list))] }

// between is a uniform draw from lo to hi, both possible.
func (d *draws) between(lo, hi int) int { return lo + d.IntN(hi-lo+1) }

// bytes is a long-tailed size around mid.
func (d *draws) bytes(mid float64) uint64 {
	v := mid * (0.2 + d.ExpFloat64())
	return uint64(min(v, mid*40)) + 60
}

// part is a duration from lo to hi.
func (d *draws) part(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(d.Int64N(int64(hi-lo)+1))
}

const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

func (d *draws) word(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = digits[d.IntN(len(digits))]
	}
	return string(b)
}

// rhythm spreads events over the days: much in office hours, a dip at noon, a
// little at night.
type rhythm struct {
	from time.Time
	sum  []float64 // running total of weights, one for each ten minutes
}

var perHour = [24]float64{1, 1, 1, 1, 1, 2, 4, 12, 26, 32, 32, 28, 18, 26, 30, 28, 24, 14, 6, 4, 3, 2, 1, 1}

func newRhythm(from time.Time, window time.Duration) rhythm {
	r := rhythm{from: from}
	var total float64
	for t := from; t.Before(from.Add(window)); t = t.Add(10 * time.Minute) {
		total += perHour[t.Hour()]
		r.sum = append(r.sum, total)
	}
	return r
}

// office is a moment of the working rhythm.
func (r *rhythm) office(d *draws) time.Time {
	v := d.Float64() * r.sum[len(r.sum)-1]
	i, _ := slices.BinarySearch(r.sum, v)
	i = min(i, len(r.sum)-1)
	return r.within(r.from.Add(time.Duration(i)*10*time.Minute), d)
}

// always is a moment at any hour.
func (r *rhythm) always(d *draws) time.Time {
	i := d.IntN(len(r.sum))
	return r.within(r.from.Add(time.Duration(i)*10*time.Minute), d)
}

func (r *rhythm) within(t time.Time, d *draws) time.Time {
	return t.Add(time.Duration(d.Int64N(int64(10 * time.Minute)))).Truncate(time.Microsecond)
}
