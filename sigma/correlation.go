package sigma

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// A Correlation is what a correlation document looks for: a relation between
// events that other rules of the set match. It is read-only.
type Correlation struct {
	// Type is event_count, value_count, temporal, temporal_ordered, value_sum,
	// value_avg, value_percentile or value_median.
	Type string
	// Rules are the ids and names of the rules that feed it, as written.
	Rules []string
	// GroupBy are fields or aliases; events are related when all of them are equal.
	// Empty means one group for all events.
	GroupBy  []string
	Timespan time.Duration
	Aliases  []CorrelationAlias
	// Condition is one comparison or two that make a range. It is empty where a
	// temporal type wants all its rules.
	Condition []Comparison
	// Fields are the fields or aliases that a value type reads.
	Fields     []string
	Percentile float64 // of value_percentile and value_median, above 0 up to 100
	// Generate keeps the rules that feed the correlation as findings of their own.
	Generate bool

	line, col int // of its rules
}

// A CorrelationAlias gives a field of the events of one rule another name.
type CorrelationAlias struct {
	Name  string
	Rule  string // id or name, as in Correlation.Rules
	Field string
}

// A Comparison holds for a value x when "x Op Value" does. Op is gt, gte, lt,
// lte, eq or neq.
type Comparison struct {
	Op    string
	Value float64
}

func (c Comparison) holds(v float64) bool {
	switch c.Op {
	case "gt":
		return v > c.Value
	case "gte":
		return v >= c.Value
	case "lt":
		return v < c.Value
	case "lte":
		return v <= c.Value
	case "eq":
		return v == c.Value
	}
	return v != c.Value
}

// Bounds of a correlation. One that passes a bound is refused.
const (
	maxSteps     = 100     // rules that feed a correlation
	maxOrdered   = 16      // of temporal_ordered
	maxGroupBy   = 16      // fields to group by or to read
	maxAliases   = 3200    // pairs of alias and rule
	maxCarry     = 256     // fields that a correlation carries for outer ones
	maxThreshold = 1000000 // of a count
	maxLevels    = 32      // of correlations that feed correlations
	maxTimespan  = 366 * 24 * time.Hour
)

var correlationTypes = []string{
	"event_count", "value_count", "temporal", "temporal_ordered", "value_sum", "value_avg", "value_percentile", "value_median",
}

// temporal reports whether the correlation relates rules, not single events.
func (c *Correlation) temporal() bool {
	return c.Type == "temporal" || c.Type == "temporal_ordered"
}

// counts reports whether what is compared is a whole number, at least 1.
func (c *Correlation) counts() bool {
	return c.temporal() || c.Type == "event_count" || c.Type == "value_count"
}

// atClose reports whether a window is judged as a whole when it closes. Else it
// slides with the events: with gt or gte a count that has become high enough
// cannot become too low again by further events of the window.
func (c *Correlation) atClose() bool {
	if !c.counts() && c.Type != "value_sum" {
		return true
	}
	return slices.ContainsFunc(c.Condition, func(x Comparison) bool { return x.Op != "gt" && x.Op != "gte" })
}

// holds compares the value of a window.
func (c *Correlation) holds(v float64) bool {
	if len(c.Condition) == 0 {
		return v >= float64(len(c.Rules))
	}
	for _, x := range c.Condition {
		if !x.holds(v) {
			return false
		}
	}
	return true
}

