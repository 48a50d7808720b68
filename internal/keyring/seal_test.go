package keyring

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

var update = flag.Bool("update", false, "write testdata anew")

func keyPair(t testing.TB) *PrivateKey {
	t.Helper()
	k, err := NewPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var anInfo = SealInfo{Purpose: "segment/originals", Org: uuid.MustParse("01890a5d-ac96-474b-bcce-b302099a8057"), Epoch: 3, Subject: "018f0000-0000-7000-8000-000000000001"}

func TestSealsAreBound(t *testing.T) {
	k, other := keyPair(t), keyPair(t)
	box, err := SealTo(k.Public(), anInfo, RoleInner, []byte("a name"))
	if err != nil {
		t.Fatal(err)
	}
	if pt, err := OpenWith(k, anInfo, RoleInner, box); err != nil || string(pt) != "a name" {
		t.Fatalf("%q, %v", pt, err)
	}
	change := func(f func(*SealInfo)) SealInfo { i := anInfo; f(&i); return i }
	cases := map[string]func() ([]byte, error){
		"key":  func() ([]byte, error) { return OpenWith(other, anInfo, RoleInner, box) },
		"role": func() ([]byte, error) { return OpenWith(k, anInfo, RoleOuter, box) },
		"only": func() ([]byte, error) { return OpenWith(k, anInfo, RoleOnly, box) },
		"purpose": func() ([]byte, error) {
			return OpenWith(k, change(func(i *SealInfo) { i.Purpose = "x" }), RoleInner, box)
		},
		"org":   func() ([]byte, error) { return OpenWith(k, change(func(i *SealInfo) { i.Org[0]++ }), RoleInner, box) },
		"epoch": func() ([]byte, error) { return OpenWith(k, change(func(i *SealInfo) { i.Epoch++ }), RoleInner, box) },
		"subject": func() ([]byte, error) {
			return OpenWith(k, change(func(i *SealInfo) { i.Subject += "1" }), RoleInner, box)
		},
		"empty": func() ([]byte, error) { return OpenWith(k, anInfo, RoleInner, nil) },
		"short": func() ([]byte, error) { return OpenWith(k, anInfo, RoleInner, box[:sealHeadLen+sealEncLen]) },
	}
	for i := 0; i < len(box); i += 7 {
		cases[fmt.Sprintf("byte %d", i)] = func() ([]byte, error) {
			x := bytes.Clone(box)
			x[i] ^= 0x10
			return OpenWith(k, anInfo, RoleInner, x)
		}
	}
	for name, open := range cases {
		if pt, err := open(); !errors.Is(err, ErrNotForKey) || pt != nil {
			t.Errorf("%s: %q, %v", name, pt, err)
		}
	}
	for _, bad := range []SealInfo{{}, change(func(i *SealInfo) { i.Epoch = 0 }), change(func(i *SealInfo) { i.Subject = "a\"b" }), change(func(i *SealInfo) { i.Purpose = strings.Repeat("a", 201) })} {
		if _, err := SealTo(k.Public(), bad, RoleOnly, nil); err == nil {
			t.Errorf("sealed with %+v", bad)
		}
	}
	if _, err := SealTo(PublicKey{}, anInfo, RoleOnly, nil); err == nil {
		t.Error("sealed to nobody")
	}
}

// TestTwoOffices shows that both keys are needed, in their order, and that the
// spare pair does without the other one.
func TestTwoOffices(t *testing.T) {
	var k [6]*PrivateKey
	for i := range k {
		k[i] = keyPair(t)
	}
	e := &Escrow{Epoch: 2, Main: Pair{k[0].Public(), k[1].Public()}, Spare: Pair{k[2].Public(), k[3].Public()}}
	boxes, err := e.Seal(anInfo, []byte("segment key"))
	if err != nil || len(boxes) != 2 || e.Inspected() {
		t.Fatal(boxes, err)
	}
	e.Inspector = Pair{k[4].Public(), k[5].Public()} // opens without the organisation
	if boxes, err = e.Seal(anInfo, []byte("segment key")); err != nil || len(boxes) != 3 || !e.Inspected() {
		t.Fatal(boxes, err)
	}
	info := anInfo
	info.Epoch = 2
	for b, box := range boxes {
		opened := 0
		for i := range k { // who takes the outer layer off
			inner, err := OpenOuter(k[i], info, box.Box)
			if (err == nil) != (i == 2*b+1) {
				t.Fatalf("box %d: key %d as oversight: %v", b, i, err)
			}
			if _, err := OpenInner(k[i], info, box.Box); err == nil {
				t.Fatalf("box %d: key %d opened the inner layer through the outer one", b, i)
			}
			if err != nil {
				continue
			}
			if bytes.Contains(inner, []byte("segment key")) {
				t.Fatal("oversight sees what was sealed")
			}
			for j := range k {
				pt, err := OpenInner(k[j], info, inner)
				if (err == nil) != (j == 2*b) {
					t.Fatalf("box %d: key %d as investigation: %v", b, j, err)
				}
				if err == nil {
					opened++
					if string(pt) != "segment key" {
						t.Fatalf("%q", pt)
					}
				}
			}
		}
		if opened != 1 || box.Inner != k[2*b].Public().ID() || box.Outer != k[2*b+1].Public().ID() || box.Epoch != 2 {
			t.Fatalf("box %d: opened %d times, %+v", b, opened, box)
		}
	}
	// A duty host opens names and nothing else.
	d := [2]*PrivateKey{keyPair(t), keyPair(t)}
	at := *e
	at.Duty = Pair{d[0].Public(), d[1].Public()}
	if same, err := at.Seal(anInfo, []byte("segment key")); err != nil || len(same) != len(boxes) {
		t.Fatalf("%d boxes, want %d: %v", len(same), len(boxes), err)
	}
	named, err := at.SealName(anInfo, []byte("a name"))
	if err != nil || len(named) != len(boxes)+1 {
		t.Fatalf("%d boxes, want %d: %v", len(named), len(boxes)+1, err)
	}
	last := named[len(boxes)]
	if inner, err := OpenOuter(d[1], info, last.Box); err != nil {
		t.Error(err)
	} else if pt, err := OpenInner(d[0], info, inner); err != nil || string(pt) != "a name" {
		t.Errorf("%q, %v", pt, err)
	}
	same := *e
	same.Spare.Oversight = same.Main.Investigation
	theirs, half, host := *e, *e, at
	theirs.Inspector.Oversight = theirs.Main.Oversight
	half.Inspector.Oversight = PublicKey{}
	host.Duty.Oversight = host.Main.Oversight
	for name, bad := range map[string]*Escrow{"one key twice": &same, "an inspector with a key of the organisation": &theirs, "an inspector with one key": &half, "a duty host with a key of an officer": &host, "no spare": {Epoch: 1, Main: e.Main}, "no epoch": {Main: e.Main, Spare: e.Spare}} {
		if _, err := bad.Seal(anInfo, nil); err == nil {
			t.Errorf("%s: sealed", name)
		}
	}
	if _, err := (Pair{k[0].Public(), k[0].Public()}).Seal(anInfo, nil); err == nil {
		t.Error("sealed twice to one key")
	}
}

// vector is a seal that every later version must open.
type vector struct {
	Info      SealInfo
	Role      string
	Private   string // hex
	Public    string // hex
	Box       string // hex
	Plaintext string
}

func TestSealVectors(t *testing.T) {
	path := filepath.Join("testdata", "seal-vectors.json")
	if *update {
		var vs []vector
		for i, role := range []string{RoleInner, RoleOuter, RoleOnly} {
			k := keyPair(t)
			text := strings.Repeat("sealed ", i)
			box, err := SealTo(k.Public(), anInfo, role, []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			secret, err := k.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			vs = append(vs, vector{anInfo, role, hex.EncodeToString(secret), hex.EncodeToString(k.Public().Bytes()), hex.EncodeToString(box), text})
		}
		b, err := json.MarshalIndent(vs, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		os.MkdirAll("testdata", 0o755)
		if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var vs []vector
	if err := json.Unmarshal(b, &vs); err != nil || len(vs) != 3 {
		t.Fatal(len(vs), err)
	}
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, v := range vs {
		k, err := ParsePrivateKey(unhex(v.Private))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(k.Public().Bytes(), unhex(v.Public)) {
			t.Errorf("%s: another public key", v.Role)
		}
		pt, err := OpenWith(k, v.Info, v.Role, unhex(v.Box))
		if err != nil || string(pt) != v.Plaintext {
			t.Errorf("%s: %q, %v", v.Role, pt, err)
		}
	}
}

func TestKeysAreParsedStrictly(t *testing.T) {
	k := keyPair(t)
	pub, err := ParsePublicKey(k.Public().Bytes())
	if err != nil || pub.ID() != k.Public().ID() {
		t.Fatal(err)
	}
	for _, b := range [][]byte{nil, k.Public().Bytes()[1:], append(k.Public().Bytes(), 0), bytes.Repeat([]byte{0xff}, sealPublic)} {
		if _, err := ParsePublicKey(b); err == nil {
			t.Errorf("took %d bytes for a public key", len(b))
		}
	}
	for _, b := range [][]byte{nil, make([]byte, 31), make([]byte, 33)} {
		if _, err := ParsePrivateKey(b); err == nil {
			t.Errorf("took %d bytes for a private key", len(b))
		}
	}
	if s := fmt.Sprintf("%v %+v %#v %s %x", k, k, k, k, k); strings.Count(s, k.Public().ID().String()) != 5 {
		t.Errorf("printed %s", s)
	}
	if _, err := json.Marshal(k); err == nil {
		t.Error("a private key went into a document")
	}
}

func pass(s string) Passphrase { return func() ([]byte, error) { return []byte(s), nil } }

const (
	phrase = "correct horse battery staple"
	other  = "another horse battery staple"
)

// TestSealAndRotate takes a keyring through its whole life: clear, rotated, sealed,
// rotated under the passphrase, backed up, restored.
func TestSealAndRotate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "keys", "keyring")
	k := opened(t, dir)
	first := wrap(t, k, "a", []byte("one"), nil)
	mac := k.MACKey("token/1")
	s1, err := k.Signer("log", 1)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 25, 10, 0, 0, 0, time.UTC)
	if n, err := k.Rotate(dir, now, nil); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	second := wrap(t, k, "a", []byte("two"), nil)
	if BoxEpoch(first) != 1 || BoxEpoch(second) != 2 || BoxEpoch(nil) != 0 {
		t.Fatal(BoxEpoch(first), BoxEpoch(second))
	}
	check := func(k *Keyring) {
		t.Helper()
		for _, c := range []struct {
			box  []byte
			want string
		}{{first, "one"}, {second, "two"}} {
			if pt, err := k.Unwrap("a", c.box, nil); err != nil || string(pt) != c.want {
				t.Fatalf("%q, %v", pt, err)
			}
		}
		if !bytes.Equal(mac, k.MACKey("token/1")) {
			t.Fatal("codes changed by a rotation")
		}
		again, err := k.Signer("log", 1)
		if err != nil || fmt.Sprint(again.Public()) != fmt.Sprint(s1.Public()) {
			t.Fatal("the signer of an epoch changed", err)
		}
		if s2, err := k.Signer("log", 2); err != nil || fmt.Sprint(s2.Public()) == fmt.Sprint(s1.Public()) {
			t.Fatal("two epochs sign with one key", err)
		}
		if x, err := k.Signer("other", 1); err != nil || fmt.Sprint(x.Public()) == fmt.Sprint(s1.Public()) {
			t.Fatal("two purposes sign with one key", err)
		}
		if m, err := k.MACKeyAt(2, "token/1"); err != nil || bytes.Equal(m, mac) {
			t.Fatal("two epochs make the same codes", err)
		}
	}
	check(k)
	k = opened(t, dir) // still clear
	check(k)
	relabelled := bytes.Clone(second)
	relabelled[4] = 1
	for name, box := range map[string][]byte{"epoch of another": relabelled, "epoch to come": append([]byte{2, 0, 0, 0, 9}, second[5:]...)} {
		if _, err := k.Unwrap("a", box, nil); !errors.Is(err, ErrWrongKey) {
			t.Errorf("%s: %v", name, err)
		}
	}

	if err := k.Seal(dir, []byte("short")); err == nil {
		t.Fatal("a short passphrase was taken")
	}
	if err := k.Seal(dir, []byte(phrase)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range k.epochs {
		if bytes.Contains(b, []byte(b64(e.master[:]))) {
			t.Fatal("a master secret lies in clear in a sealed file")
		}
	}
	if sealed, err := IsSealed(dir); !sealed || err != nil {
		t.Fatal(sealed, err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrNoPassphrase) {
		t.Fatal(err)
	}
	if _, err := OpenSealed(dir, pass(other)); !errors.Is(err, ErrPassphrase) {
		t.Fatal(err)
	}
	if k, err = OpenSealed(dir, pass(phrase)); err != nil {
		t.Fatal(err)
	}
	check(k)
	if _, err := k.Rotate(dir, now, pass(other)); !errors.Is(err, ErrPassphrase) {
		t.Fatal("rotated under another passphrase", err)
	}
	backup := filepath.Join(t.TempDir(), "backup")
	if err := k.Backup(backup, []byte(other)); err != nil {
		t.Fatal(err)
	}
	if err := k.Backup(backup, []byte(other)); err == nil {
		t.Fatal("a backup was overwritten")
	}
	if n, err := k.Rotate(dir, now, pass(phrase)); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	third := wrap(t, k, "a", []byte("three"), nil)
	restored, err := Load(backup, pass(other))
	if err != nil {
		t.Fatal(err)
	}
	check(restored)
	if _, err := restored.Unwrap("a", third, nil); !errors.Is(err, ErrWrongKey) {
		t.Fatal("a backup opens what was made after it", err)
	}
	if k, err = OpenSealed(dir, pass(phrase)); err != nil || len(k.Epochs()) != 3 || !k.Epochs()[2].Made.Equal(now) {
		t.Fatal(err)
	}
	check(k)
}

func TestSealedFileIsBound(t *testing.T) {
	b, err := SealFile("officer", []byte(`{"name":"<A & B>"}`), []byte(phrase), []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := ParseSealed(b)
	if err != nil || string(f.Public) != `{"name":"<A & B>"}` {
		t.Fatal(f, err)
	}
	if pt, err := f.Open("officer", []byte(phrase)); err != nil || string(pt) != "secret" {
		t.Fatalf("%q, %v", pt, err)
	}
	if _, err := f.Open("keyring", []byte(phrase)); err == nil {
		t.Error("opened as another kind")
	}
	for name, x := range map[string][]byte{
		"kind":   bytes.Replace(b, []byte(`"officer"`), []byte(`"keyring"`), 1),
		"public": bytes.Replace(b, []byte("<A"), []byte("<C"), 1),
		"rounds": bytes.Replace(b, []byte("600000"), []byte("600001"), 1),
	} {
		g, err := ParseSealed(x)
		if err != nil || bytes.Equal(x, b) {
			t.Fatal(name, err)
		}
		if _, err := g.Open(g.Kind, []byte(phrase)); !errors.Is(err, ErrPassphrase) {
			t.Errorf("%s changed: %v", name, err)
		}
	}
	for name, x := range map[string][]byte{
		"few rounds": bytes.Replace(b, []byte("600000"), []byte("1000"), 1),
		"spaces":     bytes.Replace(b, []byte(`,"kdf"`), []byte(`, "kdf"`), 1),
		"member":     bytes.Replace(b, []byte(`,"kdf"`), []byte(`,"extra":1,"kdf"`), 1),
		"tail":       append(bytes.Clone(b), 'x'),
		"version":    bytes.Replace(b, []byte(`"v":2`), []byte(`"v":3`), 1),
	} {
		if _, err := ParseSealed(x); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestPassphraseSources(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	t.Setenv("COUNTERSEAL_PASSPHRASE", "from the variable")
	want := func(file, text string) {
		t.Helper()
		if got, err := PassphraseFrom(file)(); err != nil || string(got) != text {
			t.Errorf("%q, %v; want %q", got, err, text)
		}
	}
	want("", "from the variable")
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	want("", "from the variable") // systemd gave others, not this one
	write("counterseal-passphrase", "from systemd\n", 0o644)
	want("", "from systemd")
	file := write("p", "from the file\r\n", 0o600)
	want(file, "from the file")
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := PassphraseFrom(file)(); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Error(err)
	}
	if _, err := PassphraseFrom(filepath.Join(dir, "none"))(); err == nil {
		t.Error("a missing file is no passphrase")
	}
}

func FuzzOpenWith(f *testing.F) {
	k := keyPair(f)
	box, err := SealTo(k.Public(), anInfo, RoleOnly, []byte("x"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(box)
	f.Add(box[:10])
	f.Fuzz(func(t *testing.T, b []byte) {
		if pt, err := OpenWith(k, anInfo, RoleOnly, b); err == nil && !bytes.Equal(b, box) {
			t.Fatalf("opened other bytes: %q", pt)
		}
	})
}

func FuzzParseSealed(f *testing.F) {
	b, err := SealFile("k", nil, []byte(phrase), []byte("x"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"box":"","kdf":"PBKDF2-HMAC-SHA256","kind":"k","public":{"a":"\u003c"},"rounds":600000,"salt":"","v":2}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSealed(b)
		if err != nil {
			return
		}
		form := s.form()
		form.Box = b64(s.box)
		again, err := compact(form)
		if err != nil || !bytes.Equal(append(again, '\n'), b) {
			t.Fatalf("accepted what is written otherwise: %q", b)
		}
	})
}
