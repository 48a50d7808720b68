package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"

	"github.com/counterseal/counterseal/internal/packs"
)

// invented is a build with all that a build can have.
func invented() *debug.BuildInfo {
	return &debug.BuildInfo{
		GoVersion: "go1.26.8",
		Main:      debug.Module{Path: "github.com/counterseal/counterseal", Version: "v1.2.4-0.20261125120000-abcdefabcdef+dirty"},
		Deps: []*debug.Module{
			{Path: "gopkg.in/yaml.v3", Version: "v3.0.1", Sum: "h1:yaml="},
			{Path: "example.org/old", Version: "v1.0.0", Replace: &debug.Module{Path: "github.com/VictoriaMetrics/VictoriaMetrics", Version: "v1.121.0+incompatible", Sum: "h1:other="}},
		},
		Settings: []debug.BuildSetting{
			{Key: "-tags", Value: "fips140v1.0,extra"}, {Key: "-trimpath", Value: "true"}, {Key: "GOOS", Value: "linux"},
			{Key: "GOFIPS140", Value: "v1.0.0-c2097c7c"}, {Key: "vcs.time", Value: "2026-11-25T12:00:00Z"},
		},
	}
}

func TestSBOM(t *testing.T) {
	digest := sha256.Sum256([]byte("a binary"))
	b := newSBOM(invented(), digest)

	type row struct{ Ref, Name, Version, Licence, Sum string }
	var got []row
	for _, c := range append([]bomComponent{b.Metadata.Component}, b.Components...) {
		r := row{Ref: c.Ref, Name: c.Name, Version: c.Version}
		if len(c.Licences) == 1 {
			r.Licence = c.Licences[0].Expression
		}
		for _, p := range c.Properties {
			if p.Name == "counterseal:go:sum" {
				r.Sum = p.Value
			}
		}
		if c.PURL != c.Ref {
			t.Errorf("%s: purl %q, bom-ref %q", c.Name, c.PURL, c.Ref)
		}
		got = append(got, r)
	}
	want := []row{
		{"pkg:golang/github.com/counterseal/counterseal@v1.2.4-0.20261125120000-abcdefabcdef%2Bdirty", "github.com/counterseal/counterseal", "v1.2.4-0.20261125120000-abcdefabcdef+dirty", "Apache-2.0", ""},
		{"pkg:golang/github.com/victoriametrics/victoriametrics@v1.121.0%2Bincompatible", "github.com/VictoriaMetrics/VictoriaMetrics", "v1.121.0+incompatible", "Apache-2.0", "h1:other="},
		{"pkg:golang/golang.org/fips140@v1.0.0-c2097c7c", "golang.org/fips140", "v1.0.0-c2097c7c", "BSD-3-Clause", ""},
		{"pkg:golang/gopkg.in/yaml.v3@v3.0.1", "gopkg.in/yaml.v3", "v3.0.1", "Apache-2.0 AND MIT", "h1:yaml="},
		{"pkg:golang/stdlib@1.26.8", "stdlib", "go1.26.8", "BSD-3-Clause", ""},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("components (-want +got):\n%s", d)
	}
	wantProps := []bomProperty{
		{"cdx:gomod:build:env:GOVERSION", "go1.26.8"}, {"cdx:gomod:build:tag", "fips140v1.0"}, {"cdx:gomod:build:tag", "extra"},
		{"counterseal:build:-trimpath", "true"}, {"cdx:gomod:build:env:GOOS", "linux"},
		{"counterseal:build:GOFIPS140", "v1.0.0-c2097c7c"}, {"counterseal:build:vcs.time", "2026-11-25T12:00:00Z"},
	}
	if d := cmp.Diff(wantProps, b.Metadata.Component.Properties); d != "" {
		t.Errorf("build properties (-want +got):\n%s", d)
	}
	if b.Metadata.Timestamp != "2026-11-25T12:00:00Z" {
		t.Errorf("timestamp %q, want that of the commit", b.Metadata.Timestamp)
	}
	checkSBOM(t, b, digest)

	again := newSBOM(invented(), digest)
	if d := cmp.Diff(b, again); d != "" {
		t.Errorf("the same binary gives two lists:\n%s", d)
	}
	if other := newSBOM(invented(), sha256.Sum256([]byte("another"))); other.SerialNumber == b.SerialNumber {
		t.Error("two binaries have one serial number")
	}
	if plain := newSBOM(&debug.BuildInfo{Main: debug.Module{Path: "example.org/m", Version: "(devel)"}}, digest); plain.Metadata.Component.PURL != "pkg:golang/example.org/m" || plain.Metadata.Timestamp != "" {
		t.Errorf("a build from a folder: purl %q, timestamp %q", plain.Metadata.Component.PURL, plain.Metadata.Timestamp)
	}
}

