package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// licences names the licence of each module of go.mod, as SPDX writes it, sorted.
// TestLicences holds the list against the licence files in the module cache.
var licences = []struct{ module, spdx string }{
	{"filippo.io/mldsa", "BSD-3-Clause"},
	{"github.com/VictoriaMetrics/VictoriaMetrics", "Apache-2.0"},
	{"github.com/VictoriaMetrics/metrics", "MIT"},
	{"github.com/VictoriaMetrics/metricsql", "Apache-2.0"},
	{"github.com/beorn7/perks", "MIT"},
	{"github.com/cedar-policy/cedar-go", "Apache-2.0"},
	{"github.com/cenkalti/backoff/v5", "MIT"},
	{"github.com/cespare/xxhash/v2", "MIT"},
	{"github.com/chromedp/cdproto", "MIT"},
	{"github.com/chromedp/chromedp", "MIT"},
	{"github.com/chromedp/sysutil", "MIT"},
	{"github.com/coreos/go-oidc/v3", "Apache-2.0"},
	{"github.com/counterseal/counterseal", "Apache-2.0"},
	{"github.com/descope/virtualwebauthn", "MIT"},
	{"github.com/dustin/go-humanize", "MIT"},
	{"github.com/fxamacker/cbor/v2", "MIT"},
	{"github.com/go-jose/go-jose/v4", "Apache-2.0"},
	{"github.com/go-json-experiment/json", "BSD-3-Clause"},
	{"github.com/go-logr/logr", "Apache-2.0"},
	{"github.com/go-logr/stdr", "Apache-2.0"},
	{"github.com/go-viper/mapstructure/v2", "MIT"},
	{"github.com/go-webauthn/webauthn", "BSD-3-Clause"},
	{"github.com/go-webauthn/x", "BSD-3-Clause"},
	{"github.com/gobwas/httphead", "MIT"},
	{"github.com/gobwas/pool", "MIT"},
	{"github.com/gobwas/ws", "MIT"},
	{"github.com/goccy/go-yaml", "MIT"},
	{"github.com/golang-jwt/jwt/v5", "MIT"},
	{"github.com/google/go-cmp", "BSD-3-Clause"},
	{"github.com/google/go-tpm", "Apache-2.0"},
	{"github.com/google/uuid", "BSD-3-Clause"},
	{"github.com/hashicorp/golang-lru/v2", "MPL-2.0"},
	{"github.com/inconshreveable/mousetrap", "Apache-2.0"},
	{"github.com/jedib0t/go-pretty/v6", "MIT"},
	{"github.com/klauspost/compress", "Apache-2.0 AND BSD-3-Clause AND MIT"},
	{"github.com/mattn/go-isatty", "MIT"},
	{"github.com/mattn/go-runewidth", "MIT"},
	{"github.com/mitchellh/colorstring", "MIT"},
	{"github.com/munnerz/goautoneg", "BSD-3-Clause"},
	{"github.com/ncruces/go-strftime", "MIT"},
	{"github.com/philhofer/fwd", "MIT"},
	{"github.com/prometheus/client_golang", "Apache-2.0"},
	{"github.com/prometheus/client_model", "Apache-2.0"},
	{"github.com/prometheus/common", "Apache-2.0"},
	{"github.com/prometheus/procfs", "Apache-2.0"},
	{"github.com/remyoudompheng/bigfft", "BSD-3-Clause"},
	{"github.com/rivo/uniseg", "MIT"},
	{"github.com/rogpeppe/go-internal", "BSD-3-Clause"},
	{"github.com/santhosh-tekuri/jsonschema/v6", "Apache-2.0"},
	{"github.com/schollz/progressbar/v3", "MIT"},
	{"github.com/spf13/cobra", "Apache-2.0"},
	{"github.com/spf13/pflag", "BSD-3-Clause"},
	{"github.com/tinylib/msgp", "MIT"},
	{"github.com/transparency-dev/formats", "Apache-2.0"},
	{"github.com/transparency-dev/merkle", "Apache-2.0"},
	{"github.com/transparency-dev/tessera", "Apache-2.0"},
	{"github.com/valyala/bytebufferpool", "MIT"},
	{"github.com/valyala/fastjson", "MIT"},
	{"github.com/valyala/fastrand", "MIT"},
	{"github.com/valyala/gozstd", "MIT"},
	{"github.com/valyala/histogram", "MIT"},
	{"github.com/valyala/quicktemplate", "MIT"},
	{"github.com/x448/float16", "MIT"},
	{"go.opentelemetry.io/auto/sdk", "Apache-2.0"},
	{"go.opentelemetry.io/otel", "Apache-2.0 AND BSD-3-Clause"},
	{"go.opentelemetry.io/otel/metric", "Apache-2.0 AND BSD-3-Clause"},
	{"go.opentelemetry.io/otel/trace", "Apache-2.0 AND BSD-3-Clause"},
	{"golang.org/fips140", "BSD-3-Clause"},
	{"golang.org/x/crypto", "BSD-3-Clause"},
	{"golang.org/x/exp", "BSD-3-Clause"},
	{"golang.org/x/mod", "BSD-3-Clause"},
	{"golang.org/x/oauth2", "BSD-3-Clause"},
	{"golang.org/x/sync", "BSD-3-Clause"},
	{"golang.org/x/sys", "BSD-3-Clause"},
	{"golang.org/x/term", "BSD-3-Clause"},
	{"golang.org/x/text", "BSD-3-Clause"},
	{"golang.org/x/tools", "BSD-3-Clause"},
	{"google.golang.org/protobuf", "BSD-3-Clause"},
	{"gopkg.in/yaml.v3", "Apache-2.0 AND MIT"},
	{"k8s.io/klog/v2", "Apache-2.0"},
	{"modernc.org/libc", "BSD-3-Clause AND MIT"},
	{"modernc.org/mathutil", "BSD-3-Clause"},
	{"modernc.org/memory", "BSD-3-Clause"},
	{"modernc.org/sqlite", "BSD-3-Clause AND MIT AND blessing"},
	{"stdlib", "BSD-3-Clause"},
}

