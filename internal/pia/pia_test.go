package pia

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterseal/counterseal/internal/packs"
)

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func date(s string) time.Time {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		panic(err)
	}
	return t
}

var now = date("2026-11-22")

// complete is a draft with nothing left to fill in.
func complete() Draft {
	return Draft{
		ID: "PIA-TEST-2026-001", Title: "test", Owner: "CISO", ATO: "ATO-1", SSP: "9cbd98f3-abcb-4948-ad06-14e0bcba742f",
		Authority: "law", Purpose: "detect", Notice: "banner", Redress: "office", Schedule: "item",
		Signers:     []Signer{{Role: "SAOP", Name: "A", KeyID: "a", Sig: "x", SignedAt: "2026-01-01T00:00:00Z"}, {Role: "CISO", Name: "B", KeyID: "b", Sig: "y", SignedAt: "2026-01-01T00:00:00Z"}},
		Publication: Publication{URL: "https://agency.example/p", Digest: "sha256:" + strings.Repeat("0", 64), PublishedAt: "2026-01-01T00:00:00Z"},
		Effective:   date("2026-01-01"), Expires: date("2028-01-01"),
		Sources: []DraftSource{{Source: "idp", Dataset: "signin", Fields: []DraftField{
			{Path: "time", Action: "allow"},
			{Path: "user.name", Action: "tokenise", Category: "person"},
			{Path: "message", Action: "allow", Reason: "the reason of the refusal stands only here"},
		}}},
	}
}

func text() string { return string(complete().YAML()) }

func mustParse(t testing.TB, s string) *PIA {
	t.Helper()
	p, problems := Parse("test.yaml", []byte(s))
	if p == nil || !p.Valid() {
		t.Fatalf("%v\n%s", problems, s)
	}
	return p
}

func replaced(t testing.TB, s, old, with string) string {
	t.Helper()
	if !strings.Contains(s, old) {
		t.Fatalf("no %q in\n%s", old, s)
	}
	return strings.Replace(s, old, with, 1)
}

// TestPack reads the cases of the shared pack and compares with its truth.
func TestPack(t *testing.T) {
	dir := filepath.Join(packs.Dir(t, "gov"), "synthetic", "pia")
	var truth struct {
		AsOf  string `json:"as_of"`
		Cases []struct{ File, Expect, Why string }
	}
	if err := json.Unmarshal(readFile(t, filepath.Join(dir, "truth.json")), &truth); err != nil || len(truth.Cases) < 9 {
		t.Fatalf("truth: %v, %d cases", err, len(truth.Cases))
	}
	at := date(truth.AsOf)
	for _, c := range truth.Cases {
		p, problems := Parse(c.File, readFile(t, filepath.Join(dir, c.File)))
		set, _ := NewSet([]*PIA{p}, at)
		rule, no := set.Find("idp", "signin", "", at)
		if p != nil {
			if ok, why, hint := p.Opens(at); ok != p.opens(at) || ok == (why != "") || ok == (hint != "") {
				t.Errorf("%s: opens %v, %v, %q, %q", c.File, ok, p.opens(at), why, hint)
			}
		}
		if got := rule != nil; got != (c.Expect == "accept") {
			t.Errorf("%s: open %v, want %s (%s): %v", c.File, got, c.Expect, c.Why, problems)
		}
		if no != nil && (no.Code != "pia_missing" || no.Reason == "" || no.Hint == "") {
			t.Errorf("%s: refusal %+v", c.File, no)
		}
	}
}

func TestSchemaIsTheSharedOne(t *testing.T) {
	if !bytes.Equal(schemaText, readFile(t, packs.File(t, "pia.schema.json"))) {
		t.Error("pia.schema.json differs from the shared copy")
	}
}

