package report

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/evidence"
)

// The names in a bag, docs/formats/package.md. No other name is written or accepted,
// so no name leads out of a folder.
const (
	nameBagit       = "bagit.txt"
	nameInfo        = "bag-info.txt"
	nameManifest    = "manifest-sha256.txt"
	nameTagManifest = "tagmanifest-sha256.txt"
	namePackage     = "data/package.json"
	nameIndexHTML   = "data/index.html"
	nameIndexText   = "data/index.txt"

	dirLedger    = "data/ledger/"
	dirRecords   = "data/records/"
	dirOriginals = "data/originals/"

	bagitText = "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
)

// Bounds of what is written and read.
const (
	maxFiles    = 200_000
	maxTagFile  = 64 << 20
	maxFile     = 256 << 20
	maxLine     = 32 << 20
	partBytes   = 4 << 20 // a part of records ends behind the line that passes it
	maxParts    = 9999
	maxReadable = 1 << 20 // a longer record has no view
	maxValue    = 1024    // a longer value stands in a view by its digest

	// MaxRecords bounds the records of one package.
	MaxRecords = 5_000_000
)

const uuidForm = `[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`

var (
	tagForm     = regexp.MustCompile(`^(bag-info|bagit|manifest-sha256|tagmanifest-sha256)\.txt$`)
	payloadForm = regexp.MustCompile(`^data/(index\.html|index\.txt|package\.json|ledger/[0-9]{12}\.(json|proof)|(originals|records)/` + uuidForm + `\.[0-9]{4}\.jsonl)$`)
	recordsForm = regexp.MustCompile(`^data/(originals|records)/(` + uuidForm + `)\.([0-9]{4})\.jsonl$`)
	ledgerForm  = regexp.MustCompile(`^data/ledger/([0-9]{12})\.(json|proof)$`)
)

func ledgerName(index uint64, ext string) string {
	return fmt.Sprintf("%s%012d.%s", dirLedger, index, ext)
}

// comesAfter is the order of files: the payload first, each part in the order of its
// bytes.
func comesAfter(name, before string) bool {
	a, b := strings.HasPrefix(name, "data/"), strings.HasPrefix(before, "data/")
	if before == "" || a == b {
		return name > before
	}
	return b
}

// bagWriter writes a bag into an archive, file by file.
type bagWriter struct {
	tw       *tar.Writer
	last     string
	manifest bytes.Buffer
	files    int
	bytes    int64
}

func newBagWriter(w io.Writer) *bagWriter { return &bagWriter{tw: tar.NewWriter(w)} }

func (b *bagWriter) write(name string, data []byte) error {
	if !comesAfter(name, b.last) || !payloadForm.MatchString(name) && !tagForm.MatchString(name) || len(data) > maxFile {
		return fmt.Errorf("%s does not belong into a bag at this place", name)
	}
	b.last = name
	// Nothing of this machine or moment: equal contents are equal archives.
	err := b.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(data)), Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR})
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if _, err := b.tw.Write(data); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}

// add writes a file of the payload.
func (b *bagWriter) add(name string, data []byte) error {
	if b.files++; b.files > maxFiles {
		return fmt.Errorf("a package of more than %d files: narrow its scope", maxFiles)
	}
	b.bytes += int64(len(data))
	fmt.Fprintf(&b.manifest, "%x  %s\n", sha256.Sum256(data), name)
	return b.write(name, data)
}

// end writes the tag files and gives the digest of the last one, which holds all
// others.
func (b *bagWriter) end(info []string) (digest [32]byte, err error) {
	var tags bytes.Buffer
	info = append(info, fmt.Sprintf("Payload-Oxum: %d.%d", b.bytes, b.files))
	for _, f := range []struct {
		name string
		data []byte
	}{{nameInfo, []byte(strings.Join(info, "\n") + "\n")}, {nameBagit, []byte(bagitText)}, {nameManifest, b.manifest.Bytes()}} {
		fmt.Fprintf(&tags, "%x  %s\n", sha256.Sum256(f.data), f.name)
		if err := b.write(f.name, f.data); err != nil {
			return digest, err
		}
	}
	if err := b.write(nameTagManifest, tags.Bytes()); err != nil {
		return digest, err
	}
	return sha256.Sum256(tags.Bytes()), b.tw.Close()
}

// partWriter divides the records of a segment into files.
type partWriter struct {
	bag    *bagWriter
	prefix string
	buf    bytes.Buffer
	n      int
}

func (w *partWriter) line(v any) error {
	b, err := plainJSON(v)
	if err != nil {
		return err
	}
	if len(b) > maxLine {
		return errors.New("a record is too large for a package")
	}
	w.buf.Write(b)
	w.buf.WriteByte('\n')
	if w.buf.Len() >= partBytes {
		return w.flush()
	}
	return nil
}

func (w *partWriter) flush() error {
	if w.buf.Len() == 0 {
		return nil
	}
	if w.n++; w.n > maxParts {
		return errors.New("too many records of one segment")
	}
	err := w.bag.add(fmt.Sprintf("%s.%04d.jsonl", w.prefix, w.n), w.buf.Bytes())
	w.buf.Reset()
	return err
}

// recordLine is one record with the way to the root of its segment.
type recordLine struct {
	Leaf    string   `json:"leaf"`
	Ordinal uint64   `json:"ordinal"`
	Path    []string `json:"path"`
	Record  string   `json:"record"`
	Salt    string   `json:"salt"`
	Text    string   `json:"text,omitempty"` // of an original that is UTF-8
	View    *view    `json:"view,omitempty"` // of an event
}

