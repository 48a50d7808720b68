// Package packs gives tests the real records that live beside the repository in
// ../shared/data. It is imported by tests alone.
//
// A pack is a .tar.gz of third-party records that we may use and not ship. Where
// a pack is absent the test is skipped with one line that says which; where the
// environment variable COUNTERSEAL_REQUIRE names "packs", its absence is a
// failure. It unpacks once into the user's temporary directory, keyed by the
// digest of the archive, and shares the result between test processes.
//
// It also makes the keys of virtual authenticators (NewPasskey).
package packs

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// TB is the part of testing.TB that this package needs; the package itself does
// not import testing.
type TB interface {
	Helper()
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Required reports whether COUNTERSEAL_REQUIRE, a comma-separated list, holds name.
func Required(name string) bool {
	for _, have := range strings.Split(os.Getenv("COUNTERSEAL_REQUIRE"), ",") {
		if strings.TrimSpace(have) == name {
			return true
		}
	}
	return false
}

// File returns the path of a file in ../shared/data, or skips the test.
func File(t TB, name string) string {
	t.Helper()
	path, err := find(name)
	if err != nil {
		missing(t, name, err)
		return ""
	}
	return path
}

// Dir unpacks ../shared/data/<name>.tar.gz and returns its root, or skips the test.
func Dir(t TB, name string) string {
	t.Helper()
	path, err := find(name + ".tar.gz")
	if err != nil {
		missing(t, name, err)
		return ""
	}
	dir, err := unpacked(path, name)
	if err != nil {
		t.Fatalf("unpacking %s: %v", name, err)
	}
	return dir
}

func missing(t TB, name string, err error) {
	t.Helper()
	if Required("packs") {
		t.Fatalf("pack %s is required and absent: %v", name, err)
	}
	t.Skipf("needs ../shared/data/%s, which is not here", name)
}

// find walks up from the working directory to the go.mod and looks beside it.
func find(name string) (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			path := filepath.Join(dir, "..", "shared", "data", name)
			if _, err := os.Stat(path); err == nil {
				return path, nil
			}
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("no ../shared/data/%s above the working directory", name)
		}
		dir = up
	}
}

func unpacked(archive, name string) (string, error) {
	f, err := os.Open(archive)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	root := filepath.Join(os.TempDir(), "counterseal-packs")
	done := filepath.Join(root, name+"-"+hex.EncodeToString(h.Sum(nil))[:16])
	if _, err := os.Stat(done); err == nil {
		return done, nil
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(root, name+"-*")
	if err != nil {
		return "", err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	if err := untar(f, work); err != nil {
		return "", err
	}
	if err := os.Rename(work, done); err != nil {
		if _, there := os.Stat(done); there == nil { // another test process was first
			return done, os.RemoveAll(work)
		}
		return "", err
	}
	return done, nil
}

func untar(r io.Reader, dir string) error {
	z, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	tr := tar.NewReader(z)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := filepath.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			if err := root.MkdirAll(name, 0o755); err != nil {
				return err
			}
		case tar.TypeReg:
			if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				return err
			}
			w, err := root.Create(name)
			if err != nil {
				return err
			}
			if _, err := io.Copy(w, tr); err != nil {
				return err
			}
			if err := w.Close(); err != nil {
				return err
			}
		}
	}
}
