package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/counterseal/counterseal/internal/strict"
)

// Offices is the record of who is in which office, form offices/v1.
type Offices struct {
	// Small is a team of about five people: an office that decides is outside of the
	// organisation (data protection officer, law firm, peer organisation).
	Small   bool
	Offices []Office
}

// Office is one office and its holder.
type Office struct {
	ID        string
	Authority string // who appointed it
	Under     string // the office above it; empty at the top of a chain
	Outside   bool   // of the organisation
	Inspector bool   // an inspector's office: it asks, approves and opens inside itself
	Holder    string // person id, spelt as in the file: Held compares; empty while the office is vacant
	Standing  string // confirmed or acting
	Since     time.Time
	Roles     []string
	Trained   time.Time // until when the training counts; zero without
}

const (
	officesForm  = "offices/v1"
	maxOffices   = 1000
	maxOfficeDoc = 1 << 20
)

// deciding are the roles whose offices decide on requests about people.
var deciding = [2]string{"privacy_officer", "overseer"}

type officesDoc struct {
	Form    string      `yaml:"form"`
	Profile string      `yaml:"profile"`
	Offices []officeDoc `yaml:"offices"`
}

type officeDoc struct {
	ID        string   `yaml:"id"`
	Authority string   `yaml:"authority"`
	Under     string   `yaml:"under"`
	Outside   bool     `yaml:"outside"`
	Inspector bool     `yaml:"inspector"`
	Holder    string   `yaml:"holder"`
	Standing  string   `yaml:"standing"`
	Since     string   `yaml:"since"`
	Roles     []string `yaml:"roles"`
	Trained   string   `yaml:"training_until"`
}

// ParseOffices reads and checks a record. The roles are those of the policies. Errors
// name offices, never holders.
func ParseOffices(data []byte, roles []string) (*Offices, error) {
	switch {
	case len(data) > maxOfficeDoc:
		return nil, fmt.Errorf("offices: the file is larger than %d bytes", maxOfficeDoc)
	case bytes.ContainsAny(data, "&*"):
		return nil, errors.New("offices: anchors, aliases and the signs & and * are not used here")
	case tooDeep(data) > 0:
		return nil, fmt.Errorf("offices: line %d: brackets are nested deeper than %d", tooDeep(data), maxNesting)
	case deepIndent(data) > 0:
		return nil, fmt.Errorf("offices: line %d is nested too deep", deepIndent(data))
	}
	var doc officesDoc
	dec := strict.NewDecoder(data)
	if err := dec.Decode(&doc); err != nil {
		var y yaml.Error
		if errors.As(err, &y) && y.GetToken() != nil && y.GetToken().Position != nil {
			return nil, fmt.Errorf("offices: line %d is not of the form %s", y.GetToken().Position.Line, officesForm)
		}
		return nil, fmt.Errorf("offices: the file is not of the form %s", officesForm)
	}
	if err := dec.Decode(&officesDoc{}); !errors.Is(err, io.EOF) {
		return nil, errors.New("offices: a file holds one document")
	}
	o := &Offices{Small: doc.Profile == "small"}
	switch {
	case doc.Form != officesForm:
		return nil, fmt.Errorf("offices: the form is not %s", officesForm)
	case doc.Profile != "" && doc.Profile != "small":
		return nil, errors.New("offices: the profile is small, or not named")
	case len(doc.Offices) == 0 || len(doc.Offices) > maxOffices:
		return nil, fmt.Errorf("offices: a record holds 1 to %d offices", maxOffices)
	}
	for i, d := range doc.Offices {
		one, err := d.office(roles)
		if err != nil {
			return nil, fmt.Errorf("offices: office %d: %w", i+1, err)
		}
		if o.find(one.ID) != nil {
			return nil, fmt.Errorf("offices: office %d: the id %q is there twice", i+1, one.ID)
		}
		o.Offices = append(o.Offices, one)
	}
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("offices: %w", err)
	}
	return o, nil
}

// deepIndent answers the line that begins with more structure than the form has, or 0.
func deepIndent(data []byte) int {
	n := 0
	for line := range bytes.Lines(data) {
		n++
		if head := len(line) - len(bytes.TrimLeft(line, " -?")); head > 64 {
			return n
		}
	}
	return 0
}

