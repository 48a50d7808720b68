package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/web"
)

type glassBroken struct {
	ID       string    `json:"id"`
	Case     string    `json:"case"`
	Subjects []string  `json:"subjects"`
	Until    time.Time `json:"until"`
	Offices  []string  `json:"offices"` // that can review it
}

func (s *server) glassBreak(ctx context.Context, _ string, body []byte) (any, error) {
	var in whom
	if json.Unmarshal(body, &in) != nil {
		return nil, web.BadRequest("this names nobody to open", "")
	}
	named, err := s.subjectsOf(ctx, in)
	if err != nil {
		return nil, err
	}
	a := web.AskerOf(ctx)
	c, err := s.cases.BreakGlass(ctx, a.Person, a.Case, named)
	if err != nil {
		return nil, caseError(err)
	}
	return glassBroken{ID: c.ID, Case: a.Case, Subjects: c.Scope.Subjects, Until: c.Until, Offices: s.couldDecide("grant.review", a.Person.ID)}, nil
}

func newGlass(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "glass", Short: "Break the glass: open people at once, loudly, and be reviewed", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newGlassBreak(env))
	return cmd
}

func newGlassBreak(env *environment) *cobra.Command {
	var f configFlags
	var l look
	var in whom
	cmd := &cobra.Command{Use: "break --case C --person ALIAS…", Short: "Open people to yourself for 4 hours, when nobody can be asked", Args: cobra.NoArgs,
		Long: fmt.Sprintf("Break opens at most %d people to a responder for %d hours. The ledger has it before anything\n", cases.GlassSubjects, int(cases.Glass/time.Hour)) +
			"is opened, and somebody else reviews it: who does not get a review within 3 days breaks\n" +
			"no other.\n\n" + aliasHelp,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if l.caseID == "" || len(in.People)+len(in.Hosts) == 0 {
				return misused(cmd, "--case is the case, and --person or --host who is to be opened")
			}
			var b glassBroken
			if err := doActIn(cmd, env, &f, &l, "break.glass", &in, &b); err != nil {
				return err
			}
			fmt.Fprintf(env.stdout, "THE GLASS IS BROKEN, by you, in case %s\n", event.Printable(b.Case))
			fmt.Fprintf(env.stdout, "it opens     %s\n", event.Printable(strings.Join(b.Subjects, "\n             ")))
			fmt.Fprintf(env.stdout, "until        %s; questions with --case %s about them alone\n", b.Until.Format(time.RFC3339), event.Printable(b.Case))
			who := strings.Join(b.Offices, ", ")
			if who == "" {
				who = "nobody in office can: look at counterseal offices check"
			}
			_, err := fmt.Fprintf(env.stdout, "reviewed by  %s\n             within %d days: counterseal review done %s --outcome …\nthe ledger has this, and every question that you ask\n", who, int(cases.ReviewWithin/(24*time.Hour)), b.ID)
			return err
		}}
	f.add(cmd)
	l.add(cmd)
	addWhom(cmd, &in)
	return cmd
}
