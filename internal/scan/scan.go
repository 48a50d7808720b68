// Package scan asks Sigma rules about log files, without a server and without
// keeping anything: the command `counterseal scan`. It owns the way from paths to
// printed findings and the one-page summary.
//
// It promises:
//
//   - Findings are printed as they are found, in the order of paths and of the
//     records inside a file, however many cores work. The same files and rules give
//     the same findings.
//   - Input that cannot be read fails nothing: a file, a chunk, a record or a line
//     costs itself, and the summary counts it.
//   - Names of people are printed as tokens, made with a key that ends with the
//     run, unless Options.Clear asks for the names. Rules see the values as they
//     stand in the file; whoever scans holds the files anyway.
//   - Text of logs never controls a terminal: control characters and marks that
//     change the direction of text are printed as escapes.
//   - Memory does not grow with the input. Pieces of about 1 MiB are in flight, a
//     few for each core, and the tables of the summary are bounded.
//
// Opening files is left to internal/collect, reading lines to internal/parse,
// tokens to internal/pseudonym, rules to sigma.
package scan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/counterseal/counterseal/evtx"
	"github.com/counterseal/counterseal/internal/detect"
	"github.com/counterseal/counterseal/sigma"
)

// Level is the weight of a rule.
type Level int

// The levels of Sigma. A rule that names none has None.
const (
	None Level = iota
	Informational
	Low
	Medium
	High
	Critical
)

var levelNames = [...]string{"", "informational", "low", "medium", "high", "critical"}

func (l Level) String() string { return levelNames[l] }

// ParseLevel reads the name of a level.
func ParseLevel(s string) (Level, error) {
	for i, name := range levelNames {
		if i > 0 && s == name {
			return Level(i), nil
		}
	}
	return None, fmt.Errorf("unknown level %q: one of informational, low, medium, high, critical", s)
}

// levelOf is the level of a rule as its author wrote it.
func levelOf(s string) Level {
	l, err := ParseLevel(strings.ToLower(s))
	if err != nil {
		return None
	}
	return l
}

// The formats in which findings are printed.
const (
	Table = "table"
	JSONL = "jsonl"
	CSV   = "csv"
)

// Options say what to scan and where to print.
type Options struct {
	Paths []string      // files and folders
	Rules []detect.File // Sigma rules

	Out    io.Writer // findings in Format; nil: not printed
	Format string    // Table, JSONL or CSV; empty is Table
	JSONL  io.Writer // findings as JSON lines as well; nil: not
	Notes  io.Writer // the summary, and what is no finding; nil: not printed

	Clear    bool  // print names instead of tokens
	MinLevel Level // leave findings of lower rules out
	// Choose leaves the findings of other rules out. Nil: every rule counts.
	Choose func(*sigma.Rule) bool

	// Progress is told how many bytes of the files' sizes are done. Nil: nobody is.
	Progress func(done, total int64)
	Workers  int              // 0: one for each core
	Now      func() time.Time // nil: time.Now
}

// ErrNoInput is returned when no path was given.
var ErrNoInput = errors.New("nothing to scan: name a file or a folder")

// Run scans. It fails when the options make no sense, when a printer fails, and
// when ctx ends; never for what the files hold. The summary holds what was done
// until then.
func Run(ctx context.Context, o Options) (Summary, error) {
	if len(o.Paths) == 0 {
		return Summary{}, ErrNoInput
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	rules, err := detect.Compile(o.Rules)
	if err != nil {
		return Summary{}, err
	}
	mask, err := newMask(o.Clear)
	if err != nil {
		return Summary{}, err
	}
	out, err := newPrinters(&o, mask)
	if err != nil {
		return Summary{}, err
	}
	received := o.Now()
	sum := newTally(o.MinLevel, rules, received)

	// One producer reads files in order, the workers ask the rules, and this
	// goroutine takes the answers in the order of the pieces. The length of the
	// queue bounds the memory.
	group, ctx := errgroup.WithContext(ctx)
	var lend buffers
	work := make(chan *piece)
	order := make(chan *piece, 2*o.Workers)
	group.Go(func() error {
		defer close(work)
		defer close(order)
		return produce(ctx, &o, &lend, func(p *piece) error {
			p.done = make(chan struct{})
			select {
			case order <- p:
			case <-ctx.Done():
				return ctx.Err()
			}
			if p.problem != nil {
				close(p.done)
				return nil
			}
			select {
			case work <- p:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	var templates evtx.Cache // one for all event logs
	for range o.Workers {
		group.Go(func() error {
			w := worker{set: rules.Set(), received: received, min: o.MinLevel, choose: o.Choose, buffers: &lend, mask: mask}
			w.chunk.Use(&templates)
			for p := range work {
				w.judge(p)
				close(p.done)
			}
			return nil
		})
	}
	group.Go(func() error {
		for p := range order {
			select {
			case <-p.done:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := emit(p, mask, out, sum); err != nil {
				return err
			}
		}
		return nil
	})
	err = group.Wait()
	if flushErr := out.flush(); err == nil {
		err = flushErr
	}
	s := sum.summary(o.Now())
	if err != nil {
		return s, fmt.Errorf("scanning: %w", err)
	}
	if o.Notes != nil {
		if err := s.Print(o.Notes); err != nil {
			return s, fmt.Errorf("printing the summary: %w", err)
		}
	}
	return s, nil
}

// emit prints the findings of one piece and counts it.
func emit(p *piece, mask *mask, out *printers, sum *tally) error {
	if err := sum.piece(p, mask); err != nil {
		return err
	}
	if p.err != nil {
		return p.err
	}
	for i := range p.findings {
		sum.finding(&p.findings[i])
		if err := out.print(&p.findings[i]); err != nil {
			return err
		}
	}
	if len(p.findings) > 0 {
		return out.flush()
	}
	return nil
}