// lineOf makes a line. It gives the event too, nil for an original.
func lineOf(p *evidence.Proof) (*recordLine, *event.Event, error) {
	l := &recordLine{Leaf: hexOf(evidence.RecordLeaf(p.Salt, p.Record)), Ordinal: p.Index, Path: []string{}, Record: b64(p.Record), Salt: hexOf(p.Salt)}
	for _, h := range p.Path {
		l.Path = append(l.Path, hexOf(h))
	}
	e, err := l.read(p.Stream, p.Record)
	return l, e, err
}

// read fills what a person can read of a record.
func (l *recordLine) read(stream evidence.Stream, record []byte) (*event.Event, error) {
	if stream == evidence.Originals {
		if len(record) < 2 || record[0] != 1 || event.Type(record[1]) != event.TypeOriginal {
			return nil, errors.New("it is not an original")
		}
		if raw := record[2:]; len(record) <= maxReadable && utf8.Valid(raw) {
			l.Text = string(raw)
		}
		return nil, nil
	}
	en, err := event.Decode(record)
	if err != nil {
		return nil, err
	}
	if en.Event == nil {
		return nil, errors.New("it is not an event")
	}
	if len(record) <= maxReadable {
		l.View = viewOf(en.Event)
	}
	return en.Event, nil
}

// view is what a person can read of an event. It follows from the record, and a
// verifier makes it again.
type view struct {
	Dataset  string      `json:"dataset"`
	Fields   [][2]string `json:"fields"` // name and value, in the order of the source
	Format   string      `json:"format"`
	Kind     string      `json:"kind"`
	Original string      `json:"original,omitempty"`
	Received string      `json:"received"`
	Source   string      `json:"source"`
	Time     string      `json:"time,omitempty"` // as the record claims
}

const viewTime = "2006-01-02T15:04:05.000000000Z"

func viewOf(e *event.Event) *view {
	v := &view{
		Dataset: readable([]byte(e.Dataset)), Fields: [][2]string{}, Format: readable([]byte(e.Format)), Kind: "event",
		Received: time.Unix(0, e.Received).UTC().Format(viewTime), Source: readable([]byte(e.Source)), Original: e.Original.String(),
	}
	if e.Kind == event.Unparsed {
		v.Kind = "unparsed"
	}
	if e.Time != 0 {
		v.Time = time.Unix(0, e.Time).UTC().Format(viewTime)
	}
	for _, f := range e.Fields {
		v.Fields = append(v.Fields, [2]string{readable([]byte(f.Name)), readable(f.Value)})
	}
	return v
}

// readable is text as it is, other bytes in hexadecimal, and long ones by their
// digest: the record has them in full.
func readable(b []byte) string {
	switch {
	case len(b) > maxValue:
		return fmt.Sprintf("sha256:%x:%d", sha256.Sum256(b), len(b))
	case !utf8.Valid(b):
		return "hex:" + hex.EncodeToString(b)
	}
	return string(b)
}

func hexOf(h [32]byte) string { return hex.EncodeToString(h[:]) }

// description is data/package.json.
type description struct {
	Type       string            `json:"_type"`
	Case       string            `json:"case"`
	Counts     counts            `json:"counts"`
	Due        string            `json:"due"`
	ID         string            `json:"id"`
	Log        string            `json:"log"` // origin of the ledger
	Made       string            `json:"made"`
	Org        string            `json:"org"`
	People     []string          `json:"people"` // tokens that the authorisation names
	Purpose    string            `json:"purpose"`
	Recipients []recipientLine   `json:"recipients"`
	Scope      scopeForm         `json:"scope"`
	Tools      map[string]string `json:"tools"`
	Unread     []unread          `json:"unread"`
}

type counts struct {
	Originals  int `json:"originals"`
	Records    int `json:"records"`
	Segments   int `json:"segments"`
	Statements int `json:"statements"`
	Withheld   int `json:"withheld"` // originals that tell of people whom nobody named
}

type recipientLine struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

type scopeForm struct {
	Compartments []string `json:"compartments"`
	From         string   `json:"from"`
	Query        string   `json:"query"`
	Sources      []string `json:"sources"`
	To           string   `json:"to"`
}

// unread is a segment inside the scope of which nothing, or not all, could be read.
type unread struct {
	Segment string `json:"segment"`
	Why     string `json:"why"` // destroyed, damaged
}

const (
	dateForm  = "2006-01-02"
	stampForm = "2006-01-02T15:04:05.000000Z"
)

// covers tells whether an event is inside a scope.
func (s *scopeForm) covers(source, at string) bool {
	if s.From != "" && at < s.From || s.To != "" && at >= s.To {
		return false
	}
	if len(s.Sources) == 0 {
		return true
	}
	for _, have := range s.Sources {
		if have == source {
			return true
		}
	}
	return false
}

// closedDetail is what a statement says of a segment.
type closedDetail struct {
	Compartment string `json:"compartment"`
	Records     uint64 `json:"records"`
	Root        string `json:"root"`
	Stream      string `json:"stream"`
}

// madeDetail is the detail of package.made.
type madeDetail struct {
	Bag        string   `json:"bag"`    // SHA-256 of the tag manifest
	Digest     string   `json:"digest"` // SHA-256 of the body of the container
	Due        string   `json:"due"`
	Recipients []string `json:"recipients"` // ids of their cards
}

func decodeB64(s string) ([]byte, error) { return base64.RawURLEncoding.Strict().DecodeString(s) }
