// Package policy decides whether a person may do an act: Cedar policies in files that a
// privacy officer can read, and the record of offices that they speak of. It owns the
// vocabulary of acts, the text format of policy tests (docs/policy-matrix.md shows the
// outcome), and the form offices/v1.
//
// It promises: a set that does not pass strict validation against its schema is refused
// as a whole, with file and line; a forbid wins over every permit; whatever is unknown,
// missing or failed in evaluation is a deny, with a reason of its own; the same set and
// request give the same decision, and a set has one digest. It reads no clock: now is
// part of a request.
//
// Who somebody is, what a question selects, and whether an authorisation covers it are
// told by the caller; what happens with a decision is the caller's, too.
package policy

import (
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
)

//go:embed policies
var defaults embed.FS

// Default is the folder of the policies in the binary, with their tests.
func Default() fs.FS {
	sub, err := fs.Sub(defaults, "policies")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return sub
}

// The bounds of a set. The library parses and evaluates by recursion, and a stack that
// outgrows its limit cannot be caught: size and nesting are judged before it sees a file.
const (
	maxFile     = 64 << 10
	maxFiles    = 32
	maxPolicies = 512
	maxNesting  = 32
)

// Person is who asks. What is empty is missing, and a policy sees it as such.
type Person struct {
	ID           string
	Roles        []string
	Office       string
	Authority    string // who appointed the office
	Standing     string // confirmed or acting
	TrainedUntil time.Time
	Inspector    bool // the office is an inspector's
}

// Resource is what the act is about. The act says which of the fields its policies may
// read: the schema has them.
type Resource struct {
	ID string
	// Of events.
	Selects string // nobody, person, reverse, person+reverse or protected
	// Of a request that is decided on.
	Owner     string   // person who asked
	Chain     []string // persons above and below the owner; nil is unknown, empty is nobody
	Authority string   // who appointed the owner's office
	Inspector bool     // the owner's office is an inspector's
	// Of the house: held, free, or empty for unknown.
	Hold string
}

// Context is the situation of a request.
type Context struct {
	Now           time.Time
	Offices       string   // none or kept: whether a record of offices is in force
	Machine       bool     // it came with the token of a machine; so did one that has scopes
	Scopes        []string // of that token: acts, or groups of acts
	Purpose       string
	Authorisation string // covers, outside or expired
	Grant         string // of an incident or a broken glass: covers, outside or expired
	Crowd         string // how many people at once: none, few, counsel, outside or many
	Counsel       bool   // counsel has agreed
	Outside       bool   // an office outside the organisation has agreed
	Finding       bool   // it asks by findings alone, and their rules are older than the request
}

// Founder is the owner of the machine, who can open its socket, while there is no record
// of offices.
func Founder(id string) Person { return Person{ID: id, Roles: []string{founder}} }

// Request is one question to a set.
type Request struct {
	Principal Person
	Action    string
	Resource  Resource
	Context   Context
}

// Decision is the answer. Policies names those that decided, sorted; it is empty where
// no policy permits, and where the request could not be judged.
type Decision struct {
	Allow    bool
	Policies []string
	Reason   string // a sentence that a person may be shown
}

// Set is a validated set of policies. It does not change, and may be used by many.
type Set struct {
	policies []rule           // sorted by id
	about    map[string]rules // by act: those that may decide on it
	schema   *vocabulary
	digest   string
}

// rules are policies in the order of their ids, so that diagnostics have an order.
type rules []rule

type rule struct {
	id     types.PolicyID
	reason string
	policy *cedar.Policy
}

// All gives the policies to the library.
func (s rules) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for _, r := range s {
			if !yield(r.id, r.policy) {
				return
			}
		}
	}
}

// Digest names the set: SHA-256 over the schema and the policy files, in hexadecimal.
// It covers comments, too: a privacy officer signs what is read.
func (s *Set) Digest() string { return s.digest }

// Policies names the policies, sorted.
func (s *Set) Policies() []string {
	out := make([]string, len(s.policies))
	for i, r := range s.policies {
		out[i] = string(r.id)
	}
	return out
}

// Actions names the acts that the schema knows, sorted.
func (s *Set) Actions() []string { return slices.Clone(s.schema.actions) }

// Roles names the roles that the schema knows, sorted.
func (s *Set) Roles() []string { return slices.Clone(s.schema.roles) }

