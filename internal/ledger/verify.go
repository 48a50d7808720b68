package ledger

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/counterseal/counterseal/internal/durable"
)

// Finding is something in a directory that is not as it was written.
type Finding struct {
	File  string // below the directory of the ledger
	Index int64  // of the statement, or -1
	What  string
}

func (f Finding) String() string {
	if f.Index < 0 {
		return f.File + ": " + f.What
	}
	return f.File + ": statement " + strconv.FormatInt(f.Index, 10) + ": " + f.What
}

// Report is what VerifyDir found.
type Report struct {
	Origin       string
	Size         uint64 // statements in the log
	Root         string // hex, at that size
	Published    uint64 // of them under a checkpoint signed by the log
	Witnessed    uint64 // of them under one with enough cosignatures
	WitnessedAt  time.Time
	Cosignatures []Cosignature
	Bytes        int64             // of statements
	Last         map[string]uint64 // by node: its last number
	Pending      int               // statements written down that the next start will add
	Findings     []Finding
	More         int // findings beyond maxFindings
}

// OK reports whether all is as it was written. Statements that no witness has seen
// are not a finding: they are Size - Witnessed.
func (r *Report) OK() bool { return len(r.Findings) == 0 }

const maxFindings = 100

// seqWindow is how far apart two statements of a node may stand in exchanged order:
// a batch that the disk refused may be added again behind the next one.
const seqWindow = 2 * groupCount

func (r *Report) add(file string, index int64, what string) {
	if len(r.Findings) >= maxFindings {
		r.More++
		return
	}
	r.Findings = append(r.Findings, Finding{file, index, what})
}

// VerifyDir checks the directory of a ledger with the keys of v alone: the form,
// hash, id and number of each statement, each tile, the roots under each checkpoint
// and their signatures, payloads against their digests. It takes no lock and opens
// no lock file, so it may run beside the writer, in its process too. It returns an
// error where it could not judge.
//
// Not covered, because nothing is lost with it: the library's note of what it has
// collected (.state/gcState), and files that are no part of the log. Who can sign
// for the log and change every file can take the end away; v.Known, or a witness,
// is what finds that.
func VerifyDir(ctx context.Context, dir string, v Verifiers) (Report, error) {
	r := Report{Last: map[string]uint64{}}
	t, err := v.parse()
	if err != nil {
		return r, fmt.Errorf("verifying the ledger: %w", err)
	}
	r.Origin = t.origin
	f := files{root: filepath.Join(dir, logDir)}
	if _, err := os.Stat(f.root); err != nil {
		return r, fmt.Errorf("verifying the ledger: %w", err)
	}
	// From the oldest to the newest, since the log grows while we read.
	marks := map[int64][]mark{}
	var top int64
	if v.Known != nil {
		o, err := t.open(v.Known)
		if err != nil {
			return r, fmt.Errorf("verifying the ledger: the known checkpoint: %w", err)
		}
		marks[o.size] = append(marks[o.size], mark{"the checkpoint known from elsewhere", o.root})
		top = max(top, o.size)
	}
	raw, err := f.read("../"+witnessedName, maxCheckpoint)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if t.threshold > 0 {
			r.add(witnessedName, -1, "there is no witnessed checkpoint")
		}
	case err != nil:
		return r, fmt.Errorf("verifying the ledger: %w", err)
	default:
		o, err := t.open(raw)
		if err != nil {
			r.add(witnessedName, -1, err.Error())
			break
		}
		marks[o.size] = append(marks[o.size], mark{witnessedName, o.root})
		top = max(top, o.size)
		r.Cosignatures, r.WitnessedAt = o.cosig, o.at
		if t.witnessed(o) {
			r.Witnessed = uint64(o.size)
		} else if t.threshold > 0 {
			r.add(witnessedName, -1, fmt.Sprintf("%d of %d cosignatures", o.count, t.threshold))
		}
	}
	if raw, err := f.read("checkpoint", maxCheckpoint); err != nil {
		r.add("log/checkpoint", -1, "there is no checkpoint")
	} else if o, err := t.open(raw); err != nil {
		r.add("log/checkpoint", -1, err.Error())
	} else {
		marks[o.size] = append(marks[o.size], mark{"log/checkpoint", o.root})
		top = max(top, o.size)
		r.Published = uint64(o.size)
	}
	box, boxErr := readWholeOutbox(ctx, filepath.Join(dir, outboxName))
	st, err := f.state()
	if err != nil {
		r.add("log/.state/treeState", -1, err.Error())
		st.size = top // go on with what is signed
	} else {
		marks[st.size] = append(marks[st.size], mark{"log/.state/treeState", st.root})
	}
	if st.size < top {
		for size, ms := range marks {
			for _, m := range ms {
				if size > st.size {
					r.add("log", -1, fmt.Sprintf("the log is truncated: it has %d statements, %s has %d", st.size, m.name, size))
				}
			}
		}
	}
	if b, err := f.read(".state/version", 16); err != nil || string(b) != "1" {
		r.add("log/.state/version", -1, "it is not 1")
	}
	r.Size, r.Root = uint64(st.size), hex.EncodeToString(st.root[:])
	w := walker{r: &r, f: f, size: st.size, marks: marks, gaps: map[string]*numbers{}, each: v.Each}
	if err := w.run(ctx); err != nil {
		return r, err
	}
	if w.cut && err == nil && st.size > top { // nothing signed says that so many must be there
		r.add("log/.state/treeState", -1, fmt.Sprintf("it says %d statements and not all can be read; %d are signed: either it or the statements were changed", st.size, top))
	}
	if err := verifyOutbox(&r, box, boxErr, &w); err != nil {
		return r, err
	}
	return r, verifySide(ctx, &r, dir)
}

