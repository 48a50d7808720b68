package web

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/access"
	"github.com/counterseal/counterseal/internal/event"
	"github.com/counterseal/counterseal/internal/index"
	"github.com/counterseal/counterseal/internal/query"
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

// searches asks a question with more parameters, name by name.
func (h *house) searches(user int, q string, more ...string) *httptest.ResponseRecorder {
	v := url.Values{"q": {q}}
	for i := 0; i+1 < len(more); i += 2 {
		v.Set(more[i], more[i+1])
	}
	return h.as(user, "GET", "/api/v1/search?"+v.Encode(), "")
}

// rowsOf reads an answer in rows.
func rowsOf(t *testing.T, w *httptest.ResponseRecorder) (out []Row) {
	t.Helper()
	if w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for line := range strings.Lines(w.Body.String()) {
		var r Row
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		out = append(out, r)
	}
	return out
}

// TestHarmlessHalves: who asks once for the people of some events and once for what was
// looked up in the same ones does not learn who looked up what: neither by a value that the
// first answer showed, nor by its time, nor by the limit, nor by one event more or less.
func TestHarmlessHalves(t *testing.T) {
	h := staffed(t)
	const contents = " | fields time, query.hostname, dst_endpoint.port"
	people := rowsOf(t, h.searches(asAnalyst, "class_uid = 4003 | sort by time", "limit", "1000"))
	if len(people) < 50 {
		t.Fatalf("%d rows", len(people))
	}
	secret := func(what string, w *httptest.ResponseRecorder) {
		t.Helper()
		if strings.Contains(w.Body.String(), ".example\"") || w.Code != 403 && !strings.HasPrefix(w.Body.String(), `{"columns":["events","people"]}`) {
			t.Errorf("%s: %d %.300s", what, w.Code, w.Body)
		}
	}
	tried := 0
	for _, r := range people[:3] {
		if len(r.Fields["src_endpoint.ip"]) != 1 || r.Get("query.hostname") != "" {
			t.Fatalf("%+v", r)
		}
		at, err := time.Parse(time.RFC3339Nano, r.Time)
		if err != nil {
			t.Fatal(err)
		}
		stamp, next := r.Time, at.Add(time.Nanosecond).Format(time.RFC3339Nano)
		secret("its time", h.searches(asAnalyst, "class_uid = 4003"+contents, "from", stamp, "to", stamp))
		secret("its time in the question", h.searches(asAnalyst, `class_uid = 4003 and time >= "`+stamp+`" and time < "`+next+`"`+contents))
		secret("its reference", h.searches(asAnalyst, `class_uid = 4003 and ref = "`+r.Ref+`"`+contents))
		for name, values := range r.Fields {
			if w := h.searches(asAnalyst, "class_uid = 4003 and "+name+" = "+strconv.Quote(values[0])); w.Code == 200 && strings.Count(w.Body.String(), `"ref"`) < 8 {
				tried++
				secret(name, h.searches(asAnalyst, "class_uid = 4003 and "+name+" = "+strconv.Quote(values[0])+contents))
			}
		}
	}
	if tried < 9 {
		t.Errorf("%d fields lead to few events", tried)
	}
	for _, q := range []string{"class_uid = 4003 | limit 1", "class_uid = 4003 | sort by time | limit 1", "class_uid = 4003 | sort by src_endpoint.ip | limit 3"} {
		secret(q, h.searches(asAnalyst, q+contents))
	}
	secret("a limit outside of the question", h.searches(asAnalyst, "class_uid = 4003"+contents, "limit", "1"))
	secret("sorted by a field of nobody", h.searches(asAnalyst, "class_uid = 4003 | sort by native.unheard"))

	// All of them are shown, in an order of their own, without people; and not one less.
	all := rowsOf(t, h.searches(asAnalyst, "class_uid = 4003"+contents, "limit", "1000"))
	if len(all) != len(people) || !slices.IsSortedFunc(all, func(a, b Row) int {
		return strings.Compare(a.Time+a.Get("query.hostname"), b.Time+b.Get("query.hostname"))
	}) {
		t.Errorf("%d rows of contents, %d of people", len(all), len(people))
	}
	for _, r := range all {
		if r.Ref != "" || len(r.Time) != len(time.DateOnly) || r.Get("src_endpoint.ip") != "" {
			t.Fatalf("%+v", r)
		}
	}
	secret("all but the first", h.searches(asAnalyst, `class_uid = 4003 and time > "`+people[0].Time+`"`+contents, "limit", "1000"))
	secret("all but the first", h.searches(asAnalyst, "class_uid = 4003"+contents, "limit", "1000", "from", people[1].Time))

	// The start page says the same.
	page := func(q string) string {
		return h.as(asAnalyst, "GET", "/?"+url.Values{"q": {q}}.Encode(), "").Body.String()
	}
	if text := page("class_uid = 4003 and src_endpoint.port = " + people[0].Get("src_endpoint.port") + contents); strings.Contains(text, all[0].Get("query.hostname")+"<") || !strings.Contains(text, "8 people or more") {
		t.Errorf("the page: %s", text)
	}
}

