package evidence

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// hash is a SHA-256.
type hash [32]byte

func (h hash) String() string { return hex.EncodeToString(h[:]) }

func parseHash(s string) (h hash, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(h) || hex.EncodeToString(b) != s {
		return h, errors.New("not 64 lower-case hexadecimal digits")
	}
	copy(h[:], b)
	return h, nil
}

// tileSize is how many nodes of one level have one parent in the footer.
const tileSize = 256

// leafHash is the RFC 6962 hash of a leaf made of parts.
func leafHash(parts ...[]byte) (h hash) {
	d := sha256.New()
	d.Write([]byte{0})
	for _, p := range parts {
		d.Write(p)
	}
	d.Sum(h[:0])
	return h
}

func nodeHash(a, b hash) hash {
	var m [65]byte
	m[0] = 1
	copy(m[1:], a[:])
	copy(m[33:], b[:])
	return sha256.Sum256(m[:])
}

// rootOf is the RFC 6962 tree hash over node hashes; it overwrites them. A node
// without a partner goes up unchanged, which gives the same tree as splitting at
// the largest power of two.
func rootOf(hs []hash) hash {
	if len(hs) == 0 {
		return sha256.Sum256(nil)
	}
	for len(hs) > 1 {
		k := 0
		for i := 0; i < len(hs); i += 2 {
			if i+1 < len(hs) {
				hs[k] = nodeHash(hs[i], hs[i+1])
			} else {
				hs[k] = hs[i]
			}
			k++
		}
		hs = hs[:k]
	}
	return hs[0]
}

// pathIn is the way from node i to the root over hs, siblings from the bottom up;
// it overwrites hs.
func pathIn(hs []hash, i int) (path []hash, root hash) {
	for len(hs) > 1 {
		if s := i ^ 1; s < len(hs) {
			path = append(path, hs[s])
		}
		k := 0
		for j := 0; j < len(hs); j += 2 {
			if j+1 < len(hs) {
				hs[k] = nodeHash(hs[j], hs[j+1])
			} else {
				hs[k] = hs[j]
			}
			k++
		}
		hs = hs[:k]
		i /= 2
	}
	return path, hs[0]
}

// tree grows an RFC 6962 tree and keeps one hash for each full tile of leaves.
type tree struct {
	full []hash // roots of full tiles
	part []hash // leaves behind them, fewer than tileSize
}

func (t *tree) add(h hash) {
	t.part = append(t.part, h)
	if len(t.part) == tileSize {
		t.full = append(t.full, rootOf(t.part))
		t.part = t.part[:0]
	}
}

// tiles is every level above the leaves, the lowest first, each hash the root of
// up to tileSize nodes below it. The last one is the root. No leaf: none.
func (t *tree) tiles() []hash {
	level := append([]hash(nil), t.full...)
	if len(t.part) > 0 {
		level = append(level, rootOf(append([]hash(nil), t.part...)))
	}
	all := append([]hash(nil), level...)
	for len(level) > 1 {
		var up []hash
		for i := 0; i < len(level); i += tileSize {
			up = append(up, rootOf(append([]hash(nil), level[i:min(i+tileSize, len(level))]...)))
		}
		all = append(all, up...)
		level = up
	}
	return all
}

func (t *tree) root() hash {
	all := t.tiles()
	if len(all) == 0 {
		return rootOf(nil)
	}
	return all[len(all)-1]
}

// tileLevels is how many hashes each level of tiles has over n leaves.
func tileLevels(n uint64) (levels []uint64) {
	for n > 0 {
		n = (n + tileSize - 1) / tileSize
		levels = append(levels, n)
		if n == 1 {
			break
		}
	}
	return levels
}

func tileCount(n uint64) (sum uint64) {
	for _, l := range tileLevels(n) {
		sum += l
	}
	return sum
}

// checkPath recomputes a root from a leaf and its path (RFC 9162, 2.1.3.2).
func checkPath(leaf hash, index, size uint64, path []hash, root hash) error {
	if index >= size {
		return fmt.Errorf("record %d is outside a tree of %d", index, size)
	}
	fn, sn, r := index, size-1, leaf
	for _, p := range path {
		if sn == 0 {
			return errors.New("the path is too long")
		}
		if fn&1 == 1 || fn == sn {
			r = nodeHash(p, r)
			for fn&1 == 0 && fn != 0 {
				fn, sn = fn>>1, sn>>1
			}
		} else {
			r = nodeHash(r, p)
		}
		fn, sn = fn>>1, sn>>1
	}
	if sn != 0 {
		return errors.New("the path is too short")
	}
	if r != root {
		return errors.New("the path leads to another root")
	}
	return nil
}
