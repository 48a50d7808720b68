package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPeople goes behind the door of a running server: who signed in comes in and is judged
// by role, also at a terminal over the socket; a stranger is led to the login.
func TestPeople(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	dir := t.TempDir()
	card := layCertificate(t, dir, 1)
	if err := layAgency(dir, "reserve: 16MiB\nmemory: 64MiB\nhttp: off\nlogin: {address: \"127.0.0.1:0\", origin: \"https://logs.example\", cert: cert.pem, key: key.pem}\n"); err != nil {
		t.Fatal(err)
	}
	cfg, err := readConfig(filepath.Join(dir, configName))
	if err != nil {
		t.Fatal(err)
	}
	s, err := openServer(t.Context(), cfg, serverOptions{log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.listen(); err != nil {
		t.Fatal(err)
	}
	stop := s.background(context.Background())
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	client := func() *http.Client { return doorClient(t, card, func() net.Addr { return s.signin.l.Addr() }) }
	cli := func(args ...string) (int, string) {
		var out bytes.Buffer
		code := run(t.Context(), &environment{stdin: strings.NewReader(""), stdout: &out, stderr: &out}, append(args, "--config", filepath.Join(dir, configName)))
		return code, out.String()
	}
	after := func(text, mark string) string {
		_, rest, _ := strings.Cut(text, mark)
		word, _, _ := strings.Cut(strings.TrimSpace(rest), "\n")
		return word
	}
	code, out := cli("account", "setup")
	if code != 0 {
		t.Fatal(code, out)
	}
	boss := newPerson(t, client(), after(out, "minutes: "))
	if code, out = cli("account", "invite", "--role", "analyst"); code != 0 {
		t.Fatal(code, out)
	}
	analyst := newPerson(t, client(), after(out, "minutes: "))
	get := func(c *http.Client, path string) (int, string) {
		w, err := c.Get("https://logs.example" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Body.Close()
		b, err := io.ReadAll(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(w.Request.URL.Path, "/login/") && !strings.HasPrefix(path, "/login/") {
			return http.StatusSeeOther, string(b)
		}
		return w.StatusCode, string(b)
	}
	for _, c := range []struct {
		who  *http.Client
		path string
		want int
	}{
		{client(), "/", 303}, {client(), "/me", 200}, {client(), "/api/v1/me", 200}, {client(), "/api/v1/status", 401}, {boss.c, "/", 200}, {analyst.c, "/", 200},
		{boss.c, "/api/v1/search?q=class_uid%20%3D%201", 403}, {boss.c, "/metrics", 403},
	} {
		if code, out := get(c.who, c.path); code != c.want {
			t.Errorf("%s: %d, want %d: %.300s", c.path, code, c.want, out)
		}
	}
	// The analyst at a terminal: over the socket, judged as the analyst.
	if code, out := cli("account", "list"); code != 0 {
		t.Errorf("the owner of the machine: %d %s", code, out)
	}
	terminalLogin(t, client, analyst)
	if code, out := cli("account", "list"); code != exitRefused {
		t.Errorf("the analyst lists accounts: %d %s", code, out)
	}
	if code, out := cli("doctor"); code != 0 && code != exitFailed || strings.Contains(out, "refused") {
		t.Errorf("the analyst asks the doctor: %d %s", code, out)
	}
	path, err := sessionPath()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if code, out := cli("account", "disable", analyst.id); code != 0 {
		t.Errorf("disable: %d %s", code, out)
	}
	if code, _ := get(analyst.c, "/"); code != 303 {
		t.Errorf("a disabled account: %d", code)
	}
}
