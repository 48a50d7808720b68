package report

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/counterseal/counterseal/internal/evidence"
	"github.com/counterseal/counterseal/internal/ledger"
)

var update = flag.Bool("update", false, "write the package that the tests of docs/verifier read")

// buildSecond builds the second verifier, which shares no code with this package.
func buildSecond(t testing.TB) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "verifier")
	cmd := exec.Command("go", "build", "-o", bin, ".")
	cmd.Dir = filepath.Join("..", "..", "docs", "verifier")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the second verifier: %v\n%s", err, out)
	}
	return bin
}

var altered = regexp.MustCompile(`(?m)^ALTERED ([^:]+): `)

// second runs it and gives its exit code and the names that it names.
func second(t testing.TB, bin string, args ...string) (code int, names, out string) {
	t.Helper()
	b, err := exec.Command(bin, args...).CombinedOutput()
	var x *exec.ExitError
	if errors.As(err, &x) {
		code = x.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, m := range altered.FindAllStringSubmatch(string(b), -1) {
		found = append(found, m[1])
	}
	return code, strings.Join(found, ","), string(b)
}

const testPass = "correct horse battery staple"

// writeKey writes the recipient's key file and its passphrase.
func (h *house) writeKey(t testing.TB, dir string) (key, pass string) {
	t.Helper()
	key, pass = filepath.Join(dir, "recipient.key"), filepath.Join(dir, "passphrase")
	b, err := h.key.File([]byte(testPass))
	fatal(t, err)
	fatal(t, os.WriteFile(key, b, 0o600))
	fatal(t, os.WriteFile(pass, []byte(testPass+"\n"), 0o600))
	return key, pass
}

// TestSecondVerifier: a verifier written from docs/formats alone agrees: on what is
// good, and on the name of the file in which one byte was changed.
func TestSecondVerifier(t *testing.T) {
	bin := buildSecond(t)
	h := newHouse(t)
	h.fill(t, 24)
	path, _ := h.pack(t, func(r *Request) { r.Scope.Sources = []string{"idp", "web"} })
	dir := filepath.Join(t.TempDir(), "bag")
	if c, err := Open(context.Background(), path, h.key, h.trust, dir); err != nil || !c.OK() {
		t.Fatal(c, err)
	}
	trust := []string{"--log", h.trust.Log[0], "--witness", h.trust.Witnesses[0].VKey}
	key, pass := h.writeKey(t, t.TempDir())
	withKey := append(append([]string(nil), trust...), "--key", key, "--passphrase-file", pass)
	for _, args := range [][]string{append(trust, path), append(withKey, path), append(trust, dir)} {
		if code, names, out := second(t, bin, args...); code != 0 || names != "" || !strings.HasPrefix(out, "ok ") {
			t.Fatal(code, out)
		}
	}
	if *update {
		h.golden(t, path, key)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 3))
	flip := func(b []byte) []byte {
		c := bytes.Clone(b)
		c[rng.IntN(len(c))] ^= 1 << rng.IntN(8)
		return c
	}
	agree := func(what string, first *Checked, args ...string) {
		t.Helper()
		code, second, out := second(t, bin, args...)
		if want := names(first); code != 1 || want == "" || second != want {
			t.Fatalf("%s: the second verifier says %d %q, the first %q\n%s", what, code, second, want, out)
		}
	}
	whole, err := os.ReadFile(path)
	fatal(t, err)
	for n := range 30 {
		b := flip(whole)
		if n%3 == 0 { // where the ledger speaks
			b = bytes.Clone(whole)
			b[len(b)-1-rng.IntN(3000)] ^= 1
		}
		bad := filepath.Join(t.TempDir(), "bad.pkg")
		fatal(t, os.WriteFile(bad, b, 0o600))
		c, err := VerifyFile(context.Background(), bad, nil, h.trust)
		fatal(t, err)
		agree(fmt.Sprint("container ", n), c, append(trust, bad)...)
	}
	for _, name := range filesOf(t, dir) {
		file := filepath.Join(dir, name)
		good, err := os.ReadFile(file)
		fatal(t, err)
		for n := range 4 {
			fatal(t, os.WriteFile(file, flip(good), 0o600))
			c, err := VerifyBag(context.Background(), dir, h.trust)
			fatal(t, err)
			agree(fmt.Sprint(name, " ", n), c, append(trust, dir)...)
			if names(c) != name {
				t.Fatalf("%s was changed, and both name %s", name, names(c))
			}
		}
		fatal(t, os.Remove(file))
		c, err := VerifyBag(context.Background(), dir, h.trust)
		fatal(t, err)
		agree(name+" missing", c, append(trust, dir)...)
		fatal(t, os.WriteFile(file, good, 0o600))
	}
	stray := filepath.Join(dir, "data", "run.sh")
	fatal(t, os.WriteFile(stray, []byte("#!"), 0o600))
	c, err := VerifyBag(context.Background(), dir, h.trust)
	fatal(t, err)
	agree("a file more", c, append(trust, dir)...)
	fatal(t, os.Remove(stray))
	// Keys that are not the ones of this log and witness verify nothing.
	other := newHouse(t)
	wrong := []string{"--log", h.trust.Log[0], "--witness", other.trust.Witnesses[0].VKey, path}
	if code, names, out := second(t, bin, wrong...); code != 1 || names != PartMade {
		t.Fatal(code, names, out)
	}
	v := h.trust
	v.Witnesses = other.trust.Witnesses
	if c, err := VerifyFile(context.Background(), path, nil, v); err != nil || names(c) != PartMade {
		t.Fatal(c, err)
	}
}

