package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/counterseal/counterseal/internal/admit"
	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/parse"
	"github.com/counterseal/counterseal/internal/pia"
)

// The codes of line errors and refusals, stable in the API.
const (
	codePIA     = "pia_missing"
	codeSource  = "source_unknown"
	codeReused  = "key_reused"
	codeLarge   = "too_large"
	codeBadLine = "bad_line"
	codeBusy    = "busy"
	codeDisk    = "disk_low"
)

// wayRELP is the way in whose sender repeats what was not acknowledged, without a
// key by which it could be known.
const wayRELP = "relp"

// work is one batch on its way: what is left of it after the gate, by compartment.
type work struct {
	batch  event.Batch
	body   hash.Hash // over the frames kept
	parts  map[string]*part
	errors []event.LineError // with the lines of the request, for the sender
	gaps   []event.Gap
	frames int   // frames that were not withheld
	hidden []int // lines of the frames that were withheld, ascending

	order  []*event.Event // in the order of their frames
	turned []turned       // lines that no assessment covers
}

// turned is what the door counts of a line that no assessment covers.
type turned struct{ source, dataset, window, code string }

// shown gives errors for a card: a line that was withheld moves no number there.
func (w *work) shown() []event.LineError {
	out := slices.Clone(w.errors)
	for i := range out {
		before, _ := slices.BinarySearch(w.hidden, out[i].Line)
		out[i].Line -= before
	}
	return out
}

// told turns errors of a card back into those of this request, whose kept lines are
// the same.
func (w *work) told(errs []event.LineError) []event.LineError {
	out := slices.Clone(errs)
	for i := range out {
		for _, line := range w.hidden {
			if line > out[i].Line {
				break
			}
			out[i].Line++
		}
	}
	return out
}

// part is what one compartment gets of a batch.
type part struct {
	events    []*event.Event
	originals [][]byte // bytes as received; nil where none are kept
	wants     []int    // index in events of each original
	counts    map[string]*event.Count
	pias      []string
	until     time.Time // latest claimed time
	lateness  time.Duration
	rules     map[*pia.Rule]int64 // events by the line that let them in
	repeats   int                 // events equal to ones sealed and not acknowledged in a broken session
	tail      []*event.Event      // of these, the ones taken from the tail
}

// Accept takes a batch through the gate and returns when what is left of it is
// durable evidence. A *event.Refusal is an answer to the whole request; a line
// that is refused costs its neighbours nothing. It blocks while too much is under
// way, which is how a source is slowed down.
func (p *Pipeline) Accept(ctx context.Context, b event.Batch) (event.Result, error) {
	if err := p.ready(); err != nil {
		return event.Result{}, err
	}
	if b.Received.IsZero() {
		b.Received = p.now()
	}
	size := int64(4096)
	for i := range b.Frames {
		size += int64(len(b.Frames[i].Bytes)) + 512
	}
	size = min(size, p.budgetBytes)
	if err := p.budget.Acquire(ctx, size); err != nil {
		return event.Result{}, &event.Refusal{Code: codeBusy, Reason: "too much is under way", Hint: "send again later", After: time.Second}
	}
	defer p.budget.Release(size)

	p.policyMu.RLock()
	defer p.policyMu.RUnlock()
	pol := p.policy
	w, no, err := p.gate(pol, b)
	if err != nil {
		return event.Result{}, p.notNow(w, err)
	}
	return p.keep(ctx, pol, w, no)
}

// notNow takes a batch back for which no token could be had. The same batch comes again,
// so nothing of it was counted or numbered but the holes that it showed.
func (p *Pipeline) notNow(w *work, err error) error {
	p.pending.add(w.gaps)
	for _, t := range w.parts {
		for _, e := range t.tail {
			p.tail.add(e)
		}
	}
	p.noTokens.add(err, p.now())
	after := 2 * time.Second
	var later interface{ RetryAfter() time.Duration } // of a quota
	if errors.As(err, &later) {
		after = min(max(after, later.RetryAfter()), time.Minute)
	}
	return &event.Refusal{Code: codeBusy, Reason: "no token can be had for a name now", Hint: "send again later; counterseal doctor says why", After: after}
}

