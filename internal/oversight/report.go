package oversight

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/counterseal/counterseal/internal/ledger"
)

// Title is the first line of a report.
const Title = "counterseal oversight report v1"

// For whom a report is.
const (
	Public   = "public"
	Internal = "internal"
)

// MinCount is the smallest count that a report tells; none is told as 0.
const MinCount = 8

// Few stands for a total from 1 to 7.
const Few = -1

// merged is the value of what is not told apart.
const merged = "*"

// Report is what a report tells. Its form is docs/formats/oversight.md.
type Report struct {
	Audience  string
	Origin    string // of the ledger
	Size      uint64 // statements that it is made from
	Root      string // of the ledger at that size, base64
	From, To  time.Time
	Stopped   *Silence // looking at people was stopped at the end of the period
	DrawWrong bool     // a wide look was drawn, or not, against the rule
	Median    int      // whole days from a look to its review; -1: not told
	Slow      int      // likewise, of nine in ten
	Families  []Family

	// Of the list of protected channels: how many entries were added, and what was removed.
	// This is about lists and not about people, so it is told to the last entry.
	ChannelsAdded int64
	Removed       []Removed
}

// Family is a set of statements that are counted, and its divisions.
type Family struct {
	Name  string
	Total int64 // or Few
	Parts []Part
}

// Part divides a family by one dimension. The rows and the rest are the total.
type Part struct {
	Dim  string
	Rows []Count
	Rest int64 // not told apart; 0: everything is
}

// Count is one value of a dimension.
type Count struct {
	Value string
	N     int64
}

// Family gives one by its name.
func (r *Report) Family(name string) Family {
	for _, f := range r.Families {
		if f.Name == name {
			return f
		}
	}
	return Family{}
}

// Text writes a total.
func (f *Family) Text() string { return totalText(f.Total) }

func totalText(n int64) string {
	if n == Few {
		return "fewer-than-8"
	}
	return strconv.FormatInt(n, 10)
}

// Format writes a report without its title: the same bytes for the same report.
func (r *Report) Format() string {
	var b strings.Builder
	line := func(words ...string) { b.WriteString(strings.Join(words, " ") + "\n") }
	line("audience", r.Audience)
	line("origin", r.Origin)
	line("size", strconv.FormatUint(r.Size, 10))
	line("root", r.Root)
	line("from", stamp(r.From))
	line("to", stamp(r.To))
	if r.Stopped == nil {
		line("looking", "goes-on")
	} else {
		line("looking", "stopped", r.Stopped.Reason, stamp(r.Stopped.Since))
	}
	if r.DrawWrong {
		line("draw", "against-the-rule")
	} else {
		line("draw", "by-the-rule")
	}
	if r.Median >= 0 {
		line("lag", "median", strconv.Itoa(r.Median), "nine-in-ten", strconv.Itoa(r.Slow))
	}
	for i := range r.Families {
		f := &r.Families[i]
		line("count", f.Name, f.Text())
		for _, p := range f.Parts {
			for _, c := range p.Rows {
				line("count", f.Name, p.Dim, c.Value, strconv.FormatInt(c.N, 10))
			}
			if p.Rest > 0 {
				line("count", f.Name, p.Dim, merged, strconv.FormatInt(p.Rest, 10))
			}
		}
	}
	line(addedLine, strconv.FormatInt(r.ChannelsAdded, 10))
	sum := int64(0)
	for _, one := range r.Removed {
		sum += one.N
	}
	line(removedLine, strconv.FormatInt(sum, 10))
	for _, one := range r.Removed {
		line(removedLine, one.Day.Format(time.DateOnly), one.Kind, strconv.FormatInt(one.N, 10))
	}
	return b.String()
}

// Verify checks the signature of a report with the keys of the log, and reads it.
func Verify(raw []byte, vkeys []string) (*Report, error) {
	text, err := ledger.OpenNote(Title, raw, vkeys)
	if err != nil {
		return nil, err
	}
	return Parse(text)
}

var errReport = errors.New("not a report")

// Parse reads the text of a report without its title, and refuses whatever Format would
// not have written, a count that should not be told, and divisions that do not add up.
// Its errors quote nothing.
func Parse(text string) (*Report, error) {
	if len(text) > 1<<20 {
		return nil, fmt.Errorf("%w: longer than 1 MiB", errReport)
	}
	r := &Report{Median: -1, Slow: -1}
	for i, l := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if err := r.line(strings.Split(l, " ")); err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", errReport, i+2, err)
		}
	}
	if r.Format() != text {
		return nil, fmt.Errorf("%w: a line is missing, is there twice, or has another form", errReport)
	}
	return r, r.check()
}

