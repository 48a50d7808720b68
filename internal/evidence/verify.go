package evidence

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/counterseal/counterseal/internal/durable"
	"github.com/counterseal/counterseal/internal/event"
)

// VerifyOptions are the choices of a caller of Verify.
type VerifyOptions struct {
	// Progress, if set, is told bytes read and bytes there are. It is called by one
	// goroutine at a time.
	Progress func(done, total int64)
	// Known says how far segments were, as the ledger has it. A segment that holds
	// less, or another block there, is a problem. Only Records and Chain are read.
	Known map[uuid.UUID]Head
}

// Report is what Verify found. Evidence is sound when Problems is empty.
type Report struct {
	Segments []SegmentReport
	Problems []Problem
	Notes    []string // files that are no evidence, and headers never finished
	Records  uint64
	Blocks   uint64
	Bytes    int64
}

// OK reports whether nothing is wrong.
func (r *Report) OK() bool { return len(r.Problems) == 0 }

// SegmentReport says what one file holds.
type SegmentReport struct {
	Stream      Stream
	Compartment string
	Segment     uuid.UUID
	Seq         uint64
	State       string // open, closed, damaged
	Reason      string // for which it was closed
	Records     uint64
	Blocks      int
	Bytes       int64
	Cut         int64 // bytes of a torn tail that recovery cut
	Unfinished  int64 // open segments: bytes behind the last whole block
	HasKey      bool  // its key card is there: it can still be opened
	HeaderHash  string
	RecordsRoot string
	BlocksRoot  string
	First, Last time.Time // of sealing a block; zero where they are not known
}

// Problem is one thing that is wrong.
type Problem struct {
	Stream      Stream
	Compartment string
	Segment     uuid.UUID
	Part        Part
	Block       int    // of Part block, else -1
	First, N    uint64 // records of that block, as far as known
	What        string
}

// Part is a part of a segment, or of what binds segments together.
type Part string

// Parts that a Problem names.
const (
	PartHeader  Part = "header"
	PartBlock   Part = "block"
	PartFooter  Part = "footer"
	PartTrailer Part = "trailer"
	PartLink    Part = "link" // number and hash that bind it to the segment before
	PartTail    Part = "tail" // the saved bytes of a torn end
	PartFile    Part = "file"
	PartCard    Part = "card" // its key card: a card that holds no key of it
)

func (p Problem) String() string {
	at := fmt.Sprintf("%s/%s/%s: %s", p.Stream, p.Compartment, p.Segment, p.Part)
	if p.Part == PartBlock {
		at += fmt.Sprintf(" %d", p.Block)
		if p.N > 0 {
			at += fmt.Sprintf(" (records %d to %d)", p.First, p.First+p.N-1)
		}
	}
	return at + ": " + p.What
}

