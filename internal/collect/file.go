package collect

import (
	"archive/zip"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"

	"github.com/counterseal/counterseal/evtx"
	"github.com/counterseal/counterseal/internal/event"
)

// Formats that a frame of a file carries, since the file says so.
const (
	FormatEVTX = "evtx-json" // a record as evtx.Record.AppendJSON writes it
	FormatZeek = "zeek-tsv"  // a line; Frame.Header holds the header lines
)

// Shape is how the records of a content are framed.
type Shape uint8

// The shapes of a content.
const (
	Lines Shape = iota // a record a line
	JSON               // an array, a wrapper, or objects over several lines
	Zeek               // lines with header lines
	EVTX               // a Windows event log
)

func (s Shape) String() string {
	return [...]string{"lines", "json", "zeek", "evtx"}[s]
}

// Bounds of what a compressed file may become. Logs shrink to a twentieth; a
// hundredth is seen; beyond it is a file made to fill a disk.
const (
	MaxRatio    = 250       // times the size of the file, counted over a whole archive
	RatioFrom   = 64 << 20  // bytes up to which the ratio is not asked
	MaxExpanded = 256 << 30 // bytes of one file
	MaxMembers  = 100_000   // of one archive
)

// ErrBomb says that a compressed file grows beyond the bounds.
var ErrBomb = errors.New("the compressed file grows beyond its bounds")

// File is an opened file: itself, or an archive of members.
type File struct {
	Path string
	// Size is the size on disk, compressed.
	Size    int64
	Members []*Member

	f  *os.File
	at *position  // all reads of f go through it
	mu sync.Mutex // guards grown
	// grown is the most that each member was seen to hold.
	grown map[*Member]int64
}

// Member is one content: the file, decompressed, or one file of an archive.
type Member struct {
	Name  string // path of the file, for a member of an archive followed by "!" and its name
	Shape Shape
	Err   error // why it cannot be read at all; nil: it can

	file  *File
	open  func() (io.ReadCloser, error) // decompressed
	plain bool                          // the file itself
}

// Open opens a file and looks at its first bytes. What is known to be no log, such
// as a picture or an archive of an unknown kind, is an error. The caller closes it.
func Open(path string) (*File, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file but a %s", path, fileKind(st.Mode()))
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	o := &File{Path: path, Size: st.Size(), f: f, at: &position{f: f}, grown: make(map[*Member]int64)}
	if err := o.look(); err != nil {
		f.Close()
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	return o, nil
}

// position remembers how far a file was read, for a progress bar.
type position struct {
	f    *os.File
	read atomic.Int64
}

func (p *position) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.f.ReadAt(b, off)
	if end := off + int64(n); end > p.read.Load() {
		p.read.Store(end)
	}
	return n, err
}

// Close closes the file.
func (o *File) Close() error { return o.f.Close() }

func fileKind(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "folder"
	case m&fs.ModeNamedPipe != 0:
		return "pipe"
	case m&fs.ModeSocket != 0:
		return "socket"
	case m&fs.ModeDevice != 0:
		return "device"
	}
	return "special file"
}

const sniffBytes = 64 << 10

func (o *File) look() error {
	head, err := sniff(io.NewSectionReader(o.at, 0, o.Size))
	if err != nil {
		return err
	}
	if bytes.HasPrefix(head, []byte("PK\x03\x04")) || bytes.HasPrefix(head, []byte("PK\x05\x06")) {
		return o.lookZip()
	}
	m := &Member{Name: o.Path, file: o}
	pack := packing(head)
	m.plain = pack == packNone
	m.open = func() (io.ReadCloser, error) {
		return o.unpack(m, pack, io.NewSectionReader(o.at, 0, o.Size))
	}
	o.Members = []*Member{m}
	return m.look()
}

