package ledger

import (
	"io/fs"
	"strings"
)

// noLocks is a directory without its lock files. This process must not open those
// of a ledger that it has open itself: closing one drops the lock.
type noLocks struct{ fs.FS }

func (n noLocks) ReadDir(name string) ([]fs.DirEntry, error) {
	des, err := fs.ReadDir(n.FS, name)
	var out []fs.DirEntry
	for _, d := range des {
		if !strings.HasSuffix(d.Name(), "lock") {
			out = append(out, d)
		}
	}
	return out, err
}
