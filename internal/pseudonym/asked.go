package pseudonym

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/counterseal/counterseal/internal/event"
)

// Categories are the words by which somebody who asks says what a name is: those of a PIA
// that mean one identity.
var Categories = []string{"person", "mail", "phone", "device", "address"}

// MaxAsked bounds a name that is asked for, in bytes.
const MaxAsked = 255

// Errors of Identity. They hold nothing of the name.
var (
	ErrNobody  = errors.New("this name stands for nobody: an account of the system, a service or a machine")
	ErrSeveral = errors.New("this is not one name")
)

// readable gives a name as somebody writes it, without the space at its ends.
func readable(text string) (string, error) {
	text = strings.TrimSpace(text)
	if text == "" || len(text) > MaxAsked || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.Is(unicode.Cf, r) }) {
		return "", errors.New("a name is 1 to 255 bytes of text without characters that cannot be seen")
	}
	return text, nil
}

// Identity gives the kind and the canonical form of a name as somebody writes it, one of
// Categories: the same as a record gives that has it in a field of that category. The
// directory joins spellings. A record may know domains that no directory lists, and then
// takes name@domain for a name where this takes it for a mail address.
func (d *Directory) Identity(category, text string) (event.TokenKind, []byte, error) {
	h := hintOf(category)
	text, err := readable(text)
	switch {
	case h == hintNone || h == hintText:
		return 0, nil, errors.New("the category of a name is one of " + strings.Join(Categories, ", "))
	case err != nil:
		return 0, nil, err
	case strings.ContainsAny(text, ",;"):
		return 0, nil, ErrSeveral
	}
	var made caught
	var r record
	New(&made, d, nil).identity(&r, []byte(text), h)
	switch len(made) {
	case 0:
		return 0, nil, ErrNobody
	case 1:
		return made[0].kind, []byte(made[0].canonical), nil
	}
	return 0, nil, ErrSeveral
}

// caught is a Tokenizer that keeps what it is asked and makes no token of it. It lives as
// long as one call of Identity.
type caught []found

func (c *caught) Token(kind event.TokenKind, canonical []byte) (event.Token, error) {
	*c = append(*c, found{kind, string(canonical)})
	return event.NewToken(kind, 1, [16]byte{}), nil
}
