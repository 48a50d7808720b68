package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	maxFiles = 200_000
	maxFile  = 268_435_456
	maxLine  = 33_554_432
	readable = 1_048_576

	manifest    = "manifest-sha256.txt"
	tagManifest = "tagmanifest-sha256.txt"
	uuidForm    = `[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}`
)

var (
	tagForm     = regexp.MustCompile(`^(bag-info|bagit|manifest-sha256|tagmanifest-sha256)\.txt$`)
	fixedForm   = regexp.MustCompile(`^data/(index\.html|index\.txt|package\.json)$`)
	ledgerForm  = regexp.MustCompile(`^data/ledger/([0-9]{12})\.(json|proof)$`)
	recordsForm = regexp.MustCompile(`^data/(originals|records)/(` + uuidForm + `)\.[0-9]{4}\.jsonl$`)
)

func known(name string) bool { return tagForm.MatchString(name) || payload(name) }

func payload(name string) bool {
	return fixedForm.MatchString(name) || ledgerForm.MatchString(name) || recordsForm.MatchString(name)
}

// strictJSON reads one JSON value with the members of v and no others.
func strictJSON(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("bytes behind the JSON")
	}
	return nil
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// canonical reads JSON whose members, in the order of v, are canonical.
func canonical(b []byte, v any) error {
	if err := strictJSON(b, v); err != nil {
		return err
	}
	again, err := encode(v)
	if err != nil || !bytes.Equal(again, b) {
		return errors.New("not canonical")
	}
	return nil
}

func parseHex(s string) (h [32]byte, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 32 || hex.EncodeToString(b) != s {
		return h, errors.New("not a hash")
	}
	return [32]byte(b), nil
}

// madeDetail is what package.made says.
type madeDetail struct {
	Bag        string
	Digest     string
	Due        string
	Recipients []string
}

// segmentDetail is what segment.closed says.
type segmentDetail struct {
	Compartment string
	Records     uint64
	Root        string
	Stream      string
}

// level1 checks what the ledger says of the package.
func (v *verifier) level1(b []byte) {
	err := func() error {
		line, sum, ok := bytes.Cut(b, []byte("\n"))
		if !ok || len(b) > maxMade {
			return errShort
		}
		have := sha256.Sum256(b[:len(line)+1])
		if string(sum) != hex.EncodeToString(have[:])+"\n" {
			return errors.New("its last line is of other bytes")
		}
		var m struct {
			Proof     string `json:"proof"`
			Statement string `json:"statement"`
		}
		if err := canonical(line, &m); err != nil {
			return err
		}
		s, err := parseStatement([]byte(m.Statement))
		if err != nil {
			return err
		}
		if s.Kind != "package.made" || len(s.Subject) != 1 {
			return errors.New("a statement about something else")
		}
		if _, err := v.trust.proven([]byte(m.Statement), []byte(m.Proof)); err != nil {
			return err
		}
		v.made, v.id = new(madeDetail), s.Subject[0]
		return json.Unmarshal(s.Detail, v.made)
	}()
	if err != nil {
		v.bad(nameMade, err)
	}
}

// lines reads a manifest.
func lines(b []byte) (names []string, sums map[string]string, err error) {
	sums = map[string]string{}
	if len(b) == 0 || b[len(b)-1] != '\n' {
		return nil, nil, errShort
	}
	for l := range strings.SplitSeq(string(b[:len(b)-1]), "\n") {
		sum, name, ok := strings.Cut(l, "  ")
		if _, err := parseHex(sum); !ok || err != nil || !known(name) || len(names) > 0 && name <= names[len(names)-1] {
			return nil, nil, errors.New("a line that is none of a manifest")
		}
		names = append(names, name)
		sums[name] = sum
	}
	return names, sums, nil
}

// digest hashes a file of the bag.
func (v *verifier) digest(name string) (sum string, size int64, err error) {
	r, err := v.files.reader(name)
	if err != nil {
		return "", 0, err
	}
	defer r.Close()
	h := sha256.New()
	size, err = io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil)), size, err
}

func (v *verifier) has(name string) bool { return slices.Contains(v.files.names, name) }

// level3 checks the tag manifest.
func (v *verifier) level3() error {
	if !v.has(tagManifest) {
		v.bad(tagManifest, "it is missing")
		return nil
	}
	b, err := v.files.read(tagManifest, 64<<20)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	if hex.EncodeToString(sum[:]) != v.made.Bag {
		v.bad(tagManifest, "its digest is not the one in the ledger")
		return nil
	}
	names, _, err := lines(b)
	if err != nil || !slices.Equal(names, []string{"bag-info.txt", "bagit.txt", manifest}) {
		v.bad(tagManifest, "it does not list the three tag files")
	}
	return nil
}

