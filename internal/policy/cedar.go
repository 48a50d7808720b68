package policy

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
)

// Validation is the experimental part of the library: this file alone touches it.

// vocabulary is what a schema lets policies speak of.
type vocabulary struct {
	resolved *resolved.Schema
	validate *validate.Validator
	actions  []string
	roles    []string
	kind     map[string]types.EntityType // of the resource of each action
	acts     types.EntityMap             // the action groups, which "in" follows
	// attributes by variable: principal, resource, context.
	attributes map[string]map[string]bool
}

const person, role = types.EntityType("Person"), types.EntityType("Role")

// parseSchema reads a schema and holds it against the requests that this package makes:
// one that wants other types would make every decision a deny, or worse, none.
func parseSchema(name string, data []byte) (*vocabulary, error) {
	var doc schema.Schema
	doc.SetFilename(name)
	if err := doc.UnmarshalCedar(data); err != nil {
		return nil, located(name, data, err)
	}
	r, err := doc.Resolve()
	if err != nil {
		return nil, located(name, data, err)
	}
	v := &vocabulary{resolved: r, validate: validate.New(r), kind: map[string]types.EntityType{}, acts: types.EntityMap{}, attributes: map[string]map[string]bool{}}
	if len(r.Namespaces) > 0 {
		return nil, fmt.Errorf("%s:1: namespaces are not used here", name)
	}
	for _, e := range r.Enums[role].Values {
		v.roles = append(v.roles, string(e.ID))
	}
	if slices.Sort(v.roles); len(v.roles) == 0 {
		return nil, fmt.Errorf("%s:1: Role is not an enum of roles", name)
	}
	for uid, a := range r.Actions {
		v.acts[uid] = a.Entity
		if a.AppliesTo == nil { // a group
			continue
		}
		id := string(uid.ID)
		at := fmt.Sprintf("%s:%d: action %q", name, lineOf(data, strconv.Quote(id)), id)
		if uid.Type != "Action" || !slices.Equal(a.AppliesTo.Principals, []types.EntityType{person}) || len(a.AppliesTo.Resources) != 1 {
			return nil, fmt.Errorf("%s: an action applies to Person and to one type of resource", at)
		}
		v.kind[id] = a.AppliesTo.Resources[0]
		v.names("context", a.AppliesTo.Context)
		v.names("principal", r.Entities[person].Shape)
		v.names("resource", r.Entities[v.kind[id]].Shape)
	}
	v.actions = slices.Sorted(maps.Keys(v.kind))
	for _, id := range v.actions {
		for _, sample := range samples(id, v.roles) {
			at := fmt.Sprintf("%s:%d: action %q", name, lineOf(data, strconv.Quote(id)), id)
			q, err := v.request(sample)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", at, err)
			}
			if err := errors.Join(v.validate.Entity(q.principal), v.validate.Entity(q.resource), v.validate.Request(q.request)); err != nil {
				return nil, fmt.Errorf("%s: the schema does not fit what is asked of it: %w", at, err)
			}
		}
	}
	return v, nil
}

func (v *vocabulary) names(of string, shape resolved.RecordType) {
	if v.attributes[of] == nil {
		v.attributes[of] = map[string]bool{}
	}
	for name := range shape {
		v.attributes[of][string(name)] = true
	}
}

// samples are a request with nothing in it, and one with everything.
func samples(action string, roles []string) []Request {
	now := time.Unix(1, 0)
	return []Request{
		{Principal: Person{ID: "p"}, Action: action, Context: Context{Now: now}},
		{
			Principal: Person{ID: "p", Roles: roles, Office: "o", Authority: "a", Standing: "s", TrainedUntil: now},
			Action:    action,
			Resource:  Resource{ID: "r", Selects: "x", Owner: "o", Chain: []string{"q"}, Authority: "a", Hold: "held"},
			Context:   Context{Now: now, Offices: "o", Machine: true, Scopes: []string{action}, Purpose: "p", Authorisation: "a", Grant: "g", Crowd: "c", Counsel: true, Outside: true, Finding: true},
		},
	}
}

