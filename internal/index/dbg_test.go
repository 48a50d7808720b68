package index

import (
"testing"
"github.com/counterseal/counterseal/internal/query"
)
func queryLiteral(v string) string { return query.Literal(v).String() }

func TestDbg(t *testing.T) {
	x := open(t, Options{})
	rows := make([]Row, len(nasty))
	for i, v := range nasty {
		r := row(i)
		r.OCSF = []Attr{{"attr", v}}
		r.Native = []Attr{{"Field", v}, {`odd name "*" :=`, v}, {"_time", v}, {"several", v}, {"several", "x" + v}}
		rows[i] = r
	}
	add(t, x, rows...)
	for _, q := range []string{
		`attr = 1.0 | stats count() by attr`,
		`attr = 1.0 | stats count() by attr | sort by attr`,
		`attr = 1.0 | stats count() by attr, x`,
		`attr = 1.0 | stats count(), min(attr) as m by attr`,
		`attr = 1.0 | stats min(attr) as m`,
		`attr = 1.0 | stats max(attr) as m`,
		`attr = 1_000 | stats min(attr) as m by source`,
		`attr = 1_000 | stats count() by attr, x`,
		`attr = 1_000 | stats count() as count by attr, source`,
		`attr = 1_000 | stats count() by attr, "native.odd name \":="`,
		`attr = 1_000 | stats count() by attr, "native.odd name \":=" | sort by count, attr`,
	} {
		tab, err := x.Stats(t.Context(), ask(t, q), Scope{})
		t.Logf("%s: %q %v", q, tab.Rows, err)
	}
}

func TestDbg2(t *testing.T) {
	x := open(t, Options{})
	rows := make([]Row, len(nasty))
	for i, v := range nasty {
		r := row(i)
		r.OCSF = []Attr{{"attr", v}}
		rows[i] = r
	}
	add(t, x, rows...)
	for i, v := range nasty {
		for _, q := range []string{"attr = " + queryLiteral(v), "ref = " + ref("servers", i)} {
			got := find(t, x, q, Scope{}, 0)
			if len(got) != 1 || len(got[0].OCSF) != 1 || got[0].OCSF[0].Value != v {
				t.Errorf("%s: %+v", q, got)
			}
		}
		for _, q := range []string{"attr = " + queryLiteral(v)+" | stats count() by attr", "ref = " + ref("servers", i)+" | stats count() by attr"} {
			tab, _ := x.Stats(t.Context(), ask(t, q), Scope{})
			if len(tab.Rows) != 1 || tab.Rows[0][0] != v {
				t.Errorf("%s: %q", q, tab.Rows)
			}
		}
	}
}
