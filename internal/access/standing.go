package access

import (
	_ "embed" // published.txt
	"encoding/hex"
	"strings"
	"sync"

	"github.com/counterseal/counterseal/rules"
	"github.com/counterseal/counterseal/sigma"
)

// published.txt holds the digests of rules that were published for everybody and that
// would select somebody if they were written here: those of the SigmaHQ release that
// TestPublished names. What selects nobody needs no entry. Digests alone: nobody's text is
// copied, and a rule that was changed by a byte is another rule.
//
//go:embed published.txt
var publishedText string

var published = sync.OnceValue(func() map[[32]byte]bool {
	out := map[[32]byte]bool{}
	for line := range strings.Lines(publishedText) {
		if sum, err := hex.DecodeString(strings.TrimSpace(line)); err == nil && len(sum) == 32 {
			out[[32]byte(sum)] = true
		}
	}
	if own, err := rules.All(); err == nil { // without them none is known, which is the stricter answer
		for _, r := range own {
			out[r.Digest] = true
		}
	}
	return out
})

// Published reports whether a rule is, byte for byte, one of our own or of a publisher
// that this program knows.
func Published(r *sigma.Rule) bool { return published()[r.Digest] }

// Standing says whom a rule of a configuration selects. One that was published for
// everybody was written before anybody here was looked for: it selects somebody only where
// it names somebody or some place of this house's own lists, and a protected channel is
// protected from everybody.
func Standing(r *sigma.Rule, o Options) Verdict {
	if !Published(r) {
		return Selects(Rule{Rule: r}, o)
	}
	here := false
	ask := o
	ask.Known, ask.Private = noting(o.Known, &here), noting(o.Private, &here)
	q := Rule{Rule: r, Published: true}
	v := Selects(q, ask)
	if o.Known != nil {
		for _, id := range Named(q, o) { // also one that has the shape of a name anywhere
			here = here || o.Known(id.Value)
		}
	}
	if v.Protected || here {
		return v
	}
	return Verdict{Standing: true}
}

// noting is fn, and notes that it said yes.
func noting(fn func(string) bool, yes *bool) func(string) bool {
	if fn == nil {
		return nil
	}
	return func(s string) bool {
		is := fn(s)
		*yes = *yes || is
		return is
	}
}
