package vault

import (
	"errors"

	"golang.org/x/mod/sumdb/tlog"
)

// Window is what the ledger is told about the rows of some seconds: how many, and the root
// of the RFC 6962 tree over their commitments, in the order in which they were made.
type Window struct {
	ID   string // UUID
	N    int64
	Root [32]byte
}

// Proof shows that a row stands in a window.
type Proof struct {
	Window Window
	Index  int64
	Path   [][32]byte // siblings, from the leaf to the root
}

// Check verifies that a row with this commitment stands in the window.
func (p *Proof) Check(commitment [32]byte) error {
	if len(p.Path) > 63 {
		return errProof
	}
	path := make(tlog.RecordProof, len(p.Path))
	for i, h := range p.Path {
		path[i] = tlog.Hash(h)
	}
	if p.Window.N < 1 || p.Index < 0 || p.Index >= p.Window.N ||
		tlog.CheckRecord(path, p.Window.N, tlog.Hash(p.Window.Root), p.Index, tlog.RecordHash(commitment[:])) != nil {
		return errProof
	}
	return nil
}

var errProof = errors.New("the sealed identity is not the one that the ledger knows from its first sighting")

// root is the root over the commitments of a window.
func root(leaves [][32]byte) tlog.Hash {
	if len(leaves) == 1 {
		return tlog.RecordHash(leaves[0][:])
	}
	k := split(len(leaves))
	return tlog.NodeHash(root(leaves[:k]), root(leaves[k:]))
}

// path is the way from one leaf to the root.
func path(leaves [][32]byte, i int) [][32]byte {
	if len(leaves) == 1 {
		return nil
	}
	k := split(len(leaves))
	if i < k {
		return append(path(leaves[:k], i), root(leaves[k:]))
	}
	return append(path(leaves[k:], i-k), root(leaves[:k]))
}

// split is the largest power of two below n, which is 2 or more.
func split(n int) int {
	k := 1
	for 2*k < n {
		k *= 2
	}
	return k
}