func (v *vocabulary) policy(r rule) error {
	if err := v.validate.Policy(string(r.id), (*ast.Policy)(r.policy.AST())); err != nil {
		return err
	}
	// The library takes a role that the enum does not have, as in Role::"king", and holds
	// "principal has ofice" for false: forbid when it is so would then forbid nothing.
	var wrong []error
	p := (*ast.Policy)(r.policy.AST())
	for _, scope := range []any{p.Principal, p.Resource} {
		switch t := scope.(type) {
		case ast.ScopeTypeEq:
			wrong = append(wrong, v.entity(t.Entity))
		case ast.ScopeTypeIn:
			wrong = append(wrong, v.entity(t.Entity))
		case ast.ScopeTypeIsIn:
			wrong = append(wrong, v.entity(t.Entity))
		}
	}
	for _, c := range p.Conditions {
		ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
			switch t := n.(type) {
			case ast.NodeTypeHas:
				wrong = append(wrong, v.attribute(t.StrOpNode))
			case ast.NodeTypeAccess:
				wrong = append(wrong, v.attribute(t.StrOpNode))
			case ast.NodeValue:
				if uid, ok := t.Value.(types.EntityUID); ok {
					wrong = append(wrong, v.entity(uid))
				}
			}
			return true
		})
	}
	return errors.Join(wrong...)
}

// concerns reports whether the head of a policy lets it decide on an act.
func (v *vocabulary) concerns(r rule, act string) bool {
	in := func(group types.EntityUID) bool {
		return v.within(types.NewEntityUID("Action", types.String(act)), string(group.ID))
	}
	switch head := (*ast.Policy)(r.policy.AST()).Action.(type) {
	case ast.ScopeTypeEq:
		return string(head.Entity.ID) == act
	case ast.ScopeTypeIn:
		return in(head.Entity)
	case ast.ScopeTypeInSet:
		return slices.ContainsFunc(head.Entities, in)
	}
	return true
}

func (v *vocabulary) entity(uid types.EntityUID) error {
	if _, ok := slices.BinarySearch(v.roles, string(uid.ID)); uid.Type == role && !ok {
		return fmt.Errorf("unrecognized role %s", strconv.Quote(string(uid.ID)))
	}
	return nil
}

func (v *vocabulary) attribute(n ast.StrOpNode) error {
	of := "context"
	if variable, ok := n.Arg.(ast.NodeTypeVariable); ok {
		of = string(variable.Name)
	}
	if !v.attributes[of][string(n.Value)] {
		return fmt.Errorf("no %s has an attribute %s", of, strconv.Quote(string(n.Value)))
	}
	return nil
}

// query is a request in the library's form. It answers for its entities itself.
type query struct {
	request             cedar.Request
	principal, resource types.Entity
	acts                types.EntityMap
}

func (q *query) Get(uid types.EntityUID) (types.Entity, bool) {
	switch uid {
	case q.principal.UID:
		return q.principal, true
	case q.resource.UID:
		return q.resource, true
	}
	e, ok := q.acts[uid]
	return e, ok
}

