package main

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// trusted are the arguments that name log and witness of the package in testdata.
func trusted(t testing.TB) []string {
	t.Helper()
	b, err := os.ReadFile("testdata/vkeys")
	if err != nil {
		t.Fatal(err)
	}
	v := strings.Fields(string(b))
	return []string{"--log", v[0], "--witness", v[1]}
}

func verify(args ...string) (int, string) {
	var out, errs bytes.Buffer
	code := run(args, &out, &errs)
	return code, out.String() + errs.String()
}

// TestGood: the package that the program wrote holds, with and without the key.
func TestGood(t *testing.T) {
	code, out := verify(append(trusted(t), "testdata/good.pkg")...)
	if code != 0 || !strings.Contains(out, "only a recipient's key") {
		t.Fatal(code, out)
	}
	code, out = verify(append(trusted(t), "--key", "testdata/recipient.key", "--passphrase-file", "testdata/passphrase", "testdata/good.pkg")...)
	if code != 0 || !strings.Contains(out, "24 records, 0 originals, 2 segments") {
		t.Fatal(code, out)
	}
}

// TestRefused: every 97th byte of the file, changed, is found; so are other keys, a
// threshold that is not reached, and a key that the package is not sealed to.
func TestRefused(t *testing.T) {
	good, err := os.ReadFile("testdata/good.pkg")
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.pkg")
	for i := 0; i < len(good); i += 97 {
		b := bytes.Clone(good)
		b[i] ^= 4
		if err := os.WriteFile(bad, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if code, out := verify(append(trusted(t), bad)...); code != 1 || !strings.HasPrefix(out, "ALTERED ") || strings.Count(out, "\n") != 1 {
			t.Fatal(i, code, out)
		}
	}
	log := trusted(t)[:2]
	for _, args := range [][]string{
		{}, {"testdata/good.pkg"}, append(log, "testdata/none.pkg"), append(log, "--threshold", "2", "testdata/good.pkg"),
		append(log, "--key", "testdata/passphrase", "--passphrase-file", "testdata/passphrase", "testdata/good.pkg"),
		append(log, "--key", "testdata/recipient.key", "--passphrase-file", "testdata/vkeys", "testdata/good.pkg"),
	} {
		if code, out := verify(args...); code != 2 {
			t.Error(args, code, out)
		}
	}
	if code, out := verify(append(log, "testdata/good.pkg")...); code != 0 { // no witness asked for
		t.Error(code, out)
	}
}

// TestPath: paths of a tree of 7 (RFC 9162, 2.1.5) lead to its root and to no other.
func TestPath(t *testing.T) {
	var leaves [7][32]byte
	for i := range leaves {
		leaves[i] = [32]byte{byte(i)}
	}
	ab, cd, ef := node(leaves[0], leaves[1]), node(leaves[2], leaves[3]), node(leaves[4], leaves[5])
	abcd, efg := node(ab, cd), node(ef, leaves[6])
	root := node(abcd, efg)
	for _, c := range []struct {
		i    uint64
		path [][32]byte
	}{{0, [][32]byte{leaves[1], cd, efg}}, {3, [][32]byte{leaves[2], ab, efg}}, {4, [][32]byte{leaves[5], leaves[6], abcd}}, {6, [][32]byte{ef, abcd}}} {
		if err := leads(leaves[c.i], c.i, 7, c.path, root); err != nil {
			t.Error(c.i, err)
		}
		if leads(leaves[c.i], c.i^1, 7, c.path, root) == nil || leads(leaves[c.i], c.i, 7, c.path[:len(c.path)-1], root) == nil || leads(leaves[c.i], 7, 7, c.path, root) == nil {
			t.Error(c.i, "another place leads there too")
		}
	}
}

// FuzzRecord: whatever a record holds, reading it ends.
func FuzzRecord(f *testing.F) {
	seed, err := hex.DecodeString("000100000000000000000000000000000000000000")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := decodeEvent(b)
		if err == nil && len(d.view.Fields) > len(b) {
			t.Fatal("more fields than bytes")
		}
	})
}

// FuzzContainer: no file makes it do anything but answer.
func FuzzContainer(f *testing.F) {
	good, err := os.ReadFile("testdata/good.pkg")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good[:2000])
	f.Add(good[len(good)-3000:])
	f.Add([]byte("CSEALPK1\x00\x00\x00\x02{}\x00\x00\x00\x00CSEALPKE"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, _, err := split(bytes.NewReader(b), int64(len(b)))
		if err == nil && c.readHead() == nil && c.at > c.body {
			t.Fatal("a head behind its body")
		}
	})
}