// goldenDir has a package that an earlier program wrote, its keys, and a proof.
var goldenDir = filepath.Join("..", "..", "docs", "verifier", "testdata")

// golden writes it.
func (h *house) golden(t *testing.T, pkg, key string) {
	dir := goldenDir
	fatal(t, os.MkdirAll(dir, 0o755))
	proof, _, err := h.Prove(context.Background(), evidence.Events, h.refs[1], true)
	fatal(t, err)
	fatal(t, os.WriteFile(filepath.Join(dir, "proof.json"), proof, 0o644))
	for from, to := range map[string]string{pkg: "good.pkg", key: "recipient.key"} {
		b, err := os.ReadFile(from)
		fatal(t, err)
		fatal(t, os.WriteFile(filepath.Join(dir, to), b, 0o644))
	}
	fatal(t, os.WriteFile(filepath.Join(dir, "passphrase"), []byte(testPass+"\n"), 0o644))
	fatal(t, os.WriteFile(filepath.Join(dir, "vkeys"), []byte(h.trust.Log[0]+"\n"+h.trust.Witnesses[0].VKey+"\n"), 0o644))
}

// readGolden gives the package, the key that opens it and whom to trust. Fuzz workers
// are processes of their own, and must agree about them.
func readGolden(t testing.TB) (pkg []byte, key *RecipientKey, v ledger.Verifiers) {
	t.Helper()
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(goldenDir, name))
		fatal(t, err)
		return b
	}
	keys := strings.Fields(string(read("vkeys")))
	key, err := OpenRecipientKey(read("recipient.key"), bytes.TrimSpace(read("passphrase")))
	fatal(t, err)
	return read("good.pkg"), key, ledger.Verifiers{Log: keys[:1], Witnesses: []ledger.Witness{{VKey: keys[1]}}, Threshold: 1}
}

// TestOldPackage: what an earlier program wrote still verifies.
func TestOldPackage(t *testing.T) {
	pkg, key, v := readGolden(t)
	c, err := verifyReader(context.Background(), readerAt(pkg), int64(len(pkg)), key, v, nil)
	if err != nil || !c.OK() || c.Records != 24 {
		t.Fatal(c, err)
	}
	b, err := os.ReadFile(filepath.Join(goldenDir, "proof.json"))
	fatal(t, err)
	if p, err := VerifyProof(b, v); err != nil || p.Record == nil {
		t.Fatal(p, err)
	}
}

// TestSecondStandsAlone: the second verifier imports the standard library and the two
// packages of golang.org/x/mod for notes and trees; nothing of this project.
func TestSecondStandsAlone(t *testing.T) {
	dir := filepath.Join("..", "..", "docs", "verifier")
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		fatal(t, err)
		for _, i := range f.Imports {
			path := strings.Trim(i.Path.Value, `"`)
			first, _, _ := strings.Cut(path, "/")
			if strings.Contains(first, ".") && path != "golang.org/x/mod/sumdb/note" && path != "golang.org/x/mod/sumdb/tlog" {
				t.Errorf("%s imports %s", file, path)
			}
		}
	}
	own, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	fatal(t, err)
	house, err := os.ReadFile(filepath.Join("..", "..", "go.mod"))
	fatal(t, err)
	pin := regexp.MustCompile(`golang\.org/x/mod v[0-9.]+`)
	if strings.Count(string(own), " v") != 1 || pin.FindString(string(own)) != pin.FindString(string(house)) {
		t.Errorf("it requires %s", own)
	}
}
