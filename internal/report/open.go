package report

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/counterseal/counterseal/internal/ledger"
)

// Open checks a package with the key of a recipient and writes what is in it into a
// new folder, which is there only when everything holds. It is a bag (RFC 8493).
func Open(ctx context.Context, file string, key *RecipientKey, v ledger.Verifiers, dir string) (c *Checked, err error) {
	if _, err := os.Lstat(dir); err == nil {
		return nil, fmt.Errorf("%s is there already", dir)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(filepath.Clean(dir)), ".unfinished-package-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if rerr := os.RemoveAll(tmp); rerr != nil {
			err = errors.Join(err, rerr)
		}
	}()
	root, err := os.OpenRoot(tmp)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	// The names were checked before they come here, and the root would not let one out.
	c, err = verifyFile(ctx, file, key, v, func(name string, r io.Reader) error {
		if err := root.MkdirAll(path.Dir(name), 0o700); err != nil {
			return err
		}
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Sync(), f.Close())
	})
	if err != nil || !c.OK() {
		return c, err
	}
	return c, os.Rename(tmp, dir)
}