// ready says why nothing can be accepted, if nothing can.
func (p *Pipeline) ready() error {
	// Asked each time: a fast sender fills a reserve within a second.
	if free, err := durable.Free(p.dir); err == nil && free < p.reserve {
		return &event.Refusal{Code: codeDisk, Reason: "the disk is almost full", Hint: "free space on the data disk or lower `reserve`", After: 30 * time.Second}
	}
	return nil
}

// gate runs steps 2 to 5 on every frame: name, parse, withhold, minimise,
// tokenise. What is withheld for a protected channel leaves before it is counted
// or numbered. The refusal is of the whole request, where no line is covered; an error
// says that a token could not be had: then the request is neither taken nor refused.
func (p *Pipeline) gate(pol *policy, b event.Batch) (*work, *event.Refusal, error) {
	w := &work{batch: b, body: sha256.New(), parts: make(map[string]*part), errors: slices.Clone(b.Errors)}
	_, known := pol.sources[b.Source]
	missing := ""
	for i := range b.Frames {
		f := &b.Frames[i]
		rec, rule, refusal := p.read(pol, &b, f)
		gaps := p.running.see(&rec)
		if pol.withheld(&rec, f) {
			// Its running number has been seen, so no hole is left; nothing else is kept.
			w.hidden = append(w.hidden, f.Line)
			w.gaps = append(w.gaps, nameGaps(pol, &rec, rule, gaps)...)
			continue
		}
		w.gaps = append(w.gaps, nameGaps(pol, &rec, rule, gaps)...)
		w.frames++
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(f.Bytes)))
		w.body.Write(n[:])
		w.body.Write(f.Bytes)
		if len(f.Bytes) > event.MaxFrame {
			w.refuse(f, codeLarge, fmt.Sprintf("a record of %d bytes; at most %d", len(f.Bytes), event.MaxFrame))
			continue
		}
		if f.Refused != nil {
			w.refuse(f, f.Refused.Code, f.Refused.Reason)
			continue
		}
		if refusal != nil {
			reason := refusal.Reason
			if nameless(pol, rec.Dataset) != rec.Dataset { // the sender chose it, and a card keeps the reason
				reason = "no PIA covers this dataset"
			}
			missing = reason
			w.refuse(f, refusal.Code, reason)
			w.turned = append(w.turned, turned{nameless(pol, b.Source), nameless(pol, rec.Dataset), sourceName(pol, b.Source), refusal.Code})
			continue
		}
		if rec.Kind == event.Unparsed && rule.Field(event.UnparsedField) == nil {
			w.refuse(f, codeBadLine, badLine(&rec))
			p.count(w, rule, nameless(pol, rec.Dataset)).Dropped[event.UnparsedField]++
			continue
		}
		switch err := p.admit(pol, w, rule, &rec, f); {
		case errors.Is(err, errLarge):
			w.refuse(f, codeLarge, err.Error())
		case err != nil:
			return w, nil, err
		}
	}
	for _, e := range w.order {
		e.Seq = p.sequence.next(w.batch.Conn)
	}
	for _, t := range w.turned {
		p.refusals.add(t.source, t.dataset)
		p.windows.refuse(t.window, t.code)
	}
	if w.frames > 0 && len(w.errors) == w.frames && missing != "" && allCoded(w.errors, codePIA) {
		if !known {
			return w, &event.Refusal{Code: codeSource, Reason: fmt.Sprintf("no assessment names the source %q", b.Source),
				Hint: "write one: counterseal pia draft --source " + strconv.Quote(b.Source) + " --sample FILE"}, nil
		}
		return w, &event.Refusal{Code: codePIA, Reason: missing, Hint: "publish an assessment that covers it: counterseal pia draft --sample FILE"}, nil
	}
	return w, nil, nil
}

