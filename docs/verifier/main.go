// Command verifier checks evidence packages. It shares no line with the program that
// makes them: it was written from docs/formats alone, with the standard library and
// golang.org/x/mod, so that a recipient need not trust the maker's code. The numbers of
// levels and the names of files in its answers are those of docs/formats/package.md.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// list is a flag that repeats.
type list []string

func (l *list) String() string     { return fmt.Sprint(*l) }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// Exit codes: 0 everything holds, 1 something was altered, 2 it could not be checked.
func run(args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("verifier", flag.ContinueOnError)
	fs.SetOutput(stderr)
	var logs, witnesses list
	key := fs.String("key", "", "key `file` of a recipient, to look inside a sealed package")
	pass := fs.String("passphrase-file", "", "`file` with the passphrase of the key")
	threshold := fs.Int("threshold", -1, "how many witnesses must have cosigned (default: all that are given)")
	fs.Var(&logs, "log", "`vkey` of the log; repeats")
	fs.Var(&witnesses, "witness", "`vkey` of a witness; repeats")
	fs.Usage = func() {
		fmt.Fprintln(stderr, "usage: verifier --log VKEY [--witness VKEY]... [--threshold N] [--key FILE --passphrase-file FILE] PACKAGE")
		fs.PrintDefaults()
	}
	if fs.Parse(args) != nil || fs.NArg() != 1 || len(logs) == 0 {
		fs.Usage()
		return 2
	}
	if *threshold < 0 {
		*threshold = len(witnesses)
	}
	t, err := newTrust(logs, witnesses, *threshold)
	if err != nil {
		fmt.Fprintln(stderr, "verifier:", err)
		return 2
	}
	var seed []byte
	if *key != "" {
		if seed, err = openKey(*key, *pass); err != nil {
			fmt.Fprintln(stderr, "verifier:", err)
			return 2
		}
	}
	v := &verifier{trust: t}
	if err := v.check(fs.Arg(0), seed); err != nil {
		fmt.Fprintln(stderr, "verifier:", err)
		return 2
	}
	slices.SortFunc(v.wrong, func(a, b problem) int { return strings.Compare(a.name, b.name) })
	for _, p := range v.wrong {
		fmt.Fprintf(stdout, "ALTERED %s: %s\n", p.name, p.why)
	}
	if len(v.wrong) > 0 {
		return 1
	}
	fmt.Fprintf(stdout, "ok %s due %s: ", v.id, v.made.Due)
	if v.files == nil {
		fmt.Fprintln(stdout, "the file is the one that the ledger knows; only a recipient's key looks inside")
	} else {
		fmt.Fprintf(stdout, "%d records, %d originals, %d segments, %d statements\n", v.records, v.originals, len(v.segments), v.statements)
	}
	return 0
}

// problem is a file that is not what it should be.
type problem struct{ name, why string }

// verifier is one check.
type verifier struct {
	trust *trust
	wrong []problem // of one level

	made  *madeDetail
	id    string
	files *files // nil: sealed and no key

	closed              map[string]segmentDetail
	statements          int
	records, originals  int
	segments            map[string]bool
	next                map[string]uint64
	payloadN, payloadSz int64
	spans               []span
}

func (v *verifier) bad(name string, why any) {
	for _, p := range v.wrong {
		if p.name == name {
			return
		}
	}
	v.wrong = append(v.wrong, problem{name, clean(fmt.Sprint(why))})
}

// clean keeps what a hostile file says from being obeyed by a terminal.
func clean(s string) string {
	return string(bytes.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return '?'
		}
		return r
	}, []byte(s)))
}

var errShort = errors.New("cut short")

// check does the levels in order and stops behind the first that has a problem.
func (v *verifier) check(path string, seed []byte) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	var box *container
	if st.IsDir() {
		made, err := readPlain(path, nameMade, maxMade)
		if errors.Is(err, os.ErrNotExist) {
			v.bad(nameMade, "it is missing")
			return nil
		}
		if err != nil {
			return err
		}
		v.level1(made)
	} else {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		var made []byte
		if box, made, err = split(f, st.Size()); err != nil {
			v.bad(nameMade, err)
			return nil
		}
		v.level1(made)
	}
	if len(v.wrong) > 0 {
		return nil
	}
	if box != nil {
		if v.level2(box); len(v.wrong) > 0 || seed == nil {
			return nil
		}
		archive, err := box.open(seed)
		if errors.Is(err, errNotForKey) {
			return err
		}
		if err == nil {
			v.files, err = readArchive(archive)
		}
		if err != nil {
			v.bad(nameContainer, err)
			return nil
		}
	} else if v.files, err = readFolder(path); err != nil {
		return err
	}
	defer v.files.close()
	for _, level := range []func() error{v.level3, v.level4, v.level5, v.level6} {
		if err := level(); err != nil || len(v.wrong) > 0 {
			return err
		}
	}
	return nil
}
