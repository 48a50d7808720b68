package main

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/web"
)

// output is where and how an answer is printed.
type output struct {
	format string
	jsonl  string
	file   string
}

func (o *output) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.format, "format", "table", "table, jsonl or csv")
	cmd.Flags().StringVar(&o.jsonl, "jsonl", "", "short for --format jsonl -o `FILE` (- is standard output)")
	cmd.Flags().StringVarP(&o.file, "output", "o", "-", "`file` to write to")
}

// open gives the writer and the format.
func (o *output) open(env *environment) (io.Writer, string, func() error, error) {
	format, file := o.format, o.file
	if o.jsonl != "" {
		format, file = "jsonl", o.jsonl
	}
	if !slices.Contains([]string{"table", "jsonl", "csv"}, format) {
		return nil, "", nil, usage("--format is table, jsonl or csv")
	}
	if file == "-" {
		b := bufio.NewWriter(env.stdout)
		return b, format, b.Flush, nil
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, "", nil, unwritable(file, err)
	}
	b := bufio.NewWriter(f)
	return b, format, func() error { return errors.Join(b.Flush(), f.Close()) }, nil
}

const queryHelp = `
  user.uid = person-… and class_uid = 3002      a person's sign-ins
  process.cmd_line : "encodedcommand"           words, upper and lower case alike
  process.file.path = *\cmd.exe and last 2h     wildcards; the last two hours
  native.EventID in (4624, 4625)                the producer's own fields
  dst_endpoint.port in [1, 1024]                ranges
  src_endpoint.ip in 10.0.0.0/8                 networks
  class_uid = 3002 | stats count() by user.uid | sort by count desc | limit 10
  kind = finding | top 10 by rule.title

A bare field name is an OCSF attribute; native. are the producer's fields; ref, time,
sealed, source, dataset, kind are the row's own.`

func newSearch(env *environment) *cobra.Command {
	var f configFlags
	var o output
	var w window
	cmd := &cobra.Command{
		Use:   "search [QUERY]",
		Short: "Find sealed events and findings",
		Long:  "Search asks the index. The answer is newest first unless the query sorts.\n" + queryHelp,
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return searchAndPrint(cmd, env, &f, &o, strings.Join(args, " "), &w)
		},
	}
	f.add(cmd)
	o.add(cmd)
	w.add(cmd)
	return cmd
}

// window bounds a question, and says why it is asked.
type window struct {
	from, to string
	limit    int
	look     look
}

func (w *window) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&w.from, "from", "", "earliest event `time`, RFC 3339")
	cmd.Flags().StringVar(&w.to, "to", "", "latest event `time`, RFC 3339")
	cmd.Flags().IntVar(&w.limit, "limit", 100, "rows at most")
	w.look.add(cmd)
}

// look says why somebody looks, in which case and in which of their offices.
type look struct{ purpose, caseID, office string }

// lookOf is what the environment says, for commands without the flags.
func lookOf() *look {
	return &look{os.Getenv("COUNTERSEAL_PURPOSE"), os.Getenv("COUNTERSEAL_CASE"), os.Getenv("COUNTERSEAL_OFFICE")}
}

func (l *look) add(cmd *cobra.Command) {
	from := lookOf()
	cmd.Flags().StringVar(&l.purpose, "purpose", from.purpose, "why: a `code` that an assessment declares (default $COUNTERSEAL_PURPOSE, or the only one there is)")
	cmd.Flags().StringVar(&l.caseID, "case", from.caseID, "`case` in which you ask; its aliases are its own (default $COUNTERSEAL_CASE)")
	cmd.Flags().StringVar(&l.office, "office", from.office, "`id` of the office in which you ask, if you hold more than one (default $COUNTERSEAL_OFFICE, or the first in the record)")
}

// values adds it to a question; the office travels on as a header (client.do).
func (l *look) values(v url.Values) {
	for name, text := range map[string]string{"purpose": l.purpose, "case": l.caseID, officeValue: l.office} {
		if text != "" {
			v.Set(name, text)
		}
	}
}

// notices shows what the server says beside an answer.
func notices(env *environment, resp *http.Response) {
	for _, n := range resp.Header.Values("Counterseal-Notice") {
		fmt.Fprintf(env.stderr, "counterseal: %s\n", event.Printable(n))
	}
}