// mark is a root that some file claims at a size.
type mark struct {
	name string
	root tlog.Hash
}

// idAt is an id and where it stands.
type idAt struct {
	id    uuid.UUID
	index int64
}

// numbers follows the numbers of one node.
type numbers struct {
	next uint64           // the least that was not seen
	open map[uint64]int64 // seen above next, and at which index
}

// walker reads the log once from the start.
type walker struct {
	r     *Report
	f     files
	size  int64
	marks map[int64][]mark
	stack []tree // perfect subtrees, from the left
	tiles []tileSum
	ids   []idAt
	again []idAt // statements whose number was used before
	gaps  map[string]*numbers
	wrong []Finding // level 0 hashes that differ; whose fault it is shows at the end
	bad   bool      // a signed root differs
	each  func(uint64, Statement)
	cut   bool // the entries ended before size
}

// tileSum is the tile of a level that is being filled.
type tileSum struct {
	n    int64
	data []byte
}

func (w *walker) run(ctx context.Context) error {
	w.check(0)
	for n := int64(0); n*tileWidth < w.size && !w.cut; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		width := widthAt(w.size, n)
		raw, name, err := w.f.part("entries", n, width, maxBundle)
		name = logDir + "/" + name
		if err != nil {
			w.r.add(name, n*tileWidth, "the statements from here on cannot be read: "+reason(err))
			w.cut = true
			break
		}
		entries, err := splitBundle(raw)
		if err == nil && (len(entries) < width || !strings.HasSuffix(name, number(n)) && len(entries) != width || width == tileWidth && len(entries) != width) {
			err = fmt.Errorf("%d statements, not %d", len(entries), width)
		}
		if err != nil {
			w.r.add(name, n*tileWidth, "the statements from here on cannot be read: "+err.Error())
			w.cut = true
			break
		}
		ends := make([]int, 0, width)
		at := 0
		for i, leaf := range entries[:width] {
			w.leaf(name, n*tileWidth+int64(i), leaf)
			at += 2 + len(leaf)
			ends = append(ends, at)
		}
		w.stale("entries", n, func(k int) []byte {
			if k > width {
				return nil
			}
			return raw[:ends[k-1]]
		})
	}
	if w.cut {
		return nil
	}
	for level := range w.tiles {
		if t := &w.tiles[level]; len(t.data) > 0 {
			w.tile(level, t)
		}
	}
	for _, f := range w.wrong {
		if !w.bad {
			f.What = "the tile was changed: " + f.What
			f.Index = -1
		} else {
			f.File = logDir + "/" + tilePath("entries", f.Index/tileWidth, widthAt(w.size, f.Index/tileWidth))
			f.What = "the statement was changed: " + f.What
		}
		w.r.add(f.File, f.Index, f.What)
	}
	slices.SortFunc(w.ids, func(a, b idAt) int {
		return cmp.Or(bytes.Compare(a.id[:], b.id[:]), cmp.Compare(a.index, b.index))
	})
	for i := 1; i < len(w.ids); i++ {
		if w.ids[i].id == w.ids[i-1].id {
			w.double(w.ids[i-1].index, w.ids[i].index)
		}
	}
	for _, a := range w.again {
		if i, ok := w.first(a.id); !ok || w.ids[i].index == a.index {
			w.r.add(logDir, a.index, "its number was used before")
		}
	}
	for node, g := range w.gaps {
		w.r.Last[node] = g.next - 1
		for n := range g.open {
			w.r.Last[node] = max(w.r.Last[node], n)
		}
		if len(g.open) > 0 {
			w.r.add(logDir, -1, fmt.Sprintf("number %d of node %s is missing", g.next, node))
		}
	}
	return nil
}

