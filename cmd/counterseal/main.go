// Command counterseal collects the logs and device data of an organisation, seals
// them as evidence, flags what looks wrong and answers questions about it.
//
// main builds a context from signals and an environment, runs one subcommand, and
// turns its error into an exit code. It is the only caller of os.Exit.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/ledger"
	_ "github.com/counterseal/counterseal/internal/quiet" // drops one line of the index library
)

// The exit codes, the same for every command.
const (
	exitFailed  = 1
	exitUsage   = 2
	exitRefused = 3  // by policy
	exitPartial = 4  // with --strict
	exitUnknown = 5  // cannot judge
	exitFound   = 10 // with --fail-on
)

// environment is what a command may touch beside files.
type environment struct {
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	// counted, in tests, runs in a duty host between the count of a name and its opening.
	counted func()
}

// terminal reports whether w is a terminal that a person looks at.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
}

// exitError carries an exit code. Its hint names the next command.
type exitError struct {
	code int
	err  error
	hint string
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func usage(format string, args ...any) error {
	return &exitError{code: exitUsage, err: fmt.Errorf(format, args...)}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ledger.RouteLibraryLog(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))
	code := run(ctx, &environment{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}, os.Args[1:])
	stop()
	os.Exit(code)
}

// run executes one command line and answers its exit code.
func run(ctx context.Context, env *environment, args []string) int {
	root := newRoot(env)
	root.SetArgs(args)
	root.SetIn(env.stdin)
	root.SetOut(env.stdout)
	root.SetErr(env.stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var x *exitError
	if !errors.As(err, &x) {
		x = &exitError{code: exitFailed, err: err}
	}
	if x.err != nil {
		fmt.Fprintf(env.stderr, "counterseal: %s\n", event.Printable(x.Error()))
	}
	if x.hint != "" {
		fmt.Fprintf(env.stderr, "  %s\n", x.hint)
	}
	return x.code
}

// newRoot lists the commands, the everyday ones first.
func newRoot(env *environment) *cobra.Command {
	root := &cobra.Command{
		Use:           "counterseal",
		Short:         "Sealed evidence from logs and devices, with the safeguards in the machine",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &exitError{code: exitUsage, err: err, hint: "see: " + cmd.CommandPath() + " --help"}
	})
	cobra.EnableCommandSorting = false
	root.AddCommand(
		newDemo(env), newServe(env), newScan(env), newImport(env), newSearch(env), newTimeline(env),
		newVerify(env), newRebuild(env), newDoctor(env), newVersion(env), newLogin(env), newLogout(env),
		newRules(env), newPIA(env), newPolicy(env), newOffices(env), newAuthorise(env), newGlass(env), newReview(env), newChannels(env), newOversight(env), newMe(env), newInquiry(env), newInspector(env), newConfig(env), newAccount(env), newToken(env),
		newKeys(env), newKeyholder(env), newOfficer(env), newEvidence(env), newUnmask(env), newName(env), newDuty(env), newReplay(env), newErase(env), newHold(env), newRetention(env), newProve(env), newPackage(env), newLedger(env), newWitness(env), newContain(env), newBroker(env),
	)
	addServer(root, "")
	wrapUsage(root)
	return root
}

// wrapUsage gives errors of arguments the exit code of usage.
func wrapUsage(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return &exitError{code: exitUsage, err: err, hint: "see: " + c.CommandPath() + " --help"}
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		wrapUsage(sub)
	}
}
