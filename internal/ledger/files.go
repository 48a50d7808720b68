package ledger

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// The names below the directory of a ledger.
const (
	logDir        = "log" // tlog-tiles, as an auditor may fetch it
	payloadDir    = "payloads"
	incidentDir   = "incidents"
	outboxName    = "outbox"
	witnessedName = "witnessed"
)

// The shape of tlog-tiles.
const (
	tileHeight    = 8
	tileWidth     = 1 << tileHeight
	maxCheckpoint = 64 << 10
	maxBundle     = tileWidth * (2 + 1<<16)
)

// files reads a log directory and nothing in it that is a lock: closing a lock
// file here would drop the lock that the writer of this process holds.
type files struct{ root string }

// number spells a tile index as tlog-tiles does.
func number(n int64) string {
	s := fmt.Sprintf("%03d", n%1000)
	for n /= 1000; n > 0; n /= 1000 {
		s = fmt.Sprintf("x%03d/%s", n%1000, s)
	}
	return s
}

// tilePath is the path of tile n of a level, "entries" or a number, below the log.
func tilePath(level string, n int64, width int) string {
	p := "tile/" + level + "/" + number(n)
	if width < tileWidth {
		p += ".p/" + strconv.Itoa(width)
	}
	return p
}

// read returns a file of the log, bounded.
func (f files) read(name string, most int64) ([]byte, error) {
	h, err := os.Open(filepath.Join(f.root, filepath.FromSlash(name)))
	if err != nil {
		return nil, err
	}
	defer h.Close()
	b, err := io.ReadAll(io.LimitReader(h, most+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if int64(len(b)) > most {
		return nil, fmt.Errorf("%s is longer than %d bytes", name, most)
	}
	return b, nil
}

// part reads a tile of at least width elements: the partial file, or, where it was
// collected because the tile is full by now, the full one. It says which it read.
func (f files) part(level string, n int64, width int, most int64) ([]byte, string, error) {
	name := tilePath(level, n, width)
	b, err := f.read(name, most)
	if errors.Is(err, fs.ErrNotExist) && width < tileWidth {
		if full, ferr := f.read(tilePath(level, n, tileWidth), most); ferr == nil {
			return full, tilePath(level, n, tileWidth), nil
		}
	}
	return b, name, err
}

// Height is part of tlog.TileReader.
func (f files) Height() int { return tileHeight }

// SaveTiles is part of tlog.TileReader.
func (f files) SaveTiles([]tlog.Tile, [][]byte) {}

// ReadTiles is part of tlog.TileReader.
func (f files) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	out := make([][]byte, len(tiles))
	for i, t := range tiles {
		b, name, err := f.part(strconv.Itoa(t.L), t.N, t.W, tileWidth*tlog.HashSize)
		if err != nil {
			return nil, err
		}
		if len(b) < t.W*tlog.HashSize {
			return nil, fmt.Errorf("%s holds %d bytes, less than %d hashes", name, len(b), t.W)
		}
		out[i] = b[:t.W*tlog.HashSize]
	}
	return out, nil
}

// hashes reads the hashes of a tree, each proven against its root.
func (f files) hashes(t tree) tlog.HashReader {
	return tlog.TileHashReader(tlog.Tree{N: t.size, Hash: t.root}, f)
}

// bundle reads the first width entries of bundle n.
func (f files) bundle(n int64, width int) ([][]byte, error) {
	b, name, err := f.part("entries", n, width, maxBundle)
	if err != nil {
		return nil, err
	}
	entries, err := splitBundle(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(entries) < width || (strings.Contains(name, ".p/") || width == tileWidth) && len(entries) != width {
		return nil, fmt.Errorf("%s holds %d entries, not %d", name, len(entries), width)
	}
	return entries[:width], nil
}

// splitBundle takes an entry bundle apart: a length in two bytes, big-endian, and
// that many bytes, for each entry.
func splitBundle(b []byte) ([][]byte, error) {
	var out [][]byte
	for at := 0; at < len(b); {
		if len(b)-at < 2 {
			return nil, fmt.Errorf("a length is cut off at byte %d", at)
		}
		n := int(binary.BigEndian.Uint16(b[at:]))
		at += 2
		if len(b)-at < n {
			return nil, fmt.Errorf("an entry is cut off at byte %d", at)
		}
		if len(out) == tileWidth {
			return nil, fmt.Errorf("more than %d entries", tileWidth)
		}
		out = append(out, b[at:at+n:at+n])
		at += n
	}
	return out, nil
}

// widthAt is how many elements tile n of level 0 has in a log of size.
func widthAt(size, n int64) int { return int(min(size-n*tileWidth, tileWidth)) }

// entry reads one leaf.
func (f files) entry(size, index int64) ([]byte, error) {
	n := index / tileWidth
	entries, err := f.bundle(n, widthAt(size, n))
	if err != nil {
		return nil, err
	}
	return entries[index%tileWidth], nil
}

// tree is a size and a root.
type tree struct {
	size int64
	root tlog.Hash
}

// state is what the library has integrated, signed or not.
func (f files) state() (tree, error) {
	const name = ".state/treeState"
	b, err := f.read(name, 4096)
	if err != nil {
		return tree{}, err
	}
	var st struct {
		Size *int64 `json:"size"`
		Root []byte `json:"root"`
	}
	if err := json.Unmarshal(b, &st); err != nil || st.Size == nil || *st.Size < 0 || len(st.Root) != tlog.HashSize {
		return tree{}, fmt.Errorf("%s is broken", name)
	}
	// Only the spelling of the library, so that no changed byte reads the same.
	if fmt.Sprintf(`{"size":%d,"root":"%s"}`, *st.Size, base64.StdEncoding.EncodeToString(st.Root)) != string(b) {
		return tree{}, fmt.Errorf("%s is broken", name)
	}
	return tree{size: *st.Size, root: tlog.Hash(st.Root)}, nil
}

// errCheckpoint is wrapped by every refusal of a checkpoint for its form.
var errCheckpoint = errors.New("not a checkpoint")

// parseCheckpoint reads the text of a checkpoint (c2sp.org/tlog-checkpoint). It
// checks no signature. Extension lines are allowed.
func parseCheckpoint(text string) (origin string, t tree, err error) {
	lines := strings.SplitN(text, "\n", 4)
	if len(lines) < 4 || lines[0] == "" || !strings.HasSuffix(text, "\n") {
		return "", t, fmt.Errorf("%w: fewer than three lines", errCheckpoint)
	}
	if t.size, err = parseSize(lines[1]); err != nil {
		return "", t, fmt.Errorf("%w: %v", errCheckpoint, err)
	}
	h, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(h) != tlog.HashSize || base64.StdEncoding.EncodeToString(h) != lines[2] {
		return "", t, fmt.Errorf("%w: the root is no hash", errCheckpoint)
	}
	t.root = tlog.Hash(h)
	if empty, _ := tlog.TreeHash(0, nil); t.size == 0 && t.root != empty {
		return "", t, fmt.Errorf("%w: size 0 with a root", errCheckpoint)
	}
	for l := range strings.SplitSeq(strings.TrimSuffix(lines[3], "\n"), "\n") {
		if l == "" && lines[3] != "" {
			return "", t, fmt.Errorf("%w: an empty line", errCheckpoint)
		}
	}
	return lines[0], t, nil
}

// parseSize reads a decimal size: no sign, no leading zero.
func parseSize(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != s {
		return 0, errors.New("a size is no decimal number")
	}
	return n, nil
}

// noteText is the signed text of a note, unverified, and whether it is one.
func noteText(raw []byte) (string, bool) {
	if len(raw) > maxCheckpoint {
		return "", false
	}
	_, err := note.Open(raw, note.VerifierList())
	var un *note.UnverifiedNoteError
	if !errors.As(err, &un) {
		return "", false
	}
	return un.Note.Text, true
}
