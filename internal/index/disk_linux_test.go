package index

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A disk that fills up: Append says so while the reserve is still there, the process
// lives, and what was added is found, also after a restart.
func TestFullDisk(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=96m"); err != nil {
		t.Skipf("no small disk can be mounted here: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(disk, unix.MNT_DETACH) })
	o := Options{Dir: filepath.Join(disk, "index"), ReserveBytes: 48 << 20}
	x := open(t, o)
	rnd := rand.New(rand.NewPCG(3, 4))
	n := 0
	for {
		var rows []Row
		for range 200 {
			r := row(n)
			n++
			for i := range 40 {
				r.Native = append(r.Native, Attr{fmt.Sprintf("f%d", i), fmt.Sprintf("%x%x%x", rnd.Uint64(), rnd.Uint64(), rnd.Uint64())})
			}
			rows = append(rows, r)
		}
		_, err := x.Append(t.Context(), rows)
		if errors.Is(err, ErrDiskLow) {
			n -= 200
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if n > 200_000 {
			t.Fatal("the disk does not fill")
		}
	}
	if n == 0 {
		t.Fatal("nothing was added")
	}
	count := func() string {
		t.Helper()
		x.Flush()
		tab, err := x.Stats(t.Context(), ask(t, "* | stats count()"), Scope{})
		if err != nil || len(tab.Rows) != 1 {
			t.Fatal(tab, err)
		}
		return tab.Rows[0][0]
	}
	if got := count(); got != fmt.Sprint(n) {
		t.Errorf("%s rows of %d", got, n)
	}
	// Others take the rest of the disk; searching goes on.
	if err := os.WriteFile(filepath.Join(disk, "other"), make([]byte, 20<<20), 0o600); err != nil {
		t.Logf("other file: %v", err)
	}
	if _, err := x.Append(t.Context(), []Row{row(n)}); !errors.Is(err, ErrDiskLow) {
		t.Errorf("still low: %v", err)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	x = open(t, o)
	if got := count(); got != fmt.Sprint(n) {
		t.Errorf("after a restart %s rows of %d", got, n)
	}
}
