package report

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/ledger"
)

// Maker makes proofs and packages of one data directory.
type Maker struct {
	Dir      string // data directory
	Org      uuid.UUID
	Log      string // origin of the ledger
	Evidence *evidence.Store
	Recorder *attest.Recorder
	// Settle closes open segments and returns when the ledger knows all that are
	// closed. nil: what is open stays out.
	Settle func(context.Context) error
	Now    func() time.Time
	FS     durable.FS
}

// Scope is what an authorisation covers. Zero members do not narrow it.
type Scope struct {
	Compartments []string
	Sources      []string
	From, To     time.Time // claimed time of an event, from inclusive to exclusive
	// Refs, where Query is set, are the events that it found; the other members
	// narrow them.
	Query string
	Refs  []event.Ref
}

// Request is a package to be made.
type Request struct {
	Case       string
	Purpose    string // a code
	Recipients []*Recipient
	Scope      Scope
	People     []event.Token // whom the authorisation names
	Due        time.Time     // the day by which it is returned or destroyed
	Approvals  []string      // ids of the requests that two people approved
	Unlocked   []*evidence.UnlockedKey
	Actor      string
	Tools      map[string]string // names and versions
}

// Made is a package that was made.
type Made struct {
	ID                   string
	Digest               string
	Index                uint64 // of package.made
	Records, Originals   int
	Segments, Statements int
	Withheld, Unread     int
	Bytes                int64
}

// ErrEmpty: nothing is inside the scope.
var ErrEmpty = errors.New("no record is inside the scope")

func (r *Request) check(now time.Time) error {
	if err := checkText(r.Case, 200); err != nil {
		return fmt.Errorf("the case: %w", err)
	}
	if !codeForm.MatchString(r.Purpose) {
		return errors.New("the purpose is a code of letters, digits and . _ : / -")
	}
	if len(r.Recipients) == 0 || len(r.Recipients) > MaxRecipients {
		return fmt.Errorf("a package has 1 to %d recipients", MaxRecipients)
	}
	if !r.Scope.From.IsZero() && !r.Scope.To.IsZero() && !r.Scope.From.Before(r.Scope.To) {
		return errors.New("the scope ends before it begins")
	}
	if r.Due.Before(now) {
		return errors.New("the day of return is over")
	}
	for _, p := range r.People {
		if !event.IsToken([]byte(p)) {
			return errors.New("people are named by their tokens")
		}
	}
	for _, c := range r.Scope.Compartments {
		if err := event.CheckCompartment(c); err != nil {
			return err
		}
	}
	return nil
}

func (s *Scope) form() scopeForm {
	f := scopeForm{Compartments: sortedCopy(s.Compartments), Sources: sortedCopy(s.Sources), Query: s.Query}
	if !s.From.IsZero() {
		f.From = s.From.UTC().Format(viewTime)
	}
	if !s.To.IsZero() {
		f.To = s.To.UTC().Format(viewTime)
	}
	return f
}

func sortedCopy(in []string) []string {
	out := slices.Clone(in)
	slices.Sort(out)
	return append([]string{}, slices.Compact(out)...)
}

