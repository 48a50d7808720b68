package scan

import (
	"bytes"
	"strings"
	"time"

	"github.com/counterseal/counterseal/evtx"
	"github.com/counterseal/counterseal/internal/collect"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/parse"
	"github.com/counterseal/counterseal/sigma"
)

// answer is what a worker found in a piece.
type answer struct {
	events, unparsed                      int
	chunks, damagedChunks, damagedRecords int
	cannotTell                            int
	first, last                           int64 // Unix nanoseconds, 0: none
	hosts                                 map[hostKey]*seen
	hits                                  int
	findings                              []Finding
	err                                   error // of the tokeniser: the run ends
}

// hostKey is a machine, and whether its name is to be masked.
type hostKey struct {
	name string
	mask bool
}

// seen is when a host spoke.
type seen struct {
	events      int
	first, last int64
}

// hit is a record that at least one rule matched. Its record holds its own bytes.
type hit struct {
	record  event.Record
	time    string
	host    int // the field that names the machine, or -1
	source  Source
	matches []match
}

// match is a rule and the places, in the record's fields, that made it say yes.
type match struct {
	rule   *sigma.Rule
	fields []int
}

// worker asks the rules about pieces. It belongs to one goroutine.
type worker struct {
	set      *sigma.Set
	received time.Time
	min      Level
	choose   func(*sigma.Rule) bool // nil: every rule
	buffers  *buffers
	mask     *mask

	chunk  evtx.Chunk
	fields []sigma.Field
	yes    []sigma.Match
	json   []byte
}

func (w *worker) judge(p *piece) {
	p.hosts = make(map[hostKey]*seen)
	if p.chunks != nil {
		whole := p.chunks
		w.log(p)
		w.buffers.put(whole)
		p.chunks = nil
		return
	}
	for i := range p.frames {
		w.frame(p, &p.frames[i])
	}
	p.frames, p.bytes = nil, nil
}

func (w *worker) log(p *piece) {
	for i := 0; len(p.chunks) > 0; i++ {
		n := min(len(p.chunks), evtx.ChunkSize)
		w.chunk.Load(p.firstChunk+i, p.offset+int64(i)*evtx.ChunkSize, p.chunks[:n])
		p.chunks = p.chunks[n:]
		if w.chunk.State&evtx.ChunkEmpty != 0 {
			continue
		}
		p.answer.chunks++
		if w.chunk.State.Damaged() {
			p.damagedChunks++
		}
		// The function never fails, and Records has no error of its own.
		_ = w.chunk.Records(func(rec *evtx.Record) error {
			w.record(p, rec)
			return nil
		})
	}
}

var evtxKinds = [...]sigma.Kind{
	evtx.String: sigma.KindString, evtx.Number: sigma.KindNumber, evtx.Bool: sigma.KindBool, evtx.Binary: sigma.KindString,
}

func (w *worker) record(p *piece, rec *evtx.Record) {
	if !rec.State.OK() {
		p.damagedRecords++
		if rec.State&evtx.RecordUnreadable != 0 {
			return
		}
	}
	fields := rec.Fields()
	w.fields = w.fields[:0]
	var computer, number []byte
	for i := range fields {
		f := &fields[i]
		switch f.Name {
		case "Computer":
			computer = f.Value
		case "EventRecordID":
			number = f.Value
		}
		w.fields = append(w.fields, sigma.Field{Name: f.Name, Kind: evtxKinds[f.Kind], Value: f.Value})
	}
	at, ok := rec.Created()
	ns := w.bound(at)
	if ns == 0 {
		at, ok = rec.Written, true
		ns = w.bound(at)
	}
	w.saw(p, hostKey{string(computer), w.mask.tokenises("win-other", "Computer")}, ns)
	if !w.ask(p, sigma.LogSource{Product: "windows"}) {
		return
	}
	var h hit
	if ok && ns != 0 {
		h.time = at.String()
	}
	chunk, offset := rec.Chunk, rec.Offset
	h.source = Source{Path: p.path, Record: rec.ID, Chunk: &chunk, Offset: &offset, EventID: decimal(number)}
	if w.chunk.State.Damaged() {
		h.source.ChunkState = w.chunk.State.String()
	}
	if !rec.State.OK() {
		h.source.RecordState = rec.State.String()
	}
	// The tokeniser wants the record as the way in for event logs makes it.
	w.json = rec.AppendJSON(w.json[:0])
	frame := event.Frame{Bytes: bytes.Clone(w.json), Format: collect.FormatEVTX}
	h.record.Way = way
	if fm, dataset, ok := parse.Identify(&frame, way); ok {
		h.record.Dataset = dataset
		if err := fm.Parse(&frame, parse.Context{Received: w.received}, &h.record); err != nil {
			parse.Unparsed(&frame, &h.record)
		}
	}
	h.host = hostOf(&h.record)
	w.keep(p, &h)
}