func (r *Report) line(w []string) (err error) {
	bad := errors.New("it has another form")
	switch {
	case w[0] == "count" && len(w) >= 3:
		return r.count(w[1:])
	case w[0] == addedLine || w[0] == removedLine:
		return r.channels(w)
	case w[0] == "lag" && len(w) == 5:
		r.Median, err = strconv.Atoi(w[2])
		if err != nil {
			return bad
		}
		if r.Slow, err = strconv.Atoi(w[4]); err != nil || r.Median < 0 || r.Slow < r.Median || r.Slow >= Days {
			return bad
		}
	case w[0] == "looking" && len(w) == 4:
		since, err := time.Parse(stampForm, w[3])
		if err != nil || w[2] != Vacant && w[2] != Unheard {
			return bad
		}
		r.Stopped = &Silence{w[2], since}
	case len(w) != 2:
		return bad
	case w[0] == "audience":
		r.Audience = w[1]
	case w[0] == "origin":
		r.Origin = w[1]
	case w[0] == "root":
		r.Root = w[1]
	case w[0] == "draw":
		r.DrawWrong = w[1] == "against-the-rule"
	case w[0] == "size":
		if r.Size, err = strconv.ParseUint(w[1], 10, 63); err != nil {
			return bad
		}
	case w[0] == "from":
		if r.From, err = time.Parse(stampForm, w[1]); err != nil {
			return bad
		}
	case w[0] == "to":
		if r.To, err = time.Parse(stampForm, w[1]); err != nil {
			return bad
		}
	}
	return nil
}

func (r *Report) count(w []string) error {
	number := func(s string) (int64, error) {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 {
			return 0, errors.New("a count is no number")
		}
		return n, nil
	}
	if len(w) == 2 {
		f := Family{Name: w[0], Total: Few}
		var err error
		if w[1] != totalText(Few) {
			if f.Total, err = number(w[1]); err != nil {
				return err
			}
		}
		r.Families = append(r.Families, f)
		return nil
	}
	if len(w) != 4 || len(r.Families) == 0 || r.Families[len(r.Families)-1].Name != w[0] {
		return errors.New("a count stands in another place")
	}
	n, err := number(w[3])
	if err != nil {
		return err
	}
	f := &r.Families[len(r.Families)-1]
	if len(f.Parts) == 0 || f.Parts[len(f.Parts)-1].Dim != w[1] {
		f.Parts = append(f.Parts, Part{Dim: w[1]})
	}
	p := &f.Parts[len(f.Parts)-1]
	if w[2] == merged {
		p.Rest = n
		return nil
	}
	p.Rows = append(p.Rows, Count{w[2], n})
	return nil
}

// before is how many families a report had before notices and complaints were counted. New
// ones come after the others, so that older reports stay what they were.
const before = 22

// check holds a report against its own rules.
func (r *Report) check() error {
	bad := func(why string) error { return fmt.Errorf("%w: %s", errReport, why) }
	root, err := base64.StdEncoding.Strict().DecodeString(r.Root)
	switch {
	case r.Audience != Public && r.Audience != Internal:
		return bad("audience is public or internal")
	case !ledger.IsWord(r.Origin) || err != nil || len(root) != 32:
		return bad("origin and root name a log")
	case !r.From.Before(r.To):
		return bad("from lies before to")
	case len(r.Families) != len(names) && len(r.Families) != before:
		return bad("a count is missing")
	}
	if err := r.checkChannels(); err != nil {
		return bad(err.Error())
	}
	for i := range r.Families {
		f := &r.Families[i]
		dims := slices.Clone(names[i].public)
		if r.Audience == Internal {
			dims = append(dims, names[i].inside...)
		}
		switch {
		case f.Name != names[i].name:
			return bad("the counts stand in another order")
		case f.Total != Few && f.Total > 0 && f.Total < MinCount, f.Total < MinCount && len(f.Parts) > 0:
			return bad("a count is told that is too small")
		}
		last := -1
		for _, p := range f.Parts {
			at := slices.Index(dims, p.Dim)
			if at <= last {
				return bad("a division is not for this audience, or stands in another order")
			}
			last = at
			sum := p.Rest
			for k, c := range p.Rows {
				if c.N < MinCount || !isValue(c.Value) || k > 0 && cmp.Or(cmp.Compare(p.Rows[k-1].N, c.N), -cmp.Compare(p.Rows[k-1].Value, c.Value)) <= 0 {
					return bad("a row is told that is too small, or stands in another place")
				}
				sum += c.N
			}
			if sum != f.Total || p.Rest > 0 && p.Rest < MinCount {
				return bad("a division does not add up")
			}
		}
	}
	return nil
}

// Quarter gives the last whole quarter before a moment: the only period of a public report,
// so that no two of them overlap.
func Quarter(now time.Time) (from, to time.Time) {
	now = now.UTC()
	to = time.Date(now.Year(), (now.Month()-1)/3*3+1, 1, 0, 0, 0, 0, time.UTC)
	return to.AddDate(0, -3, 0), to
}
