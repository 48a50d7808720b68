package officer

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/strict"
)

const (
	rosterVersion = "officers/v1"
	maxRoster     = 64 << 10
	maxOfficers   = 4
	pairs         = 2 // of an inspector's office beside them, or none, and of a duty host
)

// Appointed is an officer in office.
type Appointed struct {
	*Card
	Authority string // who appointed
	Account   string // with which they sign in to the server; empty: not known
	Inspector bool   // of an inspector's office, which opens seals without the organisation
	Duty      bool   // of a duty host, a machine that opens names at night: it decides on nothing
}

// Roster is who holds the two offices, one spare of each, and the two keys of an
// inspector's office and of a duty host where there is one, as the server and every officer's machine know
// it. It has public halves only.
type Roster struct {
	Epoch    int
	Officers []Appointed // as in the file
}

// rosterForm is officers/v1.
type rosterForm struct {
	APIVersion string           `yaml:"apiVersion"`
	Epoch      int              `yaml:"epoch"`
	Officers   []rosterFormLine `yaml:"officers"`
}

type rosterFormLine struct {
	ID        string `yaml:"id"`
	Authority string `yaml:"authority"`
	Account   string `yaml:"account"`
	Inspector bool   `yaml:"inspector"`
	Duty      bool   `yaml:"duty"`
	Card      string `yaml:"card"`
}

// goField is how the YAML library names a key.
var goField = regexp.MustCompile(`Go struct field \w+\.(\w+)`)

// account is how the login names one.
var account = regexp.MustCompile(`^u_[A-Z2-7]{1,62}$`)

