package discloser

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/blind"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/pseudonym"
)

const (
	form = "disclosers/v1"

	// MaxNames is how many names a list has, of all its people together: each of them is one
	// of the places of a question to the key holder.
	MaxNames = 32
	// MaxTags is how many tags are kept of one person: the newest.
	MaxTags = 256
	// MaxNote bounds what an overseer notes about somebody, in bytes.
	MaxNote = 200
	// MaxFile bounds the file of a list.
	MaxFile = 4 << 20

	purpose  = "oversight/disclosers"
	plainLen = 384 << 10 // of every list, whatever is on it
	timeForm = "2006-01-02T15:04:05Z"
)

// Entry is one person on a list.
type Entry struct {
	Added time.Time
	Note  string   // a number of a file, say: what an overseer is shown of a match
	Names []string // as the overseer wrote them
	// Found is how many of the names the key holder knew when it was last asked, -1 where it
	// was not since they were written. What it gave before is kept where it knows fewer now.
	Found int

	tags []Tag
}

// Known reports whether a key holder has ever known one of the names.
func (e *Entry) Known() bool { return len(e.tags) > 0 }

// List is a list of protected disclosers, opened.
type List struct {
	ID      uuid.UUID
	Entries []Entry
	// Org is the organisation whose key holder was asked, Asked when, and Epochs those of the
	// tokens that it knew, the newest first; zero before.
	Org    uuid.UUID
	Asked  time.Time
	Epochs []int

	to []keyring.PublicKey
}

// sealedForm is the file.
type sealedForm struct {
	Boxes []keyring.Box `json:"boxes"`
	Form  string        `json:"form"`
	ID    string        `json:"id"`
}

// plainForm is what is sealed, padded with zero bytes.
type plainForm struct {
	Asked   string      `json:"asked"`
	Entries []entryForm `json:"entries"`
	Epochs  []int       `json:"epochs"`
	Keys    []string    `json:"keys"` // to which it is sealed
	Org     string      `json:"org"`
	V       int         `json:"v"`
}

type entryForm struct {
	Added string   `json:"added"`
	Found int      `json:"found"`
	Names []string `json:"names"`
	Note  string   `json:"note"`
	Tags  string   `json:"tags"` // one after the other, base64url
}

// New begins a list that each of the keys opens.
func New(to []keyring.PublicKey) (*List, error) {
	if len(to) == 0 || len(to) > keyring.MaxEach {
		return nil, errors.New("a list is sealed to one to four keys")
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return nil, fmt.Errorf("making an id: %w", err)
	}
	return &List{ID: id, to: to}, nil
}

// Format prints no name, whatever verb is used.
func (l *List) Format(s fmt.State, _ rune) { fmt.Fprint(s, "list of protected disclosers") }

// LogValue is what slog prints.
func (l *List) LogValue() slog.Value { return slog.StringValue("list of protected disclosers") }

// MarshalJSON refuses: Seal writes a list.
func (l *List) MarshalJSON() ([]byte, error) {
	return nil, errors.New("a list of protected disclosers is never written into a document")
}

// info binds a seal to the list. A list is of no organisation and no epoch of officers.
func info(id uuid.UUID) keyring.SealInfo {
	return keyring.SealInfo{Purpose: purpose, Org: id, Epoch: 1, Subject: id.String()}
}

// names is how many there are, of all people.
func (l *List) names() int {
	n := 0
	for i := range l.Entries {
		n += len(l.Entries[i].Names)
	}
	return n
}

// Add puts somebody on the list, by one name or several. Its errors quote nothing.
func (l *List) Add(now time.Time, note string, names []string) error {
	e := Entry{Added: now.UTC().Truncate(time.Second), Note: note, Names: slices.Clone(names), Found: -1}
	if err := e.check(); err != nil {
		return err
	}
	var err error
	if e.Names, err = l.fresh(names); err != nil {
		return err
	}
	l.Entries = append(l.Entries, e)
	return nil
}

