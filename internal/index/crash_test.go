package index

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

const childDir = "COUNTERSEAL_INDEX_CRASH_DIR"

// crashChild appends numbered rows until it is killed. It says each number once the
// rows up to it were appended and noted.
func crashChild(dir string) error {
	x, err := Open(Options{Dir: dir})
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(os.Getenv("COUNTERSEAL_INDEX_CRASH_FROM"))
	if err != nil {
		return err
	}
	for {
		var rows []Row
		for range 25 {
			r := crashRow(n)
			rows = append(rows, r)
			n++
		}
		if _, err := x.Append(context.Background(), rows); err != nil {
			return err
		}
		x.Note("servers", strconv.Itoa(n))
		fmt.Println(n)
		time.Sleep(5 * time.Millisecond)
	}
}

func crashRow(n int) Row {
	r := row(n)
	r.Sealed = day0.AddDate(0, 0, 7*(n%2)) // two storages, one mark
	return r
}

// After a kill -9 every row behind the mark is there once; Has finds what is missing
// behind the end, and adding that makes every row be there exactly once.
func TestKill(t *testing.T) {
	if dir := os.Getenv(childDir); dir != "" {
		t.Fatal(crashChild(dir))
	}
	dir := t.TempDir()
	total := 0
	lost := 0
	for round := range 2 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), childDir+"="+dir, "COUNTERSEAL_INDEX_CRASH_FROM="+strconv.Itoa(total))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(settle+1500*time.Millisecond+time.Duration(rand.IntN(800))*time.Millisecond, func() { cmd.Process.Kill() })
		for s := bufio.NewScanner(out); s.Scan(); {
			if n, err := strconv.Atoi(s.Text()); err == nil {
				total = n
			}
		}
		cmd.Wait()
		kill.Stop()
		total += 25 // a batch may have been appended and not said

		x, err := Open(Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if d := x.Damaged(); len(d) != 0 {
			t.Fatalf("a kill damaged a storage: %+v", d)
		}
		mark, err := strconv.Atoi(x.Mark("servers"))
		if err != nil || mark == 0 || mark > total {
			t.Fatalf("round %d: the mark is %q of %d rows", round, x.Mark("servers"), total)
		}
		refs := make([]string, total)
		for i := range refs {
			refs[i] = ref("servers", i)
		}
		has := func() map[string]int {
			got, err := x.Has(t.Context(), "servers", day0, day0.AddDate(0, 0, 7), refs)
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		found := has()
		var missing []Row
		for i, r := range refs {
			switch {
			case found[r] > 1:
				t.Fatalf("row %d is there %d times", i, found[r])
			case found[r] == 0 && i < mark:
				t.Fatalf("row %d is missing behind the mark %d", i, mark)
			case found[r] == 0:
				missing = append(missing, crashRow(i))
			}
		}
		lost += len(missing)
		add(t, x, missing...)
		found = has()
		for i, r := range refs {
			if found[r] != 1 {
				t.Fatalf("after the replay row %d is there %d times", i, found[r])
			}
		}
		t.Logf("round %d: %d rows, mark %d, %d added again", round, total, mark, len(missing))
		x.Note("servers", strconv.Itoa(total))
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if lost == 0 {
		t.Error("no kill lost a row: the test shows nothing")
	}
}
