package pseudonym

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/counterseal/counterseal/internal/admit"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/pia"
)

// Directory is a compiled directory/v1 file: which spellings are one person. nil and
// the zero value know nobody. Once read it is immutable.
type Directory struct {
	people  []*person
	domains map[string]bool    // folded
	names   map[string]*person // folded account or display name, without domain
	mails   map[string]*person
	sids    map[string]*person
	phones  map[string]*person // by digits
	devices map[string]bool    // folded
	short   map[string]*person // 8.3 prefix; nil where two people share it
	words   admit.Words        // everything that is looked for in text
	found   []found            // by id in words
	dialled map[string]bool    // keys of phones, for admit.NumberRun
	digest  [32]byte
}

// found is what an entry of the word list stands for.
type found struct {
	kind      event.TokenKind
	canonical string
}

type person struct {
	id        string
	canonical string
	end       time.Time
	entry     Entry
}

// Entry is a person as the directory file spells them.
type Entry struct{ Names, Mails, SIDs, Devices []string }

type directoryFile struct {
	APIVersion string            `yaml:"apiVersion"`
	Domains    []string          `yaml:"domains"`
	People     []directoryPerson `yaml:"people"`
}

type directoryPerson struct {
	ID      string   `yaml:"id"`
	Names   []string `yaml:"names"`
	Mails   []string `yaml:"mails"`
	SIDs    []string `yaml:"sids"`
	Phones  []string `yaml:"phones"`
	Devices []string `yaml:"devices"`
	End     string   `yaml:"end"`
}

// ParseDirectory reads a directory/v1 file:
//
//	apiVersion: directory/v1
//	domains: [CORP, corp.example]     # accounts of these are ours
//	people:
//	  - id: E-1001
//	    names: ['CORP\alice', alice, Alice Example]
//	    mails: [alice@corp.example]
//	    sids: [S-1-5-21-1-2-3-1104]
//	    phones: [+1 202 555 0123]
//	    devices: [ALICE-LAPTOP]       # personal devices: their names are tokens too
//	    end: 2026-10-31               # last day of service
//
// The token of a person is that of the first name, so that somebody who enters the
// directory keeps the token of before; put new names at the end. A name that two
// people share, and a name that is a word everybody uses (root, SYSTEM), is an
// error. Errors name entries by number, never by value. No bytes are no file: nobody
// is known.
func ParseDirectory(data []byte) (*Directory, error) {
	if len(data) == 0 {
		return &Directory{}, nil
	}
	var f directoryFile
	if err := pia.DecodeStrict(data, &f); err != nil {
		return nil, fmt.Errorf("directory file: %w", err)
	}
	if f.APIVersion != "directory/v1" {
		return nil, fmt.Errorf("directory file: apiVersion is not directory/v1")
	}
	return f.compile(sha256.Sum256(data))
}

func (f *directoryFile) compile(digest [32]byte) (*Directory, error) {
	d := &Directory{
		digest: digest, domains: map[string]bool{}, names: map[string]*person{}, mails: map[string]*person{},
		sids: map[string]*person{}, phones: map[string]*person{}, devices: map[string]bool{}, short: map[string]*person{}, dialled: map[string]bool{},
	}
	for _, s := range f.Domains {
		if s = admit.Fold(s); s != "" {
			d.domains[strings.TrimSuffix(s, ".")] = true
		}
	}
	ids := map[string]bool{}
	for i, in := range f.People {
		p := &person{id: in.ID, entry: Entry{Names: in.Names, Mails: in.Mails, SIDs: in.SIDs, Devices: in.Devices}}
		bad := func(list string, j int, why string) error {
			return fmt.Errorf("directory file: person %d, %s, entry %d: %s", i+1, list, j+1, why)
		}
		if in.ID == "" || ids[in.ID] {
			return nil, fmt.Errorf("directory file: person %d: needs an id of its own", i+1)
		}
		ids[in.ID] = true
		if in.End != "" {
			end, err := time.Parse(time.DateOnly, in.End)
			if err != nil {
				return nil, fmt.Errorf("directory file: person %d: end is not a date", i+1)
			}
			p.end = end
		}
		for j, s := range in.Names {
			if dom, name, ok := splitDomain([]byte(s)); ok {
				if len(dom) > 0 {
					d.domains[admit.Fold(string(dom))] = true
				}
				s = string(name)
			}
			n := admit.Fold(s)
			switch {
			case n == "":
				return nil, bad("names", j, "is empty")
			case isStayName(n):
				return nil, bad("names", j, "is a word that stands for no person")
			case d.names[n] != nil && d.names[n] != p:
				return nil, bad("names", j, "belongs to another person already")
			}
			d.names[n] = p
			if p.canonical == "" {
				p.canonical = n
			}
			if k := shortName(n); k != "" {
				if have, there := d.short[k]; there && have != p {
					d.short[k] = nil
				} else {
					d.short[k] = p
				}
			}
		}
		if p.canonical == "" {
			p.canonical = "id:" + in.ID
		}
		d.people = append(d.people, p)
		for j, s := range in.Mails {
			m := admit.Fold(s)
			if !strings.Contains(m, "@") {
				return nil, bad("mails", j, "is not a mail address")
			}
			if d.mails[m] != nil && d.mails[m] != p {
				return nil, bad("mails", j, "belongs to another person already")
			}
			d.mails[m] = p
		}
		for j, s := range in.SIDs {
			k := strings.ToUpper(strings.TrimSpace(s))
			if end, ok := sidAt([]byte(k), 0); !ok || end != len(k) {
				return nil, bad("sids", j, "is not a SID")
			}
			if d.sids[k] != nil && d.sids[k] != p {
				return nil, bad("sids", j, "belongs to another person already")
			}
			d.sids[k] = p
		}
		for j, s := range in.Phones {
			forms := admit.PhoneForms(s)
			if forms == nil {
				return nil, bad("phones", j, "has not 7 to 15 digits")
			}
			for _, form := range forms {
				if d.phones[form] != nil && d.phones[form] != p {
					return nil, bad("phones", j, "belongs to another person already")
				}
				d.phones[form], d.dialled[form] = p, true
			}
		}
		for j, s := range in.Devices {
			n := deviceName(admit.Fold(s))
			if n == "" {
				return nil, bad("devices", j, "is empty")
			}
			d.devices[n] = true
			if err := d.look(n, event.Device, n); err != nil {
				return nil, bad("devices", j, err.Error())
			}
		}
		for j, s := range in.Names {
			if _, name, ok := splitDomain([]byte(s)); ok {
				s = string(name)
			}
			if err := d.look(s, event.Person, p.canonical); err != nil {
				return nil, bad("names", j, err.Error())
			}
		}
		for j, s := range in.Mails {
			if err := d.look(s, event.Person, p.canonical); err != nil {
				return nil, bad("mails", j, err.Error())
			}
		}
	}
	return d, nil
}