func (o *File) lookZip() error {
	z, err := zip.NewReader(o.at, o.Size)
	if err != nil {
		return err
	}
	if len(z.File) > MaxMembers {
		return fmt.Errorf("%w: %d members", ErrBomb, len(z.File))
	}
	for _, zf := range z.File {
		if zf.FileInfo().IsDir() {
			continue
		}
		m := &Member{Name: o.Path + "!" + zf.Name, file: o}
		pack := packNone
		m.open = func() (io.ReadCloser, error) {
			r, err := zf.Open()
			if err != nil {
				return nil, err
			}
			in, err := o.unpack(m, pack, r)
			if err != nil {
				r.Close()
				return nil, err
			}
			return &closers{in, r}, nil
		}
		// A member may be packed once more.
		if head, err := m.head(); err != nil {
			m.Err = err
		} else if pack = packing(head); bytes.HasPrefix(head, []byte("PK\x03\x04")) {
			m.Err = errors.New("an archive in an archive is not opened")
		} else {
			m.Err = m.look()
		}
		o.Members = append(o.Members, m)
	}
	return nil
}

// closers closes the reader that decompresses and the one below it.
type closers struct {
	io.ReadCloser
	below io.Closer
}

func (c *closers) Close() error { return errors.Join(c.ReadCloser.Close(), c.below.Close()) }

type packKind uint8

const (
	packNone packKind = iota
	packGzip
	packZstd
)

func packing(head []byte) packKind {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return packGzip
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return packZstd
	case len(head) >= 4 && head[0]&0xf0 == 0x50 && head[1] == 0x2a && head[2] == 0x4d && head[3] == 0x18: // skippable frame
		return packZstd
	}
	return packNone
}

// unpack decompresses r and counts what comes out against the bounds.
func (o *File) unpack(m *Member, pack packKind, r io.Reader) (io.ReadCloser, error) {
	var in io.ReadCloser
	switch pack {
	case packGzip:
		z, err := gzip.NewReader(bufio.NewReaderSize(r, 64<<10))
		if err != nil {
			return nil, err
		}
		in = z
	case packZstd:
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, err
		}
		in = z.IOReadCloser()
	default:
		in = io.NopCloser(r)
	}
	return &bounded{ReadCloser: in, m: m}, nil
}

// bounded stops a content that grows out of proportion.
type bounded struct {
	io.ReadCloser
	m *Member
	n int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	if !b.m.plain {
		if berr := b.m.file.grow(b.m, b.n); berr != nil {
			return 0, berr
		}
	}
	return n, err
}

func (o *File) grow(m *Member, n int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.grown[m] = max(o.grown[m], n)
	var all int64
	for _, g := range o.grown {
		all += g
	}
	switch {
	case n > MaxExpanded:
		return fmt.Errorf("%w: more than %d bytes", ErrBomb, int64(MaxExpanded))
	case all > RatioFrom && all > MaxRatio*o.Size:
		return fmt.Errorf("%w: more than %d times its size", ErrBomb, MaxRatio)
	}
	return nil
}

func sniff(r io.Reader) ([]byte, error) {
	head := make([]byte, sniffBytes)
	n, err := io.ReadFull(r, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return head[:n], err
	}
	return head[:n], nil
}

// head returns the first bytes of the content.
func (m *Member) head() ([]byte, error) {
	r, err := m.open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	head, err := sniff(r)
	if len(head) > 0 {
		return head, nil // damage further on is found by reading
	}
	return nil, err
}

// Formats that hold no log, or one that is packed in a way we do not read.
var notLogs = []struct{ magic, what string }{
	{"\xfd7zXZ\x00", "an xz file: unpack it first"},
	{"BZh", "a bzip2 file: unpack it first"},
	{"7z\xbc\xaf\x27\x1c", "a 7-Zip archive: unpack it first"},
	{"Rar!\x1a\x07", "a RAR archive: unpack it first"},
	{"\x04\x22\x4d\x18", "an lz4 file: unpack it first"},
	{"PK\x03\x04", "an archive in a compressed file: unpack it first"},
	{"\x1f\x8b", "compressed twice: unpack it first"},
	{"\xff\xfe", "UTF-16 text: convert it to UTF-8 first"},
	{"\xfe\xff", "UTF-16 text: convert it to UTF-8 first"},
	{"SQLite format 3\x00", "a database"},
	{"\x7fELF", "a program"},
	{"MZ\x90", "a program"},
	{"\x89PNG", "a picture"},
	{"\xff\xd8\xff", "a picture"},
	{"GIF8", "a picture"},
	{"%PDF-", "a PDF document"},
	{"\xd4\xc3\xb2\xa1", "a packet capture"},
	{"\xa1\xb2\xc3\xd4", "a packet capture"},
	{"\x0a\x0d\x0d\x0a", "a packet capture"},
	{"LPKSHHRH", "a systemd journal: export it with journalctl -o json"},
	{"regf", "a registry hive"},
}

