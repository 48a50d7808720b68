// Package quiet keeps one line off standard error: the index library complains at the
// start of every program on machines without the files of cgroup v2 that its own metrics
// read, which we do not show. It is imported for that effect alone, and it works because
// packages that need little are initialised before those that need net/http.
package quiet

import (
	"bytes"
	"io"
	"log"
	"os"
)

func init() { log.SetOutput(filter{os.Stderr}) }

// psi begins what the library says.
var psi = []byte("metrics: disable exposing PSI metrics")

// filter lets every other line pass. log writes each line with one call.
type filter struct{ to io.Writer }

func (f filter) Write(b []byte) (int, error) {
	if bytes.Contains(b, psi) {
		return len(b), nil
	}
	return f.to.Write(b)
}