// DirectoryOf makes a directory of people who are known by some names, each person by the
// number of their names in the list. Its errors name entries by number.
func DirectoryOf(people [][]string) (*Directory, error) {
	f := directoryFile{APIVersion: "directory/v1"}
	for i, all := range people {
		p := directoryPerson{ID: strconv.Itoa(i)}
		for _, text := range all {
			text = strings.TrimSpace(text)
			switch end, ok := sidAt([]byte(strings.ToUpper(text)), 0); {
			case ok && end == len(text):
				p.SIDs = append(p.SIDs, text)
			case strings.Contains(text, "@"):
				p.Mails = append(p.Mails, text)
			default:
				p.Names = append(p.Names, text)
			}
		}
		f.People = append(f.People, p)
	}
	return f.compile([32]byte{})
}

// Who gives the number of the person for whom a name stands, as somebody writes it, one of
// Categories; -1: for nobody in the directory.
func (d *Directory) Who(category, text string) (int, error) {
	k, canonical, err := d.Identity(category, text)
	if err != nil || k != event.Person {
		return -1, err
	}
	return slices.IndexFunc(d.people, func(p *person) bool { return p.canonical == string(canonical) }), nil
}

// look lists a text to be found in other text. What is too short to stand for
// somebody is found in tokenise fields alone.
func (d *Directory) look(text string, k event.TokenKind, canonical string) error {
	if admit.TooShort(text) {
		return nil
	}
	if _, err := d.words.Add(text); err != nil {
		return err
	}
	d.found = append(d.found, found{k, canonical})
	return nil
}

// Digest is the SHA-256 of the file, hex, for the context; empty where no file is in
// force.
func (d *Directory) Digest() string {
	if d == nil || d.digest == ([32]byte{}) {
		return ""
	}
	return hex.EncodeToString(d.digest[:])
}

// Len is the number of people.
func (d *Directory) Len() int {
	if d == nil {
		return 0
	}
	return len(d.people)
}

// Known gives whom the tokens of a directory stand for: each person, and each device, with
// whose it is where it is that of one person. It is for a process that may know
// (internal/broker); the server is none.
func Known(t Tokenizer, d *Directory) (map[event.Token]Entry, error) {
	out := make(map[event.Token]Entry, len(d.people))
	owner := map[event.Token]*person{}
	for _, who := range d.people {
		token, err := t.Token(event.Person, []byte(who.canonical))
		if err != nil {
			return nil, fmt.Errorf("tokens of the directory: %w", err)
		}
		out[token] = who.entry
		for _, name := range who.entry.Devices {
			if token, err = t.Token(event.Device, []byte(deviceName(admit.Fold(name)))); err != nil {
				return nil, fmt.Errorf("tokens of the directory: %w", err)
			}
			e := who.entry
			if first := owner[token]; first != nil && first != who {
				e = Entry{} // nobody's account stands for a device that two people have
			} else {
				owner[token] = who
			}
			e.Devices = []string{name}
			out[token] = e
		}
	}
	return out, nil
}

// Leavers gives the token of every person with an end of service, and that last
// day. Names do not leave this package with it.
func (p *Pseudonymiser) Leavers() (map[event.Token]time.Time, error) {
	out := map[event.Token]time.Time{}
	for _, who := range p.dir.people {
		if who.end.IsZero() {
			continue
		}
		t, err := p.tokens.Token(event.Person, []byte(who.canonical))
		if err != nil {
			return nil, fmt.Errorf("tokens of leavers: %w", err)
		}
		out[t] = who.end
	}
	return out, nil
}

// shortName is the first part of the 8.3 form of a name, or empty.
func shortName(folded string) string {
	var b []byte
	for _, r := range folded {
		if r > 0x7e {
			return ""
		}
		if r != ' ' && r != '.' {
			if b = append(b, byte(r)); len(b) == 6 {
				return string(b)
			}
		}
	}
	return ""
}
