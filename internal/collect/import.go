package collect

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/counterseal/counterseal/internal/event"
)

const (
	importFrames  = 2000
	keptErrors    = 100 // refused lines that a report lists for one file
	importRetries = 600 // of a busy sink
)

// ImportOptions are what an import needs. Sink and Source must be given.
type ImportOptions struct {
	Paths   []string
	Source  string
	Dataset string // of all records; empty: found by their headers
	Zone    string
	Sink    Sink
	// Withhold says that a record belongs to a protected channel. It is asked
	// before the record is counted, numbered or hashed; nil: none does.
	Withhold func(*event.Frame) bool
	// Progress is told of each batch that was sealed and of each file's end.
	Progress func(Progress)
	Now      func() time.Time // nil: time.Now
}

// Progress says how far an import is.
type Progress struct {
	Name   string // what is read now
	Done   int64  // bytes on disk
	Total  int64
	Frames int // records taken so far
}

// Report is what an import did. It never counts what was withheld.
type Report struct {
	Files    []FileReport
	Frames   int // records read
	Accepted int // records that evidence now holds because of this import or an earlier run of it
	Repeated int // of Accepted: from an earlier run
	Refused  int // lines refused
	Failed   int // files that were not read, or not to their end
}

// FileReport is one file, or one member of an archive.
type FileReport struct {
	Name     string
	Shape    string
	Digest   string // SHA-256 of the content, less what was withheld; hex
	Frames   int
	Accepted int
	Repeated int
	Refused  int
	Errors   []event.LineError // the first of the lines refused
	Damage   Damage
	Err      string // why it was not read, or not to its end; empty: it was
	Code     string // of the refusal where the sink refused it, such as pia_missing
}

// Import reads files and hands their records to the sink, in batches whose keys are
// made of the digest of the content and the place in it. To run it again after it
// was stopped, or after it was done, takes nothing twice.
//
// It reads each content twice: the first time for its digest, from which withheld
// records are left out together with their line ends or commas, so that a file
// without them has the same digest. (For an event log this cannot be: there the
// digest is that of the file, or of its records where one was withheld.)
//
// A file that cannot be read is in the report with its reason and the others go on.
// An error is returned where none can go on: ctx ended, the source is not known,
// the disk is low, the sink failed.
func Import(ctx context.Context, o ImportOptions) (Report, error) {
	im := importer{o: o}
	if o.Sink == nil || o.Source == "" {
		return im.r, errors.New("an import needs a source and a sink")
	}
	if im.o.Now == nil {
		im.o.Now = time.Now
	}
	type found struct {
		path string
		err  error
		size int64
	}
	var files []found
	err := Walk(o.Paths, func(path string, err error) error {
		f := found{path: path, err: err}
		if err == nil {
			if st, err := os.Stat(path); err == nil {
				f.size = st.Size()
			}
		}
		im.total += f.size
		files = append(files, f)
		return ctx.Err()
	})
	for i := 0; i < len(files) && err == nil; i++ {
		f := files[i]
		if f.err != nil {
			im.r.Files = append(im.r.Files, FileReport{Name: f.path, Err: f.err.Error()})
			continue
		}
		err = im.file(ctx, f.path)
		im.done += f.size
	}
	if err == nil {
		err = im.send(ctx, true)
		if errors.Is(err, errSkip) {
			err = nil
		}
	}
	im.sum()
	return im.r, err
}

type importer struct {
	o           ImportOptions
	r           Report
	total, done int64
	taken       int

	// The newest batch is held until the next is ready, since the last of all must
	// say so.
	held *heldBatch
}

type heldBatch struct {
	b    event.Batch
	file int // index of its report
}

// errSkip ends a file whose reason is in its report already.
var errSkip = errors.New("the rest of the file is skipped")

func (im *importer) sum() {
	for i := range im.r.Files {
		f := &im.r.Files[i]
		im.r.Frames += f.Frames
		im.r.Accepted += f.Accepted
		im.r.Repeated += f.Repeated
		im.r.Refused += f.Refused
		if f.Err != "" {
			im.r.Failed++
		}
	}
}

