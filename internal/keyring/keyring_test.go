package keyring

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func opened(t testing.TB, dir string) *Keyring {
	t.Helper()
	k, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestOpenTwice(t *testing.T) {
	dir := t.TempDir()
	a := opened(t, dir)
	b := opened(t, dir)
	if a.ID() != b.ID() || !bytes.Equal(a.MACKey("x"), b.MACKey("x")) {
		t.Fatal("another keyring after a restart")
	}
	box := wrap(t, a, "segment/events", []byte("secret"), []byte("here"))
	pt, err := b.Unwrap("segment/events", box, []byte("here"))
	if err != nil || string(pt) != "secret" {
		t.Fatalf("%q, %v", pt, err)
	}
	if st, err := os.Stat(filepath.Join(dir, "keys", "keyring")); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatal(st.Mode(), err)
	}
	if other := opened(t, t.TempDir()); bytes.Equal(other.MACKey("x"), a.MACKey("x")) {
		t.Fatal("two keyrings have one key")
	}
}

func TestBoxesAreBound(t *testing.T) {
	k := opened(t, t.TempDir())
	box := wrap(t, k, "a", []byte("secret"), []byte("here"))
	open := map[string]func() ([]byte, error){
		"other purpose": func() ([]byte, error) { return k.Unwrap("b", box, []byte("here")) },
		"other binding": func() ([]byte, error) { return k.Unwrap("a", box, []byte("there")) },
		"other keyring": func() ([]byte, error) { return opened(t, t.TempDir()).Unwrap("a", box, []byte("here")) },
		"empty":         func() ([]byte, error) { return k.Unwrap("a", nil, []byte("here")) },
		"version only":  func() ([]byte, error) { return k.Unwrap("a", box[:1], []byte("here")) },
	}
	for i := range box {
		open[fmt.Sprintf("byte %d", i)] = func() ([]byte, error) {
			x := bytes.Clone(box)
			x[i] ^= 1
			return k.Unwrap("a", x, []byte("here"))
		}
	}
	for name, f := range open {
		if pt, err := f(); !errors.Is(err, ErrWrongKey) || pt != nil {
			t.Errorf("%s: %q, %v", name, pt, err)
		}
	}
	if bytes.Equal(box, wrap(t, k, "a", []byte("secret"), []byte("here"))) {
		t.Error("two boxes are equal")
	}
}

func TestPurposesDiffer(t *testing.T) {
	k := opened(t, t.TempDir())
	seen := map[string]bool{}
	for _, p := range []string{"a", "b", "wrap/a", "mac/a"} {
		for _, key := range [][]byte{k.MACKey(p), k.derive(1, "wrap", p)} {
			if len(key) != 32 || seen[string(key)] {
				t.Fatalf("key of %s", p)
			}
			seen[string(key)] = true
		}
	}
	if !bytes.Equal(k.MAC("a", []byte("m")), k.MAC("a", []byte("m"))) || bytes.Equal(k.MAC("a", []byte("m")), k.MAC("b", []byte("m"))) {
		t.Fatal("MAC")
	}
}

// TestNothingPrintsAKey looks for the master secret in every form of printing.
func TestNothingPrintsAKey(t *testing.T) {
	k := opened(t, t.TempDir())
	master := k.epochs[0].master
	var logs bytes.Buffer
	slog.New(slog.NewJSONHandler(&logs, nil)).Info("x", "k", k)
	slog.New(slog.NewTextHandler(&logs, nil)).Info("x", "k", k)
	js, err := json.Marshal(struct{ K *Keyring }{k})
	if err == nil {
		t.Error("a keyring went into a document")
	}
	out := logs.String() + string(js) + fmt.Sprintf("%v %+v %#v %s %x %q %d", k, k, k, k, k, k, k) + fmt.Sprint(struct{ K *Keyring }{k})
	for _, form := range []string{
		string(master[:]), fmt.Sprintf("%x", master), fmt.Sprintf("%X", master), fmt.Sprint(master)[1:20],
		base64.StdEncoding.EncodeToString(master[:]), base64.RawURLEncoding.EncodeToString(master[:]),
	} {
		if strings.Contains(out, form) {
			t.Fatal("the master secret was printed")
		}
	}
	if !strings.Contains(out, k.ID().String()) {
		t.Fatal("not even the id was printed: the test looks at nothing")
	}
}

