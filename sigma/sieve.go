package sigma

import (
	"bytes"
	"math"
	"regexp/syntax"
	"slices"
	"unicode/utf8"
)

// Bounds on the literals that are taken out of a regular expression.
const (
	maxRegexSet   = 64 // literals of which one must occur
	maxRegexSets  = 16
	maxRegexClass = 8 // characters of a class that is spelt out
)

// sieve holds what a value needs to be worth the trouble of a regular
// expression: a length, and one literal of each set, in order.
type sieve struct {
	least, most int        // bytes; most is -1 without a bound
	sets        [][]string // folded
	// line, where it is not 0, is all that the expression asks for: a line of so
	// many characters.
	line int
}

// newSieve reads an expression that has compiled.
func newSieve(expr string) *sieve {
	s := &sieve{most: -1}
	re, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return s
	}
	if re.Op == syntax.OpRepeat && re.Max < 0 && re.Sub[0].Op == syntax.OpAnyCharNotNL {
		s.line = re.Min
	}
	re = re.Simplify()
	exact, sets := literalsOf(re)
	if len(exact) > 0 {
		sets = [][]string{exact}
	}
	for _, set := range sets {
		if shortest(set) > 0 && len(s.sets) < maxRegexSets {
			s.sets = append(s.sets, set)
		}
	}
	var most int
	s.least, most = lengths(re)
	if re.Op == syntax.OpConcat && re.Sub[0].Op == syntax.OpBeginText && re.Sub[len(re.Sub)-1].Op == syntax.OpEndText {
		s.most = most
	}
	return s
}

// best returns literals of which each match holds one, or nil.
func (s *sieve) best() []string {
	var best []string
	for _, set := range s.sets {
		if n, have := shortest(set), shortest(best); n > have || n == have && len(set) < len(best) {
			best = set
		}
	}
	if shortest(best) < minLiteral {
		return nil
	}
	return best
}

// fits reports whether a value of n bytes can match.
func (s *sieve) fits(n int) bool { return n >= s.least && (s.most < 0 || n <= s.most) }

// passes reports whether a folded value holds what a match needs: of each set a
// literal that ends as early as it can, after the literal of the set before.
func (s *sieve) passes(folded []byte) bool {
	for _, set := range s.sets {
		end := -1
		for _, lit := range set {
			if i := bytes.Index(folded, []byte(lit)); i >= 0 && (end < 0 || i+len(lit) < end) {
				end = i + len(lit)
			}
		}
		if end < 0 {
			return false
		}
		folded = folded[end:]
	}
	return true
}

// longLine reports whether b has a line of n characters.
func longLine(b []byte, n int) bool {
	for run := 0; len(b) > 0; {
		size := 1
		if b[0] >= utf8.RuneSelf {
			_, size = utf8.DecodeRune(b)
		}
		if b[0] == '\n' {
			run = 0
		} else if run++; run >= n {
			return true
		}
		b = b[size:]
	}
	return false
}

func shortest(set []string) int {
	if len(set) == 0 {
		return 0
	}
	n := math.MaxInt
	for _, s := range set {
		n = min(n, len(s))
	}
	return n
}

