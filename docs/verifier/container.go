package main

import (
	"archive/tar"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hpke"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	nameMade      = "package-made.txt"
	nameContainer = "container"

	maxMade   = 131_072
	chunkSize = 1_048_576
	sealedLen = chunkSize + 12 + 16
	endLen    = 4 + 8
	suiteName = "HPKE(MLKEM768-P256,HKDF-SHA256,export-only)+AES-256-GCM"
)

// container is a sealed file, its end taken off.
type container struct {
	f    io.ReaderAt
	body int64
	head head
	sum  [32]byte
	at   int64
}

type head struct {
	Type  string `json:"_type"`
	Boxes []box  `json:"boxes"`
	Chunk int    `json:"chunk"`
	ID    string `json:"id"`
	Org   string `json:"org"`
}

type box struct {
	Box string `json:"box"`
	Key string `json:"key"`
}

func split(f io.ReaderAt, size int64) (*container, []byte, error) {
	if size < endLen {
		return nil, nil, errShort
	}
	end := make([]byte, endLen)
	if _, err := f.ReadAt(end, size-endLen); err != nil {
		return nil, nil, err
	}
	n := int64(binary.BigEndian.Uint32(end))
	if string(end[4:]) != "CSEALPKE" || n > maxMade || n > size-endLen {
		return nil, nil, errors.New("the file does not end as a package does")
	}
	made := make([]byte, n)
	_, err := f.ReadAt(made, size-endLen-n)
	return &container{f: f, body: size - endLen - n}, made, err
}

// level2 compares the body with what the ledger knows.
func (v *verifier) level2(c *container) {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(c.f, 0, c.body)); err != nil {
		v.bad(nameContainer, err)
	}
	if hex.EncodeToString(h.Sum(nil)) != v.made.Digest {
		v.bad(nameContainer, "its digest is not the one in the ledger")
	}
	if err := c.readHead(); err != nil {
		v.bad(nameContainer, err)
	} else if c.head.ID != v.id {
		v.bad(nameContainer, "it has another id")
	}
}

func (c *container) readHead() error {
	b := make([]byte, 12)
	if c.body < 12 {
		return errShort
	}
	if _, err := c.f.ReadAt(b, 0); err != nil {
		return err
	}
	n := int64(binary.BigEndian.Uint32(b[8:]))
	if string(b[:8]) != "CSEALPK1" || n > 1_048_576 || n > c.body-12 {
		return errors.New("not the head of a package")
	}
	js := make([]byte, n)
	if _, err := c.f.ReadAt(js, 12); err != nil {
		return err
	}
	if canonical(js, &c.head) != nil || c.head.Type != "counterseal/package/v1" || c.head.Chunk != chunkSize || len(c.head.Boxes) < 1 || len(c.head.Boxes) > 64 {
		return errors.New("not the head of a package")
	}
	c.sum, c.at = sha256.Sum256(append(b, js...)), 12+n
	return nil
}

var errNotForKey = errors.New("the package is not sealed to this key")

// open gives the archive, decrypted where it is read.
func (c *container) open(seed []byte) (*archive, error) {
	private, err := hpke.MLKEM768P256().NewPrivateKey(seed)
	if err != nil {
		return nil, fmt.Errorf("the key: %w", err)
	}
	id := sha256.Sum256(private.PublicKey().Bytes())
	key := hex.EncodeToString(id[:])
	i := slices.IndexFunc(c.head.Boxes, func(b box) bool { return b.Key == key })
	if i < 0 {
		return nil, errNotForKey
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(c.head.Boxes[i].Box)
	// 1 version, 2 KEM, 2 KDF, 1,153 enc, 12 nonce, 32 key, 16 tag
	if err != nil || len(b) != 5+1153+12+32+16 || !bytes.Equal(b[:5], []byte{1, 0, 0x50, 0, 1}) {
		return nil, errors.New("a box is not a seal")
	}
	info := `{"epoch":1,"key":"` + key + `","org":"` + c.head.Org + `","purpose":"package","role":"only","subject":"` + c.head.ID + `","v":1}`
	r, err := hpke.NewRecipient(b[5:5+1153], private, hpke.HKDFSHA256(), hpke.ExportOnly(), []byte(info))
	if err != nil {
		return nil, errors.New("a box does not open")
	}
	k, err := r.Export("counterseal/seal/v1/key", 32)
	if err != nil {
		return nil, err
	}
	content, err := gcmOpen(k, b[5+1153:], []byte(info))
	if err != nil {
		return nil, errors.New("a box does not open")
	}
	a := &archive{c: c, key: content, n: -1}
	// All chunks are full but the last one.
	room := c.body - c.at
	if room < 5+28 {
		return nil, errShort
	}
	a.chunks = (room + 5 + sealedLen - 1) / (5 + sealedLen)
	a.size = room - a.chunks*(5+28)
	for n := range a.chunks { // each must open, read or not
		if _, err := a.chunk(n); err != nil {
			return nil, fmt.Errorf("chunk %d: %w", n, err)
		}
	}
	return a, nil
}

func gcmOpen(key, sealed, aad []byte) ([]byte, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	g, err := cipher.NewGCMWithRandomNonce(b)
	if err != nil {
		return nil, err
	}
	return g.Open(nil, nil, sealed, aad)
}

// archive is the plain archive as a file that is decrypted chunk by chunk.
type archive struct {
	c            *container
	key          []byte
	chunks, size int64
	n            int64 // the chunk in hand
	plain        []byte
}

func (a *archive) chunk(n int64) ([]byte, error) {
	if n == a.n {
		return a.plain, nil
	}
	at := a.c.at + n*(5+sealedLen)
	want := min(int64(sealedLen), a.c.body-at-5)
	b := make([]byte, 5+max(want, 0))
	if want < 28 {
		return nil, errShort
	}
	if _, err := a.c.f.ReadAt(b, at); err != nil {
		return nil, err
	}
	last := byte(0)
	if n == a.chunks-1 {
		last = 1
	}
	if b[0] != last || int64(binary.BigEndian.Uint32(b[1:])) != want {
		return nil, errors.New("its length or place is wrong")
	}
	aad := binary.BigEndian.AppendUint64(a.c.sum[:len(a.c.sum):len(a.c.sum)], uint64(n))
	plain, err := gcmOpen(a.key, b[5:], append(aad, last))
	if err != nil {
		return nil, errors.New("it does not open")
	}
	a.n, a.plain = n, plain
	return plain, nil
}

func (a *archive) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		if off >= a.size {
			return done, io.EOF
		}
		c, err := a.chunk(off / chunkSize)
		if err != nil {
			return done, err
		}
		k := copy(p[done:], c[off%chunkSize:])
		done += k
		off += int64(k)
	}
	return done, nil
}

