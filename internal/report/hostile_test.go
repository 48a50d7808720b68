package report

import (
	"archive/tar"
	"bytes"
	"context"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/event"
)

// hostile seals any archive as a package and has the ledger say so: only somebody who
// may make packages can.
func (h *house) hostile(t testing.TB, archive []byte) string {
	t.Helper()
	id := uuid.Must(uuid.NewV7())
	var b bytes.Buffer
	s, err := newSealer(&b, id, h.Org, []*Recipient{h.key.Card()})
	fatal(t, err)
	_, err = s.Write(archive)
	fatal(t, err)
	digest, err := s.end()
	fatal(t, err)
	r, err := h.Recorder.Critical(context.Background(), attest.Act{Kind: "package.made", Actor: "os:1", Subject: []string{id.String()},
		Detail: madeDetail{Bag: strings.Repeat("0", 64), Digest: hexOf(digest), Due: "2026-12-25", Recipients: []string{h.key.Card().ID()}}})
	fatal(t, err)
	leaf, proof, err := h.statement(context.Background(), r.Index)
	fatal(t, err)
	made, err := encodeMade(leaf, proof)
	fatal(t, err)
	b.Write(made)
	b.Write(encodeEnd(len(made)))
	path := filepath.Join(t.TempDir(), "hostile.pkg")
	fatal(t, os.WriteFile(path, b.Bytes(), 0o600))
	return path
}

// TestHostileArchives: nothing in an archive is written outside the folder, and none
// of these is accepted by either verifier.
func TestHostileArchives(t *testing.T) {
	bin := buildSecond(t)
	h := newHouse(t)
	key, pass := h.writeKey(t, t.TempDir())
	file := func(name string, change func(*tar.Header)) func(*tar.Writer) {
		return func(w *tar.Writer) {
			hd := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 2, Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
			if change != nil {
				change(hd)
			}
			if w.WriteHeader(hd) == nil && hd.Size == 2 {
				w.Write([]byte("{}"))
			}
		}
	}
	for what, entries := range map[string][]func(*tar.Writer){
		"out of the folder":   {file("../evil", nil)},
		"absolute":            {file("/tmp/evil", nil)},
		"into the middle":     {file("data/records/../../../evil", nil)},
		"a link":              {file("data/index.txt", func(h *tar.Header) { h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, "/etc/passwd", 0 })},
		"a folder":            {file("data/ledger/", func(h *tar.Header) { h.Typeflag, h.Size = tar.TypeDir, 0 })},
		"a device":            {file("data/index.txt", func(h *tar.Header) { h.Typeflag, h.Size = tar.TypeChar, 0 })},
		"twice":               {file("data/index.html", nil), file("data/index.html", nil)},
		"out of order":        {file("data/index.txt", nil), file("data/index.html", nil)},
		"executable":          {file("data/index.html", func(h *tar.Header) { h.Mode = 0o755 })},
		"long header":         {file("data/index.html", func(h *tar.Header) { h.Format, h.PAXRecords = tar.FormatPAX, map[string]string{"COUNTERSEAL.x": "y"} })},
		"too large to be":     {file("data/index.html", func(h *tar.Header) { h.Size = 8 << 30 })},
		"nothing":             {},
		"only what was asked": {file("data/package.json", nil)},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, e := range entries {
			e(w)
		}
		w.Flush()
		b.Write(make([]byte, 1024))
		if what == "twice" || what == "out of order" {
			k := newChecker(h.trust)
			fatal(t, k.archive(context.Background(), bytes.NewReader(b.Bytes()), nil))
			if len(k.problems[levelPayload]) != 1 {
				t.Errorf("%s: %v", what, k.problems)
			}
		}
		path := h.hostile(t, b.Bytes())
		dir := filepath.Join(t.TempDir(), "x", "bag")
		fatal(t, os.MkdirAll(filepath.Dir(dir), 0o700))
		c, err := Open(context.Background(), path, h.key, h.trust, dir)
		if err != nil || c.OK() {
			t.Errorf("%s: %v %v", what, c, err)
			continue
		}
		des, err := os.ReadDir(filepath.Dir(dir))
		if err != nil || len(des) != 0 {
			t.Errorf("%s left %v %v", what, des, err)
		}
		code, also, out := second(t, bin, "--log", h.trust.Log[0], "--witness", h.trust.Witnesses[0].VKey, "--key", key, "--passphrase-file", pass, path)
		if code != 1 || also != names(c) {
			t.Errorf("%s: the second verifier says %d %q, the first %q\n%s", what, code, also, names(c), out)
		}
	}
	// Chunks that do not belong: of another package, in another order, or left out.
	b := bytes.Repeat([]byte("x"), 3*chunkSize)
	whole, err := os.ReadFile(h.hostile(t, b))
	fatal(t, err)
	c, err := splitContainer(readerAt(whole), int64(len(whole)))
	fatal(t, err)
	fatal(t, c.readHead())
	n := chunkHeadLen + chunkSize + chunkTagLen
	first, second := int(c.at), int(c.at)+n
	for what, change := range map[string]func([]byte){
		"exchanged": func(b []byte) {
			x := bytes.Clone(b[first:second])
			copy(b[first:], b[second:second+n])
			copy(b[second:], x)
		},
		"repeated": func(b []byte) { copy(b[second:second+n], b[first:second]) },
		"the last": func(b []byte) { b[first] = 1 },
	} {
		changed := bytes.Clone(whole)
		change(changed)
		in, err := splitContainer(readerAt(changed), int64(len(changed)))
		fatal(t, err)
		fatal(t, in.readHead())
		r, err := in.open(h.key)
		fatal(t, err)
		if _, err := bytes.NewBuffer(nil).ReadFrom(r); err == nil {
			t.Error(what, "opens")
		}
	}
}