// Create makes a package. It selects, states export.made, collects proofs under a
// checkpoint that covers it, seals, states package.made, and only then lets the file
// be seen. Where a witness is missing nothing is left but the statements.
func (m *Maker) Create(ctx context.Context, req Request, path string) (made *Made, err error) {
	now := m.Now()
	if err := req.check(now); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("%s is there already", path)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	if m.Settle != nil {
		if err := m.Settle(ctx); err != nil {
			return nil, fmt.Errorf("closing segments: %w", err)
		}
	}
	s, err := m.choose(ctx, &req)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if s.records == 0 {
		return nil, ErrEmpty
	}
	_, err = m.Recorder.Critical(ctx, attest.Act{
		Kind: "export.made", Actor: req.Actor, Purpose: req.Purpose, Subject: []string{id.String()},
		Detail: map[string]any{"format": packageType, "records": s.records, "originals": len(s.originals)},
	})
	if err != nil {
		return nil, err
	}
	custody, err := m.custody(ctx, &req, s, id.String())
	if err != nil {
		return nil, err
	}
	d := description{
		Type: packageType, Case: req.Case, Due: req.Due.UTC().Format(dateForm), ID: id.String(), Log: m.Log, Made: now.UTC().Format(stampForm), Org: m.Org.String(),
		Purpose: req.Purpose, Scope: req.Scope.form(), Tools: req.Tools, People: []string{}, Recipients: []recipientLine{}, Unread: s.unread,
		Counts: counts{Originals: len(s.originals), Records: s.records, Segments: len(s.segments) + len(s.originalSegments()), Statements: len(custody), Withheld: s.withheld},
	}
	for _, p := range req.People {
		d.People = append(d.People, string(p))
	}
	d.People = sortedCopy(d.People)
	var ids []string
	for _, r := range req.Recipients {
		d.Recipients = append(d.Recipients, recipientLine{ID: r.ID(), Name: r.Name})
		ids = append(ids, r.ID())
	}

	tmp := filepath.Join(filepath.Dir(path), ".unfinished-"+id.String()) // of its own
	f, err := m.FS.Create(tmp, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil { // what was written so far nobody can open, and nobody was told of
			err = errors.Join(err, f.Close(), os.Remove(tmp))
		}
	}()
	seal, err := newSealer(f, id, m.Org, req.Recipients)
	if err != nil {
		return nil, err
	}
	bag, err := m.writeBag(ctx, seal, s, &d, custody)
	if err != nil {
		return nil, err
	}
	digest, err := seal.end()
	if err != nil {
		return nil, err
	}
	detail := madeDetail{Bag: hexOf(bag), Digest: hexOf(digest), Due: d.Due, Recipients: ids}
	receipt, err := m.Recorder.Critical(ctx, attest.Act{Kind: "package.made", Actor: req.Actor, Purpose: req.Purpose, Subject: []string{id.String()}, Detail: detail})
	if err != nil {
		return nil, err
	}
	leaf, proof, err := m.statement(ctx, receipt.Index)
	if err != nil {
		return nil, err
	}
	part, err := encodeMade(leaf, proof)
	if err != nil {
		return nil, err
	}
	for _, b := range [][]byte{part, encodeEnd(len(part))} {
		if _, err := f.Write(b); err != nil {
			return nil, err
		}
	}
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	if err := m.FS.Rename(tmp, path); err != nil {
		return nil, err
	}
	own, _ := m.Recorder.Own(receipt.Index)
	return &Made{
		ID: d.ID, Digest: detail.Digest, Index: own, Records: d.Counts.Records, Originals: d.Counts.Originals, Segments: d.Counts.Segments,
		Statements: d.Counts.Statements, Withheld: d.Counts.Withheld, Unread: len(d.Unread), Bytes: size,
	}, nil
}

// selection is what is inside a scope.
type selection struct {
	segments  map[uuid.UUID]*chosen
	records   int
	unread    []unread
	rows      []row // the earliest ones, for people
	sources   map[string]int
	named     int // records that name somebody of the authorisation
	tokens    map[event.Token]bool
	originals []*original
	withheld  int
	keys      map[uuid.UUID]*evidence.UnlockedKey
	readers   map[uuid.UUID]*evidence.SegmentReader
}

// chosen are the records of one segment.
type chosen struct {
	compartment string
	ordinals    []uint64
}

// row is one record as the index shows it.
type row struct {
	At, Source, Dataset, Ref, Text string
}

// maxRows bounds the records that index.html and index.txt show.
const maxRows = 1000

// original is one that somebody's events refer to.
type original struct {
	ref      event.Ref
	selected bool // by an event inside the scope
	others   bool // some event of it names somebody whom the authorisation does not
}

// trimRows keeps the earliest ones.
func (s *selection) trimRows() {
	slices.SortStableFunc(s.rows, func(a, b row) int { return strings.Compare(a.At, b.At) })
	s.rows = s.rows[:min(len(s.rows), maxRows)]
}

func (s *selection) originalSegments() []uuid.UUID {
	var ids []uuid.UUID
	for _, o := range s.originals {
		if n := len(ids); n == 0 || ids[n-1] != o.ref.Segment {
			ids = append(ids, o.ref.Segment)
		}
	}
	return ids
}

func (s *selection) close() {
	for _, r := range s.readers {
		r.Close()
	}
}