// files are the files of a bag, from an archive or a folder.
type files struct {
	names  []string // payload first, each part in order
	stray  []problem
	reader func(name string) (io.ReadCloser, error)
	close  func()
}

// readArchive finds where each file lies.
func readArchive(a *archive) (*files, error) {
	type place struct{ at, size int64 }
	places := map[string]place{}
	fs := &files{close: func() {}}
	in := io.NewSectionReader(a, 0, a.size)
	tr := tar.NewReader(in)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("archive: %w", err)
		}
		if h.Typeflag != tar.TypeReg || h.Format != tar.FormatUSTAR || h.Mode != 0o644 || h.Size > maxFile {
			return nil, errors.New("archive: an entry that is no plain file")
		}
		if len(places) > maxFiles+8 {
			return nil, errors.New("archive: too many files")
		}
		at, err := in.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		if n := len(fs.names); !known(h.Name) {
			fs.stray = append(fs.stray, problem{h.Name, "no file of this name belongs into a package"})
			continue
		} else if n > 0 && !after(h.Name, fs.names[n-1]) {
			fs.stray = append(fs.stray, problem{h.Name, "twice, or out of order"})
			continue
		}
		places[h.Name] = place{at, h.Size}
		fs.names = append(fs.names, h.Name)
	}
	fs.reader = func(name string) (io.ReadCloser, error) {
		p, ok := places[name]
		if !ok {
			return nil, os.ErrNotExist
		}
		return io.NopCloser(io.NewSectionReader(a, p.at, p.size)), nil
	}
	return fs, nil
}

// readFolder finds the files of an opened package.
func readFolder(dir string) (*files, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	fs := &files{close: func() { root.Close() }, reader: func(name string) (io.ReadCloser, error) { return root.Open(name) }}
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		switch {
		case d.IsDir():
			if !slices.Contains([]string{".", "data", "data/ledger", "data/originals", "data/records"}, name) {
				fs.stray = append(fs.stray, problem{name, "no folder of this name belongs into a package"})
				return filepath.SkipDir
			}
		case !d.Type().IsRegular():
			fs.stray = append(fs.stray, problem{name, "no plain file"})
		case name == nameMade:
		case !known(name):
			fs.stray = append(fs.stray, problem{name, "no file of this name belongs into a package"})
		default:
			fs.names = append(fs.names, name)
		}
		if len(fs.names) > maxFiles+8 {
			return errors.New("too many files")
		}
		return nil
	})
	slices.SortFunc(fs.names, func(a, b string) int {
		if after(a, b) {
			return 1
		}
		return -1
	})
	return fs, err
}

// after is the order of files.
func after(name, before string) bool {
	a, b := strings.HasPrefix(name, "data/"), strings.HasPrefix(before, "data/")
	if a != b {
		return b
	}
	return name > before
}

// read gives a small file.
func (f *files) read(name string, most int64) ([]byte, error) {
	r, err := f.reader(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(b)) > most {
		err = errors.New("too long")
	}
	return b, err
}

func readPlain(dir, name string, most int64) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most+1))
}

// openKey opens the key file of a recipient (keycard.md, Sealed file).
func openKey(path, passFile string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pass, err := os.ReadFile(passFile)
	if err != nil {
		return nil, fmt.Errorf("the passphrase: %w", err)
	}
	pass = bytes.TrimSuffix(bytes.TrimSuffix(pass, []byte("\n")), []byte("\r"))
	var f struct {
		Box    string          `json:"box,omitempty"`
		KDF    string          `json:"kdf"`
		Kind   string          `json:"kind"`
		Public json.RawMessage `json:"public,omitempty"`
		Rounds int             `json:"rounds"`
		Salt   string          `json:"salt"`
		V      int             `json:"v"`
	}
	line := bytes.TrimSuffix(b, []byte("\n"))
	if canonical(line, &f) != nil || f.V != 2 || f.KDF != "PBKDF2-HMAC-SHA256" || f.Kind != "recipient" || f.Rounds < 600_000 || f.Rounds > 50_000_000 {
		return nil, errors.New("not the key file of a recipient")
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(f.Box)
	if err != nil {
		return nil, errors.New("not the key file of a recipient")
	}
	salt, err := base64.RawURLEncoding.Strict().DecodeString(f.Salt)
	if err != nil {
		return nil, errors.New("not the key file of a recipient")
	}
	f.Box = ""
	aad, err := encode(f)
	if err != nil {
		return nil, err
	}
	key, err := pbkdf2.Key(sha256.New, string(pass), salt, f.Rounds, 32)
	if err != nil {
		return nil, err
	}
	seed, err := gcmOpen(key, sealed, aad)
	if err != nil {
		return nil, errors.New("the passphrase is wrong, or the key file was changed")
	}
	return seed, nil
}