// Name gives the person at a place, from 1, further names. What matches them already stays.
func (l *List) Name(place int, names []string) error {
	if place < 1 || place > len(l.Entries) {
		return fmt.Errorf("the list has the places 1 to %d", len(l.Entries))
	}
	e := Entry{Names: slices.Clone(names)}
	if err := e.check(); err != nil {
		return err
	}
	names, err := l.fresh(names)
	if err != nil {
		return err
	}
	at := &l.Entries[place-1]
	at.Names, at.Found = append(at.Names, names...), -1
	return nil
}

// fresh gives names of one person that are not on the list, one spelling of each.
func (l *List) fresh(names []string) ([]string, error) {
	mine := map[string]bool{}
	names = slices.DeleteFunc(slices.Clone(names), func(text string) bool {
		word, _ := pseudonym.Spelling(text)
		was := mine[word]
		mine[word] = true
		return was
	})
	if n := l.names() + len(names); n > MaxNames {
		return nil, fmt.Errorf("the list would have %d names, and a question to the key holder has %d places: one name of each person does", n, MaxNames)
	}
	for i := range l.Entries {
		for _, text := range l.Entries[i].Names {
			if word, _ := pseudonym.Spelling(text); mine[word] {
				return nil, fmt.Errorf("one of the names is on the list already: place %d, %s", i+1, l.Entries[i].Note)
			}
		}
	}
	return names, nil
}

func (e *Entry) check() error {
	if len(e.Names) == 0 {
		return errors.New("somebody has at least one name")
	}
	for i, text := range e.Names {
		if _, err := pseudonym.Spelling(text); err != nil {
			return fmt.Errorf("name %d: %w", i+1, err)
		}
	}
	if len(e.Note) > MaxNote || !utf8.ValidString(e.Note) || strings.TrimSpace(e.Note) != e.Note || strings.ContainsFunc(e.Note, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.Is(unicode.Cf, r) }) {
		return fmt.Errorf("a note is a line of up to %d bytes", MaxNote)
	}
	return nil
}

// Remove takes the person at a place, from 1, off the list.
func (l *List) Remove(place int) error {
	if place < 1 || place > len(l.Entries) {
		return fmt.Errorf("the list has the places 1 to %d", len(l.Entries))
	}
	l.Entries = slices.Delete(l.Entries, place-1, place)
	return nil
}

// Seal gives the file of the list.
func (l *List) Seal() ([]byte, error) {
	p := plainForm{Epochs: append([]int{}, l.Epochs...), Entries: []entryForm{}, Keys: []string{}, V: 1}
	if !l.Asked.IsZero() {
		p.Asked, p.Org = l.Asked.UTC().Format(timeForm), l.Org.String()
	}
	for _, k := range l.to {
		p.Keys = append(p.Keys, base64.RawURLEncoding.EncodeToString(k.Bytes()))
	}
	for i := range l.Entries {
		e := &l.Entries[i]
		f := entryForm{Added: e.Added.UTC().Format(timeForm), Found: e.Found, Names: e.Names, Note: e.Note}
		var all []byte
		for _, t := range e.tags {
			all = append(all, t[:]...)
		}
		f.Tags = base64.RawURLEncoding.EncodeToString(all)
		p.Entries = append(p.Entries, f)
	}
	plain, err := approval.Canonical(&p)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	if len(plain) > plainLen {
		return nil, fmt.Errorf("the list is longer than %d bytes", plainLen)
	}
	padded := make([]byte, plainLen)
	defer clear(padded)
	copy(padded, plain)
	f := sealedForm{Form: form, ID: l.ID.String()}
	if f.Boxes, err = keyring.SealEach(l.to, info(l.ID), padded); err != nil {
		return nil, err
	}
	return approval.Canonical(&f)
}

// Open opens the file of a list. Its error wraps keyring.ErrNotForKey where it is sealed to
// other keys, and quotes nothing.
func Open(b []byte, k keyring.Opener) (*List, error) {
	l, err := open(b, k)
	if err != nil {
		return nil, fmt.Errorf("list of disclosers: %w", err)
	}
	return l, nil
}