// TestProblems breaks one thing at a time; each has its code and the line it is on.
func TestProblems(t *testing.T) {
	good := text()
	if p, problems := Parse("t", []byte(good)); !p.Valid() || !p.Unsigned() || slices.ContainsFunc(problems, func(p Problem) bool { return p.Level == Error }) {
		t.Fatalf("%v", problems)
	}
	for _, c := range []struct{ code, old, with string }{
		{"unknown_field", "kind: PIA", "kind: PIA\nsecret: 1"},
		{"missing_field", "sharing: []", ""},
		{"unreadable", "kind: PIA", "kind: PIA\nkind: PIA"},
		{"unreadable", "sharing: []", "sharing: &a []"},
		{"unreadable", "sharing: []", "sharing: !!seq []"},
		{"unreadable", "  audit: true", "  <<: {audit: true}"},
		{"unreadable", "sharing: []", "sharing: *a"},
		{"unreadable", "sharing: []", "sharing: []\n---\na: 1"},
		{"unreadable", "sharing: []", "sharing: ["},
		{"unreadable", "sharing: []", "sharing: \"\xff\""},
		{"unreadable", "sharing: []", "sharing: " + strings.Repeat("[", 40) + strings.Repeat("]", 40)},
		{"schema", "version: 1", "version: 1.5"},
		{"schema", "version: 1", "version: 0x10"},
		{"schema", `effective: "2026-01-01"`, `effective: "2026-13-01"`},
		{"schema", "https://agency.example/p", "not a uri"},
		{"default_not_drop", "default: drop", "default: allow"},
		{"placeholder", `owner: "CISO"`, `owner: "<FILL IN: who>"`},
		{"under_threshold", "threshold: 2", "threshold: 3"},
		{"under_threshold", "role: CISO", "role: system-owner"},
		{"no_privacy_signer", "role: SAOP", "role: CIO"},
		{"signer_twice", `key_id: "b"`, `key_id: "a"`},
		{"dates_crossed", `expires: "2028-01-01"`, `expires: "2025-01-01"`},
		{"expiry_too_long", `expires: "2028-01-01"`, `expires: "2029-01-02"`},
		{"purpose_unknown", "purposes: [intrusion-detection]", "purposes: [marketing]"},
		{"purpose_twice", "subjects:", "  - {id: intrusion-detection, statement: again}\nsubjects:"},
		{"compartment_name", `compartment: "default"`, `compartment: "../x"`},
		{"compartment_not_listed", `compartment: "default"`, `compartment: "other"`},
		{"path_twice", `{path: "time"`, `{path: "user.name"`},
		{"path_bad", `{path: "time"`, `{path: "a..b"`},
		{"path_bad", `{path: "time"`, `{path: "a*.b"`},
		{"category_refused", `category: "person"`, `category: "biometric"`},
		{"category_refused", `action: tokenise, category: "person"`, `action: drop, category: "user.location.precise"`},
		{"category_refused", `category: "person"`, `category: " Content "`},
		{"free_text_unjustified", `, justification: "the reason of the refusal stands only here"`, ""},
		{"free_text_unjustified", `{path: "time"`, `{path: "x.CommandLine"`},
		{"free_text_unjustified", `{path: "time"`, `{path: "x.*"`},
		{"arg_bad", `{path: "time", action: allow`, `{path: "time", action: truncate`},
		{"arg_bad", `{path: "time", action: allow`, `{path: "time", action: truncate, arg: 0`},
		{"arg_unused", `{path: "time", action: allow`, `{path: "time", action: allow, arg: 3`},
		{"unlinkable_unused", `{path: "time", action: allow`, `{path: "time", action: allow, unlinkable: true`},
		{"original_longer", "retention_days: 365", "retention_days: 10\n    original_days: 20"},
		{"original_unjustified", "retention_days: 365", "retention_days: 365\n    original_days: 31"},
		{"time_zone_unknown", "retention_days: 365", "retention_days: 365\n    time_zone: Mars/Olympus"},
		{"time_zone_unknown", "retention_days: 365", "retention_days: 365\n    time_zone: Local"},
		{"join_key_unknown", `join_keys: ["user.name"]`, `join_keys: ["salary"]`},
		{"sharing_field_unknown", "sharing: []", "sharing: [{recipient: x, purpose: y, agreement: z, fields: [salary]}]"},
		{"poam_missing", "residual: low", "residual: high"},
	} {
		bad := replaced(t, good, c.old, c.with)
		p, problems := Parse("t", []byte(bad))
		i := slices.IndexFunc(problems, func(p Problem) bool { return p.Code == c.code })
		if i < 0 || problems[i].Level != Error {
			t.Errorf("%s: %q for %q gives %v", c.code, c.with, c.old, problems)
			continue
		}
		if p != nil && p.Valid() {
			t.Errorf("%s: still valid", c.code)
		}
		if c.code == "unknown_field" || c.code == "category_refused" {
			line := 1 + strings.Count(bad[:strings.Index(bad, c.with)], "\n") + strings.Count(c.with, "\n")
			if problems[i].Line != line {
				t.Errorf("%s: line %d, want %d", c.code, problems[i].Line, line)
			}
		}
	}
}

