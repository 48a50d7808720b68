package ledger

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// Closed is a log that nobody adds to any more: another has succeeded it. It is safe
// for concurrent use.
type Closed struct {
	dir   string
	files files
	trust *trust
	tree  tree
}

// OpenClosed reads the directory of a ledger that no process has open. It checks
// signatures as it meets them; whether all is as it was written VerifyDir says.
func OpenClosed(dir string, v Verifiers) (*Closed, error) {
	t, err := v.parse()
	if err != nil {
		return nil, fmt.Errorf("opening an earlier log: %w", err)
	}
	c := &Closed{dir: dir, files: files{root: filepath.Join(dir, logDir)}, trust: t}
	if c.tree, err = c.files.state(); err != nil {
		return nil, fmt.Errorf("opening an earlier log: %w", err)
	}
	return c, nil
}

// Origin names the log.
func (c *Closed) Origin() string { return c.trust.origin }

// Size is how many statements stand in it.
func (c *Closed) Size() uint64 { return uint64(c.tree.size) }

// Root is its root at that size, in hex.
func (c *Closed) Root() string { return hex.EncodeToString(c.tree.root[:]) }

// Each is Ledger.Each.
func (c *Closed) Each(ctx context.Context, from uint64, fn func(index uint64, s Statement, raw []byte) error) (uint64, error) {
	n, err := eachIn(ctx, c.files, int64(from), c.tree.size, fn)
	return uint64(n), err
}

// Leaf is Ledger.Leaf.
func (c *Closed) Leaf(_ context.Context, index uint64) ([]byte, error) {
	if index >= c.Size() {
		return nil, fmt.Errorf("statement %d is not in the log %s: it has %d", index, c.Origin(), c.tree.size)
	}
	return c.files.leaf(c.tree.size, int64(index))
}

// Checkpoint is the newest checkpoint of it that the witnesses have seen, else the
// newest that it published.
func (c *Closed) Checkpoint() ([]byte, error) {
	raw, err := c.files.read("../"+witnessedName, maxCheckpoint)
	if errors.Is(err, fs.ErrNotExist) {
		raw, err = c.files.read("checkpoint", maxCheckpoint)
	}
	return raw, err
}

// Prove is Ledger.Prove.
func (c *Closed) Prove(_ context.Context, index uint64) ([]byte, error) {
	var last error
	for _, name := range []string{"../" + witnessedName, "checkpoint"} {
		raw, err := c.files.read(name, maxCheckpoint)
		if err != nil {
			last = err
			continue
		}
		o, err := c.trust.open(raw)
		if err != nil {
			last = err
			continue
		}
		if uint64(o.size) > index {
			return c.files.prove(int64(index), o)
		}
		last = fmt.Errorf("statement %d: %w; it has %d", index, ErrUncovered, o.size)
	}
	return nil, last
}

// Payload is Ledger.Payload.
func (c *Closed) Payload(d Digest) ([]byte, error) { return ReadPayload(c.dir, d) }
