package report

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/ledger"
)

// Checked is what a checker found.
type Checked struct {
	ID         string
	Case       string
	Purpose    string
	Due        string
	Recipients []string // ids
	Index      uint64   // of package.made
	Sealed     bool     // only the outside was checked: no key was given
	Files      int
	Bytes      int64
	Records    int
	Originals  int
	Segments   int
	Statements int
	Problems   []Problem // the first level that has any
}

// OK reports that nothing was altered.
func (c *Checked) OK() bool { return len(c.Problems) == 0 }

// The levels of a check. What is wrong on one makes those behind it meaningless, so
// only the first that has a problem is told.
const (
	levelMade = iota
	levelContainer
	levelTagManifest
	levelTags
	levelPayload
	levelContent
	levels
)

// maxProblems bounds what is kept of one level.
const maxProblems = 100

// checker reads the files of a bag in their order.
type checker struct {
	trust ledger.Verifiers

	made       *madeDetail // nil: not checked, or wrong
	id         string
	index      uint64
	problems   [levels][]Problem
	last       string
	sums       map[string][32]byte
	tags       map[string][]byte
	bytes      int64
	payload    int
	pkg        *description
	statement  []byte // of the pair in hand
	statementN string
	statements int
	closed     map[string]*closedDetail // by segment
	next       map[string]uint64        // by stream and segment: the least ordinal that may come
	segments   map[string]bool
	records    int
	originals  int
	seen       []placed // scope is known only behind the records
}

// placed is what the scope is asked about, of a file of records.
type placed struct {
	file, segment, source string
	first, last           string // times
}

func newChecker(v ledger.Verifiers) *checker {
	return &checker{trust: v, sums: map[string][32]byte{}, tags: map[string][]byte{}, closed: map[string]*closedDetail{}, next: map[string]uint64{}, segments: map[string]bool{}}
}

func (c *checker) wrong(level int, file, format string, args ...any) {
	if len(c.problems[level]) < maxProblems {
		c.problems[level] = append(c.problems[level], Problem{File: file, What: event.Printable(fmt.Sprintf(format, args...))})
	}
}

// checkMade checks the statement about the package.
func (c *checker) checkMade(b []byte) {
	if err := c.readMade(b); err != nil {
		c.made = nil
		c.wrong(levelMade, PartMade, "%v", err)
	}
}

func (c *checker) readMade(b []byte) error {
	m, err := parseMade(b)
	if err != nil {
		return err
	}
	s, err := ledger.Parse([]byte(m.Statement))
	if err != nil {
		return err
	}
	if s.Kind != "package.made" || len(s.Subject) != 1 {
		return errors.New("the statement is not about a package")
	}
	if c.index, err = ledger.VerifyProof([]byte(m.Statement), []byte(m.Proof), c.trust); err != nil {
		return err
	}
	d := new(madeDetail)
	if json.Unmarshal(s.Detail, d) != nil {
		return errors.New("the detail of the statement is not the one of a package")
	}
	c.made, c.id = d, s.Subject[0]
	return nil
}

// checkContainer checks the outside of a sealed file.
func (c *checker) checkContainer(f *container) error {
	err := f.readHead()
	if err != nil && isDisk(err) {
		return err
	}
	if err != nil {
		c.wrong(levelContainer, PartContainer, "%v", err)
	}
	if c.made == nil {
		return nil
	}
	d, derr := f.digest()
	if derr != nil {
		return derr
	}
	if hexOf(d) != c.made.Digest {
		c.wrong(levelContainer, PartContainer, "its digest is not the one that the ledger knows")
	}
	if err == nil && f.head.ID != c.id {
		c.wrong(levelContainer, PartContainer, "it has the id of another package")
	}
	return nil
}

func isDisk(err error) bool {
	var pe *fs.PathError
	return errors.As(err, &pe)
}

