// Package durable is the only code that asks the disk to keep something: it
// writes, syncs, renames, locks, and says how much room is left.
//
// It promises that a function that returns nil has survived a power cut as far
// as the operating system tells the truth about fsync, and that a file written by
// WriteFile or WriteNew is found whole or not at all. An error of Sync is final
// for that file: the kernel may have forgotten the pages, so a second Sync proves
// nothing; the caller gives the file up and reads it again from disk.
//
// What the bytes mean is left to others.
package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Op names a step that changes the disk.
type Op string

// The steps that can be made to fail.
const (
	OpCreate   Op = "create"
	OpWrite    Op = "write"
	OpSync     Op = "sync"
	OpTruncate Op = "truncate"
	OpChmod    Op = "chmod"
	OpRename   Op = "rename"
	OpLink     Op = "link"
	OpRemove   Op = "remove"
	OpMkdir    Op = "mkdir"
	OpSyncDir  Op = "sync directory"
)

// Step is what a fault hook is told: the step, its file, and whether the step has
// already happened.
type Step struct {
	Op   Op
	Path string
	Done bool // false: about to happen; true: it has happened
}

// TornWrite, returned by a fault hook before a write, lets N bytes reach the file
// and then fails the write with Err.
type TornWrite struct {
	N   int
	Err error
}

func (e *TornWrite) Error() string { return e.Err.Error() }
func (e *TornWrite) Unwrap() error { return e.Err }

// FS is the disk. The zero value is the real one. Fault is the seam of the crash
// tests: it is called before and after each step, and an error it returns is the
// error of the step. It must be safe for concurrent use.
type FS struct {
	Fault func(Step) error
}

func (d FS) do(op Op, path string, f func() error) error {
	if d.Fault != nil {
		if err := d.Fault(Step{Op: op, Path: path}); err != nil {
			return &fs.PathError{Op: string(op), Path: path, Err: err}
		}
	}
	if err := f(); err != nil {
		return err
	}
	if d.Fault != nil {
		if err := d.Fault(Step{Op: op, Path: path, Done: true}); err != nil {
			return &fs.PathError{Op: string(op), Path: path, Err: err}
		}
	}
	return nil
}

// File is an open file whose changes go through the seam of its FS.
type File struct {
	fs FS
	f  *os.File
}

// Create makes a new file for reading and writing. It fails with fs.ErrExist
// where one is there. The name is durable after SyncDir of its directory.
func (d FS) Create(path string, perm fs.FileMode) (*File, error) {
	var f *os.File
	err := d.do(OpCreate, path, func() (err error) {
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
		return err
	})
	if err != nil {
		if f != nil {
			f.Close()
		}
		return nil, err
	}
	return &File{fs: d, f: f}, nil
}

// OpenFile opens an existing file for reading and writing.
func (d FS) OpenFile(path string) (*File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &File{fs: d, f: f}, nil
}

// Name is the path that the file was opened by.
func (f *File) Name() string { return f.f.Name() }

// Write writes at the current position.
func (f *File) Write(b []byte) (int, error) {
	n := 0
	var torn *TornWrite
	err := f.fs.do(OpWrite, f.f.Name(), func() (err error) {
		n, err = f.f.Write(b)
		return err
	})
	if errors.As(err, &torn) && n == 0 {
		n, _ = f.f.Write(b[:min(torn.N, len(b))])
	}
	return n, err
}

// ReadAt reads at an offset.
func (f *File) ReadAt(b []byte, off int64) (int, error) { return f.f.ReadAt(b, off) }

// Size is the length of the file.
func (f *File) Size() (int64, error) {
	st, err := f.f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// Sync makes what was written durable.
func (f *File) Sync() error { return f.fs.do(OpSync, f.f.Name(), f.f.Sync) }

// Truncate cuts the file to size and puts the position there.
func (f *File) Truncate(size int64) error {
	return f.fs.do(OpTruncate, f.f.Name(), func() error {
		if err := f.f.Truncate(size); err != nil {
			return err
		}
		_, err := f.f.Seek(size, io.SeekStart)
		return err
	})
}

// Chmod sets the mode.
func (f *File) Chmod(mode fs.FileMode) error {
	return f.fs.do(OpChmod, f.f.Name(), func() error { return f.f.Chmod(mode) })
}

// Close closes the file; it makes nothing durable.
func (f *File) Close() error { return f.f.Close() }

// SyncDir makes the names in a directory durable.
func (d FS) SyncDir(dir string) error {
	return d.do(OpSyncDir, dir, func() error { return syncDir(dir) })
}

// Rename renames a file inside one directory tree and makes both names durable.
func (d FS) Rename(from, to string) error {
	if err := d.do(OpRename, to, func() error { return os.Rename(from, to) }); err != nil {
		return err
	}
	if err := d.SyncDir(filepath.Dir(to)); err != nil {
		return err
	}
	if a, b := filepath.Dir(from), filepath.Dir(to); a != b {
		return d.SyncDir(a)
	}
	return nil
}

// Remove removes a file and makes that durable.
func (d FS) Remove(path string) error {
	if err := d.do(OpRemove, path, func() error { return os.Remove(path) }); err != nil {
		return err
	}
	return d.SyncDir(filepath.Dir(path))
}

// MkdirAll makes a directory and its parents, each name durable.
func (d FS) MkdirAll(dir string, perm fs.FileMode) error {
	dir = filepath.Clean(dir)
	if st, err := os.Stat(dir); err == nil {
		if !st.IsDir() {
			return fmt.Errorf("%s is not a directory", dir)
		}
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := d.MkdirAll(parent, perm); err != nil {
			return err
		}
	}
	err := d.do(OpMkdir, dir, func() error {
		err := os.Mkdir(dir, perm)
		if errors.Is(err, fs.ErrExist) { // somebody else was quicker
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	return d.SyncDir(parent)
}

// tempMark stands in the name of every unfinished file, so that a later start can
// tell them from files that mean something.
const tempMark = ".unfinished-"

// IsTemp reports whether a file name is one of an unfinished write. Such a file
// means nothing and may be removed by whoever holds the lock of the directory.
func IsTemp(name string) bool { return strings.HasPrefix(filepath.Base(name), tempMark) }

// WriteFile replaces path by data: after a crash the old content or the new is
// there, whole.
func (d FS) WriteFile(path string, data []byte, perm fs.FileMode) error {
	tmp, err := d.writeTemp(path, data, perm)
	if err != nil {
		return err
	}
	if err := d.Rename(tmp, path); err != nil {
		os.Remove(tmp) // the error at hand says more than one about the leftover
		return err
	}
	return nil
}

// WriteNew writes a file that must not be there yet and fails with fs.ErrExist
// where it is.
func (d FS) WriteNew(path string, data []byte, perm fs.FileMode) error {
	tmp, err := d.writeTemp(path, data, perm)
	if err != nil {
		return err
	}
	err = d.do(OpLink, path, func() error { return os.Link(tmp, path) })
	if rerr := os.Remove(tmp); err == nil {
		err = rerr
	}
	if err != nil {
		return err
	}
	return d.SyncDir(filepath.Dir(path))
}

func (d FS) writeTemp(path string, data []byte, perm fs.FileMode) (string, error) {
	tmp := filepath.Join(filepath.Dir(path), tempMark+filepath.Base(path))
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	f, err := d.Create(tmp, perm)
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(tmp)
		return "", fmt.Errorf("writing %s: %w", path, err)
	}
	return tmp, nil
}
