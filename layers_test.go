package counterseal

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/counterseal/counterseal/"

// layers is the house from the ground up. A package imports only from layers below
// its own. A package that is not listed fails the test: a new room is a decision.
var layers = [][]string{
	{"internal/quiet", "sigma", "evtx", "internal/event", "internal/durable", "internal/packs", "internal/approval", "internal/blind", "internal/strict"},
	{"rules", "sigma/sigmatest", "sigma/sigmajson", "internal/keyring", "internal/query", "internal/parse", "internal/pia", "internal/state", "internal/policy", "internal/passkey"},
	{"internal/admit", "internal/ocsf", "internal/evidence", "internal/ledger", "internal/index", "internal/detect", "internal/collect", "internal/officer", "internal/vault"},
	{"internal/pseudonym", "internal/access", "internal/alias", "internal/demo", "internal/attest", "internal/complaint"},
	{"internal/discloser"},
	{"internal/scan", "internal/pipeline", "internal/report", "internal/lifecycle", "internal/cases", "internal/broker", "internal/keyholder", "internal/duty"},
	{"internal/login", "internal/oversight"},
	{"internal/web"},
	{"cmd/counterseal"},
}

// denials are promises. Each names packages that must not import others, directly
// or through anything, with the reason.
var denials = []struct {
	from, never []string
	why         string
}{
	{
		[]string{"internal/parse", "internal/ocsf", "internal/query", "internal/pia", "internal/admit", "internal/access", "internal/approval", "internal/passkey", "sigma", "sigma/sigmajson", "evtx"},
		[]string{"net", "net/http", "os", "os/exec"},
		"what reads outside bytes or decides is pure: it cannot reach a file, a process or the network",
	},
	{
		[]string{"sigma", "sigma/sigmajson", "evtx"},
		[]string{module + "internal/event"},
		"the public packages stand alone: other projects import them",
	},
	{
		[]string{"internal/detect", "internal/ocsf", "internal/index", "internal/state"},
		[]string{module + "internal/pseudonym", module + "internal/keyring"},
		"the steps after pseudonymisation know no names and no keys",
	},
	{
		[]string{"internal/keyholder"},
		[]string{module + "internal/evidence", module + "internal/index", module + "internal/state", module + "internal/ledger"},
		"who can turn a name into a token has no way to what the tokens did",
	},
}

// logstorage is the index library; it logs rows and exits on I/O errors, so one
// package lives with it.
const logstorage = "github.com/VictoriaMetrics/VictoriaMetrics/"

type source struct {
	pkg     string // directory
	file    string
	imports []string
	doc     bool
}

func TestLayers(t *testing.T) {
	files := sources(t)
	level := map[string]int{}
	for i, l := range layers {
		for _, p := range l {
			level[p] = i
		}
	}
	documented := map[string]bool{}
	for _, f := range files {
		if f.doc {
			documented[f.pkg] = true
		}
		own, listed := level[f.pkg]
		if !listed {
			t.Errorf("%s: package %s stands in no layer of layers_test.go", f.file, f.pkg)
			continue
		}
		for _, imp := range f.imports {
			if imp == "testing" || strings.HasPrefix(imp, "testing/") && imp != "testing/fstest" {
				t.Errorf("%s imports %s in shipped code", f.file, imp)
			}
			if strings.HasPrefix(imp, logstorage) && f.pkg != "internal/index" {
				t.Errorf("%s imports %s: only internal/index lives with that library", f.file, imp)
			}
			pkg, ours := strings.CutPrefix(imp, module)
			if !ours {
				continue
			}
			if pkg == "internal/packs" {
				t.Errorf("%s imports internal/packs, which is for tests", f.file)
			}
			if level[pkg] >= own && pkg != f.pkg {
				t.Errorf("%s imports %s, which is not below it", f.file, pkg)
			}
		}
	}
	for p := range level {
		if _, err := os.Stat(p); err == nil && !documented[p] {
			t.Errorf("%s has no package comment", p)
		}
	}
}

func TestPromisesOfImports(t *testing.T) {
	direct := map[string][]string{}
	for _, f := range sources(t) {
		direct[f.pkg] = append(direct[f.pkg], f.imports...)
	}
	for _, d := range denials {
		for _, from := range d.from {
			for _, imp := range reach(direct, from) {
				if slices.Contains(d.never, imp) {
					t.Errorf("%s reaches %s: %s", from, imp, d.why)
				}
			}
		}
	}
}

