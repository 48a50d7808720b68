package web

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/alias"
	"github.com/counterseal/counterseal/internal/cases"
	"github.com/counterseal/counterseal/internal/pipeline"
	"github.com/counterseal/counterseal/internal/policy"
	"github.com/counterseal/counterseal/internal/query"
)

// roles in the order of docs/policy-matrix.md; the user os-N holds the office of the
// N-th, and os-0 none: the founder, where there are no offices.
var matrixRoles = []string{"analyst", "responder", "investigator", "privacy_officer", "overseer", "compliance", "operator", "collector"}

// allOffices has one confirmed and trained holder for each role, of chains and
// authorities of their own.
func allOffices(t *testing.T, set *policy.Set) *policy.Offices {
	t.Helper()
	var b strings.Builder
	b.WriteString("form: offices/v1\noffices:\n")
	for i, role := range matrixRoles {
		fmt.Fprintf(&b, "  - id: office-%d\n    authority: authority-%d\n    holder: os-%d\n    standing: confirmed\n    since: 2025-01-01\n    roles: [%s]\n    training_until: 2027-01-01\n", i+1, i+1, i+1, role)
	}
	o, err := policy.ParseOffices([]byte(b.String()), set.Roles())
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// gateOf is the decision point of a house: the policies in the program, the record of
// offices that the test gives, and no findings that open anything.
func gateOf(t *testing.T, h *house, p *pipeline.Pipeline) Gate {
	t.Helper()
	set, err := policy.Load(policy.Default())
	if err != nil {
		t.Fatal(err)
	}
	aliases, err := alias.Open(alias.Options{Path: filepath.Join(t.TempDir(), "aliases.db"), MAC: p.AliasMAC, Now: func() time.Time { return h.now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { aliases.Close() })
	offices := func() *policy.Offices { return h.offices }
	book, err := cases.Open(t.Context(), cases.Options{
		Statements: p.Recorder(), Now: func() time.Time { return h.now }, Offices: offices, Policy: DecideBy(func() *policy.Set { return set }),
	})
	if err != nil {
		t.Fatal(err)
	}
	return Gate{
		Policy: func() *policy.Set { return set }, Offices: offices, Access: p.Asking, Purposes: p.Purposes,
		Cases: book, Aliases: aliases, Owner: "os-0", Team: "team",
	}
}

// as sends a request over the socket as a user of the operating system.
func (h *house) as(user int, method, target, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://localhost"+target, strings.NewReader(body))
	w := httptest.NewRecorder()
	h.Socket().ServeHTTP(w, r.WithContext(WithActor(r.Context(), fmt.Sprintf("os:%d", user))))
	return w
}

// matrix reads docs/policy-matrix.md: what each role may, by act and by what the question
// selects, and which act each route is.
func matrix(t *testing.T) (may map[[2]string][]string, routes map[string]string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/policy-matrix.md")
	if err != nil {
		t.Fatal(err)
	}
	may, routes = map[[2]string][]string{}, map[string]string{}
	route := regexp.MustCompile("^\\| `([^`]+)` \\| (?:`([^`]+)`|(.+)) \\|$")
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.Trim(strings.TrimSpace(cells[i]), "`")
		}
		if len(cells) == 3+len(matrixRoles) && cells[0] != "act" && !strings.HasPrefix(cells[0], "---") {
			may[[2]string{cells[0], cells[1]}] = cells[2:]
		}
		if m := route.FindStringSubmatch(strings.TrimSpace(line)); m != nil && (strings.Contains(m[1], "/")) {
			routes[m[1]] = m[2] + m[3]
		}
	}
	if len(may) < 80 || len(routes) < 15 {
		t.Fatalf("the tables were not found: %d acts, %d routes", len(may), len(routes))
	}
	return may, routes
}

// questionsOf is one question for each class.
var questionsOf = map[string]string{
	"nobody":         "class_uid = 3002",
	"person":         "class_uid = 3002 and user.uid = alice",
	"reverse":        "query.hostname : example",
	"person+reverse": "(query.hostname : example or url.hostname : example) and (user.uid != alice)",
	"protected":      "query.hostname = hotline.oig.example",
}

// rulesOf is one rule for each class that a rule can have.
var rulesOf = map[string]string{
	"nobody":    "title: a\nid: 0d1a53a4-7e0c-4c53-8d2f-3a3c2f5b0001\nlogsource: {product: windows, category: process_creation}\ndetection: {s: {Image|endswith: '\\cmd.exe'}, condition: s}\n",
	"person":    "title: a\nid: 0d1a53a4-7e0c-4c53-8d2f-3a3c2f5b0002\nlogsource: {product: windows, service: security}\ndetection: {s: {EventID: 4624, TargetUserName: alice}, condition: s}\n",
	"reverse":   "title: a\nid: 0d1a53a4-7e0c-4c53-8d2f-3a3c2f5b0003\nlogsource: {category: dns}\ndetection: {s: {query|contains: newspaper}, condition: s}\n",
	"protected": "title: a\nid: 0d1a53a4-7e0c-4c53-8d2f-3a3c2f5b0004\nlogsource: {category: dns}\ndetection: {s: {query|contains: hotline.oig.example}, condition: s}\n",
}

// TestRoutesAndRoles walks every route with every role, in the machine of a founder and in
// one with offices, and holds the answers against docs/policy-matrix.md.
func TestRoutesAndRoles(t *testing.T) {
	h := full(t)
	may, routes := matrix(t)
	n := 0
	check := func(name, act, selects, role string, user int, w *httptest.ResponseRecorder) {
		t.Helper()
		n++
		row, ok := may[[2]string{act, selects}]
		if !ok {
			t.Fatalf("docs/policy-matrix.md has no row for %s of %s", act, selects)
		}
		want := row[len(row)-1]
		if i := slices.Index(matrixRoles, role); i >= 0 {
			want = row[i]
		}
		allowed := want == "yes"
		if !allowed && strings.HasPrefix(selects, "reverse") { // counts instead of rows
			counts := may[[2]string{"search.count", selects}]
			c := counts[len(counts)-1]
			if i := slices.Index(matrixRoles, role); i >= 0 {
				c = counts[i]
			}
			allowed = c == "yes" && act == "search"
		}
		if got := w.Code != http.StatusForbidden; got != allowed || w.Code >= 500 {
			t.Errorf("%s by %s, %s: %d, and the matrix says %s\n%s", name, role, selects, w.Code, want, w.Body)
		}
	}
	try := func(role string, user int) {
		for _, rt := range h.routes() {
			if told, ok := routes[rt.pattern]; ok {
				act := rt.act
				switch {
				case act == byName:
					act = "by its act"
				case act == "":
					act = "open"
				}
				if told != act {
					t.Errorf("%s is %s in docs/policy-matrix.md and %s here", rt.pattern, told, act)
				}
			} else if rt.pattern != "/es/{source}/" {
				t.Errorf("docs/policy-matrix.md does not tell of %s", rt.pattern)
			}
			if rt.act == "" || rt.door == ingests {
				continue
			}
			method, path, ok := strings.Cut(rt.pattern, " ")
			if !ok {
				method, path = "GET", rt.pattern
			}
			path = strings.TrimSuffix(path, "{$}")
			switch {
			case rt.act == byName:
				for act := range h.o.Acts {
					if judging[act] {
						continue
					}
					check(act, action(act), "-", role, user, h.as(user, method, strings.Replace(path, "{act}", act, 1), "{}"))
				}
			case rt.act == "rules.run":
				for selects, rule := range rulesOf {
					body := `{"files":[{"path":"a.yml","data":"` + base64.StdEncoding.EncodeToString([]byte(rule)) + `"}]}`
					check(rt.pattern, rt.act, selects, role, user, h.as(user, method, path, body))
				}
			case rt.events:
				for selects, q := range questionsOf {
					if rt.act == "findings" && strings.Contains(selects, "reverse") {
						continue // findings are the way that a reverse search is asked
					}
					check(rt.pattern, rt.act, selects, role, user, h.as(user, method, path+"?q="+url.QueryEscape(q), ""))
				}
			default:
				check(rt.pattern, rt.act, "-", role, user, h.as(user, method, path, "{}"))
			}
		}
	}
	try("founder", 0)
	h.offices = allOffices(t, h.o.Gate.Policy())
	for i, role := range matrixRoles {
		try(role, i+1)
	}
	t.Logf("%d requests", n)
}

// TestPackagesOfCounts: what is answered in counts is no package, with whichever question
// before it in the same request.
func TestPackagesOfCounts(t *testing.T) {
	h := full(t)
	h.offices = allOffices(t, h.o.Gate.Policy())
	h.o.Acts["package.create"] = func(ctx context.Context, _ string, body []byte) (any, error) {
		q, err := query.Parse(string(body))
		if err != nil {
			return nil, err
		}
		_, _, _, err = h.JudgeExport(ctx, q, time.Time{}, time.Time{})
		return map[string]any{}, err
	}
	for q, want := range map[string]int{
		"class_uid = 3002 | fields class_uid": 403, "class_uid = 3002 and source = none": 200, "class_uid = 4003 | fields class_uid": 403, "* | fields time": 403, "class_uid = 4003 | top 5 by class_uid": 403,
		"class_uid = 4003 | fields query.hostname": 403, questionsOf["reverse"]: 403, questionsOf["person"]: 403, "": 403} {
		if w := h.as(3, "POST", "/api/v1/acts/package.create", q); w.Code != want {
			t.Errorf("a package of %q: %d, want %d\n%s", q, w.Code, want, w.Body)
		}
	}
}