// first finds the first place of an id, after the ids are sorted.
func (w *walker) first(id uuid.UUID) (int, bool) {
	return slices.BinarySearchFunc(w.ids, id, func(a idAt, id uuid.UUID) int { return bytes.Compare(a.id[:], id[:]) })
}

// double judges one id at two places: the same bytes are a repeated addition, of
// which the first counts, other bytes are not.
func (w *walker) double(a, b int64) {
	x, err := w.f.entry(w.size, a)
	y, err2 := w.f.entry(w.size, b)
	if err == nil && err2 == nil && bytes.Equal(x, y) {
		return
	}
	w.r.add(logDir, b, fmt.Sprintf("its id is that of statement %d", a))
}

func (w *walker) leaf(file string, index int64, leaf []byte) {
	w.r.Bytes += int64(len(leaf))
	s, err := Parse(leaf)
	if err != nil {
		w.r.add(file, index, err.Error())
	} else {
		w.ids = append(w.ids, idAt{s.ID, index})
		if w.each != nil {
			w.each(uint64(index), s)
		}
		w.number(file, index, &s)
	}
	h := tlog.RecordHash(leaf)
	w.push(0, h)
	w.stack = append(w.stack, tree{1, h})
	for n := len(w.stack); n > 1 && w.stack[n-1].size == w.stack[n-2].size; n = len(w.stack) {
		w.stack[n-2] = tree{2 * w.stack[n-2].size, tlog.NodeHash(w.stack[n-2].root, w.stack[n-1].root)}
		w.stack = w.stack[:n-1]
	}
	w.check(index + 1)
}

// check compares the root with those claimed for a size.
func (w *walker) check(size int64) {
	for _, m := range w.marks[size] {
		root, _ := tlog.TreeHash(0, nil)
		for i, t := range slices.Backward(w.stack) {
			if i == len(w.stack)-1 {
				root = t.root
			} else {
				root = tlog.NodeHash(t.root, root)
			}
		}
		if root != m.root {
			w.r.add(m.name, -1, fmt.Sprintf("its root is not that of the first %d statements", size))
			w.bad = true
		}
	}
}

// number follows the numbers of a node. A statement that was added twice has its
// number twice; whether it was is known when all ids are.
func (w *walker) number(file string, index int64, s *Statement) {
	node, seq := s.Node, s.Seq
	g := w.gaps[node]
	if g == nil {
		g = &numbers{next: 1, open: map[uint64]int64{}}
		w.gaps[node] = g
	}
	if _, ok := g.open[seq]; ok || seq < g.next {
		w.again = append(w.again, idAt{s.ID, index})
		return
	}
	g.open[seq] = index
	for {
		if _, ok := g.open[g.next]; !ok {
			break
		}
		delete(g.open, g.next)
		g.next++
	}
	if len(g.open) > seqWindow {
		w.r.add(file, index, fmt.Sprintf("number %d of node %s is missing", g.next, node))
		for { // once per gap
			g.next++
			if _, ok := g.open[g.next]; ok {
				break
			}
		}
		for {
			if _, ok := g.open[g.next]; !ok {
				break
			}
			delete(g.open, g.next)
			g.next++
		}
	}
}

// push adds a hash to the tile of a level.
func (w *walker) push(level int, h tlog.Hash) {
	if level == len(w.tiles) {
		w.tiles = append(w.tiles, tileSum{})
	}
	t := &w.tiles[level]
	t.data = append(t.data, h[:]...)
	if len(t.data) < tileWidth*tlog.HashSize {
		return
	}
	w.tile(level, t)
	up := make([]tlog.Hash, tileWidth)
	for i := range up {
		up[i] = tlog.Hash(t.data[i*tlog.HashSize:])
	}
	for ; len(up) > 1; up = up[:len(up)/2] {
		for i := range len(up) / 2 {
			up[i] = tlog.NodeHash(up[2*i], up[2*i+1])
		}
	}
	next := tileSum{n: t.n + 1, data: t.data[:0]}
	*t = next
	w.push(level+1, up[0])
}

