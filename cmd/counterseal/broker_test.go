package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/keyholder"
)

// TestBrokerKnowsWho: the broker finds people and their devices by the tokens of the key
// holder, of every epoch that its file names, and of this server alone.
func TestBrokerKnowsWho(t *testing.T) {
	dir := t.TempDir()
	org := uuid.MustParse("01900000-0000-7000-8000-000000000001")
	folder, socket := filepath.Join(dir, "holder"), filepath.Join(dir, "k.sock")
	const directory = "apiVersion: directory/v1\ndomains: [corp]\npeople:\n  - {id: E-1, names: ['corp\\alice'], mails: [alice@agency.example], devices: [ALICE-LAPTOP, KIOSK]}\n  - {id: E-2, names: ['corp\\bob'], mails: [bob@agency.example], devices: [kiosk, BOB-1]}\n"
	if err := keyholder.Create(folder, keyholder.Setup{Org: org, Directory: []byte(directory)}); err != nil {
		t.Fatal(err)
	}
	if _, err := keyholder.Rotate(folder, time.Now(), nil); err != nil {
		t.Fatal(err)
	}
	h, err := keyholder.Open(folder, keyholder.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Ingest(ctx, l) }()
	defer func() {
		stop()
		if err := errors.Join(<-done, h.Close()); err != nil {
			t.Error(err)
		}
	}()
	ask := func(epoch int, kind event.TokenKind, name string) event.Token {
		k, err := keyholder.Connect(ctx, keyholder.ClientOptions{Epoch: epoch, Dial: func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		token, err := k.Token(kind, []byte(name))
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	c := &brokerConfig{Org: org.String(), Keyholder: socket, Epochs: []int{1}}
	known, err := c.people(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, epoch := range []int{1, 2} {
		for name, kind := range map[string]event.TokenKind{"alice": event.Person, "alice-laptop": event.Device} {
			if e := known[ask(epoch, kind, name)]; len(e.Mails) != 1 || e.Mails[0] != "alice@agency.example" {
				t.Errorf("%s of epoch %d: got %+v", name, epoch, e)
			}
		}
	}
	if len(known) != 10 {
		t.Errorf("%d are known, want 10", len(known))
	}
	if e := known[ask(2, event.Device, "alice-laptop")]; len(e.Devices) != 1 || e.Devices[0] != "ALICE-LAPTOP" {
		t.Errorf("a device stands for %+v", e)
	}
	if e := known[ask(2, event.Device, "kiosk")]; len(e.Names)+len(e.Mails)+len(e.SIDs) > 0 || len(e.Devices) != 1 {
		t.Errorf("a device of two people stands for the account of one: %+v", e)
	}
	c.Org = "01900000-0000-7000-8000-000000000002"
	if _, err := c.people(ctx); err == nil || !strings.Contains(err.Error(), "another server") {
		t.Errorf("got %v", err)
	}
}

// TestBrokerFile: what is wrong in broker.yaml is named.
func TestBrokerFile(t *testing.T) {
	const good = "socket: b.sock\ndir: journal\norg: x\nkeyholder: k.sock\nlog: [v]\nacts:\n  contact: {command: [/bin/true]}\n  disable-account: {webhook: 'https://agency.example/x', secret_file: secret}\n"
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(strings.Repeat("s", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	read := func(text string) error {
		path := filepath.Join(dir, "broker.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := readBroker(path)
		if err == nil && (c.Socket != filepath.Join(dir, "b.sock") || c.MaxDay != 20 || len(c.Acts["disable-account"].Secret) != 32) {
			t.Errorf("got %+v", c)
		}
		return err
	}
	if err := read(good); err != nil {
		t.Fatal(err)
	}
	for old, bad := range map[string][2]string{
		"socket: b.sock":    {"", "belong in it"},
		"log: [v]":          {"", "vkey"},
		"contact":           {"delete-account", "no act"},
		"[/bin/true]":       {"[]", "one of them"},
		"https":             {"http", "https"},
		"secret_file":       {"secrets", "secrets"},
		": secret}":         {": nothing}", "disable-account"},
		"keyholder: k.sock": {"max_day: 0\nkeyholder: k.sock", "max_day"},
	} {
		if err := read(strings.Replace(good, old, bad[0], 1)); err == nil || !strings.Contains(err.Error(), bad[1]) {
			t.Errorf("%s: got %v, want %q", old, err, bad[1])
		}
	}
}