func open(b []byte, k keyring.Opener) (*List, error) {
	var f sealedForm
	if err := approval.DecodeUpTo(MaxFile, trim(b), &f); err != nil {
		return nil, err
	}
	id, err := uuid.Parse(f.ID)
	switch {
	case f.Form != form:
		return nil, errors.New("form is not " + form)
	case err != nil || id.String() != f.ID:
		return nil, errors.New("id is not a UUID")
	}
	if _, err := keyring.ParseEach(f.Boxes, plainLen); err != nil {
		return nil, err
	}
	plain, err := keyring.OpenEach(k, info(id), f.Boxes)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	l, err := parse(plain)
	if err != nil {
		return nil, err
	}
	l.ID = id
	return l, nil
}

func trim(b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] == '\n' {
		return b[:n-1]
	}
	return b
}

// parse reads what lies inside the seal.
func parse(plain []byte) (*List, error) {
	text := plain
	for len(text) > 0 && text[len(text)-1] == 0 {
		text = text[:len(text)-1]
	}
	bad := errors.New("what is sealed is of another form")
	var p plainForm
	if len(plain) != plainLen || approval.DecodeUpTo(plainLen, text, &p) != nil || p.V != 1 || (p.Asked == "") != (p.Org == "") || len(p.Epochs) > blind.MaxWidth {
		return nil, bad
	}
	l := &List{Epochs: p.Epochs}
	var err error
	if p.Asked != "" {
		if l.Asked, err = time.Parse(timeForm, p.Asked); err != nil {
			return nil, bad
		}
		if l.Org, err = uuid.Parse(p.Org); err != nil {
			return nil, bad
		}
	}
	if len(p.Keys) == 0 || len(p.Keys) > keyring.MaxEach {
		return nil, bad
	}
	for _, text := range p.Keys {
		raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
		if err != nil {
			return nil, bad
		}
		k, err := keyring.ParsePublicKey(raw)
		if err != nil {
			return nil, bad
		}
		l.to = append(l.to, k)
	}
	for _, f := range p.Entries {
		e := Entry{Note: f.Note, Names: f.Names, Found: f.Found}
		if e.Added, err = time.Parse(timeForm, f.Added); err != nil || e.check() != nil || f.Found < -1 || f.Found > len(f.Names) {
			return nil, bad
		}
		all, err := base64.RawURLEncoding.Strict().DecodeString(f.Tags)
		if err != nil || len(all)%blind.ValueLen != 0 || len(all) > MaxTags*blind.ValueLen {
			return nil, bad
		}
		for ; len(all) > 0; all = all[blind.ValueLen:] {
			e.tags = append(e.tags, Tag(all[:blind.ValueLen]))
		}
		l.Entries = append(l.Entries, e)
	}
	if l.names() > MaxNames {
		return nil, bad
	}
	return l, nil
}

// Words are the names of everybody on the list, in the spelling of the key holder, in order.
func (l *List) Words() [][]byte {
	var out [][]byte
	for i := range l.Entries {
		for _, text := range l.Entries[i].Names {
			word, err := pseudonym.Spelling(text)
			if err != nil { // Add and parse have refused it
				word = ""
			}
			out = append(out, []byte(word))
		}
	}
	return out
}

