package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/login"
	"github.com/counterseal/counterseal/internal/web"
)

// What the acts about tokens are given and answer.
type (
	tokenCreate struct {
		Account string   `json:"account"` // empty: that of who asks, or a new one for a machine
		Scopes  []string `json:"scopes"`
		Days    int      `json:"days"`
	}
	tokenMade struct {
		tokenRow
		Text string `json:"text"`
	}
	tokenRow struct {
		Token   string    `json:"token"`
		Account string    `json:"account"`
		Scopes  []string  `json:"scopes"`
		Made    time.Time `json:"made"`
		Until   time.Time `json:"until"`
		Used    time.Time `json:"used,omitzero"`
	}
	tokenNamed struct {
		Token string `json:"token"`
	}
)

func newTokenRow(t *login.APIToken) tokenRow {
	day := func(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
	row := tokenRow{Token: t.ID, Account: t.Account, Scopes: t.Scopes, Made: day(t.Created), Until: day(t.Expires)}
	if t.Used.Unix() > 0 {
		row.Used = day(t.Used)
	}
	return row
}

// machineRoles are the roles of an account that is made for a token.
var machineRoles = []string{"collector"}

func (x *signIn) tokenCreate(ctx context.Context, actor string, body []byte) (any, error) {
	if err := x.ready(ctx, true); err != nil {
		return nil, err
	}
	var in tokenCreate
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, web.BadRequest("this asks for no token", "")
	}
	if in.Days < 1 || in.Days > 365 {
		return nil, web.BadRequest("a token lives for 1 to 365 days", "")
	}
	life := time.Duration(in.Days) * 24 * time.Hour
	if err := login.CheckToken(in.Scopes, life); err != nil {
		return nil, loginError(err, "token")
	}
	who, signedIn := login.From(ctx)
	switch {
	case in.Account != "" && signedIn && in.Account != who.Account.ID:
		return nil, &web.Refused{Reason: "a token acts for its account, and this is another's", Hint: "leave --account out"}
	case in.Account == "" && signedIn:
		in.Account = who.Account.ID
	case in.Account == "":
		a, err := x.login.Machine(ctx, actor, machineRoles)
		if err != nil {
			return nil, loginError(err, "account")
		}
		in.Account = a.ID
	}
	text, t, err := x.login.NewToken(ctx, actor, in.Account, in.Scopes, life)
	if err != nil {
		return nil, loginError(err, "account")
	}
	return tokenMade{newTokenRow(&t), text}, nil
}

func (x *signIn) tokenList(ctx context.Context, _ string, _ []byte) (any, error) {
	if err := x.ready(ctx, false); err != nil {
		return nil, err
	}
	all, err := x.login.Tokens(ctx)
	if err != nil {
		return nil, err
	}
	rows := []tokenRow{}
	for i := range all {
		rows = append(rows, newTokenRow(&all[i]))
	}
	return rows, nil
}

func (x *signIn) tokenRevoke(ctx context.Context, actor string, body []byte) (any, error) {
	if err := x.ready(ctx, true); err != nil {
		return nil, err
	}
	var in tokenNamed
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, web.BadRequest("this names no token", "")
	}
	if err := x.login.RevokeToken(ctx, actor, in.Token); err != nil {
		return nil, loginError(err, "token")
	}
	return in, nil
}

func newToken(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Tokens of machines: make, list, revoke", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newTokenCreate(env), newTokenList(env), newTokenRevoke(env))
	return cmd
}

func newTokenCreate(env *environment) *cobra.Command {
	var f configFlags
	in := tokenCreate{Days: 90}
	var out string
	cmd := &cobra.Command{Use: "create --scope SCOPE… [--days N] [-o FILE]", Short: "Make a token for a machine", Args: cobra.NoArgs,
		Long: "Create makes a token that may do what its scopes name, and no more than its account may.\n" +
			"Its text is shown once; with -o it goes into a file that only you can read. Whoever is\n" +
			"signed in makes it for the own account; the owner of the machine for a new account of a\n" +
			"machine, or for the one that --account names.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(in.Scopes) == 0 {
				return usage("--scope is what the token may do; it repeats")
			}
			var made tokenMade
			if err := doAct(cmd, env, &f, "token.create", &in, &made); err != nil {
				return err
			}
			if out != "" {
				if err := writeNew(out, []byte(made.Text+"\n")); err != nil {
					return &exitError{code: exitFailed, err: err, hint: "the token is lost; revoke it: counterseal token revoke " + made.Token}
				}
			}
			fmt.Fprintf(env.stdout, "token     %s\naccount   %s\nscopes    %s\nuntil     %s\n", made.Token, made.Account, strings.Join(made.Scopes, " "), made.Until.Format(time.RFC3339))
			if out == "" {
				fmt.Fprintf(env.stdout, "text      %s\n", made.Text)
			}
			return nil
		}}
	f.add(cmd)
	cmd.Flags().StringArrayVar(&in.Scopes, "scope", nil, "`scope` of the token, such as ingest; it repeats")
	cmd.Flags().IntVar(&in.Days, "days", in.Days, "`days` that it lives, at most 365")
	cmd.Flags().StringVar(&in.Account, "account", "", "`account` that it acts for")
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` for the text, which must not be there")
	return cmd
}

func newTokenList(env *environment) *cobra.Command {
	var f configFlags
	var format string
	cmd := &cobra.Command{Use: "list", Short: "List tokens, not their texts", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "table" && format != "jsonl" {
				return usage("--format is table or jsonl")
			}
			var rows []tokenRow
			if err := doAct(cmd, env, &f, "token.list", struct{}{}, &rows); err != nil {
				return err
			}
			if format == "jsonl" {
				return printLines(env, rows)
			}
			w := tabwriter.NewWriter(env.stdout, 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "TOKEN\tACCOUNT\tSCOPES\tUNTIL\tLAST USED")
			for _, r := range rows {
				used := "never"
				if !r.Used.IsZero() {
					used = r.Used.Format(time.DateOnly)
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.Token, r.Account, strings.Join(r.Scopes, ","), r.Until.Format(time.DateOnly), used)
			}
			return w.Flush()
		}}
	f.add(cmd)
	cmd.Flags().StringVar(&format, "format", "table", "table or jsonl")
	return cmd
}

func newTokenRevoke(env *environment) *cobra.Command {
	var f configFlags
	cmd := &cobra.Command{Use: "revoke TOKEN", Short: "End a token at once", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var out tokenNamed
			if err := doAct(cmd, env, &f, "token.revoke", tokenNamed{args[0]}, &out); err != nil {
				return err
			}
			_, err := fmt.Fprintf(env.stdout, "token %s is revoked\n", out.Token)
			return err
		}}
	f.add(cmd)
	return cmd
}
