package access

import (
	"net/netip"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/counterseal/counterseal/sigma"
)

// rule judges a detection rule by what it writes down. A rule finds events of people
// it does not name: that is detection and selects nobody. It selects a person where
// a literal does, and it is a reverse search where it asks for a place of private
// life, or for contact alone: where nothing but a destination, a document or a
// message decides, every finding says who had that contact. For a rule that was
// published for everybody the second does not hold: it was written about malice
// before anybody here was looked for. A field that has any value at all is shown in the
// finding too. A correlation is judged by what it groups by, and by the rules it names.
func (j *judge) rule(q Rule) {
	if q.Rule == nil {
		return
	}
	if c := q.Rule.Correlation; c != nil {
		j.groups(c, q)
		return
	}
	contact, found, behaviour := "", false, false
	touch := func(r role, name string) bool {
		if r&content == 0 && !(q.Alone && (r == unknown || name == "")) {
			return false
		}
		if f := shownRule(name); !found || f < contact {
			contact, found = f, true
		}
		return true
	}
	for _, t := range q.Rule.Tests() {
		r, field := ruleRole(t.Field)
		j.nameOf(field)
		if slices.Contains(t.Modifiers, "exists") || slices.Contains(t.Modifiers, "fieldref") {
			if q.Alone || slices.Contains(t.Modifiers, "exists") {
				touch(r, t.Field)
			}
			continue
		}
		for _, v := range t.Values {
			for _, s := range written(v, t.Modifiers) {
				if strings.Trim(s, string(gap)) == "" {
					touch(r, t.Field)
					continue
				}
				if slices.Contains(t.Modifiers, "cidr") {
					if p, err := netip.ParsePrefix(s); err == nil {
						j.network(field, p, true, false)
					}
				} else {
					j.ruleValue(field, s, q.Published)
				}
				switch {
				case (r&device != 0 || r&person == 0 && !plainValue(fold(s))) && touch(r, t.Field):
				case r&prose != 0 || r == unknown || r == 0 && !selector(t.Field):
					behaviour = true
				}
			}
		}
	}
	switch {
	case !found || q.Published || q.Rule.Filter:
	case !behaviour:
		j.reverse(contact, "the rule finds people by contact or contents alone")
	case q.Alone:
		j.reverse(contact, "the rule finds people by contact or contents, and nobody else stands for it")
	}
}

// groups judges what a correlation groups by: each of its findings shows the group.
func (j *judge) groups(c *sigma.Correlation, q Rule) {
	for _, name := range c.GroupBy {
		fields := []string{name}
		for _, a := range c.Aliases {
			if a.Name == name {
				fields = append(fields, a.Field)
			}
		}
		for _, f := range fields {
			r, field := ruleRole(f)
			j.nameOf(field)
			if !q.Published && (r&content != 0 || q.Alone && r == unknown) {
				j.reverse(field, "the rule groups people by contact or contents")
			}
		}
	}
}

// ruleRole gives what a field of a rule may hold, and its name in the index. The words
// without a field are words of attacks.
func ruleRole(name string) (r role, field string) {
	if name == "" {
		return prose, ""
	}
	field = "native." + name
	if r = roleOf(field); r == unknown {
		if o := roleOf(name); o != unknown {
			return o, name
		}
	}
	return r, field
}

func shownRule(field string) string {
	if field == "" {
		return ""
	}
	return "native." + field
}

// selector tells fields that choose a kind of event and say nothing of behaviour.
func selector(field string) bool {
	switch strings.ToLower(field) {
	case "eventid", "channel", "provider_name", "category", "product", "service", "type":
		return true
	}
	return false
}

func (j *judge) ruleValue(field, s string, published bool) {
	about := j.value(field, s)
	if !about {
		return
	}
	// In paths and command lines of a published rule a common word is no place.
	published = published && roleOf(field)&prose != 0
	f := fold(s)
	if j.o.Private != nil && known(j.o.Private, f) || !published && j.private(f) {
		j.reverse(field, "the rule names a place of private life or of opinion")
	}
}

// written gives a value of a rule with gaps for its wildcards; for a regular
// expression, its literal texts.
func written(v string, mods []string) []string {
	if slices.Contains(mods, "re") {
		re, err := syntax.Parse(v, syntax.Perl)
		if err != nil {
			return []string{string(gap) + v}
		}
		var b strings.Builder
		literals(&b, re, 0)
		return strings.Split(string(gap)+strings.ReplaceAll(b.String(), "\n", string(gap)+"\n"+string(gap))+string(gap), "\n")
	}
	var b strings.Builder
	before := slices.Contains(mods, "contains") || slices.Contains(mods, "endswith")
	after := slices.Contains(mods, "contains") || slices.Contains(mods, "startswith")
	if before {
		b.WriteByte(gap)
	}
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case c == '\\' && i+1 < len(v) && (v[i+1] == '\\' || v[i+1] == '*' || v[i+1] == '?'):
			i++
			b.WriteByte(v[i])
		case c == '*' || c == '?':
			b.WriteByte(gap)
		case c == gap:
			b.WriteByte(' ')
		default:
			b.WriteByte(c)
		}
	}
	if after {
		b.WriteByte(gap)
	}
	return []string{b.String()}
}

// literals writes the literal texts of an expression, gaps between them.
func literals(b *strings.Builder, re *syntax.Regexp, depth int) {
	if depth > 200 || b.Len() > 64<<10 {
		b.WriteByte(gap)
		return
	}
	switch re.Op {
	case syntax.OpLiteral:
		b.WriteString(strings.ReplaceAll(string(re.Rune), "\n", " "))
	case syntax.OpCapture, syntax.OpConcat:
		for _, s := range re.Sub {
			literals(b, s, depth+1)
		}
	case syntax.OpAlternate:
		// Each alternative may stand here: a name after \Users\ is one of them.
		for i, s := range re.Sub {
			if i > 0 {
				b.WriteByte(gap)
			}
			literals(b, s, depth+1)
		}
	case syntax.OpPlus, syntax.OpStar, syntax.OpQuest, syntax.OpRepeat:
		b.WriteByte(gap)
		if s := re.Sub[0]; s.Op != syntax.OpCharClass && s.Op != syntax.OpAnyChar && s.Op != syntax.OpAnyCharNotNL {
			literals(b, s, depth+1)
			b.WriteByte(gap)
		}
	case syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteByte(gap)
	}
}
