package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterseal/counterseal/internal/durable"
)

// terminalSession is what a terminal keeps after a login.
type terminalSession struct {
	URL     string    `json:"url"`
	CA      string    `json:"ca,omitempty"` // the PEM file that vouches for the server, where the system does not
	Secret  string    `json:"secret"`
	Expires time.Time `json:"expires"`
}

// ended tells whoever asks that the session is over. What was asked as an account is never
// asked as the owner of the machine without their knowing.
func (s *terminalSession) ended() error {
	if time.Now().Before(s.Expires) {
		return nil
	}
	return &exitError{code: exitRefused, err: errors.New("the session of this terminal has ended"), hint: "sign in again: counterseal login; or forget it: counterseal logout"}
}

const maxSessionFile = 4 << 10

// sessionPath is where it lies: $XDG_CONFIG_HOME/counterseal/session.
func sessionPath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("finding the folder of the session: %w", err)
	}
	return filepath.Join(dir, "counterseal", "session"), nil
}

// readSession reads the session of this terminal, nil where there is none.
func readSession() (*terminalSession, error) {
	path, err := sessionPath()
	if err != nil {
		return nil, nil // a service without a home has signed in nowhere
	}
	st, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the session: %w", err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, &exitError{code: exitFailed, err: fmt.Errorf("%s can be read by others, so it is not used", path), hint: "end it with counterseal logout, then sign in again"}
	}
	b, err := readBounded(path, maxSessionFile)
	if err != nil {
		return nil, fmt.Errorf("reading the session: %w", err)
	}
	s, err := parseSession(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

func parseSession(b []byte) (*terminalSession, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var s terminalSession
	if len(b) > maxSessionFile || d.Decode(&s) != nil {
		return nil, errors.New("this is no session of a terminal")
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("this is no session of a terminal")
	}
	if _, err := loginURL(s.URL); err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	if s.Secret == "" || strings.Trim(s.Secret, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
		return nil, errors.New("secret: holds something else than letters, digits, _ and -")
	}
	if s.CA != "" && !filepath.IsAbs(s.CA) {
		return nil, errors.New("ca: is no absolute path")
	}
	if s.Expires.IsZero() {
		return nil, errors.New("expires: is missing")
	}
	return &s, nil
}

// loginURL takes an address of a login: https, so that the secret is never sent in clear.
func loginURL(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("write the address of the login as https://host or https://host:port")
	}
	return "https://" + strings.ToLower(u.Host), nil
}

// bearer is what a request of this terminal carries to the server of a configuration: the
// session, where it belongs to that server. Without one whoever may open the socket asks
// as the owner of the machine.
func bearer(c *config) (string, error) {
	if c.Login.Address == "" {
		return "", nil
	}
	s, err := readSession()
	if s == nil || err != nil || s.URL != c.Login.Origin {
		return "", err
	}
	if err := s.ended(); err != nil {
		return "", err
	}
	return "Bearer " + s.Secret, nil
}

// asking talks to the login over the network.
type asking struct {
	http *http.Client
	url  string
	ca   string // kept with the session
}

func newAsking(address, ca string) (*asking, error) {
	u, err := loginURL(address)
	if err != nil {
		return nil, usage("--server: %v", err)
	}
	if ca, err = absoluteFile(ca); err != nil {
		return nil, usage("--ca: %v", err)
	}
	t, err := trusting(ca)
	if err != nil {
		return nil, err
	}
	return &asking{&http.Client{Transport: t, Timeout: 30 * time.Second, CheckRedirect: noRedirect}, u, ca}, nil
}

// trusting is TLS 1.3 to servers that the system knows or, with ca, that this authority
// vouches for.
func trusting(ca string) (*http.Transport, error) {
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 10 * time.Second, ForceAttemptHTTP2: true,
		DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13}}
	if ca == "" {
		return t, nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, usage("--ca: %v", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, usage("--ca: no certificate in %s", ca)
	}
	t.TLSClientConfig.RootCAs = pool
	return t, nil
}

// post sends JSON and decodes an answer of 200.
func (a *asking) post(ctx context.Context, path, secret string, in, out any) (status int, err error) {
	b, err := json.Marshal(in)
	if err != nil {
		return 0, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url+path, bytes.NewReader(b))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", "application/json")
	if secret != "" {
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	w, err := a.http.Do(r)
	if err != nil {
		return 0, fmt.Errorf("asking the login: %w", errors.Unwrap(err)) // without the address
	}
	defer w.Body.Close()
	if w.StatusCode == http.StatusOK && out != nil {
		if err := json.NewDecoder(io.LimitReader(w.Body, maxSessionFile)).Decode(out); err != nil {
			return 0, fmt.Errorf("reading the answer of the login: %w", err)
		}
	}
	return w.StatusCode, nil
}

func newLogin(env *environment) *cobra.Command {
	var f configFlags
	var address, ca string
	cmd := &cobra.Command{Use: "login [--server URL]", Short: "Sign in this terminal through a browser", Args: cobra.NoArgs,
		Long: "Login shows an address and a code. Open the address in a browser, sign in there, and type\n" +
			"the code. The session of this terminal then lies in counterseal/session in the folder of\n" +
			"your settings; commands send it, and what they ask is judged and recorded as asked by your\n" +
			"account. It ends after 20 minutes without use, after 8 hours, or with counterseal logout.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if address == "" {
				var err error
				if address, err = whereToSignIn(&f); err != nil {
					return err
				}
			}
			if ca == "" {
				ca = os.Getenv("COUNTERSEAL_CA")
			}
			if s, err := readSession(); ca == "" && s != nil && err == nil {
				if u, err := loginURL(address); err == nil && u == s.URL {
					ca = s.CA // as at the login before
				}
			}
			a, err := newAsking(address, ca)
			if err != nil {
				return err
			}
			return a.login(cmd.Context(), env)
		}}
	f.add(cmd)
	addServerFlags(cmd, &address, &ca)
	return cmd
}

