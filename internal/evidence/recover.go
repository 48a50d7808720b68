package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/durable"
)

// Names of files in the directory of a compartment, behind the segment UUID.
const (
	extOpen    = ".open"    // being written
	extClosed  = ".seg"     // closed with a footer, read-only
	extDamaged = ".damaged" // set aside, read-only, as found
	extTorn    = ".torn"    // header never finished: no record was accepted, no number used
	extTail    = ".tail"    // bytes cut off a torn end
)

type segState uint8

const (
	segOpen segState = iota
	segClosed
	segDamaged
)

func (s segState) ext() string { return [...]string{extOpen, extClosed, extDamaged}[s] }

func (s segState) String() string { return [...]string{"open", "closed", "damaged"}[s] }

// Recovery is one thing that Open found and did.
type Recovery struct {
	Stream      Stream
	Compartment string
	Segment     uuid.UUID
	Kind        RecoveryKind
	Records     uint64 // readable in it
	Cut         int64  // bytes cut off
	Tail        string // file that holds them
	SHA256      string // of the cut bytes, or of a file set aside just now
	Reason      string // of damage
}

// RecoveryKind says what was done with a segment.
type RecoveryKind string

// Kinds of recovery.
const (
	// RecoveredClosed: a segment that was open got its footer; nothing was cut.
	RecoveredClosed RecoveryKind = "closed"
	// RecoveredTorn: a torn tail was cut. It held nothing that was acknowledged.
	RecoveredTorn RecoveryKind = "torn"
	// RecoveredHeader: a segment whose header was never finished was set aside.
	RecoveredHeader RecoveryKind = "header"
	// RecoveredDamaged: the segment is damaged and was set aside, now or earlier. The
	// records before the damage are still read.
	RecoveredDamaged RecoveryKind = "damaged"
)

func (r Recovery) String() string {
	at := fmt.Sprintf("%s/%s segment %s", r.Stream, r.Compartment, r.Segment)
	switch r.Kind {
	case RecoveredTorn:
		return fmt.Sprintf("%s: a torn tail of %d bytes was cut and saved as %s; %d records", at, r.Cut, r.Tail, r.Records)
	case RecoveredHeader:
		return at + ": its header was never finished; it held no record and was set aside"
	case RecoveredDamaged:
		return fmt.Sprintf("%s: damaged (%s); set aside, its first %d records can be read", at, r.Reason, r.Records)
	}
	return fmt.Sprintf("%s: was open and is closed now; %d records", at, r.Records)
}

// scan is what a walk over a file found, without any key.
type scan struct {
	sums
	head     *head
	foot     *parsedFooter // a valid footer stands at sums.end
	complete bool          // the right trailer follows and ends the file
	why      error         // what stopped the walk
}

// scanSegment walks a file from its header. An error is one of the header or of the
// disk.
func scanSegment(r io.ReaderAt, size int64) (*scan, error) {
	w := &window{r: r, size: size}
	hd, err := readHead(w)
	if err != nil {
		return nil, err
	}
	sc := &scan{head: hd, sums: newSums(hd)}
	for sc.end < size {
		b, h, err := w.frameAt(sc.end)
		if err != nil {
			sc.why = err
			return sc, nil
		}
		if h.typ == frameFooter {
			if sc.foot, err = sc.checkFooter(b); err != nil {
				sc.why = err
				return sc, nil
			}
			rest := size - sc.end - int64(len(b))
			if rest == trailerLen {
				t, err := w.at(size-trailerLen, trailerLen)
				if err != nil {
					return nil, err
				}
				sc.complete = bytes.Equal(t, trailerFor(sc.end, int(h.length)))
			}
			return sc, nil
		}
		if err := sc.follows(&h); err != nil {
			sc.why = err
			return sc, nil
		}
		sc.add(&h, b)
	}
	return sc, nil
}

// checkFooter compares a footer with the frames before it, byte by byte.
func (s *sums) checkFooter(b []byte) (*parsedFooter, error) {
	f, err := parseFooter(b, s.end)
	if err != nil {
		return nil, err
	}
	want, _, _ := s.footer(f.Reason, f.head.ms, f.Cut, f.CutSHA256)
	if !bytes.Equal(want, b) {
		return nil, errors.New("the footer does not agree with the frames")
	}
	return f, nil
}