// look finds the shape of the content.
func (m *Member) look() error {
	head, err := m.head()
	if err != nil {
		return err
	}
	switch {
	case bytes.HasPrefix(head, []byte("ElfFile\x00")):
		m.Shape = EVTX
		return nil
	case len(head) >= 4104 && string(head[4096:4104]) == "ElfChnk\x00":
		m.Shape = EVTX // its header is destroyed, its chunks are not
		return nil
	case len(head) >= 262 && string(head[257:262]) == "ustar":
		return errors.New("it is a tar archive: unpack it first")
	}
	for _, n := range notLogs {
		if strings.HasPrefix(string(head[:min(len(head), 16)]), n.magic) {
			return errors.New("it is " + n.what)
		}
	}
	text := bytes.TrimPrefix(head, bom)
	switch first := bytes.TrimLeft(text, " \t\r\n"); {
	case bytes.HasPrefix(text, []byte("#separator ")):
		m.Shape = Zeek
	case len(first) > 0 && first[0] == '[' && !looksJSONArray(first):
		m.Shape = Lines // a line that begins with a bracket: [error] ..., [2024-01-02 ...]
	case looksJSON(first):
		m.Shape = JSON
	}
	return nil
}

// looksJSONArray tells the array `[{`, `[[`, `["`, `[]` from a line of text in
// brackets.
func looksJSONArray(b []byte) bool {
	b = bytes.TrimLeft(b[1:], " \t\r\n")
	return len(b) > 0 && (b[0] == '{' || b[0] == '[' || b[0] == '"' || b[0] == ']')
}

// Damage counts what of a content could not be read, beside lines that were
// refused.
type Damage struct {
	Chunks  int // EVTX chunks that are damaged
	Records int // EVTX records that are damaged; what could be read of them was handed on
}

// Frames reads the content and hands each record to fn. Frame.Line counts from 1
// and counts refused records too; refused is told of these. The bytes of a frame
// are valid until fn returns. An error of fn ends the walk and is returned.
func (m *Member) Frames(ctx context.Context, fn func(*event.Frame) error, refused func(event.LineError)) (Damage, error) {
	line := 0
	return m.pieces(ctx, func(p *piece, f *event.Frame) error {
		switch p.kind {
		case pieceFrame:
			line++
			f.Line = line
			return fn(f)
		case pieceBad:
			line++
			if refused != nil {
				e := p.reason
				e.Line = line
				refused(e)
			}
		}
		return nil
	})
}

// pieces reads the content. With a piece that is a frame it hands the frame,
// without its number; an EVTX record is a piece whose raw bytes are no part of
// the content.
func (m *Member) pieces(ctx context.Context, emit func(*piece, *event.Frame) error) (Damage, error) {
	if m.Err != nil {
		return Damage{}, m.Err
	}
	if m.Shape == EVTX {
		return m.records(ctx, emit)
	}
	r, err := m.open()
	if err != nil {
		return Damage{}, err
	}
	defer r.Close()
	format := ""
	if m.Shape == Zeek {
		format = FormatZeek
	}
	each := func(p *piece) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return emit(p, &event.Frame{Bytes: p.body, Format: format, Header: p.header})
	}
	if m.Shape == JSON {
		return Damage{}, splitJSON(r, event.MaxFrame, each)
	}
	return Damage{}, splitLines(r, event.MaxFrame, m.Shape == Zeek, each)
}

