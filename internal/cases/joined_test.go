package cases

import (
	"fmt"
	"slices"
	"testing"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/query"
)

const questionID = "01890a5d-ac96-474b-bcce-b302099a8057"

// inEpoch is the token of an invented person in an epoch.
func inEpoch(n, epoch int) string {
	return string(event.NewToken(event.Person, epoch, [16]byte{byte(n), byte(epoch)}))
}

// history is somebody in the epochs up to one.
func history(n, epochs int) (out []string) {
	for e := 1; e <= epochs; e++ {
		out = append(out, inEpoch(n, e))
	}
	return out
}

func gave(h *house, caseID string, id int, people ...[]string) {
	h.t.Helper()
	h.must(h.Answered(h.t.Context(), h.as("ines"), caseID, fmt.Sprintf("01890a5d-ac96-474b-bcce-b302099a80%02d", id), people))
}

func joined(h *house, caseID string) *Joined {
	h.t.Helper()
	j, err := h.Joined(h.t.Context(), caseID)
	h.must(err)
	return j
}

// TestJoined: one person by the newest token, in one case, as the ledger says and no more.
func TestJoined(t *testing.T) {
	h := newHouse(t)
	if j := joined(h, "C-7"); j.Any() || j.One(inEpoch(1, 1)) != inEpoch(1, 1) || len(j.All(inEpoch(1, 1))) != 1 {
		t.Error("somebody is joined before a question")
	}
	gave(h, "C-7", 1, history(1, 2), history(2, 2), history(3, 1))
	before := joined(h, "C-7")
	gave(h, "C-7", 2, history(1, 11)) // later, after more epochs; 10 stands behind 9
	gave(h, "C-8", 3, history(4, 2))
	for range 2 { // the second time from the ledger alone
		j := joined(h, "C-7")
		for e := 1; e <= 11; e++ {
			all := j.All(inEpoch(1, e))
			if j.One(inEpoch(1, e)) != inEpoch(1, 11) || len(all) != 11 || all[1] != inEpoch(1, 10) || all[10] != inEpoch(1, 1) {
				t.Fatalf("epoch %d: %q", e, all)
			}
		}
		if j.One(inEpoch(2, 1)) != inEpoch(2, 2) || j.One(inEpoch(3, 1)) != inEpoch(3, 1) || j.One(inEpoch(4, 1)) != inEpoch(4, 1) {
			t.Error("others are joined wrongly")
		}
		if o := joined(h, "C-8"); o.One(inEpoch(1, 1)) != inEpoch(1, 1) || o.One(inEpoch(4, 1)) != inEpoch(4, 2) || joined(h, "").Any() {
			t.Error("another case sees the link")
		}
		h.open()
	}
	if before.One(inEpoch(1, 1)) != inEpoch(1, 2) {
		t.Error("what was given has changed")
	}
	for name, people := range map[string][][]string{
		"nobody": {}, "no token": {{}}, "a name": {{"alice"}}, "two kinds": {{inEpoch(9, 1), token(event.Mail, 9)}}, "too many": slices.Repeat([][]string{history(9, 1)}, 21),
	} {
		if err := h.Answered(t.Context(), h.as("ines"), "C-7", questionID, people); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for _, leaf := range h.s.leaves {
		if at, _ := event.NextToken([]byte(leaf)); at >= 0 {
			t.Errorf("a leaf holds a token: %s", leaf)
		}
	}
	clear(h.s.payloads) // nobody is joined by what is not kept
	h.open()
	if joined(h, "C-7").Any() {
		t.Error("joined without a payload")
	}
}

// TestJoinedIsCovered: an authorisation for one token of a person covers the others in its
// case, and nobody else; in another case, and before, it does not.
func TestJoinedIsCovered(t *testing.T) {
	h := newHouse(t)
	h.authorised("ines", draft(inEpoch(1, 1)), "olga")
	other := draft(inEpoch(1, 1))
	other.Case = "C-8"
	h.authorised("ines", other, "olga")
	// As a question stands once it asks about all tokens of the person.
	ask := func(caseID string, tokens ...string) bool {
		var of query.OneOf
		of.Field = "user.uid"
		for _, token := range tokens {
			of.Of = append(of.Of, query.Literal(token))
		}
		q := access.Search{Query: &query.Query{Where: of}}
		var o access.Options
		if j := joined(h, caseID); j.Any() {
			o.Joined = j.One
		}
		c := h.ask("ines", caseID, Question{Named: access.Named(q, o), Verdict: access.Selects(q, o), Confined: func(covered func(Named) bool) bool { return access.Covers(q, o, covered) }})
		return c.Authorisation == Covers
	}
	if !ask("C-7", inEpoch(1, 1)) || ask("C-7", inEpoch(1, 2)) || ask("C-7", history(1, 2)...) {
		t.Error("before the link")
	}
	gave(h, "C-7", 1, history(1, 30))
	if !ask("C-7", inEpoch(1, 1)) || !ask("C-7", inEpoch(1, 2)) || !ask("C-7", history(1, 30)...) { // 30 tokens are one person, and need no counsel
		t.Error("after the link")
	}
	if ask("C-7", inEpoch(1, 1), inEpoch(2, 2)) || ask("C-8", history(1, 2)...) || ask("C-8", inEpoch(1, 2)) {
		t.Error("it covers others, or another case")
	}
	// A broken glass and the other way round.
	id := h.glass("remo", "C-7", inEpoch(1, 7))
	if id == "" || h.ask("remo", "C-7", about(inEpoch(1, 3))).Grant != Covers || h.ask("remo", "C-7", about(inEpoch(2, 3))).Grant == Covers {
		t.Error("a broken glass")
	}
}
