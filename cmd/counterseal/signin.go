package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/collect"
	"github.com/counterseal/counterseal/internal/login"
	"github.com/counterseal/counterseal/internal/policy"
	"github.com/counterseal/counterseal/internal/web"
)

// check refuses what cannot work, naming the key.
func (c *loginConfig) check() error {
	if c.Address == "" {
		if c.Cert != "" || c.Key != "" || c.Origin != "" || c.RPID != "" || c.OIDC != "" || len(c.Proxy) > 0 {
			return errors.New("address: host:port is missing, so nothing would listen")
		}
		return nil
	}
	if _, port, err := net.SplitHostPort(c.Address); err != nil || port == "" {
		return errors.New("address: write it as host:port")
	}
	if (c.Cert == "") != (c.Key == "") {
		return errors.New("cert and login.key: one is no use without the other")
	}
	if c.Cert == "" && loopback(c.Address) != nil {
		return errors.New("cert and login.key are needed: beyond loopback there is TLS only")
	}
	u, err := url.Parse(c.Origin)
	if err != nil || u.Scheme != "https" || u.Host == "" || c.Origin != "https://"+u.Host || u.Host != strings.ToLower(u.Host) {
		return errors.New("origin: write what browsers show, as https://host or https://host:port, in lower case and without a path")
	}
	if _, err := netip.ParseAddr(u.Hostname()); err == nil {
		return errors.New("origin: a name is needed, since passkeys are not bound to addresses")
	}
	if c.RPID != "" && c.RPID != u.Hostname() && !strings.HasSuffix(u.Hostname(), "."+c.RPID) {
		return errors.New("rp_id: passkeys are bound to the host of origin or to a domain above it")
	}
	for i, p := range c.Proxy {
		if _, err := netip.ParsePrefix(p); err != nil {
			return fmt.Errorf("proxy[%d]: a network is written like 192.0.2.0/28", i)
		}
	}
	return nil
}

// login is what the section login says: the options of the service, without Store and
// Record, and the TLS side, nil where a reverse proxy on this machine ends it.
func (c *config) login() (o login.Options, t *tls.Config, err error) {
	l := &c.Login
	u, err := url.Parse(l.Origin)
	if err != nil {
		return o, nil, fmt.Errorf("login.origin: %w", err)
	}
	o.Origin, o.RPID = l.Origin, l.RPID
	if o.RPID == "" {
		o.RPID = u.Hostname()
	}
	for _, p := range l.Proxy {
		prefix, err := netip.ParsePrefix(p)
		if err != nil {
			return o, nil, fmt.Errorf("login.proxy: %w", err)
		}
		o.Proxies = append(o.Proxies, prefix)
	}
	if l.OIDC != "" {
		b, err := readBounded(l.OIDC, 64<<10)
		if err != nil {
			return o, nil, fmt.Errorf("login.oidc: %w", err)
		}
		p, err := login.ParseOIDC(b)
		if err != nil {
			return o, nil, fmt.Errorf("login.oidc: %s: %w", l.OIDC, err)
		}
		if p.RedirectURL != l.Origin+"/login/oidc/callback" {
			return o, nil, fmt.Errorf("login.oidc: %s: redirect_url must be login.origin followed by /login/oidc/callback", l.OIDC)
		}
		o.OIDC = &p
	}
	if l.Cert != "" {
		if t, err = (&collect.TLSFiles{Cert: l.Cert, Key: l.Key}).Config(); err != nil {
			return o, nil, fmt.Errorf("login.cert: %w", err)
		}
	}
	return o, t, nil
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return b, err
}

// signIn is the login of a server. The methods of a nil one do nothing or say that there
// is none, so the rest of the server needs not ask.
type signIn struct {
	s     *server
	db    *login.DB
	login *login.Service
	pages *web.SignIn
	roles []string
	tls   *tls.Config
	l     net.Listener // nil: commands without a running server have none

	signatures signatures // of statements, by passkey

	mu     sync.Mutex // guards the rest
	stated int        // refusals of strangers stated since
	silent int        // and not stated
	since  time.Time
}

// openLogin opens the login that the configuration names, nil where it names none. The
// ledger must be open. login.db lies apart from state/, which may be deleted.
func (s *server) openLogin(ctx context.Context) (*signIn, error) {
	if s.cfg.Login.Address == "" {
		return nil, nil
	}
	o, t, err := s.cfg.login()
	if err != nil {
		return nil, err
	}
	var dir fs.FS = policy.Default()
	if s.cfg.Policies != "" {
		dir = os.DirFS(s.cfg.Policies)
	}
	set, err := policy.Load(dir)
	if err != nil {
		return nil, fmt.Errorf("policies: %w", err)
	}
	x := &signIn{s: s, tls: t, roles: slices.DeleteFunc(set.Roles(), func(r string) bool { return r == "founder" })}
	if o.OIDC != nil {
		for _, roles := range o.OIDC.Roles {
			for _, r := range roles {
				if !slices.Contains(x.roles, r) {
					return nil, fmt.Errorf("login.oidc: %s: a group has a role that the policies do not know", s.cfg.Login.OIDC)
				}
			}
		}
	}
	if x.db, err = login.Open(filepath.Join(s.cfg.Data, "login")); err != nil {
		return nil, err
	}
	o.Store, o.Record, o.Signed, o.Now = x.db, x.record, x.signed, s.now
	if x.login, err = login.New(o); err == nil {
		x.pages, err = web.NewSignIn(web.SignInOptions{Login: x.login, Origin: o.Origin, Provider: o.OIDC != nil, Log: s.log, Now: s.now,
			Empty: func(r *http.Request) (bool, error) { return x.empty(r.Context()) }})
	}
	if err == nil {
		err = x.restateEnrolments(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, x.db.Close())
	}
	return x, nil
}

