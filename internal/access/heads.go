package access

import (
	"iter"
	"maps"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/query"
)

// Heads counts the people whom rows show, for a question that does not say how many it
// selects (CrowdMany). It counts rather too many than too few: somebody with two tokens,
// such as a name and a mail address that no directory joins, is two.
type Heads struct{ seen map[string]bool }

// Row takes a row in: who has a token in it, in whatever field. In a row without a token
// of a person the devices and addresses count, and in one without any token those whom
// its fields name in clear.
func (h *Heads) Row(fields iter.Seq2[string, string], o Options) {
	if h.seen == nil {
		h.seen = map[string]bool{}
	}
	var people, machines []string
	class := ""
	for name, value := range fields {
		if name == "class_uid" {
			class = value
		}
		for rest := []byte(value); ; {
			from, to := event.NextToken(rest)
			if from < 0 {
				break
			}
			token := string(rest[from:to])
			if o.Joined != nil {
				token = o.Joined(token)
			}
			switch event.TokenKind(token[0]) {
			case event.Device, event.Address:
				machines = append(machines, token)
			default:
				people = append(people, token)
			}
			rest = rest[to:]
		}
	}
	if len(people) == 0 {
		people = machines
	}
	if len(people) == 0 {
		for name, value := range fields {
			if !Somebody(class, name, value, o) {
				continue
			}
			key := fold(value)
			if id, ok := Canonical(name, value, o); ok {
				key = id.Key()
			}
			people = append(people, key)
		}
	}
	for _, key := range people {
		h.seen[key] = true
	}
}

// Full reports that more rows would not change the crowd.
func (h *Heads) Full() bool { return len(h.seen) > OutsideAbove }

// Join adds those of another count; nil adds nobody.
func (h *Heads) Join(o *Heads) {
	if o == nil {
		return
	}
	if h.seen == nil {
		h.seen = map[string]bool{}
	}
	maps.Copy(h.seen, o.seen)
}

// Crowd is how many people the rows showed.
func (h *Heads) Crowd() Crowd {
	v := Verdict{Persons: len(h.seen)}
	return v.Crowd()
}

// Rows gives the question for the rows that a question is answered from. ok is false for
// a form that has none: a rule, a list, an indicator.
func Rows(q Question) (rows *query.Query, ok bool) {
	switch q := q.(type) {
	case Search:
		rows = q.Query
	case SavedSearch:
		rows = q.Query
	case Statistics:
		rows = q.Query
	case Export:
		rows = q.Query
	case Values:
		rows = q.Where
	default:
		return nil, false
	}
	if rows == nil {
		return &query.Query{}, true
	}
	return &query.Query{Where: rows.Where}, true
}