// checkSBOM holds a list to the rules of CycloneDX that a schema cannot or need not
// be asked about.
func checkSBOM(t *testing.T, b bom, digest [sha256.Size]byte) {
	t.Helper()
	if b.BOMFormat != "CycloneDX" || b.SpecVersion != "1.6" || b.Version < 1 {
		t.Errorf("head %q %q %d", b.BOMFormat, b.SpecVersion, b.Version)
	}
	if !regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(b.SerialNumber) {
		t.Errorf("serial number %q", b.SerialNumber)
	}
	if want := []bomHash{{"SHA-256", hex.EncodeToString(digest[:])}}; !cmp.Equal(b.Metadata.Component.Hashes, want) {
		t.Errorf("hashes %v, want %v", b.Metadata.Component.Hashes, want)
	}
	refs := []string{b.Metadata.Component.Ref}
	for _, c := range b.Components {
		if c.Type == "" || c.Name == "" || c.Version == "" || c.Ref == "" {
			t.Errorf("incomplete: %+v", c)
		}
		if len(c.Hashes) != 0 {
			t.Errorf("%s: a module has no digest of one file, got %v", c.Name, c.Hashes)
		}
		refs = append(refs, c.Ref)
	}
	var told []string
	for _, d := range b.Dependencies {
		told = append(told, d.Ref)
	}
	if d := cmp.Diff(refs, told); d != "" {
		t.Errorf("components and dependencies (-components +dependencies):\n%s", d)
	}
	if d := cmp.Diff(refs[1:], b.Dependencies[0].DependsOn); d != "" {
		t.Errorf("dependencies of the program (-want +got):\n%s", d)
	}
	slices.Sort(refs)
	if len(slices.Compact(refs)) != len(b.Components)+1 {
		t.Error("a bom-ref stands twice")
	}
}