func (d officeDoc) office(roles []string) (Office, error) {
	o := Office{ID: d.ID, Authority: d.Authority, Under: d.Under, Outside: d.Outside, Inspector: d.Inspector, Holder: d.Holder, Standing: d.Standing, Roles: d.Roles}
	if !plainName(d.ID) || !plainName(d.Authority) || d.Under != "" && !plainName(d.Under) {
		return o, errors.New("id, authority and under are small letters, digits and hyphens")
	}
	if err := checkHolder(strings.ToLower(o.Holder)); err != nil {
		return o, fmt.Errorf("%s: %w", d.ID, err)
	}
	if d.Holder == "" {
		if d.Standing != "" || d.Since != "" || d.Trained != "" {
			return o, fmt.Errorf("%s: a vacant office has no standing, since and training_until", d.ID)
		}
	} else if d.Standing != "confirmed" && d.Standing != "acting" {
		return o, fmt.Errorf("%s: standing is confirmed or acting", d.ID)
	}
	if len(d.Roles) == 0 {
		return o, fmt.Errorf("%s: an office has a role", d.ID)
	}
	for i, r := range d.Roles {
		if r == founder {
			return o, fmt.Errorf("%s: the founder holds no office: with a record of offices there is none", d.ID)
		}
		if !slices.Contains(roles, r) || slices.Contains(d.Roles[:i], r) {
			return o, fmt.Errorf("%s: role %d is not known, or there twice", d.ID, i+1)
		}
	}
	var err error
	if d.Holder != "" {
		if o.Since, err = time.Parse(time.DateOnly, d.Since); err != nil {
			return o, fmt.Errorf("%s: since is not a date as in 2026-11-25", d.ID)
		}
	}
	if d.Trained != "" {
		if o.Trained, err = time.Parse(time.DateOnly, d.Trained); err != nil {
			return o, fmt.Errorf("%s: training_until is not a date as in 2026-11-25", d.ID)
		}
	}
	return o, nil
}

// founder is the role of the owner of the machine while there is no record of offices.
const founder = "founder"

// SystemUser begins the id of a user of the operating system, who comes by the socket:
// os-1000. Whoever owns the machine is whoever it says.
const SystemUser = "os-"

// checkHolder takes the id of an account or of a system user. Letters that look alike are
// no way to be two people.
func checkHolder(id string) error {
	if len(id) > 128 || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789._@+-") != "" {
		return errors.New("the holder is the id of an account, or os- and the number of a system user")
	}
	if number, ok := strings.CutPrefix(id, SystemUser); ok {
		if n, err := strconv.ParseUint(number, 10, 32); err != nil || strconv.FormatUint(n, 10) != number {
			return errors.New("after os- comes the number of a system user, as in os-1000")
		}
	}
	return nil
}

func (o *Offices) find(id string) *Office {
	for i := range o.Offices {
		if o.Offices[i].ID == id {
			return &o.Offices[i]
		}
	}
	return nil
}

// above names the offices over one, nearest first. It ends in a circle as well.
func (o *Offices) above(id string) []string {
	var out []string
	for f := o.find(id); f != nil && f.Under != "" && !slices.Contains(out, f.Under); f = o.find(f.Under) {
		out = append(out, f.Under)
	}
	return out
}

func (o *Offices) check() error {
	outside := false
	for _, f := range o.Offices {
		if f.Under != "" && o.find(f.Under) == nil {
			return fmt.Errorf("%s is under an office that is not there", f.ID)
		}
		if slices.Contains(o.above(f.ID), f.ID) {
			return fmt.Errorf("%s: the chain of command is a circle", f.ID)
		}
		if f.Outside && decides(f) && f.Holder != "" {
			outside = true
		}
	}
	if o.Small && !outside {
		return errors.New("a small team has a deciding office outside of the organisation, which is held")
	}
	if err := o.checkInspectors(); err != nil {
		return err
	}
	for i, a := range o.Offices {
		for _, b := range o.Offices[i+1:] {
			if !opposed(a, b) {
				continue
			}
			switch {
			case a.Authority == b.Authority:
				return fmt.Errorf("%s and %s decide together and have the same appointing authority", a.ID, b.ID)
			case a.Holder != "" && canonical(a.Holder) == canonical(b.Holder):
				return fmt.Errorf("%s and %s decide together and are held by one person", a.ID, b.ID)
			case slices.Contains(o.above(a.ID), b.ID) || slices.Contains(o.above(b.ID), a.ID):
				return fmt.Errorf("%s and %s decide together and one is under the other", a.ID, b.ID)
			}
		}
	}
	return nil
}