// file takes the next file. Its error is one of reading, not of what was read.
func (c *checker) file(name string, r io.Reader) error {
	isTag := tagForm.MatchString(name)
	switch {
	case !isTag && !payloadForm.MatchString(name):
		c.wrong(levelPayload, name, "no file of this name belongs into a package")
		return nil
	case !comesAfter(name, c.last):
		c.wrong(levelPayload, name, "it is there twice, or out of order")
		return nil
	case len(c.sums) >= maxFiles+8:
		return fmt.Errorf("more than %d files", maxFiles)
	}
	c.last = name
	h := sha256.New()
	in := &hashing{r: io.LimitReader(r, maxFile+1), h: h}
	var err error
	if isTag {
		c.tags[name], err = in.all(maxTagFile)
	} else {
		c.payload++
		err = c.content(name, in)
	}
	if err != nil {
		if in.err != nil {
			return in.err
		}
		c.wrong(levelContent, name, "%v", err)
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	if in.n > maxFile {
		c.wrong(levelPayload, name, "longer than %d bytes", maxFile)
	}
	if !isTag {
		c.bytes += in.n
	}
	c.sums[name] = [32]byte(h.Sum(nil))
	return nil
}

// hashing hashes what is read and remembers errors of the source.
type hashing struct {
	r   io.Reader
	h   hash.Hash
	n   int64
	err error
}

func (r *hashing) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.h.Write(p[:n])
	r.n += int64(n)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

func (r *hashing) all(most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("longer than %d bytes", most)
	}
	return b, err
}

// content checks what a file of the payload says. Its errors quote nothing.
func (c *checker) content(name string, r *hashing) error {
	switch {
	case name == namePackage:
		b, err := r.all(4 << 20)
		if err != nil {
			return err
		}
		p := new(description)
		if err := strict(b, p); err != nil {
			return err
		}
		if p.Type != packageType {
			return errors.New("an unknown version")
		}
		c.pkg = p
		return nil
	case strings.HasPrefix(name, dirLedger):
		b, err := r.all(maxMade)
		if err != nil {
			return err
		}
		return c.ledgerFile(name, b)
	case recordsForm.MatchString(name):
		return c.recordsFile(name, r)
	}
	return nil // what people read has no form
}

// ledgerFile takes a statement, and then its proof.
func (c *checker) ledgerFile(name string, b []byte) error {
	m := ledgerForm.FindStringSubmatch(name)
	if m[2] == "json" {
		if c.statement != nil {
			c.wrong(levelContent, c.statementN, "it has no proof")
		}
		c.statement, c.statementN = b, name
		return nil
	}
	leaf := c.statement
	c.statement = nil
	if leaf == nil || c.statementN != ledgerFileOf(m[1]) {
		return errors.New("it proves no statement of the package")
	}
	s, err := ledger.Parse(leaf)
	if err != nil {
		c.wrong(levelContent, c.statementN, "%v", err)
		return nil
	}
	index, err := ledger.VerifyProof(leaf, b, c.trust)
	if err != nil {
		return err
	}
	if fmt.Sprintf("%012d", index) != m[1] {
		return errors.New("it is of another place in the ledger")
	}
	c.statements++
	if s.Kind == "segment.closed" && len(s.Subject) > 0 {
		d := new(closedDetail)
		if json.Unmarshal(s.Detail, d) != nil {
			c.wrong(levelContent, c.statementN, "its detail is not the one of a segment")
			return nil
		}
		c.closed[s.Subject[0]] = d
	}
	return nil
}

func ledgerFileOf(number string) string { return dirLedger + number + ".json" }

// recordsFile checks each record of a part against the root in the ledger.
func (c *checker) recordsFile(name string, r io.Reader) error {
	m := recordsForm.FindStringSubmatch(name)
	stream := evidence.Events
	if m[1] == "originals" {
		stream = evidence.Originals
	}
	d := c.closed[m[2]]
	if d == nil || d.Stream != stream.String() {
		return errors.New("no statement of the package closes its segment")
	}
	root, err := parseHash(d.Root)
	if err != nil {
		return err
	}
	in := bufio.NewReaderSize(r, 1<<16)
	for n := 1; ; n++ {
		line, err := readLine(in)
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = c.record(name, stream, m[2], d.Records, root, line)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
}

// readLine gives a line without its end. A last line without one is refused.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxLine+1:
			return nil, errors.New("too long")
		case err == nil:
			return line[:len(line)-1], nil
		case err == io.EOF && len(line) > 0:
			return nil, errors.New("cut short")
		case err != bufio.ErrBufferFull:
			return nil, err
		}
	}
}