// level4 checks the tag files.
func (v *verifier) level4() error {
	b, err := v.files.read(tagManifest, 64<<20)
	if err != nil {
		return err
	}
	names, sums, err := lines(b)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !v.has(name) {
			v.bad(name, "it is missing")
			continue
		}
		sum, _, err := v.digest(name)
		if err != nil {
			return err
		}
		if sum != sums[name] {
			v.bad(name, "it was changed")
		}
	}
	if len(v.wrong) > 0 {
		return nil
	}
	if b, err = v.files.read(manifest, 64<<20); err == nil {
		if _, _, err := lines(b); err != nil {
			v.bad(manifest, err)
		}
	}
	return err
}

// level5 checks the payload.
func (v *verifier) level5() error {
	for _, p := range v.files.stray {
		v.bad(p.name, p.why)
	}
	b, err := v.files.read(manifest, 64<<20)
	if err != nil {
		return err
	}
	names, sums, err := lines(b)
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, name := range v.files.names {
		if tagForm.MatchString(name) {
			continue
		}
		there[name] = true
		if sums[name] == "" {
			v.bad(name, "the manifest does not list it")
			continue
		}
		sum, size, err := v.digest(name)
		if err != nil {
			return err
		}
		if sum != sums[name] {
			v.bad(name, "it was changed")
		}
		v.payloadN++
		v.payloadSz += size
	}
	for _, name := range names {
		if !there[name] {
			v.bad(name, "it is missing")
		}
	}
	return nil
}

// span is what one file has of one source.
type span struct{ file, compartment, source, first, last string }

// level6 checks what the files say.
func (v *verifier) level6() error {
	v.closed, v.segments, v.next = map[string]segmentDetail{}, map[string]bool{}, map[string]uint64{}
	bagit, err := v.files.read("bagit.txt", 64<<20)
	if err != nil {
		return err
	}
	if string(bagit) != "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n" {
		v.bad("bagit.txt", "not the declaration of a bag")
	}
	info, err := v.files.read("bag-info.txt", 64<<20)
	if err != nil {
		return err
	}
	if !strings.HasSuffix(string(info), fmt.Sprintf("\nPayload-Oxum: %d.%d\n", v.payloadSz, v.payloadN)) {
		v.bad("bag-info.txt", "Payload-Oxum is not that of the payload")
	}
	leafName := ""
	for _, name := range v.files.names { // statements come before records
		m := ledgerForm.FindStringSubmatch(name)
		switch {
		case m != nil && m[2] == "json":
			if leafName != "" {
				v.bad(leafName, "it has no proof")
			}
			leafName = name
		case m != nil:
			if leafName != "data/ledger/"+m[1]+".json" {
				v.bad(name, "it proves nothing that is here")
			} else if err := v.proofFile(leafName, name, m[1]); err != nil {
				return err
			}
			leafName = ""
		case recordsForm.MatchString(name):
			if err := v.recordsFile(name); err != nil {
				v.bad(name, err)
			}
		}
	}
	if leafName != "" {
		v.bad(leafName, "it has no proof")
	}
	return v.description()
}

func (v *verifier) proofFile(leafName, name, number string) error {
	leaf, err := v.files.read(leafName, maxMade)
	if err != nil {
		return err
	}
	proof, err := v.files.read(name, maxMade)
	if err != nil {
		return err
	}
	s, err := parseStatement(leaf)
	if err != nil {
		v.bad(leafName, err)
		return nil
	}
	index, err := v.trust.proven(leaf, proof)
	if err != nil {
		v.bad(name, err)
		return nil
	}
	if fmt.Sprintf("%012d", index) != number {
		v.bad(name, "it is of another place in the ledger")
		return nil
	}
	v.statements++
	if s.Kind == "segment.closed" && len(s.Subject) > 0 {
		var d segmentDetail
		if json.Unmarshal(s.Detail, &d) != nil {
			v.bad(leafName, "not what is said of a segment")
			return nil
		}
		v.closed[s.Subject[0]] = d
	}
	return nil
}

// line is one record.
type line struct {
	Leaf    string   `json:"leaf"`
	Ordinal uint64   `json:"ordinal"`
	Path    []string `json:"path"`
	Record  string   `json:"record"`
	Salt    string   `json:"salt"`
	Text    string   `json:"text"`
	View    *view    `json:"view"`
}

