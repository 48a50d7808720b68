package web

import (
	"strings"
	"testing"

	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/query"
)

// TestWidened: where one token of a person stands, all of them do, and the question is
// otherwise the same. What is widened can be printed and read again.
func TestWidened(t *testing.T) {
	tok := func(n, epoch int) string {
		return string(event.NewToken(event.Person, epoch, [16]byte{byte(n), byte(epoch)}))
	}
	a, b, other := tok(1, 2), tok(1, 1), tok(2, 1)
	joined := cases.Join([]string{a, b})
	fill := func(s string) string {
		return strings.NewReplacer("A", a, "B", b, "C", other).Replace(s)
	}
	for in, want := range map[string]string{
		`user.uid = A`:                       `user.uid in (A, B)`,
		`user.uid = B`:                       `user.uid in (A, B)`,
		`user.uid = C`:                       `user.uid = C`,
		`user.uid != A`:                      `user.uid != A and user.uid != B`,
		`user.uid in (A, C)`:                 `user.uid in (A, B, C)`,
		`user.uid : A`:                       `user.uid : A or user.uid : B`,
		`process.file.path : *\\A\\*`:        `process.file.path : *\\A\\* or process.file.path : *\\B\\*`,
		`process.file.path = 'c:\users\A\x'`: `process.file.path in ('c:\users\A\x', 'c:\users\B\x')`,
		`"A"`:                                `"A" or "B"`,
		`kind = event and user.uid != A`:     `kind = event and user.uid != A and user.uid != B`,
		`kind = event or "A"`:                `kind = event or "A" or "B"`,
		`not (user.uid = A or kind = x)`:     `not (user.uid in (A, B) or kind = x)`,
		`kind = event and (x = 1 or "A" y)`:  `kind = event and (x = 1 or ("A" or "B") y)`,
		`user.uid = A | top 5 by user.uid`:   `user.uid in (A, B) | top 5 by user.uid`,
		`a < 5 and last 2h`:                  `a < 5 and last 2h`,
	} {
		q, err := query.Parse(fill(in))
		if err != nil {
			t.Fatalf("%s: %v", in, err)
		}
		w := widener{joined: joined}
		got := *q
		got.Where = w.expr(q.Where)
		wanted, err := query.Parse(fill(want))
		if err != nil {
			t.Fatalf("%s: %v", want, err)
		}
		if got.String() != wanted.String() {
			t.Errorf("%s:\ngot  %s\nwant %s", in, got.String(), wanted.String())
		}
		again, err := query.Parse(got.String())
		if err != nil || again.String() != got.String() {
			t.Errorf("%s is not read again: %v", got.String(), err)
		}
	}
	for in, want := range map[string]string{"B": "A", "A": "A", "C": "C", "": "", "B C B=x": "A C A=x", "pB": "pA"} {
		if got := newest(joined, fill(in)); got != fill(want) {
			t.Errorf("%s: got %s, want %s", in, got, fill(want))
		}
	}
	// A question that would become too large is refused and not cut.
	var all []string
	for e := 1; e <= 9; e++ {
		all = append(all, tok(1, e))
	}
	q, err := query.Parse(`x = "` + strings.Repeat(all[0]+" ", 8) + `"`)
	if err != nil {
		t.Fatal(err)
	}
	w := widener{joined: cases.Join(all)}
	if w.expr(q.Where); !w.full {
		t.Error("nothing bounds it")
	}
}