func (c *checker) record(file string, stream evidence.Stream, segment string, size uint64, root [32]byte, b []byte) error {
	var l recordLine
	if err := strict(b, &l); err != nil {
		return err
	}
	rec, err := decodeB64(l.Record)
	if err != nil {
		return errors.New("the record is not base64url")
	}
	salt, serr := parseHash(l.Salt)
	path, perr := parseHashes(l.Path)
	if err := errors.Join(serr, perr); err != nil {
		return err
	}
	leaf := evidence.RecordLeaf(salt, rec)
	if hexOf(leaf) != l.Leaf {
		return errors.New("record and salt do not give the leaf")
	}
	if err := evidence.CheckPath(leaf, l.Ordinal, size, path, root); err != nil {
		return err
	}
	key := stream.String() + segment
	if l.Ordinal < c.next[key] {
		return errors.New("out of order")
	}
	c.next[key] = l.Ordinal + 1
	c.segments[segment] = true
	want := recordLine{Leaf: l.Leaf, Ordinal: l.Ordinal, Path: l.Path, Record: l.Record, Salt: l.Salt}
	e, err := want.read(stream, rec)
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(want, l) {
		return errors.New("what people read of it is not what it says")
	}
	if e == nil {
		c.originals++
		return nil
	}
	c.records++
	c.place(file, segment, e)
	return nil
}

// place remembers what the scope must cover: per file and source the span of times.
func (c *checker) place(file, segment string, e *event.Event) {
	at := e.At().Format(viewTime)
	for i := len(c.seen) - 1; i >= 0 && c.seen[i].file == file; i-- {
		if p := &c.seen[i]; p.source == e.Source {
			p.first, p.last = min(p.first, at), max(p.last, at)
			return
		}
	}
	c.seen = append(c.seen, placed{file: file, segment: segment, source: e.Source, first: at, last: at})
}

// finish compares the parts with each other.
func (c *checker) finish() {
	if c.statement != nil {
		c.wrong(levelContent, c.statementN, "it has no proof")
	}
	c.finishTags()
	c.finishContent()
}

func (c *checker) finishTags() {
	tm, ok := c.tags[nameTagManifest]
	if !ok {
		c.wrong(levelTagManifest, nameTagManifest, "it is missing")
		return
	}
	if c.made != nil && hexOf(sha256.Sum256(tm)) != c.made.Bag {
		c.wrong(levelTagManifest, nameTagManifest, "its digest is not the one that the ledger knows")
		return
	}
	names, sums, err := parseManifest(tm)
	if err != nil || !slices.Equal(names, []string{nameInfo, nameBagit, nameManifest}) {
		c.wrong(levelTagManifest, nameTagManifest, "it does not list the three tag files")
		return
	}
	bad := false
	for i, name := range names {
		b, ok := c.tags[name]
		if !ok || sha256.Sum256(b) != sums[i] {
			c.wrong(levelTags, name, "it is missing, or was changed")
			bad = bad || name == nameManifest
		}
	}
	if bad {
		return
	}
	names, sums, err = parseManifest(c.tags[nameManifest])
	if err != nil {
		c.wrong(levelTags, nameManifest, "%v", err)
		return
	}
	listed := map[string]bool{}
	for i, name := range names {
		listed[name] = true
		have, ok := c.sums[name]
		switch {
		case !ok:
			c.wrong(levelPayload, name, "it is missing")
		case have != sums[i]:
			c.wrong(levelPayload, name, "it was changed")
		}
	}
	for name := range c.sums {
		if strings.HasPrefix(name, "data/") && !listed[name] {
			c.wrong(levelPayload, name, "the manifest does not list it")
		}
	}
}