// tornTail tells whether what follows sc.end is the rest of one write that was
// never finished: not longer than a frame, and without a frame that holds.
func (sc *scan) tornTail(r io.ReaderAt, size int64) (bool, []byte, error) {
	rest := size - sc.end
	if rest > maxFrame+trailerLen {
		return false, nil, nil
	}
	tail := make([]byte, rest)
	if _, err := r.ReadAt(tail, sc.end); err != nil && !(err == io.EOF && rest == 0) {
		return false, nil, err
	}
	search := tail
	if sc.foot != nil { // the footer is whole, its trailer is not: both were one write
		search = tail[sc.foot.head.length:]
		if len(search) > trailerLen {
			return false, tail, nil
		}
	}
	return !holdsFrame(search), tail, nil
}

func holdsFrame(b []byte) bool {
	for {
		i := bytes.Index(b, []byte(frameMagic))
		if i < 0 {
			return false
		}
		b = b[i:]
		if h, err := parseFrameHead(b); err == nil && int(h.length) <= len(b) {
			if _, err := checkFrame(b[:h.length]); err == nil {
				return true
			}
		}
		b = b[1:]
	}
}

// recover lists the directory, finishes what a crash left and sets the log up. It
// runs before the writer.
func (l *log) recover() ([]Recovery, error) {
	des, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, err
	}
	type found struct {
		id    uuid.UUID
		state segState
	}
	var files []found
	for _, de := range des {
		if durable.IsTemp(de.Name()) {
			if err := l.s.o.FS.Remove(filepath.Join(l.dir, de.Name())); err != nil {
				return nil, err
			}
			continue
		}
		id, ext, ok := parseName(de.Name())
		if !ok {
			continue
		}
		for _, st := range []segState{segOpen, segClosed, segDamaged} {
			if ext == st.ext() {
				files = append(files, found{id, st})
			}
		}
	}
	slices.SortFunc(files, func(a, b found) int { return bytes.Compare(a.id[:], b.id[:]) })
	var out []Recovery
	for _, f := range files {
		seg := &segment{id: f.id, state: f.state}
		switch f.state {
		case segOpen:
			if err := l.relink(&out); err != nil {
				return nil, err
			}
			rec, err := l.recoverFile(f.id, -1)
			if err != nil {
				return nil, err
			}
			out = append(out, rec)
			continue // recoverFile added it
		case segDamaged:
			rec := Recovery{Stream: l.stream, Compartment: l.compartment, Segment: f.id, Kind: RecoveredDamaged, Reason: "set aside by an earlier start"}
			rec.Records = l.readable(seg)
			seg.records = rec.Records
			out = append(out, rec)
		}
		l.segs = append(l.segs, seg)
	}
	return out, l.relink(&out)
}

// readable counts the records before the damage in a segment set aside.
func (l *log) readable(seg *segment) uint64 {
	rd, err := l.load(seg)
	if err != nil {
		return 0
	}
	rd.f.Close()
	return rd.records
}

// relink sets what the next segment says about the last one.
func (l *log) relink(out *[]Recovery) error {
	l.last = prevLink{}
	if len(l.segs) == 0 {
		return nil
	}
	seg := l.segs[len(l.segs)-1]
	if seg.state == segClosed {
		hd, foot, err := readEnds(l.path(seg.id, extClosed))
		if err == nil {
			seg.records, seg.end = foot.Records, foot.end
			l.last = prevLink{seq: hd.seq, id: seg.id, state: prevClosed, hash: foot.hash}
			return nil
		}
		if isDisk(err) {
			return err
		}
		rec, err := l.quarantine(seg, extClosed, err)
		if err != nil {
			return err
		}
		*out = append(*out, rec)
	}
	digest, err := fileHash(l.path(seg.id, extDamaged))
	if err != nil {
		return err
	}
	l.last = prevLink{seq: l.seqOf(len(l.segs) - 1), id: seg.id, state: prevDamaged, hash: digest}
	return nil
}

// seqOf is the number of a segment, counted from an earlier one where its own
// header cannot be read.
func (l *log) seqOf(i int) uint64 {
	for k := i; k >= 0; k-- {
		f, err := os.Open(l.path(l.segs[k].id, l.segs[k].state.ext()))
		if err != nil {
			continue
		}
		st, err := f.Stat()
		if err != nil {
			f.Close()
			continue
		}
		hd, err := readHead(&window{r: f, size: st.Size()})
		f.Close()
		if err == nil {
			return hd.seq + uint64(i-k)
		}
	}
	return uint64(i) + 1
}

