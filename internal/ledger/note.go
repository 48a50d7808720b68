package ledger

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// maxNote bounds a note.
const maxNote = 4 << 20

// ErrNote is wrapped where a note is not signed as it should be.
var ErrNote = errors.New("the note does not verify")

// SignNote signs a text with the key of the log, as a note of the form of
// golang.org/x/mod/sumdb/note. title is its first line and says what it is; no note
// is ever a checkpoint, whose first line is the origin.
func (l *Ledger) SignNote(title, text string) ([]byte, error) {
	if title == "" || IsWord(title) { // an origin is a word
		return nil, errors.New("the first line of a note says in words what it is")
	}
	s, _, err := signer(l.o.Origin, l.o.Key)
	if err != nil {
		return nil, err
	}
	raw, err := note.Sign(&note.Note{Text: title + "\n" + text}, s)
	if err != nil {
		return nil, fmt.Errorf("signing a note: %w", err)
	}
	return raw, nil
}

// OpenNote verifies a note that SignNote made and gives its text without the title.
// vkeys are the public keys of the log that the verifier trusts.
func OpenNote(title string, raw []byte, vkeys []string) (text string, err error) {
	if len(raw) > maxNote {
		return "", fmt.Errorf("%w: longer than %d bytes", ErrNote, maxNote)
	}
	t, err := Verifiers{Log: vkeys}.parse()
	if err != nil {
		return "", err
	}
	n, err := note.Open(raw, note.VerifierList(t.log...))
	if err != nil {
		return "", fmt.Errorf("%w: no right signature by a known key of the log", ErrNote)
	}
	for _, s := range append(slices.Clone(n.Sigs), n.UnverifiedSigs...) { // unused bits would let a changed byte verify
		if b, err := base64.StdEncoding.Strict().DecodeString(s.Base64); err != nil || base64.StdEncoding.EncodeToString(b) != s.Base64 {
			return "", fmt.Errorf("%w: a signature is not plain base64", ErrNote)
		}
	}
	text, ok := strings.CutPrefix(n.Text, title+"\n")
	if !ok {
		return "", fmt.Errorf("%w: it is a note about something else", ErrNote)
	}
	return text, nil
}

// Tree tells what a checkpoint says: which log, how many statements, and their root in
// plain base64. It checks no signature.
func Tree(checkpoint []byte) (origin string, size uint64, root string, err error) {
	text, _, ok := strings.Cut(string(checkpoint), "\n\n")
	if !ok {
		return "", 0, "", fmt.Errorf("%w: it has no signature", errCheckpoint)
	}
	origin, t, err := parseCheckpoint(text + "\n")
	if err != nil {
		return "", 0, "", err
	}
	return origin, uint64(t.size), base64.StdEncoding.EncodeToString(t.root[:]), nil
}