func allCoded(errs []event.LineError, code string) bool {
	for _, e := range errs {
		if e.Code != code {
			return false
		}
	}
	return true
}

// badLine is the reason a parser gave, which names places and never values.
func badLine(r *event.Record) string {
	if f, ok := r.Get(unparsedReason); ok {
		return string(f.Value)
	}
	return "no parser takes it"
}

// unparsedReason carries the parser's error from read to badLine; no PIA can list
// it, so it never passes the gate.
const unparsedReason = "\x00reason"

// read names and parses one frame. The record is complete enough for the protected
// channels even where no assessment covers it.
func (p *Pipeline) read(pol *policy, b *event.Batch, f *event.Frame) (event.Record, *pia.Rule, *event.Refusal) {
	var rec event.Record
	format, dataset, ok := parse.Identify(f, b.Way)
	rule, refusal := pol.pias.Find(b.Source, dataset, "", b.Received)
	zone := b.Zone
	if zone == "" && rule != nil {
		zone = rule.Zone
	}
	loc := time.UTC
	if zone != "" {
		if l, err := p.zone(zone); err == nil {
			loc = l
		}
	}
	var err error
	if ok {
		err = format.Parse(f, parse.Context{Received: b.Received, Zone: loc}, &rec)
	}
	if !ok || err != nil {
		rec = event.Record{}
		rec.Dataset = dataset
		parse.Unparsed(f, &rec)
		rec.Kind = event.Unparsed
		reason := "no parser takes it"
		if err != nil {
			reason = err.Error()
		}
		rec.Fields = append(rec.Fields, event.Field{Name: unparsedReason, Value: []byte(reason)})
	}
	if rec.Dataset != dataset { // the parser knows better than the header test
		rule, refusal = pol.pias.Find(b.Source, rec.Dataset, "", b.Received)
	}
	rec.Source, rec.Way, rec.Peer, rec.Conn = b.Source, b.Way, b.Peer, b.Conn
	rec.Received = b.Received.UnixNano()
	rec.Origin = f.Origin
	return rec, rule, refusal
}

// withheld looks at the parsed values and, since originals and unparsed records
// keep them, at the bytes as received.
func (pol *policy) withheld(rec *event.Record, f *event.Frame) bool {
	return pol.protected.Withhold(rec) || pol.protected.Mentions(f.Bytes)
}

func (w *work) refuse(f *event.Frame, code, reason string) {
	w.errors = append(w.errors, event.LineError{Line: f.Line, Code: code, Reason: reason})
}

func (p *Pipeline) part(w *work, rule *pia.Rule) *part {
	t := w.parts[rule.Compartment]
	if t == nil {
		t = &part{counts: make(map[string]*event.Count), rules: make(map[*pia.Rule]int64)}
		w.parts[rule.Compartment] = t
	}
	for _, name := range rule.Names() {
		if !slices.Contains(t.pias, name) {
			t.pias = append(t.pias, name)
		}
	}
	return t
}

func (p *Pipeline) count(w *work, rule *pia.Rule, dataset string) *event.Count {
	t := p.part(w, rule)
	c := t.counts[dataset]
	if c == nil {
		c = &event.Count{Dataset: dataset, Dropped: make(map[string]int)}
		t.counts[dataset] = c
	}
	return c
}