// TestPlainScalars: where the schema says string, YAML's ideas of dates, numbers and
// truth do not count.
func TestPlainScalars(t *testing.T) {
	s := replaced(t, text(), `effective: "2026-01-01"`, "effective: 2026-01-01")
	s = replaced(t, s, `owner: "CISO"`, "owner: 0123")
	s = replaced(t, s, `title: "test"`, "title: yes")
	p := mustParse(t, s)
	if p.System.Owner != "0123" || p.Title != "yes" || p.Effective != "2026-01-01" {
		t.Errorf("%+v", p)
	}
}

func TestJSONStrict(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`{"a":1,"a":2}`, "stands twice"},
		{"{\n\"a\":\"\\ud800\"}", "line 2: half of a surrogate pair"},
		{`{"a":"\ud83d\ude00"}`, ""},
		{`{"a":"\\ud800"}`, ""},
		{`{"a":"\udc00\ud800"}`, "surrogate"},
	} {
		_, err := readTree([]byte(c.in), maxBytes)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.in, err, c.want)
		}
	}
}

// TestCanonical takes the examples of RFC 8785.
func TestCanonical(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001,-0],"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}`, ""},
		{`[333333333.33333329,1E-30,4.50,2e-3,0.000000000000000000000000001,-0,1e-7,0.000001,-1.5e-9]`, `[333333333.3333333,1e-30,4.5,0.002,1e-27,0,1e-7,0.000001,-1.5e-9]`},
		{`"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/"`, "\"\u20ac$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\""},
		{`{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":7}`, "{\"\\r\":2,\"1\":4,\"\u0080\":6,\"ö\":7,\"€\":1,\"😀\":5,\"\ufb33\":3}"},
		{`9007199254740992`, ""},
	} {
		d := json.NewDecoder(strings.NewReader(c.in))
		d.UseNumber()
		var v any
		if err := d.Decode(&v); err != nil {
			t.Fatal(err)
		}
		got, err := appendCanonical(nil, v)
		if c.want == "" {
			if err == nil {
				t.Errorf("%s: accepted a number that has no canonical form: %s", c.in, got)
			}
			continue
		}
		if err != nil || string(got) != c.want {
			t.Errorf("%s\n got %s (%v)\nwant %s", c.in, got, err, c.want)
		}
	}
}

// TestDigest: YAML and JSON of one document are one digest; the signature and the
// place of publication are not under it; everything else is.
func TestDigest(t *testing.T) {
	base := mustParse(t, text())
	root, err := readTree([]byte(text()), maxBytes)
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(typed(root, loadSchema().tree))
	if err != nil {
		t.Fatal(err)
	}
	if mustParse(t, string(asJSON)).Digest() != base.Digest() {
		t.Error("JSON and YAML differ")
	}
	for _, c := range []struct {
		old, with string
		same      bool
	}{
		{`sig: "x"`, `sig: "z"`, true},
		{"https://agency.example/p", "https://agency.example/q", true},
		{`published_at: "2026-01-01T00:00:00Z"`, `published_at: "2026-01-02T00:00:00Z"`, true},
		{"threshold: 2", "threshold:   2", true},
		{`action: tokenise`, `action: allow`, false},
		{"retention_days: 365", "retention_days: 366", false},
	} {
		got := mustParse(t, replaced(t, text(), c.old, c.with)).Digest() == base.Digest()
		if got != c.same {
			t.Errorf("%q for %q: same digest %v", c.with, c.old, got)
		}
	}
}