// choose reads closed segments and picks the events inside the scope.
func (m *Maker) choose(ctx context.Context, req *Request) (*selection, error) {
	s := &selection{
		segments: map[uuid.UUID]*chosen{}, unread: []unread{}, sources: map[string]int{}, tokens: map[event.Token]bool{},
		keys: map[uuid.UUID]*evidence.UnlockedKey{}, readers: map[uuid.UUID]*evidence.SegmentReader{},
	}
	people := map[event.Token]bool{}
	for _, p := range req.People {
		people[p] = true
	}
	for _, k := range req.Unlocked {
		s.keys[k.Segment] = k
	}
	wanted := map[event.Ref]bool{}
	for _, r := range req.Scope.Refs {
		wanted[r] = true
	}
	originals := map[event.Ref]*original{}
	scope := req.Scope.form()
	take := func(ref event.Ref, rec []byte) error {
		en, err := event.Decode(rec)
		if err != nil {
			return fmt.Errorf("%s: %w", ref, err)
		}
		e := en.Event
		if e == nil {
			return nil
		}
		in := (req.Scope.Query == "" || wanted[ref]) && scope.covers(e.Source, e.At().Format(viewTime))
		known := s.keys[e.Original.Segment] != nil
		if !in && !known {
			return nil
		}
		names, others := tokensOf(e, people, func(t event.Token) {
			if in {
				s.tokens[t] = true
			}
		})
		if known {
			o := originals[e.Original]
			if o == nil {
				o = &original{ref: e.Original}
				originals[e.Original] = o
			}
			o.selected, o.others = o.selected || in, o.others || others
		}
		if !in {
			return nil
		}
		if s.records++; s.records > MaxRecords {
			return fmt.Errorf("more than %d records are inside the scope: narrow it", MaxRecords)
		}
		if names {
			s.named++
		}
		c := s.segments[ref.Segment]
		if c == nil {
			c = &chosen{compartment: ref.Compartment}
			s.segments[ref.Segment] = c
		}
		c.ordinals = append(c.ordinals, ref.Ordinal)
		s.sources[e.Source]++
		s.rows = append(s.rows, rowOf(ref, e))
		if len(s.rows) == 2*maxRows {
			s.trimRows()
		}
		return nil
	}
	if err := m.read(ctx, &req.Scope, len(s.keys) > 0, s, take); err != nil {
		return nil, err
	}
	s.trimRows()
	for _, o := range originals {
		switch {
		case o.selected && o.others:
			s.withheld++
		case o.selected:
			s.originals = append(s.originals, o)
		}
	}
	slices.SortFunc(s.originals, func(a, b *original) int {
		if c := strings.Compare(a.ref.Segment.String(), b.ref.Segment.String()); c != 0 {
			return c
		}
		return int(int64(a.ref.Ordinal) - int64(b.ref.Ordinal))
	})
	return s, nil
}

// read gives events to take: those that a query found, or every one of the closed
// segments in which one of the scope can be. Which originals tell of whom only all
// events say, so with an unlocked key every one is read.
func (m *Maker) read(ctx context.Context, scope *Scope, all bool, s *selection, take func(event.Ref, []byte) error) error {
	compartments := scope.Compartments
	if len(compartments) == 0 {
		compartments = m.Evidence.Compartments(evidence.Events)
	}
	if scope.Query != "" && !all {
		refs := slices.Clone(scope.Refs)
		slices.SortFunc(refs, func(a, b event.Ref) int {
			if c := strings.Compare(a.Segment.String(), b.Segment.String()); c != 0 {
				return c
			}
			return int(int64(a.Ordinal) - int64(b.Ordinal))
		})
		for _, ref := range slices.Compact(refs) {
			if len(scope.Compartments) > 0 && !slices.Contains(scope.Compartments, ref.Compartment) {
				continue
			}
			rec, err := m.Evidence.Get(ctx, ref)
			if errors.Is(err, evidence.ErrNoKey) {
				s.miss(ref.Segment, "destroyed")
				continue
			}
			if err != nil {
				return err
			}
			if err := take(ref, rec); err != nil {
				return err
			}
		}
		return nil
	}
	for _, comp := range compartments {
		infos, err := m.Evidence.Segments(evidence.Events, comp)
		if err != nil {
			return err
		}
		for _, in := range infos {
			// A claimed time may be 48 h ahead of its receipt, and as old as it likes.
			if in.State != "closed" || in.Records == 0 || !all && !scope.From.IsZero() && in.Last.Add(event.Future).Before(scope.From) {
				if in.State == "damaged" {
					s.miss(in.Segment, "damaged")
				}
				continue
			}
			_, err := m.Evidence.Read(ctx, evidence.Events, comp, evidence.Position{Segment: in.Segment}, func(ref event.Ref, rec []byte) error {
				if ref.Segment != in.Segment {
					return evidence.ErrStop
				}
				return take(ref, rec)
			})
			var damage *evidence.DamageError
			switch {
			case err == nil:
			case errors.Is(err, evidence.ErrNoKey):
				s.miss(in.Segment, "destroyed")
			case errors.As(err, &damage):
				s.miss(in.Segment, "damaged")
			default:
				return err
			}
		}
	}
	return nil
}

func (s *selection) miss(segment uuid.UUID, why string) {
	u := unread{Segment: segment.String(), Why: why}
	if !slices.Contains(s.unread, u) {
		s.unread = append(s.unread, u)
	}
}