func (x *signIn) empty(ctx context.Context) (bool, error) {
	n, err := x.db.Accounts(ctx)
	return n == 0, err
}

func (x *signIn) close() error {
	if x == nil {
		return nil
	}
	return x.db.Close()
}

// strangersPerMinute is how many refusals of unknown people are stated one by one. Who has
// many addresses can be refused as often as they like; the ledger then hears how often.
const strangersPerMinute = 60

// record makes the statements of the login.
func (x *signIn) record(ctx context.Context, kind, actor string, detail map[string]any) error {
	act := attest.Act{Kind: kind, Actor: actor, Detail: detail}
	if strings.HasPrefix(actor, "u_") {
		act.Actor = "account:" + actor
	}
	for _, name := range []string{"account", "session", "token", "passkey", "alarm"} {
		if id, ok := detail[name].(string); ok {
			act.Subject = append(act.Subject, id)
		}
	}
	if kind == "login.refused" && actor == login.Nobody {
		x.mu.Lock()
		if now := x.s.now(); now.Sub(x.since) >= time.Minute || now.Before(x.since) {
			x.since, x.stated = now, 0
		}
		x.stated++
		if x.stated > strangersPerMinute {
			x.silent++
			x.mu.Unlock()
			return nil
		}
		if x.silent > 0 {
			detail["times"] = x.silent + 1
			x.silent = 0
		}
		x.mu.Unlock()
	}
	// Who closes the connection does not undo what was decided.
	_, err := x.s.pipe.Recorder().Record(context.WithoutCancel(ctx), act)
	return err
}

// listenLogin opens the address of the login.
func (x *signIn) listenLogin() error {
	if x == nil {
		return nil
	}
	l, err := net.Listen("tcp", x.s.cfg.Login.Address)
	if err != nil {
		return fmt.Errorf("login: %w", err)
	}
	x.l = l
	return nil
}

// handler is the door for people: inner is asked with whoever signed in in its context.
func (x *signIn) handler(inner http.Handler) http.Handler { return x.pages.Handler(inner) }

// socket puts who signed in at a terminal into the context of the requests at the socket.
func (x *signIn) socket(inner http.Handler) http.Handler {
	if x == nil {
		return inner
	}
	return x.login.Middleware(inner)
}

// run serves the door until the context ends.
func (x *signIn) run(ctx context.Context, inner http.Handler) error {
	if x == nil || x.l == nil {
		return nil
	}
	srv := &http.Server{
		Handler: x.handler(inner), TLSConfig: x.tls, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 5 * time.Minute, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(x.s.log.Handler(), slog.LevelDebug), // handshakes of scanners
	}
	stopped := make(chan error, 1)
	go func() { // ends with the context
		<-ctx.Done()
		x.signatures.tell("", "", true)
		c, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err := srv.Shutdown(c)
		if err != nil {
			err = srv.Close()
		}
		stopped <- err
	}()
	serve := func() error { return srv.Serve(x.l) }
	if x.tls != nil {
		serve = func() error { return srv.ServeTLS(x.l, "", "") }
	}
	if err := serve(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("login: %w", err)
	}
	return <-stopped
}

// announce says where people sign in. The secret of the set-up goes to a terminal alone:
// what is no terminal is kept, by a journal or a file.
func (x *signIn) announce(ctx context.Context, w io.Writer) error {
	if x == nil || x.l == nil {
		return nil
	}
	fmt.Fprintf(w, "login     %s/login/ on %s\n", x.s.cfg.Login.Origin, x.l.Addr())
	empty, err := x.empty(ctx)
	if err != nil || !empty {
		return err
	}
	if !terminal(w) {
		fmt.Fprintln(w, "set-up    no account exists; on a terminal: counterseal account setup")
		return nil
	}
	secret, err := x.login.SetUp(ctx, firstRoles)
	if err != nil {
		return err
	}
	printSetUp(w, x.s.cfg.Login.Origin, secret)
	return nil
}

// firstRoles are the roles of the first account: it invites the others and sees no events.
var firstRoles = []string{"compliance"}

func printSetUp(w io.Writer, origin, secret string) {
	fmt.Fprintf(w, "set-up    %s/login/setup\n          type there, within %d minutes: %s\n", origin, int(login.SecretLife/time.Minute), secret)
}
