package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/broker"
	"github.com/counterseal/counterseal/internal/keyholder"
	"github.com/counterseal/counterseal/internal/keyring"
)

// hosted runs a command that goes on until stop, which wants it to end well.
func hosted(t *testing.T, args ...string) (out, log *spoken, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, log = newSpoken(), newSpoken()
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, &environment{stdin: strings.NewReader(""), stdout: out, stderr: log}, args)
	}()
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if code := <-done; code != 0 {
			t.Errorf("%s ended with %d: %s", args[0], code, log)
		}
	}
	t.Cleanup(stop)
	return out, log, stop
}

// TestBrokerOnAnotherHost: server, key holder and broker speak TLS to each other; an account
// is disabled and given back; who shows no certificate, or one of another authority, is let in
// nowhere, and no log says who or where.
func TestBrokerOnAnotherHost(t *testing.T) {
	pki := t.TempDir()
	at := func(name string) string { return filepath.Join(pki, name) }
	for _, name := range []string{"holder", "broker", "server", "stranger"} {
		layPair(t, pki, name, "127.0.0.1")
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read := func(path string) string {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	mutual := func(address, who, ca string) string {
		return fmt.Sprintf("{address: %q, cert: %q, key: %q, ca: %q}", address, at(who+".crt"), at(who+".key"), at(ca+".crt"))
	}

	// The key holder lets the server in, and the broker.
	write(at("clients.crt"), read(at("server.crt"))+"\n"+read(at("broker.crt"))+"\n")
	var org, holder, config string
	b := openBureau(t, func(dir string) {
		data := filepath.Join(dir, "data")
		if err := os.MkdirAll(data, 0o700); err != nil {
			t.Fatal(err)
		}
		keys, err := keyring.Open(data)
		if err != nil {
			t.Fatal(err)
		}
		org = keys.ID().String()
		var people strings.Builder
		for i, who := range []string{"alice", "bob", "carol"} {
			fmt.Fprintf(&people, "  - {id: E-%d, names: ['corp\\%s'], mails: [%s@agency.example]}\n", i, who, who)
		}
		write(at("directory.yaml"), "apiVersion: directory/v1\ndomains: [corp]\npeople:\n"+people.String())
		folder := filepath.Join(t.TempDir(), "elsewhere")
		counterseal(t, 0, "keyholder", "init", "--no-passphrase", "--dir", folder, "--org", org, "--directory", at("directory.yaml"))
		out, _, _ := hosted(t, "keyholder", "serve", "--dir", folder, "--listen", "127.0.0.1:0", "--tls-cert", at("holder.crt"), "--tls-key", at("holder.key"), "--client-ca", at("clients.crt"))
		holder = out.after(t, "ingest    ")
		config = "data: data\npias: [pias]\nhttp: off\nreserve: 16MiB\nmemory: 64MiB\noffices: offices.yaml\nown_rules: false\nrules: [rules]\nkeyholder: " + mutual(holder, "server", "holder") + "\n"
		write(filepath.Join(dir, configName), config)
	})

	// The broker, with the keys of the ledger.
	tasks := at("tasks")
	write(at("broker.yaml"), fmt.Sprintf("listen: 127.0.0.1:0\ncert: broker.crt\nkey: broker.key\nclient_ca: server.crt\ndir: journal\norg: %s\nkeyholder: %s\nlog: [%q]\nacts:\n  disable-account: {command: [/bin/sh, -c, 'cat >> \"$0\"; echo >> \"$0\"', %q]}\n",
		org, mutual(holder, "broker", "holder"), read(filepath.Join(b.dir, "data", "ledger", "log.vkey")), tasks))
	out, log, end := hosted(t, "broker", "--config", at("broker.yaml"))
	orders := out.after(t, "takes orders at ")
	b.stop()
	write(filepath.Join(b.dir, configName), config+"broker: "+mutual(orders, "server", "broker")+"\n")
	b.open()
	doctor := func() string {
		checks := b.s.brokerChecks(t.Context())
		if len(checks) != 1 {
			t.Fatalf("got %+v", checks)
		}
		return checks[0].State + " " + checks[0].Text
	}
	if got := doctor(); got != "ok it takes orders" {
		t.Errorf("doctor: %s", got)
	}

	var r containRow
	who := b.people()
	b.does(0, "contain.order", containAsk{whom: whom{People: who[:1]}, Act: broker.Disable, Seconds: 3600}, &r, 200, "")
	b.does(colleague, "contain.agree", containNamed{ID: r.ID, Digest: r.Digest}, &r, 200, "")
	if r.State != broker.Done {
		t.Fatalf("got %+v", r)
	}
	b.does(0, "contain.undo", containNamed{ID: r.ID}, &r, 200, "")
	if r.State != broker.Undone {
		t.Fatalf("got %+v", r)
	}
	var did []broker.Task
	for dec := json.NewDecoder(strings.NewReader(read(tasks))); dec.More(); {
		var task broker.Task
		if err := dec.Decode(&task); err != nil {
			t.Fatal(err)
		}
		did = append(did, task)
	}
	if len(did) != 2 || did[0].Undo || !did[1].Undo || len(did[0].Account.Mails) != 1 || !slices.Equal(did[0].Account.Mails, did[1].Account.Mails) {
		t.Errorf("the command got %+v", did)
	}

	// Who else knocks.
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(read(at("broker.crt"))))
	nameless := tls.Dialer{Config: &tls.Config{RootCAs: pool}}
	stranger := OtherHost{orders, at("stranger.crt"), at("stranger.key"), at("broker.crt")}
	deceived := OtherHost{orders, at("server.crt"), at("server.key"), at("stranger.crt")}
	for name, c := range map[string]struct {
		dial func() (keyholder.Dial, error)
		want string
	}{
		"without a certificate": {func() (keyholder.Dial, error) {
			return func(ctx context.Context) (net.Conn, error) { return nameless.DialContext(ctx, "tcp", orders) }, nil
		}, "the broker does not"},
		"of another authority": {func() (keyholder.Dial, error) { return stranger.dial("") }, "the broker does not"},
		"at another broker":    {func() (keyholder.Dial, error) { return deceived.dial("") }, "is of another host"},
		"without TLS": {func() (keyholder.Dial, error) {
			var d net.Dialer
			return func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", orders) }, nil
		}, "nonsense"},
	} {
		dial, err := c.dial()
		if err != nil {
			t.Fatal(err)
		}
		client := broker.Client{Dial: dial}
		if err := client.Reached(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "127.0.0.1") {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		if state, err := client.Do(t.Context(), broker.Asked{}); err == nil || state != "" {
			t.Errorf("%s: an order got %q, %v", name, state, err)
		}
	}
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	astray := brokerConfig{Org: org, Keyholder: brokerHolder{OtherHost: OtherHost{holder, at("stranger.crt"), at("stranger.key"), at("holder.crt")}}}
	if _, err := astray.people(short); err == nil || strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("the key holder told a stranger who is who: %v", err)
	}

	if got := doctor(); got != "ok it takes orders" {
		t.Errorf("doctor: %s", got)
	}
	end()
	if got := doctor(); !strings.HasPrefix(got, "warn the broker is not reached") || strings.Contains(got, "127.0.0.1") {
		t.Errorf("doctor: %s", got)
	}
	// An order that did not get there was not done, and can be given anew.
	b.does(0, "contain.order", containAsk{whom: whom{People: who[:1]}, Act: broker.Disable, Seconds: 3600}, &r, 200, "")
	b.does(colleague, "contain.agree", containNamed{ID: r.ID, Digest: r.Digest}, nil, 403, "nothing was done")
	var rows []containRow
	b.does(0, "contain.list", struct{}{}, &rows, 200, "")
	if i := slices.IndexFunc(rows, func(x containRow) bool { return x.ID == r.ID }); i < 0 || rows[i].State != broker.Failed {
		t.Errorf("got %+v", rows)
	}
	for _, word := range []string{"127.0.0.1", "agency.example", "corp"} {
		if strings.Contains(log.String(), word) {
			t.Errorf("the log of the broker holds %s:\n%s", word, log)
		}
	}
}