// The parts of CycloneDX 1.6 that we write.
// https://cyclonedx.org/docs/1.6/json/
type (
	bom struct {
		Schema       string          `json:"$schema"`
		BOMFormat    string          `json:"bomFormat"`
		SpecVersion  string          `json:"specVersion"`
		SerialNumber string          `json:"serialNumber"`
		Version      int             `json:"version"`
		Metadata     bomMetadata     `json:"metadata"`
		Components   []bomComponent  `json:"components"`
		Dependencies []bomDependency `json:"dependencies"`
	}
	bomMetadata struct {
		Timestamp  string         `json:"timestamp,omitempty"`
		Lifecycles []bomLifecycle `json:"lifecycles"`
		Tools      bomTools       `json:"tools"`
		Component  bomComponent   `json:"component"`
	}
	bomLifecycle struct {
		Phase string `json:"phase"`
	}
	bomTools struct {
		Components []bomComponent `json:"components"`
	}
	bomComponent struct {
		Type        string        `json:"type"`
		Ref         string        `json:"bom-ref,omitempty"`
		Name        string        `json:"name"`
		Version     string        `json:"version,omitempty"`
		Description string        `json:"description,omitempty"`
		Hashes      []bomHash     `json:"hashes,omitempty"`
		Licences    []bomLicence  `json:"licenses,omitempty"`
		PURL        string        `json:"purl,omitempty"`
		Properties  []bomProperty `json:"properties,omitempty"`
	}
	bomHash struct {
		Alg     string `json:"alg"`
		Content string `json:"content"`
	}
	bomLicence struct {
		Expression string `json:"expression"`
	}
	bomProperty struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	bomDependency struct {
		Ref       string   `json:"ref"`
		DependsOn []string `json:"dependsOn,omitempty"`
	}
)

func printSBOM(w io.Writer) error {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return errors.New("this binary carries no build information")
	}
	digest, err := binaryDigest()
	if err != nil {
		return err
	}
	return writeIndented(w, newSBOM(info, digest))
}

