package access

import (
	"fmt"
	"iter"
	"testing"

	"github.com/counterseal/counterseal/internal/event"
)

func fieldsOf(pairs ...string) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for i := 0; i < len(pairs); i += 2 {
			if !yield(pairs[i], pairs[i+1]) {
				return
			}
		}
	}
}

func tokenOf(kind event.TokenKind, n int) string {
	return string(event.NewToken(kind, 1, [16]byte{byte(kind), byte(n), byte(n >> 8)}))
}

// TestHeads: whoever has a token in a row counts once, in whatever field; machines count
// where nobody else does.
func TestHeads(t *testing.T) {
	p := func(n int) string { return tokenOf(event.Person, n) }
	d := func(n int) string { return tokenOf(event.Device, n) }
	for name, c := range map[string]struct {
		rows [][]string
		want int
	}{
		"nothing":               {nil, 0},
		"nobody":                {[][]string{{"class_uid", "1007", "process.name", "a.exe", "user.uid", "SYSTEM"}}, 0},
		"one in two fields":     {[][]string{{"user.uid", p(1), "native.user", p(1)}}, 1},
		"two, and again":        {[][]string{{"user.uid", p(1), "actor.user.uid", p(2)}, {"user.uid", p(2)}}, 2},
		"within text":           {[][]string{{"message", "from " + p(1) + " to " + p(2) + "," + tokenOf(event.Mail, 3)}}, 3},
		"a person at a machine": {[][]string{{"user.uid", p(1), "device.hostname", d(1)}}, 1},
		"a machine alone":       {[][]string{{"user.uid", "root", "device.hostname", d(1)}, {"src_endpoint.ip", tokenOf(event.Address, 1)}}, 2},
		"in clear":              {[][]string{{"class_uid", "3002", "user.uid", "a.person"}, {"class_uid", "3002", "user.uid", "A.Person"}}, 1},
	} {
		var h Heads
		for _, row := range c.rows {
			h.Row(fieldsOf(row...), Options{})
		}
		if len(h.seen) != c.want {
			t.Errorf("%s: %d, want %d", name, len(h.seen), c.want)
		}
	}
	var h Heads
	for i, want := 1, CrowdFew; i <= OutsideAbove+1; i++ {
		h.Row(fieldsOf("user.uid", p(i)), Options{})
		switch i {
		case CounselAbove + 1:
			want = CrowdCounsel
		case OutsideAbove + 1:
			want = CrowdOutside
		}
		if got := h.Crowd(); got != want || h.Full() != (i > OutsideAbove) {
			t.Fatalf("%s", fmt.Sprint(i, " people are ", got, ", want ", want))
		}
	}
}