func TestWebImportsNoSecrets(t *testing.T) {
	for _, f := range sources(t) {
		if f.pkg != "internal/web" {
			continue
		}
		for _, imp := range f.imports {
			for _, bad := range []string{"internal/pseudonym", "internal/evidence", "internal/keyring", "internal/keyholder"} {
				if imp == module+bad {
					t.Errorf("%s imports %s: what answers people cannot undo a token, open a segment or use a key", f.file, bad)
				}
			}
		}
	}
}

// TestApprovedCryptography holds what make fips can only show for the lines that a test
// reaches: our code calls no cryptography outside the FIPS 140-3 module, and chooses no
// nonce itself.
func TestApprovedCryptography(t *testing.T) {
	for _, f := range sources(t) {
		for _, imp := range f.imports {
			switch {
			case imp == "crypto/ecdh" && f.pkg == "internal/blind": // P-256, below
			case slices.Contains([]string{"crypto/des", "crypto/dsa", "crypto/ecdh", "crypto/md5", "crypto/rc4", "crypto/sha1"}, imp),
				strings.HasPrefix(imp, "golang.org/x/crypto/"), strings.HasPrefix(imp, "filippo.io/"):
				t.Errorf("%s imports %s: not approved, or able to be what is not; take SHA-2, HMAC, HKDF, AES-GCM, Ed25519, crypto/hpke", f.file, imp)
			}
		}
		text, err := os.ReadFile(f.file)
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{"cipher.NewGCM(", "cipher.NewGCMWithNonceSize(", "cipher.NewGCMWithTagSize(", "cipher.NewCBC", "cipher.NewCFB", "cipher.NewOFB", "fips140.WithoutEnforcement(", "ecdh.X25519("} {
			if strings.Contains(string(text), bad) {
				t.Errorf("%s calls %s...): take cipher.NewGCMWithRandomNonce, and P-256", f.file, bad)
			}
		}
	}
}

// TestOneDestroysKeys holds the promise that a hold is obeyed where cards are
// destroyed: internal/lifecycle alone calls the one function that does.
func TestOneDestroysKeys(t *testing.T) {
	called := false
	err := walk(func(path string) error {
		pkg := filepath.ToSlash(filepath.Dir(path))
		if strings.HasSuffix(path, "_test.go") || pkg == "internal/evidence" {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.Contains(string(data), "DestroyCard(") {
			called = true
			if pkg != "internal/lifecycle" {
				t.Errorf("%s destroys a key card: only internal/lifecycle looks at the holds first", path)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !called {
		t.Error("nobody destroys a key card: this test looks for the wrong name")
	}
}

// TestMakersOfEvents holds the promise that names stop at the door: an Event is
// made from a Record by pseudonym alone.
func TestMakersOfEvents(t *testing.T) {
	err := walk(func(path string) error {
		if strings.HasSuffix(path, "_test.go") {
			return nil
		}
		pkg := filepath.ToSlash(filepath.Dir(path))
		if pkg == "internal/event" || pkg == "internal/pseudonym" {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, bad := range []string{"event.Event{", "new(event.Event)"} {
			if strings.Contains(string(data), bad) {
				t.Errorf("%s makes an event itself (%s): only internal/pseudonym does", path, bad)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func reach(direct map[string][]string, from string) []string {
	var out []string
	seen := map[string]bool{}
	var visit func(pkg string)
	visit = func(pkg string) {
		for _, imp := range direct[pkg] {
			if seen[imp] {
				continue
			}
			seen[imp] = true
			out = append(out, imp)
			if p, ok := strings.CutPrefix(imp, module); ok {
				visit(p)
			}
		}
	}
	visit(from)
	return out
}

func sources(t *testing.T) []source {
	t.Helper()
	var out []source
	err := walk(func(path string) error {
		if strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		s := source{pkg: filepath.ToSlash(filepath.Dir(path)), file: path, doc: f.Doc != nil}
		for _, i := range f.Imports {
			p, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			s.imports = append(s.imports, p)
		}
		out = append(out, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// walk visits the Go files below the root, nested modules aside.
func walk(fn func(path string) error) error {
	return filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if strings.HasPrefix(d.Name(), ".") && path != "." || d.Name() == "testdata" {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil && path != "." {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(path) == ".go" && filepath.Dir(path) != "." {
			return fn(path)
		}
		return nil
	})
}