func TestPaths(t *testing.T) {
	d := complete()
	d.Sources[0].Fields = []DraftField{
		{Path: "a.b", Action: "allow"},
		{Path: "a.*", Action: "tokenise", Reason: "r"},
		{Path: "a.b.*", Action: "drop"},
		{Path: "*.b.c", Action: "hash-keyed"},
		{Path: "a.*.c", Action: "truncate"},
		{Path: "user.name", Action: "tokenise", Category: "person"},
	}
	p := mustParse(t, string(d.YAML()))
	set, _ := NewSet([]*PIA{p}, now)
	rule, no := set.Find("idp", "signin", "", now)
	if no != nil {
		t.Fatal(no)
	}
	for path, want := range map[string]Action{
		"a.b": Allow, "a.x": Tokenise, "a.b.x": Drop, "a.b.c": Drop, "x.b.c": HashKeyed, "a.y.c": Truncate,
		"a": Drop, "a.b.c.d": Drop, "": Drop, ".": Drop, "A.b": Drop, "a.b.": Drop, "a.": Tokenise, "user.name.x": Drop, "user": Drop,
	} {
		if got, _, _ := rule.Action(path); got != want {
			t.Errorf("%q: %v, want %v", path, got, want)
		}
	}
	if _, _, c := rule.Action("user.name"); c != "person" {
		t.Errorf("category %q", c)
	}
	dropped, altered := Blinds([]string{"a.b", "x.b.c", "other", "user.name"}, rule)
	if !slices.Equal(dropped, []string{"other"}) || !slices.Equal(altered, []string{"x.b.c"}) {
		t.Errorf("blinded %v, altered %v", dropped, altered)
	}
	if n := testing.AllocsPerRun(100, func() { rule.Field("a.y.c"); rule.Field("no.such.path.at.all") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestPathsAgainstModel compares the tree with the plain statement of the rule:
// whole match, a written segment before a *, from the left.
func TestPathsAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	segment := func(wild bool) string {
		if wild && rng.IntN(3) == 0 {
			return "*"
		}
		return string("abc"[rng.IntN(3)])
	}
	path := func(wild bool) string {
		s := segment(wild)
		for range rng.IntN(4) {
			s += "." + segment(wild)
		}
		return s
	}
	better := func(a, b string) bool { // is a the longer match
		x, y := strings.Split(a, "."), strings.Split(b, ".")
		for i := range x {
			if (x[i] == "*") != (y[i] == "*") {
				return y[i] == "*"
			}
		}
		return false
	}
	matches := func(pattern, path string) bool {
		x, y := strings.Split(pattern, "."), strings.Split(path, ".")
		if len(x) != len(y) {
			return false
		}
		for i := range x {
			if x[i] != "*" && x[i] != y[i] {
				return false
			}
		}
		return true
	}
	for range 3000 {
		tr := &tree{}
		var patterns []string
		for range 1 + rng.IntN(8) {
			p := path(true)
			patterns = append(patterns, p)
			tr.add(&FieldRule{Path: p})
		}
		name := path(false)
		want := ""
		for _, p := range patterns {
			if matches(p, name) && (want == "" || better(p, want)) {
				want = p
			}
		}
		got := ""
		if f := tr.find(name); f != nil {
			got = f.Path
		}
		if got != want {
			t.Fatalf("%q in %q: got %q, want %q", name, patterns, got, want)
		}
	}
}

func TestVersions(t *testing.T) {
	version := func(n int, changes ...string) *PIA {
		s := replaced(t, text(), "version: 1 ", fmt.Sprintf("version: %d ", n))
		for i := 0; i < len(changes); i += 2 {
			s = replaced(t, s, changes[i], changes[i+1])
		}
		return mustParse(t, s)
	}
	open := func(at time.Time, pias ...*PIA) int {
		set, _ := NewSet(pias, now)
		r, no := set.Find("idp", "signin", "", at)
		if (r == nil) == (no == nil) {
			t.Fatal("neither rule nor refusal")
		}
		if r == nil {
			return 0
		}
		return r.Version
	}
	expires := `expires: "2028-01-01"`
	for _, c := range []struct {
		name string
		want int
		pias []*PIA
	}{
		{"one", 1, []*PIA{version(1)}},
		{"higher replaces", 2, []*PIA{version(1), version(2)}},
		{"lower later is refused", 2, []*PIA{version(2), version(1)}},
		{"equal later is refused", 2, []*PIA{version(2), version(2, "retention_days: 365", "retention_days: 9")}},
		{"an expired version does not give way to the one before", 0, []*PIA{version(1), version(2, expires, `expires: "2026-11-21"`)}},
		{"a version of tomorrow waits", 1, []*PIA{version(1), version(2, `effective: "2026-01-01"`, `effective: "2026-11-23"`)}},
		{"the last day counts", 1, []*PIA{version(1, expires, `expires: "2026-11-22"`)}},
		{"a version that is withdrawn from the public closes", 0, []*PIA{version(1), version(2, "status: published", "status: exempt\n  exemption_basis: order")}},
		{"a version that narrows closes what it leaves", 0, []*PIA{version(1), version(2, `dataset: "signin"`, `dataset: "other"`)}},
		{"PTA", 0, []*PIA{version(1, "kind: PIA", "kind: PTA")}},
		{"nothing", 0, nil},
	} {
		if got := open(now.Add(23*time.Hour), c.pias...); got != c.want {
			t.Errorf("%s: version %d opens, want %d", c.name, got, c.want)
		}
	}
	if got := open(date("2026-11-23"), version(1, expires, `expires: "2026-11-22"`)); got != 0 {
		t.Error("open on the day after the last")
	}
	_, problems := NewSet([]*PIA{version(2), version(1)}, now)
	if !slices.ContainsFunc(problems, func(p Problem) bool { return p.Code == "version_not_higher" }) {
		t.Errorf("%v", problems)
	}
	left := version(1, expires, `expires: "2026-12-20"`).Dates(now)
	if len(left) != 1 || left[0].Code != "expires_in_30" {
		t.Errorf("%v", left)
	}
}

// TestStricter: of two assessments on one selector each field gets the stricter word;
// a more specific selector decides alone.
func TestStricter(t *testing.T) {
	a := complete()
	a.Sources[0].Fields = []DraftField{{Path: "x", Action: "allow"}, {Path: "y", Action: "tokenise"}, {Path: "z", Action: "allow"}, {Path: "w", Action: "hash-keyed"}}
	b := complete()
	b.ID = "PIA-OTHER-2026-001"
	b.Sources[0].Fields = []DraftField{{Path: "x", Action: "tokenise"}, {Path: "y", Action: "drop"}, {Path: "w", Action: "detect-only"}}
	b.Sources[0].RetentionDays, b.OriginalDays = 30, -1
	pa, pb := mustParse(t, string(a.YAML())), mustParse(t, string(b.YAML()))
	for _, order := range [][]*PIA{{pa, pb}, {pb, pa}} {
		set, problems := NewSet(order, now)
		rule, no := set.Find("idp", "signin", "", now)
		if no != nil {
			t.Fatal(no)
		}
		for path, want := range map[string]Action{"x": Tokenise, "y": Drop, "z": Drop, "w": HashKeyed} {
			if got, _, _ := rule.Action(path); got != want {
				t.Errorf("%s: %v, want %v", path, got, want)
			}
		}
		if rule.Retention != 30 || rule.KeepsOriginal() || len(rule.Names()) != 2 {
			t.Errorf("%+v", rule)
		}
		if !slices.ContainsFunc(problems, func(p Problem) bool { return p.Code == "selector_conflict" }) {
			t.Errorf("no word about the conflict: %v", problems)
		}
		if again, _ := set.Find("idp", "signin", "", now); again != rule {
			t.Error("the joined rule is built twice")
		}
	}
	wide := complete()
	wide.ID, wide.Sources[0].Dataset = "PIA-WIDE-2026-001", ""
	wide.Sources[0].Fields = []DraftField{{Path: "x", Action: "drop"}, {Path: "q", Action: "allow"}}
	set, _ := NewSet([]*PIA{mustParse(t, string(wide.YAML())), pa}, now)
	if rule, _ := set.Find("idp", "signin", "", now); rule.PIA != pa.ID {
		t.Error("the wider selector decides")
	}
	if rule, _ := set.Find("idp", "else", "", now); rule == nil || rule.PIA != "PIA-WIDE-2026-001" {
		t.Error("the wider selector does not cover the rest")
	}
	if rules := set.Rules(now); len(rules) != 2 || rules[0].Dataset != "" {
		t.Errorf("%d rules", len(rules))
	}
}

// TestDraft: an empty draft is a document in which every gap is named, and it opens
// nothing.
func TestDraft(t *testing.T) {
	d := Draft{Sources: []DraftSource{{Title: "sign-ins\nof an identity provider", Dataset: "signin", Fields: []DraftField{
		{Path: "user.name", Action: "tokenise", Category: "person", Reason: "who"},
		{Path: "message", Action: "allow", Category: "text"},
		{Path: "mail.body", Action: "drop", Category: "content", Reason: "content of a message"},
		{Path: "src.ip", Action: "truncate", Category: "address"},
	}}, {Source: "empty"}}}
	p, problems := Parse("draft.yaml", d.YAML())
	if p == nil || p.Valid() {
		t.Fatalf("%v", problems)
	}
	for _, q := range problems {
		if q.Level == Error && q.Code != "placeholder" && q.Code != "under_threshold" && q.Code != "signer_twice" {
			t.Errorf("%v", q)
		}
	}
	if n := strings.Count(string(d.YAML()), "<"+placeholder) - 1; n < 15 { // one is in the comment
		t.Errorf("%d places to fill in", n)
	}
	if mustParse(t, text()).Name() == "" {
		t.Error("no name")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(text()))
	f.Add(Draft{Sources: []DraftSource{{Source: "x"}}}.YAML())
	f.Add([]byte(`{"apiVersion":"pia/v1","a":"\ud800"}`))
	f.Add([]byte("a: &x [*x]"))
	f.Add([]byte("- !!binary x\n---\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, problems := Parse("fuzz", data)
		if p == nil && len(problems) == 0 {
			t.Fatal("no document and no problem")
		}
		if p == nil || !p.Valid() {
			return
		}
		// What is valid keeps what the gate promises.
		if p.Approval.Threshold < 2 || len(p.Sources) == 0 {
			t.Fatalf("valid: %+v", p)
		}
		set, _ := NewSet([]*PIA{p}, now)
		for _, s := range p.Sources {
			for _, field := range s.Fields {
				if categoryRefused(field.Category) {
					t.Fatal("a refused category is valid")
				}
			}
			rule, no := set.Find(s.Selector.Source, s.Selector.Dataset, s.Selector.Collector, now)
			if (rule == nil) == (no == nil) {
				t.Fatal("neither rule nor refusal")
			}
			if rule != nil && (p.Kind != "PIA" || p.Publication.Status != "published") {
				t.Fatal("the gate is open")
			}
		}
		again, _ := Parse("fuzz", data)
		if again.Digest() != p.Digest() {
			t.Fatal("two digests")
		}
	})
}