// admit runs minimisation and tokenising on one record and puts it in its part. An error
// that is not errLarge is one of the maker of tokens.
func (p *Pipeline) admit(pol *policy, w *work, rule *pia.Rule, rec *event.Record, f *event.Frame) error {
	kind := rec.Kind
	var counts admit.Counts
	e, err := pol.names.Event(admit.Minimise(rec, rule, p.hash, &counts))
	if err != nil {
		return err
	}
	pol.rules.AtDoor(e, pol.sight(e.Source, e.Dataset, w.batch.Received))
	if storedSize(e) > event.MaxRecord { // tokens are longer than the names were
		return errLarge
	}
	c := p.count(w, rule, e.Dataset)
	c.Kept++
	for path, n := range counts.Dropped {
		if path != unparsedReason || kind != event.Unparsed {
			label, err := pol.names.Label(path) // a path may hold a name
			if err != nil {
				return err
			}
			c.Dropped[label] += n
		}
	}
	t := p.part(w, rule)
	w.order = append(w.order, e)
	if rule.KeepsOriginal() {
		t.originals = append(t.originals, encodeOriginal(f.Bytes))
		t.wants = append(t.wants, len(t.events))
	}
	t.events = append(t.events, e)
	t.rules[rule]++
	if e.Way == wayRELP && p.tail.take(e, p.now()) {
		t.tail = append(t.tail, e)
		t.repeats++
	} else if f.Repeat {
		t.repeats++
	}
	t.lateness = max(t.lateness, rule.Lateness)
	if at := e.At(); at.After(t.until) && !at.After(w.batch.Received.Add(5*time.Minute)) {
		t.until = at
	}
	return nil
}

// errLarge refuses a record by itself, before it could cost its neighbours theirs.
var errLarge = fmt.Errorf("a record of more than %d bytes when its names are tokens", event.MaxRecord)

// storedSize bounds the encoded size of an event from above.
func storedSize(e *event.Event) int {
	n := 4096 + 32*len(e.Verdicts)
	for i := range e.Fields {
		n += len(e.Fields[i].Name) + len(e.Fields[i].Value) + 16
	}
	return n
}

// nameless gives a word that a sender chose, or says that it holds a name. It tells
// no token: whoever sends may not ask which token a name has.
func nameless(pol *policy, word string) string {
	if label, err := pol.quiet.Label(word); err != nil || label != word {
		return "(a name)"
	}
	return word
}

// nameGaps says whose counter has a hole. The machine stands in clear where the
// assessment lets its name stand in clear in the record; else it is a keyed digest.
func nameGaps(pol *policy, rec *event.Record, rule *pia.Rule, gaps []event.Gap) []event.Gap {
	for i := range gaps {
		stream := gaps[i].Stream
		machine, _, _ := strings.Cut(stream, "/")
		clear := rule != nil && slices.ContainsFunc(rec.Fields, func(f event.Field) bool {
			if !strings.EqualFold(string(f.Value), machine) {
				return false
			}
			a, _, _ := rule.Action(f.Name)
			return a == pia.Allow
		})
		gaps[i].Stream = pol.names.Stream(stream)
		if clear {
			if label, err := pol.names.Label(stream); err == nil {
				gaps[i].Stream = label
			}
		}
	}
	return gaps
}

// encodeOriginal is the record of the original stream: format, type, the bytes.
func encodeOriginal(b []byte) []byte {
	out := make([]byte, 0, len(b)+2)
	out = append(out, 1, byte(event.TypeOriginal))
	return append(out, b...)
}

