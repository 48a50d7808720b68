package index

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/query"
)

// TestNumbersComeBackAsWritten: with only numbers, addresses or times in a column
// the library stores them in a form of its own; nobody may see that.
func TestNumbersComeBackAsWritten(t *testing.T) {
	sealed := time.Date(2026, 3, 5, 12, 0, 0, 0, time.UTC)
	for name, values := range map[string][]string{
		"float":   {"60.0", "60", "60.00", "1.50", "1.5", "1700000000.123456", "1700000000.1234567", "0.1", "0.10", "-0", "-0.0", "-1.250", "7.", ".5"},
		"integer": {"1_000", "1000", "007", "7", "18446744073709551615", "-5", "12345678901234567890123"},
		"address": {"1.2.3.4", "01.2.3.4", "1.2.3.04", "255.255.255.255"},
		"time":    {"2026-02-30T10:00:00.000Z", "2026-02-28T10:00:00.000Z", "2026-02-28T10:00:60.000Z", "2026-13-01T10:00:00.000Z", "2026-02-28T24:00:00.000Z"},
	} {
		t.Run(name, func(t *testing.T) {
			x, err := Open(Options{Dir: t.TempDir(), Now: func() time.Time { return sealed }})
			if err != nil {
				t.Fatal(err)
			}
			defer x.Close()
			// Many rows, so that the library does not take the column for a dictionary.
			var rows []Row
			for i := range 40 {
				for j, v := range values {
					rows = append(rows, Row{Ref: fmt.Sprintf("c/%d/%d", i, j), Time: sealed.UnixNano() + int64(i), Sealed: sealed, Compartment: "c", Source: "s", Dataset: "d", Kind: KindEvent,
						Native: []Attr{{"v", v}}})
				}
				if name == "float" || name == "integer" { // more than the eight values of a dictionary
					v := fmt.Sprint(i + 100)
					rows = append(rows, Row{Ref: fmt.Sprintf("c/%d/x", i), Time: sealed.UnixNano(), Sealed: sealed, Compartment: "c", Source: "s", Dataset: "d", Kind: KindEvent, Native: []Attr{{"v", v}}})
				}
			}
			if _, err := x.Append(t.Context(), rows); err != nil {
				t.Fatal(err)
			}
			if err := x.Flush(); err != nil {
				t.Fatal(err)
			}
			want := map[string]string{}
			for _, r := range rows {
				want[r.Ref] = r.Native[0].Value
			}
			q, err := query.Parse("")
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			err = x.Query(context.Background(), q, Scope{}, 0, func(r Row) bool {
				n++
				if len(r.Native) != 1 || r.Native[0].Value != want[r.Ref] {
					t.Errorf("%s: %q came back as %q", r.Ref, want[r.Ref], r.Native)
				}
				return n < 2000
			})
			if err != nil || n != len(rows) {
				t.Fatalf("%d rows, want %d, %v", n, len(rows), err)
			}
			for _, v := range values {
				q, err := query.Parse(`native.v = '` + v + `'`)
				if err != nil {
					t.Fatal(err)
				}
				n := 0
				if err := x.Query(context.Background(), q, Scope{}, 0, func(r Row) bool {
					n++
					if want[r.Ref] != v {
						t.Errorf("= %q found %q", v, want[r.Ref])
					}
					return true
				}); err != nil || n != 40 {
					t.Errorf("= %q found %d rows, want 40; %v", v, n, err)
				}
			}
		})
	}
}

func TestOrderOfInexactNumbers(t *testing.T) {
	for v, want := range map[string]string{"60.0": "60", "1.50": "1.5", "1_0": "1_0\xff", "-0": "-0\xff", "1\xff": "1\xff\xff", "10": "10", "abc": "abc", "1.2.3": "1.2.3"} {
		if got, _ := kept(v); got != want {
			t.Errorf("%q is stored as %q, want %q", v, got, want)
		}
		if got, exact := kept(v); !exact && written(got) != v && got[len(got)-1] == 0xff {
			t.Errorf("%q comes back from its mark as %q", v, written(got))
		}
	}
}