func (im *importer) file(ctx context.Context, path string) error {
	o, err := Open(path)
	if err != nil {
		im.r.Files = append(im.r.Files, FileReport{Name: path, Err: err.Error()})
		return nil
	}
	defer o.Close()
	for _, m := range o.Members {
		im.r.Files = append(im.r.Files, FileReport{Name: m.Name, Shape: m.Shape.String()})
		n := len(im.r.Files) - 1
		if err := im.member(ctx, o, m, n); err != nil {
			if ctx.Err() != nil || errors.Is(err, errStop) {
				return err
			}
			if !errors.Is(err, errSkip) {
				im.r.Files[n].fail(err)
			}
		}
		im.progress(m.Name, o.Size)
	}
	return nil
}

// errStop is wrapped by an error that ends the whole import.
var errStop = errors.New("the import stops")

func (f *FileReport) fail(err error) {
	if f.Err == "" {
		f.Err = err.Error()
	}
}

func (im *importer) progress(name string, read int64) {
	if im.o.Progress != nil {
		im.o.Progress(Progress{Name: name, Done: min(im.done+read, im.total), Total: im.total, Frames: im.taken})
	}
}

func (im *importer) member(ctx context.Context, o *File, m *Member, n int) error {
	before, err := o.f.Stat()
	if err != nil {
		return err
	}
	digest, err := im.digest(ctx, m)
	if err != nil && (ctx.Err() != nil || m.Err != nil || errors.Is(err, ErrBomb)) {
		return err
	}
	// Damage further on is met again below, behind the records before it.
	im.r.Files[n].Digest = hex.EncodeToString(digest[:])
	o.at.read.Store(0)
	b := batcher{im: im, m: m, n: n, digest: digest, file: o}
	damage, err := m.pieces(ctx, func(p *piece, f *event.Frame) error { return b.piece(ctx, p, f) })
	im.r.Files[n].Damage = damage
	if err != nil && (ctx.Err() != nil || errors.Is(err, errStop) || errors.Is(err, errSkip)) {
		return err
	}
	if ferr := b.flush(ctx); ferr != nil {
		return ferr
	}
	if err != nil {
		return err
	}
	after, err := o.f.Stat()
	if err != nil {
		return err
	}
	if after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime()) {
		return errors.New("it changed while it was read: import it again when it is at rest")
	}
	return nil
}

// digest is the first reading.
func (im *importer) digest(ctx context.Context, m *Member) ([32]byte, error) {
	if m.Err != nil {
		return [32]byte{}, m.Err
	}
	var sum [32]byte
	h := sha256.New()
	if im.o.Withhold == nil || m.Shape == EVTX {
		err := m.copy(ctx, h)
		h.Sum(sum[:0])
		if im.o.Withhold == nil || err != nil && ctx.Err() != nil {
			return sum, err
		}
	}
	if m.Shape == EVTX {
		kept, withheld := sha256.New(), false
		_, err := m.pieces(ctx, func(p *piece, f *event.Frame) error {
			switch {
			case f == nil:
			case im.withhold(f):
				withheld = true
			default:
				kept.Write(p.raw)
				kept.Write([]byte{'\n'})
			}
			return nil
		})
		if withheld {
			kept.Sum(sum[:0])
		}
		return sum, err
	}
	d := contentDigest{h: h}
	_, err := m.pieces(ctx, func(p *piece, f *event.Frame) error {
		d.piece(p, p.kind == pieceFrame && im.withhold(f) || im.withholdBad(p))
		return nil
	})
	h.Sum(sum[:0])
	return sum, err
}

func (im *importer) withhold(f *event.Frame) bool {
	f.Dataset = im.o.Dataset
	return im.o.Withhold != nil && im.o.Withhold(f)
}

// withholdBad looks at what cannot be framed: its refusal would be counted.
func (im *importer) withholdBad(p *piece) bool {
	return p.kind == pieceBad && len(p.raw) > 0 && im.withhold(&event.Frame{Bytes: p.raw})
}

