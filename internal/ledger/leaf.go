package ledger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Leaf reads the exact bytes of one statement: the leaf that Prove proves.
func (l *Ledger) Leaf(ctx context.Context, index uint64) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	size := l.size64()
	if index >= uint64(size) {
		return nil, fmt.Errorf("statement %d is not in the ledger: it has %d", index, size)
	}
	b, err := l.files.leaf(size, int64(index))
	if err != nil {
		return nil, fmt.Errorf("reading statement %d: %w", index, err)
	}
	return b, nil
}

// leaf reads one entry and only the lengths of those before it, since a whole bundle
// may be a hundred times as long. Whether it is the right one, its proof says.
func (f files) leaf(size, index int64) ([]byte, error) {
	n := index / tileWidth
	width := widthAt(size, n)
	h, err := os.Open(filepath.Join(f.root, filepath.FromSlash(tilePath("entries", n, width))))
	if errors.Is(err, fs.ErrNotExist) && width < tileWidth { // collected: the bundle is full by now
		h, err = os.Open(filepath.Join(f.root, filepath.FromSlash(tilePath("entries", n, tileWidth))))
	}
	if err != nil {
		return nil, err
	}
	defer h.Close()
	var at int64
	var length [2]byte
	for i := int64(0); ; i++ {
		if _, err := h.ReadAt(length[:], at); err != nil {
			return nil, err
		}
		at += 2
		if i == index%tileWidth {
			break
		}
		at += int64(binary.BigEndian.Uint16(length[:]))
	}
	b := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := h.ReadAt(b, at); err != nil {
		return nil, err
	}
	return b, nil
}

// ProofOf takes a tlog-proof apart: the index that it is about and its checkpoint. It
// checks nothing else.
func ProofOf(proof []byte) (index uint64, checkpoint []byte, err error) {
	i, _, cp, err := parseProof(proof)
	return uint64(i), cp, err
}

// Check says what is wrong with the keys and the threshold themselves.
func (v Verifiers) Check() error {
	_, err := v.parse()
	return err
}
