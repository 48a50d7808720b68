package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/query"
)

// need asks for the options without which a command can do nothing: its error names
// those that were left out and shows the line of usage.
func need(cmd *cobra.Command, options ...string) error {
	var missing []string
	for _, name := range options {
		f := cmd.Flags().Lookup(name)
		if v := f.Value.String(); v != "" && v != "[]" {
			continue
		}
		if name = "--" + name; f.Shorthand == "o" { // as the usage has it
			name = "-o"
		}
		missing = append(missing, name)
	}
	switch n := len(missing); n {
	case 0:
		return nil
	case 1:
		return misused(cmd, "%s is missing", missing[0])
	default:
		return misused(cmd, "%s and %s are missing", strings.Join(missing[:n-1], ", "), missing[n-1])
	}
}

// misused is an error of usage that shows the line of usage.
func misused(cmd *cobra.Command, format string, args ...any) error {
	return &exitError{code: exitUsage, err: fmt.Errorf(format, args...), hint: "usage: " + strings.TrimSuffix(cmd.UseLine(), " [flags]")}
}

// there refuses paths of a command line that lead nowhere, before anything is done: a
// mistyped path is no empty folder.
func there(paths []string) error {
	for _, p := range paths {
		if _, err := os.Stat(p); errors.Is(err, fs.ErrNotExist) {
			return &exitError{code: exitUsage, err: fmt.Errorf("there is no file or folder %s", p), hint: "nothing was read; look at the path and run it again"}
		}
	}
	return nil
}

// readFile reads a file that the command line names. What says what the file is, and
// hint where it comes from.
func readFile(path, what, hint string) ([]byte, error) {
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &exitError{code: exitUsage, err: fmt.Errorf("%s: there is no file %s", what, path), hint: hint}
	case err != nil:
		return nil, &exitError{code: exitFailed, err: fmt.Errorf("%s: %w", what, err), hint: hint}
	}
	return b, nil
}

// free refuses a file that is to be written and is there already. Commands that state an
// act ask before it.
func free(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return taken(path)
	}
	return nil
}

func taken(path string) error {
	return &exitError{code: exitFailed, err: fmt.Errorf("%s is there already and is not overwritten", path), hint: "name a new file with -o"}
}

// unwritable says why a file that was named cannot be written.
func unwritable(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &exitError{code: exitFailed, err: fmt.Errorf("there is no folder %s to write %s into", filepath.Dir(path), filepath.Base(path)), hint: "make it first, or name another file"}
	}
	return fmt.Errorf("writing %s: %w", path, err)
}

// checkVKey says which key is malformed and what one looks like.
func checkVKey(where, vkey string) error {
	if _, err := note.NewVerifier(vkey); err == nil {
		return nil
	}
	return vkeyError(where, "the file ledger/log.vkey of the data directory has the one of its log")
}

// checkWitnessVKey is checkVKey for the key of a witness.
func checkWitnessVKey(where, vkey string) error {
	if _, err := fnote.NewVerifierForCosignatureV1(vkey); err == nil {
		return nil
	}
	return vkeyError(where, "counterseal witness prints its own as vkey when it starts")
}

func vkeyError(where, from string) error {
	return &exitError{code: exitUsage, err: fmt.Errorf("%s is no public key of the form NAME+8 HEX DIGITS+BASE64, such as example/log+0a1b2c3d+AbCd…", where), hint: from + "; copy the whole line"}
}

// checkQuery shows under a question where it stops making sense. The question is the
// asker's own: it is shown to nobody else, and the server's error never repeats it.
func checkQuery(text string) error {
	_, err := query.Parse(text)
	var at *query.Error
	if !errors.As(err, &at) || len(text) > query.MaxText {
		return nil // the server says it
	}
	line, before := event.Printable(text), event.Printable(text[:min(at.Pos, len(text))])
	return &exitError{code: exitUsage, err: err,
		hint: line + "\n  " + strings.Repeat(" ", utf8.RuneCountInString(before)) + "^\n  see: counterseal search --help"}
}