// copy writes the content to w.
func (m *Member) copy(ctx context.Context, w io.Writer) error {
	r, err := m.open()
	if err != nil {
		return err
	}
	defer r.Close()
	buf := make([]byte, 256<<10)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(buf)
		w.Write(buf[:n])
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// contentDigest hashes a content less the records withheld. With a line goes its
// end, with an item of an array the comma before it, or behind it where it is the
// first.
type contentDigest struct {
	h    hash.Hash
	hold []byte // a separator whose next item is not known yet
	drop bool   // all items of the array so far were withheld
}

func (d *contentDigest) piece(p *piece, withheld bool) {
	switch p.kind {
	case pieceSeparator:
		d.hold = append(d.hold, p.raw...)
		return
	case pieceStructure:
		d.drop = false
	case pieceFrame, pieceBad:
		if withheld {
			d.drop = d.drop || p.first
			d.hold = d.hold[:0]
			return
		}
		if d.drop {
			d.hold = d.hold[:0]
			d.drop = false
		}
	}
	d.h.Write(d.hold)
	d.hold = d.hold[:0]
	d.h.Write(p.raw)
}

// batcher is the second reading.
type batcher struct {
	im     *importer
	m      *Member
	n      int // index of the report
	file   *File
	digest [32]byte

	b    event.Batch
	size int
	line int    // lines and records kept, the refused ones too
	kept uint64 // records kept
}

func (b *batcher) piece(ctx context.Context, p *piece, f *event.Frame) error {
	switch p.kind {
	case pieceFrame:
		if b.im.withhold(f) {
			return nil
		}
	case pieceBad:
		if b.im.withholdBad(p) {
			return nil
		}
	default:
		return nil
	}
	if n := len(b.b.Frames) + len(b.b.Errors); n > 0 && (n >= importFrames || b.size+len(p.body) > batchBytes) {
		if err := b.flush(ctx); err != nil {
			return err
		}
	}
	if len(b.b.Frames)+len(b.b.Errors) == 0 {
		b.b = event.Batch{
			Source: b.im.o.Source, Way: WayImport, Received: b.im.o.Now(), Zone: b.im.o.Zone,
			Key: "import:" + hex.EncodeToString(b.digest[:]) + ":" + strconv.Itoa(b.line),
		}
		b.size = 0
	}
	b.line++
	if p.kind == pieceBad {
		e := p.reason
		e.Line = b.line
		b.b.Errors = append(b.b.Errors, e)
		return nil
	}
	b.kept++
	f.Line = b.line
	f.Bytes = bytes.Clone(f.Bytes)
	if f.Origin == nil {
		f.Origin = &event.Origin{Chunk: -1, Record: b.kept}
	}
	f.Origin.File = b.digest
	b.size += len(f.Bytes)
	b.b.Frames = append(b.b.Frames, *f)
	return nil
}

// flush hands the batch on and sends the one that was held.
func (b *batcher) flush(ctx context.Context) error {
	if len(b.b.Frames)+len(b.b.Errors) == 0 {
		return nil
	}
	err := b.im.send(ctx, false)
	mine := b.im.r.Files[b.n].Err == ""
	if err == nil || errors.Is(err, errSkip) && mine { // the file before was refused, not this one
		b.im.held = &heldBatch{b: b.b, file: b.n}
		b.im.r.Files[b.n].Frames += len(b.b.Frames)
		err = nil
	}
	b.b = event.Batch{}
	b.im.progress(b.m.Name, b.file.at.read.Load())
	return err
}

// send seals the held batch.
func (im *importer) send(ctx context.Context, final bool) error {
	if im.held == nil {
		return nil
	}
	b, f := im.held.b, &im.r.Files[im.held.file]
	im.held = nil
	b.Final = final
	for try := 1; ; try++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		res, err := im.o.Sink(ctx, b)
		if err == nil {
			refused := lineErrors(b.Errors, res.Errors)
			f.Refused += len(refused)
			f.Errors = append(f.Errors, refused[:min(len(refused), keptErrors-len(f.Errors))]...)
			f.Accepted += res.Accepted
			if res.Repeated {
				f.Repeated += res.Accepted
			}
			im.taken += len(b.Frames)
			return nil
		}
		var no *event.Refusal
		switch {
		case !errors.As(err, &no):
			return fmt.Errorf("%w: sealing records of %s: %w", errStop, f.Name, err)
		case no.Code == "busy" && try < importRetries:
			wait, _ := retryable(err)
			if err := sleep(ctx, wait); err != nil {
				return err
			}
		case no.Code == "busy", no.Code == "disk_low", no.Code == "source_unknown":
			return fmt.Errorf("%w: %w", errStop, err)
		default: // no PIA for this kind of record, a key used for another body, refused
			if f.fail(no); f.Code == "" {
				f.Code = no.Code
			}
			f.Refused += len(b.Frames) + len(b.Errors)
			return errSkip
		}
	}
}
