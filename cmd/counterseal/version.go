package main

import (
	"crypto/fips140"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersion(env *environment) *cobra.Command {
	var asJSON, sbom bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version, how the binary was built, or what is in it",
		Long: "Version prints one line. --json adds the digest of the running binary, the state of\n" +
			"the FIPS 140-3 module and the build settings. --sbom prints what is linked in, as\n" +
			"CycloneDX 1.6: every module with its version, sum and licence. The same binary\n" +
			"always prints the same list.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			switch {
			case sbom && asJSON:
				return usage("--sbom and --json: which of the two?")
			case sbom:
				return printSBOM(env.stdout)
			case asJSON:
				return printBuild(env.stdout)
			}
			_, err := fmt.Fprintf(env.stdout, "counterseal %s %s %s/%s\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print digest, FIPS state and build settings as JSON")
	cmd.Flags().BoolVar(&sbom, "sbom", false, "print the modules of this binary as CycloneDX 1.6 JSON")
	return cmd
}

// version is what the build recorded of itself.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}

// buildReport is what version --json prints.
type buildReport struct {
	Version  string            `json:"version"`
	Go       string            `json:"go"`
	Platform string            `json:"platform"`
	SHA256   string            `json:"sha256"` // of the running binary
	FIPS     fipsState         `json:"fips140"`
	Settings map[string]string `json:"settings"` // as the build recorded them
}

// fipsState is the state of this process, not of the file: GODEBUG can change it.
type fipsState struct {
	Module   string `json:"module"`   // "latest" where no frozen module was linked
	Enabled  bool   `json:"enabled"`  // the module's checks of itself ran at start
	Enforced bool   `json:"enforced"` // anything that is not approved fails
}

func printBuild(w io.Writer) error {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return errors.New("this binary carries no build information")
	}
	digest, err := binaryDigest()
	if err != nil {
		return err
	}
	r := buildReport{
		Version: version(), Go: info.GoVersion, Platform: runtime.GOOS + "/" + runtime.GOARCH,
		SHA256:   hex.EncodeToString(digest[:]),
		FIPS:     fipsState{Module: fips140.Version(), Enabled: fips140.Enabled(), Enforced: fips140.Enforced()},
		Settings: map[string]string{},
	}
	for _, s := range info.Settings {
		r.Settings[s.Key] = s.Value
	}
	return writeIndented(w, r)
}

// binaryDigest is the SHA-256 of the file that this process runs, also when another
// one has taken its place since (Linux).
func binaryDigest() (sum [sha256.Size]byte, err error) {
	path := "/proc/self/exe"
	if runtime.GOOS != "linux" {
		if path, err = os.Executable(); err != nil {
			return sum, fmt.Errorf("finding the running binary: %w", err)
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return sum, fmt.Errorf("reading the running binary: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return sum, fmt.Errorf("reading the running binary: %w", err)
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

func writeIndented(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
