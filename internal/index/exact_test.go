package index

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
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

// TestTypedColumns mixes random texts that look like numbers, addresses and times
// into columns that hold nothing else, so that the library takes each column for
// one of its types. Whatever it then prints, the row comes back as written and is
// found by its own text.
func TestTypedColumns(t *testing.T) {
	x := open(t, Options{})
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	fillers := map[string]func(i int) string{
		"uint":  func(i int) string { return strconv.Itoa(i + 1000) },
		"int":   func(i int) string { return strconv.Itoa(-i - 1) },
		"float": func(i int) string { return strconv.Itoa(i) + ".5" },
		"ip":    func(i int) string { return "10.0.0." + strconv.Itoa(i+1) },
		"time":  func(i int) string { return fmt.Sprintf("2026-01-01T00:00:%02d.000Z", i) },
	}
	texts := []string{"-007", "-0", "00", "-00.5", "0.50", "1e3", "+1", "1.", "-.5", "--1", "1.0e2", "0x1", "1.7976931348623157", "123456789.123456789", "9007199254740993", "-9223372036854775808", "-9223372036854775809", "99999999999999999999", "0.0000001", "1.000", "1.2.3.256", "1.2.3", "1.2.3.4.5", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.0000Z", "2026-01-01 00:00:00.000Z", "1970-01-01T00:00:00.000Z", "1601-01-01T00:00:00.000Z", "2500-01-01T00:00:00.000Z", "1_0.5", "5\xff", "5_0\xff", "1.50\xff", "\xff", "1:.2.3.4", "0a.1.1.1", "0/.1.1.1", "2026-0:-01T00:00:00.000Z", "2026-01-01T00:00:0a.000Z", "_", "-_1", "60", "60.0"}
	for range 150 {
		b := make([]byte, 1+rnd.IntN(7))
		for i := range b {
			const from = "0011234567899..._-:e+"
			b[i] = from[rnd.IntN(len(from))]
		}
		texts = append(texts, string(b))
	}
	var rows []Row
	want := make(map[string]string)
	for n, v := range texts {
		for name, f := range fillers {
			for i := range 12 { // more than the eight values of a dictionary
				value := f(i)
				if i == 0 {
					value = v
				}
				r := row(len(rows))
				r.Dataset = fmt.Sprintf("%d-%s", n, name) // a stream and a block of its own
				r.OCSF = []Attr{{"v", value}}
				rows = append(rows, r)
				want[r.Ref] = value
			}
		}
	}
	add(t, x, rows...)
	got := find(t, x, "", Scope{}, 0)
	if len(got) != len(rows) {
		t.Fatalf("%d rows of %d", len(got), len(rows))
	}
	for _, r := range got {
		if len(r.OCSF) != 1 || r.OCSF[0].Value != want[r.Ref] {
			t.Errorf("in %s %q came back as %q", r.Dataset, want[r.Ref], r.OCSF)
		}
	}
	for _, v := range texts {
		n := 0
		for _, w := range want {
			if w == v {
				n++
			}
		}
		for _, q := range []string{"v = " + query.Literal(v).String(), "v in (zzz, " + query.Literal(v).String() + ")"} {
			found := find(t, x, q, Scope{}, 0)
			for _, r := range found {
				if want[r.Ref] != v {
					t.Errorf("%s found %q in %s", q, want[r.Ref], r.Dataset)
				}
			}
			if len(found) != n {
				t.Errorf("%s found %d rows of %d", q, len(found), n)
			}
		}
	}
}