// newSBOM lists what the linker put into the binary with this digest. Nothing of it
// comes from the clock or the machine. A binary does not know which module imports
// which, so all of them are under the program.
func newSBOM(info *debug.BuildInfo, digest [sha256.Size]byte) bom {
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	program := bomModule("application", info.Main)
	program.Hashes = []bomHash{{Alg: "SHA-256", Content: hex.EncodeToString(digest[:])}}
	program.Properties = append(program.Properties, buildProperties(info)...)

	// The standard library has the version of the toolchain that compiled it in.
	std := bomModule("library", debug.Module{Path: "stdlib", Version: info.GoVersion})
	std.Description = "Go standard library and runtime, of the toolchain that built the binary"
	std.PURL = purl("stdlib", strings.TrimPrefix(info.GoVersion, "go"))
	std.Ref = std.PURL
	parts := []bomComponent{std}
	if v := settings["GOFIPS140"]; v != "" && v != "off" {
		m := bomModule("library", debug.Module{Path: "golang.org/fips140", Version: v})
		m.Description = "Go Cryptographic Module, frozen for FIPS 140-3"
		parts = append(parts, m)
	}
	for _, d := range info.Deps {
		m := *d
		if d.Replace != nil {
			m = *d.Replace
		}
		parts = append(parts, bomModule("library", m))
	}
	slices.SortFunc(parts, func(a, b bomComponent) int { return strings.Compare(a.Ref, b.Ref) })

	all := bomDependency{Ref: program.Ref}
	tree := []bomDependency{}
	for _, c := range parts {
		all.DependsOn = append(all.DependsOn, c.Ref)
		tree = append(tree, bomDependency{Ref: c.Ref})
	}
	return bom{
		Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", BOMFormat: "CycloneDX", SpecVersion: "1.6",
		SerialNumber: "urn:uuid:" + serial(digest).String(), Version: 1,
		Metadata: bomMetadata{
			Timestamp: settings["vcs.time"], Lifecycles: []bomLifecycle{{Phase: "post-build"}},
			Tools:     bomTools{Components: []bomComponent{{Type: "application", Name: "counterseal version --sbom", Version: program.Version}}},
			Component: program,
		},
		Components:   parts,
		Dependencies: append([]bomDependency{all}, tree...),
	}
}

// bomModule describes a module. Its sum goes into a property: it is a digest over the
// digests of the module's files, and a hash in CycloneDX is the digest of one file.
func bomModule(kind string, m debug.Module) bomComponent {
	p := purl(m.Path, m.Version)
	c := bomComponent{Type: kind, Ref: p, Name: m.Path, Version: m.Version, PURL: p}
	if i := slices.IndexFunc(licences, func(l struct{ module, spdx string }) bool { return l.module == m.Path }); i >= 0 {
		c.Licences = []bomLicence{{Expression: licences[i].spdx}}
	}
	if m.Sum != "" {
		c.Properties = []bomProperty{{Name: "counterseal:go:sum", Value: m.Sum}}
	}
	return c
}

// buildProperties are the build settings, under the registered names where there are
// such, https://cyclonedx.github.io/cyclonedx-property-taxonomy/cdx/gomod.html.
func buildProperties(info *debug.BuildInfo) []bomProperty {
	out := []bomProperty{{Name: "cdx:gomod:build:env:GOVERSION", Value: info.GoVersion}}
	for _, s := range info.Settings {
		switch s.Key {
		case "GOOS", "GOARCH", "CGO_ENABLED":
			out = append(out, bomProperty{Name: "cdx:gomod:build:env:" + s.Key, Value: s.Value})
		case "-tags":
			for tag := range strings.SplitSeq(s.Value, ",") {
				out = append(out, bomProperty{Name: "cdx:gomod:build:tag", Value: tag})
			}
		default:
			out = append(out, bomProperty{Name: "counterseal:build:" + s.Key, Value: s.Value})
		}
	}
	return out
}

// purl names a module as https://github.com/package-url/purl-spec does: the type
// golang is written in lower case, and a version that only means "from a folder" is
// none.
func purl(path, version string) string {
	s := "pkg:golang/" + purlEscape(strings.ToLower(path), "/")
	if version != "" && version != "(devel)" {
		s += "@" + purlEscape(version, ":")
	}
	return s
}

// purlEscape keeps what stands for itself in a purl, and the bytes of also.
func purlEscape(s, also string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~"+also, c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// serial is a UUID of version 8 (RFC 9562) from the digest of the binary.
func serial(digest [sha256.Size]byte) uuid.UUID {
	sum := sha256.Sum256(append([]byte("counterseal/sbom/v1\n"), digest[:]...))
	u := uuid.UUID(sum[:16])
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return u
}
