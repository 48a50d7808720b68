package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
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
		k, err := keyholder.Connect(ctx, keyholder.ClientOptions{Epoch: epoch, Dial: atSocket(socket)})
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
	c := &brokerConfig{Org: org.String(), Keyholder: brokerHolder{socket: socket}, Epochs: []int{1}}
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

// What a broker.yaml has, of a broker on the host of the server and of one on another.
const (
	brokerHere  = "socket: b.sock\ndir: journal\norg: x\nkeyholder: k.sock\nlog: [v]\nacts:\n  contact: {command: [/bin/true]}\n  disable-account: {webhook: 'https://agency.example/x', secret_file: secret}\n"
	brokerThere = "listen: 0.0.0.0:8445\ncert: b.crt\nkey: b.key\nclient_ca: s.crt\ndir: journal\norg: x\nkeyholder: {address: 'holder.example:8444', cert: b.crt, key: b.key, ca: h.crt}\nlog: [v]\nacts:\n  contact: {command: [/bin/true]}\n"
)

// TestBrokerFile: what is wrong in broker.yaml is named.
func TestBrokerFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(strings.Repeat("s", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	read := func(text string) (*brokerConfig, error) {
		path := filepath.Join(dir, "broker.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return readBroker(path)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	if c, err := read(brokerHere); err != nil || c.Socket != at("b.sock") || c.Keyholder.socket != at("k.sock") || c.MaxDay != 20 || len(c.Acts["disable-account"].Secret) != 32 {
		t.Errorf("got %+v, %v", c, err)
	}
	want := brokerHolder{OtherHost: OtherHost{"holder.example:8444", at("b.crt"), at("b.key"), at("h.crt")}}
	if c, err := read(brokerThere); err != nil || c.Listen != "0.0.0.0:8445" || c.Cert != at("b.crt") || c.Key != at("b.key") || c.ClientCA != at("s.crt") || c.Keyholder != want {
		t.Errorf("got %+v, %v", c, err)
	}
	for _, x := range []struct{ text, old, bad, want string }{
		{brokerHere, "socket: b.sock", "", "socket or listen"},
		{brokerHere, "dir: journal", "", "belong in it"},
		{brokerHere, "log: [v]", "", "vkey"},
		{brokerHere, "contact", "delete-account", "no act"},
		{brokerHere, "[/bin/true]", "[]", "one of them"},
		{brokerHere, "https", "http", "https"},
		{brokerHere, "secret_file", "secrets", "secrets"},
		{brokerHere, ": secret}", ": nothing}", "disable-account"},
		{brokerHere, "keyholder: k.sock", "max_day: 0\nkeyholder: k.sock", "max_day"},
		{brokerHere, "keyholder: k.sock", "", "keyholder"},
		{brokerHere, "keyholder: k.sock", "keyholder:", "keyholder"},
		{brokerHere, "keyholder: k.sock", "keyholder: {}", "keyholder"},
		{brokerHere, "keyholder: k.sock", "keyholder: [k.sock]", "keyholder"},
		{brokerHere, "socket: b.sock", "socket: b.sock\nclient_ca: s.crt", "listen"},
		{brokerThere, "listen: 0.0.0.0:8445", "", "socket or listen"},
		{brokerThere, "listen: 0.0.0.0:8445", "listen: 0.0.0.0:8445\nsocket: b.sock", "socket or listen"},
		{brokerThere, "listen: 0.0.0.0:8445", "listen: 0.0.0.0", "listen"},
		{brokerThere, "cert: b.crt\n", "", "listen: needs"},
		{brokerThere, "key: b.key\n", "", "listen: needs"},
		{brokerThere, "client_ca: s.crt\n", "", "listen: needs"},
		{brokerThere, "address: 'holder.example:8444', ", "", "keyholder.address"},
		{brokerThere, "holder.example:8444", "holder.example", "keyholder.address"},
		{brokerThere, ", cert: b.crt", "", "keyholder.address"},
		{brokerThere, ", key: b.key", "", "keyholder.address"},
		{brokerThere, ", ca: h.crt", "", "keyholder.address"},
		{brokerThere, "ca: h.crt", "ca: h.crt, socket: k.sock", "socket"},
	} {
		if !strings.Contains(x.text, x.old) {
			t.Fatalf("nothing to change: %s", x.old)
		}
		if _, err := read(strings.Replace(x.text, x.old, x.bad, 1)); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%q in place of %q: got %v, want %q", x.bad, x.old, err, x.want)
		}
	}
	// A file that cannot be used is named by its key.
	c, err := read(brokerThere)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.listener(); err == nil || !strings.Contains(err.Error(), "listen") {
		t.Errorf("got %v", err)
	}
	if _, err := c.people(t.Context()); err == nil || !strings.Contains(err.Error(), "keyholder.ca") {
		t.Errorf("got %v", err)
	}
}

// FuzzBrokerFile: what is accepted has one way to take orders and one to the key holder, each
// whole.
func FuzzBrokerFile(f *testing.F) {
	f.Add([]byte(brokerHere))
	f.Add([]byte(brokerThere))
	f.Add([]byte("keyholder: &a {address: *a}\n"))
	f.Add([]byte("socket: a\ndir: a\norg: a\nkeyholder: a\nlog: !00\n00"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseBroker("/etc/broker", text)
		if err != nil {
			return
		}
		k := c.Keyholder
		if (c.Socket == "") == (c.Listen == "") || c.Listen != "" && (c.Cert == "" || c.Key == "" || c.ClientCA == "") ||
			(k.socket == "") == (k.Address == "") || k.Address != "" && (k.Cert == "" || k.Key == "" || k.CA == "") {
			t.Fatalf("accepted %+v", c)
		}
		again, err := parseBroker("/etc/broker", text)
		if err != nil || !reflect.DeepEqual(c, again) {
			t.Fatalf("read again: %+v, %v", again, err)
		}
	})
}
