package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// runWitness runs a witness as a process of its own, as a person on another machine
// does, and gives its vkey and address; it stops with the test.
func runWitness(t *testing.T, log string) (vkey, url string) {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command("counterseal", "witness", "--dir", filepath.Join(t.TempDir(), "w"), "--listen", "127.0.0.1:0", "--log", log, "--name", "witness.example/package")
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the witness: %v\n%s", err, stderr.String())
		}
	})
	said := map[string]string{}
	for sc := bufio.NewScanner(out); len(said) < 2 && sc.Scan(); {
		name, value, _ := strings.Cut(sc.Text(), " ")
		said[name] = strings.TrimSpace(value)
	}
	if said["vkey"] == "" || said["url"] == "" {
		t.Fatal(said, stderr.String())
	}
	return said["vkey"], said["url"]
}

// must runs a command line and wants an exit code.
func must(t *testing.T, code int, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if got := run(context.Background(), &environment{stdin: strings.NewReader(""), stdout: &out, stderr: &errs}, args); got != code {
		t.Fatalf("%v: exit code %d, want %d\n%s%s", args, got, code, out.String(), errs.String())
	}
	return out.String() + errs.String()
}

// secondVerifier builds the verifier that shares no code with this program.
func secondVerifier(t *testing.T) string {
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

var alteredLine = regexp.MustCompile(`(?m)^ALTERED ([^:]+): `)

func alteredNames(out string) string {
	var names []string
	for _, m := range alteredLine.FindAllStringSubmatch(out, -1) {
		names = append(names, m[1])
	}
	return strings.Join(names, ",")
}

// TestPackageOfTheDemo plays the demo, lets a real witness cosign its ledger, makes a
// package and takes it to a folder where nothing else is. Both verifiers accept it
// there; with one byte changed both refuse it and name the same file; a person whom
// nobody named is a token in it; proofs of single records hold; custody is followed.
func TestPackageOfTheDemo(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "demo")
	must(t, 0, "demo", "--no-serve", "--no-offices", "--scale", "0.05", "--data", data, "--seed", "7", "--at", playedAt)
	log, err := os.ReadFile(filepath.Join(data, "data", "ledger", "log.vkey"))
	if err != nil {
		t.Fatal(err)
	}
	vkey, url := runWitness(t, strings.TrimSpace(string(log)))
	conf := filepath.Join(data, configName)
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	lone := must(t, exitRefused, append([]string{"package", "create", "--data", data}, packageFlags(t, data, filepath.Join(data, "lone.pkg"))...)...)
	if !strings.Contains(lone, "witness") {
		t.Fatal(lone)
	}
	text = bytes.ReplaceAll(text, []byte("witnesses: []\n"), nil)
	text = append(text, fmt.Sprintf("\nwitnesses:\n  - vkey: %q\n    url: %q\n    run_by: Inspector General\n", vkey, url)...)
	if err := os.WriteFile(conf, text, 0o600); err != nil {
		t.Fatal(err)
	}

	directory, err := os.ReadFile(filepath.Join(data, "keyholder", "directory.yaml"))
	if err != nil {
		t.Fatal(err)
	}

	// One person of the incident is named, another is not.
	people := regexp.MustCompile(`person-[a-z2-7]{6,}`).FindAllString(must(t, 0, "search", "--data", data, "--format", "jsonl", "--limit", "400", "source = idp"), -1)
	named := people[0]
	other := ""
	for _, p := range people {
		if p != named {
			other = p
		}
	}
	if other == "" {
		t.Fatal("one person alone in the demo")
	}
	// The other machine.
	away := t.TempDir()
	pkg := filepath.Join(away, "case.pkg")
	said := must(t, 0, append([]string{"package", "create", "--data", data, "--source", "idp", "--person", named}, packageFlags(t, data, pkg)...)...)
	id := regexp.MustCompile(`package +([0-9a-f-]{36})`).FindStringSubmatch(said)[1]
	if strings.Contains(said, " 0 records") || !strings.Contains(said, "--witness "+vkey) {
		t.Fatal(said)
	}
	for _, name := range []string{"recipient.key", "pass"} {
		b, err := os.ReadFile(filepath.Join(data, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(away, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ref := regexp.MustCompile(`"ref":"([^"]+)"`).FindStringSubmatch(must(t, 0, "search", "--data", data, "--format", "jsonl", "--limit", "1", "source = idp"))[1]
	proof, opened := filepath.Join(away, "proof.json"), filepath.Join(away, "opened.json")
	must(t, 0, "prove", "--data", data, ref, "-o", proof)
	must(t, 0, "prove", "--data", data, ref, "--open", "-o", opened)
	must(t, 0, "package", "receive", "--data", data, id)
	listed := must(t, 0, "package", "list", "--data", data, "--format", "jsonl")
	// What the ledger knows of it stays whole.
	must(t, 0, "verify", "--data", data, "--log", strings.TrimSpace(string(log)), "--witness", vkey)
	if err := os.RemoveAll(data); err != nil { // this machine has no data directory
		t.Fatal(err)
	}
	if !strings.Contains(listed, id) || strings.Contains(listed, `"Overdue":true`) {
		t.Error(listed)
	}

	trust := []string{"--log", strings.TrimSpace(string(log)), "--witness", vkey, "--threshold", "1"}
	key := []string{"--key", filepath.Join(away, "recipient.key"), "--passphrase-file", filepath.Join(away, "pass")}
	with := func(parts ...[]string) (all []string) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	second := secondVerifier(t)
	other2 := func(code int, args []string) string {
		t.Helper()
		b, err := exec.Command(second, args...).CombinedOutput()
		var x *exec.ExitError
		if got := 0; err != nil && !errors.As(err, &x) || x != nil && x.ExitCode() != code || x == nil && code != got {
			t.Fatalf("the second verifier: %v, want exit code %d\n%s", err, code, b)
		}
		return string(b)
	}
	must(t, 0, with([]string{"package", "verify", pkg}, trust)...)
	if out := must(t, 0, with([]string{"package", "verify", pkg}, trust, key)...); !strings.Contains(out, "nothing altered") {
		t.Fatal(out)
	}
	other2(0, with(trust, []string{pkg}))
	other2(0, with(trust, key, []string{pkg}))
	bag := filepath.Join(away, "bag")
	must(t, 0, with([]string{"package", "open", pkg, "-o", bag}, trust, key)...)
	must(t, 0, with([]string{"package", "verify", bag}, trust)...)
	if out := other2(0, with(trust, []string{bag})); !strings.Contains(out, "records") {
		t.Fatal(out)
	}

	// Single proofs.
	must(t, 0, with([]string{"prove", "--verify", proof}, trust)...)
	if out := must(t, 0, with([]string{"prove", "--verify", opened}, trust)...); !strings.Contains(out, `"source":"idp"`) {
		t.Fatal(out)
	}
	b, err := os.ReadFile(proof)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{`"leaf":"`, `"path":["`, `"proof":"`, `"statement":"`, `"index":`} {
		c := bytes.Clone(b)
		i := bytes.Index(c, []byte(at)) + len(at) + 3
		c[i] ^= 1
		bad := filepath.Join(t.TempDir(), "bad.json")
		if err := os.WriteFile(bad, c, 0o600); err != nil {
			t.Fatal(err)
		}
		must(t, exitFailed, with([]string{"prove", "--verify", bad}, trust)...)
	}

	// Who was not named is a token, and so is who was.
	var inside []byte
	files := 0
	err = filepath.WalkDir(bag, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		inside = append(inside, b...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	inTokens := map[string]bool{}
	for _, p := range regexp.MustCompile(`p1_[a-z2-7]{26}`).FindAllString(string(inside), -1) {
		inTokens[p] = true
	}
	if len(inTokens) < 2 {
		t.Errorf("the package tells of %d people", len(inTokens))
	}
	for _, want := range []string{"Test Court", "C-2026-11", "INV-1"} {
		if !bytes.Contains(inside, []byte(want)) {
			t.Errorf("the package lacks %s", want)
		}
	}
	if bytes.Contains(inside, []byte("<script")) || bytes.Contains(inside, []byte(named)) || bytes.Contains(inside, []byte(other)) {
		t.Error("a script, or an alias, which says nothing elsewhere")
	}
	small := strings.ToLower(string(inside))
	looked := 0
	for _, line := range strings.Split(string(directory), "\n") {
		for _, q := range regexp.MustCompile(`"([^"]+)"`).FindAllStringSubmatch(line, -1) {
			if strings.Contains(line, "end:") {
				continue
			}
			looked++
			if nameIn(small, strings.ToLower(q[1])) >= 0 {
				t.Errorf("the package holds %q", q[1])
			}
		}
	}
	if looked < 100 {
		t.Errorf("only %d names to look for", looked)
	}

	// One byte.
	seed := rand.Uint64()
	t.Logf("seed %d, %d files", seed, files)
	rng := rand.New(rand.NewPCG(seed, 9))
	agree := func(path, want string) {
		t.Helper()
		one := alteredNames(must(t, exitFailed, with([]string{"package", "verify", path}, trust)...))
		two := alteredNames(other2(1, with(trust, []string{path})))
		if one == "" || one != two || want != "" && one != want {
			t.Fatalf("%s: %q and %q, want %q", path, one, two, want)
		}
	}
	whole, err := os.ReadFile(pkg)
	if err != nil {
		t.Fatal(err)
	}
	for range 12 {
		c := bytes.Clone(whole)
		c[rng.IntN(len(c))] ^= 1 << rng.IntN(8)
		if err := os.WriteFile(pkg, c, 0o600); err != nil {
			t.Fatal(err)
		}
		agree(pkg, "")
	}
	err = filepath.WalkDir(bag, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		good, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		c := bytes.Clone(good)
		c[rng.IntN(len(c))] ^= 1 << rng.IntN(8)
		if err := os.WriteFile(path, c, 0o600); err != nil {
			return err
		}
		name, err := filepath.Rel(bag, path)
		if err != nil {
			return err
		}
		agree(bag, filepath.ToSlash(name))
		return os.WriteFile(path, good, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// packageFlags makes a recipient beside the data and gives the flags that every
// package needs.
func packageFlags(t *testing.T, dir, out string) []string {
	t.Helper()
	pass, key := filepath.Join(dir, "pass"), filepath.Join(dir, "recipient.key")
	if _, err := os.Stat(key); err != nil {
		if err := os.WriteFile(pass, []byte("a passphrase of some words\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		must(t, 0, "package", "key", "--name", "Test Court", "-o", key, "--card", key+".card", "--passphrase-file", pass)
	}
	return []string{"--case", "C-2026-11", "--purpose", "INV-1", "--recipient", key + ".card", "--due", "2999-12-31", "-o", out}
}
