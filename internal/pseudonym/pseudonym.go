// Package pseudonym turns a minimised record into an event whose identities are
// tokens. It is the only maker of an event.Event from a record, and it owns what an
// identity is: which words stay, how spellings of one person become one, what is
// looked for in text.
//
// It promises, of every field that the PIA lets in:
//
//   - A field with the action tokenise holds a token, or a word that names nobody:
//     built-in principals, services, machine accounts, well-known SIDs, "-", loopback.
//   - In every other text these are replaced too: identities of the same record (its
//     tokenise fields; of three letters or five digits at least), entries of the directory file, and the shapes mail address,
//     DOMAIN\name where the domain is known (of the record or the directory), SID,
//     home path, telephone number. Nothing else: a nickname that no directory lists
//     passes, and so does an identity inside base64 or an archive. PIAs drop free
//     text unless it is justified.
//   - One person of the directory is one token in all spellings. Without an entry,
//     name, DOMAIN\name and name@domain of a known domain are one.
//   - Text of a source that already looks like a token or a keyed digest is an
//     identity like any other, so a source cannot forge one.
//   - The same input gives the same output, whatever came before.
//
// Limits, for THREAT_MODEL.md. This step sees names in clear: a compromised live
// server can copy the names that pass. Local keeps its key in this process: where that
// comes from the data directory, whoever reads it can undo tokens by guessing names. A
// key holder (internal/keyholder) serves Tokenizer instead. The caches of names live in
// memory only.
package pseudonym

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/counterseal/counterseal/internal/admit"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/pia"
)

// Pseudonymiser makes events of records. It is safe for use by many goroutines.
type Pseudonymiser struct {
	tokens Tokenizer
	dir    *Directory
	hash   func([]byte) []byte

	people  cache // what a name as written becomes
	labels  cache // Label
	scratch sync.Pool
}

// New takes the maker of tokens, a directory (nil: none) and the keyed MAC that
// admit.Minimise was given.
func New(t Tokenizer, d *Directory, hash func([]byte) []byte) *Pseudonymiser {
	if d == nil {
		d = &Directory{}
	}
	p := &Pseudonymiser{tokens: t, dir: d, hash: hash}
	p.scratch.New = func() any { return new(record) }
	return p
}

// record is what is known of the record at hand, and room to work in.
type record struct {
	salt     string   // not empty: tokens of this source stand alone
	domains  []string // folded; of this record
	idents   []ident  // identities of its tokenise fields
	first    [256]bool
	done     []bool // by field: it is a token
	field    int    // the field at hand
	clear    []clearPart
	spans    []span // room for text
	rejected error  // of the tokenizer
}

// clearPart is the part of a field that stays beside its token.
type clearPart struct{ field, from, to int }

// ident is an identity of the record to look for in its text.
type ident struct {
	folded  string
	token   event.Token
	address bool
}

type span struct {
	start, end int
	token      event.Token
}

func (r *record) reset() {
	r.salt, r.domains, r.idents, r.spans, r.done, r.clear, r.rejected = "", r.domains[:0], r.idents[:0], r.spans[:0], r.done[:0], r.clear[:0], nil
	clear(r.first[:])
}