// ParseRoster reads officers/v1, strictly: an unknown key is an error, every card has
// the id beside it, and the two offices differ in people and authorities. name is the
// file for errors.
func ParseRoster(name string, data []byte) (*Roster, error) {
	if len(data) > maxRoster {
		return nil, fmt.Errorf("%s: longer than %d bytes", name, maxRoster)
	}
	var f rosterForm
	if err := strict.NewDecoder(data).Decode(&f); err != nil {
		text := strings.TrimSpace(yaml.FormatError(err, false, false))
		return nil, fmt.Errorf("%s: %s", name, goField.ReplaceAllString(text, "$1"))
	}
	if f.APIVersion != rosterVersion {
		return nil, fmt.Errorf("%s: apiVersion is not %s", name, rosterVersion)
	}
	if f.Epoch < 1 {
		return nil, fmt.Errorf("%s: epoch is a number from 1, one more whenever an officer changes", name)
	}
	if n := len(f.Officers); n < maxOfficers || n > maxOfficers+2*pairs {
		return nil, fmt.Errorf("%s: officers are four: investigation, oversight, and a spare of each; and two of an inspector's office and of a duty host, where there is one", name)
	}
	r := &Roster{Epoch: f.Epoch}
	for i, o := range f.Officers {
		at := fmt.Sprintf("%s: officers[%d]", name, i)
		card, err := ParseCard([]byte(o.Card))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
		if card.ID() != o.ID {
			return nil, fmt.Errorf("%s: id is not that of the card: ask the officer for it by another way", at)
		}
		if err := checkName(o.Authority); err != nil {
			return nil, fmt.Errorf("%s: authority: %w", at, err)
		}
		if o.Account != "" && !account.MatchString(o.Account) {
			return nil, fmt.Errorf("%s: account: write it as counterseal account list does: u_ and letters", at)
		}
		r.Officers = append(r.Officers, Appointed{Card: card, Authority: o.Authority, Account: o.Account, Inspector: o.Inspector, Duty: o.Duty})
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

func (r *Roster) check() error {
	inspectors, duty := 0, 0
	for i, a := range r.Officers {
		switch {
		case a.Inspector && a.Duty:
			return fmt.Errorf("officers[%d]: a duty host is of no inspector's office", i)
		case a.Inspector:
			if inspectors++; a.Spare {
				return fmt.Errorf("officers[%d]: an inspector's office has two keys and no spare", i)
			}
		case a.Duty:
			if duty++; a.Spare {
				return fmt.Errorf("officers[%d]: a duty host has two keys and no spare", i)
			}
		}
		for j, b := range r.Officers[:i] {
			switch {
			case a.Office == b.Office && a.Spare == b.Spare && a.Inspector == b.Inspector && a.Duty == b.Duty:
				return fmt.Errorf("officers[%d] and [%d] hold one office; each has one officer and one spare", j, i)
			case a.Account != "" && a.Account == b.Account:
				return fmt.Errorf("officers[%d] and [%d] have one account", j, i)
			case a.Sign.Equal(b.Sign) || a.Seal.ID() == b.Seal.ID():
				return fmt.Errorf("officers[%d] and [%d] have one key", j, i)
			case a.Duty || b.Duty: // a machine, whoever runs it
			case a.Inspector != b.Inspector && same(a.Name, b.Name):
				return fmt.Errorf("officers[%d] and [%d] are one person, and one is of an inspector's office", j, i)
			case a.Inspector != b.Inspector && same(a.Authority, b.Authority):
				return fmt.Errorf("officers[%d] and [%d]: one authority appointed both, and one is of an inspector's office", j, i)
			case a.Inspector && b.Inspector && !same(a.Authority, b.Authority):
				return fmt.Errorf("officers[%d] and [%d] are of two inspectors' offices; there is one", j, i)
			case a.Office == b.Office:
			case same(a.Name, b.Name):
				return fmt.Errorf("officers[%d] and [%d] are one person in two offices", j, i)
			case same(a.Authority, b.Authority) && !a.Inspector:
				return fmt.Errorf("officers[%d] and [%d] are of two offices and one authority appointed both", j, i)
			}
		}
	}
	switch {
	case inspectors != 0 && inspectors != pairs:
		return errors.New("beside the four officers two are of an inspector's office, or none")
	case duty != 0 && duty != pairs:
		return errors.New("beside the four officers two keys are of a duty host, or none")
	case len(r.Officers)-inspectors-duty != maxOfficers:
		return errors.New("four officers are investigation, oversight, and a spare of each, beside those of an inspector's office and of a duty host")
	}
	return nil
}

// fold writes a name in one spelling.
func fold(s string) string {
	return cases.Fold().String(strings.Join(strings.Fields(norm.NFKC.String(s)), " "))
}

// Person writes a name as Voter does, so that who asks can be told from who decides.
func Person(name string) string { return fold(name) }

func same(a, b string) bool { return fold(a) == fold(b) }

// Find gives the officer of a key id, nil for a stranger.
func (r *Roster) Find(id string) *Appointed {
	for i := range r.Officers {
		if r.Officers[i].ID() == id {
			return &r.Officers[i]
		}
	}
	return nil
}

// Duty gives the ids of the cards of a duty host, empty where there is none.
func (r *Roster) Duty() (investigation, oversight string) {
	for _, a := range r.Officers {
		switch {
		case a.Duty && a.Office == Investigation:
			investigation = a.ID()
		case a.Duty:
			oversight = a.ID()
		}
	}
	return investigation, oversight
}

// Voter is the officer of a key id as internal/approval knows one. Those of an inspector's
// office decide on nothing of the organisation: VoterFor has what they decide on.
func (r *Roster) Voter(id string) (approval.Officer, error) { return r.VoterFor(id, "") }

// The acts on which an inspector's office decides, with its two keys and nobody else: they
// open what is sealed to it. The officers of the organisation decide on none of them.
const (
	InsideUnmask    = "inspector.unmask"    // a name
	InsideUnlock    = "inspector.unlock"    // originals
	InsideQuestions = "inspector.questions" // what it asked
)

func inside(action string) bool {
	return action == InsideUnmask || action == InsideUnlock || action == InsideQuestions
}

// VoterFor is the officer of a key id who decides on an act.
func (r *Roster) VoterFor(id, action string) (approval.Officer, error) {
	a := r.Find(id)
	if a == nil {
		return approval.Officer{}, errors.New("no officer of the roster has this key")
	}
	if a.Duty {
		return approval.Officer{}, errors.New("a duty host opens what a warrant lets it, and decides on nothing")
	}
	if a.Inspector {
		if !inside(action) {
			return approval.Officer{}, errors.New("an inspector's office opens what is sealed to it, and decides on nothing else")
		}
		return approval.Officer{Key: a.ID(), Person: fold(a.Name), Office: "inspector-" + string(a.Office), House: "inspector", Public: a.Sign}, nil
	}
	if inside(action) {
		return approval.Officer{}, errors.New("what an inspector's office asks for is decided with the keys of that office")
	}
	return approval.Officer{Key: a.ID(), Person: fold(a.Name), Office: string(a.Office), Public: a.Sign}, nil
}

// Escrow is to whom keys are sealed.
func (r *Roster) Escrow() *keyring.Escrow {
	e := &keyring.Escrow{Epoch: r.Epoch}
	for _, a := range r.Officers {
		p := &e.Main
		switch {
		case a.Inspector:
			p = &e.Inspector
		case a.Duty:
			p = &e.Duty
		case a.Spare:
			p = &e.Spare
		}
		if a.Office == Investigation {
			p.Investigation = a.Seal
		} else {
			p.Oversight = a.Seal
		}
	}
	return e
}