// checkInspectors keeps an inspector's office apart: it is outside of the organisation, it
// investigates and does nothing else, and whoever appointed it appointed none of those whom
// it may look into.
func (o *Offices) checkInspectors() error {
	people := map[string]map[string]bool{} // by authority
	for _, f := range o.Offices {
		if !f.Inspector {
			continue
		}
		switch {
		case !f.Outside:
			return fmt.Errorf("%s: an inspector's office is outside of the organisation", f.ID)
		case !slices.Equal(f.Roles, []string{inspecting}):
			return fmt.Errorf("%s: an inspector's office has the role %s and no other", f.ID, inspecting)
		}
		if people[f.Authority] == nil {
			people[f.Authority] = map[string]bool{}
		}
		if f.Holder != "" {
			people[f.Authority][canonical(f.Holder)] = true
		}
		for _, g := range o.Offices {
			inside := g.Inspector && g.Authority == f.Authority
			switch {
			case g.ID == f.ID:
			case !g.Inspector && g.Authority == f.Authority && !slices.Equal(g.Roles, deciding[1:]):
				return fmt.Errorf("%s and %s have the same appointing authority, and one is an inspector's office", f.ID, g.ID)
			case !inside && f.Holder != "" && canonical(f.Holder) == canonical(g.Holder):
				return fmt.Errorf("%s and %s are held by one person, and one is an inspector's office", f.ID, g.ID)
			case !inside && (f.Under == g.ID || g.Under == f.ID):
				return fmt.Errorf("%s and %s: one is under the other, and one is an inspector's office", f.ID, g.ID)
			}
		}
	}
	for _, f := range o.Offices {
		if f.Inspector && len(people[f.Authority]) < 2 {
			return fmt.Errorf("%s: an inspector's office needs two people, each in an office of the same appointing authority", f.ID)
		}
	}
	return nil
}

// inspecting is the one role of an inspector's office.
const inspecting = "investigator"

// canonical is the one spelling of a person id: two spellings would be two people.
func canonical(id string) string { return strings.ToLower(strings.TrimSpace(id)) }

func decides(f Office) bool {
	return slices.Contains(f.Roles, deciding[0]) || slices.Contains(f.Roles, deciding[1])
}

// opposed: one of the two is the privacy officer and the other the overseer.
func opposed(a, b Office) bool {
	return slices.Contains(a.Roles, deciding[0]) && slices.Contains(b.Roles, deciding[1]) ||
		slices.Contains(a.Roles, deciding[1]) && slices.Contains(b.Roles, deciding[0])
}

// Held names the offices of a person, in the order of the record.
func (o *Offices) Held(person string) []string {
	person = canonical(person)
	var out []string
	for _, f := range o.Offices {
		if person != "" && canonical(f.Holder) == person {
			out = append(out, f.ID)
		}
	}
	return out
}

// Chain names the persons above and below the offices of a person, sorted, without the
// person. ok is false for somebody without an office: then the chain is unknown.
func (o *Offices) Chain(person string) (chain []string, ok bool) {
	person = canonical(person)
	chain = []string{}
	for _, mine := range o.Offices {
		if person == "" || canonical(mine.Holder) != person {
			continue
		}
		ok = true
		over := o.above(mine.ID)
		for _, other := range o.Offices {
			if other.Holder == "" || canonical(other.Holder) == person || slices.Contains(chain, other.Holder) {
				continue
			}
			if slices.Contains(over, other.ID) || slices.Contains(o.above(other.ID), mine.ID) {
				chain = append(chain, other.Holder)
			}
		}
	}
	if !ok {
		return nil, false
	}
	slices.Sort(chain)
	return chain, true
}

// Person gives the holder of an office as policies see them. Somebody with two offices
// acts in one of them at a time, but keeps the roles of all, so that what forbids for
// one of them forbids for the person.
func (o *Offices) Person(office string) (Person, bool) {
	f := o.find(office)
	if f == nil || f.Holder == "" {
		return Person{}, false
	}
	p := Person{ID: f.Holder, Office: f.ID, Authority: f.Authority, Standing: f.Standing, TrainedUntil: f.Trained, Inspector: f.Inspector}
	for _, other := range o.Offices {
		if canonical(other.Holder) == canonical(f.Holder) {
			p.Roles = append(p.Roles, other.Roles...)
		}
	}
	slices.Sort(p.Roles)
	p.Roles = slices.Compact(p.Roles)
	return p, true
}