// Event makes the event. It takes over the fields of m. An error is one of the
// Tokenizer: the record must then be tried again, never stored.
func (p *Pseudonymiser) Event(m admit.Minimised) (*event.Event, error) {
	if len(m.Marks) != len(m.Fields) {
		return nil, fmt.Errorf("pseudonymising: %d fields with %d marks", len(m.Fields), len(m.Marks))
	}
	r := p.scratch.Get().(*record)
	defer p.scratch.Put(r)
	r.reset()
	p.learn(r, m)

	e := &event.Event{Envelope: m.Envelope, Fields: m.Fields}
	// First the fields that are identities, so that the text can be searched for them.
	for i, line := range m.Marks {
		f := &e.Fields[i]
		r.done = append(r.done, false)
		r.field = i
		if line.Action == pia.Tokenise && f.Kind != event.Null && f.Name != event.UnparsedField {
			if h := hintOf(line.Category); h != hintText {
				r.done[i] = p.whole(r, f, h)
			}
		}
	}
	for i, line := range m.Marks {
		f := &e.Fields[i]
		switch {
		case f.Kind == event.Null || f.Kind == event.Bool:
		case line.Action == pia.DetectOnly:
			seen := *f
			seen.Value = p.text(r, f.Value)
			e.DetectOnly = append(e.DetectOnly, seen)
			stored := append([]byte("len="), strconv.Itoa(len(f.Value))...)
			f.Value = append(append(stored, ' '), admit.Hashed(p.hash, f.Value)...)
			f.Kind = event.String
		case r.done[i]:
			if len(r.clear) > 0 {
				f.Value = p.kept(r, i, f.Value)
			}
		case line.Action != pia.HashKeyed:
			// What stays in a tokenise field is searched too: WEB01$ is a machine, and
			// \\ALICE-LAPTOP\c$ is not.
			if v := p.text(r, f.Value); len(v) != len(f.Value) || len(v) > 0 && &v[0] != &f.Value[0] {
				f.Value, f.Kind = v, event.String
			}
		}
		if line.Wild {
			f.Name = p.label(r, f.Name)
			if n := len(e.DetectOnly); line.Action == pia.DetectOnly && n > 0 {
				e.DetectOnly[n-1].Name = f.Name
			}
		}
	}
	p.envelope(r, &e.Envelope, m.Rule)
	if r.rejected != nil {
		return nil, fmt.Errorf("pseudonymising a record of %s: %w", m.Source, r.rejected)
	}
	return e, nil
}

// PeerPath is the path by which a PIA allows the sender's address to stay in clear.
const PeerPath = "_peer"

// envelope takes identities out of what is known beside the fields. The sender's
// address is one unless the PIA lists it as allowed.
func (p *Pseudonymiser) envelope(r *record, env *event.Envelope, rule *pia.Rule) {
	peer := env.Peer
	allowed := false
	if rule != nil {
		a, _, _ := rule.Action(PeerPath)
		allowed = a == pia.Allow
	}
	if peer != "" && !allowed {
		if out, _, ok := p.address(r, []byte(peer)); ok {
			env.Peer = string(out)
		} else {
			env.Peer = string(admit.Hashed(p.hash, []byte(peer)))
		}
		if env.Peer != peer && strings.Contains(env.Conn, peer) {
			env.Conn = strings.ReplaceAll(env.Conn, peer, env.Peer)
		}
	}
	if !allowed && env.Conn != "" {
		if out, _, ok := p.address(r, []byte(env.Conn)); ok {
			env.Conn = string(out)
		}
	}
	env.Conn = p.label(r, env.Conn)
	env.Dataset = p.label(r, env.Dataset)
	env.Zone = p.label(r, env.Zone)
	env.Group = p.Stream(env.Group)
}

// Stream gives the form in which the name of a producer's counter or of a group of
// records is stored: a keyed digest, since it is made of host and user names.
func (p *Pseudonymiser) Stream(name string) string {
	if name == "" {
		return ""
	}
	return string(admit.Hashed(p.hash, []byte(name)))
}

// Label takes identities out of a short text that is not a field of a record: the
// path of a dropped field, a file's name. The record gives no context here.
func (p *Pseudonymiser) Label(s string) (string, error) {
	r := p.scratch.Get().(*record)
	defer p.scratch.Put(r)
	r.reset()
	out := p.label(r, s)
	return out, r.rejected
}

func (p *Pseudonymiser) label(r *record, s string) string {
	if len(s) < 3 {
		return s
	}
	if len(r.idents) == 0 && r.salt == "" && len(r.domains) == 0 {
		if hit, ok := p.labels.get([]byte(s)); ok {
			return hit.text
		}
		out := string(p.dotted(r, []byte(s)))
		if r.rejected == nil {
			p.labels.put(s, cached{text: out})
		}
		return out
	}
	return string(p.dotted(r, []byte(s)))
}