// Answered takes what the key holder of an organisation gave for words of the list, of tokens
// of these epochs, the newest first: the tags of each, nil for one that it does not know. Whoever
// came onto the list since is not asked for yet; tags that a key holder gave before stay, since
// it may have lost somebody from its directory, or a key, and their records are there.
func (l *List) Answered(now time.Time, org uuid.UUID, epochs []int, words [][]byte, tags [][]Tag) error {
	if len(tags) != len(words) {
		return fmt.Errorf("%d names were asked and %d answered", len(words), len(tags))
	}
	if l.Org != uuid.Nil && l.Org != org {
		return errors.New("this is the key holder of another organisation than the one that was asked before")
	}
	gave := map[string][]Tag{}
	for i, word := range words {
		gave[string(word)] = tags[i]
	}
	for i := range l.Entries {
		e := &l.Entries[i]
		found := 0
		var all [][]Tag
		for _, text := range e.Names {
			word, _ := pseudonym.Spelling(text)
			t, was := gave[word]
			if !was {
				found = -1
				break
			}
			if len(t) > 0 {
				found++
			}
			all = append(all, t)
		}
		if found < 0 {
			continue
		}
		e.Found, e.tags = found, merged(all, e.tags)
	}
	l.Asked, l.Org, l.Epochs = now.UTC().Truncate(time.Second), org, slices.Clone(epochs)
	return nil
}

// merged gives at most MaxTags different tags: those of each name by turns, and those of
// before, of which half of the room is kept whatever comes.
func merged(gave [][]Tag, before []Tag) []Tag {
	var fresh []Tag
	have := map[Tag]bool{}
	for i := 0; ; i++ {
		some := false
		for _, of := range gave {
			if i < len(of) {
				some = true
				if !have[of[i]] {
					have[of[i]] = true
					fresh = append(fresh, of[i])
				}
			}
		}
		if !some {
			break
		}
	}
	before = slices.DeleteFunc(slices.Clone(before), func(t Tag) bool { return have[t] })
	fresh = fresh[:min(len(fresh), MaxTags-min(len(before), MaxTags/2))]
	return append(fresh, before[:min(len(before), MaxTags-len(fresh))]...)
}

// Unasked is how many people came onto the list after the key holder was last asked: nothing
// matches them yet.
func (l *List) Unasked() int {
	n := 0
	for i := range l.Entries {
		if l.Entries[i].Found < 0 {
			n++
		}
	}
	return n
}

// Match gives everybody on the list whom a veiled target is: one, as a rule.
func (l *List) Match(v Veil) []*Entry {
	var found []*Entry
	for i := range l.Entries {
		if slices.ContainsFunc(l.Entries[i].tags, v.Of) {
			found = append(found, &l.Entries[i])
		}
	}
	return found
}

// MatchToken gives everybody on the list for whom a token stands.
func (l *List) MatchToken(token event.Token) []*Entry { return l.Match(VeilOf(token)) }

// MatchName gives everybody on the list whose name this may be, as somebody writes it in a
// question: by the code of the door, with a directory of the people on the list, and by parts
// of the name. It takes one too many rather than one too few: alice@corp.example for alice.
// compared is false for what is no name of a person, such as a device.
func (l *List) MatchName(category, text string) (found []*Entry, compared bool) {
	var people [][]string
	for i := range l.Entries {
		people = append(people, l.Entries[i].Names)
	}
	d, err := pseudonym.DirectoryOf(people)
	if err != nil || category != "person" && category != "mail" {
		return nil, false
	}
	who, err := d.Who(category, text)
	if err != nil {
		return nil, false
	}
	asked := names(text)
	for i := range l.Entries {
		if i == who || slices.ContainsFunc(l.Entries[i].Names, func(own string) bool {
			return slices.ContainsFunc(names(own), func(n string) bool { return slices.Contains(asked, n) })
		}) {
			found = append(found, &l.Entries[i])
		}
	}
	return found, true
}

// names are the spellings by which a name is found without a directory.
func names(text string) []string {
	var out []string
	add := func(s string) {
		if s != "" && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	word, err := pseudonym.Spelling(text)
	if err != nil {
		return nil
	}
	add(word)
	var none pseudonym.Directory
	if _, canonical, err := none.Identity("person", text); err == nil {
		add(string(canonical))
	}
	for _, s := range slices.Clone(out) {
		s = strings.TrimPrefix(strings.Trim(s, "<>"), "cn=")
		if i := strings.LastIndexAny(s, `/\`); i >= 0 {
			s = s[i+1:]
		}
		add(s)
		account, _, _ := strings.Cut(s, "@")
		add(account)
	}
	return out
}
