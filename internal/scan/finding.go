package scan

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/counterseal/counterseal/internal/event"
)

// Finding is one rule that one record satisfies, as it is printed.
type Finding struct {
	Time    string `json:"time"` // of the event, in UTC; empty where it has none
	Host    string `json:"host"`
	Rule    Rule   `json:"rule"`
	Source  Source `json:"source"`
	Matched []Pair `json:"matched"`

	level Level
}

// Rule names the rule and its author, as its licence asks.
type Rule struct {
	ID      string   `json:"id"`
	Title   string   `json:"title"`
	Level   string   `json:"level"`
	Author  string   `json:"author"`
	Tags    []string `json:"tags"`
	License string   `json:"license,omitempty"`
}

// Source is where the record lies.
type Source struct {
	Path        string `json:"path"`
	Record      uint64 `json:"record"`                    // id in the record header, or the number of the record in the file
	Chunk       *int   `json:"chunk,omitempty"`           // of an event log
	Offset      *int64 `json:"offset,omitempty"`          // of the record in an event log
	EventID     uint64 `json:"event_record_id,omitempty"` // the event's own number, which exports do not change
	ChunkState  string `json:"chunk_state,omitempty"`     // what is wrong with the chunk; empty: nothing
	RecordState string `json:"record_state,omitempty"`    // what is wrong with the record; empty: nothing
}

// Pair is a field that made the rule say yes.
type Pair struct {
	Field string `json:"field"`
	Value string `json:"value"`
}

// printers print each finding in the forms that were asked for.
type printers struct {
	buf   []*bufio.Writer
	each  []func(*Finding) error
	flusF []func() error
}

func newPrinters(o *Options, m *mask) (*printers, error) {
	p := &printers{}
	if o.Out != nil {
		w := p.buffer(o.Out)
		switch o.Format {
		case Table, "":
			if err := printf(w, "# %s\n", m.note()); err != nil {
				return nil, err
			}
			p.each = append(p.each, func(f *Finding) error { return printLine(w, f) })
		case JSONL:
			p.each = append(p.each, func(f *Finding) error { return printJSON(w, f) })
		case CSV:
			c := csv.NewWriter(w)
			if err := c.Write([]string{"time", "level", "host", "rule_id", "title", "author", "tags", "path", "chunk", "record", "matched"}); err != nil {
				return nil, fmt.Errorf("printing: %w", err)
			}
			p.each = append(p.each, func(f *Finding) error { return c.Write(csvRow(f)) })
			p.flusF = append(p.flusF, func() error { c.Flush(); return c.Error() })
		default:
			return nil, fmt.Errorf("unknown format %q: one of table, jsonl, csv", o.Format)
		}
	}
	if o.JSONL != nil {
		w := p.buffer(o.JSONL)
		p.each = append(p.each, func(f *Finding) error { return printJSON(w, f) })
	}
	if o.Notes != nil && (o.Out == nil || o.Format == JSONL || o.Format == CSV) {
		if err := printf(o.Notes, "# %s\n", m.note()); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *printers) buffer(w io.Writer) *bufio.Writer {
	b := bufio.NewWriter(w)
	p.buf = append(p.buf, b)
	return b
}

func (p *printers) print(f *Finding) error {
	for _, each := range p.each {
		if err := each(f); err != nil {
			return fmt.Errorf("printing: %w", err)
		}
	}
	return nil
}

// flush hands on what was printed. It runs after each piece that had findings, so
// that a reader of a pipe does not wait for the end.
func (p *printers) flush() error {
	for _, f := range p.flusF {
		if err := f(); err != nil {
			return fmt.Errorf("printing: %w", err)
		}
	}
	for _, b := range p.buf {
		if err := b.Flush(); err != nil {
			return fmt.Errorf("printing: %w", err)
		}
	}
	return nil
}

func printf(w io.Writer, format string, args ...any) error {
	if _, err := fmt.Fprintf(w, format, args...); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	return nil
}

func printJSON(w *bufio.Writer, f *Finding) error {
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if _, err := w.Write(escapeJSON(b)); err != nil {
		return err
	}
	return w.WriteByte('\n')
}

// escapeJSON writes characters that a terminal would obey as \u escapes; a JSON
// reader gets them back.
func escapeJSON(b []byte) []byte {
	var out []byte
	from := 0
	for i := 0; i < len(b); {
		if b[i] < utf8.RuneSelf && b[i] != 0x7f {
			i++
			continue
		}
		r, n := utf8.DecodeRune(b[i:])
		if commands(r) {
			out = append(out, b[from:i]...)
			if r > 0xffff {
				r1, r2 := (r-0x10000)>>10+0xd800, (r-0x10000)&0x3ff+0xdc00
				out = fmt.Appendf(out, `\u%04x\u%04x`, r1, r2)
			} else {
				out = fmt.Appendf(out, `\u%04x`, r)
			}
			from = i + n
		}
		i += n
	}
	if from == 0 {
		return b
	}
	return append(out, b[from:]...)
}

// commands tells characters that change how other text is shown.
func commands(r rune) bool {
	return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co)
}

// Widths of the table. Long values are cut there; the JSON has them whole.
const (
	tableValue = 120
	tablePairs = 4
)

func printLine(w *bufio.Writer, f *Finding) error {
	when := f.Time
	if when == "" {
		when = "-"
	}
	if err := printf(w, "%-28s %-13s %s  %s  %s\n", event.Printable(when), levelText(f.Rule.Level), event.Printable(host(f.Host)), event.Printable(f.Rule.Title), event.Printable(place(&f.Source))); err != nil {
		return err
	}
	for i, m := range f.Matched {
		if i == tablePairs {
			return printf(w, "    … %d more\n", len(f.Matched)-i)
		}
		if err := printf(w, "    %s: %s\n", event.Printable(m.Field), event.Printable(cut(m.Value, tableValue))); err != nil {
			return err
		}
	}
	return nil
}

func levelText(s string) string {
	if s == "" {
		return "-"
	}
	return event.Printable(s)
}

func host(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func place(s *Source) string {
	out := s.Path
	if s.Chunk != nil {
		out += " chunk " + strconv.Itoa(*s.Chunk)
	}
	out += " record " + strconv.FormatUint(s.Record, 10)
	if s.ChunkState != "" || s.RecordState != "" {
		out += " (damaged: " + strings.Trim(s.ChunkState+" "+s.RecordState, " ") + ")"
	}
	return out
}

// cut shortens s to n characters.
func cut(s string, n int) string {
	count := 0
	for i := range s {
		if count == n {
			return s[:i] + "…"
		}
		count++
	}
	return s
}

func csvRow(f *Finding) []string {
	chunk := ""
	if f.Source.Chunk != nil {
		chunk = strconv.Itoa(*f.Source.Chunk)
	}
	matched := make([]string, len(f.Matched))
	for i, m := range f.Matched {
		matched[i] = event.Printable(m.Field) + "=" + event.Printable(m.Value)
	}
	return []string{
		event.Printable(f.Time), event.Printable(f.Rule.Level), cell(f.Host), event.Printable(f.Rule.ID), cell(f.Rule.Title), cell(f.Rule.Author),
		event.Printable(strings.Join(f.Rule.Tags, " ")), cell(f.Source.Path), chunk, strconv.FormatUint(f.Source.Record, 10),
		cell(strings.Join(matched, "; ")),
	}
}

// cell escapes text and keeps a spreadsheet from taking it for a formula.
func cell(s string) string {
	s = event.Printable(s)
	if s != "" && strings.IndexByte("=+-@", s[0]) >= 0 {
		return "'" + s
	}
	return s
}
