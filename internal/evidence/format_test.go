package evidence

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/klauspost/compress/zstd"
)

var update = flag.Bool("update", false, "write testdata/v1 anew; only with a new format number")

// goldenRecords are what testdata/v1 holds: 600 records, so that there are two levels
// of tiles.
func goldenRecords() [][]byte {
	var out [][]byte
	for i := range 600 {
		out = append(out, fmt.Appendf(nil, "golden record %d", i))
	}
	return append(out, nil)
}

// golden is a copy of testdata/v1: a data directory written by format 1, with an
// empty record, two closed segments and one that was recovered from a torn tail.
func golden(t *testing.T) string {
	t.Helper()
	dir := quickDir(t)
	copyDir(t, filepath.Join("testdata", "v1"), dir)
	return dir
}

func writeGolden(t *testing.T) {
	dir := filepath.Join("testdata", "v1")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 25, 9, 0, 0, 0, time.UTC)
	fix := func(o *Options) { o.Now = func() time.Time { now = now.Add(time.Second); return now } }
	s := open(t, dir, fix)
	r := goldenRecords()
	mustAppend(t, s, "servers", r[:300])
	mustAppend(t, s, "servers", r[300:590])
	if err := s.Rotate(); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, "servers", r[590:])
	b, err := os.ReadFile(files(t, dir, "servers", extOpen)[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(context.Background(), Originals, "servers", [][]byte{[]byte("as received")}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// The last segment as a crash would have left it.
	last := files(t, dir, "servers", extClosed)[1]
	os.Remove(last)
	rewrite(t, last[:len(last)-len(extClosed)]+extOpen, append(b, "torn"...))
	s = open(t, dir, fix)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestGoldenStillReads(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	dir := golden(t)
	r := verify(t, dir)
	if !r.OK() || len(r.Segments) != 3 || len(r.Notes) != 0 || r.Segments[1].Cut != 4 {
		t.Fatalf("%+v", r)
	}
	s := open(t, dir, nil)
	got, _ := all(t, s, "servers")
	if diff := cmp.Diff(texts(goldenRecords()), got); diff != "" {
		t.Fatal(diff)
	}
}

// TestGoldenByTheDocument reads the golden segments as docs/formats/segment.md and
// keycard.md say, without a function of this package: the documents are enough.
func TestGoldenByTheDocument(t *testing.T) {
	dir := golden(t)
	var ring struct{ ID, Master string }
	b, err := os.ReadFile(filepath.Join(dir, "keys", "keyring"))
	if err != nil || json.Unmarshal(b, &ring) != nil {
		t.Fatal(err)
	}
	must := func(ok bool, what string) {
		t.Helper()
		if !ok {
			t.Fatalf("%s is not as the document says", what)
		}
	}
	derive := func(secret []byte, id uuid.UUID, info string) []byte {
		k, err := hkdf.Key(sha256.New, secret, id[:], info, 32)
		must(err == nil, "HKDF")
		return k
	}
	gcm := func(key []byte) cipher.AEAD {
		block, err := aes.NewCipher(key)
		must(err == nil, "AES")
		a, err := cipher.NewGCMWithRandomNonce(block)
		must(err == nil, "GCM")
		return a
	}
	u32, u64 := binary.BigEndian.Uint32, binary.BigEndian.Uint64
	crc := func(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }
	master, err := base64.RawURLEncoding.DecodeString(ring.Master)
	must(err == nil, "master")
	wrap := gcm(derive(master, uuid.MustParse(ring.ID), "counterseal/keyring/v1/wrap/segment/events"))
	zr, err := zstd.NewReader(nil)
	must(err == nil, "zstd")

	var records []string
	prevFooter, prevID := "", ""
	for n, path := range files(t, dir, "servers", ".seg") {
		b, err := os.ReadFile(path)
		must(err == nil && string(b[:8]) == "CSEALSG1" && u32(b[8:]) == 1<<16, "prelude")
		jl := int(u32(b[12:]))
		head := b[:16+jl+4]
		must(u32(head[16+jl:]) == crc(head[:16+jl]), "crc of the head")
		headerHash := sha256.Sum256(head)
		var h struct {
			CardCommit string `json:"card_commit"`
			Segment    string
			Seq        string
			Prev       struct{ Hash, Segment, State string }
		}
		must(json.Unmarshal(head[16:16+jl], &h) == nil && h.Seq == fmt.Sprint(n+1), "header")
		must(h.Prev.Hash == prevFooter && h.Prev.Segment == prevID, "prev")
		id := uuid.MustParse(h.Segment)

		var c struct{ Box, Keyring string }
		cb, err := os.ReadFile(filepath.Join(dir, "keys", "segments", h.Segment+".card"))
		must(err == nil && json.Unmarshal(cb, &c) == nil && c.Keyring == ring.ID, "card")
		box, err := base64.RawURLEncoding.DecodeString(c.Box)
		must(err == nil && box[0] == 1, "box")
		secret, err := wrap.Open(nil, nil, box[1:], append(append([]byte("counterseal/card/v1\x00"), id[:]...), headerHash[:]...))
		must(err == nil, "wrap of the card")
		commit := sha256.Sum256(append(append([]byte("counterseal/card/v1\x00"), id[:]...), secret...))
		must(hex.EncodeToString(commit[:]) == h.CardCommit, "card_commit")
		data := gcm(derive(secret, id, "counterseal/segment/v1/data"))
		saltKey := derive(secret, id, "counterseal/segment/v1/salt")

		at, prev := len(head), headerHash
		var leaves, blocks []hash
		var table []byte
		for b[at+4] == 1 {
			f := b[at : at+int(u32(b[at+8:]))]
			k := int(u32(f[24:]))
			must(string(f[:4]) == "CSBK" && u32(f[12:]) == uint32(len(blocks)) && u64(f[16:]) == uint64(len(leaves)), "frame")
			must(bytes.Equal(f[40:72], prev[:]) && u32(f[len(f)-4:]) == crc(f[:len(f)-4]), "chain")
			comp, err := data.Open(nil, nil, f[72+32*k:len(f)-4], append(append([]byte(nil), headerHash[:]...), f[:72+32*k]...))
			must(err == nil, "block")
			raw, err := zr.DecodeAll(comp, nil)
			must(err == nil && len(raw) == int(u32(f[28:])), "records")
			table = binary.BigEndian.AppendUint64(table, uint64(at))
			table = binary.BigEndian.AppendUint64(table, uint64(len(leaves)))
			for i := range k {
				rec := raw[4 : 4+u32(raw)]
				raw = raw[4+len(rec):]
				m := hmac.New(sha256.New, saltKey)
				m.Write(binary.BigEndian.AppendUint64(nil, uint64(len(leaves))))
				leaf := sha256.Sum256(append(m.Sum([]byte{0}), rec...))
				must(bytes.Equal(leaf[:], f[72+32*i:72+32*i+32]), "leaf")
				leaves = append(leaves, leaf)
				records = append(records, string(rec))
			}
			prev = sha256.Sum256(append([]byte{0}, f...))
			blocks = append(blocks, prev)
			at += len(f)
		}
		f := b[at : at+int(u32(b[at+8:]))]
		must(f[4] == 0xF0 && bytes.Equal(f[40:72], prev[:]) && u32(f[12:]) == uint32(len(blocks)) && u64(f[16:]) == uint64(len(leaves)), "footer")
		must(u32(f[len(f)-4:]) == crc(f[:len(f)-4]), "crc of the footer")
		jl = int(u32(f[72:]))
		var foot struct {
			RecordsRoot string `json:"records_root"`
			BlocksRoot  string `json:"blocks_root"`
			HeaderHash  string `json:"header_hash"`
			Cut         int
			CutSHA256   string `json:"cut_sha256"`
		}
		must(json.Unmarshal(f[76:76+jl], &foot) == nil, "JSON of the footer")
		// naive is the definition of RFC 6962, in tree_test.go.
		must(naive(leaves).String() == foot.RecordsRoot && naive(blocks).String() == foot.BlocksRoot && hex.EncodeToString(headerHash[:]) == foot.HeaderHash, "roots")
		var tiles []byte
		for level := leaves; len(level) > 0; {
			var up []hash
			for i := 0; i < len(level); i += 256 {
				up = append(up, naive(level[i:min(i+256, len(level))]))
			}
			for _, u := range up {
				tiles = append(tiles, u[:]...)
			}
			if level = up; len(up) == 1 {
				break
			}
		}
		must(bytes.Equal(f[76+jl:len(f)-4], append(table, tiles...)), "table and tiles")
		tr := b[at+len(f):]
		must(len(tr) == 24 && u64(tr) == uint64(at) && u32(tr[8:]) == uint32(len(f)) && u32(tr[12:]) == crc(tr[:12]) && string(tr[16:]) == "CSEALEND", "trailer")
		if foot.Cut > 0 {
			tail, err := os.ReadFile(path[:len(path)-4] + ".tail")
			digest := sha256.Sum256(tail)
			must(err == nil && len(tail) == foot.Cut && hex.EncodeToString(digest[:]) == foot.CutSHA256, "tail")
		}
		fh := sha256.Sum256(append([]byte{0}, f...))
		prevFooter, prevID = hex.EncodeToString(fh[:]), h.Segment
	}
	if diff := cmp.Diff(texts(goldenRecords()), records); diff != "" {
		t.Fatal(diff)
	}
}