func (v *vocabulary) request(r Request) (*query, error) {
	kind, ok := v.kind[r.Action]
	switch {
	case !ok:
		return nil, errors.New("the act is not known")
	case canonical(r.Principal.ID) == "":
		return nil, errors.New("nobody asks: the person is missing")
	case r.Context.Now.IsZero():
		return nil, errors.New("the time of the request is missing")
	}
	who := types.RecordMap{}
	text(who, "office", r.Principal.Office)
	text(who, "authority", r.Principal.Authority)
	text(who, "standing", r.Principal.Standing)
	if !r.Principal.TrainedUntil.IsZero() {
		who["trained_until"] = types.NewDatetime(r.Principal.TrainedUntil)
	}
	if r.Principal.Inspector {
		who["inspector"] = types.True
	}
	roles := make([]types.EntityUID, len(r.Principal.Roles))
	for i, name := range r.Principal.Roles {
		if _, ok := slices.BinarySearch(v.roles, name); !ok {
			return nil, errors.New("the person has a role that is not known")
		}
		roles[i] = types.NewEntityUID(role, types.String(name))
	}
	what := types.RecordMap{}
	switch kind {
	case "Events":
		text(what, "selects", r.Resource.Selects)
	case "Request":
		text(what, "authority", r.Resource.Authority)
		if r.Resource.Inspector {
			what["inspector"] = types.True
		}
		if r.Resource.Owner != "" {
			what["owner"] = types.NewEntityUID(person, types.String(canonical(r.Resource.Owner)))
		}
		if r.Resource.Chain != nil {
			chain := make([]types.Value, len(r.Resource.Chain))
			for i, id := range r.Resource.Chain {
				chain[i] = types.NewEntityUID(person, types.String(canonical(id)))
			}
			what["chain"] = types.NewSet(chain...)
		}
	case "House":
		switch r.Resource.Hold {
		case "":
		case "held", "free":
			what["held"] = types.Boolean(r.Resource.Hold == "held")
		default:
			return nil, errors.New("a hold is held, free or unknown")
		}
	default:
		return nil, errors.New("the act is about a type of resource that is not known")
	}
	now := types.RecordMap{"now": types.NewDatetime(r.Context.Now), "machine": types.Boolean(r.Context.Machine || len(r.Context.Scopes) > 0)}
	text(now, "offices", r.Context.Offices)
	if len(r.Context.Scopes) > 0 {
		text(now, "scope", v.scope(r.Context.Scopes, r.Action))
	}
	text(now, "crowd", r.Context.Crowd)
	for key, yes := range map[types.String]bool{"counsel": r.Context.Counsel, "outside": r.Context.Outside, "finding": r.Context.Finding} {
		if yes {
			now[key] = types.True
		}
	}
	text(now, "purpose", r.Context.Purpose)
	text(now, "authorisation", r.Context.Authorisation)
	text(now, "grant", r.Context.Grant)
	q := &query{
		principal: types.Entity{UID: types.NewEntityUID(person, types.String(canonical(r.Principal.ID))), Parents: types.NewEntityUIDSet(roles...), Attributes: types.NewRecord(who)},
		resource:  types.Entity{UID: types.NewEntityUID(kind, types.String(r.Resource.ID)), Attributes: types.NewRecord(what)},
		acts:      v.acts,
	}
	q.request = cedar.Request{Principal: q.principal.UID, Action: types.NewEntityUID("Action", types.String(r.Action)), Resource: q.resource.UID, Context: types.NewRecord(now)}
	return q, nil
}

// scope says whether one of the scopes names the act or a group of it.
func (v *vocabulary) scope(scopes []string, action string) string {
	for _, s := range scopes {
		if v.within(types.NewEntityUID("Action", types.String(action)), s) {
			return "covers"
		}
	}
	return "outside"
}

// within reports whether an act has the name, or is in a group that has it. The schema
// has no circles: Resolve refuses them.
func (v *vocabulary) within(act types.EntityUID, name string) bool {
	if string(act.ID) == name {
		return true
	}
	for parent := range v.acts[act].Parents.All() {
		if v.within(parent, name) {
			return true
		}
	}
	return false
}

func text(m types.RecordMap, key types.String, value string) {
	if value != "" {
		m[key] = types.String(value)
	}
}

// position is how the library says where in a file it is.
var position = regexp.MustCompile(`(?:parse error at )?[^\s:]+:(\d+):(\d+):? `)

// located puts file and line before an error of the library.
func located(name string, data []byte, err error) error {
	said := strings.ReplaceAll(err.Error(), "\n", "; ")
	line := 1
	if m := position.FindStringSubmatchIndex(said); m != nil {
		if n, err := strconv.Atoi(said[m[2]:m[3]]); err == nil && n > 0 && n <= 1+strings.Count(string(data), "\n") {
			line, said = n, said[:m[0]]+said[m[1]:]
		}
	}
	return fmt.Errorf("%s:%d: %s", name, line, said)
}

func lineOf(data []byte, word string) int {
	i := strings.Index(string(data), word)
	return 1 + strings.Count(string(data[:max(i, 0)]), "\n")
}
