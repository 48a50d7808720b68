package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrLocked is wrapped by Lock when another process holds the directory.
var ErrLocked = errors.New("the data directory is in use")

// Locked holds a data directory for this process.
type Locked struct{ f *os.File }

// Lock takes a data directory for this process, by an advisory lock on
// run/lock inside it. The lock ends with the process, however it ends; the file
// stays and holds the process number of the last holder for people to read. A
// second process gets an error that wraps ErrLocked and says what to do.
func Lock(dataDir string) (*Locked, error) {
	d := FS{}
	run := filepath.Join(dataDir, "run")
	if err := d.MkdirAll(run, 0o700); err != nil {
		return nil, fmt.Errorf("locking %s: %w", dataDir, err)
	}
	path := filepath.Join(run, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", dataDir, err)
	}
	if err := tryLock(f); err != nil {
		defer f.Close()
		if !errors.Is(err, ErrLocked) {
			return nil, fmt.Errorf("locking %s: %w", dataDir, err)
		}
		b := make([]byte, 32)
		n, _ := f.ReadAt(b, 0)
		who := "another process"
		if pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n]))); err == nil {
			who = "process " + strconv.Itoa(pid)
		}
		return nil, fmt.Errorf("%w: %s holds %s; stop it, or give another directory with --data", ErrLocked, who, dataDir)
	}
	if err := f.Truncate(0); err == nil {
		f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0) // for people only
	}
	return &Locked{f: f}, nil
}

// Release gives the directory back.
func (l *Locked) Release() error { return l.f.Close() }