func newTimeline(env *environment) *cobra.Command {
	var f configFlags
	var o output
	var w window
	cmd := &cobra.Command{
		Use:   "timeline [QUERY]",
		Short: "What happened, oldest first (default: the findings)",
		Long:  "Timeline prints what matches in the order in which it happened. Without a query it\nprints the findings.\n" + queryHelp,
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			q := strings.Join(args, " ")
			if strings.Contains(q, "|") {
				return usage("a timeline sorts by time itself: leave the pipes out, or use search")
			}
			if strings.TrimSpace(q) == "" {
				q = "kind = finding"
			}
			if err := checkQuery(q); err != nil { // as it was typed
				return err
			}
			return searchAndPrint(cmd, env, &f, &o, q+" | sort by time", &w)
		},
	}
	f.add(cmd)
	o.add(cmd)
	w.add(cmd)
	return cmd
}

func searchAndPrint(cmd *cobra.Command, env *environment, f *configFlags, o *output, q string, w *window) (err error) {
	if err := checkQuery(q); err != nil {
		return err
	}
	cfg, err := f.load()
	if err != nil {
		return err
	}
	v := url.Values{"q": {q}, "limit": {strconv.Itoa(w.limit)}}
	w.look.values(v)
	for name, text := range map[string]string{"from": w.from, "to": w.to} {
		if _, err := flagTime(name, text); err != nil {
			return err
		}
		if text != "" {
			v.Set(name, text)
		}
	}
	c, err := dial(cmd.Context(), env, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	resp, err := c.do(cmd.Context(), "GET", "/api/v1/search", v, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	notices(env, resp)
	out, format, done, err := o.open(env)
	if err != nil {
		return err
	}
	return errors.Join(printAnswer(out, format, resp.Body, w.limit, env), done())
}

// printAnswer prints JSON lines of rows, or a table that begins with its columns.
func printAnswer(w io.Writer, format string, r io.Reader, limit int, env *environment) error {
	in := bufio.NewReaderSize(r, 1<<20)
	if format == "jsonl" {
		_, err := io.Copy(w, in)
		return err
	}
	var p rowPrinter
	dec := json.NewDecoder(in)
	n := 0
	for {
		var raw json.RawMessage
		if err := dec.Decode(&raw); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("the answer was cut off: %w", err)
		}
		if p.w == nil {
			p = newRowPrinter(w, format, raw)
			if p.columns != nil {
				continue
			}
		}
		if err := p.row(raw); err != nil {
			return err
		}
		n++
	}
	if p.w != nil {
		if err := p.end(); err != nil {
			return err
		}
	}
	switch {
	case n == 0:
		fmt.Fprintln(env.stderr, "nothing matches")
	case n == limit && p.columns == nil:
		fmt.Fprintf(env.stderr, "the first %d; --limit shows more\n", n)
	}
	return nil
}

// rowPrinter prints rows as a table or as CSV.
type rowPrinter struct {
	w       io.Writer
	columns []string // of a table with statistics; nil for rows
	csv     *csv.Writer
	table   table.Writer
}

func newRowPrinter(w io.Writer, format string, first json.RawMessage) rowPrinter {
	var head struct{ Columns []string }
	p := rowPrinter{w: w}
	if json.Unmarshal(first, &head) == nil {
		p.columns = head.Columns
	}
	names := p.columns
	if names == nil {
		names = []string{"time", "dataset", "device", "who", "what", "ref"}
	}
	if format == "csv" {
		p.csv = csv.NewWriter(w)
		p.csv.Write(names) // its error stays until Flush
		return p
	}
	p.table = table.NewWriter()
	p.table.SetOutputMirror(w)
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Format.Header = text.FormatDefault // names as they are typed
	p.table.SetStyle(style)
	head2 := make(table.Row, len(names))
	for i, n := range names {
		head2[i] = n
	}
	p.table.AppendHeader(head2)
	return p
}

func (p *rowPrinter) row(raw json.RawMessage) error {
	var cells []string
	if p.columns != nil {
		if err := json.Unmarshal(raw, &cells); err != nil {
			return fmt.Errorf("reading the answer: %w", err)
		}
	} else {
		var r web.Row
		if err := json.Unmarshal(raw, &r); err != nil {
			return fmt.Errorf("reading the answer: %w", err)
		}
		what := web.What(&r)
		if p.csv == nil {
			what = shorten(what, 90)
		}
		cells = []string{r.Time, r.Dataset, r.Get("device.hostname"), web.Who(&r), what, r.Ref}
	}
	for i := range cells {
		cells[i] = event.Printable(cells[i])
	}
	if p.csv != nil {
		return p.csv.Write(cells)
	}
	row := make(table.Row, len(cells))
	for i := range cells {
		row[i] = cells[i]
	}
	p.table.AppendRow(row)
	return nil
}

func (p *rowPrinter) end() error {
	if p.csv != nil {
		p.csv.Flush()
		return p.csv.Error()
	}
	p.table.Render()
	return nil
}

func shorten(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}