// readCorrelation reads the section of a document that makes it a correlation.
func (r *Rule) readCorrelation(p *pair) *fault {
	keys, f := pairs(p.value, "correlation")
	if f != nil {
		return f
	}
	c := &Correlation{line: p.line, col: p.col}
	r.Correlation = c
	var condition, timespan *pair
	for i := range keys {
		k := &keys[i]
		var f *fault
		switch k.key {
		case "type":
			c.Type, f = oneOf(k, correlationTypes...)
		case "rules":
			c.line, c.col = k.line, k.col
			c.Rules, f = nameList(k, maxSteps)
		case "group-by":
			c.GroupBy, f = nameList(k, maxGroupBy)
		case "timespan":
			timespan = k
			c.Timespan, f = readTimespan(k)
		case "condition":
			condition = k
		case "aliases":
			f = c.readAliases(k)
		case "generate":
			c.Generate, f = readBool(k)
		default:
			f = faultf(k.line, "correlation has the key %q, which Sigma does not define", k.key)
		}
		if f != nil {
			return f
		}
	}
	switch {
	case c.Type == "":
		return faultf(p.line, "the correlation has no type")
	case len(c.Rules) == 0:
		return faultf(p.line, "the correlation names no rules")
	case timespan == nil:
		return faultf(p.line, "the correlation has no timespan")
	case condition == nil && !c.temporal():
		return faultf(p.line, "a correlation of type %s needs a condition", c.Type)
	case c.Type == "temporal_ordered" && len(c.Rules) > maxOrdered:
		return faultf(c.line, "temporal_ordered names more than %d rules", maxOrdered)
	case c.temporal() && len(c.Rules) < 2:
		r.warn(ClassCorrelation, c.line, c.col, "a correlation of type %s with one rule says no more than the rule", c.Type)
	}
	for i := range c.GroupBy {
		c.GroupBy[i] = stripSpaces(c.GroupBy[i])
	}
	if condition != nil {
		if f := r.readComparison(condition); f != nil {
			return f
		}
	}
	return c.checkAliases(r)
}

// checkCorrelation checks the document around a correlation.
func (r *Rule) checkCorrelation(top []pair) *fault {
	for _, key := range []string{"detection", "filter"} {
		if p := find(top, key); p != nil {
			return faultf(p.line, "a document is either a correlation or has %s, not both", key)
		}
	}
	if p := find(top, "logsource"); p != nil {
		return faultf(p.line, "a correlation has no logsource: the rules that it names have")
	}
	if p := find(top, "generate"); p != nil {
		v, f := readBool(p)
		if f != nil {
			return f
		}
		inner, _ := pairs(find(top, "correlation").value, "correlation")
		if find(inner, "generate") != nil && v != r.Correlation.Generate {
			return faultf(p.line, "generate is given twice, with unlike values")
		}
		r.Correlation.Generate = v
	}
	return nil
}

func readBool(p *pair) (bool, *fault) {
	if p.value.Kind == yaml.ScalarNode && p.value.ShortTag() == "!!bool" {
		return strings.EqualFold(p.value.Value, "true"), nil
	}
	return false, faultf(p.line, "%s must be true or false", p.key)
}

// nameList reads a list of names without repetition; one name may stand alone.
func nameList(p *pair, most int) ([]string, *fault) {
	nodes := p.value.Content
	switch {
	case p.value.Kind == yaml.ScalarNode && p.value.ShortTag() == "!!null":
		return nil, nil
	case p.value.Kind == yaml.ScalarNode:
		nodes = []*yaml.Node{p.value}
	case p.value.Kind != yaml.SequenceNode:
		return nil, faultf(p.line, "%s must be a list of names", p.key)
	}
	if len(nodes) > most {
		return nil, faultf(p.line, "%s holds more than %d names", p.key, most)
	}
	var out []string
	for _, n := range nodes {
		name := strings.TrimSpace(n.Value)
		if n.Kind != yaml.ScalarNode || name == "" {
			return nil, faultf(n.Line, "%s must be a list of names", p.key)
		}
		if slices.Contains(out, name) {
			return nil, faultf(n.Line, "%s holds %q twice", p.key, name)
		}
		out = append(out, name)
	}
	return out, nil
}

