package main

import (
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/counterseal/counterseal/internal/keyring"
	"github.com/counterseal/counterseal/internal/officer"
	"github.com/counterseal/counterseal/internal/vault"
)

// secretsOf gives what in the files of a data directory may be a secret of 32 bytes: what is
// written in base64 or hex, and whole files of that length.
func secretsOf(t *testing.T, data string) [][]byte {
	t.Helper()
	shape := regexp.MustCompile(`[A-Za-z0-9_+/-]{43}=?|[0-9a-f]{64}`)
	found := map[string]bool{}
	err := filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || len(b) > 64<<10 || strings.HasSuffix(path, ".seg") {
			return err
		}
		if len(b) == 32 {
			found[string(b)] = true
		}
		for _, text := range shape.FindAllString(string(b), -1) {
			for _, decode := range []func(string) ([]byte, error){hex.DecodeString, base64.RawURLEncoding.DecodeString, base64.RawStdEncoding.DecodeString} {
				if raw, err := decode(strings.TrimRight(text, "=")); err == nil && len(raw) == 32 {
					found[string(raw)] = true
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var out [][]byte
	for s := range found {
		out = append(out, []byte(s))
	}
	return out
}

// TestStolenVault: whoever has the data directory and all that its keyring derives opens no
// layer of a sealed name. The keys of two officers open every one.
func TestStolenVault(t *testing.T) {
	t.Parallel() // most of it is making seals
	sh := newShell(t)
	if err := layAgency(sh.dir, "http: off\nreserve: 16MiB\nmemory: 64MiB\nofficers: officers.yaml\n"); err != nil {
		t.Fatal(err)
	}
	_, pass := sh.office()
	cfg, err := readConfig(sh.at(configName))
	if err != nil {
		t.Fatal(err)
	}
	s, stop := openOn(t, cfg)
	const lines = 200
	if r, err := s.pipe.Accept(t.Context(), aboutPeople(0, lines)); err != nil || r.Accepted != lines {
		t.Fatal(r, err)
	}
	stop()
	_, stop = openOn(t, cfg) // after a restart
	stop()

	stolen := sh.at("stolen")
	if err := os.CopyFS(stolen, os.DirFS(cfg.Data)); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(stolen, vault.File)+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var rows []*vault.Row
	list, err := db.Query("SELECT row FROM seals")
	if err != nil {
		t.Fatal(err)
	}
	defer list.Close()
	for list.Next() {
		var b []byte
		if err := list.Scan(&b); err != nil {
			t.Fatal(err)
		}
		row, err := vault.ParseRow(b)
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row)
	}
	if len(rows) < lines {
		t.Fatalf("%d names are sealed", len(rows))
	}

	keys := privateKeyring(t, stolen)
	secrets := secretsOf(t, stolen)
	if len(secrets) == 0 {
		t.Fatal("no secret lies in the data directory: the test looks in the wrong place")
	}
	for _, p := range purposes(t) {
		for epoch := 1; epoch <= keys.Epoch(); epoch++ {
			key, err := keys.MACKeyAt(epoch, p)
			if err != nil {
				t.Fatal(err)
			}
			secrets = append(secrets, key)
		}
	}
	tried := 0
	for i, secret := range secrets {
		key, err := keyring.ParsePrivateKey(secret)
		if err != nil {
			continue
		}
		row := rows[i%len(rows)]
		for _, box := range row.Boxes() {
			tried++
			for _, role := range []string{keyring.RoleInner, keyring.RoleOuter} {
				if _, err := keyring.OpenWith(key, row.Info(), role, box.Box); err == nil {
					t.Fatalf("a secret of the server opens a layer of a sealed name (%s)", role)
				}
			}
		}
	}
	t.Logf("%d names, %d secrets, %d boxes tried", len(rows), len(secrets), tried)
	if tried < 100 {
		t.Error("hardly a secret was tried")
	}

	env := &environment{stdin: strings.NewReader(""), stdout: &strings.Builder{}, stderr: &strings.Builder{}}
	var both []*officer.Key
	for _, file := range []string{"inv", "ovs"} {
		k, err := openKey(env, sh.at(file), pass)
		if err != nil {
			t.Fatal(err)
		}
		both = append(both, k)
	}
	var names []string
	for _, row := range rows {
		plain, err := officer.OpenBoth(both[0], both[1], row.Info(), row.Boxes(), func() error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		id, err := vault.ParseIdentity(plain)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, string(id.Canonical))
	}
	if slices.Sort(names); !strings.Contains(strings.Join(names, " "), "invented00199") {
		t.Errorf("two officers open other names: %d of them", len(names))
	}
}