func (v *verifier) recordsFile(name string) error {
	m := recordsForm.FindStringSubmatch(name)
	stream := map[string]string{"records": "events", "originals": "originals"}[m[1]]
	d, ok := v.closed[m[2]]
	if !ok || d.Stream != stream {
		return errors.New("nothing here closes its segment")
	}
	root, err := parseHex(d.Root)
	if err != nil {
		return err
	}
	f, err := v.files.reader(name)
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	in.Buffer(make([]byte, 64<<10), maxLine+2)
	in.Split(wholeLines)
	n := 0
	for in.Scan() {
		n++
		if err := v.record(name, m[2], d, root, in.Bytes()); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return in.Err()
}

// wholeLines is bufio.ScanLines without its leniency about the last one.
func wholeLines(b []byte, end bool) (int, []byte, error) {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return i + 1, b[:i], nil
	}
	if end && len(b) > 0 {
		return 0, nil, errShort
	}
	return 0, nil, nil
}

func (v *verifier) record(name, segment string, d segmentDetail, root [32]byte, b []byte) error {
	var l line
	if err := strictJSON(b, &l); err != nil {
		return errors.New("not a line of records")
	}
	rec, err := base64.RawURLEncoding.Strict().DecodeString(l.Record)
	if err != nil {
		return errors.New("the record is not base64url")
	}
	salt, err := parseHex(l.Salt)
	if err != nil {
		return err
	}
	if len(l.Path) > 64 {
		return errors.New("a path that is too long")
	}
	var path [][32]byte
	for _, s := range l.Path {
		h, err := parseHex(s)
		if err != nil {
			return err
		}
		path = append(path, h)
	}
	leaf := sha256.Sum256(append(append([]byte{0}, salt[:]...), rec...))
	if hex.EncodeToString(leaf[:]) != l.Leaf {
		return errors.New("the leaf is of another record")
	}
	if err := leads(leaf, l.Ordinal, d.Records, path, root); err != nil {
		return err
	}
	key := d.Stream + segment
	if l.Ordinal < v.next[key] {
		return errors.New("out of order")
	}
	v.next[key] = l.Ordinal + 1
	v.segments[segment] = true
	if len(rec) < 2 || rec[0] != 1 {
		return errors.New("an unknown record")
	}
	if d.Stream == "originals" {
		want := ""
		if rec[1] != 5 || l.View != nil {
			return errors.New("not an original")
		}
		if len(rec) <= readable && utf8.Valid(rec[2:]) {
			want = string(rec[2:])
		}
		if l.Text != want {
			return errors.New("the text is not that of the record")
		}
		v.originals++
		return nil
	}
	if rec[1] != 1 || l.Text != "" {
		return errors.New("not an event")
	}
	e, err := decodeEvent(rec[2:])
	if err != nil {
		return err
	}
	if len(rec) <= readable && (l.View == nil || !reflect.DeepEqual(*l.View, e.view)) || len(rec) > readable && l.View != nil {
		return errors.New("the view is not that of the record")
	}
	v.records++
	for i := range v.spans {
		if s := &v.spans[i]; s.file == name && s.source == e.source {
			s.first, s.last = min(s.first, e.at), max(s.last, e.at)
			return nil
		}
	}
	v.spans = append(v.spans, span{name, d.Compartment, e.source, e.at, e.at})
	return nil
}

// view is what people read of an event.
type view struct {
	Dataset  string      `json:"dataset"`
	Fields   [][2]string `json:"fields"`
	Format   string      `json:"format"`
	Kind     string      `json:"kind"`
	Original string      `json:"original"`
	Received string      `json:"received"`
	Source   string      `json:"source"`
	Time     string      `json:"time"`
}

type decoded struct {
	view       view
	source, at string
}

// reader takes a record apart (record.md).
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) number() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 || size > 1 && r.b[size-1] == 0 { // the shortest form only
		r.bad = true
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) text() []byte { return r.take(r.number()) }

