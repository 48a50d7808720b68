// Package alias shows people in place of tokens. It owns the names `person-`, `mail-`,
// `device-` and `address-` that the API and the command line print, and the one way back.
//
// It promises that what passes its Writer holds no canonical token; that a token has one
// alias in a scope, a case or a team and day, and another one in every other scope; that
// two tokens of a scope never share one; and that an alias is turned back only in the scope
// that showed it. An alias is cut from a keyed digest, so nobody without the key can compute
// it or test a guess.
//
// The file behind it remembers what was shown, so that it can be turned back. It is a
// cache: delete it, and an alias must be shown again before it can be asked for. One process
// uses it. All methods of a Book may be called at once.
//
// It leaves to others who may ask (internal/access, internal/policy), which scope a request
// has, and the key (Options.MAC).
package alias

import (
	"encoding/base32"
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"time"

	"github.com/counterseal/counterseal/internal/event"
)

const (
	// Shortest is the number of characters of an alias after its word and hyphen. Only a
	// collision makes it longer.
	Shortest = 6
	longest  = 52 // 256 bits in base32
	// Keep is how many days the aliases of a team and day can be turned back.
	Keep = 7
	// MaxText bounds what Resolve reads.
	MaxText = 256 << 10

	maxName = 200 // of a case or a team
)

// Errors that a caller tells apart.
var (
	ErrScope = errors.New("the scope of an alias needs a case, or a team and a day")
	ErrPast  = errors.New("the day of the scope is not one of the last 7 days")
	ErrText  = errors.New("the text is longer than 256 KiB")
)

// Scope is where an alias holds: a case, or outside a case a team and a UTC day. With a
// case the others count for nothing.
type Scope struct {
	Case string
	Team string
	Day  string // 2006-01-02
}

// OfTeam is the scope of a team at a time.
func OfTeam(team string, now time.Time) Scope {
	return Scope{Team: team, Day: now.UTC().Format(time.DateOnly)}
}

// place is a scope as the book knows it.
type place struct {
	digest [32]byte // keyed: the file names no case and no team
	day    int      // days since 1970, or noDay
}

const noDay = math.MaxInt

// Labels keep the two uses of the key apart. Every part between them has a fixed length.
const (
	scopeLabel = "counterseal alias scope v1\x00"
	aliasLabel = "counterseal alias v1\x00"
)

func (b *Book) place(s Scope) (place, error) {
	if s.Case != "" {
		if len(s.Case) > maxName {
			return place{}, ErrScope
		}
		return place{b.mac([]byte(scopeLabel + "case\x00" + s.Case)), noDay}, nil
	}
	day, err := time.Parse(time.DateOnly, s.Day)
	if err != nil || s.Team == "" || len(s.Team) > maxName {
		return place{}, ErrScope
	}
	return place{b.mac([]byte(scopeLabel + "team\x00" + s.Day + s.Team)), dayOf(day)}, nil
}

func dayOf(t time.Time) int {
	return int(t.Unix() / (24 * 60 * 60))
}

// words are how the aliases of a kind begin.
var words = [...]struct {
	kind event.TokenKind
	word string
}{
	{event.Person, "person-"}, {event.Mail, "mail-"}, {event.Device, "device-"}, {event.Address, "address-"},
}

var alphabet = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// name gives the longest alias of a token; an alias is a beginning of it. Its digest is
// taken again until the first characters could be no word that people write (mixed), so that
// a host called mail-server or device-manager2 is not taken for an alias. That costs a bit
// of the first thirty.
func (b *Book) name(p place, token string) (string, error) {
	if !event.IsToken([]byte(token)) {
		return "", errors.New("what shall get an alias is not a token")
	}
	msg := make([]byte, 0, 128)
	msg = append(msg, aliasLabel...)
	msg = append(msg, p.digest[:]...)
	msg = append(msg, token[0], 0, 0)
	round := len(msg) - 2
	msg = append(msg, token...)
	for n := range uint16(256) {
		binary.BigEndian.PutUint16(msg[round:], n)
		sum := b.mac(msg)
		body := alphabet.EncodeToString(sum[:])
		if !mixed(body) {
			continue
		}
		for _, w := range words {
			if w.kind == event.TokenKind(token[0]) {
				return w.word + body, nil
			}
		}
	}
	return "", errors.New("the key of aliases gives digests of one form") // one in 10^109 with HMAC
}

// mixed tells whether a digit stands before a letter in the first characters.
func mixed(body string) bool {
	digit := false
	for i := range Shortest {
		if body[i] >= '2' && body[i] <= '7' {
			digit = true
		} else if digit {
			return true
		}
	}
	return false
}

// wordByte is what a word is made of, as in internal/access: a neighbour of this kind
// makes another word of an alias. The text is in lower case.
func wordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c >= 0x80
}

// shape finds the first word in text from the place given that has the shape of an alias.
// The text is in lower case.
func shape(text string, from int) (start, end int) {
	for i := from; ; {
		k := strings.IndexByte(text[i:], '-')
		if k < 0 {
			return -1, -1
		}
		i += k + 1
		for _, w := range words {
			start := i - len(w.word)
			if start < from || text[start:i] != w.word || start > 0 && wordByte(text[start-1]) {
				continue
			}
			end := i
			plain := true
			for end < len(text) && wordByte(text[end]) {
				c := text[end]
				plain = plain && (c >= 'a' && c <= 'z' || c >= '2' && c <= '7')
				end++
			}
			if n := end - i; plain && n >= Shortest && n <= longest && mixed(text[i:end]) {
				return start, end
			}
			i = end
			break
		}
	}
}

// lower folds ASCII alone: an alias or a token in capitals is the same one, and all
// offsets stay.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
