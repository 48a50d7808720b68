package policy

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// Case is one test beside the policies: a situation and what must come of it. A file
// holds cases of six lines each, with empty lines and comments (#) between them:
//
//	case: nobody decides on their own request
//	principal: id=alba roles=overseer office=oversight authority=council standing=confirmed
//	action: unlock.approve
//	resource: owner=alba chain=- authority=council
//	context: now=2026-11-25T12:00:00Z
//	expect: deny own-request same-authority
//
// The names after allow or deny are all the policies that decide; none means that no
// policy permits it.
type Case struct {
	Name     string
	File     string
	Line     int
	Request  Request
	Allow    bool
	Policies []string
}

const maxCases = 10_000

// ParseCases reads a file of cases.
func ParseCases(file string, data []byte) ([]Case, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", file, maxFile)
	}
	order := []string{"case", "principal", "action", "resource", "context", "expect"}
	var out []Case
	var c Case
	next := 0
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		at := fmt.Sprintf("%s:%d", file, i+1)
		if !ok || key != order[next] {
			return nil, fmt.Errorf("%s: expected a line that begins with %q", at, order[next]+":")
		}
		var err error
		switch key {
		case "case":
			if c = (Case{Name: value, File: file, Line: i + 1}); value == "" {
				err = errors.New("a case needs a name")
			}
		case "action":
			c.Request.Action = value
		case "expect":
			words := strings.Fields(value)
			if len(words) == 0 || words[0] != "allow" && words[0] != "deny" {
				err = errors.New("expected allow or deny")
				break
			}
			c.Allow, c.Policies = words[0] == "allow", words[1:]
			slices.Sort(c.Policies)
			if out = append(out, c); len(out) > maxCases {
				err = fmt.Errorf("more than %d cases", maxCases)
			}
		default:
			err = c.Request.fields(key, value)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
		next = (next + 1) % len(order)
	}
	if next != 0 {
		return nil, fmt.Errorf("%s:%d: the case ends without %q", file, c.Line, order[next]+":")
	}
	return out, nil
}

// fields reads one line of key=value words. A list has commas; a hyphen is an empty one.
func (r *Request) fields(line, words string) error {
	seen := map[string]bool{}
	for word := range strings.FieldsSeq(words) {
		key, value, ok := strings.Cut(word, "=")
		if !ok || value == "" {
			return fmt.Errorf("%q is not of the form key=value", word)
		}
		if seen[key] {
			return fmt.Errorf("%s is there twice", key)
		}
		seen[key] = true
		list := []string{}
		if value != "-" {
			list = strings.Split(value, ",")
		}
		p, o, c := &r.Principal, &r.Resource, &r.Context
		into, err := (*string)(nil), error(nil)
		switch line + " " + key {
		case "principal id":
			into = &p.ID
		case "principal roles":
			p.Roles = list
		case "principal office":
			into = &p.Office
		case "principal authority":
			into = &p.Authority
		case "principal standing":
			into = &p.Standing
		case "principal trained_until":
			p.TrainedUntil, err = instant(value)
		case "principal inspector":
			p.Inspector, err = flag(value)
		case "resource id":
			into = &o.ID
		case "resource selects":
			into = &o.Selects
		case "resource owner":
			into = &o.Owner
		case "resource chain":
			o.Chain = list
		case "resource authority":
			into = &o.Authority
		case "resource inspector":
			o.Inspector, err = flag(value)
		case "resource hold":
			into = &o.Hold
		case "context now":
			c.Now, err = instant(value)
		case "context machine":
			c.Machine, err = flag(value)
		case "context crowd":
			into = &c.Crowd
		case "context offices":
			into = &c.Offices
		case "context scopes":
			c.Scopes = list
		case "context counsel":
			c.Counsel, err = flag(value)
		case "context outside":
			c.Outside, err = flag(value)
		case "context finding":
			c.Finding, err = flag(value)
		case "context purpose":
			into = &c.Purpose
		case "context authorisation":
			into = &c.Authorisation
		case "context grant":
			into = &c.Grant
		default:
			return fmt.Errorf("a %s has no %s", line, key)
		}
		if err != nil {
			return fmt.Errorf("%s is not %w", key, err)
		}
		if into != nil {
			*into = value
		}
	}
	return nil
}

func flag(value string) (bool, error) {
	if value != "true" && value != "false" {
		return false, errors.New("true or false")
	}
	return value == "true", nil
}

func instant(value string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return t, errors.New("a time as in 2026-11-25T12:00:00Z")
	}
	return t, nil
}

// Check runs one case. The error says what came instead.
func (s *Set) Check(c Case) error {
	d := s.Decide(c.Request)
	if d.Allow == c.Allow && slices.Equal(d.Policies, c.Policies) {
		return nil
	}
	word := map[bool]string{true: "allow", false: "deny"}
	return fmt.Errorf("%s:%d: %s: expected %s, got %s (%s)", c.File, c.Line, c.Name,
		strings.Join(append([]string{word[c.Allow]}, c.Policies...), " "), strings.Join(append([]string{word[d.Allow]}, d.Policies...), " "), d.Reason)
}

// Cases reads the tests beside the policies: tests/*.txt.
func Cases(fsys fs.FS) ([]Case, error) {
	entries, err := fs.ReadDir(fsys, "tests")
	if err != nil {
		return nil, fmt.Errorf("reading the tests beside the policies: %w", err)
	}
	var out []Case
	for _, e := range entries {
		if e.IsDir() || path.Ext(e.Name()) != ".txt" {
			continue
		}
		name := path.Join("tests", e.Name())
		data, err := readBounded(fsys, name)
		if err != nil {
			return nil, err
		}
		cases, err := ParseCases(name, data)
		if err != nil {
			return nil, err
		}
		out = append(out, cases...)
	}
	if len(out) == 0 {
		return nil, errors.New("tests: there is no case: policies without a test are not reviewed")
	}
	return out, nil
}

// Untested names the policies that no case expects to decide.
func (s *Set) Untested(cases []Case) []string {
	var out []string
	for _, id := range s.Policies() {
		if !slices.ContainsFunc(cases, func(c Case) bool { return slices.Contains(c.Policies, id) }) {
			out = append(out, id)
		}
	}
	return out
}
