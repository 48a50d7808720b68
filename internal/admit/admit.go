// Package admit is the door: it withholds records of protected channels, then
// minimises what the assessment lets in. It owns protected/v1 files and the actions
// allow, drop, truncate and hash-keyed; tokenise and detect-only it marks for
// internal/pseudonym, which alone knows tokens.
//
// Order is the promise. Withhold comes first, looks at each record by itself and
// leaves no trace: no count, no number, no log line. Whoever calls it gives numbers
// to what is left. Minimise comes second; what it drops is overwritten in the record
// that it was given.
//
// Limits, for THREAT_MODEL.md. Withhold reads text as parsed, percent-escapes, JSON
// and DNS escapes and NUL-padded UTF-16; it does not undo base64, compression or
// encryption, and it knows only what the file lists. Whoever can write into a log can
// name a protected channel to hide that one record; that is the price of a blind
// spot that leaves no trace.
//
// It is pure: no clock, no file, no network.
package admit

import (
	"encoding/base32"
	"net/netip"
	"unicode/utf8"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/pia"
)

// Minimised is a record that holds only what its assessment allows. Identities in it
// are still in clear: only internal/pseudonym takes it further.
type Minimised struct {
	event.Envelope
	Fields []event.Field
	// Marks has one entry for each field: the line of the PIA that let it in. Its
	// Action is Allow, Truncate or HashKeyed (done), Tokenise or DetectOnly (to do).
	Marks []*pia.FieldRule
	Rule  *pia.Rule
}

// Counts says what minimisation did, summed over the records of one dataset.
type Counts struct {
	Kept      int // fields, in any form
	Tokenised int
	Truncated int
	Hashed    int
	Detect    int // detect-only
	// Dropped counts fields by path. Paths come from the source and may hold names
	// (a JSON object keyed by user): they go through pseudonym.Label before they are
	// stored. Beyond maxPaths the rest is counted under OtherPaths.
	Dropped map[string]int
}

// OtherPaths is where Counts puts dropped paths beyond its bound.
const OtherPaths = "(other)"

const maxPaths = 500

func (c *Counts) drop(path string) {
	if c.Dropped == nil {
		c.Dropped = map[string]int{}
	}
	if _, ok := c.Dropped[path]; !ok && len(c.Dropped) >= maxPaths {
		path = OtherPaths
	}
	c.Dropped[path]++
}

// Minimise applies the rule to a record and adds to c. hash is a keyed MAC of 16
// bytes or more; it must not be the key of the tokens, or equal inputs could be
// compared across both. The order of fields is kept. r is used up: its fields are
// overwritten.
func Minimise(r *event.Record, rule *pia.Rule, hash func([]byte) []byte, c *Counts) Minimised {
	m := Minimised{Envelope: r.Envelope, Fields: r.Fields[:0], Marks: make([]*pia.FieldRule, 0, len(r.Fields)), Rule: rule}
	for _, f := range r.Fields {
		line := rule.Field(f.Name)
		if line == nil || line.Action == pia.Drop {
			c.drop(f.Name)
			continue
		}
		c.Kept++
		switch line.Action {
		case pia.Truncate:
			c.Truncated++
			if f.Kind == event.String || f.Kind == event.Number {
				f.Value, f.Kind = truncate(f.Value, line.Arg), event.String
			}
		case pia.HashKeyed:
			c.Hashed++
			if f.Kind != event.Null && len(f.Value) > 0 {
				f.Value, f.Kind = Hashed(hash, f.Value), event.String
			}
		case pia.Tokenise:
			c.Tokenised++
		case pia.DetectOnly:
			c.Detect++
		}
		m.Fields = append(m.Fields, f)
		m.Marks = append(m.Marks, line)
	}
	clear(r.Fields[len(m.Fields):])
	r.Fields = nil
	return m
}

// HashPrefix begins every keyed digest that stands for a value. A digest cannot be
// turned back, by nobody; a token can, by two officers.
const HashPrefix = "h1_"

const hashChars = 26

var hashAlphabet = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Hashed prints the keyed digest of a value: h1_ and 26 characters, 128 bits.
func Hashed(hash func([]byte) []byte, value []byte) []byte {
	mac := hash(value)
	var bits [16]byte
	copy(bits[:], mac)
	return hashAlphabet.AppendEncode(append(make([]byte, 0, len(HashPrefix)+hashChars), HashPrefix...), bits[:])
}

// truncate shortens an address to its prefix (IPv4 to n bits, 24 where n is no IPv4
// prefix; IPv6 to 48) and any other text to n characters. A port goes.
func truncate(v []byte, n int) []byte {
	if a, ok := addrOf(v); ok {
		bits := 48
		if a.Is4() {
			bits = n
			if n > 32 {
				bits = 24
			}
		}
		p, err := a.Prefix(bits)
		if err != nil {
			return nil
		}
		return p.Addr().AppendTo(nil)
	}
	end := 0
	for range n {
		if end >= len(v) {
			return v
		}
		_, size := utf8.DecodeRune(v[end:])
		end += size
	}
	return v[:end:end]
}

// addrOf reads a whole value as an address, with or without port, brackets or zone.
func addrOf(v []byte) (netip.Addr, bool) {
	if len(v) < 2 || len(v) > 80 {
		return netip.Addr{}, false
	}
	if c := v[0]; c != '[' && c != ':' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
		return netip.Addr{}, false
	}
	s := string(v)
	if s[0] == '[' && s[len(s)-1] == ']' {
		s = s[1 : len(s)-1]
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		ap, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Addr{}, false
		}
		a = ap.Addr()
	}
	return a.Unmap().WithZone(""), true
}
