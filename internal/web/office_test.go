package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/counterseal/counterseal/internal/ledger"
	"github.com/counterseal/counterseal/internal/pipeline"
	"github.com/counterseal/counterseal/internal/policy"
)

// TestOffices: somebody with two offices asks in the one that they name, in their first
// without a name, and never in another's.
func TestOffices(t *testing.T) {
	h := newHouse(t, pipeline.Options{})
	ask := func(user int, office, target string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", "http://localhost"+target, strings.NewReader(""))
		if office != "" {
			r.Header.Set(OfficeHeader, office)
		}
		w := httptest.NewRecorder()
		h.Socket().ServeHTTP(w, r.WithContext(WithActor(r.Context(), fmt.Sprintf("os:%d", user))))
		return w
	}
	// last is what the ledger has of the newest request.
	last := func() (kind, actor, office, rule string) {
		t.Helper()
		log := h.pipe.Recorder().Ledger()
		var s ledger.Statement
		if _, err := log.Each(t.Context(), 0, func(_ uint64, one ledger.Statement, raw []byte) error {
			if bytes.Contains(raw, []byte("planted")) {
				t.Errorf("%s", raw)
			}
			if strings.HasPrefix(one.Kind, "request.") {
				s = one
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		var d struct{ Office, Rule string }
		if err := json.Unmarshal(s.Detail, &d); err != nil {
			t.Fatal(err)
		}
		return s.Kind, s.Actor, d.Office, d.Rule
	}

	if w := ask(0, "planted", "/api/v1/status"); w.Code != 403 || !strings.Contains(w.Body.String(), "no record of offices") {
		t.Errorf("without a record: %d %s", w.Code, w.Body)
	}
	var text strings.Builder
	text.WriteString("form: offices/v1\noffices:\n")
	for _, o := range []struct {
		id     string
		holder int
		role   string
	}{{"night", 1, "analyst"}, {"day", 1, "operator"}, {"other", 2, "overseer"}} {
		fmt.Fprintf(&text, "  - id: %s\n    authority: authority-%s\n    holder: os-%d\n    standing: confirmed\n    since: 2025-01-01\n    roles: [%s]\n    training_until: 2027-01-01\n", o.id, o.id, o.holder, o.role)
	}
	var err error
	if h.offices, err = policy.ParseOffices([]byte(text.String()), h.o.Gate.Policy().Roles()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		user         int
		named        string
		code         int
		office, says string
	}{
		{1, "", 200, "night", ""},
		{1, "night", 200, "night", ""},
		{1, "day", 200, "day", ""},
		{2, "", 200, "other", ""},
		{1, "other", 403, "", "name one of yours with --office: night, day"},
		{1, "planted", 403, "", "night, day"},
		{3, "night", 403, "", "holds no office"},
	} {
		w := ask(c.user, c.named, "/api/v1/status")
		kind, actor, office, rule := last()
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.says) || strings.Contains(w.Body.String(), "planted") || office != c.office || actor != fmt.Sprintf("os:%d", c.user) {
			t.Errorf("%d in %q: %d, %s in %q\n%s", c.user, c.named, w.Code, actor, office, w.Body)
		}
		if refused := c.code == 403; refused != (kind == "request.refused") || refused != (rule == "office") {
			t.Errorf("%d in %q: the ledger has %s by rule %q", c.user, c.named, kind, rule)
		}
	}
}
