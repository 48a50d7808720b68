// Package report takes evidence out of the house so that somebody who has nothing
// but the public keys of log and witnesses can check it: the proof of one record
// (docs/formats/proof.md) and packages for named recipients (docs/formats/package.md).
//
// It promises: a package holds exact records of the scope, and of people whom nobody
// named no more than those records say, which is a token; it stands in the witnessed
// ledger before its file can be seen; only the recipients open it; and a checker names
// the file in which one byte was changed.
//
// Who may make one is the caller's business, and so is asking two people first. What
// a recipient does with an opened package no code here can hold.
package report

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/counterseal/counterseal/internal/approval"
)

// ErrAltered is wrapped where what is checked does not hold.
var ErrAltered = errors.New("it was altered, or is not what it says")

// ErrRequest is wrapped where what is asked for cannot be: the asker can mend it.
var ErrRequest = errors.New("this cannot be done as asked")

// Problem is one thing that does not hold, by the name of the file it is in.
type Problem struct {
	File string
	What string
}

func (p Problem) String() string { return p.File + ": " + p.What }

// decode reads canonical JSON into v and refuses every other form. Its errors quote
// nothing.
func decode(b []byte, most int, v any) error {
	if len(b) > most {
		return fmt.Errorf("longer than %d bytes", most)
	}
	if json.Unmarshal(b, v) != nil {
		return errors.New("not the JSON expected")
	}
	again, err := approval.Canonical(v)
	if err != nil || !bytes.Equal(again, b) {
		return errors.New("not in canonical form")
	}
	return nil
}

// plainJSON is one line of JSON without the escapes that are for pages.
func plainJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// strict reads JSON that has no members but those of v, and nothing behind it.
func strict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if d.Decode(v) != nil || d.InputOffset() != int64(len(bytes.TrimRight(b, "\n"))) {
		return errors.New("not the JSON expected")
	}
	return nil
}

// parseHash reads 64 lower-case hexadecimal digits.
func parseHash(s string) (h [32]byte, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(h) || hex.EncodeToString(b) != s {
		return h, errors.New("not a SHA-256 in lower-case hexadecimal")
	}
	return [32]byte(b), nil
}

func parseHashes(ss []string) ([][32]byte, error) {
	if len(ss) > 64 {
		return nil, errors.New("a path of more than 64 hashes")
	}
	out := make([][32]byte, len(ss))
	for i, s := range ss {
		var err error
		if out[i], err = parseHash(s); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// codeForm is what a purpose is: a code, not a sentence. The sentence is in the case.
var codeForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}$`)

// checkText holds a line of text to what a person can see.
func checkText(s string, most int) error {
	if s == "" || len(s) > most || !utf8.ValidString(s) || strings.TrimSpace(s) != s || strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return fmt.Errorf("1 to %d bytes of text in one line", most)
	}
	return nil
}