// whereToSignIn is the server of the environment, that of the configuration, or the one at
// which this terminal signed in before.
func whereToSignIn(f *configFlags) (string, error) {
	if address := os.Getenv("COUNTERSEAL_SERVER"); address != "" && f.file == "" && f.data == "" {
		return address, nil
	}
	cfg, err := f.load()
	if err != nil {
		return "", err
	}
	if cfg.Login.Origin != "" {
		return cfg.Login.Origin, nil
	}
	if s, err := readSession(); s != nil && err == nil && cfg.path == "" {
		return s.URL, nil
	}
	return "", usage("--server is the address of the login: the configuration has none")
}

func (a *asking) login(ctx context.Context, env *environment) error {
	var start struct {
		Device   string `json:"device_code"`
		User     string `json:"user_code"`
		Life     int    `json:"expires_in"`
		Interval int    `json:"interval"`
	}
	status, err := a.post(ctx, "/login/cli/start", "", struct{}{}, &start)
	switch {
	case err != nil:
		return err
	case status == http.StatusTooManyRequests:
		return &exitError{code: exitRefused, err: errors.New("too many logins are under way"), hint: "try again in a minute"}
	case status != http.StatusOK:
		return fmt.Errorf("the login answered %d", status)
	case start.Device == "" || strings.Trim(start.User, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" || start.Life < 1 || start.Life > 3600 || start.Interval < 1 || start.Interval > 60:
		return errors.New("the login answered something else than its codes")
	}
	fmt.Fprintf(env.stdout, "open      %s/login/cli\ncode      %s\n", a.url, start.User)
	ctx, stop := context.WithTimeout(ctx, time.Duration(start.Life)*time.Second)
	defer stop()
	tick := time.NewTicker(time.Duration(start.Interval) * time.Second)
	defer tick.Stop()
	var done struct {
		Secret  string    `json:"secret"`
		Account string    `json:"account"`
		Expires time.Time `json:"expires"`
	}
	for status = http.StatusAccepted; status != http.StatusOK; {
		select {
		case <-ctx.Done():
			return &exitError{code: exitRefused, err: errors.New("nobody confirmed the code in time"), hint: "begin again: counterseal login"}
		case <-tick.C:
		}
		status, err = a.post(ctx, "/login/cli/finish", "", map[string]string{"device_code": start.Device}, &done)
		switch {
		case ctx.Err() != nil: // said above
		case err != nil:
			return err
		case status != http.StatusOK && status != http.StatusAccepted && status != http.StatusTooManyRequests:
			return &exitError{code: exitRefused, err: errors.New("the login was refused"), hint: "the account may be disabled; the reason stands in the ledger"}
		}
	}
	b, err := json.Marshal(terminalSession{URL: a.url, CA: a.ca, Secret: done.Secret, Expires: done.Expires})
	if err != nil {
		return err
	}
	if _, err := parseSession(b); err != nil {
		return fmt.Errorf("the answer of the login: %w", err)
	}
	path, err := sessionPath()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("keeping the session: %w", err)
	}
	var disk durable.FS
	if err := disk.WriteFile(path, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("keeping the session: %w", err)
	}
	fmt.Fprintf(env.stdout, "signed in as %s until %s\n", done.Account, done.Expires.UTC().Format(time.RFC3339))
	return nil
}

func newLogout(env *environment) *cobra.Command {
	var ca string
	cmd := &cobra.Command{Use: "logout", Short: "End the session of this terminal", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ca == "" {
				ca = os.Getenv("COUNTERSEAL_CA")
			}
			return logout(cmd.Context(), env, func(s *terminalSession) (*asking, error) {
				if ca == "" {
					return newAsking(s.URL, s.CA)
				}
				return newAsking(s.URL, ca)
			})
		}}
	cmd.Flags().StringVar(&ca, "ca", "", "PEM `file` of the authority that signed the certificate of the server (default that of the login, or $COUNTERSEAL_CA)")
	return cmd
}

// logout ends the session at its server and forgets it here, also where the server cannot
// be told or the file is not fit to be used.
func logout(ctx context.Context, env *environment, ask func(*terminalSession) (*asking, error)) error {
	path, err := sessionPath()
	if err != nil {
		return err
	}
	s, err := readSession()
	if s == nil && err == nil {
		_, err = fmt.Fprintln(env.stdout, "no session is kept here")
		return err
	}
	if s == nil { // others may have read it: all the more it is ended
		if b, err := readBounded(path, maxSessionFile); err == nil {
			s, _ = parseSession(b)
		}
	}
	told := errors.New("its file cannot be read")
	if s != nil {
		a, err := ask(s)
		if err != nil {
			return err
		}
		var status int
		status, told = a.post(ctx, "/login/out", s.Secret, struct{}{}, nil)
		if told == nil && status != http.StatusOK && status != http.StatusUnauthorized { // 401: it had ended
			told = fmt.Errorf("the login answered %d", status)
		}
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("removing the session: %w", err)
	}
	if told != nil {
		return &exitError{code: exitFailed, err: fmt.Errorf("the session is forgotten here, but its server was not told: %w", told), hint: "it ends by itself within 20 minutes; revoke it under your account in the browser"}
	}
	_, err = fmt.Fprintln(env.stdout, "signed out")
	return err
}