// recoverFile brings a segment that is open, or failed, to its end. limit is the
// durable end where the writer knows it: then everything behind is cut, since
// after a failed sync nobody knows what the disk holds. -1: judge by the bytes.
func (l *log) recoverFile(id uuid.UUID, limit int64) (Recovery, error) {
	d := l.s.o.FS
	rec := Recovery{Stream: l.stream, Compartment: l.compartment, Segment: id}
	seg := l.find(id)
	if seg == nil {
		seg = &segment{id: id}
	}
	open, closed := l.path(id, extOpen), l.path(id, extClosed)
	f, err := d.OpenFile(open)
	if errors.Is(err, fs.ErrNotExist) { // closing failed behind the rename
		hd, foot, err := readEnds(closed)
		if err == nil {
			err = d.SyncDir(l.dir)
		}
		if err != nil {
			return rec, err
		}
		return l.recovered(rec, seg, hd, foot), nil
	}
	if err != nil {
		return rec, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return rec, err
	}
	upTo := size
	if limit >= 0 {
		upTo = min(limit, size)
	}
	sc, err := scanSegment(f, upTo)
	if err != nil {
		if isDisk(err) {
			return rec, err
		}
		torn, terr := tornHeader(f, size)
		if terr != nil {
			return rec, terr
		}
		if !torn {
			return l.setAside(rec, seg, f, err)
		}
		rec.Kind = RecoveredHeader
		return rec, d.Rename(open, l.path(id, extTorn))
	}
	if sc.head.id != id || sc.head.stream != l.stream || sc.head.Compartment != l.compartment {
		return l.setAside(rec, seg, f, errors.New("the header names another segment"))
	}
	if sc.complete {
		if err := l.finishFile(f, id); err != nil {
			return rec, err
		}
		return l.recovered(rec, seg, sc.head, sc.foot), nil
	}
	tail, torn := []byte(nil), true
	if limit >= 0 {
		if torn = sc.end == limit; torn {
			tail = make([]byte, size-limit)
			_, err = f.ReadAt(tail, limit)
			if err == io.EOF && len(tail) == 0 {
				err = nil
			}
		}
	} else {
		torn, tail, err = sc.tornTail(f, size)
	}
	if err != nil {
		return rec, err
	}
	if !torn {
		why := sc.why
		if why == nil {
			why = errors.New("bytes after the footer")
		}
		return l.setAside(rec, seg, f, fmt.Errorf("block %d at byte %d: %w", len(sc.table), sc.end, why))
	}
	if tail, err = l.saveTail(id, tail); err != nil {
		return rec, err
	}
	if err := f.Truncate(sc.end); err != nil {
		return rec, err
	}
	if len(tail) > 0 {
		digest := sha256.Sum256(tail)
		rec.Cut, rec.SHA256, rec.Tail = int64(len(tail)), hex.EncodeToString(digest[:]), id.String()+extTail
		if err := f.Sync(); err != nil {
			return rec, err
		}
	}
	frame, trailer, _ := sc.footer(reasonRecovered, uint64(max(l.s.o.Now().UnixMilli(), 0)), rec.Cut, rec.SHA256)
	if _, err := f.Write(append(frame, trailer...)); err != nil {
		return rec, err
	}
	if err := l.finishFile(f, id); err != nil {
		return rec, err
	}
	foot, err := parseFooter(frame, sc.end)
	if err != nil {
		return rec, err
	}
	return l.recovered(rec, seg, sc.head, foot), nil
}

func (l *log) finishFile(f *durable.File, id uuid.UUID) error {
	if err := f.Chmod(0o440); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return l.s.o.FS.Rename(l.path(id, extOpen), l.path(id, extClosed))
}

// recovered books a segment that has its footer now.
func (l *log) recovered(rec Recovery, seg *segment, hd *head, foot *parsedFooter) Recovery {
	rec.Kind, rec.Records = RecoveredClosed, foot.Records
	if rec.Cut > 0 {
		rec.Kind = RecoveredTorn
	}
	l.last = prevLink{seq: hd.seq, id: hd.id, state: prevClosed, hash: foot.hash}
	l.mu.Lock()
	seg.records, seg.end = foot.Records, foot.end
	l.keep(seg)
	l.mu.Unlock()
	l.settle(seg, segClosed)
	return rec
}