// Load reads the *.cedar files and the one *.cedarschema file of a folder. The error
// joins everything that is wrong, a line each, with file and line.
func Load(fsys fs.FS) (*Set, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, fmt.Errorf("reading the policies: %w", err)
	}
	var names []string
	schema := ""
	for _, e := range entries {
		switch ext := path.Ext(e.Name()); {
		case e.IsDir():
		case ext == ".cedar":
			names = append(names, e.Name())
		case ext == ".cedarschema" && schema != "":
			return nil, fmt.Errorf("%s: there is a schema already: %s", e.Name(), schema)
		case ext == ".cedarschema":
			schema = e.Name()
		}
	}
	if schema == "" || len(names) == 0 || len(names) > maxFiles {
		return nil, fmt.Errorf("a set of policies is one .cedarschema file and 1 to %d .cedar files", maxFiles)
	}
	slices.Sort(names)
	sum := sha256.New()
	io.WriteString(sum, "counterseal/policy/v1\n")
	read := func(name string) ([]byte, error) {
		data, err := readBounded(fsys, name)
		if err != nil {
			return nil, err
		}
		for _, part := range [][]byte{[]byte(name), data} {
			sum.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
			sum.Write(part)
		}
		if line := tooDeep(data); line > 0 {
			return nil, fmt.Errorf("%s:%d: brackets are nested deeper than %d", name, line, maxNesting)
		}
		return data, nil
	}
	data, err := read(schema)
	if err != nil {
		return nil, err
	}
	s := &Set{}
	if s.schema, err = parseSchema(schema, data); err != nil {
		return nil, err
	}
	var wrong []error
	seen := map[types.PolicyID]string{}
	for _, name := range names {
		data, err := read(name)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		list, err := cedar.NewPolicyListFromBytes(name, data)
		if err != nil {
			wrong = append(wrong, located(name, data, err))
			continue
		}
		for _, p := range list {
			at := fmt.Sprintf("%s:%d", name, p.Position().Line)
			r, err := named(p)
			if err != nil {
				wrong = append(wrong, fmt.Errorf("%s: %w", at, err))
				continue
			}
			if first, ok := seen[r.id]; ok {
				wrong = append(wrong, fmt.Errorf("%s: the id %q is used at %s already", at, r.id, first))
				continue
			}
			seen[r.id] = at
			if err := s.schema.policy(r); err != nil {
				wrong = append(wrong, fmt.Errorf("%s: policy %q: %s", at, r.id, strings.ReplaceAll(err.Error(), "\n", "; ")))
				continue
			}
			s.policies = append(s.policies, r)
		}
	}
	if len(seen) > maxPolicies {
		wrong = append(wrong, fmt.Errorf("%d policies are more than %d", len(seen), maxPolicies))
	}
	if len(seen) == 0 && len(wrong) == 0 {
		wrong = append(wrong, errors.New("the files hold no policy"))
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	slices.SortFunc(s.policies, func(a, b rule) int { return strings.Compare(string(a.id), string(b.id)) })
	s.about = map[string]rules{}
	for _, act := range s.schema.actions {
		for _, r := range s.policies {
			if s.schema.concerns(r, act) {
				s.about[act] = append(s.about[act], r)
			}
		}
	}
	s.digest = hex.EncodeToString(sum.Sum(nil))
	return s, nil
}

// named takes the id and the reason from the annotations. Policies without an id would
// be named by position, and a decision would name another one after each change.
func named(p *cedar.Policy) (rule, error) {
	r := rule{policy: p}
	for key, value := range p.Annotations() {
		switch key {
		case "id":
			r.id = types.PolicyID(value)
		case "reason":
			r.reason = string(value)
		default:
			return r, fmt.Errorf("the annotation @%s is not known", key)
		}
	}
	if !plainName(string(r.id)) {
		return r, errors.New(`a policy needs an id of small letters, digits and hyphens: @id("no-office")`)
	}
	if p.Effect() == cedar.Forbid && (r.reason == "" || len(r.reason) > 200) {
		return r, fmt.Errorf(`policy %q: a forbid needs a reason of at most 200 bytes to show: @reason("...")`, r.id)
	}
	return r, nil
}

func plainName(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" && s[0] != '-'
}

func readBounded(fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, maxFile)
	}
	return data, nil
}

// tooDeep answers the line where brackets outside of strings and comments are nested
// beyond the bound, or 0.
func tooDeep(data []byte) int {
	depth, line := 0, 1
	inText, inComment := false, false
	for i := 0; i < len(data); i++ {
		c := data[i]
		if c == '\n' {
			line++
			inComment = false
		}
		switch {
		case inComment:
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case inText:
		case c == '/' && i+1 < len(data) && data[i+1] == '/':
			inComment = true
		case c == '(' || c == '[' || c == '{':
			if depth++; depth > maxNesting {
				return line
			}
		case c == ')' || c == ']' || c == '}':
			depth = max(depth-1, 0)
		}
	}
	return 0
}

// Decide judges one request.
func (s *Set) Decide(r Request) Decision {
	q, err := s.schema.request(r)
	if err != nil {
		return Decision{Reason: err.Error()}
	}
	answer, diag := cedar.Authorize(s.about[r.Action], q, q.request)
	if len(diag.Errors) > 0 {
		// The library skips a policy that fails, so that a forbid would be lost.
		var d Decision
		for _, e := range diag.Errors {
			d.Policies = append(d.Policies, string(e.PolicyID))
		}
		d.Reason = "a policy could not be evaluated, which refuses everything"
		return d
	}
	d := Decision{Allow: answer == cedar.Allow}
	for _, because := range diag.Reasons {
		d.Policies = append(d.Policies, string(because.PolicyID))
	}
	switch {
	case d.Allow:
		d.Reason = "permitted"
	case len(d.Policies) == 0:
		d.Reason = "no policy permits it"
	default:
		i, _ := slices.BinarySearchFunc(s.policies, d.Policies[0], func(r rule, id string) int { return strings.Compare(string(r.id), id) })
		d.Reason = s.policies[i].reason
	}
	return d
}