// tokensOf tells whether an event names somebody of the authorisation, and whether it
// names anybody else.
func tokensOf(e *event.Event, people map[event.Token]bool, each func(event.Token)) (named, others bool) {
	look := func(b []byte) {
		for {
			from, to := event.NextToken(b)
			if from < 0 {
				return
			}
			t := event.Token(b[from:to])
			each(t)
			if people[t] {
				named = true
			} else {
				others = true
			}
			b = b[to:]
		}
	}
	look([]byte(e.Peer))
	for _, f := range e.Fields {
		look([]byte(f.Name))
		look(f.Value)
	}
	return named, others
}

func rowOf(ref event.Ref, e *event.Event) row {
	r := row{At: e.At().Format("2006-01-02 15:04:05.000Z"), Source: e.Source, Dataset: e.Dataset, Ref: ref.String()}
	var parts []string
	for _, f := range e.Fields {
		if len(parts) == 6 {
			break
		}
		if v := readable(f.Value); v != "" && len(v) <= 120 {
			parts = append(parts, readable([]byte(f.Name))+"="+v)
		}
	}
	r.Text = strings.Join(parts, "  ")
	return r
}

// paper is one statement of the ledger that goes along.
type paper struct {
	index       uint64
	kind        string
	at          time.Time
	actor       string
	leaf, proof []byte
}

// custodyKinds are the statements about a segment that go along.
var custodyKinds = []string{"segment.opened", "segment.closed", "segment.damaged", "destruction.intended", "destruction.done"}

// custody collects the statements about what is inside a package, each with its
// proof. Every segment must have been closed by a statement.
func (m *Maker) custody(ctx context.Context, req *Request, s *selection, id string) ([]paper, error) {
	found := map[uint64]paper{}
	add := func(kind, key string) (bool, error) {
		f, ok, err := m.Recorder.Fact(ctx, kind, key)
		if err != nil || !ok {
			return false, err
		}
		own, now := m.Recorder.Own(f.Index)
		if !now { // by a log that was succeeded, under other keys; the current one states what counts
			return false, nil
		}
		if _, have := found[f.Index]; have {
			return true, nil
		}
		p := paper{index: own, kind: f.Kind, at: f.Time, actor: f.Actor}
		if p.leaf, p.proof, err = m.statement(ctx, f.Index); err != nil {
			return false, err
		}
		found[f.Index] = p
		return true, nil
	}
	ids := s.originalSegments()
	for id := range s.segments {
		ids = append(ids, id)
	}
	for _, id := range ids {
		for _, kind := range custodyKinds {
			ok, err := add(kind, id.String())
			if err != nil {
				return nil, err
			}
			if kind == "segment.closed" && !ok {
				return nil, fmt.Errorf("the ledger has no statement that closes segment %s", id)
			}
		}
	}
	for _, u := range s.unread {
		for _, kind := range custodyKinds {
			if _, err := add(kind, u.Segment); err != nil {
				return nil, err
			}
		}
	}
	more := [][2]string{{"export.made", id}, {"server.start", "n1"}, {"rules.activated", "rules"}, {"lists.activated", "protected"}, {"lists.activated", "directory"},
		{"case.opened", req.Case}, {"authorisation.requested", req.Case}, {"authorisation.decided", req.Case}}
	for _, r := range req.Approvals {
		n := len(found)
		for _, kind := range []string{"approval.requested", "approval.used"} {
			if _, err := add(kind, r); err != nil {
				return nil, err
			}
		}
		decided, err := m.Recorder.Facts(ctx, "approval.decided")
		if err != nil {
			return nil, err
		}
		for _, f := range decided {
			if strings.HasPrefix(f.Key, r+"/") {
				more = append(more, [2]string{"approval.decided", f.Key})
			}
		}
		if len(found) == n {
			return nil, fmt.Errorf("%w: the ledger knows no approval %s", ErrRequest, r)
		}
	}
	for _, k := range more {
		if _, err := add(k[0], k[1]); err != nil {
			return nil, err
		}
	}
	var out []paper
	for _, p := range found {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b paper) int { return int(int64(a.index) - int64(b.index)) })
	return out, nil
}