func (c *checker) finishContent() {
	if string(c.tags[nameBagit]) != bagitText {
		c.wrong(levelContent, nameBagit, "not the declaration of a bag of version 1.0")
	}
	oxum := fmt.Sprintf("\nPayload-Oxum: %d.%d\n", c.bytes, c.payload)
	if !strings.HasSuffix(string(c.tags[nameInfo]), oxum) {
		c.wrong(levelContent, nameInfo, "Payload-Oxum is not that of the payload")
	}
	p := c.pkg
	if p == nil {
		if _, ok := c.sums[namePackage]; !ok {
			c.wrong(levelContent, namePackage, "it is missing")
		}
		return
	}
	var ids []string
	for _, r := range p.Recipients {
		ids = append(ids, r.ID)
	}
	if c.made != nil && (p.ID != c.id || p.Due != c.made.Due || !slices.Equal(ids, c.made.Recipients)) {
		c.wrong(levelContent, namePackage, "the ledger knows another id, date or recipient")
	}
	have := counts{Originals: c.originals, Records: c.records, Segments: len(c.segments), Statements: c.statements, Withheld: p.Counts.Withheld}
	if have != p.Counts {
		c.wrong(levelContent, namePackage, "it counts otherwise than what is there")
	}
	for _, s := range c.seen {
		if d := c.closed[s.segment]; d != nil && len(p.Scope.Compartments) > 0 && !slices.Contains(p.Scope.Compartments, d.Compartment) ||
			!p.Scope.covers(s.source, s.first) || !p.Scope.covers(s.source, s.last) {
			c.wrong(levelContent, s.file, "a record is outside the scope")
		}
	}
}

// parseManifest reads lines of a digest, two spaces and a name, in the order of names.
func parseManifest(b []byte) (names []string, sums [][32]byte, err error) {
	text := string(b)
	if text == "" || !strings.HasSuffix(text, "\n") || strings.Count(text, "\n") > maxFiles {
		return nil, nil, errors.New("empty, cut short or too long")
	}
	for i, l := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		digest, name, ok := strings.Cut(l, "  ")
		sum, err := parseHash(digest)
		if !ok || err != nil || !payloadForm.MatchString(name) && !tagForm.MatchString(name) || len(names) > 0 && name <= names[len(names)-1] {
			return nil, nil, errors.New("line " + strconv.Itoa(i+1) + " is none of a manifest")
		}
		names, sums = append(names, name), append(sums, sum)
	}
	return names, sums, nil
}

// result is what a checker tells.
func (c *checker) result() *Checked {
	r := &Checked{ID: c.id, Index: c.index, Files: len(c.sums), Bytes: c.bytes, Records: c.records, Originals: c.originals, Segments: len(c.segments), Statements: c.statements}
	if c.made != nil {
		r.Due, r.Recipients = c.made.Due, c.made.Recipients
	}
	if c.pkg != nil {
		r.Case, r.Purpose = c.pkg.Case, c.pkg.Purpose
	}
	for _, ps := range c.problems {
		if len(ps) > 0 {
			slices.SortFunc(ps, func(a, b Problem) int { return strings.Compare(a.File, b.File) })
			r.Problems = slices.CompactFunc(ps, func(a, b Problem) bool { return a.File == b.File })
			break
		}
	}
	return r
}

// VerifyFile checks a package. Without a key it checks that the file is the one that
// the ledger knows; with the key of a recipient, everything in it too. It needs no
// network and no other file.
func VerifyFile(ctx context.Context, path string, key *RecipientKey, v ledger.Verifiers) (*Checked, error) {
	return verifyFile(ctx, path, key, v, nil)
}

func verifyFile(ctx context.Context, path string, key *RecipientKey, v ledger.Verifiers, keep func(name string, r io.Reader) error) (*Checked, error) {
	if err := v.Check(); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	r, err := verifyReader(ctx, f, st.Size(), key, v, keep)
	if err != nil {
		return nil, fmt.Errorf("checking %s: %w", path, err)
	}
	return r, nil
}