// keep adds a segment that is not listed yet. The caller holds mu.
func (l *log) keep(seg *segment) {
	if !slices.Contains(l.segs, seg) {
		l.segs = append(l.segs, seg)
	}
}

// setAside is quarantine for a segment that is not closed.
func (l *log) setAside(rec Recovery, seg *segment, f *durable.File, why error) (Recovery, error) {
	if err := f.Chmod(0o440); err != nil {
		return rec, err
	}
	if err := f.Sync(); err != nil {
		return rec, err
	}
	seg.head = nil // read again from the file
	l.mu.Lock()
	l.keep(seg)
	i := slices.Index(l.segs, seg)
	l.mu.Unlock()
	rec, err := l.quarantine(seg, extOpen, why)
	if err != nil {
		return rec, err
	}
	digest, err := parseHash(rec.SHA256)
	if err != nil {
		return rec, err
	}
	l.last = prevLink{seq: l.seqOf(i), id: seg.id, state: prevDamaged, hash: digest}
	return rec, nil
}

// quarantine gives a damaged file its name. Not a byte of it is changed.
func (l *log) quarantine(seg *segment, ext string, why error) (Recovery, error) {
	rec := Recovery{Stream: l.stream, Compartment: l.compartment, Segment: seg.id, Kind: RecoveredDamaged, Reason: why.Error()}
	if err := l.s.o.FS.Rename(l.path(seg.id, ext), l.path(seg.id, extDamaged)); err != nil {
		return rec, err
	}
	digest, err := fileHash(l.path(seg.id, extDamaged))
	if err != nil {
		return rec, err
	}
	rec.SHA256 = digest.String()
	l.settle(seg, segDamaged)
	n := l.readable(seg)
	l.mu.Lock()
	seg.records = n
	l.mu.Unlock()
	rec.Records = n
	return rec, nil
}

// saveTail writes the cut bytes beside the segment and gives everything that was
// ever cut there: a crash in the middle of a recovery leaves a tail of its own.
func (l *log) saveTail(id uuid.UUID, tail []byte) ([]byte, error) {
	path := l.path(id, extTail)
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if len(tail) == 0 || bytes.HasSuffix(old, tail) {
		return old, nil
	}
	all := append(old, tail...)
	return all, l.s.o.FS.WriteFile(path, all, 0o400)
}

// tornHeader tells whether a file whose head cannot be read was never finished:
// it holds no frame and is no longer than a head can be.
func tornHeader(r io.ReaderAt, size int64) (bool, error) {
	if size > preludeLen+maxHeader+4 {
		return false, nil
	}
	b := make([]byte, size)
	if _, err := r.ReadAt(b, 0); err != nil && !(err == io.EOF && size == 0) {
		return false, err
	}
	return !bytes.Contains(b, []byte(frameMagic)), nil
}

// readEnds reads header and footer of a closed file.
func readEnds(path string) (*head, *parsedFooter, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	hd, err := readHead(&window{r: f, size: st.Size()})
	if err != nil {
		return nil, nil, err
	}
	foot, _, err := readFooter(f, st.Size())
	if err != nil {
		return hd, nil, err
	}
	if foot.HeaderHash != hd.hash.String() {
		return hd, nil, errors.New("the footer belongs to another header")
	}
	return hd, foot, nil
}

// isDisk tells an error of the disk from one of the bytes.
func isDisk(err error) bool {
	var p *fs.PathError
	return errors.As(err, &p)
}

// fileHash is the SHA-256 of a file.
func fileHash(path string) (h hash, err error) {
	f, err := os.Open(path)
	if err != nil {
		return h, err
	}
	defer f.Close()
	d := sha256.New()
	if _, err := io.Copy(d, f); err != nil {
		return h, err
	}
	d.Sum(h[:0])
	return h, nil
}

// parseName splits the name of a file in a compartment.
func parseName(name string) (id uuid.UUID, ext string, ok bool) {
	s, _, found := strings.Cut(name, ".")
	id, err := uuid.Parse(s)
	if !found || err != nil || id.String() != s {
		return id, "", false
	}
	return id, name[len(s):], true
}
