package report

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/ledger"
)

const (
	proofType = "counterseal/proof/v1"
	maxProof  = 32 << 20
)

// proofForm is docs/formats/proof.md, members in the order of RFC 8785.
type proofForm struct {
	Type        string   `json:"_type"`
	Compartment string   `json:"compartment"`
	Index       uint64   `json:"index"`
	Leaf        string   `json:"leaf"`
	Path        []string `json:"path"`
	Proof       string   `json:"proof"`
	Record      string   `json:"record,omitempty"`
	Salt        string   `json:"salt,omitempty"`
	Segment     string   `json:"segment"`
	Size        uint64   `json:"size"`
	Statement   string   `json:"statement"`
	Stream      string   `json:"stream"`
}

// closedOf gives what a statement says of a segment that was closed.
func closedOf(s *ledger.Statement) (*closedDetail, error) {
	d := new(closedDetail)
	if s.Kind != "segment.closed" || len(s.Subject) == 0 || json.Unmarshal(s.Detail, d) != nil {
		return nil, errors.New("the statement closes no segment")
	}
	return d, nil
}

// Prove makes the proof of one record: from its leaf hash to the root of its segment,
// to the statement that closed it, to the newest checkpoint. It uses no key. With
// open, the record and its salt are added: that is a look at it, and the caller has
// asked whether it may be.
//
// witnessed is false where no witness has cosigned a checkpoint over the statement yet.
func (m *Maker) Prove(ctx context.Context, stream evidence.Stream, ref event.Ref, open bool) (proven []byte, witnessed bool, err error) {
	p, err := evidence.ProveLeaf(m.Dir, stream, ref)
	if err != nil {
		return nil, false, err
	}
	fact, ok, err := m.Recorder.Fact(ctx, "segment.closed", ref.Segment.String())
	if err != nil {
		return nil, false, err
	}
	if !ok {
		return nil, false, fmt.Errorf("proving %s: the ledger does not say yet that its segment is closed: %w", ref, evidence.ErrNotClosed)
	}
	leaf, proof, err := m.statement(ctx, fact.Index)
	if err != nil {
		return nil, false, err
	}
	f := proofForm{
		Type: proofType, Compartment: ref.Compartment, Index: ref.Ordinal, Leaf: hexOf(p.Leaf), Path: []string{}, Proof: string(proof),
		Segment: ref.Segment.String(), Size: p.Size, Statement: string(leaf), Stream: stream.String(),
	}
	for _, h := range p.Path {
		f.Path = append(f.Path, hexOf(h))
	}
	if open {
		full, err := m.Evidence.Prove(ctx, stream, ref)
		if err != nil {
			return nil, false, err
		}
		f.Record, f.Salt = b64(full.Record), hexOf(full.Salt)
	}
	if _, err := f.check(); err != nil {
		return nil, false, fmt.Errorf("proving %s: evidence and ledger disagree, run counterseal verify: %w", ref, err)
	}
	b, err := approval.Canonical(f)
	size, _ := m.Recorder.Witnessed()
	return append(b, '\n'), fact.Index < size, err
}

// check leads the path to the root in the statement.
func (f *proofForm) check() (record []byte, err error) {
	s, err := ledger.Parse([]byte(f.Statement))
	if err != nil {
		return nil, err
	}
	d, err := closedOf(&s)
	if err != nil {
		return nil, err
	}
	if s.Subject[0] != f.Segment || d.Compartment != f.Compartment || d.Stream != f.Stream || d.Records != f.Size {
		return nil, errors.New("the statement is about another segment")
	}
	leaf, lerr := parseHash(f.Leaf)
	root, rerr := parseHash(d.Root)
	path, perr := parseHashes(f.Path)
	if err := errors.Join(lerr, rerr, perr); err != nil {
		return nil, err
	}
	if err := evidence.CheckPath(leaf, f.Index, f.Size, path, root); err != nil {
		return nil, err
	}
	if (f.Record == "") != (f.Salt == "") {
		return nil, errors.New("a record goes with its salt")
	}
	if f.Record == "" {
		return nil, nil
	}
	salt, err := parseHash(f.Salt)
	if err != nil {
		return nil, err
	}
	if record, err = decodeB64(f.Record); err != nil {
		return nil, errors.New("the record is not base64url")
	}
	if evidence.RecordLeaf(salt, record) != leaf {
		return nil, errors.New("record and salt do not give the leaf")
	}
	return record, nil
}

// Proven is what a proof shows.
type Proven struct {
	Stream    evidence.Stream
	Ref       event.Ref
	Size      uint64           // records of the segment
	Statement ledger.Statement // that closed the segment
	Index     uint64           // of the statement in the ledger
	Record    []byte           // nil: the proof shows none
}

// VerifyProof checks the file of a proof. It needs no network and no other file. Its
// error wraps ErrAltered, or ledger.ErrUnwitnessed where all but cosignatures holds.
func VerifyProof(b []byte, v ledger.Verifiers) (*Proven, error) {
	if err := v.Check(); err != nil {
		return nil, err
	}
	bad := func(err error) (*Proven, error) { return nil, fmt.Errorf("%w: %w", ErrAltered, err) }
	if len(b) == 0 || b[len(b)-1] != '\n' {
		return bad(errors.New("cut short"))
	}
	var f proofForm
	if err := decode(b[:len(b)-1], maxProof, &f); err != nil {
		return bad(err)
	}
	if f.Type != proofType {
		return bad(errors.New("an unknown version"))
	}
	p := &Proven{Size: f.Size}
	var err error
	if p.Stream, err = evidence.ParseStream(f.Stream); err != nil {
		return bad(err)
	}
	if p.Ref, err = event.ParseRef(fmt.Sprintf("%s/%s/%d", f.Compartment, f.Segment, f.Index)); err != nil {
		return bad(err)
	}
	if p.Record, err = f.check(); err != nil {
		return bad(err)
	}
	if p.Statement, err = ledger.Parse([]byte(f.Statement)); err != nil {
		return bad(err)
	}
	p.Index, err = ledger.VerifyProof([]byte(f.Statement), []byte(f.Proof), v)
	if errors.Is(err, ledger.ErrUnwitnessed) {
		return p, err
	}
	if err != nil {
		return bad(err)
	}
	return p, nil
}

// Text is what a person can read of the record of a proof, as JSON; empty where the
// proof shows none.
func (p *Proven) Text() (string, error) {
	if p.Record == nil {
		return "", nil
	}
	var l recordLine
	if _, err := l.read(p.Stream, p.Record); err != nil {
		return "", fmt.Errorf("%w: %w", ErrAltered, err)
	}
	var v any = l.View
	if p.Stream == evidence.Originals {
		v = l.Text
	}
	b, err := plainJSON(v)
	return string(b), err
}