// literalsOf returns all that the expression can match, folded, where that is a
// small set; else sets of literals of each of which every match holds one.
func literalsOf(re *syntax.Regexp) (exact []string, sets [][]string) {
	switch re.Op {
	case syntax.OpEmptyMatch, syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText,
		syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return []string{""}, nil
	case syntax.OpLiteral:
		var b []byte
		for _, r := range re.Rune {
			if !solid(r) {
				return nil, nil
			}
			b = utf8.AppendRune(b, foldRune(r))
		}
		return []string{string(b)}, nil
	case syntax.OpCharClass:
		total := 0
		for i := 0; i < len(re.Rune); i += 2 {
			if total += int(re.Rune[i+1]-re.Rune[i]) + 1; total > maxRegexClass {
				return nil, nil
			}
		}
		for i := 0; i < len(re.Rune); i += 2 {
			for r := re.Rune[i]; r <= re.Rune[i+1]; r++ {
				if !solid(r) {
					return nil, nil
				}
				exact = append(exact, string(foldRune(r)))
			}
		}
		slices.Sort(exact)
		return slices.Compact(exact), nil
	case syntax.OpCapture:
		return literalsOf(re.Sub[0])
	case syntax.OpPlus:
		exact, sets = literalsOf(re.Sub[0])
		if len(exact) > 0 {
			sets = [][]string{exact}
		}
		return nil, sets
	case syntax.OpQuest:
		exact, _ = literalsOf(re.Sub[0])
		if len(exact) == 0 || len(exact) >= maxRegexClass {
			return nil, nil
		}
		exact = append(slices.Clone(exact), "")
		slices.Sort(exact)
		return slices.Compact(exact), nil
	case syntax.OpAlternate:
		return alternate(re.Sub)
	case syntax.OpConcat:
		return concat(re.Sub)
	}
	return nil, nil
}

func alternate(subs []*syntax.Regexp) (exact []string, sets [][]string) {
	var within []string
	allExact, allWithin := true, true
	for _, sub := range subs {
		e, s := literalsOf(sub)
		if exact = append(exact, e...); len(e) == 0 || len(exact) > maxRegexSet {
			allExact = false
		}
		if len(e) > 0 {
			s = [][]string{e}
		}
		var best []string
		for _, set := range s {
			if shortest(set) > shortest(best) {
				best = set
			}
		}
		if within = append(within, best...); len(best) == 0 || len(within) > maxRegexSet {
			allWithin = false
		}
	}
	switch {
	case allExact:
		return exact, nil
	case allWithin:
		return nil, [][]string{within}
	}
	return nil, nil
}

func concat(subs []*syntax.Regexp) (exact []string, sets [][]string) {
	run, whole := []string{""}, true
	for _, sub := range subs {
		e, s := literalsOf(sub)
		if len(e) > 0 && len(e)*len(run) <= maxRegexSet/4 {
			run = product(run, e)
			continue
		}
		whole = false
		sets = append(append(sets, run), s...)
		if run = []string{""}; len(e) > 0 {
			run = e
		}
	}
	if whole {
		return run, nil
	}
	return nil, append(sets, run)
}

// solid reports that a rune stands for itself alone: not for a byte that is not
// UTF-8, and not for a token.
func solid(r rune) bool { return r != utf8.RuneError && r != opaqueRune && utf8.ValidRune(r) }

func product(heads, tails []string) []string {
	out := make([]string, 0, len(heads)*len(tails))
	for _, h := range heads {
		for _, t := range tails {
			out = append(out, h+t)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// lengths returns how many bytes a match takes at least, and at most or -1.
func lengths(re *syntax.Regexp) (least, most int) {
	switch re.Op {
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			most += 1
			if r >= utf8.RuneSelf || re.Flags&syntax.FoldCase != 0 {
				most += utf8.UTFMax - 1
			}
		}
		return len(re.Rune), most
	case syntax.OpCharClass:
		if n := len(re.Rune); n > 0 && re.Rune[n-1] < utf8.RuneSelf {
			return 1, 1
		}
		return 1, utf8.UTFMax
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return 1, utf8.UTFMax
	case syntax.OpCapture:
		return lengths(re.Sub[0])
	case syntax.OpStar:
		return 0, -1
	case syntax.OpPlus:
		least, _ = lengths(re.Sub[0])
		return least, -1
	case syntax.OpQuest:
		_, most = lengths(re.Sub[0])
		return 0, most
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			l, m := lengths(sub)
			least += l
			if most >= 0 {
				most += m
			}
			if m < 0 {
				most = -1
			}
		}
		return least, most
	case syntax.OpAlternate:
		least = math.MaxInt
		for _, sub := range re.Sub {
			l, m := lengths(sub)
			least = min(least, l)
			if m < 0 || most < 0 {
				most = -1
			} else {
				most = max(most, m)
			}
		}
		return least, most
	}
	return 0, 0 // what takes no character, or matches nothing
}