// records reads an event log.
func (m *Member) records(ctx context.Context, emit func(*piece, *event.Frame) error) (Damage, error) {
	var d Damage
	var at io.ReaderAt = m.file.at
	size := m.file.Size
	if !m.plain {
		r, err := m.open()
		if err != nil {
			return d, err
		}
		size, err = io.Copy(io.Discard, r)
		r.Close()
		if err != nil {
			// What can be read is read; the end is missing and is told below.
			d.Chunks++
			if errors.Is(err, ErrBomb) {
				return d, err
			}
		}
		if r, err = m.open(); err != nil {
			return d, err
		}
		defer r.Close()
		at = &forward{r: r}
	}
	rd, err := evtx.NewReader(at, size)
	if err != nil {
		return d, err
	}
	var buf []byte
	err = rd.Chunks(func(c *evtx.Chunk) error {
		if c.State.Damaged() {
			d.Chunks++
		}
		return c.Records(func(rec *evtx.Record) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if !rec.State.OK() {
				d.Records++
			}
			if rec.State&evtx.RecordUnreadable != 0 {
				return emit(&piece{kind: pieceBad, reason: event.LineError{Code: CodeBadLine, Reason: rec.Err().Error()}}, nil)
			}
			buf = rec.AppendJSON(buf[:0])
			if len(buf) > event.MaxFrame {
				return emit(&piece{kind: pieceBad, reason: tooLarge(0, event.MaxFrame)}, nil)
			}
			f := event.Frame{Bytes: buf, Format: FormatEVTX, Origin: &event.Origin{Chunk: int64(c.Index), Record: rec.ID}}
			return emit(&piece{kind: pieceFrame, raw: buf, body: buf}, &f)
		})
	})
	return d, err
}

// forward is an io.ReaderAt over a stream, for a reader that goes forward: the
// last megabyte can be read again.
type forward struct {
	r    io.Reader
	from int64 // offset of buf
	buf  []byte
}

const forwardWindow = 1 << 20

func (w *forward) ReadAt(p []byte, off int64) (int, error) {
	if off < w.from {
		return 0, fmt.Errorf("reading backward to offset %d in a compressed file", off)
	}
	for end := w.from + int64(len(w.buf)); end < off+int64(len(p)); end = w.from + int64(len(w.buf)) {
		if len(w.buf) > forwardWindow {
			n := copy(w.buf, w.buf[len(w.buf)-forwardWindow/2:])
			w.from = end - int64(n)
			w.buf = w.buf[:n]
		}
		at := len(w.buf)
		w.buf = slices.Grow(w.buf, 64<<10)[:at+64<<10]
		n, err := w.r.Read(w.buf[at:])
		w.buf = w.buf[:at+n]
		if err != nil {
			if off >= w.from+int64(len(w.buf)) {
				return 0, err
			}
			if have := copy(p, w.buf[max(0, off-w.from):]); have < len(p) {
				return have, err
			}
			return len(p), nil
		}
	}
	if off < w.from {
		return 0, fmt.Errorf("reading backward to offset %d in a compressed file", off)
	}
	return copy(p, w.buf[off-w.from:]), nil
}

// Walk goes over files and folders in the order given and tells each file, in a
// folder by name, a folder's own files before those of the folders in it. Links
// are followed; each folder is read once. A name that cannot be followed is told
// with its error: no such file, a link that leads back, a pipe. An error of fn ends
// the walk.
func Walk(paths []string, fn func(path string, err error) error) error {
	w := walker{fn: fn, seen: make(map[string]bool)}
	for _, p := range paths {
		if err := w.walk(p, 0); err != nil {
			return err
		}
	}
	return nil
}

const maxDepth = 200

type walker struct {
	fn   func(path string, err error) error
	seen map[string]bool // folders by their path without links
}

func (w *walker) walk(path string, depth int) error {
	st, err := os.Stat(path)
	if err != nil {
		return w.fn(path, err)
	}
	if !st.IsDir() {
		if !st.Mode().IsRegular() {
			return w.fn(path, fmt.Errorf("%s is no file but a %s", path, fileKind(st.Mode())))
		}
		return w.fn(path, nil)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return w.fn(path, err)
	}
	if real, err = filepath.Abs(real); err != nil {
		return w.fn(path, err)
	}
	if w.seen[real] {
		return w.fn(path, fmt.Errorf("%s leads to a folder that was read already", path))
	}
	w.seen[real] = true
	if depth > maxDepth {
		return w.fn(path, fmt.Errorf("%s lies more than %d folders deep", path, maxDepth))
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return w.fn(path, err)
	}
	var folders []string
	for _, e := range entries {
		p := filepath.Join(path, e.Name())
		if st, err := os.Stat(p); err == nil && st.IsDir() {
			folders = append(folders, p)
			continue
		}
		if err := w.walk(p, depth+1); err != nil {
			return err
		}
	}
	for _, p := range folders {
		if err := w.walk(p, depth+1); err != nil {
			return err
		}
	}
	return nil
}