// TestRecordsOfSomebody: a record in which anybody stands, in whatever field, is not opened
// without an authorisation.
func TestRecordsOfSomebody(t *testing.T) {
	h := staffed(t)
	h.o.Acts["prove"] = func(ctx context.Context, _ string, body []byte) (any, error) {
		return map[string]any{}, h.JudgeRecord(ctx, string(body), true)
	}
	seen := map[string]string{} // a record of each dataset
	err := h.pipe.Index().Query(t.Context(), &query.Query{}, index.Scope{}, 100_000, func(r index.Row) bool {
		for _, f := range slices.Concat(r.OCSF, r.Native) {
			if from, _ := event.NextToken([]byte(f.Value)); from >= 0 && r.Kind != index.KindFinding {
				seen[r.Dataset] = r.Ref
			}
		}
		return true
	})
	if err != nil || len(seen) < 8 {
		t.Fatalf("%d datasets: %v", len(seen), err)
	}
	for dataset, ref := range seen {
		if w := h.as(asInvestigator, "POST", "/api/v1/acts/prove", ref); w.Code != 403 {
			t.Errorf("a record of %s: %d %s", dataset, w.Code, w.Body)
		}
	}
}

// TestEverySurface asks one question of each class in every form in which something can be
// asked, without anything that covers it: only what selects nobody is answered with rows,
// people by what they did in counts at most, and nothing at a protected channel.
func TestEverySurface(t *testing.T) {
	h := staffed(t)
	h.o.Acts["package.create"] = func(ctx context.Context, _ string, body []byte) (any, error) {
		q, err := query.Parse(string(body))
		if err != nil {
			return nil, err
		}
		_, _, _, err = h.JudgeExport(ctx, q, time.Time{}, time.Time{})
		return map[string]any{}, err
	}
	h.o.Acts["hold.place"] = func(ctx context.Context, _ string, body []byte) (any, error) {
		q, err := query.Parse(string(body))
		if err != nil {
			return nil, err
		}
		return map[string]any{}, h.JudgeStanding(ctx, access.Hold{Query: q})
	}
	act := func(name string) func(string) *httptest.ResponseRecorder {
		return func(q string) *httptest.ResponseRecorder {
			return h.as(asInvestigator, "POST", "/api/v1/acts/"+name, q)
		}
	}
	get := func(path string) func(string) *httptest.ResponseRecorder {
		return func(q string) *httptest.ResponseRecorder {
			return h.as(asAnalyst, "GET", path+"?"+url.Values{"q": {q}, "limit": {"1000"}}.Encode(), "")
		}
	}
	n := 0
	for surface, ask := range map[string]func(string) *httptest.ResponseRecorder{
		"search": get("/api/v1/search"), "findings": get("/api/v1/findings"), "page": get("/"), "package": act("package.create"), "hold": act("hold.place"),
		"table": func(q string) *httptest.ResponseRecorder { return get("/api/v1/search")(q + " | top 50 by user.uid") },
		"over": func(q string) *httptest.ResponseRecorder {
			return get("/api/v1/search")(q + " | stats count() by bin(1m)")
		},
		"sorted": func(q string) *httptest.ResponseRecorder { return get("/api/v1/search")(q + " | sort by user.uid") },
		"fields": func(q string) *httptest.ResponseRecorder { return get("/api/v1/search")(q + " | fields class_uid") },
		"contents": func(q string) *httptest.ResponseRecorder {
			return get("/api/v1/search")(q + " | fields query.hostname")
		},
	} {
		for class, q := range questionsOf {
			n++
			w := ask(q)
			text := w.Body.String()
			rows := strings.Contains(text, `"ref":"`) || surface == "page" && strings.Contains(text, "<td><code>")
			refused := w.Code == 403 || surface == "page" && w.Code == 200 && strings.Contains(text, "selects")
			counts := w.Code == 200 && strings.HasPrefix(text, `{"columns":["events","people"]}`) || surface == "over" && w.Code == 200 && strings.HasPrefix(text, `{"columns":["time","count"]}`)
			ok := false
			switch class {
			case "nobody":
				// The records of a package name people, and go along whole.
				ok = surface == "package" && refused || surface != "package" && w.Code == 200 || surface == "contents" && refused
			case "reverse":
				// A hold lists nothing, and of findings the ones are asked that match.
				ok = !rows && (refused || counts || surface == "hold" || surface == "findings" || surface == "page")
			default:
				ok = refused && !rows
			}
			if !ok {
				t.Errorf("%s of %s: %d\n%.300s", surface, class, w.Code, text)
			}
		}
	}
	if told, err := h.o.Gate.Cases.Reports(t.Context()); err != nil || len(told) < 9 {
		t.Errorf("the overseer was told of %d questions, %v", len(told), err)
	}
	t.Logf("%d questions", n)
}