// TestSBOMOfThisBinary asks the command, reads its output strictly, and holds it
// against the published schema where the module that carries it is in the module
// cache: go mod download github.com/CycloneDX/cyclonedx-go@v0.12.0.
func TestSBOMOfThisBinary(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run(t.Context(), &environment{stdout: &out, stderr: &errs}, []string{"version", "--sbom"}); code != 0 {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	var b bom
	dec := json.NewDecoder(bytes.NewReader(out.Bytes()))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&b); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	checkSBOM(t, b, sha256.Sum256(file))
	for _, c := range append(b.Components, b.Metadata.Component) {
		if len(c.Licences) != 1 {
			t.Errorf("%s: no licence", c.Name)
		}
		if c.Type == "library" && c.Name != "stdlib" && c.Name != "golang.org/fips140" && len(c.Properties) == 0 {
			t.Errorf("%s: no sum", c.Name)
		}
	}

	const home = "github.com/CycloneDX/cyclonedx-go"
	dir := moduleDir(t, home, "v0.12.0")
	if _, err := os.Stat(dir); err != nil {
		if packs.Required("cyclonedx") {
			t.Fatalf("the schema is not in the module cache: %v", err)
		}
		t.Skipf("the schema is not in the module cache; not checked: go mod download %s@v0.12.0", home)
	}
	c := jsonschema.NewCompiler()
	for url, name := range map[string]string{"bom-1.6.schema.json": "bom-1.6.schema.json", "spdx.schema.json": "spdx.schema.json", "jsf-0.82.schema.json": "jsf-0.82.schemax.json"} {
		f, err := os.Open(filepath.Join(dir, "schema", name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		doc, err := jsonschema.UnmarshalJSON(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.AddResource("http://cyclonedx.org/schema/"+url, doc); err != nil {
			t.Fatal(err)
		}
	}
	schema, err := c.Compile("http://cyclonedx.org/schema/bom-1.6.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	full, err := json.Marshal(newSBOM(invented(), sha256.Sum256(nil)))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"this binary": out.Bytes(), "an invented one": full} {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(doc); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLicences: the list names each module of go.mod and nothing else, and says what
// the licence files of the pinned versions say.
func TestLicences(t *testing.T) {
	data, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := modfile.Parse("go.mod", data, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{mod.Module.Mod.Path, "golang.org/fips140", "stdlib"}
	versions := map[string]string{}
	for _, r := range mod.Require {
		want = append(want, r.Mod.Path)
		versions[r.Mod.Path] = r.Mod.Version
	}
	slices.Sort(want)
	var have []string
	for _, l := range licences {
		have = append(have, l.module)
	}
	if d := cmp.Diff(want, have); d != "" {
		t.Errorf("modules of go.mod, sorted, against licences (-go.mod +licences):\n%s", d)
	}
	read := 0
	for _, l := range licences {
		version := versions[l.module]
		if version == "" {
			continue
		}
		dir := moduleDir(t, l.module, version)
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Logf("%s: not in the module cache", l.module)
			continue
		}
		read++
		// A file of third parties also tells of what is not linked in.
		var own, all []string
		for _, e := range entries {
			if e.IsDir() || !regexp.MustCompile(`(?i)^(licen[cs]e|copying)`).MatchString(e.Name()) {
				continue
			}
			text, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			found := licencesIn(string(text))
			all = append(all, found...)
			if !strings.Contains(e.Name(), "3RD-PARTY") {
				own = append(own, found...)
			}
		}
		said := strings.Split(l.spdx, " AND ")
		for _, s := range own {
			if !slices.Contains(said, s) {
				t.Errorf("%s %s: a licence file says %s, the list %s", l.module, version, s, l.spdx)
			}
		}
		for _, s := range said {
			if !slices.Contains(all, s) {
				t.Errorf("%s %s: the list says %s, no licence file does", l.module, version, s)
			}
		}
	}
	if read == 0 {
		t.Skip("no module cache; licences not compared")
	}
}

// licencesIn recognises licences by words that only they have.
func licencesIn(text string) []string {
	text = strings.Join(strings.Fields(text), " ")
	var out []string
	for _, l := range []struct{ words, spdx string }{
		{"Apache License, Version 2.0", "Apache-2.0"},
		{"Apache License Version 2.0", "Apache-2.0"},
		{"Permission is hereby granted, free of charge", "MIT"},
		{"Mozilla Public License, version 2.0", "MPL-2.0"},
		{"SQLite Is Public Domain", "blessing"},
		{"Permission to use, copy, modify", "ISC"},
		{"GNU GENERAL PUBLIC LICENSE", "GPL"},
		{"GNU LESSER GENERAL PUBLIC LICENSE", "LGPL"},
		{"GNU AFFERO GENERAL PUBLIC LICENSE", "AGPL"},
		{"Business Source License", "BUSL"},
	} {
		if strings.Contains(text, l.words) {
			out = append(out, l.spdx)
		}
	}
	if strings.Contains(text, "Redistribution and use in source and binary forms") {
		if strings.Contains(text, "Neither the name") {
			return append(out, "BSD-3-Clause")
		}
		return append(out, "BSD-2-Clause")
	}
	return out
}

// moduleDir is where the go command keeps a module.
func moduleDir(t *testing.T, path, version string) string {
	t.Helper()
	cache := os.Getenv("GOMODCACHE")
	if cache == "" {
		gopath, _, _ := strings.Cut(os.Getenv("GOPATH"), string(filepath.ListSeparator))
		if gopath == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				t.Skip("no home, no module cache")
			}
			gopath = filepath.Join(home, "go")
		}
		cache = filepath.Join(gopath, "pkg", "mod")
	}
	p, err := module.EscapePath(path)
	if err != nil {
		t.Fatal(err)
	}
	v, err := module.EscapeVersion(version)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(cache, p+"@"+v)
}