func readTimespan(p *pair) (time.Duration, *fault) {
	text, f := plainText(p)
	if f != nil {
		return 0, f
	}
	form := faultf(p.line, "timespan must be a whole number and one of s, m, h, d and w, as in 90m")
	if text == "" {
		return 0, form
	}
	digits, letter := text[:len(text)-1], text[len(text)-1]
	unit, ok := map[byte]time.Duration{
		's': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour,
	}[letter]
	if !ok {
		if letter == 'M' || letter == 'y' {
			return 0, faultf(p.line, "the timespan %q has no fixed length: write it in days", text)
		}
		return 0, form
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || digits[0] == '+' {
		return 0, form
	}
	if n == 0 || time.Duration(n) > maxTimespan/unit {
		return 0, faultf(p.line, "timespan must be above 0 and at most 366 days")
	}
	return time.Duration(n) * unit, nil
}

func (c *Correlation) readAliases(p *pair) *fault {
	aliases, f := pairs(p.value, "aliases")
	if f != nil {
		return f
	}
	for _, a := range aliases {
		of, f := pairs(a.value, fmt.Sprintf("the alias %q", a.key))
		if f != nil {
			return f
		}
		for i := range of {
			field, f := plainText(&of[i])
			if f != nil {
				return f
			}
			if field == "" {
				return faultf(of[i].line, "the alias %q names no field for the rule %q", a.key, of[i].key)
			}
			if len(c.Aliases) == maxAliases {
				return faultf(p.line, "aliases name more than %d fields", maxAliases)
			}
			c.Aliases = append(c.Aliases, CorrelationAlias{stripSpaces(a.key), strings.TrimSpace(of[i].key), stripSpaces(field)})
		}
	}
	return nil
}

func (c *Correlation) checkAliases(r *Rule) *fault {
	reads := append(slices.Clone(c.GroupBy), c.Fields...)
	table := c.aliasTable()
	for i, a := range c.Aliases {
		if !slices.Contains(c.Rules, a.Rule) {
			return faultf(c.line, "the alias %q speaks of the rule %q, which the correlation does not name", a.Name, a.Rule)
		}
		if i > 0 && c.Aliases[i-1].Name == a.Name {
			continue
		}
		if !slices.Contains(reads, a.Name) {
			r.warn(ClassCorrelation, c.line, c.col, "neither group-by nor the condition uses the alias %q", a.Name)
		}
		for _, rule := range c.Rules {
			if table[[2]string{rule, a.Name}] == "" {
				r.warn(ClassCorrelation, c.line, c.col, "the alias %q says nothing of the rule %q: a field of that name is read in its events", a.Name, rule)
			}
		}
	}
	return nil
}

// aliasTable gives the fields by rule, as written, and alias.
func (c *Correlation) aliasTable() map[[2]string]string {
	table := make(map[[2]string]string, len(c.Aliases))
	for _, a := range c.Aliases {
		table[[2]string{a.Rule, a.Name}] = a.Field
	}
	return table
}

// readComparison reads the condition of a correlation.
func (r *Rule) readComparison(p *pair) *fault {
	c := r.Correlation
	if p.value.Kind == yaml.ScalarNode {
		return faultf(p.line, "the condition of a correlation must be a map such as {gte: 10}")
	}
	keys, f := pairs(p.value, "the condition of the correlation")
	if f != nil {
		return f
	}
	var fields, percentile *pair
	for i := range keys {
		k := &keys[i]
		switch k.key {
		case "field":
			fields = k
			if c.Fields, f = nameList(k, maxGroupBy); f != nil {
				return f
			}
		case "percentile":
			percentile = k
			n, f := c.number(k)
			if f != nil {
				return f
			}
			if n <= 0 || n > 100 {
				return faultf(k.line, "percentile must be above 0 and at most 100")
			}
			c.Percentile = n
		case "gt", "gte", "lt", "lte", "eq", "neq":
			n, f := c.number(k)
			if f != nil {
				return f
			}
			if c.counts() && (n != float64(int64(n)) || n < 0 || n > maxThreshold) {
				return faultf(k.line, "a count is compared with a whole number from 0 to %d", maxThreshold)
			}
			c.Condition = append(c.Condition, Comparison{k.key, n})
		default:
			return faultf(k.line, "the condition of the correlation has the key %q: gt, gte, lt, lte, eq, neq, field and percentile are known", k.key)
		}
	}
	for i := range c.Fields {
		c.Fields[i] = stripSpaces(c.Fields[i])
	}
	slices.SortFunc(c.Condition, func(a, b Comparison) int { return cmp.Compare(a.Op, b.Op) }) // gt before lt
	switch {
	case len(c.Condition) == 0:
		return faultf(p.line, "the condition of the correlation compares with nothing")
	case len(c.Condition) > 2 || len(c.Condition) == 2 && (c.Condition[0].Op[0] != 'g' || c.Condition[1].Op[0] != 'l'):
		return faultf(p.line, "the condition must be one comparison, or a range of gt or gte and lt or lte")
	case strings.HasPrefix(c.Type, "value_") && len(c.Fields) == 0:
		return faultf(p.line, "a correlation of type %s needs a field in its condition", c.Type)
	case !strings.HasPrefix(c.Type, "value_") && fields != nil:
		return faultf(fields.line, "a correlation of type %s reads no field", c.Type)
	case c.Type != "value_count" && len(c.Fields) > 1:
		return faultf(fields.line, "a correlation of type %s reads one field", c.Type)
	case c.Type == "value_percentile" && percentile == nil:
		return faultf(p.line, "value_percentile needs percentile in its condition: which one of the values is compared, 50 for the median")
	case c.Type != "value_percentile" && percentile != nil:
		return faultf(percentile.line, "a correlation of type %s has no percentile", c.Type)
	}
	if c.Type == "value_median" {
		c.Percentile = 50
	}
	return r.checkRange(p)
}

func (c *Correlation) number(p *pair) (float64, *fault) {
	if p.value.Kind == yaml.ScalarNode && (p.value.ShortTag() == "!!int" || p.value.ShortTag() == "!!float") {
		s, f := readScalar(p.value)
		if f != nil {
			return 0, f
		}
		if n, ok := parseNumber([]byte(s.text)); ok {
			return n.f, nil
		}
	}
	return 0, faultf(p.line, "%s of the condition must be a number", p.key)
}

// checkRange refuses a condition that nothing can satisfy and warns of one that
// everything does: it tries the values around those that the condition names.
func (r *Rule) checkRange(p *pair) *fault {
	c := r.Correlation
	tries := []float64{1, 2 * maxThreshold}
	if c.temporal() {
		tries[1] = float64(len(c.Rules))
	}
	sum := 0.0
	for _, x := range c.Condition {
		tries = append(tries, x.Value-1, x.Value, x.Value+1)
		sum += x.Value
	}
	if !c.counts() {
		tries = append(tries, sum/2, -2*maxThreshold)
	}
	can, must := false, true
	for _, v := range tries {
		if c.counts() && (v < 1 || c.temporal() && v > float64(len(c.Rules))) {
			continue
		}
		if c.holds(v) {
			can = true
		} else {
			must = false
		}
	}
	if !can {
		return faultf(p.line, "no value satisfies the condition: a window holds at least one event, and no more rules than the correlation names")
	}
	if must && c.counts() {
		r.warn(ClassAlways, p.line, p.col, "every window satisfies the condition")
	}
	return nil
}

// plan is a correlation of a set with its names resolved.
type plan struct {
	rule   *Rule
	index  int // in Set.plans: what feeds a plan stands before it
	level  int
	span   int64
	close  bool
	silent bool
	steps  []*Rule
	carry  []string // further fields that correlations fed by this one ask for
	names  map[[2]string]string
}

// input says what a match of a rule, or a firing of a correlation, gives to one
// of the correlations that it feeds.
type input struct {
	to                   *plan
	step                 int
	group, fields, carry []from
}

// from is where a field of an input is read.
type from struct {
	names   []string // in events: the first that is there
	grouped bool     // in firings: one of the group values, or of the carried
	at      int
}

// correlations are the part of a Set beyond single events.
type correlations struct {
	rules  []*Rule // by id
	plans  []*plan // inner before outer
	byRule map[*Rule]*plan
	inputs map[*Rule][]input
	silent map[*Rule]bool
}

// correlate resolves the correlations among rules, which stand in the order of
// their ids.
func (s *Set) correlate(rules []*Rule, refuse func(r *Rule, line int, format string, args ...any)) {
	co := &s.correlations
	co.byRule, co.inputs, co.silent = make(map[*Rule]*plan), make(map[*Rule][]input), make(map[*Rule]bool)
	ids, names := make(map[string]*Rule), make(map[string][]*Rule)
	know := func(r *Rule) {
		if r.ID != "" {
			ids[strings.ToLower(r.ID)] = r
		}
		if r.Name != "" {
			names[r.Name] = append(names[r.Name], r)
		}
	}
	for _, r := range s.rules {
		know(r)
	}
	var todo []*Rule
	for _, r := range rules {
		if r.Correlation != nil {
			know(r)
			todo = append(todo, r)
		}
	}
	// A correlation is settled once all that it names are, so one round after the
	// other takes the inner ones first and leaves the cycles over.
	refused := make(map[*Rule]bool)
	open := make(map[*Rule]int)          // named correlations that are not settled
	outer := make(map[*Rule][]*Rule)     // by the correlation that they name
	resolved := make(map[*Rule][]*Rule)  // steps
	reasons := make(map[*Rule][2]string) // why a step cannot be resolved: name, what is wrong
	var ready []*Rule
	for _, r := range todo {
		var steps []*Rule
		for _, name := range r.Correlation.Rules {
			step := ids[strings.ToLower(name)]
			if step == nil && len(names[name]) == 1 {
				step = names[name][0]
			}
			switch {
			case step == nil && len(names[name]) > 1:
				reasons[r] = [2]string{name, "which is the name of more than one rule"}
			case step == nil:
				reasons[r] = [2]string{name, "which is not the id or name of a rule of the set, or was refused"}
			case slices.Contains(steps, step):
				reasons[r] = [2]string{name, "which it names already in another way"}
			}
			if step != nil && step.Correlation != nil && !slices.Contains(steps, step) {
				open[r]++
				outer[step] = append(outer[step], r)
			}
			steps = append(steps, step)
		}
		resolved[r] = steps
		if open[r] == 0 {
			ready = append(ready, r)
		}
	}
	for len(ready) > 0 {
		r := ready[0]
		ready = ready[1:]
		for _, o := range outer[r] {
			if open[o]--; open[o] == 0 {
				ready = append(ready, o)
			}
		}
		steps := resolved[r]
		delete(resolved, r) // settled; a cycle is what stays
		level := 1
		reason, bad := reasons[r]
		for i, step := range steps {
			if step != nil && refused[step] && !bad {
				reason, bad = [2]string{r.Correlation.Rules[i], "which was refused"}, true
			}
			if p := co.byRule[step]; p != nil {
				level = max(level, p.level+1)
			}
		}
		switch {
		case bad:
			refuse(r, r.Correlation.line, "the correlation names the rule %q, %s", reason[0], reason[1])
			refused[r] = true
			continue
		case level > maxLevels:
			refuse(r, r.Correlation.line, "the correlation stands on more than %d levels of correlations", maxLevels)
			refused[r] = true
			continue
		}
		p := &plan{
			rule: r, index: len(co.plans), level: level, span: int64(r.Correlation.Timespan),
			close: r.Correlation.atClose(), steps: steps, names: r.Correlation.aliasTable(),
		}
		co.plans = append(co.plans, p)
		co.byRule[r] = p
	}
	loud := make(map[*Rule]bool)
	for _, r := range todo {
		if resolved[r] != nil {
			refuse(r, r.Correlation.line, "the correlation leads back to itself, or names one that does: a correlation cannot feed itself")
			continue
		}
		if refused[r] {
			continue
		}
		co.rules = append(co.rules, r)
		s.warnings = append(s.warnings, r.Warnings...)
		for _, step := range co.byRule[r].steps {
			co.silent[step] = true
			loud[step] = loud[step] || r.Correlation.Generate
		}
	}
	for _, r := range co.rules {
		for _, step := range co.byRule[r].steps {
			if loud[step] {
				delete(co.silent, step)
			} else if step.Path != r.Path && step.Correlation == nil {
				s.warnings = append(s.warnings, r.warning(ClassCorrelation, r.Correlation.line, r.Correlation.col,
					"the rule %q of %s is no finding of its own any more: write generate: true to keep it", step.Title, step.Path))
			}
		}
	}
	s.wire()
}

// wire says where each correlation finds its fields. What an outer correlation
// asks of an inner one beyond its groups, the inner one carries along.
func (s *Set) wire() {
	co := &s.correlations
	for _, p := range slices.Backward(co.plans) {
		p.silent = co.silent[p.rule]
		for i, step := range p.steps {
			inner := co.byRule[step]
			if inner == nil {
				continue
			}
			for _, name := range p.reads() {
				name = p.named(i, name)
				switch {
				case slices.Contains(step.Correlation.GroupBy, name) || slices.Contains(inner.carry, name):
				case len(inner.carry) == maxCarry:
					s.warnings = append(s.warnings, p.rule.warning(ClassCorrelation, p.rule.Correlation.line, p.rule.Correlation.col,
						"the correlation %q cannot carry the field %q too: more than %d are asked of it", step.Title, name, maxCarry))
				default:
					inner.carry = append(inner.carry, name)
				}
			}
		}
	}
	for _, p := range co.plans {
		c := p.rule.Correlation
		for i, step := range p.steps {
			sources := func(names []string) []from {
				out := make([]from, 0, len(names))
				for _, name := range names {
					out = append(out, s.source(step, p.named(i, name)))
				}
				return out
			}
			co.inputs[step] = append(co.inputs[step], input{p, i, sources(c.GroupBy), sources(c.Fields), sources(p.carry)})
		}
	}
}

// reads returns the fields that a correlation asks of what feeds it.
func (p *plan) reads() []string {
	c := p.rule.Correlation
	return slices.Concat(c.GroupBy, c.Fields, p.carry)
}

// named is the name that a field of the correlation has in one of its rules.
func (p *plan) named(step int, name string) string {
	if field := p.names[[2]string{p.rule.Correlation.Rules[step], name}]; field != "" {
		return field
	}
	return name
}

func (s *Set) source(step *Rule, name string) from {
	if inner := s.correlations.byRule[step]; inner != nil {
		if at := slices.Index(step.Correlation.GroupBy, name); at >= 0 {
			return from{grouped: true, at: at}
		}
		return from{at: slices.Index(inner.carry, name)}
	}
	src := from{names: []string{name}}
	for _, e := range s.compiled[s.index[step]].gate.entries {
		for _, a := range e.Aliases {
			if a.Name == name && !slices.Contains(src.names, a.Native) {
				src.names = append(src.names, a.Native)
			}
		}
	}
	return src
}

// Correlations returns the correlation rules in the order of their ids.
// Set.Rules does not list them and Set.Match does not ask them: a Correlator does.
func (s *Set) Correlations() []*Rule { return slices.Clone(s.correlations.rules) }

// Silent reports whether a rule feeds correlations alone: its match, or its own
// correlation, is no finding. Set.Match reports it all the same. A rule is silent
// when a correlation names it and none of those has generate: true.
func (s *Set) Silent(r *Rule) bool { return s.correlations.silent[r] }

// feeders calls fn for each rule with a detection that feeds a correlation,
// through others or directly, and for each of its inputs to them.
func (s *Set) feeders(p *plan, seen map[*plan]bool, fn func(r *Rule, in *input)) {
	if seen[p] {
		return
	}
	seen[p] = true
	for _, step := range p.steps {
		if inner := s.correlations.byRule[step]; inner != nil {
			s.feeders(inner, seen, fn)
			continue
		}
		for i := range s.correlations.inputs[step] {
			if in := &s.correlations.inputs[step][i]; in.to == p {
				fn(step, in)
			}
		}
	}
}

// fieldsOf is FieldsOf for a correlation.
func (s *Set) fieldsOf(p *plan) []string {
	names := make(map[string]bool)
	s.feeders(p, make(map[*plan]bool), func(r *Rule, in *input) {
		for _, name := range s.FieldsOf(r) {
			names[name] = true
		}
		for _, src := range slices.Concat(in.group, in.fields, in.carry) {
			for _, name := range src.names {
				names[name] = true
			}
		}
	})
	return slices.Sorted(maps.Keys(names))
}

// fieldsOn is FieldsOn for a correlation.
func (s *Set) fieldsOn(p *plan, source LogSource) []string {
	names := make(map[string]bool)
	s.feeders(p, make(map[*plan]bool), func(r *Rule, in *input) {
		on := s.FieldsOn(r, source)
		if on == nil {
			return
		}
		for _, name := range on {
			names[name] = true
		}
		entries, _ := s.feeds(s.compiled[s.index[r]].gate, lowerSource(source))
		for _, src := range slices.Concat(in.group, in.fields, in.carry) {
			own := len(entries) == 0
			for _, e := range entries {
				i := slices.IndexFunc(e.Aliases, func(a Alias) bool { return a.Name == src.names[0] })
				if i < 0 {
					own = true
				} else {
					names[e.Aliases[i].Native] = true
				}
			}
			if own {
				names[src.names[0]] = true
			}
		}
	})
	if len(names) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(names))
}

// couldFeed is CouldFeed for a correlation: where it wants all its rules, each
// must have a source.
func (s *Set) couldFeed(p *plan, sources []LogSource) bool {
	all := p.rule.Correlation.temporal() && len(p.rule.Correlation.Condition) == 0
	for _, step := range p.steps {
		if s.CouldFeed(step, sources) != all {
			return !all
		}
	}
	return all
}
