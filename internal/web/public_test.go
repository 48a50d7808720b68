package web

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/oversight"
)

// publicReport has counts that are told, and some that are not.
func publicReport() *oversight.Report {
	from := time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC)
	return &oversight.Report{
		Audience: oversight.Public, Size: 1234567, From: from, To: from.AddDate(0, 3, 0), Median: 2, Slow: 6,
		Families: []oversight.Family{
			{Name: "looks", Total: 412, Parts: []oversight.Part{
				{Dim: "cover", Rows: []oversight.Count{{Value: "authorisation", N: 377}}, Rest: 35},
				{Dim: "review", Rows: []oversight.Count{{Value: "justified", N: 380}, {Value: "waiting", N: 32}}},
			}},
			{Name: "glasses", Total: oversight.Few},
			{Name: "decisions", Total: 51, Parts: []oversight.Part{{Dim: "decision", Rows: []oversight.Count{{Value: "approve", N: 39}, {Value: "refuse", N: 12}}}}},
		},
	}
}

// TestPublicPage: it needs no login, names no person, says whether people are looked at and
// since when not, and tells counts as the report does.
func TestPublicPage(t *testing.T) {
	h := full(t)
	var facts *PublicFacts
	var failed error
	h.o.Public = func(context.Context) (*PublicFacts, error) { return facts, failed }
	since := time.Date(2026, 11, 3, 8, 30, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		facts PublicFacts
		says  []string
		never []string
	}{
		"nobody":  {PublicFacts{}, []string{"Nobody may look at people.", "is being counted"}, []string{"people is watched"}},
		"watched": {PublicFacts{Watched: true, Report: publicReport()}, []string{"Looking at people is watched.", "1 July 2026 to 30 September 2026", "412", "fewer than 8", "others, not told apart", "within 3 days", "statements of the ledger"}, []string{"has stopped", "authorisations wait"}},
		"waits":   {PublicFacts{Watched: true, Waits: true}, []string{"New authorisations wait"}, nil},
		"vacant":  {PublicFacts{Watched: true, Waits: true, Stopped: &oversight.Silence{Reason: oversight.Vacant, Since: since}}, []string{"Looking at people has stopped", "3 November 2026, 08:30", "no independent office"}, []string{"people is watched"}},
		"unheard": {PublicFacts{Watched: true, Stopped: &oversight.Silence{Reason: oversight.Unheard, Since: since}}, []string{"no independent overseer was heard for 14 days"}, nil},
	} {
		facts = &c.facts
		for _, handler := range []string{"people", "loopback"} {
			w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "http://localhost/public", nil)
			if handler == "people" {
				h.People().ServeHTTP(w, r)
			} else {
				h.Loopback().ServeHTTP(w, r)
			}
			if w.Code != 200 || strings.Contains(w.Body.String(), "<script") || w.Header().Get("Set-Cookie") != "" {
				t.Fatalf("%s, %s: %d %s", name, handler, w.Code, w.Body)
			}
			for _, want := range c.says {
				if !strings.Contains(w.Body.String(), want) {
					t.Errorf("%s: the page does not say %q\n%s", name, want, w.Body)
				}
			}
			for _, bad := range c.never {
				if strings.Contains(w.Body.String(), bad) {
					t.Errorf("%s: the page says %q", name, bad)
				}
			}
		}
	}
	failed = errors.New("the ledger is gone")
	w := httptest.NewRecorder()
	h.People().ServeHTTP(w, httptest.NewRequest("GET", "http://localhost/public", nil))
	if w.Code != 500 || strings.Contains(w.Body.String(), "gone") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	h.o.Public = nil
	w = httptest.NewRecorder()
	h.People().ServeHTTP(w, httptest.NewRequest("GET", "http://localhost/public", nil))
	if w.Code != 404 {
		t.Errorf("without a page: %d", w.Code)
	}
}

// TestTogether: what one source sends under the same terms is one line.
func TestTogether(t *testing.T) {
	a := publicSource{Source: "dc", Dataset: "one", Kept: "1 day"}
	b, c := a, a
	b.Dataset, c.Kept = "two", "2 days"
	got := together([]publicSource{a, b, b, c})
	if len(got) != 2 || got[0].Dataset != "one, two" || got[1].Dataset != "one" {
		t.Errorf("got %+v", got)
	}
}