// statement gives the bytes of a statement and its proof.
func (m *Maker) statement(ctx context.Context, index uint64) (leaf, proof []byte, err error) {
	if leaf, err = m.Recorder.Leaf(ctx, index); err != nil {
		return nil, nil, err
	}
	// The newest statements are covered by the next checkpoint, a moment later.
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range 100 {
		proof, err = m.Recorder.Prove(ctx, index)
		if !errors.Is(err, ledger.ErrUncovered) {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
	return leaf, proof, err
}

// writeBag writes the archive in the order of names and gives the digest of its tag
// manifest.
func (m *Maker) writeBag(ctx context.Context, w io.Writer, s *selection, d *description, custody []paper) (digest [32]byte, err error) {
	bag := newBagWriter(w)
	html, text, err := indexes(d, s, custody)
	if err != nil {
		return digest, err
	}
	if err := bag.add(nameIndexHTML, html); err != nil {
		return digest, err
	}
	if err := bag.add(nameIndexText, text); err != nil {
		return digest, err
	}
	for _, p := range custody {
		if err := bag.add(ledgerName(p.index, "json"), p.leaf); err != nil {
			return digest, err
		}
		if err := bag.add(ledgerName(p.index, "proof"), p.proof); err != nil {
			return digest, err
		}
	}
	if err := m.writeOriginals(ctx, bag, s, custody); err != nil {
		return digest, err
	}
	js, err := plainJSON(d)
	if err != nil {
		return digest, err
	}
	if err := bag.add(namePackage, append(js, '\n')); err != nil {
		return digest, err
	}
	if err := m.writeRecords(ctx, bag, s, custody); err != nil {
		return digest, err
	}
	return bag.end([]string{"Bag-Software-Agent: counterseal " + d.Tools["counterseal"], "Bagging-Date: " + d.Made[:10], "External-Identifier: " + d.ID})
}

// roots are the record roots that statements give, by segment.
func roots(custody []paper) (map[string]string, error) {
	out := map[string]string{}
	for _, p := range custody {
		if p.kind != "segment.closed" {
			continue
		}
		st, err := ledger.Parse(p.leaf)
		if err != nil {
			return nil, err
		}
		d, err := closedOf(&st)
		if err != nil {
			return nil, err
		}
		out[st.Subject[0]] = d.Root
	}
	return out, nil
}

func (m *Maker) writeRecords(ctx context.Context, bag *bagWriter, s *selection, custody []paper) error {
	root, err := roots(custody)
	if err != nil {
		return err
	}
	var ids []string
	for id := range s.segments {
		ids = append(ids, id.String())
	}
	slices.Sort(ids)
	for _, name := range ids {
		id := uuid.MustParse(name) // of our own printing
		c := s.segments[id]
		out := partWriter{bag: bag, prefix: dirRecords + name}
		for _, n := range c.ordinals {
			p, err := m.Evidence.Prove(ctx, evidence.Events, event.Ref{Compartment: c.compartment, Segment: id, Ordinal: n})
			if err == nil {
				err = writeProof(&out, p, root[name])
			}
			if err != nil {
				return err
			}
		}
		if err := out.flush(); err != nil {
			return err
		}
	}
	return nil
}

// writeProof writes one record where its path leads to the root that the ledger has.
func writeProof(out *partWriter, p *evidence.Proof, root string) error {
	if hexOf(p.Root) != root {
		return fmt.Errorf("segment %s has another root than the ledger says: run counterseal verify", p.Segment)
	}
	l, _, err := lineOf(p)
	if err != nil {
		return fmt.Errorf("record %d of segment %s: %w", p.Index, p.Segment, err)
	}
	return out.line(l)
}

func (m *Maker) writeOriginals(ctx context.Context, bag *bagWriter, s *selection, custody []paper) error {
	root, err := roots(custody)
	if err != nil {
		return err
	}
	for i := 0; i < len(s.originals); {
		ref := s.originals[i].ref
		j := i
		for j < len(s.originals) && s.originals[j].ref.Segment == ref.Segment {
			j++
		}
		path := filepath.Join(m.Dir, "evidence", evidence.Originals.String(), ref.Compartment, ref.Segment.String()+".seg")
		r, err := evidence.OpenSegmentWithKey(path, s.keys[ref.Segment], m.Now)
		if err != nil {
			return err
		}
		s.readers[ref.Segment] = r
		out := partWriter{bag: bag, prefix: dirOriginals + ref.Segment.String()}
		at := i
		err = r.Read(ctx, func(n uint64, rec []byte) error {
			if at == j {
				return evidence.ErrStop
			}
			if n != s.originals[at].ref.Ordinal {
				return nil
			}
			at++
			p, err := r.Prove(n, rec)
			if err != nil {
				return err
			}
			return writeProof(&out, p, root[ref.Segment.String()])
		})
		if err != nil {
			return err
		}
		if at != j {
			return fmt.Errorf("segment %s lacks an original that an event refers to", ref.Segment)
		}
		if err := out.flush(); err != nil {
			return err
		}
		i = j
	}
	return nil
}
