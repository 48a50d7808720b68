package login

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ErrBad is wrapped where the caller asks for what cannot be, with the reason.
var ErrBad = errors.New("not possible")

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrBad}, args...)...)
}

type invitation struct {
	account string
	roles   []string
	first   bool
}

// SetUp returns the secret that makes the first account, valid once and for SecretLife.
// It fails when an account exists. The caller prints it on the terminal, nowhere else.
func (s *Service) SetUp(ctx context.Context, roles []string) (string, error) {
	n, err := s.o.Store.Accounts(ctx)
	if err != nil {
		return "", err
	}
	if n > 0 {
		return "", bad("set-up is over: an account exists")
	}
	return s.secrets.put(invitation{account: id("u_"), roles: roles, first: true}, s.o.Now(), SecretLife)
}

// Invite returns a secret that makes one further account, and the id that the account
// will have. The caller has asked the policy; actor is who invites.
func (s *Service) Invite(ctx context.Context, actor string, roles []string) (secret, account string, err error) {
	if err := checkRoles(roles); err != nil {
		return "", "", err
	}
	account = id("u_")
	if err := s.record(ctx, "account.changed", actor, map[string]any{"account": account, "change": "invited", "roles": roles}); err != nil {
		return "", "", err
	}
	secret, err = s.secrets.put(invitation{account: account, roles: roles}, s.o.Now(), SecretLife)
	return secret, account, err
}

// Machine makes an account that no person logs in to: it can only hold tokens.
func (s *Service) Machine(ctx context.Context, actor string, roles []string) (Account, error) {
	if err := checkRoles(roles); err != nil {
		return Account{}, err
	}
	a := Account{ID: id("u_"), Roles: roles, Created: s.o.Now()}
	if err := s.record(ctx, "account.made", actor, map[string]any{"account": a.ID, "way": "machine", "roles": roles}); err != nil {
		return a, err
	}
	return a, s.o.Store.PutAccount(ctx, a)
}

func checkRoles(roles []string) error {
	if len(roles) == 0 || len(roles) > 16 {
		return bad("an account needs 1 to 16 roles")
	}
	for _, r := range roles {
		if r == "" || len(r) > 64 || strings.Trim(r, "abcdefghijklmnopqrstuvwxyz_") != "" {
			return bad("a role is a word of lower-case letters, such as privacy_officer")
		}
	}
	return nil
}

// Accounts lists all accounts, oldest first.
func (s *Service) Accounts(ctx context.Context) ([]Account, error) {
	return s.o.Store.AllAccounts(ctx)
}

// Sessions lists the live sessions of an account.
func (s *Service) Sessions(ctx context.Context, account string) ([]Session, error) {
	list, err := s.o.Store.Sessions(ctx, account)
	now := s.o.Now()
	return slices.DeleteFunc(list, func(x Session) bool { return x.over(now) }), err
}

// Passkeys lists the passkeys of an account.
func (s *Service) Passkeys(ctx context.Context, account string) ([]Passkey, error) {
	return s.o.Store.Passkeys(ctx, account)
}

// passkeyID names a passkey in lists and statements.
func passkeyID(credential []byte) string {
	sum := sha256.Sum256(credential)
	return hex.EncodeToString(sum[:8])
}

// Disable ends an account: its sessions and its tokens are gone when it returns, and stay
// gone when the account is enabled again.
func (s *Service) Disable(ctx context.Context, actor, account string) error {
	return s.able(ctx, actor, account, "disabled", true)
}

// Enable lets a disabled account log in again.
func (s *Service) Enable(ctx context.Context, actor, account string) error {
	return s.able(ctx, actor, account, "enabled", false)
}

func (s *Service) able(ctx context.Context, actor, account, change string, disabled bool) error {
	a, err := s.o.Store.Account(ctx, account)
	if err != nil {
		return err
	}
	if a.Disabled == disabled {
		return bad("the account is %s already", change)
	}
	if err := s.record(ctx, "account.changed", actor, map[string]any{"account": account, "change": change}); err != nil {
		return err
	}
	return s.o.Store.Disable(ctx, account, disabled)
}

// CheckToken says whether a token may be so, before anything is made for it.
func CheckToken(scopes []string, life time.Duration) error {
	if len(scopes) == 0 || len(scopes) > 32 || life <= 0 || life > 366*24*time.Hour {
		return bad("a token needs 1 to 32 scopes and a life of at most 366 days")
	}
	for _, sc := range scopes {
		if sc == "" || len(sc) > 64 || strings.Trim(sc, "abcdefghijklmnopqrstuvwxyz0123456789_.:-") != "" {
			return bad("a scope is a word of at most 64 letters, digits and . _ : -")
		}
	}
	return nil
}

// NewToken makes a token for a machine and returns its text, which is shown once. The
// caller has asked the policy; actor is who makes it.
func (s *Service) NewToken(ctx context.Context, actor, account string, scopes []string, life time.Duration) (text string, t APIToken, err error) {
	if err := CheckToken(scopes, life); err != nil {
		return "", t, err
	}
	a, err := s.o.Store.Account(ctx, account)
	if err != nil {
		return "", t, err
	}
	if a.Disabled {
		return "", t, bad("the account is disabled")
	}
	now := s.o.Now()
	text = tokenPrefix + random()
	t = APIToken{Hash: digest(text), ID: id("t_"), Account: account, Scopes: scopes, Created: now, Expires: now.Add(life)}
	if err := s.record(ctx, "token.made", actor, map[string]any{"token": t.ID, "account": account, "scopes": scopes, "until": t.Expires.UTC().Format(time.RFC3339)}); err != nil {
		return "", t, err
	}
	return text, t, s.o.Store.PutToken(ctx, t)
}

// Tokens lists the tokens that are not over, oldest first.
func (s *Service) Tokens(ctx context.Context) ([]APIToken, error) {
	list, err := s.o.Store.Tokens(ctx)
	now := s.o.Now()
	return slices.DeleteFunc(list, func(t APIToken) bool { return !now.Before(t.Expires) }), err
}

// RevokeToken ends a token.
func (s *Service) RevokeToken(ctx context.Context, actor, token string) error {
	list, err := s.o.Store.Tokens(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(t APIToken) bool { return t.ID == token })
	if i < 0 {
		return ErrUnknown
	}
	if err := s.record(ctx, "token.revoked", actor, map[string]any{"token": token}); err != nil {
		return err
	}
	return s.o.Store.RevokeToken(ctx, list[i].Account, token)
}
