package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/ledger"
)

// TestWitnessCommand runs a witness as a person does and lets a ledger ask it, over
// a restart of the witness.
func TestWitnessCommand(t *testing.T) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	vkey, err := ledger.VKey("ledger.example/cmd", key.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	wdir, ldir := filepath.Join(t.TempDir(), "w"), filepath.Join(t.TempDir(), "ledger")
	first := ""
	for range 2 {
		ctx, stop := context.WithCancel(context.Background())
		r, w := io.Pipe()
		code := make(chan int, 1)
		var stderr bytes.Buffer
		go func() {
			code <- run(ctx, &environment{stdin: strings.NewReader(""), stdout: w, stderr: &stderr},
				[]string{"witness", "--dir", wdir, "--listen", "127.0.0.1:0", "--log", vkey, "--name", "witness.example"})
			w.Close()
		}()
		said := map[string]string{}
		sc := bufio.NewScanner(r)
		for len(said) < 2 && sc.Scan() {
			name, value, _ := strings.Cut(sc.Text(), " ")
			said[name] = strings.TrimSpace(value)
		}
		if !strings.HasPrefix(said["vkey"], "witness.example+") || !strings.HasPrefix(said["url"], "http://127.0.0.1:") {
			t.Fatal(said, stderr.String())
		}
		if first == "" {
			first = said["vkey"]
		} else if first != said["vkey"] {
			t.Fatal("a restart made a new key")
		}
		l, err := ledger.Open(context.Background(), ledger.Options{Dir: ldir, Origin: "ledger.example/cmd", Key: key, Node: "n1",
			Witnesses: []ledger.Witness{{VKey: said["vkey"], URL: said["url"]}}})
		if err != nil {
			t.Fatal(err)
		}
		s, err := ledger.New("hold.placed", "os:1000", time.Now(), map[string]any{"scope": "case", "authority": "a1"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.AddWitnessed(context.Background(), s); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		stop()
		if c := <-code; c != 0 {
			t.Fatal(c, stderr.String())
		}
	}
}

func TestWitnessUsage(t *testing.T) {
	for _, args := range [][]string{
		{"witness"}, {"witness", "--dir", t.TempDir()}, {"witness", "--log", "x"}, {"witness", "--dir", "d", "--log", "x", "--tls-cert", "c"}, {"witness", "extra"},
	} {
		var out, stderr bytes.Buffer
		if code := run(context.Background(), &environment{stdin: strings.NewReader(""), stdout: &out, stderr: &stderr}, args); code != exitUsage {
			t.Errorf("%v: %d %s", args, code, stderr.String())
		}
	}
	var out, stderr bytes.Buffer
	if code := run(context.Background(), &environment{stdin: strings.NewReader(""), stdout: &out, stderr: &stderr},
		[]string{"witness", "--dir", t.TempDir(), "--log", "not a key"}); code != exitUsage {
		t.Error(code, stderr.String())
	}
}
