package sigma

import (
	"strconv"
	"strings"
)

const (
	maxCondition      = 64 << 10 // bytes of one condition
	maxConditionDepth = 100      // parentheses and nots inside each other
)

type condOp uint8

const (
	condName condOp = iota // a search identifier
	condOf                 // n of pattern; n == 0 means all
	condNot
	condAnd
	condOr
)

// cond is a parsed condition.
type cond struct {
	op   condOp
	name string // identifier, pattern or "them"
	n    int
	kids []*cond
}

// String prints the condition so that it parses back to the same tree.
func (c *cond) String() string {
	switch c.op {
	case condName:
		return c.name
	case condOf:
		if c.n == 0 {
			return "all of " + c.name
		}
		return strconv.Itoa(c.n) + " of " + c.name
	case condNot:
		return "not " + c.kids[0].operand()
	}
	word := " and "
	if c.op == condOr {
		word = " or "
	}
	parts := make([]string, len(c.kids))
	for i, k := range c.kids {
		parts[i] = k.operand()
	}
	return strings.Join(parts, word)
}

func (c *cond) operand() string {
	if c.op == condAnd || c.op == condOr {
		return "(" + c.String() + ")"
	}
	return c.String()
}

// has reports whether the condition holds an operator.
func (c *cond) has(op condOp) bool {
	if c.op == op {
		return true
	}
	for _, k := range c.kids {
		if k.has(op) {
			return true
		}
	}
	return false
}

type condParser struct {
	words []string
	depth int
	line  int
}

// parseCondition reads one condition. Operators may stand in any case.
func parseCondition(text string, line int) (*cond, *fault) {
	if len(text) > maxCondition {
		return nil, faultf(line, "the condition is longer than %d bytes", maxCondition)
	}
	p := &condParser{line: line}
	start := -1
	flush := func(end int) {
		if start >= 0 {
			p.words = append(p.words, text[start:end])
			start = -1
		}
	}
	for i, r := range text {
		switch r {
		case '|':
			return nil, faultf(line, "the condition holds a '|': aggregations of Sigma 1.0 are not part of the language any more, write a correlation rule")
		case '(', ')':
			flush(i)
			p.words = append(p.words, string(r))
		case ' ', '\t', '\n', '\r':
			flush(i)
		default:
			if start < 0 {
				start = i
			}
		}
	}
	flush(len(text))
	if len(p.words) == 0 {
		return nil, faultf(line, "the condition is empty")
	}
	c, f := p.or()
	if f != nil {
		return nil, f
	}
	if len(p.words) > 0 {
		return nil, faultf(line, "the condition has %q where an operator or its end was expected", p.words[0])
	}
	return c, nil
}

func (p *condParser) is(word string) bool {
	return len(p.words) > 0 && strings.EqualFold(p.words[0], word)
}

func (p *condParser) or() (*cond, *fault)  { return p.chain(condOr, "or", p.and) }
func (p *condParser) and() (*cond, *fault) { return p.chain(condAnd, "and", p.not) }

func (p *condParser) chain(op condOp, word string, next func() (*cond, *fault)) (*cond, *fault) {
	first, f := next()
	if f != nil {
		return nil, f
	}
	kids := []*cond{first}
	for p.is(word) {
		p.words = p.words[1:]
		k, f := next()
		if f != nil {
			return nil, f
		}
		kids = append(kids, k)
	}
	if len(kids) == 1 {
		return first, nil
	}
	return &cond{op: op, kids: kids}, nil
}

func (p *condParser) deeper() *fault {
	p.depth++
	if p.depth > maxConditionDepth {
		return faultf(p.line, "the condition is nested more than %d levels deep", maxConditionDepth)
	}
	return nil
}

func (p *condParser) not() (*cond, *fault) {
	if !p.is("not") {
		return p.operand()
	}
	if f := p.deeper(); f != nil {
		return nil, f
	}
	p.words = p.words[1:]
	k, f := p.not()
	p.depth--
	if f != nil {
		return nil, f
	}
	return &cond{op: condNot, kids: []*cond{k}}, nil
}

func (p *condParser) operand() (*cond, *fault) {
	if len(p.words) == 0 {
		return nil, faultf(p.line, "the condition ends where a search identifier was expected")
	}
	word := p.words[0]
	if word == "(" {
		if f := p.deeper(); f != nil {
			return nil, f
		}
		p.words = p.words[1:]
		c, f := p.or()
		p.depth--
		if f != nil {
			return nil, f
		}
		if !p.is(")") {
			return nil, faultf(p.line, "the condition has a '(' without its ')'")
		}
		p.words = p.words[1:]
		return c, nil
	}
	if len(p.words) > 1 && strings.EqualFold(p.words[1], "of") {
		n, ok := quantity(word)
		if !ok {
			return nil, faultf(p.line, "the condition says %q of: write 1, any, all or another whole number", word)
		}
		if len(p.words) < 3 || !isName(p.words[2]) {
			return nil, faultf(p.line, "the condition needs a pattern or 'them' after %q", word+" of")
		}
		name := p.words[2]
		if strings.EqualFold(name, "them") {
			name = "them"
		}
		p.words = p.words[3:]
		return &cond{op: condOf, n: n, name: name}, nil
	}
	if !isName(word) {
		return nil, faultf(p.line, "the condition has %q where a search identifier was expected", word)
	}
	p.words = p.words[1:]
	return &cond{op: condName, name: word}, nil
}

func quantity(word string) (int, bool) {
	switch {
	case strings.EqualFold(word, "all"):
		return 0, true
	case strings.EqualFold(word, "any"):
		return 1, true
	}
	n, err := strconv.Atoi(word)
	return n, err == nil && n > 0
}

func isName(word string) bool {
	for _, op := range []string{"(", ")", "and", "or", "not", "of"} {
		if strings.EqualFold(word, op) {
			return false
		}
	}
	return true
}

// selects reports whether the pattern of an "x of" takes in a search identifier:
// one that starts with an underscore only when the pattern does too.
func selects(pattern, name string) bool {
	if strings.HasPrefix(name, "_") && !strings.HasPrefix(pattern, "_") {
		return false
	}
	if pattern == "them" {
		return true
	}
	// A pattern has stars and nothing else that is special.
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	if !strings.HasPrefix(name, parts[0]) {
		return false
	}
	rest := name[len(parts[0]):]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(rest, part)
		if i < 0 {
			return false
		}
		rest = rest[i+len(part):]
	}
	return strings.HasSuffix(rest, parts[len(parts)-1])
}