func TestBadFiles(t *testing.T) {
	secret := base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	good := `{"v":1,"id":"01890a5d-ac96-474b-bcce-b302099a8057","master":"` + secret + `"}`
	for name, c := range map[string]struct {
		text string
		mode os.FileMode
		want string
	}{
		"good":     {good, 0o600, ""},
		"readable": {good, 0o640, "chmod 600"},
		"empty":    {"", 0o600, "restore"},
		"version":  {strings.Replace(good, `"v":1`, `"v":3`, 1), 0o600, "format 3"},
		"id":       {strings.Replace(good, "0189", "x189", 1), 0o600, "restore"},
		"short":    {strings.Replace(good, secret, secret[:20], 1), 0o600, "restore"},
		"text":     {strings.Replace(good, secret, "!"+secret, 1), 0o600, "restore"},
		"number":   {`{"v":1,"master":5` + secret + `}`, 0o600, "restore"},
	} {
		dir := t.TempDir()
		os.Mkdir(filepath.Join(dir, "keys"), 0o700)
		path := filepath.Join(dir, "keys", "keyring")
		if err := os.WriteFile(path, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
		os.Chmod(path, c.mode)
		_, err := Open(dir)
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), secret[:10]) {
			t.Errorf("%s: the error holds the secret", name)
		}
		if now, rerr := os.ReadFile(path); rerr != nil || string(now) != c.text {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

func TestLostKeyringIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	opened(t, dir)
	cards := filepath.Join(dir, "keys", "segments")
	if err := os.MkdirAll(cards, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cards, "x.card"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "keys", "keyring")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "restore") {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "keys", "keyring")); err == nil {
		t.Fatal("a new keyring was made")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"v":1,"id":"01890a5d-ac96-474b-bcce-b302099a8057","master":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc"}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, sealed, err := parse("p", b)
		if (k == nil && sealed == nil) == (err == nil) {
			t.Fatal("neither a keyring nor an error")
		}
		if k != nil {
			again, err := k.encode()
			if err != nil {
				t.Fatal(err)
			}
			if k2, err := parseClear("p", again); err != nil || k2.id != k.id || len(k2.epochs) != len(k.epochs) || k2.epochs[0].master != k.epochs[0].master {
				t.Fatal("read, written and read again it is another", err)
			}
		}
	})
}

// wrap is Wrap of a keyring in memory, which always can.
func wrap(t testing.TB, k *Keyring, purpose string, plaintext, aad []byte) []byte {
	t.Helper()
	box, err := k.Wrap(purpose, plaintext, aad)
	if err != nil {
		t.Fatal(err)
	}
	return box
}

// TestDestroyEpoch: what an epoch made does not open again, and all others do.
func TestDestroyEpoch(t *testing.T) {
	dir := t.TempDir()
	k, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	var boxes [][]byte
	for i := range 3 {
		if i > 0 {
			if _, err := k.Rotate(dir, at, nil); err != nil {
				t.Fatal(err)
			}
		}
		box, err := k.Wrap("test", []byte("something"), nil)
		if err != nil {
			t.Fatal(err)
		}
		boxes = append(boxes, box)
	}
	for _, n := range []int{0, 3, 4} {
		if err := k.Destroy(dir, n, at, nil); err == nil {
			t.Errorf("epoch %d is destroyed", n)
		}
	}
	if err := k.Destroy(dir, 2, at, nil); err != nil {
		t.Fatal(err)
	}
	again, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, k := range map[string]*Keyring{"in memory": k, "from the file": again} {
		for i, box := range boxes {
			plain, err := k.Unwrap("test", box, nil)
			if i == 1 && !errors.Is(err, ErrWrongKey) || i != 1 && (err != nil || string(plain) != "something") {
				t.Errorf("%s: epoch %d: %v", name, i+1, err)
			}
		}
		if _, err := k.Signer("test", 2); err == nil {
			t.Errorf("%s: a key of it signs", name)
		}
		if e := k.Epochs(); !e[1].Destroyed.Equal(at) || !e[0].Destroyed.IsZero() || len(e) != 3 {
			t.Errorf("%s: %+v", name, e)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "keys", "keyring"))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		strings.Replace(string(b), `"destroyed"`, `"master":"`+strings.Repeat("A", 43)+`","destroyed"`, 1),
		strings.Replace(string(b), `"destroyed":"2027-03-01T12:00:00Z"`, `"destroyed":"yesterday"`, 1),
		strings.Replace(string(b), `,"destroyed":"2027-03-01T12:00:00Z"`, "", 1),
	} {
		if _, err := parseClear("keyring", []byte(bad)); err == nil || bad == string(b) {
			t.Errorf("it is read: %s", bad)
		}
	}
}