// keep appends the parts of a batch, once for each key. A key that is known is
// answered as at first, also where the assessments refuse it by now.
func (p *Pipeline) keep(ctx context.Context, pol *policy, w *work, no *event.Refusal) (event.Result, error) {
	body := hex.EncodeToString(w.body.Sum(nil))
	key := ""
	var prior map[string]*event.Card
	if w.batch.Key != "" {
		key = keyOf(&w.batch)
		unlock := p.keys.lock(key)
		defer unlock()
		var err error
		if prior, err = p.cards(ctx, key); err != nil {
			return event.Result{}, err
		}
		for _, c := range prior {
			if c.Body != body {
				return event.Result{}, &event.Refusal{Code: codeReused, Reason: "this idempotency key was used with another body",
					Hint: "use a new key for each body; a key is remembered for 7 days"}
			}
		}
	}

	if no != nil && len(prior) == 0 {
		return event.Result{}, no
	}
	if len(w.gaps) > 0 && no == nil {
		p.pending.add(w.gaps)
	}

	parts := sortedKeys(w.parts)
	res := event.Result{Errors: w.errors, Repeated: len(prior) > 0}
	if len(prior) > 0 {
		parts = partsOf(prior)
	}
	for _, name := range parts {
		card := prior[name]
		if card == nil && w.parts[name] == nil {
			continue // a crash cut the request, and its assessment is gone since
		}
		if card == nil {
			res.Repeated = false
			var err error
			if card, err = p.append(ctx, pol, w, name, parts, key, body); err != nil {
				return event.Result{}, p.storageError(err)
			}
		} else {
			res.Errors = w.told(card.Errors)
		}
		res.Accepted += card.N
		if res.First == "" {
			res.First = card.First
		}
		if card.Last != "" {
			res.Last = card.Last
		}
	}
	if w.batch.Final {
		if err := p.endImport(ctx, w.batch.Source); err != nil {
			return event.Result{}, p.storageError(err)
		}
	}
	return res, nil
}

// endImport closes the windows of an import in the compartments that its last batch
// did not touch.
func (p *Pipeline) endImport(ctx context.Context, source string) error {
	for comp, until := range p.marks.rest(source) {
		rec, err := event.EncodeWatermark(&event.Watermark{Source: source, Until: until.UTC(), Reason: endOfImport})
		if err != nil {
			return err
		}
		at, err := p.evidence.Append(ctx, evidence.Events, comp, [][]byte{rec})
		if err != nil {
			return err
		}
		p.appended(comp, at, 1)
	}
	return nil
}

