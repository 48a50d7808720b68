package pseudonym

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/counterseal/counterseal/internal/admit"
	"github.com/counterseal/counterseal/internal/event"
)

// Spelling brings a name of somebody, as people write it, to one of the words of Spelt: an
// account with or without its domain, a display name, a mail address, a SID. It needs no
// directory. Its errors hold nothing of the name.
func Spelling(text string) (string, error) {
	text = strings.TrimSpace(text)
	if text == "" || len(text) > MaxAsked || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.Is(unicode.Cf, r) }) {
		return "", errors.New("a name is 1 to 255 bytes of text without characters that cannot be seen")
	}
	if _, name, ok := splitDomain([]byte(text)); ok {
		text = string(name)
	}
	word := admit.Fold(text)
	if word == "" || isStayName(word) {
		return "", ErrNobody
	}
	return word, nil
}

// Identity is what a token is made of.
type Identity struct {
	Kind      event.TokenKind
	Canonical []byte
}

// Spelt is somebody of a directory.
type Spelt struct {
	// Words are every spelling that Spelling gives of a name of theirs in the file, and
	// account@domain where the file lists the domain as the organisation's own.
	Words []string
	// Identities are what stands for them: the person, and then their personal devices.
	Identities []Identity
}

// Spelt gives everybody of a directory, each word for one person.
func (d *Directory) Spelt() []Spelt {
	if d == nil {
		return nil
	}
	taken := map[string]bool{}
	out := make([]Spelt, len(d.people))
	add := func(i int, word string) {
		if word != "" && !taken[word] {
			taken[word] = true
			out[i].Words = append(out[i].Words, word)
		}
	}
	for i, who := range d.people {
		out[i].Identities = []Identity{{event.Person, []byte(who.canonical)}}
		for _, name := range who.entry.Devices {
			out[i].Identities = append(out[i].Identities, Identity{event.Device, []byte(deviceName(admit.Fold(name)))})
		}
		for _, list := range [][]string{who.entry.Names, who.entry.Mails, who.entry.SIDs} {
			for _, text := range list {
				if word, err := Spelling(text); err == nil {
					add(i, word)
				}
			}
		}
	}
	for i, who := range d.people { // after all that the file says itself
		for _, text := range who.entry.Names {
			account, err := Spelling(text)
			if err != nil || strings.ContainsAny(account, "@ ") {
				continue
			}
			for domain := range d.domains {
				if strings.Contains(domain, ".") {
					add(i, account+"@"+domain)
				}
			}
		}
	}
	return out
}
