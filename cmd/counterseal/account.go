package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/login"
	"github.com/counterseal/counterseal/internal/web"
)

// What the acts about accounts are given and answer.
type (
	accountRow struct {
		Account  string    `json:"account"`
		Roles    []string  `json:"roles"`
		Made     time.Time `json:"made"`
		Disabled bool      `json:"disabled"`
		Provider bool      `json:"provider"` // it logs in by the provider
		Passkeys int       `json:"passkeys"`
		Sessions int       `json:"sessions"`
	}
	accountInvite struct {
		Roles []string `json:"roles"`
	}
	accountSecret struct {
		Account string `json:"account,omitempty"`
		Secret  string `json:"secret"`
		Origin  string `json:"origin"`
	}
	accountNamed struct {
		Account string `json:"account"`
	}
)

// ready says whether there is a login, and whether who asks may change it now: a session
// only while its login is fresh, and no machine at all.
func (x *signIn) ready(ctx context.Context, change bool) error {
	if x == nil {
		return web.BadRequest("there is no login here", "add the section login to "+configName)
	}
	who, ok := login.From(ctx)
	switch {
	case !ok || !change:
		return nil
	case who.Session == "":
		return &web.Refused{Reason: "a machine changes no accounts and no tokens"}
	case x.s.now().Sub(who.Since) >= login.Fresh:
		return &web.Refused{Reason: "your login is older than five minutes", Hint: "sign in again: counterseal login"}
	}
	return nil
}

// loginError tells an asker what the login said.
func loginError(err error, what string) error {
	switch {
	case errors.Is(err, login.ErrBad):
		return web.BadRequest(strings.TrimPrefix(err.Error(), login.ErrBad.Error()+": "), "")
	case errors.Is(err, login.ErrUnknown):
		return web.BadRequest("there is no such "+what, "see: counterseal "+what+" list")
	}
	return err
}

func (x *signIn) accountList(ctx context.Context, _ string, _ []byte) (any, error) {
	if err := x.ready(ctx, false); err != nil {
		return nil, err
	}
	all, err := x.login.Accounts(ctx)
	if err != nil {
		return nil, err
	}
	rows := []accountRow{}
	for _, a := range all {
		keys, err := x.login.Passkeys(ctx, a.ID)
		if err != nil {
			return nil, err
		}
		sessions, err := x.login.Sessions(ctx, a.ID)
		if err != nil {
			return nil, err
		}
		rows = append(rows, accountRow{Account: a.ID, Roles: a.Roles, Made: a.Created.UTC().Truncate(time.Second), Disabled: a.Disabled, Provider: a.External != "", Passkeys: len(keys), Sessions: len(sessions)})
	}
	return rows, nil
}

// serving refuses what lives in the memory of a running server.
func (x *signIn) serving() error {
	if x.l == nil {
		return web.BadRequest("this needs the running server, which keeps the secret", "start it with: counterseal serve")
	}
	return nil
}

func (x *signIn) accountSetUp(ctx context.Context, _ string, _ []byte) (any, error) {
	if err := x.ready(ctx, true); err != nil {
		return nil, err
	}
	if err := x.serving(); err != nil {
		return nil, err
	}
	secret, err := x.login.SetUp(ctx, firstRoles)
	if err != nil {
		return nil, loginError(err, "account")
	}
	return accountSecret{Secret: secret, Origin: x.s.cfg.Login.Origin}, nil
}

func (x *signIn) accountInvite(ctx context.Context, actor string, body []byte) (any, error) {
	if err := x.ready(ctx, true); err != nil {
		return nil, err
	}
	if err := x.serving(); err != nil {
		return nil, err
	}
	var in accountInvite
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, web.BadRequest("this is no invitation", "")
	}
	if err := x.known(in.Roles); err != nil {
		return nil, err
	}
	secret, account, err := x.login.Invite(ctx, actor, in.Roles)
	if err != nil {
		return nil, loginError(err, "account")
	}
	return accountSecret{Account: account, Secret: secret, Origin: x.s.cfg.Login.Origin}, nil
}

// known refuses roles that no policy speaks of.
func (x *signIn) known(roles []string) error {
	if len(roles) == 0 || slices.ContainsFunc(roles, func(r string) bool { return !slices.Contains(x.roles, r) }) {
		return web.BadRequest("an account has one or more of the roles that the policies know", strings.Join(x.roles, ", "))
	}
	return nil
}

func (x *signIn) accountDisable(ctx context.Context, actor string, body []byte) (any, error) {
	return x.accountAble(ctx, actor, body, func() func(context.Context, string, string) error { return x.login.Disable })
}

