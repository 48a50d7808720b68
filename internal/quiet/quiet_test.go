package quiet

import (
	"bytes"
	"log"
	"testing"
)

// TestFilter: the one line is dropped, others pass.
func TestFilter(t *testing.T) {
	var out bytes.Buffer
	l := log.New(filter{&out}, "", 0)
	l.Print("ERROR: metrics: disable exposing PSI metrics because of failed init: no such file")
	l.Print("ERROR: something else")
	if got := out.String(); got != "ERROR: something else\n" {
		t.Errorf("got %q", got)
	}
}