// partsOf are the compartments of the request that left these cards.
func partsOf(cards map[string]*event.Card) []string {
	all := sortedKeys(cards)
	for _, name := range sortedKeys(cards) {
		all = append(all, cards[name].Parts...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// keyOf is the form in which cards and state hold the key of a request.
func keyOf(b *event.Batch) string {
	sum := sha256.Sum256([]byte(b.Source + "\x00" + b.Key))
	return hex.EncodeToString(sum[:])
}

// append seals one part: first the originals, then the events with the card that
// counts them. The card shares the durable unit of its events, so a key is known
// exactly when its records are there.
func (p *Pipeline) append(ctx context.Context, pol *policy, w *work, compartment string, parts []string, key, body string) (_ *event.Card, err error) {
	t := w.parts[compartment]
	defer func() {
		if err != nil { // it comes again, and is a repeat then
			for _, e := range t.tail {
				p.tail.add(e)
			}
		}
	}()
	card := &event.Card{
		Source: w.batch.Source, Key: key, Body: body, N: len(t.events),
		Received: w.batch.Received.UTC(), Errors: w.shown(), PIA: t.pias, Repeats: t.repeats,
	}
	holes, breaks := p.pending.take(w.batch.Source), p.breaks.take(w.batch.Source)
	defer func() {
		if err != nil {
			p.pending.add(holes)
			p.breaks.add(breaks)
		}
	}()
	for i := range holes { // one may have waited since a batch of which nothing is kept
		holes[i].At = w.batch.Received.UTC()
	}
	card.Gaps = slices.Concat(holes, breaks)
	if len(parts) > 1 {
		card.Parts = parts
	}
	for _, name := range sortedKeys(t.counts) {
		card.Counts = append(card.Counts, *t.counts[name])
	}
	texts, err := mayName(t.events, card)
	if err != nil {
		return nil, err
	}
	if err := p.vault.Keep(ctx, compartment, p.now(), texts...); err != nil { // before the first event that a name belongs to
		return nil, err
	}
	if len(t.originals) > 0 {
		first, err := p.evidence.Append(ctx, evidence.Originals, compartment, t.originals)
		if err != nil {
			return nil, err
		}
		for i, at := range t.wants {
			t.events[at].Original = first.Next(uint64(i))
		}
	}
	events := make([][]byte, len(t.events), len(t.events)+3)
	for i, e := range t.events {
		events[i] = event.AppendEncode(nil, e)
	}
	if err := p.ensureContext(ctx, pol, compartment); err != nil {
		return nil, err
	}
	tail, err := p.marks.watermark(compartment, w.batch.Source, w.batch.Way, t.until, t.lateness, w.batch.Final)
	if err != nil {
		return nil, err
	}
	n := len(events) + 1 + len(tail)
	at, err := p.evidence.AppendFunc(ctx, evidence.Events, compartment, n, func(first event.Ref) ([][]byte, error) {
		if len(events) > 0 {
			card.First = first.String()
			card.Last = first.Next(uint64(len(events) - 1)).String()
		}
		c, err := event.EncodeCard(card)
		if err != nil {
			return nil, err
		}
		all := make([][]byte, 0, n)
		all = append(all, events...)
		all = append(all, c)
		// A follower may read the card before this call returns, and lets go of it then.
		p.remember(key, compartment, card)
		return append(all, tail...), nil
	})
	if err != nil {
		p.forget(key, compartment)
		return nil, err
	}
	p.appended(compartment, at, n)
	p.repeatContext(ctx, pol, compartment, at.Segment)
	p.accepted.Add(int64(len(events)))
	if len(events) > 0 {
		p.windows.admit(sourceName(pol, w.batch.Source), int64(len(events)))
	}
	for rule, n := range t.rules {
		p.today.add(rule, n, w.batch.Received)
	}
	return card, nil
}

// shortestToken is the length of one of epoch 1.
const shortestToken = 29

// mayName gives every text of events and card in which a token may stand.
func mayName(events []*event.Event, card *event.Card) ([][]byte, error) {
	b, err := event.EncodeCard(card)
	if err != nil {
		return nil, err
	}
	texts := [][]byte{b}
	for _, e := range events {
		for _, word := range [...]string{e.Source, e.Dataset, e.Peer, e.Conn} {
			if len(word) >= shortestToken {
				texts = append(texts, []byte(word))
			}
		}
		for i := range e.Fields {
			f := &e.Fields[i]
			if len(f.Value) >= shortestToken {
				texts = append(texts, f.Value)
			}
			if len(f.Name) >= shortestToken { // a path may hold a name
				texts = append(texts, []byte(f.Name))
			}
		}
	}
	return texts, nil
}

// ensureContext writes the context record that a compartment's stream needs before
// the next events: at the first append of a process and whenever the context has
// changed. Batches hold the policy lock for reading, so a change of policy falls
// between batches.
func (p *Pipeline) ensureContext(ctx context.Context, pol *policy, compartment string) error {
	p.contextMu.Lock()
	defer p.contextMu.Unlock()
	if p.contexts[compartment].digest == pol.digest {
		return nil
	}
	for digest, doc := range pol.blobs {
		if err := p.blobs.put(digest, doc); err != nil {
			return err
		}
	}
	rec, err := event.EncodeContext(&pol.context)
	if err != nil {
		return err
	}
	at, err := p.evidence.Append(ctx, evidence.Events, compartment, [][]byte{rec})
	if err != nil {
		return err
	}
	p.appended(compartment, at, 1)
	p.contexts[compartment] = contextAt{pol.digest, at.Segment}
	return nil
}

// Withholds tells, for a source, which frames belong to a protected channel. An
// import asks it before it numbers or hashes anything.
func (p *Pipeline) Withholds(source, dataset string) func(*event.Frame) bool {
	return func(f *event.Frame) bool {
		p.policyMu.RLock()
		defer p.policyMu.RUnlock()
		b := event.Batch{Source: source, Way: "import", Received: p.now()}
		if f.Dataset == "" {
			f.Dataset = dataset
		}
		rec, _, _ := p.read(p.policy, &b, f)
		return p.policy.withheld(&rec, f)
	}
}