func (x *signIn) accountEnable(ctx context.Context, actor string, body []byte) (any, error) {
	return x.accountAble(ctx, actor, body, func() func(context.Context, string, string) error { return x.login.Enable })
}

func (x *signIn) accountAble(ctx context.Context, actor string, body []byte, do func() func(context.Context, string, string) error) (any, error) {
	if err := x.ready(ctx, true); err != nil {
		return nil, err
	}
	var in accountNamed
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, web.BadRequest("this names no account", "")
	}
	if err := do()(ctx, actor, in.Account); err != nil {
		return nil, loginError(err, "account")
	}
	return in, nil
}

func newAccount(env *environment) *cobra.Command {
	cmd := &cobra.Command{Use: "account", Short: "Accounts of people: list, invite, disable", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newAccountList(env), newAccountSetUp(env), newAccountInvite(env), newAccountAble(env, "disable"), newAccountAble(env, "enable"))
	return cmd
}

func newAccountList(env *environment) *cobra.Command {
	var f configFlags
	var format string
	cmd := &cobra.Command{Use: "list", Short: "List accounts; none of them names a person", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "table" && format != "jsonl" {
				return usage("--format is table or jsonl")
			}
			var rows []accountRow
			if err := doAct(cmd, env, &f, "account.list", struct{}{}, &rows); err != nil {
				return err
			}
			if format == "jsonl" {
				return printLines(env, rows)
			}
			w := tabwriter.NewWriter(env.stdout, 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "ACCOUNT\tSTATE\tROLES\tLOGIN\tPASSKEYS\tSESSIONS\tMADE")
			for _, r := range rows {
				state, by := "active", "passkey"
				if r.Disabled {
					state = "disabled"
				}
				switch {
				case r.Provider:
					by = "provider"
				case r.Passkeys == 0:
					by = "tokens only"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%s\n", r.Account, state, strings.Join(r.Roles, ","), by, r.Passkeys, r.Sessions, r.Made.Format(time.DateOnly))
			}
			return w.Flush()
		}}
	f.add(cmd)
	cmd.Flags().StringVar(&format, "format", "table", "table or jsonl")
	return cmd
}

func newAccountSetUp(env *environment) *cobra.Command {
	var f configFlags
	cmd := &cobra.Command{Use: "setup", Short: "Show the secret that makes the first account", Args: cobra.NoArgs,
		Long: "Setup asks the running server for the secret that makes the first account. It works once,\n" +
			"for 15 minutes, and only while no account exists.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var out accountSecret
			if err := doAct(cmd, env, &f, "account.setup", struct{}{}, &out); err != nil {
				return err
			}
			printSetUp(env.stdout, out.Origin, out.Secret)
			return nil
		}}
	f.add(cmd)
	return cmd
}

func newAccountInvite(env *environment) *cobra.Command {
	var f configFlags
	var in accountInvite
	cmd := &cobra.Command{Use: "invite --role ROLE…", Short: "Show a secret that makes one account", Args: cobra.NoArgs,
		Long: "Invite makes a secret for one person and prints it. Who types it at the address that is\n" +
			"printed with it, within 15 minutes, makes a passkey and has the account. Hand it over so\n" +
			"that you know who gets it: it is all that joins the account to a person.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(in.Roles) == 0 {
				return usage("--role is what the account may be; it repeats")
			}
			var out accountSecret
			if err := doAct(cmd, env, &f, "account.invite", &in, &out); err != nil {
				return err
			}
			_, err := fmt.Fprintf(env.stdout, "account   %s\nopen      %s/login/invited\n          type there, within %d minutes: %s\n", out.Account, out.Origin, int(login.SecretLife/time.Minute), out.Secret)
			return err
		}}
	f.add(cmd)
	cmd.Flags().StringArrayVar(&in.Roles, "role", nil, "`role` of the account; it repeats")
	return cmd
}

func newAccountAble(env *environment, verb string) *cobra.Command {
	var f configFlags
	short := "Let a disabled account sign in again"
	if verb == "disable" {
		short = "End an account: its sessions and tokens die at once"
	}
	cmd := &cobra.Command{Use: verb + " ACCOUNT", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var out accountNamed
			if err := doAct(cmd, env, &f, "account."+verb, accountNamed{args[0]}, &out); err != nil {
				return err
			}
			_, err := fmt.Fprintf(env.stdout, "account %s is %sd\n", out.Account, verb)
			return err
		}}
	f.add(cmd)
	return cmd
}
