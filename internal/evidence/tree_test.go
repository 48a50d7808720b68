package evidence

import (
	"encoding/binary"
	"testing"
)

// naive is the definition of RFC 6962, 2.1.
func naive(leaves []hash) hash {
	switch n := len(leaves); n {
	case 0:
		return rootOf(nil)
	case 1:
		return leaves[0]
	default:
		k := 1
		for k*2 < n {
			k *= 2
		}
		return nodeHash(naive(leaves[:k]), naive(leaves[k:]))
	}
}

func TestTreeIsRFC6962(t *testing.T) {
	var leaves []hash
	var tr tree
	for i := range 70_000 {
		h := leafHash(binary.BigEndian.AppendUint32(nil, uint32(i)))
		leaves = append(leaves, h)
		tr.add(h)
		if n := i + 1; n < 600 || n%256 < 2 && n < 5000 || n > 65534 && n < 65540 || n == 70_000 {
			if tr.root() != naive(leaves) {
				t.Fatalf("%d leaves: another root", n)
			}
			if got, want := uint64(len(tr.tiles())), tileCount(uint64(n)); got != want {
				t.Fatalf("%d leaves: %d tiles, counted %d", n, got, want)
			}
		}
	}
	// The example of RFC 6962, 2.1.3: the tree over no leaf.
	if got := new(tree).root().String(); got != "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" {
		t.Fatalf("empty tree: %s", got)
	}
}

func TestPathRefusesChange(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7, 8, 255, 256} {
		var leaves []hash
		for i := range n {
			leaves = append(leaves, leafHash([]byte{byte(i), byte(n)}))
		}
		root := naive(leaves)
		for i := range n {
			path, r := pathIn(append([]hash(nil), leaves...), i)
			if r != root {
				t.Fatalf("%d of %d: root", i, n)
			}
			if err := checkPath(leaves[i], uint64(i), uint64(n), path, root); err != nil {
				t.Fatalf("%d of %d: %v", i, n, err)
			}
			for k := range path {
				path[k][5] ^= 1
				if checkPath(leaves[i], uint64(i), uint64(n), path, root) == nil {
					t.Fatalf("%d of %d: accepted a changed path", i, n)
				}
				path[k][5] ^= 1
			}
			if checkPath(leaves[i], uint64(i), uint64(n), append(path, hash{}), root) == nil {
				t.Fatalf("%d of %d: accepted a longer path", i, n)
			}
			if n > 1 && checkPath(leaves[i], uint64(i), uint64(n), path[:len(path)-1], root) == nil {
				t.Fatalf("%d of %d: accepted a shorter path", i, n)
			}
			if n > 1 && checkPath(leaves[(i+1)%n], uint64(i), uint64(n), path, root) == nil {
				t.Fatalf("%d of %d: accepted another leaf", i, n)
			}
		}
	}
}
