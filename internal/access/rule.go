package access

import (
	"net/netip"
	"regexp/syntax"
	"slices"
	"strings"
)

// rule judges a detection rule by what it writes down. A rule finds events of people
// it does not name: that is detection and selects nobody. It selects a person where
// a literal does, and it is a reverse search where it asks for a place of private
// life, or for contact alone: where nothing but a destination, a document or a
// message decides, every finding says who had that contact. For a rule that was
// published for everybody the second does not hold: it was written about malice
// before anybody here was looked for. A correlation is judged by the rules it names.
func (j *judge) rule(q Rule) {
	if q.Rule == nil || q.Rule.Correlation != nil {
		return
	}
	contact, behaviour := "", false
	for _, t := range q.Rule.Tests() {
		field := ""
		if t.Field != "" {
			field = "native." + t.Field
		}
		r := roleOf(field)
		if t.Field != "" && r == unknown {
			if o := roleOf(t.Field); o != unknown {
				r, field = o, t.Field
			}
		}
		if t.Field == "" {
			r = prose // keywords of a rule are words of attacks
		}
		j.nameOf(field)
		if slices.Contains(t.Modifiers, "exists") || slices.Contains(t.Modifiers, "fieldref") {
			continue
		}
		for _, v := range t.Values {
			for _, s := range written(v, t.Modifiers) {
				if strings.Trim(s, string(gap)) == "" {
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
				case r&content != 0 && r&(person|device) == 0 && !plainValue(fold(s)) || r&content != 0 && r&device != 0:
					if f := shownRule(t.Field); contact == "" || f < contact {
						contact = f
					}
				case r&prose != 0 || r == unknown || r == 0 && !selector(t.Field):
					behaviour = true
				}
			}
		}
	}
	if contact != "" && !behaviour && !q.Published && !q.Rule.Filter {
		j.reverse(contact, "the rule finds people by contact or contents alone")
	}
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