// tile compares what a tile must hold with its file.
func (w *walker) tile(level int, t *tileSum) {
	width := len(t.data) / tlog.HashSize
	b, name, err := w.f.part(strconv.Itoa(level), t.n, width, tileWidth*tlog.HashSize)
	file := logDir + "/" + name
	switch {
	case err != nil:
		w.r.add(file, -1, "the tile cannot be read: "+reason(err))
	case len(b) < len(t.data) || name == tilePath(strconv.Itoa(level), t.n, width) && len(b) != len(t.data):
		w.r.add(file, -1, fmt.Sprintf("the tile has %d bytes, not %d", len(b), len(t.data)))
	default:
		for i := range width {
			if bytes.Equal(b[i*tlog.HashSize:(i+1)*tlog.HashSize], t.data[i*tlog.HashSize:(i+1)*tlog.HashSize]) {
				continue
			}
			if level > 0 {
				w.r.add(file, -1, fmt.Sprintf("hash %d is wrong", i))
				continue
			}
			w.wrong = append(w.wrong, Finding{file, t.n*tileWidth + int64(i), fmt.Sprintf("hash %d of tile %s is not that of statement %d", i, name, t.n*tileWidth+int64(i))})
		}
	}
	own := t.data
	w.stale(strconv.Itoa(level), t.n, func(k int) []byte {
		if k*tlog.HashSize > len(own) {
			return nil
		}
		return own[:k*tlog.HashSize]
	})
}

// stale compares partial tiles that were overtaken and not collected yet: each is
// the beginning of the tile. One that is longer than the log belongs to a batch
// that is being written, or never was acknowledged.
func (w *walker) stale(level string, n int64, want func(k int) []byte) {
	dir := tilePath(level, n, tileWidth) + ".p"
	des, err := os.ReadDir(filepath.Join(w.f.root, filepath.FromSlash(dir)))
	if err != nil {
		return // none, or collected meanwhile
	}
	for _, d := range des {
		k, err := strconv.Atoi(d.Name())
		if err != nil || k < 1 || k >= tileWidth || strconv.Itoa(k) != d.Name() {
			continue
		}
		must := want(k)
		if must == nil {
			continue
		}
		b, err := w.f.read(dir+"/"+d.Name(), maxBundle)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil || !bytes.Equal(b, must) {
			w.r.add(logDir+"/"+dir+"/"+d.Name(), -1, "it is not the beginning of its tile")
		}
	}
}

// readWholeOutbox reads an outbox that may be written at the moment: a torn end
// counts when it stays.
func readWholeOutbox(ctx context.Context, path string) (outboxContent, error) {
	for try := 0; ; try++ {
		c, err := readOutbox(path)
		if err != nil || !c.torn || try == 5 {
			return c, err
		}
		select {
		case <-ctx.Done():
			return c, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func verifyOutbox(r *Report, c outboxContent, err error, w *walker) error {
	if errors.Is(err, fs.ErrNotExist) {
		r.add(outboxName, -1, "there is no outbox")
		return nil
	}
	if err != nil {
		return fmt.Errorf("verifying the outbox: %w", err)
	}
	if c.damage != "" {
		r.add(outboxName, -1, c.damage)
	} else if c.torn {
		r.add(outboxName, -1, "its end is a write that was cut short, or was changed")
	}
	if c.base > w.size {
		r.add(outboxName, -1, fmt.Sprintf("the log is truncated: it has %d statements, the outbox was begun at %d", w.size, c.base))
	}
	var near [][]byte // the last bundle: lines follow the order of the log
	nearN := int64(-1)
	for i, leaf := range c.leaves {
		s, err := Parse(leaf)
		if err != nil {
			r.add(outboxName, -1, fmt.Sprintf("line %d: %v", i+1, err))
			continue
		}
		at, ok := w.first(s.ID)
		if !ok {
			r.Pending++
			continue
		}
		index := w.ids[at].index
		if n := index / tileWidth; n != nearN {
			if near, err = w.f.bundle(n, widthAt(w.size, n)); err != nil {
				near = nil // found already
			}
			nearN = n
		}
		if near != nil && !bytes.Equal(near[index%tileWidth], leaf) {
			r.add(outboxName, index, "it differs from the line with its id")
		}
	}
	return nil
}

// verifySide checks payloads and incidents against the digests in their names.
func verifySide(ctx context.Context, r *Report, dir string) error {
	for _, sub := range []string{payloadDir, incidentDir} {
		des, err := os.ReadDir(filepath.Join(dir, sub))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("verifying the ledger: %w", err)
		}
		for _, d := range des {
			if err := ctx.Err(); err != nil {
				return err
			}
			if durable.IsTemp(d.Name()) {
				continue
			}
			b, err := os.ReadFile(filepath.Join(dir, sub, d.Name()))
			if errors.Is(err, fs.ErrNotExist) {
				continue // dropped meanwhile
			}
			if err != nil {
				return fmt.Errorf("verifying the ledger: %w", err)
			}
			if sub == payloadDir && !payloadHolds(d.Name(), b) || sub == incidentDir && !incidentHolds(d.Name(), b) {
				r.add(sub+"/"+d.Name(), -1, "its bytes are not those of its name")
			}
		}
	}
	return nil
}

// reason is an error without the path that the finding names already.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}
