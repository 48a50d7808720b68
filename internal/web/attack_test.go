package web

import (
	"encoding/base64"
	"net/http/httptest"
	"strings"
	"testing"
)

// Users of a house with offices, by their place in matrixRoles.
const (
	asAnalyst      = 1
	asResponder    = 2
	asInvestigator = 3
)

// staffed is a house with the small incident and somebody in every office.
func staffed(t *testing.T) *house {
	t.Helper()
	h := full(t)
	h.offices = allOffices(t, h.o.Gate.Policy())
	return h
}

// runs asks rules about what is sealed.
func (h *house) runs(user int, rules ...string) *httptest.ResponseRecorder {
	var files []string
	for i, r := range rules {
		files = append(files, `{"path":"`+string(rune('a'+i))+`.yml","data":"`+base64.StdEncoding.EncodeToString([]byte(r))+`"}`)
	}
	return h.as(user, "POST", "/api/v1/rules/run", `{"files":[`+strings.Join(files, ",")+`]}`)
}

// TestRulesOfOnePerson: a rule that one person brings is a search. It shows nobody beside
// what they looked up: not by a test that is always true, nor by a group, nor with a test of
// a program beside it.
func TestRulesOfOnePerson(t *testing.T) {
	h := staffed(t)
	const head = "title: a\nid: 0d1a53a4-7e0c-4c53-8d2f-3a3c2f5b0003\nlogsource: {category: dns}\ndetection: "
	const plain = head + "{s: {qtype_name: A}, condition: s}\n"
	group := func(by string) string {
		return plain + "---\ntitle: b\nid: 0d1a53a4-7e0c-4c53-8d2f-3a3c2f5b0004\ncorrelation: {type: event_count, rules: [0d1a53a4-7e0c-4c53-8d2f-3a3c2f5b0003], group-by: [" + by + "], timespan: 1h, condition: {gte: 1}}\n"
	}
	for name, c := range map[string]struct {
		rule string
		want int
	}{
		"every question of a kind": {plain, 200},
		"any value":                {head + "{s: {query: '*', id.orig_h: '*'}, condition: s}\n", 403},
		"a value":                  {head + "{s: {query|exists: true, id.orig_h|exists: true}, condition: s}\n", 403},
		"any length":               {head + "{s: {query|re: '.*'}, condition: s}\n", 403},
		"any but one":              {head + "{s: {id.orig_h: '*'}, f: {query: nowhere.example}, condition: s and not f}\n", 403},
		"beside a program":         {head + "{s: {query|endswith: .example, Image|contains: e}, condition: s}\n", 403},
		"beside nothing":           {head + "{s: {query|endswith: .example}, f: {Image: nothing.exe}, condition: s and not f}\n", 403},
		"a word anywhere":          {head + "{s: [travel-desk], condition: s}\n", 403},
		"a field of nobody":        {head + "{s: {unheard_of|contains: e}, condition: s}\n", 403},
		"groups by contents":       {group("query, id.orig_h"), 403},
		"groups by machine":        {group("id.orig_h"), 200},
		"a name for the contents":  {strings.Replace(group("x"), "group-by", "aliases: {x: {0d1a53a4-7e0c-4c53-8d2f-3a3c2f5b0003: query}}, group-by", 1), 403},
	} {
		w := h.runs(asAnalyst, c.rule)
		if w.Code != c.want || (c.want == 200) != (w.Body.Len() > 0 && !strings.Contains(w.Body.String(), `"code"`)) {
			t.Errorf("%s: %d, want %d\n%.400s", name, w.Code, c.want, w.Body)
		}
		if c.want != 200 && strings.Contains(w.Body.String(), "travel-desk") {
			t.Errorf("%s: shows what was looked up", name)
		}
	}
	// One that may be asked is, and the others are named as left out.
	w := h.runs(asAnalyst, plain, strings.Replace(head, "0003", "0005", 1)+"{s: {query: '*'}, condition: s}\n")
	if w.Code != 200 || !strings.Contains(w.Header().Get(noticeHeader), "1 of 2 rules") || strings.Contains(w.Body.String(), "travel-desk") {
		t.Errorf("two rules: %d %v\n%.300s", w.Code, w.Header(), w.Body)
	}
}