func decimal(b []byte) (n uint64) {
	for _, d := range b {
		if d < '0' || d > '9' {
			return 0
		}
		n = n*10 + uint64(d-'0')
	}
	return n
}

// bound is the time in nanoseconds, 0 outside of what an event may claim.
func (w *worker) bound(t evtx.FileTime) int64 {
	ns, ok := event.Clamp(t.Time(), w.received)
	if !ok {
		return 0
	}
	return ns
}

// way is the way in that records of a scan name.
const way = "scan"

func (w *worker) frame(p *piece, f *event.Frame) {
	var rec event.Record
	fm, dataset, ok := parse.Identify(f, way)
	if !ok {
		p.unparsed++
		return
	}
	rec.Dataset, rec.Way = dataset, way
	if err := fm.Parse(f, parse.Context{Received: w.received}, &rec); err != nil {
		p.unparsed++
		return
	}
	w.fields = w.fields[:0]
	for i := range rec.Fields {
		v := &rec.Fields[i]
		w.fields = append(w.fields, sigma.Field{Name: v.Name, Kind: kinds[v.Kind&3], Value: v.Value, Addr: sigma.AddrClass(v.Addr)})
	}
	host, spoke := hostOf(&rec), hostKey{}
	if host >= 0 {
		spoke.name = string(rec.Fields[host].Value)
		spoke.mask = w.mask.tokenises(rec.Dataset, rec.Fields[host].Name)
	}
	w.saw(p, spoke, rec.Time)
	var src sigma.LogSource
	src.Product, src.Category, src.Service = parse.LogSource(rec.Dataset)
	if !w.ask(p, src) {
		return
	}
	h := hit{record: rec, host: host, source: Source{Path: p.path, Record: uint64(f.Line), EventID: rec.Running.N}}
	if rec.Time != 0 {
		h.time = time.Unix(0, rec.Time).UTC().Format(time.RFC3339Nano)
	}
	h.record.Fields = make([]event.Field, len(rec.Fields))
	for i, v := range rec.Fields {
		v.Value = bytes.Clone(v.Value)
		h.record.Fields[i] = v
	}
	w.keep(p, &h)
}

var kinds = [...]sigma.Kind{
	event.String: sigma.KindString, event.Number: sigma.KindNumber, event.Bool: sigma.KindBool, event.Null: sigma.KindNull,
}

// hostOf is the field of the machine that speaks in a record, by the names that
// our formats use, or -1. In a Zeek log such names are of machines that it watched.
func hostOf(r *event.Record) int {
	if strings.HasPrefix(r.Dataset, "zeek") {
		return -1
	}
	for _, name := range [...]string{"Computer", "syslog_host", "hostname", "node"} {
		for i := range r.Fields {
			if r.Fields[i].Name == name {
				return i
			}
		}
	}
	return -1
}

// saw counts an event.
func (w *worker) saw(p *piece, host hostKey, ns int64) {
	p.events++
	h := p.hosts[host]
	if h == nil {
		h = new(seen)
		p.hosts[host] = h
	}
	h.events++
	if ns == 0 {
		return
	}
	span(&h.first, &h.last, ns, ns)
	span(&p.first, &p.last, ns, ns)
}

// span widens a span of time; 0 is no time.
func span(first, last *int64, from, to int64) {
	if from != 0 && (*first == 0 || from < *first) {
		*first = from
	}
	if to != 0 && (*last == 0 || to > *last) {
		*last = to
	}
}

// ask leaves the rules that said yes in w.yes.
func (w *worker) ask(p *piece, src sigma.LogSource) bool {
	w.yes = w.yes[:0]
	ev := sigma.Event{Source: src, Fields: w.fields}
	w.set.Match(&ev, func(m sigma.Match) {
		switch {
		case m.Verdict == sigma.CannotTell:
			p.cannotTell++
		case levelOf(m.Rule.Level) >= w.min && !w.set.Silent(m.Rule) && (w.choose == nil || w.choose(m.Rule)):
			w.yes = append(w.yes, m)
		}
	})
	return len(w.yes) > 0
}

// keep makes findings of the hit and its matches. Each matched field is found again in the
// record by name and value, the n-th of equal ones by counting.
func (w *worker) keep(p *piece, h *hit) {
	for _, m := range w.yes {
		x := match{rule: m.Rule}
		used := 0
		for _, mf := range m.Matched {
			for k := range h.record.Fields {
				i := (used + k) % len(h.record.Fields) // both lists are in source order, as a rule
				f := &h.record.Fields[i]
				if f.Name == mf.Name && bytes.Equal(f.Value, mf.Value) {
					x.fields = append(x.fields, i)
					used = i + 1
					break
				}
			}
		}
		h.matches = append(h.matches, x)
	}
	p.hits++
	findings, err := w.mask.findings(h)
	if err != nil && p.err == nil {
		p.err = err
	}
	p.findings = append(p.findings, findings...)
}
