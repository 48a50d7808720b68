// Package discloser is the list of protected disclosers that an overseer keeps: people who told
// an inspector, a court, Congress or the press, and whom somebody may want to hunt for it. It
// owns the form disclosers/v1, and how a target is compared with the list:
// docs/formats/disclosers.md.
//
// It promises: a list opens with a key of the overseers' office alone, and its length tells
// neither how many are on it nor who; a Veil of a target tells nobody anything who has not the
// Tag of just this target, and two veils of one target look like those of two; a Tag leads
// to no token.
//
// It leaves to others to find the tags (keyholder, which does not learn whose), to make veils
// of targets, the same ones whether anybody is on a list or not (the server), and to say what
// an overseer does about a match. Whoever asks to look at somebody learns of none of it.
package discloser

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"

	"github.com/counterseal/counterseal/internal/blind"
	"github.com/counterseal/counterseal/internal/event"
)

// Tag is what a list has of a token: the first 16 bytes of a digest, from which no token is
// made again.
type Tag = blind.Value

// TagOf gives the tag of a token.
func TagOf(t event.Token) Tag {
	sum := sha256.Sum256(append([]byte("counterseal/discloser/v1/tag\x00"), t...))
	return Tag(sum[:])
}

// Veil is a target as an overseer's machine gets to see it. It can be compared with a tag, and
// with nothing else.
type Veil struct {
	Salt []byte `json:"salt"` // 16 random bytes
	Sum  []byte `json:"sum"`  // 16 bytes
}

const veilLen = 16

// VeilOf veils a token, in another way each time.
func VeilOf(t event.Token) Veil {
	salt := make([]byte, veilLen)
	rand.Read(salt) // never fails
	return Veil{salt, veil(TagOf(t), salt)}
}

// veil is HMAC-SHA256 under the digest of a tag: a key of 16 bytes would do, and one of 32 keeps
// to what its module approves of.
func veil(t Tag, salt []byte) []byte {
	key := sha256.Sum256(append([]byte("counterseal/discloser/v1/veil\x00"), t[:]...))
	m := hmac.New(sha256.New, key[:])
	m.Write(salt)
	return m.Sum(nil)[:veilLen]
}

// Of reports whether a veil is that of a token with this tag.
func (v Veil) Of(t Tag) bool {
	return len(v.Salt) == veilLen && hmac.Equal(veil(t, v.Salt), v.Sum)
}
