package pseudonym

import (
	"slices"
	"strings"

	"github.com/counterseal/counterseal/internal/admit"
	"github.com/counterseal/counterseal/internal/event"
)

// Spelling brings a name of somebody, as people write it, to one of the words of Spelt: an
// account with or without its domain, a display name, a mail address, a SID. It needs no
// directory. Its errors hold nothing of the name.
func Spelling(text string) (string, error) {
	text, err := readable(text)
	if err != nil {
		return "", err
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
	// Identities are what stands for them: the person; each name, mail and SID as a record had it
	// before the directory knew it; and the personal devices that are theirs alone.
	Identities []Identity
}

// Spelt gives everybody of a directory, each word for one person.
func (d *Directory) Spelt() []Spelt {
	if d == nil {
		return nil
	}
	var none Directory
	owners := map[string]int{}
	for _, who := range d.people {
		for _, name := range who.entry.Devices {
			owners[deviceName(admit.Fold(name))]++
		}
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
		also := func(k event.TokenKind, canonical []byte) {
			if !slices.ContainsFunc(out[i].Identities, func(have Identity) bool { return have.Kind == k && string(have.Canonical) == string(canonical) }) {
				out[i].Identities = append(out[i].Identities, Identity{k, canonical})
			}
		}
		for _, name := range who.entry.Devices {
			if n := deviceName(admit.Fold(name)); owners[n] == 1 {
				also(event.Device, []byte(n))
			}
		}
		for _, list := range [][]string{who.entry.Names, who.entry.Mails, who.entry.SIDs} {
			for _, text := range list {
				if word, err := Spelling(text); err == nil {
					add(i, word)
				}
				if k, canonical, err := none.Identity("person", text); err == nil {
					also(k, canonical)
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
