package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/counterseal/counterseal/internal/report"
)

// TestNoWayBackToTheFounder: who takes the record of offices out of the configuration is an
// operator, who reads no events and packs none. Collection goes on.
func TestNoWayBackToTheFounder(t *testing.T) {
	b := openBureau(t)
	who := b.people()
	key, err := report.NewRecipientKey("elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	b.stop()
	path := filepath.Join(b.dir, configName)
	conf, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(conf), "\noffices: offices.yaml\n", "\n", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	b.open()
	for _, q := range []string{"class_uid = 3002", "user.uid = " + who[0], ""} {
		b.does(0, "package.create", packageRequest{Case: "C-17", Purpose: "publish", Due: "2099-01-01", Output: filepath.Join(b.dir, "out.csp"), Query: q, Recipients: []string{string(key.Card().Bytes())}}, nil, 403, "record of offices")
	}
	b.asks("source = idp", 403, "no record of offices any more")
	if checks := b.s.officeChecks(); len(checks) != 1 || checks[0].State != "fail" {
		t.Errorf("the doctor says %+v", checks)
	}
	if r, err := b.s.pipe.Accept(t.Context(), aboutPeople(0, 3)); err != nil || r.Accepted != 3 {
		t.Errorf("collection has stopped: %v, %v", r, err)
	}
}