// TestBadRequests: what is asked badly makes nothing.
func TestBadRequests(t *testing.T) {
	h := newHouse(t)
	h.fill(t, 3)
	dir := t.TempDir()
	for what, change := range map[string]func(*Request){
		"no case":        func(r *Request) { r.Case = "" },
		"a sentence":     func(r *Request) { r.Purpose = "because I want to" },
		"nobody":         func(r *Request) { r.Recipients = nil },
		"one key twice":  func(r *Request) { r.Recipients = append(r.Recipients, r.Recipients[0]) },
		"over already":   func(r *Request) { r.Due = h.now.AddDate(0, 0, -1) },
		"a name":         func(r *Request) { r.People = []event.Token{"alice"} },
		"backwards":      func(r *Request) { r.Scope.From, r.Scope.To = h.now, h.now.Add(-time.Hour) },
		"nothing in it":  func(r *Request) { r.Scope.Sources = []string{"none"} },
		"a path":         func(r *Request) { r.Scope.Compartments = []string{"../x"} },
		"no such answer": func(r *Request) { r.Approvals = []string{uuid.NewString()} },
	} {
		req := h.request()
		change(&req)
		if _, err := h.Create(context.Background(), req, filepath.Join(dir, "p")); err == nil {
			t.Error(what)
		}
		if des, err := os.ReadDir(dir); err != nil || len(des) != 0 {
			t.Fatal(what, des, err)
		}
	}
}

// FuzzContainer: no other bytes are the package.
func FuzzContainer(f *testing.F) {
	good, _, v := readGolden(f)
	f.Add(good)
	f.Add(good[len(good)-3000:])
	f.Add([]byte("CSEALPK1\x00\x00\x00\x02{}\x00\x00\x00\x00CSEALPKE"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := verifyReader(context.Background(), readerAt(b), int64(len(b)), nil, v, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.OK() && !bytes.Equal(b, good) {
			t.Fatal("another file is the package too")
		}
	})
}

// FuzzArchive: whatever is in an archive, reading it ends, and it is accepted only
// where its files are those of the package that was made.
func FuzzArchive(f *testing.F) {
	good, key, v := readGolden(f)
	box, err := splitContainer(readerAt(good), int64(len(good)))
	fatal(f, err)
	fatal(f, box.readHead())
	r, err := box.open(key)
	fatal(f, err)
	var plain bytes.Buffer
	_, err = plain.ReadFrom(r)
	fatal(f, err)
	want := newChecker(v)
	fatal(f, want.archive(context.Background(), bytes.NewReader(plain.Bytes()), nil))
	f.Add(plain.Bytes())
	f.Add(plain.Bytes()[:512])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		c := newChecker(v)
		c.checkMade(box.made)
		err := c.archive(context.Background(), bytes.NewReader(b), nil)
		c.finish()
		if err == nil && c.result().OK() && !maps.Equal(c.sums, want.sums) {
			t.Fatal("other files are the package too")
		}
	})
}

// FuzzRecipient: a card has one form.
func FuzzRecipient(f *testing.F) {
	k, err := NewRecipientKey("Court")
	fatal(f, err)
	f.Add(k.Card().Bytes())
	b, err := k.File([]byte(testPass))
	fatal(f, err)
	f.Add(b)
	f.Add([]byte(`{"name":"x","seal":"","suite":"","v":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRecipient(b)
		if err != nil {
			return
		}
		again, err := ParseRecipient(r.Bytes())
		if err != nil || again.ID() != r.ID() {
			t.Fatal(err)
		}
	})
}

// FuzzManifest: what is read as a manifest is written again as it was.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(strings.Repeat("0", 64) + "  bagit.txt\n"))
	f.Add([]byte(strings.Repeat("a", 64) + "  data/index.html\n" + strings.Repeat("1", 64) + "  data/ledger/000000000001.json\n"))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		names, sums, err := parseManifest(b)
		if err != nil {
			return
		}
		var again strings.Builder
		for i, n := range names {
			again.WriteString(hexOf(sums[i]) + "  " + n + "\n")
		}
		if again.String() != string(b) {
			t.Fatal("it is written otherwise")
		}
	})
}