func verifyReader(ctx context.Context, f io.ReaderAt, size int64, key *RecipientKey, v ledger.Verifiers, keep func(string, io.Reader) error) (*Checked, error) {
	c := newChecker(v)
	box, err := splitContainer(f, size)
	if err != nil && isDisk(err) {
		return nil, err
	}
	if err != nil {
		c.wrong(levelMade, PartMade, "%v", err)
		return c.result(), nil
	}
	c.checkMade(box.made)
	if err := c.checkContainer(box); err != nil {
		return nil, err
	}
	if r := c.result(); !r.OK() || key == nil {
		r.Sealed = key == nil
		return r, nil
	}
	in, err := box.open(key)
	if errors.Is(err, ErrNotForYou) {
		return nil, err
	}
	if err != nil {
		c.wrong(levelContainer, PartContainer, "%v", err)
		return c.result(), nil
	}
	if err := c.archive(ctx, in, keep); err != nil {
		if isDisk(err) || ctx.Err() != nil {
			return nil, err
		}
		c.wrong(levelContainer, PartContainer, "%v", err)
		return c.result(), nil
	}
	if keep != nil {
		if err := keep(PartMade, bytes.NewReader(box.made)); err != nil {
			return nil, err
		}
	}
	c.finish()
	return c.result(), nil
}

// archive reads the files of an archive. keep, where given, gets a copy of each.
func (c *checker) archive(ctx context.Context, in io.Reader, keep func(string, io.Reader) error) error {
	tr := tar.NewReader(bufio.NewReaderSize(in, 1<<16))
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("archive: %w", err)
		}
		if h.Typeflag != tar.TypeReg || h.Format != tar.FormatUSTAR || h.Mode != 0o644 || h.Size > maxFile {
			return errors.New("archive: an entry that is no plain file")
		}
		if keep == nil || !payloadForm.MatchString(h.Name) && !tagForm.MatchString(h.Name) || !comesAfter(h.Name, c.last) {
			err = c.file(h.Name, tr)
		} else {
			err = c.tee(h.Name, tr, keep)
		}
		if err != nil {
			return fmt.Errorf("archive: %s: %w", event.Printable(h.Name), err)
		}
	}
	if _, err := io.Copy(io.Discard, in); err != nil { // the last chunk must open too
		return err
	}
	return nil
}

// tee checks a file while it is kept.
func (c *checker) tee(name string, r io.Reader, keep func(string, io.Reader) error) error {
	pr, pw := io.Pipe()
	kept := make(chan error, 1)
	go func() { // ends with the pipe, below
		err := keep(name, pr)
		pr.CloseWithError(err)
		kept <- err
	}()
	err := c.file(name, io.TeeReader(r, pw))
	pw.CloseWithError(err)
	return errors.Join(err, <-kept)
}

// VerifyBag checks an opened package: a folder as Open wrote it.
func VerifyBag(ctx context.Context, dir string, v ledger.Verifiers) (*Checked, error) {
	if err := v.Check(); err != nil {
		return nil, err
	}
	c := newChecker(v)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var payload, tags []string
	err = fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch {
		case len(payload)+len(tags) > maxFiles+8:
			return fmt.Errorf("more than %d files", maxFiles)
		case d.IsDir():
			if path != "." && path != "data" && path+"/" != dirLedger && path+"/" != dirRecords && path+"/" != dirOriginals {
				c.wrong(levelPayload, path, "no folder of this name belongs into a package")
				return fs.SkipDir
			}
		case !d.Type().IsRegular():
			c.wrong(levelPayload, path, "it is no plain file")
		case strings.HasPrefix(path, "data/"):
			payload = append(payload, path)
		case path != PartMade:
			tags = append(tags, path)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("checking %s: %w", dir, err)
	}
	slices.Sort(payload)
	slices.Sort(tags)
	made, err := readBounded(root, PartMade, maxMade)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.wrong(levelMade, PartMade, "it is missing")
	case err != nil:
		return nil, fmt.Errorf("checking %s: %w", dir, err)
	default:
		c.checkMade(made)
	}
	for _, name := range append(payload, tags...) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := c.fileIn(root, name); err != nil {
			return nil, fmt.Errorf("checking %s: %w", filepath.Join(dir, filepath.FromSlash(name)), err)
		}
	}
	c.finish()
	return c.result(), nil
}

func (c *checker) fileIn(root *os.Root, name string) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return c.file(name, f)
}

// readBounded reads one byte more than most at most.
func readBounded(root *os.Root, name string, most int64) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most+1))
}