// Verify checks all evidence under a data directory by its files alone: it takes no
// lock and needs no key, also while a server writes. It recomputes checksums, the
// chain of blocks, both trees, counts and tables, and the links between segments.
// It cannot show that the newest segments of a compartment were not taken away, nor
// that a whole chain was not written anew: the ledger can. An error means that it
// could not do its work; what is wrong with evidence is in the Report.
func Verify(ctx context.Context, dir string, o VerifyOptions) (Report, error) {
	var rep Report
	root := filepath.Join(dir, "evidence")
	if _, err := os.Stat(root); err != nil {
		return rep, fmt.Errorf("verifying: no evidence in %s: %w", dir, err)
	}
	var jobs []*job
	total := int64(0)
	for _, stream := range streams {
		des, err := os.ReadDir(filepath.Join(root, stream.String()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return rep, fmt.Errorf("verifying: %w", err)
		}
		for _, de := range des {
			path := filepath.Join(root, stream.String(), de.Name())
			if !de.IsDir() || event.CheckCompartment(de.Name()) != nil {
				rep.Notes = append(rep.Notes, path+" is no compartment")
				continue
			}
			js, notes, err := list(dir, stream, de.Name())
			if err != nil {
				return rep, fmt.Errorf("verifying: %w", err)
			}
			rep.Notes = append(rep.Notes, notes...)
			for _, j := range js {
				total += j.size
			}
			jobs = append(jobs, js...)
		}
	}

	var mu sync.Mutex // guards done
	done := int64(0)
	progress := func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		done += n
		if o.Progress != nil {
			o.Progress(done, max(total, done))
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, j := range jobs {
		g.Go(func() error {
			if err := j.verify(ctx, progress); err != nil {
				return fmt.Errorf("verifying %s/%s/%s: %w", j.rep.Stream, j.rep.Compartment, j.rep.Segment, err)
			}
			if known, ok := o.Known[j.rep.Segment]; ok {
				j.compare(known)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return rep, err
	}
	for i, j := range jobs {
		var before *job
		if i > 0 && jobs[i-1].rep.Stream == j.rep.Stream && jobs[i-1].rep.Compartment == j.rep.Compartment {
			before = jobs[i-1]
		}
		j.link(before)
		rep.Segments = append(rep.Segments, j.rep)
		rep.Problems = append(rep.Problems, j.problems...)
		rep.Records += j.rep.Records
		rep.Blocks += uint64(j.rep.Blocks)
		rep.Bytes += j.rep.Bytes
	}
	return rep, nil
}

// job is the verification of one file.
type job struct {
	rep      SegmentReport
	problems []Problem
	dataDir  string
	dir      string
	size     int64
	tail     bool  // a saved tail lies beside it
	head     *head // nil: unreadable
	end      hash  // what the next segment must name
	seq      uint64
	sums     *sums // nil where they do not hold
}

func (j *job) wrong(part Part, what string) {
	j.problems = append(j.problems, Problem{Stream: j.rep.Stream, Compartment: j.rep.Compartment, Segment: j.rep.Segment, Part: part, Block: -1, What: what})
}

func (j *job) wrongBlock(i int, first, n uint64, what string) {
	j.wrong(PartBlock, what)
	p := &j.problems[len(j.problems)-1]
	p.Block, p.First, p.N = i, first, n
}

// list finds the segments of a compartment. A server may rename while a directory
// is read, so it is read until two looks agree.
func list(dataDir string, stream Stream, compartment string) (jobs []*job, notes []string, err error) {
	dir := filepath.Join(dataDir, "evidence", stream.String(), compartment)
	var ids []uuid.UUID
	for range 10 {
		des, err := os.ReadDir(dir)
		if err != nil {
			return nil, nil, err
		}
		jobs, notes = nil, nil
		byID := map[uuid.UUID]*job{}
		tails := map[uuid.UUID]bool{}
		for _, de := range des {
			id, ext, ok := parseName(de.Name())
			switch {
			case durable.IsTemp(de.Name()):
				continue
			case ok && ext == extTail:
				tails[id] = true
				continue
			case ok && ext == extTorn:
				notes = append(notes, filepath.Join(dir, de.Name())+" is a segment whose header was never finished; it holds no record")
				continue
			case ok && (ext == extOpen || ext == extClosed || ext == extDamaged):
			default:
				notes = append(notes, filepath.Join(dir, de.Name())+" is no evidence")
				continue
			}
			if byID[id] != nil {
				continue // renamed between two entries; verify finds it by either name
			}
			j := &job{dataDir: dataDir, dir: dir, rep: SegmentReport{Stream: stream, Compartment: compartment, Segment: id}}
			if st, err := de.Info(); err == nil {
				j.size = st.Size()
			}
			byID[id] = j
			jobs = append(jobs, j)
		}
		for id := range tails {
			if j := byID[id]; j != nil {
				j.tail = true
			} else {
				notes = append(notes, filepath.Join(dir, id.String()+extTail)+" belongs to no segment")
			}
		}
		slices.SortFunc(jobs, func(a, b *job) int { return bytes.Compare(a.rep.Segment[:], b.rep.Segment[:]) })
		slices.Sort(notes)
		now := make([]uuid.UUID, len(jobs))
		for i, j := range jobs {
			now[i] = j.rep.Segment
		}
		if slices.Equal(now, ids) && ids != nil || len(now) == 0 {
			return jobs, notes, nil
		}
		ids = now
	}
	return jobs, notes, nil
}

// verify checks one file. Its error is one of the disk or of the context.
func (j *job) verify(ctx context.Context, progress func(int64)) error {
	var f *os.File
	for _, state := range []segState{segOpen, segClosed, segDamaged} { // the order of renames
		var err error
		if f, err = os.Open(filepath.Join(j.dir, j.rep.Segment.String()+state.ext())); err == nil {
			j.rep.State = state.String()
			break
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if f == nil {
		j.wrong(PartFile, "it went away while it was verified")
		return nil
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	j.size, j.rep.Bytes = st.Size(), st.Size()
	if _, err := os.Stat(cardPath(j.dataDir, j.rep.Segment)); err == nil {
		j.rep.HasKey = true
	}
	if j.rep.State == segDamaged.String() {
		j.wrong(PartFile, "it was found damaged and set aside")
		if j.end, err = fileHash(f.Name()); err != nil {
			return err
		}
	}
	w := &window{r: countingReader{r: f, ctx: ctx, progress: progress}, size: j.size}
	hd, err := readHead(w)
	switch {
	case err != nil && isStop(err):
		return err
	case err != nil && j.rep.State == segOpen.String():
		torn, terr := tornHeader(w.r, w.size)
		if terr != nil {
			return terr
		}
		if torn { // being begun just now, or never finished: no record yet
			j.rep.Unfinished = w.size
			return nil
		}
		j.wrong(PartHeader, err.Error())
		return nil
	case err != nil:
		j.wrong(PartHeader, err.Error())
		return nil
	case hd.id != j.rep.Segment || hd.stream != j.rep.Stream || hd.Compartment != j.rep.Compartment:
		j.wrong(PartHeader, "it names another segment than the file does")
		return nil
	}
	j.head = hd
	if j.rep.HasKey {
		if err := checkCard(j.dataDir, hd); err != nil {
			j.wrong(PartCard, err.Error())
		}
	}
	j.rep.Seq, j.rep.HeaderHash = hd.seq, hd.hash.String()
	switch j.rep.State {
	case segClosed.String():
		return j.closed(w)
	case segDamaged.String():
		return j.prefix(w, true)
	}
	return j.prefix(w, false)
}

// prefix checks a segment without a footer from its beginning.
func (j *job) prefix(w *window, damaged bool) error {
	sc, err := scanSegment(w.r, w.size)
	if err != nil {
		return err // the header was readable a moment ago
	}
	if sc.why != nil && isStop(sc.why) {
		return sc.why
	}
	j.took(&sc.sums)
	if sc.complete {
		j.rep.Reason = sc.foot.Reason
		return nil
	}
	if sc.end == w.size {
		return nil
	}
	if !damaged {
		torn, _, err := sc.tornTail(w.r, w.size)
		if err != nil {
			return err
		}
		if torn {
			j.rep.Unfinished = w.size - sc.end
			return nil
		}
	}
	what := "bytes after the footer"
	if sc.why != nil {
		what = sc.why.Error()
	}
	j.wrongBlock(len(sc.table), sc.records, 0, what)
	return nil
}

func (j *job) took(s *sums) {
	j.rep.Records, j.rep.Blocks = s.records, len(s.table)
	j.rep.RecordsRoot, j.rep.BlocksRoot = s.recs.root().String(), s.blocks.root().String()
	if len(s.table) > 0 {
		j.rep.First, j.rep.Last = time.UnixMilli(int64(s.firstMS)).UTC(), time.UnixMilli(int64(s.lastMS)).UTC()
	}
	j.sums = s
}

// compare holds the segment against how far it was.
func (j *job) compare(known Head) {
	if known.Records == 0 || len(j.problems) > 0 { // what is wrong was said
		return
	}
	if known.Records > j.rep.Records {
		j.wrong(PartFile, fmt.Sprintf("it holds %d records, and held %d when the ledger says so: its end was cut off", j.rep.Records, known.Records))
		return
	}
	if j.sums == nil || len(j.sums.chain) != len(j.sums.table) {
		return
	}
	for i, h := range j.sums.chain {
		next := j.rep.Records
		if i+1 < len(j.sums.table) {
			next = j.sums.table[i+1].first
		}
		if next < known.Records {
			continue
		}
		if next != known.Records || h.String() != known.Chain {
			first := j.sums.table[i].first
			j.wrongBlock(i, first, next-first, "it is not the block that the ledger knows: the segment was written anew")
		}
		return
	}
}

// closed checks a segment with a footer, whose table tells where each block must
// be, so that one damaged block does not hide the next.
func (j *job) closed(w *window) error {
	end := w.size // of the blocks
	var foot *parsedFooter
	t, err := w.at(max(0, w.size-trailerLen), int(min(trailerLen, w.size)))
	if err != nil {
		return err
	}
	off, n, err := parseTrailer(t, w.size)
	if err != nil {
		j.wrong(PartTrailer, err.Error())
	} else {
		end = off
		b, err := w.at(off, n)
		if err != nil {
			return err
		}
		if foot, err = parseFooter(bytes.Clone(b), off); err != nil {
			j.wrong(PartFooter, err.Error())
		} else {
			j.end = foot.hash
			j.rep.Reason, j.rep.Cut = foot.Reason, foot.Cut
			if err := j.checkTail(foot); err != nil {
				return err
			}
		}
	}
	s := newSums(j.head)
	bad := false   // something was wrong: totals need not fit
	loose := false // the block before was: its hash is not known
	for i := 0; s.end < end; i++ {
		b, h, err := w.frameAt(s.end)
		if err != nil && isStop(err) {
			return err
		}
		if err == nil && foot == nil && h.typ == frameFooter {
			break // its trailer is damaged, or it is itself; said already
		}
		size, first, count := int64(len(b)), s.records, uint64(h.n)
		if foot != nil { // the table knows better than a damaged frame
			if i >= len(foot.table) {
				j.wrong(PartFooter, "its table ends before the blocks do")
				bad = true
				break
			}
			next, nextFirst := end, foot.Records
			if i+1 < len(foot.table) {
				next, nextFirst = foot.table[i+1].off, foot.table[i+1].first
			}
			if foot.table[i] != (blockAt{off: s.end, first: s.records}) {
				j.wrong(PartFooter, fmt.Sprintf("its table does not fit block %d", i))
				bad = true
				break
			}
			first, count = foot.table[i].first, nextFirst-foot.table[i].first
			if err == nil && (next-s.end != size || uint64(h.n) != count) {
				err = errors.New("it is not as long as the table says")
			}
			size = next - s.end
		}
		if err == nil && h.typ != frameData {
			err = errors.New("it is no data frame")
		}
		if err == nil {
			if err = s.follows(&h); errors.Is(err, errChain) {
				switch {
				case loose: // said about the block before
					err = nil
				case i == 0:
					j.wrong(PartHeader, "block 0 names another hash of it")
					bad, err = true, nil
				default:
					prev := s.table[i-1].first
					j.wrongBlock(i-1, prev, first-prev, fmt.Sprintf("block %d names another hash of it", i))
					bad, err = true, nil
				}
			}
		}
		if err != nil {
			bad, loose = true, true
			j.wrongBlock(i, first, count, err.Error())
			if foot == nil {
				j.took(&s)
				return nil // nobody knows where the next one begins
			}
			s.table = append(s.table, blockAt{off: s.end, first: first})
			s.end, s.records = s.end+size, first+count
			continue
		}
		s.add(&h, b)
		loose = false
	}
	if foot == nil || bad {
		j.rep.Records, j.rep.Blocks = s.records, len(s.table)
		return nil
	}
	j.took(&s)
	b, err := w.at(end, n)
	if err != nil {
		return err
	}
	if s.last.String() != foot.LastPrev && len(s.table) > 0 {
		prev := s.table[len(s.table)-1].first
		j.wrongBlock(len(s.table)-1, prev, s.records-prev, "the footer names another hash of it")
	} else if _, err := s.checkFooter(b); err != nil {
		j.wrong(PartFooter, err.Error())
	}
	return nil
}

// checkTail compares the saved bytes of a torn end with what the footer says.
func (j *job) checkTail(foot *parsedFooter) error {
	if foot.Cut == 0 {
		if j.tail {
			j.wrong(PartTail, "it is there, and the footer says that nothing was cut")
		}
		return nil
	}
	digest, err := fileHash(filepath.Join(j.dir, j.rep.Segment.String()+extTail))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		j.wrong(PartTail, "it is missing")
	case err != nil:
		return err
	case digest.String() != foot.CutSHA256:
		j.wrong(PartTail, "it is not what was cut")
	}
	return nil
}

// link checks number and hash against the segment before, nil for the first one.
func (j *job) link(before *job) {
	want := uint64(1)
	if before != nil {
		want = before.seq + 1
	}
	j.seq = want
	if j.head == nil {
		return // said already; the number is believed
	}
	j.seq = j.head.seq
	if j.seq != want {
		j.wrong(PartLink, fmt.Sprintf("it is number %d where number %d must be: a segment is missing or was put in", j.seq, want))
		return
	}
	if before == nil {
		return
	}
	p := j.head.Prev
	state := prevClosed
	if before.rep.State == segDamaged.String() {
		state = prevDamaged
	}
	switch {
	case p.Segment != before.rep.Segment.String():
		j.wrong(PartLink, "it names another segment before it")
	case before.end == (hash{}): // its footer cannot be read, or it is open: said there
		if before.rep.State == segOpen.String() {
			j.wrong(PartLink, "it was begun while the segment before is open")
		}
	case p.State != state:
		j.wrong(PartLink, "the segment before is "+before.rep.State+" and it says "+p.State)
	case p.Hash != before.end.String():
		before.wrongEnd(j)
	}
}

// wrongEnd says that the next segment knows this one otherwise. It is booked on the
// next one, since this one may be reported already.
func (j *job) wrongEnd(next *job) {
	what := "the footer of segment " + j.rep.Segment.String() + " is not the one that it names"
	if j.rep.State == segDamaged.String() {
		what = "segment " + j.rep.Segment.String() + " was changed after it was set aside"
	}
	next.wrong(PartLink, what)
}

// countingReader tells progress, and stops when the context ends.
type countingReader struct {
	r        io.ReaderAt
	ctx      context.Context // lives as long as one Verify
	progress func(int64)
}

func (c countingReader) ReadAt(b []byte, off int64) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.ReadAt(b, off)
	c.progress(int64(n))
	return n, err
}

// isStop tells an error that ends Verify from one of the bytes.
func isStop(err error) bool {
	return isDisk(err) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
