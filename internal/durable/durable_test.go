package durable

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestWholeOrNotAtAll fails every step of WriteFile and WriteNew before and after
// it happens: the file holds the old content or the new, and a later write works.
func TestWholeOrNotAtAll(t *testing.T) {
	boom := errors.New("boom")
	for _, done := range []bool{false, true} {
		for _, existing := range []bool{false, true} {
			for step := 1; ; step++ {
				dir := t.TempDir()
				path := filepath.Join(dir, "f")
				if existing {
					if err := (FS{}).WriteFile(path, []byte("old"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				n, failed := 0, false
				d := FS{Fault: func(s Step) error {
					if s.Done != done {
						return nil
					}
					if n++; n == step {
						failed = true
						if s.Op == OpWrite && !done {
							return &TornWrite{N: 2, Err: boom}
						}
						return boom
					}
					return nil
				}}
				write := d.WriteNew
				if existing {
					write = d.WriteFile
				}
				err := write(path, []byte("new content"), 0o600)
				if failed != errors.Is(err, boom) {
					t.Fatalf("step %d: %v", step, err)
				}
				got, rerr := os.ReadFile(path)
				switch {
				case string(got) == "new content":
				case err == nil:
					t.Fatalf("step %d: no error, and %q", step, got)
				case existing && string(got) != "old", !existing && !errors.Is(rerr, fs.ErrNotExist):
					t.Fatalf("step %d: %q, %v", step, got, rerr)
				}
				if err := (FS{}).WriteFile(path, []byte("later"), 0o600); err != nil {
					t.Fatal(err)
				}
				if !failed {
					if step < 5 {
						t.Fatalf("only %d steps", step)
					}
					break
				}
			}
		}
	}
}

func TestWriteNewRefusesAnOldFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := (FS{}).WriteNew(path, []byte("a"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := (FS{}).WriteNew(path, []byte("b"), 0o640); !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != "a" {
		t.Fatalf("%q, %v", got, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o640 {
		t.Fatal(st.Mode(), err)
	}
	des, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(des) != 1 {
		t.Fatalf("%v left over, %v", des, err)
	}
	if _, err := (FS{}).Create(path, 0o600); !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	if err := (FS{}).MkdirAll(filepath.Join(dir, "a", "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "a", "b", "f")
	f, err := (FS{}).Create(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.Write([]byte("0123456789"))
	if err := f.Truncate(4); err != nil {
		t.Fatal(err)
	}
	f.Write([]byte("x"))
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, []byte("0123x")) {
		t.Fatalf("%q, %v", got, err)
	}
	if err := (FS{}).MkdirAll(path, 0o700); err == nil {
		t.Fatal("a file was taken for a directory")
	}
	if err := (FS{}).Rename(path, filepath.Join(dir, "g")); err != nil {
		t.Fatal(err)
	}
	if err := (FS{}).Remove(filepath.Join(dir, "g")); err != nil {
		t.Fatal(err)
	}
}

const lockEnv = "COUNTERSEAL_LOCK_CHILD"

// TestLock: a second process is refused and told what to do; the lock ends with
// its holder, killed or not.
func TestLock(t *testing.T) {
	if dir := os.Getenv(lockEnv); dir != "" {
		_, err := Lock(dir)
		fmt.Println("child:", err)
		bufio.NewReader(os.Stdin).ReadByte() // until it is killed
		os.Exit(0)
	}
	dir := t.TempDir()
	start := func() (*exec.Cmd, string) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestLock$")
		cmd.Env = append(os.Environ(), lockEnv+"="+dir)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { in.Close() })
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return cmd, line
	}
	stop := func(cmd *exec.Cmd) {
		cmd.Process.Kill()
		cmd.Wait()
	}
	l, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(dir); !errors.Is(err, ErrLocked) {
		t.Fatalf("twice in one process: %v", err)
	}
	cmd, line := start()
	stop(cmd)
	for _, want := range []string{ErrLocked.Error(), fmt.Sprintf("process %d", os.Getpid()), dir, "--data"} {
		if !strings.Contains(line, want) {
			t.Errorf("%q does not say %q", line, want)
		}
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	cmd, line = start()
	if !strings.Contains(line, "child: <nil>") {
		t.Fatal(line)
	}
	if _, err := Lock(dir); !errors.Is(err, ErrLocked) {
		t.Fatalf("held by a child: %v", err)
	}
	stop(cmd)
	l, err = Lock(dir)
	if err != nil {
		t.Fatalf("after its holder was killed: %v", err)
	}
	l.Release()
}

func TestFree(t *testing.T) {
	n, err := Free(t.TempDir())
	if err != nil || n <= 0 {
		t.Fatal(n, err)
	}
	if _, err := Free(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Fatal("no error")
	}
	if !IsFull(fmt.Errorf("x: %w", &fs.PathError{Err: syscall.ENOSPC})) || IsFull(syscall.EIO) {
		t.Fatal("IsFull")
	}
}
