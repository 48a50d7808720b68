package lifecycle

import (
	"fmt"
	"strings"
	"testing"

	"github.com/counterseal/counterseal/internal/approval"
	"github.com/counterseal/counterseal/internal/attest"
	"github.com/counterseal/counterseal/internal/officer"
)

type act = attest.Act

func actOf(kind, key string, detail any) act {
	return act{Kind: kind, Actor: attest.System, Subject: []string{key}, Detail: detail}
}

// officers are investigation, oversight, and the spare of each.
type officers struct {
	keys   []*officer.Key
	roster *officer.Roster
}

func newOfficers(t testing.TB) *officers {
	t.Helper()
	o := &officers{}
	var b strings.Builder
	b.WriteString("apiVersion: officers/v1\nepoch: 1\nofficers:\n")
	for i, name := range []string{"Inga Investigator", "Omar Oversight", "Ines Spare", "Otto Spare"} {
		office, authority := officer.Investigation, "Head of Legal"
		if i%2 == 1 {
			office, authority = officer.Oversight, "Works Council"
		}
		k, err := officer.New(name, office, i > 1)
		if err != nil {
			t.Fatal(err)
		}
		o.keys = append(o.keys, k)
		fmt.Fprintf(&b, "  - id: %s\n    authority: %s\n    card: '%s'\n", k.Card().ID(), authority, k.Card().Bytes())
	}
	var err error
	if o.roster, err = officer.ParseRoster("officers.yaml", []byte(b.String())); err != nil {
		t.Fatal(err)
	}
	return o
}

func (o *officers) sign(t testing.TB, statement []byte, by ...int) (out []approval.Signed) {
	t.Helper()
	for _, i := range by {
		d, err := o.keys[i].Sign(approval.Approve, statement)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, d)
	}
	return out
}