func (r *reader) one() byte {
	if b := r.take(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (r *reader) eight() uint64 {
	if b := r.take(8); len(b) == 8 {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

const timeForm = "2006-01-02T15:04:05.000000000Z"

func stamp(ns uint64) string { return time.Unix(0, int64(ns)).UTC().Format(timeForm) }

func shown(b []byte) string {
	switch {
	case len(b) > 1024:
		return fmt.Sprintf("sha256:%x:%d", sha256.Sum256(b), len(b))
	case !utf8.Valid(b):
		return "hex:" + hex.EncodeToString(b)
	}
	return string(b)
}

func decodeEvent(b []byte) (*decoded, error) {
	bad := errors.New("a record that does not read")
	c := reader{b: b}
	r := reader{b: c.text()}
	r.text() // way in
	r.text() // peer
	r.text() // connection
	r.number()
	received := r.eight()
	original := ""
	if r.one() == 1 {
		comp, id, n := r.text(), r.take(16), r.number()
		if r.bad {
			return nil, bad
		}
		original = fmt.Sprintf("%s/%x-%x-%x-%x-%x/%d", comp, id[:4], id[4:6], id[6:8], id[8:10], id[10:], n)
	}
	if r.one() == 1 {
		r.take(32)
		r.number()
		r.number()
	}
	if r.one() == 1 {
		r.take(32)
		n := r.number()
		if n > uint64(len(r.b))/32 {
			return nil, bad
		}
		r.take(32 * n)
	}
	if r.bad || len(r.b) > 0 {
		return nil, bad
	}
	d := &decoded{view: view{Fields: [][2]string{}, Original: original, Received: stamp(received), Kind: "event"}}
	source := c.text()
	d.source, d.view.Source = string(source), shown(source)
	d.view.Dataset, d.view.Format = shown(c.text()), shown(c.text())
	if c.one() == 1 {
		d.view.Kind = "unparsed"
	}
	c.text() // group
	c.text() // zone
	d.at = d.view.Received
	if claimed := c.eight(); claimed != 0 {
		d.view.Time = stamp(claimed)
		d.at = d.view.Time
	}
	n := c.number()
	if c.bad || n > uint64(len(c.b)) {
		return nil, bad
	}
	for range n {
		name := c.text()
		c.take(2)
		d.view.Fields = append(d.view.Fields, [2]string{shown(name), shown(c.text())})
	}
	if c.bad || len(c.b) > 0 {
		return nil, bad
	}
	return d, nil
}

// description checks package.json.
func (v *verifier) description() error {
	const name = "data/package.json"
	if !v.has(name) {
		v.bad(name, "it is missing")
		return nil
	}
	b, err := v.files.read(name, 4<<20)
	if err != nil {
		return err
	}
	type counts struct {
		Originals  int `json:"originals"`
		Records    int `json:"records"`
		Segments   int `json:"segments"`
		Statements int `json:"statements"`
		Withheld   int `json:"withheld"`
	}
	var p struct {
		Type       string   `json:"_type"`
		Case       string   `json:"case"`
		Counts     counts   `json:"counts"`
		Due        string   `json:"due"`
		ID         string   `json:"id"`
		Log        string   `json:"log"`
		Made       string   `json:"made"`
		Org        string   `json:"org"`
		People     []string `json:"people"`
		Purpose    string   `json:"purpose"`
		Recipients []struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		} `json:"recipients"`
		Scope struct {
			Compartments []string `json:"compartments"`
			From         string   `json:"from"`
			Query        string   `json:"query"`
			Sources      []string `json:"sources"`
			To           string   `json:"to"`
		} `json:"scope"`
		Tools  map[string]string `json:"tools"`
		Unread []struct {
			Segment string `json:"segment"`
			Why     string `json:"why"`
		} `json:"unread"`
	}
	if err := strictJSON(b, &p); err != nil || p.Type != "counterseal/package/v1" {
		v.bad(name, "not the description of a package")
		return nil
	}
	var ids []string
	for _, r := range p.Recipients {
		ids = append(ids, r.ID)
	}
	if p.ID != v.id || p.Due != v.made.Due || !slices.Equal(ids, v.made.Recipients) {
		v.bad(name, "the ledger knows another id, date or recipient")
	}
	if p.Counts != (counts{v.originals, v.records, len(v.segments), v.statements, p.Counts.Withheld}) {
		v.bad(name, "it counts otherwise than what is there")
	}
	for _, s := range v.spans {
		in := func(list []string, one string) bool { return len(list) == 0 || slices.Contains(list, one) }
		if !in(p.Scope.Compartments, s.compartment) || !in(p.Scope.Sources, s.source) ||
			p.Scope.From != "" && s.first < p.Scope.From || p.Scope.To != "" && s.last >= p.Scope.To {
			v.bad(s.file, "a record is outside the scope")
		}
	}
	return nil
}