// token asks for a token and remembers a refusal.
func (p *Pseudonymiser) token(r *record, k event.TokenKind, canonical string) event.Token {
	if r.salt != "" {
		canonical = r.salt + "\x00" + canonical
	}
	t, err := p.tokens.Token(k, []byte(canonical))
	if err != nil {
		r.rejected = err
		return ""
	}
	return t
}

// learn reads the domains of a record, and whether its tokens stand alone.
func (p *Pseudonymiser) learn(r *record, m admit.Minimised) {
	for i, line := range m.Marks {
		if line.Unlinkable {
			r.salt = m.Source
		}
		v := m.Fields[i].Value
		if len(v) == 0 || len(v) > 255 || line.Action == pia.HashKeyed || line.Action == pia.Truncate {
			continue
		}
		if line.Action == pia.Tokenise {
			if d, name, ok := splitDomain(v); ok && len(name) > 0 && len(d) > 1 {
				r.addDomain(d)
			}
		}
		if isDomainField(m.Fields[i].Name) {
			r.addDomain(v)
		}
	}
}

func (r *record) addDomain(d []byte) {
	if len(r.domains) >= 8 || bytes.IndexByte(d, '\\') >= 0 {
		return
	}
	f := admit.Fold(string(d))
	if f == "" || f == "-" || f == "." {
		return
	}
	for _, have := range r.domains {
		if have == f {
			return
		}
	}
	r.domains = append(r.domains, f)
}

// isDomainField tells fields that hold the domain of an account.
func isDomainField(name string) bool {
	last := name[strings.LastIndexByte(name, '.')+1:]
	const suffix = "domainname"
	if len(last) >= len(suffix) && strings.EqualFold(last[len(last)-len(suffix):], suffix) {
		return true
	}
	return strings.EqualFold(last, "domain") || strings.EqualFold(last, "userdomain")
}

// knownDomain does not allocate for a domain of ASCII: it is asked at each backslash.
func (p *Pseudonymiser) knownDomain(r *record, d []byte) bool {
	if len(d) == 0 || len(d) > 255 || len(r.domains) == 0 && len(p.dir.domains) == 0 {
		return false
	}
	var room [255]byte
	folded := room[:len(d)]
	for i, c := range d {
		if c >= 0x80 || c <= ' ' {
			folded = []byte(admit.Fold(string(d)))
			break
		}
		folded[i] = byte(admit.FoldRune(rune(c)))
	}
	if p.dir.domains[string(folded)] {
		return true
	}
	for _, have := range r.domains {
		if have == string(folded) {
			return true
		}
	}
	return false
}

// hint is what the category of a PIA line says about a value.
type hint uint8

const (
	hintNone hint = iota
	hintPerson
	hintMail
	hintPhone
	hintDevice
	hintAddress
	hintText
)

// hintOf reads the short words and the names of the fides taxonomy.
func hintOf(category string) hint {
	switch category {
	case "":
		return hintNone
	case "person", "user", "user.name", "user.unique_id", "user.account", "user.account.username":
		return hintPerson
	case "mail", "user.contact.email":
		return hintMail
	case "phone", "user.contact.phone_number", "user.contact.fax_number":
		return hintPhone
	case "device", "user.device":
		return hintDevice
	case "address", "user.device.ip_address":
		return hintAddress
	case "text", "command", "url":
		return hintText
	}
	switch {
	case strings.HasPrefix(category, "user.device.ip_address."):
		return hintAddress
	case strings.HasPrefix(category, "user.device."):
		return hintDevice
	case strings.HasPrefix(category, "user.contact.email."):
		return hintMail
	case strings.HasPrefix(category, "user.name."), strings.HasPrefix(category, "user.unique_id."), strings.HasPrefix(category, "user.account."):
		return hintPerson
	}
	return hintNone
}
