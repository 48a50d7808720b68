package report

import (
	"bytes"
	"fmt"
	"html/template"
	"slices"
	"strings"

	"github.com/counterseal/counterseal/internal/event"
)

// page is what index.html and index.txt say.
type page struct {
	*description
	Sources    []sourceLine
	Named      int // records that name somebody of the authorisation
	Others     int // tokens of people and things that it does not name
	Rows       []row
	More       int // records that are not shown
	Statements []statementLine
}

type sourceLine struct {
	Name    string
	Records int
}

type statementLine struct {
	Index           uint64
	Kind, At, Actor string
}

// indexes makes the two pages that people read. All text of logs in them is shown
// with its control characters as escapes; the page has no script and asks for nothing.
func indexes(d *description, s *selection, custody []paper) (html, text []byte, err error) {
	p := page{description: d, Named: s.named, Rows: make([]row, len(s.rows)), More: s.records - len(s.rows)}
	for i, r := range s.rows {
		r.Source, r.Dataset, r.Text = event.Printable(r.Source), event.Printable(r.Dataset), event.Printable(r.Text)
		p.Rows[i] = r
	}
	for name, n := range s.sources {
		p.Sources = append(p.Sources, sourceLine{event.Printable(name), n})
	}
	slices.SortFunc(p.Sources, func(a, b sourceLine) int { return strings.Compare(a.Name, b.Name) })
	for t := range s.tokens {
		if !slices.Contains(d.People, string(t)) {
			p.Others++
		}
	}
	for _, c := range custody {
		p.Statements = append(p.Statements, statementLine{c.index, c.kind, c.at.UTC().Format(stampForm), c.actor})
	}
	t, err := template.New("index").Parse(indexPage)
	if err != nil {
		return nil, nil, fmt.Errorf("the page of a package: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, p); err != nil {
		return nil, nil, fmt.Errorf("the page of a package: %w", err)
	}
	return b.Bytes(), p.plain(), nil
}

const indexPage = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Evidence package {{.ID}}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #16202b; background: #fff; max-width: 72rem; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.5rem; } dt { color: #4a5866; } dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; } caption { text-align: left; color: #4a5866; padding-bottom: .5rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid #d9dfe5; overflow-wrap: anywhere; } th { color: #4a5866; font-weight: 600; }
code { font: .85em ui-monospace, monospace; }
table.narrow { width: auto; } .n { text-align: right; font-variant-numeric: tabular-nums; } table.records td:nth-child(-n+3), table.records th { white-space: nowrap; }
.due { font-weight: 600; }
</style>
</head>
<body>
<h1>Evidence package</h1>
<dl>
<dt>Package</dt><dd><code>{{.ID}}</code></dd>
<dt>Case</dt><dd>{{.Case}}</dd>
<dt>Purpose</dt><dd>{{.Purpose}}</dd>
<dt>For</dt><dd>{{range $i, $r := .Recipients}}{{if $i}}, {{end}}{{$r.Name}}{{end}}</dd>
<dt>Return or destroy by</dt><dd class="due">{{.Due}}</dd>
<dt>Made</dt><dd>{{.Made}}</dd>
<dt>Ledger</dt><dd><code>{{.Log}}</code></dd>
</dl>
<h2>What is inside</h2>
<dl>
<dt>Records</dt><dd>{{.Counts.Records}} of {{.Counts.Segments}} sealed segments</dd>
<dt>Originals</dt><dd>{{.Counts.Originals}}{{if .Counts.Withheld}}; {{.Counts.Withheld}} withheld, since they tell of people whom the authorisation does not name{{end}}</dd>
<dt>Statements</dt><dd>{{.Counts.Statements}} of the ledger, each with its proof</dd>
<dt>From</dt><dd>{{or .Scope.From "the beginning"}}</dd>
<dt>To</dt><dd>{{or .Scope.To "the end"}}</dd>
<dt>Compartments</dt><dd>{{range .Scope.Compartments}}{{.}} {{else}}all{{end}}</dd>
<dt>Sources</dt><dd>{{range .Scope.Sources}}{{.}} {{else}}all{{end}}</dd>
{{if .Scope.Query}}<dt>Query</dt><dd><code>{{.Scope.Query}}</code></dd>{{end}}
<dt>People named</dt><dd>{{range .People}}<code>{{.}}</code> {{else}}nobody{{end}}{{if .Named}}(in {{.Named}} records){{end}}</dd>
<dt>Everybody else</dt><dd>{{.Others}} tokens, which stay tokens</dd>
</dl>
{{if .Unread}}<h2>What could not be read</h2>
<ul>{{range .Unread}}<li>segment <code>{{.Segment}}</code>: {{.Why}}</li>{{end}}</ul>{{end}}
<h2>How to check it</h2>
<p>Whoever has the public keys of log and witnesses needs nothing else: <code>counterseal package verify</code>, or the second verifier
in <code>docs/verifier</code>, which was written from <code>docs/formats/package.md</code> alone.</p>
<h2>Records by source</h2>
<table class="narrow"><tr><th scope="col">Source</th><th scope="col" class="n">Records</th></tr>
{{range .Sources}}<tr><td>{{.Name}}</td><td class="n">{{.Records}}</td></tr>
{{end}}</table>
<h2>Records</h2>
<table class="records">{{if .More}}<caption>The earliest {{len .Rows}}; {{.More}} more are in data/records.</caption>{{end}}
<tr><th scope="col">Time</th><th scope="col">Source</th><th scope="col">Dataset</th><th scope="col">What</th><th scope="col">Reference</th></tr>
{{range .Rows}}<tr><td>{{.At}}</td><td>{{.Source}}</td><td>{{.Dataset}}</td><td>{{.Text}}</td><td><code>{{.Ref}}</code></td></tr>
{{end}}</table>
<h2>Chain of custody</h2>
<table class="narrow"><tr><th scope="col" class="n">Entry</th><th scope="col">Statement</th><th scope="col">Time</th><th scope="col">Who</th></tr>
{{range .Statements}}<tr><td class="n">{{.Index}}</td><td>{{.Kind}}</td><td>{{.At}}</td><td>{{.Actor}}</td></tr>
{{end}}</table>
<h2>Made with</h2>
<table class="narrow">{{range $k, $v := .Tools}}<tr><td>{{$k}}</td><td>{{$v}}</td></tr>
{{end}}</table>
</body>
</html>
`

// plain is the page as text.
func (p *page) plain() []byte {
	var b bytes.Buffer
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-22s%s\n", name, event.Printable(fmt.Sprintf(format, args...)))
	}
	all := func(s []string, none string) string {
		if len(s) == 0 {
			return none
		}
		return strings.Join(s, " ")
	}
	or := func(s, none string) string {
		if s == "" {
			return none
		}
		return s
	}
	var names []string
	for _, r := range p.Recipients {
		names = append(names, r.Name)
	}
	fmt.Fprintf(&b, "Evidence package\n\n")
	line("package", "%s", p.ID)
	line("case", "%s", p.Case)
	line("purpose", "%s", p.Purpose)
	line("for", "%s", strings.Join(names, ", "))
	line("return or destroy by", "%s", p.Due)
	line("made", "%s", p.Made)
	line("ledger", "%s", p.Log)
	fmt.Fprintln(&b)
	line("records", "%d of %d sealed segments", p.Counts.Records, p.Counts.Segments)
	line("originals", "%d; %d withheld", p.Counts.Originals, p.Counts.Withheld)
	line("statements", "%d", p.Counts.Statements)
	line("from", "%s", or(p.Scope.From, "the beginning"))
	line("to", "%s", or(p.Scope.To, "the end"))
	line("compartments", "%s", all(p.Scope.Compartments, "all"))
	line("sources", "%s", all(p.Scope.Sources, "all"))
	line("query", "%s", or(p.Scope.Query, "none"))
	line("people named", "%s", all(p.People, "nobody"))
	line("everybody else", "%d tokens, which stay tokens", p.Others)
	for _, u := range p.Unread {
		line("not readable", "segment %s: %s", u.Segment, u.Why)
	}
	fmt.Fprintf(&b, "\nRecords by source\n")
	for _, s := range p.Sources {
		fmt.Fprintf(&b, "%9d  %s\n", s.Records, s.Name)
	}
	fmt.Fprintf(&b, "\nRecords: the earliest %d, %d more in data/records\n", len(p.Rows), p.More)
	for _, r := range p.Rows {
		fmt.Fprintf(&b, "%s  %s  %s  %s\n    %s\n", r.At, r.Source, r.Dataset, r.Ref, r.Text)
	}
	fmt.Fprintf(&b, "\nChain of custody\n")
	for _, s := range p.Statements {
		fmt.Fprintf(&b, "%9d  %s  %-22s %s\n", s.Index, s.At, s.Kind, s.Actor)
	}
	fmt.Fprintf(&b, "\nMade with\n")
	var tools []string
	for k := range p.Tools {
		tools = append(tools, k)
	}
	slices.Sort(tools)
	for _, k := range tools {
		line(k, "%s", p.Tools[k])
	}
	return b.Bytes()
}
